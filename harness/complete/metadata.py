"""metadata.json: what was served, and what came of it, as one pure function of the evidence.

`build` makes the document from manifest, ledger, hardware.json and what the contributor declared;
`declared_in` takes the declarations out of a document again. So a check builds the file a second
time, and what differs was not computed:

    build(manifest, events, sha256, hardware, declared_in(found)) == found

A value that is not plainly computed is {"value", "source", "reason"}. source: server, declared or
computed; a null value has a reason. Where the contributor says something else than the server told
or than was computed, `reason` keeps what that was.
"""
from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Optional, cast

from core import ledger, metrics, plan, schema
from core.records import Manifest
from engines import servers

Json = dict[str, Any]

Declared = Mapping[str, Any]     # {"runtime.backend": "cuda"}; None: the contributor takes it out
SCHEMA_VERSION = "1"
VALUE_KEYS = frozenset(("value", "source", "reason"))

WITHHELD = "taken out by the contributor"
UNTOLD = "the server does not tell it, and it was not declared"
UNDECLARED = "only the contributor knows it, and it was not declared"
NO_SIZE = "file_bytes or parameters_count is not known"
ODD_SIZE = "file_bytes and parameters_count do not fit together"
REASON_LIMIT = 200


# --- values --------------------------------------------------------------------------------------
def known(value: Any, source: str, reason: Optional[str] = None) -> Json:
    """A value with who says so."""
    return {"value": value, "source": source, "reason": reason}


def unknown(reason: str) -> Json:
    """No value, and why."""
    return {"value": None, "source": None, "reason": reason[:REASON_LIMIT]}


def told(value: Any, reason: str) -> Json:
    """What a server told, or why there is nothing; 0 and an empty text tell nothing."""
    return known(value, "server") if value else unknown(reason)


def is_value(item: Any) -> bool:
    """Whether this is a {"value", "source", "reason"}."""
    return isinstance(item, dict) and item.keys() == VALUE_KEYS


def values(document: Any, key: str = "") -> Iterator[tuple[str, Json]]:
    """(dotted key, value) of every value in a document: `models.0.quantization`."""
    if is_value(document):
        yield key, document
    elif isinstance(document, (dict, list)):
        inner = enumerate(document) if isinstance(document, list) else document.items()
        for name, held in inner:
            yield from values(held, f"{key}.{name}" if key else str(name))


def declared_in(document: Any) -> dict[str, Any]:
    """What the contributor said in a document: {dotted key: value, None where taken out}."""
    return {key: item["value"] for key, item in values(document)
            if item["source"] == "declared" or item["reason"] == WITHHELD}


def settled(told_value: Json, key: str, declared: Declared) -> Json:
    """A value after the contributor had a say."""
    if key not in declared:
        return told_value
    said, before = declared[key], told_value["value"]
    if said is None:
        return unknown(WITHHELD)
    if before is None:
        return known(said, "declared")
    if said == before and isinstance(said, bool) == isinstance(before, bool):
        return told_value
    who = "the server told" if told_value["source"] == "server" else "computed was"
    return known(said, "declared", f"{who} {schema.shown(before)}"[:REASON_LIMIT])


# --- the document --------------------------------------------------------------------------------
def build(manifest: Json, events: Sequence[Json], ledger_sha256: str, hardware: Json,
          declared: Declared) -> Json:
    """metadata.json. ledger_sha256: of run.jsonl's bytes; hardware: hardware.json, of which only
    the number of accelerators is used."""
    endpoint = endpoint_of(manifest, declared)
    runtime = _runtime(manifest, events, hardware, endpoint, declared)
    return {
        "schema_version": SCHEMA_VERSION,
        **{name: manifest[name] for name in ("run_id", "harness_version", "submitter_handle",
                                             "device_tag", "synthetic", "smoke")},
        "run": _run(manifest, events, ledger_sha256),
        "endpoint": {**endpoint, "engine": _engine(manifest, events)},
        "models": [_model(at, manifest, events, runtime, declared)
                   for at in range(len(manifest["models"]))],
        "runtime": runtime,
        **metrics.summarize_run(cast(Any, manifest), cast(Any, events))}


def _run(manifest: Json, events: Sequence[Json], ledger_sha256: str) -> Json:
    lasted_us: dict[int, int] = {}
    for event in events:
        lasted_us[event["segment"]] = max(event["t_us"], lasted_us.get(event["segment"], 0))
    return {"started_at": events[0]["at"], "ended_at": events[-1]["at"],
            "segments_count": len(lasted_us),
            "wall_s": metrics.round_sig(sum(lasted_us.values()) / 1e6),
            "class": run_class(manifest, events), "run_jsonl_sha256": ledger_sha256,
            "manifest_sha256": ledger.manifest_sha256(manifest),
            "host_name_removed": manifest["host_hostname_short"] is None
            and not manifest.get("hostname_omitted", True)}


def is_finished(events: Sequence[Json]) -> bool:
    """Whether a run reached its end, its last resume included."""
    return bool(events) and events[-1]["event"] == "run_finished"


def missing_cells(manifest: Json, events: Sequence[Json]) -> list[str]:
    """Planned cells that have no line."""
    asked = {event["cell_id"] for event in events if event["event"] == "call_finished"}
    return [cell.cell_id for cell in plan.all_cells(cast(Manifest, manifest)) if cell.cell_id not in asked]


def run_class(manifest: Json, events: Sequence[Json]) -> str:
    """complete, partial or smoke."""
    if not is_finished(events) or missing_cells(manifest, events):
        return "partial"
    return "smoke" if manifest["smoke"] else "complete"


def endpoint_of(manifest: Json, declared: Declared) -> Json:
    """The endpoint's class, and whether it is on the machine that made the run."""
    where = manifest["target"]["class"]
    same = known(where == "loopback", "computed")
    return {"class": where, "same_machine": settled(same, "endpoint.same_machine", declared)}


def _identified(events: Sequence[Json], model: Optional[str] = None) -> Json:
    """The last endpoint_identified, of one model or of any; empty where there is none."""
    return next((event for event in reversed(events) if event["event"] == "endpoint_identified"
                 and model in (None, event["model"])), {})


def _engine(manifest: Json, events: Sequence[Json]) -> Json:
    engine: Json = _identified(events).get("engine") or manifest["engine"]
    return dict(engine)


def _settle_all(definition: Json, prefix: str, found: Json, declared: Declared) -> Json:
    """Every value that a schema's object has, in its order; what is not in `found` only the
    contributor can tell."""
    return {name: settled(found.get(name) or unknown(UNDECLARED), f"{prefix}.{name}", declared)
            for name, field in definition["properties"].items() if name != "model"}


def _runtime(manifest: Json, events: Sequence[Json], hardware: Json, endpoint: Json,
             declared: Declared) -> Json:
    engine = _engine(manifest, events)
    name = None if engine["name"] == "unknown" else engine["name"]
    no_card = (endpoint["same_machine"]["value"] is True
               and hardware["accelerators_count"]["value"] == 0)
    found = {"name": told(name, UNTOLD),
             "version": told(engine["version"] or engine["build"], UNTOLD)}
    if declared.get("runtime.backend", "cpu" if no_card else None) == "cpu":
        found["accelerators_used_count"] = known(0, "computed")
    if no_card:
        found["backend"] = known("cpu", "computed")
    definition = schema.schema("metadata")["properties"]["runtime"]
    return _settle_all(definition, "runtime", found, declared)


def _model(at: int, manifest: Json, events: Sequence[Json], runtime: Json,
           declared: Declared) -> Json:
    model, prefix = manifest["models"][at], f"models.{at}"
    identified = _identified(events, model)
    facts, slots = identified.get("facts") or {}, identified.get("slots") or {}
    context: Json = identified.get("context") or next(
        (one for one in manifest["contexts"] if one["model"] == model), {})
    found = {name: told(facts.get(name), UNTOLD) for name in servers.FACT_NAMES}
    found["context_effective_tokens"] = told(context.get("effective_tokens"),
                                             context.get("reason") or UNTOLD)
    found["slots_count"] = told(slots.get("count"), UNTOLD)
    file_bytes, parameters = (settled(found[name], f"{prefix}.{name}", declared)
                              for name in ("file_bytes", "parameters_count"))
    found["bits_per_weight"] = _bits(file_bytes["value"], parameters["value"])
    if runtime["backend"]["value"] == "cpu":
        found["gpu_offload_ratio"] = known(0, "computed")
    definition = schema.schema("metadata")["properties"]["models"]["items"]
    return {"model": model, **_settle_all(definition, prefix, found, declared)}


def _bits(file_bytes: Optional[int], parameters: Optional[int]) -> Json:
    if not file_bytes or not parameters:
        return unknown(NO_SIZE)
    bits = metrics.round_sig(file_bytes * 8 / parameters)
    return known(bits, "computed") if bits and bits <= 64 else unknown(ODD_SIZE)
