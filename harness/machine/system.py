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
WINDOWS_LIMIT_S = 40.0            # the first PowerShell after a start of Windows is slow
GAUGE_LIMIT_S = 2.0               # for a command that reads a gauge during a run
GAUGE_SHARE = 0.001               # of one core, at most, for any one gauge
WATCH_EVERY_S = 5                 # how often nvidia-smi and iostat report
STALE_AFTER_S = 3 * WATCH_EVERY_S
MIB = 1024 * 1024
CONSOLE_ENCODING = "oem" if os.name == "nt" else "utf-8"


class Machine:
    """Reads this machine. No method raises: what cannot be read is null or empty.

    The only part of this folder that touches the machine; tests pass a recorded one.
    """

    system = platform.system()        # "Linux", "Android", "Darwin" or "Windows"
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
        """Names in a folder, sorted; empty if it cannot be listed."""
        try:
            return sorted(os.listdir(path))
        except OSError:
            return []

    def link(self, path: str) -> Optional[str]:
        """Target of a symbolic link, or null."""
        try:
            return os.readlink(path)
        except OSError:
            return None

    def owner(self, path: str) -> Optional[int]:
        """User id of a path's owner, or null."""
        try:
            return os.stat(path).st_uid
        except OSError:
            return None

    def run(self, argv: Sequence[str], limit_s: float = COMMAND_LIMIT_S) -> Optional[str]:
        """Standard output of a command, or null if it does not start or end within `limit_s`.

        The exit status is ignored: `sysctl` fails for one unknown name and prints the others.
        """
        try:
            done = subprocess.run(list(argv), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                  stderr=subprocess.DEVNULL, timeout=limit_s, check=False,
                                  **_child_options())
        except (OSError, ValueError, subprocess.SubprocessError):
            return None
        return decode(bytes(done.stdout))

    def watch(self, argv: Sequence[str]) -> Optional[Watch]:
        """A command that keeps printing lines, or null if it does not start."""
        try:
            return Watch(argv)
        except (OSError, ValueError):
            return None

    def affinity(self) -> Optional[set[int]]:
        """CPUs that this process may run on, or null if the system has no such limit."""
        return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None

    def windows_gauges(self) -> dict[str, Any]:
        """See read_windows; raises on other systems."""
        return read_windows()

    def processor_features(self, numbers: Iterable[int]) -> list[int]:
        """Those of Windows' PROCESSOR_FEATURE numbers that the CPU has."""
        import ctypes

        kernel32 = ctypes.windll.kernel32        # type: ignore[attr-defined,unused-ignore]
        return [at for at in numbers if kernel32.IsProcessorFeaturePresent(at)]

    def copy_bandwidth(self) -> Optional[float]:
        """Measured memory bandwidth in GB/s, or null; see copy_bandwidth_gb_per_s."""
        threads = len(self.affinity() or ()) or os.cpu_count() or 1
        try:
            return copy_bandwidth_gb_per_s(min(COPY_THREADS, threads))
        except (ImportError, MemoryError, OSError, RuntimeError):
            return None


def decode(raw: bytes) -> str:
    """A command's output as text: UTF-8, else in Windows' code page for consoles."""
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw.decode(CONSOLE_ENCODING, "replace")


def _child_options() -> dict[str, Any]:
    """Options of a child: C locale (a German `vm_stat` would write 1,5), and out of reach of the
    terminal's Ctrl-C; on Windows also without a console window."""
    options: dict[str, Any] = {"env": dict(os.environ, LC_ALL="C", LANG="C")}
    if os.name == "nt":
        return {**options, "creationflags": 0x08000000 | 0x200}   # NO_WINDOW, NEW_PROCESS_GROUP
    return {**options, "start_new_session": True}


class Watch:
    """A child that keeps printing; its latest lines, with the time they arrived.

    Starting nvidia-smi costs up to 300 ms of CPU time: too much every five seconds.
    """

    def __init__(self, argv: Sequence[str]) -> None:
        self._child = subprocess.Popen(list(argv), stdin=subprocess.DEVNULL,
                                       stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                                       **_child_options())
        self._lines: dict[str, tuple[float, str]] = {}
        self._seen = 0
        self._thread = threading.Thread(target=self._follow, name="gauge", daemon=True)
        self._thread.start()

    def _follow(self) -> None:
        assert self._child.stdout is not None
        for raw in self._child.stdout:
            line = raw.decode("utf-8", "replace").strip()
            # One line is kept per first field (nvidia-smi: the card). The dict is replaced, not
            # changed, since another thread reads it.
            key = line.partition(",")[0] if "," in line else ""
            self._lines = {**self._lines, key[:8]: (time.monotonic(), line)}
            self._seen += 1

    def lines(self, skip: int = 0) -> list[str]:
        """The latest line per first field, none older than STALE_AFTER_S, none of the first
        `skip`."""
        oldest = time.monotonic() - STALE_AFTER_S
        if self._seen <= skip:
            return []
        return [line for at, line in self._lines.values() if at >= oldest]

    def close(self) -> None:
        """End the child and wait for it."""
        self._child.terminate()
        try:
            self._child.wait(GAUGE_LIMIT_S)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait(GAUGE_LIMIT_S)
        self._thread.join(GAUGE_LIMIT_S)
        if self._child.stdout is not None and not self._thread.is_alive():
            self._child.stdout.close()


# --- text and numbers ----------------------------------------------------------------------------
TEXT_LIMIT = 120
# What firmware and tools write where they have no value.
FILLER = re.compile(
    r"(?i)[\W_x0]*|\W*(to be filled( by o\.?e\.?m\.?)?|(system|base ?board|chassis|board) "
    r"(product ?name|manufacturer?|version|sku|serial number)|(product|type1product) ?"
    r"(name|configid)|default( string)?|(not|un) ?(applicable|specified|available|supported|defined"
    r"|known|identified|provided|present|set|filled)|(system )?o\.?e\.?m\.?|other|none|null|nil|nan"
    r"|n/?a|empty|invalid|err!?|all series|out of spec|unknown error|gpu is lost"
    r"|insufficient permissions|no module installed|linux,dummy-virt|(0x)?f+h?|(0x)?[f0]{4,}"
    r"|0?123456789\w*)\W*")


class Unknown(str):
    """Why a value is null, where that is known more exactly than the schema's reasons."""


def number(text: Optional[str]) -> Optional[float]:
    """The finite number in `text`, or null: "[N/A]", "", "nan" and "12 W" are null."""
    if text is None or not re.fullmatch(r"\s*[-+]?\d{1,18}(\.\d{1,9})?\s*", text, re.ASCII):
        return None
    return float(text)


def whole(text: Optional[str]) -> Optional[int]:
    """The whole number in `text`, or null."""
    if text is None or not re.fullmatch(r"\s*\d{1,20}\s*", text, re.ASCII):
        return None
    return int(text)


def scaled(value: Optional[float], factor: float, digits: int = 3) -> Optional[float]:
    """value * factor, rounded; null stays null."""
    return None if value is None else round(value * factor, digits)


RATIO_STEP = 0.004


def ratio(part: float, whole_part: float) -> Optional[float]:
    """part / whole_part limited to 0..1, in steps of 0.004; null unless whole_part is above 0.

    In the five seconds between two samples, a processor has 500 ticks of 10 ms.
    """
    if whole_part <= 0:
        return None
    return round(round(min(1.0, max(0.0, part / whole_part)) / RATIO_STEP) * RATIO_STEP, 3)


def difference(more: Optional[int], less: Optional[int]) -> Optional[int]:
    """more - less, at least 0; null if either is null."""
    return None if more is None or less is None else max(0, more - less)


def total(values: Iterable[Optional[int]]) -> Optional[int]:
    """The sum of what is not null; null if nothing is."""
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def maximum(values: Iterable[Optional[float]]) -> Optional[float]:
    """The largest of what is not null; null if nothing is."""
    return max((value for value in values if value is not None), default=None)


def numbered(names: Iterable[str], pattern: str) -> list[str]:
    """Names that match, by their numbers: cpu2 before cpu10."""
    found = [name for name in names if re.fullmatch(pattern, name, re.ASCII)]
    return sorted(found, key=lambda name: [int(digits) for digits in re.findall(r"\d+", name)])


def word(text: Optional[str]) -> Optional[str]:
    """A single lower-case word, or null."""
    found = re.fullmatch(r"\s*([a-z][a-z_-]{1,30})\s*", text or "", re.ASCII)
    return found.group(1) if found else None


def clean(text: Any) -> Optional[str]:
    """A name as firmware reports it, with single spaces and printable characters only; null if it
    is one of the texts that mean "not known", or if characters of it could not be decoded."""
    if not isinstance(text, str):
        return None
    shown = "".join(char if char.isprintable() else " " for char in text.replace("\0", ""))
    name = " ".join(shown.split())[:TEXT_LIMIT].strip()
    return None if FILLER.fullmatch(name) or "\ufffd" in name else name


def parse_json(text: Optional[str]) -> Any:
    """A command's output as JSON, or null."""
    try:
        return json.loads((text or "").lstrip("\ufeff"))
    except (ValueError, RecursionError):
        return None


def dicts(value: Any) -> list[dict[str, Any]]:
    """The objects in a list, or a single object: PowerShell and macOS write both."""
    items = value if isinstance(value, list) else [value]
    return [item for item in items if isinstance(item, dict)]


def item_whole(item: dict[str, Any], name: str) -> Optional[int]:
    """A whole number above 0 from an object that may hold it as text, or null."""
    return whole(str(item.get(name))) or None


# --- CPU times, and other gauges of Windows ------------------------------------------------------
class CpuTimes(NamedTuple):
    """Time of all CPUs since the system started, in one unit (ticks or 100 ns)."""

    busy: int                         # also what the hypervisor took for other guests
    total: int


def windows_cpu_times(idle: int, kernel: int, user: int) -> CpuTimes:
    """GetSystemTimes in 100 ns; Windows counts idle time as kernel time."""
    return CpuTimes(kernel + user - idle, kernel + user)


def windows_power_source(line_status: int) -> Optional[str]:
    """ACLineStatus of SYSTEM_POWER_STATUS: 0 battery, 1 mains, 255 unknown."""
    return {0: "battery", 1: "ac"}.get(line_status)


def read_windows() -> dict[str, Any]:
    """CPU times, memory in bytes and power source from kernel32; PowerShell takes a second."""
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


# --- firmware's names and memory modules ---------------------------------------------------------
def clock_in_name(name: Optional[str]) -> Optional[float]:
    """Base clock in MHz if the CPU's name contains it, as in "... @ 3.60GHz", or null."""
    found = re.search(r"@ (\d\.\d{1,2})GHz", name or "", re.ASCII)
    return round(float(found.group(1)) * 1000, 1) if found else None


class Module(NamedTuple):
    """One memory module as firmware lists it."""

    kind: Any
    speed_mts: Optional[int]
    width_bits: Optional[int]
    place: str                        # its bank and slot, which may name the channel


# What names a channel: a word or, on boards with one letter per channel, the slot behind a socket.
CHANNEL = re.compile(r"(?i)(?:(?:channel|(?<![a-z])ch(?:an)?) ?[-_]? ?(?=[A-P\d]\d?(?![a-z]))"
                     r"|(?<![a-z])C(?=\d{1,2}D\d))([A-P]|\d{1,2})")
SLOT = re.compile(r"(?i)(?:CPU|PROC|P|Controller)[ _]?\d[-_ ]{1,2}DIMM[-_ ]?([A-P])\d"
                  r"|DIMM_P\d_([A-P])\d")
ABOVE_CHANNEL = re.compile(
    r"(?i)(?<![a-z])(P|CPU|PROC(?:ESSOR)?|SOCKET|SKT|NODE|CONTROLLER|I?MC|DIE)[ _-]?(\d{1,2})")


def channel_of(place: str) -> Optional[str]:
    """The channel that a module's place names, with socket, node and controller; or null."""
    found = CHANNEL.search(place)
    if found:
        above = ABOVE_CHANNEL.findall(place[:found.start()])
        return " ".join([*("".join(part) for part in above), found[1]]).upper()
    slot = SLOT.search(place)
    return re.sub(r"\d+$", "", slot[0]).upper() if slot else None


def memory_type(text: Any) -> Optional[str]:
    """"LPDDR5" of "lp_ddr5", "DDR4" of "DDR4 SDRAM"; null for texts without a memory type."""
    found = re.match(r"(LP|G)?(DDR\d?X?|HBM\d?E?)(?=SDRAM|SODIMM|(FB|R|U)?DIMM|L?$)",
                     re.sub(r"[ _-]", "", str(text)).upper())
    return (found[1] or "") + found[2] if found else None


def memory_of_modules(modules: Sequence[Module]) -> dict[str, Any]:
    """type, speed_mts, channels_count and bandwidth_theoretical_gb_per_s of the modules.

    bandwidth = transfers/s * bytes of one transfer, summed over the channels with a module; the
    slowest module sets the speed of all. Null if modules differ in type, or one names no channel.
    ECC bits do not count, nor do flash and non-volatile modules; a speed or width of 0 or 0xFFFF is
    unknown.
    """
    modules = [module for module in modules
               if not re.search(r"(?i)flash|rom$|volatile", str(module.kind))]
    kinds = {memory_type(module.kind) for module in modules}
    speeds = [module.speed_mts for module in modules if 100 <= (module.speed_mts or 0) < 0xffff]
    speed = min(map(int, filter(None, speeds))) if speeds and len(speeds) == len(modules) else None
    widths: dict[Optional[str], int] = {}
    for module in modules:
        width = {40: 32, 72: 64, 80: 64}.get(module.width_bits or 0, module.width_bits or 0)
        widths[channel_of(module.place)] = width if width in (16, 32, 64, 128) else 0
    if None in widths or len({module.place for module in modules}) < len(modules):
        widths.clear()                # some places are unknown, or equal and so do not name any
    found: dict[str, Any] = {"type": kinds.pop() if len(kinds) == 1 else None, "speed_mts": speed,
                             "channels_count": len(widths) or None}
    if speed and widths and all(widths.values()):
        found["bandwidth_theoretical_gb_per_s"] = round(speed * sum(widths.values()) / 8e3, 1)
    return found


# What a virtual machine's firmware gives as its vendor and model: which hypervisor it is.
VIRTUAL_MACHINES = (("parallels", "parallels"), ("vmware", "vmware"), ("virtualbox", "oracle"),
                    ("qemu", "qemu"), ("standard pc (", "qemu"), ("kvm", "kvm"), ("domu", "xen"),
                    ("xenserver", "xen"), ("amazon ec2", "amazon"), ("nutanix ahv", "nutanix"),
                    ("google compute engine", "google"), ("openstack", "openstack"),
                    ("bhyve", "bhyve"), ("alibaba cloud", "alibaba"), ("tencent cloud", "tencent"),
                    ("hetzner vserver", "kvm"), ("digitalocean droplet", "kvm"), ("vultr", "kvm"),
                    ("linode", "kvm"), ("upcloud", "kvm"), ("ovirt", "kvm"), ("rhev", "kvm"),
                    ("apple virtualization", "apple"), ("cloud pc", "hyper-v"),
                    ("microsoft corporation virtual machine", "hyper-v"), ("virtual machine", "vm"))


def hypervisor(vendor: Any, model: Any) -> Optional[str]:
    """Which hypervisor the firmware's vendor and model name, or null."""
    words = " ".join(f"{vendor} {model}".lower().split())
    if words.endswith(".metal"):      # Amazon's machines without one
        return None
    return next((name for word, name in VIRTUAL_MACHINES if word in words), None)


def firmware_name(dmi: dict[str, Any]) -> Optional[str]:
    """Vendor and marketing name; of a self-built machine its board's."""
    named = {name: value for name, value in
             ((name, clean(text)) for name, text in dmi.items()) if value}
    vendor, model = named.get("sys_vendor"), named.get("product_name")
    if (vendor or "").upper() == "LENOVO" and re.fullmatch(r"[0-9A-Z]+", model or ""):
        model = named.get("product_version", model)       # the product name is a type number
    if not model:
        vendor, model = named.get("board_vendor"), named.get("board_name")
    if not model or not vendor or model.lower().startswith(vendor.split()[0].lower()):
        return model
    return f"{vendor} {model}"[:TEXT_LIMIT]


# --- memory bandwidth ----------------------------------------------------------------------------
COPY_BYTES = 256 * MIB                # far larger than caches, small beside a model
COPY_THREADS = 16
COPY_ROUNDS = 25
COPY_ROUND_S = 0.04                   # short, so that other programs do not disturb every round
COPY_CPU_SHARE = 0.5                  # of the threads' time; slow cores leave the faster ones idle


def copy_bandwidth_gb_per_s(threads: int, total_bytes: int = COPY_BYTES) -> float:
    """Best rate, in 1e9 bytes/s, at which `threads` threads copy memory, read and write counted.

    Each thread copies its own part of `total_bytes`, COPY_ROUNDS rounds of COPY_ROUND_S: about a
    second in all. The best round counts, as in STREAM: other programs only make a round slower, and
    on a busy machine a median would be a quarter of the memory's speed. Reading a cache line before
    writing it is not counted. ctypes calls memmove without the interpreter's lock, so the threads
    do run in parallel. Raises RuntimeError if other programs used the processors in the best round.
    """
    import ctypes

    part = total_bytes // threads
    pairs = [(ctypes.create_string_buffer(part), ctypes.create_string_buffer(part))
             for _ in range(threads)]
    for pair in pairs:
        for buffer in pair:
            ctypes.memset(buffer, 1, part)         # untouched pages would all be one page of zeros

    def copy(pair: Any) -> None:
        for _ in range(repeats):
            ctypes.memmove(pair[0], pair[1], part)

    rates, repeats = list[tuple[float, float]](), 1
    with futures.ThreadPoolExecutor(threads) as pool:
        for at in range(COPY_ROUNDS + 1):
            began_s, cpu_began_s = time.perf_counter(), time.process_time()
            list(pool.map(copy, pairs))
            took_s = max(time.perf_counter() - began_s, 1e-6)
            if at == 0:                            # the first round wakes the CPU and sets the pace
                repeats = max(1, round(COPY_ROUND_S / took_s))
            else:
                rates.append((2 * part * threads * repeats / took_s / 1e9,
                              (time.process_time() - cpu_began_s) / took_s / threads))
    best, cpu_share = max(rates)
    if cpu_share < COPY_CPU_SHARE:
        raise RuntimeError("other programs used the processors")
    return round(best, 1)
