"""Account for the time of a run: a lane asks its next question as soon as it has an answer.

An edit that makes calls faster in place leaves time that nothing explains. So do lines that were
deleted: the runner samples the machine every five seconds, and its heartbeat has a fixed period.
What this runner cannot have written is an error; a pause, as of a machine that slept, is a warning.
"""
from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, Optional

from check import calls
from check.ledger_order import WITHIN_GROUPS as WITHIN
from core import metrics
from core.metric_definitions import ONE_LANE_PHASES
from core.records import LedgerLine, Manifest, Metadata
from core.thresholds import SUSPENDED_US

Problems = Iterator[tuple[str, str, int]]          # code, what, line

# Merged runs leave 0.03 % of a lane's time unexplained, and 31 ms at most between two calls. On a
# machine at load 30 a typical call had 270 ms.
IDLE_RATIO, IDLE_US = 0.05, 2_000_000     # of a phase: a warning
PAUSES_RATIO, PAUSE_US = 0.1, 1_000_000   # if the typical call has such a pause: an error
OPEN_US = 4_900_000, 7_000_000            # END_GRACE_S of the runner, at least and at most
FEW_CALLS = 3                             # fewer have no typical one: a busy machine pauses once
BETWEEN_US = 60_000_000                   # between two phases: loading a model is part of a call
SAMPLE_GAP_US = 8_500_000                 # 1.7 times the time between two samples
LEAST_TYPICAL_US = 4_950_000              # honest runs have 5.0015 s and more
HEARTBEAT_US, LATE_US = 100_000, 150_000  # the period, and the first gap that counts as late
SPEED_RATIO, SAME_PHASE_RATIO = 1.5, 1.25       # between the first segment and another one
LOST_RATIO, LOST_US, MIN_LOST = 1.2, 1_000_000, 3
PROBE_US, PROBE_STEPS = 15_000_000, 64    # twice the tokens of both; streams may be left open
PREFILL_RATIO = 4                         # between two phases
FORESEEN, MIN_FORESEEN, MIN_CHUNKS = 0.8, 12, 16     # merged runs have correlations up to 0.3


def problems(manifest: Manifest, events: Sequence[LedgerLine], metadata: Metadata) -> Problems:
    """(code, what, line) of time that is not accounted for."""
    yield from _phases(events)
    if not manifest["smoke"]:
        yield from _samples(events)
    yield from _heartbeats(events)
    yield from _broken_off(events)
    yield from _probes(events)
    for model in manifest["models"]:
        yield from _segments(model, events)
        yield from _foreseen(model, events)
        rates = [cell["metrics"]["prefill_tokens_per_s"]["median"] for cell in metadata["cells"]
                 if cell["model"] == model and cell["lanes"] == 1]
        known = [rate for rate in rates if rate]
        if known and max(known) > PREFILL_RATIO * min(known):
            yield "server-counts-contradict", f"{model!a}: prefill is {min(known):g} tokens/s in " \
                f"one phase and {max(known):g} in another", 0


# --- lanes ---------------------------------------------------------------------------------------
def _phases(events: Sequence[LedgerLine]) -> Problems:
    """Each phase's lanes, from its start to its end."""
    group: list[Any] = []
    before_us = 0
    for line, event in enumerate(events, 1):
        if event["event"] == "call_finished":
            if group and group[-1].get("level") != event.get("level"):
                # Lanes wait for each other between two levels of ramp.
                ended_us = max(call["t_us"] for call in group)
                yield from _phase(event["phase"], before_us, ended_us, group, line)
                group, before_us = [], ended_us
            group.append(event)
        elif event["event"] == "phase_finished":
            yield from _phase(event["phase"], max(event["started_us"], before_us),
                              event["started_us"] + event["wall_us"], group, line)
            if event["started_us"] - before_us > BETWEEN_US:
                yield "time-unexplained", f"{(event['started_us'] - before_us) / 1e6:.0f} s " \
                    f"passed before {event['phase']}", line
        elif event["event"] not in WITHIN and group:         # the process was stopped
            yield from _phase(group[0]["phase"], before_us, 0, group, line)
        if event["event"] not in WITHIN:
            group, before_us = [], event["t_us"]


def _phase(name: str, begun_us: int, end_us: int, group: Sequence[Any], line: int) -> Problems:
    lanes_us: dict[int, int] = {}            # lane -> when it was free
    pauses_us, busy_us, waited_us = list[int](), list[int](), 0
    for call in group:
        span = calls.span_us(call)
        if span is None:                     # a turn beyond the context: not asked
            lanes_us[call["lane"]] = call["t_us"]
            continue
        free_us = lanes_us.get(call["lane"], begun_us)
        busy_us.append(_busy_us(call, span))
        waited_us += (call["timing"]["started_us"] - span[0] if call["timing"] else
                      span[1] - span[0]) if call["attempts"] else 0
        pauses_us.append(max(span[1] - free_us - busy_us[-1], 0))
        lanes_us[call["lane"]] = span[1]
    if not busy_us:
        return
    idle_us = sum(pauses_us) + max(end_us - max(lanes_us.values()), 0)
    total_us = idle_us + sum(busy_us)
    typical_us = metrics.median(pauses_us)
    if len(pauses_us) >= FEW_CALLS and typical_us > PAUSE_US \
            and sum(pauses_us) - waited_us > PAUSES_RATIO * total_us:
        yield "ledger-altered", f"{name}: {typical_us / 1e6:.2f} s pass around the " \
            "typical call, in which its lane does nothing; the runner makes no pauses", line
    elif idle_us > max(IDLE_RATIO * total_us, IDLE_US):
        yield "time-unexplained", f"{name}: no call explains {idle_us / 1e6:.1f} of " \
            f"{total_us / 1e6:.1f} s, {waited_us / 1e6:.1f} s of which were repeated attempts", line


def _busy_us(call: Any, span: tuple[int, int]) -> int:
    """Time in which the server answered: not connecting, not after the last text."""
    timing = call["timing"]
    if timing is None:
        return 0
    if call["outcome"] != "ok":                                      # waited for an end, too
        return int(span[1] - timing["started_us"])
    if "left_open" in call["flags"]:
        ended_us = timing["last_token_us"] or 0
        waited_us = span[1] - timing["started_us"] - ended_us
        return int(ended_us + (min(waited_us, OPEN_US[1]) if waited_us > OPEN_US[0] else 0))
    end_us = timing["done_us"] if timing["last_token_us"] is None else timing["last_token_us"]
    return max(min(end_us or 0, span[1] - span[0]), 0)


# --- cadence -------------------------------------------------------------------------------------
def _samples(events: Sequence[LedgerLine]) -> Problems:
    """Samples of the host, from the calibration to the end of each segment."""
    since_us: Optional[int] = None
    found: list[tuple[int, int]] = []        # gap, line
    for line, event in enumerate(events, 1):
        if event["event"] == "instrument_calibrated":
            since_us = event["t_us"]
            continue
        is_end = line == len(events) or events[line]["event"] == "run_resumed"
        if since_us is not None and (event["event"] == "host_sampled" or is_end):
            found.append((event["t_us"] - since_us, line))
            since_us = None if is_end else event["t_us"]
        if event["event"] == "run_finished" and events[line - 2]["event"] != "host_sampled":
            yield "ledger-altered", "no sample of the host before it", line
    times: dict[int, list[int]] = {}
    for event in events:
        if event["event"] == "host_sampled":
            times.setdefault(event["segment"], []).append(event["t_us"])
    between_us = [after - before for own in times.values()       # the last one comes at the end
                  for before, after in zip(own, own[1:-1])]
    typical_us = metrics.median_or_none(between_us)
    if len(between_us) > FEW_CALLS and typical_us and typical_us < LEAST_TYPICAL_US:
        yield "ledger-altered", f"samples of the host are {typical_us / 1e6:.2f} s apart; the " \
            "runner waits 5 s between two", 0
    gaps = [(gap_us, line) for gap_us, line in found if gap_us > SAMPLE_GAP_US]
    if gaps:
        longest_us, line = max(gaps)
        yield "time-unexplained", f"no sample of the host for {longest_us / 1e6:.1f} s; in " \
            f"{len(gaps)} places there are more than {SAMPLE_GAP_US / 1e6} s between two", line


def _heartbeats(events: Sequence[LedgerLine]) -> Problems:
    for line, event in enumerate(events, 1):
        if event["event"] == "call_finished" and event["timing"]:
            gap_us = event["timing"]["heartbeat_gap_us"]
            if gap_us is None or gap_us != HEARTBEAT_US and gap_us < LATE_US:
                yield "ledger-altered", f"timing.heartbeat_gap_us is {gap_us}; it is " \
                    f"{HEARTBEAT_US}, or at least {LATE_US}", line
            elif gap_us > SUSPENDED_US and _longest_wait_us(event) < gap_us / 2:
                yield "time-unexplained", f"timing.heartbeat_gap_us is {gap_us}, yet no chunk, " \
                    "read or end came late", line


def _longest_wait_us(call: Any) -> int:
    """The longest time in which a call saw nothing."""
    timing = call["timing"]
    after_us = call["t_us"] - timing["started_us"] - (timing["last_token_us"] or 0)
    return int(max(*timing["chunk_us"], (timing["read_lag_us"] or {"max": 0})["max"], after_us, 0))


# --- speed ---------------------------------------------------------------------------------------
def _segments(model: str, events: Sequence[LedgerLine]) -> Problems:
    """Decode rates of resumed segments against those of the first."""
    rates: dict[str, dict[int, list[float]]] = {}        # phase, or "" for all -> segment -> rates
    for event in events:
        if event["event"] == "call_finished" and event["model"] == model \
                and event["phase"] in ONE_LANE_PHASES and event["outcome"] == "ok":
            rate = metrics.decode_rate(event)
            if rate:
                for phase in (event["phase"], ""):
                    rates.setdefault(phase, {}).setdefault(event["segment"], []).append(rate)
    for phase, by_segment in rates.items():
        medians = {segment: metrics.median(found) for segment, found in by_segment.items()
                   if len(found) >= 2}
        ratio = SAME_PHASE_RATIO if phase else SPEED_RATIO
        for segment, median in list(medians.items())[1:]:
            first = next(iter(medians.values()))
            if not 1 / ratio < median / first < ratio:
                yield "server-changed", f"{model!a}: {median:.4g} tokens/s in segment " \
                    f"{segment}, {first:.4g} in the first" + f" ({phase})" * bool(phase), 0


def _broken_off(events: Sequence[LedgerLine]) -> Problems:
    """Calls that were in flight when the run was stopped, against those that a resume made in their
    place: someone who does not like a call can stop the run until it is faster."""
    begun_us = ended_us = lost_us = -1        # -1: no such call was or is in flight
    stops = longer = 0
    for event in events:
        if event["event"] == "run_resumed":
            lost_us, begun_us = ended_us - begun_us if begun_us >= 0 else -1, -1
        elif event["event"] == "call_finished" and event["phase"] != "hello":
            is_alone, span = event["phase"] in ONE_LANE_PHASES, calls.span_us(event)
            if is_alone and lost_us >= 0 and span:
                stops += 1
                longer += lost_us > LOST_RATIO * (span[1] - span[0]) + LOST_US
            begun_us, lost_us = event["t_us"] if is_alone else -1, -1
        elif event["event"] not in (*WITHIN, "run_interrupted"):
            # The next line may be that of a call, unless a model has yet to be greeted.
            begun_us = event["t_us"] if event["event"] == "phase_finished" \
                or event["event"] == "endpoint_identified" and begun_us >= 0 else -1
        ended_us = event["t_us"]
    if longer >= MIN_LOST and longer > stops / 2:
        yield "time-unexplained", f"{longer} of {stops} calls during which the run was stopped " \
            "had taken longer by then than when they were made again", 0


def _probes(events: Sequence[LedgerLine]) -> Problems:
    """The time of both probes of the cache, against that of their few tokens."""
    before_us, steps_us = 0, dict[str, list[float]]()
    for line, event in enumerate(events, 1):
        if event["event"] == "call_finished" and len(metrics.chunk_times_us(event)) > 1:
            steps_us.setdefault(event["model"], []).append(
                metrics.window_us(event) / (len(metrics.chunk_times_us(event)) - 1))
        if event["event"] == "cache_probed" and event["model"] in steps_us:
            first_us = [probe["first_token_us"] or 0 for probe in event["probes"]]
            left_us = event["t_us"] - before_us - sum(first_us)
            most_us = PROBE_US + PROBE_STEPS * metrics.median(steps_us[event["model"]])
            if first_us and all(first_us) and left_us > most_us:
                yield "time-unexplained", f"{left_us / 1e6:.1f} s passed around the first tokens " \
                    "of the cache's probes", line
        if event["event"] not in WITHIN:
            before_us = event["t_us"]


def _foreseen(model: str, events: Sequence[LedgerLine]) -> Problems:
    """No server knows the length of an answer before its first token: time of later tokens that was
    moved there shows in a correlation of both."""
    calls: list[Any] = [
        event for event in events if event["event"] == "call_finished" and event["model"] == model
        and event["phase"] in ONE_LANE_PHASES and event["outcome"] == "ok" and not event["cold"]
        and event["timing"] and len(event["timing"]["chunk_us"]) >= MIN_CHUNKS
        and not metrics.has_hidden_reasoning(event, metrics.usable_counts(event))]
    if len(calls) < MIN_FORESEEN:
        return
    first, count = ([value - sum(values) / len(values) for value in values] for values in (
        [call["timing"]["first_token_us"] for call in calls],
        [len(call["timing"]["chunk_us"]) for call in calls]))
    spread = math.sqrt(sum(a * a for a in first) * sum(b * b for b in count))
    correlation = sum(a * b for a, b in zip(first, count)) / spread if spread else 0
    if correlation > FORESEEN:
        yield "time-unexplained", f"{model!a}: the longer an answer is, the later its first " \
            f"token comes (correlation {correlation:.2f} over {len(calls)} calls)", 0
