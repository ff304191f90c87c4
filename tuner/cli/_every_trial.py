"""Every trial of a study, failed ones too, and what was measured again: as JSON and as a table."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from tuner.cli import _format
from tuner.cli._pareto_notes import bounds
from tuner.measurement import METRICS, interval_names


def every_trial(trials: Any) -> list[dict[str, Any]]:
    """One object for each finished trial and each later measurement.

    Args:
        trials: as ``store.table_of`` gives it.
    """
    from tuner.analysis.again import with_later
    from tuner.analysis.open_bounds import opened

    metrics = [m for m in METRICS if m in trials.columns]
    bounded = [m for m in metrics if interval_names(m)[0] in trials.columns]
    knobs = trials.attrs["parameters"]
    rows = []
    for row in opened(with_later(trials, metrics)).to_dict(orient="records"):
        plain = {k: _plain(v) for k, v in row.items()}
        intervals = {m: [plain[c] for c in interval_names(m)] for m in bounded}
        feasible = plain["feasible"]
        rows.append({
            "trial": int(row["number"]),
            "measured_again": plain["again_s"] is not None,
            "configuration": {k: plain[k] for k in knobs if plain[k] is not None},
            "reason": plain["reason"],
            "feasible": None if feasible is None else bool(feasible),
            "offered_rps": plain.get("target_rate_rps"),
            "requests": None if plain.get("requests") is None else int(plain["requests"]),
            "window_s": plain.get("window_s"),
            "metrics": {m: plain[m] for m in metrics},
            "intervals": {m: held for m, held in intervals.items() if held[0] is not None},
            "batch_rows_mean": plain.get("batch_rows_mean"),
            "memory_peak_mb": plain.get("memory_peak_mb"),
            "percentile_rule": plain.get("percentile_rule"),
            "disturbed": plain.get("disturbed"),
            "drift": plain.get("drift"),
        })
    return rows


def as_table(rows: Sequence[dict[str, Any]], knobs: Sequence[str]) -> str:
    """One line for each of them."""
    from tabulate import tabulate

    lines = []
    for row in rows:
        metrics, configuration = row["metrics"], row["configuration"]
        why = row["reason"] or ("beyond a limit" if row["feasible"] is False else "-")
        lines.append([
            f"{row['trial']}{' again' if row['measured_again'] else ''}", why,
            *(_format.number(row[k]) for k in ("offered_rps", "requests", "window_s")),
            _format.number(metrics.get("latency_p99_ms")) + _span(row, "latency_p99_ms"),
            _format.number(metrics.get("energy_per_request_j")),
            *(_format.number(row[k]) for k in ("batch_rows_mean", "memory_peak_mb")),
            row["disturbed"] or "-", row["drift"] or "-",
            *(_format.configuration({k: configuration[k]}).partition("=")[2]
              if k in configuration else "-" for k in knobs),
        ])
    headers = ["trial", "reason", "offered (1/s)", "requests", "window (s)", "p99 (ms)",
               "energy/request (J)", "rows a batch", "memory (MB)", "disturbed", "drift", *knobs]
    return tabulate(lines, headers=headers, disable_numparse=True)


def _plain(value: Any) -> Any:
    value = value.item() if hasattr(value, "item") else value
    unknown = value is None or (isinstance(value, float) and not math.isfinite(value))
    return None if unknown else value


def _span(row: dict[str, Any], metric: str) -> str:
    low, high = row["intervals"].get(metric, (None, None))
    names = interval_names(metric)
    told = {"interval_unknown": (), names[0]: math.nan if low is None else low,
            names[1]: math.inf if high is None else high}
    return bounds(told, metric, {metric})
