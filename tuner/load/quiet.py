"""Whether the machine is quiet enough to measure on, who uses it, and waiting until it is."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import psutil

from tuner.load import machine

LOOK_S = 0.5
WAIT_LOOK_S = 1.0
NAMED = 3
_WORTH_NAMING = 0.02
_NAME_LENGTH = 20


@dataclass(frozen=True)
class Look:
    """What others made of the machine for a moment, as shares of all its CPUs' time."""

    others: float | None
    """``None``: the server's work can't be told from it."""
    steal: float
    programs: tuple[tuple[str, float], ...]
    """Who used most of it: a program's name and the share of all its processes."""

    @property
    def why_busy(self) -> str | None:
        """Who uses the machine and by how much, where that is too much to measure; else ``None``."""
        told = []
        if (self.others or 0.0) > machine.CROWD_LIMIT:
            named = ", ".join(f"{name} {share:.0%}" for name, share in self.programs)
            told.append(
                f"other work uses {self.others:.0%} of it" + (f" ({named})" if named else "")
            )
        if self.steal > machine.STEAL_LIMIT:
            told.append(f"the hypervisor takes {self.steal:.0%} of it")
        return " and ".join(told) or None


def look(seconds: float = LOOK_S, server_pids: Sequence[int] | None = ()) -> Look | None:
    """Watch the machine for so long; ``None`` where it does not count its time.

    Args:
        server_pids: as ``machine.Span`` takes them; what they do isn't others' work.
    """
    before, began_s = _by_process(), time.monotonic()
    span = machine.Span(server_pids)
    time.sleep(seconds)
    told, after = span.ended(), _by_process()
    if told is None:
        return None
    ours = {psutil.Process().pid, *(server_pids or ())}
    used: dict[str, float] = {}
    for identity, (name, cpu_s) in after.items():
        if identity[0] not in ours:
            short, earlier_s = name[:_NAME_LENGTH], before.get(identity, (name, 0.0))[1]
            used[short] = used.get(short, 0.0) + cpu_s - earlier_s
    whole_s = (time.monotonic() - began_s) * (psutil.cpu_count() or 1)
    programs = tuple(
        (name, cpu_s / whole_s)
        for name, cpu_s in sorted(used.items(), key=lambda one: -one[1])[:NAMED]
        if cpu_s / whole_s >= _WORTH_NAMING
    )
    return Look(told["others"], told["steal"] or 0.0, programs)


def _by_process() -> dict[tuple[int, float], tuple[str, float]]:
    """Process id and start time -> name, CPU seconds so far."""
    found = {}
    for process in psutil.process_iter(["name", "cpu_times", "create_time"]):
        told = process.info
        if told["cpu_times"] is not None:
            identity = (process.pid, told["create_time"])
            found[identity] = (told["name"], told["cpu_times"].user + told["cpu_times"].system)
    return found


def wait_until_quiet(
    at_most_s: float,
    server_pids: Callable[[], Sequence[int] | None] = tuple,
) -> str | None:
    """Wait while the machine is too busy to measure; ``None`` once it is quiet.

    Looks at a second at a time. After ``at_most_s`` seconds it gives up and says who uses the
    machine. A machine that doesn't count its time passes for quiet.
    """
    begun = time.monotonic()
    while True:
        found = look(WAIT_LOOK_S, server_pids())
        why = None if found is None else found.why_busy
        if why is None or time.monotonic() - begun >= at_most_s:
            return why
