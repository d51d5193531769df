"""Compute the headline of one model in one run: the numbers that tables and pages show first.

A pure function of the ledger, like all of core/metrics. A number that was not measured is null.
"""
from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Optional

from core import metric_definitions as defs
from core import metrics, records


def of_model(model: str, numbers: Mapping[str, Sequence[metrics.Numbers]],
             cells: Iterable[records.Cell]) -> records.Headline:
    """numbers: by phase, metrics.call_metrics of the model's answered calls; cells: the model's."""
    short = [m for phase in defs.ONE_LANE_PHASES for m in numbers.get(phase, ())]
    long = numbers.get(defs.LONG_PHASE, ())
    own = list(cells)
    return {
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
        "energy": None, "memory": None, "draft_acceptance_ratio": None, "load_s": None,
        "server_decode_tokens_per_s": None, "server_prefill_tokens_per_s": None}


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
