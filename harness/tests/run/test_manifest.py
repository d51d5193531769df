"""manifest.json: assembling it, inheriting options, comparing a resume with it, choosing models."""

from __future__ import annotations

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


def options_of(*words: str) -> cli.Options:
    return cli.parse_options(run_benchmark.build_parser(), words, run_benchmark.defaults())


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
            "kept_awake_by": None, "hostname_omitted": False, "api_key_used": False})

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
            self.assertEqual(names.plain_engine(name), plain)

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
        with mock.patch.object(manifests, "this_machine",
                               lambda: [privacy.MachineName("host", "tower-8gb")]), \
                self.assertRaises(HarnessError):
            manifests.require_valid_names(options_of("--device-tag", "tower-8gb"))


# --- models --------------------------------------------------------------------------------------
def listed(*ids: str, silent: tuple[str, ...] = (), **more: Any) -> list[Any]:
    """A server's list; the `silent` ones do not chat. more: fields of single models, by id."""
    plain = {"remote": None, "state": None, "same_as": None, "is_alias": False, "size_bytes": None,
             "chat_template": None}
    return [{"id": name, "chat": name not in silent, **plain, **more.get(name, {})} for name in ids]


CLOUD, LOADED = {"remote": "remote_host https://x"}, {"state": "loaded"}
TWIN, ALIAS = {"same_as": "a"}, {"same_as": "a", "is_alias": True}
NO_CHAT = "it does not chat, as the engine says or its name does"


class ChooseModels(unittest.TestCase):
    def choose(self, asked: Optional[str], models: list[Any]) -> Any:
        return manifests.choose_models(options_of(*(("--models", asked) if asked else ())), models)

    def test_chosen_models(self):
        several = listed("a", "org/b:latest", "/home/ada/c.gguf", "e", silent=("e",))
        for name, asked, models, expected in (
                ("the only one", None, listed("/home/ada/m.gguf"),
                 ({"m.gguf": "/home/ada/m.gguf"}, {})),
                ("the only one that chats", None, listed("e", "a", silent=("e",)),
                 ({"a": "a"}, {})),
                ("the loaded one", None, listed("a", "b", b=LOADED), ({"b": "b"}, {})),
                ("the local one", None, listed("a", "b", a=CLOUD), ({"b": "b"}, {})),
                ("auto: all chat models", "auto", listed("a", "e", "b", silent=("e",)),
                 ({"a": "a", "b": "b"}, {"e": NO_CHAT})),
                ("auto: none that another machine computes, nor one that failed", "auto",
                 listed("a", "b", "c", a=CLOUD, b={"state": "failed"}),
                 ({"c": "c"}, {"a": "another machine computes it (remote_host)",
                               "b": "the server reports that it failed to load"})),
                ("auto: one of several names", "auto", listed("a", "b", b=TWIN),
                 ({"a": "a"}, {"b": "it has the same weights as a"})),
                ("an alias is the model itself", "b", listed("a", "b", b=ALIAS), ({"a": "a"}, {})),
                ("another name of the weights stays", "b", listed("a", "b", b=TWIN),
                 ({"b": "b"}, {})),
                ("as printed on a terminal without its letters", "\\u6a21", listed("\u6a21", "b"),
                 ({"\u6a21": "\u6a21"}, {})),
                ("named, in their order and once", "c.gguf, a,a , org/b,e", several,
                 ({"c.gguf": "/home/ada/c.gguf", "a": "a", "org/b:latest": "org/b:latest",
                   "e": "e"}, {})),
                ("named, where the server lists none", "a", [], ({"a": "a"}, {}))):
            with self.subTest(name):
                self.assertEqual(self.choose(asked, models), expected)

    def test_two_models_of_one_published_name_get_different_names(self):
        served, _ = self.choose("auto", listed("/x/m.gguf", "/y/m.gguf"))
        self.assertEqual(list(served.values()), ["/x/m.gguf", "/y/m.gguf"])
        for name, served_id in served.items():
            self.assertRegex(name, r"\Am\.gguf~[0-9a-f]{6}\Z")
            self.assertEqual(self.choose(name, listed("/x/m.gguf", "/y/m.gguf"))[0],
                             {name: served_id})

    def test_refused_choices_list_what_is_served(self):
        for name, asked, models, message in (
                ("none", None, [], r"lists no models; .* --models$"),
                ("auto without a chat model", "auto", listed("e", silent=("e",)),
                 r"--models auto: .* no chat model \(it lists: e\)$"),
                ("auto without a model", "auto", [], r"no chat model \(it lists: none\)$"),
                ("unknown: nearest first", "qwen2.5:7", listed("llama3:8b", "qwen2.5:7b", "phi"),
                 r"does not serve it; it serves: qwen2\.5:7b, llama3:8b, phi$"),
                ("unknown, with control characters", "\x1b[31m", listed("a"),
                 r"^--models \\x1b\[31m: the endpoint does not serve it; it serves: a$"),
                ("an empty list", " , ", listed("a"), r"--models names no model; .*: a$"),
                ("a hosted model", "a", listed("a", "b", a=CLOUD),
                 r"--models a: another machine computes it \(remote_host https://x\)"),
                ("the only one, hosted", None, listed("a", a=CLOUD), "another machine computes it"),
                ("nothing that can be measured", None, listed("a", "e", silent=("e",), a=CLOUD),
                 r"none of the models .*: a \(another machine .*\), e \(it does not chat"),
                ("a name that two models have", "m.gguf", listed("/x/m.gguf", "/y/m.gguf"),
                 r"serves 2 models of this name: m\.gguf~\w+, m\.gguf~\w+$")):
            with self.subTest(name), self.assertRaisesRegex(HarnessError, message):
                self.choose(asked, models)

    def test_choice_is_one_command_per_model_smallest_first_base_models_last(self):
        models = listed("big", "b\u202e", "small", "base", big={"size_bytes": 40_000_000_000},
                        small={"size_bytes": 270_886_685, **LOADED},
                        base={"size_bytes": 500_000_000, "chat_template": False, **LOADED})
        with self.assertRaises(HarnessError) as raised:
            manifests.choose_models(options_of("--phases", "all", "--no-hostname"), models)
        first, *lines = str(raised.exception).splitlines()
        self.assertIn("serves 4 models and 2 are loaded", first)
        self.assertEqual(lines[:2], [
            "small (271 MB, loaded):", "  python3 harness/run_benchmark.py --models small --phases "
            "all --no-hostname"])
        self.assertTrue(lines[2].startswith("big "))
        self.assertEqual(lines[-2], "base (500 MB, loaded, no chat template: a base model):")

    def test_long_choice_is_cut(self):
        with self.assertRaises(HarnessError) as raised:
            self.choose(None, listed(*(f"m{i}" for i in range(150))))
        self.assertTrue(str(raised.exception).endswith("and 138 more, which --probe lists"))

    def test_notes_of_chosen_models(self):
        models = listed("a", "b", "c", a={"chat_template": False}, b=TWIN)
        base, twin = manifests.model_notes("a", models[0], models)
        self.assertIn("no chat template (a base model)", base)
        self.assertEqual(twin, "a: the same weights as b")
        self.assertEqual(manifests.model_notes("b", models[1], models),
                         ["b: the same weights as a"])
        self.assertEqual(manifests.model_notes("c", models[2], models), [])


if __name__ == "__main__":
    unittest.main()
