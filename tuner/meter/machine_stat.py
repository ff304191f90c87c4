"""The machine's CPU time by /proc/stat, and whether it is this machine's at all.

Sandboxes show zeros there (gVisor before 2026), container file systems the CPUs of one container
(lxcfs) while /sys shows the host's. Then ``CPUs x time - idle`` is nonsense that looks like a
machine busy all the time. So the parts are held against each other before they are used: the
counters advance by one second a second on each CPU, and no process burned what no CPU was busy with.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

TICK_S = 1.0 / os.sysconf("SC_CLK_TCK")
SLACK_SHARE = 0.10
"""How far the parts may be apart: time that is sampled at clock ticks is told to a few percent."""
SLACK_S = 0.05
"""And for each CPU: a tick in each of several counters, and the time that a scan of /proc takes."""


@dataclass(frozen=True)
class MachineTimes:
    """CPU seconds of all CPUs since the machine started (proc(5))."""

    total_s: float
    resting_s: float
    """Idle, or waiting for a disk, which is idle too."""
    steal_s: float
    """A virtual CPU had work but the host ran somebody else."""


def read_machine(proc: Path) -> MachineTimes | None:
    """The first line of ``proc/stat``; ``None`` where it cannot be read."""
    try:
        name, *numbers = (proc / "stat").read_text().split("\n", 1)[0].split()
        # guest and guest_nice, the last two, are inside user and nice.
        ticks = [int(number) for number in numbers[:8]]
    except (OSError, ValueError):
        return None
    if name != "cpu" or len(ticks) < 4:
        return None
    ticks += [0] * (8 - len(ticks))
    _user, _nice, _system, idle, iowait, _irq, _softirq, steal = ticks
    return MachineTimes(sum(ticks) * TICK_S, (idle + iowait) * TICK_S, steal * TICK_S)


def why_not_the_machines(
    start: MachineTimes | None, end: MachineTimes | None, cpus: int, window_s: float, seen_s: float
) -> str | None:
    """``None`` where /proc/stat fits the CPUs, the clock and the processes, else in words.

    Args:
        cpus: CPUs by /sys.
        window_s: seconds by the clock between the two looks.
        seen_s: CPU seconds burned meanwhile by all processes in sight.
    """
    if start is None or end is None:
        return "/proc/stat cannot be read"
    if end.total_s == 0:
        return "/proc/stat holds zeros"
    whole_s = cpus * window_s
    slack_s = SLACK_SHARE * whole_s + SLACK_S * cpus
    advanced_s = end.total_s - start.total_s
    if abs(advanced_s - whole_s) > slack_s:
        return (
            f"/proc/stat advanced by {advanced_s:.3g} s of CPU time in {window_s:.3g} s on "
            f"{cpus} CPUs"
        )
    # With stolen time: some kernels count it as the process's.
    working_s = whole_s - (end.resting_s - start.resting_s)
    if seen_s > working_s + slack_s:
        return (
            f"processes burned {seen_s:.3g} s of CPU time, of which /proc/stat shows "
            f"{max(0.0, working_s):.3g} s"
        )
    return None
