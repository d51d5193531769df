"""Measure how many single edits of a submission the check finds.

    python3 -m tests.outside.mutate_submissions FOLDER...      in harness/

Takes real submissions that the check accepts and changes one thing: a number by one percent, a text
to another of its kind, a boolean to its opposite; or it deletes, doubles or moves a ledger line.
Then it recomputes seq, counts, hashes, metadata.json and run.md, as a forger would with this
project's own programs. Prints the rate of edits found for each class of fields, and for each field:

    derived     follows from other fields, or is recorded twice: all have to be found
    raw         known only to the server, the clock or the machine
    declared    known only to the contributor, or recorded by the client about itself
    unread      written by earlier versions, and ignored

Edits of raw fields that change a published number or flag are counted once more, as `moving`.

exit codes: 0 done; 1 too few derived edits were found, or the check failed.
"""

from __future__ import annotations

import argparse
import functools
import io
import json
import math
import random
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent import futures
from pathlib import Path
from typing import Any, NamedTuple, Optional

import check_submission
from check import copies, findings, submission_files
from complete import attestation, metadata
from core import release
from tests.valid_run import Made

Json = dict[str, Any]
Path_ = tuple[Any, ...]

LEAST_CAUGHT = {"derived": 0.999, "moving": 0.95}
LEAST_SHARE = 0.8          # of the number asked for: not every field can be changed
EACH_KIND = 40               # of one kind of field in one submission, at most
# The first matching pattern counts; all other fields are derived.
CLASSES = tuple((re.compile(pattern + r"\Z"), name) for pattern, name in (
    # Recomputed after the change, which has no effect therefore.
    (r"ledger\.\w+\.(seq|manifest_sha256)", "sealed"),
    (r"ledger\.run_finished\.(counts\..*|lines|sha256)", "sealed"),
    (r"ledger\.\w+\.(event|run_id|segment)", "derived"),
    (r"metadata\.run\.(run_jsonl_sha256|manifest_sha256)", "derived"),
    (r"manifest\.(flags|hostname_omitted)", "unread"),
    (r"ledger\.run_(started|resumed)\.clock_origin_ns", "unread"),
    (r"ledger\.instrument_calibrated\.(clock_offset_us|wall_ms|lanes\.(chunks|gap_us"
     r"|(read_lag|ttft_error)_us\..*)|.*_us\.n)", "unread"),
    (r"ledger\.call_finished\.timing\.(connect_us|sent_us|headers_us|first_chunk_us"
     r"|read_lag_us\.n)", "unread"),
    (r"manifest\.(git|python|os|target)\..*", "declared"),
    (r"manifest\.(host_hostname_short|api_key_used|kept_awake_by|timeout_s|plan\.lanes)",
     "declared"),
    (r"manifest\.(started_at|engine\.(version|build|recognised_by))", "raw"),
    (r"hardware\..*", "declared"),
    (r"page\.words\..*", "declared"),
    (r"metadata\.(models|runtime|endpoint)\..*:declared", "declared"),
    (r"ledger\.\w+\.(at|t_us)", "raw"),
    (r"ledger\.run_resumed\.(newline_added|torn_base64)", "raw"),
    (r"ledger\.instrument_calibrated\..*", "raw"),
    (r"ledger\.endpoint_identified\.(engine\.(version|build|recognised_by)|facts\..*|slots\..*"
     r"|context\.(effective_tokens|source|reason|remedy))", "raw"),
    (r"ledger\.model_skipped\.model", "raw"),
    (r"ledger\.call_finished\.attempts\..*", "raw"),
    (r"ledger\.call_finished\.request\.(salt|options\.cache_salt)", "raw"),
    (r"ledger\.call_finished\.response\.(text|reasoning_text|finish_reason|model"
     r"|system_fingerprint|usage.*|server_timings.*)", "raw"),
    (r"ledger\.call_finished\.timing\.(started_us|done_us|bytes_received|read_lag_us.*"
     r"|clock_step_us|heartbeat_gap_us)", "raw"),
    (r"ledger\.call_finished\.error\.(message|body_start)", "raw"),
    (r"ledger\.cache_probed\.probes\..*", "raw"),
    (r"ledger\.host_sampled\..*", "raw"),
    (r"ledger\.run_interrupted\..*", "raw"),
    # A thread samples the host now and then; a kill leaves no line.
    (r"line\.(deleted|doubled)\.(host_sampled|run_interrupted|model_skipped)", "raw"),
))


REPOSITORY = submission_files.Repository(str(release.HERE.parent / ".git"))


class Mutant(NamedTuple):
    """One change. change: documents -> changed documents, or None for no change."""

    pattern: str
    kind: str
    change: Callable[[Made], Optional[Made]]


def class_of(pattern: str) -> str:
    """derived, raw, declared or sealed."""
    return next((name for regex, name in CLASSES if regex.match(pattern)), "derived")


# --- changes -------------------------------------------------------------------------------------
def leaves(value: Any, path: Path_ = ()) -> Iterator[tuple[Path_, Any]]:
    """(path, value) of all leaves except nulls."""
    if isinstance(value, dict):
        for name, held in value.items():
            yield from leaves(held, (*path, name))
    elif isinstance(value, list):
        for at, held in enumerate(value):
            yield from leaves(held, (*path, at))
    elif value is not None:
        yield path, value


def pattern_of(top: str, path: Path_) -> str:
    """`ledger.call_finished.timing.chunk_us`: the path without list indexes."""
    return ".".join([top, *(str(name) for name in path if not isinstance(name, int))])


def changed(value: Any, others: list[Any], rng: random.Random) -> Any:
    """Another value of the same kind."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + rng.choice((-1, 1)) * max(abs(value) // 100, 1) if value else 1
    if isinstance(value, float):
        return value * rng.choice((0.99, 1.01)) or 0.01
    different = [other for other in others if other != value]
    return rng.choice(different) if different else value + "x"


def field_mutants(made: Made, rng: random.Random) -> Iterator[Mutant]:
    """Changes of every field of the documents and of the contributor's notes."""
    tops = [("manifest", made.manifest, lambda m: m.manifest),
            ("hardware", made.hardware, lambda m: m.hardware),
            ("metadata", made.metadata, lambda m: m.metadata),
            ("page.words", made.words, lambda m: m.words)]
    tops += [(f"ledger.{event['event']}", event, functools.partial(line_of, at=at))
             for at, event in enumerate(made.events)]
    texts: dict[str, list[Any]] = {}
    for top, document, _ in tops:
        for path, value in leaves(document):
            if isinstance(value, str):
                texts.setdefault(pattern_of(top, path), []).append(value)
    for top, document, find in tops:
        for path, value in leaves(document):
            pattern = pattern_of(top, path)
            new = changed(value, texts.get(pattern, []), rng)
            if top == "metadata" and is_declared(document, path):
                pattern += ":declared"
            yield Mutant(pattern, "changed", functools.partial(put, top, find, path, new))


def is_declared(document: Any, path: Path_) -> bool:
    """Whether a field belongs to a declared value."""
    for name in path[:-1]:
        document = document[name]
    return metadata.is_value(document) and document["source"] == "declared"


def line_of(made: Made, at: int) -> Json:
    return made.events[at]


def put(top: str, find: Callable[[Made], Any], path: Path_, new: Any, made: Made) -> Made:
    """The documents with one value changed, and the rest recomputed."""
    held = find(made)
    for name in path[:-1]:
        held = held[name]
    held[path[-1]] = new
    return made if top in ("metadata", "page.words") else made.sealed()


def line_mutants(made: Made) -> Iterator[Mutant]:
    """Deletions, copies and moves of ledger lines, and changes of the lines of run.md."""
    for at, event in enumerate(made.events):
        for kind, change in (("deleted", delete), ("doubled", double), ("moved", move)):
            yield Mutant(f"line.{kind}.{event['event']}", kind, functools.partial(change, at))
    own = {line for text in made.words.values() for line in text.split("\n")}
    for at, line in enumerate(made.page().split("\n")):
        if line.strip() and line not in own:
            yield Mutant("page.line", "changed", functools.partial(change_page, at))


def delete(at: int, made: Made) -> Made:
    del made.events[at]
    return made.sealed()


def double(at: int, made: Made) -> Made:
    made.events.insert(at, json.loads(json.dumps(made.events[at])))
    return made.sealed()


def move(at: int, made: Made) -> Optional[Made]:
    if at + 1 == len(made.events):
        return None
    made.events[at:at + 2] = made.events[at + 1], made.events[at]
    return made.sealed()


def change_page(at: int, made: Made) -> Made:
    lines = made.page().split("\n")
    lines[at] = re.sub(r"\d", lambda m: str((int(m[0]) + 1) % 10), lines[at], count=1) \
        if re.search(r"\d", lines[at]) else lines[at] + " x"
    made.files["run.md"] = "\n".join(lines).encode("utf-8")
    return made


# --- reading and checking ------------------------------------------------------------------------
def load(folder: Path) -> Made:
    """A submission as documents."""
    documents = [json.loads((folder / f"{name}.json").read_bytes())
                 for name in ("manifest", "hardware", "metadata")]
    events = [json.loads(line) for line in (folder / "run.jsonl").read_bytes().splitlines()]
    words = attestation.read_sections((folder / "run.md").read_text("utf-8"))
    return Made(documents[0], events, documents[1], documents[2], words, {})


def published(made: Made) -> Json:
    """The numbers and flags of metadata.json."""
    return {name: made.metadata.get(name) for name in (
        "cells", "curves", "headlines", "run_flags", "counts", "instrument")}


class Subject:
    """A submission and all its changes."""

    def __init__(self, folder: str, seed: int) -> None:
        self.made, self.parts = load(Path(folder)), tuple(Path(folder).absolute().parts[-3:])
        self.released = release.known()
        self.now_s = Path(folder, "run.jsonl").stat().st_mtime + 60
        self.before = self.check(self.made)
        rng = random.Random(seed)
        self.mutants = [*field_mutants(self.made, rng), *line_mutants(self.made)]

    def check(self, made: Made, history: bool = False) -> Counter[str]:
        """{code: number of findings}, without infos. history: as in a pull request, whose check
        knows the commits of the harness."""
        blobs = {name: submission_files.Blob(f"x/{name}", len(data),
                                             functools.partial(io.BytesIO, data))
                 for name, data in made.bytes_of().items()}
        report = findings.Report(10_000)
        check_submission.check(
            submission_files.Submission("x", self.parts, blobs),
            check_submission.Settings(self.released, now_s=self.now_s, repository=REPOSITORY
                                      if history else None), copies.Index(), report)
        self.broke = [found.what for found in report.findings() if found.code == "check-broken"]
        return Counter(found.code for found in report.findings()
                       if found.severity != findings.INFO)

    def outcome(self, number: int) -> Optional[tuple[str, bool]]:
        """("error", "warning" or "missed", whether a published number or flag changes); None if
        the change has no effect."""
        try:
            made = self.mutants[number].change(self.made.copy())
            if made is None or made.bytes_of() == self.made.bytes_of():
                return None
        except Exception:            # the forger's programs fail on it
            return None
        new = self.check(made, self.mutants[number].pattern.startswith("manifest.git")) \
            - self.before
        if "check-broken" in new:
            print(f"BROKEN {self.parts[2]} {number} {self.mutants[number].pattern}: {self.broke}")
            return "broken", False
        return next((severity for severity in (findings.ERROR, findings.WARNING) if any(
            findings.CODES[code].severity == severity for code in new)), "missed"), \
            published(made) != published(self.made)

    def chosen(self, limit: int, seed: int) -> list[int]:
        """Numbers of mutants, each kind of field in turn."""
        rng, kinds = random.Random(seed), dict[str, list[int]]()
        for number, mutant in enumerate(self.mutants):
            if class_of(mutant.pattern) != "sealed":
                kinds.setdefault(mutant.pattern, []).append(number)
        fields = list(kinds.values())
        rng.shuffle(fields)                  # a small limit takes some of every document
        for numbers in fields:
            rng.shuffle(numbers)
        return [numbers[turn] for turn in range(EACH_KIND) for numbers in fields
                if turn < len(numbers)][:limit]


@functools.cache
def subject(folder: str, seed: int) -> Subject:
    return Subject(folder, seed)


def job(folder: str, seed: int, number: int) -> tuple[str, Optional[tuple[str, bool]]]:
    one = subject(folder, seed)
    return one.mutants[number].pattern, one.outcome(number)


# --- report --------------------------------------------------------------------------------------
def share(counts: Counter[str]) -> str:
    total = sum(counts.values())
    caught = total - counts["missed"]
    errors = counts["error"] / total
    return f"{caught:5} of {total:5}  {caught / total:7.1%}  by errors {errors:7.1%}"


def too_few(missed: int, total: int, least: float) -> bool:
    """Whether so many misses show that less than the share `least` is found.

    A binomial test with at most one false alarm in 100: of a dozen mutants one may be missed by
    chance.
    """
    of_all = math.lgamma(total + 1)           # logarithms, since binomials exceed a float
    at_least = sum(math.exp(of_all - math.lgamma(count + 1) - math.lgamma(total - count + 1)
                            + count * math.log(1 - least) + (total - count) * math.log(least))
                   for count in range(missed, total + 1))
    return at_least < 0.01


def report(results: dict[str, Counter[str]], moving: dict[str, Counter[str]], asked: int) -> int:
    classes: dict[str, Counter[str]] = {name: Counter() for name in LEAST_CAUGHT}
    for pattern, counts in results.items():
        classes.setdefault(class_of(pattern), Counter()).update(counts)
    total = sum(map(sum, (counts.values() for counts in classes.values())))
    for counts in moving.values():
        classes.setdefault("moving", Counter()).update(counts)
    for name, counts in sorted(classes.items()):
        print(f"{name:10} {share(counts) if counts else 'none'}")
    for name in ("derived", "raw", "declared", "unread"):
        print(f"\n{name} fields" + (" that were missed" if name == "derived" else ""))
        for pattern, counts in sorted(results.items()):
            if class_of(pattern) == name and (name != "derived" or counts["missed"]):
                print(f"  {share(counts)}  {pattern}")
    print("\nmoving fields that were missed")
    for pattern, counts in sorted(moving.items()):
        if counts["missed"]:
            print(f"  {share(counts)}  {pattern}")
    broken = sum(counts["broken"] for counts in classes.values())
    bad = [name for name, least in LEAST_CAUGHT.items()
           if too_few(classes[name]["missed"], sum(classes[name].values()), least)]
    print(f"\n{total} mutants; check broken: {broken}; too few found: {', '.join(bad) or 'none'}")
    return int(bool(bad) or total < LEAST_SHARE * asked or broken > 0)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", metavar="FOLDER")
    parser.add_argument("--limit", type=int, default=2400, help="mutants in all (default 2400)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=1, help="processes (default 1)")
    args = parser.parse_args()
    each = -(-args.limit // len(args.folders))
    tasks = [(folder, args.seed, number) for folder in args.folders
             for number in subject(folder, args.seed).chosen(each, args.seed)]
    for folder in args.folders:
        before = subject(folder, args.seed).before
        print(f"{folder}: {dict(before) or 'nothing found'} before any change")
    results: dict[str, Counter[str]] = {}
    moving: dict[str, Counter[str]] = {}
    with futures.ProcessPoolExecutor(args.jobs) as pool:
        for pattern, outcome in pool.map(job, *zip(*tasks), chunksize=8):
            for found in (results, moving) if outcome and outcome[1] \
                    and class_of(pattern) == "raw" else (results,) if outcome else ():
                found.setdefault(pattern, Counter())[outcome[0]] += 1
    return report(results, moving, args.limit)


if __name__ == "__main__":
    sys.exit(main())
