"""``tuner importance``: which options matter, and which act together."""

from __future__ import annotations

import argparse
import json
import math

import pandas as pd

from tuner.analysis.environments import Environment
from tuner.analysis.importance import agreement_table, importance_table, partial_dependence
from tuner.analysis.interactions import interaction_table
from tuner.analysis.options import describe_options
from tuner.analysis.text import aligned
from tuner.cli._references import REFERENCE, add_reference_arguments, loader
from tuner.errors import UsageError

HELP = "rank options by importance, and pairs of them by interaction"

_PAIRS = 10


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("reference", metavar=REFERENCE, help="the study or table to explain")
    parser.add_argument("--seed", type=int, default=0, help="seed of the random forests")
    parser.add_argument(
        "--dependence", metavar="FILE.png", help="draw the partial dependence on each option"
    )
    add_reference_arguments(parser)


def run(args: argparse.Namespace) -> int:
    found = loader(args).load([args.reference])
    if len(found) != 1:
        raise UsageError(f"{args.reference} stands for {len(found)} responses; name one")
    environment = found[0]
    table = environment.table[environment.usable]
    response = environment.values[environment.usable]
    options = describe_options(table, environment.options)
    importance = importance_table(table, options, response, seed=args.seed)
    agreement = agreement_table(importance)
    interactions = interaction_table(table, options, response)
    if args.plot or args.dependence:
        _draw(args, environment, importance, interactions)
    if args.json:
        document = {
            "response": environment.label,
            "configurations": len(table),
            "importance": importance.to_dict(orient="index"),
            "agreement": agreement.to_dict(orient="records"),
            "interactions": interactions.to_dict(orient="records"),
        }
        print(json.dumps(_without_nan(document), indent=2, allow_nan=False))
        return 0
    print(f"{environment.label}: {len(table)} valid configurations\n")
    print(aligned([["option", *importance.columns],
                   *([name, *map(float, row)] for name, row in
                     zip(importance.index, importance.to_numpy()))]))
    print("\nagreement of the rankings")
    print(aligned([list(agreement.columns), *agreement.to_numpy().tolist()]))
    print("\nstrongest interactions (share of variance beyond all main effects)")
    print(aligned([list(interactions.columns), *interactions.head(_PAIRS).to_numpy().tolist()]))
    return 0


def _draw(
    args: argparse.Namespace,
    environment: Environment,
    importance: pd.DataFrame,
    interactions: pd.DataFrame,
) -> None:
    from tuner.analysis.figures import save
    from tuner.analysis.plots_importance import importance_figure, partial_dependence_figure

    if args.plot:
        heading = environment.label
        save(importance_figure(importance, interactions, heading=heading), args.plot)
    if args.dependence:
        rows = environment.usable
        table = environment.table[rows]
        options = describe_options(table, list(importance.index))  # most important first
        dependence = partial_dependence(table, options, environment.values[rows], seed=args.seed)
        save(partial_dependence_figure(dependence, environment.response), args.dependence)


def _without_nan(value: object) -> object:
    if isinstance(value, dict):
        return {key: _without_nan(held) for key, held in value.items()}
    if isinstance(value, list):
        return [_without_nan(held) for held in value]
    return None if isinstance(value, float) and math.isnan(value) else value
