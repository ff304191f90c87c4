"""The averaged Gaussian process: sure of what the trials tell, and of no more."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm

from tuner.propose.averaged import LOG_SCALE, AveragedSurrogate


def grid(rng: np.random.Generator, rows: int, columns: int = 4) -> np.ndarray:
    return rng.integers(0, 5, (rows, columns)) / 4


def test_its_deviations_cover_what_it_does_not_know():
    inside, rng = [], np.random.default_rng(0)
    for _ in range(6):
        X, new = grid(rng, 8), grid(rng, 100)
        slopes = rng.normal(0.0, 0.5, 4)
        mean, deviation = AveragedSurrogate(rng, LOG_SCALE).fit(X, X @ slopes).predict(new)
        inside.append(np.mean(np.abs(new @ slopes - mean) < 2 * deviation))
    assert 0.8 < np.mean(inside) <= 1.0


def test_main_effects_are_learnt_from_few_trials():
    rng = np.random.default_rng(1)
    X, new, slopes = grid(rng, 15), grid(rng, 100), np.array([1.0, -0.7, 0.3, 0.0])
    mean, _ = AveragedSurrogate(rng, LOG_SCALE).fit(X, X @ slopes).predict(new)
    assert np.corrcoef(mean, new @ slopes)[0, 1] > 0.95


def test_one_trial_is_enough_to_fit_and_equal_responses_do_not_break_it():
    rng = np.random.default_rng(2)
    for rows in (1, 6):
        X = grid(rng, rows)
        mean, deviation = AveragedSurrogate(rng, LOG_SCALE).fit(X, np.full(rows, 7.0)).predict(X)
        assert np.allclose(mean, 7.0, atol=0.1)
        assert (deviation > 0).all() and np.isfinite(deviation).all()


def test_a_knob_may_do_the_opposite_in_another_branch():
    """Two of twelve trials are of the other branch, where the second column works backwards: log
    density of what its other configurations show."""
    density = {}
    for deciding in ((), [[0]]):
        reached = []
        for seed in range(16):
            rng, own = np.random.default_rng(seed), np.random.default_rng(seed + 100)
            X, new = grid(rng, 12), grid(rng, 100)
            X[:, 0], new[:, 0] = np.arange(12) < 10, 0.0
            model = AveragedSurrogate(own, LOG_SCALE, deciding=deciding).fit(X, told(X))
            mean, deviation = model.predict(new)
            reached.append(norm.logpdf(told(new), mean, deviation).mean())
        density[bool(deciding)] = np.mean(reached)
    assert density[True] > density[False] + 0.1


def told(X: np.ndarray) -> np.ndarray:
    return np.where(X[:, 0] > 0, 1.0, -1.0) * X[:, 1] + 0.5 * X[:, 2]


def test_an_effect_seen_in_one_branch_is_not_taken_for_granted_in_the_other():
    X = np.array([[b, x, x] for b in (0.0, 1.0) for x in (0.0, 0.5, 1.0)])[:-2]
    there = np.array([[1.0, 1.0, 1.0]])
    sure, open_ = (
        AveragedSurrogate(np.random.default_rng(4), LOG_SCALE, deciding=d)
        .fit(X, X[:, 1] + X[:, 2]).predict(there)[1][0]
        for d in ((), [[0]])
    )
    assert open_ > 1.2 * sure


def test_a_shape_that_is_known_is_kept_and_foretells_more_than_a_dozen_trials_tell():
    """Both responses level off late in the first column and early in the second: log density of
    what the second shows elsewhere, with the first one's shape and without."""

    def bent(X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return 1 - (1 - X[:, 0]) ** 6, X[:, 1] ** 6

    def first(X: np.ndarray) -> np.ndarray:
        early, late = bent(X)
        return early - late

    def second(X: np.ndarray) -> np.ndarray:
        early, late = bent(X)
        return 0.7 * early + 0.9 * late

    density: dict[bool, list[float]] = {True: [], False: []}
    for seed in range(12):
        rng = np.random.default_rng(seed)
        source, X, new = grid(rng, 60), grid(rng, 8), grid(rng, 100)
        learnt = AveragedSurrogate(rng, LOG_SCALE).fit(source, first(source), sweeps=20)
        for shape in (learnt.shape, None):
            model = AveragedSurrogate(np.random.default_rng(seed), LOG_SCALE, shape=shape)
            mean, deviation = model.fit(X, second(X)).predict(new)
            density[shape is not None].append(norm.logpdf(second(new), mean, deviation).mean())
            if shape is not None:
                assert np.allclose(model.shape, shape)
    assert np.mean(density[True]) > np.mean(density[False]) + 0.2


def test_each_trial_is_predicted_from_the_others_as_if_it_had_not_been_there():
    rng = np.random.default_rng(5)
    X = grid(rng, 9)
    y = X @ np.array([0.8, -0.4, 0.2, 0.0]) + 0.05 * rng.standard_normal(9)
    model = AveragedSurrogate(rng, LOG_SCALE, centred=True).fit(X, y)
    means, deviations = model.left_out()
    for i in range(9):
        others = np.arange(9) != i
        mean, deviation = model.on(X[others], y[others]).predict(X[[i]])
        assert means[i] == pytest.approx(mean[0], abs=1e-6)
        # The scale is the one of all trials.
        assert deviations[i] == pytest.approx(deviation[0], rel=0.3)
