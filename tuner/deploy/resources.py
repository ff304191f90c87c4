"""What the machine gives a server: CPUs by affinity, CPU time and memory by cgroup, the clock."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

from tuner.deploy import cgroups, cpufreq
from tuner.deploy.watchdog import Watchdog
from tuner.errors import UnavailableError
from tuner.measurement import Configuration

MIB = 1 << 20


@dataclass(frozen=True)
class Limits:
    """Limits in force for one server process."""

    affinity: tuple[int, ...] | None = None
    group: cgroups.Cgroup | None = None
    clock: Mapping[str, str] = field(default_factory=dict)
    memory_limit_mb: int | None = None

    @property
    def cgroup_procs(self) -> tuple[str, ...]:
        return self.group.procs_files if self.group else ()

    @property
    def out_of_memory(self) -> bool:
        """Whether the kernel killed the server because it outgrew its limit."""
        return self.group is not None and self.group.out_of_memory_kills() > 0

    def describe(self) -> dict[str, Any]:
        """What is stored with the trial."""
        return {
            "affinity": list(self.affinity) if self.affinity else None,
            "cgroup": self.group.describe() if self.group else {},
            "clock_khz": dict(self.clock),
        }


def server_cpus(
    configuration: Configuration, server_cores: tuple[int, ...] | None = None
) -> tuple[int, ...]:
    """The CPUs that the server may use: the first ``cpus`` of those the study itself may use.

    The rest is free for the load generator. Where the configuration does not name ``cpus``, they
    are ``server_cores``; a larger number asked for by name takes the load generator's as well.

    Raises:
        UnavailableError: more CPUs asked for than there are.
    """
    own = tuple(sorted(os.sched_getaffinity(0)))
    if "cpus" not in configuration:
        return own if server_cores is None else server_cores
    wanted = int(configuration["cpus"])
    if wanted > len(own):
        raise UnavailableError(f"cpus: {wanted} asked for, this process may use {len(own)}")
    return own[:wanted]


def pinned_cpus(
    configuration: Configuration, server_cores: tuple[int, ...] | None = None
) -> tuple[int, ...] | None:
    """The CPUs that the server is to be pinned to, ``None`` where it may use all."""
    found = server_cpus(configuration, server_cores)
    return found if "cpus" in configuration or set(found) != os.sched_getaffinity(0) else None


@contextmanager
def limits(
    configuration: Configuration,
    watchdog: Watchdog,
    server_cores: tuple[int, ...] | None = None,
) -> Iterator[Limits]:
    """Set up the limits that a configuration names; all is undone at the end.

    Args:
        server_cores: see ``server_cpus``.

    Raises:
        UnavailableError: this machine cannot do it, and why.
    """
    with ExitStack() as stack:
        clock = stack.enter_context(frequency(configuration, watchdog))
        controllers = [
            controller
            for controller, knob in (("cpu", "cpu_quota"), ("memory", "memory_limit_mb"))
            if knob in configuration
        ]
        group = None
        if controllers:
            group = cgroups.create(*controllers)
            undos = [{"cgroup": str(folder)} for folder in group.folders]
            stack.enter_context(watchdog.undoing(*undos))
            stack.callback(group.remove)
            if "cpu_quota" in configuration:
                group.limit_cpu(float(configuration["cpu_quota"]))
            if "memory_limit_mb" in configuration:
                group.limit_memory(int(configuration["memory_limit_mb"]) * MIB)
        yield Limits(
            affinity=pinned_cpus(configuration, server_cores),
            group=group,
            clock=clock,
            memory_limit_mb=configuration.get("memory_limit_mb"),  # type: ignore[arg-type]
        )


@contextmanager
def frequency(configuration: Configuration, watchdog: Watchdog) -> Iterator[Mapping[str, str]]:
    """Pin the clock if the configuration names one; it is the whole machine's."""
    if "cpu_frequency_mhz" not in configuration:
        yield {}
        return
    with cpufreq.clock(int(configuration["cpu_frequency_mhz"]), watchdog) as seen:
        yield seen
