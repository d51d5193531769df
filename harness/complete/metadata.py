"""Build metadata.json from the evidence: a pure function of the other files.

`build` takes the manifest, the ledger, hardware.json and the contributor's declarations.
`declared_in` reads the declarations back from a document, so that the check can rebuild the file
and compare:

    build(manifest, events, sha256, hardware, declared_in(document)) == document

Every value that is not computed from the ledger alone is {"value", "source", "reason"}. The source
is server, declared or computed. A null value has a reason. If a declared value differs from what
the server reported or the program computed, the reason keeps the original value.
"""
from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Optional, cast

from core import ledger, metric_definitions, metrics, plan, run_summary, schema
from core.records import EndpointIdentified, Fact, LedgerLine, Manifest, Metadata

Declared = Mapping[str, Any]     # {"runtime.backend": "cuda"}; None: withdrawn by the contributor
SCHEMA_VERSION = "1"
FACTS = schema.schema("ledger")["$defs"]["endpoint_identified"]["properties"]["facts"]

# Reasons. Merged submissions hold these texts: a change would make their metadata.json differ.
WITHHELD = "taken out by the contributor"
NOT_REPORTED = "the server does not report it, and it was not declared"
UNDECLARED = "only the contributor knows it, and it was not declared"
NO_SIZE = "file_bytes or parameters_count is not known"
IMPLAUSIBLE_SIZE = "file_bytes and parameters_count do not fit together"
REASON_LIMIT = 200
ORIGINS = {"server": "the server reported", "computed": "computed was",
           "probed": "the system reported"}


# --- values --------------------------------------------------------------------------------------
def known(value: Any, source: str, reason: Optional[str] = None) -> Fact:
    """A value with its source."""
    return {"value": value, "source": source, "reason": reason}


def unknown(reason: str) -> Fact:
    """A null value with its reason."""
    return {"value": None, "source": None, "reason": reason[:REASON_LIMIT]}


def reported(value: Any, reason: str = NOT_REPORTED) -> Fact:
    """A value that the server reported, or null with a reason; 0 and "" count as not reported."""
    return known(value, "server") if value else unknown(reason)


def is_value(item: Any) -> bool:
    """True for a {"value", "source", "reason"}."""
    return isinstance(item, dict) and item.keys() == Fact.__annotations__.keys()


def values(document: Any, key: str = "") -> Iterator[tuple[str, Fact]]:
    """(dotted key, value) of every value in a document: `models.0.quantization`."""
    if is_value(document):
        yield key, document
    elif isinstance(document, (dict, list)):
        items = enumerate(document) if isinstance(document, list) else document.items()
        for name, item in items:
            if isinstance(item, (dict, list)):
                yield from values(item, f"{key}.{name}" if key else str(name))


def declared_in(document: Any) -> dict[str, Any]:
    """The contributor's declarations in a document: {dotted key: value, None if withdrawn}."""
    return {key: item["value"] for key, item in values(document)
            if item["source"] == "declared" or item["reason"] == WITHHELD}


def apply_declared(found: Fact, key: str, declared: Declared) -> Fact:
    """A reported or computed value, replaced by the contributor's declaration if there is one."""
    if key not in declared:
        return found
    value, original = declared[key], found["value"]
    if value is None:
        return unknown(WITHHELD)
    if original is None:
        return known(value, "declared")
    if value == original and isinstance(value, bool) == isinstance(original, bool):
        return found
    origin = ORIGINS[found["source"] or "computed"]
    return known(value, "declared", f"{origin} {schema.shown(original)}"[:REASON_LIMIT])


# --- the document --------------------------------------------------------------------------------
def build(manifest: Manifest, events: Sequence[LedgerLine], ledger_sha256: str,
          hardware: Mapping[str, Any], declared: Declared) -> Metadata:
    """metadata.json. ledger_sha256: of the bytes of run.jsonl. hardware: hardware.json, of which
    only the number of accelerators is used."""
    endpoint = endpoint_of(manifest, declared)
    runtime = _runtime(manifest, events, hardware, endpoint["same_machine"], declared)
    models = [_model(at, manifest, events, runtime, declared)
              for at in range(len(manifest["models"]))]
    slots = {str(model["model"]): model["slots_count"]["value"] for model in models}
    return cast(Metadata, {
        "schema_version": SCHEMA_VERSION, "run_id": manifest["run_id"],
        "harness_version": manifest["harness_version"],
        "submitter_handle": manifest["submitter_handle"], "device_tag": manifest["device_tag"],
        "synthetic": manifest["synthetic"], "smoke": manifest["smoke"],
        "run": _run(manifest, events, ledger_sha256),
        "endpoint": {**endpoint, "engine": _engine(manifest, events)},
        "models": models,
        "runtime": runtime,
        "metrics_version": metric_definitions.METRICS_VERSION,
        **run_summary.summarize_run(manifest, events, slots)})


def _run(manifest: Manifest, events: Sequence[LedgerLine], ledger_sha256: str) -> dict[str, Any]:
    segment_us: dict[int, int] = {}
    for event in events:
        segment_us[event["segment"]] = max(event["t_us"], segment_us.get(event["segment"], 0))
    return {
        "started_at": events[0]["at"], "ended_at": events[-1]["at"],
        "segments_count": len(segment_us),
        "wall_s": metrics.round_sig(sum(segment_us.values()) / 1e6),
        "class": run_class(manifest, events), "run_jsonl_sha256": ledger_sha256,
        "manifest_sha256": ledger.manifest_sha256(manifest)}


def missing_cells(manifest: Manifest, events: Sequence[LedgerLine]) -> list[str]:
    """Ids of planned calls that the ledger does not hold."""
    recorded = {event["cell_id"] for event in events if event["event"] == "call_finished"}
    ends = {(event["model"], event["phase"]): event["level"] for event in events
            if event["event"] == "curve_ended"}
    return [cell.cell_id for cell in plan.all_cells(plan.extended(manifest, events))
            if cell.cell_id not in recorded
            and (cell.level or 0) < ends.get((cell.model, cell.phase), float("inf"))]


def run_class(manifest: Manifest, events: Sequence[LedgerLine]) -> str:
    """complete, partial or smoke."""
    if not events or events[-1]["event"] != "run_finished" or missing_cells(manifest, events):
        return "partial"
    return "smoke" if manifest["smoke"] else "complete"


def endpoint_of(manifest: Manifest, declared: Declared) -> dict[str, Any]:
    """The endpoint's class, and whether it is on the machine that ran the harness."""
    target = manifest["target"]["class"]
    same = known(target == "loopback", "computed")
    return {"class": target,
            "same_machine": apply_declared(same, "endpoint.same_machine", declared)}


def _identified(events: Sequence[LedgerLine],
                model: Optional[str] = None) -> Optional[EndpointIdentified]:
    """The last endpoint_identified of one model, or of any."""
    return next((event for event in reversed(events) if event["event"] == "endpoint_identified"
                 and model in (None, event["model"])), None)


def _engine(manifest: Manifest, events: Sequence[LedgerLine]) -> Any:
    identified = _identified(events)
    return identified["engine"] if identified else manifest["engine"]


def _with_declared(part: str, prefix: str, found: Mapping[str, Fact],
                   declared: Declared) -> dict[str, Fact]:
    """Every value of a part of the schema, in its order; what is not found has to be declared. A
    value that the schema does not require is there only if it is found or declared."""
    node = schema.schema("metadata")["properties"][part]
    node = node.get("items", node)
    return {name: apply_declared(found.get(name) or unknown(UNDECLARED), f"{prefix}.{name}",
                                 declared)
            for name in node["properties"] if name != "model"
            and (name in node["required"] or name in found or f"{prefix}.{name}" in declared)}


def _runtime(manifest: Manifest, events: Sequence[LedgerLine], hardware: Mapping[str, Any],
             same_machine: Fact, declared: Declared) -> dict[str, Fact]:
    engine = _engine(manifest, events)
    no_accelerator = (same_machine["value"] is True
                      and hardware["accelerators_count"]["value"] == 0)
    found = {"name": reported(None if engine["name"] == "unknown" else engine["name"]),
             "version": reported(engine["version"] or engine["build"])}
    # One set of values describes the runtime: those on which all models agree.
    identified = [_identified(events, model) for model in manifest["models"]]
    facts: list[Any] = [one["facts"] if one else {} for one in identified]
    for name in ("flash_attention", "kv_cache_type", "kv_cache_offloaded", "batch_tokens",
                 "accelerators_used_count"):
        reported_values = {one.get(name) for one in facts}
        if len(reported_values) == 1 and None not in reported_values:
            found[name] = known(reported_values.pop(), "server")
    if declared.get("runtime.backend", "cpu" if no_accelerator else None) == "cpu":
        found["accelerators_used_count"] = known(0, "computed")
    if no_accelerator:
        found["backend"] = known("cpu", "computed")
    return _with_declared("runtime", "runtime", found, declared)


def _model(at: int, manifest: Manifest, events: Sequence[LedgerLine],
           runtime: Mapping[str, Fact], declared: Declared) -> dict[str, Any]:
    model, prefix = manifest["models"][at], f"models.{at}"
    identified: Any = _identified(events, model) or {}
    facts, slots = identified.get("facts") or {}, identified.get("slots") or {}
    contexts: list[Any] = [one for one in manifest["contexts"] if one["model"] == model]
    context = identified.get("context") or (contexts[0] if contexts else {})
    found = {name: reported(facts.get(name)) for name in FACTS["properties"]
             if name in FACTS["required"] or facts.get(name) is not None}
    if facts.get("gpu_offload_ratio") is not None:
        found["gpu_offload_ratio"] = known(facts["gpu_offload_ratio"], "server")     # 0 is a value
    found["context_effective_tokens"] = reported(context.get("effective_tokens"),
                                                 context.get("reason") or NOT_REPORTED)
    found["slots_count"] = reported(slots.get("count"))
    file_bytes, parameters = (apply_declared(found[name], f"{prefix}.{name}", declared)["value"]
                              for name in ("file_bytes", "parameters_count"))
    if facts.get("speculative") == "none":
        found["draft_model"] = known(found.pop("speculative")["value"], "server")
    header = [facts.get(f"gguf_{part}") for part in ("basename", "size_label", "finetune",
                                                     "version")]
    if header[0] and header[1]:
        found["name"] = known(" ".join(filter(None, header)), "server")
    found.setdefault("bits_per_weight", unknown(NO_SIZE))
    if file_bytes and parameters:
        bits = metrics.round_sig(file_bytes * 8 / parameters)
        found["bits_per_weight"] = (known(bits, "computed") if bits and bits <= 64
                                    else unknown(IMPLAUSIBLE_SIZE))
    if runtime["backend"]["value"] == "cpu":
        found["gpu_offload_ratio"] = known(0, "computed")
    return {"model": model, **_with_declared("models", prefix, found, declared)}
