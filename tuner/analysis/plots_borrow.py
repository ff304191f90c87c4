"""Plot of borrowing: the price of running one DNN with another's best configuration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from tuner.analysis.figures import INK, new_figure, title
from tuner.analysis.tables import label

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def borrow_figure(
    studies: Sequence[str], prices: Mapping[str, Mapping[tuple[int, int], float | None]]
) -> Figure:
    """One heat map a response: regret in percent, lender in rows, borrower in columns.

    ``prices`` maps a response to the regret of each (lender, borrower), indices into ``studies``:
    infinite where the configuration fails, on the diagonal what noise alone seems to cost (0 where
    it isn't given).
    """
    count, names = len(studies), list(prices)
    side = 2.4 + 0.6 * count
    figure, axes = new_figure(len(names) * side, side + 0.4, columns=len(names))
    for axis, name in zip(axes, names):
        regret = np.full((count, count), np.nan)
        for place, value in {**{(i, i): 0.0 for i in range(count)}, **prices[name]}.items():
            regret[place] = np.nan if value is None else value
        finite = regret[np.isfinite(regret)]
        top = max(finite.max(initial=0.0), 10.0)  # a few percent should not look like a lot
        axis.imshow(np.minimum(regret, 2 * top), cmap="Reds", vmin=0, vmax=top)
        axis.grid(False)
        axis.set_xticks(range(count), studies, rotation=45, ha="right", fontsize=8)
        axis.set_yticks(range(count), studies, fontsize=8)
        axis.set_xlabel("borrower")
        axis.set_ylabel("lender of the configuration")
        for (row, column), value in np.ndenumerate(regret):
            if not np.isnan(value):
                told = f"{value:.0f} %" if np.isfinite(value) else "fails"
                axis.text(column, row, told, ha="center", va="center", fontsize=8,
                          color="white" if value > 0.6 * top else INK)
        title(axis, f"regret in {label(name)}")
    return figure
