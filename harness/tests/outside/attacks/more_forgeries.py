"""More forgeries of merged runs, and answers to a challenge.

    python3 -m tests.outside.attacks.more_forgeries      in harness/

As in forgeries.py, each attack names the finding that has to come of it. The last ones cannot be
found in files; they are answered by a challenge. exit codes: 0 all were found; 1 one was missed.
"""
from __future__ import annotations

import copy
import functools
import random
import sys
from typing import Any

from check import challenge, copies
from tests.outside.attacks.forgeries import (
    ANOTHER_ID,
    MERGED,
    Attack,
    calls_of,
    codes,
    faster,
    is_missed,
    run_attacks,
    set_times,
)
from tests.outside.mutate_submissions import load
from tests.valid_run import NOW_S, Made, Spec, make

OTHER_RUN = "run-9595f3cd"
TEXT = "PR 12 0a1b2c3"


def renamed(made: Made, handle: str = "another") -> None:
    """Another handle, run id and day, as for a run of one's own."""
    made.manifest.update(run_id=ANOTHER_ID, submitter_handle=handle)
    for event in made.events:
        event["run_id"] = ANOTHER_ID


# --- copies --------------------------------------------------------------------------------------
def jittered(made: Made, ratio: float, lost: float = 0.0, words: float = 0.0,
             tokens: int = 0) -> None:
    """A copy whose gaps vary, with chunks lost, words changed and other counts of tokens."""
    rng = random.Random(3)
    renamed(made)
    for call in calls_of(made):
        chunks = call["timing"]["chunk_us"]
        new = [int(gap * rng.uniform(1 - ratio, 1 + ratio)) for gap in chunks]
        set_times(call, [new[0], *(gap for gap in new[1:] if rng.random() >= lost)])
        response = call["response"]
        response["text"] = " ".join(word if rng.random() >= words else "so"
                                    for word in response["text"].split(" "))
        if tokens and response["usage"]:
            response["usage"]["completion_tokens"] += rng.randrange(-tokens, tokens + 1)


def two_halves(made: Made) -> None:
    """The calls of another merged run in half of the phases."""
    other = {call["cell_id"]: call for call in calls_of(load(next(MERGED.glob(f"*/{OTHER_RUN}*"))))}
    renamed(made)
    for call in calls_of(made):
        if call["phase"] in ("20q", "parallel_same") and call["cell_id"] in other:
            for name in ("response", "checks", "reasoning"):
                call[name] = copy.deepcopy(other[call["cell_id"]][name])
            set_times(call, list(other[call["cell_id"]]["timing"]["chunk_us"]))


def shortened(made: Made) -> None:
    """Answers that end early, with all counts that follow."""
    for call in calls_of(made):
        response, chunks = call["response"], call["timing"]["chunk_us"]
        kept = len(chunks) - len(chunks) // 10
        if response["finish_reason"] == "stop" and kept < len(chunks):
            response["text"] = response["text"][:len(response["text"]) * kept // len(chunks)]
            call["timing"]["bytes_received"] -= call["timing"]["bytes_received"] // 10
            response["usage"]["completion_tokens"] -= len(chunks) - kept
            response["usage"]["total_tokens"] -= len(chunks) - kept
            set_times(call, chunks[:kept])


def reordered(made: Made) -> None:
    """A copy whose answers belong to other questions of the same phase."""
    renamed(made)
    own = [call for call in calls_of(made) if call["phase"] == "20q"]
    held = [(copy.deepcopy(call["response"]), list(call["timing"]["chunk_us"])) for call in own]
    for call, (response, chunks) in zip(own, held[1:] + held[:1]):
        call["response"] = response
        set_times(call, chunks)


# --- time ----------------------------------------------------------------------------------------
def compressed(made: Made, factor: float = 5) -> None:
    """The whole run in a part of the time: every clock, with as many samples per time."""
    faster(made, gaps=factor, first=factor)
    kept = 0
    for event in list(made.events):
        if event["event"] == "host_sampled":
            kept += 1
            if kept % int(factor):
                made.events.remove(event)
    for event in made.events:
        for name in ("t_us", "started_us", "wall_us"):
            if name in event:
                event[name] = int(event[name] / factor)
        for holder in (event.get("timing"), *event.get("attempts", ())):
            for name in ("started_us", "ended_us"):
                if holder and name in holder:
                    holder[name] = int(holder[name] / factor)


def calm(made: Made) -> None:
    """A machine that was busy with something else, as if it had been idle."""
    for event in made.events:
        if event["event"] == "host_sampled":
            event["other_cpu_busy_ratio"] = 1.4


def without_first_samples(made: Made) -> None:
    """The samples of the first phases, in which the machine was busy, are gone."""
    samples = [event for event in made.events if event["event"] == "host_sampled"]
    for event in samples[:len(samples) // 3]:
        made.events.remove(event)


def repeated_samples(made: Made) -> None:
    """One good sample of the host in place of all."""
    samples = [event for event in made.events if event["event"] == "host_sampled"]
    for event in samples:
        event.update({name: value for name, value in samples[0].items() if name not in (
            "seq", "t_us", "at", "event", "run_id", "segment")})


# --- claims --------------------------------------------------------------------------------------
def another_model(made: Made, new: str = "llama-3.1-8b-instruct") -> None:
    """A small model's run under the name of a large one, in every line."""
    old = made.manifest["models"][0]

    def change(value: Any) -> Any:
        if isinstance(value, str):
            return value.replace(old, new)
        if isinstance(value, list):
            return [change(one) for one in value]
        return {name: change(one) for name, one in value.items()} \
            if isinstance(value, dict) else value
    for document in (made.manifest, made.metadata):
        document.update(change(document))
    made.events[:] = [change(event) for event in made.events]


def larger_weights(made: Made) -> None:
    """The same, with the facts of the large model."""
    another_model(made)
    for event in made.events:
        if event["event"] == "endpoint_identified":
            event["facts"].update(parameters_count=8_030_261_248, file_bytes=8_540_000_000)


def two_models(made: Made) -> None:
    """A smaller model answered the second half of the run."""
    own = [event for event in made.events if event["event"] == "endpoint_identified"]
    own[-1]["facts"]["parameters_count"] = 60_000_000


def a_card(made: Made) -> None:
    """A card that no sample has seen."""
    made.hardware["accelerators"] = [{
        name: {"value": value, "source": "probed" if value else None,
               "reason": None if value else "not asked"} for name, value in {
            **dict.fromkeys(made_card_fields()), "vendor": "NVIDIA",
            "model_name": "NVIDIA GeForce RTX 5090", "memory_bytes": 32 << 30}.items()}]
    made.hardware["accelerators_count"] = {"value": 1, "source": "probed", "reason": None}
    made.metadata["models"][0]["gpu_offload_ratio"] = {"value": 1, "source": "declared",
                                                       "reason": None}


def made_card_fields() -> list[str]:
    from core import schema
    return list(schema.schema("hardware")["properties"]["accelerators"]["items"]["properties"])


def fewer_prompt_tokens(made: Made) -> None:
    """Prompts are counted as longer than they are, for a higher prefill rate."""
    for call in calls_of(made):
        usage = call["response"]["usage"]
        usage["prompt_tokens"] *= 2
        usage["total_tokens"] = usage["prompt_tokens"] + usage["completion_tokens"]


COPIED = ("run-copied", "answers-copied")
ATTACKS = (
    *(Attack(f"copy with jitter of {ratio:.0%}", functools.partial(jittered, ratio=ratio), COPIED,
             is_indexed=True) for ratio in (0.00001, 0.01, 0.1, 0.4)),
    Attack("copy with jitter and lost chunks", functools.partial(
        jittered, ratio=0.2, lost=0.04), COPIED, is_indexed=True),
    Attack("copy with jitter, lost chunks and other words", functools.partial(
        jittered, ratio=0.3, lost=0.05, words=0.05, tokens=4), COPIED, is_indexed=True),
    Attack("halves of two merged runs", two_halves, COPIED, is_indexed=True),
    Attack("halves of two unknown runs", two_halves, ("ledger-altered", "time-unexplained")),
    Attack("answers without their last tenth", shortened, ("time-unexplained",)),
    Attack("answers of other questions", reordered, (*COPIED, "ledger-altered"), is_indexed=True),
    Attack("a fifth of the time", compressed, ("ledger-altered", "time-unexplained",
                                               "machine-slept")),
    Attack("all times / 1.1", functools.partial(compressed, factor=1.1), ("ledger-altered",)),
    Attack("a ratio above 1", calm, ("hardware-implausible",)),
    Attack("no samples in the first phases", without_first_samples, ("time-unexplained",)),
    Attack("one sample in place of all", repeated_samples, ("data-too-regular",)),
    Attack("another model's name", another_model, ("claim-contradicted",)),
    Attack("another model's name and facts", larger_weights, ("hardware-exceeded",
                                                              "claim-contradicted")),
    Attack("two models", two_models, ("server-changed",)),
    Attack("a card without samples", a_card, ("hardware-implausible",)),
    Attack("longer prompts", fewer_prompt_tokens, ("server-counts-contradict",
                                                   "tokens-implausible")),
)


# --- answered by a challenge ---------------------------------------------------------------------
def older_run() -> set[str]:
    """A run that was invented as a whole before the text was known."""
    return challenged(make(Spec(phases="frozen")))


def pretended() -> set[str]:
    """A run that names the text, with the prompts of another one."""
    made = make(Spec(phases="frozen", more=("--challenge", "PR 11 fffffff")))
    made.manifest["plan"]["phases"][-1]["challenge"] = TEXT
    return codes(made.sealed(), made.path().split("/"), copies.Index())


def slower() -> set[str]:
    """A run with the times of a faster machine, and a challenge on the real one."""
    made = make(Spec(phases="frozen", more=("--challenge", TEXT)))
    for call in calls_of(made):
        if call["phase"] == "frozen":
            set_times(call, [call["timing"]["chunk_us"][0], *(
                gap // 2 for gap in call["timing"]["chunk_us"][1:])])
    return challenged(made)


def early() -> set[str]:
    """Answers from before the commit in the text was made, by a contributor who guessed its id."""
    made = make(Spec(phases="frozen", more=("--challenge", TEXT)))
    return {code for code, _ in challenge.problems(made.manifest, made.events, TEXT, {
        "0a1b2c3": int(NOW_S)}.get)}


def of_another_run() -> set[str]:
    """The answers of another run to the same challenge, with other times."""
    rng = random.Random(11)
    spec = Spec(phases="frozen,5q,20q", tokens=90, more=("--challenge", TEXT))
    source, made = make(spec), make(spec._replace(handle="another", seed=2))
    own, others = ([call for call in calls_of(one) if call["phase"] == "challenge"]
                   for one in (made, source))
    for call in others:
        set_times(call, [rng.randrange(9000, 9900) + 9000 * (rng.random() < 0.05)
                         for _ in call["timing"]["chunk_us"]])
    index = copies.Index()
    codes(source.sealed(), source.path().split("/"), index)
    for call, other in zip(own, others):
        set_times(call, [us + rng.randrange(30) for us in other["timing"]["chunk_us"]])
    return codes(made.sealed(), made.path().split("/"), index)


def challenged(made: Made) -> set[str]:
    return {code for code, _ in challenge.problems(made.manifest, made.events, TEXT)}


CHALLENGED = ((older_run, "challenge-unanswered"), (pretended, "ledger-altered"),
              (slower, "server-changed"), (early, "challenge-unanswered"),
              (of_another_run, "answers-copied"))


def main() -> int:
    """Run all attacks; return the exit code."""
    missed = run_attacks(ATTACKS, OTHER_RUN)
    for change, code in CHALLENGED:
        missed += is_missed(change.__name__, (code,), change())
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
