"""The project's own merged runs: accepted, shown on the page, and as alike as one machine's are.

Others' runs are checked where they come in. Here each would make the tests longer, for ever.
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
MARKS = ("decode_tokens_per_s", "ttft_ms")
read_run = functools.lru_cache(None)(compare_submissions.read_run)


def called(program: Any, *words: str) -> tuple[int, str]:
    """Exit code and standard output of a program's main."""
    with contextlib.redirect_stdout(io.StringIO()) as out, \
            contextlib.redirect_stderr(io.StringIO()):
        return program.main(words), out.getvalue()


def repeated() -> dict[str, list[str]]:
    """{what was run, where: folders} of what was run more than once, oldest first."""
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
    """A run with every mark and gap longer."""
    manifest, state = ledger.load_run(folder)
    events = made_submissions.stretched(state.events, factor)
    return two_runs.run_of(manifest, events, ledger.latest_calls(events))


def has_interval(row: Any) -> bool:
    """Without one nothing is said of any difference."""
    return row["metric"] in MARKS and row["ratio"]["ci_low"] is not None


@unittest.skipUnless(FOLDERS, "nothing is merged yet")
class Merged(unittest.TestCase):
    """Each of the project's own."""

    def test_the_check_accepts_each(self):
        code, told = called(check_submission, *FOLDERS)
        self.assertEqual(code, 0, told)

    def test_each_with_all_its_times_longer_by_a_fifth_is_slower_than_itself(self):
        """By just a fifth, and this is told unless the run varied by more within itself."""
        for folder in FOLDERS:
            rows = [row for row in two_runs.compare_sides(
                [read_run(folder)], [stretched(folder, 1.2)])["rows"] if has_interval(row)]
            off = [row for row in rows
                   if abs(row["ratio"]["median"] * (1.2 if "decode" in row["metric"] else 1 / 1.2)
                          - 1) > 0.001]
            untold = [row for row in rows if row["verdict"] != "slower"
                      and not str(row["reason"]).startswith("it varies by ")]
            self.assertEqual((off, untold, bool(rows)), ([], [], True), folder)

    def test_the_page_holds_each_with_its_details(self):
        with tempfile.TemporaryDirectory() as folder:
            page = os.path.join(folder, "page.html")
            code, _ = called(compare_submissions, os.fspath(ROOT), "--html", page)
            text = Path(page).read_text(encoding="utf-8")
        ids = [folder.rpartition("run-")[2] for folder in FOLDERS]
        self.assertEqual((code, [run_id for run_id in ids if run_id not in text]), (0, []))


@unittest.skipUnless(repeated(), "nothing is merged twice yet")
class OneMachine(unittest.TestCase):
    """Runs of one machine with one server. A host that is shared changes its speed from one run to
    the next, which is a true difference: of three runs, two have to be alike, whichever of the two
    is changed."""

    def best(self, second: Callable[[str], two_runs.Run], verdict: str,
             wanted: Callable[[Any], bool]) -> None:
        """Two of the runs of each machine have this verdict in nine of ten rows."""
        for folders in repeated().values():
            shares = {}
            for pair in itertools.permutations(folders, 2):
                rows = two_runs.compare_sides([read_run(pair[0])], [second(pair[1])])["rows"]
                told = [row["verdict"] for row in rows if wanted(row)]
                shares[pair] = told.count(verdict) / len(told)
            self.assertGreaterEqual(max(shares.values()), 0.9, shares)

    def test_two_runs_cannot_be_told_apart(self):
        self.best(read_run, "cannot tell", lambda row: True)

    def test_a_run_with_all_its_times_longer_by_a_fifth_is_slower(self):
        self.best(lambda folder: stretched(folder, 1.2), "slower", has_interval)
