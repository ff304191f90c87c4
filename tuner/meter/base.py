"""The seam of metering: a window that opens, closes and gives its energy."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from tuner.measurement import EnergyReading


class Meter(ABC):
    """One source of energy. Used as: ``open`` … work … ``close``; a meter is used again and again."""

    name: str
    """Kept in every record: ``rapl``, ``pyrapl``, ``nvml``, ``cpu_time``."""
    method: str
    """``counter``, ``sampled`` or ``estimate``."""
    idle_w: float | None = None
    """Idle baseline (watts), measured once before a study with ``tuner.meter.measure_idle`` and set
    here; every later reading then carries ``idle_w`` and ``net_j``."""
    idle_interval_w: tuple[float, float] | None = None
    """95 % confidence interval of ``idle_w``; ``None`` = unknown."""
    known_idle_w: float | None = None
    """The idle baseline where it is a constant of the source's model, and so is never measured."""

    @abstractmethod
    def open(self, server_pids: Sequence[int] = (), client_pids: Sequence[int] = ()) -> None:
        """Open the window. The process ids let a source that can tell processes apart split them.

        Raises:
            RuntimeError: the window is open already.
            UnavailableError: the source cannot be read (any more).
        """

    @abstractmethod
    def close(self) -> EnergyReading:
        """Close the window and read it. Whatever happens, the window is closed afterwards.

        Raises:
            RuntimeError: no window is open.
            UnavailableError: the source vanished inside the window, or counted less than nothing;
                there is no number.
        """

    def describe(self) -> str:
        """One line on what the source covers on this machine, for ``tuner doctor``."""
        return self.method

    def release(self) -> None:
        """Give back what the source holds (file handles, NVML)."""


def net_j(server_j: float, idle_w: float | None, window_s: float) -> float | None:
    """What serving is charged with less the idle baseline (joules); ``None`` without a baseline.

    A quiet window may end slightly below zero: that is the baseline's own error, and it is kept
    here; as a result only ``EnergyReading.resolved_net_j`` counts.
    """
    if idle_w is None:
        return None
    return server_j - idle_w * window_s
