"""Assemble the hardware.json of this machine."""
from __future__ import annotations

from typing import Any, Optional

from machine import linux, macos, system, windows

# Every field of hardware.json with the reason that stands where its value is null.
FIELDS = {
    "system": {
        "kind": "the firmware does not say what kind of machine this is",
        "model_name": "the firmware does not name the machine",
        "virtualization": "the system does not say whether it runs in a virtual machine",
        "container": "the system does not say whether this runs in a container",
    },
    "cpu": {
        "model_name": "the system does not name the CPU",
        "vendor": "the system does not name the CPU's vendor",
        "architecture": "Python does not know the machine's architecture",
        "physical_cores_count": "the system does not tell cores from threads",
        "threads_count": "the system does not list its CPUs",
        "usable_threads_count": "the system does not tell of a limit",
        "performance_cores_count": "all cores are alike, or the system does not tell them apart",
        "efficiency_cores_count": "all cores are alike, or the system does not tell them apart",
        "base_mhz": "the system does not tell the base clock",
        "max_mhz": "the system does not tell the highest clock",
        "cache_l1d_kib": "the system does not tell the size",
        "cache_l2_kib": "the system does not tell the size",
        "cache_l3_kib": "there is no such cache, or the system does not tell its size",
        "instruction_sets": "the system does not list them",
    },
    "memory": {
        "capacity_bytes": "the system does not tell the size",
        "limit_bytes": "no limit below the capacity is set",
        "type": "the firmware's list of modules cannot be read, or has none",
        "speed_mts": "the firmware's list of modules cannot be read, or has none",
        "channels_count": "the firmware's list of modules does not name channels",
        "bandwidth_theoretical_gb_per_s": "speed, width or channels of the modules are not known",
        "bandwidth_measured_gb_per_s": "it was not measured",
        "swap_bytes": "the system does not tell the size",
        "unified": "the system does not say whether CPU and accelerator share the memory",
    },
    "os": {
        "name": "the system does not name itself",
        "version": "the system does not tell its version",
        "kernel_release": "the system does not tell it",
    },
    "power": {
        "source": "no power supply is listed, as in desktops, servers and virtual machines",
        "mode": "the system has no power mode, or does not tell it",
        "governor": "the system has no CPU governor, or does not tell it",
    },
    "python": {
        "version": "Python does not tell it",
        "implementation": "Python does not tell it",
    },
}
ACCELERATOR_FIELDS = {
    "model_name": "the driver does not name the card",
    "vendor": "the driver does not name the vendor",
    "cores_count": "the driver does not tell it",
    "memory_bytes": "the driver does not tell it",
    "memory_bandwidth_gb_per_s": "no driver tells it; it stands in the vendor's data sheet",
    "driver_version": "the driver does not tell it",
    "compute_api": "no CUDA, ROCm or Metal was found",
    "power_limit_w": "the driver does not tell it",
    "pcie_generation_current": "the driver does not tell it, or the card is no PCIe card",
    "pcie_generation_max": "the driver does not tell it, or the card is no PCIe card",
    "pcie_lanes_current": "the driver does not tell it, or the card is no PCIe card",
    "pcie_lanes_max": "the driver does not tell it, or the card is no PCIe card",
}
SCHEMA_VERSION = "1"


def leaf(value: Any, reason: str) -> dict[str, Any]:
    """{"value", "source", "reason"}: probed, or null with the reason."""
    if isinstance(value, system.Unknown):
        value, reason = None, str(value)
    if value is None or value == "" or value == []:
        return {"value": None, "source": None, "reason": reason}
    return {"value": value, "source": "probed", "reason": None}


def assemble(probed: dict[str, Any]) -> dict[str, Any]:
    """hardware.json from values without sources: every field, null with a reason where none is."""
    document: dict[str, Any] = {"schema_version": SCHEMA_VERSION}
    for section, fields in FIELDS.items():
        values = probed.get(section) or {}
        document[section] = {name: leaf(values.get(name), why) for name, why in fields.items()}
    cards = probed.get("accelerators")
    document["accelerators_count"] = leaf(None if cards is None else len(cards),
                                        "the system does not list its graphics cards")
    document["accelerators"] = [
        {name: leaf(card.get(name), why) for name, why in ACCELERATOR_FIELDS.items()}
        for card in cards or []]
    return document


def inventory(machine: Optional[system.Machine] = None, measure: bool = True) -> dict[str, Any]:
    """The draft of hardware.json: each value as {"value", "source": "probed", "reason": null}, or
    {"value": null, "source": null, "reason": why}.

    Takes some seconds; `measure` copies memory for one of them. Never raises.
    """
    machine = machine or system.Machine()
    probers = {"Linux": linux.linux_inventory, "Darwin": macos.mac_inventory, "Windows": windows.windows_inventory}
    try:
        probed = probers.get(machine.system, _no_inventory)(machine)
    except Exception:                 # a strange machine's draft may be empty, and no more
        probed = {}
    probed.setdefault("cpu", {})["architecture"] = system.clean(machine.architecture)
    probed.setdefault("os", {})["kernel_release"] = linux.public_kernel_release(machine.kernel_release)
    probed["python"] = dict(machine.python)
    if measure:
        probed.setdefault("memory", {})["bandwidth_measured_gb_per_s"] = machine.copy_bandwidth()
    return assemble(probed)


def _no_inventory(machine: system.Machine) -> dict[str, Any]:
    return {}
