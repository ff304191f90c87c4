"""Energy estimated from CPU time, for machines whose energy counters are out of reach.

    serving = idle_w x time + (max_w − idle_w) x server's CPU seconds / CPUs
    client  =                 (max_w − idle_w) x client's CPU seconds / CPUs
    others  =                 (max_w − idle_w) x all other CPU seconds / CPUs

the linear power model of Fan, Weber and Barroso, "Power provisioning for a warehouse-sized
computer" (ISCA 2007). It knows nothing of clock frequency, of which instructions ran, or of memory:
see docs/energy.md.
"""

from __future__ import annotations

from collections.abc import Sequence

from tuner.measurement import EnergyReading
from tuner.meter.base import Meter, net_j
from tuner.meter.cpu_share import CpuWindow
from tuner.meter.machine_stat import TICK_S
from tuner.meter.power_model import PowerModel, power_model
from tuner.meter.uncertainty import fields, half_width_j


class CpuTimeMeter(Meter):
    """Estimates the CPU package's energy; works on any Linux machine.

    Serving is charged with idle power and what its own processes used. Where the server's processes
    are out of sight, ``others_j`` is ``None`` and all but the client's share is charged to it.

    Args:
        idle_w, max_w: the model's constants in watts; by default see ``power_model``.

    Raises:
        UsageError: a constant, or the user's ``energy.yaml``, is wrong.
    """

    name = "cpu_time"
    method = "estimate"

    def __init__(self, idle_w: float | None = None, max_w: float | None = None) -> None:
        self.model: PowerModel = power_model(idle_w, max_w)
        self.known_idle_w = self.model.idle_w
        self._window: CpuWindow | None = None

    def describe(self) -> str:
        model = self.model
        return (
            f"estimate, {model.idle_w:.3g} W idle to {model.max_w:.3g} W busy; max from "
            f"{model.max_from}; idle from {model.idle_from}"
        )

    def open(self, server_pids: Sequence[int] = (), client_pids: Sequence[int] = ()) -> None:
        if self._window is not None:
            raise RuntimeError("cpu_time: the window is open already")
        self._window = CpuWindow(server_pids, client_pids)

    def close(self) -> EnergyReading:
        window, self._window = self._window, None
        if window is None:
            raise RuntimeError("cpu_time: no window is open")
        shares, model = window.close(), self.model
        joules_per_cpu_s = (model.max_w - model.idle_w) / shares.cpus
        gross_j = model.idle_w * shares.window_s + joules_per_cpu_s * shares.busy_s
        client_j = joules_per_cpu_s * shares.client_s
        # Without a server all but the client's work is others'; one out of sight may be any of it.
        whole = shares.server_told is False
        others_j = None if whole else joules_per_cpu_s * max(0.0, shares.rest_s)
        server_j = gross_j - client_j - (others_j or 0.0)
        net = net_j(server_j, self.idle_w, shares.window_s)
        # A process's user and system time are told in whole clock ticks.
        ticks = shares.cpus if whole else 2 * shares.server_processes
        resolution_j = joules_per_cpu_s * ticks * TICK_S
        half_j = half_width_j(
            [look.elapsed_s for look in shares.looks],
            [
                model.idle_w * look.elapsed_s
                + joules_per_cpu_s * (look.busy_s - look.client_s if whole else look.server_s)
                for look in shares.looks
            ],
            resolution_j,
        )
        return EnergyReading(
            source=self.name,
            method=self.method,
            domains=("cpu",),
            window_s=shares.window_s,
            gross_j=gross_j,
            client_j=client_j,
            others_j=others_j,
            idle_w=self.idle_w,
            net_j=net,
            samples=len(shares.looks),
            details={
                "model": "idle_w x time + (max_w - idle_w) x busy share x time",
                "model_idle_w": model.idle_w,
                "model_idle_w_from": model.idle_from,
                "model_max_w": model.max_w,
                "model_max_w_from": model.max_from,
                "client_j_from": "(max_w - idle_w) x client's CPU seconds / CPUs",
                "server_dynamic_j": joules_per_cpu_s * shares.server_s,
                "rest_dynamic_j": joules_per_cpu_s * shares.rest_s,
                **shares.details(),
            },
            invalid=shares.untold,
            invalid_reason="energy_untold" if shares.untold else None,
            **fields(
                server_j, net, half_j, resolution_j, shares.window_s, self.idle_interval_w,
                least_j=model.idle_w * shares.window_s,
            ),
        )

    def release(self) -> None:
        window, self._window = self._window, None
        if window is not None:
            window.abandon()
