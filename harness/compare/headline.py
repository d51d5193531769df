"""Headline rows: machine class x model x bits class, over all runs.

A run's numbers are those of `headlines` in its metadata.json. A row's number is the median of its
owners' medians, so that one owner with many runs does not outweigh the others. A run that must not
be compared is in `left_out` with its reasons and moves no number.
"""
from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Callable, Optional

from compare import entries as reading
from compare import identity, verdicts
from compare.ranking import RANKED_BY, LeftOut, Member, Row, by_owner, members_of, refusals
from core import flag_definitions, metrics
from core import metric_definitions as defs

# Numbers that come from other phases than the one-lane ones, and are left out alone.
FROM_PHASE = {
    **dict.fromkeys(("output_token_throughput_tokens_per_s", "speedup_ratio"), defs.LANES_PHASE),
    **dict.fromkeys(("prefill_tokens_per_s", "long_ttft_ms"), defs.LONG_PHASE)}


class Run:
    """One model of one submission: its numbers, and why it is left out (empty: it counts)."""

    __slots__ = ("exact", "member", "numbers", "reasons", "flags", "passed", "checked")

    def __init__(self, members: Sequence[Member]) -> None:
        self.member = members[0]
        submission, phases = self.member.submission, {
            member.entry.phase: member for member in members}
        alone = [phases[name] for name in defs.ONE_LANE_PHASES if name in phases]
        refused = [refusals(submission, member.entry) for member in alone]
        # Phases with a flag are not part of the headline, unless all of them have one.
        reasons = {reason: None for of in refused for reason in of
                   if reason not in flag_definitions.FLAGS or all(refused)}
        if not alone:
            reasons["no phase with one lane was run"] = None
        self.reasons = tuple(reasons)
        self.exact = self.member.identity.exact
        self.numbers = dict(submission.headlines.get(self.member.entry.model, {}))
        for name, phase in FROM_PHASE.items():
            if phase in phases and refusals(submission, phases[phase].entry):
                self.numbers.pop(name, None)
        self.flags = {flag for member in alone for flag in member.entry.flags}
        self.passed = sum(member.entry.passed for member in members)
        self.checked = sum(member.entry.checked for member in members)


def headline_rows(submissions: Iterable[reading.Submission]) -> list[Row]:
    """One Row per machine class, model and bits class; see ranking.ranked for their order."""
    return rows_by(runs_of(submissions), lambda run: run.member.identity.headline)


def runs_of(submissions: Iterable[reading.Submission]) -> list[Run]:
    """A Run for each model of each submission."""
    by_model: dict[tuple[str, str], list[Member]] = {}
    for member in members_of(submissions):
        by_model.setdefault((member.submission.run_id, member.entry.model), []).append(member)
    return [Run(members) for members in by_model.values()]


def rows_by(runs: Iterable[Run], key_of: Callable[[Run], tuple[str, str, str]]) -> list[Row]:
    """One Row per (machine class, model or a class of models, bits class) that key_of returns."""
    groups: dict[tuple[str, str, str], list[Run]] = {}
    for run in runs:
        groups.setdefault(key_of(run), []).append(run)
    return [_row(key, of) for key, of in groups.items()]


def _row(key: tuple[str, str, str], every: list[Run]) -> Row:
    every.sort(key=lambda run: (run.member.submission.started_at, run.member.submission.run_id),
               reverse=True)
    counted = [run for run in every if not run.reasons]
    shown = counted or every
    newest = shown[0].member
    runs = tuple(run.member.submission for run in counted)
    flags = {flag for run in shown for flag in (*run.flags, *run.member.submission.run_flags)}
    names = dict.fromkeys(name for run in counted for name in run.numbers)
    values = {name: [run.numbers.get(name) for run in counted] for name in names}
    return Row(
        key=(key, None), block=key[1], group=key[0], bits_class=key[2],
        device=newest.submission.device, runtime=newest.submission.runtime,
        model=key[1] if newest.entry.about.name else newest.entry.model,
        served_as=tuple(sorted({run.member.entry.model for run in shown})),
        quantization=_joined(run.member.identity.quant for run in shown),
        weights=_joined(identity.weights_text(run.member.identity) for run in shown) or "",
        configuration=_joined(identity.configuration_text(run.member.identity)
                              for run in shown) or "",
        phase=None, reasons=() if counted else every[0].reasons,
        lanes=max(run.member.entry.lanes for run in shown),
        numbers={name: verdicts.interval(name, found, float(metrics.median(
            metrics.median(own) for own in by_owner(runs, found).values())))
            for name, found in values.items()},
        values=values, passed=sum(run.passed for run in counted),
        checked=sum(run.checked for run in counted),
        flags=tuple(flag_definitions.ordered_flags(flags)),
        runs=runs,
        left_out=tuple(LeftOut(run.member.submission, run.reasons, run.numbers)
                       for run in every if run.reasons),
        reproduced=_is_reproduced(counted))


def _joined(texts: Iterable[Optional[str]]) -> Optional[str]:
    """Different texts in order, the newest first."""
    return ", ".join(dict.fromkeys(filter(None, texts))) or None


def _is_reproduced(runs: Sequence[Run]) -> bool:
    """Whether two owners measured one exact row and their intervals of the decode rate meet."""
    rows: dict[Any, list[Run]] = {}
    for run in runs:
        rows.setdefault(run.exact, []).append(run)
    return any(verdicts.is_reproduced(RANKED_BY, by_owner(
        [run.member.submission for run in of], [run.numbers.get(RANKED_BY) for run in of]))
        for of in rows.values())
