"""Latencies of laws whose percentiles and correlation are known, or computed once from millions.

Requests come at ``RATE_RPS``; latencies are in milliseconds, in order of arrival.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache

import numpy as np
from scipy.signal import lfilter
from scipy.special import ndtri

RATE_RPS = 200.0
SIGMA = 0.8
"""Of the logarithm of a service time."""
SETTLE = 100_000
"""Requests of a queue that are thrown away: it starts empty."""

Law = Callable[[int, np.random.Generator], np.ndarray]


def independent(count: int, rng: np.random.Generator) -> np.ndarray:
    return 10 * np.exp(SIGMA * rng.standard_normal(count))


def mg1(load: float) -> Law:
    """One server, first come first served, Poisson arrivals, lognormal service (Lindley 1952)."""

    def draw(count: int, rng: np.random.Generator) -> np.ndarray:
        pauses = rng.exponential(1 / RATE_RPS, count)
        mean = load / RATE_RPS
        service = mean * np.exp(SIGMA * rng.standard_normal(count) - SIGMA**2 / 2)
        walk = np.concatenate(([0.0], np.cumsum(service[:-1] - pauses[1:])))
        return (walk - np.minimum.accumulate(walk) + service) * 1e3

    return draw


def in_turn(first: float, second: float) -> Law:
    """Two such servers that get every second request each, as copies of a model do."""

    def queue(load: float, count: int, rng: np.random.Generator) -> np.ndarray:
        pauses = rng.gamma(2, 1 / RATE_RPS, count)
        mean = 2 * load / RATE_RPS
        service = mean * np.exp(SIGMA * rng.standard_normal(count) - SIGMA**2 / 2)
        walk = np.concatenate(([0.0], np.cumsum(service[:-1] - pauses[1:])))
        return (walk - np.minimum.accumulate(walk) + service) * 1e3

    def draw(count: int, rng: np.random.Generator) -> np.ndarray:
        half = (count + 1) // 2
        return np.column_stack([queue(load, half, rng) for load in (first, second)]).ravel()[:count]

    return draw


def ar1(correlation: float) -> Law:
    """The logarithm is an autoregressive process of first order."""

    def draw(count: int, rng: np.random.Generator) -> np.ndarray:
        steps = rng.standard_normal(count) * np.sqrt(1 - correlation**2)
        steps[0] = rng.standard_normal()
        return 10 * np.exp(0.5 * lfilter([1.0], [1.0, -correlation], steps))

    return draw


LAWS: dict[str, Law] = {
    "independent": independent,
    **{f"M/G/1 {load}": mg1(load) for load in (0.3, 0.5, 0.7, 0.9)},
    "in turn 0.7, 0.7": in_turn(0.7, 0.7),
    **{f"AR(1) {rho}": ar1(rho) for rho in (0.3, 0.5, 0.7, 0.9)},
}


@cache
def truth(name: str, q: float) -> float:
    """The law's own percentile: exact, or of eight million requests."""
    if name == "independent":
        return float(10 * np.exp(SIGMA * ndtri(q)))
    if name.startswith("AR"):
        return float(10 * np.exp(0.5 * ndtri(q)))
    rng = np.random.default_rng(99)
    draw = LAWS[name]
    parts = [np.quantile(draw(2_000_000, rng)[SETTLE:], q) for _ in range(4)]
    return float(np.mean(parts))


def windows(name: str, count: int, how_many: int, seed: int) -> Iterator[np.ndarray]:
    """Windows of a steady process, each as far from the next as it is long; (count,) each."""
    rng = np.random.default_rng(seed)
    series = LAWS[name](2 * count * how_many + SETTLE, rng)[SETTLE:]
    for start in range(0, len(series), 2 * count):
        yield series[start : start + count]


def inflation(name: str, q: float, count: int, how_many: int = 400) -> float:
    """Variance of the share above the true percentile against that of independent requests."""
    above = [np.mean(w > truth(name, q)) for w in windows(name, count, how_many, seed=5)]
    return max(1.0, float(np.var(above)) * count / (q * (1 - q)))
