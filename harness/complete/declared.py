"""Values the contributor can declare with --set.

A key is a file's name and a path in it: `hardware.memory.type`, `metadata.models.0.quantization`.
The schemas describe every value. A value that is worth asking for has an example there, and its
description says after "; see" where to find it.
"""
from __future__ import annotations

import copy
import difflib
import functools
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple, Optional

from complete import metadata
from core import schema
from core.errors import HarnessError
from core.names import is_generic_model
from core.records import Fact, LedgerLine, Manifest, Metadata
from core.text import printable

MAX_ACCELERATORS = schema.schema("hardware")["properties"]["accelerators"]["maxItems"]

# Merged submissions hold this text.
REMOTE = "the server ran on another machine, which was not probed"
# Placeholders. Null with a reason is better.
FILLERS = frozenset(("", "?", "-", "n/a", "na", "tbd", "todo", "unknown", "value", "text", "name",
                     "xxx", "..."))

# Settings that the server's launch flags contain: not asked for once the flags are known.
FLAG_SETTINGS = frozenset(("flash_attention", "kv_cache_type", "batch_tokens",
                           "micro_batch_tokens", "draft_model"))
# Mixtures of experts show it in their names (30B-A3B, 8x7B); other models are dense.
MIXTURE = re.compile(r"(?:^|[-_])a\d+(?:\.\d+)?b|\d+x\d+b|moe|mixtral|gpt-oss", re.IGNORECASE)
# A virtual machine does not know its host's memory modules.
PHYSICAL_MEMORY = frozenset(("type", "speed_mts", "channels_count",
                             "bandwidth_theoretical_gb_per_s"))


class MissingValue(NamedTuple):
    """A value that is null and worth asking for. short: the key as --set takes it, too; important:
    without the value the run is not ranked."""

    key: str
    short: str
    example: str
    what: str
    where: str
    accepts: str
    important: bool

    def option(self, text: str = "") -> tuple[str, str]:
        """The words that declare the value; --set refuses an empty one."""
        return "--set", f"{self.short}={text}"


# --- keys ----------------------------------------------------------------------------------------
def field(key: str) -> dict[str, Any]:
    """A key's node in its schema, with its description."""
    name, *parts = key.split(".")
    node = schema.schema(name)
    for part in parts:
        node = node["items"] if part.isdigit() else node["properties"][part]
    return node


def _definition(key: str) -> str:
    return str(field(key)["$ref"].rpartition("/")[2])


def _value_schema(key: str) -> Any:
    definition = schema.schema(key.split(".")[0])["$defs"][_definition(key)]
    return definition["anyOf"][0]["properties"]["value"]


def _keys_below(name: str, node: Mapping[str, Any], key: str, models: int) -> Iterator[str]:
    definition = schema.schema(name)["$defs"].get(node.get("$ref", "").rpartition("/")[2], {})
    value = definition.get("anyOf", [{}])[0]
    if value.get("properties", {}).keys() == Fact.__annotations__.keys():
        yield key
    for part, child in node.get("properties", {}).items():
        yield from _keys_below(name, child, f"{key}.{part}", models)
    if "items" in node:
        for at in range(models if name == "metadata" else MAX_ACCELERATORS):
            yield from _keys_below(name, node["items"], f"{key}.{at}", models)


@functools.cache
def all_keys(models: int) -> tuple[str, ...]:
    """Every key that --set takes for a run of `models` models."""
    return tuple(key for name in ("hardware", "metadata")
                 for key in _keys_below(name, schema.schema(name), name, models))


def full_key(key: str, models: int) -> str:
    """The key that a key or the end of one stands for. Raises HarnessError for any other text, with
    the keys that look like it."""
    keys = all_keys(models)
    key = re.sub(r"^model\.", "models.0.", key)
    near = [one for one in keys if f".{one}".endswith(f".{key}")]
    if key in keys or len(near) == 1:
        return key if key in keys else near[0]
    part = (key.split(".") + [""])[1]
    if key.startswith("metadata.") and part in schema.schema("metadata")["properties"] and not any(
            one.startswith(f"metadata.{part}.") for one in keys):
        raise HarnessError(f"--set {printable(key)}: this is computed from the run and cannot be "
                           "set")
    if near:
        raise HarnessError(f"--set {printable(key)}: several values end like this; type "
                           f"{' or '.join(near[:4])}")
    ends = {".".join(one.split(".")[at:]): one for one in reversed(keys)
            for at in range(one.count(".") + 1)}
    near = list(dict.fromkeys(ends[end] for end in difflib.get_close_matches(key, ends, 3, 0.5)))
    hint = (f"did you mean {' or '.join(near)}?" if near else
            "type a whole key, such as hardware.memory.type or metadata.runtime.backend")
    raise HarnessError(f"--set {printable(key)}: there is no such value; {hint}")


@functools.cache
def short_key(key: str, models: int) -> str:
    """The shortest end of a key that no other key has, in hardware.json with its part of the file:
    `quantization`, `memory.type`."""
    file, *parts = key.split(".")
    starts = [0] if file == "hardware" else [
        at for at in reversed(range(len(parts))) if not parts[at].isdigit()]
    ends = [*(".".join(parts[at:]) for at in starts), key]
    return next(end for end in ends
                if sum(f".{one}".endswith(f".{end}") for one in all_keys(models)) == 1)


# --- values --------------------------------------------------------------------------------------
def accepted(key: str) -> str:
    """What a key accepts: `a whole number from 1`."""
    wanted = _value_schema(key)
    if "enum" in wanted:
        return f"one of {', '.join(wanted['enum'])}"
    if wanted["type"] == "string":
        limit = f", at most {wanted['maxLength']} characters" if "maxLength" in wanted else ""
        return "lower-case letters, digits and _" if "pattern" in wanted else f"text{limit}"
    low, high = wanted.get("minimum", wanted.get("exclusiveMinimum")), wanted.get("maximum")
    bounds = "" if low is None else f" from {low}"
    if bounds and high is not None and high < schema.LARGEST_INT:
        bounds += f" to {high}"
    return {"integer": f"a whole number{bounds}", "number": f"a number{bounds}",
            "boolean": "true or false", "array": "words separated by commas"}[wanted["type"]]


def parse(key: str, text: str) -> Any:
    """The value that a text stands for; None for `null`. Raises HarnessError."""
    if text == "null":
        return None
    value = _typed(_value_schema(key).get("type", "string"), text)
    option = f"--set {key}={printable(text, 80)}"
    if value is None or not is_valid(key, value):
        example = field(key).get("examples", [None])[0]
        such = f", such as {example}" if type(example) in (int, float) else ""
        raise HarnessError(f"{option}: not valid; type {accepted(key)}{such}, or null")
    if isinstance(value, str) and (value != value.strip() or not value.isprintable()
                                   or value.lower() in FILLERS):
        raise HarnessError(f"{option}: not valid; type printable text and no placeholder, or null")
    return value


def is_valid(key: str, value: Any) -> bool:
    """Whether a value is what a key accepts; null always is."""
    return value is None or not schema.validate(
        metadata.known(value, "declared"), key.split(".")[0], _definition(key))


def _typed(kind: str, text: str) -> Any:
    """Text as a value of a JSON type, or None."""
    if kind == "boolean":
        return {"true": True, "false": False}.get(text)
    if kind == "integer":
        return int(text) if re.fullmatch(r"[0-9]{1,15}", text) else None
    if kind == "number":
        is_number = re.fullmatch(r"[0-9]{1,15}(\.[0-9]{1,15})?([eE][+-]?[0-9]{1,3})?", text)
        value = float(text) if is_number else math.inf
        return value if math.isfinite(value) else None
    return [word.strip() for word in text.split(",")] if kind == "array" else text


def of_file(declared: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The declarations for one file, their keys without the file's name."""
    return {key.partition(".")[2]: value for key, value in declared.items()
            if key.startswith(name + ".")}


def merge(earlier: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """Declarations for metadata.json. A null withdraws an earlier declaration, or else
    removes what the server reported."""
    merged = dict(earlier)
    for key, value in new.items():
        if value is None and merged.get(key) is not None:
            del merged[key]
        else:
            merged[key] = value
    return merged


# --- hardware.json -------------------------------------------------------------------------------
def remote_hardware(python: Mapping[str, str]) -> dict[str, Any]:
    """hardware.json of a server on another machine: only the harness's Python is known."""
    document: dict[str, Any] = {}
    for name, node in schema.schema("hardware")["properties"].items():
        document[name] = {field_name: metadata.unknown(REMOTE)
                          for field_name in node.get("required", ())}
    return {**document, "schema_version": metadata.SCHEMA_VERSION,
            "python": {name: metadata.known(value, "probed") for name, value in python.items()},
            "accelerators_count": metadata.unknown(REMOTE), "accelerators": []}


def records_hardware(manifest: Manifest) -> bool:
    """Whether a run records its machine if the server is on it. Earlier versions, which did not pin
    the inventory, do not."""
    return "harness/machine/inventory.py" in manifest["files_sha256"]


def recorded_hardware(manifest: Manifest, events: Iterable[LedgerLine],
                      is_local: bool) -> Optional[dict[str, Any]]:
    """hardware.json without declarations, as a run has recorded it; None if it did not. is_local:
    whether the server is on the machine of the run."""
    if not is_local:
        return remote_hardware(manifest["python"])
    return next((event["hardware"] for event in events
                 if event["event"] == "machine_identified"), None)


def declare(document: Mapping[str, Any], declared: Mapping[str, Any]) -> dict[str, Any]:
    """hardware.json with declared values, {"memory.type": "DDR5"}; a null removes a probed value.
    Raises HarnessError."""
    changed = copy.deepcopy(dict(document))
    cards = changed["accelerators"]
    for key in declared:
        *parents, name = key.split(".")
        if parents and parents[0] == "accelerators":
            fields = schema.schema("hardware")["properties"]["accelerators"]["items"]["properties"]
            while len(cards) <= int(parents[1]):
                cards.append({one: metadata.unknown(metadata.UNDECLARED) for one in fields})
            parent = cards[int(parents[1])]
        else:
            parent = changed[parents[0]] if parents else changed
        parent[name] = metadata.apply_declared(_reported(parent.get(name)), key, declared)
    found_count = len(document["accelerators"])
    while len(cards) > found_count and all(item["value"] is None for item in cards[-1].values()):
        cards.pop()
    for at, card in enumerate(cards[found_count:], found_count):
        if all(item["value"] is None for item in card.values()):
            raise HarnessError(f"hardware.accelerators.{at} has no value; number the accelerators "
                               "from 0, without gaps")
    count = declared.get("accelerators_count")
    if count is not None and count < len(cards):
        raise HarnessError(f"--set hardware.accelerators_count={count}: {len(cards)} are listed; "
                           "declared ones go if all of their values are null")
    if len(cards) > (changed["accelerators_count"]["value"] or 0):
        changed["accelerators_count"] = metadata.apply_declared(
            _reported(document["accelerators_count"]), "", {"": len(cards)})
    return changed


def _reported(found: Optional[Fact]) -> Fact:
    """A value unless it was declared, as in hardware.json of a run that recorded no machine."""
    return metadata.unknown(metadata.UNDECLARED) if found is None \
        or found["source"] == "declared" else found


# --- what is missing -----------------------------------------------------------------------------
def all_values(document: Metadata, hardware: Mapping[str, Any]) -> dict[str, Fact]:
    """{key: value} of metadata.json and hardware.json."""
    return {f"{name}.{key}": item for name, held in (("hardware", hardware), ("metadata", document))
            for key, item in metadata.values(held)}


def important_keys(document: Metadata, hardware: Mapping[str, Any]) -> list[str]:
    """Keys of the null values that distinguish machines and models. None for a rehearsal, which is
    not compared, nor for a public endpoint, whose machine cannot be verified."""
    if document["synthetic"] or document["endpoint"]["class"] == "public":
        return []
    cards = max(hardware["accelerators_count"]["value"] or 0, len(hardware["accelerators"]))
    wanted = ["hardware.cpu.model_name", "hardware.memory.capacity_bytes",
              "hardware.accelerators_count",
              *(f"hardware.accelerators.{at}.model_name"
                for at in range(min(cards, MAX_ACCELERATORS))),
              "metadata.runtime.name", "metadata.runtime.version", "metadata.runtime.backend"]
    for at in range(len(document["models"])):
        wanted.append(f"metadata.models.{at}.quantization")
        if document["runtime"]["backend"]["value"] != "cpu":
            wanted.append(f"metadata.models.{at}.gpu_offload_ratio")
    values = all_values(document, hardware)
    for at, model in enumerate(document["models"]):
        if all(is_generic_model(name) for name in (
                model["model"], *(values[f"metadata.models.{at}.{key}"]["value"]
                                  for key in ("source_repository", "file_name"))) if name):
            wanted.append(f"metadata.models.{at}.name")
    return [key for key in wanted if key not in values or values[key]["value"] is None]


def missing_values(document: Metadata, hardware: Mapping[str, Any],
                   flags_known: bool = False) -> list[MissingValue]:
    """Every null value worth asking for, the important ones first. flags_known: the server's launch
    flags were read from its process. Declared flags count, too."""
    important = important_keys(document, hardware)
    flags_known |= document["runtime"]["launch_flags"]["value"] is not None
    others = [key for key, item in all_values(document, hardware).items()
              if item["value"] is None and item["reason"] != metadata.WITHHELD
              and key not in important and _is_worth_asking(key, document, hardware, flags_known)]
    models = len(document["models"])
    found = []
    for key in [*important, *others]:
        what, _, where = field(key)["description"].rstrip(".").partition("; see ")
        if key == "metadata.runtime.version" and \
                document["runtime"]["name"]["value"] == "llama.cpp":      # others report it
            where = "this build does not know it; the package or release it came from"
        example = field(key)["examples"][0]
        found.append(MissingValue(
            key, short_key(key, models), example if isinstance(example, str) else
            json.dumps(example), what, where, accepted(key), key in important))
    return found


def _is_worth_asking(key: str, document: Metadata, hardware: Mapping[str, Any],
                     flags_known: bool) -> bool:
    """False for what does not apply, cannot be found, or follows from other values."""
    name = key.rpartition(".")[2]
    if key == "hardware.memory.unified" and hardware["accelerators_count"]["value"] == 0:
        return False
    if key.startswith("hardware."):
        is_guest = hardware["system"]["kind"]["value"] == "vm"
        return "examples" in field(key) and not (
            is_guest and key.startswith("hardware.memory.") and name in PHYSICAL_MEMORY)
    if name == "active_parameters_count":
        return bool(MIXTURE.search(document["models"][int(key.split(".")[2])]["model"]))
    return name != "bits_per_weight" and not (flags_known and name in FLAG_SETTINGS)
