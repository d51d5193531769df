"""Whole runs against the built-in endpoint, and the other modes of the runner."""

from __future__ import annotations

import json
import os
import shlex
import tempfile
import unittest
from collections import Counter
from pathlib import Path
from typing import Any
from unittest import mock

import run_benchmark
from compare import wanted
from core import answer_checks, ledger, plan, schema, suites
from engines import queries
from run import estimates, plan_and_probe, state
from tests import runs
from tests.scripted_endpoint import ANSWER, ScriptedEndpoint, response
from tests.scripted_runs import QUICK

SUITES = suites.load_suites()
RUN_ID = "11111111-2222-4333-8444-555555555555"
PACE = ("--prefill-tokens-per-s", "1e6", "--first-token-ms", "1")


class Runs(unittest.TestCase):
    maxDiff = None

    @classmethod
    def setUpClass(cls) -> None:
        for patch in QUICK:
            patch.start()
            cls.addClassCleanup(patch.stop)
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.out_dir = folder.name

    @classmethod
    def endpoint(cls, *flags: str) -> runs.Endpoint:
        """An endpoint that runs until the class is done."""
        made = runs.Endpoint(*flags)
        cls.addClassCleanup(made.close)
        return made


def intervals(calls: Any) -> list[tuple[int, int]]:
    """(begin, end) of calls on the segment's clock, in µs."""
    return sorted((c["timing"]["started_us"], c["timing"]["started_us"] + c["timing"]["done_us"])
                  for c in calls)


def most_at_once(calls: Any) -> int:
    """Largest number of calls at the same time."""
    moments = sorted([(end, -1) for _, end in intervals(calls)]
                     + [(begin, 1) for begin, _ in intervals(calls)])
    most = running = 0
    for _, step in moments:
        running += step
        most = max(most, running)
    return most


class AllPhases(Runs):
    """All eight phases on two models, each question twice."""

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        url = cls.endpoint("--models", "a:2000,b:2000", *PACE).url
        cls.outcome = runs.run(
            "--target-url", url, "--out-dir", cls.out_dir, "--run-id", RUN_ID, "--models", "auto",
            "--phases", "all", "--num-predict", "4", "--repeats", "2", "--no-calibration",
            "--json")
        cls.folder = runs.folder_of(cls.out_dir, RUN_ID)
        cls.manifest, held = ledger.load_run(cls.folder)
        cls.events = held.events
        cls.calls = [event for event in cls.events if event["event"] == "call_finished"]

    def of(self, phase: str, model: str = "") -> list[dict[str, Any]]:
        return [c for c in self.calls if c["phase"] == phase and model in ("", c["model"])]

    def test_every_planned_call_is_answered_once(self):
        planned = [cell.cell_id for cell in plan.all_cells(self.manifest)]
        self.assertEqual(sorted(call["cell_id"] for call in self.calls), sorted(planned))
        self.assertEqual((self.outcome.code, Counter(c["outcome"] for c in self.calls)),
                         (0, Counter(ok=len(planned))))
        self.assertEqual(Counter(call["phase"] for call in self.calls), Counter({
            "hello": 2, "frozen": 12, "5q": 20, "20q": 80, "parallel_same": 80,
            "parallel_mixed": 40, "edge_append": 4 * len(SUITES["edge_append"]),
            "edge_suite": 4 * len(SUITES["edge_suite"])}))

    def test_cell_id_has_prefix_model_phase_question_and_repeat(self):
        self.assertEqual([call["cell_id"] for call in self.of("frozen", "a")], [
            f"local:reference-endpoint:a:frozen:{name}{again}"
            for again in ("", ":r1") for name in ("P-EASY", "P-MEDIUM", "P-HARD")])

    def test_phases_run_model_by_model_and_mixed_ones_last(self):
        order = list(dict.fromkeys((e["model"], e["phase"]) for e in self.events
                                   if e["event"] == "phase_finished"))
        own = [name for name in suites.ALL_PHASES if name != "parallel_mixed"]
        self.assertEqual(order, [(model, name) for model in "ab" for name in own]
                         + [(None, "parallel_mixed")])

    def test_each_model_starts_with_a_cold_hello(self):
        for model in "ab":
            first, *others = [call for call in self.calls if call["model"] == model]
            self.assertEqual((first["phase"], first["cold"]), ("hello", True))
            self.assertEqual({call["cold"] for call in others}, {False})

    def test_calls_on_one_lane_do_not_overlap(self):
        for name in ("frozen", "5q", "20q", "edge_append", "edge_suite"):
            for model in "ab":
                self.assertEqual(most_at_once(self.of(name, model)), 1, name)

    def test_parallel_lanes_overlap_with_each_other_only(self):
        for name, model in (("parallel_same", "a"), ("parallel_same", "b"), ("parallel_mixed", "")):
            calls = self.of(name, model)
            self.assertIn(most_at_once(calls), (2, 3, 4))
            for lane in range(4):
                own = [call for call in calls if call["lane"] == lane]
                self.assertEqual((len(own) >= 10, most_at_once(own)), (True, 1))

    def test_mixed_lanes_take_the_models_in_turn(self):
        self.assertEqual({(call["lane"], call["model"]) for call in self.of("parallel_mixed")},
                         {(0, "a"), (1, "b"), (2, "a"), (3, "b")})

    def test_phase_finished_counts_and_spans_its_calls(self):
        finished = [e for e in self.events if e["event"] == "phase_finished"]
        for event in finished:
            calls = self.of(event["phase"], event["model"] or "")
            self.assertEqual((event["planned"], event["ok"], event["failed"]),
                             (len(calls), len(calls), 0))
            spans = intervals(calls)
            self.assertLessEqual(event["started_us"], spans[0][0])
            self.assertGreaterEqual(event["started_us"] + event["wall_us"], spans[-1][1])

    def test_conversation_grows_by_its_own_turns(self):
        for model in "ab":
            for repeat in (0, 1):
                turns = [c for c in self.of("edge_append", model) if c["repeat"] == repeat]
                self.assertEqual([t["request"]["messages_count"] for t in turns],
                                 [2 * i + 1 for i in range(len(turns))])
                self.assertEqual(len({turn["request"]["salt"] for turn in turns}), 1)

    def test_each_other_call_has_its_own_salt(self):
        salts = [c["request"]["salt"] for c in self.calls if c["phase"] != "edge_append"]
        self.assertEqual(len(set(salts)), len(salts))
        self.assertNotIn(None, salts)

    def test_requests_have_the_options_of_the_run(self):
        options = {"temperature": 0.1, "max_tokens": 4, "stream": True,
                   "stream_options": {"include_usage": True}}
        self.assertEqual([c for c in self.calls if c["request"]["options"] != options], [])
        self.assertEqual(self.manifest["canonical_options_overrides"], {"num_predict": 4})

    def test_every_answer_is_checked(self):
        rules = {(name, q.id): q for name, suite in SUITES.items() for q in suite}
        for call in self.calls:
            question = rules[call["phase"], call["question_id"]]
            self.assertEqual(call["checks"], answer_checks.check_answer(
                call["response"]["text"], question.required_markers, question.format_rule))

    def test_times_of_a_call_are_ascending(self):
        names = ("first_token_us", "last_token_us", "done_us")
        for call in self.calls:
            marks = [call["timing"][name] for name in names]
            self.assertEqual(marks, sorted(marks), call["cell_id"])
            self.assertEqual(sum(call["timing"]["chunk_us"]), call["timing"]["last_token_us"])
            self.assertEqual(len(call["timing"]["chunk_us"]), 4)

    def test_json_holds_the_summary_and_the_next_command(self):
        document = self.outcome.document
        self.assertEqual({**document, "summary": None, "next": None}, {
            "run_id": RUN_ID, "folder": self.folder, "exit_code": 0, "summary": None,
            "next": None})
        self.assertEqual(shlex.split(document["next"]),
                         ["python3", "harness/complete_submission.py", self.folder])
        self.assertEqual({(cell["model"], cell["phase"]) for cell in document["summary"]["cells"]},
                         {(call["model"], call["phase"]) for call in self.calls})

    def test_progress_is_one_plain_line_per_call_without_a_terminal(self):
        lines = self.outcome.err.splitlines()
        total = len(self.calls)
        self.assertEqual(sum(f"/{total}  " in line for line in lines), total)
        self.assertRegex(self.outcome.err, r"\A[\x20-\x7e\n]+\Z")
        self.assertEqual(lines[0], f"run {RUN_ID}: {total} planned calls")


class Segments(Runs):
    def test_resume_starts_with_a_hello_of_each_model_that_has_calls_left(self):
        with runs.Endpoint("--models", "a:5000,b:5000", *PACE) as endpoint:
            words = ("--target-url", endpoint.url, "--out-dir", self.out_dir, "--run-id",
                     RUN_ID[:-1] + "6", *runs.QUICK, "--quiet")
            runs.run(*words, "--models", "auto", "--phases", "frozen,parallel_mixed")
            path = Path(runs.folder_of(self.out_dir, RUN_ID[:-1] + "6"), "run.jsonl")
            lines = path.read_bytes().splitlines(keepends=True)
            mixed = [i for i, line in enumerate(lines) if b'"phase":"parallel_mixed"' in line]
            path.write_bytes(b"".join(lines[:mixed[3]]))
            self.assertEqual(runs.run(*words).code, 0)
        calls = [e for e in runs.events_of(str(path.parent)) if e["event"] == "call_finished"]
        later = [(c["model"], c["phase"], c["cold"]) for c in calls if c["segment"] == 1]
        self.assertEqual(later[:2], [("a", "hello", True), ("b", "hello", True)])
        self.assertEqual(Counter(phase for _, phase, _ in later),
                         Counter(hello=2, parallel_mixed=17))

    def test_default_phases(self):
        with runs.Endpoint("--models", "a:5000", *PACE) as endpoint:
            outcome = runs.run("--target-url", endpoint.url, "--out-dir", self.out_dir,
                               "--run-id", RUN_ID[:-1] + "7", *runs.QUICK, "--quiet")
        self.assertEqual(outcome.code, 0)
        events = runs.events_of(runs.folder_of(self.out_dir, RUN_ID[:-1] + "7"))
        self.assertEqual([(e["phase"], e["planned"]) for e in events
                          if e["event"] == "phase_finished"],
                         [("hello", 1), ("5q", 5), ("20q", 20)])

    def test_mixed_phase_with_one_model_is_skipped_with_a_reason(self):
        with runs.Endpoint("--models", "a:5000", *PACE) as endpoint:
            outcome = runs.run("--target-url", endpoint.url, "--out-dir", self.out_dir, "--phases",
                               "parallel_mixed", "--run-id", RUN_ID[:-1] + "8", *runs.QUICK)
        events = runs.events_of(runs.folder_of(self.out_dir, RUN_ID[:-1] + "8"))
        skipped = [(e["model"], e["phase"], e["reason"]) for e in events
                   if e["event"] == "phase_skipped"]
        reason = "parallel_mixed needs two models or more; this run has one"
        self.assertEqual((outcome.code, skipped), (0, [(None, "parallel_mixed", reason)]))
        self.assertIn(f"parallel_mixed: skipped; {reason}\n", outcome.err)


class Caches(Runs):
    def probed(self, *flags: str, cache: bool = True) -> dict[str, Any]:
        """The `cache_probed` line of a run against an endpoint that reads prompts slowly."""
        words = ("--models", "a:5000", "--prefill-tokens-per-s", "20000", "--first-token-ms", "1")
        with runs.Endpoint(*words, *["--cache"] * cache) as endpoint, \
                tempfile.TemporaryDirectory() as folder:
            outcome = runs.run("--target-url", endpoint.url, "--out-dir", folder, "--run-id",
                               RUN_ID, "--phases", "frozen", *runs.QUICK, "--quiet", *flags)
            self.assertEqual((outcome.code, outcome.err), (0, ""))
            events = runs.events_of(runs.folder_of(folder, RUN_ID))
        probed, = (event for event in events if event["event"] == "cache_probed")
        return probed

    def test_bypassed_cache_is_used_by_the_control_only(self):
        probed = self.probed()
        self.assertEqual((probed["verdict"], probed["control"]), ("not_cached", "cached"))
        self.assertEqual(probed["cell_id"], "local:reference-endpoint:a:frozen:P-HARD")
        self.assertEqual([p["kind"] for p in probed["probes"]], ["as_run", "identical"])
        first, second = (probe["cached_tokens"] for probe in probed["probes"])
        self.assertEqual(first, 0)
        self.assertGreater(second, 100)

    def test_allowed_cache_is_detected(self):
        probed = self.probed("--prompt-cache", "allow")
        self.assertEqual((probed["verdict"], probed["control"]), ("cached", "cached"))

    def test_server_without_a_cache_is_not_cached(self):
        probed = self.probed(cache=False)
        self.assertEqual([p["cached_tokens"] for p in probed["probes"]], [0, 0])
        self.assertEqual((probed["verdict"], probed["control"]), ("not_cached", "not_cached"))

    def test_cache_probes_are_short(self):
        with ScriptedEndpoint() as endpoint, tempfile.TemporaryDirectory() as folder:
            runs.run("--target-url", endpoint.url, "--out-dir", folder, "--phases", "frozen",
                     "--no-calibration", "--quiet")
            caps = [chat["max_tokens"] for chat in endpoint.chats]
        self.assertEqual(caps, [32, 2048, 2048, 2048] + [state.PROBE_MAX_TOKENS] * 2)


class Smoke(Runs):
    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.url = cls.endpoint().url

    def test_smoke_run_writes_five_lines(self):
        outcome = runs.run("--target-url", self.url, "--out-dir", self.out_dir, "--run-id", RUN_ID,
                           "--smoke")
        self.assertEqual(outcome.code, 0)
        events = runs.events_of(runs.folder_of(self.out_dir, RUN_ID))
        self.assertEqual([event["event"] for event in events],
                         ["run_started", "endpoint_identified", "call_finished", "phase_finished",
                          "run_finished"])
        self.assertEqual(events[-1]["counts"], {"ok": 1})
        self.assertRegex(outcome.err, rf"\Arun {RUN_ID}: 1 planned call\n1/1 +hello +\S+ +ok .*"
                         r"\n\Z")

    def test_each_run_has_its_own_id(self):
        ids = set()
        for _ in range(2):
            outcome = runs.run("--target-url", self.url, "--out-dir", self.out_dir, "--smoke",
                               "--quiet", "--json", "--submitter-handle", "ada", "--device-tag",
                               "mac-m1-8gb")
            document = outcome.document
            self.assertEqual(document["folder"], os.path.join(self.out_dir, "ada", "mac-m1-8gb",
                                                          f"run-{document['run_id']}"))
            ids.add(document["run_id"])
        self.assertEqual(len(ids), 2)

    def test_run_leaves_two_files(self):
        document = runs.run("--target-url", self.url, "--out-dir", self.out_dir, "--smoke",
                            "--quiet", "--json").document
        self.assertEqual(sorted(os.listdir(document["folder"])), ["manifest.json", "run.jsonl"])

    def test_failed_calls_give_exit_code_1(self):
        with ScriptedEndpoint((response(b"{}", "500 No"),)) as endpoint:
            outcome = runs.run("--target-url", endpoint.url, "--out-dir", self.out_dir, "--smoke",
                               "--json")
        self.assertEqual((outcome.code, outcome.document["exit_code"]), (1, 1))
        self.assertTrue(outcome.document["next"].endswith(" --retry-failed"))

    def test_smoke_prints_the_command_of_a_whole_run(self):
        outcome = runs.run("--target-url", self.url, "--out-dir", self.out_dir, "--smoke",
                           "--no-hostname", "--quiet", "--timeout", "99", "--temperature", "0.2")
        self.assertTrue(outcome.out.endswith(
            "\nnext: python3 harness/run_benchmark.py --temperature 0.2 --out-dir "
            f"{shlex.quote(self.out_dir)} --target-url {self.url} --models {runs.MODEL} "
            "--timeout 99 --no-hostname --quiet\n"), outcome.out)
        self.assertNotIn("not_calibrated", outcome.out)

    def test_default_out_dir_is_submissions_of_the_repository(self):
        own = os.path.join(self.out_dir, "s")
        with mock.patch.dict(run_benchmark.DEFAULTS, out_dir=own):
            document = runs.run("--target-url", self.url, "--smoke", "--quiet", "--json").document
        self.assertEqual(os.path.relpath(document["folder"], self.out_dir),
                         os.path.join("s", "unnamed", "unnamed-device",
                                      f"run-{document['run_id']}"))
        self.assertEqual(run_benchmark.DEFAULT_OUT, str(runs.HARNESS.parent / "submissions"))
        with open(os.path.join(document["folder"], "manifest.json"), encoding="utf-8") as file:
            manifest = json.load(file)
        self.assertEqual(manifest["api_key_used"], False)


class ProbeAndPlan(Runs):
    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.one, cls.two = cls.endpoint(), cls.endpoint("--models", "a:5000,b:5000")

    def setUp(self) -> None:
        here = tempfile.TemporaryDirectory()
        self.addCleanup(here.cleanup)
        self.folder = here.name

    def run_it(self, *words: str) -> runs.Outcome:
        """A run, which must not write anything."""
        outcome = runs.run(*words, "--out-dir", self.folder)
        self.assertEqual(os.listdir(self.folder), [])
        return outcome

    def usual_ports(self, *ports: int) -> Any:
        return mock.patch.object(queries, "USUAL_PORTS", dict.fromkeys(ports, ("x",)))

    def test_probe_lists_models_and_makes_one_hello(self):
        outcome = self.run_it("--probe", "--target-url", self.two.url)
        lines = outcome.out.splitlines()
        self.assertEqual((outcome.code, outcome.err[:20], lines[:3]), (0, "hello call to a (at ", [
            f"{self.two.url}: reference-endpoint 1", "  a  (context 4096 tokens)",
            "  b  (context 4096 tokens)"]))
        self.assertRegex(lines[3], r"\A1/1 +hello +\S+ +ok +.* tokens +TTFT +.* ms.*\Z")
        self.assertRegex(lines[4], f"\\Anext: .* --target-url {self.two.url} --models a .*--plan")
        self.assertEqual(len(lines), 5)

    def test_probe_without_url_tries_the_usual_ports(self):
        with self.usual_ports(1, self.one.port):
            outcome = self.run_it("--probe")
        self.assertEqual((outcome.code, outcome.out.splitlines()[0]),
                         (0, f"{self.one.url}: reference-endpoint 1"))

    def test_probe_without_url_uses_the_key_only_where_one_is_required(self):
        sent, real = [], run_benchmark.Client.send

        def send(client, *words, **more):
            sent.append((client.target.port, client.key))
            reply = real(client, *words, **more)
            refused = client.target.port == self.two.port and client.key != "k1"
            return reply._replace(status=401, head=b"{}") if refused else reply

        with self.usual_ports(self.one.port, self.two.port), \
                mock.patch.object(run_benchmark.Client, "send", send):
            without, found = run_benchmark.scan_ports()[1], run_benchmark.scan_ports("k1")
        self.assertEqual((without["models"], without["needs_key"]), ([], True))
        self.assertRegex(plan_and_probe.served_text([without], mock.Mock()),
                         r"\A\S+ requires a key; .* --api-key-env\Z")
        self.assertEqual([[model["id"] for model in one["models"]] for one in found],
                         [["swift"], ["a", "b"]])
        self.assertNotIn((self.one.port, "k1"), sent)

    def test_probe_of_several_endpoints_makes_no_call(self):
        with self.usual_ports(self.one.port, self.two.port), \
                mock.patch.object(wanted, "here", lambda *_: ["Measured so far: nothing."]), \
                mock.patch.object(wanted, "device_tag", lambda _: "pi5-8gb"):
            outcome = self.run_it("--probe")
        self.assertEqual((outcome.code, outcome.out.splitlines()), (0, [
            f"{self.one.url}: reference-endpoint 1", "  swift  (context 4096 tokens)",
            f"{self.two.url}: reference-endpoint 1", "  a  (context 4096 tokens)",
            "  b  (context 4096 tokens)", "Measured so far: nothing.",
            "A device tag for this machine: pi5-8gb",
            "several endpoints; to choose one:",
            *(f"  python3 harness/run_benchmark.py --out-dir {shlex.quote(self.folder)} "
              f"--target-url {one.url} --probe" for one in (self.one, self.two))]))

    def test_probe_without_any_server_names_the_tried_ports(self):
        closed = mock.patch.dict(run_benchmark.DEFAULTS, target_url="http://127.0.0.1:1")
        with self.usual_ports(1), closed:
            outcome = self.run_it("--probe")
        self.assertEqual((outcome.code, outcome.out), (3, ""))
        self.assertIn("no model server found on this machine (tried ports 1)", outcome.err)

    def test_probe_as_json(self):
        document = self.run_it("--probe", "--target-url", self.one.url, "--json").document
        self.assertEqual(set(document), {"endpoints", "hello", "wanted", "device_tag"})
        self.assertEqual([(e["url"], e["engine"]["name"], [m["id"] for m in e["models"]])
                          for e in document["endpoints"]],
                         [(self.one.url, "reference-endpoint", [runs.MODEL])])
        self.assertEqual(document["hello"]["outcome"], "ok")

    def test_failed_hello_gives_exit_code_1(self):
        with ScriptedEndpoint((response(b"{}", "500 No"),)) as endpoint:
            outcome = self.run_it("--probe", "--target-url", endpoint.url)
        self.assertEqual(outcome.code, 1)
        self.assertRegex(outcome.out, r"1/1 +hello +\S+ +http_error \(HTTP 500\)")

    def test_plan_shows_calls_and_an_estimate(self):
        with self.estimated():
            outcome = self.run_it("--plan", "--target-url", self.two.url, "--models", "auto",
                                  "--phases", "5q,parallel_mixed", "--repeats", "2")
        lines = outcome.out.splitlines()
        self.assertEqual((outcome.code, lines[0]), (0, "models: a, b"))
        self.assertEqual([line.split(" (")[0] for line in outcome.err.splitlines()], [
            "hello call to a", "warm call to a", "warm call to b"])
        self.assertEqual([line.split()[:3] for line in lines[2:5]],
                         [["hello", "1", "1"], ["5q", "10", "1"], ["parallel_mixed", "40", "4"]])
        self.assertIn("62 calls for all models", lines)
        self.assertIn("20 s, at most 60 s", lines[-4])

    def estimated(self) -> Any:
        """A fixed estimate."""
        return mock.patch.object(estimates.Paces, "estimate", lambda *_: estimates.Estimate(
            60.0, 20.0, 9.0))

    def test_plan_as_json(self):
        with self.estimated():
            document = self.run_it("--plan", "--target-url", self.one.url, "--json").document
        self.assertEqual(set(document), {"manifest", "calls", "hello", "estimate"})
        self.assertEqual((document["calls"], document["hello"]["outcome"]), (26, "ok"))
        self.assertEqual(schema.validate(document["manifest"], "manifest"), [])
        self.assertEqual(document["estimate"],
                         {"most_s": 60.0, "typical_s": 20.0, "longest_s": 9.0})

    def test_probe_makes_one_call_and_plan_a_second_warm_one(self):
        for mode, chats in (("--probe", 1), ("--plan", 2)):
            with ScriptedEndpoint() as endpoint:
                self.run_it(mode, "--target-url", endpoint.url)
                self.assertEqual(len(endpoint.chats), chats)

    def test_attempts_and_calls_share_one_clock(self):
        with ScriptedEndpoint((response(b"{}", "503 Busy"),), ANSWER) as endpoint:
            hello = self.run_it("--probe", "--target-url", endpoint.url, "--json").document["hello"]
        (attempt,) = hello["attempts"]
        self.assertLessEqual(attempt["ended_us"], hello["timing"]["started_us"])


class Rehearsal(Runs):
    """A short one; .ci/run makes a whole one on every Python."""

    def test_rehearsal_is_marked_as_synthetic(self):
        outcome = runs.run("--rehearse", "--out-dir", self.out_dir, "--phases", "hello",
                           "--num-predict", "4", "--no-calibration", "--run-id", RUN_ID, "--json")
        self.assertEqual(outcome.code, 0)
        self.assertEqual(outcome.document["next"], "python3 harness/run_benchmark.py --probe")
        manifest, held = ledger.load_run(outcome.document["folder"])
        self.assertEqual((manifest["synthetic"], manifest["models"]),
                         (True, ["reference-swift", "reference-steady"]))
        self.assertEqual(held.events[-1]["counts"], {"ok": 2})

    def test_rehearsal_defaults_to_all_models_and_phases_in_a_temporary_folder(self):
        with mock.patch.object(run_benchmark, "do_run", return_value=0) as do_run, \
                mock.patch.object(tempfile, "tempdir", self.out_dir):
            self.assertEqual(runs.run("--rehearse").code, 0)
        options = do_run.call_args.args[0]
        self.assertEqual(os.path.dirname(options.out_dir), self.out_dir)
        self.assertEqual((options.models, options.phases), ("auto", "all"))
        self.assertTrue(do_run.call_args.kwargs["synthetic"])
        self.assertIsNone(options.api_key_env)
