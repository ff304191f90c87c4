"""From records of requests to the numbers of a stage: percentiles, intervals, timeline."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from tuner.load.base import StagePlan
from tuner.load.doom import SILENCE_S, SILENT_PACES
from tuner.load.drift import drift
from tuner.load.precision import Interval, percentile_interval
from tuner.load.window import UNANSWERED, Window, lag_p99_ms, timeline
from tuner.measurement import CEILING, PERCENTILE_RULE, StageResult

QUANTILES = {"p50": 0.50, "p95": 0.95, "p99": 0.99}
SILENT_SHARE = 0.25
"""Share of a closed loop's window without any answer from which on it is no result."""
LAG_SHARE = 0.10
LAG_MS = 1.0
"""A client whose p99 of lag is above both this share of the p50 latency and this time was late."""

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
            everybody = window.latencies_of_all_ms
            known = {name: percentile_interval(everybody, q) for name, q in QUANTILES.items()}
            precise = known["p99"].relative_half_width <= plan.precision
            details = dict(details) | {PERCENTILE_RULE: CEILING, "drift": drift(everybody)}
            numbers = {
                "latency_mean_ms": float(latencies.mean()),
                "latency_max_ms": float(latencies.max()),
            }
            for name, interval in known.items():
                numbers[f"latency_{name}_ms"] = _finite(interval.value)
                numbers[f"latency_{name}_interval_ms"] = _pair(interval)
            answers = len(latencies) if window.answers is None else window.answers
            numbers["throughput_rps"] = answers / window.length_s
        if reason is None:
            reason, message = _verdict(plan, window.length_s, requests, errors, numbers, lag)
            if reason is None and plan.pattern == "closed" and (told := _stalled(plan, window)):
                reason, message = "no_answers", told
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
    "latency_p95_interval_ms",
    "latency_p50_interval_ms",
)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _pair(interval: Interval) -> tuple[float, float | None] | None:
    """The ends as they are stored: ``None`` for an unknown one, or for both."""
    if not math.isfinite(interval.low):
        return None
    return interval.low, _finite(interval.high)


def _stalled(plan: StagePlan, window: Window) -> str | None:
    """That a closed loop, or half of its clients, stood still: the few requests don't show it."""
    hung = window.errors().get(UNANSWERED, 0)
    if 2 * hung >= plan.clients:
        return f"{hung} of {plan.clients} clients waited for an answer that never came"
    silent_s, answers = window.longest_silence_s, window.answers or 1
    usual_s = window.length_s / answers
    if silent_s < max(SILENCE_S, SILENT_PACES * usual_s, SILENT_SHARE * window.length_s):
        return None
    return (
        f"the server answered nothing for {silent_s:.1f} s of a window of {window.length_s:.1f} s, and "
        "a closed loop sends nothing meanwhile"
    )


def _verdict(
    plan: StagePlan,
    length_s: float,
    requests: int,
    errors: Mapping[str, int],
    numbers: Mapping[str, Any],
    lag_ms: float | None,
) -> tuple[str | None, str]:
    failed = sum(errors.values())
    if not numbers and set(errors) <= {UNANSWERED}:
        return "no_answers", (
            f"none of {requests} requests was answered inside the window of {length_s:.3g} s; where one "
            "takes longer than that, give it a longer --duration"
        )
    if failed > plan.max_error_rate * requests:
        names = ", ".join(f"{name} {count}" for name, count in errors.items())
        reason = "overloaded" if max(errors, key=errors.__getitem__) == UNANSWERED else "errors"
        return reason, f"{failed} of {requests} requests failed ({names})"
    if not numbers:
        return "no_answers", f"none of {requests} requests was answered well inside the window"
    limit = max(LAG_MS, LAG_SHARE * (numbers["latency_p50_ms"] or 0.0))
    if lag_ms is not None and lag_ms > limit:
        return "client_limited", (
            f"the load generator sent late: p99 of lag {lag_ms:.2f} ms, above {limit:.2f} ms"
        )
    return None, ""
