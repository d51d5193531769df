"""Safe printing, numbers as text, aligned tables, and the argument parser that all programs share."""
from __future__ import annotations

import argparse
import csv
import io
import os
import re
import sys
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, NoReturn, Optional, Union

Json = dict[str, Any]


TableCell = Union[None, str, int, float]

GAP = "  "
CUT = ".."
WIDE = 100                    # columns where there is no terminal that says
NARROWEST = 20
SHORTEST = 6                  # characters of a text in a table that hardly fits
MAX_CSV_CHARACTERS = 30_000   # spreadsheets take 32,767 in a cell
# What spreadsheets take for the start of a formula, also behind blanks and in the wide forms that
# some of them fold; one apostrophe in front makes it text.
FORMULA = re.compile(r"[\s'\"]*[=+\-@\uff1d\uff0b\uff0d\uff20]|[\t\r\n]")


class Column(NamedTuple):
    """A column of a fitted table.

    right: numbers. least: characters that it may be cut to; None for not at all. rank: where the
    terminal is narrow, columns with the highest go first; 0 stays. common: before any goes, this
    one is told once for all rows where it is the same in all.
    """

    title: str
    right: bool = False
    least: Optional[int] = None
    rank: int = 0
    common: bool = False


def fit_table(columns: Sequence[Column], rows: Sequence[Sequence[str]], width: int) -> list[str]:
    """Title line and rows, none longer than `width`: fewer columns, then shorter cells.

    Columns without any text in any row are left out. What all rows have in common may come first,
    in lines of its own.
    """
    natural = [max((len(row[i]) for row in rows), default=0) for i in range(len(columns))]
    kept = [i for i, size in enumerate(natural) if size]
    for i in kept:
        natural[i] = max(natural[i], len(columns[i].title))
    least = [size if column.least is None else min(size, max(column.least, len(column.title)))
             for size, column in zip(natural, columns)]
    common = []
    if len(rows) > 1 and _total(kept, least) > width:
        common = [i for i in kept if columns[i].common and len({row[i] for row in rows}) == 1]
    kept = _kept(columns, [i for i in kept if i not in common], least, width)
    if _total(kept, least) > width:           # nothing more can go, so texts get shorter still
        least = [size if column.least is None else min(size, SHORTEST)
                 for size, column in zip(least, columns)]
    widths = _widths(kept, natural, least, width)
    lines = [[column.title for column in columns], *rows]
    shared = ", ".join(f"{columns[i].title} {rows[0][i]}" for i in common)
    return [*(wrapped(f"in all rows: {shared}", width, GAP) if common else []),
            *(_line(columns, line, widths)[:max(width, NARROWEST)] for line in lines)]


def _total(kept: Iterable[int], sizes: Sequence[int]) -> int:
    return sum(sizes[i] + len(GAP) for i in kept) - len(GAP)


def _kept(columns: Sequence[Column], kept: list[int], least: Sequence[int],
          width: int) -> list[int]:
    while _total(kept, least) > width:
        last = max(kept, key=lambda i: columns[i].rank)
        if not columns[last].rank:
            break
        kept = [i for i in kept if i != last]
    return kept


def _widths(kept: Sequence[int], natural: Sequence[int], least: Sequence[int],
            width: int) -> dict[int, int]:
    """What is left over is shared by the cut columns; what one does not need the others get."""
    spare = max(width - _total(kept, least), 0)
    widths = {i: least[i] for i in kept}
    cut = sorted((i for i in kept if natural[i] > least[i]), key=lambda i: natural[i] - least[i])
    for done, i in enumerate(cut):
        more = max(min(natural[i] - least[i], spare // (len(cut) - done)), 0)
        widths[i] += more
        spare -= more
    return widths


def _line(columns: Sequence[Column], cells: Sequence[str], widths: dict[int, int]) -> str:
    shown = []
    for i, width in widths.items():
        text = cells[i] if len(cells[i]) <= width else cells[i][:width - len(CUT)] + CUT
        shown.append(text.rjust(width) if columns[i].right else text.ljust(width))
    return GAP.join(shown).rstrip()


def wrapped(text: str, width: int, indent: str = "") -> list[str]:
    """Words of a sentence in lines of at most `width`; words that are longer are cut."""
    lines, room = [""], max(width, NARROWEST)
    for word in text.split():
        joined = f"{lines[-1]} {word}" if lines[-1].strip() else lines[-1] + word
        if len(joined) > room and lines[-1].strip():
            lines.append(indent + word)
        else:
            lines[-1] = joined
    return [line[:room] for line in lines]


# --- for other programs --------------------------------------------------------------------------
def code_span(text: str) -> str:
    """Untrusted text for a Markdown table: in a code span nothing links, mentions or is HTML."""
    shown = printable(text).replace("`", "'").replace("|", "\\|").strip()
    return f"`{shown}`" if shown else ""


def markdown(titles: Sequence[str], rows: Iterable[Sequence[str]],
             right: Iterable[int] = ()) -> str:
    """A Markdown table of cells that are safe by now (see code_span)."""
    numbers = set(right)
    rule = ["--:" if i in numbers else "---" for i in range(len(titles))]
    return "".join(f"| {' | '.join(line)} |\n" for line in (titles, rule, *rows))


def csv_text(titles: Sequence[str], rows: Iterable[Sequence[TableCell]]) -> str:
    """CSV (RFC 4180, CRLF): numbers bare, texts quoted, null empty; no cell is a formula."""
    out = io.StringIO()
    writer = csv.writer(out, quoting=csv.QUOTE_NONNUMERIC)
    writer.writerow(titles)
    for row in rows:
        writer.writerow(["" if cell is None else _csv_cell(cell) for cell in row])
    return out.getvalue()


def _csv_cell(cell: Union[str, int, float]) -> Union[str, int, float]:
    if not isinstance(cell, str):
        return cell
    shown = printable(cell, MAX_CSV_CHARACTERS)
    return f"'{shown}" if FORMULA.match(cell) else shown
WIDEST_HELP = 100


class Parser(argparse.ArgumentParser):
    """argparse, but for errors: one line, nothing unescaped, exit code 2."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {printable(re.sub('^argument ', '', message), 400)}; "
                     f"--help tells all flags\n")


class Plain(argparse.RawDescriptionHelpFormatter):
    """Keeps the description's lines; flags in one column of a readable width."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=28, width=WIDEST_HELP)


def printable(text: str, limit: int = 200) -> str:
    """Text that may hold anything, as one line of harmless ASCII."""
    cut = text if len(text) <= limit else text[:limit] + "..."
    shown = "".join(c if unicodedata.category(c)[0] != "C" else ascii(c)[1:-1] for c in cut)
    return shown.encode("ascii", "backslashreplace").decode()


def print_safe(text: str) -> None:
    """Print on standard output; whoever has stopped reading it does not end the program."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    try:
        print(text.encode(encoding, "backslashreplace").decode(encoding), flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


# --- numbers as text -----------------------------------------------------------------------------
def format_number(value: Optional[float]) -> str:
    """Three significant digits, or the whole number; an exponent below 0.001; "-" for null."""
    if value is None:
        return "-"
    if value and abs(value) < 100:
        return f"{value:.3g}" if abs(value) >= 0.001 else f"{value:.1e}"
    return f"{value:.0f}"


def with_interval(summary: Json) -> str:
    """`84.1 [80.2-99]`: median with its interval, without one where there is none."""
    if summary["ci_low"] is None:
        return format_number(summary["median"])
    return f"{format_number(summary['median'])} [{format_number(summary['ci_low'])}-{format_number(summary['ci_high'])}]"


def duration(seconds: float) -> str:
    """`40 s`, `12 min`, `3 h 20 min`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def align_columns(rows: Sequence[Sequence[str]], right: Iterable[int] = ()) -> list[str]:
    """Rows with their columns aligned; `right` are columns of numbers."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    numbers = set(right)
    return ["  ".join(cell.rjust(width) if i in numbers else cell.ljust(width)
                      for i, (cell, width) in enumerate(zip(row, widths))).rstrip()
            for row in rows]
