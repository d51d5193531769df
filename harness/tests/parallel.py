"""Modules of tests, each run in one of several processes, and told to unittest's result as if they
had run in this one."""

from __future__ import annotations

import concurrent.futures
import multiprocessing
import os
import time
import unittest
from typing import Any, NamedTuple, Optional, Sequence


def processors() -> int:
    """How many this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:          # macOS, Windows
        return os.cpu_count() or 1


class Ran(NamedTuple):
    """What became of a test, or of a module or class that could not be set up."""

    name: str
    description: Optional[str]
    duration_s: float
    errors: list[str]
    failures: list[str]
    skipped: list[str]


class Collected(unittest.TestResult):
    """Remembers each test with what was said of it. ran: in the order in which they ended."""

    def __init__(self) -> None:
        super().__init__()
        self.ran: list[Ran] = []
        self._started_s = 0.0

    def startTest(self, test: unittest.TestCase) -> None:
        super().startTest(test)
        self._started_s = time.monotonic()

    def stopTest(self, test: unittest.TestCase) -> None:
        super().stopTest(test)
        self._take(test.id(), test.shortDescription())

    def addUnexpectedSuccess(self, test: unittest.TestCase) -> None:
        self.failures.append((test, "passed, though a failure was expected"))

    def rest(self) -> list[Ran]:
        """All that ran, and what was said outside of a test."""
        if self.errors or self.failures or self.skipped:
            test = (self.errors + self.failures + self.skipped)[0][0]
            self._take(test.id(), None)
        return self.ran

    def _take(self, name: str, description: Optional[str]) -> None:
        said = [[text for _, text in kind] for kind in (self.errors, self.failures, self.skipped)]
        self.ran.append(Ran(name, description, time.monotonic() - self._started_s, *said))
        for kind in (self.errors, self.failures, self.skipped):
            kind.clear()


class SaidElsewhere(Exception):
    """Carries the text of a traceback from another process."""


class Stub(unittest.TestCase):
    """Stands for a test of another process."""

    def __init__(self, ran: Ran) -> None:
        super().__init__("tell")
        self._ran = ran

    def id(self) -> str:
        return self._ran.name

    def __str__(self) -> str:
        return self._ran.name

    def shortDescription(self) -> Optional[str]:
        return self._ran.description

    def tell(self) -> None:
        """Only names the method that TestCase asks for."""

    def run(self, result: Any = None) -> None:
        """Tell the result what became of the test."""
        result.startTest(self)
        for add, texts in ((result.addError, self._ran.errors),
                           (result.addFailure, self._ran.failures)):
            for text in texts:
                add(self, (SaidElsewhere, SaidElsewhere("\n" + text), None))
        for reason in self._ran.skipped:
            result.addSkip(self, reason)
        if not (self._ran.errors or self._ran.failures or self._ran.skipped):
            result.addSuccess(self)
        if hasattr(result, "addDuration"):          # from 3.12 on
            result.addDuration(self, self._ran.duration_s)
        result.stopTest(self)


def run_module(name: str, patterns: Optional[Sequence[str]] = None) -> list[Ran]:
    """Run the tests of a module in this process. patterns: those of unittest's -k."""
    loader, result = unittest.TestLoader(), Collected()
    loader.testNamePatterns = patterns
    loader.loadTestsFromName(name).run(result)
    return result.rest()


class Suite(unittest.TestSuite):
    """The tests of modules, run side by side. names: of modules that other processes can import."""

    def __init__(self, names: Sequence[str], patterns: Optional[Sequence[str]] = None) -> None:
        super().__init__()
        self.names, self._patterns = names, patterns

    def run(self, result: Any, debug: bool = False) -> Any:
        """Run them all; a result that wants to stop after a failure gets no further module."""
        with concurrent.futures.ProcessPoolExecutor(
                min(processors(), len(self.names)),
                # What a process inherits by fork, locks and threads, would be the parent's.
                multiprocessing.get_context("spawn")) as pool:
            asked = {pool.submit(run_module, name, self._patterns): name for name in self.names}
            for module in concurrent.futures.as_completed(asked):
                for ran in _ran_of(module, asked[module]):
                    Stub(ran).run(result)
                if result.shouldStop:
                    for other in asked:
                        other.cancel()
                    break
        return result


def _ran_of(module: concurrent.futures.Future[list[Ran]], name: str) -> list[Ran]:
    """What a module came to; a process that died is an error of its module."""
    try:
        return module.result()
    except concurrent.futures.process.BrokenProcessPool as error:
        return [Ran(name, None, 0.0, [f"its process died: {error}"], [], [])]
