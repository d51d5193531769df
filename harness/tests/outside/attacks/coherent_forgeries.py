"""Forgeries of several facts at once, by someone who wants to win.

    python3 -m tests.outside.attacks.coherent_forgeries      in harness/

As in forgeries.py, each attack names the finding that has to come of it. OPEN lists attacks that
the files do not show for certain, each with the reason; another person's run answers them.
exit codes: 0 all were found; 1 one was missed.
"""
from __future__ import annotations

import functools
import random
import sys
from datetime import datetime, timedelta
from typing import Any

from check import copies
from tests.outside.attacks.forgeries import (
    LLAMA_CPP,
    MERGED,
    VLLM,
    Attack,
    calls_of,
    codes,
    declared,
    faster,
    is_missed,
    more_tokens,
    run_attacks,
    set_times,
)
from tests.outside.attacks.more_forgeries import another_model, compressed, renamed
from tests.outside.mutate_submissions import load
from tests.valid_run import Made, Spec, make

QWEN = "run-b1d34289"


# --- time ----------------------------------------------------------------------------------------
def later(at: str, by_us: int) -> str:
    """The time of a ledger line, so many microseconds later."""
    moved = datetime.strptime(at, "%Y-%m-%dT%H:%M:%S.%fZ") + timedelta(microseconds=by_us)
    return f"{moved:%Y-%m-%dT%H:%M:%S}.{moved.microsecond // 1000:03d}Z"


def phase_faster(made: Made, phase: str, factor: float) -> None:
    """One phase faster, and all that follows earlier by the time that is gained: calls, lines and
    both clocks; the samples of the phase at their usual distance again."""
    [end] = [event for event in made.events
             if event["event"] == "phase_finished" and event["phase"] == phase]
    begin_us, end_us = end["started_us"], end["started_us"] + end["wall_us"]

    def earlier(at_us: float) -> int:
        inside_us = min(max(at_us - begin_us, 0), end_us - begin_us)
        return int(at_us - inside_us * (1 - 1 / factor))

    samples = [event for event in made.events if event["event"] == "host_sampled"
               and begin_us < event["t_us"] < end_us]
    kept = samples[::round(factor)]
    dropped = [id(event) for event in samples if event not in kept]
    made.events[:] = [event for event in made.events if id(event) not in dropped]
    for event in made.events:
        moved_us = earlier(event["t_us"]) - event["t_us"]
        event.update(t_us=event["t_us"] + moved_us, at=later(event["at"], moved_us))
        if event["event"] == "phase_finished":
            ended_us = earlier(event["started_us"] + event["wall_us"])
            event["started_us"] = earlier(event["started_us"])
            event["wall_us"] = ended_us - event["started_us"]
        if event["event"] == "run_finished":
            event["wall_us"] = earlier(event["wall_us"])
        if event["event"] != "call_finished" or not event["timing"]:
            continue
        timing, is_own = event["timing"], event["phase"] == phase
        timing["started_us"] = earlier(timing["started_us"])
        if is_own and timing["chunk_us"]:
            tail_us = timing["done_us"] - timing["last_token_us"]
            set_times(event, [int(gap / factor) for gap in timing["chunk_us"]])
            timing["done_us"] = timing["last_token_us"] + int(tail_us / factor)
            timings = event["response"]["server_timings"] or {}
            for name in timings:
                if name.endswith("_ms"):
                    timings[name] /= factor
                elif name.endswith("_per_second"):
                    timings[name] *= factor


def unprobed(made: Made) -> list[Any]:
    """Calls that cache_probed does not compare with others."""
    probed = {event["cell_id"] for event in made.events if event["event"] == "cache_probed"}
    return [call for call in calls_of(made) if call["cell_id"] not in probed
            and len(call["timing"]["chunk_us"]) > 1]


def shift(call: Any, chunks: list[int]) -> None:
    """Other times of chunks with the same sum; the server's timings agree."""
    before, timings = call["timing"]["chunk_us"], call["response"]["server_timings"] or {}
    for kind, ratio in (("prompt", chunks[0] / before[0]),
                        ("predicted", sum(chunks[1:]) / max(sum(before[1:]), 1))):
        for name, sign in (("ms", 1), ("per_token_ms", 1), ("per_second", -1)):
            if f"{kind}_{name}" in timings:
                timings[f"{kind}_{name}"] *= ratio ** sign
    set_times(call, chunks)


def gaps_to_first(made: Made, factor: float) -> None:
    """Faster answers, with the time that is gained before their first tokens."""
    for call in unprobed(made):
        first, *gaps = call["timing"]["chunk_us"]
        faster = [int(gap / factor) for gap in gaps]
        shift(call, [first + sum(gaps) - sum(faster), *faster])


def first_to_gaps(made: Made) -> None:
    """Earlier first tokens, with the time that is gained spread over the answers."""
    for call in unprobed(made):
        first, *gaps = call["timing"]["chunk_us"]
        each = first * 2 // 3 // len(gaps)
        shift(call, [first - each * len(gaps), *(gap + each for gap in gaps)])


def warm_cache(made: Made) -> None:
    """All first tokens early, those of the probes as well, as with a cache that is not reported."""
    for event in made.events:
        for probe in event["probes"] if event["event"] == "cache_probed" else ():
            probe["first_token_us"] //= 5
        if event["event"] == "cache_probed":
            event["run_first_token_us"] //= 5
    for call in calls_of(made):
        first, *gaps = call["timing"]["chunk_us"]
        if gaps:
            each = first * 4 // 5 // len(gaps)
            shift(call, [first - each * len(gaps), *(gap + each for gap in gaps)])


def slow_calls_time_out(made: Made) -> None:
    """The slowest answers of a phase become failures."""
    own = sorted((call for call in calls_of(made) if call["phase"] == "20q"),
                 key=lambda call: call["timing"]["done_us"])[-4:]
    for call in own:
        call.update(outcome="timeout", checks=None, error={
            "kind": "timeout", "message": "the call's time was up", "status": 200,
            "body_start": None})
        call["response"].update(finish_reason=None, usage=None, server_timings=None)
    for event in made.events:
        if event["event"] == "phase_finished" and event["phase"] == "20q":
            event.update(ok=event["ok"] - len(own), failed=event["failed"] + len(own))
        if event["event"] == "run_finished":
            event["exit_code"] = 1


def split_chunks(made: Made, share: float) -> None:
    """Some chunks are two, and as many more tokens, unless the limit of tokens was reached."""
    rng = random.Random(6)
    for call in unprobed(made):
        timing, response = call["timing"], call["response"]
        if response["finish_reason"] == "stop" and not timing["chunk_kinds"]:
            first, *gaps = timing["chunk_us"]
            parts = [[gap // 2, gap - gap // 2] if rng.random() < share else [gap] for gap in gaps]
            added = sum(map(len, parts)) - len(gaps)
            timing["bytes_received"] += added * (timing["bytes_received"] // len(gaps) - 6)
            timing["reads"] = []
            set_times(call, [first, *(gap for part in parts for gap in part)])
            count_more(response, added)


def more_tokens_below_limit(made: Made) -> None:
    for call in calls_of(made):
        if call["response"]["finish_reason"] == "stop":
            count_more(call["response"], call["response"]["usage"]["completion_tokens"] // 8)


def count_more(response: Any, added: int) -> None:
    usage, timings = response["usage"], response["server_timings"] or {}
    for name in ("completion_tokens", "total_tokens"):
        usage[name] += added
    if timings:
        count, ms = usage["completion_tokens"], timings["predicted_ms"]
        timings.update(predicted_n=count, predicted_per_token_ms=ms / count,
                       predicted_per_second=count * 1000 / ms)


# --- the machine ---------------------------------------------------------------------------------
def with_busy_samples(made: Made, first: int) -> None:
    """A run whose second quarter was busy, as its load shows, with the samples from there on in
    place of earlier ones. first: quarter whose samples go to the end."""
    samples = [event for event in made.events if event["event"] == "host_sampled"]
    loads, load, quarter = list[float](), 2.0, len(samples) // 4
    for at, _ in enumerate(samples):
        load = load * 0.92 + 0.08 * (12 if at // quarter == 1 else 2)
        loads.append(round(load, 2))
    cut = quarter * first
    loads = loads[:cut] + loads[cut + quarter:] + loads[cut:cut + quarter]
    for sample, load in zip(samples, loads):
        sample["load_1m"] = load


def interpolated(made: Made) -> None:
    """The samples of a busy time on a line between the one before and the one after it."""
    samples = [event for event in made.events if event["event"] == "host_sampled"]
    begin, end = len(samples) // 4, len(samples) // 2
    for at in range(begin + 1, end):
        for name, digits in (("cpu_busy_ratio", 4), ("other_cpu_busy_ratio", 4)):
            before, after = samples[begin][name], samples[end][name]
            samples[at][name] = round(
                before + (after - before) * (at - begin) / (end - begin), digits)


def half_energy(made: Made) -> None:
    """Half of what a counter of packages would have counted, in its steps."""
    rng, steps = random.Random(8), 0
    for event in made.events:
        if event["event"] == "host_sampled":
            steps += rng.randrange(900_000, 1_100_000)
            event["energy_uj"] = steps * 61_035 // 2000


def quiet_instead(made: Made) -> None:
    """Quiet samples of the run in place of those of its busy quarter."""
    with_busy_samples(made, 1)
    samples = [event for event in made.events if event["event"] == "host_sampled"]
    quarter = len(samples) // 4
    for quiet, busy in zip(samples, samples[quarter:2 * quarter]):
        busy.update({name: value for name, value in quiet.items() if name not in (
            "seq", "t_us", "at", "event", "run_id", "segment")})


def better_calibration(made: Made) -> None:
    for event in made.events:
        for row in event["saturation"] if event["event"] == "instrument_calibrated" else ():
            row["chunks_per_s"] = round(row["chunks_per_s"] * 10)


def declares(part: str, name: str, value: Any, made: Made) -> None:
    made.metadata[part][name] = {"value": value, "source": "declared", "reason": None}


def of_another_machine(made: Made) -> None:
    """A fast machine's ledger under the hardware of a small one."""
    for part, name, value in (("cpu", "model_name", "Cortex-A76"), ("cpu", "vendor", "ARM"),
                              ("memory", "capacity_bytes", 8 << 30),
                              ("memory", "bandwidth_measured_gb_per_s", 12.0)):
        made.hardware[part][name] = {"value": value, "source": "probed", "reason": None}


def hosted(made: Made, name: str = "cpu_busy_ratio", value: float = 0.02) -> None:
    """Answers of a hosted API behind a local proxy: this machine does nothing."""
    for event in made.events:
        if event["event"] == "host_sampled":
            event[name] = value


# --- streams and claims --------------------------------------------------------------------------
def trimmed(made: Made, every: int) -> None:
    """Every so many answers without its end, which repeated itself."""
    for call in calls_of(made)[::every]:
        text = call["response"]["text"]
        call["response"]["text"] = text[:len(text) * 3 // 4]


def hidden_draft(made: Made) -> None:
    """Three tokens come at once, as from a draft model, of which the timings say nothing."""
    for call in calls_of(made):
        chunks = call["timing"]["chunk_us"]
        for at in range(1, len(chunks) - 2, 3):
            total = sum(chunks[at:at + 3])
            chunks[at:at + 3] = [total - 241, 117, 124]
        set_times(call, chunks)


def loops_stopped(made: Made) -> None:
    """An answer that ran to its limit, as if it had ended."""
    next(call for call in calls_of(made) if call["response"]["finish_reason"] == "length")[
        "response"]["finish_reason"] = "stop"


def shifted_copy(made: Made) -> None:
    """A copy without the first chunks and the end of each answer, with noise."""
    rng = random.Random(5)
    renamed(made)
    for call in calls_of(made):
        chunks = call["timing"]["chunk_us"]
        kept = [chunks[0], *chunks[7:len(chunks) * 4 // 5]] if len(chunks) > 40 else chunks
        set_times(call, [int(gap * rng.uniform(0.97, 1.03)) for gap in kept])
        call["response"]["usage"]["completion_tokens"] -= len(chunks) - len(kept)


def names_swapped(made: Made) -> None:
    """A small model's run with the name and the facts of a larger one."""
    facts = next(event["facts"] for event in load(next(MERGED.glob(f"*/{QWEN}*"))).events
                 if event["event"] == "endpoint_identified")
    for event in made.events:
        if event["event"] == "endpoint_identified":
            event["facts"] = dict(facts)


def relabelled(made: Made) -> None:
    """Four bits per weight with the name and size of eight."""
    for event in made.events:
        if event["event"] == "endpoint_identified":
            event["facts"].update(quantization="Q8_0", file_bytes=int(
                event["facts"]["parameters_count"] * 8.5 / 8))


def smoothed(made: Made, noise: float) -> None:
    """All gaps of a call close to their mean."""
    rng = random.Random(9)
    for call in calls_of(made):
        chunks = call["timing"]["chunk_us"]
        call["timing"]["reads"] = []
        mean = sum(chunks[1:]) / max(len(chunks) - 1, 1)
        set_times(call, [chunks[0], *(int(mean * rng.uniform(1 - noise, 1 + noise))
                                      for _ in chunks[1:])])


def lanes_from_one(made: Made) -> None:
    """The times of the first answer of a phase, with noise, in place of all others."""
    rng = random.Random(10)
    own = [call for call in calls_of(made) if call["phase"] == "parallel_same"]
    source = max(own, key=lambda call: len(call["timing"]["chunk_us"]))["timing"]["chunk_us"]
    for call in own:
        chunks = call["timing"]["chunk_us"]
        if len(chunks) <= len(source):
            set_times(call, [chunks[0], *(int(gap * rng.uniform(0.99, 1.01))
                                          for gap in source[1:len(chunks)])])


def left_open(made: Made) -> None:
    """Answers five times as fast, and streams that the server seems to have left open."""
    faster(made)
    for call in calls_of(made):
        call["flags"] = sorted({*call["flags"], "left_open"})


def slow_suspended(made: Made) -> None:
    """The machine seems to have slept during the slowest answers, which are left out then."""
    own = sorted((call for call in calls_of(made) if call["phase"] == "20q"),
                 key=lambda call: call["timing"]["last_token_us"])
    for call in own[-6:]:
        call["timing"]["heartbeat_gap_us"] = 2_400_000


def longer_prompts(made: Made, factor: float = 1.25) -> None:
    """Each prompt is counted as longer, for a higher prefill rate; all counts agree."""
    for event in made.events:
        for probe in event["probes"] if event["event"] == "cache_probed" else ():
            probe["prompt_tokens"] = int(probe["prompt_tokens"] * factor)
    for call in calls_of(made):
        usage, timings = call["response"]["usage"], call["response"]["server_timings"] or {}
        usage["prompt_tokens"] = int(usage["prompt_tokens"] * factor)
        usage["total_tokens"] = usage["prompt_tokens"] + usage["completion_tokens"]
        if timings:
            timings["prompt_n"] = usage["prompt_tokens"] - timings["cache_n"]
            timings["prompt_per_token_ms"] = timings["prompt_ms"] / timings["prompt_n"]
            timings["prompt_per_second"] = timings["prompt_n"] * 1000 / timings["prompt_ms"]


def draft_declared(made: Made) -> None:
    """More tokens than there were, as if a draft model had guessed them."""
    declared("draft_model", "a small one")(made)
    more_tokens(made, 1.4)
    for call in calls_of(made):
        (call["response"]["server_timings"] or {}).update(draft_n=40, draft_n_accepted=30)


def idle_card(made: Made) -> None:
    """Answers of a hosted API behind a proxy, on a machine with a card that does nothing."""
    declares("runtime", "backend", "cuda", made)
    for event in made.events:
        if event["event"] == "host_sampled":
            event["cpu_busy_ratio"] = 0.02
            event["gpus"] = [{"index": 0, "busy_ratio": 0.0, "memory_used_bytes": 512 << 20,
                              "power_w": 31.2, "temperature_c": 41.0, "clock_mhz": 210.0,
                              "throttled": False}]


def threads_claimed(made: Made) -> None:
    made.metadata["runtime"]["threads_count"] = {"value": 1, "source": "declared", "reason": None}


ATTACKS = (
    Attack("one phase 2.5 times as fast", functools.partial(
        phase_faster, phase="20q", factor=2.5), ("server-changed",)),
    Attack("one phase 1.5 times as fast", functools.partial(
        phase_faster, phase="20q", factor=1.5), ("server-changed",)),
    *(Attack(f"answers {factor} times as fast, first tokens late", functools.partial(
        gaps_to_first, factor=factor), ("time-unexplained",), run) for factor, run in (
            (1.5, LLAMA_CPP), (1.2, LLAMA_CPP), (1.5, VLLM))),
    Attack("lanes 3.5 times as fast", functools.partial(
        phase_faster, phase="parallel_same", factor=3.5), ("hardware-exceeded",)),
    Attack("slow calls as timeouts", slow_calls_time_out, ("ledger-altered",)),
    Attack("samples after a busy time moved", functools.partial(with_busy_samples, first=2),
           ("time-unexplained",)),
    Attack("samples interpolated", interpolated, ("data-too-regular",)),
    Attack("another machine behind loopback", functools.partial(
        declares, "endpoint", "same_machine", False), ("hardware-implausible",)),
    Attack("a backend without a card", functools.partial(
        declares, "runtime", "backend", "cuda"), ("hardware-implausible",)),
    Attack("the name of a mixture of experts", functools.partial(
        another_model, new="mixtral-8x7b-instruct"), ("claim-contradicted",)),
    Attack("another machine's hardware", of_another_machine, ("hardware-implausible",)),
    Attack("a hosted API: idle cores", hosted, ("hardware-implausible",)),
    Attack("a hosted API: a server without weights", functools.partial(
        hosted, name="server_memory_bytes", value=40 << 20), ("hardware-implausible",)),
    Attack("every third text trimmed", functools.partial(trimmed, every=3),
           ("server-counts-contradict",)),
    Attack("all texts trimmed alike", functools.partial(trimmed, every=1),
           ("tokens-implausible",)),
    Attack("chunks split, with more tokens", functools.partial(split_chunks, share=0.6),
           ("tokens-implausible",)),
    Attack("an eighth more tokens, below the limit", more_tokens_below_limit,
           ("tokens-implausible",)),
    Attack("a draft model hidden", hidden_draft, ("tokens-implausible",)),
    Attack("a copy without both ends", shifted_copy, ("run-copied",), is_indexed=True),
    Attack("names of two models swapped", names_swapped, ("claim-contradicted",),
           is_indexed=True),
    Attack("fewer threads than the command line", threads_claimed, ("claim-contradicted",)),
    Attack("a loop as an end", loops_stopped, ("server-counts-contradict",)),
    Attack("busy samples moved", functools.partial(with_busy_samples, first=1),
           ("time-unexplained",)),
    Attack("quiet samples in place of busy ones", quiet_instead, ("data-too-regular",)),
    Attack("earlier first tokens, slower answers", first_to_gaps, ("server-counts-contradict",)),
    Attack("a cache that is not reported", warm_cache, ("time-unexplained",)),
    Attack("half of the energy", half_energy, ("hardware-implausible",)),
    *(Attack(f"all gaps within {noise:.1%} of their mean", functools.partial(
        smoothed, noise=noise), ("data-too-regular",), run)
      for noise, run in ((0, LLAMA_CPP), (0.005, LLAMA_CPP), (0.015, VLLM))),
    Attack("one answer's times on all lanes", lanes_from_one, ("data-too-regular",)),
    Attack("streams left open", left_open, ("ledger-altered",)),
    Attack("slow calls in a sleeping machine", slow_suspended, ("time-unexplained",)),
    Attack("a quarter more prompt tokens", longer_prompts, ("server-counts-contradict",)),
    Attack("more tokens of a draft model", draft_declared, ("server-counts-contradict",)),
    Attack("a hosted API: an idle card", idle_card, ("hardware-implausible",)),
)
OPEN = (
    ("another quantization in all facts", relabelled,
     "speed is not that of a label, unless the memory is too slow for it"),
    ("all times / 1.008", functools.partial(compressed, factor=1.008),
     "the times between two samples vary by as much"),
    ("a calibration ten times as fast", better_calibration,
     "a busy machine pauses between the streams of a calibration"),
)


# --- resumed runs --------------------------------------------------------------------------------
def faster_after_resume(made: Made) -> None:
    """The second segment is of a machine that is 1.35 times as fast."""
    for call in calls_of(made):
        if call["segment"]:
            set_times(call, [int(us / 1.35) for us in call["timing"]["chunk_us"]])


def stopped_when_slow(made: Made) -> None:
    """Each segment but the last was stopped a minute after its last call."""
    for event in made.events:
        if event["event"] == "run_interrupted":
            event.update(t_us=event["t_us"] + 60_000_000, at=later(event["at"], 60_000_000))


RESUMED = (
    ("a segment of a faster machine", faster_after_resume, (14,), "server-changed"),
    ("stopped whenever a call is slow", stopped_when_slow, (5, 4, 4, 4), "time-unexplained"),
)


def main() -> int:
    """Run all attacks; return the exit code."""
    missed = run_attacks((*ATTACKS, *(Attack(name, change, ()) for name, change, _ in OPEN)), QWEN)
    for name, change, kill_after, code in RESUMED:
        made = make(Spec(phases="frozen,5q,20q", kill_after=kill_after, interrupted=True))
        before = codes(made, made.path().split("/"), copies.Index())
        change(made)
        new = codes(made.sealed(), made.path().split("/"), copies.Index()) - before
        missed += is_missed(name, (code,), new)
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
