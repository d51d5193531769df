"""Compare the harness's schema validator with the jsonschema package.

    PYTHONPATH=harness python3 harness/tests/outside/compare_validator.py [MUTANTS] [SEED]

Valid documents are generated from the schemas, and taken from the example and from recorded
machines. MUTANTS of them (1500) per schema are changed: a third at random places, the others at the
limit of one keyword of the schema. Both validators check every mutant. Prints a line per schema and
each document with different verdicts; exit 1 if there is one.
"""
from __future__ import annotations

import copy
import json
import os
import random
import sys
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jsonschema

HARNESS = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path[:0] = [path for path in (HARNESS,) if path not in sys.path]

from core import ledger, schema
from machine import inventory
from tests import make_example
from tests.machine import test_machine

MUTANTS, SEED = 1500, 1
MADE = 60                       # documents generated from each schema
SHOWN = 10
LEAST_REFUSED_SHARE = 0.3       # with fewer, the mutations break too little
# A value for each pattern of the schemas; a new pattern needs one here.
SAMPLES = {
    "^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$":
        "12345678-9abc-def0-1234-56789abcdef0",
    "^20[0-9]{2}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-6][0-9]\\.[0-9]{3}Z$":
        "2026-11-20T09:30:00.125Z",
    "^[0-9a-f]{64}$": "0f" * 32,
    "^[0-9a-f]{40,64}$": "0f" * 20,
    "^harness/[a-z0-9_/]+\\.(py|json)$": "harness/suites/a_1.json",
    "^[a-z0-9_]{1,20}$": "avx2",
    "^[a-z0-9_]{1,60}$": "ttft_ms",
    "^[a-z_]{1,40}$": "few_samples",
    "^[A-Za-z0-9+/]*={0,2}$": "e30=",
    "^([ra][0-9]+)+$": "r12a30",
    "^[a-z0-9_]{1,20}(/[a-z0-9_]{1,20})?$": "f16/q8_0",
}
ODD = (None, True, False, 0, 1, -1, 0.5, 1.0, -0.0, 1e308, 2 ** 53, -2 ** 70, "", "a", "null", "ok",
       "\u0000", "\u202e", "x" * 100_000, [], [1], [None] * 300, {}, {"value": None}, {"a": {}})

Json = Any


class Case(NamedTuple):
    """A valid document, and its schema."""

    schema: str
    definition: str             # of $defs; empty for the whole
    document: Json


# --- valid documents -----------------------------------------------------------------------------
class Maker:
    """Generates random valid documents of a schema."""

    def __init__(self, name: str, rng: random.Random) -> None:
        self.root, self.rng = schema.schema(name), rng

    def make(self, at: dict[str, Any]) -> Json:
        """A value that is valid by a part of the schema."""
        if "$ref" in at:
            return self.make(self.root["$defs"][at["$ref"].rpartition("/")[2]])
        for keyword in ("anyOf", "oneOf"):
            if keyword in at:
                return self.make(self.rng.choice(at[keyword]))
        if "const" in at:
            return at["const"]
        if "enum" in at:
            return self.rng.choice(at["enum"])
        return getattr(self, "_" + at.get("type", "string"))(at)

    def _null(self, at: dict[str, Any]) -> None:
        return None

    def _boolean(self, at: dict[str, Any]) -> bool:
        return self.rng.random() < 0.5

    def _integer(self, at: dict[str, Any]) -> int:
        low, high = at.get("minimum", -1000), at.get("maximum", 10 ** 9)
        return self.rng.choice((low, high, self.rng.randint(low, high)))

    def _number(self, at: dict[str, Any]) -> float:
        low = at.get("minimum", at.get("exclusiveMinimum", -1000) + 1e-6)
        return self.rng.choice((1, 1.0, self.rng.uniform(low, at.get("maximum", 1e6))))

    def _string(self, at: dict[str, Any]) -> str:
        if "pattern" in at:
            return SAMPLES[at["pattern"]]
        least, most = at.get("minLength", 0), min(at.get("maxLength", 40), 500)
        length = self.rng.choice((least, most, self.rng.randint(least, most)))
        return "".join(self.rng.choice("abc \u00e9\u4e2d\U0001f600") for _ in range(length))

    def _array(self, at: dict[str, Any]) -> list[Json]:
        least = at.get("minItems", 0)
        count = self.rng.randint(least, min(at.get("maxItems", 4), least + 3))
        made = [self.make(at["items"]) for _ in range(count)]
        if not at.get("uniqueItems"):
            return made
        return [one for i, one in enumerate(made) if one not in made[:i]]

    def _object(self, at: dict[str, Any]) -> dict[str, Json]:
        required = at.get("required", ())
        made = {name: self.make(held) for name, held in at.get("properties", {}).items()
                if name in required or self.rng.random() < 0.5}
        extra = at.get("additionalProperties", True)
        if isinstance(extra, dict) or extra and not at.get("properties"):
            name = self.make({"type": "string", "minLength": 1, **at.get("propertyNames", {})})
            made[name] = self.make(extra) if isinstance(extra, dict) else self.rng.choice(ODD)
        return made


def cases(rng: random.Random) -> dict[str, list[Case]]:
    """Valid documents, by schema."""
    made = {name: [Case(name, "", Maker(name, rng).make(schema.schema(name))) for _ in range(MADE)]
            for name in ("manifest", "hardware", "metadata")}
    made["hardware"] += [
        Case("hardware", "", inventory.inventory(test_machine.RecordedMachine(name)))
        for name in test_machine.MACHINES]
    made["ledger"] = [Case("ledger", event, Maker("ledger", rng).make(
        schema.schema("ledger")["$defs"][event])) for event in ledger.event_names()
        for _ in range(MADE // 6)]
    return _with_example(made)


def _with_example(made: dict[str, list[Case]]) -> dict[str, list[Case]]:
    folder = os.path.join(make_example.SUBMISSIONS, make_example.RUN)
    for name in ("manifest", "hardware", "metadata"):
        with open(os.path.join(folder, f"{name}.json"), encoding="utf-8") as file:
            made[name].append(Case(name, "", json.load(file)))
    with open(os.path.join(folder, ledger.LEDGER), encoding="utf-8") as file:
        lines = [json.loads(line) for line in file]
    made["ledger"] += [Case("ledger", line["event"], line) for line in lines]
    return made


# --- mutations -----------------------------------------------------------------------------------
def places(value: Json, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every value in a document, without the document itself."""
    if path:
        yield path
    inner = value.items() if isinstance(value, dict) else (
        enumerate(value) if isinstance(value, list) else ())
    for key, held in inner:
        yield from places(held, (*path, key))


def mutate(document: Json, rng: random.Random) -> tuple[Json, str]:
    """(a changed copy, description of the change)."""
    made = copy.deepcopy(document)
    path = rng.choice(list(places(made)))
    holder = made
    for key in path[:-1]:
        holder = holder[key]
    last, before = path[-1], holder[path[-1]]
    change = rng.choice((_drop, _add, _replace, _replace, _stretch, _swap))
    return made, f"{change.__name__} at {path}: {change(holder, last, before, rng)}"


def _drop(holder: Json, last: Any, before: Json, rng: random.Random) -> str:
    del holder[last]
    return ""


def _add(holder: Json, last: Any, before: Json, rng: random.Random) -> str:
    value = rng.choice((*ODD, copy.deepcopy(before)))
    if isinstance(holder, list):
        holder.insert(last, value)
    else:
        holder[rng.choice(("extra", "", str(last) + "_us", "unit"))] = value
    return ascii(value)[:60]


def _replace(holder: Json, last: Any, before: Json, rng: random.Random) -> str:
    holder[last] = rng.choice(ODD)
    return ascii(holder[last])[:60]


def _stretch(holder: Json, last: Any, before: Json, rng: random.Random) -> str:
    """A value of the same type, often beyond its bounds."""
    if isinstance(before, bool) or before is None:
        value: Json = not before
    elif isinstance(before, (int, float)):
        value = rng.choice((before + 1, before - 1, -before, float(before), before * 10 ** 6))
    elif isinstance(before, str):
        value = rng.choice((before + "x", before * 50, before[1:], before.upper(), before + "\n"))
    elif isinstance(before, list):
        value = rng.choice((before * 2, before * 60, before[:-1], []))
    else:
        value = {**before, "extra": None} if rng.random() < 0.5 else dict(list(before.items())[1:])
    holder[last] = value
    return ascii(value)[:60]


def _swap(holder: Json, last: Any, before: Json, rng: random.Random) -> str:
    """Swap two values of an object or list."""
    other = rng.choice(list(holder) if isinstance(holder, dict) else range(len(holder)))
    holder[last], holder[other] = holder[other], holder[last]
    return f"with {other}"


# --- mutations at the limits of keywords ---------------------------------------------------------
Place = tuple[tuple[Any, ...], Any]             # path in a document, and value of a keyword


def edges(case: Case) -> dict[str, list[Place]]:
    """{keyword: paths where it applies, with its value} for the keywords of BENDS."""
    root = schema.schema(case.schema)
    start = root["$defs"][case.definition] if case.definition else root
    found: dict[str, list[Place]] = {}
    waiting: list[tuple[tuple[Any, ...], Json, dict[str, Any]]] = [((), case.document, start)]
    while waiting:
        path, value, at = waiting.pop()
        if "$ref" in at:
            waiting.append((path, value, root["$defs"][at["$ref"].rpartition("/")[2]]))
        waiting += [(path, value, branch) for branch in (*at.get("anyOf", ()),
                                                         *at.get("oneOf", ()))]
        for keyword in BENDS.keys() & at.keys():
            found.setdefault(keyword, []).append((path, at[keyword]))
        if isinstance(value, dict):
            waiting += [((*path, key), held, at["properties"][key]) for key, held in value.items()
                        if key in at.get("properties", {})]
        if isinstance(value, list) and "items" in at:
            waiting += [((*path, i), held, at["items"]) for i, held in enumerate(value[:3])]
    return found


def bend(case: Case, found: dict[str, list[Place]], rng: random.Random) -> tuple[Json, str]:
    """(a copy that is changed at the limit of a keyword, description of the change)."""
    keyword = rng.choice(sorted(found))
    path, bound = rng.choice(found[keyword])
    held = case.document
    for key in path:
        held = held[key]
    value = BENDS[keyword](copy.deepcopy(held), bound, rng.choice((-1, 0, 1)))
    return _put(case.document, path, value), f"{keyword} {ascii(bound)[:40]} at {path}"


def _put(document: Json, path: tuple[Any, ...], value: Json) -> Json:
    if not path:
        return value
    made = copy.copy(document)
    made[path[0]] = _put(made[path[0]], path[1:], value)
    return made


def _items(held: Json, count: int) -> Json:
    """A list with `count` items, made from the present ones."""
    one = held if isinstance(held, list) and held else ["a"]
    return [one[i % len(one)] if i < len(one) else f"{i}" if isinstance(one[0], str) else
            one[i % len(one)] for i in range(max(count, 0))]


def _keys(held: Json, count: int) -> Json:
    """An object with `count` keys, made from the first one."""
    name, value = next(iter(held.items()), ("a", 1)) if isinstance(held, dict) else ("a", 1)
    names = [f"{name[:8]}{'x' * i}{name[8:]}" for i in range(max(count, 0))]
    return dict.fromkeys(names, value)


def _object_bent(change: Callable[[Json, int], Json]) -> Callable[[Json, Any, int], Json]:
    """Apply a change to objects; replace other values by a number."""
    return lambda held, bound, by: change(held, by) if isinstance(held, dict) else by


def _another_type(held: Json, bound: Any, by: int) -> Json:
    """An integer as a float, unchanged, or as a boolean."""
    if by == 0 or type(held) is not int or abs(held) > 2 ** 53:
        return held
    return float(held) if by < 0 else bool(held)


# How a value is changed at the limit of a keyword; by is -1, 0 or 1.
BENDS: dict[str, Callable[[Json, Any, int], Json]] = {
    **dict.fromkeys(("minimum", "maximum", "exclusiveMinimum"), lambda held, bound, by: bound + by),
    **dict.fromkeys(("minLength", "maxLength"), lambda held, bound, by: "a" * (bound + by)),
    **dict.fromkeys(("minItems", "maxItems"), lambda held, bound, by: _items(held, bound + by)),
    **dict.fromkeys(("minProperties", "maxProperties"),
                    lambda held, bound, by: _keys(held, bound + by)),
    "uniqueItems": lambda held, bound, by: [*held, *held[:by + 1]] if isinstance(held, list)
    else by,
    "propertyNames": _object_bent(lambda held, by: {f"{key}{'!' * (by + 1)}": one
                                                    for key, one in held.items()}),
    "additionalProperties": _object_bent(lambda held, by: {**held, "odd key": by}),
    "required": _object_bent(lambda held, by: dict(list(held.items())[by + 1:])),
    "pattern": lambda held, bound, by: ("!", SAMPLES[bound], SAMPLES[bound] + "\n")[by + 1],
    "enum": lambda held, bound, by: (f"{bound[0]}x", bound[0], bound[-1])[by + 1],
    "const": lambda held, bound, by: (f"{bound}x", bound, [bound])[by + 1],
    "type": _another_type,
}


# --- verdicts ------------------------------------------------------------------------------------
def package_validator(name: str, definition: str) -> jsonschema.Draft202012Validator:
    """The package's validator of a schema, or of one of its $defs."""
    root = schema.schema(name)
    at = {"$ref": f"#/$defs/{definition}", "$defs": root["$defs"]} if definition else root
    return jsonschema.Draft202012Validator(at)


def differing(case: Case, mutant: Json, full: dict[tuple[str, str], Any]) -> tuple[bool, str]:
    """(whether ours refuses it, description of the difference or "")."""
    ours = schema.validate(mutant, case.schema, case.definition or None)
    words = [] if full[case.schema, case.definition].is_valid(mutant) == (not ours) else [
        f"ours: {ours[:1] or 'valid'}"]
    if case.schema == "ledger":
        line = ledger.validate_line(mutant)
        if full["ledger", ""].is_valid(mutant) != (not line):
            words.append(f"as a line, ours: {line[:1] or 'valid'}")
    return bool(ours), "; ".join(words)


def main() -> int:
    given = [int(word) for word in sys.argv[1:3]]
    count, seed = (*given, *(MUTANTS, SEED)[len(given):])
    rng, bad = random.Random(seed), 0
    corpus = cases(rng)
    wanted = {(case.schema, case.definition) for group in corpus.values() for case in group}
    full = {key: package_validator(*key) for key in {*wanted, ("ledger", "")}}
    for name in corpus:
        jsonschema.Draft202012Validator.check_schema(schema.schema(name))
    for name, group in corpus.items():
        tried = [(case, case.document, "as made") for case in group]
        places_of = [edges(case) for case in group]
        for at in range(count):
            case, found_edges = group[at % len(group)], places_of[at % len(group)]
            tried.append((case, *(mutate(case.document, rng) if at % 3 == 0 else
                                  bend(case, found_edges, rng))))
        refused, found = 0, []
        for case, mutant, what in tried:
            is_refused, words = differing(case, mutant, full)
            refused += is_refused
            if is_refused and what == "as made":
                words = f"a document made from the schema is refused; {words}"
            found += [f"  {case.definition or name}, {what}: {words}"] if words else []
        print(f"{name}: {len(group)} documents, {count} mutants, {refused} refused, "
              f"{len(found)} with different verdicts")
        print("\n".join(found[:SHOWN]), end="\n" if found else "")
        if refused < LEAST_REFUSED_SHARE * count:
            print(f"  only {refused} were refused: the mutations break too little")
            bad += 1
        bad += len(found)
    return int(bad > 0)


if __name__ == "__main__":
    raise SystemExit(main())
