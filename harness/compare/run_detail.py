"""Details of one run for its page: calls, gaps, gauges and facts.

Numbers have few digits, and records of one kind are columns ({field: values}), because a page has
a thousand runs. page/data.js turns columns into objects.
"""
from __future__ import annotations

import bisect
import datetime
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Optional

from core import ledger, metrics, plan, run_summary, suites
from core.records import Json
from core.text import field_text, field_title

MAX_CALLS = 2000              # of one run's detail
MAX_SAMPLES = 120             # of one gauge
DRAWN_DIGITS = 3
BINS_PER_DECADE = 10          # of the gaps, from 1 µs
PAUSE_SHARE = 0.02            # of the time axis, for a run that was resumed later
SPARK_SLICES = 16             # of one answer's chunks
SPARK_LEVEL = 20              # of a slice as fast as the whole answer; one level is 5 %
SPARK = "0123456789abcdefghijklmnopqrstuvwxyz"

GAUGES = {                    # title, unit, factor
    "cpu_busy_ratio": ("processors busy", "%", 100), "other_cpu_busy_ratio": (
        "other programs", "%", 100), "load_1m": ("load over 1 min", "", 1),
    "cpu_mhz": ("clock", "MHz", 1), "temperature_c": ("temperature", "°C", 1),
    "power_w": ("power", "W", 1), "memory_used_bytes": ("memory used", "GiB", 1 / 2 ** 30),
    "swap_used_bytes": ("swap used", "GiB", 1 / 2 ** 30)}
GPU_GAUGES = {
    "busy_ratio": ("busy", "%", 100), "clock_mhz": ("clock", "MHz", 1),
    "power_w": ("power", "W", 1), "temperature_c": ("temperature", "°C", 1),
    "memory_used_bytes": ("memory used", "GiB", 1 / 2 ** 30)}
PHASES = list(suites.PHASES)


def columns(records: Sequence[Mapping[str, Any]]) -> Json:
    """{field: values} of records with the same fields."""
    return {name: [record[name] for record in records] for name in (records[0] if records else ())}


def run_detail(metadata: Json, hardware: Json, manifest: Any, events: Sequence[Any],
               sections: Mapping[str, str]) -> Json:
    """Details of one run. sections: the contributor's parts of run.md."""
    summary = run_summary.summarize_run(manifest, events)
    calls = ledger.latest_calls(events)
    axis = TimeAxis(events)
    return {
        "models": manifest["models"], "cells": columns([_cell(c) for c in summary["cells"]]),
        "run_flags": summary["run_flags"],
        "calls": columns(list(_calls(calls[:MAX_CALLS], run_summary.call_numbers(manifest, events),
                                     manifest["models"], axis))),
        "calls_count": len(calls), "pauses": axis.pauses, "length_ms": axis.length_ms,
        "gaps": columns(list(_gaps(summary, calls))),
        "instrument": {name: summary["instrument"][name] for name in (
            "stamp", "lanes", "read_lag_us", "heartbeat_overshoot_us", "reason")},
        "host": _host(events, axis), "facts": _facts(metadata, hardware, manifest),
        "deviations": sections.get("deviations", ""), "notes": sections.get("notes", "")}


def _cell(cell: Json) -> Json:
    spreads = {name: [drawn(cell["metrics"][name][part]) for part in
                      ("median", "ci_low", "ci_high")]
               for name in ("decode_tokens_per_s", "ttft_ms", "prefill_tokens_per_s")}
    return {**{name: cell[name] for name in ("model", "phase", "lanes", "ok", "failed", "flags")},
            **spreads, "throughput": drawn(cell["output_token_throughput_tokens_per_s"]),
            "checks": [cell["checks"]["passed"], cell["checks"]["total"]],
            "spread": drawn(cell["verdicts"]["unstable"]["iqr_ratio"])}


class TimeAxis:
    """Milliseconds from a run's first line; segments follow each other after a short pause. pauses:
    [drawn position, real length] in ms, for each resume."""

    def __init__(self, events: Sequence[Json]) -> None:
        last_us = {event["segment"]: event["t_us"] for event in events}
        pause_ms = PAUSE_SHARE * sum(last_us.values()) / 1000
        self._begins: dict[int, float] = {}
        self.pauses: list[list[int]] = []
        at, before = 0.0, None
        for event in events:
            if event["segment"] not in self._begins:
                if before is not None:
                    self.pauses.append([round(at), round(_ms_between(before, event))])
                    at += pause_ms
                self._begins[event["segment"]] = at
                at += last_us[event["segment"]] / 1000
            before = event
        self.length_ms = round(at)

    def ms(self, segment: int, t_us: float) -> int:
        """Position of a moment of a segment."""
        return round(self._begins[segment] + t_us / 1000)


def _ms_between(a: Json, b: Json) -> float:
    """Wall time between two lines; 0 if a date is invalid or the clock went back."""
    try:
        begun, ended = (datetime.datetime.fromisoformat(line["at"][:-1]) for line in (a, b))
    except ValueError:
        return 0.0
    return max((ended - begun) / datetime.timedelta(milliseconds=1), 0.0)


def drawn(value: Optional[float], digits: int = DRAWN_DIGITS) -> Any:
    """Few digits, and whole numbers without a point."""
    found = metrics.round_sig(value, digits)
    return int(found) if found is not None and found.is_integer() else found


def _calls(calls: Sequence[Any], known: Mapping[str, metrics.Numbers], models: Sequence[str],
           axis: TimeAxis) -> Iterator[Json]:
    """One record per call. known: the numbers that enter summaries, by cell id. start: ms after the
    end of the lane's call before. ttft: ms after the start. rest: ms by which the call was longer
    than ttft, tokens and decode imply, 0 below 1 %."""
    free: dict[int, int] = {}
    for call in calls:
        numbers = known.get(call["cell_id"]) or metrics.call_metrics(call, None)
        timing = call["timing"] or {"started_us": call["t_us"], "done_us": 0}
        end_us = timing["done_us"]
        if end_us is None:
            end_us = max(call["t_us"] - timing["started_us"], 0)
        start, end = axis.ms(call["segment"], timing["started_us"]), round(end_us / 1000)
        ttft, decode = drawn(numbers["ttft_ms"]), drawn(numbers["decode_tokens_per_s"])
        rest = round(end - (ttft or 0) - (
            (numbers["output_tokens"] - 1) * 1000 / decode if decode else 0))
        rest = rest if abs(rest) > end / 100 else 0
        waited = start - free.get(call["lane"], 0)
        free[call["lane"]] = start + end
        yield {"model": models.index(call["model"]), "phase": PHASES.index(call["phase"]),
               "question": call["question_id"], "repeat": call["repeat"], "lane": call["lane"],
               "start": drawn(waited), "rest": drawn(rest), "ttft": ttft, "decode": decode,
               "tokens": numbers["output_tokens"], "prompt": numbers["prompt_tokens"],
               "outcome": call["outcome"], "passed": call["checks"] and call["checks"]["passed"],
               "flags": call["flags"], "spark": _spark(call)}


def _spark(call: Any) -> str:
    """One sign for the chunk rate of each of 16 parts of an answer, 20 (`k`) if it is as fast as
    the whole; empty if there are too few chunks."""
    gaps = metrics.icl_gaps_us(call) if call["outcome"] == "ok" else []
    if len(gaps) < 2 * SPARK_SLICES:
        return ""
    mean = sum(gaps) / len(gaps)
    edges = [i * len(gaps) // SPARK_SLICES for i in range(SPARK_SLICES + 1)]
    rates = (mean * (b - a) / max(sum(gaps[a:b]), 1) for a, b in zip(edges, edges[1:]))
    return "".join(SPARK[min(round(SPARK_LEVEL * rate), len(SPARK) - 1)] for rate in rates)


def _gaps(summary: Json, calls: Sequence[Any]) -> Iterator[Json]:
    """Histogram of each cell's gaps between reads of text."""
    for cell in summary["cells"]:
        gaps = [gap for call in calls if (call["model"], call["phase"]) == (
            cell["model"], cell["phase"]) and call["outcome"] == "ok"
            for gap in metrics.icl_gaps_us(call)]
        if gaps:
            first, counts = histogram(gaps)
            yield {"model": cell["model"], "phase": cell["phase"], "first": first,
                   "counts": counts, "count": len(gaps),
                   "median_ms": drawn(metrics.median(gaps) / 1000),
                   "longest_ms": drawn(max(gaps) / 1000)}


BIN_EDGES_US = tuple(10 ** (i / BINS_PER_DECADE) for i in range(9 * BINS_PER_DECADE))


def histogram(gaps_us: Iterable[int]) -> tuple[int, list[int]]:
    """(first bin, counts): bin i counts gaps from 10^(i/10) µs to 10^((i+1)/10) µs."""
    counts: dict[int, int] = {}
    for gap in gaps_us:
        number = max(bisect.bisect_right(BIN_EDGES_US, gap) - 1, 0)
        counts[number] = counts.get(number, 0) + 1
    first, last = min(counts), max(counts)
    return first, [counts.get(i, 0) for i in range(first, last + 1)]


# --- the host ------------------------------------------------------------------------------------
def _host(events: Sequence[Json], axis: TimeAxis) -> Json:
    """t: ms between samples, the first from the run's begin."""
    samples = [event for event in events if event["event"] == "host_sampled"]
    every = -(-len(samples) // MAX_SAMPLES) or 1
    kept = samples[::every]
    named = [(title, unit, factor, [_gauge(kept, i, name) for i in range(len(kept))])
             for name, (title, unit, factor) in GAUGES.items()]
    for card in range(max((len(sample["gpus"]) for sample in kept), default=0)):
        named += [(f"GPU {card} {title}", unit, factor,
                   [s["gpus"][card][name] if card < len(s["gpus"]) else None for s in kept])
                  for name, (title, unit, factor) in GPU_GAUGES.items()]
    series = [{"title": title, "unit": unit,
               "values": [None if v is None else round(v * factor) if unit == "%" else
                          drawn(v * factor) for v in values]}
              for title, unit, factor, values in named if any(v is not None for v in values)]
    unknown = [title for title, _, _, values in named if all(v is None for v in values)]
    at = [axis.ms(sample["segment"], sample["t_us"]) for sample in kept]
    return {"t": [b - a for a, b in zip([0, *at], at)], "series": columns(series),
            "unknown": unknown if kept else [], "samples": len(samples)}


def _gauge(samples: Sequence[Json], i: int, name: str) -> Optional[float]:
    """Value of a gauge in a sample; power is the energy since the sample before it."""
    if name != "power_w":
        value: Optional[float] = samples[i][name]
        return value
    if not i or samples[i]["segment"] != samples[i - 1]["segment"]:
        return None
    used = [samples[at]["energy_uj"] for at in (i - 1, i)]
    took_us = samples[i]["t_us"] - samples[i - 1]["t_us"]
    return None if None in used or took_us <= 0 else max(used[1] - used[0], 0) / took_us


# --- facts ---------------------------------------------------------------------------------------
def _facts(metadata: Json, hardware: Json, manifest: Json) -> list[list[Any]]:
    """[group, name, value, source or why it is unknown]."""
    found = [fact for section in ("system", "cpu", "memory", "os", "power")
             for fact in _leaves("Machine", hardware[section], section)]
    for i, card in enumerate(hardware["accelerators"]):
        found += _leaves("Machine", card, f"accelerator {i}")
    for model in metadata["models"]:
        found += _leaves(model["model"], model, "")
    return [*found, *_leaves("Runtime", metadata["runtime"], ""), *_run_facts(metadata, manifest)]


def _leaves(group: str, holder: Json, section: str) -> list[list[Any]]:
    return [[group, " ".join(filter(None, (section, field_title(name)))),
             None if leaf["value"] is None else field_text(name, leaf["value"]),
             leaf["source"] or leaf["reason"]]
            for name, leaf in holder.items() if isinstance(leaf, dict) and "value" in leaf]


def _run_facts(metadata: Json, manifest: Json) -> list[list[Any]]:
    options = plan.chosen_options(manifest)
    cache, run = manifest["prompt_cache"], metadata["run"]
    lines = [("harness", manifest["harness_version"]), ("completeness", run["class"]),
             ("endpoint", manifest["target"]["class"]),
             *((name.replace("_", " "), str(value)) for name, value in options.items()),
             ("lanes", str(manifest["plan"]["lanes"])),
             ("repeats", str(manifest["plan"]["repeats"])),
             ("prompt cache", f"{cache['policy']} ({cache['method'].replace('_', ' ')})"),
             ("Python", f"{manifest['python']['implementation']} {manifest['python']['version']}")]
    return [["Run", name, value, "manifest"] for name, value in lines]
