"""Run test modules in one process more than there are processors, because tests also wait.

With unittest's own runner, the tests need about a minute of processor time on Python 3.9, so the
test command would take longer than that; on two processors, this takes about half.
"""
from __future__ import annotations

import concurrent.futures
import multiprocessing
import os
import unittest
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, Optional


def processors() -> int:
    """Number of processors that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:          # macOS, Windows
        return os.cpu_count() or 1


class Name(str):
    """The name of a test that ran in another process, as unittest's results print it."""

    def shortDescription(self):
        """Tests are printed by their name."""


class Outcome(NamedTuple):
    """Number of tests in a module, and (test, text) of those that did not simply pass."""

    ran: int
    errors: list[tuple[str, str]]
    failures: list[tuple[str, str]]
    skipped: list[tuple[str, str]]


def run_module(name: str, patterns: Optional[Sequence[str]] = None) -> Outcome:
    """Run the tests of a module in this process. patterns: those of unittest's -k."""
    loader, result = unittest.TestLoader(), unittest.TestResult()
    loader.testNamePatterns = list(patterns) if patterns else None
    loader.loadTestsFromName(name).run(result)

    def named(pairs: Iterable[tuple[Any, str]]) -> list[tuple[str, str]]:
        return [(str(test), text) for test, text in pairs]

    unexpected = [(test, "passed, but was expected to fail") for test in result.unexpectedSuccesses]
    return Outcome(result.testsRun, named(result.errors), named([*result.failures, *unexpected]),
                   named(result.skipped))


class Suite(unittest.TestSuite):
    """The tests of several modules. names: of modules that other processes can import."""

    def __init__(self, names: Sequence[str], patterns: Optional[Sequence[str]] = None):
        super().__init__()
        self.names, self._patterns = names, patterns

    def run(self, result: Any, debug: bool = False) -> Any:
        """Run all modules and add their outcomes to the result."""
        # Not fork: a child would inherit the locks and threads of this process.
        with concurrent.futures.ProcessPoolExecutor(
                processors() + 1, multiprocessing.get_context("spawn")) as pool:
            running = {pool.submit(run_module, name, self._patterns): name for name in self.names}
            for done in concurrent.futures.as_completed(running):
                try:
                    outcome = done.result()
                except concurrent.futures.process.BrokenProcessPool as error:
                    outcome = Outcome(1, [(running[done], f"its process died: {error}")], [], [])
                result.testsRun += outcome.ran
                for kind in ("errors", "failures", "skipped"):
                    getattr(result, kind).extend(
                        (Name(test), text) for test, text in getattr(outcome, kind))
        return result
