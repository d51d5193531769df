"""Test the text of --plan and --probe, and the messages before a run."""
from __future__ import annotations

import dataclasses
import os
import shlex
import unittest
from typing import Any
from unittest import mock

import run_benchmark
from core import suites
from core.errors import HarnessError, StorageError
from engines import queries
from run import cli, estimates, plan_and_probe
from tests.core.test_metrics import call

OPTIONS = cli.Options(0.1, 4096, 2048, "there")


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
            lines = plan_and_probe.plan_text(
                plan, 72, estimates.Estimate(6000.0, 1200.0, 900.0),
                [estimates.Estimate(900.0, 600.0, 90.0), estimates.Estimate(300.0, 120.0, 90.0)],
                ["note"],
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
        self.assertEqual([*lines[9:11], lines[-1]], [      # 20q is not planned
            "With fewer phases: 2 min with --phases hello,5q", "note",
            "next: python3 harness/run_benchmark.py --phases all --timeout 3600 "
            "--device-tag pi5-8gb --detach"])

    def test_plan_without_a_handle_says_that_it_is_a_trial(self):
        for handle, expected in (("ada", 0), ("unnamed", 1)):
            text = plan_and_probe.plan_text({**manifest("m"), "submitter_handle": handle}, 6, None,
                                            [], [], OPTIONS)
            self.assertEqual(text.count(plan_and_probe.TRIAL), expected)

    def test_phase_that_cannot_run_shows_why(self):
        lines = plan_and_probe.plan_text(manifest("m", names=("parallel_mixed",)), 1, None, [],
                                         [], OPTIONS).splitlines()
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
        return {"id": name, "chat": True, "facts": facts, "remote": None, "behind": None,
                "state": None, "same_as": None, "size_bytes": None, "chat_template": None,
                "context": {"effective_tokens": None, "remedy": None}, **changes}

    def text(self, found: Any, hello: Any, *words: str) -> str:
        options = cli.parse_options(run_benchmark.build_parser(), ["--probe", *words],
                                    run_benchmark.DEFAULTS)
        return "\n".join([plan_and_probe.served_text(found, options),
                          plan_and_probe.hello_text(found, hello, options)])

    def test_probe_of_a_proxy_leads_to_the_server_behind_it(self):
        at = "http://127.0.0.1:8081"
        shown = self.text([{**self.found(), "models": [self.model("small", behind=at)]}], None)
        self.assertIn(f"small  (from {at})", shown)
        self.assertTrue(shown.endswith(f" --target-url {at} --probe"), shown)

    def test_text_of_a_probe(self):
        self.assertEqual(self.text([self.found()], call(model="m")), """\
http://127.0.0.1:8080: llama.cpp b1\\x1b
  how many requests it works on at once is not reported. For 4: Start llama-server with `-c 16384 \
-np 4`: its slots share the tokens of -c.
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
        same = self.model("m")
        same["facts"] = {**same["facts"], "file_name": "mixtral"}
        self.assertNotIn("answered by", self.text([self.found(models=[same])], hello))

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
        text = plan_and_probe.no_endpoint("http://h\x1b", OPTIONS,
                                   ("connect_failed", "no connection: x"), [])
        self.assertTrue(text.startswith(r"no endpoint at http://h\x1b (no connection: x)" + "\n"))
        self.assertIn(queries.start_hint(), text)
        self.assertTrue(text.endswith("python3 harness/run_benchmark.py --rehearse"))

    def test_no_endpoint_without_a_url_names_the_tried_ports(self):
        first = plan_and_probe.no_endpoint(None, OPTIONS, None, []).splitlines()[0]
        self.assertIn("no model server found on this machine", first)
        self.assertEqual([port for port in queries.USUAL_PORTS if str(port) not in first], [])

    def test_no_endpoint_prints_commands_for_other_servers_on_this_machine(self):
        options = dataclasses.replace(OPTIONS, phases="all", timeout=9.5, smoke=True,
                                      given=frozenset(("phases", "timeout", "smoke")))
        lines = plan_and_probe.no_endpoint("http://h", options, None, [self.found()]).splitlines()
        self.assertEqual(lines[0], "no endpoint at http://h (no answer)")
        self.assertEqual(lines[2], "  http://127.0.0.1:8080  llama.cpp")
        self.assertRegex(lines[3], "^    .+:$")
        self.assertRegex(lines[4], "^      python3 harness/run_benchmark.py --target-url "
                         "http://127.0.0.1:8080 --models .* --phases all --timeout 9.5 --smoke$")
        words = shlex.split(lines[4])[2:]
        self.assertEqual(cli.parse_options(run_benchmark.build_parser(), words,
                                           run_benchmark.DEFAULTS).smoke, True)

    def test_folder_that_cannot_be_written(self):
        inside = os.path.join(plan_and_probe.CLONE, "submissions", "a\x1b")
        for folder, error, kind, words in (
                ("/a\x1b", FileExistsError(17, "Exists"), HarnessError, "--out-dir: "),
                ("/a\x1b", PermissionError(13, "Denied"), StorageError, "another folder"),
                (inside, PermissionError(13, "Denied"), StorageError, "cp -R "),
                (inside, OSError(30, "Read-only"), StorageError, "cp -R "),
                ("/a\x1b", OSError(28, "Full"), StorageError, "free some space")):
            made = plan_and_probe.unwritable(folder, error)
            self.assertIs(type(made), kind)
            self.assertIn(words, str(made))
            self.assertIn(rf"a\x1b cannot be written ({error.strerror})", str(made))

    def test_probe_and_plan_name_a_folder_that_cannot_be_written(self):
        options = dataclasses.replace(OPTIONS, out_dir=os.path.join(plan_and_probe.CLONE, "x", "y"))
        for writable, count in ((True, 0), (False, 1)):
            with mock.patch.object(os, "access", return_value=writable):
                self.assertEqual(len(plan_and_probe.write_note(options)), count)


if __name__ == "__main__":
    unittest.main()
