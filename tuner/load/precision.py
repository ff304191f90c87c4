"""How well a percentile is known: intervals that hold where requests queue.

Requests are not independent: a queue delays neighbours together, so that the slow ones come in
clusters, and a window of thousands of requests may hold only a few clusters. Batches of a fixed
length see this only where they are longer than a busy period, which nobody knows beforehand. Here
the latencies themselves cut the window into *cycles*: one begins where two latencies in a row are
at the median or below, after that was not so. A queue has run nearly empty there and has forgotten
most of its past (a single fast answer says little where requests go to several queues in turn), as
at the regeneration points of M. A. Crane, D. L. Iglehart, "Simulating stable stochastic systems
III", Operations Research 23, 1975; independent requests get a cycle for nearly
every one that exceeds a high threshold.

Tail percentiles: the requests of one cycle above a threshold count as one cluster, and clusters
arrive as a compound Poisson process, as exceedances of a high level do (M. R. Leadbetter, G.
Lindgren, H. Rootzen, "Extremes and Related Properties of Random Sequences and Processes", 1983,
sec. 3.7). The chance to exceed the threshold then has the gamma interval for weighted sums of
Poisson counts (M. P. Fay, E. J. Feuer, Statistics in Medicine 16, 1997), and the percentile's
interval is all thresholds whose bounds enclose 1 - q. Fay and Feuer add the largest weight for the
upper bound; here it is the size of the cluster that an exceeding request finds itself in (the
size-biased mean) at the level of twice as many exceedances, where there are more clusters to know
it from, enlarged by 2.5 over the root of their number. docs/measuring.md says what other choices
did in simulation.

Percentiles in the middle: the number of requests above a threshold less the expected number, cycle
by cycle, is a sum of independent terms of mean zero (the ratio estimator of the regenerative
method, and for quantiles D. L. Iglehart, "Simulating stable stochastic systems VI: quantile
estimation", Journal of the ACM 23, 1976); its root mean square tells how far it strays. Few heavy
cycles count as few: Student's quantile has the effective number of cycles for its degrees of freedom.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaincinv, stdtrit

Floats = NDArray[np.float64]
Codes = NDArray[np.int64]

CONFIDENCE = 0.95
TAIL_Q = 0.9
"""From this level on a percentile belongs to the tail."""
TAIL_GUARD, MIDDLE_GUARD = 2.5, 4.0
"""The cluster (cycle) that may be missing is as large as those seen, times one plus this over the
root of their number. Chosen by simulation: tests/intervals/test_interval_holds.py."""
MIN_CYCLES = 5.0
"""With fewer effective cycles the middle of a law is unknown on both sides."""
_TOP = 6.0
"""Multiples of 1 - q: where the lower end of a tail percentile is looked for first."""
_FEW = 256
"""So few values are looked through one by one: with few cycles a condition may come and go."""


@dataclass(frozen=True)
class Interval:
    """A percentile and its 95 % interval, in the unit of the latencies."""

    low: float
    """``-inf``: unknown."""
    value: float
    """``inf``: it lies among requests without an answer."""
    high: float
    """``inf``: the sample holds no upper bound."""

    @property
    def relative_half_width(self) -> float:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.value > 0):
            return math.inf
        return (self.high - self.low) / 2 / self.value


def rank(count: int, q: float) -> int:
    """Rank of the q-quantile among ``count`` ordered values: the ceiling of q x count, at least 1.

    The smallest value that at least a share q of the sample does not exceed (type 1 of R. J.
    Hyndman, Y. Fan, "Sample quantiles in statistical packages", The American Statistician 50, 1996).
    """
    return max(1, math.ceil(round(q * count, 9)))


def percentile(latencies: Floats, q: float) -> float:
    """The q-quantile of a sample of at least one value, by the ceiling's rank."""
    place = rank(len(latencies), q) - 1
    return float(np.partition(latencies, place)[place])


def cycles(latencies: Floats) -> Codes:
    """The number of the cycle that each request belongs to, ascending from 0; shape (n,)."""
    low = latencies <= percentile(latencies, 0.5)
    settled = low & np.concatenate(([False], low[:-1]))
    begins = settled[1:] & ~settled[:-1]
    return np.concatenate(([0], np.cumsum(begins, dtype=np.int64)))


def percentile_interval(
    latencies: Floats, q: float, confidence: float = CONFIDENCE
) -> Interval:
    """The interval of the q-quantile of latencies.

    Args:
        latencies: in order of due time, shape (n,), n >= 1, any unit; ``inf`` is a request that
            failed or was never answered: slower than all that were.
        q: level of the quantile, e.g. 0.99.
    """
    latencies = np.asarray(latencies, dtype=float)
    value = percentile(latencies, q)
    half = (1 - confidence) / 2
    low, high = (_tail if q >= TAIL_Q else _middle)(latencies, q, half)
    # Of a handful of values the interval's ends may pass the estimate; it is always in it.
    return Interval(min(low, value), value, max(high, value))


def _tail(latencies: Floats, q: float, half: float) -> tuple[float, float]:
    count, p = len(latencies), 1 - q
    cycle = cycles(latencies)
    guard = _guard_weight(_weights(latencies, cycle, percentile(latencies, 1 - 2 * p)))

    def least(threshold: float) -> float:
        """Lower bound of the chance to exceed the threshold."""
        weights = _weights(latencies, cycle, threshold)
        return _gamma_bound(weights, half) / count if len(weights) else 0.0

    def most(threshold: float) -> float:
        weights = np.append(_weights(latencies, cycle, threshold), guard)
        return _gamma_bound(weights, 1 - half) / count

    top = np.sort(latencies[latencies > percentile(latencies, max(0.0, 1 - _TOP * p))])
    if not len(top) or least(top[0]) <= p:
        top = np.sort(latencies)
    place = _first(top, lambda x: least(x) <= p)
    low = float(top[place])
    if most(top[-1]) > p:
        return low, math.inf
    return low, float(top[_from_on(top, lambda x: most(x) <= p, place)])


def _middle(latencies: Floats, q: float, half: float) -> tuple[float, float]:
    ordered, cycle = np.sort(latencies), cycles(latencies)
    expected = (1 - q) * np.bincount(cycle)

    def excess(threshold: float) -> Floats:
        """Requests above the threshold less those expected, cycle by cycle."""
        found: Floats = np.bincount(cycle, latencies > threshold, len(expected)) - expected
        return found

    sizes = np.abs(excess(percentile(latencies, q)))
    if not sizes.any():
        return -math.inf, math.inf
    effective = sizes.sum() ** 2 / (sizes @ sizes)
    if effective < MIN_CYCLES:
        return -math.inf, math.inf
    guard = (sizes @ sizes) / sizes.sum() * (1 + MIDDLE_GUARD / math.sqrt(effective))
    student = float(stdtrit(effective - 1, 1 - half))

    def strays(threshold: float, sign: float) -> bool:
        """Whether more (fewer) requests exceed the threshold than chance explains."""
        over = excess(threshold)
        limit = student * math.sqrt(over @ over + guard**2)
        return bool(sign * over.sum() - guard > limit)

    place = _first(ordered, lambda x: not strays(x, 1.0))
    low = float(ordered[place])
    if not strays(ordered[-1], -1.0):
        return low, math.inf
    return low, float(ordered[_from_on(ordered, lambda x: strays(x, -1.0), place)])


def _weights(latencies: Floats, cycle: Codes, threshold: float) -> Floats:
    """How many requests each cycle holds above a threshold, cycles without any left out."""
    counts = np.bincount(cycle[latencies > threshold])
    return counts[counts > 0].astype(float)


def _guard_weight(weights: Floats) -> float:
    """The weight of a cluster that may be missing above the threshold."""
    if not len(weights):
        return 1.0
    biased = float(weights @ weights / weights.sum())
    return biased * (1 + TAIL_GUARD / math.sqrt(len(weights)))


def _gamma_bound(weights: Floats, level: float) -> float:
    """Quantile of the gamma distribution whose mean and variance are those of the weighted sum."""
    total, squares = float(weights.sum()), float(weights @ weights)
    return squares / total * float(gammaincinv(total**2 / squares, level))


def _first(ordered: Floats, holds: Callable[[float], bool]) -> int:
    """Place of the first value for which a condition holds; it holds for the last one."""
    if len(ordered) <= _FEW:
        return next((i for i, x in enumerate(ordered) if holds(x)), len(ordered) - 1)
    return _bisected(ordered, holds, 0)


def _from_on(ordered: Floats, holds: Callable[[float], bool], start: int) -> int:
    """Place, ``start`` or later, of the value from which on a condition holds; it does at the end."""
    if len(ordered) <= _FEW:
        place = len(ordered) - 1
        while place > start and holds(ordered[place - 1]):
            place -= 1
        return place
    return _bisected(ordered, holds, start)


def _bisected(ordered: Floats, holds: Callable[[float], bool], start: int) -> int:
    low, high = start, len(ordered) - 1
    while low < high:
        middle = (low + high) // 2
        if holds(ordered[middle]):
            high = middle
        else:
            low = middle + 1
    return low
