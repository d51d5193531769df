"""Recompute every published number of runs with numpy, from docs/metrics.md, docs/thresholds.md and
docs/curves.md.

    python recompute_metrics.py [folder of submissions]     needs numpy; PYTHONPATH=harness

Nothing of core/ is used but to make the submissions that are recomputed: the merged ones, and
generated ones with shared reads, failures, repeats, lanes, several models, resumed segments, other
programs, a sleeping machine, a slow client, no usage and derived cached tokens. Of a document only
names are taken: the models, per cell how its tokens were counted, and the flags that texts decide.
Every number below cells, headlines, curves, counts and instrument must be compared. Exit codes: 0
all equal; 1 a number differs or was not compared.
"""
from __future__ import annotations

import json
import os
import random
import sys
from collections import Counter
from pathlib import Path
from typing import Any, Iterator

import numpy as np

from tests import made_submissions
from tests.made_submissions import Spec

Json = dict[str, Any]
ALONE = ("frozen", "5q", "20q")
TAILS = {"p90": (90, 64), "p95": (95, 130), "p99": (99, 662)}
BROKEN = {"connection_lost", "interrupted_answer", "stream_error", "no_events", "http_error",
          "connect_failed"}
BOUND = {"ttft": {"ttft_ms", "ttfo_ms", "prefill_tokens_per_s"},
         "decode_window": {"tpot_ms", "decode_tokens_per_s", "answer_tokens_per_s"},
         "saturation": {"tpot_ms", "decode_tokens_per_s", "answer_tokens_per_s",
                        "output_token_throughput_tokens_per_s", "speedup_ratio"}}
UNRANKED = {"truncated", "cached_prefill", "failures", "survivors", "hidden_reasoning",
            "usage_implausible", "tokens_from_chunks", "not_streamed", "model_mismatch",
            "context_differs", "busy_host"}


# --- statistics ----------------------------------------------------------------------------------
def summary(values: list[Any]) -> Json:
    known = np.sort(np.array([v for v in values if v is not None], float))
    n = len(known)
    out: Json = dict.fromkeys(("median", "q1", "q3", "iqr", "min", "max", "ci_low", "ci_high",
                               *TAILS))
    if n:
        out.update(median=np.quantile(known, 0.5), min=known[0], max=known[-1])
    if n >= 4:
        q1, q3 = np.quantile(known, (0.25, 0.75))
        out.update(q1=q1, q3=q3, iqr=q3 - q1)
    if n >= 6:
        chance = np.cumsum([_choose(n, k) / 2 ** n for k in range(n)])
        low = int(np.searchsorted(chance, 0.025, side="right"))
        out.update(ci_low=known[low - 1], ci_high=known[n - low])
    for name, (percent, floor) in TAILS.items():
        if n >= floor:
            out[name] = known[int(np.ceil(n * percent / 100 - 1e-9)) - 1]
    return {"n": n, **out}


def _choose(n: int, k: int) -> int:
    return 1 if k == 0 else _choose(n, k - 1) * (n - k + 1) // k


def median(values: Any) -> Any:
    known = [v for v in values if v is not None]
    return float(np.median(known)) if known else None


# --- one call ------------------------------------------------------------------------------------
def reported(call: Json, *path: str) -> Any:
    value: Any = call["response"]
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value if type(value) is int else None


def cached_of(call: Json) -> Any:
    told = reported(call, "usage", "prompt_tokens_details", "cached_tokens")
    return reported(call, "server_timings", "cache_n") if told is None else told


def span(call: Json) -> tuple[int, int]:
    timing = call["timing"]
    if not timing:
        return call["t_us"], call["t_us"]
    done = timing["done_us"]
    return timing["started_us"], call["t_us"] if done is None else timing["started_us"] + done


def numbers(call: Json, source: str, loaded: bool, derived: Any, unknown: bool) -> Json:
    timing = call["timing"]
    gaps_us, reads = np.array(timing["chunk_us"], float), timing["reads"]
    chunks = len(gaps_us)
    tokens = reported(call, "usage", "completion_tokens") if source == "usage" else chunks or None
    first, last = timing["first_token_us"], timing["last_token_us"]
    in_first = reads[0][1] if reads and reads[0][0] == 0 else 1
    shared = np.zeros(chunks, bool)
    end = min(in_first + 64, chunks)
    for begin, count in reads:
        shared[begin:begin + count] = True
        if begin < in_first + 64 < begin + count:
            end = begin + count
    out: Json = dict.fromkeys(("ttft_ms", "ttfo_ms", "tpot_ms", "decode_tokens_per_s",
                               "answer_tokens_per_s", "prefill_tokens_per_s", "icl_ms",
                               "icl_max_ms", "e2el_ms"))
    out.update(output_tokens=tokens, prompt_tokens=reported(call, "usage", "prompt_tokens") or None,
               cached_tokens=derived if cached_of(call) is None else cached_of(call),
               coalesced_ratio=shared.mean() if chunks else None)
    if first is not None and not loaded:
        out.update(ttft_ms=first / 1e3, e2el_ms=last / 1e3)
        if timing["first_answer_us"] is not None:
            out["ttfo_ms"] = timing["first_answer_us"] / 1e3
    own = gaps_us[1:][~shared[1:]]
    if len(own):
        out.update(icl_ms=np.median(own) / 1e3, icl_max_ms=own.max() / 1e3)
    step_ms = None
    if chunks and tokens and first is not None and last > first:
        window = gaps_us[in_first:end]
        timed = tokens * (1 - in_first / chunks)
        if window.sum():
            step_ms = window.mean() / (tokens / chunks) / 1e3
            if len(window) >= 32:
                out["decode_tokens_per_s"] = 1e3 / step_ms
        if timed >= 32:
            out["tpot_ms"] = (last - first) / timed / 1e3
            out["answer_tokens_per_s"] = 1e3 / out["tpot_ms"]
    prompt, cached, ttft = (out[n] for n in ("prompt_tokens", "cached_tokens", "ttft_ms"))
    if prompt and step_ms and ttft and ttft > step_ms and not (cached is None and unknown) \
            and prompt - (cached or 0) >= 512:
        out["prefill_tokens_per_s"] = (prompt - (cached or 0)) / (ttft - step_ms) * 1e3
    return out


# --- one run -------------------------------------------------------------------------------------
class Run:
    def __init__(self, manifest: Json, events: list[Json], document: Json) -> None:
        self.manifest, self.events = manifest, events
        lines = [e for e in events if e["event"] == "call_finished"]
        self.calls = sorted({c["cell_id"]: c for c in lines}.values(), key=lambda c: c["seq"])
        self.samples = [e for e in events if e["event"] == "host_sampled"]
        self.probes = {e["model"]: e for e in events if e["event"] == "cache_probed"}
        self.calibration = ([e for e in events if e["event"] == "instrument_calibrated"]
                            or [None])[-1]
        self.first = {model: next(c["seq"] for c in lines if c["model"] == model)
                      for model in {c["model"] for c in lines}}
        self.after_failure = set()
        for model in self.first:
            own = [c for c in lines if c["model"] == model]
            self.after_failure |= {b["seq"] for a, b in zip(own, own[1:])
                                   if a["outcome"] in BROKEN}
        self.source = {(c["model"], c["phase"]): c["output_tokens_source"]
                       for c in document["cells"]}
        self.cells = [self.cell(model, phase) for model, phase in dict.fromkeys(
            (c["model"], c["phase"]) for c in lines if "level" not in c)]    # curves have none

    def disturbed(self, segment: int, begin: int, end: int) -> bool:
        taken = known = since = 0.0
        for sample in (s for s in self.samples if s["segment"] == segment):
            busy, others = sample["cpu_busy_ratio"], sample["other_cpu_busy_ratio"]
            if (busy is None or others is None) and since:
                continue
            within = max(0.0, min(end, sample["t_us"]) - max(begin, since))
            since = sample["t_us"]
            known += within
            if busy is not None and others is not None:
                stolen = sample.get("cpu_steal_ratio") or 0
                if busy + stolen >= 0.9:
                    taken += within * (others + stolen) / (busy + stolen)
        return taken > 0.25 * known

    @staticmethod
    def slept(call: Json) -> bool:
        timing = call["timing"]
        return bool(timing) and max(timing["heartbeat_gap_us"] or 0, timing["clock_step_us"]) > 2e6

    def left_out(self, call: Json) -> Any:
        return "suspended" if self.slept(call) else \
            "busy_host" if self.disturbed(call["segment"], *span(call)) else None

    def derived(self, call: Json) -> tuple[Any, bool]:
        """(cached tokens by the turn before, whether unreported ones are unknown)."""
        probe = self.probes.get(call["model"], {"verdict": "", "control": ""})
        if call["truncated"]["verdict"] == "yes":
            return None, True
        if call["phase"] != "edge_append" or call["request"]["messages_count"] == 1:
            return None, probe["verdict"] == "cached"
        at = self.calls.index(call)
        before = self.calls[at - 1]
        same = ("model", "phase", "repeat", "segment")
        if all(before[n] == call[n] for n in same) and before["outcome"] == "ok" \
                and probe["control"] == "cached":
            turn = [reported(before, "usage", n) for n in ("prompt_tokens", "completion_tokens")]
            if all(turn) and (reported(call, "usage", "prompt_tokens") or 0) >= sum(turn):
                return sum(turn) - 1, True
        return None, True

    def cell(self, model: str, phase: str) -> Json:
        calls = [c for c in self.calls if (c["model"], c["phase"]) == (model, phase)]
        ok = [c for c in calls if c["outcome"] == "ok"]
        reasons = [self.left_out(c) for c in ok]
        used = [c for c, why in zip(ok, reasons) if not why and (phase != "hello" or c is ok[0])]
        times = {c["cell_id"]: c["timing"]["chunk_us"][0] for c in used if c["timing"]["chunk_us"]}
        cold = {c["cell_id"] for c in used if c["cold"] and phase != "hello"}
        after = {c["cell_id"] for c in used if c["seq"] in self.after_failure}
        usual = median(us for i, us in times.items() if i not in cold | after)
        loaded = cold | {i for i, us in times.items()
                         if usual and i in after and us > 2 * usual}
        source = self.source.get((model, phase), "usage" if all(
            reported(c, "usage", "completion_tokens") for c in ok) else "chunks")
        found = [numbers(c, source, c["cell_id"] in loaded, *self.derived(c)) for c in used]
        plan = next((p for p in self.manifest["plan"]["phases"] if p["phase"] == phase),
                    {"lanes": 1})
        lead = (used or calls)[0]
        models, asked = self.manifest["models"], plan.get("question_ids", [])
        planned = sum(phase != "parallel_mixed" or models[i % plan["lanes"] % len(models)] == model
                      for i in range(len(asked))) * self.manifest["plan"]["repeats"]
        cell: Json = {
            "model": model, "phase": phase, "lanes": plan["lanes"], "ok": len(ok),
            "planned": len(calls) if phase == "hello" else planned, "failed": len(calls) - len(ok),
            "outcomes": Counter(c["outcome"] for c in calls),
            "left_out": Counter(filter(None, reasons)),
            "cold": lead["cold"] and phase == "hello" and (
                lead.get("loaded") is False or lead["seq"] == self.first[model]),
            "across_prompts": len({c["question_id"] for c in used}) > 1,
            "metrics": {name: summary([one[name] for one in found]) for name in numbers(
                ok[0], source, False, None, True)} if ok else None,
            "checks": {"passed": sum(bool(c["checks"] and c["checks"]["passed"]) for c in ok),
                       "total": sum(bool(c["checks"]) and c["checks"]["passed"] is not None
                                    for c in ok)}}
        chunks = sum(len(c["timing"]["chunk_us"]) for c in ok)
        shared = sum(n for c in ok for _, n in c["timing"]["reads"])
        fine = {"ok", "context_limit"} if phase == "edge_append" else {"ok"}
        bad = sum(c["outcome"] not in fine for c in calls) / len(calls)
        cell["_hindered"] = hindered = sum(
            c["outcome"] != "ok" and self.disturbed(c["segment"], *span(c)) for c in calls)
        cell["_flags"] = {name for name, holds in (
            ("few_samples", phase != "hello" and len(used) < 6), ("failures", bad > 0.05),
            ("survivors", bad >= 1 / 3 and ok), ("coalesced", shared > 0.2 * max(chunks, 1)),
            ("suspended", any(map(self.slept, ok))), ("reloaded", loaded),
            ("busy_host", cell["left_out"]["busy_host"] + hindered > (len(ok) + hindered) / 2),
            ("tokens_from_chunks", source == "chunks")) if holds}
        self.lanes(cell, ok, source)
        self.verdicts(cell, used, [one["decode_tokens_per_s"] for one in found], plan["lanes"])
        cell["_flags"] |= {name for name, one in cell["verdicts"].items() if one["flagged"]}
        cell["_used"] = list(zip(used, found))
        return cell

    def lanes(self, cell: Json, ok: list[Json], source: str) -> None:
        mixed = cell["phase"] == "parallel_mixed"
        every = [c for c in self.calls if c["phase"] == cell["phase"]
                 and (mixed or c["model"] == cell["model"])]
        timed = [c for c in every if c["timing"]]
        cell["busy_window_ms"] = cell["output_token_throughput_tokens_per_s"] = None
        if mixed:
            own = [c for c in every if c["model"] == cell["model"]]
            beside = sum(max(0, min(span(a)[1], span(b)[1]) - max(span(a)[0], span(b)[0]))
                         for a in own for b in every
                         if b["model"] != cell["model"] and a["segment"] == b["segment"])
            length = sum(span(c)[1] - span(c)[0] for c in own)
            cell["other_models_lanes_mean"] = beside / length if length else None
        if not timed or len({c["segment"] for c in timed}) > 1:
            return
        begin = min(span(c)[0] for c in timed)
        end = min(max(span(c)[1] for c in timed if c["lane"] == lane)
                  for lane in {c["lane"] for c in timed})
        if end <= begin or any(self.slept(c) for c in timed if span(c)[0] < end) \
                or self.disturbed(timed[0]["segment"], begin, end):
            return
        cell["busy_window_ms"] = (end - begin) / 1e3
        total = 0.0
        for call in ok:
            arrived = span(call)[0] + np.cumsum(call["timing"]["chunk_us"])
            tokens = reported(call, "usage", "completion_tokens") if source == "usage" \
                else len(arrived)
            if not len(arrived) or tokens is None:
                return
            total += tokens * (arrived <= end).mean()
        cell["output_token_throughput_tokens_per_s"] = total / (end - begin) * 1e6 or None

    def verdicts(self, cell: Json, used: list[Json], rates: list[Any], lanes: int) -> None:
        calibration: Any = self.calibration or {"lanes": [], "saturation": [], "stamp": None,
                                                "heartbeat_overshoot_us": None}

        def row(name: str) -> Any:
            rows = sorted(calibration[name], key=lambda r: r["lanes"])
            return next((r for r in rows if r["lanes"] >= lanes), (rows or [None])[-1])

        errors, windows = [], []
        used = [c for c in used if c["timing"]["chunk_us"]]
        for call in used:
            timing = call["timing"]
            own = timing["read_lag_us"] and timing["read_lag_us"]["p50"]
            measured = row("lanes") and (row("lanes")["lag_us"] or {}).get("p50")
            measured = measured if calibration["stamp"] == timing["stamp"] else None
            beat = (calibration["heartbeat_overshoot_us"] or {}).get("p50")
            order = (measured, own) if timing["stamp"] == "kernel" else (own, measured, beat)
            errors.append(next((e for e in order if e is not None), None))
            first = timing["reads"][0][1] if timing["reads"] and not timing["reads"][0][0] else 1
            end = next((f + n for f, n in timing["reads"] if f < first + 64 < f + n), first + 64)
            part = timing["chunk_us"][first:end]
            if len(part) >= 32 and sum(part):
                windows.append((len(part), sum(part)))
        error, ttft = median(errors), median(c["timing"]["chunk_us"][0] for c in used)
        window = median(us for _, us in windows)
        rate = median(n * lanes * 1e6 / us for n, us in windows)
        most = row("saturation") and row("saturation")["chunks_per_s"]
        reasons = [name for name, a, b, share in (
            ("decode_window", error, window, 0.005), ("ttft", error, ttft, 0.01),
            ("saturation", rate, most, 1 / 3)) if a is not None and b is not None and a > share * b]
        judged = [] if cell["phase"] in ("hello", "edge_append") else [
            r for r in rates if r is not None]
        ratio = largest = count = None
        if len(judged) >= 6:
            q1, middle, q3 = np.quantile(judged, (0.25, 0.5, 0.75))
            ratio, off = (q3 - q1) / middle, np.abs(np.array(judged) - middle)
            sigma = 1.4826 * np.median(off)
            largest = off.max() / sigma if sigma else None
            count = int((off > max(10 * sigma, 0.2 * middle)).sum())
        cell["verdicts"] = {
            "client_bound": {"reasons": reasons, "error_p50_us": error, "ttft_us": ttft,
                             "decode_window_us": window, "chunks_per_s": rate,
                             "saturation_chunks_per_s": most,
                             "flagged": bool(reasons) if reasons or error is not None else None},
            "unstable": {"iqr_ratio": ratio, "flagged": None if ratio is None else
                         bool(ratio > (0.1 if lanes == 1 else 0.25))},
            "outliers": {"count": count, "largest_sigmas": largest,
                         "flagged": None if count is None else count > 0}}

    def curve(self, model: str, phase: str) -> Json:
        cell, ramp = self.cell(model, phase), phase == "ramp"
        used = {c["cell_id"]: one for c, one in cell["_used"]}
        at: dict[int, list[Json]] = {}
        for call in (c for c in self.calls if (c["model"], c["phase"]) == (model, phase)):
            at.setdefault(call["level"], []).append(call)
        at = dict(sorted(at.items()))

        def values(level: int, name: str, question: Any = None) -> list[Any]:
            return [used[c["cell_id"]][name] for c in at[level]
                    if c["cell_id"] in used and question in (None, c["question_id"])]

        def points(name: str, question: Any = None) -> list[Json]:
            found = []
            for level in at:
                one = summary(values(level, name, question))
                place = level if ramp else median(
                    values(level, "prompt_tokens", "cold")) or level
                found.append({"at": place, "n": one["n"], "value": one["median"],
                              "low": one["ci_low"], "high": one["ci_high"]})
            return found

        series = {"output_token_throughput_tokens_per_s":
                  [self.busy_rate(level, calls) for level, calls in at.items()],
                  **{name: points(name) for name in ("ttft_ms", "decode_tokens_per_s")}} \
            if ramp else {**{name: points(name, "cold") for name in (
                "prefill_tokens_per_s", "ttft_ms", "decode_tokens_per_s")},
                "continued_ttft_ms": points("ttft_ms", "continued")}
        end = next(({n: e[n] for n in ("level", "kind", "reason")} for e in self.events
                    if e["event"] == "curve_ended" and (e["model"], e["phase"]) == (model, phase)),
                   None)
        rates = {p["at"]: p["value"] for p in next(iter(series.values())) if p["value"]}
        near = [level for level, rate in rates.items() if rate * 1.05 >= max(rates.values())]
        is_open = not near or near[0] == max(rates) and not (end and end["kind"] == "queued")
        slots = [e["slots"]["count"] for e in self.events
                 if e["event"] == "endpoint_identified" and e["model"] == model]
        client = []
        for level, calls in at.items():
            judged: Json = {"phase": phase}
            self.verdicts(judged, [c for c in calls if c["outcome"] == "ok"], [],
                          level if ramp else 1)
            bound = judged["verdicts"]["client_bound"]
            client.append({"level": level, **{n: bound[n] for n in (
                "flagged", "reasons", "error_p50_us", "chunks_per_s", "saturation_chunks_per_s")}})
        return {"model": model, "phase": phase, "axis": "lanes_count" if ramp else "depth_tokens",
                "series": [{"metric": name, "points": [p for p in one if p["n"]]}
                           for name, one in series.items()],
                "knee": near[0] if ramp and not is_open else None,
                "slots_count": slots[-1] if ramp and slots else None, "end": end,
                "client": client, "ok": cell["ok"], "failed": cell["failed"],
                "left_out": cell["ok"] - len(used), "checks": cell["checks"]}

    def busy_rate(self, lanes: int, calls: list[Json]) -> Json:
        """Throughput while every lane was busy, with the interval of ten equal parts."""
        timed = [c for c in calls if c["timing"] and c["timing"]["done_us"] is not None]
        windows = []
        for segment in sorted({c["segment"] for c in timed}):
            own = [c for c in timed if c["segment"] == segment]
            ends = {lane: max(span(c)[1] for c in own if c["lane"] == lane)
                    for lane in {c["lane"] for c in own}}
            begin = min(span(c)[0] for c in own)
            if len(ends) == lanes and begin < min(ends.values()):
                windows.append((segment, begin, min(ends.values())))

        def tokens(segment: int, begin: int, end: int) -> float:
            total = 0.0
            for call in calls:
                if call["segment"] == segment and call["timing"] and call["timing"]["chunk_us"]:
                    marks = call["timing"]["started_us"] + np.cumsum(call["timing"]["chunk_us"])
                    count = reported(call, "usage", "completion_tokens") or len(marks)
                    total += count * ((marks > begin) & (marks <= end)).mean()
            return total

        value = low = high = None
        if windows and not any(self.disturbed(*window) for window in windows):
            value = sum(tokens(*w) for w in windows) * 1e6 / sum(e - b for _, b, e in windows)
            segment, begin, end = max(windows, key=lambda w: w[2] - w[1])
            marks = begin + (end - begin) * np.arange(11) // 10
            parts = [tokens(segment, a, b) * 1e6 / max(b - a, 1)
                     for a, b in zip(marks, marks[1:])]
            error = 2.262 * np.std(parts, ddof=1) / np.sqrt(10)
            low, high = max(value - error, 0.0), value + error
        return {"at": lanes, "n": sum(c["outcome"] == "ok" for c in calls) if value else 0,
                "value": value or None, "low": low if value else None,
                "high": high if value else None}

    def finish(self, flags: dict[tuple[str, str], set[str]]) -> Json:
        """Speedups and headlines. flags: of each cell, whose rules need more than numbers."""
        headlines = []
        for model in dict.fromkeys(c["model"] for c in self.cells):
            own = {c["phase"]: c for c in self.cells if c["model"] == model}
            alone = [pair for p in ALONE if p in own for pair in own[p]["_used"]]
            pairs = [(m["output_tokens"], m["e2el_ms"]) for _, m in alone
                     if m["output_tokens"] and m["e2el_ms"]]
            for cell in own.values():
                rate = cell["output_token_throughput_tokens_per_s"]
                alike = {self.source[model, p] for p in ALONE if p in own and own[p]["_used"]} <= {
                    self.source[model, cell["phase"]]}
                cell["speedup_ratio"] = rate / (
                    sum(t for t, _ in pairs) / sum(ms for _, ms in pairs) * 1e3) \
                    if alike and rate and pairs and cell["lanes"] > 1 else None
            headlines.append(self.headline(model, own, alone, flags))
        curves = [self.curve(model, phase) for model, phase in dict.fromkeys(
            (c["model"], c["phase"]) for c in self.calls if "level" in c)]
        timings = [c["timing"] for c in self.calls if c["timing"]]
        lags = [t["read_lag_us"] for t in timings if t["read_lag_us"]]
        return {"cells": self.cells, "headlines": headlines, "curves": curves,
                "counts": Counter(c["outcome"] for c in self.calls),
                "instrument": {"stamps": Counter(t["stamp"] for t in timings), "read_lag_us": {
                    "p50": median(one["p50"] for one in lags), "n": len(lags),
                    "p99": median(one["p99"] for one in lags),
                    "max": max(one["max"] for one in lags)} if lags else None}}

    def run_flags(self, headlines: list[Json]) -> set[str]:
        drifts = [one["drift_ratio"] for one in headlines if one["drift_ratio"] is not None]
        events = {e["event"] for e in self.events}
        return {name for name, holds in (
            ("busy_host", any(c["left_out"]["busy_host"] or c["_hindered"] for c in self.cells)),
            ("drifting", any(not 1 / 1.1 <= ratio <= 1.1 for ratio in drifts)),
            ("on_battery", any(s["power_source"] == "battery" for s in self.samples)),
            ("cached_prefill", any(p["verdict"] == "cached" for p in self.probes.values())),
            ("not_calibrated", not (self.calibration and self.calibration["lanes"])),
            ("unfinished", "run_finished" not in events)) if holds}

    def headline(self, model: str, own: Json, alone: list[Any],
                 flags: dict[tuple[str, str], set[str]]) -> Json:
        short = [p for p in ALONE if p in own and not flags[model, p] & UNRANKED] or [
            p for p in ALONE if p in own]

        def bound(phase: str) -> set[str]:
            reasons = own[phase]["verdicts"]["client_bound"]["reasons"]
            return set().union(*(BOUND[r] for r in reasons))

        def values(phases: list[str], name: str) -> list[Any]:
            found = [m[name] for p in phases if p in own and name not in bound(p)
                     for _, m in own[p]["_used"]]
            return [v for v in found if v is not None]

        def summed(phases: list[str], name: str) -> Any:
            return summary(values(phases, name)) if values(phases, name) else None

        ordered = [m["decode_tokens_per_s"] for _, m in sorted(
            alone, key=lambda pair: pair[0]["seq"])]
        rates = np.array([r for r in ordered if r is not None], float)
        drift = None
        if len(rates) >= 12:
            i, j = np.triu_indices(len(rates), 1)
            slope = np.median((rates[j] - rates[i]) / (j - i))
            start = np.median(rates - slope * np.arange(len(rates)))
            drift = max(0.0, 1 + slope * (len(rates) - 1) / start)
        lanes = own.get("parallel_same")
        if lanes:
            lanes = {"phase": "parallel_same", "lanes_count": lanes["lanes"], **{
                n: None if n in bound("parallel_same") else lanes[n]
                for n in ("output_token_throughput_tokens_per_s", "speedup_ratio")}}
        every = [c for p in own.values() for c, _ in p["_used"]]
        return {
            "model": model, "decode_tokens_per_s": summed(short, "decode_tokens_per_s"),
            "ttft_ms": summed(short, "ttft_ms"),
            "prompt_tokens": median(values(short, "prompt_tokens")),
            "prefill_tokens_per_s": summed(["edge_suite"], "prefill_tokens_per_s"),
            "long_ttft_ms": summed(["edge_suite"], "ttft_ms"),
            "long_prompt_tokens": median(values(["edge_suite"], "prompt_tokens")),
            "lanes": lanes, "drift_ratio": drift,
            "checks_passed": sum(c["checks"]["passed"] for c in own.values()),
            "checks_count": sum(c["checks"]["total"] for c in own.values()),
            "memory": self.memory([c for c in every if c["phase"] != "parallel_mixed"]),
            "energy": self.energy(alone, [c for c in every if c["phase"] != "parallel_mixed"]),
            "load_s": self.load_s([c for c, _ in own.get("hello", {"_used": []})["_used"]],
                                  [c for c, _ in alone]),
            **self.server(alone, [c for c, _ in own.get("edge_suite", {"_used": []})["_used"]])}

    # --- beside the times of the calls
    def during(self, calls: list[Json]) -> list[Json]:
        ends = {s: (min(span(c)[0] for c in calls if c["segment"] == s),
                    max(span(c)[1] for c in calls if c["segment"] == s))
                for s in {c["segment"] for c in calls}}
        return [s for s in self.samples if s["segment"] in ends
                and ends[s["segment"]][0] <= s["t_us"] <= ends[s["segment"]][1]]

    def memory(self, calls: list[Json]) -> Any:
        samples = self.during(calls)
        cards = self.used_cards(samples)

        def most(values: Any) -> Any:
            known = [v for v in values if v is not None]
            return max(known) if known else None

        found = {"peak_card_bytes": most(sum(g["memory_used_bytes"] for g in s["gpus"]
                                             if g["index"] in cards)
                                         for s in samples if cards and s["gpus"]),
                 "peak_process_bytes": most(s.get("server_memory_bytes") for s in samples),
                 "peak_swap_bytes": most(s["swap_used_bytes"] for s in samples)}
        return found if any(v is not None for v in found.values()) else None

    @staticmethod
    def load_s(hellos: list[Json], alone: list[Json]) -> Any:
        cold = [c["timing"]["first_token_us"] for c in hellos if c.get("loaded") is False]
        warm = [c["timing"]["first_token_us"] for c in alone if not c["cold"]]
        return (cold[0] - min(warm)) / 1e6 if cold and warm and cold[0] > min(warm) else None

    @staticmethod
    def used_cards(samples: list[Json]) -> set[int]:
        busy: dict[int, float] = {}
        for sample in samples:
            for card in sample["gpus"]:
                busy[card["index"]] = max(busy.get(card["index"], 0), card["busy_ratio"] or 0)
        return {index for index, share in busy.items() if share >= 0.1}

    def energy(self, alone: list[Any], calls: list[Json]) -> Any:
        """The cards' power (or the package's counter) as a cumulative curve, read at both ends."""
        cards = self.used_cards(self.during(calls))
        joules = us = tokens = 0.0
        powers: list[float] = []
        for segment in {c["segment"] for c, _ in alone}:
            own = [s for s in self.samples if s["segment"] == segment
                   and (cards or s["energy_uj"] is not None)]
            if len(own) < 2:
                continue
            t = np.array([s["t_us"] for s in own], float)
            level = np.array([sum(g["power_w"] for g in s["gpus"] if g["index"] in cards)
                              for s in own]) if cards else np.zeros(len(own))
            used = np.diff(np.array([s["energy_uj"] for s in own], float)) if not cards else \
                (level[1:] + level[:-1]) / 2 * np.diff(t)
            mean = used / np.diff(t)
            t = np.concatenate(([t[0] - 1e7], t, [t[-1] + 1e7]))
            curve = np.concatenate(([0], np.cumsum(np.concatenate(
                ([mean[0] * 1e7], used, [mean[-1] * 1e7])))))
            for call, m in (pair for pair in alone if pair[0]["segment"] == segment):
                begin, end = span(call)
                if begin >= t[0] and end <= t[-1] and m["output_tokens"] is not None:
                    joules += np.interp(end, t, curve) - np.interp(begin, t, curve)
                    us += end - begin
                    tokens += m["output_tokens"]
                    powers += list(mean[(t[2:-1] > begin) & (t[2:-1] <= end)])
        if len(powers) < 10 or not joules:
            return None
        error = 1.96 * np.std(powers, ddof=1) / np.sqrt(len(powers)) / np.mean(powers)
        return {"joules_per_output_token": joules / 1e6 / tokens, "mean_power_w": joules / us,
                "samples_count": len(powers), "error_ratio": float(f"{error:.2g}")}

    @staticmethod
    def server(alone: list[Any], long: list[Json]) -> Json:
        def rate(calls: list[Json], name: str, least: int) -> Any:
            told = [(reported(c, "server_timings", f"{name}_n"),
                     (c["response"]["server_timings"] or {}).get(f"{name}_ms")) for c in calls]
            return median(n * 1e3 / ms for n, ms in told if n and ms and n >= least)

        drafts = [(reported(c, "server_timings", "draft_n") or 0,
                   reported(c, "server_timings", "draft_n_accepted") or 0) for c, _ in alone]
        drafted = sum(n for n, _ in drafts)
        return {
            "draft_acceptance_ratio": sum(n for _, n in drafts) / drafted if drafted else None,
            "server_decode_tokens_per_s": rate([c for c, m in alone if m[
                "decode_tokens_per_s"] is not None], "predicted", 2),
            "server_prefill_tokens_per_s": rate(long, "prompt", 512)}


# --- comparison ----------------------------------------------------------------------------------
def unlike(found: Any, expected: Any, where: str) -> Iterator[str]:
    """Places at which the document differs; numbers by one unit in the sixth digit."""
    if isinstance(found, dict):
        for name, value in found.items():
            if not name.startswith("_"):
                yield from unlike(value, expected.get(name), f"{where}.{name}")
    elif isinstance(found, list) and found and isinstance(found[0], dict):
        for one, other in zip(found, expected):
            names = (str(one[n]) for n in ("model", "phase", "metric", "at", "level") if n in one)
            yield from unlike(one, other, f"{where}.{'.'.join(names)}")
    elif isinstance(found, (int, float, np.number)) and not isinstance(found, bool) \
            and isinstance(expected, (int, float)):
        COMPARED.append(where)
        if abs(float(found) - expected) > 1.01e-5 * abs(expected) * 0.6 + 1e-9:
            yield f"{where}: numpy {float(found):.8g}, published {expected}"
    elif found != expected:
        yield f"{where}: numpy {found}, published {expected}"


COMPARED = list[str]()
JUDGED = {"few_samples", "failures", "survivors", "coalesced", "suspended", "reloaded", "busy_host",
          "tokens_from_chunks", "client_bound", "unstable", "outliers"}
RUN_JUDGED = {"busy_host", "drifting", "on_battery", "cached_prefill", "not_calibrated",
              "unfinished"}


def differences(manifest: Json, events: list[Json], document: Json) -> list[str]:
    run, before = Run(manifest, events, document), len(COMPARED)
    flags = {(c["model"], c["phase"]): set(c["flags"]) for c in document["cells"]}
    found = run.finish(flags)
    out = [text for name, value in found.items() for text in unlike(value, document[name], name)]
    for cell in run.cells:
        told = flags[cell["model"], cell["phase"]] & JUDGED
        if told != cell["_flags"]:
            out.append(f"flags of {cell['model']} {cell['phase']}: numpy {cell['_flags']}, {told}")
    if run.run_flags(found["headlines"]) != set(document["run_flags"]) & RUN_JUDGED:
        out.append(f"run_flags: numpy {run.run_flags(found['headlines'])}")
    held = sum(leaves(document[name]) for name in ("cells", "headlines", "curves", "counts"))
    held += leaves({n: document["instrument"][n] for n in ("stamps", "read_lag_us")})
    if held != len(COMPARED) - before:
        out.append(f"{held} values are published, {len(COMPARED) - before} were compared")
    return out


def leaves(value: Any) -> int:
    """The number of published numbers."""
    if isinstance(value, dict):
        return sum(map(leaves, value.values()))
    if isinstance(value, list):
        return sum(map(leaves, value))
    return isinstance(value, (int, float)) and not isinstance(value, bool)


# --- made runs -----------------------------------------------------------------------------------
def disturbed(events: list[Json], seed: int) -> list[Json]:
    """Calls that share reads, failed, were repeated, slept, or were made beside other programs."""
    rng, out = random.Random(seed), list[Json]()
    busy_from = rng.uniform(0.2, 0.6)
    for event in json.loads(json.dumps(events)):
        if event["event"] == "host_sampled":
            at = event["t_us"] / events[-1]["t_us"]
            event["cpu_busy_ratio"] = rng.choice((0.5, 0.97, 1.0))
            event["other_cpu_busy_ratio"] = 0.6 if busy_from < at < busy_from + 0.1 else \
                rng.choice((None, 0.01, 0.2))
            event["server_memory_bytes"] = rng.randrange(1 << 30, 1 << 31)
        if event["event"] == "instrument_calibrated" and seed % 5 == 4:
            event["lanes"][0]["lag_us"]["p50"] = event["lanes"][1]["lag_us"]["p50"] = 4000
        if event["event"] == "call_finished":
            timing, kind = event["timing"], rng.randrange(12)
            reads = {0: [[0, 6], [9, 4], [60, 9]], 1: [[3, 2], [63, 4]], 2: [[0, 20]]}.get(kind, [])
            timing["reads"] = [[f, n] for f, n in reads if f + n < len(timing["chunk_us"])]
            if kind == 3:
                event.update(outcome="interrupted_answer", checks=None)
            if kind == 4 and rng.random() < 0.2:
                timing["heartbeat_gap_us"] = 3_000_000
            if kind == 5:
                failed = json.loads(json.dumps(event))
                failed.update(outcome="timeout", checks=None)
                out.append(failed)
            if event["phase"] == "frozen" and seed % 7 == 3:
                event["response"]["usage"] = None
            elif event["phase"] == "edge_append" and seed % 2:
                event["response"]["usage"]["prompt_tokens_details"] = None
        out.append(event)
    out += list(made_curves(out, rng))
    probe = {"event": "cache_probed", "verdict": "not_cached", "control": "cached",
             "t_us": out[-1]["t_us"], "at": out[-1]["at"]}
    out += [{**probe, "model": m} for m in {e["model"] for e in out if e["event"]
                                            == "call_finished"}]
    cut = len(out) // 2 if seed % 3 == 0 else len(out)
    for seq, event in enumerate(out):
        event["seq"] = seq
        event["segment"] = int(seq >= cut)
    return out


def made_curves(events: list[Json], rng: random.Random) -> Iterator[Json]:
    """Calls of ramp and depth after the last event, made of answered ones on one lane."""
    asked = [e for e in events if e["event"] == "call_finished" and e["phase"] == "20q"
             and e["outcome"] == "ok"]
    begin = events[-1]["t_us"]
    for phase, level, lanes, count in (
            *(("ramp", n, n, max(3 * n, 6)) for n in (1, 2, 4)),
            *(("depth", n, 1, 4) for n in (1024, 4096))):
        free = [begin] * lanes
        for at in range(count):
            call = json.loads(json.dumps(rng.choice(asked)))
            lane = free.index(min(free))
            call.update(phase=phase, level=level, lane=lane, repeat=at // 2,
                        question_id=("cold", "continued")[at % 2] if phase == "depth" else str(at),
                        cell_id=f"{call['model']}:{phase}:{level}:{at}", cold=False)
            call["request"]["messages_count"] = 1 if phase == "ramp" else 1 + at % 2 * 2
            usage = call["response"]["usage"]
            if usage:
                usage["prompt_tokens"] = level + at if phase == "depth" else usage["prompt_tokens"]
            if rng.random() < 0.1:
                call.update(outcome="timeout", checks=None)
            call["timing"]["started_us"] = free[lane] + rng.randrange(1000, 90_000)
            free[lane] = call["t_us"] = span(call)[1]
            yield call
        begin = max(free)
        yield {**next(e for e in events if e["event"] == "host_sampled"), "t_us": begin + 1,
               "cpu_busy_ratio": 1.0, "other_cpu_busy_ratio": 0.6 if rng.random() < 0.2 else 0.1}
    yield {"event": "curve_ended", "model": asked[0]["model"], "phase": "ramp", "level": 4,
           "kind": rng.choice(("queued", "flat")), "reason": "made", "t_us": begin + 2,
           "at": events[-1]["at"]}


def made() -> Iterator[tuple[str, Json, list[Json], Json]]:
    for seed in range(24):
        spec = Spec(seed=seed, tokens=(40, 90, 130)[seed % 3], noise=(0.01, 0.2)[seed % 2],
                    repeats=1 + seed % 2, decode_ms_per_token=(10, 2.7, 40)[seed % 3],
                    models=("a", "b")[:1 + seed % 2 + (seed % 4 == 0)],
                    probed=(made_submissions.MAC, made_submissions.DESKTOP)[seed % 2])
        manifest = made_submissions.make_manifest(spec)
        events = disturbed(made_submissions.make_events(spec, manifest), seed)
        yield (f"made {seed}", manifest, events,
               made_submissions.complete(manifest, events, spec.probed).metadata)


def merged(root: Path) -> Iterator[tuple[str, Json, list[Json], Json]]:
    for folder in sorted(root.glob("*/*/run-*")):
        with open(folder / "run.jsonl", encoding="utf-8") as file:
            events = [json.loads(line) for line in file]
        manifest, document = (json.loads((folder / f"{name}.json").read_bytes())
                              for name in ("manifest", "metadata"))
        yield folder.name[:12], manifest, events, document


def main() -> int:
    root = Path(sys.argv[1] if len(sys.argv) > 1 else os.path.join(
        os.path.dirname(os.path.abspath(__file__)), *[os.pardir] * 3, "submissions"))
    wrong = 0
    for name, manifest, events, document in (*merged(root), *made()):
        before = len(COMPARED)
        found = differences(manifest, events, document)
        wrong += len(found)
        print("\n".join([f"{name}: {len(COMPARED) - before} values, {len(found)} differ",
                         *found[:10]]))
    print(f"{len(COMPARED)} values, {wrong} differ")
    return 1 if wrong or not COMPARED else 0


if __name__ == "__main__":
    sys.exit(main())
