"""Claims against what is measured: bounds that real models keep."""

from __future__ import annotations

import itertools
import random
import unittest
from collections.abc import Sequence
from typing import Any, Optional

import run_benchmark
from check import accounting, agreement, plausibility
from tests import made_submissions, valid_run


class Quantization(unittest.TestCase):
    def test_label_against_the_size_of_the_file(self) -> None:
        """Sizes of published GGUF files; then an F16 file that is called Q4."""
        def bits(quantization: str, parameters: float, megabytes: float) -> list[str]:
            held = {"file_name": None, "source_repository": None, "active_parameters_count": None,
                    "parameters_count": parameters, "quantization": quantization,
                    "file_bytes": megabytes * 1e6, "bits_per_weight": None, "draft_model": None}
            return [str(one[1]) for one in plausibility._model_claims("m", held, [])]

        for published in (("Q4_K_M", 268.1e6, 253.1), ("Q2_K", 268.1e6, 237),
                          ("Q2_K", 134.5e6, 88.2), ("Q2_K", 494e6, 339), ("Q8_0", 134.5e6, 144.8),
                          ("Q4_K_M", 8.03e9, 4921), ("Q2_K", 8.03e9, 3179)):
            self.assertEqual(bits(*published), [], published)
        self.assertEqual(bits("Q4_K_M", 134.5e6, 271),
                         ['quantization is "Q4_K_M" with 16.1 bits per weight'])
        self.assertEqual(bits("Q4_K_M", 8.03e9, 8000),
                         ['quantization is "Q4_K_M" with 7.97 bits per weight'])


class Speeds(unittest.TestCase):
    def test_phases_of_one_server_are_equally_fast_unless_others_slowed_one(self) -> None:
        made = made_submissions.make(made_submissions.Spec(phases="5q,20q"))
        calls = [event for event in made.events if event["event"] == "call_finished"]
        for call in calls:
            if call["phase"] == "20q":
                call["timing"]["chunk_us"] = [3 * gap for gap in call["timing"]["chunk_us"]]
        for busy, codes in (("", ["server-changed"]), ("20q", []), ("hello", ["server-changed"])):
            cells = [{**cell, "flags": ["busy_host"] if cell["phase"] == busy else []}
                     for cell in made.metadata["cells"]]
            self.assertEqual([found[0] for found in agreement._speeds(calls, cells)], codes, busy)


class Samples(unittest.TestCase):
    """Samples of the host that follow from each other."""

    def found(self, loads: Sequence[float], energies: Sequence[Optional[int]] = ()) -> list[str]:
        samples = [{"segment": 0, "t_us": 5_004_000 * at, "load_1m": load, "energy_uj": energy}
                   for at, (load, energy) in enumerate(zip(loads, [*energies, *[None] * 200]))]
        return [code for code, _ in agreement._counters(samples)]

    def test_load_is_an_average_of_whole_numbers(self) -> None:
        rng, load, loads = random.Random(1), 2.0, []
        for at in range(120):
            load += ((14 if 40 < at < 60 else rng.choice((2, 2, 3))) - load) * 164 / 2048
            loads.append(round(load, 2))
        self.assertEqual(self.found(loads), [])
        self.assertEqual(self.found(loads[::2]), ["time-unexplained"])
        self.assertEqual(self.found([*loads[:40], *loads[59:]]), ["time-unexplained"])

    def test_energy_grows_in_the_steps_of_a_counter(self) -> None:
        for unit_nj in (61_035, 15_258):
            steps = list(itertools.accumulate(random.Random(2).choices(range(10**6, 2 * 10**6),
                                                                       k=40)))
            counted = [step * unit_nj // 1000 for step in steps]
            self.assertEqual(self.found([1.0] * 40, counted), [])
            for factor in (0.5, 0.9):
                self.assertEqual(self.found([1.0] * 40, [int(one * factor) for one in counted]),
                                 ["hardware-implausible"])


class Tokens(unittest.TestCase):
    def test_a_prompt_grows_by_the_tokens_of_the_answer(self) -> None:
        for factor, codes in ((1.0, []), (1.3, ["server-counts-contradict"]),
                              (0.8, ["server-counts-contradict"])):
            made = valid_run.make(valid_run.Spec(phases="edge_append,edge_suite", tokens=60))
            calls = [event for event in made.events if event["event"] == "call_finished"]
            for call in calls:
                counted = call["response"]["usage"]
                counted["prompt_tokens"] = int(counted["prompt_tokens"] * factor)
            self.assertEqual([code for code, _ in plausibility._growth(calls)], codes, factor)

    def test_a_prompt_that_is_asked_again_takes_as_long(self) -> None:
        made = valid_run.make(valid_run.Spec(phases="edge_suite"))
        calls = [event for event in made.events if event["event"] == "call_finished"]
        probed = [event for event in made.events if event["event"] == "cache_probed"]
        self.assertEqual(list(plausibility._probes(calls, probed)), [])
        for probe in probed[0]["probes"]:
            probe["first_token_us"] *= 2
        self.assertEqual([code for code, _ in plausibility._probes(calls, probed)],
                         ["server-counts-contradict"])


class Time(unittest.TestCase):
    def found(self, made: Any) -> list[str]:
        return [code for code, _, _ in accounting.problems(
            made.manifest, made.events, made.metadata)]

    def test_a_run_that_is_stopped_whenever_a_call_is_slow(self) -> None:
        """A stop in the middle of calls is honest; one after more than their time is a choice."""
        for longer_us, codes in ((0, []), (60_000_000, ["time-unexplained"])):
            made = valid_run.make(valid_run.Spec(phases="20q", kill_after=(4, 4, 4),
                                                 interrupted=True))
            for event in made.events:
                if event["event"] == "run_interrupted":
                    event["t_us"] += longer_us
            self.assertEqual([code for code, _, _ in accounting._broken_off(made.events)], codes)

    def test_times_of_calls_that_nothing_else_shows(self) -> None:
        grace_us = run_benchmark.END_GRACE_S * 1e6
        self.assertTrue(accounting.OPEN_US[0] < grace_us < accounting.OPEN_US[1])
        for change, code in (({"heartbeat_gap_us": 2_400_000}, "time-unexplained"),
                             ({"chunk_us": [1000, 20], "first_token_us": 1000,
                               "last_token_us": 1020}, "ledger-altered")):
            made = valid_run.make(valid_run.Spec(phases="20q", tokens=200))
            for call in made.events:
                if call["event"] == "call_finished" and call["phase"] == "20q":
                    call["timing"].update(change)
                    call["flags"] = ["left_open"]
            self.assertIn(code, self.found(made))


class Sizes(unittest.TestCase):
    def test_answers_that_end_in_another_way_have_their_own_size(self) -> None:
        """vLLM ends an answer that stops with one more chunk; chunks that stopped are shorter."""
        def row(chunks: int, reason: str, more: int = 0) -> tuple[Any, int]:
            return {"timing": {"chunk_us": [0] * chunks}, "reasoning": {"chunks": 0},
                    "response": {"finish_reason": reason}}, 229 * chunks + 215 * (
                        reason == "stop") + more

        honest = [row(256, "length") for _ in range(20)] + [
            row(chunks, "stop") for chunks in (34, 43, 121, 154, 190, 222, 239)]
        self.assertEqual(agreement._odd_sizes([*honest, row(128, "length")], 0, 1), [])
        [(_, over)] = agreement._odd_sizes([*honest, row(128, "length", -300)], 0, 1)
        self.assertEqual(over, -300)
