"""Whether two readings may stand in one comparison, one front, one table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tuner.measurement import EnergyReading


def why_not_comparable(one: EnergyReading, other: EnergyReading) -> str | None:
    """``None`` when the two were measured alike, else in words what differs.

    Joules of two sources differ by more than any two configurations do; so do those of one
    estimate with two sets of constants, of one counter with and without the memory's domain, and
    those from which the client's share was and wasn't taken off.
    """

    def aspects(reading: EnergyReading) -> dict[str, Any]:
        return {
            "source": reading.source,
            "method": reading.method,
            "domains": reading.domains,
            "client's share taken off": reading.client_j is not None,
            **_constants(reading.details),
        }

    left, right = aspects(one), aspects(other)
    for aspect in left:
        if left[aspect] != right.get(aspect):
            return f"{aspect}: {left[aspect]} and {right.get(aspect)}"
    return None


def _constants(details: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found = {}
    for key, value in details.items():
        if isinstance(value, Mapping):
            found.update(_constants(value, f"{prefix}{key}."))
        elif key in ("model_idle_w", "model_max_w"):
            found[prefix + key] = value
    return found
