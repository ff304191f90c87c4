"""Why one DNN's configuration does not suit another: options, correlations, costs of the DNNs.

Every comparison is between two studies on the configurations that both measured; objectives are
minimised. A study of energies by one source is never compared with one by another.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tuner.analysis.cart import tree_importance
from tuner.analysis.correlation import pearson, spearman
from tuner.analysis.environments import Environment, compare
from tuner.analysis.influence import Influence, influences
from tuner.analysis.options import codes, describe_options
from tuner.analysis.regret import SURE, side
from tuner.analysis.resample import redrawn

Floats = NDArray[np.float64]

DRAWS = 100
MINIMUM_DNNS = 4
_EXPLAINING = re.compile(r"flops|operations|bytes|batch_efficiency")
_COSTS = re.compile(r"flops|operations|parameters|bytes|batch_efficiency|ms_per_row\.1$")


def option_changes(
    source: Environment, target: Environment, *, draws: int = DRAWS, seed: int = 0
) -> pd.DataFrame:
    """Every option's effect and rank in both environments, and whether they change.

    Of the configurations valid in both; no rows where there are none. Columns ``option``,
    ``source_effect_pct``, ``target_effect_pct`` (median effect of raising the option, in percent of
    the median response; NaN without a pair, the largest by size for a categorical option),
    ``sign_changes`` (influential in both with opposite signs), ``source_rank``, ``target_rank``
    (1 = most important to a regression tree) and ``rank_changes`` (ranks that differ where the
    option is influential in one of the two). A change counts only when it stays, in the same
    direction, in 95 % of ``draws`` in which all values are redrawn within their intervals; where no
    interval is known, as measured.
    """
    shared = compare(source, target)
    sides = [side(shared, 0), side(shared, 1)]
    valid = np.isfinite(sides[0]) & np.isfinite(sides[1])
    table, values = shared.table.loc[valid], [held[valid] for held in sides]
    coded = codes(table, shared.options)
    found = [influences(table, shared.options, held) for held in values]
    effects = [_effects(told, held) for told, held in zip(found, values)]
    ranks = [_ranks(tree_importance(coded, held)) for held in values]
    influential = np.array([[told.influential() for told in one] for one in found], dtype=bool)
    with np.errstate(invalid="ignore"):
        signs = influential.all(axis=0) & (effects[0] * effects[1] < 0)
    moves = influential.any(axis=0) & (ranks[0] != ranks[1])
    random = np.random.default_rng(seed)
    again = [
        redrawn(held, *(bound[valid] for bound in bounds), draws=draws, random=random)
        for held, bounds in zip(values, (shared.source_bounds, shared.target_bounds))
    ]
    if signs.any():
        told = [np.array([_effects(influences(table, shared.options, y), y) for y in part])
                for part in again]
        signs &= _stays(told[0], np.sign(effects[0])) & _stays(told[1], np.sign(effects[1]))
    if moves.any():
        placed = [np.array([_ranks(tree_importance(coded, y)) for y in part]) for part in again]
        moves &= _stays(placed[0] - placed[1], np.sign(ranks[0] - ranks[1]))
    return pd.DataFrame({
        "option": [option.name for option in shared.options],
        "source_effect_pct": effects[0], "target_effect_pct": effects[1],
        "sign_changes": signs,
        "source_rank": ranks[0].astype(int), "target_rank": ranks[1].astype(int),
        "rank_changes": moves,
    }).iloc[: len(shared.options) if valid.any() else 0]


def _stays(drawn: Floats, sign: Floats) -> NDArray[np.bool_]:
    """Which columns of the draws, (draws, n), have this sign, (n,), nearly always."""
    return np.asarray((np.sign(drawn) == sign).mean(axis=0) >= SURE)


def _effects(found: Sequence[Influence], values: Floats) -> Floats:
    """The median effect of each option in percent of the median response, NaN without a pair."""
    largest = [
        max((c.median_effect or 0.0 for c in one.contrasts if c.pairs), key=abs, default=np.nan)
        for one in found
    ]
    middle = float(np.median(values)) if len(values) else np.nan
    return np.array(largest, dtype=float) / middle * 100


def _ranks(importance: Floats) -> Floats:
    from scipy.stats import rankdata

    return np.asarray(rankdata(-importance, method="min"))


def correlation_table(environments: Sequence[Environment]) -> pd.DataFrame:
    """Pearson and Spearman correlation of one response over every two environments.

    Columns ``one``, ``other``, ``configurations`` (valid in both), ``pearson``, ``spearman``;
    NaN where undefined. The environments are DNNs, workloads or load levels alike.
    """
    rows = []
    for place, one in enumerate(environments):
        for other in environments[place + 1 :]:
            shared = compare(one, other)
            a, b = side(shared, 0), side(shared, 1)
            valid = np.isfinite(a) & np.isfinite(b)
            rows.append((one.label, other.label, int(valid.sum()),
                         pearson(a[valid], b[valid]), spearman(a[valid], b[valid])))
    columns = ["one", "other", "configurations", "pearson", "spearman"]
    frame = pd.DataFrame(rows, columns=columns)
    return frame.astype({"pearson": float, "spearman": float})


def model_costs(environment: Mapping[str, Any]) -> dict[str, float]:
    """The numbers in an environment record that say what a DNN costs: operations, parameters,
    bytes, batch efficiency, milliseconds of a row alone; dotted path -> value, whatever record they stand in."""
    found: dict[str, float] = {}

    def walk(held: Any, path: str) -> None:
        if isinstance(held, Mapping):
            for key, value in held.items():
                walk(value, f"{path}.{key}" if path else str(key))
        elif isinstance(held, (int, float)) and not isinstance(held, bool) and _COSTS.search(path):
            found[path] = float(held)

    walk(environment, "")
    return found


def effect_costs(environments: Sequence[Environment]) -> pd.DataFrame:
    """Which option's effect goes with which cost of the DNN: operations, bytes, batch efficiency.

    Each environment tells the options' effects (as ``option_changes``, on its own valid rows); of
    several environments of one DNN the median counts. Columns ``option``, ``cost``, ``dnns`` (how
    many tell both) and ``spearman`` over them; NaN below four, where a rank correlation says
    nothing, and without spread.
    """
    told: dict[str, dict[str, list[float]]] = {}
    costs: dict[str, dict[str, float]] = {}
    for environment in environments:
        record = environment.table.attrs.get("environment") or {}
        name = str(record.get("model") or environment.label)
        costs[name] = {c: v for c, v in model_costs(record).items() if _EXPLAINING.search(c)}
        rows = environment.usable
        if not rows.any():
            continue
        table, values = environment.table[rows], environment.values[rows]
        options = describe_options(table, environment.options)
        found = _effects(influences(table, options, values), values)
        for option, effect in zip(environment.options, found):
            if np.isfinite(effect):
                told.setdefault(option, {}).setdefault(name, []).append(float(effect))
    relations = []
    for option, effects in told.items():
        for cost in dict.fromkeys(c for held in costs.values() for c in held):
            known = [name for name in effects if cost in costs[name]]
            relation = None
            if len(known) >= MINIMUM_DNNS:
                relation = spearman([costs[n][cost] for n in known],
                                    [float(np.median(effects[n])) for n in known])
            relations.append((option, cost, len(known), relation))
    frame = pd.DataFrame(relations, columns=["option", "cost", "dnns", "spearman"])
    return frame.astype({"spearman": float})


def cost_table(environments: Sequence[Environment]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Best response of each environment beside its DNN's costs, and their rank correlation.

    The first table is indexed by label: ``best`` and ``median`` response, and a column for each
    cost that some record holds. The second has ``cost``, ``environments``, and the Spearman
    correlation of that cost with ``best`` and ``median``; NaN below three environments, where a
    rank correlation says nothing.
    """
    rows = []
    for environment in environments:
        held = environment.values[environment.usable]
        costs = model_costs(environment.table.attrs.get("environment") or {})
        summary = {"best": np.nan, "median": np.nan}
        if len(held):
            summary = {"best": float(held.min()), "median": float(np.median(held))}
        rows.append({"label": environment.label, **summary, **costs})
    table = pd.DataFrame(rows).set_index("label")
    relations = []
    for cost in table.columns[2:]:
        known = table[table[cost].notna() & table["best"].notna()]
        told = [
            spearman(known[cost], known[summary]) if len(known) >= 3 else None
            for summary in ("best", "median")
        ]
        relations.append((cost, len(known), *told))
    columns = ["cost", "environments", "with_best", "with_median"]
    relation = pd.DataFrame(relations, columns=columns)
    return table, relation.astype({"with_best": float, "with_median": float})
