"""``tuner pareto``: the configurations of a study worth choosing."""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import Any

from tuner.cli import _format
from tuner.cli._pareto_notes import pareto_notes
from tuner.errors import StudyError
from tuner.measurement import METRICS, interval_names

HELP = "the configurations of a study worth choosing: table, JSON, plot"

SHOWN = ("latency_p50_ms", "latency_p95_ms", "latency_p99_ms", "throughput_rps",
         "energy_per_request_j", "error_rate")
MOST_COLUMNS = 6
"""Fronts of more members are printed with one member a line."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("study", metavar="STUDY", help="a study's name, FILE.db or FILE.db:NAME")
    parser.add_argument("--storage", metavar="URL", help="default: sqlite:///studies/<STUDY>.db")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--plot", type=Path, metavar="FILE.png", help="draw all trials and the front")


def run(args: argparse.Namespace) -> int:
    from tuner import store

    url, names = store.locate(args.study, args.storage)
    fronts = [front(store.Store.open(url, name)) for name in names]
    if args.json:
        described = [describe(f) for f in fronts]
        print(json.dumps(described[0] if len(described) == 1 else described, indent=2))
    else:
        for found in fronts:
            print(text(found))
    if args.plot:
        for found in fronts:
            file = args.plot
            if len(fronts) > 1:
                level = found.attrs["name"].partition("@")[2].replace("=", "-").replace(",", "-")
                file = file.with_stem(f"{file.stem}-{level}")
            draw(found, file)
            if not args.json:
                print(f"plot: {file}")
    return 0


def front(study: Any) -> Any:
    """The study's table with its front marked (see ``analysis.fronts.mark_front``).

    One row a configuration: repeats are pooled, and a longer measurement (``tuner measure``) stands
    for them, see ``analysis.repeats.pool``.

    Raises:
        StudyError: energies measured in several ways, which no front may hold together.
    """
    from tuner import store
    from tuner.analysis.energy import refuse_mixed
    from tuner.analysis.fronts import mark_front
    from tuner.analysis.recording import sisters
    from tuner.analysis.repeats import pool

    trials = store.table_of(study)
    objectives = trials.attrs["objectives"]
    table = pool(trials, lambda: sisters(study.url, study.name))
    refuse_mixed(table, objectives)
    table.attrs["counts"] = counts(trials, table)
    table["measured"] = table["valid"]
    table["valid"] = table["feasible"].astype(bool)
    maximise = [
        o for o, d in zip(objectives, table.attrs["directions"], strict=True) if d == "maximize"
    ]
    marked = mark_front(table, objectives, maximise=maximise)
    marked.attrs.update(table.attrs)
    return marked


def members(marked: Any) -> Any:
    """The front's rows, best in the first objective first."""
    first = marked.attrs["objectives"][0]
    rising = marked.attrs["directions"][0] == "minimize"
    return marked[marked["on_front"]].sort_values(first, ascending=rising)


def describe(marked: Any) -> dict[str, Any]:
    """The front as JSON."""
    attrs = marked.attrs
    knobs = attrs["parameters"]

    def plain(value: Any) -> Any:
        value = value.item() if hasattr(value, "item") else value
        return None if value is None or (isinstance(value, float) and math.isnan(value)) else value

    out = []
    for _, row in members(marked).iterrows():
        settings = {k: plain(row[k]) for k in knobs}
        out.append(
            {
                "trial": int(row["number"]),
                "trials": list(row["trials"]),
                "configuration": {k: v for k, v in settings.items() if v is not None},
                "metrics": {m: plain(row[m]) for m in METRICS if m in marked.columns},
                "latency_p99_interval_ms": [
                    plain(row["latency_p99_low_ms"]), plain(row["latency_p99_high_ms"])
                ],
                "intervals": {
                    m: [plain(row[c]) for c in interval_names(m)]
                    for m in METRICS if all(c in marked.columns for c in interval_names(m))
                },
                "interval_unknown": list(row["interval_unknown"]),
                "interval_open": list(row["interval_open"]),
                "front_probability": plain(row["front_probability"]),
                "certain": bool(row["certain"]),
                "measured_again_s": plain(row["again_s"]),
                "repeats": int(row["repeats"]),
                "failed_repeats": int(row["failures"]),
                "repeats_disagree": list(row["discord"]),
                "knee": bool(row["knee"]),
            }
        )
    return {
        "study": attrs["name"],
        "objectives": [
            {"name": o, "direction": d, "unit": METRICS[o].unit if o in METRICS else ""}
            for o, d in zip(attrs["objectives"], attrs["directions"], strict=True)
        ],
        "energy_source": attrs["energy_source"] or None,
        "energy_method": attrs["environment"].get("energy_method"),
        "trials": marked.attrs["counts"],
        "noise": [dict(n) for n in attrs["noise"]],
        "noise_unknown": [o for o in attrs["objectives"] if o in attrs["noise_unknown"]],
        "front": out,
    }


def counts(trials: Any, pooled: Any) -> dict[str, Any]:
    """How many trials ended how, and of how many configurations they are."""
    measured, feasible = trials["valid"].astype(bool), trials["feasible"].astype(bool)
    failed = trials[~measured]
    return {
        "finished": len(trials),
        "configurations": len(pooled),
        "feasible": int(feasible.sum()),
        "beyond_a_constraint": int((measured & ~feasible).sum()),
        "failed": {str(k): int(v) for k, v in failed["reason"].value_counts().items()},
    }


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
        return "\n".join([*lines, "No trial is feasible yet: nothing to choose from."])
    goals = " and ".join(f"{d} {o}" for o, d in zip(attrs["objectives"], attrs["directions"]))
    lines.append(f"Pareto set ({goals}); * marks the knee, [] 95 % intervals:")
    rows = []
    shown = [m for m in SHOWN if m in found.columns]
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
    unit = METRICS[name].unit
    plain = {"latency_p50_ms": "p50", "latency_p95_ms": "p95", "latency_p99_ms": "p99",
             "throughput_rps": "throughput", "energy_per_request_j": "energy/request",
             "error_rate": "error rate"}[name]
    return f"{plain} ({unit})" if unit else plain


def draw(marked: Any, file: Path) -> None:
    """Write the plot. Raises StudyError where the file cannot be written."""
    from tuner.analysis.plots import pareto_figure

    table = marked.drop(columns=["usable", "on_front", "knee", "front_probability"])
    table.attrs.update(marked.attrs)
    objectives = table.attrs["objectives"]
    if len(objectives) != 2:
        raise StudyError(f"a plot needs two objectives, this study has {len(objectives)}")
    try:
        method = table.attrs["environment"].get("energy_method", "")
        heading = f"{table.attrs['name']} (energy: {method} by {table.attrs['energy_source']})"
        pareto_figure(table, objectives, heading=heading).savefig(file, dpi=150)
    except (OSError, ValueError) as error:
        raise StudyError(f"{file} cannot be written: {error}") from None
