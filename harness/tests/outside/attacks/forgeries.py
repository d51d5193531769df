"""Forge merged runs as a contributor could, with this project's own programs, and check them.

    python3 -m tests.outside.attacks.forgeries      in harness/

Each attack changes the documents of a merged run, recomputes everything that follows, and names the
finding that has to come of it. exit codes: 0 all were found; 1 one was missed.
"""
from __future__ import annotations

import functools
import io
import random
import sys
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from check import copies, findings, submission_files
from check.submission import Settings, check
from core import release
from tests.outside.mutate_submissions import load
from tests.valid_run import Made

MERGED = Path(__file__).resolve().parents[4] / "submissions" / "maintainers"
LLAMA_CPP, VLLM = "run-2d975f40", "run-0a357753"
ANOTHER_ID = "99999999-9999-4999-8999-999999999999"


def calls_of(made: Made) -> list[Any]:
    return [event for event in made.events if event["event"] == "call_finished" and event["timing"]
            and event["timing"]["chunk_us"]]


def set_times(call: Any, chunk_us: list[int]) -> None:
    """Set the times of a call's chunks; it ends as long after the last one as before."""
    timing = call["timing"]
    tail_us = timing["done_us"] - timing["last_token_us"]
    timing["chunk_us"] = chunk_us
    timing["first_token_us"], timing["last_token_us"] = chunk_us[0], sum(chunk_us)
    timing["done_us"] = timing["last_token_us"] + tail_us
    kinds = timing["chunk_kinds"] or ""
    ahead = int(kinds[1:].split("a")[0]) if kinds.startswith("r") else 0
    timing["first_answer_us"] = sum(chunk_us[:ahead + 1])


# --- faster --------------------------------------------------------------------------------------
def faster(made: Made, gaps: float = 5, first: float = 1, noise_us: int = 0,
           keeps_end: bool = False) -> None:
    """All answers faster, in place; the server's timings agree."""
    rng = random.Random(1)
    for call in calls_of(made):
        timing, end_us = call["timing"], call["timing"]["done_us"]
        chunks = timing["chunk_us"]
        set_times(call, [int(chunks[0] / first), *(
            int(gap / gaps) + (rng.randrange(noise_us + 1) if gap else 0) for gap in chunks[1:])])
        if keeps_end:
            timing["done_us"] = end_us
        timings = call["response"]["server_timings"] or {}
        for kind, factor in (("predicted", gaps), ("prompt", first)):
            for name, sign in (("ms", -1), ("per_token_ms", -1), ("per_second", 1)):
                if f"{kind}_{name}" in timings:
                    timings[f"{kind}_{name}"] *= factor ** sign


def with_pauses_before_connecting(made: Made) -> None:
    """The time that is gained lies before the calls, as if connecting took it."""
    begins = {id(call): call["timing"]["done_us"] for call in calls_of(made)}
    faster(made)
    for call in calls_of(made):
        won_us = begins[id(call)] - call["timing"]["done_us"]
        call["timing"]["started_us"] += won_us


def without_samples(made: Made) -> None:
    made.events[:] = [event for event in made.events if event["event"] != "host_sampled"]


def every_second_sample(made: Made) -> None:
    samples = [event for event in made.events if event["event"] == "host_sampled"]
    for event in samples[:-1:2]:
        made.events.remove(event)


# --- counted and claimed -------------------------------------------------------------------------
def more_tokens(made: Made, factor: float = 1.45) -> None:
    for call in calls_of(made):
        usage, timings = call["response"]["usage"], call["response"]["server_timings"] or {}
        usage["completion_tokens"] = int(usage["completion_tokens"] * factor)
        usage["total_tokens"] = usage["prompt_tokens"] + usage["completion_tokens"]
        if timings:
            timings["predicted_n"] = usage["completion_tokens"]
            timings["predicted_per_token_ms"] = timings["predicted_ms"] / timings["predicted_n"]
            timings["predicted_per_second"] = 1000 / timings["predicted_per_token_ms"]


def nothing_cached(made: Made) -> None:
    for call in calls_of(made):
        usage, timings = call["response"]["usage"], call["response"]["server_timings"]
        (usage.get("prompt_tokens_details") or {})["cached_tokens"] = 0
        if timings:
            timings["prompt_n"], timings["cache_n"] = usage["prompt_tokens"], 0
            timings["prompt_per_token_ms"] = timings["prompt_ms"] / timings["prompt_n"]
            timings["prompt_per_second"] = 1000 / timings["prompt_per_token_ms"]


def declared(key: str, value: Any) -> Callable[[Made], None]:
    def change(made: Made) -> None:
        held = made.metadata["models"][0]
        held[key] = {"value": value, "source": "declared", "reason": None}
    return change


def more_memory(made: Made) -> None:
    made.hardware["memory"]["capacity_bytes"]["value"] *= 6


class Attack(NamedTuple):
    """A forgery of a merged run; any of the codes has to be found, if there are any. is_indexed:
    the check knows the merged runs."""

    name: str
    change: Callable[[Made], Any]
    codes: tuple[str, ...]
    run: str = LLAMA_CPP
    is_indexed: bool = False


ATTACKS = (
    Attack("gaps / 5", faster, ("ledger-altered",)),
    Attack("gaps / 5 on vLLM", faster, ("ledger-altered",), VLLM),
    Attack("gaps / 2 with noise", functools.partial(faster, gaps=2, noise_us=3),
           ("ledger-altered",)),
    Attack("gaps / 1.2", functools.partial(faster, gaps=1.2, noise_us=3), ("ledger-altered",)),
    Attack("first tokens / 5", functools.partial(faster, gaps=1, first=5), ("time-unexplained",)),
    Attack("gaps / 5, same end of each call", functools.partial(faster, keeps_end=True),
           ("ledger-altered",)),
    Attack("gaps / 5, slow to connect", with_pauses_before_connecting, ("ledger-altered",)),
    Attack("no samples of the host", without_samples, ("ledger-altered",)),
    Attack("every second sample", every_second_sample, ("time-unexplained",)),
    Attack("tokens x 1.45", more_tokens, ("tokens-implausible",)),
    Attack("tokens x 1.5 on vLLM", functools.partial(more_tokens, factor=1.5),
           ("tokens-implausible",), VLLM),
    Attack("tokens x 1.2", functools.partial(more_tokens, factor=1.2), ("tokens-implausible",)),
    Attack("nothing cached", nothing_cached, ("server-counts-contradict",)),
    Attack("another quantization", declared("quantization", "F16"), ("claim-contradicted",)),
    Attack("a larger model", declared("source_repository", "meta/llama-3.1-8b"),
           ("claim-contradicted",)),
    Attack("a draft model", declared("draft_model", "a small one"), ("claim-contradicted",)),
    Attack("more memory", more_memory, ("hardware-implausible",)),
)


# --- copies --------------------------------------------------------------------------------------
def copied(made: Made, handle: str, speed: float, lost: int, texts: bool) -> None:
    """Another run id, other times with noise, some chunks lost, texts with a blank."""
    rng = random.Random(2)
    made.manifest.update(run_id=ANOTHER_ID, submitter_handle=handle)
    for event in made.events:
        event["run_id"] = ANOTHER_ID
    for call in calls_of(made):
        scale = speed * rng.uniform(0.985, 1.015)
        chunks = [max(int(gap / scale) + rng.randrange(-3, 4), 0) if gap else 0
                  for gap in call["timing"]["chunk_us"]]
        call["timing"]["chunk_us"] = chunks[:1] + chunks[1 + lost:]
        call["response"]["text"] += " " * texts


COPIES = tuple(Attack(f"copy by {handle}, speed {speed}, {lost} chunks lost", functools.partial(
    copied, handle=handle, speed=speed, lost=lost, texts=texts), ("run-copied",), is_indexed=True)
    for handle, speed, lost, texts in (("maintainers", 1, 0, False), ("another", 1, 0, True),
                                       ("maintainers", 2, 0, True), ("another", 5, 1, True)))


# --- running them --------------------------------------------------------------------------------
def codes(made: Made, parts: Sequence[str], index: copies.Index) -> set[str]:
    """Codes of errors and warnings on a submission."""
    report = findings.Report()
    blobs = {name: submission_files.Blob(f"x/{name}", len(data),
                                         functools.partial(io.BytesIO, data))
             for name, data in made.bytes_of().items()}
    check(submission_files.Submission("x", (parts[0], parts[1], parts[2]), blobs),
          Settings(release.known(), now_s=2e9), index, report)
    return {one.code for one in report.findings() if one.severity != findings.INFO}


def is_missed(name: str, wanted: Collection[str], new: Collection[str]) -> bool:
    """Print an attack's findings; return whether none of the wanted codes is among them. wanted:
    empty for an attack that files do not show for certain."""
    missed = bool(wanted) and not set(wanted) & set(new)
    word = "MISSED" if missed else "found" if wanted else "open"
    print(f"{word}  {name}: {sorted(new)}", flush=True)
    return missed


def run_attacks(attacks: Sequence[Attack], *known: str) -> int:
    """Forge merged runs; return how many attacks were missed. known: further merged runs."""
    index, missed = copies.Index(), 0
    folders = {run: next(MERGED.glob(f"*/{run}*"))
               for run in (*(attack.run for attack in attacks), *known)}
    before = {run: codes(load(folder), folder.parts[-3:], index)
              for run, folder in folders.items()}
    for attack in attacks:
        made = load(folders[attack.run])
        attack.change(made)
        sealed = made.sealed()
        new = codes(sealed, sealed.path().split("/"),
                    index if attack.is_indexed else copies.Index()) - before[attack.run]
        missed += is_missed(attack.name, attack.codes, new)
    return missed


if __name__ == "__main__":
    sys.exit(run_attacks((*ATTACKS, *COPIES)) > 0)
