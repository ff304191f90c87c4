"""The configurations a proposer may choose from: enumerated where few, drawn where many."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from tuner.measurement import Configuration, Scalar, configuration_key
from tuner.propose.encoding import Encoder
from tuner.space import Parameter, Space

ENUMERABLE = 50_000
"""Largest space that is held in memory whole; enumerating it takes about a second."""
_DRAWS = 10_000


def enumerated(space: Space, limit: int = ENUMERABLE) -> list[Configuration] | None:
    """Every valid configuration in the space's order, or ``None`` if continuous or beyond
    ``limit``."""
    if not space.is_finite:
        return None
    found: list[Configuration] = list(itertools.islice(space.configurations(), limit + 1))
    return found if len(found) <= limit else None


class Untried:
    """Which of an enumerated space's configurations were not tried yet; false once none is left.

    Kept up to date one trial at a time, since going through all of them takes longer than most
    proposals. Keys and coordinates are made when first needed.
    """

    def __init__(self, every: Sequence[Configuration], encoder: Encoder) -> None:
        self._every, self._encoder = every, encoder
        self._left = np.ones(len(every), dtype=bool)
        self._count = len(every)

    @cached_property
    def _places(self) -> dict[object, int]:
        return {configuration_key(c): i for i, c in enumerate(self._every)}

    @cached_property
    def _encoded(self) -> NDArray[np.float64]:
        return self._encoder.encode(self._every)

    def __bool__(self) -> bool:
        return self._count > 0

    def remove(self, configuration: Configuration) -> None:
        """Count a configuration as tried; one that isn't of the space, or was before, is ignored."""
        if not self._every:
            return
        place = self._places.get(configuration_key(configuration))
        if place is not None and self._left[place]:
            self._left[place] = False
            self._count -= 1

    def nearest(self, wanted: Configuration, tried_too: bool = False) -> Configuration | None:
        """The nearest one that is left (or, ``tried_too``, of all); ``None`` if there is none."""
        places = np.arange(len(self._every)) if tried_too else np.flatnonzero(self._left)
        if not len(places):
            return None
        gaps = self._encoded[places] - self._encoder.encode([wanted])
        return self._every[int(places[np.argmin((gaps**2).sum(axis=1))])]


def draw_value(parameter: Parameter, rng: np.random.Generator) -> Scalar:
    """One value of a parameter: uniform over its levels, or over its range (log-uniform if it
    says so)."""
    if parameter.choices:
        return parameter.choices[int(rng.integers(len(parameter.choices)))]
    bottom, top = parameter.bounds
    low, high = float(bottom), float(top)
    if parameter.step and not parameter.log:
        steps = math.floor((high - low) / parameter.step + 1e-9)
        value = low + parameter.step * int(rng.integers(steps + 1))
    elif parameter.kind == "int":
        # Half a unit more on each side, so that both ends are as likely as their neighbours.
        low, high = low - 0.5, high + 0.5
        if parameter.log:
            value = math.exp(rng.uniform(math.log(max(low, 0.5)), math.log(high)))
        else:
            value = rng.uniform(low, high)
        value = min(max(round(value), bottom), top)
    elif parameter.log:
        value = math.exp(rng.uniform(math.log(low), math.log(high)))
    else:
        value = rng.uniform(low, high)
    return round(value) if parameter.kind == "int" else float(value)


def draw(
    space: Space,
    rng: np.random.Generator,
    accept: Callable[[Configuration], bool] = lambda configuration: True,
) -> Configuration | None:
    """A valid configuration drawn parameter by parameter that ``accept`` takes; ``None`` after
    10,000 vain draws."""
    for _ in range(_DRAWS):
        configuration: dict[str, Scalar] = {}
        for parameter in space.parameters:
            if space.active(configuration, parameter):
                configuration[parameter.name] = draw_value(parameter, rng)
        if space.is_valid(configuration) and accept(configuration):
            return configuration
    return None
