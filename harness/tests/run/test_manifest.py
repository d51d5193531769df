"""manifest.json: assembling it, inheriting options, comparing a resume with it."""

from __future__ import annotations

import copy
import platform
import unittest
from typing import Any, Optional
from unittest import mock

import run_benchmark
from core import names, plan, privacy, schema, suites
from core.errors import HarnessError
from engines import queries
from run import cli
from run import manifest as manifests

SUITES = suites.load_suites()
CANONICAL = run_benchmark.CANONICAL_OPTIONS
RUN_ID = "11111111-2222-4333-8444-555555555555"
HASHES = {"harness/a.py": "0" * 64}
GIT = {"commit": "f" * 40, "dirty": False}
ENGINE = {"name": "LM Studio", "version": "0.3", "build": None, "recognised_by": "/api/v0/models"}


def options_of(*words: str) -> cli.Options:
    return cli.parse_options(run_benchmark.build_parser(), words, run_benchmark.DEFAULTS)


def assemble(options: cli.Options, synthetic: bool = False, host: str = "box.local",
             ip: Optional[str] = "127.0.0.1") -> dict[str, Any]:
    """The manifest of a run with these options of one model."""
    context = manifests.RunContext(
        RUN_ID, "public-1", CANONICAL, SUITES, "2026-11-24T10:00:00.000Z", synthetic,
        cli.parse_target(options.target_url), ip, host)
    return manifests.assemble(options, context, ENGINE, {"m": "/home/ada/m.gguf"}, {"m": {}},
                              HASHES, GIT)


def assembled(*words: str, **context: Any) -> dict[str, Any]:
    return assemble(options_of(*words), **context)


class Assemble(unittest.TestCase):
    maxDiff = None

    def test_canonical_run(self):
        self.assertEqual(assembled(), {
            "schema_version": "1", "harness_version": "public-1", "run_id": RUN_ID,
            "submitter_handle": "unnamed", "device_tag": "unnamed-device",
            "cell_id_prefix": "local:lm-studio", "started_at": "2026-11-24T10:00:00.000Z",
            "synthetic": False, "smoke": False, "files_sha256": HASHES, "git": GIT,
            "python": {"version": platform.python_version(),
                       "implementation": platform.python_implementation()},
            "os": {"system": platform.system(), "machine": platform.machine()},
            "host_hostname_short": "box",
            "target": {"class": "loopback", "scheme": "http", "port": 11434, "path": None},
            "engine": ENGINE, "models": ["m"],
            "contexts": [{"model": "m", **queries.context_in_force(
                "LM Studio", "/home/ada/m.gguf", {}, 4096)}],
            "plan": plan.plan_of(("hello", "5q", "20q"), SUITES, 4, 1, 2048),
            "canonical_options": CANONICAL, "canonical_options_overrides": {},
            "prompt_cache": {"policy": "avoid", "method": "salt"}, "timeout_s": 360.0,
            "kept_awake_by": None, "api_key_used": False})

    def test_manifest_fits_its_schema(self):
        for words in ((), ("--smoke",), ("--phases", "all", "--repeats", "3", "--no-hostname")):
            self.assertEqual(schema.validate(assembled(*words), "manifest"), [])

    def test_overrides_are_the_options_that_differ(self):
        for words, overrides in (((), {}), (("--temperature", "0.1", "--num-ctx", "4096"), {}),
                                 (("--temperature", "0"), {"temperature": 0.0}),
                                 (("--num-ctx", "8192", "--num-predict", "64"),
                                  {"num_ctx": 8192, "num_predict": 64})):
            self.assertEqual(assembled(*words)["canonical_options_overrides"], overrides)

    def test_prefix_defaults_to_tag_and_engine(self):
        for words, prefix in (((), "local:lm-studio"),
                              (("--device-tag", "mac-m1-8gb"), "mac-m1-8gb:lm-studio"),
                              (("--cell-id-prefix", "x:y"), "x:y")):
            self.assertEqual(assembled(*words)["cell_id_prefix"], prefix)
        for name, plain in (("llama.cpp", "llama.cpp"), ("LM Studio", "lm-studio"),
                            ("x" * 50, "x" * 32), ("a/b\x1b", "a-b-")):
            self.assertEqual(names.usual_prefix("x", name), f"x:{plain}")

    def test_target_is_a_class_without_an_address(self):
        for url, ip, target in (
                ("https://model.example.org/api/v1", "8.8.8.8",
                 {"class": "public", "scheme": "https", "port": 443, "path": "/api"}),
                ("http://192.168.1.7:8080", "192.168.1.7",
                 {"class": "lan", "scheme": "http", "port": 8080, "path": None})):
            made = assembled("--target-url", url, "--no-hostname", ip=ip)
            self.assertEqual(made["target"], target)
            self.assertNotRegex(str(made), r"example\.org|192\.168|8\.8\.8\.8")
        hidden = assembled("--target-url", "http://h/home/ada/x")["target"]["path"]
        self.assertNotIn("ada", hidden)

    def test_host_name_is_short_and_can_be_left_out(self):
        for words, host, name in (((), "box.example.org", "box"), ((), "x" * 80, "x" * 63),
                                  ((), "", None), (("--no-hostname",), "box", None)):
            self.assertEqual(assembled(*words, host=host)["host_hostname_short"], name)

    def test_smoke_run_is_one_hello(self):
        made = assembled("--smoke", "--phases", "all")
        self.assertEqual((made["smoke"], [p["phase"] for p in made["plan"]["phases"]]),
                         (True, ["hello"]))

    def test_synthetic_runs_and_keys_are_recorded(self):
        self.assertEqual([assembled(synthetic=s)["synthetic"] for s in (True, False)],
                         [True, False])
        self.assertEqual([assembled(*words)["api_key_used"] for words in (
            (), ("--api-key-env", "K"))], [False, True])


class InheritOptions(unittest.TestCase):
    WORDS = ("--target-url", "http://localhost:8080/api", "--models", "m", "--phases", "frozen",
             "--repeats", "2", "--lanes", "8", "--timeout", "7", "--temperature", "0",
             "--num-ctx", "8192", "--num-predict", "3", "--prompt-cache", "allow",
             "--submitter-handle", "ada", "--device-tag", "mac-m1-8gb", "--cell-id-prefix", "x:y",
             "--no-hostname")

    def inherited(self, manifest: dict[str, Any], *words: str) -> cli.Options:
        return manifests.inherit_options(options_of(*words), manifest)

    def test_inherited_options_assemble_the_same_manifest(self):
        earlier = assembled(*self.WORDS)
        options = self.inherited(earlier)
        self.assertEqual(options.target_url, "http://localhost:8080/api")
        again = assemble(options)
        self.assertEqual(again, earlier)
        manifests.require_same_run(earlier, again)

    def test_given_options_are_not_overruled(self):
        options = self.inherited(assembled(*self.WORDS), "--temperature", "0.5", "--target-url",
                                 "http://h", "--phases", "5q", "--device-tag", "other-box")
        self.assertEqual((options.temperature, options.target_url, options.phases,
                          options.device_tag, options.repeats),
                         (0.5, "http://h", "5q", "other-box", 2))

    def test_given_defaults_and_zeros_are_not_overruled(self):
        earlier = assembled("--temperature", "0.5", "--repeats", "3")
        options = self.inherited(earlier, "--temperature", "0", "--repeats", "1")
        self.assertEqual((options.temperature, options.repeats), (0.0, 1))

    def test_url_of_another_machine_is_not_inherited(self):
        earlier = assembled("--target-url", "http://192.168.1.7:8080", ip="192.168.1.7")
        self.assertEqual(self.inherited(earlier).target_url, cli.DEFAULT_URL)

    def test_rehearsal_is_inherited_without_its_endpoint(self):
        options = self.inherited(assembled("--target-url", "http://127.0.0.1:5", synthetic=True))
        self.assertEqual((options.rehearse, options.target_url), (True, cli.DEFAULT_URL))
        self.assertFalse(self.inherited(assembled()).rehearse)

    def test_smoke_is_inherited(self):
        self.assertEqual([self.inherited(assembled(*words)).smoke for words in ((), ("--smoke",))],
                         [False, True])

    def test_nothing_that_was_not_kept_is_inherited(self):
        options = self.inherited(assembled("--api-key-env", "K", "--no-calibration"))
        self.assertEqual((options.api_key_env, options.no_calibration, options.given),
                         (None, False, frozenset()))


class RequireSameRun(unittest.TestCase):
    CHANGES = {
        "harness_version": "public-2", "files_sha256": {"harness/a.py": "1" * 64},
        "submitter_handle": "bob", "device_tag": "other-box", "cell_id_prefix": "x:y",
        "synthetic": True, "smoke": True, "target": {"class": "lan"}, "models": ["n"],
        "plan": {"repeats": 2}, "canonical_options_overrides": {"num_ctx": 1},
        "prompt_cache": {"policy": "allow"}, "timeout_s": 1.0, "host_hostname_short": None}

    def test_each_changed_field_is_refused_by_name(self):
        earlier = assembled()
        self.assertEqual(set(self.CHANGES), set(manifests.MUST_AGREE))
        for name, value in self.CHANGES.items():
            now = copy.deepcopy(earlier)
            now[name] = {**now[name], **value} if isinstance(value, dict) else value
            with self.subTest(name), self.assertRaises(HarnessError) as raised:
                manifests.require_same_run(earlier, now)
            before, after = schema.difference(name, earlier[name], now[name])
            self.assertIn(f"cannot be resumed like this: {before}, now it is {after}. ",
                          str(raised.exception))

    def test_another_engine_is_refused_but_not_another_version(self):
        earlier = assembled()
        manifests.require_same_run(earlier, {**earlier, "engine": {**ENGINE, "version": "9"}})
        with self.assertRaisesRegex(HarnessError, 'engine was "LM Studio", now it is "vLLM"'):
            manifests.require_same_run(earlier, {**earlier, "engine": {**ENGINE, "name": "vLLM"}})

    def test_time_git_and_python_may_change(self):
        earlier = assembled()
        manifests.require_same_run(earlier, {**earlier, "started_at": "x", "git": {}, "os": {},
                                             "python": {}, "contexts": []})

    def test_endpoint_of_a_rehearsal_may_have_another_port(self):
        earlier = assembled("--target-url", "http://127.0.0.1:5", synthetic=True)
        now = assembled("--target-url", "http://127.0.0.1:6", synthetic=True)
        manifests.require_same_run(earlier, now)

    def test_all_changed_fields_are_named(self):
        earlier = assembled()
        with self.assertRaisesRegex(
                HarnessError, r"plan\.repeats was 1, now it is 2 \(plan, timeout_s differ\)\."):
            manifests.require_same_run(earlier, assembled("--repeats", "2", "--timeout", "5"))


class RequireValidNames(unittest.TestCase):
    def test_invalid_names_are_refused(self):
        for words, message in (
                (("--submitter-handle", "Ada L"), names.handle_problem("Ada L")),
                (("--device-tag", "Adas-Mac"), names.device_tag_problem("Adas-Mac")),
                (("--cell-id-prefix", "x"), names.cell_id_prefix_problem("x"))):
            with self.assertRaises(HarnessError) as raised:
                manifests.require_valid_names(options_of(*words))
            self.assertEqual(str(raised.exception), message)
        manifests.require_valid_names(options_of("--submitter-handle", "ada",
                                                 "--cell-id-prefix", "x:y"))

    def test_names_of_this_machine_are_refused(self):
        with mock.patch.object(names, "this_machine",
                               lambda: [privacy.MachineName("host", "tower-8gb")]), \
                self.assertRaises(HarnessError):
            manifests.require_valid_names(options_of("--device-tag", "tower-8gb"))


if __name__ == "__main__":
    unittest.main()
