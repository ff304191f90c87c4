"""How probable it is that a limit holds: the one place that says so, for samplers and analysis alike."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import betainc, ndtr, ndtri

Floats = NDArray[np.float64]

ERROR_RATE, THROUGHPUT = "error_rate", "throughput_rps"
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
    95 % at six. That is an assumption, no measurement, so such a limit is never certain.
    **No interval at all**, or no end from which a scale could be taken: nothing is known of the
    error, and there is no probability.

    Args:
        values, low, high: in the metric's unit, each (n,).
        bound: in the same unit.
        sign: ``<=`` or ``>=``.

    Returns:
        Probabilities, (n,); NaN where there is no value, or nothing is known of its error.
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
        untold = np.isnan(below) | (heavy & ~(below > 0))
    return np.asarray(np.where(untold, np.nan, chance), dtype=float)


def error_rate_probabilities(
    errors: ArrayLike, requests: ArrayLike, bound: float, sign: str
) -> Floats:
    """Probability of each true share of errors to be within a bound, shape (n,).

    From Jeffreys' posterior, Beta(errors + ½, answers + ½) (Brown, Cai & DasGupta, "Interval
    Estimation for a Binomial Proportion", Statistical Science 2001): no error in 60 requests says
    with 73 % only that the share is at most 1 %, none in 200 with 95 %. That there is no error at
    all (a bound of 0), or nothing else, can be refuted by counting but never shown: NaN where it was
    not.
    """
    wrong, asked = np.asarray(errors, dtype=float), np.asarray(requests, dtype=float)
    within = betainc(wrong + 0.5, asked - wrong + 0.5, min(max(bound, 0.0), 1.0))
    unseen = (bound == 0) & (wrong == 0) if sign == "<=" else (bound == 1) & (wrong == asked)
    return np.asarray(np.where(unseen, np.nan, within if sign == "<=" else 1 - within))


def throughput_probabilities(
    errors: ArrayLike, requests: ArrayLike, rate_rps: ArrayLike, bound: float, sign: str
) -> Floats:
    """Probability of each open loop's true throughput to be within a bound, shape (n,).

    An open loop's throughput is the rate that it is offered, less the share that is not answered:
    ``rate (1 - errors)``, whose law is that of ``error_rate_probabilities``. How many requests the
    arrivals happened to bring into the window says nothing of the server.

    Args:
        rate_rps: what was offered, requests/s, (n,); NaN for a closed loop, of which this tells
            nothing.
    """
    wrong, asked, rate = np.broadcast_arrays(
        *(np.asarray(part, dtype=float) for part in (errors, requests, rate_rps))
    )
    chance = np.full(rate.shape, np.nan)
    for one in np.unique(rate[rate > 0]):
        rows = rate == one
        chance[rows] = error_rate_probabilities(
            wrong[rows], asked[rows], 1 - bound / one, "<=" if sign == ">=" else ">="
        )
    return chance


def joint_probabilities(limits: Sequence[tuple[str, str]], chances: ArrayLike) -> Floats:
    """Probability that all limits hold at once, at least, shape (n,).

    Of one metric, of two bounds on the same side the tighter one counts, and both sides together
    hold with P(x <= max) - P(x < min), which is exact. Metrics of one stage hang together, nobody
    knows how closely: of several the sum of their failures is taken off, Fréchet's lower bound
    ``sum(P) - (k - 1)`` (Fréchet, "Généralisation du théorème des probabilités totales", 1935),
    which holds whatever their dependence.

    Args:
        limits: metric and sign of each.
        chances: that each holds alone, (n, limits); NaN where nobody knows, and then so is the
            result.
    """
    held = np.asarray(chances, dtype=float)
    tightest: dict[tuple[str, str], Floats] = {}
    for place, key in enumerate(limits):
        tightest[key] = np.minimum(tightest.get(key, np.ones(len(held))), held[:, place])
    missed = sum((1 - chance for chance in tightest.values()), np.zeros(len(held)))
    return np.asarray(np.clip(1 - missed, 0.0, 1.0))
