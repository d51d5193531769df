"""Energy, memory, load time, draft acceptance and the server's own rates."""
from __future__ import annotations

import math
import random
import unittest
from collections.abc import Sequence
from typing import Any, Callable, Optional

from core import energy_and_memory

Json = dict[str, Any]
GIB = 1024 ** 3


def call(begin_s: float, seconds: float, tokens: Optional[int] = 100, segment: int = 0,
         timings: Optional[Json] = None, usage: Optional[Json] = None,
         loaded: Optional[bool] = True, ttft_s: float = 0.5) -> Any:
    """An answered call with the numbers that are used here."""
    return ({"segment": segment, "cold": not loaded, "loaded": loaded, "timing": {
        "started_us": round(begin_s * 1e6), "done_us": round(seconds * 1e6),
        "first_token_us": round(ttft_s * 1e6)},
        "response": {"server_timings": timings, "usage": usage}},
        {"output_tokens": tokens, "decode_tokens_per_s": 50.0})


def sample(at_s: float, *cards: Json, segment: int = 0, **gauges: Any) -> Any:
    names = ("busy_ratio", "memory_used_bytes", "power_w")
    return {"segment": segment, "t_us": round(at_s * 1e6), "energy_uj": None, **gauges,
            "gpus": [{"index": i, **dict.fromkeys(names), **card} for i, card in enumerate(cards)]}


def energy(samples: list[Any], *calls: Any) -> Any:
    return energy_and_memory.of_model({"20q": calls}, samples)["energy"]


def power_w(at_s: float) -> float:
    """A card whose power rises with its temperature and follows the load."""
    return 300 + 40 * (1 - math.exp(-at_s / 30)) + 15 * math.sin(at_s / 7)


class Energy(unittest.TestCase):
    def made(self, power: Callable[[float], float], every_s: float,
             seed: int) -> tuple[list[Any], list[Any], float]:
        """Samples of cards, samples of a counter, and the true energy of phases of 30 s each, whose
        calls take 2 to 4 s, with half a minute before the last one."""
        rng = random.Random(seed)
        begins, at_s = [], 3.0
        for phase in range(3):
            while at_s < 3 + 30 * (phase + 1) + 30 * (phase == 2):
                begins.append((at_s, rng.uniform(2, 4)))
                at_s = sum(begins[-1]) + 0.01
            at_s += 30 * (phase == 1)
        step_s = 0.001
        counter = [0.0]
        for i in range(round(200 / step_s)):
            counter.append(counter[-1] + power(i * step_s) * step_s)
        joules = sum(counter[round((begin + long) / step_s)] - counter[round(begin / step_s)]
                     for begin, long in begins)
        times = [at for at in (every_s * i + rng.uniform(0, 0.1) for i in range(1, 60)) if at < 190]
        self.calls = [call(*one) for one in begins]
        return ([sample(at, {"power_w": power(at), "busy_ratio": 0.9}) for at in times],
                [sample(at, energy_uj=round(counter[round(at / step_s)] * 1e6)) for at in times],
                joules)

    def test_integral_of_samples_is_within_2_percent_of_a_counter(self) -> None:
        noise = random.Random(7)
        for seed, power in enumerate((power_w, lambda at: 30.0,
                                      lambda at: power_w(at) * noise.uniform(0.97, 1.03))):
            cards, package, joules = self.made(power, 5.0, seed)
            tokens = 100 * len(self.calls)
            for scope, samples in (("cards", cards), ("package", package)):
                found = energy(samples, *self.calls)
                self.assertEqual(found["scope"], scope)
                self.assertAlmostEqual(found["joules_per_output_token"] * tokens / joules, 1,
                                       delta=0.02)
                self.assertLess(found["error_ratio"], 0.06)

    def test_too_few_samples_have_no_energy(self) -> None:
        samples = [sample(5.0 * i, {"power_w": 100.0, "busy_ratio": 1.0}) for i in range(40)]
        for calls, samples_count in ((10, 10), (9, None)):
            found = energy(samples, *(call(7 + 5 * i, 5.0) for i in range(calls)))
            self.assertEqual(found and found["samples_count"], samples_count)

    def test_power_of_used_cards_only(self) -> None:
        used, idle = {"power_w": 100.0, "busy_ratio": 0.9}, {"power_w": 20.0, "busy_ratio": 0.02}
        silent = {"busy_ratio": 0.9}
        for cards, watts in (((used, used), 200.0), ((used, idle), 100.0), ((idle, idle), None),
                             ((used, silent), None)):
            found = energy([sample(5.0 * i, *cards) for i in range(40)], call(3, 150.0))
            self.assertEqual(found and found["mean_power_w"], watts, cards)

    def test_package_is_not_used_while_a_card_computes(self) -> None:
        for card, scope in (({"busy_ratio": 0.9}, None), ({"busy_ratio": 0.0}, "package")):
            found = energy([sample(5.0 * i, card, energy_uj=i * 10 ** 8) for i in range(40)],
                           call(3, 150.0))
            self.assertEqual(found and found["scope"], scope)

    def test_counter_of_a_resumed_run_starts_again(self) -> None:
        samples = [sample(5.0 * i, segment=segment, energy_uj=i * 50_000_000)
                   for segment in (0, 1) for i in range(20)]
        found = energy(samples, call(3, 80.0), call(3, 80.0, segment=1))
        self.assertEqual((found["mean_power_w"], found["joules_per_output_token"]), (10.0, 8.0))

    def test_call_far_from_any_sample_is_left_out_with_its_tokens(self) -> None:
        samples = [sample(5.0 * i, {"power_w": 100.0, "busy_ratio": 1.0}) for i in range(40)]
        found = energy(samples, call(3, 150.0, 1000), call(500, 50.0, 5000))
        self.assertEqual(found["joules_per_output_token"], 15.0)


class Others(unittest.TestCase):
    def of(self, samples: Sequence[Any] = (), **phases: Any) -> Json:
        return energy_and_memory.of_model(phases, samples)

    def test_largest_memory_during_the_models_calls(self) -> None:
        def at(at_s: float, gib: float, server: Optional[int]) -> Any:
            return sample(at_s, {"memory_used_bytes": round(gib * GIB), "busy_ratio": 0.9},
                          {"memory_used_bytes": 9 * GIB, "busy_ratio": 0.0},
                          server_memory_bytes=server, swap_used_bytes=at_s)

        samples = [at(1, 20, 99), at(10, 5, None), at(20, 6, 7), at(30, 5, 8), at(90, 30, 99)]
        self.assertEqual(self.of(samples, frozen=[call(5, 30)])["memory"], {
            "peak_card_bytes": 6 * GIB, "peak_process_bytes": 8, "peak_swap_bytes": 30})
        self.assertIsNone(self.of(frozen=[call(5, 30)])["memory"])

    def test_load_time_needs_a_model_that_was_not_loaded(self) -> None:
        warm = call(20, 3, loaded=True, ttft_s=0.4)
        for loaded, ttft_s, others, expected in (
                (False, 6.4, [], 6.0), (None, 6.4, [], None), (True, 6.4, [], None),
                (False, 0.3, [], None), (False, 6.4, [call(9, 1, loaded=True, ttft_s=0.2)], 6.2)):
            hello = call(1, 8, loaded=loaded, ttft_s=ttft_s)
            self.assertEqual(self.of(hello=[hello, *others], frozen=[warm])["load_s"], expected)

    def test_draft_acceptance_over_all_calls(self) -> None:
        llama = {"draft_n": 40, "draft_n_accepted": 30}
        openai = {"completion_tokens_details": {"accepted_prediction_tokens": 3,
                                                "rejected_prediction_tokens": 1}}
        for calls, expected in (
                ([call(1, 1, timings=llama), call(3, 1, timings={**llama, "draft_n": 80})], 0.5),
                ([call(1, 1, usage=openai)], 0.75), ([call(1, 1)], None),
                ([call(1, 1, timings={"draft_n": 4, "draft_n_accepted": 9})], None),
                ([call(1, 1, timings={"draft_n": True, "draft_n_accepted": "9"})], None)):
            self.assertEqual(self.of(frozen=calls)["draft_acceptance_ratio"], expected)

    def test_rates_of_the_server(self) -> None:
        timings = {"prompt_n": 2000, "prompt_ms": 1000.0, "predicted_n": 100,
                   "predicted_ms": 2000.0}
        found = self.of(frozen=[call(1, 3, timings=timings)],
                        edge_suite=[call(9, 3, timings=timings)])
        self.assertEqual((found["server_decode_tokens_per_s"],
                          found["server_prefill_tokens_per_s"]), (50.0, 2000.0))
        for broken in ({"prompt_ms": 0}, {"prompt_ms": None}, {"prompt_n": 100},
                       {"prompt_ms": float("nan")}):
            found = self.of(edge_suite=[call(9, 3, timings={**timings, **broken})])
            self.assertIsNone(found["server_prefill_tokens_per_s"])


if __name__ == "__main__":
    unittest.main()
