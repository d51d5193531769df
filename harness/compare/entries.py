"""Read submissions into comparable entries."""
from __future__ import annotations

import re
from collections.abc import Iterator
from math import isfinite
from typing import Any, NamedTuple, Optional

from core import metric_definitions, release, schema, suites

Json = dict[str, Any]

MAX_CHARACTERS = 400          # of any text that is read here; schemas allow less
LARGEST = 1e15                # of any number; none that is published comes near
GIB = 1024 ** 3

# Title, and where a submission's cell holds it: a summary under `metrics`, or a value of its own.
NUMBERS = {name: metric_definitions.METRICS[name].title for name in (
    "decode_tokens_per_s", "prefill_tokens_per_s", "ttft_ms", "tpot_ms", "lane_efficiency_ratio",
    "e2el_ms", "output_token_throughput_tokens_per_s")}


class BrokenSubmission(Exception):
    """A document that is not what its schema says; the message says where and what."""


class Spread(NamedTuple):
    """One number and how sure it is. of: "prompts", "runs", "range of runs", or "" without one.

    low and high are its exact 95 % interval over the prompts of a single run, or over six runs and
    more; of two to five runs the lowest and the highest. None where there is none.
    """

    value: float
    low: Optional[float]
    high: Optional[float]
    of: str


class Entry(NamedTuple):
    """One model in one phase of one submission."""

    model: str
    quantization: Optional[str]
    phase: str
    lanes: int
    cold: bool
    planned: int
    asked: int
    numbers: dict[str, Spread]
    passed: int
    checked: int
    flags: tuple[str, ...]
    context_tokens: Optional[int]


class Device(NamedTuple):
    """What makes two machines the same one here; see the module's text."""

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
    """The program that served; backend is what it computed with, such as cuda."""

    name: str
    version: Optional[str]
    backend: Optional[str]


class Submission(NamedTuple):
    """What a comparison needs of one submission. asked: what its manifest says was asked."""

    run_id: str
    handle: str
    started_at: str
    device: Device
    runtime: Runtime
    asked: Json
    synthetic: bool
    completeness: str
    run_flags: tuple[str, ...]
    entries: tuple[Entry, ...]


# --- reading what strangers wrote ----------------------------------------------------------------
def _at(document: Any, path: str) -> Any:
    """The value at a dotted path; BrokenSubmission where it is missing."""
    at = document
    for name in path.split("."):
        if not isinstance(at, dict) or name not in at:
            raise BrokenSubmission(f"{path} is missing")
        at = at[name]
    return at


def _text(document: Any, path: str) -> str:
    value = _at(document, path)
    if not isinstance(value, str) or len(value) > MAX_CHARACTERS:
        raise BrokenSubmission(f"{path}: {schema.shown(value)} is no text of at most {MAX_CHARACTERS} "
                               "characters")
    return value


def _number(document: Any, path: str) -> Optional[float]:
    """A number from 0 to LARGEST, or null."""
    value = _at(document, path)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not (
            0 <= value <= LARGEST and isfinite(value)):
        raise BrokenSubmission(f"{path}: {schema.shown(value)} is no number from 0 to {LARGEST:g}")
    return value


def _count(document: Any, path: str) -> int:
    value = _number(document, path)
    if not isinstance(value, int):
        raise BrokenSubmission(f"{path}: {schema.shown(value)} is no whole number")
    return value


def _bool(document: Any, path: str) -> bool:
    value = _at(document, path)
    if not isinstance(value, bool):
        raise BrokenSubmission(f"{path}: {schema.shown(value)} is neither true nor false")
    return value


def _list(document: Any, path: str) -> list[Any]:
    value = _at(document, path)
    if not isinstance(value, list):
        raise BrokenSubmission(f"{path}: {schema.shown(value)} is no list")
    return value


def _fact(document: Any, path: str, read: Any) -> Any:
    """The value of a {"value", "source", "reason"} leaf; None where it is not known."""
    return None if _at(document, f"{path}.value") is None else read(document, f"{path}.value")


def _flags(document: Any, path: str) -> tuple[str, ...]:
    names = _list(document, path)
    unknown = [name for name in names if not isinstance(name, str) or name not in metric_definitions.FLAGS]
    if unknown:
        raise BrokenSubmission(f"{path}: {schema.shown(unknown[0])} is no flag")
    return tuple(metric_definitions.ordered_flags(names))


def read_submission(manifest: Any, metadata: Any, hardware: Any) -> Submission:
    """A Submission of its three parsed documents; raises BrokenSubmission.

    Only what is compared is looked at; whether a submission is sound is for its check to say.
    """
    run_id = _text(metadata, "run_id")
    if _text(manifest, "run_id") != run_id:
        raise BrokenSubmission("run_id differs between manifest.json and metadata.json")
    told = {_text(model, "model"): model for model in _list(metadata, "models")}
    return Submission(
        run_id, _text(metadata, "submitter_handle"), _text(metadata, "run.started_at"),
        _device(metadata, hardware),
        Runtime(_fact(metadata, "runtime.name", _text) or
                _text(metadata, "endpoint.engine.name"), *(_fact(metadata, f"runtime.{name}", _text)
                                                            for name in ("version", "backend"))),
        _asked(manifest), _bool(metadata, "synthetic"), _text(metadata, "run.class"),
        _flags(metadata, "run_flags"),
        tuple(_entry(cell, told) for cell in _list(metadata, "cells")))


def _entry(cell: Any, told: dict[str, Any]) -> Entry:
    model, phase = _text(cell, "model"), _text(cell, "phase")
    if model not in told:
        raise BrokenSubmission(f"cells: {schema.shown(model)} is not among the models")
    if phase not in suites.PHASES:
        raise BrokenSubmission(f"cells: {schema.shown(phase)} is no phase")
    context = _fact(told[model], "context_effective_tokens", _count)
    return Entry(
        model, _fact(told[model], "quantization", _text), phase, _count(cell, "lanes"),
        _bool(cell, "cold"), _count(cell, "planned"), _count(cell, "ok") + _count(cell, "failed"),
        dict(_numbers(cell)), _count(cell, "checks.passed"), _count(cell, "checks.total"),
        _flags(cell, "flags"), context)


def _numbers(cell: Any) -> Iterator[tuple[str, Spread]]:
    for name in NUMBERS:
        if name not in metric_definitions.CALL_METRICS:
            value = _number(cell, name)
            if value is not None:
                yield name, Spread(value, None, None, "")
            continue
        value, low, high = (_number(cell, f"metrics.{name}.{part}")
                            for part in ("median", "ci_low", "ci_high"))
        if value is not None:
            whole = low is not None and high is not None
            yield name, Spread(value, *((low, high, "prompts") if whole else (None, None, "")))


def _asked(manifest: Any) -> Json:
    """What has to agree where numbers are compared."""
    options, changed = (_at(manifest, name) for name in ("canonical_options",
                                                         "canonical_options_overrides"))
    if not isinstance(options, dict) or not isinstance(changed, dict):
        raise BrokenSubmission("canonical_options: no object")
    names = [name for name in changed if name in options]
    hashes = _at(manifest, "files_sha256")
    return {
        "harness_version": _text(manifest, "harness_version"),
        "overrides": {name: (_number(changed, name), _number(options, name)) for name in names},
        "num_ctx": _number({**options, **changed}, "num_ctx"),
        "hashes": {path: hashes[path] for path in SUITE_PATHS if path in hashes}
        if isinstance(hashes, dict) else {}}


# --- one device ----------------------------------------------------------------------------------
def _device(metadata: Any, hardware: Any) -> Device:
    capacity = _fact(hardware, "memory.capacity_bytes", _count)
    limit = _fact(hardware, "memory.limit_bytes", _count)
    known = [size for size in (capacity, limit) if size]
    cards = [_card(card) for card in _list(hardware, "accelerators")]
    return Device(
        _text(metadata, "device_tag"), _fact(hardware, "system.model_name", _text),
        _name(hardware, "cpu.model_name"),
        _fact(hardware, "cpu.usable_threads_count", _number),
        size_as_sold_gib(min(known)) if known else None,
        tuple(f"{cards.count(card)} x {card}" if cards.count(card) > 1 else card
              for card in sorted(set(cards))),
        _fact(hardware, "power.mode", _text),
        _fact(hardware, "power.source", _text) == "battery", _text(metadata, "endpoint.class"))


def _name(document: Any, path: str) -> Optional[str]:
    """A processor's or card's name without trade marks and the clock behind its @."""
    value = _fact(document, path, _text)
    if value is None:
        return None
    bare = re.sub(r"\((?:R|TM|C)\)|\bCPU\b|@.*", " ", value, flags=re.IGNORECASE)
    return " ".join(bare.split()) or None


def _card(card: Any) -> str:
    """Name, memory and power limit of a card; of a GPU without memory of its own, its cores."""
    size, cores = _fact(card, "memory_bytes", _count), _fact(card, "cores_count", _count)
    watts = _fact(card, "power_limit_w", _number)
    return " ".join(filter(None, (
        _name(card, "model_name") or "unknown accelerator",
        f"{size_as_sold_gib(size):g} GiB" if size else f"{cores}-core GPU" if cores else "",
        f"{watts:.0f} W" if watts else "")))


def size_as_sold_gib(size_bytes: int) -> float:
    """The size of memory that a machine with so many usable bytes was sold with, in GiB.

    Systems keep up to a tenth for themselves, another part with every version; sold are powers of
    two and their multiples by 9/8, 5/4, 3/2 and 7/4. The smallest of those that holds it.
    """
    size = 0.25
    while True:
        for eighths in (8, 9, 10, 12, 14):
            if size * eighths / 8 * GIB >= size_bytes:
                return size * eighths / 8
        size *= 2


def device_text(device: Device) -> str:
    """What computes, in words: `NVIDIA GeForce RTX 4090 24 GiB + AMD Ryzen 9 7950X, 32 threads`,
    or where one chip does both `Apple M1, 8 threads + 8-core GPU`."""
    threads = f"{device.threads:g} threads" if device.threads else ""
    cpu = ", ".join(filter(None, (device.cpu or device.system, threads)))
    within = [card for card in device.accelerators if device.cpu and card.startswith(device.cpu)]
    apart = [card for card in device.accelerators if card not in within]
    named = [card[len(device.cpu or ""):].strip() for card in within]
    return " + ".join(filter(None, (*apart, cpu, *named))) or "unknown"


def device_notes(device: Device) -> str:
    """What else makes it this device: `MacBook Air, power mode low_power, on battery`."""
    return ", ".join(filter(None, (
        device.system, f"power mode {device.power_mode}" if device.power_mode else "",
        "on battery" if device.on_battery else "",
        {"loopback": "", "public": "hosted endpoint"}.get(
            device.reached, f"reached over {device.reached}"))))


def runtime_text(runtime: Runtime) -> str:
    """`llama.cpp b4567 cuda`."""
    return " ".join(filter(None, runtime))


# --- what is not ranked --------------------------------------------------------------------------
SUITE_PATHS = tuple(next(reversed(release.RELEASES.values())))
