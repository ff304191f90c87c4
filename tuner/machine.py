"""What machine this is and how busy it is: facts that explain a measurement and travel with it."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from pathlib import Path
from typing import Any

PACKAGES = ("tuner", "optuna", "tensorflow", "tensorflow-serving-api", "grpcio", "numpy",
            "scikit-learn", "keras")


def describe() -> dict[str, Any]:
    """CPU model, cores this process may use, memory (MiB), kernel. Equal on every run of a machine."""
    return {
        "cpu_model": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_mib": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20,
        "architecture": platform.machine(),
        "kernel": platform.release(),
    }


def identity(machine: dict[str, Any]) -> str:
    """What must be equal for two machines to count as the same hardware, on one line."""
    gib = round(machine["memory_mib"] / 1024)
    return f"{machine['cpu_model']}, {machine['cores']} cores, {gib} GiB"


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that a number may depend on."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def load() -> dict[str, float]:
    """One-minute load average, and the share of CPU time stolen by the hypervisor since boot."""
    with open("/proc/stat") as stat:
        ticks = [int(t) for t in stat.readline().split()[1:9]]
    return {"load_1min": os.getloadavg()[0], "steal_share_since_boot": ticks[7] / (sum(ticks) or 1)}


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    for line in lines:
        if line.startswith(("model name", "Model")):
            return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
