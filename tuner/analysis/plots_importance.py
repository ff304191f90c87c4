"""Plots of importance: estimates side by side, strongest interactions, partial dependence."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from tuner.analysis.figures import COLOURS, INK, new_figure, title
from tuner.analysis.tables import label

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def importance_figure(
    importance: pd.DataFrame, interactions: pd.DataFrame, *, heading: str, most: int = 12
) -> Figure:
    """Left the options by each estimate of importance, right the strongest interactions.

    ``importance`` as ``importance.importance_table``, ``interactions`` as
    ``interactions.interaction_table``; ``most`` limits both lists.
    """
    shown = importance.head(most).iloc[::-1]
    figure, (left, right) = new_figure(11, 1.4 + 0.36 * len(shown), columns=2)
    estimates = [name for name in shown.columns if name != "mean"]
    height = 0.8 / len(estimates)
    for place, (name, colour) in enumerate(zip(estimates, COLOURS)):
        at = np.arange(len(shown)) + (len(estimates) / 2 - place - 0.5) * height
        left.barh(at, shown[name], height, color=colour, label=name.replace("_", " "))
    left.set_yticks(range(len(shown)), shown.index, fontsize=8)
    left.set_xlabel("share of importance")
    left.legend(frameon=False, fontsize=8, labelcolor=INK, loc="lower right")
    title(left, heading)
    pairs = interactions.head(most).iloc[::-1]
    sure = (pairs["p_value"] < 0.05).to_numpy()
    right.barh(range(len(pairs)), 100 * pairs["share"],
               color=[COLOURS[0] if told else "#c9d1d9" for told in sure])
    names = [f"{one} × {other}" for one, other in zip(pairs["one"], pairs["other"])]
    right.set_yticks(range(len(pairs)), names, fontsize=8)
    right.set_xlabel("variance it adds (%); grey: not significant")
    title(right, "interactions")
    return figure


def partial_dependence_figure(
    dependence: pd.DataFrame, response: str, *, most: int = 9
) -> Figure:
    """One panel an option: mean prediction at each level, and the central 80 % over all rows.

    ``dependence`` as ``importance.partial_dependence``; the first ``most`` options in it.
    """
    names = list(dict.fromkeys(dependence["option"]))[:most]
    columns = min(3, len(names))
    rows = -(-len(names) // columns)
    figure, axes = new_figure(3.6 * columns, 2.7 * rows, rows=rows, columns=columns)
    for axis in axes[1:]:
        axis.sharey(axes[0])
    for axis, name in zip(axes, names):
        part = dependence[dependence["option"] == name]
        at = np.arange(len(part))
        axis.fill_between(at, part["low"], part["high"], color=COLOURS[0], alpha=0.15, linewidth=0)
        axis.plot(at, part["mean"], "o-", color=COLOURS[0], markersize=4)
        axis.set_xticks(at, [str(level) for level in part["level"]], fontsize=8)
        axis.set_xlabel(name.replace("_", " "), fontsize=9)
    for axis in axes[::columns]:
        axis.set_ylabel(label(response), fontsize=9)
    for axis in axes[len(names):]:
        axis.set_visible(False)
    return figure
