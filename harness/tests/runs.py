"""Runs for the tests: the runner, in this process or as a child, against the embedded endpoint."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import subprocess
import sys
import unittest
from pathlib import Path
from typing import Any, NamedTuple, Optional, Sequence

import run_benchmark
from core import ledger

HARNESS = Path(run_benchmark.__file__).resolve().parent
LIMIT_S = 60                  # for a child: far beyond what it needs on a busy machine
# A model so fast, and answers so short, that a run takes no longer than it has to.
MODEL = "swift"
QUICK = ("--no-calibration", "--num-predict", "4")


class Endpoint:
    """The embedded endpoint in a child process.

    flags: its own, instead of one fast model. bounds: constants of the program to change.
    """

    def __init__(self, *flags: str, bounds: Optional[dict[str, int]] = None):
        program = [str(HARNESS / "reference_endpoint.py")]
        if bounds:
            program = ["-c", "import sys, reference_endpoint as program\n"
                       f"vars(program).update({bounds!r})\nsys.exit(program.main())"]
        flags = flags or ("--models", f"{MODEL}:5000", "--first-token-ms", "1")
        self.process = subprocess.Popen(
            [sys.executable, *program, *flags], cwd=HARNESS, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        self.ready = json.loads(self.process.stdout.readline())
        self.port = self.ready["port"]
        self.url = f"http://127.0.0.1:{self.port}"

    def close(self) -> None:
        """End it; what it was doing is dropped."""
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()

    def __enter__(self) -> Endpoint:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()


class Outcome(NamedTuple):
    """What a call of the program came to."""

    code: Any
    out: str
    err: str

    @property
    def document(self) -> Any:
        """Standard output as one JSON document."""
        return json.loads(self.out)


posix_only = unittest.skipUnless(os.name == "posix", "Windows has no such signals, links or pipes")


def run(*words: str, environment: Optional[dict[str, str]] = None) -> Outcome:
    """The runner's main in this process."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = run_benchmark.main(words, environment or {})
        except SystemExit as ended:
            code = ended.code
    return Outcome(code, out.getvalue(), err.getvalue())


def start(*words: str, harness: Path = HARNESS, prelude: str = "", **options: Any
          ) -> subprocess.Popen[str]:
    """The runner as a child process, in a session of its own. prelude: code that it runs first."""
    program = [str(harness / "run_benchmark.py")]
    if prelude:
        program = ["-c", f"import sys\nsys.path.insert(0, {str(harness)!r})\n{prelude}\n"
                   "import run_benchmark\nsys.exit(run_benchmark.main())"]
    return subprocess.Popen(
        [sys.executable, *program, *words], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True, start_new_session=True, **options)


def ended(process: subprocess.Popen[str]) -> Outcome:
    """What a child came to."""
    out, err = process.communicate(timeout=LIMIT_S)
    if os.name == "nt":                       # Python has another name there
        out, err = (re.sub(r"\b(python|py) harness/", "python3 harness/", text)
                    for text in (out, err))
    return Outcome(process.returncode, out, err)


def folder_of(out_dir: str, run_id: str) -> str:
    """The folder of a run that exists."""
    found = ledger.find_run(out_dir, run_id)
    assert found is not None, f"no run {run_id} below {out_dir}"
    return found


def events_of(folder: str) -> list[dict[str, Any]]:
    """The lines of a run's ledger."""
    return ledger.load_run(folder)[1].events


def names(events: Sequence[dict[str, Any]]) -> list[str]:
    """The kinds of ledger lines but for the host's samples, which come by the clock."""
    return [event["event"] for event in events if event["event"] != "host_sampled"]
