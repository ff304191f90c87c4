"""Values drawn anew within their stored intervals: what another measurement might have given."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtri

Floats = NDArray[np.float64]


def spreads(
    values: ArrayLike, low: ArrayLike, high: ArrayLike, level: float = 0.95
) -> tuple[Floats, Floats]:
    """Standard deviations below and above each value, of the shape of ``values``.

    Those of a two-piece normal distribution whose median is the value and whose (1 ± level)/2
    quantiles are ``low`` and ``high``. An unknown bound (NaN) counts as no error on that side.
    """
    centre = np.asarray(values, dtype=float)
    quantile = float(ndtri((1 + level) / 2))
    below = np.nan_to_num(centre - np.asarray(low, dtype=float), nan=0.0).clip(min=0.0)
    above = np.nan_to_num(np.asarray(high, dtype=float) - centre, nan=0.0).clip(min=0.0)
    return below / quantile, above / quantile


def redrawn(
    values: ArrayLike, low: ArrayLike, high: ArrayLike, *, draws: int, random: np.random.Generator
) -> Floats:
    """Draws of every value within its 95 % interval, shape (draws, n); NaN stays NaN.

    On the logarithm where all values and lower bounds are positive, so that no latency or energy is
    drawn below zero; see ``spreads``.
    """
    centre, least, most = (np.asarray(part, dtype=float) for part in (values, low, high))
    known = centre[np.isfinite(centre)]
    logs = bool((known > 0).all()) and not (least[np.isfinite(centre)] <= 0).any()
    if logs:
        centre, least, most = np.log(centre), np.log(least), np.log(most)
    below, above = spreads(centre, least, most)
    error = random.standard_normal((draws, *centre.shape))
    drawn = centre + error * np.where(error > 0, above, below)
    return np.asarray(np.exp(drawn) if logs else drawn)
