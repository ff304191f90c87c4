"""Processes as Linux shows them in ``/proc``: identity, children, whether one still runs."""

from __future__ import annotations

import os
import signal
from pathlib import Path

PROC = Path("/proc")


def start_time(pid: int) -> int | None:
    """Clock ticks after boot at which the process started; ``None`` when there is none.

    With the process id it names one process for good: ids are used again, this pair is not.
    """
    fields = _stat(pid)
    return int(fields[19]) if fields else None


def runs(pid: int, started: int | None = None) -> bool:
    """Whether the process runs (a zombie does not) and, if told, is still the same one."""
    fields = _stat(pid)
    if not fields or fields[0] in "ZX":
        return False
    return started is None or int(fields[19]) == started


def tree(pid: int) -> tuple[int, ...]:
    """The process and all its living descendants, parents first."""
    found = [pid] if runs(pid) else []
    for member in found:
        found += [child for child in _children(member) if runs(child)]
    return tuple(found)


def kill(pid: int, started: int | None, number: int = signal.SIGKILL) -> bool:
    """Send a signal to the process if it is still the same one; whether it was sent."""
    if not runs(pid, started):
        return False
    try:
        os.kill(pid, number)
    except OSError:
        return False
    return True


def _stat(pid: int) -> list[str]:
    """Fields of ``/proc/PID/stat`` from the state on (``proc(5)``: field 3 is index 0)."""
    try:
        text = (PROC / str(pid) / "stat").read_text()
    except OSError:
        return []
    return text.rpartition(")")[2].split()


def _children(pid: int) -> list[int]:
    children: list[int] = []
    try:
        tasks = os.listdir(PROC / str(pid) / "task")
    except OSError:
        return children
    for task in tasks:
        try:
            text = (PROC / str(pid) / "task" / task / "children").read_text()
        except OSError:
            continue
        children += [int(word) for word in text.split()]
    return children
