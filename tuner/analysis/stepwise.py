"""Stepwise linear regression with pairwise interactions, as MATLAB's ``stepwiselm`` does it.

Start from the constant. As long as some term would enter with an F-test below ``enter``, add the
one with the least p-value; when none would, take out the one with the greatest p-value above
``remove`` and try again; end when neither happens. Hierarchy is kept: an interaction enters only
when both parents are in, and a parent stays as long as an interaction of it does.

The search sweeps one matrix of cross products (Goodnight, "A tutorial on the SWEEP operator",
1979), so a step costs O(columns^2) whatever the number of rows; the coefficients are computed
afresh by least squares at the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import f as f_distribution

Floats = NDArray[np.float64]
Term = tuple[int, ...]
"""Indices of the factors of a term: ``()`` the intercept, ``(i,)`` a main effect, ``(i, j)`` an
interaction."""

_DEPENDENT = 1e-8  # share of a column's variance left below which it is a combination of others
_EXACT = 1e-13  # share of the response's variance left below which only rounding error remains


@dataclass(frozen=True)
class StepwiseModel:
    """A fitted model; ``terms[0]`` is the intercept, ``coefficients`` run parallel to ``terms``."""

    terms: tuple[Term, ...]
    coefficients: tuple[tuple[float, ...], ...]
    """A term of several columns (a categorical factor) has as many coefficients."""

    def predict(self, factors: Sequence[Floats]) -> Floats:
        """Predicted response, shape (n,), of the factors' columns, each of shape (n, columns)."""
        result = np.full(len(factors[0]), self.coefficients[0][0])
        for term, weights in zip(self.terms[1:], self.coefficients[1:]):
            result = result + _columns(factors, term) @ np.asarray(weights)
        return result


def fit_stepwise(
    factors: Sequence[Floats],
    response: ArrayLike,
    *,
    interactions: bool = True,
    enter: float = 0.05,
    remove: float = 0.10,
) -> StepwiseModel:
    """Fit the response (n,) on factors, each of shape (n, columns); see the module.

    A factor of several columns enters and leaves as a whole (F-test with as many degrees of
    freedom). Columns that are constant or depend linearly on the model never enter. P-values that
    underflow to zero are told apart by their F.
    """
    y = np.asarray(response, dtype=float)
    terms: list[Term] = [(i,) for i in range(len(factors))]
    if interactions:
        terms += list(combinations(range(len(factors)), 2))
    blocks = [_columns(factors, term) for term in terms]
    search = _Search(blocks, y)
    chosen: set[int] = set()
    place = {term: index for index, term in enumerate(terms)}

    def may_enter(index: int) -> bool:
        term = terms[index]
        return len(term) == 1 or all(place[(factor,)] in chosen for factor in term)

    def may_leave(index: int) -> bool:
        term = terms[index]
        return len(term) == 2 or not any(term[0] in terms[other] for other in chosen - {index})

    for _ in range(20 * len(terms)):
        best = search.best_entry([i for i in range(len(terms)) if i not in chosen and may_enter(i)])
        if best is not None and best[1] < enter:
            search.enter(best[0])
            chosen.add(best[0])
            continue
        worst = search.worst_member([i for i in sorted(chosen) if may_leave(i)])
        if worst is None or worst[1] <= remove:
            break
        search.leave(worst[0])
        chosen.discard(worst[0])
    order = sorted(chosen)
    matrix = np.column_stack([np.ones((len(y), 1)), *(blocks[i] for i in order)])
    weights = np.linalg.lstsq(matrix, y, rcond=None)[0]
    ends = np.cumsum([1, *(blocks[i].shape[1] for i in order)])
    split = np.split(weights, ends[:-1])
    return StepwiseModel(
        ((), *(terms[i] for i in order)), tuple(tuple(map(float, part)) for part in split)
    )


def added_by(
    mains: Sequence[Floats], candidates: Sequence[Floats], response: ArrayLike
) -> list[tuple[float, float]]:
    """What each candidate block adds to a linear model of all ``mains``: share of the response's
    variance (R² gained) and p-value of the F-test; (0, NaN) where it adds no column.
    """
    y = np.asarray(response, dtype=float)
    search = _Search([*mains, *candidates], y)
    for term in range(len(mains)):
        search.enter(term)
    found = []
    for term in range(len(mains), len(mains) + len(candidates)):
        best = search.best_entry([term])
        gain = float(search.gains([term], inside=False)[1][0]) if best else 0.0
        found.append((gain, best[1] if best else float("nan")))
    return found


def _columns(factors: Sequence[Floats], term: Term) -> Floats:
    first = factors[term[0]]
    if len(term) == 1:
        return first
    return (first[:, :, None] * factors[term[1]][:, None, :]).reshape(len(first), -1)


class _Search:
    """Cross products of all candidate columns and the response, swept as terms come and go."""

    def __init__(self, blocks: Sequence[Floats], y: Floats) -> None:
        matrix = np.column_stack([*blocks, y])
        matrix = matrix - matrix.mean(axis=0)
        norms = np.sqrt((matrix**2).sum(axis=0))
        scale = np.where(norms > 1e-12 * (1 + np.abs(matrix).max(axis=0)), norms, np.inf)
        matrix = matrix / scale  # a constant column becomes zero and never enters
        self.swept: Floats = matrix.T @ matrix
        ends = np.cumsum([block.shape[1] for block in blocks])
        self.groups = [np.arange(e - b.shape[1], e) for e, b in zip(ends, blocks)]
        self.single = np.array([len(group) == 1 for group in self.groups], dtype=bool)
        self.first = np.array([group[0] if len(group) else -1 for group in self.groups])
        self.rows = len(y)
        self.inside: set[int] = set()  # columns in the model

    @property
    def residual(self) -> float:
        """Share of the response's variance that the model leaves."""
        return float(self.swept[-1, -1])

    def best_entry(self, candidates: Sequence[int]) -> tuple[int, float] | None:
        """The candidate with the least p-value, and that p-value."""
        if self.residual <= _EXACT:
            return None
        index, gain, degrees = self.gains(candidates, inside=False)
        left = self.rows - 1 - len(self.inside) - degrees
        usable = (degrees > 0) & (left > 0)
        if not usable.any():
            return None
        index, gain = index[usable], gain[usable]
        degrees, left = degrees[usable], left[usable]
        ratio = (gain / degrees) / (np.maximum(self.residual - gain, 1e-300) / left)
        chance = f_distribution.sf(ratio, degrees, left)
        best = np.lexsort((-ratio, chance))[0]
        return int(index[best]), float(chance[best])

    def worst_member(self, candidates: Sequence[int]) -> tuple[int, float] | None:
        """The member with the greatest p-value, and that p-value."""
        index, gain, degrees = self.gains(candidates, inside=True)
        left = self.rows - 1 - len(self.inside)
        if not len(index) or left <= 0:
            return None
        ratio = (gain / degrees) / (max(self.residual, 1e-300) / left)
        chance = f_distribution.sf(ratio, degrees, left)
        worst = np.lexsort((ratio, -chance))[0]
        return int(index[worst]), float(chance[worst])

    def gains(
        self, candidates: Sequence[int], *, inside: bool
    ) -> tuple[NDArray[np.int64], Floats, NDArray[np.int64]]:
        """What each candidate adds to (or keeps of) the explained variance; its columns."""
        index = np.asarray(candidates, dtype=np.int64)
        gain, degrees = np.zeros(len(index)), np.zeros(len(index), dtype=np.int64)
        alone = self.single[index] if len(index) else np.zeros(0, dtype=bool)
        columns = self.first[index[alone]]
        pivot = np.abs(self.swept[columns, columns])
        usable = pivot > _DEPENDENT
        gain[alone] = np.where(usable, self.swept[columns, -1] ** 2 / np.where(usable, pivot, 1), 0)
        degrees[alone] = usable
        for place in np.flatnonzero(~alone):
            group = [c for c in self.groups[index[place]] if (c in self.inside) == inside]
            block = self.swept[np.ix_(group, group)]
            values, vectors = np.linalg.eigh(-block if inside else block)
            kept = values > _DEPENDENT
            projected = vectors[:, kept].T @ self.swept[group, -1]
            gain[place] = float((projected**2 / values[kept]).sum())
            degrees[place] = int(kept.sum())
        return index, gain, degrees

    def enter(self, term: int) -> None:
        for column in self.groups[term]:
            if self.swept[column, column] > _DEPENDENT:
                self._sweep(column)
                self.inside.add(int(column))

    def leave(self, term: int) -> None:
        for column in self.groups[term]:
            if column in self.inside:
                self._sweep(column)
                self.inside.discard(int(column))

    def _sweep(self, column: int) -> None:
        """The symmetric sweep; a second one on the same column undoes the first."""
        row = self.swept[column].copy()
        pivot = row[column]
        self.swept -= np.outer(row, row) / pivot
        self.swept[column] = self.swept[:, column] = row / abs(pivot)
        self.swept[column, column] = -1 / pivot
