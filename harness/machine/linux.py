"""Read the facts and gauges of a Linux or Android machine."""
from __future__ import annotations

import re
from typing import Any, Iterable, Optional, Sequence

from machine import gpus, system

CPU_FOLDER = "/sys/devices/system/cpu"
DMI = "/sys/class/dmi/id"
LITTLE_SHARE = 0.75                   # of the largest core's capacity; a core below it is small
MODULE_SLOTS = 64
MODULE_FIELDS = ("TYPE", "SPEED_MTS", "CONFIGURED_SPEED_MTS", "DATA_WIDTH", "SIZE", "LOCATOR",
                 "BANK_LOCATOR")
INSTRUCTION_SETS = {                  # the kernel's flag: our name
    **{flag: flag for flag in (
        "avx", "avx2", "fma", "f16c", "avx_vnni", "avx512f", "avx512bw", "avx512_vnni",
        "avx512_bf16", "avx512_fp16", "amx_tile", "amx_int8", "amx_bf16", "sve", "sve2", "i8mm",
        "bf16", "sme")},
    "asimd": "neon", "neon": "neon", "asimddp": "dotprod", "asimdhp": "fp16"}
# MIDR_EL1's implementers, and the parts that matter: lscpu is missing on Alpine and Android.
ARM_VENDORS = {0x41: "ARM", 0x42: "Broadcom", 0x43: "Cavium", 0x46: "Fujitsu", 0x48: "HiSilicon",
               0x4e: "NVIDIA", 0x50: "APM", 0x51: "Qualcomm", 0x53: "Samsung", 0x61: "Apple",
               0x6d: "Microsoft", 0x70: "Phytium", 0xc0: "Ampere"}
ARM_PARTS = {(0x41, int(part, 16)): name for part, _, name in (row.partition(" ") for row in (
    "c07 Cortex-A7", "c0f Cortex-A15", "d03 Cortex-A53", "d04 Cortex-A35", "d05 Cortex-A55",
    "d07 Cortex-A57", "d08 Cortex-A72", "d09 Cortex-A73", "d0a Cortex-A75", "d0b Cortex-A76",
    "d0c Neoverse-N1", "d0d Cortex-A77", "d40 Neoverse-V1", "d41 Cortex-A78", "d42 Cortex-A78AE",
    "d44 Cortex-X1", "d46 Cortex-A510", "d47 Cortex-A710", "d48 Cortex-X2", "d49 Neoverse-N2",
    "d4b Cortex-A78C", "d4c Cortex-X1C", "d4d Cortex-A715", "d4e Cortex-X3", "d4f Neoverse-V2",
    "d80 Cortex-A520", "d81 Cortex-A720", "d82 Cortex-X4", "d83 Neoverse-V3AE",
    "d84 Neoverse-V3", "d85 Cortex-X925", "d87 Cortex-A725", "d8a C1-Nano", "d8b C1-Pro",
    "d8c C1-Ultra", "d8e Neoverse-N3", "d90 C1-Premium"))}
ARM_PARTS.update({(0x51, 0x001): "Oryon", (0x51, 0x802): "Kryo-3XX-Gold",
                  (0x51, 0x803): "Kryo-3XX-Silver", (0x51, 0x804): "Kryo-4XX-Gold",
                  (0x51, 0x805): "Kryo-4XX-Silver", (0x4e, 0x004): "Carmel",
                  (0xc0, 0xac3): "Ampere-1", (0xc0, 0xac4): "Ampere-1a",
                  (0x46, 0x001): "A64FX", (0x48, 0xd01): "TaiShan-v110",
                  (0x48, 0xd02): "TaiShan-v120", (0x6d, 0xd49): "Azure-Cobalt-100",
                  (0x70, 0x662): "FTC662", (0x70, 0x663): "FTC663", (0x70, 0x862): "FTC862"})
CPU_SENSORS = ("coretemp", "k10temp", "zenpower", "cpu_thermal", "cpu-thermal", "x86_pkg_temp",
               "soc_thermal", "soc-thermal", "cpu", "CPU-therm")
# Words of distributions in a kernel release. The suffix of a private build may be the name of a
# host or a person, so the release ends before the first word that is not among these.
KERNEL_WORDS = re.compile(
    r"(?i)\d[\d.]*(server(r2)?)?|(el|deb|rk|oe)\d+\w{0,3}|(rc|r|amzn|fc|an|ky|ba|valve|x64v|v|p)\d+"
    r"|(rpi|bpo|arch|zen|rt|xanmod|kali|android|ogc)\d*|(armv|v)[78]l?|g[0-9a-f]{7,12}"
    r"|(rockchip|sunxi|meson)(64)?|" + "|".join("""
    generic lowlatency realtime hwe oem aws azure gcp gke kvm oracle ibm intel cloud virtual virt
    server amd64 arm64 x86 aarch64 i386 i686 ppc64le s390x riscv64 loong64 loongarch64 raspi rpt
    tegra rk35xx standard microsoft wsl2 default longterm desktop pve lts hardened liquorix cachyos
    asahi bazzite nixos gentoo dist manjaro nvidia qcom x1e 16k 64k gki current edge vendor legacy
    linuxkit orbstack unraid production truenas talos flatcar qubes elrepo starfive spacemit
    neptune perf release""".split()))
CHASSIS_KINDS = {                     # SMBIOS 7.4.1
    **dict.fromkeys((8, 9, 10, 14, 30, 31, 32), "laptop"),
    **dict.fromkeys((3, 4, 5, 6, 7, 13, 15, 16, 24, 35, 36), "desktop"),
    **dict.fromkeys((17, 23, 25, 28, 29), "server")}
# What systemd-detect-virt prints; what it calls otherwise is published as unknown.
HYPERVISORS = frozenset((
    "none", "kvm", "qemu", "amazon", "zvm", "vmware", "microsoft", "oracle", "powervm", "xen",
    "bochs", "uml", "parallels", "bhyve", "qnx", "acrn", "apple", "sre", "google", "vm-other"))
CONTAINERS = frozenset((
    "none", "docker", "podman", "lxc", "lxc-libvirt", "systemd-nspawn", "openvz", "rkt", "wsl",
    "proot", "pouch", "container-other"))
WSL_HIDES = system.Unknown("WSL hides the machine that it runs on")
NO_KIND = system.Unknown("phones and tablets have no kind of their own")
# Kinds of machines whose firmware gives a device tree instead of DMI tables: its chassis-type, or
# else words of its name.
DEVICE_TREE_KINDS = {"laptop": "laptop", "convertible": "laptop", "desktop": "desktop",
                     "server": "server", "embedded": "sbc", "handset": NO_KIND, "tablet": NO_KIND}
BOARD_KINDS = (
    (re.compile(r"(?i)book|laptop|thinkpad|ideapad|yoga|surface|xps|inspiron"), "laptop"),
    (re.compile(r"(?i)mac (mini|studio|pro)|imac|desktop|workstation"), "desktop"))


# --- gauges --------------------------------------------------------------------------------------
def parse_meminfo(text: Optional[str]) -> dict[str, int]:
    """/proc/meminfo to {name: bytes}; its "kB" are KiB."""
    found = re.findall(r"^(\w+):\s+(\d{1,18}) kB\s*$", text or "", re.MULTILINE | re.ASCII)
    return {name: int(kib) * 1024 for name, kib in found}


def memory_gauges(text: Optional[str]) -> dict[str, Optional[int]]:
    """Memory gauges in bytes from /proc/meminfo; "used" is what is not available."""
    info = parse_meminfo(text)
    available = info.get("MemAvailable")
    return {"memory_used_bytes": system.difference(info.get("MemTotal"), available),
            "memory_available_bytes": available,
            "swap_used_bytes": system.difference(info.get("SwapTotal"), info.get("SwapFree"))}


def parse_proc_stat(text: Optional[str]) -> Optional[system.CpuTimes]:
    """The first line of /proc/stat. Guest time is not added: user time includes it."""
    found = re.match(r"cpu +((?:\d{1,20} ?){8,10})\n", text or "", re.ASCII)
    if not found:
        return None
    user, nice, kernel, idle, waiting, irq, softirq, stolen = map(int, found.group(1).split()[:8])
    busy = user + nice + kernel + irq + softirq + stolen
    return system.CpuTimes(busy, busy + idle + waiting)


def _supplies(machine: system.Machine) -> list[dict[str, str]]:
    """type, status and online of the power supplies of the machine itself (not of a mouse)."""
    folder = "/sys/class/power_supply"
    found = [{part: (machine.read(f"{folder}/{name}/{part}") or "").strip()
              for part in ("type", "scope", "status", "online")} for name in machine.names(folder)]
    return [supply for supply in found if supply["scope"] != "Device"]


def power_source(machine: system.Machine) -> Optional[str]:
    """"ac" where mains is connected, even if it is too weak; else "battery" if one discharges."""
    supplies = _supplies(machine)
    batteries = {supply["status"] for supply in supplies if supply["type"] == "Battery"}
    if any(supply["type"] in ("Mains", "USB") and supply["online"] in ("1", "2")
           for supply in supplies):
        return "ac"
    if "Discharging" in batteries:
        return "battery"
    return "ac" if batteries & {"Charging", "Full", "Not charging"} else None


def _frequency_mhz(machine: system.Machine, name: str) -> Optional[float]:
    """The highest value in MHz of a file of cpufreq's policies, which give kHz."""
    folder = f"{CPU_FOLDER}/cpufreq"
    return system.scaled(system.maximum(
        system.whole(machine.read(f"{folder}/{policy}/{name}")) or None
        for policy in system.numbered(machine.names(folder), r"policy\d+")), 1e-3, 1)


def cpu_mhz(machine: system.Machine) -> Optional[float]:
    """Clock of the fastest core now: the slow clock of idle cores would hide that of a busy one."""
    return _frequency_mhz(machine, "scaling_cur_freq")


def throttle_count(machine: system.Machine) -> Optional[int]:
    """How often cores and packages were throttled since the system started."""
    cpus = system.numbered(machine.names(CPU_FOLDER), r"cpu\d+")
    cores, packages = ([system.whole(machine.read(
        f"{CPU_FOLDER}/{name}/thermal_throttle/{part}_throttle_count")) for name in cpus]
        for part in ("core", "package"))
    package = system.maximum(packages)
    return system.total((system.total(cores), None if package is None else int(package)))


def temperature_paths(machine: system.Machine) -> list[str]:
    """Files that hold a CPU's temperature in thousandths of a degree."""
    sensors = [(f"{folder}/{name}", label, gauge) for folder, label, gauge in (
        ("/sys/class/hwmon", "name", "temp1_input"), ("/sys/class/thermal", "type", "temp"))
        for name in machine.names(folder)]
    found = [f"{folder}/{gauge}" for folder, label, gauge in sensors
             if (machine.read(f"{folder}/{label}") or "").strip() in CPU_SENSORS]
    return [path for path in found if system.number(machine.read(path)) is not None]


def energy(machine: system.Machine) -> dict[str, tuple[int, int]]:
    """RAPL counters of the CPU packages: {name: (µJ, µJ at which it restarts from 0)}.

    Kernels since 2020 let only root read them (CVE-2020-8694).
    """
    found = {}
    for name in system.numbered(machine.names("/sys/class/powercap"), r"intel-rapl:\d+"):
        folder = f"/sys/class/powercap/{name}"
        counted = system.whole(machine.read(f"{folder}/energy_uj"))
        limit = system.whole(machine.read(f"{folder}/max_energy_range_uj"))
        if (machine.read(f"{folder}/name") or "").startswith("package") and limit \
                and counted is not None:
            found[name] = (counted, limit)
    return found


def energy_between(before: dict[str, tuple[int, int]], after: dict[str, tuple[int, int]]) -> int:
    """µJ used between two readings; a lower counter has restarted once."""
    return sum((after[name][0] - before[name][0]) % after[name][1]
               for name in after if name in before)


# --- processor -----------------------------------------------------------------------------------
def parse_cpuinfo(text: Optional[str]) -> dict[str, Any]:
    """/proc/cpuinfo: model_name, vendor, flags and threads_count.

    POWER kernels may write "0-119" as the processor's number, s390 "processor 0".
    ARM kernels give numbers, which ARM_PARTS names; different cores are joined by " + ".
    """
    lines = [(name.strip(), value.strip()) for name, _, value in (
        line.partition(":") for line in (text or "").splitlines()) if value]
    names = {name.lower(): value for name, value in reversed(lines)}     # LoongArch: "Model Name"
    values: dict[str, list[int]] = {name: [
        int(value, 16) for key, value in lines
        if key == f"CPU {name}" and re.fullmatch(r"0x[0-9a-f]{1,4}", value)]
        for name in ("implementer", "part")}
    parts = dict.fromkeys(zip(values["implementer"], values["part"]))
    models = [ARM_PARTS.get(part) for part in parts]
    # RISC-V and POWER have names of their own for it; elsewhere "cpu" does not occur.
    named = (system.clean(names.get(name)) for name in ("model name", "uarch", "cpu"))
    return {"model_name": next(filter(None, named), None) or (
                " + ".join(map(str, models)) if models and all(models) else None),
            "vendor": system.clean(names.get("vendor_id")) or next(
                (ARM_VENDORS.get(implementer) for implementer, _ in parts), None),
            "flags": (names.get("flags") or names.get("features") or "").split(),
            "threads_count": sum(len(parse_cpu_list(value)) or 1 for name, value in lines
                                 if re.fullmatch(r"processor( \d+)?", name)) or None}


def parse_lscpu(text: Optional[str]) -> dict[str, str]:
    """model_name and vendor from `lscpu`; the names of different cores are joined by " + ".

    It prints "-" for a core and a number for a vendor that it does not know.
    """
    models = re.findall(r"^\s*Model name:\s+(.+)$", text or "", re.MULTILINE)
    vendors = re.findall(r"^\s*Vendor ID:(?!\s+0x)\s+(.+)$", text or "", re.MULTILINE)
    found = {"model_name": " + ".join(filter(None, dict.fromkeys(map(system.clean, models)))),
             "vendor": next(filter(None, map(system.clean, vendors)), None)}
    return {name: value[:system.TEXT_LIMIT] for name, value in found.items() if value}


def parse_cpu_list(text: Optional[str]) -> set[int]:
    """"0-3,8" to {0, 1, 2, 3, 8}."""
    if not re.fullmatch(r"\d{1,5}(?:-\d{1,5})?(?:,\d{1,5}(?:-\d{1,5})?)*", (text or "").strip()):
        return set()
    found: set[int] = set()
    for part in (text or "").split(","):
        first, _, last = part.partition("-")
        found.update(range(int(first), int(last or first) + 1))
    return found


def cores_by_cpu(machine: system.Machine) -> dict[int, tuple[str, ...]]:
    """{CPU: an id of its core} of the CPUs that are online.

    On ARM, core_id starts at 0 in each cluster, so the list of a core's own CPUs goes first.
    """
    found: dict[int, tuple[str, ...]] = {}
    for name in system.numbered(machine.names(CPU_FOLDER), r"cpu\d+"):
        def part(file: str, folder: str = f"{CPU_FOLDER}/{name}/topology") -> Optional[str]:
            text = machine.read(f"{folder}/{file}")
            return None if text is None else text.strip()

        package, core = part("physical_package_id"), part("core_id")
        siblings = part("core_cpus_list") or part("thread_siblings_list")
        if siblings and parse_cpu_list(siblings):
            found[int(name[3:])] = (siblings,)
        elif core is not None and package is not None:
            found[int(name[3:])] = (package, part("cluster_id") or "", core)
    return found


def core_kinds(machine: system.Machine,
               cores: dict[int, tuple[str, ...]]) -> dict[str, Optional[int]]:
    """Counts of performance and efficiency cores: Intel lists them, ARM gives capacities."""
    big = parse_cpu_list(machine.read("/sys/devices/cpu_core/cpus"))
    little = parse_cpu_list(machine.read("/sys/devices/cpu_atom/cpus"))
    little |= parse_cpu_list(machine.read("/sys/devices/cpu_lowpower/cpus"))
    if not big or not little:
        capacity = {cpu: system.whole(machine.read(f"{CPU_FOLDER}/cpu{cpu}/cpu_capacity")) or 0
                    for cpu in cores}
        largest = max(capacity.values(), default=0)
        little = {cpu for cpu, value in capacity.items() if 0 < value < largest * LITTLE_SHARE}
        big = capacity.keys() - little
    counts = [len({cores[cpu] for cpu in cpus if cpu in cores}) for cpus in (big, little)]
    return dict(zip(("performance_cores_count", "efficiency_cores_count"),
                    counts)) if all(counts) else {}


def caches(machine: system.Machine, cpus: Iterable[int]) -> dict[str, int]:
    """Sizes in KiB, all caches of one level added up; a cache that CPUs share counts once."""
    sizes: dict[tuple[str, str], int] = {}
    for cpu in cpus:
        for index in machine.names(f"{CPU_FOLDER}/cpu{cpu}/cache"):
            level, kind, shared, size = (
                (machine.read(f"{CPU_FOLDER}/cpu{cpu}/cache/{index}/{part}") or "").strip()
                for part in ("level", "type", "shared_cpu_list", "size"))
            field = {"1Data": "l1d", "2Unified": "l2", "3Unified": "l3"}.get(level + kind)
            found = re.fullmatch(r"(\d{1,9})([KM])", size, re.ASCII)
            if field and found and shared:
                sizes[field, shared] = int(found.group(1)) * {"K": 1, "M": 1024}[found.group(2)]
    added: dict[str, int] = {}
    for (field, _), kib in sizes.items():
        if kib:
            added[f"cache_{field}_kib"] = added.get(f"cache_{field}_kib", 0) + kib
    return added


def cgroups(machine: system.Machine, controller: str) -> list[str]:
    """Folders whose limits apply to this process, the innermost first."""
    folders = []
    for line in (machine.read("/proc/self/cgroup") or "").splitlines():
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


def memory_limit(machine: system.Machine) -> Optional[int]:
    """The smallest memory limit of this process's control groups in bytes, or null."""
    limits = [system.whole(machine.read(f"{folder}/{name}"))
              for folder in cgroups(machine, "memory")
              for name in ("memory.max", "memory.limit_in_bytes")]
    return min((limit for limit in limits if limit), default=None)


def cpusets(machine: system.Machine) -> list[set[int]]:
    """The CPUs that each of this process's control groups may use."""
    found = [parse_cpu_list(machine.read(f"{folder}/cpuset.{name}"))
             for folder in cgroups(machine, "cpuset")
             for name in ("cpus.effective", "effective_cpus")]
    return [cpus for cpus in found if cpus]


def cpu_quota(machine: system.Machine) -> Optional[float]:
    """The smallest number of CPUs that this process's control groups allow, or null.

    Both versions give a quota and a period in µs, where "max" and -1 mean no limit, and a list.
    """
    quotas: list[float] = [len(cpus) for cpus in cpusets(machine)]
    for folder in cgroups(machine, "cpu"):
        older = [machine.read(f"{folder}/cpu.cfs_{name}_us") or "" for name in ("quota", "period")]
        for text in (machine.read(f"{folder}/cpu.max"), " ".join(older)):
            fields = [system.whole(field) for field in (text or "").split()]
            if len(fields) == 2 and fields[0] and fields[1]:
                quotas.append(round(fields[0] / fields[1], 2))
    return min((quota for quota in quotas if quota), default=None)


def cpu(machine: system.Machine) -> dict[str, Any]:
    """Section "cpu"."""
    # 32-bit ARM kernels write the architecture as the model's name.
    text = re.sub(r"(?im)^model name\s*: *ARM-?v\d.*$", "", machine.read("/proc/cpuinfo") or "")
    info, cores = parse_cpuinfo(text), cores_by_cpu(machine)
    if "model name" not in text.lower():
        names = parse_lscpu(machine.run(["lscpu"]))
        if (info["model_name"] or "").count(" + ") > names.get("model_name", "").count(" + "):
            names.pop("model_name", None)          # an older lscpu does not know all kinds of cores
        info.update(names)
    if info["threads_count"] and len(cores) > info["threads_count"]:
        # In an LXC container, sysfs shows the host's CPUs and /proc/cpuinfo those it may use.
        listed = {int(at) for at in re.findall(r"^processor\s*:\s*(\d{1,5})$", text, re.M)}
        allowed = next((cpus for cpus in (machine.affinity(), *cpusets(machine))
                        if cpus and len(cpus) == info["threads_count"]), listed)
        cores = {at: core for at, core in cores.items() if at in allowed}
    usable = [len(machine.affinity() or ()), cpu_quota(machine), info["threads_count"]]
    everything = [int(name[3:]) for name in machine.names(CPU_FOLDER)
                  if re.fullmatch(r"cpu\d{1,5}", name)]
    return {**info, **caches(machine, cores or everything), **core_kinds(machine, cores),
            "base_mhz": _frequency_mhz(machine, "base_frequency")
                        or system.clock_in_name(info["model_name"]),
            "max_mhz": _frequency_mhz(machine, "cpuinfo_max_freq"),
            "physical_cores_count": len(set(cores.values())) or None,
            "usable_threads_count": min((count for count in usable if count), default=None),
            "instruction_sets": sorted({INSTRUCTION_SETS[flag] for flag in info["flags"]
                                        if flag in INSTRUCTION_SETS})}


# --- memory --------------------------------------------------------------------------------------
def udev_argv() -> list[str]:
    """Ask udev, which reads the firmware's list as root, for these fields and no serial number."""
    names = [f"MEMORY_DEVICE_{slot}_{field}" for slot in range(MODULE_SLOTS)
             for field in MODULE_FIELDS]
    return ["udevadm", "info", "--query=property", "--path=/devices/virtual/dmi/id",
            "--property=" + ",".join(names)]


def parse_udev_modules(text: Optional[str]) -> list[system.Module]:
    """Memory modules from udev's MEMORY_DEVICE_<slot>_<FIELD>=value; empty slots are left out."""
    slots: dict[str, dict[str, str]] = {}
    for slot, field, value in re.findall(r"^MEMORY_DEVICE_(\d{1,3})_([A-Z_]+)=(.*)$", text or "",
                                         re.MULTILINE | re.ASCII):
        slots.setdefault(slot, {})[field] = value
    return [system.Module(slot.get("TYPE"), (system.whole(slot.get("CONFIGURED_SPEED_MTS"))
                                             or system.whole(slot.get("SPEED_MTS"))),
                          system.whole(slot.get("DATA_WIDTH")),
                          f"{slot.get('BANK_LOCATOR', '')} {slot.get('LOCATOR', '')}")
            for slot in slots.values() if system.whole(slot.get("SIZE"))]


def memory(machine: system.Machine) -> dict[str, Any]:
    """Section "memory"."""
    info = parse_meminfo(machine.read("/proc/meminfo"))
    capacity, limit = info.get("MemTotal"), memory_limit(machine)
    limited = limit is not None and (capacity is None or limit < capacity)
    # systemd before 250 has no --property; then only these fields are taken from the full list.
    modules = parse_udev_modules(machine.run(udev_argv())) \
        or parse_udev_modules(machine.run(udev_argv()[:-1]))
    return {**system.memory_of_modules(modules), "capacity_bytes": capacity,
            "limit_bytes": limit if limited else None, "swap_bytes": info.get("SwapTotal")}


# --- system, power -------------------------------------------------------------------------------
def virtualization(machine: system.Machine, flags: Sequence[str]) -> Optional[str]:
    """"none", or which: kvm, vmware, wsl2 ...; "vm" if only CPU or kernel show that there is one.

    On x86 a flag of the CPU is there if a virtual machine is; elsewhere the firmware's names count.
    """
    found = re.search(r"(?i)microsoft", machine.kernel_release or "")
    if found:                         # "4.4.0-19041-Microsoft", "5.15.90.1-microsoft-standard-WSL2"
        return "wsl1" if found[0] == "Microsoft" else "wsl2"
    reported = (machine.run(["systemd-detect-virt", "--vm"]) or "").strip()
    if reported in HYPERVISORS:
        return reported
    if "hypervisor" in flags or re.search(r"linuxkit|orbstack", machine.kernel_release or ""):
        return "vm"
    if "fpu" in flags and re.fullmatch(r"x86_64|i\d86", machine.architecture):
        return "none"
    return system.hypervisor(*(machine.read(f"{DMI}/{name}")
                               for name in ("sys_vendor", "product_name")))


def container(machine: system.Machine) -> Optional[str]:
    """"none", or which: docker, podman, lxc ...; null if unknown."""
    reported = (machine.run(["systemd-detect-virt", "--container"]) or "").strip()
    if reported in CONTAINERS:
        return "none" if reported == "wsl" else reported
    marks = (("/.dockerenv", "docker"), ("/run/.containerenv", "podman"))
    return next((name for path, name in marks if machine.read(path) is not None), None)


def is_android(machine: system.Machine) -> bool:
    """Whether this is Android, which Python before 3.13 calls Linux."""
    return (machine.system == "Android" or "-android" in (machine.kernel_release or "")
            or machine.read("/etc/os-release") is None
            and bool(machine.run(["getprop", "ro.build.version.release"])))


def system_section(machine: system.Machine) -> dict[str, Any]:
    """Section "system"."""
    dmi = {name: machine.read(f"{DMI}/{name}") for name in (
        "sys_vendor", "product_name", "product_version", "board_vendor", "board_name")}
    board = system.clean(machine.read("/proc/device-tree/model"))
    hypervisor = virtualization(machine, parse_cpuinfo(machine.read("/proc/cpuinfo"))["flags"])
    kind: Any = CHASSIS_KINDS.get(system.whole(machine.read(f"{DMI}/chassis_type")) or 0)
    if hypervisor in ("wsl1", "wsl2"):
        kind = WSL_HIDES
    elif hypervisor not in ("none", None):
        kind = "vm"
    elif kind is None:
        kind = DEVICE_TREE_KINDS.get(system.clean(
            machine.read("/proc/device-tree/chassis-type")) or "") or next(
                (kind for pattern, kind in BOARD_KINDS if pattern.search(board or "")), None)
        battery = any(supply["type"] == "Battery" for supply in _supplies(machine))
        small = bool(board) and not machine.architecture.startswith("ppc")     # POWER: servers
        kind = kind or ("laptop" if battery else "sbc" if small else None)
    name = system.firmware_name(dmi) or board
    if is_android(machine):
        kind = NO_KIND
        name = system.firmware_name({key: machine.run(["getprop", f"ro.product.{part}"])
                                     for key, part in (("sys_vendor", "manufacturer"),
                                                       ("product_name", "model"))})
    return {"kind": kind, "model_name": name, "virtualization": hypervisor,
            "container": container(machine)}


def os_section(machine: system.Machine) -> dict[str, Optional[str]]:
    """Section "os"."""
    if is_android(machine):
        return {"name": "Android", "version": system.clean(
            machine.run(["getprop", "ro.build.version.release"]))}
    text = machine.read("/etc/os-release") or machine.read("/usr/lib/os-release") or ""
    names = dict(re.findall(r"^([A-Z_]+)=[\"']?([^\"'\n]*)", text, re.MULTILINE))
    return {"name": system.clean(names.get("NAME")),
            "version": system.clean(names.get("VERSION_ID"))}


def public_kernel_release(release: Optional[str]) -> Optional[str]:
    """The kernel release up to the first word that no distribution uses."""
    kept = ""
    for separator, word in re.findall(r"([-.+~_]?)([^-.+~_]+)", system.clean(release) or ""):
        if not KERNEL_WORDS.fullmatch(word):
            break
        kept += separator + word
    return kept or None


def power(machine: system.Machine) -> dict[str, Any]:
    """Section "power"."""
    mode = machine.read("/sys/firmware/acpi/platform_profile")
    if mode is None:
        mode = machine.run(["powerprofilesctl", "get"])
    return {"source": power_source(machine), "mode": system.word(mode),
            "governor": system.word(machine.read(f"{CPU_FOLDER}/cpufreq/policy0/scaling_governor"))}


def inventory(machine: system.Machine) -> dict[str, Any]:
    """All sections, as values without sources."""
    machine_section, processor = system_section(machine), cpu(machine)
    cards = gpus.linux_accelerators(machine, processor["model_name"])
    board = machine.read("/proc/device-tree/model") or ""
    # A card may be installed that no tool lists.
    silent = gpus.has_unknown_card(machine) or bool(
        all(card["vendor"] != "NVIDIA" for card in cards or ())
        and gpus.nvidia_query(machine, "name"))
    if not cards and (silent or machine_section["virtualization"] in ("wsl1", "wsl2")
                      or machine.owner("/dev/dxg") is not None          # Hyper-V shares one
                      or is_android(machine) or (board and "Raspberry Pi" not in board)):
        cards = None
    unified = None if silent else gpus.shares_memory(cards)
    return {"system": machine_section, "cpu": processor,
            "memory": {**memory(machine), "unified": True if "Jetson" in board else unified},
            "accelerators": cards,
            "accelerators_count": gpus.UNLISTED if silent and cards else None,
            "os": os_section(machine), "power": power(machine)}
