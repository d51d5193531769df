"""Kill and retry runs of several models at random points, and check what they end in.

    python3 harness/tests/random_resumes.py [COUNT] [SEED]

Makes runs of two to four models against a scripted endpoint whose answers fail at random (timeouts,
broken answers, errors, a server that is gone). Each ledger is cut COUNT times (200 in all) at a
random byte, which is what a kill leaves, and resumed, half of the time with --retry-failed. Every
ledger that ends is then checked like a submission's. Prints one line per finding of the check;
exit code 1 if there is any.
"""
from __future__ import annotations

import contextlib
import os
import random
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from check import accounting, findings, ledger_order, parsing, submission_files
from check.manifest import suites_of
from core import files, ledger, release
from engines import answers
from machine import gauges
from tests import runs
from tests.scripted_endpoint import (
    ANSWER,
    GONE,
    HANG,
    STREAM,
    Request,
    Script,
    ScriptedEndpoint,
    models,
    response,
    says,
)

POINTS = 200
POINTS_OF_A_RUN = 6
TIMEOUT_S = 0.6                  # of a call; on a busy machine, other calls may pass it, too
PHASES = ("frozen", "5q", "parallel_same", "parallel_mixed", "edge_append", "ramp", "depth")
INTERRUPTED: Script = (STREAM + says("One"),)
FAULTS: dict[str, Script] = {
    "interrupted": INTERRUPTED, "timeout": (STREAM + says("One"), HANG), "gone": GONE,
    "error": (response(b'{"error": "out of memory"}', "500 Internal Server Error"),)}
GONE_IN_A_ROW = 4


class FaultyEndpoint(ScriptedEndpoint):
    """Serves some models; each answer is faulty with a probability."""

    def __init__(self, names: Sequence[str], dice: random.Random) -> None:
        super().__init__(then=self._choose, get=models(*names))
        self.faults_share, self._dice, self._gone = 0.0, dice, 0
        self._choosing = threading.Lock()

    def _choose(self, _: Request) -> Script:
        with self._choosing:
            if not self.faults_share:
                self._gone = 0
                return ANSWER
            if self._gone:
                self._gone -= 1
                return GONE
            if self._dice.random() >= self.faults_share:
                return ANSWER
            kind = self._dice.choice(list(FAULTS))
            self._gone = self._dice.choice((0, GONE_IN_A_ROW)) if kind == "gone" else 0
            return FAULTS[kind]


@contextlib.contextmanager
def without_waiting() -> Iterator[None]:
    """Leave out what takes time and is not under test: the disk, git, hashes, gauges."""
    hashes, git = release.current_hashes(), release.git_state()
    with mock.patch.object(files, "flush_to_disk", lambda _: None), \
            mock.patch.multiple(release, current_hashes=lambda: hashes, git_state=lambda: git), \
            mock.patch.object(gauges.Sampler, "_server_gauges", lambda _: None), \
            mock.patch.object(answers, "PROBE_PATHS", ("/v1/models",)):
        yield


def problems(folder: str) -> list[str]:
    """What the check finds in the ledger of a finished run."""
    report = findings.Report()
    notes = findings.Notes(report, ledger.LEDGER)
    manifest = ledger.manifest_of(folder)
    path = Path(folder, ledger.LEDGER)
    found = parsing.read_ledger(submission_files.Blob(
        ledger.LEDGER, path.stat().st_size, lambda: path.open("rb")), notes)
    if found is not None:
        ledger_order.walk(manifest, found.events, found.seals, suites_of(manifest), notes)
        ledger_order.clocks(manifest, found.events, time.time(), notes)
        for code, what, line in accounting.problems(manifest, found.events, {"cells": []}):
            if findings.CODES[code].severity == findings.ERROR:    # others say that it was busy
                notes.add(code, what, line)
    return [f"{one.code}: line {one.line}: {one.what}" for one in report.findings()]


def make_run(folder: str, dice: random.Random, points: int) -> list[str]:
    """Make one run, cut and resume it at `points` places; return findings."""
    names = ["a", "b", "c", "d"][:dice.randint(2, 4)]
    phases = [name for name in PHASES if dice.random() < 0.6] or ["5q"]
    with FaultyEndpoint(names, dice) as endpoint:
        words = ["--target-url", endpoint.url, "--out-dir", folder, "--quiet", "--no-calibration",
                 "--models", ",".join(names), "--timeout", str(TIMEOUT_S), "--phases",
                 ",".join([*phases, *["parallel_mixed"] * (dice.random() < 0.7)]),
                 "--lanes", str(dice.randint(2, 5))]
        endpoint.faults_share = 0.1
        outcome = runs.run(*words)
        path = next(Path(folder).glob("*/*/run-*"), None)
        if path is None:
            return [f"no run was made: {outcome.err}"]
        run_id, file = path.name[4:], path / ledger.LEDGER
        again = [*words, "--run-id", run_id]
        for _ in range(points):
            if dice.random() < 0.8:
                data = file.read_bytes()
                file.write_bytes(data[:dice.randint(data.index(b"\n") // 2, len(data))])
            endpoint.faults_share = dice.choice((0.0, 0.05, 0.2))
            outcome = runs.run(*again, *["--retry-failed"] * (dice.random() < 0.5))
            if outcome.code not in (0, 1, 3):
                return [f"{run_id}: ended with {outcome.code}: {outcome.err[-500:]}"]
        endpoint.faults_share = 0.0
        for retry in ([], ["--retry-failed"]):
            outcome = runs.run(*again, *retry)
        found = problems(str(path))
        if outcome.code:
            found.append(f"ended with {outcome.code}: {(outcome.out + outcome.err)[-500:]}")
        return [f"{' '.join(words[4:])}: {what}" for what in found]


def resume_at_random(points: int, seed: int) -> list[str]:
    """Findings of as many runs as it takes to cut at `points` places."""
    dice, found = random.Random(seed), []
    with without_waiting():
        while points > 0:
            part = min(points, POINTS_OF_A_RUN)
            points -= part
            with tempfile.TemporaryDirectory() as folder:
                found += make_run(folder, dice, part)
    return found


def main(argv: Sequence[str]) -> int:
    """See above; the exit code."""
    count, seed = (int(word) for word in (*argv, *(str(POINTS), "1")[len(argv):]))
    begun_s = time.monotonic()
    found = resume_at_random(count, seed)
    print("\n".join(found[:50]) or "no findings")
    print(f"{count} points, {len(found)} findings, {time.monotonic() - begun_s:.0f} s, seed {seed}")
    return 1 if found else 0


if __name__ == "__main__":
    os.environ.pop("NO_COLOR", None)
    sys.exit(main(sys.argv[1:]))
