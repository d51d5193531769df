"""Durable files: flush to disk, replace atomically, lock for one process."""
from __future__ import annotations

import contextlib
import errno
import os
import sys
import time

LOCK_SUFFIX = ".lock"
REPLACE_TRIES, REPLACE_WAIT_S = 10, 0.1
# Answers of file systems (SMB, exFAT, FUSE, some network drives) that lack an operation.
UNSUPPORTED = {errno.EINVAL, errno.ENOSYS, errno.ENOTTY, errno.ENOLCK, errno.ENOTSUP,
               errno.EOPNOTSUPP}


def flush_to_disk(fd: int) -> None:
    """Flush to disk as far as the file system can; raises OSError if the disk fails or is full."""
    if sys.platform == "darwin":                # there, fsync alone would stop at the drive's cache
        import fcntl
        try:
            fcntl.fcntl(fd, fcntl.F_FULLFSYNC)
            return
        except OSError as error:
            if error.errno not in UNSUPPORTED:
                raise
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise


def write_whole(path: str, data: bytes) -> None:
    """Replace a file atomically; it is on disk when this returns."""
    part = path + ".part"
    try:
        with open(part, "wb") as file:
            file.write(data)
            file.flush()
            flush_to_disk(file.fileno())
        replace(part, path)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(part)
        raise


def replace(part: str, path: str) -> None:
    """os.replace, tried for a second on Windows: scanners and clouds may hold a new file open."""
    for tries_left in reversed(range(REPLACE_TRIES if os.name == "nt" else 1)):
        try:
            os.replace(part, path)
            return
        except PermissionError:
            if not tries_left:
                raise
            time.sleep(REPLACE_WAIT_S)


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


def remove(path: str) -> None:
    """Delete a file if it exists and can be deleted."""
    with contextlib.suppress(OSError):
        os.unlink(path)


def lock(fd: int, path: str = "") -> bool:
    """Take the system's lock, which ends with its process; False if another process holds it.

    Where the file system has no locks, a file beside `path` holds the number of the process.
    """
    try:
        if os.name == "nt":
            import msvcrt
            os.lseek(fd, 1 << 40, os.SEEK_SET)        # beyond the end of any ledger
            msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)    # type: ignore[attr-defined,unused-ignore]
        else:
            import fcntl
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in UNSUPPORTED:
            return os.name == "nt" or not path or _lock_by_file(path + LOCK_SUFFIX)
        return False
    return True


def unlock(path: str) -> None:
    """Remove what `lock` may have left beside a file; the system releases its own lock."""
    if read(path + LOCK_SUFFIX) == str(os.getpid()).encode():
        remove(path + LOCK_SUFFIX)


def _lock_by_file(path: str) -> bool:
    for _ in range(2):
        try:
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        except FileExistsError:
            holder = read(path)
            if holder == str(os.getpid()).encode() or not holder.isdigit() or _is_alive(holder):
                return False
            remove(path)                        # its process was killed
            continue
        with os.fdopen(fd, "w") as file:
            file.write(str(os.getpid()))
        return True
    return False


def _is_alive(process: bytes) -> bool:
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True


def is_locked(path: str) -> bool:
    """Whether a process holds the lock of this file; False if there is no such file."""
    if not os.path.exists(path):
        return False
    fd = open_to_append(path)
    try:
        is_free = lock(fd, path)
        if is_free:
            unlock(path)
        return not is_free
    finally:
        os.close(fd)
