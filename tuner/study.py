"""The loop of a study: propose, run, tell; resume where the last process stopped."""

from __future__ import annotations

import math
import time
import traceback
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from tuner import interrupts
from tuner.errors import LostError
from tuner.measurement import (
    NOT_THE_SERVERS,
    Configuration,
    Failure,
    Outcome,
    Scalar,
    configuration_key,
)
from tuner.propose.base import Observation, Proposal, Proposer
from tuner.space import Space
from tuner.store import Heartbeat, Store, TrialRecord

WAIT_S = 0.5
"""How often is looked whether other workers' last trials have ended."""
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

    def waiting(self, trials: int) -> None:
        """Nothing is left to start, but other workers still run so many trials."""


class Silence:
    """A listener that does nothing."""

    def started(self, number: int, configuration: Configuration, levels: Levels) -> None:
        pass

    def finished(self, record: TrialRecord, levels: Levels) -> None:
        pass

    def waiting(self, trials: int) -> None:
        pass


@dataclass
class Arm:
    """One environment of a study: its levels, its store, its proposer.

    ``renew`` makes the proposer anew; it is needed where others work on the study too, since a
    proposer can't take back that a configuration is on its way when that worker dies.
    """

    levels: Levels
    store: Store
    proposer: Proposer
    renew: Callable[[], Proposer] | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)
    """Stored with every trial, beside what the evaluator says."""
    seen: dict[int, str] = field(default_factory=dict)
    finished: int = 0
    running: set[int] = field(default_factory=set)
    """Trials that other workers run."""
    tried: Counter[Any] = field(default_factory=Counter)
    """Configuration's key -> its trials, killed ones left out."""
    lost: bool = False
    """Whether others took a trial of this process for dead while it ran."""

    @property
    def claimed(self) -> int:
        """Trials finished or on their way."""
        return self.finished + len(self.running)

    def catch_up(self, space: Space) -> bool:
        """Tell the proposer what is new in the store, its own trials and other workers'.

        Returns:
            Whether a running trial was killed, so that its configuration is free again.
        """
        freed = self._learn(space) or self.lost
        self.lost = False
        if freed and self.renew is not None:
            self.proposer = self.renew()
            # All of it once more: what has changed since must not be missed by the new one.
            self.seen.clear()
            self.running.clear()
            self.tried.clear()
            self.finished = 0
            self._learn(space)
        return freed

    def _learn(self, space: Space) -> bool:
        freed = False
        for record in self.store.changed(self.seen):
            before = self.seen.get(record.number)
            self.seen[record.number] = record.state
            key = configuration_key(record.configuration)
            self.running.discard(record.number)
            if before is not None:
                self.tried[key] -= 1
            if record.state == "killed":
                freed |= before == "running"
                continue
            self.tried[key] += 1
            if record.state == "running":
                self.running.add(record.number)
            else:
                self.finished += 1
            self.proposer.observe(observation(record, space))
        return freed


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
    intervals = record.violation_intervals
    # A metric that was not measured has no number that another trial's could be compared with.
    unmeasured = {key: math.inf for key, interval in intervals.items() if interval is None}
    violations = {**record.violations, **unmeasured}
    if record.state == "failed":
        violations = {} if record.reason in NOT_THE_SERVERS else {"failed": 1.0}
    return Observation(
        configuration=record.configuration,
        state=record.state,
        values=values,
        violations=violations,
        notes=record.notes,
        number=record.number,
        violation_intervals={k: interval for k, interval in intervals.items() if interval},
        limit_probabilities=record.limit_probabilities,
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

    Trials of earlier processes and of other workers count; trials that a kill ended do not. The
    arms take turns in proposing; every proposal is measured at all levels that still lack trials.
    At the end other workers' trials are waited for, since a dead worker's are to be done again.

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
    with interrupts.deferred(), Heartbeat([arm.store for arm in arms]):
        return _run(space, arms, evaluator, n_trials, timeout_s, listener or Silence())


def _run(
    space: Space, arms: Sequence[Arm], evaluator: Evaluator, n_trials: int | None,
    timeout_s: float | None, listener: Listener,
) -> Summary:
    begun = time.monotonic()
    done = 0
    exhausted: set[int] = set()
    said_waiting = False
    while True:
        for index, arm in enumerate(arms):
            arm.store.reap()
            if arm.catch_up(space):
                exhausted.discard(index)
        lacking = [i for i, arm in enumerate(arms) if n_trials is None or arm.claimed < n_trials]
        open_arms = [i for i in lacking if i not in exhausted]
        reason = None
        if timeout_s is not None and time.monotonic() - begun >= timeout_s:
            reason = "timeout" if lacking else "trials"
        elif not open_arms:
            elsewhere = sum(len(arm.running) for arm in arms)
            if elsewhere:
                # One of them may die, and then its trial is ours to do.
                if not said_waiting:
                    listener.waiting(elsewhere)
                    said_waiting = True
                with interrupts.allowed():
                    time.sleep(WAIT_S)
                continue
            reason = "exhausted" if lacking else "trials"
        if reason is not None:
            return Summary(done, reason, time.monotonic() - begun)
        leader = min(open_arms, key=lambda i: (arms[i].claimed, i))
        with interrupts.allowed():
            proposal = arms[leader].proposer.propose()
        if proposal is None:
            exhausted.add(leader)
            continue
        key = configuration_key(proposal.configuration)
        behind = [
            arms[i] for i in open_arms
            if i != leader and arms[i].tried[key] <= arms[leader].tried[key]
        ]
        done += _run_one(space, [arms[leader], *behind], proposal, evaluator, listener, n_trials)


def _run_one(
    space: Space, arms: Sequence[Arm], proposal: Proposal, evaluator: Evaluator,
    listener: Listener, n_trials: int | None,
) -> int:
    """Run a proposal at the levels of all arms that no other worker claims; how many finished."""
    configuration = proposal.configuration
    attributes = evaluator.attributes()
    started: list[tuple[Arm, int]] = []
    done, settled = 0, 0
    try:
        for arm in arms:
            number = arm.store.claim(
                # Only the arm whose proposer spoke keeps its notes.
                configuration, space, proposal.notes if arm is arms[0] else {},
                {**arm.attributes, **attributes}, known=arm.seen, at_most=n_trials,
            )
            if number is None and arm is arms[0]:
                return 0
            if number is not None:
                started.append((arm, number))
                listener.started(number, configuration, arm.levels)
        try:
            with interrupts.allowed():
                outcomes = evaluator.evaluate(
                    configuration, [arm.levels for arm, _ in started], [n for _, n in started]
                )
        except LostError:
            raise  # No later trial would fare better.
        except Exception as error:  # noqa: BLE001 - a trial must not take the study down
            outcomes = [
                Failure("internal", f"{type(error).__name__}: {error}", traceback.format_exc())
            ] * len(started)
        for (arm, number), outcome in zip(started, outcomes, strict=True):
            record = arm.store.finish(number, outcome, space)
            settled += 1
            done += record.is_finished
            arm.lost |= not record.is_finished
            listener.finished(record, arm.levels)
    except BaseException:
        for arm, number in started[settled:]:
            arm.store.kill(number, "the study was stopped while the trial ran")
        raise
    return done
