"""RAPL counters read from powercap directly: packages and memory of every socket."""

from __future__ import annotations

from pathlib import Path

from tuner.meter.counter_meter import CounterMeter
from tuner.meter.powercap import POWERCAP, PowercapCounter, find_zones


class RaplMeter(CounterMeter):
    """Hardware counters of the processor packages and, where there is one, of their memory.

    Raises:
        UnavailableError: this machine has none, or they may not be read.
    """

    name = "rapl"

    def __init__(self, powercap: Path = POWERCAP) -> None:
        zones, missing = find_zones(powercap)
        super().__init__([PowercapCounter(zone) for zone in zones], missing)
