"""What must never be published, as one table of patterns, and the few functions that read it.

The runner passes every message through `redact` before it is written, and the submission check
passes every published string through `scan`. Scanners that look for keys do not look for home
folders, host names, local addresses or serial numbers, so those stand here beside the keys.

Order of defence: do not collect it; redact it; find it before the push; find it in the check.
This module is the last three. Known limits: text that is encoded (base64, hex, compressed), spelt
with look-alike letters of another script, or cut in two by the writer is not recognised; invisible
characters, full-width and other foreign forms of ASCII, JSON escapes and percent escapes in front
of a value are. Nothing here asks a vendor whether a key is alive: that would hand it over.

    >>> redact("no route to 192.168.1.20")
    'no route to <redacted:address>'
"""
from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from core import privacy_patterns

Json = dict[str, Any]



class Hit(NamedTuple):
    """Where something private stands: `text[start:end]`. `excerpt` is masked, safe to print."""

    pattern_id: str
    kind: str
    severity: str
    start: int
    end: int
    why: str
    excerpt: str


class JsonHit(NamedTuple):
    """A hit in a JSON document; `path` is like `cpu.flags[2]` and is made of untrusted keys."""

    path: str
    hit: Hit


class MachineName(NamedTuple):
    """An exact value to look for on the machine it belongs to; `kind` is a key of REMEDIES, or
    PUBLIC for one that is published, and never found: not itself, nor what is a part of it."""

    kind: str
    value: str


# --- looking ---------------------------------------------------------------------------------

_compile = functools.lru_cache(maxsize=None)(re.compile)
_MARKER = re.compile("<redacted:(?:" + "|".join(privacy_patterns.REMEDIES) + ")>")
_FULL_STOPS = "\u3002\uff61"
_QUOTES = {"\u2018": "'", "\u2019": "'", "\u201c": '"', "\u201d": '"'}
_BLANKS = "\u034f\u115f\u1160\u17b4\u17b5\u3164\uffa0"


def _fold_character(character: str) -> str:
    """The ASCII character that a reader would take it for; "" for one that cannot be seen."""
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


def _fold(text: str) -> tuple[str, list[int] | None]:
    """The text as a reader sees it, and where each of its characters stood (None: the same)."""
    if text.isascii():
        return text, None
    table = {c: _fold_character(c) for c in set(text) if not c.isascii()}
    folded = text.translate({ord(c): plain for c, plain in table.items()})
    if all(table.values()):
        return folded, None
    return folded, [i for i, c in enumerate(text) if table.get(c, c)]


def _hide_markers(text: str) -> str:
    """Earlier redactions become line ends of the same length, so that nothing matches across."""
    return _MARKER.sub(lambda match: "\n" * len(match[0]), text)


class _Found(NamedTuple):
    start: int
    end: int
    rank: int
    severity: str
    pattern_id: str
    kind: str
    why: str


@functools.lru_cache(maxsize=8)
def _name_patterns(names: tuple[MachineName, ...]) -> tuple[privacy_patterns.Pattern, ...]:
    """One pattern per kind of name; a value counts where no letter or digit touches it."""
    public = frozenset(name.value.lower() for name in names if name.kind == privacy_patterns.PUBLIC)
    patterns = []
    for kind in sorted({name.kind for name in names} - {privacy_patterns.PUBLIC}):
        values = {_fold(name.value)[0] for name in names if name.kind == kind} - {""}
        if values:
            # The longest first: an alternation takes the first that fits, and so a public name
            # is taken ahead of a private one that it begins with.
            spelt = "|".join(map(re.escape, sorted(values | public, key=lambda v: (-len(v), v))))
            why = "It is this machine's own."
            regex = rf"(?i)(?<![^\W_])(?:{spelt})(?![^\W_])"
            patterns.append(privacy_patterns.Pattern(f"machine.{kind}", kind, "own name", why, regex, "", "",
                                    confirm=lambda match: match[0].lower() not in public))
    return tuple(patterns)


def _found_by(pattern: privacy_patterns.Pattern, rank: int, severity: str, text: str) -> list[_Found]:
    group = "v" if "(?P<v>" in pattern.regex else 0
    return [
        _Found(*match.span(group), rank, severity, pattern.id, pattern.kind, pattern.why)
        for match in _compile(pattern.regex).finditer(text)
        if pattern.confirm is None or pattern.confirm(match)
    ]


def _all_found(text: str, scope: str, names: Iterable[MachineName]) -> list[_Found]:
    lowered = text.lower()
    found: list[_Found] = []
    for rank, pattern in enumerate(privacy_patterns.PATTERNS + _name_patterns(tuple(names))):
        severity = pattern.severity_answer if scope == "answer" else pattern.severity_disclosure
        wanted = not pattern.keywords or any(word in lowered for word in pattern.keywords)
        if severity is not None and wanted:
            found += _found_by(pattern, rank, severity, text)
    return found


def _merge(found: Iterable[_Found]) -> list[_Found]:
    """Overlapping finds become one: named by the first pattern of the table, as severe as any."""
    merged: list[_Found] = []
    for item in sorted(found):
        last = merged[-1] if merged else None
        if last is None or item.start >= last.end:
            merged.append(item)
            continue
        severity = privacy_patterns.ERROR if privacy_patterns.ERROR in (last.severity, item.severity) else privacy_patterns.WARNING
        named = min(last, item, key=lambda each: each.rank)
        end = max(last.end, item.end)
        merged[-1] = named._replace(start=last.start, end=end, severity=severity)
    return merged


def _mask(value: str) -> str:
    """At most the first three characters, and never more than a third of them, in ASCII."""
    shown = ascii(value[: min(3, len(value) // 3)])[1:-1]
    return f"{shown}... ({len(value)} characters)"


def scan(
    text: str,
    scope: str = "disclosure",
    allowed: Iterable[str] = frozenset(),
    names: Iterable[MachineName] = (),
) -> list[Hit]:
    """Everything private in `text`, in order, without overlaps.

    `scope` is "disclosure" (what a contributor states: errors) or "answer" (what a model wrote:
    warnings, and without the patterns that ordinary answers are full of). A hit whose value
    stands in `allowed` (any case; the run's own id) is left out. `names` are exact values to find
    besides the table, as `this_machine` gives them. Earlier redactions are never hits.
    """
    folded, places = _fold(_hide_markers(text))
    permitted = {value.lower() for value in allowed}
    found = [
        item
        for item in _all_found(folded, scope, names)
        if item.end > item.start and folded[item.start : item.end].lower() not in permitted
    ]
    hits = []
    for item in _merge(found):
        start, end = item.start, item.end
        if places is not None:
            start, end = places[start], places[end - 1] + 1
        excerpt = _mask(folded[item.start : item.end])
        hits.append(Hit(item.pattern_id, item.kind, item.severity, start, end, item.why, excerpt))
    return hits


def redact(text: str, names: Iterable[MachineName] = ()) -> str:
    """`text` with every hit replaced by `<redacted:kind>`; what comes out has no hits left.

    Applying it again changes nothing. It repeats until nothing is found, because a replacement
    can free a neighbour that was not recognised before; each round removes characters.
    """
    known = tuple(names)
    while True:
        hits = scan(text, names=known)
        if not hits:
            return text
        for hit in reversed(hits):
            text = f"{text[: hit.start]}<redacted:{hit.kind}>{text[hit.end :]}"


# --- JSON documents --------------------------------------------------------------------------

# Fields of a ledger line that hold what a model or a suite wrote, not what a contributor states.
LEDGER_SCOPES: Mapping[str, str] = {
    "response.text": "answer",
    "response.reasoning_text": "answer",
    "request.prompt": "answer",
}
_VERSION_WORDS = frozenset(("version", "driver", "build", "release", "firmware", "bios"))


def _strings(document: Any) -> Iterable[tuple[str, str, str]]:
    """(path, key, value) of every string in a JSON document, its keys too (with an empty key)."""
    waiting: list[tuple[str, str, Any]] = [("", "", document)]
    while waiting:  # a stack of our own: a hostile document may be deeper than Python's
        path, key, value = waiting.pop()
        if isinstance(value, str):
            yield path, key, value
        elif isinstance(value, list):
            # Numbers are left here already: a call's times are lists of thousands.
            kept = [(i, v) for i, v in enumerate(value) if isinstance(v, (str, list, dict))]
            waiting += [(f"{path}[{i}]", key, v) for i, v in kept]
        elif isinstance(value, dict):
            for name, child in value.items():
                below = f"{path}.{name}" if path else str(name)
                waiting += [(below, "", str(name)), (below, str(name), child)]


def _scan_field(key: str, value: str, scope: str, **known: Any) -> list[Hit]:
    """The hits in one value; it is read together with its key, which may be what tells a secret
    ({"serial": ...}), and without addresses where the key says that it is a version."""
    before = f'"{key}": "' if key else ""
    hits = []
    for hit in scan(f'{before}{value}"' if key else value, scope, **known):
        start = max(0, hit.start - len(before))
        end = min(len(value), hit.end - len(before))
        is_version = hit.pattern_id == "net.ipv4" and _VERSION_WORDS & set(key.lower().split("_"))
        if end > start and not is_version:
            hits.append(hit._replace(start=start, end=end))
    return hits


def scan_json(
    document: Any,
    scopes: Mapping[str, str] = LEDGER_SCOPES,
    allowed: Iterable[str] = frozenset(),
    names: Iterable[MachineName] = (),
) -> list[JsonHit]:
    """Everything private in a parsed JSON document, sorted by path.

    `scopes` gives the scope of the fields (paths without list indexes) that are not disclosure.
    Keys are scanned as well as values. Numbers are not: none of the table's forms is one.
    `start` and `end` of a hit count in the field's own string.
    """
    known = {"allowed": frozenset(allowed), "names": tuple(names)}
    found = []
    for path, key, value in _strings(document):
        scope = scopes.get(re.sub(r"\[\d+\]", "", path), "disclosure") if key else "disclosure"
        found += [JsonHit(path, hit) for hit in _scan_field(key, value, scope, **known)]
    return sorted(found)


# --- for the documents -----------------------------------------------------------------------


def privacy_markdown() -> str:
    """The table of patterns as Markdown: id, what it finds, why it must not be published."""
    rows = [f"| `{p.id}` | {p.what} | {p.why} |" for p in privacy_patterns.PATTERNS]
    return "\n".join(["| id | what | why |", "| --- | --- | --- |", *rows]) + "\n"
