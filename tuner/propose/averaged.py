"""A Gaussian process averaged over its hyperparameters: what a dozen trials can't tell stays open.

With few trials the mode of the hyperparameters is one of many that explain the data; predictions
from it alone are far too sure. Here they are drawn from their posterior by elliptical slice
sampling (Murray, Adams & MacKay 2010), all chains at once, and the predictions are averaged.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_LENGTH = (np.log(2.0), 0.8)
"""Mean and deviation of the logarithm of a length scale; the unit cube has side 1."""
_MAIN = (0.0, 1.0)
_JOINT = (0.5, 1.5)
"""The same of the variance of main effects and of their interplay, relative to the scale's."""
_SHARE = 1.5
"""Deviation of the logarithm of a column's share in the main effects."""
_NOISE = (np.log(1e-2), 1.5)
"""As ``_MAIN``, of what knobs don't explain: measurement noise and quirks."""
_ELSEWHERE = 0.3
"""Share of a main effect's variance that holds in every branch of a conditional space alike: one
more thread may be of use without batching and a nuisance with it."""
_WARP = 0.7
"""Deviation of the logarithm of the exponent that bends a column towards one of its ends."""
_MEAN = 4.0
"""Variance of the constant, relative to the scale's."""
_JITTER = 1e-8
_DEGREES = 2.0
"""Trials that the prior scale counts for."""
LOG_SCALE = 0.5
"""Deviation to expect of a logarithm of performance: knobs change it by a factor of about 1.6."""
_DRAWN, _CHAINS, _SWEEPS, _SHRINKS = 192, 24, 6, 12


@dataclass(frozen=True)
class _Parts:
    """Hyperparameters of several chains: (chains, columns), or (chains,)."""

    length: Floats
    main: Floats
    joint: Floats
    noise: Floats
    exponent: Floats
    """Positive bends a column so that its low end is flat, negative its high end."""

    @property
    def variance(self) -> Floats:
        return self.main.sum(axis=1) + self.joint

    def warped(self, values: Floats, column: int) -> Floats:
        """One column's values in [0, 1], bent by each chain: (values,) -> (chains, values)."""
        signs = self.exponent[:, column, None]
        power = np.exp(np.abs(signs))
        return np.where(signs > 0, values**power, 1 - (1 - values) ** power)


class AveragedSurrogate:
    """One response as a mixture of Gaussian processes: main effects plus their interplay.

    ``k(x, z) = sum_i v_i m(|w(x_i) - w(z_i)| / l_i) + joint m(|(w(x) - w(z)) / l|)`` with Matérn
    5/2 ``m`` and a bend ``w`` of each column (input warping, Snoek et al. 2014). In another branch
    of a conditional space (without batching) a main effect may be another one: it has a part that
    all branches share and a part of each branch's own. The scale is integrated out, with ``scale``
    as the prior's guess.

    Args:
        rng: draws the hyperparameters.
        scale: deviation to expect of the responses.
        centred: whether the responses vary around zero instead of an unknown constant.
        deciding: the columns of each knob that tells branches apart (batching on or off).
        shape: length scales and bends of the columns that are known from elsewhere, as another
            surrogate's ``shape``; the rest of the hyperparameters is drawn.
    """

    def __init__(
        self,
        rng: np.random.Generator,
        scale: float,
        centred: bool = False,
        deciding: Sequence[Sequence[int]] = (),
        shape: Floats | None = None,
    ) -> None:
        self._rng, self._scale, self._constant = rng, scale, 0.0 if centred else _MEAN
        self._deciding, self._known = deciding, shape

    def fit(
        self, X: Floats, y: Floats, sweeps: int = _SWEEPS, errors: Floats | None = None
    ) -> AveragedSurrogate:
        """Learn from inputs of shape (n, columns), each in [0, 1], and responses of shape (n,).

        The more trials, the more ``sweeps`` it takes until the chains forget where they began.
        ``errors``, shape (n,), are deviations known of the responses, beside the noise that is
        learnt; predictions are of a trial without them.
        """
        self._given(X, y, errors)
        drawn = self._rng.standard_normal((_DRAWN, 3 * X.shape[1] + 3))
        self._hold(drawn)
        densities = self._density(drawn)[0]
        weights = np.exp(densities - densities.max())
        # Systematic resampling, then sweeps that move the chains apart.
        marks = (self._rng.random() + np.arange(_CHAINS)) / _CHAINS
        kept = np.searchsorted(np.cumsum(weights) / weights.sum(), marks).clip(0, _DRAWN - 1)
        chains, reached = drawn[kept], densities[kept]
        for _ in range(sweeps):
            self._sweep(chains, reached)
        return self._held(chains)

    @property
    def shape(self) -> Floats:
        """Coordinates of the columns' length scales and bends, averaged over the chains; shape
        (2 columns,). Zeros, in deviations of the prior, where nothing was learnt."""
        return np.asarray(self._chains[:, self._shaping].mean(axis=0))

    @property
    def _shaping(self) -> NDArray[np.int_]:
        columns = self._X.shape[1]
        return np.r_[:columns, 2 * columns : 3 * columns]

    def _hold(self, chains: Floats) -> None:
        if self._known is not None:
            chains[:, self._shaping] = self._known

    def on(self, X: Floats, y: Floats) -> AveragedSurrogate:
        """The hyperparameters learnt here, on other trials of the same knobs."""
        other = copy.copy(self)
        other._given(X, y)
        return other._held(self._chains)

    def _given(self, X: Floats, y: Floats, errors: Floats | None = None) -> None:
        self._X = X
        # The scale that is integrated out is not known here; its prior's guess stands for it.
        self._errors = None if errors is None else (errors / self._scale) ** 2
        self._offset = float(y.mean()) if self._constant else 0.0
        self._y = y - self._offset

    def _held(self, chains: Floats) -> AveragedSurrogate:
        self._chains = chains
        reached, self._fitted = self._density(chains)
        self.evidence = float(reached.mean())
        """Log density of the responses, up to a constant, averaged over the chains."""
        return self

    def predict(self, X: Floats) -> tuple[Floats, Floats]:
        """Mean and deviation of a trial at each row, noise included; each shape (n,).

        What a trial shows counts, quirks of the configuration included: with them left out, all
        neighbours of a good configuration look alike.
        """
        parts, factor, solved, _ = self._fitted
        cross = _kernel(parts, X, self._X, self._deciding) + self._constant
        means = np.einsum("snm,sm->sn", cross, solved)
        # (K^-1 k) by explicit inverse factors: the chains' matrices are small.
        inverse = np.linalg.inv(factor)
        explained = ((cross @ np.swapaxes(inverse, 1, 2)) ** 2).sum(axis=-1)
        prior = (parts.variance + parts.noise + self._constant)[:, None]
        return self._mixed(means, np.maximum(prior - explained, 1e-9))

    def left_out(self) -> tuple[Floats, Floats]:
        """Mean and deviation of each trial as the others predict it, noise included; each shape
        (n,). In closed form (Rasmussen & Williams 2006, 5.12), hyperparameters as learnt with it.
        """
        _, factor, solved, _ = self._fitted
        precision = (np.linalg.inv(factor) ** 2).sum(axis=1)
        return self._mixed(self._y - solved / precision, 1 / precision)

    def _mixed(self, means: Floats, relative: Floats) -> tuple[Floats, Floats]:
        """Mean and deviation over the chains, each shape (n,), of their means and of their
        variances relative to the scale's, each shape (chains, n)."""
        square = self._fitted[-1]
        scale = (_DEGREES * self._scale**2 + square) / (_DEGREES + len(self._y))
        mean = means.mean(axis=0)
        variance = (relative * scale[:, None] + means**2).mean(axis=0) - mean**2
        return mean + self._offset, np.sqrt(np.maximum(variance, 1e-12))

    def _density(self, chains: Floats) -> tuple[Floats, tuple[_Parts, Floats, Floats, Floats]]:
        """Log marginal density of each chain (its scale integrated out: a Student t), and the
        hyperparameters, Cholesky factor, solution and squared norm behind it."""
        parts, n = _unpacked(chains, self._X.shape[1]), len(self._y)
        covariance = _kernel(parts, self._X, self._X, self._deciding) + self._constant
        covariance += (parts.noise[:, None, None] + _JITTER) * np.eye(n)
        if self._errors is not None:
            covariance += np.diag(self._errors)
        factor = np.asarray(np.linalg.cholesky(covariance), np.float64)
        half = np.linalg.solve(factor, np.broadcast_to(self._y[:, None], (len(chains), n, 1)))
        solved = np.linalg.solve(np.swapaxes(factor, 1, 2), half)[..., 0]
        square = (half**2).sum(axis=(1, 2))
        logarithm = np.log(np.diagonal(factor, axis1=1, axis2=2)).sum(axis=1)
        spread = np.log(_DEGREES * self._scale**2 + square)
        return -logarithm - (_DEGREES + n) / 2 * spread, (parts, factor, solved, square)

    def _sweep(self, chains: Floats, reached: Floats) -> None:
        """One elliptical slice step of every chain, in place."""
        rng, count = self._rng, len(chains)
        other = rng.standard_normal(chains.shape)
        level = reached + np.log(rng.random(count))
        angle = rng.uniform(0.0, 2 * np.pi, count)
        low, high = angle - 2 * np.pi, angle.copy()
        open_ = np.arange(count)
        for _ in range(_SHRINKS):
            turned = np.cos(angle[open_, None]) * chains[open_]
            turned += np.sin(angle[open_, None]) * other[open_]
            self._hold(turned)
            densities = self._density(turned)[0]
            taken = densities > level[open_]
            chains[open_[taken]], reached[open_[taken]] = turned[taken], densities[taken]
            open_ = open_[~taken]
            if not len(open_):
                return
            below = open_[angle[open_] < 0]
            above = open_[angle[open_] >= 0]
            low[below], high[above] = angle[below], angle[above]
            angle[open_] = rng.uniform(low[open_], high[open_])


def expected_scale(y: Floats, logarithmic: bool, errors: Floats | None = None) -> float:
    """Deviation to expect of responses of shape (n,), in their unit: what they show, but of
    logarithms, of which few trials tell too little, what is usual. Where they are known to have
    ``errors``, shape (n,), responses that happen to agree may differ by as much."""
    shown = LOG_SCALE if logarithmic else float(np.std(y))
    return float(np.hypot(shown, 0.0 if errors is None else np.sqrt(np.mean(errors**2)))) or 1.0


def _unpacked(chains: Floats, columns: int) -> _Parts:
    """Standard normal coordinates, shape (chains, 3 columns + 3), as hyperparameters."""
    length, share, exponent = (chains[:, i * columns : (i + 1) * columns] for i in range(3))
    main, joint, noise = chains[:, 3 * columns :].T
    shares = np.exp(_SHARE * share)
    total = np.exp(_MAIN[0] + _MAIN[1] * main)[:, None]
    return _Parts(
        length=np.exp(_LENGTH[0] + _LENGTH[1] * length),
        main=total * shares / shares.sum(axis=1, keepdims=True),
        joint=np.exp(_JOINT[0] + _JOINT[1] * joint),
        noise=np.exp(_NOISE[0] + _NOISE[1] * noise),
        exponent=_WARP * exponent,
    )


def _kernel(parts: _Parts, X: Floats, Z: Floats, deciding: Sequence[Sequence[int]]) -> Floats:
    """Covariances of shape (chains, rows of X, rows of Z)."""
    shape = (len(parts.joint), len(X), len(Z))
    main, square = np.zeros(shape), np.zeros(shape)
    branches, between = _shared(X, Z, deciding), [c for columns in deciding for c in columns]
    for column in range(X.shape[1]):
        # Knobs have few levels: pairs of levels are computed, pairs of rows looked up.
        levels, place = np.unique(X[:, column], return_inverse=True)
        here, there = parts.warped(levels, column), parts.warped(Z[:, column], column)
        gaps = np.abs(here[:, :, None] - there[:, None, :]) / parts.length[:, column, None, None]
        effect = parts.main[:, column, None, None] * _matern(gaps)
        main += effect[:, place] if column in between else effect[:, place] * branches
        square += (gaps**2)[:, place]
    return main + parts.joint[:, None, None] * _matern(np.sqrt(square))


def _shared(X: Floats, Z: Floats, deciding: Sequence[Sequence[int]]) -> Floats:
    """Share of a main effect that two rows have in common, shape (rows of X, rows of Z): all of it
    in the same branch; of several deciding knobs, their mean."""
    if not deciding:
        return np.ones((1, 1))
    same = [(X[:, None, columns] == Z[None, :, columns]).all(axis=-1) for columns in deciding]
    return _ELSEWHERE + (1 - _ELSEWHERE) * np.mean(same, axis=0)


def _matern(distance: Floats) -> Floats:
    scaled = np.sqrt(5.0) * distance
    return (1.0 + scaled + scaled**2 / 3.0) * np.exp(-scaled)
