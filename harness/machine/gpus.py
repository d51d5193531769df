"""Read the facts and gauges of graphics cards."""
from __future__ import annotations

import re
from typing import Any, Iterable, Optional

from machine import system

# ---------------------------------------------------------------- gauges: graphics cards

# 0x8 hardware slowdown, 0x20 software thermal, 0x40 hardware thermal, 0x80 power brake; 0x4, the
# card's own power limit, is how a busy card runs and no fault.
NVIDIA_THROTTLE_BITS = 0x8 | 0x20 | 0x40 | 0x80
NVIDIA_GAUGES = ("index", "utilization.gpu", "memory.used", "power.draw", "temperature.gpu",
                 "clocks.sm")
# Its name since driver 535, and before; an unknown name makes the whole query fail.
NVIDIA_REASONS = ("clocks_event_reasons.active", "clocks_throttle_reasons.active")


def nvidia_query(fields: Iterable[str]) -> list[str]:
    """The command that prints one line for each card: the values of `fields`, without units."""
    return ["nvidia-smi", "--query-gpu=" + ",".join(fields), "--format=csv,noheader,nounits"]


def nvidia_watch(machine: system.Machine) -> Optional[system.Watch]:
    """A lasting nvidia-smi that reports every WATCH_EVERY_S, or null where there is none."""
    fields: tuple[str, ...] = NVIDIA_GAUGES
    for name in NVIDIA_REASONS:
        answer = machine.run(nvidia_query([name]))
        if answer is None:
            return None
        if re.match(r"\s*(0x|\[)", answer):
            fields += (name,)
            break
    return machine.watch([*nvidia_query(fields), "-l", str(system.WATCH_EVERY_S)])


def parse_nvidia_gauges(lines: Iterable[str]) -> list[dict[str, Any]]:
    """Gauges of each card, by index, from lines of NVIDIA_GAUGES, where known with the reasons why
    its clock is held down; their memory is in MiB."""
    cards = []
    for line in lines:
        fields = [field.strip() for field in line.split(",")]
        index = system.whole(fields[0])
        if len(fields) - len(NVIDIA_GAUGES) not in (0, 1) or index is None:
            continue
        reasons = re.fullmatch(r"0x([0-9a-fA-F]{1,16})", fields[-1])
        held = bool(int(reasons.group(1), 16) & NVIDIA_THROTTLE_BITS) if reasons else None
        used_mib = system.whole(fields[2])
        cards.append({
            "index": index, "busy_ratio": system.scaled(system.number(fields[1]), 0.01, 4),
            "memory_used_bytes": None if used_mib is None else used_mib * system.MIB,
            "power_w": system.number(fields[3]), "temperature_c": system.number(fields[4]),
            "clock_mhz": system.number(fields[5]), "throttled": held})
    return sorted(cards, key=lambda card: card["index"])


def amd_cards(machine: system.Machine) -> list[str]:
    """sysfs folders of the cards that the amdgpu driver runs."""
    cards = [f"/sys/class/drm/{name}/device"
             for name in system.numbered(machine.names("/sys/class/drm"), r"card\d+")]
    return [folder for folder in cards if machine.read(f"{folder}/mem_info_vram_total") is not None]


def amd_gauges(machine: system.Machine, folder: str, index: int) -> dict[str, Any]:
    """Gauges of one amdgpu card; sysfs gives µW, thousandths of a degree, Hz."""
    sensors = next((f"{folder}/hwmon/{name}" for name in machine.names(f"{folder}/hwmon")), folder)

    def gauge(*paths: str) -> Optional[float]:
        return next((value for value in map(system.number, map(machine.read, paths))
                     if value is not None), None)

    return {"index": index, "busy_ratio": system.scaled(gauge(f"{folder}/gpu_busy_percent"), 0.01, 4),
            "memory_used_bytes": system.whole(machine.read(f"{folder}/mem_info_vram_used")),
            "power_w": system.scaled(gauge(f"{sensors}/power1_average", f"{sensors}/power1_input"), 1e-6),
            "temperature_c": system.scaled(gauge(f"{sensors}/temp1_input"), 1e-3),
            "clock_mhz": system.scaled(gauge(f"{sensors}/freq1_input"), 1e-6), "throttled": None}


def parse_ioreg_gpu(text: Optional[str]) -> list[dict[str, Any]]:
    """Gauges of Apple's GPU from `ioreg -r -d 1 -c IOAccelerator`: its share of use and memory."""
    busy = re.search(r'"Device Utilization %"=(\d{1,3})\b', text or "")
    used = re.search(r'"In use system memory"=(\d{1,18})\b', text or "")
    if not busy and not used:
        return []
    return [{"index": 0, "busy_ratio": system.scaled(system.number(busy.group(1)), 0.01, 4) if busy else None,
             "memory_used_bytes": int(used.group(1)) if used else None, "power_w": None,
             "temperature_c": None, "clock_mhz": None, "throttled": None}]


PCIE_GENERATIONS = {"2.5": 1, "5": 2, "8": 3, "16": 4, "32": 5, "64": 6}
PCI_VENDORS = {"0x1002": "AMD", "0x10de": "NVIDIA", "0x8086": "Intel"}


def pcie_generation(text: Optional[str]) -> Optional[int]:
    """The generation of a link speed as sysfs writes it: "16.0 GT/s PCIe" is 4."""
    found = re.match(r"(\d+(?:\.5)?)(?:\.0)? GT/s", text or "", re.ASCII)
    return PCIE_GENERATIONS.get(found.group(1)) if found else None


def pcie_lanes(text: Optional[str]) -> Optional[int]:
    """Lanes of a link, or null: sysfs writes 0 and 255 for chips that have no link of their own."""
    lanes = system.whole(text)
    return lanes if lanes in (1, 2, 4, 8, 12, 16, 32) else None


# ---------------------------------------------------------------- the inventory: NVIDIA, anywhere

NVIDIA_FIELDS = ("name", "memory.total", "driver_version", "power.limit", "pcie.link.gen.current",
                 "pcie.link.gen.max", "pcie.link.width.current", "pcie.link.width.max")


def parse_nvidia(text: Optional[str], version: Optional[str]) -> list[dict[str, Any]]:
    """Cards from lines of NVIDIA_FIELDS and the CUDA version from `nvidia-smi --version`."""
    cuda = re.search(r"CUDA Version\s*: (\d{1,2}\.\d{1,2})", version or "", re.ASCII)
    cards = []
    for line in (text or "").splitlines():
        fields = [field.strip() for field in line.split(",")]
        if len(fields) != len(NVIDIA_FIELDS):
            continue
        memory_mib = system.whole(fields[1])
        cards.append({
            "model_name": system.clean(fields[0]), "vendor": "NVIDIA",
            "memory_bytes": memory_mib * system.MIB if memory_mib else None,
            "driver_version": fields[2] if re.fullmatch(r"[\d.]{1,20}", fields[2]) else None,
            "compute_api": f"CUDA {cuda.group(1)}" if cuda else None,
            "power_limit_w": system.number(fields[3]),
            "pcie_generation_current": system.whole(fields[4]) or None,
            "pcie_generation_max": system.whole(fields[5]) or None,
            "pcie_lanes_current": pcie_lanes(fields[6]), "pcie_lanes_max": pcie_lanes(fields[7])})
    return cards


def nvidia_cards(machine: system.Machine) -> list[dict[str, Any]]:
    """What nvidia-smi tells of its cards; empty where there is none."""
    listed = machine.run(nvidia_query(NVIDIA_FIELDS))
    return parse_nvidia(listed, machine.run(["nvidia-smi", "--version"])) if listed else []


def parse_lspci_name(text: Optional[str]) -> Optional[str]:
    """The device's name from one line of `lspci -mm`; what stands in brackets in it, where so."""
    quoted = re.findall(r'"([^"]*)"', text or "")
    if len(quoted) < 3:
        return None
    bracket = re.search(r"\[(.+)\]", quoted[2])
    return system.clean(bracket.group(1) if bracket else quoted[2])


def parse_rocm_names(text: Optional[str]) -> list[str]:
    """Card names in order from `rocm-smi --showproductname --json`."""
    listed = system.parse_json(text)
    cards = listed if isinstance(listed, dict) else {}
    names = []
    for key in system.numbered(cards, r"card\d+"):
        card = cards[key] if isinstance(cards[key], dict) else {}
        names.append(system.clean(card.get("Card series") or card.get("Card Series")) or "")
    return names


def drm_card(machine: system.Machine, folder: str) -> dict[str, Any]:
    """One card that sysfs lists: AMD's and Intel's."""
    vendor = PCI_VENDORS.get((machine.read(f"{folder}/vendor") or "").strip())
    slot = re.search(r"^PCI_SLOT_NAME=([0-9a-f:.]{7,16})$", machine.read(f"{folder}/uevent") or "",
                     re.MULTILINE)
    device = (machine.read(f"{folder}/device") or "").strip()
    named = parse_lspci_name(machine.run(["lspci", "-mm", "-s", slot.group(1)])) if slot else None
    hwmon = next((f"{folder}/hwmon/{name}" for name in machine.names(f"{folder}/hwmon")), folder)
    return {
        "model_name": named or system.clean(f"{vendor} {device}"), "vendor": vendor,
        "memory_bytes": system.whole(machine.read(f"{folder}/mem_info_vram_total")) or None,
        "power_limit_w": system.scaled(system.number(machine.read(f"{hwmon}/power1_cap")), 1e-6),
        "pcie_generation_current": pcie_generation(machine.read(f"{folder}/current_link_speed")),
        "pcie_generation_max": pcie_generation(machine.read(f"{folder}/max_link_speed")),
        "pcie_lanes_current": pcie_lanes(machine.read(f"{folder}/current_link_width")),
        "pcie_lanes_max": pcie_lanes(machine.read(f"{folder}/max_link_width"))}


def linux_accelerators(machine: system.Machine) -> list[dict[str, Any]]:
    """NVIDIA's by nvidia-smi, then AMD's, then the rest, as `Sampler` numbers them."""
    cards = nvidia_cards(machine)
    amd = amd_cards(machine)
    names = parse_rocm_names(
        machine.run(["rocm-smi", "--showproductname", "--json"]) if amd else None)
    rocm = re.match(r"\d[\d.]{1,10}", machine.read("/opt/rocm/.info/version") or "", re.ASCII)
    for at, folder in enumerate(amd):
        card = drm_card(machine, folder)
        if len(names) == len(amd) and names[at]:
            card["model_name"] = names[at]
        cards.append({**card, "compute_api": f"ROCm {rocm.group(0)}" if rocm else None})
    for name in system.numbered(machine.names("/sys/class/drm"), r"card\d+"):
        folder = f"/sys/class/drm/{name}/device"
        vendor = PCI_VENDORS.get((machine.read(f"{folder}/vendor") or "").strip())
        if folder not in amd and vendor and not (vendor == "NVIDIA" and cards):
            cards.append(drm_card(machine, folder))
    return cards
