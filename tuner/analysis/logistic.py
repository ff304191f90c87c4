"""Logistic regression by maximum likelihood, defined where the data separate too (metric M18)."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit

Floats = NDArray[np.float64]

_STEPS = 100
_SEPARATED = 1e-8  # deviance per row at which every row is as good as certain


def fit_logistic(design: ArrayLike, outcome: ArrayLike) -> Floats:
    """Coefficients of ``P(outcome) = expit(b0 + design b)``, intercept first, shape (1 + columns,).

    ``design`` has shape (n, columns), ``outcome`` (n,) is boolean. Iteratively reweighted least
    squares, minimum-norm where columns depend on each other. Where the options separate the
    outcome perfectly there is no maximum: the iteration ends once the fit is as good as certain,
    so the direction of the coefficients means something and their length does not.
    """
    x = np.asarray(design, dtype=float)
    x = np.column_stack([np.ones(len(x)), x])
    y = np.asarray(outcome, dtype=bool)
    weights = np.zeros(x.shape[1])
    deviance = _deviance(x, y, weights)
    for _ in range(_STEPS):
        chance = expit(x @ weights)
        spread = np.maximum(chance * (1 - chance), 1e-10)
        root = np.sqrt(spread)
        change = np.linalg.lstsq(x * root[:, None], (y - chance) / root, rcond=1e-10)[0]
        for _halving in range(30):
            reached = _deviance(x, y, weights + change)
            if reached <= deviance:
                break
            change = change / 2
        else:
            break
        weights = weights + change
        done = deviance - reached <= 1e-10 * (abs(reached) + 0.1)
        deviance = reached
        if done or deviance < _SEPARATED * len(y):
            break
    return weights


def _deviance(x: Floats, y: NDArray[np.bool_], weights: Floats) -> float:
    signed = np.where(y, 1.0, -1.0) * (x @ weights)
    return float(2 * np.logaddexp(0.0, -signed).sum())
