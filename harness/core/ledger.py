"""Ledger lines and manifests: build them, and read back what a run left.

    event_line, dump_line   a ledger line as an object, and as bytes
    read_ledger             run.jsonl as a crash may have left it: whole lines and a torn rest
    load_run                manifest and events of a run folder, validated
    Tail                    a ledger that is still being written
"""
from __future__ import annotations

import base64
import functools
import glob
import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from typing import Any, Callable, NamedTuple, Optional, cast

from core import files, schema
from core.errors import StorageError
from core.records import CallFinished, LedgerLine, Manifest

MANIFEST, LEDGER = "manifest.json", "run.jsonl"
COMMON_FIELDS = ("event", "seq", "run_id", "segment", "at", "t_us")
_REMEDY = "restore it from a backup, or start a new run"


class LedgerError(StorageError):
    """A run folder that cannot be read; the message names what, where, and what to do."""


def _invalid(place: str, wrong: schema.Finding) -> LedgerError:
    field = f"{wrong.path}: " if wrong.path else ""
    return LedgerError(f"{place}: {field}{wrong.message}; {_REMEDY}")


# --- ledger lines --------------------------------------------------------------------------------
@functools.cache
def event_names() -> tuple[str, ...]:
    """Every kind of ledger line, in the order of a run."""
    return tuple(branch["$ref"].rpartition("/")[2] for branch in schema.schema("ledger")["oneOf"])


def validate_line(line: Any, exact: bool = False) -> list[schema.Finding]:
    """What is wrong with a ledger line, by the schema of its `event`; see schema.validate."""
    event = line.get("event") if isinstance(line, dict) else None
    if not isinstance(event, str) or event not in event_names():
        return [schema.Finding("event", f"{schema.shown(event)} is not a kind of ledger line")]
    found = schema.validate(line, "ledger", event, exact)
    if event == "machine_identified" and not found:
        found = schema.validate(line["hardware"], "hardware", exact=exact)
    return found


def event_line(event: str, **fields: Any) -> dict[str, Any]:
    """A ledger line with its keys in the schema's order; KeyError for a wrong set of fields."""
    kind = schema.schema("ledger")["$defs"][event]
    fields["event"] = event
    wrong = fields.keys() - kind["properties"].keys() | set(kind["required"]) - fields.keys()
    if wrong:
        raise KeyError(f"{event}: {sorted(wrong)}")
    return {name: fields[name] for name in kind["properties"] if name in fields}


def dump_line(line: Mapping[str, Any]) -> bytes:
    """One line of run.jsonl. Half of a surrogate pair, which UTF-8 cannot encode, becomes "?"."""
    text = json.dumps(line, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.encode("utf-8", "replace") + b"\n"


def dump_document(document: Mapping[str, Any]) -> bytes:
    """A JSON file of a submission, indented for people."""
    text = json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False)
    return text.encode("utf-8", "replace") + b"\n"


class NoLedger:
    """A ledger that records nothing, for a call outside of a run. now_ns: a monotonic clock."""

    segment, path = 0, ""

    def __init__(self, now_ns: Callable[[], int]) -> None:
        self._now_ns, self.zero_ns = now_ns, now_ns()

    def now_us(self) -> int:
        """Microseconds since its creation."""
        return (self._now_ns() - self.zero_ns) // 1000

    def write(self, event: str, **fields: Any) -> dict[str, Any]:
        """The event, without the fields that all lines have."""
        return {"event": event, **fields}


def latest_calls(events: Iterable[LedgerLine]) -> list[CallFinished]:
    """The call_finished lines that count, in order: the last one of each cell."""
    last = {e["cell_id"]: e for e in events if e["event"] == "call_finished"}
    return sorted(last.values(), key=lambda call: call["seq"])


def counts(events: Iterable[LedgerLine]) -> dict[str, int]:
    """Number of calls per outcome, by the line of each cell that counts."""
    outcomes = [call["outcome"] for call in latest_calls(events)]
    return {outcome: outcomes.count(outcome) for outcome in sorted(set(outcomes))}


# --- reading a ledger ----------------------------------------------------------------------------
class LedgerState(NamedTuple):
    """The whole events of a ledger file, and what a crash left after them.

    whole_bytes: end of the whole lines. torn: bytes after that which are no whole line.
    newline_missing: the last whole line, which counts, lacks its newline.
    """

    events: list[LedgerLine]
    whole_bytes: int
    torn: bytes
    newline_missing: bool


def read_ledger(path: str) -> LedgerState:
    """A ledger as a crash may have left it; LedgerError if more than its end is broken."""
    try:
        data = files.read(path)
    except OSError as error:
        raise LedgerError(f"{path} cannot be read ({error.strerror})") from None
    lines = data.split(b"\n")
    rest = lines.pop()
    events = [_whole_event(path, number, line) for number, line in enumerate(lines)]
    if _event_of(rest) is not None:
        return LedgerState([*events, _whole_event(path, len(lines), rest)], len(data), b"", True)
    return LedgerState(events, len(data) - len(rest), rest, False)


def _event_of(line: bytes) -> Optional[LedgerLine]:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    is_event = isinstance(found, dict) and set(COMMON_FIELDS) <= set(found)
    return cast(LedgerLine, found) if is_event else None


def _whole_event(path: str, number: int, line: bytes) -> LedgerLine:
    event = _event_of(line)
    if event is None or event["seq"] != number:
        raise LedgerError(f"{path}, line {number + 1}: not the line that the run wrote; the file "
                          f"was changed afterwards; {_REMEDY}")
    return event


def unrecorded_torn_bytes(found: LedgerState, kept: bytes) -> bytes:
    """Torn bytes that no `run_resumed` line records yet.

    kept: bytes that an earlier resume saved in a file of their own. A crash may come between
    saving and truncating, and between recording and deleting.
    """
    recorded = [event["torn_base64"] for event in found.events if event["event"] == "run_resumed"]
    if base64.b64encode(kept).decode("ascii") in recorded:
        kept = b""
    return kept if kept.endswith(found.torn) else kept + found.torn


class Tail:
    """Reads a ledger that is being written, each line once; `events` are all lines so far."""

    def __init__(self, path: str) -> None:
        self._path, self._at = path, 0
        self.events: list[LedgerLine] = []

    def new_events(self) -> list[LedgerLine]:
        """The whole lines written since the last call; raises LedgerError."""
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


# --- reading a run's folder ----------------------------------------------------------------------
def find_run(out_dir: str, run: str) -> Optional[str]:
    """The folder of a run below `out_dir`, by its id, its path or that of one of its files; None
    if it is not found."""
    run = os.path.dirname(run) if os.path.isfile(run) else run
    if os.path.isfile(os.path.join(run, MANIFEST)):
        return run
    name = run if run.startswith("run-") else f"run-{run}"
    found = glob.glob(os.path.join(glob.escape(out_dir), "*", "*", glob.escape(name)))
    return found[0] if found else None


def has_lines(folder: str) -> bool:
    """Whether the ledger of a run's folder has any bytes."""
    path = os.path.join(folder, LEDGER)
    return os.path.exists(path) and os.path.getsize(path) > 0


def read_manifest(folder: str) -> Optional[Manifest]:
    """manifest.json of a run folder; None if there is neither it nor a ledger. LedgerError."""
    path = os.path.join(folder, MANIFEST)
    try:
        with open(path, "rb") as file:
            found = schema.strict_json(file.read())
    except FileNotFoundError:
        if not has_lines(folder):
            return None
        raise LedgerError(f"{path} is missing, although its {LEDGER} has lines; "
                          f"{_REMEDY}") from None
    except OSError as error:
        raise LedgerError(f"{path} cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise LedgerError(f"{path} {error}; {_REMEDY}") from None
    for wrong in schema.validate(found, "manifest"):
        raise _invalid(path, wrong)
    return cast(Manifest, found)


def manifest_of(folder: str) -> Manifest:
    """manifest.json of a run folder; raises LedgerError, also if it is missing."""
    found = read_manifest(folder)
    if found is None:
        raise LedgerError(f"{folder} has no {MANIFEST}: use the folder of a run, "
                          "submissions/<handle>/<device-tag>/run-<uuid>")
    return found


def manifest_sha256(manifest: Mapping[str, Any]) -> str:
    """SHA-256 of the manifest as compact JSON with sorted keys, which ties a ledger to it.

    The host name counts as null: it is the one value that a contributor may remove afterwards.
    """
    text = json.dumps({**manifest, "host_hostname_short": None}, sort_keys=True,
                      separators=(",", ":"))
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def load_run(folder: str) -> tuple[Manifest, LedgerState]:
    """Manifest and ledger of a run folder; raises LedgerError if one is missing or broken."""
    manifest = manifest_of(folder)
    path = os.path.join(folder, LEDGER)
    state = read_ledger(path)
    refuse_foreign(path, manifest, state.events)
    return manifest, state


def refuse_foreign(path: str, manifest: Mapping[str, Any],
                   events: Iterable[LedgerLine]) -> None:
    """Raise LedgerError at the first line that no run of this manifest has written."""
    run_id, tie = manifest["run_id"], manifest_sha256(manifest)
    for number, event in enumerate(events, 1):
        place = f"{path}, line {number}"
        for wrong in validate_line(event):
            raise _invalid(place, wrong)
        if event["run_id"] != run_id or (event["event"] == "run_started") != (number == 1):
            raise LedgerError(f"{place}: not a line of run {run_id}; {_REMEDY}")
        if event.get("manifest_sha256", tie) != tie:
            raise LedgerError(f"{place}: {MANIFEST} was changed since; {_REMEDY}")
