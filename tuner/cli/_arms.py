"""What ``tuner study`` and ``tuner worker`` share: the environments of a study and how it goes on."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import re
import sys
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tuner import interrupts
from tuner.cli import _evaluator, _format, _quiet
from tuner.cli._progress import Progress
from tuner.errors import StudyError, UsageError
from tuner.measurement import Scalar, to_json
from tuner.space import Space

FACT = "plan"
"""Kept with a study once it is calibrated: from then on workers may join."""
FIXED_ORDER = ("grid", "qmc", "screening")
"""Samplers whose sequence is the study's: workers share it instead of drawing their own."""


@dataclass(frozen=True)
class Plan:
    """How a study goes on, whoever works on it."""

    sampler: str
    seed: int
    trials: int | None
    """Finished trials wanted in each environment, over all workers; ``None``: all there are."""
    sources: tuple[str, ...] = ()

    def as_fact(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def of_fact(cls, fact: Mapping[str, Any]) -> Plan:
        return cls(fact["sampler"], fact["seed"], fact["trials"], tuple(fact["sources"]))

    def of_worker(self) -> Plan:
        """The same with a seed of this process's own, so that workers don't draw the same."""
        from tuner.store.owner import this_process

        if self.sampler in FIXED_ORDER:
            return self
        own = zlib.crc32(json.dumps([self.seed, this_process()]).encode())
        return dataclasses.replace(self, seed=own)


def combinations(space: Space) -> list[dict[str, Scalar]]:
    """Every combination of factor levels; one empty one for a space without factors."""
    names = list(space.factors)
    return [dict(zip(names, values)) for values in itertools.product(*space.factors.values())]


def study_name(base: str, levels: Mapping[str, Scalar], machine: str | None = None) -> str:
    """Name of one environment's study; ``machine`` where that is a factor."""
    from tuner import store

    apart = {} if machine is None else {"machine": slug(machine)}
    return store.level_name(base, {**levels, **apart})


def slug(machine: str) -> str:
    """A machine's identity as a part of a name: ``amd-epyc-7b13-2-cores-8-gib``."""
    return re.sub(r"[^a-z0-9]+", "-", machine.lower()).strip("-")


def build(
    url: str, storage: Any, name: str, space: Space, plan: Plan, evaluator: Any,
    facts: Mapping[str, Any], note: Callable[[str], None], machine: str | None = None,
) -> list[Any]:
    """Open or make the study of each combination of levels and calibrate what lacks.

    Of several processes that calibrate at the same time, all go on with what the first one kept.

    Args:
        url, storage: where, and the same opened.
        name: the study's name, without levels.
        facts: what a new study keeps (``_evaluator.facts``).
        machine: this machine's identity where the machine is a factor.

    Raises:
        StudyError: a study exists with another space, in another environment, or with settings
            by which a measurement would be another.
    """
    from tuner import machine as machines
    from tuner import propose, store, study
    from tuner.propose.repeating import RepeatingProposer
    from tuner.store.owner import host

    sources = [source(reference, space, url, storage) for reference in plan.sources]

    def proposer() -> Any:
        made = propose.make(
            plan.sampler, space, seed=plan.seed, budget=plan.trials, sources=sources
        )
        repeats = space.settings.repeats
        return RepeatingProposer(made, repeats) if repeats > 1 else made

    here = {"machine": {"host": host(), **machines.describe()}}
    arms = []
    for levels in combinations(space):
        # The clients of a closed loop are in the evaluator's environment.
        load = {} if space.settings.is_closed else {"load": space.settings.load}
        environment = {**evaluator.environment, **load, **levels}
        kept = store.Store.create(
            url, study_name(name, levels, machine), space, environment, storage
        )
        _evaluator.refuse_other_settings(kept, facts)
        kept.put_missing(facts)
        arms.append(study.Arm(levels, kept, proposer(), renew=proposer, attributes=here))
    with interrupts.allowed():
        own = evaluator.calibrate(arms[0].store.facts(), note)
    arms[0].store.put_missing(own)
    first = {key: arms[0].store.get(key) for key in own}
    if first != to_json(own):
        with interrupts.allowed():
            evaluator.calibrate(first, note)
    for arm in arms[1:]:
        arm.store.put_missing(first)
    return arms


def source(reference: str, space: Space, url: str, storage: Any) -> Any:
    """A stored study as a source to learn from; its objectives must be the space's.

    Raises:
        StudyError: no such study beside the one that learns, nor on this machine.
        UsageError: it has other objectives.
    """
    from tuner import study
    from tuner.propose.source import Source

    stored = _opened(reference, url, storage)
    wanted = [o.name for o in space.objectives]
    if stored.metric_names != wanted:
        raise UsageError(
            f"--source {reference}: has the objectives {', '.join(stored.metric_names)}, "
            f"not {', '.join(wanted)}"
        )
    finished = [r for r in stored.records() if r.is_finished]
    return Source(stored.name, tuple(study.observation(r, space) for r in finished))


def _opened(reference: str, url: str, storage: Any) -> Any:
    """The study that a source's reference means: one in the storage of the study that learns,
    which all its workers share, or else one of this machine's files."""
    import optuna

    from tuner import store

    name = reference.rpartition(".db:")[2]
    file = reference.removesuffix(f":{name}") if name != reference else ""
    held = optuna.get_all_study_names(storage)
    # A file that is here was meant; where it isn't, its study may have been brought along.
    if name in held and not (file and os.path.exists(file)):
        return store.Store.open(url, name, storage)
    if not file and any(study.split("@")[0] == name for study in held):
        return store.open_study(name, url)
    try:
        return store.open_study(reference)
    except StudyError as error:
        raise StudyError(
            f"--source {reference}: not in {store.redact(url)}, and on this machine {error}; "
            "a source that workers elsewhere learn from is kept in the study's own storage"
        ) from None


def carry_out(
    arms: list[Any], space: Space, evaluator: Any, plan: Plan, timeout_s: float | None,
    progress: Progress,
) -> Any:
    """Run the loop of a study with its progress shown; ``None`` after an interruption."""
    from tuner import study

    progress.begin(arms, space)
    try:
        return study.run(
            space, arms, evaluator, n_trials=plan.trials, timeout_s=timeout_s, listener=progress
        )
    except KeyboardInterrupt:
        return None


def complete(
    url: str, storage: Any, name: str, space: Space, plan: Plan, facts: Mapping[str, Any]
) -> list[Any]:
    """The stored studies of all environments where each holds every trial asked for, measured with
    the same facts; else none, and what lacks is to be measured."""
    import optuna

    from tuner import store

    wanted = plan.trials or space.size and space.size * space.settings.repeats
    names = [study_name(name, levels) for levels in combinations(space)]
    if not wanted or not set(names) <= set(optuna.get_all_study_names(storage)):
        return []
    found = [store.Store.open(url, level, storage) for level in names]
    for one in found:
        if any(one.get(key) != to_json(value) for key, value in facts.items()):
            return []
        if sum(record.is_finished for record in one.changed({})) < wanted:
            return []
    return found


def conclude(stores: list[Any], space: Space, url: str, summary: Any, again: str) -> None:
    """Say how a run ended, and each environment's front.

    Args:
        stores: the study of each environment.
        summary: what ``carry_out`` gave.
        again: what to do to go on.
    """
    from tuner import store
    from tuner.cli import pareto

    if summary is not None and summary.reason == "exhausted":
        print(f"Every configuration of the space is measured ({_format.seconds(summary.seconds)}).")
    elif summary is not None and summary.reason == "timeout":
        print(f"The time is over; {again}.")
    elif summary is None:
        print(f"Stopped; finished trials are saved, and {again}.")
    for kept in stores:
        marked = pareto.front(kept)
        print(pareto.text(marked))
        told = _quiet.told(kept.records(("measurement", "reason")))
        if told is not None:
            print(f"other work: {told}")
        if len(space.objectives) == 2 and marked["on_front"].any():
            file = store.artifacts(url, kept.name).with_suffix(".png")
            pareto.draw(marked, file)
            print(f"plot: {os.path.relpath(file)}")
    print(f"inspect: optuna-dashboard {store.redact(url)}")
    for kept in stores:
        if beyond := kept.best_beyond_limits():
            numbers = ", ".join(map(str, beyond[:5])) + (", …" if len(beyond) > 5 else "")
            print(
                f"its list of best trials knows no limits: of {kept.name} it shows trial"
                f"{'s' if len(beyond) > 1 else ''} {numbers} though beyond a limit; its plots show "
                "them as infeasible"
            )
    sys.stdout.flush()
