"""Following a run that another process makes: its calls as they come, and how it has ended.

Reads the run's folder and sleeps; nothing here connects, stamps or writes.
"""
from __future__ import annotations

import argparse
import json
import os
import time
from typing import Any, Callable

import files
import flags
import ledger
import manifests
import phases
import report
from stops import Stop

LOOK_EVERY_S = 0.5
STILL_RUNNING = 5                 # exit code


def follow(args: argparse.Namespace, progress: report.Progress, canonical: dict[str, Any],
           sleep: Callable[[float], None] = time.sleep,
           now_s: Callable[[], float] = time.monotonic) -> int:
    """Tell a run's new calls until it ends (its exit code) or the time is up (5); raises Stop.

    args: parsed, with SECONDS and RUN in `wait`; canonical: the runner's CANONICAL_OPTIONS.
    """
    until_s, run = now_s() + flags.wait_seconds(args), args.wait[1]
    folder = _folder_of(args, run)
    path = os.path.join(folder, ledger.LEDGER)
    manifest, tail = ledger.manifest_of(folder), ledger.Tail(path)
    follower = report.Follower(progress, len(phases.all_cells(manifest)))
    follower.pass_by(tail.new_events())
    while True:
        over = not files.is_locked(path)     # asked first: what ends meanwhile is read whole
        follower.tell(tail.new_events())
        if over:
            return report.tell_end(manifest, tail.events, folder,
                                   _resume_of(args, canonical, manifest), args.json)
        if now_s() >= until_s:
            _tell_running(args, manifest, folder, follower)
            return STILL_RUNNING
        sleep(LOOK_EVERY_S)


def is_under_way(out_dir: str, run: str) -> bool:
    """Whether a process has taken a run up and a line of it is written."""
    folder = ledger.find_run(out_dir, run)
    return (folder is not None and ledger.has_lines(folder)
            and files.is_locked(os.path.join(folder, ledger.LEDGER)))


def _folder_of(args: argparse.Namespace, run: str) -> str:
    """Where the run is; a folder that was named tells its --out-dir, too."""
    folder = ledger.find_run(args.out_dir, run)
    if folder is None:
        raise Stop(f"--wait: no run {report.printable(run)} below {report.printable(args.out_dir)} "
                   "(one whose server still loads has no folder yet); type its id or its folder, "
                   "and --out-dir where it had one")
    if folder == run:
        args.out_dir, args.out_dir_typed = os.path.join(folder, "..", "..", ".."), True
        args.out_dir = os.path.abspath(args.out_dir)
    return folder


def _resume_of(args: argparse.Namespace, canonical: dict[str, Any],
               manifest: dict[str, Any]) -> str:
    """The command that goes on with the run; of another machine's endpoint the URL is not known."""
    manifests.adopt(args, manifest)
    if not args.rehearse:
        args.target_url = args.target_url or "URL"
    return flags.resume_command(args, canonical, manifest["run_id"])


def _tell_running(args: argparse.Namespace, manifest: dict[str, Any], folder: str,
                  follower: report.Follower) -> None:
    command = flags.wait_command(args, args.wait[0], manifest["run_id"])
    report.out(json.dumps({"run_id": manifest["run_id"], "folder": folder,
                           "exit_code": STILL_RUNNING, "summary": None, "next": command})
               if args.json else f"still running: {follower.text()}\nnext: {command}")
