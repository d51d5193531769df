"""Text for people and other programs: safe printing, numbers, tables, CSV, command lines.

Everything that a program prints and that may hold foreign text (a server's messages, a path, a
value of a submission) goes through `printable`.
"""
from __future__ import annotations

import argparse
import csv
import io
import os
import re
import shlex
import shutil
import sys
import textwrap
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NoReturn, Optional, Union

TableCell = Union[None, str, int, float]

GAP = "  "
WIDE = 100                    # columns of output that goes to no terminal, and of help pages
NARROWEST = 20
MAX_CSV_CHARACTERS = 30_000   # spreadsheets take 32,767 in a cell
# What spreadsheets take for the start of a formula, also after blanks and in the full-width forms
# that some of them fold; an apostrophe in front makes it text.
FORMULA = re.compile(r"[\s'\"]*[=+\-@\uff1d\uff0b\uff0d\uff20]|[\t\r\n]")


# --- safe printing -------------------------------------------------------------------------------
def printable(text: str, limit: int = 200) -> str:
    """Arbitrary text as one line of harmless ASCII, at most `limit` of its characters."""
    return readable(text, limit).encode("ascii", "backslashreplace").decode()


def readable(text: str, limit: int = 200) -> str:
    """As `printable`, but letters of all scripts stay: for a stream that escapes what it cannot."""
    cut = text if len(text) <= limit else text[:limit] + "..."
    harmless = (unicodedata.category(c)[0] not in "CZ" or c == " " for c in cut)
    return "".join(c if kept else ascii(c)[1:-1] for c, kept in zip(cut, harmless))


def print_safe(text: str) -> None:
    """Print on standard output; a reader that has closed the pipe does not end the program."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    try:
        print(text.encode(encoding, "backslashreplace").decode(encoding), flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


# --- numbers -------------------------------------------------------------------------------------
def format_number(value: Optional[float]) -> str:
    """Three significant digits, or the whole number; an exponent below 0.001; "-" for null."""
    if value is None:
        return "-"
    if value and abs(value) < 100:
        return f"{value:.3g}" if abs(value) >= 0.001 else f"{value:.1e}"
    return f"{value:.0f}"


def with_interval(summary: Mapping[str, Any]) -> str:
    """`84.1 [80.2-99]`: the median, and its interval if there is one."""
    median, low, high = (format_number(summary[key]) for key in ("median", "ci_low", "ci_high"))
    return median if summary["ci_low"] is None else f"{median} [{low}-{high}]"


def format_value(field: str, value: Any) -> str:
    """The value of a JSON field: `yes`, `8,192`, `17,179,869,184 (16.00 GiB)` for `*_bytes`."""
    if value is None or isinstance(value, bool):
        return "-" if value is None else "yes" if value else "no"
    if isinstance(value, list):
        return " ".join(map(str, value))
    if not isinstance(value, (int, float)):
        return str(value)
    number = f"{value:,}" if isinstance(value, int) else f"{value:g}"
    return f"{number} ({value / 2 ** 30:.2f} GiB)" if field.endswith("_bytes") else number


def duration(seconds: float) -> str:
    """`40 s`, `12 min`, `3 h 20 min`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


# --- tables for terminals ------------------------------------------------------------------------
def align_columns(rows: Sequence[Sequence[str]], right: Iterable[int] = ()) -> list[str]:
    """Rows with aligned columns; `right` are the columns of numbers."""
    numbers, widths = set(right), [max(map(len, column)) for column in zip(*rows)]
    return [GAP.join(cell.rjust(width) if i in numbers else cell.ljust(width)
                     for i, (cell, width) in enumerate(zip(row, widths))).rstrip()
            for row in rows]


def fit_table(titles: Sequence[str], rows: Sequence[Sequence[str]], right: Iterable[int],
              width: int) -> list[str]:
    """Titles and rows with aligned columns, in lines of at most `width` characters.

    Wider rows continue on indented lines, all broken at the same columns, and a wider cell is
    wrapped. Columns that no row fills are left out.
    """
    room, numbers, used = max(width, NARROWEST), set(right), 0
    parts: list[list[int]] = [[]]             # the columns in each line of a row
    for i, column in enumerate(zip(titles, *rows)):
        size = max(map(len, column))
        if any(column[1:]):
            if parts[-1] and used + size > room:
                parts.append([])
                used = len(GAP)
            parts[-1].append(i)
            used += size + len(GAP)
    aligned = [align_columns([[row[i] for i in part] for row in (titles, *rows)],
                             [at for at, i in enumerate(part) if i in numbers]) for part in parts]
    return [line for row in zip(*aligned) for at, text in enumerate(row) if text
            for line in wrapped(GAP * bool(at) + text, room, GAP)]


def wrapped(text: str, width: int, indent: str = "") -> list[str]:
    """A sentence in lines of at most `width`; longer words are broken."""
    return textwrap.wrap(text, max(width, NARROWEST), subsequent_indent=indent,
                         break_on_hyphens=False) or [""]


def terminal_width() -> int:
    """Columns of the terminal; WIDE for a file or pipe, unless COLUMNS is set."""
    if not sys.stdout.isatty() and not os.environ.get("COLUMNS"):
        return WIDE
    return max(shutil.get_terminal_size((WIDE, 24)).columns, NARROWEST)


# --- Markdown and CSV ----------------------------------------------------------------------------
def markdown_safe(text: str, limit: int = 200) -> str:
    """Printable ASCII that ends no code span, code block or table cell, and opens no comment."""
    shown = printable(text, limit)
    for odd in ("`", "|", "<!--"):
        shown = shown.replace(odd, f"\\x{ord(odd[0]):02x}{odd[1:]}")
    return shown


def code_span(text: str, limit: int = 200) -> str:
    """Foreign text for a Markdown table: a code span has no links, mentions or HTML."""
    shown = markdown_safe(text, limit).strip()
    return f"`{shown}`" if shown else ""


def markdown_table(titles: Sequence[str], rows: Iterable[Sequence[str]],
                   right: Iterable[int] = ()) -> str:
    """A Markdown table of cells that are safe already (see code_span), with a final newline."""
    numbers = set(right)
    rule = ["--:" if i in numbers else "---" for i in range(len(titles))]
    return "".join(f"| {' | '.join(line)} |\n" for line in (titles, rule, *rows))


def csv_text(titles: Sequence[str], rows: Iterable[Sequence[TableCell]]) -> str:
    """CSV (RFC 4180, CRLF): numbers bare, texts quoted, null empty; no cell is a formula."""
    out = io.StringIO()
    writer = csv.writer(out, quoting=csv.QUOTE_NONNUMERIC)
    writer.writerow(titles)
    for row in rows:
        cells = ["" if cell is None else cell for cell in row]
        writer.writerow([("'" if FORMULA.match(cell) else "") + printable(cell, MAX_CSV_CHARACTERS)
                         if isinstance(cell, str) else cell for cell in cells])
    return out.getvalue()


# --- command lines -------------------------------------------------------------------------------
def command(program: str, *words: str) -> str:
    """A command that can be typed as it is in the repository's root, on this system."""
    if os.name == "nt":
        return " ".join(["py", f"harness/{program}.py", *(
            word if re.fullmatch(r"[\w./:\\=,@+-]+", word) else f'"{word}"' for word in words)])
    return shlex.join(["python3", f"harness/{program}.py", *words])


def for_this_system(text: str) -> str:
    """Text whose commands are those of a POSIX shell, with this system's name of Python."""
    return text.replace("python3 ", "py ") if os.name == "nt" else text


def command_lines(text: str, width: int, indent: str = "  ") -> list[str]:
    """A command in lines of at most `width` that a shell joins again; in one line on Windows."""
    units = [""]                  # an option stays with its value
    for word in map(shlex.quote, shlex.split(text)):
        if units[-1].startswith("--") and " " not in units[-1] and not word.startswith("--"):
            units[-1] += f" {word}"
        else:
            units.append(word)
    lines = [indent + units[1]]
    for unit in units[2:]:
        if len(lines[-1]) + len(unit) + len("  \\") > width:
            lines[-1] += " \\"
            lines.append(indent * 2 + unit)
        else:
            lines[-1] += f" {unit}"
    return lines if os.name != "nt" else [indent + text]


class Parser(argparse.ArgumentParser):
    """The parser of a program, described by its docstring, which ends with `exit codes:`.

    Errors are one safe line on standard error, and exit code 2.
    """

    def __init__(self, program: str, doc: Optional[str], arguments: str = "[options]") -> None:
        about, _, codes = (doc or "").partition("\nexit codes:")
        super().__init__(
            prog=program, usage=f"{command(program)} {arguments}", allow_abbrev=False,
            description=for_this_system(about.strip()),
            epilog=f"exit codes:{codes}".rstrip() if codes else None,
            formatter_class=lambda prog: argparse.RawDescriptionHelpFormatter(
                prog, max_help_position=28, width=WIDE))

    def error(self, message: str) -> NoReturn:
        shown = printable(re.sub("^argument ", "", message), 400)
        self.exit(2, f"{self.prog}: {shown}; --help lists the options\n")
