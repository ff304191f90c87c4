"""``tuner pareto``: the configurations of a study worth choosing."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuner.cli._every_trial import as_table, every_trial
from tuner.cli._pareto_choice import choice_sentence
from tuner.cli._pareto_notes import study_notes
from tuner.cli._pareto_questions import refuse_meaningless
from tuner.cli._pareto_text import MISSES, members, misses, text
from tuner.cli._references import names
from tuner.errors import StudyError, UsageError
from tuner.measurement import METRICS, interval_names

if TYPE_CHECKING:
    from tuner.analysis.limits import Limit

HELP = "the configurations of a study worth choosing: table, JSON, plot"


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
    parser.add_argument("--all", action="store_true",
                        help="list every trial as well: what was offered, measured, and why not")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--plot", type=Path, metavar="FILE.png", help="draw all trials and the front")


def run(args: argparse.Namespace) -> int:
    from tuner import store

    url, held = store.locate(args.study, args.storage)
    fronts, listed = [], []
    for name in held:
        study = store.Store.open(url, name)
        fronts.append(front(study, args.objectives, args.limit, args.reference))
        listed.append(every_trial(store.table_of(study)) if args.all else None)
    if args.json:
        described = [describe(f) if rows is None else {**describe(f), "all_trials": rows}
                     for f, rows in zip(fronts, listed)]
        print(json.dumps(described[0] if len(described) == 1 else described, indent=2))
    else:
        for found, rows in zip(fronts, listed):
            if rows is not None:
                print(as_table(rows, found.attrs["parameters"]))
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
    empty = [found.attrs["name"] for found in fronts if not found["usable"].any()]
    if empty:
        print(f"tuner: nothing feasible in {', '.join(empty)}", file=sys.stderr)
    return 1 if empty else 0


def limit(text: str) -> Limit:
    """A service level as a user writes it."""
    from tuner.analysis.limits import Limit

    try:
        found = Limit.parse(text)
        if not math.isfinite(found.bound):
            raise ValueError
        return found
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
    limits: Sequence[Limit] = (),
    reference: Sequence[float] | None = None,
) -> Any:
    """What is known of the study's configurations (``analysis.known.front_of``).

    The objectives are the study's own unless told; ``attrs["trials"]`` holds the table of trials.

    Raises:
        StudyError: energies measured in several ways, which no front may hold together.
        UsageError: a reference of another length than the objectives, a metric that there is not, a
            question that no measurement answers (``space_questions``).
    """
    from tuner import store
    from tuner.analysis.known import front_of
    from tuner.analysis.recording import sisters
    from tuner.deploy.knobs import KNOBS

    trials = store.table_of(study)
    own = dict(zip(trials.attrs["objectives"], trials.attrs["directions"], strict=True))
    refuse_meaningless(trials, objectives or (), limits, own)
    objectives = list(dict.fromkeys(objectives or own))
    if reference is not None and len(reference) != len(objectives):
        raise UsageError(
            f"--reference holds {len(reference)} numbers, there are {len(objectives)} objectives: "
            f"{', '.join(objectives)}"
        )
    directions = [
        own.get(o) or (METRICS[o].direction if o in METRICS else "minimize") for o in objectives
    ]
    return front_of(
        trials, objectives, directions, limits=limits, reference=reference,
        defaults={name: knob.default for name, knob in KNOBS.items()},
        sisters=lambda: sisters(study.url, study.name),
    )


def describe(marked: Any) -> dict[str, Any]:
    """The front as JSON."""
    attrs = marked.attrs
    knobs = attrs["parameters"]

    def described(row: Any) -> dict[str, Any]:
        settings = {k: plain(row[k]) for k in knobs}
        return {
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
            "limits": [
                {"limit": t, "probability": plain(p), "assumed": t in row["limit_unknown"]}
                for t, p in zip(attrs["limits"], row["limit_probability"])
            ],
            "limits_probability": plain(row["limits_probability"]),
            "front_probability": plain(row["front_probability"]),
            "on_front": bool(row["on_front"]),
            "certain": bool(row["certain"]),
            "measured_again_s": plain(row["again_s"]),
            "measured_again": int(row["again"]),
            "repeats": int(row["repeats"]),
            "failed_repeats": int(row["failures"]),
            "repeats_disagree": list(row["discord"]),
            "disturbed": list(row["disturbed_by"]),
            "disturbed_left_out": list(row["left_out"]),
            "p99_by_former_rank_rule": former_rule(row["former_rule"]),
            "knee": bool(row["knee"]),
            "choice": bool(row["choice"]),
            "group": int(row["group"]),
        }

    shown = members(marked)
    chosen = attrs["choice"]
    choice = None
    if chosen is not None:
        row = marked.iloc[chosen.row]
        choice = {
            "trial": int(row["number"]),
            "not_told_apart": [
                int(n) for n in shown.loc[shown["group"] == row["group"], "number"]
                if n != row["number"]
            ],
            "keeps_every_limit": chosen.sure,
            "limits_probability": plain(row["limits_probability"]),
            "reason": choice_sentence(marked),
        }
    return {
        "study": attrs["name"],
        "objectives": [
            {"name": o, "direction": d, "unit": METRICS[o].unit if o in METRICS else ""}
            for o, d in zip(attrs["objectives"], attrs["directions"], strict=True)
        ],
        "limits": list(attrs["asked"]),
        "every_limit": list(attrs["limits"]),
        "choice": choice,
        "hypervolume": {
            "value": plain(attrs["hypervolume"]),
            "reference": attrs["reference"] and dict(zip(attrs["objectives"], attrs["reference"])),
        },
        "energy_source": attrs["energy_source"] or None,
        "energy_method": attrs["environment"].get("energy_method"),
        "trials": attrs["counts"],
        "noise": [dict(n) for n in attrs["noise"]],
        "noise_unknown": [o for o in attrs["objectives"] if o in attrs["noise_unknown"]],
        "notes": study_notes(marked),
        "measured_again": [
            {**told, "metrics": {m: {when: list(map(plain, held)) for when, held in both.items()}
                                 for m, both in told["metrics"].items()}}
            for told in attrs["refuted"]
        ],
        "front": [described(row) for _, row in shown.iterrows()],
        "nearest_misses": [] if len(shown) else [
            described(row) for _, row in misses(marked).head(MISSES).iterrows()
        ],
    }


def plain(value: Any) -> Any:
    """A cell of a table as JSON: ``None`` for what is not known, an infinite end too."""
    value = value.item() if hasattr(value, "item") else value
    unknown = value is None or (isinstance(value, float) and not math.isfinite(value))
    return None if unknown else value


def former_rule(asked: Sequence[int]) -> list[dict[str, Any]]:
    """Of each measurement by the former rank rule: its ranks, and about how far its p99 is too low.

    See ``analysis.ranks``; ``expected_shortfall`` is a share, an estimate for an exponential tail.
    """
    from tuner.analysis.ranks import expected_shortfall, former_rank, right_rank

    return [
        {"requests": n, "rank": former_rank(n), "right_rank": right_rank(n),
         "expected_shortfall": round(expected_shortfall(n), 4)}
        for n in asked
    ]


def draw(marked: Any, file: Path) -> None:
    """Write the plot. Raises StudyError where the file cannot be written."""
    from tuner.analysis.plots import pareto_figure

    table = marked
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
