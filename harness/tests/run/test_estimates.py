from __future__ import annotations

import unittest
from typing import Any

from core import metrics, plan
from run import estimates
from tests.core.test_metrics import call
from tests.run.test_display import manifest
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


if __name__ == "__main__":
    unittest.main()
