"""What is known of each configuration from all of its measurements: the one place that says so.

Trials of a study, their repeats and what ``tuner measure`` found later are pooled
(``repeats.pool``), every limit gets its probability (``limits``), the front is marked
(``fronts``) and one configuration is chosen (``choice``). Tables, JSON, plots, exports and
``tuner measure`` print this and nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from tuner.analysis.again import with_later
from tuner.analysis.choice import choose, groups
from tuner.analysis.energy import refuse_mixed
from tuner.analysis.fronts import front_hypervolume, mark_front, worst_point
from tuner.analysis.limits import Limit, with_limits
from tuner.analysis.open_bounds import opened
from tuner.analysis.repeats import Sisters, pool
from tuner.analysis.tables import interval, numbers, require
from tuner.measurement import METRICS, configuration_key

MORE_LIKELY_THAN_NOT = 0.5


def front_of(
    trials: pd.DataFrame,
    objectives: Sequence[str],
    directions: Sequence[str],
    *,
    limits: Sequence[Limit] = (),
    defaults: Mapping[str, object] | None = None,
    sisters: Sisters | None = None,
    reference: Sequence[float] | None = None,
) -> pd.DataFrame:
    """One row a configuration, as ``repeats.pool``, ``limits.with_limits``, ``fronts.mark_front``.

    ``usable`` is what gave a measurement, more often than not, and whose values are within the
    study's constraints and the given limits. Further columns: ``measured``, ``choice`` (the chosen
    row) and ``group`` (members that intervals do not tell apart have one number, see
    ``choice.groups``). ``attrs`` holds also ``objectives`` and ``directions``, ``limits`` (texts:
    those given, then the study's constraints) and ``asked`` (the given ones), the ``hypervolume``
    with its ``reference``, ``choice`` (a ``Choice``), ``refuted`` (see ``refuted``) and ``counts``.

    Raises:
        StudyError: energies measured in several ways, which no front may hold together.
        TableError: a metric that the study does not hold.
    """
    own = [Limit.parse(text) for text in (trials.attrs.get("space") or {}).get("constraints") or ()]
    every = list(dict.fromkeys([*limits, *own]))
    require(trials, [*objectives, *(limit.metric for limit in limits)])
    every = [limit for limit in every if limit.metric in trials.columns]
    maximise = [o for o, d in zip(objectives, directions, strict=True) if d == "maximize"]

    def marked(rows: pd.DataFrame, draws: int) -> pd.DataFrame:
        table = with_limits(pool(rows, sisters), every)
        attrs, table.attrs = table.attrs, {}
        table["measured"] = table["valid"]
        refuse_mixed(_with(table, attrs), [*objectives, *(limit.metric for limit in limits)])
        kept = table["valid"].astype(bool) & table["feasible"].astype(bool)
        for limit in every:
            kept &= limit.keeps(numbers(table, limit.metric))
        table["valid"] = kept & (table["measured_share"] >= MORE_LIKELY_THAN_NOT)
        return _with(mark_front(table, objectives, maximise=maximise, draws=draws), attrs)

    found = marked(trials, 2000)
    chosen = choose(found, objectives, maximise, defaults or {})
    found["choice"] = np.arange(len(found)) == (-1 if chosen is None else chosen.row)
    found["group"] = groups(found, objectives, chosen.row if chosen else None)
    usable, volume = found[found["usable"]], None
    if len(usable):
        reference = reference or worst_point(usable, objectives, maximise=maximise)
        volume = front_hypervolume(usable, objectives, reference, maximise=maximise)
    found.attrs.update(
        objectives=list(objectives), directions=list(directions), hypervolume=volume,
        reference=reference, limits=[str(limit) for limit in every],
        asked=[str(limit) for limit in limits], choice=chosen, counts=counts(trials, found),
    )
    found.attrs["refuted"] = []
    if trials.attrs.get("measured_again"):
        before = trials.copy(deep=False)
        before.attrs = {**trials.attrs, "measured_again": []}
        found.attrs["refuted"] = refuted(found, marked(before, 1), every, trials)
    return found


def _with(table: pd.DataFrame, attrs: dict[Any, Any]) -> pd.DataFrame:
    table.attrs = dict(attrs)
    return table


def refuted(
    now: pd.DataFrame, before: pd.DataFrame, limits: Sequence[Limit], trials: pd.DataFrame
) -> list[dict[str, Any]]:
    """What later measurements changed: every configuration measured again, then and now.

    Each entry: ``trial``, ``left`` (it was on the front by the study's trials and no longer is),
    ``joined``, ``beyond`` (texts of the limits that its values kept then and do not now), ``again``
    and ``measurements`` (how many later ones count, and how many there are in all that do) and
    ``metrics``: metric -> (value, low, high) ``then``, of the study's trials, ``again``, of the
    latest later measurement alone, and ``now``, of all that count; of the objectives and of the
    metrics of those limits. An infinite end is one that is not known.
    """
    names = now.attrs["parameters"]

    def keys(table: pd.DataFrame) -> list[Any]:
        columns = [[v.item() if hasattr(v, "item") else v for v in table[name]] for name in names]
        return [configuration_key({n: c[i] for n, c in zip(names, columns) if not pd.isna(c[i])})
                for i in range(len(table))]

    again = np.flatnonzero(now["again"].to_numpy() > 0)
    if not len(again):
        return []
    held, place = keys(now), {key: row for row, key in enumerate(keys(before))}
    later, beside = _later(trials), {key for key, words in zip(held, now["left_out"]) if words}
    # Where undisturbed ones count alone, a disturbed one that came after them does not.
    latest = {key: row for row, key in enumerate(keys(later))
              if not (later["disturbed"].iloc[row] and key in beside)}
    found = []
    for row in again:
        then = place[held[row]]
        beyond = [
            limit for limit in limits
            if limit.keeps(numbers(before, limit.metric)[then])
            and not limit.keeps(numbers(now, limit.metric)[row])
        ]
        metrics = dict.fromkeys([*now.attrs["objectives"], *(limit.metric for limit in beyond)])
        was, is_now = (bool(t["on_front"].iloc[r]) for t, r in ((before, then), (now, row)))
        found.append({
            "trial": int(now["number"].iloc[row]), "left": was and not is_now,
            "joined": is_now and not was, "beyond": [str(limit) for limit in beyond],
            "again": int(now["again"].iloc[row]),
            "measurements": int(now["measurements"].iloc[row]),
            "metrics": {m: {"then": _point(before, m, then),
                            "again": _point(later, m, latest[held[row]]),
                            "now": _point(now, m, int(row))} for m in metrics},
        })
    return found


def _later(trials: pd.DataFrame) -> pd.DataFrame:
    """The later measurements alone, with their own values and intervals, in the order of storing."""
    metrics = [m for m in METRICS if m in trials.columns]
    every = opened(with_later(trials, metrics))
    every.attrs = {}
    return every[every["again_s"].notna()].reset_index(drop=True)


def _point(table: pd.DataFrame, metric: str, row: int) -> tuple[float, float, float]:
    low, high = interval(table, metric)
    return float(numbers(table, metric)[row]), float(low[row]), float(high[row])


def counts(trials: pd.DataFrame, known: pd.DataFrame) -> dict[str, Any]:
    """How many trials ended how, of how many configurations they are, how many were disturbed."""
    measured, feasible = trials["valid"].astype(bool), trials["feasible"].astype(bool)
    failed = trials[~measured]
    words = trials["disturbed"].tolist() if "disturbed" in trials.columns else []
    return {
        "finished": len(trials),
        "configurations": len(known),
        "feasible": int(feasible.sum()),
        "beyond_a_constraint": int((measured & ~feasible).sum()),
        "failed": {str(k): int(v) for k, v in failed["reason"].value_counts().items()},
        "disturbed": sum(isinstance(word, str) and bool(word) for word in words),
        "drifted": {
            int(number): word for number, word in zip(trials["number"], trials["drift"])
            if isinstance(word, str) and word
        } if "drift" in trials.columns else {},
    }
