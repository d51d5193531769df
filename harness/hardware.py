#!/usr/bin/env python3
"""What this machine is, and how busy it is, without what identifies it.

`inventory()` is the draft of a submission's hardware.json; `Sampler` reads the gauges that a run
writes as `host_sampled`. Linux, macOS and Windows; nothing is installed, nothing goes elsewhere.

    python3 harness/hardware.py            a table for people
    python3 harness/hardware.py --json     hardware.json

Privacy: no command here is asked for a serial number, a UUID, a MAC address, a host or a user
name. Queries name their fields one by one (`nvidia-smi --query-gpu=...`, `sysctl NAME`, CIM
`Select-Object`, `udevadm --property=...`) because the full listings of the same tools print such
names; where a tool has no such query (`system_profiler`), only the fields named here are taken.

Every parser is a pure function from the text of a file or a command to numbers, null where the
text does not say; `Machine` is the only part that touches the machine, so that tests hand in a
recorded one. ctypes is imported where it is used: a Python built without it can run the rest.
"""
from __future__ import annotations

import argparse
import array
import contextlib
import functools
import json
import os
import platform
import re
import subprocess
import sys
import threading
import time
from concurrent import futures
from typing import Any, Callable, Iterable, NamedTuple, Optional, Sequence

from stops import StorageError

COMMAND_LIMIT_S = 10.0            # a driver that hangs must not hang the program
WINDOWS_LIMIT_S = 40.0            # a first PowerShell of the day is slow
GAUGE_LIMIT_S = 2.0               # the same for a gauge that is read while a run goes on
GAUGE_SHARE = 0.01                # of one core: a gauge that took t s rests for t / GAUGE_SHARE s
WATCH_EVERY_S = 5                 # how often the two lasting children report
STALE_AFTER_S = 3 * WATCH_EVERY_S
MIB = 1024 * 1024


class Machine:
    """Reads this machine. Every method is total: what cannot be read is null or empty."""

    system = platform.system()        # "Linux", "Darwin" or "Windows"
    architecture = platform.machine()
    kernel_release = platform.release()
    python = {"version": platform.python_version(),
              "implementation": platform.python_implementation()}

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
        """Standard output of a command that ends within `limit_s`, or null where it does not.

        Whatever its exit status: `sysctl` fails for one unknown name of many and prints the rest.
        """
        try:
            done = subprocess.run(list(argv), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                  stderr=subprocess.DEVNULL, timeout=limit_s, check=False,
                                  env=_plain_environment(), **_apart())
        except (OSError, ValueError, subprocess.SubprocessError):
            return None
        return bytes(done.stdout).decode("utf-8", "replace")

    def watch(self, argv: Sequence[str]) -> Optional[Watch]:
        """A lasting command whose lines are kept as they come, or null where it does not start."""
        try:
            return Watch(argv)
        except (OSError, ValueError):
            return None

    def affinity_count(self) -> Optional[int]:
        """CPUs that this process may run on, or null where the system has no such bound."""
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None

    def windows_gauges(self) -> dict[str, Any]:
        """See read_windows; raises elsewhere."""
        return read_windows()

    def processor_features(self, numbers: Iterable[int]) -> list[int]:
        """Those of Windows' PROCESSOR_FEATURE numbers that the CPU has."""
        import ctypes

        kernel32 = ctypes.windll.kernel32        # type: ignore[attr-defined,unused-ignore]
        return [at for at in numbers if kernel32.IsProcessorFeaturePresent(at)]

    def copy_bandwidth(self) -> Optional[float]:
        """Measured memory bandwidth in GB/s, or null; see copy_bandwidth_gb_per_s."""
        threads = self.affinity_count() or os.cpu_count() or 1
        try:
            return copy_bandwidth_gb_per_s(min(COPY_THREADS, threads))
        except (ImportError, MemoryError, OSError, RuntimeError):
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


def ratio(part: float, total: float) -> Optional[float]:
    """part / total held to 0..1, four digits; null where total is not above 0."""
    if total <= 0:
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
    found = re.match(r"cpu +((?:\d{1,20} ?){8,10})\n", text or "", re.ASCII)
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


def ticks_between(before: dict[int, Process], after: dict[int, Process],
                  pids: Iterable[int]) -> int:
    """CPU ticks that `pids` used between two listings; a process of the second only began at 0."""
    return sum(max(0, after[pid].ticks - (before[pid].ticks if pid in before else 0))
               for pid in pids)


# They hold the port for a server that is no child of theirs, or that runs on another machine.
FORWARDERS = frozenset(("docker-proxy", "com.docker.backend", "rootlessport", "rootlesskit",
                        "pasta", "passt", "slirp4netns", "ssh", "sshd", "socat", "kubectl",
                        "gvproxy", "wslrelay.exe", "nginx", "caddy", "haproxy"))


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
    """Clock of the fastest core now, in MHz: idle cores clock down and would hide a busy one's."""
    folder = "/sys/devices/system/cpu/cpufreq"
    policies = _numbered(machine.names(folder), r"policy\d+")
    return scaled(_max(number(machine.read(f"{folder}/{name}/scaling_cur_freq"))
                       for name in policies), 1e-3, 1)


def linux_throttle_count(machine: Machine) -> Optional[int]:
    """How often cores and packages were throttled since the start; differences are what counts."""
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
                 "clocks.sm")
# Its name since driver 535, and before; an unknown name makes the whole query fail.
NVIDIA_REASONS = ("clocks_event_reasons.active", "clocks_throttle_reasons.active")


def nvidia_query(fields: Iterable[str]) -> list[str]:
    """The command that prints one line for each card: the values of `fields`, without units."""
    return ["nvidia-smi", "--query-gpu=" + ",".join(fields), "--format=csv,noheader,nounits"]


def nvidia_watch(machine: Machine) -> Optional[Watch]:
    """A lasting nvidia-smi that reports every WATCH_EVERY_S, or null where there is none."""
    fields: tuple[str, ...] = NVIDIA_GAUGES
    for name in NVIDIA_REASONS:
        answer = machine.run(nvidia_query([name]))
        if answer is None:
            return None
        if re.match(r"\s*(0x|\[)", answer):
            fields += (name,)
            break
    return machine.watch([*nvidia_query(fields), "-l", str(WATCH_EVERY_S)])


def parse_nvidia_gauges(lines: Iterable[str]) -> list[dict[str, Any]]:
    """Gauges of each card, by index, from lines of NVIDIA_GAUGES, where known with the reasons why
    its clock is held down; their memory is in MiB."""
    cards = []
    for line in lines:
        fields = [field.strip() for field in line.split(",")]
        index = whole(fields[0])
        if len(fields) - len(NVIDIA_GAUGES) not in (0, 1) or index is None:
            continue
        reasons = re.fullmatch(r"0x([0-9a-fA-F]{1,16})", fields[-1])
        held = bool(int(reasons.group(1), 16) & NVIDIA_THROTTLE_BITS) if reasons else None
        used_mib = whole(fields[2])
        cards.append({
            "index": index, "busy_ratio": scaled(number(fields[1]), 0.01, 4),
            "memory_used_bytes": None if used_mib is None else used_mib * MIB,
            "power_w": number(fields[3]), "temperature_c": number(fields[4]),
            "clock_mhz": number(fields[5]), "throttled": held})
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
        self._nvidia = nvidia_watch(machine)
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
        except Exception:
            return None
        finally:
            ended_s = time.monotonic()
            self._rests_until[name] = ended_s + (ended_s - began_s) / GAUGE_SHARE

    def sample(self) -> dict[str, Any]:
        """Every name of GAUGES, null where this machine does not tell, and `gpus`.

        energy_uj counts from the sampler's start; cpu_throttle_count from the system's. gpus:
        [{index, busy_ratio, memory_used_bytes, power_w, temperature_c, clock_mhz, throttled}],
        index as in the inventory's accelerators.
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
        """Share of all CPUs that neither we nor the server used; null without a known server."""
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
        found: Optional[str] = self._quietly(
            argv[0], lambda: self._machine.run(argv, GAUGE_LIMIT_S))
        return found

    def _mac(self) -> dict[str, Any]:
        # Two lines of heading, and one that tells of the time since the system's start.
        iostat = self._iostat.lines(skip=3) if self._iostat else []
        return {**mac_memory(self._command("vm_stat"),
                             self._command("sysctl", "-n", "vm.swapusage"), self._capacity_bytes),
                "cpu_busy_ratio": parse_iostat_busy(iostat),
                "power_source": parse_pmset_source(self._command("pmset", "-g", "batt"))}

    def _windows(self) -> dict[str, Any]:
        found = self._quietly("windows", self._machine.windows_gauges) or {}
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
        more = [self._quietly(folder, functools.partial(amd_gauges, self._machine, folder, at))
                for at, folder in enumerate(self._amd, len(cards))]
        return cards + [card for card in more if card is not None]

    def close(self) -> None:
        """Ends the lasting children; may be called twice."""
        for watch in (self._nvidia, self._iostat):
            if watch is not None:
                self._quietly("close", watch.close)
                self._rests_until.pop("close", None)
        self._nvidia = self._iostat = None


SAMPLE_EVERY_S = 5.0
BUSY_LOOK_S = 1.0


class Patrol(threading.Thread):
    """Samples the gauges every SAMPLE_EVERY_S and hands them to `tell`.

    Ends when `tell` raises: the disk is full then, which the lanes meet, too, and tell of.
    """

    def __init__(self, server_port: Optional[int], tell: Callable[[dict[str, Any]], Any]) -> None:
        super().__init__(daemon=True)
        self._tell, self._ended, self._sampler = tell, threading.Event(), Sampler(server_port)
        self.start()

    def run(self) -> None:
        """Until `close`."""
        with contextlib.suppress(StorageError):
            while not self._ended.wait(SAMPLE_EVERY_S):
                self._tell(self._sampler.sample())

    def close(self, tell: bool) -> None:
        """End; with `tell` after a last sample, since a short run shall have one, too."""
        self._ended.set()
        self.join()
        if tell:
            self._tell(self._sampler.sample())
        self._sampler.close()


HEARTBEAT_S = 0.1                     # notices a suspended machine
HEARTBEAT_FINE_S = 0.01               # stands for a reader's lag where the kernel gives no stamps


class Heartbeat(threading.Thread):
    """Sleeps and looks at the clock: oversleeping is a suspended or starved machine."""

    def __init__(self, period_s: float) -> None:
        super().__init__(daemon=True)
        self.period_s, self.beats = period_s, array.array("q")   # pairs: when ns, overslept µs
        self.ended = threading.Event()
        self.least_us = 0 if period_s < HEARTBEAT_S else 50_000

    def run(self) -> None:
        last_ns = time.perf_counter_ns()
        while not self.ended.wait(self.period_s):
            now_ns = time.perf_counter_ns()
            overslept_us = (now_ns - last_ns) // 1000 - int(self.period_s * 1e6)
            if overslept_us >= self.least_us:
                self.beats.extend((now_ns, max(overslept_us, 0)))
            last_ns = now_ns

    def longest_gap_us(self, from_ns: int, to_ns: int) -> int:
        """Longest time between two beats in a window; the period where none was late."""
        return int(self.period_s * 1e6) + max(self.between(from_ns, to_ns), default=0)

    def between(self, from_ns: int, to_ns: int) -> list[int]:
        """Overslept µs of the beats whose sleep lay in a window, in part at least."""
        out = []
        for i in range(len(self.beats) - 2, -1, -2):
            if self.beats[i] < from_ns:
                break
            if self.beats[i] - self.beats[i + 1] * 1000 <= to_ns:
                out.append(self.beats[i + 1])
        return out


# ---------------------------------------------------------------- the inventory: its fields

class Unknown(str):
    """Why a value is null, where that is known better than FIELDS says it."""


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
TEXT_LIMIT = 120


def leaf(value: Any, reason: str) -> dict[str, Any]:
    """{"value", "source", "reason"}: probed, or null with the reason."""
    if isinstance(value, Unknown):
        value, reason = None, str(value)
    if value is None or value == "" or value == []:
        return {"value": None, "source": None, "reason": reason}
    return {"value": value, "source": "probed", "reason": None}


def clean(text: Any) -> Optional[str]:
    """A name as firmware tells it, without odd spaces and characters that do not print, or null."""
    if not isinstance(text, str):
        return None
    shown = "".join(char if char.isprintable() else " " for char in text.replace("\0", ""))
    return " ".join(shown.split())[:TEXT_LIMIT] or None


def parse_json(text: Optional[str]) -> Any:
    """What a command printed as JSON, or null."""
    try:
        return json.loads(text or "")
    except (ValueError, RecursionError):
        return None


def dicts(value: Any) -> list[dict[str, Any]]:
    """The objects in a list, or the one that stands alone: PowerShell and macOS write both."""
    items = value if isinstance(value, list) else [value]
    return [item for item in items if isinstance(item, dict)]


def item_whole(item: dict[str, Any], name: str) -> Optional[int]:
    """A whole number above 0 from an object that may write it as text, or null."""
    return whole(str(item.get(name))) or None


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
    for separator, word in re.findall(r"([-.+~_]?)([^-.+~_]+)", clean(release) or ""):
        if not KERNEL_WORDS.fullmatch(word):
            break
        kept += separator + word
    return kept or None


class Module(NamedTuple):
    """One memory module as firmware lists it."""

    kind: Optional[str]
    speed_mts: Optional[int]
    width_bits: Optional[int]
    place: str                        # its slot and bank, which may name the channel


def memory_of_modules(modules: Sequence[Module]) -> dict[str, Any]:
    """type, speed_mts, channels_count and bandwidth_theoretical_gb_per_s of the modules fitted.

    bandwidth = transfers/s * bytes of one transfer, summed over the channels that hold a module;
    the slowest module sets the speed of all. Null where modules differ in type or name no channel.
    """
    kinds = {module.kind for module in modules}
    speeds = [module.speed_mts for module in modules if module.speed_mts]
    speed = min(speeds) if speeds and len(speeds) == len(modules) else None
    channels: dict[str, int] = {}
    for module in modules:
        name = re.search(r"(?i)(?:(P\d|CPU ?\d|Controller ?\d).{0,3})?channel ?[-_]?([A-P]|\d{1,2})"
                         r"(?![a-z])", module.place)
        if not name or not module.width_bits:
            channels = {}
            break
        channels[name.group(0).upper()] = module.width_bits
    found: dict[str, Any] = {"type": kinds.pop() if len(kinds) == 1 else None, "speed_mts": speed,
                             "channels_count": len(channels) or None}
    if speed and channels:
        found["bandwidth_theoretical_gb_per_s"] = round(speed * sum(channels.values()) / 8e3, 1)
    return found


PCIE_GENERATIONS = {"2.5": 1, "5": 2, "8": 3, "16": 4, "32": 5, "64": 6}
PCI_VENDORS = {"0x1002": "AMD", "0x10de": "NVIDIA", "0x8086": "Intel"}


def pcie_generation(text: Optional[str]) -> Optional[int]:
    """The generation of a link speed as sysfs writes it: "16.0 GT/s PCIe" is 4."""
    found = re.match(r"(\d+(?:\.5)?)(?:\.0)? GT/s", text or "", re.ASCII)
    return PCIE_GENERATIONS.get(found.group(1)) if found else None


def pcie_lanes(text: Optional[str]) -> Optional[int]:
    """Lanes of a link, or null: sysfs writes 0 and 255 for chips that have no link of their own."""
    lanes = whole(text)
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
        memory_mib = whole(fields[1])
        cards.append({
            "model_name": clean(fields[0]), "vendor": "NVIDIA",
            "memory_bytes": memory_mib * MIB if memory_mib else None,
            "driver_version": fields[2] if re.fullmatch(r"[\d.]{1,20}", fields[2]) else None,
            "compute_api": f"CUDA {cuda.group(1)}" if cuda else None,
            "power_limit_w": number(fields[3]),
            "pcie_generation_current": whole(fields[4]) or None,
            "pcie_generation_max": whole(fields[5]) or None,
            "pcie_lanes_current": pcie_lanes(fields[6]), "pcie_lanes_max": pcie_lanes(fields[7])})
    return cards


def nvidia_cards(machine: Machine) -> list[dict[str, Any]]:
    """What nvidia-smi tells of its cards; empty where there is none."""
    listed = machine.run(nvidia_query(NVIDIA_FIELDS))
    return parse_nvidia(listed, machine.run(["nvidia-smi", "--version"])) if listed else []


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
    return {"model_name": clean(names.get("model name")), "vendor": clean(names.get("vendor_id")),
            "flags": flags,
            "threads_count": len(re.findall(r"^processor\s*:", text or "", re.MULTILINE)) or None}


def parse_lscpu(text: Optional[str]) -> dict[str, Optional[str]]:
    """model_name and vendor from `lscpu`, which knows ARM's part numbers; big and little joined."""
    models = re.findall(r"^\s*Model name:\s+(.+)$", text or "", re.MULTILINE)
    vendors = re.findall(r"^\s*Vendor ID:\s+(.+)$", text or "", re.MULTILINE)
    return {"model_name": clean(" + ".join(m for m in dict.fromkeys(models) if m.strip() != "-")),
            "vendor": clean(vendors[0]) if vendors else None}


def parse_cpu_list(text: Optional[str]) -> set[int]:
    """"0-3,8" to {0, 1, 2, 3, 8}."""
    if not re.fullmatch(r"\d{1,5}(?:-\d{1,5})?(?:,\d{1,5}(?:-\d{1,5})?)*", (text or "").strip()):
        return set()
    found: set[int] = set()
    for part in (text or "").split(","):
        first, _, last = part.partition("-")
        found.update(range(int(first), int(last or first) + 1))
    return found


def linux_cores(machine: Machine) -> dict[int, tuple[str, str]]:
    """{CPU: (package, core)} of the CPUs that are online."""
    folder, found = "/sys/devices/system/cpu", {}
    for name in _numbered(machine.names(folder), r"cpu\d+"):
        core = machine.read(f"{folder}/{name}/topology/core_id")
        package = machine.read(f"{folder}/{name}/topology/physical_package_id")
        if core is not None and package is not None:
            found[int(name[3:])] = (package.strip(), core.strip())
    return found


LITTLE_SHARE = 0.7                    # of the biggest core's capacity; below it a core is small


def linux_core_kinds(machine: Machine,
                     cores: dict[int, tuple[str, str]]) -> dict[str, Optional[int]]:
    """Counts of performance and efficiency cores: Intel lists them, ARM gives capacities."""
    big = parse_cpu_list(machine.read("/sys/devices/cpu_core/cpus"))
    little = parse_cpu_list(machine.read("/sys/devices/cpu_atom/cpus"))
    if not big or not little:
        capacity = {cpu: whole(machine.read(f"/sys/devices/system/cpu/cpu{cpu}/cpu_capacity")) or 0
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


def linux_caches(machine: Machine) -> dict[str, int]:
    """Sizes in KiB, all caches of one level together; CPUs that share a cache count it once."""
    folder, sizes = "/sys/devices/system/cpu", {}
    for name in _numbered(machine.names(folder), r"cpu\d+"):
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


def linux_memory_limit(machine: Machine) -> Optional[int]:
    """The least memory limit of the control groups that this process is in, in bytes, or null."""
    limits = [whole(machine.read(f"{folder}/{name}"))
              for folder in parse_cgroups(machine.read("/proc/self/cgroup"), "memory")
              for name in ("memory.max", "memory.limit_in_bytes")]
    return min((limit for limit in limits if limit), default=None)


def parse_cpu_quota(text: Optional[str]) -> Optional[float]:
    """CPUs that "quota period" in µs allow ("150000 100000" is 1.5); "max" and -1 are no limit."""
    fields = [whole(field) for field in (text or "").split()]
    if len(fields) != 2 or not fields[0] or not fields[1]:
        return None
    return round(fields[0] / fields[1], 2)


def linux_cpu_quota(machine: Machine) -> Optional[float]:
    """The least number of CPUs that the control groups of this process allow, or null."""
    quotas = []
    for folder in parse_cgroups(machine.read("/proc/self/cgroup"), "cpu"):
        older = [machine.read(f"{folder}/cpu.cfs_{name}_us") or "" for name in ("quota", "period")]
        quotas += [parse_cpu_quota(machine.read(f"{folder}/cpu.max")),
                   parse_cpu_quota(" ".join(older))]
    return min((quota for quota in quotas if quota), default=None)


def linux_cpu(machine: Machine) -> dict[str, Any]:
    """Section "cpu"."""
    info, cores = parse_cpuinfo(machine.read("/proc/cpuinfo")), linux_cores(machine)
    if not info["model_name"]:
        info.update(parse_lscpu(machine.run(["lscpu"])))
    folder = "/sys/devices/system/cpu/cpufreq"
    policies = _numbered(machine.names(folder), r"policy\d+")
    clocks = {field: scaled(_max(whole(machine.read(f"{folder}/{policy}/{name}"))
                                 for policy in policies), 1e-3, 1)
              for field, name in (("base_mhz", "base_frequency"), ("max_mhz", "cpuinfo_max_freq"))}
    usable = [machine.affinity_count(), linux_cpu_quota(machine), info["threads_count"]]
    return {**info, **linux_caches(machine), **linux_core_kinds(machine, cores), **clocks,
            "base_mhz": clocks["base_mhz"] or clock_in_name(info["model_name"]),
            "physical_cores_count": len(set(cores.values())) or None,
            "usable_threads_count": min((count for count in usable if count), default=None),
            "instruction_sets": sorted({INSTRUCTION_SETS[flag] for flag in info["flags"]
                                        if flag in INSTRUCTION_SETS})}


def clock_in_name(name: Optional[str]) -> Optional[float]:
    """Base clock in MHz where the CPU's name carries it, as Intel's did: "... @ 3.60GHz"."""
    found = re.search(r"@ (\d\.\d{1,2})GHz", name or "", re.ASCII)
    return round(float(found.group(1)) * 1000, 1) if found else None


MODULE_FIELDS = ("TYPE", "SPEED_MTS", "CONFIGURED_SPEED_MTS", "DATA_WIDTH", "SIZE", "LOCATOR",
                 "BANK_LOCATOR")
MODULE_SLOTS = 32


def udev_argv() -> list[str]:
    """Asks udev, which reads the firmware's list as root, for these fields and for no serial."""
    names = [f"MEMORY_DEVICE_{slot}_{field}" for slot in range(MODULE_SLOTS)
             for field in MODULE_FIELDS]
    return ["udevadm", "info", "--query=property", "--path=/devices/virtual/dmi/id",
            "--property=" + ",".join(names)]


def parse_udev_modules(text: Optional[str]) -> list[Module]:
    """Modules fitted, from udev's MEMORY_DEVICE_<slot>_<FIELD>=value."""
    slots: dict[str, dict[str, str]] = {}
    for slot, field, value in re.findall(r"^MEMORY_DEVICE_(\d{1,2})_([A-Z_]+)=(.*)$", text or "",
                                         re.MULTILINE | re.ASCII):
        slots.setdefault(slot, {})[field] = value
    return [Module(clean(slot.get("TYPE")),
                   whole(slot.get("CONFIGURED_SPEED_MTS")) or whole(slot.get("SPEED_MTS")),
                   whole(slot.get("DATA_WIDTH")),
                   f"{slot.get('BANK_LOCATOR', '')} {slot.get('LOCATOR', '')}")
            for slot in slots.values() if whole(slot.get("SIZE"))]


def linux_memory_inventory(machine: Machine) -> dict[str, Any]:
    """Section "memory"."""
    info = parse_meminfo(machine.read("/proc/meminfo"))
    capacity, limit = info.get("MemTotal"), linux_memory_limit(machine)
    limited = limit is not None and (capacity is None or limit < capacity)
    return {**memory_of_modules(parse_udev_modules(machine.run(udev_argv()))),
            "capacity_bytes": capacity, "limit_bytes": limit if limited else None,
            "swap_bytes": info.get("SwapTotal")}


CHASSIS_KINDS = {                     # SMBIOS 7.4.1
    **dict.fromkeys((8, 9, 10, 14, 30, 31, 32), "laptop"),
    **dict.fromkeys((3, 4, 5, 6, 7, 13, 15, 16, 24, 35, 36), "desktop"),
    **dict.fromkeys((17, 23, 25, 28, 29), "server")}
FILLER = re.compile(
    r"(?i)(to be filled by o\.?e\.?m\.?|system (product name|manufacturer|version)|default string"
    r"|not (applicable|specified|available)|none|unknown|o\.?e\.?m\.?|undefined|[-.x0 ]*)")


def firmware_name(dmi: dict[str, str]) -> Optional[str]:
    """Vendor and marketing name; of a self-built machine its board's."""
    named = {name: value for name, value in dmi.items() if not FILLER.fullmatch(value)}
    vendor, model = named.get("sys_vendor"), named.get("product_name")
    if vendor == "LENOVO":            # its product name is a type number
        model = named.get("product_version", model)
    if not model:
        vendor, model = named.get("board_vendor"), named.get("board_name")
    if not model or not vendor or model.lower().startswith(vendor.split()[0].lower()):
        return model
    return f"{vendor} {model}"


def linux_virtualization(machine: Machine, flags: Sequence[str]) -> Optional[str]:
    """"none", or which: kvm, vmware, wsl2 ...; "vm" where only the CPU says that there is one."""
    if "microsoft" in (machine.kernel_release or "").lower():
        return "wsl2"
    told = (machine.run(["systemd-detect-virt", "--vm"]) or "").strip()
    if re.fullmatch(r"[a-z0-9-]{1,20}", told):
        return told
    if "hypervisor" in flags:
        return "vm"
    return "none" if "fpu" in flags else None         # x86 has the flag where there is one


def linux_container(machine: Machine) -> Optional[str]:
    """"none", or which: docker, podman, lxc ...; null where nothing tells."""
    told = (machine.run(["systemd-detect-virt", "--container"]) or "").strip()
    if re.fullmatch(r"[a-z0-9-]{1,20}", told):
        return "none" if told == "wsl" else told
    marks = (("/.dockerenv", "docker"), ("/run/.containerenv", "podman"))
    return next((name for path, name in marks if machine.read(path) is not None), None)


def linux_system(machine: Machine) -> dict[str, Any]:
    """Section "system"."""
    folder = "/sys/class/dmi/id"
    dmi = {name: clean(machine.read(f"{folder}/{name}")) or "" for name in (
        "sys_vendor", "product_name", "product_version", "board_vendor", "board_name")}
    board = clean(machine.read("/proc/device-tree/model"))
    virtualization = linux_virtualization(
        machine, parse_cpuinfo(machine.read("/proc/cpuinfo"))["flags"])
    kind: Any = CHASSIS_KINDS.get(whole(machine.read(f"{folder}/chassis_type")) or 0)
    if virtualization == "wsl2":
        kind = Unknown("WSL hides the machine that it runs on")
    elif virtualization not in ("none", None):
        kind = "vm"
    elif kind is None and board:
        kind = "laptop" if "book" in board.lower() else "sbc"
    return {"kind": kind, "model_name": firmware_name(dmi) or board,
            "virtualization": virtualization, "container": linux_container(machine)}


def parse_os_release(text: Optional[str]) -> dict[str, Optional[str]]:
    """name and version of the distribution."""
    names = dict(re.findall(r"^([A-Z_]+)=[\"']?([^\"'\n]*)", text or "", re.MULTILINE))
    return {"name": clean(names.get("NAME")), "version": clean(names.get("VERSION_ID"))}


def linux_power(machine: Machine) -> dict[str, Any]:
    """Section "power"."""
    mode = machine.read("/sys/firmware/acpi/platform_profile")
    if mode is None:
        mode = machine.run(["powerprofilesctl", "get"])
    governor = machine.read("/sys/devices/system/cpu/cpufreq/policy0/scaling_governor")
    return {"source": linux_power_source(machine), "mode": _word(mode), "governor": _word(governor)}


def _word(text: Optional[str]) -> Optional[str]:
    found = re.fullmatch(r"\s*([a-z][a-z_-]{1,30})\s*", text or "", re.ASCII)
    return found.group(1) if found else None


def parse_lspci_name(text: Optional[str]) -> Optional[str]:
    """The device's name from one line of `lspci -mm`; what stands in brackets in it, where so."""
    quoted = re.findall(r'"([^"]*)"', text or "")
    if len(quoted) < 3:
        return None
    bracket = re.search(r"\[(.+)\]", quoted[2])
    return clean(bracket.group(1) if bracket else quoted[2])


def parse_rocm_names(text: Optional[str]) -> list[str]:
    """Card names in order from `rocm-smi --showproductname --json`."""
    listed = parse_json(text)
    cards = listed if isinstance(listed, dict) else {}
    names = []
    for key in _numbered(cards, r"card\d+"):
        card = cards[key] if isinstance(cards[key], dict) else {}
        names.append(clean(card.get("Card series") or card.get("Card Series")) or "")
    return names


def drm_card(machine: Machine, folder: str) -> dict[str, Any]:
    """One card that sysfs lists: AMD's and Intel's."""
    vendor = PCI_VENDORS.get((machine.read(f"{folder}/vendor") or "").strip())
    slot = re.search(r"^PCI_SLOT_NAME=([0-9a-f:.]{7,16})$", machine.read(f"{folder}/uevent") or "",
                     re.MULTILINE)
    device = (machine.read(f"{folder}/device") or "").strip()
    named = parse_lspci_name(machine.run(["lspci", "-mm", "-s", slot.group(1)])) if slot else None
    hwmon = next((f"{folder}/hwmon/{name}" for name in machine.names(f"{folder}/hwmon")), folder)
    return {
        "model_name": named or clean(f"{vendor} {device}"), "vendor": vendor,
        "memory_bytes": whole(machine.read(f"{folder}/mem_info_vram_total")) or None,
        "power_limit_w": scaled(number(machine.read(f"{hwmon}/power1_cap")), 1e-6),
        "pcie_generation_current": pcie_generation(machine.read(f"{folder}/current_link_speed")),
        "pcie_generation_max": pcie_generation(machine.read(f"{folder}/max_link_speed")),
        "pcie_lanes_current": pcie_lanes(machine.read(f"{folder}/current_link_width")),
        "pcie_lanes_max": pcie_lanes(machine.read(f"{folder}/max_link_width"))}


def linux_accelerators(machine: Machine) -> list[dict[str, Any]]:
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
    for name in _numbered(machine.names("/sys/class/drm"), r"card\d+"):
        folder = f"/sys/class/drm/{name}/device"
        vendor = PCI_VENDORS.get((machine.read(f"{folder}/vendor") or "").strip())
        if folder not in amd and vendor and not (vendor == "NVIDIA" and cards):
            cards.append(drm_card(machine, folder))
    return cards


def linux_inventory(machine: Machine) -> dict[str, Any]:
    """All sections, as values without sources."""
    return {"system": linux_system(machine), "cpu": linux_cpu(machine),
            "memory": linux_memory_inventory(machine), "accelerators": linux_accelerators(machine),
            "os": parse_os_release(machine.read("/etc/os-release")), "power": linux_power(machine)}


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
        return whole(told.get(name)) or 0

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
    brand = clean(told.get("machdep.cpu.brand_string"))
    levels = whole(told.get("hw.nperflevels")) == 2
    big, little = (whole(told.get(f"hw.perflevel{level}.physicalcpu")) if levels else None
                   for level in (0, 1))
    return {**mac_caches(told), "model_name": brand,
            "vendor": clean(told.get("machdep.cpu.vendor")) or ("Apple" if levels else None),
            "physical_cores_count": whole(told.get("hw.physicalcpu")),
            "threads_count": whole(told.get("hw.logicalcpu")),
            "usable_threads_count": whole(told.get("hw.logicalcpu")),
            "performance_cores_count": big, "efficiency_cores_count": little,
            "base_mhz": scaled(whole(told.get("hw.cpufrequency")), 1e-6, 1) or clock_in_name(brand),
            "max_mhz": scaled(whole(told.get("hw.cpufrequency_max")), 1e-6, 1),
            "instruction_sets": sorted(sets)}


def parse_mac_displays(text: Optional[str]) -> Optional[list[dict[str, Any]]]:
    """GPUs from `system_profiler -json SPDisplaysDataType`, null where that is not what it is.

    The listing tells of the screens as well, with their serial numbers; nothing of them is read.
    """
    listed = parse_json(text)
    if not isinstance(listed, dict) or "SPDisplaysDataType" not in listed:
        return None
    cards = []
    for item in dicts(listed["SPDisplaysDataType"]):
        vendor = re.search(r"(?i)apple|amd|ati|intel|nvidia", str(item.get("spdisplays_vendor")))
        name = vendor.group(0).lower() if vendor else ""
        metal = re.search(r"metal(\d)", str(item.get("spdisplays_mtlgpufamilysupport")))
        memory = re.fullmatch(r"(\d{1,6}) ([MG])B", str(item.get("spdisplays_vram")))
        cards.append({
            "model_name": clean(item.get("sppci_model")),
            "vendor": {"apple": "Apple", "intel": "Intel", "nvidia": "NVIDIA", "amd": "AMD",
                       "ati": "AMD"}.get(name),
            "cores_count": item_whole(item, "sppci_cores"),
            "memory_bytes": (int(memory.group(1)) * {"M": MIB, "G": 1024 * MIB}[memory.group(2)]
                             if memory else Unknown("it shares the machine's memory")),
            "compute_api": f"Metal {metal.group(1)}" if metal else None})
    return cards


def parse_mac_modules(text: Optional[str]) -> list[Module]:
    """Memory modules from `system_profiler -json SPMemoryDataType`: Apple's own, or Intel Macs'."""
    listed = parse_json(text)
    groups = dicts(listed.get("SPMemoryDataType")) if isinstance(listed, dict) else []
    items = [item for group in groups
             for item in (dicts(group.get("_items")) if "_items" in group else [group])]
    modules = []
    for item in items:
        speed = re.match(r"(\d{3,5}) MHz", str(item.get("dimm_speed")))
        kind = clean(item.get("dimm_type"))
        if kind and kind != "empty":
            modules.append(Module(kind, int(speed.group(1)) if speed else None, 64,
                                  str(item.get("_name"))))
    return modules


def mac_model_name(text: Optional[str], model: Optional[str]) -> Optional[str]:
    """"MacBook Air (MacBookAir10,1)", from `system_profiler -json` and `sysctl hw.model`."""
    listed = parse_json(text)
    items = dicts(listed.get("SPHardwareDataType")) if isinstance(listed, dict) else []
    name = clean(items[0].get("machine_name")) if items else None
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


def mac_inventory(machine: Machine) -> dict[str, Any]:
    """All sections, as values without sources."""

    def profile(kind: str) -> Optional[str]:
        # "mini" is the level of detail that leaves personal information out.
        return machine.run(["system_profiler", "-json", "-detailLevel", "mini", kind])

    told = parse_sysctl(machine.run(["sysctl", *SYSCTL_NAMES]))
    cpu, cards = mac_cpu(told), parse_mac_displays(profile("SPDisplaysDataType"))
    name = mac_model_name(profile("SPHardwareDataType"), clean(told.get("hw.model")))
    virtual = told.get("kern.hv_vmm_present", "").strip() == "1"
    apple = (cpu["model_name"] or "").startswith("Apple ")
    gpu_cores = cards[0]["cores_count"] if cards else None
    return {
        "system": {"kind": "vm" if virtual else mac_kind(name), "model_name": name,
                   "virtualization": "vm" if virtual else "none", "container": "none"},
        "cpu": cpu, "accelerators": cards,
        "memory": {
            **memory_of_modules(parse_mac_modules(profile("SPMemoryDataType"))),
            **({"bandwidth_theoretical_gb_per_s": APPLE_BANDWIDTH_GB_PER_S.get(
                f"{cpu['model_name']} {gpu_cores}",
                APPLE_BANDWIDTH_GB_PER_S.get(str(cpu["model_name"])))} if apple else {}),
            "capacity_bytes": whole(told.get("hw.memsize")),
            "swap_bytes": parse_swapusage(told.get("vm.swapusage")).get("total"), "unified": apple},
        "os": {"name": "macOS", "version": clean(told.get("kern.osproductversion"))},
        "power": {"source": parse_pmset_source(machine.run(["pmset", "-g", "batt"])),
                  "mode": parse_pmset_mode(machine.run(["pmset", "-g"]))}}


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
    vendor, model = clean(item.get("Manufacturer")) or "", clean(item.get("Model")) or ""
    words = f"{vendor} {model}".lower()
    virtual = next((name for word, name in VIRTUAL_MACHINES if word in words), None)
    kind = WINDOWS_KINDS.get(item_whole(item, "PCSystemType") or 0)
    known = bool(vendor or model)
    return {"kind": "vm" if virtual else kind,
            "model_name": firmware_name({"sys_vendor": vendor, "product_name": model}),
            "virtualization": virtual or ("none" if known else None),
            "container": "none" if known else None}


def windows_cpu(items: Sequence[dict[str, Any]], features: Iterable[int]) -> dict[str, Any]:
    """Section "cpu" from Win32_Processor, one item for each socket."""

    def total(name: str) -> Optional[int]:
        counted = _sum(item_whole(item, name) for item in items)
        return None if counted is None else int(counted)

    first = items[0] if items else {}
    return {"model_name": clean(first.get("Name")), "vendor": clean(first.get("Manufacturer")),
            "physical_cores_count": total("NumberOfCores"),
            "threads_count": total("NumberOfLogicalProcessors"),
            "usable_threads_count": total("NumberOfLogicalProcessors"),
            "base_mhz": scaled(item_whole(first, "MaxClockSpeed"), 1, 1),
            "cache_l2_kib": total("L2CacheSize"), "cache_l3_kib": total("L3CacheSize"),
            "instruction_sets": sorted(WINDOWS_FEATURES[at] for at in features)}


def windows_memory(told: dict[str, Any]) -> dict[str, Any]:
    """Section "memory"."""
    modules = [Module(SMBIOS_MEMORY.get(item_whole(item, "SMBIOSMemoryType") or 0),
                      item_whole(item, "ConfiguredClockSpeed") or item_whole(item, "Speed"),
                      item_whole(item, "DataWidth"),
                      f"{item.get('BankLabel')} {item.get('DeviceLocator')}")
               for item in dicts(told.get("memory")) if item_whole(item, "Capacity")]
    system = dicts(told.get("system"))
    page_mib = [whole(str(item.get("AllocatedBaseSize"))) for item in dicts(told.get("page"))]
    swap_mib = _sum(page_mib)
    return {**memory_of_modules(modules),
            "capacity_bytes": item_whole(system[0], "TotalPhysicalMemory") if system else None,
            "swap_bytes": None if swap_mib is None else int(swap_mib) * MIB}


def windows_cards(told: dict[str, Any], nvidia: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Cards from Win32_VideoController; its AdapterRAM ends at 4 GiB, the registry knows better."""
    sizes = {item.get("DriverDesc"): item_whole(item, "HardwareInformation.qwMemorySize")
             for item in dicts(told.get("gpu_memory"))}
    cards = list(nvidia)
    for item in dicts(told.get("gpu")):
        name, vendor = clean(item.get("Name")), clean(item.get("AdapterCompatibility"))
        if not name or NO_CARD.search(name) or (nvidia and vendor == "NVIDIA"):
            continue
        small = item_whole(item, "AdapterRAM")
        cards.append({"model_name": name, "driver_version": clean(item.get("DriverVersion")),
                      "vendor": "AMD" if "Micro Devices" in (vendor or "") else vendor,
                      "memory_bytes": sizes.get(item.get("Name")) or (
                          small if small and small < 4095 * MIB else None)})
    return cards


def windows_inventory(machine: Machine) -> dict[str, Any]:
    """All sections, as values without sources."""
    answer = parse_json(machine.run(WINDOWS_ARGV, WINDOWS_LIMIT_S))
    told = answer if isinstance(answer, dict) else {}
    system, named = dicts(told.get("system")), dicts(told.get("os"))
    nvidia = nvidia_cards(machine)
    return {
        "system": windows_system(system[0] if system else {}),
        "cpu": windows_cpu(dicts(told.get("cpu")), machine.processor_features(WINDOWS_FEATURES)),
        "memory": windows_memory(told),
        "accelerators": windows_cards(told, nvidia) if told or nvidia else None,
        "os": {"name": clean(named[0].get("Caption")), "version": clean(named[0].get("Version"))}
              if named else {"name": "Windows"},
        "power": {"source": machine.windows_gauges().get("power_source"),
                  "mode": parse_power_scheme(machine.run(["powercfg", "/getactivescheme"]))}}


# ---------------------------------------------------------------- the inventory: put together

COPY_BYTES = 256 * MIB                # far above what caches hold, small beside a model
COPY_THREADS = 16
COPY_ROUNDS = 25
COPY_ROUND_S = 0.04                   # short, so that some rounds pass without other programs' work


def copy_bandwidth_gb_per_s(threads: int, total_bytes: int = COPY_BYTES) -> float:
    """Best rate, in 1e9 bytes/s, at which `threads` threads copy memory, read and write counted.

    Each copies its own part of `total_bytes`, over and over, COPY_ROUNDS rounds of COPY_ROUND_S:
    about a second in all. The best, as STREAM has it: what else runs can only make a round slower,
    and on a busy machine a median would be a quarter of what the memory does. What a write reads
    first for its cache line is not counted. memmove, as ctypes calls it, runs without the
    interpreter's lock, so the threads do run side by side.
    """
    import ctypes

    part = total_bytes // threads
    pairs = [(ctypes.create_string_buffer(part), ctypes.create_string_buffer(part))
             for _ in range(threads)]
    for pair in pairs:
        for buffer in pair:
            ctypes.memset(buffer, 1, part)         # else untouched pages share one page of zeros

    def copy(pair: Any) -> None:
        for _ in range(repeats):
            ctypes.memmove(pair[0], pair[1], part)

    rates, repeats = [], 1
    with futures.ThreadPoolExecutor(threads) as pool:
        for at in range(COPY_ROUNDS + 1):
            began_s = time.perf_counter()
            list(pool.map(copy, pairs))
            took_s = max(time.perf_counter() - began_s, 1e-6)
            if at == 0:                            # a first round wakes the CPU and sets the pace
                repeats = max(1, round(COPY_ROUND_S / took_s))
            else:
                rates.append(2 * part * threads * repeats / took_s / 1e9)
    return round(max(rates), 1)


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


def inventory(machine: Optional[Machine] = None, measure: bool = True) -> dict[str, Any]:
    """The draft of hardware.json: each value as {"value", "source": "probed", "reason": null}, or
    {"value": null, "source": null, "reason": why}.

    Takes some seconds; `measure` copies memory for one of them. Never raises.
    """
    machine = machine or Machine()
    probers = {"Linux": linux_inventory, "Darwin": mac_inventory, "Windows": windows_inventory}
    try:
        probed = probers.get(machine.system, _no_inventory)(machine)
    except Exception:                 # a strange machine's draft may be empty, and no more
        probed = {}
    probed.setdefault("cpu", {})["architecture"] = clean(machine.architecture)
    probed.setdefault("os", {})["kernel_release"] = public_kernel_release(machine.kernel_release)
    probed["python"] = dict(machine.python)
    if measure:
        probed.setdefault("memory", {})["bandwidth_measured_gb_per_s"] = machine.copy_bandwidth()
    return assemble(probed)


def _no_inventory(machine: Machine) -> dict[str, Any]:
    return {}


# ---------------------------------------------------------------- the command

def describe(document: dict[str, Any]) -> str:
    """The inventory as lines for people: field, value, or in brackets why there is none."""
    rows = [(f"{section}.{name}", item) for section in FIELDS
            for name, item in document[section].items()]
    rows.append(("accelerators_count", document["accelerators_count"]))
    rows += [(f"accelerators[{at}].{name}", item)
             for at, card in enumerate(document["accelerators"]) for name, item in card.items()]
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {_shown(name, item)}" for name, item in rows)


def _shown(name: str, item: dict[str, Any]) -> str:
    value = item["value"]
    if value is None:
        return f"({item['reason']})"
    if name.endswith("_bytes"):
        return f"{value} ({value / 1024 ** 3:.1f} GiB)"
    return " ".join(value) if isinstance(value, list) else str(value)


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        description="Shows what this machine is, as it would stand in a submission's "
                    "hardware.json. Nothing is written, nothing leaves the machine, and nothing "
                    "that names the machine or its user is shown.",
        epilog="Exit codes: 0 shown; 2 usage. Values in brackets were not found; "
               "complete_submission.py asks for those that matter.")
    parser.add_argument("--json", action="store_true", help="print it as hardware.json")
    parser.add_argument("--no-bandwidth", action="store_true",
                        help="leave out the memory copy, which keeps all cores busy for a second")
    return parser


def busy_now(sampler: Sampler, pause: Callable[[float], Any] = time.sleep) -> str:
    """How much of the processors was in use while nothing was measured; in words."""
    with contextlib.closing(sampler):
        pause(BUSY_LOOK_S)
        busy = sampler.sample()["cpu_busy_ratio"]
    return "(the system does not tell it at once)" if busy is None else f"{busy:.0%}"


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Runs the command; the exit code."""
    options = build_parser().parse_args(argv)
    busy = None if options.json else busy_now(Sampler())
    found = inventory(measure=not options.no_bandwidth)
    print(json.dumps(found, indent=2, ensure_ascii=False) if options.json else describe(found))
    if busy:
        print(f"\nprocessors in use just now: {busy}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
