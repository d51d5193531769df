"""The client's own error, from scripted streams on a scripted clock."""

from __future__ import annotations

import threading
import unittest
from collections.abc import Sequence
from typing import Any, Optional
from unittest import mock

import run_benchmark
from core import ledger
from run import calibration
from run.reply import Reply
from run.sse import StreamParser
from run.timing import Arrivals, Stamps
from tests.run.test_timing import EMPTY, MS, WALL, S

AHEAD = 3 * S                 # our clock minus the endpoint's


class Clock:
    """Advances by a microsecond at every reading."""

    def __init__(self) -> None:
        self.ns, self._lock = 100 * S, threading.Lock()

    def now_ns(self) -> int:
        with self._lock:
            self.ns += 1000
            return self.ns


class Endpoint:
    """Answers like the embedded endpoint: each chunk `lag_us` late, with a kernel stamp."""

    def __init__(self, clock: Clock, lag_us: int = 200, broken_lane: Optional[int] = None,
                 has_clock: bool = True) -> None:
        self.clock, self.lag_us = clock, lag_us
        self.broken_lane, self.has_clock = broken_lane, has_clock
        self.schedules: list[Any] = []
        self._requests, self._lock = 0, threading.Lock()

    def send(self, method: str, path: str, body: Any, timeout_s: float, sink: Any = None) -> Reply:
        with self._lock:
            self._requests += 1
            number = self._requests
            self.schedules += [body["reference"]] if body else []
        started = self.clock.now_ns()
        if path == "/clock":
            head = b'{"monotonic_ns": %d}' % (started + 50_000 - AHEAD)
            came = Arrivals(started, [started + 100_000], [0], 1, 9)
            return Reply(200, {}, head, EMPTY, None, came if self.has_clock else None)
        user, kernel = [started + MS], [started + MS + WALL]
        for i in range(body["reference"]["tokens"]):
            sent = started + 20 * MS + i * body["reference"]["gap_ms"] * MS
            user.append(sent + self.lag_us * 1000 + 30_000)
            kernel.append(sent + self.lag_us * 1000 + WALL)
            sink(b'data: {"choices": [], "sent_ns": %d}\n\n' % (sent - AHEAD), i + 1)
        self.clock.ns += 10 * MS
        failure = ("connection_lost", "x") if number == self.broken_lane else None
        return Reply(200, {}, b"", EMPTY, failure,
                     Arrivals(started, user, kernel, 1, 9))


class Calibrate(unittest.TestCase):
    maxDiff = None

    def calibrate(self, lanes: Sequence[int] = (1, 4), **options: Any) -> dict[str, Any]:
        clock = Clock()
        self.endpoint = Endpoint(clock, **options)
        with mock.patch.object(calibration, "SATURATION_CHUNKS", 400):
            return calibration.calibrate(self.endpoint.send, clock.now_ns, lambda: WALL, lanes,
                                         lambda *_: [40, 10, 20])

    def test_lags_of_every_chunk_at_one_lane_and_at_the_most_lanes_of_the_run(self):
        found = self.calibrate(lag_us=204)
        self.assertGreaterEqual(calibration.SCHEDULE["tokens"], 700)
        self.assertEqual(found["lanes"], [
            {"lanes": n, "lag_us": {"p50": 200, "p99": 200, "max": 200}} for n in (1, 4)])
        self.assertEqual((found["stamp"], found["reason"], found["clock_resolution_ns"]),
                         ("kernel", None, 1000))
        self.assertEqual(found["heartbeat_overshoot_us"],
                         {"p50": 20, "p99": 40, "max": 40})
        self.assertEqual([row["lanes"] for row in found["saturation"]], [1, 4])
        common = {"event": "instrument_calibrated", "seq": 0, "segment": 0, "t_us": 0,
                  "run_id": "11111111-1111-4111-8111-111111111111",
                  "at": "2026-11-24T10:00:00.000Z"}
        self.assertEqual(ledger.validate_line({**common, **found}), [])

    def test_a_run_on_one_lane_is_measured_once(self):
        found = self.calibrate(lanes=[1])
        self.assertEqual([row["lanes"] for row in found["lanes"]], [1])
        self.assertEqual(self.endpoint.schedules, [calibration.SCHEDULE, {
            "first_token_ms": 0, "gap_ms": 0, "tokens": 400}])
        # 400 chunks between two readings of the clock, with one in between and 10 ms of work.
        self.assertEqual(found["saturation"], [{"lanes": 1, "chunks_per_s": 39_992.0}])

    def test_calibration_parses_what_it_reads_as_a_call_does(self):
        with mock.patch.object(StreamParser, "feed") as feed:
            self.calibrate(lanes=[1])
        self.assertEqual(feed.call_count, calibration.SCHEDULE["tokens"] + 400)

    def test_an_endpoint_that_does_not_answer_as_it_should_is_an_error(self):
        for options, words in (({"broken_lane": calibration.CLOCK_READINGS + 1}, "broke off"),
                               ({"has_clock": False}, "does not send its clock")):
            with self.assertRaisesRegex(ValueError, words):
                self.calibrate(**options)

    def test_the_runner_records_why_it_could_not_measure(self):
        with mock.patch.object(calibration, "calibrate", side_effect=KeyError("x")):
            self.assertEqual(run_benchmark.calibrate([1, 4]), {
                "stamp": None, "clock_resolution_ns": None, "lanes": [], "saturation": [],
                "heartbeat_overshoot_us": None, "reason": "the calibration failed: KeyError"})


class Parts(unittest.TestCase):
    def sent(self, *pieces: tuple[int, str]) -> calibration.SentStamps:
        stamps = calibration.SentStamps()
        for read, text in pieces:
            stamps.feed(text.encode(), read)
        return stamps

    def test_the_last_chunk_of_each_read_counts(self):
        for pieces, pairs, count in (
                ([(3, '"sent_ns": 10,"sent_ns":20'), (4, '{"x":1}'), (5, '"sent_ns":30}')],
                 [(3, 20), (5, 30)], 3),
                ([(0, '{"sent_'), (1, 'ns": 12'), (2, '34}')], [(2, 1234)], 1),
                ([(0, '{"sent_ns": 12'), (1, '}{"sent_ns": 5}')], [(0, 12), (1, 5)], 2)):
            stamps = self.sent(*pieces)
            self.assertEqual((stamps.pairs(), stamps.count()), (pairs, count))

    def test_the_narrowest_reading_aligns_the_clocks(self):
        for readings, found in (
                ([(0, 1000, 100), (200, 1200, 220)], -990), ([(0, 50, 100)], 0),
                ([(0, 100, 100)], 0), ([(0, 101, 100)], -51)):
            self.assertEqual(calibration.clock_offset_ns(iter(readings)), found)

    def test_a_row_combines_all_lanes(self):
        # Our clock is 1 s ahead of theirs; the requests were sent at 5 s of ours.
        def at(ms: int, lag_us: int) -> str:
            return f'"sent_ns": {4 * S + ms * MS - lag_us * 1000},'

        one = calibration.Stream(5 * S, self.sent((0, at(10, 40)), (1, at(20, 60))),
                                 Stamps([10_000, 20_000], "kernel", [5, 7], 0))
        two = calibration.Stream(5 * S, self.sent((1, at(20, 80))),
                                 Stamps([10_000, 20_000], "user", [], 0))
        early = calibration.Stream(5 * S, self.sent((0, at(10, -10))),
                                   Stamps([10_000], "kernel", [5], 0))
        self.assertEqual(calibration.calibration_row([one, two], 2, S), ("user", {
            "lanes": 2, "lag_us": {"p50": 60, "p99": 80, "max": 80}}))
        kind, row = calibration.calibration_row([early], 1, S)
        self.assertEqual((kind, row["lag_us"]["max"]), ("kernel", 10))

    def test_clock_resolution_is_its_smallest_step(self):
        for readings, step in ((range(0, 10 ** 6, 40), 40), ([5] * 3000, 1_000_000),
                               ([0, 0, 7, 7, 10, 10] * 500, 3)):
            ticks = iter(readings)
            self.assertEqual(calibration.clock_resolution_ns(lambda ticks=ticks: next(ticks)), step)


if __name__ == "__main__":
    unittest.main()
