"""The picture of the README: headline rows as bars, in SVG without script or font files.

One file per colour scheme, since a <picture> of a README chooses between files. A bar from zero is
a row's median; a dot is one run, a hollow dot a run that is not ranked. The layout is narrow, so
that a phone can show it.
"""
from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple
from xml.sax.saxutils import escape

from compare import ranking, tables

MAX_ROWS = 12
WIDTH, MARGIN = 640, 12
ROW_HEIGHT, HEADING_HEIGHT, TITLE_HEIGHT, END_HEIGHT = 62, 34, 40, 34
BAR_TOP, BAR_HEIGHT, BAR_WIDTH = 24, 12, WIDTH - 2 * MARGIN
RADIUS = 4
WRITES = "decode_tokens_per_s"


class Colours(NamedTuple):
    """Of one scheme, each with enough contrast on the background."""

    background: str
    text: str
    faint: str
    bar: str
    dot: str


SCHEMES = {"light": Colours("#ffffff", "#1f2328", "#59636e", "#9ec5e8", "#0b5394"),
           "dark": Colours("#0d1117", "#f0f6fc", "#9198a1", "#1f4e79", "#8ecbff")}


def svg(blocks: Sequence[tables.Block], colours: Colours) -> str:
    """The picture of the blocks with most owners and runs, at most MAX_ROWS rows."""
    chosen = _chosen(blocks)
    places = [place for block in chosen for place in block]
    largest = max((value for place in places for value in _values(place.row)), default=1.0)
    details = dict(zip(map(id, places), tables.headline_cells(places, tables.NUMBERS)))
    y, parts = TITLE_HEIGHT, [
        _text(MARGIN, 26, "How fast models write on these machines, in tokens per second", 17,
              colours.text, bold=True)]
    for block in chosen:
        parts.append(_text(MARGIN, y + 24, tables.heading(block), 15, colours.text, bold=True))
        y += HEADING_HEIGHT
        for place in block:
            parts += _row(place, details[id(place)], y, BAR_WIDTH / largest, colours)
            y += ROW_HEIGHT
    parts.append(_text(MARGIN, y + 22, "bar: median of the owners; dot: one run; "
                       "hollow: not ranked", 13, colours.faint))
    height = y + END_HEIGHT
    return "\n".join((
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" '
        f'height="{height}" role="img" font-family="system-ui, sans-serif">',
        "<title>Output tokens per second of each machine and model</title>",
        f'<rect width="{WIDTH}" height="{height}" fill="{colours.background}"/>',
        *parts, "</svg>", ""))


def _chosen(blocks: Sequence[tables.Block]) -> list[tables.Block]:
    """Whole blocks in order; where they do not fit, those with most owners, their best rows."""
    sizes = {id(block): (len({run.handle for place in block for run in place.row.runs}),
                         sum(len(place.row.runs) for place in block)) for block in blocks}
    room, kept = MAX_ROWS, {}
    for block in sorted(blocks, key=lambda block: sizes[id(block)], reverse=True):
        if room > 0:
            kept[id(block)] = block[:room]
            room -= len(kept[id(block)])
    return [kept[id(block)] for block in blocks if id(block) in kept]


def _values(row: ranking.Row) -> list[float]:
    left_out = [one.numbers.get(WRITES) for one in row.left_out]
    return [value for value in (*row.values.get(WRITES, ()), *left_out) if value is not None]


def _row(place: ranking.Place, cells: Sequence[str], y: int, scale: float,
         colours: Colours) -> list[str]:
    row, middle = place.row, y + BAR_TOP + BAR_HEIGHT / 2
    _, machine, quant, _, writes, reads, first, at_once, runs = cells
    spread = row.numbers.get(WRITES)
    parts = [_text(MARGIN, y + 17, f"{machine}, {quant}", 15, colours.text),
             _text(WIDTH - MARGIN, y + 17, f"{writes} tok/s", 15, colours.text, bold=True,
                   end=True)]
    if spread:
        parts.append(f'<rect x="{MARGIN}" y="{y + BAR_TOP}" width="{spread.value * scale:.1f}" '
                     f'height="{BAR_HEIGHT}" rx="2" fill="{colours.bar}"/>')
    hollow = [one.numbers.get(WRITES) for one in row.left_out]
    for values, fill, line in ((row.values.get(WRITES, ()), colours.dot, colours.background),
                               (hollow, colours.background, colours.dot)):
        parts += [f'<circle cx="{MARGIN + value * scale:.1f}" cy="{middle:.1f}" r="{RADIUS}" '
                  f'fill="{fill}" stroke="{line}" stroke-width="1.5"/>'
                  for value in values if value is not None]
    owners = runs.partition("/")[2]
    notes = [f"reads {reads} tok/s" if reads != "-" else "",
             f"first word of a long prompt {first} s" if first != "-" else "",
             f"4 at once {at_once} tok/s" if at_once != "-" else "",
             f"{runs.partition('/')[0]} run{'s' * (runs[:2] != '1/')}, "
             f"{owners} owner{'s' * (owners != '1')}"]
    parts.append(_text(MARGIN, y + 53, " \u00b7 ".join(filter(None, notes)), 13, colours.faint))
    return parts


def _text(x: int, y: int, text: str, size: int, colour: str, bold: bool = False,
          end: bool = False) -> str:
    more = ' font-weight="600"' * bold + ' text-anchor="end"' * end
    return f'<text x="{x}" y="{y}" font-size="{size}" fill="{colour}"{more}>{escape(text)}</text>'
