"""``tuner models``: the DNNs that come with tuner, and building one into the cache."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from tabulate import tabulate

from tuner import models

HELP = "list the DNNs that tuner can build as SavedModels, or build one"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="list|build", required=True)
    listing = actions.add_parser("list", help="every model, and what is known of those built")
    listing.add_argument("--json", action="store_true", help="an array of records")
    building = actions.add_parser("build", help="build a model into the cache, once")
    building.add_argument(
        "name",
        metavar="NAME",
        help="a name of the list (an image model at another size: NAME@SIDE), or a folder with a "
        "SavedModel of your own, which is checked",
    )
    building.add_argument("--json", action="store_true", help="print the record as JSON")


def run(args: argparse.Namespace) -> int:
    return _list(args.json) if args.action == "list" else _build(args.name, args.json)


def _list(as_json: bool) -> int:
    entries = [_entry(*pair) for pair in models.catalogued()]
    if as_json:
        print(json.dumps(entries, indent=2))
        return 0
    rows = [
        [
            entry["name"],
            entry["workload"],
            "yes" if entry["built"] else "no",
            _millions(entry["parameters"]),
            _millions(entry["flops_per_inference"]),
            _kilobytes(entry["input_bytes"]),
            entry["weights"] or entry["summary"],
        ]
        for entry in entries
    ]
    head = ["name", "workload", "built", "parameters", "operations", "input", "weights"]
    print(tabulate(rows, head, disable_numparse=True, colalign=("left",) * 3 + ("right",) * 3))
    return 0


def _entry(recipe: models.Recipe, record: models.ModelRecord | None) -> dict[str, Any]:
    known = record.to_json() if record else {}
    return {
        "name": recipe.name,
        "summary": recipe.summary,
        "workload": recipe.workload,
        "built": record is not None,
        **{
            key: known.get(key)
            for key in (
                "parameters",
                "flops_per_inference",
                "input_bytes",
                "weights",
                "accuracy",
                "checksum",
                "path",
            )
        },
    }


def _build(name: str, as_json: bool) -> int:
    record = models.resolve(name, progress=lambda line: print(line, file=sys.stderr))
    if as_json:
        print(json.dumps(record.to_json(), indent=2))
        return 0
    lines = [
        ("model", record.name),
        ("folder", str(record.path)),
        ("weights", record.weights),
        *((f"input {name}", str(spec)) for name, spec in record.inputs.items()),
        *((f"output {name}", str(spec)) for name, spec in record.outputs.items()),
        ("parameters", _millions(record.parameters)),
        ("operations", f"{_millions(record.flops_per_inference)} an inference"),
        ("input", f"{_kilobytes(record.input_bytes)} a row"),
        ("checksum", record.checksum),
    ]
    print(tabulate(lines, tablefmt="plain", disable_numparse=True))
    return 0


def _millions(number: int | None) -> str:
    return "-" if number is None else f"{number / 1e6:,.2f} M"


def _kilobytes(number: int | None) -> str:
    return "-" if number is None else f"{number / 1000:,.1f} kB"
