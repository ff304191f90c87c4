from __future__ import annotations

import numpy as np
import pytest

from tuner.analysis.logistic import fit_logistic


def test_coefficients_agree_with_an_independent_fit() -> None:
    from sklearn.linear_model import LogisticRegression

    random = np.random.default_rng(0)
    x = random.integers(0, 2, (500, 4)).astype(float)
    y = random.random(500) < 1 / (1 + np.exp(-(0.5 - 2 * x[:, 0] + x[:, 1])))
    model = LogisticRegression(C=np.inf, tol=1e-10, max_iter=5000).fit(x, y)
    expected = [*model.intercept_, *model.coef_[0]]
    assert fit_logistic(x, y) == pytest.approx(expected, abs=1e-4)


def test_without_options_the_intercept_is_the_log_odds() -> None:
    outcome = np.array([True] * 3 + [False])
    assert fit_logistic(np.zeros((4, 0)), outcome) == pytest.approx([np.log(3)], abs=1e-6)


def test_a_perfect_separation_ends_and_points_at_the_option() -> None:
    random = np.random.default_rng(1)
    x = random.integers(0, 2, (300, 5)).astype(float)
    weights = fit_logistic(x, x[:, 2] == 1)
    assert np.isfinite(weights).all()
    assert weights[3] > 10 and np.abs(weights[[1, 2, 4, 5]]).max() < 0.1 * weights[3]


def test_dependent_columns_share_their_coefficient() -> None:
    random = np.random.default_rng(2)
    a = random.integers(0, 2, 400).astype(float)
    y = random.random(400) < np.where(a == 1, 0.8, 0.3)
    alone, twice = fit_logistic(a[:, None], y), fit_logistic(np.column_stack([a, a]), y)
    assert twice[1:] == pytest.approx([alone[1] / 2] * 2, abs=1e-6)
