"""Who burned the machine's CPU time in a window: the server, the load generator, the rest."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import psutil

from tuner.meter.background import Background
from tuner.meter.processes import ProcessTree, all_processes

SAMPLE_PERIOD_S = 1.0
"""How often the trees are looked at inside a window, for processes that nobody waits for."""


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
    """One about every second, the window's two ends included."""

    @property
    def rest_s(self) -> float:
        return self.busy_s - self.server_s - self.client_s

    @property
    def busy_share(self) -> float:
        """Busy part of all CPUs, 0 … 1."""
        return self.busy_s / (self.cpus * self.window_s)

    def details(self) -> dict[str, Any]:
        """For the record, units in the names."""
        return {
            "cpus": self.cpus,
            "busy_share": self.busy_share,
            "server_cpu_s": self.server_s,
            "client_cpu_s": self.client_s,
            "rest_cpu_s": self.rest_s,
            "steal_cpu_s": self.steal_s,
            "missing_pids": list(self.missing_pids),
        }


class CpuWindow:
    """Open from construction until ``close``.

    Busy is what is neither idle, nor waiting for a disk (a CPU in iowait is idle), nor stolen:
    ``cpus x time − (idle + iowait + steal)``. Unlike user + system + …, which most kernels count by
    looking at who runs at each clock tick, idle time is exact on tickless kernels. Time of guests
    (guest, guest_nice) is inside user and nice in /proc/stat, and needs no adding.
    """

    def __init__(self, server_pids: Sequence[int] = (), client_pids: Sequence[int] = ()) -> None:
        # The server's subtree stays the server's even where the client is its ancestor.
        everything = all_processes() if server_pids or client_pids else {}
        self._server = ProcessTree(server_pids, set(client_pids) - set(server_pids), everything)
        self._client = ProcessTree(client_pids, server_pids, everything)
        self._cpus = psutil.cpu_count() or 1
        watched = bool(server_pids or client_pids)
        self._looks = [CpuLook(0.0, 0.0, 0.0, 0.0)]
        self._start, self._start_s = psutil.cpu_times(), time.monotonic()
        self._background = Background(self._sample, SAMPLE_PERIOD_S) if watched else None

    def _sample(self) -> None:
        now, now_s = psutil.cpu_times(), time.monotonic()
        everything = all_processes()
        self._server.sample(everything)
        self._client.sample(everything)
        elapsed_s = now_s - self._start_s
        busy_s = max(0.0, self._cpus * elapsed_s - sum(self._resting(now)))
        look = CpuLook(elapsed_s, busy_s, self._server.cpu_s, self._client.cpu_s)
        self._looks.append(look)

    def _resting(self, now: Any) -> list[float]:
        """Seconds since the start in which CPUs were idle, waited for a disk, were stolen."""
        return [
            getattr(now, field, 0.0) - getattr(self._start, field, 0.0)
            for field in ("idle", "iowait", "steal")
        ]

    def abandon(self) -> None:
        """Stop looking; there is no reading."""
        if self._background is not None:
            self._background.cancel()

    def close(self) -> CpuShares:
        end, end_s = psutil.cpu_times(), time.monotonic()
        if self._background is not None:
            self._background.stop()
            self._sample()
        window_s = end_s - self._start_s
        idle_s, iowait_s, steal_s = self._resting(end)
        limit_s = self._cpus * window_s
        server_s, client_s = self._server.cpu_s, self._client.cpu_s
        # Both clocks advance in steps of 10 ms, so the parts may exceed the whole by a step or two.
        busy_s = min(limit_s, max(limit_s - idle_s - iowait_s - steal_s, server_s + client_s))
        scale = min(1.0, busy_s / (server_s + client_s)) if server_s + client_s else 1.0
        return CpuShares(
            window_s=window_s,
            cpus=self._cpus,
            busy_s=busy_s,
            server_s=server_s * scale,
            client_s=client_s * scale,
            steal_s=max(0.0, steal_s),
            missing_pids=self._server.missing + self._client.missing,
            looks=(
                *self._looks[: None if self._background is None else -1],
                CpuLook(window_s, busy_s, server_s * scale, client_s * scale),
            ),
        )
