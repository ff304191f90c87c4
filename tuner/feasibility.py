"""How probable it is that a limit holds: the one place that says so, for samplers and analysis alike."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import betainc, ndtr, ndtri

Floats = NDArray[np.float64]

ERROR_RATE = "error_rate"
KEPT = 0.90
"""Probability from which on a limit counts as kept where a configuration is chosen or improved on."""


def hold_probability(
    value: float | None, low: float | None, high: float | None, bound: float, sign: str
) -> float:
    """Probability that the true value of a metric is ``<=`` or ``>=`` a bound.

    See ``hold_probabilities``; ``None`` is a value or an end that is not known.
    """
    centre, least, most = (np.array([v], dtype=float) for v in (value, low, high))
    return float(hold_probabilities(centre, least, most, bound, sign)[0])


def hold_probabilities(
    values: ArrayLike, low: ArrayLike, high: ArrayLike, bound: float, sign: str
) -> Floats:
    """Probability of each true value to be within a bound, shape (n,).

    The truth is taken for a two-piece normal (Wallis, "The two-piece normal, binormal, or double
    Gaussian distribution", Statistical Science 2014) whose median is the value and whose 2.5 and
    97.5 % quantiles are ``low`` and ``high``, on the logarithm where value, lower end and bound are
    positive. **An upper end that is not known** (infinite, or NaN beside a known lower one): above
    the value the law is a Cauchy's half with the lower side's scale, whose tail is heavy: the limit
    is held to be kept with 90 % only when it lies three of these scales above the value, and with
    95 % at six. That is an assumption, no measurement, so such a limit is never certain
    (``untold``). **No interval at all**: the value counts as exact, 1 or 0; neither is that ever
    certain.

    Args:
        values, low, high: in the metric's unit, each (n,).
        bound: in the same unit.
        sign: ``<=`` or ``>=``.

    Returns:
        Probabilities, (n,); NaN where there is no value.
    """
    if sign not in ("<=", ">="):
        raise ValueError(f"a limit is <= or >=, not {sign!r}")
    centre, least, most = (np.asarray(part, dtype=float) for part in (values, low, high))
    most = np.where(np.isnan(most), np.inf, most)
    logs = (centre > 0) & (least > 0) & (bound > 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        centre, least, most = (np.where(logs, np.log(v), v) for v in (centre, least, most))
        limit = np.where(logs, np.log(bound) if bound > 0 else np.nan, bound)
        below, above = centre - least, most - centre
        apart = limit - centre
        quantile = float(ndtri(0.975))
        side = np.where(apart < 0, below, np.where(np.isfinite(above), above, below))
        scaled = quantile * apart / side
        tail = 0.5 + np.arctan(scaled) / np.pi
        heavy = (apart > 0) & ~np.isfinite(above)
        chance = np.where(heavy, tail, ndtr(scaled))
        exact = ~(side > 0)
        kept = apart >= 0 if sign == "<=" else apart <= 0
        chance = np.where(exact, kept, chance if sign == "<=" else 1 - chance)
    return np.asarray(np.where(np.isnan(centre), np.nan, chance), dtype=float)


def error_rate_probabilities(
    errors: ArrayLike, requests: ArrayLike, bound: float, sign: str
) -> Floats:
    """Probability of each true share of errors to be within a bound, shape (n,).

    From Jeffreys' posterior, Beta(errors + ½, answers + ½) (Brown, Cai & DasGupta, "Interval
    Estimation for a Binomial Proportion", Statistical Science 2001): no error in 60 requests says
    with 73 % only that the share is at most 1 %, none in 200 with 95 %.
    """
    wrong, asked = np.asarray(errors, dtype=float), np.asarray(requests, dtype=float)
    within = betainc(wrong + 0.5, asked - wrong + 0.5, min(max(bound, 0.0), 1.0))
    return np.asarray(within if sign == "<=" else 1 - within)
