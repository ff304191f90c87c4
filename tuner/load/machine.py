"""What else the machine did: its load, who used it, the time its hypervisor stole, from /proc."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

STEAL_LIMIT = 0.05
OTHERS_LIMIT = 0.25
CROWD_LIMIT = 0.10
"""Shares of the machine's time beyond which a stage counts as disturbed: stolen by the hypervisor;
used by other work just before the stage, while the server was idle; and used by other work in the
measured window. A quiet two-core machine shows 0.00 to 0.04 in a window; the look before a stage is
short, hence its wider limit."""

_STEAL = 7
_IDLE, _IOWAIT = 3, 4
_MISFIT = 1.25
"""Where the parts of the machine's time differ by more than this from the whole, they aren't its."""


@dataclass(frozen=True)
class Snapshot:
    """CPU seconds of the whole machine since it started (proc(5), /proc/stat)."""

    busy_s: float
    steal_s: float
    total_s: float
    cpus: int = 0
    """How many CPUs the counters are of; 0 = not told."""
    at_s: float = 0.0
    """When it was taken, on CLOCK_MONOTONIC."""


@dataclass(frozen=True)
class Share:
    """Shares of all cores' time between two snapshots, 0 to 1."""

    busy: float
    steal: float


def snapshot() -> Snapshot | None:
    """The counters now, or ``None`` on a system without /proc."""
    try:
        lines = Path("/proc/stat").read_text().splitlines()
    except OSError:
        return None
    now_s = time.monotonic()
    ticks = [int(value) for value in lines[0].split()[1:9]]
    cpus = sum(line.startswith("cpu") for line in lines) - 1
    second = float(os.sysconf("SC_CLK_TCK"))
    total = sum(ticks)
    idle = ticks[_IDLE] + ticks[_IOWAIT]
    return Snapshot(
        (total - idle - ticks[_STEAL]) / second, ticks[_STEAL] / second, total / second, cpus, now_s
    )


def between(before: Snapshot | None, after: Snapshot | None) -> Share | None:
    """Shares between two snapshots; ``None`` where a snapshot is missing or no time passed."""
    span = _span_s(before, after)
    if before is None or after is None or not span:
        return None
    # Idle and stolen time are exact on tickless kernels, where the time of those who run is counted
    # by looking at each clock tick: what passed by the clock and wasn't idle was busy.
    rest = (after.total_s - before.total_s) - (after.busy_s - before.busy_s)
    # The kernel updates its counters one core at a time: a sum can run ahead of the total.
    busy, steal = (
        min(1.0, max(0.0, used / span))
        for used in (span - rest, after.steal_s - before.steal_s)
    )
    return Share(busy, steal)


def _span_s(before: Snapshot | None, after: Snapshot | None) -> float:
    """CPU seconds between two snapshots: by the clock where the counters agree with it."""
    if before is None or after is None:
        return 0.0
    counted = after.total_s - before.total_s
    passed = after.cpus * (after.at_s - before.at_s)
    return passed if counted / _MISFIT < passed < counted * _MISFIT else max(0.0, counted)


class Span:
    """A stretch of time, from here until ``ended``: how much of the machine others used.

    Others are all but this process, its children that ended meanwhile, the load generator's and the
    server's processes with their descendants. ``/proc`` is read here and in ``ended``, at no moment
    between: a stage is not slowed. A process's time holds that of the children it waited for
    (cutime, cstime), so what is born and dies inside a tree is in its sum.

    Args:
        server_pids: the server's processes; ``None``: they run here but can't be seen, so that their
            work can't be told from others'.
    """

    def __init__(
        self, server_pids: Sequence[int] | None = (), client_pids: Sequence[int] = ()
    ) -> None:
        scan = _scan()
        self._before, self._server_pids, self._client_pids = snapshot(), server_pids, client_pids
        if server_pids is not None:
            # A root ends unseen; every other process is waited for by its parent.
            whole = set(server_pids)
            roots = [p for p in whole if p in scan and scan[p][0] not in whole]
            self._server_pids = None if whole and not roots else roots
        self._own_s = self._ours(scan)

    def _ours(self, scan: Mapping[int, tuple[int, float]]) -> float | None:
        """CPU seconds so far of what isn't others'; ``None`` where it can't be told."""
        if self._server_pids is None or not scan.keys() >= set(self._server_pids):
            return None
        own = _trees((*self._server_pids, *self._client_pids), scan) | {os.getpid()}
        return sum(scan[pid][1] for pid in own & scan.keys())

    def ended(self) -> dict[str, float | None] | None:
        """``busy``, ``steal`` and ``others`` as shares of the machine's time, and its ``seconds``.

        ``others`` is ``None`` where they can't be told apart; all of it is ``None`` where the
        machine does not count its time.
        """
        after, ours = snapshot(), self._ours(_scan())
        share, span = between(self._before, after), _span_s(self._before, after)
        if share is None or self._before is None or after is None:
            return None
        others = None
        if ours is not None and self._own_s is not None:
            used = max(0.0, (ours - self._own_s) / span)
            # More than was counted as busy: these counters are not those of this machine.
            if used <= share.busy * _MISFIT + 0.05:
                others = max(0.0, share.busy - used)
        seconds = span / (after.cpus or os.cpu_count() or 1)
        return {"busy": share.busy, "steal": share.steal, "others": others, "seconds": seconds}


def _scan() -> dict[int, tuple[int, float]]:
    """Every process now: id -> parent, CPU seconds with those of children it waited for."""
    found = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                text = Path("/proc", name, "stat").read_text(errors="replace")
            except OSError:
                continue  # it ended, or is hidden
            # The command in brackets may hold spaces and brackets itself.
            fields = text[text.rindex(")") + 2 :].split()
            ticks = sum(map(int, fields[11:15]))  # utime stime cutime cstime
            found[int(name)] = (int(fields[1]), ticks / os.sysconf("SC_CLK_TCK"))
    return found


def _trees(roots: Iterable[int], scan: Mapping[int, tuple[int, float]]) -> set[int]:
    """The processes of a scan that are roots or descend from them."""
    children: dict[int, list[int]] = {}
    for pid, (parent, _) in scan.items():
        children.setdefault(parent, []).append(pid)
    found, pending = set[int](), [pid for pid in roots if pid in scan]
    while pending:
        pid = pending.pop()
        if pid not in found:
            found.add(pid)
            pending += children.get(pid, ())
    return found


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
        span = _span_s(before, after)
        return {
            "busy_others": max(0.0, share.busy - own / span),
            "steal": share.steal,
            "seconds": span / (after.cpus or os.cpu_count() or 1),
        }


def load_average() -> float | None:
    """The load average of the last minute."""
    try:
        return os.getloadavg()[0]
    except OSError:
        return None


def disturbance(details: Mapping[str, Any]) -> str | None:
    """What disturbed a stage, from its ``details``; ``None`` if nothing did, or nothing is known.

    ``machine_window`` is of the measured window, ``machine_stage`` of the whole stage where it ended
    before one opened, ``machine_before`` of the moment before the load, while the server was idle.
    """
    before, window = details.get("machine_before"), details.get("machine_window")
    told = window or details.get("machine_stage") or {}
    where = "in the measured window" if window else "while the stage ran"
    if told.get("steal", 0.0) > STEAL_LIMIT:
        return f"the hypervisor took {told['steal']:.0%} of the machine's time from the stage"
    if (told.get("others") or 0.0) > CROWD_LIMIT:
        return f"other work used {told['others']:.0%} of the machine {where}"
    if before is not None and before["busy_others"] > OTHERS_LIMIT:
        return f"other work used {before['busy_others']:.0%} of the machine before the stage"
    return None
