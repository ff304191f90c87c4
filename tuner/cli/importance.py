"""``tuner importance``: which options matter, and which act together."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from typing import Any

import pandas as pd

from tuner.analysis.environments import Environment
from tuner.analysis.importance import (
    ROWS_AN_OPTION,
    agreement_table,
    importance_table,
    partial_dependence,
)
from tuner.analysis.interactions import interaction_table
from tuner.analysis.options import Floats, Option, describe_options
from tuner.analysis.scale import logs
from tuner.analysis.text import aligned, short
from tuner.cli import _numbers
from tuner.cli._environments import load, noise_record
from tuner.cli._references import REFERENCE, add_reference_arguments
from tuner.errors import UsageError

HELP = "rank options by importance, and pairs of them by interaction"

_PAIRS = 10


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("reference", metavar=REFERENCE, help="the study or table to explain")
    parser.add_argument(
        "--effects", action="store_true",
        help="main effects by least squares instead, for a screening design of few runs",
    )
    parser.add_argument("--seed", type=_numbers.seed, default=0, help="seed of the random forests")
    parser.add_argument(
        "--dependence", metavar="FILE.png", help="draw the partial dependence on each option"
    )
    add_reference_arguments(parser)


def run(args: argparse.Namespace) -> int:
    found = load(args, [args.reference])
    if len(found) != 1:
        raise UsageError(f"{args.reference} stands for {len(found)} responses; name one")
    environment = found[0]
    table = environment.table[environment.usable]
    response = environment.values[environment.usable]
    options = describe_options(table, environment.options)
    if args.effects:
        return _effects(args, environment, table, response, options)
    importance = importance_table(table, options, response, seed=args.seed)
    agreement = agreement_table(importance)
    # On the logarithm two options that multiply don't interact.
    interactions = interaction_table(table, options, logs(response)[0])
    few = len(table) < ROWS_AN_OPTION * len(options)
    note = (
        f"{len(table)} configurations for {len(options)} options: a forest's importances mean "
        "nothing here; --effects tells the main effects of a screening design"
    ) if few else None
    if args.plot or args.dependence:
        _draw(args, environment, importance, interactions)
    if args.json:
        document = {
            "response": environment.label,
            "configurations": len(table),
            "note": note,
            "importance": importance.to_dict(orient="index"),
            "agreement": agreement.to_dict(orient="records"),
            "interactions": interactions.to_dict(orient="records"),
        }
        print(json.dumps(_without_nan(document), indent=2, allow_nan=False))
        return 0
    print(f"{environment.label}: {len(table)} valid configurations\n")
    if note:
        print(f"{note}\n")
    print(aligned([["option", *importance.columns],
                   *([name, *map(float, row)] for name, row in
                     zip(importance.index, importance.to_numpy()))]))
    print("\nagreement of the rankings")
    print(aligned([list(agreement.columns), *agreement.to_numpy().tolist()]))
    print("\nstrongest interactions (share of variance beyond all main effects)")
    print(aligned([list(interactions.columns), *interactions.head(_PAIRS).to_numpy().tolist()]))
    return 0


def _effects(
    args: argparse.Namespace, environment: Environment, table: pd.DataFrame, response: Floats,
    options: Sequence[Option],
) -> int:
    from tuner.analysis.screening import main_effects

    if args.plot or args.dependence:
        raise UsageError("--effects draws nothing: leave out --plot and --dependence")
    repeats = table["repeats"] if "repeats" in table.columns else None
    found = main_effects(
        table, options, response, repeats=repeats, noise=noise_record(environment)
    )
    rows = found.to_dict(orient="records")
    if args.json:
        document = {"response": environment.label, "configurations": len(table), **found.attrs,
                    "effects": [{**r, "aliased_with": list(r["aliased_with"])} for r in rows]}
        print(json.dumps(_without_nan(document), indent=2, allow_nan=False))
        return 0
    unit = f" ({found.attrs['unit']})" if found.attrs["unit"] else ""
    print(f"{environment.label}: main effects over {len(table)} valid configurations\n")
    print(aligned([
        ["option", "from", "to", f"effect{unit}", "95 %", "p", "mixed with"],
        *([r["option"], r["low"], r["high"], r["effect"],
           f"{short(r['effect_low'])} to {short(r['effect_high'])}", r["p_value"], _mixed(r)]
          for r in rows),
    ]))
    told = found.attrs["error_from"]
    print("\nerrors unknown: no repeats, and no run beyond the effects" if told is None else
          f"\nerrors from {told}, {found.attrs['degrees']} degrees of freedom")
    return 0


def _mixed(row: dict[str, Any]) -> str:
    """What an effect cannot be told from."""
    if row["aliased_with"]:
        return f"not told from {', '.join(row['aliased_with'])}"
    count = row["interactions"]
    return f"{count} interactions, by up to {row['largest_alias']:.2f}" if count else "nothing"


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
