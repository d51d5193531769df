#!/usr/bin/env python3
"""Check submissions without running or trusting anything in them.

  python3 harness/check_submission.py submissions/you/mac-m1-8gb/run-...    one submission
  python3 harness/check_submission.py submissions                          all of them
  python3 harness/check_submission.py --privacy submissions/you            the grep before the push
  git diff origin/main... | python3 harness/check_submission.py --privacy -
  python3 harness/check_submission.py --answers submissions/you/...        what the model said
  python3 harness/check_submission.py --base origin/main --head HEAD --handle you

Everything that follows from something is made again and compared: hashes of the harness, the plan,
every request, every check and verdict, times that contain each other, metadata.json and run.md to
the last digit. Physics and signs of invention are warnings. What a careful forger makes up whole,
no check of files can tell from a run; that is what second runs are for.

With --base and --head the submissions are those that the commits between them add. They are read
from git's objects: nothing is checked out, and no program of the change is run.

exit codes: 0 no error; 1 errors; 2 usage.
"""
import sys

if sys.version_info < (3, 9):      # above all code that an older Python cannot run
    sys.exit("check_submission needs Python 3.9 or newer; this is " + sys.version.split()[0])

import argparse
import os
import time
import traceback
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Optional

from check import (
    copies,
    documents,
    findings,
    ledger_order,
    plausibility,
    privacy_scan,
    reading,
    sources,
)
from check.manifest import check_manifest, plan_problem, suites_here, suites_of
from core import names, release, result_tables
from core.errors import HarnessError
from core.text import Parser, print_safe, printable

Json = dict[str, Any]
MAX_CHANGED_FILES = 60        # of one pull request: twelve submissions
ALL_KEPT = 10_000             # of the grep's findings, each a line
FIRST_CHARACTERS, LAST_CHARACTERS = 110, 40      # of an answer that are shown


class Settings(NamedTuple):
    """What a check depends on besides the files. handle: whose folder it has to be."""

    released: Mapping[str, release.Release]
    allow_synthetic: bool = False
    handle: Optional[str] = None
    now_s: float = 0.0


class Parsed(NamedTuple):
    """The five files as far as they could be read."""

    manifest: Optional[Json]
    hardware: Optional[Json]
    metadata: Optional[Json]
    page: Optional[str]
    ledger: Optional[reading.Ledger]


# --- one submission ------------------------------------------------------------------------------
def check(submission: sources.Submission, settings: Settings, index: copies.Index, report: findings.Report) -> None:
    """Put everything that is wrong with a submission into the report; never raises."""
    notes = findings.Notes(report, submission.path)
    try:
        _check(submission, settings, index, notes)
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        notes.add("check-broken", f"{type(error).__name__} at {os.path.basename(last.filename)}:"
                                  f"{last.lineno}")


def _check(submission: sources.Submission, settings: Settings, index: copies.Index, notes: findings.Notes) -> None:
    handle = submission.parts[0]
    if settings.handle is not None and handle != settings.handle.lower():
        notes.add("handle-not-author", f"{handle} is not {settings.handle.lower()}")
    parsed = _parse(submission, notes)
    if parsed.manifest is not None:
        check_manifest(parsed.manifest, submission, settings.released,
                                  settings.allow_synthetic, notes.of("manifest.json"))
        documents.check_host_name(parsed.manifest, notes.of("manifest.json"))
        if parsed.ledger is not None:
            _check_run(parsed.manifest, parsed.ledger, parsed, settings, notes)
            _check_copy(submission, parsed.manifest, parsed.ledger.events, index, notes)
    _check_texts(parsed, notes)


def _parse(submission: sources.Submission, notes: findings.Notes) -> Parsed:
    def document(name: str) -> Optional[Json]:
        blob = submission.files.get(f"{name}.json")
        return blob and reading.document(blob, name, notes.of(f"{name}.json"))

    page, lines = submission.files.get("run.md"), submission.files.get("run.jsonl")
    return Parsed(document("manifest"), document("hardware"), document("metadata"),
                  page and reading.page(page, notes.of("run.md")),
                  lines and reading.read_ledger(lines, notes.of("run.jsonl")))


def _check_run(manifest: Json, ledger: reading.Ledger, parsed: Parsed, settings: Settings,
               notes: findings.Notes) -> None:
    suites = suites_of(manifest)
    problem = plan_problem(manifest, suites)
    if problem:
        notes.of("manifest.json").add(*problem)
        return
    if suites is None:
        notes.of("manifest.json").add("suite-not-here", "their hashes are others")
    ledger_order.walk(manifest, ledger.events, ledger.seals, suites, notes.of("run.jsonl"))
    ledger_order.clocks(manifest, ledger.events, settings.now_s, notes.of("run.jsonl"))
    hardware, metadata = parsed.hardware, parsed.metadata
    if hardware is None:
        return
    documents.check_hardware(manifest, hardware, notes.of("hardware.json"))
    documents.check_declared(hardware, notes.of("hardware.json"))
    if metadata is None:
        return
    documents.check_declared(metadata, notes.of("metadata.json"))
    documents.check_metadata(manifest, (ledger.events, ledger.sha256), hardware, metadata,
                              notes.of("metadata.json"))
    if parsed.page is not None:
        documents.check_page(manifest, metadata, hardware, ledger.events, parsed.page,
                              notes.of("run.md"))
    if [model["model"] for model in metadata["models"]] == manifest["models"]:
        for code, what in plausibility.problems(ledger.events, metadata, hardware):
            notes.of("run.jsonl").add(code, what)


def _check_copy(submission: sources.Submission, manifest: Json, events: Sequence[Json],
                index: copies.Index, notes: findings.Notes) -> None:
    sketch = copies.sketch(submission.path, submission.parts[0], manifest, events)
    for code, what in index.problems(sketch):
        notes.of("run.jsonl").add(code, what)
    index.add(sketch)


def _check_texts(parsed: Parsed, notes: findings.Notes) -> None:
    """Characters that hide and values that are private, in whatever could be read."""
    run_id = str((parsed.manifest or {}).get("run_id"))
    for name in ("manifest", "hardware", "metadata"):
        document, own = getattr(parsed, name), notes.of(f"{name}.json")
        if document is not None:
            documents.check_document(document, run_id, own)
    if parsed.page is not None:
        documents.check_page_text(parsed.page, run_id, notes.of("run.md"))
    known = {question.prompt for suite in suites_here().values() for question in suite}
    documents.check_lines(parsed.ledger.events if parsed.ledger else (), known, run_id,
                           notes.of("run.jsonl"))


# --- many ----------------------------------------------------------------------------------------
def check_all(submissions: Iterable[sources.Submission], settings: Settings, index: copies.Index,
              report: findings.Report) -> int:
    """Check one after the other; how many there were."""
    count = 0
    for submission in submissions:
        check(submission, settings, index, report)
        count += 1
    if not count:
        report.add("no-submission", ".", "nothing was found to check")
    return count


def check_changes(repository: sources.Repository, base: str, head: str, settings: Settings,
                  report: findings.Report) -> int:
    """Check what the commits from base to head add; how many submissions. Raises Stop."""
    base_id, head_id = repository.commit(base), repository.commit(head)
    fork = repository.merge_base(base_id, head_id)
    changes = repository.changes(fork, head_id)
    if all(not change.path.startswith("submissions/")
           or change.path.startswith(sources.PROJECTS_OWN) for change in changes):
        report.add("no-submission", ".", f"none of {len(changes)} changed paths is of one")
        return 0
    if len(changes) > MAX_CHANGED_FILES:
        report.add("too-many-files", ".", f"{len(changes)} are changed, {MAX_CHANGED_FILES} are "
                                          "allowed")
        return 0
    found = list(sources.of_changes(repository, changes, report))
    return check_all(found, settings, _merged(repository, base_id), report) if found else 0


def _merged(repository: sources.Repository, base: str) -> copies.Index:
    """Every ledger that was merged already."""
    index = copies.Index()
    files = list(repository.files(base, "submissions", "run.jsonl"))
    sizes = repository.sizes_bytes([sha for _, sha in files])
    for path, sha in files:
        if sizes.get(sha, 0) <= sources.LIMITS_BYTES["run.jsonl"] and sha in sizes:
            index.add(copies.sketch_of_bytes(path, repository.read(sha)))
    return index


def grep(paths: Sequence[str], report: findings.Report) -> int:
    """--privacy: how many paths were looked at. Raises Stop."""
    searcher = privacy_scan.PrivacyScan(report, names.this_machine())
    for path in paths:
        if path == "-":
            searcher.stream("-", sys.stdin.buffer)
        else:
            searcher.path(path)
    return len(paths)


# --- what the models said ------------------------------------------------------------------------
def answers(paths: Sequence[str], report: findings.Report) -> list[str]:
    """--answers: how each call went and how its answer begins and ends, two lines each, escaped;
    what cannot be read goes into the report. Raises Stop."""
    lines = []
    for submission in sources.of_paths(paths, report):
        blob = submission.files.get("run.jsonl")
        notes = findings.Notes(report, submission.path).of("run.jsonl")
        found = blob and reading.read_ledger(blob, notes)
        calls = [event for event in found.events if event["event"] == "call_finished"] \
            if found else []
        lines.append(f"{printable(submission.path, 1000)}: {len(calls)} calls")
        for number, call in enumerate(calls, 1):
            lines += [result_tables.call_line(number, len(calls), call), "    " + _said(call["response"])]
    return lines


def _said(response: Optional[Json]) -> str:
    """How an answer ended, and its two ends on one line; what was thought where there is none."""
    text = " ".join((response["text"] if response else "").split())
    thought = " ".join((response["reasoning_text"] if response else "").split())
    shown = text or thought
    limit = FIRST_CHARACTERS + LAST_CHARACTERS
    if len(shown) > limit:
        shown = shown[:FIRST_CHARACTERS] + " [...] " + shown[-LAST_CHARACTERS:]
    ended = (response["finish_reason"] if response else None) or "no end"
    about = "" if text else "(only thinking) " if thought else "(no text)"
    return f"[{printable(ended, 20)}] {about}{printable(shown, limit + 10)}"


# --- command line --------------------------------------------------------------------------------
def build_parser() -> Parser:
    """The command line."""
    parser = Parser("check_submission", __doc__, "[options] [PATH ...]")
    add = parser.add_argument
    add("paths", nargs="*", metavar="PATH",
        help="folder of a submission, or one with submissions below it")
    add("--base", metavar="GITREF", help="commit into which a change is to be merged")
    add("--head", metavar="GITREF", help="last commit of the change")
    add("--git-dir", metavar="DIR",
        help="folder of the repository's objects (default: that of the current folder)")
    add("--handle", metavar="LOGIN",
        help="login whose submissions these have to be (default: anybody's)")
    add("--privacy", nargs="+", metavar="PATH",
        help="look for private values alone, in files, folders, or - for standard input; also for "
             "what this very machine and its user are called")
    add("--answers", nargs="+", metavar="PATH",
        help="show of each call how it went, [why the answer ended], and how it begins and ends, "
             "instead of checking")
    add("--allow-synthetic", action="store_true",
        help="let a rehearsal pass (default: it is an error)")
    add("--json", action="store_true", help="print one JSON document (default: a line a finding)")
    return parser


def refuse_combinations(args: argparse.Namespace) -> None:
    """Flags that exclude or need each other; raises Stop."""
    if (args.base is None) != (args.head is None):
        raise HarnessError("--base and --head belong together; type both")
    if args.git_dir and args.base is None:
        raise HarnessError("--git-dir is for --base and --head; type them, too")
    asked = [bool(args.paths), args.base is not None, args.privacy is not None,
             args.answers is not None]
    if sum(asked) != 1:
        raise HarnessError("type folders to check, or --base and --head, or --privacy or --answers and "
                   "where to look")
    if args.answers is not None and args.json:
        raise HarnessError("--answers has no --json, since run.jsonl is JSON itself; leave one of them out")


def run(args: argparse.Namespace, released: Mapping[str, release.Release],
        now_s: float) -> tuple[findings.Report, int]:
    """The report on what the flags ask for, and how many were checked; raises Stop."""
    refuse_combinations(args)
    settings = Settings(released, args.allow_synthetic, args.handle, now_s)
    if args.privacy is not None:
        report = findings.Report(ALL_KEPT)
        return report, grep(args.privacy, report)
    report = findings.Report()
    if args.base is None:
        return report, check_all(sources.of_paths(args.paths, report), settings, copies.Index(),
                                 report)
    repository = sources.Repository(args.git_dir)
    try:
        return report, check_changes(repository, args.base, args.head, settings, report)
    finally:
        repository.close()


def tell_answers(args: argparse.Namespace) -> int:
    """Print what --answers asks for, and what could not be read; the exit code. Raises Stop."""
    refuse_combinations(args)
    report = findings.Report()
    lines = answers(args.answers, report)
    print_safe("\n".join(lines or ["no submission was found there"]))
    if report.exit_code():
        print(report.text(0, "submission"), file=sys.stderr)
    return report.exit_code()


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run the program; the exit code."""
    args = build_parser().parse_args(argv)
    try:
        if args.answers is not None:
            return tell_answers(args)
        report, checked = run(args, release.known(), time.time())
    except HarnessError as stop:
        print(f"check_submission: {stop}", file=sys.stderr)
        return 2
    noun = "place" if args.privacy is not None else "submission"
    print_safe(report.json(checked) if args.json else report.text(checked, noun))
    return report.exit_code()


if __name__ == "__main__":
    sys.exit(main())
