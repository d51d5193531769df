"""Find copied runs, with small sketches of all ledgers.

A sketch holds the smallest hashes of a run's chunk times and long answers. Equal runs have equal
sketches, and runs that share some calls share about as much of their sketches. The size of a
sketch does not depend on the length of the run.
"""
from __future__ import annotations

import hashlib
import heapq
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from core.records import LedgerLine, Manifest

KEPT = 24
MIN_GAPS = 16                 # this many gaps in microseconds are not equal by chance
MIN_DISTINCT_GAPS = 8         # except those of a stalled or bunched stream
LONG_BYTES = 200
MIN_ANSWERS = 5
COPIED_SHARE = 0.9

CHUNKS = re.compile(rb'"chunk_us":\[\d+,([\d,]{31,})\]')
TEXT, TEXT_END = b'"text":"', b'","reasoning_text":"'
RUN_ID = re.compile(r"run-([0-9a-f-]{36})")


class Sketch(NamedTuple):
    """What is kept of a run."""

    path: str
    handle: str
    run_id: str
    gaps: frozenset[int]
    answers: frozenset[int]


def _smallest(texts: Iterable[bytes]) -> frozenset[int]:
    hashes = {int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big")
              for text in texts}
    return frozenset(heapq.nsmallest(KEPT, hashes))


def _is_distinctive(gaps: Sequence[Any]) -> bool:
    return len(gaps) >= MIN_GAPS and len(set(gaps)) >= MIN_DISTINCT_GAPS


def sketch(path: str, handle: str, manifest: Manifest, events: Iterable[LedgerLine]) -> Sketch:
    """The sketch of a parsed run; without the answers of a rehearsal, which are always the same."""
    gaps, answers = [], []
    for event in events:
        if event["event"] != "call_finished":
            continue
        timing, response = event["timing"], event["response"]
        if timing and _is_distinctive(timing["chunk_us"][1:]):
            gaps.append(",".join(map(str, timing["chunk_us"][1:])).encode("ascii"))
        if response and not manifest["synthetic"]:
            text = json.dumps(response["text"], ensure_ascii=False)[1:-1].encode("utf-8")
            if len(text) >= LONG_BYTES:
                answers.append(text)
    return Sketch(path, handle, manifest["run_id"], _smallest(gaps), _smallest(answers))


def sketch_of_bytes(path: str, data: bytes) -> Sketch:
    """The same sketch of a merged ledger, without parsing it."""
    gaps = [found for found in CHUNKS.findall(data) if _is_distinctive(found.split(b","))]
    answers = []
    for line in data.split(b"\n"):           # quotes inside of texts are escaped
        start = line.find(TEXT) + len(TEXT)
        end = line.find(TEXT_END, start)
        if end - start >= LONG_BYTES and start >= len(TEXT):
            answers.append(line[start:end])
    run = RUN_ID.search(path)
    return Sketch(path, path.split("/")[1] if "/" in path else "", run[1] if run else "",
                  _smallest(gaps), _smallest(answers))


class Index:
    """Sketches of all runs seen so far."""

    def __init__(self) -> None:
        self._run_ids: dict[str, Sketch] = {}
        self._gaps: dict[int, Sketch] = {}
        self._answers: dict[int, list[Sketch]] = {}

    def add(self, new: Sketch) -> None:
        """Add a run."""
        self._run_ids.setdefault(new.run_id, new)
        for number in new.gaps:
            self._gaps.setdefault(number, new)
        for number in new.answers:
            self._answers.setdefault(number, []).append(new)

    def problems(self, new: Sketch) -> Iterator[tuple[str, str]]:
        """(code, what) of a run that is not in the index."""
        if new.run_id in self._run_ids:
            yield "run-copied", f"its run id is that of {self._run_ids[new.run_id].path}"
        shared = Counter(self._gaps[number] for number in new.gaps if number in self._gaps)
        for other, count in shared.most_common(1):
            yield "run-copied", f"times of {count} of {len(new.gaps)} calls looked at are those " \
                f"of {other.path}"
        answers = Counter(other for number in new.answers
                          for other in self._answers.get(number, ())
                          if other.handle != new.handle)
        for other, count in answers.most_common(1):
            least = min(len(new.answers), len(other.answers))
            if least >= MIN_ANSWERS and count >= COPIED_SHARE * least:
                yield "answers-copied", f"{count} of {least} answers looked at are those of " \
                    f"{other.path}"
