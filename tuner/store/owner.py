"""Which process runs a trial, and whether it still lives."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

HOST = "TUNER_HOST"
"""This machine's name where its own says nothing, as a pod's does: the node's."""


def host() -> str:
    """The name by which this machine is recorded."""
    return os.environ.get(HOST) or socket.gethostname()


def this_process() -> dict[str, Any]:
    return {
        "host": host(),
        "pid": os.getpid(),
        "started": _start_ticks(os.getpid()),
        "boot": _boot(),
        "pid_namespace": _pid_namespace(),
    }


def is_visible(owner: Mapping[str, Any]) -> bool:
    """Whether the owner's process id means the same process here.

    The name of a host doesn't tell: machines may share one, and a container is given one anew.
    """
    if not owner:
        return False
    if owner.get("boot") is None:  # Written by a version that didn't keep it.
        return bool(owner.get("host") == socket.gethostname())
    return bool(owner["boot"] == _boot() and owner.get("pid_namespace") == _pid_namespace())


def alive(owner: Mapping[str, Any]) -> bool:
    """Whether a visible owner's process runs."""
    # The start time tells a process from a later one that was given the same id.
    started = _start_ticks(int(owner["pid"]))
    return started is not None and started == owner.get("started")


def _start_ticks(pid: int) -> int | None:
    """When a process started, in clock ticks since boot; ``None`` where it does not run.

    Fields 3 and 22 of /proc/PID/stat. One that has ended but that its parent never asked about
    (Z, X) does not run.
    """
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = text.rsplit(")", 1)[1].split()
    return None if fields[0] in "ZX" else int(fields[19])


def _boot() -> str:
    """Differs on every machine and after every start of one."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _pid_namespace() -> int:
    return os.stat("/proc/self/ns/pid").st_ino
