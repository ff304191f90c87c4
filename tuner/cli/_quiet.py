"""A machine that others use: said before the first measurement, waited for, counted at the end."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from tuner.cli import _format, _numbers
from tuner.errors import UnavailableError
from tuner.load import machine, quiet
from tuner.measurement import UNFINISHED

DEFAULT_WAIT_S = 600.0
ADVICE = "end the other work, or say --wait-for-quiet"
PLAIN = 3
"""So many trials in a row measured twice make it plain that all of them will be."""


def add_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--wait-for-quiet", type=_numbers.duration_s, nargs="?", const=DEFAULT_WAIT_S,
        metavar="TIME",
        help="wait while other work uses the machine, at most so long (10m), then end; without it "
        "what is measured beside other work is marked",
    )


def before_first(
    wait_s: float | None, server_pids: Callable[[], Sequence[int] | None] = tuple
) -> None:
    """Look at the machine before the first measurement: say that it is busy, or wait until it isn't.

    Args:
        wait_s: what ``--wait-for-quiet`` says; ``None``: one line, and on.
        server_pids: a server that is measured and runs already.

    Raises:
        UnavailableError: it stayed busy for as long as was to be waited.
    """
    found = quiet.look(server_pids=server_pids())
    why = None if found is None else found.why_busy
    if why is None:
        return
    if wait_s is None:
        _say(
            f"the machine is too busy to measure: {why}; from {machine.CROWD_LIMIT:.0%} on "
            f"({machine.STEAL_LIMIT:.0%} taken by the hypervisor) a stage counts as disturbed, is "
            f"measured twice and marked: {ADVICE}"
        )
        return
    limit = _format.seconds(wait_s)
    _say(f"waiting at most {limit} for a quiet machine: {why}")
    still = quiet.wait_until_quiet(wait_s, server_pids)
    if still is not None:
        raise UnavailableError(
            f"the machine stayed busy for {limit}: {still}; nothing was measured"
        )
    _say("the machine is quiet now")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def disturbed(record: Any) -> str | None:
    """What disturbed a stored trial's stage, in words."""
    return _details(record).get("disturbed")


def was_measured_twice(record: Any) -> bool:
    """Whether a stored trial's first stage was thrown away for other work's sake."""
    return _details(record).get("disturbed_before") is not None


def _details(record: Any) -> dict[str, Any]:
    return (record.measurement.get("stage") or {}).get("details") or {}


def told(records: Iterable[Any]) -> str | None:
    """One line on the disturbed trials of a study; ``None`` where there is none.

    Trials that were taken back for it (``UNFINISHED``) are counted beside those that stand.
    """
    records = list(records)
    finished = [r for r in records if r.is_finished]
    marked = [words for r in finished if (words := disturbed(r)) is not None]
    twice = sum(map(was_measured_twice, finished))
    refused = sum(r.reason == "disturbed" and r.reason in UNFINISHED for r in records)
    parts = []
    if marked:
        parts.append(
            f"{len(marked)} of {len(finished)} trials were disturbed and say more of the machine's "
            f"other work than of the server (the last: {marked[-1]})"
        )
    if twice:
        parts.append(f"{twice} of {len(finished)} were measured twice for it")
    if refused:
        parts.append(f"{refused} beside them were disturbed twice and do not count")
    return "; ".join(parts) or None
