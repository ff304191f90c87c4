"""Plots of transfer: matrices over many environments, and two responses against each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tuner.analysis.correlation import pearson, spearman
from tuner.analysis.environments import Environment, compare
from tuner.analysis.figures import COLOURS, INK, new_figure, title
from tuner.analysis.tables import label
from tuner.analysis.transfer import MEANING, Metrics

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DEFAULT_METRICS = ("M1", "M3", "M4", "M10_spearman")
_TITLES: Mapping[str, str] = {
    "M1": "Pearson correlation",
    "M2": "KL divergence (nats)",
    "M3": "rank correlation",
    "M4": "best configurations in common",
    "M5": "worst configurations in common",
    "M10_pearson": "importance of options, Pearson",
    "M10_spearman": "importance of options, ranks",
    "M14": "coefficients of common terms",
    "M17": "invalid configurations in common",
    "M18": "what makes a configuration invalid",
}
_BOUNDED = {"M1", "M3", "M10_pearson", "M10_spearman", "M14", "M18"}
"""Correlations: drawn between -1 and 1, so that colours mean the same in every figure."""


def matrix_figure(
    environments: Sequence[str],
    matrix: Mapping[tuple[int, int], Metrics],
    *,
    metrics: Sequence[str] = DEFAULT_METRICS,
) -> Figure:
    """One heat map for each metric: source in rows, target in columns, values written in.

    ``matrix`` as ``transfer.transfer_matrix`` returns it; undefined metrics stay blank.
    """
    count = len(environments)
    columns = min(2, len(metrics))
    rows = -(-len(metrics) // columns)
    side = 1.9 + 0.52 * count
    figure, axes = new_figure(columns * (side + 1.2), rows * (side + 0.3), rows=rows,
                              columns=columns)
    names = _short_names(environments)
    for axis, metric in zip(axes, metrics):
        values = np.full((count, count), np.nan)
        for (source, target), found in matrix.items():
            value = found[metric]
            values[source, target] = np.nan if value is None else value
        _heat_map(axis, values, names, bounded=metric in _BOUNDED)
        title(axis, f"{metric.partition('_')[0]}: {_TITLES.get(metric, MEANING[metric])}")
    for axis in axes[len(metrics):]:
        axis.set_visible(False)
    return figure


def _heat_map(axis: Axes, values: Any, names: Sequence[str], *, bounded: bool) -> None:
    bounds: dict[str, Any] = {"cmap": "Blues"}
    if bounded:
        bounds = {"cmap": "RdBu", "vmin": -1, "vmax": 1}
    elif np.nanmax(values, initial=0) <= 1:
        bounds.update(vmin=0, vmax=1)
    image = axis.imshow(values, **bounds)
    axis.grid(False)
    axis.set_xticks(range(len(names)), names, rotation=60, ha="right", fontsize=7)
    axis.set_yticks(range(len(names)), names, fontsize=7)
    axis.set_xlabel("target", fontsize=8)
    axis.set_ylabel("source", fontsize=8)
    low, high = image.get_clim()
    for (row, column), value in np.ndenumerate(values):
        if np.isfinite(value):
            share = (value - low) / (high - low) if high > low else 0.0
            dark = share > 0.65 or (bounded and share < 0.2)
            axis.text(column, row, f"{value:.2f}".rstrip("0").rstrip(".") or "0", ha="center",
                      va="center", fontsize=6.5, color="white" if dark else INK)


def _short_names(names: Sequence[str]) -> list[str]:
    """Without the prefix, up to the last separator, that all of them share."""
    if len(names) < 2:
        return list(names)
    shared = min(len(names[0]), *(len(name) for name in names))
    while shared and len({name[:shared] for name in names}) > 1:
        shared -= 1
    cut = max(names[0].rfind(mark, 0, shared) for mark in ":_@/") + 1
    return [name[cut:] or name for name in names]


def responses_figure(source: Environment, target: Environment) -> Figure:
    """Every configuration valid in both, by its response in the source and in the target."""
    shared = compare(source, target)
    valid = np.isfinite(shared.source) & np.isfinite(shared.target)
    for flags in (shared.source_valid, shared.target_valid):
        if flags is not None:
            valid &= flags
    x, y = shared.source[valid], shared.target[valid]
    figure, (axis,) = new_figure(5.6, 4.8)
    axis.scatter(x, y, s=12, alpha=0.4, color=COLOURS[0], linewidth=0)
    axis.set_xlabel(f"{label(source.response)}, {_place(source)}", fontsize=9)
    axis.set_ylabel(f"{label(target.response)}, {_place(target)}", fontsize=9)
    linear, rank = pearson(x, y), spearman(x, y)
    told = "too few configurations" if linear is None or rank is None else (
        f"Pearson {linear:.2f}, Spearman {rank:.2f}")
    title(axis, f"{len(x)} configurations: {told}")
    return figure


def _place(environment: Environment) -> str:
    return environment.label.removesuffix(f":{environment.response}")
