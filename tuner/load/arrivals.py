"""When requests are due: seeded arrival sequences, each a sorted array of seconds.

Patterns of changing rate (burst, ramp, staircase) are non-homogeneous Poisson processes, drawn
by inversion: unit-rate Poisson arrivals mapped through the inverse of the cumulative rate
(E. Cinlar, Introduction to Stochastic Processes, 1975, ch. 4). The rate of every pattern is the
mean over its whole length.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tuner.errors import UsageError
from tuner.load import traces
from tuner.load.base import StagePlan

OPEN_PATTERNS = ("constant", "poisson", "burst", "ramp", "staircase", "trace")
PATTERNS = ("closed", *OPEN_PATTERNS)
SCHEDULES = ("ramp", "staircase", "trace")
"""Patterns with a beginning and an end: they run whole, whatever the precision reached."""

COOL_DOWN_S = 1.0
"""Arrivals go on this long after the window, lest its last requests meet an emptying server."""


@dataclass(frozen=True)
class Rate:
    """A rate over time, linear between its corners: ``rps[i]`` at ``times_s[i]``.

    Two corners at one time make a step.
    """

    times_s: tuple[float, ...]
    rps: tuple[float, ...]

    def cumulative(self, t: np.ndarray) -> np.ndarray:
        """Expected arrivals up to each time of ``t`` (shape kept)."""
        times, rps = np.asarray(self.times_s), np.asarray(self.rps)
        widths = np.diff(times)
        whole = np.concatenate([[0.0], np.cumsum(widths * (rps[1:] + rps[:-1]) / 2)])
        i = np.clip(np.searchsorted(times, t, side="right") - 1, 0, len(widths) - 1)
        into = np.asarray(t) - times[i]
        slope = np.divide(rps[i + 1] - rps[i], widths[i], where=widths[i] > 0, out=np.zeros(len(i)))
        return whole[i] + rps[i] * into + slope * into**2 / 2

    def inverse(self, counts: np.ndarray) -> np.ndarray:
        """The times at which the cumulative rate reaches ``counts``, by table on a 0.1 ms grid."""
        end = self.times_s[-1]
        grid = np.union1d(np.linspace(0.0, end, int(end * 10_000) + 2), self.times_s)
        return np.interp(counts, self.cumulative(grid), grid)


def burst_rate(plan: StagePlan, duration_s: float) -> Rate:
    """On and off in turn, beginning with on; off carries ``burst_off_share`` of on's rate."""
    cycle = plan.burst_on_s + plan.burst_off_s
    mean_share = (plan.burst_on_s + plan.burst_off_share * plan.burst_off_s) / cycle
    on = _rate(plan) / mean_share
    off = on * plan.burst_off_share
    times: list[float] = []
    rps: list[float] = []
    for k in range(int(np.ceil(duration_s / cycle)) + 1):
        times += [k * cycle, k * cycle + plan.burst_on_s] * 1
        rps += [on, on]
        times += [k * cycle + plan.burst_on_s, (k + 1) * cycle]
        rps += [off, off]
    return Rate(tuple(times), tuple(rps))


def ramp_bounds(plan: StagePlan) -> tuple[float, float]:
    """First and last rate of a ramp or staircase, in requests per second."""
    low = plan.ramp_from_rps if plan.ramp_from_rps is not None else 0.2 * _rate(plan)
    high = plan.ramp_to_rps if plan.ramp_to_rps is not None else 1.8 * _rate(plan)
    return low, high


def ramp_rate(plan: StagePlan, duration_s: float) -> Rate:
    """Linear from the first rate to the last, then level."""
    low, high = ramp_bounds(plan)
    return Rate((0.0, duration_s, duration_s + COOL_DOWN_S), (low, high, high))


def staircase_rate(plan: StagePlan, duration_s: float) -> Rate:
    """``ramp_steps`` equal steps from the first rate to the last, then level."""
    low, high = ramp_bounds(plan)
    levels = np.linspace(low, high, plan.ramp_steps)
    edges = np.linspace(0.0, duration_s, plan.ramp_steps + 1)
    edges[-1] += COOL_DOWN_S
    times = np.repeat(edges, 2)[1:-1]
    return Rate(tuple(times.tolist()), tuple(np.repeat(levels, 2).tolist()))


def poisson(rng: np.random.Generator, rate_rps: float, duration_s: float) -> np.ndarray:
    """Arrivals with independent exponential gaps, up to ``duration_s``."""
    expected = rate_rps * duration_s
    count = int(expected + 6 * np.sqrt(expected) + 20)
    times = np.cumsum(rng.exponential(1.0 / rate_rps, count))
    return times[times < duration_s]


def varying(rng: np.random.Generator, rate: Rate, duration_s: float) -> np.ndarray:
    """A non-homogeneous Poisson process by inversion."""
    total = float(rate.cumulative(np.array([duration_s]))[0])
    return rate.inverse(poisson(rng, 1.0, total))


def window_arrivals(plan: StagePlan, rng: np.random.Generator) -> np.ndarray:
    """Arrivals of the measured window and the cool-down after it, counted from its opening."""
    duration = plan.max_duration_s
    length = duration + COOL_DOWN_S
    if plan.pattern == "constant":
        return np.arange(0.0, length, 1.0 / _rate(plan))
    if plan.pattern == "poisson":
        return poisson(rng, _rate(plan), length)
    if plan.pattern == "burst":
        return varying(rng, burst_rate(plan, length), length)
    if plan.pattern == "ramp":
        return varying(rng, ramp_rate(plan, duration), length)
    if plan.pattern == "staircase":
        return varying(rng, staircase_rate(plan, duration), length)
    if plan.pattern == "trace":
        return traces.played(plan).times_s
    raise UsageError(f"unknown pattern {plan.pattern!r}; one of: {', '.join(PATTERNS)}")


def warmup_arrivals(plan: StagePlan, rng: np.random.Generator, length_s: float) -> np.ndarray:
    """Arrivals before the window.

    Ramp and staircase are warmed up by Poisson arrivals at their first rate, a trace by ones at the
    mean of what is played of it (1/s at least).
    """
    if plan.pattern == "constant":
        return np.arange(0.0, length_s, 1.0 / _rate(plan))
    if plan.pattern == "burst":
        return varying(rng, burst_rate(plan, length_s), length_s)
    if plan.pattern in ("ramp", "staircase"):
        return poisson(rng, max(ramp_bounds(plan)[0], 1.0), length_s)
    if plan.pattern == "trace":
        return poisson(rng, max(1.0, traces.played(plan).mean_rps), length_s)
    return poisson(rng, _rate(plan), length_s)


def window_length_s(plan: StagePlan) -> float:
    """Longest window: the asked maximum, or less where a trace ends sooner."""
    if plan.pattern == "trace":
        return traces.played(plan).window_s
    return plan.max_duration_s


def _rate(plan: StagePlan) -> float:
    if plan.rate_rps is None or not plan.rate_rps > 0:
        raise UsageError(
            f"the pattern {plan.pattern} needs a rate above 0: --rate REQUESTS_PER_S, or light, "
            "medium, high"
        )
    return plan.rate_rps
