#!/usr/bin/env python3
"""What this machine is, and how busy it is, without what identifies it.

`inventory()` is the draft of a submission's hardware.json; `Sampler` reads the gauges that a run
writes as `host_sampled`. Linux, macOS and Windows; nothing is installed, nothing leaves the machine.

Privacy: no command here is asked for a serial number, a UUID, a MAC address, a host or a user name.
Queries name their fields one by one (`nvidia-smi --query-gpu=...`, `sysctl -n`, CIM `Select-Object`)
because the full listings of the same tools print such names.

Every parser is a pure function from a file's or a command's text to numbers, null where the text does
not say; `Machine` is the only part that touches the machine, so tests hand in a recorded one.
"""
from __future__ import annotations

import os
import platform
import re
import subprocess
import threading
import time
from typing import Any, Callable, Iterable, NamedTuple, Optional, Sequence

COMMAND_LIMIT_S = 10.0            # a driver that hangs must not hang the program
GAUGE_LIMIT_S = 2.0               # the same for a gauge that is read while a run goes on
GAUGE_SHARE = 0.01                # of one core: a gauge that took t s rests for t / GAUGE_SHARE s
WATCH_EVERY_S = 5                 # how often the two lasting children report
STALE_AFTER_S = 3 * WATCH_EVERY_S
MIB = 1024 * 1024


class Machine:
    """Reads this machine. Every method is total: what cannot be read is null or empty."""

    system = platform.system()        # "Linux", "Darwin" or "Windows"

    def read(self, path: str) -> Optional[str]:
        """Text of a small file, or null."""
        try:
            with open(path, "rb") as file:
                return file.read(4 * MIB).decode("utf-8", "replace")
        except (OSError, ValueError):
            return None

    def names(self, path: str) -> list[str]:
        """Names in a folder, sorted; empty where it cannot be listed."""
        try:
            return sorted(os.listdir(path))
        except OSError:
            return []

    def link(self, path: str) -> Optional[str]:
        """Where a link points, or null."""
        try:
            return os.readlink(path)
        except OSError:
            return None

    def owner(self, path: str) -> Optional[int]:
        """User number that a path belongs to, or null."""
        try:
            return os.stat(path).st_uid
        except OSError:
            return None

    def run(self, argv: Sequence[str], limit_s: float = COMMAND_LIMIT_S) -> Optional[str]:
        """Standard output of a command that ends well within `limit_s`, or null."""
        try:
            done = subprocess.run(list(argv), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                  stderr=subprocess.DEVNULL, timeout=limit_s, check=False,
                                  env=_plain_environment(), **_apart())
        except (OSError, ValueError, subprocess.SubprocessError):
            return None
        return done.stdout.decode("utf-8", "replace") if done.returncode == 0 else None

    def watch(self, argv: Sequence[str]) -> Optional[Watch]:
        """A lasting command whose lines are kept as they come, or null where it does not start."""
        try:
            return Watch(argv)
        except (OSError, ValueError):
            return None


def _plain_environment() -> dict[str, str]:
    """Ours, with numbers and words as in C: a German `vm_stat` would write 1,5."""
    return dict(os.environ, LC_ALL="C", LANG="C")


def _apart() -> dict[str, Any]:
    """Keeps Ctrl-C in our terminal from ending a child, and a window from opening on Windows."""
    if os.name == "nt":
        return {"creationflags": 0x08000000 | 0x00000200}    # NO_WINDOW, NEW_PROCESS_GROUP
    return {"start_new_session": True}


class Watch:
    """A lasting child; its latest lines with the time they came. A start of nvidia-smi costs up to
    300 ms of CPU, which once is no matter and every five seconds is."""

    def __init__(self, argv: Sequence[str]) -> None:
        self._child = subprocess.Popen(list(argv), stdin=subprocess.DEVNULL,
                                       stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                                       env=_plain_environment(), **_apart())
        self._lines: dict[str, tuple[float, str]] = {}
        self._seen = 0
        self._thread = threading.Thread(target=self._follow, name="gauge", daemon=True)
        self._thread.start()

    def _follow(self) -> None:
        assert self._child.stdout is not None
        for raw in self._child.stdout:
            line = raw.decode("utf-8", "replace").strip()
            # One slot for each first field (nvidia-smi: the card); the replaced dict keeps readers
            # from ever seeing one that changes under them.
            slot = line.partition(",")[0] if "," in line else ""
            self._lines = {**self._lines, slot[:8]: (time.monotonic(), line)}
            self._seen += 1

    def lines(self, skip: int = 0) -> list[str]:
        """The latest line of each slot, none older than STALE_AFTER_S, none of the first `skip`."""
        oldest = time.monotonic() - STALE_AFTER_S
        if self._seen <= skip:
            return []
        return [line for at, line in self._lines.values() if at >= oldest]

    def close(self) -> None:
        """Ends the child and waits for it."""
        self._child.terminate()
        try:
            self._child.wait(GAUGE_LIMIT_S)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait(GAUGE_LIMIT_S)
        self._thread.join(GAUGE_LIMIT_S)
        if self._child.stdout is not None and not self._thread.is_alive():
            self._child.stdout.close()


# ---------------------------------------------------------------- texts to numbers, all systems

def number(text: Optional[str]) -> Optional[float]:
    """The finite number that `text` is, else null: "[N/A]", "", "nan" and "12 W" are null."""
    if text is None or not re.fullmatch(r"\s*[-+]?\d{1,18}(\.\d{1,9})?\s*", text, re.ASCII):
        return None
    return float(text)


def whole(text: Optional[str]) -> Optional[int]:
    """The whole number that `text` is, else null."""
    if text is None or not re.fullmatch(r"\s*\d{1,20}\s*", text, re.ASCII):
        return None
    return int(text)


def scaled(value: Optional[float], factor: float, digits: int = 3) -> Optional[float]:
    """value * factor, rounded; null stays null."""
    return None if value is None else round(value * factor, digits)


def ratio(part: Optional[float], total: Optional[float]) -> Optional[float]:
    """part / total held to 0..1, four digits; null where a term is missing or total is not above 0."""
    if part is None or total is None or total <= 0:
        return None
    return round(min(1.0, max(0.0, part / total)), 4)


# ---------------------------------------------------------------- gauges: Linux

def parse_meminfo(text: Optional[str]) -> dict[str, int]:
    """/proc/meminfo to {name: bytes}; its "kB" are KiB."""
    found = re.findall(r"^(\w+):\s+(\d{1,18}) kB\s*$", text or "", re.MULTILINE | re.ASCII)
    return {name: int(kib) * 1024 for name, kib in found}


def _difference(more: Optional[int], less: Optional[int]) -> Optional[int]:
    return None if more is None or less is None else max(0, more - less)


def linux_memory(text: Optional[str]) -> dict[str, Optional[int]]:
    """Memory gauges, in bytes, from /proc/meminfo; "used" is what is not available."""
    info = parse_meminfo(text)
    available = info.get("MemAvailable")
    return {"memory_used_bytes": _difference(info.get("MemTotal"), available),
            "memory_available_bytes": available,
            "swap_used_bytes": _difference(info.get("SwapTotal"), info.get("SwapFree"))}


class CpuTimes(NamedTuple):
    """Time of all CPUs since the start of the system, in one unit (ticks or 100 ns)."""

    busy: int
    stolen: int                       # taken by the hypervisor for other guests
    total: int


def parse_proc_stat(text: Optional[str]) -> Optional[CpuTimes]:
    """The first line of /proc/stat. Guest time stands in user time already, so it is not added."""
    found = re.match(r"cpu +((?:\d+ ?){8,10})\n", text or "", re.ASCII)
    if not found:
        return None
    user, nice, kernel, idle, waiting, irq, softirq, stolen = map(int, found.group(1).split()[:8])
    busy = user + nice + kernel + irq + softirq
    return CpuTimes(busy, stolen, busy + stolen + idle + waiting)


class Process(NamedTuple):
    """One process: its parent and the CPU ticks that it alone has used."""

    parent: int
    ticks: int
    command: str


def parse_process_stat(text: Optional[str]) -> Optional[Process]:
    """/proc/<pid>/stat; the command in brackets may itself hold spaces and brackets."""
    head, bracket, tail = (text or "").rpartition(")")
    fields = tail.split()
    if not bracket or len(fields) < 13:
        return None
    parent, user, kernel = whole(fields[1]), whole(fields[11]), whole(fields[12])
    if parent is None or user is None or kernel is None:
        return None
    return Process(parent, user + kernel, head.partition("(")[2])


def parse_listeners(text: Optional[str], port: int) -> list[tuple[str, int]]:
    """(socket inode, user number) of what listens on a TCP port, from /proc/net/tcp or tcp6."""
    found = []
    for line in (text or "").splitlines()[1:]:
        fields = line.split()
        if len(fields) >= 10 and fields[3] == "0A" and fields[1].endswith(f":{port:04X}"):
            user = whole(fields[7])
            if user is not None:
                found.append((fields[9], user))
    return found


def descendants(processes: dict[int, Process], roots: Iterable[int]) -> set[int]:
    """The roots that exist, and every process below them."""
    children: dict[int, list[int]] = {}
    for pid, process in processes.items():
        children.setdefault(process.parent, []).append(pid)
    found: set[int] = set()
    waiting = [pid for pid in roots if pid in processes]
    while waiting:
        pid = waiting.pop()
        if pid not in found:
            found.add(pid)
            waiting += children.get(pid, ())
    return found


def ticks_between(before: dict[int, Process], after: dict[int, Process], pids: Iterable[int]) -> int:
    """CPU ticks that `pids` used between two listings; a process of the second only began at 0."""
    return sum(max(0, after[pid].ticks - (before[pid].ticks if pid in before else 0))
               for pid in pids)


# They hold the port for a server that is no child of theirs, or that runs on another machine.
FORWARDERS = frozenset(("docker-proxy", "rootlessport", "rootlesskit", "pasta", "passt",
                        "slirp4netns", "ssh", "sshd", "socat", "kubectl", "gvproxy"))


def list_processes(machine: Machine) -> dict[int, Process]:
    """Every process of /proc."""
    found = {}
    for name in machine.names("/proc"):
        if name.isdigit():
            process = parse_process_stat(machine.read(f"/proc/{name}/stat"))
            if process is not None:
                found[int(name)] = process
    return found


def find_server(machine: Machine, processes: dict[int, Process], port: int) -> frozenset[int]:
    """Processes that listen on `port`; empty where that cannot be told.

    Another user's open files cannot be read, but a user kept for the server alone (Ollama's service
    runs as one) tells it as well: then all processes of that user are meant. For root they are not.
    """
    sockets = [found for name in ("tcp", "tcp6")
               for found in parse_listeners(machine.read(f"/proc/net/{name}"), port)]
    wanted = {f"socket:[{inode}]" for inode, _ in sockets}
    users = {user for _, user in sockets}
    owned = {pid for pid in processes if machine.owner(f"/proc/{pid}") in users} if users else set()
    holders = {pid for pid in owned if any(
        machine.link(f"/proc/{pid}/fd/{name}") in wanted
        for name in machine.names(f"/proc/{pid}/fd"))}
    if not holders and 0 not in users and not any(
            machine.names(f"/proc/{pid}/fd") for pid in owned):
        holders = owned
    if any(processes[pid].command in FORWARDERS for pid in holders):
        return frozenset()
    return frozenset(holders)


def linux_power_source(machine: Machine) -> Optional[str]:
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


def _sum(values: Iterable[Optional[float]]) -> Optional[float]:
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def _max(values: Iterable[Optional[float]]) -> Optional[float]:
    return max((value for value in values if value is not None), default=None)


def _numbered(names: Iterable[str], pattern: str) -> list[str]:
    """Names that match, in the order of their numbers: cpu2 before cpu10."""
    found = [name for name in names if re.fullmatch(pattern, name, re.ASCII)]
    return sorted(found, key=lambda name: [int(digits) for digits in re.findall(r"\d+", name)])


def linux_cpu_mhz(machine: Machine) -> Optional[float]:
    """Clock of the fastest core now, in MHz: idle cores clock down and would hide a throttled one."""
    folder = "/sys/devices/system/cpu/cpufreq"
    policies = _numbered(machine.names(folder), r"policy\d+")
    return scaled(_max(number(machine.read(f"{folder}/{name}/scaling_cur_freq"))
                       for name in policies), 1e-3, 1)


def linux_throttle_count(machine: Machine) -> Optional[int]:
    """How often cores and packages were throttled since the start; only differences mean a thing."""
    folder = "/sys/devices/system/cpu"
    cpus = _numbered(machine.names(folder), r"cpu\d+")
    cores = _sum(whole(machine.read(f"{folder}/{name}/thermal_throttle/core_throttle_count"))
                 for name in cpus)
    package = _max(whole(machine.read(f"{folder}/{name}/thermal_throttle/package_throttle_count"))
                   for name in cpus)
    count = _sum((cores, package))
    return None if count is None else int(count)


CPU_SENSORS = ("coretemp", "k10temp", "zenpower", "cpu_thermal", "cpu-thermal", "x86_pkg_temp",
               "soc_thermal", "soc-thermal", "cpu", "CPU-therm")


def linux_temperature_path(machine: Machine) -> list[str]:
    """Files that hold a CPU's temperature in thousandths of a degree."""
    sensors = [(f"/sys/class/hwmon/{name}", "name", "temp1_input")
               for name in machine.names("/sys/class/hwmon")]
    sensors += [(f"/sys/class/thermal/{name}", "type", "temp")
                for name in machine.names("/sys/class/thermal")]
    found = [f"{folder}/{gauge}" for folder, label, gauge in sensors
             if (machine.read(f"{folder}/{label}") or "").strip() in CPU_SENSORS]
    return [path for path in found if number(machine.read(path)) is not None]


def linux_energy(machine: Machine) -> dict[str, tuple[int, int]]:
    """RAPL counters of the CPU packages: {name: (µJ, µJ at which it begins again)}.

    Only root can read them on kernels since 2020 (CVE-2020-8694).
    """
    found = {}
    for name in _numbered(machine.names("/sys/class/powercap"), r"intel-rapl:\d+"):
        folder = f"/sys/class/powercap/{name}"
        if not (machine.read(f"{folder}/name") or "").startswith("package"):
            continue
        counted = whole(machine.read(f"{folder}/energy_uj"))
        limit = whole(machine.read(f"{folder}/max_energy_range_uj"))
        if counted is not None and limit:
            found[name] = (counted, limit)
    return found


def energy_between(before: dict[str, tuple[int, int]], after: dict[str, tuple[int, int]]) -> int:
    """µJ used between two readings; a counter that went down began again once."""
    return sum((after[name][0] - before[name][0]) % after[name][1]
               for name in after if name in before)


# ---------------------------------------------------------------- gauges: graphics cards

# 0x8 hardware slowdown, 0x20 software thermal, 0x40 hardware thermal, 0x80 power brake; 0x4, the
# card's own power limit, is how a busy card runs and no fault.
NVIDIA_THROTTLE_BITS = 0x8 | 0x20 | 0x40 | 0x80
NVIDIA_GAUGES = ("index", "utilization.gpu", "memory.used", "power.draw", "temperature.gpu",
                 "clocks.sm", "clocks_throttle_reasons.active")


def nvidia_watch_argv(fields: Sequence[str] = NVIDIA_GAUGES) -> list[str]:
    """The command whose every line is one card's gauges."""
    return ["nvidia-smi", "--query-gpu=" + ",".join(fields), "--format=csv,noheader,nounits",
            "-l", str(WATCH_EVERY_S)]


def parse_nvidia_gauges(lines: Iterable[str]) -> list[dict[str, Any]]:
    """Gauges of each card, by index, from lines of NVIDIA_GAUGES; MiB, W, °C, MHz become our units."""
    cards = []
    for line in lines:
        fields = [field.strip() for field in line.split(",")]
        index = whole(fields[0])
        if len(fields) != len(NVIDIA_GAUGES) or index is None:
            continue
        reasons = re.fullmatch(r"0x([0-9a-fA-F]{1,16})", fields[6])
        used_mib = whole(fields[2])
        cards.append({
            "index": index, "busy_ratio": scaled(number(fields[1]), 0.01, 4),
            "memory_used_bytes": None if used_mib is None else used_mib * MIB,
            "power_w": number(fields[3]), "temperature_c": number(fields[4]),
            "clock_mhz": number(fields[5]),
            "throttled": bool(int(reasons.group(1), 16) & NVIDIA_THROTTLE_BITS) if reasons else None,
        })
    return sorted(cards, key=lambda card: card["index"])


def amd_cards(machine: Machine) -> list[str]:
    """sysfs folders of the cards that the amdgpu driver runs."""
    cards = [f"/sys/class/drm/{name}/device"
             for name in _numbered(machine.names("/sys/class/drm"), r"card\d+")]
    return [folder for folder in cards if machine.read(f"{folder}/mem_info_vram_total") is not None]


def amd_gauges(machine: Machine, folder: str, index: int) -> dict[str, Any]:
    """Gauges of one amdgpu card; sysfs gives µW, thousandths of a degree, Hz."""
    sensors = next((f"{folder}/hwmon/{name}" for name in machine.names(f"{folder}/hwmon")), folder)

    def gauge(*paths: str) -> Optional[float]:
        return next((value for value in map(number, map(machine.read, paths))
                     if value is not None), None)

    return {"index": index, "busy_ratio": scaled(gauge(f"{folder}/gpu_busy_percent"), 0.01, 4),
            "memory_used_bytes": whole(machine.read(f"{folder}/mem_info_vram_used")),
            "power_w": scaled(gauge(f"{sensors}/power1_average", f"{sensors}/power1_input"), 1e-6),
            "temperature_c": scaled(gauge(f"{sensors}/temp1_input"), 1e-3),
            "clock_mhz": scaled(gauge(f"{sensors}/freq1_input"), 1e-6), "throttled": None}


def parse_ioreg_gpu(text: Optional[str]) -> list[dict[str, Any]]:
    """Gauges of Apple's GPU from `ioreg -r -d 1 -c IOAccelerator`: its share of use and memory."""
    busy = re.search(r'"Device Utilization %"=(\d{1,3})\b', text or "")
    used = re.search(r'"In use system memory"=(\d{1,18})\b', text or "")
    if not busy and not used:
        return []
    return [{"index": 0, "busy_ratio": scaled(number(busy.group(1)), 0.01, 4) if busy else None,
             "memory_used_bytes": int(used.group(1)) if used else None, "power_w": None,
             "temperature_c": None, "clock_mhz": None, "throttled": None}]


# ---------------------------------------------------------------- gauges: macOS and Windows

def parse_vm_stat(text: Optional[str]) -> dict[str, int]:
    """`vm_stat` to {name: bytes}."""
    page = re.search(r"page size of (\d{1,6}) bytes", text or "")
    found = re.findall(r'^"?([A-Za-z -]+?)"?:\s+(\d{1,18})\.\s*$', text or "", re.MULTILINE | re.ASCII)
    return {name: int(pages) * int(page.group(1)) for name, pages in found} if page else {}


def mac_memory(vm_stat: Optional[str], swap: Optional[str],
               capacity_bytes: Optional[int]) -> dict[str, Optional[int]]:
    """Memory gauges, in bytes. Available: free, speculative, inactive and purgeable pages."""
    pages = parse_vm_stat(vm_stat)
    free = pages.get("Pages free")
    available = None if free is None else free + sum(
        pages.get(name, 0) for name in ("Pages inactive", "Pages speculative", "Pages purgeable"))
    return {"memory_used_bytes": _difference(capacity_bytes, available),
            "memory_available_bytes": available,
            "swap_used_bytes": parse_swapusage(swap).get("used")}


def parse_swapusage(text: Optional[str]) -> dict[str, int]:
    """`sysctl -n vm.swapusage` ("total = 2048.00M  used = 1213.25M ...") to {name: bytes}."""
    found = re.findall(r"(total|used|free) = (\d{1,12}(?:\.\d{1,4})?)M", text or "", re.ASCII)
    return {name: int(float(mib) * MIB) for name, mib in found}


def parse_iostat_busy(lines: Sequence[str]) -> Optional[float]:
    """Busy share of the CPUs from a line of macOS `iostat`, which ends in us sy id 1m 5m 15m."""
    fields = lines[-1].split()[-6:] if lines else []
    values = [number(field) for field in fields]
    if len(values) != 6 or values[0] is None or values[1] is None:
        return None
    return ratio(values[0] + values[1], 100)


def parse_pmset_source(text: Optional[str]) -> Optional[str]:
    """"ac" or "battery" from `pmset -g batt`, else null."""
    found = re.search(r"Now drawing from '(AC|Battery) Power'", text or "")
    return {"AC": "ac", "Battery": "battery"}[found.group(1)] if found else None


def windows_cpu_times(idle: int, kernel: int, user: int) -> CpuTimes:
    """GetSystemTimes in 100 ns; Windows counts idle time into kernel time."""
    return CpuTimes(kernel + user - idle, 0, kernel + user)


def windows_power_source(line_status: int) -> Optional[str]:
    """ACLineStatus of SYSTEM_POWER_STATUS: 0 battery, 1 mains, 255 unknown."""
    return {0: "battery", 1: "ac"}.get(line_status)


def read_windows() -> dict[str, Any]:
    """CPU times, memory in bytes and power source from kernel32; PowerShell would cost a second."""
    import ctypes

    class MemoryStatus(ctypes.Structure):
        _fields_ = [("length", ctypes.c_uint32), ("load", ctypes.c_uint32)] + [
            (name, ctypes.c_uint64) for name in (
                "total", "available", "page_total", "page_available", "virtual_total",
                "virtual_available", "extended")]

    class PowerStatus(ctypes.Structure):
        _fields_ = [("line", ctypes.c_uint8), ("flag", ctypes.c_uint8), ("percent", ctypes.c_uint8),
                    ("saver", ctypes.c_uint8), ("life_s", ctypes.c_uint32),
                    ("full_life_s", ctypes.c_uint32)]

    kernel32 = ctypes.windll.kernel32           # type: ignore[attr-defined,unused-ignore]
    times = [ctypes.c_uint64() for _ in range(3)]
    memory, power = MemoryStatus(), PowerStatus()
    memory.length = ctypes.sizeof(memory)
    got_times = kernel32.GetSystemTimes(*map(ctypes.byref, times))
    got_memory = kernel32.GlobalMemoryStatusEx(ctypes.byref(memory))
    got_power = kernel32.GetSystemPowerStatus(ctypes.byref(power))
    return {"cpu_times": windows_cpu_times(*(t.value for t in times)) if got_times else None,
            "memory_total_bytes": memory.total if got_memory else None,
            "memory_available_bytes": memory.available if got_memory else None,
            "power_source": windows_power_source(power.line) if got_power else None}


# ---------------------------------------------------------------- the host watch

GAUGES = ("load_1m", "memory_used_bytes", "memory_available_bytes", "swap_used_bytes", "cpu_mhz",
          "cpu_throttle_count", "cpu_busy_ratio", "cpu_steal_ratio", "other_cpu_busy_ratio",
          "power_source", "temperature_c", "energy_uj")


class Listing(NamedTuple):
    """All CPU time and every process at one moment."""

    times: CpuTimes
    processes: dict[int, Process]


class Sampler:
    """Reads the host's gauges now and then while a run goes on.

    server_port: the port that the model server listens on where it runs on this machine, else null;
    it tells the server's own work from that of strangers. Ratios are shares of all CPUs together,
    since the sample before. Nothing here raises or prints; close() ends the children.
    """

    def __init__(self, server_port: Optional[int] = None,
                 machine: Optional[Machine] = None) -> None:
        self._machine = machine or Machine()
        self._port = server_port
        self._rests_until: dict[str, float] = {}
        self._server: frozenset[int] = frozenset()
        self._times: Optional[CpuTimes] = None
        self._listing: Optional[Listing] = None
        self._energy: dict[str, tuple[int, int]] = {}
        self._energy_uj = 0
        self._nvidia: Optional[Watch] = None
        self._iostat: Optional[Watch] = None
        self._amd: list[str] = []
        self._sensors: list[str] = []
        self._capacity_bytes: Optional[int] = None
        self._quietly("start", self._start)
        self.sample()                     # the first state that later shares are measured from

    def _start(self) -> None:
        machine = self._machine
        self._nvidia = machine.watch(nvidia_watch_argv())
        if machine.system == "Darwin":
            self._iostat = machine.watch(["iostat", "-n", "0", "-w", str(WATCH_EVERY_S)])
            self._capacity_bytes = whole(machine.run(["sysctl", "-n", "hw.memsize"], GAUGE_LIMIT_S))
        if machine.system == "Linux":
            self._amd = amd_cards(machine)
            self._sensors = linux_temperature_path(machine)

    def _quietly(self, name: str, read: Callable[[], Any]) -> Any:
        """What `read` gives, or null. One that is dear rests, so that none costs over GAUGE_SHARE.

        Catches everything: no gauge of a strange machine may end somebody's hours of run.
        """
        began_s = time.monotonic()
        if began_s < self._rests_until.get(name, 0.0):
            return None
        try:
            return read()
        except Exception:                 # noqa: BLE001
            return None
        finally:
            ended_s = time.monotonic()
            self._rests_until[name] = ended_s + (ended_s - began_s) / GAUGE_SHARE

    def sample(self) -> dict[str, Any]:
        """Every name of GAUGES, null where this machine does not tell, and `gpus`.

        energy_uj counts from the sampler's start; cpu_throttle_count from the system's. gpus:
        [{index, busy_ratio, memory_used_bytes, power_w, temperature_c, clock_mhz, throttled}], index
        as in the inventory's accelerators.
        """
        readers = {"Linux": self._linux, "Darwin": self._mac, "Windows": self._windows}
        reader = readers.get(self._machine.system, dict)
        gauges: dict[str, Any] = dict.fromkeys(GAUGES)
        gauges.update(reader())
        gauges["load_1m"] = self._quietly("load", lambda: round(os.getloadavg()[0], 2))
        gauges["gpus"] = self._gpus()
        return gauges

    def _busy(self, times: Optional[CpuTimes]) -> dict[str, Any]:
        before, self._times = self._times, times
        if before is None or times is None:
            return {}
        total = times.total - before.total
        return {"cpu_busy_ratio": ratio(times.busy - before.busy, total),
                "cpu_steal_ratio": ratio(times.stolen - before.stolen, total)}

    def _linux(self) -> dict[str, Any]:
        read, machine, quietly = self._machine.read, self._machine, self._quietly
        found = linux_memory(read("/proc/meminfo"))
        return {
            **found, **self._busy(parse_proc_stat(read("/proc/stat"))),
            "cpu_mhz": quietly("cpu_mhz", lambda: linux_cpu_mhz(machine)),
            "cpu_throttle_count": quietly("throttle", lambda: linux_throttle_count(machine)),
            "other_cpu_busy_ratio": quietly("processes", self._others),
            "power_source": quietly("power", lambda: linux_power_source(machine)),
            "temperature_c": scaled(_max(number(read(path)) for path in self._sensors), 1e-3, 1),
            "energy_uj": quietly("energy", self._energy_used)}

    def _energy_used(self) -> Optional[int]:
        now = linux_energy(self._machine)
        self._energy_uj += energy_between(self._energy, now)
        self._energy = now
        return self._energy_uj if now else None

    def _others(self) -> Optional[float]:
        """Share of all CPUs that neither we nor the server used; null where the server is unknown."""
        if self._port is None:
            return None
        times = parse_proc_stat(self._machine.read("/proc/stat"))
        if times is None:
            return None
        before, now = self._listing, Listing(times, list_processes(self._machine))
        self._listing = now
        if not self._server & now.processes.keys():
            self._server = find_server(self._machine, now.processes, self._port)
        if before is None or not self._server:
            return None
        known = descendants(now.processes, {os.getpid(), *self._server})
        known_ticks = ticks_between(before.processes, now.processes, known)
        return ratio(times.busy - before.times.busy - known_ticks, times.total - before.times.total)

    def _command(self, *argv: str) -> Optional[str]:
        return self._quietly(argv[0], lambda: self._machine.run(argv, GAUGE_LIMIT_S))

    def _mac(self) -> dict[str, Any]:
        # Two lines of heading, and one that tells of the time since the system's start.
        iostat = self._iostat.lines(skip=3) if self._iostat else []
        return {**mac_memory(self._command("vm_stat"),
                             self._command("sysctl", "-n", "vm.swapusage"), self._capacity_bytes),
                "cpu_busy_ratio": parse_iostat_busy(iostat),
                "power_source": parse_pmset_source(self._command("pmset", "-g", "batt"))}

    def _windows(self) -> dict[str, Any]:
        found = self._quietly("windows", read_windows) or {}
        return {**self._busy(found.get("cpu_times")),
                "memory_used_bytes": _difference(found.get("memory_total_bytes"),
                                                 found.get("memory_available_bytes")),
                "memory_available_bytes": found.get("memory_available_bytes"),
                "power_source": found.get("power_source")}

    def _gpus(self) -> list[dict[str, Any]]:
        cards = parse_nvidia_gauges(self._nvidia.lines()) if self._nvidia else []
        if self._machine.system == "Darwin":
            return cards + parse_ioreg_gpu(self._command("ioreg", "-r", "-d", "1", "-w", "0", "-c",
                                                         "IOAccelerator"))
        more = [self._quietly(folder, lambda at=at, folder=folder: amd_gauges(
            self._machine, folder, at)) for at, folder in enumerate(self._amd, len(cards))]
        return cards + [card for card in more if card is not None]

    def close(self) -> None:
        """Ends the lasting children; may be called twice."""
        for watch in (self._nvidia, self._iostat):
            if watch is not None:
                self._quietly("close", watch.close)
                self._rests_until.pop("close", None)
        self._nvidia = self._iostat = None
