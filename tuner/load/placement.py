"""Where the load generator runs, so that it disturbs the server least and is never late.

From four cores on it has cores of its own at the end of the list, and ``server_cores`` says what
is left for whoever starts the server. With fewer the server keeps them all, else its thread knobs
would be dead.

Its priority is raised in either case: a request that is sent late is charged to the server. A
nice value is not enough. Beside three busy threads on two cores, the 99th percentile of lag was
31 ms at nice 0, 16 ms at -10, 5.5 ms at -20 and 0.2 ms as a real-time process (Linux 6.18): the
scheduler lets others finish their slice. The load generator sleeps most of the time, so real-time
priority takes no more of the server's time; the kernel's real-time throttling bounds it anyway.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

MIN_CORES = 4
NICE = -10
REAL_TIME_PRIORITY = 1


@dataclass(frozen=True)
class Placement:
    """Cores of the load generator (empty: any) and what is left for the server."""

    client_cores: tuple[int, ...]
    server_cores: tuple[int, ...]


def place(
    processes: int = 1,
    own_cores: Sequence[int] | None = None,
    cores: tuple[int, ...] | None = None,
) -> Placement:
    """The placement for a load of so many processes.

    Args:
        own_cores: cores that the load generator shall have; ``None`` to choose.
        cores: all usable cores; by default those this process may use.
    """
    usable = tuple(sorted(os.sched_getaffinity(0))) if cores is None else cores
    if own_cores is not None:
        return Placement(tuple(own_cores), tuple(c for c in usable if c not in own_cores))
    if len(usable) < MIN_CORES:
        return Placement((), usable)
    own = max(1, min(processes, len(usable) // 2))
    return Placement(usable[-own:], usable[:-own])


def apply(placement: Placement, pid: int) -> dict[str, Any]:
    """Place a process that is ready to send, and say what was done and what was refused.

    Every thread of it: one left behind at normal priority would, holding the interpreter's lock,
    be waited for by all the others.
    """
    done: dict[str, Any] = {"cores": list(placement.client_cores) or None}
    for thread in _threads(pid):
        # A thread may end meanwhile.
        with contextlib.suppress(ProcessLookupError):
            if placement.client_cores:
                os.sched_setaffinity(thread, placement.client_cores)
            done |= raise_priority(thread)
    return done


def raise_priority(thread: int) -> dict[str, Any]:
    """Real-time where that is allowed, else a lower nice value, else nothing; says which.

    Linux sets both for one thread (0: the calling one); threads that it starts later inherit them.
    """
    try:
        os.sched_setscheduler(thread, os.SCHED_FIFO, os.sched_param(REAL_TIME_PRIORITY))
        return {"policy": "fifo", "priority": REAL_TIME_PRIORITY}
    except PermissionError as error:
        refused = f"real-time priority: {error.strerror}"
    try:
        os.setpriority(os.PRIO_PROCESS, thread, NICE)
    except PermissionError as error:
        refused += f"; nice {NICE}: {error.strerror}"
    nice = os.getpriority(os.PRIO_PROCESS, thread)
    return {"policy": "other", "nice": nice, "refused": refused}


def _threads(pid: int) -> list[int]:
    try:
        return sorted(int(name) for name in os.listdir(f"/proc/{pid}/task"))
    except OSError:
        return [pid]


@contextlib.contextmanager
def urgent() -> Iterator[None]:
    """Real-time priority for the calling thread, where that is allowed, for a few milliseconds.

    A meter's window must open when the load's does, also beside a server that keeps all cores
    busy. Threads and processes started meanwhile do not inherit it.
    """
    before = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        policy = os.SCHED_FIFO | os.SCHED_RESET_ON_FORK
        os.sched_setscheduler(0, policy, os.sched_param(REAL_TIME_PRIORITY))
    except OSError:
        yield
        return
    try:
        yield
    finally:
        os.sched_setscheduler(0, *before)
