"""Tables of a run's results and flags, as text."""
from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from core import metric_definitions, metrics
from core.records import CallFinished
from core.text import align_columns, format_number, printable, with_interval

TABLE_METRICS = tuple((metric_definitions.METRICS[name].title, name) for name in (
    "ttft_ms", "tpot_ms", "decode_tokens_per_s", "prefill_tokens_per_s"))


def call_line(number: int, total: int, call: CallFinished) -> str:
    """`12/38  5q  json-invoice  ok, 41 tokens, TTFT 84 ms, 81 tokens/s, format: no`."""
    head = f"{number}/{max(number, total)}  {call['phase']}  {printable(call['question_id'])}"
    if call["repeat"] and call["phase"] != "hello":
        head += f" again ({call['repeat']})"
    if call["error"]:
        status = call["error"]["status"]
        shown = call["outcome"] + (f" (HTTP {status})" if status not in (None, 200) else "")
        return f"{head}  {shown}: {printable(call['error']['message'])}"
    numbers, checks = metrics.call_metrics(call), call["checks"]
    parts = ["ok", f"{format_number(numbers['output_tokens'])} tokens",
             f"TTFT {format_number(numbers['ttft_ms'])} ms"]
    if numbers["decode_tokens_per_s"] is not None:
        parts.append(f"{format_number(numbers['decode_tokens_per_s'])} tokens/s")
    if checks and checks["passed"] is False:
        parts.append("format: no" if checks["format_ok"] is False else "markers: no")
    if call["truncated"]["verdict"] == "yes":
        parts.append("prompt truncated by the server")
    return f"{head}  {', '.join(parts)}"


def summary_table(summary: Mapping[str, Any]) -> str:
    """One table per model, one row per phase: calls, medians and intervals, checks, flags."""
    tables = []
    for model in dict.fromkeys(cell["model"] for cell in summary["cells"]):
        rows = [("phase", "calls", *(title for title, _ in TABLE_METRICS), "checks", "flags")]
        lanes = []
        for cell in (c for c in summary["cells"] if c["model"] == model):
            checks = cell["checks"]
            rows.append((
                cell["phase"] + (" (cold)" if cell["cold"] else ""),
                f"{cell['ok']}/{cell['ok'] + cell['failed']}",
                *(with_interval(cell["metrics"][name]) for _, name in TABLE_METRICS),
                f"{checks['passed']}/{checks['total']}" if checks["total"] else "",
                ", ".join(cell["flags"])))
            if cell["lanes"] > 1:
                throughput = format_number(cell["output_token_throughput_tokens_per_s"])
                lanes.append(f"{cell['phase']}: {throughput} tokens/s on {cell['lanes']} lanes "
                             "together, lane efficiency "
                             f"{format_number(cell['lane_efficiency_ratio'])}")
        tables.append("\n".join([printable(model), *align_columns(rows, right=(1, 6)), *lanes]))
    return "\n\n".join(tables)


def flags_explained(summary: Mapping[str, Any]) -> list[str]:
    """A line with meaning and remedy for every flag of the run and its cells."""
    return metric_definitions.explain_flags(
        [*summary["run_flags"], *(flag for cell in summary["cells"] for flag in cell["flags"])])


def instrument_line(summary: Mapping[str, Any]) -> str:
    """`timing error: median 0.02 ms, p99 0.1 ms at 4 lanes (kernel timestamps)`."""
    rows = summary["instrument"]["lanes"]
    if not rows:
        return f"timing error: not measured ({summary['instrument']['reason']})"
    row = max(rows, key=lambda one: int(one["lanes"]))
    p50, p99 = (format_number(row["lag_us"][name] / 1000) for name in ("p50", "p99"))
    return (f"timing error: median {p50} ms, p99 {p99} ms at {row['lanes']} "
            f"lane{'s' * (row['lanes'] != 1)} ({summary['instrument']['stamp']} timestamps)")
