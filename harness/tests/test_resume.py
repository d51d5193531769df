"""Test that interrupted runs resume with their own options and lose no finished call."""

from __future__ import annotations

import base64
import contextlib
import errno
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import tempfile
import time
import unittest
import warnings
from pathlib import Path
from typing import Any, Iterator, Optional
from unittest import mock

import run_benchmark
from core import files, ledger, release, throughput
from core.text import printable
from engines import answers, queries
from run import ledger_writer, wait_and_stop
from run import manifest as manifests
from run.progress import Progress
from tests import kill_and_resume, random_resumes, runs
from tests.scripted_endpoint import ANSWER, HANG, ScriptedEndpoint, response
from tests.scripted_runs import QUICK

RUN_ID = "11111111-2222-4333-8444-555555555555"
BUSY_S = 30.0                 # for another process to get somewhere, on a busy machine
TOLD = mock.patch.object(answers, "PROBE_PATHS", ("/v1/models", "/version"))     # for speed
# A file of the harness that is saved while its tests run must not break them.
UNCHANGED = mock.patch.object(release, "current_hashes", release.current_hashes().copy)
FAILS = (response(b'{"error": {"message": "no memory left"}}', "500 Failed"),)


def setUpModule() -> None:
    global ENDPOINT
    ENDPOINT = runs.Endpoint()


def tearDownModule() -> None:
    ENDPOINT.close()


class Runs(unittest.TestCase):
    """What the tests here share: an endpoint, a folder, and a run's way through them."""

    maxDiff = None
    flags: tuple[str, ...] = ("--smoke",)

    def setUp(self) -> None:
        self.out_dir = self.enter(tempfile.TemporaryDirectory())
        # --wait and --detach keep files there between two commands.
        temporary = self.enter(tempfile.TemporaryDirectory())
        self.enter(mock.patch.object(tempfile, "tempdir", temporary))
        for patch in (*QUICK, TOLD, UNCHANGED):
            self.enter(patch)

    def enter(self, context: Any) -> Any:
        """Until the test ends."""
        made = context.__enter__()
        self.addCleanup(context.__exit__, None, None, None)
        return made

    def run_it(self, *words: str, url: Optional[str] = None, **options: Any) -> runs.Outcome:
        """The run, begun or resumed."""
        return runs.run("--target-url", url or ENDPOINT.url, "--out-dir", self.out_dir, "--run-id",
                        RUN_ID, "--no-calibration", "--quiet", *words, **options)

    def finished(self, *words: str, **options: Any) -> runs.Outcome:
        """The run from its begin to its end."""
        outcome = self.run_it(*(words or self.flags), **options)
        self.assertIn(outcome.code, (0, 1), outcome.err)
        return outcome

    @property
    def folder(self) -> str:
        return runs.folder_of(self.out_dir, RUN_ID)

    @property
    def ledger(self) -> Path:
        return Path(self.folder, ledger.LEDGER)

    @property
    def manifest(self) -> Path:
        return Path(self.folder, ledger.MANIFEST)

    @property
    def events(self) -> list[dict[str, Any]]:
        return runs.events_of(self.folder)

    def cut(self, lines: int, torn: bytes = b"") -> None:
        """Take the last lines away, as if the run had been killed before them."""
        kept = self.ledger.read_bytes().splitlines(keepends=True)[:-lines]
        self.ledger.write_bytes(b"".join(kept) + torn)

    def everything(self) -> dict[str, bytes]:
        """All files below the folder for runs."""
        return {str(path.relative_to(self.out_dir)): path.read_bytes()
                for path in sorted(Path(self.out_dir).rglob("*")) if path.is_file()}

    def assert_refused(self, outcome: runs.Outcome, code: int, message: str) -> None:
        """One line that says it all, nothing on standard output."""
        self.assertEqual((outcome.code, outcome.out), (code, ""), outcome.err)
        self.assertRegex(outcome.err, rf"\Arun_benchmark: {message}\n\Z")

    @contextlib.contextmanager
    def nothing_written(self) -> Iterator[None]:
        before = self.everything()
        yield
        self.assertEqual(self.everything(), before)


# --- nothing is lost -----------------------------------------------------------------------------
class NothingIsLost(unittest.TestCase):
    """A few kills of kill_and_resume.py and random_resumes.py; .ci/run makes many."""

    def test_repeatedly_killed_run_loses_nothing(self):
        met, findings = kill_and_resume.kill_runs(2, 7, *runs.QUICK, "--phases", "5q")
        self.assertEqual((len(met), findings), (2, []))

    def test_ledger_cut_anywhere_resumes_to_the_same_cells(self):
        cuts, findings = kill_and_resume.cut_ledger(211, "--smoke")
        self.assertGreater(cuts, 3)
        self.assertEqual(findings, [])

    def test_runs_of_several_models_resumed_at_random_points_pass_the_check(self):
        self.assertEqual(random_resumes.resume_at_random(2, 7), [])


class TornLines(Runs):
    """What a crash leaves behind the last whole line is told once, at whatever moment it comes."""

    def told(self) -> list[bytes]:
        return [base64.b64decode(event["torn_base64"] or "") for event in self.events
                if event["event"] == "run_resumed"]

    def resumed(self, *torn: bytes) -> None:
        self.assertEqual(self.run_it().code, 0)
        self.assertEqual(self.told(), list(torn))
        self.assertEqual(os.listdir(self.folder).count(ledger.LEDGER + ".torn"), 0)

    def lay_beside(self, torn: bytes) -> None:
        Path(str(self.ledger) + ".torn").write_bytes(torn)

    def test_torn_line_is_recorded(self):
        self.finished()
        self.cut(2, b'{"event":"phase_fin')
        self.resumed(b'{"event":"phase_fin')

    def test_crash_before_the_torn_line_was_removed(self):
        self.finished()
        self.cut(2, b'{"event":"phase_fin')
        self.lay_beside(b'{"event":"phase_fin')
        self.resumed(b'{"event":"phase_fin')

    def test_crash_before_the_torn_line_was_recorded(self):
        self.finished()
        self.cut(2)
        self.lay_beside(b'{"event":"phase_fin')
        self.resumed(b'{"event":"phase_fin')

    def test_crash_while_the_torn_line_was_recorded(self):
        self.finished()
        self.cut(2, b'{"event":"run_resumed","seq')
        self.lay_beside(b'{"event":"phase_fin')
        self.resumed(b'{"event":"phase_fin{"event":"run_resumed","seq')

    def test_two_crashes_before_the_torn_line_was_recorded(self):
        self.finished()
        self.cut(2, b'{"event":"run_resumed","seq')
        self.lay_beside(b'{"event":"phase_fin')
        with mock.patch.object(run_benchmark, "begin_segment", side_effect=OSError(5, "Crash")):
            self.assertEqual(self.run_it().code, 4)
        self.assertEqual(ledger.read_ledger(str(self.ledger)).torn, b"")
        self.resumed(b'{"event":"phase_fin{"event":"run_resumed","seq')

    def test_crash_after_the_torn_line_was_recorded(self):
        self.finished()
        self.cut(2, b'{"event":"phase_fin')
        self.run_it()
        while self.events[-1]["event"] != "run_resumed":
            self.cut(1)
        self.lay_beside(b'{"event":"phase_fin')
        self.resumed(b'{"event":"phase_fin', b"")

    def test_torn_line_after_the_last_line(self):
        self.finished()
        with open(self.ledger, "ab") as file:
            file.write(b'{"event":"run_res')
        self.resumed(b'{"event":"run_res')
        self.assertEqual(runs.names(self.events)[-3:],
                         ["run_resumed", "endpoint_identified", "run_finished"])

    def test_torn_first_line(self):
        self.finished()
        self.ledger.write_bytes(b'{"ev')
        self.resumed(b'{"ev')
        self.assertEqual([(e["event"], e["seq"], e["segment"]) for e in self.events[:2]],
                         [("run_started", 0, 0), ("run_resumed", 1, 1)])

    def test_line_without_its_newline_is_whole(self):
        self.finished()
        self.cut(1)
        whole = self.ledger.read_bytes()
        self.ledger.write_bytes(whole[:-1])
        self.resumed(b"")
        self.assertTrue(self.ledger.read_bytes().startswith(whole))
        self.assertEqual([e["newline_added"] for e in self.events if e["event"] == "run_resumed"],
                         [True])


# --- as it began ---------------------------------------------------------------------------------
ANOTHER = {           # of manifests.MUST_AGREE: what is typed or changed, and how it is refused
    "submitter_handle": (("--submitter-handle", "bob"), '"unnamed", now it is "bob"'),
    "device_tag": (("--device-tag", "desk-8gb"), '"unnamed-device", now it is "desk-8gb"'),
    "cell_id_prefix": (("--cell-id-prefix", "x:y"), '"local:reference-endpoint", now it is "x:y"'),
    "smoke": (("--smoke",), "false, now it is true"),
    "plan": (("--repeats", "2"), "1, now it is 2"),
    "canonical_options_overrides": (("--temperature", "0"), "null, now it is 0.0"),
    "prompt_cache": (("--prompt-cache", "allow"), '"avoid", now it is "allow"'),
    "timeout_s": (("--timeout", "5"), "360.0, now it is 5.0"),
    "host_hostname_short": (("--no-hostname",), '".*", now it is null'),
    "harness_version": (mock.patch.object(run_benchmark, "HARNESS_VERSION", "public-2"),
                        '"public-1", now it is "public-2"'),
    "files_sha256": (mock.patch.object(release, "current_hashes", lambda: {"harness/a.py": "0"}),
                     r'"[0-9a-f]+\.\.\., now it is null'),
    "engine": (mock.patch.object(queries, "identify",
                                 lambda _: {"name": "Ollama", "version": "1", "build": None,
                                            "recognised_by": None}),
               '"reference-endpoint", now it is "Ollama"'),
}


class AsItBegan(Runs):
    flags = ("--phases", "hello", "--num-predict", "4")

    def test_resume_refuses_changed_options_by_name(self):
        self.finished()
        for name, (change, told) in ANOTHER.items():
            with self.subTest(name), contextlib.ExitStack() as stack, self.nothing_written():
                words = change if isinstance(change, tuple) else ()
                if not words:
                    stack.enter_context(change)
                self.assert_refused(
                    self.run_it(*words), 2,
                    rf"run {RUN_ID} cannot be resumed like this: {name}[\w./]* was "
                    rf"{told}( \(.*\))?\. "
                    "Resume it with its own options and files, or leave out --run-id "
                    "for a new run")

    def test_resume_refuses_another_endpoint(self):
        self.finished()
        with runs.Endpoint() as other, self.nothing_written():
            self.assert_refused(self.run_it(url=other.url), 2,
                                f".*: target.port was {ENDPOINT.port}, now it is {other.port}.*")

    def test_resume_refuses_other_models(self):
        with runs.Endpoint("--models", "a:5000,b:5000") as two:
            self.finished(*self.flags, "--models", "a", url=two.url)
            with self.nothing_written():
                self.assert_refused(self.run_it("--models", "b", url=two.url), 2,
                                    r'.*: models\[0\] was "a", now it is "b"\. .*')

    def test_rehearsals_and_runs_do_not_resume_each_other(self):
        with runs.Endpoint("--models", "reference-swift:5000") as other:
            self.finished(*self.flags, "--models", "reference-swift", url=other.url)
        with self.nothing_written():
            self.assert_refused(
                runs.run("--rehearse", "--out-dir", self.out_dir, "--run-id", RUN_ID, "--quiet"),
                2, r".*: synthetic was false, now it is true \(synthetic, target differ\)\. .*")

    def test_every_fixed_field_is_tested_here(self):
        self.assertEqual({*ANOTHER, "target", "models", "synthetic"},
                         {*manifests.MUST_AGREE, "engine"})

    def test_several_differences_are_named(self):
        self.finished()
        self.assert_refused(self.run_it("--repeats", "2", "--timeout", "5"), 2,
                            r".*: plan.repeats was 1, now it is 2 \(plan, timeout_s differ\)\. .*")

    def test_resume_refuses_a_changed_suite(self):
        with tempfile.TemporaryDirectory() as folder:
            harness = Path(folder, "harness")
            shutil.copytree(runs.HARNESS, harness, ignore=shutil.ignore_patterns("tests"))
            words = ("--target-url", ENDPOINT.url, "--out-dir", self.out_dir, "--run-id", RUN_ID,
                     "--smoke", "--quiet")
            begun = runs.ended(runs.start(*words, harness=harness))
            self.assertEqual((begun.code, begun.err), (0, ""))
            suite = harness / "suites" / "small_model_eval_questions.json"
            suite.write_bytes(suite.read_bytes().replace(b"a", b"o", 1))
            with self.nothing_written():
                self.assert_refused(runs.ended(runs.start(*words, harness=harness)), 2,
                                    r".*: files_sha256.harness/suites/small_model_eval_questions"
                                    r'\.json was "[0-9a-f]+\.\.\., now it is "[0-9a-f]+\.\.\.\. .*')

    def test_resume_inherits_options(self):
        words = ("--models", runs.MODEL, "--phases", "frozen,parallel_same", "--repeats", "2",
                 "--lanes", "2", "--num-predict", "3", "--timeout", "7", "--temperature", "0.5",
                 "--prompt-cache", "allow", "--submitter-handle", "bob", "--device-tag",
                 "desk-8gb", "--cell-id-prefix", "x:y", "--no-hostname")
        code = self.finished(*words).code
        manifest, cells = self.manifest.read_bytes(), self.cells()
        self.cut(6)
        self.assertNotEqual(self.cells(), cells)
        outcome = runs.run("--run-id", RUN_ID, "--out-dir", self.out_dir, "--no-calibration")
        self.assertEqual((outcome.code, self.cells()), (code, cells), outcome.err)
        self.assertEqual(self.manifest.read_bytes(), manifest)

    def test_server_that_listens_on_ipv6_only_is_found_again(self):
        try:
            endpoint = ScriptedEndpoint((response(b"", "500 No"),), host="::1")
        except OSError:
            self.skipTest("this machine has no ::1")
        with endpoint:
            first = self.run_it("--smoke", url=endpoint.url)
            again = runs.run("--run-id", RUN_ID, "--out-dir", self.out_dir, "--retry-failed")
        self.assertEqual((first.code, again.code), (1, 0), again.err)

    def cells(self) -> list[tuple[str, str]]:
        planned, state = ledger.load_run(self.folder)
        return kill_and_resume.cell_outcomes(planned, state.events)

    def test_each_resume_is_a_segment_with_its_own_clock_and_hello(self):
        self.finished("--phases", "5q", "--num-predict", "4")
        for _ in "123":
            self.cut(3)
            self.assertEqual(self.run_it().code, 0)
        starts = [e for e in self.events if e["event"] in ("run_started", "run_resumed")]
        self.assertEqual([e["segment"] for e in starts], [0, 1, 2, 3])
        self.assertLess(max(e["t_us"] for e in starts), 10_000_000)
        self.assertEqual([(e["repeat"], e["segment"], e["cold"]) for e in self.events
                          if e["event"] == "call_finished" and e["phase"] == "hello"],
                         [(n, n, True) for n in range(4)])

    def test_rehearsal_resumes_with_a_new_endpoint(self):
        words = ("--rehearse", "--quiet", "--no-calibration", "--out-dir", self.out_dir,
                 "--run-id", RUN_ID)
        begun = runs.run(*words, "--phases", "hello", "--num-predict", "4")
        self.assertEqual((begun.code, begun.err), (0, ""))
        self.cut(4)
        resumed = runs.run(*words)
        self.assertEqual((resumed.code, resumed.err), (0, ""))
        self.assertEqual(self.events[-1]["counts"], {"ok": 3})     # one model twice: its hello

    def test_first_hello_of_a_model_is_the_planned_one(self):
        with runs.Endpoint("--models", "a:5000,b:5000") as two:
            self.finished(*self.flags, "--models", "auto", url=two.url)
            while self.events[-1]["event"] != "call_finished" or self.events[-1]["model"] != "a":
                self.cut(1)
            self.assertEqual(self.run_it(url=two.url).code, 0)
        hellos = [(e["model"], e["repeat"], e["segment"]) for e in self.events
                  if e["event"] == "call_finished"]
        self.assertEqual(hellos, [("a", 0, 0), ("a", 1, 1), ("b", 0, 1)])


class AskedAgain(Runs):
    """A finished run, and one with failed calls."""

    def failing(self) -> ScriptedEndpoint:
        """Fails the first two of the five questions."""
        return self.enter(ScriptedEndpoint(ANSWER, FAILS, FAILS))

    def test_resume_of_a_finished_run_writes_nothing(self):
        first = self.finished()
        with self.nothing_written():
            self.assertEqual(self.run_it(), first)

    def test_resume_of_a_finished_run_with_failed_calls_writes_nothing(self):
        endpoint = self.failing()
        first = self.finished("--phases", "5q", url=endpoint.url)
        self.assertEqual(first.code, 1)
        asked = len(endpoint.chats)
        with self.nothing_written():
            self.assertEqual(self.run_it(url=endpoint.url), first)
        self.assertEqual(len(endpoint.chats), asked)

    def test_retry_repeats_failed_calls_and_the_last_counts(self):
        endpoint = self.failing()
        first = self.finished("--phases", "5q", url=endpoint.url)
        command = first.out.splitlines()[-1]
        self.assertRegex(command, r"^next: python3 harness/run_benchmark\.py .*--retry-failed$")
        asked = len(endpoint.chats)
        again = runs.run(*shlex.split(command)[3:], "--quiet")
        self.assertEqual((again.code, again.err), (0, ""))
        self.assertEqual(len(endpoint.chats) - asked, 1 + 2)        # a hello, and what had failed
        latest = ledger.latest_calls(self.events)
        self.assertEqual([(call["outcome"], call["segment"]) for call in latest],
                         [("ok", 0)] * 4 + [("ok", 1)] * 3)
        self.assertEqual(self.events[-1]["counts"], {"ok": 7})

    def test_retry_of_too_long_prompts_fails_again(self):
        with runs.Endpoint("--models", "swift:5000", "--context", "300") as small:
            self.finished("--phases", "edge_append,edge_suite", "--num-predict", "4",
                          url=small.url)
            before = self.events[-1]["counts"]
            again = self.run_it("--retry-failed", url=small.url)
        self.assertEqual((again.code, self.events[-1]["counts"]),
                         (1, {**before, "ok": before["ok"] + 1}))       # and one hello more

    def test_call_that_fails_again_counts_as_failed(self):
        endpoint = self.failing()
        self.finished("--phases", "5q", url=endpoint.url)
        endpoint.script_next(ANSWER, FAILS)
        self.assertEqual(self.run_it("--retry-failed", url=endpoint.url).code, 1)
        self.assertEqual(self.events[-1]["counts"], {"http_error": 1, "ok": 6})

    def test_failed_hello_of_a_resume_ends_it_and_decides_nothing_later(self):
        endpoint = self.failing()
        self.finished("--phases", "5q", url=endpoint.url)
        endpoint.script_next(FAILS)
        self.assertEqual(self.run_it("--retry-failed", url=endpoint.url).code, 3)
        self.assertEqual(self.run_it("--retry-failed", url=endpoint.url).code, 0)
        self.assertEqual(self.events[-1]["counts"], {"http_error": 1, "ok": 7})

    def test_resumed_conversation_stays_within_the_context(self):
        with runs.Endpoint("--models", "swift:5000", "--context", "300") as small:
            self.finished("--phases", "edge_append", "--num-predict", "4", url=small.url)
            calls = [e for e in self.events if e["event"] == "call_finished"]
            edge = next(e for e in calls if e["outcome"] == "context_limit")
            while self.events[-1]["seq"] > edge["seq"]:
                self.cut(1)
            self.assertEqual(self.run_it(url=small.url).code, 1)
        again = [e for e in self.events if e["event"] == "call_finished"
                 and e["phase"] == "edge_append"]
        self.assertEqual([(e["cell_id"], e["outcome"], e["error"]) for e in again],
                         [(e["cell_id"], e["outcome"], e["error"]) for e in calls[1:]])
        self.assertEqual({e["timing"] for e in again if e["seq"] > edge["seq"]}, {None})


# --- one process at a time -----------------------------------------------------------------------
class OneProcess(Runs):
    def begin(self, endpoint: ScriptedEndpoint, *words: str) -> subprocess.Popen[str]:
        """A child in the middle of a call."""
        process = runs.start("--target-url", endpoint.url, "--out-dir", self.out_dir, "--run-id",
                             RUN_ID, "--no-calibration", "--quiet", "--phases", "5q", *words)
        self.addCleanup(process.communicate)
        self.addCleanup(process.kill)
        wait_until(lambda: len(endpoint.chats) > 1)
        return process

    def test_active_run_is_refused_until_its_process_ends(self):
        endpoint = self.enter(ScriptedEndpoint(ANSWER, (HANG,)))
        process = self.begin(endpoint)
        with mock.patch.object(ledger_writer, "LOCK_PATIENCE_S", 0.01), self.nothing_written():
            refused = self.run_it(url=endpoint.url)
        self.assert_refused(refused, 2, f"run {RUN_ID} is being written by another process; to "
                            "follow it: python3 harness/run_benchmark.py --wait 100 "
                            + re.escape(shlex.quote(self.folder)))
        running = runs.run("--quiet", "--wait", "0", self.folder)
        self.assertEqual((running.code, running.err), (5, ""))
        process.kill()
        self.assertEqual(process.wait(), -signal.SIGKILL if os.name == "posix" else 1)
        self.assertEqual(self.run_it(url=endpoint.url).code, 0)

    def test_testing_the_lock_does_not_hold_it(self):
        self.finished()
        self.cut(1)
        held = files.open_to_append(str(self.ledger))
        self.assertTrue(files.lock(held))
        looks = iter([None, None])

        def sleep(_: float) -> None:
            if next(looks, "last") == "last":
                os.close(held)

        with mock.patch.object(run_benchmark.time, "sleep", sleep):
            self.assertEqual(self.run_it().code, 0)

    @runs.posix_only
    def test_signal_ends_the_run_with_the_resume_command(self):
        endpoint = self.enter(ScriptedEndpoint(ANSWER, (HANG,)))
        process = self.begin(endpoint)
        process.terminate()
        ended = runs.ended(process)
        self.assertEqual((ended.code, ended.out), (143, ""))
        self.assertRegex(ended.err, r"\Arun_benchmark: stopped by SIGTERM\nnext: python3 .*\n\Z")


def wait_until(holds: Any) -> None:
    """Until something is true that another process does."""
    until_s = time.monotonic() + BUSY_S
    while not holds():
        assert time.monotonic() < until_s, "nothing came of it"
        time.sleep(0.005)


@runs.posix_only
class Interrupted(Runs):
    """Ctrl-C and SIGTERM in the middle of calls, in this process: the endpoint sends them."""

    def interrupted(self, number: int, *words: str, before: int = 1) -> runs.Outcome:
        """A run that gets a signal when `before` calls have been answered and one hangs."""
        def kill_us(connection: Any) -> None:
            os.kill(os.getpid(), number)
            HANG(connection)

        self.endpoint = self.enter(ScriptedEndpoint(*[ANSWER] * before, (kill_us,), then=(HANG,)))
        return self.run_it(*words, url=self.endpoint.url)

    def test_each_signal_drops_the_call_and_prints_the_resume_command(self):
        for number, code in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
            with self.subTest(number), tempfile.TemporaryDirectory() as self.out_dir:
                outcome = self.interrupted(number, "--phases", "5q", before=3)
                name = signal.Signals(number).name
                self.assert_refused(outcome, code,
                                    rf"stopped by {name}\nnext: python3 harness/run_benchmark\.py "
                                    rf"--run-id {RUN_ID} --target-url \S+ --out-dir "
                                    + re.escape(shlex.quote(self.out_dir))
                                    + " --no-calibration --quiet")
                last = self.events[-1]
                self.assertEqual((last["event"], last["reason"], last["exit_code"],
                                  last["in_flight"]),
                                 ("run_interrupted", f"stopped by {name}", code,
                                  [f"local:unknown:m:5q:{self.question_ids()[2]}"]))
                self.goes_on(outcome)

    def question_ids(self) -> list[str]:
        plan = json.loads(self.manifest.read_bytes())["plan"]["phases"]
        return plan[1]["question_ids"]

    def goes_on(self, outcome: runs.Outcome) -> None:
        """What was printed goes on with the run and asks only what has no answer."""
        command = outcome.err.splitlines()[-1]
        asked = len(self.endpoint.chats)
        self.endpoint._then = ANSWER
        resumed = runs.run(*shlex.split(command)[3:], "--quiet")
        self.assertEqual((resumed.code, resumed.err), (0, ""))
        self.assertEqual(len(self.endpoint.chats) - asked, 1 + 3 + 2)   # hello, questions, probes

    def test_dropped_lanes_do_not_count_as_a_missing_server(self):
        outcome = self.interrupted(signal.SIGINT, "--phases", "parallel_same")
        self.assertEqual(outcome.code, 130)
        self.assertLessEqual(len(self.events[-1]["in_flight"]), 4)
        self.assertGreater(len(self.events[-1]["in_flight"]), 0)

    def test_interrupted_identification_is_not_recorded(self):
        endpoint = self.enter(ScriptedEndpoint())
        asked = iter(range(10))

        def models(_: Any) -> Any:
            if next(asked) == 2:            # before the run, before the first call, and after it
                os.kill(os.getpid(), signal.SIGINT)
                return (HANG,)
            return listed

        listed = endpoint.get["/v1/models"]
        endpoint.get["/v1/models"] = models
        self.assertEqual(self.run_it("--phases", "5q", url=endpoint.url).code, 130)
        self.assertEqual(runs.names(self.events),
                         ["run_started", "machine_identified", "instrument_calibrated",
                          "endpoint_identified", "call_finished", "phase_finished",
                          "run_interrupted"])

    def test_signal_handlers_are_restored(self):
        before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
        self.interrupted(signal.SIGINT, "--phases", "5q")
        self.assertEqual([signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)],
                         before)


# --- in the background ---------------------------------------------------------------------------
class Background(Runs):
    def setUp(self) -> None:
        super().setUp()
        self.logs = self.enter(tempfile.TemporaryDirectory())
        self.enter(mock.patch.object(tempfile, "tempdir", self.logs))
        self.enter(mock.patch.object(wait_and_stop, "FOLLOW_EVERY_S", 0.02))

    def detach(self, *words: str, url: Optional[str] = None) -> runs.Outcome:
        with warnings.catch_warnings():        # that the child goes on is what is wanted
            warnings.simplefilter("ignore", ResourceWarning)
            return self.run_it("--detach", *words, url=url)

    def test_detached_run_prints_its_id_and_log_and_can_be_followed(self):
        outcome = self.detach("--smoke")
        log = os.path.join(self.logs, f"run-{RUN_ID}.log")
        self.assertEqual(outcome, runs.Outcome(
            0, f"run {RUN_ID} started in the background\nrun folder: {self.folder}\n"
            f"log: {log}\nnext: python3 harness/run_benchmark.py --wait 100 {RUN_ID} --out-dir "
            f"{shlex.quote(self.out_dir)} --quiet\n", ""))
        followed = runs.run(*shlex.split(outcome.out.splitlines()[-1])[3:-1])
        self.assertEqual(followed.code, 0)
        self.assertRegex(followed.err, r"\A1/1 +hello +\S+ +ok +\d+ tokens +TTFT [\d.]+ ms\n\Z")
        self.assertRegex(followed.out, r"run folder: .*\nnext: .*\n\Z")
        with open(log, encoding="utf-8") as file:
            self.assertEqual(file.read().replace("127.0.0.1", "localhost").replace(
                "py harness", "python3 harness").replace(       # as a child on Windows
                    " --no-calibration --quiet", ""), followed.out)

    @runs.posix_only
    def test_detached_run_has_its_own_session(self):
        with ScriptedEndpoint(ANSWER, (HANG,)) as endpoint:
            parent = runs.start("--target-url", endpoint.url, "--out-dir", self.out_dir,
                                "--run-id", RUN_ID, *runs.QUICK, "--phases", "5q", "--detach",
                                env={**os.environ, "TMPDIR": self.logs})
            self.assertEqual(runs.ended(parent).code, 0)
            wait_until(lambda: len(endpoint.chats) > 1)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(parent.pid, signal.SIGKILL)
            self.assertEqual(runs.run("--wait", "0", self.folder, "--quiet").code, 5)
            endpoint.vanish()                  # ends it: two more calls meet nobody
            self.assertEqual(runs.run("--wait", "60", self.folder, "--quiet").code, 3)

    def test_detached_run_can_be_stopped_and_resumed(self):
        with ScriptedEndpoint(ANSWER, (HANG,)) as endpoint:
            self.detach("--phases", "5q", url=endpoint.url)
            wait_until(lambda: len(endpoint.chats) > 1)
            stopped = runs.run("--stop", self.folder)
            self.assertEqual((stopped.code, stopped.err), (0, ""))
            self.assertIn(f"--run-id {RUN_ID} --out-dir {shlex.quote(self.out_dir)}", stopped.out)
            self.assertEqual(runs.events_of(self.folder)[-1]["exit_code"], 143)
            self.assertEqual(sorted(os.listdir(self.folder)), ["manifest.json", "run.jsonl"])
            again = runs.run("--stop", RUN_ID, "--out-dir", self.out_dir)
            self.assertEqual((again.code, "is not active" in again.err), (2, True))
            self.assertEqual(runs.run("--stop", "x", "--out-dir", self.out_dir).code, 2)
        self.assertIn("stopped by SIGTERM", Path(self.logs, f"run-{RUN_ID}.log").read_text("utf-8"))

    def test_resumed_detached_run_keeps_the_earlier_log(self):
        self.detach("--smoke")
        log = Path(self.logs, f"run-{RUN_ID}.log")
        wait_until(lambda: "next:" in log.read_text("utf-8"))
        before = log.read_text("utf-8")
        self.detach("--smoke")
        self.assertTrue(log.read_text("utf-8").startswith(before))

    def test_detached_run_that_cannot_begin_prints_why(self):
        outcome = self.detach("--models", "nobody")
        self.assert_refused(outcome, 2, "--models nobody: the endpoint does not serve it; it "
                            f"serves: {runs.MODEL}")

    def test_refused_detached_resume_prints_why(self):
        self.finished("--phases", "hello", "--num-predict", "4")
        outcome = self.detach("--repeats", "2")
        self.assert_refused(outcome, 2, ".* cannot be resumed like this: plan.repeats was 1, .*")

    def test_finished_run_can_be_detached_again(self):
        self.finished("--smoke")
        outcome = self.detach("--smoke")
        self.assertIn("started in the background", outcome.out)
        self.assertEqual(runs.run("--quiet", "--wait", "9", self.folder).code, 0)

    def test_run_is_under_way_once_locked_with_a_line(self):
        self.assertFalse(wait_and_stop.is_under_way(self.out_dir, RUN_ID))
        self.finished("--smoke")
        self.assertFalse(wait_and_stop.is_under_way(self.out_dir, RUN_ID))
        held = files.open_to_append(str(self.ledger))
        self.addCleanup(os.close, held)
        files.lock(held)
        self.assertTrue(wait_and_stop.is_under_way(self.out_dir, RUN_ID))
        self.ledger.write_bytes(b"")
        self.assertFalse(wait_and_stop.is_under_way(self.out_dir, RUN_ID))

    def test_detach_with_json_prints_one_document(self):
        outcome = self.detach("--smoke", "--json")
        self.assertEqual(outcome.document, {
            "run_id": RUN_ID, "begun": True, "folder": self.folder,
            "log": os.path.join(self.logs, f"run-{RUN_ID}.log"),
            "next": f"python3 harness/run_benchmark.py --wait 100 {RUN_ID} --out-dir "
            f"{shlex.quote(self.out_dir)} --json --quiet"})
        self.assertEqual(runs.run("--quiet", "--wait", "60", self.folder).code, 0)

    def test_detached_rehearsal_can_be_followed(self):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            outcome = runs.run("--rehearse", "--smoke", "--detach")
        self.assertEqual((outcome.code, outcome.err), (0, ""))
        followed = runs.run(*shlex.split(outcome.out.splitlines()[-1])[3:], "--json")
        self.assertEqual((followed.code, followed.document["exit_code"]), (0, 0))
        self.assertTrue(followed.document["folder"].startswith(self.logs))


class Waiting(Runs):
    """--wait, its clock in the test's hand."""

    def setUp(self) -> None:
        super().setUp()
        self.finished()
        self.lines = self.ledger.read_bytes().splitlines(keepends=True)
        self.held = files.open_to_append(str(self.ledger))
        self.addCleanup(self.let_go)
        self.now_s = 0.0
        quiet = mock.patch.object(throughput.HostLoad, "is_disturbed", return_value=False)
        self.is_disturbed = quiet.start()
        self.addCleanup(quiet.stop)

    def hold(self, lines: int) -> None:
        """As if a process had written so many lines so far."""
        self.ledger.write_bytes(b"".join(self.lines[:lines]))
        self.assertTrue(files.lock(self.held))

    def let_go(self) -> None:
        with contextlib.suppress(OSError):
            os.close(self.held)

    def follow(self, *words: str, meanwhile: Any = lambda: None) -> runs.Outcome:
        """--wait; each pause takes its time on the clock, and `meanwhile` is what others do."""
        def sleep(seconds: float) -> None:
            self.now_s += seconds
            meanwhile()

        def main(options: Any, progress: Progress, suites: Any) -> int:
            return real(options, progress, suites, sleep, lambda: self.now_s)

        real = wait_and_stop.follow
        with mock.patch.object(wait_and_stop, "follow", main):
            return runs.run(*words, "--out-dir", self.out_dir)

    def test_wait_returns_the_exit_code_and_table_of_a_run_that_ends(self):
        self.hold(2)
        rest = iter(self.lines[2:])

        def write_on() -> None:
            with open(self.ledger, "ab") as file:
                file.write(next(rest, b""))
            if self.ledger.read_bytes() == b"".join(self.lines):
                self.let_go()

        outcome = self.follow("--wait", "100", RUN_ID, meanwhile=write_on)
        self.assertEqual((outcome.code, self.now_s), (0, 1.5))
        self.assertRegex(outcome.err, r"\A1/1 +hello +\S+ +ok .*\n\Z")
        self.assertEqual(outcome.out, self.run_it().out.replace("127.0.0.1", "localhost").replace(
            " --no-calibration --quiet", ""))

    def test_wait_shows_progress_when_the_time_is_up(self):
        self.hold(3)
        outcome = self.follow("--wait", "2", RUN_ID, "--quiet")
        self.assertEqual((outcome, self.now_s), (runs.Outcome(
            5, "still running: 1 of 1 calls, now testing the server's cache\n"
            "next: python3 harness/run_benchmark.py --wait 2 "
            f"{RUN_ID} --out-dir {shlex.quote(self.out_dir)} --quiet\n", ""), 2.0))

    def test_wait_says_how_many_calls_other_programs_disturbed(self):
        self.hold(3)
        self.is_disturbed.return_value = True
        line = self.follow("--wait", "2", RUN_ID, "--quiet").out.splitlines()[1]
        self.assertRegex(line, "^1 of them .* other programs ")

    def test_wait_with_json_prints_one_document(self):
        self.hold(3)
        self.assertEqual(self.follow("--wait", "0", RUN_ID, "--quiet", "--json").document, {
            "run_id": RUN_ID, "folder": self.folder, "exit_code": 5, "summary": None,
            "next": f"python3 harness/run_benchmark.py --wait 0 {RUN_ID} --out-dir "
            f"{shlex.quote(self.out_dir)} --json --quiet"})

    def test_wait_for_a_killed_run_prints_the_resume_command(self):
        self.ledger.write_bytes(b"".join(self.lines[:3]) + b'{"torn')
        outcome = self.follow("--wait", "9", RUN_ID, "--quiet")
        self.assertEqual((outcome.code, outcome.err, self.now_s), (130, "", 0.0))
        said, command = outcome.out.splitlines()
        self.assertEqual(said, "the run was killed before its end; no finished call is lost")
        self.let_go()
        self.assertEqual(runs.run(*shlex.split(command)[3:]).code, 0)

    def test_wait_for_an_interrupted_run_returns_its_exit_code(self):
        for code, reason, retry in ((130, "stopped by SIGINT", ""), (143, "stopped by SIGTERM", ""),
                                    (3, "the server is gone\x1b[31m", " --retry-failed")):
            with self.subTest(code):
                start = json.loads(self.lines[0])
                line = ledger.event_line(
                    "run_interrupted", reason=reason, exit_code=code, in_flight=[],
                    **{name: start[name] for name in ledger.COMMON_FIELDS[2:]}, seq=3)
                self.ledger.write_bytes(b"".join(self.lines[:3]) + ledger.dump_line(line))
                outcome = self.follow("--wait", "9", RUN_ID, "--quiet")
                self.assertEqual(outcome, runs.Outcome(
                    code, f"the run was interrupted: {reason}\nnext: python3 "
                    f"harness/run_benchmark.py --run-id {RUN_ID} "
                    f"--out-dir {shlex.quote(self.out_dir)} --quiet --detach{retry}\n".replace(
                        "\x1b", "\\x1b"), ""))

    def test_early_end_with_json_is_one_document(self):
        self.ledger.write_bytes(b"".join(self.lines[:3]))
        document = self.follow("--wait", "9", RUN_ID, "--quiet", "--json").document
        self.assertEqual({**document, "next": None}, {
            "run_id": RUN_ID, "folder": self.folder, "exit_code": 130, "summary": None,
            "next": None})

    def test_wait_accepts_a_folder(self):
        self.ledger.write_bytes(b"".join(self.lines[:3]))
        elsewhere = runs.run("--wait", "9", self.folder, "--quiet")
        self.assertIn(f"--out-dir {shlex.quote(self.out_dir)}", elsewhere.out)

    def test_resume_command_of_a_remote_run_names_what_it_lacks(self):
        manifest = json.loads(self.manifest.read_bytes())
        manifest["target"]["class"] = "lan"
        self.manifest.write_bytes(ledger.dump_document(manifest))
        self.ledger.write_bytes(b"".join(self.lines[:3]))
        self.assertRegex(self.follow("--wait", "9", RUN_ID, "--quiet").out,
                         r"\nAdd --target-url as in the first command.*\nnext: ")
        known = self.follow("--wait", "9", RUN_ID, "--quiet", "--target-url", "http://10.1.2.3")
        self.assertRegex(known.out, r"killed.*\nnext: .* --target-url http://10\.1\.2\.3 ")

    def test_wait_refuses_an_unknown_run(self):
        outcome = self.follow("--wait", "9", "11\x1b[31m")
        self.assert_refused(outcome, 2, re.escape(
            rf"--wait: no run 11\x1b[31m in {printable(self.out_dir)}; pass its id and its "
            "--out-dir, or its folder. A run has no folder before its server has loaded"))

    def test_wait_refuses_an_invalid_time(self):
        outcome = self.follow("--wait", "soon", RUN_ID)
        self.assert_refused(outcome, 2, re.escape(
            "--wait: 'soon' is not a number from 0 to 86400; use for example --wait 100 RUN; "
            "--help lists the options"))

    def test_wait_refuses_a_changed_ledger(self):
        self.ledger.write_bytes(b"".join([self.lines[0], b"{}\n", *self.lines[2:]]))
        self.assert_refused(self.follow("--wait", "9", RUN_ID), 4,
                            rf"{re.escape(str(self.ledger))}, line 2: not the line .*")


# --- storage -------------------------------------------------------------------------------------
class FullDisk(Runs):
    """What cannot be written ends the run with exit 4 and a ledger that reads."""

    @contextlib.contextmanager
    def failing_write(self, number: int, short: bool) -> Iterator[None]:
        """The ledger's line of that number cannot be written, in part or at all."""
        real, lines = os.write, iter(range(100))

        def write(fd: int, data: bytes) -> int:
            if data.startswith(b'{"event"') and next(lines) == number:
                if short:
                    return real(fd, data[:len(data) // 2])
                raise OSError(errno.ENOSPC, "No space left on device")
            return real(fd, data)

        with mock.patch.object(os, "write", write):
            yield

    def test_full_disk_at_any_line_leaves_a_ledger_that_resumes(self):
        for number in range(5):
            for short in (False, True):
                with self.subTest(number=number, short=short), \
                        tempfile.TemporaryDirectory() as self.out_dir:
                    with self.failing_write(number, short):
                        full = self.run_it("--smoke")
                    self.assert_refused(full, 4, (
                        rf"{re.escape(str(self.ledger))} cannot be written \(No space left on "
                        r"device\); all lines so far are whole\. .*, then: python3 .*"))
                    state = ledger.read_ledger(str(self.ledger))
                    self.assertEqual((len(state.events), state.torn), (number, b""))
                    command = full.err.partition("then: ")[2]
                    resumed = runs.run(*shlex.split(command)[2:], "--smoke", "--quiet")
                    self.assertEqual((resumed.code, resumed.err), (0, ""))
                    self.assertEqual(self.events[-1]["counts"], {"ok": 2 if number == 3 else 1})

    def test_full_disk_ends_all_lanes(self):
        with self.failing_write(8, True):
            full = self.run_it("--phases", "parallel_same", "--num-predict", "4")
        self.assertEqual(full.code, 4)
        self.assertEqual(len(full.err.splitlines()), 1)
        self.assertEqual(ledger.load_run(self.folder)[1].torn, b"")
        self.assertEqual(self.run_it().code, 0)

    def test_failed_flush_counts_as_a_full_disk(self):
        real, flushes = files.flush_to_disk, iter(range(100))

        def flush(fd: int) -> None:
            if next(flushes) == 4:
                raise OSError(errno.EIO, "Input/output error")
            real(fd)

        with mock.patch.object(files, "flush_to_disk", flush):
            self.assertEqual(self.run_it("--smoke").code, 4)
        self.assertEqual(self.run_it().code, 0)

    def test_torn_line_stays_in_place_on_a_full_disk(self):
        self.finished()
        self.cut(2, b'{"event":"phase_fin')
        with mock.patch.object(files, "write_whole", side_effect=OSError(28, "No space left")), \
                self.nothing_written():
            self.assert_refused(self.run_it(), 4, r".*run\.jsonl cannot be written \(No space .*")
        self.assertEqual(self.run_it().code, 0)

    def test_full_disk_while_a_newline_is_added(self):
        self.finished()
        self.ledger.write_bytes(self.ledger.read_bytes()[:-1])
        with mock.patch.object(os, "write", side_effect=OSError(28, "No space left")), \
                self.nothing_written():
            self.assert_refused(self.run_it(), 4, r".*run\.jsonl cannot be written \(No space .*")
        self.assertEqual(self.run_it().code, 0)

    @unittest.skipUnless(hasattr(signal, "SIGXFSZ"), "no limit on a file's size here")
    def test_file_size_limit_of_the_system(self):
        for limit_bytes, manifest in ((1000, False), (20_000, True)):
            with self.subTest(limit_bytes), tempfile.TemporaryDirectory() as self.out_dir:
                prelude = (f"import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, "
                           f"({limit_bytes}, {limit_bytes}))")
                full = runs.ended(runs.start(
                    "--target-url", ENDPOINT.url, "--out-dir", self.out_dir, "--run-id", RUN_ID,
                    *runs.QUICK, "--quiet", "--phases", "5q,parallel_same", prelude=prelude))
                self.assert_refused(full, 4, r".+ cannot be written \(.*\); .*free some space.*|"
                                    r".+ cannot be written \(.*\); .*Free some space.*")
                self.assertEqual(self.manifest.exists(), manifest)
                self.assertEqual(ledger.read_ledger(str(self.ledger)).torn, b"")
                self.assertEqual(self.run_it("--phases", "5q,parallel_same", "--num-predict",
                                             "4").code, 0)

    def test_full_disk_before_the_folder_exists(self):
        with mock.patch.object(os, "makedirs", side_effect=OSError(28, "No space left", "x")):
            self.assert_refused(self.run_it("--smoke"), 4, r".+ cannot be written \(No space left"
                                r"\); free some space, or pass another folder to --out-dir")

    def test_folder_without_write_permission(self):
        with mock.patch.object(os, "makedirs", side_effect=PermissionError(13, "Not allowed")):
            self.assert_refused(self.run_it("--smoke"), 4, r".+ cannot be written "
                                r"\(Not allowed\); pass another folder to --out-dir")

    def test_log_that_cannot_be_written(self):
        with mock.patch.object(tempfile, "tempdir", os.path.join(self.out_dir, "none")):
            self.assert_refused(self.run_it("--smoke", "--detach"), 4,
                                r".+none.run-[0-9a-f-]+\.log: No such file or directory")


# --- files that were changed ---------------------------------------------------------------------
class ChangedFiles(Runs):
    def refused(self, message: str) -> None:
        """Refused with one line, nothing touched."""
        with self.nothing_written():
            self.assert_refused(self.run_it(), 4, message)

    def test_missing_manifest_is_refused(self):
        self.finished()
        os.unlink(self.manifest)
        self.refused(r".+manifest\.json is missing, although its run\.jsonl has lines; "
                     "restore it from a backup, or start a new run")

    def test_missing_manifest_before_the_first_line_is_written(self):
        self.finished()
        os.unlink(self.manifest)
        self.ledger.write_bytes(b"")
        self.assertEqual(self.run_it("--smoke").code, 0)
        self.assertEqual(runs.names(self.events)[0], "run_started")

    def test_torn_manifest_is_refused(self):
        self.finished()
        self.manifest.write_bytes(self.manifest.read_bytes()[:1000])
        self.refused(r".+manifest\.json is not JSON at character \d+: .*; restore it from a "
                     "backup, or start a new run")

    def test_invalid_manifest_is_refused(self):
        self.finished()
        text = self.manifest.read_bytes()
        self.manifest.write_bytes(text.replace(b'"repeats": 1', b'"repeats": "one"'))
        self.refused(r'.+manifest\.json: plan\.repeats: "one" is not of type integer; restore it '
                     "from a backup, or start a new run")

    def test_changed_manifest_is_refused(self):
        self.finished()
        text = self.manifest.read_bytes()
        self.manifest.write_bytes(text.replace(b'"timeout_s": 360.0', b'"timeout_s": 720.0'))
        self.refused(r".+run\.jsonl, line 1: manifest\.json was changed since; restore it "
                     "from a backup, or start a new run")

    def test_manifest_without_its_host_name_resumes(self):
        self.finished()
        manifest = json.loads(self.manifest.read_bytes())
        self.assertIsNotNone(manifest["host_hostname_short"])
        manifest["host_hostname_short"] = None
        self.manifest.write_bytes(ledger.dump_document(manifest))
        self.cut(1)
        self.assertEqual(self.run_it().code, 0)

    def test_edited_ledger_is_refused_with_the_line(self):
        self.finished()
        lines = self.ledger.read_bytes().splitlines(keepends=True)
        end = "restore it from a backup, or start a new run"
        broken = "not the line that the run wrote; the file was changed afterwards; restore it .*"
        for name, edited, line, message in (
                ("no JSON", [lines[0], b"{" + lines[1], *lines[2:]], 2, broken),
                ("no object", [lines[0], b"[]\n", *lines[2:]], 2, broken),
                ("a line is gone", [*lines[:2], *lines[3:]], 3, broken),
                ("two changed places", [lines[0], lines[2], lines[1], *lines[3:]], 2, broken),
                ("another type", [*lines[:2], lines[2].replace(b'"lane":0', b'"lane":"x"'),
                                  *lines[3:]], 3, f'lane: "x" is not of type integer; {end}'),
                ("a field more", [*lines[:3], lines[3].replace(b'"ok":1', b'"ok":1,"x":1'),
                                  lines[4]], 4, f"x: is not a known field; {end}"),
                ("a field less", [*lines[:3], lines[3].replace(b',"wall_us"', b',"w"'), lines[4]],
                 4, f'"wall_us" is missing; {end}'),
                ("of another run", [*lines[:4], lines[4].replace(b"2222", b"2223")], 5,
                 f"not a line of run {RUN_ID}; {end}"),
                ("begun twice", [lines[0], lines[0].replace(b'"seq":0', b'"seq":1'), *lines[2:]],
                 2, f"not a line of run {RUN_ID}; {end}"),
                ("never begun", [lines[4].replace(b'"seq":4', b'"seq":0')], 1,
                 f"not a line of run {RUN_ID}; {end}")):
            with self.subTest(name):
                self.assertNotEqual(edited, lines)
                self.ledger.write_bytes(b"".join(edited))
                self.refused(rf".+run\.jsonl, line {line}:( \w*:)? {message}")

    def test_ledger_that_is_a_folder_is_refused(self):
        self.finished()
        os.unlink(self.ledger)
        os.mkdir(self.ledger)
        self.refused(r".+ cannot be written \(Is a directory\); .*")
