"""Hundreds of real trials in a row: whether memory, file descriptors, threads or files grow.

Runs a study of the small 1-D CNN on the embedded server and looks at its own process and at the
folders that it may write to after every trial. The growth of the second half over its length is
what counts: the first half fills caches. Prints the figures; fails where something grows.

    python benchmarks/soak.py [--trials 500] [--duration 0.5]
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import statistics
import sys
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from objectives import serving
from tuner import propose, study
from tuner.space_file import parse
from tuner.store import Store, TrialRecord

SPACE = parse("""
name: soak
model: cnn1d
load: 50
parameters:
  enable_batching: {choices: [false, true]}
  max_batch_size: {low: 1, high: 100000, when: {enable_batching: true}}
""")
SHARED_MEMORY = Path("/dev/shm")
MEMORY_MIB_PER_100 = 2.0
"""A trial's record stays in memory, some 10 KiB of it: 1 MiB in 100 trials. Twice that is allowed."""

SETTLED = 100
"""Of fewer trials memory says nothing: caches still fill."""


@dataclass(frozen=True)
class Look:
    """What one process holds at one moment, its children's memory included."""

    memory_mib: float
    children_mib: float
    descriptors: int
    threads: int
    children: int
    scratch: int
    files_of_trial: int


class Watcher(study.Silence):
    """Looks after every trial."""

    def __init__(self, artifacts: Path) -> None:
        self._process, self._artifacts = psutil.Process(), artifacts
        self.scratch_before = scratch()
        self.looks: list[Look] = []
        self.failed: dict[str, int] = {}

    def finished(self, record: TrialRecord, levels: Any) -> None:
        children = self._process.children(recursive=True)
        self.looks.append(Look(
            self._process.memory_info().rss / 2**20,
            sum(_rss(child) for child in children) / 2**20,
            self._process.num_fds(), threading.active_count(), len(children),
            len(scratch() - self.scratch_before),
            len(list((self._artifacts / f"{record.number:05d}").iterdir())),
        ))
        if record.reason:
            self.failed[record.reason] = self.failed.get(record.reason, 0) + 1
        if len(self.looks) % 50 == 0:
            print(f"{len(self.looks)}: {self.looks[-1]}", file=sys.stderr, flush=True)


def _rss(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.NoSuchProcess:
        return 0


def scratch() -> set[str]:
    """What this process left where programs leave things."""
    here = {entry.path for entry in os.scandir(tempfile.gettempdir())}
    return here | {str(path) for path in SHARED_MEMORY.glob(f"*-{os.getpid()}-*")}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=500)
    parser.add_argument("--duration", type=float, default=0.5)
    args = parser.parse_args()
    settings = dataclasses.replace(
        SPACE.settings, min_duration_s=args.duration, max_duration_s=args.duration
    )
    space = dataclasses.replace(SPACE, settings=settings)
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        artifacts = Path(folder) / "artifacts"
        # Of its own, so that nobody else's files are counted.
        (Path(folder) / "tmp").mkdir()
        os.environ["TMPDIR"] = tempfile.tempdir = f"{folder}/tmp"
        watcher = Watcher(artifacts)
        with serving.open(space, serving.Options(artifacts), _say) as evaluator:
            evaluator.calibrate({}, _say)
            kept = Store.create(f"sqlite:///{folder}/soak.db", "soak", space, {})
            proposer = propose.make("random", space, seed=0)
            study.run(
                space, [study.Arm({}, kept, proposer)], evaluator, n_trials=args.trials,
                listener=watcher,
            )
        left = [p for p in psutil.Process().children(recursive=True) if p.is_running()]
        left_files = len(scratch() - watcher.scratch_before)
        tempfile.tempdir = None
    return report(watcher, args.trials, len(left), left_files)


def _say(text: str) -> None:
    print(f"{text} …", file=sys.stderr, flush=True)


def report(watcher: Watcher, trials: int, left: int, left_files: int) -> int:
    looks = watcher.looks
    assert len(looks) == trials
    half = looks[len(looks) // 2 :]
    growth = {
        f.name: slope([getattr(look, f.name) for look in half]) * 100
        for f in dataclasses.fields(Look)
    }
    first, last = half[0], half[-1]
    failed = ", ".join(f"{n} {reason}" for reason, n in watcher.failed.items()) or "none"
    print(
        f"{trials} trials (failed: {failed}); in the second half, per 100 trials: "
        f"memory {growth['memory_mib']:+.2f} MiB (now {last.memory_mib:.0f}), children's memory "
        f"{growth['children_mib']:+.2f} MiB (now {last.children_mib:.0f}), file descriptors "
        f"{first.descriptors} to {last.descriptors}, threads {first.threads} to {last.threads}, "
        f"scratch files {first.scratch} to {last.scratch}, files of a trial "
        f"{first.files_of_trial} to {last.files_of_trial}; "
        f"left at the end: {left} processes, {left_files} files"
    )
    grows = (
        (trials >= SETTLED and growth["memory_mib"] > MEMORY_MIB_PER_100)
        or last.descriptors > first.descriptors + 2 or last.threads > first.threads + 1
        or last.scratch > first.scratch + 1 or left or left_files
    )
    return 1 if grows else 0


def slope(values: Sequence[float]) -> float:
    """Growth a trial: Theil's median of the slopes between points half the length apart."""
    gap = len(values) // 2
    return statistics.median((b - a) / gap for a, b in zip(values, values[gap:]))


if __name__ == "__main__":
    sys.exit(main())
