"""Linux's processes: list them, find those below others, and who listens on a port."""
from __future__ import annotations

import os
from typing import Iterable, NamedTuple, Optional

from machine import system

# They hold the port for a server that is not their child, or that runs on another machine.
FORWARDERS = frozenset((
    "docker-proxy", "com.docker.backend", "com.docker.backend.exe", "com.docker.vpnkit",
    "rootlessport", "rootlesskit", "pasta", "passt", "slirp4netns", "ssh", "sshd", "ssh.exe",
    "sshd.exe", "socat", "kubectl", "kubectl.exe", "gvproxy", "gvproxy.exe", "limactl", "colima",
    "OrbStack", "wslrelay.exe", "wslhost.exe", "svchost.exe", "nginx", "caddy", "haproxy"))
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096


class Process(NamedTuple):
    """One process, its parent, the CPU ticks that it alone has used, and its resident memory."""

    parent: int
    ticks: int
    command: str
    memory_bytes: int = 0


def parse_process_stat(text: Optional[str]) -> Optional[Process]:
    """/proc/<pid>/stat; the command in parentheses may itself contain spaces and parentheses."""
    head, bracket, tail = (text or "").rpartition(")")
    fields = tail.split()
    if not bracket or len(fields) < 13:
        return None
    parent, user, kernel = (system.whole(fields[at]) for at in (1, 11, 12))
    if parent is None or user is None or kernel is None:
        return None
    pages = system.whole(fields[21]) if len(fields) > 21 else None
    return Process(parent, user + kernel, head.partition("(")[2], (pages or 0) * PAGE_BYTES)


def list_processes(machine: system.Machine) -> dict[int, Process]:
    """{process id: process} of all processes in /proc."""
    found = {}
    for name in machine.names("/proc"):
        process = parse_process_stat(machine.read(f"/proc/{name}/stat")) if name.isdigit() else None
        if process is not None:
            found[int(name)] = process
    return found


def family(machine: system.Machine, roots: Iterable[int]) -> Optional[dict[int, Process]]:
    """The roots that exist, and all processes below them, without reading the others; null if the
    kernel does not list children."""
    found: dict[int, Process] = {}
    waiting = list(roots)
    while waiting:
        pid = waiting.pop()
        process = parse_process_stat(machine.read(f"/proc/{pid}/stat"))
        if process is None or pid in found:
            continue
        found[pid] = process
        # A thread that has ended meanwhile has no children; the first thread is there to the end.
        for thread in machine.names(f"/proc/{pid}/task") or [str(pid)]:
            children = machine.read(f"/proc/{pid}/task/{thread}/children")
            if children is None and thread == str(pid):
                return None
            waiting += map(int, (children or "").split())
    return found


def descendants(processes: dict[int, Process], roots: Iterable[int]) -> set[int]:
    """The roots that exist, and all processes below them."""
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


class Listeners(NamedTuple):
    """Who listens on a port. users: their ids; owned: all processes of these users; readable:
    whether the open files of one of them can be read; holders: those known to have the socket.
    """

    users: set[Optional[int]]
    owned: set[int]
    readable: bool
    holders: set[int]


def listeners(machine: system.Machine, processes: dict[int, Process], port: int) -> Listeners:
    """Who listens on `port`, as far as /proc shows it."""
    wanted, users = set(), set[Optional[int]]()
    for name in ("tcp", "tcp6"):
        for line in (machine.read(f"/proc/net/{name}") or "").splitlines()[1:]:
            fields = line.split()     # state 0A: listening; field 7: user id; field 9: socket inode
            if len(fields) >= 10 and fields[3] == "0A" and fields[1].endswith(f":{port:04X}"):
                wanted.add(f"socket:[{fields[9]}]")
                users.add(system.whole(fields[7]))
    owned = {pid for pid in processes if users and machine.owner(f"/proc/{pid}") in users}
    files = {pid: machine.names(f"/proc/{pid}/fd") for pid in owned}
    holders = {pid for pid in owned if any(
        machine.link(f"/proc/{pid}/fd/{name}") in wanted for name in files[pid])}
    return Listeners(users, owned, any(files.values()), holders)


def find_server(machine: system.Machine, processes: dict[int, Process],
                port: int) -> frozenset[int]:
    """Processes that listen on `port`; empty if unknown.

    The open files of another user cannot be read. If that user exists for the server alone (as
    Ollama's service has one), all its processes are returned; not if the user is root.
    """
    users, owned, readable, holders = listeners(machine, processes, port)
    if not holders and 0 not in users and not readable:
        holders = owned
    if any(processes[pid].command in FORWARDERS for pid in holders):
        return frozenset()
    return frozenset(holders)
