"""A recorded table: every configuration with what was measured, answering in a server's place."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tuner.analysis.tables import numbers, require, valid_rows
from tuner.errors import TableError
from tuner.measurement import Configuration, Scalar, configuration_key
from tuner.propose.base import Observation
from tuner.replay.derive import derive
from tuner.space import Objective, Parameter, Space


@dataclass(frozen=True)
class TableSpace(Space):
    """The configurations of a table and no others; a knob may be absent from some of them."""

    rows: tuple[Configuration, ...] = field(default=(), repr=False)

    @cached_property
    def _keys(self) -> frozenset[Any]:
        return frozenset(configuration_key(row) for row in self.rows)

    @cached_property
    def _activity(self) -> dict[tuple[str, tuple[Scalar | None, ...]], bool]:
        """(knob, values of the knobs before it) -> whether some such row has the knob."""
        known: dict[tuple[str, tuple[Scalar | None, ...]], bool] = {}
        for row in self.rows:
            values = tuple(row.get(p.name) for p in self.parameters)
            for i, parameter in enumerate(self.parameters):
                place = (parameter.name, values[:i])
                known[place] = known.get(place, False) or parameter.name in row
        return known

    @cached_property
    def conditional(self) -> tuple[str, ...]:
        return tuple(p.name for p in self.parameters if any(p.name not in r for r in self.rows))

    @cached_property
    def deciding(self) -> tuple[str, ...]:
        found = {self._decider(name) for name in self.conditional}
        return tuple(p.name for p in self.parameters if p.name in found)

    def _decider(self, knob: str) -> str | None:
        """The first other knob of two values (absence is one) that settle whether a row has
        ``knob``."""
        for other in (p.name for p in self.parameters if p.name != knob):
            having: dict[Scalar | None, set[bool]] = {}
            for row in self.rows:
                having.setdefault(row.get(other), set()).add(knob in row)
            if len(having) == 2 and all(len(answers) == 1 for answers in having.values()):
                return other
        return None

    def active(self, chosen: Configuration, parameter: Parameter) -> bool:
        if parameter.name not in self.conditional:
            return True
        before = []
        for other in self.parameters:
            if other.name == parameter.name:
                break
            before.append(chosen.get(other.name))
        return self._activity.get((parameter.name, tuple(before)), True)

    def is_valid(self, configuration: Configuration) -> bool:
        return configuration_key(configuration) in self._keys

    def configurations(self) -> Iterator[dict[str, Scalar]]:
        return (dict(row) for row in self.rows)

    @cached_property
    def size(self) -> int:
        return len(self.rows)

    @cached_property
    def is_finite(self) -> bool:
        return True


@dataclass(frozen=True)
class Table:
    """What was measured on each configuration of a space.

    ``values`` holds, per configuration of ``space.rows``, an array (measurements, objectives),
    minimised; no measurement at all means that the configuration fails.
    """

    name: str
    space: TableSpace
    values: tuple[NDArray[np.float64], ...]

    @cached_property
    def _places(self) -> dict[Any, int]:
        return {configuration_key(row): i for i, row in enumerate(self.space.rows)}

    @cached_property
    def measured(self) -> NDArray[np.float64]:
        """Every measurement, shape (measurements, objectives)."""
        return np.vstack(self.values)

    @cached_property
    def means(self) -> NDArray[np.float64]:
        """Mean of each configuration, shape (configurations, objectives); NaN where it fails."""
        empty = np.full(len(self.space.objectives), np.nan)
        return np.array([v.mean(axis=0) if len(v) else empty for v in self.values])

    def place(self, configuration: Configuration) -> int:
        return self._places[configuration_key(configuration)]

    def answer(self, configuration: Configuration, rng: np.random.Generator) -> Observation:
        """How a trial of a configuration ends: one of its measurements, drawn at random."""
        values = self.values[self.place(configuration)]
        if not len(values):
            return Observation(configuration, "failed", None, {"failed": 1.0})
        drawn = values[int(rng.integers(len(values)))]
        return Observation(configuration, "complete", tuple(float(v) for v in drawn))

    def observations(self) -> list[Observation]:
        """Every configuration with its mean, as a study that tried each once."""
        return [
            Observation(row, "complete", tuple(float(v) for v in mean), number=i)
            if np.isfinite(mean).all()
            else Observation(row, "failed", None, {"failed": 1.0}, number=i)
            for i, (row, mean) in enumerate(zip(self.space.rows, self.means))
        ]

    def shuffled(self, rng: np.random.Generator) -> Table:
        """The table with its measurements dealt to other configurations: a source that misleads."""
        order = rng.permutation(len(self.values))
        return Table(f"{self.name} (shuffled)", self.space, tuple(self.values[i] for i in order))


def read_table(
    file: str | Path,
    parameters: Sequence[str],
    objectives: Sequence[str],
    derived: Sequence[str] = (),
) -> Table:
    """Read a table from a CSV file.

    A row is one measurement. It counts as failed where an objective is empty or a column
    ``valid`` (given or derived) says no; an empty parameter is a knob that doesn't apply.

    Args:
        objectives: column names, minimised; ``name:max`` is maximised.
        derived: ``name=expression`` for columns to compute first, in order.

    Raises:
        TableError: no such file, column or usable row.
    """
    try:
        frame = pd.read_csv(file)
    except (OSError, ValueError) as error:
        raise TableError(f"{file}: cannot be read as a table: {error}") from None
    for assignment in derived:
        frame = derive(frame, assignment)
    return from_frame(frame, parameters, objectives, name=Path(file).stem)


def from_frame(
    frame: pd.DataFrame, parameters: Sequence[str], objectives: Sequence[str], name: str
) -> Table:
    """A table of a DataFrame with one row a measurement; as ``read_table``."""
    goals = tuple(_objective(text) for text in objectives)
    require(frame, [*parameters, *(goal.name for goal in goals)])
    if not parameters or not goals:
        raise TableError(f"{name}: a replay needs at least one parameter and one objective")
    knobs = tuple(_parameter(column, frame[column]) for column in parameters)
    values = np.column_stack(
        [[goal.to_minimise(v) for v in numbers(frame, goal.name)] for goal in goals]
    )
    usable = valid_rows(frame, [goal.name for goal in goals])
    if not usable.any():
        raise TableError(f"{name}: no row has a finite value in {', '.join(objectives)}")
    columns = [[_value(v) for v in frame[column]] for column in parameters]
    grouped: dict[Any, tuple[Configuration, list[int]]] = {}
    for i, row in enumerate(zip(*columns)):
        configuration = {p: v for p, v in zip(parameters, row) if v is not None}
        key = configuration_key(configuration)
        rows = grouped.setdefault(key, (configuration, []))[1]
        if usable[i]:
            rows.append(i)
    space = TableSpace(
        name=name,
        parameters=knobs,
        objectives=goals,
        constraints=(),
        rows=tuple(configuration for configuration, _ in grouped.values()),
    )
    return Table(name, space, tuple(values[rows] for _, rows in grouped.values()))


def _objective(text: str) -> Objective:
    name, _, direction = text.rpartition(":")
    if name and direction in ("min", "max"):
        return Objective(name, "minimize" if direction == "min" else "maximize")
    return Objective(text, "minimize")


def _parameter(name: str, column: pd.Series[Any]) -> Parameter:
    values = {v for v in map(_value, column) if v is not None}
    if not values:
        raise TableError(f"parameter {name!r} is empty in every row")
    numeric = all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in values)
    if numeric:
        kind = "int" if all(isinstance(v, int) for v in values) else "float"
        return Parameter(name, kind, choices=tuple(sorted(values)), ordered=True)  # type: ignore
    return Parameter(name, "categorical", choices=tuple(sorted(values, key=str)))


def _value(cell: Any) -> Scalar | None:
    """A cell as a plain value; whole floats become integers, since an integer column with an
    empty cell is read as floats."""
    if pd.isna(cell):
        return None
    value = cell.item() if hasattr(cell, "item") else cell
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, (bool, int, float)) else str(value)
