"""Follow a run that another process makes (--wait), and stop it (--stop)."""
from __future__ import annotations

import contextlib
import dataclasses
import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from typing import Any, Callable

from core import files, ledger, plan, suites, throughput
from core.errors import HarnessError
from core.records import Manifest
from core.text import print_result, printable
from run import cli, end_of_run, estimates
from run.ledger_writer import STOP_SUFFIX
from run.manifest import inherit_options
from run.progress import Count, Progress, progress_bar

FOLLOW_EVERY_S = 0.5
STOP_WAIT_S = 30.0
STILL_RUNNING = 5                 # exit code


def follow(options: cli.Options, progress: Progress,
           suite_questions: Mapping[str, Sequence[suites.Question]],
           sleep: Callable[[float], None] = time.sleep,
           now_s: Callable[[], float] = time.monotonic) -> int:
    """Show a run's new calls until it ends or the time of --wait is up; return the exit code."""
    seconds, run = options.wait
    until_s = now_s() + cli.wait_seconds(options.wait)
    options, folder = _found(options, "--wait", run)
    path = os.path.join(folder, ledger.LEDGER)
    manifest, tail = ledger.manifest_of(folder), ledger.Tail(path)
    events = tail.new_events()
    manifest = plan.extended(manifest, events)
    count, shown = Count(plan.all_cells(manifest), None, {}), Shown(manifest["run_id"])
    for event in events:
        count.take(event)
        if progress.live or event["seq"] >= shown.seq:      # a terminal shows whole phases
            _show_event(event, count, progress)
    while True:
        ended = not files.is_locked(path)      # before the read, so that no last line is missed
        for event in tail.new_events():
            count.take(event)
            _show_event(event, count, progress)
        shown.keep(len(tail.events))
        progress.show(lambda _: f"{progress_bar(count.made, count.total())} calls")
        if ended:
            progress.end()
            shown.forget()
            resume = resume_command(options, manifest)
            return end_of_run.print_end(manifest, tail.events, folder, resume, options)
        if now_s() >= until_s:
            break
        sleep(FOLLOW_EVERY_S)
    progress.end()
    next_wait = cli.next_command(options, manifest["run_id"], seconds)
    paces = estimates.Paces(manifest, suite_questions)
    for event in tail.events:
        paces.take(event)
    left = count.left_cells()
    found = paces.estimate(left) if left else None
    state = f"still running: {count.made} of {count.total()} calls" + (
        "" if left else ", now testing the server's cache")
    load = throughput.HostLoad(tail.events)
    lost = sum(load.is_disturbed(*throughput.span_of(event)) for event in tail.events
               if event["event"] == "call_finished")
    if lost:
        state += f"\n{lost} of them will not count, because other programs use the processors; " \
                 "stop them if you can"
    if left:
        state += "\n" + estimates.estimate_line(found, manifest["timeout_s"], left=True)
    print_result(options.json, {"run_id": manifest["run_id"], "folder": folder,
                                "exit_code": STILL_RUNNING, "summary": None, "next": next_wait},
                 f"{state}\nnext: {next_wait}")
    return STILL_RUNNING


def _show_event(event: Any, count: Count, progress: Progress) -> None:
    if event["event"] == "call_finished":
        progress.call_ended(event, count.made, count.total())
    elif event["event"] == "phase_finished":
        progress.phase_ended(event)


def _found(options: cli.Options, option: str, run: str) -> tuple[cli.Options, str]:
    """(the options, the folder of a run); with its --out-dir if the run was given by its folder."""
    folder = ledger.find_run(options.out_dir, run)
    if folder is None:
        raise HarnessError(
            f"{option}: no run {printable(run)} in {printable(options.out_dir)}; pass its id and "
            "its --out-dir, or its folder. A run has no folder before its server has loaded")
    if folder == run:
        root = os.path.abspath(os.path.join(folder, "..", "..", ".."))
        options = dataclasses.replace(options, out_dir=root, given=options.given | {"out_dir"})
    return options, folder


class Shown:
    """How many lines of a run --wait has shown, kept in the temporary folder between two calls."""

    def __init__(self, run_id: str) -> None:
        self._path = os.path.join(tempfile.gettempdir(), f"run-{run_id}.seen")
        try:
            self.seq = int(files.read(self._path) or b"0")
        except (OSError, ValueError):
            self.seq = 0

    def keep(self, seq: int) -> None:
        """Remember that all lines below `seq` were shown."""
        if seq != self.seq:
            self.seq = seq
            with contextlib.suppress(OSError):
                files.write_whole(self._path, str(seq).encode())

    def forget(self) -> None:
        """Forget it, since the run has ended."""
        files.remove(self._path)


def resume_command(options: cli.Options, manifest: Manifest) -> str:
    """The command that resumes the run of a manifest in the background."""
    resume = cli.next_command(inherit_options(options, manifest), manifest["run_id"])
    return f"{resume} --detach"


def is_under_way(out_dir: str, run: str) -> bool:
    """Whether a process holds the run and has written its first line."""
    folder = ledger.find_run(out_dir, run)
    return (folder is not None and ledger.has_lines(folder)
            and files.is_locked(os.path.join(folder, ledger.LEDGER)))


def stop(options: cli.Options) -> int:
    """Ask the process of a run to stop, and wait until it has."""
    run = str(options.stop)
    options, folder = _found(options, "--stop", run)
    path = os.path.join(folder, ledger.LEDGER)
    if not files.is_locked(path):
        raise HarnessError(f"--stop: run {printable(run)} is not active")
    files.write_whole(path + STOP_SUFFIX, b"")
    until_s = time.monotonic() + STOP_WAIT_S
    while files.is_locked(path):
        if time.monotonic() > until_s:
            raise HarnessError(f"--stop: the run has not stopped within {STOP_WAIT_S:.0f} s; use "
                               "the same command again")
        time.sleep(FOLLOW_EVERY_S / 5)
    manifest = ledger.manifest_of(folder)
    following = resume_command(options, manifest)
    print_result(options.json, {"run_id": manifest["run_id"], "next": following},
                 f"stopped; no finished call is lost\nto resume: {following}")
    return 0
