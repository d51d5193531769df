"""Which of two runs is faster, and when nothing is said."""
from __future__ import annotations

import copy
import unittest
from typing import Any, Callable

from compare import two_runs
from core import ledger, metric_definitions

from tests import made_submissions
from tests.made_submissions import Spec

Json = dict[str, Any]
MARKS = ("decode_tokens_per_s", "ttft_ms")


MADE: dict[str, tuple[Json, list[Json]]] = {}


def evidence(spec: Spec) -> tuple[Json, list[Json]]:
    """Manifest and ledger, made once for equal specs."""
    if repr(spec) not in MADE:
        manifest = made_submissions.make_manifest(spec)
        MADE[repr(spec)] = manifest, made_submissions.make_events(spec, manifest)
    return MADE[repr(spec)]


def run(seed: int = 1, factor: float = 1.0, change: Any = None, **spec: Any) -> two_runs.Run:
    """A made run, all its times longer by a factor; `change(manifest, events)` comes last."""
    manifest, events = evidence(Spec(seed=seed, noise=0.02, **{"phases": "5q,20q", **spec}))
    if factor != 1:
        events = made_submissions.stretched(events, factor)
    if change:
        manifest, events = copy.deepcopy((manifest, events))
        change(manifest, events)
    return two_runs.run_of(manifest, events, ledger.latest_calls(events))


def rows_of(a: Any, b: Any, phase: str = "20q") -> dict[str, Json]:
    """{metric: row} of one phase; a side is a run or a list of runs."""
    sides = [side if isinstance(side, list) else [side] for side in (a, b)]
    return {row["metric"]: row for row in two_runs.compare_sides(*sides)["rows"]
            if row["phase"] == phase}


def told(a: Any, b: Any, metric: str = "decode_tokens_per_s", phase: str = "20q") -> Any:
    row = rows_of(a, b, phase)[metric]
    return row["verdict"], row["standing"], row["reason"]


def with_calls(change: Callable[[Json], None], phase: str = "20q") -> Any:
    def apply(manifest: Json, events: list[Json]) -> None:
        for event in events:
            if event["event"] == "call_finished" and event["phase"] == phase:
                change(event)
    return apply


def busy(manifest: Json, events: list[Json]) -> None:
    """Other programs use the processors all the time."""
    for event in events:
        if event["event"] == "host_sampled":
            event["other_cpu_busy_ratio"] = 0.9


class OneMachine(unittest.TestCase):
    """What issue and design ask for: calm about noise, sure about a difference."""

    def test_two_runs_of_one_machine_cannot_be_told_apart(self) -> None:
        rows = two_runs.compare_sides([run(1, phases="all")], [run(2, phases="all")])["rows"]
        verdicts = [row["verdict"] for row in rows]
        self.assertGreaterEqual(verdicts.count("cannot tell"), 0.9 * len(verdicts), rows)
        self.assertGreater(len(verdicts), 25)

    def test_all_times_longer_by_a_fifth_are_slower(self) -> None:
        rows = two_runs.compare_sides([run(1, phases="all")], [run(2, 1.2, phases="all")])["rows"]
        verdicts = [row["verdict"] for row in rows
                    if row["metric"] in MARKS and row["ratio"]["ci_low"] is not None]
        self.assertGreaterEqual(verdicts.count("slower"), 0.9 * len(verdicts), rows)
        self.assertEqual(len(verdicts), 8)          # 20q, parallel_same and both edge phases

    def test_a_run_and_itself_stretched_differ_by_exactly_that(self) -> None:
        found = rows_of(run(), run(1, 1.25))
        self.assertEqual({name: row["ratio"]["median"] for name, row in found.items()}, {
            "decode_tokens_per_s": 0.8, "ttft_ms": 1.25, "tpot_ms": 1.25, "e2el_ms": 1.25,
            "prefill_tokens_per_s": None})

    def test_swapping_the_sides_swaps_the_verdict(self) -> None:
        slow = run(2, 1.2)
        self.assertEqual([told(run(), slow), told(slow, run())],
                         [("slower", "indicative", None), ("faster", "indicative", None)])


class Verdicts(unittest.TestCase):
    def test_answers_of_other_lengths_are_compared_over_what_they_share(self) -> None:
        """B goes on for as long again, at half the speed."""
        def longer(call: Json) -> None:
            timing, more = call["timing"], [2 * gap for gap in call["timing"]["chunk_us"][1:]]
            timing["chunk_us"] = [*timing["chunk_us"], *more]
            timing["last_token_us"] += sum(more)
            timing["done_us"] += sum(more)
            call["response"]["text"] *= 2
            call["response"]["usage"]["completion_tokens"] += len(more)

        found = rows_of(run(), run(change=with_calls(longer)))
        for metric in ("decode_tokens_per_s", "tpot_ms"):
            self.assertAlmostEqual(found[metric]["ratio"]["median"], 1, 4, metric)
        self.assertGreater(found["e2el_ms"]["ratio"]["median"], 2)

    def test_a_gap_within_a_runs_own_spread_tells_nothing_of_one_run_a_side(self) -> None:
        def uneven(call: Json) -> None:
            if len(call["question_id"]) % 2:
                call.update(made_submissions.stretched([call], 1.5)[0])

        pairs = [[run(i, factor, change=with_calls(uneven)) for i in seeds]
                 for factor, seeds in ((1.0, (1, 2, 3)), (1.2, (4, 5, 6)))]
        verdict, standing, reason = told(pairs[0][0], pairs[1][0])
        self.assertEqual((verdict, standing), ("cannot tell", None))
        self.assertRegex(reason, "^it varies by [34][0-9]%$")
        self.assertEqual(told(*pairs), ("slower", "confirmed", None))

    def test_a_gap_below_five_per_cent_is_none(self) -> None:
        self.assertEqual(told(run(), run(1, 1.03)),
                         ("cannot tell", None, "under 5% apart"))

    def test_an_interval_that_holds_one_tells_nothing(self) -> None:
        self.assertEqual(told(run(), run(2)), ("cannot tell", None, "1 is within"))

    def test_few_questions_have_no_interval(self) -> None:
        self.assertEqual(told(run(), run(2, 1.2), phase="5q"),
                         ("cannot tell", None, "5 pairs, an interval needs 6"))

    def test_three_runs_a_side_fully_apart_confirm(self) -> None:
        a, b = [run(i) for i in (1, 2, 3)], [run(i, 1.2) for i in (4, 5, 6)]
        self.assertEqual(told(a, b), ("slower", "confirmed", None))
        self.assertEqual(told(b, a), ("faster", "confirmed", None))

    def test_three_runs_a_side_confirm_where_questions_are_few(self) -> None:
        a, b = [run(i) for i in (1, 2, 3)], [run(i, 1.2) for i in (4, 5, 6)]
        self.assertEqual(told(a, b, phase="5q"), ("slower", "confirmed", None))

    def test_two_runs_on_one_side_are_indicative(self) -> None:
        a, b = [run(i) for i in (1, 2)], [run(i, 1.2) for i in (4, 5, 6)]
        self.assertEqual(told(a, b), ("slower", "indicative", None))

    def test_a_run_among_those_of_the_other_side_leaves_it_open(self) -> None:
        a, b = [run(1), run(2), run(3, 1.3)], [run(i, 1.2) for i in (4, 5, 6)]
        self.assertEqual(told(a, b), ("cannot tell", None, "the runs overlap"))

    def test_runs_apart_by_less_than_five_per_cent_leave_it_open(self) -> None:
        a, b = [run(1, 1 + i / 1000) for i in range(3)], [run(1, 1.03 + i / 1000) for i in range(3)]
        self.assertEqual(told(a, b), ("cannot tell", None, "under 5% apart"))

    def test_a_verdict_from_a_busy_machine_says_so(self) -> None:
        cases = {(False, True): "busy_host: B", (True, False): "busy_host: A",
                 (True, True): "busy_host: A, B"}
        for (a, b), reason in cases.items():
            sides = run(change=busy if a else None), run(2, 1.2, change=busy if b else None)
            self.assertEqual(told(*sides), ("slower", "indicative", reason))

    def test_three_runs_a_side_confirm_all_the_same(self) -> None:
        a, b = [run(i, change=busy) for i in (1, 2, 3)], [run(i, 1.2) for i in (4, 5, 6)]
        self.assertEqual(told(a, b), ("slower", "confirmed", None))

    def test_a_longer_answer_is_no_faster_server(self) -> None:
        self.assertEqual(told(run(), run(tokens=80), "e2el_ms")[0], "slower")
        self.assertEqual(told(run(), run(tokens=80))[0], "cannot tell")


class NotComparable(unittest.TestCase):
    def test_other_options_are_named_and_no_verdict_is_given(self) -> None:
        found = two_runs.compare_sides([run()], [run(2, 1.2, overrides={"num_predict": 64})])
        self.assertEqual(found["differences"], ["num_predict is 2048 in A, 64 in B"])
        self.assertEqual({row["verdict"] for row in found["rows"]}, {"not comparable"})

    def test_a_rehearsal_is_not_compared_with_a_model(self) -> None:
        self.assertEqual(told(run(), run(2, synthetic=True)),
                         ("not comparable", None, "synthetic is false in A, true in B"))
        self.assertEqual(told(run(synthetic=True), run(2, synthetic=True))[0], "cannot tell")

    def test_another_harness_is_named(self) -> None:
        def change(manifest: Json, events: list[Json]) -> None:
            manifest["harness_version"] = "public-0"

        self.assertEqual(told(run(), run(2, change=change))[2],
                         "harness version is public-1 in A, public-0 in B")

    def test_a_side_that_is_not_one_thing_is_named(self) -> None:
        mixed = [run(2), run(3, overrides={"temperature": 0.7})]
        self.assertEqual(told(run(), mixed)[2], "temperature is 0.1 in A, 0.1 and 0.7 in B")
        self.assertEqual(told(mixed, mixed)[2], "temperature is 0.1 and 0.7 in A, 0.1 and 0.7 in B")

    def test_other_lanes_are_another_task_in_their_phase_alone(self) -> None:
        a, b = run(phases="20q,parallel_same"), run(2, phases="20q,parallel_same", lanes=2)
        self.assertEqual(told(a, b, phase="parallel_same"),
                         ("not comparable", None, "lanes are 2 and 4"))
        self.assertEqual(told(a, b)[0], "cannot tell")

    def test_a_cache_spoils_first_tokens_and_no_rates(self) -> None:
        rows = rows_of(run(), run(2, cached_share=0.5))
        self.assertEqual({name: row["verdict"] for name, row in rows.items()}, {
            "decode_tokens_per_s": "cannot tell", "tpot_ms": "cannot tell",
            "ttft_ms": "not comparable", "e2el_ms": "not comparable",
            "prefill_tokens_per_s": "not comparable"})
        self.assertEqual(rows["ttft_ms"]["reason"], "cached_prefill")

    def test_a_growing_conversation_is_compared_with_a_cache_on_both_sides_or_on_none(self) -> None:
        cached = [run(seed, phases="edge_append", cached_share=0.5) for seed in (1, 2)]
        self.assertEqual(told(*cached, "ttft_ms", "edge_append")[0], "cannot tell")
        self.assertEqual(told(run(phases="edge_append"), cached[1], "ttft_ms", "edge_append"),
                         ("not comparable", None, "cached_prefill"))

    def test_every_flag_that_spoils_a_time_is_one_that_is_not_ranked(self) -> None:
        spread = {"unstable", "drifting", "failures"}
        self.assertEqual(set(two_runs.SPOILS) | spread,
                         {flag.name for flag in metric_definitions.FLAGS.values() if flag.unrankable})

    def test_questions_that_were_asked_otherwise_are_left_out_and_named(self) -> None:
        def other(call: Json) -> None:
            if call["question_id"] == "find-a-leak":
                call["request"]["messages_sha256"] = "0" * 64

        row = rows_of(run(), run(2, change=with_calls(other)))["ttft_ms"]
        self.assertEqual((row["questions_changed"], row["ratio"]["n"]), (["find-a-leak"], 19))

    def test_a_conversation_differs_by_its_answers_and_is_compared_all_the_same(self) -> None:
        row = rows_of(run(phases="edge_append"), run(2, phases="edge_append"),
                      "edge_append")["ttft_ms"]
        self.assertEqual((row["questions_changed"], row["ratio"]["n"]), ([], 9))

    def test_failed_calls_have_no_pair(self) -> None:
        def fail(call: Json) -> None:
            if call["question_id"] in ("find-a-leak", "sum-a-csv"):
                call["outcome"] = "timeout"

        row = rows_of(run(), run(2, change=with_calls(fail)))["ttft_ms"]
        self.assertEqual((row["ratio"]["n"], row["flags"]), (18, ["failures"]))


class Pairing(unittest.TestCase):
    def test_models_are_paired_by_name(self) -> None:
        found = two_runs.compare_sides([run(models=("x", "y"))], [run(2, models=("y", "z"))])
        self.assertEqual({(r["model_a"], r["model_b"]) for r in found["rows"]}, {("y", "y")})

    def test_the_only_one_is_paired_with_the_only_one(self) -> None:
        found = two_runs.compare_sides([run(models=("x",))], [run(2, models=("y",))])
        self.assertEqual({(r["model_a"], r["model_b"]) for r in found["rows"]}, {("x", "y")})

    def test_nothing_in_common_is_told_with_what_there_is(self) -> None:
        with self.assertRaises(two_runs.PairingError) as caught:
            two_runs.compare_sides([run(models=("x", "w"))], [run(2, models=("y\x1b[31m",))])
        self.assertEqual(str(caught.exception),
                         "no model stands on both sides: A has x, w; B has y\\x1b[31m")

    def test_repeats_are_one_value_a_question(self) -> None:
        row = rows_of(run(repeats=3), run(2, repeats=3))["ttft_ms"]
        self.assertEqual((row["ratio"]["n"], row["ratio"]["left_out"]), (20, 0))

    def test_tokens_are_counted_in_one_way_in_a_whole_phase(self) -> None:
        def miscount(call: Json) -> None:
            told_tokens = call["response"]["usage"]["completion_tokens"]
            call["response"]["usage"] = None if call["question_id"] == "sum-a-csv" else {
                "completion_tokens": told_tokens + 8, "prompt_tokens": 100}

        found = run(change=with_calls(miscount))
        cell = next(cell for cell in found.summary["cells"] if cell["phase"] == "20q")
        values = [two_runs.question_values(one, cell, two_runs.shared_gaps([(one, cell)]))
                  for one in (found, run())]
        self.assertEqual(*[value["find-a-leak"]["tpot_ms"] for value in values])

    def test_the_cold_call_is_never_compared(self) -> None:
        found = two_runs.compare_sides([run()], [run(2)])
        self.assertEqual({row["phase"] for row in found["rows"]}, {"5q", "20q"})


class Text(unittest.TestCase):
    def test_the_whole_comparison_reads_like_this(self) -> None:
        text = two_runs.render_sides(two_runs.compare_sides([run()], [run(1, 1.25)]), 100)
        self.assertEqual(text.split("\n"), [
            "A  run " + run().manifest["run_id"][:8] + "  2026-11-20T08:00Z  ada/mac-m1-8gb  "
            "llama.cpp b6800",
            "B  run " + run().manifest["run_id"][:8] + "  2026-11-20T08:00Z  ada/mac-m1-8gb  "
            "llama.cpp b6800",
            "",
            "smollm2-135m",
            *TABLE,
            "5q: cannot tell (5 pairs, an interval needs 6): decode tok/s, TTFT ms, TPOT ms, "
            "E2EL ms",
            "",
            "B / A is the median of the questions' ratios with its exact 95 % interval. faster and "
            "slower: the",
            "  interval leaves out 1 and the median is 5 % or more away from it; indicative from "
            "single runs,",
            "  confirmed from 3 runs a side of which none lies among the other side's. Decode rate "
            "and TPOT are",
            "  over the chunks that all answers to a question have; of single runs, what one of "
            "them varied by",
            "  itself is no difference."])

    def test_no_line_is_wider_than_the_terminal(self) -> None:
        found = two_runs.compare_sides(
            [run(models=("a model with a very long name indeed " * 3,))],
            [run(2, 1.3, models=("another\x1b[2J",), overrides={"num_predict": 64})])
        for width in range(20, 160, 7):
            with self.subTest(width):
                lines = two_runs.render_sides(found, width).split("\n")
                self.assertLessEqual(max(map(len, lines)), width)
                self.assertTrue(all(line.isprintable() for line in lines))

    def test_what_a_run_as_a_whole_suffered_from_stands_beside_it(self) -> None:
        text = two_runs.render_sides(two_runs.compare_sides([run()], [run(2, change=busy)]), 200)
        self.assertRegex(text, r"B  run .*llama.cpp b6800  busy_host\nbusy_host: Other programs")

    def test_no_common_phase_is_said(self) -> None:
        text = two_runs.render_sides(two_runs.compare_sides([run(phases="5q")],
                                                        [run(phases="frozen")]), 100)
        self.assertIn("no phase was run on both sides", text)


TABLE = [
    "phase  metric           A     B  B / A                pairs  verdict of B",
    "20q    decode tok/s   100  80.1  0.800 [0.800-0.800]     20  slower, indicative",
    "20q    TTFT ms        319   399  1.250 [1.250-1.250]     20  slower, indicative",
    "20q    TPOT ms       9.99  12.5  1.250 [1.250-1.250]     20  slower, indicative",
    "20q    E2EL ms        749   936  1.250 [1.250-1.250]     20  slower, indicative",
]


if __name__ == "__main__":
    unittest.main()
