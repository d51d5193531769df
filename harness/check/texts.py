"""Search the texts of a submission for invisible characters and private values, in one pass."""
from __future__ import annotations

import functools
import re
from collections.abc import Collection, Iterator, Sequence
from typing import Any

from check import findings
from core import privacy, schema
from core.privacy_patterns import WARNING
from core.records import LedgerLine

SCHEMAS = ("manifest", "ledger", "hardware", "metadata")
# Controls except tab and line ends, characters that turn, join or part text, letters without a
# glyph, tags. Ranges instead of Unicode categories, which change with the Python version.
_INVISIBLE = (r"\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u00ad\u034f\u115f\u1160\u17b4\u17b5"
              r"\u180b-\u180f\u200b\u2028-\u202e\u2060-\u206f\u3164\ufe00-\ufe0d\ufeff\uffa0"
              r"\ufff9-\ufffb\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff")
# Emoji and right-to-left scripts need some more of them in ordinary text.
INVISIBLE_IN_ANSWERS = re.compile(f"[{_INVISIBLE}]")
INVISIBLE = re.compile(rf"[{_INVISIBLE}\u061c\u200c-\u200f]")
ANSWER_FIELDS = ("response", "request.prompt", "error")      # written by a model or server
VERSION_WORDS = frozenset(("version", "driver", "build", "release", "kernel", "python"))
CACHED_CHARACTERS = 200       # of a text whose hits are cached
HOST_NAME = "host_hostname_short"


@functools.cache
def known_keys() -> frozenset[str]:
    """All keys that a schema names."""
    found: set[str] = set()
    waiting: list[Any] = [schema.schema(name) for name in SCHEMAS]
    while waiting:
        held = waiting.pop()
        if isinstance(held, dict):
            found.update(held.get("properties", ()))
            waiting += held.values()
        elif isinstance(held, list):
            waiting += held
    return frozenset(found)


def check_document(value: Any, run_id: str, notes: findings.Notes, line: int = 0) -> None:
    """Add all findings on the texts of a document, or of a line of run.md."""
    for code, path, what in _problems(value, run_id, False):
        notes.add(code, what, line, path)


def check_lines(events: Sequence[LedgerLine], prompts: Collection[str], run_id: str,
                notes: findings.Notes) -> None:
    """Add all findings on the texts of a ledger; those on answers become one finding per code.
    prompts: known prompts, which are not searched."""
    of_answers: dict[str, list[tuple[int, str, str]]] = {"answer-invisible": [],
                                                         "private-answer": []}
    for line, event in enumerate(events, 1):
        value: Any = event
        if event["event"] == "call_finished" and event["request"]["prompt"] in prompts:
            value = {**event, "request": {**event["request"], "prompt": ""}}
        for code, path, what in _problems(value, run_id, True):
            if code in of_answers:
                of_answers[code].append((line, path, what))
            else:
                notes.add(code, what, line, path)
    for code, places in of_answers.items():
        if places:
            line, path, what = places[0]
            numbers = sorted({place[0] for place in places})
            notes.add(code, f"{len(places)} in lines {', '.join(map(str, numbers[:20]))}; the "
                            f"first: {what}", line, path)


def _problems(value: Any, run_id: str, is_line: bool) -> Iterator[tuple[str, str, str]]:
    """(code, path, what) of invisible characters and private values."""
    for path, key, text in privacy.strings(value):
        if not (text.isascii() and text.isprintable()):
            is_answer = is_line and path.startswith(ANSWER_FIELDS)
            found = (INVISIBLE_IN_ANSWERS if is_answer else INVISIBLE).search(text)
            if found:
                yield ("answer-invisible" if is_answer else "text-invisible", path,
                       f"U+{ord(found[0]):04X} at character {found.start()}")
        for hit in hits_in(path, key, text, (run_id,)):
            yield code_of(hit), path, f"{hit.excerpt}, {hit.why}"


def code_of(hit: privacy.Hit) -> str:
    """The finding code of a private value."""
    return "private-answer" if hit.severity == WARNING else "private-value"


def hits_in(path: str, key: str, text: str, allowed: Collection[str],
            names: Collection[privacy.MachineName] = ()) -> Iterator[privacy.Hit]:
    """Private values in the text of a field, or in a key that no schema names. A version of four
    parts is no address, and the host name has a finding of its own."""
    if path == HOST_NAME or not key and text in known_keys():
        return
    scope = privacy.LEDGER_SCOPES.get(path, "disclosure")
    search = _hits_in if len(text) <= CACHED_CHARACTERS else _hits_in.__wrapped__
    for hit in search(key, text, scope, tuple(names)):
        is_version = hit.pattern_id == "net.ipv4" and VERSION_WORDS & set(
            re.split(r"[^a-z]+", path))
        if not is_version and text[hit.start:hit.end].lower() not in allowed:
            yield hit


@functools.lru_cache(maxsize=20_000)
def _hits_in(key: str, text: str, scope: str,
             names: tuple[privacy.MachineName, ...]) -> list[privacy.Hit]:
    """Cached, because most texts of a ledger are repeated in every line."""
    document = {key: text} if key else {text: None}
    return [hit for _, hit in privacy.scan_json(document, {key: scope}, names=names)]
