"""Test the progress display: counting calls, lines and the live line."""
from __future__ import annotations

import contextlib
import io
import os
import sys
import tempfile
import unittest
from typing import Any
from unittest import mock

from core import plan as plans
from core import text
from run.progress import Count, Progress, is_apart, live_line
from tests.core.test_metrics import call
from tests.run.test_plan_and_probe import manifest


class Counts(unittest.TestCase):
    PLANNED = plans.all_cells(manifest("m", names=("5q",)))

    def counted(self, *outcomes: Any, retries: Any = None, before: Any = None) -> list[str]:
        """`made/total` after each line: an outcome of the next cell, or "resumed"."""
        count, shown, at = Count(self.PLANNED, retries, before or {}), [], 0
        for outcome in outcomes:
            if outcome == "resumed":
                count.take({"event": "run_resumed"})
                at = 0
            else:
                cell_id = outcome if ":" in outcome else self.PLANNED[at].cell_id
                at += ":" not in outcome
                count.take({"event": "call_finished", "cell_id": cell_id, "model": "m",
                            "phase": "hello" if "hello" in cell_id else "5q",
                            "outcome": "ok" if ":" in outcome else outcome})
            shown.append(f"{count.made}/{count.total()}")
        return shown

    def test_a_run_counts_planned_calls(self):
        self.assertEqual(self.counted(*["ok"] * 6)[::5], ["1/6", "6/6"])

    def test_a_resume_counts_its_own_calls_and_hellos(self):
        self.assertEqual(self.counted("ok", "ok", "resumed", "x:hello:r1"),
                         ["1/6", "2/6", "0/5", "1/5"])

    def test_a_retry_counts_its_own_calls(self):
        ids = [cell.cell_id for cell in self.PLANNED]
        failed = {**dict.fromkeys(ids, "ok"), ids[1]: "timeout", ids[4]: "http_error"}
        for retries in (True, None):
            self.assertEqual(self.counted("x:hello:r1", ids[1], ids[4], retries=retries,
                                          before=failed), ["1/3", "2/3", "3/3"])
        self.assertEqual(self.counted("x:hello:r1", retries=False, before=failed), ["1/1"])


class Terminal(io.StringIO):
    """Standard error on a terminal."""

    def isatty(self) -> bool:
        return True

    def fileno(self) -> int:
        raise OSError("not a real terminal")


class Buffered(io.StringIO):
    """Shows in `seen` what was flushed."""

    seen = ""

    def flush(self) -> None:
        self.seen = self.getvalue()


class Closed(io.StringIO):
    """A pipe whose reader has closed it."""

    writes = 0

    def write(self, _: str) -> int:
        self.writes += 1
        raise BrokenPipeError


class Lines(unittest.TestCase):
    def shown(self, stream: io.StringIO, quiet: bool = False, **environment: str) -> str:
        """What a run would write: a live line, an answer, another live line, a failure, the end."""
        progress = Progress.on(stream, quiet, environment)
        progress.show(lambda width: f"live {width}")
        progress.say("answer")
        progress.show(lambda width: "again")
        progress.say("failure", bad=True)
        progress.end()
        progress.end()
        return stream.getvalue()

    def test_terminal_has_a_live_line_below_the_others(self):
        clear = "\r\x1b[2K"
        self.assertEqual(self.shown(Terminal()), (
            f"{clear}live 80{clear}answer\nlive 80{clear}again{clear}\x1b[31mfailure\x1b[0m\nagain"
            f"{clear}"))

    def test_no_color_removes_the_colour_only(self):
        clear = "\r\x1b[2K"
        self.assertEqual(self.shown(Terminal(), NO_COLOR="1"), (
            f"{clear}live 80{clear}answer\nlive 80{clear}again{clear}failure\nagain{clear}"))
        self.assertIn("\x1b[31m", self.shown(Terminal(), NO_COLOR=""))

    def test_no_terminal_gets_plain_lines(self):
        self.assertEqual(self.shown(io.StringIO()), "answer\nfailure\n")
        self.assertEqual(self.shown(Terminal(), TERM="dumb"), "answer\nfailure\n")
        with mock.patch.object(os, "name", "nt"):
            self.assertEqual(self.shown(Terminal()), "answer\nfailure\n")

    def test_lines_and_results_keep_their_order_in_one_pipe(self):
        """Both streams buffer blocks here, as standard output does in a pipe."""
        pipe = io.BytesIO()
        out, err = (io.TextIOWrapper(io.BufferedWriter(pipe)) for _ in range(2))
        progress = Progress.on(err, False, {})
        progress.say("1/2")
        text.print_text("still running", out)
        progress.say("2/2")
        progress.end()
        text.print_safe("table", out)
        text.print_text("error", err)
        self.assertEqual(pipe.getvalue(), b"1/2\nstill running\n2/2\ntable\nerror\n")

    def test_a_pipe_of_its_own_begins_with_a_line_end(self):
        with contextlib.ExitStack() as stack:
            out, other, null = (stack.enter_context(io.TextIOWrapper(file)) for file in (
                tempfile.TemporaryFile(), tempfile.TemporaryFile(), open(os.devnull, "wb")))
            stack.enter_context(mock.patch.object(sys, "stdout", out))
            self.assertEqual([is_apart(one) for one in (other, out, null, io.StringIO())],
                             [True, False, False, False])
            progress = Progress.on(other, False, {})
            progress.say("1/2")
            progress.say("2/2")
            other.seek(0)
            self.assertEqual(other.read(), "\n1/2\n2/2\n")

    def test_quiet_shows_nothing(self):
        self.assertEqual(self.shown(Terminal(), quiet=True), "")
        self.assertEqual(self.shown(io.StringIO(), quiet=True), "")

    def test_live_line_is_narrower_than_the_terminal(self):
        stream = Terminal()
        progress = Progress.on(stream, False, {})
        with mock.patch.object(os, "get_terminal_size",
                               return_value=os.terminal_size((40, 20))), \
                mock.patch.object(stream, "fileno", lambda: 2):
            progress.show(lambda width: "x" * 200)
        self.assertEqual(stream.getvalue(), "\r\x1b[2K" + "x" * 39)

    def test_closed_stream_is_written_once(self):
        stream = Closed()
        progress = Progress(stream, True, True)
        for _ in range(3):
            progress.show(lambda width: "live")
            progress.say("line")
        progress.end()
        self.assertEqual(stream.writes, 1)

    def test_live_line_shows_calls_in_progress_and_time_left(self):
        cells = ["a:b:m:5q:json-invoice", "a:b:m:5q:x"]
        for width, done, ids, spent_us, expected in (
                (100, 12, cells[:1], [], "[###-------] 12/38  5q:json-invoice  83 tok/s"),
                (100, 12, cells[:1], [8e6] * 3,
                 "[###-------] 12/38  5q:json-invoice  83 tok/s  about 3 min left"),
                (100, 38, cells[:1], [8e6] * 3,
                 "[##########] 38/38  5q:json-invoice  83 tok/s  about 0 s left"),
                (100, 40, [], [8e6] * 3, "[##########] 40/38    83 tok/s  about 0 s left"),
                (100, 1, cells, [8e6] * 2, "[----------] 1/38  5q:json-invoice, 5q:x  83 tok/s"),
                (60, 1, cells, [], "[----------] 1/38  5q:json-invoice, 5q:...  83 tok/s"),
                (100, 1, ["a:b:\x1b"], [], r"[----------] 1/38  b:\x1b  83 tok/s")):
            self.assertEqual(live_line(width, done, 38, ids, 83.4, spent_us), expected)

    def test_terminal_shows_phases_and_failed_calls_and_a_log_every_call(self):
        failed = call(outcome="timeout", error={"kind": "timeout", "message": "late",
                                                "status": None, "body_start": None})
        for stream, live, expected in ((io.StringIO(), False, ["q1", "q1"]),
                                       (Terminal(), True, ["timeout", "m", "1 ok, 1 failed"])):
            progress = Progress(stream, live, False)
            for number, one in enumerate((call(), failed), 1):
                progress.call_ended(one, number, 2)
            progress.phase_ended({"model": "m", "phase": "20q", "wall_us": 4_000_000})
            lines = stream.getvalue().splitlines()
            self.assertEqual([word in line for word, line in zip(expected, lines)],
                             [True] * len(lines))
            self.assertEqual(len(lines), len(expected))

    def test_lines_are_flushed(self):
        stream = Buffered()
        Progress(stream, False, False).say("line")
        self.assertEqual(stream.seen, "line\n")


if __name__ == "__main__":
    unittest.main()
