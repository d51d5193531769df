"""Find copied runs, with small sketches of all ledgers.

A sketch holds hashes of chunk times, hashes of long answers, and the shape of long answers: their
number of tokens and chunks, and where their gaps stand out. It also holds the weights that the
server reported: equal weights have equally many parameters, and count the same prompts alike. Exact
hashes find what was copied as it is. Shapes remain when a copy is scaled, has noise added, loses
chunks in front, or its texts are edited: two honest runs of one model on one machine have 0 to 6 of
50 shapes in common, a copy has all of them. The size of a sketch does not depend on the length of
the run.
"""
from __future__ import annotations

import gzip
import hashlib
import heapq
import json
import math
import re
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Sequence
from itertools import combinations
from typing import NamedTuple, Optional

from check import findings
from core import metrics
from core.errors import HarnessError
from core.metric_definitions import GROWING_PHASES
from core.suites import CHALLENGE_QUESTIONS

KEPT = 24
SKETCHED = ("call_finished", "endpoint_identified")      # ledger lines; others add nothing
VERSION = 2                   # of the file of an index
MIN_GAPS = 16                 # this many gaps in microseconds are not equal by chance
MIN_DISTINCT_GAPS = 8         # except those of a stalled or bunched stream
LONG_BYTES = 200
MIN_ANSWERS = 5               # that two runs have in common
COPIED_SHARE = 0.5            # of the shapes; honest runs have at most 0.12
EQUAL_SHARE = 0.9             # of the texts
LONG_CHUNKS = 65
PEAKS, EQUAL_PEAKS = 4, 3     # gaps that stand out, and how many have to be at the same place
PEAK_SPARE = SIZE_SPARE = 1   # a copy may have lost or gained a chunk
MAX_SHIFT = 40                # chunks that all answers of a copy may have lost in front
MIN_CHALLENGED = 2            # of the three answers
MIN_PERIOD = 4                # chunks, of a server that pauses regularly
OTHER_TOKENIZER = 2.5         # typical deviation, in tokens, of the difference of two counts


def _hash(data: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(data, digest_size=6).digest(), "big")


WORDS = re.compile(rb"[^\W_]+")
# In the bytes of a line, where quotes inside of texts are escaped. The first of each counts.
WEIGHTS = re.compile(rb'"digest":"([0-9A-Za-z:._-]{8,120})"'), re.compile(
    rb'"parameters_count":(\d{1,15})')
SAME_SIZE_RATIO = 1.02        # engines round parameter counts
FIELDS = {name: re.compile(pattern) for name, pattern in (
    ("question", rb'"phase":"([^"\\]*","question_id":"[^"\\]*","repeat":\d+)'),
    ("tokens", rb'(?<!\\)"completion_tokens":(\d{1,9})'),
    ("prompt", rb'(?<!\\)"prompt_tokens":(\d{1,9})'),
    ("times", rb'"chunk_us":\[\d+,([\d,]+)\]'))}
TEXT, TEXT_END = b'"text":"', b'","reasoning_text":"'
CUT = b'","finish_reason":"length",'
# Answers to a challenge are few, but each is kept: they may be the only copied ones.
CHALLENGE = frozenset(_hash(f'challenge","question_id":"{question.id}","repeat":0'.encode("ascii"))
                      for question in CHALLENGE_QUESTIONS)
GROWING = tuple(f'{phase}"'.encode("ascii") for phase in GROWING_PHASES)
RUN_ID = re.compile(r"run-([0-9a-f-]{36})")


class Shape(NamedTuple):
    """What remains of a long answer in an edited copy."""

    tokens: int               # 0: the server did not count them
    chunks: int
    peaks: tuple[int, ...]    # indexes of the gaps that exceed both neighbours most
    prompt: int               # its tokens; 0: not counted, or with earlier answers in it


class Sketch(NamedTuple):
    """What is kept of a run. answers: hashes; shapes: of the answers to the same few questions in
    every run. weights: {digest: parameters}; parameters: of the only model, 0 if unknown."""

    path: str
    run_id: str
    gaps: frozenset[int]
    answers: frozenset[int]
    shapes: dict[int, Shape]
    weights: dict[bytes, int]
    parameters: int


def peaks_of(gaps: Sequence[int]) -> tuple[int, ...]:
    """Indexes of the gaps that exceed both neighbours most, ascending."""
    rise = [2 * here - before - after for before, here, after in zip(gaps, gaps[1:], gaps[2:])]
    return tuple(sorted(heapq.nlargest(PEAKS, range(len(rise)),
                                       key=lambda at: (rise[at], -at))))


def marks_of(peaks: Sequence[int]) -> set[tuple[int, ...]]:
    """Some of the peaks at a time, except those of a server that pauses after each n tokens."""
    return {places for places in combinations(peaks, EQUAL_PEAKS)
            if math.gcd(*(at - places[0] for at in places)) < MIN_PERIOD}


def sketch(path: str, lines: Iterable[bytes]) -> Sketch:
    """The sketch of a ledger from its lines, without parsing them."""
    gaps, answers, of_challenge = set[int](), set[int](), set[int]()
    long: dict[int, tuple[int, int, bytes]] = {}
    weights: dict[bytes, int] = {}
    counts = set[int]()
    for line in lines:
        if line.startswith(b'{"event":"endpoint_identified"'):
            digest, parameters = (pattern.search(line) for pattern in WEIGHTS)
            counts.add(int(parameters[1]) if parameters else 0)
            if digest and parameters:
                weights[digest[1].lower().replace(b"sha256:", b"")] = int(parameters[1])
            continue
        found = {name: pattern.search(line) for name, pattern in FIELDS.items()}
        question, tokens, prompt, times = (match[1] if match else b"" for match in found.values())
        start = line.find(TEXT) + len(TEXT)
        text = line[start:line.find(TEXT_END, start)] if start >= len(TEXT) else b""
        numbers = times.split(b",")
        key = _hash(question)
        if len(numbers) >= MIN_GAPS and len(set(numbers)) >= MIN_DISTINCT_GAPS:
            (of_challenge if key in CHALLENGE else gaps).add(_hash(times))
        if len(text) >= LONG_BYTES:
            answers.add(_hash(b" ".join(WORDS.findall(text))))
        # Answers that ended at the requested length have the same number of tokens in every run.
        if len(numbers) >= LONG_CHUNKS - 1 and (CUT not in line or key in CHALLENGE):
            has_answers = question.startswith(GROWING)
            counted = 0 if has_answers else int(prompt or 0)
            long[key] = int(tokens or 0), counted, times
    shapes = {}
    for key in (*(CHALLENGE & long.keys()), *heapq.nsmallest(KEPT, long.keys() - CHALLENGE)):
        tokens, prompt, times = long[key]
        us = list(map(int, times.split(b",")))
        shapes[key] = Shape(tokens, len(us) + 1, peaks_of(us), prompt)
    run = RUN_ID.search(path)
    return Sketch(path, run[1] if run else "", frozenset(
        [*of_challenge, *heapq.nsmallest(KEPT, gaps)]),
                  frozenset(heapq.nsmallest(KEPT, answers)), shapes, weights,
                  counts.pop() if len(counts) == 1 else 0)


class Index:
    """Sketches of all runs seen so far. The answers of rehearsals, which are always the same, are
    not compared."""

    def __init__(self) -> None:
        self._sketches: list[Sketch] = []
        self.doubted: frozenset[str] = frozenset()   # ids of runs whose weights accuse no other

    def add(self, new: Sketch) -> None:
        """Add a run."""
        self._sketches.append(new)

    def remove(self, paths: Container[str]) -> None:
        """Remove the runs of these ledgers, to compare them with all others."""
        self._sketches = [one for one in self._sketches if one.path not in paths]

    def to_bytes(self, commit: str) -> bytes:
        """All sketches as a gzip file. commit: its runs are those merged at this commit."""
        rows = [{**one._asdict(), "gaps": sorted(one.gaps), "answers": sorted(one.answers),
                 "shapes": sorted(one.shapes.items()),
                 "weights": {digest.decode("ascii"): n for digest, n in one.weights.items()}}
                for one in self._sketches]
        text = "\n".join(json.dumps(row, separators=(",", ":"))
                         for row in [{"commit": commit, "version": VERSION}, *rows])
        return gzip.compress(text.encode("ascii"), mtime=0)

    @classmethod
    def from_bytes(cls, data: Optional[bytes]) -> tuple[Optional[str], Index]:
        """(commit, sketches) of a file of `to_bytes`, which this project's workflow wrote; (None,
        none) without a file. Raises HarnessError."""
        if data is None:
            return None, cls()
        try:
            head, *rows = map(json.loads, gzip.decompress(data).decode("ascii").split("\n"))
            if head["version"] != VERSION:
                raise ValueError("another version")
            index = cls()
            for row in rows:
                index.add(Sketch(
                    row["path"], row["run_id"], frozenset(row["gaps"]), frozenset(row["answers"]),
                    {key: Shape(tokens, chunks, tuple(peaks), prompt)
                     for key, (tokens, chunks, peaks, prompt) in row["shapes"]},
                    {digest.encode("ascii"): n for digest, n in row["weights"].items()},
                    row["parameters"]))
            return str(head["commit"]), index
        except (OSError, EOFError, LookupError, TypeError, ValueError) as error:
            raise HarnessError(f"--index: not an index of merged runs ({type(error).__name__}: "
                               f"{error}); write it again with --write-index") from None

    def check(self, new: Sketch, is_synthetic: bool, notes: findings.Notes) -> None:
        """Add a finding of each kind for the run in the index that is most like this one."""
        found: dict[tuple[str, str], tuple[float, str]] = {}
        for other in self._sketches:
            for code, kind, share, what in _likeness(new, other, is_synthetic):
                if kind == "weights" and self.doubted & {new.run_id, other.run_id}:
                    continue
                found[code, kind] = max(found.get((code, kind), (0.0, "")), (share, what))
        for (code, _), (_, what) in sorted(found.items()):
            notes.add(code, what)


def _likeness(new: Sketch, other: Sketch,
              is_synthetic: bool) -> Iterator[tuple[str, str, float, str]]:
    """(code, kind, share, what) of everything that two runs have too much in common."""
    if new.run_id == other.run_id:
        yield "run-copied", "id", 1.0, f"its run id is that of {other.path}"
    shared = len(new.gaps & other.gaps)
    if shared:
        yield "run-copied", "gaps", shared / len(new.gaps), \
            f"times of {shared} of {len(new.gaps)} calls looked at are those of {other.path}"
    if is_synthetic:
        return
    for digest in new.weights.keys() & other.weights.keys():
        sizes_of = sorted((new.weights[digest], other.weights[digest]))
        if sizes_of[1] > SAME_SIZE_RATIO * sizes_of[0]:
            yield "weights-contradict", "weights", sizes_of[1] / max(sizes_of[0], 1), \
                f"{digest.decode()[:12]} has {new.weights[digest]} parameters here and " \
                f"{other.weights[digest]} in {other.path}"
    challenged = [bool(marks_of(new.shapes[key].peaks) & marks_of(other.shapes[key].peaks))
                  for key in CHALLENGE & new.shapes.keys() & other.shapes.keys()]
    if sum(challenged) >= MIN_CHALLENGED:
        yield "answers-copied", "challenge", 1.0, \
            f"its answers to the challenge pause at the places where those of {other.path} do"
    pairs = [(shape, other.shapes[key]) for key, shape in new.shapes.items()
             if key in other.shapes and key not in CHALLENGE]
    counted = [one.prompt - known.prompt for one, known in pairs if one.prompt and known.prompt]
    # A template or a salt adds the same to each prompt. Round numbers of parameters are names.
    if new.parameters == other.parameters and new.parameters % 1000 \
            and len(counted) >= MIN_ANSWERS:
        usual = metrics.median(counted)
        off = metrics.median([abs(count - usual) for count in counted])
        if off > OTHER_TOKENIZER:
            yield "claim-contradicted", "tokenizer", off, f"the model has {new.parameters} " \
                f"parameters as in {other.path}, but counts prompts differently, by {usual:g} " \
                f"tokens and {off:g} more or fewer"
    enough = max(MIN_ANSWERS, COPIED_SHARE * len(pairs))
    # One shift for all answers: with a shift of its own, each fourth answer of 65 chunks is like
    # any other by chance.
    peaks = max(Counter(shift for pair in pairs for shift in _shifts(pair)).values(), default=0)
    if peaks >= enough:
        yield "run-copied", "peaks", peaks / len(pairs), \
            f"{peaks} of {len(pairs)} long answers pause at the places where those of " \
            f"{other.path} do; two honest runs have at most 1 of 8"
    sizes = sum(map(_has_equal_size, pairs))
    if sizes >= enough:
        yield "answers-copied", "sizes", sizes / len(pairs), \
            f"{sizes} of {len(pairs)} long answers have the tokens and chunks of those of " \
            f"{other.path}; two honest runs have 6 of 50"
    equal, least = len(new.answers & other.answers), min(len(new.answers), len(other.answers))
    if least >= MIN_ANSWERS and equal >= EQUAL_SHARE * least and sizes < enough:
        yield "answers-copied", "sizes", equal / least, \
            f"{equal} of {least} answers looked at are those of {other.path}"


def _shifts(pair: tuple[Shape, Shape]) -> list[int]:
    """By how many chunks the peaks of the first are later than equal ones of the second."""
    one, other = pair
    spare = range(-PEAK_SPARE, PEAK_SPARE + 1)
    equal = Counter(shift for at in one.peaks
                    for shift in {at - peak + off for peak in other.peaks for off in spare})
    return [shift for shift, count in equal.items()
            if count >= EQUAL_PEAKS and abs(shift) <= MAX_SHIFT]


def _has_equal_size(pair: tuple[Shape, Shape]) -> bool:
    one, other = pair
    tokens = abs(one.tokens - other.tokens) if one.tokens and other.tokens else 0
    return abs(one.chunks - other.chunks) <= SIZE_SPARE and tokens <= SIZE_SPARE
