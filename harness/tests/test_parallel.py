"""Tests in parallel processes: all of them are found, and no failure is lost."""
from __future__ import annotations

import os
import sys
import tempfile
import textwrap
import unittest
from pathlib import Path
from unittest import mock

import tests
from tests import parallel

MODULES = {
    "kinds": """
        import unittest
        class Kinds(unittest.TestCase):
            def test_good(self):
                pass
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
    "no_set_up": """
        import unittest
        def setUpModule():
            raise OSError("no endpoint")
        class Never(unittest.TestCase):
            def test_never(self):
                pass
        """,
    "no_import": "import nothing_of_this_name",
    "dies": """
        import os, unittest
        class Dies(unittest.TestCase):
            def test_dies(self):
                os._exit(3)
        """,
}


class Outcomes(unittest.TestCase):
    def run_modules(self, *names: str, patterns: tuple[str, ...] = ()) -> unittest.TestResult:
        result = unittest.TestResult()
        with tempfile.TemporaryDirectory(prefix="b\u00e4r b") as folder, \
                mock.patch.dict(os.environ, PYTHONPATH=folder), \
                mock.patch.object(sys, "path", [folder, *sys.path]):
            for name in names:
                Path(folder, f"{name}.py").write_text(textwrap.dedent(MODULES[name]), "utf-8")
            return parallel.Suite(names, patterns or None).run(result)

    def test_every_failure_error_and_skip_is_reported(self):
        result = self.run_modules("kinds", "no_set_up", "no_import")
        failures = [str(test).partition(" ")[0] for test, _ in result.failures]
        self.assertEqual(sorted(failures), [
            "test_fails", "test_parts", "test_parts", "test_succeeds_unexpectedly"])
        errors = " ".join(text for _, text in result.errors)
        for message in ("ValueError: of the test", "OSError: no endpoint", "nothing_of_this_name"):
            self.assertIn(message, errors)
        self.assertEqual([reason for _, reason in result.skipped], ["a reason"])
        self.assertIn(result.testsRun, (6, 7))      # Python 3.12.1 does not count skipped tests
        self.assertEqual(len(result.errors), 3)
        self.assertFalse(result.wasSuccessful())

    def test_a_process_that_dies_is_an_error(self):
        result = self.run_modules("dies")
        self.assertIn("its process died", result.errors[0][1])

    def test_patterns_select_tests(self):
        result = self.run_modules("kinds", patterns=("*good",))
        self.assertEqual((result.testsRun, result.wasSuccessful()), (1, True))

    def test_discovery_finds_the_modules_of_all_folders(self):
        with mock.patch.object(parallel, "processors", lambda: 2):
            suite = tests.load_tests(unittest.TestLoader(), unittest.TestSuite(), None)
        folder = Path(tests.__file__).parent
        self.assertEqual(sorted(suite.names), sorted(
            "tests." + ".".join(path.relative_to(folder).with_suffix("").parts)
            for path in folder.rglob("test_*.py")))
        for path in folder.rglob("test_*.py"):
            self.assertTrue(path.with_name("__init__.py").exists(), path)


if __name__ == "__main__":
    unittest.main()
