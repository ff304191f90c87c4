"""``tuner replay``: compare samplers on a recorded table, without a server."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping

from tuner.cli import _judgement, _numbers
from tuner.errors import UsageError
from tuner.propose import NAMES
from tuner.replay import Report, Table, compare, read

HELP = "compare samplers on a recorded table, without a server"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--table", required=True, metavar="FILE.csv|STUDY", help="a table, or a stored study as one"
    )
    parser.add_argument(
        "--parameters",
        type=_judgement.names,
        default=[],
        metavar="A,B",
        help="columns that may vary (default: a study's knobs)",
    )
    parser.add_argument(
        "--objectives",
        type=_judgement.names,
        default=[],
        metavar="X,Y",
        help="columns to minimise; NAME:max maximises (default: a study's objectives)",
    )
    parser.add_argument("--storage", metavar="URL", help="where studies are kept")
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
        metavar="FILE.csv|STUDY",
        help="a table of another environment to learn from (repeatable)",
    )
    parser.add_argument(
        "--shuffle-source",
        action="store_true",
        help="deal each source's results to other configurations, so that it misleads",
    )
    parser.add_argument(
        "--sampler",
        type=_judgement.samplers,
        default=["auto"],
        metavar="NAME,…",
        help=f"samplers to compare: {', '.join(NAMES)} (default: auto)",
    )
    parser.add_argument("--trials", type=_numbers.positive_int, default=50, help="trials a run (default: 50)")
    parser.add_argument("--repeats", type=_numbers.positive_int, default=20, help="runs (default: 20)")
    parser.add_argument("--seed", type=_numbers.seed, default=0, help="makes the comparison repeatable")
    parser.add_argument("--jobs", type=_numbers.jobs, default=-1, help="processes (default: every core)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--plot", metavar="FILE.png", help="draw the curves")


def run(args: argparse.Namespace) -> int:
    if args.shuffle_source and not args.source:
        raise UsageError("--shuffle-source needs a --source to shuffle")

    def table_of(reference: str) -> Table:
        return read(reference, args.parameters, args.objectives, args.derive, args.storage)

    table = table_of(args.table)
    sources = [table_of(source) for source in args.source]
    for reference, source in zip(args.source, sources):
        _refuse_other_objectives(reference, source, table)
    reports = compare(
        table,
        args.sampler,
        trials=args.trials,
        repeats=args.repeats,
        seed=args.seed,
        sources=sources,
        shuffle_sources=args.shuffle_source,
        jobs=args.jobs,
    )
    if args.plot:
        from tuner.analysis.figures import save
        from tuner.replay.plot import replay_figure

        save(replay_figure(reports, table.name), args.plot)
    print(_as_json(table, reports, args) if args.json else _as_text(table, reports, args))
    return 0


def _refuse_other_objectives(reference: str, source: Table, table: Table) -> None:
    wanted, given = ([(o.name, o.direction) for o in t.space.objectives] for t in (table, source))
    if wanted != given:
        raise UsageError(
            f"--source {reference}: has the objectives {', '.join(n for n, _ in given)}, "
            f"not {', '.join(n for n, _ in wanted)}; name them with --objectives"
        )


def _as_json(table: Table, reports: Mapping[str, Report], args: argparse.Namespace) -> str:
    return json.dumps(
        {
            "table": table.name,
            "configurations": table.space.size,
            "parameters": [p.name for p in table.space.parameters],
            "objectives": [o.name for o in table.space.objectives],
            "trials": args.trials,
            "repeats": args.repeats,
            "seed": args.seed,
            "samplers": _judgement.as_json(reports),
        },
        indent=2,
    )


def _as_text(table: Table, reports: Mapping[str, Report], args: argparse.Namespace) -> str:
    summary = (
        f"{table.name}: {table.space.size} configurations, {args.repeats} runs of "
        f"{args.trials} trials; hypervolume relative to the whole table's"
    )
    told = [report.explanation for report in reports.values()]
    return "\n".join([summary, _judgement.as_text(reports, args.trials), *told])
