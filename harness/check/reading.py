"""Strangers' bytes made into values that fit their schemas, or into findings.

Sizes are looked at before bytes are read, and how much a text will become before it is parsed: a
list of small numbers takes eighteen times its text's room. What comes out of here has the shape
that its schema says, and the other checks rely on that.
"""
from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple, Optional

from core import ledger, schema

from check import findings, sources

Json = dict[str, Any]


SCHEMAS = ("manifest", "ledger", "hardware", "metadata")
LINE_LIMIT_BYTES = 4 * sources.MIB
MAX_LINE_VALUES = 500_000     # commas of one ledger line; a call of 100,000 tokens has 110,000
MAX_LEDGER_VALUES = 2_500_000
MAX_LINE_NESTS = 100_000      # its lists and objects; `reads` has a list for each shared read
MAX_LEDGER_NESTS = 400_000
MAX_DOCUMENT_VALUES = 200_000
MAX_DOCUMENT_LIST = 500       # the longest that a schema allows is 400 cells
MAX_WRONG = 20                # findings on one file's shape; the rest follows from them

# What no stated value needs: controls but tab and line ends, marks that turn, join or part text,
# letters without a body, tags. Ranges instead of Unicode categories, which change with Python.
_INVISIBLE = (r"\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u00ad\u034f\u115f\u1160\u17b4\u17b5"
              r"\u180b-\u180f\u200b\u2028-\u202e\u2060-\u206f\u3164\ufe00-\ufe0d\ufeff\uffa0\ufff9-\ufffb"
              r"\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff")
# Emoji and writing from right to left need these in ordinary text.
INVISIBLE_IN_ANSWERS = re.compile(f"[{_INVISIBLE}]")
INVISIBLE = re.compile(rf"[{_INVISIBLE}\u061c\u200c-\u200f]")
# What a model or a server wrote, not the contributor.
ANSWER_FIELDS = ("response", "request.prompt", "error")


class Ledger(NamedTuple):
    """A ledger that could be read whole. seals: line number of each run_finished -> SHA-256 of all
    bytes before it; sha256: of all bytes."""

    events: list[Json]
    seals: dict[int, str]
    sha256: str


class _Broken(Exception):
    """A file that cannot be read on; its finding is noted."""


# --- documents -----------------------------------------------------------------------------------
def read(blob: sources.Blob, notes: findings.Notes) -> Optional[bytes]:
    """All bytes of a small file, or None with a finding."""
    limit = sources.LIMITS_BYTES[blob.path.rpartition("/")[2]]
    try:
        if blob.size_bytes <= limit:
            with blob.open() as file:
                data = file.read(limit + 1)
            if len(data) <= limit:
                return data
        notes.add("file-too-large", f"{blob.size_bytes} bytes; {limit} are allowed")
    except OSError as error:
        notes.add("file-unreadable", error.strerror or type(error).__name__)
    return None


def document(blob: sources.Blob, schema_name: str, notes: findings.Notes) -> Optional[Json]:
    """manifest.json, hardware.json or metadata.json, or None with findings."""
    data = read(blob, notes)
    if data is None:
        return None
    try:
        value = _strict(data, MAX_DOCUMENT_VALUES, MAX_DOCUMENT_VALUES, notes, 0)
    except _Broken:
        return None
    longest = _longest_list(value)
    if longest > MAX_DOCUMENT_LIST:
        notes.add("json-too-complex", f"a list of {longest} items")
        return None
    wrong = schema.validate(value, schema_name)
    for finding in wrong[:MAX_WRONG]:
        notes.add("schema", finding.message, place=finding.path)
    if wrong or not _counts_are_whole(value, schema_name, "", notes, 0):
        return None
    return dict(value)


def _strict(data: bytes, max_values: int, max_nests: int, notes: findings.Notes, line: int) -> Any:
    values, nests = data.count(b","), data.count(b"[") + data.count(b"{")
    if values > max_values or nests > max_nests:
        notes.add("json-too-complex", f"{values} commas, {nests} lists and objects", line)
        raise _Broken
    try:
        return schema.strict_json(data)
    except ValueError as error:
        notes.add("json-not-strict", str(error), line)
        raise _Broken from None


def _counts_are_whole(value: Any, schema_name: str, definition: str, notes: findings.Notes,
                      line: int) -> bool:
    """Whether no count is written as 4.0. It is one by JSON Schema; to programs it may not be."""
    for path in _whole_floats(value):
        if "integer" in _types_at(schema_name, definition, path):
            notes.add("schema", "a whole number is written as a fraction", line, ".".join(path))
            return False
    return True


def _whole_floats(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Paths of all floats without a fraction; an item of a list is called []."""
    if type(value) is float and value.is_integer():
        yield path
    elif isinstance(value, dict):
        for name, held in value.items():
            if type(held) is not str:
                yield from _whole_floats(held, (*path, name))
    elif isinstance(value, list):
        for held in value:
            if type(held) is not int:
                yield from _whole_floats(held, (*path, "[]"))


@functools.lru_cache(maxsize=5000)
def _types_at(schema_name: str, definition: str, path: tuple[str, ...]) -> frozenset[str]:
    """The types that a schema allows at a path."""
    root = schema.schema(schema_name)
    nodes = _forms(root, root["$defs"][definition] if definition else root)
    for name in path:
        found = [node.get("items") if name == "[]" else node.get("properties", {}).get(
            name, node.get("additionalProperties")) for node in nodes]
        nodes = [form for node in found if isinstance(node, dict) for form in _forms(root, node)]
    return frozenset(node["type"] for node in nodes if "type" in node)


def _forms(root: Json, node: Json) -> list[Json]:
    """A node of a schema, and every one that it refers to or chooses between."""
    inner = [root["$defs"][node["$ref"].rpartition("/")[2]]] if "$ref" in node else []
    inner += [*node.get("anyOf", ()), *node.get("oneOf", ())]
    return [node, *(form for one in inner for form in _forms(root, one))]


def _longest_list(value: Any) -> int:
    longest, waiting = 0, [value]
    while waiting:
        held = waiting.pop()
        if isinstance(held, list):
            longest = max(longest, len(held))
            waiting += held
        elif isinstance(held, dict):
            waiting += held.values()
    return longest


def page(blob: sources.Blob, notes: findings.Notes) -> Optional[str]:
    """run.md as text, or None with a finding."""
    data = read(blob, notes)
    if data is None:
        return None
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        notes.add("json-not-strict", f"byte {error.start} is not UTF-8")
        return None


# --- the ledger ----------------------------------------------------------------------------------
def read_ledger(blob: sources.Blob, notes: findings.Notes) -> Optional[Ledger]:
    """Every line of run.jsonl, or None with findings; reading ends at the first bad line."""
    limit = sources.LIMITS_BYTES[ledger.LEDGER]
    if blob.size_bytes > limit:
        notes.add("file-too-large", f"{blob.size_bytes} bytes; {limit} are allowed")
        return None
    try:
        with blob.open() as file:
            return _take(file, notes)
    except OSError as error:
        notes.add("file-unreadable", error.strerror or type(error).__name__)
    except _Broken:
        pass
    return None


def _take(file: BinaryIO, notes: findings.Notes) -> Optional[Ledger]:
    events: list[Json] = []
    seals: dict[int, str] = {}
    sha256, values, nests = hashlib.sha256(), MAX_LEDGER_VALUES, MAX_LEDGER_NESTS
    for number, line in _lines(file, notes):
        event = _event(line, min(values, MAX_LINE_VALUES), min(nests, MAX_LINE_NESTS), notes,
                       number)
        values -= line.count(b",")
        nests -= line.count(b"[") + line.count(b"{")
        if event["event"] == "run_finished":
            seals[number] = sha256.hexdigest()
        sha256.update(line)
        events.append(event)
    if not events:
        notes.add("ledger-start", "there is no line")
        return None
    return Ledger(events, seals, sha256.hexdigest())


def _lines(file: BinaryIO, notes: findings.Notes) -> Iterator[tuple[int, bytes]]:
    """(number from 1, line with its end)."""
    number, left = 0, sources.LIMITS_BYTES[ledger.LEDGER]
    while True:
        line = file.readline(LINE_LIMIT_BYTES + 1)
        if not line:
            return
        number, left = number + 1, left - len(line)
        if len(line) > LINE_LIMIT_BYTES:
            notes.add("line-too-long", f"over {LINE_LIMIT_BYTES} bytes", number)
            raise _Broken
        if left < 0:              # it grew while it was read
            notes.add("file-too-large", "it grows", number)
            raise _Broken
        yield number, line


def _event(line: bytes, max_values: int, max_nests: int, notes: findings.Notes, number: int) -> Json:
    """A line of the shape that it names; raises _Broken."""
    value = _strict(line, max_values, max_nests, notes, number)
    wrong = ledger.validate_line(value)
    for finding in wrong[:MAX_WRONG]:
        notes.add("schema", finding.message, number, finding.path)
    if wrong or not _counts_are_whole(value, "ledger", value["event"], notes, number):
        raise _Broken
    event: Json = value
    if list(event) != list(schema.schema("ledger")["$defs"][event["event"]]["properties"]):
        notes.add("line-not-canonical", "its keys are in another order", number)
    elif ledger.dump_line(event) != line:
        what = "its end is not a newline" if not line.endswith(b"\n") or line.endswith(b"\r\n") \
            else "it holds blanks, or escapes that need none"
        notes.add("line-not-canonical", what, number)
    return event


# --- texts ---------------------------------------------------------------------------------------
def strings(value: Any, path: str = "", key: str = "") -> Iterator[tuple[str, str, str]]:
    """(path, key, text) of every text in a document. Keys that no schema names are texts, too, and
    have no key."""
    if isinstance(value, str):
        yield path, key, value
    elif isinstance(value, dict):
        for name, held in value.items():
            below = f"{path}.{name}" if path else name
            if name not in known_keys():
                yield below, "", name
            if isinstance(held, (str, dict, list)):
                yield from strings(held, below, name)
    elif isinstance(value, list):
        for i, held in enumerate(value):
            if isinstance(held, (str, dict, list)):
                yield from strings(held, f"{path}[{i}]", key)


@functools.cache
def known_keys() -> frozenset[str]:
    """Every key that a schema names."""
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


def invisible(value: Any, is_line: bool = False) -> Iterator[tuple[str, str, str]]:
    """(code, path, what) of characters that are not seen: an error in what is stated, a warning in
    what a model or a server wrote into a ledger's line."""
    for path, _, text in strings(value):
        if text.isascii() and text.isprintable():
            continue
        answer = is_line and path.startswith(ANSWER_FIELDS)
        found = (INVISIBLE_IN_ANSWERS if answer else INVISIBLE).search(text)
        if found:
            yield ("answer-invisible" if answer else "text-invisible", path,
                   f"U+{ord(found[0]):04X} at character {found.start()}")
