"""Which options matter most: three estimates that rest on different ideas, and their agreement.

- ``ped_anova``: what sets the best tenth of trials apart from the rest (Watanabe et al. 2023,
  Optuna's evaluator); knows conditional options.
- ``fanova``: share of the variance of a random forest that each option explains alone (Hutter et
  al. 2014, Optuna's evaluator).
- ``permutation``: how much a random forest's prediction of held-out rows loses when the option is
  shuffled (Breiman 2001, scikit-learn).

An option that matters near the optimum only, or through interactions only, ranks differently in
the three; where they agree the ranking can be trusted. Forests learn the response's logarithm where all
values are positive: otherwise a few overloaded configurations are all that they explain.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from tuner.analysis.options import INACTIVE, Codes, Option, codes
from tuner.analysis.scale import logs
from tuner.errors import TableError

Floats = NDArray[np.float64]

MINIMUM_ROWS = 10
ROWS_AN_OPTION = 3
"""With fewer rows an option than this, a forest's importances rank noise."""
_MOST_ROWS = 1000  # beyond this fANOVA takes minutes and changes in the third digit


def importance_table(
    table: pd.DataFrame, options: Sequence[Option], response: ArrayLike, *, seed: int = 0
) -> pd.DataFrame:
    """Importance of every option by each estimate, most important first.

    Indexed by option; one column for each of ``ped_anova``, ``fanova``, ``permutation``, each
    normalised to sum 1 (all zero where the estimate sees no influence), and ``mean`` of the three.
    ``response`` (n,) is minimised and finite; raises TableError for fewer than 10 rows.
    """
    y, _ = logs(response)
    if len(y) < MINIMUM_ROWS:
        raise TableError(f"importance needs at least {MINIMUM_ROWS} valid rows, there are {len(y)}")
    coded = codes(table, options)
    estimates: dict[str, Callable[[Codes, Sequence[Option], Floats, int], Floats]] = {
        "ped_anova": ped_anova,
        "fanova": fanova,
        "permutation": permutation,
    }
    shares = {
        name: _shares(estimate(coded, options, y, seed)) for name, estimate in estimates.items()
    }
    result = pd.DataFrame(shares, index=[option.name for option in options])
    result["mean"] = result.mean(axis=1)
    return result.sort_values("mean", ascending=False, kind="stable")


def agreement_table(importance: pd.DataFrame) -> pd.DataFrame:
    """Kendall and Spearman rank correlation of each two estimates of ``importance_table``.

    NaN where an estimate ranks nothing (all options equal).
    """
    from scipy.stats import kendalltau, spearmanr

    rows = []
    for one, other in combinations([c for c in importance.columns if c != "mean"], 2):
        a, b = importance[one].to_numpy(), importance[other].to_numpy()
        told = len(a) > 1 and np.ptp(a) > 0 and np.ptp(b) > 0
        rows.append(
            {
                "one": one,
                "other": other,
                "kendall": float(kendalltau(a, b).statistic) if told else np.nan,
                "spearman": float(spearmanr(a, b).statistic) if told else np.nan,
            }
        )
    return pd.DataFrame(rows)


def _shares(values: Floats) -> Floats:
    kept = np.clip(np.nan_to_num(values), 0.0, None)
    return kept / kept.sum() if kept.sum() > 0 else kept


def ped_anova(coded: Codes, options: Sequence[Option], y: Floats, seed: int = 0) -> Floats:
    """PED-ANOVA importance of reaching the best tenth, shape (options,); ``seed`` is unused."""
    from optuna.importance import PedAnovaImportanceEvaluator

    return _optuna(PedAnovaImportanceEvaluator(), coded, options, y, conditional=True)


def fanova(coded: Codes, options: Sequence[Option], y: Floats, seed: int = 0) -> Floats:
    """Main-effect share of a random forest's variance, shape (options,).

    An inactive option counts as a level of its own. Above 1000 rows a seeded sample is used.
    """
    from optuna.importance import FanovaImportanceEvaluator

    if len(y) > _MOST_ROWS:
        rows = np.random.default_rng(seed).choice(len(y), _MOST_ROWS, replace=False)
        coded, y = coded[rows], y[rows]
    return _optuna(FanovaImportanceEvaluator(seed=seed), coded, options, y, conditional=False)


def _optuna(
    evaluator: Any, coded: Codes, options: Sequence[Option], y: Floats, *, conditional: bool
) -> Floats:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    distributions: dict[str, optuna.distributions.BaseDistribution] = {}
    for place, option in enumerate(options):
        held = np.unique(coded[:, place])
        if len(held[held != INACTIVE] if conditional else held) < 2:
            continue  # Optuna has no importance for an option of one level
        if option.kind == "ordered" and (conditional or INACTIVE not in held):
            distributions[option.name] = optuna.distributions.IntDistribution(
                0, len(option.levels) - 1
            )
        else:
            choices = [int(code) for code in held if not (conditional and code == INACTIVE)]
            distributions[option.name] = optuna.distributions.CategoricalDistribution(choices)
    if not distributions or not np.ptp(y) > 0:
        return np.zeros(len(options))
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler())
    names = [option.name for option in options]
    trials = []
    for row, value in zip(coded.tolist(), y.tolist()):
        held_here = {
            name: code
            for name, code in zip(names, row)
            if name in distributions and not (conditional and code == INACTIVE)
        }
        trials.append(
            optuna.trial.create_trial(
                params=held_here,
                distributions={name: distributions[name] for name in held_here},
                value=value,
            )
        )
    study.add_trials(trials)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # experimental, and quantiles of small studies
        found = optuna.importance.get_param_importances(
            study, evaluator=evaluator, params=list(distributions), normalize=False
        )
    return np.array([found.get(name, 0.0) for name in names])


def permutation(coded: Codes, options: Sequence[Option], y: Floats, seed: int = 0) -> Floats:
    """Loss of R² on a held-out third when an option is shuffled, shape (options,), 10 times."""
    from sklearn.ensemble import RandomForestRegressor
    from sklearn.inspection import permutation_importance
    from sklearn.model_selection import train_test_split

    x_train, x_test, y_train, y_test = train_test_split(
        coded, y, test_size=1 / 3, random_state=seed
    )
    if not np.ptp(y_train) > 0 or not np.ptp(y_test) > 0:
        return np.zeros(len(options))
    forest = RandomForestRegressor(100, random_state=seed).fit(x_train, y_train)
    found = permutation_importance(forest, x_test, y_test, n_repeats=10, random_state=seed)
    return np.asarray(found.importances_mean, dtype=float)


def partial_dependence(
    table: pd.DataFrame, options: Sequence[Option], response: ArrayLike, *, seed: int = 0
) -> pd.DataFrame:
    """Response that a random forest predicts when one option is set to each of its levels.

    Columns ``option``, ``level``, ``mean`` and ``low``, ``high``: mean and central 80 % of the
    predictions over all rows where the option is active (Friedman 2001; the spread is that of
    individual conditional expectations), in the response's unit.
    """
    from sklearn.ensemble import RandomForestRegressor

    (y, back), coded = logs(response), codes(table, options)
    forest = RandomForestRegressor(100, random_state=seed).fit(coded, y)
    rows = []
    for place, option in enumerate(options):
        active = coded[coded[:, place] != INACTIVE]
        if not len(active):
            continue
        for code, level in enumerate(option.levels):
            changed = active.copy()
            changed[:, place] = code
            predicted = back(forest.predict(changed))
            low, high = np.quantile(predicted, [0.1, 0.9])
            rows.append((option.name, level, float(predicted.mean()), float(low), float(high)))
    return pd.DataFrame(rows, columns=["option", "level", "mean", "low", "high"])
