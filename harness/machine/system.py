"""Commands, files, processes and firmware names, shared by all operating systems."""
from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import threading
import time
from concurrent import futures
from typing import Any, Iterable, NamedTuple, Optional, Sequence

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


def difference(more: Optional[int], less: Optional[int]) -> Optional[int]:
    return None if more is None or less is None else max(0, more - less)


class CpuTimes(NamedTuple):
    """Time of all CPUs since the start of the system, in one unit (ticks or 100 ns)."""

    busy: int
    stolen: int                       # taken by the hypervisor for other guests
    total: int


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


def total(values: Iterable[Optional[float]]) -> Optional[float]:
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def maximum(values: Iterable[Optional[float]]) -> Optional[float]:
    return max((value for value in values if value is not None), default=None)


def numbered(names: Iterable[str], pattern: str) -> list[str]:
    """Names that match, in the order of their numbers: cpu2 before cpu10."""
    found = [name for name in names if re.fullmatch(pattern, name, re.ASCII)]
    return sorted(found, key=lambda name: [int(digits) for digits in re.findall(r"\d+", name)])


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


# ---------------------------------------------------------------- the inventory: its fields

class Unknown(str):
    """Why a value is null, where that is known better than FIELDS says it."""
TEXT_LIMIT = 120


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


def clock_in_name(name: Optional[str]) -> Optional[float]:
    """Base clock in MHz where the CPU's name carries it, as Intel's did: "... @ 3.60GHz"."""
    found = re.search(r"@ (\d\.\d{1,2})GHz", name or "", re.ASCII)
    return round(float(found.group(1)) * 1000, 1) if found else None
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


def word(text: Optional[str]) -> Optional[str]:
    found = re.fullmatch(r"\s*([a-z][a-z_-]{1,30})\s*", text or "", re.ASCII)
    return found.group(1) if found else None


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
