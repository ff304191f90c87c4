"""Everything that is decided before the first request: checked plan, arrivals, serialised bodies."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tuner.errors import UsageError
from tuner.load import arrivals, requests, traces
from tuner.load.base import StagePlan
from tuner.load.processes import CONNECT_TIMEOUT_S
from tuner.rows import Rows

WARMUP_MARGIN_S = 2.0
"""Warm-up arrivals are drawn a little beyond its end, so the load never pauses before the window."""

CLOSED_ORDER = 65_536
CLOSED_CAPACITY = 2_000_000
"""Requests that a process of a closed loop may send; their order repeats after ``CLOSED_ORDER``."""

GRPC, REST = "grpc", "rest"


@dataclass(frozen=True)
class Prepared:
    """A load stage, ready to run."""

    jobs: list[dict[str, Any]]
    warmup_arrivals: np.ndarray
    window_arrivals: np.ndarray
    window_order: np.ndarray
    """Number within the window -> distinct request."""
    payload: requests.Payload
    rows: Rows
    window_length_s: float
    cycle_s: float
    """Shortest time over which the load repeats itself: a burst's on and off, else a second."""
    trace: Mapping[str, object] | None = None
    """What of a trace is played (``traces.Played.describe``); ``None`` for other patterns."""


def check_plan(plan: StagePlan) -> None:
    """Refuse a plan that no stage can follow.

    Raises:
        UsageError: names the field and what would be right.
    """
    if plan.pattern not in arrivals.PATTERNS:
        raise UsageError(
            f"unknown pattern {plan.pattern!r}; one of: {', '.join(arrivals.PATTERNS)}"
        )
    if plan.protocol not in (GRPC, REST):
        raise UsageError(f"unknown protocol {plan.protocol!r}; one of: grpc, rest")
    if plan.protocol == REST and plan.address.startswith("unix:"):
        raise UsageError("REST needs an address HOST:PORT, not a UNIX socket")
    if not plan.model_names:
        raise UsageError("a load stage needs at least one model name")
    if not 0 < plan.min_duration_s <= plan.max_duration_s:
        raise UsageError(
            f"durations must be 0 < minimum <= maximum, not {plan.min_duration_s:g} s "
            f"and {plan.max_duration_s:g} s"
        )
    positive = {
        "clients": plan.clients,
        "connections": plan.connections,
        "processes": plan.processes,
        "rows_per_request": plan.rows_per_request,
        "request_timeout_s": plan.request_timeout_s,
        "precision": plan.precision,
        "burst_on_s": plan.burst_on_s,
        "burst_off_s": plan.burst_off_s,
        "ramp_steps": plan.ramp_steps,
    }
    if plan.rate_rps is not None:
        positive["rate_rps"] = plan.rate_rps
    for name, value in positive.items():
        if not value > 0:
            raise UsageError(f"{name} must be above 0, not {value}")
    if not 0 <= plan.burst_off_share <= 1:
        raise UsageError(f"burst_off_share must lie in 0 to 1, not {plan.burst_off_share}")
    if plan.pattern == "closed" and plan.clients < plan.processes:
        raise UsageError(f"{plan.clients} clients cannot be split over {plan.processes} processes")
    if plan.popularity != "each_once":
        requests.zipf_exponent(plan.popularity)


def prepare(plan: StagePlan, folder: Path) -> Prepared:
    """Draw all that is random and serialise all that is sent, into files of ``folder``.

    Every random sequence has a stream of its own from the plan's seed, so the window's arrivals
    and requests do not depend on how long the warm-up took.

    Raises:
        UsageError, ModelError: see ``check_plan`` and ``rows.read``.
    """
    check_plan(plan)
    rows = requests.read_requests(plan.requests_file)
    streams = [np.random.default_rng(s) for s in np.random.SeedSequence(plan.seed).spawn(5)]
    row_blocks = requests.blocks(rows.alike(), plan.rows_per_request, streams[0])

    closed = plan.pattern == "closed"
    if closed:
        warmup = window = np.empty(0)
        lengths = (CLOSED_ORDER, CLOSED_ORDER)
    else:
        warmup = arrivals.warmup_arrivals(plan, streams[1], plan.max_warmup_s + WARMUP_MARGIN_S)
        window = arrivals.window_arrivals(plan, streams[2])
        lengths = (len(warmup), len(window))
    orders = [
        requests.order(plan.popularity, len(row_blocks), length, stream)
        for length, stream in zip(lengths, streams[3:], strict=True)
    ]
    if closed:
        orders[1] = orders[0]
    # A stage sends a few hundred of a file's million rows: what it never sends is not serialised.
    row_blocks, orders = _sent(row_blocks, orders)
    payload = requests.write_payload(
        folder / "payload", _bodies(plan, rows, row_blocks), row_blocks
    )
    orders = [each % len(payload.lengths) for each in orders]

    files = {
        "warmup_arrivals": warmup.astype("=f8"),
        "window_arrivals": window.astype("=f8"),
        "warmup_order": orders[0].astype("=i4"),
        "window_order": orders[1].astype("=i4"),
    }
    for name, values in files.items():
        (folder / name).write_bytes(values.tobytes())
    job = _job(plan, payload) | {name: str(folder / name) for name in files}
    job["capacity"] = CLOSED_CAPACITY if closed else sum(lengths) // plan.processes + 2
    return Prepared(
        jobs=[
            job | {"clients": _share(plan.clients, plan.processes, i)}
            for i in range(plan.processes)
        ],
        warmup_arrivals=warmup,
        window_arrivals=window,
        window_order=orders[1],
        payload=payload,
        rows=rows,
        window_length_s=arrivals.window_length_s(plan),
        trace=traces.played(plan).describe() if plan.pattern == "trace" else None,
        cycle_s=max(1.0, plan.burst_on_s + plan.burst_off_s) if plan.pattern == "burst" else 1.0,
    )


def _sent(
    row_blocks: np.ndarray, orders: list[np.ndarray]
) -> tuple[np.ndarray, list[np.ndarray]]:
    """The distinct requests that are sent at all, and the orders by their numbers among these."""
    used = np.unique(np.concatenate(orders))
    if not len(used):
        return row_blocks[:1], orders
    return row_blocks[used], [np.searchsorted(used, each).astype(np.int32) for each in orders]


def _bodies(plan: StagePlan, rows: Rows, row_blocks: np.ndarray) -> Any:
    if plan.protocol == GRPC:
        return requests.grpc_bodies(rows, row_blocks)
    return requests.rest_bodies(rows, row_blocks, plan.signature)


def _job(plan: StagePlan, payload: requests.Payload) -> dict[str, Any]:
    return {
        "address": plan.address,
        "protocol": plan.protocol,
        "closed": plan.pattern == "closed",
        "processes": plan.processes,
        "connections": plan.connections,
        "model_count": len(plan.model_names),
        "models": list(plan.model_names),
        "heads": [_text(requests.grpc_model(name, plan.signature)) for name in plan.model_names],
        "metadata_request": _text(requests.grpc_metadata_request(plan.model_names[0])),
        "payload": str(payload.path),
        "lengths": payload.lengths.tolist(),
        "request_timeout_s": plan.request_timeout_s,
        "connect_timeout_s": CONNECT_TIMEOUT_S,
    }


def _share(total: int, parts: int, index: int) -> int:
    return total // parts + (1 if index < total % parts else 0)


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()
