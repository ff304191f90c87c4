"""Environments to compare: one response over a table of configurations, and those that two share."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tuner.analysis.energy import check_energy
from tuner.analysis.open_bounds import counted
from tuner.analysis.options import Option, codes, configuration_ids
from tuner.analysis.options import describe_options as describe
from tuner.analysis.tables import numbers
from tuner.errors import TableError

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


LEAST_COMMON = 10
"""Configurations valid in both environments from which a number on the pair is told: a correlation
of fewer than ten is told from none only above 0.63 (Student's t, two-sided, 5 %), and the best tenth
of fewer is less than one configuration."""


@dataclass(frozen=True)
class Environment:
    """One response over one table of configurations."""

    label: str
    table: pd.DataFrame
    response: str
    options: tuple[str, ...]
    valid: Bools | None
    """Which rows are valid, (n,); ``None`` when nothing says so."""

    @property
    def values(self) -> Floats:
        return numbers(self.table, self.response)

    @property
    def usable(self) -> Bools:
        """Rows that are valid and have a finite response, (n,)."""
        finite = np.isfinite(self.values)
        return finite if self.valid is None else finite & self.valid


@dataclass(frozen=True)
class Comparison:
    """Source and target on the configurations that both measured, one row for each."""

    table: pd.DataFrame
    options: tuple[Option, ...]
    source: Floats
    target: Floats
    source_valid: Bools | None
    target_valid: Bools | None
    source_bounds: tuple[Floats, Floats]
    """Lower and upper end of the response's 95 % interval, each (n,); NaN where none is known."""
    target_bounds: tuple[Floats, Floats]


def compare(source: Environment, target: Environment) -> Comparison:
    """Both environments on the configurations that both measured.

    Columns of one table are paired row by row. Two tables are joined on the values of the options
    that both have; the valid repetitions of a configuration are averaged, with their intervals, and
    a configuration is valid where one repetition is. Raises StudyError as ``energy.check_energy``, TableError when
    nothing is shared.
    """
    check_energy([source, target])
    names = [name for name in source.options if name in target.options]
    if not names:
        raise TableError(f"{source.label} and {target.label} have no option in common")
    if source.table is target.table:
        options = describe(source.table, names)
        return Comparison(
            source.table, options, source.values, target.values, source.valid, target.valid,
            counted(source.table, source.response), counted(target.table, target.response),
        )
    both = pd.concat([source.table[names], target.table[names]], ignore_index=True)
    options = describe(both, names)
    ids = configuration_ids(codes(both, options))
    cut = len(source.table)
    means = [_means(source, ids[:cut]), _means(target, ids[cut:])]
    shared = means[0].index.intersection(means[1].index)
    if not len(shared):
        raise TableError(f"{source.label} and {target.label} measured no configuration in common")
    rows = pd.Series(np.arange(len(ids))).groupby(ids).first()
    y = [part["value"].reindex(shared).to_numpy() for part in means]
    known = [environment.valid is not None for environment in (source, target)]
    flags = [part["valid"].reindex(shared).to_numpy() for part in means]
    return Comparison(
        both.loc[rows.reindex(shared)].reset_index(drop=True),
        options,
        y[0],
        y[1],
        flags[0] if known[0] else None,
        flags[1] if known[1] else None,
        *((p["low"].reindex(shared).to_numpy(), p["high"].reindex(shared).to_numpy())
          for p in means),
    )


def _means(environment: Environment, ids: NDArray[np.int64]) -> pd.DataFrame:
    usable = environment.usable
    low, high = counted(environment.table, environment.response)
    frame = pd.DataFrame({"value": environment.values, "low": low, "high": high})
    frame.loc[~usable] = np.nan
    grouped = frame.groupby(ids).mean()
    return grouped.assign(valid=pd.Series(usable).groupby(ids).any())
