"""Test the numbers of the curves of ramp and depth."""
from __future__ import annotations

import unittest
from typing import Any, Optional

from core import curves, metrics, result_tables
from core.throughput import HostLoad
from tests.core.test_curve_levels import level

NO_LOAD = HostLoad([])


def ramp(*calls_of_levels: tuple[int, list[Any]], end: Any = None) -> Any:
    calls, numbers = [], {}
    for lanes, made in calls_of_levels:
        for at, call in enumerate(made):
            call.update(level=lanes, cell_id=f"{lanes}-{at}", checks=None, phase="ramp")
            call["timing"].update(stamp="kernel", read_lag_us=None, reads=[])
            numbers[call["cell_id"]] = {"ttft_ms": call["timing"]["first_token_us"] / 1000,
                                        "decode_tokens_per_s": 200.0}
            calls.append(call)
    return curves.curve("m", "ramp", calls, numbers, end, None, NO_LOAD, 4)


def end_at(lanes: int, kind: str) -> Any:
    return {"level": lanes, "kind": kind, "reason": "r"}


class Ramp(unittest.TestCase):
    def test_points_have_throughput_with_an_interval_around_it(self) -> None:
        found = ramp((1, level(1, 4, 6)), (2, level(2, 4)), (4, level(4, 4)))
        points = {one["metric"]: one["points"] for one in found["series"]}
        rates = [point["value"] for point in points[curves.THROUGHPUT]]
        # 20 tokens in 190 ms on each lane.
        self.assertEqual(rates, [metrics.round_sig(lanes * 20 / 0.19) for lanes in (1, 2, 4)])
        self.assertTrue(all(p["low"] < p["value"] < p["high"] for p in points[curves.THROUGHPUT]))
        self.assertEqual([(p["at"], p["n"], p["value"]) for p in points["ttft_ms"]],
                         [(1, 6, 100.0), (2, 6, 100.0), (4, 12, 100.0)])
        self.assertEqual((found["knee"], found["slots_count"], found["ok"]), (None, 4, 24))

    def test_knee_is_the_smallest_level_within_five_percent_of_the_best(self) -> None:
        def knee(*rates: Optional[float], kind: str = "") -> Any:
            points: Any = [{"at": 1 << at, "value": rate} for at, rate in enumerate(rates)]
            return curves._knee(points, end_at(1 << len(rates) - 1, kind) if kind else None)

        self.assertEqual(
            [knee(30, 30.5, 55, 56, 54, kind="flat"), knee(30, 30.5, 29, kind="flat"),
             knee(30, 60, 90, kind="queued"), knee(30, 60, 62, kind="queued"),
             knee(30, 60, 90), knee(30, 60, 62), knee(30, 60, None, kind="failed"), knee(None)],
            [4, 1, 4, 2, None, 2, None, None])

    def test_disturbed_level_has_no_throughput(self) -> None:
        busy = HostLoad([{"event": "host_sampled", "segment": 0, "t_us": at, "cpu_busy_ratio": 1.0,
                          "other_cpu_busy_ratio": 0.9}
                         for at in (0, 5_000_000)])
        self.assertEqual([curves.throughput_point(4, level(4, 4), load)["n"]
                          for load in (NO_LOAD, busy)], [12, 0])


class Tables(unittest.TestCase):
    def test_rows_have_bars_for_a_share_of_the_largest_value(self) -> None:
        found = ramp((1, level(1, 4, 6)), (2, level(2, 4)), end=end_at(4, "failed"))
        heading, titles, *rows = result_tables.curve_lines(found)
        self.assertEqual(heading, "ramp: no knee up to here; the server reports 4 slots; "
                                  "ended at 4 (failed): r")
        self.assertEqual([row.split()[:2] for row in rows],
                         [["1", "\u2588" * 6], ["2", "\u2588" * 12]])
        self.assertEqual([result_tables.bar(value, 96) for value in (None, 0, 1, 4, 8, 12)],
                         ["", "", "\u2581", "\u2584", "\u2588", "\u2588\u2584"])

    def test_numbers_have_their_interval(self) -> None:
        self.assertEqual([result_tables._number(point) for point in (
            {"value": 84.06, "low": 80.2, "high": 99}, {"value": 7, "low": None, "high": None},
            None)], ["84.1 [80.2-99]", "7", "-"])


if __name__ == "__main__":
    unittest.main()
