"""``tuner transfer``: what carries over from one environment to another."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence

from tuner.analysis.environments import LEAST_COMMON
from tuner.analysis.matrix import compare_environments, transfer_matrix
from tuner.analysis.text import aligned
from tuner.analysis.transfer import MEANING, Metrics
from tuner.cli import _numbers
from tuner.cli._environments import load
from tuner.cli._references import REFERENCE, add_reference_arguments
from tuner.errors import UsageError

HELP = "compare environments: do results of one carry over to another (metrics M1-M18)?"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--source", metavar=REFERENCE, help="the environment to learn from")
    parser.add_argument("--target", metavar=REFERENCE, help="the environment to apply it to")
    parser.add_argument(
        "--all",
        nargs="+",
        metavar=REFERENCE,
        help="every pair among these; COLUMN may be a pattern like 'feature*'",
    )
    parser.add_argument(
        "--top", type=_numbers.some_share, default=0.10, metavar="P",
        help="share of best and worst configurations that M4 and M5 compare (default: 0.1)",
    )
    add_reference_arguments(parser)


def run(args: argparse.Namespace) -> int:
    if bool(args.all) == bool(args.source or args.target):
        raise UsageError("say either --source with --target, or --all with two or more")
    return _matrix(args) if args.all else _pair(args)


def _pair(args: argparse.Namespace) -> int:
    if not (args.source and args.target):
        raise UsageError("--source and --target go together")
    found = load(args, [args.source, args.target])
    if len(found) != 2:
        raise UsageError("a pattern stands for several environments: say --all")
    source, target = found
    metrics = compare_environments(source, target, top=args.top)
    if args.plot:
        from tuner.analysis.figures import save
        from tuner.analysis.plots_transfer import responses_figure

        save(responses_figure(source, target), args.plot)
    if args.json:
        print(json.dumps(metrics, indent=2, allow_nan=False))
        return 0
    print(f"source: {source.label}\ntarget: {target.label}")
    print(f"options: {', '.join(name for name in source.options if name in target.options)}\n")
    print(aligned([[name, value, MEANING[name]] for name, value in metrics.items()]))
    _say_withheld([metrics])
    return 0


def _say_withheld(found: Sequence[Metrics]) -> None:
    if any((metrics["common"] or 0) < LEAST_COMMON for metrics in found):
        print(f"\nM1 to M14 are told where at least {LEAST_COMMON} configurations are valid in both")


def _matrix(args: argparse.Namespace) -> int:
    environments = load(args, args.all)
    if len(environments) < 2:
        raise UsageError("--all needs two or more environments")
    matrix = transfer_matrix(environments, top=args.top)
    labels = [environment.label for environment in environments]
    if args.plot:
        from tuner.analysis.figures import save
        from tuner.analysis.plots_transfer import matrix_figure

        save(matrix_figure(labels, matrix), args.plot)
    if args.json:
        size = range(len(labels))
        tables = {name: [[matrix[i, j][name] for j in size] for i in size] for name in MEANING}
        print(json.dumps({"environments": labels, "metrics": tables}, allow_nan=False))
        return 0
    print("\n".join(f"{number}: {label}" for number, label in enumerate(labels, 1)) + "\n")
    print(aligned(_lines(matrix)))
    print("\n" + aligned([[name, meaning] for name, meaning in MEANING.items()]))
    _say_withheld([metrics for (i, j), metrics in matrix.items() if i != j])
    return 0


def _lines(matrix: dict[tuple[int, int], Metrics]) -> list[Sequence[object]]:
    lines: list[Sequence[object]] = [["pair", *(name.replace("_", " ") for name in MEANING)]]
    for (i, j), metrics in matrix.items():
        if i != j:
            lines.append([f"{i + 1} > {j + 1}", *metrics.values()])
    return lines
