"""Lines, tables and curves of a run's results and flags, as text."""
from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Optional

from core import flag_definitions, metrics, text
from core.records import CallFinished

PHASE_WIDTH = 14              # of the longest phase, and of most questions
QUESTION_WIDTH = 21
PHASE_TITLES = ("phase", "calls", "decode tok/s", "TTFT", "prefill tok/s", "checks")
BAR_CELLS = 12
EIGHTHS = "\u2581\u2582\u2583\u2584\u2585\u2586\u2587\u2588"
# The quantity that the bars show, and the columns: title and metric.
BARS = {"ramp": "output_token_throughput_tokens_per_s", "depth": "decode_tokens_per_s"}
COLUMNS = {
    "ramp": (("all lanes tok/s", "output_token_throughput_tokens_per_s"), ("TTFT ms", "ttft_ms"),
             ("decode tok/s", "decode_tokens_per_s")),
    "depth": (("decode tok/s", "decode_tokens_per_s"), ("prefill tok/s", "prefill_tokens_per_s"),
              ("TTFT ms", "ttft_ms"), ("continued TTFT ms", "continued_ttft_ms"))}


def call_line(number: int, total: int, call: CallFinished) -> str:
    """`12/38  5q              json-invoice           ok   41 tokens  TTFT 84.1 ms  81 tok/s`."""
    count = f"{number}/{max(number, total)}"
    if call["phase"] == "hello":
        question = text.readable(call["model"], QUESTION_WIDTH - len("..."))
    else:
        question = f"{call['level']} " if "level" in call else ""
        question += text.printable(call["question_id"])
        question += f" again ({call['repeat']})" if call["repeat"] else ""
    head = (f"{count:>{2 * len(str(max(number, total))) + 1}}  {call['phase']:<{PHASE_WIDTH}}  "
            f"{question:<{QUESTION_WIDTH}}")
    if call["error"]:
        status = call["error"]["status"]
        shown = call["outcome"] + (f" (HTTP {status})" if status not in (None, 200) else "")
        return f"{head}  {shown}: {text.readable(call['error']['message'])}"
    numbers, checks = metrics.call_metrics(call), call["checks"]
    rate = numbers["decode_tokens_per_s"]
    parts = [head, f"ok {text.format_number(numbers['output_tokens']):>4} tokens",
             f"TTFT {text.time_text(numbers['ttft_ms']):>7}",
             f"{text.number_column([rate])[0]:>4} tok/s" if rate is not None else " " * 10]
    if checks and checks["passed"] is False:
        parts.append("format: no" if checks["format_ok"] is False else "markers: no")
    if call["truncated"]["verdict"] == "yes":
        parts.append("prompt truncated by the server")
    return "  ".join(parts).rstrip()


def phase_line(phase: str, calls: Sequence[CallFinished], wall_us: int) -> str:
    """`20q             19 ok, 1 failed     49.8 tok/s  TTFT  697 ms   in 40 s`, of medians."""
    ok = [metrics.call_metrics(call) for call in calls if call["outcome"] == "ok"]
    rate, ttft = ([one[name] for one in ok if one[name] is not None]
                  for name in ("decode_tokens_per_s", "ttft_ms"))
    count = f"{len(ok)} ok" + (f", {len(calls) - len(ok)} failed" if len(calls) > len(ok) else "")
    shown = f"{text.number_column([metrics.median(rate)])[0]} tok/s" if rate else ""
    first = f"TTFT {text.time_text(metrics.median(ttft)):>7}" if ttft else ""
    return f"{phase:<{PHASE_WIDTH}}  {count:<16}  {shown:>12}  {first:<12}  in " \
           f"{text.duration(wall_us / 1e6)}"


def summary_table(summary: Mapping[str, Any], width: int) -> str:
    """One table per model, one row per phase: calls, medians and intervals, checks; then flags.

    Intervals are left out where the table would be wider than `width`.
    """
    tables = []
    for model in dict.fromkeys(cell["model"] for cell in summary["cells"]):
        cells = [cell for cell in summary["cells"] if cell["model"] == model]
        lines = text.align_columns([PHASE_TITLES, *phase_rows(cells, True)], (1, 5))
        if max(map(len, lines)) > width:
            lines = text.align_columns([PHASE_TITLES, *phase_rows(cells, False)], (1, 2, 4, 5))
        flags = [f"{flag} ({', '.join(cell['phase'] for cell in cells if flag in cell['flags'])})"
                 for flag in flag_definitions.ordered_flags(
                     {flag for cell in cells for flag in cell["flags"]})]
        curves = [line for curve in summary.get("curves", ()) if curve["model"] == model
                  for line in ("", *curve_lines(curve))]
        tables.append("\n".join([text.readable(model), *lines, *lanes_lines(cells),
                                 *([f"flags: {', '.join(flags)}"] if flags else []), *curves]))
    return "\n\n".join(tables)


def lanes_lines(cells: Iterable[Mapping[str, Any]]) -> list[str]:
    """`parallel_same: 68.1 tok/s on 4 lanes together, 1.4 x of one lane` of each phase on lanes,
    and of a mixed phase `, beside 2.1 lanes of other models`."""
    lines = []
    for cell in cells:
        if cell["output_token_throughput_tokens_per_s"] is not None and cell["lanes"] > 1:
            rate, speedup, beside = (text.format_number(cell[name]) for name in (
                "output_token_throughput_tokens_per_s", "speedup_ratio",
                "other_models_lanes_mean"))
            line = f"{cell['phase']}: {rate} tok/s on {cell['lanes']} lanes together, " \
                f"{speedup} x of one lane"
            is_mixed = cell["other_models_lanes_mean"] is not None
            lines.append(line + f", beside {beside} lanes of other models" * is_mixed)
    return lines


def phase_rows(cells: Sequence[Mapping[str, Any]],
               with_intervals: bool) -> list[tuple[str, ...]]:
    """A row per phase, in the order of PHASE_TITLES; blanks align the numbers of a column."""
    of = {name: [cell["metrics"][name] for cell in cells]
          for name in ("decode_tokens_per_s", "ttft_ms", "prefill_tokens_per_s")}
    decode, prefill = (text.interval_column(of[name]) if with_intervals else
                       text.number_column(one["median"] for one in of[name])
                       for name in ("decode_tokens_per_s", "prefill_tokens_per_s"))
    ttft = [time_cell(one, with_intervals) for one in of["ttft_ms"]]
    return [
        (cell["phase"] + (" (cold)" if cell["cold"] else ""),
         f"{cell['ok']}/{cell['ok'] + cell['failed']}", rate, first, reading,
         f"{cell['checks']['passed']}/{cell['checks']['total']}" if cell["checks"]["total"] else "")
        for cell, rate, first, reading in zip(cells, decode, ttft, prefill)]


def time_cell(summary: Mapping[str, Any], with_interval: bool) -> str:
    """` 697 ms [592-825]`: the interval has the median's unit."""
    number, _, unit = text.time_text(summary["median"]).partition(" ")
    shown = f"{number:>4} {unit:<2}".rstrip()
    if summary["ci_low"] is None or not with_interval:
        return shown
    ends = text.number_column(summary[key] / (1000 if unit == "s" else 1)
                         for key in ("ci_low", "ci_high"))
    return f"{number:>4} {unit:<2} [{'-'.join(ends)}]"


def flags_explained(summary: Mapping[str, Any]) -> list[str]:
    """A line with meaning and remedy for every flag of the run and its cells."""
    return flag_definitions.explain_flags(
        [*summary["run_flags"], *(flag for cell in summary["cells"] for flag in cell["flags"])])


def instrument_line(summary: Mapping[str, Any]) -> str:
    """`timing error: median 0.02 ms, p99 0.1 ms at 4 lanes (kernel timestamps)`."""
    rows = summary["instrument"]["lanes"]
    if not rows:
        return f"timing error: not measured ({summary['instrument']['reason']})"
    row = max(rows, key=lambda one: int(one["lanes"]))
    p50, p99 = (text.format_number(row["lag_us"][name] / 1000) for name in ("p50", "p99"))
    return (f"timing error: median {p50} ms, p99 {p99} ms at {text.plural(row['lanes'], 'lane')} "
            f"({summary['instrument']['stamp']} timestamps)")


# --- curves of ramp and depth --------------------------------------------------------------------
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
    return [_heading(curve), *text.align_columns(rows, right=(0,)),
            *([f"This client was too slow for the server at level {', '.join(slow)}."]
              if slow else [])]


def bar(value: Optional[float], most: float) -> str:
    """A bar of full blocks for a share of the largest value; its last cell is a smaller block."""
    if not value or not most:
        return ""
    full, rest = divmod(round(value / most * BAR_CELLS * 8), 8)
    return EIGHTHS[-1] * full + (EIGHTHS[rest - 1] if rest else "")


def _number(point: Optional[Mapping[str, Any]]) -> str:
    """`84.1 [80.2-99]`: a point's value, and its interval if there is one."""
    if point is None:
        return "-"
    value, low, high = (text.format_number(point[name]) for name in ("value", "low", "high"))
    return value if point["low"] is None else f"{value} [{low}-{high}]"


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
                     f"{text.printable(curve['end']['reason'])}")
    return f"{curve['phase']}: {'; '.join(parts) or 'all levels'}"
