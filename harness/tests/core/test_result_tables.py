"""The lines and tables of a run's results."""

from __future__ import annotations

import unittest
from typing import Any, Optional

from core import result_tables
from tests.core.test_metrics import call

CONTROL = "\x1b[2J\r\u202e\ud83d\x00\n"
HEAD = "12/38  20q             q1                     "
SHOWN = r"\x1b[2J\r\u202e\ud83d\x00\n"


class CallLine(unittest.TestCase):
    def line(self, number: int = 12, total: int = 38, **changes: Any) -> str:
        return result_tables.call_line(number, total, call(**changes))

    def test_answered_call(self):
        self.assertEqual(self.line(), HEAD + "ok   41 tokens  TTFT  200 ms   100 tok/s")

    def test_call_with_too_few_tokens_has_no_rate(self):
        self.assertEqual(
            self.line(response__usage={"prompt_tokens": 9, "completion_tokens": 2},
                      timing__chunk_us=[200_000, 10_000], timing__last_token_us=210_000),
            HEAD + "ok    2 tokens  TTFT  200 ms")

    def test_repeats_and_calls_beyond_the_plan_are_counted(self):
        self.assertTrue(self.line(40, 38, repeat=2).startswith(
            "40/40  20q             q1 again (2)           ok "))

    def test_hello_shows_the_model(self):
        for model, shown in (("m-7b", "m-7b                   ok "),
                             ("a-long-name-of-a-model", "a-long-name-of-a-m...  ok ")):
            line = self.line(phase="hello", question_id="hello", model=model, repeat=2)
            self.assertTrue(line.startswith("12/38  hello           " + shown), line)

    def test_truncated_prompts_are_marked(self):
        self.assertNotEqual(self.line(truncated={"verdict": "yes", "reason": "x"}), self.line())

    def test_failed_call_shows_status_and_message(self):
        for kind, message, status, expected in (
                ("http_error", CONTROL, 500, f"http_error (HTTP 500): {SHOWN}"),
                ("timeout", "the call's time was up", None, "timeout: the call's time was up"),
                ("stream_error", "gone", 200, "stream_error: gone")):
            with self.subTest(kind):
                self.assertEqual(self.line(outcome=kind, response=None, timing=None, error={
                    "kind": kind, "message": message, "status": status, "body_start": None}),
                    HEAD + expected)

    def test_question_ids_are_printable(self):
        self.assertEqual(self.line(question_id=CONTROL).partition("  ok ")[0],
                         f"12/38  20q             {SHOWN}")


# --- a whole run ---------------------------------------------------------------------------------
def numbers(median: Optional[float], low: Optional[float] = None,
            high: Optional[float] = None) -> dict[str, Any]:
    return {"median": median, "ci_low": low, "ci_high": high}


def cell(phase: str, model: str = "m", **changes: Any) -> dict[str, Any]:
    """A row of a summary."""
    return {"model": model, "phase": phase, "cold": phase == "hello", "ok": 5, "failed": 0,
            "lanes": 1, "checks": {"passed": 4, "total": 5}, "flags": [],
            "metrics": {"ttft_ms": numbers(84.06, 80.2, 99.0), "tpot_ms": numbers(10.0),
                        "decode_tokens_per_s": numbers(100.0),
                        "prefill_tokens_per_s": numbers(None)},
            "output_token_throughput_tokens_per_s": None, "speedup_ratio": None,
            "other_models_lanes_mean": None, **changes}


def summary(*cells: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {"cells": list(cells), "run_flags": [], "counts": {"ok": 10},
            "instrument": {"reason": None, "stamp": "kernel", "lanes": [
                {"lanes": 1, "lag_us": {"p50": 10, "p99": 60, "max": 90, "n": 700}},
                {"lanes": 4, "lag_us": {"p50": 20, "p99": 99, "max": 400, "n": 2800}}]}, **changes}


class Tables(unittest.TestCase):
    maxDiff = None

    def test_table_has_a_part_per_model_and_a_row_per_phase(self):
        found = summary(
            cell("hello", ok=1, checks={"passed": 0, "total": 0}),
            cell("5q", ok=4, failed=1, flags=["few_samples", "client_bound"]),
            cell("parallel_same", lanes=4, output_token_throughput_tokens_per_s=312.34,
                 speedup_ratio=3.12, other_models_lanes_mean=1.52), cell("5q", model="n\x1b"))
        self.assertEqual(result_tables.summary_table(found, 80), """\
m
phase          calls  decode tok/s  TTFT                 prefill tok/s  checks
hello (cold)     1/1  100           84.1 ms [80.2-99.0]  -
5q               4/5  100           84.1 ms [80.2-99.0]  -                 4/5
parallel_same    5/5  100           84.1 ms [80.2-99.0]  -                 4/5
parallel_same: 312 tok/s on 4 lanes together, 3.12 x of one lane, beside 1.52 lanes of other models
flags: client_bound (5q), few_samples (5q)

n\\x1b
phase  calls  decode tok/s  TTFT                 prefill tok/s  checks
5q       5/5  100           84.1 ms [80.2-99.0]  -                 4/5""")
        self.assertNotIn("[", result_tables.summary_table(found, 60))

    def test_model_names_are_readable_in_every_script(self):
        name = "\U0001f999\u4e2d\u6587-7b"
        self.assertTrue(result_tables.summary_table(summary(cell("5q", model=name)), 80)
                        .startswith(name + "\n"))

    def test_line_of_a_phase_has_medians_and_counts(self):
        failed = call(outcome="timeout", error={"kind": "timeout"}, response=None, timing=None)
        self.assertEqual(
            result_tables.phase_line("20q", [call(), call(), failed], 12_000_000).split(),
            "20q 2 ok, 1 failed 100 tok/s TTFT 200 ms in 12 s".split())

    def test_calibration_that_was_skipped_shows_why(self):
        self.assertIn("--no-calibration", result_tables.instrument_line(summary(instrument={
            "reason": "--no-calibration", "stamp": None, "lanes": []})))

    def test_each_flag_is_explained_once(self):
        both = summary(cell("5q", flags=["client_bound"]), cell("20q", flags=["client_bound"]),
                       run_flags=["not_calibrated"])
        self.assertEqual([line.partition(":")[0] for line in result_tables.flags_explained(both)],
                         ["client_bound", "not_calibrated"])


if __name__ == "__main__":
    unittest.main()
