"""From the read that brought a chunk to the times in its ledger line."""

from __future__ import annotations

import itertools
import socket
import time
import unittest
from typing import Any, Callable, Optional

import run_benchmark
from run import cli, timing
from run.reply import Reply
from run.sse import StreamParser
from tests.scripted_endpoint import END, LIMIT_S, ScriptedEndpoint, Step, event, says

MS, S = 1_000_000, 1_000_000_000
WALL = 1_700_000_000 * S      # wall clock minus monotonic clock
EMPTY = StreamParser()


def arrivals(user_ms: Any, lags_us: Any = (), header_reads: int = 1) -> timing.Arrivals:
    """Reads at these ms after a request at 5 s; lags_us: after the kernel (None: no stamp)."""
    user = [5 * S + int(ms * MS) for ms in user_ms]
    kernel = [0 if lag is None else at + WALL - lag * 1000 for at, lag in zip(user, lags_us)]
    return timing.Arrivals(5 * S, user, kernel or [0] * len(user), header_reads, 999)


def parsed(*reads: bytes, first_read: int = 0) -> StreamParser:
    """The parser after these reads."""
    stream = StreamParser()
    for number, data in enumerate(reads, first_read):
        stream.feed(data, number)
    return stream.close(max(first_read + len(reads) - 1, 0))


class Stamps(unittest.TestCase):
    def test_kernel_stamps_count_only_if_they_can_be_trusted(self):
        for name, came, step_ns, expected in (
                ("kernel", arrivals((10, 20, 30), (50, 200, 30)), 0,
                 ([9950, 19_800, 29_970], "kernel", [50, 200, 30], 0)),
                ("one read without a kernel stamp", arrivals((10, 20), (50, None)), 0,
                 ([10_000, 20_000], "user", [], 0)),
                ("no kernel stamp", arrivals((10, 20)), 0, ([10_000, 20_000], "user", [], 0)),
                ("wall clock set by 1 ms", arrivals((10, 20), (50, 60)), 1_000_000,
                 ([10_000, 20_000], "user", [], 1000)),
                ("wall clock set back by 1 ms", arrivals((10, 20), (50, 60)), -1_000_000,
                 ([10_000, 20_000], "user", [], -1000)),
                ("wall clock drifts", arrivals((10, 20), (50, 60)), 999_999,
                 ([9950, 19_940], "kernel", [50, 60], 0)),
                ("kernel stamp after its read, within the offset's error",
                 arrivals((10, 20), (-999, 60)), 0, ([10_000, 19_940], "kernel", [0, 60], 0)),
                ("kernel stamp 1 ms after its read", arrivals((10, 20), (-1000, 60)), 0,
                 ([10_000, 20_000], "user", [], 0)),
                ("never descending", arrivals((10, 10.1, 30), (0, 300, 0)), 0,
                 ([10_000, 10_000, 30_000], "kernel", [0, 300, 0], 0)),
                ("never before the request", arrivals((0.02,), (100,)), 0,
                 ([0], "kernel", [100], 0)),
                ("lag of the body only", arrivals((10, 20, 30), (5000, 200, 30), header_reads=2),
                 0, ([5000, 19_800, 29_970], "kernel", [200, 30], 0)),
                ("no reads", arrivals(()), 0, ([], "user", [], 0))):
            with self.subTest(name):
                self.assertEqual(timing.stamps_of(came, WALL, WALL + step_ns),
                                 timing.Stamps(*expected))


class CallTiming(unittest.TestCase):
    maxDiff = None

    def timing(self, came: Optional[timing.Arrivals], stream: StreamParser = EMPTY) -> Any:
        return timing.call_timing(stream, came, WALL, WALL, 2 * S, 7)

    def test_all_fields_of_an_answer(self):
        stream = parsed(event({"role": "assistant", "content": ""}),
                        says("a", field="reasoning_content") + says("b"), says("c") + END,
                        first_read=1)
        self.assertEqual(self.timing(arrivals((10, 20, 30, 45), (50, 50, 40, 60)), stream), {
            "started_us": 3_000_000, "first_token_us": 29_960, "first_answer_us": 29_960,
            "last_token_us": 44_940, "done_us": 44_940, "chunk_us": [29_960, 0, 14_980],
            "chunk_kinds": "r1a2", "reads": [[0, 2]], "ttft_null_reason": None,
            "bytes_received": 999, "stamp": "kernel",
            "read_lag_us": {"p50": 50, "p99": 60, "max": 60}, "clock_step_us": 0,
            "heartbeat_gap_us": 7})

    def test_times_without_a_body(self):
        for name, came, stream, expected in (
                ("body in the header's read", arrivals((10,)), parsed(says("a") + END),
                 (10_000, 10_000)),
                ("no header", arrivals((), header_reads=0), EMPTY, (None, None)),
                ("header in two reads, no body", arrivals((10, 12), header_reads=2), EMPTY,
                 (None, 12_000))):
            with self.subTest(name):
                found = self.timing(came, stream)
                self.assertEqual((found["first_token_us"], found["done_us"]), expected)

    def test_no_request_has_no_timing(self):
        self.assertIsNone(self.timing(None))


class ChunkTiming(unittest.TestCase):
    def test_times_of_chunks(self):
        def stream(*kinds: str) -> StreamParser:
            return parsed(*(b"".join(says("x", field={"r": "reasoning", "a": "content"}[kind])
                                     for kind in read) for read in kinds))

        fields = ("first_token_us", "first_answer_us", "last_token_us", "chunk_us", "chunk_kinds",
                  "reads", "ttft_null_reason")
        inline = parsed(says("<think>"), says("t"), says("</think>\n\na"), says("b"))
        inline.mark_inline_reasoning()
        for name, made, us, expected in (
                ("one chunk per read", stream("a", "a", "a"), (1, 3, 7),
                 (1, 1, 7, [1, 2, 4], None, [], None)),
                ("shared reads", stream("aa", "a", "aaa"), (1, 3, 7),
                 (1, 1, 7, [1, 0, 2, 4, 0, 0], None, [[0, 2], [3, 3]], None)),
                ("thinking and answer in turn", stream("r", "r", "a", "r", "a"), (1, 2, 3, 4, 5),
                 (1, 3, 5, [1] * 5, "r2a1r1a1", [], None)),
                ("thinking only", stream("r"), (5,), (5, None, 5, [5], "r1", [], None)),
                ("inline thinking: one chunk is split in two", inline, (1, 2, 3, 4),
                 (1, 3, 4, [1, 1, 1, 0, 1], "r3a2", [[2, 2]], None)),
                ("reads without a stamp have the last", stream("a", "a", "a"), (5, 7),
                 (5, 5, 7, [5, 2, 0], None, [], None)),
                ("no stamps", stream("a"), (), (None, None, None, [], None, [], "no text arrived")),
                ("no text", parsed(event({}, "stop")), (5,),
                 (None, None, None, [], None, [], "the answer has no text")),
                ("one JSON document",
                 parsed(b'{"choices": [{"message": {"content": "a"}}]}'), (5,),
                 (None, None, None, [], None, [],
                  "the server sent one JSON body instead of a stream")),
                ("an error document", parsed(b'{"error": "m"}'), (5,),
                 (None, None, None, [], None, [], "no text arrived"))):
            with self.subTest(name):
                found = timing.chunk_timing(made, us)
                self.assertEqual(found, dict(zip(fields, expected)))

    def test_spread_by_nearest_rank(self):
        self.assertIsNone(timing.spread([]))
        for values, p50, p99, most in (([0], 10, 10, 10), ([90, 10, 50], 50, 90, 90),
                                       (range(1, 101), 50, 100, 100),
                                       (range(1, 2001), 1000, 2000, 2000)):
            self.assertEqual(timing.spread(values), {"p50": p50, "p99": p99, "max": most})
        for n in range(1, 1000):               # no rounding error of floats
            values = range(1, n + 1)
            self.assertEqual([timing.percentile(values, share) for share in (0.5, 0.99)],
                             [(n + 1) // 2, (99 * n + 99) // 100])

    def test_what_is_measured_once_has_two_digits_in_steps_of_10(self):
        for value, rounded in ((0, 10), (14, 10), (16, 20), (104, 100), (227, 230), (5346, 5300),
                               (16_285_123, 16_000_000)):
            self.assertEqual([timing.coarse(value), timing.coarse(rounded)], [rounded, rounded])


# --- through a socket ----------------------------------------------------------------------------
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
LAST_CHUNK = b"0\r\n\r\n"


def chunked(*texts: str) -> bytes:
    """Events with these texts, each in an HTTP chunk of its own."""
    return b"".join(b"%x\r\n%b\r\n" % (len(says(text)), says(text)) for text in texts)


class ThroughASocket(unittest.TestCase):
    """The server sends a piece only after the client has read the one before it.

    So each piece is one read, and nothing depends on the speed of the machine.
    """

    def call(self, pieces: list[bytes]) -> tuple[Reply, Any]:
        """Return the reply to a request that is answered in these reads, and its timing."""
        clients: list[run_benchmark.Client] = []

        def after(count: int) -> Callable[[socket.socket], None]:
            def wait(_: socket.socket) -> None:
                until_s = time.monotonic() + LIMIT_S
                while clients[0].in_flight.reads() < count and time.monotonic() < until_s:
                    time.sleep(0)
                # By more than a clock's error, so that each time has one nearest read.
                until_ns = time.perf_counter_ns() + 2_000_000
                while time.perf_counter_ns() < until_ns:
                    pass
            return wait

        script: list[Step] = []
        for count, piece in enumerate(pieces):
            script += [after(count), piece]
        with ScriptedEndpoint(script) as endpoint:
            clients.append(run_benchmark.Client(cli.parse_target(endpoint.url)))
            before_ns = run_benchmark.wall_offset_ns()
            reply = clients[0].send("POST", "/v1/chat/completions", {"stream": True}, LIMIT_S)
            found = timing.call_timing(
                reply.stream, reply.arrivals, before_ns, run_benchmark.wall_offset_ns(),
                reply.arrivals.started_ns, None)
        self.assertEqual(len(reply.arrivals.user_ns), len(pieces))
        return reply, found

    def test_each_chunk_has_the_time_of_its_own_read_however_the_header_came(self):
        one, two, three = chunked("one"), chunked("two"), chunked("three")
        for name, pieces, chunks, ends in (
                ("alone", [HEAD, one, two, three, LAST_CHUNK], [1, 2, 3], [1, 3]),
                ("with the first text", [HEAD + one, two, three + LAST_CHUNK], [0, 1, 2], [0, 2]),
                ("in two reads", [HEAD[:20], HEAD[20:], one, two, LAST_CHUNK], [2, 3], [2, 3]),
                ("in two reads, the last with text",
                 [HEAD[:20], HEAD[20:] + one, two, LAST_CHUNK], [1, 2], [1, 2]),
                ("with an empty text", [HEAD + chunked(""), one, two, LAST_CHUNK], [1, 2], [1, 2]),
                ("alone, and two texts in a read", [HEAD, one + two, three, LAST_CHUNK],
                 [1, 1, 2], [1, 2]),
                ("alone, and a text in two reads", [HEAD, one[:30], one[30:], two, LAST_CHUNK],
                 [2, 3], [2, 3])):
            with self.subTest(header=name):
                reply, found = self.call(pieces)
                offset_ns = reply.arrivals.kernel_ns[0] and run_benchmark.wall_offset_ns()
                us = timing.stamps_of(reply.arrivals, offset_ns, offset_ns).us
                times = [*itertools.accumulate(found["chunk_us"]), *(
                    found[field] for field in ("first_token_us", "last_token_us"))]
                nearest = [min(range(len(us)), key=lambda read: abs(us[read] - at))
                           for at in times]
                self.assertEqual((reply.stream.reads, nearest), (chunks, [*chunks, *ends]))


if __name__ == "__main__":
    unittest.main()
