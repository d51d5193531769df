"""Summarize a run: one cell per model and phase, its flags, the instrument's error.

    summarize_run       a whole ledger: cells, headlines, the run's flags, the instrument

A pure function of manifest and ledger; the numbers of single calls come from core/metrics.
"""
from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from math import fsum
from typing import Any, NamedTuple, Optional

from core import curves, headline, ledger, metrics, records, thresholds, throughput, usage
from core import metric_definitions as defs
from core.curve_levels import most_at_once
from core.flag_definitions import ordered_flags
from core.metrics import Number, Numbers, Result, chunk_times_us, median_or_none, round_sig
from core.names import is_generic_model
from core.records import CallFinished, InstrumentCalibrated, LedgerLine, Manifest
from core.suites import CURVES
from core.throughput import HostLoad

Key = tuple[str, str]                        # model, phase


class _Run(NamedTuple):
    """What the cells of a run need to know about the rest of it."""

    manifest: Manifest
    calibration: Optional[InstrumentCalibrated]
    endpoints: dict[str, records.EndpointIdentified]     # the last one of each model
    cached: set[str]                         # models whose prompts the cache probe found cached
    keeping: set[str]                        # models whose identical prompts it found cached
    distrusted: dict[str, Optional[str]]     # model: why its counts of output are not trusted
    bad_prompts: dict[str, Optional[str]]    # model: why its counts of prompts are not trusted
    after_failure: set[int]                  # seq of calls right after one that was broken off
    turns_before: dict[str, CallFinished]    # by cell_id, in growing conversations
    load: HostLoad
    first_calls: set[int]                    # seq of the first call of each model
    declared_slots: Mapping[str, Optional[int]]      # by model

    def slots(self, model: str) -> Optional[int]:
        """How many requests the server processes at once, as declared or else as it reports."""
        endpoint = self.endpoints.get(model)
        return self.declared_slots.get(model) or (endpoint["slots"]["count"] if endpoint else None)


class _Group(NamedTuple):
    """The calls of one cell with their numbers. measured: those answered calls that count."""

    calls: list[CallFinished]
    ok: list[CallFinished]
    usable: list[Optional[usage.Counts]]     # metrics.usable_counts of `ok`
    tokens: list[Optional[Number]]           # of `ok`
    measured: list[CallFinished]
    numbers: list[Numbers]                   # call_metrics of `measured`
    left_out: dict[str, int]                 # number of answered calls by reason
    hindered: int                            # calls that failed while other programs were busy

    def source(self, name: str) -> Optional[str]:
        """The first known value of `output_tokens_source` or `cached_tokens_source`."""
        return next((m[name] for m in self.numbers if m[name]), None)


def summarize_run(manifest: Manifest, events: Sequence[LedgerLine],
                  declared_slots: Optional[Mapping[str, Optional[int]]] = None) -> dict[str, Any]:
    """{"cells", "headlines", "curves", "run_flags", "counts", "instrument"} as in records.Metadata.

    declared_slots: by model, the number of requests that the server processes in parallel.
    A cell is one model in one phase, in the ledger's order, except ramp and depth. Of several
    call_finished lines of one cell_id the last counts.
    """
    run, every = _groups(manifest, events, declared_slots or {})
    groups = {key: group for key, group in every.items() if key[1] not in CURVES}
    cells = [_cell(run, key, groups) for key in groups]
    samples = [event for event in events if event["event"] == "host_sampled"]
    headlines = [headline.of_model(
        model, sorted((pair for (name, _), group in groups.items() if name == model
                       for pair in zip(group.measured, group.numbers)),
                      key=lambda pair: pair[0]["seq"]),
        [cell for cell in cells if cell["model"] == model], samples)
        for model in dict.fromkeys(model for model, _ in groups) if model in manifest["models"]]
    calls = [call for group in every.values() for call in group.calls]
    calls.sort(key=lambda call: call["seq"])
    return {"cells": cells, "headlines": headlines, "curves": [
                _curve(run, key, group, events) for key, group in every.items()
                if key[1] in CURVES],
            "run_flags": _run_flags(run, events, groups, headlines), "counts": _outcomes(calls),
            "instrument": _instrument(run.calibration, calls)}


def _curve(run: _Run, key: Key, group: _Group, events: Iterable[LedgerLine]) -> records.Curve:
    end = next((e for e in events if e["event"] == "curve_ended"
                and (e["model"], e["phase"]) == key), None)
    return curves.curve(
        *key, group.calls,
        {call["cell_id"]: one for call, one in zip(group.measured, group.numbers)}, end,
        run.calibration, run.load, run.slots(key[0]))


def call_numbers(manifest: Manifest, events: Sequence[LedgerLine]) -> dict[str, Numbers]:
    """{cell_id: metrics.call_metrics} of the calls that enter summaries."""
    _, groups = _groups(manifest, events, {})
    return {call["cell_id"]: numbers for group in groups.values()
            for call, numbers in zip(group.measured, group.numbers)}


def _groups(manifest: Manifest, events: Sequence[LedgerLine],
            declared_slots: Mapping[str, Optional[int]]) -> tuple[_Run, dict[Key, _Group]]:
    calls = ledger.latest_calls(events)
    run = _run_of(manifest, events, calls, declared_slots)
    by_key: dict[Key, list[CallFinished]] = {
        (e["model"], e["phase"]): [] for e in events if e["event"] == "call_finished"}
    for call in calls:
        by_key[call["model"], call["phase"]].append(call)
    return run, {key: _group(found, run) for key, found in by_key.items()}


def _run_of(manifest: Manifest, events: Sequence[LedgerLine], calls: list[CallFinished],
            declared_slots: Mapping[str, Optional[int]]) -> _Run:
    calibrations = [e for e in events if e["event"] == "instrument_calibrated"]
    probes = [e for e in events if e["event"] == "cache_probed"]
    answered: dict[str, list[CallFinished]] = {}
    made: dict[str, list[CallFinished]] = {}
    for event in events:
        if event["event"] == "call_finished":
            made.setdefault(event["model"], []).append(event)
    for call in calls:
        if call["outcome"] == "ok":
            answered.setdefault(call["model"], []).append(call)
    return _Run(
        manifest, calibrations[-1] if calibrations else None,
        {e["model"]: e for e in events if e["event"] == "endpoint_identified"},
        {e["model"] for e in probes if e["verdict"] == "cached"},
        {e["model"] for e in probes if e["control"] == "cached"},
        {model: metrics.constant_usage(group, "completion") for model, group in answered.items()},
        {model: metrics.constant_usage(group, "prompt") for model, group in answered.items()},
        {after["seq"] for group in made.values() for before, after in zip(group, group[1:])
         if before["outcome"] in defs.BROKEN_OUTCOMES},
        {after["cell_id"]: before for before, after in zip(calls, calls[1:])
         if metrics.is_later_turn(after) and _turns_of(before) == _turns_of(after)},
        HostLoad(events), {group[0]["seq"] for group in made.values()}, declared_slots)


def _turns_of(call: CallFinished) -> tuple[str, str, int, int]:
    """What all turns of one growing conversation have in common."""
    return call["model"], call["phase"], call["repeat"], call["segment"]


def _group(calls: list[CallFinished], run: _Run) -> _Group:
    """One kind of token count per cell: usage only if every answer has a usable one.

    Of several hellos only the first answered one counts: those of a resume find a loaded model.
    """
    ok = [c for c in calls if c["outcome"] == "ok"]
    reasons = {c["cell_id"]: _left_out(c, run.load) for c in ok}
    usable = [metrics.usable_counts(c) for c in ok]
    counted = {c["cell_id"]: counts for c, counts in zip(ok, usable)}
    trusted = counted if all(usable) and not any(
        run.distrusted.get(c["model"]) for c in ok) else {}
    measured = [c for c in (ok[:1] if calls[0]["phase"] == "hello" else ok)
                if not reasons[c["cell_id"]]]
    loads = _reloaded(measured, run.after_failure)
    tokens = [metrics.output_tokens(c, trusted.get(c["cell_id"]))[0] for c in ok]
    return _Group(calls, ok, usable, tokens, measured, [
        metrics.call_metrics(c, trusted.get(c["cell_id"]), not run.bad_prompts.get(c["model"]),
                             c["cell_id"] in loads, _cache(c, run, counted))
        for c in measured], dict(sorted(Counter(filter(None, reasons.values())).items())),
        sum(c["outcome"] != "ok" and run.load.is_disturbed(*throughput.span_of(c)) for c in calls))


def _left_out(call: CallFinished, load: HostLoad) -> Optional[str]:
    """The flag that explains why an answered call enters no metric, or None."""
    return "suspended" if _is_suspended(call) else \
        "busy_host" if load.is_disturbed(*throughput.span_of(call)) else None


def _is_suspended(call: CallFinished) -> bool:
    timing = call["timing"]
    return timing is not None and max(
        timing["heartbeat_gap_us"] or 0, timing["clock_step_us"] or 0) > thresholds.SUSPENDED_US


def _cache(call: CallFinished, run: _Run,
           counted: Mapping[str, Optional[usage.Counts]]) -> metrics.Cache:
    """A later turn of a growing conversation repeats all of the turn before, whose prompt and
    answer but for its last token are in the cache of a server that keeps prefixes. A truncated one
    begins with another turn, or without its salt like the call before. counted: the usable counts
    of answered calls, by cell_id.
    """
    if call["truncated"]["verdict"] == "yes":
        return metrics.Cache(None, metrics.CUT)
    if not metrics.is_later_turn(call):
        return metrics.Cache(None, "cached tokens are not reported, and the cache probe found the "
                             "prompt cached" if call["model"] in run.cached else None)
    before = run.turns_before.get(call["cell_id"])
    own = usage.counts(call["response"])
    last = usage.counts(before["response"]) if before else None
    if call["model"] in run.keeping and last and last.prompt and last.completion and own.prompt \
            and before and counted.get(before["cell_id"]) \
            and call["truncated"]["verdict"] == "no" \
            and own.prompt >= last.prompt + last.completion:
        return metrics.Cache(last.prompt + last.completion - 1)
    return metrics.Cache(None, metrics.EARLIER_TURNS)


def _reloaded(calls: list[CallFinished], after_failure: set[int]) -> set[str]:
    """Calls in which the model was loaded: as recorded, or after a failure and with a TTFT that
    stands out, since an engine that died is started again by the next call.
    """
    cold = {c["cell_id"] for c in calls if c["cold"] and c["phase"] != "hello"}
    others = [chunk_times_us(c)[0] for c in calls
              if chunk_times_us(c) and c["cell_id"] not in cold and c["seq"] not in after_failure]
    if not others:
        return cold
    limit_us = thresholds.RELOADED_RATIO * metrics.median(others)
    return cold | {c["cell_id"] for c in calls if c["seq"] in after_failure
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
    lanes = _phase_plan(run.manifest, phase)[0]
    together = [(name, call) for (name, other), of in groups.items() for call in of.calls
                if other == phase and (phase == defs.MIXED_PHASE or name == model)]
    window, why = throughput.busy_window([call for _, call in together], run.load, _is_suspended)
    rate = throughput.rate(ok, group.tokens, window, why)
    speedup = _speedup(lanes, key, groups, rate)
    verdicts = _verdicts(run, phase, lanes, group)
    summaries: Any = {name: metrics.summarize(m[name] for m in numbers)
                      for name in defs.CALL_METRICS}
    reasons = {"busy_window_ms": why, "output_token_throughput_tokens_per_s": rate[1],
               "speedup_ratio": speedup[1]}
    return {
        "model": model, "phase": phase, "lanes": lanes, "cold": _is_cold(run, group),
        "across_prompts": len({c["question_id"] for c in group.measured}) > 1,
        "planned": _planned(run.manifest, model, phase, calls),
        "ok": len(ok), "failed": len(calls) - len(ok), "outcomes": _outcomes(calls),
        "left_out": group.left_out,
        "metrics": summaries, "output_tokens_source": group.source("output_tokens_source"),
        "cached_tokens_source": group.source("cached_tokens_source"),
        "busy_window_ms": round_sig((window[2] - window[1]) / 1000) if window else None,
        "output_token_throughput_tokens_per_s": round_sig(rate[0]),
        "speedup_ratio": round_sig(speedup[0]),
        "other_models_lanes_mean": round_sig(throughput.lanes_beside(
            [throughput.span_of(call) for name, call in together if name == model],
            [throughput.span_of(call) for name, call in together if name != model]))
        if phase == defs.MIXED_PHASE else None,
        "checks": metrics.check_counts(ok),
        "null_reasons": {**_null_reasons(group),
                         **{name: text for name, text in reasons.items() if text}},
        "verdicts": verdicts, "flags": _cell_flags(run, key, groups, verdicts)}


def _is_cold(run: _Run, group: _Group) -> bool:
    """Whether the cell is a hello that loaded its model: the first call that the model ever got,
    or one before which the server reported that the model was not loaded.
    """
    call = (group.measured or group.calls)[0]
    return call["cold"] and call["phase"] == "hello" and (
        call.get("loaded") is False or call["seq"] in run.first_calls)


def _speedup(lanes: int, key: Key, groups: dict[Key, _Group], rate: Result) -> Result:
    """Throughput over that of the model's one-lane phases."""
    if lanes == 1 or rate[0] is None:
        return None, "one lane" if lanes == 1 else rate[1]
    alone = [groups[key[0], name] for name in defs.ONE_LANE_PHASES
             if (key[0], name) in groups and groups[key[0], name].measured]
    own = groups[key].source("output_tokens_source")
    if any(group.source("output_tokens_source") != own for group in alone):
        return None, "tokens were counted in different ways"
    pairs = [(m["output_tokens"], m["e2el_ms"]) for group in alone for m in group.numbers
             if m["output_tokens"] and m["e2el_ms"]]
    if not pairs:
        return None, f"no answer on one lane ({', '.join(defs.ONE_LANE_PHASES)})"
    return rate[0] * fsum(ms for _, ms in pairs) / (1000 * sum(tokens for tokens, _ in pairs)), None


def _null_reasons(group: _Group) -> dict[str, str]:
    """{metric: "k of n calls: most frequent reason"} for each metric that is null in a call."""
    found, numbers = {}, group.numbers
    for name in defs.CALL_METRICS:
        reasons = Counter(m["null_reasons"][name] for m in numbers if m[name] is None)
        if reasons:
            reason = min(reasons, key=lambda text: (-reasons[text], text))
            found[name] = f"{sum(reasons.values())} of {len(numbers)} calls: {reason}"
        elif not numbers:
            found[name] = "all answers were left out" if group.ok else "no answer"
    return found


def _verdicts(run: _Run, phase: str, lanes: int, group: _Group) -> records.Verdicts:
    judged = [] if phase in defs.GROWING_PHASES or phase == "hello" else [
        m["decode_tokens_per_s"] for m in group.numbers if m["decode_tokens_per_s"] is not None]
    limit = thresholds.UNSTABLE_IQR_RATIO if lanes == 1 else thresholds.UNSTABLE_LANES_IQR_RATIO
    return {"client_bound": metrics.client_bound(group.measured, run.calibration, lanes),
            "unstable": metrics.instability(judged, limit), "outliers": metrics.outliers(judged)}


def _cell_flags(run: _Run, key: Key, groups: dict[Key, _Group],
                verdicts: records.Verdicts) -> list[str]:
    """Flags of single answered calls, of all calls together, and of the model.

    A phase is published as one thing, so one call with a flag is enough; `coalesced` and `failures`
    have their own limits.
    """
    (model, phase), group = key, groups[key]
    ok, is_hello = group.ok, phase == "hello"
    is_distrusted = bool(run.distrusted.get(model))
    found = {name for call, counts in zip(ok, group.usable)
             for name in _call_flags(call, None if is_distrusted else counts)} - {"coalesced"}
    # A growing conversation ends at the context's limit by design; that is not a failure.
    fine = ("ok", "context_limit") if phase in defs.GROWING_PHASES else ("ok",)
    failures = sum(c["outcome"] not in fine for c in group.calls)
    chunks = sum(len(chunk_times_us(c)) for c in ok)
    endpoint = run.endpoints.get(model)
    context = endpoint["context"]["effective_tokens"] if endpoint else None
    # A server behind a proxy may answer under the name of the model's file, or a generic name.
    if endpoint and all(
            name == endpoint["facts"].get("file_name") or is_generic_model(name or "")
            for name in (call["response"] and call["response"]["model"] for call in ok
                         if "model_mismatch" in call["flags"])):
        found.discard("model_mismatch")
    return ordered_flags(found | {name for name, holds in (
        ("client_bound", verdicts["client_bound"]["flagged"]),
        ("unstable", verdicts["unstable"]["flagged"]),
        ("outliers", verdicts["outliers"]["flagged"]),
        ("few_samples", not is_hello and len(group.measured) < thresholds.MIN_INTERVAL_N),
        ("busy_host", group.left_out.get("busy_host", 0) + group.hindered
         > thresholds.DISTURBED_SHARE * (len(ok) + group.hindered)),
        ("failures", failures > thresholds.FAILED_SHARE * len(group.calls)),
        ("survivors", failures >= thresholds.SURVIVORS_SHARE * len(group.calls) and bool(ok)),
        ("reloaded", any(m["null_reasons"].get("ttft_ms") == metrics.LOADED
                         for m in group.numbers)),
        # An answer that continued beyond the context: the server dropped the start meanwhile.
        ("context_shift", context and any(
            counted.prompt and counted.completion
            and counted.prompt <= context < counted.prompt + counted.completion
            for counted in (usage.counts(call["response"]) for call in ok))),
        ("coalesced",
         sum(map(metrics.shared_chunks, ok)) > thresholds.COALESCED_SHARE * max(chunks, 1)),
        ("tokens_from_chunks", group.source("output_tokens_source") == "chunks"),
        ("usage_implausible", is_distrusted or bool(run.bad_prompts.get(model))
         or any(map(metrics.usage_problem, ok))),
        ("cached_prefill", model in run.cached and not is_hello),
        ("queued", _is_queued(run, key, groups)),
        ("context_differs", endpoint and _context_differs(endpoint)),
    ) if holds})


def _is_queued(run: _Run, key: Key, groups: dict[Key, _Group]) -> bool:
    """Whether calls on parallel lanes waited for each other.

    Known from the server's slots, reported or declared, and from calls that it refused meanwhile.
    Without them, from the times: TTFT is over twice that of one lane, and fewer answers were ever
    generated at once than lanes asked.
    """
    model, phase = key
    lanes = _phase_plan(run.manifest, phase)[0]
    own_lanes = _own_lanes(run.manifest, model, phase, lanes)
    slots = run.slots(model)
    if slots and slots < own_lanes:
        return True
    together = [call for (_, name), group in groups.items() if name == phase
                for call in group.ok] if phase == defs.MIXED_PHASE else groups[key].ok
    if lanes > 1 and _was_refused(groups[key].calls, together):
        return True
    if lanes == 1 or slots and phase != defs.MIXED_PHASE:
        return False
    alone_us = median_or_none(
        chunk_times_us(call)[0] for name in defs.ONE_LANE_PHASES if (model, name) in groups
        for call in groups[model, name].ok if chunk_times_us(call) and not call["cold"])
    own_us = median_or_none(
        chunk_times_us(call)[0] for call in groups[key].ok if chunk_times_us(call))
    waited = own_us is not None and (
        alone_us is None or own_us > thresholds.WAITING_RATIO * alone_us)
    return waited and len(together) > lanes and most_at_once(together) < lanes


def _was_refused(calls: Iterable[CallFinished], together: Iterable[CallFinished]) -> bool:
    """Whether a busy server refused one of the calls while it answered another one."""
    spans = [throughput.span_of(call) for call in together]
    return any(segment == call["segment"] and begin_us < attempt["started_us"] < end_us
               for call in calls for attempt in call["attempts"]
               if attempt["kind"] in ("server_busy", "rate_limited")
               for segment, begin_us, end_us in spans)


def _call_flags(call: CallFinished, counted: Optional[usage.Counts]) -> list[str]:
    """Flags of one answered call: the runner's own, and those computed from its record."""
    timing, (text, reasoning) = call["timing"], metrics.answer_texts(call)
    return [*call["flags"], *(name for name, holds in (
        ("truncated", call["truncated"]["verdict"] == "yes"),
        ("cached_prefill", metrics.is_cached(call)),
        ("suspended", _is_suspended(call)),
        ("clock_stepped", timing is not None and timing["clock_step_us"] != 0),
        ("hidden_reasoning", metrics.has_hidden_reasoning(call, counted)),
        ("reasoning_only", bool(reasoning) and not text.strip()),
        ("inline_reasoning", call["reasoning"]["mode"] == "inline"),
        ("no_finish_reason", not (call["response"] and call["response"]["finish_reason"])),
        ("not_streamed", metrics.came_at_once(call) or bool(
            text + reasoning and not chunk_times_us(call))),
    ) if holds)]


def _context_differs(endpoint: records.EndpointIdentified) -> bool:
    requested, effective = (endpoint["context"][name]
                            for name in ("requested_tokens", "effective_tokens"))
    return bool(requested and effective and effective < requested)


def _run_flags(run: _Run, events: Sequence[LedgerLine], groups: dict[Key, _Group],
               headlines: Sequence[records.Headline]) -> list[str]:
    samples = [e for e in events if e["event"] == "host_sampled"]
    drifts = [one["drift_ratio"] for one in headlines if one["drift_ratio"] is not None]
    return ordered_flags(name for name, holds in (
        ("busy_host", any(group.hindered or "busy_host" in group.left_out
                          for group in groups.values())),
        ("drifting", any(not 1 / (1 + thresholds.DRIFT_RATIO) <= ratio <= 1 + thresholds.DRIFT_RATIO
                         for ratio in drifts)),
        ("throttled", _throttled(samples)),
        ("on_battery", any(s["power_source"] == "battery" for s in samples)),
        ("context_differs", any(map(_context_differs, run.endpoints.values()))),
        ("cached_prefill", run.cached),
        ("usage_implausible", any(run.distrusted.values()) or any(run.bad_prompts.values())),
        ("not_calibrated", not (run.calibration and run.calibration["lanes"])),
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
        "reason": found.get("reason"), "stamps": stamps,
        "read_lag_us": {"p50": round_sig(metrics.median(lag["p50"] for lag in lags)),
                        "p99": round_sig(metrics.median(lag["p99"] for lag in lags)),
                        "max": max(lag["max"] for lag in lags), "n": len(lags)} if lags else None}
