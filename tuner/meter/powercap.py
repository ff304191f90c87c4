"""RAPL domains in Linux's powercap tree: which to add up, and reading them.

``/sys/class/powercap/intel-rapl`` (AMD's processors too) holds a zone per package, with zones nested
inside, and maybe one for the platform:

    intel-rapl:0        package-0    counted
    intel-rapl:0:0      core         inside the package: not counted again
    intel-rapl:0:1      uncore       inside the package: not counted again
    intel-rapl:0:2      dram         beside the package's counter: counted
    intel-rapl:1        psys         the whole platform, packages included: not counted

A zone that cannot be read does not take the others away: it is named as missing. Zones of one name are
all counted, the later ones under their name and place (``package-0@intel-rapl:1``); whether one shows
the counter of the other is for ``mirrors`` to find.

``intel-rapl-mmio`` shows the same package through another register and is left alone. Sources:
Linux Documentation/power/powercap/powercap.rst and drivers/powercap/intel_rapl_common.c; Intel
Software Developer's Manual, volume 3B, "RAPL Domains".
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tuner.errors import UnavailableError
from tuner.meter.counters import Counter

POWERCAP = Path("/sys/class/powercap")
HOW_TO_PERMIT = (
    "the counters are readable by root only since CVE-2020-8694; allow it until the next boot with "
    "`sudo chmod -R a+r /sys/class/powercap/intel-rapl` (docs/energy.md has a lasting way), "
    "or use the estimate: energy source cpu_time"
)


@dataclass(frozen=True)
class Zone:
    """One domain that is counted."""

    name: str
    """``package-0``, ``dram-0``; with the die where a package has several. No two are the same."""
    folder: Path
    range_j: float


def _text(file: Path) -> str:
    """What a file of sysfs holds; bytes that are not UTF-8 as ``\\xff``."""
    return file.read_bytes().decode("utf-8", "backslashreplace").strip()


def read_number(file: Path) -> int:
    """The whole number in a file of sysfs.

    Raises:
        UnavailableError: it is gone, forbidden, or holds something else.
    """
    try:
        text = _text(file)
    except PermissionError:
        raise UnavailableError(f"{file}: permission denied; {HOW_TO_PERMIT}") from None
    except OSError as error:  # gone: ENOENT, or ENODEV once its driver has left
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise UnavailableError(f"{file}: cannot be read: {reason}") from None
    try:
        return int(text)
    except ValueError:
        raise UnavailableError(f"{file}: holds {text!r}, not a number") from None


def _subzones(folder: Path, prefix: str) -> Iterator[tuple[Path, str, str | None]]:
    """Zones directly inside ``folder`` whose names start with ``prefix:``: what each covers, and in
    words why it does not tell, else ``None``.
    """
    found = [p for p in folder.glob(f"{prefix}:*") if p.name[len(prefix) + 1 :].isdigit()]
    for zone in sorted(found, key=lambda p: int(p.name.rsplit(":", 1)[1])):
        try:
            name = _text(zone / "name")
        except OSError:
            yield zone, "", f"{zone}/name: cannot be read"
        else:
            odd = not name.isascii() or not name.isprintable() or "\\" in name
            yield zone, name, f"{zone}/name: holds {name!r}, not a name" if odd else None


def find_zones(powercap: Path = POWERCAP) -> tuple[tuple[Zone, ...], dict[str, str]]:
    """The domains to add up, every package and the memory beside it; and those missing, with why.

    Raises:
        UnavailableError: there is no package, or none may be read; the message says what to do.
    """
    root = powercap / "intel-rapl"
    if not root.is_dir():
        raise UnavailableError(
            f"no RAPL: {root} does not exist (a virtual machine or container without access, a "
            "processor without RAPL, or the kernel module intel_rapl_msr is not loaded); the "
            "nearest is the estimate: energy source cpu_time"
        )
    zones: list[Zone] = []
    missing: dict[str, str] = {}
    taken: set[str] = set()
    for package, covers, odd in _subzones(root, "intel-rapl"):
        if odd and not covers.startswith("package-"):
            missing[package.name] = odd
            continue
        if not covers.startswith("package-"):
            continue
        parts = [(package, covers)]
        for child, inside, why in _subzones(package, package.name):
            if inside == "dram":
                parts.append((child, f"dram-{covers.removeprefix('package-')}"))
            elif why:
                missing[child.name] = why
        for folder, name in parts:
            unique = f"{name}@{folder.name}" if name in taken else name
            taken.add(unique)
            try:
                zones.append(_zone(folder, unique))
            except UnavailableError as error:
                missing[unique] = str(error)
    if not any(zone.name.startswith("package-") for zone in zones):
        raise UnavailableError(
            next((why for name, why in missing.items() if name.startswith("package-")), None)
            or f"no RAPL: {root} holds no package domain"
        )
    return tuple(zones), missing


def _zone(folder: Path, name: str) -> Zone:
    range_uj = read_number(folder / "max_energy_range_uj")
    if range_uj <= 0:
        raise UnavailableError(f"{folder}/max_energy_range_uj: {range_uj} is no range")
    if (now_uj := read_number(folder / "energy_uj")) < 0:
        raise UnavailableError(f"{folder}/energy_uj: {now_uj} is no energy")
    return Zone(name, folder, range_uj / 1e6)


class PowercapCounter(Counter):
    """One domain, opened anew for each look: an open file would hide that its zone has gone."""

    def __init__(self, zone: Zone) -> None:
        self.name, self.range_j = zone.name, zone.range_j
        self._file = zone.folder / "energy_uj"

    def read_j(self) -> float:
        return read_number(self._file) / 1e6
