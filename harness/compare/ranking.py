"""Rows of comparable runs, and their order and ranks.

identity.py decides which runs belong in one row. A row's number is the median over all its runs,
never the best of them. Runs that may not be ranked are in rows of their own, so that a median never
mixes the two. Ranks are given within one model and phase, by the verdicts of compare/verdicts.
"""
from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from typing import Any, Callable, NamedTuple, Optional

from compare import entries as reading
from compare import identity, verdicts
from compare.titles_and_sizes import machine_text, model_title
from core import flag_definitions, metric_definitions, metrics, release, suites
from core.records import Json

RANKED_BY = "decode_tokens_per_s"


def refusals(submission: reading.Submission, entry: reading.Entry) -> tuple[str, ...]:
    """Why this cell's numbers are not ranked; empty if they are."""
    return tuple(reason for reason in (
        *submission.corrections,
        "other questions in each run"
        if suites.PHASES[entry.phase].kind == "challenge" else None,
        "synthetic: no model answered" if submission.synthetic else None,
        "hosted endpoint, not the contributor's machine"
        if submission.device.reached == "public" else None,
        *_workload_differences(submission, entry),
        None if submission.completeness == "complete" else
        f"{submission.completeness} run",
        f"{entry.asked} of {entry.planned} calls made" if entry.asked < entry.planned else None,
        "cold: its time includes the model's load" if entry.cold else None,
        *(flag for flag in entry.flags if flag_definitions.FLAGS[flag].unrankable),
    ) if reason)


def _workload_differences(submission: reading.Submission, entry: reading.Entry) -> Iterator[str]:
    asked = submission.asked
    newest = next(reversed(release.RELEASES))
    if asked["harness_version"] != newest:
        yield f"harness {asked['harness_version']}, ranked is {newest}"
    suite_file = suites.PHASES[entry.phase].suite_file
    path = f"harness/suites/{suite_file}" if suite_file else "harness/prompts.py"
    if path in asked["changed"]:
        yield f"{path.rpartition('/')[2]} was changed"
    for name, (value, canonical) in sorted(asked["overrides"].items()):
        yield f"{name} {_plain(value)}, not {_plain(canonical)}"
    if suites.PHASES[entry.phase].kind in ("same", "mixed") and entry.lanes != suites.DEFAULT_LANES:
        yield f"{entry.lanes} lanes, not {suites.DEFAULT_LANES}"
    if entry.context_tokens and asked["num_ctx"] and entry.context_tokens < asked["num_ctx"]:
        yield f"context {entry.context_tokens}, requested {_plain(asked['num_ctx'])}"


def _plain(value: Optional[float]) -> str:
    return "null" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


# --- rows ----------------------------------------------------------------------------------------
class LeftOut(NamedTuple):
    """A run that is not ranked, why, and its numbers by metric."""

    run: reading.Submission
    reasons: tuple[str, ...]
    numbers: dict[str, float]


class Row(NamedTuple):
    """Runs with one identity in one phase; in a headline row phase is None.

    key: what `id` names. group, bits_class: machine class and bits class of headline rows. device,
    runtime: of the newest run, to be shown. reasons: why the runs are not ranked; in a headline row
    only if all are left out. runs: their submissions, newest first. values: by metric, one number
    per run, in the order of runs. left_out: further runs of the same identity that are not ranked.
    reproduced: two owners measured it and their intervals meet."""

    key: tuple[Any, ...]
    block: str
    group: str
    bits_class: str
    device: reading.Device
    runtime: reading.Runtime
    model: str
    served_as: tuple[str, ...]
    quantization: Optional[str]
    weights: str
    configuration: str
    phase: Optional[str]
    reasons: tuple[str, ...]
    lanes: int
    numbers: dict[str, verdicts.Spread]
    values: dict[str, list[Optional[float]]]
    passed: int
    checked: int
    flags: tuple[str, ...]
    runs: tuple[reading.Submission, ...]
    left_out: tuple[LeftOut, ...]
    reproduced: bool

    @property
    def owners_count(self) -> int:
        """Number of different handles among the runs that count."""
        return len({run.handle for run in self.runs})

    @property
    def id(self) -> str:
        """Short name of the identity (and phase): the same for ranked runs and those that are not.
        """
        return identity.short_id(self.key)


class Place(NamedTuple):
    """A row with its rank, None if it has none; tied if others share it."""

    row: Row
    rank: Optional[int]
    tied: bool


class Member(NamedTuple):
    """One entry of a submission with its identity."""

    submission: reading.Submission
    entry: reading.Entry
    identity: identity.Identity


def members_of(submissions: Iterable[reading.Submission]) -> list[Member]:
    """All entries with their identities, which depend on all submissions that are compared."""
    every = [(submission, entry) for submission in submissions for entry in submission.entries]
    joined = identity.blocks_and_weights(entry.about for _, entry in every)
    cached: dict[Any, identity.Identity] = {}
    found = []
    for submission, entry in every:
        block, weights, quant = joined[entry.about]
        made = identity.Identity(
            block, weights, quant, entry.about.bits_class, submission.machine,
            identity.runtime(*submission.runtime), entry.configuration)
        found.append(Member(submission, entry, cached.setdefault(made, made)))
    return found


def make_rows(submissions: Iterable[reading.Submission]) -> list[Row]:
    """A row for each exact identity and phase; separate ones for runs that are not ranked."""
    groups: dict[Any, dict[tuple[str, ...], list[Member]]] = {}
    for member in members_of(submissions):
        by_reason = groups.setdefault((member.identity.exact, member.entry.phase), {})
        by_reason.setdefault(refusals(member.submission, member.entry), []).append(member)
    rows = []
    for key, by_reason in groups.items():
        ranked_runs = {member.submission.run_id for member in by_reason.get((), ())}
        left_out = {member.submission.run_id: LeftOut(
            member.submission, reasons, member.entry.numbers)
            for reasons, of in by_reason.items() if reasons for member in of
            if member.submission.run_id not in ranked_runs}
        rows += [_row(key, reasons, of, () if reasons else tuple(left_out.values()))
                 for reasons, of in by_reason.items()]
    return rows


def _row(key: tuple[Any, Any], reasons: tuple[str, ...], members: list[Member],
         left_out: tuple[LeftOut, ...]) -> Row:
    members.sort(key=lambda member: (member.submission.started_at, member.submission.run_id),
                 reverse=True)
    newest, entries = members[0], [member.entry for member in members]
    runs = tuple({member.submission.run_id: member.submission for member in members}.values())
    flags = {flag for member in members
             for flag in (*member.entry.flags, *member.submission.run_flags)}
    values = {name: found for name in reading.NUMBERS
              for found in [_values(members, runs, name)] if any(v is not None for v in found)}
    return Row(key, newest.identity.block, newest.identity.machine.group,
               newest.identity.bits_class, newest.submission.device, newest.submission.runtime,
               newest.identity.block if newest.entry.about.name else newest.entry.model,
               tuple(sorted({entry.model for entry in entries})),
               newest.identity.quant, identity.weights_text(newest.identity),
               identity.configuration_text(newest.identity),
               key[1], reasons, max(entry.lanes for entry in entries),
               {name: verdicts.interval(name, found) for name, found in values.items()}, values,
               sum(entry.passed for entry in entries), sum(entry.checked for entry in entries),
               tuple(flag_definitions.ordered_flags(flags)), runs, left_out,
               not reasons and verdicts.is_reproduced(
                   RANKED_BY, by_owner(runs, values.get(RANKED_BY, ()))))


def by_owner(runs: Sequence[reading.Submission],
             values: Sequence[Optional[float]]) -> dict[str, list[float]]:
    """The known values of each handle."""
    found: dict[str, list[float]] = {}
    for run, value in zip(runs, values):
        if value is not None:
            found.setdefault(run.handle, []).append(value)
    return found


def _values(members: Iterable[Member], runs: Iterable[reading.Submission],
            name: str) -> list[Optional[float]]:
    """One number per run: the median of its phases, None if it has none."""
    of_runs: dict[str, list[float]] = {}
    for member in members:
        if name in member.entry.numbers:
            of_runs.setdefault(member.submission.run_id, []).append(member.entry.numbers[name])
    return [float(metrics.median(of_runs[run.run_id])) if run.run_id in of_runs else None
            for run in runs]


# --- order and ranks -----------------------------------------------------------------------------
SHORT = {"decode": "decode_tokens_per_s", "prefill": "prefill_tokens_per_s", "ttft": "ttft_ms",
         "tpot": "tpot_ms", "lanes": "output_token_throughput_tokens_per_s",
         "speedup": "speedup_ratio", "energy": "joules_per_output_token", "load": "load_s"}


def ranked(rows: Iterable[Row], sort: str = "decode") -> list[list[Place]]:
    """Blocks of one model and phase each, ranked rows first, best first, then those without;
    headline rows are in blocks of one model and bits class. sort: one of SHORT, the number that
    ranks; rows that lack it have no rank."""
    blocks: dict[tuple[int, str, str], list[Row]] = {}
    order = list(suites.PHASES)
    for row in rows:
        at = order.index(row.phase) if row.phase else -1
        bits = "" if row.phase else row.bits_class
        blocks.setdefault((at, row.block, bits), []).append(row)
    return [_ranked_block(blocks[key], SHORT[sort]) for key in sorted(blocks)]


def _ranked_block(rows: list[Row], metric: str) -> list[Place]:
    able = [row for row in rows if not row.reasons and metric in row.numbers]
    able.sort(key=lambda row: _best_first(row, metric))
    # Never before a row above: one with many runs may be distinguishable from more of the others
    # than the next one with a single run.
    ranks = list(accumulate(verdicts.ranks(metric, [row.values[metric] for row in able]), max))
    shared = Counter(ranks)
    places = [Place(row, rank, shared[rank] > 1) for row, rank in zip(able, ranks)]
    rest = sorted((row for row in rows if row.reasons or metric not in row.numbers),
                  key=lambda row: (bool(row.reasons), _best_first(row, metric)))
    return [*places, *(Place(row, None, False) for row in rest)]


def _best_first(row: Row, metric: str) -> tuple[Any, ...]:
    spread = row.numbers.get(metric)
    sign = -1 if metric_definitions.METRICS[metric].direction == "higher" else 1
    return (spread is None, sign * spread.value if spread else 0, row.device.tag, row.id,
            row.reasons)


# --- filters -------------------------------------------------------------------------------------
FILTERS: dict[str, Callable[[Row], str]] = {
    "model": lambda row: " ".join([model_title(row.block), row.model, *row.served_as]),
    "runtime": lambda row: ", ".join(sorted({reading.runtime_text(run.runtime)
                                             for run in row.runs or [row]})),
    "hardware": lambda row: " ".join([machine_text(row.group), reading.device_text(row.device),
                                      reading.device_notes(row.device),
                                      *sorted({run.device.tag for run in row.runs})]),
    "phase": lambda row: row.phase or "",
    "quantisation": lambda row: row.quantization or "",
}


def matching(rows: Iterable[Row], wanted: dict[str, Optional[str]],
             with_hello: bool = False) -> list[Row]:
    """Rows that contain every text asked for, ignoring case. `hello`, one cold call per run, is
    left out unless it is asked for or nothing else matches."""
    asked = {name: text.casefold() for name, text in wanted.items() if text}
    found = [row for row in rows
             if all(text in FILTERS[name](row).casefold() for name, text in asked.items())]
    warm = [row for row in found if row.phase != "hello"]
    return found if asked.get("phase") or with_hello else warm or found


def only(blocks: Iterable[Sequence[Place]], wanted: Iterable[Row]) -> list[list[Place]]:
    """Blocks without the rows that are not wanted; ranks stay what they are among all."""
    kept = {id(row) for row in wanted}
    found = ([place for place in block if id(place.row) in kept] for block in blocks)
    return [block for block in found if block]


# --- for programs --------------------------------------------------------------------------------
def row_json(place: Place) -> Json:
    """A row as --json publishes it; values in 6 significant digits, units in the names. run_ids:
    also those of runs that are left out of a headline row."""
    row, device = place.row, place.row.device
    numbers = reading.NUMBERS if row.phase else reading.HEADLINES
    holds = len(row.runs) >= verdicts.MIN_CONFIRMING_RUNS        # fewer runs are a hint
    others = [] if row.phase else [one.run.run_id for one in row.left_out]
    return {
        "row_id": row.id, "block_id": identity.short_id(row.block),
        "machine_class": row.group, "bits_class": row.bits_class,
        "rank": place.rank, "tied": place.tied, "not_ranked": list(row.reasons),
        "device_tag": device.tag, "system": device.system, "cpu": device.cpu,
        "threads": device.threads, "memory_gib": device.memory_gib,
        "accelerators": list(device.accelerators), "power_mode": device.power_mode,
        "on_battery": device.on_battery, "reached": device.reached, "runtime": row.runtime.name,
        "runtime_version": row.runtime.version, "backend": row.runtime.backend, "model": row.model,
        "served_as": list(row.served_as), "quantization": row.quantization, "weights": row.weights,
        "configuration": row.configuration, "phase": row.phase, "lanes": row.lanes,
        **{name: spread and {"median": spread.value, "low": spread.low, "high": spread.high}
           for name in numbers for spread in [row.numbers.get(name)]},
        "runs": len(row.runs), "owners": row.owners_count,
        "runs_not_ranked": len(row.left_out),
        "runs_left_out": [{"run_id": one.run.run_id, "reasons": list(one.reasons)}
                          for one in row.left_out],
        "handles": sorted({run.handle for run in row.runs}), "reproduced": row.reproduced,
        "checks": {"passed": row.passed, "total": row.checked}, "flags": list(row.flags),
        "standing": None if row.reasons or not row.runs else
        "holds over runs" if holds else "hint",
        "run_ids": [*(run.run_id for run in row.runs), *others]}
