"""Verdicts on two sides, ratios by phase, and what is not comparable."""
from __future__ import annotations

import copy
import unittest
from typing import Any, Callable

from compare import two_runs
from core import flag_definitions
from tests import made_submissions
from tests.made_submissions import Spec

Json = dict[str, Any]


MADE: dict[str, tuple[Json, list[Json]]] = {}


def evidence(spec: Spec) -> tuple[Json, list[Json]]:
    """Manifest and ledger, made once for equal specs."""
    if repr(spec) not in MADE:
        manifest = made_submissions.make_manifest(spec)
        MADE[repr(spec)] = manifest, made_submissions.make_events(spec, manifest)
    return MADE[repr(spec)]


def run(seed: int = 1, factor: float = 1.0, change: Any = None, **spec: Any) -> two_runs.Run:
    """A made run with all times multiplied by `factor`, after `change(manifest, events)`."""
    manifest, events = evidence(Spec(seed=seed, noise=0.02, **{"phases": "5q,20q", **spec}))
    if factor != 1:
        events = made_submissions.stretched(events, factor)
    if change:
        manifest, events = copy.deepcopy((manifest, events))
        change(manifest, events)
    return two_runs.run_of(manifest, events)


def rows_of(a: Any, b: Any, phase: str = "20q") -> dict[str, Json]:
    """{metric: ratio row} of one phase; a side is a run or a list of runs."""
    return {row["metric"]: row for row in two_runs.compare_sides(*sides_of(a, b))["rows"]
            if row["phase"] == phase}


def sides_of(*sides: Any) -> list[list[two_runs.Run]]:
    return [side if isinstance(side, list) else [side] for side in sides]


def verdicts_of(a: Any, b: Any) -> dict[str, Json]:
    """{quantity: verdict row}."""
    return {row["quantity"]: row for row in two_runs.compare_sides(*sides_of(a, b))["verdicts"]}


def verdict(a: Any, b: Any, quantity: str = "decode") -> Any:
    row = verdicts_of(a, b)[quantity]
    return row["verdict"], row["standing"], row["reason"]


def with_calls(change: Callable[[Json], None], phase: str = "20q") -> Any:
    def apply(manifest: Json, events: list[Json]) -> None:
        for event in events:
            if event["event"] == "call_finished" and event["phase"] == phase:
                change(event)
    return apply


def busy(manifest: Json, events: list[Json]) -> None:
    """Let other programs take 90 % of all CPUs in every third sample."""
    samples = [event for event in events if event["event"] == "host_sampled"]
    for event in samples[::3]:
        event.update(other_cpu_busy_ratio=0.9, cpu_busy_ratio=1.0)


class Verdicts(unittest.TestCase):
    def test_equal_runs_have_no_verdict(self) -> None:
        for a, b in ((run(1, phases="all"), run(2, phases="all")),
                     ([run(i, phases="all") for i in (1, 2, 3)],
                      [run(i, phases="all") for i in (4, 5, 6)])):
            self.assertEqual({name: row["verdict"] for name, row in verdicts_of(a, b).items()},
                             dict.fromkeys(two_runs.QUANTITIES, "cannot tell"))

    def test_slower_by_20_percent_holds_over_three_runs(self) -> None:
        a, b = ([run(i, factor, phases="all") for i in seeds]
                for factor, seeds in ((1, (1, 2, 3)), (1.2, (4, 5, 6))))
        for sides, word in (((a, b), "slower"), ((b, a), "faster")):
            found = {name: (row["verdict"], row["standing"], row["reason"])
                     for name, row in verdicts_of(*sides).items()}
            self.assertEqual(found, dict.fromkeys(two_runs.QUANTITIES,
                                                  (word, "holds over runs", None)))

    def test_fewer_than_three_runs_on_a_side_are_a_hint(self) -> None:
        self.assertEqual(verdict(run(), run(2, 1.2)), ("slower", "hint", None))
        self.assertEqual(verdict([run(1), run(2)], [run(i, 1.2) for i in (4, 5, 6)]),
                         ("slower", "hint", None))

    def test_single_runs_decide_only_large_differences(self) -> None:
        # 3.495 x 3 % x sqrt(2) = 14.8 %: a factor of 1.16.
        self.assertEqual(verdict(run(), run(1, 1.14)),
                         ("cannot tell", None, "within the spread of runs"))
        self.assertEqual(verdict(run(), run(1, 1.17))[0], "slower")

    def test_differences_below_5_percent_are_never_decided(self) -> None:
        sides = [[run(1, factor) for _ in range(9)] for factor in (1, 1.045)]
        self.assertEqual(verdict(*sides), ("cannot tell", None, "less than 5 % apart"))

    def test_spread_between_runs_widens_the_interval(self) -> None:
        sides = [[run(1, 0.8 * factor), run(1, factor), run(1, 1.25 * factor)]
                 for factor in (1, 1.2)]
        self.assertEqual(verdict(*sides), ("cannot tell", None, "within the spread of runs"))

    def test_phases_that_disagree_widen_the_interval(self) -> None:
        def slow_5q(manifest: Json, events: list[Json]) -> None:
            for i, event in enumerate(events):
                if event["event"] == "call_finished" and event["phase"] == "5q":
                    events[i] = made_submissions.stretched([event], 1.6)[0]

        self.assertEqual(verdict(run(), run(1, 1.2, change=slow_5q)),
                         ("cannot tell", None, "within the spread of runs"))

    def test_ratio_and_interval_are_exact_for_a_stretched_run(self) -> None:
        row = verdicts_of(run(), run(1, 1.25))["first token"]
        self.assertEqual((row["ratio"], row["phases"]), (1.25, ["5q", "20q"]))
        # 2.776 x 3 % x sqrt(2) = 11.8 %
        self.assertAlmostEqual(row["high"] / row["ratio"], 1.125, 3)
        self.assertAlmostEqual(row["ratio"] / row["low"], 1.125, 3)

    def test_hint_from_a_busy_machine_has_a_note(self) -> None:
        cases = {(False, True): "busy_host: B", (True, False): "busy_host: A",
                 (True, True): "busy_host: A, B"}
        for (a, b), reason in cases.items():
            sides = run(change=busy if a else None), run(2, 1.2, change=busy if b else None)
            self.assertEqual(verdict(*sides), ("slower", "hint", reason))

    def test_length_of_the_answer_has_no_verdict(self) -> None:
        self.assertEqual(verdict(run(), run(tokens=80))[0], "cannot tell")
        self.assertNotIn("e2el_ms", [metric for metric, _ in two_runs.QUANTITIES.values()])


class Ratios(unittest.TestCase):
    def test_run_and_itself_stretched_differ_by_exactly_that(self) -> None:
        found = rows_of(run(), run(1, 1.25))
        self.assertEqual({name: row["ratio"]["median"] for name, row in found.items()}, {
            "decode_tokens_per_s": 0.8, "ttft_ms": 1.25, "tpot_ms": 1.25, "e2el_ms": 1.25,
            "prefill_tokens_per_s": None})

    def test_answers_of_different_lengths_are_compared_over_their_first_chunks(self) -> None:
        def longer(call: Json) -> None:
            """The answer continues for as many chunks at half the speed."""
            timing, more = call["timing"], [2 * gap for gap in call["timing"]["chunk_us"][1:]]
            timing["chunk_us"] = [*timing["chunk_us"], *more]
            timing["last_token_us"] += sum(more)
            timing["done_us"] += sum(more)
            call["response"]["text"] *= 2
            call["response"]["usage"]["completion_tokens"] += len(more)

        found = rows_of(run(tokens=70), run(tokens=70, change=with_calls(longer)))
        self.assertAlmostEqual(found["decode_tokens_per_s"]["ratio"]["median"], 1, 4)
        self.assertGreater(found["e2el_ms"]["ratio"]["median"], 2)


class RatioSummary(unittest.TestCase):
    def test_median_of_ratios_with_its_interval(self) -> None:
        pairs = [(100, 100 + k) for k in (10, 20, 30, 40, 50, 60, 70, 80, 90)]
        self.assertEqual(two_runs.ratio_summary([*pairs, (1, None), (0, 5), (None, 2), (3, -1)]), {
            "n": 9, "left_out": 4, "median": 1.5, "ci_low": 1.2, "ci_high": 1.8})

    def test_swapped_runs_give_the_inverse(self) -> None:
        pairs = [(1, 2), (1, 4), (1, 8), (1, 16), (1, 32), (1, 64)]
        self.assertEqual(
            [two_runs.ratio_summary(pairs), two_runs.ratio_summary((b, a) for a, b in pairs)],
            [{"n": 6, "left_out": 0, "median": 11.3137, "ci_low": 2.0, "ci_high": 64.0},
             {"n": 6, "left_out": 0, "median": 0.0883883, "ci_low": 0.015625, "ci_high": 0.5}])

    def test_few_questions_have_no_interval(self) -> None:
        self.assertEqual([two_runs.ratio_summary(pairs) for pairs in ([(1, 2)] * 5, [])], [
            {"n": 5, "left_out": 0, "median": 2.0, "ci_low": None, "ci_high": None},
            {"n": 0, "left_out": 0, "median": None, "ci_low": None, "ci_high": None}])


class NotComparable(unittest.TestCase):
    def test_different_options_are_named_and_have_no_verdict(self) -> None:
        found = two_runs.compare_sides([run()], [run(2, 1.2, overrides={"num_predict": 64})])
        self.assertEqual(found["differences"], ["num_predict is 2048 in A, 64 in B"])
        self.assertEqual({row["verdict"] for row in found["verdicts"]}, {"not comparable"})

    def test_rehearsal_is_not_compared_with_a_model(self) -> None:
        self.assertEqual(verdict(run(), run(2, synthetic=True)),
                         ("not comparable", None, "synthetic is false in A, true in B"))
        self.assertEqual(verdict(run(synthetic=True), run(2, synthetic=True))[0], "cannot tell")

    def test_different_harness_version_is_named(self) -> None:
        def change(manifest: Json, events: list[Json]) -> None:
            manifest["harness_version"] = "public-0"

        self.assertEqual(verdict(run(), run(2, change=change))[2],
                         "harness version is public-1 in A, public-0 in B")

    def test_options_that_differ_within_a_side_are_named(self) -> None:
        mixed = [run(2), run(3, overrides={"temperature": 0.7})]
        self.assertEqual(verdict(run(), mixed)[2], "temperature is 0.1 in A, 0.1 and 0.7 in B")
        self.assertEqual(verdict(mixed, mixed)[2],
                         "temperature is 0.1 and 0.7 in A, 0.1 and 0.7 in B")

    def test_different_lanes_affect_only_their_phase(self) -> None:
        a, b = run(phases="20q,parallel_same"), run(2, phases="20q,parallel_same", lanes=2)
        self.assertEqual(verdict(a, b, "lanes"), ("not comparable", None, "lanes are 2 and 4"))
        self.assertEqual(verdict(a, b)[0], "cannot tell")

    def test_cache_affects_first_tokens_but_not_rates(self) -> None:
        sides = run(), run(2, cached_share=0.5)
        self.assertEqual(verdict(*sides)[0], "cannot tell")
        self.assertEqual(verdict(*sides, "first token"), ("not comparable", None, "cached_prefill"))
        self.assertEqual({name: row["not_comparable"] for name, row in rows_of(*sides).items()}, {
            "decode_tokens_per_s": None, "tpot_ms": None, "ttft_ms": "cached_prefill",
            "e2el_ms": "cached_prefill", "prefill_tokens_per_s": "cached_prefill"})

    def test_growing_conversation_may_be_cached_on_both_sides(self) -> None:
        cached = [run(seed, phases="edge_append", cached_share=0.5) for seed in (1, 2)]
        for a, b, why in ((*cached, None), (run(phases="edge_append"), cached[1],
                                            "cached_prefill")):
            self.assertEqual(rows_of(a, b, "edge_append")["ttft_ms"]["not_comparable"], why)

    def test_flags_that_prevent_comparison_are_unrankable_flags(self) -> None:
        spread = {"failures"}
        self.assertLessEqual(
            {flag.name for flag in flag_definitions.FLAGS.values() if flag.unrankable},
            set(two_runs.SPOILS) - {"queued"} | spread)

    def test_questions_with_different_prompts_are_left_out_and_named(self) -> None:
        def other(call: Json) -> None:
            if call["question_id"] == "find-a-leak":
                call["request"]["messages_sha256"] = "0" * 64

        row = rows_of(run(), run(2, change=with_calls(other)))["ttft_ms"]
        self.assertEqual((row["questions_changed"], row["ratio"]["n"]), (["find-a-leak"], 19))

    def test_growing_conversation_is_compared_despite_its_answers(self) -> None:
        row = rows_of(run(phases="edge_append"), run(2, phases="edge_append"),
                      "edge_append")["ttft_ms"]
        self.assertEqual((row["questions_changed"], row["ratio"]["n"]), ([], 9))

    def test_failed_calls_are_left_out(self) -> None:
        def fail(call: Json) -> None:
            if call["question_id"] in ("find-a-leak", "sum-a-csv"):
                call["outcome"] = "timeout"

        row = rows_of(run(), run(2, change=with_calls(fail)))["ttft_ms"]
        self.assertEqual((row["ratio"]["n"], row["flags"]), (18, ["failures"]))


class Pairing(unittest.TestCase):
    def test_models_are_paired_by_name(self) -> None:
        found = two_runs.compare_sides([run(models=("x", "y"))], [run(2, models=("y", "z"))])
        self.assertEqual({(r["model_a"], r["model_b"]) for r in found["rows"]}, {("y", "y")})

    def test_only_models_are_paired(self) -> None:
        found = two_runs.compare_sides([run(models=("x",))], [run(2, models=("y",))])
        self.assertEqual({(r["model_a"], r["model_b"]) for r in found["rows"]}, {("x", "y")})

    def test_sides_without_a_common_model_are_refused(self) -> None:
        with self.assertRaises(two_runs.PairingError) as caught:
            two_runs.compare_sides([run(models=("x", "w"))], [run(2, models=("y\x1b[31m",))])
        self.assertEqual(str(caught.exception),
                         "--vs: no model is on both sides: A has x, w; B has y\\x1b[31m")

    def test_repeats_are_one_value_per_question(self) -> None:
        row = rows_of(run(repeats=3), run(2, repeats=3))["ttft_ms"]
        self.assertEqual((row["ratio"]["n"], row["ratio"]["left_out"]), (20, 0))

    def test_tokens_of_a_phase_are_counted_alike(self) -> None:
        def miscount(call: Json) -> None:
            tokens = call["response"]["usage"]["completion_tokens"]
            call["response"]["usage"] = None if call["question_id"] == "sum-a-csv" else {
                "completion_tokens": tokens + 8, "prompt_tokens": 100}

        found = run(change=with_calls(miscount))
        cell = next(cell for cell in found.summary["cells"] if cell["phase"] == "20q")
        values = [two_runs.question_values(one, cell) for one in (found, run())]
        self.assertEqual(*[value["find-a-leak"]["tpot_ms"] for value in values])

    def test_cold_call_is_not_compared(self) -> None:
        found = two_runs.compare_sides([run()], [run(2)])
        self.assertEqual({row["phase"] for row in found["rows"]}, {"5q", "20q"})


class Text(unittest.TestCase):
    maxDiff = None

    def test_comparison_of_two_runs(self) -> None:
        text = two_runs.render_sides(two_runs.compare_sides([run()], [run(1, 1.25)]), 100)
        name = run().manifest["run_id"][:8]
        self.assertEqual(text.split("\n")[:12], [
            f"A  run {name}  2026-11-20T08:00Z  ada/mac-m1-8gb  llama.cpp b6800",
            f"B  run {name}  2026-11-20T08:00Z  ada/mac-m1-8gb  llama.cpp b6800",
            "",
            "smollm2-135m",
            "quantity     B / A                runs     verdict on B",
            "decode       0.800 [0.711-0.900]  1 and 1  slower, hint",
            "first token  1.250 [1.111-1.406]  1 and 1  slower, hint",
            "",
            "phase  metric              A        B  B / A  questions",
            "5q     decode tok/s    100.4     80.3  0.800          5",
            "5q     TTFT           207 ms   258 ms  1.250          5",
            "5q     TPOT          9.96 ms  12.5 ms  1.250          5"])
        self.assertIn("B / A with its 95 % interval over runs", text)

    def test_lines_fit_the_terminal(self) -> None:
        found = two_runs.compare_sides(
            [run(models=("a model with a very long name indeed " * 3,))],
            [run(2, 1.3, models=("another\x1b[2J",), overrides={"num_predict": 64})])
        for width in range(20, 160, 7):
            with self.subTest(width):
                lines = two_runs.render_sides(found, width).split("\n")
                self.assertLessEqual(max(map(len, lines)), width)
                self.assertTrue(all(line.isprintable() for line in lines))

    def test_flags_of_a_run_are_beside_it(self) -> None:
        text = two_runs.render_sides(two_runs.compare_sides([run()], [run(2, change=busy)]), 200)
        self.assertRegex(text, r"B  run .*llama.cpp b6800  busy_host\nbusy_host: Other programs")

    def test_sides_without_a_common_phase(self) -> None:
        text = two_runs.render_sides(two_runs.compare_sides(
            [run(phases="5q")], [run(phases="frozen")]), 100)
        self.assertIn("no phase was run on both sides", text)


if __name__ == "__main__":
    unittest.main()
