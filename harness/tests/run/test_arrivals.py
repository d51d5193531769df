"""The whole way of a chunk's time: from the read that brought it to its mark in the ledger.

The server sends a piece only once the client has read the one before it, so each piece is one read
and nothing here depends on how fast anybody is.
"""

from __future__ import annotations

import itertools
import socket
import time
import unittest
from typing import Any, Callable

import run_benchmark
from run import cli
from run import reply as replys
from run import timing as timings

from tests.scripted_endpoint import LIMIT_S, ScriptedEndpoint, Step

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
END = b"0\r\n\r\n"


def chunked(*texts: str) -> bytes:
    """Events with these texts, each in an HTTP chunk of its own."""
    events = [b'data: {"model":"m","choices":[{"index":0,"delta":{"content":"%s"}}]}\n\n'
              % text.encode() for text in texts]
    return b"".join(b"%x\r\n%b\r\n" % (len(event), event) for event in events)


class Marks(unittest.TestCase):
    """Which read each mark of a call belongs to."""

    def call(self, pieces: list[bytes], between: Callable[[], None] = lambda: None
             ) -> tuple[replys.Reply, dict[str, Any]]:
        """The reply to a request that is answered in these reads, and its timing."""
        clients: list[run_benchmark.Client] = []

        def after(count: int) -> Callable[[socket.socket], None]:
            def wait(_: socket.socket) -> None:
                until_s = time.monotonic() + LIMIT_S
                while clients[0].gate.reads() < count and time.monotonic() < until_s:
                    time.sleep(0)
                between()
            return wait

        script: list[Step] = []
        for count, piece in enumerate(pieces):
            script += [after(count), piece]
        with ScriptedEndpoint(script) as endpoint:
            clients.append(run_benchmark.Client(cli.parse_target(endpoint.url)))
            before_ns = run_benchmark.wall_offset_ns()
            reply = clients[0].send("POST", "/v1/chat/completions", {"stream": True}, LIMIT_S)
            timing = timings.call_timing(reply, before_ns, run_benchmark.wall_offset_ns(),
                                     reply.arrivals.started_ns, None)
        self.assertEqual(len(reply.arrivals.user_ns), len(pieces))
        return reply, timing

    def marks(self, reply: replys.Reply, timing: dict[str, Any]) -> tuple[list[int], list[int]]:
        """(the read of each chunk, by its mark; the read of headers, first text and last text)."""
        offset_ns = reply.arrivals.kernel_ns[0] and run_benchmark.wall_offset_ns()
        us = timings.stamps_of(reply.arrivals, offset_ns, offset_ns).us

        def nearest(mark: int) -> int:
            return min(range(len(us)), key=lambda at: abs(us[at] - mark))

        chunks = list(itertools.accumulate(timing["chunk_us"]))
        return [nearest(mark) for mark in chunks], [
            nearest(timing[name]) for name in ("headers_us", "first_token_us", "last_token_us")]

    def apart(self) -> None:
        """Parts the reads by more than a clock's error, so that each mark has one nearest read."""
        until_ns = time.perf_counter_ns() + 2_000_000
        while time.perf_counter_ns() < until_ns:
            pass

    def test_a_chunk_has_the_time_of_its_own_read_however_the_header_came(self):
        one, two, three = chunked("one"), chunked("two"), chunked("three")
        for name, pieces, chunks, ends in (
                ("alone", [HEAD, one, two, three, END], [1, 2, 3], [0, 1, 3]),
                ("with the first text", [HEAD + one, two, three + END], [0, 1, 2], [0, 0, 2]),
                ("in two reads", [HEAD[:20], HEAD[20:], one, two, END], [2, 3], [1, 2, 3]),
                ("in two reads, the last with text", [HEAD[:20], HEAD[20:] + one, two, END],
                 [1, 2], [1, 1, 2]),
                ("with an empty chunk", [HEAD + chunked(""), one, two, END], [1, 2], [0, 1, 2]),
                ("alone, and two texts in a read", [HEAD, one + two, three, END], [1, 1, 2],
                 [0, 1, 2]),
                ("alone, and a text in two reads", [HEAD, one[:30], one[30:], two, END], [2, 3],
                 [0, 2, 3])):
            with self.subTest(header=name):
                reply, timing = self.call(pieces, self.apart)
                self.assertEqual(reply.stream.reads, chunks)
                self.assertEqual(self.marks(reply, timing), (chunks, ends))


if __name__ == "__main__":
    unittest.main()
