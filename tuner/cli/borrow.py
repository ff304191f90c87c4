"""``tuner borrow``: does the configuration of one DNN suit another?"""

from __future__ import annotations

import argparse
import json
import math
from typing import Any

from tuner.analysis.borrow import (
    MINIMUM_DNNS,
    correlation_table,
    cost_table,
    effect_costs,
    option_changes,
)
from tuner.analysis.energy import check_energy
from tuner.analysis.environments import LEAST_COMMON, Environment
from tuner.analysis.fronts import DEFAULT_OBJECTIVES
from tuner.analysis.loader import Loader
from tuner.analysis.regret import borrowed_front, common, price_of_borrowing
from tuner.analysis.text import aligned, short
from tuner.cli._references import names
from tuner.errors import UsageError

HELP = "price of running one DNN with the configuration that suits another"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("studies", nargs="+", metavar="STUDY", help="two or more studies")
    parser.add_argument(
        "--objectives", type=names, default=list(DEFAULT_OBJECTIVES), metavar="A,B",
        help=f"metrics to minimise (default: {','.join(DEFAULT_OBJECTIVES)})",
    )
    parser.add_argument("--storage", metavar="URL", help="where studies are kept")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--plot", metavar="FILE.png", help="draw the price of every borrowing")


def run(args: argparse.Namespace) -> int:
    if len(args.studies) < 2:
        raise UsageError("borrowing takes two or more studies")
    loaders = Loader(storage=args.storage, feasible=True)
    # One environment for each objective and study; the label is the study's own.
    by_objective: dict[str, list[Environment]] = {}
    for objective in args.objectives:
        loaders.response = objective
        by_objective[objective] = loaders.load(args.studies)
        check_energy(by_objective[objective])
    labels = _labels(by_objective[args.objectives[0]], args.studies)
    document = _document(by_objective, labels)
    if args.plot:
        from tuner.analysis.figures import save
        from tuner.analysis.plots_borrow import borrow_figure

        prices = {name: _prices(document, name, labels) for name in args.objectives}
        save(borrow_figure(labels, prices), args.plot)
    if args.json:
        print(json.dumps(_plain(document), indent=2, allow_nan=False))
    else:
        _print(document, args.objectives)
    return 0


def _labels(environments: list[Environment], references: list[str]) -> list[str]:
    """The studies' own names; how they were asked for where two databases hold the same name."""
    named = [e.label.removesuffix(f":{e.response}") for e in environments]
    told = [name if named.count(name) == 1 else asked for name, asked in zip(named, references)]
    return [
        name if told.count(name) == 1 else f"{name} ({1 + told[:place].count(name)})"
        for place, name in enumerate(told)
    ]


def _prices(
    document: dict[str, Any], objective: str, labels: list[str]
) -> dict[tuple[int, int], float | None]:
    """(lender, borrower) -> regret in percent, infinite where it fails; of itself on the diagonal."""
    found: dict[tuple[int, int], float | None] = {}
    for pair in document["pairs"]:
        i, j = labels.index(pair["lender"]), labels.index(pair["borrower"])
        price = pair["price"][objective]
        found[i, j] = math.inf if price["borrowed_fails"] else price["regret_pct"]
        found.setdefault((j, j), price["self_regret_pct"])
    return found


def _document(by_objective: dict[str, list[Environment]], labels: list[str]) -> dict[str, Any]:
    pairs = []
    for i, lender in enumerate(labels):
        for j, borrower in enumerate(labels):
            if i == j:
                continue
            sources = [environments[i] for environments in by_objective.values()]
            targets = [environments[j] for environments in by_objective.values()]
            rests_on = min(common(*pair) for pair in zip(sources, targets))
            if rests_on < LEAST_COMMON:
                pairs.append(_silent(lender, borrower, rests_on, list(by_objective)))
                continue
            front = borrowed_front(sources, targets)
            pairs.append(
                {
                    "lender": lender,
                    "borrower": borrower,
                    "common": rests_on,
                    "front": front.to_dict(orient="records"),
                    "on_front_share": float(front["on_target_front"].mean()),
                    "fails_share": float(front["borrowed_fails"].mean()),
                    "price": {
                        source.response: price_of_borrowing(source, target)
                        for source, target in zip(sources, targets)
                    },
                    "options": {
                        source.response: option_changes(source, target).to_dict(orient="records")
                        for source, target in zip(sources, targets)
                    },
                }
            )
    costs = {name: cost_table(found) for name, found in by_objective.items()}
    return {
        "studies": labels,
        "pairs": pairs,
        "correlation": {
            name: [
                row if row["configurations"] >= LEAST_COMMON
                else {**row, "pearson": math.nan, "spearman": math.nan}
                for row in correlation_table(found).to_dict(orient="records")
            ]
            for name, found in by_objective.items()
        },
        "effects": {
            name: effect_costs(found).to_dict(orient="records")
            for name, found in by_objective.items()
        },
        "costs": {
            name: {
                "studies": table.reset_index().to_dict(orient="records"),
                "relation": relation.to_dict(orient="records"),
            }
            for name, (table, relation) in costs.items()
        },
    }


def _silent(
    lender: str, borrower: str, rests_on: int, objectives: list[str]
) -> dict[str, Any]:
    """A pair with too few configurations valid in both for any number on it."""
    nothing = dict.fromkeys((
        "borrowed_fails", "regret_pct", "median_configuration_regret_pct", "regret_median_pct",
        "regret_interval_pct", "self_regret_pct", "self_regret_interval_pct", "fails_share",
        "beyond_noise", "interval_unknown",
    ))
    return {
        "lender": lender, "borrower": borrower, "common": rests_on, "front": [],
        "on_front_share": None, "fails_share": None,
        "price": {name: {**nothing, "configurations": rests_on} for name in objectives},
        "options": {name: [] for name in objectives},
    }


def _print(document: dict[str, Any], objectives: list[str]) -> None:
    head = ["lender > borrower", "in common", "of the front on the front", "fails",
            *(f"regret {name} (%)" for name in objectives),
            *(f"median configuration {name} (%)" for name in objectives)]
    lines: list[list[Any]] = [head]
    for pair in document["pairs"]:
        price, told_of = pair["price"], [f"{pair['lender']} > {pair['borrower']}", pair["common"]]
        if pair["common"] < LEAST_COMMON:
            lines.append([*told_of, *["–"] * (len(head) - 2)])
            continue
        lines.append([*told_of, f"{pair['on_front_share']:.0%}", f"{pair['fails_share']:.0%}",
                      *(_regret(price[name]) for name in objectives),
                      *(price[name]["median_configuration_regret_pct"] for name in objectives)])
    print(aligned(lines))
    print(
        "fails: of the lender's front, what is invalid for the borrower or misses a constraint of "
        "its study\n[] 95 % of what the regret may be, the values redrawn within their intervals; "
        "itself: the median regret\nof choosing by a second measurement of the borrower; * beyond "
        "that noise"
    )
    if any(pair["common"] < LEAST_COMMON for pair in document["pairs"]):
        print(f"–: fewer than {LEAST_COMMON} configurations are valid in both; no number is told")
    print("\noptions whose effect changes")
    told = False
    for pair in document["pairs"]:
        for name, options in pair["options"].items():
            for option in options:
                what = [word for word in ("sign", "rank") if option[f"{word}_changes"]]
                if what and pair["lender"] < pair["borrower"]:
                    told = True
                    print(f"  {option['option']}: {' and '.join(what)} in {name}, "
                          f"{pair['lender']} {option['source_effect_pct']:+.1f} % (rank "
                          f"{option['source_rank']}), {pair['borrower']} "
                          f"{option['target_effect_pct']:+.1f} % (rank {option['target_rank']})")
    if not told:
        print("  none")
    for title, rows in [("correlation of ", document["correlation"]),
                        ("relation to the DNN's costs of ",
                         {n: c["relation"] for n, c in document["costs"].items()})]:
        for name, records in rows.items():
            if records:
                print(f"\n{title}{name}")
                print(aligned([list(records[0]), *(list(r.values()) for r in records)]))
    _print_effects(document["effects"])


def _print_effects(effects: dict[str, list[dict[str, Any]]]) -> None:
    """Options whose effect goes with a cost of the DNN, the closest first."""
    for name, rows in effects.items():
        known = [row for row in rows if not math.isnan(row["spearman"])]
        print(f"\noptions' effects on {name} and the DNN's costs, rank correlation over DNNs")
        if known:
            known.sort(key=lambda row: -abs(row["spearman"]))
            print(aligned([list(known[0]), *(list(row.values()) for row in known)]))
        else:
            most = max((row["dnns"] for row in rows), default=0)
            print(f"  none: {most} DNNs, it takes {MINIMUM_DNNS}")


def _regret(price: dict[str, Any]) -> str:
    """``12 [3–40] itself 8 *``; ``fails`` where the lender's best is invalid for the borrower."""
    told = "fails" if price["borrowed_fails"] else short(price["regret_pct"])
    if price["regret_interval_pct"]:
        low, high = price["regret_interval_pct"]
        told += f" [{short(low)}–{short(high)}]"
    if price["self_regret_pct"] is not None:
        told += f" itself {short(price['self_regret_pct'])}"
    return told + (" *" if price["beyond_noise"] else "")


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(held) for key, held in value.items()}
    if isinstance(value, list):
        return [_plain(held) for held in value]
    if hasattr(value, "item"):
        value = value.item()
    return None if isinstance(value, float) and math.isnan(value) else value
