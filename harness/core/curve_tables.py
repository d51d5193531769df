"""Draw the curves of ramp and depth as text: a row per level, with a bar."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Optional

from core.text import align_columns, printable, with_interval

BAR_CELLS = 12
EIGHTHS = "\u2581\u2582\u2583\u2584\u2585\u2586\u2587\u2588"
# The quantity that the bars show, and the columns: title and metric.
BARS = {"ramp": "output_token_throughput_tokens_per_s", "depth": "decode_tokens_per_s"}
COLUMNS = {
    "ramp": (("all lanes tok/s", "output_token_throughput_tokens_per_s"), ("TTFT ms", "ttft_ms"),
             ("decode tok/s", "decode_tokens_per_s")),
    "depth": (("decode tok/s", "decode_tokens_per_s"), ("prefill tok/s", "prefill_tokens_per_s"),
              ("TTFT ms", "ttft_ms"), ("continued TTFT ms", "continued_ttft_ms"))}


def curve_lines(curve: Mapping[str, Any]) -> list[str]:
    """A heading, a table with bars, and a line on the client if it was too slow."""
    phase = curve["phase"]
    points: dict[str, dict[float, Mapping[str, Any]]] = {
        one["metric"]: {point["at"]: point for point in one["points"]} for one in curve["series"]}
    places = sorted({at for found in points.values() for at in found})
    shown = points[BARS[phase]]
    most = max((point["value"] or 0 for point in shown.values()), default=0)
    rows: list[Sequence[str]] = [("lanes" if phase == "ramp" else "tokens", "",
                                  *(title for title, _ in COLUMNS[phase]))]
    for at in places:
        rows.append((f"{at:.0f}", bar(shown.get(at, {}).get("value"), most),
                     *(_number(points[name].get(at)) for _, name in COLUMNS[phase])))
    slow = [str(row["level"]) for row in curve["client"] if row["flagged"]]
    return [_heading(curve), *align_columns(rows, right=(0,)),
            *([f"This client was too slow for the server at level {', '.join(slow)}."]
              if slow else [])]


def bar(value: Optional[float], most: float) -> str:
    """A bar of full blocks for a share of the largest value; its last cell is a smaller block."""
    if not value or not most:
        return ""
    full, rest = divmod(round(value / most * BAR_CELLS * 8), 8)
    return EIGHTHS[-1] * full + (EIGHTHS[rest - 1] if rest else "")


def _number(point: Optional[Mapping[str, Any]]) -> str:
    if point is None:
        return "-"
    return with_interval({"median": point["value"], "ci_low": point["low"],
                          "ci_high": point["high"]})


def _heading(curve: Mapping[str, Any]) -> str:
    parts = []
    if curve["phase"] == "ramp":
        parts.append(f"knee at {curve['knee']} lanes" if curve["knee"] else
                     "no knee up to here")
        if curve["slots_count"]:
            parts.append(f"the server reports {curve['slots_count']} slots")
    if curve["failed"]:
        parts.append(f"{curve['failed']} of {curve['ok'] + curve['failed']} calls failed")
    if curve["left_out"]:
        parts.append(f"{curve['left_out']} of {curve['ok']} answers left out, because the machine "
                     "slept or other programs used it")
    if curve["end"]:
        parts.append(f"ended at {curve['end']['level']} ({curve['end']['kind']}): "
                     f"{printable(curve['end']['reason'])}")
    return f"{curve['phase']}: {'; '.join(parts) or 'all levels'}"
