"""``tuner models``: the DNNs that come with tuner, building one, timing how it gains from batches."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from tabulate import tabulate

from tuner import machine, models, workloads

HELP = "list the DNNs that tuner can build as SavedModels, build one, or time its batches"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="list|build|time", required=True)
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
    timing = actions.add_parser(
        "time", help="milliseconds a row by batch size, on one thread of this machine; kept"
    )
    timing.add_argument("name", metavar="NAME", help="as for build")
    timing.add_argument("--requests", default="default", metavar="FILE.npz|DIR|random",
        help="rows to run; default: the workload that belongs to a named model")
    timing.add_argument("--again", action="store_true", help="measure even if it is kept")
    timing.add_argument("--json", action="store_true", help="print what was measured as JSON")


def run(args: argparse.Namespace) -> int:
    if args.action == "list":
        return _list(args.json)
    return _build(args.name, args.json) if args.action == "build" else _time(args)


def _time(args: argparse.Namespace) -> int:
    record = models.resolve(args.name, progress=_tell)
    speed = models.measure_speed(
        record,
        workloads.requests_file(record, source=args.requests),
        machine=machine.identity(machine.describe()),
        again=args.again,
        progress=_tell,
    )
    if args.json:
        print(json.dumps({"name": record.name, **speed.to_json()}, indent=2))
        return 0
    rows = [[n, f"{ms:.3g}", f"{speed.ms_per_row[1] / ms:.2f}"] for n, ms in speed.ms_per_row.items()]
    print(f"{record.name} on one thread of {speed.machine}")
    print(tabulate(rows, ["batch", "ms a row", "gain"], disable_numparse=True))
    return 0


def _tell(line: str) -> None:
    print(line, file=sys.stderr)


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
    record = models.resolve(name, progress=_tell)
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
