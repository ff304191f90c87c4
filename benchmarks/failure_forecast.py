"""How well a forecast of failures knows the configurations that it has not seen.

python benchmarks/failure_forecast.py --data studies

From random trials of each recorded study at high load, where most failures are overloads: log loss
and area under the curve of the probability to fail, on all other configurations, mean of the
repeats. ``process`` is what ``auto`` does, with several deviations of a failure's label; a coin's
log loss is 0.69.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import optuna
from numpy.typing import NDArray
from scipy.stats import norm
from sklearn.base import ClassifierMixin
from sklearn.ensemble import ExtraTreesClassifier
from sklearn.gaussian_process import GaussianProcessClassifier
from sklearn.gaussian_process.kernels import ConstantKernel, Matern
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss, roc_auc_score

from tuner.propose.averaged import AveragedSurrogate
from tuner.propose.encoding import Encoder
from tuner.replay import Table, read

Floats = NDArray[np.float64]
DEVIATIONS = (0.0, 0.2, 0.5)


def forecasts(
    X: Floats, failed: NDArray[np.bool_], new: Floats, deciding: list[list[int]], seed: int
) -> Iterator[tuple[str, Floats]]:
    """Name -> probability to fail at each new row, learnt from rows ``X``."""
    labels = np.where(failed, 1.0, -1.0)
    model = AveragedSurrogate(np.random.default_rng(seed), float(labels.std()), deciding=deciding)
    mean, deviation = model.fit(X, labels).predict(new)
    for of_label in DEVIATIONS:
        yield f"process {of_label:g}", norm.cdf(mean / np.hypot(deviation, of_label))
    others: dict[str, ClassifierMixin] = {
        "classification": GaussianProcessClassifier(ConstantKernel(4.0) * Matern(nu=2.5)),
        "extra trees": ExtraTreesClassifier(100, random_state=seed),
        "logistic": LogisticRegression(C=4.0),
    }
    for name, classifier in others.items():
        yield name, classifier.fit(X, failed).predict_proba(new)[:, 1]


def told(table: Table, trials: int, repeats: int) -> dict[str, tuple[float, float]]:
    """Name -> (log loss, area under the curve), means."""
    encoder = Encoder(table.space)
    X = encoder.encode(table.space.rows)
    failed = np.array([len(values) == 0 for values in table.values])
    found: dict[str, list[tuple[float, float]]] = {}
    for seed in range(repeats):
        rng = np.random.default_rng(seed)
        order = rng.permutation(len(X))
        while len(set(failed[order[:trials]])) < 2 or len(set(failed[order[trials:]])) < 2:
            order = rng.permutation(len(X))  # a forecast needs, and its judge too, one of each
        seen, new = order[:trials], order[trials:]
        learnt = forecasts(X[seen], failed[seen], X[new], encoder.deciding, seed)
        for name, probability in learnt:
            sure = np.clip(probability, 1e-6, 1 - 1e-6)
            judged = (log_loss(failed[new], sure), roc_auc_score(failed[new], sure))
            found.setdefault(name, []).append(judged)
    return {name: tuple(np.mean(rows, axis=0)) for name, rows in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--repeats", type=int, default=16)
    args = parser.parse_args()
    warnings.simplefilter("ignore")  # a length scale at its bound is no news
    print("log loss (area under the curve)")
    for file in sorted(args.data.glob("record-*.db")):
        for study in optuna.get_all_study_names(f"sqlite:///{file}"):
            if not study.endswith("load=high"):
                continue
            table = read(f"{file}:{study}")
            failing = sum(len(values) == 0 for values in table.values)
            for trials in (6, 12, 24):
                if not 2 * trials < len(table.values) or not 1 < failing < len(table.values) - 1:
                    print(f"{study}, {trials} trials: skipped, {failing} configurations fail")
                    continue
                rows = told(table, trials, args.repeats)
                cells = [f"{name} {loss:.2f} ({area:.2f})" for name, (loss, area) in rows.items()]
                print(f"{study}, {trials} trials:", ", ".join(cells), flush=True)


if __name__ == "__main__":
    main()
