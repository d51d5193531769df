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
import os
from collections.abc import Iterable, Mapping
from typing import Any, Callable, NamedTuple, Optional

from core import schema
from core.errors import StorageError

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


def validate_line(line: Any, exact: bool = False) -> list[schema.Finding]:
    """Findings of one ledger line against the shape that its `event` names; see `schema.validate`."""
    event = line.get("event") if isinstance(line, dict) else None
    if not isinstance(event, str) or event not in event_names():
        return [schema.Finding("event", f"{schema.shown(event)} is no kind of ledger line")]
    return schema.validate(line, "ledger", event, exact)


@functools.cache
def event_names() -> tuple[str, ...]:
    """Every kind of ledger line, in the order of a run."""
    return tuple(branch["$ref"].rpartition("/")[2] for branch in schema.schema("ledger")["oneOf"])


# --- ledger lines --------------------------------------------------------------------------------
def event_line(event: str, **fields: Any) -> dict[str, Any]:
    """A ledger line with its keys in the schema's order; KeyError where one lacks or is unknown."""
    names = schema.schema("ledger")["$defs"][event]["properties"]
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


def unrecorded_torn_bytes(found: LedgerState, kept: bytes) -> bytes:
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
            found = schema.strict_json(file.read())
    except FileNotFoundError:
        if not has_lines(folder):
            return None
        raise LedgerError(f"{path} is missing, and the {LEDGER} beside it has lines; take it from "
                          "a backup, or begin a new run") from None
    except OSError as error:
        raise LedgerError(f"{path} cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise LedgerError(f"{path} {error}; take it from a backup, or begin a new run") from None
    wrong = schema.validate(found, "manifest")
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
