"""Levels of ramp and depth: how many calls each has, and when the curve ends.

The runner decides by these functions, and the check decides again, so this file is pinned with what
measures. Published numbers come from core/curves.

A curve ends early for one of these reasons (`kind`):

    flat      two levels in a row did not raise the best throughput by 5 %
    queued    calls waited for each other
    context   the next depth does not fit the context, or the server truncated the prompt
    timeout   the time of a call was up
    memory    the machine has hardly any free memory left, or swaps
    failed    at least half of a level's calls failed, or the server is gone
"""
from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate
from math import fsum
from typing import Any, NamedTuple, Optional

from core import usage
from core.records import CallFinished

RAMP_LANES = 16
ANSWERS_PER_LANE, MIN_CALLS = 3, 6    # of a level; a median has an interval from 6 values on
FLAT_RATIO, FLAT_LEVELS = 1.05, 2     # growth below which throughput is flat; so many in a row
WAITING_RATIO = 2.0                   # of a quarter of the TTFTs to the median at the first level
GONE_AFTER = 3                        # calls in a row that found no server

DEPTHS_TOKENS = (1024, 4096)          # then doubled
DEEPEST_TOKENS = 32_768               # without --num-ctx
ROOM_TOKENS = 512                     # both answers of a level, its second question, the template
SWAPPED_BYTES = FREE_BYTES = 256 << 20


class End(NamedTuple):
    """Where and why a curve ends: at this level, and calls from there on are not asked."""

    level: int
    kind: str
    reason: str


# --- plan ----------------------------------------------------------------------------------------
def ramp_levels(lanes: int) -> list[int]:
    """1, 2, 4, 8 ... lanes, at least up to 16, and `lanes` itself if it is more."""
    most = max(lanes, RAMP_LANES)
    return [1 << power for power in range(9) if 1 << power < most] + [most]


def depth_levels(context_tokens: int) -> list[int]:
    """1024, 4096, 8192 ... tokens of context, as far as they fit; at least the first."""
    found = [DEPTHS_TOKENS[0]]
    depth = DEPTHS_TOKENS[1]
    while depth + ROOM_TOKENS <= context_tokens:
        found.append(depth)
        depth *= 2
    return found


def calls_count(lanes: int) -> int:
    """Calls of one level of ramp."""
    return max(ANSWERS_PER_LANE * lanes, MIN_CALLS)


# --- throughput while all lanes are busy ---------------------------------------------------------
Span = tuple[int, int, int]              # segment, begin and end in µs of its clock


def busy_spans(calls: Iterable[CallFinished], lanes: int) -> list[Span]:
    """When every lane was busy, in each segment: from the first request until the first lane has
    nothing left to ask."""
    begins: dict[int, dict[int, int]] = {}
    ends: dict[int, dict[int, int]] = {}
    for call in calls:
        timing, lane = call["timing"], call["lane"]
        if timing is not None and timing["done_us"] is not None:
            end_us = timing["started_us"] + timing["done_us"]
            begun, ended = (one.setdefault(call["segment"], {}) for one in (begins, ends))
            begun[lane] = min(begun.get(lane, end_us), timing["started_us"])
            ended[lane] = max(ended.get(lane, 0), end_us)
    spans = [(segment, min(begins[segment].values()), min(ended.values()))
             for segment, ended in sorted(ends.items()) if len(ended) == lanes]
    return [span for span in spans if span[1] < span[2]]


def tokens_within(calls: Iterable[CallFinished], spans: Sequence[Span]) -> float:
    """Output tokens that arrived within the spans; a call's tokens are spread over its chunks."""
    found = []
    for call in calls:
        timing = call["timing"]
        if timing is None or not timing["chunk_us"]:
            continue
        times = list(accumulate(timing["chunk_us"], initial=timing["started_us"]))
        arrived = sum(bisect_right(times, end, 1) - bisect_right(times, begin, 1)
                      for segment, begin, end in spans if segment == call["segment"])
        tokens = usage.counts(call["response"]).completion
        found.append(arrived * (tokens / len(timing["chunk_us"]) if tokens else 1.0))
    return fsum(found)


def throughput(calls: Sequence[CallFinished], lanes: int) -> Optional[float]:
    """Output tokens per second of all lanes while all were busy; None if they never were."""
    spans = busy_spans(calls, lanes)
    tokens, busy_us = tokens_within(calls, spans), sum(end - begin for _, begin, end in spans)
    return tokens * 1e6 / busy_us if tokens else None


def most_at_once(calls: Iterable[CallFinished]) -> int:
    """How many answers were generated at the same time, at most."""
    steps: list[tuple[int, int, int]] = []
    for call in calls:
        timing = call["timing"]
        if timing and timing["first_token_us"] is not None and timing["last_token_us"] is not None:
            begin_us = timing["started_us"] + timing["first_token_us"]
            end_us = timing["started_us"] + timing["last_token_us"]
            steps += [(call["segment"], begin_us, 1), (call["segment"], end_us, -1)]
    return max(accumulate((step for _, _, step in sorted(steps)), initial=0))


# --- the end of a curve --------------------------------------------------------------------------
def ramp_end(made: Sequence[tuple[int, Sequence[CallFinished]]]) -> Optional[End]:
    """Whether ramp ends with the last of these levels. made: lanes and calls of each so far."""
    lanes, now = made[-1]
    failed = Counter(call["outcome"] for call in now if call["outcome"] != "ok")
    count = sum(failed.values())
    gone = len(now) >= GONE_AFTER and all(
        call["outcome"] in ("connect_failed", "connection_lost") for call in now[-GONE_AFTER:])
    if gone or 2 * count >= len(now):
        outcome = min(failed, key=lambda name: (-failed[name], name))
        return End(lanes, "failed", f"{count} of {len(now)} calls failed at {lanes} lanes, mostly "
                   f"with {outcome}")
    rates = [throughput(calls, level) for level, calls in made]
    raised = [not rate or rate >= FLAT_RATIO * max(filter(None, rates[:at]), default=0.0)
              for at, rate in enumerate(rates)]
    if not any(raised[-FLAT_LEVELS:]):
        return End(lanes, "flat", "tokens/s by lanes: " + ", ".join(
            f"{rate:.4g} ({level})" for (level, _), rate in zip(made, rates) if rate))
    if len(made) > 1 and len(now) > lanes > most_at_once(now) \
            and _ttft_us(now, 3) > WAITING_RATIO * _ttft_us(made[0][1], 2):
        return End(lanes, "queued", f"calls wait for each other: {most_at_once(now)} of {lanes} "
                   "were answered at once")
    return None


def _ttft_us(calls: Iterable[CallFinished], quarter: int) -> int:
    """A quartile of the times to first token; 0 without any."""
    marks = sorted(call["timing"]["first_token_us"] or 0 for call in calls if call["timing"])
    return marks[len(marks) * quarter // 4] if marks else 0


def context_end(depth: int, effective_tokens: Optional[int]) -> Optional[End]:
    """Whether a depth does not fit the context in force, which may be unknown."""
    needed = depth + ROOM_TOKENS
    if not effective_tokens or needed <= effective_tokens:
        return None
    return End(depth, "context", f"the context in force is {effective_tokens} tokens; {needed} are "
               f"needed for a depth of {depth}")


def depth_end(calls: Iterable[CallFinished], depth: int) -> Optional[End]:
    """Whether depth ends with these calls of a level."""
    kinds = {"timeout": "timeout", "context_limit": "context"}
    for call in calls:
        if call["outcome"] != "ok":
            return End(depth, kinds.get(call["outcome"], "failed"),
                       f"the call at {depth} tokens failed: {call['outcome']}")
        if call["truncated"]["verdict"] == "yes":
            return End(depth, "context", f"the server truncated the prompt of {depth} tokens")
    return None


def memory_end(level: int, first: Mapping[str, Any], latest: Mapping[str, Any]) -> Optional[End]:
    """Whether the machine is short of memory, by the first and the latest sample of a segment."""
    free, swapped = latest["memory_available_bytes"], latest["swap_used_bytes"]
    if free is not None and free < FREE_BYTES:
        return End(level, "memory", f"{free / 2 ** 20:.0f} MiB of memory are free")
    grown = (swapped or 0) - (first["swap_used_bytes"] or 0)
    if grown > SWAPPED_BYTES:
        return End(level, "memory", f"the machine swaps: {grown / 2 ** 20:.0f} MiB more since the "
                   "start")
    return None
