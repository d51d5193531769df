"""Compute the throughput of parallel lanes, and which calls other programs disturbed."""
from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Optional

from core import thresholds
from core.metrics import Number, Result, chunk_times_us
from core.records import CallFinished, LedgerLine

Span = tuple[int, int, int]                  # segment, begin and end in µs


class HostLoad:
    """How much of the busy CPUs other programs and virtual machines took, by segment and time."""

    def __init__(self, events: Sequence[LedgerLine]) -> None:
        self._ends_us: dict[int, list[int]] = {}
        self._shares: dict[int, list[float]] = {}
        for event in events:
            if event["event"] != "host_sampled":
                continue
            ends_us = self._ends_us.setdefault(event["segment"], [])
            shares = self._shares.setdefault(event["segment"], [])
            busy, stolen = event["cpu_busy_ratio"], event.get("cpu_steal_ratio") or 0.0
            others = event["other_cpu_busy_ratio"]
            share = None if busy is None or others is None else \
                0.0 if busy + stolen < thresholds.FULL_CPU_RATIO else \
                (others + stolen) / (busy + stolen)
            if share is not None or not ends_us:     # else the next sample covers its time, too
                ends_us.append(event["t_us"])
                shares.append(share or 0.0)

    def is_disturbed(self, segment: int, begin_us: int, end_us: int) -> bool:
        """Whether others took more than OTHER_CPU_SHARE of the busy CPUs in that time, on average.

        While some CPUs are idle, others take nothing. False if nothing is known of that time.
        """
        ends_us, shares = self._ends_us.get(segment, []), self._shares.get(segment, [])
        taken, known_us = 0.0, 0
        for at in range(bisect_right(ends_us, begin_us), len(ends_us)):
            since_us = ends_us[at - 1] if at else 0
            if since_us >= end_us:
                break
            within_us = min(ends_us[at], end_us) - max(since_us, begin_us)
            taken += shares[at] * within_us
            known_us += within_us
        return taken > thresholds.OTHER_CPU_SHARE * known_us


def span_of(call: CallFinished) -> Span:
    """When a call was made; one without an end mark ends with its line."""
    timing = call["timing"]
    if not timing:
        return call["segment"], call["t_us"], call["t_us"]
    end_us = call["t_us"] if timing["done_us"] is None else \
        timing["started_us"] + timing["done_us"]
    return call["segment"], timing["started_us"], end_us


def busy_window(calls: Sequence[CallFinished], load: HostLoad, is_suspended: Callable[
        [CallFinished], bool]) -> tuple[Optional[Span], Optional[str]]:
    """From a phase's first request until the first lane has nothing left to ask, or why there is
    no such time. calls: of all models.
    """
    timed = [call for call in calls if call["timing"]]
    spans = [span_of(call) for call in timed]
    if not spans:
        return None, "no request was sent"
    if len({segment for segment, _, _ in spans}) > 1:
        return None, "the run was resumed during the phase"
    ends_us: dict[int, int] = {}
    for call, (_, _, end_us) in zip(timed, spans):
        ends_us[call["lane"]] = max(end_us, ends_us.get(call["lane"], 0))
    segment, begin_us = min((segment, begin_us) for segment, begin_us, _ in spans)
    end_us = min(ends_us.values())
    if end_us <= begin_us:
        return None, "the duration is zero"
    if any(is_suspended(call) for call, span in zip(timed, spans) if span[1] < end_us):
        return None, "the machine slept during the phase"
    if load.is_disturbed(segment, begin_us, end_us):
        return None, "other programs used the processors during the phase"
    return (segment, begin_us, end_us), None


def rate(calls: Sequence[CallFinished], tokens: Sequence[Optional[Number]],
         window: Optional[Span], why: Optional[str]) -> Result:
    """Tokens per second of these answers within the window. tokens: of each whole answer; each of
    its chunks counts as the average one.
    """
    if window is None or not calls:
        return None, why or "no answer"
    if None in tokens:
        return None, "an answer's tokens are unknown"
    _, begin_us, end_us = window
    arrived = 0.0
    for call, count in zip(calls, tokens):
        chunk_us = chunk_times_us(call)
        if not chunk_us:
            return None, "an answer was not streamed"
        left_us = end_us - span_of(call)[1]
        within = bisect_right(list(accumulate(chunk_us)), left_us)
        arrived += (count or 0) * within / len(chunk_us)
    return (arrived * 1e6 / (end_us - begin_us), None) if arrived else (None, "no text arrived")


def lanes_beside(own: Sequence[Span], others: Sequence[Span]) -> Optional[float]:
    """Mean number of the others that ran while one of these calls did, weighted by its time."""
    total_us = sum(end - begin for _, begin, end in own)
    beside_us = sum(max(0, min(end, other_end) - max(begin, other_begin))
                    for segment, begin, end in own
                    for other_segment, other_begin, other_end in others
                    if segment == other_segment)
    return beside_us / total_us if total_us else None
