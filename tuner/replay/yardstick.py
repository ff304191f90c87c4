"""How near a run came to a front: hypervolume, relative to all that is known."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tuner.analysis.pareto import hypervolume, non_dominated

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Yardstick:
    """Each objective scaled to [0, 1] over everything measured; reference point (1, …, 1)."""

    low: Floats
    span: Floats
    whole: float
    """Hypervolume of everything measured."""

    @classmethod
    def over(cls, measured: Floats) -> Yardstick:
        """Of measurements of shape (n, objectives), minimised; n > 0."""
        low, high = measured.min(axis=0), measured.max(axis=0)
        span = np.where(high > low, high - low, 1.0)
        return cls(low, span, hypervolume((measured - low) / span, np.ones(len(low))))

    def curve(self, values: Iterable[Sequence[float] | None]) -> Floats:
        """Relative hypervolume after each trial, shape (trials,); ``None`` is a trial without
        a result."""
        front, reached, reference = np.empty((0, len(self.low))), 0.0, np.ones(len(self.low))
        curve = []
        for value in values:
            if value is not None:
                front = np.vstack([front, (np.array(value) - self.low) / self.span])
                front = front[non_dominated(front)]
                reached = hypervolume(front, reference) / self.whole if self.whole > 0 else 1.0
            curve.append(reached)
        return np.array(curve)
