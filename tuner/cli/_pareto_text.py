"""A Pareto set as a table for a person."""

from __future__ import annotations

import math
from typing import Any

from tuner.cli import _format
from tuner.cli._pareto_choice import chance, choice_sentence, limit_notes
from tuner.cli._pareto_notes import bounds, pareto_notes, study_notes
from tuner.measurement import METRICS

SHOWN = ("latency_p50_ms", "latency_p95_ms", "latency_p99_ms", "throughput_rps",
         "energy_per_request_j", "error_rate")
MOST_COLUMNS = 6
"""Fronts of more members are printed with one member a line."""
MISSES = 5
"""How many of the nearest misses are told where nothing is feasible."""


def members(marked: Any) -> Any:
    """The front's rows and the choice, best in the first objective first."""
    first = marked.attrs["objectives"][0]
    rising = marked.attrs["directions"][0] == "minimize"
    shown = marked[marked["on_front"] | marked["choice"]]
    return shown.sort_values(first, ascending=rising)


def misses(marked: Any) -> Any:
    """The measured configurations that miss a limit, the nearest first.

    By the sum of how far each limit is missed, relative to its bound.
    """
    from tuner.analysis.limits import Limit
    from tuner.analysis.tables import numbers

    held = marked[(marked["measurements"] > 0) & ~marked["usable"]]
    far: Any = 0.0
    for limit in map(Limit.parse, marked.attrs["limits"]):
        beyond = (numbers(held, limit.metric) - limit.bound) * (1 if limit.sign == "<=" else -1)
        far = far + (beyond / (abs(limit.bound) or 1.0)).clip(min=0.0)
    return held.assign(missed_by=far).sort_values("missed_by", kind="stable")


def text(marked: Any) -> str:
    """The front as a table for a person."""
    from tabulate import tabulate

    attrs, found = marked.attrs, members(marked)
    lines = [_counted(attrs), *study_notes(marked)]
    limits = attrs["limits"]
    if found.empty:
        why = f"within {', '.join(limits)}" if attrs["asked"] else "feasible yet"
        return "\n".join([*lines, f"No trial is {why}: nothing to choose from.",
                          *_nearest(marked)])
    goals = " and ".join(f"{d} {o}" for o, d in zip(attrs["objectives"], attrs["directions"]))
    within = f" within {', '.join(limits)}" if limits else ""
    outside = "" if found["on_front"].all() else " and the choice"
    lines.append(f"Pareto set{outside} ({goals}){within}; > marks the choice, * the knee, "
                 "! disturbed, [] 95 % intervals:")
    shown = [m for m in dict.fromkeys([*SHOWN, *attrs["objectives"]]) if m in found.columns]
    knobs = [k for k in attrs["parameters"] if found[k].notna().any()]
    letters = _letters(found)
    wanted = {*attrs["objectives"], "latency_p99_ms", *(t.split(" ")[0] for t in limits)}
    rows = []
    for _, row in found.iterrows():
        rows.append(
            [_name(row)]
            + [_format.number(row[m]) + bounds(row, m, wanted) for m in shown]
            + [f"{row['front_probability']:.0%}{'?' if not_counted(row) else ''}"]
            + [chance(row, t, p) for p, t in zip(row["limit_probability"], limits)]
            + ([letters[row["group"]]] if letters else [])
            + [_format.configuration({k: row[k]}).partition("=")[2]
               if row[k] is not None and row[k] == row[k] else "-" for k in knobs]
        )
    headers = ["trial", *(_short(m) for m in shown), "P(front)", *(f"P({t})" for t in limits),
               *(["same choice"] if letters else []), *knobs]
    # A column for each member reads well on a narrow terminal; a long front goes down the page.
    if len(rows) <= MOST_COLUMNS:
        table = [list(line) for line in zip(headers, *rows, strict=True)]
        lines.append(tabulate(table[1:], headers=table[0], disable_numparse=True,
                              colalign=("left", *["right"] * len(rows))))
    else:
        lines.append(tabulate(rows, headers=headers, disable_numparse=True, stralign="right"))
    lines.append(choice_sentence(marked))
    corner = ", ".join(
        f"{o} {_format.number(v)}" for o, v in zip(attrs["objectives"], attrs["reference"])
    )
    lines.append(f"hypervolume: {_format.number(attrs['hypervolume'])}, reference point {corner}")
    source = attrs["energy_source"]
    if source:
        named = source if isinstance(source, str) else ", ".join(source)
        lines.append(f"energy source: {named} ({attrs['environment'].get('energy_method', '?')})")
    return "\n".join([*lines, *pareto_notes(found)])


def not_counted(row: Any) -> bool:
    """Whether some error is not in ``P(front)``: that of an objective, or of a limit's metric."""
    return bool(row["interval_unknown"]) or any(map(math.isnan, row["limit_probability"]))


def _counted(attrs: Any) -> str:
    told = attrs["counts"]
    failed = ", ".join(f"{k} {v}" for k, v in told["failed"].items())
    return (
        f"Study {attrs['name']}: {told['finished']} trials finished"
        + (f" of {told['configurations']} configurations"
           if told["configurations"] < told["finished"] else "")
        + f", {told['feasible']} feasible"
        + (f", {told['beyond_a_constraint']} beyond a constraint"
           if told["beyond_a_constraint"] else "")
        + (f", failed: {failed}" if failed else "")
    )


def _nearest(marked: Any) -> list[str]:
    """The nearest misses with their numbers."""
    limits = marked.attrs["limits"]
    found = misses(marked).head(MISSES)
    if not len(found):
        return []
    lines = ["Nearest misses:"]
    for _, row in found.iterrows():
        told = []
        for limit, held in zip(limits, row["limit_probability"]):
            metric = limit.split(" ")[0]
            told.append(f"{metric} {_format.number(row[metric])}{bounds(row, metric, {metric})} "
                        f"(limit {limit.partition(' ')[2]}, P {chance(row, limit, held)})")
        if row["failures"]:
            told.append(f"{int(row['failures'])} of {len(row['trials'])} repeats failed")
        settings = {k: row[k] for k in marked.attrs["parameters"] if row[k] == row[k]}
        lines.append(f"  trial {_name(row)}: {'; '.join(told) or 'no limit'}; "
                     f"{_format.configuration(settings)}")
    return lines + limit_notes(found)


def _name(row: Any) -> str:
    return (f"{'>' if row['choice'] else ''}{int(row['number'])}"
            f"{'*' if row['knee'] else ''}{'!' if row['disturbed_by'] else ''}")


def _letters(found: Any) -> dict[int, str]:
    """A letter for each group of members that their intervals don't tell apart, in order of the rows."""
    groups = list(dict.fromkeys(found["group"]))
    if len(groups) == len(found):
        return {}
    return {group: _letter(place) for place, group in enumerate(groups)}


def _letter(place: int) -> str:
    return (_letter(place // 26 - 1) if place >= 26 else "") + chr(ord("A") + place % 26)


def _short(name: str) -> str:
    unit = METRICS[name].unit if name in METRICS else ""
    plain = {"latency_p50_ms": "p50", "latency_p95_ms": "p95", "latency_p99_ms": "p99",
             "throughput_rps": "throughput", "energy_per_request_j": "energy/request",
             "error_rate": "error rate"}.get(name, name)
    return f"{plain} ({unit})" if unit else plain

