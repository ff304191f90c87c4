"""From records of requests to the numbers of a stage: percentiles, intervals, timeline."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from hdrh.histogram import HdrHistogram

from tuner.load.base import StagePlan
from tuner.load.precision import percentile_interval
from tuner.load.records import HTTP_STATUS_OFFSET, OK
from tuner.measurement import StageResult

HIGHEST_US = 3_600_000_000
SIGNIFICANT_DIGITS = 3

LAG_SHARE = 0.10
LAG_MS = 1.0
"""A client whose p99 of lag is above both this share of the p50 latency and this time was late."""

UNANSWERED = "UNANSWERED"
"""Neither answer nor error when the stage was over."""

_GRPC_STATUS = (
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
)


def status_name(status: int) -> str:
    """The name of a recorded status: gRPC's, or ``HTTP_<code>``."""
    if status >= HTTP_STATUS_OFFSET:
        return f"HTTP_{status - HTTP_STATUS_OFFSET}"
    return _GRPC_STATUS[status] if status < len(_GRPC_STATUS) else f"STATUS_{status}"


@dataclass(frozen=True)
class Window:
    """The measured window: its bounds on CLOCK_MONOTONIC and the records of its requests."""

    opened_s: float
    closed_s: float
    records: np.ndarray
    """In order of due time; dtype ``processes.RECORD_DTYPE``."""

    @property
    def length_s(self) -> float:
        return self.closed_s - self.opened_s

    @property
    def answered(self) -> np.ndarray:
        """Mask of the requests that were answered without error."""
        mask: np.ndarray = (self.records["done"] > 0) & (self.records["status"] == OK)
        return mask

    @property
    def latencies_ms(self) -> np.ndarray:
        """Latency of every answered request, from its intended send time, in due order."""
        rows = self.records[self.answered]
        return (rows["done"] - rows["due"]) * 1e3

    def errors(self) -> dict[str, int]:
        """Count of each error status, unanswered requests included."""
        rows = self.records
        failed = rows[(rows["done"] > 0) & (rows["status"] != OK)]
        counts = Counter(status_name(int(status)) for status in failed["status"])
        pending = int(np.count_nonzero(rows["done"] == 0))
        if pending:
            counts[UNANSWERED] = pending
        return dict(sorted(counts.items()))


def select_window(
    records: np.ndarray, opened_s: float, closed_s: float, closed_loop: bool
) -> Window:
    """The requests that belong to a window: due in it, or completed in it for a closed loop."""
    clock = records["done"] if closed_loop else records["due"]
    inside = (clock >= opened_s) & (clock < closed_s)
    if not closed_loop:
        inside &= records["window"] == 1
    chosen = records[inside]
    return Window(opened_s, closed_s, chosen[np.argsort(chosen["due"], kind="stable")])


def percentiles_ms(latencies_ms: np.ndarray, levels: tuple[float, ...]) -> list[float]:
    """Percentiles by a high-dynamic-range histogram: microseconds, three significant digits."""
    histogram = HdrHistogram(1, HIGHEST_US, SIGNIFICANT_DIGITS)
    for value in np.rint(latencies_ms * 1e3).astype(np.int64).tolist():
        histogram.record_value(min(max(value, 1), HIGHEST_US))
    return [histogram.get_value_at_percentile(level) / 1e3 for level in levels]


def timeline(window: Window) -> tuple[Mapping[str, float], ...]:
    """One entry for each second of due time."""
    rows = window.records
    seconds = ((rows["due"] - window.opened_s) // 1).astype(int)
    entries = []
    for second in range(int(np.ceil(window.length_s))):
        part = rows[seconds == second]
        good = part[(part["done"] > 0) & (part["status"] == OK)]
        entry: dict[str, float] = {
            "second": second,
            "requests": len(part),
            "errors": len(part) - len(good),
        }
        if len(good):
            latencies = (good["done"] - good["due"]) * 1e3
            entry["latency_p50_ms"] = float(np.median(latencies))
            entry["latency_max_ms"] = float(latencies.max())
        entries.append(entry)
    return tuple(entries)


def lag_p99_ms(window: Window) -> float | None:
    """How late the client sent, 99th percentile."""
    rows = window.records
    if not len(rows):
        return None
    return float(np.percentile((rows["sent"] - rows["due"]) * 1e3, 99))


def write_samples(path: Path, window: Window, plan: StagePlan, order: np.ndarray) -> None:
    """Keep every request of a window, compressed.

    Arrays of equal length, in due order: ``due_s`` from the window's opening, ``sent_s``,
    ``latency_ms`` (NaN: unanswered), ``status`` (gRPC code, or 1000 + HTTP code), ``request``
    (which distinct request) and ``model`` (index of the model's name).
    """
    rows = window.records
    latency = np.where(rows["done"] > 0, (rows["done"] - rows["due"]) * 1e3, np.nan)
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb") as file:
        np.savez_compressed(
            file,
            due_s=rows["due"] - window.opened_s,
            sent_s=rows["sent"] - window.opened_s,
            latency_ms=latency.astype(np.float32),
            status=rows["status"],
            request=order[rows["number"] % len(order)],
            model=(rows["number"] % len(plan.model_names)).astype(np.int16),
        )


def summarise(
    plan: StagePlan,
    window: Window | None,
    *,
    warmup_s: float,
    reason: str | None,
    message: str,
    client_cpu_s: float | None,
    details: Mapping[str, Any],
) -> StageResult:
    """The record of a stage; ``reason`` is why it ended early, ``None`` if it ran to its end."""
    numbers: dict[str, Any] = {}
    precise = False
    lag: float | None = None
    errors: dict[str, int] = {}
    requests = 0
    if window is not None:
        errors, requests = window.errors(), len(window.records)
        lag = None if plan.pattern == "closed" else lag_p99_ms(window)
        latencies = window.latencies_ms
        if len(latencies):
            p50, p95, p99 = percentiles_ms(latencies, (50.0, 95.0, 99.0))
            tail, middle = percentile_interval(latencies, 0.99), percentile_interval(latencies, 0.5)
            precise = tail.relative_half_width <= plan.precision
            details = dict(details) | {
                "effective_samples_p99": round(tail.effective_samples, 1),
                "p99_interval_bounded": bool(np.isfinite(tail.high)),
            }
            biggest = float(latencies.max())
            numbers = {
                "latency_p50_ms": p50,
                "latency_p95_ms": p95,
                "latency_p99_ms": p99,
                "latency_mean_ms": float(latencies.mean()),
                "latency_max_ms": biggest,
                "latency_p99_interval_ms": (tail.low, min(tail.high, biggest)),
                "latency_p50_interval_ms": (middle.low, min(middle.high, biggest)),
            }
            numbers["throughput_rps"] = len(latencies) / window.length_s
        if reason is None:
            reason, message = _verdict(plan, requests, errors, numbers, lag)
    blank = dict.fromkeys(_MEASURED)
    return StageResult(
        valid=reason is None,
        reason=reason,
        message=message,
        pattern=plan.pattern,
        target_rate_rps=plan.rate_rps,
        warmup_s=warmup_s,
        window_s=window.length_s if window is not None else 0.0,
        requests=requests,
        errors=errors,
        precise=precise,
        client_lag_p99_ms=lag,
        client_cpu_s=client_cpu_s,
        seed=plan.seed,
        rows_per_request=plan.rows_per_request,
        timeline=timeline(window) if window is not None else (),
        details=details,
        **(blank | numbers),
    )


_MEASURED = (
    "throughput_rps",
    "latency_p50_ms",
    "latency_p95_ms",
    "latency_p99_ms",
    "latency_mean_ms",
    "latency_max_ms",
    "latency_p99_interval_ms",
    "latency_p50_interval_ms",
)


def _verdict(
    plan: StagePlan,
    requests: int,
    errors: Mapping[str, int],
    numbers: Mapping[str, Any],
    lag_ms: float | None,
) -> tuple[str | None, str]:
    failed = sum(errors.values())
    if failed > plan.max_error_rate * requests:
        names = ", ".join(f"{name} {count}" for name, count in errors.items())
        reason = "overloaded" if max(errors, key=errors.__getitem__) == UNANSWERED else "errors"
        return reason, f"{failed} of {requests} requests failed ({names})"
    if not numbers:
        return "no_answers", f"none of {requests} requests was answered inside the window"
    limit = max(LAG_MS, LAG_SHARE * numbers["latency_p50_ms"])
    if lag_ms is not None and lag_ms > limit:
        return "client_limited", (
            f"the load generator sent late: p99 of lag {lag_ms:.2f} ms, above {limit:.2f} ms"
        )
    return None, ""
