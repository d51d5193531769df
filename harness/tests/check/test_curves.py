"""Test what the check finds in runs with ramp and depth: honest ones, and edited ones."""
from __future__ import annotations

import unittest
from typing import Any, Callable

from check import plausibility
from tests.check.test_check_submission import calls_of, check, codes, one
from tests.valid_run import Made, Spec, make

RAMP, DEPTH = Spec(phases="ramp"), Spec(phases="depth", more=("--num-ctx", "9000"))


def change_call(phase: str, at: int, **fields: Any) -> Callable[[Made], None]:
    return lambda made: calls_of(made, phase)[at].update(fields)


def another_prompt(made: Made) -> None:
    calls_of(made, "depth")[0]["request"]["messages_sha256"] = "0" * 64


def end_early(made: Made) -> None:
    """Leave out what the last level of ramp showed."""
    for call in [call for call in calls_of(made, "ramp") if call["level"] == 16]:
        made.events.remove(call)
    line = one(made, "phase_finished", 1)
    line.update(planned=line["planned"] - 48, ok=line["ok"] - 48)
    at = made.events.index(line)
    made.events.insert(at, {
        **{name: line[name] for name in ("seq", "run_id", "segment", "at", "t_us", "model")},
        "event": "curve_ended", "phase": "ramp", "level": 16, "kind": "flat", "reason": "it is"})


def drop_end(made: Made) -> None:
    made.events.remove(one(made, "curve_ended"))


def other_reason(made: Made) -> None:
    one(made, "curve_ended")["reason"] = "the context in force is 9000 tokens"


def swap_levels(made: Made) -> None:
    first, other = (calls_of(made, "ramp")[at] for at in (6, 0))
    first["level"], other["level"] = other["level"], first["level"]


def add_phase(made: Made) -> None:
    line = one(made, "phase_finished")
    made.events.insert(made.events.index(line) + 1, {
        **{name: line[name] for name in ("seq", "run_id", "segment", "at", "t_us")},
        "event": "phases_added", "phases": [dict(made.manifest["plan"]["phases"][1],
                                                 phase="depth")]})


CASES = (
    (DEPTH, another_prompt, "ledger-altered", "messages_sha256"),
    (DEPTH, drop_end, "ledger-unfinished", "no line for the planned call"),
    (DEPTH, other_reason, "ledger-altered", "depth ends with"),
    (RAMP, end_early, "ledger-altered", "ramp ends with"),
    (RAMP, swap_levels, "ledger-altered", "level is"),
    (RAMP, change_call("ramp", 6, outcome="timeout"), "ledger-altered", "outcome"),
    (RAMP, add_phase, "ledger-altered", "cannot be added here"),
    (DEPTH, lambda made: made.manifest["plan"]["phases"][1].update(source_sha256="0" * 64),
     "manifest-altered", "source_sha256"),
    (DEPTH, lambda made: made.manifest["plan"]["phases"][1]["levels"].pop(), "manifest-altered",
     "levels"),
)


class Runs(unittest.TestCase):
    def test_honest_runs_have_no_finding(self) -> None:
        for spec in (Spec(phases="5q,ramp,depth", kill_after=(30, 40), torn=b'{"a'),
                     Spec(phases="ramp,depth", engine="vllm", more=("--repeats", "2"))):
            with self.subTest(spec=spec):
                report = check(make(spec))
                self.assertEqual(codes(report), [], report.text(1))

    def test_edited_runs_are_found(self) -> None:
        for spec, change, code, words in CASES:
            with self.subTest(words):
                made = make(spec)
                change(made)
                report = check(made.sealed())
                self.assertIn(words, " ".join(found.what for found in report.findings()
                                              if found.code == code), report.text(1))


class Shapes(unittest.TestCase):
    def test_decode_does_not_get_faster_with_depth_nor_a_lane_with_lanes(self) -> None:
        def found(phase: str, metric: str, *pairs: tuple[int, float]) -> int:
            points = [{"at": at, "value": value} for at, value in pairs]
            return len(list(plausibility._curve_shapes({(phase, metric): points})))

        throughput = "output_token_throughput_tokens_per_s"
        self.assertEqual(
            [found("depth", "decode_tokens_per_s", (1024, 50.0), (4096, 48.0)),
             found("depth", "decode_tokens_per_s", (1024, 50.0), (4096, 70.0)),
             found("ramp", throughput, (1, 50.0), (2, 99.0)),
             found("ramp", throughput, (1, 50.0), (2, 140.0))], [0, 1, 0, 1])


if __name__ == "__main__":
    unittest.main()
