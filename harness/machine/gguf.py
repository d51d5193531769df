"""Read the facts in a GGUF model file on this machine, for the contributor to declare.

The file begins with keys and values; the general ones come before the long vocabulary, which is not
read. Format: the GGUF specification, versions 2 and 3 (github.com/ggml-org/ggml, docs/gguf.md).
"""
from __future__ import annotations

import hashlib
import os
import re
import stat
import struct
from typing import Any, BinaryIO, Optional, Union

MAX_DIGEST_BYTES = 8 * 1024 ** 3       # hashing more would take minutes
MAX_KEYS = 200
MAX_TEXT_BYTES = 4096
PART_BYTES = 1024 ** 2
STRING, ARRAY = 8, 9
NUMBERS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q",
           11: "<q", 12: "<d"}
# Keys that name the repository of the model, the nearest first.
SOURCES = ("general.repo_url", "general.source.repo_url", "general.source.url",
           "general.source.huggingface.repository")
# general.file_type: the type of most weights (llama.h, enum llama_ftype).
FILE_TYPES: dict[Any, str] = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 7: "Q8_0", 8: "Q5_0", 9: "Q5_1", 10: "Q2_K",
    11: "Q3_K_S", 12: "Q3_K_M", 13: "Q3_K_L", 14: "Q4_K_S", 15: "Q4_K_M", 16: "Q5_K_S",
    17: "Q5_K_M", 18: "Q6_K", 19: "IQ2_XXS", 20: "IQ2_XS", 21: "Q2_K_S", 22: "IQ3_XS",
    23: "IQ3_XXS", 24: "IQ1_S", 25: "IQ4_NL", 26: "IQ3_S", 27: "IQ3_M", 28: "IQ2_S", 29: "IQ2_M",
    30: "IQ4_XS", 31: "IQ1_M", 32: "BF16", 36: "TQ1_0", 37: "TQ2_0", 38: "MXFP4_MOE",
    39: "NVFP4", 40: "Q1_0"}
REPOSITORY = re.compile(r"(?:https?://huggingface\.co/)?([\w.-]{1,60}/[\w.-]{1,60})/?")
ONE_OF_SEVERAL = re.compile(r"-\d{5}-of-\d{5}\.gguf$")

Value = Union[str, int, float, bool]


def facts(path: str) -> dict[str, str]:
    """Facts of a model by the keys of --set; empty if the file is not GGUF or cannot be read.

    `models.0.digest` is missing for one of several parts, and for a very large file.
    """
    try:
        with open(path, "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                return {}
            keys = read_keys(file)
            whole = not ONE_OF_SEVERAL.search(path) and status.st_size <= MAX_DIGEST_BYTES
            digest = sha256_of(file) if keys and whole else None
    except (OSError, ValueError):
        return {}
    return {key: value for key, value in (
        ("models.0.quantization", FILE_TYPES.get(keys.get("general.file_type"))),
        ("models.0.family", keys.get("general.architecture")),
        ("models.0.source_repository", _repository(keys)),
        ("models.0.name", _name(keys)),
        ("models.0.digest", digest)) if isinstance(value, str) and value}


def read_keys(file: BinaryIO) -> dict[str, Value]:
    """The texts and numbers before the vocabulary; empty if the file is not GGUF."""
    found: dict[str, Value] = {}
    try:
        magic, version, _, count = struct.unpack("<4sIQQ", file.read(24))
        for _ in range(min(count, MAX_KEYS) if magic == b"GGUF" and version in (2, 3) else 0):
            key, (kind,) = _text(file), struct.unpack("<I", file.read(4))
            if kind == ARRAY:
                # general.tags is also a list of texts; the vocabulary ends the search.
                if not key.startswith("general."):
                    break
                _skip_texts(file)
            elif kind == STRING:
                found[key] = _text(file)
            else:
                form = NUMBERS[kind]
                found[key] = struct.unpack(form, file.read(struct.calcsize(form)))[0]
    except (struct.error, KeyError, ValueError):
        pass                           # truncated or of an unknown form: keep what was read
    return found


def _text(file: BinaryIO) -> str:
    (length,) = struct.unpack("<Q", file.read(8))
    if length > MAX_TEXT_BYTES:
        file.seek(length, os.SEEK_CUR)
        return ""
    return file.read(length).decode("utf-8", "replace")


def _skip_texts(file: BinaryIO) -> None:
    kind, length = struct.unpack("<IQ", file.read(12))
    if kind != STRING or length > MAX_KEYS:
        raise ValueError("not a list of texts")
    for _ in range(length):
        _text(file)


def sha256_of(file: BinaryIO) -> str:
    """`sha256:` and the digest of a whole file, read in parts."""
    digest = hashlib.sha256()
    file.seek(0)
    for part in iter(lambda: file.read(PART_BYTES), b""):
        digest.update(part)
    return "sha256:" + digest.hexdigest()


def _repository(found: dict[str, Value]) -> Optional[str]:
    """owner/name if the file names a repository."""
    named = [REPOSITORY.fullmatch(str(found[key])) for key in SOURCES if key in found]
    return next((match[1] for match in named if match), None)


def _name(found: dict[str, Value]) -> Optional[str]:
    """What the file is called, in the parts that the GGUF naming convention has; null without
    basename and size."""
    parts = [str(found.get(f"general.{name}") or "").strip()
             for name in ("basename", "size_label", "finetune", "version")]
    return " ".join(filter(None, parts)) if parts[0] and parts[1] else None
