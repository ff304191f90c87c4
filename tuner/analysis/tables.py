"""What a table's columns mean: names and units for people, validity, intervals.

A *table* is a DataFrame with one row per configuration or trial: option columns, response columns
and, optionally, a boolean ``valid``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tuner.errors import TableError
from tuner.measurement import interval_names

UNITS: Mapping[str, str] = {
    "ms": "ms",
    "us": "µs",
    "s": "s",
    "j": "J",
    "w": "W",
    "rps": "requests/s",
    "bytes": "bytes",
}
"""Unit suffix of a column name -> unit as printed."""


def label(column: str) -> str:
    """A column's name and unit for an axis: ``latency_p99_ms`` -> ``latency p99 (ms)``."""
    stem, _, suffix = column.rpartition("_")
    if stem and suffix in UNITS:
        return f"{stem.replace('_', ' ')} ({UNITS[suffix]})"
    return column.replace("_", " ")


def require(table: pd.DataFrame, columns: Iterable[str]) -> None:
    """Raise TableError naming the first column that the table lacks and those it has."""
    for column in columns:
        if column not in table.columns:
            has = ", ".join(map(str, table.columns))
            raise TableError(f"no column {column!r} in the table; it has: {has}")


def valid_rows(table: pd.DataFrame, responses: Iterable[str] = ()) -> NDArray[np.bool_]:
    """Rows that are valid and have a finite value in every response, shape (n,)."""
    rows = np.ones(len(table), dtype=bool)
    if "valid" in table.columns:
        rows &= table["valid"].fillna(False).astype(bool).to_numpy()
    for response in responses:
        rows &= np.isfinite(numbers(table, response))
    return rows


def numbers(table: pd.DataFrame, column: str) -> NDArray[np.float64]:
    """A column as floats, NaN where empty; TableError when it holds something else."""
    require(table, [column])
    try:
        return np.asarray(pd.to_numeric(table[column]), dtype=float)
    except (TypeError, ValueError):
        raise TableError(f"column {column!r} should hold numbers only") from None


def interval(
    table: pd.DataFrame, column: str
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The stored interval of a metric, NaN where none is stored; each of shape (n,)."""
    missing = np.full(len(table), np.nan)
    low, high = (
        numbers(table, name) if name in table.columns else missing
        for name in interval_names(column)
    )
    return low, high
