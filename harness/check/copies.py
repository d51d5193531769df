"""Is this run somebody else's? Sketches of ledgers, small enough to keep one of every submission.

A run's sketch holds the smallest hashes of its calls' gaps and of its long answers. Of two equal
runs they are equal, of two that share a part of their calls a like part of them is; what is kept of
a submission stays the same however long it is.
"""
from __future__ import annotations

import hashlib
import heapq
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

Json = dict[str, Any]


KEPT = 24
MIN_GAPS = 16                 # so many gaps in microseconds do not come out alike twice
MIN_DISTINCT_GAPS = 8         # as those of a stalled or bunched stream may
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


def _telling(gaps: Sequence[Any]) -> bool:
    return len(gaps) >= MIN_GAPS and len(set(gaps)) >= MIN_DISTINCT_GAPS


def sketch(path: str, handle: str, manifest: Json, events: Iterable[Json]) -> Sketch:
    """Of a submission that was read. A rehearsal's answers are everybody's, and left out."""
    gaps, answers = [], []
    for event in events:
        timing, response = event.get("timing"), event.get("response")
        if timing and _telling(timing["chunk_us"][1:]):
            gaps.append(",".join(map(str, timing["chunk_us"][1:])).encode("ascii"))
        if response and not manifest["synthetic"]:
            text = json.dumps(response["text"], ensure_ascii=False)[1:-1].encode("utf-8")
            if len(text) >= LONG_BYTES:
                answers.append(text)
    return Sketch(path, handle, manifest["run_id"], _smallest(gaps), _smallest(answers))


def sketch_of_bytes(path: str, data: bytes) -> Sketch:
    """Of a ledger that was merged: the same, without parsing it."""
    gaps = [found for found in CHUNKS.findall(data) if _telling(found.split(b","))]
    answers = [text for text in map(_text_of, data.split(b"\n")) if len(text) >= LONG_BYTES]
    run = RUN_ID.search(path)
    return Sketch(path, path.split("/")[1] if "/" in path else "", run[1] if run else "",
                  _smallest(gaps), _smallest(answers))


def _text_of(line: bytes) -> bytes:
    """The answer in a ledger line as it stands there: inside of texts, quotes are escaped."""
    start = line.find(TEXT) + len(TEXT)
    end = line.find(TEXT_END, start)
    return line[start:end] if len(TEXT) <= start <= end else b""


class Index:
    """Every run seen so far."""

    def __init__(self) -> None:
        self._places: list[tuple[str, str, int]] = []        # path, handle, answers kept
        self._run_ids: dict[str, int] = {}
        self._gaps: dict[int, int] = {}
        self._answers: dict[int, list[int]] = {}

    def add(self, new: Sketch) -> None:
        """Take up a run."""
        place = len(self._places)
        self._places.append((new.path, new.handle, len(new.answers)))
        self._run_ids.setdefault(new.run_id, place)
        for number in new.gaps:
            self._gaps.setdefault(number, place)
        for number in new.answers:
            self._answers.setdefault(number, []).append(place)

    def problems(self, new: Sketch) -> Iterator[tuple[str, str]]:
        """(code, what) of a run that is not in the index itself."""
        if new.run_id in self._run_ids:
            yield "run-id-taken", f"as {self._places[self._run_ids[new.run_id]][0]}"
        shared = Counter(self._gaps[number] for number in new.gaps if number in self._gaps)
        for place, count in shared.most_common(1):
            yield "timing-copied", f"{count} of {len(new.gaps)} looked at are those of " \
                f"{self._places[place][0]}"
        answers = Counter(place for number in new.answers
                          for place in self._answers.get(number, ())
                          if self._places[place][1] != new.handle)
        for place, count in answers.most_common(1):
            least = min(len(new.answers), self._places[place][2])
            if least >= MIN_ANSWERS and count >= COPIED_SHARE * least:
                yield "answers-copied", f"{count} of {least} looked at are those of " \
                    f"{self._places[place][0]}"
