"""How much memory a server has taken at most."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


def peak_mb(pids: Sequence[int]) -> float | None:
    """Sum of the processes' greatest resident sizes, 10^6 bytes; ``None`` where none can be read.

    ``VmHWM`` of ``/proc/PID/status`` (proc_pid_status(5)). Pages that processes share count in each.
    """
    found = []
    for pid in pids:
        try:
            lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        except OSError:
            continue
        found += [int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith("VmHWM:")]
    return round(sum(found), 1) if found else None
