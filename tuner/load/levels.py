"""Load levels: shares of the capacity that a short closed loop finds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from tuner.errors import TrialFailure, UsageError
from tuner.load.base import StageObserver, StagePlan
from tuner.load.stage import run_stage
from tuner.quantities import RATE

LEVELS: Mapping[str, float] = {"light": 0.3, "medium": 0.6, "high": 0.9}
"""Level -> share of the calibrated capacity."""

CALIBRATION_CLIENTS = 8
CALIBRATION_S = 3.0


def calibrate(
    plan: StagePlan,
    clients: int = CALIBRATION_CLIENTS,
    duration_s: float = CALIBRATION_S,
    observer: StageObserver | None = None,
) -> float:
    """Successful requests per second of a closed loop: the capacity that levels refer to.

    Args:
        plan: whom to drive with what; its pattern, rate, clients, durations and samples file are
            not used.

    Raises:
        TrialFailure: the closed loop gave no measurement.
    """
    closed = replace(
        plan,
        pattern="closed",
        rate_rps=None,
        clients=clients,
        processes=min(plan.processes, clients),
        min_duration_s=duration_s,
        max_duration_s=duration_s,
        samples_file=None,
    )
    result = run_stage(closed, observer)
    if not result.valid or not result.throughput_rps:
        raise TrialFailure(result.reason or "no_answers", f"calibration: {result.message}")
    return result.throughput_rps


def rate_for(level: str | float, capacity_rps: float | None) -> float:
    """The arrival rate of a level's name, or of a rate given as a number (requests per second).

    Raises:
        UsageError: neither a level nor a rate above 0, or a level without a capacity.
    """
    if isinstance(level, str) and level in LEVELS:
        if capacity_rps is None:
            raise UsageError(f"the load level {level!r} needs a calibrated capacity")
        return LEVELS[level] * capacity_rps
    try:
        rate = float(level)
    except ValueError:
        rate = float("nan")
    if RATE.refusal(rate) is not None:
        raise UsageError(
            f"load {level!r} is neither a level ({', '.join(LEVELS)}) nor {RATE.words}"
        )
    return rate
