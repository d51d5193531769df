"""Follow CLAUDE.md from a clone to a checked submission, in real time.

    PYTHONPATH=harness python3 harness/tests/outside/runbook_path.py

In a copy of this tree, every line of the runbook's runnable blocks runs in a shell, with all
phases, against the embedded endpoint at its default speed. Then the resulting commit is checked
against its base, as a maintainer does. Prints each line with its exit code; exit 1 if a line fails,
if the commit holds anything else, or if the check finds an error. (The check warns that the run
looks made up, which it is: the endpoint runs no model. The unit tests make the same walk with a
short run.)
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests import runbook, runs

MODEL = "reference-swift"
FILES = 5


def walked(clone: runbook.Clone, url: str) -> bool:
    """Run and print each line; whether the last one was reached and succeeded."""
    begun_s, steps = time.monotonic(), []
    for step in runbook.walk(clone, clone.shell, url, MODEL):
        now_s = time.monotonic()
        print(f"{now_s - begun_s:6.1f} s  exit {step.code}  {step.line}", flush=True)
        begun_s = now_s
        steps.append(step)
    expected = len(runbook.path())
    whole = len(steps) == expected and steps[-1].code in runbook.allowed(steps[-1].line)
    if not whole:
        print(steps[-1].out[-2000:], steps[-1].err[-2000:])
    return whole


def problems(clone: runbook.Clone) -> Iterator[str]:
    """Problems of the commit, as a maintainer sees them."""
    left = clone.shell("git status --porcelain").out
    if left:
        yield f"not committed: {left}"
    added = clone.shell(f"git diff --name-only {clone.base} HEAD").out.split()
    if len(added) != FILES or not all(
            name.startswith(f"submissions/{runbook.HANDLE}/{runbook.TAG}/") for name in added):
        yield f"committed: {added}"
    whole = (f"python3 harness/check_submission.py --json --base {clone.base} --head HEAD "
             f"--handle {runbook.HANDLE}")
    for finding in errors(clone, f"{whole} --allow-synthetic"):
        yield f"{finding['code']}: {finding['what']}"
    refused = [finding["code"] for finding in errors(clone, whole)]
    if refused != ["not-a-measurement"]:
        yield f"without --allow-synthetic it is refused for {refused or 'nothing'}"


def errors(clone: runbook.Clone, line: str) -> list[dict[str, Any]]:
    """The errors that a check finds."""
    found = json.loads(clone.shell(line).out)["findings"]
    return [finding for finding in found if finding["severity"] == "error"]


def main() -> int:
    with tempfile.TemporaryDirectory() as top, runs.Endpoint("--models", MODEL) as endpoint:
        clone = runbook.Clone(Path(top) / "clone")
        try:
            if not walked(clone, endpoint.url):
                return 1
            wrong = list(problems(clone))
        finally:
            clone.close()
    print("\n".join(wrong) or "a submission that the check accepts")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
