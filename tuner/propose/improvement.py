"""How much a candidate may be expected to improve on what was found: EI, EHVI, ParEGO."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Belief:
    """What a surrogate believes of one objective at each candidate.

    ``mean`` and ``deviation`` have shape (n,) and describe the objective's logarithm where
    ``logarithmic``, else the objective itself.
    """

    mean: Floats
    deviation: Floats
    logarithmic: bool

    def gain(self, level: Floats) -> Floats:
        """E[max(level - Y, 0)], shape (n, levels): closed forms of the normal (as in expected
        improvement) and the log-normal distribution (as in option pricing)."""
        mean, deviation = self.mean[:, None], self.deviation[:, None]
        if not self.logarithmic:
            z = (level - mean) / deviation
            return deviation * (z * norm.cdf(z) + norm.pdf(z))
        with np.errstate(divide="ignore"):
            z = (np.log(np.maximum(level, 0.0)) - mean) / deviation
        return level * norm.cdf(z) - np.exp(mean + deviation**2 / 2) * norm.cdf(z - deviation)

    def centre(self) -> Floats:
        """The median, in the objective's own unit."""
        return np.exp(self.mean) if self.logarithmic else self.mean


def expected_improvement(belief: Belief, best: float) -> Floats:
    """Expected improvement on ``best``, shape (n,) (Jones et al. 1998)."""
    return belief.gain(np.array([best]))[:, 0]


def expected_hypervolume_improvement(
    beliefs: Sequence[Belief], front: Floats, reference: Floats
) -> Floats:
    """Exact expected hypervolume improvement for two independent objectives, shape (n,).

    The improvement is the area that a candidate dominates and ``front`` (shape (k, 2)) doesn't,
    below ``reference``. Cut at the front's first coordinates it is a sum of strips, and the
    expectation of each is a product of two one-dimensional gains (Emmerich et al. 2011).
    """
    stairs = _stairs(front, reference)
    right = beliefs[0].gain(np.r_[stairs[:, 0], reference[0]])
    widths = np.diff(right, axis=1, prepend=0.0)
    heights = beliefs[1].gain(np.r_[reference[1], stairs[:, 1]])
    return (widths * heights).sum(axis=1)


def _stairs(front: Floats, reference: Floats) -> Floats:
    """The front's points below the reference, by the first coordinate, the second falling."""
    inside = front[(front < reference).all(axis=1)]
    inside = inside[np.lexsort((inside[:, 1], inside[:, 0]))]
    return inside[inside[:, 1] < np.minimum.accumulate(np.r_[np.inf, inside[:, 1]])[:-1]]


def scalarised_improvement(
    beliefs: Sequence[Belief], found: Floats, rng: np.random.Generator, draws: int = 64
) -> Floats:
    """Expected improvement of an augmented Chebyshev scalarisation with random weights, shape
    (n,): for three and more objectives (ParEGO, Knowles 2006), by Monte Carlo.

    Before anything is ``found`` (shape (k, objectives)), the best that is expected counts as such.
    """
    if not len(found):
        found = np.column_stack([belief.centre() for belief in beliefs])
    low, high = found.min(axis=0), found.max(axis=0)
    span = np.where(high > low, high - low, 1.0)
    weights = rng.dirichlet(np.ones(len(beliefs)))

    def scalarise(values: Floats) -> Floats:
        weighted = weights * (values - low) / span
        return weighted.max(axis=-1) + 0.05 * weighted.sum(axis=-1)

    normal = rng.standard_normal((draws, 1, len(beliefs)))
    columns = [b.mean + b.deviation * normal[..., i] for i, b in enumerate(beliefs)]
    sampled = [np.exp(c) if b.logarithmic else c for b, c in zip(beliefs, columns)]
    values = scalarise(np.stack(sampled, axis=-1))
    return np.maximum(scalarise(found).min() - values, 0.0).mean(axis=0)
