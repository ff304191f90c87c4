"""Where the energy of a request goes: waiting, serving, and what else ran on the machine.

By the linear model of the estimate (docs/energy.md) a request costs

    idle_w × window / answers                 the machine being there, served or not
    + (max_w − idle_w) × server CPU s / CPUs / answers     the server's work
    + (max_w − idle_w) × rest CPU s / CPUs / answers       everything else but the load generator

so at a fixed rate the first part is the same for every configuration, and only the second is what
a configuration changes. A counter sees the sum; of it only idle and the rest above idle can be told
apart, and only where an idle baseline was measured.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

import pandas as pd


class Stored(Protocol):
    """What is needed of a stored trial; ``store.TrialRecord`` has it."""

    @property
    def number(self) -> int: ...
    @property
    def state(self) -> str: ...
    @property
    def metrics(self) -> Any: ...
    @property
    def measurement(self) -> Any: ...


PARTS = ("idle_j", "server_j", "rest_j")


def energy_parts(records: Iterable[Stored]) -> pd.DataFrame:
    """Each measured trial's energy per request, in parts.

    ``idle_j + server_j`` make ``total_j`` where the meter told others apart; ``rest_j`` then stands
    beside them. In records made before it is inside ``total_j``.

    Columns: ``number``, ``latency_p99_ms``, ``idle_j``, ``server_j``, ``rest_j`` (joules a request;
    with a counter ``server_j`` is all above idle and ``rest_j`` is 0), ``total_j``, ``busy_share``
    (of all CPUs, the load generator included; NaN where unknown). Trials without energy, or with a
    counter but no baseline, are left out.
    """
    rows = []
    for record in records:
        energy = record.measurement.get("energy") if record.state == "complete" else None
        total_j = record.metrics.get("energy_per_request_j")
        if not energy or not total_j:
            continue
        details = energy.get("details") or {}
        charged = [energy.get(part) or 0.0 for part in ("client_j", "others_j")]
        server_j = energy["gross_j"] - sum(charged)
        answers = server_j / total_j
        if "server_dynamic_j" in details:
            parts = (details["model_idle_w"] * energy["window_s"], details["server_dynamic_j"],
                     details["rest_dynamic_j"])
        elif energy.get("idle_w") is not None:
            idle_j = energy["idle_w"] * energy["window_s"]
            parts = (idle_j, server_j - idle_j, 0.0)
        else:
            continue
        rows.append({
            "number": record.number,
            "latency_p99_ms": record.metrics.get("latency_p99_ms"),
            **{name: joules / answers for name, joules in zip(PARTS, parts)},
            "total_j": total_j,
            "busy_share": details.get("busy_share", float("nan")),
        })
    columns = ["number", "latency_p99_ms", *PARTS, "total_j", "busy_share"]
    return pd.DataFrame(rows, columns=columns)
