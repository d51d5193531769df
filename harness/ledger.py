"""The shapes of manifest and ledger, and reading what a run left, strictly or leniently.

The shapes themselves are the JSON Schemas in schemas/; this module holds the small validator that
reads them (the same verdicts as a full one, for the keywords that occur there), builds ledger lines
with their keys in the schema's order, and reads a run's folder back:

    event_line, dump_line   a ledger line, as an object and as its bytes
    read_ledger             run.jsonl as a crash may have left it: whole lines, and a torn rest
    load_run                manifest and events of a run folder, for programs that trust it
    strict_json             JSON as a stranger may have written it; refuses what readers disagree on
    validate                a value against one of the schemas -> findings
"""
from __future__ import annotations

import base64
import functools
import glob
import hashlib
import json
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Callable, NamedTuple, Optional

from stops import StorageError

SCHEMA_FOLDER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "schemas")
MAX_DEPTH = 32                # of any document of a submission; ours reach 8
LARGEST_INT = 2 ** 53 - 1     # the largest integer that every JSON reader keeps exactly
SHOWN_CHARACTERS = 60

MANIFEST, LEDGER = "manifest.json", "run.jsonl"
COMMON_FIELDS = ("event", "seq", "run_id", "segment", "at", "t_us")

# What a call can come to. The words stand in the ledger, the sentences in the documents.
OUTCOMES = {
    "ok": "the answer came whole, with a reason why it ended",
    "timeout": "the call's time was up; what came is kept",
    "connect_failed": "no connection came about",
    "connection_lost": "the connection broke before the answer had ended",
    "bad_redirect": "the server redirects to another place or turns the request into another",
    "http_error": "the server answered with an error status",
    "rate_limited": "HTTP 429 until the call's time was up",
    "server_busy": "HTTP 503 until the call's time was up",
    "context_limit": "the prompt does not fit the context, says the server",
    "stream_error": "an error came inside the stream",
    "no_events": "the server answered 200 and sent no event",
    "interrupted_answer": "the stream ended without a reason why",
    "bad_response": "what came is no completion",
    "body_too_large": "the response passed 64 MiB",
}


class LedgerError(StorageError):
    """A run folder that cannot be read; the message says what, where, and what to do."""


class Finding(NamedTuple):
    """What is wrong with a value: where (`a.b[3]`, empty for the whole) and what, in words."""

    path: str
    message: str


# --- schemas -------------------------------------------------------------------------------------
Schema = dict[str, Any]


@functools.cache
def schema(name: str) -> Schema:
    """schemas/<name>.schema.json."""
    with open(os.path.join(SCHEMA_FOLDER, f"{name}.schema.json"), encoding="utf-8") as file:
        found: Schema = json.load(file)
    return found


def validate(value: Any, name: str, definition: Optional[str] = None) -> list[Finding]:
    """Findings of `value` against a schema, or against one of its $defs."""
    root = schema(name)
    at = root["$defs"][definition] if definition else root
    return list(_Validator(root).check(value, at, ""))


def validate_line(line: Any) -> list[Finding]:
    """Findings of one ledger line against the shape that its `event` names."""
    event = line.get("event") if isinstance(line, dict) else None
    if not isinstance(event, str) or event not in event_names():
        return [Finding("event", f"{shown(event)} is no kind of ledger line")]
    return validate(line, "ledger", event)


@functools.cache
def event_names() -> tuple[str, ...]:
    """Every kind of ledger line, in the order of a run."""
    return tuple(branch["$ref"].rpartition("/")[2] for branch in schema("ledger")["oneOf"])


def shown(value: Any) -> str:
    """A value for a message: JSON in printable ASCII, cut."""
    try:
        text = json.dumps(value)
    except (TypeError, ValueError, RecursionError):
        text = ascii(type(value).__name__)
    return text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS - 3] + "..."


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_integer(value: Any) -> bool:
    return _is_number(value) and (isinstance(value, int) or value.is_integer())


TYPES: dict[str, Callable[[Any], bool]] = {
    "object": lambda v: isinstance(v, dict),
    "array": lambda v: isinstance(v, list),
    "string": lambda v: isinstance(v, str),
    "boolean": lambda v: isinstance(v, bool),
    "null": lambda v: v is None,
    "number": _is_number,
    "integer": _is_integer,
}
# Applied in this order; a value of another type than a keyword is about passes it.
BOUNDS: dict[str, tuple[str, Callable[[Any, Any], bool], str]] = {
    "minimum": ("number", lambda v, b: v >= b, "is below {}"),
    "maximum": ("number", lambda v, b: v <= b, "is above {}"),
    "exclusiveMinimum": ("number", lambda v, b: v > b, "is not above {}"),
    "minLength": ("string", lambda v, b: len(v) >= b, "has fewer than {} characters"),
    "maxLength": ("string", lambda v, b: len(v) <= b, "has more than {} characters"),
    "pattern": ("string", lambda v, b: re.search(b, v) is not None, "does not match {}"),
    "minItems": ("array", lambda v, b: len(v) >= b, "has fewer than {} items"),
    "maxItems": ("array", lambda v, b: len(v) <= b, "has more than {} items"),
    "uniqueItems": ("array", lambda v, b: not b or _distinct(v), "has an item twice"),
    "minProperties": ("object", lambda v, b: len(v) >= b, "has fewer than {} keys"),
    "maxProperties": ("object", lambda v, b: len(v) <= b, "has more than {} keys"),
}
ANNOTATIONS = ("$schema", "$defs", "title", "description")
APPLIED = ("$ref", "type", "const", "enum", "anyOf", "oneOf", "properties", "required",
           "additionalProperties", "propertyNames", "items")


def _same(a: Any, b: Any) -> bool:
    """Equal as JSON: 1 and 1.0 are, true and 1 are not."""
    if isinstance(a, bool) or isinstance(b, bool):
        return a is b
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_same(a[k], b[k]) for k in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(_same, a, b))
    return type(a) is type(b) and a == b or _is_number(a) and _is_number(b) and a == b


def _distinct(items: list[Any]) -> bool:
    return not any(_same(a, b) for i, a in enumerate(items) for b in items[:i])


class _Validator:
    """Walks a value and a schema side by side."""

    def __init__(self, root: Schema) -> None:
        self.root = root

    def check(self, value: Any, at: Schema, path: str) -> Iterator[Finding]:
        if "$ref" in at:
            yield from self.check(value, self.root["$defs"][at["$ref"].rpartition("/")[2]], path)
        if "type" in at and not TYPES[at["type"]](value):
            yield Finding(path, f"{shown(value)} is not of type {at['type']}")
            return
        yield from self._words(value, at, path)
        if isinstance(value, dict):
            yield from self._object(value, at, path)
        elif isinstance(value, list) and "items" in at:
            yield from self._items(value, at["items"], path)

    def _words(self, value: Any, at: Schema, path: str) -> Iterator[Finding]:
        if "const" in at and not _same(value, at["const"]):
            yield Finding(path, f"{shown(value)} is not {shown(at['const'])}")
        if "enum" in at and not any(_same(value, one) for one in at["enum"]):
            yield Finding(path, f"{shown(value)} is not one of {', '.join(map(shown, at['enum']))}")
        for keyword in ("anyOf", "oneOf"):
            if keyword in at:
                yield from self._branches(value, at[keyword], path, keyword == "oneOf")
        for keyword, (kind, holds, words) in BOUNDS.items():
            if keyword in at and TYPES[kind](value) and not holds(value, at[keyword]):
                yield Finding(path, f"{shown(value)} {words.format(at[keyword])}")

    def _branches(self, value: Any, branches: list[Schema], path: str,
                  just_one: bool) -> Iterator[Finding]:
        """One branch at least (oneOf: at most) fits; else what the likeliest one has to say."""
        failures, fitting = [], 0
        for branch in branches:
            found = list(self.check(value, branch, path))
            if found:
                failures.append(found)
            elif not just_one:
                return
            else:
                fitting += 1
        if fitting == 1:
            return
        if fitting:
            yield Finding(path, f"{shown(value)} fits more than one form")
        else:
            # A branch that fails deeper inside was the one meant; `null` fails at once.
            yield from max(failures, key=lambda found: (len(found[0].path), found[0].message[-4:] !=
                                                        "null"))

    def _object(self, value: dict[str, Any], at: Schema, path: str) -> Iterator[Finding]:
        properties = at.get("properties", {})
        for name in at.get("required", ()):
            if name not in value:
                yield Finding(path, f"{shown(name)} is missing")
        for name, held in value.items():
            below = f"{path}.{name}" if path else name
            if "propertyNames" in at:
                yield from self.check(name, at["propertyNames"], below)
            if name in properties:
                yield from self.check(held, properties[name], below)
            elif at.get("additionalProperties") is False:
                yield Finding(below, "is not known here")
            elif isinstance(at.get("additionalProperties"), dict):
                yield from self.check(held, at["additionalProperties"], below)

    def _items(self, value: list[Any], at: Schema, path: str) -> Iterator[Finding]:
        if at.get("type") == "integer" and len(at) == 3 and _all_integers(value, at):
            return                     # a call's times: thousands, in one go
        for i, item in enumerate(value):
            yield from self.check(item, at, f"{path}[{i}]")


def _all_integers(value: list[Any], at: Schema) -> bool:
    return (all(type(v) is int for v in value)
            and (not value or at["minimum"] <= min(value) and max(value) <= at["maximum"]))


# --- JSON from strangers -------------------------------------------------------------------------
def strict_json(data: bytes) -> Any:
    """The one value that every JSON reader sees in these bytes; raises ValueError with the reason.

    Refused: bytes that are no UTF-8 or begin with a byte order mark, NaN and infinities (also as
    1e999), integers beyond 2^53 - 1, a key twice in one object, half a surrogate pair, nesting
    deeper than MAX_DEPTH.
    """
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"byte {error.start} is not UTF-8") from None
    if text.startswith("\ufeff"):
        raise ValueError("begins with a byte order mark")
    try:
        value = json.loads(text, object_pairs_hook=_no_key_twice, parse_constant=_no_constant,
                           parse_int=_exact_int, parse_float=_finite_float)
    except RecursionError:
        raise ValueError("is nested too deep") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"is not JSON at character {error.pos}: {error.msg}") from None
    _refuse_depth_and_halves(value)
    return value


def _no_key_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"key {shown(twice)} stands twice in one object")
    return made


def _no_constant(word: str) -> None:
    raise ValueError(f"{word} is not JSON")


def _exact_int(digits: str) -> int:
    if len(digits) > 17 or abs(int(digits)) > LARGEST_INT:
        raise ValueError(f"integer {digits[:20]} is beyond 2^53 - 1")
    return int(digits)


def _finite_float(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError(f"number {digits[:20]} is infinite")
    return value


def _refuse_depth_and_halves(value: Any) -> None:
    waiting = [(value, 1)]
    while waiting:
        held, depth = waiting.pop()
        if isinstance(held, str):
            if not held.isascii() and any("\ud800" <= c <= "\udfff" for c in held):
                raise ValueError("half of a surrogate pair stands in a text")
        elif isinstance(held, (dict, list)):
            if depth > MAX_DEPTH:
                raise ValueError("is nested too deep")
            inner: Iterable[Any] = held if isinstance(held, list) else (*held, *held.values())
            waiting += [(one, depth + 1) for one in inner if isinstance(one, (str, dict, list))]


# --- ledger lines --------------------------------------------------------------------------------
def event_line(event: str, **fields: Any) -> dict[str, Any]:
    """A ledger line with its keys in the schema's order; KeyError where one lacks or is unknown."""
    names = schema("ledger")["$defs"][event]["properties"]
    fields["event"] = event
    if fields.keys() != names.keys():
        raise KeyError(f"{event}: {sorted(fields.keys() ^ names.keys())}")
    return {name: fields[name] for name in names}


class NoLedger:
    """Stands in for the runner's ledger where nothing is written. now_ns: its monotonic clock."""

    segment = 0

    def __init__(self, now_ns: Callable[[], int]) -> None:
        self._now_ns, self.zero_ns = now_ns, now_ns()

    def now_us(self) -> int:
        """Since it was made, in microseconds."""
        return (self._now_ns() - self.zero_ns) // 1000

    def write(self, event: str, **fields: Any) -> dict[str, Any]:
        """The event, as a ledger would give it back, but without what all lines have in common."""
        return {"event": event, **fields}


def dump_line(line: Mapping[str, Any]) -> bytes:
    """One line of run.jsonl. Half a surrogate pair, which UTF-8 cannot hold, becomes "?"."""
    text = json.dumps(line, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.encode("utf-8", "replace") + b"\n"


def dump_document(document: Mapping[str, Any]) -> bytes:
    """One of a submission's JSON files, for people to read, too."""
    text = json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False)
    return text.encode("utf-8", "replace") + b"\n"


def counts(events: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """Calls per outcome, by the line of each cell that counts."""
    outcomes = [call["outcome"] for call in latest_calls(events)]
    return {kind: outcomes.count(kind) for kind in sorted(set(outcomes))}


def latest_calls(events: Iterable[Mapping[str, Any]]) -> list[Any]:
    """The call_finished lines that count, in order: of several of one cell the last."""
    last = {e["cell_id"]: e for e in events if e["event"] == "call_finished"}
    return sorted(last.values(), key=lambda call: call["seq"])


# --- reading a run back --------------------------------------------------------------------------
def find_run(out_dir: str, run: str) -> Optional[str]:
    """The folder of a run below `out_dir`, by its id or by its path; None where there is none."""
    if os.path.isfile(os.path.join(run, MANIFEST)):
        return run
    name = run if run.startswith("run-") else f"run-{run}"
    found = glob.glob(os.path.join(glob.escape(out_dir), "*", "*", glob.escape(name)))
    return found[0] if found else None


def has_lines(folder: str) -> bool:
    """Whether the ledger of a run's folder holds anything."""
    path = os.path.join(folder, LEDGER)
    return os.path.exists(path) and os.path.getsize(path) > 0


class LedgerState(NamedTuple):
    """What a ledger file holds: whole events, and what a crash left behind them.

    whole_bytes: where the whole lines end; torn: bytes after that which are no whole line;
    newline_missing: the last whole line (counted in) lacks its newline.
    """

    events: list[dict[str, Any]]
    whole_bytes: int
    torn: bytes
    newline_missing: bool


def read_ledger(path: str) -> LedgerState:
    """A ledger as a crash may have left it; LedgerError where more than its end is broken."""
    try:
        with open(path, "rb") as file:
            data = file.read()
    except FileNotFoundError:
        data = b""
    except OSError as error:
        raise LedgerError(f"{path} cannot be read ({error.strerror})") from None
    lines = data.split(b"\n")
    rest = lines.pop()
    events = [_whole_event(path, number, line) for number, line in enumerate(lines)]
    if _event_of(rest) is not None:
        return LedgerState([*events, _whole_event(path, len(lines), rest)], len(data), b"", True)
    return LedgerState(events, len(data) - len(rest), rest, False)


def untold_torn(found: LedgerState, kept: bytes) -> bytes:
    """Torn bytes that no `run_resumed` tells yet. kept: what an earlier resume laid beside.

    A crash may come between laying beside and cutting off, and between telling and taking away.
    """
    told = [event["torn_base64"] for event in found.events if event["event"] == "run_resumed"]
    if base64.b64encode(kept).decode("ascii") in told:
        kept = b""
    return kept if kept.endswith(found.torn) else kept + found.torn


def _event_of(line: bytes) -> Optional[dict[str, Any]]:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) and set(COMMON_FIELDS) <= set(found) else None


def _whole_event(path: str, number: int, line: bytes) -> dict[str, Any]:
    event = _event_of(line)
    if event is None or event["seq"] != number:
        raise LedgerError(f"{path}, line {number + 1}: not the line that a run wrote there; the "
                          "file was changed afterwards. Take it from a backup, or begin a new run")
    return event


def read_manifest(folder: str) -> Optional[dict[str, Any]]:
    """manifest.json of a run folder; None where there is none. Raises LedgerError."""
    path = os.path.join(folder, MANIFEST)
    try:
        with open(path, "rb") as file:
            found = strict_json(file.read())
    except FileNotFoundError:
        if not has_lines(folder):
            return None
        raise LedgerError(f"{path} is missing, and the {LEDGER} beside it has lines; take it from "
                          "a backup, or begin a new run") from None
    except OSError as error:
        raise LedgerError(f"{path} cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise LedgerError(f"{path} {error}; take it from a backup, or begin a new run") from None
    wrong = validate(found, "manifest")
    if wrong:
        raise LedgerError(f"{path}: {wrong[0].path}: {wrong[0].message}; take it from a backup, or "
                          "begin a new run")
    return dict(found)


def manifest_of(folder: str) -> dict[str, Any]:
    """manifest.json of a run folder; raises LedgerError, also where there is none."""
    found = read_manifest(folder)
    if found is None:
        raise LedgerError(f"{folder} holds no {MANIFEST}: name the folder of a run, "
                          "submissions/<handle>/<device-tag>/run-<uuid>")
    return found


class Tail:
    """Reads a ledger that is being written, each line once; `events` are all so far."""

    def __init__(self, path: str) -> None:
        self._path, self._at = path, 0
        self.events: list[dict[str, Any]] = []

    def new_events(self) -> list[dict[str, Any]]:
        """The whole lines that came since the last call; raises LedgerError."""
        try:
            with open(self._path, "rb") as file:
                file.seek(self._at)
                whole = file.read().rpartition(b"\n")[0]
        except OSError as error:
            raise LedgerError(f"{self._path} cannot be read ({error.strerror})") from None
        lines = whole.split(b"\n") if whole else []
        self._at += len(whole) + bool(whole)
        found = [_whole_event(self._path, number, line)
                 for number, line in enumerate(lines, len(self.events))]
        self.events += found
        return found


def manifest_sha256(manifest: Mapping[str, Any]) -> str:
    """What ties a ledger to its manifest: SHA-256 of the manifest as compact JSON with sorted keys.

    The host name counts as null: it is the one value that a contributor may take out afterwards.
    """
    text = json.dumps({**manifest, "host_hostname_short": None}, sort_keys=True,
                      separators=(",", ":"))
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def load_run(folder: str) -> tuple[dict[str, Any], LedgerState]:
    """Manifest and ledger of a run folder; raises LedgerError where one lacks or is broken."""
    manifest = manifest_of(folder)
    path = os.path.join(folder, LEDGER)
    state = read_ledger(path)
    refuse_foreign(path, manifest, state.events)
    return manifest, state


def refuse_foreign(path: str, manifest: Mapping[str, Any],
                   events: Iterable[Mapping[str, Any]]) -> None:
    """Raises LedgerError at the first line that no run of this manifest has written."""
    run_id, tie = manifest["run_id"], manifest_sha256(manifest)
    for number, event in enumerate(events, 1):
        wrong = validate_line(event)
        if wrong:
            raise LedgerError(f"{path}, line {number}: {wrong[0].path}: {wrong[0].message}; take "
                              "it from a backup, or begin a new run")
        if event["run_id"] != run_id or (event["event"] == "run_started") != (number == 1):
            raise LedgerError(f"{path}, line {number}: not a line of run {run_id}; take the file "
                              "from a backup, or begin a new run")
        if event.get("manifest_sha256", tie) != tie:
            raise LedgerError(f"{path}, line {number}: {MANIFEST} was another one then; take that "
                              "from a backup, or begin a new run")


def difference(name: str, was: Any, now: Any) -> tuple[str, str]:
    """The first place where two values differ, as (`name.part was ...`, what it is now)."""
    if isinstance(was, dict) and isinstance(now, dict):
        for key in [*was, *(k for k in now if k not in was)]:
            if was.get(key) != now.get(key):
                return difference(f"{name}.{key}", was.get(key), now.get(key))
    if isinstance(was, list) and isinstance(now, list) and len(was) == len(now):
        for i, (one, other) in enumerate(zip(was, now)):
            if one != other:
                return difference(f"{name}[{i}]", one, other)
    return f"{name} was {shown(was)}", shown(now)
