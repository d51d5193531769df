"""What a submission says of itself: metadata.json, hardware.json, run.md, and every text in them.

metadata.json and run.md are functions of the rest, so they are made again and compared. What only
the contributor knows stands in hardware.json, in declared values and between run.md's marks; of
that, a check can only find what is left open, cannot be, or should not be there.
"""
from __future__ import annotations

import functools
import re
from collections.abc import Collection, Iterator, Sequence
from typing import Any

from complete import declared, metadata, run_md
from core import metric_definitions, privacy, privacy_patterns, schema

from check import findings, reading

Json = dict[str, Any]


GIB = 1024 ** 3
SPARE_RATIO = 1.1             # bandwidths are rounded, and measured ones are over at times
# A stand-in that somebody forgot: <name>, TODO, "insert ... here".
PLACEHOLDER = re.compile(r"<[a-zA-Z][\w ./-]{0,40}>|\b(?:todo|tbd|fixme|xxx+)\b"
                         r"|\binsert\b.*\bhere\b", re.IGNORECASE)
# What a rendered page hides: HTML and its comments, images, definitions of links. A tag is one by
# CommonMark's grammar, so that n<k and m>2 are none.
_ATTRIBUTE = r"""\s+[a-zA-Z_:][\w.:-]*(?:\s*=\s*(?:[^\s"'=<>`]+|'[^']*'|"[^"]*"))?"""
HIDING = re.compile(rf"<[!?]|</?[a-zA-Z][a-zA-Z0-9-]*(?:{_ATTRIBUTE})*\s*/?>|!\["
                    r"|^[ ]{0,3}\[[^\]]*\]:", re.MULTILINE)
VERSION_WORDS = frozenset(("version", "driver", "build", "release", "kernel", "python"))
KEPT_CHARACTERS = 200         # of a text whose hits are remembered
HOST_NAME = "host_hostname_short"


# --- made again ----------------------------------------------------------------------------------
def check_metadata(manifest: Json, found_ledger: tuple[list[Json], str], hardware: Json,
                   document: Json, notes: findings.Notes) -> None:
    """metadata.json against what its evidence gives; found_ledger: events and SHA-256."""
    events, sha256 = found_ledger
    built = metadata.build(manifest, events, sha256, hardware, metadata.declared_in(document))
    for name, value in built.items():
        if document[name] != value:
            notes.add("metadata-differs",
                      " but ".join(schema.difference(name, document[name], value)))
    flagged = [f"{cell['model']} {cell['phase']} ({', '.join(kept)})" for cell in built["cells"]
               for kept in [[flag for flag in cell["flags"] if metric_definitions.FLAGS[flag].unrankable]]
               if kept]
    if flagged:
        notes.add("cells-not-ranked", f"{len(flagged)} of {len(built['cells'])}: "
                                      + "; ".join(flagged))


def check_page(manifest: Json, document: Json, hardware: Json, events: Sequence[Json], page: str,
               notes: findings.Notes) -> None:
    """run.md against its rendering, and the contributor's words in it."""
    try:
        words = run_md.read_sections(page)
    except ValueError as error:
        notes.add("run-md-differs", str(error))
        return
    rendered = run_md.render_run_md(manifest, document, hardware, words, events)
    if page != rendered:
        here, there = page.split("\n"), rendered.split("\n")
        line = next((i for i, (a, b) in enumerate(zip(here, there)) if a != b),
                    min(len(here), len(there)) - 1)
        notes.add("run-md-differs", f"the line is {schema.shown(here[line])}, rendered it is "
                                    f"{schema.shown(there[line])}", line + 1)
    _check_words(words, notes)


def _check_words(words: dict[str, str], notes: findings.Notes) -> None:
    for statement in run_md.unticked_statements(words):
        notes.add("attestation-missing", f"not ticked: {statement}")
    for name in ("deviations", "notes"):
        if run_md.is_unwritten(words, name) or PLACEHOLDER.search(words[name]):
            notes.add("placeholder-left", schema.shown(words[name]), place=name)
    for name, text in words.items():
        hiding = HIDING.search(text)
        if hiding:
            notes.add("words-not-plain", schema.shown(text[hiding.start():]), place=name)


# --- declared values -----------------------------------------------------------------------------
def check_declared(document: Json, notes: findings.Notes) -> None:
    """Stand-ins among the values that were declared."""
    for key, item in metadata.values(document):
        value = item["value"]
        if item["source"] == "declared" and isinstance(value, str) and (
                value.strip().lower() in declared.FILLERS or PLACEHOLDER.search(value)):
            notes.add("placeholder-left", schema.shown(value), place=key)


def check_hardware(manifest: Json, hardware: Json, notes: findings.Notes) -> None:
    """Values of hardware.json that cannot be, alone or beside others."""
    held = {key: item["value"] for key, item in metadata.values(hardware)}
    for what in _oddities(hardware, held):
        notes.add("hardware-odd", what)
    told, ran = held["cpu.architecture"], manifest["os"]["machine"]
    if told and ran and _plain_architecture(told) != _plain_architecture(ran):
        notes.add("hardware-contradicts", f"the CPU is {schema.shown(told)}, the run was made on "
                                          f"{schema.shown(ran)}")


def _plain_architecture(name: str) -> str:
    lower = name.lower()
    return {"amd64": "x86_64", "x64": "x86_64", "aarch64": "arm64"}.get(lower, lower)


def _oddities(hardware: Json, held: Json) -> Iterator[str]:
    for less, more, ratio in (
            ("cpu.physical_cores_count", "cpu.threads_count", 1.0),
            ("cpu.usable_threads_count", "cpu.threads_count", 1.0),
            ("cpu.base_mhz", "cpu.max_mhz", 1.0),
            ("memory.limit_bytes", "memory.capacity_bytes", 1.0),
            ("memory.bandwidth_measured_gb_per_s", "memory.bandwidth_theoretical_gb_per_s",
             SPARE_RATIO)):
        if held[less] and held[more] and held[less] > ratio * held[more]:
            yield f"{less} is {held[less]:g}, {more} is {held[more]:g}"
    for name, low, high in (
            ("cpu.physical_cores_count", 1, 1024), ("cpu.threads_count", 1, 4096),
            ("cpu.max_mhz", 100, 10_000), ("memory.capacity_bytes", GIB // 4, 64 * 1024 * GIB),
            ("memory.speed_mts", 200, 40_000), ("memory.channels_count", 1, 64),
            ("memory.bandwidth_theoretical_gb_per_s", 1, 20_000),
            ("memory.bandwidth_measured_gb_per_s", 0.1, 20_000)):
        if held[name] is not None and not low <= held[name] <= high:
            yield f"{name} is {held[name]:g}"
    cards = hardware["accelerators"]
    if held["accelerators_count"] not in (None, len(cards)):
        yield f"accelerators_count is {held['accelerators_count']}, {len(cards)} are listed"
    for at, card in enumerate(cards):
        size, rate = card["memory_bytes"]["value"], card["memory_bandwidth_gb_per_s"]["value"]
        if (size and not GIB // 8 <= size <= 4096 * GIB) or (rate and not 1 <= rate <= 40_000):
            yield f"accelerator {at} has {size} bytes at {rate} GB/s"


# --- privacy -------------------------------------------------------------------------------------
def check_document(value: Any, run_id: str, notes: findings.Notes) -> None:
    """What hides, or must not be published, in one of the documents."""
    for code, path, what in reading.invisible(value):
        notes.add(code, what, place=path)
    for path, hit in private_in(value, (run_id,)):
        notes.add("private-disclosure", f"{hit.excerpt}, {hit.why}", place=path)


def check_lines(events: Sequence[Json], known: Collection[str], run_id: str,
                notes: findings.Notes) -> None:
    """The same in a ledger; known: prompts that need no look. What models wrote is told at once."""
    told: dict[str, list[tuple[int, str, str]]] = {"answer-invisible": [], "private-answer": []}
    for line, event in enumerate(events, 1):
        if event["event"] == "call_finished" and event["request"]["prompt"] in known:
            event = {**event, "request": {**event["request"], "prompt": ""}}
        found = [*reading.invisible(event, True), *_private(event, run_id)]
        for code, path, what in found:
            if code in told:
                told[code].append((line, path, what))
            else:
                notes.add(code, what, line, path)
    for code, places in told.items():
        if places:
            line, path, what = places[0]
            lines = ", ".join(str(number) for number in sorted({one[0] for one in places})[:20])
            notes.add(code, f"{len(places)} in lines {lines}; the first: {what}", line, path)


def _private(event: Json, run_id: str) -> Iterator[tuple[str, str, str]]:
    for path, hit in private_in(event, (run_id,)):
        code = "private-answer" if hit.severity == privacy_patterns.WARNING else "private-disclosure"
        yield code, path, f"{hit.excerpt}, {hit.why}"


def private_in(value: Any, allowed: Collection[str],
               names: Collection[privacy.MachineName] = ()) -> Iterator[privacy.JsonHit]:
    """What privacy.scan_json finds in a document, each text looked at once; a version of four parts
    is no address, and the host name has a finding of its own."""
    for path, key, text in reading.strings(value):
        if path == HOST_NAME:
            continue
        scope = privacy.LEDGER_SCOPES.get(path, "disclosure")
        look = _hits_in if len(text) <= KEPT_CHARACTERS else _hits_in.__wrapped__
        for hit in look(key, text, scope, tuple(names)):
            version = hit.pattern_id == "net.ipv4" and VERSION_WORDS & set(
                re.split(r"[^a-z]+", path))
            if not version and text[hit.start:hit.end].lower() not in allowed:
                yield privacy.JsonHit(path, hit)


@functools.lru_cache(maxsize=20_000)
def _hits_in(key: str, text: str, scope: str,
             names: tuple[privacy.MachineName, ...]) -> list[privacy.Hit]:
    """The hits in a text under its key; most texts of a ledger stand there again and again."""
    document = {key: text} if key else {text: None}
    return [hit for _, hit in privacy.scan_json(document, {key: scope}, names=names)]


def check_page_text(text: str, run_id: str, notes: findings.Notes) -> None:
    """The same in run.md, line by line."""
    for number, line in enumerate(text.split("\n"), 1):
        for code, _, what in reading.invisible(line):
            notes.add(code, what, number)
        for _, hit in private_in(line, (run_id,)):
            notes.add("private-disclosure", f"{hit.excerpt}, {hit.why}", number)


def check_host_name(manifest: Json, notes: findings.Notes) -> None:
    """The one private value that a manifest may hold."""
    if manifest[HOST_NAME] is not None:
        notes.add("hostname-published", "it is this machine's own", place=HOST_NAME)
