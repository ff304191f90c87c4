"""Which one configuration to take, by a rule that does not hang on differences that are noise.

Among the configurations that keep every limit with at least 90 %, those within the indifference
zone (5 %) of the least p99 count as equal, and of these the one with the least energy is taken,
then the simplest: nearest to the server's defaults. A study with other objectives has its first in
the place of the p99 and its second in that of the energy; further ones are asked in their order.
An indifference zone is what selection procedures ask for (Bechhofer, "A single-sample multiple
decision procedure", 1954): a difference that is not worth to be told.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tuner.analysis.limits import KEPT
from tuner.analysis.open_bounds import counted
from tuner.analysis.tables import numbers

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

INDIFFERENCE = 0.05
"""Share of the best value of the first objective within which values count as equal."""
NEARLY = 0.05
"""Where nobody keeps a limit with ``KEPT``: how far below the best such probability still counts."""

UNTOLD = 0.5
"""What a limit counts that was kept by a value of whose error nothing is known."""


@dataclass(frozen=True)
class Choice:
    """The configuration to take, and why."""

    row: int
    """Its place in the table."""
    kept: int
    """Configurations among which it was chosen: those that keep every limit."""
    least: float
    """The best value of the first objective among them."""
    equal: int
    """How many count as equal to that in the first objective."""
    thrifty: int
    """How many of these are the best in the further objectives as well."""
    differing: int
    """Knobs of the choice that are not at the server's default."""
    sure: bool
    """Whether every limit holds with at least ``KEPT``; else it is the likeliest to."""


def choose(
    table: pd.DataFrame,
    objectives: Sequence[str],
    maximise: Sequence[str],
    defaults: Mapping[str, object],
) -> Choice | None:
    """The choice among the rows of a table of ``fronts.mark_front``; ``None`` without a usable one.

    Where a limit is kept with 90 % by nobody (a short stage without an error says little of an
    error rate of 1 %), those count that are within 5 points of the likeliest to keep it. A limit whose
    probability is not known (NaN) is never kept with 90 %, and counts ``UNTOLD``.

    Args:
        table: with ``usable`` and, where there are limits, ``limit_probability``.
        defaults: knob -> what the server does where nothing is said.
    """
    usable = table["usable"].to_numpy(dtype=bool)
    if not usable.any():
        return None
    kept, sure = _keeping(table, usable)
    signs = {o: -1.0 if o in maximise else 1.0 for o in objectives}
    first = signs[objectives[0]] * numbers(table, objectives[0])
    best = first[kept].min()
    equal = kept & (first <= best + INDIFFERENCE * abs(best))
    left = equal
    for name in objectives[1:]:
        held = np.round(signs[name] * numbers(table, name), 12)
        left = left & (held == held[left].min())
    if len(objectives) == 1:
        left = equal
    differing = _differing(table, defaults)
    rows = np.flatnonzero(left)
    order = np.lexsort((table["number"].to_numpy()[rows], first[rows], differing[rows]))
    row = int(rows[order[0]])
    return Choice(
        row, int(kept.sum()), signs[objectives[0]] * float(best), int(equal.sum()),
        int(left.sum()), int(differing[row]), sure,
    )


def groups(table: pd.DataFrame, objectives: Sequence[str], first: int | None) -> list[int]:
    """A number for each row that is on the front, equal where intervals don't tell two apart.

    Each member is compared with the first one of a group, in the order of the first objective, the
    row ``first`` before all; 0 for other rows. Numbers count from 1.
    """
    found = np.zeros(len(table), dtype=int)
    rows = np.flatnonzero(table["on_front"].to_numpy(dtype=bool))
    rows = rows[np.argsort(numbers(table, objectives[0])[rows], kind="stable")]
    if first is not None:
        rows = np.array([first, *rows[rows != first]], dtype=int)
    count = 0
    for row in rows:
        if not found[row]:
            count += 1
            alike = ~told_apart(table, int(row), objectives)
            found[[r for r in rows if alike[r] and not found[r]]] = count
            found[row] = count
    return [int(n) for n in found]


def told_apart(table: pd.DataFrame, row: int, objectives: Sequence[str]) -> Bools:
    """Which rows differ from one by more than both their 95 % intervals explain, shape (n,).

    In any objective: the difference, on the logarithm where values and lower ends are positive, is
    beyond the root of the sum of squares of the two facing sides (Zou & Donner, "Construction of
    confidence limits about effect measures", Statistics in Medicine 2008). A side that is not known
    counts as no error; an upper end that is not known as ``open_bounds.counted`` says.
    """
    apart = np.zeros(len(table), dtype=bool)
    for name in objectives:
        values, (low, high) = numbers(table, name), counted(table, name)
        logs = (values > 0) & ~(low <= 0)
        if logs[np.isfinite(values)].all():
            with np.errstate(divide="ignore", invalid="ignore"):
                values, low, high = np.log(values), np.log(low), np.log(high)
        below, above = np.nan_to_num(values - low), np.nan_to_num(high - values)
        difference = values - values[row]
        facing = np.where(difference > 0, below**2 + above[row] ** 2, above**2 + below[row] ** 2)
        apart |= ~(np.abs(difference) <= np.sqrt(facing) + 1e-12)
    return apart


def _keeping(table: pd.DataFrame, usable: Bools) -> tuple[Bools, bool]:
    """Rows that keep every limit as probably as is asked, and whether that is with ``KEPT``."""
    kept, sure = usable.copy(), True
    if "limits_probability" not in table.columns:
        return kept, sure
    whole = numbers(table, "limits_probability")
    if (whole[usable] >= KEPT).any():
        return usable & (whole >= KEPT), True
    chances = np.array([list(held) for held in table["limit_probability"]], dtype=float)
    # The truth is as likely below a measured value as above: more is not known without an interval.
    chances = np.where(np.isnan(chances), UNTOLD, chances)
    for held in chances.T:
        best = held[usable].max()
        bar = KEPT if best >= KEPT else best - NEARLY
        if (kept & (held >= bar)).any():
            kept &= held >= bar
    return kept, False


def _differing(table: pd.DataFrame, defaults: Mapping[str, object]) -> NDArray[np.int64]:
    """Knobs that are set to something else than the server's default, (n,)."""
    found = np.zeros(len(table), dtype=np.int64)
    for name in table.attrs.get("parameters") or ():
        default = defaults.get(name)
        found += np.array([
            not pd.isna(held) and held != default for held in table[name].tolist()
        ], dtype=np.int64)
    return found

