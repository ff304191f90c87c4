"""Arguments shared by the commands that analyse studies and tables."""

from __future__ import annotations

import argparse

from tuner.analysis.loader import Loader, parse_predicate

REFERENCE = "STUDY|FILE.csv:COLUMN"


def add_reference_arguments(parser: argparse.ArgumentParser) -> None:
    """What every command on studies and tables takes."""
    parser.add_argument(
        "--options",
        type=names,
        metavar="A,B",
        help="option columns (default: a study's parameters; a CSV's boolean columns)",
    )
    parser.add_argument(
        "--invalid",
        metavar="CONDITION",
        help="responses that mark an invalid configuration, like '==0' or '>=1000'",
    )
    parser.add_argument(
        "--response",
        metavar="METRIC",
        help="metric of a study named without one (default: its first objective)",
    )
    parser.add_argument("--storage", metavar="URL", help="where studies are kept")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--plot", metavar="FILE.png", help="draw the result")


def loader(args: argparse.Namespace) -> Loader:
    """The loader that the reference arguments describe."""
    return Loader(
        options=args.options,
        invalid=parse_predicate(args.invalid) if args.invalid else None,
        response=args.response,
        storage=args.storage,
    )


def names(text: str) -> list[str]:
    names = [part.strip() for part in text.split(",") if part.strip()]
    if not names:
        raise argparse.ArgumentTypeError("should name at least one column")
    return names
