"""Many submissions side by side: what is one device, what may be ranked, and what its number is.

Pure functions over parsed manifest.json, metadata.json and hardware.json; no ledger is needed.

    read_submission     the three documents -> Submission, or BrokenSubmission with one sentence
    refusals            why one model's numbers in one phase are not ranked
    make_rows           submissions -> rows, one a device, runtime, model, quantisation and phase
    ranked              rows in order, with their ranks

One device is: the device tag, the system's name, the processor, the threads that the run could use,
the memory (as it is sold: a system keeps some of it for itself), the accelerators with their power
limits, the power mode, whether it ran on battery, and whether it was reached over a network. Equal
facts are one device whoever owns it; another tag is another device, since a tag may tell what no
probe sees, such as a cooler. A row's number is the median over all runs of that device with one
runtime, version and backend, one model and one quantisation: never the best one. Runs that may not
be ranked stand in rows of their own, so that a median never mixes the two.

Ranks are given within one model and phase. Rows share a rank where the intervals overlap or the
values are less than 5 % apart: nothing tells them apart.
"""
from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from math import isfinite
from typing import Any, Callable, NamedTuple, Optional

import metrics
import phases
import releases
from ledger import shown

Json = dict[str, Any]

CANONICAL_LANES = 4           # the runner's default of --lanes
MAX_CHARACTERS = 400          # of any text that is read here; schemas allow less
LARGEST = 1e15                # of any number; none that is published comes near
GIB = 1024 ** 3

# Title, and where a submission's cell holds it: a summary under `metrics`, or a value of its own.
NUMBERS = {
    "decode_tokens_per_s": "decode tok/s", "prefill_tokens_per_s": "prefill tok/s",
    "ttft_ms": "TTFT ms", "tpot_ms": "TPOT ms", "lane_efficiency_ratio": "lane eff.",
    "e2el_ms": "E2EL ms", "output_token_throughput_tokens_per_s": "all lanes tok/s",
}
RANKED_BY = "decode_tokens_per_s"


class BrokenSubmission(Exception):
    """A document that is not what its schema says; the message says where and what."""


class Spread(NamedTuple):
    """One number and how sure it is. of: "prompts", "runs", "range of runs", or "" without one.

    low and high are its exact 95 % interval over the prompts of a single run, or over six runs and
    more; of two to five runs the lowest and the highest. None where there is none.
    """

    value: float
    low: Optional[float]
    high: Optional[float]
    of: str


class Entry(NamedTuple):
    """One model in one phase of one submission."""

    model: str
    quantization: Optional[str]
    phase: str
    lanes: int
    cold: bool
    planned: int
    asked: int
    numbers: dict[str, Spread]
    passed: int
    checked: int
    flags: tuple[str, ...]
    context_tokens: Optional[int]


class Device(NamedTuple):
    """What makes two machines the same one here; see the module's text."""

    tag: str
    system: Optional[str]
    cpu: Optional[str]
    threads: Optional[float]
    memory_gib: Optional[float]
    accelerators: tuple[str, ...]
    power_mode: Optional[str]
    on_battery: bool
    reached: str


class Runtime(NamedTuple):
    """The program that served; backend is what it computed with, such as cuda."""

    name: str
    version: Optional[str]
    backend: Optional[str]


class Submission(NamedTuple):
    """What a comparison needs of one submission. asked: what its manifest says was asked."""

    run_id: str
    handle: str
    started_at: str
    device: Device
    runtime: Runtime
    asked: Json
    synthetic: bool
    completeness: str
    run_flags: tuple[str, ...]
    entries: tuple[Entry, ...]


# --- reading what strangers wrote ----------------------------------------------------------------
def _at(document: Any, path: str) -> Any:
    """The value at a dotted path; BrokenSubmission where it is missing."""
    at = document
    for name in path.split("."):
        if not isinstance(at, dict) or name not in at:
            raise BrokenSubmission(f"{path} is missing")
        at = at[name]
    return at


def _text(document: Any, path: str) -> str:
    value = _at(document, path)
    if not isinstance(value, str) or len(value) > MAX_CHARACTERS:
        raise BrokenSubmission(f"{path}: {shown(value)} is no text of at most {MAX_CHARACTERS} "
                               "characters")
    return value


def _number(document: Any, path: str) -> Optional[float]:
    """A number from 0 to LARGEST, or null."""
    value = _at(document, path)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not (
            0 <= value <= LARGEST and isfinite(value)):
        raise BrokenSubmission(f"{path}: {shown(value)} is no number from 0 to {LARGEST:g}")
    return value


def _count(document: Any, path: str) -> int:
    value = _number(document, path)
    if not isinstance(value, int):
        raise BrokenSubmission(f"{path}: {shown(value)} is no whole number")
    return value


def _bool(document: Any, path: str) -> bool:
    value = _at(document, path)
    if not isinstance(value, bool):
        raise BrokenSubmission(f"{path}: {shown(value)} is neither true nor false")
    return value


def _list(document: Any, path: str) -> list[Any]:
    value = _at(document, path)
    if not isinstance(value, list):
        raise BrokenSubmission(f"{path}: {shown(value)} is no list")
    return value


def _fact(document: Any, path: str, read: Any) -> Any:
    """The value of a {"value", "source", "reason"} leaf; None where it is not known."""
    return None if _at(document, f"{path}.value") is None else read(document, f"{path}.value")


def _flags(document: Any, path: str) -> tuple[str, ...]:
    names = _list(document, path)
    unknown = [name for name in names if not isinstance(name, str) or name not in metrics.FLAGS]
    if unknown:
        raise BrokenSubmission(f"{path}: {shown(unknown[0])} is no flag")
    return tuple(metrics.ordered_flags(names))


def read_submission(manifest: Any, metadata: Any, hardware: Any) -> Submission:
    """A Submission of its three parsed documents; raises BrokenSubmission.

    Only what is compared is looked at; whether a submission is sound is for its check to say.
    """
    run_id = _text(metadata, "run_id")
    if _text(manifest, "run_id") != run_id:
        raise BrokenSubmission("run_id differs between manifest.json and metadata.json")
    told = {_text(model, "model"): model for model in _list(metadata, "models")}
    return Submission(
        run_id, _text(metadata, "submitter_handle"), _text(metadata, "run.started_at"),
        _device(metadata, hardware),
        Runtime(_fact(metadata, "runtime.name", _text) or
                _text(metadata, "endpoint.engine.name"), *(_fact(metadata, f"runtime.{name}", _text)
                                                            for name in ("version", "backend"))),
        _asked(manifest), _bool(metadata, "synthetic"), _text(metadata, "run.class"),
        _flags(metadata, "run_flags"),
        tuple(_entry(cell, told) for cell in _list(metadata, "cells")))


def _entry(cell: Any, told: dict[str, Any]) -> Entry:
    model, phase = _text(cell, "model"), _text(cell, "phase")
    if model not in told:
        raise BrokenSubmission(f"cells: {shown(model)} is not among the models")
    if phase not in phases.PHASES:
        raise BrokenSubmission(f"cells: {shown(phase)} is no phase")
    context = _fact(told[model], "context_effective_tokens", _count)
    return Entry(
        model, _fact(told[model], "quantization", _text), phase, _count(cell, "lanes"),
        _bool(cell, "cold"), _count(cell, "planned"), _count(cell, "ok") + _count(cell, "failed"),
        dict(_numbers(cell)), _count(cell, "checks.passed"), _count(cell, "checks.total"),
        _flags(cell, "flags"), context)


def _numbers(cell: Any) -> Iterator[tuple[str, Spread]]:
    for name in NUMBERS:
        if name not in metrics.CALL_METRICS:
            value = _number(cell, name)
            if value is not None:
                yield name, Spread(value, None, None, "")
            continue
        value, low, high = (_number(cell, f"metrics.{name}.{part}")
                            for part in ("median", "ci_low", "ci_high"))
        if value is not None:
            whole = low is not None and high is not None
            yield name, Spread(value, *((low, high, "prompts") if whole else (None, None, "")))


def _asked(manifest: Any) -> Json:
    """What has to agree where numbers are compared."""
    options, changed = (_at(manifest, name) for name in ("canonical_options",
                                                         "canonical_options_overrides"))
    if not isinstance(options, dict) or not isinstance(changed, dict):
        raise BrokenSubmission("canonical_options: no object")
    names = [name for name in changed if name in options]
    hashes = _at(manifest, "files_sha256")
    return {
        "harness_version": _text(manifest, "harness_version"),
        "overrides": {name: (_number(changed, name), _number(options, name)) for name in names},
        "num_ctx": _number({**options, **changed}, "num_ctx"),
        "hashes": {path: hashes[path] for path in SUITE_PATHS if path in hashes}
        if isinstance(hashes, dict) else {}}


# --- one device ----------------------------------------------------------------------------------
def _device(metadata: Any, hardware: Any) -> Device:
    capacity = _fact(hardware, "memory.capacity_bytes", _count)
    limit = _fact(hardware, "memory.limit_bytes", _count)
    known = [size for size in (capacity, limit) if size]
    cards = [_card(card) for card in _list(hardware, "accelerators")]
    return Device(
        _text(metadata, "device_tag"), _fact(hardware, "system.model_name", _text),
        _name(hardware, "cpu.model_name"),
        _fact(hardware, "cpu.usable_threads_count", _number),
        size_as_sold_gib(min(known)) if known else None,
        tuple(f"{cards.count(card)} x {card}" if cards.count(card) > 1 else card
              for card in sorted(set(cards))),
        _fact(hardware, "power.mode", _text),
        _fact(hardware, "power.source", _text) == "battery", _text(metadata, "endpoint.class"))


def _name(document: Any, path: str) -> Optional[str]:
    """A processor's or card's name without trade marks and the clock behind its @."""
    value = _fact(document, path, _text)
    if value is None:
        return None
    bare = re.sub(r"\((?:R|TM|C)\)|\bCPU\b|@.*", " ", value, flags=re.IGNORECASE)
    return " ".join(bare.split()) or None


def _card(card: Any) -> str:
    """Name, memory and power limit of a card; of a GPU without memory of its own, its cores."""
    size, cores = _fact(card, "memory_bytes", _count), _fact(card, "cores_count", _count)
    watts = _fact(card, "power_limit_w", _number)
    return " ".join(filter(None, (
        _name(card, "model_name") or "unknown accelerator",
        f"{size_as_sold_gib(size):g} GiB" if size else f"{cores}-core GPU" if cores else "",
        f"{watts:.0f} W" if watts else "")))


def size_as_sold_gib(size_bytes: int) -> float:
    """The size of memory that a machine with so many usable bytes was sold with, in GiB.

    Systems keep up to a tenth for themselves, another part with every version; sold are powers of
    two and their multiples by 9/8, 5/4, 3/2 and 7/4. The smallest of those that holds it.
    """
    size = 0.25
    while True:
        for eighths in (8, 9, 10, 12, 14):
            if size * eighths / 8 * GIB >= size_bytes:
                return size * eighths / 8
        size *= 2


def device_text(device: Device) -> str:
    """What computes, in words: `NVIDIA GeForce RTX 4090 24 GiB + AMD Ryzen 9 7950X, 32 threads`,
    or where one chip does both `Apple M1, 8 threads + 8-core GPU`."""
    threads = f"{device.threads:g} threads" if device.threads else ""
    cpu = ", ".join(filter(None, (device.cpu or device.system, threads)))
    within = [card for card in device.accelerators if device.cpu and card.startswith(device.cpu)]
    apart = [card for card in device.accelerators if card not in within]
    named = [card[len(device.cpu or ""):].strip() for card in within]
    return " + ".join(filter(None, (*apart, cpu, *named))) or "unknown"


def device_notes(device: Device) -> str:
    """What else makes it this device: `MacBook Air, power mode low_power, on battery`."""
    return ", ".join(filter(None, (
        device.system, f"power mode {device.power_mode}" if device.power_mode else "",
        "on battery" if device.on_battery else "",
        {"loopback": "", "public": "hosted endpoint"}.get(
            device.reached, f"reached over {device.reached}"))))


def runtime_text(runtime: Runtime) -> str:
    """`llama.cpp b4567 cuda`."""
    return " ".join(filter(None, runtime))


# --- what is not ranked --------------------------------------------------------------------------
SUITE_PATHS = tuple(next(reversed(releases.RELEASES.values())))


def phase_path(phase: str) -> str:
    """The file whose bytes decide what a phase asks."""
    name = phases.PHASES[phase].suite_file
    return f"harness/suites/{name}" if name else "harness/prompts.py"


def refusals(submission: Submission, entry: Entry) -> tuple[str, ...]:
    """Why this cell's numbers stand outside the ranking; empty where they do not."""
    return tuple(reason for reason in (
        "synthetic: no model answered" if submission.synthetic else None,
        "hosted endpoint, no machine of the contributor's"
        if submission.device.reached == "public" else None,
        *_asked_otherwise(submission, entry),
        None if submission.completeness == "complete" else
        f"{submission.completeness} run",
        f"{entry.asked} of {entry.planned} calls made" if entry.asked < entry.planned else None,
        "cold: its time holds the model's load" if entry.cold else None,
        *(flag for flag in entry.flags if metrics.FLAGS[flag].unrankable),
    ) if reason)


def _asked_otherwise(submission: Submission, entry: Entry) -> Iterator[str]:
    asked = submission.asked
    newest = next(reversed(releases.RELEASES))
    if asked["harness_version"] != newest:
        yield f"harness {asked['harness_version']}, ranked is {newest}"
    path = phase_path(entry.phase)
    if path in SUITE_PATHS and asked["hashes"].get(path) != releases.RELEASES[newest][path]:
        yield f"other bytes of {path.rpartition('/')[2]}"
    for name, (value, canonical) in sorted(asked["overrides"].items()):
        yield f"{name} {_plain(value)}, not {_plain(canonical)}"
    if phases.PHASES[entry.phase].kind in ("same", "mixed") and entry.lanes != CANONICAL_LANES:
        yield f"{entry.lanes} lanes, not {CANONICAL_LANES}"
    if entry.context_tokens and asked["num_ctx"] and entry.context_tokens < asked["num_ctx"]:
        yield f"context {entry.context_tokens}, asked {_plain(asked['num_ctx'])}"


def _plain(value: Optional[float]) -> str:
    return "null" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


# --- rows ----------------------------------------------------------------------------------------
class Row(NamedTuple):
    """Runs of one device with one runtime, model and quantisation in one phase.

    reasons: why they are not ranked. runs: their submissions, newest first. left_out: how many
    further runs of the same stand in a row that is not ranked.
    """

    device: Device
    runtime: Runtime
    model: str
    quantization: Optional[str]
    phase: str
    reasons: tuple[str, ...]
    lanes: int
    numbers: dict[str, Spread]
    passed: int
    checked: int
    flags: tuple[str, ...]
    runs: tuple[Submission, ...]
    left_out: int


class Place(NamedTuple):
    """A row's rank, None where it has none; tied where others share it."""

    row: Row
    rank: Optional[int]
    tied: bool


Member = tuple[Submission, Entry]
Group = tuple[Device, Runtime, str, Optional[str], str]


def make_rows(submissions: Iterable[Submission]) -> list[Row]:
    """A row for each device, runtime, model, quantisation and phase; apart what is not ranked."""
    groups: dict[Group, dict[tuple[str, ...], list[Member]]] = {}
    for submission in submissions:
        for entry in submission.entries:
            key = (submission.device, submission.runtime, entry.model, entry.quantization,
                   entry.phase)
            apart = groups.setdefault(key, {})
            apart.setdefault(refusals(submission, entry), []).append((submission, entry))
    return [_row(key, reasons, members, sum(map(len, apart.values())) - len(members))
            for key, apart in groups.items() for reasons, members in apart.items()]


def _row(group: Group, reasons: tuple[str, ...], members: list[Member], others: int) -> Row:
    members.sort(key=lambda member: (member[0].started_at, member[0].run_id), reverse=True)
    entries = [entry for _, entry in members]
    flags = {flag for submission, entry in members for flag in (*entry.flags,
                                                                *submission.run_flags)}
    spreads = {name: over_runs([entry.numbers[name] for entry in entries if name in entry.numbers])
               for name in NUMBERS if any(name in entry.numbers for entry in entries)}
    device, runtime, model, quantization, phase = group
    return Row(device, runtime, model, quantization, phase, reasons,
               max(entry.lanes for entry in entries), spreads,
               sum(entry.passed for entry in entries), sum(entry.checked for entry in entries),
               tuple(metrics.ordered_flags(flags)), tuple(run for run, _ in members),
               0 if reasons else others)


def over_runs(spreads: Sequence[Spread]) -> Spread:
    """One number of several runs' medians; a single run's own is kept with its interval."""
    if len(spreads) == 1:
        return spreads[0]
    found = metrics.summarize(spread.value for spread in spreads)
    if found["ci_low"] is None:
        return Spread(found["median"], found["min"], found["max"], "range of runs")
    return Spread(found["median"], found["ci_low"], found["ci_high"], "runs")


def row_id(row: Row) -> str:
    """A short name that stays the same as long as the row tells of the same."""
    key = repr((*row[:5], row.reasons)).encode("utf-8", "backslashreplace")
    return hashlib.sha256(key).hexdigest()[:12]


# --- order and ranks -----------------------------------------------------------------------------
TEXTS: dict[str, Callable[[Row], Any]] = {
    "device": lambda row: (row.device.tag, device_text(row.device)),
    "hardware": lambda row: device_text(row.device),
    "memory": lambda row: -(row.device.memory_gib or 0),
    "runtime": lambda row: runtime_text(row.runtime),
    "quantisation": lambda row: row.quantization or "",
    "runs": lambda row: -len(row.runs),
    "checks": lambda row: -(row.passed / row.checked if row.checked else -1),
}
SHORT = {"decode": "decode_tokens_per_s", "prefill": "prefill_tokens_per_s", "ttft": "ttft_ms",
         "tpot": "tpot_ms", "lanes": "lane_efficiency_ratio", "e2el": "e2el_ms",
         "throughput": "output_token_throughput_tokens_per_s"}
SORTS = (*SHORT, *TEXTS)


def ranked(rows: Iterable[Row], sort: str = "decode") -> list[list[Place]]:
    """Blocks of one model and phase each, ranked rows first, best first, then those without.

    sort: one of SORTS. Ranks are by that number, by the decode rate where it is none; rows that
    lack it have no rank.
    """
    blocks: dict[tuple[int, str], list[Row]] = {}
    order = list(phases.PHASES)
    for row in rows:
        blocks.setdefault((order.index(row.phase), row.model), []).append(row)
    return [_block(blocks[key], sort) for key in sorted(blocks)]


def _block(rows: list[Row], sort: str) -> list[Place]:
    metric = SHORT.get(sort, RANKED_BY)
    able = [row for row in rows if not row.reasons and metric in row.numbers]
    able.sort(key=lambda row: _best_first(row, metric))
    places = list(_places(able, metric))
    rest = sorted((row for row in rows if row.reasons or metric not in row.numbers),
                  key=lambda row: (bool(row.reasons), _best_first(row, metric)))
    if sort in TEXTS:
        places.sort(key=lambda place: (TEXTS[sort](place.row), place.rank))
    return [*places, *(Place(row, None, False) for row in rest)]


def _best_first(row: Row, metric: str) -> tuple[Any, ...]:
    spread = row.numbers.get(metric)
    sign = -1 if metrics.METRICS[metric].direction == "higher" else 1
    return (spread is None, sign * spread.value if spread else 0, row.device.tag, row_id(row))


def _places(able: Sequence[Row], metric: str) -> Iterator[Place]:
    """A row has the rank of the best one from which it cannot be told apart."""
    ranks: list[int] = []
    first = 0
    for i, row in enumerate(able):
        if i and can_be_told(able[first].numbers[metric], row.numbers[metric]):
            first = i
        ranks.append(first + 1)
    shared = Counter(ranks)
    for row, rank in zip(able, ranks):
        yield Place(row, rank, shared[rank] > 1)


def can_be_told(a: Spread, b: Spread) -> bool:
    """Whether two numbers differ: by 5 % at least, and their intervals, if any, do not overlap."""
    small, large = sorted((a.value, b.value))
    if large < small * metrics.DIFFERENT_RATIO:
        return False
    ends = [(s.value if s.low is None else s.low, s.value if s.high is None else s.high)
            for s in (a, b)]
    return ends[0][1] < ends[1][0] or ends[1][1] < ends[0][0]


# --- filters -------------------------------------------------------------------------------------
FILTERS: dict[str, Callable[[Row], str]] = {
    "model": lambda row: row.model,
    "runtime": lambda row: runtime_text(row.runtime),
    "hardware": lambda row: f"{row.device.tag} {device_text(row.device)} "
                            f"{device_notes(row.device)}",
    "phase": lambda row: row.phase,
    "quantisation": lambda row: row.quantization or "",
}


def matching(rows: Iterable[Row], wanted: dict[str, Optional[str]]) -> list[Row]:
    """Rows that hold every text asked for, capitals or not.

    `hello`, one cold call a run, is left out unless it is asked for or all there is.
    """
    asked = {name: text.casefold() for name, text in wanted.items() if text}
    found = [row for row in rows
             if all(text in FILTERS[name](row).casefold() for name, text in asked.items())]
    warm = [row for row in found if row.phase != "hello"]
    return found if asked.get("phase") else warm or found


def only(blocks: Iterable[Sequence[Place]], wanted: Iterable[Row]) -> list[list[Place]]:
    """Blocks without the rows that are not wanted; ranks stay what they are among all."""
    kept = {id(row) for row in wanted}
    found = ([place for place in block if id(place.row) in kept] for block in blocks)
    return [block for block in found if block]


# --- for programs --------------------------------------------------------------------------------
def row_json(place: Place) -> Json:
    """A row as --json publishes it; values in 6 significant digits, units in the names."""
    row, device = place.row, place.row.device
    return {
        "rank": place.rank, "tied": place.tied, "not_ranked": list(row.reasons),
        "device_tag": device.tag, "system": device.system, "cpu": device.cpu,
        "threads": device.threads, "memory_gib": device.memory_gib,
        "accelerators": list(device.accelerators), "power_mode": device.power_mode,
        "on_battery": device.on_battery, "reached": device.reached, "runtime": row.runtime.name,
        "runtime_version": row.runtime.version, "backend": row.runtime.backend, "model": row.model,
        "quantization": row.quantization, "phase": row.phase, "lanes": row.lanes,
        **{name: _spread_json(row.numbers.get(name)) for name in NUMBERS},
        "runs": len(row.runs), "runs_not_ranked": row.left_out,
        "handles": sorted({run.handle for run in row.runs}),
        "checks": {"passed": row.passed, "total": row.checked}, "flags": list(row.flags),
        "run_ids": [run.run_id for run in row.runs]}


def _spread_json(spread: Optional[Spread]) -> Optional[Json]:
    return None if spread is None else {"median": spread.value, "low": spread.low,
                                        "high": spread.high, "interval_of": spread.of or None}
