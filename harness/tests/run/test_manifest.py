"""manifest.json: assembled, taken up again, held against a resume; and which models are asked."""

from __future__ import annotations

import argparse
import copy
import platform
import unittest
from typing import Any, Optional
from unittest import mock

import run_benchmark
from core import answer_checks, names, plan, privacy, schema, suites
from core.errors import HarnessError
from engines import queries
from run import cli
from run import manifest as manifests

from tests import runs

SUITES = suites.load_suites(str(runs.HARNESS / "suites"), answer_checks.FORMAT_RULES)
CANONICAL = run_benchmark.CANONICAL_OPTIONS
RUN_ID = "11111111-2222-4333-8444-555555555555"
HASHES = {"harness/a.py": "0" * 64}
GIT = {"commit": "f" * 40, "dirty": False}
ENGINE = {"name": "LM Studio", "version": "0.3", "build": None, "recognised_by": "/api/v0/models"}


def arguments(*words: str, settle: bool = True) -> argparse.Namespace:
    args = run_benchmark.build_parser().parse_args(words)
    if settle:
        cli.settle(args, CANONICAL)
    return args


def assembled(*words: str, served: Optional[dict[str, str]] = None, synthetic: bool = False,
              host: str = "box.local", ip: Optional[str] = "127.0.0.1") -> dict[str, Any]:
    args, served = arguments(*words), served or {"m": "/home/ada/m.gguf"}
    found = manifests.RunContext(RUN_ID, "public-1", CANONICAL, SUITES, "2026-11-24T10:00:00.000Z",
                            synthetic, cli.parse_target(args.target_url), ip, host)
    return manifests.assemble(args, found, ENGINE, served, {name: {} for name in served}, HASHES,
                              GIT)


class Assemble(unittest.TestCase):
    maxDiff = None

    def test_a_canonical_run(self):
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
            "hostname_omitted": False, "api_key_used": False})

    def test_it_fits_its_schema(self):
        for words in ((), ("--smoke",), ("--phases", "all", "--repeats", "3", "--no-hostname")):
            self.assertEqual(schema.validate(assembled(*words), "manifest"), [])

    def test_every_deviation_from_the_canonical_knobs_stands_there_by_itself(self):
        for words, overrides in (((), {}), (("--temperature", "0.1", "--num-ctx", "4096"), {}),
                                 (("--temperature", "0"), {"temperature": 0.0}),
                                 (("--num-ctx", "8192", "--num-predict", "64"),
                                  {"num_ctx": 8192, "num_predict": 64})):
            self.assertEqual(assembled(*words)["canonical_options_overrides"], overrides)

    def test_the_prefix_is_typed_or_made_of_tag_and_engine(self):
        for words, prefix in (((), "local:lm-studio"),
                              (("--device-tag", "mac-m1-8gb"), "mac-m1-8gb:lm-studio"),
                              (("--cell-id-prefix", "x:y"), "x:y")):
            self.assertEqual(assembled(*words)["cell_id_prefix"], prefix)
        for name, plain in (("llama.cpp", "llama.cpp"), ("LM Studio", "lm-studio"),
                            ("x" * 50, "x" * 32), ("a/b\x1b", "a-b-")):
            self.assertEqual(names.plain_engine(name), plain)

    def test_where_the_endpoint_is_stands_there_as_a_class_and_never_as_an_address(self):
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

    def test_the_host_name_is_short_and_can_be_left_out(self):
        for words, host, name in (((), "box.example.org", "box"), ((), "x" * 80, "x" * 63),
                                  ((), "", None), (("--no-hostname",), "box", None)):
            self.assertEqual(assembled(*words, host=host)["host_hostname_short"], name)

    def test_a_smoke_run_is_one_hello(self):
        made = assembled("--smoke", "--phases", "all")
        self.assertEqual((made["smoke"], [p["phase"] for p in made["plan"]["phases"]]),
                         (True, ["hello"]))

    def test_a_rehearsal_says_that_it_is_one(self):
        self.assertEqual([assembled(synthetic=s)["synthetic"] for s in (True, False)],
                         [True, False])


class Adopt(unittest.TestCase):
    WORDS = ("--target-url", "http://localhost:8080/api", "--models", "m", "--phases", "frozen",
             "--repeats", "2", "--lanes", "8", "--timeout", "7", "--temperature", "0",
             "--num-ctx", "8192", "--num-predict", "3", "--prompt-cache", "allow",
             "--submitter-handle", "ada", "--device-tag", "mac-m1-8gb", "--cell-id-prefix", "x:y",
             "--no-hostname")

    def adopted(self, manifest: dict[str, Any], *words: str) -> argparse.Namespace:
        args = arguments(*words, settle=False)
        manifests.inherit_options(args, manifest)
        cli.settle(args, CANONICAL)
        return args

    def test_what_was_not_typed_is_as_it_was_so_that_the_same_manifest_is_made_again(self):
        earlier = assembled(*self.WORDS)
        args = self.adopted(earlier)
        self.assertEqual(args.target_url, "http://127.0.0.1:8080/api")
        found = manifests.RunContext(RUN_ID, "public-1", CANONICAL, SUITES, earlier["started_at"], False,
                                cli.parse_target(args.target_url), "127.0.0.1", "box")
        again = manifests.assemble(args, found, ENGINE, {"m": "/home/ada/m.gguf"}, {"m": {}},
                                   HASHES, GIT)
        self.assertEqual(again, earlier)
        manifests.require_same_run(earlier, again)

    def test_what_was_typed_is_not_overruled(self):
        args = self.adopted(assembled(*self.WORDS), "--temperature", "0.5", "--target-url",
                            "http://h", "--phases", "5q", "--device-tag", "other-box")
        self.assertEqual((args.temperature, args.target_url, args.phases, args.device_tag,
                          args.repeats), (0.5, "http://h", "5q", "other-box", 2))

    def test_a_typed_zero_is_typed(self):
        args = self.adopted(assembled("--temperature", "0.5"), "--temperature", "0")
        self.assertEqual(args.temperature, 0.0)

    def test_an_endpoint_elsewhere_is_not_known_from_a_manifest(self):
        earlier = assembled("--target-url", "http://192.168.1.7:8080", ip="192.168.1.7")
        self.assertEqual(self.adopted(earlier).target_url, cli.DEFAULT_URL)

    def test_a_rehearsal_stays_one_and_has_an_endpoint_of_its_own(self):
        args = self.adopted(assembled("--target-url", "http://127.0.0.1:5", synthetic=True))
        self.assertEqual((args.rehearse, args.target_url), (True, cli.DEFAULT_URL))
        self.assertFalse(self.adopted(assembled()).rehearse)

    def test_a_smoke_run_stays_one(self):
        self.assertEqual([self.adopted(assembled(*words)).smoke for words in ((), ("--smoke",))],
                         [False, True])


class RefuseDifference(unittest.TestCase):
    CHANGES = {
        "harness_version": "public-2", "files_sha256": {"harness/a.py": "1" * 64},
        "submitter_handle": "bob", "device_tag": "other-box", "cell_id_prefix": "x:y",
        "synthetic": True, "smoke": True, "target": {"class": "lan"}, "models": ["n"],
        "plan": {"repeats": 2}, "canonical_options_overrides": {"num_ctx": 1},
        "prompt_cache": {"policy": "allow"}, "timeout_s": 1.0, "host_hostname_short": None}

    def test_each_of_them_alone_is_refused_by_its_name(self):
        earlier = assembled()
        self.assertEqual(set(self.CHANGES), set(manifests.MUST_AGREE))
        for name, value in self.CHANGES.items():
            now = copy.deepcopy(earlier)
            now[name] = {**now[name], **value} if isinstance(value, dict) else value
            with self.assertRaises(HarnessError) as raised:
                manifests.require_same_run(earlier, now)
            before, after = schema.difference(name, earlier[name], now[name])
            self.assertEqual(str(raised.exception), (
                f"run {RUN_ID} cannot go on like this: {before}, now it is {after}. Resume it with "
                "the flags and files it was begun with, or leave --run-id out for a new run"))

    def test_another_engine_is_refused_but_not_another_version_of_it(self):
        earlier = assembled()
        manifests.require_same_run(earlier, {**earlier, "engine": {**ENGINE, "version": "9"}})
        with self.assertRaisesRegex(HarnessError, 'engine was "LM Studio", now it is "vLLM"'):
            manifests.require_same_run(earlier, {**earlier, "engine": {**ENGINE, "name": "vLLM"}})

    def test_time_git_and_python_say_nothing_of_what_is_asked(self):
        earlier = assembled()
        manifests.require_same_run(earlier, {**earlier, "started_at": "x", "git": {}, "os": {},
                                              "python": {}, "contexts": []})

    def test_a_rehearsals_endpoint_has_another_port_each_time(self):
        earlier = assembled("--target-url", "http://127.0.0.1:5", synthetic=True)
        now = assembled("--target-url", "http://127.0.0.1:6", synthetic=True)
        manifests.require_same_run(earlier, now)

    def test_all_that_differ_are_named(self):
        earlier = assembled()
        with self.assertRaisesRegex(HarnessError, r"plan\.repeats was 1, now it is 2 \(plan, timeout_s "
                                    r"differ\)\."):
            manifests.require_same_run(earlier, assembled("--repeats", "2", "--timeout", "5"))


class RefuseNames(unittest.TestCase):
    def test_names_are_looked_at_before_anything_is_sent(self):
        for words, message in (
                (("--submitter-handle", "Ada L"), names.handle_problem("Ada L")),
                (("--device-tag", "Adas-Mac"), names.device_tag_problem("Adas-Mac")),
                (("--cell-id-prefix", "x"), names.cell_id_prefix_problem("x"))):
            with self.assertRaises(HarnessError) as raised:
                manifests.require_valid_names(arguments(*words))
            self.assertEqual(str(raised.exception), message)
        manifests.require_valid_names(arguments("--submitter-handle", "ada", "--cell-id-prefix", "x:y"))

    def test_this_machines_own_names_are_known(self):
        with mock.patch.object(manifests, "this_machine",
                               lambda: [privacy.MachineName("host", "tower-8gb")]), \
                self.assertRaisesRegex(HarnessError, "looks like the name of a person or of a machine"):
            manifests.require_valid_names(arguments("--device-tag", "tower-8gb"))


# --- models --------------------------------------------------------------------------------------
def listed(*ids: str, silent: tuple[str, ...] = ()) -> list[dict[str, Any]]:
    return [{"id": name, "chat": name not in silent} for name in ids]


class ChooseModels(unittest.TestCase):
    def chosen(self, asked: Optional[str], models: list[dict[str, Any]]) -> Any:
        try:
            return manifests.choose_models(asked, models)
        except HarnessError as stop:
            return str(stop)

    def test_the_only_one_is_taken(self):
        self.assertEqual(self.chosen(None, listed("/home/ada/m.gguf")),
                         ({"m.gguf": "/home/ada/m.gguf"}, []))

    def test_several_are_an_error_that_lists_them(self):
        self.assertEqual(self.chosen(None, listed("a", "b\u202e")),
                         "the endpoint serves several models; name some with --models, or type "
                         r"--models auto for all that chat: a, b?")

    def test_none_is_an_error(self):
        self.assertEqual(self.chosen(None, []),
                         "the endpoint lists no models; type --models NAME")

    def test_auto_takes_all_that_chat_and_tells_the_others(self):
        self.assertEqual(self.chosen("auto", listed("a", "e", "b", silent=("e",))),
                         ({"a": "a", "b": "b"}, ["e"]))
        self.assertEqual(self.chosen("auto", listed("e", silent=("e",))),
                         "--models auto: the endpoint lists no model that chats (it lists: e)")
        self.assertEqual(self.chosen("auto", []),
                         "--models auto: the endpoint lists no model that chats (it lists: none)")

    def test_named_ones_are_taken_in_their_order_and_once(self):
        models = listed("a", "org/b:latest", "/home/ada/c.gguf", "e", silent=("e",))
        self.assertEqual(self.chosen("c.gguf, a,a , org/b,e", models), (
            {"c.gguf": "/home/ada/c.gguf", "a": "a", "org/b:latest": "org/b:latest", "e": "e"}, []))

    def test_an_unknown_one_is_refused_with_the_nearest_first(self):
        self.assertEqual(self.chosen("qwen2.5:7", listed("llama3:8b", "qwen2.5:7b", "phi")),
                         "--models qwen2.5:7: the endpoint does not serve it; it serves: "
                         "qwen2.5:7b, llama3:8b, phi")
        self.assertEqual(self.chosen("\x1b[31m", listed("a")), r"--models \x1b[31m: the endpoint "
                         "does not serve it; it serves: a")

    def test_a_list_of_nothing_is_refused(self):
        self.assertEqual(self.chosen(" , ", listed("a")), "--models names none; served: a")

    def test_a_server_that_lists_nothing_is_asked_for_what_is_typed(self):
        self.assertEqual(self.chosen("a", []), ({"a": "a"}, []))

    def test_two_that_would_be_published_as_one_are_refused(self):
        self.assertEqual(self.chosen("auto", listed("/x/m.gguf", "/y/m.gguf")),
                         "two models would both be published as m.gguf; serve one of them under "
                         "another name")
