"""Read the facts and gauges of a Linux machine."""
from __future__ import annotations

import re
from typing import Any, Optional, Sequence

from machine import gpus, system

# ---------------------------------------------------------------- gauges: Linux

def parse_meminfo(text: Optional[str]) -> dict[str, int]:
    """/proc/meminfo to {name: bytes}; its "kB" are KiB."""
    found = re.findall(r"^(\w+):\s+(\d{1,18}) kB\s*$", text or "", re.MULTILINE | re.ASCII)
    return {name: int(kib) * 1024 for name, kib in found}


def linux_memory(text: Optional[str]) -> dict[str, Optional[int]]:
    """Memory gauges, in bytes, from /proc/meminfo; "used" is what is not available."""
    info = parse_meminfo(text)
    available = info.get("MemAvailable")
    return {"memory_used_bytes": system.difference(info.get("MemTotal"), available),
            "memory_available_bytes": available,
            "swap_used_bytes": system.difference(info.get("SwapTotal"), info.get("SwapFree"))}


def parse_proc_stat(text: Optional[str]) -> Optional[system.CpuTimes]:
    """The first line of /proc/stat. Guest time stands in user time already, so it is not added."""
    found = re.match(r"cpu +((?:\d{1,20} ?){8,10})\n", text or "", re.ASCII)
    if not found:
        return None
    user, nice, kernel, idle, waiting, irq, softirq, stolen = map(int, found.group(1).split()[:8])
    busy = user + nice + kernel + irq + softirq
    return system.CpuTimes(busy, stolen, busy + stolen + idle + waiting)


def linux_power_source(machine: system.Machine) -> Optional[str]:
    """"battery" where one discharges, "ac" where mains is on or a battery does not; else null."""
    folder, charged = "/sys/class/power_supply", None
    for name in machine.names(folder):
        kind = (machine.read(f"{folder}/{name}/type") or "").strip()
        scope = (machine.read(f"{folder}/{name}/scope") or "").strip()
        status = (machine.read(f"{folder}/{name}/status") or "").strip()
        online = (machine.read(f"{folder}/{name}/online") or "").strip()
        if scope == "Device":             # a mouse's or a headset's battery
            continue
        if kind == "Battery" and status == "Discharging":
            return "battery"
        if (kind in ("Mains", "USB") and online == "1") or (kind == "Battery" and status in (
                "Charging", "Full", "Not charging")):
            charged = "ac"
    return charged


def linux_cpu_mhz(machine: system.Machine) -> Optional[float]:
    """Clock of the fastest core now, in MHz: idle cores clock down and would hide a busy one's."""
    folder = "/sys/devices/system/cpu/cpufreq"
    policies = system.numbered(machine.names(folder), r"policy\d+")
    return system.scaled(system.maximum(system.number(machine.read(f"{folder}/{name}/scaling_cur_freq"))
                       for name in policies), 1e-3, 1)


def linux_throttle_count(machine: system.Machine) -> Optional[int]:
    """How often cores and packages were throttled since the start; differences are what counts."""
    folder = "/sys/devices/system/cpu"
    cpus = system.numbered(machine.names(folder), r"cpu\d+")
    cores = system.total(system.whole(machine.read(f"{folder}/{name}/thermal_throttle/core_throttle_count"))
                 for name in cpus)
    package = system.maximum(system.whole(machine.read(f"{folder}/{name}/thermal_throttle/package_throttle_count"))
                   for name in cpus)
    count = system.total((cores, package))
    return None if count is None else int(count)


CPU_SENSORS = ("coretemp", "k10temp", "zenpower", "cpu_thermal", "cpu-thermal", "x86_pkg_temp",
               "soc_thermal", "soc-thermal", "cpu", "CPU-therm")


def linux_temperature_path(machine: system.Machine) -> list[str]:
    """Files that hold a CPU's temperature in thousandths of a degree."""
    sensors = [(f"/sys/class/hwmon/{name}", "name", "temp1_input")
               for name in machine.names("/sys/class/hwmon")]
    sensors += [(f"/sys/class/thermal/{name}", "type", "temp")
                for name in machine.names("/sys/class/thermal")]
    found = [f"{folder}/{gauge}" for folder, label, gauge in sensors
             if (machine.read(f"{folder}/{label}") or "").strip() in CPU_SENSORS]
    return [path for path in found if system.number(machine.read(path)) is not None]


def linux_energy(machine: system.Machine) -> dict[str, tuple[int, int]]:
    """RAPL counters of the CPU packages: {name: (µJ, µJ at which it begins again)}.

    Only root can read them on kernels since 2020 (CVE-2020-8694).
    """
    found = {}
    for name in system.numbered(machine.names("/sys/class/powercap"), r"intel-rapl:\d+"):
        folder = f"/sys/class/powercap/{name}"
        if not (machine.read(f"{folder}/name") or "").startswith("package"):
            continue
        counted = system.whole(machine.read(f"{folder}/energy_uj"))
        limit = system.whole(machine.read(f"{folder}/max_energy_range_uj"))
        if counted is not None and limit:
            found[name] = (counted, limit)
    return found


def energy_between(before: dict[str, tuple[int, int]], after: dict[str, tuple[int, int]]) -> int:
    """µJ used between two readings; a counter that went down began again once."""
    return sum((after[name][0] - before[name][0]) % after[name][1]
               for name in after if name in before)


# The start of a release and the words of distributions; a build's own suffix may be a host's or a
# person's name, so the release ends before the first word that is not here.
KERNEL_WORDS = re.compile(
    r"\d[\d.]*|rc\d+|generic|lowlatency|hwe|oem|aws|azure|gcp|gke|kvm|oracle|ibm|cloud|virtual|server"
    r"|amd64|arm64|x86|x86_64|aarch64|armv[78]l?|v[78]l?|raspi|rpi|rpt|tegra|rockchip|sunxi|standard"
    r"|microsoft|WSL2|el\d+\w{0,3}|amzn\d+|fc\d+|bpo|deb\d+u?\d*|arch\d*|zen\d*|lts|hardened|rt\d*"
    r"|default|desktop|pve|xanmod\d*|liquorix|cachyos|asahi|bazzite|nixos|gentoo|MANJARO|ARCH")


def public_kernel_release(release: Optional[str]) -> Optional[str]:
    """The kernel release up to the first word that no distribution uses."""
    kept = ""
    for separator, word in re.findall(r"([-.+~_]?)([^-.+~_]+)", system.clean(release) or ""):
        if not KERNEL_WORDS.fullmatch(word):
            break
        kept += separator + word
    return kept or None


# ---------------------------------------------------------------- the inventory: Linux

INSTRUCTION_SETS = {                  # the kernel's flag: the name we use
    **{flag: flag for flag in (
        "avx", "avx2", "fma", "f16c", "avx_vnni", "avx512f", "avx512bw", "avx512_vnni",
        "avx512_bf16", "avx512_fp16", "amx_tile", "amx_int8", "amx_bf16", "sve", "sve2", "i8mm",
        "bf16", "sme")},
    "asimd": "neon", "neon": "neon", "asimddp": "dotprod", "asimdhp": "fp16"}


def parse_cpuinfo(text: Optional[str]) -> dict[str, Any]:
    """/proc/cpuinfo: model_name, vendor, flags and threads_count; ARM names no model there."""
    names = {name.strip(): value.strip() for name, _, value in (
        line.partition(":") for line in reversed((text or "").splitlines())) if value}
    flags = (names.get("flags") or names.get("Features") or "").split()
    return {"model_name": system.clean(names.get("model name")), "vendor": system.clean(names.get("vendor_id")),
            "flags": flags,
            "threads_count": len(re.findall(r"^processor\s*:", text or "", re.MULTILINE)) or None}


def parse_lscpu(text: Optional[str]) -> dict[str, Optional[str]]:
    """model_name and vendor from `lscpu`, which knows ARM's part numbers; big and little joined."""
    models = re.findall(r"^\s*Model name:\s+(.+)$", text or "", re.MULTILINE)
    vendors = re.findall(r"^\s*Vendor ID:\s+(.+)$", text or "", re.MULTILINE)
    return {"model_name": system.clean(" + ".join(m for m in dict.fromkeys(models) if m.strip() != "-")),
            "vendor": system.clean(vendors[0]) if vendors else None}


def parse_cpu_list(text: Optional[str]) -> set[int]:
    """"0-3,8" to {0, 1, 2, 3, 8}."""
    if not re.fullmatch(r"\d{1,5}(?:-\d{1,5})?(?:,\d{1,5}(?:-\d{1,5})?)*", (text or "").strip()):
        return set()
    found: set[int] = set()
    for part in (text or "").split(","):
        first, _, last = part.partition("-")
        found.update(range(int(first), int(last or first) + 1))
    return found


def linux_cores(machine: system.Machine) -> dict[int, tuple[str, str]]:
    """{CPU: (package, core)} of the CPUs that are online."""
    folder, found = "/sys/devices/system/cpu", {}
    for name in system.numbered(machine.names(folder), r"cpu\d+"):
        core = machine.read(f"{folder}/{name}/topology/core_id")
        package = machine.read(f"{folder}/{name}/topology/physical_package_id")
        if core is not None and package is not None:
            found[int(name[3:])] = (package.strip(), core.strip())
    return found


LITTLE_SHARE = 0.7                    # of the biggest core's capacity; below it a core is small


def linux_core_kinds(machine: system.Machine,
                     cores: dict[int, tuple[str, str]]) -> dict[str, Optional[int]]:
    """Counts of performance and efficiency cores: Intel lists them, ARM gives capacities."""
    big = parse_cpu_list(machine.read("/sys/devices/cpu_core/cpus"))
    little = parse_cpu_list(machine.read("/sys/devices/cpu_atom/cpus"))
    if not big or not little:
        capacity = {cpu: system.whole(machine.read(f"/sys/devices/system/cpu/cpu{cpu}/cpu_capacity")) or 0
                    for cpu in cores}
        biggest = max(capacity.values(), default=0)
        little = {cpu for cpu, value in capacity.items() if 0 < value < biggest * LITTLE_SHARE}
        big = capacity.keys() - little
    if not big or not little:
        return {}
    return {"performance_cores_count": len({cores[cpu] for cpu in big if cpu in cores}) or None,
            "efficiency_cores_count": len({cores[cpu] for cpu in little if cpu in cores}) or None}


def parse_size_kib(text: Optional[str]) -> Optional[int]:
    """"48K" or "32M" in KiB, or null."""
    found = re.fullmatch(r"\s*(\d{1,9})([KM])\s*", text or "", re.ASCII)
    return int(found.group(1)) * {"K": 1, "M": 1024}[found.group(2)] if found else None


def linux_caches(machine: system.Machine) -> dict[str, int]:
    """Sizes in KiB, all caches of one level together; CPUs that share a cache count it once."""
    folder, sizes = "/sys/devices/system/cpu", {}
    for name in system.numbered(machine.names(folder), r"cpu\d+"):
        for index in machine.names(f"{folder}/{name}/cache"):
            level, kind, shared, size = (
                (machine.read(f"{folder}/{name}/cache/{index}/{part}") or "").strip()
                for part in ("level", "type", "shared_cpu_list", "size"))
            field = {"1Data": "l1d", "2Unified": "l2", "3Unified": "l3"}.get(level + kind)
            kib = parse_size_kib(size)
            if field and kib:
                sizes[field, shared] = kib
    found: dict[str, int] = {}
    for (field, _), kib in sizes.items():
        found[f"cache_{field}_kib"] = found.get(f"cache_{field}_kib", 0) + kib
    return found


def parse_cgroups(text: Optional[str], controller: str) -> list[str]:
    """Folders whose limits hold for this process, from /proc/self/cgroup; the innermost first."""
    folders = []
    for line in (text or "").splitlines():
        hierarchy, _, rest = line.partition(":")
        names, _, path = rest.partition(":")
        if hierarchy == "0" and not names:
            root = "/sys/fs/cgroup"
        elif controller in names.split(","):
            root = f"/sys/fs/cgroup/{controller}"
        else:
            continue
        parts = [part for part in path.split("/") if part not in ("", "..")]
        folders += ["/".join([root, *parts[:end]]) for end in range(len(parts), -1, -1)]
    return folders


def linux_memory_limit(machine: system.Machine) -> Optional[int]:
    """The least memory limit of the control groups that this process is in, in bytes, or null."""
    limits = [system.whole(machine.read(f"{folder}/{name}"))
              for folder in parse_cgroups(machine.read("/proc/self/cgroup"), "memory")
              for name in ("memory.max", "memory.limit_in_bytes")]
    return min((limit for limit in limits if limit), default=None)


def parse_cpu_quota(text: Optional[str]) -> Optional[float]:
    """CPUs that "quota period" in µs allow ("150000 100000" is 1.5); "max" and -1 are no limit."""
    fields = [system.whole(field) for field in (text or "").split()]
    if len(fields) != 2 or not fields[0] or not fields[1]:
        return None
    return round(fields[0] / fields[1], 2)


def linux_cpu_quota(machine: system.Machine) -> Optional[float]:
    """The least number of CPUs that the control groups of this process allow, or null."""
    quotas = []
    for folder in parse_cgroups(machine.read("/proc/self/cgroup"), "cpu"):
        older = [machine.read(f"{folder}/cpu.cfs_{name}_us") or "" for name in ("quota", "period")]
        quotas += [parse_cpu_quota(machine.read(f"{folder}/cpu.max")),
                   parse_cpu_quota(" ".join(older))]
    return min((quota for quota in quotas if quota), default=None)


def linux_cpu(machine: system.Machine) -> dict[str, Any]:
    """Section "cpu"."""
    info, cores = parse_cpuinfo(machine.read("/proc/cpuinfo")), linux_cores(machine)
    if not info["model_name"]:
        info.update(parse_lscpu(machine.run(["lscpu"])))
    folder = "/sys/devices/system/cpu/cpufreq"
    policies = system.numbered(machine.names(folder), r"policy\d+")
    clocks = {field: system.scaled(system.maximum(system.whole(machine.read(f"{folder}/{policy}/{name}"))
                                 for policy in policies), 1e-3, 1)
              for field, name in (("base_mhz", "base_frequency"), ("max_mhz", "cpuinfo_max_freq"))}
    usable = [machine.affinity_count(), linux_cpu_quota(machine), info["threads_count"]]
    return {**info, **linux_caches(machine), **linux_core_kinds(machine, cores), **clocks,
            "base_mhz": clocks["base_mhz"] or system.clock_in_name(info["model_name"]),
            "physical_cores_count": len(set(cores.values())) or None,
            "usable_threads_count": min((count for count in usable if count), default=None),
            "instruction_sets": sorted({INSTRUCTION_SETS[flag] for flag in info["flags"]
                                        if flag in INSTRUCTION_SETS})}


MODULE_FIELDS = ("TYPE", "SPEED_MTS", "CONFIGURED_SPEED_MTS", "DATA_WIDTH", "SIZE", "LOCATOR",
                 "BANK_LOCATOR")
MODULE_SLOTS = 32


def udev_argv() -> list[str]:
    """Asks udev, which reads the firmware's list as root, for these fields and for no serial."""
    names = [f"MEMORY_DEVICE_{slot}_{field}" for slot in range(MODULE_SLOTS)
             for field in MODULE_FIELDS]
    return ["udevadm", "info", "--query=property", "--path=/devices/virtual/dmi/id",
            "--property=" + ",".join(names)]


def parse_udev_modules(text: Optional[str]) -> list[system.Module]:
    """Modules fitted, from udev's MEMORY_DEVICE_<slot>_<FIELD>=value."""
    slots: dict[str, dict[str, str]] = {}
    for slot, field, value in re.findall(r"^MEMORY_DEVICE_(\d{1,2})_([A-Z_]+)=(.*)$", text or "",
                                         re.MULTILINE | re.ASCII):
        slots.setdefault(slot, {})[field] = value
    return [system.Module(system.clean(slot.get("TYPE")),
                   system.whole(slot.get("CONFIGURED_SPEED_MTS")) or system.whole(slot.get("SPEED_MTS")),
                   system.whole(slot.get("DATA_WIDTH")),
                   f"{slot.get('BANK_LOCATOR', '')} {slot.get('LOCATOR', '')}")
            for slot in slots.values() if system.whole(slot.get("SIZE"))]


def linux_memory_inventory(machine: system.Machine) -> dict[str, Any]:
    """Section "memory"."""
    info = parse_meminfo(machine.read("/proc/meminfo"))
    capacity, limit = info.get("MemTotal"), linux_memory_limit(machine)
    limited = limit is not None and (capacity is None or limit < capacity)
    return {**system.memory_of_modules(parse_udev_modules(machine.run(udev_argv()))),
            "capacity_bytes": capacity, "limit_bytes": limit if limited else None,
            "swap_bytes": info.get("SwapTotal")}


CHASSIS_KINDS = {                     # SMBIOS 7.4.1
    **dict.fromkeys((8, 9, 10, 14, 30, 31, 32), "laptop"),
    **dict.fromkeys((3, 4, 5, 6, 7, 13, 15, 16, 24, 35, 36), "desktop"),
    **dict.fromkeys((17, 23, 25, 28, 29), "server")}


def linux_virtualization(machine: system.Machine, flags: Sequence[str]) -> Optional[str]:
    """"none", or which: kvm, vmware, wsl2 ...; "vm" where only the CPU says that there is one."""
    if "microsoft" in (machine.kernel_release or "").lower():
        return "wsl2"
    told = (machine.run(["systemd-detect-virt", "--vm"]) or "").strip()
    if re.fullmatch(r"[a-z0-9-]{1,20}", told):
        return told
    if "hypervisor" in flags:
        return "vm"
    return "none" if "fpu" in flags else None         # x86 has the flag where there is one


def linux_container(machine: system.Machine) -> Optional[str]:
    """"none", or which: docker, podman, lxc ...; null where nothing tells."""
    told = (machine.run(["systemd-detect-virt", "--container"]) or "").strip()
    if re.fullmatch(r"[a-z0-9-]{1,20}", told):
        return "none" if told == "wsl" else told
    marks = (("/.dockerenv", "docker"), ("/run/.containerenv", "podman"))
    return next((name for path, name in marks if machine.read(path) is not None), None)


def linux_system(machine: system.Machine) -> dict[str, Any]:
    """Section "system"."""
    folder = "/sys/class/dmi/id"
    dmi = {name: system.clean(machine.read(f"{folder}/{name}")) or "" for name in (
        "sys_vendor", "product_name", "product_version", "board_vendor", "board_name")}
    board = system.clean(machine.read("/proc/device-tree/model"))
    virtualization = linux_virtualization(
        machine, parse_cpuinfo(machine.read("/proc/cpuinfo"))["flags"])
    kind: Any = CHASSIS_KINDS.get(system.whole(machine.read(f"{folder}/chassis_type")) or 0)
    if virtualization == "wsl2":
        kind = system.Unknown("WSL hides the machine that it runs on")
    elif virtualization not in ("none", None):
        kind = "vm"
    elif kind is None and board:
        kind = "laptop" if "book" in board.lower() else "sbc"
    return {"kind": kind, "model_name": system.firmware_name(dmi) or board,
            "virtualization": virtualization, "container": linux_container(machine)}


def parse_os_release(text: Optional[str]) -> dict[str, Optional[str]]:
    """name and version of the distribution."""
    names = dict(re.findall(r"^([A-Z_]+)=[\"']?([^\"'\n]*)", text or "", re.MULTILINE))
    return {"name": system.clean(names.get("NAME")), "version": system.clean(names.get("VERSION_ID"))}


def linux_power(machine: system.Machine) -> dict[str, Any]:
    """Section "power"."""
    mode = machine.read("/sys/firmware/acpi/platform_profile")
    if mode is None:
        mode = machine.run(["powerprofilesctl", "get"])
    governor = machine.read("/sys/devices/system/cpu/cpufreq/policy0/scaling_governor")
    return {"source": linux_power_source(machine), "mode": system.word(mode), "governor": system.word(governor)}


def linux_inventory(machine: system.Machine) -> dict[str, Any]:
    """All sections, as values without sources."""
    return {"system": linux_system(machine), "cpu": linux_cpu(machine),
            "memory": linux_memory_inventory(machine), "accelerators": gpus.linux_accelerators(machine),
            "os": parse_os_release(machine.read("/etc/os-release")), "power": linux_power(machine)}
