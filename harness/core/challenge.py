"""Questions that follow from a text, so that no one can have asked them before it was known.

A maintainer gives the text, such as the number of a pull request and its base commit. The check
builds the questions again.
"""
from __future__ import annotations

import hashlib
import re

from core.depth_prompts import WORDS
from core.suites import Question

TEXT = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._:/#@-]{3,99}")
TASKS = ("merges two sorted lists", "counts the words of a text", "parses a duration such as 1h30m",
         "finds the longest run of equal items", "rotates a square matrix",
         "groups file names by their ending", "formats a number of bytes for people",
         "checks whether brackets are balanced")
SUBJECTS = ("a harbour", "a library", "a glacier", "a railway station", "a bakery", "a lighthouse",
            "an observatory", "a beehive", "a vineyard", "a clock tower", "a ferry", "a quarry",
            "a theatre", "a greenhouse", "a dam", "a market")


def question(template: Question, text: str) -> Question:
    """The question of a template and a text; its answer has to contain a code."""
    digest = hashlib.sha256(f"{template.id} {text}".encode("ascii")).digest()
    code = f"{WORDS[digest[0] % 8]}_{WORDS[digest[1] % 8]}_{digest[2] * 256 + digest[3]:05d}"
    prompt = template.prompt.format(code=code, task=TASKS[digest[4] % 8],
                                    one=SUBJECTS[digest[5] % 16],
                                    other=SUBJECTS[(digest[5] + 1 + digest[6] % 15) % 16])
    return template._replace(prompt=prompt, required_markers=(code,))
