"""Which energy sources this machine has, which one to use, and its idle baseline."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from tuner.errors import UnavailableError, UsageError
from tuner.meter.base import Meter
from tuner.meter.composite import CompositeMeter
from tuner.meter.cpu_time import CpuTimeMeter
from tuner.meter.nvml import NvmlMeter
from tuner.meter.pyrapl_meter import PyRaplMeter
from tuner.meter.rapl import RaplMeter
from tuner.meter.uncertainty import mean_interval

IDLE_WINDOW_S = 0.5
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


def measure_idle(meter: Meter, seconds: float, *, pids: Sequence[int] = ()) -> float:
    """Average watts over ``seconds`` in which nothing is asked of the machine.

    Set the result as ``meter.idle_w``: later readings then carry ``idle_w`` and ``net_j``. The time
    is measured in windows of at least half a second; with four or more of them the baseline's
    interval is known too and set as ``meter.idle_interval_w``.

    Args:
        pids: the caller's own processes, not charged to the baseline where the source can tell.

    Raises:
        UnavailableError: the source was read, but what it says is no result.
    """
    if seconds <= 0:
        raise UsageError(f"the idle baseline needs more than 0 seconds, not {seconds:g}")
    windows = max(1, int(seconds / IDLE_WINDOW_S))
    readings = []
    for _ in range(windows):
        meter.open(client_pids=pids)
        try:
            time.sleep(seconds / windows)
        finally:
            readings.append(meter.close())
    for reading in readings:
        if reading.why_no_result:
            raise UnavailableError(f"no idle baseline: {reading.why_no_result[1]}")
    meter.idle_interval_w = mean_interval([r.server_j / r.window_s for r in readings])
    return sum(r.server_j for r in readings) / sum(r.window_s for r in readings)
