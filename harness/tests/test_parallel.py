"""Tests that run in other processes: nothing of them is lost, and nothing made better."""

from __future__ import annotations

import io
import os
import sys
import tempfile
import textwrap
import unittest
import uuid
from pathlib import Path
from unittest import mock

import tests
from tests import parallel

MODULES = {
    "whole": """
        import unittest
        class Kinds(unittest.TestCase):
            def test_good(self):
                "A description."
            def test_fails(self):
                self.assertEqual(1, 2)
            def test_breaks(self):
                raise ValueError("of the test")
            @unittest.skip("a reason")
            def test_skipped(self):
                pass
            def test_parts(self):
                for part in range(3):
                    with self.subTest(part=part):
                        self.assertNotEqual(part % 2, 0)
            @unittest.expectedFailure
            def test_succeeds_unexpectedly(self):
                pass
        """,
    "without_set_up": """
        import unittest
        def setUpModule():
            raise OSError("no endpoint")
        class Never(unittest.TestCase):
            def test_never(self):
                pass
        """,
    "unreadable": "import nothing_of_this_name",
    "dies": """
        import os, unittest
        class Dies(unittest.TestCase):
            def test_dies(self):
                os._exit(3)
        """,
}


class Suites(unittest.TestCase):
    """A suite of modules in other processes, against unittest's own result."""

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        # Modules are remembered by their names, so each test has names of its own.
        self.names = {name: f"{name}_{uuid.uuid4().hex}" for name in MODULES}
        for name, text in MODULES.items():
            Path(folder.name, f"{self.names[name]}.py").write_text(textwrap.dedent(text))
        sys.path.insert(0, folder.name)
        self.addCleanup(sys.path.remove, folder.name)

    def told(self, *names: str, **options: object) -> tuple[int, dict[str, list[str]]]:
        """How many tests ran; of each kind that is not a success, the last lines of what it says
        by test."""
        stream = io.StringIO()
        runner = unittest.TextTestRunner(stream, **options)
        result = runner.run(parallel.Suite([self.names[name] for name in names]))
        return result.testsRun, {
            kind: sorted(f"{test.id().replace(self.names[names[0]], names[0])}: "
                         f"{text.strip().splitlines()[-1]}" for test, text in getattr(result, kind))
            for kind in ("errors", "failures", "skipped")}

    def test_each_outcome_is_told_with_its_test_and_its_words(self):
        self.assertEqual(self.told("whole"), (6, {
            "errors": ["whole.Kinds.test_breaks: ValueError: of the test"],
            "failures": ["whole.Kinds.test_fails: AssertionError: 1 != 2",
                         "whole.Kinds.test_parts: AssertionError: 0 == 0",
                         "whole.Kinds.test_parts: AssertionError: 0 == 0",
                         "whole.Kinds.test_succeeds_unexpectedly: "
                         "passed, though a failure was expected"],
            "skipped": ["whole.Kinds.test_skipped: a reason"]}))

    def test_a_module_that_cannot_begin_is_an_error(self):
        self.assertEqual(self.told("without_set_up"), (1, {
            "errors": ["setUpModule (without_set_up): OSError: no endpoint"],
            "failures": [], "skipped": []}))
        ran, told = self.told("unreadable")
        self.assertEqual((ran, len(told["errors"])), (1, 1))
        self.assertIn("nothing_of_this_name", told["errors"][0])

    def test_a_process_that_dies_is_an_error_of_its_module(self):
        ran, told = self.told("dies")
        self.assertEqual((ran, [line.split(": ")[:2] for line in told["errors"]]),
                         (1, [["dies", "its process died"]]))

    def test_no_module_begins_after_the_failure_at_which_to_stop(self):
        names = ["whole"] * 40
        ran, _ = self.told(*names, failfast=True)
        self.assertLess(ran, 6 * len(names))

    def test_a_pattern_chooses_tests_as_it_does_in_one_process(self):
        result = unittest.TestResult()
        parallel.Suite([self.names["whole"]], ["*test_good*"]).run(result)
        self.assertEqual((result.testsRun, result.wasSuccessful()), (1, True))


class Discovery(unittest.TestCase):
    """What `python3 -m unittest discover harness` finds."""

    def test_every_file_of_tests_is_run(self):
        with mock.patch.object(parallel, "processors", lambda: 2):
            suite = tests.load_tests(unittest.TestLoader(), unittest.TestSuite(), None)
        self.assertEqual(set(suite.names), {
            ".".join(("tests", *path.relative_to(Path(__file__).parent).with_suffix("").parts))
            for path in Path(__file__).parent.rglob("test_*.py")})
