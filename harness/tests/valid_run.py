"""Makes whole submissions that the check accepts: the runner's own state and stamps, fed with
made-up streams on a made-up clock, so that what follows from something follows as in a real run.

    make(Spec(...))    five documents: manifest, ledger lines, hardware, metadata, words of run.md
    Made.sealed()      the same after a change, as a forger would seal it: seq, counts, hashes,
                       metadata.json and run.md made again
    Made.write(root)   the five files; their folder

Nothing in them was measured, and nothing here sleeps or connects.
"""
from __future__ import annotations

import base64
import datetime
import functools
import hashlib
import heapq
import json
import os
import random
import uuid
from typing import Any, NamedTuple, Optional

import run_benchmark
from complete import attestation, metadata, run_md
from core import ledger, plan, release, suites
from engines import answers, queries
from machine import inventory
from run import calibration, cli, model_choice, sse, state
from run import manifest as manifests
from run import reply as replies
from run import timing as run_timing

Json = dict[str, Any]

HERE = os.path.dirname(os.path.abspath(__file__))
SUITES = suites.load_suites()
BASE = datetime.datetime(2026, 11, 20, 8, 0, tzinfo=datetime.timezone.utc)
NOW_S = BASE.timestamp() + 90_000.0
RELEASES = {run_benchmark.HARNESS_VERSION: release.Release(
    release.RELEASES[run_benchmark.HARNESS_VERSION], (release.revision(release.current_hashes()),))}
GIB = 1024 ** 3
MACHINE = {
    "system": {"kind": "desktop", "virtualization": "none"},
    "cpu": {"model_name": "AMD Ryzen 9 7950X 16-Core Processor", "vendor": "AuthenticAMD",
            "architecture": "x86_64", "physical_cores_count": 16, "threads_count": 32,
            "usable_threads_count": 32, "max_mhz": 5700, "cache_l2_kib": 16384,
            "cache_l3_kib": 65536, "instruction_sets": ["avx2", "avx512_vnni", "avx512f"]},
    "memory": {"capacity_bytes": 53 * GIB, "type": "DDR5", "speed_mts": 6000,
               "bandwidth_theoretical_gb_per_s": 96.0, "bandwidth_measured_gb_per_s": 71.5},
    "os": {"name": "Debian GNU/Linux", "version": "12", "kernel_release": "6.1.0"},
    "power": {"source": "ac"}, "accelerators": [], "accelerators_count": 0,
}
WORDS = {"deviations": "none", "notes": "none",
         "attestation": "\n".join(f"- [x] {one}" for one in attestation.STATEMENTS)}
# Of the listed model that the recorded answer of /api/show does not describe.
OTHER_SHOW = {"hf.co/bartowski/Qwen2.5-7B-Instruct-GGUF:Q8_0": {
    "details": {"format": "gguf", "family": "qwen2", "quantization_level": "Q8_0"},
    "model_info": {"general.architecture": "qwen2", "general.file_type": 7,
                   "general.parameter_count": 7_615_616_512, "qwen2.context_length": 32_768}}}
WORD = ("the file is read twice because a list holds every line and no other name was given to "
        "what comes first so that it may be sorted").split()


class Spec(NamedTuple):
    """What happens in a run. kill_after: calls of each segment but the last until it is killed;
    busy: questions that are answered with 503 first; failing: that break off in segment 0;
    thinking: whose answers begin with reasoning; edge: that no longer fits the context; swapped:
    each lane asks its first two questions in the other order, which no runner does."""

    engine: str = "llama.cpp"
    phases: str = "frozen,5q"
    seed: int = 1
    handle: str = "ada"
    tag: str = "desktop-ryzen-64gb"
    tokens: int = 40
    more: tuple[str, ...] = ()
    kill_after: tuple[int, ...] = ()
    torn: bytes = b""
    interrupted: bool = False
    busy: tuple[str, ...] = ()
    refused_field: Optional[str] = None
    failing: tuple[str, ...] = ()
    thinking: tuple[str, ...] = ()
    edge: Optional[str] = None
    swapped: bool = False


class Made(NamedTuple):
    """The documents of a submission; `files` are written in place of what they name."""

    manifest: Json
    events: list[Json]
    hardware: Json
    metadata: Json
    words: dict[str, str]
    files: dict[str, bytes]

    def copy(self) -> Made:
        """One that may be changed."""
        return Made(*json.loads(json.dumps(self)))

    def ledger_bytes(self) -> bytes:
        """run.jsonl."""
        return b"".join(map(ledger.dump_line, self.events))

    def sealed(self) -> Made:
        """Everything made again that a forger can make again with the project's own programs."""
        tie, data, counts = ledger.manifest_sha256(self.manifest), b"", dict[str, str]()
        for seq, event in enumerate(self.events):
            event["seq"] = seq
            if "manifest_sha256" in event:
                event["manifest_sha256"] = tie
            if event["event"] == "call_finished":
                counts[event["cell_id"]] = event["outcome"]
            if event["event"] == "run_finished":
                outcomes = list(counts.values())
                event["counts"] = {name: outcomes.count(name) for name in sorted(set(outcomes))}
                event["lines"], event["sha256"] = seq, hashlib.sha256(data).hexdigest()
            data += ledger.dump_line(event)
        return self.completed()

    def completed(self) -> Made:
        """metadata.json made again from what is there now."""
        return self._replace(metadata=metadata.build(
            self.manifest, self.events, hashlib.sha256(self.ledger_bytes()).hexdigest(),
            self.hardware, metadata.declared_in(self.metadata)))

    def page(self) -> str:
        """run.md."""
        return run_md.render_run_md(self.manifest, self.metadata, self.hardware, self.words,
                                      self.events)

    def bytes_of(self) -> dict[str, bytes]:
        """The five files."""
        made = {"manifest.json": ledger.dump_document(self.manifest),
                "run.jsonl": self.ledger_bytes(),
                "hardware.json": ledger.dump_document(self.hardware),
                "metadata.json": ledger.dump_document(self.metadata)}
        if "run.md" not in self.files:
            made["run.md"] = self.page().encode("utf-8")
        return {**made, **self.files}

    def path(self) -> str:
        """`<handle>/<device-tag>/run-<uuid>`."""
        return "/".join((self.manifest["submitter_handle"], self.manifest["device_tag"],
                         f"run-{self.manifest['run_id']}"))

    def write(self, root: str) -> str:
        """The five files below `root`; their folder."""
        folder = os.path.join(root, *self.path().split("/"))
        os.makedirs(folder)
        for name, data in self.bytes_of().items():
            with open(os.path.join(folder, name), "wb") as file:
                file.write(data)
        return folder


SMALL = Spec(phases="frozen")


def make(spec: Spec = SMALL) -> Made:
    """A submission; made once for each spec."""
    return _make(spec).copy()


@functools.cache
def _make(spec: Spec) -> Made:
    return Maker(spec).make()


@functools.cache
def recorded(engine: str) -> dict[str, answers.Probe]:
    """A real server's answers about itself."""
    with open(os.path.join(HERE, "data", "engines", f"{engine.lower()}.json"),
              encoding="utf-8") as file:
        recording = json.load(file)

    def parsed(text: str) -> Any:
        try:
            return json.loads(text)
        except ValueError:
            return None

    return {path: answers.Probe(a["status"], a["headers"], parsed(a["text"]), a["text"])
            for path, a in recording.items()}


class Killed(Exception):
    """The run ends here for now."""


class Maker:
    """Goes through a run as the runner does; its clock goes on by what would have passed."""

    def __init__(self, spec: Spec) -> None:
        self.spec, self.rng = spec, random.Random(spec.seed)
        self.events: list[Json] = []
        self.segment, self.t_us, self.calls_left = 0, 0, 0
        self.origin = BASE
        self.sampled_us: Optional[int] = None
        self.load = 2.2

    def make(self) -> Made:
        """The whole submission."""
        self.probes = dict(recorded(self.spec.engine))
        if self.spec.engine == "llama.cpp":                # the recorded build has no number
            props = self.probes["/props"]
            self.probes["/props"] = props._replace(json={**props.json, "build_info": "b6800-0a1b"})
        self.manifest = self._manifest()
        for calls_left in (*self.spec.kill_after, 10 ** 9):
            self.calls_left = calls_left
            try:
                self._segment()
            except Killed:
                self._end_early()
        made = Made(self.manifest, self.events, self._machine(), {"cells": []}, dict(WORDS), {})
        return made.completed()

    def _manifest(self) -> Json:
        options = cli.parse_options(run_benchmark.build_parser(), [
            "--target-url", "http://127.0.0.1:8080", "--models", "auto", "--phases",
            self.spec.phases, "--submitter-handle", self.spec.handle, "--device-tag",
            self.spec.tag, "--no-hostname", *self.spec.more], run_benchmark.DEFAULTS)
        engine = queries.identify(self.probes)
        self.served, self.skipped = model_choice.choose_models(
            options, queries.served_models(engine["name"], {
                path: one for path, one in self.probes.items() if path != "/api/show"}))
        found = manifests.RunContext(
            str(uuid.UUID(int=self.rng.getrandbits(128), version=4)),
            run_benchmark.HARNESS_VERSION, dict(run_benchmark.CANONICAL_OPTIONS), SUITES,
            _at(BASE, -20_000), False, cli.parse_target(options.target_url), "127.0.0.1", "host")
        manifest = manifests.assemble(
            options, found, engine, self.served,
            {model: self._told(model) for model in self.served}, release.current_hashes(),
            {"commit": "3" * 40, "dirty": False})
        manifest["python"] = {"version": "3.12.1", "implementation": "CPython"}
        manifest["os"] = {"system": "Linux", "machine": "x86_64"}
        return json.loads(json.dumps(manifest))

    # -- lines
    def _write(self, event: str, after_us: int = 300, **fields: Any) -> Json:
        """Write a line, and the samples of the machine that are due before it."""
        self.t_us += after_us
        while self.sampled_us is not None and self.sampled_us + SAMPLE_US <= self.t_us:
            at_us, self.t_us = self.t_us, self.sampled_us + SAMPLE_US
            self.sampled_us = None
            self.load += (self.rng.choice((2, 2, 3)) - self.load) * 164 / 2048     # as Linux does
            self.sampled_us = self._write("host_sampled", 0, **_sample(
                self.rng, self.load))["t_us"]
            self.t_us = at_us
        made = ledger.event_line(
            event, seq=len(self.events), run_id=self.manifest["run_id"], segment=self.segment,
            at=_at(self.origin, self.t_us), t_us=self.t_us, **fields)
        self.events.append(json.loads(ledger.dump_line(made)))
        return self.events[-1]

    def _segment(self) -> None:
        tie = {"manifest_sha256": ledger.manifest_sha256(self.manifest)}
        first = not self.events
        if first:
            self._write("run_started", 0, **tie)
        else:
            self.origin += datetime.timedelta(microseconds=self.t_us, minutes=3)
            self.segment, self.t_us = self.segment + 1, 0
            torn = self.spec.torn
            self._write("run_resumed", 0, **tie, newline_added=False, torn_bytes=len(torn),
                        torn_base64=_base64(torn))
        self.known = state.State(self.manifest, SUITES, self.served, not first)
        self.known.recall(self.events)
        self.warm, self.sampled_us = set[str](), None
        smoke = self.manifest["smoke"]
        if not smoke:
            self._write("machine_identified", hardware=self._machine())
            calibrated = _calibration(self.manifest)
            self._write("instrument_calibrated", max(2, len(calibrated["lanes"])) * 1_000_000,
                        **calibrated)
            self.sampled_us = self.t_us
        for model in self.served:
            self._write("endpoint_identified", **self.known.identity(model, self._told(model)))
        for model in self.skipped if first else ():
            self._write("model_skipped", model=model,
                        reason="it is not a chat model, by its engine or by its name")
        for model in self.served:
            if not self.known.model_done(model):
                self._model(model)
        for name in self.known.phases:
            if suites.PHASES[name].kind == "mixed":
                self._phase(name, list(self.served))
        self.sampled_us = None
        if not smoke:
            self._write("host_sampled", **_sample(self.rng, self.load))
        self._write("run_finished", counts=ledger.counts(self.events), wall_us=self.t_us + 100,
                    exit_code=int(not self.known.all_answered()), lines=len(self.events),
                    sha256=hashlib.sha256(b"".join(map(ledger.dump_line, self.events))).hexdigest())

    def _machine(self) -> Json:
        return inventory.assemble({**MACHINE, "python": self.manifest["python"]})

    def _end_early(self) -> None:
        if self.spec.interrupted:
            self._write("run_interrupted", reason="stopped by SIGINT", exit_code=130,
                        in_flight=sorted(self.dropped))

    def _told(self, model: str, loaded: Optional[str] = None) -> answers.Probes:
        """What the server reports about a model and itself; Ollama's context only while loaded."""
        if self.spec.engine != "ollama":
            return self.probes
        models = [] if loaded is None else [{"name": loaded, "model": loaded,
                                             "context_length": 4096}]
        show = self.probes["/api/show"]
        return {**self.probes, "/api/ps": answers.Probe(200, {}, {"models": models}, ""),
                "/api/show": show._replace(json={**show.json, **OTHER_SHOW.get(model, {})})}

    # -- phases
    def _model(self, model: str) -> None:
        self._hello(model)
        if self.manifest["smoke"]:
            return
        self._write("endpoint_identified", 20_000, **self.known.identity(
            model, self._told(model, self.served[model])))
        for name in self.known.own_phases()[1:]:
            self._phase(name, [model])
        if len(self.known.own_phases()) > 1 and model not in self.known.probed:
            self._probe(model)

    def _hello(self, model: str) -> None:
        hello = self.known.hello(model, self.segment)
        self._calls(model, "hello", [hello], [hello])
        self.warm.add(model)

    def _phase(self, name: str, models: list[str]) -> None:
        mixed = suites.PHASES[name].kind == "mixed"
        model = None if mixed else models[0]
        reason = plan.skip_reason(name, models, self.manifest["plan"]["lanes"])
        if reason and (model, name) not in self.known.finished:
            self.known.finished.add((model, name))
            self._write("phase_skipped", model=model, phase=name, reason=reason)
        cells = self.known.cells(name, models)
        todo = [cell for cell in cells if not self.known.done(cell)]
        for one in models if todo and not reason else ():
            if one not in self.warm:
                self._hello(one)
        if not reason and (todo or (model, name) not in self.known.finished):
            self._calls(model, name, cells, todo)

    def _calls(self, model: Optional[str], name: str, cells: list[plan.Cell],
               todo: list[plan.Cell]) -> None:
        self.t_us += 90
        begun_us = self.t_us
        for level in self.known.levels_of(name) or [None]:
            part = [cell for cell in todo if cell.level == level]
            end = level and part and self.known.end_before(str(model), name, level)
            if part and not end:
                self._lanes(part, max(begun_us, self.t_us))
            end = end or level and self.known.end_after(str(model), name, level)
            if end:
                self.known.note_end(self._write("curve_ended", model=model, phase=name,
                                                **end._asdict()))
                break
        cells = self.known.asked(cells)
        ok = sum(self.known.outcomes.get(cell.cell_id) == "ok" for cell in cells)
        self.known.finished.add((model, name))
        self.t_us += 200
        self._write("phase_finished", 50, model=model, phase=name, planned=len(cells), ok=ok,
                    failed=len(cells) - ok, started_us=begun_us, wall_us=self.t_us - begun_us)

    def _lanes(self, todo: list[plan.Cell], begun_us: int) -> None:
        """Make calls on their lanes."""
        queues = {lane: [c for c in todo if c.lane == lane] for lane in {c.lane for c in todo}}
        for queue in queues.values() if self.spec.swapped else ():
            queue[:2] = queue[1::-1]
        flying: list[tuple[int, int, Any]] = []
        for lane, queue in sorted(queues.items()):
            heapq.heappush(flying, self._ask(queue.pop(0), begun_us + 60 + 9 * lane))
        while flying:
            end_us, lane, (cell, messages, asked) = heapq.heappop(flying)
            self.dropped = {cell.cell_id, *(one[2][0].cell_id for one in flying)}
            if not self.calls_left:
                raise Killed
            self.calls_left -= 1
            self.t_us = max(self.t_us, end_us)
            event = self._record(cell, messages, asked)
            if queues[lane]:
                heapq.heappush(flying, self._ask(queues[lane].pop(0), event["t_us"] + 70))

    def _record(self, cell: plan.Cell, messages: Any, asked: Any) -> Json:
        fields = asked if isinstance(asked, dict) else self.known.call_fields(
            cell, messages, *asked)
        event = self._write("call_finished", 150, **cell.fields(), **fields)
        self.known.note_call(cell, event)
        return event

    def _probe(self, model: str) -> None:
        longest = self.known.longest(model)
        probes = []
        for kind in ("as_run", "identical") if longest else ():
            reply, timing = self._exchange(longest[1], self.t_us + 60, 16, self._prompt_tokens(
                self.known.messages(longest[1])))
            self.t_us = timing["started_us"] + timing["done_us"]
            probes.append(replies.cache_probe(kind, reply, timing))
        self.known.probed.add(model)
        self._write("cache_probed", model=model, **replies.cache_verdicts(longest, probes))

    # -- calls
    def _ask(self, cell: plan.Cell, at_us: int) -> tuple[int, int, Any]:
        """(when it ends, its lane, (cell, messages, what _record takes)) of a call."""
        question, known, attempts = cell.question_id, self.known, []
        edge = known.edge(cell) if suites.PHASES[cell.phase].kind == "append" else None
        if edge:
            return at_us, cell.lane, (cell, None, known.beyond_the_edge(cell, edge))
        messages, refused = known.messages(cell), self.spec.refused_field
        if refused and refused not in known.dropped[cell.model]:
            attempts.append({"kind": "refused_fields", "status": 400, "started_us": at_us,
                             "ended_us": at_us + 4000})
            known.dropped[cell.model].add(refused)
            at_us += 4100
        if question in self.spec.busy:
            attempts.append({"kind": "server_busy", "status": 503, "started_us": at_us,
                             "ended_us": at_us + 3000})
            at_us += 1_003_500
        cache = known.cache(cell, f"{self.rng.getrandbits(64):016x}")
        request = {"salt": cache[0], "options": known.options(cell, known.max_tokens(cell), cache),
                   "dropped_fields": sorted(known.dropped[cell.model])}
        prompt_tokens = self._prompt_tokens(messages) + (8 if cache[0] else 0)
        reply, timing = self._exchange(cell, at_us, known.max_tokens(cell), prompt_tokens)
        end_us = timing["started_us"] + (timing["done_us"] or 0)
        return end_us + 120, cell.lane, (cell, messages, (reply, timing, attempts, request))

    def _prompt_tokens(self, messages: Any) -> int:
        return sum(len(m["content"]) for m in messages) * 10 // 43 + 9

    def _exchange(self, cell: plan.Cell, at_us: int, max_tokens: int,
                  prompt_tokens: int) -> tuple[replies.Reply, Json]:
        """A reply and its stamps, as they would have come."""
        rng, question = self.rng, cell.question_id
        status, failure, head = 200, None, b""
        parser, reads = sse.StreamParser(), []
        first_us = 30_000 + prompt_tokens * 700 + rng.randrange(9000)
        if question == self.spec.edge:
            status, head = 400, b'{"error": {"message": "the request exceeds the context size"}}'
            reads = [(first_us, b"")]
        else:
            events = list(_events(rng, self.spec, cell, max_tokens, prompt_tokens, first_us))
            if question in self.spec.failing and not self.segment:
                events, failure = events[:5], ("connection_lost", "the connection broke")
            for read, (_, data) in enumerate(events, 1):
                parser.feed(data, read)
            reads = [(first_us - 400, b""), *events]
        parser.close(len(reads) - 1)
        started_ns = (at_us + 130) * 1000
        user_ns = [started_ns + t_us * 1000 + rng.randrange(20_000, 90_000) for t_us, _ in reads]
        kernel_ns = [started_ns + t_us * 1000 + WALL_NS for t_us, _ in reads]
        user_ns.sort()
        total = 250 + len(head) + sum(len(data) for _, data in reads)
        arrivals = run_timing.Arrivals(started_ns, user_ns, kernel_ns, 1, total)
        reply = replies.Reply(status, {}, head, parser, failure, arrivals)
        timing = run_timing.call_timing(parser, arrivals, WALL_NS, WALL_NS, 0, 100_000)
        assert timing is not None
        return reply, timing


WALL_NS = 1_795_000_000_000_000_000
SAMPLE_US = 5_000_000


def _events(rng: random.Random, spec: Spec, cell: plan.Cell, max_tokens: int,
            prompt_tokens: int, first_us: int) -> Any:
    """(when, bytes) of each read of a stream; every seventh brings two chunks."""
    count, t_us = min(max_tokens, spec.tokens + rng.randrange(12)), first_us
    model, thinking = cell.model, cell.question_id in spec.thinking
    gap_us = rng.randrange(9000, 9600) * (12 if spec.engine == "ollama" else 1)

    def event(delta: Json, **more: Any) -> bytes:
        body = {"choices": [{"index": 0, "delta": delta, "finish_reason": None, **more}],
                "id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": model}
        return b"data: " + json.dumps(body).encode() + b"\n\n"

    yield t_us - 200, event({"role": "assistant", "content": None})
    at, began = 0, t_us
    while at < count:
        together = 2 if at % 7 == 5 else 1
        field = "reasoning_content" if thinking and at < count // 3 else "content"
        yield t_us, b"".join(event({field: rng.choice(WORD) + " "})
                             for _ in range(min(together, count - at)))
        at += together
        t_us += gap_us * together + rng.randrange(-400, 400)
    t_us -= gap_us
    yield t_us + 300, event({}, finish_reason="length" if count == max_tokens else "stop")
    usage = {"prompt_tokens": prompt_tokens, "completion_tokens": count,
             "total_tokens": prompt_tokens + count,
             "prompt_tokens_details": {"cached_tokens": 0}}
    predicted_ms, prompt_ms = (t_us - began) / 1000 + 3, (first_us - 5000) / 1000
    timings = {"timings": {
        "cache_n": 0, "prompt_n": prompt_tokens, "prompt_ms": prompt_ms,
        "prompt_per_token_ms": prompt_ms / prompt_tokens,
        "prompt_per_second": prompt_tokens * 1000 / prompt_ms,
        "predicted_n": count, "predicted_ms": predicted_ms,
        "predicted_per_token_ms": predicted_ms / count,
        "predicted_per_second": count * 1000 / predicted_ms}} if spec.engine == "llama.cpp" else {}
    last = {"choices": [], "model": model, "system_fingerprint": "fp_1", "usage": usage, **timings}
    yield t_us + 500, b"data: " + json.dumps(last).encode() + b"\n\ndata: [DONE]\n\n"


def _at(origin: datetime.datetime, t_us: int) -> str:
    moment = origin + datetime.timedelta(microseconds=t_us)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03d}Z"


def _base64(data: bytes) -> Optional[str]:
    return base64.b64encode(data).decode("ascii") if data else None


def _calibration(manifest: Json) -> Json:
    counts = plan.calibrated_lanes(manifest["plan"])
    return calibration.calibration(
        None, stamp="kernel", clock_resolution_ns=40,
        lanes=[{"lanes": lanes, "lag_us": {"p50": 10, "p99": 20, "max": 40}} for lanes in counts],
        saturation=[{"lanes": lanes, "chunks_per_s": 445_655.0} for lanes in counts],
        heartbeat_overshoot_us={"p50": 80, "p99": 210, "max": 360})


def _sample(rng: random.Random, load: float) -> Json:
    used = 3 * GIB + 4096 * rng.randrange(10_000)
    return {"load_1m": round(load, 2), "memory_used_bytes": used,
            "memory_available_bytes": 53 * GIB - used, "swap_used_bytes": 0,
            "server_memory_bytes": None, "cpu_mhz": 5000,
            "cpu_throttle_count": 0, "cpu_busy_ratio": 0.5,
            "other_cpu_busy_ratio": 0.012, "power_source": "ac", "temperature_c": 61.0,
            "energy_uj": None, "gpus": []}
