"""The grep before the push: everything private in files, folders or a diff, with file and line.

Besides the patterns of privacy.py it knows what this machine and its user are called, and looks
for exactly that. A ledger's lines are read as what they are, so that what a model wrote is a
warning and what is stated an error; everything else is read as text.
"""
from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Collection, Iterator
from typing import Any, BinaryIO, Optional

from core import privacy, privacy_patterns
from core.errors import HarnessError
from core.text import printable

from check import documents, findings

PIECE_BYTES = 4_000_000       # a longer line is looked at in pieces
OVERLAP_BYTES = 400           # so that nothing is cut in two; the longest key has 255
LEFT_OUT = frozenset((".git",))
EVENT = re.compile(rb'[ +-]?(\{"event":)')
HOST_LINE = re.compile(r'"host_hostname_short":')
RUN_ID = re.compile(r"run-([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})")
# Of a run's folder; a login is often a part of the handle, and that is published anyway.
HANDLE = re.compile(r"([a-z0-9-]{1,39})[/\\][a-z0-9-]{3,48}[/\\]" + RUN_ID.pattern)


class PrivacyScan:
    """Looks through files; `report` holds what it found."""

    def __init__(self, report: findings.Report, names: Collection[privacy.MachineName]) -> None:
        self.report, self.names = report, names

    def path(self, path: str) -> None:
        """A file, or everything in a folder; raises Stop where there is none."""
        try:
            mode = os.lstat(path).st_mode
        except (OSError, ValueError) as error:
            raise HarnessError(f"--privacy {printable(path)}: {getattr(error, 'strerror', None) or error}; "
                       "name a file, a folder, or - for standard input") from None
        self._entry(path, mode)

    def _entry(self, path: str, mode: int) -> None:
        if stat.S_ISDIR(mode):
            for name in sorted(os.listdir(path)):
                below = os.path.join(path, name)
                if name not in LEFT_OUT:
                    self._entry(below, os.lstat(below).st_mode)
        elif not stat.S_ISREG(mode):
            self.report.add("file-not-regular", path, "was not looked into")
        else:
            self._name(path)
            try:
                flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
                with os.fdopen(os.open(path, flags), "rb") as file:
                    self.stream(path, file)
            except OSError as error:
                self.report.add("file-unreadable", path, error.strerror or type(error).__name__)

    def _name(self, path: str) -> None:
        """A file's own name may tell as much as its contents; folders above are this machine's."""
        for hit in privacy.scan(os.path.basename(path), allowed=_ids(path),
                                names=self._names(os.path.abspath(path))):
            self.report.add("private-disclosure", path, f"{hit.excerpt}, {hit.why}", 0, "file name")

    def stream(self, path: str, file: BinaryIO) -> None:
        """Whatever comes, line by line. A line of a diff may name the run that follows."""
        allowed, names = _ids(path), self._names(os.path.abspath(path))
        for number, line in _lines(file):
            start = line[:400].decode("utf-8", "replace")
            allowed |= _ids(start)
            names = self._names(start) if HANDLE.search(start) else names
            event = _event(line)
            if event is not None:
                found = documents.private_in(event, allowed | {str(event.get("run_id"))}, names)
                for place, hit in found:
                    self._add(path, number, hit, place, False)
            else:
                text = line.decode("utf-8", "replace")
                for hit in privacy.scan(text, allowed=allowed, names=names):
                    self._add(path, number, hit, "", HOST_LINE.search(text) is not None)

    def _names(self, text: str) -> tuple[privacy.MachineName, ...]:
        """What this machine is called, but for the handles of the runs that a text names."""
        return (*self.names, *(privacy.MachineName(privacy_patterns.PUBLIC, handle)
                               for handle, _ in HANDLE.findall(text)))

    def _add(self, path: str, number: int, hit: privacy.Hit, place: str, is_host: bool) -> None:
        code = ("hostname-published" if is_host and hit.kind == "host" else
                "private-answer" if hit.severity == privacy_patterns.WARNING else "private-disclosure")
        self.report.add(code, path, f"{hit.excerpt}, {hit.why}", number, place)


def _ids(text: str) -> set[str]:
    """Run ids: the ones that a run's own path, or a line of a diff that names it, may hold."""
    return set(RUN_ID.findall(text))


def _lines(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """(number, line or piece of one) without ever holding more than a few MiB."""
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
    """A ledger line, also behind the mark of a diff."""
    match = EVENT.match(line)
    if not match:
        return None
    try:
        found = json.loads(line[match.start(1):])
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None
