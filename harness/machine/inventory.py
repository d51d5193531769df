"""Assemble the hardware.json of this machine."""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Optional

from core import privacy, schema
from machine import gpus, linux, macos, system, windows

SCHEMA_VERSION = "1"
DEFAULT_REASON = "the system does not report it"
PRIVATE = "left out because it was private"
REASONS = {                           # why a value may be null, where more is known
    "virtualization": "the system does not report whether this is a virtual machine",
    "container": "the system does not report whether this is a container",
    "performance_cores_count": "all cores are alike, or the system does not distinguish them",
    "efficiency_cores_count": "all cores are alike, or the system does not distinguish them",
    "cache_l3_kib": "there is no such cache, or the system does not report its size",
    "limit_bytes": "no limit below the capacity is set",
    "type": "the firmware's list of memory modules cannot be read, or has no type",
    "speed_mts": "the firmware's list of memory modules cannot be read, or has no speed",
    "channels_count": "the firmware's list of memory modules does not name channels",
    "bandwidth_theoretical_gb_per_s": "speed, width or channels of the modules are not known",
    "bandwidth_measured_gb_per_s": "it was not measured, or other programs used the processors",
    "unified": "the system does not report whether CPU and accelerator share the memory",
    "source": "no power supply is listed, as in desktops, servers and virtual machines",
    "mode": "the system has no power mode, or does not report it",
    "governor": "the system has no CPU governor, or does not report it",
    "accelerators_count": "the system does not list its graphics cards",
    "memory_bandwidth_gb_per_s": "no driver reports it; see the vendor's data sheet",
    "compute_api": "no CUDA, ROCm or Metal was found",
    **dict.fromkeys(("pcie_generation_current", "pcie_generation_max", "pcie_lanes_current",
                     "pcie_lanes_max"),
                    "the driver does not report it, or the card is not on a PCIe bus")}


PROBERS = {"Linux": linux.inventory, "Android": linux.inventory, "Darwin": macos.inventory,
           "Windows": windows.inventory}
EARLIER_REASONS = frozenset((         # of earlier versions
    "all cores are alike, or the system does not tell them apart", "it was not measured",
    "the firmware does not name the machine", "the system does not tell the base clock",
    "the system does not tell the highest clock", "the system has no power mode, or does not tell "
    "it", "the system has no CPU governor, or does not tell it", "the firmware's list of modules "
    "cannot be read, or has none", "the firmware's list of modules does not name channels",
    "the system does not say whether CPU and accelerator share the memory"))
Names = Optional[Sequence[privacy.MachineName]]
# What programs write in these fields. Of other values, more words are possible.
WORDS = {
    "system.virtualization": linux.HYPERVISORS | {"vm", "wsl1", "wsl2"} | {
        name for _, name in system.VIRTUAL_MACHINES},
    "system.container": linux.CONTAINERS}


def reasons_of(key: str) -> set[str]:
    """Every text with which the inventory explains that a value, such as cpu.vendor, is null."""
    return {REASONS.get(key.rpartition(".")[2], DEFAULT_REASON), linux.WSL_HIDES, linux.NO_KIND,
            macos.NO_SUCH_CORE, gpus.SHARED, gpus.UNLISTED, gpus.UNEQUAL, PRIVATE,
            *EARLIER_REASONS}


def _reasons(part: dict[str, Any]) -> dict[str, str]:
    """{field: why it may be null} of a section of the schema; optional fields are only declared."""
    return {name: REASONS.get(name, DEFAULT_REASON) for name in part["required"]}


_PROPERTIES = schema.schema("hardware")["properties"]
FIELDS = {name: _reasons(part) for name, part in _PROPERTIES.items() if "properties" in part}
ACCELERATOR_FIELDS = _reasons(_PROPERTIES["accelerators"]["items"])


def leaf(value: Any, reason: str, names: Names = None) -> dict[str, Any]:
    """{"value", "source", "reason"}: probed, or null with the reason. names: see assemble."""
    if isinstance(value, system.Unknown):
        value, reason = None, str(value)
    if names is not None and privacy.scan_json({"value": value}, names=names):
        value, reason = None, PRIVATE
    if value is None or value == "" or value == []:
        return {"value": None, "source": None, "reason": reason}
    return {"value": value, "source": "probed", "reason": None}


def assemble(probed: dict[str, Any], names: Names = None) -> dict[str, Any]:
    """hardware.json from values without sources; a missing value is null with a reason. names: of
    this machine and its user, to leave out private values; without them, none are left out."""
    document: dict[str, Any] = {"schema_version": SCHEMA_VERSION}
    for section, fields in FIELDS.items():
        values = probed.get(section) or {}
        document[section] = {name: leaf(values.get(name), why, names)
                             for name, why in fields.items()}
    cards = probed.get("accelerators")
    document["accelerators_count"] = leaf(
        probed.get("accelerators_count") or (None if cards is None else len(cards)),
        REASONS["accelerators_count"])
    document["accelerators"] = [
        {name: leaf(card.get(name), why, names) for name, why in ACCELERATOR_FIELDS.items()}
        for card in cards or []]
    return document


def inventory(machine: Optional[system.Machine] = None, measure: bool = True,
              names: Names = None) -> dict[str, Any]:
    """hardware.json as the system reports it: each value as {"value", "source": "probed",
    "reason": null}, or {"value": null, "source": null, "reason": why}.

    Takes some seconds; `measure` copies memory during one of them. names: see assemble. Never
    raises.
    """
    machine = machine or system.Machine()
    probed: dict[str, Any] = {}
    if machine.system in PROBERS:
        try:
            probed = PROBERS[machine.system](machine)
        except Exception:             # an unforeseen machine gets an empty draft, not a traceback
            probed = {}
    probed.setdefault("cpu", {})["architecture"] = system.clean(machine.architecture)
    probed.setdefault("os", {})["kernel_release"] = linux.public_kernel_release(
        machine.kernel_release)
    probed["python"] = dict(machine.python)
    if measure:
        probed.setdefault("memory", {})["bandwidth_measured_gb_per_s"] = machine.copy_bandwidth()
    return assemble(probed, names)
