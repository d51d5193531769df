"""Text for people and other programs: safe printing, numbers, tables, CSV, command lines.

Everything that a program prints and that may hold foreign text (a server's messages, a path, a
value of a submission) goes through `printable`.
"""
from __future__ import annotations

import argparse
import csv
import difflib
import io
import json
import os
import re
import shlex
import shutil
import sys
import textwrap
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NoReturn, Optional, TextIO, Union

TableCell = Union[None, str, int, float]

ON_WINDOWS = os.name == "nt"  # where commands are typed differently
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


def print_safe(text: str, stream: Optional[TextIO] = None) -> None:
    """Print on standard output; a reader that has closed the pipe does not end the program."""
    stream = sys.stdout if stream is None else stream
    encoding = getattr(stream, "encoding", None) or "utf-8"
    try:
        print(text.encode(encoding, "backslashreplace").decode(encoding), file=stream, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def print_text(text: str, stream: Optional[TextIO] = None) -> None:
    """As print_safe, in lines that fit the terminal."""
    stream = sys.stdout if stream is None else stream
    print_safe(fit_lines(text, width_of(stream)), stream)


def print_error(text: str) -> None:
    """As print_text, on standard error."""
    print_text(text, sys.stderr)


def print_result(as_json: bool, document: Any, text: str) -> None:
    """Print a program's result as one line of JSON, or as text."""
    if as_json:
        print_safe(json.dumps(document))
    else:
        print_text(text)


# --- numbers -------------------------------------------------------------------------------------
def format_number(value: Optional[float]) -> str:
    """Three significant digits, or the whole number; an exponent below 0.001; "-" for null."""
    if value is None:
        return "-"
    if value and abs(value) < 100:
        return f"{value:.3g}" if abs(value) >= 0.001 else f"{value:.1e}"
    return f"{value:.0f}"


def number_column(values: Iterable[Optional[float]]) -> list[str]:
    """Numbers with equally many decimals, two at most, for three digits of the smallest one."""
    every = list(values)
    smallest = min((abs(value) for value in every if value), default=100.0)
    decimals = 0 if smallest >= 99.95 else 1 if smallest >= 9.995 else 2
    return ["-" if value is None else f"{value:.{decimals}f}" for value in every]


def interval_column(summaries: Sequence[Mapping[str, Any]]) -> list[str]:
    """`84.1 [80.2-99.0]`, with points that align."""
    medians = number_column(one["median"] for one in summaries)
    decimals = max((len(text.partition(".")[2]) for text in medians), default=0)
    size = max(map(len, medians), default=0)
    return [f"{median:>{size}}" if one["ci_low"] is None else
            f"{median:>{size}} [{one['ci_low']:.{decimals}f}-{one['ci_high']:.{decimals}f}]"
            for median, one in zip(medians, summaries)]


def time_text(time_ms: Optional[float]) -> str:
    """`5.90 ms`, `697 ms`, `16.4 s`; "-" for null."""
    if time_ms is None:
        return "-"
    number, unit = (time_ms, "ms") if time_ms < 999.5 else (time_ms / 1000, "s ")
    return f"{number_column([number])[0]} {unit}".rstrip()


# What the name of a field ends with, and the unit of its value.
UNITS = {"_bytes": "", "_kib": "", "_count": "", "_ratio": "", "_tokens": "tokens", "_w": "W",
         "_mhz": "MHz", "_mts": "MT/s", "_gb_per_s": "GB/s"}


def field_title(field: str) -> str:
    """`memory.capacity_bytes` is `memory capacity`."""
    ending = next((ending for ending in UNITS if field.endswith(ending)), "")
    name = "file_size" if field == "file_bytes" else field[:len(field) - len(ending)]
    return name.replace(".", " ").replace("_", " ")


def field_text(field: str, value: Any) -> str:
    """A field's value with its unit: `8 GiB`, `4,096 tokens`, `yes`; "-" for null."""
    ending = next((ending for ending in UNITS if field.endswith(ending)), "")
    if value is None or isinstance(value, bool):
        shown = "-" if value is None else "yes" if value else "no"
    elif isinstance(value, (int, float)):
        if ending in ("_bytes", "_kib"):
            return size_text(value * (1024 if ending == "_kib" else 1))
        shown = f"{value:,}" if isinstance(value, int) else f"{value:g}"
    else:
        shown = " ".join(map(str, value)) if isinstance(value, list) else str(value)
    return f"{shown} {UNITS.get(ending, '')}".strip()


def size_text(size_bytes: float) -> str:
    """`23.5 GiB`, `2 MiB`."""
    power = next((power for power in (3, 2, 1) if size_bytes >= 1024 ** power), 0)
    return f"{size_bytes / 1024 ** power:.3g} {('bytes', 'KiB', 'MiB', 'GiB')[power]}"


def plural(count: int, noun: str) -> str:
    """`1 run`, `3 runs`."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def duration(seconds: float) -> str:
    """`40 s`, `12 min`, `3 h 20 min`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


# --- lines and tables for terminals --------------------------------------------------------------
def columns_of(text: str) -> int:
    """Columns of a terminal that a text takes: two for each wide East Asian letter, none for a
    combining mark."""
    return str.__len__(text) if text.isascii() else sum(
        0 if unicodedata.category(c) in ("Mn", "Me") else
        1 + (unicodedata.east_asian_width(c) in "WF") for c in text)


def _padded(cell: str, size: int, right: bool) -> str:
    blanks = " " * (size - columns_of(cell))
    return blanks + cell if right else cell + blanks


def align_columns(rows: Sequence[Sequence[str]], right: Iterable[int] = (),
                  width: Optional[int] = None) -> list[str]:
    """Rows with aligned columns; `right` are the columns of numbers.

    width: the last column continues below itself, so that no line is longer.
    """
    numbers, widths = set(right), [max(map(columns_of, column)) for column in zip(*rows)]
    indent = GAP.join(" " * size for size in (*widths[:-1], 0))
    lines = [GAP.join(_padded(cell, size, i in numbers)
                      for i, (cell, size) in enumerate(zip(row, widths))).rstrip()
             for row in rows]
    return lines if width is None else [part for line in lines
                                        for part in wrapped(line, width, indent)]


def fit_table(titles: Sequence[str], rows: Sequence[Sequence[str]], right: Iterable[int],
              width: int) -> list[str]:
    """Titles and rows with aligned columns, in lines of at most `width` characters.

    Wider rows continue on indented lines, all broken at the same columns, and a wider cell is
    wrapped. Columns that no row fills are left out.
    """
    room, numbers, used = max(width, NARROWEST), set(right), 0
    parts: list[list[int]] = [[]]             # the columns in each line of a row
    for i, column in enumerate(zip(titles, *rows)):
        size = max(map(columns_of, column))
        if any(column[1:]):
            if parts[-1] and used + size > room:
                parts.append([])
                used = len(GAP)
            parts[-1].append(i)
            used += size + len(GAP)
    aligned = [align_columns([[row[i] for i in part] for row in (titles, *rows)],
                             [at for at, i in enumerate(part) if i in numbers]) for part in parts]
    return [line for row in zip(*aligned) for at, text in enumerate(row) if text
            for line in wrapped(GAP * bool(at) + text, room, GAP, break_words=True)]


class _Word(str):
    """A word whose length, for the wrapper, is the number of its columns."""

    def __len__(self) -> int:
        return columns_of(self)


class _Wrapper(textwrap.TextWrapper):
    """Breaks lines at blanks, and within a word that is longer than a line after a slash or at a
    wide letter."""

    def _split(self, text: str) -> list[str]:
        room = self.width - len(self.subsequent_indent)
        return [_Word(part) for word in super()._split(text)
                for part in (_steps(word) if columns_of(word) > room else [word])]


def _steps(word: str) -> list[str]:
    return re.findall(f"[^/{_IDEOGRAPHS}]*/+|[{_IDEOGRAPHS}]|[^/{_IDEOGRAPHS}]+", word)


_IDEOGRAPHS = "\u2e80-\ua4cf\uac00-\ud7a3\uf900-\ufaff\U00020000-\U0003fffd"


def wrapped(text: str, width: int, indent: str = "", break_words: bool = False) -> list[str]:
    """A sentence in lines of at most `width`; longer words stay whole, paths break at slashes."""
    return _Wrapper(width=max(width, NARROWEST), subsequent_indent=indent,
                    break_long_words=break_words, break_on_hyphens=False).wrap(text) or [""]


def fit_lines(text: str, width: Optional[int]) -> str:
    """Text whose longer lines are wrapped at words, and commands where a shell joins them again."""
    lines = []
    for line in text.splitlines() if width else [text]:
        if width is None or columns_of(line) <= width:
            lines.append(line)
            continue
        indent = " " * (len(line) - len(line.lstrip()) + len(GAP))
        printed = _COMMAND.fullmatch(line) or _SHELL_COMMAND.fullmatch(line)
        try:
            command_in = command_lines(printed[2], width, indent) if printed else []
        except ValueError:                    # a quote that no other closes: prose follows it
            command_in = []
        about = printed[1] if printed and command_in else line
        lines += [*(wrapped(about, width, indent) if about.strip() else []), *command_in]
    return "\n".join(lines)


# A command of this harness, maybe after a few words, or an indented one of the shell.
_COMMAND = re.compile(r"(.*:|) *((?:python3?|py) harness/\w+\.py(?: .*)?)")
_SHELL_COMMAND = re.compile(r"() +((?:TZ=UTC git|git|mkdir) .*)")


def width_of(stream: TextIO) -> Optional[int]:
    """Columns of a terminal, or COLUMNS if that is set; None for a file or pipe."""
    set_to = os.environ.get("COLUMNS", "")
    try:
        columns = int(set_to) if set_to.isdecimal() else (
            os.get_terminal_size(stream.fileno()).columns if stream.isatty() else 0)
    except (OSError, ValueError):             # a terminal without a size, such as in a test
        columns = 80
    return max(columns, NARROWEST) if columns else None


def terminal_width() -> int:
    """Columns of standard output; WIDE for a file or pipe, unless COLUMNS is set."""
    return width_of(sys.stdout) or WIDE


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


def markdown_words(text: str, limit: int = 200) -> str:
    """Foreign text for Markdown: as it is if it can only be words, else a code span."""
    is_plain = re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9 ,.+()-]*", text) and "www." not in text.lower()
    return text[:limit] if is_plain else code_span(text, limit)


def markdown_table(titles: Sequence[str], rows: Iterable[Sequence[str]],
                   right: Iterable[int] = ()) -> str:
    """A Markdown table of cells that are safe already (see code_span), with a final newline."""
    numbers = set(right)
    rule = ["--:" if i in numbers else "---" for i in range(len(titles))]
    return "".join(f"| {' | '.join(line)} |\n" for line in (titles, rule, *rows))


def csv_text(titles: Sequence[str], rows: Iterable[Sequence[TableCell]]) -> str:
    """CSV (RFC 4180, but for LF): numbers bare, texts quoted, null empty; no cell is a formula."""
    out = io.StringIO()
    writer = csv.writer(out, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n")
    writer.writerow(titles)
    for row in rows:
        cells = ["" if cell is None else cell for cell in row]
        writer.writerow([("'" if FORMULA.match(cell) else "") + printable(cell, MAX_CSV_CHARACTERS)
                         if isinstance(cell, str) else cell for cell in cells])
    return out.getvalue()


# --- command lines -------------------------------------------------------------------------------
def shell_word(word: str) -> str:
    """A word quoted for this system's shell. On Windows that is PowerShell, where curly quotes work
    like straight ones and -a.b would be two words; most words also fit cmd.exe, and Git's bash,
    where a backslash outside of quotes would be lost."""
    if not ON_WINDOWS:
        return shlex.quote(word)
    if re.fullmatch(r"--?[A-Za-z][\w-]*|[\w./][\w./:=@+-]*", word):
        return word
    if re.search("[$`\"\u201c-\u201e]", word):
        return "'" + re.sub("(['\u2018-\u201b])", r"\1\1", word) + "'"
    return '"' + re.sub(r"(\\+)\Z", r"\1\1", word) + '"'


def python_word() -> str:
    """What to type for Python on this system: without python.org's launcher, Windows has no py."""
    return "python3" if not ON_WINDOWS else "py" if shutil.which("py") else "python"


def command(program: str, *words: str) -> str:
    """A command that can be typed as it is in the repository's root, on this system."""
    return " ".join([python_word(), f"harness/{program}.py", *map(shell_word, words)])


def for_this_system(text: str) -> str:
    """Text whose commands are those of a POSIX shell, with this system's name of Python."""
    return text.replace("python3 ", python_word() + " ")


def command_lines(text: str, width: int, indent: str = "  ") -> list[str]:
    """A command in lines of at most `width` that a shell joins again; in one line on Windows."""
    if ON_WINDOWS:
        return [indent + text]
    units = [""]                  # an option stays with its value
    for word in (word if word in ("&&", "|") else shlex.quote(word) for word in shlex.split(text)):
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
    return [part for line in lines for part in _continued(line, width)]


def _continued(line: str, width: int) -> list[str]:
    """The lines of a command whose path is too long: broken after a slash, where a shell joins
    them without a blank."""
    lines, quote = [""], ""              # within quotes, a shell would keep the line's end
    for step in _steps(line) if len(line) > width else [line]:
        if lines[-1] and len(lines[-1]) + len(step) + len(" \\") > width:
            lines[-1] += quote + "\\"
            lines.append(quote)
        lines[-1] += step
        if step.replace("'\"'\"'", "").count("'") % 2:
            quote = "" if quote else "'"
    return lines


def with_command(text: str, width: int, indent: str = "  ") -> list[str]:
    """A sentence in lines of at most `width`. A command at its end, after a colon, gets lines of
    its own that a shell joins again.
    """
    sentence, *commands = re.split(r"(?<=:) (?=(?:python3?|py) harness/)", text, maxsplit=1)
    return [*wrapped(indent + sentence, width, indent),
            *(line for one in commands for line in command_lines(one, width, indent + GAP))]


# What argparse writes, and the wording of this project's messages.
ARGPARSE_WORDS = (
    (r"^argument ", ""), (r"^unrecognized arguments: ", "unknown argument: "),
    (r"^the following arguments are required: (.*)", r"\1 is missing"),
    (r"expected one argument$", "a value is missing"),
    (r"expected at least one argument$", "a value is missing"),
    (r"expected (\d+) arguments$", r"\1 values are needed"),
    (r"not allowed with argument", "cannot be combined with"),
    (r"ignored explicit argument", "takes no value; leave out"))


class Parser(argparse.ArgumentParser):
    """The parser of a program, described by its docstring, which ends with `exit codes:`.

    Errors are one safe line on standard error, and exit code 2.
    """

    def __init__(self, program: str, doc: Optional[str], arguments: str = "[options]") -> None:
        about, _, codes = (doc or "").partition("\nexit codes:")
        self.loose = ""                # what to do about a value without its option
        super().__init__(
            prog=program, usage=f"{command(program)} {arguments}", allow_abbrev=False,
            description=for_this_system(about.strip()),
            epilog=f"exit codes:{codes}".rstrip() if codes else None,
            formatter_class=lambda prog: _Help(prog, max_help_position=28,
                                               width=min(terminal_width(), WIDE)))

    def error(self, message: str) -> NoReturn:
        for pattern, words in ARGPARSE_WORDS:
            message = re.sub(pattern, words, message)
        # Editors make long dashes of two hyphens.
        unknown = re.match(r"unknown argument: [-\u2010-\u2015]*([\w-]+)(?=[\s=]|$)", message)
        for near in difflib.get_close_matches(f"--{unknown[1]}" if unknown else "",
                                              self._option_string_actions, 1, 0.75):
            message += f" (did you mean {near}?)"
        if re.match(r"unknown argument: [^-\u2010-\u2015]", message) and "?" not in message:
            message += self.loose
        bare = re.match(r"(--[\w-]+): (?:a value is missing|\d values are needed)$", message)
        shape = self._option_string_actions[bare[1]].metavar if bare else None
        if bare and shape:
            values = shape if isinstance(shape, str) else " ".join(shape)
            message += f"; type {bare[1]} {values}"
        shown = printable(message, 400)
        print_error(f"{self.prog}: {shown}; --help lists the options")
        self.exit(2)


class _Help(argparse.RawDescriptionHelpFormatter):
    """Help pages that fit the terminal: paragraphs are filled, examples keep their lines."""

    def _split_lines(self, text: str, width: int) -> list[str]:
        return wrapped(" ".join(text.split()), width)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        title = "exit codes:\n"
        lines: list[str] = []
        for part in text.split("\n\n"):
            if part.startswith(title):
                lines += ["exit codes:", *wrapped(
                    GAP + " ".join(part[len(title):].split()), width, GAP)]
            elif part.startswith(GAP):
                lines += [shown for line in part.splitlines() for shown in _example(line, width)]
            else:
                lines += wrapped(" ".join(part.split()), width)
            lines.append("")
        return "\n".join(lines[:-1])


def _example(line: str, width: int) -> list[str]:
    """`  command    what it does`, in two lines if one is too long."""
    typed, _, about = line.strip().partition(GAP)
    if len(line) <= width:
        return [line]
    lines = command_lines(typed, width) if len(typed) + len(GAP) > width else [GAP + typed]
    return lines + wrapped(f"{GAP * 2}{about.strip()}", width, GAP * 2) * bool(about)
