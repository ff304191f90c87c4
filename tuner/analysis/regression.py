"""Regression models of performance, and how many trials each needs before it predicts well."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from tuner.analysis.options import Option, codes, design
from tuner.analysis.repeats import ENOUGH_DEGREES
from tuner.analysis.scale import logs
from tuner.analysis.stepwise import fit_stepwise
from tuner.errors import TableError

Floats = NDArray[np.float64]

MINIMUM_ROWS = 20
GOOD_ERROR = 0.10
"""A model predicts well when its mean absolute percentage error is at most this."""
_MOST_TESTED = 1000
_MOST_FOR_PROCESS = 400  # a Gaussian process costs the cube of its rows


class _Estimator(Protocol):
    def fit(self, x: Floats, y: Floats) -> object: ...

    def predict(self, x: Floats) -> Floats: ...


class _Stepwise:
    """Stepwise regression behind the estimator interface; ``widths`` are columns per option."""

    def __init__(self, widths: Sequence[int]) -> None:
        self._cuts = np.cumsum(widths)[:-1]

    def fit(self, x: Floats, y: Floats) -> object:
        self._model = fit_stepwise(np.split(x, self._cuts, axis=1), y)
        return self

    def predict(self, x: Floats) -> Floats:
        return self._model.predict(np.split(x, self._cuts, axis=1))


def _tree(seed: int) -> _Estimator:
    from sklearn.tree import DecisionTreeRegressor

    return DecisionTreeRegressor(min_samples_split=10, random_state=seed)  # type: ignore[no-any-return]


def _forest(seed: int) -> _Estimator:
    from sklearn.ensemble import RandomForestRegressor

    return RandomForestRegressor(100, random_state=seed)  # type: ignore[no-any-return]


def _process(seed: int) -> _Estimator:
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

    kernel = ConstantKernel() * Matern(1.0, (0.05, 50), nu=2.5) + WhiteKernel(0.01, (1e-8, 1.0))
    return GaussianProcessRegressor(kernel, normalize_y=True, random_state=seed)  # type: ignore[no-any-return]


MODELS: Mapping[str, str] = {
    "stepwise": "stepwise linear regression with pairwise interactions",
    "tree": "regression tree",
    "forest": "random forest of 100 trees",
    "gaussian_process": "Gaussian process, Matern 5/2, one length scale, on at most 400 rows",
}


def _build(name: str, seed: int, widths: Sequence[int]) -> _Estimator:
    makers: Mapping[str, Callable[[], _Estimator]] = {
        "stepwise": lambda: _Stepwise(widths),
        "tree": lambda: _tree(seed),
        "forest": lambda: _forest(seed),
        "gaussian_process": lambda: _process(seed),
    }
    return makers[name]()


def features(table: pd.DataFrame, options: Sequence[Option]) -> tuple[Floats, list[int]]:
    """The columns that models learn from, (n, columns), and how many each option has.

    As ``options.design``, with a further 0/1 column for an option that is inactive in some rows.
    """
    blocks = []
    for block, code in zip(design(table, options), codes(table, options).T):
        inactive = code < 0
        blocks.append(np.column_stack([block, inactive]) if inactive.any() else block)
    return np.column_stack(blocks), [block.shape[1] for block in blocks]


def sample_sizes(rows: int) -> list[int]:
    """Training sizes of a learning curve: doubling from 10 up to four fifths of the rows."""
    most = int(0.8 * rows)
    sizes = [10 * 2**step for step in range(20) if 10 * 2**step < most]
    return [*sizes, most]


def learning_curve(
    table: pd.DataFrame,
    options: Sequence[Option],
    response: ArrayLike,
    *,
    models: Sequence[str] = tuple(MODELS),
    sizes: Sequence[int] | None = None,
    repeats: int = 5,
    seed: int = 0,
    log: bool = True,
) -> pd.DataFrame:
    """Cross-validated error of each model against the number of trials it learned from.

    Monte Carlo cross-validation: each repeat draws the training rows at random and tests on (at
    most 1000 of) the others, the same rows for every model. Columns ``model``, ``size``,
    ``mape`` (median over repeats of the mean absolute percentage error, as a share), ``mape_low``,
    ``mape_high`` (least and greatest repeat) and ``r2`` (median). With ``log`` the models learn the
    response's logarithm, their predictions are transformed back, and ``r2`` is that on the logarithm;
    otherwise a few overloaded configurations outweigh all others. Responses (n,) must be positive
    for a percentage to mean something: rows at or below zero raise TableError, as do fewer than
    20 rows.
    """
    y = np.asarray(response, dtype=float)
    if len(y) < MINIMUM_ROWS:
        raise TableError(f"a learning curve needs at least {MINIMUM_ROWS} rows, there are {len(y)}")
    if (y <= 0).any():
        raise TableError("percentage errors need positive responses; mark others --invalid '<=0'")
    x, widths = features(table, options)
    learned, back = logs(y, wanted=log)
    rows = []
    for size in sizes or sample_sizes(len(y)):
        scores: dict[str, list[tuple[float, float]]] = {name: [] for name in models}
        for repeat in range(repeats):
            order = np.random.default_rng([seed, repeat]).permutation(len(y))
            train, test = order[:size], order[size : size + _MOST_TESTED]
            for name in models:
                used = train[:_MOST_FOR_PROCESS] if name == "gaussian_process" else train
                model = _build(name, seed, widths)
                predicted = _fit_predict(model, x[used], learned[used], x[test])
                error = float(np.mean(np.abs(y[test] - back(predicted)) / y[test]))
                scores[name].append((error, _explained(learned[test], predicted)))
        for name in models:
            mape, r2 = zip(*scores[name])
            middle, fit = float(np.median(mape)), float(np.median(r2))
            rows.append((name, size, middle, min(mape), max(mape), fit))
    return pd.DataFrame(rows, columns=["model", "size", "mape", "mape_low", "mape_high", "r2"])


def _fit_predict(model: _Estimator, x: Floats, y: Floats, at: Floats) -> Floats:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a kernel parameter at its bound is no news
        model.fit(x, y)
        return model.predict(at)


def _explained(y: Floats, predicted: Floats) -> float:
    left, whole = float(((y - predicted) ** 2).sum()), float(((y - y.mean()) ** 2).sum())
    return 1 - left / whole if whole > 0 else float("nan")


def noise_floor(noise: Mapping[str, Any] | None) -> float | None:
    """Mean absolute percentage error, as a share, of a model that knew every configuration's mean.

    Of values measured once: the mean absolute deviation of a normal law, ``sqrt(2/π)`` of the
    standard deviation from trial to trial. ``None`` where the repeats (``noise.Noise`` as JSON)
    hold fewer than five degrees of freedom or the noise isn't relative.
    """
    if noise is None or not noise["relative"] or noise["degrees"] < ENOUGH_DEGREES:
        return None
    return float(noise["deviation"] * (2 / np.pi) ** 0.5)


def trials_needed(curve: pd.DataFrame, error: float = GOOD_ERROR) -> dict[str, int | None]:
    """Least tried size from which on each model's error stays at most ``error``; ``None``: never."""
    needed: dict[str, int | None] = {}
    for name, part in curve.groupby("model", sort=False):
        part = part.sort_values("size")
        stays = (part["mape"] <= error).to_numpy()[::-1].cumprod()[::-1].astype(bool)
        needed[str(name)] = int(part["size"].to_numpy()[stays][0]) if stays.any() else None
    return needed
