"""Compute the curves of ramp and depth: how speed changes with lanes and with context.

Pure functions of the ledger. docs/curves.md defines the numbers; core/curve_levels decides when a
curve ends, and has the time in which all lanes were busy.
"""
from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import fsum, sqrt
from typing import Optional

from core import curve_levels, metrics, records
from core.metrics import Number, round_sig
from core.records import CallFinished, InstrumentCalibrated
from core.suites import CURVES_RELEASE
from core.throughput import HostLoad

PARTS = 10                    # of the busy time, whose spread gives throughput its interval
T_975 = 2.262                 # Student's t of 9 degrees of freedom
THROUGHPUT = "output_token_throughput_tokens_per_s"


def curve(model: str, phase: str, calls: Sequence[CallFinished],
          numbers: Mapping[str, metrics.Numbers], end: Optional[records.CurveEnded],
          calibration: Optional[InstrumentCalibrated], load: HostLoad,
          slots: Optional[int]) -> records.Curve:
    """The curve of one model.

    calls: the latest of each cell; numbers: metrics.call_metrics of the answered ones that count,
    by cell id; slots: of the server.
    """
    found: dict[int, list[CallFinished]] = {}
    for call in calls:
        found.setdefault(call["level"], []).append(call)
    ordered = sorted(found.items())
    series = _depth(ordered, numbers) if phase == "depth" else {
        THROUGHPUT: [throughput_point(lanes, group, load) for lanes, group in ordered],
        **{name: [_point(lanes, _of(group, numbers, name)) for lanes, group in ordered]
           for name in ("ttft_ms", "decode_tokens_per_s")}}
    ok = [call for call in calls if call["outcome"] == "ok"]
    return {
        "model": model, "phase": phase, "release": CURVES_RELEASE,
        "axis": "lanes_count" if phase == "ramp" else "depth_tokens",
        "series": [{"metric": name, "points": [point for point in points if point["n"]]}
                   for name, points in series.items()],
        "knee": _knee(series[THROUGHPUT], end) if phase == "ramp" else None,
        "slots_count": slots if phase == "ramp" else None,
        "end": {"level": end["level"], "kind": end["kind"], "reason": end["reason"]} if end
        else None,
        "client": [_client(level, group, calibration, phase) for level, group in ordered],
        "ok": len(ok), "failed": len(calls) - len(ok), "left_out": len(ok) - len(numbers),
        "checks": metrics.check_counts(ok)}


def _point(at: Number, values: Iterable[Optional[Number]]) -> records.Point:
    summary = metrics.summarize(values)
    return {"at": at, "n": summary["n"], "value": summary["median"], "low": summary["ci_low"],
            "high": summary["ci_high"]}


def _of(calls: Iterable[CallFinished], numbers: Mapping[str, metrics.Numbers],
        name: str) -> list[Optional[Number]]:
    return [numbers[call["cell_id"]][name] for call in calls if call["cell_id"] in numbers]


# --- ramp ----------------------------------------------------------------------------------------
def throughput_point(lanes: int, calls: Sequence[CallFinished], load: HostLoad) -> records.Point:
    """Throughput while every lane was busy; n is the number of answers, 0 if other programs
    disturbed them. Its interval is that of the mean of ten equal parts of the longest such time."""
    spans = curve_levels.busy_spans(calls, lanes)
    disturbed = any(load.is_disturbed(*span) for span in spans)
    value = None if disturbed else curve_levels.throughput(calls, lanes)
    low = high = None
    if value and spans:
        segment, begin, end = max(spans, key=lambda span: span[2] - span[1])
        marks = [begin + (end - begin) * part // PARTS for part in range(PARTS + 1)]
        rates = [curve_levels.tokens_within(calls, [(segment, a, b)]) * 1e6 / max(b - a, 1)
                 for a, b in zip(marks, marks[1:])]
        mean = fsum(rates) / PARTS
        spread = sqrt(fsum((rate - mean) ** 2 for rate in rates) / (PARTS - 1) / PARTS)
        low, high = max(value - T_975 * spread, 0.0), value + T_975 * spread
    return {"at": lanes, "n": sum(call["outcome"] == "ok" for call in calls) if value else 0,
            "value": round_sig(value), "low": round_sig(low), "high": round_sig(high)}


def _knee(points: Sequence[records.Point], end: Optional[records.CurveEnded]) -> Optional[int]:
    """The fewest lanes with a throughput within 5 % of the best; None if that is the last level and
    no call waited there, so that more lanes may be faster."""
    rates = {int(point["at"]): point["value"] for point in points if point["value"]}
    best = max(rates.values(), default=0)
    knee = min((lanes for lanes, rate in rates.items() if rate * curve_levels.FLAT_RATIO >= best),
               default=None)
    return knee if knee != max(rates, default=None) or end and end["kind"] == "queued" else None


def _client(level: int, calls: Sequence[CallFinished],
            calibration: Optional[InstrumentCalibrated], phase: str) -> records.CurveClient:
    """The client's own error at a level."""
    lanes = level if phase == "ramp" else 1
    bound = metrics.client_bound([c for c in calls if c["outcome"] == "ok"], calibration, lanes)
    return {"level": level, "flagged": bound["flagged"], "reasons": bound["reasons"],
            "error_p50_us": bound["error_p50_us"], "chunks_per_s": bound["chunks_per_s"],
            "saturation_chunks_per_s": bound["saturation_chunks_per_s"]}


# --- depth ---------------------------------------------------------------------------------------
def _depth(ordered: Sequence[tuple[int, list[CallFinished]]],
           numbers: Mapping[str, metrics.Numbers]) -> dict[str, list[records.Point]]:
    """Points at the tokens of the cold prompt, or at the level if the server does not count."""
    found: dict[str, list[records.Point]] = {}
    for name, question, metric in (
            ("prefill_tokens_per_s", "cold", "prefill_tokens_per_s"),
            ("ttft_ms", "cold", "ttft_ms"),
            ("decode_tokens_per_s", "cold", "decode_tokens_per_s"),
            ("continued_ttft_ms", "continued", "ttft_ms")):
        found[name] = []
        for level, calls in ordered:
            cold, own = ([call for call in calls if call["question_id"] == one]
                         for one in ("cold", question))
            tokens = [one for one in _of(cold, numbers, "prompt_tokens") if one]
            found[name].append(_point(metrics.median(tokens) if tokens else level,
                                      _of(own, numbers, metric)))
    return found
