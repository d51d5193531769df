"""Turn read times into the timing fields of a call."""
from __future__ import annotations

import math
from typing import Any, NamedTuple, Optional, Sequence

from run import sse
from run.reply import Arrivals, Reply

Json = dict[str, Any]



def runs_of(kinds: Sequence[str]) -> Optional[str]:
    """"rra" -> "r2a1"; None where every chunk is answer, as almost always."""
    if "r" not in kinds:
        return None
    out, start = [], 0
    for i in range(1, len(kinds) + 1):
        if i == len(kinds) or kinds[i] != kinds[start]:
            out.append(f"{kinds[start]}{i - start}")
            start = i
    return "".join(out)


def shared_reads(reads: Sequence[int]) -> list[list[int]]:
    """[[index of the first chunk, chunks]] of every read that brought more than one chunk."""
    out: list[list[int]] = []
    start = 0
    for i in range(1, len(reads) + 1):
        if i == len(reads) or reads[i] != reads[start]:
            if i - start > 1:
                out.append([start, i - start])
            start = i
    return out


def percentile(ordered: Sequence[int], share: float) -> int:
    """Nearest-rank percentile of an ascending, non-empty sequence."""
    return ordered[min(len(ordered) - 1, max(0, math.ceil(share * len(ordered)) - 1))]


def spread(values: Sequence[int]) -> Optional[dict[str, int]]:
    """p50, p99, max and n of integer values; None of nothing."""
    if not values:
        return None
    ordered = sorted(values)
    return {"p50": percentile(ordered, 0.5), "p99": percentile(ordered, 0.99),
            "max": ordered[-1], "n": len(ordered)}


def chunk_timing(stream: sse.StreamParser, us_of_read: Sequence[int]) -> dict[str, Any]:
    """The text marks of a call, in µs since its request was handed to the socket.

    us_of_read: the stamp of each read of the body; a read without one has the last. Returns
    first_token_us, first_answer_us, last_token_us, chunk_us, chunk_kinds, reads, ttft_null_reason.
    """
    last = len(us_of_read) - 1
    reads = stream.reads if stream.streamed and last >= 0 else []
    marks = [us_of_read[min(read, last)] for read in reads]
    answers = [m for m, kind in zip(marks, stream.kinds) if kind == "a"]
    reason = None if marks else (
        "the server sent one JSON body instead of a stream"
        if not stream.streamed and stream.error is None
        else "the answer has no text" if stream.finish_reason else "no text arrived")
    return {
        "first_token_us": marks[0] if marks else None,
        "first_answer_us": answers[0] if answers else None,
        "last_token_us": marks[-1] if marks else None,
        "chunk_us": marks[:1] + [b - a for a, b in zip(marks, marks[1:])],
        "chunk_kinds": runs_of(stream.kinds) if marks else None,
        "reads": shared_reads(reads),
        "ttft_null_reason": reason,
    }

CLOCK_STEP_NS = 1_000_000     # a wall clock that moved by more makes kernel stamps useless


class Stamps(NamedTuple):
    """When each read arrived, by the better of two clocks.

    us: since the request was handed over, never going back; lag_us: how late the reads of the body
    were behind the kernel; step_us: by how much the wall clock was set meanwhile.
    """

    us: list[int]
    kind: str
    lag_us: list[int]
    step_us: int


# --- stamps and marks ----------------------------------------------------------------------------
def stamps_of(arrivals: Arrivals, offset_before_ns: int, offset_after_ns: int) -> Stamps:
    """The kernel's stamps where every read has one and the wall clock stood still, else ours.

    The offsets are wall clock minus monotonic clock, read before and after the call. A kernel stamp
    later than the read it belongs to would mean a wrong offset; up to 1 ms of it is the offset's
    own error and counts as a lag of 0.
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


def call_timing(reply: Reply, offset_before_ns: int, offset_after_ns: int, zero_ns: int,
              heartbeat_gap_us: Optional[int]) -> Optional[Json]:
    """The `timing` of a ledger line; None where no request left. zero_ns: the segment's zero."""
    arrivals = reply.arrivals
    if arrivals is None:
        return None
    stamps = stamps_of(arrivals, offset_before_ns, offset_after_ns)
    us, headers = stamps.us, arrivals.header_reads
    body_us = us[headers - arrivals.body_in_header:] if headers else []
    text = chunk_timing(reply.stream, us)
    # A thread that lost its CPU in the sending notes its end late: after the kernel's stamps even.
    sent_us = max(arrivals.sent_ns - arrivals.started_ns, 0) // 1000
    return {"started_us": (arrivals.started_ns - zero_ns) // 1000,
            "connect_us": arrivals.connect_us,
            "sent_us": sent_us if not headers else min(sent_us, us[headers - 1]),
            "headers_us": us[headers - 1] if headers else None,
            "first_chunk_us": body_us[0] if body_us else None,
            **{name: text[name] for name in ("first_token_us", "first_answer_us", "last_token_us")},
            "done_us": us[-1] if us else None,
            **{name: text[name] for name in ("chunk_us", "chunk_kinds", "reads",
                                             "ttft_null_reason")},
            "bytes_received": arrivals.bytes_received, "stamp": stamps.kind,
            "read_lag_us": spread(stamps.lag_us), "clock_step_us": stamps.step_us,
            "heartbeat_gap_us": heartbeat_gap_us}
