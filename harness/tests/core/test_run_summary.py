"""Compare the summary of a run with values computed by hand."""
from __future__ import annotations

import copy
import hashlib
import json
import unittest
from typing import Any

from core import flag_definitions, metric_definitions, metrics, schema
from core.run_summary import summarize_run
from tests.core.test_metrics import (
    CALIBRATION,
    NO_CACHE,
    NO_NUMBERS,
    NO_TAILS,
    call,
    calls_of,
    manifest,
    with_tokens_per_s,
)


def the_cell(events: list[dict[str, Any]], **parts: Any) -> dict[str, Any]:
    planned = parts.pop("planned", manifest(("20q", 1, 20)))
    cells: list[dict[str, Any]] = summarize_run(planned, events)["cells"]
    [cell] = cells
    return cell


class OneRun(unittest.TestCase):
    maxDiff = None

    def test_summary_of_six_equal_calls_is_this(self) -> None:
        def six(value: float) -> dict[str, Any]:
            return {"n": 6, **dict.fromkeys(NO_NUMBERS, value), "iqr": 0.0, **NO_TAILS}
        events = [CALIBRATION, *calls_of(6), {"event": "run_finished"}]
        found = summarize_run(manifest(("20q", 1, 6)), events)
        [headline] = found.pop("headlines")
        self.assertEqual({name: value for name, value in headline.items() if value is not None}, {
            "model": "m", "decode_tokens_per_s": six(100), "ttft_ms": six(200),
            "prompt_tokens": 1000.0, "checks_passed": 0, "checks_count": 0})
        self.assertEqual(found, {
            "cells": [{
                "model": "m", "phase": "20q", "lanes": 1, "cold": False, "across_prompts": True,
                "planned": 6, "ok": 6, "failed": 0, "outcomes": {"ok": 6},
                "left_out": {},
                "metrics": {
                    "ttft_ms": six(200), "ttfo_ms": six(200), "tpot_ms": six(10),
                    "decode_tokens_per_s": six(100), "answer_tokens_per_s": six(100),
                    "prefill_tokens_per_s": six(5263.16),
                    "icl_ms": six(10), "icl_max_ms": six(10), "e2el_ms": six(600),
                    "output_tokens": six(41), "prompt_tokens": six(1000),
                    "cached_tokens": {"n": 0, **NO_NUMBERS}, "coalesced_ratio": six(0)},
                "output_tokens_source": "usage", "cached_tokens_source": None,
                "busy_window_ms": 5650.0,
                "output_token_throughput_tokens_per_s": 43.5398,        # 6 * 41 / 5.65
                "speedup_ratio": None, "other_models_lanes_mean": None,
                "checks": {"passed": 0, "total": 0},
                "null_reasons": {
                    "cached_tokens": f"6 of 6 calls: {NO_CACHE}", "speedup_ratio": "one lane"},
                "verdicts": {
                    "client_bound": {
                        "flagged": False, "reasons": [], "error_p50_us": 10.0,
                        "error_source": "calibration", "ttft_us": 200000.0,
                        "decode_window_us": 400000.0, "chunks_per_s": 100.0,
                        "saturation_chunks_per_s": 9000.0},
                    "unstable": {"flagged": False, "iqr_ratio": 0.0},
                    "outliers": {"flagged": False, "count": 0, "largest_sigmas": None}},
                "flags": []}],
            "curves": [], "run_flags": [], "counts": {"ok": 6},
            "instrument": {
                **{name: CALIBRATION[name] for name in (
                    "stamp", "clock_resolution_ns", "lanes", "saturation",
                    "heartbeat_overshoot_us", "reason")},
                "stamps": {"kernel": 6},
                "read_lag_us": {"p50": 50.0, "p99": 100.0, "max": 200, "n": 6}}})

    def test_digits_are_the_same_on_every_python(self) -> None:
        events, state = calls_of(100), 1
        for made in events:
            gaps = []
            for _ in range(41):
                state = state * 48271 % 2147483647          # MINSTD, in whole numbers
                gaps.append(9_000 + state % 2_003)
            made["timing"].update(chunk_us=gaps, first_token_us=gaps[0], last_token_us=sum(gaps),
                                  done_us=sum(gaps) + 77)
        text = json.dumps(summarize_run(manifest(("20q", 1, 100)), events), sort_keys=True)
        self.assertEqual(hashlib.sha256(text.encode()).hexdigest()[:16], "09a8713873385874")

    def test_run_without_calls_has_no_cells(self) -> None:
        self.assertEqual(summarize_run(manifest(), []), {
            "cells": [], "headlines": [], "curves": [], "counts": {},
            "run_flags": ["not_calibrated", "unfinished"],
            "instrument": {
                **dict.fromkeys(("stamp", "clock_resolution_ns", "lanes", "saturation",
                                 "heartbeat_overshoot_us")),
                "reason": "no calibration in this run", "stamps": {}, "read_lag_us": None}})

    def test_failed_calls_enter_no_metric(self) -> None:
        cut = call(cell_id="x", seq=9, outcome="timeout", timing__started_us=6_000_000,
                   timing__first_token_us=9_000_000, timing__done_us=None, t_us=16_000_000)
        cell = the_cell([*calls_of(6), cut])
        self.assertEqual(
            (cell["ok"], cell["failed"], cell["outcomes"], cell["metrics"]["ttft_ms"]["max"],
             cell["busy_window_ms"], cell["flags"]),
            (6, 1, {"ok": 6, "timeout": 1}, 200.0, 16000.0, ["failures"]))

    def test_last_line_of_a_cell_id_counts(self) -> None:
        events = [*calls_of(6), call(seq=9, segment=1, timing__first_token_us=250_000)]
        events[0]["outcome"] = "timeout"
        cell = the_cell(events)
        self.assertEqual((cell["ok"], cell["failed"], cell["metrics"]["ttft_ms"]["max"]),
                         (6, 0, 250.0))

    def test_phase_over_two_segments_has_no_throughput(self) -> None:
        events = calls_of(2)
        events[1]["segment"] = 1
        cell, why = the_cell(events), "the run was resumed during the phase"
        self.assertEqual(
            (cell["busy_window_ms"], cell["output_token_throughput_tokens_per_s"],
             cell["null_reasons"]),
            (None, None, {"cached_tokens": f"2 of 2 calls: {NO_CACHE}", "busy_window_ms": why,
                          "output_token_throughput_tokens_per_s": why,
                          "speedup_ratio": "one lane"}))

    def test_one_answer_without_usage_turns_its_whole_cell_to_chunks(self) -> None:
        events = calls_of(6)
        for made in events:
            made["response"]["usage"]["completion_tokens"] = 42
        events[3]["response"]["usage"] = None
        cell = the_cell(events)
        self.assertEqual((cell["output_tokens_source"], cell["metrics"]["output_tokens"]["max"],
                          cell["flags"]), ("chunks", 41.0, ["tokens_from_chunks"]))

    def test_equal_counts_for_different_answers_are_not_trusted(self) -> None:
        events = calls_of(6)
        for i, made in enumerate(events):
            made["response"].update(text="word " * (20 + 20 * i))
            made["response"]["usage"]["completion_tokens"] = 100
        self.assertEqual(
            (metrics.constant_usage(events, "completion"),
             metrics.constant_usage(events[:4], "completion"),
             the_cell(events)["flags"]),
            ("completion_tokens is 100 in every call, whatever the length of the text", None,
             ["usage_implausible", "tokens_from_chunks"]))
        for made in events:
            made["response"]["finish_reason"] = "length"
        self.assertIsNone(metrics.constant_usage(events, "completion"))

    def test_equal_counts_for_different_prompts_are_not_trusted(self) -> None:
        events = calls_of(5)
        events[4]["request"]["messages_chars"] = 3000
        self.assertEqual(metrics.constant_usage(events, "prompt"),
                         "prompt_tokens is 1000 in every call, whatever the length of the text")

    def test_lanes_are_measured_until_the_first_has_nothing_left_to_ask(self) -> None:
        """Alone: 41 tokens in 0.6 s. Four lanes of two calls; one answer never ends."""
        alone = calls_of(6, timing__started_us=0)
        lanes = calls_of(8, phase="parallel_same", lanes=4)
        lanes[7]["timing"].update(chunk_us=[200_000, *[10_000] * 400], last_token_us=4_200_000,
                                  done_us=4_200_000)
        lanes[7]["response"].update(text="word " * 401, usage={
            "prompt_tokens": 1000, "completion_tokens": 401})
        planned = manifest(("20q", 1, 6), ("parallel_same", 4, 8))
        cells = summarize_run(planned, [*alone, *lanes])["cells"]
        tokens = 7 * 41 + 46                    # 1.65 s: the last lane's answer has 46 chunks
        self.assertEqual(
            [(c["busy_window_ms"], c["output_token_throughput_tokens_per_s"], c["speedup_ratio"],
              c["null_reasons"].get("speedup_ratio")) for c in cells],
            [(650.0, 378.462, None, "one lane"),
             (1650.0, metrics.round_sig(tokens / 1.65),
              metrics.round_sig(tokens / 1.65 / (41 / 0.6)), None)])
        [cell] = summarize_run(planned, lanes)["cells"]
        self.assertEqual(cell["null_reasons"]["speedup_ratio"],
                         "no answer on one lane (frozen, 5q, 20q)")

    def test_mixed_models_share_a_window_and_name_the_load_beside_them(self) -> None:
        planned = manifest(("parallel_mixed", 4, 12), models=("m", "n", "o"))
        events = calls_of(12, phase="parallel_mixed", lanes=4)
        for i, made in enumerate(events):
            made["model"] = ("m", "n", "o", "m")[i % 4]
            made["cell_id"] = f"{i}"
        cells = summarize_run(planned, events)["cells"]
        self.assertEqual(
            [(c["model"], c["planned"], c["ok"], c["busy_window_ms"],
              c["output_token_throughput_tokens_per_s"], c["other_models_lanes_mean"])
             for c in cells],
            [("m", 6, 6, 2650.0, metrics.round_sig(6 * 41 / 2.65), 2.0),
             ("n", 3, 3, 2650.0, metrics.round_sig(3 * 41 / 2.65), 3.0),
             ("o", 3, 3, 2650.0, metrics.round_sig(3 * 41 / 2.65), 3.0)])

    def test_cached_tokens_are_derived_from_the_turn_before(self) -> None:
        """Exact to one token, if the cache probe found identical prompts cached."""
        def turns(control: str, **changes: Any) -> Any:
            events = calls_of(3, phase="edge_append", **changes)
            for i, made in enumerate(events):
                made["request"]["messages_count"] = 1 + 2 * i
                made["response"]["usage"]["prompt_tokens"] = 600 + 700 * i
            probe = {"event": "cache_probed", "model": "m", "verdict": "not_cached",
                     "control": control}
            cell = the_cell([*events, probe], planned=manifest(("edge_append", 1, 3)))
            return (cell["cached_tokens_source"], cell["metrics"]["cached_tokens"]["max"],
                    cell["metrics"]["prefill_tokens_per_s"]["max"])

        first, later = 600 / 0.19, (1300 - 640) / 0.19
        self.assertEqual(
            [turns("cached"), turns("unknown")],
            [("derived", 1340.0, metrics.round_sig(later)),
             (None, None, metrics.round_sig(first))])
        self.assertEqual(turns("cached", outcome="timeout")[0], None)
        cut = {"verdict": "yes", "reason": "fewer tokens than before"}     # other turns come first
        self.assertEqual(turns("cached", truncated=cut)[0], None)

    def test_what_is_left_of_a_truncated_prompt_may_be_cached(self) -> None:
        """Without its start, which made it differ from the prompts before; not if the server
        reports how much of it was cached."""
        def prefill(verdict: str, **details: int) -> Any:
            events = calls_of(6, phase="edge_suite", truncated={"verdict": verdict, "reason": "x"})
            for made in events:
                made["response"]["usage"].update(prompt_tokens=600, prompt_tokens_details=details)
            metric = the_cell(events, planned=manifest(("edge_suite", 1, 6)))["metrics"]
            return metric["prefill_tokens_per_s"]["median"]

        self.assertEqual(
            [prefill("no"), prefill("yes"), prefill("yes", cached_tokens=0)],
            [metrics.round_sig(600 / 0.19), None, metrics.round_sig(600 / 0.19)])

    def test_repeats_of_one_question_are_not_across_prompts(self) -> None:
        cell = the_cell(calls_of(6, question_id="q1"), planned=manifest(("20q", 1, 1), repeats=6))
        self.assertEqual((cell["across_prompts"], cell["planned"]), (False, 6))

    def test_hello_is_planned_once_a_segment(self) -> None:
        cell = the_cell(calls_of(2, phase="hello", cold=True), planned=manifest(("hello", 1, 1)))
        self.assertEqual((cell["cold"], cell["planned"]), (True, 2))

    def test_lanes_may_vary_more_than_one_lane(self) -> None:
        rates = [80.0, 90.0, 100.0, 100.0, 110.0, 120.0]             # interquartile range: 15 %
        alone, lanes = with_tokens_per_s(rates), with_tokens_per_s(rates)
        planned = manifest(("20q", 1, 6), ("parallel_same", 4, 6))
        for made in lanes:
            made.update(phase="parallel_same", cell_id="lane" + made["cell_id"])
        cells = summarize_run(planned, [*alone, *lanes])["cells"]
        self.assertEqual([c["flags"] for c in cells], [["unstable"], []])

    def test_drift_is_that_of_the_headline_over_the_run(self) -> None:
        """5q, then 20q; edge_append, which gets slower by design, is not part of it."""
        events = with_tokens_per_s([120.0] * 7 + [100.0] * 7 + [50.0] * 6)
        for i, made in enumerate(events):
            made["phase"] = "5q" if i < 7 else "20q" if i < 14 else "edge_append"
        found = summarize_run(manifest(("5q", 1, 7), ("20q", 1, 7)), events)
        [headline] = found["headlines"]
        self.assertEqual((headline["drift_ratio"], "drifting" in found["run_flags"]),
                         (0.805932, True))

    def test_stability_is_judged_over_the_part_that_answers_share(self) -> None:
        """Half of the answers are ten times as long, and their later tokens take twice the time."""
        def flags(early_us: tuple[int, int]) -> list[str]:
            events = calls_of(16)
            for i, made in enumerate(events):
                gaps_us = [early_us[i % 2]] * 64 + [20_000] * (640 * (i % 2))
                made["timing"].update(chunk_us=[200_000, *gaps_us],
                                      last_token_us=200_000 + sum(gaps_us))
                made["response"].update(text="word " * len(gaps_us), usage={
                    "prompt_tokens": 1000, "completion_tokens": len(gaps_us) + 1})
            return list(the_cell(events, planned=manifest(("20q", 1, 16)))["flags"])

        self.assertEqual([flags((10_000, 10_000)), flags((10_000, 12_000))], [[], ["unstable"]])

    def test_one_failure_in_twenty_is_not_flagged(self) -> None:
        events = calls_of(20)
        events[7]["outcome"] = "http_error"
        self.assertEqual([the_cell(e)["flags"] for e in (events, events[:19])], [[], ["failures"]])

    def test_cells_are_in_the_order_of_the_ledger(self) -> None:
        events = [call(cell_id=f"{m}{p}", seq=i, model=m, phase=p, cold=p == "hello")
                  for i, (m, p) in enumerate([("b", "hello"), ("b", "20q"), ("a", "hello"),
                                              ("a", "5q")])]
        cells = summarize_run(manifest(models=("a", "b")), events)["cells"]
        self.assertEqual([(c["model"], c["phase"], c["cold"]) for c in cells], [
            ("b", "hello", True), ("b", "20q", False), ("a", "hello", True), ("a", "5q", False)])

    def test_checks_count_answers_that_had_something_to_check(self) -> None:
        events = calls_of(4)
        for made, passed in zip(events, (True, False, None, True)):
            made["checks"] = {"passed": passed}
        self.assertEqual(the_cell(events)["checks"], {"passed": 2, "total": 3})

    def test_context_limit_of_a_growing_conversation_is_not_a_failure(self) -> None:
        events = calls_of(8, phase="edge_append")
        events[7].update(outcome="context_limit", response=None, timing=None)
        cell = the_cell(events, planned=manifest(("edge_append", 1, 8)))
        self.assertEqual((cell["failed"], cell["flags"]), (1, []))

    def test_growing_conversations_are_never_unstable(self) -> None:
        events = with_tokens_per_s([100.0 - 4 * i for i in range(16)])
        flags = [the_cell(events)["flags"]]
        for made in events:
            made["phase"] = "edge_append"
        flags.append(the_cell(events, planned=manifest(("edge_append", 1, 16)))["flags"])
        self.assertEqual(flags, [["unstable"], []])


class Flags(unittest.TestCase):
    def flags(self, *changed: dict[str, Any], extra: tuple[dict[str, Any], ...] = ()) -> list[str]:
        """Flags of a cell of six good calls and those given."""
        events = [*calls_of(6), *({**made, "cell_id": f"x{i}"} for i, made in enumerate(changed))]
        return list(the_cell([*extra, *events])["flags"])

    def test_good_calls_have_no_flags(self) -> None:
        self.assertEqual(self.flags(), [])

    def test_flag_of_one_call_flags_its_cell(self) -> None:
        long_text = "word " * 41
        found = {name: self.flags(made) for name, made in {
            "truncated": call(truncated={"verdict": "yes", "reason": "half the window"}),
            "cached": call(response__server_timings={"cache_n": 900}),
            "asleep": call(timing__heartbeat_gap_us=2_000_001),
            "woken": call(timing__clock_step_us=3_000_000),
            "stepped": call(timing__clock_step_us=-5_000),
            "hidden": call(reasoning={"mode": "hidden"}),
            "thinking only": call(response__text="", response__reasoning_text=long_text),
            "at once": call(response__text=long_text, timing__last_token_us=200_000),
            "one body": call(timing__chunk_us=[], timing__first_token_us=None,
                             timing__last_token_us=None),
            "runner": call(flags=["model_mismatch", "not a flag"]),
            "lying": call(response__usage={"completion_tokens": 5}),
        }.items()}
        self.assertEqual(found, {
            "truncated": ["truncated"], "cached": ["cached_prefill"], "asleep": ["suspended"],
            "woken": ["suspended", "clock_stepped"], "stepped": ["clock_stepped"],
            "hidden": ["hidden_reasoning"], "thinking only": ["reasoning_only"],
            "at once": ["not_streamed"], "one body": ["not_streamed"],
            "runner": ["model_mismatch"], "lying": ["usage_implausible", "tokens_from_chunks"]})

    def test_answer_in_the_name_of_the_models_file_or_of_any_is_its_own(self) -> None:
        for answered, file_name, flags in (
                ("m-f16.gguf", "m-f16.gguf", []), ("m-f16.gguf", "n.gguf", ["model_mismatch"]),
                ("m-f16.gguf", None, ["model_mismatch"]), ("model.gguf", None, [])):
            endpoint = {"event": "endpoint_identified", "model": "m", "slots": {"count": None},
                        "context": {"requested_tokens": None, "effective_tokens": None},
                        "facts": {"file_name": file_name}}
            self.assertEqual(self.flags(call(flags=["model_mismatch"], response__model=answered),
                                        extra=(endpoint,)), flags)

    def test_answer_that_came_at_once_has_no_time_to_first_token(self) -> None:
        found = metrics.call_metrics(call(response__text="word " * 41,
                                          timing__last_token_us=200_000))
        self.assertEqual([found[name] for name in ("ttft_ms", "ttfo_ms", "prefill_tokens_per_s")],
                         [None] * 3)

    def test_short_or_mixed_answers_have_no_flags(self) -> None:
        self.assertEqual(self.flags(
            call(response__text="a" * 100 + " b" * 50, timing__last_token_us=200_000),
            call(response__reasoning_text="word " * 9), call(timing__heartbeat_gap_us=2_000_000),
            call(response__usage={"prompt_tokens": 1000, "completion_tokens": 41,
                                  "prompt_tokens_details": {"cached_tokens": 100}})), [])

    def test_flags_of_all_calls_together(self) -> None:
        self.assertEqual(
            (the_cell(calls_of(5))["flags"], the_cell(calls_of(5, cold=True))["flags"],
             the_cell(calls_of(6, timing__reads=[[1, 9]]))["flags"],
             the_cell(calls_of(6, timing__reads=[[1, 8]]))["flags"],
             the_cell(with_tokens_per_s([100.0] * 8 + [200.0]))["flags"]),
            (["few_samples"], ["few_samples", "reloaded"], ["coalesced"], [], ["outliers"]))

    def test_flags_of_the_server(self) -> None:
        def endpoint(slots: Any, asked: Any, effective: Any) -> dict[str, Any]:
            return {"event": "endpoint_identified", "model": "m", "slots": {"count": slots},
                    "context": {"requested_tokens": asked, "effective_tokens": effective}}
        lanes = calls_of(6, phase="parallel_same", lanes=4)
        planned = manifest(("parallel_same", 4, 6))
        found = [the_cell([facts, *lanes], planned=planned)["flags"] for facts in (
            endpoint(None, 4096, None), endpoint(4, 4096, 4096), endpoint(4, 4096, 8192),
            endpoint(3, 4096, 2048))]
        self.assertEqual(found, [[], [], [], ["context_differs", "queued"]])

    def test_waiting_is_seen_from_declared_slots_and_from_the_times(self) -> None:
        def lanes(at_once: int, waits: bool = True) -> list[dict[str, Any]]:
            """Eight calls on four lanes, of which a server answers so many at once."""
            made = calls_of(8, phase="parallel_same", lanes=4)
            for i, one in enumerate(made):
                free_us = i // at_once * 410_000 if waits else i // 4 * 410_000
                started_us = i // 4 * 4 // at_once * 410_000 if waits else free_us
                first_us = free_us - started_us + 200_000
                one["timing"].update(
                    started_us=started_us, first_token_us=first_us,
                    last_token_us=first_us + 400_000, chunk_us=[first_us] + [10_000] * 40)
            return made

        planned, alone = manifest(("20q", 1, 6), ("parallel_same", 4, 8)), calls_of(6)

        def is_queued(calls: list[dict[str, Any]], declared: Any = None) -> bool:
            events = [*alone, *({**c, "seq": c["seq"] + 10, "cell_id": f"p{c['seq']}"}
                                for c in calls)]
            found = summarize_run(planned, events, declared)
            return "queued" in found["cells"][1]["flags"]

        self.assertEqual([is_queued(lanes(1)), is_queued(lanes(2)), is_queued(lanes(4))],
                         [True, True, False])
        self.assertEqual([is_queued(lanes(4), {"m": slots}) for slots in (None, 1, 4)],
                         [False, True, False])

    def test_calls_that_a_busy_server_refused_were_queued(self) -> None:
        def is_queued(started_us: int) -> bool:
            made = calls_of(2, phase="parallel_same", lanes=2)
            made[1]["attempts"] = [{"kind": "server_busy", "status": 503, "started_us": started_us,
                                    "ended_us": started_us + 10}]
            made[0]["timing"]["started_us"], made[1]["timing"]["started_us"] = 5000, 2_000_000
            found = summarize_run(manifest(("parallel_same", 2, 2)), made)
            return "queued" in found["cells"][0]["flags"]

        # While the other call was answered, or before it, as of a model that is loaded.
        self.assertEqual([is_queued(100_000), is_queued(1000)], [True, False])

    def test_a_third_of_failed_calls_leaves_survivors(self) -> None:
        events = calls_of(9)
        found = []
        for failed in (2, 3, 9):
            for made in events[:failed]:
                made.update(outcome="timeout")
            found.append("survivors" in the_cell(events, planned=manifest(("20q", 1, 9)))["flags"])
        self.assertEqual(found, [False, True, False])

    def test_loads_are_left_out_of_the_times(self) -> None:
        events = calls_of(6)
        events[1].update(outcome="interrupted_answer")
        events[2]["timing"].update(first_token_us=900_000, chunk_us=[900_000] + [10_000] * 40)
        cell = the_cell(events, planned=manifest(("20q", 1, 6)))
        self.assertEqual((cell["metrics"]["ttft_ms"]["n"], cell["metrics"]["ttft_ms"]["max"],
                          "reloaded" in cell["flags"]), (4, 200.0, True))
        self.assertIn("loaded during this call", cell["null_reasons"]["ttft_ms"])
        events[2].update(cold=False)
        events[1].update(outcome="ok")              # without a failure it is only slow
        self.assertNotIn("reloaded", the_cell(events, planned=manifest(("20q", 1, 6)))["flags"])
        events[2].update(cold=True)
        self.assertIn("reloaded", the_cell(events, planned=manifest(("20q", 1, 6)))["flags"])

    def test_a_retried_call_is_judged_by_the_call_before_it(self) -> None:
        events = calls_of(6)
        for made in events[1:3]:
            made.update(outcome="interrupted_answer")
        again = [copy.deepcopy({**made, "outcome": "ok", "seq": 8 + i})
                 for i, made in enumerate(events[1:3])]
        again[1]["timing"].update(first_token_us=900_000, chunk_us=[900_000] + [10_000] * 40)
        cell = the_cell([*events, *again], planned=manifest(("20q", 1, 6)))
        self.assertNotIn("reloaded", cell["flags"])

    def test_hello_is_cold_only_if_its_call_loaded_the_model(self) -> None:
        def cold(*calls: dict[str, Any]) -> bool:
            return bool(the_cell(list(calls), planned=manifest(("hello", 1, 1)))["cold"])

        first, second = calls_of(2, phase="hello", cold=True)
        failed = {**first, "outcome": "timeout"}
        retried = {**first, "seq": 9}
        resumed = {**second, "segment": 1}
        self.assertEqual(
            [cold(first), cold(first, resumed), cold(failed, resumed), cold(failed, retried),
             cold(failed, {**resumed, "loaded": False}), cold({**first, "cold": False})],
            [True, True, False, False, True, False])

    def test_a_later_hello_is_not_averaged_with_the_first(self) -> None:
        hellos = calls_of(2, phase="hello")
        hellos[0].update(cold=True)
        hellos[0]["timing"].update(first_token_us=900_000, chunk_us=[900_000] + [10_000] * 40)
        hellos[1].update(segment=1, repeat=1)
        cell = the_cell(hellos, planned=manifest(("hello", 1, 1)))
        self.assertEqual((cell["metrics"]["ttft_ms"]["median"], cell["metrics"]["ttft_ms"]["n"],
                          cell["ok"], cell["cold"]), (900.0, 1, 2, True))

    def test_an_answer_beyond_the_context_and_one_without_a_reason_are_flagged(self) -> None:
        facts = {"event": "endpoint_identified", "model": "m", "slots": {"count": None},
                 "context": {"requested_tokens": 1020, "effective_tokens": 1020}}
        self.assertEqual(self.flags(extra=(facts,)), ["context_shift"])
        self.assertEqual(self.flags(call(response__finish_reason=None)), ["no_finish_reason"])
        self.assertEqual(self.flags(call(reasoning__mode="inline")), ["inline_reasoning"])

    def test_cache_probe_flags_all_cells_except_the_cold_one(self) -> None:
        probe = {"event": "cache_probed", "model": "m", "verdict": "cached",
                 "control": "cached"}
        hello = call(cell_id="h", phase="hello", cold=True, seq=0)
        cells = summarize_run(manifest(("hello", 1, 1), ("20q", 1, 6)),
                                      [hello, *calls_of(6), probe])
        self.assertEqual(
            ([c["flags"] for c in cells["cells"]], cells["run_flags"]),
            ([[], ["cached_prefill"]], ["cached_prefill", "not_calibrated", "unfinished"]))

    def test_calls_during_which_others_were_busy_are_left_out(self) -> None:
        """Two CPUs: while others use a third of them, calls 4 to 6 of 10 are left out."""
        def found(*shares: float, busy: float = 1.0, failed: int = 0) -> Any:
            samples = [{"event": "host_sampled", "segment": 0, "t_us": 1_000_000 * (i + 1),
                        "cpu_busy_ratio": busy, "other_cpu_busy_ratio": share,
                        "cpu_throttle_count": None, "power_source": None,
                        "energy_uj": None, "gpus": []} for i, share in enumerate(shares)]
            calls = calls_of(10)
            for made in calls[:failed]:
                made.update(outcome="timeout")
            made = summarize_run(manifest(("20q", 1, 10)), [*calls, *samples])
            [cell] = made["cells"]
            return (cell["metrics"]["ttft_ms"]["n"], cell["left_out"], cell["flags"],
                    cell["output_token_throughput_tokens_per_s"] is None,
                    "busy_host" in made["run_flags"], cell["null_reasons"].get("ttft_ms"))

        self.assertEqual(
            [found(*[0.0] * 10), found(*[0.2] * 10), found(0, 0, 0, 0.3, 0.3, 0.3, 0, 0, 0, 0),
             found(*[0.3] * 5, *[0.0] * 5), found(*[0.3] * 6, *[0.0] * 4),
             found(*[0.6] * 10, busy=0.8)],
            [(10, {}, [], False, False, None), (10, {}, [], False, False, None),
             (7, {"busy_host": 3}, [], False, True, None),
             (5, {"busy_host": 5}, ["few_samples"], False, True, None),
             (4, {"busy_host": 6}, ["few_samples", "busy_host"], False, True, None),
             (10, {}, [], False, False, None)])
        self.assertEqual([found(*[0.3] * 10)[-1], found(*[0.3] * 10, failed=10)[-1]],
                         ["all answers were left out", "no answer"])
        # Failed calls count, too: the load may be what made them fail.
        self.assertEqual(
            [(flags, of_run) for failed, shares in (
                (3, [0.3] * 3 + [0.0] * 7), (10, [0.3] * 10), (10, [0.0] * 10))
             for _, _, flags, _, of_run, _ in [found(*shares, failed=failed)]],
            [(["failures"], True), (["failures", "few_samples", "busy_host"], True),
             (["failures", "few_samples"], False)])

    def test_one_suspended_call_is_left_out_and_its_cell_is_not(self) -> None:
        events = calls_of(8)
        events[3]["timing"].update(heartbeat_gap_us=2_500_000, first_token_us=2_700_000)
        cell = the_cell(events, planned=manifest(("20q", 1, 8)))
        self.assertEqual(
            (cell["ok"], cell["left_out"], cell["metrics"]["ttft_ms"]["max"], cell["flags"],
             cell["null_reasons"]["output_token_throughput_tokens_per_s"]),
            (8, {"suspended": 1}, 200.0, ["suspended"], "the machine slept during the phase"))

    def test_headline_leaves_out_bound_metrics_and_refused_cells(self) -> None:
        frozen, asked = calls_of(3, phase="frozen"), calls_of(6)
        for made in frozen:
            made["truncated"] = {"verdict": "yes", "reason": "half of it"}
        slow = {**CALIBRATION, "lanes": [
            {"lanes": 1, "chunks": 700, "lag_us": {"p50": 2100, "p99": 2200, "max": 2300}}]}
        planned = manifest(("frozen", 1, 3), ("20q", 1, 6))

        def counts(*events: Any) -> Any:
            [headline] = summarize_run(planned, events)["headlines"]
            return [headline[name] and headline[name]["n"]
                    for name in ("decode_tokens_per_s", "ttft_ms")]
        self.assertEqual([counts(*frozen, *asked), counts(*frozen), counts(slow, *asked)],
                         [[6, 6], [3, 3], [None, None]])

    def test_flags_of_the_machine(self) -> None:
        def sample(**gauges: Any) -> dict[str, Any]:
            return {"event": "host_sampled", "segment": 0, "t_us": 9, "gpus": [], **dict.fromkeys((
                "cpu_busy_ratio", "other_cpu_busy_ratio", "cpu_throttle_count",
                "power_source")), **gauges}

        def flags(*samples: dict[str, Any]) -> Any:
            whole = [CALIBRATION, *samples, {"event": "run_finished"}]
            return summarize_run(manifest(), whole)["run_flags"]
        quiet = sample(other_cpu_busy_ratio=0.1, cpu_throttle_count=7)
        self.assertEqual(
            [flags(), flags(quiet, quiet),
             flags(quiet, sample(cpu_throttle_count=8)),
             flags(quiet, sample(cpu_throttle_count=8, segment=1)),
             flags(sample(gpus=[{"throttled": None}, {"throttled": True}])),
             flags(sample(power_source="battery"))],
            [[], [], ["throttled"], [], ["throttled"], ["on_battery"]])


class Registry(unittest.TestCase):
    def test_schema_describes_each_metric_as_the_registry(self) -> None:
        cell = schema.schema("metadata")["properties"]["cells"]["items"]["properties"]
        fields = {**cell, **cell["metrics"]["properties"]}
        self.assertEqual({name: fields[name]["description"] for name in metric_definitions.METRICS
                          if name in fields},
                         {name: metric.text for name, metric in metric_definitions.METRICS.items()
                          if name in fields})

    def test_registry_has_every_metric_of_a_cell(self) -> None:
        cell = the_cell(calls_of(1))
        published = {*cell["metrics"],
                     *(name for name in cell if name.endswith(("_ms", "_s", "_ratio", "_mean")))}
        self.assertEqual(published - set(metric_definitions.METRICS), set())

    def test_texts_fit_a_table_row(self) -> None:
        rows: list[tuple[Any, ...]] = [*metric_definitions.METRICS.values(),
                                       *flag_definitions.FLAGS.values()]
        for row in rows:
            texts = [part for part in row if isinstance(part, str)]
            self.assertEqual([t for t in texts if not t or "|" in t or "\n" in t], [], row[0])
        self.assertEqual({m.direction for m in metric_definitions.METRICS.values()},
                         {"lower", "higher", "none"})


if __name__ == "__main__":
    unittest.main()
