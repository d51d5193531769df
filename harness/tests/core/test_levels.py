"""Test the levels of ramp and depth: their plan, their prompts, and when a curve ends."""
from __future__ import annotations

import os
import unittest
from typing import Any, Optional
from unittest import mock

from core import answer_checks, levels
from core.suites import Question, load_suites
from tests import runs

SUITES = load_suites(os.path.join(runs.HARNESS, "suites"), answer_checks.FORMAT_RULES)
TEXTS = levels.source_texts(SUITES)
QUESTION = Question("cold", "x" * 96)
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
            self.assertEqual(levels.ramp_levels(lanes), expected)

    def test_levels_of_depth_fit_the_context(self) -> None:
        for context, expected in ((600, [1024]), (4607, [1024]), (4608, [1024, 4096]),
                                  (33_280, [1024, 4096, 8192, 16384, 32768]),
                                  (140_000, [1024, *(4096 << n for n in range(6))])):
            self.assertEqual(levels.depth_levels(context), expected)

    def test_each_lane_answers_three_questions_and_each_level_six(self) -> None:
        self.assertEqual([levels.calls_count(lanes) for lanes in (1, 2, 4, 16)], [6, 6, 12, 48])


class Prompts(unittest.TestCase):
    def test_source_never_changes_within_the_release(self) -> None:
        self.assertEqual(levels.source_sha256(SUITES)[:16], "4d06e14deaf96861")

    def test_document_has_its_length_and_a_code_at_head_middle_and_tail(self) -> None:
        for depth, chars in ((1024, 4000), (8192, 33_333), (32_768, 140_001)):
            text, codes = levels.document(TEXTS, depth, chars), levels.canaries(depth)
            self.assertEqual((len(text), len(set(codes))), (chars, 3))
            places = [text.index(code) / chars for code in codes]
            self.assertLess(places[0], 0.01)
            self.assertAlmostEqual(places[1], 0.5, delta=0.02)
            self.assertGreater(places[2], 0.99)
            self.assertEqual([text.count(code) for code in codes], [1, 1, 1])

    def test_documents_of_two_depths_have_other_codes(self) -> None:
        self.assertFalse(set(levels.canaries(1024)) & set(levels.canaries(4096)))

    def test_prompts_are_sized_by_the_count_of_the_server(self) -> None:
        for counted, chars in ((None, 4096), ((3000, 1000), 3072), ((3000, 1), 8192),
                               ((10, 3000), 1024)):       # a count that cannot be right
            self.assertEqual(levels.document_chars(1024, QUESTION, counted), chars - 96)


class Throughput(unittest.TestCase):
    def test_tokens_count_until_the_first_lane_has_nothing_left_to_ask(self) -> None:
        # Lane 0 ends at 380 ms, when lane 1 has sent its first 10 chunks and 9 of the second call.
        calls = [call(0, 0), call(0, 190), call(1, 0), call(1, 190, gap_ms=11)]
        self.assertEqual(levels.busy_spans(calls, 2), [(0, 0, 380_000)])
        self.assertAlmostEqual(levels.throughput(calls, 2) or 0, 2 * 39 / 0.38)

    def test_each_process_counts_while_all_its_lanes_were_busy(self) -> None:
        calls = [call(0), call(1), call(0, 0, segment=1)]
        self.assertEqual(levels.busy_spans(calls, 2), [(0, 0, 190_000)])
        self.assertIsNone(levels.throughput(calls[1:], 2))

    def test_most_at_once_is_the_number_of_slots(self) -> None:
        self.assertEqual([levels.most_at_once(level(8, slots)) for slots in (1, 3, 8)], [1, 3, 8])


class Ends(unittest.TestCase):
    def ended(self, lanes: int, slots: int, calls: Optional[list[Any]] = None) -> Optional[str]:
        made = [(one, level(one, slots, 6 if one == 1 else 3))
                for one in levels.ramp_levels(1) if one < lanes]
        end = levels.ramp_end([*made, (lanes, calls or level(lanes, slots))])
        return end and end.kind

    def test_two_levels_in_a_row_without_growth_end_the_ramp(self) -> None:
        for rates, expected in (
                ((30.0,), None), ((30.0, 30.0), None), ((30.0, 30.0, 55.0), None),
                ((30.0, 30.0, 31.4), "30 (1), 30 (2), 31.4 (4)"),
                ((30.0, 60.0, 50.0), None), ((30.0, 60.0, 50.0, 62.9), "62.9 (8)"),
                ((30.0, 60.0, 50.0, 63.0), None), ((30.0, 60.0, 50.0, None), None)):
            with mock.patch.object(levels, "throughput", side_effect=rates):
                end = levels.ramp_end([(1 << at, [call()] * 9) for at in range(len(rates))])
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
        found = [levels.depth_end([call(), one], 4096) for one in (
            call(), call(outcome="timeout"), call(outcome="context_limit"),
            call(outcome="http_error"), call(cut="yes"))]
        self.assertEqual([end and end.kind for end in found],
                         [None, "timeout", "context", "failed", "context"])

    def test_depth_ends_where_the_context_does(self) -> None:
        found = [levels.context_end(4096, tokens) for tokens in (4608, 4607, None)]
        self.assertEqual([end and end.kind for end in found], [None, "context", None])

    def test_memory_is_short_if_hardly_any_is_free_or_swap_grows(self) -> None:
        def sample(free_mib: Optional[int], swap_mib: Optional[int]) -> Json:
            return {"memory_available_bytes": free_mib and free_mib << 20,
                    "swap_used_bytes": swap_mib and swap_mib << 20}

        first = sample(4000, 100)
        found = [levels.memory_end(8, first, one) for one in (
            first, sample(4000, 356), sample(4000, 357), sample(255, 100), sample(None, None))]
        self.assertEqual([end and end.kind for end in found],
                         [None, None, "memory", "memory", None])
        self.assertIsNone(levels.memory_end(8, None, None))


if __name__ == "__main__":
    unittest.main()
