"""The seam of proposing: say what to try next, learn how trials ended."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tuner.measurement import Configuration


@dataclass(frozen=True)
class Proposal:
    """What to try next.

    ``notes`` is JSON that is stored with the trial and handed back in its ``Observation``, so a
    proposer built anew in another process can go on where the last one stopped (NSGA-II's
    generation, the weight of each source in a transfer).
    """

    configuration: Configuration
    notes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Observation:
    """How a trial ended, as a proposer sees it.

    ``values`` are the objective values in the space's order, each to be minimised (the study
    negates what is maximised); ``None`` when the trial failed or still runs. ``violations`` maps
    each constraint to a number relative to its bound, <= 0 meaning kept, infinity that its metric
    was not measured; a failure of the server carries ``{"failed": 1.0}``, and how much worse than a
    measured trial that is each proposer knows; one that is not the server's carries nothing.
    """

    configuration: Configuration
    state: str
    """``complete``, ``failed`` or ``running`` (proposed elsewhere, no result yet)."""
    values: tuple[float, ...] | None = None
    violations: Mapping[str, float] = field(default_factory=dict)
    notes: Mapping[str, Any] = field(default_factory=dict)
    number: int = -1
    """The trial's number in its study; a ``running`` observation is replaced by the final one
    with the same number."""
    violation_intervals: Mapping[str, tuple[float | None, float | None]] = field(
        default_factory=dict
    )
    """95 % intervals of violations, where the measurement has them; an end of ``None`` is unknown."""
    limit_probabilities: Mapping[str, float] = field(default_factory=dict)
    """That each constraint holds, where the measurement tells (``tuner.feasibility``)."""

    @property
    def tells_nothing(self) -> bool:
        """Whether it failed without the server's doing (``measurement.NOT_THE_SERVERS``)."""
        return self.state == "failed" and not self.violations

    @property
    def feasible(self) -> bool:
        return self.state == "complete" and all(v <= 0 for v in self.violations.values())


class Proposer(ABC):
    """Proposes configurations of one space for one environment."""

    name: str

    @abstractmethod
    def propose(self) -> Proposal | None:
        """The next configuration to try, or ``None`` when nothing is left to propose."""

    @abstractmethod
    def observe(self, observation: Observation) -> None:
        """Learn how a trial ended; trials of earlier processes come first, in their order."""

    def explain(self) -> str:
        """One line for a person: what this proposer does and why it was taken."""
        return self.name
