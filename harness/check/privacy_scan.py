"""Search files, folders or a diff for private values, for `--privacy`.

Besides the patterns of core/privacy_patterns it searches for the names of this machine and its
user. Ledger lines are parsed, so that a hit in an answer is a warning and any other hit an error;
everything else is searched as text.
"""
from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Collection, Iterator, Sequence
from typing import Any, BinaryIO, Optional

from check import findings, sources, texts
from core import privacy, privacy_patterns
from core.errors import HarnessError
from core.text import printable

PIECE_BYTES = 4_000_000       # longer lines are searched in pieces
OVERLAP_BYTES = 400           # between pieces; the longest key has 255 characters
EVENT = re.compile(rb'[ +-]?(\{"event":)')
HOST_LINE = re.compile(r'"host_hostname_short":')
RUN_ID = re.compile(rf"run-({sources.UUID})")
# In the path of a run; a login is often part of the handle, which is published anyway.
HANDLE = re.compile(r"([a-z0-9-]{1,39})[/\\][a-z0-9-]{3,48}[/\\]" + RUN_ID.pattern)


class PrivacyScan:
    """Searches files and adds findings to `report`."""

    def __init__(self, report: findings.Report, names: Collection[privacy.MachineName]) -> None:
        self.report, self.names = report, names

    def paths(self, paths: Sequence[str], stdin: BinaryIO) -> None:
        """Search files and folders; - is standard input. Raises HarnessError."""
        for path in paths:
            if path == "-":
                self.stream("-", stdin)
                continue
            try:
                mode = os.lstat(path).st_mode
            except (OSError, ValueError) as error:
                raise HarnessError(f"--privacy {printable(path)}: {sources.cause(error)}; pass a "
                                   "file, a folder, or - for standard input") from None
            self._entry(path, mode)

    def _entry(self, path: str, mode: int) -> None:
        if stat.S_ISDIR(mode):
            for name in sorted(os.listdir(path)):
                below = os.path.join(path, name)
                if name != ".git":
                    self._entry(below, os.lstat(below).st_mode)
            return
        if not stat.S_ISREG(mode):
            self.report.add("file-not-regular", path, "was not searched")
            return
        # The file's own name; the folders above belong to this machine.
        for hit in privacy.scan(os.path.basename(path), allowed=_run_ids(path),
                                names=self._names(os.path.abspath(path))):
            self._add(path, 0, hit, "file name")
        try:
            with sources.open_regular(path) as file:
                self.stream(path, file)
        except OSError as error:
            self.report.add("file-unreadable", path, sources.cause(error))

    def stream(self, path: str, file: BinaryIO) -> None:
        """Search line by line. A line of a diff may name the run of the lines that follow."""
        allowed, names = _run_ids(path), self._names(os.path.abspath(path))
        for number, line in _lines(file):
            start = line[:400].decode("utf-8", "replace")
            allowed |= _run_ids(start)
            names = self._names(start) if HANDLE.search(start) else names
            event = _event(line)
            if event is not None:
                own = allowed | {str(event.get("run_id"))}
                for place, key, text in privacy.strings(event):
                    for hit in texts.hits_in(place, key, text, own, names):
                        self._add(path, number, hit, place)
            else:
                text = line.decode("utf-8", "replace")
                is_host = HOST_LINE.search(text) is not None
                for hit in privacy.scan(text, allowed=allowed, names=names):
                    self._add(path, number, hit, "", is_host and hit.kind == "host")

    def _names(self, text: str) -> tuple[privacy.MachineName, ...]:
        """Names of this machine; the handles of runs that the text names are public."""
        return (*self.names, *(privacy.MachineName(privacy_patterns.PUBLIC, handle)
                               for handle, _ in HANDLE.findall(text)))

    def _add(self, path: str, number: int, hit: privacy.Hit, place: str,
             is_host: bool = False) -> None:
        self.report.add("hostname-published" if is_host else texts.code_of(hit), path,
                        f"{hit.excerpt}, {hit.why}", number, place)


def _run_ids(text: str) -> set[str]:
    """Run ids in a path or diff line, which the run's files may hold."""
    return set(RUN_ID.findall(text))


def _lines(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """(number, line or overlapping piece of one); holds a few MiB at most."""
    number = 0
    while True:
        piece = file.readline(PIECE_BYTES)
        if not piece:
            return
        number += 1
        yield number, piece
        while not piece.endswith(b"\n"):
            rest = piece[-OVERLAP_BYTES:]
            piece = file.readline(PIECE_BYTES)
            if not piece:
                return
            yield number, rest + piece


def _event(line: bytes) -> Optional[dict[str, Any]]:
    """A ledger line, also in a diff."""
    match = EVENT.match(line)
    try:
        found = json.loads(line[match.start(1):]) if match else None
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None
