"""The comparison as one HTML page: its data, and page.html, page.css and page.js in one file.

Every number on the page is computed here or in core/metrics; its script filters, sorts and draws.
Text of submissions is JSON in a data block without any `<`, and the script writes text nodes only.
The content security policy allows this one script and style by their hashes, and nothing else.

The page has the rows of all submissions, and details of single runs (calls, gaps, gauges, facts) as
far as they fit: the newest run of every machine and runtime first, then the next of each.
"""
from __future__ import annotations

import base64
import bisect
import datetime
import functools
import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Callable, NamedTuple, Optional

from compare import entries, ranking
from core import ledger, metric_definitions, metrics, run_summary, suites

Json = dict[str, Any]


PAGE_FOLDER = os.path.dirname(os.path.abspath(__file__))
MAX_PAGE_BYTES = 9_500_000
MAX_CALLS = 2000              # of one run's detail
MAX_SAMPLES = 240             # of one gauge; a drawing is not wider
DRAWN_DIGITS = 5
BINS_PER_DECADE = 10          # of the gaps, from 1 µs
PAUSE_SHARE = 0.02            # of the time axis, for a run that was resumed later

GAUGES = {                    # title, unit, factor
    "cpu_busy_ratio": ("processors busy", "%", 100), "other_cpu_busy_ratio": (
        "busy with other programs", "%", 100), "cpu_steal_ratio": (
        "taken by the hypervisor", "%", 100), "load_1m": ("load over 1 min", "", 1),
    "cpu_mhz": ("clock", "MHz", 1), "temperature_c": ("temperature", "°C", 1),
    "power_w": ("power", "W", 1), "memory_used_bytes": ("memory used", "GiB", 1 / 2 ** 30),
    "swap_used_bytes": ("swap used", "GiB", 1 / 2 ** 30)}
GPU_GAUGES = {
    "busy_ratio": ("busy", "%", 100), "clock_mhz": ("clock", "MHz", 1),
    "power_w": ("power", "W", 1), "temperature_c": ("temperature", "°C", 1),
    "memory_used_bytes": ("memory used", "GiB", 1 / 2 ** 30)}


class Page(NamedTuple):
    """The file's bytes, a note on its contents, and (folder, reason) of unreadable details."""

    data: bytes
    note: str
    broken: list[tuple[str, str]]


# (metadata, hardware, manifest, events) of a folder; raises BrokenSubmission or LedgerError
Detail = Callable[[str], tuple[Json, Json, Json, list[Json]]]


def make_page(rows: Sequence[ranking.Row], wanted: Sequence[ranking.Row],
              folders: dict[str, str], read: Detail, left_out: int) -> Page:
    """The page of the wanted rows, with their ranks among all rows.

    folders: run id -> folder, whose details `read` reads; left_out: number of submissions that
    could not be read.
    """
    data = page_data(rows, wanted, left_out)
    details, broken = _details(wanted, folders, read, MAX_PAGE_BYTES - len(join_page(data)))
    data["details"] = details
    whole = f"details of {len(details)} of {len(data['runs'])} runs"
    return Page(join_page(data), f"{len(wanted)} rows, {whole}", broken)


# --- one file ------------------------------------------------------------------------------------
def join_page(data: Json) -> bytes:
    """page.html with style, script, data and policy inserted."""
    style, script = _part("page.css"), _part("page.js")
    policy = (f"default-src 'none'; style-src '{_hash(style)}'; script-src '{_hash(script)}'; "
              "img-src data:; base-uri 'none'; form-action 'none'")
    parts = {"style": style, "script": script, "data": script_json(data), "policy": policy}
    return re.sub("@(style|script|data|policy)@", lambda match: parts[match[1]],
                  _part("page.html")).encode()


@functools.cache
def _part(name: str) -> str:
    with open(os.path.join(PAGE_FOLDER, name), encoding="utf-8") as file:
        return file.read()


def _hash(text: str) -> str:
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")
    return f"sha256-{digest}"


def script_json(data: Any) -> str:
    """ASCII JSON that cannot end its block in HTML."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


# --- rows ----------------------------------------------------------------------------------------
class Table:
    """Numbers the values, so that a value of many rows is written once."""

    def __init__(self) -> None:
        self.values: list[Any] = []
        self._numbers: dict[str, int] = {}

    def number(self, value: Any) -> int:
        """The value's index in `values`."""
        found = self._numbers.setdefault(json.dumps(value), len(self.values))
        if found == len(self.values):
            self.values.append(value)
        return found


def page_data(rows: Sequence[ranking.Row], wanted: Sequence[ranking.Row], left_out: int) -> Json:
    """Everything except details; page.js documents the shapes where it reads them."""
    tables = {name: Table() for name in ("devices", "runtimes", "models", "quantizations",
                                         "reasons", "handles", "settings")}
    runs: dict[str, entries.Submission] = {run.run_id: run for row in wanted for run in row.runs}
    numbers = {run_id: i for i, run_id in enumerate(runs)}
    ranks = [_ranks(rows, sort) for sort in ranking.SHORT]
    made = [_row(row, tables, numbers, [found.get(id(row), "") for found in ranks])
            for row in wanted]
    listed = [[run_id, tables["handles"].number(run.handle), run.started_at,
               _device_number(run.device, tables),
               tables["runtimes"].number(entries.runtime_text(run.runtime))]
              for run_id, run in runs.items()]
    return {
        "sorts": {short: _about(name) for short, name in ranking.SHORT.items()},
        "phases": {name: phase.text for name, phase in suites.PHASES.items()},
        "flags": {f.name: [f.text, f.remedy, f.unrankable]
                  for f in metric_definitions.FLAGS.values()},
        "left_out": left_out, **{name: table.values for name, table in tables.items()},
        "runs": listed, "rows": made, "details": {}}


def _about(name: str) -> list[str]:
    title = entries.NUMBERS[name]
    title = title.rpartition(" ")[0] if title.endswith((" ms", " tok/s")) else title
    metric = metric_definitions.METRICS[name]
    return [title, metric.unit, metric.direction, metric.text]


def _ranks(rows: Sequence[ranking.Row], sort: str) -> dict[int, str]:
    """`3` or `3=` by the id() of each ranked row."""
    return {id(place.row): f"{place.rank}{'=' * place.tied}" for block in
            ranking.ranked(rows, sort) for place in block if place.rank}


def _device_number(device: entries.Device, tables: dict[str, Table]) -> int:
    return tables["devices"].number([device.tag, entries.device_text(device),
                                     device.memory_gib, entries.device_notes(device)])


def _row(row: ranking.Row, tables: dict[str, Table], runs: dict[str, int],
         ranks: list[str]) -> list[Any]:
    spreads = [row.numbers.get(name) for name in ranking.SHORT.values()]
    quantization = "" if row.quantization is None else row.quantization
    return [
        row.page_id, _device_number(row.device, tables),
        tables["runtimes"].number(entries.runtime_text(row.runtime)),
        tables["models"].number(row.model), tables["quantizations"].number(quantization),
        list(suites.PHASES).index(row.phase or ""), ranks,
        [tables["reasons"].number(reason) for reason in row.reasons],
        [None if s is None else list(s) for s in spreads],
        [row.passed, row.checked], list(row.flags), [runs[run.run_id] for run in row.runs],
        len(row.left_out), _values_of_runs(row) if len(row.runs) > 1 else [],
        tables["settings"].number(", ".join(filter(None, (row.weights, row.configuration))))]


def _values_of_runs(row: ranking.Row) -> list[list[Optional[float]]]:
    """Each run's own numbers, in the order of row.runs."""
    return [[row.values[name][i] if name in row.values else None
             for name in ranking.SHORT.values()] for i in range(len(row.runs))]


# --- details: which ------------------------------------------------------------------------------
def _details(rows: Sequence[ranking.Row], folders: dict[str, str], read: Detail,
             room: int) -> tuple[Json, list[tuple[str, str]]]:
    """{run id: detail} as far as they fit, and what could not be read."""
    details: Json = {}
    broken: list[tuple[str, str]] = []
    for run in detail_order({run.run_id: run for row in rows for run in row.runs}.values()):
        folder = folders[run.run_id]
        try:
            detail = run_detail(*read(folder))
        except (entries.BrokenSubmission, ledger.LedgerError) as error:
            broken.append((folder, f"its detail: {error}"))
            continue
        room -= len(script_json({run.run_id: detail}))
        if room < 0:
            break
        details[run.run_id] = detail
    return details, broken


def detail_order(runs: Iterable[entries.Submission]) -> list[entries.Submission]:
    """The newest run of every machine and runtime, then the next of each, newest first."""
    newest = sorted(runs, key=lambda run: (run.started_at, run.run_id), reverse=True)
    seen: dict[Any, int] = {}
    turns = []
    for i, run in enumerate(newest):
        key = (run.machine, run.runtime)
        turns.append((seen.setdefault(key, 0), i))
        seen[key] += 1
    return [newest[i] for _, i in sorted(turns)]


# --- details: one run ----------------------------------------------------------------------------
def run_detail(metadata: Json, hardware: Json, manifest: Any, events: Sequence[Any]) -> Json:
    """Details of one run; lists instead of objects where there are many."""
    summary = run_summary.summarize_run(manifest, events)
    calls = ledger.latest_calls(events)
    axis = TimeAxis(events)
    return {
        "models": manifest["models"], "cells": [_cell(cell) for cell in summary["cells"]],
        "run_flags": summary["run_flags"], "counts": summary["counts"],
        "calls": list(_calls(summary, calls[:MAX_CALLS], manifest["models"], axis)),
        "calls_count": len(calls), "pauses": axis.pauses, "length_ms": axis.length_ms,
        "gaps": list(_gaps(summary, calls, manifest["models"])),
        "instrument": _instrument(summary["instrument"]), "host": _host(events, axis),
        "facts": _facts(metadata, hardware, manifest)}


def _cell(cell: Json) -> Json:
    spreads = {short: [cell["metrics"][name][part] for part in ("median", "ci_low", "ci_high",
                                                                "min", "max", "n")]
               for short, name in ranking.SHORT.items() if name in cell["metrics"]}
    return {"model": cell["model"], "phase": cell["phase"], "lanes": cell["lanes"],
            "ok": cell["ok"], "failed": cell["failed"], "planned": cell["planned"],
            "outcomes": cell["outcomes"], "numbers": spreads,
            "speedup": cell["speedup_ratio"],
            "throughput": cell["output_token_throughput_tokens_per_s"],
            "checks": [cell["checks"]["passed"], cell["checks"]["total"]],
            "nulls": {short: cell["null_reasons"][name] for short, name in
                      ranking.SHORT.items() if name in cell["null_reasons"]},
            "flags": cell["flags"]}


class TimeAxis:
    """Milliseconds from a run's first line; segments follow each other after a short pause.

    pauses: [drawn position, real length] in ms, for each resume.
    """

    def __init__(self, events: Sequence[Json]) -> None:
        last_us = {event["segment"]: event["t_us"] for event in events}
        pause_ms = PAUSE_SHARE * sum(last_us.values()) / 1000
        self._begins: dict[int, float] = {}
        self.pauses: list[list[float]] = []
        at, before = 0.0, None
        for event in events:
            if event["segment"] not in self._begins:
                if before is not None:
                    self.pauses.append([_drawn(at), _drawn(_ms_between(before, event))])
                    at += pause_ms
                self._begins[event["segment"]] = at
                at += last_us[event["segment"]] / 1000
            before = event
        self.length_ms = _drawn(at)

    def ms(self, segment: int, t_us: float) -> float:
        """Position of a moment of a segment."""
        drawn: float = _drawn(self._begins[segment] + t_us / 1000)
        return drawn


def _ms_between(a: Json, b: Json) -> float:
    """Wall time between two lines; 0 if a date is invalid or the clock went back."""
    try:
        begun, ended = (datetime.datetime.fromisoformat(line["at"][:-1]) for line in (a, b))
    except ValueError:
        return 0.0
    return max((ended - begun) / datetime.timedelta(milliseconds=1), 0.0)


def _drawn(value: Optional[float]) -> Any:
    """Few digits, and whole numbers without a point."""
    found = metrics.round_sig(value, DRAWN_DIGITS)
    return int(found) if found is not None and found.is_integer() else found


def _calls(summary: Json, calls: Sequence[Any], models: Sequence[str],
           axis: TimeAxis) -> Iterator[list[Any]]:
    """[model, phase, question, repeat, lane, start, first token, end (ms), decode rate, output
    tokens, prompt tokens, outcome, checks passed, flags] of each call."""
    sources = {(c["model"], c["phase"]): c["output_tokens_source"] for c in summary["cells"]}
    for call in calls:
        numbers = metrics.call_metrics(call, sources[call["model"], call["phase"]] != "chunks")
        timing = call["timing"] or {"started_us": call["t_us"], "done_us": 0}
        end_us = timing["done_us"]
        if end_us is None:
            end_us = max(call["t_us"] - timing["started_us"], 0)
        yield [models.index(call["model"]), list(suites.PHASES).index(call["phase"]),
               call["question_id"], call["repeat"], call["lane"],
               axis.ms(call["segment"], timing["started_us"]), _drawn(numbers["ttft_ms"]),
               _drawn(end_us / 1000), _drawn(numbers["decode_tokens_per_s"]),
               numbers["output_tokens"], numbers["prompt_tokens"], call["outcome"],
               call["checks"] and call["checks"]["passed"], call["flags"]]


def _gaps(summary: Json, calls: Sequence[Any], models: Sequence[str]) -> Iterator[list[Any]]:
    """[model, phase, lanes, first bin, counts, n, median ms, longest ms, stamp error µs] of
    each cell's gaps between reads of text."""
    for cell in summary["cells"]:
        gaps = [gap for call in calls if (call["model"], call["phase"]) == (
            cell["model"], cell["phase"]) and call["outcome"] == "ok"
            for gap in metrics.icl_gaps_us(call)]
        if not gaps:
            continue
        first, counts = histogram(gaps)
        yield [models.index(cell["model"]), list(suites.PHASES).index(cell["phase"]),
               cell["lanes"], first, counts, len(gaps), _drawn(metrics.median(gaps) / 1000),
               _drawn(max(gaps) / 1000), cell["verdicts"]["client_bound"]["error_p50_us"]]


BIN_EDGES_US = tuple(10 ** (i / BINS_PER_DECADE) for i in range(9 * BINS_PER_DECADE))


def histogram(gaps_us: Iterable[int]) -> tuple[int, list[int]]:
    """(first bin, counts): bin i counts gaps from 10^(i/10) µs to 10^((i+1)/10) µs."""
    counts: dict[int, int] = {}
    for gap in gaps_us:
        number = max(bisect.bisect_right(BIN_EDGES_US, gap) - 1, 0)
        counts[number] = counts.get(number, 0) + 1
    first, last = min(counts), max(counts)
    return first, [counts.get(i, 0) for i in range(first, last + 1)]


def _instrument(found: Json) -> Json:
    return {name: found[name] for name in ("stamp", "clock_resolution_ns", "lanes",
                                           "read_lag_us", "heartbeat_overshoot_us", "reason")}


# --- details: the host ---------------------------------------------------------------------------
def _host(events: Sequence[Json], axis: TimeAxis) -> Json:
    """{"t", "series": [[title, unit, values]], "unknown", "kept", "samples"}."""
    samples = [event for event in events if event["event"] == "host_sampled"]
    every = -(-len(samples) // MAX_SAMPLES) or 1
    kept = samples[::every]
    named = [(title, unit, factor, [_gauge(kept, i, name) for i in range(len(kept))])
             for name, (title, unit, factor) in GAUGES.items()]
    for card in range(max((len(sample["gpus"]) for sample in kept), default=0)):
        named += [(f"GPU {card} {title}", unit, factor,
                   [s["gpus"][card][name] if card < len(s["gpus"]) else None for s in kept])
                  for name, (title, unit, factor) in GPU_GAUGES.items()]
    series = [[title, unit, [None if v is None else _drawn(v * factor) for v in values]]
            for title, unit, factor, values in named if any(v is not None for v in values)]
    unknown = [title for title, _, _, values in named if all(v is None for v in values)]
    return {"t": [axis.ms(sample["segment"], sample["t_us"]) for sample in kept],
            "series": series, "unknown": unknown if kept else [], "kept": len(kept),
            "samples": len(samples)}


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


# --- details: facts ------------------------------------------------------------------------------
def _facts(metadata: Json, hardware: Json, manifest: Json) -> Json:
    """{"machine", "models", "runtime", "run"}: [name, value, source or why it is unknown]."""
    machine = [fact for section in ("system", "cpu", "memory", "os", "power")
               for fact in _leaves(hardware[section], section)]
    for i, card in enumerate(hardware["accelerators"]):
        machine += _leaves(card, f"accelerator {i}")
    return {
        "machine": machine,
        "models": [[model["model"], _leaves(model, "")] for model in metadata["models"]],
        "runtime": _leaves(metadata["runtime"], ""), "run": _run_facts(metadata, manifest)}


def _leaves(holder: Json, section: str) -> list[list[Any]]:
    return [[" ".join(filter(None, (section, _name_of(name)))), _value(name, leaf["value"]),
             leaf["source"] or leaf["reason"]]
            for name, leaf in holder.items() if isinstance(leaf, dict) and "value" in leaf]


UNITS = {"_gb_per_s": "GB/s", "_bytes": "bytes", "_tokens": "tokens", "_mhz": "MHz", "_kib": "KiB",
         "_mts": "MT/s", "_w": "W", "_count": "", "_ratio": ""}


def _name_of(field: str) -> str:
    for ending in UNITS:
        if field.endswith(ending):
            field = field[:-len(ending)]
    return field.replace("_", " ")


def _value(field: str, value: Any) -> Optional[str]:
    if value is None or isinstance(value, bool):
        return None if value is None else "yes" if value else "no"
    if isinstance(value, list):
        return " ".join(map(str, value))
    if field.endswith("_bytes"):
        return f"{value / 2 ** 30:.2f} GiB" if value >= 2 ** 28 else f"{value / 2 ** 20:.1f} MiB"
    unit = next((unit for ending, unit in UNITS.items() if field.endswith(ending)), "")
    shown = f"{value:,}" if field.endswith(("_count", "_tokens")) else str(value)
    return f"{shown} {unit}".strip()


def _run_facts(metadata: Json, manifest: Json) -> list[list[Any]]:
    options = {**manifest["canonical_options"], **manifest["canonical_options_overrides"]}
    cache, run = manifest["prompt_cache"], metadata["run"]
    lines = [("harness", manifest["harness_version"]), ("run", metadata["run_id"]),
             ("started", run["started_at"]), ("took", f"{run['wall_s']:.0f} s"),
             ("completeness", run["class"]), ("endpoint", manifest["target"]["class"]),
             *((name.replace("_", " "), str(value)) for name, value in options.items()),
             ("lanes", str(manifest["plan"]["lanes"])),
             ("repeats", str(manifest["plan"]["repeats"])),
             ("prompt cache", f"{cache['policy']} ({cache['method'].replace('_', ' ')})"),
             ("Python", f"{manifest['python']['implementation']} {manifest['python']['version']}")]
    return [[name, value, "manifest"] for name, value in lines]
