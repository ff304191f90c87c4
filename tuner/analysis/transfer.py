"""What carries over from one environment to another: the metrics M1-M18 of the ASE 2017 paper.

Jamshidi, Siegmund, Velez, Kaestner, Patel, Agarwal, "Transfer Learning for Performance Modeling of
Configurable Systems: An Exploratory Analysis", ASE 2017. Source and target are responses of the
same configurations. Every metric but M15-M18 uses only configurations valid in both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from tuner.analysis.cart import tree_importance
from tuner.analysis.correlation import overlap, pearson, spearman
from tuner.analysis.density import kl_divergence, shape
from tuner.analysis.influence import ALPHA, Influence, agreement, influences
from tuner.analysis.logistic import fit_logistic
from tuner.analysis.options import Option, codes, design
from tuner.analysis.stepwise import StepwiseModel, fit_stepwise

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Metrics = dict[str, float | int | None]

MEANING: Mapping[str, str] = {
    "common": "configurations valid in both, on which M1 to M14 rest",
    "M1": "linear relation: Pearson correlation of the responses",
    "M2": "distribution: KL divergence of the kernel densities, in nats",
    "M3": "ranks: Spearman correlation of the responses",
    "M4": "share of the best configurations common to both",
    "M5": "share of the worst configurations common to both",
    "M6": "influential options in the source",
    "M7": "influential options in the target",
    "M8": "influential in both, effect of the same sign",
    "M9": "influential in both, effect of opposite sign",
    "M10_pearson": "importance of options by regression trees: Pearson correlation",
    "M10_spearman": "importance of options by regression trees: Spearman correlation",
    "M11": "terms of the source's stepwise model, intercept included",
    "M12": "terms of the target's stepwise model, intercept included",
    "M13": "terms common to both models",
    "M14": "Pearson correlation of the common terms' coefficients",
    "M15": "share of invalid configurations in the source",
    "M16": "share of invalid configurations in the target",
    "M17": "invalid configurations common to both: Jaccard index",
    "M18": "Pearson correlation of the coefficients of two logistic models of validity",
}
"""Key in JSON -> what it measures."""


@dataclass(frozen=True)
class Profile:
    """What the metrics need to know of one environment on a set of valid configurations."""

    density: Floats | None
    influences: tuple[Influence, ...]
    importance: Floats
    model: StepwiseModel | None


def profile(table: pd.DataFrame, options: Sequence[Option], response: Floats) -> Profile:
    """The profile of a response (n,) over the configurations of a table, all valid."""
    return Profile(
        shape(response),
        influences(table, options, response),
        tree_importance(codes(table, options), response),
        fit_stepwise(design(table, options), response) if len(response) else None,
    )


Profiles = dict[tuple[object, ...], Profile]


def transfer_metrics(
    table: pd.DataFrame,
    options: Sequence[Option],
    source: ArrayLike,
    target: ArrayLike,
    *,
    source_valid: ArrayLike | None = None,
    target_valid: ArrayLike | None = None,
    top: float = 0.10,
    alpha: float = ALPHA,
    profiles: Profiles | None = None,
) -> Metrics:
    """All metrics of one pair of environments, keyed as ``MEANING``; ``None`` where undefined.

    ``table`` holds the options of n configurations, ``source`` and ``target`` their responses
    (n,), less being better for M4 and M5. ``source_valid`` and ``target_valid`` say which
    configurations are valid, (n,); ``None`` means that nothing says so, which leaves M15-M18
    undefined. A response that is not finite is invalid either way. ``top`` is the share that M4
    and M5 look at. M17 is the Jaccard index: the published code divides a set by itself and
    always gives 1. How options that are not boolean are treated - which the paper leaves open -
    is said in ``influence.influences``, ``options.design`` and ``cart.tree_importance``.
    ``profiles`` remembers what was computed of an environment from one call to the next.
    """
    y = [np.asarray(values, dtype=float) for values in (source, target)]
    said = [
        None if flags is None else np.asarray(flags, dtype=bool)
        for flags in (source_valid, target_valid)
    ]
    valid = [
        np.isfinite(values) & (True if flags is None else flags) for values, flags in zip(y, said)
    ]
    both = valid[0] & valid[1]
    a, b = (values[both] for values in y)
    held = profiles if profiles is not None else {}
    one, other = (
        _remembered(held, table, options, both, values) for values in (a, b)
    )
    same, opposite = agreement(one.influences, other.influences, alpha)
    return {
        "common": int(both.sum()),
        "M1": pearson(a, b),
        "M2": kl_divergence(one.density, other.density),
        "M3": spearman(a, b),
        "M4": overlap(a, b, top),
        "M5": overlap(a, b, top, worst=True),
        "M6": sum(option.influential(alpha) for option in one.influences),
        "M7": sum(option.influential(alpha) for option in other.influences),
        "M8": same,
        "M9": opposite,
        "M10_pearson": pearson(one.importance, other.importance),
        "M10_spearman": spearman(one.importance, other.importance),
        **_models(one.model, other.model),
        **_validity(
            table, options, valid, [f is not None or not v.all() for f, v in zip(said, valid)]
        ),
    }


def _remembered(
    held: Profiles, table: pd.DataFrame, options: Sequence[Option], rows: Bools, response: Floats
) -> Profile:
    key = (id(table), tuple(options), rows.tobytes(), response.tobytes())
    if key not in held:
        held[key] = profile(table.loc[rows], options, response)
    return held[key]


def _models(source: StepwiseModel | None, target: StepwiseModel | None) -> Metrics:
    if source is None or target is None:
        return dict.fromkeys(("M11", "M12", "M13", "M14"))
    shared = [term for term in source.terms if term in target.terms]
    return {
        "M11": len(source.terms),
        "M12": len(target.terms),
        "M13": len(shared),
        "M14": pearson(_coefficients(source, shared), _coefficients(target, shared)),
    }


def _coefficients(model: StepwiseModel, terms: Sequence[tuple[int, ...]]) -> list[float]:
    held = dict(zip(model.terms, model.coefficients))
    return [value for term in terms for value in held[term]]


def _validity(
    table: pd.DataFrame, options: Sequence[Option], valid: Sequence[Bools], known: Sequence[bool]
) -> Metrics:
    result: Metrics = dict.fromkeys(("M15", "M16", "M17", "M18"))
    if not len(table):
        return result
    invalid = [~flags for flags in valid]
    if known[0]:
        result["M15"] = float(invalid[0].mean())
    if known[1]:
        result["M16"] = float(invalid[1].mean())
    either = int((invalid[0] | invalid[1]).sum())
    if all(known) and either:
        result["M17"] = int((invalid[0] & invalid[1]).sum()) / either
    if all(flags.any() and not flags.all() for flags in invalid):
        # An option with one level in the table says nothing about validity.
        columns = np.column_stack(design(table, options))
        columns = columns[:, np.ptp(columns, axis=0) > 0]
        result["M18"] = pearson(*(fit_logistic(columns, flags) for flags in invalid))
    return result
