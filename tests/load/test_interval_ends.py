"""Ends of percentiles' intervals against a plain walk through every threshold, formula by formula."""

from __future__ import annotations

import math
from functools import cache
from itertools import pairwise

import numpy as np
import pytest
from scipy import stats
from scipy.special import chdtri

from tests.intervals.queues import windows
from tuner.load.precision import _bisected, _first, _from_on, _weights, percentile_interval, rank


def quantile(values: list[float], q: float) -> float:
    ordered = sorted(values)
    return next(v for k, v in enumerate(ordered, 1) if k >= q * len(ordered) - 1e-9)


def cycles(values: list[float]) -> list[list[float]]:
    """Cut where two latencies in a row are at the median or below, after that was not so."""
    median, found, settled = quantile(values, 0.5), [[values[0]]], False
    for before, now in pairwise(values):
        was, settled = settled, before <= median and now <= median
        if settled and not was:
            found.append([])
        found[-1].append(now)
    return found


def gamma_bound(weights: list[float], level: float) -> float:
    mean, variance = sum(weights), sum(w * w for w in weights)
    # A gamma law of shape k is half a chi-squared one of 2 k degrees of freedom.
    return variance / mean / 2 * float(chdtri(2 * mean**2 / variance, 1 - level))


def above(parts: list[list[float]], threshold: float) -> list[float]:
    counts = [float(sum(v > threshold for v in part)) for part in parts]
    return [count for count in counts if count]


def tail(values: list[float], q: float, miss: float) -> tuple[float, float]:
    """Thresholds whose chance to be exceeded may be 1 - q: Fay and Feuer's interval of that chance."""
    parts, count = cycles(values), len(values)
    seen = above(parts, quantile(values, 1 - 2 * (1 - q)))
    guard = 1.0
    if seen:
        guard = sum(w * w for w in seen) / sum(seen) * (1 + 2.5 / math.sqrt(len(seen)))

    def least(x: float) -> float:
        weights = above(parts, x)
        return gamma_bound(weights, miss) / count if weights else 0.0

    def most(x: float) -> float:
        return gamma_bound([*above(parts, x), guard], 1 - miss) / count

    return ends(values, [least(x) > 1 - q for x in sorted(values)], [most(x) <= 1 - q for x in sorted(values)])


def middle(values: list[float], q: float, miss: float) -> tuple[float, float]:
    """Thresholds at which the requests above stray from those expected by no more than chance."""
    parts = cycles(values)

    def excess(x: float) -> list[float]:
        return [sum(v > x for v in part) - (1 - q) * len(part) for part in parts]

    sizes = [abs(e) for e in excess(quantile(values, q))]
    squares = sum(s * s for s in sizes)
    effective = sum(sizes) ** 2 / squares if squares else 0.0
    if effective < 5:
        return -math.inf, math.inf
    guard = squares / sum(sizes) * (1 + 4 / math.sqrt(effective))
    student = stats.t.ppf(1 - miss, effective - 1)

    def strays(x: float, sign: int) -> bool:
        over = excess(x)
        spread = math.sqrt(sum(e * e for e in over) + guard**2)
        return sign * sum(over) > guard + student * spread

    return ends(values, [strays(x, 1) for x in sorted(values)], [strays(x, -1) for x in sorted(values)])


def ends(values: list[float], below: list[bool], beyond: list[bool]) -> tuple[float, float]:
    """The first threshold that is not below the interval, and the one after the last not beyond it."""
    ordered = sorted(values)
    after = len(beyond) - beyond[::-1].index(False) if False in beyond else 0
    return ordered[below.index(False)], ordered[after] if after < len(ordered) else math.inf


@cache
def samples() -> list[tuple[str, np.ndarray]]:
    rng = np.random.default_rng(12)
    found = [
        (f"{law} {count}", window)
        for law, count in (("independent", 250), ("M/G/1 0.5", 250), ("AR(1) 0.9", 250))
        for window in windows(law, count, 1, seed=13)
    ]
    # Whose upper end is the largest value of all, by the walk.
    found += [(f"seed {seed}", np.random.default_rng(seed).lognormal(0, 1, n)) for seed, n in ((33, 28), (9, 32), (36, 29), (37, 29))]
    return found + [(f"short {n}", rng.lognormal(0, 1, n)) for n in range(5, 110, 5)]


@pytest.mark.parametrize(("q", "confidence"), [(0.5, 0.95), (0.7, 0.8), (0.9, 0.95), (0.95, 0.8)])
def test_the_ends_are_those_that_a_walk_through_every_threshold_finds(q: float, confidence: float) -> None:
    bounded = 0
    for name, latencies in samples():
        found = percentile_interval(latencies, q, confidence)
        plain = tail if q >= 0.9 else middle
        low, high = plain(latencies.tolist(), q, (1 - confidence) / 2)
        value = quantile(latencies.tolist(), q)
        expected = (min(low, value), value, max(high, value))
        assert (found.low, found.value, found.high) == expected, name
        bounded += math.isfinite(high)
    assert bounded >= 1


def test_requests_without_an_answer_leave_the_ends_where_the_walk_finds_them() -> None:
    for _, latencies in samples()[:3]:
        values = np.where(latencies > np.quantile(latencies, 0.985), np.inf, latencies)
        for q, plain in ((0.5, middle), (0.95, tail), (0.99, tail)):
            found = percentile_interval(values, q)
            assert (found.low, found.high) == plain(values.tolist(), q, 0.025)


def test_fewer_than_five_cycles_tell_nothing_of_the_middle() -> None:
    def equal_cycles(pattern: str) -> np.ndarray:
        """Cycles, one more than letters, that but for the last each hold half a request more or less
        above the median than expected."""
        highs = {"a": [0, 1, 2], "b": [0, 1]}
        lows = {"a": [0, 1], "b": [0, 1, 2]}
        parts = [[0.1 * k + 0.01 * i for i in lows[c]] + [9 + k + 0.1 * i for i in highs[c]]
                 for k, c in enumerate(pattern)]
        return np.concatenate(parts)

    four, five = equal_cycles("abab"), equal_cycles("babab")
    found = percentile_interval(four, 0.5)
    assert (found.low, found.high) == (-math.inf, math.inf)
    # As many above the median in every cycle as expected: nothing tells how far they stray.
    even = [9.0, 1.0, *[2.0, 9.0, 8.0, 1.0] * 9, 2.0, 9.0]
    assert all(2 * sum(v > 2.0 for v in part) == len(part) for part in cycles(even))
    found = percentile_interval(np.array(even), 0.5)
    assert (found.low, found.high) == (-math.inf, math.inf)
    found = percentile_interval(five, 0.5)
    assert (found.low, found.high) == middle(five.tolist(), 0.5, 0.025)
    assert math.isfinite(found.low)


@pytest.mark.parametrize("count", [7, 256, 257, 1_000])
def test_a_condition_that_holds_for_the_last_value_alone_is_found_there(count: int) -> None:
    values = np.arange(float(count))

    def last(value: float) -> bool:
        return value == count - 1

    for start in (0, 3):
        assert _first(values, last) == _from_on(values, last, start) == count - 1
        assert _bisected(values, last, start) == count - 1


def test_cycles_without_a_request_above_the_threshold_are_no_clusters() -> None:
    cycle = np.array([0, 0, 1, 1, 2, 2, 3])
    weights = _weights(np.array([1.0, 9, 1, 1, 9, 9, 1]), cycle, 5.0)
    assert weights.tolist() == [1.0, 2.0]


def test_latencies_that_are_all_equal_are_known_once_there_are_enough() -> None:
    # None exceeds: at most -ln 0.025 = 3.69 of them could be expected to.
    for count, high in ((368, math.inf), (369, 7.0)):
        found = percentile_interval(np.full(count, 7.0), 0.99)
        assert (found.low, found.value, found.high) == (7.0, 7.0, high)
    assert percentile_interval(np.full(1_000, 7.0), 0.5).low == -math.inf


def test_the_ends_enclose_the_value_of_a_single_request() -> None:
    found = percentile_interval(np.array([3.0]), 0.99)
    assert (found.low, found.value, found.high) == (3.0, 3.0, math.inf)


def test_a_rank_is_at_least_the_first_and_rounds_only_what_floats_add() -> None:
    assert (rank(5, 0.0), rank(1, 0.5), rank(4, 0.500000001)) == (1, 1, 3)
    assert (rank(10, 0.1 + 0.2), rank(100, 0.29), rank(100, 0.57)) == (3, 29, 57)
