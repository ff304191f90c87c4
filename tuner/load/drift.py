"""Whether latencies drifted inside the window: a server that warms up, or slows down, while measured."""

from __future__ import annotations

import math

import numpy as np
from scipy.special import stdtr

from tuner.load.precision import Floats, cycles, percentile

SIGNIFICANCE = 1e-3
"""Chance to speak of a drift where there is none."""
LEAST_CHANGE = 0.10
"""A change of the median that is not worth a word, as a share of it."""
MIN_CYCLES = 10.0


def drift(latencies_ms: Floats) -> str | None:
    """In words how the median changed from the window's first half to its second, or ``None``.

    The requests above the window's median less those expected, cycle by cycle (see ``precision``),
    are independent terms of mean zero. Given different signs in the two halves they still are,
    unless latencies rise or fall: a t-test with the effective number of cycles.

    Args:
        latencies_ms: in due order, shape (n,); ``inf`` for requests without an answer.
    """
    count = len(latencies_ms)
    if count < 2:
        return None
    cycle = cycles(latencies_ms)
    over = (latencies_ms > percentile(latencies_ms, 0.5)).astype(float)
    sign = np.where(np.arange(count) < count / 2, -1.0, 1.0)
    # Taking each half's own share off would hide the drift; the whole window's is off by a constant
    # that the signs cancel.
    terms = np.bincount(cycle, (over - over.mean()) * sign)
    squares = float(terms @ terms)
    if squares == 0:
        return None
    effective = float(np.abs(terms).sum()) ** 2 / squares
    if effective < MIN_CYCLES:
        return None
    statistic = float(terms.sum()) / math.sqrt(squares)
    if 2 * float(stdtr(effective - 1, -abs(statistic))) > SIGNIFICANCE:
        return None
    first, second = (percentile(part, 0.5) for part in np.array_split(latencies_ms, 2))
    if not abs(second - first) > LEAST_CHANGE * min(first, second):
        return None
    return (
        f"latencies drifted inside the window: median {first:.3g} ms in its first half, "
        f"{second:.3g} ms in its second"
    )
