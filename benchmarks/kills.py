"""Kills a study at seeded points, from the YAML's reading to the last write, and starts it again.

Each point is a moment: so long after the start, or after a phase began (the database was made, a
trial or its server or its load clients started). SIGKILL hits the study's process alone. Then no
server, client or cgroup may be left, the CPU clock must be as before, and the next start must hold
every finished trial, unchanged. Prints one line a point and the count of points that held.

    python benchmarks/kills.py [--points 100] [--seed 0]
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from running import SPACE, Room, wait_until

from tuner.deploy import cgroups, cpufreq

AT_FIRST_KHZ = {
    "cpuinfo_min_freq": 800_000, "cpuinfo_max_freq": 3_000_000,
    "scaling_min_freq": 800_000, "scaling_max_freq": 3_000_000,
}
PINNED_MHZ = 2000
TRIALS_A_START = 2
START_S = 4.0
"""A point without a phase lies within so many seconds: Python's start to the second trial."""
PHASE_TIMEOUT_S = 60.0
DELAY_S = 0.6


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--points", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        clock = Clock(Path(folder) / "cpufreq")
        fixed = ["cpu_quota: 1.5, memory_limit_mb: 2000"] if can_limit() else []
        fixed += [f"cpu_frequency_mhz: {PINNED_MHZ}"] if clock.before else []
        room = Room(Path(folder), SPACE + "fixed: {" + ", ".join(fixed) + "}\n")
        draws = random.Random(args.seed)
        held = sum(point(room, clock, number, draws) for number in range(args.points))
        last = room.study(len(room.finished()) + 1, before=clock.before)
        held_last = last.code == 0 and not room.left() and clock.is_as_before()
    print(f"{held} of {args.points} kills lost nothing and left nothing; "
          f"the study {'went on' if held_last else 'did NOT go on: ' + last.last}")
    return 0 if held == args.points and held_last else 1


def can_limit() -> bool:
    able = not any(cgroups.why_not(c) for c in cgroups.CONTROLLERS)
    if not able:
        print("no right to make cgroups: runs without limits", file=sys.stderr)
    return able


class Clock:
    """A CPU clock that stands in for the kernel's, in a mount namespace of the study's own."""

    def __init__(self, folder: Path) -> None:
        self._policy = folder / "policy0"
        self._policy.mkdir(parents=True)
        for name, khz in AT_FIRST_KHZ.items():
            (self._policy / name).write_text(f"{khz}\n")
        self.before: tuple[str, ...] = ()
        """The command that a study is started by; empty where that takes rights we lack."""
        if os.geteuid() == 0 and cpufreq.SYSFS.is_dir():
            mount = f'mount --bind {folder} {cpufreq.SYSFS} && exec "$@"'
            self.before = ("unshare", "--mount", "sh", "-c", mount, "sh")
        else:
            print("no right to mount a CPU clock: runs without", file=sys.stderr)

    def is_as_before(self) -> bool:
        return all(
            (self._policy / name).read_text().strip() == str(khz)
            for name, khz in AT_FIRST_KHZ.items()
        )


def point(room: Room, clock: Clock, number: int, draws: random.Random) -> bool:
    """One kill. Whether all held."""
    phases = phases_of(room)
    name = draws.choice(["start", *phases])
    delay_s = draws.uniform(0.0, START_S if name == "start" else DELAY_S)
    before = room.finished()
    seen: dict[int, tuple[str, str | None]] = {}
    arguments = room.study_arguments(len(before) + TRIALS_A_START, "--quiet")
    process = room.start(*arguments, before=clock.before)
    if name != "start":
        wait_until(lambda: phases[name]() or process.poll() is not None, PHASE_TIMEOUT_S)
    wait_until(lambda: seen.update(room.finished()) or process.poll() is not None, delay_s)
    seen.update(room.finished())
    process.send_signal(signal.SIGKILL)
    _, said = process.communicate()
    wrong = []
    if "Traceback" in said or process.returncode not in (0, -signal.SIGKILL):
        wrong.append(f"exit code {process.returncode}: {said}")
    if left := room.left():
        wrong.append(f"left running: {left}")
    if not wait_until(lambda: not groups(process.pid), 10.0):
        wrong.append(f"cgroups left: {groups(process.pid)}")
    if not wait_until(clock.is_as_before, 10.0):
        wrong.append("the CPU clock is not as it was")
    after = room.finished()
    lost = {n: was for n, was in {**before, **seen}.items() if after.get(n) != was}
    if lost:
        wrong.append(f"lost: {lost}")
    verdict = "; ".join(map(str, wrong)) or "ok"
    print(f"point {number}: {name} + {delay_s:.2f} s, {len(after)} finished: {verdict}", flush=True)
    return not wrong


def phases_of(room: Room) -> dict[str, Callable[[], Any]]:
    """What can be waited for, from outside."""
    before = max(room.trials(), default=-1)

    def running() -> bool:
        return any(n > before and s == "RUNNING" for n, (s, _) in room.trials().items())

    def child(word: str) -> Callable[[], bool]:
        return lambda: any(word in " ".join(_command(p)) for p in room.processes())

    def second() -> bool:
        return len([n for n in room.finished() if n > before]) >= 1

    return {
        "database": lambda: room.database.exists(),
        "trial": running,
        "server": child("answer_at_once"),
        "client": child("tuner.load"),
        "next trial": second,
    }


def _command(process: Any) -> list[str]:
    try:
        return list(process.cmdline())
    except Exception:  # noqa: BLE001 - it has ended
        return []


def groups(pid: int) -> list[str]:
    """The control groups that a study made and that are still there."""
    return [
        str(group)
        for hierarchy in cgroups.hierarchies().values()
        for place in hierarchy.places()
        for group in place.glob(f"tuner-*-{pid}-*")
    ]


if __name__ == "__main__":
    sys.exit(main())
