"""``tuner study``: tune a model server: propose, deploy, load, measure, keep, choose."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tuner import interrupts
from tuner.cli import _arms, _evaluator, _numbers, _quiet
from tuner.cli._arms import Plan, combinations
from tuner.cli._progress import Progress
from tuner.errors import UsageError
from tuner.propose import LEARNING
from tuner.space import Space

HELP = "tune a model server: propose configurations, measure each for real, tell the best"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--space", required=True, metavar="FILE", help="a search space, by path or shipped name")
    add("--model", metavar="NAME|DIR", help="a model of `tuner models list`, or a SavedModel")
    add("--requests", metavar="FILE.npz|DIR|random",
        help="the model's inputs; default: the workload that belongs to a named model")
    add("--signature", metavar="NAME",
        help="which of the model's signatures is asked (default: serving_default)")
    add("--sampler", default="auto", metavar="NAME", help="who proposes (default: %(default)s)")
    add("--source", action="append", default=[], metavar="STUDY",
        help="a study of another environment to learn from (--sampler auto or transfer); repeatable")
    add("--trials", type=_numbers.positive_int, metavar="N",
        help="finished trials wanted, earlier runs included (default: 30; grid: all)")
    add("--timeout", type=_numbers.duration_s, metavar="TIME", help="start no trial after, e.g. 30m")
    add("--storage", metavar="URL",
        help="default: what TUNER_STORAGE says, else sqlite:///studies/<name>.db")
    add("--force", action="store_true",
        help="add a study's tables to an SQLite file that holds another program's")
    add("--name", metavar="STUDY", help="the study's name (default: the space's)")
    add("--seed", type=_numbers.seed, default=0, metavar="N", help="seed of proposals, arrivals and requests")
    add("--load", metavar="light|medium|high|RATE", help="load level, or requests/s")
    add("--clients", type=_numbers.positive_int, metavar="N",
        help="clients of a closed loop (pattern: closed in the space)")
    add("--duration", type=_numbers.duration_s, metavar="TIME",
        help="length of each measured window (sets both of its bounds)")
    add("--precision", type=_numbers.precision, metavar="SHARE",
        help="end a window early once the p99's 95 %% interval is this narrow (default: 0.1)")
    add("--deployer", choices=("embedded", "binary", "docker", "fake"),
        help="how the server is run; fake answers at once and measures the tuner itself")
    add("--server-binary", metavar="FILE", help="tensorflow_model_server (--deployer binary)")
    add("--image", metavar="NAME", help="image with TF Serving's entry point (--deployer docker)")
    add("--energy", metavar="SOURCE", help="demand an energy source (see `tuner doctor`)")
    add("--idle-watts", type=_numbers.watts, metavar="W", help="for the energy estimate")
    add("--max-watts", type=_numbers.watts, metavar="W", help="for the energy estimate")
    add("--objective", default="objectives.serving", metavar="MODULE",
        help="module that runs trials (default: %(default)s)")
    _quiet.add_argument(parser)
    add("--quiet", action="store_true", help="no progress bar")


def run(args: argparse.Namespace) -> int:
    from tuner import space as spaces
    from tuner import store
    from tuner.study import Summary

    refuse_deaf(args.source, [args.sampler])
    space = overridden(spaces.load(args.space), args)
    name = args.name or space.name
    check_name(name)
    url = args.storage or store.default_url(name)
    storage = store.existing(url, force=args.force)
    if storage is not None:
        for levels in combinations(space):
            level = store.level_name(name, levels)
            store.refuse_other_space(storage, url, level, space)
            _evaluator.refuse_other_stored_settings(storage, url, level, space, options_of(args))
    plan = Plan(
        args.sampler, args.seed, args.trials or (None if args.sampler == "grid" else 30),
        tuple(args.source),
    )
    progress = Progress(plan.trials or space.size * space.settings.repeats, quiet=args.quiet)
    options = options_of(args)
    kept = _evaluator.facts(args.space, space, options)
    if storage is not None and (whole := _arms.complete(url, storage, name, space, plan, kept)):
        print("Every trial asked for is there already: nothing to measure.")
        _arms.conclude(whole, space, url, Summary(trials=0, reason="trials", seconds=0.0), "")
        return 0
    with ExitStack() as stack:
        # A supervisor's SIGTERM ends a study as Ctrl-C does: saved, with nothing left running.
        stack.enter_context(interrupts.deferred())
        stack.enter_context(progress)
        with interrupts.allowed():
            evaluator = stack.enter_context(
                _evaluator.open_evaluator(
                    space, options, store.artifacts(url, name), progress.note, args.wait_for_quiet
                )
            )
        if storage is None:
            storage = store.connect(url, create=True)
        arms = _arms.build(
            url, storage, name, space, plan, evaluator, kept, progress.note
        )
        for arm in arms:
            arm.store.put(_arms.FACT, plan.as_fact())
        summary = _arms.carry_out(arms, space, evaluator, plan, args.timeout, progress)
    _arms.conclude([arm.store for arm in arms], space, url, summary, "the same command goes on")
    return 130 if summary is None else 0


def overridden(space: Space, args: argparse.Namespace) -> Space:
    """The space with what the command line says in the place of what the file says."""
    given: dict[str, Any] = {
        key: getattr(args, key)
        for key in ("model", "requests", "signature", "deployer", "energy", "precision", "clients")
        if getattr(args, key) is not None
    }
    if args.duration is not None:
        given["min_duration_s"] = given["max_duration_s"] = args.duration
    factors = dict(space.factors)
    if args.load is not None and space.settings.is_closed:
        raise UsageError(f"--load {args.load}: a closed loop has no rate; say --clients N")
    if args.clients is not None and not space.settings.is_closed:
        raise UsageError(
            f"--clients {args.clients}: the open loop {space.settings.pattern} has a rate, not "
            "clients; say --load RATE, or pattern: closed in the space"
        )
    if args.load is not None:
        given["load"] = _load(args.load)
        factors.pop("load", None)
    if args.model is not None and Path(args.model).is_dir() and args.requests is None:
        raise UsageError(
            "--model DIR needs --requests: a FILE.npz with one array per input, or random"
        )
    settings = dataclasses.replace(space.settings, **given)
    # What the command line says has no place in the file.
    places = {key: place for key, place in space.places.items() if key not in given}
    return dataclasses.replace(space, settings=settings, factors=factors, places=places)


def _load(text: str) -> str | float:
    if text in ("light", "medium", "high"):
        return text
    try:
        return _numbers.rate(text)
    except argparse.ArgumentTypeError:
        raise UsageError(
            f"--load {text!r} should be light, medium, high or requests/s above 0"
        ) from None


def refuse_deaf(sources: Sequence[str], samplers: Sequence[str]) -> None:
    """Raises UsageError where none of the samplers would learn from the sources given."""
    if sources and not set(samplers) & set(LEARNING):
        raise UsageError(
            f"--source {sources[0]}: --sampler {','.join(samplers)} learns from no other study; "
            f"take {' or '.join(LEARNING)}"
        )


def check_name(name: str) -> None:
    allowed = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-"
    if not name or name[0] in ".-" or len(name) > 64 or set(name) - set(allowed):
        raise UsageError(f"--name {name!r} should be letters, digits, _ . - (at most 64)")


def options_of(args: argparse.Namespace) -> dict[str, Any]:
    """What the evaluator takes beside the space, as JSON."""
    return {
        "objective": args.objective,
        "seed": args.seed,
        "deployer": {
            k: v for k, v in (("server_binary", args.server_binary), ("image", args.image)) if v
        },
        "idle_w": args.idle_watts,
        "max_w": args.max_watts,
    }
