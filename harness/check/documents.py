"""Check metadata.json, hardware.json and run.md against the evidence.

All three are recomputed and compared. For declared values and notes, which only the contributor
knows, the check finds placeholders, implausible values and hidden text.
"""
from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from check import findings, markdown, parsing
from complete import attestation, declared, metadata, run_md
from core import flag_definitions, schema
from core.errors import HarnessError
from core.records import Fact, LedgerLine, Manifest, Metadata
from machine import inventory, linux

GIB = 1024 ** 3
SPARE_RATIO = 1.1             # bandwidths are rounded, and measured ones may be higher
# A forgotten placeholder: <name>; TODO in front, after a colon or before one; "insert ... here" in
# front, but not "a fan that someone had to insert here". All repetitions are bounded, so that the
# time grows with the length of the text only.
_FRONT, _WORD = r"^[ \t>*_.\-\[(]{0,8}", r"(?:todo|tbd|fixme|xxx+)"
PLACEHOLDER = re.compile(
    rf"<[a-zA-Z][\w ./-]{{0,40}}>|{_FRONT}{_WORD}\b|:[ \t]{{0,8}}{_WORD}\b|\b{_WORD}:"
    rf"|{_FRONT}insert\b[^\n]{{0,60}}\bhere\b", re.IGNORECASE | re.MULTILINE)
ASCENDING = (                 # fields of hardware.json: the first is at most ratio x the second
    ("cpu.physical_cores_count", "cpu.threads_count", 1.0),
    ("cpu.usable_threads_count", "cpu.threads_count", 1.0),
    ("cpu.base_mhz", "cpu.max_mhz", 1.0),
    ("memory.limit_bytes", "memory.capacity_bytes", 1.0),
    ("memory.bandwidth_measured_gb_per_s", "memory.bandwidth_theoretical_gb_per_s", SPARE_RATIO))
RANGES = (
    ("cpu.physical_cores_count", 1, 1024), ("cpu.threads_count", 1, 4096),
    ("cpu.max_mhz", 100, 10_000), ("memory.capacity_bytes", GIB // 4, 64 * 1024 * GIB),
    ("memory.speed_mts", 200, 40_000), ("memory.channels_count", 1, 64),
    ("memory.bandwidth_theoretical_gb_per_s", 1, 20_000),
    ("memory.bandwidth_measured_gb_per_s", 0.1, 20_000))
ARCHITECTURES = {"amd64": "x86_64", "x64": "x86_64", "aarch64": "arm64"}
IN_MANIFEST = {               # fields of hardware.json: where the manifest has the same
    "cpu.architecture": ("os", "machine"), "python.version": ("python", "version"),
    "python.implementation": ("python", "implementation")}
WHY_NULL = frozenset((        # besides the reasons of the inventory
    declared.REMOTE, metadata.WITHHELD, metadata.UNDECLARED, "declared earlier and then withdrawn"))


# --- recomputed ----------------------------------------------------------------------------------
def check_metadata(manifest: Manifest, ledger: parsing.Ledger, hardware: Mapping[str, Any],
                   document: Metadata, notes: findings.Notes) -> None:
    """Compare metadata.json with what the evidence gives."""
    given: Any = document
    built = metadata.build(manifest, ledger.events, ledger.sha256, dict(hardware),
                           metadata.declared_in(given))
    for name, value in built.items():
        if given[name] != value:
            was, now = schema.difference(name, given[name], value)
            notes.add("document-differs", f"{was}; recomputed {now}")
    flagged = []
    for cell in built["cells"]:
        kept = [flag for flag in cell["flags"] if flag_definitions.FLAGS[flag].unrankable]
        if kept:
            flagged.append(f"{cell['model']} {cell['phase']} ({', '.join(kept)})")
    if flagged:
        notes.add("cells-not-ranked", f"{len(flagged)} of {len(built['cells'])}: "
                                      + "; ".join(flagged))


def check_page(manifest: Manifest, document: Metadata, hardware: Mapping[str, Any],
               events: Sequence[LedgerLine], page: str, notes: findings.Notes) -> None:
    """Compare run.md with its rendering, and check the contributor's notes in it."""
    try:
        words = attestation.read_sections(page)
    except ValueError as error:
        notes.add("document-differs", str(error))
        return
    rendered = run_md.render_run_md(manifest, document, dict(hardware), words, events)
    if page != rendered:
        given, expected = page.split("\n"), rendered.split("\n")
        line = next((i for i, (a, b) in enumerate(zip(given, expected)) if a != b),
                    min(len(given), len(expected)) - 1)
        notes.add("document-differs", "lines end with CR LF" if given[line] == expected[line] + "\r"
                  else f"the line is {schema.shown(given[line])}; rendered "
                       f"{schema.shown(expected[line])}", line + 1)
    for statement in attestation.unticked_statements(words):
        notes.add("attestation-missing", f"not ticked: {statement}")
    for name in ("deviations", "notes"):
        if attestation.is_unwritten(words, name) or PLACEHOLDER.search(words[name]):
            notes.add("placeholder-left", schema.shown(words[name]), place=name)
    for name, text in words.items():
        found = markdown.hidden(text)
        if found:
            notes.add("notes-not-plain", f"{found[0]}: {schema.shown(found[1])}", place=name)


# --- declared values -----------------------------------------------------------------------------
def check_declared(document: Any, notes: findings.Notes) -> None:
    """Add findings on placeholders among declared values."""
    for key, item in metadata.values(document):
        value = item["value"]
        if item["source"] == "declared" and isinstance(value, str) and (
                value.strip().lower() in declared.FILLERS or PLACEHOLDER.search(value)):
            notes.add("placeholder-left", schema.shown(value), place=key)


def check_hardware(manifest: Manifest, hardware: Mapping[str, Any], notes: findings.Notes) -> None:
    """Add findings on implausible values of hardware.json."""
    facts = dict(metadata.values(dict(hardware)))
    held = {key: item["value"] for key, item in facts.items()}
    for what in (*_implausible(hardware, held), *unwritten(facts)):
        notes.add("hardware-implausible", what)
    recorded: Any = manifest
    for key, (part, name) in IN_MANIFEST.items():
        ran = recorded[part][name]
        names = [ARCHITECTURES.get(one.lower(), one.lower()) for one in (held[key], ran) if one]
        if len(set(names)) > 1:
            notes.add("hardware-implausible", f"{key} is {schema.shown(held[key])}; the run was "
                                              f"made on {schema.shown(ran)}")


def check_machine(manifest: Manifest, events: Sequence[LedgerLine], document: Metadata,
                  hardware: Mapping[str, Any], notes: findings.Notes) -> None:
    """Compare hardware.json with what the run has recorded and the contributor declared."""
    base = declared.recorded_hardware(manifest, events,
                                      document["endpoint"]["same_machine"]["value"] is True)
    if base is None or not declared.records_hardware(manifest):
        return
    try:
        built = declared.declare(base, metadata.declared_in(hardware))
    except HarnessError as error:
        notes.add("document-differs", str(error))
        return
    if hardware != built:
        was, now = schema.difference("hardware", hardware, built)
        notes.add("document-differs", f"{was}; the run recorded {now}")
    for what in unwritten(dict(metadata.values(base))):      # declared values may hide it
        notes.add("hardware-implausible", what)


def unwritten(facts: Mapping[str, Fact]) -> Iterator[str]:
    """Values and reasons that the inventory and complete_submission.py do not write."""
    for key, item in facts.items():
        value, words = item["value"], inventory.WORDS.get(key)
        if value is None and item["reason"] not in inventory.reasons_of(key) | WHY_NULL:
            yield f"{key}: the reason {schema.shown(item['reason'])} is not one of the programs"
        if value is None or item["source"] != "probed":
            continue
        if words and value not in words \
                or key == "os.kernel_release" and linux.public_kernel_release(value) != value:
            yield f"{key} is {schema.shown(value)}, which is not what the programs write"


def _implausible(hardware: Mapping[str, Any], held: Mapping[str, Any]) -> Iterator[str]:
    for less, more, ratio in ASCENDING:
        if held[less] and held[more] and held[less] > ratio * held[more]:
            yield f"{less} is {held[less]:g}, {more} is {held[more]:g}"
    for name, low, high in RANGES:
        if held[name] is not None and not low <= held[name] <= high:
            yield f"{name} is {held[name]:g}"
    cards = hardware["accelerators"]
    if held["accelerators_count"] not in (None, len(cards)):
        yield f"accelerators_count is {held['accelerators_count']}, {len(cards)} are listed"
    for i, card in enumerate(cards):
        size, rate = card["memory_bytes"]["value"], card["memory_bandwidth_gb_per_s"]["value"]
        if size and not GIB // 8 <= size <= 4096 * GIB or rate and not 1 <= rate <= 40_000:
            yield f"accelerators[{i}] has {size} bytes at {rate} GB/s"
