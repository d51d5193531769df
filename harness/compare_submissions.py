#!/usr/bin/env python3
"""Compare submissions: rank them, write an HTML page, or compare two runs.

  python3 harness/compare_submissions.py                           all of submissions/
  python3 harness/compare_submissions.py --all-phases              details of each phase
  python3 harness/compare_submissions.py --phase 20q --sort ttft
  python3 harness/compare_submissions.py --html page.html          one file that opens anywhere
  python3 harness/compare_submissions.py --history                 one machine over runtime versions
  python3 harness/compare_submissions.py --wanted                  what is not measured yet
  python3 harness/compare_submissions.py --vs RUN_A RUN_B          which of two runs is faster
  python3 harness/compare_submissions.py --vs RUN1,RUN2,RUN3 FOLDER_OF_RUNS

A row is one kind of machine with one model and bits class (4-bit, 8-bit ...). Its number is a
median of medians: of each owner's runs, then of the owners. Its rank is 1 plus the number of rows
of the same model and bits class that are faster: by at least 5 %, and by a t-test at the 1 % level.
Runs that are not comparable do not count; they are listed with the reason.

With --all-phases or --phase, a row is one phase on one machine with one runtime, model,
quantisation and configuration. The bracket is the 95 % interval over runs. If there are few runs,
the interval assumes that they vary by 3 % (5 % with several lanes).

Rows and ranks are computed from manifest.json, metadata.json and hardware.json of every folder
below PATH that has a metadata.json; run.jsonl is read for --vs and for the details of --html. A
submission that cannot be read is left out with one warning on standard error.

A side of --vs is the id of a run in submissions/, a run's folder, a folder of several runs, or
several of these joined by commas.

exit codes:
  0 all submissions were read; 1 some were left out (see the warnings), or the two sides of --vs
  have no model in common; 2 wrong usage, or nothing to compare; 4 a file cannot be written.
"""
import sys

if sys.version_info < (3, 9):      # before any code that an older Python cannot run
    sys.exit("compare_submissions needs Python 3.9 or newer; this is " + sys.version.split()[0])

import argparse
import gc
import json
import os
import re
import urllib.parse
from collections.abc import Iterable, Sequence
from typing import Any, Optional

from compare import entries, folders, headline, history, ranking, tables, two_runs, wanted
from compare.page import make_page
from complete import attestation
from core import corrections, files, ledger
from core import text as texts
from core.errors import HarnessError, StorageError
from core.records import Json

HERE = os.path.dirname(os.path.abspath(__file__))
DEFAULT_PATH = os.path.join(os.path.dirname(HERE), "submissions")
MAX_LEDGER_BYTES = 512 * 1024 * 1024
MAX_SECTION = 4000                       # characters of the contributor's texts on the page
# The options that an output does not use.
IGNORED = {"vs": ("paths", "sort", "all_phases", "markdown", "csv", "html", "history", "wanted",
                  *ranking.FILTERS),
           "history": ("sort", "all_phases", *ranking.FILTERS),
           "wanted": ("sort", "all_phases", *ranking.FILTERS), "html": ("sort", "all_phases"),
           "markdown": ("all_phases", "phase")}


# --- two runs ------------------------------------------------------------------------------------
def read_side(text: str) -> list[two_runs.Run]:
    """The runs of one side of --vs; raises HarnessError."""
    paths = [text] if os.path.exists(text) else text.split(",")
    found = [folder for path in paths for folder in run_folders(path)]
    twice = [folder for folder in found if found.count(folder) > 1]
    if twice:
        raise HarnessError(f"--vs: {texts.printable(twice[0])} is on one side twice; name it once")
    return [read_run(folder) for folder in found]


def run_folders(path: str) -> list[str]:
    """The folder of a run, also by its id, or all folders below with a manifest.json; raises
    HarnessError."""
    shown = texts.printable(path) or "(nothing)"
    path = ledger.find_run(DEFAULT_PATH, path) or path
    if not os.path.isdir(path):
        raise HarnessError(f"--vs: {shown}: no such folder; pass the id of a run in submissions/, "
                           "a run's folder, or several joined by commas")
    found = [folder for folder, _, held in os.walk(path) if ledger.MANIFEST in held]
    if not found:
        raise HarnessError(f"--vs: {shown} contains no run; a run's folder has a {ledger.MANIFEST}")
    return sorted(os.path.realpath(folder) for folder in found)


def read_run(folder: str) -> two_runs.Run:
    """A run's manifest and ledger, checked by their schemas; raises HarnessError."""
    try:
        for name, limit in ((ledger.MANIFEST, folders.MAX_DOCUMENT_BYTES),
                            (ledger.LEDGER, MAX_LEDGER_BYTES)):
            folders.refuse_odd_file(os.path.join(folder, name), limit)
        manifest, state = ledger.load_run(folder)
    except OSError as error:
        raise HarnessError(f"{texts.printable(os.path.join(folder, name))}: "
                   f"{error.strerror or error}") from None
    except ledger.LedgerError as error:
        raise HarnessError(texts.printable(str(error), 600)) from None
    why = corrections.reasons(manifest["run_id"], corrections.near(os.path.dirname(folder)))
    return two_runs.run_of(manifest, state.events, why)


def do_vs(args: argparse.Namespace) -> int:
    """Compare two sides; return the exit code."""
    a, b = (read_side(text) for text in args.vs)
    both = {run.manifest["run_id"] for run in a} & {run.manifest["run_id"] for run in b}
    if both:
        raise HarnessError(f"--vs: run {sorted(both)[0]} is on both sides; name it on one")
    found = two_runs.compare_sides(a, b)
    texts.print_safe(json.dumps(found, indent=1) if args.json else
               two_runs.render_sides(found, texts.terminal_width()))
    return 0


# --- the program ---------------------------------------------------------------------------------
def warn(broken: Iterable[tuple[str, str]]) -> None:
    """One line on standard error for each submission that was left out."""
    for path, what in broken:
        texts.print_error(f"compare_submissions: left out {texts.printable(path)}: "
                          f"{texts.printable(what, 400)}")


def do_table(args: argparse.Namespace) -> int:
    """Read, rank and print; return the exit code."""
    found = folders.read_all([path if os.path.exists(path) else
                              ledger.find_run(DEFAULT_PATH, path) or path
                              for path in args.paths or [DEFAULT_PATH]])
    warn(found.broken)
    if not found.submissions:
        raise HarnessError("nothing to compare: no submission could be read; a submission is a "
                           f"folder with {', '.join(folders.DOCUMENTS)}, which "
                           "complete_submission.py writes")
    if args.history or args.wanted:
        texts.print_safe(
            history.history_text(history.series(found.submissions), texts.terminal_width())
            if args.history else
            wanted.wanted_text(wanted.cells(found.submissions), texts.terminal_width()))
        return 1 if found.broken else 0
    filters = {name: getattr(args, name) for name in ranking.FILTERS}
    is_data = args.json or args.csv
    metric = ranking.SHORT[args.sort]
    by_phase = args.phase or args.all_phases or metric not in entries.HEADLINES
    rows = ranking.make_rows(found.submissions) if is_data or by_phase or args.html else []
    shown = ranking.matching(rows, filters, with_hello=is_data)
    if args.html:
        write_page(args.html, shown, found, args.files_at)
        return 1 if found.broken else 0
    blocks = ranking.only(ranking.ranked(rows, args.sort), shown)
    every = [] if args.phase else headline.headline_rows(found.submissions)
    headlines = ranking.only(ranking.ranked(every, args.sort), ranking.matching(every, filters))
    asked = [f"--{name} {texts.shell_word(texts.printable(text))}"
             for name, text in filters.items() if text]
    if asked and not (blocks or headlines):
        texts.print_error(f"compare_submissions: no row matches {' '.join(asked)}; leave it out to "
                          "see all rows")
    if is_data:
        texts.print_safe(tables.json_text([*blocks, *headlines], found) if args.json else
                         tables.csv_text([*blocks, *headlines]).removesuffix("\n"))
    elif args.markdown:
        texts.print_safe(tables.markdown_text(headlines, found, metric))
    elif by_phase:
        texts.print_safe(tables.details_text(blocks, found, texts.terminal_width()))
    else:
        texts.print_safe(tables.headline_text(headlines, found, texts.terminal_width(), metric))
    return 1 if found.broken else 0


def write_page(path: str, wanted: Iterable[ranking.Row], found: folders.Found,
               files_at: Optional[str]) -> None:
    """Write the page of the runs in some rows as one file, without the made-up example; raises
    StorageError."""
    ids = {run.run_id for row in wanted for run in row.runs if run.handle != "example"}
    kept = [submission for submission in found.submissions if submission.run_id in ids]
    page = make_page(kept, found.folders, read_detail, len(found.broken),
                     files_at or files_address(path, kept, found.folders))
    warn(page.broken)
    try:
        files.write_whole(path, page.data)
    except OSError as error:
        raise StorageError(f"--html {texts.printable(path)}: {error.strerror}; pass a file in a "
                           "folder that you can write to") from None
    texts.print_error(f"compare_submissions: {texts.printable(path)}: "
                      f"{len(page.data) / 1e6:.1f} MB, {page.note}")


def files_address(page: str, found: Iterable[entries.Submission],
                  folder_of: dict[str, str]) -> Optional[str]:
    """Relative address of the folder that holds every HANDLE/DEVICE-TAG/run-UUID, None if the
    submissions are elsewhere."""
    roots = set()
    for run in found:
        own = os.path.join("", run.handle, run.device.tag, f"run-{run.run_id}")
        full = os.path.abspath(folder_of[run.run_id])
        roots.add(full[:-len(own)] if full.endswith(os.sep + own) else None)
    root = roots.pop() if len(roots) == 1 else None
    try:
        return root and urllib.parse.quote(os.path.relpath(
            root, os.path.dirname(os.path.abspath(page))).replace(os.sep, "/"))
    except ValueError:            # on another drive of Windows
        return None


def read_detail(folder: str) -> tuple[Json, Json, Any, Any, dict[str, str]]:
    """Metadata, hardware, manifest, ledger lines and the contributor's texts of one submission."""
    try:
        folders.refuse_odd_file(os.path.join(folder, ledger.LEDGER), MAX_LEDGER_BYTES)
    except OSError as error:
        raise entries.BrokenSubmission(f"{ledger.LEDGER}: {error.strerror or error}") from None
    manifest, state = ledger.load_run(folder)
    _, metadata, hardware, _ = folders.corrected(folder)
    return (metadata, hardware, manifest, state.events,
            read_sections(os.path.join(folder, "run.md")))


def read_sections(path: str) -> dict[str, str]:
    """What the contributor wrote in run.md; nothing if it cannot be read."""
    try:
        folders.refuse_odd_file(path, folders.MAX_DOCUMENT_BYTES)
        sections = attestation.read_sections(files.read(path).decode("utf-8", "replace"))
    except (OSError, ValueError):
        return {}
    return {name: texts.readable(text.strip(), MAX_SECTION) for name, text in sections.items()
            if not attestation.is_unwritten(sections, name)}


def web_address(text: str) -> str:
    """An address that begins with https:// or http://, without a slash at its end."""
    if not re.match(r"https?://[^\s/]", text):
        raise argparse.ArgumentTypeError(f"'{texts.printable(text)}' is not an address that begins "
                                         "with https:// or http://")
    return text.rstrip("/")


def build_parser() -> texts.Parser:
    """The command line."""
    parser = texts.Parser("compare_submissions", __doc__, "[options] [PATH ...]")
    parser.add_argument("paths", nargs="*", metavar="PATH",
                        help="folders with submissions (default: submissions/)")
    for name in ranking.FILTERS:
        parser.add_argument(f"--{name}", metavar="TEXT", help=f"only rows whose {name} contains "
                            "this text, ignoring case")
    parser.add_argument("--sort", metavar="NUMBER", choices=[*ranking.SHORT], default="decode",
                        help=f"rank rows by {', '.join(ranking.SHORT)} (default: decode)")
    parser.add_argument("--all-phases", action="store_true",
                        help="rank rows within each phase, with all details; see --phase")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--markdown", action="store_true",
                      help="print the ranked rows as a scoreboard for a README")
    form.add_argument("--csv", action="store_true",
                      help="print all rows and columns as CSV; headline rows have no phase")
    form.add_argument("--json", action="store_true", help="print the same rows as JSON")
    form.add_argument("--history", action="store_true",
                      help="show how each machine and model changed over versions of its runtime")
    form.add_argument("--wanted", action="store_true",
                      help="list the sizes of models that are not measured yet on each machine")
    form.add_argument("--html", metavar="FILE", help="write one self-contained HTML page to FILE")
    parser.add_argument("--files-at", metavar="URL", type=web_address,
                        help="with --html: where the folder of all submissions is published, for "
                        "links to their files (default: its place beside the page)")
    parser.add_argument("--vs", nargs=2, metavar=("RUN_A", "RUN_B"),
                        help="compare two runs, or two groups of runs, by their ledgers")
    return parser


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run the program; return the exit code."""
    parser = build_parser()
    args = parser.parse_args(argv)
    gc.disable()                  # costs a fifth of the time: what is read is kept to the end
    try:
        if args.files_at and not args.html:
            raise HarnessError("--files-at needs --html; pass both")
        for output, ignored in IGNORED.items():
            for name in ignored if getattr(args, output) else ():
                if getattr(args, name) not in ([], parser.get_default(name)):
                    other = "PATH" if name == "paths" else "--" + name.replace("_", "-")
                    raise HarnessError(f"--{output} cannot be combined with {other}; leave out one "
                                       "of them")
        return do_vs(args) if args.vs else do_table(args)
    except HarnessError as stop:
        texts.print_error(f"compare_submissions: {stop}")
        return stop.exit_code
    finally:
        gc.enable()


if __name__ == "__main__":
    raise SystemExit(main())
