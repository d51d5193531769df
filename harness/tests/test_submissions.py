"""Check the maintainers' merged runs: accepted, on the page, and consistent with each other.

Runs of contributors are checked in their pull requests. Here each would slow the tests down.
"""

from __future__ import annotations

import base64
import collections
import contextlib
import functools
import gzip
import io
import itertools
import json
import os
import tempfile
import unittest
from pathlib import Path
from typing import Any

import check_submission
import compare_submissions
import run_benchmark
from compare import folders, two_runs
from core import ledger
from tests import made_submissions

ROOT = Path(run_benchmark.__file__).resolve().parent.parent / "submissions"
FOLDERS = sorted(map(os.fspath, ROOT.glob("maintainers/*/run-*")))
read_run = functools.lru_cache(None)(compare_submissions.read_run)


def called(program: Any, *words: str) -> tuple[int, str]:
    """Exit code and standard output of a program's main."""
    with contextlib.redirect_stdout(io.StringIO()) as out, \
            contextlib.redirect_stderr(io.StringIO()):
        return program.main(words), out.getvalue()


def repeated() -> dict[str, list[str]]:
    """{key: folders, oldest first} of configurations that were run more than once."""
    found = collections.defaultdict(list)
    for folder in FOLDERS:
        manifest = folders.read_document(folder, "manifest.json")
        metadata = folders.read_document(folder, "metadata.json")
        key = (manifest["submitter_handle"], manifest["device_tag"], manifest["engine"]["name"],
               [phase["phase"] for phase in manifest["plan"]["phases"]],
               [(model["model"], model["quantization"]["value"]) for model in metadata["models"]])
        found[repr(key)].append((manifest["started_at"], folder))
    return {key: [folder for _, folder in sorted(runs)] for key, runs in found.items()
            if len(runs) > 1}


@functools.lru_cache(None)
def stretched(folder: str, factor: float) -> two_runs.Run:
    """A run with all times multiplied by a factor."""
    manifest, state = ledger.load_run(folder)
    events = made_submissions.stretched(state.events, factor)
    return two_runs.run_of(manifest, events)


@unittest.skipUnless(FOLDERS, "no merged runs")
class Merged(unittest.TestCase):
    """Each merged run of the maintainers."""

    def test_check_accepts_each_run(self):
        code, output = called(check_submission, *FOLDERS)
        self.assertEqual(code, 0, output)

    def test_each_run_with_all_times_30_percent_longer_is_slower_than_itself(self):
        """A single run decides 15 %, and 25 % for lanes."""
        for folder in FOLDERS:
            found = two_runs.compare_sides([read_run(folder)], [stretched(folder, 1.3)])
            for row in found["verdicts"]:
                is_time = row["metric"].endswith("_ms")
                self.assertAlmostEqual(row["ratio"], 1.3 if is_time else 1 / 1.3, 3, msg=folder)
                self.assertEqual((row["verdict"], row["standing"]), ("slower", "hint"), folder)

    def test_page_contains_each_run(self):
        with tempfile.TemporaryDirectory() as folder:
            page = os.path.join(folder, "page.html")
            code, _ = called(compare_submissions, os.fspath(ROOT), "--html", page)
            text = Path(page).read_text(encoding="utf-8").partition('id="index">')[2]
        index = json.loads(gzip.decompress(base64.b64decode(text.partition("<")[0])))
        ids = [folder.rpartition("run-")[2] for folder in FOLDERS]
        self.assertEqual((code, sorted(index["runs"]["id"])), (0, sorted(ids)))


@unittest.skipUnless(repeated(), "no configuration was run twice")
class OneMachine(unittest.TestCase):
    """Runs of one machine with one server."""

    def test_runs_of_one_machine_have_no_verdict(self):
        for runs in repeated().values():
            for a, b in itertools.permutations(runs, 2):
                found = two_runs.compare_sides([read_run(a)], [read_run(b)])["verdicts"]
                # One answer that never ends changes the throughput of all lanes.
                self.assertEqual({row["verdict"] for row in found if row["quantity"] != "lanes"},
                                 {"cannot tell"}, (a, b))

    def test_all_runs_with_times_20_percent_longer_are_slower(self):
        for runs in repeated().values():
            found = two_runs.compare_sides([read_run(folder) for folder in runs],
                                           [stretched(folder, 1.2) for folder in runs])
            self.assertEqual({row["quantity"]: row["verdict"] for row in found["verdicts"]
                              if row["quantity"] != "lanes"},
                             dict.fromkeys(("decode", "first token", "long prefill"), "slower"))
