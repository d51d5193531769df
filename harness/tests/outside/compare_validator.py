"""Compare the harness's schema validator with the jsonschema package.

    PYTHONPATH=harness python3 harness/tests/outside/compare_validator.py [MUTANTS] [SEED]

The valid documents are the runs in submissions/ and the inventories of recorded machines. MUTANTS
of them (1500) per schema are changed: a third at random places, the others at the limit of one
keyword of the schema. Both validators check every mutant. Prints a line per schema and each
document with different verdicts; exit 1 if there is one, or if a keyword was never tried.
"""
from __future__ import annotations

import copy
import json
import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jsonschema

from core import ledger, schema
from machine import inventory
from tests.machine import test_machine

SUBMISSIONS = Path(schema.SCHEMA_FOLDER).parent.parent / "submissions"
MUTANTS, SEED = 1500, 1
LINES = 40                      # of each kind of ledger line; calls are many, and alike
SHOWN = 10
LEAST_REFUSED_SHARE = 0.3       # with fewer, the mutations break too little
ODD = (None, True, False, 0, 1, -1, 0.5, 1.0, -0.0, 1e308, 2 ** 53, -2 ** 70, "", "a", "null", "ok",
       "\u0000", "\u202e", "x" * 100_000, [], [1], [None] * 300, {}, {"value": None}, {"a": {}})

Json = Any


class Case(NamedTuple):
    """A valid document, and its schema."""

    schema: str
    definition: str             # of $defs; empty for the whole
    document: Json


def cases() -> dict[str, list[Case]]:
    """Valid documents, by schema."""
    made = {name: [Case(name, "", json.loads(path.read_bytes()))
                   for path in sorted(SUBMISSIONS.glob(f"*/*/run-*/{name}.json"))]
            for name in ("manifest", "hardware", "metadata")}
    made["hardware"] += [
        Case("hardware", "", inventory.inventory(test_machine.RecordedMachine(name)))
        for name in test_machine.MACHINES]
    by_event: dict[str, list[Case]] = {}
    for path in sorted(SUBMISSIONS.glob(f"*/*/run-*/{ledger.LEDGER}")):
        for line in map(json.loads, path.read_bytes().splitlines()):
            by_event.setdefault(line["event"], []).append(Case("ledger", line["event"], line))
    made["ledger"] = [case for group in by_event.values() for case in group[:LINES]]
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
    change = rng.choice(("drop", "add", "replace", "replace", "stretch", "swap"))
    value = stretched(before, rng) if change == "stretch" else rng.choice(ODD)
    if change == "drop":
        del holder[last]
    elif change == "swap":
        other = rng.choice(list(holder) if isinstance(holder, dict) else range(len(holder)))
        holder[last], holder[other], value = holder[other], before, other
    elif change == "add" and isinstance(holder, list):
        holder.insert(last, value)
    else:
        names = ("extra", "", f"{last}_us", "unit") if change == "add" else (last,)
        holder[rng.choice(names)] = value
    return made, f"{change} at {path}: {ascii(value)[:60]}"


def stretched(before: Json, rng: random.Random) -> Json:
    """A value of the same type, often beyond its bounds."""
    if isinstance(before, bool) or before is None:
        return not before
    if isinstance(before, (int, float)):
        return rng.choice((before + 1, before - 1, -before, float(before), before * 10 ** 6))
    if isinstance(before, str):
        return rng.choice((before + "x", before * 50, before[1:], before.upper(), before + "\n"))
    if isinstance(before, list):
        return rng.choice((before * 2, before * 60, before[:-1], []))
    return {**before, "extra": None} if rng.random() < 0.5 else dict(list(before.items())[1:])


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
    "pattern": lambda held, bound, by: ("!", held, f"{held}\n")[by + 1],
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
    """(whether our validator refuses it, description of the difference or "")."""
    ours = schema.validate(mutant, case.schema, case.definition or None)
    words = [] if full[case.schema, case.definition].is_valid(mutant) == (not ours) else [
        f"ours: {ours[:1] or 'valid'}"]
    if case.schema == "ledger":
        line, is_valid = ledger.validate_line(mutant), full["ledger", ""].is_valid(mutant)
        if is_valid and mutant["event"] == "machine_identified":
            is_valid = full["hardware", ""].is_valid(mutant["hardware"])
        if is_valid != (not line):
            words.append(f"as a line, ours: {line[:1] or 'valid'}")
    return bool(ours), "; ".join(words)


def main() -> int:
    given = [int(word) for word in sys.argv[1:3]]
    count, seed = (*given, *(MUTANTS, SEED)[len(given):])
    rng, bad, corpus, tried_keywords = random.Random(seed), 0, cases(), set()
    wanted = {(case.schema, case.definition) for group in corpus.values() for case in group}
    full = {key: package_validator(*key) for key in {*wanted, ("ledger", ""), ("hardware", "")}}
    for name, group in corpus.items():
        jsonschema.Draft202012Validator.check_schema(schema.schema(name))
        places_of = [edges(case) for case in group]
        tried_keywords |= {keyword for found in places_of for keyword in found}
        tried = [(case, case.document, "unchanged") for case in group]
        for at in range(count):
            case, found_edges = group[at % len(group)], places_of[at % len(group)]
            tried.append((case, *(mutate(case.document, rng) if at % 3 == 0 else
                                  bend(case, found_edges, rng))))
        refused, found = 0, []
        for case, mutant, what in tried:
            is_refused, words = differing(case, mutant, full)
            refused += is_refused
            if is_refused and what == "unchanged":
                words = f"a valid document is refused; {words}"
            found += [f"  {case.definition or name}, {what}: {words}"] if words else []
        print(f"{name}: {len(group)} documents, {count} mutants, {refused} refused, "
              f"{len(found)} with different verdicts")
        print("\n".join(found[:SHOWN]), end="\n" if found else "")
        if refused < LEAST_REFUSED_SHARE * count:
            print(f"  only {refused} were refused: the mutations break too little")
            bad += 1
        bad += len(found)
    untried = sorted(BENDS.keys() - tried_keywords)
    if untried:
        print(f"never tried: {', '.join(untried)}")
    return int(bool(bad or untried))


if __name__ == "__main__":
    raise SystemExit(main())
