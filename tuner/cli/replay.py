"""``tuner replay``: compare samplers on a recorded table, without a server."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict

from tuner.errors import UsageError
from tuner.propose import NAMES
from tuner.replay import Report, Table, compare, read_table

HELP = "compare samplers on a recorded table, without a server"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--table", required=True, metavar="FILE.csv", help="the recorded table")
    parser.add_argument(
        "--parameters", required=True, type=_names, metavar="A,B", help="columns that may vary"
    )
    parser.add_argument(
        "--objectives",
        required=True,
        type=_names,
        metavar="X,Y",
        help="columns to minimise; NAME:max maximises",
    )
    parser.add_argument(
        "--derive",
        action="append",
        default=[],
        metavar="NAME=EXPRESSION",
        help="compute a column first (repeatable); a column `valid` marks rows that count",
    )
    parser.add_argument(
        "--source",
        action="append",
        default=[],
        metavar="FILE.csv",
        help="a table of another environment to learn from (repeatable)",
    )
    parser.add_argument(
        "--shuffle-source",
        action="store_true",
        help="deal each source's results to other configurations, so that it misleads",
    )
    parser.add_argument(
        "--sampler",
        type=_names,
        default=["auto"],
        metavar="NAME,…",
        help=f"samplers to compare: {', '.join(NAMES)} (default: auto)",
    )
    parser.add_argument("--trials", type=_positive, default=50, help="trials a run (default: 50)")
    parser.add_argument("--repeats", type=_positive, default=20, help="runs (default: 20)")
    parser.add_argument("--seed", type=int, default=0, help="makes the comparison repeatable")
    parser.add_argument("--jobs", type=int, default=-1, help="processes (default: every core)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--plot", metavar="FILE.png", help="draw the curves")


def run(args: argparse.Namespace) -> int:
    if args.shuffle_source and not args.source:
        raise UsageError("--shuffle-source needs a --source to shuffle")

    def read(file: str) -> Table:
        return read_table(file, args.parameters, args.objectives, args.derive)

    table = read(args.table)
    reports = compare(
        table,
        args.sampler,
        trials=args.trials,
        repeats=args.repeats,
        seed=args.seed,
        sources=[read(source) for source in args.source],
        shuffle_sources=args.shuffle_source,
        jobs=args.jobs,
    )
    if args.plot:
        from tuner.analysis.figures import save
        from tuner.replay.plot import replay_figure

        save(replay_figure(reports, table.name), args.plot)
    print(_as_json(table, reports, args) if args.json else _as_text(table, reports, args))
    return 0


def _as_json(table: Table, reports: Mapping[str, Report], args: argparse.Namespace) -> str:
    return json.dumps(
        {
            "table": table.name,
            "configurations": table.space.size,
            "objectives": list(args.objectives),
            "trials": args.trials,
            "repeats": args.repeats,
            "seed": args.seed,
            "samplers": {name: asdict(report) for name, report in reports.items()},
        },
        indent=2,
    )


def _as_text(table: Table, reports: Mapping[str, Report], args: argparse.Namespace) -> str:
    rows = [
        [
            name,
            _or_more(report.trials_to_95, args.trials),
            _or_more(report.trials_to_99, args.trials),
            f"{report.median[-1]:.3f}",
            f"{report.q25[-1]:.3f}–{report.q75[-1]:.3f}",
            f"{report.front_share:.0%}",
        ]
        for name, report in reports.items()
    ]
    head = ["sampler", "to 95 %", "to 99 %", f"after {args.trials}", "quartiles", "of front"]
    summary = (
        f"{table.name}: {table.space.size} configurations, {args.repeats} runs of "
        f"{args.trials} trials; hypervolume relative to the whole table's"
    )
    lines = [summary, *_aligned([head, *rows])]
    for name, report in reports.items():
        for source, weights in report.weights.items():
            shown = " ".join(f"{weight:.2f}" for weight in weights[:20])
            lines.append(f"weight of {source} in {name} by trial: {shown}")
    return "\n".join(lines)


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows)]
    return ["  ".join(cell.ljust(w) for cell, w in zip(row, widths)).rstrip() for row in rows]


def _or_more(trials: int | None, limit: int) -> str:
    return f"> {limit}" if trials is None else str(trials)


def _names(text: str) -> list[str]:
    names = [part.strip() for part in text.split(",") if part.strip()]
    if not names:
        raise argparse.ArgumentTypeError("should name at least one")
    return names


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} should be a whole number of at least 1")
    return int(text)
