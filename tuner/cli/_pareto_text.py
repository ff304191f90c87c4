"""A Pareto set as a table for a person."""

from __future__ import annotations

import math
from typing import Any

from tuner.cli import _format
from tuner.cli._pareto_notes import pareto_notes
from tuner.measurement import METRICS, interval_names

SHOWN = ("latency_p50_ms", "latency_p95_ms", "latency_p99_ms", "throughput_rps",
         "energy_per_request_j", "error_rate")
MOST_COLUMNS = 6
"""Fronts of more members are printed with one member a line."""


def members(marked: Any) -> Any:
    """The front's rows, best in the first objective first."""
    first = marked.attrs["objectives"][0]
    rising = marked.attrs["directions"][0] == "minimize"
    return marked[marked["on_front"]].sort_values(first, ascending=rising)


def text(marked: Any) -> str:
    """The front as a table for a person."""
    from tabulate import tabulate

    attrs, found = marked.attrs, members(marked)
    told = attrs["counts"]
    failed = ", ".join(f"{k} {v}" for k, v in told["failed"].items())
    lines = [
        f"Study {attrs['name']}: {told['finished']} trials finished"
        + (f" of {told['configurations']} configurations"
           if told["configurations"] < told["finished"] else "")
        + f", {told['feasible']} feasible"
        + (f", {told['beyond_a_constraint']} beyond a constraint"
           if told["beyond_a_constraint"] else "")
        + (f", failed: {failed}" if failed else "")
    ]
    if found.empty:
        why = f"within {', '.join(attrs['limits'])}" if attrs["limits"] else "feasible yet"
        return "\n".join([*lines, f"No trial is {why}: nothing to choose from."])
    goals = " and ".join(f"{d} {o}" for o, d in zip(attrs["objectives"], attrs["directions"]))
    within = f" within {', '.join(attrs['limits'])}" if attrs["limits"] else ""
    lines.append(f"Pareto set ({goals}){within}; * marks the knee, [] 95 % intervals:")
    rows = []
    shown = [m for m in dict.fromkeys([*SHOWN, *attrs["objectives"]]) if m in found.columns]
    knobs = [k for k in attrs["parameters"] if found[k].notna().any()]
    for _, row in found.iterrows():
        rows.append(
            [f"{int(row['number'])}{'*' if row['knee'] else ''}"]
            + [_format.number(row[m]) + _bounds(row, m, attrs["objectives"]) for m in shown]
            + [f"{row['front_probability']:.0%}{'?' if row['interval_unknown'] else ''}"]
            + [_format.configuration({k: row[k]}).partition("=")[2]
               if row[k] is not None and row[k] == row[k] else "-" for k in knobs]
        )
    headers = ["trial", *(_short(m) for m in shown), "P(front)", *knobs]
    # A column for each member reads well on a narrow terminal; a long front goes down the page.
    if len(rows) <= MOST_COLUMNS:
        table = [list(line) for line in zip(headers, *rows, strict=True)]
        lines.append(tabulate(table[1:], headers=table[0], disable_numparse=True,
                              colalign=("left", *["right"] * len(rows))))
    else:
        lines.append(tabulate(rows, headers=headers, disable_numparse=True, stralign="right"))
    corner = ", ".join(
        f"{o} {_format.number(v)}" for o, v in zip(attrs["objectives"], attrs["reference"])
    )
    lines.append(f"hypervolume: {_format.number(attrs['hypervolume'])}, reference point {corner}")
    source = attrs["energy_source"]
    if source:
        named = source if isinstance(source, str) else ", ".join(source)
        lines.append(f"energy source: {named} ({attrs['environment'].get('energy_method', '?')})")
    return "\n".join([*lines, *pareto_notes(found)])


def _bounds(row: Any, metric: str, objectives: list[str]) -> str:
    """`` [9.1–11.4]``, the 95 % interval of a metric; of an objective also that it is unknown.

    A question mark stands behind an upper bound that is a guess.
    """
    if metric in row["interval_unknown"]:
        return " [unknown]"
    if metric not in objectives and metric != "latency_p99_ms":
        return ""
    low, high = (row.get(name) for name in interval_names(metric))
    if low is None or math.isnan(low):
        return ""
    guess = "?" if metric in row["interval_open"] else ""
    return f" [{_format.number(low)}–{_format.number(high)}{guess}]"


def _short(name: str) -> str:
    unit = METRICS[name].unit if name in METRICS else ""
    plain = {"latency_p50_ms": "p50", "latency_p95_ms": "p95", "latency_p99_ms": "p99",
             "throughput_rps": "throughput", "energy_per_request_j": "energy/request",
             "error_rate": "error rate"}.get(name, name)
    return f"{plain} ({unit})" if unit else plain
