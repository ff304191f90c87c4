"""The window over processor energy counters, however they are read, and the client's share in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tuner.errors import UnavailableError
from tuner.measurement import EnergyReading
from tuner.meter.base import Meter, net_j
from tuner.meter.counters import Counter, CounterWindow
from tuner.meter.cpu_share import CpuShares, CpuWindow
from tuner.meter.mirrors import PATIENCE_S, Mirrors
from tuner.meter.power_model import IDLE_FRACTION
from tuner.meter.uncertainty import fields, half_width_j

ATTRIBUTED = "attributed, not measured: (gross_j - idle_w x window) x client's CPU seconds / busy CPU seconds"
NOT_ATTRIBUTED = "not told apart: without an idle baseline the dynamic part is unknown"
FIRST_LOOK_S = 0.05
"""How long the first look may take; the looks inside windows go on with it."""
OTHERS_LIMIT = 0.10
"""Beyond this share of others a counter's reading is no result (docs/energy.md says why)."""


def client_share_j(gross_j: float, idle_w: float | None, shares: CpuShares) -> float | None:
    """The client's part of the dynamic energy by CPU time, joules; ``None`` without a baseline.

    A counter sees the package, never a process. What the package drew above its idle power is
    split in proportion to CPU seconds, as if all of them cost the same.
    """
    if idle_w is None:
        return None
    dynamic_j = max(0.0, gross_j - idle_w * shares.window_s)
    return dynamic_j * shares.client_s / shares.busy_s if shares.busy_s else 0.0


def others_share(
    gross_j: float, client_j: float | None, idle_w: float | None, shares: CpuShares
) -> float | None:
    """How much of the reading is other processes' work, 0 … 1; ``None`` where no server is in sight.

    The greater of two: their share of all CPUs' time, and of the energy that serving would be
    charged with, by CPU seconds like the client's. Without a baseline what lies above idle is taken
    to be as in the estimate's model, where idle is ``IDLE_FRACTION`` of full load.
    """
    if not shares.server_told or not shares.busy_s:
        return None
    if idle_w is None:
        idle = IDLE_FRACTION / (IDLE_FRACTION + (1 - IDLE_FRACTION) * shares.busy_share)
        dynamic_j = gross_j * (1 - idle)
    else:
        dynamic_j = max(0.0, gross_j - idle_w * shares.window_s)
    charged_j = gross_j - (client_j or 0.0)
    drawn = dynamic_j * shares.rest_s / shares.busy_s / charged_j if charged_j > 0 else 0.0
    return min(1.0, max(0.0, shares.rest_share, drawn))


class CounterMeter(Meter):
    """Sums hardware counters over the window. Subclasses find the counters.

    Args:
        counters: packages and the memory beside them.
        missing: domains that cannot be read, and why; kept in every record.
    """

    method = "counter"

    def __init__(
        self, counters: Sequence[Counter], missing: Mapping[str, str] | None = None
    ) -> None:
        self._counters, self._missing = tuple(counters), dict(missing or {})
        self._windows: tuple[CpuWindow, CounterWindow] | None = None
        self._mirrors = Mirrors(self._counters)
        self._mirrors.look()
        self._mirrors.settle(FIRST_LOOK_S)

    @property
    def domains(self) -> tuple[str, ...]:
        mirrors = self._mirrors.found()
        return tuple(counter.name for counter in self._counters if counter.name not in mirrors)

    def describe(self) -> str:
        mirrors = [f"{mirror} shows {name} again" for mirror, name in self._mirrors.found().items()]
        missing = [f"without {name}: {why}" for name, why in self._missing.items()]
        return "; ".join([f"counters of {', '.join(self.domains)}", *mirrors, *missing])

    def open(self, server_pids: Sequence[int] = (), client_pids: Sequence[int] = ()) -> None:
        if self._windows is not None:
            raise RuntimeError(f"{self.name}: the window is open already")
        shares = CpuWindow(server_pids, client_pids)
        try:
            counters = CounterWindow(self._counters, on_look=self._mirrors.look)
        except BaseException:
            shares.abandon()
            raise
        self._windows = shares, counters
        try:
            _refuse_lost_packages(counters.lost)
        except UnavailableError:
            self.release()
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
        _refuse_lost_packages(counter_window.lost)
        still_s = counter_window.stood_still_s()
        apart = {**counter_window.lost, **still_s}
        self._mirrors.settle(PATIENCE_S, apart)
        mirrors, missing = self._mirrors.found(), {**self._missing, **counter_window.lost}
        for name, seconds in still_s.items():
            if name not in mirrors and not name.startswith("package-"):
                missing.setdefault(name, f"stood still for {seconds:.3g} s")
        domains = tuple(name for name in self.domains if name not in missing)
        gross_j = sum(joules[name] for name in domains)
        client_j = client_share_j(gross_j, self.idle_w, shares)
        server_j = gross_j - (client_j or 0.0)
        net = net_j(server_j, self.idle_w, window_s)
        share = others_share(gross_j, client_j, self.idle_w, shares)
        still_s = {name: seconds for name, seconds in still_s.items() if name in domains}
        reason, why = _no_result(still_s, self._mirrors.undecided(apart), shares, share)
        resolution_j = gross_j / window_s * counter_window.update_s(domains)
        # The client's attributed share is taken as exact: the interval is the whole's.
        counted = [place for place, c in enumerate(self._counters) if c.name in domains]
        half_j = half_width_j(
            [when_s for when_s, _ in counter_window.looks],
            [sum(each[place] for place in counted) for _, each in counter_window.looks],
            resolution_j,
        )
        return EnergyReading(
            source=self.name,
            method=self.method,
            domains=domains,
            window_s=window_s,
            gross_j=gross_j,
            client_j=client_j,
            idle_w=self.idle_w,
            net_j=net,
            samples=len(counter_window.looks),
            details={
                "domain_j": {name: joules[name] for name in domains},
                "domains_mirrored": mirrors,
                "domains_missing": missing,
                "others_share": share,
                "client_j_from": NOT_ATTRIBUTED if client_j is None else ATTRIBUTED,
                "sample_period_s": counter_window.period_s,
                **shares.details(),
            },
            invalid=why,
            invalid_reason=reason,
            **fields(server_j, net, half_j, resolution_j, window_s, self.idle_interval_w),
        )

    def release(self) -> None:
        windows, self._windows = self._windows, None
        for window in windows or ():
            window.abandon()


def _refuse_lost_packages(lost: Mapping[str, str]) -> None:
    """Raises UnavailableError: the sum without a package is not the machine's."""
    for name, why in lost.items():
        if name.startswith("package-"):
            raise UnavailableError(why if name in why else f"{name}: {why}")


def _no_result(
    still_s: Mapping[str, float],
    undecided: Mapping[str, str],
    shares: CpuShares,
    share: float | None,
) -> tuple[str, str] | tuple[None, None]:
    """Reason and words where the reading is no result."""
    for name, seconds in still_s.items():
        if name.startswith("package-"):
            return "energy_still", (
                f"{name}: the energy counter stood still for {seconds:.3g} s, with the CPUs busy "
                f"{shares.busy_share:.0%} of the time"
            )
    for name, other in undecided.items():
        return "energy_untold", (
            f"{name} stood at the same value as {other} at every look, but moved too seldom to tell "
            "whether it shows the same counter; measure longer"
        )
    if share is not None and share > OTHERS_LIMIT:
        return "energy_disturbed", (
            f"other work took {share:.0%} of the energy or of the CPUs' time, which a counter "
            f"cannot tell apart; at most {OTHERS_LIMIT:.0%} is a result"
        )
    return None, None
