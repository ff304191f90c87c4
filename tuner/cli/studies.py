"""``tuner studies``: what the recorded studies hold."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path

from tabulate import tabulate

from tuner.cli import _recorded, one_line
from tuner.cli._recorded import Recorded
from tuner.errors import StudyError, UsageError
from tuner.measurement import REASONS

BEGIN, END = "<!-- recorded -->", "<!-- /recorded -->"
HELP = "list recorded studies: what was measured, where, and how much of it is valid"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("paths", nargs="*", metavar="PATH",
        help="databases, folders of them, or storage URLs (default: studies)")
    add("--json", action="store_true",
        help="an array with an object for each model, workload and load level")
    add("--write", type=Path, metavar="FILE.md",
        help=f"write tables of it into a text, between the lines {BEGIN} and {END}")


def run(args: argparse.Namespace) -> int:
    from tuner import store

    found: list[Recorded] = []
    broken = 0
    for url in _recorded.storages(args.paths or [str(store.STUDIES)]):
        try:
            found += _recorded.read(url)
        except StudyError as error:
            print(f"tuner: {one_line(error)}", file=sys.stderr)
            broken += 1
    if args.json:
        print(json.dumps([one.to_json() for one in found], indent=2))
    elif args.write:
        _write(args.write, _markdown(found))
    elif found:
        print(_table(found))
    elif not broken:
        print("no recorded study here; `tuner record` makes some")
    return 1 if broken and not found else 0


def _write(file: Path, text: str) -> None:
    """Put ``text`` in the place of what stands between the marks of a file."""
    try:
        before, begun, rest = file.read_text(encoding="utf-8").partition(BEGIN)
        _, ended, after = rest.partition(END)
        if not (begun and ended):
            raise UsageError(f"--write {file}: has no lines {BEGIN} and {END}")
        file.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}", encoding="utf-8")
    except OSError as error:
        raise UsageError(f"--write {file}: {error.strerror}") from None


def _table(found: list[Recorded]) -> str:
    rows = [
        [
            one.name, one.model, one.workload, one.load, one.configurations_valid,
            one.configurations_invalid, one.trials, one.energy_source or "-",
        ]
        for one in found
    ]
    head = ["study", "model", "workload", "load", "valid", "invalid", "trials", "energy"]
    return tabulate(rows, head, disable_numparse=True)


def _markdown(found: list[Recorded]) -> str:
    """Tables of what was measured, how precisely, and why the rest is invalid."""
    head = ["study", "model", "workload", "load", "requests/s", "valid", "invalid", "trials",
            "requests in a stage", "p99 ± (95 %)", "open above", "p99 a rank low", "p99 again",
            "energy ± (95 %)", "energy again"]
    rows = [
        [
            f"`{one.name}`", one.model, one.workload, one.load, _number(one.rate_rps),
            one.configurations_valid, one.configurations_invalid, one.trials,
            _number(one.requests_median), _percent(one.p99_half_width), _percent(one.p99_open),
            _rank_low(one),
            f"{_percent(one.p99_change)} ({one.repeats})" if one.repeats else "-",
            _fine(one.energy_half_width), _fine(one.energy_change),
        ]
        for one in found
    ]
    parts = [tabulate(rows, head, tablefmt="github", disable_numparse=True)]
    failed = [
        [f"`{one.name}`", reason, REASONS.get(reason, ""), count]
        for one in found for reason, count in sorted(one.reasons.items())
    ]
    if failed:
        parts.append("Failed trials by reason:\n\n" + tabulate(
            failed, ["study", "reason", "meaning", "trials"], tablefmt="github",
            disable_numparse=True,
        ))
    lines: list[str] = []
    for title, told in (
        ("Machine", lambda one: one.machine),
        ("Deployer", lambda one: one.deployer),
        ("Energy", lambda one: one.energy_model or one.energy_source),
        ("Measured", lambda one: one.when),
        ("Versions", lambda one: one.versions),
        ("p99", lambda one: _RULES[one.p99_rank_low is None]),
        ("Latencies", lambda one: _kept(one)),
    ):
        lines += _common_first(title, found, told)
    lines.append(f"- Hours of trials: {_recorded.hours(found):.1f}")
    return "\n\n".join(["\n".join(lines), *parts])


def _common_first(
    title: str, found: list[Recorded], told: Callable[[Recorded], str | None]
) -> list[str]:
    """A line for each value: what most studies have in common, then the others with their names."""
    names: dict[str, list[str]] = {}
    for one in found:
        if value := told(one):
            names.setdefault(value, []).append(one.name.split("@")[0])
    ordered = sorted(names.items(), key=lambda item: (-len(item[1]), item[0]))
    return [
        f"- {title}: {value}"
        + (f" ({', '.join(f'`{name}`' for name in dict.fromkeys(of))})" if rank else "")
        for rank, (value, of) in enumerate(ordered)
    ]


_RULES = {
    False: "by the former rule, the nearest rank, one too low for half of all numbers of requests; "
    "*p99 a rank low* is the share of the trials that it concerns, and by how much their p99 is too "
    "low, estimated from their p95 and p99",
    True: "by the ceiling's rank",
}


def _rank_low(one: Recorded) -> str:
    if not one.p99_rank_low:
        return "-" if one.p99_rank_low is None else "0%"
    return f"{_percent(one.p99_rank_low)} by {_fine(one.p99_rank_low_by)}"


def _kept(one: Recorded) -> str:
    if not one.latencies_kept:
        return "of single requests not kept"
    return "of every request kept beside the database, in `latencies-<study>.npz`"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}"


def _fine(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.0%}"
