"""Output for people fits the terminal, and is wrapped at words."""
from __future__ import annotations

import contextlib
import io
import os
import re
import shutil
import tempfile
import unittest
from pathlib import Path
from typing import Any
from unittest import mock

import check_submission
import compare_submissions
import complete_submission
import hardware
import reference_endpoint
import run_benchmark
from tests import runs

SUBMISSIONS = runs.HARNESS.parent / "submissions"
# What differs between two calls of one program: numbers, ids, and the folder of a test.
UNITS = ("s", "min", "h", "ms", "%")
CHANGING = re.compile(r"[\d.,:-]*\d[\w.,:-]*")


def shown(main: Any, words: Any, columns: int) -> str:
    """Both streams of a program on a terminal of that many columns."""
    out = io.StringIO()
    with mock.patch.dict(os.environ, COLUMNS=str(columns)), contextlib.redirect_stdout(out), \
            contextlib.redirect_stderr(out), contextlib.suppress(SystemExit):
        main(list(words))
    return out.getvalue()


def words_of(text: str) -> set[str]:
    """The words of a text without quotes, and the steps of its paths."""
    joined = CHANGING.sub("#", re.sub("['\"]", "", text.replace("\\\n", "")))
    return {word for word in re.split(r"[\s/]+", joined)
            if "#" not in word and word.strip(",.)") not in UNITS}


class Width(unittest.TestCase):
    def check(self, main: Any, *words: str) -> None:
        """Compare with the same output on a terminal so wide that nothing is wrapped."""
        whole = words_of(shown(main, words, 10_000))
        self.assertGreater(len(whole), 5)
        for columns in (80, 120) if words == ("--help",) else (80,):
            text = shown(main, words, columns)
            with self.subTest(main.__module__, words=words[:3], columns=columns):
                self.assertEqual([line for line in text.splitlines() if len(line) > columns], [])
                self.assertEqual(words_of(text) - whole, set())

    def test_help(self) -> None:
        for program in (run_benchmark, complete_submission, check_submission, compare_submissions,
                        hardware, reference_endpoint):
            self.check(program.main, "--help")

    def test_mistakes(self) -> None:
        folder = "/".join(["no", "such", "folder"] * 9)
        for program, words in (
                (run_benchmark, ["--phases", "5q,none"]), (run_benchmark, ["--temprature", "1"]),
                (run_benchmark, ["--wait", "1", folder]), (complete_submission, [folder]),
                (check_submission, ["--explain", "nothing"]), (compare_submissions, [folder])):
            self.check(program.main, *words)

    def test_runner(self) -> None:
        with runs.Endpoint("--models", "swift:5000,steady:5000", "--first-token-ms", "1") as one, \
                tempfile.TemporaryDirectory() as folder:
            at = ("--target-url", one.url, "--models", "auto")
            self.check(run_benchmark.main, *at, "--probe")
            self.check(run_benchmark.main, *at, "--plan", "--phases", "all")
            made = shown(run_benchmark.main, (*at, "--out-dir", folder, "--phases",
                                              "5q,parallel_mixed", *runs.QUICK), 80)
            self.assertEqual([line for line in made.splitlines() if len(line) > 80], [])
            [path] = Path(folder).glob("*/*/run-*")
            self.check(run_benchmark.main, "--wait", "1", str(path))

    def test_hardware(self) -> None:
        self.check(hardware.main, "--no-bandwidth")

    def test_submissions(self) -> None:
        smallest = min(SUBMISSIONS.glob("*/*/run-*"), key=lambda one: os.path.getsize(
            one / "run.jsonl"))
        with tempfile.TemporaryDirectory() as root:
            copy = str(Path(root, *smallest.parts[-3:]))
            shutil.copytree(smallest, copy)
            for words in ((copy,), (copy, "--set", "notes=null", "--optional")):
                self.check(complete_submission.main, *words)
            self.check(check_submission.main, copy)
            self.check(check_submission.main, "--answers", copy)
        self.check(check_submission.main, "--explain")

    def test_comparison(self) -> None:
        folders = sorted(map(str, SUBMISSIONS.glob("maintainers/*/run-*")))
        for words in ((), ("--all-phases",), ("--history",), ("--wanted",),
                      ("--model", "no such model"), ("--vs", *folders[:2])):
            self.check(compare_submissions.main, *words)


if __name__ == "__main__":
    unittest.main()
