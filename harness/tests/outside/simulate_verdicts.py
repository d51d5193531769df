"""How often the verdicts of compare/two_runs are wrong or missing, on simulated runs.

    python -m tests.outside.simulate_verdicts [comparisons, default 2000]

A run has one factor of its own (`sigma`), each of its calls another 3 %, over the questions of
frozen, 5q, 20q, parallel_same and edge_suite. Printed per sigma and number of runs on a side: the
share of comparisons of equal machines with any verdict, and the share of decided ones by quantity
at a true difference of 20 %.
"""
from __future__ import annotations

import math
import random
import sys
from typing import Any

from compare import two_runs, verdicts

QUESTIONS = {"frozen": 3, "5q": 5, "20q": 20, "parallel_same": 1, "edge_suite": 6}
LANES_FACTOR = 1.5            # throughput of lanes varies more: 4.5 % where one lane has 3 %


def phases(rng: random.Random, runs: int, sigma: float, ratio: float) -> list[two_runs.Phase]:
    """Two sides of simulated runs; side B is faster by `ratio`."""
    shifts = [[rng.gauss(0, sigma) for _ in range(runs)] for _ in "AB"]
    identities = [[two_runs.Run({}, [], {"run_flags": []}, {}) for _ in range(runs)] for _ in "AB"]
    found = []
    for name, count in QUESTIONS.items():
        sides: list[list[Any]] = [[], []]
        values: list[list[Any]] = [[], []]
        for side in (0, 1):
            for run, shift in zip(identities[side], shifts[side]):
                def speed(noise: float, shift: float = shift, side: int = side) -> float:
                    return math.exp(shift + rng.gauss(0, noise)) * (ratio if side else 1)
                lanes = speed(0.005) * math.exp(shift * (LANES_FACTOR - 1))
                sides[side].append((run, {two_runs.LANES_METRIC: lanes}))
                values[side].append({str(q): {
                    "decode_tokens_per_s": speed(0.03), "ttft_ms": 1 / speed(0.03),
                    "prefill_tokens_per_s": speed(0.03)} for q in range(count)})
        found.append(two_runs.Phase(name, (sides[0], sides[1]), (values[0], values[1]), {},
                                    [str(q) for q in range(count)], [], []))
    return found


def verdict(of: list[two_runs.Phase], quantity: str) -> str:
    row = two_runs.verdict_on(of, quantity)
    return str(row["verdict"]) if row else ""


def main() -> int:
    comparisons = int(sys.argv[1]) if len(sys.argv) > 1 else 2000
    rng = random.Random(1)
    print("sigma  runs  A/A any  +20 %: " + ", ".join(two_runs.QUANTITIES))
    for sigma in (0.01, 0.03, 0.05):
        for runs in (1, 3):
            wrong, decided = 0, dict.fromkeys(two_runs.QUANTITIES, 0)
            for _ in range(comparisons):
                equal = phases(rng, runs, sigma, 1.0)
                wrong += any(verdict(equal, name) != "cannot tell" for name in decided)
                unequal = phases(rng, runs, sigma, 1.2)
                for name in decided:
                    decided[name] += verdict(unequal, name) == "faster"
            shares = "  ".join(f"{count / comparisons:4.0%}" for count in decided.values())
            print(f"{sigma:4.0%}  {runs:4}  {wrong / comparisons:7.1%}  {shares}")
        tables = [verdicts.ranks("decode_tokens_per_s", [
            [math.exp(rng.gauss(0, sigma)) for _ in range(3)] for _ in range(10)])
            for _ in range(comparisons)]
        print(f"{sigma:4.0%}  ten equal machines, three runs each: more than one rank in "
              f"{sum(max(ranks) > 1 for ranks in tables) / comparisons:.1%} of tables")
    return 0


if __name__ == "__main__":
    sys.exit(main())
