"""How every figure of the project looks: one place for size, colour and grid.

Figures are made without pyplot, so that making one leaves no global state behind.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tuner.errors import UsageError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK = "#22303c"
MUTED = "#9aa5b1"
GRID = "#e4e8ec"
COLOURS = ("#1f77b4", "#d1495b", "#2a9d8f", "#e9a03b", "#7b5ea7", "#5c6b73")
"""In order of use; told apart by people with the common colour-vision deficiencies."""


def new_figure(
    width_in: float = 7.0, height_in: float = 4.6, *, rows: int = 1, columns: int = 1
) -> tuple[Figure, list[Axes]]:
    """An empty figure with its axes in reading order."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width_in, height_in), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    axes = [axis for line in figure.subplots(rows, columns, squeeze=False) for axis in line]
    for axis in axes:
        style(axis)
    return figure, axes


def style(axis: Axes) -> None:
    """Light grid behind the data, no box, quiet ticks."""
    axis.set_axisbelow(True)
    axis.grid(True, color=GRID, linewidth=0.8)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axis.spines[side].set_color(MUTED)
    axis.tick_params(colors=INK, labelsize=9)
    axis.xaxis.label.set_color(INK)
    axis.yaxis.label.set_color(INK)


def title(axis: Axes, text: str) -> None:
    axis.set_title(text, loc="left", fontsize=11, color=INK, fontweight="bold")


def save(figure: Figure, path: str | Path) -> None:
    """Write a figure; the suffix of the path names the format.

    Raises UsageError where the file cannot be written or the format is unknown.
    """
    try:
        figure.savefig(path, dpi=160)
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be written: {error}") from None
