"""Later measurements of a study's configurations (``tuner measure``) as rows beside its trials."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from tuner.analysis.open_bounds import TOLD
from tuner.measurement import interval_names

_NUMBERS = ("window_s", "requests", "target_rate_rps", "batch_rows_mean", "memory_peak_mb")
_TOLD = ("disturbed", "drift", "percentile_rule", *_NUMBERS[1:])
"""What an entry tells by the name of its column, where it was stored."""


def with_later(table: pd.DataFrame, metrics: Sequence[str]) -> pd.DataFrame:
    """The table of trials with a row for each entry of ``attrs["measured_again"]``.

    A column ``again_s`` holds the seconds of such an entry, NaN for a trial; the knobs are those of
    the trial that was measured again. Entries of trials that the table lacks are left out. A table
    without entries comes back with that column alone.
    """
    found = table.copy(deep=False)
    found["again_s"] = np.nan
    entries = table.attrs.get("measured_again") or ()
    place = {int(n): i for i, n in enumerate(table["number"])} if entries else {}
    knobs = {name: table[name].tolist() for name in table.attrs.get("parameters") or ()}
    rows = [
        {**_row(entry, metrics), **{k: held[place[int(entry["trial"])]] for k, held in knobs.items()}}
        for entry in entries if int(entry["trial"]) in place
    ]
    if not rows:
        return found
    bounds = [c for m in metrics for c in interval_names(m)]
    columns = list(dict.fromkeys([*found.columns, *bounds, "disturbed", "drift"]))
    found.attrs = {}
    whole = {
        c: [*(found[c].tolist() if c in found.columns else [np.nan] * len(found)),
            *(row.get(c) for row in rows)]
        for c in columns
    }
    return pd.DataFrame({c: pd.Series(v, dtype=_kind(found, c, metrics)) for c, v in whole.items()})


def _kind(table: pd.DataFrame, column: str, metrics: Sequence[str]) -> Any:
    numeric = {*metrics, *(c for m in metrics for c in interval_names(m)), *_NUMBERS, "again_s"}
    return float if column in numeric else object


def _row(entry: Mapping[str, Any], metrics: Sequence[str]) -> dict[str, Any]:
    intervals = dict(entry.get("intervals") or {})
    for name in ("latency_p50", "latency_p99"):  # before intervals were kept by metric
        intervals.setdefault(f"{name}_ms", entry.get(f"{name}_interval_ms"))
    window_s = float(entry.get("window_s") or 0.0)
    violations, at = entry.get("violations"), pd.to_datetime(entry.get("date"))
    row: dict[str, Any] = {
        "number": int(entry["trial"]), "valid": entry.get("reason") is None,
        "reason": entry.get("reason"), "again_s": window_s,
        "window_s": window_s, "started": None if at is None else at.tz_localize(None),
        "feasible": None if violations is None else entry.get("reason") is None and all(
            v <= 0 for v in violations.values()
        ),
        "energy_basis": json.dumps(entry["energy_basis"]) if entry.get("energy_basis") else None,
        TOLD: None, **{name: entry.get(name) for name in _TOLD},
    }
    if row["requests"] is None:
        row["requests"] = _requests(entry["metrics"], window_s)
    for metric in metrics:
        value = entry["metrics"].get(metric)
        row[metric] = np.nan if value is None else float(value)
        low, high = intervals.get(metric) or (None, None)
        if metric == "latency_p99_ms" and entry.get(TOLD) is False:
            high = None  # the largest latency stood for it, in entries of before
        row.update(zip(interval_names(metric), (
            np.nan if low is None else float(low),
            np.nan if low is None else np.inf if high is None else float(high),
        )))
    return row


def _requests(metrics: Mapping[str, float | None], window_s: float) -> float | None:
    """How many were due, of an entry that does not tell: those answered in the window, and the share
    that was not."""
    throughput, wrong = metrics.get("throughput_rps"), metrics.get("error_rate")
    if throughput is None or wrong is None or wrong >= 1:
        return None
    return round(throughput * window_s / (1 - wrong))
