"""Find what GitHub would not show of a Markdown text as it was written.

`blocks` parses the block structure of CommonMark 0.31 with GitHub's tables and footnotes:
quotations and list items hold blocks, and decide what is code. The text of each block is then read
from left to right, since a tag in a code span is shown and a code span in a tag is not. Reading
ends at the first hidden part, so that nothing behind it has to be understood. In case of doubt,
such as for an unfinished tag, the text counts as hidden.
"""
from __future__ import annotations

import bisect
import html
import re
from typing import NamedTuple, Optional

MAX_LEVELS = 20
RULE = re.compile(r"(?:\*[ ]*){3,}\Z|(?:-[ ]*){3,}\Z|(?:_[ ]*){3,}\Z")
HEADING, UNDERLINE = re.compile(r"#{1,6}(?:[ ]|\Z)"), re.compile(r"(?:=+|-+)[ ]*\Z")
FENCE = re.compile(r"(`{3,})([^`]*)\Z|(~{3,})(.*)\Z")
ITEM = re.compile(r"([-+*]|(\d{1,9})[.)])(?=[ ]|\Z)")
HTML_START = re.compile(r"<(?:[!?]|/?[A-Za-z][A-Za-z0-9-]*(?:[\s/>]|\Z))")
FOOTNOTE = re.compile(r"\[\^[^\]\s]+\]:")
# A label, a target, and perhaps a title; what follows on the same line makes it ordinary text.
DEFINITION = re.compile(
    r"\[(?=[^\]]*[^\]\s])(?:[^\[\]\\]|\\.){1,999}\]:\s*(?:<(?:[^<>\n\\]|\\.)*>|[^\s<]\S*)[ ]*"
    r"""(?:\n|\Z|(?<=\s)(?:"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|\((?:[^()\\]|\\.)*\))[ ]*"""
    r"(?:\n|\Z))", re.DOTALL)
DELIMITERS = re.compile(r"[ ]*\|?[ ]*:?-+:?[ ]*(?:\|[ ]*:?-+:?[ ]*)*\|?[ ]*\Z")
LANGUAGE = re.compile(r"[A-Za-z0-9+#.-]{0,20}\Z")
RENDERED = ("mermaid", "math", "geojson", "topojson", "stl")     # shown as pictures

RUN = re.compile("`+")
SPECIAL = re.compile(r"[\\`<$&]|!\[|\]\(|\[\s*\]\(")
AUTOLINK = re.compile(r"<([A-Za-z][A-Za-z0-9+.-]{1,31}:[^\s<>]*|[\w.!#$%&'*+/=?^`{|}~-]+@[\w.-]+)>")
_ATTRIBUTE = r"""\s+[a-zA-Z_:][\w.:-]*(?:\s*=\s*(?:[^\s"'=<>`]+|'[^']*'|"[^"]*"))?"""
TAG = re.compile(rf"<[!?]|</?[a-zA-Z][a-zA-Z0-9-]*(?:{_ATTRIBUTE})*\s*/?>")
TARGET = re.compile(r"\]\(\s*(<[^<>\n]*>|[^\s()]*(?:\([^\s()]*\)[^\s()]*)*)(\s+[\"'(])?")
SCHEME = re.compile(r"\s*([A-Za-z][A-Za-z0-9+.-]*):")
ENTITY = re.compile(r"&(?:#\d{1,7}|#[xX][0-9A-Fa-f]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});")


class Block(NamedTuple):
    """A block without blocks in it. kind: paragraph, table, heading, rule, code or fence; line: its
    first one, from 0."""

    kind: str
    line: int
    text: str


class Hidden(Exception):
    """The first hidden part. The arguments are what it is, and the text from there on."""


class _Parser:
    """Reads line by line. containers: 0 for a quotation, else the columns of a list item."""

    def __init__(self) -> None:
        self.blocks: list[Block] = []
        self.containers: list[int] = []
        self.is_empty = False                     # the innermost item has no text yet
        self.kind, self.line = "", 0              # of the open block; "": none is open
        self.lines: list[str] = []
        self.fence, self.fence_indent = "", 0

    def close(self) -> None:
        if self.kind:
            text = "\n".join(self.lines)
            self.blocks.append(Block(self.kind, self.line, text))
            if self.kind == "fence":
                raise Hidden("a code block without end", self.fence)
            _require_shown(self.kind, text)
        self.kind, self.lines = "", []

    def open(self, kind: str, line: int, text: str) -> None:
        self.kind, self.line, self.lines, self.is_empty = kind, line, [text], False

    def matched(self, line: str) -> tuple[int, int]:
        """How many of the containers go on in a line, and where the rest of the line begins."""
        at = 0
        for count, width in enumerate(self.containers):
            rest = line[at:]
            body = rest.lstrip(" ")
            indent = len(rest) - len(body)
            if width and not body and not (self.is_empty and count + 1 == len(self.containers)):
                at = len(line)
            elif width and body and indent >= width:
                at += width
            elif not width and indent < 4 and body.startswith(">"):
                at += indent + 1 + body.startswith("> ")
            else:
                return count, at
        return len(self.containers), at

    def take(self, number: int, line: str) -> None:
        count, at = self.matched(line)
        inside = count == len(self.containers)
        if inside and self.kind == "fence":
            return self._in_fence(line[at:])
        is_open, is_paragraph = bool(self.kind), self.kind == "paragraph"
        while True:
            rest = line[at:]
            body = rest.lstrip(" ")
            indent = len(rest) - len(body)
            if not body or indent >= 4:
                break
            continues = is_paragraph and inside and is_open
            if UNDERLINE.match(body) and continues:
                self.kind = "heading"
                return self.close()
            item = None if RULE.match(body) else ITEM.match(body)
            after = body[item.end():] if item else ""
            if item and continues and (not after.strip() or item[2] and int(item[2]) != 1):
                item = None
            if not item and not body.startswith(">"):
                break
            if is_open or not inside:
                self.close()
                del self.containers[count:]
            is_open, is_paragraph, inside = False, False, True
            if item:
                blanks = len(after) - len(after.lstrip(" "))
                width = indent + item.end() + (blanks if after.strip() and blanks < 5 else 1)
                self.containers.append(width)
                self.is_empty, at = True, min(at + width, len(line))
            else:
                self.containers.append(0)
                self.is_empty, at = False, at + indent + 1 + body.startswith("> ")
            count = len(self.containers)
            if count > MAX_LEVELS:
                raise Hidden(f"more than {MAX_LEVELS} levels of lists and quotations", body)
        self._leaf(number, count, rest, body, is_paragraph and is_open)

    def _in_fence(self, rest: str) -> None:
        body = rest.lstrip(" ")
        if len(rest) - len(body) < 4 and body.startswith(self.fence) \
                and not body.strip(self.fence[0] + " ") and " " not in body.rstrip():
            self.blocks.append(Block("fence", self.line, "\n".join(self.lines)))
            self.kind, self.lines = "", []
            return
        cut = min(self.fence_indent, len(rest) - len(body))
        self.lines.append(rest[cut:])

    def _leaf(self, number: int, count: int, rest: str, body: str, may_be_lazy: bool) -> None:
        """The rest of a line, after the marks of its containers."""
        indent, inside = len(rest) - len(body), count == len(self.containers)
        if body and indent < 4:
            if HTML_START.match(body) and not AUTOLINK.match(body):
                raise Hidden("HTML", body)
            if FOOTNOTE.match(body):
                raise Hidden("a footnote", body)
            fence = FENCE.match(body)
            if fence or RULE.match(body) or HEADING.match(body):
                self.close()
                del self.containers[count:]
                self.open("fence" if fence else "rule" if RULE.match(body) else "heading", number,
                          body)
                if not fence:
                    return self.close()
                self.fence, self.fence_indent, self.lines = fence[1] or fence[3], indent, []
                words = (fence[2] or fence[4] or "").strip()
                if not LANGUAGE.match(words) or words.lower() in RENDERED:
                    raise Hidden("a code block with more than a language", body)
                return
        if body and may_be_lazy:
            self.lines.append(body)
            head = self.lines[-2:]
            if inside and indent < 4 and _is_table(head):
                if self.lines[:-2]:
                    self.lines = self.lines[:-2]
                    self.close()
                self.kind, self.line, self.lines = "table", number - 1, head
        elif inside and self.kind == "code" and (indent >= 4 or not body):
            self.lines.append(rest[4:])
        elif inside and self.kind == "table" and body and indent < 4:
            self.lines.append(body)
        else:
            self.close()
            del self.containers[count:]
            if body:
                self.open("code" if indent >= 4 else "paragraph", number,
                          rest[4:] if indent >= 4 else body)


def blocks(text: str) -> list[Block]:
    """All blocks of a text without HTML, definitions or tabs. Raises Hidden."""
    parser = _Parser()
    for number, line in enumerate(re.split(r"\r\n|\r|\n", text)):
        if "\t" in line:
            raise Hidden("a tab", line[line.index("\t"):])
        parser.take(number, line)
    parser.close()
    return parser.blocks


def hidden(text: str) -> Optional[tuple[str, str]]:
    """(what, the text from there on) of the first part that is not shown, or None."""
    try:
        blocks(text)
    except Hidden as found:
        return found.args[0], found.args[1]
    return None


# --- text of a block -----------------------------------------------------------------------------
def _require_shown(kind: str, text: str) -> None:
    """Raise Hidden if a part of a block's text is not shown."""
    if kind in ("paragraph", "heading") and DEFINITION.match(text):
        raise Hidden("a link definition", text)
    if kind == "table":
        lines = text.split("\n")
        most = len(_cells(lines[0]))
        for line in lines:
            cells = _cells(line)
            if len(cells) > most:
                raise Hidden("a row with more cells than its table", line)
            for cell in cells:
                _read(cell)
    elif kind in ("paragraph", "heading"):
        _read(text)


def _cells(row: str) -> list[str]:
    cells = re.split(r"(?<!\\)\|", row.strip())
    return cells[not cells[0].strip():len(cells) - (len(cells) > 1 and not cells[-1].strip())]


def _is_table(lines: list[str]) -> bool:
    return len(lines) == 2 and "|" in lines[0] + lines[1] and bool(DELIMITERS.match(lines[1])) \
        and len(_cells(lines[0])) == len(_cells(lines[1]))


def _read(text: str) -> None:
    """Raise Hidden at the first part of running text that is not shown."""
    runs: dict[int, list[int]] = {}               # length of a run of backticks -> where
    for run in RUN.finditer(text):
        runs.setdefault(len(run[0]), []).append(run.start())
    at = 0
    while True:
        found = SPECIAL.search(text, at)
        if found is None:
            return
        at, mark = found.start(), found[0]
        if mark == "\\":
            at += 2
        elif mark == "`":
            length = len(RUN.match(text, at)[0])  # type: ignore[index]
            ends = runs[length] if length in runs else []
            place = bisect.bisect_right(ends, at)
            at = ends[place] + length if place < len(ends) else at + length
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
        elif mark == "](" and "`" in link[1]:
            what = "a backtick in the address of a link"       # where it begins no code span
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
