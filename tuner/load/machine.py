"""What else the machine did: its load, the time its hypervisor stole, from /proc."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

STEAL_LIMIT = 0.05
OTHERS_LIMIT = 0.25
"""Shares of the machine's time beyond which a stage counts as disturbed: stolen by the hypervisor,
and used by other work just before the stage, while the server was idle."""
CALM_WAIT_S = 60.0

_STEAL = 7
_IDLE, _IOWAIT = 3, 4


@dataclass(frozen=True)
class Snapshot:
    """CPU seconds of the whole machine since it started (proc(5), /proc/stat)."""

    busy_s: float
    steal_s: float
    total_s: float


@dataclass(frozen=True)
class Share:
    """Shares of all cores' time between two snapshots, 0 to 1."""

    busy: float
    steal: float


def snapshot() -> Snapshot | None:
    """The counters now, or ``None`` on a system without /proc."""
    try:
        line = Path("/proc/stat").read_text().split("\n", 1)[0]
    except OSError:
        return None
    ticks = [int(value) for value in line.split()[1:9]]
    second = float(os.sysconf("SC_CLK_TCK"))
    total = sum(ticks)
    idle = ticks[_IDLE] + ticks[_IOWAIT]
    return Snapshot((total - idle - ticks[_STEAL]) / second, ticks[_STEAL] / second, total / second)


def between(before: Snapshot | None, after: Snapshot | None) -> Share | None:
    """Shares between two snapshots; ``None`` where a snapshot is missing or no time passed."""
    if before is None or after is None or after.total_s <= before.total_s:
        return None
    span = after.total_s - before.total_s
    # The kernel updates its counters one core at a time: a sum can run ahead of the total.
    busy, steal = (
        min(1.0, max(0.0, (last - first) / span))
        for first, last in ((before.busy_s, after.busy_s), (before.steal_s, after.steal_s))
    )
    return Share(busy, steal)


class Preparation:
    """The time before a stage, from here until ``ended``: the server idles, so others show."""

    def __init__(self) -> None:
        self._before, self._own_s = snapshot(), time.process_time()

    def ended(self, client_pids: Sequence[int]) -> dict[str, float] | None:
        """How busy the rest of the machine was; this process and the clients do not count."""
        before, after = self._before, snapshot()
        share = between(before, after)
        if share is None or before is None or after is None:
            return None
        own = time.process_time() - self._own_s
        for pid in client_pids:
            times = psutil.Process(pid).cpu_times()
            own += times.user + times.system
        span = after.total_s - before.total_s
        return {
            "busy_others": max(0.0, share.busy - own / span),
            "steal": share.steal,
            "seconds": span / (os.cpu_count() or 1),
        }


def load_average() -> float | None:
    """The load average of the last minute."""
    try:
        return os.getloadavg()[0]
    except OSError:
        return None


def wait_until_calm(at_most_s: float = CALM_WAIT_S) -> bool:
    """Wait while the machine, whose server idles, is busy with other work; whether it is calm now.

    Looks at a second at a time, and gives up after ``at_most_s`` seconds.
    """
    begun = time.monotonic()
    while True:
        before = snapshot()
        time.sleep(1.0)
        share = between(before, snapshot())
        if share is None or (share.busy <= OTHERS_LIMIT and share.steal <= STEAL_LIMIT):
            return True
        if time.monotonic() - begun >= at_most_s:
            return False


def disturbance(details: Mapping[str, Any]) -> str | None:
    """What disturbed a stage, from its ``details``; ``None`` if nothing did, or nothing is known.

    Work of others inside the window cannot be told from the server's here, hence the look before it;
    a meter that knows the server's processes tells (``trial``).
    """
    before, window = details.get("machine_before"), details.get("machine_window")
    if window is not None and window["steal"] > STEAL_LIMIT:
        return f"the hypervisor took {window['steal']:.0%} of the machine's time from the stage"
    if before is not None and before["busy_others"] > OTHERS_LIMIT:
        return f"other work used {before['busy_others']:.0%} of the machine before the stage"
    return None
