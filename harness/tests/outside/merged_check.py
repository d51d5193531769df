"""Run the script of the merged check in clones, with a substitute for gh.

    PYTHONPATH=harness python3 harness/tests/outside/merged_check.py
"""

import gzip
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import textwrap
import unittest
from pathlib import Path

from core import release
from tests import valid_run

WORKFLOW = release.HERE.parent / ".github" / "workflows" / "merged-check.yml"
GH = '#!/bin/sh\ntest "$2" != list || echo 7\n' \
    'test "$2" != download || { mkdir -p old && cp "$ARTIFACT" old/merged.index; }\n'


class MergedCheck(unittest.TestCase):
    """Only what a push added or changed is checked, against all merged runs."""

    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.root = Path(folder.name)
        cls.origin, tools = cls.root / "origin", cls.root / "bin"
        shutil.copytree(release.HERE, cls.origin / "harness",
                        ignore=shutil.ignore_patterns("__pycache__", "tests", "docs"))
        tools.mkdir()
        (tools / "gh").write_text(GH)
        (tools / "gh").chmod(0o755)
        # The interpreter of the tests. A link to it would look for its library beside the link.
        (tools / "python3").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
        (tools / "python3").chmod(0o755)
        lines = WORKFLOW.read_text("utf-8").partition("- name: Write the index, and check\n")[2]
        cls.script = textwrap.dedent(
            lines.partition("run: |\n")[2].partition("\n      - ")[0])
        cls.git(cls.origin, "init", "--quiet")
        made = [valid_run.make(valid_run.Spec(phases="hello", handle=handle, seed=seed))
                for handle, seed in (("ada", 1), ("grace", 2))]
        made.append(made[0]._replace(manifest={**made[0].manifest, "submitter_handle": "hopper"}))
        cls.commits = []
        for one in made:
            one.write(str(cls.origin / "submissions"))
            cls.git(cls.origin, "add", ".")
            cls.git(cls.origin, "commit", "--quiet", "-m", "x")
            cls.commits.append(cls.git(cls.origin, "rev-parse", "HEAD"))

    @staticmethod
    def git(folder, *words):
        return subprocess.run(
            ["git", "-c", "user.name=x", "-c", "user.email=x@example.org", *words], cwd=folder,
            capture_output=True, text=True, check=True, timeout=120).stdout.strip()

    def ran(self, at, artifact=b"", event="push", before=0):
        """(number of submissions checked, whether a copy was found, the index) at a commit. The
        commits are numbers."""
        work = Path(tempfile.mkdtemp(dir=self.root))
        old = Path(f"{work}.index")
        self.git(self.root, "clone", "--quiet", "--sparse", str(self.origin), str(work))
        self.git(work, "sparse-checkout", "set", "harness")
        self.git(work, "reset", "--quiet", "--hard", self.commits[at])
        if artifact:
            old.write_bytes(artifact)
        done = subprocess.run(
            ["bash", "-c", self.script], cwd=work, capture_output=True, text=True, timeout=300,
            env={**os.environ, "PATH": f"{self.root / 'bin'}{os.pathsep}{os.environ['PATH']}",
                 "ARTIFACT": str(old), "EVENT": event, "BEFORE": self.commits[before]})
        found = re.search(r"^(\d+) submissions? checked", done.stdout, re.MULTILINE)
        self.assertTrue(found, done.stdout + done.stderr)
        index = (work / "merged.index").read_bytes()
        rows = [json.loads(row) for row in gzip.decompress(index).decode().split("\n")]
        self.assertEqual((rows[0]["commit"], len(rows)), (self.commits[at], at + 2))
        return int(found[1]), "run-copied" in done.stdout, index

    def test_a_push_checks_its_run_and_keeps_the_index(self):
        first = self.ran(0, event="schedule")
        second = self.ran(1, first[2])
        self.assertEqual((first[:2], second[:2]), ((1, False), (1, False)))
        # Since the last index, not only since the push before.
        self.assertEqual(self.ran(2, first[2], before=1)[:2], (2, True))

    def test_without_a_usable_index_it_is_written_from_all_runs(self):
        other = gzip.compress(b'{"commit":"%s","version":0}' % self.commits[0].encode())
        for artifact, expected in ((b"", (1, True)), (b"x", (1, True)), (other, (2, True))):
            self.assertEqual(self.ran(2, artifact, before=1)[:2], expected)

    def test_all_runs_are_checked_by_schedule(self):
        self.assertEqual(self.ran(2, event="schedule")[:2], (3, True))


if __name__ == "__main__":
    unittest.main()
