"""KL divergence of two kernel densities as the ASE 2017 paper measured it (metric M2).

The densities are those of MATLAB's ``fitdist(y, 'Kernel')`` on the edges of
``discretize(y, 1000)``, since the published numbers depend on both: a normal kernel cut off at four
bandwidths, and bin edges at round numbers.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

BINS = 1000
_CUTOFF = 4.0  # bandwidths beyond which MATLAB's normal kernel counts as zero
_SMALL_PROBLEM = 30_000  # up to this many (value, edge) pairs MATLAB sums the whole kernel


def robust_bandwidth(values: ArrayLike) -> float:
    """``sigma (4 / (3 n))^(1/5)``, sigma = median absolute deviation / 0.6745 (Bowman & Azzalini).

    Where the median absolute deviation is zero, sigma is the range; where that is zero too, the
    bandwidth is 1. In the unit of ``values``, shape (n,), n >= 1.
    """
    y = np.asarray(values, dtype=float)
    sigma = float(np.median(np.abs(y - np.median(y)))) / 0.6745
    if sigma <= 0:
        sigma = float(np.ptp(y))
    return sigma * (4 / (3 * len(y))) ** 0.2 if sigma > 0 else 1.0


def round_edges(low: float, high: float, bins: int = BINS) -> Floats:
    """``bins`` equal bins that cover [low, high] and start and step at round numbers, (bins + 1,).

    The left edge is the multiple of the leading digit of the raw bin width at or below ``low``;
    the width is the least one with few digits that puts ``high`` in the last bin.
    """
    scale = max(abs(low), abs(high))
    if high - low <= max(math.sqrt(math.ulp(scale)), np.finfo(float).tiny):
        margin = max(1.0, float(math.ceil(bins * math.ulp(scale))))
        left = math.floor(2 * (low - margin / 4)) / 2
        right = math.ceil(2 * (high + margin / 4)) / 2
        return left + (right - left) / bins * np.arange(bins + 1, dtype=float)
    raw = max((high - low) / bins, math.ulp(scale))
    power = 10.0 ** math.floor(math.log10(raw))
    unit = power * math.floor(raw / power)
    left = min(unit * math.floor(low / unit), low)
    if bins == 1:
        return np.array([left, max(left + unit, high)])
    least, most = (high - left) / bins, (high - left) / (bins - 1)
    digit = 10.0 ** math.floor(math.log10(most - least))
    width = digit * math.ceil(least / digit)
    edges: Floats = left + width * np.arange(bins + 1, dtype=float)
    edges[-1] = max(edges[-1], high)
    return edges


def kernel_density(values: ArrayLike, at: ArrayLike) -> Floats:
    """Normal kernel density of ``values`` (n,) at the points ``at`` (m,), per unit of ``values``.

    The kernel is cut off at four bandwidths once there are more than 30,000 pairs to sum, as in
    MATLAB; with the 1001 edges of this module that is from 30 values on.
    """
    y, x = np.sort(np.asarray(values, dtype=float)), np.asarray(at, dtype=float)
    width = robust_bandwidth(y)
    reach = _CUTOFF * width if len(x) * len(y) > _SMALL_PROBLEM else math.inf
    first, last = y.searchsorted(x - reach, "left"), y.searchsorted(x + reach, "right")
    sums = [
        np.exp(-0.5 * ((at_x - y[i:j]) / width) ** 2).sum() for at_x, i, j in zip(x, first, last)
    ]
    return np.array(sums) / (len(y) * width * math.sqrt(2 * math.pi))


def shape(values: ArrayLike) -> Floats | None:
    """The density of values (n,) on their own 1001 edges, unnormalised; ``None`` when empty."""
    y = np.asarray(values, dtype=float)
    return kernel_density(y, round_edges(float(y.min()), float(y.max()))) if len(y) else None


def kl_divergence(source: Floats | None, target: Floats | None) -> float | None:
    """KL divergence (nats) of two densities as ``shape`` gives them.

    Each is normalised to sum 1 over its own edges, so what is compared is shape relative to range,
    not location (published so). Machine epsilon added to the target keeps a bin where only the
    source has density finite. ``None`` where a density is missing.
    """
    if source is None or target is None or not source.sum() > 0:
        return None
    q = target + np.finfo(float).eps
    p, q = source / source.sum(), q / q.sum()
    held = p > 0
    return float((p[held] * np.log(p[held] / q[held])).sum())
