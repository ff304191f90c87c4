"""``tuner compare``: compare samplers live, each on studies of its own."""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any, cast

from tuner import interrupts
from tuner.cli import _arms, _evaluator, _judgement, _numbers, study
from tuner.cli._progress import Progress
from tuner.errors import UsageError

HELP = "compare samplers live, each on stored studies of its own"


class _Except:
    """Adds arguments to a parser, but for some."""

    def __init__(self, parser: argparse.ArgumentParser, *left_out: str) -> None:
        self._parser, self._left_out = parser, left_out

    def add_argument(self, flag: str, **given: Any) -> None:
        if flag not in self._left_out:
            self._parser.add_argument(flag, **given)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What ``tuner study`` takes, but several samplers, each run several times."""
    study.add_arguments(cast(argparse.ArgumentParser, _Except(parser, "--sampler", "--trials")))
    add = parser.add_argument
    add("--sampler", type=_judgement.samplers, default=["auto", "tpe"], metavar="NAME,…",
        help="samplers to compare (default: auto,tpe)")
    add("--trials", type=_numbers.positive_int, default=30, metavar="N",
        help="finished trials of each study, earlier runs included (default: %(default)s)")
    add("--repeats", type=_numbers.positive_int, default=3, metavar="K",
        help="studies a sampler, each with a seed of its own (default: %(default)s)")
    add("--json", action="store_true", help="print JSON instead of a table")
    add("--plot", metavar="FILE.png", help="draw the curves")


def run(args: argparse.Namespace) -> int:
    from tuner import space as spaces
    from tuner import store

    study.refuse_deaf(args.source, args.sampler)
    space = study.overridden(spaces.load(args.space), args)
    if space.factors:
        raise UsageError(
            f"a comparison is made in one environment, but {args.space} has the factors "
            f"{', '.join(space.factors)}; fix each (a load with --load)"
        )
    base = args.name or f"{space.name}-compare"
    study.check_name(base)
    url = args.storage or store.default_url(base)
    with ExitStack() as stack:
        stack.enter_context(interrupts.deferred())
        try:
            finished, told = _measured(args, space, base, url, stack)
        except KeyboardInterrupt:
            print("Stopped; finished trials are saved, and the same command goes on.")
            return 130
    return _tell(args, space, base, url, finished, told)


def _measured(
    args: argparse.Namespace, space: Any, base: str, url: str, stack: ExitStack
) -> tuple[dict[str, list[Any]], dict[str, str]]:
    """Bring every study to its trials; sampler -> its stores, one a repeat, and what it says.

    ``--timeout`` is the whole command's; studies whose turn comes too late stay as they are.

    Samplers take turns, so that a machine that slows down slows all of them.
    """
    from tuner import store
    from tuner import study as loop

    deadline = None if args.timeout is None else time.monotonic() + args.timeout
    options = study.options_of(args)
    quiet = args.quiet or args.json
    progress = stack.enter_context(Progress(args.trials, quiet=quiet))
    with interrupts.allowed():
        evaluator = stack.enter_context(
            _evaluator.open_evaluator(
                space, options, store.artifacts(url, base), progress.note, args.wait_for_quiet
            )
        )
    storage = store.existing(url, force=args.force) or store.connect(url, create=True)
    kept = _evaluator.facts(args.space, space, options)
    stores: dict[str, list[Any]] = {name: [] for name in args.sampler}
    told: dict[str, str] = {}
    for repeat in range(args.repeats):
        for sampler in args.sampler:
            plan = _arms.Plan(sampler, args.seed + repeat, args.trials, tuple(args.source))
            arms = _arms.build(
                url, storage, f"{base}-{sampler}-{repeat + 1}", space, plan, evaluator, kept,
                progress.note,
            )
            told.setdefault(sampler, arms[0].proposer.explain())
            # All studies are measured against one calibration: the first one's.
            kept = {**kept, **evaluator.calibrate(arms[0].store.facts(), lambda text: None)}
            for arm in arms:
                arm.store.put(_arms.FACT, plan.as_fact())
            with Progress(args.trials, quiet=quiet) as bar:
                if not quiet:
                    bar.note(f"{sampler}, run {repeat + 1} of {args.repeats}")
                bar.begin(arms, space)
                left_s = None if deadline is None else max(deadline - time.monotonic(), 0.0)
                loop.run(
                    space, arms, evaluator, n_trials=args.trials, timeout_s=left_s, listener=bar
                )
            stores[sampler] += [arm.store for arm in arms]
    return stores, told


def _tell(
    args: argparse.Namespace, space: Any, base: str, url: str, stores: dict[str, list[Any]],
    told: dict[str, str],
) -> int:
    from tuner import store
    from tuner.replay import live
    from tuner.replay.compare import weights

    records = {
        name: [[r for r in s.records() if r.is_finished][: args.trials] for s in kept]
        for name, kept in stores.items()
    }
    reports = live.judge(
        {name: [[_values(r, space) for r in run] for run in runs] for name, runs in records.items()},
        args.trials,
        {
            name: weights([[r.notes for r in run] for run in runs])
            for name, runs in records.items()
        },
    )
    reports = {n: dataclasses.replace(r, explanation=told[n]) for n, r in reports.items()}
    if args.plot:
        from tuner.analysis.figures import save
        from tuner.replay.plot import replay_figure

        save(replay_figure(reports, base, whole="all runs' front"), args.plot)
    if args.json:
        whole = {
            "space": space.name,
            "objectives": [o.name for o in space.objectives],
            "trials": args.trials,
            "repeats": args.repeats,
            "seed": args.seed,
            "relative_to": "the front of all runs of all samplers together",
            "storage": store.redact(url),
            "studies": {name: [s.name for s in kept] for name, kept in stores.items()},
            "samplers": _judgement.as_json(reports),
        }
        print(json.dumps(whole, indent=2))
        return 0
    print(
        f"{base}: {args.repeats} runs of {args.trials} trials; hypervolume relative to the front "
        "of all runs together, since no whole table is known"
    )
    print(_judgement.as_text(reports, args.trials))
    print("\n".join(told.values()))
    print(f"studies: {_named(stores)} in {store.redact(url)}")
    return 0


def _values(record: Any, space: Any) -> tuple[float, ...] | None:
    if not record.feasible or record.values is None:
        return None
    return tuple(o.to_minimise(v) for o, v in zip(space.objectives, record.values))


def _named(stores: dict[str, list[Any]]) -> str:
    def span(kept: Sequence[Any]) -> str:
        return kept[0].name if len(kept) == 1 else f"{kept[0].name} … {kept[-1].name}"

    return ", ".join(span(kept) for kept in stores.values())
