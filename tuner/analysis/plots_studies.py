"""Plots of several studies side by side, for the report: fronts, ranks, noise, energy, samplers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from tuner.analysis.energy_parts import PARTS
from tuner.analysis.figures import COLOURS, INK, MUTED, new_figure, title
from tuner.analysis.fronts import DEFAULT_OBJECTIVES, mark_front
from tuner.analysis.tables import interval, label, numbers

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def fronts_figure(
    studies: Mapping[str, pd.DataFrame], objectives: Sequence[str] = DEFAULT_OBJECTIVES
) -> Figure:
    """One panel a study: its usable trials and its front with 95 % intervals; both minimised.

    An interval without a known upper end has a lower bar alone.

    Axes are logarithmic and a panel's own: DNNs differ by orders of magnitude, and what is compared
    is the shape. ``studies`` maps a title to a table as ``repeats.pool`` gives it.
    """
    columns = min(3, max(1, len(studies)))
    rows = -(-max(1, len(studies)) // columns)
    figure, axes = new_figure(4.2 * columns, 3.6 * rows, rows=rows, columns=columns)
    for axis, (name, table) in zip(axes, studies.items()):
        marked = mark_front(table, objectives, draws=1)
        usable = marked[marked["usable"]]
        front = marked[marked["on_front"]].sort_values(list(objectives))
        axis.scatter(numbers(usable, objectives[0]), numbers(usable, objectives[1]), s=14,
                     color=COLOURS[0], alpha=0.45, linewidth=0)
        x, y = (numbers(front, o) for o in objectives)
        bars = []
        for objective, value in zip(objectives, (x, y)):
            low, high = interval(front, objective)
            high = np.where(np.isposinf(high), np.nan, high)
            bars.append(np.nan_to_num(np.vstack([value - low, high - value])).clip(min=0.0))
        axis.step(x, y, where="post", color=COLOURS[1], linewidth=1.4)
        axis.errorbar(x, y, xerr=bars[0], yerr=bars[1], fmt="o", markersize=5, color=COLOURS[1],
                      elinewidth=0.8, capsize=2)
        if len(usable) and (usable[list(objectives)].astype(float) > 0).all(axis=None):
            axis.set_xscale("log")
            axis.set_yscale("log")
        axis.set_xlabel(label(objectives[0]), fontsize=9)
        axis.set_ylabel(label(objectives[1]), fontsize=9)
        title(axis, f"{name}: {len(front)} of {len(usable)}")
    for axis in axes[len(studies):]:
        axis.set_visible(False)
    return figure


def correlation_figure(correlations: pd.DataFrame, *, heading: str) -> Figure:
    """Rank correlation of a response over every two studies, as a heat map.

    ``correlations`` as ``borrow.correlation_table``: over DNNs, workloads or load levels.
    """
    names = list(dict.fromkeys([*correlations["one"], *correlations["other"]]))
    values = np.full((len(names), len(names)), np.nan)
    np.fill_diagonal(values, 1.0)
    for row in correlations.itertuples():
        i, j = names.index(row.one), names.index(row.other)
        values[i, j] = values[j, i] = row.spearman
    side = 2.6 + 0.6 * len(names)
    figure, (axis,) = new_figure(side, side)
    axis.imshow(values, cmap="RdBu", vmin=-1, vmax=1)
    axis.grid(False)
    axis.set_xticks(range(len(names)), names, rotation=45, ha="right", fontsize=8)
    axis.set_yticks(range(len(names)), names, fontsize=8)
    for (i, j), value in np.ndenumerate(values):
        if np.isfinite(value):
            axis.text(j, i, f"{value:.2f}", ha="center", va="center", fontsize=8,
                      color="white" if abs(value) > 0.7 else INK)
    title(axis, heading)
    return figure


def noise_table(studies: Mapping[str, pd.DataFrame], metrics: Sequence[str]) -> pd.DataFrame:
    """Noise of repeated configurations by study and metric, deviations in percent of the mean.

    ``studies`` maps a name to a table as ``repeats.pool`` gives it; a study without repeats, or a
    metric whose noise is not relative, has no row. Columns as ``noise.Noise``, with ``study``.
    """
    rows = []
    for name, table in studies.items():
        for noise in table.attrs.get("noise") or ():
            if noise["metric"] in metrics and noise["relative"]:
                shares = {k: None if noise[k] is None else 100 * noise[k]
                          for k in ("deviation", "within", "between", "drift")}
                rows.append({
                    "study": name, "metric": noise["metric"],
                    "configurations": noise["configurations"], "degrees": noise["degrees"],
                    **{f"{k}_pct": share for k, share in shares.items()},
                    "drift_p_value": noise["drift_p_value"],
                })
    columns = ["study", "metric", "configurations", "degrees", "deviation_pct", "within_pct",
               "between_pct", "drift_pct", "drift_p_value"]
    return pd.DataFrame(rows, columns=columns)


def energy_parts_figure(parts: pd.DataFrame, *, heading: str) -> Figure:
    """Energy a request in its parts, trials in order of p99 latency; ``energy_parts`` as input."""
    shown = parts.sort_values("latency_p99_ms", ignore_index=True)
    figure, (axis,) = new_figure(8, 4)
    below = np.zeros(len(shown))
    for name, colour, told in zip(PARTS, (MUTED, COLOURS[0], COLOURS[3]),
                                  ("idle", "server", "rest of the machine")):
        axis.bar(range(len(shown)), shown[name], bottom=below, color=colour, width=0.9, label=told)
        below += shown[name].to_numpy(dtype=float)
    axis.set_xlabel("trials, least p99 latency first")
    axis.set_ylabel("energy per request (J)")
    axis.legend(frameon=False, fontsize=9, labelcolor=INK)
    title(axis, heading)
    return figure


def samplers_figure(curves: Mapping[str, Any], *, heading: str) -> Figure:
    """Share of the table's hypervolume by trials: median and quartiles over a sampler's repeats.

    ``curves`` maps a sampler to a record with ``median``, ``q25`` and ``q75``, one value a trial,
    as ``replay.compare`` reports it.
    """
    figure, (axis,) = new_figure(7, 4.2)
    for (name, curve), colour in zip(curves.items(), COLOURS * (1 + len(curves) // len(COLOURS))):
        at = np.arange(1, len(curve.median) + 1)
        axis.fill_between(at, curve.q25, curve.q75, color=colour, alpha=0.12, linewidth=0)
        axis.plot(at, curve.median, color=colour, linewidth=1.6, label=name)
    axis.set_xlabel("trials")
    axis.set_ylabel("share of the table's hypervolume")
    axis.set_ylim(top=1.01)
    axis.legend(frameon=False, fontsize=9, labelcolor=INK, loc="lower right")
    title(axis, heading)
    return figure
