"""Finding studies by what a user calls them, and reading them as tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import optuna

from tuner.errors import StudyError
from tuner.measurement import METRICS
from tuner.space import Space
from tuner.store.database import Store
from tuner.store.record import TrialRecord
from tuner.store.urls import connect, default_url, redact


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
    stored.refuse_other(space, {})


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


def load_table(reference: str, storage: str | None = None) -> Any:
    """One study as a ``pandas.DataFrame``: one row a finished trial.

    Columns: ``number``, every knob (``None`` where inactive), every metric of
    ``Measurement.metrics``, ``latency_p99_low_ms``, ``latency_p99_high_ms``, ``feasible``,
    ``valid`` (measured without failure), ``reason``. ``attrs`` holds ``name``, ``parameters``,
    ``objectives``, ``directions``, ``environment``, ``space`` and ``energy_source``.
    """
    return table_of(open_study(reference, storage))


def table_of(store: Store) -> Any:
    """As ``load_table``, of an open study."""
    import pandas

    records = [r for r in store.records() if r.is_finished]
    names = [p["name"] for p in store.space_description.get("parameters", [])]
    metrics = list(dict.fromkeys([*METRICS, *(m for r in records for m in r.metrics)]))
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
    for name in names:
        # As they were chosen: an inactive knob must not turn another trial's 8 into 8.0.
        chosen = [r.configuration.get(name) for r in records]
        table[name] = pandas.Series(chosen, index=table.index, dtype=object)
    sources = sorted({r.energy_source for r in records if r.energy_source})
    table.attrs.update(
        name=store.name, parameters=names, objectives=store.metric_names,
        directions=store.directions, environment=store.environment,
        space=store.space_description, energy_source=sources[0] if len(sources) == 1 else sources,
    )
    return table
