"""Write submissions/EXAMPLE: a submission that is complete in shape and made up in content.

    python3 harness/tests/make_example.py             replace submissions/EXAMPLE
    python3 harness/tests/make_example.py FOLDER      write the run's folder below FOLDER

The two raw files come from tests/valid_run.py; complete_submission.py writes the other three, as
for any run. manifest.json holds the SHA-256 of every measuring file, so run the script again after
a change of one. A test compares the example with what this script writes, except the hashes. Other
tests build small runs from the functions here.

Nothing was measured: the machine is a MacBook Air as recorded in tests/data/hardware/mac_m1.txt.
"""
from __future__ import annotations

import datetime
import hashlib
import os
import shutil
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple, Optional

HARNESS = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path[:0] = [path for path in (HARNESS,) if path not in sys.path]

import complete_submission
from core import answer_checks, ledger, plan, release, suites
from machine import inventory
from tests import valid_run
from tests.machine.test_machine import RecordedMachine

Json = dict[str, Any]
SUBMISSIONS = os.path.join(os.path.dirname(HARNESS), "submissions")
RUN = os.path.join("EXAMPLE", "mac-m1-8gb", "run-00000000-0000-0000-0000-000000000000")
SUITES = suites.load_suites()
STARTED = datetime.datetime(2026, 11, 20, 9, 30, tzinfo=datetime.timezone.utc)
CONNECT_US = 210
OPTIONS = {"temperature": 0.1, "num_ctx": 4096, "num_predict": 2048}
MODEL = "qwen2.5:1.5b"
ENGINE = {"name": "Ollama", "version": "0.12.6", "build": None, "recognised_by": "/api/version"}
FACTS = {"quantization": "Q4_K_M", "parameters_count": 1_543_714_304, "file_bytes": 986_061_892,
         "digest": hashlib.sha256(b"example").hexdigest(), "family": "qwen2",
         "trained_context_tokens": 32_768}
CONTEXT = {"requested_tokens": 4096, "effective_tokens": 4096, "source": "/api/ps context_length",
           "reason": None, "remedy": None}
DECLARED = (
    "metadata.runtime.backend=metal", "metadata.models.0.gpu_offload_ratio=1",
    "metadata.runtime.accelerators_used_count=1",
    "metadata.models.0.source_repository=HuggingFaceTB/SmolLM2-135M-Instruct",
    "metadata.models.0.draft_model=none", "metadata.runtime.build_origin=release archive",
    "metadata.runtime.launch_flags=-c 8192 -np 2 -ngl 99",
    "metadata.runtime.flash_attention=auto", "metadata.runtime.kv_cache_type=f16",
    "hardware.memory.type=LPDDR4X",
    "run_md.deviations=None.",
    "run_md.notes=Everything in this folder is made up; it shows what a submission looks like.",
    "run_md.attestation=true")


class Mac(RecordedMachine):
    """The recorded MacBook Air, on mains power and without its low-power mode."""

    def __init__(self) -> None:
        super().__init__("mac_m1")
        self.commands["pmset -g batt"] = "Now drawing from 'AC Power'\n"
        self.commands["pmset -g"] = self.commands["pmset -g"].replace(
            "lowpowermode         1", "lowpowermode         0")
        self.python = {"version": "3.9.6", "implementation": "CPython"}


# --- the two raw files ---------------------------------------------------------------------------
class Call(NamedTuple):
    """A call: microseconds to its first token and between chunks, the answer, the outcome."""

    first_us: int
    gaps_us: Sequence[int]
    text: str
    outcome: str = "ok"


def manifest_of(phases: Sequence[str], models: Sequence[str] = (MODEL,), **changed: Any) -> Json:
    """manifest.json of a run of these phases."""
    made = {
        "schema_version": "1", "harness_version": list(release.RELEASES)[-1],
        "run_id": "00000000-0000-0000-0000-000000000000", "submitter_handle": "example",
        "device_tag": "mac-m1-8gb", "cell_id_prefix": "mac-m1-8gb:ollama",
        "started_at": at(-20_000), "synthetic": True, "smoke": False,
        "files_sha256": release.current_hashes(),
        "git": {"commit": "0" * 40, "dirty": False},
        "python": {"version": "3.9.6", "implementation": "CPython"},
        "os": {"system": "Darwin", "machine": "arm64"}, "host_hostname_short": None,
        "target": {"class": "loopback", "scheme": "http", "port": 11434, "path": None},
        "engine": ENGINE, "models": list(models),
        "contexts": [{"model": model, **CONTEXT} for model in models],
        "plan": plan.plan_of(phases, SUITES, 4, 1, OPTIONS["num_predict"]),
        "canonical_options": OPTIONS, "canonical_options_overrides": {},
        "prompt_cache": {"policy": "avoid", "method": "salt"}, "timeout_s": 360.0,
        "kept_awake_by": None, "api_key_used": False}
    return {**made, **changed}


def at(t_us: int) -> str:
    """UTC time of a moment on the run's clock."""
    moment = STARTED + datetime.timedelta(microseconds=t_us)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03d}Z"


def ledger_of(manifest: Json, calls: Iterable[Call], facts: Json = FACTS,
              context: Json = CONTEXT, hardware: Optional[Json] = None) -> list[Json]:
    """The lines of run.jsonl for calls in the plan's order, with the seal in the last line.
    hardware: the machine that the run has recorded."""
    lines = [ledger.event_line(name, seq=seq, run_id=manifest["run_id"], segment=0, at=at(t_us),
                               t_us=t_us, **fields)
             for seq, (t_us, name, fields) in enumerate(
                 _lines(manifest, iter(calls), facts, context, hardware))]
    counts, t_us = ledger.counts(lines), lines[-1]["t_us"] + 3_000
    seal = hashlib.sha256(b"".join(map(ledger.dump_line, lines))).hexdigest()
    return [*lines, ledger.event_line(
        "run_finished", seq=len(lines), run_id=manifest["run_id"], segment=0, at=at(t_us),
        t_us=t_us, counts=counts, wall_us=t_us, exit_code=int(set(counts) != {"ok"}),
        lines=len(lines), sha256=seal)]


def _lines(manifest: Json, calls: Iterator[Call], facts: Json, context: Json,
           hardware: Optional[Json]) -> Iterator[tuple[int, str, Json]]:
    yield 0, "run_started", {"manifest_sha256": ledger.manifest_sha256(manifest)}
    if hardware:
        yield 20_000, "machine_identified", {"hardware": hardware}
    for model in manifest["models"]:
        yield 21_000, "endpoint_identified", {
            "model": model, "engine": manifest["engine"], "facts": facts, "context": context,
            "slots": {"count": None, "source": None},
            "prompt_cache_method": manifest["prompt_cache"]["method"]}
    t_us, limits = 22_000, {one["phase"]: one["max_tokens"] for one in manifest["plan"]["phases"]}
    for (model, phase), cells in _phases_of(manifest).items():
        started_us, outcomes = t_us, []
        for cell in cells:
            call = next(calls)
            body = call_of(cell, call, t_us + CONNECT_US, limits[phase])
            t_us = t_us + CONNECT_US + body["timing"]["done_us"] + 400
            outcomes.append(call.outcome)
            yield t_us, "call_finished", body
        yield t_us + 90, "phase_finished", {
            "model": model, "phase": phase, "planned": len(cells), "ok": outcomes.count("ok"),
            "failed": len(cells) - outcomes.count("ok"), "started_us": started_us,
            "wall_us": t_us + 90 - started_us}
        t_us += 200


def _phases_of(manifest: Json) -> dict[tuple[str, str], list[plan.Cell]]:
    groups: dict[tuple[str, str], list[plan.Cell]] = {}
    for cell in plan.all_cells(manifest):
        groups.setdefault((cell.model, cell.phase), []).append(cell)
    return groups


def call_of(cell: plan.Cell, call: Call, started_us: int, max_tokens: int) -> Json:
    """The fields of one call_finished."""
    question = next(one for one in SUITES[cell.phase] if one.id == cell.question_id)
    messages = plan.messages_of(cell.phase, question, SUITES[cell.phase])
    ok, tokens = call.outcome == "ok", len(call.gaps_us) + 1
    last_us = call.first_us + sum(call.gaps_us)
    marks = dict.fromkeys(("first_token_us", "first_answer_us", "last_token_us"))
    if ok:
        marks = {"first_token_us": call.first_us, "first_answer_us": call.first_us,
                 "last_token_us": last_us}
    return {
        **cell.fields(), "cold": cell.phase == "hello", "attempts": [],
        "request": {"prompt": question.prompt, **plan.fingerprint(messages), "salt": _salt(cell),
                    "options": {"temperature": 0.1, "max_tokens": max_tokens, "stream": True,
                                "stream_options": {"include_usage": True}}, "dropped_fields": []},
        "response": _response(cell.model, call, tokens, messages) if ok else None,
        "timing": {"started_us": started_us, **marks, "done_us": last_us + 900,
                   "chunk_us": [call.first_us, *call.gaps_us] if ok else [],
                   "chunk_kinds": None, "reads": [],
                   "ttft_null_reason": None if ok else "no text arrived",
                   "bytes_received": 260 * tokens if ok else 0, "stamp": "user",
                   "read_lag_us": None, "clock_step_us": 0, "heartbeat_gap_us": 100_000},
        "reasoning": {"mode": "none", "chunks": 0, "characters": 0},
        "truncated": {"verdict": "unknown",
                      "reason": "no earlier call to compare prompt_tokens with" if ok
                      else "there is no answer"},
        "checks": answer_checks.check_answer(call.text, question.required_markers,
                                             question.format_rule) if ok else None,
        "flags": [], "outcome": call.outcome,
        "error": None if ok else {"kind": call.outcome, "message": "the call's time was up",
                                  "status": None, "body_start": None}}


def _salt(cell: plan.Cell) -> str:
    return hashlib.sha256(cell.cell_id.encode()).hexdigest()[:16]


def _response(model: str, call: Call, tokens: int, messages: Sequence[Json]) -> Json:
    prompt_tokens = sum(len(message["content"]) for message in messages) // 4 + 28
    return {"http_status": 200, "text": call.text, "reasoning_text": "", "finish_reason": "stop",
            "model": model, "system_fingerprint": "fp_ollama",
            "usage": {"prompt_tokens": prompt_tokens, "completion_tokens": tokens,
                      "total_tokens": prompt_tokens + tokens},
            "server_timings": None}


# --- the whole folder ----------------------------------------------------------------------------
def write_raw(folder: str, manifest: Json, events: Sequence[Json]) -> str:
    """Write the two raw files of a run; the folder."""
    os.makedirs(folder)
    with open(os.path.join(folder, ledger.MANIFEST), "wb") as file:
        file.write(ledger.dump_document(manifest))
    with open(os.path.join(folder, ledger.LEDGER), "wb") as file:
        file.writelines(map(ledger.dump_line, events))
    return folder


def make(root: str, files_sha256: Optional[Json] = None) -> str:
    """Write the example below a folder, replacing an older one; its folder."""
    folder = os.path.join(root, RUN)
    shutil.rmtree(folder, ignore_errors=True)
    made = valid_run.make(valid_run.Spec(phases="5q", handle="example", tag="mac-m1-8gb")).copy()
    like = manifest_of(("hello", "5q"))
    made.manifest.update({name: like[name] for name in (
        "run_id", "synthetic", "files_sha256", "git", "python", "os")})
    made.manifest["files_sha256"] = files_sha256 or like["files_sha256"]
    for event in made.events:
        event["run_id"] = like["run_id"]
        if event["event"] == "machine_identified":
            event["hardware"] = inventory.inventory(Mac())
        if event["event"] == "host_sampled":
            event.update(memory_available_bytes=5 << 30, cpu_mhz=3_200)
        for stamped in (event, event.get("timing"), *event.get("lanes", ())):
            if stamped and "stamp" in stamped:         # macOS has no kernel stamps
                stamped["stamp"] = "user"
            if stamped and "read_lag_us" in stamped:
                stamped["read_lag_us"] = None
    write_raw(folder, made.manifest, made.sealed().events)
    complete_submission.complete(folder, DECLARED, machine=Mac(), names=())
    return folder


def main() -> int:
    print(make(sys.argv[1] if len(sys.argv) > 1 else SUBMISSIONS))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
