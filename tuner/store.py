"""The study database: Optuna's storage with typed records in and out.

A study belongs to one *environment*: one model, workload, deployer, machine and level of every
factor. A space with factors therefore has one Optuna study for each combination of levels, all
in one database: ``batching@load=high``.
"""

from __future__ import annotations

import datetime
import logging
import os
import socket
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import FrozenTrial, TrialState

from tuner.errors import StudyError
from tuner.measurement import Configuration, Failure, Measurement, Outcome, Scalar, to_json
from tuner.space import Parameter, Space

STUDIES = Path("studies")
"""Where studies land unless a storage is named."""

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
    def energy_source(self) -> str | None:
        energy = self.measurement.get("energy") or {}
        return energy.get("source")


def distribution(parameter: Parameter) -> BaseDistribution:
    """How Optuna stores a parameter's values."""
    if parameter.choices:
        return CategoricalDistribution(parameter.choices)
    assert parameter.low is not None and parameter.high is not None
    if parameter.kind == "int":
        step = int(parameter.step or 1)
        return IntDistribution(int(parameter.low), int(parameter.high), parameter.log, step)
    return FloatDistribution(parameter.low, parameter.high, parameter.log, parameter.step)


def default_url(name: str) -> str:
    return f"sqlite:///{STUDIES}/{name}.db"


def redact(url: str) -> str:
    """A storage URL without its password."""
    try:
        return sqlalchemy.engine.make_url(url).render_as_string(hide_password=True)
    except sqlalchemy.exc.ArgumentError:
        return "<storage>"


def artifacts(url: str, name: str) -> Path:
    """Folder for a study's logs, samples and plots: beside an SQLite file, else in ``studies/``."""
    folder = STUDIES
    try:
        parsed = sqlalchemy.engine.make_url(url)
    except sqlalchemy.exc.ArgumentError:
        return folder / f"{name}.artifacts"
    if parsed.get_backend_name() == "sqlite" and parsed.database not in (None, "", ":memory:"):
        folder = Path(parsed.database).parent
    return folder / f"{name}.artifacts"


def refuse_other_space(url: str, name: str, space: Space) -> None:
    """Look, before anything slow starts, whether the study exists with another space.

    Raises:
        StudyError: it does. A storage that does not exist yet refuses nothing.
    """
    try:
        stored = Store.open(url, name)
    except StudyError as error:
        if "no study" in str(error):
            return
        raise
    stored._refuse_other(space, {})


def level_name(base: str, levels: Mapping[str, Scalar]) -> str:
    """Name of the study of one combination of factor levels."""
    if not levels:
        return base
    return f"{base}@" + ",".join(f"{k}={v:g}" if isinstance(v, float) else f"{k}={v}"
                                 for k, v in sorted(levels.items()))


def connect(url: str, *, create: bool = False) -> optuna.storages.BaseStorage:
    """Open a storage.

    Args:
        url: an SQLAlchemy URL, or the path of an SQLite file.
        create: make the database (and the folder of an SQLite file) where it is missing.

    Raises:
        StudyError: it cannot be opened; the message never holds a password.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    if "://" not in url:
        url = f"sqlite:///{url}"
    try:
        parsed = sqlalchemy.engine.make_url(url)
    except sqlalchemy.exc.ArgumentError:
        raise StudyError(
            "the storage is not a URL; say e.g. sqlite:///studies/batching.db or "
            "postgresql://user@host/database"
        ) from None
    engine_kwargs: dict[str, Any] = {}
    if parsed.get_backend_name() == "sqlite":
        engine_kwargs = {"connect_args": {"timeout": 30}}
        _prepare_sqlite(parsed.database, create)
    else:
        engine_kwargs = {"pool_pre_ping": True}
    try:
        storage = optuna.storages.RDBStorage(url, engine_kwargs=engine_kwargs)
    except (sqlalchemy.exc.NoSuchModuleError, ImportError) as error:
        raise StudyError(
            f"storage {redact(url)}: its driver is not installed ({error}); "
            "install tuner[postgres] for PostgreSQL"
        ) from None
    except Exception as error:  # noqa: BLE001 - drivers raise their own kinds
        raise StudyError(f"storage {redact(url)} cannot be opened: {_first_line(error)}") from None
    if parsed.get_backend_name() == "sqlite":
        # Readers and the writer stop blocking each other, and a commit costs one fsync less.
        with storage.engine.connect() as connection:
            connection.exec_driver_sql("PRAGMA journal_mode=WAL")
    return storage


def _prepare_sqlite(database: str | None, create: bool) -> None:
    if not database or database == ":memory:":
        return
    path = Path(database)
    if not path.exists():
        if not create:
            raise StudyError(f"no study database at {path}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StudyError(f"{path.parent} cannot be made: {error.strerror}") from None
        if not os.access(path.parent, os.W_OK):
            raise StudyError(f"{path.parent} cannot be written to; name another --storage")
        return
    with path.open("rb") as stream:
        head = stream.read(16)
    if head and head != b"SQLite format 3\x00":
        raise StudyError(f"{path} is not an SQLite database (damaged, or another kind of file)")


def _first_line(error: BaseException) -> str:
    origin = getattr(error, "orig", None) or error.__cause__ or error
    origin = getattr(origin, "orig", None) or origin
    return (str(origin).strip().splitlines() or [type(error).__name__])[0][:200]


class Store:
    """One study: the trials of one space in one environment."""

    def __init__(self, study: optuna.Study, url: str) -> None:
        self._study = study
        self.url = url
        self.name = study.study_name

    @classmethod
    def create(
        cls, url: str, name: str, space: Space, environment: Mapping[str, Any]
    ) -> Store:
        """Open the study, or make it.

        Raises:
            StudyError: it exists with another space or in another environment; the storage
                is as it was.
        """
        storage = connect(url, create=True)
        if name not in optuna.get_all_study_names(storage):
            study = optuna.create_study(
                storage=storage,
                study_name=name,
                directions=[o.direction for o in space.objectives],
                sampler=optuna.samplers.RandomSampler(),
                load_if_exists=True,
            )
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                study.set_metric_names([o.name for o in space.objectives])
            study.set_user_attr("space", {"name": space.name, **space.describe()})
            study.set_user_attr("fingerprint", space.fingerprint())
            study.set_user_attr("environment", dict(environment))
        else:
            study = optuna.load_study(
                storage=storage, study_name=name, sampler=optuna.samplers.RandomSampler()
            )
        store = cls(study, url)
        store._refuse_other(space, environment)
        return store

    @classmethod
    def open(cls, url: str, name: str) -> Store:
        """Open an existing study for reading. Raises StudyError where it is missing."""
        storage = connect(url)
        try:
            study = optuna.load_study(
                storage=storage, study_name=name, sampler=optuna.samplers.RandomSampler()
            )
        except KeyError:
            names = ", ".join(optuna.get_all_study_names(storage)) or "none"
            raise StudyError(f"no study {name!r} in {redact(url)}; it holds: {names}") from None
        return cls(study, url)

    def _refuse_other(self, space: Space, environment: Mapping[str, Any]) -> None:
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
        return list(self._study.metric_names or [])

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

    # -- trials -----------------------------------------------------------------------------

    def start(
        self, configuration: Configuration, space: Space, notes: Mapping[str, Any],
        attributes: Mapping[str, Any],
    ) -> int:
        """Write a trial as running, in one transaction, and give its number."""
        template = optuna.trial.create_trial(
            state=TrialState.RUNNING,
            params=dict(configuration),
            distributions={name: distribution(space.parameter(name)) for name in configuration},
            user_attrs={"owner": _owner(), "notes": to_json(notes), **to_json(attributes)},
        )
        storage = self._study._storage
        trial_id = storage.create_new_trial(self._study._study_id, template)
        return int(storage.get_trial_number_from_id(trial_id))

    def finish(self, number: int, outcome: Outcome, space: Space) -> TrialRecord:
        """Write how a running trial ended and give its record back."""
        trial = self._running(number)
        for key, value in _attributes(outcome).items():
            trial.set_user_attr(key, value)
        values = None
        if isinstance(outcome, Measurement):
            metrics = outcome.metrics()
            values = [metrics[o.name] for o in space.objectives]
            violations = space.violations(metrics)
        if values is None or any(v is None for v in values):
            if isinstance(outcome, Measurement):
                trial.set_user_attr("reason", "no_answers")
                trial.set_user_attr("message", "an objective was not measured")
            trial.set_user_attr("feasible", False)
            self._study.tell(trial, state=TrialState.FAIL)
        else:
            for key, violation in violations.items():
                trial.set_constraint(key, violation)
            trial.set_user_attr("feasible", all(v <= 0 for v in violations.values()))
            self._study.tell(trial, values)  # type: ignore[arg-type]
        return _record(self._frozen(number))

    def reap(self) -> list[int]:
        """End trials that a dead process of this machine left running, as ``killed``."""
        reaped = []
        for frozen in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            owner = frozen.user_attrs.get("owner") or {}
            if owner.get("host") == socket.gethostname() and not _alive(owner):
                self.kill(frozen.number, "the process that ran it is gone")
                reaped.append(frozen.number)
        return reaped

    def kill(self, number: int, message: str) -> None:
        """End a running trial as ``killed``: it does not count as finished."""
        trial = self._running(number)
        trial.set_user_attr("reason", "killed")
        trial.set_user_attr("message", message)
        trial.set_user_attr("feasible", False)
        self._study.tell(trial, state=TrialState.FAIL)

    def records(self) -> list[TrialRecord]:
        """Every trial, in the order of its number."""
        return [_record(t) for t in self._study.get_trials(deepcopy=False)]

    def changed(self, seen: Mapping[int, str]) -> Iterator[TrialRecord]:
        """The trials whose state differs from what ``seen`` (number -> state) says."""
        for frozen in self._study.get_trials(deepcopy=False):
            if seen.get(frozen.number) != _state(frozen):
                yield _record(frozen)

    def _frozen(self, number: int) -> FrozenTrial:
        storage = self._study._storage
        trial_id = storage.get_trial_id_from_study_id_trial_number(self._study._study_id, number)
        return storage.get_trial(trial_id)

    def _running(self, number: int) -> optuna.trial.Trial:
        return optuna.trial.Trial(self._study, self._frozen(number)._trial_id)


def _owner() -> dict[str, Any]:
    return {"host": socket.gethostname(), "pid": os.getpid(), "started": _start_ticks(os.getpid())}


def _start_ticks(pid: int) -> int | None:
    """When a process started, in clock ticks since boot (field 22 of /proc/PID/stat)."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    return int(text.rsplit(")", 1)[1].split()[19])


def _alive(owner: Mapping[str, Any]) -> bool:
    # The start time tells a process from a later one that was given the same id.
    started = _start_ticks(int(owner["pid"]))
    return started is not None and started == owner.get("started")


def _attributes(outcome: Outcome) -> dict[str, Any]:
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
        "measurement": {**to_json(outcome), "metrics": outcome.metrics()},
    }


def _state(frozen: FrozenTrial) -> str:
    if frozen.state == TrialState.FAIL and frozen.user_attrs.get("reason", "killed") == "killed":
        return "killed"
    return _STATES[frozen.state]


def _record(frozen: FrozenTrial) -> TrialRecord:
    attributes = frozen.user_attrs
    measurement = attributes.get("measurement") or {}
    return TrialRecord(
        number=frozen.number,
        state=_state(frozen),
        configuration=dict(frozen.params),
        values=tuple(frozen.values) if frozen.values is not None else None,
        metrics=measurement.get("metrics") or {},
        violations=dict(frozen.constraints or {}) if frozen.state == TrialState.COMPLETE else {},
        reason=attributes.get("reason"),
        message=attributes.get("message", ""),
        measurement=measurement,
        notes=attributes.get("notes") or {},
        started=frozen.datetime_start,
        finished=frozen.datetime_complete,
        attributes=attributes,
    )


def locate(reference: str, storage: str | None = None) -> tuple[str, list[str]]:
    """Find the studies that a user means by ``reference``.

    Args:
        reference: a study's name, the path of an SQLite file, or ``FILE.db:NAME``.
        storage: where to look; default the file ``studies/<name>.db``.

    Returns:
        The storage's URL and the names of the studies there: one, or one for each level.

    Raises:
        StudyError: nothing of that name.
    """
    file, _, name = reference.rpartition(":")
    if storage is not None:
        url, name = storage, reference
    elif file.endswith(".db"):
        url = f"sqlite:///{file}"
    elif reference.endswith(".db"):
        url, name = f"sqlite:///{reference}", ""
    else:
        url, name = default_url(reference.split("@")[0]), reference
    names = optuna.get_all_study_names(connect(url))
    found = [n for n in names if not name or n == name or n.split("@")[0] == name]
    if not found:
        held = ", ".join(names) or "no study"
        raise StudyError(f"no study {name!r} in {redact(url)}; it holds: {held}")
    return url, sorted(found)


def open_study(reference: str, storage: str | None = None) -> Store:
    """The one study that ``reference`` means. Raises StudyError when there are several."""
    url, names = locate(reference, storage)
    if len(names) > 1:
        raise StudyError(f"{reference} holds several studies; name one: {', '.join(names)}")
    return Store.open(url, names[0])


def load_records(reference: str, storage: str | None = None) -> list[TrialRecord]:
    """All trials of one study. Raises StudyError as ``open_study``."""
    return open_study(reference, storage).records()


def load_table(reference: str, storage: str | None = None) -> "Any":
    """One study as a ``pandas.DataFrame``: one row a finished trial.

    Columns: ``number``, every knob (``None`` where inactive), every metric of
    ``Measurement.metrics``, ``latency_p99_low_ms``, ``latency_p99_high_ms``, ``feasible``,
    ``valid`` (measured without failure), ``reason``. ``attrs`` holds ``name``, ``parameters``,
    ``objectives``, ``directions``, ``environment``, ``space`` and ``energy_source``.
    """
    return table_of(open_study(reference, storage))


def table_of(store: Store) -> "Any":
    """As ``load_table``, of an open study."""
    import pandas

    records = [r for r in store.records() if r.is_finished]
    names = [p["name"] for p in store.space_description.get("parameters", [])]
    metrics = sorted({m for r in records for m in r.metrics})
    rows = []
    for record in records:
        interval: Sequence[float | None] = (
            (record.measurement.get("stage") or {}).get("latency_p99_interval_ms") or (None, None)
        )
        rows.append(
            {
                "number": record.number,
                **{n: record.configuration.get(n) for n in names},
                **{m: record.metrics.get(m) for m in metrics},
                "latency_p99_low_ms": interval[0],
                "latency_p99_high_ms": interval[1],
                "feasible": record.feasible,
                "valid": record.state == "complete",
                "reason": record.reason,
            }
        )
    columns = ["number", *names, *metrics, "latency_p99_low_ms", "latency_p99_high_ms",
               "feasible", "valid", "reason"]
    table = pandas.DataFrame(rows, columns=columns)
    sources = sorted({r.energy_source for r in records if r.energy_source})
    table.attrs.update(
        name=store.name, parameters=names, objectives=store.metric_names,
        directions=store.directions, environment=store.environment,
        space=store.space_description, energy_source=sources[0] if len(sources) == 1 else sources,
    )
    return table
