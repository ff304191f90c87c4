"""``tuner pareto``: the configurations of a study worth choosing."""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import Any

from tuner.cli import _format
from tuner.errors import StudyError
from tuner.measurement import METRICS

HELP = "the configurations of a study worth choosing: table, JSON, plot"

_SHOWN = ("latency_p50_ms", "latency_p95_ms", "latency_p99_ms", "throughput_rps",
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

    Raises:
        StudyError: trials of several energy sources, which no front may hold together.
    """
    from tuner import store
    from tuner.analysis.fronts import mark_front

    table = store.table_of(study)
    objectives = table.attrs["objectives"]
    sources = table.attrs["energy_source"]
    if isinstance(sources, list) and len(sources) > 1 and any("energy" in o for o in objectives):
        raise StudyError(
            f"study {study.name!r} holds energies of several sources ({', '.join(sources)}); "
            "they cannot be compared"
        )
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
                "configuration": {k: v for k, v in settings.items() if v is not None},
                "metrics": {m: plain(row[m]) for m in METRICS if m in marked.columns},
                "latency_p99_interval_ms": [
                    plain(row["latency_p99_low_ms"]), plain(row["latency_p99_high_ms"])
                ],
                "front_probability": plain(row["front_probability"]),
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
        "trials": counts(marked),
        "front": out,
    }


def counts(marked: Any) -> dict[str, Any]:
    """How many trials ended how."""
    failed = marked[~marked["measured"].astype(bool)]
    return {
        "finished": len(marked),
        "feasible": int(marked["feasible"].astype(bool).sum()),
        "beyond_a_constraint": int((marked["measured"].astype(bool) & ~marked["valid"]).sum()),
        "failed": {str(k): int(v) for k, v in failed["reason"].value_counts().items()},
    }


def text(marked: Any) -> str:
    """The front as a table for a person."""
    from tabulate import tabulate

    attrs, found = marked.attrs, members(marked)
    told = counts(marked)
    failed = ", ".join(f"{k} {v}" for k, v in told["failed"].items())
    lines = [
        f"Study {attrs['name']}: {told['finished']} trials finished, {told['feasible']} feasible"
        + (f", {told['beyond_a_constraint']} beyond a constraint"
           if told["beyond_a_constraint"] else "")
        + (f", failed: {failed}" if failed else "")
    ]
    if found.empty:
        return "\n".join([*lines, "No trial is feasible yet: nothing to choose from."])
    goals = " and ".join(f"{d} {o}" for o, d in zip(attrs["objectives"], attrs["directions"]))
    lines.append(f"Pareto set ({goals}); * marks the knee:")
    rows = []
    shown = [m for m in _SHOWN if m in found.columns]
    knobs = [k for k in attrs["parameters"] if found[k].notna().any()]
    for _, row in found.iterrows():
        interval = ""
        if row["latency_p99_low_ms"] == row["latency_p99_low_ms"]:
            interval = (f" [{_format.number(row['latency_p99_low_ms'])}"
                        f"–{_format.number(row['latency_p99_high_ms'])}]")
        rows.append(
            [f"{int(row['number'])}{'*' if row['knee'] else ''}"]
            + [_format.number(row[m]) + (interval if m == "latency_p99_ms" else "") for m in shown]
            + [f"{row['front_probability']:.0%}"]
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
    return "\n".join(lines)


def _short(name: str) -> str:
    unit = METRICS[name].unit
    plain = {"latency_p50_ms": "p50", "latency_p95_ms": "p95", "latency_p99_ms": "p99 [95 % CI]",
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
