"""What is one device, what may be ranked, and what its number is."""
from __future__ import annotations

import copy
import json
import math
import unittest
import uuid
from typing import Any, Callable, Optional

from compare import entries, ranking
from machine import inventory
from core import metric_definitions, suites
from run import cli

from tests import made_submissions
from tests.made_submissions import DESKTOP, GIB, MAC, Spec

Json = dict[str, Any]

BASE = made_submissions.make(Spec(phases="20q"), {"runtime.backend": "metal"})
CELL = next(cell for cell in BASE.metadata["cells"] if cell["phase"] == "20q")


def cell(phase: str = "20q", decode: Optional[float] = 100.0, spread: float = 1.0,
         **changes: Any) -> Json:
    """A cell whose decode rate is known, with an interval `spread` to either side."""
    made = copy.deepcopy(CELL)
    made.update({"phase": phase, "planned": 20, "ok": 20, "flags": [], **changes})
    ends = (None, None) if decode is None or not spread else (decode - spread, decode + spread)
    made["metrics"]["decode_tokens_per_s"].update(
        {"median": decode, "ci_low": ends[0], "ci_high": ends[1]})
    return made


def documents(*cells: Json, run: int = 0, **spec: Any) -> list[Json]:
    """manifest, metadata and hardware of a submission that is ranked; `run` makes it another one.
    spec: fields of made_submissions.Spec that do not touch the ledger."""
    made = made_submissions.Made(*copy.deepcopy(BASE))
    wanted = Spec(**{"phases": "20q", **spec})
    manifest, metadata = made.manifest, made.metadata
    manifest["run_id"] = metadata["run_id"] = str(uuid.UUID(int=run))
    metadata["run"]["started_at"] = f"2026-11-{20 + run:02d}T08:00:00.000Z"
    metadata["submitter_handle"], metadata["device_tag"] = wanted.handle, wanted.tag
    metadata["cells"] = list(cells) or [cell()]
    return [manifest, metadata, inventory.assemble(wanted.probed)]


def submission(*cells: Json, run: int = 0, change: Optional[Callable[..., None]] = None,
               **spec: Any) -> entries.Submission:
    """As `documents`, after `change(manifest, metadata, hardware)`, as read."""
    made = documents(*cells, run=run, **spec)
    if change:
        change(*made)
    return entries.read_submission(*made)


def set_at(document: Any, path: str, value: Any) -> None:
    """Put a value at a dotted path; numbers are places in a list."""
    names: list[Any] = [int(n) if n.isdigit() else n for n in path.split(".")]
    for name in names[:-1]:
        document = document[name]
    document[names[-1]] = value


def known(value: Any) -> Json:
    return {"value": value, "source": "declared", "reason": None}


class Refusing(unittest.TestCase):
    def reasons(self, *cells: Json, change: Optional[Callable[..., None]] = None) -> list[str]:
        made = submission(*cells, change=change)
        return list(ranking.refusals(made, made.entries[0]))

    def test_refuses_nothing_of_a_whole_canonical_run(self) -> None:
        self.assertEqual(self.reasons(), [])

    def test_says_why_for_each_thing_that_makes_a_run_another_one(self) -> None:
        suite = "harness/suites/python_task_suite_questions.json"
        cases: list[tuple[str, Callable[..., None]]] = [
            ("synthetic: no model answered", lambda m, d, h: set_at(d, "synthetic", True)),
            ("hosted endpoint, no machine of the contributor's",
             lambda m, d, h: set_at(d, "endpoint.class", "public")),
            ("partial run", lambda m, d, h: set_at(d, "run.class", "partial")),
            ("smoke run", lambda m, d, h: set_at(d, "run.class", "smoke")),
            ("19 of 20 calls made", lambda m, d, h: set_at(d, "cells.0.ok", 19)),
            ("cold: its time holds the model's load",
             lambda m, d, h: set_at(d, "cells.0.cold", True)),
            ("harness public-0, ranked is public-1",
             lambda m, d, h: set_at(m, "harness_version", "public-0")),
            ("other bytes of python_task_suite_questions.json",
             lambda m, d, h: m["files_sha256"].update({suite: "0" * 64})),
            ("other bytes of python_task_suite_questions.json",
             lambda m, d, h: m["files_sha256"].pop(suite)),
            ("num_predict 64, not 2048",
             lambda m, d, h: set_at(m, "canonical_options_overrides", {"num_predict": 64})),
            ("temperature 0.7, not 0.1",
             lambda m, d, h: set_at(m, "canonical_options_overrides", {"temperature": 0.7})),
            ("context 2048, asked 4096", lambda m, d, h: set_at(
                d, "models.0.context_effective_tokens", known(2048)))]
        for reason, change in cases:
            with self.subTest(reason):
                self.assertEqual(self.reasons(change=change), [reason])

    def test_refuses_every_flag_that_metrics_calls_unrankable_and_no_other(self) -> None:
        for flag in metric_definitions.FLAGS.values():
            with self.subTest(flag.name):
                self.assertEqual(self.reasons(cell(flags=[flag.name])),
                                 [flag.name] if flag.unrankable else [])

    def test_other_lanes_are_another_task_where_lanes_are_parallel(self) -> None:
        self.assertEqual(self.reasons(cell("parallel_same", lanes=2)), ["2 lanes, not 4"])
        self.assertEqual(self.reasons(cell("parallel_mixed", lanes=8)), ["8 lanes, not 4"])
        self.assertEqual(self.reasons(cell("parallel_mixed", lanes=4)), [])
        self.assertEqual(self.reasons(cell("20q", lanes=1)), [])

    def test_bytes_of_prompts_count_for_the_phases_that_stand_in_them(self) -> None:
        def change(manifest: Json, metadata: Json, hardware: Json) -> None:
            manifest["files_sha256"]["harness/prompts.py"] = "0" * 64

        self.assertEqual(self.reasons(cell("frozen"), change=change), ["other bytes of prompts.py"])
        self.assertEqual(self.reasons(cell("20q"), change=change), [])

    def test_a_larger_context_or_an_unknown_one_is_no_reason(self) -> None:
        for value in (known(8192), {"value": None, "source": None, "reason": "not told"}):
            self.assertEqual(self.reasons(change=lambda m, d, h, v=value: set_at(
                d, "models.0.context_effective_tokens", v)), [])

    def test_the_lanes_that_count_are_the_runners_default(self) -> None:
        self.assertEqual(ranking.CANONICAL_LANES, cli.Options.lanes)


class Grouping(unittest.TestCase):
    def rows(self, *submissions: entries.Submission) -> list[ranking.Row]:
        return ranking.make_rows(submissions)

    def test_equal_machines_of_two_people_are_one_device(self) -> None:
        [row] = self.rows(submission(run=1), submission(run=2, handle="bob"))
        self.assertEqual([run.handle for run in row.runs], ["bob", "ada"])

    def test_whatever_decides_the_speed_makes_another_device(self) -> None:
        def drop_card(manifest: Json, metadata: Json, hardware: Json) -> None:
            hardware["accelerators"] = []

        changes: dict[str, Callable[..., None]] = {
            "tag": lambda m, d, h: set_at(d, "device_tag", "mac-m1-16gb"),
            "system": lambda m, d, h: set_at(h, "system.model_name", known("Mac mini")),
            "cpu": lambda m, d, h: set_at(h, "cpu.model_name", known("Apple M2")),
            "threads": lambda m, d, h: set_at(h, "cpu.usable_threads_count", known(4)),
            "memory": lambda m, d, h: set_at(h, "memory.capacity_bytes", known(16 * GIB)),
            "limit": lambda m, d, h: set_at(h, "memory.limit_bytes", known(4 * GIB)),
            "cores": lambda m, d, h: set_at(h, "accelerators.0.cores_count", known(7)),
            "watts": lambda m, d, h: set_at(h, "accelerators.0.power_limit_w", known(20)),
            "no card": drop_card,
            "mode": lambda m, d, h: set_at(h, "power.mode", known("low_power")),
            "battery": lambda m, d, h: set_at(h, "power.source", known("battery")),
            "network": lambda m, d, h: set_at(d, "endpoint.class", "lan"),
            "engine": lambda m, d, h: set_at(d, "runtime.name", known("Ollama")),
            "version": lambda m, d, h: set_at(d, "runtime.version", known("b7000")),
            "backend": lambda m, d, h: set_at(d, "runtime.backend", known("cpu")),
            "format": lambda m, d, h: set_at(d, "models.0.quantization", known("Q4_0"))}
        for name, change in changes.items():
            with self.subTest(name):
                self.assertEqual(len(self.rows(submission(), submission(run=1, change=change))), 2)

    def test_what_a_kernel_keeps_of_the_memory_makes_none(self) -> None:
        def change(manifest: Json, metadata: Json, hardware: Json) -> None:
            set_at(hardware, "memory.capacity_bytes", known(8 * GIB - 300_000_000))

        [row] = self.rows(submission(), submission(run=1, change=change))
        self.assertEqual(row.device.memory_gib, 8)

    def test_memory_is_told_as_it_is_sold(self) -> None:
        sizes = {7.7: 8, 8: 8, 15.3: 16, 17.1: 18, 23.4: 24, 31.0: 32, 35.2: 36, 62.6: 64,
                 91.7: 96, 125.6: 128, 0.9: 1, 503.7: 512}
        self.assertEqual({size: entries.size_as_sold_gib(round(size * GIB)) for size in sizes},
                         sizes)

    def test_names_lose_what_says_nothing_of_speed(self) -> None:
        def change(manifest: Json, metadata: Json, hardware: Json) -> None:
            set_at(hardware, "cpu.model_name",
                   known("Intel(R) Core(TM) i5-8250U CPU @ 1.60GHz"))

        [row] = self.rows(submission(probed=DESKTOP, change=change))
        self.assertEqual(entries.device_text(row.device),
                         "NVIDIA GeForce RTX 4090 24 GiB 450 W + Intel Core i5-8250U, 32 threads")

    def test_one_chip_that_does_both_is_named_once(self) -> None:
        [row] = self.rows(submission(probed=MAC))
        self.assertEqual(entries.device_text(row.device), "Apple M1, 8 threads + 8-core GPU")

    def test_equal_cards_are_counted(self) -> None:
        twice = {**DESKTOP, "accelerators": DESKTOP["accelerators"] * 2}
        [row] = self.rows(submission(probed=twice))
        self.assertEqual(row.device.accelerators, ("2 x NVIDIA GeForce RTX 4090 24 GiB 450 W",))

    def test_a_run_that_is_not_ranked_stands_apart_from_those_of_its_device(self) -> None:
        rows = self.rows(*(submission(cell(flags=["unstable"] if run == 2 else []), run=run)
                           for run in range(3)))
        self.assertEqual([(row.reasons, len(row.runs), row.left_out) for row in rows],
                         [((), 2, 1), (("unstable",), 1, 0)])

    def test_checks_are_added_up_and_flags_joined_in_their_order(self) -> None:
        [row] = self.rows(
            submission(cell(checks={"passed": 3, "total": 5}, flags=["outliers"]), run=1),
            submission(cell(checks={"passed": 4, "total": 5}, flags=["clock_stepped"]), run=2,
                       change=lambda m, d, h: set_at(d, "run_flags", ["busy_host"])))
        self.assertEqual((row.passed, row.checked, row.flags),
                         (7, 10, ("clock_stepped", "outliers", "busy_host")))

    def test_a_rows_name_is_that_of_its_key(self) -> None:
        [one], [more], [other] = (self.rows(*found) for found in (
            [submission()], [submission(), submission(run=1)], [submission(tag="box-1")]))
        self.assertEqual(ranking.row_id(one), ranking.row_id(more))
        self.assertNotEqual(ranking.row_id(one), ranking.row_id(other))


class Numbers(unittest.TestCase):
    def decode(self, *rates: float) -> entries.Spread:
        [row] = ranking.make_rows(submission(cell(decode=rate), run=run)
                                     for run, rate in enumerate(rates))
        return row.numbers["decode_tokens_per_s"]

    def test_one_run_keeps_its_interval_across_prompts(self) -> None:
        self.assertEqual(self.decode(100.0), entries.Spread(100.0, 99.0, 101.0, "prompts"))

    def test_few_runs_show_the_lowest_and_the_highest_and_never_the_best(self) -> None:
        self.assertEqual(self.decode(100.0, 120.0), entries.Spread(110.0, 100.0, 120.0, "range of runs"))
        self.assertEqual(self.decode(1.0, 5.0, 2.0, 4.0, 3.0), entries.Spread(3.0, 1.0, 5.0,
                                                                       "range of runs"))

    def test_from_six_runs_on_the_interval_is_exact(self) -> None:
        self.assertEqual(self.decode(*map(float, range(1, 10))), entries.Spread(5.0, 2.0, 8.0, "runs"))

    def test_a_number_that_some_runs_lack_is_that_of_the_others(self) -> None:
        [row] = ranking.make_rows([submission(cell(decode=None), run=1),
                                      submission(cell(decode=90.0), run=2)])
        self.assertEqual(row.numbers["decode_tokens_per_s"].value, 90.0)

    def test_what_no_run_has_is_no_number(self) -> None:
        [row] = ranking.make_rows([submission(cell(decode=None))])
        self.assertNotIn("decode_tokens_per_s", row.numbers)


class Ranking(unittest.TestCase):
    def places(self, *rates: Optional[float], sort: str = "decode", spread: float = 1.0,
               **changes: Any) -> list[tuple[str, Optional[int], bool]]:
        rows = ranking.make_rows(
            submission(cell(decode=rate, spread=spread, **changes), run=i, tag=f"box-{i}")
            for i, rate in enumerate(rates))
        return [(place.row.device.tag, place.rank, place.tied)
                for block in ranking.ranked(rows, sort) for place in block]

    def test_the_fastest_is_first(self) -> None:
        self.assertEqual(self.places(50.0, 200.0, 100.0), [
            ("box-1", 1, False), ("box-2", 2, False), ("box-0", 3, False)])

    def test_what_cannot_be_told_apart_shares_a_rank(self) -> None:
        self.assertEqual(self.places(100.0, 104.0, 90.0, 89.0), [
            ("box-1", 1, True), ("box-0", 1, True), ("box-2", 3, True), ("box-3", 3, True)])

    def test_overlapping_intervals_share_a_rank_however_far_apart_the_medians_are(self) -> None:
        self.assertEqual(self.places(100.0, 60.0, spread=30.0), [
            ("box-0", 1, True), ("box-1", 1, True)])

    def test_ranks_by_time_put_the_shortest_first(self) -> None:
        cells = [cell() for _ in range(3)]
        for one, ms in zip(cells, (30.0, 10.0, 20.0)):
            one["metrics"]["ttft_ms"].update({"median": ms, "ci_low": ms, "ci_high": ms})
        rows = ranking.make_rows(submission(one, run=i, tag=f"box-{i}")
                                    for i, one in enumerate(cells))
        [block] = ranking.ranked(rows, "ttft")
        self.assertEqual([place.row.device.tag for place in block], ["box-1", "box-2", "box-0"])

    def test_a_row_without_the_number_has_no_rank_and_stands_below(self) -> None:
        self.assertEqual(self.places(None, 50.0), [("box-1", 1, False), ("box-0", None, False)])

    def test_rows_that_are_not_ranked_stand_last_whatever_their_speed(self) -> None:
        rows = ranking.make_rows([
            submission(cell(decode=999.0, flags=["unstable"]), tag="box-0"),
            submission(cell(decode=None), run=1, tag="box-1"), submission(run=2, tag="box-2")])
        [block] = ranking.ranked(rows)
        self.assertEqual([(p.row.device.tag, p.rank) for p in block],
                         [("box-2", 1), ("box-1", None), ("box-0", None)])

    def test_models_and_phases_are_ranked_apart_in_their_own_order(self) -> None:
        rows = ranking.make_rows([submission(cell("edge_suite"), cell("frozen"), cell("5q"))])
        blocks = ranking.ranked(rows)
        self.assertEqual([(block[0].row.phase, block[0].rank) for block in blocks],
                         [("frozen", 1), ("5q", 1), ("edge_suite", 1)])

    def test_an_order_that_is_no_speed_keeps_the_ranks_of_the_decode_rate(self) -> None:
        self.assertEqual(self.places(50.0, 200.0, 100.0, sort="device"), [
            ("box-0", 3, False), ("box-1", 1, False), ("box-2", 2, False)])

    def test_every_order_works(self) -> None:
        for sort in ranking.SORTS:
            with self.subTest(sort):
                self.assertEqual(len(self.places(50.0, 200.0, 100.0, sort=sort)), 3)

    def test_two_numbers_are_told_apart_by_five_per_cent_and_their_intervals(self) -> None:
        cases = {(100, None, None, 105, None, None): True,
                 (100, None, None, 104.9, None, None): False,
                 (100, 90, 110, 120, 110, 130): False, (100, 90, 109, 120, 110, 130): True,
                 (100, 90, 109, 108, None, None): False, (0.0, None, None, 0.0, None, None): False}
        for (a, a_low, a_high, b, b_low, b_high), told in cases.items():
            one, other = entries.Spread(a, a_low, a_high, ""), entries.Spread(b, b_low, b_high, "")
            with self.subTest(a=a, b=b):
                self.assertEqual(ranking.can_be_told(one, other), told and a != b)
                self.assertEqual(ranking.can_be_told(other, one), told and a != b)

    def test_leaving_rows_out_of_sight_changes_no_rank(self) -> None:
        rows = ranking.make_rows([submission(cell(decode=50.0), tag="slow"),
                                     submission(run=1, tag="fast")])
        wanted = ranking.matching(rows, {"hardware": "SLOW"})
        [[place]] = ranking.only(ranking.ranked(rows), wanted)
        self.assertEqual((place.row.device.tag, place.rank), ("slow", 2))


class Filtering(unittest.TestCase):
    def test_a_text_may_stand_anywhere_and_in_any_case(self) -> None:
        rows = ranking.make_rows([submission(cell(), cell("hello", cold=True))])
        cases = {("model", "SMOLLM"): 1, ("model", "qwen"): 0, ("runtime", "b68"): 1,
                 ("runtime", "metal"): 1, ("hardware", "apple m1"): 1, ("hardware", "m1-8gb"): 1,
                 ("hardware", "macbook"): 1, ("phase", "hel"): 1, ("phase", "5q"): 0,
                 ("quantisation", "q8"): 1}
        self.assertEqual({case: len(ranking.matching(rows, dict([case]))) for case in cases},
                         cases)

    def test_the_cold_call_is_left_out_unless_asked_for_or_all_there_is(self) -> None:
        rows = ranking.make_rows([submission(cell(), cell("hello", cold=True))])
        self.assertEqual([row.phase for row in ranking.matching(rows, {})], ["20q"])
        self.assertEqual([row.phase for row in ranking.matching(rows[1:], {})], ["hello"])


class Reading(unittest.TestCase):
    def test_a_broken_document_is_told_of_by_where_and_what(self) -> None:
        cases: list[tuple[int, str, Any, str]] = [
            (1, "run_id", 7, "run_id: 7 is no text of at most 400 characters"),
            (0, "run_id", "other", "run_id differs between manifest.json and metadata.json"),
            (1, "device_tag", "x" * 401, "device_tag: "),
            (1, "synthetic", "no", 'synthetic: "no" is neither true nor false'),
            (1, "cells", {}, "cells: {} is no list"),
            (1, "cells.0.phase", "21q", 'cells: "21q" is no phase'),
            (1, "cells.0.model", "ghost", 'cells: "ghost" is not among the models'),
            (1, "cells.0.flags", ["fast"], 'flags: "fast" is no flag'),
            (1, "cells.0.flags", [["a"]], 'flags: ["a"] is no flag'),
            (1, "cells.0.ok", 1.5, "ok: 1.5 is no whole number"),
            (1, "cells.0.ok", True, "ok: true is no number from 0 to 1e+15"),
            (1, "cells.0.metrics.ttft_ms.median", math.nan, "metrics.ttft_ms.median: NaN is no"),
            (1, "cells.0.metrics.ttft_ms.median", math.inf, "metrics.ttft_ms.median: Infinity is"),
            (1, "cells.0.metrics.ttft_ms.median", -1, "metrics.ttft_ms.median: -1 is no number"),
            (1, "cells.0.metrics.ttft_ms", None, "metrics.ttft_ms.median is missing"),
            (0, "canonical_options", [], "canonical_options: no object"),
            (2, "accelerators", None, "accelerators: null is no list"),
            (2, "cpu.model_name", "Apple M1", "cpu.model_name.value is missing"),
            (2, "memory.capacity_bytes", known("8"), 'memory.capacity_bytes.value: "8" is no')]
        for number, path, value, message in cases:
            made = documents()
            set_at(made[number], path, value)
            with self.subTest(path), self.assertRaises(entries.BrokenSubmission) as caught:
                entries.read_submission(*made)
            self.assertIn(message, str(caught.exception))

    def test_what_is_no_object_at_all_is_told_of(self) -> None:
        for document in (None, [], "text", 3):
            with self.assertRaises(entries.BrokenSubmission):
                entries.read_submission(*documents()[:2], document)

    def test_every_field_of_a_document_may_be_missing_without_a_crash(self) -> None:
        made = documents()
        for number, document in enumerate(made):
            for name in document:
                others = [{k: v for k, v in d.items() if k != name} if i == number else d
                          for i, d in enumerate(made)]
                try:
                    entries.read_submission(*others)
                except entries.BrokenSubmission:
                    pass

    def test_a_row_is_published_whole(self) -> None:
        [[place]] = ranking.ranked(ranking.make_rows([submission(run=3)]))
        row = ranking.row_json(place)
        numbers = {name: row.pop(name) for name in entries.NUMBERS}
        self.assertEqual(row, {
            "rank": 1, "tied": False, "not_ranked": [], "device_tag": "mac-m1-8gb",
            "system": "Apple MacBook Air (M1, 2020)", "cpu": "Apple M1", "threads": 8,
            "memory_gib": 8.0, "accelerators": ["Apple M1 8-core GPU"], "power_mode": None,
            "on_battery": False, "reached": "loopback", "runtime": "llama.cpp",
            "runtime_version": "b6800", "backend": "metal", "model": "smollm2-135m",
            "quantization": "Q8_0", "phase": "20q", "lanes": 1, "runs": 1, "runs_not_ranked": 0,
            "handles": ["ada"],
            "checks": {"passed": CELL["checks"]["passed"], "total": CELL["checks"]["total"]},
            "flags": [], "run_ids": [str(uuid.UUID(int=3))]})
        self.assertEqual(numbers["decode_tokens_per_s"], {
            "median": 100.0, "low": 99.0, "high": 101.0, "interval_of": "prompts"})
        self.assertIsNone(numbers["lane_efficiency_ratio"])
        self.assertEqual(json.loads(json.dumps(row)), row)

    def test_phases_have_the_file_that_their_questions_stand_in(self) -> None:
        self.assertEqual({ranking.phase_path(phase) for phase in suites.PHASES},
                         set(entries.SUITE_PATHS))


if __name__ == "__main__":
    unittest.main()
