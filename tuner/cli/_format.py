"""How numbers, configurations and durations are written for a person."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from tuner.measurement import METRICS


def number(value: float | None, digits: int = 3) -> str:
    """A value to ``digits`` significant digits; ``-`` where it was not measured."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "-"
    if value == 0:
        return "0"
    if abs(value) >= 10**digits:
        return f"{value:,.0f}"
    return f"{value:.{digits}g}"


def metric(name: str, value: float | None) -> str:
    """A metric with its unit: ``43.5 ms``."""
    unit = METRICS[name].unit if name in METRICS else ""
    return f"{number(value)} {unit}".strip()


def configuration(values: Mapping[str, Any]) -> str:
    """``max_batch_size=8 num_batch_threads=2``; a configuration of nothing is ``(defaults)``."""
    text = " ".join(f"{k}={_plain(v)}" for k, v in values.items() if v is not None)
    return text or "(defaults)"


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return str(int(value)) if value == int(value) else f"{value:.6g}"
    return str(value)


def seconds(value: float) -> str:
    """``42 s``, ``3 min 20 s``, ``2 h 05 min``."""
    value = round(value)
    if value < 60:
        return f"{value} s"
    if value < 3600:
        return f"{value // 60} min {value % 60:02d} s"
    return f"{value // 3600} h {value % 3600 // 60:02d} min"
