"""Which options matter, by paired t-tests on configurations that differ in one option (M6-M9)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.stats import t as t_distribution

from tuner.analysis.options import INACTIVE, Codes, Option, codes, configuration_ids

Floats = NDArray[np.float64]

ALPHA = 0.05


@dataclass(frozen=True)
class Contrast:
    """What raising one option from one level to another does, all else equal."""

    option: str
    low: str
    high: str
    pairs: int
    median_effect: float | None
    """Median of response(high) - response(low), in the response's unit; None without a pair."""
    p_value: float | None
    """Two-sided paired t-test; None with fewer than two pairs or differences all zero."""


@dataclass(frozen=True)
class Influence:
    """The influence of one option: one contrast, or one for each level but the default."""

    option: str
    kind: str
    contrasts: tuple[Contrast, ...]

    def significant(self, alpha: float = ALPHA) -> tuple[bool, ...]:
        """Which contrasts are below ``alpha``, divided by the number of contrasts."""
        bound = alpha / max(len(self.contrasts), 1)
        return tuple(c.p_value is not None and c.p_value < bound for c in self.contrasts)

    def influential(self, alpha: float = ALPHA) -> bool:
        return any(self.significant(alpha))


def influences(
    table: pd.DataFrame, options: Sequence[Option], response: ArrayLike
) -> tuple[Influence, ...]:
    """The influence of every option on a response (n,), all rows valid.

    For a boolean option, as in the paper: each configuration where it is off is paired with the
    first row that holds its exact one-bit flip, and a paired t-test asks whether the mean
    difference is zero. Beyond the paper: an ordered option pairs neighbouring levels, the
    differences of all neighbours in one test; a categorical option compares each level with the
    default, and is influential when one comparison is significant at alpha divided by their
    number. Where switching an option makes others inactive (a condition of the space), those are
    left out of "exact", and configurations that then agree are averaged.
    """
    y = np.asarray(response, dtype=float)
    coded = codes(table, options)
    return tuple(_influence(coded, place, option, y) for place, option in enumerate(options))


def _influence(coded: Codes, place: int, option: Option, y: Floats) -> Influence:
    if option.kind == "categorical":
        steps = [(0, level) for level in range(1, len(option.levels))]
    else:
        steps = list(pairwise(range(len(option.levels))))
    children = _children(coded, place)
    others = [i for i in range(coded.shape[1]) if i != place and i not in children]
    ids = configuration_ids(coded[:, others])
    found = [_differences(ids, coded[:, place], step, y, bool(children)) for step in steps]
    names = [str(level) for level in option.levels]
    if option.kind == "categorical":
        contrasts = [
            _contrast(option.name, names[low], names[high], part)
            for (low, high), part in zip(steps, found)
        ]
    else:
        together = np.concatenate(found) if found else np.zeros(0)
        ends = (names[0], names[-1]) if names else ("", "")
        contrasts = [_contrast(option.name, *ends, together)]
    return Influence(option.name, option.kind, tuple(contrasts))


def _children(coded: Codes, place: int) -> set[int]:
    """Options that are never active at some level of this one and sometimes at another."""
    own = coded[:, place]
    active = coded != INACTIVE
    shares = np.array([active[own == level].any(axis=0) for level in np.unique(own)])
    depends = shares.any(axis=0) & ~shares.all(axis=0)
    return {int(i) for i in np.flatnonzero(depends) if i != place}


def _differences(
    ids: Codes, own: Codes, step: tuple[int, int], y: Floats, average: bool
) -> Floats:
    low, high = (pd.Series(y[own == level], index=ids[own == level]) for level in step)
    if average:
        low, high = low.groupby(level=0).mean(), high.groupby(level=0).mean()
    else:
        high = high[~high.index.duplicated(keep="first")]
    matched = high.reindex(low.index).to_numpy() - low.to_numpy()
    return np.asarray(matched[~np.isnan(matched)])


def _contrast(option: str, low: str, high: str, differences: Floats) -> Contrast:
    if not len(differences):
        return Contrast(option, low, high, 0, None, None)
    chance: float | None = None
    if len(differences) >= 2 and differences.any():
        # A constant difference has no spread: the t statistic is infinite, as in MATLAB's ttest.
        chance = 0.0
        if np.ptp(differences) > 0:
            error = differences.std(ddof=1) / np.sqrt(len(differences))
            t = abs(float(differences.mean())) / error
            chance = float(2 * t_distribution.sf(t, len(differences) - 1))
    return Contrast(option, low, high, len(differences), float(np.median(differences)), chance)


def agreement(
    source: Sequence[Influence], target: Sequence[Influence], alpha: float = ALPHA
) -> tuple[int, int]:
    """Options influential in both environments whose median effects agree in sign (M8), and whose
    don't (M9).

    As in the published code, whatever is not the same sign counts as opposite, so that M8 + M9 is
    the number of options influential in both. A categorical option (beyond the paper) agrees when
    every level significant in both environments does, and there is one.
    """
    same = opposite = 0
    for one, other in zip(source, target):
        if not (one.influential(alpha) and other.influential(alpha)):
            continue
        signs = [
            np.sign(a.median_effect or 0.0) == np.sign(b.median_effect or 0.0)
            for a, b, in_one, in_other in zip(
                one.contrasts, other.contrasts, one.significant(alpha), other.significant(alpha)
            )
            if in_one and in_other
        ]
        agrees = bool(signs) and all(signs)
        same, opposite = same + agrees, opposite + (not agrees)
    return same, opposite
