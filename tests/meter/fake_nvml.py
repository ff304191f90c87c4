"""The functions of ``pynvml`` that the meter uses, scripted."""

from __future__ import annotations

import time
from collections.abc import Sequence


class FakeNvml:
    """GPUs of constant watts; ``counter``: whether they have an energy counter."""

    class NVMLError(Exception):
        pass

    class NVMLError_NotSupported(NVMLError):
        pass

    class NVMLError_NoPermission(NVMLError):
        pass

    class NVMLError_LibraryNotFound(NVMLError):
        pass

    class NVMLError_GpuIsLost(NVMLError):
        pass

    def __init__(
        self, watts: Sequence[float] = (100.0,), *, counter=True, mig=(), clock=time.monotonic
    ):
        self.watts, self.counter, self.mig, self.clock = list(watts), counter, mig, clock
        self.fails: dict[str, Exception] = {}
        self.started = 0
        self.restarted_at_s = 0.0

    def _may_fail(self, name: str) -> None:
        if name in self.fails:
            raise self.fails[name]

    def nvmlInit(self):
        self._may_fail("nvmlInit")
        self.started += 1

    def nvmlShutdown(self):
        self.started -= 1

    def nvmlDeviceGetCount(self):
        return len(self.watts)

    def nvmlDeviceGetHandleByIndex(self, index):
        self._may_fail("nvmlDeviceGetHandleByIndex")
        return index

    def nvmlDeviceGetMigMode(self, handle):
        if not self.mig:
            raise self.NVMLError_NotSupported("Not Supported")
        return [int(handle in self.mig)] * 2

    def nvmlDeviceGetTotalEnergyConsumption(self, handle):
        self._may_fail("nvmlDeviceGetTotalEnergyConsumption")
        if not self.counter:
            raise self.NVMLError_NotSupported("Not Supported")
        return int(self.watts[handle] * (self.clock() - self.restarted_at_s) * 1000)

    def nvmlDeviceGetPowerUsage(self, handle):
        self._may_fail("nvmlDeviceGetPowerUsage")
        return int(self.watts[handle] * 1000)
