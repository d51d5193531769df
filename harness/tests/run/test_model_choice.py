"""Test the choice of models: the default, names, aliases and refusals."""
from __future__ import annotations

import unittest
from typing import Any, Optional

from core.errors import HarnessError
from engines import queries
from run import model_choice
from tests.run.test_manifest import options_of


def listed(*ids: str, silent: tuple[str, ...] = (), **more: Any) -> list[Any]:
    """A server's list; the `silent` ones do not chat. more: fields of single models, by id."""
    plain = {"remote": None, "state": None, "same_as": None, "is_alias": False, "size_bytes": None,
             "chat_template": None}
    return [{"id": name, "chat": name not in silent, **plain, **more.get(name, {})} for name in ids]


CLOUD, LOADED = {"remote": "remote_host https://x"}, {"state": "loaded"}
TWIN, ALIAS = {"same_as": "a"}, {"same_as": "a", "is_alias": True}
NO_CHAT = "it is not a chat model, by its engine or by its name"


class ChooseModels(unittest.TestCase):
    def choose(self, asked: Optional[str], models: list[Any]) -> Any:
        words = ("--models", asked) if asked else ()
        return model_choice.choose_models(options_of(*words), models)

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
                ("auto: none that no instance runs", "auto",
                 listed("a", "b", a={"state": "not running"}, b=LOADED),
                 ({"b": "b"}, {"a": "no instance of it runs, and a call does not start one"})),
                ("a name with a comma", "Qwen 2.5, 7B", listed("Qwen 2.5, 7B", "7B"),
                 ({"Qwen 2.5, 7B": "Qwen 2.5, 7B"}, {})),
                ("auto: none of a cloud, by its name", "auto",
                 listed("a", "b", a={"remote": queries.remote("Ollama", "a:cloud", {})}),
                 ({"b": "b"}, {"a": "another machine computes it (cloud)"})),
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
                 r"none of the models .*: a \(another machine .*\), e \(it is not a chat"),
                ("a name that two models have", "m.gguf", listed("/x/m.gguf", "/y/m.gguf"),
                 r"serves 2 models of this name: m\.gguf~\w+, m\.gguf~\w+$")):
            with self.subTest(name), self.assertRaisesRegex(HarnessError, message):
                self.choose(asked, models)

    def test_choice_is_one_command_per_model_smallest_first_base_models_last(self):
        models = listed("big", "b\u202e", "small", "base", big={"size_bytes": 40_000_000_000},
                        small={"size_bytes": 270_886_685, **LOADED},
                        base={"size_bytes": 500_000_000, "chat_template": False, **LOADED})
        with self.assertRaises(HarnessError) as raised:
            model_choice.choose_models(options_of("--phases", "all", "--no-hostname"), models)
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
        base, twin = model_choice.model_notes("a", models[0], models)
        self.assertIn("no chat template (a base model)", base)
        self.assertEqual(twin, "a: the same weights as b")
        self.assertEqual(model_choice.model_notes("b", models[1], models),
                         ["b: the same weights as a"])
        self.assertEqual(model_choice.model_notes("c", models[2], models), [])


if __name__ == "__main__":
    unittest.main()
