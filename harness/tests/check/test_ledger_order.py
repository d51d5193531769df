"""Every order of lines that the runner writes is accepted: after kills, resumes and retries."""

import functools
import io
import random
import tempfile
import unittest
from pathlib import Path

from check import accounting, findings, ledger_order, parsing, submission_files
from check.manifest import suites_here
from core import ledger
from tests import runs
from tests.scripted_endpoint import ANSWER, RESET, ScriptedEndpoint, models, response
from tests.scripted_runs import QUICK, only_probes_answered_by

RUN_ID = "11111111-2222-4333-8444-555555555555"
ROUNDS = 6                    # of random runs; try hundreds after a change of the rules
FAILS = (response(b'{"error": {"message": "out of memory"}}', "500 Failed"),)


class Server:
    """Answers chats, or fails a share of them, or resets connections from some call on."""

    def __init__(self, rng):
        self.rng, self.fail_share, self.calls_left = rng, 0.0, 10 ** 9

    def __call__(self, request):
        self.calls_left -= 1
        if self.calls_left < 0:
            return (RESET,)
        return FAILS if self.rng.random() < self.fail_share else ANSWER


def problems(folder):
    """The report on the order and the times of a run's ledger."""
    report = findings.Report(1000)
    notes = findings.Notes(report, "run.jsonl")
    data = Path(folder, ledger.LEDGER).read_bytes()
    found = parsing.read_ledger(submission_files.Blob("run.jsonl", len(data), functools.partial(
        io.BytesIO, data)), notes)
    manifest = ledger.manifest_of(folder)
    ledger_order.walk(manifest, found.events, found.seals, suites_here(), notes)
    for code, what, line in accounting.problems(manifest, found.events, {"cells": []}):
        if findings.CODES[code].severity == findings.ERROR:      # a loaded machine makes pauses
            notes.add(code, what, line)
    return report


class Orders(unittest.TestCase):
    """Real runs of several models, disturbed at random."""

    def setUp(self):
        for patch in QUICK:
            patch.__enter__()
            self.addCleanup(patch.__exit__, None, None, None)

    def run_disturbed(self, seed, names, phases):
        """The folder of a run that was killed, resumed and retried, and then finished."""
        rng = random.Random(seed)
        server = Server(rng)
        out_dir = tempfile.TemporaryDirectory()
        self.addCleanup(out_dir.cleanup)
        with ScriptedEndpoint(then=server, get=models(*names)) as endpoint, \
                only_probes_answered_by(endpoint):
            words = ("--target-url", endpoint.url, "--out-dir", out_dir.name, "--run-id", RUN_ID,
                     "--no-calibration", "--quiet", "--timeout", "20", "--phases", phases,
                     "--models", ",".join(names), "--lanes", "2")
            for step in range(rng.randrange(2, 5)):
                server.fail_share = rng.choice((0.0, 0.1, 0.5))
                server.calls_left = rng.choice((10 ** 9, rng.randrange(1, 60)))
                runs.run(*words, *(("--retry-failed",) if step and rng.random() < 0.7 else ()))
                folder = runs.folder_of(out_dir.name, RUN_ID)
                if rng.random() < 0.6:        # what a kill leaves: any start of the ledger
                    path = Path(folder, ledger.LEDGER)
                    data = path.read_bytes()
                    path.write_bytes(data[:rng.randrange(data.index(b"\n") + 1, len(data) + 1)])
            server.fail_share, server.calls_left = 0.0, 10 ** 9
            ended = runs.run(*words, *(("--retry-failed",) if rng.random() < 0.8 else ()))
            self.assertIn(ended.code, (0, 1), ended.err)
        return folder

    def test_kills_resumes_and_retries_at_random_points(self):
        for seed in range(ROUNDS):
            names = ("alpha", "beta", "gamma")[:1 + seed % 3]
            phases = ("frozen,parallel_mixed", "parallel_same,edge_append",
                      "5q,parallel_mixed,edge_suite")[seed // 3 % 3]
            with self.subTest(seed=seed, models=len(names), phases=phases):
                report = problems(self.run_disturbed(seed, names, phases))
                self.assertEqual(report.findings(), [], report.text(1))

    def test_retry_of_a_mixed_phase_says_hello_to_the_other_models(self):
        names, failed = ("alpha", "beta", "gamma"), set()

        def choose(request):
            prompt, model = request.json["messages"][-1]["content"], request.json["model"]
            first = model == "beta" and not failed
            failed.update([prompt] if first else [])
            return FAILS if first or (model, len(failed)) == ("alpha", 1) else ANSWER

        with tempfile.TemporaryDirectory() as out_dir, ScriptedEndpoint(
                then=choose, get=models(*names)) as endpoint, only_probes_answered_by(endpoint):
            words = ("--target-url", endpoint.url, "--out-dir", out_dir, "--run-id", RUN_ID,
                     "--no-calibration", "--quiet", "--phases", "5q,parallel_mixed", "--models",
                     ",".join(names))
            self.assertEqual(runs.run(*words).code, 1)
            failed.add("no more failures")
            self.assertEqual(runs.run(*words, "--retry-failed").code, 0)
            report = problems(runs.folder_of(out_dir, RUN_ID))
            self.assertEqual(report.findings(), [], report.text(1))


if __name__ == "__main__":
    unittest.main()
