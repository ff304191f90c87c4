"""Energy sources behind one seam: a window that opens, closes and gives its energy.

meter = choose()  # or choose("rapl"), choose("rapl+nvml")
meter.idle_w = measure_idle(meter, 5)  # once, before a study
meter.open(server_pids, client_pids)
...
reading = meter.close()
"""

from __future__ import annotations

from tuner.measurement import why_not_comparable
from tuner.meter.base import Meter
from tuner.meter.composite import CompositeMeter
from tuner.meter.cpu_time import CpuTimeMeter
from tuner.meter.fake import FakeMeter
from tuner.meter.nvml import NvmlMeter
from tuner.meter.pyrapl_meter import PyRaplMeter
from tuner.meter.rapl import RaplMeter
from tuner.meter.sources import IDLE_WAIT_S, choose, measure_idle, sources

__all__ = [
    "IDLE_WAIT_S",
    "CompositeMeter",
    "CpuTimeMeter",
    "FakeMeter",
    "Meter",
    "NvmlMeter",
    "PyRaplMeter",
    "RaplMeter",
    "choose",
    "measure_idle",
    "sources",
    "why_not_comparable",
]
