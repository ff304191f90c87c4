"""Summaries of stored studies: one for each model, workload and load level of a database."""

from __future__ import annotations

import datetime
import math
import sqlite3
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tuner.errors import StudyError, UsageError
from tuner.measurement import PERCENTILE_RULE, Scalar, configuration_key

KEYS = ("name", "model", "workload", "load", "deployer", "machine", "configurations_valid",
        "configurations_invalid", "trials", "energy_source", "latencies_kept", "p99_rank_low",
        "p99_rank_low_by")


@dataclass(frozen=True)
class Recorded:
    """What one database holds of one model under one workload at one load level."""

    name: str
    model: str | None
    workload: str | None
    load: Scalar | None
    deployer: str | None
    machine: str | None
    configurations_valid: int
    """Configurations measured without failure (``analysis.repeats.without_failure``)."""
    configurations_invalid: int
    """All others that were tried."""
    trials: int
    """Finished ones, repeats included."""
    energy_source: str | None
    energy_model: str | None = None
    when: str = ""
    """Days of the first and last trial."""
    versions: str = ""
    rate_rps: float | None = None
    requests_median: float | None = None
    p99_half_width: float | None = None
    """Median over the trials of the p99's 95 % half-width relative to it; the lower side's where
    nothing bounds it from above."""
    p99_open: float | None = None
    """Share of the trials whose p99 has no upper bound: too few requests."""
    energy_half_width: float | None = None
    """Median over the trials of the energy's 95 % half-width relative to it."""
    energy_change: float | None = None
    """As ``p99_change``, of the energy per request."""
    spans: tuple[tuple[datetime.datetime, datetime.datetime], ...] = ()
    """From when to when each trial ran; the load levels of a configuration run in one span."""
    p99_change: float | None = None
    """Median, over configurations measured again, of how far their p99s differ, relative to them."""
    repeats: int = 0
    """Configurations measured again."""
    reasons: Mapping[str, int] = field(default_factory=dict)
    """Why trials failed -> how many."""
    latencies_kept: int = 0
    """Trials of which every request's latency is kept beside the database."""
    p99_rank_low: float | None = None
    """Share of the trials whose p99 is one rank too low; ``None``: by the ceiling's rank, as it is."""
    p99_rank_low_by: float | None = None
    """By how much that is, as a share of the p99: median over those trials (``rank_low``)."""

    def to_json(self) -> dict[str, Any]:
        return {key: getattr(self, key) for key in KEYS}


def hours(found: Sequence[Recorded]) -> float:
    """Hours in which trials ran; what overlaps counts once."""
    total_s, until = 0.0, None
    for start, end in sorted(span for one in found for span in one.spans):
        begin = start if until is None else max(start, until)
        total_s += max(0.0, (end - begin).total_seconds())
        until = end if until is None else max(end, until)
    return total_s / 3600


def is_valid(trials: Sequence[Any]) -> bool:
    """Whether a configuration with these finished trials counts as measured without failure."""
    from tuner.analysis.repeats import without_failure

    return without_failure([t.state == "complete" for t in trials], [t.reason for t in trials])


def storages(paths: Sequence[str]) -> Iterator[str]:
    """The storage URLs meant by databases, folders of databases and URLs, in order.

    Raises:
        UsageError: a path that isn't there.
    """
    for path in paths:
        if "://" in path:
            yield path
        elif Path(path).is_dir():
            yield from (f"sqlite:///{file}" for file in sorted(Path(path).glob("*.db")))
        elif Path(path).exists():
            yield f"sqlite:///{path}"
        elif path == "studies":
            return
        else:
            raise UsageError(f"{path}: no such database or folder")


def read(url: str) -> list[Recorded]:
    """What a storage holds. Raises StudyError where it cannot be read or isn't a study database."""
    import optuna

    from tuner import store

    try:
        _refuse_other_file(url)
        storage = store.connect(url)
        groups: dict[tuple[Any, ...], list[Any]] = defaultdict(list)
        for name in sorted(optuna.get_all_study_names(storage)):
            held = store.Store.open(url, name, storage)
            told = held.environment
            # Whatever else varies (other models served) is a part of the configuration here.
            key = (
                name.split("@")[0], told.get("model"), _workload(told), told.get("load"),
                told.get("machine"),
            )
            groups[key].append((held, held.records()))
        return [_summary(key, groups[key]) for key in sorted(groups, key=_order)]
    except StudyError:
        raise
    except Exception as error:  # noqa: BLE001 - a damaged database fails in its driver's own way
        text = str(getattr(error, "orig", None) or error.__cause__ or error).splitlines()
        raise StudyError(
            f"{store.redact(url)}: cannot be read: {text[0] if text else type(error).__name__}"
        ) from None


def _order(key: tuple[Any, ...]) -> tuple[Any, ...]:
    """By name, then from light to high load."""
    base, model, workload, load, machine = key
    levels = ("light", "medium", "high")
    rank = levels.index(load) if load in levels else len(levels)
    return str(base), str(model), str(workload), rank, str(load), str(machine)


def _refuse_other_file(url: str) -> None:
    """Raise StudyError for an SQLite file without studies, in which Optuna would make tables."""
    prefix = "sqlite:///"
    if not url.startswith(prefix):
        return
    file = Path(url.removeprefix(prefix))
    try:
        with closing(sqlite3.connect(file.absolute().as_uri() + "?mode=ro", uri=True)) as database:
            found = database.execute("SELECT 1 FROM sqlite_master WHERE name = 'studies'").fetchone()
    except sqlite3.Error as error:
        raise StudyError(f"{file}: cannot be read: {error}") from None
    if not found:
        raise StudyError(f"{file}: holds no studies")


def _workload(environment: Mapping[str, Any]) -> str | None:
    """The requests' source, with how they are drawn where that isn't each row in its turn."""
    name = environment.get("workload")
    popularity = environment.get("popularity", "each_once")
    return name if popularity == "each_once" or name is None else f"{name}, {popularity}"


def _summary(key: tuple[Any, ...], held: Sequence[tuple[Any, Any]]) -> Recorded:
    base, model, workload, load, machine = key
    environment = held[0][0].environment
    by_configuration: dict[Any, list[Any]] = defaultdict(list)
    trials = []
    for kept, records in held:
        for record in records:
            if record.is_finished:
                # Levels of other factors make other configurations of one load level.
                by_configuration[kept.name, configuration_key(record.configuration)].append(record)
                trials.append(record)
    valid = sum(is_valid(same) for same in by_configuration.values())
    sources = sorted({r.energy_source for r in trials if r.energy_source})
    measured = [r for r in trials if r.state == "complete"]
    stages = [r.measurement["stage"] for r in measured if "stage" in r.measurement]
    lows = [low for s in stages if (low := rank_low(s)) is not None]
    days = sorted({r.finished.date().isoformat() for r in trials if r.finished})
    versions = [r.attributes.get("versions") for r in trials if r.attributes.get("versions")]
    again = [same for same in by_configuration.values() if len(same) > 1]
    p99s, energies = (
        [change for same in again if (change := _change(same, metric)) is not None]
        for metric in ("latency_p99_ms", "energy_per_request_j")
    )
    return Recorded(
        name=held[0][0].name if len(held) == 1 else base,
        model=model,
        workload=workload,
        load=load,
        deployer=environment.get("deployer"),
        machine=machine,
        configurations_valid=valid,
        configurations_invalid=len(by_configuration) - valid,
        trials=len(trials),
        energy_source=", ".join(sources) or environment.get("energy_source"),
        energy_model=environment.get("energy_model"),
        when=" to ".join(dict.fromkeys(days[:1] + days[-1:])),
        versions=", ".join(f"{k} {v}" for k, v in (versions[-1] if versions else {}).items()),
        rate_rps=_median([s.get("target_rate_rps") for s in stages]),
        requests_median=_median([s.get("requests") for s in stages]),
        p99_half_width=_median([_half_width(s) for s in stages]),
        p99_open=_mean([not _is_bounded(s) for s in stages]),
        energy_half_width=_median([_energy_half_width(r) for r in measured]),
        p99_change=_median(p99s),
        energy_change=_median(energies),
        spans=tuple((r.started, r.finished) for r in trials if r.started and r.finished),
        repeats=len(p99s),
        latencies_kept=sum(_keeps_latencies(r) for r in trials),
        p99_rank_low=_mean([low > 0 for low in lows]),
        p99_rank_low_by=_median([low for low in lows if low > 0]),
        reasons=Counter(r.reason for r in trials if r.state == "failed" and r.reason),
    )


def rank_low(stage: Mapping[str, Any]) -> float | None:
    """How far too low a stage's p99 is by the former rule of its rank, as a share of the p99.

    Percentiles were once those of the nearest rank, ``floor(0.99 n + 0.5)``, where the ceiling's is
    meant, ``ceil(0.99 n)``: one rank too low for half of all numbers of requests. The latencies of
    then are not kept, so the gap between the two ranks is an estimate: in a tail that falls
    exponentially through the stored p95 and p99, neighbours of rank k and k + 1 lie ``scale / (n − k)``
    apart (Rényi, "On the theory of order statistics", 1953).

    Returns:
        0 where both ranks are the same; ``None`` where the stage says that the ceiling's was taken.
    """
    from tuner.analysis.ranks import former_rank, right_rank

    if (stage.get("details") or {}).get(PERCENTILE_RULE) is not None:
        return None
    p95, p99 = stage.get("latency_p95_ms"), stage.get("latency_p99_ms")
    answered = (stage.get("requests") or 0) - sum((stage.get("errors") or {}).values())
    if p95 is None or p99 is None or answered <= 0:
        return None
    former = former_rank(answered)
    if former >= right_rank(answered):
        return 0.0
    gap_ms = (p99 - p95) / math.log(5) / (answered - former)
    return float(gap_ms / (p99 + gap_ms)) if p99 > 0 else None


def _keeps_latencies(record: Any) -> bool:
    from tuner.store import latencies

    stage = record.measurement.get("stage") or {}
    return str(stage.get("samples_file")).startswith(latencies.PREFIX)


def _is_bounded(stage: Mapping[str, Any]) -> bool:
    bounds = stage.get("latency_p99_interval_ms")
    told = (stage.get("details") or {}).get("p99_interval_bounded", True)  # records of before
    return bool(told and (not bounds or bounds[1] is not None))


def _half_width(stage: Mapping[str, Any]) -> float | None:
    bounds, value = stage.get("latency_p99_interval_ms"), stage.get("latency_p99_ms")
    if not bounds or not value:
        return None
    # The stored upper end is only the largest latency where the stage holds no bound.
    return ((bounds[1] - bounds[0]) / 2 if _is_bounded(stage) else value - bounds[0]) / value


def _energy_half_width(record: Any) -> float | None:
    bounds = record.intervals.get("energy_per_request_j")
    value = record.metrics.get("energy_per_request_j")
    return None if not bounds or not value else (bounds[1] - bounds[0]) / 2 / value


def _change(same: Sequence[Any], metric: str) -> float | None:
    """How far a metric's values of one configuration lie apart, relative to their middle."""
    values = [v for r in same if r.state == "complete" and (v := r.metrics.get(metric)) is not None]
    if len(values) < 2 or max(values) + min(values) <= 0:
        return None
    return 2 * (max(values) - min(values)) / (max(values) + min(values))


def _mean(values: Sequence[float]) -> float | None:
    return statistics.fmean(values) if values else None


def _median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None
