"""Parse the documents: code blocks, inline code, commands, headings and tables."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

HARNESS = Path(__file__).resolve().parent.parent
ROOT = HARNESS.parent
RUNBOOK = ROOT / "CLAUDE.md"
PATHS = tuple(ROOT / name for name in (
    "README.md", "CONTRIBUTING.md", "CLAUDE.md", "AGENTS.md", "harness/README.md",
    "submissions/README.md", "submissions/QUERIES.md", ".github/pull_request_template.md")) + tuple(
        sorted((HARNESS / "docs").glob("*.md")))

RUNNABLE = "run"              # ```sh run: a test runs the block, in the document's order
SHELL = ("sh", "text")        # blocks whose lines may be commands
_FENCE = re.compile(r"(```+)\s*(\S*)[ \t]*(.*)")
_SPAN = re.compile(r"(?<!`)(`+)(?!`)(.+?)(?<!`)\1(?!`)")
_TABLE = re.compile(r"<!-- table:([a-z-]+):begin -->\n(.*?)<!-- table:\1:end -->", re.DOTALL)


class Block(NamedTuple):
    """A fenced block. info: the words after its language."""

    language: str
    info: str
    text: str


class Parts(NamedTuple):
    """The parts of a document. spans: inline code. prose: every line outside of blocks."""

    prose: list[str]
    blocks: list[Block]
    spans: list[str]


def read(path: Path) -> str:
    """A document's text."""
    return path.read_text("utf-8")


def parts(text: str) -> Parts:
    """Blocks and prose of a document; inline code may continue on the next line."""
    prose: list[str] = []
    blocks: list[Block] = []
    fence, held = None, []
    for line in text.split("\n"):
        opened = _FENCE.match(line)
        if fence is not None and line.strip() == fence[1]:
            blocks.append(Block(fence[2], fence[3].strip(), "\n".join(held)))
            fence, held = None, []
        elif fence is not None:
            held.append(line)
        elif opened:
            fence = opened
        else:
            prose.append(line)
    spans = [" ".join(found[2].split()) for found in _SPAN.finditer("\n".join(prose))]
    return Parts(prose, blocks, spans)


def without_tables(text: str) -> str:
    """A document without the tables that make_documents.py generates."""
    return _TABLE.sub("", text)


def tables(text: str) -> Iterator[tuple[str, str]]:
    """(name, text) of every generated table."""
    return ((found[1], found[2]) for found in _TABLE.finditer(text))


def with_tables(text: str, made: dict[str, str]) -> str:
    """The document with its tables replaced; KeyError for an unknown table."""
    return _TABLE.sub(lambda found: f"<!-- table:{found[1]}:begin -->\n{made[found[1]]}"
                      f"<!-- table:{found[1]}:end -->", text)


def headings(text: str) -> list[tuple[int, str]]:
    """(level, title) of every heading."""
    found = (re.match(r"(#{1,6}) (.*)", line) for line in parts(text).prose)
    return [(len(one[1]), one[2].strip()) for one in found if one]


def section(text: str, begin: str) -> str:
    """The text below the heading that begins so, up to the next heading of its level or above."""
    lines, level, kept = text.split("\n"), 0, []
    in_block = False
    for line in lines:
        in_block ^= line.startswith("```")
        heading = None if in_block else re.match(r"(#{1,6}) (.*)", line)
        if heading and level and len(heading[1]) <= level:
            break
        if level:
            kept.append(line)
        elif heading and heading[2].startswith(begin):
            level = len(heading[1])
    if not level:
        raise LookupError(f"no heading begins with {begin!r}")
    return "\n".join(kept)


def rows(text: str, first_title: str) -> list[list[str]]:
    """The body of the table whose first column has this title, with its cells stripped."""
    lines = text.split("\n")
    starts = [at for at, line in enumerate(lines) if line.startswith(f"| {first_title} |")]
    if len(starts) != 1:
        raise LookupError(f"{len(starts)} tables begin with {first_title!r}")
    found = []
    for line in lines[starts[0] + 2:]:
        if not line.startswith("|"):
            break
        found.append([cell.strip() for cell in line.strip().strip("|").split("|")])
    return found


def plain(cell: str) -> str:
    """A cell without its backticks."""
    return cell.replace("`", "")


def lines_of(block: str) -> Iterator[str]:
    """A shell block's commands: continued lines joined, comments and blank lines left out."""
    for line in block.replace("\\\n", " ").split("\n"):
        if line.strip() and not line.lstrip().startswith("#"):
            yield " ".join(line.split()) if '"' not in line else line.strip()


def simple_commands(line: str) -> list[list[str]]:
    """The words of each command in a line of shell, without leading assignments of variables.

    Raises ValueError for an open quote.
    """
    lexer = shlex.shlex(line, posix=True, punctuation_chars="|;&")
    lexer.whitespace_split, lexer.commenters = True, "#"
    found: list[list[str]] = [[]]
    for word in lexer:
        if set(word) <= set("|;&"):
            found.append([])
        elif found[-1] or not re.fullmatch(r"[A-Z_]+=\S*", word):
            found[-1].append(word)
    return [words for words in found if words]


def commands(text: str) -> Iterator[list[str]]:
    """Words of every command in a document's shell blocks and inline code."""
    taken = parts(text)
    for block in taken.blocks:
        if block.language in SHELL:
            for line in lines_of(block.text):
                if block.language == "sh" or line.startswith(("python3 ", "gh ", "git ")):
                    yield from simple_commands(line)
    for span in taken.spans:
        if re.match(r"(?:[A-Z_]+=\S+ )*(?:python3|bash) ", span):
            yield from simple_commands(span)


def runnable(text: str) -> list[str]:
    """The lines of every runnable block, in order."""
    return [line for block in parts(text).blocks
            if block.language == "sh" and block.info == RUNNABLE for line in lines_of(block.text)]
