"""Measure the curves of servers whose speed is known, and compare.

    python3 harness/tests/outside/known_curves.py [COUNT] [SEED]

Starts COUNT (20) reference endpoints with random slots, decode rate, prefill rate and cost per
token of context, and runs ramp and depth against each. Every point has to be within 2 % (a time
within 2 % or 1 ms) of what the endpoint's own log gives, and the knee has to be the first
level with as many lanes as slots. Prints one line per server, with the number of points that are
over 2 % off the schedule, since a loaded machine delays the endpoint, too. A server that differs is
measured up to four times. Exit code 1 if one differs each time.
"""
from __future__ import annotations

import json
import random
import sys
import tempfile
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from core import curve_levels, ledger, run_summary
from tests import runs

COUNT, LIMIT_RATIO, SPARE_MS = 20, 0.02, 1.0
CONTEXT_TOKENS = 9000


class Server(NamedTuple):
    """What an endpoint is started with."""

    slots: int
    tokens_per_s: float
    prefill_tokens_per_s: float
    context_ns: float

    def flags(self) -> list[str]:
        return ["--models", f"known:{self.tokens_per_s:g}", "--slots", str(self.slots),
                "--first-token-ms", "20", "--context", str(CONTEXT_TOKENS),
                "--prefill-tokens-per-s", str(self.prefill_tokens_per_s),
                "--context-ns", str(self.context_ns)]

    def gap_s(self, prompt_tokens: float) -> float:
        return 1 / self.tokens_per_s + prompt_tokens * self.context_ns / 1e9

    def first_s(self, prompt_tokens: float) -> float:
        return 0.02 + prompt_tokens / self.prefill_tokens_per_s


def expected(server: Server, curve: Any, calls: Sequence[Any]) -> dict[tuple[str, float], float]:
    """(metric, place) -> value by the endpoint's schedule."""
    found = {}
    for metric in (one["metric"] for one in curve["series"]):
        for point in next(one["points"] for one in curve["series"] if one["metric"] == metric):
            at = point["at"]
            if curve["phase"] == "depth":
                step_s, first_s = server.gap_s(at), server.first_s(at)
                value = {"decode_tokens_per_s": 1 / step_s, "ttft_ms": first_s * 1000,
                         "prefill_tokens_per_s": at / (first_s - step_s)}.get(metric)
            elif metric == "output_token_throughput_tokens_per_s":
                value = ideal_throughput(server, [c for c in calls if c["level"] == at], int(at))
            else:
                value = None
            if value:
                found[metric, at] = value
    return found


def ideal_throughput(server: Server, calls: Sequence[Any], lanes: int) -> float:
    """Throughput of a level whose calls follow the schedule, without any delay."""
    queues = {lane: [c["response"]["usage"] for c in calls if c["lane"] == lane]
              for lane in range(lanes)}
    asked_s, free_s = dict.fromkeys(queues, 0.0), [0.0] * server.slots
    sent: list[tuple[float, float]] = []                     # time, tokens
    ends_s = {}
    while any(queues.values()):
        lane = min((lane for lane in queues if queues[lane]), key=lambda one: asked_s[one])
        usage = queues[lane].pop(0)
        slot = min(range(server.slots), key=lambda one: free_s[one])
        gap_s = server.gap_s(usage["prompt_tokens"])
        first_s = max(asked_s[lane], free_s[slot]) + server.first_s(usage["prompt_tokens"])
        sent += [(first_s + at * gap_s, 1.0) for at in range(usage["completion_tokens"])]
        free_s[slot] = asked_s[lane] = ends_s[lane] = first_s + usage["completion_tokens"] * gap_s
    window_s = min(ends_s.values())
    return sum(count for at_s, count in sent if at_s <= window_s) / window_s


def as_sent(events: Sequence[Any], log: Sequence[Any]) -> list[Any]:
    """The ledger with the times at which the endpoint sent each chunk, by its own log."""
    # Of the endpoint's clock, which is the runner's: its first call is the run's.
    origin_ns = min(entry["received_ns"] for entry in log) - 1000 * min(
        e["timing"]["started_us"] for e in events if e["event"] == "call_finished")
    out = []
    for event in events:
        if event["event"] == "call_finished":
            timing = event["timing"]
            start_ns = origin_ns + timing["started_us"] * 1000
            end_ns = start_ns + timing["done_us"] * 1000
            entry = min(log, key=lambda one: abs(one["received_ns"] - start_ns)
                        + abs(one["end_ns"] - end_ns))
            sent_us = [(sent_ns - start_ns) // 1000 for sent_ns in entry["sent_ns"]]
            timing = {**timing, "first_token_us": sent_us[0], "last_token_us": sent_us[-1],
                      "chunk_us": [sent_us[0], *(b - a for a, b in zip(sent_us, sent_us[1:]))],
                      "reads": [], "done_us": (entry["end_ns"] - start_ns) // 1000}
            event = {**event, "timing": timing}
        out.append(event)
    return out


def points_of(curve: Any) -> dict[tuple[str, float], float]:
    """(metric, place) -> value."""
    return {(one["metric"], point["at"]): point["value"]
            for one in curve["series"] for point in one["points"]}


def differences(server: Server, folder: str, log: Sequence[Any]) -> tuple[list[str], list[str]]:
    """(points that are not what the endpoint sent, points that are not as scheduled)."""
    manifest, state = ledger.load_run(folder)
    wrong, late = [], []
    sent = run_summary.summarize_run(manifest, as_sent(state.events, log))["curves"]
    for curve, own in zip(run_summary.summarize_run(manifest, state.events)["curves"], sent):
        calls = [call for call in ledger.latest_calls(state.events)
                 if call["phase"] == curve["phase"]]
        values = points_of(curve)
        for found, wanted in ((wrong, points_of(own)), (late, expected(server, curve, calls))):
            found += [f"{metric} at {at:g}: {values[metric, at]:g}, expected {value:.5g}"
                      for (metric, at), value in wanted.items()
                      if abs(values[metric, at] - value) > max(
                          LIMIT_RATIO * value, SPARE_MS * metric.endswith("_ms"))]
        # A level that other programs disturbed has no throughput, so it cannot be the knee.
        disturbed = {call["level"] for call in calls} - {
            at for metric, at in values if metric == "output_token_throughput_tokens_per_s"}
        knee = next(level for level in curve_levels.ramp_levels(16) if level >= server.slots)
        if curve["phase"] == "ramp" and not disturbed and curve["knee"] != (
                knee if server.slots < 16 else None):
            wrong.append(f"knee {curve['knee']}")
    return wrong, late


def measured(server: Server) -> tuple[list[str], list[str]]:
    """Run both phases against a server; see `differences`."""
    with tempfile.TemporaryDirectory() as folder, runs.Endpoint(*server.flags()) as endpoint:
        outcome = runs.run("--target-url", endpoint.url, "--out-dir", folder, "--quiet",
                           "--no-calibration", "--phases", "ramp,depth")
        with urllib.request.urlopen(f"{endpoint.url}/log") as answer:
            log = json.load(answer)["requests"]
        if outcome.code:
            return [outcome.err], []
        return differences(server, str(next(Path(folder).glob("*/*/run-*"))), log)


def main(argv: Sequence[str]) -> int:
    """See above; the exit code."""
    count, seed = (int(word) for word in (*argv, *(str(COUNT), "1")[len(argv):]))
    dice, bad = random.Random(seed), 0
    for number in range(count):
        server = Server(dice.choice((1, 2, 4, 6, 8, 16)), dice.uniform(60, 120),
                        dice.uniform(4000, 12_000), dice.uniform(0, 2000))
        for _ in range(4):               # a busy machine may delay some
            found, late = measured(server)
            print(f"{number + 1}/{count} {server}: {'; '.join(found) or 'equal'}; "
                  f"{len(late)} points later than scheduled", flush=True)
            if not found:
                break
        bad += bool(found)
    print(f"{count - bad} of {count} equal, seed {seed}")
    return int(bool(bad))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
