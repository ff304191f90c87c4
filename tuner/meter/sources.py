"""Which energy sources this machine has, which one to use, and its idle baseline."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from tuner.errors import UnavailableError, UsageError
from tuner.measurement import EnergyReading
from tuner.meter.base import Meter
from tuner.meter.composite import CompositeMeter
from tuner.meter.cpu_share import CpuWindow
from tuner.meter.cpu_time import CpuTimeMeter
from tuner.meter.nvml import NvmlMeter
from tuner.meter.pyrapl_meter import PyRaplMeter
from tuner.meter.rapl import RaplMeter
from tuner.meter.uncertainty import mean_interval

IDLE_WINDOW_S = 0.5
IDLE_WAIT_S = 10.0
IDLE_CROWD_LIMIT = 0.10
"""Share of the machine's CPU time that others may use while the idle baseline is measured."""
MAKERS: dict[str, Callable[[], Meter]] = {
    "rapl": RaplMeter,
    "pyrapl": PyRaplMeter,
    "nvml": NvmlMeter,
    "nvml_sampled": lambda: NvmlMeter(sampled=True),
}
"""Sources with hardware behind them, by name; making one raises UnavailableError where it's missing."""
_PROCESSOR = ("cpu_time", "rapl", "pyrapl")


def choose(
    source: str = "auto", *, idle_w: float | None = None, max_w: float | None = None
) -> Meter:
    """The meter to use.

    Args:
        source: ``auto``, one of ``cpu_time`` and ``MAKERS``, or one for the processor and one for
            the GPUs joined by ``+`` (``rapl+nvml``). ``auto`` takes RAPL where it can be read and
            the estimate elsewhere; it leaves GPUs out, which a server of CPU models never uses.
        idle_w, max_w: constants of the ``cpu_time`` estimate, watts.

    Raises:
        UnavailableError: a demanded source isn't there; says why and what comes nearest.
        UsageError: no such source, or a wrong constant.
    """
    if source == "auto":
        try:
            return _make("rapl", idle_w, max_w)
        except UnavailableError:
            return _make("cpu_time", idle_w, max_w)
    names = [name.strip() for name in source.split("+")]
    for name in names:
        if name != "cpu_time" and name not in MAKERS:
            known = ", ".join(("auto", "cpu_time", *MAKERS))
            raise UsageError(f"energy source {name!r}: unknown; use one of {known}, or two with +")
    # Two meters of the same domains would count them twice.
    for kind in (_PROCESSOR, tuple(set(MAKERS) - set(_PROCESSOR))):
        same = [name for name in names if name in kind]
        if len(same) > 1:
            raise UsageError(f"energy source {source!r}: {' and '.join(same)} see the same domains")
    parts: list[Meter] = []
    try:
        for name in names:
            parts.append(_make(name, idle_w, max_w))
    except BaseException:
        for part in parts:
            part.release()
        raise
    return parts[0] if len(parts) == 1 else CompositeMeter(parts)


def _make(name: str, idle_w: float | None, max_w: float | None) -> Meter:
    return CpuTimeMeter(idle_w, max_w) if name == "cpu_time" else MAKERS[name]()


def sources() -> list[tuple[str, bool, str]]:
    """Every source: name, whether this machine has it, and why (not)."""
    found = []
    for name in (*MAKERS, "cpu_time"):
        try:
            meter = _make(name, None, None)
        except UsageError as error:
            found.append((name, False, str(error)))
        else:
            found.append((name, True, meter.describe()))
            meter.release()
    return found


def measure_idle(
    meter: Meter, seconds: float, *, pids: Sequence[int] = (), wait_s: float = IDLE_WAIT_S
) -> float:
    """Average watts over ``seconds`` in which nothing is asked of the machine.

    Set the result as ``meter.idle_w``: later readings then carry ``idle_w`` and ``net_j``. The time
    is measured in windows of at least half a second; with four or more of them the baseline's
    interval is known too and set as ``meter.idle_interval_w``. A source whose model has
    the idle power as a constant is not measured, and others' work is left out where the source can
    tell it; elsewhere a baseline from a busy machine is thrown away and measured again.

    Args:
        pids: the caller's own processes, not charged to the baseline where the source can tell.
        wait_s: after so long no further attempt is begun.

    Raises:
        UnavailableError: there is no baseline, because the machine was busy in every attempt, or
            what the source says is no result.
    """
    if seconds <= 0:
        raise UsageError(f"the idle baseline needs more than 0 seconds, not {seconds:g}")
    if meter.known_idle_w is not None:
        meter.idle_interval_w = (meter.known_idle_w, meter.known_idle_w)
        return meter.known_idle_w
    begun_s = time.monotonic()
    while True:
        readings, why = _idle_windows(meter, seconds, pids)
        if why is None:
            break
        if time.monotonic() - begun_s >= wait_s:
            raise UnavailableError(f"no idle baseline: {why}")
    meter.idle_interval_w = mean_interval([r.server_j / r.window_s for r in readings])
    return sum(r.server_j for r in readings) / sum(r.window_s for r in readings)


def _idle_windows(
    meter: Meter, seconds: float, pids: Sequence[int]
) -> tuple[list[EnergyReading], str | None]:
    """Readings of windows in a row, and in words why they are of no idle machine, else ``None``."""
    windows = max(1, int(seconds / IDLE_WINDOW_S))
    readings: list[EnergyReading] = []
    machine = CpuWindow((), pids) if set(meter.name.split("+")) & set(_PROCESSOR) else None
    try:
        for _ in range(windows):
            meter.open(client_pids=pids)
            try:
                time.sleep(seconds / windows)
            finally:
                readings.append(meter.close())
    except BaseException:
        if machine is not None:
            machine.abandon()
        raise
    for reading in readings:
        if reading.why_no_result:
            return readings, reading.why_no_result[1]
    if machine is None:
        return readings, None
    try:
        shares = machine.close()
    except UnavailableError:
        return readings, None  # the system does not count its time
    others = shares.rest_s / (shares.cpus * shares.window_s)
    told_apart = all(reading.others_j is not None for reading in readings)
    if told_apart or others <= IDLE_CROWD_LIMIT:
        return readings, None
    return readings, (
        f"other work used {others:.0%} of the machine while it was measured, and {meter.name} "
        "cannot tell it apart"
    )
