"""Main effects of a screening design: least squares on its columns, errors from repeats, aliases.

A two-level design of few runs (Plackett & Burman 1946) tells main effects apart only under the
assumption that options don't interact: each effect is aliased with the interactions of others. What
is aliased with what follows from the rows that were measured, since failed runs leave holes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from tuner.analysis.options import INACTIVE, Option, codes, design
from tuner.analysis.scale import logs

Floats = NDArray[np.float64]

PARTIAL = 0.1
"""From this alias coefficient on, an interaction counts as mixed into a main effect."""
_ZERO = 1e-8


def main_effects(
    table: pd.DataFrame,
    options: Sequence[Option],
    response: ArrayLike,
    *,
    repeats: ArrayLike | None = None,
    noise: Mapping[str, Any] | None = None,
) -> pd.DataFrame:
    """What changing each option from its lowest to its highest level does, all else equal.

    Weighted least squares on an intercept and the options' columns (``options.design``), on the
    logarithm where every value is positive. One row a column: ``option``, ``low``, ``high`` (the
    levels); ``effect`` and ``effect_low``, ``effect_high`` (95 %): in percent of the response on the
    logarithm, else in its unit; ``p_value`` (two-sided t-test of no effect); ``aliased_with``: main
    effects that these rows cannot tell from it, a tuple (``effect`` is then NaN); ``interactions``:
    how many interactions of two other options are mixed into it by an alias coefficient of at least
    ``PARTIAL``, and ``largest_alias``, the largest such coefficient by size.

    ``attrs``: ``unit`` (``"%"`` or ``""``), ``error_from`` (``"repeats"``, ``"residuals"`` or
    ``None``: unknown, where intervals are NaN), ``degrees``, ``deviation`` of one trial (a share on
    the logarithm).

    Args:
        table, response: of the valid configurations, one row each; (n,) finite.
        repeats: trials behind each value, (n,); default one.
        noise: the metric's ``noise.Noise`` as JSON; without it the error is that of the residuals,
            which hold the interactions as well.
    """
    y, back = logs(response)
    on_logs = back is np.exp
    names, low, high, x = _columns(table, options)
    full = np.column_stack([np.ones(len(y)), x])
    weights = np.ones(len(y)) if repeats is None else np.clip(np.asarray(repeats, float), 1, None)
    inverse = np.linalg.pinv((full * weights[:, None]).T @ full, hermitian=True)
    coefficients = inverse @ (full.T @ (weights * y))
    left = y - full @ coefficients
    deviation, degrees, source = _error(left, weights, np.linalg.matrix_rank(full), noise, on_logs)
    errors = deviation * np.sqrt(np.diag(inverse).clip(min=0.0))[1:]
    aliases = [_aliases(full, place, names) for place in range(len(names))]
    effect = np.where([bool(a) for a in aliases], np.nan, coefficients[1:])
    quantile, chance = _student(effect, errors, degrees)
    mixed = _interactions(table, options, x, names)

    def scaled(values: Floats) -> Floats:
        return np.asarray(100 * np.expm1(values) if on_logs else values)

    found = pd.DataFrame({
        "option": names, "low": low, "high": high, "effect": scaled(effect),
        "effect_low": scaled(effect - quantile * errors),
        "effect_high": scaled(effect + quantile * errors), "p_value": chance,
        "aliased_with": pd.Series(aliases, dtype=object),
        "interactions": (np.abs(mixed) >= PARTIAL).sum(axis=1),
        "largest_alias": np.abs(mixed).max(axis=1, initial=0.0),
    })
    found.attrs.update(
        unit="%" if on_logs else "", error_from=source, degrees=degrees, deviation=deviation
    )
    return found


def _columns(
    table: pd.DataFrame, options: Sequence[Option]
) -> tuple[list[str], list[str], list[str], Floats]:
    """Names, lowest and highest level and values of the regression columns, (n, columns)."""
    names, low, high, blocks = [], [], [], []
    for option, block in zip(options, design(table, options)):
        levels = [str(level) for level in option.levels]
        several = block.shape[1] > 1
        for place in range(block.shape[1]):
            top = levels[place + 1] if option.kind == "categorical" else levels[-1]
            names.append(f"{option.name}={top}" if several else option.name)
            low.append(levels[0])
            high.append(top)
        blocks.append(block)
    return names, low, high, np.column_stack(blocks)


def _error(
    left: Floats, weights: Floats, rank: int, noise: Mapping[str, Any] | None, on_logs: bool
) -> tuple[float, int, str | None]:
    """Standard deviation of one trial, its degrees of freedom, and where it is from."""
    if noise is not None and bool(noise["relative"]) == on_logs and noise["degrees"] > 0:
        return float(noise["deviation"]), int(noise["degrees"]), "repeats"
    degrees = len(left) - int(rank)
    if degrees <= 0:
        return np.nan, 0, None
    return float((weights @ left**2 / degrees) ** 0.5), degrees, "residuals"


def _student(effect: Floats, errors: Floats, degrees: int) -> tuple[float, Floats]:
    from scipy.stats import t as t_distribution

    if not degrees:
        return np.nan, np.full(len(effect), np.nan)
    with np.errstate(divide="ignore", invalid="ignore"):
        statistic = np.abs(effect) / errors
    chance = 2 * t_distribution.sf(statistic, degrees)
    return float(t_distribution.ppf(0.975, degrees)), np.asarray(chance)


def _aliases(full: Floats, place: int, names: Sequence[str]) -> tuple[str, ...]:
    """The columns that a linear combination makes this one of; the mean is ``(mean)``."""
    column = full[:, place + 1]
    others = np.delete(full, place + 1, axis=1)
    share, *_ = np.linalg.lstsq(others, column, rcond=None)
    if np.abs(others @ share - column).max(initial=0.0) > _ZERO * max(1, len(column)):
        return ()
    told = ["(mean)", *np.delete(np.array(names, dtype=object), place)]
    return tuple(str(n) for n, held in zip(told, share) if abs(held) > 1e-6) or ("(mean)",)


def _interactions(
    table: pd.DataFrame, options: Sequence[Option], x: Floats, names: Sequence[str]
) -> Floats:
    """Alias coefficients of every main effect by interactions of two others, (columns, pairs).

    The alias matrix of Box & Draper: what a regression without interactions puts down to the main
    effects. Columns run from -1 to 1 (0 where an option is inactive); a pair that has the option
    itself in it counts 0.
    """
    coded = codes(table, options)
    owner = np.repeat(np.arange(len(options)), [b.shape[1] for b in design(table, options)])
    signs = np.where(coded[:, owner] == INACTIVE, 0.0, 2 * x - 1)
    pairs = [(i, j) for i, j in combinations(range(len(names)), 2) if owner[i] != owner[j]]
    if not pairs:
        return np.zeros((len(names), 0))
    products = np.column_stack([signs[:, i] * signs[:, j] for i, j in pairs])
    found = (np.linalg.pinv(np.column_stack([np.ones(len(signs)), signs])) @ products)[1:]
    own = np.array([[owner[k] in (owner[i], owner[j]) for i, j in pairs] for k in range(len(names))])
    return np.where(own, 0.0, found)
