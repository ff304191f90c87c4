"""One stored trial as a typed record, and what is written of an outcome."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import FrozenTrial, TrialState

from tuner.measurement import UNFINISHED, Configuration, Failure, Outcome, to_json
from tuner.space import Parameter

_STATES = {
    TrialState.COMPLETE: "complete",
    TrialState.RUNNING: "running",
    TrialState.WAITING: "running",
    TrialState.PRUNED: "failed",
    TrialState.FAIL: "failed",
}


@dataclass(frozen=True)
class TrialRecord:
    """One stored trial."""

    number: int
    state: str
    """``complete``, ``failed`` (with a reason), ``running`` or ``killed`` (does not count)."""
    configuration: Configuration
    values: tuple[float, ...] | None
    """Objective values in the study's order, as measured (not negated)."""
    metrics: Mapping[str, float | None]
    violations: Mapping[str, float]
    reason: str | None
    message: str
    measurement: Mapping[str, Any]
    """The whole ``Measurement`` (or what a failure saw) as JSON."""
    notes: Mapping[str, Any]
    """The proposer's notes."""
    started: datetime.datetime | None
    finished: datetime.datetime | None
    attributes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_finished(self) -> bool:
        """Complete or failed with a reason; a killed trial does not count."""
        return self.state in ("complete", "failed")

    @property
    def feasible(self) -> bool:
        return self.state == "complete" and all(v <= 0 for v in self.violations.values())

    @property
    def intervals(self) -> dict[str, tuple[float, float | None]]:
        """95 % confidence intervals of metrics; unknown ones are left out, an unknown upper end is
        ``None``."""
        stage = self.measurement.get("stage") or {}
        told = {
            # What studies hold that were recorded before metrics had their intervals beside them.
            **{f"latency_{p}_ms": stage.get(f"latency_{p}_interval_ms") for p in ("p50", "p99")},
            **(self.measurement.get("intervals") or {}),
        }
        p99 = told.get("latency_p99_ms")
        if p99 and (stage.get("details") or {}).get("p99_interval_bounded") is False:
            # Records of before hold the largest latency where no upper bound is known.
            told["latency_p99_ms"] = (p99[0], None)
        return {name: (held[0], held[1]) for name, held in told.items() if held}

    @property
    def energy_source(self) -> str | None:
        energy = self.measurement.get("energy") or {}
        return energy.get("source")


def distribution(parameter: Parameter) -> BaseDistribution:
    """How Optuna stores a parameter's values."""
    if parameter.choices:
        return CategoricalDistribution(parameter.choices)
    assert parameter.low is not None and parameter.high is not None
    if parameter.kind == "int":
        step = int(parameter.step or 1)
        return IntDistribution(int(parameter.low), int(parameter.high), parameter.log, step)
    return FloatDistribution(parameter.low, parameter.high, parameter.log, parameter.step)


def attributes_of(outcome: Outcome) -> dict[str, Any]:
    if isinstance(outcome, Failure):
        return {
            "reason": outcome.reason,
            "message": outcome.message,
            "log_tail": outcome.log_tail,
            "measurement": to_json(outcome.partial),
        }
    flat = {k: v for k, v in outcome.metrics().items() if v is not None}
    # The flat numbers are for people who look with Optuna's dashboard.
    return {
        **flat,
        "energy_source": outcome.energy.source if outcome.energy else None,
        "energy_method": outcome.energy.method if outcome.energy else None,
        "measurement": {
            **to_json(outcome),
            "metrics": outcome.metrics(),
            "intervals": to_json(outcome.intervals()),
        },
    }


def state_of(frozen: FrozenTrial) -> str:
    if frozen.state == TrialState.FAIL and frozen.user_attrs.get("reason", "killed") in UNFINISHED:
        return "killed"
    return _STATES[frozen.state]


def record_of(frozen: FrozenTrial) -> TrialRecord:
    attributes = frozen.user_attrs
    if frozen.state == TrialState.COMPLETE and attributes.get("reason") == "killed":
        # Taken for dead, but its owner was quicker (behind a proxy a kill is not one transaction).
        untrue = ("reason", "message", "feasible")
        attributes = {k: v for k, v in attributes.items() if k not in untrue}
    measurement = attributes.get("measurement") or {}
    return TrialRecord(
        number=frozen.number,
        state=state_of(frozen),
        configuration=dict(frozen.params),
        values=tuple(frozen.values) if frozen.values is not None else None,
        metrics=measurement.get("metrics") or {},
        violations=dict(frozen.constraints or {}) if frozen.state == TrialState.COMPLETE else {},
        reason=attributes.get("reason"),
        message=attributes.get("message", ""),
        measurement=measurement,
        notes=attributes.get("notes") or {},
        started=frozen.datetime_start,
        finished=frozen.datetime_complete,
        attributes=attributes,
    )
