"""Is anything ever lost? Runs that are killed at random moments and resumed, and ledgers cut short.

    python3 harness/tests/kill_and_resume.py [COUNT] [SEED]

Kills a run against the embedded endpoint COUNT times (200) with SIGKILL: at moments spread over all
of it, and at its beginning, while manifest and first line are written. After each kill, and after
each resume, the run's folder is read and held against everything that a run promises. Then finished
ledgers are cut at every byte of their last three lines, and resumed. Prints what was done, and one
line for each broken promise; exit 1 when there was any. The seed decides when is killed, as exactly
as a machine's own pace allows.
"""

from __future__ import annotations

import base64
import concurrent.futures
import contextlib
import functools
import hashlib
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path
from typing import Any, Iterator, NamedTuple, Optional, Sequence
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from complete import metadata
from core import files, ledger, plan, release
from core import suites as suitess
from engines import answers
from machine import gauges as machine_gauges
from tests import runs

KILLS = 200
WORKERS = 2
BEGINNING_SHARE = 0.4         # of the kills hit the first moments of a process
BEGINNING_S = 0.03            # so far from the usual moment at which a process opens its ledger
FOLDER_S = 0.006              # a new run's manifest and first line come so soon after its folder
PHASES = "5q,parallel_same,edge_append,depth"      # ramp, which takes longer: random_resumes.py
# Answers of four tokens, and a context that the conversation of edge_append soon fills. No level of
# depth fits in it.
ENDPOINT = ("--models", "swift:2000", "--first-token-ms", "1", "--context", "600")
FLAGS = (*runs.QUICK, "--models", "swift", "--phases", PHASES)

Json = dict[str, Any]


class Snapshot(NamedTuple):
    """A run's folder as a killed process left it: the bytes of whole lines, and of a torn one."""

    whole: bytes
    torn: bytes
    manifest: Optional[bytes]


def look(folder: Optional[str]) -> Snapshot:
    """What is there now."""
    if folder is None:
        return Snapshot(b"", b"", None)
    state = ledger.read_ledger(os.path.join(folder, ledger.LEDGER))
    data = _bytes_of(folder, ledger.LEDGER) or b""
    return Snapshot(data[:state.whole_bytes], state.torn, _bytes_of(folder, ledger.MANIFEST))


def _bytes_of(folder: str, name: str) -> Optional[bytes]:
    try:
        return (Path(folder) / name).read_bytes()
    except FileNotFoundError:
        return None


# --- what a run promises -------------------------------------------------------------------------
def broken_promises(folder: str, before: Snapshot, retried: set[int]) -> Iterator[str]:
    """Everything that is wrong with a run's folder, whatever happened to its processes.

    before: the folder some time ago; retried: segments that were begun with --retry-failed.
    """
    now = look(folder)
    yield from lost(before, now)
    if now.manifest is not None or now.whole:           # else it was killed before anything
        manifest, state = ledger.load_run(folder)       # shapes, seq, the tie to the manifest
        yield from wrong_run(folder, manifest, state, retried)


def lost(before: Snapshot, now: Snapshot) -> Iterator[str]:
    """What was on disk stays as it is."""
    if not now.whole.startswith(before.whole):
        yield "lines that were on disk are gone or changed"
    if before.manifest is not None and now.manifest != before.manifest:
        yield "manifest.json was written twice"


def wrong_run(folder: str, manifest: Json, state: ledger.LedgerState,
              retried: set[int]) -> Iterator[str]:
    """What no ledger may say, however often its run was killed."""
    yield from _wrong_segments(state.events)
    yield from _asked_twice(state.events, retried)
    yield from _wrong_conversations(state.events)
    yield from _wrong_end(folder, manifest, state)


def _wrong_segments(events: Sequence[Json]) -> Iterator[str]:
    last = (-1, 0)
    for event in events:
        at, first = (event["segment"], event["t_us"]), event["event"] in ("run_started",
                                                                          "run_resumed")
        if at < last or at[0] - last[0] not in (0, 1) or first != (at[0] > last[0]):
            yield f"line {event['seq'] + 1}: segment {at[0]} at {at[1]} us follows {last}"
        last = at


def _asked_twice(events: Sequence[Json], retried: set[int]) -> Iterator[str]:
    outcomes: dict[str, str] = {}
    for event in events:
        if event["event"] == "call_finished":
            cell, earlier = event["cell_id"], outcomes.get(event["cell_id"])
            if earlier == "ok" or earlier is not None and event["segment"] not in retried:
                yield f"{cell} was asked again after {earlier}"
            outcomes[cell] = event["outcome"]


def _wrong_conversations(events: Sequence[Json]) -> Iterator[str]:
    """A conversation is made of its own earlier turns, whichever process heard them."""
    suite = edge_suite()
    history: list[tuple[str, str]] = []
    salts, edge = set(), False
    for event in events:
        if event["event"] != "call_finished" or event["phase"] != "edge_append":
            continue
        question = suite[event["question_id"]]
        messages = plan.messages_of("edge_append", question, (), history)
        if any(event["request"][k] != v for k, v in plan.fingerprint(messages).items()):
            yield f"{event['cell_id']} was not asked with the turns before it"
        if edge and event["timing"] and event["question_id"] != edge:
            yield f"{event['cell_id']} was asked beyond the context's edge"
        if event["outcome"] == "ok":
            history.append((question.prompt, event["response"]["text"]))
            salts.add(event["request"]["salt"])
        elif event["timing"]:
            edge = event["question_id"]
    if len(salts) > 1:
        yield "a conversation has two salts"


@functools.lru_cache
def edge_suite() -> dict[str, suitess.Question]:
    """The questions of edge_append by their ids."""
    suites = suitess.load_suites()
    return {question.id: question for question in suites["edge_append"]}


def _wrong_end(folder: str, manifest: Json, state: ledger.LedgerState) -> Iterator[str]:
    """A finished run has every planned call, and seals what stands before its last line."""
    last = state.events[-1] if state.events else None
    if last is None or last["event"] != "run_finished":
        return
    data, missing = look(folder).whole, metadata.missing_cells(manifest, state.events)
    if missing:
        yield f"finished without {missing}"
    if last["sha256"] != hashlib.sha256(data[:data.rstrip().rindex(b"\n") + 1]).hexdigest():
        yield "the seal does not fit"
    if os.path.exists(os.path.join(folder, ledger.LEDGER + ".torn")) and not state.torn:
        yield "a torn line still lies beside"
    finished = {(e["model"], e["phase"]) for e in state.events if e["event"] == "phase_finished"}
    planned = {("swift", entry["phase"]) for entry in manifest["plan"]["phases"]}
    if finished != planned:
        yield f"phases finished: {sorted(finished)}"



# --- kills ---------------------------------------------------------------------------------------
class Pace(NamedTuple):
    """Of a process that nobody kills: seconds until its folder is there, and until its end."""

    opening_s: float
    whole_s: float


class Bench:
    """A copy of the harness, so that nobody edits it meanwhile; an endpoint; a folder for runs."""

    def __init__(self, folder: str, seed: int, *flags: str) -> None:
        self.dice, self.flags = random.Random(seed), flags or FLAGS
        self.harness, self.out_dir = Path(folder, "harness"), os.path.join(folder, "out")
        shutil.copytree(runs.HARNESS, self.harness, ignore=shutil.ignore_patterns(
            "tests", "__pycache__"))
        self.endpoint = runs.Endpoint(*ENDPOINT)

    def close(self) -> None:
        """End the endpoint; the folder is the caller's."""
        self.endpoint.close()

    def new_id(self) -> str:
        """A run id that the seed decides."""
        return str(uuid.UUID(int=self.dice.getrandbits(128)))

    def start(self, run_id: str, *flags: str) -> subprocess.Popen[str]:
        """A process that begins a run, or goes on with it."""
        return runs.start("--target-url", self.endpoint.url, "--out-dir", self.out_dir, "--quiet",
                          "--run-id", run_id, *flags, harness=self.harness)

    def find(self, run_id: str) -> Optional[str]:
        """The folder of a run, None before it has one."""
        return ledger.find_run(self.out_dir, run_id)

    def pace(self) -> Pace:
        """Measured with one run."""
        run_id, begun_s = self.new_id(), time.monotonic()
        process = self.start(run_id, *self.flags)
        while self.find(run_id) is None and process.poll() is None:
            time.sleep(0.001)
        opening_s = time.monotonic() - begun_s
        runs.ended(process)
        return Pace(opening_s, time.monotonic() - begun_s)


class Story:
    """One run, from its first process to its last line."""

    def __init__(self, bench: Bench, pace: Pace) -> None:
        self.bench, self.pace, self.dice = bench, pace, bench.dice
        self.run_id = bench.new_id()
        self.retried: set[int] = set()
        self.planted: list[bytes] = []
        self.before = look(None)
        self.findings: list[str] = []

    def go_on(self, kill: bool = True) -> Optional[str]:
        """One process of the run. What its kill met, or None where the run has ended."""
        process = self.bench.start(self.run_id, *self._flags())
        killed = kill and self._kill(process)
        outcome = runs.ended(process)
        self._check()
        folder = self.bench.find(self.run_id)
        if killed:
            met = _met(folder, self.before)
            self._tear(folder)
            return met
        if outcome.code not in (0, 1) or outcome.err:
            self._note(f"ended with {outcome.code}: {outcome.err[-500:]}")
        elif not self.before.whole.rstrip().rpartition(b"\n")[2].startswith(b'{"event":"run_fin'):
            self._note("ended without its last line")
        self._note_untold(folder)
        return None

    def _flags(self) -> Sequence[str]:
        """All flags, or, as soon as a manifest keeps them, what a resume command holds."""
        if self.before.manifest is None or self.dice.random() < 0.5:
            return self.bench.flags
        if self.dice.random() < 0.5:
            return ("--no-calibration",)
        folder = self.bench.find(self.run_id)
        events = ledger.read_ledger(os.path.join(folder or "", ledger.LEDGER)).events
        self.retried.add(events[-1]["segment"] + 1 if events else 0)
        return ("--no-calibration", "--retry-failed")

    def _kill(self, process: subprocess.Popen[str]) -> bool:
        """Whether the process was still there to be killed, at a random moment."""
        if self.dice.random() < BEGINNING_SHARE:
            wait_s = self.pace.opening_s + self.dice.uniform(-BEGINNING_S, BEGINNING_S)
            if self.bench.find(self.run_id) is None and self.dice.random() < 0.8:
                wait_s = self.dice.uniform(0, FOLDER_S)
                while self.bench.find(self.run_id) is None and process.poll() is None:
                    time.sleep(0.0005)
        else:
            wait_s = self.dice.uniform(0, self.pace.whole_s)
        try:
            process.wait(max(wait_s, 0))
            return False
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait() < 0

    def _tear(self, folder: Optional[str]) -> None:
        """Now and then leave what a crash of the whole machine leaves: the begin of a line."""
        if folder and self.before.whole and not self.before.torn and self.dice.random() < 0.3:
            piece = b'{"event":"call_finished","seq":%x' % self.dice.getrandbits(64)
            with open(os.path.join(folder, ledger.LEDGER), "ab") as file:
                file.write(piece)
            self.planted.append(piece)

    def _check(self) -> None:
        folder = self.bench.find(self.run_id)
        if folder is not None:
            try:
                for finding in broken_promises(folder, self.before, self.retried):
                    self._note(finding)
            except ledger.LedgerError as error:
                self._note(str(error))
            self.before = look(folder)

    def _note_untold(self, folder: Optional[str]) -> None:
        """Every torn line stands in the finished ledger, and once."""
        told = b"".join(base64.b64decode(event["torn_base64"] or "")
                        for event in runs.events_of(folder or "")
                        if event["event"] == "run_resumed")
        for piece in self.planted:
            if told.count(piece) != 1:
                self._note(f"a torn line is told {told.count(piece)} times")

    def _note(self, finding: str) -> None:
        self.findings.append(f"run {self.run_id}: {finding}")


def _met(folder: Optional[str], now: Snapshot) -> str:
    """What a kill met, for the summary."""
    if folder is None:
        return "before the folder"
    if now.manifest is None:
        return "before the manifest"
    if not now.whole:
        return "before the first line"
    last = now.whole.rstrip().rpartition(b"\n")[2]
    return "after the last line" if b'"run_finished"' in last[:30] else "between lines"


def kill_runs(count: int, seed: int, *flags: str) -> tuple[list[str], list[str]]:
    """(what each of `count` kills met, findings)."""
    met: list[str] = []
    findings: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(folder, seed, *flags)
        try:
            pace = bench.pace()
            while len(met) < count:
                story = Story(bench, pace)
                while len(met) < count and (one := story.go_on()):
                    met.append(one)
                story.go_on(kill=False)             # the last one may still be on its way
                findings += story.findings
        finally:
            bench.close()
    return met, findings


# --- cuts ----------------------------------------------------------------------------------------
def cell_outcomes(manifest: Json, events: Sequence[Json]) -> list[tuple[str, str]]:
    """(cell id, outcome) of every line of a planned call, sorted."""
    planned = {cell.cell_id for cell in plan.all_cells(manifest)}
    return sorted((event["cell_id"], event["outcome"]) for event in events
                  if event["event"] == "call_finished" and event["cell_id"] in planned)


class Cut:
    """A finished run, to be cut and resumed again and again."""

    def __init__(self, folder: str, *flags: str) -> None:
        self.endpoint = runs.Endpoint(*ENDPOINT)
        self.flags = ("--target-url", self.endpoint.url, "--no-calibration", "--quiet", "--out-dir")
        self.parent = folder
        outcome = runs.run(*self.flags, os.path.join(folder, "whole"), *flags)
        self.folder = str(next(Path(folder, "whole").glob("*/*/run-*")))
        self.data = _bytes_of(self.folder, ledger.LEDGER) or b""
        manifest, state = ledger.load_run(self.folder)
        self.code, self.cells = outcome.code, cell_outcomes(manifest, state.events)
        self.run_id = Path(self.folder).name[4:]

    def offsets(self, lines: int = 3) -> range:
        """Every place where the last lines may be cut; the end is no cut."""
        start = len(b"".join(self.data.splitlines(keepends=True)[:-lines]))
        return range(start, len(self.data))

    def findings(self, offset: int) -> Iterator[str]:
        """Cut there, resume, and hold the run against what it was."""
        out_dir = os.path.join(self.parent, "cut")
        folder = os.path.join(out_dir, os.path.relpath(self.folder, os.path.join(self.parent,
                                                                                 "whole")))
        shutil.rmtree(out_dir, ignore_errors=True)
        shutil.copytree(self.folder, folder)
        path = Path(folder, ledger.LEDGER)
        path.write_bytes(self.data[:offset])
        outcome = runs.run(*self.flags, out_dir, "--run-id", self.run_id)
        if outcome.code != self.code:
            yield f"ended with {outcome.code}, not {self.code}: {outcome.err[-500:]}"
            return
        start = self.data.rfind(b"\n", 0, offset) + 1
        manifest, state = ledger.load_run(folder)
        yield from lost(Snapshot(self.data[:start], b"", None), look(folder))
        yield from wrong_run(folder, manifest, state, set())
        if cell_outcomes(manifest, state.events) != self.cells:
            yield "the cells are not the same"
        yield from self._wrong_resume(folder, state.events, start, offset)

    def _wrong_resume(self, folder: str, events: Sequence[Json], start: int,
                      offset: int) -> Iterator[str]:
        """What a cut line became: whole again, or told in `run_resumed`."""
        resumed = [event for event in events if event["event"] == "run_resumed"]
        whole = offset > start and self.data[offset:offset + 1] == b"\n"
        torn = b"" if whole else self.data[start:offset]
        told = [(base64.b64decode(event["torn_base64"] or ""), event["torn_bytes"],
                 event["newline_added"]) for event in resumed]
        if whole and offset == len(self.data) - 1:          # but for that newline it had ended
            wanted, kept = [], self.data
        else:
            wanted, kept = [(torn, len(torn), whole)], self.data[:offset + 1 if whole else start]
        if told != wanted:
            yield f"run_resumed tells {told}"
        if not (_bytes_of(folder, ledger.LEDGER) or b"").startswith(kept):
            yield "a whole line was lost"


@contextlib.contextmanager
def as_it_was(folder: str) -> Iterator[None]:
    """While it holds, harness, git and host count as what a finished run met, the server is asked
    only what it answers, and the disk is not waited for: all that costs time and breaks nothing."""
    manifest, state = ledger.load_run(folder)
    sample = next((e for e in state.events if e["event"] == "host_sampled"), {})
    gauges = {name: value for name, value in sample.items() if name not in ledger.COMMON_FIELDS}
    with mock.patch.multiple(release, current_hashes=lambda: manifest["files_sha256"],
                             git_state=lambda: manifest["git"]), \
            mock.patch.object(machine_gauges.Sampler, "sample", lambda *_, **_more: gauges), \
            mock.patch.object(answers, "PROBE_PATHS", ("/v1/models", "/version")), \
            mock.patch.object(files, "flush_to_disk", lambda _: None):
        yield


def cut_ledger(step: int, *flags: str) -> tuple[int, list[str]]:
    """(cuts made, findings) of a finished run's ledger, cut at each `step`-th offset."""
    with tempfile.TemporaryDirectory() as folder:
        cut = Cut(folder, *flags)
        try:
            offsets = cut.offsets()[::step]
            with as_it_was(cut.folder):
                return len(offsets), [f"cut at byte {offset} of {len(cut.data)}: {finding}"
                                      for offset in offsets for finding in cut.findings(offset)]
        finally:
            cut.endpoint.close()


# --- all of it -----------------------------------------------------------------------------------
def main(argv: Sequence[str]) -> int:
    """See above; the exit code."""
    count, seed = (int(word) for word in (*argv, *(str(KILLS), "1")[len(argv):]))
    begun_s = time.monotonic()
    with concurrent.futures.ProcessPoolExecutor(WORKERS) as pool:
        kills = [pool.submit(kill_runs, count // WORKERS + (i < count % WORKERS), seed + i)
                 for i in range(WORKERS)]
        cuttings = [pool.submit(cut_ledger, 1, *FLAGS), pool.submit(cut_ledger, 3, "--smoke")]
        met = [one for kill in kills for one in kill.result()[0]]
        findings = [f for job in (*kills, *cuttings) for f in job.result()[1]]
        cuts = sum(job.result()[0] for job in cuttings)
    print("\n".join(findings[:50]))
    counted = ", ".join(f"{met.count(one)} {one}" for one in sorted(set(met)))
    print(f"{len(met)} kills ({counted}), {cuts} cuts, {len(findings)} findings, "
          f"{time.monotonic() - begun_s:.0f} s, seed {seed}")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
