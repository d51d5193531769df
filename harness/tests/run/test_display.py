"""What the runner shows: end, plan, probe, messages and the live display."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import os
import shlex
import subprocess
import sys
import unittest
from typing import Any
from unittest import mock

import run_benchmark
from core import metric_definitions, run_summary, suites
from core import plan as plans
from core.errors import HarnessError, StorageError
from core.text import command, print_safe
from engines import queries
from run import cli, display, estimates
from tests import runs
from tests.core.test_metrics import call
from tests.core.test_result_tables import cell, summary

OPTIONS = cli.Options(0.1, 4096, 2048, "there")


# --- after a run ---------------------------------------------------------------------------------
class End(unittest.TestCase):
    maxDiff = None

    def test_text_of_the_end(self):
        text = display.end_text(summary(cell("5q", flags=["few_samples"]),
                                        counts={"ok": 9, "timeout": 1}),
                                "there/run-x", "Calls failed again.", "python3 next.py")
        flag = metric_definitions.FLAGS["few_samples"]
        self.assertEqual(text, f"""
m
phase  calls  decode tok/s  TTFT                 prefill tok/s  checks
5q       5/5  100           84.1 ms [80.2-99.0]  -                 4/5
flags: few_samples (5q)

Medians; in brackets, the exact 95 % confidence interval of the median across prompts.
timing error: median 0.02 ms, p99 0.099 ms at 4 lanes (kernel timestamps)
calls: 9 ok, 1 timeout

few_samples: {flag.text} {flag.remedy}

Calls failed again.

run folder: there/run-x
next: python3 next.py""")

    def test_end_without_flags_has_no_empty_lines_for_them(self):
        self.assertNotIn("\n\n\n", display.end_text(summary(cell("5q")), "f", "", "n"))

    def printed(self, events: list[dict[str, Any]], folder: str = "f", synthetic: bool = False,
                as_json: bool = True) -> tuple[int, Any]:
        """(exit code, JSON document or text) of the end of a run."""
        out = io.StringIO()
        with contextlib.redirect_stdout(out), \
                mock.patch.object(run_summary, "summarize_run", return_value=summary()):
            code = display.print_end(
                {"run_id": "x", "submitter_handle": "ada", "synthetic": synthetic,
                 "smoke": False, "api_key_used": False,
                 "target": {"class": "loopback"}}, events, folder, "RESUME",
                dataclasses.replace(OPTIONS, json=as_json))
        return code, json.loads(out.getvalue()) if as_json else out.getvalue()

    def test_failed_calls_are_retried_once(self):
        complete = "python3 harness/complete_submission.py 'my runs/run-x'"
        probe, retry = "python3 harness/run_benchmark.py --probe", "RESUME --retry-failed"
        for synthetic, outcomes, expected in (
                (False, ["ok"], complete), (False, ["context_limit", "ok"], complete),
                (True, ["ok"], probe), (False, ["ok", "timeout"], retry),
                (True, ["ok", "timeout"], retry), (False, ["skipped"], retry),
                (False, ["skipped again"] * 2, retry), (False, ["again"] * 2, complete),
                (False, ["again", "again", "http_error"], complete)):
            events = [{"event": "call_finished", "seq": at, "cell_id": outcome if "again" in outcome
                       else str(at), "phase": "5q", "outcome": outcome.partition(" ")[0].replace(
                           "again", "http_error")} for at, outcome in enumerate(outcomes)]
            last = {"event": "run_finished", "exit_code": 1, "counts": {}}
            with self.subTest(outcomes):
                self.assertEqual(self.printed([*events, last], "my runs/run-x", synthetic), (1, {
                    "run_id": "x", "folder": "my runs/run-x", "exit_code": 1,
                    "summary": summary(), "next": expected}))

    def test_timeouts_name_the_way_out(self):
        for phase, words in (("parallel_mixed", ("wait for each other", "--timeout 3600",
                                                 "--phases", "--models", "--num-predict")),
                             ("20q", ("the model is slow", "--timeout 3600"))):
            call = {"event": "call_finished", "seq": 0, "cell_id": "a", "phase": phase,
                    "outcome": "timeout"}
            with self.subTest(phase):
                text = display.failure_advice([call]).text
                self.assertEqual([word for word in words if word not in text], [])

    def test_next_command_has_a_relative_path_within_the_current_folder(self):
        here, last = os.getcwd(), {"event": "run_finished", "exit_code": 0, "counts": {"ok": 1}}
        for folder, shown in ((os.path.join(here, "a", "b"), os.path.join("a", "b")),
                              (here + "-other", here + "-other"), ("a", "a")):
            _, document = self.printed([last], folder)
            self.assertEqual((document["folder"], document["next"]),
                             (folder, command("complete_submission", shown)))

    def test_runs_that_ended_early_can_be_resumed(self):
        def interrupted(code: int) -> dict[str, Any]:
            return {"event": "run_interrupted", "exit_code": code, "reason": "gone\x1b"}

        for events, code, following, words in (
                ([], 130, "RESUME", "killed"),
                ([{"event": "run_started"}], 130, "RESUME", "killed"),
                ([interrupted(143)], 143, "RESUME", r"interrupted: gone\x1b"),
                ([interrupted(3)], 3, "RESUME --retry-failed", "interrupted")):
            self.assertEqual(self.printed(events), (code, {
                "run_id": "x", "folder": "f", "exit_code": code, "summary": None,
                "next": following}))
            _, text = self.printed(events, as_json=False)
            self.assertIn(words, text)
            self.assertTrue(text.endswith(f"\nnext: {following}\n"))

    def test_errors_are_printable(self):
        for error, text in ((HarnessError("so"), "so"),
                            (OSError(28, "Full", "a\x1b"), r"a\x1b: Full"),
                            (OSError(28, "Full"), "Full"), (OSError("odd"), "OSError")):
            self.assertEqual(display.error_text(error), text)


# --- before a run --------------------------------------------------------------------------------
def manifest(*models: str, names: tuple[str, ...] = ("5q",)) -> dict[str, Any]:
    """Enough of one for a plan: hello and the named phases."""
    return {"models": list(models), "cell_id_prefix": "x:y", "timeout_s": 30.0,
            "submitter_handle": "ada", "synthetic": False, "plan": {
        "repeats": 1, "lanes": 4, "phases": [
            {"phase": name, "suite_file": None, "lanes": lanes, "max_tokens": cap,
             "question_ids": [f"q{i}" for i in range(count)]}
            for name, lanes, cap, count in (("hello", 1, 32, 1), ("5q", 1, 2048, 5),
                                            ("parallel_same", 4, 2048, 20),
                                            ("parallel_mixed", 4, 2048, 20))
            if name == "hello" or name in names]}}


class Plan(unittest.TestCase):
    def test_plan_has_a_line_per_phase_and_an_estimate(self):
        plan = manifest("m", "n\x1b", names=("5q", "parallel_same", "parallel_mixed"))
        with mock.patch.dict(os.environ, COLUMNS="200"):
            lines = display.plan_text(
                plan, 72, estimates.Estimate(6000.0, 1200.0, 900.0), ["note"],
                dataclasses.replace(OPTIONS, plan=True, phases="all", device_tag="pi5-8gb",
                                    given=frozenset(("plan", "phases", "device_tag")))).splitlines()
        self.assertEqual(lines[0], r"models: m, n\x1b")
        self.assertEqual([line.split()[:4] for line in lines[2:6]], [
            ["hello", "1", "1", "32"], ["5q", "5", "1", "2048"],
            ["parallel_same", "20", "4", "2048"], ["parallel_mixed", "20", "4", "2048"]])
        self.assertTrue(lines[3].endswith(suites.PHASES["5q"].text))
        self.assertIn("72 calls", lines[6])
        self.assertRegex(lines[7], "20 min, at most 1 h 40 min")
        self.assertRegex(lines[8], "may take 15 min.*--timeout 3600")
        self.assertEqual([lines[9], lines[-1]], [
            "note", "next: python3 harness/run_benchmark.py --phases all --timeout 3600 "
            "--device-tag pi5-8gb --detach"])

    def test_plan_without_a_handle_says_that_it_is_a_trial(self):
        for handle, expected in (("ada", 0), ("unnamed", 1)):
            text = display.plan_text({**manifest("m"), "submitter_handle": handle}, 6, None, [],
                                     OPTIONS)
            self.assertEqual(text.count(display.TRIAL), expected)

    def test_phase_that_cannot_run_shows_why(self):
        lines = display.plan_text(manifest("m", names=("parallel_mixed",)), 1, None, [],
                                  OPTIONS).splitlines()
        self.assertRegex(lines[3], "^parallel_mixed +0 .* parallel_mixed needs two models or more")
        self.assertIn("No estimate", lines[5])


class Probes(unittest.TestCase):
    maxDiff = None

    def found(self, **changes: Any) -> dict[str, Any]:
        facts = {"quantization": "Q4_K_M", "family": "qwen2", "trained_context_tokens": 32768}
        return {"url": "http://127.0.0.1:8080", "slots": {},
                "engine": {"name": "llama.cpp", "version": "b1\x1b"}, "models": [
                    self.model("m", facts=facts, context={"effective_tokens": 8192,
                                                          "remedy": None}),
                    self.model("e\x1b", chat=False, context={
                        "effective_tokens": None, "remedy": "Start it with -c 4096."})],
                **changes}

    def model(self, name: str, **changes: Any) -> dict[str, Any]:
        facts = dict.fromkeys(("quantization", "family", "trained_context_tokens"))
        return {"id": name, "chat": True, "facts": facts, "remote": None, "state": None,
                "same_as": None, "size_bytes": None, "chat_template": None,
                "context": {"effective_tokens": None, "remedy": None}, **changes}

    def text(self, found: Any, hello: Any, *words: str) -> str:
        options = cli.parse_options(run_benchmark.build_parser(), ["--probe", *words],
                                    run_benchmark.defaults())
        return "\n".join([display.served_text(found, options),
                          display.hello_text(found, hello, options)])

    def test_text_of_a_probe(self):
        self.assertEqual(self.text([self.found()], call(model="m")), """\
http://127.0.0.1:8080: llama.cpp b1\\x1b
  m  (Q4_K_M, qwen2, context 8192 tokens, trained for 32768)
  e\\x1b  (not a chat model)
    Start it with -c 4096.
1/1  20q             q1                     ok   41 tokens  TTFT  200 ms   100 tok/s
next: python3 harness/run_benchmark.py --target-url http://127.0.0.1:8080 --models m --phases all \
--plan""")

    def test_next_command_repeats_the_options(self):
        last = self.text([self.found()], call(model="m"), "--api-key-env", "KEY", "--phases",
                         "5q", "--json").splitlines()[-1]
        self.assertEqual(last, "next: python3 harness/run_benchmark.py --target-url "
                         "http://127.0.0.1:8080 --models m --phases 5q --api-key-env KEY --plan")

    def test_failed_hello_gives_no_next_command(self):
        text = self.text([self.found()], call(model="m", outcome="http_error"))
        self.assertNotIn("next:", text)

    def test_models_that_are_not_loaded_are_offered_smallest_first(self):
        models = [self.model("big", state="not loaded", size_bytes=40_000_000_000),
                  self.model("cloud", state="not loaded", remote="remote_host https://x"),
                  self.model("twin", state="not loaded", same_as="big"),
                  self.model("small", state="not loaded", size_bytes=400_000_000)]
        lines = self.text([self.found(models=models, slots={"count": 4})], None).splitlines()
        self.assertEqual(lines[0], r"http://127.0.0.1:8080: llama.cpp b1\x1b, 4 slots")
        self.assertIn("  cloud  (not loaded, computed elsewhere: remote_host https://x; it cannot "
                      "be submitted)", lines)
        self.assertIn("  twin  (not loaded, the same weights as big)", lines)
        self.assertEqual([line.split()[0] for line in lines[6::2]], ["small", "big"])
        self.assertIn(" --models small ", lines[7])

    def test_fewer_slots_than_lanes(self):
        text = self.text([self.found(slots={"count": 1})], None)
        self.assertIn(", 1 slot\n  parallel requests wait for each other. Start llama-server with "
                      "`-c 16384 -np 4`", text)
        self.assertNotIn("wait for each other", self.text([self.found(slots={"count": 4})], None))

    def test_answer_of_another_model_is_named(self):
        hello = call(model="m", flags=["model_mismatch"], response__model="mixtral")
        self.assertIn("  asked of m, answered by mixtral: ",
                      self.text([self.found()], hello).splitlines()[-2])

    def test_letters_of_other_scripts_stay(self):
        text = self.text([self.found(models=[self.model("\u901a\u4e49-7b\u202e")])], None)
        self.assertIn("  \u901a\u4e49-7b\\u202e", text)

    def test_server_without_a_list_is_named(self):
        text = self.text([self.found(models=[], engine={"name": "unknown", "version": None})],
                         call())
        self.assertTrue(text.startswith("http://127.0.0.1:8080: unknown\n"))
        self.assertIn("--models", text)

    def test_several_endpoints_end_with_a_choice(self):
        lines = self.text([self.found(), self.found()], None).splitlines()
        self.assertEqual(sum(line.startswith("http://127.0.0.1:8080: ") for line in lines), 2)
        self.assertEqual(lines[-1], "  python3 harness/run_benchmark.py --target-url "
                         "http://127.0.0.1:8080 --probe")

    def test_no_endpoint_shows_how_to_start_one(self):
        text = display.no_endpoint("http://h\x1b", OPTIONS,
                                   ("connect_failed", "no connection: x"), [])
        self.assertTrue(text.startswith(r"no endpoint at http://h\x1b (no connection: x)" + "\n"))
        self.assertIn(queries.start_hint(), text)
        self.assertTrue(text.endswith("python3 harness/run_benchmark.py --rehearse"))

    def test_no_endpoint_without_a_url_names_the_tried_ports(self):
        first = display.no_endpoint(None, OPTIONS, None, []).splitlines()[0]
        self.assertIn("no model server found on this machine", first)
        self.assertEqual([port for port in queries.USUAL_PORTS if str(port) not in first], [])

    def test_no_endpoint_prints_commands_for_other_servers_on_this_machine(self):
        options = dataclasses.replace(OPTIONS, phases="all", timeout=9.5, smoke=True,
                                      given=frozenset(("phases", "timeout", "smoke")))
        lines = display.no_endpoint("http://h", options, None, [self.found()]).splitlines()
        self.assertEqual(lines[0], "no endpoint at http://h (no answer)")
        self.assertEqual(lines[2], "  http://127.0.0.1:8080  llama.cpp")
        self.assertRegex(lines[3], "^    python3 harness/run_benchmark.py --target-url "
                         "http://127.0.0.1:8080 --models .* --phases all --timeout 9.5 --smoke$")
        words = shlex.split(lines[3])[2:]
        self.assertEqual(cli.parse_options(run_benchmark.build_parser(), words,
                                           run_benchmark.defaults()).smoke, True)

    def test_folder_that_cannot_be_written(self):
        inside = os.path.join(display.CLONE, "submissions", "a\x1b")
        for folder, error, kind, words in (
                ("/a\x1b", FileExistsError(17, "Exists"), HarnessError, "--out-dir: "),
                ("/a\x1b", PermissionError(13, "Denied"), StorageError, "another folder"),
                (inside, PermissionError(13, "Denied"), StorageError, "cp -R "),
                (inside, OSError(30, "Read-only"), StorageError, "cp -R "),
                ("/a\x1b", OSError(28, "Full"), StorageError, "free some space")):
            made = display.unwritable(folder, error)
            self.assertIs(type(made), kind)
            self.assertIn(words, str(made))
            self.assertIn(rf"a\x1b cannot be written ({error.strerror})", str(made))

    def test_probe_and_plan_name_a_folder_that_cannot_be_written(self):
        options = dataclasses.replace(OPTIONS, out_dir=os.path.join(display.CLONE, "x", "y"))
        for writable, count in ((True, 0), (False, 1)):
            with mock.patch.object(os, "access", return_value=writable):
                self.assertEqual(len(display.write_note(options)), count)


class Counts(unittest.TestCase):
    PLANNED = plans.all_cells(manifest("m", names=("5q",)))

    def counted(self, *outcomes: Any, retries: Any = None, before: Any = None) -> list[str]:
        """`made/total` after each line: an outcome of the next cell, or "resumed"."""
        count, shown, at = display.Count(self.PLANNED, retries, before or {}), [], 0
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


# --- while it runs -------------------------------------------------------------------------------
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
        with mock.patch.object(display.os, "name", "nt"):
            self.assertEqual(self.shown(Terminal()), "answer\nfailure\n")

    def test_quiet_shows_nothing(self):
        self.assertEqual(self.shown(Terminal(), quiet=True), "")
        self.assertEqual(self.shown(io.StringIO(), quiet=True), "")

    def test_live_line_is_narrower_than_the_terminal(self):
        stream = Terminal()
        progress = display.Progress.on(stream, False, {})
        with mock.patch.object(display.os, "get_terminal_size",
                               return_value=os.terminal_size((40, 20))), \
                mock.patch.object(stream, "fileno", lambda: 2):
            progress.show(lambda width: "x" * 200)
        self.assertEqual(stream.getvalue(), "\r\x1b[2K" + "x" * 39)

    def test_closed_stream_is_written_once(self):
        stream = Closed()
        progress = display.Progress(stream, True, True)
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
            self.assertEqual(display.live_line(width, done, 38, ids, 83.4, spent_us), expected)

    def test_terminal_shows_phases_and_failed_calls_and_a_log_every_call(self):
        failed = call(outcome="timeout", error={"kind": "timeout", "message": "late",
                                                "status": None, "body_start": None})
        for stream, live, expected in ((io.StringIO(), False, ["q1", "q1"]),
                                       (Terminal(), True, ["timeout", "m", "1 ok, 1 failed"])):
            progress = display.Progress(stream, live, False)
            for number, one in enumerate((call(), failed), 1):
                progress.call_ended(one, number, 2)
            progress.phase_ended({"model": "m", "phase": "20q", "wall_us": 4_000_000})
            lines = stream.getvalue().splitlines()
            self.assertEqual([word in line for word, line in zip(expected, lines)],
                             [True] * len(lines))
            self.assertEqual(len(lines), len(expected))

    def test_lines_are_flushed(self):
        stream = Buffered()
        display.Progress(stream, False, False).say("line")
        self.assertEqual(stream.seen, "line\n")


# --- standard output -----------------------------------------------------------------------------
class StandardOutput(unittest.TestCase):
    def test_characters_outside_the_encoding_are_escaped(self):
        for encoding, expected in (("ascii", rb"\xe9\u4e2d" + b"\n"),
                                   ("latin-1", b"\xe9" + rb"\u4e2d" + b"\n"),
                                   ("utf-8", "\u00e9\u4e2d\n".encode())):
            raw = io.BytesIO()
            with contextlib.redirect_stdout(io.TextIOWrapper(raw, encoding, newline="\n")):
                print_safe("\u00e9\u4e2d")
                self.assertEqual(raw.getvalue(), expected)

    def test_closed_pipe_ends_nothing(self):
        program = ("import sys\nfrom core.text import print_safe\nsys.stdin.read()\n"
                   "print_safe('x')\nprint_safe('y' * 99999)\nprint('went on', file=sys.stderr)")
        process = subprocess.Popen(
            [sys.executable, "-c", program], cwd=runs.HARNESS, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        process.stdout.close()
        process.stdout = None
        self.assertEqual(process.communicate("", runs.LIMIT_S), (None, "went on\n"))
        self.assertEqual(process.returncode, 0)


if __name__ == "__main__":
    unittest.main()
