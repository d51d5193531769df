"""Claims against what is measured: bounds that real models keep."""

from __future__ import annotations

import unittest
from typing import Any

from check import agreement, plausibility
from tests import made_submissions


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


class Sizes(unittest.TestCase):
    def test_answers_that_end_in_another_way_have_their_own_size(self) -> None:
        """vLLM ends an answer that stops with one more chunk; chunks that stopped are shorter."""
        def row(chunks: int, reason: str, more: int = 0) -> tuple[Any, int]:
            return {"timing": {"chunk_us": [0] * chunks}, "reasoning": {"chunks": 0},
                    "response": {"finish_reason": reason}}, 229 * chunks + 215 * (
                        reason == "stop") + more

        honest = [row(256, "length") for _ in range(20)] + [
            row(chunks, "stop") for chunks in (34, 43, 121, 154, 190, 222, 239)]
        self.assertEqual(agreement._odd_sizes([*honest, row(128, "length")], 0), [])
        [(_, over)] = agreement._odd_sizes([*honest, row(128, "length", -300)], 0)
        self.assertEqual(over, -300)
