"""Every program names the Python that it needs when an older one starts it."""

from __future__ import annotations

import ast
import glob
import os
import shutil
import subprocess
import unittest
from pathlib import Path

from tests import runs

PROGRAMS = ("run_benchmark", "complete_submission", "check_submission", "compare_submissions",
            "hardware", "reference_endpoint")


def old_interpreters() -> list[str]:
    """The real files of Python 3.6, 3.7 and 3.8 on this machine: on the path, or of pyenv."""
    root = os.environ.get("PYENV_ROOT", os.path.expanduser("~/.pyenv"))
    found = []
    for version in ("3.6", "3.7", "3.8"):
        installed = glob.glob(os.path.join(root, "versions", version + ".*", "bin", "python3"))
        on_path = shutil.which("python" + version)
        found += installed[:1] or ([on_path] if on_path and "shims" not in on_path else [])
    return found


class OldPython(unittest.TestCase):
    def test_programs_can_be_parsed_by_python_3_6(self):
        for name in PROGRAMS:
            with self.subTest(name):
                tree = ast.parse((runs.HARNESS / f"{name}.py").read_text("utf-8"),
                                 feature_version=(3, 6))
                self.assertNotIn("__future__", [node.module for node in ast.walk(tree)
                                                if isinstance(node, ast.ImportFrom)])

    def test_version_is_checked_before_anything_else_is_imported(self):
        for name in PROGRAMS:
            with self.subTest(name):
                tree = ast.parse((runs.HARNESS / f"{name}.py").read_text("utf-8"))
                _, first, second = tree.body[:3]
                self.assertEqual(ast.unparse(first), "import sys")
                self.assertEqual(ast.unparse(second).splitlines(), [
                    "if sys.version_info < (3, 9):", "    sys.exit("
                    f"'{name} needs Python 3.9 or newer; this is ' + sys.version.split()[0])"])

    def test_older_interpreters_get_one_line(self):
        interpreters = old_interpreters()
        if not interpreters:
            self.skipTest("no Python 3.6, 3.7 or 3.8 is installed")
        for interpreter in interpreters:
            for name in PROGRAMS:
                with self.subTest(name, interpreter=Path(interpreter).parts[-3]):
                    done = subprocess.run(
                        [interpreter, str(runs.HARNESS / f"{name}.py"), "--help"],
                        stdin=subprocess.DEVNULL, capture_output=True)
                    self.assertEqual((done.returncode, done.stdout), (1, b""))
                    self.assertRegex(done.stderr, (
                        rf"\A{name} needs Python 3\.9 or newer; this is 3\.[678]\.\d+\r?\n\Z"
                    ).encode())


if __name__ == "__main__":
    unittest.main()
