"""Summarize a run: one cell per model and phase, its flags, the instrument's error.

    summarize_run       a whole ledger: cells, headlines, the run's flags, the instrument

A pure function of manifest and ledger; the numbers of single calls come from core/metrics.
"""
from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from math import fsum
from typing import Any, NamedTuple, Optional

from core import headline, metrics, records
from core import metric_definitions as defs
from core.metrics import (
    Number,
    Numbers,
    Result,
    chunk_times_us,
    median_or_none,
    round_sig,
    token_counts,
)
from core.records import CallFinished, InstrumentCalibrated, LedgerLine, Manifest

Key = tuple[str, str]                        # model, phase


class _Run(NamedTuple):
    """What the cells of a run need to know about the rest of it."""

    manifest: Manifest
    calibration: Optional[InstrumentCalibrated]
    endpoints: dict[str, records.EndpointIdentified]     # the last one of each model
    cached: set[str]                         # models whose prompts the cache probe found cached
    distrusted: dict[str, Optional[str]]     # model: why its counts of output are not trusted
    bad_prompts: dict[str, Optional[str]]    # model: why its counts of prompts are not trusted
    after_failure: set[str]                  # calls right after one that the server broke off
    declared_slots: Mapping[str, Optional[int]]      # by model
    makespans_us: dict[Key, Result]          # the models of MIXED_PHASE share one


class _Group(NamedTuple):
    """The calls of one cell with their numbers."""

    calls: list[CallFinished]
    ok: list[CallFinished]
    numbers: list[Numbers]                   # call_metrics of `ok`

    @property
    def tokens_source(self) -> Optional[str]:
        """usage, chunks, or None without any tokens."""
        sources = (m["output_tokens_source"] for m in self.numbers)
        return next((source for source in sources if source), None)


def summarize_run(manifest: Manifest, events: Sequence[LedgerLine],
                  declared_slots: Optional[Mapping[str, Optional[int]]] = None) -> dict[str, Any]:
    """{"cells", "headlines", "run_flags", "counts", "instrument"} as records.Metadata holds them.

    declared_slots: by model, the number of requests that the server processes in parallel.
    A cell is one model in one phase, in the ledger's order. Of several call_finished lines of one
    cell_id the last counts.
    """
    finished = [e for e in events if e["event"] == "call_finished"]
    calls = sorted({c["cell_id"]: c for c in finished}.values(), key=lambda c: c["seq"])
    run = _run_of(manifest, events, calls, declared_slots or {})
    by_key: dict[Key, list[CallFinished]] = {(c["model"], c["phase"]): [] for c in finished}
    for call in calls:
        by_key[call["model"], call["phase"]].append(call)
    groups = {key: _group(found, run) for key, found in by_key.items()}
    cells = [_cell(run, key, groups) for key in groups]
    samples = [event for event in events if event["event"] == "host_sampled"]
    return {"cells": cells,
            "headlines": [headline.of_model(
                model, {key[1]: list(zip(group.ok, group.numbers))
                        for key, group in groups.items() if key[0] == model},
                [cell for cell in cells if cell["model"] == model], samples)
                for model in dict.fromkeys(key[0] for key in groups)],
            "run_flags": _run_flags(run, events),
            "counts": _outcomes(calls),
            "instrument": _instrument(run.calibration, calls)}


def _run_of(manifest: Manifest, events: Sequence[LedgerLine], calls: list[CallFinished],
            declared_slots: Mapping[str, Optional[int]]) -> _Run:
    calibrations = [e for e in events if e["event"] == "instrument_calibrated"]
    answered: dict[str, list[CallFinished]] = {}
    made: dict[str, list[CallFinished]] = {}
    for event in events:
        if event["event"] == "call_finished":
            made.setdefault(event["model"], []).append(event)
    spans: dict[Key, list[CallFinished]] = {}
    for call in calls:
        spans.setdefault(_span_key(call["model"], call["phase"]), []).append(call)
        if call["outcome"] == "ok":
            answered.setdefault(call["model"], []).append(call)
    return _Run(
        manifest, calibrations[-1] if calibrations else None,
        {e["model"]: e for e in events if e["event"] == "endpoint_identified"},
        {e["model"] for e in events if e["event"] == "cache_probed" and e["verdict"] == "cached"},
        {model: metrics.constant_usage(group, "completion") for model, group in answered.items()},
        {model: metrics.constant_usage(group, "prompt") for model, group in answered.items()},
        {after["cell_id"] for group in made.values() for before, after in zip(group, group[1:])
         if before["outcome"] in defs.BROKEN_OUTCOMES}, declared_slots,
        {key: _makespan_us(group) for key, group in spans.items()})


def _span_key(model: str, phase: str) -> Key:
    return ("" if phase == defs.MIXED_PHASE else model), phase


def _makespan_us(calls: list[CallFinished]) -> Result:
    """From the first request to the last byte; a call without an end mark ends with its line."""
    timed = [(c, c["timing"]) for c in calls if c["timing"]]
    if not timed:
        return None, "no request was sent"
    if len({call["segment"] for call, _ in timed}) > 1:
        return None, "the run was resumed during the phase"
    started = min(timing["started_us"] for _, timing in timed)
    ended = max(call["t_us"] if timing["done_us"] is None
                else timing["started_us"] + timing["done_us"] for call, timing in timed)
    return (ended - started, None) if ended > started else (None, "the duration is zero")


def _group(calls: list[CallFinished], run: _Run) -> _Group:
    """One kind of token count per cell: usage only if every answer has a usable one.

    Of several hellos only the first answered one counts: those of a resume find a loaded model.
    """
    ok = [c for c in calls if c["outcome"] == "ok"]
    trusted = all(not run.distrusted.get(c["model"]) and metrics.usage_is_usable(c) for c in ok)
    measured = ok[:1] if calls[0]["phase"] == "hello" else ok
    loads = _reloaded(measured, run.after_failure)
    return _Group(calls, ok, [
        metrics.call_metrics(c, trusted, not run.bad_prompts.get(c["model"]), c["cell_id"] in loads)
        for c in measured])


def _reloaded(calls: list[CallFinished], after_failure: set[str]) -> set[str]:
    """Calls in which the model was loaded: as recorded, or after a failure and with a TTFT that
    stands out, since an engine that died is started again by the next call.
    """
    cold = {c["cell_id"] for c in calls if c["cold"] and c["phase"] != "hello"}
    others = [chunk_times_us(c)[0] for c in calls
              if chunk_times_us(c) and c["cell_id"] not in cold | after_failure]
    if not others:
        return cold
    limit_us = defs.RELOADED_RATIO * metrics.median(others)
    return cold | {c["cell_id"] for c in calls if c["cell_id"] in after_failure
                   and chunk_times_us(c) and chunk_times_us(c)[0] > limit_us}


def _outcomes(calls: Iterable[CallFinished]) -> dict[str, int]:
    return dict(sorted(Counter(c["outcome"] for c in calls).items()))


def _phase_plan(manifest: Manifest, phase: str) -> tuple[int, int]:
    """Lanes and number of questions of a phase."""
    return next(((p["lanes"], len(p["question_ids"])) for p in manifest["plan"]["phases"]
                 if p["phase"] == phase), (1, 0))


def _own_lanes(manifest: Manifest, model: str, phase: str, count: int) -> int:
    """How many of the first `count` lanes are the model's: all, unless lanes have models."""
    models = manifest["models"]
    if phase != defs.MIXED_PHASE:
        return count
    return sum(models[lane % len(models)] == model for lane in range(count))


def _planned(manifest: Manifest, model: str, phase: str, calls: list[CallFinished]) -> int:
    """Planned calls of a cell; each resume adds a hello of its own, so those are counted."""
    if phase == "hello":
        return len(calls)
    lanes, questions = _phase_plan(manifest, phase)
    rounds, rest = divmod(questions, lanes)
    full, last = (_own_lanes(manifest, model, phase, count) for count in (lanes, rest))
    return (rounds * full + last) * manifest["plan"]["repeats"]


def _cell(run: _Run, key: Key, groups: dict[Key, _Group]) -> records.Cell:
    (model, phase), group = key, groups[key]
    calls, ok, numbers = group.calls, group.ok, group.numbers
    lanes, cold = _phase_plan(run.manifest, phase)[0], all(
        c["cold"] and c["phase"] == "hello" for c in calls[:1])
    makespan_us, why = run.makespans_us[_span_key(model, phase)]
    throughput = _throughput(group, makespan_us, why)
    efficiency = _lane_efficiency(run, key, groups, throughput)
    passed = [c["checks"]["passed"] for c in ok if c["checks"]]
    verdicts = _verdicts(run, phase, lanes, group)
    summaries: Any = {name: metrics.summarize(m[name] for m in numbers)
                      for name in defs.CALL_METRICS}
    reasons = {"makespan_ms": why, "output_token_throughput_tokens_per_s": throughput[1],
               "lane_efficiency_ratio": efficiency[1]}
    return {
        "model": model, "phase": phase, "lanes": lanes, "cold": cold,
        "across_prompts": len({c["question_id"] for c in ok}) > 1,
        "planned": _planned(run.manifest, model, phase, calls),
        "ok": len(ok), "failed": len(calls) - len(ok), "outcomes": _outcomes(calls),
        "metrics": summaries, "output_tokens_source": group.tokens_source,
        "makespan_ms": None if makespan_us is None else round_sig(makespan_us / 1000),
        "output_token_throughput_tokens_per_s": round_sig(throughput[0]),
        "lane_efficiency_ratio": round_sig(efficiency[0]),
        "checks": {"passed": passed.count(True), "total": len(passed) - passed.count(None)},
        "null_reasons": {**_null_reasons(numbers),
                         **{name: text for name, text in reasons.items() if text}},
        "verdicts": verdicts, "flags": _cell_flags(run, key, groups, verdicts)}


def _throughput(group: _Group, makespan_us: Optional[Number], why: Optional[str]) -> Result:
    tokens = [m["output_tokens"] for m in group.numbers]
    if makespan_us is None or not tokens:
        return None, why or "no answer"
    if None in tokens:
        return None, "an answer's tokens are unknown"
    return sum(tokens) * 1e6 / makespan_us, None


def _lane_efficiency(run: _Run, key: Key, groups: dict[Key, _Group],
                     throughput: Result) -> Result:
    """Throughput over that of the model's own lanes at the speed of its one-lane phases."""
    (model, phase), lanes = key, _phase_plan(run.manifest, key[1])[0]
    if lanes == 1 or throughput[0] is None:
        return None, "one lane" if lanes == 1 else throughput[1]
    alone = [groups[model, name] for name in defs.ONE_LANE_PHASES
             if (model, name) in groups and groups[model, name].ok]
    if any(group.tokens_source != groups[key].tokens_source for group in alone):
        return None, "tokens were counted in different ways"
    pairs = [(m["output_tokens"], m["e2el_ms"]) for group in alone for m in group.numbers
             if m["output_tokens"] and m["e2el_ms"]]
    if not pairs:
        return None, f"no answer on one lane ({', '.join(defs.ONE_LANE_PHASES)})"
    single = sum(tokens for tokens, _ in pairs) * 1000 / fsum(ms for _, ms in pairs)
    return throughput[0] / (_own_lanes(run.manifest, model, phase, lanes) * single), None


def _null_reasons(numbers: Sequence[Numbers]) -> dict[str, str]:
    """{metric: "k of n calls: most frequent reason"} for each metric that is null in a call."""
    found = {}
    for name in defs.CALL_METRICS:
        reasons = Counter(m["null_reasons"][name] for m in numbers if m[name] is None)
        if reasons:
            reason = min(reasons, key=lambda text: (-reasons[text], text))
            found[name] = f"{sum(reasons.values())} of {len(numbers)} calls: {reason}"
        elif not numbers:
            found[name] = "no answer"
    return found


def _verdicts(run: _Run, phase: str, lanes: int, group: _Group) -> records.Verdicts:
    spread, change = ((defs.UNSTABLE_IQR_RATIO, defs.DRIFT_RATIO) if lanes == 1 else
                      (defs.UNSTABLE_LANES_IQR_RATIO, defs.DRIFT_LANES_RATIO))
    judged = [] if phase in defs.GROWING_PHASES or phase == "hello" else [
        m["decode_tokens_per_s"] * metrics.early_speed(call)
        for call, m in zip(group.ok, group.numbers)
        if m["decode_tokens_per_s"] is not None]
    return {"client_bound": metrics.client_bound(group.ok, run.calibration, lanes),
            "unstable": metrics.instability(judged, spread),
            "drifting": metrics.drift(judged, change),
            "outliers": metrics.outliers(judged)}


def _cell_flags(run: _Run, key: Key, groups: dict[Key, _Group],
                verdicts: records.Verdicts) -> list[str]:
    """Flags of single answered calls, of all calls together, and of the model.

    A phase is published as one thing, so one call with a flag is enough; `coalesced` and `failures`
    have their own limits.
    """
    (model, phase), group = key, groups[key]
    ok, is_hello = group.ok, phase == "hello"
    is_distrusted = bool(run.distrusted.get(model))
    found = {name for call in ok for name in _call_flags(call, is_distrusted)} - {"coalesced"}
    # A growing conversation ends at the context's limit by design; that is not a failure.
    fine = ("ok", "context_limit") if phase in defs.GROWING_PHASES else ("ok",)
    failures = sum(c["outcome"] not in fine for c in group.calls)
    chunks = sum(len(chunk_times_us(c)) for c in ok)
    endpoint = run.endpoints.get(model)
    context = endpoint["context"]["effective_tokens"] if endpoint else None
    return defs.ordered_flags(found | {name for name, holds in (
        ("client_bound", verdicts["client_bound"]["flagged"]),
        ("unstable", verdicts["unstable"]["flagged"]),
        ("drifting", verdicts["drifting"]["flagged"]),
        ("outliers", verdicts["outliers"]["flagged"]),
        ("few_samples", not is_hello and len(ok) < defs.MIN_RANKED_N),
        ("failures", failures > defs.FAILED_SHARE * len(group.calls)),
        ("survivors", failures >= defs.SURVIVORS_SHARE * len(group.calls) and bool(ok)),
        ("reloaded", any(m["null_reasons"].get("ttft_ms") == metrics.LOADED
                         for m in group.numbers)),
        ("context_shift", any(map(_ran_over, ok, [context] * len(ok)))),
        ("coalesced", sum(map(metrics.shared_chunks, ok)) > defs.COALESCED_SHARE * max(chunks, 1)),
        ("tokens_from_chunks", group.tokens_source == "chunks"),
        ("usage_implausible", is_distrusted or bool(run.bad_prompts.get(model))
         or any(map(metrics.usage_problem, ok))),
        ("cached_prefill", model in run.cached and not is_hello),
        ("queued", _is_queued(run, key, groups)),
        ("context_differs", endpoint and _context_differs(endpoint)),
    ) if holds})


def _ran_over(call: CallFinished, context_tokens: Optional[int]) -> bool:
    """Whether an answer continued beyond the context: the server dropped the start meanwhile."""
    counted = token_counts(call)
    return bool(context_tokens and counted.prompt and counted.completion
                and counted.prompt <= context_tokens < counted.prompt + counted.completion)


def _is_queued(run: _Run, key: Key, groups: dict[Key, _Group]) -> bool:
    """Whether calls on parallel lanes waited for each other.

    Known from the server's slots, reported or declared. Without them, from the times: TTFT is over
    twice that of one lane, and fewer answers were ever generated at once than lanes asked.
    """
    (model, phase), endpoint = key, run.endpoints.get(key[0])
    lanes = _phase_plan(run.manifest, phase)[0]
    own_lanes = _own_lanes(run.manifest, model, phase, lanes)
    slots = run.declared_slots.get(model) or (endpoint["slots"]["count"] if endpoint else None)
    if slots and slots < own_lanes:
        return True
    if lanes == 1 or slots and phase != defs.MIXED_PHASE:
        return False
    if phase == defs.MIXED_PHASE:
        together = [call for (_, name), group in groups.items() if name == phase
                    for call in group.ok]
    else:
        together = groups[key].ok
    alone_us = median_or_none(
        chunk_times_us(call)[0] for name in defs.ONE_LANE_PHASES if (model, name) in groups
        for call in groups[model, name].ok if chunk_times_us(call) and not call["cold"])
    own_us = median_or_none(
        chunk_times_us(call)[0] for call in groups[key].ok if chunk_times_us(call))
    waited = own_us is not None and (alone_us is None or own_us > defs.WAITING_RATIO * alone_us)
    return waited and len(together) > lanes and _most_at_once(together) < lanes


def _most_at_once(calls: Sequence[CallFinished]) -> int:
    """How many answers were generated at the same time, at most."""
    steps: list[tuple[int, int, int]] = []
    for call in calls:
        timing = call["timing"]
        if timing and timing["first_token_us"] is not None and timing["last_token_us"] is not None:
            begin_us = timing["started_us"] + timing["first_token_us"]
            end_us = timing["started_us"] + timing["last_token_us"]
            steps += [(call["segment"], begin_us, 1), (call["segment"], end_us, -1)]
    most = now = 0
    for _, _, step in sorted(steps):
        now += step
        most = max(most, now)
    return most


def _call_flags(call: CallFinished, is_distrusted: bool) -> list[str]:
    """Flags of one answered call: the runner's own, and those computed from its record."""
    timing, (text, reasoning) = call["timing"], metrics.answer_texts(call)
    step_us, gap_us = (timing["clock_step_us"] or 0, timing["heartbeat_gap_us"] or 0) \
        if timing else (0, 0)
    characters = len(text) + len(reasoning)
    at_once = metrics.window_us(call) <= 0 and characters > defs.SHORT_CHARACTERS
    return [*call["flags"], *(name for name, holds in (
        ("truncated", call["truncated"]["verdict"] == "yes"),
        ("cached_prefill", metrics.is_cached(call)),
        ("suspended", max(gap_us, step_us) > defs.SUSPENDED_US),
        ("clock_stepped", step_us != 0),
        ("hidden_reasoning", not is_distrusted and metrics.has_hidden_reasoning(call)),
        ("reasoning_only", bool(reasoning) and not text.strip()),
        ("inline_reasoning", call["reasoning"]["mode"] == "inline"),
        ("no_finish_reason", not (call["response"] and call["response"]["finish_reason"])),
        ("not_streamed", at_once or (characters and not chunk_times_us(call))),
    ) if holds)]


def _context_differs(endpoint: records.EndpointIdentified) -> bool:
    context = endpoint["context"]
    return len({context["requested_tokens"], context["effective_tokens"]} - {None}) > 1


def _run_flags(run: _Run, events: Sequence[LedgerLine]) -> list[str]:
    samples = [e for e in events if e["event"] == "host_sampled"]
    busy = sum((s["other_cpu_busy_ratio"] or 0) > defs.OTHER_CPU_SHARE
               or (s["cpu_steal_ratio"] or 0) > defs.STEAL_SHARE for s in samples)
    return defs.ordered_flags(name for name, holds in (
        ("busy_host", busy > defs.BUSY_SAMPLES_SHARE * len(samples)),
        ("throttled", _throttled(samples)),
        ("on_battery", any(s["power_source"] == "battery" for s in samples)),
        ("context_differs", any(map(_context_differs, run.endpoints.values()))),
        ("cached_prefill", run.cached),
        ("usage_implausible", any(run.distrusted.values()) or any(run.bad_prompts.values())),
        ("not_calibrated", not metrics.calibration_rows(run.calibration, "lanes")),
        ("unfinished", not any(e["event"] == "run_finished" for e in events)),
    ) if holds)


def _throttled(samples: Sequence[records.HostSampled]) -> bool:
    """A card reports it, or the CPUs' counter grew within a segment."""
    counts: dict[int, list[float]] = {}
    for s in samples:
        if s["cpu_throttle_count"] is not None:
            counts.setdefault(s["segment"], []).append(s["cpu_throttle_count"])
    return any(gpu["throttled"] for s in samples for gpu in s["gpus"]) \
        or any(c[-1] > c[0] for c in counts.values())


def _instrument(calibration: Optional[InstrumentCalibrated],
                calls: Sequence[CallFinished]) -> records.Instrument:
    """What is known of the client's own error.

    read_lag_us: over the n calls that have it, the medians of their p50 and p99, and the largest
    max.
    """
    found: Mapping[str, Any] = calibration or {"reason": "no calibration in this run"}
    timings = [c["timing"] for c in calls if c["timing"]]
    lags = [timing["read_lag_us"] for timing in timings if timing["read_lag_us"]]
    stamps: Any = dict(sorted(Counter(timing["stamp"] for timing in timings).items()))
    return {
        "stamp": found.get("stamp"), "clock_resolution_ns": found.get("clock_resolution_ns"),
        "lanes": found.get("lanes"), "saturation": found.get("saturation"),
        "heartbeat_overshoot_us": found.get("heartbeat_overshoot_us"),
        "wall_ms": found.get("wall_ms"), "reason": found.get("reason"), "stamps": stamps,
        "read_lag_us": {"p50": round_sig(metrics.median(lag["p50"] for lag in lags)),
                        "p99": round_sig(metrics.median(lag["p99"] for lag in lags)),
                        "max": max(lag["max"] for lag in lags), "n": len(lags)} if lags else None}
