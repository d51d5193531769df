"""Parse and validate the files of an untrusted submission.

Sizes are checked before bytes are read, and the number of values before JSON is parsed, since a
list of small numbers takes eighteen times as much memory as its text. The other checks rely on
values that match their schemas.
"""
from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any, BinaryIO, Callable, NamedTuple, Optional, TypeVar

from check import copies, findings, submission_files
from core import ledger, schema
from core.records import LedgerLine

MAX_LINE_BYTES = 4 * submission_files.MIB
MAX_LINE_VALUES = 500_000     # commas in a ledger line; a call of 100,000 tokens has 110,000
MAX_LEDGER_VALUES = 2_500_000
MAX_LINE_NESTS = 100_000      # its lists and objects; `reads` has a list for each shared read
MAX_LEDGER_NESTS = 400_000
MAX_DOCUMENT_VALUES = 200_000
MAX_DOCUMENT_LIST = 500       # the longest list that a schema allows has 400 cells
MAX_SCHEMA_FINDINGS = 20      # of one value

Read = TypeVar("Read")


class Ledger(NamedTuple):
    """A complete ledger. seals: line number of each run_finished -> SHA-256 of all bytes before
    it; sha256: of all bytes; lines: the bytes of calls and identifications."""

    events: list[LedgerLine]
    seals: dict[int, str]
    sha256: str
    lines: list[bytes]


class _Unreadable(Exception):
    """A file that cannot be read; the arguments are those of Notes.add."""


def _open(blob: submission_files.Blob, notes: findings.Notes,
          parse: Callable[[BinaryIO, int], Read]) -> Optional[Read]:
    """What `parse` makes of a file and its allowed size, or None with a finding."""
    limit = submission_files.LIMITS_BYTES[blob.path.rpartition("/")[2]]
    if blob.size_bytes > limit:
        notes.add("file-too-large", f"{blob.size_bytes} bytes; at most {limit} are allowed")
        return None
    try:
        with blob.open() as file:
            return parse(file, limit)
    except OSError as error:
        notes.add("file-unreadable", error.strerror or type(error).__name__)
    except _Unreadable as error:
        notes.add(*error.args)
    return None


def _add_wrong(wrong: list[schema.Finding], notes: findings.Notes, line: int = 0) -> None:
    for found in wrong[:MAX_SCHEMA_FINDINGS]:
        notes.add("file-malformed", found.message, line, found.path)


# --- documents -----------------------------------------------------------------------------------
def _whole(file: BinaryIO, limit_bytes: int) -> bytes:
    data = file.read(limit_bytes + 1)
    if len(data) > limit_bytes:
        raise _Unreadable("file-too-large", f"more than {limit_bytes} bytes; it grew while it was "
                                            "read")
    return data


def read_document(blob: submission_files.Blob, schema_name: str, notes: findings.Notes) -> Any:
    """manifest.json, hardware.json or metadata.json, or None with findings."""
    def parse(file: BinaryIO, limit_bytes: int) -> Any:
        value = _parse(_whole(file, limit_bytes), MAX_DOCUMENT_VALUES, MAX_DOCUMENT_VALUES, 0)
        wrong = schema.validate(value, schema_name, exact=True)
        _add_wrong(wrong, notes)
        return None if wrong else value

    return _open(blob, notes, parse)


def _parse(data: bytes, max_values: int, max_nests: int, line: int) -> Any:
    values, nests = data.count(b","), data.count(b"[") + data.count(b"{")
    if values > max_values or nests > max_nests:
        raise _Unreadable("file-malformed", f"too many values: {values} commas, {nests} lists and "
                                            "objects", line)
    try:
        value = schema.strict_json(data)
    except ValueError as error:
        raise _Unreadable("file-malformed", str(error), line) from None
    waiting = [] if line else [value]        # the long lists of a ledger are of integers
    while waiting:
        held = waiting.pop()
        if isinstance(held, list) and len(held) > MAX_DOCUMENT_LIST:
            raise _Unreadable("file-malformed", f"a list has {len(held)} items")
        waiting += held.values() if isinstance(held, dict) else held \
            if isinstance(held, list) else ()
    return value


def read_page(blob: submission_files.Blob, notes: findings.Notes) -> Optional[str]:
    """run.md as text, or None with a finding."""
    try:
        return _open(blob, notes, lambda file, limit: _whole(file, limit).decode("utf-8"))
    except UnicodeDecodeError as error:
        notes.add("file-malformed", f"byte {error.start} is not UTF-8")
        return None


# --- the ledger ----------------------------------------------------------------------------------
def read_ledger(blob: submission_files.Blob, notes: findings.Notes) -> Optional[Ledger]:
    """All lines of run.jsonl, or None with findings; reading ends at the first malformed line."""
    return _open(blob, notes, lambda file, limit: _ledger(file, limit, notes))


def _ledger(file: BinaryIO, limit_bytes: int, notes: findings.Notes) -> Optional[Ledger]:
    events, lines = list[LedgerLine](), list[bytes]()
    seals: dict[int, str] = {}
    sha256, values, nests = hashlib.sha256(), MAX_LEDGER_VALUES, MAX_LEDGER_NESTS
    for number, line in _lines(file, limit_bytes):
        event = _parse(line, min(values, MAX_LINE_VALUES), min(nests, MAX_LINE_NESTS), number)
        wrong = ledger.validate_line(event, exact=True)
        _add_wrong(wrong, notes, number)
        if wrong:
            return None
        # Other keys' order and blanks, which copies.sketch relies on, are a finding, but
        # the line can be checked.
        properties = schema.schema("ledger")["$defs"][event["event"]]["properties"]
        if list(event) != [name for name in properties if name in event]:
            notes.add("file-malformed", "the keys are in another order", number)
        elif ledger.dump_line(event) != line:
            what = "the line does not end with a newline" if not line.endswith(b"\n") \
                or line.endswith(b"\r\n") else "the line has blanks, or escapes that are not needed"
            notes.add("file-malformed", what, number)
        values -= line.count(b",")
        nests -= line.count(b"[") + line.count(b"{")
        if event["event"] == "run_finished":
            seals[number] = sha256.hexdigest()
        sha256.update(line)
        events.append(event)
        if event["event"] in copies.SKETCHED:
            lines.append(line.rstrip(b"\r\n"))
    if not events:
        raise _Unreadable("file-malformed", "the file has no line")
    return Ledger(events, seals, sha256.hexdigest(), lines)


def _lines(file: BinaryIO, left_bytes: int) -> Iterator[tuple[int, bytes]]:
    """(number from 1, line with its end). Raises _Unreadable."""
    for number, line in enumerate(iter(lambda: file.readline(MAX_LINE_BYTES + 1), b""), 1):
        left_bytes -= len(line)
        if len(line) > MAX_LINE_BYTES or left_bytes < 0:
            what = "the line" if left_bytes >= 0 else "the file, which grew while it was read,"
            raise _Unreadable("file-too-large", f"{what} is too long", number)
        yield number, line
