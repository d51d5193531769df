"""Titles of machines and models as a reader writes them, and classes of model sizes.

Titles are made from identity's canonical names, so that one thing has one title everywhere.
"""
from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Optional

from core.text import printable

# Largest number of parameters of each class, for models that use all of them for each token, and
# for mixtures of experts. A model belongs in the first class that is large enough.
DENSE = (("\u2264 2 B", 2.2e9), ("3\u20134 B", 5.5e9), ("7\u20139 B", 10.5e9),
         ("12\u201314 B", 18e9), ("20\u201335 B", 45e9), ("70 B", float("inf")))
MIXTURES = (("\u2264 40 B MoE", 45e9), ("100 B MoE", float("inf")))
SIZE_UNKNOWN = "size unknown"
SIZES = (*(name for name, _ in DENSE), *(name for name, _ in MIXTURES), SIZE_UNKNOWN)

MIXTURE_NAMES = re.compile(r"\ba\d+(\.\d+)?b\b|\b\d+x\d+b\b|^(gpt-oss|mixtral|olmoe|granite-4-h"
                           r"|deepseek-v[23]|kimi-k2|llama-4)\b")
UNKNOWN_CHIPS = re.compile(r"cortex|bcm|rk\d|gb\d|neoverse|arm|unknown processor")
WORDS = {"ti": "Ti", "max": "Max", "pro": "Pro", "arc": "Arc", "super": "SUPER", "epyc": "EPYC",
         "pcie": "PCIe", "x": "\u00d7", "laptop": "laptop", "gpt": "gpt", "oss": "oss",
         "smollm": "SmolLM", "deepseek": "DeepSeek", "qwq": "QwQ", "olmo": "OLMo", "phi": "Phi",
         "yi": "Yi", "mini": "mini", "it": "it"}


def _word(word: str) -> str:
    if word in WORDS:
        return WORDS[word]
    if re.fullmatch(r"i[3579](-.*)?", word):
        return word[0] + word[1:].upper()
    first, dash, rest = word.partition("-")
    if dash and first.isalpha():
        return f"{_word(first)}-{rest.upper()}"
    return word.upper() if re.search(r"\d", word) or len(word) <= 3 else word.capitalize()


def machine_title(group: str, systems: Sequence[str] = ()) -> str:
    """`2 x rtx 3090 24 GiB` with a multiplication sign and GB. A chip that is known by its only
    system takes that name: `cortex-a76 8 GiB` is `Raspberry Pi 5 8 GB`."""
    if len(systems) == 1 and UNKNOWN_CHIPS.match(group):
        size = re.search(r"[\d.]+ GiB$", group)
        name = re.sub(r" (Model \w|Rev.*|Developer Kit)\b.*", "", systems[0])
        return f"{name} {size[0] if size else ''}".strip().replace("GiB", "GB")
    parts = group.split(" GiB")
    return " GB".join(" ".join(map(_word, part.split(" "))) for part in parts)


def machine_text(group: str, systems: Sequence[str] = ()) -> str:
    """machine_title in ASCII, for terminals."""
    return printable(machine_title(group, systems).replace("\u00d7", "x"))


def model_title(block: str) -> str:
    """`llama-3.1-8b instruct` is `Llama 3.1 8B`, `qwen-3-a3b-30b` is `Qwen 3 30B A3B`."""
    if block.startswith(("unnamed ", "sha256:")):
        return block
    name, _, tune = block.partition(" ")
    words = name.split("-")
    if len(words) > 1 and re.fullmatch(r"a\d+(\.\d+)?b", words[-2]):
        words[-2:] = words[:-3:-1]
    title = " ".join(map(_word, words)).replace("gpt oss", "gpt-oss")
    return title if tune in ("", "instruct") else f"{title} {tune}"


def size_class(block: str, parameters: Optional[int]) -> str:
    """One of SIZES, by the number of parameters or else by the name."""
    count = float(parameters or 0)
    for factor, size, unit in re.findall(r"(?:\b(\d+)x)?\b(\d+(?:\.\d+)?)([bm])\b", block):
        count = count or float(factor or 1) * float(size) * (1e9 if unit == "b" else 1e6)
    if not count:
        return SIZE_UNKNOWN
    classes = MIXTURES if MIXTURE_NAMES.search(block) else DENSE
    return next(name for name, largest in classes if count <= largest)
