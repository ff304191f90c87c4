"""The plot of a study: every trial, the Pareto front and its knee."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from tuner.analysis.figures import COLOURS, INK, MUTED, new_figure, title
from tuner.analysis.fronts import DEFAULT_OBJECTIVES, mark_front
from tuner.analysis.tables import interval, label, numbers
from tuner.errors import TableError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_FRONT, _KNEE, _TRIAL = COLOURS[1], COLOURS[3], COLOURS[0]

_ARROW_PT = 26
"""Length of the arrow at an open end; the largest marks (knee, choice) have a radius of 8 points."""


def pareto_figure(
    table: pd.DataFrame,
    objectives: Sequence[str] = DEFAULT_OBJECTIVES,
    *,
    heading: str | None = None,
    maximise: Collection[str] = (),
    limits: Mapping[str, float] | None = None,
) -> Figure:
    """Every trial of a study in the plane of two objectives, minimised unless in ``maximise``.

    Valid trials are dots; trials that failed but were measured, or that miss a service level, are
    crosses; trials without a measurement are counted in the legend, since they have no place in
    the plane. The front is a step line (what lies on its worse side is dominated), its members
    carry their 95 % intervals (an arrow where no upper end is known), the knee is a star, the
    choice a ring, what other work disturbed a square around it. ``limits`` are drawn as lines where
    ``attrs["limits"]`` names one of the objectives. ``table`` as ``fronts.mark_front`` wants it, or
    as ``known.front_of`` gives it; more than two objectives raise TableError.
    """
    if len(objectives) != 2:
        raise TableError(f"a front is drawn for two objectives, not {len(objectives)}")
    marked = table
    if "usable" not in table.columns:
        marked = mark_front(table, objectives, maximise=maximise, limits=limits, draws=1)
    x, y = (numbers(marked, name) for name in objectives)
    usable, front = marked["usable"].to_numpy(), marked["on_front"].to_numpy()
    placed = np.isfinite(x) & np.isfinite(y)
    failed = ~usable & placed
    figure, (axis,) = new_figure()
    rest = usable & ~front
    axis.scatter(x[rest], y[rest], s=26, color=_TRIAL, alpha=0.55, linewidth=0,
                 label=f"trial ({rest.sum()})")
    if failed.any():
        axis.scatter(x[failed], y[failed], s=30, marker="x", color=MUTED, linewidth=1.2,
                     label=f"invalid or beyond a limit ({failed.sum()})")
    unplaced = int((~placed).sum())
    if unplaced:
        axis.plot([], [], "x", color=MUTED, alpha=0.5, label=f"without a measurement ({unplaced})")
    if front.any():
        _draw_front(axis, marked, objectives, maximise)
    _draw_disturbed(axis, marked, x, y, placed)
    _draw_limits(axis, table, objectives)
    _zoom(axis, x[usable], y[usable])
    axis.set_xlabel(label(objectives[0]))
    axis.set_ylabel(label(objectives[1]))
    title(axis, heading or str(table.attrs.get("name") or "Pareto front"))
    axis.legend(frameon=False, fontsize=9, labelcolor=INK, loc="best")
    return figure


def _draw_front(
    axis: Axes, marked: pd.DataFrame, objectives: Sequence[str], maximise: Collection[str]
) -> None:
    # The best first: from there on a step keeps the second objective until the next member.
    rising = [name not in maximise for name in objectives]
    front = marked[marked["on_front"]].sort_values(list(objectives), ascending=rising)
    x, y = (numbers(front, name) for name in objectives)
    errors = []
    for name, value in zip(objectives, (x, y)):
        low, high = interval(front, name)
        both = np.vstack([value - low, np.where(np.isposinf(high), np.nan, high) - value])
        both = both.clip(min=0.0)
        errors.append(np.nan_to_num(both) if np.isfinite(both).any() else None)
    axis.step(x, y, where="post", color=_FRONT, linewidth=1.6, alpha=0.9, zorder=3)
    axis.errorbar(x, y, xerr=errors[0], yerr=errors[1], fmt="o", markersize=7, color=_FRONT,
                  ecolor=_FRONT, elinewidth=1.0, capsize=2, markeredgecolor="white", zorder=4,
                  label=f"Pareto front ({len(front)})")
    for place, (name, marker) in enumerate(zip(objectives, (">", "^"))):
        rows = np.isposinf(interval(front, name)[1])
        if rows.any():
            towards = ((_ARROW_PT, 0), (0, _ARROW_PT))[place]
            for at in zip(x[rows], y[rows]):
                axis.annotate("", at, xytext=towards, textcoords="offset points", zorder=7,
                              arrowprops={"arrowstyle": "<|-", "color": INK, "shrinkA": 0,
                                          "shrinkB": 0, "mutation_scale": 12})
            axis.plot([], [], marker, color=INK, label=f"no upper bound of {label(name)} known")
    bend = front["knee"].to_numpy()
    axis.scatter(x[bend], y[bend], s=190, marker="*", color=_KNEE, edgecolor=INK, linewidth=0.8,
                 zorder=5, label="knee")
    if "choice" in marked.columns and marked["choice"].any():
        chosen = marked[marked["choice"]]
        across, up = (numbers(chosen, name) for name in objectives)
        axis.scatter(across, up, s=230, facecolor="none", edgecolor=INK, linewidth=1.6, zorder=6,
                     label=f"choice (trial {int(chosen['number'].iloc[0])})")


def _draw_disturbed(
    axis: Axes, marked: pd.DataFrame, x: np.ndarray, y: np.ndarray, placed: np.ndarray
) -> None:
    if "disturbed_by" in marked.columns:
        rows = placed & np.array([bool(words) for words in marked["disturbed_by"]], dtype=bool)
        if rows.any():
            axis.scatter(x[rows], y[rows], s=80, marker="s", facecolor="none", edgecolor=MUTED,
                         linewidth=1.0, label=f"disturbed by other work ({rows.sum()})")
    if "former_rule" in marked.columns:
        told = sum(bool(asked) for asked in marked["former_rule"])
        if told:
            axis.plot([], [], " ", label=f"p99 by the former rank rule ({told})")


def _draw_limits(axis: Axes, table: pd.DataFrame, objectives: Sequence[str]) -> None:
    for text in table.attrs.get("limits") or ():
        metric, _, bound = str(text).split(" ")
        if metric in objectives:
            line = (axis.axvline, axis.axhline)[list(objectives).index(metric)]
            line(float(bound), color=MUTED, linestyle="--", linewidth=1.0, label=str(text))


def _zoom(axis: Axes, x: np.ndarray, y: np.ndarray) -> None:
    """Use a logarithmic axis where one slow trial would squash the others into a corner."""
    for values, scale in ((x, axis.set_xscale), (y, axis.set_yscale)):
        if len(values) and values.min() > 0 and values.max() / values.min() > 30:
            scale("log")
