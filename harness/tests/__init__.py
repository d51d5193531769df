"""The tests of the harness. `python3 -m unittest discover harness` runs all of them in parallel.

A single module, class or test runs in one process: `cd harness`, then for example
`python3 -m unittest tests.core.test_text`.
"""
from __future__ import annotations

import os
import unittest
from pathlib import Path
from typing import Optional

from core import text
from tests import parallel

text.ON_WINDOWS = False        # tests compare commands with those of other systems

def load_tests(loader: unittest.TestLoader, _: unittest.TestSuite, pattern: Optional[str]
               ) -> unittest.TestSuite:
    """The tests of this folder, for unittest's discovery."""
    folder, pattern = Path(__file__).parent, pattern or "test*.py"
    if parallel.processors() == 1:
        return loader.discover(os.fspath(folder), pattern)
    # The largest file usually takes longest, so it starts first.
    files = sorted(folder.rglob(pattern), key=lambda file: file.stat().st_size, reverse=True)
    names = [".".join(file.relative_to(folder).with_suffix("").parts) for file in files]
    return parallel.Suite([f"{__name__}.{name}" for name in names], loader.testNamePatterns)
