"""Strict JSON, and a validator for the JSON Schemas in harness/schemas."""
from __future__ import annotations

import functools
import json
import math
import os
import re
from collections import Counter
from collections.abc import Iterable
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
    return [Finding(found.path.removeprefix("."), found.message)
            for found in _check_of(name, definition, exact)(value)]


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
BOUNDS: dict[str, tuple[tuple[type, ...], Callable[[Any, Any], bool], str]] = {
    "minimum": ((int, float), lambda v, b: v >= b, "is below {}"),
    "maximum": ((int, float), lambda v, b: v <= b, "is above {}"),
    "exclusiveMinimum": ((int, float), lambda v, b: v > b, "is not above {}"),
    "minLength": ((str,), lambda v, b: len(v) >= b, "has fewer than {} characters"),
    "maxLength": ((str,), lambda v, b: len(v) <= b, "has more than {} characters"),
    "pattern": ((str,), lambda v, b: re.search(b, v) is not None, "does not match {}"),
    "minItems": ((list,), lambda v, b: len(v) >= b, "has fewer than {} items"),
    "maxItems": ((list,), lambda v, b: len(v) <= b, "has more than {} items"),
    "uniqueItems": ((list,), lambda v, b: all(one not in v[:i] for i, one in enumerate(v)),
                    "has a repeated item"),
    "minProperties": ((dict,), lambda v, b: len(v) >= b, "has fewer than {} keys"),
    "maxProperties": ((dict,), lambda v, b: len(v) <= b, "has more than {} keys"),
}
OF_OBJECTS = {"properties", "required", "additionalProperties", "propertyNames"}
Check = Callable[[Any], list[Finding]]       # paths begin below the value: `.a.b[3]`


@functools.cache
def _check_of(name: str, definition: Optional[str], exact: bool) -> Check:
    root = schema(name)
    return compiled(root["$defs"][definition] if definition else root, root, exact)


def compiled(at: Schema, root: Schema, exact: bool = False) -> Check:
    """A function that finds everything in a value that does not match the schema `at`. Values of
    const and enum, and unique items, are texts in all schemas, so that Python's equality is that of
    JSON."""
    kind, checks = at.get("type"), list[Check]()
    if "$ref" in at:
        checks.append(compiled(root["$defs"][at["$ref"].rpartition("/")[2]], root, exact))
    if "const" in at:
        checks.append(lambda value: [] if value == at["const"] else [
            Finding("", f"{shown(value)} is not {shown(at['const'])}")])
    if "enum" in at:
        checks.append(lambda value: [] if value in at["enum"] else [
            Finding("", f"{shown(value)} is not one of {', '.join(map(shown, at['enum']))}")])
    if "anyOf" in at:
        checks.append(functools.partial(_branches, [
            (one.get("type"), compiled(one, root, exact)) for one in at["anyOf"]]))
    checks += [functools.partial(_bound, *BOUNDS[name], at[name]) for name in at if name in BOUNDS]
    if not OF_OBJECTS.isdisjoint(at):
        others = at.get("additionalProperties")
        checks.append(functools.partial(
            _object, {name: compiled(one, root, exact)
                      for name, one in at.get("properties", {}).items()}, at.get("required", ()),
            _unknown if others is False else compiled(others or {}, root, exact),
            compiled(at["propertyNames"], root, exact) if "propertyNames" in at else None))
    if "items" in at:
        checks.append(functools.partial(_list, at["items"], compiled(at["items"], root, exact)))
    if not kind and len(checks) == 1:
        return checks[0]

    def check(value: Any) -> list[Finding]:
        if kind and not TYPES[kind](value) \
                or exact and kind == "integer" and type(value) is float:
            return [Finding("", f"{shown(value)} is not of type {kind}")]
        found = list[Finding]()
        for one in checks:
            found += one(value)
        return found

    return check


def _bound(types: tuple[type, ...], holds: Callable[[Any, Any], bool], words: str, bound: Any,
           value: Any) -> list[Finding]:
    return [] if type(value) not in types or holds(value, bound) else [
        Finding("", f"{shown(value)} {words.format(bound)}")]


def _branches(branches: list[tuple[Optional[str], Check]], value: Any) -> list[Finding]:
    """Findings if no branch matches."""
    results = []
    of_its_type = [check for kind, check in branches if not kind or TYPES[kind](value)]
    for check in of_its_type or [check for _, check in branches]:
        results.append(check(value))
        if not results[-1]:
            return []
    # Report the branch that was probably meant: it fails deeper inside, and is not `null`.
    return max(results, key=lambda found: (len(found[0].path),
                                           not found[0].message.endswith("null")))


def _unknown(_: Any) -> list[Finding]:
    return [Finding("", "is not a known field")]


def _object(properties: dict[str, Check], required: Iterable[str], others: Check,
            names: Optional[Check], value: Any) -> list[Finding]:
    """others: of values of unknown fields; names: of all names."""
    if not isinstance(value, dict):
        return []
    found = [Finding("", f"{shown(name)} is missing") for name in required if name not in value]
    for name, inner in value.items():
        for one in (*(names(name) if names else ()), *properties.get(name, others)(inner)):
            found.append(Finding(f".{name}{one.path}", one.message))
    return found


def _list(of_items: Schema, check: Check, value: Any) -> list[Finding]:
    if not isinstance(value, list) or _all_integers(value, of_items):
        return []
    return [Finding(f"[{i}]{one.path}", one.message)
            for i, item in enumerate(value) for one in check(item)]


def _all_integers(value: list[Any], at: Schema) -> bool:
    """Check a list of thousands of integers, such as the times of a call, in one go."""
    return (at.get("type") == "integer" and at.keys() == {"type", "minimum", "maximum"}
            and {int}.issuperset(map(type, value))
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
                           parse_int=_exact_int if _LONG_NUMBER.search(text) else None,
                           parse_float=_finite_float)
    except RecursionError:
        raise ValueError("is nested too deep") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"is not JSON at character {error.pos}: {error.msg}") from None
    # Only an escape makes half of a surrogate pair, and each level has a bracket.
    if "\\u" in text or text.count("[") + text.count("{") > MAX_DEPTH:
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


_LONG_NUMBER = re.compile(r"\d{16}")


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
            if not {int}.issuperset(map(type, inner)):
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
