"""How sure an energy reading is: the parts of its window against each other, and the resolution.

The window is cut into parts. How much their average watts spread, and how much each resembles the
one before, says how far the window's own average would move if it were measured again. Power drifts
and lingers, so parts are not independent: a window of a few seconds may lie on one side of the truth
from end to end, and taking its parts for independent (batch means with Student's quantile) holds the
truth in 30 to 80 % of the windows where 95 % is printed.

So the parts are taken for a first-order autoregression whose correlation is itself unknown. It is
averaged over, weighed by how well each value explains the parts, with equal prior weight on each of
``CORRELATIONS`` and the usual priors, uniform and 1/scale, on mean and scale; given the correlation the
mean is Student's (Box, Jenkins, Reinsel and Ljung, *Time Series Analysis*, 2015, ch. 7; Zellner, *An
Introduction to Bayesian Inference in Econometrics*, 1971, ch. 4). Such an interval rests on what was
seen and not on when it was decided to stop (Berger and Wolpert, *The Likelihood Principle*, 1988),
so it holds under a stopping rule too. ``tests/meter/test_energy_intervals.py`` counts how often.

A window of up to ``SHORT_S`` is cut into parts of a quarter of a second, a longer one into seconds.
In the short parts the randomness of single requests and of clock ticks hides what lingers, and an
autoregression alone holds the truth in 53 to 79 % of windows of 15 s. So the share of such independent
noise in the parts' variance is averaged over as well. From there on more parts than one a second make
it no narrower, see docs/energy.md.

What it can't see is what changes between windows, such as a fresh server or a warmer machine: only
repeated trials show that.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Any

LOOK_S = 0.25
"""How often a source is looked at where it can be: the shortest parts."""
SHORT_S = 15.0
"""Windows up to this length are cut into the shortest parts, longer ones into seconds."""
MOST = 60
"""Parts of a window at most: one of more seconds is cut into longer ones."""
JITTER = 0.9
"""Least length of a part, of what is asked: whoever looks is at times early or late."""
MIN_BATCHES = 4
"""Seconds that a window lasts at least, less the jitter: a shorter one shows nothing that lingers."""
NOISE = (0.0, 0.5, 0.8, 0.95)
"""Share of independent noise in the variance of parts shorter than a second."""
LEVEL = 0.95
CORRELATIONS = tuple(1 - (1 - 0.9 * step / 24) ** 2 for step in range(25))
"""Of a second with the one before, 0 to 0.99; evenly spaced in ``sqrt(1 - correlation)``, which leans
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
        ``None`` for a window of fewer than ``MIN_BATCHES`` seconds or parts: unknown, not zero.
    """
    window_s = times_s[-1] - times_s[0] if len(times_s) else 0.0
    part_s = LOOK_S if window_s <= SHORT_S else max(1.0, window_s / MOST)
    parts = _parts(times_s, joules, JITTER * part_s)
    if window_s < JITTER * MIN_BATCHES or len(parts) < MIN_BATCHES:
        return None
    watts = [drawn / seconds for seconds, drawn in parts]
    return math.hypot(mean_half_width(watts, window_s / len(parts)) * window_s, resolution_j)


def _parts(
    times_s: Sequence[float], joules: Sequence[float], least_s: float
) -> list[tuple[float, float]]:
    """Seconds and joules of parts of at least ``least_s``; a rest joins the last of them."""
    cuts = [0]
    for place, now_s in enumerate(times_s):
        if now_s - times_s[cuts[-1]] >= least_s:
            cuts.append(place)
    if len(cuts) > 1:
        cuts[-1] = len(times_s) - 1
    return [(times_s[b] - times_s[a], joules[b] - joules[a]) for a, b in pairwise(cuts)]


def mean_half_width(values: Sequence[float], part_s: float = 1.0) -> float:
    """Half of the 95 % interval of the mean of values in a row that may resemble each other.

    The smallest half-width around their average in which the mean lies with ``LEVEL``.

    Args:
        part_s: seconds that one value is the average of.
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
    inverse, log_size, pull, weight = _models(count, part_s)
    mean = pull @ apart / weight
    left = (inverse @ apart) @ apart - weight * mean**2
    left = np.maximum(left, np.finfo(float).tiny)
    degrees = count - 1
    # The scale integrated out.
    log = -(log_size + np.log(weight) + degrees * np.log(left)) / 2
    chance = np.exp(log - logsumexp(log))
    error = np.sqrt(left / degrees / weight)

    def lacking(half: float) -> float:
        inside = stdtr(degrees, (half - mean) / error) - stdtr(degrees, (-half - mean) / error)
        return float(chance @ inside) - LEVEL

    widest = 1.0
    while lacking(widest) < 0:
        widest *= 2
    return scale * float(brentq(lacking, 0.0, widest, xtol=1e-9))


@lru_cache(maxsize=4)
def _models(count: int, part_s: float) -> tuple[Any, Any, Any, Any]:
    """Every way in which ``count`` parts may resemble each other: of their correlation matrices the
    inverses, the logarithms of the determinants, the inverses' row sums, and the sums of those."""
    import numpy as np

    short = part_s < JITTER
    rho = np.asarray(CORRELATIONS)[:, None, None] ** (part_s if short else 1.0)
    lingering = rho ** np.abs(np.subtract.outer(np.arange(count), np.arange(count)))
    noise = NOISE if short else (0.0,)
    alike = np.concatenate([(1 - share) * lingering + share * np.eye(count) for share in noise])
    inverse = np.linalg.inv(alike)
    pull = inverse.sum(axis=2)
    return inverse, np.linalg.slogdet(alike)[1], pull, pull.sum(axis=1)


def mean_interval(values: Sequence[float]) -> Interval | None:
    """95 % interval of the mean of watts in a row; ``None`` for fewer than ``MIN_BATCHES``."""
    if len(values) < MIN_BATCHES:
        return None
    mean, half = math.fsum(values) / len(values), mean_half_width(values)
    return max(min(mean, 0.0), mean - half), mean + half


def fields(
    server_j: float,
    net_j: float | None,
    half_j: float | None,
    resolution_j: float | None,
    window_s: float,
    idle_interval_w: Interval | None,
    least_j: float = 0.0,
) -> dict[str, Any]:
    """The fields of an ``EnergyReading`` that say how sure it is.

    The net energy also carries the error of the baseline, which lasts as long as the window does;
    where that is unknown so is the net's interval. No interval reaches below what physics allows,
    which is nothing for the net energy.

    Args:
        least_j: what serving draws at least, such as the idle power of an estimate's model.
    """
    server = net = None
    if half_j is not None:
        server = _around(server_j, half_j, least_j)
        if net_j is not None and idle_interval_w is not None:
            # The upper half: the lower one may have been cut off at nothing.
            idle_j = idle_interval_w[1] * window_s - (server_j - net_j)
            net = _around(net_j, math.hypot(half_j, idle_j), 0.0)
    return {"server_interval_j": server, "net_interval_j": net, "resolution_j": resolution_j}


def _around(value: float, half: float, least: float) -> Interval:
    # A value that itself lies below, by the baseline's error, stays inside.
    return max(value - half, min(least, value)), value + half
