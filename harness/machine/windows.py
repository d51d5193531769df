"""Read the facts of a Windows machine."""
from __future__ import annotations

import re
from typing import Any, Iterable, Optional, Sequence

from machine import gpus, system

QUERY = r"""
$ErrorActionPreference = 'SilentlyContinue'
[Console]::OutputEncoding = [Text.Encoding]::UTF8
$c = 'HKLM:\SYSTEM\CurrentControlSet\Control\Class\{4d36e968-e325-11ce-bfc1-08002be10318}\0*'
function Pick($class, $fields) { @(Get-CimInstance $class | Select-Object $fields) }
@{
 system = Pick Win32_ComputerSystem Manufacturer,Model,SystemFamily,PCSystemType,TotalPhysicalMemory
 board = Pick Win32_BaseBoard Manufacturer,Product
 cpu = Pick Win32_Processor Name,Manufacturer,NumberOfCores,NumberOfLogicalProcessors,
   MaxClockSpeed,L2CacheSize,L3CacheSize
 memory = Pick Win32_PhysicalMemory Capacity,SMBIOSMemoryType,Speed,ConfiguredClockSpeed,
   DataWidth,DeviceLocator,BankLabel
 gpu = Pick Win32_VideoController Name,AdapterCompatibility,AdapterRAM,DriverVersion
 gpu_memory = @(Get-ItemProperty $c | Select-Object DriverDesc,'HardwareInformation.qwMemorySize')
 os = Pick Win32_OperatingSystem Caption,Version
 page = Pick Win32_PageFileUsage AllocatedBaseSize
} | ConvertTo-Json -Depth 3 -Compress
"""
ARGV = ["powershell", "-NoProfile", "-NonInteractive", "-Command", QUERY]
KINDS = {1: "desktop", 2: "laptop", 3: "desktop", 4: "server", 5: "server", 7: "server"}
SMBIOS_MEMORY = {18: "DDR", 19: "DDR2", 24: "DDR3", 26: "DDR4", 27: "LPDDR", 28: "LPDDR2",
                 29: "LPDDR3", 30: "LPDDR4", 32: "HBM", 33: "HBM2", 34: "DDR5", 35: "LPDDR5",
                 36: "HBM3"}
# PROCESSOR_FEATURE numbers of winnt.h for IsProcessorFeaturePresent.
FEATURES = {39: "avx", 40: "avx2", 41: "avx512f", 19: "neon", 43: "dotprod"}
POWER_SCHEMES = {                     # Windows' own; any other plan was named by a person
    "381b4222-f694-41f0-9685-ff5bb260df2e": "balanced",
    "8c5e7fda-e8bf-4a96-9a85-a6e23a8c635c": "high_performance",
    "a1841308-3541-4fab-bc81-f71556f20b4a": "power_saver",
    "e9a42b02-d5df-448d-aa00-03f14749eb61": "ultimate_performance"}
CARD = re.compile(r"(?i)nvidia|advanced micro|\b(amd|ati|intel)\b|intel\(|radeon|geforce|qualcomm"
                  r"|adreno|moore threads|matrox|aspeed")
NO_CARD = re.compile(r"(?i)basic (display|render)|remote|virtual|mirror|parsec|citrix|hyper-v|idd"
                     r"|displaylink|spacedesk|vnc|indirect|usb")
# The drivers of Intel and of others report at most this in AdapterRAM, a 32-bit number.
ADAPTER_RAM_LIMIT = 0x7ffff000


def parse_power_scheme(text: Optional[str]) -> Optional[str]:
    """The power plan from `powercfg /getactivescheme`; its printed name is translated."""
    found = re.search(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", (text or "").lower())
    return POWER_SCHEMES.get(found.group(0), "custom") if found else None


def system_section(item: dict[str, Any], board: dict[str, Any]) -> dict[str, Any]:
    """Section "system" from Win32_ComputerSystem and Win32_BaseBoard."""
    virtual = system.hypervisor(item.get("Manufacturer"), item.get("Model"))
    known = any(system.clean(item.get(name)) for name in ("Manufacturer", "Model"))
    return {"kind": "vm" if virtual else KINDS.get(system.item_whole(item, "PCSystemType") or 0),
            "model_name": system.firmware_name({
                "sys_vendor": item.get("Manufacturer"), "product_name": item.get("Model"),
                "product_version": item.get("SystemFamily"),
                "board_vendor": board.get("Manufacturer"), "board_name": board.get("Product")}),
            "virtualization": virtual or ("none" if known else None),
            "container": "none" if known else None}


def cpu(items: Sequence[dict[str, Any]], features: Iterable[int]) -> dict[str, Any]:
    """Section "cpu" from Win32_Processor, one item per socket."""

    def total(name: str) -> Optional[int]:
        return system.total(system.item_whole(item, name) for item in items)

    first = items[0] if items else {}
    return {"model_name": system.clean(first.get("Name")),
            "vendor": system.clean(first.get("Manufacturer")),
            "physical_cores_count": total("NumberOfCores"),
            "threads_count": total("NumberOfLogicalProcessors"),
            "usable_threads_count": total("NumberOfLogicalProcessors"),
            "base_mhz": system.scaled(system.item_whole(first, "MaxClockSpeed"), 1, 1),
            "cache_l2_kib": total("L2CacheSize"), "cache_l3_kib": total("L3CacheSize"),
            "instruction_sets": sorted(FEATURES[at] for at in features)}


def memory(answer: dict[str, Any], machine_item: dict[str, Any]) -> dict[str, Any]:
    """Section "memory"."""
    modules = [system.Module(SMBIOS_MEMORY.get(system.item_whole(item, "SMBIOSMemoryType") or 0),
                             (system.item_whole(item, "ConfiguredClockSpeed")
                              or system.item_whole(item, "Speed")),
                             system.item_whole(item, "DataWidth"),
                             f"{item.get('BankLabel')} {item.get('DeviceLocator')}")
               for item in system.dicts(answer.get("memory"))
               if system.item_whole(item, "Capacity")]
    swap_mib = system.total(system.whole(str(item.get("AllocatedBaseSize")))
                            for item in system.dicts(answer.get("page")))
    return {**system.memory_of_modules(modules),
            "capacity_bytes": system.item_whole(machine_item, "TotalPhysicalMemory"),
            "swap_bytes": None if swap_mib is None else swap_mib * system.MIB}


def registry_size(value: Any) -> Optional[int]:
    """qwMemorySize in bytes: a number, or the 8 bytes of a binary value."""
    if isinstance(value, list) and 4 <= len(value) <= 8 and all(
            isinstance(byte, int) and 0 <= byte < 256 for byte in value):
        return int.from_bytes(bytes(value), "little") or None
    return system.whole(str(value)) or None


def cards(answer: dict[str, Any], nvidia: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Cards from Win32_VideoController, with their memory from the registry."""
    field = "HardwareInformation.qwMemorySize"
    sizes = {str(item.get("DriverDesc")): registry_size(item.get(field))
             for item in system.dicts(answer.get("gpu_memory")) if registry_size(item.get(field))}
    found = list(nvidia)
    for item in system.dicts(answer.get("gpu")):
        name, vendor = str(item.get("Name") or ""), system.clean(item.get("AdapterCompatibility"))
        if not name or NO_CARD.search(name) or not CARD.search(f"{vendor} {name}") or (
                nvidia and "NVIDIA" in f"{vendor} {name}"):
            continue
        small = system.item_whole(item, "AdapterRAM")
        integrated = bool(gpus.INTEGRATED.search(name))
        found.append({
            "model_name": system.clean(name),
            "driver_version": system.clean(item.get("DriverVersion")),
            "vendor": "AMD" if "Micro Devices" in (vendor or "") else vendor,
            "integrated": integrated,
            "memory_bytes": gpus.SHARED if integrated else sizes.get(str(item.get("Name"))) or (
                small if small and small < ADAPTER_RAM_LIMIT else None)})
    return found


def inventory(machine: system.Machine) -> dict[str, Any]:
    """All sections, as values without sources."""
    parsed = system.parse_json(machine.run(ARGV, system.WINDOWS_LIMIT_S))
    answer = parsed if isinstance(parsed, dict) else {}
    item, board, named = ((system.dicts(answer.get(name)) or [{}])[0]
                          for name in ("system", "board", "os"))
    nvidia = gpus.nvidia_cards(machine)
    accelerators = cards(answer, nvidia) if answer.get("gpu") or nvidia else None
    return {
        "system": system_section(item, board),
        "cpu": cpu(system.dicts(answer.get("cpu")), machine.processor_features(FEATURES)),
        "memory": {**memory(answer, item), "unified": gpus.shares_memory(accelerators)},
        "accelerators": accelerators,
        "os": {"name": system.clean(named.get("Caption")) or "Windows",
               "version": system.clean(named.get("Version"))},
        "power": {"source": machine.windows_gauges().get("power_source"),
                  "mode": parse_power_scheme(machine.run(["powercfg", "/getactivescheme"]))}}
