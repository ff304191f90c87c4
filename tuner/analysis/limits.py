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
from scipy.special import betaincinv

from tuner.analysis.tables import interval, numbers
from tuner.feasibility import (
    ERROR_RATE,
    KEPT,
    THROUGHPUT,
    error_rate_probabilities,
    hold_probabilities,
    hold_probability,
    joint_probabilities,
    throughput_probabilities,
)
from tuner.measurement import interval_names

__all__ = [
    "KEPT", "Limit", "error_rate_interval", "error_rate_probabilities", "hold_probabilities",
    "hold_probability", "measured_share", "with_limits",
]

Floats = NDArray[np.float64]

RATE = "target_rate_rps"
"""Column of what an open loop was offered, requests/s."""

_LIMIT = re.compile(r"\s*([A-Za-z_]\w*)\s*(<=|>=)\s*(\S+)\s*")


@dataclass(frozen=True)
class Limit:
    """A service level: a metric, ``<=`` or ``>=``, and a bound in the metric's unit."""

    metric: str
    sign: str
    bound: float

    def __str__(self) -> str:
        return f"{self.metric} {self.sign} {self.bound:.15g}"

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

    Adds ``limit_probability`` (one number a limit, a tuple; NaN where nothing is known of the
    metric's error), ``limit_unknown`` (the limits whose probability is not known or rests on an
    assumption, since the upper end or the whole interval is unknown, a tuple of their texts),
    ``measured_share``, ``limits_probability``: that all limits hold at once, at least
    (``feasibility.joint_probabilities``; NaN where that of one is not known), and
    ``limits_presence``: the same of those limits alone whose probability is known. Failed repeats
    count against each of them. NaN where nothing was measured. The interval of the error rate
    becomes that of its counts: repeats that all went well have no spread, which is no proof that no
    request ever fails.
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
    keys = [(limit.metric, limit.sign) for limit in limits]
    found["limits_probability"] = share * joint_probabilities(keys, chances)
    known = np.where(untold & np.isnan(chances), 1.0, chances)
    found["limits_presence"] = share * joint_probabilities(keys, known)
    return found


def _of_one(table: pd.DataFrame, limit: Limit) -> tuple[Floats, NDArray[np.bool_]]:
    """Probability that one limit holds, and whether that is unknown or assumed; each (n,)."""
    values = numbers(table, limit.metric)
    low, high = interval(table, limit.metric)
    # What lies below the value is known whatever the upper end is.
    above = limit.bound > values
    chance = hold_probabilities(values, low, high, limit.bound, limit.sign)
    told = np.isfinite(low) & ~(above & ~np.isfinite(high))
    if limit.metric in (ERROR_RATE, THROUGHPUT) and {ERROR_RATE, "requests"} <= set(table.columns):
        counted = _by_counts(table, limit)
        chance = np.where(np.isnan(counted), np.nan if limit.metric == ERROR_RATE else chance, counted)
        told |= np.isfinite(counted)
    return chance, ~(told & np.isfinite(chance)) & np.isfinite(values)


def _by_counts(table: pd.DataFrame, limit: Limit) -> Floats:
    """Probability that a limit on errors, or on an open loop's throughput, holds; NaN where nobody
    counted, (n,)."""
    asked = numbers(table, "requests")
    asked = np.where(asked > 0, asked, np.nan)
    wrong = np.rint(numbers(table, ERROR_RATE) * asked)
    if limit.metric == ERROR_RATE:
        return error_rate_probabilities(wrong, asked, limit.bound, limit.sign)
    rate = numbers(table, RATE) if RATE in table.columns else np.full(len(table), np.nan)
    return throughput_probabilities(wrong, asked, rate, limit.bound, limit.sign)
