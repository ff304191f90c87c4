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

    @abstractmethod
    def open(self, server_pids: Sequence[int] = (), client_pids: Sequence[int] = ()) -> None:
        """Open the window. The process ids let a source that can tell processes apart split them."""

    @abstractmethod
    def close(self) -> EnergyReading:
        """Close the window and read it."""

    def release(self) -> None:
        """Give back what the source holds (file handles, NVML)."""
