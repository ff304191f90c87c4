"""``tuner record``: measure every study of a plan completely, in as many sittings as it takes."""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tabulate import tabulate

from tuner import interrupts
from tuner.cli import _arms, _evaluator, _format, _numbers, _plan, _quiet, one_line
from tuner.cli._plan import Step
from tuner.cli._progress import Progress
from tuner.errors import TunerError

HELP = "measure every study of a plan completely; goes on where it stopped"
PLAN = "studies/plan.yaml"
CALIBRATIONS = 5
OPTIONS = {
    "objective": _evaluator.OWN_OBJECTIVE, "deployer": {"monitoring": True}, "only_calm": True
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--plan", default=PLAN, metavar="FILE", help="what to record (%(default)s)")
    add("--only", action="append", default=[], metavar="NAME", help="this study only; repeatable")
    add("--timeout", type=_numbers.duration_s, metavar="TIME",
        help="start no configuration later, e.g. 20m; the same command goes on")
    add("--into", type=Path, default=Path("studies"), metavar="DIR",
        help="folder of the databases (%(default)s)")
    add("--dry-run", action="store_true", help="say what is left and how long it takes, no more")
    _quiet.add_argument(parser)
    add("--quiet", action="store_true", help="no line for each trial")


def run(args: argparse.Namespace) -> int:
    steps = _plan.steps(_plan.only(_plan.read(args.plan), args.only))
    library = _Library(args.into)
    print(_overview(steps, library), flush=True)
    if args.dry_run:
        return 0
    begun, failed = time.monotonic(), 0
    with interrupts.deferred():
        for step in steps:
            if not _State(step, library).left:
                continue
            left_s = None if args.timeout is None else args.timeout - (time.monotonic() - begun)
            if left_s is not None and left_s <= 0:
                break
            try:
                _record(step, library, left_s, args.quiet, args.wait_for_quiet)
            except KeyboardInterrupt:
                print("Stopped; finished trials are saved, and the same command goes on.")
                return 130
            except TunerError as error:
                # A night's recording should not end with the first study that cannot be had here.
                print(f"tuner: {step.label}: {one_line(error)}", file=sys.stderr, flush=True)
                failed += 1
    print(_overview(steps, library))
    return 1 if failed else 0


class _Library:
    """The databases of a folder, one for each recording, each opened once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._open: dict[str, Any] = {}

    def file(self, name: str) -> Path:
        return self.folder / f"{name}.db"

    def url(self, name: str) -> str:
        return f"sqlite:///{self.file(name)}"

    def storage(self, name: str, *, create: bool = False) -> Any:
        """``None`` where there is none yet, unless it is to be made."""
        from tuner import store

        if name not in self._open:
            url = self.url(name)
            found = store.connect(url, create=True) if create else store.existing(url)
            if found is None:
                return None
            self._open[name] = found
        return self._open[name]

    def studies(self, name: str) -> list[str]:
        import optuna

        storage = self.storage(name)
        return [] if storage is None else optuna.get_all_study_names(storage)

    def records(self, name: str, level: Any) -> list[Any]:
        """The trials of one level; none of what does not exist yet."""
        from tuner import store

        study = _arms.study_name(name, level)
        if study not in self.studies(name):
            return []
        return store.Store.open(self.url(name), study, self.storage(name)).records(("reason",))


class _State:
    """How far a step is, from the stored trials, and how long a configuration takes."""

    def __init__(self, step: Step, library: _Library) -> None:
        self.levels = _arms.combinations(step.recording.space)
        records = [library.records(step.recording.name, level) for level in self.levels]
        self.wanted = step.wanted
        self.done = min(
            step.done([r.configuration for r in held if r.is_finished]) for held in records
        )
        # All levels of a configuration start together and end together.
        spans = [
            (r.finished - r.started).total_seconds()
            for r in records[0] if r.is_finished and r.started and r.finished
        ]
        self.pace_s = statistics.fmean(spans) if spans else step.estimated_s(len(self.levels))

    @property
    def left(self) -> int:
        return self.wanted - self.done

    @property
    def left_s(self) -> float:
        return self.left * self.pace_s


def _overview(steps: Sequence[Step], library: _Library) -> str:
    """A line for each step, and the time that all of them still take."""
    states = [_State(step, library) for step in steps]
    rows = [
        [
            step.label, step.recording.space.settings.model, len(state.levels),
            f"{state.done}/{state.wanted}", f"{state.pace_s:.1f} s",
            _format.seconds(state.left_s) if state.left else "done",
        ]
        for step, state in zip(steps, states)
    ]
    head = ["study", "model", "levels", "configurations", "each takes", "left"]
    left_s = sum(state.left_s for state in states)
    total = f"{_format.seconds(left_s)} left" if left_s else "All of it is recorded"
    return tabulate(rows, head, disable_numparse=True) + f"\n{total}."


def _record(
    step: Step, library: _Library, timeout_s: float | None, quiet: bool, wait_s: float | None
) -> None:
    """Measure what a step still lacks.

    Raises:
        KeyboardInterrupt: stopped; what is finished is stored.
        TunerError: it cannot be measured here.
    """
    from tuner import store, study
    from tuner.propose.listed import ListedProposer
    from tuner.store.pack import pack

    recording, space = step.recording, step.recording.space
    url = library.url(recording.name)
    options = {**OPTIONS, "seed": recording.seed, "idle_w": None, "max_w": None}
    storage, held = library.storage(recording.name), library.studies(recording.name)
    if storage is not None:
        for levels in _arms.combinations(space):
            name = _arms.study_name(recording.name, levels)
            store.refuse_other_space(storage, url, name, space)
    trials = step.wanted + (len(recording.configurations) * (step.times - 1) if step.is_repeat else 0)

    def proposer() -> Any:
        return ListedProposer(recording.sampler, step.configurations, step.times)

    calibrated: dict[str, Any] = {}
    with ExitStack() as stack:
        progress = stack.enter_context(Progress(trials, quiet=quiet))
        print(f"\n{step.label}", file=sys.stderr, flush=True)
        with interrupts.allowed():
            folder_of_files = store.artifacts(url, recording.name)
            evaluator = stack.enter_context(
                _evaluator.open_evaluator(
                    space, options, folder_of_files, progress.note, wait_s
                )
            )
            if not held:
                evaluator.environment = {
                    **evaluator.environment, "speed": _speed(space.settings, progress.note)
                }
                calibrated = _calibrated(evaluator, progress.note)
        storage = library.storage(recording.name, create=True)
        plan = _arms.Plan(recording.sampler, recording.seed, None)
        kept = {**_evaluator.facts(recording.space_file, space, options), **calibrated}
        arms = _arms.build(
            url, storage, recording.name, space, plan, evaluator, kept, progress.note
        )
        for arm in arms:
            arm.proposer, arm.renew = proposer(), proposer
        progress.begin(arms, space)
        try:
            study.run(
                space, arms, evaluator, n_trials=trials, timeout_s=timeout_s, listener=progress
            )
        finally:
            pack(library.file(recording.name))


def _calibrated(evaluator: Any, note: Callable[[str], None]) -> dict[str, Any]:
    """Idle baseline and capacity of a new study: of several calibrations the middle one.

    Hours of load levels hang on this number, and one of 3 s may fall into a slow moment.
    """
    found = [evaluator.calibrate({}, note) for _ in range(CALIBRATIONS)]
    capacities = [facts.get("capacity_rps") or 0.0 for facts in found]
    middle = sorted(range(len(found)), key=capacities.__getitem__)[len(found) // 2]
    return {**found[middle], "capacities_rps": capacities}


def _speed(settings: Any, note: Callable[[str], None]) -> dict[str, Any]:
    """How the model gains from batches on this machine: later analyses explain with it."""
    from tuner import machine, models, workloads

    model = models.resolve(settings.model, signature=settings.signature, progress=note)
    rows = workloads.requests_file(model, source=settings.requests)
    here = machine.identity(machine.describe())
    return models.measure_speed(model, rows, machine=here, progress=note).to_json()
