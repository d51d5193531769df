"""Find and redact what must never be published.

The runner passes every message through `redact` before it is written, and the submission check
passes every published string through `scan`. Key scanners do not look for home folders, host names,
local addresses or serial numbers, so the patterns cover those as well as keys.

Recognised as well: values with invisible characters, with full-width or other variants of ASCII,
with JSON or percent escapes, and in base64. Not recognised: text that is encoded otherwise (twice,
hex, compressed), spelt with similar letters of another script, or split by its writer. No key is
ever tested with its vendor, since that would hand it over.

    >>> redact("no route to 192.168.1.20")
    'no route to <redacted:address>'
"""
from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Container, Iterable, Iterator, Mapping
from typing import Any, NamedTuple, Optional

from core.privacy_patterns import ERROR, PATTERNS, PUBLIC, REMEDIES, WARNING, Pattern, decoded


class Hit(NamedTuple):
    """Private text at `text[start:end]`. excerpt: masked, safe to print."""

    pattern_id: str
    kind: str
    severity: str
    start: int
    end: int
    why: str
    excerpt: str


class JsonHit(NamedTuple):
    """A hit in a JSON document; `path` is like `cpu.flags[2]` and may contain untrusted keys."""

    path: str
    hit: Hit


class MachineName(NamedTuple):
    """An exact value to search for on the machine that it belongs to.

    kind: a key of REMEDIES, or PUBLIC for a name that is published: neither it nor a part of it is
    ever a hit.
    """

    kind: str
    value: str


# --- one text ------------------------------------------------------------------------------------
_compile = functools.lru_cache(maxsize=None)(re.compile)
_MARKER = re.compile("<redacted:(?:" + "|".join(REMEDIES) + ")>")
_FULL_STOPS = "\u3002\uff61"
_QUOTES = {"\u2018": "'", "\u2019": "'", "\u201c": '"', "\u201d": '"'}
_BLANKS = "\u034f\u115f\u1160\u17b4\u17b5\u3164\uffa0"


def _fold_character(character: str) -> str:
    """The ASCII character that a reader would see; "" for an invisible one."""
    category = unicodedata.category(character)
    if category == "Cf" or character in _BLANKS or "\ufe00" <= character <= "\ufe0f":
        return ""
    if category == "Pd":
        return "-"
    if category == "Nd":
        return str(unicodedata.decimal(character))
    if character in _FULL_STOPS:
        return "."
    plain = unicodedata.normalize("NFKC", character)
    return plain if len(plain) == 1 and plain.isascii() else _QUOTES.get(character, character)


# Escapes of URLs and JSON for printable ASCII.
_ESCAPED = re.compile(r"%([2-7][0-9A-Fa-f])|\\u00([2-7][0-9A-Fa-f])|\\(/)")
Reading = tuple[str, Optional[list[int]]]     # and where each character begins; None: unchanged


def _readings(text: str) -> Iterator[Reading]:
    """The text as a reader sees it; and once more without escapes, if it has any."""
    folded, places = _fold(text)
    yield folded, places
    if _ESCAPED.search(folded):
        parts, starts, at = list[str](), list[int](), 0
        for match in _ESCAPED.finditer(folded):
            character = match[3] or chr(int(match[1] or match[2], 16))
            parts += [folded[at:match.start()], character]
            starts += [*range(at, match.start()), match.start()]
            at = match.end()
        parts.append(folded[at:])
        starts += range(at, len(folded))
        yield "".join(parts), starts if places is None else [places[start] for start in starts]


def _fold(text: str) -> Reading:
    """The text as a reader sees it, and the index of each of its characters (None: unchanged)."""
    if text.isascii():
        return text, None
    table = {c: _fold_character(c) for c in set(text) if not c.isascii()}
    folded = text.translate({ord(c): plain for c, plain in table.items()})
    if all(table.values()):
        return folded, None
    return folded, [i for i, c in enumerate(text) if table.get(c, c)]


@functools.lru_cache(maxsize=8)
def _name_patterns(names: tuple[MachineName, ...]) -> tuple[Pattern, ...]:
    """One pattern per kind of name; a name counts if no letter or digit touches it."""
    public = frozenset(name.value.lower() for name in names if name.kind == PUBLIC)
    patterns = []
    for kind in sorted({name.kind for name in names} - {PUBLIC}):
        values = {_fold(name.value)[0] for name in names if name.kind == kind} - {""}
        if values:
            # The longest first: an alternation takes the first that fits, so a public name takes
            # precedence over a private one that it begins with.
            spelt = "|".join(map(re.escape, sorted(values | public, key=lambda v: (-len(v), v))))
            patterns.append(Pattern(
                f"machine.{kind}", kind, "own name", "It is this machine's own.",
                rf"(?i)(?<![^\W_])(?:{spelt})(?![^\W_])",
                confirm=lambda match: match[0].lower() not in public))
    return tuple(patterns)


_RANKS_BY_KEYWORD: dict[str, list[int]] = {}
for _rank, _pattern in enumerate(PATTERNS):
    for _word in _pattern.keywords:
        _RANKS_BY_KEYWORD.setdefault(_word, []).append(_rank)


def _matches(text: str, scope: str, names: tuple[MachineName, ...]
             ) -> Iterator[tuple[int, int, int, Pattern]]:
    """(start, end, rank of the pattern, pattern) of every match in a folded text."""
    lowered = text.lower()
    likely = {rank for word, ranks in _RANKS_BY_KEYWORD.items() if word in lowered
              for rank in ranks}
    for rank, pattern in enumerate(PATTERNS + _name_patterns(names)):
        is_wanted = pattern.in_answers or scope != "answer"
        if is_wanted and (rank in likely or not pattern.keywords):
            regex = _compile(pattern.regex)
            has_value = "v" in regex.groupindex
            for match in regex.finditer(text):
                if pattern.confirm is None or pattern.confirm(match):
                    group = "v" if has_value and match["v"] is not None else 0
                    yield (*match.span(group), rank, pattern)


def scan(text: str, scope: str = "disclosure", allowed: Iterable[str] = frozenset(),
         names: Iterable[MachineName] = ()) -> list[Hit]:
    """Everything private in `text`, in order, without overlaps.

    scope: "disclosure" for what a contributor writes (errors), or "answer" for what a model wrote
    (warnings, and fewer patterns). allowed: values that are not private, in any case, such as the
    run's own id. names: exact values besides the patterns, see names.this_machine. Earlier
    redactions are never hits.
    """
    # Earlier redactions become line ends of the same length, so that nothing matches across them.
    plain = _MARKER.sub(lambda match: "\n" * len(match[0]), text)
    permitted = {value.lower() for value in allowed}
    merged: list[tuple[int, int, int, Pattern, str]] = []
    for match in sorted(_in_readings(plain, scope, tuple(names), permitted),
                        key=lambda match: match[:3]):
        start, end = match[:2]
        if merged and start < merged[-1][1]:
            last = merged.pop()
            named = min(last, match, key=lambda each: each[2])     # by the first of the table
            match = (last[0], max(end, last[1]), *named[2:])
        merged.append(match)
    severity = WARNING if scope == "answer" else ERROR
    # An excerpt has at most three characters, and never more than a third of all.
    return [Hit(pattern.id, pattern.kind, severity, start, end, pattern.why,
                f"{ascii(value[:min(3, len(value) // 3)])[1:-1]}... ({len(value)} characters)")
            for start, end, _, pattern, value in merged]


# In base64, ASCII text has + and / (or - and _) only in place of some > ? and ~, so that a value is
# found without them. No private value has a shorter code.
_ENCODED = re.compile("(?<![A-Za-z0-9])[A-Za-z0-9]{16,}")


def _in_readings(text: str, scope: str, names: tuple[MachineName, ...], permitted: set[str],
                 is_decoded: bool = False) -> Iterator[tuple[int, int, int, Pattern, str]]:
    """Every match as (start, end, rank, pattern, value); places are those of the text itself. A
    match in decoded base64 is all of its code."""
    for folded, places in _readings(text):
        for start, end, rank, pattern in _matches(folded, scope, names):
            value = folded[start:end]
            if start == end or value.lower() in permitted:
                continue
            if places is not None:
                # Up to the next character that is kept; an escape is part of its character.
                last = places[end - 1]
                next_at = places[end] if end < len(places) else len(text)
                escape = _ESCAPED.match(text, last)
                start, end = places[start], min(escape.end() if escape else last + 1, next_at)
            yield start, end, rank, pattern, value
    for code in () if is_decoded else _ENCODED.finditer(text):
        inner = decoded(code[0])
        for _, _, rank, pattern, _ in _in_readings(inner, scope, names, permitted,
                                                   True) if inner else ():
            yield *code.span(), rank, pattern, code[0]


def redact(text: str, names: Iterable[MachineName] = (), key: str = "") -> str:
    """`text` with every hit replaced by `<redacted:kind>`; the result has no hits. key: of the JSON
    field, which may show that it is a version.

    Repeats until nothing is found, because a replacement can expose a neighbour that did not match
    before. Each round removes characters, and redacting again changes nothing.
    """
    known = tuple(names)
    while True:
        hits = list(scan_field(key, text, "disclosure", names=known))
        if not hits:
            return text
        for hit in reversed(hits):
            text = f"{text[:hit.start]}<redacted:{hit.kind}>{text[hit.end:]}"


# --- JSON documents ------------------------------------------------------------------------------
# Fields of a ledger line that hold what a model or a suite wrote, not what a contributor states.
LEDGER_SCOPES: Mapping[str, str] = {"response.text": "answer", "response.reasoning_text": "answer",
                                    "request.prompt": "answer"}
_NUMBERS = {int, float}
_VERSION_WORDS = frozenset(("version", "driver", "build", "release", "firmware", "bios"))


def strings(document: Any, known: Container[str] = ()) -> Iterator[tuple[str, str, str]]:
    """(path, key, text) of every string in a JSON document; keys are strings with an empty key.
    known: keys that are left out."""
    waiting: list[tuple[str, str, Any]] = [("", "", document)]
    while waiting:       # an explicit stack: a hostile document may be deeper than Python's
        path, key, value = waiting.pop()
        if isinstance(value, str):
            yield path, key, value
        elif isinstance(value, list):
            # Skip numbers at once: the times of a call are lists of thousands.
            if not _NUMBERS.issuperset(map(type, value)):
                waiting += [(f"{path}[{i}]", key, one) for i, one in enumerate(value)
                            if isinstance(one, (str, list, dict))]
        elif isinstance(value, dict):
            for name, one in value.items():
                is_searched = isinstance(one, (str, list, dict))
                if is_searched or name not in known:
                    below = f"{path}.{name}" if path else str(name)
                    if name not in known:
                        waiting.append((below, "", str(name)))
                    if is_searched:
                        waiting.append((below, str(name), one))


def scan_json(document: Any, scopes: Mapping[str, str] = LEDGER_SCOPES,
              allowed: Iterable[str] = frozenset(), names: Iterable[MachineName] = ()
              ) -> list[JsonHit]:
    """Everything private in the keys and strings of a parsed JSON document, sorted by path.

    scopes: scope by path (without list indexes), "disclosure" for all others. A value is scanned
    together with its key, which may identify a secret ({"serial": ...}), and without addresses if
    the key shows that it is a version. `start` and `end` count in the field's own string.
    """
    permitted, known = frozenset(allowed), tuple(names)
    found = list[JsonHit]()
    for path, key, value in strings(document):
        scope = scopes.get(re.sub(r"\[\d+\]", "", path), "disclosure") if key else "disclosure"
        found += [JsonHit(path, hit) for hit in scan_field(key, value, scope, permitted, known)]
    return sorted(found)


def scan_field(key: str, value: str, scope: str, allowed: Iterable[str] = frozenset(),
               names: Iterable[MachineName] = ()) -> Iterator[Hit]:
    """Everything private in one string of a JSON document. key: empty for a key itself."""
    is_version = bool(_VERSION_WORDS & set(key.lower().split("_")))
    before = f'"{key}": "' if key else ""
    for hit in scan(f'{before}{value}"' if key else value, scope, allowed, names):
        start, end = max(0, hit.start - len(before)), min(len(value), hit.end - len(before))
        if end > start and not (is_version and hit.pattern_id == "net.ipv4"):
            yield hit._replace(start=start, end=end)
