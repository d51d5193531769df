"""Read the facts and gauges of a Windows machine."""
from __future__ import annotations

import re
from typing import Any, Iterable, Optional, Sequence

from machine import gpus
from machine import system as systems

Json = dict[str, Any]



# ---------------------------------------------------------------- the inventory: Windows

WINDOWS_QUERY = r"""
$ErrorActionPreference = 'SilentlyContinue'
[Console]::OutputEncoding = [Text.Encoding]::UTF8
$c = 'HKLM:\SYSTEM\CurrentControlSet\Control\Class\{4d36e968-e325-11ce-bfc1-08002be10318}\0*'
function Pick($class, $fields) { @(Get-CimInstance $class | Select-Object $fields) }
@{
 system = Pick Win32_ComputerSystem Manufacturer,Model,PCSystemType,TotalPhysicalMemory
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
WINDOWS_ARGV = ["powershell", "-NoProfile", "-NonInteractive", "-Command", WINDOWS_QUERY]
WINDOWS_KINDS = {1: "desktop", 2: "laptop", 3: "desktop", 4: "server", 5: "server", 7: "server"}
SMBIOS_MEMORY = {24: "DDR3", 26: "DDR4", 29: "LPDDR3", 30: "LPDDR4", 34: "DDR5", 35: "LPDDR5"}
VIRTUAL_MACHINES = (("virtual machine", "hyper-v"), ("vmware", "vmware"), ("virtualbox", "oracle"),
                    ("qemu", "qemu"), ("kvm", "kvm"), ("parallels", "parallels"),
                    ("amazon ec2", "amazon"), ("google compute engine", "google"))
# PROCESSOR_FEATURE numbers of winnt.h for IsProcessorFeaturePresent.
WINDOWS_FEATURES = {39: "avx", 40: "avx2", 41: "avx512f", 19: "neon", 43: "dotprod"}
POWER_SCHEMES = {                     # Windows' own; a plan with another number has a person's name
    "381b4222-f694-41f0-9685-ff5bb260df2e": "balanced",
    "8c5e7fda-e8bf-4a96-9a85-a6e23a8c635c": "high_performance",
    "a1841308-3541-4fab-bc81-f71556f20b4a": "power_saver",
    "e9a42b02-d5df-448d-aa00-03f14749eb61": "ultimate_performance"}
NO_CARD = re.compile(r"(?i)basic (display|render)|remote|virtual|mirror|parsec|citrix|hyper-v")


def parse_power_scheme(text: Optional[str]) -> Optional[str]:
    """The power plan from `powercfg /getactivescheme`, whose own name may be translated."""
    found = re.search(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", (text or "").lower())
    return POWER_SCHEMES.get(found.group(0), "custom") if found else None


def windows_system(item: dict[str, Any]) -> dict[str, Any]:
    """Section "system" from Win32_ComputerSystem."""
    vendor, model = systems.clean(item.get("Manufacturer")) or "", systems.clean(item.get("Model")) or ""
    words = f"{vendor} {model}".lower()
    virtual = next((name for word, name in VIRTUAL_MACHINES if word in words), None)
    kind = WINDOWS_KINDS.get(systems.item_whole(item, "PCSystemType") or 0)
    known = bool(vendor or model)
    return {"kind": "vm" if virtual else kind,
            "model_name": systems.firmware_name({"sys_vendor": vendor, "product_name": model}),
            "virtualization": virtual or ("none" if known else None),
            "container": "none" if known else None}


def windows_cpu(items: Sequence[dict[str, Any]], features: Iterable[int]) -> dict[str, Any]:
    """Section "cpu" from Win32_Processor, one item for each socket."""

    def total(name: str) -> Optional[int]:
        counted = systems.total(systems.item_whole(item, name) for item in items)
        return None if counted is None else int(counted)

    first = items[0] if items else {}
    return {"model_name": systems.clean(first.get("Name")), "vendor": systems.clean(first.get("Manufacturer")),
            "physical_cores_count": total("NumberOfCores"),
            "threads_count": total("NumberOfLogicalProcessors"),
            "usable_threads_count": total("NumberOfLogicalProcessors"),
            "base_mhz": systems.scaled(systems.item_whole(first, "MaxClockSpeed"), 1, 1),
            "cache_l2_kib": total("L2CacheSize"), "cache_l3_kib": total("L3CacheSize"),
            "instruction_sets": sorted(WINDOWS_FEATURES[at] for at in features)}


def windows_memory(told: dict[str, Any]) -> dict[str, Any]:
    """Section "memory"."""
    modules = [systems.Module(SMBIOS_MEMORY.get(systems.item_whole(item, "SMBIOSMemoryType") or 0),
                      systems.item_whole(item, "ConfiguredClockSpeed") or systems.item_whole(item, "Speed"),
                      systems.item_whole(item, "DataWidth"),
                      f"{item.get('BankLabel')} {item.get('DeviceLocator')}")
               for item in systems.dicts(told.get("memory")) if systems.item_whole(item, "Capacity")]
    system = systems.dicts(told.get("system"))
    page_mib = [systems.whole(str(item.get("AllocatedBaseSize"))) for item in systems.dicts(told.get("page"))]
    swap_mib = systems.total(page_mib)
    return {**systems.memory_of_modules(modules),
            "capacity_bytes": systems.item_whole(system[0], "TotalPhysicalMemory") if system else None,
            "swap_bytes": None if swap_mib is None else int(swap_mib) * systems.MIB}


def windows_cards(told: dict[str, Any], nvidia: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Cards from Win32_VideoController; its AdapterRAM ends at 4 GiB, the registry knows better."""
    sizes = {item.get("DriverDesc"): systems.item_whole(item, "HardwareInformation.qwMemorySize")
             for item in systems.dicts(told.get("gpu_memory"))}
    cards = list(nvidia)
    for item in systems.dicts(told.get("gpu")):
        name, vendor = systems.clean(item.get("Name")), systems.clean(item.get("AdapterCompatibility"))
        if not name or NO_CARD.search(name) or (nvidia and vendor == "NVIDIA"):
            continue
        small = systems.item_whole(item, "AdapterRAM")
        cards.append({"model_name": name, "driver_version": systems.clean(item.get("DriverVersion")),
                      "vendor": "AMD" if "Micro Devices" in (vendor or "") else vendor,
                      "memory_bytes": sizes.get(item.get("Name")) or (
                          small if small and small < 4095 * systems.MIB else None)})
    return cards


def windows_inventory(machine: systems.Machine) -> dict[str, Any]:
    """All sections, as values without sources."""
    answer = systems.parse_json(machine.run(WINDOWS_ARGV, systems.WINDOWS_LIMIT_S))
    told = answer if isinstance(answer, dict) else {}
    system, named = systems.dicts(told.get("system")), systems.dicts(told.get("os"))
    nvidia = gpus.nvidia_cards(machine)
    return {
        "system": windows_system(system[0] if system else {}),
        "cpu": windows_cpu(systems.dicts(told.get("cpu")), machine.processor_features(WINDOWS_FEATURES)),
        "memory": windows_memory(told),
        "accelerators": windows_cards(told, nvidia) if told or nvidia else None,
        "os": {"name": systems.clean(named[0].get("Caption")), "version": systems.clean(named[0].get("Version"))}
              if named else {"name": "Windows"},
        "power": {"source": machine.windows_gauges().get("power_source"),
                  "mode": parse_power_scheme(machine.run(["powercfg", "/getactivescheme"]))}}
