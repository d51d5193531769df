"""Test the levels of ramp and depth: their plan, and when a curve ends."""
from __future__ import annotations

import unittest
from typing import Any, Optional
from unittest import mock

from core import curve_levels

Json = dict[str, Any]


def call(lane: int = 0, started_ms: int = 0, first_ms: int = 100, tokens: int = 10,
         gap_ms: int = 10, segment: int = 0, outcome: str = "ok", cut: str = "no") -> Any:
    """A call of `tokens` chunks; usage counts two tokens per chunk."""
    chunk_us = [first_ms * 1000] + [gap_ms * 1000] * (tokens - 1)
    last_us = sum(chunk_us)
    return {"lane": lane, "segment": segment, "outcome": outcome, "truncated": {"verdict": cut},
            "response": {"usage": {"completion_tokens": 2 * tokens}, "server_timings": None},
            "timing": {"started_us": started_ms * 1000, "first_token_us": chunk_us[0],
                       "last_token_us": last_us, "done_us": last_us, "chunk_us": chunk_us}}


def level(lanes: int, slots: int, rounds: int = 3) -> list[Any]:
    """Calls on so many lanes to a server that answers `slots` of them at once, 190 ms each."""
    made, free_ms = [], [0] * slots
    for index in range(rounds * lanes):
        lane, asked_ms = index % lanes, 0 if index < lanes else made[index - lanes][1]
        slot = min(range(slots), key=lambda one: free_ms[one])
        begin_ms = max(asked_ms, free_ms[slot])
        free_ms[slot] = begin_ms + 190
        made.append((call(lane, asked_ms, begin_ms - asked_ms + 100), begin_ms + 190))
    return [one for one, _ in made]


class Plan(unittest.TestCase):
    def test_levels_of_lanes_double_up_to_the_most(self) -> None:
        for lanes, expected in ((4, [1, 2, 4, 8, 16]), (16, [1, 2, 4, 8, 16]),
                                (24, [1, 2, 4, 8, 16, 24]), (64, [1, 2, 4, 8, 16, 32, 64]),
                                (256, [1, 2, 4, 8, 16, 32, 64, 128, 256])):
            self.assertEqual(curve_levels.ramp_levels(lanes), expected)

    def test_levels_of_depth_fit_the_context(self) -> None:
        for context, expected in ((600, [1024]), (4607, [1024]), (4608, [1024, 4096]),
                                  (33_280, [1024, 4096, 8192, 16384, 32768]),
                                  (140_000, [1024, *(4096 << n for n in range(6))])):
            self.assertEqual(curve_levels.depth_levels(context), expected)

    def test_each_lane_answers_three_questions_and_each_level_six(self) -> None:
        self.assertEqual([curve_levels.calls_count(lanes) for lanes in (1, 2, 4, 16)],
                         [6, 6, 12, 48])


class Throughput(unittest.TestCase):
    def test_tokens_count_until_the_first_lane_has_nothing_left_to_ask(self) -> None:
        # Lane 0 ends at 380 ms, when lane 1 has sent its first 10 chunks and 9 of the second call.
        calls = [call(0, 0), call(0, 190), call(1, 0), call(1, 190, gap_ms=11)]
        self.assertEqual(curve_levels.busy_spans(calls, 2), [(0, 0, 380_000)])
        self.assertAlmostEqual(curve_levels.throughput(calls, 2) or 0, 2 * 39 / 0.38)

    def test_each_process_counts_while_all_its_lanes_were_busy(self) -> None:
        calls = [call(0), call(1), call(0, 0, segment=1)]
        self.assertEqual(curve_levels.busy_spans(calls, 2), [(0, 0, 190_000)])
        self.assertIsNone(curve_levels.throughput(calls[1:], 2))

    def test_most_at_once_is_the_number_of_slots(self) -> None:
        self.assertEqual([curve_levels.most_at_once(level(8, slots)) for slots in (1, 3, 8)],
                         [1, 3, 8])


class Ends(unittest.TestCase):
    def ended(self, lanes: int, slots: int, calls: Optional[list[Any]] = None) -> Optional[str]:
        made = [(one, level(one, slots, 6 if one == 1 else 3))
                for one in curve_levels.ramp_levels(1) if one < lanes]
        end = curve_levels.ramp_end([*made, (lanes, calls or level(lanes, slots))])
        return end and end.kind

    def test_two_levels_in_a_row_without_growth_end_the_ramp(self) -> None:
        for rates, expected in (
                ((30.0,), None), ((30.0, 30.0), None), ((30.0, 30.0, 55.0), None),
                ((30.0, 30.0, 31.4), "30 (1), 30 (2), 31.4 (4)"),
                ((30.0, 60.0, 50.0), None), ((30.0, 60.0, 50.0, 62.9), "62.9 (8)"),
                ((30.0, 60.0, 50.0, 63.0), None), ((30.0, 60.0, 50.0, None), None)):
            with mock.patch.object(curve_levels, "throughput", side_effect=rates):
                end = curve_levels.ramp_end([(1 << at, [call()] * 9) for at in range(len(rates))])
            self.assertEqual(end and end.kind, expected and "flat")
            self.assertIn(expected or "", end.reason if end else "")

    def test_ramp_ends_where_lanes_bring_nothing_or_wait(self) -> None:
        self.assertEqual([self.ended(lanes, 4) for lanes in (1, 2, 4)], [None] * 3)
        self.assertIn(self.ended(8, 4), ("flat", "queued"))
        self.assertEqual((self.ended(8, 6), self.ended(16, 16), self.ended(2, 1)),
                         ("queued", None, "queued"))

    def test_ramp_ends_if_half_of_a_level_fails_or_the_server_is_gone(self) -> None:
        bad = call(outcome="timeout")
        gone = call(outcome="connection_lost")
        for calls, kind in (([*level(4, 4)[:6], *[bad] * 6], "failed"),
                            ([*level(4, 4)[:7], *[bad] * 5], None),
                            ([*level(4, 4)[:9], *[gone] * 3], "failed")):
            self.assertEqual(self.ended(4, 4, calls), kind)

    def test_depth_ends_with_a_failure_or_a_truncated_prompt(self) -> None:
        found = [curve_levels.depth_end([call(), one], 4096) for one in (
            call(), call(outcome="timeout"), call(outcome="context_limit"),
            call(outcome="http_error"), call(cut="yes"))]
        self.assertEqual([end and end.kind for end in found],
                         [None, "timeout", "context", "failed", "context"])

    def test_depth_ends_where_the_context_does(self) -> None:
        found = [curve_levels.context_end(4096, tokens) for tokens in (4608, 4607, None)]
        self.assertEqual([end and end.kind for end in found], [None, "context", None])

    def test_memory_is_short_if_hardly_any_is_free_or_swap_grows(self) -> None:
        def sample(free_mib: Optional[int], swap_mib: Optional[int]) -> Json:
            return {"memory_available_bytes": free_mib and free_mib << 20,
                    "swap_used_bytes": swap_mib and swap_mib << 20}

        first = sample(4000, 100)
        found = [curve_levels.memory_end(8, first, one) for one in (
            first, sample(4000, 356), sample(4000, 357), sample(255, 100), sample(None, None))]
        self.assertEqual([end and end.kind for end in found],
                         [None, None, "memory", "memory", None])


if __name__ == "__main__":
    unittest.main()
