"""Compare summaries with independent computations of the same definitions."""

from __future__ import annotations

import math
import statistics
from fractions import Fraction

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from core import metrics

FINITE = st.floats(allow_nan=False, allow_infinity=False, width=32)
LEVELS = ("min", "q1", "median", "q3", "max")


@given(st.lists(FINITE | st.none() | st.just(math.nan) | st.just(math.inf), max_size=700))
def test_levels_are_in_order_finite_and_six_digits(values: list[float | None]) -> None:
    found = metrics.summarize(values)
    assert found["n"] == sum(v is not None and math.isfinite(v) for v in values)
    for level in (*LEVELS, "ci_low", "ci_high", "p90", "p95", "p99"):
        value = found[level]
        assert value is None or (math.isfinite(value) and value == float(f"{value:.6g}"))
    present = [found[level] for level in LEVELS if found[level] is not None]
    assert present == sorted(present)
    tails = [found[tail] for tail in ("median", "p90", "p95", "p99") if found[tail] is not None]
    assert tails == sorted(tails)


@given(st.lists(FINITE, min_size=1, max_size=60), st.randoms())
def test_order_of_values_does_not_matter(values: list[float], random: object) -> None:
    shuffled = sorted(values, key=lambda _: random.random())  # type: ignore[attr-defined]
    assert metrics.summarize(values) == metrics.summarize(shuffled)


@given(st.lists(FINITE, min_size=1, max_size=60))
def test_median_equals_statistics_median(values: list[float]) -> None:
    expected = metrics.round_sig(statistics.median(values))
    assert metrics.summarize(values)["median"] == expected


@given(st.integers(min_value=0, max_value=400))
def test_interval_is_the_narrowest_that_covers_95_percent(n: int) -> None:
    """Exact binomial coverage of [x(low), x(high)], in fractions."""

    def coverage(low: int, high: int) -> Fraction:
        return Fraction(sum(math.comb(n, k) for k in range(low, high)), 2**n)

    ranks = metrics.median_interval_ranks(n)
    if ranks is None:
        assert n < 6
        return
    low, high = ranks
    assert low == n + 1 - high
    found = metrics.summarize(range(1, n + 1))
    assert (found["ci_low"], found["ci_high"]) == (low, high)
    assert coverage(low, high) >= Fraction(95, 100)
    assert coverage(low + 1, high - 1) < Fraction(95, 100)


@given(st.lists(FINITE, min_size=1, max_size=60), st.sampled_from((1, 2, 3)))
def test_quartiles_are_numpys(values: list[float], quarter: int) -> None:
    found = metrics.quartile(sorted(values), quarter)
    assert math.isclose(found, np.quantile(values, quarter / 4), rel_tol=1e-9, abs_tol=1e-30)


@given(st.lists(st.integers(1, 10**6), min_size=12, max_size=40))
def test_drift_is_theil_and_sens_line(values: list[int]) -> None:
    i, j = np.triu_indices(len(values), 1)
    rates = np.array(values, float)
    slope = np.median((rates[j] - rates[i]) / (j - i))
    start = np.median(rates - slope * np.arange(len(values)))
    found = metrics.drift_ratio(values)
    if start > 0:
        expected = max(0.0, 1 + slope * (len(values) - 1) / start)
        assert math.isclose(found or 0.0, expected, rel_tol=1e-5, abs_tol=1e-9)
    else:
        assert found is None


@given(st.floats(0.5, 2), st.lists(st.integers(900, 1100), min_size=12, max_size=40))
def test_drift_does_not_depend_on_the_unit(factor: float, values: list[int]) -> None:
    one, other = metrics.drift_ratio(values), metrics.drift_ratio([v * factor for v in values])
    assert one is not None and other is not None and math.isclose(one, other, rel_tol=1e-5)
