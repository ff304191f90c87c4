"""How probable it is that a limit holds, given what was measured and how far that can be trusted.

A value within its limit says little where its interval reaches far beyond it. Here every limit gets
a probability, from the 95 % interval of the metric, and for the error rate from the counts.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.special import betainc, betaincinv, ndtr, ndtri

from tuner.analysis.tables import interval, numbers
from tuner.measurement import interval_names

Floats = NDArray[np.float64]

KEPT = 0.90
"""Probability from which on a limit counts as kept where a configuration is chosen."""
ERROR_RATE = "error_rate"
_LIMIT = re.compile(r"\s*([A-Za-z_]\w*)\s*(<=|>=)\s*(\S+)\s*")


@dataclass(frozen=True)
class Limit:
    """A service level: a metric, ``<=`` or ``>=``, and a bound in the metric's unit."""

    metric: str
    sign: str
    bound: float

    def __str__(self) -> str:
        return f"{self.metric} {self.sign} {self.bound:g}"

    @classmethod
    def parse(cls, text: str) -> Limit:
        """A limit as ``space.Constraint.key`` writes it. Raises ValueError for anything else."""
        match = _LIMIT.fullmatch(text)
        if match is None:
            raise ValueError(f"{text!r} is no limit")
        return cls(match[1], match[2], float(match[3]))

    def keeps(self, values: ArrayLike) -> NDArray[np.bool_]:
        """Whether values are within the bound; NaN is not."""
        held = np.asarray(values, dtype=float)
        return np.asarray(held <= self.bound if self.sign == "<=" else held >= self.bound)


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


def error_rate_interval(errors: ArrayLike, requests: ArrayLike) -> tuple[Floats, Floats]:
    """95 % interval of each share of errors, the ends each (n,): Jeffreys', as above.

    It begins at 0 where there was no error and ends at 1 where there was nothing else.
    """
    wrong, asked = np.asarray(errors, dtype=float), np.asarray(requests, dtype=float)
    low, high = (betaincinv(wrong + 0.5, asked - wrong + 0.5, q) for q in (0.025, 0.975))
    return np.where(wrong == 0, 0.0, low), np.where(wrong == asked, 1.0, high)


def measured_share(measured: ArrayLike, failed: ArrayLike) -> Floats:
    """Chance of a configuration to give a measurement at all, shape (n,).

    Jeffreys' estimate from its repeats, (measured + ½) / (all + 1), and 1 where none failed: a limit
    is not kept by a server that does not answer, and a configuration whose repeats all went well is
    not charged for failures that nobody saw.
    """
    well, ill = np.asarray(measured, dtype=float), np.asarray(failed, dtype=float)
    return np.where(ill > 0, (well + 0.5) / (well + ill + 1), 1.0)


def with_limits(table: pd.DataFrame, limits: Sequence[Limit]) -> pd.DataFrame:
    """A pooled table (``repeats.pool``) with what is known of each limit.

    Adds ``limit_probability`` (one number a limit, a tuple), ``limit_unknown`` (the limits whose
    probability rests on an assumption, since the upper end or the whole interval is unknown, a
    tuple of their texts), ``measured_share`` and ``limits_probability``: that all limits hold at
    once, their errors taken as independent. Failed repeats count against each of them. NaN where
    nothing was measured. The interval of the error rate becomes that of its counts: repeats that
    all went well have no spread, which is no proof that no request ever fails.
    """
    found = table.copy(deep=False)
    if {ERROR_RATE, "requests"} <= set(table.columns):
        asked = numbers(table, "requests")
        asked = np.where(asked > 0, asked, np.nan)
        found[list(interval_names(ERROR_RATE))] = np.column_stack(
            error_rate_interval(np.rint(numbers(table, ERROR_RATE) * asked), asked)
        )
    chances, untold = np.ones((len(table), len(limits))), np.zeros((len(table), len(limits)), bool)
    for place, limit in enumerate(limits):
        chances[:, place], untold[:, place] = _of_one(table, limit)
    share = np.ones(len(table))
    if {"repeats", "failures"} <= set(table.columns):
        again = numbers(table, "again") if "again" in table.columns else 0.0
        share = measured_share(numbers(table, "repeats") + again, numbers(table, "failures"))
    found["measured_share"] = share
    found["limit_probability"] = pd.Series(
        list(map(tuple, (chances * share[:, None]).tolist())), table.index, dtype=object
    )
    texts = [str(limit) for limit in limits]
    found["limit_unknown"] = pd.Series(
        [tuple(t for t, lacks in zip(texts, row) if lacks) for row in untold.tolist()],
        table.index, dtype=object,
    )
    found["limits_probability"] = share * chances.prod(axis=1)
    return found


def _of_one(table: pd.DataFrame, limit: Limit) -> tuple[Floats, NDArray[np.bool_]]:
    """Probability that one limit holds, and whether it rests on an assumption; each (n,)."""
    values = numbers(table, limit.metric)
    if limit.metric == ERROR_RATE and "requests" in table.columns:
        asked = numbers(table, "requests")
        counted = asked > 0
        chance = error_rate_probabilities(
            np.where(counted, np.rint(values * asked), np.nan), np.where(counted, asked, np.nan),
            limit.bound, limit.sign,
        )
        exact = np.where(np.isnan(values), np.nan, limit.keeps(values).astype(float))
        return np.where(counted, chance, exact), ~counted & np.isfinite(values)
    low, high = interval(table, limit.metric)
    chance = hold_probabilities(values, low, high, limit.bound, limit.sign)
    # What lies below the value is known whatever the upper end is.
    above = limit.bound > values
    unknown = ~np.isfinite(low) | (above & ~np.isfinite(high))
    return chance, unknown & np.isfinite(values)
