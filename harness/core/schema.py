"""Strict JSON, and a validator for the JSON Schemas in harness/schemas."""
from __future__ import annotations

import functools
import json
import math
import os
import re
from collections.abc import Iterable, Iterator
from typing import Any, Callable, NamedTuple, Optional

SCHEMA_FOLDER = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "schemas")
MAX_DEPTH = 32                # of any document of a submission; ours reach 8
LARGEST_INT = 2 ** 53 - 1     # the largest integer that every JSON reader keeps exactly
SHOWN_CHARACTERS = 60


class Finding(NamedTuple):
    """What is wrong with a value: where (`a.b[3]`, empty for the whole) and what, in words."""

    path: str
    message: str


# --- schemas -------------------------------------------------------------------------------------
Schema = dict[str, Any]


@functools.cache
def schema(name: str) -> Schema:
    """schemas/<name>.schema.json."""
    with open(os.path.join(SCHEMA_FOLDER, f"{name}.schema.json"), encoding="utf-8") as file:
        found: Schema = json.load(file)
    return found


def validate(value: Any, name: str, definition: Optional[str] = None,
             exact: bool = False) -> list[Finding]:
    """Findings of `value` against a schema, or against one of its $defs. exact: 4.0 is not an
    integer, although JSON Schema says so, since programs may treat it as another value than 4."""
    root = schema(name)
    at = root["$defs"][definition] if definition else root
    return list(_Validator(root, exact).check(value, at, ""))


def shown(value: Any) -> str:
    """A value for a message: JSON in printable ASCII, cut."""
    try:
        text = json.dumps(value)
    except (TypeError, ValueError, RecursionError):
        text = ascii(type(value).__name__)
    return text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS - 3] + "..."


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_integer(value: Any) -> bool:
    return _is_number(value) and (isinstance(value, int) or value.is_integer())


TYPES: dict[str, Callable[[Any], bool]] = {
    "object": lambda v: isinstance(v, dict),
    "array": lambda v: isinstance(v, list),
    "string": lambda v: isinstance(v, str),
    "boolean": lambda v: isinstance(v, bool),
    "null": lambda v: v is None,
    "number": _is_number,
    "integer": _is_integer,
}
# Applied in this order; a value of another type than a keyword is about passes it.
BOUNDS: dict[str, tuple[str, Callable[[Any, Any], bool], str]] = {
    "minimum": ("number", lambda v, b: v >= b, "is below {}"),
    "maximum": ("number", lambda v, b: v <= b, "is above {}"),
    "exclusiveMinimum": ("number", lambda v, b: v > b, "is not above {}"),
    "minLength": ("string", lambda v, b: len(v) >= b, "has fewer than {} characters"),
    "maxLength": ("string", lambda v, b: len(v) <= b, "has more than {} characters"),
    "pattern": ("string", lambda v, b: re.search(b, v) is not None, "does not match {}"),
    "minItems": ("array", lambda v, b: len(v) >= b, "has fewer than {} items"),
    "maxItems": ("array", lambda v, b: len(v) <= b, "has more than {} items"),
    "uniqueItems": ("array", lambda v, b: not b or _distinct(v), "has an item twice"),
    "minProperties": ("object", lambda v, b: len(v) >= b, "has fewer than {} keys"),
    "maxProperties": ("object", lambda v, b: len(v) <= b, "has more than {} keys"),
}
ANNOTATIONS = ("$schema", "$defs", "title", "description")
APPLIED = ("$ref", "type", "const", "enum", "anyOf", "oneOf", "properties", "required",
           "additionalProperties", "propertyNames", "items")


def _same(a: Any, b: Any) -> bool:
    """Equal as JSON: 1 and 1.0 are, true and 1 are not."""
    if isinstance(a, bool) or isinstance(b, bool):
        return a is b
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_same(a[k], b[k]) for k in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(_same, a, b))
    return type(a) is type(b) and a == b or _is_number(a) and _is_number(b) and a == b


def _distinct(items: list[Any]) -> bool:
    return not any(_same(a, b) for i, a in enumerate(items) for b in items[:i])


class _Validator:
    """Walks a value and a schema side by side."""

    def __init__(self, root: Schema, exact: bool = False) -> None:
        self.root, self.exact = root, exact

    def check(self, value: Any, at: Schema, path: str) -> Iterator[Finding]:
        if "$ref" in at:
            yield from self.check(value, self.root["$defs"][at["$ref"].rpartition("/")[2]], path)
        kind = at.get("type")
        if kind and not TYPES[kind](value) \
                or self.exact and kind == "integer" and type(value) is float:
            yield Finding(path, f"{shown(value)} is not of type {kind}")
            return
        yield from self._words(value, at, path)
        if isinstance(value, dict):
            yield from self._object(value, at, path)
        elif isinstance(value, list) and "items" in at:
            yield from self._items(value, at["items"], path)

    def _words(self, value: Any, at: Schema, path: str) -> Iterator[Finding]:
        if "const" in at and not _same(value, at["const"]):
            yield Finding(path, f"{shown(value)} is not {shown(at['const'])}")
        if "enum" in at and not any(_same(value, one) for one in at["enum"]):
            yield Finding(path, f"{shown(value)} is not one of {', '.join(map(shown, at['enum']))}")
        for keyword in ("anyOf", "oneOf"):
            if keyword in at:
                yield from self._branches(value, at[keyword], path, keyword == "oneOf")
        for keyword, (kind, holds, words) in BOUNDS.items():
            if keyword in at and TYPES[kind](value) and not holds(value, at[keyword]):
                yield Finding(path, f"{shown(value)} {words.format(at[keyword])}")

    def _branches(self, value: Any, branches: list[Schema], path: str,
                  just_one: bool) -> Iterator[Finding]:
        """One branch at least (oneOf: at most) fits; else what the likeliest one has to say."""
        failures, fitting = [], 0
        for branch in branches:
            found = list(self.check(value, branch, path))
            if found:
                failures.append(found)
            elif not just_one:
                return
            else:
                fitting += 1
        if fitting == 1:
            return
        if fitting:
            yield Finding(path, f"{shown(value)} fits more than one form")
        else:
            # A branch that fails deeper inside was the one meant; `null` fails at once.
            yield from max(failures, key=lambda found: (len(found[0].path), found[0].message[-4:] !=
                                                        "null"))

    def _object(self, value: dict[str, Any], at: Schema, path: str) -> Iterator[Finding]:
        properties = at.get("properties", {})
        for name in at.get("required", ()):
            if name not in value:
                yield Finding(path, f"{shown(name)} is missing")
        for name, held in value.items():
            below = f"{path}.{name}" if path else name
            if "propertyNames" in at:
                yield from self.check(name, at["propertyNames"], below)
            if name in properties:
                yield from self.check(held, properties[name], below)
            elif at.get("additionalProperties") is False:
                yield Finding(below, "is not known here")
            elif isinstance(at.get("additionalProperties"), dict):
                yield from self.check(held, at["additionalProperties"], below)

    def _items(self, value: list[Any], at: Schema, path: str) -> Iterator[Finding]:
        if at.get("type") == "integer" and len(at) == 3 and _all_integers(value, at):
            return                     # a call's times: thousands, in one go
        for i, item in enumerate(value):
            yield from self.check(item, at, f"{path}[{i}]")


def _all_integers(value: list[Any], at: Schema) -> bool:
    return (all(type(v) is int for v in value)
            and (not value or at["minimum"] <= min(value) and max(value) <= at["maximum"]))


# --- JSON from strangers -------------------------------------------------------------------------
def strict_json(data: bytes) -> Any:
    """The one value that every JSON reader sees in these bytes; raises ValueError with the reason.

    Refused: bytes that are no UTF-8 or begin with a byte order mark, NaN and infinities (also as
    1e999), integers beyond 2^53 - 1, a key twice in one object, half a surrogate pair, nesting
    deeper than MAX_DEPTH.
    """
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"byte {error.start} is not UTF-8") from None
    if text.startswith("\ufeff"):
        raise ValueError("begins with a byte order mark")
    try:
        value = json.loads(text, object_pairs_hook=_no_key_twice, parse_constant=_no_constant,
                           parse_int=_exact_int, parse_float=_finite_float)
    except RecursionError:
        raise ValueError("is nested too deep") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"is not JSON at character {error.pos}: {error.msg}") from None
    _refuse_depth_and_halves(value)
    return value


def _no_key_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"key {shown(twice)} stands twice in one object")
    return made


def _no_constant(word: str) -> None:
    raise ValueError(f"{word} is not JSON")


def _exact_int(digits: str) -> int:
    if len(digits) > 17 or abs(int(digits)) > LARGEST_INT:
        raise ValueError(f"integer {digits[:20]} is beyond 2^53 - 1")
    return int(digits)


def _finite_float(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError(f"number {digits[:20]} is infinite")
    return value


def _refuse_depth_and_halves(value: Any) -> None:
    waiting = [(value, 1)]
    while waiting:
        held, depth = waiting.pop()
        if isinstance(held, str):
            if not held.isascii() and any("\ud800" <= c <= "\udfff" for c in held):
                raise ValueError("half of a surrogate pair stands in a text")
        elif isinstance(held, (dict, list)):
            if depth > MAX_DEPTH:
                raise ValueError("is nested too deep")
            inner: Iterable[Any] = held if isinstance(held, list) else (*held, *held.values())
            waiting += [(one, depth + 1) for one in inner if isinstance(one, (str, dict, list))]


def difference(name: str, was: Any, now: Any) -> tuple[str, str]:
    """The first place where two values differ, as (`name.part was ...`, what it is now)."""
    if isinstance(was, dict) and isinstance(now, dict):
        for key in [*was, *(k for k in now if k not in was)]:
            if was.get(key) != now.get(key):
                return difference(f"{name}.{key}", was.get(key), now.get(key))
    if isinstance(was, list) and isinstance(now, list) and len(was) == len(now):
        for i, (one, other) in enumerate(zip(was, now)):
            if one != other:
                return difference(f"{name}[{i}]", one, other)
    return f"{name} was {shown(was)}", shown(now)
