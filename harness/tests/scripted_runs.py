"""Runs of the runner against a scripted endpoint, and what they came to, as tests compare it.

    ran = run(endpoint)             a real run in this process: exit code, output, files, events
    told(call)                      a ledger's call without its times
    answer(...), failure(...)       what `told` is expected to be
    Failures.assert_rows(...)       many scripts in one run, each with what it comes to
"""
from __future__ import annotations

import contextlib
import io
import json
import tempfile
import unittest
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, Optional, Union
from unittest import mock

import prompts
import run_benchmark
from core import files, ledger, release, schema
from engines import answers
from machine import gauges, inventory
from run import retries
from tests.scripted_endpoint import (
    ANSWER,
    LIMIT_S,
    USAGE,
    Json,
    Request,
    Script,
    ScriptedEndpoint,
)

BODY_START = 500


# --- a run ---------------------------------------------------------------------------------------
class Ran(NamedTuple):
    """What a run came to. files: the bytes of everything it wrote, by name."""

    code: int
    out: str
    err: str
    files: dict[str, bytes]
    manifest: Optional[Json]
    events: list[Json]

    @property
    def calls(self) -> list[Json]:
        return [e for e in self.events if e["event"] == "call_finished"]

    @property
    def flags(self) -> dict[str, list[str]]:
        """Flags of every phase, of a run with --json."""
        return {cell["phase"]: cell["flags"] for cell in json.loads(self.out)["summary"]["cells"]}

    def only(self, kind: str) -> Json:
        (found,) = [e for e in self.events if e["event"] == kind]
        return found


def run(endpoint: Union[ScriptedEndpoint, str], *flags: str, phases: Optional[str] = "frozen",
        timeout_s: float = LIMIT_S, environment: Optional[dict[str, str]] = None,
        out_dir: Optional[str] = None) -> Ran:
    """A real run in this process, into a temporary folder of its own (or `out_dir`)."""
    with contextlib.ExitStack() as stack:
        folder = out_dir or stack.enter_context(tempfile.TemporaryDirectory())
        words = ["--target-url", endpoint if isinstance(endpoint, str) else endpoint.url,
                 "--out-dir", folder, "--no-calibration", "--timeout", str(timeout_s),
                 *(["--phases", phases] if phases else []), *flags]
        for patch in (*QUICK, only_probes_answered_by(endpoint)):
            stack.enter_context(patch)
        out, err = (stack.enter_context(redirect(io.StringIO())) for redirect in (
            contextlib.redirect_stdout, contextlib.redirect_stderr))
        try:
            code = run_benchmark.main(words, environment or {})
        except SystemExit as end:                       # argparse's own way out
            code = int(end.code or 0)
        return Ran(code, out.getvalue(), err.getvalue(), *left_in(folder))


# What is not tested here and takes its time: git's word on the checkout, the disk, this machine and
# the list of its processes, garbage of all earlier tests, and pauses between two looks.
QUICK = (mock.patch.object(files, "flush_to_disk", lambda _: None),
         mock.patch("gc.collect", lambda: 0),
         mock.patch.object(inventory, "inventory", lambda **_: inventory.assemble({})),
         mock.patch.object(gauges.Sampler, "_server_gauges", lambda _: None),
         mock.patch.object(release, "git_state", lambda: {"commit": None, "dirty": None}),
         mock.patch.object(run_benchmark, "LOADING_PAUSE_S", 0.01),
         mock.patch.object(retries, "RETRY_PAUSE_S", 0.01),
         mock.patch("shutil.which", lambda _: None))


def only_probes_answered_by(endpoint: Union[ScriptedEndpoint, str]) -> Any:
    """The runner's questions that would only be answered by a 404 are left out, for speed."""
    known = {*getattr(endpoint, "get", answers.PROBE_PATHS), "/v1/models"}
    paths = tuple(path for path in answers.PROBE_PATHS if path in known)
    return mock.patch.object(answers, "PROBE_PATHS", paths)


def left_in(folder: str) -> tuple[dict[str, bytes], Optional[Json], list[Json]]:
    """(files, manifest, events) that runs left in a folder, which have to read as they should."""
    paths = [path for path in sorted(Path(folder).rglob("*")) if path.is_file()]
    found = {path.name: path.read_bytes() for path in paths}
    if ledger.LEDGER not in found:
        return found, None, []
    run_folder = next(path.parent for path in paths if path.name == ledger.LEDGER)
    manifest, state = ledger.load_run(str(run_folder))
    assert not state.torn and not state.newline_missing, "the ledger's last line is broken"
    for line in found[ledger.LEDGER].splitlines():
        schema.strict_json(line)
    return found, manifest, state.events


# --- what a call came to, without times ----------------------------------------------------------
def told(call: Json) -> Json:
    """What a ledger line says of a call, but for times."""
    reply, timing = call["response"] or {}, call["timing"] or {}
    return {"outcome": call["outcome"], "error": call["error"],
            "attempts": [(one["kind"], one["status"]) for one in call["attempts"]],
            "status": reply.get("http_status"), "text": reply.get("text"),
            "reasoning": reply.get("reasoning_text"), "finish": reply.get("finish_reason"),
            "usage": reply.get("usage"), "chunks": len(timing.get("chunk_us") or ()),
            "flags": call["flags"]}


def answer(text: Optional[str] = "One two.", chunks: int = 2, **changed: Any) -> Json:
    """`told` of a call that has an answer; without more, of ANSWER."""
    return {"outcome": "ok", "error": None, "attempts": [], "status": 200, "text": text,
            "reasoning": "", "finish": "stop", "usage": USAGE, "chunks": chunks, "flags": [],
            **changed}


def failure(kind: str, message: str, status: Optional[int] = 200, body: bytes = b"",
            **changed: Any) -> Json:
    """`told` of a call that failed; body: what came of the response's body."""
    start = body.decode("utf-8", "replace")[:BODY_START] or None
    came = None if status is None else ""
    return {"outcome": kind, "error": {"kind": kind, "message": message, "status": status,
                                       "body_start": start},
            "attempts": [], "status": status, "text": came, "reasoning": came, "finish": None,
            "usage": None, "chunks": 0, "flags": [], **changed}


Row = Union[Script, "list[Script]"]           # a list: one script for each attempt


def played(rows: Mapping[str, Row], *flags: str, lanes: int = 1,
           timeout_s: float = LIMIT_S, **options: Any) -> tuple[Ran, dict[str, Json]]:
    """A run whose first questions get the rows' scripts, and all others ANSWER; `told` of each row.

    With `lanes` all rows are played at once, which is what calls that end at their cap are for.
    """
    left, asked = list(rows), {}

    def choose(request: Request) -> Script:
        prompt = request.json["messages"][-1]["content"].partition("]\n")[2]
        if prompt not in asked and left and prompt != prompts.HELLO_PROMPT:
            asked[prompt] = left.pop(0)
        row = rows[asked[prompt]] if prompt in asked else ANSWER
        return row.pop(0) if isinstance(row, list) else row

    phase = "20q" if lanes == 1 else "parallel_same"
    with ScriptedEndpoint(then=choose) as endpoint:
        ran = run(endpoint, *flags, *(["--lanes", str(lanes)] if lanes > 1 else []), phases=phase,
                  timeout_s=timeout_s, **options)
    return ran, {asked[call["request"]["prompt"]]: told(call) for call in ran.calls
                 if call["request"]["prompt"] in asked}


class Failures(unittest.TestCase):
    """What the tests of this folder share."""

    maxDiff = None

    def assert_rows(self, rows: Mapping[str, Row], expected: Mapping[str, Json],
                    *flags: str, **options: Any) -> Ran:
        """Every row came to what is expected, and the run went on to its end."""
        ran, found = played(rows, *flags, **options)
        self.assertEqual({**found}, {**expected})
        failed = sum(one["outcome"] != "ok" for one in expected.values())
        last = ran.events[-1]
        self.assertEqual((last["event"], ran.code, sum(last["counts"].values())),
                         ("run_finished", int(failed > 0), 21))
        self.assertEqual(last["counts"].get("ok", 0), 21 - failed)
        return ran

    def assert_refused(self, ran: Ran, code: int, line: str) -> None:
        """The program ended with one line, before it wrote anything."""
        self.assertEqual((ran.code, ran.err, ran.out, ran.files),
                         (code, f"run_benchmark: {line}\n", "", {}))
