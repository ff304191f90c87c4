"""How sure an energy reading is: the parts of its window against each other, and the resolution.

The window is cut into parts of about a second. How much their average watts spread, and how much
each resembles the one before, says how far the window's own average would move if it were measured
again. Power drifts and lingers, so parts are not independent: a window of a few seconds may lie on
one side of the truth from end to end, and taking its parts for independent (batch means with
Student's quantile) holds the truth in 30 to 80 % of the windows where 95 % is printed.

So the parts are taken for a first-order autoregression whose correlation is itself unknown. It is
averaged over, weighed by how well each value explains the parts, with equal prior weight on each of
``CORRELATIONS`` and the usual priors, uniform and 1/scale, on mean and scale; given the correlation the
mean is Student's (Box, Jenkins, Reinsel and Ljung, *Time Series Analysis*, 2015, ch. 7; Zellner, *An
Introduction to Bayesian Inference in Econometrics*, 1971, ch. 4). Such an interval rests on what was
seen and not on when it was decided to stop (Berger and Wolpert, *The Likelihood Principle*, 1988),
so it holds under a stopping rule too. ``tests/meter/test_energy_intervals.py`` counts how often.

What it can't see is what changes between windows, such as a fresh server or a warmer machine: only
repeated trials show that.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

BATCH_S = 0.9
"""Least length of a part: a second, less the jitter of whoever looks once a second."""
MIN_BATCHES = 4
LEVEL = 0.95
CORRELATIONS = tuple(1 - (1 - 0.9 * step / 24) ** 2 for step in range(25))
"""Of a part with the one before, 0 to 0.99; evenly spaced in ``sqrt(1 - correlation)``, which leans
to the high ones, where a flat grid held the truth in 85 % of the windows at 0.8."""

Interval = tuple[float, float]


def half_width_j(
    times_s: Sequence[float], joules: Sequence[float], resolution_j: float = 0.0
) -> float | None:
    """Half of the 95 % interval of a window's energy, joules.

    Args:
        times_s: when the source was looked at, ascending, the window's ends included.
        joules: energy since the window opened, at those times.
        resolution_j: error of the source at the window's two ends together; added in quadrature.

    Returns:
        ``None`` for a window of fewer than ``MIN_BATCHES`` parts: unknown, not zero.
    """
    parts = _parts(times_s, joules)
    if len(parts) < MIN_BATCHES:
        return None
    window_s = sum(seconds for seconds, _ in parts)
    half_w = mean_half_width([drawn / seconds for seconds, drawn in parts])
    return math.hypot(half_w * window_s, resolution_j)


def _parts(times_s: Sequence[float], joules: Sequence[float]) -> list[tuple[float, float]]:
    """Seconds and joules of parts of at least ``BATCH_S``; a rest joins the last of them."""
    cuts = [0]
    for place, now_s in enumerate(times_s):
        if now_s - times_s[cuts[-1]] >= BATCH_S:
            cuts.append(place)
    if len(cuts) > 1:
        cuts[-1] = len(times_s) - 1
    return [(times_s[b] - times_s[a], joules[b] - joules[a]) for a, b in pairwise(cuts)]


def mean_half_width(values: Sequence[float]) -> float:
    """Half of the 95 % interval of the mean of values in a row that may resemble each other.

    The smallest half-width around their average in which the mean lies with ``LEVEL``.
    """
    import numpy as np
    from scipy.optimize import brentq
    from scipy.special import logsumexp, stdtr

    count = len(values)
    apart = np.asarray(values, dtype=float) - math.fsum(values) / count
    scale = float(np.abs(apart).max())
    if scale <= 1e-12 * max(map(abs, values)):
        return 0.0  # even power: nothing but rounding between the parts
    apart /= scale
    rho = np.asarray(CORRELATIONS)[:, None]
    # Made independent: each value less what the one before foretells, the first one as it stands.
    ones = np.hstack([np.sqrt(1 - rho**2), np.repeat(1 - rho, count - 1, axis=1)])
    fresh = np.hstack([ones[:, :1] * apart[0], apart[1:] - rho * apart[:-1]])
    weight = (ones**2).sum(axis=1)
    mean = (ones * fresh).sum(axis=1) / weight
    left = ((fresh - mean[:, None] * ones) ** 2).sum(axis=1) + np.finfo(float).tiny
    degrees = count - 1
    log = (np.log1p(-(rho[:, 0] ** 2)) - np.log(weight) - degrees * np.log(left)) / 2
    chance = np.exp(log - logsumexp(log))
    error = np.sqrt(left / degrees / weight)

    def lacking(half: float) -> float:
        inside = stdtr(degrees, (half - mean) / error) - stdtr(degrees, (-half - mean) / error)
        return float(chance @ inside) - LEVEL

    widest = 1.0
    while lacking(widest) < 0:
        widest *= 2
    return scale * float(brentq(lacking, 0.0, widest, xtol=1e-9))


def mean_interval(values: Sequence[float]) -> Interval | None:
    """95 % interval of the mean of values in a row; ``None`` for fewer than ``MIN_BATCHES``."""
    if len(values) < MIN_BATCHES:
        return None
    mean, half = math.fsum(values) / len(values), mean_half_width(values)
    return mean - half, mean + half


def fields(
    server_j: float,
    net_j: float | None,
    half_j: float | None,
    resolution_j: float | None,
    window_s: float,
    idle_interval_w: Interval | None,
) -> dict[str, Any]:
    """The fields of an ``EnergyReading`` that say how sure it is.

    The net energy also carries the error of the baseline, which lasts as long as the window does;
    where that is unknown so is the net's interval.
    """
    server = None if half_j is None else (server_j - half_j, server_j + half_j)
    net = None
    if half_j is not None and net_j is not None and idle_interval_w is not None:
        idle_j = (idle_interval_w[1] - idle_interval_w[0]) / 2 * window_s
        whole_j = math.hypot(half_j, idle_j)
        net = (net_j - whole_j, net_j + whole_j)
    return {"server_interval_j": server, "net_interval_j": net, "resolution_j": resolution_j}
