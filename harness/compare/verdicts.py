"""When one row or side is faster than another, and how sure a number is.

One number per run, as a logarithm; the variance between runs is pooled over both sides and joined
with a prior (PRIORS), since two or three runs do not determine it; the difference is judged by
Student's t.
"""
from __future__ import annotations

import bisect
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, Optional

from core import metric_definitions, metrics, thresholds

PRIOR_FREEDOM = 4             # what a prior is worth, in degrees of freedom

# Standard deviation of log values between runs of one machine. Simulated machines with 1 to 5 %
# noise: 3 % keeps false verdicts below 5 %, and the number of busy lanes adds 1.5 times the noise
# of one lane. Not learned: energy, since decode rate and power vary together, and numbers without a
# verdict. tests/outside/learn_prior.py learns these again from merged runs: per kind of machine,
# with its interval. A value changes once the interval leaves it out. Nothing in the merged runs
# does yet: one row of 3 runs on a virtual machine shows 4.5, 4.3, 5.4 and 1.6 % with 2 degrees of
# freedom.
PRIOR = 0.03
PRIORS = dict.fromkeys(("output_token_throughput_tokens_per_s", "speedup_ratio",
                        "joules_per_output_token"), 0.05)
MIN_DIFFERENCE = math.log(thresholds.DIFFERENT_RATIO)
MIN_CONFIRMING_RUNS = 3
# One-sided probabilities: of the interval, of verdicts on four quantities, of ranks among rows.
INTERVAL, VERDICT, AMONG_ROWS = 0.975, 0.9875, 0.995

# Quantiles of Student's t for 4 to 40 degrees of freedom, by their probability.
T_QUANTILES: dict[float, tuple[float, ...]] = {
    0.975: (2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622, 2.2281, 2.2010, 2.1788, 2.1604,
        2.1448, 2.1314, 2.1199, 2.1098, 2.1009, 2.0930, 2.0860, 2.0796, 2.0739, 2.0687, 2.0639,
        2.0595, 2.0555, 2.0518, 2.0484, 2.0452, 2.0423, 2.0395, 2.0369, 2.0345, 2.0322, 2.0301,
        2.0281, 2.0262, 2.0244, 2.0227, 2.0211),
    0.9875: (3.4954, 3.1634, 2.9687, 2.8412, 2.7515, 2.6850, 2.6338, 2.5931, 2.5600, 2.5326,
        2.5096, 2.4899, 2.4729, 2.4581, 2.4450, 2.4334, 2.4231, 2.4138, 2.4055, 2.3979, 2.3909,
        2.3846, 2.3788, 2.3734, 2.3685, 2.3638, 2.3596, 2.3556, 2.3518, 2.3483, 2.3451, 2.3420,
        2.3391, 2.3363, 2.3337, 2.3313, 2.3289),
    0.995: (4.6041, 4.0321, 3.7074, 3.4995, 3.3554, 3.2498, 3.1693, 3.1058, 3.0545, 3.0123,
        2.9768, 2.9467, 2.9208, 2.8982, 2.8784, 2.8609, 2.8453, 2.8314, 2.8188, 2.8073, 2.7969,
        2.7874, 2.7787, 2.7707, 2.7633, 2.7564, 2.7500, 2.7440, 2.7385, 2.7333, 2.7284, 2.7238,
        2.7195, 2.7154, 2.7116, 2.7079, 2.7045),
}


class Spread(NamedTuple):
    """A median over runs with its 95 % interval, or None."""

    value: float
    low: Optional[float]
    high: Optional[float]


def t_quantile(probability: float, freedom: int) -> float:
    """Quantile of Student's t; above 40 degrees of freedom that of 40, which is wider."""
    table = T_QUANTILES[probability]
    return table[min(max(freedom, PRIOR_FREEDOM), 40) - PRIOR_FREEDOM]


class Side(NamedTuple):
    """One number per run as logarithms: number of runs, their mean, sum of squared deviations."""

    runs: int
    mean: float
    squares: float


def side_of(values: Iterable[Optional[float]]) -> Side:
    """The logarithms of the positive values, which may be none."""
    return side_of_logs([math.log(value) for value in values if value])


def side_of_logs(logs: Sequence[float]) -> Side:
    """A Side of numbers that are logarithms already."""
    if not logs:
        return Side(0, 0.0, 0.0)
    mean = sum(logs) / len(logs)
    return Side(len(logs), mean, sum((value - mean) ** 2 for value in logs))


def prior(metric: str) -> float:
    """Standard deviation of log values between runs of one machine, before any run is seen."""
    return PRIORS.get(metric, PRIOR)


def spread(before: float, *sides: Side) -> tuple[float, int]:
    """(standard deviation between runs, degrees of freedom) of the sides and the prior `before`."""
    freedom = PRIOR_FREEDOM + sum(side.runs - 1 for side in sides)
    squares = PRIOR_FREEDOM * before ** 2 + sum(side.squares for side in sides)
    return math.sqrt(squares / freedom), freedom


def interval(metric: str, values: Iterable[Optional[float]],
             around: Optional[float] = None) -> Spread:
    """The 95 % interval over runs, from the runs and the prior, around their median or another
    centre."""
    known = [value for value in values if value is not None]
    centre = float(metrics.median(known)) if around is None else around
    if centre <= 0 or not any(known):
        return Spread(centre, None, None)
    side = side_of(known)
    sigma, freedom = spread(prior(metric), side)
    factor = math.exp(t_quantile(INTERVAL, freedom) * sigma / math.sqrt(side.runs))
    low, high = metrics.round_sig(centre / factor), metrics.round_sig(centre * factor)
    return Spread(metrics.round_sig(centre) or centre, low, high)


def is_reproduced(metric: str, owners: Mapping[str, Sequence[float]]) -> bool:
    """Whether the intervals of two owners' values meet."""
    found = sorted((low, high) for _, low, high in (
        interval(metric, values) for values in owners.values()) if low is not None)
    return any(after[0] <= (before[1] or 0) for before, after in zip(found, found[1:]))


def ratio_interval(a: Side, b: Side, before: float,
                   probability: float = INTERVAL) -> tuple[float, float]:
    """(mean log ratio of b to a, half of its interval)."""
    sigma, freedom = spread(before, a, b)
    return b.mean - a.mean, \
        t_quantile(probability, freedom) * sigma * math.sqrt(1 / a.runs + 1 / b.runs)


def difference(a: Side, b: Side, before: float) -> float:
    """Mean log ratio of b to a if it is decided and 5 % or more, else 0."""
    apart = b.mean - a.mean
    if abs(apart) < MIN_DIFFERENCE or not a.runs or not b.runs:
        return 0.0
    return apart if abs(apart) > ratio_interval(a, b, before, VERDICT)[1] else 0.0


def ranks(metric: str, rows: Sequence[Sequence[Optional[float]]]) -> list[int]:
    """1 + the number of rows that are better, for each row's values, one per run. Sides with equal
    runs and spread, such as all single runs, have one limit to any other side, so the better ones
    among them are found by bisection."""
    sign = 1 if metric_definitions.METRICS[metric].direction == "higher" else -1
    before, sides = prior(metric), [side_of(row) for row in rows]
    alike: dict[tuple[int, float], list[float]] = {}
    for side in sides:
        if side.runs:
            alike.setdefault((side.runs, side.squares), []).append(sign * side.mean)
    for means in alike.values():
        means.sort()
    found = []
    for side in sides:
        better = 0
        for (runs, squares), means in alike.items() if side.runs else ():
            at_least = sign * side.mean + MIN_DIFFERENCE
            if means[-1] > at_least:
                limit = ratio_interval(side, Side(runs, 0.0, squares), before, AMONG_ROWS)[1]
                better += len(means) - bisect.bisect_right(
                    means, max(sign * side.mean + limit, at_least))
        found.append(1 + better)
    return found
