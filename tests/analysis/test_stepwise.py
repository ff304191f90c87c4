from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from scipy.stats import f

from tuner.analysis.stepwise import StepwiseModel, Term, _Search, fit_stepwise

Floats = np.ndarray


def columns(x: Floats) -> list[Floats]:
    return [x[:, i : i + 1] for i in range(x.shape[1])]


def naive_stepwise(x: Floats, y: Floats, enter: float, remove: float) -> set[Term]:
    """The same rules by refitting every candidate with least squares."""
    n, d = x.shape
    terms: list[Term] = [(i,) for i in range(d)] + list(combinations(range(d), 2))
    chosen: set[Term] = set()

    def residual(held: set[Term]) -> float:
        matrix = np.column_stack([np.ones(n), *(x[:, list(t)].prod(axis=1) for t in sorted(held))])
        return float(((y - matrix @ np.linalg.lstsq(matrix, y, rcond=None)[0]) ** 2).sum())

    def chance(small: set[Term], large: set[Term]) -> float:
        left = n - 1 - len(large)
        less, more = residual(large), residual(small)
        return float(f.sf((more - less) / (less / left), 1, left))

    while True:
        entering = {
            t: chance(chosen, chosen | {t})
            for t in terms
            if t not in chosen and (len(t) == 1 or {(t[0],), (t[1],)} <= chosen)
        }
        if entering and min(entering.values()) < enter:
            chosen.add(min(entering, key=lambda t: entering[t]))
            continue
        leaving = {
            t: chance(chosen - {t}, chosen)
            for t in chosen
            if len(t) == 2 or not any(t[0] in o for o in chosen if len(o) == 2)
        }
        if leaving and max(leaving.values()) > remove:
            chosen.discard(max(leaving, key=lambda t: leaving[t]))
            continue
        return chosen


@pytest.mark.parametrize("seed", range(12))
def test_the_swept_search_chooses_what_refitting_every_candidate_chooses(seed: int) -> None:
    random = np.random.default_rng(seed)
    x = random.integers(0, 2, (60, 5)).astype(float)
    x[:, 4] = np.where(random.random(60) < 0.8, x[:, 0], x[:, 4])  # correlated options
    y = 2 * x[:, 0] - x[:, 1] * x[:, 2] + random.normal(0, 1, 60)
    # Wide thresholds make terms come and go.
    found = fit_stepwise(columns(x), y, enter=0.15, remove=0.16)
    assert set(found.terms[1:]) == naive_stepwise(x, y, 0.15, 0.16)


def test_a_term_made_redundant_by_later_ones_is_taken_out_again() -> None:
    random = np.random.default_rng(3)
    a, b = random.normal(size=(2, 400))
    proxy = a + b + random.normal(0, 0.4, 400)  # alone the best, useless next to both
    y = a + b + random.normal(0, 0.1, 400)
    found = fit_stepwise(columns(np.column_stack([proxy, a, b])), y, interactions=False)
    assert found.terms == ((), (1,), (2,))


def test_an_interaction_waits_for_both_parents() -> None:
    x = np.array([[a, b] for a in (-1.0, 1.0) for b in (-1.0, 1.0)] * 50)
    y = x[:, 0] * x[:, 1] + np.random.default_rng(0).normal(0, 0.01, 200)
    assert (0, 1) not in fit_stepwise(columns(x), y).terms
    shifted = fit_stepwise(columns(x), (x + 2).prod(axis=1))  # the same, with main effects
    assert set(shifted.terms) == {(), (0,), (1,), (0, 1)}


def test_coefficients_are_those_of_least_squares() -> None:
    random = np.random.default_rng(1)
    x = random.integers(0, 2, (300, 3)).astype(float)
    y = 5 + 3 * x[:, 0] - 2 * x[:, 1] + x[:, 0] * x[:, 1] + random.normal(0, 0.01, 300)
    model = fit_stepwise(columns(x), y)
    assert model.terms[:4] == ((), (0,), (1,), (0, 1))
    assert [c[0] for c in model.coefficients[:4]] == pytest.approx([5, 3, -2, 1], abs=0.01)
    assert model.predict(columns(x)) == pytest.approx(y, abs=0.05)


def test_an_exact_relation_ends_the_search() -> None:
    x = np.random.default_rng(2).integers(0, 2, (200, 8)).astype(float)
    model = fit_stepwise(columns(x), 1 + 2 * x[:, 3])
    assert model.terms == ((), (3,))


def test_constant_and_repeated_columns_never_enter() -> None:
    random = np.random.default_rng(4)
    a = random.integers(0, 2, 100).astype(float)
    x = np.column_stack([a, a, np.ones(100)])
    model = fit_stepwise(columns(x), a + random.normal(0, 0.1, 100))
    assert model.terms in (((), (0,)), ((), (1,)))


def test_a_categorical_factor_enters_as_a_whole() -> None:
    random = np.random.default_rng(5)
    level = random.integers(0, 4, 400)
    dummies = (level[:, None] == [1, 2, 3]).astype(float)
    noise = random.normal(0, 0.1, (400, 1))
    model = fit_stepwise([dummies, noise], np.array([0.0, 1, 1, 5])[level] + noise[:, 0] * 0.01)
    assert model.terms[:2] == ((), (0,))
    assert model.coefficients[1] == pytest.approx((1, 1, 5), abs=0.01)


def test_a_factor_of_several_columns_is_tested_with_as_many_degrees_of_freedom() -> None:
    random = np.random.default_rng(6)
    dummies = (random.integers(0, 3, 50)[:, None] == [1, 2]).astype(float)
    y = dummies[:, 0] + random.normal(0, 1, 50)
    full = np.column_stack([np.ones(50), dummies])
    less = ((y - full @ np.linalg.lstsq(full, y, rcond=None)[0]) ** 2).sum()
    expected = f.sf(((y - y.mean()) @ (y - y.mean()) - less) / 2 / (less / 47), 2, 47)
    best = _Search([dummies], y).best_entry([0])
    assert best is not None and best[1] == pytest.approx(expected)


def test_sweeping_in_and_out_restores_the_search() -> None:
    random = np.random.default_rng(7)
    blocks = [random.normal(size=(30, c)) for c in (1, 2, 1)]
    search = _Search(blocks, random.normal(size=30))
    before = search.swept.copy()
    for term in (0, 1, 2):
        search.enter(term)
    for term in (1, 0, 2):
        search.leave(term)
    assert search.swept == pytest.approx(before, abs=1e-10)


def test_fewer_rows_than_terms_end_the_search() -> None:
    random = np.random.default_rng(8)
    model = fit_stepwise(columns(random.normal(size=(4, 9))), random.normal(size=4))
    assert isinstance(model, StepwiseModel) and len(model.terms) <= 4
