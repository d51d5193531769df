"""Rows as text: fitted to a terminal, as Markdown, as CSV. Pure functions.

Cells may hold what strangers wrote. Nothing that comes out of here moves a cursor, links, mentions,
breaks a table or is taken for a formula: all of it is printable ASCII (report.printable), and each
format takes away what it gives a meaning to.
"""
from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple, Optional, Union

from report import printable

Cell = Union[None, str, int, float]

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


def fitted(columns: Sequence[Column], rows: Sequence[Sequence[str]], width: int) -> list[str]:
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


def csv_text(titles: Sequence[str], rows: Iterable[Sequence[Cell]]) -> str:
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
