"""Compute the headline of one model in one run: the numbers that tables and pages show first.

A pure function of the ledger, like all of core/metrics. A number that was not measured is null.
"""
from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Optional, cast

from core import metric_definitions as defs
from core import metrics, records, resources


def of_model(model: str, phases: Mapping[str, resources.Calls], cells: Iterable[records.Cell],
             samples: Sequence[records.HostSampled]) -> records.Headline:
    """phases: the model's answered calls with their metrics.call_metrics; cells: the model's."""
    numbers = {name: [one for _, one in calls] for name, calls in phases.items()}
    short = [m for phase in defs.ONE_LANE_PHASES for m in numbers.get(phase, ())]
    long = numbers.get(defs.LONG_PHASE, ())
    own = list(cells)
    found: Any = {
        "model": model,
        "decode_tokens_per_s": _summary(short, "decode_tokens_per_s"),
        "ttft_ms": _summary(short, "ttft_ms"), "prompt_tokens": _median(short, "prompt_tokens"),
        "prefill_tokens_per_s": _summary(long, "prefill_tokens_per_s"),
        "long_ttft_ms": _summary(long, "ttft_ms"),
        "long_prompt_tokens": _median(long, "prompt_tokens"),
        "lanes": next(map(_lanes, (cell for cell in own if cell["phase"] == defs.LANES_PHASE)),
                      None),
        "checks_passed": sum(cell["checks"]["passed"] for cell in own),
        "checks_count": sum(cell["checks"]["total"] for cell in own),
        **resources.of_model(phases, samples)}
    return cast(records.Headline, found)


def _summary(numbers: Iterable[metrics.Numbers], name: str) -> Optional[records.Summary]:
    found = metrics.summarize(one[name] for one in numbers)
    return found if found["n"] else None


def _median(numbers: Iterable[metrics.Numbers], name: str) -> Optional[float]:
    return metrics.round_sig(metrics.median_or_none(
        one[name] for one in numbers if one[name] is not None))


def _lanes(cell: records.Cell) -> records.LanesHeadline:
    return {"phase": cell["phase"], "lanes_count": cell["lanes"],
            "output_token_throughput_tokens_per_s": cell["output_token_throughput_tokens_per_s"],
            "speedup_ratio": None}
