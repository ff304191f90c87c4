"""Energy of NVIDIA GPUs through NVML: the board's energy counter, else its power samples.

    counter   nvmlDeviceGetTotalEnergyConsumption, millijoules since the driver was loaded (Volta on)
    sampled   nvmlDeviceGetPowerUsage, milliwatts, integrated by the trapezoidal rule

Power samples are averages over one second on Ampere and later (GA100 excepted), so a window of
seconds blurs at both ends. Source: NVML API reference, "Device Queries". Whole boards only: in MIG
mode the counter can't tell instances apart, and the meter refuses.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Sequence
from itertools import accumulate, pairwise
from typing import Any

from tuner.errors import UnavailableError
from tuner.measurement import EnergyReading
from tuner.meter.background import Background
from tuner.meter.base import Meter, net_j
from tuner.meter.uncertainty import LOOK_S, fields, half_width_j

SAMPLE_PERIOD_S = 0.1
"""Boards refresh their power reading 10 to 50 times a second."""
COUNTER_PERIOD_S = LOOK_S
"""How often the counter is looked at: only its ends make the sum, the rest tell how it varies."""
UPDATE_S = 0.1
"""Boards refresh their energy counter 10 to 50 times a second too."""


def _import_pynvml() -> Any:
    try:
        return importlib.import_module("pynvml")
    except ImportError:
        raise UnavailableError(
            "NVML's Python binding is not installed: pip install 'tuner[gpu]' (nvidia-ml-py)"
        ) from None


class NvmlMeter(Meter):
    """All GPUs that NVML shows, or those of ``devices`` (NVML's numbers, i.e. PCI order).

    One method for all: where any of the boards lacks the energy counter, every board's power is
    sampled, and the source is called ``nvml_sampled``, so the two never meet.

    Args:
        nvml: the module ``pynvml``, by default imported.
        sampled: sample power even where there is a counter.

    Raises:
        UnavailableError: no binding, driver, GPU or permission, or a GPU in MIG mode.
    """

    def __init__(
        self,
        devices: Sequence[int] | None = None,
        *,
        nvml: Any = None,
        sampled: bool = False,
        period_s: float = SAMPLE_PERIOD_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._nvml = nvml if nvml is not None else _import_pynvml()
        self._period_s, self._clock = period_s, clock
        self._handles: dict[str, Any] = {}
        self._samples: list[tuple[float, list[float]]] = []
        self._background: Background | None = None
        self._open = False
        self._ask("be started", self._nvml.nvmlInit)
        self._started = True
        try:
            self._find(devices)
            counted = not sampled and all(map(self._has_counter, self._handles.values()))
        except BaseException:
            self.release()
            raise
        self.name, self.method = ("nvml", "counter") if counted else ("nvml_sampled", "sampled")

    def _find(self, devices: Sequence[int] | None) -> None:
        count = self._ask("count GPUs", self._nvml.nvmlDeviceGetCount)
        wanted = range(count) if devices is None else devices
        if not wanted:
            raise UnavailableError("NVML shows no GPU")
        for index in wanted:
            if not 0 <= index < count:
                raise UnavailableError(f"there is no GPU {index}; NVML shows {count}")
            handle = self._ask(f"open GPU {index}", self._nvml.nvmlDeviceGetHandleByIndex, index)
            try:
                mig = self._nvml.nvmlDeviceGetMigMode(handle)[0]
            except self._nvml.NVMLError:
                mig = 0  # a board without MIG
            if mig:
                raise UnavailableError(
                    f"GPU {index} is in MIG mode: NVML counts the board's energy, never an "
                    "instance's; use a board without MIG"
                )
            self._handles[f"gpu-{index}"] = handle

    def _has_counter(self, handle: Any) -> bool:
        try:
            self._nvml.nvmlDeviceGetTotalEnergyConsumption(handle)
        except self._nvml.NVMLError_NotSupported:
            return False
        except self._nvml.NVMLError as error:
            raise self._plain("read the energy counter", error) from None
        return True

    def _ask(self, what: str, function: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return function(*arguments)
        except self._nvml.NVMLError as error:
            raise self._plain(what, error) from None

    def _plain(self, what: str, error: Exception) -> UnavailableError:
        hints = {
            "NVMLError_LibraryNotFound": "no NVIDIA driver is installed here",
            "NVMLError_DriverNotLoaded": "the NVIDIA driver is installed but not loaded",
            "NVMLError_NoPermission": "this user may not read it; run as root, or ask for access to "
            "/dev/nvidiactl and /dev/nvidia*",
            "NVMLError_GpuIsLost": "the GPU fell off the bus",
            "NVMLError_NotSupported": "this GPU does not report it",
        }
        hint = hints.get(type(error).__name__)
        return UnavailableError(f"NVML: cannot {what}: {error}" + (f": {hint}" if hint else ""))

    def _read(self) -> list[float]:
        """Joules so far by the counter, or watts now; one entry a GPU."""
        counted = self.method == "counter"
        function = (
            self._nvml.nvmlDeviceGetTotalEnergyConsumption
            if counted
            else self._nvml.nvmlDeviceGetPowerUsage
        )
        what = "energy counter" if counted else "power"
        return [
            self._ask(f"read the {what} of {name}", function, handle) / 1000
            for name, handle in self._handles.items()
        ]

    def _sample(self) -> None:
        # The middle of the call: with several GPUs a reading takes milliseconds.
        before_s = self._clock()
        values = self._read()
        self._samples.append(((before_s + self._clock()) / 2, values))

    def describe(self) -> str:
        return f"{self.method} of {', '.join(self._handles)}"

    def open(self, server_pids: Sequence[int] = (), client_pids: Sequence[int] = ()) -> None:
        if self._open:
            raise RuntimeError(f"{self.name}: the window is open already")
        self._samples = []
        self._sample()
        self._open = True
        period_s = self._period_s if self.method == "sampled" else COUNTER_PERIOD_S
        self._background = Background(self._sample, period_s)

    def close(self) -> EnergyReading:
        if not self._open:
            raise RuntimeError(f"{self.name}: no window is open")
        self._open = False
        background, self._background = self._background, None
        if background is not None:
            background.stop()
        self._sample()
        times_s = [when_s for when_s, _ in self._samples]
        window_s = times_s[-1] - times_s[0]
        joules = {name: self._joules(place) for place, name in enumerate(self._handles)}
        gross_j = sum(joules.values())
        net = net_j(gross_j, self.idle_w, window_s)
        still = [name for name, drawn_j in joules.items() if drawn_j == 0]
        resolution_j = gross_j / window_s * UPDATE_S if window_s else None
        half_j = half_width_j(times_s, self._cumulative_j(), resolution_j or 0.0)
        details: dict[str, Any] = {"domain_j": joules, "client_j_from": "the client uses no GPU"}
        if self.method == "sampled":
            details["sample_period_s"] = self._period_s
        return EnergyReading(
            source=self.name,
            method=self.method,
            domains=tuple(self._handles),
            window_s=window_s,
            gross_j=gross_j,
            client_j=0.0,
            idle_w=self.idle_w,
            net_j=net,
            samples=len(self._samples),
            details=details,
            invalid=f"{', '.join(still)}: no energy in {window_s:.3g} s" if still else None,
            invalid_reason="energy_still" if still else None,
            **fields(gross_j, net, half_j, resolution_j, window_s, self.idle_interval_w),
        )

    def _cumulative_j(self) -> list[float]:
        """Joules of all boards since the window opened, at each look."""
        totals = [sum(values) for _, values in self._samples]
        if self.method == "counter":
            return [total - totals[0] for total in totals]
        steps = (
            (later[0] - earlier[0]) * (after + before) / 2
            for (earlier, before), (later, after) in pairwise(zip(self._samples, totals))
        )
        return list(accumulate(steps, initial=0.0))

    def _joules(self, place: int) -> float:
        name = list(self._handles)[place]
        if self.method == "counter":
            for (_, before), (_, after) in pairwise(self._samples):
                if after[place] < before[place]:
                    raise UnavailableError(
                        f"{name}: the energy counter went back by {before[place] - after[place]:g} "
                        "J; was the driver reloaded?"
                    )
            return self._samples[-1][1][place] - self._samples[0][1][place]
        if (least_w := min(values[place] for _, values in self._samples)) < 0:
            raise UnavailableError(f"{name}: reports {least_w:g} W, less than nothing")
        return sum(
            (later[1][place] + earlier[1][place]) / 2 * (later[0] - earlier[0])
            for earlier, later in pairwise(self._samples)
        )

    def release(self) -> None:
        background, self._background = self._background, None
        self._open = False
        if background is not None:
            background.cancel()
        if self._started:
            self._started = False
            self._ask("be stopped", self._nvml.nvmlShutdown)
