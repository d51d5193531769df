"""Search the texts of submissions, files and diffs for private values and invisible characters.

`check_document` and `check_lines` search the parsed files of a submission. `PrivacyScan`, for
`--privacy`, searches any files and diffs, and also for the names of this machine and its user; it
parses ledger lines, so that a hit in an answer is a warning, and searches everything else as text.
"""
from __future__ import annotations

import functools
import json
import os
import re
import stat
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from typing import Any, BinaryIO, Optional

from check import findings, submission_files
from core import privacy, privacy_patterns, schema
from core.errors import HarnessError
from core.records import LedgerLine
from core.text import printable

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
PIECE_BYTES = 4_000_000       # longer lines are searched in pieces
OVERLAP_BYTES = 400           # between pieces; the longest key has 255 characters
EVENT = re.compile(rb'[ +-]?(\{"event":)')
HOST_LINE = re.compile(r'"host_hostname_short":')
RUN_ID = re.compile(rf"run-({submission_files.UUID})")
# In the path of a run; a login is often part of the handle, which is published anyway.
HANDLE = re.compile(r"([a-z0-9-]{1,39})[/\\][a-z0-9-]{3,48}[/\\]" + RUN_ID.pattern)


# --- one submission ------------------------------------------------------------------------------
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
    of_answers: dict[str, list[tuple[int, str, str, str]]] = {
        "answer-invisible": [], "private-answer": []}
    for line, event in enumerate(events, 1):
        value: Any = event
        if event["event"] == "call_finished" and event["request"]["prompt"] in prompts:
            value = {**event, "request": {**event["request"], "prompt": ""}}
        for code, path, what in _problems(value, run_id, True):
            if code in of_answers:
                of_answers[code].append((line, path, what, value.get("question_id") or "probe"))
            else:
                notes.add(code, what, line, path)
    for code, places in of_answers.items():
        if places:
            line, path, what, _ = places[0]
            questions = dict.fromkeys(place[3] for place in places)
            notes.add(code, f"{len(places)} in answers to {', '.join(list(questions)[:20])}; the "
                            f"first: {what}", line, path)


def _problems(value: Any, run_id: str, is_line: bool) -> Iterator[tuple[str, str, str]]:
    """(code, path, what) of invisible characters and private values."""
    for path, key, text in privacy.strings(value, known_keys()):
        if is_line and path == "at":         # has a fixed form
            continue
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
    return "private-answer" if hit.severity == privacy_patterns.WARNING else "private-value"


def hits_in(path: str, key: str, text: str, allowed: Collection[str],
            names: Collection[privacy.MachineName] = ()) -> Iterator[privacy.Hit]:
    """Private values in the text of a field or key. A version of four parts is not an address, and
    the host name has a finding of its own."""
    if path == HOST_NAME:
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
    return list(privacy.scan_field(key, text, scope, names=names))


# --- files and diffs -----------------------------------------------------------------------------
class PrivacyScan:
    """Searches files and adds findings to `report`."""

    def __init__(self, report: findings.Report, names: Collection[privacy.MachineName]) -> None:
        self.report, self.names = report, names

    def paths(self, paths: Sequence[str], stdin: BinaryIO) -> None:
        """Search files and folders; - is standard input. Raises HarnessError."""
        for path in paths:
            if path == "-":
                self.stream("-", stdin)
                continue
            try:
                mode = os.lstat(path).st_mode
            except (OSError, ValueError) as error:
                reason = submission_files.cause(error)
                raise HarnessError(f"--privacy {printable(path)}: {reason}; pass a "
                                   "file, a folder, or - for standard input") from None
            self._entry(path, mode)

    def _entry(self, path: str, mode: int) -> None:
        if stat.S_ISDIR(mode):
            for name in sorted(os.listdir(path)):
                below = os.path.join(path, name)
                if name != ".git":
                    self._entry(below, os.lstat(below).st_mode)
            return
        if not stat.S_ISREG(mode):
            self.report.add("file-not-regular", path, "was not searched")
            return
        # The file's own name; the folders above belong to this machine.
        for hit in privacy.scan(os.path.basename(path), allowed=RUN_ID.findall(path),
                                names=self._names(os.path.abspath(path))):
            self._add(path, 0, hit, "file name")
        try:
            with submission_files.open_regular(path) as file:
                self.stream(path, file)
        except OSError as error:
            self.report.add("file-unreadable", path, submission_files.cause(error))

    def stream(self, path: str, file: BinaryIO) -> None:
        """Search line by line. A line of a diff may name the run of the lines that follow."""
        allowed = set(RUN_ID.findall(os.path.abspath(path)))
        names = self._names(os.path.abspath(path))
        for number, line in _lines(file):
            start = line[:400].decode("utf-8", "replace")
            allowed.update(RUN_ID.findall(start))
            names = self._names(start) if HANDLE.search(start) else names
            event = _event(line)
            if event is not None:
                own = allowed | {str(event.get("run_id"))}
                for place, key, text in privacy.strings(event, known_keys()):
                    found = hits_in(place, key, text, own, names)
                    for hit, times in Counter(one._replace(start=0, end=0)
                                              for one in found).items():
                        self._add(path, number, hit, place, times=times)
            else:
                text = line.decode("utf-8", "replace")
                is_host = HOST_LINE.search(text) is not None
                for hit in privacy.scan(text, allowed=allowed, names=names):
                    self._add(path, number, hit, "", is_host and hit.kind == "host")

    def _names(self, text: str) -> tuple[privacy.MachineName, ...]:
        """Names of this machine; the handles of runs that the text names are public."""
        return (*self.names, *(privacy.MachineName(privacy_patterns.PUBLIC, handle)
                               for handle, _ in HANDLE.findall(text)))

    def _add(self, path: str, number: int, hit: privacy.Hit, place: str,
             is_host: bool = False, times: int = 1) -> None:
        self.report.add("hostname-published" if is_host else code_of(hit), path,
                        f"{hit.excerpt}{f' {times} times' * (times > 1)}, {hit.why}", number, place)


def _lines(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """(number, line or overlapping piece of one); holds a few MiB at most."""
    number, rest = 1, b""
    for piece in iter(lambda: file.readline(PIECE_BYTES), b""):
        yield number, rest + piece
        is_end = piece.endswith(b"\n")
        number, rest = number + is_end, b"" if is_end else piece[-OVERLAP_BYTES:]


def _event(line: bytes) -> Optional[dict[str, Any]]:
    """A ledger line, also in a diff."""
    match = EVENT.match(line)
    try:
        found = json.loads(line[match.start(1):]) if match else None
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None
