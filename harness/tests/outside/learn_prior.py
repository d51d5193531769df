"""Learn the prior of compare/verdicts from merged runs: the spread between runs of one row.

    python -m tests.outside.learn_prior [FOLDER, default ../submissions]

Rows with at least 3 runs that count are used: equal machine, weights, runtime and configuration.
Printed per kind of machine and quantity: rows, degrees of freedom, the pooled standard deviation of
the logarithms of the runs' numbers, and its 95 % interval. Put a ratio into verdicts.PRIORS once
its interval leaves out the present one; its source names the rows and the degrees of freedom.
"""
from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from compare import entries, folders, headline, verdicts

MIN_RUNS = 3
QUANTITIES = ("decode_tokens_per_s", "ttft_ms", "output_token_throughput_tokens_per_s",
              "prefill_tokens_per_s", "joules_per_output_token")
# 2.5 % and 97.5 % quantiles of chi-square by degrees of freedom, then Wilson and Hilferty's form.
CHI_SQUARE = {2: (0.0506, 7.378), 3: (0.2158, 9.348), 4: (0.4844, 11.14), 5: (0.8312, 12.83)}


class Learned(NamedTuple):
    """Pooled spread of one quantity; low and high: its 95 % interval."""

    rows: int
    freedom: int
    ratio: float
    low: float
    high: float


def kind_of(run: headline.Run) -> str:
    """`card`, or `chip` for processors and unified memory."""
    return "card" if run.member.submission.machine.has_own_memory else "chip"


def learn(submissions: Iterable[entries.Submission]) -> dict[tuple[str, str], Learned]:
    """{(kind of machine, quantity): its spread}."""
    rows: dict[Any, list[headline.Run]] = {}
    for run in headline.runs_of(submissions):
        if not run.reasons:
            rows.setdefault((kind_of(run), run.exact), []).append(run)
    sides: dict[tuple[str, str], list[verdicts.Side]] = {}
    for (kind, _), runs in rows.items():
        for name in QUANTITIES:
            side = verdicts.side_of(run.numbers.get(name) for run in runs)
            if side.runs >= MIN_RUNS:
                sides.setdefault((kind, name), []).append(side)
    return {key: pooled(found) for key, found in sorted(sides.items())}


def pooled(sides: Sequence[verdicts.Side]) -> Learned:
    """The spread of several rows together."""
    freedom = sum(side.runs - 1 for side in sides)
    squares = sum(side.squares for side in sides)
    low, high = (math.sqrt(squares / quantile) for quantile in reversed(chi_square(freedom)))
    return Learned(len(sides), freedom, math.sqrt(squares / freedom), low, high)


def chi_square(freedom: int) -> tuple[float, float]:
    """Its 2.5 % and 97.5 % quantiles."""
    if freedom in CHI_SQUARE:
        return CHI_SQUARE[freedom]
    spread = math.sqrt(2 / (9 * freedom))
    low, high = (freedom * (1 - 2 / (9 * freedom) + sign * 1.96 * spread) ** 3 for sign in (-1, 1))
    return low, high


def table(found: Mapping[tuple[str, str], Learned]) -> str:
    """One line per kind of machine and quantity."""
    lines = [f"machine  {'quantity':<37}  rows  freedom  ratio  95 % interval    prior"]
    for (kind, name), one in found.items():
        lines.append(f"{kind:<7}  {name:<37}  {one.rows:>4}  {one.freedom:>7}  {one.ratio:5.1%}  "
                     f"{one.low:5.1%} to {one.high:5.1%}  {verdicts.prior(name):6.1%}")
    return "\n".join(lines if found else ["no row has 3 runs that count"])


def main() -> int:
    folder = sys.argv[1] if len(sys.argv) > 1 else os.path.join("..", "submissions")
    read = folders.read_all([folder])
    print(table(learn(read.submissions)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
