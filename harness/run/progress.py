"""Progress of a run on standard error: its lines, the live line, and how many calls are left."""
from __future__ import annotations

import os
import stat
import sys
import threading
from collections.abc import Mapping, Sequence
from typing import Any, Callable, Optional, TextIO

from core import plan, result_tables
from core.text import duration, fit_lines, printable, readable, width_of

LIVE_EVERY_S = 0.1
BAR = 10                          # characters of the live line's bar
RED, PLAIN = "\x1b[31m", "\x1b[0m"
CLEAR_LINE = "\r\x1b[2K"


# --- counting ------------------------------------------------------------------------------------
class Count:
    """Calls that a process makes, and those that are left to it; from ledger lines.

    outcomes: of earlier processes, by cell id. retries: failed calls are made again; None if that
    is not known, and then a failed call that is made again shows it.
    """

    def __init__(self, planned: Sequence[plan.Cell], retries: Optional[bool],
                 outcomes: Mapping[str, str]) -> None:
        self._planned, self._retries = planned, retries
        self._outcomes = dict(outcomes)
        self.resume()

    def resume(self) -> None:
        """Begin with the calls of another process."""
        self.made, self._before, self._now = 0, dict(self._outcomes), set[str]()
        self._greeted = set[str]()
        before = [self._before.get(cell.cell_id) for cell in self._planned]
        nothing_new, failed = None not in before, before.count("ok") < len(before)
        self._retrying = nothing_new and failed if self._retries is None else self._retries

    def take(self, event: Mapping[str, Any]) -> None:
        """Count a ledger line."""
        if event["event"] == "run_resumed":
            self.resume()
        elif event["event"] == "call_finished":
            self.made += 1
            self._now.add(event["cell_id"])
            if event["phase"] == "hello":
                self._greeted.add(event["model"])
            self._retrying |= self._retries is None and event["cell_id"] in self._before
            self._outcomes[event["cell_id"]] = event["outcome"]
        elif event["event"] == "curve_ended":
            self._planned = [cell for cell in self._planned if not (
                (cell.model, cell.phase) == (event["model"], event["phase"])
                and (cell.level or 0) >= event["level"])]

    def left_cells(self) -> list[plan.Cell]:
        """Calls that this process has still to make; a resume greets each of their models again."""
        def is_left(cell: plan.Cell) -> bool:
            return (cell.cell_id not in self._before
                    or self._retrying and self._before[cell.cell_id] != "ok")

        left = [cell for cell in self._planned if cell.cell_id not in self._now]
        to_greet = {cell.model for cell in left if is_left(cell)} - self._greeted
        return [cell for cell in left
                if is_left(cell) or cell.phase == "hello" and cell.model in to_greet]

    def total(self) -> int:
        """Calls of this process: made and left."""
        return self.made + len(self.left_cells())


# --- while it runs -------------------------------------------------------------------------------
class Progress:
    """Lines on standard error; on a terminal also one live line below them. Thread-safe.

    stream: None shows nothing; live: the terminal understands escapes; colour: it may be coloured;
    gap: what comes before the first line.
    """

    def __init__(self, stream: Optional[TextIO], live: bool, colour: bool, gap: str = "") -> None:
        self._stream, self.live, self._colour = stream, live, colour
        self._width = width_of(stream) if stream else None
        self._lock = threading.Lock()
        self._shown, self._model, self._gap = "", None, gap
        self._calls: list[Any] = []

    @classmethod
    def on(cls, stream: TextIO, quiet: bool, environment: Mapping[str, str]) -> Progress:
        """The progress display for a stream and the environment (NO_COLOR, TERM)."""
        terminal = (stream.isatty() and environment.get("TERM") != "dumb"
                    and (os.name == "posix" or understands_escapes(stream)))
        return cls(None if quiet else stream, terminal and not quiet,
                   terminal and not environment.get("NO_COLOR"), "\n" * is_apart(stream))

    def say(self, line: str, bad: bool = False) -> None:
        """Write a line that stays."""
        text = fit_lines(line, self._width)
        text = f"{RED}{text}{PLAIN}" if bad and self._colour else text
        with self._lock:
            self._write((CLEAR_LINE if self._shown else self._gap) + text + "\n" + self._shown)
            self._gap = ""

    def call_ended(self, call: Any, made: int, total: int) -> None:
        """Show a call: always in a log, on a terminal only if it failed."""
        self._calls.append(call)
        if not self.live or call["outcome"] != "ok":
            self.say(result_tables.call_line(made, total, call), bad=call["outcome"] != "ok")

    def phase_ended(self, event: Any) -> None:
        """Show a finished phase on a terminal, below the name of its model."""
        calls, self._calls = self._calls, []
        if self.live and calls:
            if event["model"] not in (None, self._model):
                self._model = event["model"]
                self.say(readable(event["model"]))
            self.say("  " + result_tables.phase_line(event["phase"], calls, event["wall_us"]))

    def show(self, make: Callable[[int], str]) -> None:
        """Replace the live line. make: the line for a width in characters."""
        if not self.live or self._stream is None:
            return
        width = width_of(self._stream) or 80
        with self._lock:
            self._shown = make(width)[:max(width - 1, 20)]
            self._write(CLEAR_LINE + self._shown)

    def end(self) -> None:
        """Remove the live line."""
        with self._lock:
            if self._shown:
                self._shown = ""
                self._write(CLEAR_LINE)

    def _write(self, text: str) -> None:
        if self._stream is not None:
            try:
                encoding = getattr(self._stream, "encoding", None) or "utf-8"
                self._stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
                self._stream.flush()
            except (OSError, ValueError):
                self._stream = None          # its reader has closed it; the run continues


def is_apart(stream: TextIO) -> bool:
    """Whether standard output and this stream are two pipes or files. A program that reads both may
    show one after the other, without a line end between them."""
    try:
        ends = [os.fstat(one.fileno()) for one in (sys.stdout, stream)]
    except (OSError, ValueError, AttributeError):         # closed, or not a file
        return False
    return not (any(stat.S_ISCHR(end.st_mode) for end in ends) or os.path.samestat(*ends))


def understands_escapes(stream: TextIO) -> bool:
    """Switch a Windows console to escape sequences; False if it has none (before Windows 10)."""
    try:
        import ctypes
        import msvcrt
        handle = msvcrt.get_osfhandle(stream.fileno())  # type: ignore[attr-defined,unused-ignore]
        kernel: Any = ctypes.windll.kernel32            # type: ignore[attr-defined,unused-ignore]
        mode = ctypes.c_ulong()
        return bool(kernel.GetConsoleMode(handle, ctypes.byref(mode))
                    and kernel.SetConsoleMode(handle, mode.value | 4))
    except (ImportError, AttributeError, OSError, ValueError):
        return False


def live_line(width: int, done: int, total: int, cell_ids: Sequence[str], reads_per_s: float,
              spent_us: Sequence[int]) -> str:
    """`[###-------] 12/38  5q:json-invoice  83 tok/s  about 4 min left`, for a terminal's width.

    reads_per_s: of all lanes, mostly one token each; spent_us: durations of the calls so far.
    """
    what = printable(", ".join(":".join(i.split(":")[-2:]) for i in cell_ids), max(width - 57, 20))
    left_s = sum(spent_us) / 1e6 / max(len(spent_us), 1) * max(total - done, 0)
    left = f"  about {duration(left_s)} left" if len(spent_us) > 2 else ""
    return f"{progress_bar(done, total)}  {what}  {reads_per_s:.0f} tok/s{left}"


def progress_bar(done: int, total: int) -> str:
    """`[###-------] 12/38`."""
    filled = BAR * done // max(total, 1)
    return f"[{'#' * filled}{'-' * (BAR - filled)}] {done}/{total}"
