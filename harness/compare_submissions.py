#!/usr/bin/env python3
"""Compare submissions: rank them, write an HTML page, or compare two runs.

  python3 harness/compare_submissions.py                           all of submissions/
  python3 harness/compare_submissions.py --model qwen --phase 20q --sort ttft
  python3 harness/compare_submissions.py --html page.html          one file that opens anywhere
  python3 harness/compare_submissions.py --vs RUN_A RUN_B          which of two runs is faster
  python3 harness/compare_submissions.py --vs RUN1,RUN2,RUN3 FOLDER_OF_RUNS

A row is one machine with one runtime, model, format and configuration, in one phase. Its number is
the median over all its runs, never the best of them. The bracket is the 95 % interval over runs.
With few runs, it assumes a spread of 3 % between runs (5 % with several lanes). The rank is 1 plus
the number of rows of the same model and phase that are faster: by at least 5 %, and by a t-test at
the 1 % level. Runs that are not comparable are listed below, with the reason.

Rows and ranks are computed from manifest.json, metadata.json and hardware.json of every folder
below PATH that has a metadata.json; run.jsonl is read for --vs and for the details of --html. A
submission that cannot be read is left out with one warning on standard error.

A side of --vs is a run's folder, a folder of several runs, or several of these joined by commas.

exit codes:
  0 all submissions were read; 1 some were left out (see the warnings), or the two sides of --vs
  have no model in common; 2 usage, or nothing to compare; 4 storage.
"""
import sys

if sys.version_info < (3, 9):      # before any code that an older Python cannot run
    sys.exit("compare_submissions needs Python 3.9 or newer; this is " + sys.version.split()[0])

import argparse
import functools
import json
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple, Optional

from compare import entries, headline, ranking, two_runs
from compare.page import make_page
from core import corrections, files, ledger, metric_definitions
from core import text as texts
from core.errors import HarnessError, StorageError

HERE = os.path.dirname(os.path.abspath(__file__))
DEFAULT_PATH = os.path.join(os.path.dirname(HERE), "submissions")
DOCUMENTS = ("manifest.json", "metadata.json", "hardware.json")
MAX_DOCUMENT_BYTES = 8 * 1024 * 1024     # 20 models in 8 phases take 0.6 MiB
MAX_LEDGER_BYTES = 512 * 1024 * 1024

Json = dict[str, Any]


# --- reading -------------------------------------------------------------------------------------
class Found(NamedTuple):
    """Submissions that were read, each with its folder, and the others as (path, reason)."""

    submissions: list[tuple[entries.Submission, str]]
    broken: list[tuple[str, str]]


def read_all(paths: Iterable[str]) -> Found:
    """Every submission below some folders, in order of their paths; raises HarnessError."""
    found = Found([], [])
    seen: dict[str, str] = {}
    for folder in submission_folders(paths):
        try:
            submission = entries.read_submission(*corrected(folder))
            if seen.setdefault(submission.run_id, folder) != folder:
                raise entries.BrokenSubmission(f"the same run as {seen[submission.run_id]}")
            found.submissions.append((submission, folder))
        except entries.BrokenSubmission as error:
            found.broken.append((folder, str(error)))
    return found


@functools.lru_cache(maxsize=64)
def corrections_of(parent: str) -> corrections.Corrections:
    """The corrections for runs in a folder; raises HarnessError."""
    return corrections.near([parent])


def corrected(folder: str) -> tuple[Json, Json, Json, tuple[str, ...]]:
    """Manifest, metadata and hardware of a submission with corrected values, and why it is not to
    be compared; raises BrokenSubmission and HarnessError."""
    manifest, metadata, hardware = (read_document(folder, name) for name in DOCUMENTS)
    run_id = str(manifest.get("run_id") if isinstance(manifest, dict) else None)
    known = corrections_of(os.path.dirname(os.path.abspath(folder)))
    corrections.apply(run_id, known, {"metadata": metadata, "hardware": hardware})
    return manifest, metadata, hardware, corrections.reasons(run_id, known)


def submission_folders(paths: Iterable[str]) -> Iterator[str]:
    """Folders that hold a metadata.json, sorted; links to folders are not followed."""
    for path in paths:
        if not os.path.isdir(path):
            raise HarnessError(f"{texts.printable(path)}: no such folder; pass the folder of a "
                               "submission or one above it")
        for folder, names, held in os.walk(path):
            names[:] = sorted(name for name in names if not name.startswith("."))
            if "metadata.json" in held:
                yield folder


def read_document(folder: str, name: str) -> Any:
    """A parsed document of a submission; raises BrokenSubmission."""
    path = os.path.join(folder, name)
    try:
        refuse_odd_file(path, MAX_DOCUMENT_BYTES)
        return json.loads(files.read(path), parse_constant=_no_constant)
    except OSError as error:
        raise entries.BrokenSubmission(f"{name}: {error.strerror or error}") from None
    except RecursionError:
        raise entries.BrokenSubmission(f"{name}: nested too deep") from None
    except ValueError as error:
        raise entries.BrokenSubmission(f"{name}: {error}") from None


def _no_constant(word: str) -> None:
    raise ValueError(f"{word} is not JSON")


def refuse_odd_file(path: str, limit: int) -> None:
    """Raise OSError for a path that is not a plain file of at most `limit` bytes."""
    found = os.lstat(path)
    if not stat.S_ISREG(found.st_mode):
        raise OSError(0, "is not a plain file")
    if found.st_size > limit:
        raise OSError(0, f"is larger than {limit} bytes")


# --- the table -----------------------------------------------------------------------------------
SHOWN = tuple(entries.NUMBERS)[:5]
COLUMNS = ("#", "device", "hardware", "memory", "runtime", "model", "quant", "phase",
           *(entries.NUMBERS[name] for name in SHOWN), "runs", "checks", "flags")
RIGHT = (0, 3, 13, 14)
REASON = "not ranked, because"
LEGEND = ("medians over all runs of a row, in brackets the 95 % interval over runs. Rank: 1 + the "
          "number of rows that are faster by at least 5 % and a t-test; rows with = share a rank.")


@functools.lru_cache(maxsize=65536)
def plain(text: str) -> str:
    """texts.printable with a cache, because most texts of a table occur in many rows."""
    return texts.printable(text)


def table_text(blocks: Sequence[Sequence[ranking.Place]], found: Found, width: int) -> str:
    """Ranked rows, then the others with their reasons, then the legend and the flags."""
    places = [place for block in blocks for place in block]
    able = [place for place in places if place.rank is not None]
    rest = [place for place in places if place.rank is None]
    lines = texts.fit_table(COLUMNS, [cells(place) for place in able], RIGHT, width) if able else []
    if rest:
        rows = [(why_not(place.row), *cells(place)[1:-1]) for place in rest]
        lines += [""] * bool(able) + texts.fit_table((REASON, *COLUMNS[1:-1]), rows, RIGHT[1:],
                                                     width)
    if not places:
        lines += texts.wrapped("no row matches; leave out --" + ", --".join(ranking.FILTERS)
                               + " to see all", width, "  ")
    names = {flag for place in able for flag in place.row.flags}
    notes = [f"{found_text(found)}; {LEGEND}", *metric_definitions.explain_flags(names)]
    return "\n".join([*lines, "", *(line for note in notes
                                    for line in texts.wrapped(note, width, "  "))])


def found_text(found: Found) -> str:
    """`12 submissions, 1 left out`."""
    count = len(found.submissions)
    text = f"{count} submission{'' if count == 1 else 's'}"
    return text + (f", {len(found.broken)} left out" if found.broken else "")


def why_not(row: ranking.Row) -> str:
    """Why a row has no rank."""
    return plain("; ".join(row.reasons) or "the number that ranks is missing")


def cells(place: ranking.Place) -> tuple[str, ...]:
    """Cells of a row in the order of COLUMNS."""
    row, device = place.row, place.row.device
    rank = "" if place.rank is None else f"{place.rank}{'=' if place.tied else ''}"
    return (rank, plain(device.tag), plain(entries.device_text(device)),
            f"{device.memory_gib:g} GiB" if device.memory_gib else "",
            plain(", ".join(filter(None, (entries.runtime_text(row.runtime),
                                          row.configuration)))), plain(row.model),
            plain(row.quantization or ""), row.phase or "all",
            *(spread_text(row.numbers.get(name)) for name in SHOWN),
            f"{len(row.runs)}" + (
                f" of {len(row.runs) + len(row.left_out)}" if row.left_out else ""),
            f"{row.passed}/{row.checked}" if row.checked else "", ", ".join(row.flags))


def spread_text(spread: Optional[entries.Spread]) -> str:
    """`84.1 [80.2-99]`."""
    if spread is None:
        return ""
    return texts.with_interval({"median": spread.value, "ci_low": spread.low,
                                "ci_high": spread.high})


# --- other formats -------------------------------------------------------------------------------
def markdown_text(blocks: Sequence[Sequence[ranking.Place]], found: Found) -> str:
    """The table with all columns, one for the reason, and the legend."""
    titles = [*COLUMNS, REASON]
    rows = []
    for place in (place for block in blocks for place in block):
        line = cells(place)
        spans = [texts.code_span(text) if 1 <= i <= 6 and i != 3 else text
                 for i, text in enumerate(line)]
        rows.append([*spans, "" if place.rank else texts.code_span(why_not(place.row))])
    return f"{texts.markdown_table(titles, rows, RIGHT)}\n{found_text(found)}; {LEGEND}"


def csv_text(blocks: Sequence[Sequence[ranking.Place]]) -> str:
    """One line per row; three columns per number: its median and its interval."""
    rows = [flat(ranking.row_json(place)) for block in blocks for place in block]
    titles = list(rows[0]) if rows else []
    return texts.csv_text(titles, ([row[title] for title in titles] for row in rows))


def flat(row: Json) -> dict[str, texts.TableCell]:
    """Flat row: `ttft_ms`, `ttft_ms_low`, ...; lists joined by semicolons."""
    out: dict[str, texts.TableCell] = {}
    for name, value in row.items():
        if name in entries.NUMBERS:
            spread = value or dict.fromkeys(("median", "low", "high"))
            out[name] = spread["median"]
            out.update({f"{name}_{part}": spread[part] for part in ("low", "high")})
        elif isinstance(value, dict):
            out.update({f"{name}_{part}": held for part, held in value.items()})
        elif name == "runs_left_out":
            out[name] = "; ".join(one["run_id"] for one in value)
        elif isinstance(value, list):
            out[name] = "; ".join(value)
        else:
            out[name] = str(value).lower() if isinstance(value, bool) else value
    return out


def json_text(blocks: Sequence[Sequence[ranking.Place]],
              headlines: Sequence[Sequence[ranking.Place]], found: Found) -> str:
    """{"submissions", "left_out", "rows"}; rows as ranking.row_json makes them, those of a phase
    first, then the headline rows, whose phase is null."""
    return json.dumps({
        "submissions": len(found.submissions),
        "left_out": [{"path": path, "reason": reason} for path, reason in found.broken],
        "rows": [ranking.row_json(place) for block in (*blocks, *headlines) for place in block]},
        indent=1)


# --- two runs ------------------------------------------------------------------------------------
def read_side(text: str) -> list[two_runs.Run]:
    """The runs of one side of --vs; raises HarnessError."""
    paths = [text] if os.path.exists(text) else text.split(",")
    folders = [folder for path in paths for folder in run_folders(path)]
    twice = [folder for folder in folders if folders.count(folder) > 1]
    if twice:
        raise HarnessError(f"--vs: {texts.printable(twice[0])} is on one side twice; name it once")
    return [read_run(folder) for folder in folders]


def run_folders(path: str) -> list[str]:
    """The run's folder, or all folders below with a manifest.json; raises HarnessError."""
    shown = texts.printable(path) or "(nothing)"
    if not os.path.isdir(path):
        raise HarnessError(f"--vs: {shown}: no such folder; pass a run's folder "
                           "(submissions/HANDLE/DEVICE-TAG/run-UUID), or several joined by commas")
    found = [folder for folder, _, held in os.walk(path) if ledger.MANIFEST in held]
    if not found:
        raise HarnessError(f"--vs: {shown} contains no run; a run's folder has a {ledger.MANIFEST}")
    return sorted(os.path.realpath(folder) for folder in found)


def read_run(folder: str) -> two_runs.Run:
    """A run's manifest and ledger, checked by their schemas; raises HarnessError."""
    try:
        for name, limit in ((ledger.MANIFEST, MAX_DOCUMENT_BYTES),
                            (ledger.LEDGER, MAX_LEDGER_BYTES)):
            refuse_odd_file(os.path.join(folder, name), limit)
        manifest, state = ledger.load_run(folder)
    except OSError as error:
        raise HarnessError(f"{texts.printable(os.path.join(folder, name))}: "
                   f"{error.strerror or error}") from None
    except ledger.LedgerError as error:
        raise HarnessError(texts.printable(str(error), 600)) from None
    why = corrections.reasons(manifest["run_id"], corrections_of(os.path.dirname(folder)))
    return two_runs.run_of(manifest, state.events, ledger.latest_calls(state.events), why)


def do_vs(args: argparse.Namespace) -> int:
    """Compare two sides; return the exit code."""
    a, b = (read_side(text) for text in args.vs)
    both = {run.manifest["run_id"] for run in a} & {run.manifest["run_id"] for run in b}
    if both:
        raise HarnessError(f"--vs: run {sorted(both)[0]} is on both sides; name it on one")
    try:
        found = two_runs.compare_sides(a, b)
    except two_runs.PairingError as error:
        texts.print_error(f"compare_submissions: --vs: {error}")
        return 1
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
    found = read_all(args.paths or [DEFAULT_PATH])
    warn(found.broken)
    if not found.submissions:
        raise HarnessError("nothing to compare: no submission could be read; a submission is a "
                           f"folder with {', '.join(DOCUMENTS)}, which complete_submission.py "
                           "writes")
    submissions = [submission for submission, _ in found.submissions]
    rows = ranking.make_rows(submissions)
    filters = {name: getattr(args, name) for name in ranking.FILTERS}
    wanted = ranking.matching(rows, filters, with_hello=args.json)
    if args.html:
        write_page(args.html, rows, wanted, found)
    else:
        headlines = headline.headline_rows(submissions) if args.json and not args.phase else []
        print_table(args, ranking.only(ranking.ranked(rows, args.sort), wanted),
                    ranking.ranked(ranking.matching(headlines, filters), args.sort), found)
    return 1 if found.broken else 0


def print_table(args: argparse.Namespace, blocks: Sequence[Sequence[ranking.Place]],
                headlines: Sequence[Sequence[ranking.Place]], found: Found) -> None:
    """Print the rows in the requested format."""
    texts.print_safe(json_text(blocks, headlines, found) if args.json else
               csv_text(blocks).removesuffix("\r\n") if args.csv else
               markdown_text(blocks, found) if args.markdown else
               table_text(blocks, found, texts.terminal_width()))


def write_page(path: str, rows: Sequence[ranking.Row], wanted: Sequence[ranking.Row],
               found: Found) -> None:
    """Write the page as one file; raises StorageError."""
    folders = {submission.run_id: folder for submission, folder in found.submissions}
    page = make_page(rows, wanted, folders, read_detail, len(found.broken))
    warn(page.broken)
    try:
        files.write_whole(path, page.data)
    except OSError as error:
        raise StorageError(f"--html {texts.printable(path)}: {error.strerror}; pass a file in a "
                           "folder that you can write to") from None
    texts.print_error(f"compare_submissions: {texts.printable(path)}: "
                      f"{len(page.data) / 1e6:.1f} MB, {page.note}")


def read_detail(folder: str) -> tuple[Json, Json, Any, Any]:
    """Metadata, hardware, manifest and ledger lines of one submission."""
    try:
        refuse_odd_file(os.path.join(folder, ledger.LEDGER), MAX_LEDGER_BYTES)
    except OSError as error:
        raise entries.BrokenSubmission(f"{ledger.LEDGER}: {error.strerror or error}") from None
    manifest, state = ledger.load_run(folder)
    _, metadata, hardware, _ = corrected(folder)
    return metadata, hardware, manifest, state.events


def build_parser() -> texts.Parser:
    """The command line."""
    parser = texts.Parser("compare_submissions", __doc__, "[options] [PATH ...]")
    parser.add_argument("paths", nargs="*", metavar="PATH",
                        help="folders with submissions (default submissions/)")
    for name in ranking.FILTERS:
        parser.add_argument(f"--{name}", metavar="TEXT", help=f"only rows whose {name} contains "
                            "this text, ignoring case")
    parser.add_argument("--sort", metavar="COLUMN", choices=ranking.SORTS, default="decode",
                        help="order and rank rows by " + ", ".join(ranking.SORTS) +
                        " (default decode); sorting by a text column keeps the ranks by decode")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--markdown", action="store_true", help="print a Markdown table")
    form.add_argument("--csv", action="store_true", help="print CSV with all columns")
    form.add_argument("--json", action="store_true",
                      help="print JSON with all columns, and headline rows (phase null)")
    form.add_argument("--html", metavar="FILE", help="write one self-contained HTML page to FILE")
    parser.add_argument("--vs", nargs=2, metavar=("RUN_A", "RUN_B"),
                        help="compare two runs, or two groups of runs, by their ledgers")
    return parser


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run the program; return the exit code."""
    args = build_parser().parse_args(argv)
    try:
        if not args.vs:
            return do_table(args)
        others = [f"--{name}" for name in ("markdown", "csv", "html", *ranking.FILTERS)
                  if getattr(args, name)]
        if args.paths or others:
            raise HarnessError(f"--vs cannot be combined with {others[0] if others else 'PATH'}; "
                               "pass --vs RUN_A RUN_B and, if you like, --json")
        return do_vs(args)
    except HarnessError as stop:
        texts.print_error(f"compare_submissions: {stop}")
        return stop.exit_code


if __name__ == "__main__":
    raise SystemExit(main())
