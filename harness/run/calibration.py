"""The client's own error, worked out: streams that say when they were sent against their stamps.

The runner opens the streams, stamps what comes and hands in its clocks; here is what is asked of
the embedded endpoint, and what its answers say of the client.
"""
from __future__ import annotations

import bisect
import re
import threading
from collections.abc import Iterable, Sequence
from typing import Any, Callable, NamedTuple, Optional

from core import metrics

from run import sse, timing
from run.reply import Reply

Json = dict[str, Any]



# --- the calibration -----------------------------------------------------------------------------
_SENT = re.compile(rb'"sent_ns": *(\d+)')
_CALL_ID = re.compile(rb'"id": *"chatcmpl-(\d+)"')


class SentStamps:
    """Takes the payload of a stream whose chunks say when they were sent.

    `feed` fits where a parser's would; `pairs` gives (read, sent_ns) of the last chunk of each
    read, since a read that brought several has one stamp, that of its last bytes.
    """

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._ends: list[int] = []
        self._reads: list[int] = []
        self._total = 0

    def feed(self, payload: bytes, read: int) -> None:
        """One read's payload."""
        self._pieces.append(payload)
        self._total += len(payload)
        self._ends.append(self._total)
        self._reads.append(read)

    def pairs(self) -> list[tuple[int, int]]:
        """See the class; in order."""
        last: dict[int, int] = {}
        for match in _SENT.finditer(b"".join(self._pieces)):
            last[self._reads[bisect.bisect_left(self._ends, match.end())]] = int(match[1])
        return sorted(last.items())

    def call_id(self) -> int:
        """The number that the endpoint gave this call, 0 where it gave none."""
        found = _CALL_ID.search(b"".join(self._pieces[:4]))
        return int(found[1]) if found else 0

    def count(self) -> int:
        """How many chunks came."""
        return len(_SENT.findall(b"".join(self._pieces)))


def calibration_row(streams: Iterable[tuple[Reply, SentStamps, timing.Stamps]], lanes: int, gap_us: int,
                    clock_offset_ns: int) -> tuple[str, Json]:
    """(whose stamps, row of `instrument_calibrated`) of one scheduled stream a lane."""
    lags: list[int] = []
    firsts: list[int] = []
    read_lags: list[int] = []
    chunks, kinds = 0, set()
    for reply, sent, stamps in streams:
        assert reply.arrivals is not None
        found = lags_us(sent.pairs(), stamps.us, reply.arrivals.started_ns, clock_offset_ns)
        lags += found
        firsts += found[:1]
        read_lags += stamps.lag_us
        chunks += sent.count()
        kinds.add(stamps.kind)
    return "kernel" if kinds == {"kernel"} else "user", {
        "lanes": lanes, "chunks": chunks, "gap_us": gap_us, "lag_us": timing.spread(lags),
        "read_lag_us": timing.spread(read_lags), "ttft_error_us": timing.spread(firsts)}


def calibration(reason: Optional[str], **found: Any) -> Json:
    """The fields of `instrument_calibrated`; without findings, all null and a reason."""
    names = ("stamp", "clock_resolution_ns", "lanes", "saturation", "clock_offset_us",
             "heartbeat_overshoot_us", "wall_ms")
    return {**dict.fromkeys(names), "lanes": [], "saturation": [], **found, "reason": reason}


def lags_us(pairs: Iterable[tuple[int, int]], us_of_read: Sequence[int], started_ns: int,
            clock_offset_ns: int) -> list[int]:
    """Stamp minus sending of each read, in µs, not below 0.

    clock_offset_ns: our clock minus that of the sender.
    """
    return [max(us_of_read[read] - (sent_ns + clock_offset_ns - started_ns) // 1000, 0)
            for read, sent_ns in pairs]


def clock_offset_ns(readings: Iterable[tuple[int, int, int]]) -> tuple[int, int]:
    """(our clock minus theirs, bound of its error) from (before, theirs, after) readings in ns.

    The narrowest reading decides. Where it cannot tell the clocks apart they are one: the monotonic
    clocks of Linux, macOS and Windows are the whole system's.
    """
    before, theirs, after = min(readings, key=lambda r: r[2] - r[0])
    offset, bound = (before + after) // 2 - theirs, (after - before + 1) // 2
    return (0 if abs(offset) <= bound else offset), bound

SCHEDULE = {"first_token_ms": 20, "gap_ms": 1, "tokens": 700}
SATURATION_CHUNKS = 60_000
CLOCK_READINGS = 20
STREAM_TIMEOUT_S = 20.0
MODEL = "reference-swift"


class Clocks(NamedTuple):
    """The runner's clocks: monotonic ns, and wall clock minus monotonic clock in ns."""

    now_ns: Callable[[], int]
    wall_offset_ns: Callable[[], int]


class Stream(NamedTuple):
    """One calibration stream: what came, when its chunks were sent, when they arrived."""

    reply: Reply
    sent: SentStamps
    stamps: timing.Stamps


def calibrate(send: Callable[..., Reply], clocks: Clocks, lanes: int,
              overslept_us: Callable[[int, int], Sequence[int]]) -> Json:
    """The fields of `instrument_calibrated`, measured at one lane and at `lanes`.

    send: of a client of the embedded endpoint; overslept_us: a heartbeat's oversleeping between two
    readings of the clock. Raises ValueError, LookupError, AttributeError or TypeError where the
    endpoint does not answer as it should.
    """
    begun_ns, counts = clocks.now_ns(), sorted({1, lanes})
    offset_ns, bound_ns = clock_offset_ns(_clock_reading(send) for _ in range(CLOCK_READINGS))
    rows = [calibration_row(_streams(send, clocks, count, SCHEDULE), count,
                                  SCHEDULE["gap_ms"] * 1000, offset_ns) for count in counts]
    saturation = [{"lanes": n, "chunks_per_s": _saturate(send, clocks, n)} for n in counts]
    ended_ns = clocks.now_ns()
    return calibration(
        None, stamp="kernel" if {kind for kind, _ in rows} == {"kernel"} else "user",
        clock_resolution_ns=clock_resolution_ns(clocks.now_ns), lanes=[row for _, row in rows],
        saturation=saturation, clock_offset_us=bound_ns / 1000,
        heartbeat_overshoot_us=timing.spread(sorted(overslept_us(begun_ns, ended_ns))),
        wall_ms=(ended_ns - begun_ns) // 1_000_000)


def _clock_reading(send: Callable[..., Reply]) -> tuple[int, int, int]:
    """(our clock when we asked, the endpoint's, ours when the answer came) in ns."""
    reply = send("GET", "/clock", None, STREAM_TIMEOUT_S)
    if reply.arrivals is None:
        raise ValueError("the embedded endpoint does not tell its clock")
    return reply.arrivals.started_ns, reply.json()["monotonic_ns"], reply.arrivals.user_ns[0]


def _streams(send: Callable[..., Reply], clocks: Clocks, lanes: int,
             schedule: Json) -> list[Stream]:
    """The same scheduled stream on so many lanes at once."""
    out: list[Stream] = []
    body = {"model": MODEL, "stream": True, "reference": schedule,
            "messages": [{"role": "user", "content": "calibration"}]}

    def stream() -> None:
        sent, before_ns, parser = SentStamps(), clocks.wall_offset_ns(), sse.StreamParser()

        def sink(payload: bytes, read: int) -> None:
            sent.feed(payload, read)
            parser.feed(payload, read)         # a real call is parsed, too

        reply = send("POST", "/v1/chat/completions", body, STREAM_TIMEOUT_S, sink)
        if reply.arrivals and not reply.failure:
            stamps = timing.stamps_of(reply.arrivals, before_ns, clocks.wall_offset_ns())
            out.append(Stream(reply, sent, stamps))

    threads = [threading.Thread(target=stream, daemon=True) for _ in range(lanes)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if len(out) < lanes:
        raise ValueError("a calibration stream broke off")
    return out


def _saturate(send: Callable[..., Reply], clocks: Clocks, lanes: int) -> float:
    """Chunks per second that this client takes when they come as fast as it reads them."""
    schedule = {"first_token_ms": 0, "gap_ms": 0, "tokens": SATURATION_CHUNKS // lanes}
    begun_ns = clocks.now_ns()
    chunks = sum(stream.sent.count() for stream in _streams(send, clocks, lanes, schedule))
    return metrics.round_sig(chunks * 1e9 / (clocks.now_ns() - begun_ns)) or 0.0


def clock_resolution_ns(now_ns: Callable[[], int]) -> int:
    """The smallest step seen between two readings of the clock."""
    readings = [now_ns() for _ in range(2000)]
    return min((b - a for a, b in zip(readings, readings[1:]) if b > a), default=1_000_000)
