"""The window over processor energy counters, however they are read, and the client's share in it."""

from __future__ import annotations

from collections.abc import Sequence

from tuner.measurement import EnergyReading
from tuner.meter.base import Meter, net_j
from tuner.meter.counters import Counter, CounterWindow
from tuner.meter.cpu_share import CpuShares, CpuWindow
from tuner.meter.uncertainty import fields, half_width_j

UPDATE_S = 0.002
"""RAPL's counters advance in steps of about a millisecond: one step at each end of the window."""
ATTRIBUTED = "attributed, not measured: (gross_j - idle_w x window) x client's CPU seconds / busy CPU seconds"
NOT_ATTRIBUTED = "not told apart: without an idle baseline the dynamic part is unknown"


def client_share_j(gross_j: float, idle_w: float | None, shares: CpuShares) -> float | None:
    """The client's part of the dynamic energy by CPU time, joules; ``None`` without a baseline.

    A counter sees the package, never a process. What the package drew above its idle power is
    split in proportion to CPU seconds, as if all of them cost the same.
    """
    if idle_w is None:
        return None
    dynamic_j = max(0.0, gross_j - idle_w * shares.window_s)
    return dynamic_j * shares.client_s / shares.busy_s if shares.busy_s else 0.0


class CounterMeter(Meter):
    """Sums hardware counters over the window. Subclasses find the counters."""

    method = "counter"

    def __init__(self, counters: Sequence[Counter]) -> None:
        self._counters = tuple(counters)
        self._windows: tuple[CpuWindow, CounterWindow] | None = None

    @property
    def domains(self) -> tuple[str, ...]:
        return tuple(counter.name for counter in self._counters)

    def describe(self) -> str:
        return f"counters of {', '.join(self.domains)}"

    def open(self, server_pids: Sequence[int] = (), client_pids: Sequence[int] = ()) -> None:
        if self._windows is not None:
            raise RuntimeError(f"{self.name}: the window is open already")
        shares = CpuWindow(server_pids, client_pids)
        try:
            self._windows = shares, CounterWindow(self._counters)
        except BaseException:
            shares.abandon()
            raise

    def close(self) -> EnergyReading:
        windows, self._windows = self._windows, None
        if windows is None:
            raise RuntimeError(f"{self.name}: no window is open")
        cpu_window, counter_window = windows
        try:
            window_s, joules = counter_window.close()
        finally:
            shares = cpu_window.close()
        gross_j = sum(joules.values())
        client_j = client_share_j(gross_j, self.idle_w, shares)
        net = net_j(gross_j, client_j, self.idle_w, window_s)
        resolution_j = gross_j / window_s * UPDATE_S
        # The client's attributed share is taken as exact: the interval is the whole's.
        times_s, counted_j = zip(*counter_window.looks)
        half_j = half_width_j(times_s, counted_j, resolution_j)
        return EnergyReading(
            source=self.name,
            method=self.method,
            domains=self.domains,
            window_s=window_s,
            gross_j=gross_j,
            client_j=client_j,
            idle_w=self.idle_w,
            net_j=net,
            samples=len(counter_window.looks),
            details={
                "domain_j": joules,
                "client_j_from": NOT_ATTRIBUTED if client_j is None else ATTRIBUTED,
                "sample_period_s": counter_window.period_s,
                **shares.details(),
            },
            **fields(
                gross_j - (client_j or 0.0), net, half_j, resolution_j, window_s,
                self.idle_interval_w,
            ),
        )

    def release(self) -> None:
        windows, self._windows = self._windows, None
        for window in windows or ():
            window.abandon()
