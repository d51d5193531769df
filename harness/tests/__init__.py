"""The tests. `python3 -m unittest discover harness` runs their files in as many processes as the
machine has processors; a file, a class or a test by its name is run in the process that asks."""

from __future__ import annotations

import os
import unittest
from pathlib import Path
from typing import Optional

from tests import parallel


def load_tests(loader: unittest.TestLoader, _: unittest.TestSuite, pattern: Optional[str]
               ) -> unittest.TestSuite:
    """What discovery takes for this folder; the name and the arguments are unittest's."""
    folder, pattern = Path(__file__).parent, pattern or "test*.py"
    if parallel.processors() == 1:
        return loader.discover(os.fspath(folder), pattern)
    # The longest file of tests takes longest, as a rule, and what begins last ends last.
    files = sorted(folder.rglob(pattern), key=lambda file: file.stat().st_size, reverse=True)
    names = [".".join(file.relative_to(folder).with_suffix("").parts) for file in files]
    return parallel.Suite([f"{__name__}.{name}" for name in names], loader.testNamePatterns)
