"""Durable files: flush to disk, replace atomically, lock for one process."""
from __future__ import annotations

import contextlib
import os
import sys


def flush_to_disk(fd: int) -> None:
    """Flush to disk; on macOS, fsync alone would stop at the drive's cache."""
    if sys.platform == "darwin":
        import fcntl
        fcntl.fcntl(fd, fcntl.F_FULLFSYNC)
    else:
        os.fsync(fd)


def write_whole(path: str, data: bytes) -> None:
    """Replace a file atomically; it is on disk when this returns."""
    part = path + ".part"
    try:
        with open(part, "wb") as file:
            file.write(data)
            file.flush()
            flush_to_disk(file.fileno())
        os.replace(part, path)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(part)
        raise


def read(path: str) -> bytes:
    """The bytes of a file; empty if there is no such file."""
    try:
        with open(path, "rb") as file:
            return file.read()
    except FileNotFoundError:
        return b""


def open_to_append(path: str) -> int:
    """A file descriptor for reading and appending bytes; creates the file if needed."""
    return os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o644)


def lock(fd: int) -> bool:
    """Take the system's lock, which ends with its process; False if another process holds it."""
    try:
        if os.name == "nt":
            import msvcrt
            os.lseek(fd, 1 << 40, os.SEEK_SET)        # beyond the end of any ledger
            msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)    # type: ignore[attr-defined,unused-ignore]
        else:
            import fcntl
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def is_locked(path: str) -> bool:
    """Whether a process holds the lock of this file; False if there is no such file."""
    if not os.path.exists(path):
        return False
    fd = open_to_append(path)
    try:
        return not lock(fd)
    finally:
        os.close(fd)
