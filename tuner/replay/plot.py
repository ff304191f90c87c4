"""Draw how fast each proposer came near a table's front."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from tuner.analysis.figures import COLOURS, MUTED, new_figure, title
from tuner.replay.compare import Report

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def replay_figure(
    reports: Mapping[str, Report], table: str, whole: str = "the whole table's"
) -> Figure:
    """Median hypervolume by trial with the quartiles as a band, one line a proposer."""
    figure, (axis,) = new_figure()
    for i, (name, report) in enumerate(reports.items()):
        trials = range(1, len(report.median) + 1)
        colour = COLOURS[i % len(COLOURS)]
        axis.plot(trials, report.median, color=colour, label=name, linewidth=1.8)
        axis.fill_between(trials, report.q25, report.q75, color=colour, alpha=0.15, linewidth=0)
    axis.axhline(0.99, color=MUTED, linewidth=1, linestyle="--")
    axis.set_xlabel("trials")
    axis.set_ylabel(f"hypervolume, relative to {whole}")
    lowest = min(report.q25[0] for report in reports.values())
    axis.set_ylim(max(0.0, min(lowest, 0.9)), 1.005)
    axis.legend(frameon=False, loc="lower right")
    title(axis, f"Trials to the front of {table}")
    return figure
