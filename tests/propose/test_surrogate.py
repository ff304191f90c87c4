"""The Gaussian process: gradients, calibration of the noise, and time."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.gaussian_process import GaussianProcessRegressor

from tuner.propose.surrogate import MainEffectsKernel, Surrogate


def test_the_kernels_gradient_agrees_with_differences():
    X = np.random.default_rng(0).random((12, 3))
    kernel = MainEffectsKernel(0.7, 0.4, np.array([0.5, 0.7, 2.0]))
    _, gradient = kernel(X, eval_gradient=True)
    for i in range(len(kernel.theta)):
        step = np.zeros(len(kernel.theta))
        step[i] = 1e-5
        above, below = (kernel.clone_with_theta(kernel.theta + s)(X) for s in (step, -step))
        assert np.abs((above - below) / 2e-5 - gradient[..., i]).max() < 1e-8


def test_main_effects_are_learnt_from_few_points():
    rng = np.random.default_rng(1)
    X = rng.integers(0, 2, size=(20, 8)).astype(float)
    new = rng.integers(0, 2, size=(200, 8)).astype(float)
    weights = np.array([3.0, -2.0, 1.0, 0, 0, 0, 0, 0])
    mean, _ = Surrogate(8).fit(X, X @ weights).predict(new)
    assert np.corrcoef(mean, new @ weights)[0, 1] > 0.95


def test_noise_is_told_apart_from_the_response():
    rng = np.random.default_rng(2)
    X = rng.random((60, 2))
    y = 5 * X[:, 0] + 0.5 * rng.standard_normal(60)
    assert Surrogate(2).fit(X, y).noise == pytest.approx(0.5, rel=0.5)


def test_equal_responses_do_not_break_the_fit():
    X = np.random.default_rng(3).random((5, 2))
    mean, deviation = Surrogate(2).fit(X, np.full(5, 7.0)).predict(X)
    assert np.allclose(mean, 7.0)
    assert np.isfinite(deviation).all()


def test_no_covariance_is_so_small_that_its_products_are_denormal():
    X = np.array([[0.0, 0.0], [1.0, 1.0]])
    K = MainEffectsKernel(length=np.full(2, 1e-3))(X)
    assert 0 < K[0, 1] < 1e-20 and K[0, 1] ** 2 > np.finfo(float).tiny


def test_each_trial_is_predicted_from_the_others_as_if_it_had_not_been_there():
    rng = np.random.default_rng(6)
    X = rng.random((12, 2))
    y = 40.0 + 5.0 * X[:, 0] + rng.standard_normal(12)
    model = Surrogate(2, scale=2.0).fit(X, y - 40.0)
    means, deviations = model.left_out()
    kernel = model._gp.kernel_
    for i in range(12):
        others = np.arange(12) != i
        same = GaussianProcessRegressor(kernel, alpha=1e-8, optimizer=None)
        same.fit(X[others], (y[others] - 40.0) / 2.0)
        mean, deviation = same.predict(X[[i]], return_std=True)
        assert means[i] == pytest.approx(2.0 * mean[0], abs=1e-4)
        assert deviations[i] == pytest.approx(2.0 * deviation[0], rel=1e-4)
    missed = y - 40.0 - means
    assert model.explained == pytest.approx(1.0 - np.mean(missed**2) / np.var(y))
