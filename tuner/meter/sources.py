"""Which energy sources this machine has, which one to use, and its idle baseline."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from tuner.errors import UnavailableError, UsageError
from tuner.meter.base import Meter
from tuner.meter.cpu_time import CpuTimeMeter

MAKERS: dict[str, Callable[[], Meter]] = {}
"""Sources with hardware behind them, by name; making one raises UnavailableError where it's missing."""


def choose(
    source: str = "auto", *, idle_w: float | None = None, max_w: float | None = None
) -> Meter:
    """The meter to use.

    Args:
        source: ``auto``, one of ``cpu_time`` and ``MAKERS``, or several joined by ``+``
            (``rapl+nvml``). ``auto`` takes RAPL for the processor where it can be read and the
            estimate elsewhere.
        idle_w, max_w: constants of the ``cpu_time`` estimate, watts.

    Raises:
        UnavailableError: a demanded source isn't there; says why and what comes nearest.
        UsageError: no such source, or a wrong constant.
    """
    if source == "auto":
        try:
            return MAKERS["rapl"]()
        except (KeyError, UnavailableError):
            return CpuTimeMeter(idle_w, max_w)
    return _make(source, idle_w, max_w)


def _make(name: str, idle_w: float | None, max_w: float | None) -> Meter:
    if name == "cpu_time":
        return CpuTimeMeter(idle_w, max_w)
    if name not in MAKERS:
        known = ", ".join(("auto", "cpu_time", *MAKERS))
        raise UsageError(f"energy source {name!r}: unknown; use one of {known}")
    return MAKERS[name]()


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


def measure_idle(meter: Meter, seconds: float, *, pids: Sequence[int] = ()) -> float:
    """Average watts over ``seconds`` in which nothing is asked of the machine.

    Set the result as ``meter.idle_w``: later readings then carry ``idle_w`` and ``net_j``.

    Args:
        pids: the caller's own processes, not charged to the baseline where the source can tell.
    """
    if seconds <= 0:
        raise UsageError(f"the idle baseline needs more than 0 seconds, not {seconds:g}")
    meter.open(client_pids=pids)
    try:
        time.sleep(seconds)
    finally:
        reading = meter.close()
    return reading.server_j / reading.window_s
