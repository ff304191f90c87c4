"""Percentile intervals without an upper end: too few requests to say how large the p99 may be.

A stage that holds too few requests for an upper bound stores its largest latency in that place. A
bound that nobody knows must not pass for a known one: here the upper side becomes at least as wide
as the lower one, on the logarithm, and the table says which metrics are meant.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tuner.analysis.tables import interval, numbers
from tuner.measurement import interval_names

PERCENTILES = ("latency_p50_ms", "latency_p99_ms")
LARGEST, TOLD = "latency_max_ms", "p99_interval_bounded"


def open_above(table: pd.DataFrame, metric: str) -> NDArray[np.bool_]:
    """Rows whose interval of a metric has no known upper end, (n,).

    For the p99 a column ``p99_interval_bounded`` says so; where there is none, an interval that
    ends at the largest latency counts as open.
    """
    if metric not in PERCENTILES or interval_names(metric)[1] not in table.columns:
        return np.zeros(len(table), dtype=bool)
    if metric == "latency_p99_ms" and TOLD in table.columns:
        return ~table[TOLD].fillna(True).astype(bool).to_numpy()
    if LARGEST not in table.columns:
        return np.zeros(len(table), dtype=bool)
    return np.asarray(interval(table, metric)[1] >= numbers(table, LARGEST))


def widened(table: pd.DataFrame) -> pd.DataFrame:
    """The table with open intervals widened, and ``interval_open``: whose they are, a tuple a row.

    The upper end becomes value²/low where that is above what is stored.
    """
    found = table.copy()
    names: list[tuple[str, ...]] = [()] * len(table)
    for metric in PERCENTILES:
        rows = open_above(table, metric)
        if not rows.any():
            continue
        low, high = interval(table, metric)
        with np.errstate(divide="ignore", invalid="ignore"):
            mirrored = numbers(table, metric) ** 2 / low
        found[interval_names(metric)[1]] = np.where(rows, np.fmax(high, mirrored), high)
        names = [(*held, metric) if row else held for held, row in zip(names, rows)]
    found["interval_open"] = pd.Series(names, table.index, dtype=object)
    found.attrs.update(table.attrs)
    return found
