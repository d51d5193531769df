"""Measure the client's own error with streams whose chunks carry the time they were sent.

The embedded endpoint (reference_endpoint.py) sends them on a fixed schedule. The runner opens the
streams, stamps what arrives and passes in its clocks; this module compares the two.
"""
from __future__ import annotations

import bisect
import re
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, Optional

from core import metrics, records
from run import timing
from run.reply import Reply
from run.sse import StreamParser

SCHEDULE = {"first_token_ms": 20, "gap_ms": 1, "tokens": 700}
SATURATION_CHUNKS = 60_000
CLOCK_READINGS = 20
STREAM_TIMEOUT_S = 20.0
MODEL = "reference-swift"
SENT = re.compile(rb'"sent_ns": *(\d+)')

Send = Callable[..., Reply]            # Client.send of the runner
Clock = Callable[[], int]              # returns nanoseconds


class SentStamps:
    """The payload of a stream whose chunks carry the time they were sent (sent_ns)."""

    def __init__(self) -> None:
        self._payload = bytearray()
        self._ends: list[int] = []
        self._reads: list[int] = []

    def feed(self, payload: bytes, read: int) -> None:
        """Add the payload of one read."""
        self._payload += payload
        self._ends.append(len(self._payload))
        self._reads.append(read)

    def pairs(self) -> list[tuple[int, int]]:
        """Return (read, sent_ns) of the last chunk of each read, in order.

        A read that brought several chunks has one stamp, that of its last bytes.
        """
        last: dict[int, int] = {}
        for match in SENT.finditer(self._payload):
            last[self._reads[bisect.bisect_left(self._ends, match.end())]] = int(match[1])
        return sorted(last.items())

    def count(self) -> int:
        """Return how many chunks arrived."""
        return len(SENT.findall(self._payload))


class Stream(NamedTuple):
    """One calibration stream: the start of its request, when chunks were sent and arrived."""

    started_ns: int
    sent: SentStamps
    stamps: timing.Stamps


def calibration(reason: Optional[str], **fields: Any) -> dict[str, Any]:
    """Return the fields of `instrument_calibrated`; all null, and a reason, if nothing is known."""
    names = ("stamp", "clock_resolution_ns", "heartbeat_overshoot_us")
    return {**dict.fromkeys(names), "lanes": [], "saturation": [], **fields, "reason": reason}


def calibrate(send: Send, now_ns: Clock, wall_offset_ns: Clock, counts: Sequence[int],
              overslept_us: Callable[[int, int], Sequence[int]]) -> dict[str, Any]:
    """Return the fields of `instrument_calibrated`, measured at these numbers of lanes.

    send: of a client of the embedded endpoint; now_ns: the monotonic clock; wall_offset_ns: wall
    clock minus monotonic clock; overslept_us: by how much a heartbeat overslept between two times
    of the monotonic clock. Raises ValueError, LookupError, AttributeError or TypeError if
    the endpoint does not answer as it should.
    """
    begun_ns = now_ns()
    offset_ns = clock_offset_ns(_read_clocks(send) for _ in range(CLOCK_READINGS))
    rows = [calibration_row(_run_streams(send, wall_offset_ns, count, SCHEDULE), count, offset_ns)
            for count in counts]
    saturation = []
    for count in counts:               # chunks that come as fast as they are read
        schedule = {"first_token_ms": 0, "gap_ms": 0, "tokens": SATURATION_CHUNKS // count}
        since_ns = now_ns()
        chunks = sum(one.sent.count() for one in _run_streams(send, wall_offset_ns, count,
                                                                    schedule))
        rate = metrics.round_sig(chunks * 1e9 / (now_ns() - since_ns))
        saturation.append({"lanes": count, "chunks_per_s": rate or 0.0})
    return calibration(
        None, stamp="kernel" if {kind for kind, _ in rows} == {"kernel"} else "user",
        clock_resolution_ns=timing.coarse(clock_resolution_ns(now_ns)),
        lanes=[row for _, row in rows], saturation=saturation,
        heartbeat_overshoot_us=timing.spread(overslept_us(begun_ns, now_ns())))


def _read_clocks(send: Send) -> tuple[int, int, int]:
    """Return (our clock before the request, the endpoint's, ours after the answer) in ns."""
    reply = send("GET", "/clock", None, STREAM_TIMEOUT_S)
    if reply.arrivals is None:
        raise ValueError("the embedded endpoint does not send its clock")
    return reply.arrivals.started_ns, reply.json()["monotonic_ns"], reply.arrivals.user_ns[0]


def _run_streams(send: Send, wall_offset_ns: Clock, lanes: int,
                 schedule: dict[str, int]) -> list[Stream]:
    """Run the same scheduled stream on so many lanes at once."""
    streams: list[Stream] = []
    body = {"model": MODEL, "stream": True, "reference": schedule,
            "messages": [{"role": "user", "content": "calibration"}]}

    def run_stream() -> None:
        sent, before_ns, parser = SentStamps(), wall_offset_ns(), StreamParser()

        def sink(payload: bytes, read: int) -> None:
            sent.feed(payload, read)
            parser.feed(payload, read)         # costs what a real call costs

        reply = send("POST", "/v1/chat/completions", body, STREAM_TIMEOUT_S, sink)
        if reply.arrivals and not reply.failure:
            stamps = timing.stamps_of(reply.arrivals, before_ns, wall_offset_ns())
            streams.append(Stream(reply.arrivals.started_ns, sent, stamps))

    threads = [threading.Thread(target=run_stream, daemon=True) for _ in range(lanes)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if len(streams) < lanes:
        raise ValueError("a calibration stream broke off")
    return streams


def calibration_row(streams: Iterable[Stream], lanes: int,
                    offset_ns: int) -> tuple[str, records.Lane]:
    """Return (kind of stamps, row of `instrument_calibrated`) of one scheduled stream per lane.

    offset_ns: our clock minus that of the sender.
    """
    lags_us: list[int] = []
    kinds = set()
    for started_ns, sent, stamps in streams:
        lags_us += [max(stamps.us[read] - (sent_ns + offset_ns - started_ns) // 1000, 0)
                    for read, sent_ns in sent.pairs()]
        kinds.add(stamps.kind)
    return "kernel" if kinds == {"kernel"} else "user", {
        "lanes": lanes, "lag_us": timing.spread(lags_us)}


def clock_offset_ns(readings: Iterable[tuple[int, int, int]]) -> int:
    """Return our clock minus theirs from (before, theirs, after) in ns.

    The narrowest reading decides. If it cannot distinguish the clocks they are the same clock: the
    monotonic clocks of Linux, macOS and Windows are system-wide.
    """
    before, theirs, after = min(readings, key=lambda reading: reading[2] - reading[0])
    offset, bound = (before + after) // 2 - theirs, (after - before + 1) // 2
    return 0 if abs(offset) <= bound else offset


def clock_resolution_ns(now_ns: Callable[[], int]) -> int:
    """Return the smallest step between two readings of the clock."""
    readings = [now_ns() for _ in range(2000)]
    return min((b - a for a, b in zip(readings, readings[1:]) if b > a), default=1_000_000)
