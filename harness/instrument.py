"""The client's own error, worked out: streams that say when they were sent against their stamps.

The runner opens the streams, stamps what comes and hands in its clocks; here is what is asked of
the embedded endpoint, and what its answers say of the client.
"""
from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any, Callable, NamedTuple

import calls
import metrics
import wire

Json = dict[str, Any]

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

    reply: calls.Reply
    sent: calls.SentStamps
    stamps: calls.Stamps


def calibrate(send: Callable[..., calls.Reply], clocks: Clocks, lanes: int,
              overslept_us: Callable[[int, int], Sequence[int]]) -> Json:
    """The fields of `instrument_calibrated`, measured at one lane and at `lanes`.

    send: of a client of the embedded endpoint; overslept_us: a heartbeat's oversleeping between two
    readings of the clock. Raises ValueError, LookupError, AttributeError or TypeError where the
    endpoint does not answer as it should.
    """
    begun_ns, counts = clocks.now_ns(), sorted({1, lanes})
    offset_ns, bound_ns = calls.clock_offset_ns(_clock_reading(send) for _ in range(CLOCK_READINGS))
    rows = [calls.calibration_row(_streams(send, clocks, count, SCHEDULE), count,
                                  SCHEDULE["gap_ms"] * 1000, offset_ns) for count in counts]
    saturation = [{"lanes": n, "chunks_per_s": _saturate(send, clocks, n)} for n in counts]
    ended_ns = clocks.now_ns()
    return calls.calibration(
        None, stamp="kernel" if {kind for kind, _ in rows} == {"kernel"} else "user",
        clock_resolution_ns=clock_resolution_ns(clocks.now_ns), lanes=[row for _, row in rows],
        saturation=saturation, clock_offset_us=bound_ns / 1000,
        heartbeat_overshoot_us=wire.spread(sorted(overslept_us(begun_ns, ended_ns))),
        wall_ms=(ended_ns - begun_ns) // 1_000_000)


def _clock_reading(send: Callable[..., calls.Reply]) -> tuple[int, int, int]:
    """(our clock when we asked, the endpoint's, ours when the answer came) in ns."""
    reply = send("GET", "/clock", None, STREAM_TIMEOUT_S)
    if reply.arrivals is None:
        raise ValueError("the embedded endpoint does not tell its clock")
    return reply.arrivals.started_ns, reply.json()["monotonic_ns"], reply.arrivals.user_ns[0]


def _streams(send: Callable[..., calls.Reply], clocks: Clocks, lanes: int,
             schedule: Json) -> list[Stream]:
    """The same scheduled stream on so many lanes at once."""
    out: list[Stream] = []
    body = {"model": MODEL, "stream": True, "reference": schedule,
            "messages": [{"role": "user", "content": "calibration"}]}

    def stream() -> None:
        sent, before_ns, parser = calls.SentStamps(), clocks.wall_offset_ns(), wire.StreamParser()

        def sink(payload: bytes, read: int) -> None:
            sent.feed(payload, read)
            parser.feed(payload, read)         # a real call is parsed, too

        reply = send("POST", "/v1/chat/completions", body, STREAM_TIMEOUT_S, sink)
        if reply.arrivals and not reply.failure:
            stamps = calls.stamps_of(reply.arrivals, before_ns, clocks.wall_offset_ns())
            out.append(Stream(reply, sent, stamps))

    threads = [threading.Thread(target=stream, daemon=True) for _ in range(lanes)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if len(out) < lanes:
        raise ValueError("a calibration stream broke off")
    return out


def _saturate(send: Callable[..., calls.Reply], clocks: Clocks, lanes: int) -> float:
    """Chunks per second that this client takes when they come as fast as it reads them."""
    schedule = {"first_token_ms": 0, "gap_ms": 0, "tokens": SATURATION_CHUNKS // lanes}
    begun_ns = clocks.now_ns()
    chunks = sum(stream.sent.count() for stream in _streams(send, clocks, lanes, schedule))
    return metrics.round_sig(chunks * 1e9 / (clocks.now_ns() - begun_ns)) or 0.0


def clock_resolution_ns(now_ns: Callable[[], int]) -> int:
    """The smallest step seen between two readings of the clock."""
    readings = [now_ns() for _ in range(2000)]
    return min((b - a for a, b in zip(readings, readings[1:]) if b > a), default=1_000_000)
