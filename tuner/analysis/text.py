"""Results as plain text: aligned columns and numbers of a readable length."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any


def aligned(rows: Sequence[Sequence[Any]]) -> str:
    """Rows as lines of left-aligned columns, two spaces apart; numbers as ``short`` writes them."""
    cells = [[cell if isinstance(cell, str) else short(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in cells
    )


def short(value: Any, digits: int = 3) -> str:
    """A number for a person: integers whole, floats to ``digits`` significant digits, None "-"."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        if value == 0 or 0.01 <= abs(value) <= 1:
            return f"{value:.{digits}f}"
        return f"{value:.{digits}g}" if abs(value) < 1e5 else f"{value:.4g}"
    return str(value)
