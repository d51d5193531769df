"""Sample the machine's gauges during a run."""
from __future__ import annotations

import contextlib
import functools
import os
import threading
import time
from typing import Any, Callable, NamedTuple, Optional

from core.errors import StorageError
from machine import gpus, linux, macos, processes, system

GAUGES = ("load_1m", "memory_used_bytes", "memory_available_bytes", "swap_used_bytes",
          "server_memory_bytes", "cpu_mhz", "cpu_throttle_count", "cpu_busy_ratio",
          "other_cpu_busy_ratio", "power_source", "temperature_c", "energy_uj")


class Listing(NamedTuple):
    """All CPU time, and all processes or those of this program and the server, at one moment."""

    times: system.CpuTimes
    processes: dict[int, processes.Process]


class Sampler:
    """Reads the host's gauges during a run.

    server_port: the port of the model server if it runs on this machine, else null; it separates
    the server's work from that of other programs. Ratios are shares of all CPUs since the sample
    before. Nothing here raises or prints; close() ends the children.
    """

    def __init__(self, server_port: Optional[int] = None,
                 machine: Optional[system.Machine] = None) -> None:
        self._machine = machine or system.Machine()
        self._port = server_port
        self._next_s: dict[str, float] = {}           # when an expensive gauge is read again
        self._server: frozenset[int] = frozenset()
        self._times: Optional[system.CpuTimes] = None
        self._listing: Optional[Listing] = None
        self._held: dict[int, processes.Process] = {}      # the server's processes at the last look
        self._energy: dict[str, tuple[int, int]] = {}
        self._energy_uj = 0
        self._power_limits_w: dict[int, Optional[float]] = {}
        self._card_energy: dict[str, tuple[int, float]] = {}
        self._nvidia: Optional[system.Watch] = None
        self._iostat: Optional[system.Watch] = None
        self._cards: list[str] = []
        self._sensors: list[str] = []
        self._capacity_bytes: Optional[int] = None
        self._safely("start", self._start)
        self.sample()                                 # later ratios are relative to this one

    def _start(self) -> None:
        machine = self._machine
        self._nvidia = gpus.nvidia_watch(machine)
        if machine.system == "Darwin":
            self._iostat = machine.watch(["iostat", "-n", "0", "-w", str(system.WATCH_EVERY_S)])
            self._capacity_bytes = system.whole(
                machine.run(["sysctl", "-n", "hw.memsize"], system.GAUGE_LIMIT_S))
        if machine.system in ("Linux", "Android"):
            self._cards = [folder for part in gpus.drm_folders(machine) for folder in part]
            self._sensors = linux.temperature_paths(machine)

    def _safely(self, name: str, read: Callable[[], Any],
                clock: Callable[[], float] = time.thread_time) -> Any:
        """The result of `read`, or null.

        Expensive gauges are sampled less often: one that took t s is not read again for
        t / GAUGE_SHARE s. clock: by default this thread's CPU time, which does not grow while the
        thread waits on a busy machine; time.monotonic for commands, whose CPU time is not this
        thread's. Catches everything, since no gauge may end a run of hours.
        """
        if time.monotonic() < self._next_s.get(name, 0.0):
            return None
        began_s = clock()
        try:
            return read()
        except Exception:
            return None
        finally:
            self._next_s[name] = time.monotonic() + (clock() - began_s) / system.GAUGE_SHARE

    def sample(self, whole: bool = False) -> dict[str, Any]:
        """Every name of GAUGES, null where this machine does not report it, and `gpus`.

        whole: with expensive gauges that are not due yet. energy_uj counts from the sampler's
        start; cpu_throttle_count from the system's. gpus: [{index, busy_ratio, memory_used_bytes,
        power_w, temperature_c, clock_mhz, throttled}], index as in the inventory's accelerators.
        """
        readers = {"Linux": self._linux, "Android": self._linux, "Darwin": self._mac,
                   "Windows": self._windows}
        if whole:
            self._next_s.clear()
        gauges: dict[str, Any] = dict.fromkeys(GAUGES)
        gauges.update(readers.get(self._machine.system, dict)())
        gauges["load_1m"] = self._safely("load", lambda: round(os.getloadavg()[0], 2))
        gauges["gpus"] = self._gpus()
        return gauges

    def _busy(self, times: Optional[system.CpuTimes]) -> dict[str, Any]:
        before, self._times = self._times, times
        if before is None or times is None:
            return {}
        return {"cpu_busy_ratio": system.ratio(times.busy - before.busy,
                                               times.total - before.total)}

    def _linux(self) -> dict[str, Any]:
        read, machine, safely = self._machine.read, self._machine, self._safely
        celsius = system.maximum(system.number(read(path)) for path in self._sensors)
        return {
            **linux.memory_gauges(read("/proc/meminfo")),
            **self._busy(linux.parse_proc_stat(read("/proc/stat"))),
            "cpu_mhz": safely("cpu_mhz", lambda: linux.cpu_mhz(machine)),
            "cpu_throttle_count": safely("throttle", lambda: linux.throttle_count(machine)),
            **(safely("processes", self._server_gauges) or {}),
            "power_source": safely("power", lambda: linux.power_source(machine)),
            "temperature_c": system.scaled(celsius, 1e-3, 1),
            "energy_uj": safely("energy", self._energy_used)}

    def _energy_used(self) -> Optional[int]:
        now = linux.energy(self._machine)
        self._energy_uj += linux.energy_between(self._energy, now)
        self._energy = now
        return self._energy_uj if now else None

    def _server_gauges(self) -> dict[str, Any]:
        """The server's resident memory, and the share of all CPUs used neither by this program nor
        by the server; empty if the server is unknown.

        The server's children belong to it: Ollama starts and ends one per model.
        """
        machine, own = self._machine, {os.getpid()}
        times = linux.parse_proc_stat(machine.read("/proc/stat")) if self._port else None
        if times is None or self._port is None:
            return {}
        listed = processes.family(machine, own | self._server) if self._server else None
        if listed is None or not self._server & listed.keys():
            listed = processes.list_processes(machine)
            if not self._server & listed.keys():
                self._server = processes.find_server(machine, listed, self._port)
        before, self._listing = self._listing, Listing(times, listed)
        if not self._server:
            return {}
        served = processes.descendants(listed, self._server)
        self._held = {pid: listed[pid] for pid in served}
        memory = {"server_memory_bytes": sum(listed[pid].memory_bytes for pid in served) or None}
        if before is None:
            return memory
        # A process that only the second listing has started from 0 ticks.
        known_ticks = sum(max(0, listed[pid].ticks - (
            before.processes[pid].ticks if pid in before.processes else 0))
            for pid in processes.descendants(listed, own | self._server))
        return {**memory, "other_cpu_busy_ratio": system.ratio(
            times.busy - before.times.busy - known_ticks, times.total - before.times.total)}

    def note_server_processes(self) -> None:
        """Look at the server's processes now, since the next sample may come in half a minute."""
        if self._server:
            self._held = processes.family(self._machine, self._server) or self._held

    def server_lost_processes(self) -> bool:
        """Whether processes with much of the server's memory have ended since the last look."""
        held = lost = 0
        for pid, process in self._held.items():
            held += process.memory_bytes
            now = processes.parse_process_stat(self._machine.read(f"/proc/{pid}/stat"))
            if now is None or not now.memory_bytes:         # ended, or ended and not yet reaped
                lost += process.memory_bytes
        return lost > LOST_SHARE * held

    def _command(self, *argv: str) -> Optional[str]:
        found: Optional[str] = self._safely(
            argv[0], lambda: self._machine.run(argv, system.GAUGE_LIMIT_S), time.monotonic)
        return found

    def _mac(self) -> dict[str, Any]:
        # The first two lines are headings, the third covers the time since the system's start.
        iostat = self._iostat.lines(skip=3) if self._iostat else []
        return {**macos.memory_gauges(self._command("vm_stat"),
                                      self._command("sysctl", "-n", "vm.swapusage"),
                                      self._capacity_bytes),
                "cpu_busy_ratio": macos.parse_iostat_busy(iostat),
                "power_source": macos.parse_pmset_source(self._command("pmset", "-g", "batt"))}

    def _windows(self) -> dict[str, Any]:
        found = self._safely("windows", self._machine.windows_gauges) or {}
        available = found.get("memory_available_bytes")
        return {**self._busy(found.get("cpu_times")),
                "memory_used_bytes": system.difference(found.get("memory_total_bytes"), available),
                "memory_available_bytes": available, "power_source": found.get("power_source")}

    def _gpus(self) -> list[dict[str, Any]]:
        cards = gpus.parse_nvidia_gauges(self._nvidia.lines()) if self._nvidia else []
        for card in cards:                # the limit only at the start and where it changes
            limit_w, index = card.pop("power_limit_w"), card["index"]
            if limit_w != self._power_limits_w.get(index):
                card["power_limit_w"] = self._power_limits_w[index] = limit_w
        if self._machine.system == "Darwin":
            return cards + gpus.parse_ioreg_gpu(
                self._command("ioreg", "-r", "-d", "1", "-w", "0", "-c", "IOAccelerator"))
        folders = [folder for folder in self._cards
                   if not (cards and gpus.is_nvidia(self._machine, folder))]
        more = [self._safely(folder, functools.partial(self._card, folder, at))
                for at, folder in enumerate(folders, len(cards))]
        return cards + [card for card in more if card and any(
            value is not None for name, value in card.items() if name != "index")]

    def _card(self, folder: str, index: int) -> dict[str, Any]:
        card, now_s = gpus.drm_gauges(self._machine, folder, index), time.monotonic()
        # Intel's drivers report the energy since the system started instead of the power.
        energy_uj = system.whole(self._machine.read(
            f"{gpus.hwmon(self._machine, folder)}/energy1_input"))
        if energy_uj is not None:         # the mean power since the sample before
            before_uj, before_s = self._card_energy.get(folder, (energy_uj, now_s))
            self._card_energy[folder] = (energy_uj, now_s)
            if card["power_w"] is None and now_s > before_s and energy_uj >= before_uj:
                card["power_w"] = round((energy_uj - before_uj) / 1e6 / (now_s - before_s), 3)
        return card

    def close(self) -> None:
        """End the children; may be called twice."""
        for watch in (self._nvidia, self._iostat):
            with contextlib.suppress(Exception):
                if watch is not None:
                    watch.close()
        self._nvidia = self._iostat = None


SAMPLE_EVERY_S = 5.0
LOST_SHARE = 0.2              # of the server's memory; a process with a model holds most of it
BUSY_LOOK_S = 1.0


class HostMonitor(threading.Thread):
    """Samples the gauges every SAMPLE_EVERY_S and passes them to `record`.

    Ends if `record` raises: the disk is full, which the lanes also find and report.
    """

    def __init__(self, server_port: Optional[int],
                 record: Callable[[dict[str, Any]], Any]) -> None:
        super().__init__(daemon=True)
        self._record, self._ended, self.sampler = record, threading.Event(), Sampler(server_port)
        self.start()

    def run(self) -> None:
        """Sample until `close`."""
        with contextlib.suppress(StorageError):
            while not self._ended.wait(SAMPLE_EVERY_S):
                self._record(self.sampler.sample())

    def close(self, final_sample: bool) -> None:
        """End; with `final_sample`, after one more sample, so that a short run has one."""
        self._ended.set()
        self.join()
        if final_sample:
            self._record(self.sampler.sample(whole=True))
        self.sampler.close()
