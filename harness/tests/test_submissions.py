"""Check the maintainers' merged runs: accepted, on the page, and consistent with each other.

Runs of contributors are checked in their pull requests. Here each would slow the tests down.
"""

from __future__ import annotations

import collections
import contextlib
import functools
import io
import itertools
import os
import tempfile
import unittest
from pathlib import Path
from typing import Any, Callable

import check_submission
import compare_submissions
import run_benchmark
from compare import two_runs
from core import ledger

from tests import made_submissions

ROOT = Path(run_benchmark.__file__).resolve().parent.parent / "submissions"
FOLDERS = sorted(map(os.fspath, ROOT.glob("maintainers/*/run-*")))
JUDGED = ("decode_tokens_per_s", "ttft_ms")
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
        manifest = compare_submissions.read_document(folder, "manifest.json")
        metadata = compare_submissions.read_document(folder, "metadata.json")
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
    return two_runs.run_of(manifest, events, ledger.latest_calls(events))


def has_interval(row: Any) -> bool:
    """Whether a row can have a verdict."""
    return row["metric"] in JUDGED and row["ratio"]["ci_low"] is not None


@unittest.skipUnless(FOLDERS, "no merged runs")
class Merged(unittest.TestCase):
    """Each merged run of the maintainers."""

    def test_check_accepts_each_run(self):
        code, output = called(check_submission, *FOLDERS)
        self.assertEqual(code, 0, output)

    def test_each_run_with_all_times_20_percent_longer_is_slower_than_itself(self):
        """The ratio is exact, and the verdict is "slower" unless the run itself varies by more."""
        for folder in FOLDERS:
            rows = [row for row in two_runs.compare_sides(
                [read_run(folder)], [stretched(folder, 1.2)])["rows"] if has_interval(row)]
            off = [row for row in rows
                   if abs(row["ratio"]["median"] * (1.2 if "decode" in row["metric"] else 1 / 1.2)
                          - 1) > 0.001]
            undecided = [row for row in rows if row["verdict"] != "slower"
                      and not str(row["reason"]).startswith("it varies by ")]
            self.assertEqual((off, undecided, bool(rows)), ([], [], True), folder)

    def test_page_contains_each_run(self):
        with tempfile.TemporaryDirectory() as folder:
            page = os.path.join(folder, "page.html")
            code, _ = called(compare_submissions, os.fspath(ROOT), "--html", page)
            text = Path(page).read_text(encoding="utf-8")
        ids = [folder.rpartition("run-")[2] for folder in FOLDERS]
        self.assertEqual((code, [run_id for run_id in ids if run_id not in text]), (0, []))


@unittest.skipUnless(repeated(), "no configuration was run twice")
class OneMachine(unittest.TestCase):
    """Runs of one machine with one server.

    A shared host changes its speed between runs, which is a real difference. So of all runs, only
    two must agree.
    """

    def require_best(self, second: Callable[[str], two_runs.Run], verdict: str,
             wanted: Callable[[Any], bool]) -> None:
        """Require this verdict in 90 % of the rows of at least one pair of runs."""
        for folders in repeated().values():
            shares = {}
            for pair in itertools.permutations(folders, 2):
                rows = two_runs.compare_sides([read_run(pair[0])], [second(pair[1])])["rows"]
                verdicts = [row["verdict"] for row in rows if wanted(row)]
                shares[pair] = verdicts.count(verdict) / len(verdicts)
            self.assertGreaterEqual(max(shares.values()), 0.9, shares)

    def test_two_equal_runs_have_no_verdict(self):
        self.require_best(read_run, "cannot tell", lambda row: True)

    def test_run_with_all_times_20_percent_longer_is_slower(self):
        self.require_best(lambda folder: stretched(folder, 1.2), "slower", has_interval)
