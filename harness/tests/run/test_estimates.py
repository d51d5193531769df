from __future__ import annotations

import unittest
from typing import Any

from core import metrics, plan
from run import estimates
from tests.core.test_metrics import call
from tests.run.test_plan_and_probe import manifest
from tests.run.test_state import SUITES


def learned(document: Any, models: str = "m") -> estimates.Paces:
    """Paces after one call of each model."""
    paces = estimates.Paces(document, SUITES)
    for model in models:
        paces.learn({**call(), "model": model})
    return paces


class Estimates(unittest.TestCase):
    def test_without_a_call_there_is_no_estimate(self):
        document = manifest("m")
        for failed in (None, call(outcome="timeout", response=None, timing=None)):
            paces = estimates.Paces(document, SUITES)
            if failed:
                paces.learn(failed)
            self.assertIsNone(paces.estimate(plan.all_cells(document)))

    def test_every_answer_reaches_its_limit_at_most(self):
        document = manifest("m", names=("5q",))
        numbers = metrics.call_metrics(call())
        token_s = numbers["tpot_ms"] / 1000
        found = learned(document).estimate(plan.all_cells(document))
        least_s = 5 * 2048 * token_s
        self.assertGreater(found.most_s, least_s)
        self.assertLess(found.most_s, 3 * least_s)
        self.assertLess(found.typical_s, found.most_s / 2)

    def test_lanes_count_as_one_where_slots_are_unknown(self):
        document = {**manifest("m", names=("parallel_same",)), "timeout_s": 360.0}
        cells = plan.all_cells(document)
        unknown, known = learned(document), learned(document)
        known.slots["m"] = 4
        self.assertAlmostEqual(unknown.estimate(cells).most_s, 4 * known.estimate(cells).most_s)
        self.assertGreater(unknown.estimate(cells).longest_s, known.estimate(cells).longest_s)

    def test_bound_of_ramp_does_not_expect_that_lanes_help(self):
        document = {**manifest("m"), "timeout_s": 360.0,
                    "plan": plan.plan_of(("ramp",), SUITES, 4, 1, 2048)}
        cells = plan.all_cells(document)
        unknown, known = learned(document), learned(document)
        known.slots["m"] = 4
        found = unknown.estimate(cells), known.estimate(cells)
        self.assertAlmostEqual(found[0].most_s, found[1].most_s)
        self.assertLess(4 * found[1].typical_s, found[0].typical_s)     # 16 lanes are not expected

    def test_all_models_count_together(self):
        one, two = manifest("m", names=("5q",)), manifest("m", "n", names=("5q",))
        found = [learned(document).estimate(plan.all_cells(document)).most_s
                 for document in (one, two)]
        self.assertAlmostEqual(found[1], 2 * found[0])

    def test_a_call_takes_at_most_its_timeout(self):
        document = {**manifest("m", names=("5q",)), "timeout_s": 2.0}
        self.assertAlmostEqual(learned(document).estimate(plan.all_cells(document)).most_s, 10.0)

    def test_finished_phases_correct_the_usual_time(self):
        document = manifest("m", "n", names=("20q",))
        paces, cells = learned(document, "mn"), plan.all_cells(document)
        before = paces.estimate(cells).typical_s
        mine = [cell for cell in cells if cell.model == "m" and cell.phase == "20q"]
        for _ in mine:
            paces.take({"event": "call_finished", "model": "m", "phase": "20q", "cold": False,
                        "outcome": "timeout", "timing": None})
        paces.take({"event": "phase_finished", "model": "m", "phase": "20q",
                    "wall_us": int(before * 1e6)})
        left = [cell for cell in cells if cell.model == "n"]
        self.assertAlmostEqual(paces.estimate(left).typical_s, before, places=3)


class Replay(unittest.TestCase):
    """Three models on one slot, all phases: a base model whose answers all reach the limit, and a
    mixed phase in which the engines slow each other down and half of the calls time out."""

    TOKENS, RATES = {"base": 2048, "small": 400, "chat": 500}, {"base": 55, "small": 80, "chat": 45}
    MIXED_US = 27 * 60_000_000

    def answered(self, cell: plan.Cell, limit: int) -> dict[str, Any]:
        tokens = min(self.TOKENS[cell.model], limit)
        gap_us, first_us = 1_000_000 // self.RATES[cell.model], 400_000
        last_us = first_us + gap_us * (tokens - 1)
        return call(**cell.fields(), timing__chunk_us=[first_us] + [gap_us] * (tokens - 1),
                    timing__first_token_us=first_us, timing__last_token_us=last_us,
                    timing__done_us=last_us, response__usage={
                        "prompt_tokens": 150, "completion_tokens": tokens})

    def test_bound_holds_and_usual_time_follows_what_phases_took(self) -> None:
        document: Any = {"models": list(self.TOKENS), "cell_id_prefix": "x:y", "timeout_s": 360.0,
                         "plan": plan.plan_of(plan.parse_phases("all"), SUITES, 4, 1, 2048, False)}
        paces, cells = estimates.Paces(document, SUITES), plan.all_cells(document)
        limits = {one["phase"]: one["max_tokens"] for one in document["plan"]["phases"]}
        groups: dict[Any, list[Any]] = {}
        for cell in cells:
            mixed = cell.phase == "parallel_mixed"
            made = self.answered(cell, limits[cell.phase])
            groups.setdefault((None if mixed else cell.model, cell.phase), []).append(
                {**made, "outcome": "timeout"} if mixed else made)
        for model in self.TOKENS:              # a plan asks each model twice
            paces.learn(groups[model, "hello"][0])
        walls_us = {key: sum(made["timing"]["done_us"] for made in group)
                    for key, group in groups.items()}
        walls_us[None, "parallel_mixed"] = self.MIXED_US
        left = {cell.cell_id: cell for cell in cells}
        for key, group in groups.items():
            truth_s, found = sum(walls_us.values()) / 1e6, paces.estimate(left.values())
            with self.subTest(before=key):
                self.assertLessEqual(truth_s, found.most_s)
                if key[0] != "chat" and key[1] != "parallel_mixed":
                    self.assertLess(0.4 * truth_s, found.typical_s)
                    self.assertLess(found.typical_s, 1.8 * truth_s)
            for made in group:
                paces.take(made)
                del left[made["cell_id"]]
            paces.take({"event": "phase_finished", "model": key[0], "phase": key[1],
                        "wall_us": walls_us.pop(key)})
        # 11 of 20 calls in the mixed phase timed out: a longer timeout is advised.
        self.assertGreater(found.longest_s, document["timeout_s"])


if __name__ == "__main__":
    unittest.main()
