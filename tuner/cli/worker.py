"""``tuner worker``: join a study from another machine: measure its next trials here."""

from __future__ import annotations

import argparse
import time
from contextlib import ExitStack
from typing import Any

from tuner import interrupts
from tuner.cli import _arms, _evaluator, _numbers, _quiet
from tuner.cli._arms import Plan
from tuner.cli._progress import Progress
from tuner.errors import StudyError, UsageError

HELP = "join a study that another machine started, and measure its next trials on this one"
POLL_S = 1.0
OF_THE_MACHINE = ("machine", "energy_source", "energy_method", "energy_model")
"""What a study holds fixed and another machine may lack."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--storage", metavar="URL",
        help="the study's database, e.g. postgresql://USER@HOST/DATABASE, or grpc://HOST:PORT of "
        "a `tuner proxy`; default: what TUNER_STORAGE says")
    add("--study", required=True, metavar="NAME", help="the study to join, without its levels")
    add("--allow-mixed", action="store_true",
        help="join on other hardware too: the machine becomes a factor, with trials, proposals and "
        "a front of its own")
    add("--wait", type=_numbers.wait_s, default=0.0, metavar="TIME",
        help="wait so long for the study to be there and calibrated")
    add("--timeout", type=_numbers.duration_s, metavar="TIME", help="start no trial after, e.g. 30m")
    _evaluator.add_program_arguments(parser)
    _quiet.add_argument(parser)
    add("--quiet", action="store_true", help="no progress bar")


def run(args: argparse.Namespace) -> int:
    from tuner import machine, store

    url = args.storage or store.urls.given()
    if url is None:
        raise UsageError("say --storage URL, or set TUNER_STORAGE")
    with interrupts.deferred():
        with interrupts.allowed():
            storage, first = _joined(url, args.study, args.wait)
        again, plan = _evaluator.rebuild(first), Plan.of_fact(first.get(_arms.FACT))
        space = again.space
        _evaluator.refuse_unnamed_programs(first, again, vars(args))
        here = machine.identity(machine.describe())
        mixed = here != first.environment.get("machine")
        if mixed and not args.allow_mixed:
            raise StudyError(
                f"study {args.study!r} was measured on {first.environment.get('machine')}, this is "
                f"{here}; --allow-mixed makes the machine a factor"
            )
        # Numbers of trials are a study's own: another machine's would write into the same folders.
        folder = store.artifacts(url, _arms.study_name(args.study, {}, here if mixed else None))
        progress = Progress(plan.trials or space.size * space.settings.repeats, quiet=args.quiet)
        with ExitStack() as stack:
            stack.enter_context(progress)
            with interrupts.allowed():
                evaluator = stack.enter_context(_evaluator.open_evaluator(
                    space, again.options, folder, progress.note, args.wait_for_quiet
                ))
            _evaluator.refuse_other_environment(
                first, evaluator.environment, apart_from=OF_THE_MACHINE if mixed else (),
                advice="a worker measures what the study measures",
            )
            kept = {key: first.get(key) for key in (*_evaluator.FACTS, _arms.FACT)}
            arms = _arms.build(
                url, storage, args.study, space, plan.of_worker(), evaluator, kept,
                progress.note, machine=here if mixed else None,
            )
            summary = _arms.carry_out(arms, space, evaluator, plan, args.timeout, progress)
    _arms.conclude([arm.store for arm in arms], space, url, summary, "a worker started again goes on")
    return 130 if summary is None else 0


def _joined(url: str, name: str, wait_s: float) -> tuple[Any, Any]:
    """The storage, and one of the study's environments on the hardware that it was begun on.

    Raises:
        StudyError: it isn't there, or isn't calibrated, within the time.
    """
    from tuner import store

    deadline = time.monotonic() + wait_s
    while True:
        try:
            storage = store.connect(url)
            return storage, _first(url, storage, name)
        except StudyError:
            if time.monotonic() >= deadline:
                raise
        time.sleep(min(POLL_S, max(deadline - time.monotonic(), 0.0)))


def _first(url: str, storage: Any, name: str) -> Any:
    import optuna

    from tuner import store

    if "://" in name:
        raise UsageError("--study is a study's name; a storage's URL goes to --storage")
    names = optuna.get_all_study_names(storage)
    own = [n for n in names if n.split("@")[0] == name and "machine=" not in n]
    if not own:
        held = ", ".join(names) or "none"
        raise StudyError(f"no study {name!r} in {store.redact(url)}; it holds: {held}")
    first = store.Store.open(url, min(own), storage)
    if first.get(_arms.FACT) is None:
        raise StudyError(
            f"study {name!r} is not calibrated yet, or an older version made it; "
            "`tuner study` does that"
        )
    return first
