"""Turn the read times of one response into the `timing` fields of its ledger line."""
from __future__ import annotations

import math
import time
from collections.abc import Sequence
from itertools import groupby
from typing import NamedTuple, Optional, cast

from core import records
from run.sse import StreamParser

# A wall clock that moved by more makes kernel stamps useless. On Windows with Python 3.9 to 3.12,
# it moves in steps of 16 ms.
CLOCK_STEP_NS = max(1_000_000, int(2e9 * time.get_clock_info("time").resolution))

# Why a call has no time to first token.
NOT_STREAMED, NO_TEXT, NOTHING_ARRIVED = NULL_REASONS = (
    "the server sent one JSON body instead of a stream", "the answer has no text",
    "no text arrived")


class Arrivals(NamedTuple):
    """When one response arrived: nanoseconds of the monotonic clock.

    kernel_ns is on the wall clock, 0 if the kernel gave no stamp. header_reads: number of reads
    until the header was complete.
    """

    started_ns: int
    user_ns: Sequence[int]
    kernel_ns: Sequence[int]
    header_reads: int
    bytes_received: int


class Stamps(NamedTuple):
    """When each read arrived, by the better of two clocks ("kernel" or "user").

    us: since the request was handed to the socket, ascending; lag_us: how long after the kernel we
    read each piece of the body; step_us: by how much the wall clock was set during the call.
    """

    us: list[int]
    kind: str
    lag_us: list[int]
    step_us: int


def call_timing(stream: StreamParser, arrivals: Optional[Arrivals], offset_before_ns: int,
                offset_after_ns: int, zero_ns: int,
                heartbeat_gap_us: Optional[int]) -> Optional[records.Timing]:
    """Return the `timing` of a ledger line, None if no request was sent.

    The offsets are wall clock minus monotonic clock, before and after the call; zero_ns: the start
    of the segment.
    """
    if arrivals is None:
        return None
    stamps = stamps_of(arrivals, offset_before_ns, offset_after_ns)
    return cast(records.Timing, {
        "started_us": (arrivals.started_ns - zero_ns) // 1000,
        "done_us": stamps.us[-1] if stamps.us else None, **chunk_timing(stream, stamps.us),
        "bytes_received": arrivals.bytes_received, "stamp": stamps.kind,
        "read_lag_us": spread(stamps.lag_us), "clock_step_us": stamps.step_us,
        "heartbeat_gap_us": heartbeat_gap_us})


def stamps_of(arrivals: Arrivals, offset_before_ns: int, offset_after_ns: int) -> Stamps:
    """Return the kernel's stamps if every read has one and the wall clock was not set, else ours.

    A kernel stamp later than its read means that the offset is wrong; up to 1 ms is the error of
    the offset itself and counts as a lag of 0.
    """
    step_ns = offset_after_ns - offset_before_ns
    lags_ns = [user - (kernel - offset_before_ns) for user, kernel in
               zip(arrivals.user_ns, arrivals.kernel_ns)]
    kernel = (bool(lags_ns) and all(arrivals.kernel_ns) and abs(step_ns) < CLOCK_STEP_NS
              and min(lags_ns) > -CLOCK_STEP_NS)
    us, latest = [], 0
    for user, lag in zip(arrivals.user_ns, lags_ns):
        at_ns = user - (max(lag, 0) if kernel else 0) - arrivals.started_ns
        latest = max(latest, at_ns // 1000)
        us.append(latest)
    body_lags = [max(lag, 0) // 1000 for lag in lags_ns[max(arrivals.header_reads - 1, 0):]]
    return Stamps(us, "kernel" if kernel else "user", body_lags if kernel else [],
                  step_ns // 1000 if abs(step_ns) >= CLOCK_STEP_NS else 0)


def chunk_timing(stream: StreamParser, us_of_read: Sequence[int]) -> records.ChunkTiming:
    """Return the fields of `timing` about chunks of text, in µs since the request was sent.

    us_of_read: the stamp of each read; a read without one has the last stamp.
    """
    last = len(us_of_read) - 1
    reads = stream.reads if stream.streamed and last >= 0 else []
    at_us = [us_of_read[min(read, last)] for read in reads]
    answer_us = [us for us, kind in zip(at_us, stream.kinds) if kind == "a"]
    # "rra" is written "r2a1"; nearly always all chunks are answer, which is written null.
    runs = [f"{kind}{len(list(run))}" for kind, run in groupby(stream.kinds)] if at_us else []
    shared, first = [], 0                  # [index of the first chunk, chunks] of a shared read
    for _, run in groupby(reads):
        count = len(list(run))
        if count > 1:
            shared.append([first, count])
        first += count
    reason = None if at_us else (
        NOT_STREAMED if not stream.streamed and stream.error is None
        else NO_TEXT if stream.finish_reason else NOTHING_ARRIVED)
    return {"first_token_us": at_us[0] if at_us else None,
            "first_answer_us": answer_us[0] if answer_us else None,
            "last_token_us": at_us[-1] if at_us else None,
            "chunk_us": at_us[:1] + [after - before for before, after in zip(at_us, at_us[1:])],
            "chunk_kinds": "".join(runs) if "r" in stream.kinds and runs else None,
            "reads": shared, "ttft_null_reason": reason}


def percentile(ordered: Sequence[int], share: float) -> int:
    """Return the nearest-rank percentile of an ascending, non-empty sequence."""
    return ordered[min(len(ordered) - 1, max(0, math.ceil(share * len(ordered)) - 1))]


def coarse(value: int) -> int:
    """Round what is measured once to steps of 10 and two significant digits, at least 10."""
    step = max(int(10 ** (len(str(value)) - 2)), 10)
    return max((value + step // 2) // step * step, 10)


def spread(values: Sequence[int]) -> Optional[records.Spread]:
    """Return p50, p99 and max of integer values, rounded; None without values."""
    if not values:
        return None
    ordered = sorted(values)
    return {"p50": coarse(percentile(ordered, 0.5)), "p99": coarse(percentile(ordered, 0.99)),
            "max": coarse(ordered[-1])}
