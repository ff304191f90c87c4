"""One stored trial as a typed record, and what is written of an outcome."""

from __future__ import annotations

import datetime
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from types import MappingProxyType
from typing import Any

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import FrozenTrial, TrialState

from tuner.feasibility import (
    ERROR_RATE,
    THROUGHPUT,
    error_rate_probabilities,
    hold_probability,
    throughput_probabilities,
)
from tuner.measurement import (
    UNFINISHED,
    Configuration,
    Failure,
    Measurement,
    Outcome,
    Scalar,
    metrics_of,
    to_json,
)
from tuner.space import Parameter, Space, same

LIMITS_KEY = "constraints"
"""System attribute with a trial's violations as a list: Optuna's key before version 5, and the
one by which its dashboard tells trials beyond a limit. Optuna 5 reads it beside its own keys."""
_EXACT = 2**53
"""Larger whole numbers are not all floats."""

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
    def violation_intervals(self) -> dict[str, tuple[float | None, float | None] | None]:
        """95 % intervals of violations, as ``violation_intervals``; a record of before has none."""
        told = self.attributes.get("violation_intervals") or {}
        return {key: held and (held[0], held[1]) for key, held in told.items()}

    @property
    def limit_probabilities(self) -> dict[str, float]:
        """That each limit holds, as ``limit_probabilities``; a record of before has none."""
        return dict(self.attributes.get("limit_probabilities") or {})

    @property
    def energy_source(self) -> str | None:
        energy = self.measurement.get("energy") or {}
        return energy.get("source")


def distribution(parameter: Parameter, *, by_value: bool = True) -> BaseDistribution:
    """How Optuna stores a parameter's values.

    Listed numbers are stored as the range that they span, in the logarithm where they are spaced
    more evenly there: Optuna's dashboard puts categories into the order of their names (1, 16, 2).
    Which of the range's values may be chosen stands in the study's description of its space.

    Args:
        by_value: ``False`` stores every list as categories, as studies of before do.
    """
    if parameter.choices:
        numbers = [c for c in parameter.choices if isinstance(c, (int, float))]
        if not by_value or not _are_numbers(parameter.choices):
            return CategoricalDistribution(parameter.choices)
        low, high, log = min(numbers), max(numbers), _is_even_in_log(numbers)
        if all(isinstance(c, int) for c in numbers):
            return IntDistribution(int(low), int(high), log)
        return FloatDistribution(low, high, log)
    assert parameter.low is not None and parameter.high is not None
    if parameter.kind == "int":
        step = int(parameter.step or 1)
        return IntDistribution(int(parameter.low), int(parameter.high), parameter.log, step)
    return FloatDistribution(parameter.low, parameter.high, parameter.log, parameter.step)


def _are_numbers(choices: Sequence[Scalar]) -> bool:
    """Whether all are numbers that the storage, which keeps floats, gives back as they are."""
    return all(
        isinstance(c, (int, float)) and not isinstance(c, bool) and abs(c) <= _EXACT for c in choices
    )


def _is_even_in_log(numbers: Sequence[float]) -> bool:
    """Whether neighbours lie further apart the larger they are, as 1, 2, 4, 8 do."""
    rising = sorted(numbers)
    if len(rising) < 3 or rising[0] <= 0:
        return False
    gaps = [b - a for a, b in pairwise(rising)]
    ratios = [math.log(b / a) for a, b in pairwise(rising)]
    return max(ratios) * min(gaps) < max(gaps) * min(ratios)


def mixed(description: Mapping[str, Any]) -> dict[str, tuple[Scalar, ...]]:
    """The lists of a space that hold both whole numbers and fractions.

    The storage gives a 1 among fractions back as 1.0; ``record_of`` needs the list to tell.
    """
    lists = {p["name"]: tuple(p["choices"]) for p in description.get("parameters", ())}
    return {
        name: choices for name, choices in lists.items()
        if _are_numbers(choices) and len({type(c) for c in choices}) == 2
    }


def chosen(frozen: FrozenTrial, lists: Mapping[str, Sequence[Scalar]]) -> Configuration:
    """The configuration of a stored trial, its values as the space's file writes them."""
    return {
        name: next((c for c in lists.get(name, ()) if same(c, value)), value)
        for name, value in frozen.params.items()
    }


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


def violation_intervals(
    measurement: Measurement, space: Space
) -> dict[str, tuple[float | None, float | None] | None]:
    """Constraint -> 95 % interval of its violation, an end of ``None`` being unknown; ``None`` where
    its metric was not measured at all. A constraint whose interval nobody knows is left out.

    Kept beside the violations, since the loop of a study reads no whole measurements.
    """
    metrics, intervals = measurement.metrics(), measurement.intervals()
    told: dict[str, tuple[float | None, float | None] | None] = {}
    for constraint in space.constraints:
        interval = intervals.get(constraint.metric)
        if metrics.get(constraint.metric) is None:
            told[constraint.key] = None
        elif interval is not None:
            low, high = (None if end is None else constraint.violation(end) for end in interval)
            # Of a metric with a lower bound the largest value violates least.
            told[constraint.key] = (low, high) if constraint.maximum is not None else (high, low)
    return told


def limit_probabilities(measurement: Measurement, space: Space) -> dict[str, float]:
    """Constraint -> probability that it holds, of one measurement (see ``feasibility``).

    A constraint whose metric was not measured is left out, and so is one of whose error nothing is
    known.
    """
    metrics, intervals = measurement.metrics(), measurement.intervals()
    stage = measurement.stage
    wrong, asked, rate = sum(stage.errors.values()), stage.requests, stage.target_rate_rps
    told = {}
    for constraint in space.constraints:
        value = metrics.get(constraint.metric)
        if value is None:
            continue
        bound, sign = constraint.maximum, "<="
        if bound is None:
            bound, sign = constraint.minimum, ">="
        assert bound is not None
        if constraint.metric == ERROR_RATE and asked:
            chance = float(error_rate_probabilities([wrong], [asked], bound, sign)[0])
        elif constraint.metric == THROUGHPUT and asked and rate:
            chance = float(throughput_probabilities([wrong], [asked], [rate], bound, sign)[0])
        else:
            low, high = intervals.get(constraint.metric) or (None, None)
            chance = hold_probability(value, low, high, bound, sign)
        if not math.isnan(chance):
            told[constraint.key] = chance
    return told


def state_of(frozen: FrozenTrial) -> str:
    if frozen.state == TrialState.FAIL and frozen.user_attrs.get("reason", "killed") in UNFINISHED:
        return "killed"
    return _STATES[frozen.state]


def record_of(
    frozen: FrozenTrial, lists: Mapping[str, Sequence[Scalar]] = MappingProxyType({})
) -> TrialRecord:
    """A stored trial; ``lists``: what ``mixed`` gives for the study's space."""
    attributes = frozen.user_attrs
    if frozen.state == TrialState.COMPLETE and attributes.get("reason") == "killed":
        # Taken for dead, but its owner was quicker (behind a proxy a kill is not one transaction).
        untrue = ("reason", "message", "feasible")
        attributes = {k: v for k, v in attributes.items() if k not in untrue}
    measurement = attributes.get("measurement") or {}
    return TrialRecord(
        number=frozen.number,
        state=state_of(frozen),
        configuration=chosen(frozen, lists),
        values=tuple(frozen.values) if frozen.values is not None else None,
        metrics=metrics_of(measurement),
        violations=_violations(frozen) if frozen.state == TrialState.COMPLETE else {},
        reason=attributes.get("reason"),
        message=attributes.get("message", ""),
        measurement=measurement,
        notes=attributes.get("notes") or {},
        started=frozen.datetime_start,
        finished=frozen.datetime_complete,
        attributes=attributes,
    )


def _violations(frozen: FrozenTrial) -> dict[str, float]:
    """By constraint, without the nameless ones that ``LIMITS_KEY`` adds for the dashboard."""
    return {key: v for key, v in (frozen.constraints or {}).items() if not key.isdigit()}
