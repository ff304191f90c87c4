"""Control groups, version 1 and 2: a CPU quota and a memory limit for one server.

Kernel documentation: ``admin-guide/cgroup-v1/memory.rst``, ``scheduler/sched-bwc.rst`` and
``admin-guide/cgroup-v2.rst``.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tuner.deploy import proc
from tuner.deploy.watchdog import empty_and_remove
from tuner.errors import UnavailableError

PERIOD_US = 100_000
"""Length of the bandwidth period, the kernel's default."""
CONTROLLERS = ("cpu", "memory")
_serial = itertools.count(1)


@dataclass(frozen=True)
class Hierarchy:
    """Where one controller is mounted and where this process stands in it."""

    controller: str
    version: int
    mount: Path
    own: Path

    def places(self) -> Iterator[Path]:
        """Folders in which a group may be made, the nearest first, so outer limits still hold."""
        place = self.own if self.own.is_dir() else self.mount
        yield place
        while place != self.mount:
            place = place.parent
            yield place


def hierarchies(proc_self: Path = Path("/proc/self")) -> dict[str, Hierarchy]:
    """Controller -> hierarchy, for ``cpu`` and ``memory`` where they are mounted."""
    paths: dict[str, str] = {}
    for line in (proc_self / "cgroup").read_text().splitlines():
        _, names, path = line.split(":", 2)
        for name in names.split(",") if names else ["v2"]:
            paths[name] = path
    found: dict[str, Hierarchy] = {}
    for line in (proc_self / "mounts").read_text().splitlines():
        _, mount_text, kind, options, *_ = line.split(" ")
        mount = Path(mount_text.replace("\\040", " "))
        for controller in CONTROLLERS:
            if kind == "cgroup" and controller in options.split(","):
                own = mount / paths.get(controller, "/").lstrip("/")
                found[controller] = Hierarchy(controller, 1, mount, own)
            elif kind == "cgroup2" and controller in _words(mount / "cgroup.controllers"):
                own = mount / paths.get("v2", "/").lstrip("/")
                found.setdefault(controller, Hierarchy(controller, 2, mount, own))
    return found


class Cgroup:
    """The groups of one server: one folder (version 2), or one per controller (version 1)."""

    def __init__(self, folders: dict[str, tuple[int, Path]]) -> None:
        self._folders = folders
        self._written: dict[str, str] = {}

    @property
    def folders(self) -> tuple[Path, ...]:
        return tuple(dict.fromkeys(folder for _, folder in self._folders.values()))

    @property
    def procs_files(self) -> tuple[str, ...]:
        """Files that a process writes its id into to join."""
        return tuple(str(folder / "cgroup.procs") for folder in self.folders)

    def limit_cpu(self, cores: float) -> None:
        """At most ``cores`` seconds of CPU time per second."""
        version, folder = self._folders["cpu"]
        quota = round(cores * PERIOD_US)
        if version == 1:
            self._write(folder / "cpu.cfs_period_us", str(PERIOD_US))
            self._write(folder / "cpu.cfs_quota_us", str(quota))
        else:
            self._write(folder / "cpu.max", f"{quota} {PERIOD_US}")

    def limit_memory(self, size_bytes: int) -> None:
        """At most ``size_bytes`` of memory, none of it swapped out."""
        version, folder = self._folders["memory"]
        if version == 1:
            self._write(folder / "memory.limit_in_bytes", str(size_bytes))
            # Memory with swap; must not be below the limit above, and may not be compiled in.
            if (folder / "memory.memsw.limit_in_bytes").exists():
                self._write(folder / "memory.memsw.limit_in_bytes", str(size_bytes))
        else:
            self._write(folder / "memory.max", str(size_bytes))
            if (folder / "memory.swap.max").exists():
                self._write(folder / "memory.swap.max", "0")

    def out_of_memory_kills(self) -> int:
        """How many processes the kernel killed because the limit was reached."""
        if "memory" not in self._folders:
            return 0
        version, folder = self._folders["memory"]
        try:
            text = (
                folder / ("memory.oom_control" if version == 1 else "memory.events")
            ).read_text()
        except OSError:
            return 0
        counts = dict(line.split(" ", 1) for line in text.splitlines() if " " in line)
        return int(counts.get("oom_kill", 0))

    def describe(self) -> dict[str, str]:
        """File -> value, as written."""
        return dict(self._written)

    def remove(self) -> None:
        for folder in self.folders:
            empty_and_remove(folder)

    def _write(self, path: Path, text: str) -> None:
        path.write_text(text)
        self._written[str(path)] = text


def create(*controllers: str, found: dict[str, Hierarchy] | None = None) -> Cgroup:
    """Make groups that limit the given controllers (``cpu``, ``memory``).

    Raises:
        UnavailableError: no hierarchy, or no right to make a group in it.
    """
    found = hierarchies() if found is None else found
    name = f"tuner-{_namespace()}-{os.getpid()}-{proc.start_time(os.getpid())}-{next(_serial)}"
    folders: dict[str, tuple[int, Path]] = {}
    shared: Path | None = None
    try:
        for controller in controllers:
            if controller not in found:
                raise UnavailableError(f"no {controller} cgroup is mounted here")
            hierarchy = found[controller]
            if hierarchy.version == 1:
                folders[controller] = 1, _make(hierarchy, name, (controller,))
            else:
                shared = shared or _make(hierarchy, name, controllers)
                folders[controller] = 2, shared
    except UnavailableError:
        Cgroup(folders).remove()
        raise
    return Cgroup(folders)


def _make(hierarchy: Hierarchy, name: str, controllers: tuple[str, ...]) -> Path:
    reason = "not mounted"
    for place in hierarchy.places():
        folder = place / name
        try:
            if hierarchy.version == 2:
                missing = set(controllers) - set(_words(place / "cgroup.subtree_control"))
                if missing:
                    (place / "cgroup.subtree_control").write_text(
                        " ".join(f"+{controller}" for controller in sorted(missing))
                    )
            folder.mkdir()
        except OSError as error:
            reason = f"{place}: {error.strerror}"
            continue
        return folder
    raise UnavailableError(
        f"no right to make a {hierarchy.controller} cgroup ({reason}): run as root, or delegate "
        "one to this user (systemd-run --user --scope -p Delegate=yes)"
    )


def why_not(controller: str) -> str | None:
    """Why this machine cannot limit ``controller``; ``None`` when it can (it is tried)."""
    try:
        create(controller).remove()
    except (UnavailableError, OSError) as error:
        return str(error)
    return None


def reap(found: dict[str, Hierarchy] | None = None) -> list[Path]:
    """Remove the groups of killed studies, and what still runs in them; returns what was removed."""
    removed = []
    for hierarchy in (hierarchies() if found is None else found).values():
        for place in hierarchy.places():
            for folder in place.glob(f"tuner-{_namespace()}-*"):
                _, _, pid, started, _ = folder.name.split("-")
                if not proc.runs(int(pid), int(started)):
                    empty_and_remove(folder)
                    removed.append(folder)
    return removed


def _namespace() -> int:
    """Which process id space our ids belong to: a container sharing the cgroups has another."""
    return os.stat("/proc/self/ns/pid").st_ino


def _words(path: Path) -> list[str]:
    try:
        return path.read_text().split()
    except OSError:
        return []
