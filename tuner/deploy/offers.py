"""What this machine offers to the knobs, and why not where it does not."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping
from dataclasses import dataclass

from tuner.deploy import allocators, binary, cgroups, cpufreq
from tuner.errors import UnavailableError, UsageError
from tuner.measurement import Scalar


@dataclass(frozen=True)
class Offers:
    """Each text says why not; ``None`` = it is there."""

    cpus: int
    memory_mb: int
    cpu_quota: str | None
    memory_limit: str | None
    cpufreq: str | None
    frequency_mhz: tuple[float, float] | None
    allocators: Mapping[str, str | None]

    def refusal(self, knob: str, value: Scalar, deployer: str) -> str | None:
        """Why this machine cannot turn ``knob`` to ``value``, and what comes nearest."""
        container = deployer == "docker"
        if knob == "cpus" and value > self.cpus:  # type: ignore[operator]
            return f"this process may use {self.cpus} CPUs; ask for at most {self.cpus}"
        if knob == "cpu_quota":
            if value > self.cpus:  # type: ignore[operator]
                return f"this process may use {self.cpus} CPUs; ask for at most {self.cpus}"
            if self.cpu_quota and not container:
                return f"{self.cpu_quota}; nearest alternative: cpus"
        if knob == "memory_limit_mb":
            if value > self.memory_mb:  # type: ignore[operator]
                return f"this machine has {self.memory_mb} MiB; ask for less"
            if self.memory_limit and not container:
                return f"{self.memory_limit}; nearest alternative: --deployer docker"
        if knob == "cpu_frequency_mhz":
            if self.cpufreq:
                return f"{self.cpufreq}; nearest alternative: cpu_quota"
            low, high = self.frequency_mhz or (0.0, 0.0)
            if not low <= value <= high:  # type: ignore[operator]
                return f"the hardware runs at {low:g} to {high:g} MHz"
        if knob == "allocator" and self.allocators.get(str(value)):
            return self.allocators[str(value)]
        return None


def inspect() -> Offers:
    """Look at this machine; cgroups are tried, everything else is read."""
    clock = cpufreq.hardware_range()
    return Offers(
        cpus=len(os.sched_getaffinity(0)),
        memory_mb=os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") >> 20,
        cpu_quota=cgroups.why_not("cpu"),
        memory_limit=cgroups.why_not("memory"),
        cpufreq=cpufreq.why_not(),
        frequency_mhz=(clock.low_mhz, clock.high_mhz) if clock else None,
        allocators={"system": None, **{name: _no_allocator(name) for name in allocators.SONAMES}},
    )


def deployers() -> dict[str, str | None]:
    """Deployer -> why it cannot be used here, ``None`` when it can."""
    return {
        "embedded": _no_embedded(),
        "binary": _failure(binary.find),
        "docker": _no_docker(),
    }


def _no_allocator(name: str) -> str | None:
    return _failure(lambda: allocators.preload(name))


def _no_embedded() -> str | None:
    if importlib.util.find_spec("tensorflow") is None:
        return "the tensorflow package is not installed: pip install tensorflow"
    return None


def _no_docker() -> str | None:
    from tuner.deploy import docker

    return _failure(lambda: docker.engine().close())


def _failure(attempt: object) -> str | None:
    try:
        attempt()  # type: ignore[operator]
    except (UnavailableError, UsageError) as error:
        return str(error)
    return None
