"""The loop of a study: propose, run, tell; resume where the last process stopped."""

from __future__ import annotations

import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from tuner import interrupts
from tuner.measurement import Configuration, Failure, Outcome, Scalar
from tuner.propose.base import Observation, Proposer
from tuner.space import Space
from tuner.store import Store, TrialRecord

Levels = Mapping[str, Scalar]
"""One level of every factor, e.g. ``{"load": "high"}``; empty for a space without factors."""


class Evaluator(Protocol):
    """What turns a configuration into outcomes: a served model, a recorded table, the user's own."""

    def evaluate(
        self, configuration: Configuration, levels: Sequence[Levels], numbers: Sequence[int]
    ) -> Sequence[Outcome]:
        """Run one configuration at each of the levels, in that order, on one deployment.

        Args:
            configuration: the proposed knobs.
            levels: the levels to run at.
            numbers: the stored trial's number for each level.
        """

    def attributes(self) -> Mapping[str, Any]:
        """What is stored with every trial from its start: seeds, versions, the machine's state."""


class Listener(Protocol):
    """Told how the loop goes on; prints nothing itself."""

    def started(self, number: int, configuration: Configuration, levels: Levels) -> None: ...

    def finished(self, record: TrialRecord, levels: Levels) -> None: ...


class Silence:
    """A listener that does nothing."""

    def started(self, number: int, configuration: Configuration, levels: Levels) -> None:
        pass

    def finished(self, record: TrialRecord, levels: Levels) -> None:
        pass


@dataclass
class Arm:
    """One environment of a study: its levels, its store, its proposer."""

    levels: Levels
    store: Store
    proposer: Proposer
    seen: dict[int, str] = field(default_factory=dict)
    finished: int = 0

    def catch_up(self, space: Space) -> None:
        """Tell the proposer what is new in the store, its own trials and other workers'."""
        for record in self.store.changed(self.seen):
            before = self.seen.get(record.number)
            self.seen[record.number] = record.state
            if record.is_finished and before not in ("complete", "failed"):
                self.finished += 1
            if record.state != "killed" or before == "running":
                self.proposer.observe(observation(record, space))


@dataclass(frozen=True)
class Summary:
    """How a run of the loop ended."""

    trials: int
    """Trials finished by this run, over all levels."""
    reason: str
    """``trials``, ``timeout``, ``exhausted`` or ``interrupted``."""
    seconds: float


def observation(record: TrialRecord, space: Space) -> Observation:
    """A stored trial as a proposer sees it; all values to be minimised."""
    values = None
    if record.values is not None:
        values = tuple(o.to_minimise(v) for o, v in zip(space.objectives, record.values))
    violations = record.violations
    if record.state == "failed":
        violations = {"failed": 1.0}
    return Observation(
        configuration=record.configuration,
        state=record.state,
        values=values,
        violations=violations,
        notes=record.notes,
        number=record.number,
    )


def run(
    space: Space,
    arms: Sequence[Arm],
    evaluator: Evaluator,
    *,
    n_trials: int | None,
    timeout_s: float | None = None,
    listener: Listener | None = None,
) -> Summary:
    """Propose, run and tell until each arm holds ``n_trials`` finished trials.

    Trials of earlier processes count; trials that a kill ended do not. The arms take turns in
    proposing; every proposal is measured at all levels that still lack trials.

    Args:
        space: what may vary.
        arms: one for each combination of factor levels.
        evaluator: runs configurations.
        n_trials: finished trials wanted in each arm; ``None``: until nothing is left to propose.
        timeout_s: no trial starts later than this.
        listener: told of each trial.

    Raises:
        KeyboardInterrupt: on SIGINT or SIGTERM, after the trial in flight is stored as killed. It
            never breaks off a transaction: only proposing and measuring are interrupted.
    """
    with interrupts.deferred():
        return _run(space, arms, evaluator, n_trials, timeout_s, listener or Silence())


def _run(
    space: Space, arms: Sequence[Arm], evaluator: Evaluator, n_trials: int | None,
    timeout_s: float | None, listener: Listener,
) -> Summary:
    begun = time.monotonic()
    done = 0
    for arm in arms:
        arm.store.reap()

    def summary(reason: str) -> Summary:
        return Summary(done, reason, time.monotonic() - begun)

    exhausted: set[int] = set()
    while True:
        for arm in arms:
            arm.catch_up(space)
        lacking = [
            i for i, arm in enumerate(arms) if n_trials is None or arm.finished < n_trials
        ]
        if not lacking:
            return summary("trials")
        open_arms = [i for i in lacking if i not in exhausted]
        if not open_arms:
            return summary("exhausted")
        if timeout_s is not None and time.monotonic() - begun >= timeout_s:
            return summary("timeout")
        leader = min(open_arms, key=lambda i: (arms[i].finished, i))
        with interrupts.allowed():
            proposal = arms[leader].proposer.propose()
        if proposal is None:
            exhausted.add(leader)
            continue
        running = [arms[leader], *(arms[i] for i in open_arms if i != leader)]
        done += _run_one(space, running, proposal.configuration, proposal.notes, evaluator, listener)


def _run_one(
    space: Space,
    arms: Sequence[Arm],
    configuration: Configuration,
    notes: Mapping[str, Any],
    evaluator: Evaluator,
    listener: Listener,
) -> int:
    attributes = evaluator.attributes()
    numbers: list[int] = []
    settled: set[int] = set()
    try:
        for index, arm in enumerate(arms):
            # Only the arm whose proposer spoke keeps its notes.
            numbers.append(
                arm.store.start(configuration, space, notes if index == 0 else {}, attributes)
            )
            listener.started(numbers[-1], configuration, arm.levels)
        try:
            with interrupts.allowed():
                outcomes = evaluator.evaluate(configuration, [a.levels for a in arms], numbers)
        except Exception as error:  # noqa: BLE001 - a trial must not take the study down
            outcomes = [
                Failure("internal", f"{type(error).__name__}: {error}", traceback.format_exc())
            ] * len(arms)
        for index, (arm, number, outcome) in enumerate(zip(arms, numbers, outcomes, strict=True)):
            record = arm.store.finish(number, outcome, space)
            settled.add(index)
            listener.finished(record, arm.levels)
    except BaseException:
        for index, number in enumerate(numbers):
            if index not in settled:
                arms[index].store.kill(number, "the study was stopped while the trial ran")
        raise
    return len(arms)
