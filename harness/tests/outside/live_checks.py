"""Check the ledger of a run against a real server: live_checks.py RUN_FOLDER

Imports nothing from the harness. It compares the raw lines of manifest.json and run.jsonl with what
the server reported (token counts, timings) and with an independent tokenizer. Prints one line per
check and exits with 1 if any failed. A check for which this server provides no data is marked n/a
and does not fail.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import statistics
import sys
from collections import Counter
from pathlib import Path
from typing import Any, Callable, Iterator, Optional

MIN_TOKENS = 64  # with fewer, one token at either end exceeds the tolerance
CALL_TOLERANCE = 0.05
MEDIAN_TOLERANCE = 0.01
MARKS = ("first_token_us", "last_token_us", "done_us")

Json = dict[str, Any]
MAX_OTHER_TOKENS_SHARE = 0.1      # of the answers


class Run:
    """The two files, and the calls that count: the last of each cell."""

    def __init__(self, folder: Path) -> None:
        self.manifest: Json = json.loads((folder / "manifest.json").read_bytes())
        self.raw = (folder / "run.jsonl").read_bytes()
        self.events: list[Json] = [json.loads(line) for line in self.raw.splitlines()]
        self.finished = [e for e in self.events if e["event"] == "call_finished"]
        self.calls = list({call["cell_id"]: call for call in self.finished}.values())
        self.answered = [call for call in self.calls if call["outcome"] == "ok"]

        self.lanes = {p["phase"]: p["lanes"] for p in self.manifest["plan"]["phases"]}

    def longest_stall_ms(self, call: Json) -> float:
        """The longest time without a token in any call of the same phase."""
        return max(gap_us / 1000 for other in self.answered if other["phase"] == call["phase"]
                   for gap_us in other["timing"]["chunk_us"][1:])

    def named(self, event: str) -> list[Json]:
        return [e for e in self.events if e["event"] == event]

    def timed(self) -> list[Json]:
        """Answered calls that the server timed, long enough to compare rates."""
        return [call for call in self.answered
                if "predicted_ms" in (call["response"]["server_timings"] or {})
                and completion_tokens(call) >= MIN_TOKENS]


def completion_tokens(call: Json) -> int:
    """The server's count; -1 where it reports none."""
    return int((call["response"]["usage"] or {}).get("completion_tokens", -1))


def cached_tokens(call: Json) -> int:
    """Prompt tokens from the server's cache; 0 where it reports none."""
    details = (call["response"]["usage"] or {}).get("prompt_tokens_details") or {}
    timings = call["response"]["server_timings"] or {}
    return int(timings.get("cache_n") or details.get("cached_tokens") or 0)


# --- checks: each yields the problems it finds ----------------------------------------------------

class NoData(Exception):
    """There is nothing to compare; the message says why."""


def lines_are_gapless(run: Run) -> Iterator[str]:
    if not run.raw.endswith(b"\n"):
        yield "the last line has no newline"
    if [e["seq"] for e in run.events] != list(range(len(run.events))):
        yield "seq has a gap"
    if {e["run_id"] for e in run.events} != {run.manifest["run_id"]}:
        yield "it holds lines of another run"
    if run.events[0]["event"] != "run_started" or run.events[-1]["event"] != "run_finished":
        yield f"begins with {run.events[0]['event']}, ends with {run.events[-1]['event']}"


def closing_line_is_true(run: Run) -> Iterator[str]:
    last = run.events[-1]
    before = run.raw[: run.raw.rstrip(b"\n").rfind(b"\n") + 1]
    if last["sha256"] != hashlib.sha256(before).hexdigest():
        yield "sha256 differs from that of the earlier lines"
    if last["lines"] not in (len(run.events), len(run.events) - 1):
        yield f"lines is {last['lines']}, there are {len(run.events)}"
    if last["exit_code"] != 0:
        yield f"exit code {last['exit_code']}"
    counts = dict(Counter(call["outcome"] for call in run.calls))
    if {k: n for k, n in last["counts"].items() if n} != counts:
        yield f"counts {last['counts']}, the calls give {counts}"


def planned_cells(run: Run) -> Iterator[str]:
    """Cell ids of the plan without hello, which is sent once per model in any plan."""
    skipped = {(e["model"], e["phase"]) for e in run.named("phase_skipped")}
    prefix, plan = run.manifest["cell_id_prefix"], run.manifest["plan"]
    for phase in plan["phases"]:
        for number, question in enumerate(phase["question_ids"]):
            models = run.manifest["models"]
            if phase["phase"] == "parallel_mixed":
                lane = number % phase["lanes"]
                models = [models[lane % len(models)]]
            for model in models:
                if (phase["phase"] == "hello"
                        or {(model, phase["phase"]), (None, phase["phase"])} & skipped):
                    continue
                for repeat in range(plan["repeats"]):
                    cell = f"{prefix}:{model}:{phase['phase']}:{question}"
                    yield f"{cell}:r{repeat}" if repeat else cell


def every_planned_cell_once(run: Run) -> Iterator[str]:
    recorded = Counter(call["cell_id"] for call in run.finished if call["phase"] != "hello")
    planned = Counter(planned_cells(run))
    for what, cells in (("missing", planned - recorded), ("too many", recorded - planned)):
        if cells:
            yield f"{what}: {sum(cells.values())}, such as {min(cells)}"
    for model in run.manifest["models"]:
        phases = [call["phase"] for call in run.finished if call["model"] == model]
        if phases[:1] != ["hello"] or phases.count("hello") != 1:
            yield f"hello is not the first call of {model}, once"


def smoke_is_five_lines(run: Run) -> Iterator[str]:
    expected = ["run_started", "endpoint_identified", "call_finished", "phase_finished",
                "run_finished"]
    if [e["event"] for e in run.events] != expected:
        yield f"events {[e['event'] for e in run.events]}"


def every_call_has_an_answer(run: Run) -> Iterator[str]:
    for call in run.calls:
        if call["outcome"] != "ok":
            yield f"{call['cell_id']}: {call['outcome']} {call['error']}"
        elif not (call["response"]["text"] or call["response"]["reasoning_text"]):
            if completion_tokens(call) > 1:  # an end token alone is an answer of no text
                yield f"{call['cell_id']}: no text, but {completion_tokens(call)} tokens"


def marks_are_in_order(run: Run) -> Iterator[str]:
    for call in run.answered:
        timing = call["timing"]
        marks = [timing[mark] for mark in MARKS if timing[mark] is not None]
        if marks != sorted(marks) or marks[0] < 0:
            yield f"{call['cell_id']}: {dict(zip(MARKS, marks))}"
        if timing["chunk_us"]:
            ends = (timing["chunk_us"][0], sum(timing["chunk_us"]))
            if ends != (timing["first_token_us"], timing["last_token_us"]):
                yield f"{call['cell_id']}: chunks span {ends}"
            if min(timing["chunk_us"]) < 0:
                yield f"{call['cell_id']}: a gap below zero"


def text_fits_chunks(run: Run) -> Iterator[str]:
    """No more chunks than characters, and every read refers to existing chunks."""
    for call in run.answered:
        chunks = len(call["timing"]["chunk_us"])
        texts = (call["response"]["text"], call["response"]["reasoning_text"])
        characters = sum(len(text or "") for text in texts)
        if chunks > characters or (characters and not chunks):
            yield f"{call['cell_id']}: {chunks} chunks of {characters} characters"
        for first, count in call["timing"]["reads"]:
            if count < 2 or first + count > chunks:
                yield f"{call['cell_id']}: read {first}+{count} of {chunks} chunks"


def usage_is_the_servers_own(run: Run) -> Iterator[str]:
    """llama.cpp counts twice, in usage and in its timings: both must be recorded and equal."""
    seen = [call for call in run.answered
            if (call["response"]["server_timings"] or {}).get("predicted_n")]
    if not seen:
        raise NoData("the server reports no timings")
    for call in seen:
        usage, timings = call["response"]["usage"], call["response"]["server_timings"]
        ours = (usage["completion_tokens"], usage["prompt_tokens"])
        servers = (timings["predicted_n"], timings["prompt_n"] + timings.get("cache_n", 0))
        if ours != servers:
            yield f"{call['cell_id']}: usage {ours}, timings {servers}"


def no_prompt_was_cached(run: Run) -> Iterator[str]:
    """With the policy "avoid" only the growing conversation may use the prompt cache."""
    if run.manifest["prompt_cache"]["policy"] != "avoid":
        raise NoData("the run allowed the cache")
    for call in run.answered:
        cached, prompt = cached_tokens(call), (call["response"]["usage"] or {}).get("prompt_tokens")
        # A chat template begins before any salt: with a few dozen tokens at most.
        if (prompt is not None and call["phase"] != "edge_append"
                and cached > max(0.1 * prompt, 64)):
            yield f"{call['cell_id']}: {cached} of {prompt} prompt tokens came from the cache"


def rates_agree(run: Run) -> Iterator[str]:
    """Compare the client's time per token with the server's, from first to last token.

    A server that holds back a token's text until it has the next one shows one gap less than it
    counts. With a single lane that gap is like any other. With several lanes it can be the one in
    which the server processed another prompt: then at most the longest stall in a call of the phase
    may be missing.
    """
    ratios = []
    for call in run.timed():
        timing, server = call["timing"], call["response"]["server_timings"]
        span_ms = (timing["last_token_us"] - timing["first_token_us"]) / 1000
        missing_ms = server["predicted_ms"] - span_ms
        slack_ms = server["predicted_ms"] * CALL_TOLERANCE
        alone = run.lanes[call["phase"]] == 1
        if not -slack_ms < missing_ms < slack_ms + (0 if alone else run.longest_stall_ms(call)):
            yield f"{call['cell_id']}: {span_ms:.3f} ms, server {server['predicted_ms']:.3f}"
        # An end token is counted, never streamed.
        if alone and call["response"]["finish_reason"] == "length":
            ours_ms = span_ms / (completion_tokens(call) - 1)
            ratios.append(ours_ms / (server["predicted_ms"] / (server["predicted_n"] - 1)))
    if not ratios:
        raise NoData(f"no call of {MIN_TOKENS} tokens that the server timed")
    median = statistics.median(ratios)
    if abs(median - 1) > MEDIAN_TOLERANCE:
        yield f"median time per token is {median:.4f} of the server's"
    print(f"       time per token / the server's, n {len(ratios)}: "
          f"median {median:.4f}, from {min(ratios):.4f} to {max(ratios):.4f}")


def first_token_follows_the_prompt(run: Run) -> Iterator[str]:
    """TTFT can only be longer than the server's time for the prompt."""
    seen = [c for c in run.answered if "prompt_ms" in (c["response"]["server_timings"] or {})]
    if not seen:
        raise NoData("the server reports no timings")
    for call in seen:
        prompt_ms = call["response"]["server_timings"]["prompt_ms"]
        first_us = call["timing"]["first_token_us"]
        if first_us is not None and first_us / 1000 < prompt_ms * 0.98:
            yield f"{call['cell_id']}: first token at {first_us} us, the prompt took {prompt_ms} ms"


def lanes_overlap(run: Run) -> Iterator[str]:
    """As many calls at once as planned, and one at a time in each lane."""
    for phase in run.manifest["plan"]["phases"]:
        name, lanes = phase["phase"], phase["lanes"]
        spans = sorted((*span(call), call["lane"]) for call in run.answered
                       if call["phase"] == name)
        for lane in {lane for *_, lane in spans}:
            own = [one for one in spans if one[2] == lane]
            if any(earlier[1] > later[0] for earlier, later in zip(own, own[1:])):
                yield f"{name}: two calls of lane {lane} overlap"
        if not spans or name == "hello":
            continue
        most, share = concurrency([one[:2] for one in spans], lanes)
        if most != min(lanes, len(spans)):
            yield f"{name}: {most} calls at once, {lanes} lanes planned"
        if lanes > 1:
            print(f"       {name}: all {lanes} lanes busy for {share:.0%} of the time")
            if share < 0.5:
                yield f"{name}: all lanes were busy for less than half of the time"


def span(call: Json) -> tuple[int, int]:
    """Start and end of a call, in µs on the segment's clock."""
    started_us = call["timing"]["started_us"]
    return started_us, started_us + call["timing"]["done_us"]


def concurrency(spans: list[tuple[int, ...]], lanes: int) -> tuple[int, float]:
    """(most calls at once, share of the makespan during which `lanes` ran at once)."""
    edges = sorted([(start, 1) for start, _ in spans] + [(end, -1) for _, end in spans])
    most = running = all_busy_us = 0
    for (at_us, step), (next_us, _) in zip(edges, edges[1:]):
        running += step
        most = max(most, running)
        all_busy_us += (next_us - at_us) * (running >= lanes)
    return most, all_busy_us / (edges[-1][0] - edges[0][0])


def bare_name(name: object) -> str:
    return re.sub("[^a-z0-9]", "", str(name).lower())


def engine_is(expected: str) -> Callable[[Run], Iterator[str]]:
    def engine_is_named(run: Run) -> Iterator[str]:
        names = {e["engine"]["name"] for e in run.named("endpoint_identified")}
        if set(map(bare_name, names)) != {bare_name(expected)}:
            yield f"engine {names}, expected {expected}"

    return engine_is_named


def tokens_recount(tokenizer_file: str) -> Callable[[Run], Iterator[str]]:
    def text_has_as_many_tokens(run: Run) -> Iterator[str]:
        """The answer, tokenized again by a library; one more token may be the end token."""
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_file(tokenizer_file)
        counted = [call for call in run.answered if completion_tokens(call) >= 0]
        if not counted:
            raise NoData("the server reports no usage")
        wrong = []
        for call in counted:
            recounted = len(tokenizer.encode(call["response"]["text"] or "").ids)
            if abs(completion_tokens(call) - recounted) > 2 + 0.05 * recounted:
                wrong.append(f"{call['cell_id']}: {completion_tokens(call)} reported, "
                             f"{recounted} counted")
        # Generated tokens are not always those that a tokenizer makes of the text, such as blanks.
        # A loop of such tokens makes a whole answer differ, and small models loop in a few answers
        # of a run; a server that counts wrongly does so in most of them.
        if len(wrong) > MAX_OTHER_TOKENS_SHARE * len(counted):
            yield from wrong

    return text_has_as_many_tokens


ALWAYS = (lines_are_gapless, closing_line_is_true, every_call_has_an_answer, marks_are_in_order,
          text_fits_chunks)
WHOLE_RUN = (every_planned_cell_once, usage_is_the_servers_own, no_prompt_was_cached,
             first_token_follows_the_prompt, rates_agree, lanes_overlap)


def passes(check: Callable[[Run], Iterator[str]], run: Run) -> bool:
    try:
        wrong = list(check(run))
    except NoData as reason:
        print(f"n/a    {check.__name__}: {reason}")
        return True
    print(f"{'FAILED' if wrong else 'ok':6} {check.__name__}")
    for finding in wrong[:5]:
        print(f"       {finding}")
    if len(wrong) > 5:
        print(f"       and {len(wrong) - 5} more")
    return not wrong


def main(argv: Optional[list[str]] = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run_folder", type=Path)
    parser.add_argument("--smoke", action="store_true", help="the run was a smoke run")
    parser.add_argument("--engine", help="name of the engine that must have been recognised")
    parser.add_argument("--tokenizer", help="tokenizer.json of the model, to recount tokens")
    chosen = parser.parse_args(argv)
    run = Run(chosen.run_folder)
    checks = [*ALWAYS, *((smoke_is_five_lines,) if chosen.smoke else WHOLE_RUN)]
    if chosen.engine:
        checks.append(engine_is(chosen.engine))
    if chosen.tokenizer:
        checks.append(tokens_recount(chosen.tokenizer))
    verdicts = [passes(check, run) for check in checks]  # a list: every check runs
    return 0 if all(verdicts) else 1


if __name__ == "__main__":
    sys.exit(main())
