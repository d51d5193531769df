"""Find what GitHub would not show of a Markdown text as it was written.

What is code depends on every line before it. So only two plain forms count as code: a span that
ends on its line, and a block between two lines of three backticks at the left edge. All other text
is read as running text, wherever it stands: what could be hidden in one place is refused in all of
them. Reading ends at the first hidden part, so that nothing behind it has to be understood.
"""
from __future__ import annotations

import html
import re
from collections.abc import Iterator
from typing import Optional

# What may begin a line before its text: blanks, quotations and list items.
BLANKS, MARKS = re.compile(r"[ ]*"), re.compile(r"(?:[ >]|(?:[-+*]|\d{1,9}[.)])(?=[ ]|\Z))*")
FENCE = re.compile(MARKS.pattern + "(?:```|~~~)")
FENCE_START = re.compile(r"```([A-Za-z0-9+#.-]{0,20})[ ]*\Z")
FENCE_END = re.compile(r"```[ ]*\Z")
RENDERED = ("mermaid", "math", "geojson", "topojson", "stl")     # shown as pictures
DELIMITERS = re.compile(r"[ ]*\|?[ ]*:?-+:?[ ]*(?:\|[ ]*:?-+:?[ ]*)*\|?[ ]*\Z")
DEFINITION = re.compile(r"^\[(?:[^\[\]\\]|\\.){1,999}\]:", re.MULTILINE | re.DOTALL)

SPECIAL = re.compile(r"`+|\\.?|[<$&]|!\[|\]\(|\[\s*\]\(", re.DOTALL)
AUTOLINK = re.compile(r"<([A-Za-z][A-Za-z0-9+.-]{1,31}:[^\s<>]*|[\w.!#$%&'*+/=?^`{|}~-]+@[\w.-]+)>")
_ATTRIBUTE = r"""\s+[a-zA-Z_:][\w.:-]*(?:\s*=\s*(?:[^\s"'=<>`]+|'[^']*'|"[^"]*"))?"""
# The start of a tag is enough at the start of a line.
TAG = re.compile(rf"<[!?]|</?[a-zA-Z][a-zA-Z0-9-]*(?:{_ATTRIBUTE})*\s*/?>"
                 r"|(?<![^\n])</?[A-Za-z][A-Za-z0-9-]*(?:[\s/>]|\Z)")
TARGET = re.compile(r"\]\(\s*(<[^<>\n]*>|[^\s()]*(?:\([^\s()]*\)[^\s()]*)*)(\s+[\"'(])?")
SCHEME = re.compile(r"\s*([A-Za-z][A-Za-z0-9+.-]*):")
ENTITY = re.compile(r"&(?:#\d{1,7}|#[xX][0-9A-Fa-f]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});")


class Hidden(Exception):
    """The first hidden part. The arguments are what it is, and the text from there on."""


def hidden(text: str) -> Optional[tuple[str, str]]:
    """(what, the text from there on) of the first part that may not be shown, or None."""
    try:
        for lines in _paragraphs(text):
            # A line may continue one that began outside of its quotation or list.
            for start in (BLANKS, MARKS):
                shown = [start.sub("", line, 1) for line in lines]
                _require_rows(shown)
                _require_text("\n".join(shown))
    except Hidden as found:
        return found.args[0], found.args[1]
    return None


def _paragraphs(text: str) -> Iterator[list[str]]:
    """The lines between two empty lines, without blocks of code. Raises Hidden."""
    lines, fence = list[str](), ""
    for line in re.split(r"\r\n|\r|\n", text):
        if "\t" in line:
            raise Hidden("a tab", line[line.index("\t"):])
        start = FENCE_START.match(line)
        if fence and FENCE_END.match(line):
            fence = ""
        elif fence and not re.match(r"[ ]{0,3}```", line):
            continue
        elif FENCE.match(line):
            if fence or not start or start[1].lower() in RENDERED:
                raise Hidden("a code block with more than ``` and a language at the left edge",
                             line)
            fence = line
        elif line.strip(" >"):
            lines.append(line)
            continue
        yield lines
        lines = []
    if fence:
        raise Hidden("a code block without end", fence)
    yield lines


def _require_rows(lines: list[str]) -> None:
    """Raise Hidden for a row with more cells than the head of its table, which are not shown."""
    most: Optional[int] = None
    for before, line in zip(lines, lines[1:]):
        count = len(_cells(line))
        if most is not None and count > most:
            raise Hidden("a row with more cells than its table", line)
        if DELIMITERS.match(line) and "|" in before + line and len(_cells(before)) == count:
            most = count


def _cells(row: str) -> list[str]:
    cells = re.split(r"(?<!\\)\|", row.strip())
    return cells[not cells[0].strip():len(cells) - (len(cells) > 1 and not cells[-1].strip())]


def _require_text(text: str) -> None:
    """Raise Hidden at the first part of running text that is not shown."""
    found = DEFINITION.search(text)
    if found:
        raise Hidden("a link definition or footnote", text[found.start():])
    at, has_spans = 0, True
    while True:
        found = SPECIAL.search(text, at)
        if found is None:
            return
        at, mark = found.start(), found[0]
        if mark[0] == "`" and has_spans:
            end = re.compile(rf"(?<!`){mark}(?!`)").search(text, at + len(mark))
            span = text[at:end.end()] if end else "\n"
            # A span that ends on another line may not be one, nor the spans behind it. A | parts
            # it where the line is in a table.
            has_spans = "\n" not in span and "|" not in span
            at += len(span) if has_spans else len(mark)
        elif mark[0] in "`\\":
            has_spans &= mark != "\\`"
            at += len(mark)
        else:
            at += _shown_characters(text, at, mark)


def _shown_characters(text: str, at: int, mark: str) -> int:
    """How many characters are shown as they are. Raises Hidden."""
    what = {"!": "an image", "[": "a link without text"}.get(mark[0], "")
    link = AUTOLINK.match(text, at) if mark == "<" else TARGET.match(text, at)
    length = len(link[0]) if link and mark == "<" else len(mark)
    if link and mark in ("<", "]("):
        scheme = SCHEME.match(html.unescape(link[1].strip("<>")))
        if scheme and scheme[1].lower() not in ("http", "https", "mailto"):
            what = "a link to no web page"
        elif mark == "](" and link[2]:
            what = "the title of a link"
        elif "`" in link[0]:                  # it begins no span there
            what = "a backtick in an address"
    elif mark == "<" and TAG.match(text, at):
        what = "HTML"
    elif mark == "$":
        end = text.find("$", at + 1)
        if text[at + 1:at + 2] in ("$", "`") or end > 0 and not text[at + 1].isspace() \
                and not text[end - 1].isspace() and not text[end + 1:end + 2].isalnum() \
                and not text[max(at - 1, 0):at].isalnum():
            what = "a formula"
    elif mark == "&":
        entity = ENTITY.match(text, at)
        shown = html.unescape(entity[0]) if entity else "&"
        if entity and shown != entity[0] and not (shown.isascii() and shown.isprintable()
                                                  and shown.strip()):
            what = "a character reference"
    if what:
        raise Hidden(what, text[at:])
    return length
