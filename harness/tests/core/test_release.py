"""Releases: which files are pinned, and what a change of them does."""
from __future__ import annotations

import ast
import contextlib
import io
import json
import subprocess
import tempfile
import unittest
from pathlib import Path
from unittest import mock

from core import release

OTHER = {**release.current_hashes(), "harness/run/sse.py": "0" * 64}


def run_main(*words: str) -> tuple[int, str]:
    with contextlib.redirect_stdout(io.StringIO()) as out:
        return release.main(words), out.getvalue()


class Pins(unittest.TestCase):
    def test_this_checkout_is_an_accepted_revision(self):
        self.assertEqual(run_main("--check")[0], 0,
                         "if runs before and after your change stay comparable, type "
                         "python3 harness/core/release.py --add")

    def test_this_checkout_has_the_prompts_and_suites_of_the_newest_release(self):
        asked = list(release.RELEASES.values())[-1]
        current = release.current_hashes()
        self.assertEqual({path: sha256 for path, sha256 in current.items()
                          if path == "harness/prompts.py" or "/suites/" in path}, asked)

    def test_every_digest_is_listed_once(self):
        for name, pinned in release.known().items():
            with self.subTest(name):
                self.assertEqual(len(set(pinned.revisions)), len(pinned.revisions))
                for digest in pinned.revisions:
                    self.assertRegex(digest, r"\A[0-9a-f]{64}\Z")

    def test_a_revision_depends_on_every_path_and_hash_and_not_on_their_order(self):
        files = {"harness/a.py": "1" * 64, "harness/b.py": "2" * 64}
        digest = release.revision(files)
        self.assertEqual(release.revision(dict(reversed(files.items()))), digest)
        for other in ({**files, "harness/b.py": "3" * 64}, {"harness/a.py": "1" * 64},
                      {**files, "harness/c.py": "3" * 64},
                      {"harness/a.py": "2" * 64, "harness/b.py": "1" * 64}):
            self.assertNotEqual(release.revision(other), digest)

    def test_only_measuring_files_make_a_checkout_dirty(self):
        with tempfile.TemporaryDirectory() as folder, \
                mock.patch.object(release, "HERE", Path(folder, "harness")):
            release.HERE.joinpath("run").mkdir(parents=True)
            for name in ("README.md", "run/a.py"):
                release.HERE.joinpath(name).write_text("1\n", "ascii")
            for words in (("init", "-q"), ("add", "."), ("-c", "user.name=a", "-c", "user.email=a",
                                                         "commit", "-q", "-m", "a")):
                subprocess.run(["git", "-C", folder, *words], check=True)
            found = []
            for name in ("README.md", "notes.txt", "run/b.py"):
                release.HERE.joinpath(name).write_text("2\n", "ascii")
                found.append(release.git_state()["dirty"])
            self.assertEqual(found, [False, False, True])

    def test_line_ends_that_git_converts_change_no_hash(self):
        text = release.HERE.joinpath("prompts.py").read_bytes()
        self.assertEqual(release.file_sha256(text.replace(b"\n", b"\r\n")),
                         release.current_hashes()["harness/prompts.py"])
        self.assertNotEqual(release.file_sha256(text + b"\r"), release.file_sha256(text))

    def test_differences_from_this_checkout_are_named(self):
        files = {**OTHER, "harness/more.py": "1" * 64}
        del files["harness/prompts.py"]
        self.assertEqual(release.differences(files), [
            "harness/more.py is not of the harness", "harness/prompts.py is missing",
            "harness/run/sse.py is changed"])


class Command(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.table = Path(folder.name, "released_programs.json")
        self.table.write_bytes(release.PROGRAMS.read_bytes())
        for patch in (mock.patch.object(release, "PROGRAMS", self.table),
                      mock.patch.object(release, "current_hashes", lambda: OTHER)):
            patch.start()
            self.addCleanup(patch.stop)

    def test_check_fails_until_a_changed_program_is_added(self):
        before = json.loads(self.table.read_bytes())["public-1"]
        self.assertEqual([run_main(word)[0] for word in ("--check", "--add", "--add", "--check")],
                         [1, 0, 0, 0])
        self.assertEqual(json.loads(self.table.read_bytes())["public-1"],
                         [*before, release.revision(OTHER)])

    def test_printed_hashes_can_be_pasted_into_the_table(self):
        code, text = run_main()
        self.assertEqual((code, ast.literal_eval("{" + text + "}")), (0, OTHER))


if __name__ == "__main__":
    unittest.main()
