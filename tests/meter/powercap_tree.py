"""A powercap tree like the kernel's, in files, with a process that makes its counters run."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

WRITER = """
import os, sys, time
period_s, steps = float(sys.argv[1]), int(sys.argv[2])
zones = []
for spec in sys.argv[3:]:
    path, step_uj, range_uj = spec.rsplit(",", 2)
    file = os.open(path, os.O_RDWR)
    zones.append([file, int(os.pread(file, 32, 0)), int(step_uj), int(range_uj)])
while steps:
    steps -= 1
    time.sleep(period_s)
    for zone in zones:
        zone[1] = (zone[1] + zone[2]) % zone[3]
        # In place and of fixed width, for readers that keep the file open.
        os.pwrite(zone[0], b"%020d\\n" % zone[1], 0)
"""


class PowercapTree:
    """``/sys/class/powercap`` or a stand-in for it.

    Args:
        folder: where ``powercap`` lies.
        sockets: how many packages.
        inside: zones nested in each package.
        psys: add a platform zone.
        range_j: where counters start again; ``start_j``: where they stand.
    """

    def __init__(
        self,
        folder: Path,
        *,
        sockets: int = 1,
        inside: Sequence[str] = ("core", "uncore", "dram"),
        psys: bool = False,
        range_j: float = 262_143.328850,
        start_j: float = 100.0,
        packages: Sequence[str] | None = None,
    ) -> None:
        self.root = folder / "intel-rapl"
        self.range_j, self.zones = range_j, {}
        names = list(packages or [f"package-{socket}" for socket in range(sockets)])
        for number, name in enumerate([*names, *(["psys"] if psys else [])]):
            zone = self.root / f"intel-rapl:{number}"
            self._make(zone, name, name, start_j)
            for place, part in enumerate(inside if name != "psys" else ()):
                self._make(zone / f"{zone.name}:{place}", part, f"{name}/{part}", start_j)

    def _make(self, zone: Path, name: str, key: str, start_j: float) -> None:
        zone.mkdir(parents=True)
        (zone / "name").write_text(f"{name}\n")
        (zone / "max_energy_range_uj").write_text(f"{round(self.range_j * 1e6)}\n")
        (zone / "energy_uj").write_text(f"{round(start_j * 1e6):020d}\n")
        self.zones[key] = zone

    def take_away(self, key: str) -> None:
        shutil.rmtree(self.zones[key])

    def set(self, key: str, joules: float) -> None:
        file = os.open(self.zones[key] / "energy_uj", os.O_WRONLY)
        os.pwrite(file, b"%020d\n" % round(joules * 1e6), 0)
        os.close(file)

    @contextmanager
    def running(self, watts: Mapping[str, float], *, period_s: float = 0.004, steps: int = -1):
        """A process advances the counters by ``watts x period_s`` every ``period_s`` or later.

        With ``steps`` it ends after so many, which moves each counter by an exact amount, however
        busy the machine is; without, it runs until the block ends.
        """
        specs = [
            f"{self.zones[key] / 'energy_uj'},{round(w * period_s * 1e6)},{round(self.range_j * 1e6)}"
            for key, w in watts.items()
        ]
        writer = subprocess.Popen([sys.executable, "-c", WRITER, str(period_s), str(steps), *specs])
        try:
            yield writer
        finally:
            if steps < 0:
                writer.kill()
            writer.wait()


def mount_over(folder: str) -> Path:
    """An empty file system over ``folder``; only ever inside a private mount namespace."""
    assert os.environ.get("TUNER_TESTS_INSIDE_NAMESPACE"), "would change the machine's own /sys"
    subprocess.run(["mount", "-t", "tmpfs", "none", folder], check=True)
    return Path(folder)


def mounted_tree(**layout) -> PowercapTree:
    """A tree at the very place where the kernel has it."""
    return PowercapTree(mount_over("/sys/class") / "powercap", **layout)


def mount_topology(sockets: Sequence[int]) -> None:
    """Processors as sysfs tells them: the socket of each."""
    cpu = mount_over("/sys/devices/system/cpu")
    for name in ("present", "online", "possible"):
        (cpu / name).write_text(f"0-{len(sockets) - 1}\n" if len(sockets) > 1 else "0\n")
    for number, socket in enumerate(sockets):
        (cpu / f"cpu{number}" / "topology").mkdir(parents=True)
        (cpu / f"cpu{number}" / "topology" / "physical_package_id").write_text(f"{socket}\n")
