"""Run the runbook's runnable blocks line by line in a copy of the repository.

The blocks of section 1 are the path; those of other sections run before its last step. `walk` fills
in the placeholders as an agent does. `adapted` makes the other changes: the probe gets the
endpoint's URL, since a usual port may be in use, the check accepts a rehearsal, and with `hurry`
the run is short.

    Clone.shell       runs a line in a real shell
    Clone.session     the same faster: the programs' main functions, all in one process
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable, NamedTuple, Optional

from tests import documents

LEFT_OUT = shutil.ignore_patterns(".git", ".*_cache", ".hypothesis", ".venv", "data", "outside")
LIMIT_S = 600
HANDLE, TAG = "octocat", "rehearsal-box-1c"
STILL_RUNNING, MISSING = 5, 1         # exit codes
RUN = "python3 harness/run_benchmark.py"

# Reads one [program, arguments, standard input] per line; prints [code, output, errors].
SESSION = """
import contextlib, importlib, io, json, sys
sys.path.insert(0, "harness")
for line in sys.stdin:
    name, words, data = json.loads(line)
    out, err = io.StringIO(), io.StringIO()
    sys.stdin = io.TextIOWrapper(io.BytesIO(data.encode()), "utf-8")
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = importlib.import_module(name).main(words)
        except SystemExit as ended:
            code = ended.code
    print(json.dumps([code, out.getvalue(), err.getvalue()]), flush=True)
"""


class Step(NamedTuple):
    """A line of the runbook as it was run, and its result."""

    line: str
    code: int
    out: str
    err: str


class Clone:
    """A copy of this tree as a repository with one commit. folder: must not exist."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        home = folder.with_name(folder.name + "-home")
        home.mkdir(parents=True)
        self.environment = {
            "PATH": os.environ.get("PATH", os.defpath), "HOME": str(home), "TMPDIR": str(home),
            "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_AUTHOR_NAME": "Octo", "GIT_AUTHOR_EMAIL": "octo@users.example",
            "GIT_COMMITTER_NAME": "Octo", "GIT_COMMITTER_EMAIL": "octo@users.example"}
        self._child: Optional[subprocess.Popen[str]] = None
        shutil.copytree(documents.ROOT, folder, ignore=LEFT_OUT)
        for line in ("git init --quiet", "git add .", "git commit --quiet -m Begin"):
            done = self.session(line)
            if done.code:
                raise OSError(f"{line}: {done.err}")
        self.base = self.session("git rev-parse HEAD").out.strip()

    def close(self) -> None:
        """End the process of the session."""
        if self._child:
            self._child.communicate()

    def shell(self, line: str) -> Step:
        """Run a line in a shell at the top of the copy, with this Python as python3."""
        typed = re.sub(r"\bpython3(?= harness/)", lambda _: shlex.quote(sys.executable), line)
        return self._done(line, ["sh", "-c", typed])

    def session(self, line: str) -> Step:
        """Run a line without a shell, and the harness's programs without new processes."""
        out, step = "", Step(line, 0, "", "")
        for words in documents.simple_commands(line):
            if words[0] == "python3":
                name = Path(words[1]).stem
                step = Step(line, *self._main(name, words[2:], step.out))
            else:
                step = self._done(line, words)
            out += step.out
            if step.code:                 # as && does
                break
        return step._replace(out=out)

    def run_folder(self, run_id: str) -> Path:
        """The folder of a run, as the runbook names it."""
        return self.folder / "submissions" / HANDLE / TAG / f"run-{run_id}"

    def _done(self, line: str, words: list[str]) -> Step:
        done = subprocess.run(words, cwd=self.folder, env=self.environment, text=True,
                              stdin=subprocess.DEVNULL, capture_output=True, timeout=LIMIT_S)
        return Step(line, done.returncode, done.stdout, done.stderr)

    def _main(self, *call: Any) -> list[Any]:
        if self._child is None:
            self._child = subprocess.Popen(
                [sys.executable, "-c", SESSION], cwd=self.folder, env=self.environment, text=True,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._child.stdin and self._child.stdout
        self._child.stdin.write(json.dumps(call) + "\n")
        self._child.stdin.flush()
        found: list[Any] = json.loads(self._child.stdout.readline())
        return found


def filled(line: str, values: dict[str, str]) -> str:
    """The line with its placeholders filled in."""
    words = "|".join(sorted(values, key=len, reverse=True))
    return re.sub(rf"\b(?:{words})\b", lambda found: values[found[0]], line)


def adapted(line: str, hurry: bool) -> str:
    """The line as a rehearsal needs it."""
    if line == f"{RUN} --probe":
        line += " --target-url URL"
    line = line.replace("check_submission.py RUN_DIR",
                        "check_submission.py --allow-synthetic RUN_DIR")
    if hurry and line.startswith(RUN):
        line = line.replace("--phases all", "--phases hello,5q --num-predict 8 --no-calibration")
    if hurry and line == "python3 harness/hardware.py":
        line += " --no-bandwidth"
    return line


def allowed(line: str) -> tuple[int, ...]:
    """The exit codes after which the walk continues."""
    return (0, MISSING) if "complete_submission.py" in line else (0,)


def path() -> list[str]:
    """The lines in the order of the walk: those of later sections come before the attestation."""
    text = documents.read(documents.RUNBOOK)
    every, steps = (documents.runnable(part) for part in (text, documents.section(text, "1 ")))
    at = next(at for at, line in enumerate(steps) if "run_md.attestation=true" in line)
    return [*steps[:at], *every[len(steps):], *steps[at:]]


def walk(clone: Clone, type_in: Callable[[str], Step], url: str, model: str,
         hurry: bool = False) -> Iterator[Step]:
    """Run every line of the runnable blocks in order, up to the first that fails."""
    values = {"URL": url, "MODEL": model, "HANDLE": HANDLE, "TAG": TAG, "FLAGS": "--slots 4"}
    for line in path():
        typed = filled(adapted(line, hurry), values)
        step = type_in(typed)
        while step.code == STILL_RUNNING and " --wait " in line:
            step = type_in(typed)
        begun = re.match(r"run ([0-9a-f-]{36}) started in the background\n", step.out)
        if begun:
            values["ID"] = begun[1]
            values["RUN_DIR"] = os.path.relpath(clone.run_folder(begun[1]), clone.folder)
        yield step
        if step.code not in allowed(line):
            return
