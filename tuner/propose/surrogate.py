"""A Gaussian process for performance of configurable systems: few points, many knobs, noise."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve_triangular
from scipy.optimize import minimize
from scipy.spatial.distance import cdist
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import Hyperparameter, Kernel, WhiteKernel

Floats = NDArray[np.float64]

LENGTH_PRIOR = (np.log(1.2), 0.8)
"""Mean and deviation of the logarithm of a length scale; the unit cube has side 1."""
MAIN_PRIOR = (1.5, 1.0)
JOINT_PRIOR = (-1.0, 1.0)
"""The same of the variance of main effects and of their interplay; targets have variance 1."""
NOISE_PRIOR = (np.log(1e-2), 1.0)
"""The same of the variance that knobs don't explain: measurement noise and quirks."""
_BOUNDS = (np.log(1e-6), np.log(1e3))
_JITTER = 1e-8
_STEPS = 40
_FITTED_ON = 100
"""Points that hyperparameters are fitted on; the predictions use all."""


class MainEffectsKernel(Kernel):
    """Main effects plus their interplay, both Matérn 5/2 with one length scale a column.

    ``k(x, z) = main * mean_i m(|x_i - z_i| / l_i) + joint * m(sqrt(sum_i (x_i - z_i)^2 / l_i^2))``

    The first term is additive in the knobs (Duvenaud et al. 2011), which is most of how
    performance depends on them and can be learnt from few trials; the second is what is left.
    """

    def __init__(self, main: float = 1.0, joint: float = 1.0, length: Any = 0.7) -> None:
        self.main, self.joint, self.length = main, joint, length

    @property
    def hyperparameter_main(self) -> Hyperparameter:
        return Hyperparameter("main", "numeric", np.exp(_BOUNDS))

    @property
    def hyperparameter_joint(self) -> Hyperparameter:
        return Hyperparameter("joint", "numeric", np.exp(_BOUNDS))

    @property
    def hyperparameter_length(self) -> Hyperparameter:
        return Hyperparameter("length", "numeric", np.exp(_BOUNDS), np.size(self.length))

    def __call__(self, X: Floats, Y: Floats | None = None, eval_gradient: bool = False) -> Any:
        other = X if Y is None else Y
        lengths = np.broadcast_to(self.length, X.shape[1])
        square = cdist(X / lengths, other / lengths, "sqeuclidean")
        distance = np.sqrt(square)
        joint = _matern(distance)
        if not eval_gradient:
            main = sum(_by_level(_matern, X, other, i, lengths[i]) for i in range(X.shape[1]))
            return self.main * main / X.shape[1] + self.joint * joint
        scaled = np.abs(X[:, None, :] - other[None, :, :]) / lengths
        main = _matern(scaled).mean(axis=-1)
        # d matern(r) / d log l_i = slope(r) * scaled_i^2, as slope(r) = -matern'(r) / r.
        by_length = self.joint * _slope(distance)[..., None] * scaled**2
        by_length += self.main * _slope(scaled) * scaled**2 / X.shape[1]
        # In the alphabetical order in which scikit-learn lays out theta.
        parts = [self.joint * joint[..., None], by_length, self.main * main[..., None]]
        return self.main * main + self.joint * joint, np.concatenate(parts, axis=-1)

    def diag(self, X: Floats) -> Floats:
        return np.full(len(X), self.main + self.joint)

    def is_stationary(self) -> bool:
        return True


def _by_level(
    function: Callable[[Floats], Floats], X: Floats, Y: Floats, column: int, length: float
) -> Floats:
    """A function of the scaled distance in one column. Knobs have few levels, so it is computed
    for pairs of levels and looked up for pairs of rows."""
    here, place = np.unique(X[:, column], return_inverse=True)
    there, other = np.unique(Y[:, column], return_inverse=True)
    table = function(np.abs(here[:, None] - there[None, :]) / length)
    return table[place][:, other]


_UNRELATED = 80.0
"""Beyond, a correlation (10^-32) is left as it is: products of smaller ones are denormal numbers,
with which some processors compute a hundred times slower."""


def _matern(distance: Floats) -> Floats:
    scaled = np.minimum(np.sqrt(5.0) * distance, _UNRELATED)
    return (1.0 + scaled + scaled**2 / 3.0) * np.exp(-scaled)


def _slope(distance: Floats) -> Floats:
    scaled = np.minimum(np.sqrt(5.0) * distance, _UNRELATED)
    return 5.0 / 3.0 * (1.0 + scaled) * np.exp(-scaled)


class Surrogate:
    """One response as a Gaussian process; hyperparameters at their posterior mode.

    Args:
        start: ``theta`` of an earlier fit to start from as well.
        scale: deviation to expect of the responses, with mean zero; measured where not given.
        steps: most steps of the fit.
    """

    def __init__(
        self,
        columns: int,
        start: Floats | None = None,
        scale: float | None = None,
        steps: int = _STEPS,
    ) -> None:
        kernel = MainEffectsKernel(length=np.full(columns, 0.7)) + WhiteKernel(
            1e-3, noise_level_bounds=tuple(np.exp(_BOUNDS))
        )
        priors = [JOINT_PRIOR, *[LENGTH_PRIOR] * columns, MAIN_PRIOR, NOISE_PRIOR]
        self._prior = np.array(priors).T
        self._start, self._given, self._steps = start, scale, steps
        self._gp = GaussianProcessRegressor(kernel, alpha=_JITTER, optimizer=self._optimise)

    def fit(self, X: Floats, y: Floats, errors: Floats | None = None) -> Surrogate:
        """Learn from inputs of shape (n, columns) and responses of shape (n,), whose deviations
        ``errors``, shape (n,), are known beside the noise that is learnt."""
        self._mean, self._scale = 0.0, self._given or 1.0
        if self._given is None:
            unsure = 0.0 if errors is None else np.sqrt(np.mean(errors**2))
            self._mean, self._scale = float(np.mean(y)), float(np.hypot(np.std(y), unsure)) or 1.0
        targets = (y - self._mean) / self._scale
        known = np.zeros(len(y)) if errors is None else (errors / self._scale) ** 2
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a length scale at its bound is no news
            if len(X) > _FITTED_ON:
                # The latest points lie where the search goes, the earliest everywhere.
                few = np.r_[: _FITTED_ON // 2, len(X) - _FITTED_ON // 2 : len(X)]
                self._gp.set_params(alpha=_JITTER + known[few]).fit(X[few], targets[few])
                self._gp.set_params(kernel=self._gp.kernel_, optimizer=None)
            self._gp.set_params(alpha=_JITTER + known).fit(X, targets)
        return self

    @property
    def theta(self) -> Floats:
        """Logarithms of the fitted hyperparameters."""
        return np.asarray(self._gp.kernel_.theta)

    @property
    def evidence(self) -> float:
        """Log density of the responses at the mode, up to a constant."""
        reached = self._gp.log_marginal_likelihood(self._gp.kernel_.theta)
        return float(reached) - len(self._gp.y_train_) * float(np.log(self._scale))

    @property
    def noise(self) -> float:
        """Deviation of what the knobs don't explain, in the response's unit."""
        return float(np.exp(self.theta[-1] / 2)) * self._scale

    @property
    def explained(self) -> float:
        """Share of the responses' variance that predicting each from all others explains."""
        y = self._gp.y_train_ * self._scale + self._mean
        missed = y - self.left_out()[0]
        return 1.0 - float(np.mean(missed**2) / (np.var(y) or 1.0))

    def left_out(self) -> tuple[Floats, Floats]:
        """Mean and deviation of each response as the others predict it, noise included; each
        shape (n,). In closed form (Rasmussen & Williams 2006, 5.12)."""
        gp = self._gp
        half = solve_triangular(gp.L_, np.eye(len(gp.L_)), lower=True, check_finite=False)
        precision = (half**2).sum(axis=0)
        mean = gp.y_train_ - np.ravel(gp.alpha_) / precision
        return mean * self._scale + self._mean, self._scale / np.sqrt(precision)

    def mean(self, X: Floats) -> Floats:
        """The mean of ``predict`` alone, which costs much less."""
        gp = self._gp
        return gp.kernel_.k1(X, gp.X_train_) @ gp.alpha_ * self._scale + self._mean

    def predict(self, X: Floats) -> tuple[Floats, Floats]:
        """Mean and deviation of the response at each row, noise left out; each shape (n,)."""
        gp = self._gp
        cross = gp.kernel_.k1(X, gp.X_train_)
        mean = cross @ gp.alpha_
        v = solve_triangular(gp.L_, cross.T, lower=True, check_finite=False)
        variance = np.maximum(gp.kernel_.k1.diag(X) - (v**2).sum(axis=0), 1e-10)
        return mean * self._scale + self._mean, np.sqrt(variance) * self._scale

    def _optimise(
        self, loss: Callable[..., Any], initial: Floats, bounds: Floats
    ) -> tuple[Floats, float]:
        means, spread = self._prior

        def posterior(theta: Floats) -> tuple[float, Floats]:
            value, gradient = loss(theta, eval_gradient=True)
            away = (theta - means) / spread
            return value + 0.5 * float(away @ away), gradient + away / spread

        starts = [means] if self._start is None else [self._start]
        results = [
            minimize(
                posterior,
                start,
                jac=True,
                method="L-BFGS-B",
                bounds=bounds,
                options={"maxiter": self._steps},
            )
            for start in starts
        ]
        best = min(results, key=lambda result: float(result.fun))
        return best.x, float(best.fun)
