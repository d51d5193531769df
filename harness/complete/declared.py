"""What only the contributor can tell: every value that can be set, what it takes, where to look.

A value is named by file and place: `hardware.memory.type`, `metadata.models.0.quantization`; the
end of such a key is enough where no other key ends so. What a value is and how it is found stands
in the schemas' descriptions; for hardware.json, which is mostly probed, LOOK says where to look.

    resolve, parse      `backend=cuda` -> ("metadata.runtime.backend", "cuda")
    declare             hardware.json with declared values in it
    important, asks     what is missing for a ranking, and everything worth asking for
"""
from __future__ import annotations

import copy
import difflib
import functools
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from core import schema
from core.errors import HarnessError
from core.text import printable
from machine import inventory

from complete import metadata

Json = dict[str, Any]

MAX_ACCELERATORS = 64            # as in the schema
SHOWN_KEYS = 6
HOST_NAME = "host_hostname_short"

REMOTE = "the server ran on another machine, which was not looked at"
PRIVATE = "left out, since it held something private"
TAKEN_BACK = "declared at first, and taken back"
# Words that stand for not knowing. An empty field is better: it says so, and why.
FILLERS = frozenset(("", "?", "-", "n/a", "na", "tbd", "todo", "unknown", "xxx", "..."))

# Settings that stand among the server's flags or nowhere: whoever knows these need not be asked.
SETTINGS = frozenset(("flash_attention", "kv_cache_type", "batch_tokens", "micro_batch_tokens",
                      "draft_model"))
# A mixture of experts says so in its name (30B-A3B, 8x7B); of other models it is not asked.
MIXTURE = re.compile(r"(?:^|[-_])a\d+(?:\.\d+)?b|\d+x\d+b|moe|mixtral|gpt-oss", re.IGNORECASE)
# A guest is not told what its memory is made of.
OF_REAL_MEMORY = frozenset(("hardware.memory.type", "hardware.memory.speed_mts",
                            "hardware.memory.channels_count",
                            "hardware.memory.bandwidth_theoretical_gb_per_s"))

# Where a person finds what the system did not tell; only these of hardware.json are asked for.
LOOK = {
    "system.kind": "what it is; of a rented machine, vm",
    "system.model_name": "its case or its shop's page; of a rented machine, the type it is let as",
    "system.virtualization": "none, or the hypervisor",
    "cpu.model_name": "lscpu, or the system's own information page",
    "memory.capacity_bytes": "free -b, or the system's own information page",
    "memory.type": "sudo dmidecode -t memory (Type), or the machine's data sheet",
    "memory.speed_mts": "sudo dmidecode -t memory (Configured Memory Speed)",
    "memory.channels_count": "sudo dmidecode -t memory (Locator), or the mainboard's manual",
    "memory.bandwidth_theoretical_gb_per_s": "the data sheet, or speed_mts x 8 bytes x channels",
    "memory.unified": "true on Apple silicon and on chips whose GPU has no memory of its own",
    "os.name": "the system's own information page",
    "accelerators_count": "0 where there is none",
    "accelerators.*.model_name": "nvidia-smi, rocm-smi, or the system's own information page",
    "accelerators.*.memory_bytes": "nvidia-smi, rocm-smi, or the card's data sheet",
    "accelerators.*.memory_bandwidth_gb_per_s": "the card's data sheet",
    "accelerators.*.driver_version": "nvidia-smi, rocm-smi, or the driver's own panel",
    "accelerators.*.compute_api": "nvidia-smi (CUDA Version), or the runtime's log",
    "accelerators.*.power_limit_w": "nvidia-smi -q -d POWER",
}


class Ask(NamedTuple):
    """One value that nobody has told yet. important: without it the run is not ranked."""

    key: str
    what: str
    how: str
    takes: str
    important: bool

    @property
    def form(self) -> str:
        """What to type."""
        return f"--set {self.key}=VALUE"


# --- keys ----------------------------------------------------------------------------------------
def field(key: str) -> Json:
    """A key's place in its schema: what it is in words, and where its form stands."""
    name, *parts = key.split(".")
    node = schema.schema(name)
    for part in parts:
        node = node["items"] if part.isdigit() else node["properties"][part]
    return node


def form(key: str) -> Json:
    """The schema of the bare value that a key takes."""
    name = field(key)["$ref"].rpartition("/")[2]
    found: Json = schema.schema(key.split(".")[0])["$defs"][name]
    return dict(found["anyOf"][0]["properties"]["value"])


def _is_form(definition: Json) -> bool:
    branches = definition.get("anyOf", [{}])
    return set(branches[0].get("properties", {})) == metadata.VALUE_KEYS


def _keys_below(name: str, node: Json, key: str, models: int) -> Iterable[str]:
    """Keys of all values below a place of a schema."""
    reference = node.get("$ref", "").rpartition("/")[2]
    if reference and _is_form(schema.schema(name)["$defs"][reference]):
        yield key
    for part, held in node.get("properties", {}).items():
        yield from _keys_below(name, held, f"{key}.{part}", models)
    if "items" in node:
        count = models if name == "metadata" else MAX_ACCELERATORS
        for at in range(count):
            yield from _keys_below(name, node["items"], f"{key}.{at}", models)


@functools.cache
def all_keys(models: int) -> tuple[str, ...]:
    """Every key that can be set in a run of so many models."""
    return tuple(key for name in ("hardware", "metadata")
                 for key in _keys_below(name, schema.schema(name), name, models))


def resolve(typed: str, models: int) -> str:
    """The one key that `typed` means, whole or by its end; raises Stop."""
    keys = all_keys(models)
    found = [key for key in keys if key == typed or key.endswith("." + typed)]
    if typed in found or len(found) == 1:
        return typed if typed in found else found[0]
    shown = printable(typed)
    if found:
        raise HarnessError(f"--set {shown}: several values end so ({_some(found)}); type more of the key")
    name, _, rest = typed.partition(".")
    if name == "metadata" and rest.partition(".")[0] in schema.schema(name)["properties"]:
        raise HarnessError(f"--set {shown}: that is computed from the run and cannot be set")
    ends = {".".join(key.split(".")[at:]): key for key in keys for at in range(key.count(".") + 1)}
    near = [ends[end] for end in difflib.get_close_matches(typed, ends, 3, 0.5)]
    hint = f"; did you mean {_some(dict.fromkeys(near))}?" if near else ""
    raise HarnessError(f"--set {shown}: there is no such value{hint or '; harness/schemas name them all'}")


def _some(keys: Iterable[str]) -> str:
    shown = list(keys)
    more = f" and {len(shown) - SHOWN_KEYS} more" if len(shown) > SHOWN_KEYS else ""
    return ", ".join(shown[:SHOWN_KEYS]) + more


# --- values --------------------------------------------------------------------------------------
def takes(key: str) -> str:
    """What a key takes, in words."""
    wanted = form(key)
    if "enum" in wanted:
        return f"one of {', '.join(wanted['enum'])}"
    if wanted["type"] == "string":
        limit = f", at most {wanted['maxLength']} characters" if "maxLength" in wanted else ""
        return f"text{limit}" if "pattern" not in wanted else "small letters, digits and _"
    low, high = wanted.get("minimum", wanted.get("exclusiveMinimum")), wanted.get("maximum")
    bounds = "" if low is None else f" from {low}" + (
        f" to {high}" if high is not None and high < schema.LARGEST_INT else "")
    return {"integer": f"a whole number{bounds}", "number": f"a number{bounds}",
            "boolean": "true or false", "array": "words with commas between"}[wanted["type"]]


def parse(key: str, text: str) -> Any:
    """The value that a key gets; None for `null`. Raises Stop."""
    if text == "null":
        return None
    wanted = form(key)
    value = _typed(wanted.get("type", "string"), text)
    definition = field(key)["$ref"].rpartition("/")[2]
    wrong = value is None or schema.validate(metadata.known(value, "declared"), key.split(".")[0],
                                             definition)
    if wrong:
        raise HarnessError(f"--set {key}={printable(text, 80)}: it takes {takes(key)}, or null")
    if isinstance(value, str) and (value.strip().lower() in FILLERS or value != value.strip()
                                   or not value.isprintable()):
        raise HarnessError(f"--set {key}={printable(text, 80)}: say it in plain printable text, or leave "
                   "it out; a stand-in says less than nothing")
    return value


def _typed(kind: str, text: str) -> Any:
    """Text as a value of a JSON type; None where it is none."""
    if kind == "boolean":
        return {"true": True, "false": False}.get(text)
    if kind == "integer":
        return int(text) if re.fullmatch(r"[0-9]{1,15}", text) else None
    if kind == "number":
        plain = re.fullmatch(r"[0-9]{1,15}(\.[0-9]{1,15})?([eE][+-]?[0-9]{1,3})?", text)
        value = float(text) if plain else math.inf
        return value if math.isfinite(value) else None
    return [word.strip() for word in text.split(",")] if kind == "array" else text


def of_file(said: Mapping[str, Any], name: str) -> dict[str, Any]:
    """What was said of one file, its keys without the file's name."""
    return {key.partition(".")[2]: value for key, value in said.items()
            if key.startswith(name + ".")}


def add(declared: Mapping[str, Any], said: Mapping[str, Any]) -> dict[str, Any]:
    """Declarations of metadata.json after new ones: null takes back what was declared; where
    nothing was, it takes out what the server told."""
    made = dict(declared)
    for key, value in said.items():
        if value is None and made.get(key) is not None:
            del made[key]
        else:
            made[key] = value
    return made


# --- hardware.json -------------------------------------------------------------------------------
def elsewhere(python: Mapping[str, str]) -> Json:
    """hardware.json of a server on another machine: nothing is known but the harness's Python."""
    blank = inventory.assemble({"python": dict(python)})
    for key, item in metadata.values(blank):
        if not key.startswith("python."):
            item.update(metadata.unknown(REMOTE))
    return blank


def declare(document: Json, said: Mapping[str, Any]) -> Json:
    """hardware.json with values said of it, {"memory.type": "DDR5"}; None takes one out, or back
    where it was declared. Raises Stop."""
    made = copy.deepcopy(document)
    for key, value in said.items():
        _put(made, key.split("."), value)
    cards = made["accelerators"]
    while cards and all(item["value"] is None for item in cards[-1].values()):
        cards.pop()
    for at, card in enumerate(cards):
        if all(item["value"] is None for item in card.values()):
            raise HarnessError(f"hardware.accelerators.{at}: nothing is said of it; number them from 0")
    _count(made, said)
    return made


def _put(document: Json, path: list[str], value: Any) -> None:
    held: Any = document
    if path[0] == "accelerators":
        held = document["accelerators"]
        while len(held) <= int(path[1]):
            held.append({name: metadata.unknown(why)
                         for name, why in inventory.ACCELERATOR_FIELDS.items()})
        held = held[int(path[1])]
    elif len(path) > 1:
        held = document[path[0]]
    before = held[path[-1]]
    if value is not None:
        held[path[-1]] = metadata.known(value, "declared")
    elif before["source"] == "declared":
        held[path[-1]] = metadata.unknown(TAKEN_BACK)
    else:
        held[path[-1]] = metadata.unknown(metadata.WITHHELD)


def _count(document: Json, said: Mapping[str, Any]) -> None:
    """As many accelerators as are listed at least, since each listed one is counted."""
    listed, count = len(document["accelerators"]), document["accelerators_count"]
    if said.get("accelerators_count") is not None and said["accelerators_count"] < listed:
        raise HarnessError(f"--set hardware.accelerators_count={said['accelerators_count']}: {listed} are "
                   "listed; take the values of the last one out with null first")
    if listed > (count["value"] or 0):
        document["accelerators_count"] = metadata.known(listed, "declared")


# --- what is missing -----------------------------------------------------------------------------
def important(found: Json, machine: Json) -> list[str]:
    """Keys of the values that a ranking needs and that are null. found: metadata.json; machine:
    hardware.json.

    None of a synthetic run, which is not ranked, nor of a public endpoint: whose machine that is
    cannot be known, so it is not ranked among machines either.
    """
    if found["synthetic"] or found["endpoint"]["class"] == "public":
        return []
    cards = range(max(machine["accelerators_count"]["value"] or 0, len(machine["accelerators"])))
    wanted = ["hardware.cpu.model_name", "hardware.memory.capacity_bytes",
              "hardware.accelerators_count",
              *(f"hardware.accelerators.{at}.model_name" for at in cards if at < MAX_ACCELERATORS),
              "metadata.runtime.name", "metadata.runtime.version", "metadata.runtime.backend"]
    for at in range(len(found["models"])):
        wanted.append(f"metadata.models.{at}.quantization")
        if found["runtime"]["backend"]["value"] != "cpu":
            wanted.append(f"metadata.models.{at}.gpu_offload_ratio")
    values = all_values(found, machine)
    return [key for key in wanted if key not in values or values[key]["value"] is None]


def all_values(found: Json, machine: Json) -> dict[str, Json]:
    """{key: value} of both files."""
    return {f"{name}.{key}": item for name, document in (("hardware", machine), ("metadata", found))
            for key, item in metadata.values(document)}


def asks(found: Json, machine: Json, flags_read: bool = False) -> list[Ask]:
    """Everything that is null and worth asking for, what is important first.

    flags_read: whether the server's flags are known from its process; once they are declared they
    are known as well.
    """
    needed = important(found, machine)
    told = flags_read or found["runtime"]["launch_flags"]["value"] is not None
    wanted = [key for key, item in all_values(found, machine).items()
              if item["value"] is None and item["reason"] != metadata.WITHHELD
              and _worth(key, found, machine) and not (told and key.split(".")[-1] in SETTINGS)]
    return [_ask(key, True) for key in needed] + [
        _ask(key, False) for key in wanted if key not in needed]


def _look(key: str) -> str:
    return re.sub(r"\.\d+\.", ".*.", key.partition(".")[2])


def _worth(key: str, found: Json, machine: Json) -> bool:
    """Whether a value says anything, can be found, and is not found out from others."""
    if key == "hardware.memory.unified" and machine["accelerators_count"]["value"] == 0:
        return False
    if key in OF_REAL_MEMORY and machine["system"]["kind"]["value"] == "vm":
        return False
    if key.startswith("hardware."):
        return _look(key) in LOOK
    if key.endswith("active_parameters_count"):
        return bool(MIXTURE.search(found["models"][int(key.split(".")[2])]["model"]))
    return not key.endswith("bits_per_weight")


def _ask(key: str, is_important: bool) -> Ask:
    what, _, how = field(key)["description"].partition("; ")
    if key.startswith("hardware."):
        what, how = field(key)["description"].rstrip("."), LOOK[_look(key)]
    return Ask(key, what, how.removeprefix("see ").rstrip("."), takes(key), is_important)
