"""Rows, their numbers, what is ranked, and in which order."""
from __future__ import annotations

import copy
import json
import math
import unittest
import uuid
from typing import Any, Callable, Optional
from unittest import mock

from compare import canonical_names, entries, ranking, verdicts
from core import flag_definitions, release, suites
from machine import inventory
from tests import made_submissions
from tests.made_submissions import DESKTOP, GIB, MAC, Spec

Json = dict[str, Any]

BASE = made_submissions.make(Spec(phases="20q"), {"runtime.backend": "metal"})
CELL = next(cell for cell in BASE.metadata["cells"] if cell["phase"] == "20q")


def cell(phase: str = "20q", decode: Optional[float] = 100.0, **changes: Any) -> Json:
    """A ranked cell with a known decode rate."""
    made: Json = copy.deepcopy(CELL)
    made.update({"phase": phase, "planned": 20, "ok": 20, "flags": [], **changes})
    made["metrics"]["decode_tokens_per_s"]["median"] = decode
    return made


def documents(*cells: Json, run: int = 0, chip: Optional[str] = None, **spec: Any) -> list[Json]:
    """manifest, metadata and hardware of a ranked submission.

    run: number of the run. chip: another processor, so another machine. spec: fields of
    made_submissions.Spec that do not affect the ledger.
    """
    made = made_submissions.Made(*copy.deepcopy(BASE))
    wanted = Spec(**{"phases": "20q", **spec})
    manifest, metadata = made.manifest, made.metadata
    manifest["run_id"] = metadata["run_id"] = str(uuid.UUID(int=run))
    metadata["run"]["started_at"] = f"2026-11-{20 + run:02d}T08:00:00.000Z"
    metadata["submitter_handle"], metadata["device_tag"] = wanted.handle, wanted.tag
    metadata["cells"] = list(cells) or [cell()]
    first = metadata["cells"][0]
    metadata["headlines"][0].update({
        "model": first["model"], "decode_tokens_per_s": first["metrics"]["decode_tokens_per_s"]})
    hardware = inventory.assemble(wanted.probed)
    if chip:
        hardware["cpu"]["model_name"] = known(chip)
    return [manifest, metadata, hardware]


def submission(*cells: Json, run: int = 0, change: Optional[Callable[..., None]] = None,
               **spec: Any) -> entries.Submission:
    """The submission of `documents`, after `change(manifest, metadata, hardware)`."""
    made = documents(*cells, run=run, **spec)
    if change:
        change(*made)
    return entries.read_submission(*made)


def set_at(document: Any, path: str, value: Any) -> None:
    """Set the value at a dotted path; numbers are list indices."""
    names: list[Any] = [int(n) if n.isdigit() else n for n in path.split(".")]
    for name in names[:-1]:
        document = document[name]
    document[names[-1]] = value


def known(value: Any) -> Json:
    return {"value": value, "source": "declared", "reason": None}


class Refusals(unittest.TestCase):
    def reasons(self, *cells: Json, change: Optional[Callable[..., None]] = None) -> list[str]:
        made = submission(*cells, change=change)
        return list(ranking.refusals(made, made.entries[0]))

    def test_complete_canonical_run_is_ranked(self) -> None:
        self.assertEqual(self.reasons(), [])

    def test_each_deviation_has_its_reason(self) -> None:
        suite = "harness/suites/python_task_suite_questions.json"
        cases: list[tuple[str, Callable[..., None]]] = [
            ("synthetic", lambda m, d, h: set_at(d, "synthetic", True)),
            ("hosted endpoint", lambda m, d, h: set_at(d, "endpoint.class", "public")),
            ("partial run", lambda m, d, h: set_at(d, "run.class", "partial")),
            ("smoke run", lambda m, d, h: set_at(d, "run.class", "smoke")),
            ("19 of 20 calls made", lambda m, d, h: set_at(d, "cells.0.ok", 19)),
            ("cold", lambda m, d, h: set_at(d, "cells.0.cold", True)),
            ("harness public-0, ranked is public-1",
             lambda m, d, h: set_at(m, "harness_version", "public-0")),
            ("python_task_suite_questions.json was changed",
             lambda m, d, h: m["files_sha256"].update({suite: "0" * 64})),
            ("python_task_suite_questions.json was changed",
             lambda m, d, h: m["files_sha256"].pop(suite)),
            ("num_predict 64, not 2048",
             lambda m, d, h: set_at(m, "canonical_options_overrides", {"num_predict": 64})),
            ("temperature 0.7, not 0.1",
             lambda m, d, h: set_at(m, "canonical_options_overrides", {"temperature": 0.7})),
            ("context 2048, requested 4096", lambda m, d, h: set_at(
                d, "models.0.context_effective_tokens", known(2048)))]
        for reason, change in cases:
            with self.subTest(reason):
                [found] = self.reasons(change=change)
                self.assertIn(reason, found)

    def test_exactly_the_unrankable_flags_refuse(self) -> None:
        for flag in flag_definitions.FLAGS.values():
            with self.subTest(flag.name):
                self.assertEqual(self.reasons(cell(flags=[flag.name])),
                                 [flag.name] if flag.unrankable else [])

    def test_times_that_a_queue_or_this_client_determined_have_no_rank(self) -> None:
        names = {"ttft_ms", "decode_tokens_per_s"}
        queued = cell("parallel_same", lanes=4, flags=["queued"])
        slow = cell("parallel_same", lanes=4)
        set_at(slow, "verdicts.client_bound.reasons", ["ttft"])
        for made, left in ((cell("parallel_same", lanes=4), names),
                           (queued, {"decode_tokens_per_s"}),
                           (slow, {"decode_tokens_per_s"})):
            with self.subTest(made["flags"]):
                self.assertEqual(names & submission(made).entries[0].numbers.keys(), left)

    def test_parallel_phases_need_the_default_lanes(self) -> None:
        self.assertEqual(self.reasons(cell("parallel_same", lanes=2)), ["2 lanes, not 4"])
        self.assertEqual(self.reasons(cell("parallel_mixed", lanes=8)), ["8 lanes, not 4"])
        self.assertEqual(self.reasons(cell("parallel_mixed", lanes=4)), [])
        self.assertEqual(self.reasons(cell("20q", lanes=1)), [])

    def test_changed_prompts_affect_only_their_phases(self) -> None:
        def change(manifest: Json, metadata: Json, hardware: Json) -> None:
            manifest["files_sha256"]["harness/prompts.py"] = "0" * 64

        self.assertEqual(self.reasons(cell("frozen"), change=change), ["prompts.py was changed"])
        self.assertEqual(self.reasons(cell("20q"), change=change), [])

    def test_larger_or_unknown_context_is_ranked(self) -> None:
        for value in (known(8192), {"value": None, "source": None, "reason": "not reported"}):
            self.assertEqual(self.reasons(change=lambda m, d, h, v=value: set_at(
                d, "models.0.context_effective_tokens", v)), [])

    def test_each_phase_has_the_file_of_its_questions(self) -> None:
        self.assertEqual({f"harness/suites/{phase.suite_file}" if phase.suite_file else
                          "harness/prompts.py" for phase in suites.PHASES.values()},
                         set(next(reversed(release.RELEASES.values()))))


class Rows(unittest.TestCase):
    def test_equal_machines_of_two_people_are_one_row_newest_run_first(self) -> None:
        [row] = ranking.make_rows([submission(run=1), submission(run=2, handle="bob", tag="x")])
        self.assertEqual([run.handle for run in row.runs], ["bob", "ada"])

    def test_memory_is_shown_as_sold(self) -> None:
        sizes = {7.7: 8, 8: 8, 15.3: 16, 17.1: 18, 23.4: 24, 31.0: 32, 35.2: 36, 62.6: 64,
                 91.7: 96, 125.6: 128, 0.9: 1, 503.7: 512}
        self.assertEqual({size: canonical_names.size_as_sold_gib(round(size * GIB))
                          for size in sizes}, sizes)
        cards = {11: 11, 11.75: 12, 15: 16, 22.5: 24, 44.4: 48, 79.2: 80, 93.6: 94, 95.6: 96,
                 140.4: 141}
        self.assertEqual({size: canonical_names.size_as_sold_gib(round(size * GIB), True)
                          for size in cards}, cards)

    def test_device_texts(self) -> None:
        twice = {**DESKTOP, "accelerators": DESKTOP["accelerators"] * 2}
        cases = [(MAC, None, "Apple M1, 8 threads + 8-core GPU"),
                 (DESKTOP, "Intel(R) Core(TM) i5-8250U CPU @ 1.60GHz",
                  "NVIDIA GeForce RTX 4090 24 GiB 450 W + Intel Core i5-8250U, 32 threads"),
                 (twice, "AMD Ryzen", "2 x NVIDIA GeForce RTX 4090 24 GiB 450 W + AMD Ryzen, "
                                      "32 threads")]
        for probed, chip, text in cases:
            with self.subTest(text):
                [row] = ranking.make_rows([submission(probed=probed, chip=chip)])
                self.assertEqual(entries.device_text(row.device), text)

    def test_runs_that_are_not_ranked_have_rows_of_their_own(self) -> None:
        rows = ranking.make_rows(submission(cell(flags=["truncated"] if run == 2 else []), run=run)
                                 for run in range(3))
        self.assertEqual([(row.reasons, len(row.runs), [one.reasons for one in row.left_out])
                          for row in rows],
                         [((), 2, [("truncated",)]), (("truncated",), 1, [])])
        self.assertEqual(rows[0].id, rows[1].id)

    def test_checks_are_added_and_flags_joined_in_order(self) -> None:
        [row] = ranking.make_rows([
            submission(cell(checks={"passed": 3, "total": 5}, flags=["outliers"]), run=1),
            submission(cell(checks={"passed": 4, "total": 5}, flags=["clock_stepped"]), run=2,
                       change=lambda m, d, h: set_at(d, "run_flags", ["busy_host"]))])
        self.assertEqual((row.passed, row.checked, row.flags),
                         (7, 10, ("clock_stepped", "outliers", "busy_host")))

    def test_row_id_depends_on_the_identity_alone(self) -> None:
        [one], [more], [other] = (ranking.make_rows(found) for found in (
            [submission()], [submission(), submission(run=1, tag="x")], [submission(chip="M9")]))
        self.assertEqual(one.id, more.id)
        self.assertNotEqual(one.id, other.id)

    def test_reproduced_needs_two_owners_whose_intervals_meet(self) -> None:
        for runs, expected in (([("ada", 100.0), ("ada", 100.0)], False),
                               ([("ada", 100.0), ("bob", 105.0)], True),
                               ([("ada", 100.0), ("bob", 200.0)], False),
                               ([("ada", 100.0), ("bob", 200.0), ("cem", 190.0)], True)):
            [row] = ranking.make_rows(submission(cell(decode=rate), run=i, handle=handle)
                                      for i, (handle, rate) in enumerate(runs))
            self.assertEqual(row.reproduced, expected, runs)


class Numbers(unittest.TestCase):
    def decode(self, *rates: Optional[float]) -> Optional[verdicts.Spread]:
        [row] = ranking.make_rows(submission(cell(decode=rate), run=run)
                                  for run, rate in enumerate(rates))
        return row.numbers.get("decode_tokens_per_s")

    def test_number_is_the_median_over_runs_with_a_t_interval(self) -> None:
        # One run: 100 x exp(+- 2.776 x 3 %). Equal runs narrow it, unequal ones widen it.
        cases: dict[tuple[Optional[float], ...], tuple[float, ...]] = {
            (100.0,): (100.0, 92.0082, 108.686), (100.0, 100.0, 100.0): (100.0, 96.5987, 103.521),
            (80.0, 100.0, 125.0): (100.0, 83.0885, 120.354), (None, 90.0): (90.0, 82.8074, 97.8173)}
        for rates, expected in cases.items():
            with self.subTest(rates):
                self.assertEqual(self.decode(*rates), expected)

    def test_number_that_no_run_has_is_missing(self) -> None:
        self.assertIsNone(self.decode(None))


class Ranks(unittest.TestCase):
    def places(self, *rates: Optional[float], sort: str = "decode",
               **changes: Any) -> list[tuple[str, Optional[int], bool]]:
        rows = ranking.make_rows(
            submission(cell(decode=rate, **changes), run=i, tag=f"box-{i}", chip=f"M{i}")
            for i, rate in enumerate(rates))
        return [(place.row.device.tag, place.rank, place.tied)
                for block in ranking.ranked(rows, sort) for place in block]

    def test_fastest_is_first(self) -> None:
        self.assertEqual(self.places(50.0, 200.0, 100.0), [
            ("box-1", 1, False), ("box-2", 2, False), ("box-0", 3, False)])

    def test_rank_counts_the_rows_that_are_better(self) -> None:
        # 110 is not decided against 100 and 120 from single runs; 140 beats 100 and 110.
        self.assertEqual(self.places(100.0, 110.0, 120.0, 140.0), [
            ("box-3", 1, True), ("box-2", 1, True), ("box-1", 2, True), ("box-0", 2, True)])

    def test_more_runs_decide_smaller_differences(self) -> None:
        rows = ranking.make_rows(
            submission(cell(decode=rate), run=10 * i + j, tag=f"box-{i}", chip=f"M{i}")
            for i, rate in enumerate((100.0, 110.0)) for j in range(4))
        [block] = ranking.ranked(rows)
        self.assertEqual([(p.row.device.tag, p.rank) for p in block], [("box-1", 1), ("box-0", 2)])

    def test_ranks_by_time_put_the_shortest_first(self) -> None:
        cells = [cell() for _ in range(3)]
        for one, ms in zip(cells, (30.0, 10.0, 20.0)):
            one["metrics"]["ttft_ms"]["median"] = ms
        rows = ranking.make_rows(submission(one, run=i, tag=f"box-{i}", chip=f"M{i}")
                                 for i, one in enumerate(cells))
        [block] = ranking.ranked(rows, "ttft")
        self.assertEqual([place.row.device.tag for place in block], ["box-1", "box-2", "box-0"])

    def test_row_without_the_number_is_last_and_has_no_rank(self) -> None:
        self.assertEqual(self.places(None, 50.0), [("box-1", 1, False), ("box-0", None, False)])

    def test_rows_that_are_not_ranked_are_last_at_any_speed(self) -> None:
        rows = ranking.make_rows([
            submission(cell(decode=999.0, flags=["truncated"]), tag="box-0"),
            submission(cell(decode=None), run=1, tag="box-1", chip="M2"),
            submission(run=2, tag="box-2", chip="M3")])
        [block] = ranking.ranked(rows)
        self.assertEqual([(p.row.device.tag, p.rank) for p in block],
                         [("box-2", 1), ("box-1", None), ("box-0", None)])

    def test_phases_are_ranked_separately_in_their_order(self) -> None:
        rows = ranking.make_rows([submission(cell("edge_suite"), cell("frozen"), cell("5q"))])
        self.assertEqual([(block[0].row.phase, block[0].rank) for block in ranking.ranked(rows)],
                         [("frozen", 1), ("5q", 1), ("edge_suite", 1)])

    def test_every_order_keeps_all_rows(self) -> None:
        for sort in ranking.SHORT:
            with self.subTest(sort):
                self.assertEqual(len(self.places(50.0, 200.0, 100.0, sort=sort)), 3)

    def test_filters_keep_ranks(self) -> None:
        rows = ranking.make_rows([submission(cell(decode=50.0), tag="slow", chip="M1"),
                                  submission(run=1, tag="fast", chip="M2")])
        wanted = ranking.matching(rows, {"hardware": "SLOW"})
        [[place]] = ranking.only(ranking.ranked(rows), wanted)
        self.assertEqual((place.row.device.tag, place.rank), ("slow", 2))


class Filters(unittest.TestCase):
    def test_text_matches_anywhere_ignoring_case(self) -> None:
        rows = ranking.make_rows([submission(cell(), cell("hello", cold=True))])
        cases = {("model", "SMOLLM"): 1, ("model", "smollm2"): 1, ("model", "qwen"): 0,
                 ("runtime", "b68"): 1, ("runtime", "metal"): 1, ("hardware", "apple m1"): 1,
                 ("hardware", "m1-8gb"): 1, ("hardware", "macbook"): 1, ("phase", "hel"): 1,
                 ("phase", "5q"): 0, ("quantisation", "q8"): 1}
        self.assertEqual({case: len(ranking.matching(rows, dict([case]))) for case in cases},
                         cases)

    def test_hello_is_left_out_unless_asked_for_or_alone(self) -> None:
        rows = ranking.make_rows([submission(cell(), cell("hello", cold=True))])
        self.assertEqual([row.phase for row in ranking.matching(rows, {})], ["20q"])
        self.assertEqual([row.phase for row in ranking.matching(rows[1:], {})], ["hello"])
        self.assertEqual(len(ranking.matching(rows, {}, with_hello=True)), 2)


class Reading(unittest.TestCase):
    def test_broken_document_is_refused_with_path_and_value(self) -> None:
        cases: list[tuple[int, str, Any, str]] = [
            (1, "run_id", 7, "run_id: 7 is not a text"),
            (0, "run_id", "other", "run_id differs between manifest.json and metadata.json"),
            (1, "device_tag", "x" * 401, "device_tag: "),
            (1, "synthetic", "no", 'synthetic: "no" is not true or false'),
            (1, "cells", {}, "cells: {} is not a list"),
            (1, "cells.0.phase", "21q", 'cells: "21q" is not a phase'),
            (1, "cells.0.model", "ghost", 'cells: "ghost" is not among the models'),
            (1, "cells.0.flags", ["fast"], 'flags: "fast" is not a known flag'),
            (1, "cells.0.flags", [["a"]], 'flags: ["a"] is not a known flag'),
            (1, "cells.0.ok", 1.5, "ok: 1.5 is not a whole number"),
            (1, "cells.0.ok", True, "ok: true is not a whole number"),
            (1, "cells.0.metrics.ttft_ms.median", math.nan, "metrics.ttft_ms.median: NaN is not"),
            (1, "cells.0.metrics.ttft_ms.median", math.inf, "metrics.ttft_ms.median: Infinity is"),
            (1, "cells.0.metrics.ttft_ms.median", -1, "metrics.ttft_ms.median: -1 is not"),
            (1, "cells.0.metrics.ttft_ms", None, "metrics.ttft_ms.median is missing"),
            (0, "canonical_options", [], "canonical_options: [] is not an object"),
            (2, "accelerators", None, "accelerators: null is not a list"),
            (2, "memory.capacity_bytes", known("8"), 'memory.capacity_bytes: "8" is not'),
            (2, "cpu.model_name", known(8), "cpu.model_name: 8 is not"),
            (2, "cpu.instruction_sets", known([{}]), "cpu.instruction_sets: [{}] is not"),
            (1, "models.0.gpu_offload_ratio", known("x"), 'models.gpu_offload_ratio: "x" is not'),
            (1, "runtime.version", known([]), "runtime.version: [] is not")]
        for number, path, value, message in cases:
            made = documents()
            set_at(made[number], path, value)
            with self.subTest(path), self.assertRaises(entries.BrokenSubmission) as caught:
                entries.read_submission(*made)
            self.assertIn(message, str(caught.exception))

    def test_document_of_another_type_is_refused(self) -> None:
        for document in (None, [], "text", 3):
            with self.assertRaises(entries.BrokenSubmission):
                entries.read_submission(*documents()[:2], document)

    def test_missing_field_is_refused_or_unknown(self) -> None:
        made = documents()
        for number, document in enumerate(made):
            for name in document:
                others = [{k: v for k, v in d.items() if k != name} if i == number else d
                          for i, d in enumerate(made)]
                try:
                    entries.read_submission(*others)
                except entries.BrokenSubmission:
                    pass

    def test_fact_of_another_schema_version_is_unknown(self) -> None:
        made = documents()
        del made[1]["models"][0]["draft_model"], made[2]["memory"]["unified"]
        set_at(made[1], "models.0.new_fact", known("x"))
        self.assertEqual(entries.read_submission(*made).run_id, made[1]["run_id"])

    def test_row_json(self) -> None:
        [[place]] = ranking.ranked(ranking.make_rows([submission(run=3)]))
        row = ranking.row_json(place)
        numbers = {name: row.pop(name) for name in entries.NUMBERS}
        self.assertEqual((row.pop("row_id"), row.pop("block_id")), (place.row.id, mock.ANY))
        self.assertEqual(row, {
            "machine_class": "m1 8 GiB", "bits_class": "8-bit", "owners": 1, "runs_left_out": [],
            "standing": "hint",
            "rank": 1, "tied": False, "not_ranked": [], "device_tag": "mac-m1-8gb",
            "system": "Apple MacBook Air (M1, 2020)", "cpu": "Apple M1", "threads": 8,
            "memory_gib": 8.0, "accelerators": ["Apple M1 8-core GPU"], "power_mode": None,
            "on_battery": False, "reached": "loopback", "runtime": "llama.cpp",
            "runtime_version": "b6800", "backend": "metal", "model": "smollm-2-135m",
            "served_as": ["smollm2-135m"], "quantization": "Q8_0", "weights": "weights unknown",
            "configuration": "", "phase": "20q", "lanes": 1, "runs": 1, "runs_not_ranked": 0,
            "handles": ["ada"], "reproduced": False,
            "checks": {"passed": CELL["checks"]["passed"], "total": CELL["checks"]["total"]},
            "flags": [], "run_ids": [str(uuid.UUID(int=3))]})
        self.assertEqual(numbers["decode_tokens_per_s"],
                         {"median": 100.0, "low": 92.0082, "high": 108.686})
        self.assertIsNone(numbers["speedup_ratio"])
        self.assertEqual(json.loads(json.dumps(row)), row)


if __name__ == "__main__":
    unittest.main()
