"""A retry of a mixed phase is accepted; random_resumes.py tries other orders of lines."""

import tempfile
import unittest

from tests import random_resumes, runs
from tests.scripted_endpoint import ANSWER, ScriptedEndpoint, models, response
from tests.scripted_runs import QUICK, only_probes_answered_by

RUN_ID = "11111111-2222-4333-8444-555555555555"
FAILS = (response(b'{"error": {"message": "out of memory"}}', "500 Failed"),)


class Orders(unittest.TestCase):
    def setUp(self):
        for patch in QUICK:
            patch.__enter__()
            self.addCleanup(patch.__exit__, None, None, None)

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
            self.assertEqual(random_resumes.problems(runs.folder_of(out_dir, RUN_ID)), [])


if __name__ == "__main__":
    unittest.main()
