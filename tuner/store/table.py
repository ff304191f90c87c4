"""A study as a table: one row a finished trial, with everything that an analysis asks of it."""

from __future__ import annotations

import json
from typing import Any

from tuner.measurement import METRICS, energy_basis, interval_names
from tuner.store.database import Store
from tuner.store.reading import uncollected
from tuner.store.record import TrialRecord

MEASURED_AGAIN = "measured_again"
"""The study's fact that lists the longer measurements of its finalists."""
NEEDED = ("reason", "message", "measurement")
"""A trial's attributes that a table is made of."""
WITH_INTERVAL = (
    "latency_p50_ms", "latency_p99_ms", "energy_per_request_j", "energy_net_per_request_j"
)


def table_of(store: Store) -> Any:
    """An open study as a ``pandas.DataFrame``: one row a finished trial, in order of number.

    Columns: ``number``; every knob (``None`` where inactive); every metric of
    ``Measurement.metrics``; the 95 % intervals of those that have one, as ``latency_p99_low_ms``
    and ``latency_p99_high_ms`` (empty = unknown); ``feasible``, ``valid`` (measured without
    failure), ``reason``; ``window_s``; ``started`` (UTC); ``batch_rows_mean``: rows in a batch
    of the stage, where the server ran and counted any; ``energy_basis``: how the energy was
    measured, as JSON of ``measurement.energy_basis``; ``p99_interval_bounded``: whether the stage
    held enough requests for an upper bound of its p99. ``attrs`` holds ``name``, ``parameters``,
    ``objectives``, ``directions``, ``environment``, ``space``, ``energy_source`` (a list where
    there are several) and ``measured_again``: what ``tuner measure`` stored since.
    """
    import pandas

    records = [r for r in store.records(NEEDED) if r.is_finished]
    names = [p["name"] for p in store.space_description.get("parameters", [])]
    metrics = list(dict.fromkeys([*METRICS, *(m for r in records for m in r.metrics)]))
    bounded = list(dict.fromkeys([*WITH_INTERVAL, *(m for r in records for m in r.intervals)]))
    columns = [
        "number", *names, *metrics, *(c for m in bounded for c in interval_names(m)),
        "feasible", "valid", "reason", "window_s", "started", "batch_rows_mean",
        "energy_basis", "p99_interval_bounded",
    ]
    with uncollected():
        rows = [_row(record, names, metrics, bounded) for record in records]
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
        measured_again=list(store.get(MEASURED_AGAIN) or ()),
    )
    return table


def _row(
    record: TrialRecord, names: list[str], metrics: list[str], bounded: list[str]
) -> dict[str, Any]:
    energy = record.measurement.get("energy")
    stage = record.measurement.get("stage") or {}
    row: dict[str, Any] = {
        "number": record.number,
        **{n: record.configuration.get(n) for n in names},
        **{m: record.metrics.get(m) for m in metrics},
        "feasible": record.feasible,
        "valid": record.state == "complete",
        "reason": record.reason,
        "window_s": stage.get("window_s"),
        "started": record.started,
        "batch_rows_mean": _batch_rows_mean(record),
        "energy_basis": json.dumps(energy_basis(energy)) if energy else None,
        "p99_interval_bounded": (stage.get("details") or {}).get("p99_interval_bounded"),
    }
    for metric in bounded:
        row.update(zip(interval_names(metric), record.intervals.get(metric, (None, None))))
    return row


def _batch_rows_mean(record: TrialRecord) -> float | None:
    batches = (record.measurement.get("deployment") or {}).get("batches")
    return batches["rows_mean"] if batches else None
