"""Corrections of merged runs: their form, and that comparisons obey them."""
from __future__ import annotations

import io
import json
import os
import tempfile
import unittest
from contextlib import redirect_stderr, redirect_stdout

import check_submission
import compare_submissions
from check import corrections as checking
from check import findings
from compare import folders
from core import corrections
from tests import made_submissions
from tests.made_submissions import Spec

ONE = {"run_id": "11111111-1111-4111-8111-111111111111", "state": "withdrawn",
       "since": "2026-11-29", "reason": "The fan had stopped.", "issue": None, "values": {}}


def data_of(*found: object) -> bytes:
    return json.dumps({"schema_version": "1", "corrections": list(found)}).encode()


def problems(**changes: object) -> list[str]:
    report = findings.Report()
    checking.check(data_of({**ONE, **changes}), {ONE["run_id"]}, findings.Notes(report, "x"))
    return [found.code for found in report.findings()]


class Form(unittest.TestCase):
    def test_each_mistake_is_found(self):
        key = "metadata.models.0.quantization"
        for code, changes in {
                "": {}, "correction-invalid unknown run": {
                    "run_id": "22222222-1111-4111-8111-111111111111"},
                "correction-invalid state": {"state": "gone"},
                "correction-invalid day": {"since": "2026-02-30"},
                "correction-invalid short reason": {"reason": "bad"},
                "correction-invalid without values": {"state": "corrected"},
                "correction-invalid with values": {"values": {key: "Q4_0"}},
                "correction-invalid key": {"state": "corrected", "values": {"metadata.cells": "x"}},
                "correction-invalid value": {"state": "corrected", "values": {key: 4}},
                "private-value": {"reason": "It ran at 192.168.1.20 in the attic."}}.items():
            with self.subTest(code):
                self.assertEqual(problems(**changes), code.split(" ")[:1] if code else [])
        self.assertEqual(problems(state="corrected", values={key: "Q4_0"}), [])

    def test_the_committed_file_is_valid(self):
        self.assertIsInstance(corrections.near(compare_submissions.DEFAULT_PATH), dict)


class Obeyed(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.root = folder.name
        self.made = [made_submissions.make(Spec(seed=seed)) for seed in (1, 2)]
        self.folders = [made_submissions.write(self.root, made) for made in self.made]
        corrections.near.cache_clear()

    def correct(self, **changes: object) -> None:
        run_id = self.made[0].manifest["run_id"]
        with open(os.path.join(self.root, corrections.NAME), "wb") as file:
            file.write(data_of({**ONE, "run_id": run_id, **changes}))

    def output(self, *words: str) -> dict:
        out = io.StringIO()
        with redirect_stdout(out), redirect_stderr(io.StringIO()):
            compare_submissions.main([*words, "--json"])
        return json.loads(out.getvalue())

    def test_withdrawn_and_disputed_runs_are_not_ranked(self):
        for state in ("withdrawn", "disputed"):
            with self.subTest(state):
                corrections.near.cache_clear()
                self.correct(state=state)
                reasons = {row["not_ranked"][0] for row in self.output(self.root)["rows"]
                           if row["not_ranked"]}
                self.assertIn(f"{state} 2026-11-29: The fan had stopped.", reasons)
                found = self.output("--vs", *self.folders)
                self.assertIn("The fan had stopped.", found["differences"][0])
                self.assertEqual({row["verdict"] for row in found["verdicts"]}, {"not comparable"})

    def test_corrected_values_are_compared(self):
        self.correct(state="corrected", values={"metadata.models.0.quantization": "Q2_K"})
        self.assertIn("Q2_K", {row["quantization"] for row in self.output(self.root)["rows"]})
        _, metadata, _, _ = folders.corrected(self.folders[0])
        self.assertIn("corrected 2026-11-29",
                      metadata["models"][0]["quantization"]["reason"])

    def test_a_broken_file_stops_the_comparison(self):
        with open(os.path.join(self.root, corrections.NAME), "w", encoding="ascii") as file:
            file.write("[]")
        with redirect_stderr(io.StringIO()) as told:
            self.assertEqual(compare_submissions.main([self.root]), 2)
        self.assertIn("restore it", told.getvalue())

    def test_the_check_reads_the_file_of_a_folder(self):
        self.correct(run_id="22222222-1111-4111-8111-111111111111")
        out = io.StringIO()
        with redirect_stdout(out):
            check_submission.main([self.root, "--json"])
        self.assertIn("correction-invalid", {one["code"] for one in
                                             json.loads(out.getvalue())["findings"]})
