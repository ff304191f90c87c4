"""Kills a study at seeded points, from the YAML's reading to the plot, and starts it again.

Each point is a moment: so long after the start, or after a phase began (the database was made, a
trial or its server or its load clients started, the last trial runs or is written, the plot is
there). SIGKILL hits the study's process, at a quarter of the points its watchdog first; a fifth of
the points run the embedded server. Then no server or client may be left, every finished trial must
be there, unchanged, and control groups and the CPU clock must be as before: at once where the
watchdog lived, after the next start where it didn't. A study that ended before its kill is no
point: another one is drawn. Prints one line a point and the count of points that held.

    python benchmarks/kills.py [--points 100] [--seed 0]
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from running import SPACE, Room, command_of, wait_until

from tuner.deploy import cgroups, cpufreq

AT_FIRST_KHZ = {
    "cpuinfo_min_freq": 800_000, "cpuinfo_max_freq": 3_000_000,
    "scaling_min_freq": 800_000, "scaling_max_freq": 3_000_000,
}
PINNED_MHZ = 2000
TRIALS_A_START = 2
DELAYS_S = {"start": 4.0, "last trial": 3.0, "last write": 1.5}
"""A point lies within so many seconds of its phase's begin; "start" is Python's, to a second trial."""
DELAY_S = 0.6
EMBEDDED_START_S = 12.0
PHASES = ("start", "database", "trial", "server", "client", "next trial", "last trial", "last write",
          "plot")
PHASE_TIMEOUT_S = 60.0
EMBEDDED, WATCHDOG_TOO = 0.2, 0.25
"""Shares of the points."""
REDRAWS = 20


@dataclass(frozen=True)
class Point:
    """Where a study is killed, and how."""

    phase: str
    delay_s: float
    embedded: bool
    watchdog_too: bool

    @classmethod
    def drawn(cls, draws: random.Random) -> Point:
        phase, share = draws.choice(PHASES), draws.random()
        embedded, watchdog_too = draws.random() < EMBEDDED, draws.random() < WATCHDOG_TOO
        longest_s = DELAYS_S.get(phase, DELAY_S)
        if embedded and phase == "start":
            longest_s = EMBEDDED_START_S
        return cls(phase, share * longest_s, embedded, watchdog_too)

    def __str__(self) -> str:
        more = [w for w, said in (("embedded", self.embedded), ("watchdog too", self.watchdog_too))
                if said]
        return ", ".join([f"{self.phase} + {self.delay_s:.2f} s", *more])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--points", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rooms = Rooms(Path(folder))
        draws = random.Random(args.seed)
        held = sum(hold(rooms, number, draws) for number in range(args.points))
        wrong = [w for room in rooms.lasting() for w in at_the_end(room, rooms.clock)]
    print(f"{held} of {args.points} kills lost nothing and left nothing; "
          f"the study {'did NOT go on: ' + '; '.join(wrong) if wrong else 'went on'}")
    return 0 if held == args.points and not wrong else 1


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


class Rooms:
    """The folders of the studies: one for each deployer, and a fresh one where none may be there."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._made = folder, dict[str, Room]()
        self.clock = Clock(folder / "cpufreq")
        self._limits = not any(cgroups.why_not(c) for c in cgroups.CONTROLLERS)
        if not self._limits:
            print("no right to make cgroups: runs without limits", file=sys.stderr)

    def of(self, point: Point, number: int) -> Room:
        name = "embedded" if point.embedded else "fake"
        if point.phase == "database":  # In a room where a study was, it is there at once.
            name += f"-{number}"
        if name not in self._made:
            # A memory limit would start the server afresh instead of forking it.
            memory = "" if point.embedded else ", memory_limit_mb: 2000"
            fixed = [f"cpu_quota: 1.5{memory}"] if self._limits else []
            fixed += [f"cpu_frequency_mhz: {PINNED_MHZ}"] if self.clock.before else []
            space = SPACE.replace("deployer: fake", f"deployer: {name.partition('-')[0]}")
            room = Room(self._folder / name, space + "fixed: {" + ", ".join(fixed) + "}\n")
            self._made[name] = room
        return self._made[name]

    def lasting(self) -> list[Room]:
        """Those in which studies were killed again and again."""
        return [room for name, room in self._made.items() if "-" not in name]


def at_the_end(room: Room, clock: Clock) -> list[str]:
    """What is wrong with a study that goes on after all its kills."""
    last = room.study(len(room.finished()) + 1, before=clock.before)
    wrong = [f"exit code {last.code}: {last.last}"] if last.code else []
    if left := room.left():
        wrong.append(f"left running: {left}")
    if not clock.is_as_before():
        wrong.append("the CPU clock is not as it was")
    told = room.run("pareto", "small", "--json")
    # Nothing feasible is an answer too, and has the exit code 1.
    if told.code not in (0, 1) or len(json.loads(told.out)["objectives"]) != 2:
        wrong.append(f"pareto: {told.last or told.out[:200]}")
    return wrong


def hold(rooms: Rooms, number: int, draws: random.Random) -> bool:
    """One kill. Whether all held."""
    for _ in range(REDRAWS):
        point = Point.drawn(draws)
        room = rooms.of(point, number)
        wrong = killed(room, rooms.clock, point)
        if wrong is not None:
            verdict = "; ".join(map(str, wrong)) or "ok"
            print(f"point {number}: {point}, {len(room.finished())} finished: {verdict}", flush=True)
            return not wrong
        print(f"point {number}: {point}: ended before; drawn again", flush=True)
    return False


def killed(room: Room, clock: Clock, point: Point) -> list[str] | None:
    """What a kill lost or left; ``None`` where the study had ended by itself."""
    before = room.finished()
    seen: dict[int, tuple[str, str | None]] = {}
    began = phase_of(room, point)
    process = room.start(
        *room.study_arguments(len(before) + TRIALS_A_START, "--quiet"), before=clock.before
    )
    wait_until(lambda: began() or process.poll() is not None, PHASE_TIMEOUT_S)
    wait_until(lambda: seen.update(room.finished()) or process.poll() is not None, point.delay_s)
    seen.update(room.finished())
    strike(process, point.watchdog_too)
    _, said = process.communicate()
    if process.returncode == 0:
        return None
    wrong = []
    if "Traceback" in said or process.returncode != -signal.SIGKILL:
        wrong.append(f"exit code {process.returncode}: {said}")
    if left := room.left():
        wrong.append(f"left running: {left}")
    if point.watchdog_too or point.phase == "database":
        # What the watchdog could not put back any more, the next start does.
        next_start = room.study(max(len(room.finished()), 1), before=clock.before)
        if next_start.code:
            wrong.append(f"next start: exit code {next_start.code}: {next_start.last}")
    if not wait_until(lambda: not groups(process.pid), 10.0):
        wrong.append(f"cgroups left: {groups(process.pid)}")
    if not wait_until(clock.is_as_before, 10.0):
        wrong.append("the CPU clock is not as it was")
    after = room.finished()
    lost = {n: was for n, was in {**before, **seen}.items() if after.get(n) != was}
    if lost:
        wrong.append(f"lost: {lost}")
    return wrong


def strike(process: subprocess.Popen[str], watchdog_too: bool) -> None:
    """SIGKILL; the watchdog first, if at all, and without time for the study to start another."""
    if watchdog_too:
        process.send_signal(signal.SIGSTOP)
        try:
            children = psutil.Process(process.pid).children()
        except psutil.NoSuchProcess:
            children = []
        for child in children:
            if "tuner.deploy.watchdog" in command_of(child):
                child.kill()
    process.send_signal(signal.SIGKILL)


def phase_of(room: Room, point: Point) -> Callable[[], Any]:
    """What is waited for, from outside, before a study is started."""
    before = max(room.trials(), default=-1)
    plot = room.database.with_suffix(".png")
    plotted = plot.stat().st_mtime_ns if plot.exists() else None

    def running(count: int) -> bool:
        new = {n: state for n, (state, _) in room.trials().items() if n > before}
        return len(new) >= count and "RUNNING" in new.values()

    def children(word: str, count: int = 1) -> bool:
        return sum(word in command_of(p) for p in room.processes()) >= count

    def told(count: int) -> bool:
        return sum(n > before for n in room.finished()) >= count

    # A forked server shows its fork server's command line.
    server = ("tuner.modelserver", 2) if point.embedded else ("answer_at_once", 1)
    return {
        "start": lambda: True,
        "database": room.database.exists,
        "trial": lambda: running(1),
        "server": lambda: children(*server),
        "client": lambda: children("tuner.load"),
        "next trial": lambda: told(1),
        "last trial": lambda: running(TRIALS_A_START),
        "last write": lambda: told(TRIALS_A_START),
        "plot": lambda: plot.exists() and plot.stat().st_mtime_ns != plotted,
    }[point.phase]


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
