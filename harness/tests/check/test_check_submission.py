"""The submission check: each finding code by a changed submission, and honest runs without any.

A case takes a submission that the check accepts (valid_run.py), changes one thing, seals the rest
again as a forger would, and names all codes that result, and a word of the first one's message.
"""

import contextlib
import datetime
import io
import json
import os
import random
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import textwrap
import time
import unittest
from pathlib import Path
from typing import Any, NamedTuple, Optional
from unittest import mock

import check_submission
import run_benchmark
from check import (
    accounting,
    copies,
    documents,
    findings,
    ledger_order,
    manifest,
    markdown,
    parsing,
    plausibility,
    privacy_scan,
    submission,
    submission_files,
)
from complete import attestation, declared
from core import answer_checks, ledger, names, privacy, release, schema
from core.errors import HarnessError
from machine import inventory
from tests import runs, valid_run
from tests.valid_run import Spec, make

SMALL = valid_run.SMALL
FIVE = Spec(phases="frozen,5q")
LONG = Spec(tokens=80)
LANES = Spec(phases="parallel_same")
ANSWERS = Spec(phases="frozen,5q", tokens=90)
LONG_CALLS = Spec(phases="frozen", engine="vllm", tokens=300)
LONG_LANES = Spec(phases="parallel_same", tokens=60)
SALTED = Spec(engine="vllm")
SKIPPING = Spec(phases="frozen,parallel_mixed")
RESUMED = Spec(kill_after=(4,), interrupted=True)
TORN = Spec(kill_after=(4,), torn=b'{"event":"call_fin')
BUSY = Spec(busy=("P-EASY",))
EDGE = Spec(phases="edge_append", edge=valid_run.SUITES["edge_append"][4].id)
SUITE = Spec(phases="edge_suite")
EVERYTHING = Spec(
    engine="ollama", phases="all", tokens=12, kill_after=(20, 60), torn=b'{"event":"call',
    busy=(valid_run.SUITES["5q"][1].id,), failing=("P-HARD",), thinking=("P-EASY", "P-MEDIUM"))
UNPINNED = {"public-1": valid_run.RELEASES["public-1"]._replace(revisions=())}


# --- running it ----------------------------------------------------------------------------------
def check_folders(folders, index=None, **settings):
    """The report on folders on disk."""
    report = findings.Report()
    return check_all(submission_files.of_paths(folders, report), report, index, **settings)


def check_all(found, report=None, index=None, **settings):
    """The report on submissions."""
    report = report or findings.Report()
    chosen = {"released": valid_run.RELEASES, "now_s": valid_run.NOW_S, **settings}
    check_submission.check_all(found, check_submission.Settings(
        **chosen), index or copies.Index(), report)
    return report


def check(made, disk=None, **settings):
    """The report on a submission in memory, or in a folder that disk changes."""
    if not disk:
        return check_all([in_memory(made)], **settings)
    with tempfile.TemporaryDirectory() as root:
        folder = made.write(root)
        return check_folders([str(disk(Path(folder)) or folder)], **settings)


def in_memory(made):
    """A submission without a disk."""
    return submission_files.Submission("x", tuple(made.path().split("/")), {
        name: submission_files.Blob(f"x/{name}", len(data), lambda data=data: io.BytesIO(data))
        for name, data in made.bytes_of().items()})


def codes(report):
    return sorted({finding.code for finding in report.findings()})


def run_main(*argv, stdin=b""):
    """(exit code, standard output, standard error) of the program."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), \
            mock.patch("sys.stdin", mock.Mock(buffer=io.BytesIO(stdin))):
        try:
            code = check_submission.main(list(argv))
        except SystemExit as stop:
            code = stop.code
    return code, out.getvalue(), err.getvalue()


# --- changing it ---------------------------------------------------------------------------------
def calls_of(made, phase=None):
    return [event for event in made.events if event["event"] == "call_finished"
            and phase in (None, event["phase"])]


def one(made, event, at=0):
    return [line for line in made.events if line["event"] == event][at]


def later(made, event, by_us):
    """Delay everything from a line on."""
    at = made.events.index(event)
    for line in made.events[at:]:
        line["t_us"] += by_us
        line["at"] = moved(line["at"], by_us)
        if line is not event and line.get("timing"):
            line["timing"]["started_us"] += by_us
        if line["event"] == "phase_finished":
            inside = any(call.get("phase") == line["phase"] for call in made.events[:at])
            line["wall_us" if inside else "started_us"] += by_us
        if line["event"] == "run_finished":
            line["wall_us"] += by_us


def moved(at, by_us):
    moment = datetime.datetime.strptime(at, "%Y-%m-%dT%H:%M:%S.%fZ")
    return f"{moment + datetime.timedelta(microseconds=by_us):%Y-%m-%dT%H:%M:%S.%f}"[:23] + "Z"


def set_gaps(call, gaps):
    """Give a call other chunk times, and the times that follow."""
    timing = call["timing"]
    timing["chunk_us"] = [timing["first_token_us"], *gaps]
    timing["last_token_us"] = sum(timing["chunk_us"])
    timing["done_us"] = timing["last_token_us"] + 500


def set_answer(call, text):
    """Give a call another answer and its checks."""
    call["response"]["text"] = text
    question = next(q for q in valid_run.SUITES[call["phase"]] if q.id == call["question_id"])
    call["checks"] = answer_checks.check_answer(text, question.required_markers,
                                                question.format_rule)


def count_prompts(made, factor):
    """Multiply all prompt counts of the server."""
    for call in calls_of(made):
        usage, timings = call["response"]["usage"], call["response"]["server_timings"]
        usage["prompt_tokens"] *= factor
        usage["total_tokens"] = usage["prompt_tokens"] + usage["completion_tokens"]
        timings["prompt_n"] = usage["prompt_tokens"]
        timings["prompt_per_token_ms"] /= factor
        timings["prompt_per_second"] *= factor
    for probe in one(made, "cache_probed")["probes"]:
        probe["prompt_tokens"] *= factor


def count_answers(made, count):
    """Set all answer counts of the server; count gives a call's tokens."""
    for call in calls_of(made)[1:]:
        usage, timings = call["response"]["usage"], call["response"]["server_timings"]
        usage["completion_tokens"] = timings["predicted_n"] = tokens = count(call)
        usage["total_tokens"] = usage["prompt_tokens"] + tokens
        timings["predicted_per_token_ms"] = timings["predicted_ms"] / tokens
        timings["predicted_per_second"] = tokens * 1000 / timings["predicted_ms"]


def declare(made, key, value):
    """Declare a value; key: `models.0.file_bytes`."""
    document = made.metadata
    *path, last = key.split(".")
    for name in path:
        document = document[int(name) if name.isdigit() else name]
    document[last] = {"value": value, "source": "declared", "reason": None}


def machines(made):
    """hardware.json and the machine in the ledger, from which it is made."""
    return [made.hardware, *(event["hardware"] for event in made.events
                             if event["event"] == "machine_identified")]


def probe(made, key, value):
    section, name = key.split(".")
    for machine in machines(made):
        machine[section][name] = {"value": value, "source": "probed", "reason": None}


# --- the cases -----------------------------------------------------------------------------------
def falling(name, first, later):
    """A change of two samples that follow each other."""
    def change(made):
        samples = [event for event in made.events if event["event"] == "host_sampled"]
        samples[0][name], samples[1][name] = first, later
    return change


def idle(made):
    for event in made.events:
        if event["event"] == "host_sampled":
            event["cpu_busy_ratio"] = 0.004


def bursts(made):
    """Three chunks come at once."""
    for call in calls_of(made):
        chunks, call["timing"]["reads"] = call["timing"]["chunk_us"], []
        for at in range(1, len(chunks) - 2, 3):
            chunks[at:at + 3] = [sum(chunks[at:at + 3]) - 233 - at, 117, 116 + at]


def failed_early(made):
    """An answer in place of which a timeout is recorded."""
    call = calls_of(made, "5q")[2]
    call.update(outcome="timeout", checks=None, error={
        "kind": "timeout", "message": "the call's time was up", "status": 200, "body_start": None})
    call["response"]["finish_reason"] = None
    end = [event for event in made.events if event["event"] == "phase_finished"][-1]
    end.update(ok=end["ok"] - 1, failed=1)
    one(made, "run_finished")["exit_code"] = 1


class Case(NamedTuple):
    """A change that has a code. word: of its message; change: of the documents, which are sealed
    then; follows: other codes that result; after: a change of the sealed documents; disk: of the
    folder."""

    code: str
    word: str
    change: Any = None
    spec: Spec = SMALL
    follows: tuple[str, ...] = ()
    after: Any = None
    disk: Any = None
    settings: Optional[dict] = None


def assign(find, name, value):
    """A change of one key of `find(made)`; value: the new value, or a function of the old one."""
    def change(made):
        held = find(made)
        held[name] = value(held[name]) if callable(value) else value
    return change


def call_field(*path, value, at=1):
    """A change of one field of one call."""
    def find(made):
        held = calls_of(made)[at]
        for name in path[:-1]:
            held = held[name]
        return held
    return assign(find, path[-1], value)


def line_field(event, name, value, at=0):
    return assign(lambda made: one(made, event, at), name, value)


def manifest_field(*path, value):
    def find(made):
        held = made.manifest
        for name in path[:-1]:
            held = held[name]
        return held
    return assign(find, path[-1], value)


def file_bytes(name, data):
    """Replace the bytes of a file."""
    return lambda made: made.files.__setitem__(
        name, data(made.bytes_of()[name]) if callable(data) else data)


def words(name, text):
    return lambda made: made.words.__setitem__(name, text)


def rename_model(name):
    def rename(made):
        old = made.manifest["models"][0]
        for document in (made.manifest, made.metadata):
            document.update(json.loads(json.dumps(document).replace(old, name)))
        made.events[:] = json.loads(json.dumps(made.events).replace(old, name))
    return rename


def unlink(name):
    return lambda folder: (folder / name).unlink()


def link(folder):
    (folder / "run.md").unlink()
    (folder / "run.md").symlink_to("manifest.json")


def drop(event, at=0):
    return lambda made: made.events.remove(one(made, event, at))


def drop_call(made):
    made.events.remove(calls_of(made)[2])


def drop_resumed_hello(made):
    """Remove the hello of the second segment and the lines that follow from it."""
    at = made.events.index(one(made, "run_resumed"))
    hello = next(i for i, line in enumerate(made.events) if i > at and line.get("phase") == "hello")
    del made.events[hello:hello + 3]


def to_other_machine(made):
    """The run of a server on another machine, which the client does not record."""
    made.manifest["target"]["class"] = "lan"
    made.events.remove(one(made, "machine_identified"))
    made.hardware.clear()
    made.hardware.update(declared.remote_hardware(made.manifest["python"]))


def trade_lines(made):
    """Swap two lines and their times."""
    first, second = made.events[2:4]
    for name in ("t_us", "at"):
        first[name], second[name] = second[name], first[name]
    made.events[2:4] = [second, first]


def ask_again(made):
    """Repeat an answered call at the end of its phase."""
    last = calls_of(made, "frozen")[-1]
    at = made.events.index(last) + 1
    took_us = last["timing"]["done_us"] + 1000
    later(made, made.events[at], took_us)
    again = json.loads(json.dumps(last))
    again["timing"]["started_us"] = last["t_us"] + 400
    again.update(t_us=last["t_us"] + took_us, at=moved(last["at"], took_us))
    made.events.insert(at, again)


def skip_own_model(made):
    line = one(made, "endpoint_identified")
    made.events.insert(3, ledger.event_line(
        "model_skipped", **{name: line[name] for name in ("seq", "run_id", "segment", "at", "t_us",
                                                          "model")}, reason="it does not chat"))


def write_after_the_end(made):
    at = made.events.index(one(made, "run_interrupted"))
    made.events.insert(at + 1, {**one(made, "host_sampled"), **{
        name: made.events[at][name] for name in ("segment", "at", "t_us")}})


def outlast(made):
    call = calls_of(made)[2]
    call["timing"]["done_us"] += 400_000_000
    later(made, call, 400_000_000)


def wall_clock_later(made):
    for line in made.events[5:]:
        line["at"] = moved(line["at"], 3_600_000_000)


def faster(made):
    """Every answer in half its time; nothing else moves."""
    for call in calls_of(made):
        set_gaps(call, [gap // 2 for gap in call["timing"]["chunk_us"][1:]])


def faster_with_tails(made):
    """The same, and each call ends when it did."""
    ends_us = [call["timing"]["done_us"] for call in calls_of(made)]
    faster(made)
    for call, done_us in zip(calls_of(made), ends_us):
        call["timing"]["done_us"] = done_us


def slow_start(made):
    first = calls_of(made, "frozen")[0]
    later(made, first, 70_000_000)
    first["timing"]["started_us"] += 70_000_000


def faster_segment(made):
    for call in calls_of(made):
        if call["segment"] == 1:
            set_gaps(call, [gap * 55 // 100 for gap in call["timing"]["chunk_us"][1:]])


def graphics_card(made):
    found = inventory.assemble({"accelerators": [
        {"vendor": "NVIDIA", "model_name": "NVIDIA GeForce RTX 5090"}]})
    for machine in machines(made):
        machine.update({name: found[name] for name in ("accelerators", "accelerators_count")})
    declare(made, "models.0.gpu_offload_ratio", 1)


def sample_back_in_time(made):
    sample = one(made, "host_sampled")
    sample["at"] = moved(sample["at"], 1000 - sample["t_us"])
    sample["t_us"] = 1000


def sample_thrice(made):
    sample = one(made, "host_sampled")
    made.events[-2:-1] = [dict(sample) for _ in range(3)]


def slow_memory(made):
    probe(made, "memory.bandwidth_theoretical_gb_per_s", 10.0)
    probe(made, "memory.bandwidth_measured_gb_per_s", 9.0)


def slow_cpu(made):
    for name in ("physical_cores_count", "threads_count", "usable_threads_count"):
        probe(made, f"cpu.{name}", 1)
    probe(made, "cpu.max_mhz", 1000)
    probe(made, "cpu.instruction_sets", ["neon"])


def one_token_less(made):
    """Give one call the rate that a server gives which leaves out the first token."""
    timings = calls_of(made)[1]["response"]["server_timings"]
    timings["prompt_per_second"] *= 1 - 1 / timings["prompt_n"]


def slow_server(made):
    for call in calls_of(made):
        timings = call["response"]["server_timings"]
        for name, factor in (("predicted_ms", 3), ("predicted_per_token_ms", 3),
                             ("predicted_per_second", 1 / 3)):
            timings[name] *= factor


def same_answer(made):
    for call in calls_of(made)[1:]:
        set_answer(call, "I am a language model, and can not answer this question here. " * 4)


def same_times(made):
    longest = max(calls_of(made), key=lambda call: len(call["timing"]["chunk_us"]))
    other = min(calls_of(made)[1:], key=lambda call: len(call["timing"]["chunk_us"]))
    longest["timing"]["reads"] = other["timing"]["reads"]
    set_gaps(longest, other["timing"]["chunk_us"][1:])


def even_gaps(made):
    call = max(calls_of(made), key=lambda call: len(call["timing"]["chunk_us"]))
    set_gaps(call, [min(gap, 8500) for gap in call["timing"]["chunk_us"][1:]])


def even_rates(made):
    for call in calls_of(made)[1:]:
        gaps = call["timing"]["chunk_us"][1:]
        wanted = (call["response"]["usage"]["completion_tokens"] - 1) * 8000
        gaps = [gap * wanted // sum(gaps) for gap in gaps]
        set_gaps(call, [gaps[0] + wanted - sum(gaps), *gaps[1:]])


def round_times(made):
    for call in calls_of(made):
        set_gaps(call, [gap // 100 * 100 for gap in call["timing"]["chunk_us"][1:]])


def other_canonical(made):
    made.manifest["canonical_options"]["temperature"] = 0.2
    made.manifest["canonical_options_overrides"]["temperature"] = 0.1


def corrections_of(*run_ids):
    return json.dumps({"schema_version": "1", "corrections": [
        {"run_id": run_id, "state": "withdrawn", "since": "2026-11-20", "issue": None,
         "reason": "Another model.", "values": {}} for run_id in run_ids]}).encode()


def host_name(made):
    made.manifest["host_hostname_short"] = "box"


def other_prompts(made):
    made.manifest["files_sha256"]["harness/prompts.py"] = "0" * 64


ANOTHER_ID = "9" * 8 + "-9999" * 3 + "-" + "9" * 12
OTHER_PROMPTS = {"harness/prompts.py": "0" * 64}
OTHER_RELEASE = {"public-1": release.Release(
    {**valid_run.RELEASES["public-1"].asked, **OTHER_PROMPTS},
    (release.revision({**release.current_hashes(), **OTHER_PROMPTS}),))}
HUGE_LINE = b'{"event":"' + b"x" * (parsing.MAX_LINE_BYTES + 10) + b'"}\n'

# (word of the finding, field of a call, its new value or a function of the old one)
CALL_FIELDS = (
    ("lane is 3", "lane", 3),
    ("cold", "cold", True),
    ("messages_chars", "request.messages_chars", lambda n: n + 1),
    ("prompt", "request.prompt", "hello"),
    ("temperature", "request.options", lambda held: {**held, "temperature": 0.2}),
    ("dropped_fields", "request.dropped_fields", ["stream_options"]),
    ("salt", "request.salt", "0123456789abcdef"),
    ("HTTP status", "response.http_status", 201),
    ("finish_reason", "response.finish_reason", None),
    ("characters", "reasoning.characters", 1),
    ("truncated", "truncated.reason", "no reason"),
    ("chunk_kinds", "timing.chunk_kinds", "a3r2"),
    ("first_answer_us", "timing.first_answer_us", lambda us: us + 1),
    ("reads", "timing.reads", lambda held: [*held, [999, 2]]),
    ("reads", "timing.reads", [[1, 2]]),
    ("ttft_null_reason", "timing.ttft_null_reason", "no text arrived"),
    ("read_lag_us", "timing.read_lag_us", None),
    ("more digits", "timing.read_lag_us.p99", 101),
    ("more digits", "timing.heartbeat_gap_us", 101_000),
    ("bytes_received", "timing.bytes_received", 10),
)
CASES = (
    # files
    Case("file-missing", "missing", disk=unlink("run.md")),
    Case("file-unexpected", "five files",
         disk=lambda folder: (folder / ".DS_Store").write_bytes(b"")),
    Case("file-too-large", "300000", after=file_bytes("run.md", b"x" * 300_000)),
    Case("file-too-large", "line", after=file_bytes("run.jsonl", HUGE_LINE)),
    Case("file-malformed", "NaN", after=file_bytes("hardware.json", b'{"a": NaN}')),
    Case("file-malformed", "twice", after=file_bytes(
        "manifest.json", lambda data: data.replace(b"{", b'{"smoke": false, ', 1))),
    Case("file-malformed", "UTF-8", after=file_bytes("run.md", b"\xff")),
    Case("file-malformed", "list", after=file_bytes("hardware.json", b"[" + b"1," * 600 + b"1]")),
    # The last line is not under the ledger's seal, but metadata.json has the hash of all of it.
    Case("file-malformed", "blanks", follows=("document-differs",), after=file_bytes(
        "run.jsonl", lambda data: data.replace(b'"event":"run_finished"',
                                               b'"event": "run_finished"'))),
    Case("file-malformed", "newline", follows=("document-differs",), after=file_bytes(
        "run.jsonl", lambda data: data[:-1])),
    Case("file-malformed", "not a known field", after=lambda made: made.hardware.update(extra=1)),
    Case("file-malformed", "integer", call_field("lane", value=0.0)),
    Case("file-malformed", "integer", after=lambda made: made.metadata.update(counts={"ok": 4.0})),
    Case("file-malformed", "no line", after=file_bytes("run.jsonl", b"")),
    Case("text-invisible", "U+200B", words("notes", "nothing\u200b at all")),
    Case("answer-invisible", "U+202E",
         call_field("response", "text", value=lambda text: text + "\u202e")),
    # whose run it is, and what made it
    Case("ids-differ", "folder", disk=lambda folder: folder.rename(folder.parent / "run-1")),
    Case("ids-differ", "run_id", line_field("host_sampled", "run_id", ANOTHER_ID)),
    Case("ids-differ", "device_tag", disk=lambda folder: folder.parent.rename(
        folder.parent.parent / "other-tag") / folder.name),
    Case("harness-modified", "public-0", manifest_field("harness_version", value="public-0")),
    Case("harness-modified", "sse.py",
         manifest_field("files_sha256", "harness/run/sse.py", value="0" * 64)),
    Case("harness-modified", "json.py",
         manifest_field("files_sha256", "harness/json.py", value="0" * 64)),
    Case("harness-modified", "canonical_options", other_canonical,
         follows=("options-overridden",)),
    Case("harness-unreleased", "public-1", settings={"released": UNPINNED}),
    Case("suites-unavailable", "files_sha256", other_prompts, settings={"released": OTHER_RELEASE}),
    Case("not-a-measurement", "synthetic", manifest_field("synthetic", value=True)),
    Case("not-a-measurement", "smoke", spec=Spec(more=("--smoke",))),
    Case("name-refused", "placeholder", spec=Spec(handle="unnamed")),
    Case("name-refused", "placeholder", spec=Spec(more=("--cell-id-prefix", "local:llama.cpp"))),
    Case("name-refused", "Ada", spec=Spec(handle="Ada")),
    Case("handle-not-author", "grace", settings={"handle": "Grace"}),
    Case("options-overridden", "num_predict", spec=Spec(more=("--num-predict", "64"))),
    Case("manifest-altered", "question_ids",
         lambda made: made.manifest["plan"]["phases"][1]["question_ids"].reverse()),
    Case("manifest-altered", "suite_file",
         lambda made: made.manifest["plan"]["phases"][1].update(suite_file="x")),
    Case("manifest-altered", "phases", lambda made: made.manifest["plan"]["phases"].reverse()),
    Case("manifest-altered", "calls", manifest_field("plan", "repeats", value=1000), spec=LANES),
    Case("manifest-altered", "prompt_cache", manifest_field("prompt_cache", "method", value="salt"),
         follows=("ledger-altered",)),
    Case("manifest-altered", "contexts",
         lambda made: made.manifest["contexts"][0].update(model="another"),
         follows=("ledger-altered",)),
    Case("manifest-altered", "manifest_sha256",
         after=manifest_field("git", "commit", value="4" * 40)),
    Case("server-changed", "fp_2", call_field("response", "system_fingerprint", value="fp_2")),
    Case("endpoint-remote", "lan", to_other_machine),
    Case("not-a-measurement", "OpenRouter", manifest_field("engine", "name", value="OpenRouter"),
         follows=("ledger-altered", "manifest-altered")),
    Case("not-a-measurement", "coder:480b-cloud", rename_model("coder:480b-cloud"),
         spec=Spec(engine="ollama"), follows=("claim-contradicted",)),
    # the ledger: order of lines
    Case("ledger-altered", "run_started", drop("run_started")),
    Case("ledger-altered", "seq", after=line_field("run_finished", "seq", lambda seq: seq + 1)),
    Case("ledger-altered", "sha256", after=line_field("run_finished", "sha256", "0" * 64)),
    Case("ledger-altered", "exit_code", after=line_field("run_finished", "exit_code", 1)),
    Case("ledger-altered", "wall_us", after=line_field("run_finished", "wall_us", 5)),
    Case("ledger-altered", "segment", line_field("host_sampled", "segment", 1)),
    Case("ledger-altered", "has ended", write_after_the_end, spec=RESUMED),
    Case("ledger-altered", "calibration", trade_lines),
    Case("ledger-altered", "calibration", drop("instrument_calibrated")),
    Case("ledger-altered", "too close", sample_thrice),
    Case("ledger-altered", "identified again", drop("endpoint_identified", 1)),
    Case("ledger-altered", "manifest.models", skip_own_model),
    Case("ledger-altered", "no hello", drop_resumed_hello, spec=RESUMED),
    Case("ledger-altered", "lane 0", spec=Spec(swapped=True)),
    Case("ledger-altered", "cannot be skipped",
         line_field("phase_skipped", "reason", "no time"), spec=SKIPPING),
    Case("ledger-altered", "parallel_mixed", drop("phase_skipped"), spec=SKIPPING),
    Case("ledger-altered", "planned, ok", line_field("phase_finished", "ok", 0, at=1)),
    Case("ledger-altered", "wall_us", line_field("phase_finished", "wall_us", 1, at=1)),
    Case("ledger-altered", "phase_finished", drop("phase_finished", 1)),
    Case("ledger-altered", "in_flight",
         line_field("run_interrupted", "in_flight", ["a:b:c:d"]), spec=RESUMED),
    Case("ledger-altered", "torn_bytes", line_field("run_resumed", "torn_bytes", 3), spec=TORN),
    Case("ledger-altered", "cache_probed", drop("cache_probed")),
    Case("ledger-unfinished", "run_finished", lambda made: made.events.pop()),
    # Counted again, the phase lacks a call, and so the run has one without an answer.
    Case("ledger-unfinished", "planned call", drop_call, follows=("ledger-altered",)),
    # It comes after itself.
    Case("call-repeated", "outcome ok", ask_again, follows=("ledger-altered",)),
    # the ledger: values that follow from others, and times
    *(Case("ledger-altered", word, call_field(*path.split("."), value=value))
      for word, path, value in CALL_FIELDS),
    Case("ledger-altered", "written at", call_field(
        "timing", "done_us", value=lambda us: us + 10_000_000), follows=("time-unexplained",)),
    Case("ledger-altered", "model is", call_field("model", value="another"), spec=RESUMED),
    Case("ledger-altered", "salt of another", lambda made: calls_of(made)[2]["request"][
        "options"].update(cache_salt=calls_of(made)[1]["request"]["options"]["cache_salt"]),
         spec=SALTED),
    Case("ledger-altered", "checks",
         call_field("checks", "passed", value=lambda passed: not passed, at=5), spec=FIVE),
    Case("ledger-altered", "reasoning.mode", call_field("reasoning", "mode", value="hidden"),
         follows=("cells-not-ranked",)),
    Case("ledger-altered", "flags", call_field("flags", value=["model_mismatch"]),
         follows=("cells-not-ranked",)),
    Case("ledger-altered", "reason", line_field("cache_probed", "reason", "no reason")),
    Case("ledger-altered", "engine", manifest_field("engine", "build", value="b9999")),
    Case("ledger-altered", "requested_tokens", lambda made: one(made, "endpoint_identified")[
        "context"].update(requested_tokens=4097)),
    Case("ledger-altered", "saturation", lambda made: one(made, "instrument_calibrated")[
        "saturation"][0].update(lanes=0)),
    Case("ledger-altered", "its streams", lambda made: one(made, "instrument_calibrated")[
        "saturation"][0].update(chunks_per_s=9000.0)),
    Case("ledger-altered", "spread cannot be", lambda made: one(made, "instrument_calibrated")[
        "lanes"][0]["lag_us"].update(p50=50)),
    Case("ledger-altered", "clock begins", line_field("run_started", "t_us", 40)),
    Case("ledger-altered", "clock_resolution_ns", line_field(
        "instrument_calibrated", "clock_resolution_ns", 41)),
    Case("ledger-altered", "probes[1]", lambda made: one(made, "cache_probed")["probes"][
        1].update(first_token_us=98_765)),
    Case("ledger-altered", "t_us", sample_back_in_time, follows=("machine-slept",)),
    Case("ledger-altered", "last_token_us",
         lambda made: calls_of(made)[1]["timing"]["chunk_us"].__setitem__(3, 9)),
    Case("ledger-altered", "lane 0",
         call_field("timing", "started_us", value=lambda us: us - 900, at=2)),
    Case("ledger-altered", "HTTP status 418",
         lambda made: calls_of(made)[1]["attempts"][0].update(status=418), spec=BUSY),
    Case("ledger-altered", "attempt", lambda made: calls_of(made)[1]["attempts"][0].update(
        ended_us=calls_of(made)[1]["timing"]["started_us"]), spec=BUSY),
    Case("machine-slept", "timeout_s", outlast, follows=("time-unexplained",)),
    # time that nothing explains
    Case("ledger-altered", "makes no pauses", faster, spec=LONG_CALLS),
    Case("ledger-altered", "makes no pauses", faster_with_tails, spec=LONG_CALLS),
    Case("ledger-altered", "clock_step_us", call_field("timing", "clock_step_us", value=5000)),
    Case("ledger-altered", "heartbeat_gap_us",
         call_field("timing", "heartbeat_gap_us", value=120_000)),
    Case("ledger-altered", "no sample", lambda made: made.events.remove(
        [event for event in made.events if event["event"] == "host_sampled"][-1])),
    Case("time-unexplained", "no call explains", lambda made: later(
        made, calls_of(made)[2], 5_000_000)),
    Case("time-unexplained", "no sample", drop("host_sampled", 1),
         spec=LONG_CALLS._replace(phases="frozen,5q")),
    Case("time-unexplained", "before frozen", slow_start),
    Case("server-changed", "in segment 1", faster_segment,
         spec=Spec(phases="frozen,5q", engine="vllm", tokens=60, kill_after=(6,))),
    # claims
    Case("claim-contradicted", "parameters", lambda made: declare(
        made, "models.0.source_repository", "llama-3.1-8b")),
    Case("claim-contradicted", "8x7b", lambda made: declare(
        made, "models.0.source_repository", "mixtral-8x7b")),
    Case("hardware-implausible", "same_machine", lambda made: declare(
        made, "endpoint.same_machine", False), follows=("document-differs",)),
    Case("hardware-implausible", "cuda", lambda made: declare(made, "runtime.backend", "cuda")),
    Case("claim-contradicted", "bits per weight", lambda made: declare(
        made, "models.0.quantization", "Q4_K_M")),
    Case("claim-contradicted", "draft_n", lambda made: declare(
        made, "models.0.draft_model", "a small one")),
    Case("hardware-implausible", "used and available", lambda made: probe(
        made, "memory.capacity_bytes", 400_000_000_000)),
    Case("hardware-implausible", "no sample has seen it", graphics_card),
    Case("tokens-implausible", "per chunk", lambda made: count_answers(
        made, lambda call: len(call["timing"]["chunk_us"]) * 13 // 10), spec=LONG),
    Case("tokens-implausible", "per token, prompts", lambda made: count_answers(
        made, lambda call: len(call["timing"]["chunk_us"]) * 13 // 9), spec=SUITE),
    Case("machine-slept", "wall clock", wall_clock_later),
    Case("time-in-future", "2026", settings={"now_s": valid_run.BASE.timestamp() - 100_000}),
    # facts that are recorded twice
    Case("ledger-altered", "load_1m", line_field("host_sampled", "load_1m", 2.221)),
    Case("ledger-altered", "memory_used_bytes", line_field(
        "host_sampled", "memory_used_bytes", 3 * valid_run.GIB + 1)),
    Case("ledger-altered", "energy_uj falls", falling("energy_uj", 9_000_000, 8_000_000),
         spec=FIVE),
    Case("time-unexplained", "load_1m falls", falling("load_1m", 9.0, 2.0), spec=FIVE),
    Case("hardware-implausible", "os.name", lambda made: probe(made, "os.name", "macOS")),
    Case("hardware-implausible", "Plan 9", manifest_field(
        "os", "system", value="Plan 9")),
    Case("hardware-implausible", "python.version", lambda made: probe(
        made, "python.version", "3.8.1")),
    Case("hardware-implausible", "kernel_release", lambda made: probe(
        made, "os.kernel_release", "6.1-alice")),
    Case("hardware-implausible", "virtualization", lambda made: probe(
        made, "system.virtualization", "kvmx")),
    Case("hardware-implausible", "the reason", lambda made: [machine["memory"].update(
        type={"value": None, "source": None, "reason": "ask me"}) for machine in machines(made)]),
    Case("hardware-implausible", "between 0 and 1", line_field(
        "host_sampled", "other_cpu_busy_ratio", 1.2), follows=("ledger-altered",)),
    Case("ledger-altered", "gauge", line_field("host_sampled", "cpu_busy_ratio", 0.51)),
    Case("hardware-implausible", "cpu.vendor", lambda made: probe(made, "cpu.vendor", "Apple")),
    Case("hardware-implausible", "instruction_sets", lambda made: probe(
        made, "cpu.instruction_sets", ["avx2", "avx2"])),
    Case("hardware-implausible", "bytes were used", lambda made: probe(
        made, "memory.capacity_bytes", 64 * valid_run.GIB)),
    Case("hardware-implausible", "were busy", idle, spec=FIVE._replace(tokens=600)),
    Case("hardware-implausible", "bytes of memory", lambda made: [event.update(
        server_memory_bytes=2 ** 20) for event in made.events if event["event"] == "host_sampled"]),
    Case("claim-contradicted", "launch_flags", lambda made: [declare(made, f"runtime.{name}", value)
         for name, value in (("launch_flags", "-t 8 -np 1"), ("threads_count", 9))]),
    Case("claim-contradicted", "8x", lambda made: [declare(made, f"runtime.{name}", value)
         for name, value in (("launch_flags", "-np 1 -t 8x"), ("threads_count", 8))]),
    Case("claim-contradicted", "SHA-256", lambda made: declare(
        made, "models.0.digest", f"sha256:{'a1' * 32}0")),
    Case("server-counts-contradict", "as many chunks as tokens", lambda made: count_answers(
        made, lambda call: len(call["timing"]["chunk_us"]) + (call["question_id"] != "P-EASY")),
         spec=FIVE),
    Case("server-counts-contradict", "body_start has", lambda made: next(
        call for call in calls_of(made) if call["error"] and call["timing"])["error"].update(
            message="no context"), spec=EDGE),
    Case("server-counts-contradict", "compared with its text", lambda made: calls_of(made)[4][
        "response"].update(text="so " * 90), spec=ANSWERS),
    Case("tokens-implausible", "come at once", bursts, spec=LONG_CALLS),
    Case("ledger-altered", "timed out", failed_early, spec=FIVE, follows=("cells-not-ranked",)),
    Case("ledger-altered", "more digits", lambda made: one(made, "instrument_calibrated")[
        "saturation"][0].update(chunks_per_s=445_655.5)),
    Case("machine-slept", "lines beside", line_field(
        "endpoint_identified", "at", lambda at: moved(at, -300_000), at=1)),
    Case("machine-slept", "lines beside", line_field(
        "host_sampled", "t_us", lambda us: us - 12_000), spec=LONG_CALLS),
    # physics and the server's own numbers
    Case("hardware-exceeded", "GB/s", slow_memory),
    Case("hardware-exceeded", "prefill", slow_cpu, spec=SUITE),
    Case("hardware-exceeded", "bytes of weights",
         lambda made: declare(made, "models.0.file_bytes", 10 ** 12),
         follows=("claim-contradicted",)),
    Case("context-exceeded", "64", lambda made: declare(
        made, "models.0.context_effective_tokens", 64)),
    Case("server-counts-contradict", "predicted_ms", slow_server),
    Case("server-counts-contradict", "total_tokens",
         call_field("response", "usage", "total_tokens", value=lambda n: n + 1)),
    Case("server-counts-contradict", "predicted", call_field(
        "response", "server_timings", "predicted_ms", value=lambda ms: ms * 1.01)),
    Case("server-counts-contradict", "prompt: ", one_token_less),
    Case("server-counts-contradict", "cached tokens",
         lambda made: one(made, "cache_probed")["probes"][1].update(cached_tokens=1)),
    Case("server-counts-contradict", "same messages",
         lambda made: one(made, "cache_probed")["probes"][1].update(prompt_tokens=9)),
    Case("answers-cut", "length", lambda made: calls_of(made)[1]["response"].update(
        finish_reason="length")),
    # invented data
    Case("data-too-regular", "one text", same_answer),
    Case("data-too-regular", "exactly the times", same_times),
    Case("data-too-regular", "gaps are equal", even_gaps, spec=LONG_LANES),
    Case("data-too-regular", "decode rates", even_rates, spec=LANES),
    Case("data-too-regular", "multiples of 100", round_times, spec=LONG),
    Case("tokens-implausible", "prompts", lambda made: count_prompts(made, 6)),
    Case("cells-not-ranked", "usage_implausible", lambda made: count_answers(
        made, lambda call: -(-len(call["response"]["text"].split()) // 3))),
    # documents
    Case("document-differs", "hardware.cpu.model_name.value was", lambda made: made.hardware["cpu"][
        "model_name"].update(value="AMD Ryzen 9 9950X")),
    Case("document-differs", "cache_l2_kib.value was 16384; the run recorded 99", line_field(
        "machine_identified", "hardware", lambda found: {**found, "cpu": {
            **found["cpu"], "cache_l2_kib": inventory.leaf(99, "")}})),
    Case("document-differs", "hardware.cpu.max_mhz.reason was", lambda made: made.hardware["cpu"][
        "max_mhz"].update(value=5000.0, source="declared")),
    Case("document-differs", "hardware.cpu.vendor.value was", lambda made: [
        to_other_machine(made), made.hardware["cpu"].update(vendor=inventory.leaf("AMD", ""))],
         follows=("endpoint-remote",)),
    Case("hardware-implausible", "the reason", lambda made: [
        machine["system"].update(model_name=leaf) for machine, leaf in zip(machines(made), (
            {"value": "MS-7E12", "source": "declared", "reason": None},
            {"value": None, "source": None, "reason": "ask me"}))]),
    Case("server-changed", "in a later segment it is 99", line_field(
        "machine_identified", "hardware", lambda found: {**found, "cpu": {
            **found["cpu"], "cache_l2_kib": inventory.leaf(99, "")}}, at=1), spec=RESUMED),
    Case("ledger-altered", "machine_identified is missing", drop("machine_identified")),
    Case("document-differs", "counts", after=lambda made: made.metadata.update(counts={"ok": 1})),
    Case("document-differs", "Means", after=file_bytes(
        "run.md", lambda page: page.replace(b"Medians", b"Means"))),
    Case("document-differs", "CR LF", after=file_bytes(
        "run.md", lambda page: page.replace(b"\n", b"\r\n"))),
    Case("document-differs", "mark", after=file_bytes("run.md", b"# A page of my own\n")),
    Case("attestation-missing", "not ticked", words("attestation", "\n".join(
        f"- [x] {statement}" for statement in attestation.STATEMENTS[:3]))),
    Case("placeholder-left", "", words("notes", attestation.SECTIONS["notes"])),
    Case("placeholder-left", "unknown",
         lambda made: declare(made, "runtime.build_origin", "unknown")),
    Case("notes-not-plain", "![", words("notes", "none ![or a picture](of something)")),
    Case("notes-not-plain", "<!--", words("notes", "none <!-- hidden -->")),
    Case("notes-not-plain", "[//]", words("notes", "none\n\n[//]: # (hidden)")),
    Case("notes-not-plain", "[a]", words("notes", '> - [a]: http://x "hidden"')),
    Case("placeholder-left", "TODO", words("notes", "Cooling: TODO")),
    Case("placeholder-left", "insert", words("notes", "- insert your notes here")),
    Case("notes-not-plain", "<p", words("notes", "none <p hidden>hidden</p>"),
         follows=("placeholder-left",)),
    Case("hardware-implausible", "cores", lambda made: probe(made, "cpu.physical_cores_count", 64)),
    Case("hardware-implausible", "arm64", lambda made: probe(made, "cpu.architecture", "arm64")),
    Case("hardware-implausible", "memory",
         line_field("host_sampled", "memory_used_bytes", 10 ** 12)),
    Case("hostname-published", "host_hostname_short", host_name),
    # privacy, statistics
    Case("private-value", "192", words("notes", "served from 192.168.1.20")),
    Case("private-value", "192", line_field("run_interrupted", "reason", "lost 192.168.1.20"),
         spec=RESUMED),
    Case("private-answer", "192", call_field("response", "text", value=lambda text: text +
                                             "ping 192.168.1.20")),
)
# Tested in other classes, with a folder, repository or index.
ELSEWHERE = {
    "file-not-regular": "HostileFiles", "file-unreadable": "HostileFiles",
    "check-broken": "HostileFiles", "no-submission": "CommandLine", "example": "Examples",
    "file-changed": "Changes", "too-many-files": "Changes", "run-copied": "Copies",
    "answers-copied": "Copies", "weights-contradict": "Copies",
    "correction-invalid": "Changes", "author-published": "Changes",
    "private-history": "Changes",
    "challenge-answered": "Challenges", "challenge-unanswered": "Challenges"}


class Codes(unittest.TestCase):
    """Each case has its code, and no other."""

    maxDiff = None

    def test_every_code_has_a_case(self):
        self.assertEqual(set(findings.CODES) - {case.code for case in CASES} - set(ELSEWHERE),
                         set())
        for code, name in ELSEWHERE.items():
            tests = "\n".join(path.read_text("utf-8") for path in Path(__file__).parent.glob("*.py")
                              ).partition(f"class {name}(")[2]
            self.assertIn(f'"{code}"', tests.partition("\nclass ")[0], code)

    def test_each_case_has_its_code_its_word_and_what_follows(self):
        for number, case in enumerate(CASES):
            with self.subTest(code=case.code, word=case.word, number=number):
                made = make(case.spec)
                if case.change:
                    case.change(made)
                    made = made.sealed()
                if case.after:
                    case.after(made)
                    if not made.files and case.code not in ("file-malformed", "document-differs"):
                        made = made.completed()
                report = check(made, case.disk, **(case.settings or {}))
                self.assertEqual(codes(report), sorted({case.code, *case.follows}),
                                 report.text(1))
                self.assertTrue(any(case.word in one.what for one in report.findings()
                                    if one.code == case.code), report.text(1))



class HonestRuns(unittest.TestCase):
    """Honest runs have no finding."""

    def test_a_run_has_no_finding(self):
        for spec in (SMALL, LANES, SALTED, SKIPPING, RESUMED, TORN, BUSY, SUITE, Spec(
                phases="5q", more=("--repeats", "3")), Spec(more=("--prompt-cache", "allow")), Spec(
                engine="vllm", refused_field="cache_salt"), Spec(phases="hello"), Spec(
                thinking=("P-EASY", "P-HARD")), Spec(more=("--cell-id-prefix", "ci:llama.cpp")),
                Spec(kill_after=(0,)), Spec(kill_after=(1, 0, 3)),
                Spec(kill_after=(1000,), failing=("P-HARD",)),
                Spec(engine="ollama", phases="parallel_mixed", kill_after=(5,), tokens=12)):
            with self.subTest(spec=spec):
                report = check(make(spec))
                self.assertEqual(codes(report), [], report.text(1))

    def test_a_run_with_two_models_resumes_retries_and_failures_has_no_finding(self):
        made = make(EVERYTHING)
        self.assertEqual({line["segment"] for line in made.events}, {0, 1, 2})
        self.assertEqual({line["event"] for line in made.events} ^ set(ledger.event_names()),
                         {"phase_skipped", "run_interrupted", "phases_added", "curve_ended"})
        report = check(made)
        self.assertEqual(codes(report), [], report.text(1))

    def test_a_full_context_has_no_finding(self):
        for spec in (EDGE, EDGE._replace(kill_after=(7,)), EDGE._replace(kill_after=(3,))):
            report = check(make(spec))
            self.assertEqual(codes(report), [], report.text(1))

    def test_a_torn_first_line_is_accepted(self):
        made = make()
        resumed = one(make(TORN), "run_resumed")
        first = made.events[0]
        for event in made.events[1:]:
            event["segment"] = 1
        made.events.insert(1, {**resumed, **{name: first[name] for name in (
            "run_id", "at", "t_us")}})
        self.assertEqual(codes(check(made.sealed())), [])

    def test_removing_the_host_name_keeps_the_manifest_hash_valid(self):
        made = make()
        host_name(made)
        made = made.sealed()
        made.manifest["host_hostname_short"] = None
        self.assertEqual(codes(check(made.completed())), [])

    def test_notes_may_contain_comparisons_lists_and_links(self):
        made = make()
        words("notes", "I had to insert a fan here, the model wrote TODO, an Arctic XXX 120.\n"
              "- with n<k lanes, or n > 2\n- see [the log](https://example.org/a)\n"
              "- \u00fc, \u65e5\u672c, \u2600\ufe0f and an arrow ->")(made)
        self.assertEqual(codes(check(made)), [])

    def test_canonical_options_are_the_runners(self):
        self.assertEqual(manifest.CANONICAL_OPTIONS[run_benchmark.HARNESS_VERSION],
                         run_benchmark.CANONICAL_OPTIONS)

    def test_findings_are_the_same_each_time_and_sorted_by_severity(self):
        made = make()
        for event in made.events[1:6]:
            event["at"] = moved(event["at"], 9_000_000)
        words("notes", "from 192.168.1.20\u200b")(made)
        with tempfile.TemporaryDirectory() as root:
            folder = made.write(root)
            first, second = (check_folders([folder]).findings() for _ in range(2))
        self.assertEqual(first, second)
        severities = [finding.severity for finding in first]
        self.assertEqual(set(severities), {"error", "warning"})
        self.assertEqual(severities, sorted(severities))


class Times(unittest.TestCase):
    """What no single change of a made run shows."""

    def test_prefill_rates_of_two_phases_are_compared(self):
        made = make()
        cells = [{"model": made.manifest["models"][0], "lanes": 1, "metrics": {
            "prefill_tokens_per_s": {"median": rate}}} for rate in (195.0, None, 3084.0)]
        found = list(accounting.problems(made.manifest, made.events, {"cells": cells}))
        self.assertEqual([code for code, _, _ in found], ["server-counts-contradict"])

    def test_first_tokens_do_not_depend_on_the_length_of_the_answers_that_follow(self):
        def found(late_us):
            made = make(Spec(phases="5q,20q"))
            for number, call in enumerate(calls_of(made)):
                chunks = list(range(2000, 2020 + number))
                call["timing"].update(chunk_us=chunks, first_token_us=late_us[number % 5])
            return [what for _, what, _ in accounting.problems(
                made.manifest, made.events, {"cells": []}) if "correlation" in what]

        self.assertEqual(found([9000] * 5), [])                    # all alike
        self.assertEqual(found([9000, 500, 4000, 8000, 2000]), [])
        made = make(Spec(phases="5q,20q"))
        for number, call in enumerate(calls_of(made)):
            call["timing"].update(chunk_us=[9] * (20 + number), first_token_us=900 * number + 70)
        self.assertEqual(len([1 for _, what, _ in accounting.problems(
            made.manifest, made.events, {"cells": []}) if "correlation 1.00" in what]), 1)

    def test_samples_on_a_straight_line_are_counted(self):
        for values, count in (([0.1, 0.2, 0.3, 0.4, 0.5, 0.1], 3), ([0.5] * 9, 0), ([], 0),
                              ([0.1, 0.2, None, 0.4, 0.5], 0), ([0.1, 0.1203, 0.1405, 0.9], 1),
                              ([0.99, 0.31, 0.64, 0.2, 0.8, 0.77], 0)):
            self.assertEqual(plausibility._straight(values), count, values)

    def test_a_busy_client_may_pause_between_calls(self):
        made = make()
        for call in calls_of(made, "frozen"):
            later(made, call, 300_000)
        self.assertEqual([], list(accounting.problems(made.manifest, made.events, {"cells": []})))

    def test_the_wait_for_the_end_of_an_open_stream_is_explained(self):
        def found(flags, comments_us):
            made = make()
            for call in calls_of(made, "frozen"):
                later(made, call, 5_000_000)
                call["timing"]["done_us"] += comments_us
                call["flags"] = flags
            return [code for code, what, _ in accounting.problems(
                made.manifest, made.events, {"cells": []}) if what.startswith("frozen")]

        for comments_us in (0, 4_000_000):       # silent, or with comments until the client closes
            self.assertEqual(found(["left_open"], comments_us), [], comments_us)
            self.assertEqual(found([], comments_us), ["ledger-altered"], comments_us)

    def test_calls_that_stall_until_their_timeout_leave_no_time_unexplained(self):
        made = make()
        for call in calls_of(made, "frozen"):
            call["outcome"] = "timeout"
            call["timing"].update(done_us=1000, last_token_us=1000)
        found = list(accounting.problems(made.manifest, made.events, {"cells": []}))
        self.assertEqual([what for _, what, _ in found if what.startswith("frozen")], [])

    def test_the_time_of_a_check_grows_with_the_size_of_its_input_only(self):
        searches = {
            "repeated key": lambda n: schema.strict_json(
                b"{" + b",".join(b'"k%d":1' % i for i in range(n)) + b',"k1":1}'),
            **{f"placeholder {text[:9]!r}": lambda n, text=text:
               documents.PLACEHOLDER.search(text * n)
               for text in ("insert ", "\n", " ", "-", "todo")},
            **{f"Markdown {text[:9]!r}": lambda n, text=text: markdown.hidden(text * n)
               for text in ("[\n", "\n", "[a", " ", "<a b='", "<a b ", "- ", ">", "! [", "`", "` ",
                            "](", "[ ", "$a ", "a|", "a|\n-|\n", "[a\\]", "1. a\n", "&", "<a@")},
            "sketch": lambda n: copies.sketch("x", [b'"text":"' * n + b'"phase":"' * n]),
            "tokens": lambda n: copies.sketch("x", [b'"completion_tokens":' * n]),
        }
        for name, search in searches.items():
            with self.subTest(name=name):
                took_s = []
                for count in (4_000, 16_000):
                    begun_s = time.process_time()
                    with contextlib.suppress(ValueError):
                        search(count)
                    took_s.append(time.process_time() - begun_s)
                # Quadratic would be 16 times, and is only then above a second.
                self.assertLess(took_s[1], max(10 * took_s[0], 0.5))


class Examples(unittest.TestCase):
    """The example is accepted in its folder only."""

    def made(self):
        made = make(Spec(more=("--smoke",)))
        made.manifest.update(synthetic=True, submitter_handle="example",
                             run_id=manifest.NIL_RUN_ID)
        for event in made.events:
            event["run_id"] = manifest.NIL_RUN_ID
        return made.sealed()

    def test_the_example_is_accepted_in_its_folder(self):
        with tempfile.TemporaryDirectory() as root:
            folder = Path(self.made().write(root))
            folder.parent.parent.rename(Path(root) / "EXAMPLE")
            report = check_folders([str(Path(root) / "EXAMPLE")])
            self.assertEqual(codes(report), ["example"], report.text(1))

    def test_the_example_is_refused_elsewhere(self):
        self.assertEqual(codes(check(self.made())), ["not-a-measurement"])

    def test_allow_synthetic_accepts_a_rehearsal(self):
        made = make()
        made.manifest["synthetic"] = True
        self.assertEqual(codes(check(made.sealed(), allow_synthetic=True)), [])


class Copies(unittest.TestCase):
    """Copies of another run."""

    def checked(self, *submissions):
        with tempfile.TemporaryDirectory() as root:
            return check_folders([made.write(root) for made in submissions])

    def other(self, made, handle, changes=()):
        """The same run with another handle and run id."""
        made.manifest.update(submitter_handle=handle, run_id=ANOTHER_ID)
        for event in made.events:
            event["run_id"] = made.manifest["run_id"]
        for change in changes:
            change(made)
        return made.sealed()

    def test_one_run_in_two_folders_is_a_copy(self):
        twice = make()
        twice.manifest["device_tag"] = "another-machine"
        twice.manifest["cell_id_prefix"] = "another-machine:llama.cpp"
        for event in twice.events:
            if "cell_id" in event:
                event["cell_id"] = event["cell_id"].replace(SMALL.tag, "another-machine")
        report = self.checked(make(), twice.sealed())
        self.assertEqual(codes(report), ["run-copied"], report.text(2))

    def test_times_of_another_run_are_a_copy(self):
        report = self.checked(make(FIVE), self.other(make(FIVE), "grace"))
        self.assertEqual(codes(report), ["answers-copied", "run-copied"], report.text(2))

    def new_times(self, made):
        for call in calls_of(made):
            set_gaps(call, [max(gap - 1, 0) for gap in call["timing"]["chunk_us"][1:]])

    def test_answers_of_another_contributor_are_a_warning(self):
        report = self.checked(make(FIVE), self.other(make(FIVE), "grace", [self.new_times]))
        self.assertEqual(codes(report), ["answers-copied"], report.text(2))

    def test_repeated_answers_of_one_contributor_are_a_warning(self):
        report = self.checked(make(FIVE), self.other(make(FIVE), "ada", [self.new_times]))
        self.assertEqual(codes(report), ["answers-copied"], report.text(2))

    def edited(self, made):
        """What hides a copy from exact hashes: noise, another speed, a lost chunk, edited texts."""
        rng = random.Random(3)
        for call in calls_of(made):
            timing, speed = call["timing"], rng.uniform(0.49, 0.51)
            timing["reads"] = []
            set_gaps(call, [int(gap * speed) + rng.randrange(4)
                            for gap in timing["chunk_us"][2:]])
            set_answer(call, call["response"]["text"] + " ")

    def test_an_edited_copy_keeps_its_shape(self):
        for handle in ("grace", "ada"):
            report = self.checked(make(ANSWERS), self.other(make(ANSWERS), handle, [self.edited]))
            places = [one.what for one in report.findings() if one.code == "run-copied"]
            self.assertEqual(["pause at the places" in what for what in places], [True],
                             report.text(2))
            self.assertIn("answers-copied", codes(report))

    def test_a_copy_without_its_first_chunks_keeps_its_shape(self):
        def shortened(made):
            for call in calls_of(made):
                call["timing"]["reads"] = []
                set_gaps(call, [gap + 2 for gap in call["timing"]["chunk_us"][9:]])

        report = self.checked(make(ANSWERS), self.other(make(ANSWERS), "grace", [shortened]))
        self.assertIn("run-copied", codes(report), report.text(2))

    def test_models_with_equally_many_parameters_count_prompts_alike(self):
        def other_counts(made, more):
            for at, call in enumerate(calls_of(made)):
                usage, timings = call["response"]["usage"], call["response"]["server_timings"]
                usage["prompt_tokens"] += more(at)
                usage["total_tokens"] += more(at)
                timings["prompt_n"] += more(at)
            return made.sealed()

        for more, expected in ((lambda at: 20, False), (lambda at: 9 * at, True)):
            second = other_counts(make(ANSWERS._replace(seed=2, handle="grace")), more)
            report = self.checked(make(ANSWERS), second)
            self.assertEqual(any("counts prompts differently" in found.what
                                 for found in report.findings()), expected, report.text(2))

    def test_prompts_that_hold_earlier_answers_are_not_compared(self):
        line = (b'{"phase":"%s","question_id":"q","repeat":1,"chunk_us":[5,'
                + b",".join(b"%d" % gap for gap in range(99)) + b'],"prompt_tokens":70}')
        for phase, tokens in ((b"5q", 70), (b"edge_append", 0)):
            [shape] = copies.sketch("x", [line % phase]).shapes.values()
            self.assertEqual(shape.prompt, tokens, phase)

    def test_short_answers_of_different_runs_are_not_copies(self):
        rng, index = random.Random(1), copies.Index()

        def terse(name):
            shapes = {at: copies.Shape(0, 65 + 5 * at, tuple(sorted(
                rng.sample(range(62 + 5 * at), 4))), 0) for at in range(10)}
            return copies.Sketch(name, name, frozenset(), frozenset(), shapes, {}, 0)

        for number in range(100):
            index.add(terse(str(number)))
        report = findings.Report()
        index.check(terse("new"), False, findings.Notes(report, "new").of("run.jsonl"))
        self.assertEqual([code for code in codes(report) if code == "run-copied"], [])

    def test_another_run_of_the_same_questions_has_another_shape(self):
        report = self.checked(make(ANSWERS), make(ANSWERS._replace(seed=2)))
        self.assertEqual(codes(report), [], report.text(2))

    def test_two_different_runs_are_not_copies(self):
        self.assertEqual(codes(self.checked(make(), make(Spec(seed=2, handle="grace")))), [])

    def test_equal_weights_have_equally_many_parameters(self):
        def reporting(seed, digest, parameters):
            made = make(Spec(seed=seed, handle=("ada", "grace")[seed - 1]))
            facts = one(made, "endpoint_identified")["facts"]
            facts.update({"digest": digest, "parameters_count": parameters})
            return made.sealed()

        first = reporting(1, "sha256:" + "ab" * 32, 7_600_000_000)
        for digest, parameters, expected in (
                ("AB" * 32, 7_700_000_000, []), ("AB" * 32, 8_000_000_000, ["weights-contradict"]),
                ("cd" * 32, 14_800_000_000, [])):
            report = self.checked(first, reporting(2, digest, parameters))
            self.assertEqual([code for code in codes(report) if code.startswith("weights")],
                             expected, parameters)
        for doubted in (first, reporting(2, "AB" * 32, 8_000_000_000)):
            index = copies.Index()
            index.doubted = frozenset({doubted.manifest["run_id"]})
            with tempfile.TemporaryDirectory() as root:
                found = [made.write(root)
                         for made in (first, reporting(2, "AB" * 32, 8_000_000_000))]
                self.assertNotIn("weights-contradict", codes(check_folders(found, index)))

    def test_a_sketch_needs_only_some_kinds_of_lines(self):
        for spec in (SMALL, EVERYTHING):
            made = make(spec)
            some = [ledger.dump_line(event) for event in made.events
                    if event["event"] in copies.SKETCHED]
            self.assertEqual(copies.sketch("x", made.ledger_bytes().split(b"\n")),
                             copies.sketch("x", some))


class HostileFiles(unittest.TestCase):
    """Odd files are findings, never crashes."""

    @runs.posix_only
    def test_a_link_instead_of_a_file_is_refused(self):
        self.assertEqual(codes(check(make(), link)), ["file-not-regular"])

    @runs.posix_only
    def test_a_named_pipe_is_not_opened(self):
        def pipe(folder):
            (folder / "run.jsonl").unlink()
            os.mkfifo(folder / "run.jsonl")
        self.assertEqual(codes(check(make(), pipe)), ["file-not-regular"])

    @runs.posix_only
    def test_a_link_instead_of_a_folder_is_refused(self):
        with tempfile.TemporaryDirectory() as root:
            folder = Path(make().write(root))
            other = folder.parent / "run-00000000-0000-4000-8000-000000000000"
            other.symlink_to(folder)
            report = check_folders([root])
            self.assertEqual(codes(report), ["file-not-regular"])
            self.assertEqual(codes(check_folders([str(other)])),
                             ["file-not-regular", "no-submission"])

    def test_an_unreadable_file_is_a_finding(self):
        def refuse():
            raise OSError(13, "Permission denied")
        found = in_memory(make())
        for name in ("run.md", "run.jsonl"):
            found.files[name] = submission_files.Blob(f"x/{name}", 10, refuse)
        self.assertEqual([f.code for f in check_all([found]).findings()], ["file-unreadable"] * 2)

    def test_a_file_that_grows_while_read_is_refused(self):
        limit = submission_files.LIMITS_BYTES["run.md"]
        blob = submission_files.Blob("x/run.md", 10, lambda: io.BytesIO(b"x" * (limit + 9)))
        report = findings.Report()
        self.assertIsNone(parsing.read_page(blob, findings.Notes(report, "x")))
        self.assertEqual(codes(report), ["file-too-large"])

    def test_a_large_file_is_not_opened(self):
        def opened():
            raise AssertionError
        report = findings.Report()
        blob = submission_files.Blob("x/run.jsonl", 33 << 20, opened)
        self.assertIsNone(parsing.read_ledger(blob, findings.Notes(report, "x")))
        self.assertEqual(codes(report), ["file-too-large"])

    def test_an_exception_in_the_check_is_a_finding(self):
        with mock.patch.object(submission, "check_manifest",
                               side_effect=KeyError("\x1b[31m")):
            report = check(make())
        self.assertEqual(codes(report), ["check-broken"])
        self.assertNotIn("\x1b", report.text(1))

    def test_deep_and_huge_json_is_refused(self):
        for data in (b"[" * 100_001, b"[" + b"{}," * 200_000 + b"{}]", b"[" * 40 + b"]" * 40):
            with self.subTest(data=data[:9]):
                made = make()
                made.files.update({"hardware.json": data, "metadata.json": data})
                self.assertEqual(codes(check(made)), ["file-malformed"])

    def test_too_many_segments_end_the_check(self):
        made = make()
        resumed = one(make(RESUMED), "run_resumed")
        for segment in range(1, ledger_order.MAX_SEGMENTS + 5):
            made.events.append({**resumed, "segment": segment})
        report = findings.Report(1000)
        ledger_order.walk(made.manifest, made.events, {}, None, findings.Notes(report, "x"))
        self.assertIn("lines that follow were not checked", report.text(1))

    def test_names_and_values_are_printed_in_plain_ascii(self):
        made = make()
        call_field("response", "finish_reason", value="\x1b[31m\u202e")(made)
        made.manifest["flags"] = ["--\x1b]0;title\x07"]
        words("notes", "\x9b31m")(made)

        def odd_name(folder):
            (folder / "\x1b[31mname\u202e").write_bytes(b"")
        report = check(made.sealed(), odd_name)
        for text in (report.text(1), report.json(1)):
            self.assertRegex(text, r"\A[\n\x20-\x7e]*\Z")

    def test_long_values_are_truncated(self):
        made = make()
        made.manifest["flags"] = ["--" + "x" * 390] * 50
        lines = check(made.sealed()).text(1).split("\n")
        self.assertLess(max(map(len, lines)), 1000)


class CommandLine(unittest.TestCase):
    """Options, exit codes and both forms of the report."""

    def test_a_clean_submission_exits_0_and_another_1(self):
        with tempfile.TemporaryDirectory() as root, mock.patch.object(
                release, "known", lambda: valid_run.RELEASES), mock.patch.object(
                time, "time", lambda: valid_run.NOW_S):
            folder = make().write(root)
            code, out, err = run_main(folder)
            self.assertEqual((code, err), (0, ""))
            counts, next_commands = out.split("\n\n")
            self.assertEqual(counts, "1 submission checked: no errors, no warnings")
            handle, tag, name = Path(folder).parts[-3:]
            place = f"submissions/{handle}/{tag}/{name}"
            self.assertEqual(next_commands.split("\n")[1:-1], ["  " + line for line in (
                f"mkdir -p submissions/{handle}/{tag} && cp -R {shlex.quote(folder)} "
                f"submissions/{handle}/{tag}/ &&", f"git switch -C {name} &&",
                f"git add {place} &&",
                "git diff --cached | python3 harness/check_submission.py --privacy - &&",
                f"TZ=UTC git -c user.name={handle} -c user.email={handle}@users.noreply.github.com "
                f'commit -m "Add a run on {tag}" {place}')])
            os.unlink(os.path.join(folder, "run.md"))
            code, out, err = run_main(folder, "--json")
            self.assertEqual((code, err), (1, ""))
            self.assertEqual(json.loads(out), {
                "submissions": 1, "counts": {"error": 1, "warning": 0, "info": 0}, "exit_code": 1,
                "findings": [{
                    "severity": "error", "code": "file-missing", "path": f"{folder}/run.md",
                    "line": None, "place": None, "what": "is missing", "more": 0,
                    "remedy": findings.CODES["file-missing"].remedy}]})

    def test_folders_above_are_searched(self):
        with tempfile.TemporaryDirectory() as root:
            make().write(root)
            make(Spec(seed=2)).write(root)
            (Path(root) / "README.md").write_text("words")
            report = findings.Report()
            found = list(submission_files.of_paths([root], report))
            self.assertEqual((len(found), codes(report)), (2, []))

    def test_a_folder_without_submissions_is_an_info(self):
        with tempfile.TemporaryDirectory() as root:
            code, out, _ = run_main(root)
            self.assertEqual(code, 0)
            self.assertIn("info no-submission .\n  nothing", out)
            self.assertEqual(codes(check_folders([root])), ["no-submission"])

    def test_wrong_usage_exits_2_with_one_line(self):
        with tempfile.TemporaryDirectory() as root:
            file = os.path.join(root, "x")
            Path(file).write_text("")
            for argv in ((), ("--base", "x"), ("--head", "x", "y"), ("--git-dir", "x", "y"),
                         (root, "--privacy", root), (os.path.join(root, "no\x1b")), (file,),
                         ("--unheard\x1b",), ("--privacy", os.path.join(root, "no")),
                         ("--privacy",), ("nul\0",), ("--explain", "unheard"),
                         (root, "--explain"), ("--answers", root, "--json"),
                         ("--texts", "--answers"), ("--texts", root, "--explain")):
                argv = (argv,) if isinstance(argv, str) else argv
                with self.subTest(argv=argv):
                    code, out, err = run_main(*argv)
                    self.assertEqual((code, out), (2, ""))
                    self.assertRegex(err, r"\Acheck_submission: [\x20-\x7e]+\n\Z")

    def test_several_runs_get_one_branch_and_one_commit(self):
        base = str(release.HERE.parent / "submissions" / "ada" / "pi5-8gb" / "run-")
        paths = [base + letter * 8 + "-1111-4111-8111-111111111111" for letter in "ab"]
        lines = check_submission.next_lines(paths)
        places = " ".join(f"submissions/ada/pi5-8gb/{Path(path).name}" for path in paths)
        self.assertEqual(lines[2:4] + lines[-1:], [
            f"  git switch -C {Path(paths[0]).name} &&", f"  git add {places} &&",
            "  TZ=UTC git -c user.name=ada -c user.email=ada@users.noreply.github.com commit -m "
            f'"Add runs on pi5-8gb" {places}'])
        self.assertEqual(check_submission.next_lines([*paths, "submissions"]), [])

    @runs.posix_only
    def test_a_run_below_a_link_to_this_clone_is_not_copied(self):
        run = "submissions/ada/pi5-8gb/run-11111111-1111-4111-8111-111111111111"
        with tempfile.TemporaryDirectory() as folder:
            link = Path(folder) / "clone"
            link.symlink_to(release.HERE.parent)
            lines = check_submission.next_lines([str(link / run)])
        self.assertTrue(lines[2].startswith("  git switch -C run-1"), lines)

    def test_a_clone_that_cannot_be_written_is_copied_first(self):
        path = "/x/ada/pi5-8gb/run-11111111-1111-4111-8111-111111111111"
        for writable, start in ((True, "  mkdir -p "), (False, "  cp -R ")):
            with mock.patch.object(os, "access", return_value=writable):
                self.assertTrue(check_submission.next_lines([path])[2].startswith(start))

    def test_a_finding_is_printed_wrapped_with_its_line_and_fix(self):
        report = findings.Report()
        report.add("file-too-large", "submissions/ada/x/run.jsonl", "the line is too long", 7, "x")
        self.assertEqual(report.text(1, width=60), """\
error file-too-large submissions/ada/x/run.jsonl:7 (x)
  the line is too long
  fix: run fewer models or repeats at a time, or with a
  smaller --num-predict
1 submission checked: 1 error, no warnings""")

    def test_a_fix_names_the_file_folder_and_run(self):
        run_id = "11111111-2222-4333-8444-555555555555"
        for code, path, word in (
                ("file-missing", "a/b/run.md", "\n    python3 harness/complete_submission.py a/b"),
                ("file-not-regular", "a/run.md", "--chmod=-x a/run.md"),
                ("ledger-unfinished", f"a/run-{run_id}/run.jsonl", f"--run-id {run_id}"),
                ("file-missing", "$(id) b/run.md", "complete_submission.py '$(id) b'"),
                ("file-missing", "\n/run.md", "complete_submission.py FOLDER")):
            finding = findings.Finding(path, 0, code, "", "x")
            self.assertIn(word, finding.text())
            self.assertEqual(finding.document()["remedy"], findings.CODES[code].remedy)

    def test_explain_prints_one_code_or_all(self):
        code, out, _ = run_main("--explain", "answers-cut")
        self.assertEqual((code, out.splitlines()[0]), (0, "answers-cut (warning)"))
        self.assertIn("\n  fix: start the server without its own limit", out)
        code, out, _ = run_main("--explain")
        self.assertEqual((code, re.findall(r"^([a-z-]+) \(", out, re.M)),
                         (0, list(findings.CODES)))
        self.assertIn("did you mean answers-cut?", run_main("--explain", "answer-cut")[2])

    def test_codes_are_few_and_described(self):
        self.assertLessEqual(len(findings.CODES), 54)
        for code in findings.CODES.values():
            self.assertRegex(code.name, r"\A[a-z]+(-[a-z]+)*\Z")
            self.assertIn(code.severity, findings.SEVERITIES)
            self.assertTrue(code.text.endswith("."), code.name)
            self.assertFalse(code.remedy.endswith("."), code.name)

    def test_runs_on_a_bare_python(self):
        program = Path(check_submission.__file__).resolve()
        done = subprocess.run([sys.executable, "-E", "-S", str(program), "--help"],
                              capture_output=True, text=True, timeout=60)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertIn("exit codes:", done.stdout)


class Workflow(unittest.TestCase):
    """The summary that data-check.yml writes from the report."""

    def summary(self, report):
        workflow = (release.HERE.parent / ".github" / "workflows" / "data-check.yml").read_text()
        program = workflow.partition("<<'PYTHON'\n")[2].partition("          PYTHON\n")[0]
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, "report.json").write_text(report)
            done = subprocess.run(
                [sys.executable, "-E", "-S", "-"], input=textwrap.dedent(program), text=True,
                cwd=folder, capture_output=True, timeout=60, env={
                    "STATUS": "137", "REMOTE": "https://github.com/o/r", "BASE_COMMIT": "1" * 40,
                    "NUMBER": "7", "AUTHOR": "ada"})
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertIn("\n    git fetch https://github.com/o/r pull/7/head\n", done.stdout)
        return done.stdout

    def test_each_finding_has_its_file_code_and_fix_and_quotes_as_code(self):
        report = findings.Report()
        hostile = "\n::error::x\r\n# ```<b>\u2028##[error]\x85::add-mask::\x1b]0;\u202e"
        report.add("file-missing", "submissions/ada/x/run.md", hostile)
        report.add("file-malformed", f"submissions/ada/{hostile}/run.md", hostile, 1, hostile)
        out = self.summary(report.json(1))
        self.assertIn("    error file-missing submissions/ada/x/run.md\n", out)
        self.assertIn("\n      fix: write what is missing: python3 harness/complete", out)
        self.assertEqual([line for line in out.splitlines() if not re.match("    |$", line)], [
            "Submissions checked: 1", "To see the same on your machine, in a clone of the "
            "repository:"])

    def test_github_obeys_no_command_while_the_check_runs(self):
        workflow = (release.HERE.parent / ".github" / "workflows" / "data-check.yml").read_text()
        step = workflow.partition("- name: Check\n")[2].partition("- name: Keep")[0]
        before, _, after = step.partition('echo "::stop-commands::$(od')
        self.assertNotIn("python3", before)
        self.assertIn("check_submission.py --json", after)
        self.assertNotIn('"::$', after)          # no token that ends it

    def test_a_check_that_was_killed_is_named(self):
        self.assertIn("exit code 137 and without a report", self.summary(""))


class Answers(unittest.TestCase):
    """--answers: how each call went."""

    def test_what_looks_private_is_shown_with_its_surroundings(self):
        made = make(SMALL)
        call = calls_of(made)[1]
        call["response"]["text"] = f"{'word ' * 40}listen on 10.1.2.3 in your network" + \
            " 10.1.2.3" * 20
        code, lines, err = self.shown(made.sealed())
        at = next(at for at, line in enumerate(lines) if line.startswith("    looks private: "))
        self.assertIn(f"  {call['question_id']}  ", lines[at - 1])
        self.assertRegex(lines[at], r": .{17,30}listen on 10\.1\.2\.3 in your network 10")
        self.assertEqual(sum("looks private" in line for line in lines), 1)
        report = check(made)
        found = next(one for one in report.findings() if one.code == "private-answer")
        self.assertIn(f" in answers to {call['question_id']}; ", found.what)

    def shown(self, made, *argv):
        with tempfile.TemporaryDirectory() as root:
            folder = made.write(root)
            code, out, err = run_main("--answers", str(folder), *argv)
        return code, out.splitlines(), err

    def test_each_call_has_a_line_and_both_ends_of_its_answer(self):
        made = make(SMALL)
        call = calls_of(made)[1]
        call["response"]["text"] = "one\n  two " + "x" * 200 + " the end"
        code, lines, err = self.shown(made.sealed())
        self.assertEqual((0, "", 1 + len(calls_of(made))), (code, err, len(lines)))
        self.assertRegex(lines[0], rf"run-{made.manifest['run_id']}: {len(calls_of(made))} calls$")
        shown = "one two " + "x" * 200 + " the end"
        self.assertRegex(lines[2], r"^2/\d+  .* \d+ tokens  \[stop\] ")
        self.assertTrue(lines[2].endswith(f"[stop] {shown[:80]} [...] {shown[-30:]}"))

    def test_thinking_and_missing_text_are_shown_escaped(self):
        made = make(SMALL)
        first, second = calls_of(made)[:2]
        first["response"]["text"] = ""
        first["response"]["reasoning_text"] = "hm \u7b54 \x1b[2J\u202e"
        second["response"].update(text="", reasoning_text="", finish_reason=None)
        _, lines, _ = self.shown(made.sealed())
        self.assertEqual([line.partition("  [")[2] for line in lines[1:3]],
                         ["length] (only thinking) hm \u7b54 \\x1b[2J\\u202e", "no end] (no text)"])

    def test_an_unreadable_ledger_is_an_error(self):
        made = make(SMALL)
        with tempfile.TemporaryDirectory() as root:
            folder = made.write(root)
            Path(folder, "run.jsonl").write_bytes(b"no ledger\n")
            code, out, err = run_main("--answers", str(folder))
        self.assertEqual((1, True), (code, out.endswith(": 0 calls\n")))
        self.assertIn("error file-malformed", err)


    def test_answers_texts_and_privacy_share_their_folders(self):
        made = make(SMALL)
        calls_of(made)[1]["response"]["text"] = "write to bob@gmail.com"
        with tempfile.TemporaryDirectory() as root:
            folder = str(made.sealed().write(root))
            parts = [run_main(mode, folder) for mode in ("--answers", "--texts", "--privacy")]
            both = run_main("--privacy", "--answers", "--texts", folder)
            self.assertEqual(run_main(folder, "--privacy", "--answers", "--texts"), both)
            self.assertEqual(both, (max(code for code, _, _ in parts),
                                    "".join(out for _, out, _ in parts), ""))
            self.assertIn("private-answer", both[1])
            Path(folder, "run.jsonl").write_bytes(b"no ledger\n")
            code, out, err = run_main("--privacy", "--answers", folder)
            self.assertEqual((code, out.splitlines()[-1][:15]), (1, "1 place checked"))
            self.assertIn("file-malformed", err)


class Texts(unittest.TestCase):
    """--texts: every text of the JSON files that may be private."""

    def test_each_text_is_printed_once_and_escaped(self):
        made = make(SMALL)
        made.hardware["cpu"]["model_name"].update(value="A \u202e chip")
        with tempfile.TemporaryDirectory() as root:
            folder = made.sealed().write(root)
            code, out, err = run_main("--texts", str(folder))
        title, *lines = out.splitlines()
        self.assertEqual((code, err, len(lines)), (0, "", len(set(lines))))
        self.assertTrue(title.endswith(f": {len(lines)} texts"))
        self.assertIn("value: A \\u202e chip", lines)
        for text in (f"submitter_handle: {made.manifest['submitter_handle']}",
                     f"run_id: {made.manifest['run_id']}"):
            self.assertIn(text, lines)
        for text in (next(iter(made.manifest["files_sha256"].values())), "phase: frozen",
                     "source: probed", "reason: the system does not report it"):
            self.assertNotIn(text, out)


class Privacy(unittest.TestCase):
    """--privacy: private values in files, folders and diffs."""

    NAMES = [privacy.MachineName("host", "turing-box"), privacy.MachineName("user", "hopper")]

    def grep(self, *paths, stdin=b""):
        with mock.patch.object(names, "this_machine", lambda: self.NAMES):
            return run_main("--privacy", *map(str, paths), stdin=stdin)

    def lines(self, out):
        """Severity, code and place of each finding: the last part of the path, and the line."""
        found = (line.split(" ", 2) for line in out.splitlines()[:-1] if not line.startswith(" "))
        return [f"{severity} {code} {place.rpartition('/')[2].partition(' ')[0]}"
                for severity, code, place in found]

    def test_each_hit_has_file_and_line(self):
        with tempfile.TemporaryDirectory() as root:
            file = Path(root) / "notes.md"
            file.write_text("one\nfrom 192.168.1.20\non turing-box by hopper\n" + "10.0.0.7\n" * 5)
            code, out, _ = self.grep(file)
            self.assertEqual(code, 1)
            self.assertEqual(self.lines(out), [
                f"error private-value notes.md:{line}" for line in (2, 3, 3, 4, 5, 6, 7, 8)])
            self.assertNotIn("168.1.20", out)
            self.assertIn("1 place checked: 8 errors, no warnings", out)

    def test_hits_in_answers_are_warnings_and_others_errors(self):
        made = make(RESUMED)
        call_field("response", "text", value="ping 192.168.1.20")(made)
        with tempfile.TemporaryDirectory() as root:
            folder = made.sealed().write(root)
            code, out, _ = self.grep(folder)
            self.assertEqual(code, 0, out)
            line = made.events.index(calls_of(made)[1]) + 1
            self.assertEqual(self.lines(out), [
                f"warning private-answer run.jsonl:{line}"])
            line_field("run_interrupted", "reason", "lost 192.168.1.20")(made)
            Path(folder, "run.jsonl").write_bytes(made.ledger_bytes())
            self.assertEqual(self.grep(folder)[0], 1)

    def test_ledger_lines_in_a_diff_are_parsed(self):
        made = make()
        call_field("response", "text", value="ping 192.168.1.20")(made)
        diff = (f"+++ b/submissions/{made.path()}/run.jsonl\n".encode() + b"".join(
            b"+" + line for line in made.ledger_bytes().splitlines(keepends=True)))
        code, out, _ = self.grep("-", stdin=diff)
        self.assertEqual((code, len(self.lines(out))), (0, 1), out)
        code, out, _ = self.grep("-", stdin=b"+ served by turing-box\n")
        self.assertEqual((code, self.lines(out)), (1, ["error private-value -:1"]))

    def test_a_login_inside_the_handle_is_found_only_elsewhere(self):
        made = make(Spec(handle="hopper-g"))
        with tempfile.TemporaryDirectory() as root:
            folder = made.write(root)
            self.assertEqual(self.grep(folder)[0], 0)
            diff = b"".join(
                f"+++ b/submissions/{made.path()}/{name}\n".encode() + b"".join(
                    b"+" + line for line in data.splitlines(keepends=True))
                for name, data in made.bytes_of().items())
            self.assertEqual(self.grep("-", stdin=diff)[0], 0)
            with open(os.path.join(folder, "run.md"), "a") as file:
                file.write("run by hopper, sent by hopper-g\n")
            code, out, _ = self.grep(folder)
            self.assertEqual((code, len(self.lines(out))), (1, 1), out)

    def test_the_manifests_host_name_is_a_warning(self):
        made = make()
        made.manifest["host_hostname_short"] = "turing-box"
        with tempfile.TemporaryDirectory() as root:
            code, out, _ = self.grep(made.write(root))
            self.assertEqual((code, out.split(" ")[:2]), (0, ["warning", "hostname-published"]))

    @runs.posix_only
    def test_links_are_not_followed_and_long_lines_are_searched_in_pieces(self):
        with tempfile.TemporaryDirectory() as root:
            (Path(root) / "link").symlink_to("/etc/hostname")
            (Path(root) / "long").write_bytes(b"x" * 4990 + b" 192.168.1.20 " + b"x" * 9000)
            with mock.patch.object(privacy_scan, "PIECE_BYTES", 5000):
                code, out, _ = self.grep(root)
            self.assertEqual(code, 1)
            self.assertEqual(self.lines(out), ["error file-not-regular link",
                                               "error private-value long:1"])


def fast_import(repository, commits):
    """Make commits: (branch, parent, {path: (mode, data), or None to delete})."""
    stream = b""
    for branch, start, files in commits:
        mail = "ada@magrathea.org" if branch == "private" else "a@example.org"
        message = "x\n\nCo-authored-by: A <ada@magrathea.org>" if branch == "trailer" else "x"
        stream += (f"commit refs/heads/{branch}\ncommitter A <{mail}> 1790000000 +0000\n"
                   f"data {len(message)}\n{message}\n").encode()
        stream += f"from refs/heads/{start}\n".encode() if start else b""
        for path, held in files.items():
            if held is None:
                stream += f"D {path}\n".encode()
            elif held[0] == "160000":
                stream += f"M 160000 {held[1]} {path}\n".encode()
            else:
                stream += f"M {held[0]} inline {path}\ndata {len(held[1])}\n".encode() + held[1]
                stream += b"\n"
    subprocess.run(["git", "-C", repository, "fast-import", "--quiet"], input=stream, check=True)


class Changes(unittest.TestCase):
    """--base and --head: what a change adds, read from git objects."""

    # branch, path (empty: run.md), what its first commit has there and the second one has not
    EARLIER = (("log", "submissions/ada/server.log", b"listening\nGET from 192.168.1.20\n"),
               ("env", ".env", b"MY_API_KEY=" + b"0a" * 12),
               ("notes", "", b"Made by /home/zaphod/x."),
               ("harmless", "submissions/ada/server.log", b"listening on 127.0.0.1\n"),
               ("tested", "harness/tests/test_x.py", b"from 192.168.1.20"))

    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(cls.folder.cleanup)
        cls.repository = os.path.join(cls.folder.name, "repository")
        cls.marker = os.path.join(cls.folder.name, "was-run")
        subprocess.run(["git", "init", "--quiet", cls.repository], check=True)
        # Settings of a repository may name programs; none of them may run.
        run = f"touch {cls.marker}"
        for name in ("diff.x.textconv", "filter.x.smudge", "filter.x.clean", "core.fsmonitor",
                     "diff.external", "core.sshCommand"):
            subprocess.run(["git", "-C", cls.repository, "config", name, run], check=True)
        mine, cls.made = (cls.at(None, spec) for spec in (Spec(handle="grace", seed=2), SMALL))
        cls.merged = cls.files(mine)
        cls.added = cls.files(cls.made)
        first = next(iter(cls.merged))
        page = next(path for path in cls.added if path.endswith("run.md"))
        evil = f"import os; os.system({run!r})".encode()
        changes = {
            "good": cls.added,
            "checker": {**cls.added, "harness/check_submission.py": ("100644", evil)},
            "attributes": {**cls.added, ".gitattributes": ("100644", b"* diff=x filter=x\n")},
            "link": {**cls.added, page: ("120000", b"/etc/passwd")},
            "program": {**cls.added, page: ("100755", cls.added[page][1])},
            "submodule": {**cls.added, page: ("160000", "1" * 40)},
            "changed": {first: ("100644", b"{}")},
            "deleted": {**cls.added, first: None},
            "renamed": {**cls.added, first: None, first + "x": cls.merged[first]},
            "sixth": {**cls.added, page.replace("run.md", "plot.svg"): ("100644", b"<svg/>")},
            "readme": {**cls.added, "submissions/README.md": ("100644", b"mine")},
            "missing": {path: held for path, held in cls.added.items() if path != page},
            "project": {"README.md": ("100644", b"words"),
                        "submissions/README.md": ("100644", b"words"),
                        "submissions/EXAMPLE/mac-m1-8gb/run-1/run.md": ("100644", b"words")},
            "private": cls.added,
            "trailer": cls.added,
            "corrections": {"submissions/CORRECTIONS.json": ("100644", b"{}")},
            "corrections-link": {"submissions/CORRECTIONS.json": ("120000", b"x")},
            "corrections-gone": {"submissions/CORRECTIONS.json": None},
            "corrections-new": {"submissions/CORRECTIONS.json": ("100644", corrections_of(
                mine.manifest["run_id"]))},
            "corrections-beside": {**cls.added, "submissions/CORRECTIONS.json": (
                "100644", corrections_of(mine.manifest["run_id"]))},
            "many": {f"submissions/ada/x/run-{i}/run.md": ("100644", b"") for i in range(61)},
            "large": {**cls.added, page: ("100644", b"x" * 300_000)},
            "copied": cls.files(mine, "submissions/ada"),
            "no-commit": cls.files(cls.at("3" * 40, SMALL)),
        }
        fast_import(cls.repository, [
            ("base", None, {**cls.merged, ".gitattributes": ("100644", b"* -text\n"),
                            "submissions/CORRECTIONS.json": ("100644", corrections_of()),
                            **{f"harness/{path.relative_to(release.HERE).as_posix()}": (
                                "100644", path.read_bytes()) for suffix in ("py", "json")
                               for path in release.HERE.rglob(f"*.{suffix}")
                               if "tests" not in path.relative_to(release.HERE).parts}}),
            ("older", "base", {"harness/check/copies.py": ("100644", b"# another\n"),
                               "harness/core/plan.py": None}),
            ("offer", "older", dict(cls.added)),
            *((name, "base", files) for name, files in changes.items()),
            *((name, parent, files) for name, path, data in cls.EARLIER for parent, files in (
                ("base", {**cls.added, path or page: ("100644", data)}),
                (None, {path or page: cls.added.get(path or page)}))),
            ("corrections-back", "corrections-new", {
                "submissions/CORRECTIONS.json": ("100644", corrections_of())}),
            ("base2", "base", {"README.md": ("100644", b"later")}),
            ("marked", "base", {"submissions/CORRECTIONS.json": ("100644", json.dumps({
                "schema_version": "1", "corrections": [{
                    "run_id": mine.manifest["run_id"], "state": "disputed", "since": "2026-11-29",
                    "reason": "Another model.", "issue": None, "values": {}}]}).encode())})])

    @staticmethod
    def at(commit, spec):
        """A run whose manifest names a commit of the harness."""
        made = make(spec)
        made.manifest["git"]["commit"] = commit
        return made.sealed()

    @staticmethod
    def files(made, folder=None):
        top = folder or f"submissions/{made.manifest['submitter_handle']}"
        inner = made.path().partition("/")[2]
        return {f"{top}/{inner}/{name}": ("100644", data)
                for name, data in made.bytes_of().items()}

    def report(self, branch, base="base2", **settings):
        report = findings.Report()
        repository = submission_files.Repository(os.path.join(self.repository, ".git"))
        try:
            check_submission.check_changes(repository, base, branch, check_submission.Settings(
                valid_run.RELEASES, now_s=valid_run.NOW_S, **settings), report)
        finally:
            repository.close()
        self.assertFalse(os.path.exists(self.marker))
        return report

    def test_runs_that_main_marks_as_disputed_are_known(self):
        repository = submission_files.Repository(os.path.join(self.repository, ".git"))
        self.addCleanup(repository.close)
        merged = {path.split("/")[3][4:] for path in self.merged}
        for branch, expected in (("base", set()), ("marked", merged), ("corrections", set())):
            self.assertEqual(check_submission.index_of(repository, branch, None).doubted, expected)

    def test_an_index_stands_for_the_ledgers_that_it_holds(self):
        repository = submission_files.Repository(os.path.join(self.repository, ".git"))
        self.addCleanup(repository.close)
        first = check_submission.index_of(repository, "base", None).to_bytes("base")
        self.assertEqual(copies.Index.from_bytes(first)[1].to_bytes("base"), first)
        self.assertEqual(codes(self.report("copied", signatures=first)),
                         codes(self.report("copied")))
        later = check_submission.index_of(repository, "base2", first)
        self.assertEqual(later.to_bytes("base"), first)
        for data in (b"", b"x", first[:-9]):
            with self.assertRaises(HarnessError):
                self.report("copied", signatures=data)

    def test_an_added_submission_is_clean_after_the_base_moved(self):
        self.assertEqual(codes(self.report("good", handle="Ada")), [])

    def test_a_hostile_change_is_refused(self):
        for branch, expected in (
                ("checker", ["file-changed"]), ("attributes", ["file-changed"]),
                # What is not taken is missing.
                ("link", ["file-missing", "file-not-regular"]),
                ("program", ["file-missing", "file-not-regular"]),
                ("submodule", ["file-missing", "file-not-regular"]),
                ("changed", ["file-changed"]), ("deleted", ["file-changed"]),
                ("renamed", ["file-changed", "file-unexpected"]),
                ("sixth", ["file-unexpected"]), ("readme", ["file-unexpected"]),
                ("missing", ["file-missing"]), ("many", ["too-many-files"]),
                ("large", ["file-too-large"]),
                # The folder has another handle than its manifest.
                ("copied", ["ids-differ", "run-copied", "answers-copied"])):
            with self.subTest(branch=branch):
                report = self.report(branch)
                self.assertEqual(codes(report), sorted(expected), report.text(1))
                self.assertEqual(report.exit_code(), 1)

    def test_the_commit_of_the_harness_is_looked_up(self):
        report = self.report("no-commit")
        self.assertEqual(codes(report), ["claim-contradicted"], report.text(1))
        repository = submission_files.Repository(os.path.join(self.repository, ".git"))
        self.addCleanup(repository.close)
        for branch, started, dirty, expected in (
                ("base", "2026-11-20T08:00:00.000Z", False, []),
                ("base", "2023-11-20T08:00:00.000Z", False, ["after the run"]),
                ("base", "2026-11-20T08:00:00.000Z", True, ["git.dirty is true"]),
                ("older", "2026-11-20T08:00:00.000Z", False, ["1 files of git.commit"]),
                ("older", "2026-11-20T08:00:00.000Z", True, [])):
            made = self.at(repository.commit(branch), SMALL)
            made.manifest["started_at"] = started
            made.manifest["git"]["dirty"] = dirty
            found = [what for _, what in manifest.commit_problems(made.manifest, repository)]
            self.assertEqual([word in what for word, what in zip(expected, found)],
                             [True] * len(found), (branch, started, found))
            self.assertEqual(len(found), len(expected))

    def test_another_authors_folder_is_refused(self):
        self.assertEqual(codes(self.report("good", handle="grace")), ["handle-not-author"])

    def test_a_change_of_the_project_is_no_submission(self):
        self.assertEqual(codes(self.report("project")), ["no-submission"])

    def test_the_text_of_too_many_files_states_the_limit(self):
        self.assertIn(f"over {check_submission.MAX_CHANGED_FILES} in a pull request",
                      findings.CODES["too-many-files"].text)

    def test_private_addresses_of_authors_are_found(self):
        for branch in ("private", "trailer"):
            self.assertEqual(codes(self.report(branch)), ["author-published"], branch)

    def test_private_values_of_earlier_commits_are_found(self):
        for branch, path, _ in self.EARLIER:
            report = self.report(branch)
            place = [(one.path, one.line) for one in report.findings()]
            if branch in ("harmless", "tested"):
                self.assertEqual(place, [], branch)
                continue
            self.assertEqual(codes(report), ["private-history"], branch)
            self.assertEqual((path or place[0][0], 2 if branch == "log" else 1), place[0])
        with mock.patch.object(check_submission, "MAX_VERSIONS", 0):
            self.assertEqual(codes(self.report("log")), ["too-many-files"])

    def test_a_merge_is_compared_with_all_its_parents(self):
        fast_import(self.repository, [("side", "base", {"notes.txt": ("100644", b"10.1.2.3")})])
        subprocess.run(["git", "-C", self.repository, "fast-import", "--quiet"], check=True, input=(
            b"commit refs/heads/merged\ncommitter A <a@example.org> 1790000000 +0000\ndata 1\nx\n"
            b"from refs/heads/good\nmerge refs/heads/side\n"
            b"M 100644 inline notes.txt\ndata 8\n10.1.2.4\n"))
        repository = submission_files.Repository(os.path.join(self.repository, ".git"))
        self.addCleanup(repository.close)
        found = repository.all_changes("good", "merged")
        self.assertEqual([(one.path, repository.read(one.sha)) for one in found],
                         [("notes.txt", b"10.1.2.4"), ("notes.txt", b"10.1.2.3")])

    def test_a_change_of_the_corrections_is_checked(self):
        for branch in ("corrections", "corrections-link", "corrections-gone"):
            self.assertEqual(codes(self.report(branch)), ["correction-invalid", "no-submission"])
        for base, branch, code, word in (
                ("base", "corrections-new", "no-submission", "is added"),
                ("corrections-new", "corrections-back", "correction-invalid", "is gone; only")):
            report = self.report(branch, base)
            self.assertEqual(codes(report), sorted({code, "no-submission"}))
            self.assertIn("withdrawn since 2026-11-20, of a run of grace: this entry " + word,
                          " ".join(report.text(1).split()))
        self.assertIn("file-changed", codes(self.report("corrections-beside")))

    def test_the_path_guard_has_the_same_project_paths(self):
        workflows = Path(check_submission.__file__).resolve().parents[1] / ".github" / "workflows"
        paths = ", ".join(f'"{path}"' for path in submission_files.PROJECTS_OWN)
        self.assertIn(f"projects_own = ({paths})\n",
                      (workflows / "path-guard.yml").read_text(encoding="utf-8"))

    def test_a_folder_that_some_systems_do_not_tell_apart_is_refused(self):
        for path in ("Submissions/maintainers/x", "submissions/example/mac-m1-8gb/run-1/run.md"):
            report = findings.Report()
            change = submission_files.Change("100644", "1" * 40, "A", path)
            with mock.patch.object(submission_files.Repository, "changes", return_value=[change]):
                repository = submission_files.Repository(os.path.join(self.repository, ".git"))
                check_submission.check_changes(
                    repository, "base", "good", check_submission.Settings({}), report)
                repository.close()
            self.assertEqual(codes(report), ["file-unexpected"], path)

    def test_an_unknown_commit_is_a_usage_error(self):
        for name in ("nowhere", "--output=x", "base:README.md", "\x1b[31m"):
            with self.subTest(name=name), self.assertRaises(HarnessError) as caught:
                self.report(name)
            self.assertRegex(str(caught.exception), r"\A[\x20-\x7e]+\Z")

    def test_a_program_that_differs_from_the_bases_refuses_and_prints_the_command(self):
        with mock.patch.object(release, "known", lambda: valid_run.RELEASES):
            code, out, err = run_main("--git-dir", os.path.join(self.repository, ".git"), "--base",
                                      "older", "--head", "offer", "--json", "--handle", "ada",
                                      "--challenge", "a b c d")
        self.assertEqual((code, out), (2, ""))
        self.assertIn("harness/check/copies.py is changed, harness/core/plan.py is added", err)
        self.assertRegex(err, r"\n  git switch --detach [0-9a-f]{40}\n  python3 harness/check_"
                              r"submission.py --base [0-9a-f]{40} --head [0-9a-f]{40} .*ada "
                              r"--challenge 'a b c d' --json\n\Z")

    def test_files_that_python_could_import_count_and_line_ends_do_not(self):
        repository = submission_files.Repository(os.path.join(self.repository, ".git"))
        self.addCleanup(repository.close)
        with tempfile.TemporaryDirectory() as root:
            shutil.copytree(release.HERE, root, dirs_exist_ok=True, ignore=shutil.ignore_patterns(
                "__pycache__", "tests"))
            plan = Path(root, "core", "plan.py")
            plan.write_bytes(plan.read_bytes().replace(b"\n", b"\r\n"))
            base = repository.commit("base")
            self.assertEqual(repository.differences(base, root), [])
            Path(root, "argparse.py").write_text("")
            Path(root, "json.pyc").write_text("")
            Path(root, "prompts.py").unlink()
            self.assertEqual(repository.differences(base, root), [
                "harness/argparse.py is added", "harness/json.pyc is added",
                "harness/prompts.py is missing"])

    def test_the_default_repository_is_that_of_the_current_folder(self):
        program = Path(check_submission.__file__).resolve()
        done = subprocess.run(
            [sys.executable, "-E", "-S", str(program), "--base", "base2", "--head", "deleted",
             "--json"], cwd=self.repository, capture_output=True, text=True, timeout=60)
        self.assertEqual((done.returncode, done.stderr), (1, ""))
        self.assertIn("file-changed", {f["code"] for f in json.loads(done.stdout)["findings"]})
        self.assertFalse(os.path.exists(self.marker))


if __name__ == "__main__":
    unittest.main()
