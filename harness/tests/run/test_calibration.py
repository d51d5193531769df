"""The client's own error, from scripted streams on a scripted clock."""

from __future__ import annotations

import threading
import unittest
from typing import Any, Optional
from unittest import mock

import run_benchmark
from core import ledger, schema
from run import calibration, sse
from run import reply as replys

from tests.run.test_reply import MS, WALL, S, reply

AHEAD = 3 * S                 # our clock is so far ahead of the endpoint's


class Clock:
    """Moves by a microsecond at every look."""

    def __init__(self) -> None:
        self.ns, self._lock = 100 * S, threading.Lock()

    def now_ns(self) -> int:
        with self._lock:
            self.ns += 1000
            return self.ns


class Endpoint:
    """Answers as the embedded one does: each chunk `lag_us` late, with a stamp of the kernel."""

    def __init__(self, clock: Clock, lag_us: int = 200, broken_lane: Optional[int] = None,
                 deaf: bool = False) -> None:
        self.clock, self.lag_us, self.broken_lane, self.deaf = clock, lag_us, broken_lane, deaf
        self.asked: list[Any] = []
        self._lock = threading.Lock()

    def send(self, method: str, path: str, body: Any, timeout_s: float, sink: Any = None) -> Any:
        with self._lock:
            self.asked.append((method, path, body and body["reference"]))
            number = len(self.asked)
        started = self.clock.now_ns()
        if path == "/clock":
            return self._tell_clock(started)
        tokens, gap_ns = body["reference"]["tokens"], body["reference"]["gap_ms"] * MS
        user, kernel = [started + MS], [started + MS + WALL]
        for i in range(tokens):
            sent = started + 20 * MS + i * gap_ns
            user.append(sent + self.lag_us * 1000 + 30_000)
            kernel.append(sent + self.lag_us * 1000 + WALL)
            if sink:
                sink(b'data: {"id": "chatcmpl-%d", "choices": [], "sent_ns": %d}\n\n'
                     % (number, sent - AHEAD), i + 1)
        self.clock.ns += 10 * MS
        failure = ("connection_lost", "x") if number == self.broken_lane else None
        return reply(came=replys.Arrivals(started, started, 0, user, kernel, 1, False, 9),
                     failure=failure)

    def _tell_clock(self, started: int) -> Any:
        if self.deaf:
            return reply(status=None, failure=("connect_failed", "x"))
        head = b'{"monotonic_ns": %d}' % (started + 50_000 - AHEAD)
        return reply(head=head, came=replys.Arrivals(started, started, 0, [started + 100_000], [0],
                                                    1, True, 9))


class Calibrate(unittest.TestCase):
    maxDiff = None

    def calibrate(self, lanes: int = 4, **options: Any) -> dict[str, Any]:
        clock = Clock()
        self.endpoint = Endpoint(clock, **options)
        with mock.patch.object(calibration, "SATURATION_CHUNKS", 400):
            return calibration.calibrate(
                self.endpoint.send, calibration.Clocks(clock.now_ns, lambda: WALL), lanes,
                lambda *_: [40, 10, 20])

    def test_lags_are_those_of_every_chunk_at_one_lane_and_at_the_runs_most(self):
        found = self.calibrate()
        tokens = calibration.SCHEDULE["tokens"]
        lag = {"p50": 200, "p99": 200, "max": 200}
        self.assertEqual(found["lanes"], [
            {"lanes": n, "chunks": n * tokens, "gap_us": 1000, "lag_us": {**lag, "n": n * tokens},
             "read_lag_us": {"p50": 30, "p99": 30, "max": 30, "n": n * (tokens + 1)},
             "ttft_error_us": {**lag, "n": n}} for n in (1, 4)])
        self.assertEqual((found["stamp"], found["reason"], found["clock_offset_us"],
                          found["clock_resolution_ns"]), ("kernel", None, 50.0, 1000))
        self.assertEqual(found["heartbeat_overshoot_us"],
                         {"p50": 20, "p99": 40, "max": 40, "n": 3})
        self.assertEqual([row["lanes"] for row in found["saturation"]], [1, 4])
        self.assertTrue(all(row["chunks_per_s"] > 0 for row in found["saturation"]))

    def test_at_least_700_chunks_are_measured_at_each(self):
        self.assertGreaterEqual(calibration.SCHEDULE["tokens"], 700)

    def test_it_fits_the_line_that_it_becomes(self):
        shape = schema.schema("ledger")["$defs"]["instrument_calibrated"]["properties"]
        found = self.calibrate()
        self.assertEqual({*found, *ledger.COMMON_FIELDS}, set(shape))
        common = {"event": "instrument_calibrated", "seq": 0, "segment": 0, "t_us": 0,
                  "run_id": "1" * 8 + "-1111-4111-8111-" + "1" * 12,
                  "at": "2026-11-24T10:00:00.000Z"}
        self.assertEqual(ledger.validate_line({**common, **found}), [])

    def test_a_run_on_one_lane_is_measured_on_one_lane_once(self):
        found = self.calibrate(lanes=1)
        self.assertEqual([row["lanes"] for row in found["lanes"]], [1])
        schedules = [schedule for _, _, schedule in self.endpoint.asked if schedule]
        self.assertEqual(schedules, [calibration.SCHEDULE, {
            "first_token_ms": 0, "gap_ms": 0, "tokens": 400}])

    def test_rates_and_times_are_those_of_the_clock(self):
        found = self.calibrate(lanes=1)
        # 400 chunks between two looks at the clock, with one in between and 10 ms of work.
        self.assertEqual(found["saturation"], [{"lanes": 1, "chunks_per_s": 39_992.0}])
        self.assertEqual(found["wall_ms"], 20)

    def test_a_calibration_parses_what_it_reads_as_a_call_does(self):
        with mock.patch.object(sse.StreamParser, "feed") as feed:
            self.calibrate(lanes=1)
        self.assertEqual(feed.call_count, calibration.SCHEDULE["tokens"] + 400)

    def test_a_stream_that_breaks_off_is_no_measurement(self):
        with self.assertRaisesRegex(ValueError, "a calibration stream broke off"):
            self.calibrate(broken_lane=calibration.CLOCK_READINGS + 1)

    def test_an_endpoint_that_tells_no_clock_is_none(self):
        with self.assertRaisesRegex(ValueError, "does not tell its clock"):
            self.calibrate(deaf=True)

    def test_the_clocks_smallest_step(self):
        for readings, step in ((range(0, 10 ** 6, 40), 40), ([5] * 3000, 1_000_000),
                               ([0, 0, 7, 7, 10, 10] * 500, 3)):
            ticks = iter(readings)
            self.assertEqual(calibration.clock_resolution_ns(lambda ticks=ticks: next(ticks)), step)


class Failures(unittest.TestCase):
    def test_the_runner_records_why_where_it_could_not_measure(self):
        with mock.patch.object(calibration, "calibrate", side_effect=KeyError("x")):
            self.assertEqual(run_benchmark.calibrate(4),
                             calibration.calibration("the calibration failed: KeyError"))
