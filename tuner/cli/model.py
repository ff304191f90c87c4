"""``tuner model``: how well regression models predict, and how many trials they need."""

from __future__ import annotations

import argparse
import json
import math

from tuner.analysis.options import describe_options
from tuner.analysis.regression import (
    GOOD_ERROR,
    MODELS,
    learning_curve,
    noise_floor,
    trials_needed,
)
from tuner.analysis.text import aligned
from tuner.cli import _numbers
from tuner.cli._environments import load, noise_record
from tuner.cli._references import REFERENCE, add_reference_arguments
from tuner.errors import UsageError

HELP = "fit regression models of performance: their error against the number of trials"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "references", nargs="+", metavar=REFERENCE, help="the studies or tables to model"
    )
    parser.add_argument(
        "--models", default=",".join(MODELS), metavar="A,B",
        help=f"of {', '.join(MODELS)} (default: all)",
    )
    parser.add_argument("--repeats", type=_numbers.positive_int, default=5, help="random splits (default: 5)")
    parser.add_argument("--seed", type=_numbers.seed, default=0, help="seed of the splits and models")
    parser.add_argument(
        "--linear", action="store_true",
        help="learn the response itself (default: its logarithm)",
    )
    add_reference_arguments(parser)


def run(args: argparse.Namespace) -> int:
    models = [name.strip() for name in args.models.split(",") if name.strip()]
    if not models or not set(models) <= set(MODELS):
        raise UsageError(f"--models {args.models}: should be among {', '.join(MODELS)}")
    if args.repeats < 1:
        raise UsageError("--repeats should be at least 1")
    environments = load(args, args.references)
    if args.plot and len(environments) > 1:
        raise UsageError("--plot draws one response; name one")
    documents = []
    for environment in environments:
        rows = environment.usable
        table = environment.table[rows]
        options = describe_options(table, environment.options)
        curve = learning_curve(
            table, options, environment.values[rows], models=models, repeats=args.repeats,
            seed=args.seed, log=not args.linear,
        )
        floor = noise_floor(noise_record(environment))
        needed = trials_needed(curve)
        if args.plot:
            from tuner.analysis.figures import save
            from tuner.analysis.plots_regression import learning_curve_figure

            save(learning_curve_figure(curve, heading=environment.label), args.plot)
        points = [
            {str(k): None if isinstance(v, float) and math.isnan(v) else v for k, v in row.items()}
            for row in curve.to_dict(orient="records")
        ]
        documents.append(
            {
                "response": environment.label,
                "configurations": len(table),
                "learned": "response" if args.linear else "logarithm",
                "trials_to_10_percent": needed,
                "noise_floor_mape": floor,
                "curve": points,
            }
        )
        if not args.json:
            print(f"{environment.label}: {len(table)} valid configurations\n")
            print(aligned([list(curve.columns), *(list(point.values()) for point in points)]))
            print(f"\ntrials until the error stays within {GOOD_ERROR:.0%}")
            print(aligned([[name, "not reached" if size is None else size, MODELS[name]]
                           for name, size in needed.items()]))
            print(_floor_text(floor) + "\n")
    if args.json:
        print(json.dumps(documents, indent=2, allow_nan=False))
    return 0


def _floor_text(floor: float | None) -> str:
    if floor is None:
        return "noise floor unknown: too few repeats tell what a perfect model would still err by"
    beyond = f"; above {GOOD_ERROR:.0%}, which no model can then reach" if floor > GOOD_ERROR else ""
    return f"noise floor {floor:.1%}: what a perfect model would still err by{beyond}"
