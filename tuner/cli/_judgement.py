"""How a comparison of samplers is told: as a table, as JSON, as a plot."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from tuner.errors import UsageError
from tuner.propose import NAMES
from tuner.replay import Report

_WEIGHTS_SHOWN = 20


def names(text: str) -> list[str]:
    """An argument's comma-separated names."""
    found = [part.strip() for part in text.split(",") if part.strip()]
    if not found:
        raise argparse.ArgumentTypeError("should name at least one")
    return found


def samplers(text: str) -> list[str]:
    """An argument's comma-separated samplers, each known and named once."""
    found = list(dict.fromkeys(names(text)))
    for name in found:
        if name not in NAMES:
            raise UsageError(f"sampler {name!r} is unknown; choose of {', '.join(NAMES)}")
    return found


def as_json(reports: Mapping[str, Report]) -> dict[str, Any]:
    return {name: asdict(report) for name, report in reports.items()}


def as_text(reports: Mapping[str, Report], trials: int) -> str:
    """One line a sampler, then the weight of each source by trial."""
    head = ["sampler", "to 95 %", "to 99 %", f"after {trials}", "quartiles", "of front"]
    rows = [
        [
            name,
            _or_more(report.trials_to_95, trials),
            _or_more(report.trials_to_99, trials),
            f"{report.median[-1]:.3f}",
            f"{report.q25[-1]:.3f}–{report.q75[-1]:.3f}",
            f"{report.front_share:.0%}",
        ]
        for name, report in reports.items()
    ]
    lines = _aligned([head, *rows])
    for name, report in reports.items():
        for source, weights in report.weights.items():
            shown = " ".join(f"{weight:.2f}" for weight in weights[:_WEIGHTS_SHOWN])
            lines.append(f"weight of {source} in {name} by trial: {shown}")
    return "\n".join(lines)


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows)]
    return ["  ".join(cell.ljust(w) for cell, w in zip(row, widths)).rstrip() for row in rows]


def _or_more(trials: int | None, limit: int) -> str:
    return f"> {limit}" if trials is None else str(trials)
