"""When a server is warm: MSER-5, the truncation rule that minimises the marginal standard error.

K. P. White, M. J. Cobb, S. C. Spratt, "A comparison of five steady-state truncation heuristics
for simulation", Proc. Winter Simulation Conference 2000, pp. 755-760. W. W. Franklin, K. P. White,
"Stationarity tests and MSER-5", Proc. Winter Simulation Conference 2008, pp. 541-546, for the rule
that a truncation in the second half means that the series is still too short.
"""

from __future__ import annotations

import numpy as np

BATCH = 5
MIN_BATCHES = 10
"""Below 50 observations the rule is a lottery; the series then counts as not yet steady."""


def mser5(values: np.ndarray) -> int | None:
    """How many observations to cut from the front of a series, or ``None`` when it is too short.

    Args:
        values: observations in order of time, shape (n,).

    Means of batches of five; the cut d minimises sum_{i>=d} (b_i - mean_{i>=d})^2 / (k - d)^2.
    Cuts within the last five batches are not looked at: the statistic collapses there.
    """
    count = len(values) // BATCH
    if count < MIN_BATCHES:
        return None
    means = np.asarray(values[: count * BATCH], dtype=float).reshape(count, BATCH).mean(axis=1)
    # Suffix sums of the centred series give every cut's statistic in one pass.
    centred = means - means.mean()
    left = np.arange(count, 0, -1)
    sums = np.cumsum(centred[::-1])[::-1]
    squares = np.cumsum(centred[::-1] ** 2)[::-1]
    statistic = (squares - sums**2 / left) / left.astype(float) ** 2
    cut = int(np.argmin(statistic[: count - 5]))
    return cut * BATCH


def is_steady(values: np.ndarray) -> bool:
    """Whether the transient ended in the first half of the series."""
    cut = mser5(values)
    return cut is not None and cut <= len(values) // 2
