"""The Pareto front of a table of trials: members, knee, certainty, service levels."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import pandas as pd

from tuner.analysis.open_bounds import counted
from tuner.analysis.pareto import Floats, hypervolume, knee, membership_probability, non_dominated
from tuner.analysis.tables import interval, numbers, valid_rows
from tuner.errors import TableError

CERTAIN = 0.95
"""Probability from which on a member counts as certain."""
DEFAULT_OBJECTIVES = ("latency_p99_ms", "energy_per_request_j")


def mark_front(
    table: pd.DataFrame,
    objectives: Sequence[str] = DEFAULT_OBJECTIVES,
    *,
    maximise: Collection[str] = (),
    limits: Mapping[str, float] | None = None,
    draws: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """The table with what its front says of each row.

    Adds the columns ``usable`` (valid, measured in every objective, within the service levels),
    ``on_front``, ``knee``, ``front_probability`` (see ``pareto.membership_probability``; NaN
    for a row that is not usable; a column ``limits_probability``, see ``limits.with_limits``, is
    each row's chance to be there at all; ``limits_presence`` in its place where some limit's is not
    known), ``interval_unknown`` (the objectives whose error is not
    known and therefore not in that probability, a tuple) and ``certain``: a member with a
    probability of at least ``CERTAIN`` in which every objective's error is counted and every upper
    bound known, and whose limits hold with as much, none of them by an assumption
    (``limit_unknown``). An upper bound that is not known is drawn as ``open_bounds`` says.
    ``maximise`` names the objectives where more is better; ``limits`` are service levels, the
    greatest allowed value of a column (the least allowed where the column is in ``maximise``).
    """
    if not objectives:
        raise TableError("a front needs at least one objective")
    usable = valid_rows(table, objectives)
    for column, bound in (limits or {}).items():
        value = numbers(table, column)
        kept = value >= bound if column in maximise else value <= bound
        usable &= kept
    signs = np.array([-1.0 if name in maximise else 1.0 for name in objectives])
    values = np.column_stack([numbers(table, name) for name in objectives]) * signs
    values[~usable] = np.nan
    stored = [interval(table, name) for name in objectives]
    bounds = [counted(table, name) for name in objectives]
    low = np.column_stack([-high if s < 0 else low for s, (low, high) in zip(signs, bounds)])
    high = np.column_stack([-low if s < 0 else high for s, (low, high) in zip(signs, bounds)])
    marked = table.copy()
    marked["usable"] = usable
    marked["on_front"] = non_dominated(values)
    bend = knee(values)
    marked["knee"] = np.arange(len(table)) == (-1 if bend is None else bend)
    chance: Floats = np.full(len(table), np.nan)
    present: Floats = np.ones(len(table))
    sure_of_limits = present
    if "limits_probability" in table.columns:
        sure_of_limits = present = numbers(table, "limits_probability")
    if "limits_presence" in table.columns:
        present = numbers(table, "limits_presence")
    if usable.any():
        rows = np.flatnonzero(usable)
        chance[rows] = membership_probability(
            values[rows], low[rows], high[rows], presence=present[rows], draws=draws, seed=seed
        )
    marked["front_probability"] = chance
    unknown = ~(np.isfinite(low) & np.isfinite(high))
    marked["interval_unknown"] = pd.Series(
        [tuple(name for name, lacks in zip(objectives, row) if lacks) for row in unknown],
        marked.index, dtype=object,
    )
    sure = ~unknown.any(axis=1) & (sure_of_limits >= CERTAIN)
    for _, most in stored:
        sure &= ~np.isposinf(most)
    if "limit_unknown" in table.columns:
        sure &= np.array([not names for names in table["limit_unknown"]], dtype=bool)
    marked["certain"] = marked["on_front"] & (chance >= CERTAIN) & sure
    return marked


def front_hypervolume(
    table: pd.DataFrame,
    objectives: Sequence[str],
    reference: Sequence[float],
    *,
    maximise: Collection[str] = (),
) -> float:
    """Hypervolume between the valid rows of a table and a reference point, in the objectives' units.

    ``maximise`` names the objectives where more is better; ``reference`` is in the units of the
    table, not negated.
    """
    rows = valid_rows(table, objectives)
    signs = np.array([-1.0 if name in maximise else 1.0 for name in objectives])
    values = np.column_stack([numbers(table, name)[rows] for name in objectives]) * signs
    return hypervolume(values, np.asarray(reference, dtype=float) * signs)


def worst_point(
    table: pd.DataFrame, objectives: Sequence[str], *, maximise: Collection[str] = ()
) -> list[float]:
    """The worst value of each objective among the valid rows, the usual reference; needs one row."""
    rows = valid_rows(table, objectives)
    return [
        float((np.min if name in maximise else np.max)(numbers(table, name)[rows]))
        for name in objectives
    ]
