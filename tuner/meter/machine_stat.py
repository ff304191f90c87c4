"""The machine's CPU time by /proc/stat, and whether it is this machine's at all.

Sandboxes show zeros there (gVisor before 2026), container file systems the CPUs of one container
(lxcfs) while /sys shows the host's. Then ``CPUs x time - idle`` is nonsense that looks like a
machine busy all the time. So the parts are held against each other before they are used: the
counters advance by one second a second on each CPU, no process burned what no CPU was busy with, and
the CPUs that have a line are those that are online (offline ones have none, proc(5)). The sum alone
can't tell: one CPU of 32 that is not shown is 3 % of it, which is less than it is exact to.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import psutil

ONLINE = Path("/sys/devices/system/cpu/online")
TICK_S = 1.0 / os.sysconf("SC_CLK_TCK")
SLACK_SHARE = 0.10
"""How far the parts may be apart: time that is sampled at clock ticks is told to a few percent."""
SLACK_S = 0.05
"""And for each CPU: a tick in each of several counters, and the time that a scan of /proc takes."""
TELLING_S = 1.0
"""From this length on a CPU whose own line did not move is told from one that is counted in ticks."""


@dataclass(frozen=True)
class MachineTimes:
    """CPU seconds of all CPUs since the machine started (proc(5))."""

    total_s: float
    resting_s: float
    """Idle, or waiting for a disk, which is idle too."""
    steal_s: float
    """A virtual CPU had work but the host ran somebody else."""
    cpus: Mapping[int, float] = field(default_factory=dict)
    """CPU -> its seconds by its own line, whatever it did."""


def online_cpus(file: Path = ONLINE) -> frozenset[int]:
    """The CPUs that the kernel runs (``0-3,8``); 0 to their number where /sys does not tell."""
    try:
        spans = [part.split("-") for part in file.read_text().strip().split(",")]
        found = frozenset(n for span in spans for n in range(int(span[0]), int(span[-1]) + 1))
    except (OSError, ValueError):
        found = frozenset()
    return found or frozenset(range(psutil.cpu_count() or 1))


def read_machine(proc: Path) -> MachineTimes | None:
    """The CPUs' lines of ``proc/stat``; ``None`` where it cannot be read."""
    try:
        lines = [line.split() for line in (proc / "stat").read_text().splitlines()]
        # guest and guest_nice, the last two, are inside user and nice.
        ticks = {
            line[0]: [int(number) for number in line[1:9]]
            for line in lines
            if line and line[0].removeprefix("cpu").isdigit() or line[:1] == ["cpu"]
        }
        cpus = {int(name[3:]): sum(spent) * TICK_S for name, spent in ticks.items() if name != "cpu"}
        whole = ticks["cpu"]
    except (OSError, ValueError, KeyError):
        return None
    if len(whole) < 4:
        return None
    whole += [0] * (8 - len(whole))
    _user, _nice, _system, idle, iowait, _irq, _softirq, steal = whole
    return MachineTimes(sum(whole) * TICK_S, (idle + iowait) * TICK_S, steal * TICK_S, cpus)


def why_not_the_machines(
    start: MachineTimes | None,
    end: MachineTimes | None,
    online: Collection[int],
    window_s: float,
    seen_s: float,
) -> str | None:
    """``None`` where /proc/stat fits the CPUs, the clock and the processes, else in words.

    Args:
        online: CPUs by /sys.
        window_s: seconds by the clock between the two looks.
        seen_s: CPU seconds burned meanwhile by all processes in sight.
    """
    if start is None or end is None:
        return "/proc/stat cannot be read"
    if end.total_s == 0:
        return "/proc/stat holds zeros"
    cpus = len(online)
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
    return _wrong_cpus(start, end, online, window_s, advanced_s)


def _wrong_cpus(
    start: MachineTimes,
    end: MachineTimes,
    online: Collection[int],
    window_s: float,
    advanced_s: float,
) -> str | None:
    """In words where the CPUs' own lines are not those of the CPUs that are online."""
    if start.cpus.keys() != end.cpus.keys():
        return f"/proc/stat shows {len(start.cpus)} CPUs before the window and {len(end.cpus)} after"
    if end.cpus.keys() != set(online):
        lacking, besides = set(online) - end.cpus.keys(), end.cpus.keys() - set(online)
        lacks = f", not CPU {_list(lacking)}" if lacking and end.cpus else ""
        has = f", and CPU {_list(besides)}, which is not online" if besides else ""
        shown = len(online) - len(lacking)
        return f"/proc/stat shows {shown} of the {len(online)} CPUs that are online{lacks}{has}"
    if window_s < TELLING_S:
        return None
    moved_s = {cpu: end.cpus[cpu] - start.cpus[cpu] for cpu in end.cpus}
    if still := {cpu for cpu, seconds in moved_s.items() if seconds < window_s / 2}:
        return f"the time of CPU {_list(still)} does not go on in /proc/stat"
    # Each line is cut to whole ticks.
    if abs(sum(moved_s.values()) - advanced_s) > window_s / 2 + TICK_S * len(moved_s):
        return (
            f"/proc/stat tells {advanced_s:.3g} s of CPU time of all CPUs, and "
            f"{sum(moved_s.values()):.3g} s of one by one"
        )
    return None


def _list(cpus: Collection[int]) -> str:
    return ", ".join(map(str, sorted(cpus)[:8])) + (" …" if len(cpus) > 8 else "")
