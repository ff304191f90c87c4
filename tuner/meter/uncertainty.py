"""How sure an energy reading is: the parts of its window against each other, and the resolution.

The method of batch means (Law, *Simulation Modeling and Analysis*, 2015, ch. 9): the window is cut
into parts of about a second, long against a request and short against the window; the spread of
their average watts says how far the window's own average would move if it were measured again.
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
MIN_BATCHES = 3
LEVEL = 0.95

Interval = tuple[float, float]


def half_width_j(
    times_s: Sequence[float], joules: Sequence[float], resolution_j: float = 0.0
) -> float | None:
    """Half of the 95 % confidence interval of a window's energy, joules.

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
    from scipy.special import stdtrit

    window_s = sum(seconds for seconds, _ in parts)
    average_w = sum(drawn for _, drawn in parts) / window_s
    degrees = len(parts) - 1
    # A long part counts for more, and varies less.
    spread = sum(seconds * (drawn / seconds - average_w) ** 2 for seconds, drawn in parts)
    error_w = math.sqrt(spread / degrees / window_s)
    return math.hypot(
        float(stdtrit(degrees, (1 + LEVEL) / 2)) * error_w * window_s, resolution_j
    )


def _parts(times_s: Sequence[float], joules: Sequence[float]) -> list[tuple[float, float]]:
    """Seconds and joules of parts of at least ``BATCH_S``; a rest joins the last of them."""
    cuts = [0]
    for place, now_s in enumerate(times_s):
        if now_s - times_s[cuts[-1]] >= BATCH_S:
            cuts.append(place)
    if len(cuts) > 1:
        cuts[-1] = len(times_s) - 1
    return [(times_s[b] - times_s[a], joules[b] - joules[a]) for a, b in pairwise(cuts)]


def mean_interval(values: Sequence[float]) -> Interval | None:
    """Student's 95 % confidence interval of the mean; ``None`` for fewer than three values."""
    if len(values) < MIN_BATCHES:
        return None
    from scipy.special import stdtrit

    mean = math.fsum(values) / len(values)
    variance = math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1)
    half = float(stdtrit(len(values) - 1, (1 + LEVEL) / 2)) * math.sqrt(variance / len(values))
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
