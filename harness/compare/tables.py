"""Rows of a comparison as text: terminal tables, a scoreboard in Markdown, CSV and JSON."""
from __future__ import annotations

import functools
import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Callable, Optional

from compare import entries, folders, history, ranking, verdicts, wanted
from compare.titles_and_sizes import machine_text, model_title
from core import flag_definitions
from core import text as texts
from core.records import Json

Block = Sequence[ranking.Place]


@functools.lru_cache(maxsize=65536)
def plain(text: str) -> str:
    """texts.printable with a cache, because most texts of a table occur in many rows."""
    return texts.printable(text)


def model_name(row: ranking.Row) -> str:
    """`Llama 3.1 8B`, as the page shows it, in ASCII."""
    return plain(model_title(row.block) if row.model == row.block else row.model)


def machine_name(row: ranking.Row) -> str:
    """`2 x RTX 3090 24 GB`, as the page shows it, in ASCII."""
    runs = [*row.runs, *(one.run for one in row.left_out)]
    return machine_text(row.group, sorted({run.device.system for run in runs
                                           if run.device.system}))


def rank_text(place: ranking.Place) -> str:
    """`3`, `3=` if other rows share the rank, or nothing."""
    return "" if place.rank is None else f"{place.rank}{'=' if place.tied else ''}"


def why_not(row: ranking.Row) -> str:
    """Why a row has no rank."""
    return plain("; ".join(row.reasons) or "the number that ranks is missing")


def found_text(read: folders.Found) -> str:
    """`12 submissions, 1 that cannot be read`, without the made-up example."""
    text = texts.plural(sum(run.handle != "example" for run in read.submissions), "submission")
    return text + (f", {len(read.broken)} that cannot be read" if read.broken else "")


# --- headline rows -------------------------------------------------------------------------------
# Heading in two lines, name of the number, factor, decimals.
NUMBERS = (("writes", "tok/s", "decode_tokens_per_s", 1.0, 1),
           ("reads", "tok/s", "prefill_tokens_per_s", 1.0, 0),
           ("first", "word s", "long_ttft_ms", 0.001, 2),
           ("4 at", "once", "output_token_throughput_tokens_per_s", 1.0, 1))
# Shown where at least one row has it.
RARE = (("J per", "token", "joules_per_output_token", 1.0, 2),
        ("card", "GiB", "peak_card_bytes", 1 / 1024 ** 3, 1))
# Shown where rows are sorted by it.
SORTED_BY = {number[2]: number for number in (
    *RARE, ("TTFT", "ms", "ttft_ms", 1.0, 0), ("4 at", "once x", "speedup_ratio", 1.0, 2),
    ("load", "s", "load_s", 1.0, 1))}
Number = tuple[str, str, str, float, int]
NARROWEST_MACHINE, USUAL_MACHINE = 15, 23
ENGINE = 3                    # its column
RARE_LEGEND = {"joules_per_output_token": " J per token: energy per output token.",
               "peak_card_bytes": " card GiB: peak memory in use on the cards."}
TIES = (" Rows with = share a rank. Rows above that are not clearly faster do not count, so 4 can "
        "follow 3=, 3=, 3=.")
LEGEND = (
    "writes: output tokens per second. reads: prompt tokens per second. first word: seconds until "
    "the first token after a prompt of about 2,900 tokens. 4 at once: output tokens per second of "
    "4 parallel requests together.",
    "A number is the median of the owners' medians. #: 1 + the number of rows of the same model "
    "and bits class that are faster, by at least 5 % and a t-test.")


def shown_blocks(blocks: Iterable[Block]) -> list[Block]:
    """Blocks without rows in which no run is a measurement, such as those of the example."""
    kept = ([place for place in block if place.row.runs or not all(
        one.run.synthetic for one in place.row.left_out)] for block in blocks)
    return [block for block in kept if block]


def _ties(blocks: Iterable[Block]) -> str:
    return TIES * any(place.tied for block in blocks for place in block)


def heading(block: Block) -> str:
    """`Qwen 2.5 7B, 4-bit`."""
    return f"{model_name(block[0].row)}, {block[0].row.bits_class}"


def numbers_of(places: Iterable[ranking.Place], metric: str) -> list[Number]:
    """NUMBERS, the one by which rows are sorted, and those of RARE that a row has."""
    known = {name for place in places for name in place.row.numbers}
    own = [SORTED_BY[metric]] if metric in SORTED_BY else []
    return [*NUMBERS, *own, *(number for number in RARE
                              if number[2] in known and number not in own)]


def headline_titles(numbers: Sequence[Number]) -> list[tuple[str, ...]]:
    """The heading in two lines."""
    return [("#", "machine", "quant", "engine", *(number[0] for number in numbers), "runs/"),
            ("", "", "", "", *(number[1] for number in numbers), "owners")]


def headline_cells(places: Block, numbers: Sequence[Number]) -> list[tuple[str, ...]]:
    """Cells in the order of the titles; a row that is not ranked shows its newest run."""
    return [(rank_text(place), machine_name(place.row),
             _with_more((place.row.quantization or "unknown").split(", ")),
             _with_more(dict.fromkeys(run.runtime.name for run in runs)),
             *(_number(place.row, name, factor, decimals)
               for _, _, name, factor, decimals in numbers),
             f"{len(runs)}/{len({run.handle for run in runs})}")
            for place in places
            for runs in [place.row.runs or [one.run for one in place.row.left_out]]]


def _with_more(names: Iterable[str]) -> str:
    """`Q4_K_M +2` where a row has three."""
    first, *others = map(plain, names)
    return f"{first} +{len(others)}" if others else first


def _number(row: ranking.Row, name: str, factor: float, decimals: int) -> str:
    spread = row.numbers.get(name)
    newest = None if row.runs or not row.left_out else row.left_out[0].numbers.get(name)
    value = spread.value if spread else newest
    return "-" if value is None else f"{value * factor:,.{decimals}f}"


def headline_text(blocks: Iterable[Block], read: folders.Found, width: int,
                  metric: str = ranking.RANKED_BY) -> str:
    """One table per model and bits class, the legend, and what is not ranked. metric: the number
    by which rows are sorted; where the table would be too wide, the engine and the last of the
    other numbers are left out."""
    kept = shown_blocks(blocks)
    places = [place for block in kept for place in block]
    numbers = numbers_of(places, metric)
    others = [number for number in numbers[1:] if number[2] != metric]
    hidden: set[int] = set()
    while True:
        table = [*headline_titles(numbers), *headline_cells(places, numbers)]
        table = [tuple(cell for i, cell in enumerate(row) if i not in hidden) for row in table]
        used = [max(map(len, column)) for column in zip(*table)]
        room = width - sum(used) + used[1] - len("=") - len(texts.GAP) * (len(used) - 1)
        if room >= used[1] or hidden and (room >= USUAL_MACHINE or len(numbers) <= len(NUMBERS)):
            break
        if hidden:
            numbers.remove(others.pop())
        hidden = {ENGINE}
    table = [(row[0] if row[0].endswith("=") else f"{row[0]} ",
              _shortened(row[1], max(room, NARROWEST_MACHINE)), *row[2:]) for row in table]
    first = ENGINE + 1 - len(hidden)
    lines = texts.align_columns(table, (0, *range(first, first + len(numbers) + 1)))
    titles, rows = lines[:2], iter(lines[2:])
    out = []
    for block in kept:
        out += [heading(block), *titles]
        for place in block:
            out.append(next(rows))
            if place.row.reasons:
                out.append(f"    not ranked: {why_not(place.row)}")
        if any(place.rank is None and not place.row.reasons for place in block):
            out.append("    Rows without a # lack the number that ranks.")
        out.append("")
    out.append(f"{found_text(read)}. {left_out_text(kept, read)}".strip())
    more = any(re.search(r" \+\d", cell) for row in table for cell in row)
    out += [LEGEND[0] + "".join(RARE_LEGEND.get(number[2], "") for number in numbers)
            + " +1: also runs with one other format or engine." * more,
            LEGEND[1] + _ties(kept)] if kept else []
    return texts.fit_lines("\n".join(out), width)


def _shortened(text: str, room: int) -> str:
    size = " " + " ".join(text.split(" ")[-2:])          # of the memory stays
    return text if len(text) <= room else f"{text[:max(room - 3 - len(size), 0)]}...{size}"


def markdown_text(blocks: Iterable[Block], read: folders.Found, metric: str) -> str:
    """A table of ranked rows per model and bits class, and the legend."""
    kept, parts = shown_blocks(blocks), []
    numbers = numbers_of((place for block in kept for place in block), metric)
    titles = [" ".join(words).replace("/ ", "/").strip()
              for words in zip(*headline_titles(numbers))]
    right = (0, *range(ENGINE + 1, len(titles)))
    for block in kept:
        rows = [[row[0], *map(texts.markdown_words, row[1:ENGINE + 1]), *row[ENGINE + 1:]]
                for row in headline_cells([place for place in block if place.rank is not None],
                                          numbers)]
        if rows:
            parts.append(f"**{texts.markdown_words(heading(block))}**\n\n"
                         + texts.markdown_table(titles, rows, right))
    left_out = left_out_text(kept, read, texts.markdown_words)
    ends = [f"{found_text(read)}. {left_out}".strip(), *LEGEND]
    ends = [*ends[:-1], ends[-1] + _ties(kept)] if parts else ends[:1]
    return "\n".join([*parts, "\n\n".join(ends)])


def left_out_text(blocks: Iterable[Block], read: folders.Found,
                  safe: Callable[[str], str] = plain) -> str:
    """Which runs no number comes from, and each one's first reason; safe: makes foreign text
    harmless."""
    reasons = Counter(safe(one.reasons[0]) for block in blocks for place in block
                      for one in place.row.left_out if not one.run.synthetic)
    synthetic = sum(run.synthetic and run.handle != "example" for run in read.submissions)
    found = [f"{texts.plural(count, 'run')} ({reason})" for reason, count in reasons.most_common()]
    found += [texts.plural(synthetic, "rehearsal")] if synthetic else []
    found += ["the made-up example"] if any(run.handle == "example"
                                            for run in read.submissions) else []
    return f"Left out: {', '.join(found)}." if found else ""


# --- rows of single phases -----------------------------------------------------------------------
SHOWN = ("decode_tokens_per_s", "prefill_tokens_per_s", "ttft_ms", "speedup_ratio")
TTFT = SHOWN.index("ttft_ms")
COLUMNS = ("#", "device", "hardware", "memory", "runtime", "quant",
           *(entries.NUMBERS[name] for name in SHOWN), "runs", "checks", "flags")
COLUMNS_RIGHT = (0, 3, 10, 11)
PHASE_LEGEND = (
    "Medians over all runs of a row, in brackets the 95 % interval over runs. #: 1 + the number of "
    "rows that are faster by at least 5 % and a t-test.")


def phase_table(block: Block) -> tuple[list[str], list[tuple[str, ...]]]:
    """(titles, rows); TTFT in seconds where every row takes one or more."""
    spreads = [[place.row.numbers.get(name) for place in block] for name in SHOWN]
    times = [one.value for one in spreads[TTFT] if one]
    factor, unit = (0.001, "s") if times and min(times) >= 1000 else (1.0, "ms")
    numbers = [_spread_texts(column, factor if i == TTFT else 1.0)
               for i, column in enumerate(spreads)]
    return [title.replace("TTFT ms", f"TTFT {unit}") for title in COLUMNS], \
        [phase_cells(*row) for row in zip(block, *numbers)]


def details_text(blocks: Sequence[Block], read: folders.Found, width: int) -> str:
    """A table per model and phase, ranked rows first, then the legend and the flags."""
    out: list[str] = []
    for block in blocks:
        titles, rows = phase_table(block)
        out += [f"{model_name(block[0].row)}: {block[0].row.phase}",
                *texts.fit_table(titles, rows, COLUMNS_RIGHT, width)]
        out += [f"not ranked: {texts.plural(count, 'row')}, {reason}"
                for reason, count in Counter(why_not(place.row) for place in block
                                             if place.rank is None).items()]
        out.append("")
    names = {flag for block in blocks for place in block for flag in place.row.flags}
    out += [f"{found_text(read)}. {PHASE_LEGEND}{_ties(blocks)}",
            *flag_definitions.explain_flags(names)]
    return texts.fit_lines("\n".join(out), width)


def phase_cells(place: ranking.Place, *numbers: str) -> tuple[str, ...]:
    """Cells of a row in the order of COLUMNS; numbers: those of SHOWN."""
    row, device = place.row, place.row.device
    return (rank_text(place) or "-", plain(device.tag), plain(entries.device_text(device)),
            f"{device.memory_gib:g} GiB" if device.memory_gib else "",
            plain(", ".join(filter(None, (entries.runtime_text(row.runtime),
                                          row.configuration)))),
            plain(row.quantization or "unknown"),
            *numbers, f"{len(row.runs)}" + (
                f" of {len(row.runs) + len(row.left_out)}" if row.left_out else ""),
            f"{row.passed}/{row.checked}" if row.checked else "", ", ".join(row.flags))


def _spread_texts(spreads: Sequence[Optional[verdicts.Spread]], factor: float) -> list[str]:
    known = [{key: None if end is None else end * factor for key, end in zip(
        ("median", "ci_low", "ci_high"), spread)} for spread in spreads if spread]
    cells = iter(texts.interval_column(known))
    return [next(cells) if spread else "" for spread in spreads]


# --- for programs --------------------------------------------------------------------------------
def csv_text(blocks: Iterable[Block]) -> str:
    """One line per row; three columns per number: its median and its interval. Rows of a phase and
    headline rows have different numbers; the others are empty."""
    rows = [flat(ranking.row_json(place)) for block in blocks for place in block]
    titles = list(dict.fromkeys(title for row in rows for title in row))
    return texts.csv_text(titles, ([row.get(title) for title in titles] for row in rows))


def flat(row: Json) -> dict[str, texts.TableCell]:
    """Flat row: `ttft_ms`, `ttft_ms_low`, ...; lists joined by semicolons."""
    out: dict[str, texts.TableCell] = {}
    for name, value in row.items():
        if name in entries.NUMBERS or name in entries.HEADLINES:
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


def json_text(blocks: Iterable[Block], read: folders.Found) -> str:
    """{"submissions", "left_out", "rows", "history", "wanted"}; rows as ranking.row_json makes
    them, those of a phase first, then the headline rows, whose phase is null."""
    return json.dumps({
        "submissions": len(read.submissions),
        "left_out": [{"path": path, "reason": reason} for path, reason in read.broken],
        "rows": [ranking.row_json(place) for block in blocks for place in block],
        "history": history.series(read.submissions),
        "wanted": wanted.cells(read.submissions)}, indent=1)
