"""Storages that wait for a database to come back instead of failing the study.

A restart of the database, a fail-over or another program's lock takes seconds; a study takes
hours. Every call is tried again with back-off, and none has its effect twice: reading and setting
a key are idempotent, an ending that a lost connection hid is recognised, and ``Store.start`` looks
for the trial that it may have made already.
"""

from __future__ import annotations

import datetime
import functools
import json
import logging
import random
import time
from collections.abc import Callable, Collection, Container, Iterator, Mapping
from typing import Any

import sqlalchemy
import sqlalchemy.orm
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import BaseStorage, GrpcStorageProxy, RDBStorage
from optuna.storages._rdb import models
from optuna.trial import FrozenTrial, TrialState

from tuner.store.reading import LOOP, read_trials

PATIENCE_S = 300.0
"""A database that stays away longer ends the study; what is finished is saved."""
FIRST_WAIT_S, LONGEST_WAIT_S = 0.1, 5.0
_MEETINGS = 5
_RETRIED = (
    "set_study_user_attr", "set_study_system_attr", "get_study_id_from_name",
    "get_study_name_from_id", "get_study_directions", "get_study_user_attrs",
    "get_study_system_attrs", "get_all_studies", "set_trial_user_attr", "set_trial_system_attr",
    "get_trial_id_from_study_id_trial_number", "get_trial", "get_all_trials", "_get_trials",
    "get_trial_user_attrs", "get_trial_system_attrs", "set_trial_user_attrs", "read_whole",
    "set_missing_study_user_attrs",
)
_log = logging.getLogger("tuner.store")


def is_passing(error: BaseException) -> bool:
    """Whether the database is away or locked for the moment: the same call may succeed later."""
    for cause in _causes(error):
        if isinstance(cause, sqlalchemy.exc.DBAPIError):
            if cause.connection_invalidated or isinstance(cause, sqlalchemy.exc.InterfaceError):
                return True
            if is_read_only(cause.orig):
                return True
            if not isinstance(cause, sqlalchemy.exc.OperationalError):
                return False
            if type(cause.orig).__module__.startswith("sqlite3"):
                return "locked" in str(cause.orig)
            return True
        if isinstance(cause, sqlalchemy.exc.TimeoutError):
            return True
        code = getattr(cause, "code", None)
        if callable(code) and getattr(code(), "name", "") == "UNAVAILABLE":
            return True
    return False


def is_read_only(error: BaseException | None) -> bool:
    """Whether a PostgreSQL server refused to write since it is a standby, as in a fail-over."""
    state = getattr(error, "pgcode", None) or getattr(error, "sqlstate", None)
    return state == "25006"


def insist(
    call: Callable[[], Any], *, again: Callable[[], Any] | None = None,
    patience_s: float | None = None,
) -> Any:
    """Do ``call`` until it succeeds or ``patience_s`` is over.

    Args:
        call: what to do.
        again: what to do instead from the second time on.
        patience_s: default ``PATIENCE_S``.

    Raises:
        Exception: what ``call`` raised, at once where waiting can't help.
    """
    patience_s = PATIENCE_S if patience_s is None else patience_s
    begun, attempt = time.monotonic(), 0
    while True:
        try:
            return call() if attempt == 0 or again is None else again()
        except Exception as error:
            left = begun + patience_s - time.monotonic()
            if not is_passing(error) or left <= 0:
                raise
            wait_s = min(FIRST_WAIT_S * 2**attempt, LONGEST_WAIT_S) * random.uniform(0.5, 1.0)
            # The first ones are what several writers of one database do to each other.
            if attempt == 4:
                _log.warning("the database does not answer; trying on for %.0f s", left)
            time.sleep(min(wait_s, left))
            attempt += 1


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def _patient(kind: type[Any]) -> type[Any]:
    """A storage class whose calls wait for the database."""

    def retried(name: str) -> Callable[..., Any]:
        plain = getattr(kind, name)

        @functools.wraps(plain)
        def method(self: Any, *args: Any, **kwargs: Any) -> Any:
            return insist(lambda: plain(self, *args, **kwargs))

        return method

    def told_once(name: str) -> Callable[..., Any]:
        def method(self: Any, *args: Any, **kwargs: Any) -> bool:
            plain = functools.partial(getattr(kind, name), self, *args, **kwargs)

            def again() -> bool:
                try:
                    return bool(plain())
                except UpdateFinishedTrialError:
                    # The connection was lost after the commit: it is told already.
                    return True

            return bool(insist(plain, again=again))

        return method

    methods: dict[str, Any] = {n: retried(n) for n in _RETRIED if hasattr(kind, n)}
    methods |= {
        n: told_once(n) for n in ("set_trial_state_values", "fail_trial") if hasattr(kind, n)
    }
    return type(f"Patient{kind.__name__}", (kind,), methods)


class _Quick(RDBStorage):
    """Optuna's RDB storage, reading by column and writing several attributes at once."""

    keys: Collection[str] | None = LOOP
    """The user attributes that are read with every trial; ``None``: all."""

    def _get_trials(
        self, study_id: int, states: Container[TrialState] | None, included_trial_ids: set[int],
        trial_id_greater_than: int,
    ) -> list[FrozenTrial]:
        with self.scoped_session() as session:
            return read_trials(
                session, study_id, states, included_trial_ids, trial_id_greater_than, self.keys
            )

    def read_whole(
        self, study_id: int, keys: Collection[str] | None = None
    ) -> list[FrozenTrial]:
        """Every trial with these user attributes, or all; nothing of it is kept in memory."""
        with self.scoped_session() as session:
            return read_trials(session, study_id, None, (), -1, keys)

    def set_trial_user_attrs(self, trial_id: int, attributes: Mapping[str, Any]) -> None:
        """Several attributes in one transaction."""
        with self.scoped_session() as session, session.begin():
            self._set_attributes(session, trial_id, attributes)

    def fail_trial(self, trial_id: int, attributes: Mapping[str, Any]) -> bool:
        """End a running trial as failed, with these attributes, in one transaction.

        Raises:
            UpdateFinishedTrialError: it has ended; it stays as it is.
        """
        with self.scoped_session() as session, session.begin():
            trial = models.TrialModel.find_or_raise_by_id(trial_id, session, for_update=True)
            self._set_attributes(session, trial_id, attributes)
            trial.state = TrialState.FAIL
            trial.datetime_complete = datetime.datetime.now()
        return True

    def _set_attributes(
        self, session: Any, trial_id: int, attributes: Mapping[str, Any]
    ) -> None:
        for key, value in attributes.items():
            self._set_trial_attr_without_commit(
                session, models.TrialUserAttributeModel, trial_id, key, value
            )

    def set_missing_study_user_attrs(self, study_id: int, attributes: Mapping[str, Any]) -> None:
        """Set those that are not there, or null, all at once; the database lets one writer win."""
        texts = {key: json.dumps(value) for key, value in attributes.items()}
        for left in reversed(range(_MEETINGS)):
            try:
                with self.scoped_session() as session, session.begin():
                    _set_missing(session, study_id, texts)
                return
            except sqlalchemy.exc.IntegrityError:
                # Another process wrote some meanwhile; what it left out is still to be set.
                if not left:
                    raise


def _set_missing(session: sqlalchemy.orm.Session, study_id: int, texts: Mapping[str, str]) -> None:
    table = models.StudyUserAttributeModel
    of_study = table.study_id == study_id
    rows = session.execute(sqlalchemy.select(table.key, table.value_json).where(of_study))
    held = {key: text for key, text in rows}
    for key, text in texts.items():
        if key not in held:
            session.add(table(study_id=study_id, key=key, value_json=text))
        elif held[key] == "null":
            unset = (of_study, table.key == key, table.value_json == "null")
            session.execute(sqlalchemy.update(table).where(*unset).values(value_json=text))


_PatientDatabase = _patient(_Quick)
_PatientProxy = _patient(GrpcStorageProxy)


def open_database(url: str, engine_kwargs: dict[str, Any]) -> RDBStorage:
    """Optuna's RDB storage, patient."""
    storage: RDBStorage = _PatientDatabase(url, engine_kwargs=engine_kwargs)
    sqlalchemy.event.listen(storage.engine, "handle_error", _leave_standby)
    return storage


def _leave_standby(context: sqlalchemy.engine.ExceptionContext) -> None:
    # A connection to what is a standby by now would refuse for ever; a new one finds the primary.
    if is_read_only(context.original_exception):
        context.is_disconnect = True


def serve_whole(storage: BaseStorage) -> None:
    """Make a database read trials with all their attributes, as those behind a proxy need them."""
    if isinstance(storage, _Quick):
        storage.keys = None


def open_proxy(host: str, port: int) -> GrpcStorageProxy:
    """Optuna's gRPC proxy to a storage, patient."""
    proxy: GrpcStorageProxy = _PatientProxy(host=host, port=port)
    return proxy


def whole_trials(
    storage: BaseStorage, study_id: int, keys: Collection[str] | None = None
) -> list[FrozenTrial]:
    """Every trial of a study with all its attributes (or at least those named), by number."""
    database = getattr(storage, "_backend", storage)
    if isinstance(database, _Quick):
        return database.read_whole(study_id, keys)
    return storage.get_all_trials(study_id, deepcopy=False)


def set_attributes(storage: BaseStorage, trial_id: int, attributes: Mapping[str, Any]) -> None:
    """Set several attributes of a running trial, at once where the storage can."""
    database = getattr(storage, "_backend", storage)
    if isinstance(database, _Quick):
        database.set_trial_user_attrs(trial_id, attributes)
        return
    for key, value in attributes.items():
        storage.set_trial_user_attr(trial_id, key, value)


def fail_trial(storage: BaseStorage, trial_id: int, attributes: Mapping[str, Any]) -> None:
    """End a running trial as failed, with these attributes.

    Raises:
        UpdateFinishedTrialError: it has ended.
    """
    database = getattr(storage, "_backend", storage)
    if isinstance(database, _Quick):
        database.fail_trial(trial_id, attributes)
        return
    set_attributes(storage, trial_id, attributes)
    storage.set_trial_state_values(trial_id, TrialState.FAIL)


def set_missing_facts(storage: BaseStorage, study_id: int, attributes: Mapping[str, Any]) -> None:
    """Set a study's attributes that are not there, or null; of several processes the first has it.

    A proxy reads and then writes: two that do so within a moment may both write, and the last has
    it. So read again what is kept.
    """
    database = getattr(storage, "_backend", storage)
    if isinstance(database, _Quick):
        database.set_missing_study_user_attrs(study_id, attributes)
        return
    held = storage.get_study_user_attrs(study_id)
    for key, value in attributes.items():
        if held.get(key) is None:
            storage.set_study_user_attr(study_id, key, value)


def create_trial(storage: BaseStorage, study_id: int, template: Any, twin: Callable[[], Any]) -> Any:
    """A new trial's id, made once even where the connection was lost in between.

    Args:
        twin: finds the id of the trial that an earlier attempt may have made; ``None`` if none.
    """

    def again() -> Any:
        found = twin()
        return storage.create_new_trial(study_id, template) if found is None else found

    return insist(lambda: storage.create_new_trial(study_id, template), again=again)
