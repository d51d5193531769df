"""Types of ledger lines, manifest.json and metadata.json.

The schemas in harness/schemas describe the same records, with units and limits. A test compares the
fields, and which of them are required or may be null. Only the schemas have fields that earlier
versions wrote and that nothing reads.
"""
from __future__ import annotations

from typing import Any, Literal, Optional, TypedDict, Union

Json = dict[str, Any]                  # an object whose fields have no type here


class Event(TypedDict):
    """Fields that every ledger line has."""
    seq: int
    run_id: str
    segment: int
    at: str
    t_us: int


class RunStarted(Event):
    """First line of a run."""
    event: Literal["run_started"]
    manifest_sha256: str


class RunResumed(Event):
    """First line of each later segment, written when a run is resumed."""
    event: Literal["run_resumed"]
    manifest_sha256: str
    newline_added: bool
    torn_bytes: int
    torn_base64: Optional[str]


class MachineIdentified(Event):
    """The machine of a segment, if the endpoint has a loopback address."""
    event: Literal["machine_identified"]
    hardware: Json


# Percentiles of a delay, rounded by run.timing.coarse.
Spread = TypedDict("Spread", {"p50": int, "p99": int, "max": int})
# Delay of the stamps at one number of lanes.
Lane = TypedDict("Lane", {"lanes": int, "lag_us": Optional[Spread]})
Saturation = TypedDict("Saturation", {"lanes": int, "chunks_per_s": float})


class InstrumentCalibrated(Event):
    """The client's own timing error, measured against a local reference endpoint."""
    event: Literal["instrument_calibrated"]
    stamp: Optional[str]
    clock_resolution_ns: Optional[int]
    lanes: list[Lane]
    saturation: list[Saturation]
    heartbeat_overshoot_us: Optional[Spread]
    reason: Optional[str]


Engine = TypedDict("Engine", {
    "name": str, "version": Optional[str], "build": Optional[str], "recognised_by": Optional[str]})
Context = TypedDict("Context", {
    "requested_tokens": Optional[int], "effective_tokens": Optional[int], "source": Optional[str],
    "reason": Optional[str], "remedy": Optional[str]})
Slots = TypedDict("Slots", {"count": Optional[int], "source": Optional[str]})


class EndpointIdentified(Event):
    """Information from the server about itself and one model; read again after a model load."""
    event: Literal["endpoint_identified"]
    model: str
    engine: Engine
    facts: Json              # what the engine reports about the model
    context: Context
    slots: Slots
    prompt_cache_method: str


class ModelSkipped(Event):
    """A model that is not measured."""
    event: Literal["model_skipped"]
    model: str
    reason: str


class PhaseSkipped(Event):
    """A planned phase that cannot run."""
    event: Literal["phase_skipped"]
    model: Optional[str]
    phase: str
    reason: str


Attempt = TypedDict("Attempt", {
    "kind": str, "status": Optional[int], "started_us": int, "ended_us": int})
Request = TypedDict("Request", {
    "prompt": str, "messages_sha256": str, "messages_chars": int, "messages_count": int,
    "salt": Optional[str], "options": Json, "dropped_fields": list[str]})
Response = TypedDict("Response", {
    "http_status": int, "text": str, "reasoning_text": str, "finish_reason": Optional[str],
    "model": Optional[str], "system_fingerprint": Optional[str], "usage": Optional[Json],
    "server_timings": Optional[Json]})


class ChunkTiming(TypedDict):
    """The part of Timing that concerns chunks of text."""
    first_token_us: Optional[int]
    first_answer_us: Optional[int]
    last_token_us: Optional[int]
    chunk_us: list[int]
    chunk_kinds: Optional[str]
    reads: list[list[int]]
    ttft_null_reason: Optional[str]


class Timing(ChunkTiming):
    """Times of one call in microseconds.

    started_us counts from the segment's start, the other times from the moment when the request's
    first byte was passed to the socket.
    """

    started_us: int
    done_us: Optional[int]
    bytes_received: int
    stamp: str
    read_lag_us: Optional[Spread]
    clock_step_us: int
    heartbeat_gap_us: Optional[int]


Reasoning = TypedDict("Reasoning", {"mode": str, "chunks": int, "characters": int})
Truncated = TypedDict("Truncated", {"verdict": str, "reason": Optional[str]})
Marker = TypedDict("Marker", {"marker": str, "found": bool})
Checks = TypedDict("Checks", {
    "markers": list[Marker], "format_rule": Optional[str], "format_ok": Optional[bool],
    "passed": Optional[bool]})
Error = TypedDict("Error", {
    "kind": str, "message": str, "status": Optional[int], "body_start": Optional[str]})
# Missing in ledgers of earlier versions.
LoadState = TypedDict("LoadState", {"loaded": Optional[bool]}, total=False)
# Missing except in calls of ramp and depth.
Level = TypedDict("Level", {"level": int}, total=False)


class CallFinished(Event, LoadState, Level):
    """One planned call, answered or failed. Of several lines for one cell the last counts."""
    event: Literal["call_finished"]
    cell_id: str
    model: str
    phase: str
    question_id: str
    repeat: int
    lane: int
    cold: bool
    attempts: list[Attempt]
    request: Request
    response: Optional[Response]
    timing: Optional[Timing]
    reasoning: Reasoning
    truncated: Truncated
    checks: Optional[Checks]
    flags: list[str]
    outcome: str
    error: Optional[Error]


Probe = TypedDict("Probe", {
    "kind": str, "outcome": str, "first_token_us": Optional[int], "prompt_tokens": Optional[int],
    "cached_tokens": Optional[int]})


class CacheProbed(Event):
    """Whether the server cached the longest prompt, tested at the end of a model's phases."""
    event: Literal["cache_probed"]
    model: str
    cell_id: Optional[str]
    run_first_token_us: Optional[int]
    probes: list[Probe]
    verdict: str
    control: str
    reason: Optional[str]


# Missing in ledgers of earlier versions.
ServerMemory = TypedDict("ServerMemory", {"server_memory_bytes": Optional[float]}, total=False)
# Only in ledgers of earlier versions; now a part of both other ratios.
Steal = TypedDict("Steal", {"cpu_steal_ratio": Optional[float]}, total=False)


class HostSampled(Event, ServerMemory, Steal):
    """Load of the machine; ratios are shares of all CPUs since the previous sample."""
    event: Literal["host_sampled"]
    load_1m: Optional[float]
    memory_used_bytes: Optional[float]
    memory_available_bytes: Optional[float]
    swap_used_bytes: Optional[float]
    cpu_mhz: Optional[float]
    cpu_throttle_count: Optional[float]
    cpu_busy_ratio: Optional[float]
    other_cpu_busy_ratio: Optional[float]
    power_source: Optional[str]
    temperature_c: Optional[float]
    energy_uj: Optional[float]
    gpus: list[Json]


class PhaseFinished(Event):
    """All calls of a phase were made."""
    event: Literal["phase_finished"]
    model: Optional[str]
    phase: str
    planned: int
    ok: int
    failed: int
    started_us: int
    wall_us: int


class PhasesAdded(Event):
    """Phases that a resume has added to the plan."""
    event: Literal["phases_added"]
    phases: list[Phase]


class CurveEnded(Event):
    """Where and why ramp or depth ended: calls from this level on are not asked."""
    event: Literal["curve_ended"]
    model: str
    phase: str
    level: int
    kind: str
    reason: str


class RunInterrupted(Event):
    """The run was stopped before its end."""
    event: Literal["run_interrupted"]
    reason: str
    exit_code: int
    in_flight: list[str]


class RunFinished(Event):
    """Last line of a run whose planned calls were all made."""
    event: Literal["run_finished"]
    counts: dict[str, int]
    wall_us: int
    exit_code: int
    lines: int
    sha256: str


Git = TypedDict("Git", {"commit": Optional[str], "dirty": Optional[bool]})
# Where the endpoint is, without its address.
Target = TypedDict("Target", {"class": str, "scheme": str, "port": int, "path": Optional[str]})


class ModelContext(Context):
    """The context of one model."""
    model: str


class Levels(TypedDict, total=False):
    """Only of ramp, depth and challenge."""
    levels: list[int]
    release: str
    context_tokens: int
    source_sha256: str
    challenge: str


class Phase(Levels):
    """One phase of the plan."""
    phase: str
    suite_file: Optional[str]
    lanes: int
    max_tokens: int
    question_ids: list[str]


Plan = TypedDict("Plan", {"repeats": int, "lanes": int, "phases": list[Phase]})


class Manifest(TypedDict):
    """What a run does, on what, and with which options; written before the first call."""
    schema_version: Literal["1"]
    harness_version: str
    run_id: str
    submitter_handle: str
    device_tag: str
    cell_id_prefix: str
    started_at: str
    synthetic: bool
    smoke: bool
    files_sha256: dict[str, str]
    git: Git
    python: dict[str, str]
    os: dict[str, Optional[str]]
    host_hostname_short: Optional[str]
    target: Target
    engine: Engine
    models: list[str]
    contexts: list[ModelContext]
    plan: Plan
    canonical_options: dict[str, float]
    canonical_options_overrides: dict[str, float]
    prompt_cache: dict[str, str]
    timeout_s: float
    kept_awake_by: Optional[str]
    api_key_used: bool


# The run as a whole.
Run = TypedDict("Run",
    {"started_at": str, "ended_at": str, "segments_count": int, "wall_s": float, "class": str,
    "run_jsonl_sha256": str, "manifest_sha256": str})
# A value with its source; the reason explains why it is unknown or differs.
Fact = TypedDict("Fact", {"value": Any, "source": Optional[str], "reason": Optional[str]})
# Where the models were served.
Endpoint = TypedDict("Endpoint", {"class": str, "same_machine": Fact, "engine": Engine})


class Summary(TypedDict):
    """Summary of n values in 6 significant digits; null if n is too small for a statistic."""
    n: int
    median: Optional[float]
    q1: Optional[float]
    q3: Optional[float]
    iqr: Optional[float]
    min: Optional[float]
    max: Optional[float]
    ci_low: Optional[float]
    ci_high: Optional[float]
    p90: Optional[float]
    p95: Optional[float]
    p99: Optional[float]


class ClientBound(TypedDict):
    """Whether the measuring client determined the numbers."""
    flagged: Optional[bool]
    reasons: list[str]
    error_p50_us: Optional[float]
    error_source: str
    ttft_us: Optional[float]
    decode_window_us: Optional[float]
    chunks_per_s: Optional[float]
    saturation_chunks_per_s: Optional[float]


Unstable = TypedDict("Unstable", {"flagged": Optional[bool], "iqr_ratio": Optional[float]})
Outliers = TypedDict("Outliers", {
    "flagged": Optional[bool], "count": Optional[int], "largest_sigmas": Optional[float]})
Verdicts = TypedDict("Verdicts", {
    "client_bound": ClientBound, "unstable": Unstable, "outliers": Outliers})


class Cell(TypedDict):
    """One model in one phase."""
    model: str
    phase: str
    lanes: int
    cold: bool
    across_prompts: bool
    planned: int
    ok: int
    failed: int
    outcomes: dict[str, int]
    left_out: dict[str, int]
    metrics: dict[str, Summary]
    output_tokens_source: Optional[str]
    cached_tokens_source: Optional[str]
    busy_window_ms: Optional[float]
    output_token_throughput_tokens_per_s: Optional[float]
    speedup_ratio: Optional[float]
    other_models_lanes_mean: Optional[float]
    checks: dict[str, int]
    null_reasons: dict[str, str]
    verdicts: Verdicts
    flags: list[str]


LanesHeadline = TypedDict("LanesHeadline", {
    "phase": str, "lanes_count": int, "output_token_throughput_tokens_per_s": Optional[float],
    "speedup_ratio": Optional[float]})
Energy = TypedDict("Energy", {
    "joules_per_output_token": Optional[float], "mean_power_w": Optional[float], "scope": str,
    "samples_count": int, "error_ratio": Optional[float]})
Memory = TypedDict("Memory", {
    "peak_card_bytes": Optional[int], "peak_process_bytes": Optional[int],
    "peak_swap_bytes": Optional[int]})


class Headline(TypedDict):
    """What tables show first of one model in one run; null where it was not measured."""
    model: str
    decode_tokens_per_s: Optional[Summary]
    ttft_ms: Optional[Summary]
    prompt_tokens: Optional[float]
    prefill_tokens_per_s: Optional[Summary]
    long_ttft_ms: Optional[Summary]
    long_prompt_tokens: Optional[float]
    lanes: Optional[LanesHeadline]
    drift_ratio: Optional[float]
    checks_passed: int
    checks_count: int
    energy: Optional[Energy]
    memory: Optional[Memory]
    draft_acceptance_ratio: Optional[float]
    load_s: Optional[float]
    server_decode_tokens_per_s: Optional[float]
    server_prefill_tokens_per_s: Optional[float]


Point = TypedDict("Point", {
    "at": float, "n": int, "value": Optional[float], "low": Optional[float],
    "high": Optional[float]})
Series = TypedDict("Series", {"metric": str, "points": list[Point]})
CurveStop = TypedDict("CurveStop", {"level": int, "kind": str, "reason": str})
CurveClient = TypedDict("CurveClient", {
    "level": int, "flagged": Optional[bool], "reasons": list[str], "error_p50_us": Optional[float],
    "chunks_per_s": Optional[float], "saturation_chunks_per_s": Optional[float]})


class Curve(TypedDict):
    """How the speed of one model changes with lanes (ramp) or with context (depth)."""
    model: str
    phase: str
    release: str
    axis: str
    series: list[Series]
    knee: Optional[int]
    slots_count: Optional[int]
    end: Optional[CurveStop]
    client: list[CurveClient]
    ok: int
    failed: int
    left_out: int
    checks: dict[str, int]


ReadLagSummary = TypedDict("ReadLagSummary", {
    "p50": Optional[float], "p99": Optional[float], "max": int, "n": int})


class Instrument(TypedDict):
    """The measuring client's own timing error."""
    stamp: Optional[str]
    clock_resolution_ns: Optional[int]
    lanes: Optional[list[Lane]]
    saturation: Optional[list[Saturation]]
    heartbeat_overshoot_us: Optional[Spread]
    reason: Optional[str]
    stamps: dict[str, int]
    read_lag_us: Optional[ReadLagSummary]


class Metadata(TypedDict):
    """What was measured, on what, and the results.

    Every number is computed from run.jsonl or has its source.
    """

    schema_version: Literal["1"]
    run_id: str
    harness_version: str
    submitter_handle: str
    device_tag: str
    synthetic: bool
    smoke: bool
    run: Run
    endpoint: Endpoint
    models: list[Json]
    runtime: dict[str, Fact]
    metrics_version: int
    cells: list[Cell]
    headlines: list[Headline]
    curves: list[Curve]
    run_flags: list[str]
    counts: dict[str, int]
    instrument: Instrument


LedgerLine = Union[
    RunStarted, RunResumed, MachineIdentified, InstrumentCalibrated, EndpointIdentified,
    ModelSkipped, PhaseSkipped, PhasesAdded, CallFinished, CurveEnded, CacheProbed, HostSampled,
    PhaseFinished, RunInterrupted, RunFinished]
