"""What a DNN pays for running another's choice of configuration, and how much of that is noise.

The lender chooses first, among all configurations valid for it; only then the borrower is asked,
for whom the choice may fail. A choice that fails has no regret: it is counted as a failure.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tuner.analysis.environments import Comparison, Environment, compare
from tuner.analysis.pareto import non_dominated
from tuner.analysis.resample import redrawn
from tuner.errors import TableError

Floats = NDArray[np.float64]

DRAWS = 1000
SURE = 0.95
"""Share of draws in which borrowing must cost more than a re-measurement to be beyond the noise."""


def borrowed_front(
    sources: Sequence[Environment], targets: Sequence[Environment]
) -> pd.DataFrame:
    """How the source's Pareto configurations do in the target; one row each.

    ``sources`` and ``targets`` hold one environment for each objective, in the same order; all
    objectives are minimised. The source's front is that of the configurations valid in it, among
    those that the target tried too; the target's, that of those valid in the target. Columns: the
    options; ``borrowed_fails`` (invalid in the target); ``on_target_front``; and for each objective
    ``<objective>`` (in the target, its unit; NaN where it fails), ``best_regret_pct`` and
    ``fair_regret_pct`` suffixed to its name: how many percent more than the target's least value,
    and than the least value among target configurations no worse in every other objective. Both
    are 0 where borrowing is free, and NaN where it fails.

    Raises:
        TableError: no configuration that both tried is valid in the source.
    """
    pairs = [compare(source, target) for source, target in zip(sources, targets)]
    names = [environment.response for environment in sources]
    source, target = (np.column_stack([side(p, which) for p in pairs]) for which in (0, 1))
    if not np.isfinite(source).all(axis=1).any():
        raise TableError(
            f"{sources[0].label}: no configuration that {targets[0].label} tried too is valid"
        )
    target[~np.isfinite(target).all(axis=1)] = np.nan
    members, on_target = np.flatnonzero(non_dominated(source)), non_dominated(target)
    options = [option.name for option in pairs[0].options]
    rows = pairs[0].table[options].iloc[members].reset_index(drop=True)
    fails = np.isnan(target[members, 0])
    rows["borrowed_fails"], rows["on_target_front"] = fails, on_target[members]
    for place, name in enumerate(names):
        others = np.delete(target, place, axis=1)
        value = target[members, place]
        fair = np.full(len(members), np.nan)
        for at in np.flatnonzero(~fails):
            # NaN compares false, but a single objective has no other to compare.
            rivals = (others <= others[members[at]]).all(axis=1)
            fair[at] = np.nanmin(target[rivals, place])
        best = np.nan if np.isnan(target[:, place]).all() else np.nanmin(target[:, place])
        rows[name] = value
        rows[f"{name}_best_regret_pct"] = 100 * (value / best - 1)
        rows[f"{name}_fair_regret_pct"] = 100 * (value / fair - 1)
    return rows.sort_values(names[0], ignore_index=True)


def price_of_borrowing(
    source: Environment, target: Environment, *, draws: int = DRAWS, seed: int = 0
) -> dict[str, Any]:
    """What the target pays when it runs the source's best configuration for one response.

    Of the configurations that both tried. Keys:

    - ``configurations``: how many the source chooses among; ``borrowed_fails``: its choice is
      invalid in the target (``None`` where it has none to choose from);
    - ``regret_pct``: how many percent more than the target's own best, as measured; ``None`` where
      the choice fails;
    - ``median_configuration_regret_pct``: the same of the target's median configuration, which says
      whether borrowing beats guessing;
    - ``regret_median_pct``, ``regret_interval_pct``: median and central 95 % of the regret over
      draws in which both sides' values are redrawn within their intervals, and both choose anew;
      of the draws whose choice doesn't fail. The least of many noisy values is too good to be true,
      so this regret is above zero even of a configuration that is the best;
    - ``self_regret_pct``, ``self_regret_interval_pct``: the same for what the target itself would
      choose from a second measurement: what "borrowing from itself" seems to cost;
    - ``fails_share``: share of the draws whose choice fails in the target;
    - ``beyond_noise``: whether borrowing costs more than the self-regret of the same draw in at
      least 95 % of the draws, failures counted as costing more;
    - ``interval_unknown``: configurations, valid in both, whose error isn't known in one of them
      and therefore isn't counted. Where none is known, what rests on draws is ``None``.
    """
    shared = compare(source, target)
    a, b = side(shared, 0), side(shared, 1)
    lends = np.isfinite(a)
    told: dict[str, Any] = dict.fromkeys((
        "borrowed_fails", "regret_pct", "median_configuration_regret_pct", "regret_median_pct",
        "regret_interval_pct", "self_regret_pct", "self_regret_interval_pct", "fails_share",
        "beyond_noise", "interval_unknown",
    ))
    told["configurations"] = int(lends.sum())
    if not lends.any():
        return told
    choice, works = int(np.nanargmin(a)), np.isfinite(b)
    told["borrowed_fails"] = not works[choice]
    if not works.any():
        return told
    best = float(np.nanmin(b))
    told["median_configuration_regret_pct"] = 100 * (float(np.nanmedian(b)) / best - 1)
    if works[choice]:
        told["regret_pct"] = 100 * (float(b[choice]) / best - 1)
    bounds = [shared.source_bounds, shared.target_bounds]
    known = [np.isfinite(low) & np.isfinite(high) for low, high in bounds]
    both = lends & works
    if (known[0] | known[1])[both].any():
        told["interval_unknown"] = int((both & ~(known[0] & known[1])).sum())
        told.update(_redrawn_regret(a, b, bounds, draws, seed))
    return told


def _redrawn_regret(
    a: Floats, b: Floats, bounds: Sequence[tuple[Floats, Floats]], draws: int, seed: int
) -> dict[str, Any]:
    random = np.random.default_rng(seed)
    lender = redrawn(a, *bounds[0], draws=draws, random=random)
    truth, again = (redrawn(b, *bounds[1], draws=draws, random=random) for _ in range(2))
    rows, best = np.arange(draws), np.nanmin(truth, axis=1)
    regret = 100 * (truth[rows, np.nanargmin(lender, axis=1)] / best - 1)
    own = 100 * (truth[rows, np.nanargmin(again, axis=1)] / best - 1)
    fails = np.isnan(regret)
    told: dict[str, Any] = {
        "self_regret_pct": float(np.median(own)),
        "self_regret_interval_pct": np.quantile(own, [0.025, 0.975]).tolist(),
        "fails_share": float(fails.mean()),
        "beyond_noise": bool((fails | (regret > own)).mean() >= SURE),
    }
    if not fails.all():
        told["regret_median_pct"] = float(np.median(regret[~fails]))
        told["regret_interval_pct"] = np.quantile(regret[~fails], [0.025, 0.975]).tolist()
    return told


def common(source: Environment, target: Environment) -> int:
    """How many configurations are valid in both."""
    shared = compare(source, target)
    return int((np.isfinite(side(shared, 0)) & np.isfinite(side(shared, 1))).sum())


def side(shared: Comparison, which: int) -> Floats:
    """The response of the source (0) or target (1), NaN where it is invalid; (n,)."""
    values = (shared.source, shared.target)[which]
    flags = (shared.source_valid, shared.target_valid)[which]
    return values if flags is None else np.where(flags, values, np.nan)
