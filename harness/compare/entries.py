"""Read submissions into comparable entries.

Only fields that a comparison needs are read, each with its type; the whole schema costs 6 ms per
submission, a minute for 10,000 of them, and is the check's task. Facts that an older or newer
schema does not have are unknown.
"""
from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from math import isfinite
from typing import Any, Callable, NamedTuple, Optional

from compare import identity
from compare.canonical_names import size_as_sold_gib
from core import flag_definitions, metric_definitions, release, schema, suites
from core.records import Json

MAX_CHARACTERS = 400          # of any text that is read here; schemas allow less
LARGEST = 1e15                # of any number; published ones are far smaller

# Title by name: summaries under a cell's `metrics`, or values of the cell itself.
NUMBERS = {name: metric_definitions.METRICS[name].title for name in (
    "decode_tokens_per_s", "prefill_tokens_per_s", "ttft_ms", "tpot_ms",
    "output_token_throughput_tokens_per_s", "speedup_ratio")}


# Numbers of a whole run by their places in `headlines` of metadata.json.
HEADLINES = {
    **{name: f"{name}.median" for name in (
        "decode_tokens_per_s", "ttft_ms", "prefill_tokens_per_s", "long_ttft_ms")},
    **{name: f"lanes.{name}" for name in (
        "output_token_throughput_tokens_per_s", "speedup_ratio")},
    **{name: f"energy.{name}" for name in ("joules_per_output_token", "mean_power_w")},
    **{name: f"memory.{name}" for name in ("peak_card_bytes", "peak_process_bytes")},
    **{name: name for name in ("draft_acceptance_ratio", "load_s", "server_decode_tokens_per_s",
                               "server_prefill_tokens_per_s")}}


class BrokenSubmission(Exception):
    """A document that does not match its schema; the message names the place and the fault."""


class Entry(NamedTuple):
    """One model in one phase of one submission. about: facts that identify the model."""

    model: str
    quantization: Optional[str]
    phase: str
    lanes: int
    cold: bool
    planned: int
    asked: int
    numbers: dict[str, float]
    passed: int
    checked: int
    flags: tuple[str, ...]
    context_tokens: Optional[int]
    about: identity.Model
    configuration: tuple[tuple[str, Optional[str]], ...]


class Device(NamedTuple):
    """A machine as it is shown; identity.Machine decides which machines are the same."""

    tag: str
    system: Optional[str]
    cpu: Optional[str]
    threads: Optional[float]
    memory_gib: Optional[float]
    accelerators: tuple[str, ...]
    power_mode: Optional[str]
    on_battery: bool
    reached: str


class Runtime(NamedTuple):
    """The program that served; backend is its compute API, such as cuda."""

    name: str
    version: Optional[str]
    backend: Optional[str]


class Submission(NamedTuple):
    """What a comparison needs from one submission. asked: the workload by its manifest; headlines:
    the numbers of the whole run by model and metric; curves: (model, axis, {metric: its points as
    (at, value, low, high)})."""

    run_id: str
    handle: str
    started_at: str
    device: Device
    machine: identity.Machine
    runtime: Runtime
    asked: Json
    synthetic: bool
    completeness: str
    run_flags: tuple[str, ...]
    entries: tuple[Entry, ...]
    headlines: dict[str, dict[str, float]]
    curves: tuple[tuple[str, str, Json], ...] = ()
    corrections: tuple[str, ...] = ()     # why maintainers exclude it from comparison


# --- fields of untrusted documents ---------------------------------------------------------------
def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and isfinite(value) and 0 <= value <= LARGEST


KINDS: dict[str, Callable[[Any], bool]] = {
    "a text of at most 400 characters":
        lambda value: isinstance(value, str) and len(value) <= MAX_CHARACTERS,
    "a number from 0 to 1e15": _is_number,
    "a number from 0 to 1e15, or null": lambda value: value is None or _is_number(value),
    "a whole number": lambda value: type(value) is int and _is_number(value),
    "true or false": lambda value: isinstance(value, bool),
    "a list of texts": lambda value: isinstance(value, list) and all(
        isinstance(one, str) and len(one) <= MAX_CHARACTERS for one in value),
    "a list": lambda value: isinstance(value, list),
    "an object": lambda value: isinstance(value, dict)}
TEXT, NUMBER, NUMBER_OR_NULL, COUNT, BOOL, TEXTS, LIST, OBJECT = KINDS


def field(document: Any, path: str, kind: str) -> Any:
    """The value at a dotted path; raises BrokenSubmission if it is missing or of another kind."""
    value = document
    for name in path.split("."):
        if not isinstance(value, dict) or name not in value:
            raise BrokenSubmission(f"{path} is missing")
        value = value[name]
    if not KINDS[kind](value):
        raise BrokenSubmission(f"{path}: {schema.shown(value)} is not {kind}")
    return value


def _facts(holder: Any, where: str) -> Json:
    """Values of an object's facts ({"value", "source", "reason"}) and plain texts, by name."""
    if not isinstance(holder, dict):
        raise BrokenSubmission(f"{where}: {schema.shown(holder)} is not an object")
    found = {}
    for name, fact in holder.items():
        value = fact.get("value") if isinstance(fact, dict) else fact
        if value is not None:
            kind = _fact_kind(name) or (
                TEXT if isinstance(value, str) else TEXTS if isinstance(value, list) else
                BOOL if isinstance(value, bool) else NUMBER)
            if not KINDS[kind](value):
                raise BrokenSubmission(f"{where}.{name}: {schema.shown(value)} is not {kind}")
        found[name] = value
    return found


# What a fact is, by how its name ends.
ENDINGS = {
    "usable_threads_count": NUMBER, **dict.fromkeys(("_bytes", "_tokens", "_count"), COUNT),
    **dict.fromkeys(("_w", "_ratio", "per_weight"), NUMBER),
    **dict.fromkeys((
        "name", "quantization", "digest", "repository", "version", "backend", "flags",
        "draft_model", "mode", "source", "kind", "virtualization", "governor", "cache_type",
        "flash_attention", "family"), TEXT)}


@functools.lru_cache(maxsize=4096)
def _fact_kind(name: str) -> Optional[str]:
    return next((kind for ending, kind in ENDINGS.items() if name.endswith(ending)), None)


def _flags(document: Any, path: str) -> tuple[str, ...]:
    names = field(document, path, LIST)
    unknown = [name for name in names
               if not isinstance(name, str) or name not in flag_definitions.FLAGS]
    if unknown:
        raise BrokenSubmission(f"{path}: {schema.shown(unknown[0])} is not a known flag")
    return tuple(flag_definitions.ordered_flags(names))


# --- one submission ------------------------------------------------------------------------------
def read_submission(manifest: Any, metadata: Any, hardware: Any,
                    corrections: tuple[str, ...] = ()) -> Submission:
    """A Submission from its three parsed documents; raises BrokenSubmission."""
    run_id = field(metadata, "run_id", TEXT)
    if field(manifest, "run_id", TEXT) != run_id:
        raise BrokenSubmission("run_id differs between manifest.json and metadata.json")
    handle, tag = field(metadata, "submitter_handle", TEXT), field(metadata, "device_tag", TEXT)
    reached = field(metadata, "endpoint.class", TEXT)
    at = _facts(field(metadata, "runtime", OBJECT), "runtime")
    runtime = Runtime(at.get("name") or field(metadata, "endpoint.engine.name", TEXT),
                      at.get("version"), at.get("backend"))
    parts, cards = hardware_facts(hardware)
    machine = identity.machine(parts, cards, f"{handle}/{tag}", reached)
    models = {}
    for document in field(metadata, "models", LIST):
        facts = _facts(document, "models")
        models[field(document, "model", TEXT)] = facts, [
            name for name, fact in document.items()
            if isinstance(fact, dict) and fact.get("source") == "declared"]
    engine, _, backend = identity.runtime(*runtime)
    about = {name: (facts, identity.model(facts, declared, engine or ""), identity.configuration(
        facts, at, parts, machine, engine or "", backend))
        for name, (facts, declared) in models.items()}
    return Submission(
        run_id, handle, field(metadata, "run.started_at", TEXT),
        _shared(_device(parts, cards, tag, reached)), _shared(machine), _shared(runtime),
        _asked(manifest),
        field(metadata, "synthetic", BOOL), field(metadata, "run.class", TEXT),
        _flags(metadata, "run_flags"),
        tuple(_entry(cell, about) for cell in field(metadata, "cells", LIST)),
        {field(one, "model", TEXT): dict(_headline(one))
         for one in metadata.get("headlines") or ()},
        tuple(map(_curve, metadata.get("curves") or ())), corrections)


def hardware_facts(hardware: Any) -> tuple[Json, list[Json]]:
    """Values of a hardware.json by dotted name, and those of each accelerator."""
    return {f"{part}.{name}": value for part in ("system", "cpu", "memory", "power")
            for name, value in _facts(field(hardware, part, OBJECT), part).items()}, \
        [_facts(card, "accelerators") for card in field(hardware, "accelerators", LIST)]


def _headline(document: Any) -> Iterator[tuple[str, float]]:
    """The numbers of a headline; parts that were not measured are missing or null."""
    for name, path in HEADLINES.items():
        part, _, last = path.rpartition(".")
        holder = document.get(part) if part else document
        if isinstance(holder, dict) and holder.get(last) is not None:
            yield name, field(holder, last, NUMBER)


def _curve(document: Any) -> tuple[str, str, Json]:
    return field(document, "model", TEXT), field(document, "axis", TEXT), {
        field(one, "metric", TEXT): [
            (field(point, "at", NUMBER), *(field(point, name, NUMBER_OR_NULL)
                                           for name in ("value", "low", "high")))
            for point in field(one, "points", LIST)]
        for one in field(document, "series", LIST)}


def _entry(cell: Any, about: dict[str, tuple[Json, identity.Model, Any]]) -> Entry:
    model, phase = field(cell, "model", TEXT), field(cell, "phase", TEXT)
    if model not in about:
        raise BrokenSubmission(f"cells: {schema.shown(model)} is not among the models")
    if phase not in suites.PHASES:
        raise BrokenSubmission(f"cells: {schema.shown(phase)} is not a phase")
    facts, identified, configuration = about[model]
    return Entry(
        model, facts.get("quantization"), phase, field(cell, "lanes", COUNT),
        field(cell, "cold", BOOL), field(cell, "planned", COUNT),
        field(cell, "ok", COUNT) + field(cell, "failed", COUNT), dict(_numbers(cell)),
        field(cell, "checks.passed", COUNT), field(cell, "checks.total", COUNT),
        _flags(cell, "flags"), facts.get("context_effective_tokens"), _shared(identified),
        _shared(configuration))


@functools.cache
def _shared(value: Any) -> Any:
    """One object for equal values, which are the same in most runs of a machine."""
    return value


def _numbers(cell: Any) -> Iterator[tuple[str, float]]:
    """The numbers that are known, without those that the client itself or a queue determined."""
    bound = metric_definitions.bound_metrics(field(cell, "verdicts.client_bound.reasons", TEXTS))
    if "queued" in _flags(cell, "flags"):
        bound |= metric_definitions.FIRST_TOKEN_METRICS
    for name in (name for name in NUMBERS if name not in bound):
        is_summary = name in metric_definitions.CALL_METRICS
        value = field(cell, f"metrics.{name}.median" if is_summary else name, NUMBER_OR_NULL)
        if value is not None:
            yield name, value


def _asked(manifest: Any) -> Json:
    """What has to agree where numbers are compared."""
    options = field(manifest, "canonical_options", OBJECT)
    changed = field(manifest, "canonical_options_overrides", OBJECT)
    names = [name for name in changed if name in options]
    hashes = field(manifest, "files_sha256", OBJECT)
    released = release.RELEASES[next(reversed(release.RELEASES))]
    overrides = {name: (field(changed, name, NUMBER_OR_NULL), field(options, name, NUMBER_OR_NULL))
                 for name in names}
    return {"harness_version": field(manifest, "harness_version", TEXT), "overrides": overrides,
            "num_ctx": field({**options, **changed}, "num_ctx", NUMBER_OR_NULL),
            "changed": frozenset(path for path, digest in released.items()
                                 if hashes.get(path) != digest)}


# --- machines as they are shown ------------------------------------------------------------------
def _device(parts: Json, cards: list[Json], tag: str, reached: str) -> Device:
    sizes = [parts.get(f"memory.{name}_bytes") for name in ("capacity", "limit")]
    known = [size for size in sizes if size]
    shown = [_card_text(card) for card in cards]
    return Device(
        tag, parts.get("system.model_name"), _without_marks(parts.get("cpu.model_name")),
        parts.get("cpu.usable_threads_count"), size_as_sold_gib(min(known)) if known else None,
        tuple(f"{shown.count(card)} x {card}" if shown.count(card) > 1 else card
              for card in sorted(set(shown))),
        parts.get("power.mode"), parts.get("power.source") == "battery", reached)


def _without_marks(name: Optional[str]) -> Optional[str]:
    """A processor's or card's name without trade marks and the clock after @."""
    bare = re.sub(r"\((?:R|TM|C)\)|\bCPU\b|@.*", " ", name or "", flags=re.IGNORECASE)
    return " ".join(bare.split()) or None


def _card_text(card: Json) -> str:
    """Name, memory and power limit of a card; of a GPU without memory of its own, its cores."""
    size, cores = card.get("memory_bytes"), card.get("cores_count")
    watts = card.get("power_limit_w")
    return " ".join(filter(None, (
        _without_marks(card.get("model_name")) or "unknown accelerator",
        f"{size_as_sold_gib(size, True):g} GiB" if size else f"{cores}-core GPU" if cores else "",
        f"{watts:.0f} W" if watts else "")))


def device_text(device: Device) -> str:
    """What computes, in words: `NVIDIA GeForce RTX 4090 24 GiB + AMD Ryzen 9 7950X, 32 threads`,
    or if one chip does both `Apple M1, 8 threads + 8-core GPU`."""
    threads = f"{device.threads:g} threads" if device.threads else ""
    cpu = ", ".join(filter(None, (device.cpu or device.system, threads)))
    within = [card for card in device.accelerators if device.cpu and card.startswith(device.cpu)]
    apart = [card for card in device.accelerators if card not in within]
    named = [card[len(device.cpu or ""):].strip() for card in within]
    return " + ".join(filter(None, (*apart, cpu, *named))) or "unknown"


def device_notes(device: Device) -> str:
    """Its other properties: `MacBook Air, power mode low_power, on battery`."""
    return ", ".join(filter(None, (
        device.system, f"power mode {device.power_mode}" if device.power_mode else "",
        "on battery" if device.on_battery else "",
        {"loopback": "", "public": "hosted endpoint"}.get(
            device.reached, f"reached over {device.reached}"))))


def runtime_text(runtime: Runtime) -> str:
    """`llama.cpp b4567 cuda`."""
    return " ".join(filter(None, runtime))
