"""Compare metrics with values computed by hand."""
from __future__ import annotations

import hashlib
import json
import math
import unittest
from typing import Any

from core import metric_definitions, metrics, schema, usage
from core.run_summary import summarize_run

NO_TAILS = {"p90": None, "p95": None, "p99": None}
NO_NUMBERS = dict.fromkeys(
    ("median", "q1", "q3", "iqr", "min", "max", "ci_low", "ci_high", "p90", "p95", "p99"))


def call(**changes: Any) -> dict[str, Any]:
    """One answered call: 41 tokens, one per chunk, the first after 200 ms, then one every 10 ms.

    Two underscores select a field of a part: `timing__reads=[...]` sets call["timing"]["reads"].
    """
    made: dict[str, Any] = {
        "event": "call_finished", "seq": 1, "segment": 0, "t_us": 700_000,
        "cell_id": "box:eng:m:20q:q1", "model": "m", "phase": "20q", "question_id": "q1",
        "repeat": 0, "lane": 0, "cold": False, "attempts": [],
        "request": {"messages_chars": 300, "messages_count": 1, "options": {"max_tokens": 2048}},
        "response": {"text": "word " * 40, "reasoning_text": "", "finish_reason": "stop",
                     "usage": {"prompt_tokens": 1000, "completion_tokens": 41},
                     "server_timings": None},
        "timing": {"started_us": 0, "first_token_us": 200_000, "first_answer_us": 200_000,
                   "last_token_us": 600_000, "done_us": 650_000,
                   "chunk_us": [200_000] + [10_000] * 40, "chunk_kinds": None, "reads": [],
                   "stamp": "kernel", "read_lag_us": {"p50": 50, "p99": 100, "max": 200, "n": 41},
                   "heartbeat_gap_us": None, "clock_step_us": 0, "ttft_null_reason": None},
        "checks": None, "reasoning": {"mode": "none", "chunks": 0, "characters": 0},
        "truncated": {"verdict": "no", "reason": None}, "flags": [], "outcome": "ok", "error": None}
    for name, value in changes.items():
        holder, _, key = name.rpartition("__")
        (made[holder] if holder else made)[key] = value
    return made


def manifest(*phases: tuple[str, int, int], models: tuple[str, ...] = ("m",),
             repeats: int = 1) -> dict[str, Any]:
    """A manifest whose plan has phases (name, lanes, questions)."""
    return {"models": list(models), "plan": {"repeats": repeats, "lanes": 4, "phases": [
        {"phase": name, "suite_file": None, "lanes": lanes, "max_tokens": 2048,
         "question_ids": [f"q{i + 1}" for i in range(questions)]}
        for name, lanes, questions in phases]}}


def calls_of(count: int, phase: str = "20q", lanes: int = 1,
             **changes: Any) -> list[dict[str, Any]]:
    """So many calls of one phase; a lane begins its next one a second after its last."""
    return [call(**{"seq": i + 1, "cell_id": f"box:eng:m:{phase}:q{i + 1}", "phase": phase,
                    "lane": i % lanes, "question_id": f"q{i + 1}",
                    "timing__started_us": i // lanes * 1_000_000, **changes})
            for i in range(count)]


def with_tokens_per_s(rates: list[float]) -> list[dict[str, Any]]:
    """Calls whose decode rates are these, in order."""
    out = calls_of(len(rates))
    for made, rate in zip(out, rates):
        made["timing"]["last_token_us"] = 200_000 + round(40e6 / rate)
    return out


def the_cell(events: list[dict[str, Any]], **parts: Any) -> dict[str, Any]:
    planned = parts.pop("planned", manifest(("20q", 1, 20)))
    cells: list[dict[str, Any]] = summarize_run(planned, events)["cells"]
    [cell] = cells
    return cell


class Rounding(unittest.TestCase):
    def test_keeps_six_significant_digits(self) -> None:
        found = [metrics.round_sig(x) for x in (0, 1234567, 0.00012345678, -2 / 3, 1e-300, 2.5)]
        self.assertEqual(found, [0.0, 1234570.0, 0.000123457, -0.666667, 1e-300, 2.5])

    def test_nan_and_infinity_become_null(self) -> None:
        found = [metrics.round_sig(x) for x in (None, math.nan, math.inf, -math.inf)]
        self.assertEqual(found, [None] * 4)


class Summary(unittest.TestCase):
    def test_interval_of_the_median_has_the_published_ranks(self) -> None:
        table = {n: metrics.median_interval_ranks(n) for n in (0, 1, 5, 6, 8, 9, 12, 20, 100)}
        self.assertEqual(table, {0: None, 1: None, 5: None, 6: (1, 6), 8: (1, 8), 9: (2, 8),
                                 12: (3, 10), 20: (6, 15), 100: (40, 61)})

    def test_interval_is_the_narrowest_that_covers_95_percent(self) -> None:
        for n in range(6, 60):
            low, high = metrics.median_interval_ranks(n) or (0, 0)
            below = [sum(math.comb(n, k) for k in range(rank)) / 2 ** n for rank in (low, low + 1)]
            self.assertEqual((high, below[0] <= 0.025 < below[1]), (n + 1 - low, True), n)

    def test_summary_of_nothing_is_null(self) -> None:
        self.assertEqual(metrics.summarize([]), {"n": 0, **NO_NUMBERS})

    def test_one_value_has_no_spread(self) -> None:
        self.assertEqual(metrics.summarize([3]), {
            "n": 1, **NO_NUMBERS, "median": 3.0, "min": 3.0, "max": 3.0})

    def test_five_values_have_quartiles_and_no_interval(self) -> None:
        self.assertEqual(metrics.summarize([50, 10, 40, 20, 30]), {
            "n": 5, "median": 30.0, "q1": 20.0, "q3": 40.0, "iqr": 20.0, "min": 10.0, "max": 50.0,
            "ci_low": None, "ci_high": None, **NO_TAILS})

    def test_quartiles_need_four_values(self) -> None:
        found = [metrics.summarize(range(1, n + 1)) for n in (3, 4)]
        self.assertEqual([[f["q1"], f["q3"], f["iqr"]] for f in found],
                         [[None] * 3, [1.75, 3.25, 1.5]])

    def test_interval_of_six_values_is_minimum_to_maximum(self) -> None:
        self.assertEqual(metrics.summarize([6, 1, 5, 2, 4, 3]), {
            "n": 6, "median": 3.5, "q1": 2.25, "q3": 4.75, "iqr": 2.5, "min": 1.0, "max": 6.0,
            "ci_low": 1.0, "ci_high": 6.0, **NO_TAILS})

    def test_equal_values_have_no_spread(self) -> None:
        self.assertEqual(metrics.summarize([7] * 9), {
            "n": 9, "median": 7.0, "q1": 7.0, "q3": 7.0, "iqr": 0.0, "min": 7.0, "max": 7.0,
            "ci_low": 7.0, "ci_high": 7.0, **NO_TAILS})

    def test_null_and_infinite_values_are_left_out(self) -> None:
        self.assertEqual(metrics.summarize([None, math.inf, 2, math.nan])["n"], 1)

    def test_tails_need_a_minimum_number_of_values(self) -> None:
        found = {n: [metrics.summarize(range(1, n + 1))[p] for p in ("p90", "p95", "p99")]
                 for n in (63, 64, 129, 130, 661, 662)}
        self.assertEqual(found, {
            63: [None] * 3, 64: [58.0, None, None], 129: [117.0, None, None],
            130: [117.0, 124.0, None], 661: [595.0, 628.0, None], 662: [596.0, 629.0, 656.0]})


class OneCall(unittest.TestCase):
    maxDiff = None

    def test_every_number_of_one_call(self) -> None:
        self.assertEqual(metrics.call_metrics(call()), {
            "ttft_ms": 200.0, "ttfo_ms": 200.0, "tpot_ms": 10.0, "decode_tokens_per_s": 100.0,
            "prefill_tokens_per_s": 5000.0, "icl_ms": 10.0, "icl_max_ms": 10.0, "e2el_ms": 600.0,
            "output_tokens": 41, "prompt_tokens": 1000, "cached_tokens": None,
            "coalesced_ratio": 0.0, "output_tokens_source": "usage",
            "null_reasons": {"cached_tokens": "the server tells nothing of a cache"}})

    def test_chunks_are_counted_without_usage(self) -> None:
        found = metrics.call_metrics(call(response__usage=None))
        self.assertEqual(
            (found["output_tokens"], found["output_tokens_source"], found["tpot_ms"],
             found["prompt_tokens"], found["null_reasons"]["prefill_tokens_per_s"]),
            (41, "chunks", 10.0, None, "the server does not report prompt_tokens"))

    def test_usage_with_an_invalid_count_is_ignored(self) -> None:
        for wrong in (0, -41, True, "41", [41], 2 ** 60, math.nan):
            made = call(response__usage={"prompt_tokens": 9, "completion_tokens": wrong})
            self.assertEqual((metrics.usage_problem(made),
                              metrics.call_metrics(made)["output_tokens_source"]),
                             ("completion_tokens is not a valid count", "chunks"), wrong)

    def test_usage_below_a_third_of_the_words_is_ignored(self) -> None:
        for tokens, usable in ((13, False), (14, True)):
            made = call(response__usage={"completion_tokens": tokens},
                        timing__chunk_us=[200_000] + [10_000] * 13)
            self.assertEqual(metrics.usage_is_usable(made), usable, tokens)

    def test_usage_that_leaves_out_streamed_reasoning_is_ignored(self) -> None:
        for tokens, total, mode, usable in (
                (20, None, "none", False), (41, None, "streamed", True),
                (38, 1041, "streamed", False), (38, 1041, "none", True),
                (41, 1041, "streamed", True)):
            made = call(reasoning__mode=mode, response__usage={
                "prompt_tokens": 1000, "completion_tokens": tokens, "total_tokens": total})
            self.assertEqual(metrics.usage_is_usable(made), usable, (tokens, total, mode))

    def test_a_growing_conversation_needs_its_cached_tokens_for_a_prefill_rate(self) -> None:
        def why(count: int, **usage_fields: Any) -> Any:
            made = call(phase="edge_append", request__messages_count=count, response__usage={
                "prompt_tokens": 1000, "completion_tokens": 41, **usage_fields})
            return metrics.call_metrics(made)["null_reasons"].get("prefill_tokens_per_s")

        self.assertEqual([why(1), why(3, cached_tokens=0)], [None, None])
        self.assertIn("cached tokens are not reported", why(3))
        self.assertEqual(why(3, cached_tokens=900), "cached")

    def test_words_of_streamed_reasoning_count(self) -> None:
        made = call(response__reasoning_text=" word" * 300)
        self.assertEqual(metrics.usage_problem(made),
                         "completion_tokens is less than a third of the words")

    def test_usage_above_the_bytes_is_ignored_if_nothing_can_be_hidden(self) -> None:
        made = call(response__usage={"completion_tokens": 300})
        self.assertEqual([metrics.usage_problem(made), metrics.has_hidden_reasoning(made)],
                         [None, True])
        made["reasoning"]["mode"] = "streamed"
        self.assertEqual(metrics.usage_problem(made),
                         "completion_tokens is more than the bytes of text, and no reasoning is "
                         "hidden")
        made["reasoning"]["mode"], made["request"]["options"] = "none", {"num_predict": 256}
        self.assertEqual(
            metrics.usage_problem(made),
            "completion_tokens is more than the call's limit and than the bytes of text")

    def test_hidden_reasoning_has_no_rates(self) -> None:
        usage = {"prompt_tokens": 1000, "completion_tokens": 900,
                 "completion_tokens_details": {"reasoning_tokens": 859}}
        found = metrics.call_metrics(call(response__usage=usage))
        why = "hidden reasoning: not all counted tokens were streamed"
        self.assertEqual(
            (found["ttft_ms"], found["output_tokens"], found["tpot_ms"], found["null_reasons"]),
            (200.0, 900, None, {
                "tpot_ms": why, "decode_tokens_per_s": why,
                "prefill_tokens_per_s": "hidden reasoning: TTFT includes it",
                "cached_tokens": "the server tells nothing of a cache"}))

    def test_reasoning_is_hidden_if_tokens_exceed_text_and_chunks(self) -> None:
        def hidden(text: str, tokens: int) -> bool:
            return metrics.has_hidden_reasoning(call(
                response__text=text, response__usage={"completion_tokens": tokens}))
        letters, signs = "a" * 150, "a" * 270 + "1" * 30           # room for 50 and 120 tokens
        found = [hidden(letters, 77), hidden(letters, 78), hidden(signs, 136), hidden(signs, 137)]
        self.assertEqual(found, [False, True, False, True])          # 41 chunks leave room for 77.5

    def test_reported_reasoning_tokens_are_allowed_in_addition(self) -> None:
        def problem(reasoning: int) -> Any:
            return metrics.usage_problem(call(
                response__text="a" * 100, request__options={"max_tokens": 200}, response__usage={
                    "completion_tokens": 300,
                    "completion_tokens_details": {"reasoning_tokens": reasoning}}))
        self.assertEqual([problem(184), problem(183)], [
            None,
            "completion_tokens is more than the call's limit and than the bytes of text"])

    def test_chunks_of_several_tokens_are_not_hidden_reasoning(self) -> None:
        made = call(response__text="def f(x): return x + 1\n" * 40,
                    response__usage={"completion_tokens": 400})
        self.assertFalse(metrics.has_hidden_reasoning(made))

    def test_tokens_of_partial_characters_are_not_hidden_reasoning(self) -> None:
        made = call(response__text="日本" * 40, response__usage={"completion_tokens": 200})
        self.assertFalse(metrics.has_hidden_reasoning(made))

    def test_empty_answer_has_no_ttft(self) -> None:
        made = call(response__text="",
                    response__usage={"prompt_tokens": 1000, "completion_tokens": 1})
        made["timing"].update(first_token_us=None, first_answer_us=None, last_token_us=None,
                              chunk_us=[], ttft_null_reason="the answer has no text")
        found, why = metrics.call_metrics(made), "the answer has no text"
        self.assertEqual(found, {
            **dict.fromkeys(metric_definitions.CALL_METRICS),
            "output_tokens": 1, "prompt_tokens": 1000,
            "output_tokens_source": "usage", "null_reasons": {
                **{name: why for name in metric_definitions.CALL_METRICS
                   if name not in ("output_tokens", "prompt_tokens")},
                "cached_tokens": "the server tells nothing of a cache"}})

    def test_timed_out_call_has_no_e2el(self) -> None:
        found = metrics.call_metrics(call(outcome="timeout", response__usage=None))
        self.assertEqual((found["ttft_ms"], found["tpot_ms"], found["e2el_ms"],
                          found["null_reasons"]["e2el_ms"]),
                         (200.0, 10.0, None, "the call did not complete (timeout)"))

    def test_call_without_request_has_reasons_and_no_numbers(self) -> None:
        found = metrics.call_metrics(call(outcome="connect_failed", response=None, timing=None))
        self.assertEqual(({found[name] for name in metric_definitions.CALL_METRICS},
                          found["null_reasons"]["ttft_ms"], sorted(found["null_reasons"])),
                         ({None}, "no request was sent", sorted(metric_definitions.CALL_METRICS)))

    def test_reasoning_only_answer_has_no_ttfo(self) -> None:
        found = metrics.call_metrics(call(timing__first_answer_us=None))
        self.assertEqual((found["ttfo_ms"], found["null_reasons"]["ttfo_ms"]),
                         (None, "the answer is only reasoning"))

    def test_decode_rate_needs_32_tokens(self) -> None:
        made = call(response__text="word " * 30, response__usage={"completion_tokens": 31},
                    timing__chunk_us=[200_000] + [10_000] * 30, timing__last_token_us=500_000)
        found = metrics.call_metrics(made)
        self.assertEqual((found["tpot_ms"], found["decode_tokens_per_s"],
                          found["null_reasons"]["decode_tokens_per_s"]),
                         (10.0, None, "fewer than 32 output tokens"))
        made["timing"].update(chunk_us=[200_000] + [10_000] * 31, last_token_us=510_000)
        made["response"]["usage"]["completion_tokens"] = 32
        self.assertEqual(metrics.call_metrics(made)["decode_tokens_per_s"], 100.0)

    def test_tpot_needs_two_tokens(self) -> None:
        made = call(response__text="Yes", response__usage={"completion_tokens": 1},
                    timing__chunk_us=[200_000], timing__last_token_us=200_000)
        self.assertEqual(metrics.call_metrics(made)["null_reasons"]["tpot_ms"],
                         "fewer than 2 output tokens")

    def test_answer_in_one_read_has_no_rate(self) -> None:
        made = call(timing__chunk_us=[200_000] + [0] * 40, timing__reads=[[0, 41]],
                    timing__last_token_us=200_000)
        found = metrics.call_metrics(made)
        self.assertEqual((found["tpot_ms"], found["decode_tokens_per_s"], found["icl_ms"],
                          found["coalesced_ratio"], found["null_reasons"]["tpot_ms"]),
                         (None, None, None, 1.0, "all text arrived at once"))

    def test_no_rate_if_first_read_has_over_5_percent_of_tokens(self) -> None:
        found = [metrics.call_metrics(call(timing__reads=[[0, count]]))["tpot_ms"]
                 for count in (2, 3, 4)]
        self.assertEqual(found, [10.0, 10.0, None])
        few = call(timing__chunk_us=[200_000] + [100_000] * 4)        # 41 tokens in 5 chunks
        self.assertEqual(metrics.call_metrics(few)["null_reasons"]["tpot_ms"],
                         "too much of the text arrived in the first read")

    def test_gaps_that_end_in_a_shared_read_are_left_out(self) -> None:
        chunk_us = [200_000, 11, 12, 99, 0, 0, 13, 99, 0, 14]
        made = call(timing__chunk_us=chunk_us, timing__reads=[[3, 3], [7, 2]])
        found = metrics.call_metrics(made)
        self.assertEqual((metrics.icl_gaps_us(made), found["icl_ms"], found["icl_max_ms"],
                          found["coalesced_ratio"]), ([11, 12, 13, 14], 0.0125, 0.014, 0.5))

    def test_shared_first_read_has_no_gap(self) -> None:
        made = call(timing__chunk_us=[200_000, 0, 15, 16], timing__reads=[[0, 2]])
        self.assertEqual(metrics.icl_gaps_us(made), [15, 16])

    def test_cached_tokens_from_usage_or_timings(self) -> None:
        told = {"prompt_tokens": 1000, "completion_tokens": 41,
                "prompt_tokens_details": {"cached_tokens": 7}}
        found = [usage.counts(made["response"]).cached for made in (
            call(response__usage=told), call(response__server_timings={"cache_n": 8}),
            call(response__usage={**told, "prompt_tokens_details": {"cached_tokens": None}}),
            call(response__usage={**told, "prompt_tokens_details": [7]},
                 response__server_timings={"cache_n": True}))]
        self.assertEqual(found, [7, 8, None, None])

    def test_no_prefill_rate_if_ttft_is_zero(self) -> None:
        found = metrics.call_metrics(call(timing__first_token_us=0))
        self.assertEqual((found["ttft_ms"], found["prefill_tokens_per_s"]), (0.0, None))

    def test_no_prefill_rate_if_over_10_percent_was_cached(self) -> None:
        found = {cached: metrics.call_metrics(call(response__server_timings={"cache_n": cached}))
                 for cached in (100, 101)}
        self.assertEqual((found[100]["prefill_tokens_per_s"], found[101]["prefill_tokens_per_s"],
                          found[101]["null_reasons"]), (5000.0, None,
                                                        {"prefill_tokens_per_s": "cached"}))

    def test_cached_template_beginning_is_not_a_cached_prompt(self) -> None:
        found = [metrics.counts_as_cached(cached, prompt) for cached, prompt in (
            (64, 140), (65, 140), (65, 650), (66, 650), (65, 649), (None, 140), (65, None))]
        self.assertEqual(found, [False, True, False, True, True, False, False])

    def test_prefill_rate_needs_512_uncached_tokens(self) -> None:
        def rate(prompt: int, cached: int) -> Any:
            return metrics.call_metrics(call(
                response__usage={"prompt_tokens": prompt, "completion_tokens": 41},
                response__server_timings={"cache_n": cached}))["prefill_tokens_per_s"]
        self.assertEqual([rate(511, 0), rate(512, 0), rate(530, 20)], [None, 2560.0, None])


class Verdicts(unittest.TestCase):
    def test_outliers_need_10_sigma_and_20_percent(self) -> None:
        steady = [99, 100, 100, 101, 99, 101]                          # MAD of all seven: 1
        self.assertEqual(metrics.outliers([*steady, 130]),
                         {"flagged": True, "count": 1, "largest_sigmas": 20.2347})
        self.assertEqual(metrics.outliers([*steady, 119]),
                         {"flagged": False, "count": 0, "largest_sigmas": 12.8153})
        self.assertEqual(metrics.outliers([60, 80, 100, 120, 140, 160])["flagged"], False)

    def test_outliers_among_equal_values_have_no_infinite_distance(self) -> None:
        self.assertEqual(metrics.outliers([5, 5, 5, 5, 5, 50]),
                         {"flagged": True, "count": 1, "largest_sigmas": None})

    def test_outliers_are_not_judged_below_6(self) -> None:
        self.assertEqual(metrics.outliers([1, 1, 1, 1, 99]),
                         {"flagged": None, "count": None, "largest_sigmas": None})

    def test_drift_compares_the_first_quarter_with_the_last(self) -> None:
        self.assertEqual(metrics.drift([100] * 9 + [89] * 3), {"flagged": True, "ratio": 0.89})
        self.assertEqual(metrics.drift([100] * 9 + [92] * 3), {"flagged": False, "ratio": 0.92})
        self.assertEqual(metrics.drift([100] * 9 + [111] * 3), {"flagged": True, "ratio": 1.11})
        self.assertEqual(metrics.drift([100] * 5 + [50] * 6), {"flagged": None, "ratio": None})

    def test_instability_is_the_quartiles_distance_over_the_median(self) -> None:
        self.assertEqual(metrics.instability([90, 95, 100, 100, 105, 110]),
                         {"flagged": False, "iqr_ratio": 0.075})
        self.assertEqual(metrics.instability([80, 90, 100, 100, 110, 120]),
                         {"flagged": True, "iqr_ratio": 0.15})
        self.assertEqual(metrics.instability([80, 90, 100, 100, 110, 120], 0.25)["flagged"], False)
        self.assertEqual(metrics.instability([1, 9, 1, 9, 1]), {"flagged": None, "iqr_ratio": None})


CALIBRATION = {
    "event": "instrument_calibrated", "stamp": "kernel", "clock_resolution_ns": 1,
    "lanes": [{"lanes": 1, "chunks": 700, "lag_us": {"p50": 10, "p99": 30, "max": 90}},
              {"lanes": 4, "chunks": 700, "lag_us": {"p50": 15, "p99": 60, "max": 95}}],
    "saturation": [{"lanes": 1, "chunks_per_s": 9000.0}, {"lanes": 4, "chunks_per_s": 1200.0}],
    "heartbeat_overshoot_us": {"p50": 80, "p99": 400, "max": 900}, "wall_ms": 3000, "reason": None}


class ClientBound(unittest.TestCase):
    def test_kernel_stamps_err_by_what_the_calibration_found_at_so_many_lanes(self) -> None:
        found = [metrics.stamp_error_us(call(), CALIBRATION, lanes) for lanes in (1, 2, 4, 9)]
        self.assertEqual(found, [(30, "calibration")] + [(60, "calibration")] * 3)

    def test_kernel_stamps_without_calibration_err_by_less_than_the_readers_lag(self) -> None:
        self.assertEqual(metrics.stamp_error_us(call(), None, 1), (100, "read_lag"))

    def test_user_stamps_err_by_the_readers_own_lag(self) -> None:
        made, user = call(timing__stamp="user"), {**CALIBRATION, "stamp": "user"}
        found = [metrics.stamp_error_us(made, user, 1)]
        made["timing"]["read_lag_us"] = None
        found += [metrics.stamp_error_us(made, c, 1) for c in (user, CALIBRATION, None)]
        self.assertEqual(found, [(100, "read_lag"), (30, "calibration"), (400, "heartbeat"),
                                 (None, "not calibrated")])

    def test_client_is_not_the_limit_for_a_slow_server(self) -> None:
        self.assertEqual(metrics.client_bound(calls_of(6), CALIBRATION, 1), {
            "flagged": False, "reasons": [], "error_p99_us": 30.0, "error_source": "calibration",
            "ttft_us": 200000.0, "decode_window_us": 400000.0, "chunks_per_s": 100.0,
            "saturation_chunks_per_s": 9000.0})

    def test_client_bound_over_1_percent_of_window_or_ttft(self) -> None:
        def reasons(p99: int) -> Any:
            lanes = [{"lanes": 1, "chunks": 700, "lag_us": {"p50": 1, "p99": p99, "max": 9999}}]
            return metrics.client_bound(calls_of(6), {**CALIBRATION, "lanes": lanes}, 1)["reasons"]
        self.assertEqual([reasons(2000), reasons(2001)], [[], ["decode_window", "ttft"]])

    def test_client_bound_over_a_third_of_saturation(self) -> None:
        found = metrics.client_bound(calls_of(8, lanes=4), CALIBRATION, 4)
        self.assertEqual((found["flagged"], found["chunks_per_s"]), (False, 400.0))
        tight = {**CALIBRATION, "saturation": [{"lanes": 4, "chunks_per_s": 1199.0}]}
        self.assertEqual(metrics.client_bound(calls_of(8, lanes=4), tight, 4)["reasons"],
                         ["saturation"])

    def test_windows_need_32_chunks(self) -> None:
        short = [call(timing__chunk_us=[200_000] + [1] * n, timing__last_token_us=200_000 + n)
                 for n in (30, 31)]
        found = [metrics.client_bound([made], CALIBRATION, 1) for made in short]
        self.assertEqual([(f["reasons"], f["decode_window_us"]) for f in found],
                         [([], None), (["decode_window", "saturation"], 31.0)])

    def test_client_bound_is_null_without_calibration(self) -> None:
        found = metrics.client_bound(calls_of(6, timing__read_lag_us=None), None, 1)
        self.assertEqual((found["flagged"], found["error_source"]), (None, "not calibrated"))


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
                "metrics": {
                    "ttft_ms": six(200), "ttfo_ms": six(200), "tpot_ms": six(10),
                    "decode_tokens_per_s": six(100), "prefill_tokens_per_s": six(5000),
                    "icl_ms": six(10), "icl_max_ms": six(10), "e2el_ms": six(600),
                    "output_tokens": six(41), "prompt_tokens": six(1000),
                    "cached_tokens": {"n": 0, **NO_NUMBERS}, "coalesced_ratio": six(0)},
                "output_tokens_source": "usage", "makespan_ms": 5650.0,
                "output_token_throughput_tokens_per_s": 43.5398,        # 6 * 41 / 5.65
                "lane_efficiency_ratio": None, "checks": {"passed": 0, "total": 0},
                "null_reasons": {
                    "cached_tokens": "6 of 6 calls: the server tells nothing of a cache",
                    "lane_efficiency_ratio": "one lane"},
                "verdicts": {
                    "client_bound": {
                        "flagged": False, "reasons": [], "error_p99_us": 30.0,
                        "error_source": "calibration", "ttft_us": 200000.0,
                        "decode_window_us": 400000.0, "chunks_per_s": 100.0,
                        "saturation_chunks_per_s": 9000.0},
                    "unstable": {"flagged": False, "iqr_ratio": 0.0},
                    "drifting": {"flagged": None, "ratio": None},
                    "outliers": {"flagged": False, "count": 0, "largest_sigmas": None}},
                "flags": []}],
            "run_flags": [], "counts": {"ok": 6},
            "instrument": {
                **{name: CALIBRATION[name] for name in (
                    "stamp", "clock_resolution_ns", "lanes", "saturation",
                    "heartbeat_overshoot_us", "wall_ms", "reason")},
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
        self.assertEqual(hashlib.sha256(text.encode()).hexdigest()[:16], "62d872b33b3787cf")

    def test_run_without_calls_has_no_cells(self) -> None:
        self.assertEqual(summarize_run(manifest(), []), {
            "cells": [], "headlines": [], "counts": {},
            "run_flags": ["not_calibrated", "unfinished"],
            "instrument": {
                **dict.fromkeys(("stamp", "clock_resolution_ns", "lanes", "saturation",
                                 "heartbeat_overshoot_us", "wall_ms")),
                "reason": "no calibration in this run", "stamps": {}, "read_lag_us": None}})

    def test_failed_calls_enter_no_metric(self) -> None:
        cut = call(cell_id="x", seq=9, outcome="timeout", timing__started_us=6_000_000,
                   timing__first_token_us=9_000_000, timing__done_us=None, t_us=16_000_000)
        cell = the_cell([*calls_of(6), cut])
        self.assertEqual(
            (cell["ok"], cell["failed"], cell["outcomes"], cell["metrics"]["ttft_ms"]["max"],
             cell["makespan_ms"], cell["flags"]),
            (6, 1, {"ok": 6, "timeout": 1}, 200.0, 16000.0, ["failures"]))

    def test_last_line_of_a_cell_id_counts(self) -> None:
        events = [*calls_of(6), call(seq=9, segment=1, timing__first_token_us=250_000)]
        events[0]["outcome"] = "timeout"
        cell = the_cell(events)
        self.assertEqual((cell["ok"], cell["failed"], cell["metrics"]["ttft_ms"]["max"]),
                         (6, 0, 250.0))

    def test_phase_over_two_segments_has_no_makespan(self) -> None:
        events = calls_of(2)
        events[1]["segment"] = 1
        cell = the_cell(events)
        why = "the run was resumed during the phase"
        self.assertEqual(
            (cell["makespan_ms"], cell["output_token_throughput_tokens_per_s"],
             cell["null_reasons"]),
            (None, None, {"cached_tokens": "2 of 2 calls: the server tells nothing of a cache",
                          "makespan_ms": why, "output_token_throughput_tokens_per_s": why,
                          "lane_efficiency_ratio": "one lane"}))

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

    def test_lane_efficiency_is_against_ideal_scaling_of_the_one_lane_phases(self) -> None:
        # Alone: 41 tokens in 0.6 s. Four lanes, two rounds: 8 * 41 tokens in 1.65 s.
        alone = calls_of(6, timing__started_us=0)
        lanes = calls_of(8, phase="parallel_same", lanes=4)
        planned = manifest(("20q", 1, 6), ("parallel_same", 4, 8))
        cells = summarize_run(planned, [*alone, *lanes])["cells"]
        self.assertEqual(
            [(c["phase"], c["lane_efficiency_ratio"],
              c["null_reasons"].get("lane_efficiency_ratio"),
              c["output_token_throughput_tokens_per_s"]) for c in cells],
            [("20q", None, "one lane", 378.462),
             ("parallel_same", metrics.round_sig(8 / 1.65 / (4 / 0.6)), None, 198.788)])
        [cell] = summarize_run(planned, lanes)["cells"]
        self.assertEqual(cell["null_reasons"]["lane_efficiency_ratio"],
                         "no answer on one lane (frozen, 5q, 20q)")

    def test_lanes_bound_to_models_share_a_makespan_and_split_the_plan(self) -> None:
        planned = manifest(("parallel_mixed", 4, 10), models=("m", "n", "o"))
        events = calls_of(10, phase="parallel_mixed", lanes=4)
        for i, made in enumerate(events):
            made["model"] = ("m", "n", "o", "m")[i % 4]
            made["cell_id"] = f"{i}"
        cells = summarize_run(planned, events)["cells"]
        self.assertEqual(
            [(c["model"], c["planned"], c["ok"], c["makespan_ms"],
              c["output_token_throughput_tokens_per_s"]) for c in cells],
            [("m", 5, 5, 2650.0, metrics.round_sig(205 / 2.65)),
             ("n", 3, 3, 2650.0, metrics.round_sig(123 / 2.65)),
             ("o", 2, 2, 2650.0, metrics.round_sig(82 / 2.65))])

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

    def test_lanes_may_drift_more_than_one_lane(self) -> None:
        alone, lanes = (with_tokens_per_s([100.0] * 6 + [120.0] * 6) for _ in range(2))
        for made in lanes:
            made.update(phase="parallel_same", cell_id="lane" + made["cell_id"])
        planned = manifest(("20q", 1, 12), ("parallel_same", 4, 12))
        cells = summarize_run(planned, [*alone, *lanes])["cells"]
        self.assertEqual(["drifting" in c["flags"] for c in cells], [True, False])

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

    def test_early_speed(self) -> None:
        made = call(timing__chunk_us=[0, *[10_000] * 64, *[20_000] * 64])
        self.assertAlmostEqual(metrics.early_speed(made), 1.5)
        self.assertAlmostEqual(metrics.early_speed(made, 96), 1.125)
        for chunk_us in ([], [5], [5, 0, 0], [5, *[10_000] * 64]):
            made = call(timing__chunk_us=chunk_us)
            self.assertEqual((metrics.early_speed(made), metrics.early_speed(made, 0)), (1.0, 1.0))
            self.assertEqual(metrics.gaps_count(made), max(len(chunk_us) - 1, 0))

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

    def test_growing_conversations_are_never_unstable_or_drifting(self) -> None:
        events = with_tokens_per_s([100.0 - 4 * i for i in range(16)])
        flags = [the_cell(events)["flags"]]
        for made in events:
            made["phase"] = "edge_append"
        flags.append(the_cell(events, planned=manifest(("edge_append", 1, 16)))["flags"])
        self.assertEqual(flags, [["unstable", "drifting"], []])


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
            endpoint(None, 4096, None), endpoint(4, 4096, 4096), endpoint(3, 4096, 2048))]
        self.assertEqual(found, [[], [], ["context_differs", "queued"]])

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
        probe = {"event": "cache_probed", "model": "m", "verdict": "cached"}
        hello = call(cell_id="h", phase="hello", cold=True, seq=0)
        cells = summarize_run(manifest(("hello", 1, 1), ("20q", 1, 6)),
                                      [hello, *calls_of(6), probe])
        self.assertEqual(
            ([c["flags"] for c in cells["cells"]], cells["run_flags"]),
            ([[], ["cached_prefill"]], ["cached_prefill", "not_calibrated", "unfinished"]))

    def test_flags_of_the_machine(self) -> None:
        def sample(**gauges: Any) -> dict[str, Any]:
            return {"event": "host_sampled", "segment": 0, "gpus": [], **dict.fromkeys((
                "other_cpu_busy_ratio", "cpu_steal_ratio", "cpu_throttle_count",
                "power_source")), **gauges}

        def flags(*samples: dict[str, Any]) -> Any:
            whole = [CALIBRATION, *samples, {"event": "run_finished"}]
            return summarize_run(manifest(), whole)["run_flags"]
        quiet = sample(other_cpu_busy_ratio=0.1, cpu_steal_ratio=0.01, cpu_throttle_count=7)
        self.assertEqual(
            [flags(), flags(quiet, quiet), flags(*[quiet] * 4, sample(other_cpu_busy_ratio=0.5)),
             flags(*[quiet] * 3, sample(other_cpu_busy_ratio=0.5)),
             flags(sample(cpu_steal_ratio=0.2)),
             flags(quiet, sample(cpu_throttle_count=8)),
             flags(quiet, sample(cpu_throttle_count=8, segment=1)),
             flags(sample(gpus=[{"throttled": None}, {"throttled": True}])),
             flags(sample(power_source="battery"))],
            [[], [], [], ["busy_host"], ["busy_host"], ["throttled"], [], ["throttled"],
             ["on_battery"]])


class TwoRuns(unittest.TestCase):
    def test_ratio_summary_is_the_median_of_ratios(self) -> None:
        pairs = [(100, 100 + k) for k in (10, 20, 30, 40, 50, 60, 70, 80, 90)]
        self.assertEqual(metrics.ratio_summary([*pairs, (1, None), (0, 5), (None, 2), (3, -1)]), {
            "n": 9, "left_out": 4, "median": 1.5, "ci_low": 1.2, "ci_high": 1.8})

    def test_swapped_runs_give_the_inverse(self) -> None:
        pairs = [(1, 2), (1, 4), (1, 8), (1, 16), (1, 32), (1, 64)]
        self.assertEqual(
            [metrics.ratio_summary(pairs), metrics.ratio_summary((b, a) for a, b in pairs)],
            [{"n": 6, "left_out": 0, "median": 11.3137, "ci_low": 2.0, "ci_high": 64.0},
             {"n": 6, "left_out": 0, "median": 0.0883883, "ci_low": 0.015625, "ci_high": 0.5}])

    def test_few_questions_have_no_interval_and_no_verdict(self) -> None:
        found = metrics.ratio_summary([(1, 2)] * 5)
        self.assertEqual((found, metrics.verdict(found, "higher")), (
            {"n": 5, "left_out": 0, "median": 2.0, "ci_low": None, "ci_high": None}, "cannot tell"))
        self.assertEqual(metrics.ratio_summary([]), {
            "n": 0, "left_out": 0, "median": None, "ci_low": None, "ci_high": None})

    def test_verdict_needs_5_percent_and_an_interval_without_1(self) -> None:
        def judge(median: float, low: float, high: float) -> list[str]:
            ratios = {"n": 9, "left_out": 0, "median": median, "ci_low": low, "ci_high": high}
            return [metrics.verdict(ratios, d) for d in ("higher", "lower", "none")]
        unsure = ["cannot tell"] * 3
        self.assertEqual(
            [judge(1.05, 1.01, 1.2), judge(0.9, 0.8, 0.99), judge(1.049, 1.01, 1.2),
             judge(0.96, 0.9, 0.99), judge(1.2, 1.0, 1.4), judge(0.8, 0.7, 1.1)],
            [["faster", "slower", "cannot tell"], ["slower", "faster", "cannot tell"],
             unsure, unsure, unsure, unsure])


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
                     *(name for name in cell if name.endswith(("_ms", "_s", "_ratio")))}
        self.assertEqual(published - set(metric_definitions.METRICS), set())

    def test_texts_fit_a_table_row(self) -> None:
        rows: list[tuple[Any, ...]] = [*metric_definitions.METRICS.values(),
                                       *metric_definitions.FLAGS.values()]
        for row in rows:
            texts = [part for part in row if isinstance(part, str)]
            self.assertEqual([t for t in texts if not t or "|" in t or "\n" in t], [], row[0])
        self.assertEqual({m.direction for m in metric_definitions.METRICS.values()},
                         {"lower", "higher", "none"})



if __name__ == "__main__":
    unittest.main()
