"""How sure it is that a trial kept its limits: what its measurement's intervals say of that."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
from scipy.stats import norm

from tuner.feasibility import joint_probabilities
from tuner.measurement import configuration_key
from tuner.propose.base import Observation
from tuner.propose.history import Key

_Z_95 = float(norm.ppf(0.975))
_OPEN = 2.0
"""An end of an interval that nobody knows is taken for so many times as far away as the other one.
Percentiles of few requests have no upper end; their violations would tell nothing else."""


def deviation(observation: Observation, constraint: str) -> float:
    """Standard deviation of a violation on the side where its bound lies; zero where no interval
    is known. The two sides of a percentile's interval differ by far."""
    violation = observation.violations[constraint]
    low, high = observation.violation_intervals.get(constraint, (None, None))
    if not math.isfinite(violation):
        return 0.0
    below = None if low is None else max(violation - low, 0.0)
    above = None if high is None else max(high - violation, 0.0)
    towards, away = (above, below) if violation <= 0 else (below, above)
    if towards is None:
        towards = _OPEN * (away or 0.0)
    return towards / _Z_95


def kept_by(observation: Observation) -> float:
    """Probability that a trial kept every limit (``feasibility.joint_probabilities``); 0 for a
    failure, and of a limit 0 or 1 where the measurement tells no probability."""
    if observation.state != "complete":
        return 0.0
    limits, chances = [], []
    for constraint, violation in observation.violations.items():
        metric, _, rest = constraint.partition(" ")
        told = observation.limit_probabilities.get(constraint)
        limits.append((metric, rest.partition(" ")[0]))
        chances.append(float(violation <= 0) if told is None else told)
    return float(joint_probabilities(limits, [chances])[0])


def kept(finished: Sequence[Observation]) -> Mapping[Key, float]:
    """Configuration's key -> probability that it keeps every limit: the mean of its trials'. A
    configuration that failed in one of three repeats has two thirds at most; trials that tell
    nothing are left out."""
    told: dict[Key, list[float]] = defaultdict(list)
    for observation in finished:
        if not observation.tells_nothing:
            told[configuration_key(observation.configuration)].append(kept_by(observation))
    return {key: float(np.mean(each)) for key, each in told.items()}
