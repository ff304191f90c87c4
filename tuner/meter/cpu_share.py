"""Who burned the machine's CPU time in a window: the server, the load generator, the rest."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuner.meter.background import Background
from tuner.meter.machine_stat import (
    MachineTimes,
    online_cpus,
    read_machine,
    why_not_the_machines,
)
from tuner.meter.processes import PROC, AllProcesses, ProcessTree, all_processes
from tuner.meter.uncertainty import LOOK_S

SAMPLE_PERIOD_S = LOOK_S
"""How often server and client are looked at inside a window."""
SCAN_PERIOD_S = 1.0
"""How often all of /proc is, for processes that nobody waits for: 4 ms of CPU with 100 processes."""
SURELY_SEEN_S = 1.0
"""A window of this length in which no process at all burned a clock tick tells of no clock."""


@dataclass(frozen=True)
class CpuLook:
    """CPU seconds since the window opened, as of one look inside it."""

    elapsed_s: float
    busy_s: float
    server_s: float
    client_s: float


@dataclass(frozen=True)
class CpuShares:
    """CPU seconds of one window; ``busy_s`` = server + client + rest, at most ``cpus x window_s``."""

    window_s: float
    cpus: int
    busy_s: float
    server_s: float
    client_s: float
    steal_s: float
    """Seconds in which a virtual CPU had work but the host ran somebody else: not our energy."""
    missing_pids: tuple[int, ...]
    """Process ids that did not exist when the window opened: their time is in the rest."""
    looks: tuple[CpuLook, ...] = ()
    """One about every ``SAMPLE_PERIOD_S``, the window's two ends included."""
    server_told: bool | None = None
    """Whether the server's processes were in sight; ``None`` = there is no server."""
    server_processes: int = 1
    not_the_machines: str | None = None
    """Why /proc/stat was not used; ``busy_s`` is then what the processes in sight burned."""
    untold: str | None = None
    """Why not even the server's own CPU time is known."""

    @property
    def rest_s(self) -> float:
        return self.busy_s - self.server_s - self.client_s

    @property
    def busy_share(self) -> float:
        """Busy part of all CPUs, 0 … 1."""
        return self.busy_s / (self.cpus * self.window_s)

    @property
    def rest_share(self) -> float:
        """Part of all CPUs that neither server nor client used, 0 … 1."""
        return self.rest_s / (self.cpus * self.window_s)

    def details(self) -> dict[str, Any]:
        """For the record, units in the names."""
        told = self.not_the_machines
        return {
            "cpus": self.cpus,
            "busy_share": self.busy_share,
            "server_cpu_s": self.server_s,
            "client_cpu_s": self.client_s,
            "rest_cpu_s": self.rest_s,
            "steal_cpu_s": self.steal_s,
            "missing_pids": list(self.missing_pids),
            "busy_from": "/proc/stat" if told is None else f"the processes in sight: {told}",
        }


@dataclass(frozen=True)
class _Raw:
    """One look, before it is known whether /proc/stat can be believed."""

    elapsed_s: float
    machine: MachineTimes | None
    seen_s: float
    server_s: float
    client_s: float


class CpuWindow:
    """Open from construction until ``close``.

    Server and client are what their processes themselves used (/proc/PID/stat). Busy is what is
    neither idle, nor waiting for a disk (a CPU in iowait is idle), nor stolen:
    ``cpus x time − (idle + iowait + steal)``. Unlike user + system + …, which most kernels count by
    looking at who runs at each clock tick, idle time is exact on tickless kernels. Where /proc/stat
    is not this machine's, busy is what all processes in sight burned.

    Args:
        proc: where ``/proc`` is; cpus: how many CPUs are online, numbered from 0; clock: seconds.
    """

    def __init__(
        self,
        server_pids: Sequence[int] = (),
        client_pids: Sequence[int] = (),
        *,
        proc: Path = PROC,
        cpus: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._proc, self._clock = proc, clock
        everything = all_processes(proc)
        # The server's subtree stays the server's even where the client is its ancestor.
        self._server = ProcessTree(server_pids, set(client_pids) - set(server_pids), everything)
        self._client = ProcessTree(client_pids, server_pids, everything)
        self._all = AllProcesses(everything)
        self._server_pids = tuple(server_pids)
        self._online = frozenset(range(cpus)) if cpus else online_cpus()
        self._cpus = len(self._online)
        watched = bool(server_pids or client_pids)
        self._start, self._start_s = read_machine(proc), clock()
        self._looks = [_Raw(0.0, self._start, 0.0, 0.0, 0.0)]
        self._scanned_s = self._start_s
        self._background = Background(self._sample, SAMPLE_PERIOD_S) if watched else None

    def _sample(self) -> None:
        now, now_s = read_machine(self._proc), self._clock()
        self._look(now, now_s, scan=now_s - self._scanned_s >= SCAN_PERIOD_S - SAMPLE_PERIOD_S / 2)

    def _look(self, now: MachineTimes | None, now_s: float, *, scan: bool = True) -> None:
        if scan:
            self._scanned_s = now_s
            everything = all_processes(self._proc)
            for tree in (self._server, self._client, self._all):
                tree.sample(everything)
        else:
            self._server.sample_known(self._proc)
            self._client.sample_known(self._proc)
        self._looks.append(
            _Raw(
                now_s - self._start_s, now, self._all.cpu_s, self._server.cpu_s, self._client.cpu_s
            )
        )

    def abandon(self) -> None:
        """Stop looking; there is no reading."""
        if self._background is not None:
            self._background.cancel()

    def close(self) -> CpuShares:
        # The end before anything that takes time, such as a scan under way.
        end, end_s = read_machine(self._proc), self._clock()
        if self._background is not None:
            self._background.stop()
        self._look(end, end_s)
        last = self._looks[-1]
        why = why_not_the_machines(
            self._start, last.machine, self._online, last.elapsed_s, last.seen_s
        )
        steal_s = 0.0
        if why is None and self._start is not None and last.machine is not None:
            steal_s = max(0.0, last.machine.steal_s - self._start.steal_s)
        looks = tuple(self._told(raw, believed=why is None) for raw in self._looks)
        told = bool(set(self._server_pids) - set(self._server.missing))
        return CpuShares(
            window_s=last.elapsed_s,
            cpus=self._cpus,
            busy_s=looks[-1].busy_s,
            server_s=looks[-1].server_s,
            client_s=looks[-1].client_s,
            steal_s=steal_s,
            missing_pids=self._server.missing + self._client.missing,
            looks=looks,
            server_told=told if self._server_pids else None,
            server_processes=self._server.members,
            not_the_machines=why,
            untold=self._untold(why, last, told),
        )

    def _told(self, raw: _Raw, *, believed: bool) -> CpuLook:
        limit_s, parts_s = self._cpus * raw.elapsed_s, raw.server_s + raw.client_s
        busy_s = raw.seen_s
        if believed and self._start is not None and raw.machine is not None:
            rested_s = raw.machine.resting_s - self._start.resting_s
            busy_s = limit_s - rested_s - (raw.machine.steal_s - self._start.steal_s)
        # All clocks advance in steps of 10 ms, so the parts may exceed the whole by a step or two.
        busy_s = min(limit_s, max(0.0, busy_s, parts_s))
        scale = min(1.0, busy_s / parts_s) if parts_s else 1.0
        return CpuLook(raw.elapsed_s, busy_s, raw.server_s * scale, raw.client_s * scale)

    def _untold(self, why: str | None, last: _Raw, told: bool) -> str | None:
        if not self._server_pids:
            return None
        if why is not None and not told:
            return f"the server's processes are out of sight, and {why}"
        if told and last.seen_s == 0 and last.elapsed_s >= SURELY_SEEN_S:
            return f"no process burned any CPU time in {last.elapsed_s:.3g} s, by /proc/PID/stat"
        return None
