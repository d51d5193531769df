"""Read the facts and gauges of a Mac."""
from __future__ import annotations

import re
from typing import Any, Optional, Sequence

from machine import gpus, system

LEVELS = range(4)                     # kinds of cores that are asked for; M6 has three
LEVEL_FIELDS = ("name", "physicalcpu", "logicalcpu", "l1dcachesize", "l2cachesize", "cpusperl2")
SYSCTL_NAMES = (
    "hw.model", "hw.memsize", "hw.physicalcpu", "hw.logicalcpu", "hw.nperflevels",
    *(f"hw.perflevel{level}.{field}" for level in LEVELS for field in LEVEL_FIELDS),
    "hw.l1dcachesize", "hw.l2cachesize", "hw.l3cachesize",
    "hw.cpufrequency", "hw.cpufrequency_max", "hw.optional.neon", "hw.optional.avx2_0",
    "hw.optional.avx512f", "hw.optional.arm.FEAT_DotProd", "hw.optional.arm.FEAT_FP16",
    "hw.optional.arm.FEAT_I8MM", "hw.optional.arm.FEAT_BF16", "hw.optional.arm.FEAT_SME",
    "machdep.cpu.brand_string", "machdep.cpu.vendor", "machdep.cpu.features", "kern.hv_vmm_present",
    "kern.osproductversion", "kern.osrelease", "vm.swapusage")
INSTRUCTION_SETS = {
    "hw.optional.neon": "neon", "hw.optional.avx2_0": "avx2", "hw.optional.avx512f": "avx512f",
    "hw.optional.arm.FEAT_DotProd": "dotprod", "hw.optional.arm.FEAT_FP16": "fp16",
    "hw.optional.arm.FEAT_I8MM": "i8mm", "hw.optional.arm.FEAT_BF16": "bf16",
    "hw.optional.arm.FEAT_SME": "sme"}
NO_SUCH_CORE = system.Unknown("no kind of core has this name")
# GB/s of Apple's technical specifications, by chip, or by chip and GPU cores where they differ.
BANDWIDTH_GB_PER_S = {
    "Apple M1": 68.3, "Apple M1 Pro": 200.0, "Apple M1 Max": 400.0, "Apple M1 Ultra": 800.0,
    "Apple M2": 100.0, "Apple M2 Pro": 200.0, "Apple M2 Max": 400.0, "Apple M2 Ultra": 800.0,
    "Apple M3": 100.0, "Apple M3 Pro": 150.0, "Apple M3 Max 30": 300.0, "Apple M3 Max 40": 400.0,
    "Apple M3 Ultra": 819.0, "Apple M4": 120.0, "Apple M4 Pro": 273.0, "Apple M4 Max 32": 410.0,
    "Apple M4 Max 40": 546.0, "Apple M5": 153.0, "Apple M5 Pro": 307.0, "Apple M5 Max 32": 460.0,
    "Apple M5 Max 40": 614.0, "Apple A18 Pro": 60.0}


# --- gauges --------------------------------------------------------------------------------------
def parse_vm_stat(text: Optional[str]) -> dict[str, int]:
    """`vm_stat` to {name: bytes}."""
    page = re.search(r"page size of (\d{1,6}) bytes", text or "")
    found = re.findall(r'^"?([A-Za-z -]+?)"?:\s+(\d{1,18})\.\s*$', text or "",
                       re.MULTILINE | re.ASCII)
    return {name: int(pages) * int(page.group(1)) for name, pages in found} if page else {}


def memory_gauges(vm_stat: Optional[str], swap: Optional[str],
                  capacity_bytes: Optional[int]) -> dict[str, Optional[int]]:
    """Memory gauges in bytes. Available: free, speculative, inactive and purgeable pages."""
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
    """Busy share of the CPUs from a line of `iostat`, which ends in us sy id 1m 5m 15m."""
    values = [system.number(field) for field in lines[-1].split()[-6:]] if lines else []
    if len(values) != 6 or values[0] is None or values[1] is None:
        return None
    return system.ratio(values[0] + values[1], 100)


def parse_pmset_source(text: Optional[str]) -> Optional[str]:
    """"ac" or "battery" from `pmset -g batt`, or null; a UPS supplies a desktop without mains."""
    found = re.search(r"Now drawing from '(AC|Battery|UPS) Power'", text or "")
    return ("ac" if found[1] == "AC" else "battery") if found else None


# --- inventory -----------------------------------------------------------------------------------
def levels(values: dict[str, str]) -> list[dict[str, str]]:
    """The kinds of cores, the fastest first: {field: value}."""
    found = [{field: values[f"hw.perflevel{level}.{field}"] for field in LEVEL_FIELDS
              if f"hw.perflevel{level}.{field}" in values} for level in LEVELS]
    return found[:system.whole(values.get("hw.nperflevels")) or 0]


def caches(values: dict[str, str]) -> dict[str, Optional[int]]:
    """Sizes in KiB, all caches of one level added up; null if a kind of core does not report it."""

    def value(name: str, source: dict[str, str] = values) -> int:
        return system.whole(source.get(name)) or 0

    first, second = [], []
    for level in levels(values):
        cores, shared_by = value("physicalcpu", level), value("cpusperl2", level)
        threads = value("logicalcpu", level) or cores
        first.append(cores * value("l1dcachesize", level))
        second.append(-(-threads // shared_by) * value("l2cachesize", level) if shared_by else 0)
    if not first and not values.get("machdep.cpu.brand_string", "").startswith("Apple"):
        # Intel: the caches of one core. On Apple's chips these would be those of the small cores.
        first = [value("hw.physicalcpu") * value("hw.l1dcachesize")]
        second = [value("hw.physicalcpu") * value("hw.l2cachesize")]
    return {"cache_l1d_kib": sum(first) // 1024 if all(first) and first else None,
            "cache_l2_kib": sum(second) // 1024 if all(second) and second else None,
            "cache_l3_kib": value("hw.l3cachesize") // 1024 or None}


def core_kinds(values: dict[str, str]) -> dict[str, Any]:
    """Counts of performance and efficiency cores by the names of their kinds.

    macOS before 13 names none: the first of two is the fast one. "Super" cores are the fast ones
    where no kind is named Performance.
    """
    found = levels(values)
    counts = {level.get("name", "").strip(): system.whole(level.get("physicalcpu"))
              for level in found}
    if len(found) == 2 and not any(counts):
        big, little = (system.whole(level.get("physicalcpu")) for level in found)
        return {"performance_cores_count": big, "efficiency_cores_count": little}
    if len(found) < 2:
        return {}
    return {"performance_cores_count": counts.get("Performance", counts.get("Super")),
            "efficiency_cores_count": counts.get(
                "Efficiency", NO_SUCH_CORE)}


def cpu(values: dict[str, str]) -> dict[str, Any]:
    """Section "cpu"."""
    sets = {name for key, name in INSTRUCTION_SETS.items() if values.get(key, "").strip() == "1"}
    features = values.get("machdep.cpu.features", "").split()
    sets |= {name for word, name in (("AVX1.0", "avx"), ("FMA", "fma"), ("F16C", "f16c"))
             if word in features}
    brand = system.clean(values.get("machdep.cpu.brand_string"))
    mhz, max_mhz = (system.scaled(system.whole(values.get(name)) or None, 1e-6, 1)
                    for name in ("hw.cpufrequency", "hw.cpufrequency_max"))
    return {**caches(values), **core_kinds(values), "model_name": brand,
            "vendor": system.clean(values.get("machdep.cpu.vendor")) or (
                "Apple" if (brand or "").startswith("Apple") else None),
            "physical_cores_count": system.whole(values.get("hw.physicalcpu")),
            "threads_count": system.whole(values.get("hw.logicalcpu")),
            "usable_threads_count": system.whole(values.get("hw.logicalcpu")),
            "base_mhz": mhz or system.clock_in_name(brand), "max_mhz": max_mhz,
            "instruction_sets": sorted(sets)}


def parse_displays(text: Optional[str]) -> Optional[list[dict[str, Any]]]:
    """GPUs from `system_profiler -json SPDisplaysDataType`, or null.

    The screens that are also listed there, with serial numbers, are not read.
    """
    listed = system.parse_json(text)
    if not isinstance(listed, dict) or "SPDisplaysDataType" not in listed:
        return None
    cards = []
    for item in system.dicts(listed["SPDisplaysDataType"]):
        vendor = re.search(r"(?i)apple|amd|ati|intel|nvidia", str(item.get("spdisplays_vendor")))
        metal = re.search(r"metal(\d)", str(item.get("spdisplays_mtlgpufamilysupport")))
        memory = re.fullmatch(r"(\d{1,6}) ([MG])B", str(item.get("spdisplays_vram")))
        cards.append({
            "model_name": system.clean(item.get("sppci_model")),
            "vendor": {"apple": "Apple", "intel": "Intel", "nvidia": "NVIDIA", "amd": "AMD",
                       "ati": "AMD"}.get(vendor[0].lower() if vendor else ""),
            "cores_count": system.item_whole(item, "sppci_cores"),
            "integrated": memory is None,
            "memory_bytes": int(memory[1]) * system.MIB * {"M": 1, "G": 1024}[memory[2]]
                            if memory else gpus.SHARED,
            "compute_api": f"Metal {metal.group(1)}" if metal else None})
    return cards


def parse_modules(text: Optional[str]) -> list[system.Module]:
    """Memory modules from `system_profiler -json SPMemoryDataType`: Apple's own, or Intel Macs'."""
    listed = system.parse_json(text)
    groups = system.dicts(listed.get("SPMemoryDataType")) if isinstance(listed, dict) else []
    items = [item for group in groups
             for item in (system.dicts(group.get("_items")) if "_items" in group else [group])]
    speeds = [re.match(r"(\d{3,5}) M", str(item.get("dimm_speed"))) for item in items]
    return [system.Module(item["dimm_type"], int(speed[1]) if speed else None, 64,
                          str(item.get("_name")))
            for item, speed in zip(items, speeds) if system.clean(item.get("dimm_type"))]


def parse_model_name(text: Optional[str], model: Optional[str]) -> Optional[str]:
    """"MacBook Air (MacBookAir10,1)", from `system_profiler -json` and `sysctl hw.model`."""
    listed = system.parse_json(text)
    items = system.dicts(listed.get("SPHardwareDataType")) if isinstance(listed, dict) else []
    name = system.clean(items[0].get("machine_name")) if items else None
    return f"{name} ({model})" if name and model else name or model


def kind(name: Optional[str], batteries: Optional[str]) -> Optional[str]:
    """laptop or desktop, from the model's name and `pmset -g batt`; "Mac15,6" may be either."""
    if re.search(r"(?i)book", name or "") or "InternalBattery" in (batteries or ""):
        return "laptop"
    return "desktop" if re.search(r"(?i)mac ?(mini|studio|pro)|imac", name or "") else None


def parse_pmset_mode(text: Optional[str]) -> Optional[str]:
    """The power mode from `pmset -g`: low_power, automatic or high_power."""
    found = dict(re.findall(r"^\s*(lowpowermode|powermode)\s+([012])\s*$", text or "", re.M))
    mode = found.get("powermode", found.get("lowpowermode"))
    return ("automatic", "low_power", "high_power")[int(mode)] if mode else None


def inventory(machine: system.Machine) -> dict[str, Any]:
    """All sections, as values without sources."""

    def profile(kind: str) -> Optional[str]:
        # "mini" is the level of detail that leaves personal information out.
        return machine.run(["system_profiler", "-json", "-detailLevel", "mini", kind])

    values = dict(re.findall(r"^([A-Za-z0-9_.]+): (.*)$",
                             machine.run(["sysctl", *SYSCTL_NAMES]) or "", re.MULTILINE))
    processor, cards = cpu(values), parse_displays(profile("SPDisplaysDataType"))
    name = parse_model_name(profile("SPHardwareDataType"), system.clean(values.get("hw.model")))
    virtual = values.get("kern.hv_vmm_present", "").strip() == "1"
    brand = processor["model_name"] or ""
    batteries = machine.run(["pmset", "-g", "batt"])
    bandwidth = BANDWIDTH_GB_PER_S.get(f"{brand} {cards[0]['cores_count'] if cards else None}",
                                       BANDWIDTH_GB_PER_S.get(brand))
    return {
        "system": {"kind": "vm" if virtual else kind(name, batteries), "model_name": name,
                   "virtualization": "vm" if virtual else "none", "container": "none"},
        "cpu": processor, "accelerators": cards,
        "memory": {
            **system.memory_of_modules(parse_modules(profile("SPMemoryDataType"))),
            **({"bandwidth_theoretical_gb_per_s": bandwidth} if brand.startswith("Apple") else {}),
            "capacity_bytes": system.whole(values.get("hw.memsize")),
            "swap_bytes": parse_swapusage(values.get("vm.swapusage")).get("total"),
            "unified": brand.startswith("Apple") or gpus.shares_memory(cards)},
        "os": {"name": "macOS", "version": system.clean(values.get("kern.osproductversion"))},
        "power": {"source": parse_pmset_source(batteries),
                  "mode": parse_pmset_mode(machine.run(["pmset", "-g"]))}}
