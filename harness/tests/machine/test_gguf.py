"""Test the facts read from GGUF files, and files that are not GGUF."""

from __future__ import annotations

import hashlib
import io
import os
import struct
import tempfile
import unittest
from pathlib import Path
from typing import Any
from unittest import mock

from machine import gguf as ggufs


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value.encode())) + value.encode()


def pair(key: str, value: Any) -> bytes:
    """A key with a text, a whole number, or a list of texts."""
    if isinstance(value, str):
        return text(key) + struct.pack("<I", 8) + text(value)
    if isinstance(value, list):
        return text(key) + struct.pack("<IIQ", 9, 8, len(value)) + b"".join(map(text, value))
    return text(key) + struct.pack("<II", 4, value)


def gguf(*pairs: tuple[str, Any], version: int = 3) -> bytes:
    return struct.pack("<4sIQQ", b"GGUF", version, 0, len(pairs)) + b"".join(
        pair(key, value) for key, value in pairs)


ORDINARY = gguf(("general.architecture", "qwen3"), ("general.tags", ["chat", "small"]),
                ("general.file_type", 15),
                ("general.repo_url", "https://huggingface.co/Qwen/Qwen3-4B"),
                ("tokenizer.ggml.tokens", ["a"] * 300), ("general.name", "after the vocabulary"))


class Facts(unittest.TestCase):
    def facts(self, data: bytes, name: str = "m.gguf") -> dict[str, str]:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / name
            path.write_bytes(data)
            return ggufs.facts(str(path))

    def test_quantization_family_repository_and_digest(self):
        self.assertEqual(self.facts(ORDINARY), {
            "models.0.quantization": "Q4_K_M", "models.0.family": "qwen3",
            "models.0.source_repository": "Qwen/Qwen3-4B",
            "models.0.digest": "sha256:" + hashlib.sha256(ORDINARY).hexdigest()})

    def test_name_from_the_parts_of_the_naming_convention(self):
        parts = {"basename": "Qwen3", "size_label": "4B", "finetune": "Instruct",
                 "version": "2507"}
        for left_out, expected in (
                ((), "Qwen3 4B Instruct 2507"), (("version",), "Qwen3 4B Instruct"),
                (("size_label",), None), (("basename",), None)):
            data = gguf(*((f"general.{name}", value) for name, value in parts.items()
                          if name not in left_out))
            self.assertEqual(self.facts(data).get("models.0.name"), expected)

    def test_newest_file_types(self):
        for kind, name in ((38, "MXFP4_MOE"), (39, "NVFP4"), (40, "Q1_0")):
            self.assertEqual(self.facts(gguf(("general.file_type", kind)))[
                "models.0.quantization"], name)

    def test_nearest_repository_on_hugging_face(self):
        for pairs, expected in (
                ([("general.source.url", "https://huggingface.co/a/b"),
                  ("general.source.repo_url", "https://huggingface.co/c/d/")], "c/d"),
                ([("general.source.huggingface.repository", "e/f")], "e/f"),
                ([("general.repo_url", "http://192.168.1.23/home/sam")], None)):
            self.assertEqual(self.facts(gguf(*pairs)).get("models.0.source_repository"), expected)

    def test_parts_and_very_large_files_have_no_digest(self):
        self.assertNotIn("models.0.digest", self.facts(ORDINARY, "m-00001-of-00003.gguf"))
        with mock.patch.object(ggufs, "MAX_DIGEST_BYTES", len(ORDINARY) - 1):
            self.assertNotIn("models.0.digest", self.facts(ORDINARY))

    def test_other_files_give_nothing(self):
        for data in (b"", b"GGUF", b"PK\3\4" + b"\0" * 40,
                     gguf(("general.architecture", "x"), version=9),
                     gguf()):
            self.assertEqual(self.facts(data), {}, data)
        self.assertEqual(ggufs.facts(""), {})
        self.assertEqual(ggufs.facts(os.path.dirname(__file__)), {})

    def test_truncated_file_gives_what_was_read(self):
        whole = ggufs.read_keys(io.BytesIO(ORDINARY))
        self.assertEqual(list(whole), ["general.architecture", "general.file_type",
                                       "general.repo_url"])
        for end in range(len(ORDINARY)):
            found = ggufs.read_keys(io.BytesIO(ORDINARY[:end]))
            self.assertLessEqual(set(found), set(whole), end)

    def test_hostile_lengths_and_kinds_end_reading(self):
        head = struct.pack("<4sIQQ", b"GGUF", 3, 0, 2 ** 63)
        for data in (head + struct.pack("<Q", 2 ** 63), head + text("k") + struct.pack("<I", 99),
                     head + text("k") + struct.pack("<IQ", 8, 2 ** 62),
                     head + text("general.x") + struct.pack("<IIQ", 9, 9, 2 ** 62)):
            self.assertEqual(self.facts(data), {}, data)


if __name__ == "__main__":
    unittest.main()
