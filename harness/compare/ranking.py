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
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Callable, NamedTuple, Optional

from core import metric_definitions, metrics, release, suites

from compare import entries as entriess

Json = dict[str, Any]


CANONICAL_LANES = 4           # the runner's default of --lanes
RANKED_BY = "decode_tokens_per_s"


def phase_path(phase: str) -> str:
    """The file whose bytes decide what a phase asks."""
    name = suites.PHASES[phase].suite_file
    return f"harness/suites/{name}" if name else "harness/prompts.py"


def refusals(submission: entriess.Submission, entry: entriess.Entry) -> tuple[str, ...]:
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
        *(flag for flag in entry.flags if metric_definitions.FLAGS[flag].unrankable),
    ) if reason)


def _asked_otherwise(submission: entriess.Submission, entry: entriess.Entry) -> Iterator[str]:
    asked = submission.asked
    newest = next(reversed(release.RELEASES))
    if asked["harness_version"] != newest:
        yield f"harness {asked['harness_version']}, ranked is {newest}"
    path = phase_path(entry.phase)
    if path in entriess.SUITE_PATHS and asked["hashes"].get(path) != release.RELEASES[newest][path]:
        yield f"other bytes of {path.rpartition('/')[2]}"
    for name, (value, canonical) in sorted(asked["overrides"].items()):
        yield f"{name} {_plain(value)}, not {_plain(canonical)}"
    if suites.PHASES[entry.phase].kind in ("same", "mixed") and entry.lanes != CANONICAL_LANES:
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

    device: entriess.Device
    runtime: entriess.Runtime
    model: str
    quantization: Optional[str]
    phase: str
    reasons: tuple[str, ...]
    lanes: int
    numbers: dict[str, entriess.Spread]
    passed: int
    checked: int
    flags: tuple[str, ...]
    runs: tuple[entriess.Submission, ...]
    left_out: int


class Place(NamedTuple):
    """A row's rank, None where it has none; tied where others share it."""

    row: Row
    rank: Optional[int]
    tied: bool


Member = tuple[entriess.Submission, entriess.Entry]
Group = tuple[entriess.Device, entriess.Runtime, str, Optional[str], str]


def make_rows(submissions: Iterable[entriess.Submission]) -> list[Row]:
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
               for name in entriess.NUMBERS if any(name in entry.numbers for entry in entries)}
    device, runtime, model, quantization, phase = group
    return Row(device, runtime, model, quantization, phase, reasons,
               max(entry.lanes for entry in entries), spreads,
               sum(entry.passed for entry in entries), sum(entry.checked for entry in entries),
               tuple(metric_definitions.ordered_flags(flags)), tuple(run for run, _ in members),
               0 if reasons else others)


def over_runs(spreads: Sequence[entriess.Spread]) -> entriess.Spread:
    """One number of several runs' medians; a single run's own is kept with its interval."""
    if len(spreads) == 1:
        return spreads[0]
    found: Any = metrics.summarize(spread.value for spread in spreads)
    if found["ci_low"] is None:
        return entriess.Spread(found["median"], found["min"], found["max"], "range of runs")
    return entriess.Spread(found["median"], found["ci_low"], found["ci_high"], "runs")


def row_id(row: Row) -> str:
    """A short name that stays the same as long as the row tells of the same."""
    key = repr((*row[:5], row.reasons)).encode("utf-8", "backslashreplace")
    return hashlib.sha256(key).hexdigest()[:12]


# --- order and ranks -----------------------------------------------------------------------------
TEXTS: dict[str, Callable[[Row], Any]] = {
    "device": lambda row: (row.device.tag, entriess.device_text(row.device)),
    "hardware": lambda row: entriess.device_text(row.device),
    "memory": lambda row: -(row.device.memory_gib or 0),
    "runtime": lambda row: entriess.runtime_text(row.runtime),
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
    order = list(suites.PHASES)
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
    sign = -1 if metric_definitions.METRICS[metric].direction == "higher" else 1
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


def can_be_told(a: entriess.Spread, b: entriess.Spread) -> bool:
    """Whether two numbers differ: by 5 % at least, and their intervals, if any, do not overlap."""
    small, large = sorted((a.value, b.value))
    if large < small * metric_definitions.DIFFERENT_RATIO:
        return False
    ends = [(s.value if s.low is None else s.low, s.value if s.high is None else s.high)
            for s in (a, b)]
    return ends[0][1] < ends[1][0] or ends[1][1] < ends[0][0]


# --- filters -------------------------------------------------------------------------------------
FILTERS: dict[str, Callable[[Row], str]] = {
    "model": lambda row: row.model,
    "runtime": lambda row: entriess.runtime_text(row.runtime),
    "hardware": lambda row: f"{row.device.tag} {entriess.device_text(row.device)} "
                            f"{entriess.device_notes(row.device)}",
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
        **{name: _spread_json(row.numbers.get(name)) for name in entriess.NUMBERS},
        "runs": len(row.runs), "runs_not_ranked": row.left_out,
        "handles": sorted({run.handle for run in row.runs}),
        "checks": {"passed": row.passed, "total": row.checked}, "flags": list(row.flags),
        "run_ids": [run.run_id for run in row.runs]}


def _spread_json(spread: Optional[entriess.Spread]) -> Optional[Json]:
    return None if spread is None else {"median": spread.value, "low": spread.low,
                                        "high": spread.high, "interval_of": spread.of or None}
