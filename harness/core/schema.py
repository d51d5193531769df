"""Strict JSON, and a validator for the JSON Schemas in harness/schemas."""
from __future__ import annotations

import functools
import json
import math
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any, Callable, NamedTuple, Optional

SCHEMA_FOLDER = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "schemas")
MAX_DEPTH = 32                # of any document of a submission; valid ones reach 8
LARGEST_INT = 2 ** 53 - 1     # the largest integer that every JSON reader keeps exactly
SHOWN_CHARACTERS = 60


class Finding(NamedTuple):
    """What is wrong with a value: its path (`a.b[3]`, empty for the whole) and a message."""

    path: str
    message: str


# --- schemas -------------------------------------------------------------------------------------
Schema = dict[str, Any]


@functools.cache
def schema(name: str) -> Schema:
    """The schema in schemas/<name>.schema.json."""
    with open(os.path.join(SCHEMA_FOLDER, f"{name}.schema.json"), encoding="utf-8") as file:
        found: Schema = json.load(file)
    return found


def validate(value: Any, name: str, definition: Optional[str] = None,
             exact: bool = False) -> list[Finding]:
    """What is wrong with `value` by a schema, or by one of its $defs.

    exact: 4.0 is not an integer, although it is one in JSON Schema: programs may treat it unlike 4.
    """
    root = schema(name)
    at = root["$defs"][definition] if definition else root
    return list(_Validator(root, exact).check(value, at, ""))


def shown(value: Any) -> str:
    """A value for a message: JSON in printable ASCII, shortened."""
    try:
        text = json.dumps(value)
    except (TypeError, ValueError, RecursionError):
        text = ascii(type(value).__name__)
    return text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS - 3] + "..."


def _is_number(value: Any) -> bool:
    return type(value) is int or type(value) is float


TYPES: dict[str, Callable[[Any], bool]] = {
    "object": lambda v: isinstance(v, dict),
    "array": lambda v: isinstance(v, list),
    "string": lambda v: isinstance(v, str),
    "boolean": lambda v: isinstance(v, bool),
    "null": lambda v: v is None,
    "number": _is_number,
    "integer": lambda v: type(v) is int or type(v) is float and v.is_integer(),
}
# A keyword ignores values of other types than its own.
BOUNDS: dict[str, tuple[str, Callable[[Any, Any], bool], str]] = {
    "minimum": ("number", lambda v, b: v >= b, "is below {}"),
    "maximum": ("number", lambda v, b: v <= b, "is above {}"),
    "exclusiveMinimum": ("number", lambda v, b: v > b, "is not above {}"),
    "minLength": ("string", lambda v, b: len(v) >= b, "has fewer than {} characters"),
    "maxLength": ("string", lambda v, b: len(v) <= b, "has more than {} characters"),
    "pattern": ("string", lambda v, b: re.search(b, v) is not None, "does not match {}"),
    "minItems": ("array", lambda v, b: len(v) >= b, "has fewer than {} items"),
    "maxItems": ("array", lambda v, b: len(v) <= b, "has more than {} items"),
    "uniqueItems": ("array", lambda v, b: all(one not in v[:i] for i, one in enumerate(v)),
                    "has a repeated item"),
    "minProperties": ("object", lambda v, b: len(v) >= b, "has fewer than {} keys"),
    "maxProperties": ("object", lambda v, b: len(v) <= b, "has more than {} keys"),
}


class _Validator:
    """Walks a value and a schema side by side. Values of const and enum, and unique items, are
    texts in all schemas, so that Python's equality is that of JSON."""

    def __init__(self, root: Schema, exact: bool = False) -> None:
        self.root, self.exact = root, exact

    def check(self, value: Any, at: Schema, path: str) -> Iterator[Finding]:
        """Everything in `value` that does not match the schema `at`."""
        if "$ref" in at:
            yield from self.check(value, self.root["$defs"][at["$ref"].rpartition("/")[2]], path)
        kind = at.get("type")
        if kind and not TYPES[kind](value) \
                or self.exact and kind == "integer" and type(value) is float:
            yield Finding(path, f"{shown(value)} is not of type {kind}")
            return
        if "const" in at and value != at["const"]:
            yield Finding(path, f"{shown(value)} is not {shown(at['const'])}")
        if "enum" in at and value not in at["enum"]:
            yield Finding(path, f"{shown(value)} is not one of {', '.join(map(shown, at['enum']))}")
        if "anyOf" in at:
            yield from self._branches(value, at["anyOf"], path)
        for keyword, bound in at.items():
            if keyword in BOUNDS:
                kind, holds, words = BOUNDS[keyword]
                if TYPES[kind](value) and not holds(value, bound):
                    yield Finding(path, f"{shown(value)} {words.format(bound)}")
        if isinstance(value, dict):
            yield from self._object(value, at, path)
        elif isinstance(value, list) and "items" in at and not _all_integers(value, at["items"]):
            for i, item in enumerate(value):
                yield from self.check(item, at["items"], f"{path}[{i}]")

    def _branches(self, value: Any, branches: list[Schema], path: str) -> Iterator[Finding]:
        """Findings if no branch matches."""
        results = []
        of_its_type = [b for b in branches if "type" not in b or TYPES[b["type"]](value)]
        for branch in of_its_type or branches:
            results.append(list(self.check(value, branch, path)))
            if not results[-1]:
                return
        # Report the branch that was probably meant: it fails deeper inside, and is not `null`.
        yield from max(results, key=lambda found: (len(found[0].path),
                                                   not found[0].message.endswith("null")))

    def _object(self, value: dict[str, Any], at: Schema, path: str) -> Iterator[Finding]:
        properties, others = at.get("properties", {}), at.get("additionalProperties")
        for name in at.get("required", ()):
            if name not in value:
                yield Finding(path, f"{shown(name)} is missing")
        for name, inner in value.items():
            below = f"{path}.{name}" if path else name
            if "propertyNames" in at:
                yield from self.check(name, at["propertyNames"], below)
            if name in properties:
                yield from self.check(inner, properties[name], below)
            elif others is False:
                yield Finding(below, "is not a known field")
            elif isinstance(others, dict):
                yield from self.check(inner, others, below)


def _all_integers(value: list[Any], at: Schema) -> bool:
    """Check a list of thousands of integers, such as the times of a call, in one go."""
    return (at.get("type") == "integer" and at.keys() == {"type", "minimum", "maximum"}
            and all(type(v) is int for v in value)
            and (not value or at["minimum"] <= min(value) and max(value) <= at["maximum"]))


# --- strict JSON ---------------------------------------------------------------------------------
def strict_json(data: bytes) -> Any:
    """Parse untrusted JSON that every reader understands alike; raises ValueError with the reason.

    Refused: invalid UTF-8, a byte order mark, NaN and infinities (also as 1e999), integers beyond
    2^53 - 1, a key that occurs twice in one object, half of a surrogate pair, and nesting deeper
    than MAX_DEPTH.
    """
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"byte {error.start} is not UTF-8") from None
    if text.startswith("\ufeff"):
        raise ValueError("begins with a byte order mark")
    try:
        value = json.loads(text, object_pairs_hook=unique_keys, parse_constant=no_constant,
                           parse_int=_exact_int, parse_float=_finite_float)
    except RecursionError:
        raise ValueError("is nested too deep") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"is not JSON at character {error.pos}: {error.msg}") from None
    _check_depth_and_texts(value)
    return value


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """For json: an object; raises ValueError for a key that occurs twice."""
    made = dict(pairs)
    if len(made) < len(pairs):
        counts = Counter(name for name, _ in pairs)
        twice = next(name for name, count in counts.items() if count > 1)
        raise ValueError(f"key {shown(twice)} occurs twice in one object")
    return made


def no_constant(word: str) -> None:
    """For json: refuse NaN and infinities with a ValueError."""
    raise ValueError(f"{word} is not JSON")


def _exact_int(digits: str) -> int:
    if len(digits) > 15 and (len(digits) > 17 or abs(int(digits)) > LARGEST_INT):
        raise ValueError(f"integer {digits[:20]} is beyond 2^53 - 1")
    return int(digits)


def _finite_float(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError(f"number {digits[:20]} is infinite")
    return value


def _check_depth_and_texts(value: Any) -> None:
    waiting = [(value, 1)]
    while waiting:
        outer, depth = waiting.pop()
        if isinstance(outer, str):
            if not outer.isascii() and any("\ud800" <= c <= "\udfff" for c in outer):
                raise ValueError("a text contains half of a surrogate pair")
        elif isinstance(outer, (dict, list)):
            if depth > MAX_DEPTH:
                raise ValueError("is nested too deep")
            inner: Iterable[Any] = outer if isinstance(outer, list) else (*outer, *outer.values())
            waiting += [(one, depth + 1) for one in inner if isinstance(one, (str, dict, list))]


def difference(name: str, before: Any, after: Any) -> tuple[str, str]:
    """The first difference of two values, as (`name.part was 1`, the value now)."""
    if isinstance(before, dict) and isinstance(after, dict):
        for key in [*before, *(k for k in after if k not in before)]:
            if before.get(key) != after.get(key):
                return difference(f"{name}.{key}", before.get(key), after.get(key))
    if isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for i, (one, other) in enumerate(zip(before, after)):
            if one != other:
                return difference(f"{name}[{i}]", one, other)
    return f"{name} was {shown(before)}", shown(after)
