"""Configurations as points of the unit cube, for distances and surrogates."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TypeGuard

import numpy as np
from numpy.typing import NDArray

from tuner.measurement import Configuration, Scalar
from tuner.space import Parameter, Space

INACTIVE = 0.5
"""Coordinate of a knob whose condition doesn't hold: the middle, so that it tells nothing; the
parent's own coordinate tells the two branches apart."""


class Encoder:
    """Maps configurations of a space to rows of a matrix, every column in [0, 1].

    Ordered knobs take one column: listed levels by rank (people list levels at the spacing that
    matters), ranges linearly or by logarithm as the space says. Unordered ones take one column a
    choice, scaled so that two different choices are 1 apart; two choices need one column.
    """

    def __init__(self, space: Space) -> None:
        self._parameters = space.parameters
        self.columns: list[str] = []
        """The parameter that each column belongs to."""
        for parameter in self._parameters:
            self.columns += [parameter.name] * _width(parameter)
        self.deciding = [
            [i for i, name in enumerate(self.columns) if name == knob] for knob in space.deciding
        ]
        """The columns of each knob whose two values are branches: on it depends whether others
        apply."""

    def encode(self, configurations: Sequence[Configuration]) -> NDArray[np.float64]:
        """A matrix of shape (configurations, columns)."""
        blocks = [_encode(p, [c.get(p.name) for c in configurations]) for p in self._parameters]
        return np.hstack(blocks) if blocks else np.zeros((len(configurations), 0))


def is_ordered(parameter: Parameter) -> bool:
    """Whether neighbouring levels of a parameter may be expected to behave alike."""
    return parameter.kind != "categorical" or parameter.ordered


def _width(parameter: Parameter) -> int:
    unordered = not is_ordered(parameter) and len(parameter.choices) > 2
    return len(parameter.choices) if unordered else 1


def _encode(parameter: Parameter, values: Sequence[Scalar | None]) -> NDArray[np.float64]:
    if parameter.choices:
        places: Mapping[Scalar, int] = {v: i for i, v in enumerate(parameter.choices)}
        width, last = _width(parameter), max(len(parameter.choices) - 1, 1)
        if width == 1:
            column = [INACTIVE if v is None else _place(places, v, last) for v in values]
            return np.array(column, dtype=float).reshape(-1, 1)
        block = np.full((len(values), width), INACTIVE / math.sqrt(2))
        for row, value in enumerate(values):
            if value is not None:
                block[row] = 0.0
                if value in places:
                    block[row, places[value]] = 1 / math.sqrt(2)
        return block
    scale = math.log if parameter.log else float
    return _scaled(values, scale, parameter.low, parameter.high)  # type: ignore


def _scaled(
    values: Sequence[Scalar | None], scale: Callable[[float], float], low: float, high: float
) -> NDArray[np.float64]:
    start, span = scale(low), (scale(high) - scale(low)) or 1.0
    # A source study may have gone beyond our range, to where there is no logarithm, or held words.
    numbers = [
        (scale(min(max(float(v), low), high)) - start) / span if _is_number(v) else INACTIVE
        for v in values
    ]
    return np.array(numbers, dtype=float).reshape(-1, 1)


def _is_number(value: Scalar | None) -> TypeGuard[float]:
    return (
        isinstance(value, (int, float)) and not isinstance(value, bool) and not math.isnan(value)
    )


def _place(places: Mapping[Scalar, int], value: Scalar, last: int) -> float:
    if value in places:
        return places[value] / last
    # A source study may have used levels between ours.
    levels = [v for v in places if isinstance(v, (int, float))]
    if len(levels) == len(places) and isinstance(value, (int, float)):
        return float(np.interp(value, sorted(levels), np.arange(len(levels)) / last))
    return INACTIVE
