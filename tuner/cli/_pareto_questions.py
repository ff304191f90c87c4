"""Refuses objectives and limits of ``tuner pareto`` that no measurement of the study answers."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

from tuner.errors import UsageError
from tuner.measurement import METRICS
from tuner.space_questions import RIGHT_SIDE, no_aim, out_of_reach, wrong_side

if TYPE_CHECKING:
    from tuner.analysis.limits import Limit


def refuse_meaningless(
    trials: Any, objectives: Sequence[str], limits: Sequence[Limit], own: Collection[str]
) -> None:
    """Raise UsageError for what a space file would be refused for (``space_questions``)."""
    metrics = [m for m in dict.fromkeys([*METRICS, *own]) if m in trials.columns]
    for name in [*objectives, *(limit.metric for limit in limits)]:
        if name not in metrics:
            held = ", ".join(f"{m} ({_words(m)})" for m in metrics)
            raise UsageError(f"there is no metric {name!r}; a study holds {held}")
    rates = sorted({float(r) for r in trials["target_rate_rps"].dropna()})
    study = trials.attrs["name"]
    for name in objectives:
        if told := no_aim(name, f"{rates[-1]:g} requests/s in {study}" if rates else None):
            raise UsageError(f"--objectives {name}: {told}")
    signs = {"max": "<=", "min": ">="}
    for limit in limits:
        if limit.metric not in METRICS:
            continue
        side = "max" if limit.sign == "<=" else "min"
        if told := wrong_side(limit.metric, side):
            right = signs[RIGHT_SIDE[METRICS[limit.metric].direction]]
            raise UsageError(f"--limit '{limit}' {told}; say {limit.metric} {right} …")
        if told := out_of_reach(limit.metric, limit.bound if side == "min" else None, rates[-1:]):
            raise UsageError(f"--limit '{limit}': {told} ({study})")


def _words(metric: str) -> str:
    about = METRICS.get(metric)
    return metric if about is None else ", ".join(filter(None, (about.label, about.unit)))
