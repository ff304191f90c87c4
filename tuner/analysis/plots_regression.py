"""Plot of learning curves: prediction error against the number of trials."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from tuner.analysis.figures import COLOURS, INK, MUTED, new_figure, title
from tuner.analysis.regression import GOOD_ERROR

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def learning_curve_figure(curve: pd.DataFrame, *, heading: str) -> Figure:
    """Error and R² of every model by training size; ``curve`` as ``regression.learning_curve``."""
    figure, (left, right) = new_figure(10, 4.2, columns=2)
    for (name, part), colour in zip(curve.groupby("model", sort=False), COLOURS):
        shown = str(name).replace("_", " ")
        left.plot(part["size"], 100 * part["mape"], "o-", markersize=4, color=colour, label=shown)
        left.fill_between(part["size"], 100 * part["mape_low"], 100 * part["mape_high"],
                          color=colour, alpha=0.12, linewidth=0)
        right.plot(part["size"], part["r2"], "o-", markersize=4, color=colour, label=shown)
    left.axhline(100 * GOOD_ERROR, color=MUTED, linewidth=1, linestyle="--")
    left.set_yscale("log")
    for which in (left.yaxis.set_major_formatter, left.yaxis.set_minor_formatter):
        which("{x:g}")
    left.set_ylabel("mean absolute percentage error (%)")
    right.set_ylabel("R²")
    right.set_ylim(max(-0.5, float(curve["r2"].min()) - 0.05), 1.02)
    for axis in (left, right):
        axis.set_xscale("log")
        axis.set_xlabel("trials learned from")
    left.legend(frameon=False, fontsize=8, labelcolor=INK)
    title(left, heading)
    return figure
