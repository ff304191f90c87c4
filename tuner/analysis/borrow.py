"""What it costs to run one DNN with the configuration that suits another, and why.

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
from tuner.analysis.environments import Comparison, Environment, compare
from tuner.analysis.influence import influences
from tuner.analysis.options import codes
from tuner.analysis.pareto import non_dominated
from tuner.errors import TableError

Floats = NDArray[np.float64]

_COSTS = re.compile(r"flops|operations|parameters|bytes|batch_efficiency|ms_per_row\.1$")


def borrowed_front(
    sources: Sequence[Environment], targets: Sequence[Environment]
) -> pd.DataFrame:
    """How the source's Pareto configurations do in the target; one row each.

    ``sources`` and ``targets`` hold one environment for each objective, in the same order. Fronts
    are those of the configurations valid in both studies. Columns: the options; ``on_target_front``;
    and for each objective ``<objective>`` (in the target, its unit), ``best_regret_pct`` and
    ``fair_regret_pct`` suffixed to its name: how many percent more than the target's least value,
    and than the least value among target configurations no worse in every other objective. Both
    are 0 where borrowing is free.
    """
    pairs = [compare(source, target) for source, target in zip(sources, targets)]
    shared = pairs[0]
    names = [environment.response for environment in sources]
    source, target = (np.column_stack([_side(p, side) for p in pairs]) for side in (0, 1))
    valid = np.isfinite(source).all(axis=1) & np.isfinite(target).all(axis=1)
    if not valid.any():
        raise TableError(
            f"{sources[0].label} and {targets[0].label} have no valid configuration in common"
        )
    table = shared.table.loc[valid].reset_index(drop=True)
    source, target = source[valid], target[valid]
    on_source, on_target = non_dominated(source), non_dominated(target)
    rows = table.loc[on_source, [option.name for option in shared.options]].copy()
    rows["on_target_front"] = on_target[on_source]
    for place, name in enumerate(names):
        others = np.delete(target, place, axis=1)
        value = target[on_source, place]
        fair = np.array(
            [
                target[(others <= others[row]).all(axis=1), place].min()
                for row in np.flatnonzero(on_source)
            ]
        )
        rows[name] = value
        rows[f"{name}_best_regret_pct"] = 100 * (value / target[:, place].min() - 1)
        rows[f"{name}_fair_regret_pct"] = 100 * (value / fair - 1)
    return rows.sort_values(names[0], ignore_index=True)


def price_of_borrowing(
    source: Environment, target: Environment
) -> dict[str, float | int | None]:
    """What the target pays when it runs the source's best configuration for one response.

    ``regret_pct``: how many percent more than the target's own best among the configurations
    valid in both; ``default_regret_pct``: the same for a configuration drawn at random (the
    median), which says whether borrowing beats guessing.
    """
    shared = compare(source, target)
    a, b = _side(shared, 0), _side(shared, 1)
    valid = np.isfinite(a) & np.isfinite(b)
    if not valid.any():
        return {"configurations": 0, "regret_pct": None, "default_regret_pct": None}
    a, b = a[valid], b[valid]
    best = float(b.min())
    return {
        "configurations": int(valid.sum()),
        "regret_pct": 100 * (float(b[np.argmin(a)]) / best - 1),
        "default_regret_pct": 100 * (float(np.median(b)) / best - 1),
    }


def option_changes(source: Environment, target: Environment) -> pd.DataFrame:
    """Every option's effect and rank in both environments, and whether they change.

    Columns ``option``, ``source_effect_pct``, ``target_effect_pct`` (median effect of raising the
    option, in percent of the median response; NaN without a pair, the largest by size for a
    categorical option), ``sign_changes`` (influential in both with opposite signs),
    ``source_rank``, ``target_rank`` (1 = most important to a regression tree) and ``rank_changes``
    (ranks that differ where the option is influential in one of the two).
    """
    shared = compare(source, target)
    a, b = _side(shared, 0), _side(shared, 1)
    valid = np.isfinite(a) & np.isfinite(b)
    table = shared.table.loc[valid]
    found = [influences(table, shared.options, values[valid]) for values in (a, b)]
    coded = codes(table, shared.options)
    ranks = [_ranks(tree_importance(coded, values[valid])) for values in (a, b)]
    rows = []
    for place, option in enumerate(shared.options):
        one, other = found[0][place], found[1][place]
        effects = [
            max((c.median_effect or 0.0 for c in side.contrasts if c.pairs), key=abs,
                default=np.nan) / np.median(values[valid]) * 100
            for side, values in ((one, a), (other, b))
        ]
        influential = one.influential(), other.influential()
        rank = int(ranks[0][place]), int(ranks[1][place])
        rows.append(
            {
                "option": option.name,
                "source_effect_pct": float(effects[0]),
                "target_effect_pct": float(effects[1]),
                "sign_changes": all(influential) and effects[0] * effects[1] < 0,
                "source_rank": rank[0],
                "target_rank": rank[1],
                "rank_changes": any(influential) and rank[0] != rank[1],
            }
        )
    return pd.DataFrame(rows)


def _ranks(importance: Floats) -> Floats:
    from scipy.stats import rankdata

    return np.asarray(rankdata(-importance, method="min"))


def _side(shared: Comparison, side: int) -> Floats:
    values = (shared.source, shared.target)[side]
    flags = (shared.source_valid, shared.target_valid)[side]
    return values if flags is None else np.where(flags, values, np.nan)


def correlation_table(environments: Sequence[Environment]) -> pd.DataFrame:
    """Pearson and Spearman correlation of one response over every two environments.

    Columns ``one``, ``other``, ``configurations`` (valid in both), ``pearson``, ``spearman``;
    NaN where undefined. The environments are DNNs, workloads or load levels alike.
    """
    rows = []
    for place, one in enumerate(environments):
        for other in environments[place + 1 :]:
            shared = compare(one, other)
            a, b = _side(shared, 0), _side(shared, 1)
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
