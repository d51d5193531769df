"""Prompts of the phase depth, made from the frozen texts until they have the length of a level.

The two questions that follow such a text are in core/suites. The check recomputes the prompts, so
this file is pinned with what measures.
"""
from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import cycle
from typing import Optional

from core.suites import ALL_PHASES, Question

CHARS_PER_TOKEN = 4                   # until the server has counted a prompt
CHARS_PER_TOKEN_LIMITS = (1, 8)
SOURCE_CHARS = 1 << 16                # of the text whose hash is in the manifest
WORDS = ("amber", "basalt", "cobalt", "copper", "granite", "indigo", "marble", "quartz")


def canaries(depth: int) -> tuple[str, ...]:
    """The three codes that a prompt of this depth contains: at its head, middle and tail."""
    return tuple(f"{WORDS[digest[0] % len(WORDS)]}-{digest[1] * 256 + digest[2]:05d}"
                 for digest in (hashlib.sha256(f"{depth} {place}".encode("ascii")).digest()
                                for place in ("head", "middle", "tail")))


def source_texts(suites: Mapping[str, Sequence[Question]]) -> tuple[str, ...]:
    """All frozen prompts once, in the order of the phases."""
    return tuple(dict.fromkeys(question.prompt for name in ALL_PHASES
                               for question in suites.get(name, ())))


@lru_cache(maxsize=4)
def document(texts: tuple[str, ...], depth: int, chars: int) -> str:
    """Notes made of the frozen texts: `chars` characters that include the three canaries."""
    head, middle, tail = (f"Reference code: {code}\n\n" for code in canaries(depth))
    room = max(chars - len(head) - len(middle) - len(tail) - 4, 0)
    parts, length, turns = list[str](), 0, cycle(texts)
    while length < room:
        parts.append(f"Note {len(parts) + 1}\n{next(turns).strip()}\n\n")
        length += len(parts[-1])
    text = "".join(parts)
    return f"{head}{text[:room // 2]}\n\n{middle}{text[room // 2:room]}\n\n{tail}"


def source_sha256(suites: Mapping[str, Sequence[Question]]) -> str:
    """SHA-256 of a document of fixed size, for the manifest."""
    text = document(source_texts(suites), 0, SOURCE_CHARS)
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def document_chars(depth: int, question: Question, counted: Optional[tuple[int, int]]) -> int:
    """Characters of a document, so that the whole prompt has `depth` tokens.

    counted: (characters, tokens) of the latest prompt that the server counted.
    """
    chars, tokens = counted or (CHARS_PER_TOKEN, 1)
    low, high = (depth * limit for limit in CHARS_PER_TOKEN_LIMITS)      # a server may count wrong
    return min(max(depth * chars // tokens, low), high) - len(question.prompt)
