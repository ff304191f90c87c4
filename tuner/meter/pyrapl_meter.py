"""RAPL counters read through pyRAPL, with what pyRAPL 0.2.3 leaves out added around it.

pyRAPL opens the right files (packages and memory by socket) and reads them. It knows nothing of the
counters' range: after a wrap-around its own ``Measurement`` gives a negative energy, or none on a
machine with one socket, and it loses whole rounds when a window outlasts them. So only its ``Sensor`` is used, looked at as often as the
direct reader is, with the range taken from powercap. Further limits of pyRAPL, each an
UnavailableError here that names ``rapl`` as the way out: packages of several dies, CPUs that are
offline, sockets of which some have no RAPL zone. It keeps its files open, so each look also checks
that the zones are still there.
"""

from __future__ import annotations

import importlib
from typing import Any

from tuner.errors import UnavailableError
from tuner.meter.counter_meter import CounterMeter
from tuner.meter.counters import Counter
from tuner.meter.powercap import HOW_TO_PERMIT, Zone, find_zones, read_number

INSTEAD = "use the direct reader: energy source rapl"


class PyRaplMeter(CounterMeter):
    """Hardware counters of packages and memory, read by pyRAPL.

    Raises:
        UnavailableError: pyRAPL is not installed or cannot work on this machine; says why.
    """

    name = "pyrapl"

    def __init__(self) -> None:
        found, missing = find_zones()
        zones = {zone.name: zone for zone in found}
        try:
            pyrapl: Any = importlib.import_module("pyRAPL")
        except ImportError as error:
            raise UnavailableError(
                f"pyRAPL cannot be imported ({error}); install the extra: pip install 'tuner[rapl]', "
                f"or {INSTEAD}"
            ) from None
        try:
            sensor = pyrapl.Sensor()
            readings = sensor.energy()
        except PermissionError as error:
            raise UnavailableError(
                f"{error.filename}: permission denied; {HOW_TO_PERMIT}"
            ) from None
        except (pyrapl.PyRAPLException, OSError, ValueError, IndexError) as error:
            reason = f"{type(error).__name__} {error}".strip()
            raise UnavailableError(
                f"pyRAPL cannot read this machine ({reason}); {INSTEAD}"
            ) from None
        counters: list[Counter] = []
        # Sensor.energy(): package of socket 0, memory of socket 0, package of socket 1, …; -1: none.
        for index, value in enumerate(readings):
            if value >= 0:
                name = f"{('package', 'dram')[index % 2]}-{index // 2}"
                if name in missing:
                    continue
                if name not in zones:
                    raise UnavailableError(f"pyRAPL reads {name}, which powercap lacks; {INSTEAD}")
                counters.append(PyRaplCounter(sensor, index, zones[name]))
        unread = set(zones) - {counter.name for counter in counters}
        if unread:
            raise UnavailableError(f"pyRAPL does not read {', '.join(sorted(unread))}; {INSTEAD}")
        super().__init__(counters, missing)


class PyRaplCounter(Counter):
    """One place in the list that pyRAPL's sensor gives."""

    def __init__(self, sensor: Any, index: int, zone: Zone) -> None:
        self.name, self.range_j = zone.name, zone.range_j
        self._sensor, self._index, self._folder = sensor, index, zone.folder

    def read_j(self) -> float:
        read_number(self._folder / "max_energy_range_uj")
        try:
            return float(self._sensor.energy()[self._index]) / 1e6
        except (OSError, ValueError) as error:
            raise UnavailableError(
                f"{self.name}: pyRAPL cannot read it any more: {error}"
            ) from None
