"""Compare metrics with values computed by hand."""
from __future__ import annotations

import math
import unittest
from typing import Any

from core import metric_definitions, metrics, usage

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


def hides(made: Any) -> bool:
    return metrics.has_hidden_reasoning(made, metrics.usable_counts(made))


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
        gap_us = round(1e6 / rate)
        made["timing"].update(chunk_us=[200_000, *[gap_us] * 40],
                              last_token_us=200_000 + 40 * gap_us)
    return out


NO_CACHE = "the server does not report cached tokens"


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
            "answer_tokens_per_s": 100.0, "prefill_tokens_per_s": 1000 * 1000 / (200.0 - 10.0),
            "icl_ms": 10.0, "icl_max_ms": 10.0, "e2el_ms": 600.0, "output_tokens": 41,
            "prompt_tokens": 1000, "cached_tokens": None, "coalesced_ratio": 0.0,
            "output_tokens_source": "usage", "cached_tokens_source": None,
            "null_reasons": {"cached_tokens": NO_CACHE}})

    def test_chunks_are_counted_without_usage(self) -> None:
        found = metrics.call_metrics(call(response__usage=None))
        self.assertEqual(
            (found["output_tokens"], found["output_tokens_source"], found["tpot_ms"],
             found["prompt_tokens"], found["null_reasons"]["prefill_tokens_per_s"]),
            (41, "chunks", 10.0, None, "the server does not report prompt_tokens"))

    def test_usage_with_an_invalid_count_is_ignored(self) -> None:
        for wrong in (-41, True, "41", [41], 2 ** 60, math.nan):
            made = call(response__usage={"prompt_tokens": 9, "completion_tokens": wrong})
            self.assertEqual((metrics.usage_problem(made),
                              metrics.call_metrics(made)["output_tokens_source"]),
                             ("completion_tokens is not a valid count", "chunks"), wrong)

    def test_usage_below_a_third_of_the_words_is_ignored(self) -> None:
        for tokens, usable in ((13, False), (14, True)):
            made = call(response__usage={"completion_tokens": tokens},
                        timing__chunk_us=[200_000] + [10_000] * 13)
            self.assertEqual(bool(metrics.usable_counts(made)), usable, tokens)

    def test_usage_that_leaves_out_streamed_reasoning_is_ignored(self) -> None:
        for tokens, total, mode, usable in (
                (20, None, "none", False), (41, None, "streamed", True),
                (38, 1041, "streamed", False), (38, 1041, "none", True),
                (41, 1041, "streamed", True)):
            made = call(reasoning__mode=mode, response__usage={
                "prompt_tokens": 1000, "completion_tokens": tokens, "total_tokens": total})
            self.assertEqual(bool(metrics.usable_counts(made)), usable, (tokens, total, mode))

    def test_prefill_of_a_later_turn_needs_its_cached_tokens(self) -> None:
        def rate(count: int, cache: Any = None, **usage_fields: Any) -> Any:
            made = call(phase="edge_append", request__messages_count=count, response__usage={
                "prompt_tokens": 2000, "completion_tokens": 41, **usage_fields})
            found = metrics.call_metrics(made, cache=cache)
            return found["prefill_tokens_per_s"], found["cached_tokens_source"]

        self.assertEqual(
            [rate(1), rate(3), rate(3, cached_tokens=1050), rate(3, metrics.Cache(1050)),
             rate(3, metrics.Cache(1050), cached_tokens=0)],
            [(2_000_000 / 190, None), (None, None), (950 / 0.19, "server"), (950 / 0.19, "derived"),
             (2_000_000 / 190, "server")])

    def test_prefill_is_null_if_a_cache_of_unknown_size_is_known(self) -> None:
        made, cache = call(), metrics.Cache(None, "why")
        self.assertEqual(metrics.call_metrics(made, cache=cache)["null_reasons"], {
            "prefill_tokens_per_s": "why", "cached_tokens": "why"})
        made["response"]["usage"]["cached_tokens"] = 488
        self.assertEqual(metrics.call_metrics(made, cache=cache)["prefill_tokens_per_s"],
                         512 / 0.19)

    def test_words_of_streamed_reasoning_count(self) -> None:
        made = call(response__reasoning_text=" word" * 300)
        self.assertEqual(metrics.usage_problem(made),
                         "completion_tokens is less than a third of the words")

    def test_usage_above_the_bytes_is_ignored_if_nothing_can_be_hidden(self) -> None:
        made = call(response__usage={"completion_tokens": 300})
        self.assertEqual([metrics.usage_problem(made), hides(made)],
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
                "tpot_ms": why, "decode_tokens_per_s": why, "answer_tokens_per_s": why,
                "prefill_tokens_per_s": why,
                "cached_tokens": NO_CACHE}))

    def test_reasoning_is_hidden_if_tokens_exceed_text_and_chunks(self) -> None:
        def hidden(text: str, tokens: int) -> bool:
            return hides(call(
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

    def test_count_that_includes_the_prompt_is_implausible(self) -> None:
        def problem(total: int) -> Any:
            return metrics.usage_problem(call(response__usage={
                "prompt_tokens": 98, "completion_tokens": 50, "total_tokens": total}))
        self.assertEqual([problem(148), problem(50)],
                         [None, "total_tokens is less than prompt and answer together"])

    def test_chunks_of_several_tokens_are_not_hidden_reasoning(self) -> None:
        made = call(response__text="def f(x): return x + 1\n" * 40,
                    response__usage={"completion_tokens": 400})
        self.assertFalse(hides(made))

    def test_tokens_of_partial_characters_are_not_hidden_reasoning(self) -> None:
        made = call(response__text="日本" * 40, response__usage={"completion_tokens": 200})
        self.assertFalse(hides(made))

    def test_empty_answer_has_no_ttft(self) -> None:
        made = call(response__text="",
                    response__usage={"prompt_tokens": 1000, "completion_tokens": 1})
        made["timing"].update(first_token_us=None, first_answer_us=None, last_token_us=None,
                              chunk_us=[], ttft_null_reason="the answer has no text")
        found, why = metrics.call_metrics(made), "the answer has no text"
        self.assertEqual(found, {
            **dict.fromkeys(metric_definitions.CALL_METRICS),
            "output_tokens": 1, "prompt_tokens": 1000,
            "output_tokens_source": "usage", "cached_tokens_source": None, "null_reasons": {
                **{name: why for name in metric_definitions.CALL_METRICS
                   if name not in ("output_tokens", "prompt_tokens")},
                "cached_tokens": NO_CACHE}})

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

    def test_rates_need_32_chunks_or_tokens_after_the_first_read(self) -> None:
        def found(gaps: int) -> list[Any]:
            numbers = metrics.call_metrics(call(
                response__text="word " * 30, response__usage={"completion_tokens": gaps + 1},
                timing__chunk_us=[200_000] + [10_000] * gaps,
                timing__last_token_us=200_000 + 10_000 * gaps))
            return [numbers[name] for name in ("decode_tokens_per_s", "tpot_ms",
                                               "answer_tokens_per_s")]
        self.assertEqual([found(31), found(32)], [[None] * 3, [100.0, 10.0, 100.0]])

    def test_decode_rate_is_that_of_the_first_64_chunks_after_the_first_read(self) -> None:
        def rate(chunk_us: list[int], tokens: int, *reads: list[int]) -> Any:
            return metrics.call_metrics(call(
                timing__chunk_us=chunk_us, timing__reads=list(reads),
                timing__last_token_us=sum(chunk_us), response__text="word " * tokens,
                response__usage={"completion_tokens": tokens}))["decode_tokens_per_s"]

        later = [20_000] * 64
        self.assertEqual([
            rate([9, *[10_000] * 64], 65), rate([9, *[10_000] * 64, *later], 129),
            rate([9, *[10_000] * 64, *later], 258),                 # two tokens in each chunk
            rate([9, 0, 0, *[10_000] * 64, *later], 131, [0, 3]),   # three chunks in the first read
            # The 64th gap ends in a read of five chunks, which all came in its time.
            rate([9, *[10_000] * 63, 50_000, 0, 0, 0, 0, *later], 133, [64, 5])],
            [100.0, 100.0, 200.0, 100.0, 100.0])

    def test_decode_rate_does_not_depend_on_the_length_of_the_answer(self) -> None:
        """A step that grows from 11 ms by 3 us for each token: about 90 tokens/s in short answers,
        71 over 2,048 tokens."""
        def numbers(tokens: int) -> Any:
            gaps = [round(11_000 + 3.0 * i) for i in range(1, tokens)]
            return metrics.call_metrics(call(
                timing__chunk_us=[200_000, *gaps], timing__last_token_us=200_000 + sum(gaps),
                response__text="word " * tokens, response__usage={"completion_tokens": tokens}))

        short, long = numbers(60), numbers(2048)
        self.assertGreater(short["answer_tokens_per_s"], 1.2 * long["answer_tokens_per_s"])
        self.assertLess(abs(short["decode_tokens_per_s"] / long["decode_tokens_per_s"] - 1), 0.05)

    def test_answer_in_one_read_has_no_rate(self) -> None:
        made = call(timing__chunk_us=[200_000] + [0] * 40, timing__reads=[[0, 41]],
                    timing__last_token_us=200_000)
        found = metrics.call_metrics(made)
        self.assertEqual((found["tpot_ms"], found["decode_tokens_per_s"], found["icl_ms"],
                          found["prefill_tokens_per_s"], found["coalesced_ratio"],
                          found["null_reasons"]["tpot_ms"]),
                         (None, None, None, None, 1.0, "all text arrived at once"))

    def test_tokens_of_the_first_read_are_not_timed(self) -> None:
        def tpot(first: int) -> Any:
            return metrics.call_metrics(call(
                timing__reads=[[0, first]], timing__chunk_us=[200_000, *[0] * (first - 1),
                                                              *[10_000] * (41 - first)],
                timing__last_token_us=200_000 + 10_000 * (41 - first)))["tpot_ms"]
        self.assertEqual([tpot(2), tpot(9), tpot(10)], [10.0, 10.0, None])

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

    def test_cached_template_beginning_is_not_a_cached_prompt(self) -> None:
        found = [metrics.counts_as_cached(cached, prompt) for cached, prompt in (
            (64, 140), (65, 140), (65, 650), (66, 650), (65, 649), (None, 140), (65, None))]
        self.assertEqual(found, [False, True, False, True, True, False, False])

    def test_prefill_rate_is_of_at_least_512_uncached_tokens(self) -> None:
        def rate(prompt: int, cached: int) -> Any:
            return metrics.call_metrics(call(
                response__usage={"prompt_tokens": prompt, "completion_tokens": 41},
                response__server_timings={"cache_n": cached}))["prefill_tokens_per_s"]
        self.assertEqual([rate(511, 0), rate(512, 0), rate(530, 20), rate(5000, 4050)],
                         [None, 512 / 0.19, None, 5000.0])

    def test_prefill_of_a_short_answer_uses_the_step_of_its_few_chunks(self) -> None:
        made = call(timing__chunk_us=[200_000, 10_000], timing__last_token_us=210_000,
                    response__text="Yes.", response__usage={
                        "prompt_tokens": 950, "completion_tokens": 2})
        self.assertEqual(metrics.call_metrics(made)["prefill_tokens_per_s"], 5000.0)
        made["timing"].update(chunk_us=[10_000, 10_000], first_token_us=10_000)
        self.assertIn("longer than one decode step",
                      metrics.call_metrics(made)["null_reasons"]["prefill_tokens_per_s"])


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

    def test_drift_is_the_robust_line_through_all_rates(self) -> None:
        ramp = [100 - i for i in range(21)]
        spoilt = [300 if i % 5 == 0 else rate for i, rate in enumerate(ramp)]
        self.assertEqual([metrics.drift_ratio(values) for values in (
            ramp, spoilt, [100] * 12, [100] * 11, [0] * 12)], [0.8, 0.8, 1.0, None, None])

    def test_drift_finds_a_laptop_that_slows_down_by_a_fifth(self) -> None:
        """Its speed approaches the lower one exponentially, with the run's length as scale."""
        for scale in (0.2, 0.33, 0.5, 1.0):
            low = 0.8 if scale < 1 else 0.75
            rates = [100 * (low + (1 - low) * math.exp(-i / 28 / scale)) for i in range(28)]
            self.assertLess(metrics.drift_ratio(rates), 1 / 1.1, scale)

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
        self.assertEqual(found, [(10, "calibration")] + [(15, "calibration")] * 3)

    def test_kernel_stamps_without_calibration_err_by_less_than_the_readers_lag(self) -> None:
        self.assertEqual(metrics.stamp_error_us(call(), None, 1), (50, "read_lag"))

    def test_user_stamps_err_by_the_readers_own_lag(self) -> None:
        made, user = call(timing__stamp="user"), {**CALIBRATION, "stamp": "user"}
        found = [metrics.stamp_error_us(made, user, 1)]
        made["timing"]["read_lag_us"] = None
        found += [metrics.stamp_error_us(made, c, 1) for c in (user, CALIBRATION, None)]
        self.assertEqual(found, [(50, "read_lag"), (10, "calibration"), (80, "heartbeat"),
                                 (None, "not calibrated")])

    def test_client_is_not_the_limit_for_a_slow_server(self) -> None:
        self.assertEqual(metrics.client_bound(calls_of(6), CALIBRATION, 1), {
            "flagged": False, "reasons": [], "error_p50_us": 10.0, "error_source": "calibration",
            "ttft_us": 200000.0, "decode_window_us": 400000.0, "chunks_per_s": 100.0,
            "saturation_chunks_per_s": 9000.0})

    def test_client_bound_over_1_percent_of_window_or_ttft(self) -> None:
        def reasons(p50: int) -> Any:
            lanes = [{"lanes": 1, "chunks": 700, "lag_us": {"p50": p50, "p99": 9998, "max": 9999}}]
            return metrics.client_bound(calls_of(6), {**CALIBRATION, "lanes": lanes}, 1)["reasons"]
        self.assertEqual([reasons(2000), reasons(2001)], [[], ["decode_window", "ttft"]])

    def test_client_bound_over_a_third_of_saturation(self) -> None:
        found = metrics.client_bound(calls_of(8, lanes=4), CALIBRATION, 4)
        self.assertEqual((found["flagged"], found["chunks_per_s"]), (False, 400.0))
        tight = {**CALIBRATION, "saturation": [{"lanes": 4, "chunks_per_s": 1199.0}]}
        self.assertEqual(metrics.client_bound(calls_of(8, lanes=4), tight, 4)["reasons"],
                         ["saturation"])

    def test_windows_are_those_of_decode_rates(self) -> None:
        short = [call(timing__chunk_us=[200_000] + [1] * n, timing__last_token_us=200_000 + n)
                 for n in (31, 32)]
        found = [metrics.client_bound([made], CALIBRATION, 1) for made in short]
        self.assertEqual([(f["reasons"], f["decode_window_us"]) for f in found],
                         [([], None), (["decode_window", "saturation"], 32.0)])

    def test_signs_name_the_metrics_that_they_make_untrue(self) -> None:
        self.assertEqual(metric_definitions.bound_metrics([]), set())
        self.assertEqual(metric_definitions.bound_metrics(["ttft"]),
                         {"ttft_ms", "ttfo_ms", "prefill_tokens_per_s"})
        self.assertIn("decode_tokens_per_s", metric_definitions.bound_metrics(["saturation"]))

    def test_client_bound_is_null_without_calibration(self) -> None:
        found = metrics.client_bound(calls_of(6, timing__read_lag_us=None), None, 1)
        self.assertEqual((found["flagged"], found["error_source"]), (None, "not calibrated"))


class OnlyNewTokens(unittest.TestCase):
    def test_prompt_without_the_turns_before_it_has_no_count(self) -> None:
        made = call(phase="edge_append", request__messages_count=3, truncated={
            "verdict": "unknown", "reason": f"prompt_tokens is 9: {usage.ONLY_NEW}"})
        found = metrics.call_metrics(made)
        self.assertEqual([found[name] for name in ("prompt_tokens", "prefill_tokens_per_s")],
                         [None, None])
        self.assertEqual(found["null_reasons"]["prompt_tokens"],
                         "the server counts only the tokens of the new turn")


if __name__ == "__main__":
    unittest.main()
