"""Write run.jsonl, the ledger of a run: one process at a time, and each line is on disk at once."""
from __future__ import annotations

import base64
import contextlib
import datetime
import hashlib
import os
import threading
import time
from typing import Any

from core import files, ledger
from core.errors import HarnessError, StorageError
from core.records import Json, LedgerLine, Manifest
from core.text import command

LOCK_PATIENCE_S = 1.0             # another process may hold the lock for a moment, to test it
STOP_SUFFIX = ".stop"             # of the file beside a ledger that asks its run to stop


def utc_now() -> str:
    """The current time as the ledger records it: UTC in milliseconds."""
    now = datetime.datetime.now(datetime.timezone.utc)
    return now.isoformat(timespec="milliseconds").replace("+00:00", "Z")


class LedgerWriter:
    """run.jsonl: append-only, one write per line, on disk before `write` returns."""

    def __init__(self, path: str, run_id: str, resume: str) -> None:
        self.path, self.run_id, self.resume = path, run_id, resume
        self.seq = self.segment = 0
        self.zero_ns = time.perf_counter_ns()
        self.sha256, self.size = hashlib.sha256(), 0
        self._lock = threading.Lock()
        self._fd, until_s = files.open_to_append(path), time.monotonic() + LOCK_PATIENCE_S
        while not files.lock(self._fd, path):
            if time.monotonic() >= until_s:
                follow = command("run_benchmark", "--wait", "100", os.path.dirname(path))
                raise HarnessError(f"run {run_id} is being written by another process; to "
                                   f"follow it: {follow}")
            time.sleep(0.05)
        files.remove(path + STOP_SUFFIX)

    def now_us(self) -> int:
        """Microseconds since the start of this segment."""
        return (time.perf_counter_ns() - self.zero_ns) // 1000

    def write(self, event: str, **fields: Any) -> Json:
        """Append one event. Raises StorageError, and then the ledger still ends in a whole line."""
        with self._lock:
            at, t_us = utc_now(), self.now_us()
            if event in ("run_started", "run_resumed"):       # the segment's clock begins here
                self.zero_ns, t_us = time.perf_counter_ns(), 0
            written = ledger.event_line(event, seq=self.seq, run_id=self.run_id,
                                        segment=self.segment, at=at, t_us=t_us, **fields)
            line = ledger.dump_line(written)
            try:
                if os.write(self._fd, line) < len(line):
                    raise OSError(28, "No space left on device")
            except OSError as error:
                with contextlib.suppress(OSError):
                    os.ftruncate(self._fd, self.size)
                raise self._storage_error(error) from None
            self.size += len(line)
            self.sha256.update(line)
            self.seq += 1
        try:
            files.flush_to_disk(self._fd)
        except OSError as error:
            raise self._storage_error(error) from None
        return written

    def close(self) -> None:
        """Release the ledger for other processes."""
        files.remove(self.path + STOP_SUFFIX)
        files.unlock(self.path)
        os.close(self._fd)

    def _storage_error(self, error: OSError) -> StorageError:
        return StorageError(f"{self.path} cannot be written ({error.strerror}); all lines so "
                            f"far are whole. Free some space, then: {self.resume}")

    def recover(self, manifest: Manifest) -> tuple[list[LedgerLine], Json]:
        """The events of an earlier process, and the fields of `run_resumed`.

        A torn last line is saved in a file beside the ledger before it is cut off, so that it
        survives a crash. The caller records it and then deletes the file.
        """
        found, torn_path = ledger.read_ledger(self.path), self.path + ".torn"
        ledger.refuse_foreign(self.path, manifest, found.events)
        torn = ledger.unrecorded_torn_bytes(found, files.read(torn_path))
        try:
            if found.torn:
                files.write_whole(torn_path, torn)
                os.ftruncate(self._fd, found.whole_bytes)
            elif found.newline_missing:
                os.write(self._fd, b"\n")
        except OSError as error:
            raise self._storage_error(error) from None
        whole = files.read(self.path)
        self.sha256, self.size = hashlib.sha256(whole), len(whole)
        if found.events:
            self.seq = found.events[-1]["seq"] + 1
            self.segment = found.events[-1]["segment"] + 1
        return found.events, {"newline_added": found.newline_missing, "torn_bytes": len(torn),
                              "torn_base64": base64.b64encode(torn).decode() if torn else None}
