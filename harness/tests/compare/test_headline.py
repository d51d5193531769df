"""Headline rows: what they join, their numbers, and the runs that are left out."""
from __future__ import annotations

import unittest
import uuid
from typing import Any, Optional

from compare import entries, headline, ranking
from tests import made_submissions
from tests.compare.test_ranking import Json, cell, known, set_at, submission
from tests.made_submissions import DESKTOP, Spec


def run_of(decode: Optional[float], number: int = 0, flags: tuple[str, ...] = (),
           facts: Optional[Json] = None, **spec: Any) -> entries.Submission:
    """A submission with this decode rate. facts: {path in metadata.json: value}."""
    def change(manifest: Json, metadata: Json, hardware: Json) -> None:
        for path, value in (facts or {}).items():
            set_at(metadata, path, value)

    return submission(cell(decode=decode, flags=list(flags)), run=number, change=change, **spec)


def with_busy_calls(made: made_submissions.Made, run: int) -> made_submissions.Made:
    """The same run again, but other programs take half of the processors during every second call,
    which then takes five times as long."""
    sample = next(event for event in made.events if event["event"] == "host_sampled")
    events, later_us, run_id = list[Json](), 0, str(uuid.UUID(int=run))
    for event in made.events:
        if event["event"] == "host_sampled":
            continue
        busy, timing = bool(event.get("timing") and len(events) % 4 > 1), event.get("timing")
        before_us = event["t_us"]
        if busy:
            [event] = made_submissions.stretched([event], 5.0)
            event["t_us"] = before_us + event["timing"]["done_us"] - timing["done_us"]
        if timing:
            started_us = timing["started_us"] + later_us
            event = {**event, "timing": {**event["timing"], "started_us": started_us}}
        events.append({**event, "t_us": event["t_us"] + later_us, "run_id": run_id})
        later_us += event["t_us"] - before_us
        if timing:
            events.append({**sample, "t_us": events[-1]["t_us"], "cpu_busy_ratio": 1.0,
                           "other_cpu_busy_ratio": 0.5 if busy else 0.0})
    return made_submissions.complete({**made.manifest, "run_id": run_id}, events, DESKTOP)


class HeadlineRows(unittest.TestCase):
    def test_engines_and_formats_of_one_bits_class_are_one_row(self) -> None:
        one = run_of(100.0, 1, facts={"models.0.file_name": known(
            "SmolLM2-135M-Instruct-Q8_0.gguf")})
        other = run_of(50.0, 2, facts={
            "runtime.name": known("Ollama"), "models.0.model": "smollm2:135m",
            "cells.0.model": "smollm2:135m", "headlines.0.model": "smollm2:135m",
            "models.0.quantization": known("INT8")})
        self.assertEqual(len(ranking.make_rows([one, other])), 2)
        [row] = headline.headline_rows([one, other])
        self.assertEqual((row.phase, row.bits_class, row.quantization, len(row.runs)),
                         (None, "8-bit", "INT8, Q8_0", 2))

    def test_number_is_the_median_of_the_owners_medians(self) -> None:
        runs = [run_of(rate, i, handle="ada") for i, rate in enumerate((90.0, 100.0, 110.0, 100.0))]
        runs += [run_of(50.0, 7, handle="bob"), run_of(60.0, 8, handle="cem")]
        [row] = headline.headline_rows(runs)
        self.assertEqual((row.numbers["decode_tokens_per_s"].value, row.owners_count), (60.0, 3))

    def test_run_left_out_keeps_its_reason_and_moves_no_number(self) -> None:
        quiet, busy = run_of(80.0, 1), run_of(6.0, 2, flags=("truncated",))
        alone, [row] = headline.headline_rows([quiet])[0], headline.headline_rows([quiet, busy])
        self.assertEqual(row.numbers, alone.numbers)
        [left_out] = row.left_out
        self.assertEqual((left_out.run.run_id, left_out.reasons,
                          left_out.numbers["decode_tokens_per_s"]),
                         (busy.run_id, ("truncated",), 6.0))
        self.assertEqual([run.run_id for run in row.runs], [quiet.run_id])

    def test_busy_run_beside_a_quiet_one_is_left_out_and_moves_no_number(self) -> None:
        spec = Spec(phases="frozen,5q,20q", seed=1)
        quiet = made_submissions.make(spec)
        events = [{**event, "cpu_busy_ratio": 1.0, "other_cpu_busy_ratio": 0.9}
                  if event["event"] == "host_sampled" else event
                  for event in made_submissions.stretched(quiet.events, 12.0)]
        busy = made_submissions.complete(
            {**quiet.manifest, "run_id": str(uuid.UUID(int=2))},
            [{**event, "run_id": str(uuid.UUID(int=2))} for event in events], spec.probed)
        both = [entries.read_submission(made.manifest, made.metadata, made.hardware)
                for made in (quiet, busy)]
        [alone], [row] = headline.headline_rows(both[:1]), headline.headline_rows(both)
        self.assertEqual(row.numbers, alone.numbers)
        self.assertEqual([(one.run.run_id, one.reasons) for one in row.left_out],
                         [(both[1].run_id, ("busy_host",))])

    def test_calls_beside_other_programs_are_left_out_and_move_no_number(self) -> None:
        quiet = made_submissions.make(Spec(phases="frozen,5q,20q", seed=1))
        busy = with_busy_calls(quiet, 2)
        left_out = [cell["left_out"].get("busy_host", 0) for cell in busy.metadata["cells"]]
        self.assertEqual(sum(left_out), 15)
        self.assertIn("busy_host", busy.metadata["run_flags"])
        [alone], [row] = (headline.headline_rows([
            entries.read_submission(made.manifest, made.metadata, quiet.hardware)
            for made in runs]) for runs in ((quiet,), (quiet, busy)))
        self.assertEqual(len(row.runs), 2)
        for name in ("decode_tokens_per_s", "ttft_ms"):
            ratio = row.numbers[name].value / alone.numbers[name].value
            self.assertAlmostEqual(ratio, 1, delta=0.02, msg=name)

    def test_row_of_which_all_runs_are_left_out_has_no_number(self) -> None:
        [row] = headline.headline_rows([run_of(6.0, flags=("truncated",))])
        self.assertEqual((row.reasons, row.runs, row.numbers), (("truncated",), (), {}))

    def test_reproduced_needs_one_exact_row(self) -> None:
        for version, expected in (("b6800", True), ("b7000", False)):
            [row] = headline.headline_rows([
                run_of(100.0, 1, handle="ada"),
                run_of(101.0, 2, handle="bob", facts={"runtime.version": known(version)})])
            self.assertEqual(row.reproduced, expected, version)

    def test_ranks_are_within_one_model(self) -> None:
        rows = headline.headline_rows([run_of(50.0, 1), run_of(200.0, 2, probed=DESKTOP)])
        self.assertEqual([[(place.row.group, place.rank) for place in block]
                          for block in ranking.ranked(rows)],
                         [[("rtx 4090 24 GiB", 1), ("m1 8 GiB", 2)]])


if __name__ == "__main__":
    unittest.main()
