"""Read the facts and gauges of graphics cards."""
from __future__ import annotations

import re
from typing import Any, Iterable, Optional, Sequence

from machine import system

DRM = "/sys/class/drm"
SHARED = system.Unknown("it shares the machine's memory")
UNLISTED = system.Unknown("a driver does not list its card")
UNEQUAL = system.Unknown("the card is divided into instances of several sizes")
# Name and vendor of graphics units that are part of a processor and use the machine's memory.
INTEGRATED = re.compile(
    r"(?i)\b(GB10|N1X?|Orin|Thor|Xavier|Tegra|nvgpu)\b|Adreno|AMD Custom GPU"
    r"|\bIris\b(?!.* MAX)|\b(U?HD|Intel\S*) Graphics"
    r"|\bArc\W*(TM\W+)?(Pro )?(Graphics|1\d\d[TV]\b|B3\d0\b)"
    r"|\bRadeon\W*(TM\W+)?(Graphics$|\d{3}M\b|80\d\dS\b|(RX )?Vega \d+ (Graphics|Mobile)"
    r"|R\d Graphics)")
# 0x8 hardware slowdown, 0x20 software thermal, 0x40 hardware thermal, 0x80 power brake. Not 0x4,
# the card's own power limit, which is normal for a busy card.
NVIDIA_THROTTLE_BITS = 0x8 | 0x20 | 0x40 | 0x80
NVIDIA_GAUGES = ("index", "utilization.gpu", "memory.used", "power.draw", "temperature.gpu",
                 "clocks.sm", "power.limit")
# Its name since driver 535, and before; an unknown name makes the whole query fail.
NVIDIA_REASONS = ("clocks_event_reasons.active", "clocks_throttle_reasons.active")
NVIDIA_FIELDS = ("name", "memory.total", "driver_version", "power.limit", "pcie.link.gen.current",
                 "pcie.link.gen.max", "pcie.link.width.current", "pcie.link.width.max")
PCIE_GENERATIONS = {"2.5": 1, "5": 2, "8": 3, "16": 4, "32": 5, "64": 6}
PCI_VENDORS = {"0x1002": "AMD", "0x10de": "NVIDIA", "0x8086": "Intel", "0x1ed5": "Moore Threads"}
# Drivers of graphics units that are not on a PCI bus: Jetson, Apple, Snapdragon, Mali.
SOC_DRIVERS = {"tegra-host1x": "NVIDIA", "nvgpu": "NVIDIA", "gk20a": "NVIDIA", "asahi": "Apple",
               "msm_dpu": "Qualcomm", "msm": "Qualcomm", "adreno": "Qualcomm", "panthor": "ARM",
               "panfrost": "ARM"}
# Drivers of servers' management chips and of virtual machines' screens.
DISPLAY_ONLY = re.compile(r"ast|mgag200|sm750\w*|hibmc\S*|bochs\S*|cirrus\S*|qxl|virtio\S*|vmwgfx"
                          r"|vboxvideo|hyperv_drm|vkms|simple\S*|evdi|udl")
UNNAMED = re.compile(r"(?i)(amd )?radeon\W*(tm\W+)?graphics|0x[0-9a-f]+|device .*")


# --- NVIDIA --------------------------------------------------------------------------------------
def nvidia_argv(fields: Iterable[str]) -> list[str]:
    """The command that prints one line per card: the values of `fields`, without units."""
    return ["nvidia-smi", "--query-gpu=" + ",".join(fields), "--format=csv,noheader,nounits"]


def nvidia_query(machine: system.Machine, *fields: str) -> Optional[str]:
    """The output of nvidia-smi, or null without that program."""
    return machine.run(nvidia_argv(fields))


def nvidia_watch(machine: system.Machine) -> Optional[system.Watch]:
    """An nvidia-smi that reports every WATCH_EVERY_S, or null without that program."""
    fields: tuple[str, ...] = NVIDIA_GAUGES
    for name in NVIDIA_REASONS:
        answer = nvidia_query(machine, name)
        if answer is None:
            return None
        if re.match(r"\s*(0x|\[)", answer):
            fields += (name,)
            break
    return machine.watch([*nvidia_argv(fields), "-l", str(system.WATCH_EVERY_S)])


def parse_nvidia_gauges(lines: Iterable[str]) -> list[dict[str, Any]]:
    """Gauges per card from lines of NVIDIA_GAUGES, which may end in the reasons why the clock is
    reduced; memory is in MiB there."""
    cards = []
    for line in lines:
        fields = [field.strip() for field in line.split(",")]
        index = system.whole(fields[0])
        if len(fields) - len(NVIDIA_GAUGES) not in (0, 1) or index is None:
            continue
        reasons = re.fullmatch(r"0x([0-9a-fA-F]{1,16})", fields[-1])
        used_mib = system.whole(fields[2])
        cards.append({
            "index": index, "busy_ratio": system.scaled(system.number(fields[1]), 0.01, 4),
            "memory_used_bytes": None if used_mib is None else used_mib * system.MIB,
            "power_w": system.number(fields[3]), "temperature_c": system.number(fields[4]),
            "clock_mhz": system.number(fields[5]), "power_limit_w": system.number(fields[6]),
            "throttled": bool(int(reasons[1], 16) & NVIDIA_THROTTLE_BITS) if reasons else None})
    return sorted(cards, key=lambda card: card["index"])


def parse_nvidia(text: Optional[str], version: Optional[str]) -> list[dict[str, Any]]:
    """Cards from lines of NVIDIA_FIELDS and the CUDA version from `nvidia-smi --version`, or from
    the head of the table that `nvidia-smi` prints.

    Drivers from 610 print "CUDA UMD version : 13.3", and "Deprecated" for "CUDA version".
    """
    cuda = re.findall(r"(?im)^(?:\| NVIDIA-SMI .* )?CUDA (?:UMD )?Version\s*: (\d{1,2}\.\d{1,2})",
                      version or "")
    cards = []
    for line in (text or "").splitlines():
        fields = [field.strip() for field in line.split(",")]
        if len(fields) != len(NVIDIA_FIELDS):
            continue
        memory_mib, name = system.whole(fields[1]), system.clean(fields[0])
        integrated = bool(INTEGRATED.search(name or ""))
        cards.append({
            "model_name": name, "vendor": "NVIDIA", "integrated": integrated,
            "memory_bytes": SHARED if integrated else
                            memory_mib * system.MIB if memory_mib else None,
            "driver_version": fields[2] if re.fullmatch(r"[\d.]{1,20}", fields[2]) else None,
            "compute_api": f"CUDA {cuda[-1]}" if cuda else None,
            "power_limit_w": system.number(fields[3]) or None,
            **({} if integrated else {
                "pcie_generation_current": system.whole(fields[4]) or None,
                "pcie_generation_max": system.whole(fields[5]) or None,
                "pcie_lanes_current": pcie_lanes(fields[6]),
                "pcie_lanes_max": pcie_lanes(fields[7])})})
    return cards


def mig_sizes_mib(text: Optional[str]) -> list[set[int]]:
    """Memory sizes of each card's instances (MIG), from `nvidia-smi -q -x`."""
    instances = (re.findall(r"(?s)<mig_device>.*?</mig_device>", card)
                 for card in re.findall(r"(?s)<gpu id=.*?</gpu>", text or ""))
    return [set(map(int, re.findall(r"<fb_memory_usage>\s*<total>(\d{1,9}) MiB<", "".join(one))))
            for one in instances]


def nvidia_cards(machine: system.Machine) -> list[dict[str, Any]]:
    """Cards that nvidia-smi lists, possibly none."""
    listed = nvidia_query(machine, *NVIDIA_FIELDS)
    if not listed:
        return []
    version = machine.run(["nvidia-smi", "--version"]) or ""
    if "CUDA" not in version:         # drivers up to 535 have no such option
        version = machine.run(["nvidia-smi"]) or ""
    cards = parse_nvidia(listed, version)
    if any(card["power_limit_w"] is None for card in cards):       # laptops report the other one
        enforced = (nvidia_query(machine, "enforced.power.limit") or "").splitlines()
        for card, line in zip(cards, enforced if len(enforced) == len(cards) else ()):
            card["power_limit_w"] = card["power_limit_w"] or system.number(line) or None
    if "Enabled" in (nvidia_query(machine, "mig.mode.current") or ""):
        sizes = mig_sizes_mib(machine.run(["nvidia-smi", "-q", "-x"]))
        for card, found in zip(cards, sizes if len(sizes) == len(cards) else ()):
            if found:                 # a process can use one instance only
                card["memory_bytes"] = found.pop() * system.MIB if len(found) == 1 else UNEQUAL
    return cards


# --- AMD, Intel and others, from sysfs -----------------------------------------------------------
def pcie_generation(text: Optional[str]) -> Optional[int]:
    """The generation of a link speed as sysfs writes it: "16.0 GT/s PCIe" is 4."""
    found = re.match(r"(\d+(?:\.5)?)(?:\.0)? GT/s", text or "", re.ASCII)
    return PCIE_GENERATIONS.get(found.group(1)) if found else None


def pcie_lanes(text: Optional[str]) -> Optional[int]:
    """Lanes of a link, or null: sysfs writes 0 and 255 for chips that have no link of their own."""
    lanes = system.whole(text)
    return lanes if lanes in (1, 2, 4, 8, 12, 16, 32) else None


def drm_folders(machine: system.Machine) -> tuple[list[str], list[str]]:
    """sysfs folders of the cards that the amdgpu driver runs, and of the others that have a known
    vendor, NVIDIA's included."""
    cards = [f"{DRM}/{name}/device" for name in system.numbered(machine.names(DRM), r"card\d+")]
    amd = [folder for folder in cards if machine.read(f"{folder}/mem_info_vram_total") is not None]
    return amd, [folder for folder in cards if folder not in amd and _vendor(machine, folder)]


def _driver(machine: system.Machine, folder: str) -> str:
    found = re.search(r"^DRIVER=(\S+)$", machine.read(f"{folder}/uevent") or "", re.MULTILINE)
    return found[1] if found else ""


def _vendor(machine: system.Machine, folder: str) -> Optional[str]:
    return PCI_VENDORS.get((machine.read(f"{folder}/vendor") or "").strip()) \
        or SOC_DRIVERS.get(_driver(machine, folder))


def has_unknown_card(machine: system.Machine) -> bool:
    """Whether sysfs lists a PCI card of another vendor that may compute."""
    folders = [f"{DRM}/{name}/device" for name in system.numbered(machine.names(DRM), r"card\d+")]
    return any(machine.read(f"{folder}/vendor") and not _vendor(machine, folder)
               and not DISPLAY_ONLY.fullmatch(_driver(machine, folder)) for folder in folders)


def is_nvidia(machine: system.Machine, folder: str) -> bool:
    """Whether nvidia-smi reports this card's gauges, too."""
    return _vendor(machine, folder) == "NVIDIA"


def _device_id(machine: system.Machine, folder: str) -> int:
    found = re.fullmatch(r"0x([0-9a-f]{1,4})", (machine.read(f"{folder}/device") or "").strip())
    return int(found[1], 16) if found else 0


def _slot(machine: system.Machine, folder: str) -> str:
    found = re.search(r"^PCI_SLOT_NAME=([0-9a-f:.]{7,16})$",
                      machine.read(f"{folder}/uevent") or "", re.MULTILINE)
    return found[1] if found else ""


def hwmon(machine: system.Machine, folder: str) -> str:
    """Folder of a card's sensors."""
    return next((f"{folder}/hwmon/{name}" for name in machine.names(f"{folder}/hwmon")), folder)


def _slot_folder(machine: system.Machine, folder: str) -> str:
    """Folder of the device that has a card's link to its slot.

    AMD's and Intel's cards have a PCIe switch of their own. The link of the graphics chip is the
    one to that switch, which Intel's report as one lane of generation 1.
    """
    vendor, *above = (machine.read(f"{folder}{up}/vendor") for up in ("", "/..", "/../.."))
    return f"{folder}/../.." if vendor and above == [vendor, vendor] else folder


def is_integrated(machine: system.Machine, folder: str) -> bool:
    """Whether a card is part of the processor.

    AMD's processors have device ids below 0x2000 or of 0x98.., and MI300A; Intel's are at 00:02.0.
    """
    vendor, device = _vendor(machine, folder), _device_id(machine, folder)
    if vendor == "AMD":
        return 0 < device < 0x2000 or device >> 8 == 0x98 or device == 0x74a0
    if vendor == "Intel":
        return _slot(machine, folder) == "0000:00:02.0"
    return machine.read(f"{folder}/vendor") is None


def drm_gauges(machine: system.Machine, folder: str, index: int) -> dict[str, Any]:
    """Gauges of one card; sysfs gives µW, thousandths of a degree, Hz. An integrated AMD unit uses
    the machine's memory through GTT."""
    sensors = hwmon(machine, folder)

    def gauge(*paths: str) -> Optional[float]:
        return next((value for value in map(system.number, map(machine.read, paths))
                     if value is not None), None)

    parts = ("vram", "gtt") if is_integrated(machine, folder) else ("vram",)
    return {"index": index,
            "busy_ratio": system.scaled(gauge(f"{folder}/gpu_busy_percent"), 0.01, 4),
            "memory_used_bytes": system.total(
                system.whole(machine.read(f"{folder}/mem_info_{part}_used")) for part in parts),
            "power_w": system.scaled(
                gauge(f"{sensors}/power1_average", f"{sensors}/power1_input"), 1e-6),
            "temperature_c": system.scaled(
                gauge(f"{sensors}/temp1_input", f"{sensors}/temp2_input"), 1e-3),
            "clock_mhz": system.scaled(gauge(f"{sensors}/freq1_input"), 1e-6), "throttled": None}


def parse_lspci_name(text: Optional[str]) -> Optional[str]:
    """The device's name from one line of `lspci -mm`: the part in brackets if there is one."""
    quoted = re.findall(r'"([^"]*)"', text or "")
    if len(quoted) < 3:
        return None
    bracket = re.search(r"\[(.+)\]", quoted[2])
    return system.clean(bracket.group(1) if bracket else quoted[2])


def _choose(name: Optional[str], cpu_name: Optional[str]) -> Optional[str]:
    """Of a name with alternatives ("Radeon 8050S Graphics / Radeon 8060S Graphics") the one that
    the processor's name mentions ("w/ Radeon 8060S"), else the whole."""
    for part in (name or "").split(" / ") if " / " in (name or "") else ():
        token = re.search(r"\d{3,4}[MS]\b", part)
        if token and re.search(rf"\b{token[0]}\b", cpu_name or ""):
            return part if part.startswith("Radeon") else f"Radeon {part}"
    return name


def _rocm(machine: system.Machine, option: str) -> dict[str, dict[str, Any]]:
    """`rocm-smi OPTION --json` per card; warnings may precede the JSON."""
    text = machine.run(["rocm-smi", option, "--json"]) or ""
    listed = system.parse_json(text[max(text.find("{"), 0):])
    cards = listed if isinstance(listed, dict) else {}
    return {name: cards[name] for name in system.numbered(cards, r"card\d+")
            if isinstance(cards[name], dict)}


def _series(card: dict[str, Any]) -> str:
    """The name of a card; newer versions of rocm-smi may give it as the device's name alone."""
    names = [system.clean(card.get(key)) or "" for key in (
        "Card series", "Card Series", "Device Name")]
    return next((name for name in names if name and not UNNAMED.fullmatch(name)),
                next(filter(None, names), ""))


def rocm_names(machine: system.Machine, folders: Sequence[str]) -> dict[str, str]:
    """{folder: name} from rocm-smi, whose order is not sysfs's.

    Cards are matched by bus address, else by device id, else as the only ones of their kind.
    """
    listed = _rocm(machine, "--showproductname")
    buses = _rocm(machine, "--showbus") if len(listed) > 1 else {}
    # Older versions give the chip, with the card's name in brackets.
    series = {key: re.sub(r"^.*\[(AMD .+|Radeon .+|Instinct .+)\]$", r"\1", _series(card))
              for key, card in listed.items()}
    models = {key: str(card.get("Card model") or card.get("Card Model")).lower()
              for key, card in listed.items()}
    found: dict[str, str] = {}
    for folder in folders:
        slot, device = _slot(machine, folder), f"{_device_id(machine, folder):#06x}"
        alike = is_integrated(machine, folder)
        matches = [key for key, item in buses.items()
                   if slot and str(item.get("PCI Bus")).lower() == slot]
        matches = matches or [key for key, model in models.items() if model == device]
        if not matches and len(listed) == len(folders):
            peers = [other for other in folders if is_integrated(machine, other) == alike]
            kin = [key for key, name in series.items()
                   if bool(UNNAMED.fullmatch(name)) == alike or len(listed) == 1]
            matches = kin if len(kin) == len(peers) else []
        if len({series[key] for key in matches if key in series}) == 1:
            found[folder] = series[matches[0]]
    return found


def drm_card(machine: system.Machine, folder: str, rocm_name: Optional[str] = None,
             cpu_name: Optional[str] = None) -> dict[str, Any]:
    """One card that sysfs lists."""
    vendor, slot, device = (_vendor(machine, folder), _slot(machine, folder),
                            _device_id(machine, folder))
    revision = re.fullmatch(r"0x([0-9a-f]{1,2})",
                            (machine.read(f"{folder}/revision") or "").strip())
    exact = re.search(rf"(?im)^{device:X},\s*0?{revision[1]},\s*(.+)$" if revision else "(?!)",
                      machine.read("/usr/share/libdrm/amdgpu.ids") or "")
    names = [system.clean(exact[1]) if exact else None, rocm_name,
             _choose(parse_lspci_name(machine.run(["lspci", "-mm", "-s", slot])), cpu_name)
             if slot else None]
    specific = [name for name in names if name and not UNNAMED.fullmatch(name)]
    generic = [name for name in names if name and not name.lower().startswith(("0x", "device"))]
    sensors = hwmon(machine, folder)
    sizes = [system.whole(machine.read(path)) for path in (
        f"{folder}/mem_info_vram_total", f"{folder}/lmem_total_bytes",
        folder.replace("/device", "/lmem_total_bytes"))]
    tiles = [system.whole(machine.read(f"{folder}/{name}/physical_vram_size_bytes"))
             for name in system.numbered(machine.names(folder), r"tile\d+")]
    integrated, link = is_integrated(machine, folder), _slot_folder(machine, folder)
    limits = [system.number(machine.read(f"{sensors}/power1_{name}")) for name in ("cap", "max")]
    return {
        "model_name": next(iter(specific + generic), None)
                      or (system.clean(f"{vendor} {device:#06x}") if device else None),
        "vendor": vendor, "integrated": integrated,
        "memory_bytes": SHARED if integrated else
                        next(filter(None, [*sizes, system.total(tiles)]), None),
        "power_limit_w": system.scaled(next(filter(None, limits), None), 1e-6),
        **{f"pcie_{name}_{when}": None if integrated else
           read(machine.read(f"{link}/{when}_link_{file}"))
           for name, file, read in (("generation", "speed", pcie_generation),
                                    ("lanes", "width", pcie_lanes))
           for when in ("current", "max")}}


def linux_accelerators(machine: system.Machine,
                       cpu_name: Optional[str] = None) -> Optional[list[dict[str, Any]]]:
    """NVIDIA's cards from nvidia-smi, then AMD's, then the others, as `Sampler` numbers them."""
    nvidia, (amd, others) = nvidia_cards(machine), drm_folders(machine)
    names = rocm_names(machine, amd) if amd else {}
    rocm = re.match(r"\d[\d.]{1,10}", machine.read("/opt/rocm/.info/version") or "", re.ASCII)
    cards = list(nvidia)
    cards += [{**drm_card(machine, folder, names.get(folder), cpu_name),
               "compute_api": f"ROCm {rocm.group(0)}" if rocm else None} for folder in amd]
    cards += [drm_card(machine, folder) for folder in others
              if not (nvidia and is_nvidia(machine, folder))]
    return cards


def shares_memory(cards: Optional[Sequence[dict[str, Any]]]) -> Optional[bool]:
    """Whether the accelerators use the machine's memory; null if only some do, or none is known."""
    kinds = {bool(card["integrated"]) for card in cards or () if card.get("integrated") is not None}
    return kinds.pop() if len(kinds) == 1 else None


# --- Apple ---------------------------------------------------------------------------------------
def parse_ioreg_gpu(text: Optional[str]) -> list[dict[str, Any]]:
    """Utilisation and memory of Apple's GPU from `ioreg -r -d 1 -c IOAccelerator`."""
    busy = re.search(r'"Device Utilization %"=(\d{1,3})\b', text or "")
    used = re.search(r'"In use system memory"=(\d{1,18})\b', text or "")
    if not busy and not used:
        return []
    return [{"index": 0, "busy_ratio": system.scaled(int(busy[1]), 0.01, 4) if busy else None,
             "memory_used_bytes": int(used[1]) if used else None, "power_w": None,
             "temperature_c": None, "clock_mhz": None, "throttled": None}]
