"""The sections of run.md that the contributor writes: deviations, notes and the attestation."""
from __future__ import annotations

from collections.abc import Mapping

from complete import declared

# What the contributor attests. Merged runs hold these lines as they were ticked.
STATEMENTS = (
    "I reviewed what these files publish: this page, and what `check_submission.py --answers "
    "--texts` shows. It holds no real key, address, user name, personal name or serial number "
    "(models may invent some), and a host name only if I chose to publish it.",
    "`python3 harness/check_submission.py --privacy` on this folder found no errors, and I "
    "reviewed its warnings.",
    "The numbers are those of this one run; no byte of `run.jsonl` was changed, and no other run "
    "was left out because its numbers were worse.",
    "These files are to be published under CC-BY-4.0, once a human has agreed to that.",
)
# The contributor's sections, with what they hold until something is written.
SECTIONS = {
    "deviations": "_What did you change for this machine, and why? If nothing, write: None._",
    "notes": "_What else should a reader know? If nothing, write: None._",
    "attestation": "\n".join(f"- [ ] {statement}" for statement in STATEMENTS),
}


def section_marks(name: str) -> tuple[str, str]:
    """The comments before and after a section."""
    return f"<!-- begin run_md.{name} -->", f"<!-- end run_md.{name} -->"


def read_sections(page: str) -> dict[str, str]:
    """The contributor's sections of a page. Raises ValueError if a mark is missing or repeated."""
    sections, at = {}, 0
    page = page.replace("\r\n", "\n")
    for name in SECTIONS:
        begin, end = section_marks(name)
        for mark in (begin, end):
            count = page.count(mark)
            if count != 1:
                raise ValueError(f"the mark {mark} appears {count} times instead of once")
        start, stop = page.index(begin) + len(begin), page.index(end)
        if not at <= start <= stop:
            raise ValueError(f"the mark {begin} is in the wrong place")
        sections[name], at = page[start:stop].strip("\n"), stop
    return sections


def section_text(name: str, text: str) -> str:
    """The content of a section after --set with `text`. Raises ValueError. null restores the
    placeholder. The attestation accepts only true, which ticks all statements."""
    if text == "null":
        return SECTIONS[name]
    if name == "attestation":
        if text != "true":
            raise ValueError(f"{text[:80]!a} is not valid; type true to tick every statement, or "
                             "null to untick them")
        return SECTIONS[name].replace("- [ ]", "- [x]")
    plain = text.strip().replace("\r\n", "\n")
    marks = [mark for section in SECTIONS for mark in section_marks(section)]
    if plain.lower() in declared.FILLERS or not plain.replace("\n", "").isprintable() or any(
            mark in plain for mark in marks):
        raise ValueError(f"{text[:80]!a} is not valid; type printable text without placeholders "
                         "and without the page's own comments, None. if there is nothing to say, "
                         "or null to remove it")
    return plain


def is_unwritten(sections: Mapping[str, str], name: str) -> bool:
    """True if a section is empty or holds a placeholder."""
    text = sections.get(name, "").strip()
    return text == SECTIONS[name] or text.lower() in declared.FILLERS


def unticked_statements(sections: Mapping[str, str]) -> list[str]:
    """The statements of the attestation that are not ticked, or were edited."""
    lines = [line.strip() for line in sections.get("attestation", "").split("\n")]
    return [statement for statement in STATEMENTS
            if not {f"- [x] {statement}", f"- [X] {statement}"} & set(lines)]
