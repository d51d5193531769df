"""Test ramp and depth with real runs: where they end, and that they can be added and resumed."""
from __future__ import annotations

import contextlib
import tempfile
import unittest
from typing import Any
from unittest import mock

from core import curve_levels, ledger
from machine import gauges
from tests import runs
from tests.random_resumes import problems
from tests.scripted_endpoint import ANSWER, GONE, HANG, Request, Script, ScriptedEndpoint
from tests.scripted_runs import QUICK

RUN_ID = "11111111-2222-4333-8444-555555555555"
GROWING = mock.patch.multiple(curve_levels, throughput=lambda _, lanes: float(lanes),
                              most_at_once=lambda _: 99)
FAST = ("--models", "swift:5000", "--first-token-ms", "1", "--prefill-tokens-per-s", "1000000")


class Curves(unittest.TestCase):
    def setUp(self) -> None:
        stack = contextlib.ExitStack()
        self.addCleanup(stack.close)
        self.out_dir = stack.enter_context(tempfile.TemporaryDirectory())
        for patch in QUICK:
            stack.enter_context(patch)

    def run_it(self, url: str, *words: str) -> runs.Outcome:
        return runs.run("--target-url", url, "--out-dir", self.out_dir, "--run-id", RUN_ID,
                        "--no-calibration", *words)

    def run_against(self, *words: str, flags: tuple[str, ...] = ()) -> runs.Outcome:
        with runs.Endpoint(*FAST, *flags) as endpoint:
            return self.run_it(endpoint.url, *words)

    @property
    def folder(self) -> str:
        return runs.folder_of(self.out_dir, RUN_ID)

    def calls(self, phase: str) -> list[Any]:
        return [event for event in runs.events_of(self.folder)
                if event["event"] == "call_finished" and event["phase"] == phase]

    def ends(self) -> list[tuple[str, int, str]]:
        return [(event["phase"], event["level"], event["kind"])
                for event in runs.events_of(self.folder) if event["event"] == "curve_ended"]

    def assert_fine(self) -> None:
        self.assertEqual(problems(self.folder), [])

    def test_ramp_finds_the_slots_of_the_server(self) -> None:
        outcome = self.run_against("--phases", "ramp", "--num-predict", "40", "--json",
                                   flags=("--slots", "2", "--models", "swift:400"))
        [(phase, level, kind)] = self.ends()
        self.assertEqual((outcome.code, phase, level), (0, "ramp", 4), outcome.err)
        self.assertIn(kind, ("flat", "queued"))
        [curve] = outcome.document["summary"]["curves"]
        self.assertEqual((curve["ok"], curve["failed"]), (24, 0))
        self.assertIn(curve["knee"], (2, 4))     # a busy machine sends the next request late
        self.assert_fine()

    def test_depth_ends_where_the_context_does(self) -> None:
        outcome = self.run_against("--phases", "5q,depth", "--num-ctx", "9000",
                                   flags=("--context", "6000"))
        self.assertEqual((outcome.code, self.ends()), (0, [("depth", 8192, "context")]))
        calls = self.calls("depth")
        self.assertEqual([(call["level"], call["question_id"]) for call in calls], [
            (depth, question) for depth in (1024, 4096) for question in ("cold", "continued")])
        tokens = [call["response"]["usage"]["prompt_tokens"] for call in calls]
        self.assertAlmostEqual(tokens[2], 4096, delta=150)      # sized by the count of the first
        self.assertEqual(calls[2]["request"]["salt"], calls[3]["request"]["salt"])
        self.assertEqual(len({call["request"]["salt"] for call in calls}), 2)
        self.assertIn("depth: ended at 8192 tokens of context (context): ", outcome.err)
        self.assert_fine()

    def test_context_of_depth_is_no_option_of_the_other_phases(self) -> None:
        self.run_against("--phases", "5q,depth", "--num-ctx", "5000")
        manifest = ledger.manifest_of(self.folder)
        self.assertEqual(manifest["canonical_options_overrides"], {})
        self.assertEqual([entry.get("context_tokens") for entry in manifest["plan"]["phases"]],
                         [None, None, 5000])

    def test_curves_can_be_added_to_a_finished_run(self) -> None:
        with runs.Endpoint(*FAST) as endpoint:
            self.run_it(endpoint.url, "--phases", "5q")
            before = ledger.manifest_of(self.folder)
            for words in (("--phases", "depth"), ("--phases", "depth"),
                          ("--phases", "ramp", "--num-predict", "2048", "--lanes", "17")):
                outcome = self.run_it(endpoint.url, *words)
                self.assertEqual(outcome.code, 0, outcome.err)
                self.assert_fine()
            refused = self.run_it(endpoint.url, "--phases", "20q")
        self.assertEqual((refused.code, ledger.manifest_of(self.folder)), (2, before))
        self.assertIn("cannot be resumed like this", refused.err)
        added = [event["phases"] for event in runs.events_of(self.folder)
                 if event["event"] == "phases_added"]
        self.assertEqual([[entry["phase"] for entry in one] for one in added],
                         [["depth"], ["ramp"]])
        self.assertEqual(added[1][0]["levels"], [1, 2, 4, 8, 16, 17])

    def test_server_that_dies_at_sixteen_lanes_ends_the_ramp(self) -> None:
        asked = []

        def choose(_: Request) -> Script:
            asked.append(1)
            return ANSWER if len(asked) <= 52 else GONE     # hello, 6, 6, 12, 24, and 3 at 16 lanes

        with GROWING, ScriptedEndpoint(then=choose) as endpoint:
            outcome = self.run_it(endpoint.url, "--phases", "ramp")
            self.assertEqual((outcome.code, self.ends()), (3, [("ramp", 16, "failed")]))
            self.assertIn("ramp: ended at 16 lanes (failed): ", outcome.err)
            asked.clear()                                       # it was started again
            before = len(self.calls("ramp"))
            resumed = self.run_it(endpoint.url, "--retry-failed")
            self.assertEqual((resumed.code, len(self.calls("ramp"))), (0, before), resumed.err)
            self.assert_fine()

    def test_killed_run_resumes_within_its_level(self) -> None:
        for phase, answered, planned in (("ramp", 17, 96), ("depth", 2, 10)):
            self.kill_and_resume(phase, answered, planned)

    def kill_and_resume(self, phase: str, answered: int, planned: int) -> None:
        """Kill a process in its first call after so many answers, and resume its run."""
        asked, children = list[Request](), list[Any]()

        def choose(request: Request) -> Script:
            asked.append(request)
            if len(asked) > answered:
                children.pop().kill() if children else None
            return ANSWER

        with self.subTest(phase, answered=answered), GROWING, \
                ScriptedEndpoint(then=choose) as endpoint, \
                tempfile.TemporaryDirectory() as self.out_dir:
            process = runs.start(
                "--target-url", endpoint.url, "--out-dir", self.out_dir, "--run-id", RUN_ID,
                "--no-calibration", "--phases", phase,
                prelude="from core import curve_levels\n"
                "curve_levels.throughput = lambda _, lanes: float(lanes)\n"
                "curve_levels.most_at_once = lambda _: 99")
            children.append(process)
            self.assertNotIn(runs.ended(process).code, (0, 1, 2, 3))
            self.assertIn(len(self.calls(phase)), range(answered - 5, answered))
            resumed = self.run_it(endpoint.url)
            self.assertEqual((resumed.code, len(self.calls(phase)), self.ends()),
                             (0, planned, []), resumed.err)
            self.assert_fine()

    def test_plan_counts_every_level_and_estimates_them(self) -> None:
        document = self.run_against("--phases", "ramp,depth", "--plan", "--json",
                                    flags=("--models", "swift:60", "--context", "40000")).document
        self.assertEqual(document["calls"], 1 + 6 + 6 + 12 + 24 + 48 + 2 * 5)
        self.assertGreater(document["estimate"]["most_s"], 96 * 256 / 60)

    def test_call_without_time_ends_depth(self) -> None:
        def choose(request: Request) -> Script:
            return (HANG,) if len(request.body) > 8000 else ANSWER

        with ScriptedEndpoint(then=choose) as endpoint:
            outcome = self.run_it(endpoint.url, "--phases", "depth", "--timeout", "0.5")
        self.assertEqual((outcome.code, self.ends()), (0, [("depth", 4096, "timeout")]))
        self.assert_fine()

    def test_machine_that_swaps_ends_a_curve(self) -> None:
        real, swapped = gauges.Sampler.sample, []

        def sample(self: Any, whole: bool = False) -> dict[str, Any]:
            swapped.append(300 << 20)
            return {**real(self), "swap_used_bytes": sum(swapped)}

        with mock.patch.object(gauges.Sampler, "sample", sample), \
                mock.patch.object(gauges, "SAMPLE_EVERY_S", 0.05), \
                mock.patch("check.ledger_order.MIN_SAMPLE_GAP_US", 0), \
                mock.patch("check.accounting.LEAST_TYPICAL_US", 0):
            outcome = self.run_against("--phases", "ramp", "--num-predict", "20",
                                       flags=("--models", "swift:100"))
            self.assertEqual([(phase, kind) for phase, _, kind in self.ends()],
                             [("ramp", "memory")])
            self.assertIn("the machine swaps", outcome.err)
            self.assert_fine()


if __name__ == "__main__":
    unittest.main()
