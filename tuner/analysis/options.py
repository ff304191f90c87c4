"""What a table's option columns are - boolean, ordered or categorical - and how they are coded.

The ASE 2017 paper knows boolean options only. Ordered options (numbers) and categorical ones
(anything else) go beyond it; each analysis says in its docstring what it does with them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tuner.analysis.tables import require
from tuner.errors import TableError

Floats = NDArray[np.float64]
Codes = NDArray[np.int64]

INACTIVE = -1
"""Code of an empty cell: a knob whose condition does not hold in that configuration."""


@dataclass(frozen=True)
class Option:
    """One option of a table.

    ``levels`` are the values met in the table: ``(0, 1)`` for a boolean option, ascending for an
    ordered one, the default first for a categorical one. Codes are indices into ``levels``.
    """

    name: str
    kind: str
    """``boolean``, ``ordered`` or ``categorical``."""
    levels: tuple[Any, ...]


def is_boolean(column: pd.Series) -> bool:
    """Whether a column holds nothing but 0/1 or False/True, with or without empty cells."""
    values = column.dropna().unique()
    return len(values) > 0 and all(
        isinstance(v, (bool, int, float, np.bool_, np.number)) and v in (0, 1) for v in values
    )


def boolean_columns(table: pd.DataFrame, exclude: Collection[str] = ()) -> list[str]:
    """The boolean columns of a table, in order: the default options of a recorded CSV.

    ``valid`` is never an option, and neither is what ``exclude`` names (the responses).
    """
    skip = {"valid", *exclude}
    return [str(name) for name in table.columns if name not in skip and is_boolean(table[name])]


def describe_options(
    table: pd.DataFrame,
    names: Sequence[str],
    *,
    defaults: Mapping[str, Any] | None = None,
) -> tuple[Option, ...]:
    """Kind and levels of each named option, from the values in the table.

    A column of 0/1 is boolean, one of other numbers ordered, any other categorical. The default
    of a categorical option is taken from ``defaults``, else it is the level met most often (the
    first in the alphabet among equals).
    """
    require(table, names)
    if not names:
        raise TableError("no options: name the option columns, as in --options a,b,c")
    return tuple(_describe(table[name], str(name), (defaults or {}).get(name)) for name in names)


def _describe(column: pd.Series, name: str, default: Any) -> Option:
    held = column.dropna()
    if is_boolean(column):
        return Option(name, "boolean", (0, 1))
    if len(held) and all(isinstance(v, (int, float, np.number)) for v in held.unique()):
        levels = tuple(sorted(v.item() if isinstance(v, np.generic) else v for v in held.unique()))
        return Option(name, "ordered", levels)
    counts = held.map(str).value_counts()
    ranked = sorted(counts.index, key=lambda level: (-counts[level], level))
    if default is not None and str(default) in ranked:
        ranked.remove(str(default))
        ranked.insert(0, str(default))
    return Option(name, "categorical", (*ranked[:1], *sorted(ranked[1:])))


def codes(table: pd.DataFrame, options: Sequence[Option]) -> Codes:
    """Level indices of every option, ``INACTIVE`` where empty; shape (n, options)."""
    result = np.full((len(table), len(options)), INACTIVE, dtype=np.int64)
    for place, option in enumerate(options):
        column = table[option.name]
        if option.kind == "categorical":
            named = column.map(str, na_action="ignore")
            result[:, place] = pd.Categorical(named, categories=list(option.levels)).codes
            continue
        values = np.asarray(pd.to_numeric(column), dtype=float)
        held = ~np.isnan(values)
        result[held, place] = np.searchsorted(np.array(option.levels, float), values[held])
    return result


def configuration_ids(coded: Codes) -> Codes:
    """One integer for each row, equal where all codes are equal; shape (n,)."""
    ids = np.zeros(len(coded), dtype=np.int64)
    for column in coded.T:
        ids = np.unique(ids * (column.max(initial=0) + 2) + column + 1, return_inverse=True)[1]
    return ids


def design(table: pd.DataFrame, options: Sequence[Option]) -> list[Floats]:
    """Regression columns of each option, shape (n, columns of that option).

    A boolean option is one 0/1 column, as in the paper. Beyond it: an ordered option is one
    column scaled to [0, 1] over its levels, so that its coefficient is the change from the lowest
    to the highest level and comparable between options; a categorical option has one 0/1 column
    for each level but the default. An inactive option contributes 0.
    """
    coded = codes(table, options)
    columns: list[Floats] = []
    for option, code in zip(options, coded.T):
        if option.kind == "categorical":
            columns.append((code[:, None] == np.arange(1, len(option.levels))).astype(float))
            continue
        levels = np.asarray(option.levels, dtype=float)
        span = np.ptp(levels) if len(levels) else 0.0
        scaled = (levels - levels.min()) / span if span > 0 else np.zeros(len(levels))
        columns.append(np.where(code == INACTIVE, 0.0, scaled[code])[:, None])
    return columns
