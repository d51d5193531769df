"""Keep the machine awake during a run, where the system offers that without special rights."""
from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from typing import Any, Optional

ES_CONTINUOUS, ES_SYSTEM_REQUIRED = 0x80000000, 0x00000001
# Both end with their standard input or with this process, also if that is killed.
COMMANDS = {
    "caffeinate": ("caffeinate", "-i", "-w", str(os.getpid())),
    "systemd-inhibit": ("systemd-inhibit", "--what=sleep:idle", "--who=run_benchmark",
                        "--why=a benchmark runs", "cat")}
STARTED_S = 0.3               # a command that is refused has ended by then


@contextlib.contextmanager
def kept_awake() -> Iterator[Optional[str]]:
    """The method that keeps the machine awake while the context lasts, or None."""
    if os.name == "nt":
        import ctypes
        kernel: Any = ctypes.windll.kernel32            # type: ignore[attr-defined,unused-ignore]
        is_set = kernel.SetThreadExecutionState(ES_CONTINUOUS | ES_SYSTEM_REQUIRED)
        try:
            yield "SetThreadExecutionState" if is_set else None
        finally:
            kernel.SetThreadExecutionState(ES_CONTINUOUS)
        return
    method = "caffeinate" if sys.platform == "darwin" else "systemd-inhibit"
    child = _start(method)
    try:
        yield method if child else None
    finally:
        if child:
            child.kill()
            child.communicate()


def _start(method: str) -> Optional[subprocess.Popen[bytes]]:
    """The running command; None if it is missing or refused."""
    if shutil.which(method) is None:
        return None
    try:
        child = subprocess.Popen(COMMANDS[method], stdin=subprocess.PIPE,
                                 stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    except OSError:
        return None
    try:
        child.wait(STARTED_S)
    except subprocess.TimeoutExpired:
        return child
    child.communicate()
    return None
