"""Read the facts and gauges of a Mac."""
from __future__ import annotations

import re
from typing import Any, Optional, Sequence

from machine import system

# ---------------------------------------------------------------- gauges: macOS and Windows

def parse_vm_stat(text: Optional[str]) -> dict[str, int]:
    """`vm_stat` to {name: bytes}."""
    page = re.search(r"page size of (\d{1,6}) bytes", text or "")
    found = re.findall(r'^"?([A-Za-z -]+?)"?:\s+(\d{1,18})\.\s*$', text or "",
                       re.MULTILINE | re.ASCII)
    return {name: int(pages) * int(page.group(1)) for name, pages in found} if page else {}


def mac_memory(vm_stat: Optional[str], swap: Optional[str],
               capacity_bytes: Optional[int]) -> dict[str, Optional[int]]:
    """Memory gauges, in bytes. Available: free, speculative, inactive and purgeable pages."""
    pages = parse_vm_stat(vm_stat)
    free = pages.get("Pages free")
    available = None if free is None else free + sum(
        pages.get(name, 0) for name in ("Pages inactive", "Pages speculative", "Pages purgeable"))
    return {"memory_used_bytes": system.difference(capacity_bytes, available),
            "memory_available_bytes": available,
            "swap_used_bytes": parse_swapusage(swap).get("used")}


def parse_swapusage(text: Optional[str]) -> dict[str, int]:
    """`sysctl -n vm.swapusage` ("total = 2048.00M  used = 1213.25M ...") to {name: bytes}."""
    found = re.findall(r"(total|used|free) = (\d{1,12}(?:\.\d{1,4})?)M", text or "", re.ASCII)
    return {name: int(float(mib) * system.MIB) for name, mib in found}


def parse_iostat_busy(lines: Sequence[str]) -> Optional[float]:
    """Busy share of the CPUs from a line of macOS `iostat`, which ends in us sy id 1m 5m 15m."""
    fields = lines[-1].split()[-6:] if lines else []
    values = [system.number(field) for field in fields]
    if len(values) != 6 or values[0] is None or values[1] is None:
        return None
    return system.ratio(values[0] + values[1], 100)


def parse_pmset_source(text: Optional[str]) -> Optional[str]:
    """"ac" or "battery" from `pmset -g batt`, else null."""
    found = re.search(r"Now drawing from '(AC|Battery) Power'", text or "")
    return {"AC": "ac", "Battery": "battery"}[found.group(1)] if found else None


# ---------------------------------------------------------------- the inventory: macOS

SYSCTL_NAMES = (
    "hw.model", "hw.memsize", "hw.physicalcpu", "hw.logicalcpu", "hw.nperflevels",
    "hw.perflevel0.physicalcpu", "hw.perflevel1.physicalcpu", "hw.perflevel0.logicalcpu",
    "hw.perflevel1.logicalcpu", "hw.perflevel0.l1dcachesize", "hw.perflevel1.l1dcachesize",
    "hw.perflevel0.l2cachesize", "hw.perflevel1.l2cachesize", "hw.perflevel0.cpusperl2",
    "hw.perflevel1.cpusperl2", "hw.l1dcachesize", "hw.l2cachesize", "hw.l3cachesize",
    "hw.cpufrequency", "hw.cpufrequency_max", "hw.optional.neon", "hw.optional.avx2_0",
    "hw.optional.avx512f", "hw.optional.arm.FEAT_DotProd", "hw.optional.arm.FEAT_FP16",
    "hw.optional.arm.FEAT_I8MM", "hw.optional.arm.FEAT_BF16", "hw.optional.arm.FEAT_SME",
    "machdep.cpu.brand_string", "machdep.cpu.vendor", "machdep.cpu.features", "kern.hv_vmm_present",
    "kern.osproductversion", "kern.osrelease", "vm.swapusage")
MAC_INSTRUCTION_SETS = {
    "hw.optional.neon": "neon", "hw.optional.avx2_0": "avx2", "hw.optional.avx512f": "avx512f",
    "hw.optional.arm.FEAT_DotProd": "dotprod", "hw.optional.arm.FEAT_FP16": "fp16",
    "hw.optional.arm.FEAT_I8MM": "i8mm", "hw.optional.arm.FEAT_BF16": "bf16",
    "hw.optional.arm.FEAT_SME": "sme"}
# GB/s of Apple's technical specifications, by chip or by chip and GPU cores where they differ.
APPLE_BANDWIDTH_GB_PER_S = {
    "Apple M1": 68.3, "Apple M1 Pro": 200.0, "Apple M1 Max": 400.0, "Apple M1 Ultra": 800.0,
    "Apple M2": 100.0, "Apple M2 Pro": 200.0, "Apple M2 Max": 400.0, "Apple M2 Ultra": 800.0,
    "Apple M3": 100.0, "Apple M3 Pro": 150.0, "Apple M3 Max 30": 300.0, "Apple M3 Max 40": 400.0,
    "Apple M3 Ultra": 819.0, "Apple M4": 120.0, "Apple M4 Pro": 273.0, "Apple M4 Max 32": 410.0,
    "Apple M4 Max 40": 546.0, "Apple M5": 153.0}


def parse_sysctl(text: Optional[str]) -> dict[str, str]:
    """`sysctl name ...` to {name: value}."""
    return dict(re.findall(r"^([A-Za-z0-9_.]+): (.*)$", text or "", re.MULTILINE))


def mac_caches(told: dict[str, str]) -> dict[str, Optional[int]]:
    """Sizes in KiB, all caches of one level together."""

    def value(name: str) -> int:
        return system.whole(told.get(name)) or 0

    first = second = 0
    for level in ("hw.perflevel0", "hw.perflevel1"):
        cores = value(f"{level}.physicalcpu")
        first += cores * value(f"{level}.l1dcachesize")
        shared_by = value(f"{level}.cpusperl2")
        if shared_by:
            second += -(-cores // shared_by) * value(f"{level}.l2cachesize")
    if not value("hw.nperflevels"):   # Intel: one core's L1 and L2, the package's L3
        first = value("hw.physicalcpu") * value("hw.l1dcachesize")
        second = value("hw.physicalcpu") * value("hw.l2cachesize")
    return {"cache_l1d_kib": first // 1024 or None, "cache_l2_kib": second // 1024 or None,
            "cache_l3_kib": value("hw.l3cachesize") // 1024 or None}


def mac_cpu(told: dict[str, str]) -> dict[str, Any]:
    """Section "cpu"."""
    sets = {name for key, name in MAC_INSTRUCTION_SETS.items() if told.get(key, "").strip() == "1"}
    old = told.get("machdep.cpu.features", "").split()
    sets |= {name for word, name in (("AVX1.0", "avx"), ("FMA", "fma"), ("F16C", "f16c"))
             if word in old}
    brand = system.clean(told.get("machdep.cpu.brand_string"))
    levels = system.whole(told.get("hw.nperflevels")) == 2
    big, little = (system.whole(told.get(f"hw.perflevel{level}.physicalcpu")) if levels else None
                   for level in (0, 1))
    return {**mac_caches(told), "model_name": brand,
            "vendor": system.clean(told.get("machdep.cpu.vendor")) or ("Apple" if levels else None),
            "physical_cores_count": system.whole(told.get("hw.physicalcpu")),
            "threads_count": system.whole(told.get("hw.logicalcpu")),
            "usable_threads_count": system.whole(told.get("hw.logicalcpu")),
            "performance_cores_count": big, "efficiency_cores_count": little,
            "base_mhz": system.scaled(system.whole(told.get("hw.cpufrequency")), 1e-6, 1) or system.clock_in_name(brand),
            "max_mhz": system.scaled(system.whole(told.get("hw.cpufrequency_max")), 1e-6, 1),
            "instruction_sets": sorted(sets)}


def parse_mac_displays(text: Optional[str]) -> Optional[list[dict[str, Any]]]:
    """GPUs from `system_profiler -json SPDisplaysDataType`, null where that is not what it is.

    The listing tells of the screens as well, with their serial numbers; nothing of them is read.
    """
    listed = system.parse_json(text)
    if not isinstance(listed, dict) or "SPDisplaysDataType" not in listed:
        return None
    cards = []
    for item in system.dicts(listed["SPDisplaysDataType"]):
        vendor = re.search(r"(?i)apple|amd|ati|intel|nvidia", str(item.get("spdisplays_vendor")))
        name = vendor.group(0).lower() if vendor else ""
        metal = re.search(r"metal(\d)", str(item.get("spdisplays_mtlgpufamilysupport")))
        memory = re.fullmatch(r"(\d{1,6}) ([MG])B", str(item.get("spdisplays_vram")))
        cards.append({
            "model_name": system.clean(item.get("sppci_model")),
            "vendor": {"apple": "Apple", "intel": "Intel", "nvidia": "NVIDIA", "amd": "AMD",
                       "ati": "AMD"}.get(name),
            "cores_count": system.item_whole(item, "sppci_cores"),
            "memory_bytes": (int(memory.group(1)) * {"M": system.MIB, "G": 1024 * system.MIB}[memory.group(2)]
                             if memory else system.Unknown("it shares the machine's memory")),
            "compute_api": f"Metal {metal.group(1)}" if metal else None})
    return cards


def parse_mac_modules(text: Optional[str]) -> list[system.Module]:
    """Memory modules from `system_profiler -json SPMemoryDataType`: Apple's own, or Intel Macs'."""
    listed = system.parse_json(text)
    groups = system.dicts(listed.get("SPMemoryDataType")) if isinstance(listed, dict) else []
    items = [item for group in groups
             for item in (system.dicts(group.get("_items")) if "_items" in group else [group])]
    modules = []
    for item in items:
        speed = re.match(r"(\d{3,5}) MHz", str(item.get("dimm_speed")))
        kind = system.clean(item.get("dimm_type"))
        if kind and kind != "empty":
            modules.append(system.Module(kind, int(speed.group(1)) if speed else None, 64,
                                  str(item.get("_name"))))
    return modules


def mac_model_name(text: Optional[str], model: Optional[str]) -> Optional[str]:
    """"MacBook Air (MacBookAir10,1)", from `system_profiler -json` and `sysctl hw.model`."""
    listed = system.parse_json(text)
    items = system.dicts(listed.get("SPHardwareDataType")) if isinstance(listed, dict) else []
    name = system.clean(items[0].get("machine_name")) if items else None
    return f"{name} ({model})" if name and model else name or model


def mac_kind(name: Optional[str]) -> Optional[str]:
    """laptop or desktop by the name of the model."""
    if not name:
        return None
    return "laptop" if "book" in name.lower() else "desktop"


def parse_pmset_mode(text: Optional[str]) -> Optional[str]:
    """The power mode from `pmset -g`: low_power, automatic or high_power."""
    found = re.search(r"^\s*(?:lowpowermode|powermode)\s+([012])\s*$", text or "", re.MULTILINE)
    return ("automatic", "low_power", "high_power")[int(found.group(1))] if found else None


def mac_inventory(machine: system.Machine) -> dict[str, Any]:
    """All sections, as values without sources."""

    def profile(kind: str) -> Optional[str]:
        # "mini" is the level of detail that leaves personal information out.
        return machine.run(["system_profiler", "-json", "-detailLevel", "mini", kind])

    told = parse_sysctl(machine.run(["sysctl", *SYSCTL_NAMES]))
    cpu, cards = mac_cpu(told), parse_mac_displays(profile("SPDisplaysDataType"))
    name = mac_model_name(profile("SPHardwareDataType"), system.clean(told.get("hw.model")))
    virtual = told.get("kern.hv_vmm_present", "").strip() == "1"
    apple = (cpu["model_name"] or "").startswith("Apple ")
    gpu_cores = cards[0]["cores_count"] if cards else None
    return {
        "system": {"kind": "vm" if virtual else mac_kind(name), "model_name": name,
                   "virtualization": "vm" if virtual else "none", "container": "none"},
        "cpu": cpu, "accelerators": cards,
        "memory": {
            **system.memory_of_modules(parse_mac_modules(profile("SPMemoryDataType"))),
            **({"bandwidth_theoretical_gb_per_s": APPLE_BANDWIDTH_GB_PER_S.get(
                f"{cpu['model_name']} {gpu_cores}",
                APPLE_BANDWIDTH_GB_PER_S.get(str(cpu["model_name"])))} if apple else {}),
            "capacity_bytes": system.whole(told.get("hw.memsize")),
            "swap_bytes": parse_swapusage(told.get("vm.swapusage")).get("total"), "unified": apple},
        "os": {"name": "macOS", "version": system.clean(told.get("kern.osproductversion"))},
        "power": {"source": parse_pmset_source(machine.run(["pmset", "-g", "batt"])),
                  "mode": parse_pmset_mode(machine.run(["pmset", "-g"]))}}
