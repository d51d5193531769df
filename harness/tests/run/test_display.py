"""What people read: lines, tables and the live display, as golden texts."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
import unittest
from typing import Any, Optional
from unittest import mock

from core import metric_definitions, metrics, result_tables
from core import plan as plans
from core.errors import HarnessError, StorageError
from core.text import align_columns, duration, format_number, print_safe, printable, with_interval
from run import display

from tests import runs
from tests.core.test_metrics import call

CONTROL = "\x1b[2J\r\u202e\ud83d\x00\n"
SHOWN = r"\x1b[2J\r\u202e\ud83d\x00\n"


class Words(unittest.TestCase):
    def test_whatever_somebody_wrote_is_one_line_of_harmless_ascii(self):
        for text, expected in (("plain text", "plain text"), (CONTROL, SHOWN), ("", ""),
                               ("\u00e9\u4e2d", r"\xe9\u4e2d"), ("a\tb", r"a\tb"),
                               ("\U000e0041\u200b\ufeff", r"\U000e0041\u200b\ufeff")):
            self.assertEqual(printable(text), expected)
        self.assertEqual(printable("x" * 300), "x" * 200 + "...")
        self.assertEqual(printable("x" * 9, 4), "xxxx...")
        self.assertEqual(printable("x" * 200), "x" * 200)

    def test_numbers_have_three_digits(self):
        for value, expected in ((None, "-"), (0, "0"), (0.0004, "4.0e-04"), (0.001, "0.001"),
                                (0.01234, "0.0123"),
                                (1.0, "1"), (9.876, "9.88"), (84.06, "84.1"), (99.97, "100"),
                                (123.4, "123"), (98765.4, "98765"), (-1.5, "-1.5")):
            self.assertEqual(format_number(value), expected)

    def test_an_interval_stands_behind_its_median_where_there_is_one(self):
        self.assertEqual(with_interval({"median": 84.06, "ci_low": 80.2, "ci_high": 99.0}),
                         "84.1 [80.2-99]")
        self.assertEqual(with_interval({"median": 2.0, "ci_low": None, "ci_high": None}),
                         "2")
        self.assertEqual(with_interval({"median": None, "ci_low": None, "ci_high": None}),
                         "-")

    def test_times_are_told_as_people_do(self):
        for seconds, expected in ((0.4, "0 s"), (40, "40 s"), (89, "89 s"), (90, "2 min"),
                                  (720, "12 min"), (5400, "1 h 30 min"), (12_000, "3 h 20 min"),
                                  (360_000, "100 h 0 min")):
            self.assertEqual(duration(seconds), expected)

    def test_columns_are_aligned(self):
        self.assertEqual(align_columns([("a", "bb", "c"), ("aaa", "b", "")], right=(1,)),
                         ["a    bb  c", "aaa   b"])


class CallLine(unittest.TestCase):
    def line(self, number: int = 12, total: int = 38, **changes: Any) -> str:
        return result_tables.call_line(number, total, call(**changes))

    def test_an_answer(self):
        self.assertEqual(self.line(), "12/38  20q  q1  ok, 41 tokens, TTFT 200 ms, 100 tokens/s")

    def test_what_the_checks_say(self):
        for passed, told in ((True, ", checks passed"), (False, ", checks not passed"), (None, "")):
            self.assertEqual(self.line(checks={"passed": passed}),
                             f"12/38  20q  q1  ok, 41 tokens, TTFT 200 ms, 100 tokens/s{told}")

    def test_too_few_tokens_have_no_rate(self):
        self.assertEqual(
            self.line(response__usage={"prompt_tokens": 9, "completion_tokens": 2},
                      timing__chunk_us=[200_000, 10_000], timing__last_token_us=210_000),
            "12/38  20q  q1  ok, 2 tokens, TTFT 200 ms")

    def test_a_cut_prompt_a_repeat_and_more_calls_than_planned(self):
        self.assertEqual(
            self.line(40, 38, repeat=2, truncated={"verdict": "yes", "reason": "x"}),
            "40/40  20q  q1 again (2)  ok, 41 tokens, TTFT 200 ms, 100 tokens/s, prompt cut by "
            "the server")
        self.assertEqual(self.line(phase="hello", question_id="hello", repeat=2)[:20],
                         "12/38  hello  hello ")

    def test_a_failure_is_told_with_its_status_and_harmlessly(self):
        def failed(kind: str, message: str, status: Optional[int]) -> str:
            return self.line(outcome=kind, response=None, timing=None, error={
                "kind": kind, "message": message, "status": status, "body_start": None})

        self.assertEqual(failed("http_error", CONTROL, 500),
                         f"12/38  20q  q1  http_error (HTTP 500): {SHOWN}")
        self.assertEqual(failed("timeout", "the call's time was up", None),
                         "12/38  20q  q1  timeout: the call's time was up")
        self.assertEqual(failed("stream_error", "gone", 200),
                         "12/38  20q  q1  stream_error: gone")

    def test_a_question_of_another_suite_is_shown_harmlessly(self):
        self.assertEqual(self.line(question_id=CONTROL).partition("  ok, ")[0],
                         f"12/38  20q  {SHOWN}")


# --- a whole run ---------------------------------------------------------------------------------
def numbers(median: Optional[float], low: Optional[float] = None,
            high: Optional[float] = None) -> dict[str, Any]:
    return {"median": median, "ci_low": low, "ci_high": high}


def cell(phase: str, model: str = "m", **changes: Any) -> dict[str, Any]:
    """A row of a summary."""
    return {"model": model, "phase": phase, "cold": phase == "hello", "ok": 5, "failed": 0,
            "lanes": 1, "checks": {"passed": 4, "total": 5}, "flags": [],
            "metrics": {"ttft_ms": numbers(84.06, 80.2, 99.0), "tpot_ms": numbers(10.0),
                        "decode_tokens_per_s": numbers(100.0), "prefill_tokens_per_s":
                        numbers(None)},
            "output_token_throughput_tokens_per_s": None, "lane_efficiency_ratio": None, **changes}


def summary(*cells: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {"cells": list(cells), "run_flags": [], "counts": {"ok": 10},
            "instrument": {"reason": None, "stamp": "kernel", "lanes": [
                {"lanes": 1, "lag_us": {"p50": 10, "p99": 60, "max": 90, "n": 700}},
                {"lanes": 4, "lag_us": {"p50": 20, "p99": 99, "max": 400, "n": 2800}}]}, **changes}


class WholeRun(unittest.TestCase):
    maxDiff = None

    def test_the_table_has_a_part_for_each_model_and_a_row_for_each_phase(self):
        self.assertEqual(result_tables.summary_table(summary(
            cell("hello", ok=1, checks={"passed": 0, "total": 0}),
            cell("5q", ok=4, failed=1, flags=["few_samples", "client_bound"]),
            cell("parallel_same", lanes=4, output_token_throughput_tokens_per_s=312.34,
                 lane_efficiency_ratio=0.7801), cell("5q", model="n\x1b"))), """\
m
phase          calls  TTFT ms         TPOT ms  decode tok/s  prefill tok/s  checks  flags
hello (cold)     1/1  84.1 [80.2-99]  10       100           -
5q               4/5  84.1 [80.2-99]  10       100           -                 4/5  few_samples, \
client_bound
parallel_same    5/5  84.1 [80.2-99]  10       100           -                 4/5
parallel_same: 312 tokens/s on 4 lanes together, lane efficiency 0.78

n\\x1b
phase  calls  TTFT ms         TPOT ms  decode tok/s  prefill tok/s  checks  flags
5q       5/5  84.1 [80.2-99]  10       100           -                 4/5""")

    def test_the_end_tells_table_instrument_counts_flags_folder_and_the_next_command(self):
        text = display.end_text(summary(cell("5q", flags=["few_samples"]),
                                       counts={"ok": 9, "timeout": 1}),
                               "there/run-x", "python3 next.py")
        flag = metric_definitions.FLAGS["few_samples"]
        self.assertEqual(text, f"""
m
phase  calls  TTFT ms         TPOT ms  decode tok/s  prefill tok/s  checks  flags
5q       5/5  84.1 [80.2-99]  10       100           -                 4/5  few_samples

medians, with the exact 95 % interval of the median across prompts where there is one
instrument: median 0.02 ms, p99 0.099 ms at 4 lanes (kernel stamps)
calls: 9 ok, 1 timeout

few_samples: {flag.text} {flag.remedy}

run folder: there/run-x
next: python3 next.py""")

    def test_an_instrument_that_was_not_measured_says_why(self):
        self.assertEqual(result_tables.instrument_line(summary(instrument={
            "reason": "--no-calibration", "stamp": None, "lanes": []})),
            "instrument: not calibrated (--no-calibration)")

    def test_each_flag_is_explained_once(self):
        both = summary(cell("5q", flags=["client_bound"]), cell("20q", flags=["client_bound"]),
                       run_flags=["not_calibrated"])
        self.assertEqual([line.partition(":")[0] for line in result_tables.flags_explained(both)],
                         ["client_bound", "not_calibrated"])

    def test_a_table_without_flags_has_no_empty_lines_for_them(self):
        self.assertNotIn("\n\n\n", display.end_text(summary(cell("5q")), "f", "n"))

    def test_what_to_type_after_a_run(self):
        complete = "python3 harness/complete_submission.py 'my runs/run-x'"
        for outcomes, synthetic, expected in (
                (["ok"], False, complete), (["context_limit", "ok"], False, complete),
                (["ok"], True, "python3 harness/run_benchmark.py --probe"),
                (["context_limit", "timeout"], False, "RESUME --retry-failed"),
                (["ok", "timeout"], True, "RESUME --retry-failed")):
            self.assertEqual(
                display.following(outcomes, synthetic, "RESUME", "my runs/run-x"), expected)
        self.assertEqual([display.next_step(code, "RESUME") for code in (3, 4, 130)],
                         ["RESUME --retry-failed", "RESUME", "RESUME"])

    def test_a_folder_is_told_as_it_may_be_typed_here(self):
        here = os.getcwd()
        self.assertEqual(display.nearby(os.path.join(here, "a", "b")), os.path.join("a", "b"))
        for elsewhere in (here, here + "-other/a", os.path.dirname(here), "a"):
            self.assertEqual(display.nearby(elsewhere), elsewhere)


# --- before a run --------------------------------------------------------------------------------
def manifest(*models: str, names: tuple[str, ...] = ("5q",)) -> dict[str, Any]:
    """Enough of one for a plan: hello and the named phases."""
    return {"models": list(models), "cell_id_prefix": "x:y", "timeout_s": 30.0, "plan": {
        "repeats": 1, "lanes": 4, "phases": [
            {"phase": name, "suite_file": None, "lanes": lanes, "max_tokens": cap,
             "question_ids": [f"q{i}" for i in range(count)]}
            for name, lanes, cap, count in (("hello", 1, 32, 1), ("5q", 1, 2048, 5),
                                            ("parallel_same", 4, 2048, 20),
                                            ("parallel_mixed", 4, 2048, 20))
            if name == "hello" or name in names]}}


class BeforeARun(unittest.TestCase):
    maxDiff = None

    def test_a_plan(self):
        plan = manifest("m", "n\x1b", names=("5q", "parallel_same", "parallel_mixed"))
        self.assertEqual(display.plan_text(plan, 72, display.Estimate(6000.0, 1200.0)), """\
models: m, n\\x1b
phase           calls  lanes  cap          what
hello               1      1  32 tokens    one short call; it holds the model's load
5q                  5      1  2048 tokens  5 short, format-checked tasks, one lane
parallel_same      20      4  2048 tokens  20 questions on parallel lanes, one model
parallel_mixed     20      4  2048 tokens  20 questions on parallel lanes bound to the models in \
turn
72 calls over all models; by this hello's speed the calls that follow take about 20 min, and \
1 h 40 min at most""")

    def test_a_phase_that_cannot_run_says_why_in_the_plan(self):
        text = display.plan_text(manifest("m", names=("parallel_mixed",)), 1, None)
        self.assertEqual(text.splitlines()[-2:], [
            "parallel_mixed      0      4  2048 tokens  parallel_mixed needs two models or more; "
            "this run has one",
            "1 calls over all models; how long it takes cannot be told from this hello"])

    def test_an_estimate_goes_from_the_hellos_marks_to_each_answers_cap(self):
        plan = manifest("m", names=("5q", "parallel_same"))
        cells = plans.all_cells(plan)
        self.assertEqual(len(cells), 26)
        # TTFT 200 ms, TPOT 10 ms: 2048 tokens take 20.68 s, a third of them 7.03 s.
        hello_s, most_s, typical_s = 0.52, 20.68, 0.2 + 2048 / 3 / 100
        found = display.estimate(plan, cells, call())
        self.assertAlmostEqual(found.most_s, hello_s + 5 * most_s + 20 / 4 * most_s)
        self.assertAlmostEqual(found.typical_s, 0.2 + 32 / 300 + 10 * typical_s)

    def test_no_call_takes_longer_than_its_cap(self):
        plan = {**manifest("m"), "timeout_s": 2.0}
        self.assertAlmostEqual(display.estimate(plan, plans.all_cells(plan), call()).most_s,
                               0.52 + 5 * 2.0)

    def test_a_hello_without_marks_tells_nothing(self):
        failed = call(outcome="timeout", response=None, timing=None)
        for hello in (None, failed, {"outcome": "client_stopped"}):
            self.assertIsNone(display.estimate(manifest("m"), [], hello))

    def test_a_hello_that_came_in_one_piece_is_told_by_its_whole_time(self):
        whole = call(timing__chunk_us=[200_000], timing__first_token_us=200_000,
                     timing__last_token_us=200_000)
        plan = manifest("m")
        first_s, token_s = (metrics.call_metrics(whole)[name] / 1000 / part for name, part in (
            ("ttft_ms", 1), ("e2el_ms", 41)))
        self.assertIsNone(metrics.call_metrics(whole)["tpot_ms"])
        self.assertAlmostEqual(display.estimate(plan, plans.all_cells(plan), whole).most_s,
                               first_s + 32 * token_s + 5 * (first_s + 2048 * token_s))

    def test_a_run_begins_with_its_id(self):
        self.assertEqual(display.begin_line("x", 38, True), "run x: 38 calls planned")
        self.assertEqual(display.begin_line("x", 38, False),
                         "run x: 38 calls planned; first this client's own error (3 s)")


class Probes(unittest.TestCase):
    maxDiff = None

    def found(self, **changes: Any) -> dict[str, Any]:
        facts = {"quantization": "Q4_K_M", "family": "qwen2", "trained_context_tokens": 32768}
        return {"url": "http://127.0.0.1:8080", "slots": {},
                "engine": {"name": "llama.cpp", "version": "b1\x1b"}, "models": [
                    {"id": "m", "chat": True, "facts": facts,
                     "context": {"effective_tokens": 8192, "remedy": None}},
                    {"id": "e\x1b", "chat": False, "facts": dict.fromkeys(facts),
                     "context": {"effective_tokens": None, "remedy": "Start it with -c 4096."}}],
                **changes}

    def test_what_serves_is_told_model_by_model(self):
        self.assertEqual(display.probe_text(self.found()), """\
http://127.0.0.1:8080: llama.cpp b1\\x1b
  m  (Q4_K_M, qwen2, context 8192 tokens, trained for 32768)
  e\\x1b  (does not chat)
    Start it with -c 4096.""")

    def test_a_server_that_lists_nothing_is_told_so(self):
        text = display.probe_text(self.found(models=[], engine={"name": "unknown",
                                                               "version": None}))
        self.assertEqual(text, "http://127.0.0.1:8080: unknown\n  it lists no models: it may still "
                         "be loading, so probe again; else name one with --models")

    def test_one_endpoint_ends_with_its_hello_and_several_with_a_choice(self):
        empty = self.found(models=[])
        self.assertEqual(display.probes_text([empty], call()).splitlines()[-1],
                         "1/1  20q  q1  ok, 41 tokens, TTFT 200 ms, 100 tokens/s")
        self.assertEqual(display.probes_text([empty, empty], None).splitlines()[-1],
                         "several endpoints: choose with --target-url URL")

    def test_a_context_that_is_not_the_one_asked_for(self):
        self.assertEqual(display.context_line({"model": "m\x1b", "context": {
            "reason": "2048 are in force, 4096 were asked for", "remedy": "Start it so."}}),
            r"m\x1b: 2048 are in force, 4096 were asked for. Start it so.")

    def test_where_nothing_listens(self):
        text = display.no_endpoint("http://h\x1b", ("connect_failed", "no connection: x"), [])
        lines = text.splitlines()
        self.assertEqual(lines[:3] + lines[-1:], [
            r"no endpoint at http://h\x1b (no connection: x)",
            "nothing answers at the usual ports of this machine either. One at another port or",
            "address: --target-url http://ADDRESS:PORT, its key: --api-key-env NAME. To start one:",
            "to see everything without a server: python3 harness/run_benchmark.py --rehearse"])
        self.assertTrue(any(line.startswith("Ollama") for line in lines))

    def test_where_something_else_listens(self):
        self.assertEqual(display.no_endpoint("http://h", None, [self.found()]).splitlines(), [
            "no endpoint at http://h (no answer)",
            "found on this machine; type one of them behind --target-url:",
            "  http://127.0.0.1:8080  llama.cpp",
            "to see everything without a server: python3 harness/run_benchmark.py --rehearse"])

    def test_a_key_that_is_wanted_or_refused(self):
        self.assertEqual(display.refused_key(401, False), "the endpoint wants a key (HTTP 401); "
                         "put it into an environment variable and type --api-key-env NAME")
        self.assertEqual(display.refused_key(403, True), "the endpoint refuses the key (HTTP 403); "
                         "look at the variable that --api-key-env names")

    def test_a_folder_that_cannot_be_written(self):
        for error, kind, told in (
                (PermissionError(13, "Denied"), HarnessError,
                 r"--out-dir: a\x1b cannot be written (Denied); name another folder"),
                (OSError(28, "Full"), StorageError, r"a\x1b cannot be written (Full); make room, "
                 "or name another folder with --out-dir")):
            made = display.unwritable("a\x1b", error)
            self.assertEqual((type(made), str(made)), (kind, told))

    def test_what_the_system_refuses_is_told_in_one_line(self):
        for error, told in ((HarnessError("so"), "so"), (OSError(28, "Full", "a\x1b"), r"a\x1b: Full"),
                            (OSError(28, "Full"), "Full"), (OSError("odd"), "OSError")):
            self.assertEqual(display.stopped_text(error), told)


# --- while it runs -------------------------------------------------------------------------------
class Terminal(io.StringIO):
    """Standard error on a terminal."""

    def isatty(self) -> bool:
        return True

    def fileno(self) -> int:
        raise OSError("no terminal of ours")


class Buffered(io.StringIO):
    """Keeps what is written until it is flushed."""

    seen = ""

    def flush(self) -> None:
        self.seen = self.getvalue()


class Closed(io.StringIO):
    """Whoever read it has gone."""

    writes = 0

    def write(self, _: str) -> int:
        self.writes += 1
        raise BrokenPipeError


class Progress(unittest.TestCase):
    def shown(self, stream: io.StringIO, quiet: bool = False, **environment: str) -> str:
        """What a run would write: a live line, an answer, another live line, a failure, the end."""
        progress = display.Progress.on(stream, quiet, environment)
        progress.show(lambda width: f"live {width}")
        progress.say("answer")
        progress.show(lambda width: "again")
        progress.say("failure", bad=True)
        progress.end()
        progress.end()
        return stream.getvalue()

    def test_a_terminal_has_a_live_line_below_the_lines_that_stay(self):
        clear = "\r\x1b[2K"
        self.assertEqual(self.shown(Terminal()), (
            f"{clear}live 80{clear}answer\nlive 80{clear}again{clear}\x1b[31mfailure\x1b[0m\nagain"
            f"{clear}"))

    def test_without_colour_only_the_colour_is_gone(self):
        clear = "\r\x1b[2K"
        self.assertEqual(self.shown(Terminal(), NO_COLOR="1"), (
            f"{clear}live 80{clear}answer\nlive 80{clear}again{clear}failure\nagain{clear}"))
        self.assertIn("\x1b[31m", self.shown(Terminal(), NO_COLOR=""))

    def test_elsewhere_there_is_one_plain_line_a_call_and_no_control_character(self):
        self.assertEqual(self.shown(io.StringIO()), "answer\nfailure\n")
        self.assertEqual(self.shown(Terminal(), TERM="dumb"), "answer\nfailure\n")
        with mock.patch.object(display.os, "name", "nt"):
            self.assertEqual(self.shown(Terminal()), "answer\nfailure\n")

    def test_quiet_is_silent(self):
        self.assertEqual(self.shown(Terminal(), quiet=True), "")
        self.assertEqual(self.shown(io.StringIO(), quiet=True), "")

    def test_the_live_line_is_never_wider_than_the_terminal(self):
        stream = Terminal()
        progress = display.Progress.on(stream, False, {})
        with mock.patch.object(display.os, "get_terminal_size",
                               return_value=os.terminal_size((40, 20))), \
                mock.patch.object(stream, "fileno", lambda: 2):
            progress.show(lambda width: "x" * 200)
        self.assertEqual(stream.getvalue(), "\r\x1b[2K" + "x" * 39)

    def test_a_stream_that_nobody_reads_ends_nothing(self):
        stream = Closed()
        progress = display.Progress(stream, True, True)
        for _ in range(3):
            progress.show(lambda width: "live")
            progress.say("line")
        progress.end()
        self.assertEqual(stream.writes, 1)

    def test_a_lane_that_was_late_to_hear_of_it_goes_on(self):
        progress = display.Progress(Closed(), False, False)
        progress._write("first")
        progress._write("late")

    def test_the_live_line_tells_what_is_under_way_and_how_long_it_will_take(self):
        cells = ["a:b:m:5q:json-invoice", "a:b:m:5q:x"]
        for width, done, ids, spent_us, expected in (
                (100, 12, cells[:1], [], "12/38  5q:json-invoice  83 reads/s"),
                (100, 12, cells[:1], [8e6] * 3,
                 "12/38  5q:json-invoice  83 reads/s  about 3 min left"),
                (100, 38, cells[:1], [8e6] * 3,
                 "38/38  5q:json-invoice  83 reads/s  about 0 s left"),
                (100, 40, [], [8e6] * 3, "40/38    83 reads/s  about 0 s left"),
                (100, 1, cells, [8e6] * 2, "1/38  5q:json-invoice, 5q:x  83 reads/s"),
                (60, 1, cells, [], "1/38  5q:json-invoice, 5q:...  83 reads/s"),
                (100, 1, ["a:b:\x1b"], [], r"1/38  b:\x1b  83 reads/s")):
            self.assertEqual(display.live_line(width, done, 38, ids, 83.4, spent_us), expected)

    def test_a_line_is_there_at_once(self):
        stream = Buffered()
        display.Progress(stream, False, False).say("line")
        self.assertEqual(stream.seen, "line\n")

    def test_a_follower_tells_failures_as_failures(self):
        stream = Terminal()
        display.Follower(display.Progress.on(stream, False, {}), 2).tell([
            call(), call(outcome="timeout", response=None, timing=None, error={
                "message": "x", "status": None})])
        self.assertEqual([line.startswith("\x1b[31m") for line in stream.getvalue().splitlines()],
                         [False, True])

    def test_a_follower_passes_by_what_came_before_it(self):
        stream = io.StringIO()
        follower = display.Follower(display.Progress.on(stream, False, {}), 3)
        follower.pass_by([{"event": "run_started"}])
        self.assertEqual(stream.getvalue(), "")
        follower.pass_by([call(), {"event": "host_sampled"}, call()])
        follower.tell([call()])
        self.assertEqual(stream.getvalue(), "2 of 3 calls before this\n"
                         "3/3  20q  q1  ok, 41 tokens, TTFT 200 ms, 100 tokens/s\n")

    def test_a_follower_tells_calls_as_they_come(self):
        stream = io.StringIO()
        follower = display.Follower(display.Progress.on(stream, False, {}), 2)
        self.assertEqual(follower.text(), "0 of 2 calls")
        follower.tell([{"event": "run_started"}, call()])
        self.assertEqual(follower.text(), "1 of 2 calls")
        follower.tell([call(), call()])
        self.assertEqual(follower.text(), "3 of 3 calls, the server's cache is being probed")
        line = "20q  q1  ok, 41 tokens, TTFT 200 ms, 100 tokens/s\n"
        self.assertEqual(stream.getvalue(), f"1/2  {line}2/2  {line}3/3  {line}")


# --- standard output -----------------------------------------------------------------------------
class Out(unittest.TestCase):
    def test_what_the_terminals_encoding_lacks_is_escaped(self):
        for encoding, expected in (("ascii", rb"\xe9\u4e2d" + b"\n"),
                                   ("latin-1", b"\xe9" + rb"\u4e2d" + b"\n"),
                                   ("utf-8", "\u00e9\u4e2d\n".encode())):
            raw = io.BytesIO()
            with contextlib.redirect_stdout(io.TextIOWrapper(raw, encoding, newline="\n")):
                print_safe("\u00e9\u4e2d")
                self.assertEqual(raw.getvalue(), expected)

    def test_a_closed_pipe_ends_nothing(self):
        program = ("import sys\nfrom core.text import print_safe\nsys.stdin.read()\nprint_safe('x')\nprint_safe('y' * 99999)"
                   "\nprint('went on', file=sys.stderr)")
        process = subprocess.Popen(
            [sys.executable, "-c", program], cwd=runs.HARNESS, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        process.stdout.close()
        process.stdout = None
        self.assertEqual(process.communicate("", runs.LIMIT_S), (None, "went on\n"))
        self.assertEqual(process.returncode, 0)

    def test_one_document_for_programs(self):
        started = {"event": "run_started"}
        interrupted = {"event": "run_interrupted", "exit_code": 143, "reason": "stopped"}
        for events, code, command in (([], 130, "R"), ([started], 130, "R"),
                                      ([started, interrupted], 143, "R")):
            out = io.StringIO()
            with contextlib.redirect_stdout(out):
                told = display.print_end({"run_id": "x"}, events, "f", "R", True)
            self.assertEqual((told, json.loads(out.getvalue())), (code, {
                "run_id": "x", "folder": "f", "exit_code": code, "summary": None,
                "next": command}))

    def test_what_is_told_of_a_run_in_the_background(self):
        self.assertEqual(display.detached_text(True, "x", "l", "N", False),
                         "run x goes on in the background\nlog: l\nnext: N")
        self.assertEqual(display.detached_text(False, "x", "l", "N", False),
                         "run x has not begun yet; its log tells why\nlog: l\nnext: N")
        self.assertEqual(json.loads(display.detached_text(False, "x", "l", "N", True)),
                         {"run_id": "x", "begun": False, "log": "l", "next": "N"})
