"""Refuses questions of a space that no measurement can answer, and says what to ask instead."""

from __future__ import annotations

from collections.abc import Mapping
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
            _refuse_wrong_side(metric, node)
    if "objectives" in top:
        for objective, node in zip(space.objectives, top["objectives"].sequence(), strict=True):
            right = METRICS[objective.name].direction
            if objective.direction != right:
                place = next(iter(node.mapping().values()))
                raise place.error(f"the worst {objective.name} is no aim; say {right}")
            if objective.name == "throughput_rps" and not closed:
                raise node.error(
                    f"the throughput of an open loop ({space.settings.pattern}) is its rate, "
                    "whatever the configuration; say pattern: closed and clients: N, or make "
                    "latency_p99_ms an objective or a limit at the rate that load: or --load sets"
                )


def _refuse_wrong_side(metric: str, node: Node) -> None:
    """The best values of a metric must not be the ones beyond its limit."""
    right, wrong, better = (
        ("max", "min", "lower") if METRICS[metric].direction == "minimize"
        else ("min", "max", "higher")
    )
    bounds = node.mapping()
    if wrong in bounds:
        raise bounds[wrong].error(
            f"refuses the best values: a {better} {metric} is better; say {right}:"
        )
