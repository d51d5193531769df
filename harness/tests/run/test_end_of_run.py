"""Test the text at the end of a run and its advice."""
from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import os
import unittest
from typing import Any
from unittest import mock

from core import flag_definitions, run_summary
from core.errors import HarnessError
from core.text import command
from run import cli, end_of_run
from tests.core.test_result_tables import cell, summary

OPTIONS = cli.Options(0.1, 4096, 2048, "there")


class End(unittest.TestCase):
    maxDiff = None

    def test_text_of_the_end(self):
        text = end_of_run.end_text(summary(cell("5q", flags=["few_samples"]),
                                        counts={"ok": 9, "timeout": 1}),
                                "there/run-x", "Calls failed again.", "python3 next.py")
        flag = flag_definitions.FLAGS["few_samples"]
        self.assertEqual(text, f"""
m
phase  calls  decode tok/s  TTFT                 prefill tok/s  checks
5q       5/5  100           84.1 ms [80.2-99.0]  -                 4/5
flags: few_samples (5q)

Medians; in brackets, the exact 95 % confidence interval of the median across prompts.
timing error: median 0.02 ms, p99 0.099 ms at 4 lanes (kernel timestamps)
calls: 9 ok, 1 timeout

few_samples: {flag.text} {flag.remedy}

Calls failed again.

run folder: there/run-x
next: python3 next.py""")

    def test_end_without_flags_has_no_empty_lines_for_them(self):
        self.assertNotIn("\n\n\n", end_of_run.end_text(summary(cell("5q")), "f", "", "n"))

    def printed(self, events: list[dict[str, Any]], folder: str = "f", synthetic: bool = False,
                as_json: bool = True) -> tuple[int, Any]:
        """(exit code, JSON document or text) of the end of a run."""
        out = io.StringIO()
        with contextlib.redirect_stdout(out), \
                mock.patch.object(run_summary, "summarize_run", return_value=summary()):
            code = end_of_run.print_end(
                {"run_id": "x", "submitter_handle": "ada", "synthetic": synthetic,
                 "smoke": False, "api_key_used": False,
                 "target": {"class": "loopback"}}, events, folder, "RESUME",
                dataclasses.replace(OPTIONS, json=as_json))
        return code, json.loads(out.getvalue()) if as_json else out.getvalue()

    def test_failed_calls_are_retried_once(self):
        complete = "python3 harness/complete_submission.py 'my runs/run-x'"
        probe, retry = "python3 harness/run_benchmark.py --probe", "RESUME --retry-failed"
        for synthetic, outcomes, expected in (
                (False, ["ok"], complete), (False, ["context_limit", "ok"], complete),
                (True, ["ok"], probe), (False, ["ok", "timeout"], retry),
                (True, ["ok", "timeout"], retry), (False, ["skipped"], retry),
                (False, ["skipped again"] * 2, retry), (False, ["again"] * 2, complete),
                (False, ["again", "again", "http_error"], complete)):
            events = [{"event": "call_finished", "seq": at, "cell_id": outcome if "again" in outcome
                       else str(at), "phase": "5q", "outcome": outcome.partition(" ")[0].replace(
                           "again", "http_error")} for at, outcome in enumerate(outcomes)]
            last = {"event": "run_finished", "exit_code": 1, "counts": {}}
            with self.subTest(outcomes):
                self.assertEqual(self.printed([*events, last], "my runs/run-x", synthetic), (1, {
                    "run_id": "x", "folder": "my runs/run-x", "exit_code": 1,
                    "summary": summary(), "next": expected}))

    def test_timeouts_name_the_way_out(self):
        for phase, words in (("parallel_mixed", ("wait for each other", "--timeout 3600",
                                                 "--phases", "--models", "--num-predict")),
                             ("20q", ("the model is slow", "--timeout 3600"))):
            call = {"event": "call_finished", "seq": 0, "cell_id": "a", "phase": phase,
                    "outcome": "timeout"}
            with self.subTest(phase):
                text = end_of_run.failure_advice([call]).text
                self.assertEqual([word for word in words if word not in text], [])

    def test_answers_that_only_parallel_requests_interrupt_name_the_cause(self):
        def advice(phase: str, engine: str, answered: int = 0) -> str:
            return end_of_run.failure_advice([
                {"event": "endpoint_identified", "engine": {"name": engine}},
                *({"event": "call_finished", "seq": number, "cell_id": str(number), "phase": phase,
                   "outcome": "ok" if number else "interrupted_answer"}
                  for number in range(1 + answered))]).text

        self.assertIn("--interrupt_requests false", advice("parallel_same", "llama-cpp-python"))
        self.assertIn("--phases", advice("parallel_mixed", "unknown"))
        self.assertEqual(advice("20q", "llama-cpp-python"), "")
        self.assertEqual(advice("parallel_same", "Ollama", answered=9), "")     # it died once

    def test_next_command_has_a_relative_path_within_the_current_folder(self):
        here, last = os.getcwd(), {"event": "run_finished", "exit_code": 0, "counts": {"ok": 1}}
        for folder, shown in ((os.path.join(here, "a", "b"), os.path.join("a", "b")),
                              (here + "-other", here + "-other"), ("a", "a")):
            _, document = self.printed([last], folder)
            self.assertEqual((document["folder"], document["next"]),
                             (folder, command("complete_submission", shown)))

    def test_runs_that_ended_early_can_be_resumed(self):
        def interrupted(code: int) -> dict[str, Any]:
            return {"event": "run_interrupted", "exit_code": code, "reason": "gone\x1b"}

        for events, code, following, words in (
                ([], 130, "RESUME", "killed"),
                ([{"event": "run_started"}], 130, "RESUME", "killed"),
                ([interrupted(143)], 143, "RESUME", r"interrupted: gone\x1b"),
                ([interrupted(3)], 3, "RESUME --retry-failed", "interrupted")):
            self.assertEqual(self.printed(events), (code, {
                "run_id": "x", "folder": "f", "exit_code": code, "summary": None,
                "next": following}))
            _, text = self.printed(events, as_json=False)
            self.assertIn(words, text)
            self.assertTrue(text.endswith(f"\nnext: {following}\n"))

    def test_errors_are_printable(self):
        for error, text in ((HarnessError("so"), "so"),
                            (OSError(28, "Full", "a\x1b"), r"a\x1b: Full"),
                            (OSError(28, "Full"), "Full"), (OSError("odd"), "OSError")):
            self.assertEqual(end_of_run.error_text(error), text)


if __name__ == "__main__":
    unittest.main()
