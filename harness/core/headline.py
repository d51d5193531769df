"""Compute the headline of one model in one run: the numbers that tables and pages show first.

A pure function of the ledger, like all of core/metrics. A number that was not measured is null.
"""
from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Optional, cast

from core import energy_and_memory, flag_definitions, metrics, records
from core import metric_definitions as defs
from core.energy_and_memory import Calls


def of_model(model: str, calls: Calls, cells: Sequence[records.Cell],
             samples: Sequence[records.HostSampled]) -> records.Headline:
    """calls: the model's measured ones, in their order; cells: the model's.

    Of the one-lane phases only those that are ranked count, unless none is. A metric that the
    client itself determined is left out.
    """
    own = {cell["phase"]: cell for cell in cells}
    short = [own[phase] for phase in defs.ONE_LANE_PHASES if phase in own]
    short = [cell for cell in short if not any(
        flag_definitions.FLAGS[flag].unrankable for flag in cell["flags"])] or short
    long = [own[phase] for phase in (defs.LONG_PHASE,) if phase in own]
    lanes = own.get(defs.LANES_PHASE)
    phases = {phase: [pair for pair in calls if pair[0]["phase"] == phase] for phase in own}
    found: Any = {
        "model": model,
        "decode_tokens_per_s": _summary(calls, short, "decode_tokens_per_s"),
        "ttft_ms": _summary(calls, short, "ttft_ms"),
        "prompt_tokens": _median(calls, short, "prompt_tokens"),
        "prefill_tokens_per_s": _summary(calls, long, "prefill_tokens_per_s"),
        "long_ttft_ms": _summary(calls, long, "ttft_ms"),
        "long_prompt_tokens": _median(calls, long, "prompt_tokens"),
        "lanes": _lanes(lanes) if lanes else None,
        "drift_ratio": metrics.drift_ratio([
            one["decode_tokens_per_s"] for call, one in calls
            if call["phase"] in defs.ONE_LANE_PHASES and one["decode_tokens_per_s"] is not None]),
        "checks_passed": sum(cell["checks"]["passed"] for cell in cells),
        "checks_count": sum(cell["checks"]["total"] for cell in cells),
        **energy_and_memory.of_model(phases, samples)}
    return cast(records.Headline, found)


def _bound(cell: records.Cell, name: str) -> bool:
    return name in defs.bound_metrics(cell["verdicts"]["client_bound"]["reasons"])


def _values(calls: Calls, cells: Iterable[records.Cell], name: str) -> list[float]:
    phases = {cell["phase"] for cell in cells if not _bound(cell, name)}
    return [one[name] for call, one in calls
            if call["phase"] in phases and one[name] is not None]


def _summary(calls: Calls, cells: Iterable[records.Cell],
             name: str) -> Optional[records.Summary]:
    values = _values(calls, cells, name)
    return metrics.summarize(values) if values else None


def _median(calls: Calls, cells: Iterable[records.Cell], name: str) -> Optional[float]:
    return metrics.round_sig(metrics.median_or_none(_values(calls, cells, name)))


def _lanes(cell: records.Cell) -> records.LanesHeadline:
    rate, speedup = "output_token_throughput_tokens_per_s", "speedup_ratio"
    return {"phase": cell["phase"], "lanes_count": cell["lanes"],
            "output_token_throughput_tokens_per_s": None if _bound(cell, rate) else
            cell["output_token_throughput_tokens_per_s"],
            "speedup_ratio": None if _bound(cell, speedup) else cell["speedup_ratio"]}
