"""Where the load generator runs, so that it disturbs the server least.

From four cores on it has cores of its own at the end of the list, and ``server_cores`` says what
is left for whoever starts the server. With fewer the server keeps them all, else its thread knobs
would be dead, and the load generator gets a raised priority instead: it is small, and late
requests would be charged to the server.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

MIN_CORES = 4
NICE = -10


@dataclass(frozen=True)
class Placement:
    """Cores of the load generator (empty: any) and of the server, and the asked nice value."""

    client_cores: tuple[int, ...]
    server_cores: tuple[int, ...]
    nice: int | None


def place(processes: int = 1, cores: tuple[int, ...] | None = None) -> Placement:
    """The placement for a load of so many processes on the cores this process may use."""
    usable = tuple(sorted(os.sched_getaffinity(0))) if cores is None else cores
    if len(usable) < MIN_CORES:
        return Placement((), usable, NICE)
    own = max(1, min(processes, len(usable) // 2))
    return Placement(usable[-own:], usable[:-own], None)


def apply(placement: Placement, pid: int) -> dict[str, Any]:
    """Place a process and say what was done, and what was refused."""
    done: dict[str, Any] = {"cores": None, "nice": os.getpriority(os.PRIO_PROCESS, pid)}
    if placement.client_cores:
        os.sched_setaffinity(pid, placement.client_cores)
        done["cores"] = list(placement.client_cores)
    if placement.nice is not None:
        try:
            os.setpriority(os.PRIO_PROCESS, pid, placement.nice)
        except PermissionError:
            done["refused"] = f"nice {placement.nice} needs CAP_SYS_NICE"
        done["nice"] = os.getpriority(os.PRIO_PROCESS, pid)
    return done
