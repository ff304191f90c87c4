"""One study in its database: trials started, finished, killed, reaped and read back."""

from __future__ import annotations

import threading
import uuid
import warnings
from collections.abc import Collection, Container, Iterator, Mapping
from functools import cached_property
from typing import Any

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from tuner.errors import StudyError
from tuner.measurement import (
    Configuration,
    Measurement,
    Outcome,
    Scalar,
    configuration_key,
    to_json,
)
from tuner.space import Space
from tuner.store import patience
from tuner.store.heartbeat import Silence
from tuner.store.owner import alive, is_visible, this_process
from tuner.store.reading import uncollected
from tuner.store.record import (
    LIMITS_KEY,
    TrialRecord,
    attributes_of,
    chosen,
    distribution,
    limit_probabilities,
    mixed,
    record_of,
    state_of,
    violation_intervals,
)
from tuner.store.urls import connect, redact

NUMBERS_KEY = "numbers"
BY_VALUE = "by value"
"""Said of a study whose lists of numbers are stored as ranges; Optuna lets no study change that."""


class Store:
    """One study: the trials of one space in one environment."""

    def __init__(self, study: optuna.Study, url: str) -> None:
        self._study = study
        self.url = url
        self.name = study.study_name
        self._mine: dict[int, int] = {}
        """Trials that this process runs -> beats so far."""
        self._lock = threading.Lock()
        self._silence = Silence()

    @classmethod
    def create(
        cls, url: str, name: str, space: Space, environment: Mapping[str, Any],
        storage: BaseStorage | None = None,
    ) -> Store:
        """Open the study, or make it.

        Args:
            storage: ``connect(url)`` where it is open already.

        Raises:
            StudyError: it exists with another space or in another environment; the storage
                is as it was.
        """
        storage = connect(url, create=True) if storage is None else storage
        sampler = optuna.samplers.RandomSampler()
        if name not in optuna.get_all_study_names(storage):
            study = optuna.create_study(
                storage=storage, study_name=name, sampler=sampler, load_if_exists=True,
                directions=[
                    optuna.study.StudyDirection[o.direction.upper()] for o in space.objectives
                ],
            )
        else:
            study = optuna.load_study(storage=storage, study_name=name, sampler=sampler)
        store = cls(study, url)
        store.refuse_foreign()
        if "fingerprint" not in study.user_attrs:
            store._describe(space, environment)
        store.refuse_other(space, environment)
        return store

    def _describe(self, space: Space, environment: Mapping[str, Any]) -> None:
        """Write what a new study says of itself, and what a kill kept another one from saying.

        The fingerprint comes last: where it is, all is.
        """
        if self.directions != [o.direction for o in space.objectives]:
            raise StudyError(
                f"study {self.name!r} exists with other objectives; name a new study with --name"
            )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            self._study.set_metric_names([o.name for o in space.objectives])
        self._study.set_user_attr("space", {"name": space.name, **space.describe()})
        self._study.set_user_attr("environment", to_json(environment))
        self._study.set_user_attr(NUMBERS_KEY, BY_VALUE)
        self._study.set_user_attr("fingerprint", space.fingerprint())

    @classmethod
    def open(cls, url: str, name: str, storage: BaseStorage | None = None) -> Store:
        """Open an existing study. Raises StudyError where it is missing."""
        storage = connect(url) if storage is None else storage
        try:
            study = optuna.load_study(
                storage=storage, study_name=name, sampler=optuna.samplers.RandomSampler()
            )
        except KeyError:
            names = ", ".join(optuna.get_all_study_names(storage)) or "none"
            raise StudyError(f"no study {name!r} in {redact(url)}; it holds: {names}") from None
        return cls(study, url)

    def refuse_foreign(self) -> None:
        """Raise StudyError for a study that another program made: one that doesn't say of which
        space it is, and holds what none of ours that was stopped while it was made could hold."""
        stored = self._study.user_attrs
        if "fingerprint" in stored:
            return
        ours = {"space", "environment", NUMBERS_KEY}
        if set(stored) - ours or self._study.get_trials(deepcopy=False):
            raise StudyError(
                f"study {self.name!r} in {redact(self.url)} is not tuner's: another program made it; "
                "name a new study with --name"
            )

    def refuse_other(self, space: Space, environment: Mapping[str, Any]) -> None:
        stored = self._study.user_attrs
        if stored.get("fingerprint") not in (None, space.fingerprint()):
            differs = [
                k for k, v in space.describe().items() if stored.get("space", {}).get(k) != v
            ]
            raise StudyError(
                f"study {self.name!r} exists with another space ({', '.join(differs)} differ); "
                "name a new study with --name"
            )
        before = stored.get("environment", {})
        for key, value in environment.items():
            if key in before and to_json(value) != before[key]:
                raise StudyError(
                    f"study {self.name!r} was measured with {key} {before[key]!r}, not {value!r}; "
                    "name a new study with --name"
                )

    # -- what is kept for the study as a whole ---------------------------------------------

    @property
    def environment(self) -> dict[str, Any]:
        return dict(self._study.user_attrs.get("environment", {}))

    @property
    def space_description(self) -> dict[str, Any]:
        return dict(self._study.user_attrs.get("space", {}))

    @property
    def metric_names(self) -> list[str]:
        """Raises StudyError where they were never written."""
        names = self._study.metric_names
        if names is None:
            raise StudyError(
                f"study {self.name!r} does not say what it measures: it was stopped while it was "
                "made; the same `tuner study` completes it"
            )
        return list(names)

    @property
    def directions(self) -> list[str]:
        return [d.name.lower() for d in self._study.directions]

    def get(self, key: str) -> Any:
        """A fact kept with the study (the calibrated capacity, the idle baseline); None if not."""
        return self._study.user_attrs.get(f"fact:{key}")

    def facts(self) -> dict[str, Any]:
        """Every fact kept with ``put``."""
        prefix = "fact:"
        return {
            k.removeprefix(prefix): v
            for k, v in self._study.user_attrs.items() if k.startswith(prefix)
        }

    def put(self, key: str, value: Any) -> None:
        self._study.set_user_attr(f"fact:{key}", to_json(value))

    def put_missing(self, facts: Mapping[str, Any]) -> None:
        """Keep those of the facts that the study lacks; of several processes the first has it."""
        told = {f"fact:{key}": to_json(value) for key, value in facts.items()}
        patience.set_missing_facts(self._study._storage, self._study._study_id, told)

    @cached_property
    def _by_value(self) -> bool:
        return self._study.user_attrs.get(NUMBERS_KEY) == BY_VALUE

    @cached_property
    def _mixed(self) -> dict[str, tuple[Scalar, ...]]:
        return mixed(self.space_description)

    # -- trials -----------------------------------------------------------------------------

    def start(
        self, configuration: Configuration, space: Space, notes: Mapping[str, Any],
        attributes: Mapping[str, Any],
    ) -> int:
        """Write a trial as running, in one transaction, and give its number."""
        mark = uuid.uuid4().hex
        template = optuna.trial.create_trial(
            state=TrialState.RUNNING,
            params=dict(configuration),
            distributions={
                name: distribution(space.parameter(name), by_value=self._by_value)
                for name in configuration
            },
            user_attrs={
                "owner": this_process(), "mark": mark, "beat": 0, "notes": to_json(notes),
                **to_json(attributes),
            },
        )
        storage = self._study._storage

        def twin() -> int | None:
            found = [t for t in self._frozen_running() if t.user_attrs.get("mark") == mark]
            return found[0]._trial_id if found else None

        trial_id = patience.create_trial(storage, self._study._study_id, template, twin)
        number = int(storage.get_trial_number_from_id(trial_id))
        with self._lock:
            self._mine[number] = 0
        return number

    def claim(
        self, configuration: Configuration, space: Space, notes: Mapping[str, Any],
        attributes: Mapping[str, Any], *, known: Container[int] = (), at_most: int | None = None,
    ) -> int | None:
        """As ``start``, unless another worker was quicker.

        Trials are numbered in the order in which the database took them, so of two workers that
        start the same configuration without knowing of each other the lower number has it, and
        both see that. The other one ends its own as killed, and ``None`` comes back.

        Args:
            known: numbers of the trials that were known when the configuration was proposed.
            at_most: how many trials, killed ones left out, the study may hold.
        """
        number = self.start(configuration, space, notes, attributes)
        key = configuration_key(configuration)
        earlier = self._study.get_trials(deepcopy=False)[: number + 1]
        mark = earlier.pop().user_attrs["mark"]
        for frozen in earlier:
            if frozen.number in known or state_of(frozen) == "killed":
                continue
            if frozen.user_attrs.get("mark") == mark:
                # Optuna made the trial again after a commit whose answer was lost.
                self.kill(frozen.number, "written twice when the database went away")
            elif configuration_key(chosen(frozen, self._mixed)) == key:
                self.kill(number, f"trial {frozen.number} of another worker measures the same")
                return None
        if at_most is not None and number >= at_most:
            count = sum(state_of(t) != "killed" for t in earlier if t.user_attrs.get("mark") != mark)
            if count >= at_most:
                self.kill(number, "other workers run the last trials that were wanted")
                return None
        return number

    def finish(self, number: int, outcome: Outcome, space: Space) -> TrialRecord:
        """Write how a running trial ended and give its record back.

        A trial that others had to take for dead meanwhile stays killed: it was proposed anew.
        """
        try:
            self._finish(self._running(number), outcome, space)
        except UpdateFinishedTrialError:
            pass
        self._forget(number)
        return record_of(self._frozen(number), self._mixed)

    def _finish(self, trial: optuna.trial.Trial, outcome: Outcome, space: Space) -> None:
        attributes, violations, values = attributes_of(outcome), {}, None
        if isinstance(outcome, Measurement):
            metrics = outcome.metrics()
            values = [metrics[o.name] for o in space.objectives]
            missing = next((o.name for o in space.objectives if metrics[o.name] is None), None)
            if missing is None:
                violations = space.violations(metrics)
                attributes["violation_intervals"] = to_json(violation_intervals(outcome, space))
                attributes["limit_probabilities"] = limit_probabilities(outcome, space)
            else:
                values = None
                attributes["reason"], attributes["message"] = outcome.why_unmeasured(missing)
        attributes["feasible"] = values is not None and all(v <= 0 for v in violations.values())
        patience.set_attributes(self._study._storage, trial._trial_id, attributes)
        for key, violation in violations.items():
            trial.set_constraint(key, violation)
        if violations:
            self._study._storage.set_trial_system_attr(
                trial._trial_id, LIMITS_KEY, list(violations.values())
            )
        if values is None:
            self._study.tell(trial, state=TrialState.FAIL, skip_if_finished=True)
        else:
            self._study.tell(trial, values, skip_if_finished=True)  # type: ignore[arg-type]

    def beat(self) -> None:
        """Show that this process's trials are alive, and look whether the others' are."""
        with self._lock:
            mine = list(self._mine)
        for number in mine:
            with self._lock:
                if number not in self._mine:
                    continue
                self._mine[number] += 1
                beats = self._mine[number]
            try:
                self._running(number).set_user_attr("beat", beats)
            except UpdateFinishedTrialError:
                self._forget(number)
        self._silence.look(
            {t.number: int(t.user_attrs.get("beat", 0)) for t in self._frozen_running()}
        )

    def reap(self) -> list[int]:
        """End what dead processes left running, as ``killed``, and give the trials' numbers.

        A process of this machine is dead when it is gone; one elsewhere when it fell silent
        (``heartbeat``).
        """
        reaped = []
        for frozen in self._frozen_running():
            owner = frozen.user_attrs.get("owner") or {}
            if is_visible(owner):
                why = None if alive(owner) else "the process that ran it is gone"
            else:
                silent = self._silence.is_silent(frozen.number)
                why = f"its worker on {owner.get('host', '?')} fell silent" if silent else None
            if why is not None:
                self.kill(frozen.number, why)
                reaped.append(frozen.number)
        return reaped

    def kill(self, number: int, message: str) -> None:
        """End a running trial as ``killed``: it does not count as finished."""
        trial_id = self._frozen(number)._trial_id
        told = {"reason": "killed", "message": message, "feasible": False}
        try:
            patience.fail_trial(self._study._storage, trial_id, told)
        except UpdateFinishedTrialError:
            pass  # Its owner lives and was quicker.
        self._forget(number)

    def records(self, keys: Collection[str] | None = None) -> list[TrialRecord]:
        """Every trial, in the order of its number.

        Args:
            keys: which attributes are needed, e.g. ``("reason", "measurement")``; reading few is
                quicker where there are thousands of trials. Default: all.
        """
        study = self._study
        with uncollected():
            trials = patience.whole_trials(study._storage, study._study_id, keys)
            return [record_of(trial, self._mixed) for trial in trials]

    def best_beyond_limits(self) -> list[int]:
        """Numbers of the trials that are best only where no limit is looked at.

        Optuna's dashboard lists them among its best trials: it computes these from the values
        alone, whatever the trials say of constraints.
        """
        import moocore

        complete = [r for r in self.records(("feasible",)) if r.values is not None]
        if not complete:
            return []
        best = moocore.is_nondominated(
            [r.values for r in complete], keep_weakly=True,
            maximise=[d == "maximize" for d in self.directions],
        )
        return [r.number for r, is_best in zip(complete, best) if is_best and not r.feasible]

    def changed(self, seen: Mapping[int, str]) -> Iterator[TrialRecord]:
        """The trials whose state differs from what ``seen`` (number -> state) says.

        They come without their measurements, which would fill the memory in a long study.
        """
        for frozen in self._study.get_trials(deepcopy=False):
            if seen.get(frozen.number) != state_of(frozen):
                yield record_of(frozen, self._mixed)

    def _forget(self, number: int) -> None:
        with self._lock:
            self._mine.pop(number, None)

    def _frozen_running(self) -> list[FrozenTrial]:
        return self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))

    def _frozen(self, number: int) -> FrozenTrial:
        storage = self._study._storage
        trial_id = storage.get_trial_id_from_study_id_trial_number(self._study._study_id, number)
        return storage.get_trial(trial_id)

    def _running(self, number: int) -> optuna.trial.Trial:
        return optuna.trial.Trial(self._study, self._frozen(number)._trial_id)
