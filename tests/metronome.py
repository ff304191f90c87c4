"""Whether the machine itself keeps time, told by plain timers that run beside a test.

A hypervisor that gives a core to somebody else delays whatever runs there, and tells it (steal) at
times only. A load generator that sends late, or a latency above the truth, is then the machine's
doing. The timers here are pinned to one core each and stand above the load generator, where
real-time priority is allowed, so what delays them is neither it nor the server.
"""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Self, TypeVar

BEAT_S = 0.002
LATE_S = 0.0005
LATE_SHARE = 0.003
"""A core is late if so many of its beats come later than ``LATE_S``: a request waits for three
wake-ups (sent, served, answered), and one request in a hundred makes the p99."""
PRIORITY = 2
"""One above ``tuner.load.placement.REAL_TIME_PRIORITY``."""
ATTEMPTS = 5

T = TypeVar("T")


class Metronome:
    """Beats on every usable core while the context is open."""

    def __init__(self) -> None:
        self.late_shares: dict[int, float] = {}
        """Core -> share of its beats that came later than ``LATE_S``, once the context is left."""
        self._beating: dict[int, subprocess.Popen[str]] = {}

    def __enter__(self) -> Self:
        for core in sorted(os.sched_getaffinity(0)):
            self._beating[core] = subprocess.Popen(
                [sys.executable, "-I", "-S", __file__, str(core)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            )
        for process in self._beating.values():
            assert process.stdout is not None
            assert process.stdout.readline() == "beating\n"
        return self

    def __exit__(self, *exc: object) -> None:
        for core, process in self._beating.items():
            told, _ = process.communicate()
            self.late_shares[core] = float(told)

    def excuse(self) -> str | None:
        """What the machine did to its timers; ``None`` if they came in time."""
        worst = max(self.late_shares.values())
        if worst <= LATE_SHARE:
            return None
        return f"{worst:.1%} of a plain timer's beats came more than {LATE_S * 1e3:.1f} ms late"


def in_time(
    run: Callable[[], T],
    is_late: Callable[[T], object],
    attempts: int = ATTEMPTS,
    excuse: Callable[[T], str | None] = lambda result: None,
) -> T:
    """What ``run`` gives, repeated while it is late; skipped where the machine was late each time.

    What is late although the machine kept time, once, is returned: the test says what is wrong.

    Args:
        run: what is timed.
        is_late: whether its result is of no use.
        attempts: most runs.
        excuse: what else the result itself says of the machine.
    """
    excuses = []
    for _ in range(attempts):
        with Metronome() as beside:
            result = run()
        if not is_late(result):
            return result
        excuses.append(beside.excuse() or excuse(result))
    if all(excuses):
        # Only the tests import pytest, not the timers' own processes.
        import pytest

        pytest.skip(f"the machine did not keep time in any of {attempts} attempts: {excuses[-1]}")
    return result


def beat(core: int) -> float:
    """Beat on one core until standard input ends; the share of late beats, missed ones included."""
    os.sched_setaffinity(0, {core})
    with contextlib.suppress(PermissionError):
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(PRIORITY))
    print("beating", flush=True)
    beats = late = 0
    due = time.monotonic() + BEAT_S
    while True:
        ended, _, _ = select.select([sys.stdin], [], [], max(0.0, due - time.monotonic()))
        if ended:
            return late / max(beats, 1)
        beats += 1
        late += time.monotonic() - due > LATE_S
        due += BEAT_S


if __name__ == "__main__":
    print(beat(int(sys.argv[1])))
