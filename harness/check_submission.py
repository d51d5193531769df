#!/usr/bin/env python3
"""Check submissions without running or trusting anything in them.

  python3 harness/check_submission.py submissions/you/mac-m1-8gb/run-...    one submission
  python3 harness/check_submission.py submissions                          all submissions
  python3 harness/check_submission.py --privacy submissions/you            private values only
  git diff origin/main... | python3 harness/check_submission.py --privacy -
  python3 harness/check_submission.py --answers submissions/you/...        what the models answered
  python3 harness/check_submission.py --privacy --texts submissions/you    and texts of JSON files
  git switch main && git fetch origin pull/NUMBER/head                     then, for its author:
  python3 harness/check_submission.py --base main --head FETCH_HEAD --handle LOGIN
  python3 harness/check_submission.py --explain CODE                       what a finding means

The check recomputes what follows from the evidence and compares it: hashes of the harness, the
plan, requests, answer checks, the order of timestamps, and every digit of metadata.json and run.md.
Implausible speed and signs of invented data are warnings. No check of files can recognise a run
that a careful forger invents as a whole; only a second, independent run can reveal it.

With --base and --head it checks the submissions that the commits between them add. It reads them
as git objects: it checks out nothing and runs no program of the change. Run the program
from a checkout of the base: a checkout of the change can hold another program.

exit codes: 0 no error; 1 errors; 2 wrong usage.
"""
import sys

if sys.version_info < (3, 9):      # above all code that an older Python cannot run
    sys.exit("check_submission needs Python 3.9 or newer; this is " + sys.version.split()[0])

import argparse
import difflib
import io
import os
import re
import time
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from typing import Optional

from check import copies, corrections, findings, parsing, privacy_scan, submission_files
from check.submission import Settings, check
from complete.metadata import values
from core import challenge, files, metrics, names, privacy, release, result_tables
from core import ledger as ledger_file
from core.errors import HarnessError
from core.metric_definitions import METRICS
from core.records import Response
from core.text import (
    Parser,
    command,
    format_number,
    print_error,
    print_safe,
    print_text,
    printable,
    readable,
    shell_word,
    terminal_width,
)
from run import plan_and_probe

SUBMISSIONS = str(release.HERE.parent / "submissions")
MAX_CHANGED_FILES = 25        # of one pull request: five submissions
MAX_VERSIONS = 250            # of files, in its earlier commits
MAX_VERSIONS_BYTES = 64 * submission_files.MIB
PROGRAMS = ("harness/", ".ci/", ".github/")
KEPT_BY_PRIVACY = 10_000      # findings of --privacy that are listed
FIRST_CHARACTERS, LAST_CHARACTERS = 80, 30       # of an answer, printed by --answers
# Keys whose texts the programs choose among their own, left out by --texts.
OWN_TEXTS = {*METRICS, "class", "error_source", "files_sha256", "flags", "harness_version",
             "method", "phase", "policy", "question_ids", "run_flags", "schema_version", "scheme",
             "source", "stamp", "suite_file"}


# --- many ----------------------------------------------------------------------------------------
def check_all(submissions: Iterable[submission_files.Submission], settings: Settings,
              index: copies.Index,
              report: findings.Report) -> int:
    """Check all submissions; return their number."""
    count = 0
    for submission in submissions:
        check(submission, settings, index, report)
        count += 1
    if not count:
        report.add("no-submission", ".", "nothing was found to check")
    return count


def check_changes(repository: submission_files.Repository, base: str, head: str, settings: Settings,
                  report: findings.Report) -> int:
    """Check the submissions that the commits from base to head add; return their number. Raises
    HarnessError."""
    base_id, head_id = repository.commit(base), repository.commit(head)
    if base_id == head_id:
        raise HarnessError("--base and --head are the same commit, so there is nothing to check; "
                           "git fetch origin pull/NUMBER/head, then pass FETCH_HEAD to --head")
    start_id = repository.merge_base(base_id, head_id)
    changes = repository.changes(start_id, head_id)
    private = [author for author in repository.authors(start_id, head_id)
               if privacy.scan(author)]
    if private:
        report.add("author-published", ".", f"{len(private)} authors or lines of messages of "
                                            "commits have private values")
    for change in changes:
        if change.path == corrections.PATH:
            check_corrections(repository, start_id, head_id, change, report)
    check_versions(repository, repository.all_changes(start_id, head_id),
                   {change.sha for change in changes}, report)
    if all(not change.path.lower().startswith("submissions/")
           or change.path.startswith(submission_files.PROJECTS_OWN) for change in changes):
        report.add("no-submission", ".", f"none of the {len(changes)} changed paths is in a "
                                         "submission")
        return 0
    if len(changes) > MAX_CHANGED_FILES:
        report.add("too-many-files", ".", f"{len(changes)} files are changed; at most "
                                          f"{MAX_CHANGED_FILES} are allowed")
        return 0
    index = index_of(repository, base_id, settings.signatures)
    found = list(submission_files.of_changes(repository, changes, report))
    return check_all(found, settings._replace(repository=repository), index,
                     report) if found else 0


def check_versions(repository: submission_files.Repository,
                   versions: Iterable[submission_files.Change], last: Container[str],
                   report: findings.Report) -> None:
    """Search the versions of files that a later commit of the change changed or removed, since they
    stay public. last: objects of the change as a whole. Programs have examples of private text."""
    earlier = sorted({(one.path, one.sha) for one in versions
                      if one.status != "D" and one.mode != "160000" and one.sha not in last
                      and not one.path.startswith(PROGRAMS)})
    sizes_bytes = repository.sizes_bytes([sha for _, sha in earlier])
    if len(earlier) > MAX_VERSIONS or sum(sizes_bytes.values()) > MAX_VERSIONS_BYTES:
        report.add("too-many-files", ".", f"commits change or remove {len(earlier)} versions of "
                                          "files that earlier ones added; make one commit of all")
        return
    found = findings.Report(MAX_VERSIONS)
    for path, sha in earlier:
        if sha in sizes_bytes:
            privacy_scan.PrivacyScan(found, ()).stream(path, io.BytesIO(repository.read(sha)))
        else:
            report.add("file-unreadable", path, "an earlier version is missing in this clone")
    for one in found.findings():
        if one.severity == findings.ERROR:
            report.add("private-history", one.path, one.what, one.line, one.place)


def index_of(repository: submission_files.Repository, base: str,
             known: Optional[bytes]) -> copies.Index:
    """Sketches of all ledgers that are merged at a commit. known: an index of an earlier commit,
    whose ledgers are not read again. Raises HarnessError."""
    commit, index = copies.Index.from_bytes(known)
    if commit is None:
        merged = list(repository.files(base, "submissions", "run.jsonl"))
    else:
        merged = [(change.path, change.sha)
                  for change in repository.changes(repository.commit(commit), base)
                  if change.status == "A" and change.path.startswith("submissions/")
                  and change.path.endswith("/run.jsonl")]
    sizes_bytes = repository.sizes_bytes([sha for _, sha in merged])
    missing = [path for path, sha in merged if sha not in sizes_bytes]
    if missing:                    # their copies would pass
        raise HarnessError(f"{len(missing)} merged ledgers are missing in this clone, among them "
                           f"{printable(missing[0], 300)}; fetch them")
    for path, sha in merged:
        if sizes_bytes[sha] <= submission_files.LIMITS_BYTES["run.jsonl"]:
            index.add(copies.sketch(path, repository.read(sha).split(b"\n")))
    index.doubted = frozenset().union(*(
        corrections.doubted_in(repository.read(sha))
        for path, sha in repository.files(base, "submissions", "CORRECTIONS.json")
        if path == corrections.PATH))
    return index


def check_corrections(repository: submission_files.Repository, start: str, head: str,
                      change: submission_files.Change, report: findings.Report) -> None:
    """Check a change of CORRECTIONS.json; the runs are those of the head."""
    notes = findings.Notes(report, corrections.PATH)
    if change.mode != "100644":
        notes.add("correction-invalid", f"git mode is {change.mode}; expected a plain file")
        return
    shas = [*(sha for path, sha in repository.files(start, "submissions", "CORRECTIONS.json")
              if path == corrections.PATH), change.sha]
    sizes = repository.sizes_bytes(shas)
    if any(sizes.get(sha, submission_files.MIB) >= submission_files.MIB for sha in shas):
        notes.add("file-too-large", "is missing in this clone, or larger than 1 MiB")
        return
    handles = {path.split("/")[-2][4:]: path.split("/")[1]
               for path, _ in repository.files(head, "submissions", "manifest.json")}
    *before, data = map(repository.read, shas)
    corrections.check(data, handles, notes)
    corrections.compare(before[0] if before else None, data, handles, notes)


def require_own_harness(repository: submission_files.Repository, args: argparse.Namespace) -> None:
    """Raise HarnessError unless this program is that of the base."""
    base, head = repository.commit(args.base), repository.commit(args.head)
    unlike = repository.differences(base, str(release.HERE))
    if unlike:
        given = {name: getattr(args, name.replace("-", "_")) for name in (
            "git-dir", "handle", "challenge", "index", "write-index", "allow-synthetic", "json")}
        words = [word for name, value in given.items() if value
                 for word in (f"--{name}", *([value] if value is not True else []))]
        raise HarnessError(
            f"this harness differs from that of --base ({printable(', '.join(unlike[:3]), 300)}"
            f"{f', and {len(unlike) - 3} more' if len(unlike) > 3 else ''}), so that it may be a "
            f"program of the change; use the base's:\n  git switch --detach {base}\n  "
            + command("check_submission", "--base", base, "--head", head, *words))


# --- answers -------------------------------------------------------------------------------------
def answers(paths: Sequence[str], report: findings.Report) -> list[str]:
    """--answers: a line per call: its tokens or error, and both ends of its answer, in any
    script, with what is not printable escaped. Raises HarnessError."""
    lines = []
    for submission in submission_files.of_paths(paths, report):
        blob = submission.files.get("run.jsonl")
        notes = findings.Notes(report, submission.path).of("run.jsonl")
        ledger = parsing.read_ledger(blob, notes) if blob else None
        calls = [event for event in (ledger.events if ledger else ())
                 if event["event"] == "call_finished"]
        lines.append(f"{printable(submission.path, 1000)}: {len(calls)} calls")
        for number, call in enumerate(calls, 1):
            head = result_tables.call_line(number, len(calls), call) if call["error"] else (
                f"{number}/{len(calls)}  {call['phase']}  {printable(call['question_id'])}  "
                f"{format_number(metrics.call_metrics(call)['output_tokens'])} tokens")
            lines.append(f"{head}  {_ends(call['response'])}")
            lines += [f"    looks private: {part}" for part in _private_parts(call["response"])]
    return lines


def _private_parts(response: Optional[Response]) -> Iterator[str]:
    """Each private value that the privacy check finds in an answer, once, with the text around."""
    shown = set[str]()
    for key in ("text", "reasoning_text"):
        text = response[key] if response else ""
        for hit in privacy_scan.hits_in(f"response.{key}", key, text, ()):
            value = text[hit.start:hit.end]
            if value not in shown:
                shown.add(value)
                yield readable(text[max(hit.start - 30, 0):hit.end + 30], 200)


def _ends(response: Optional[Response]) -> str:
    """Finish reason and both ends of an answer, or of its thinking if it has no text."""
    text = " ".join((response["text"] if response else "").split())
    shown = text or " ".join((response["reasoning_text"] if response else "").split())
    about = "" if text else "(only thinking) " if shown else "(no text)"
    limit = FIRST_CHARACTERS + LAST_CHARACTERS
    if len(shown) > limit:
        shown = shown[:FIRST_CHARACTERS] + " [...] " + shown[-LAST_CHARACTERS:]
    ended = (response["finish_reason"] if response else None) or "no end"
    return f"[{readable(ended, 20)}] {about}{readable(shown, limit + 10)}"


# --- texts of the documents ----------------------------------------------------------------------
def texts(paths: Sequence[str], report: findings.Report) -> list[str]:
    """--texts: each text in the JSON files of submissions that is not the programs' own, once, with
    the last part of its key."""
    lines = []
    for submission in submission_files.of_paths(paths, report):
        found = set[str]()
        for name in ("manifest", "hardware", "metadata"):
            blob = submission.files.get(f"{name}.json")
            notes = findings.Notes(report, submission.path).of(f"{name}.json")
            document = parsing.read_document(blob, name, notes) if blob else None
            why_null = {fact["reason"] for _, fact in values(document) if fact["value"] is None}
            found.update(f"{key}: {readable(text, 4000)}"
                         for path, key, text in privacy.strings(document)
                         if key and not OWN_TEXTS & {key, path.split(".")[0]}
                         and not (key == "reason" and text in why_null))
        lines += [f"{printable(submission.path, 1000)}: {len(found)} texts", *sorted(found)]
    return lines


# --- command line --------------------------------------------------------------------------------
def _folder(path: str) -> str:
    """A path, or the folder of the run in submissions/ that has this id."""
    return path if os.path.exists(path) else ledger_file.find_run(SUBMISSIONS, path) or path


def build_parser() -> Parser:
    """The command line."""
    parser = Parser("check_submission", __doc__, "[options] [PATH ...]")
    add = parser.add_argument
    add("paths", nargs="*", metavar="PATH", type=_folder,
        help="folder or id of a submission, or a folder with submissions")
    add("--base", metavar="GITREF", help="target commit of the merge")
    add("--head", metavar="GITREF", help="last commit of the change")
    add("--git-dir", metavar="DIR", help="git directory (default: that of the current folder)")
    add("--handle", metavar="LOGIN",
        help="accept only submissions of this GitHub login (default: any)")
    add("--challenge", metavar="TEXT",
        help="accept only runs that answered the questions made from this text (default: any run)")
    add("--index", metavar="FILE",
        help="compare with the signatures of merged runs in this file; with --base, their ledgers "
             "are then not read again")
    add("--write-index", metavar="FILE",
        help="write signatures of all runs merged at --head to FILE, and check nothing")
    add("--privacy", nargs="*", metavar="PATH", type=_folder,
        help="search files, folders or - (standard input) for private values, including the "
             "names of this machine and user")
    add("--answers", nargs="*", metavar="PATH", type=_folder,
        help="for each call, print its outcome, finish reason, and the start and end of its answer")
    add("--texts", nargs="*", metavar="PATH", type=_folder,
        help="print each text in manifest.json, hardware.json and metadata.json once; --answers, "
             "--texts and --privacy can be combined")
    add("--explain", nargs="?", const="", metavar="CODE",
        help="explain a finding code (default: all codes)")
    add("--allow-synthetic", action="store_true",
        help="accept a rehearsal (default: an error)")
    add("--json", action="store_true", help="print one JSON document (default: text)")
    return parser


def check_combination(args: argparse.Namespace) -> None:
    """Raise HarnessError for options that exclude or need each other."""
    if (args.base is None) != (args.head is None):
        raise HarnessError("--base and --head need each other; pass both")
    if args.write_index and args.base is None:
        raise HarnessError("--write-index needs --base and --head; pass them as well")
    if args.index and args.base is None and not args.paths:
        raise HarnessError("--index needs folders to check, or --base and --head; pass them")
    if args.challenge is not None and not challenge.TEXT.fullmatch(args.challenge):
        raise HarnessError(f"--challenge '{printable(args.challenge)}': not a text of 4 to 100 "
                           "letters, digits, blanks and ._:/#@-; pass the one of the pull request")
    if args.git_dir and args.base is None:
        raise HarnessError("--git-dir needs --base and --head; pass them as well")
    reviewed = review_paths(args)
    modes = (args.base, args.explain, reviewed)
    has_own = bool(args.paths) and reviewed is not args.paths
    if has_own + sum(mode is not None for mode in modes) != 1 or reviewed == []:
        raise HarnessError("pass either folders to check, or --base and --head, or --explain, or "
                           "--privacy, --answers and --texts with folders")
    if args.json and any(mode is not None for mode in (args.answers, args.texts, args.explain)):
        raise HarnessError("--answers, --texts and --explain have no --json; leave it out")


def review_paths(args: argparse.Namespace) -> Optional[list[str]]:
    """What --answers, --texts and --privacy look at, each at all paths, also those that are in
    front of them; None without these options."""
    given = [paths for paths in (args.answers, args.texts, args.privacy) if paths is not None]
    return sum(given, []) or args.paths if given else None


def next_lines(paths: Sequence[str]) -> list[str]:
    """Commands that commit accepted runs, typed at the top of the clone; [] for other folders."""
    places, lines = list[str](), list[str]()
    for path in map(os.path.abspath, paths):
        handle, tag, name = ["", "", *path.split(os.sep)][-3:]
        if not re.fullmatch(r"run-[0-9a-f-]{36}", name) or handle == submission_files.EXAMPLE[0]:
            return []
        places.append(f"submissions/{handle}/{tag}/{name}")
        if os.path.realpath(path) != os.path.realpath(release.HERE.parent / places[-1]):
            folder = places[-1].rpartition("/")[0]
            own = shell_word(path)
            lines.append(f"New-Item -Force -ItemType Directory {folder}; "
                         f"Copy-Item -Recurse -LiteralPath {own} {folder}" if os.name == "nt" else
                         f"mkdir -p {folder} && cp -R {own} {folder}/")
    # Windows PowerShell changes the encoding of what it pipes; the folders were searched already.
    search = [] if os.name == "nt" else ["git diff --cached | "
                                         + command("check_submission", "--privacy", "-")]
    author, utc = places[0].split("/")[1], "$env:TZ = 'UTC'; " if os.name == "nt" else "TZ=UTC "
    tags = " and ".join(dict.fromkeys(place.split("/")[2] for place in places))
    if lines and not os.access(release.HERE.parent / "submissions", os.W_OK):
        lines.insert(0, plan_and_probe.copy_command())
    lines += ["git switch -C " + places[0].rpartition("/")[2], f"git add {' '.join(places)}",
              *search,
              f"{utc}git -c user.name={author} -c user.email={author}@users.noreply.github.com "
              f'commit -m "Add {"runs" if len(places) > 1 else "a run"} on {tags}" '
              + " ".join(places)]
    # A command that fails ends the others; Windows PowerShell 5 has no such operator.
    after = "" if os.name == "nt" else " &&"
    return ["", "Next, at the top of the clone:",
            *(f"  {line}{after}" for line in lines[:-1]), f"  {lines[-1]}"]


def run(args: argparse.Namespace, released: Mapping[str, release.Release], now_s: float) -> int:
    """Run the mode that the options select; return the exit code. Raises HarnessError."""
    report, noun, width = findings.Report(), "submission", terminal_width()
    settings = Settings(released, args.allow_synthetic, args.handle, now_s,
                        challenge=args.challenge,
                        signatures=files.read(args.index) if args.index else None)
    if args.explain is not None:
        if args.explain and args.explain not in findings.CODES:
            close = difflib.get_close_matches(args.explain, findings.CODES, 1)
            raise HarnessError(f"--explain {printable(args.explain)}: unknown code; "
                               + (f"did you mean {close[0]}?" if close else
                                  "--explain alone lists all codes"))
        print_safe("\n\n".join(findings.explain(code, width) for code in findings.CODES.values()
                               if args.explain in ("", code.name)))
        return 0
    reviewed = review_paths(args) or []
    for mode, show in ((args.answers, answers), (args.texts, texts)):
        if mode is not None:
            print_text("\n".join(show(reviewed, report) or ["no submission was found"]))
    code = report.exit_code()
    if code:
        print_error(report.text(0, noun, width))
    if reviewed and args.privacy is None:
        return code
    if args.privacy is not None:
        report, noun, checked = findings.Report(KEPT_BY_PRIVACY), "place", len(reviewed)
        privacy_scan.PrivacyScan(report, names.this_machine()).paths(reviewed, sys.stdin.buffer)
    elif args.base is None:
        submissions = list(submission_files.of_paths(args.paths, report))
        index = copies.Index.from_bytes(settings.signatures)[1]
        index.doubted = corrections.doubted_near(args.paths)
        index.remove({f"{one.path}/run.jsonl" for one in submissions})
        checked = check_all(submissions, settings, index, report)
        for path in args.paths:
            place = os.path.join(path, "CORRECTIONS.json")
            if os.path.isfile(place):
                with submission_files.open_regular(place) as file:
                    corrections.check(file.read(submission_files.MIB),
                                      {one.parts[2][4:] for one in submissions},
                                      findings.Notes(report, place))
    else:
        repository = submission_files.Repository(args.git_dir)
        try:
            require_own_harness(repository, args)
            if args.write_index:
                head = repository.commit(args.head)
                index = index_of(repository, head, settings.signatures)
                files.write_whole(args.write_index, index.to_bytes(head))
                return 0
            checked = check_changes(repository, args.base, args.head, settings, report)
        finally:
            repository.close()
    if args.json:
        print_safe(report.json(checked))
    else:
        print_text(report.text(checked, noun, width))
        if args.paths and not (reviewed or report.exit_code() or args.allow_synthetic):
            print_text("\n".join(next_lines(args.paths)))
    return max(code, report.exit_code())


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run the program; return the exit code."""
    args = build_parser().parse_args(argv)
    try:
        check_combination(args)
        return run(args, release.known(), time.time())
    except HarnessError as stop:
        print_error(f"check_submission: {stop}")
        return 2
    except OSError as error:                      # of --index and --write-index
        print_error(f"check_submission: {printable(str(error.filename))}: {error.strerror}; pass a "
                    "file that you can read or write")
        return 2


if __name__ == "__main__":
    sys.exit(main())
