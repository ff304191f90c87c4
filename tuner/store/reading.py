"""Reads the trials of a study by column instead of by object: ten times as quick as Optuna's ORM.

A trial has some twenty attributes; Optuna makes an object of each. The tables are Optuna's own.
The loop of a study reads only the few attributes that it needs, and so can hold all trials in
memory: a whole measurement is fifty times as large.
"""

from __future__ import annotations

import contextlib
import datetime
import functools
import gc
import json
from collections import defaultdict
from collections.abc import Collection, Container, Iterable, Iterator
from typing import Any

import orjson
import sqlalchemy
from optuna.distributions import BaseDistribution, json_to_distribution
from optuna.storages._rdb import models
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.orm import Session


@contextlib.contextmanager
def uncollected() -> Iterator[None]:
    """Without looking for garbage: what is read is all kept, and the search takes half the time."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


LOOP = (
    "owner", "mark", "beat", "notes", "reason", "message", "feasible", "violation_intervals",
    "limit_probabilities",
)
"""The user attributes that proposing, claiming and reaping need."""


def read_trials(
    session: Session, study_id: int, states: Container[TrialState] | None,
    included_trial_ids: Iterable[int], trial_id_greater_than: int, keys: Collection[str] | None,
) -> list[FrozenTrial]:
    """As ``RDBStorage._get_trials``: trials above an id and those named, by id.

    Args:
        keys: which user attributes; ``None``: all.
    """
    trial = models.TrialModel
    chosen = [trial.study_id == study_id]
    if trial_id_greater_than > -1:
        above = trial.trial_id > trial_id_greater_than
        known = [i for i in included_trial_ids if i <= trial_id_greater_than]
        chosen.append(sqlalchemy.or_(trial.trial_id.in_(known), above) if known else above)
    if states is not None:
        assert isinstance(states, Iterable)
        chosen.append(trial.state.in_(states))
    rows = session.execute(
        sqlalchemy.select(
            trial.trial_id, trial.number, trial.state, trial.__table__.c.datetime_start,
            trial.__table__.c.datetime_complete,
        ).where(*chosen).order_by(trial.trial_id)
    ).all()
    if not rows:
        return []

    def of(model: Any, *columns: Any, order: Any = None, only: Any = None) -> dict[int, list[Any]]:
        """Trial's id -> the rows of another table that belong to it."""
        query = sqlalchemy.select(model.trial_id, *columns).join(
            trial, model.trial_id == trial.trial_id
        ).where(*chosen, sqlalchemy.true() if only is None else only)
        found: dict[int, list[Any]] = defaultdict(list)
        for trial_id, *values in session.execute(query if order is None else query.order_by(order)):
            found[trial_id].append(values)
        return found

    params, values = models.TrialParamModel, models.TrialValueModel
    user, system = models.TrialUserAttributeModel, models.TrialSystemAttributeModel
    steps = models.TrialIntermediateValueModel
    params_of = of(
        params, params.param_name, params.param_value, params.distribution_json,
        order=params.param_id,
    )
    values_of = of(values, values.value, values.value_type, order=values.objective)
    wanted = sqlalchemy.true() if keys is None else user.key.in_(keys)
    user_of = of(user, user.key, user.value_json, only=wanted)
    system_of = of(system, system.key, system.value_json)
    steps_of = of(steps, steps.step, steps.intermediate_value, steps.intermediate_value_type)
    out = []
    for trial_id, number, state, started, completed in rows:
        forms = {name: (_distribution(text), value) for name, value, text in params_of[trial_id]}
        out.append(FrozenTrial(
            number=number, state=state, value=None,
            values=[values.stored_repr_to_value(*v) for v in values_of[trial_id]] or None,
            datetime_start=_local(started), datetime_complete=_local(completed),
            params={name: form.to_external_repr(value) for name, (form, value) in forms.items()},
            distributions={name: form for name, (form, _) in forms.items()},
            user_attrs={key: _value(text) for key, text in user_of[trial_id]},
            system_attrs={key: _value(text) for key, text in system_of[trial_id]},
            intermediate_values={
                step: steps.stored_repr_to_intermediate_value(value, kind)
                for step, value, kind in steps_of[trial_id]
            },
            trial_id=trial_id,
        ))
    return out


def _local(stored: datetime.datetime | None) -> datetime.datetime | None:
    """Optuna stores UTC without saying so, and shows local time without saying so."""
    if stored is None:
        return None
    return stored.replace(tzinfo=datetime.UTC).astimezone().replace(tzinfo=None)


@functools.lru_cache(maxsize=4096)
def _distribution(text: str) -> BaseDistribution:
    return json_to_distribution(text)


def _value(text: str) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return json.loads(text)  # NaN, or a number beyond 64 bits.
