"""``tuner pareto``: the configurations of a study worth choosing."""

from __future__ import annotations

import argparse
import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tuner.cli._pareto_text import members, text
from tuner.cli._references import names
from tuner.errors import StudyError, UsageError
from tuner.measurement import METRICS, interval_names

HELP = "the configurations of a study worth choosing: table, JSON, plot"

_LIMIT = re.compile(r"\s*([A-Za-z_]\w*)\s*(<=|>=)\s*(\S+)\s*")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("study", metavar="STUDY", help="a study's name, FILE.db or FILE.db:NAME")
    parser.add_argument("--storage", metavar="URL", help="default: sqlite:///studies/<STUDY>.db")
    parser.add_argument(
        "--objectives", type=names, metavar="A,B",
        help="metrics that span the front (default: the study's own)",
    )
    parser.add_argument(
        "--limit", action="append", default=[], type=limit, metavar="CONDITION",
        help="a service level, like 'latency_p99_ms<=50' or 'throughput_rps>=100'; repeatable",
    )
    parser.add_argument(
        "--reference", type=_numbers, metavar="X,Y",
        help="reference point of the hypervolume, a value for each objective (default: the worst "
             "usable configuration's in each)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--plot", type=Path, metavar="FILE.png", help="draw all trials and the front")


def run(args: argparse.Namespace) -> int:
    from tuner import store

    url, held = store.locate(args.study, args.storage)
    fronts = [
        front(store.Store.open(url, name), args.objectives, args.limit, args.reference)
        for name in held
    ]
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


def limit(text: str) -> tuple[str, str, float]:
    """Metric, ``<=`` or ``>=``, and bound of a service level as a user writes it."""
    match = _LIMIT.fullmatch(text)
    try:
        if match is None or not math.isfinite(bound := float(match[3])):
            raise ValueError
        return match[1], match[2], bound
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} should be a metric, <= or >=, and a number, like 'latency_p99_ms<=50'"
        ) from None


def _numbers(text: str) -> list[float]:
    try:
        found = [float(part) for part in text.split(",")]
        if not all(map(math.isfinite, found)):
            raise ValueError
        return found
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} should be numbers, like 50,0.2") from None


def front(
    study: Any,
    objectives: Sequence[str] | None = None,
    limits: Sequence[tuple[str, str, float]] = (),
    reference: Sequence[float] | None = None,
) -> Any:
    """The study's table with its front marked (see ``analysis.fronts.mark_front``).

    One row a configuration: repeats are pooled, and a longer measurement (``tuner measure``) stands
    for them, see ``analysis.repeats.pool``. ``attrs`` holds the ``objectives`` with their
    ``directions`` (the study's own unless told), the ``limits`` and the ``hypervolume`` with its
    ``reference``, one value an objective (``None`` where nothing is usable).

    Raises:
        StudyError: energies measured in several ways, which no front may hold together.
        UsageError: a reference of another length than the objectives.
        TableError: a metric that the study does not hold.
    """
    from tuner import store
    from tuner.analysis.energy import refuse_mixed
    from tuner.analysis.fronts import front_hypervolume, mark_front, worst_point
    from tuner.analysis.recording import sisters
    from tuner.analysis.repeats import pool
    from tuner.analysis.tables import numbers, require

    trials = store.table_of(study)
    own = dict(zip(trials.attrs["objectives"], trials.attrs["directions"], strict=True))
    objectives = list(dict.fromkeys(objectives or own))
    require(trials, [*objectives, *(metric for metric, _, _ in limits)])
    if reference is not None and len(reference) != len(objectives):
        raise UsageError(
            f"--reference holds {len(reference)} numbers, there are {len(objectives)} objectives: "
            f"{', '.join(objectives)}"
        )
    table = pool(trials, lambda: sisters(study.url, study.name))
    refuse_mixed(table, [*objectives, *(metric for metric, _, _ in limits)])
    table.attrs["counts"] = counts(trials, table)
    table["measured"] = table["valid"]
    table["valid"] = table["feasible"].astype(bool)
    directions = [
        own.get(o) or (METRICS[o].direction if o in METRICS else "minimize") for o in objectives
    ]
    maximise = [o for o, d in zip(objectives, directions, strict=True) if d == "maximize"]
    for metric, sign, bound in limits:
        value = numbers(table, metric)
        table["valid"] &= value <= bound if sign == "<=" else value >= bound
    marked = mark_front(table, objectives, maximise=maximise)
    marked.attrs.update(table.attrs)
    usable, volume = marked[marked["usable"]], None
    if len(usable):
        reference = reference or worst_point(usable, objectives, maximise=maximise)
        volume = front_hypervolume(usable, objectives, reference, maximise=maximise)
    marked.attrs.update(
        objectives=objectives, directions=directions, hypervolume=volume, reference=reference,
        limits=[f"{metric} {sign} {bound:g}" for metric, sign, bound in limits],
    )
    return marked


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
        "limits": list(attrs["limits"]),
        "hypervolume": {
            "value": attrs["hypervolume"],
            "reference": attrs["reference"] and dict(zip(attrs["objectives"], attrs["reference"])),
        },
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


def draw(marked: Any, file: Path) -> None:
    """Write the plot. Raises StudyError where the file cannot be written."""
    from tuner.analysis.plots import pareto_figure

    table = marked.drop(columns=["usable", "on_front", "knee", "front_probability"])
    table.attrs.update(marked.attrs)
    objectives = table.attrs["objectives"]
    if len(objectives) != 2:
        raise StudyError(
            f"a plot needs two objectives, there are {len(objectives)}; name two with --objectives"
        )
    maximise = [o for o, d in zip(objectives, table.attrs["directions"]) if d == "maximize"]
    try:
        method = table.attrs["environment"].get("energy_method", "")
        heading = f"{table.attrs['name']} (energy: {method} by {table.attrs['energy_source']})"
        drawn = pareto_figure(table, objectives, heading=heading, maximise=maximise)
        drawn.savefig(file, dpi=150)
    except (OSError, ValueError) as error:
        raise StudyError(f"{file} cannot be written: {error}") from None
