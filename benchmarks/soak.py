"""Hundreds of real trials in a row: whether memory, file descriptors, threads or files grow.

Runs a study of the small 1-D CNN on the embedded server and looks after every trial at its own
process, its children, above all the fork server, and the folders that it may write to. The growth
of the second half over its length is what counts: the first half fills caches. Prints the figures;
fails where something grows.

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
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

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
T = TypeVar("T")
SHARED_MEMORY = Path("/dev/shm")
MEMORY_MIB_PER_100 = 2.0
"""A trial's record stays in memory, some 10 KiB of it: 1 MiB in 100 trials. Twice that is allowed."""
CHILDREN_MIB_PER_100 = 4.0
"""The fork server keeps nothing of a trial; servers of equal settings differ by a few MiB by chance."""
SETTLED = 100
"""Of fewer trials memory says nothing: caches still fill."""
MAY_GROW = {
    "descriptors": 2, "threads": 1, "children": 0, "scratch": 1, "fork_descriptors": 0,
    "fork_threads": 0,
}
"""By so many the counts of the second half's last looks may be above those of its first."""
TOGETHER = 5
"""So many looks are compared by their median: one may fall into a moment between two states."""
FORK_SERVER = "tuner.modelserver.forkserver"


@dataclass(frozen=True)
class Look:
    """What one process and its children hold at one moment."""

    memory_mib: float
    children_mib: float
    descriptors: int
    threads: int
    children: int
    fork_descriptors: int
    """Of the fork servers; those of the server that runs are not among them."""
    fork_threads: int
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
        forks = [c for c in self._process.children() if FORK_SERVER in asked(c.cmdline, [])]
        folder = self._artifacts / f"{record.number:05d}"
        self.looks.append(Look(
            memory_mib=self._process.memory_info().rss / 2**20,
            children_mib=sum(_rss(child) for child in children) / 2**20,
            descriptors=self._process.num_fds(), threads=threading.active_count(),
            children=len(children),
            fork_descriptors=sum(asked(fork.num_fds, 0) for fork in forks),
            fork_threads=sum(asked(fork.num_threads, 0) for fork in forks),
            scratch=len(scratch() - self.scratch_before),
            files_of_trial=sum(path.is_file() for path in folder.rglob("*")),
        ))
        if record.reason:
            self.failed[record.reason] = self.failed.get(record.reason, 0) + 1
        if len(self.looks) % 50 == 0:
            print(f"{len(self.looks)}: {self.looks[-1]}", file=sys.stderr, flush=True)


def asked(question: Callable[[], T], gone: T) -> T:
    """What a process says, or ``gone`` where it has ended."""
    try:
        return question()
    except psutil.NoSuchProcess:
        return gone


def _rss(process: psutil.Process) -> int:
    return asked(lambda: int(process.memory_info().rss), 0)


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
    last = half[-1]
    memory = slope([look.memory_mib for look in half]) * 100
    children = slope([look.children_mib for look in half]) * 100
    counts = {
        name: (middle(half[:TOGETHER], name), middle(half[-TOGETHER:], name)) for name in MAY_GROW
    }
    # Some configurations have a file more than others: the most that any has is what counts.
    files = [max(look.files_of_trial for look in part) for part in (looks[: len(looks) // 2], half)]
    failed = ", ".join(f"{n} {reason}" for reason, n in watcher.failed.items()) or "none"
    print(
        f"{trials} trials (failed: {failed}); in the second half, per 100 trials: "
        f"memory {memory:+.2f} MiB (now {last.memory_mib:.0f}), children's memory "
        f"{children:+.2f} MiB (now {last.children_mib:.0f}); "
        + ", ".join(f"{n.replace('_', ' ')} {a:g} to {b:g}" for n, (a, b) in counts.items())
        + f", files of a trial {files[0]} to {files[1]} at most; left at the end: {left} processes, {left_files} files"
    )
    grown = [n for n, (before, after) in counts.items() if after > before + MAY_GROW[n]]
    if trials >= SETTLED:
        grown += ["memory"] * (memory > MEMORY_MIB_PER_100)
        grown += ["files of a trial"] * (files[1] > files[0])
        grown += ["children's memory"] * (children > CHILDREN_MIB_PER_100)
    grown += ["what is left"] * bool(left or left_files)
    if last.fork_threads == 0:
        grown.append("no fork server was seen: nothing was looked at")
    if grown:
        print(f"grown: {', '.join(grown)}")
    return 1 if grown else 0


def middle(looks: Sequence[Look], name: str) -> float:
    return statistics.median(getattr(look, name) for look in looks)


def slope(values: Sequence[float]) -> float:
    """Growth a trial: Theil's median of the slopes between points half the length apart."""
    gap = len(values) // 2
    return statistics.median((b - a) / gap for a, b in zip(values, values[gap:]))


if __name__ == "__main__":
    sys.exit(main())
