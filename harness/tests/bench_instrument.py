#!/usr/bin/env python3
"""Compare the accuracy and the cost of this client with those of a plain read loop.

  python3 harness/tests/bench_instrument.py               all parts, about two minutes
  python3 harness/tests/bench_instrument.py --rounds 3    fewer rounds
  python3 harness/tests/bench_instrument.py lag calls     only these parts

Both clients read the same schedules from the embedded endpoint, in turn. The plain one is
`for line in response` of urllib, with a time for each line and nothing else; ours keeps all its
evidence. The reference is the endpoint's own log. Quote ratios and medians: single times say little
on a machine that does other work.
"""
from __future__ import annotations

import argparse
import gc
import itertools
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from typing import Any, Callable, NamedTuple, Optional

HARNESS = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, HARNESS)

import run_benchmark
from run import calibration, sse, timing

Json = dict[str, Any]
LANES = (1, 4, 16)
GAPS_MS = (5, 20)
MANY_LANES, MANY_GAP_MS = 64, 6.4         # 10,000 chunks per second
STREAM_S = 2.0
SATURATION_CHUNKS = 100_000
MODEL = "reference-swift"
CALL_ID = re.compile(rb'"id": *"chatcmpl-(\d+)"')


class Sample(NamedTuple):
    """One round of one client: lags of the stamps in µs, cost, and number of chunks."""

    lag_us: list[int]
    ttft_error_us: list[int]
    e2el_error_us: list[int]
    cpu_s: float
    wall_s: float
    reading_s: float
    chunks: int


class Seen(NamedTuple):
    """One stream: its id, the start of its request (ns), stamps and sending times of its chunks."""

    call_id: int
    started_ns: int
    stamps_ns: list[int]
    sent_ns: list[int]


# --- the two clients -----------------------------------------------------------------------------
def body_of(schedule: Json) -> Json:
    return {"model": MODEL, "stream": True, "reference": schedule,
            "stream_options": {"include_usage": True},
            "messages": [{"role": "user", "content": "a schedule"}]}


def seen(payloads: list[bytes], started_ns: int, stamps_ns: list[int]) -> Seen:
    sent = calibration.SentStamps()
    for read, payload in enumerate(payloads):
        sent.feed(payload, read)
    found, pairs = CALL_ID.search(b"".join(payloads[:9])), sent.pairs()
    return Seen(int(found[1]) if found else 0, started_ns, [stamps_ns[read] for read, _ in pairs],
                [sent_ns for _, sent_ns in pairs])


def ours(client: run_benchmark.Client, schedule: Json) -> Callable[[], Seen]:
    """Read a stream as the runner does; what is returned computes the rest afterwards."""
    payloads: dict[int, bytes] = {}
    stream, before_ns = sse.StreamParser(), run_benchmark.wall_offset_ns()

    def sink(payload: bytes, read: int) -> None:
        payloads[read] = payload
        stream.feed(payload, read)         # as in a real call

    reply = client.send("POST", "/v1/chat/completions", body_of(schedule), 120.0, sink)
    after_ns = run_benchmark.wall_offset_ns()

    def result() -> Seen:
        arrivals = reply.arrivals
        assert arrivals is not None and not reply.failure
        us = timing.stamps_of(arrivals, before_ns, after_ns).us
        return seen([payloads.get(read, b"") for read in range(len(us))], arrivals.started_ns,
                    [arrivals.started_ns + at * 1000 for at in us])
    return result


def plain(base: str, schedule: Json) -> Callable[[], Seen]:
    """`for line in response`, with a time for each line and nothing else."""
    data = json.dumps(body_of(schedule)).encode()
    request = urllib.request.Request(base + "/v1/chat/completions", data=data,
                                     headers={"Content-Type": "application/json"})
    lines: list[tuple[int, bytes]] = []
    started_ns = time.perf_counter_ns()
    with urllib.request.urlopen(request, timeout=120) as response:
        for line in response:
            lines.append((time.perf_counter_ns(), line))
    return lambda: seen([line for _, line in lines], started_ns, [at_ns for at_ns, _ in lines])


# --- measuring -----------------------------------------------------------------------------------
def log_of(base: str, cache: dict[int, Json]) -> dict[int, Json]:
    """Return the endpoint's own log by call id."""
    after = max((entry["seq"] for entry in cache.values()), default=0)
    with urllib.request.urlopen(f"{base}/log?after={after}", timeout=10) as response:
        for entry in json.load(response)["requests"]:
            cache[entry["id"]] = entry
    return cache


def sample(base: str, lanes: int, schedule: Json, stream: Callable[[], Callable[[], Seen]],
           cache: dict[int, Json]) -> Sample:
    """Run the same stream on so many lanes at once."""
    results: list[Callable[[], Seen]] = []
    threads = [threading.Thread(target=lambda: results.append(stream())) for _ in range(lanes)]
    gc.collect()
    gc.disable()
    cpu_s, wall_s = time.process_time(), time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    cpu_s, wall_s = time.process_time() - cpu_s, time.perf_counter() - wall_s
    gc.enable()
    streams, log = [result() for result in results], log_of(base, cache)
    lag, ttft, e2el = [], [], []
    for one in streams:
        lag += [(stamp - sent) // 1000 for stamp, sent in zip(one.stamps_ns, one.sent_ns)]
        received_ns = log[one.call_id]["received_ns"]
        for errors, at in ((ttft, 0), (e2el, -1)):
            measured_ns = one.stamps_ns[at] - one.started_ns
            errors.append((measured_ns - (one.sent_ns[at] - received_ns)) // 1000)
    reading_ns = max(s.stamps_ns[-1] for s in streams) - min(s.stamps_ns[0] for s in streams)
    return Sample(lag, ttft, e2el, cpu_s, wall_s, max(reading_ns, 1) / 1e9,
                  schedule["tokens"] * lanes)


def spread(values: list[float], digits: int = 3) -> str:
    return (f"{statistics.median(values):.{digits}g} "
            f"({min(values):.{digits}g}-{max(values):.{digits}g})")


def rounds_of(base: str, client: run_benchmark.Client, rounds: int, lanes: int,
              schedule: Json) -> tuple[list[Sample], list[Sample]]:
    """Run both clients in turn, so that a change of the machine's speed affects both."""
    cache: dict[int, Json] = {}
    mine, theirs = [], []
    for _ in range(rounds):
        mine.append(sample(base, lanes, schedule, lambda: ours(client, schedule), cache))
        theirs.append(sample(base, lanes, schedule, lambda: plain(base, schedule), cache))
    return mine, theirs


def print_row(name: str, both: tuple[list[Sample], list[Sample]], unit: str,
              value: Callable[[Sample], float]) -> None:
    mine, theirs = ([value(one) for one in samples] for samples in both)
    ratio = statistics.median(a / b if b else 0.0 for a, b in zip(mine, theirs))
    print(f"  {name:34} ours {spread(mine):22} plain {spread(theirs):22} {unit:9} "
          f"ours/plain {ratio:.3g}")


# --- the parts -----------------------------------------------------------------------------------
def part_lag(base: str, client: run_benchmark.Client, rounds: int) -> None:
    """Lag from sending to stamp, errors of TTFT and E2EL, CPU, at 1, 4, 16 and 64 lanes."""
    def percentile(field: str, share: float) -> Callable[[Sample], float]:
        return lambda one: float(timing.percentile(sorted(getattr(one, field)), share))

    for gap_ms, lanes in (*itertools.product(GAPS_MS, LANES), (MANY_GAP_MS, MANY_LANES)):
        schedule = {"first_token_ms": 50, "gap_ms": gap_ms,
                    "tokens": int(STREAM_S * 1000 / gap_ms)}
        both = rounds_of(base, client, rounds, lanes, schedule)
        print(f"{lanes} lanes, a chunk every {gap_ms} ms, {schedule['tokens']} chunks per lane")
        print_row("lag p50", both, "us", percentile("lag_us", 0.5))
        print_row("lag p99", both, "us", percentile("lag_us", 0.99))
        print_row("TTFT error p50", both, "us", percentile("ttft_error_us", 0.5))
        print_row("E2EL error p50", both, "us", percentile("e2el_error_us", 0.5))
        print_row("CPU per 1,000 chunks", both, "ms", lambda one: one.cpu_s * 1e6 / one.chunks)


def part_saturation(base: str, client: run_benchmark.Client, rounds: int) -> None:
    """Chunks per second of a client when they come as fast as it reads them."""
    for lanes in (*LANES, MANY_LANES):
        schedule = {"first_token_ms": 0, "gap_ms": 0, "tokens": SATURATION_CHUNKS // lanes}
        both = rounds_of(base, client, rounds, lanes, schedule)
        print(f"{lanes} lanes, as fast as they are read")
        print_row("chunks/s, first to last read", both, "1/s",
                  lambda one: one.chunks / one.reading_s)
        print_row("chunks/s, with parsing", both, "1/s", lambda one: one.chunks / one.wall_s)


def part_calls(base: str, client: run_benchmark.Client, rounds: int) -> None:
    """Start-up, and how long the server is idle between two calls of one lane."""
    starts, idles = [], []
    for _ in range(rounds):
        cache = log_of(base, {})
        known = set(cache)
        with tempfile.TemporaryDirectory() as folder:
            started_ns = time.perf_counter_ns()
            subprocess.run([
                sys.executable, os.path.join(HARNESS, "run_benchmark.py"), "--target-url", base,
                "--models", MODEL, "--phases", "20q", "--num-predict", "8", "--no-calibration",
                "--out-dir", folder, "--quiet"], check=True, stdout=subprocess.DEVNULL)
        log = [entry for key, entry in sorted(log_of(base, cache).items()) if key not in known]
        starts.append((log[0]["received_ns"] - started_ns) / 1e6)
        idles.append(statistics.median(
            (b["received_ns"] - a["end_ns"]) / 1e6 for a, b in zip(log[1:], log[2:])))
    print("a run of 20 short calls in its own process, each call on disk before the next")
    print(f"  from process start to the first call      {spread(starts)} ms")
    print(f"  server idle between two calls (median)    {spread(idles)} ms")


PARTS = {"lag": part_lag, "saturation": part_saturation, "calls": part_calls}


def main(argv: Optional[list[str]] = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("parts", nargs="*", metavar="PART",
                        help=f"{', '.join(PARTS)} (default: all)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each (default: 5)")
    chosen = parser.parse_args(argv)
    if not set(chosen.parts) <= set(PARTS):
        parser.error(f"{' '.join(chosen.parts)}: choose from {', '.join(PARTS)}")
    print(f"Python {sys.version.split()[0]}, {os.cpu_count()} CPUs; median (lowest-highest) of "
          f"{chosen.rounds} rounds")
    with run_benchmark.reference_endpoint("--slots", "64") as target:
        client = run_benchmark.Client(target)
        for name in chosen.parts or PARTS:
            PARTS[name](target.base, client, chosen.rounds)
    return 0


if __name__ == "__main__":
    sys.exit(main())
