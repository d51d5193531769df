"""Make complete submissions from a few numbers, for tests: a manifest, a ledger, hardware.json and
metadata.json, each valid by its schema.

Nothing in them was measured. They are shaped like a real run: real questions and plans, lanes in a
closed loop, times in microseconds, a sample of the host every ten seconds.
"""
from __future__ import annotations

import datetime
import hashlib
import json
import os
import random
import uuid
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Optional

from complete import metadata
from core import ledger, plan, suites
from core import release as releases
from engines import servers
from machine import inventory, system

Json = dict[str, Any]

HERE = os.path.dirname(os.path.abspath(__file__))
SUITES = suites.load_suites()
BASE = datetime.datetime(2026, 11, 20, 8, 0, tzinfo=datetime.timezone.utc)
OPTIONS = {"temperature": 0.1, "num_ctx": 4096, "num_predict": 2048}
NAMESPACE = uuid.UUID("00000000-0000-0000-0000-000000000000")
SAMPLE_EVERY_US = 10_000_000
GIB = 1024 ** 3
MAC = {
    "system": {"kind": "laptop", "model_name": "Apple MacBook Air (M1, 2020)"},
    "cpu": {"model_name": "Apple M1", "vendor": "Apple", "architecture": "arm64",
            "physical_cores_count": 8, "threads_count": 8, "usable_threads_count": 8},
    "memory": {"capacity_bytes": 8 * GIB, "type": "LPDDR4X", "unified": True,
               "bandwidth_theoretical_gb_per_s": 68.3},
    "os": {"name": "macOS", "version": "15.1", "kernel_release": "24.1.0"},
    "power": {"source": "ac"},
    "accelerators": [{"model_name": "Apple M1", "vendor": "Apple", "cores_count": 8,
                      "compute_api": "Metal 3"}],
}
DESKTOP = {
    "system": {"kind": "desktop", "virtualization": "none"},
    "cpu": {"model_name": "AMD Ryzen 9 7950X 16-Core Processor", "vendor": "AuthenticAMD",
            "architecture": "x86_64", "physical_cores_count": 16, "threads_count": 32,
            "usable_threads_count": 32},
    "memory": {"capacity_bytes": 66_000_000_000, "type": "DDR5", "speed_mts": 6000},
    "os": {"name": "Debian GNU/Linux", "version": "12", "kernel_release": "6.1.0"},
    "accelerators": [{"model_name": "NVIDIA GeForce RTX 4090", "vendor": "NVIDIA",
                      "memory_bytes": 25_757_220_864, "driver_version": "560.35.03",
                      "compute_api": "CUDA 12.6", "power_limit_w": 450}],
}


class Spec(NamedTuple):
    """Properties of a made run. Times are for one lane. A call differs by up to `noise` (a share),
    a chunk by up to a tenth of it."""

    seed: int = 1
    handle: str = "ada"
    tag: str = "mac-m1-8gb"
    models: tuple[str, ...] = ("smollm2-135m",)
    quantization: str = "Q8_0"
    engine: str = "llama.cpp"
    version: str = "b6800"
    phases: str = "all"
    lanes: int = 4
    repeats: int = 1
    decode_ms_per_token: float = 10.0
    prefill_ms_per_token: float = 2.0
    tokens: int = 40
    noise: float = 0.01
    day: int = 0
    overrides: Optional[Json] = None
    target_class: str = "loopback"
    synthetic: bool = False
    smoke: bool = False
    context_tokens: int = 4096
    cached_share: float = 0.0
    probed: Json = MAC
    facts: Json = {"parameters_count": 134_515_008, "file_bytes": 144_000_000}


def run_id_of(spec: Spec) -> str:
    """A run id derived from the whole spec."""
    return str(uuid.uuid5(NAMESPACE, repr(spec)))


# --- the manifest --------------------------------------------------------------------------------
def make_manifest(spec: Spec) -> Json:
    """manifest.json of a made run."""
    options = {**OPTIONS, **(spec.overrides or {})}
    asked = plan.parse_phases(spec.phases)
    release = next(reversed(releases.RELEASES))
    engine = _engine(spec)
    return {
        "schema_version": "1", "harness_version": release, "run_id": run_id_of(spec),
        "submitter_handle": spec.handle, "device_tag": spec.tag,
        "cell_id_prefix": f"{spec.tag}:{spec.engine.lower()}", "started_at": _at(spec, 0),
        "synthetic": spec.synthetic, "smoke": spec.smoke,
        "files_sha256": dict(releases.RELEASES[release]),
        "git": {"commit": "0" * 40, "dirty": False},
        "python": {"version": "3.12.1", "implementation": "CPython"},
        "os": {"system": "Linux", "machine": "x86_64"}, "host_hostname_short": None,
        "target": {"class": spec.target_class, "scheme": "http", "port": 8080, "path": None},
        "engine": engine, "models": list(spec.models),
        "contexts": [{"model": model, **_context(spec)} for model in spec.models],
        "plan": plan.plan_of(asked, SUITES, spec.lanes, spec.repeats, options["num_predict"],
                               spec.smoke),
        "canonical_options": OPTIONS, "canonical_options_overrides": spec.overrides or {},
        "prompt_cache": {"policy": "avoid", "method": "engine_switch"}, "timeout_s": 360,
        "kept_awake_by": None, "api_key_used": False}


def _engine(spec: Spec) -> Json:
    return {"name": spec.engine, "version": spec.version, "build": None,
            "recognised_by": "/props"}


def _context(spec: Spec) -> Json:
    asked = {**OPTIONS, **(spec.overrides or {})}["num_ctx"]
    return {"requested_tokens": asked, "effective_tokens": spec.context_tokens,
            "source": "/props n_ctx", "reason": None, "remedy": None}


def _at(spec: Spec, t_us: int) -> str:
    moment = BASE + datetime.timedelta(days=spec.day, microseconds=t_us)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03d}Z"


# --- the ledger ----------------------------------------------------------------------------------
def make_events(spec: Spec, manifest: Json) -> list[Json]:
    """The lines of run.jsonl, including run_finished."""
    rng = random.Random(spec.seed)
    made = sorted(_bodies(spec, manifest, rng), key=lambda line: line[0])
    lines = [ledger.event_line(name, seq=seq, run_id=manifest["run_id"], segment=0,
                               at=_at(spec, t_us), t_us=t_us, **fields)
             for seq, (t_us, name, fields) in enumerate(made)]
    return [*lines, _last(spec, lines)]


def _last(spec: Spec, lines: list[Json]) -> Json:
    counts: dict[str, int] = {}
    for line in ledger.latest_calls(lines):
        counts[line["outcome"]] = counts.get(line["outcome"], 0) + 1
    data, t_us = b"".join(map(ledger.dump_line, lines)), lines[-1]["t_us"] + 1000
    return ledger.event_line(
        "run_finished", seq=len(lines), run_id=lines[0]["run_id"], segment=0, at=_at(spec, t_us),
        t_us=t_us, counts=dict(sorted(counts.items())), wall_us=t_us, exit_code=0,
        lines=len(lines), sha256=hashlib.sha256(data).hexdigest())


def _bodies(spec: Spec, manifest: Json, rng: random.Random) -> Iterator[tuple[int, str, Json]]:
    yield 0, "run_started", {"manifest_sha256": ledger.manifest_sha256(manifest)}
    yield 1_800_000, "instrument_calibrated", _calibration()
    for model in spec.models:
        yield 1_900_000, "endpoint_identified", {
            "model": model, "engine": _engine(spec), "context": _context(spec),
            "facts": {**dict.fromkeys(servers.FACT_NAMES), "quantization": spec.quantization,
                      **spec.facts},
            "slots": {"count": spec.lanes, "source": "/props total_slots"},
            "prompt_cache_method": "engine_switch"}
    end_us = 2_000_000
    groups: dict[tuple[str, str], list[plan.Cell]] = {}
    for cell in plan.all_cells(manifest):
        mixed = suites.PHASES[cell.phase].kind == "mixed"
        groups.setdefault(("" if mixed else cell.model, cell.phase), []).append(cell)
    for (_, phase), cells in groups.items():
        calls = list(_phase(spec, manifest, phase, cells, end_us, rng))
        yield from calls
        end_us = calls[-1][0] + 100_000
    for t_us in range(3_000_000, end_us, SAMPLE_EVERY_US):
        yield t_us, "host_sampled", _sample(spec, rng, t_us == 3_000_000)


def _calibration() -> Json:
    spread = {"p50": 10, "p99": 20, "max": 40}
    return {"stamp": "kernel", "clock_resolution_ns": 40,
            "lanes": [{"lanes": lanes, "lag_us": spread} for lanes in (1, 4)],
            "saturation": [{"lanes": lanes, "chunks_per_s": 445_655.0} for lanes in (1, 4)],
            "heartbeat_overshoot_us": {**spread, "max": 14_000}, "reason": None}


def _sample(spec: Spec, rng: random.Random, first: bool) -> Json:
    gpus = [{"index": i, "busy_ratio": round(rng.uniform(0.9, 1), 3),
             "memory_used_bytes": GIB // 2 if first else GIB + spec.facts["file_bytes"],
             "power_w": round(rng.uniform(0.62, 0.73) * (card["power_limit_w"] or 100), 1),
             "temperature_c": round(rng.uniform(58, 66), 1), "clock_mhz": 2520.0,
             "throttled": False} for i, card in enumerate(
                 card for card in spec.probed["accelerators"] if card.get("memory_bytes"))]
    return {"load_1m": round(rng.uniform(1, 3), 2), "memory_used_bytes": 3 * GIB,
            "memory_available_bytes": 5 * GIB, "swap_used_bytes": 0,
            "cpu_mhz": round(rng.uniform(2900, 3200)), "cpu_throttle_count": 0,
            "cpu_busy_ratio": system.ratio(rng.uniform(0.3, 0.9), 1),
            "other_cpu_busy_ratio": system.ratio(rng.uniform(0, 0.05), 1), "power_source": "ac",
            "temperature_c": round(rng.uniform(50, 70), 1), "energy_uj": None, "gpus": gpus}


def _phase(spec: Spec, manifest: Json, phase: str, cells: Sequence[plan.Cell], begin_us: int,
           rng: random.Random) -> Iterator[tuple[int, str, Json]]:
    """Calls of one phase: each lane sends its next question when its answer has ended."""
    entry = next(p for p in manifest["plan"]["phases"] if p["phase"] == phase)
    free_us = [begin_us] * entry["lanes"]
    asked: list[tuple[str, str]] = []
    for cell in cells:
        question = next(q for q in SUITES[phase] if q.id == cell.question_id)
        grows = suites.PHASES[phase].kind == "append"
        messages = plan.messages_of(phase, question, SUITES[phase], asked if grows else ())
        call = _call(spec, cell, question, messages, entry, free_us[cell.lane], rng)
        asked.append((question.prompt, call["response"]["text"]))
        end_us = free_us[cell.lane] + call["timing"]["done_us"]
        free_us[cell.lane] = end_us + 500
        yield end_us + 200, "call_finished", call


def _call(spec: Spec, cell: plan.Cell, question: suites.Question, messages: list[dict[str, str]],
          entry: Json, started_us: int, rng: random.Random) -> Json:
    slower = entry["lanes"] ** 0.6
    prompt_tokens = sum(len(m["content"]) for m in messages) // 4 + 8
    cached = int(prompt_tokens * spec.cached_share)
    tokens = min(spec.tokens + rng.randrange(8), entry["max_tokens"])
    off = 1 + rng.uniform(-spec.noise, spec.noise)
    gap_us = spec.decode_ms_per_token * 1000 * slower * off
    first_us = round((prompt_tokens - cached) * spec.prefill_ms_per_token * 1000 * slower * off)
    gaps = [round(gap_us * (1 + rng.uniform(-spec.noise, spec.noise) / 10))
            for _ in range(tokens - 1)]
    last_us = first_us + sum(gaps)
    text = " ".join(rng.choice(("one", "two", "three", "none")) for _ in range(tokens))
    return {
        **cell.fields(), "cold": cell.phase == "hello", "attempts": [],
        "request": {"prompt": question.prompt, **plan.fingerprint(messages), "salt": None,
                    "options": {"temperature": 0.1, "max_tokens": entry["max_tokens"],
                                "stream": True}, "dropped_fields": []},
        "response": {"http_status": 200, "text": text, "reasoning_text": "",
                     "finish_reason": "stop", "model": cell.model, "system_fingerprint": None,
                     "usage": {"completion_tokens": tokens, "prompt_tokens": prompt_tokens,
                               "prompt_tokens_details": {"cached_tokens": cached}},
                     "server_timings": None},
        "timing": {"started_us": started_us, "first_token_us": first_us,
                   "first_answer_us": first_us, "last_token_us": last_us, "done_us": last_us + 60,
                   "chunk_us": [first_us, *gaps], "chunk_kinds": None, "reads": [],
                   "ttft_null_reason": None, "bytes_received": 200 * tokens, "stamp": "kernel",
                   "read_lag_us": {"p50": 30, "p99": 100, "max": 120},
                   "clock_step_us": 0, "heartbeat_gap_us": 0},
        "reasoning": {"mode": "none", "chunks": 0, "characters": 0},
        "truncated": {"verdict": "no", "reason": None},
        "checks": {"markers": [], "format_rule": None, "format_ok": None,
                   "passed": rng.random() < 0.8 if question.required_markers else None},
        "flags": [], "outcome": "ok", "error": None}


# --- the whole submission ------------------------------------------------------------------------
class Made(NamedTuple):
    """The documents of a submission and the lines of its ledger."""

    manifest: Json
    events: list[Json]
    hardware: Json
    metadata: Json


def make(spec: Spec, declared: Optional[Json] = None) -> Made:
    """A complete submission."""
    manifest = make_manifest(spec)
    return complete(manifest, make_events(spec, manifest), spec.probed, declared)


def complete(manifest: Json, events: list[Json], probed: Json,
             declared: Optional[Json] = None) -> Made:
    """A submission from a manifest and its ledger."""
    machine = inventory.assemble(probed)
    digest = hashlib.sha256(b"".join(map(ledger.dump_line, events))).hexdigest()
    return Made(manifest, events, machine,
                metadata.build(manifest, events, digest, machine, declared or {}))


def folder_of(root: str, manifest: Json) -> str:
    """`<root>/<handle>/<device-tag>/run-<uuid>`."""
    return os.path.join(root, manifest["submitter_handle"], manifest["device_tag"],
                        f"run-{manifest['run_id']}")


def write(root: str, made: Made, with_ledger: bool = True) -> str:
    """Write a submission without run.md below a folder; return its own folder."""
    folder = folder_of(root, made.manifest)
    os.makedirs(folder)
    for name in ("manifest", "hardware", "metadata"):
        with open(os.path.join(folder, f"{name}.json"), "w", encoding="utf-8") as file:
            json.dump(getattr(made, name), file, indent=1)
    if with_ledger:
        with open(os.path.join(folder, ledger.LEDGER), "wb") as file:
            file.writelines(map(ledger.dump_line, made.events))
    return folder


def stretched(events: Sequence[Json], factor: float) -> list[Json]:
    """The same ledger with all times of calls multiplied by a factor."""
    def longer(value: Any) -> Any:
        if isinstance(value, list):
            return [longer(one) for one in value]
        return round(value * factor) if type(value) is int else value

    marks = ("started_us", "first_token_us", "first_answer_us", "last_token_us", "done_us",
             "chunk_us")
    out = []
    for event in events:
        timing = event.get("timing")
        if timing:
            timing = {k: longer(v) if k in marks else v for k, v in timing.items()}
            event = {**event, "timing": timing}
        out.append({**event, "t_us": longer(event["t_us"])})
    return out
