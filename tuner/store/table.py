"""A study as a table: one row a finished trial, with everything that an analysis asks of it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from tuner.measurement import EMBEDDED_SERVER, METRICS, energy_basis, interval_names
from tuner.store.database import Store
from tuner.store.reading import uncollected
from tuner.store.record import TrialRecord

MEASURED_AGAIN = "measured_again"
"""The study's fact that lists the longer measurements of its finalists."""
NEEDED = ("reason", "message", "measurement")
"""A trial's attributes that a table is made of."""
WITH_INTERVAL = (
    "latency_p50_ms", "latency_p95_ms", "latency_p99_ms", "energy_per_request_j", "energy_net_per_request_j"
)


def table_of(store: Store) -> Any:
    """An open study as a ``pandas.DataFrame``: one row a finished trial, in order of number.

    Columns: ``number``; every knob (``None`` where inactive); every metric of
    ``Measurement.metrics``; the 95 % intervals of those that have one, as ``latency_p99_low_ms``
    and ``latency_p99_high_ms`` (both empty = unknown, an infinite upper end = no upper bound is
    known); ``feasible``, ``valid`` (measured without
    failure), ``reason``; ``window_s``; ``started`` (UTC); ``batch_rows_mean``: rows in a batch
    of the stage, where the server ran and counted any; ``energy_basis``: how the energy was
    measured, as JSON of ``measurement.energy_basis``; ``p99_interval_bounded``: whether the stage
    held enough requests for an upper bound of its p99; ``requests`` and ``target_rate_rps`` of the
    stage; ``percentile_rule``: by which rank its percentiles were taken (empty = the former rule,
    see ``analysis.ranks``); ``disturbed``: in words what disturbed the stage; ``memory_peak_mb``
    of the server; ``former_rest``: measured over the embedded server's former REST front. ``attrs`` holds ``name``, ``parameters``,
    ``objectives``, ``directions``, ``environment``, ``space``, ``energy_source`` (a list where
    there are several) and ``measured_again``: what ``tuner measure`` stored since.
    """
    # The records, a million objects, live until the table is made: nothing to collect meanwhile.
    with uncollected():
        return _table(store, [r for r in store.records(NEEDED) if r.is_finished])


def _table(store: Store, records: list[TrialRecord]) -> Any:
    import pandas

    names = [p["name"] for p in store.space_description.get("parameters", [])]
    metrics = list(dict.fromkeys([*METRICS, *(m for r in records for m in r.metrics)]))
    intervals = [r.intervals for r in records]
    bounded = {m: interval_names(m)
               for m in dict.fromkeys([*WITH_INTERVAL, *(m for told in intervals for m in told)])}
    columns = [
        "number", *names, *metrics, *(c for ends in bounded.values() for c in ends),
        "feasible", "valid", "reason", "window_s", "started", "batch_rows_mean",
        "energy_basis", "p99_interval_bounded", "requests", "target_rate_rps", "percentile_rule",
        "disturbed", "drift", "memory_peak_mb", "former_rest",
    ]
    rows = [_row(record, names, metrics) | _ends(told, bounded)
            for record, told in zip(records, intervals)]
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


def _row(record: TrialRecord, names: list[str], metrics: list[str]) -> dict[str, Any]:
    energy = record.measurement.get("energy")
    stage = record.measurement.get("stage") or {}
    details = stage.get("details") or {}
    return {
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
        "p99_interval_bounded": details.get("p99_interval_bounded"),
        "requests": stage.get("requests"),
        "target_rate_rps": stage.get("target_rate_rps"),
        "percentile_rule": details.get("percentile_rule"),
        "disturbed": details.get("disturbed"),
        "drift": details.get("drift"),
        "memory_peak_mb": _memory_peak_mb(record),
        "former_rest": _former_rest(record, details.get("protocol")),
    }


def _ends(
    intervals: Mapping[str, tuple[float, float | None]], bounded: Mapping[str, tuple[str, str]]
) -> dict[str, float | None]:
    """Both ends of every metric, by the names of their columns."""
    row: dict[str, float | None] = {}
    for metric, (lower, upper) in bounded.items():
        low, high = intervals.get(metric, (None, None))
        open_above = low is not None and high is None
        row[lower], row[upper] = low, math.inf if open_above else high
    return row


def _batch_rows_mean(record: TrialRecord) -> float | None:
    batches = (record.measurement.get("deployment") or {}).get("batches")
    return batches["rows_mean"] if batches else None


def _former_rest(record: TrialRecord, protocol: str | None) -> bool:
    deployment = record.measurement.get("deployment") or {}
    return (
        protocol == "rest"
        and deployment.get("deployer") == "embedded"
        and EMBEDDED_SERVER not in deployment
    )


def _memory_peak_mb(record: TrialRecord) -> float | None:
    peak = (record.measurement.get("deployment") or {}).get("memory_peak_mb")
    return None if peak is None else float(peak)
