"""Optuna's samplers behind the seam: each runs in an in-memory study that mirrors the trials.

A study of its own lets a duplicate or an invalid suggestion be thrown away without a trace in
the stored one, and keeps storages and samplers apart.
"""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.samplers import BaseGASampler, GPSampler
from optuna.trial import TrialState, create_trial

from tuner.measurement import Configuration, Scalar, configuration_key
from tuner.propose.base import Observation, Proposal, Proposer
from tuner.propose.candidates import Untried, draw, enumerated
from tuner.propose.encoding import Encoder, is_ordered
from tuner.propose.history import History, Key, derived_seed
from tuner.space import Parameter, Space, same

FAILED = "failed"
"""Constraint that a trial without a measurement violates, by more than any measured trial violates
all others together; a measured one keeps it."""
_MOST_KEPT = -1.0
"""A bound kept by more than its own size counts as kept by that: further inside tells no more."""
_GENERATIONS = 20
"""Generations kept apart when an evolution is resumed; all before become the first one. Optuna
finds a generation's parents by recursion through those before, which ends at some hundreds."""
_ATTEMPTS = 5
"""Suggestions asked for before the nearest new configuration is taken instead."""


class MirrorProposer(Proposer):
    """One Optuna sampler.

    Args:
        sampler: makes the sampler from a seed; called at the first proposal, with a seed derived
            from the number of trials known by then.
        repeats: whether a configuration may be proposed again.
    """

    def __init__(
        self,
        name: str,
        space: Space,
        sampler: Callable[[int], optuna.samplers.BaseSampler],
        *,
        seed: int,
        repeats: bool = False,
        explanation: str = "",
    ) -> None:
        self.name = name
        self._space, self._sampler, self._seed, self._repeats = space, sampler, seed, repeats
        self._explanation = explanation
        self._distributions = {p.name: distribution(p) for p in space.parameters}
        self._history = History()
        self._running: dict[Key, list[optuna.Trial]] = {}
        self._valueless: list[tuple[optuna.Trial, Observation]] = []
        """Failures that wait for the first measured trial: until then nothing is worst."""
        self._limits = [constraint.key for constraint in space.constraints]
        self._started = False
        with _quietly():
            self._study = optuna.create_study(directions=["minimize"] * len(space.objectives))
        self._all = enumerated(space)
        self._encoder = Encoder(space)
        self._untried = Untried(self._all or (), self._encoder)

    def propose(self) -> Proposal | None:
        with _quietly():
            if not self._started:
                self._start()
            found = self._suggest_new() or self._nearest_new()
        if found is None:
            return None
        trial, configuration = found
        self._running.setdefault(configuration_key(configuration), []).append(trial)
        self._remember(configuration)
        return Proposal(configuration, self._notes(trial))

    def adopt(self, configuration: Configuration) -> None:
        """Take what another proposer of this process has just proposed as running."""
        self._remember(configuration)
        if self._started:
            with _quietly():
                self._mirror_running(configuration)

    def observe(self, observation: Observation) -> None:
        self._history.observe(observation)
        self._untried.remove(observation.configuration)
        if not self._started:
            return
        mirrored = self._running.get(configuration_key(observation.configuration))
        with _quietly():
            if observation.state == "running":
                if not mirrored:
                    self._mirror_running(observation.configuration)
            elif mirrored:
                self._tell(mirrored.pop(), observation)
            else:
                self._add(observation)

    def explain(self) -> str:
        return f"{self.name}: {self._explanation}" if self._explanation else self.name

    def _remember(self, configuration: Configuration) -> None:
        self._history.propose(configuration)
        self._untried.remove(configuration)

    def _start(self) -> None:
        """Make the sampler and show it the trials of earlier processes."""
        seed = derived_seed(self._seed, self._history.trials)
        self._rng = np.random.default_rng(seed)
        self._study.sampler = self._sampler(seed)
        last = max((_generation(o.notes) for o in self._history.finished), default=0)
        self._first_generation = max(0, last - _GENERATIONS)
        for observation in self._history.finished:
            self._add(observation)
        for configuration in self._history.pending:
            self._mirror_running(configuration)
        self._started = True

    # What the mirror is asked.

    def _suggest_new(self) -> tuple[optuna.Trial, Configuration] | None:
        if self._all is not None and not self._repeats and not self._untried:
            return None
        for _ in range(_ATTEMPTS):
            trial = self._study.ask()
            self._last = self._suggest(trial)
            if self._space.is_valid(self._last) and self._is_new(self._last):
                return trial, self._last
            self._study.tell(trial, state=TrialState.FAIL)
        return None

    def _suggest(self, trial: optuna.Trial) -> dict[str, Scalar]:
        configuration: dict[str, Scalar] = {}
        for parameter in self._space.parameters:
            if self._space.active(configuration, parameter):
                # The distributions are checked at construction; `_suggest` takes them as they are.
                inner = _suggested(trial, parameter, self._distributions[parameter.name])
                configuration[parameter.name] = to_value(parameter, inner)
        return configuration

    def _nearest_new(self) -> tuple[optuna.Trial, Configuration] | None:
        """The new configuration nearest to the last suggestion: where the sampler wanted to go."""
        if self._all is None:
            chosen = draw(self._space, self._rng, self._is_new)
            return None if chosen is None else (self._run(chosen), chosen)
        chosen = self._untried.nearest(self._last, tried_too=self._repeats)
        return None if chosen is None else (self._run(chosen), chosen)

    def _is_new(self, configuration: Configuration) -> bool:
        return self._repeats or not self._history.has_seen(configuration)

    # What the mirror is told.

    def _run(self, configuration: Configuration) -> optuna.Trial:
        """A running trial of the mirror with a given configuration."""
        self._study.enqueue_trial(self._params(configuration))
        trial = self._study.ask()
        self._suggest(trial)
        return trial

    def _mirror_running(self, configuration: Configuration) -> None:
        trial = self._run(configuration)
        self._running.setdefault(configuration_key(configuration), []).append(trial)

    def _tell(self, trial: optuna.Trial, observation: Observation) -> None:
        if self._leaves_out(observation):
            self._study.tell(trial, state=TrialState.FAIL)
            return
        self._valueless.append((trial, observation))
        if self._history.worst is None:
            return
        for ended, told in self._valueless:
            # One by one and in their order: GPSampler tells constraints apart by that alone.
            for name, violation in self._constraints(told).items():
                ended.set_constraint(name, violation)
            self._study.tell(ended, self._values(told))
        self._valueless.clear()

    def _add(self, observation: Observation) -> None:
        if self._history.worst is None or self._leaves_out(observation):
            self._tell(self._run(observation.configuration), observation)
            return
        params = self._params(observation.configuration)
        generation = max(0, _generation(observation.notes) - self._first_generation)
        key = self._generation_key()
        self._study.add_trial(
            create_trial(
                state=TrialState.COMPLETE,
                values=self._values(observation),
                params=params,
                distributions={name: self._distributions[name] for name in params},
                system_attrs={key: generation} if key else {},
                constraints=self._constraints(observation),
            )
        )

    def _leaves_out(self, observation: Observation) -> bool:
        """Whether the sampler is not to learn of a trial that tells nothing. GPSampler is told that
        it was as bad as the worst seen: it would propose what it does not know of again, for ever.
        """
        return observation.tells_nothing and not isinstance(self._study.sampler, GPSampler)

    def _generation_key(self) -> str | None:
        # Optuna keeps it under the class's name and has no public way to ask for it.
        evolves = isinstance(self._study.sampler, BaseGASampler)
        return f"{type(self._study.sampler).__name__}:generation" if evolves else None

    def _notes(self, trial: optuna.Trial) -> dict[str, Any]:
        attributes = self._study.get_trials(deepcopy=False)[trial.number].system_attrs
        generation = attributes.get(self._generation_key() or "")
        return {} if generation is None else {"generation": generation + self._first_generation}

    def _values(self, observation: Observation) -> list[float]:
        if _is_measured(observation):
            assert observation.values is not None
            return list(observation.values)
        # A failure has no values; the worst ones seen keep it from looking good to a sampler
        # that reads them all the same. Told as failed it would not be known to GPSampler at all,
        # which then proposes it again.
        assert self._history.worst is not None
        return list(self._history.worst)

    def _constraints(self, observation: Observation) -> dict[str, float]:
        """The same constraints for every trial and in the same order, whatever it brings: Optuna
        takes a trial without any as feasible, and its GPSampler knows them by their place alone.

        TPE and NSGA compare the sums of what is violated, so each measured violation is bounded by
        one, and a failure violates by more than all of them can come to. What it would have kept
        of the others nobody knows: it counts as at their bounds.
        """
        worst = len(self._limits) + 2.0
        if not _is_measured(observation):
            failed = 0.0 if observation.tells_nothing else worst
            return {**dict.fromkeys(self._limits, 0.0), FAILED: failed}
        told = {name: bounded(v) for name, v in observation.violations.items()}
        limits = {name: told.pop(name, 0.0) for name in self._limits}
        # A limit that the space does not know has no place of its own.
        return {**limits, FAILED: max(told.values(), default=-worst)}

    def _params(self, configuration: Configuration) -> dict[str, Any]:
        return {
            p.name: to_inner(p, configuration[p.name])
            for p in self._space.parameters
            if p.name in configuration
        }


def distribution(parameter: Parameter) -> BaseDistribution:
    """How a parameter is shown to Optuna: ordered levels by their index, so that it knows which
    are neighbours; everything else as it is."""
    if parameter.choices:
        if is_ordered(parameter):
            return IntDistribution(0, len(parameter.choices) - 1)
        return CategoricalDistribution(list(range(len(parameter.choices))))
    low, high = parameter.bounds
    if parameter.kind == "int":
        if parameter.log:
            return IntDistribution(int(low), int(high), log=True)
        return IntDistribution(int(low), int(high), step=int(parameter.step or 1))
    step_of_float = None if parameter.log else parameter.step
    return FloatDistribution(
        float(low),
        float(high),
        log=parameter.log,
        step=step_of_float,
    )


def to_value(parameter: Parameter, inner: Any) -> Scalar:
    """A value of the mirror's distribution as the parameter's own value."""
    return parameter.choices[int(inner)] if parameter.choices else inner


def to_inner(parameter: Parameter, value: Scalar) -> Any:
    """The inverse of ``to_value``."""
    if not parameter.choices:
        return value
    return next(i for i, choice in enumerate(parameter.choices) if same(choice, value))


def _is_measured(observation: Observation) -> bool:
    return observation.state == "complete" and observation.values is not None


def bounded(violation: float) -> float:
    """A violation relative to its bound, mapped to [-1, 1] so that several can be added up: as it
    is where the bound is kept, ``v / (1 + v)`` where it is broken (a latency of twice the limit: a
    half). The order stays, and so does the slope at the bound. One that is not a number is broken
    by more than any: 1."""
    if math.isnan(violation) or violation == math.inf:
        return 1.0
    return max(violation, _MOST_KEPT) if violation <= 0 else violation / (1.0 + violation)


def _suggested(trial: optuna.Trial, parameter: Parameter, form: BaseDistribution) -> Any:
    if isinstance(form, CategoricalDistribution):
        return trial.suggest_categorical(parameter.name, form.choices)
    if isinstance(form, IntDistribution):
        return trial.suggest_int(parameter.name, form.low, form.high, step=form.step, log=form.log)
    assert isinstance(form, FloatDistribution)
    return trial.suggest_float(parameter.name, form.low, form.high, step=form.step, log=form.log)


def _generation(notes: Mapping[str, Any]) -> int:
    return int(notes.get("generation", 0))


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Without Optuna's messages about the mirror, which no user can see otherwise."""
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(verbosity)
