"""Questions that no measurement can answer, of a space or of a study, and what to ask instead."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from tuner.measurement import METRICS
from tuner.space import Space

if TYPE_CHECKING:
    from tuner.space_file import Node


def refuse_meaningless(top: Mapping[str, Node], space: Space) -> None:
    """Raise SpaceError where the load contradicts itself, or a metric is asked the wrong way.

    Args:
        top: the top-level keys of the file, for the place of what is wrong.
        space: the same, read.
    """
    closed = space.settings.is_closed
    if not closed and "clients" in top:
        raise top["clients"].error(
            f"goes with pattern: closed only; the open loop {space.settings.pattern} has a rate: "
            "say load:"
        )
    if closed:
        factors = top["factors"].mapping() if "factors" in top else {}
        for node in (top.get("load"), factors.get("load")):
            if node is not None:
                raise node.error(
                    "a closed loop has no rate: its clients send as soon as they are answered; say "
                    "clients: N instead, or choose an open pattern"
                )
    if "constraints" in top:
        for metric, node in top["constraints"].mapping().items():
            for side, bound in node.mapping().items():
                if told := wrong_side(metric, side):
                    raise bound.error(f"{told}; say {RIGHT_SIDE[METRICS[metric].direction]}:")
    if not closed:
        for constraint in space.constraints:
            told = out_of_reach(constraint.metric, constraint.minimum, _rates(space))
            if told and "constraints" in top:
                raise top["constraints"].mapping()[constraint.metric].error(told)
    if "objectives" in top:
        for objective, node in zip(space.objectives, top["objectives"].sequence(), strict=True):
            right = METRICS[objective.name].direction
            if objective.direction != right:
                place = next(iter(node.mapping().values()))
                raise place.error(f"the worst {objective.name} is no aim; say {right}")
            if told := no_aim(objective.name, None if closed else space.settings.pattern):
                raise node.error(told)


RIGHT_SIDE = {"minimize": "max", "maximize": "min"}
"""Direction of a metric -> the side on which a limit of it lies."""


def wrong_side(metric: str, side: str) -> str | None:
    """Why a limit must not lie on a side (``min``, ``max``) of a metric: the best values would be
    beyond it. ``None`` where it may."""
    direction = METRICS[metric].direction
    if side not in ("min", "max") or side == RIGHT_SIDE[direction]:
        return None
    better = "lower" if direction == "minimize" else "higher"
    return f"refuses the best values: a {better} {metric} is better"


def no_aim(metric: str, open_pattern: str | None) -> str | None:
    """Why a metric is no objective under an open load of a pattern; ``None`` where it is one, as under
    a closed loop (``open_pattern`` = ``None``)."""
    if metric != "throughput_rps" or open_pattern is None:
        return None
    return (f"the throughput of an open loop ({open_pattern}) is its rate, whatever the configuration; "
            "say pattern: closed and clients: N, or make latency_p99_ms an objective or a limit at the "
            "rate that load: or --load sets")


def out_of_reach(metric: str, minimum: float | None, rates_rps: Iterable[float]) -> str | None:
    """Why a throughput cannot be reached where an open loop offers so many requests/s; ``None`` where
    it can, or nothing is offered at a rate."""
    least = min(rates_rps, default=None)
    if metric != "throughput_rps" or minimum is None or least is None or minimum <= least:
        return None
    return (f"no configuration answers {minimum:g} requests/s where the open loop offers {least:g}; ask "
            "for less, or offer more with load:")


def _rates(space: Space) -> list[float]:
    """Rates that the space sets, requests/s; levels (medium) are not known before calibration."""
    loads = space.factors.get("load", (space.settings.load,))
    return [float(load) for load in loads if not isinstance(load, str)]
