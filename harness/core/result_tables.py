"""The tables of a run's results and flags, as text."""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from core import metric_definitions, metrics
from core.text import align_columns, format_number, printable, with_interval

Json = dict[str, Any]



# --- one call ------------------------------------------------------------------------------------
def call_line(number: int, total: int, call: Json) -> str:
    """`12/38  5q  json-invoice  ok, 41 tokens, TTFT 84 ms, 81 tokens/s, checks passed`."""
    head = f"{number}/{max(number, total)}  {call['phase']}  {printable(call['question_id'])}"
    if call["repeat"] and call["phase"] != "hello":
        head += f" again ({call['repeat']})"
    if call["outcome"] != "ok":
        status = call["error"]["status"]
        shown = call["outcome"] + (f" (HTTP {status})" if status not in (None, 200) else "")
        return f"{head}  {shown}: {printable(call['error']['message'])}"
    numbers = metrics.call_metrics(call)
    parts = ["ok", f"{format_number(numbers['output_tokens'])} tokens",
             f"TTFT {format_number(numbers['ttft_ms'])} ms"]
    if numbers["decode_tokens_per_s"] is not None:
        parts.append(f"{format_number(numbers['decode_tokens_per_s'])} tokens/s")
    if call["checks"] and call["checks"]["passed"] is not None:
        parts.append("checks passed" if call["checks"]["passed"] else "checks not passed")
    if call["truncated"]["verdict"] == "yes":
        parts.append("prompt cut by the server")
    return f"{head}  {', '.join(parts)}"


# --- a whole run ---------------------------------------------------------------------------------
TABLE_METRICS = (("TTFT ms", "ttft_ms"), ("TPOT ms", "tpot_ms"),
                 ("decode tok/s", "decode_tokens_per_s"), ("prefill tok/s", "prefill_tokens_per_s"))


def summary_table(summary: Json) -> str:
    """Per model one table, a row a phase: calls, medians with their intervals, checks, flags."""
    models = list(dict.fromkeys(cell["model"] for cell in summary["cells"]))
    return "\n\n".join(_model_table(model, [c for c in summary["cells"] if c["model"] == model])
                       for model in models)


def _model_table(model: str, cells: Sequence[Json]) -> str:
    header = ("phase", "calls", *(title for title, _ in TABLE_METRICS), "checks", "flags")
    rows = [header, *map(_cell_row, cells)]
    lines = align_columns(rows, right=(1, 6))
    throughputs = [f"{c['phase']}: {format_number(c['output_token_throughput_tokens_per_s'])} tokens/s on "
                   f"{c['lanes']} lanes together, lane efficiency "
                   f"{format_number(c['lane_efficiency_ratio'])}" for c in cells if c["lanes"] > 1]
    return "\n".join([printable(model), *lines, *throughputs])


def _cell_row(cell: Json) -> tuple[str, ...]:
    checks, asked = cell["checks"], cell["ok"] + cell["failed"]
    return (cell["phase"] + (" (cold)" if cell["cold"] else ""), f"{cell['ok']}/{asked}",
            *(with_interval(cell["metrics"][name]) for _, name in TABLE_METRICS),
            f"{checks['passed']}/{checks['total']}" if checks["total"] else "",
            ", ".join(cell["flags"]))


def flags_explained(summary: Json) -> list[str]:
    """A sentence and a remedy for every flag that stands somewhere in the run."""
    seen = {flag for cell in summary["cells"] for flag in cell["flags"]} | set(summary["run_flags"])
    return [f"{name}: {metric_definitions.FLAGS[name].text} {metric_definitions.FLAGS[name].remedy}"
            for name in metric_definitions.ordered_flags(seen)]


def instrument_line(summary: Json) -> str:
    """`instrument: median 0.02 ms, p99 0.1 ms at 4 lanes (kernel stamps)`."""
    rows = summary["instrument"]["lanes"]
    if not rows:
        return f"instrument: not calibrated ({summary['instrument']['reason']})"
    row = max(rows, key=lambda one: one["lanes"])
    lag, lanes = row["lag_us"], "lane" if row["lanes"] == 1 else "lanes"
    p50, p99 = format_number(lag["p50"] / 1000), format_number(lag["p99"] / 1000)
    return (f"instrument: median {p50} ms, p99 {p99} ms "
            f"at {row['lanes']} {lanes} ({summary['instrument']['stamp']} stamps)")
