"""Percentile intervals without an upper end: too few requests to say how large the p99 may be.

The upper end is then infinite in a table, ``?`` in print, ``null`` in JSON. Records of before hold
the largest latency in that place; they are read as open. What has to draw values from an interval
takes the upper side to be as wide as the lower one, on the logarithm (``counted``); that stays
inside and is shown nowhere as a bound.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from tuner.analysis.tables import interval, numbers
from tuner.measurement import interval_names

Floats = NDArray[np.float64]

PERCENTILES = ("latency_p50_ms", "latency_p95_ms", "latency_p99_ms")
LARGEST, TOLD = "latency_max_ms", "p99_interval_bounded"


def open_above(table: pd.DataFrame, metric: str) -> NDArray[np.bool_]:
    """Rows whose interval of a metric has no known upper end, (n,).

    An infinite end says so. Of records of before, for the p99 a column ``p99_interval_bounded``
    does; where there is none, an interval that ends at the largest latency counts as open.
    """
    low, high = interval(table, metric)
    infinite = np.isfinite(low) & np.isposinf(high)
    if metric not in PERCENTILES:
        return np.asarray(infinite)
    if metric == "latency_p99_ms" and TOLD in table.columns:
        return np.asarray(infinite | np.array([told is False or told == 0 for told in table[TOLD]],
                                              dtype=bool) & np.isfinite(low))
    if LARGEST not in table.columns:
        return np.asarray(infinite)
    return np.asarray(infinite | (high >= numbers(table, LARGEST)))


def opened(table: pd.DataFrame) -> pd.DataFrame:
    """The table with every open interval's upper end infinite."""
    found = table.copy(deep=False)
    for metric in PERCENTILES:
        name = interval_names(metric)[1]
        if name in table.columns:
            rows = open_above(table, metric)
            if rows.any():
                found[name] = np.where(rows, np.inf, interval(table, metric)[1])
    found.attrs = table.attrs
    return found


def open_metrics(table: pd.DataFrame, metrics: list[str]) -> pd.Series:
    """Of each row the metrics whose upper end is not known, a tuple."""
    names: list[tuple[str, ...]] = [()] * len(table)
    for metric in metrics:
        low, high = interval(table, metric)
        rows = np.isfinite(low) & np.isposinf(high)
        if rows.any():
            names = [(*held, metric) if row else held for held, row in zip(names, rows.tolist())]
    return pd.Series(names, table.index, dtype=object)


def mirrored(values: ArrayLike, low: ArrayLike, high: ArrayLike) -> Floats:
    """Upper ends, those that are infinite replaced by as far above the value as the lower end is below.

    On the logarithm where the lower end is positive: value²/low; else 2 value - low.
    """
    centre, least, most = (np.asarray(part, dtype=float) for part in (values, low, high))
    with np.errstate(divide="ignore", invalid="ignore"):
        above = np.where(least > 0, centre**2 / least, 2 * centre - least)
    return np.asarray(np.where(np.isposinf(most), above, most))


def counted(table: pd.DataFrame, metric: str) -> tuple[Floats, Floats]:
    """A metric's interval as it is counted where values are drawn or errors combined; each (n,).

    As ``tables.interval``, with unknown upper ends ``mirrored``.
    """
    low, high = interval(table, metric)
    return low, mirrored(numbers(table, metric), low, high)
