"""Values for --set: keys, accepted values, and what is worth asking for."""
from __future__ import annotations

import copy
import json
import os
import unittest
from pathlib import Path

from complete import declared, metadata
from core import schema
from core.errors import HarnessError
from machine import inventory
from tests import make_example


class Keys(unittest.TestCase):
    def test_every_key_has_a_description_and_accepted_values(self) -> None:
        for key in declared.all_keys(2):
            self.assertEqual(key, declared.full_key(key, 2))
            self.assertEqual(key, declared.full_key(declared.short_key(key, 2), 2))
            self.assertTrue(declared.accepted(key), key)
            self.assertTrue(declared.field(key)["description"].isascii(), key)

    def test_every_value_with_an_example_says_where_to_look(self) -> None:
        for key in declared.all_keys(1):
            node = declared.field(key)
            if "examples" in node or key.startswith("metadata.models"):
                self.assertTrue("; see " in node["description"] or "set those" in
                                node["description"], key)

    def test_every_value_of_a_submission_has_a_key(self) -> None:
        folder = os.path.join(make_example.SUBMISSIONS, make_example.RUN)
        keys = set(declared.all_keys(1))
        for name in ("hardware", "metadata"):
            document = json.loads(Path(folder, f"{name}.json").read_text("utf-8"))
            found = {f"{name}.{key}" for key, _ in metadata.values(document)}
            self.assertTrue(found)
            self.assertEqual(set(), found - keys)

    def test_model_stands_for_the_first_model(self) -> None:
        for text, key in (("model.name", "name"), ("model.source_repository", "source_repository"),
                          ("model.quantization", "quantization")):
            self.assertEqual(declared.full_key(text, 2), f"metadata.models.0.{key}")

    def test_modification_of_a_machine_is_declared_and_withdrawn(self) -> None:
        key = "hardware.system.modification"
        value = declared.parse(key, "undervolted to 0.9 V")
        plain = declared.remote_hardware({"version": "3.9.6", "implementation": "CPython"})
        made = declared.declare(plain, {"system.modification": value})
        self.assertEqual(made["system"]["modification"]["value"], value)
        self.assertNotIn("modification", plain["system"])
        self.assertEqual(schema.validate(declared.declare(made, {"system.modification": None}),
                                         "hardware"), [])

    def test_remote_hardware_fits_the_schema(self) -> None:
        document = declared.remote_hardware({"version": "3.9.6", "implementation": "CPython"})
        self.assertEqual([], schema.validate(document, "hardware"))

    def test_declared_hardware_can_be_rebuilt(self) -> None:
        card = {"vendor": "NVIDIA", "model_name": "NVIDIA L40S"}
        for cards in (None, [], [card], [card, card]):
            base = inventory.assemble({"cpu": {"threads_count": 8}, "accelerators": cards})
            for values in ({}, {"cpu.threads_count": 8}, {"cpu.threads_count": 16},
                           {"cpu.threads_count": None, "memory.type": "DDR5"},
                           {"system.modification": "undervolted"}, {"accelerators_count": 2},
                           {f"accelerators.{len(cards or ())}.model_name": "NVIDIA L4"},
                           {"accelerators.0.model_name": None} if cards else {}):
                made = declared.declare(base, values)
                self.assertEqual(made, declared.declare(base, metadata.declared_in(made)))
                self.assertEqual([], schema.validate(made, "hardware"))

    def test_text_becomes_the_type_of_its_key(self) -> None:
        for key, text, value in (
                ("hardware.memory.unified", "true", True),
                ("hardware.memory.unified", "false", False),
                ("hardware.memory.speed_mts", "6000", 6000),
                ("hardware.cpu.max_mhz", "5.5e3", 5500.0),
                ("hardware.cpu.instruction_sets", "avx2, fma", ["avx2", "fma"]),
                ("hardware.memory.type", "DDR5", "DDR5"),
                ("metadata.runtime.kv_cache_type", "q8_0/f16", "q8_0/f16"),
                ("metadata.runtime.flash_attention", "on", "on"),
                ("metadata.models.0.draft_model", "none", "none"),
                ("metadata.models.0.file_bytes", "null", None)):
            found = declared.parse(key, text)
            self.assertEqual((type(value), value), (type(found), found))


class MissingValues(unittest.TestCase):
    def setUp(self) -> None:
        self.hardware = declared.remote_hardware({"version": "3.9.6", "implementation": "CPython"})
        manifest = make_example.manifest_of(("hello",), synthetic=False)
        events = make_example.ledger_of(manifest, [make_example.Call(9, [9] * 7, "word")])
        self.document = metadata.build(manifest, events, "0" * 64, self.hardware, {})

    def keys(self, flags_known: bool = False) -> set[str]:
        return {one.key for one in declared.missing_values(self.document, self.hardware,
                                                           flags_known)}

    def test_settings_are_not_asked_for_once_the_flags_are_known(self) -> None:
        settings = {f"metadata.runtime.{name}" for name in (
            "flash_attention", "kv_cache_type", "batch_tokens", "micro_batch_tokens")}
        settings.add("metadata.models.0.draft_model")
        self.assertEqual(settings, self.keys() - self.keys(flags_known=True))
        self.document["runtime"]["launch_flags"] = metadata.known("-t 4", "declared")
        self.assertEqual(set(), settings & self.keys())

    def test_memory_modules_are_not_asked_for_in_a_virtual_machine(self) -> None:
        self.assertIn("hardware.memory.type", self.keys())
        self.hardware["system"]["kind"] = metadata.known("vm", "declared")
        self.assertNotIn("hardware.memory.type", self.keys())

    def test_active_parameters_are_asked_for_only_in_a_mixture_of_experts(self) -> None:
        for model, is_mixture in (("Qwen3-30B-A3B-Q4_K_M", True), ("mixtral:8x7b", True),
                                  ("gpt-oss:20b", True), ("gemma-3-4b-it", False),
                                  ("smollm2-135m", False)):
            self.document["models"][0]["model"] = model
            self.assertEqual(is_mixture,
                             "metadata.models.0.active_parameters_count" in self.keys(), model)

    def test_name_is_required_where_the_server_says_only_default(self) -> None:
        key = "metadata.models.0.name"
        for model, is_generic in (("default", True), ("/models/model.gguf", True),
                                  ("gpt-3.5-turbo", True), ("local-model", True),
                                  ("gpt-oss:20b", False), ("qwen2.5:1.5b", False)):
            self.document["models"][0]["model"] = model
            self.assertEqual(is_generic, key in declared.important_keys(
                self.document, self.hardware), model)
        self.document["models"][0]["model"] = "default"
        for name, value, is_asked in (("name", "Qwen/Qwen3-8B", False),
                                      ("source_repository", "Qwen/Qwen3-8B", False),
                                      ("file_name", "Qwen3-8B.gguf", False),
                                      ("file_name", "model.gguf", True)):
            document = copy.deepcopy(self.document)
            document["models"][0][name] = metadata.known(value, "declared")
            self.assertEqual(is_asked, key in declared.important_keys(document, self.hardware))

    def test_examples_are_accepted(self) -> None:
        self.document["models"][0]["model"] = "default-8x7b"
        for one in declared.missing_values(self.document, self.hardware):
            self.assertIsNotNone(declared.parse(one.key, one.example), one.key)
            with self.assertRaises(HarnessError):
                declared.parse(one.key, one.option()[1].partition("=")[2])


if __name__ == "__main__":
    unittest.main()
