"""CPU seconds burned by process trees: the living, the born, and those that ended meanwhile.

A process's own time is ``utime + stime`` of ``/proc/PID/stat``; ``cutime + cstime`` hold all that
its ended and waited-for children (and theirs) ever burned. Summed over a tree, a child's time moves
from its own entry into its parent's when it is reaped, so the sum goes on growing whatever is born
and dies inside. What no parent in the tree waits for (the tree's root, orphans, children of a parent
that ignores SIGCHLD) is kept at the value last seen, which is why ``sample`` should be called about
once a second; see proc(5) and getrusage(2), RUSAGE_CHILDREN.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tuner.meter.machine_stat import TICK_S

Identity = tuple[int, int]
"""Process id and start time: numbers are given again, the pair is not."""


@dataclass(frozen=True)
class Process:
    """One line of ``/proc/PID/stat``."""

    identity: Identity
    parent: int
    cpu_s: float
    """Own user and system seconds, and those of all children it has waited for."""


PROC = Path("/proc")


def read_process(pid: int | str, proc: Path = PROC) -> Process | None:
    """The process now, ``None`` when there is none."""
    try:
        text = (proc / str(pid) / "stat").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The command in brackets may hold spaces and brackets itself.
    fields = text[text.rindex(")") + 2 :].split()
    ticks = sum(int(field) for field in fields[11:15])  # utime stime cutime cstime
    return Process((int(pid), int(fields[19])), int(fields[1]), ticks * TICK_S)


def all_processes(proc: Path = PROC) -> Mapping[int, Process]:
    """Every process now, by id: one scan of /proc, about 4 ms of CPU with 100 processes."""
    found = (read_process(name, proc) for name in os.listdir(proc) if name.isdigit())
    return {process.identity[0]: process for process in found if process is not None}


class ProcessTree:
    """Watches ``roots`` and all their descendants from now on.

    Args:
        roots: process ids; ids that don't exist are listed in ``missing``.
        not_into: ids whose subtrees belong to somebody else, even where they descend from ``roots``.
        everything: a scan just made.
    """

    def __init__(
        self,
        roots: Collection[int],
        not_into: Collection[int],
        everything: Mapping[int, Process],
    ) -> None:
        self._not_into = frozenset(not_into)
        living = [everything[pid] for pid in dict.fromkeys(roots) if pid in everything]
        self.missing = tuple(pid for pid in dict.fromkeys(roots) if pid not in everything)
        self._seen: dict[Identity, Process] = {process.identity: process for process in living}
        self._gone: dict[Identity, Process] = {}
        self.sample(everything)
        self._start_s = self._sum()

    @property
    def cpu_s(self) -> float:
        """CPU seconds burned since watching began, as of the last ``sample``."""
        return max(0.0, self._sum() - self._start_s)

    @property
    def members(self) -> int:
        """How many processes were ever seen in the tree."""
        return len(self._seen) + len(self._gone)

    def sample_known(self, proc: Path = PROC) -> None:
        """Look at those seen before alone, which costs no scan; new ones wait for ``sample``."""
        read = (read_process(pid, proc) for pid, _ in self._seen)
        self.sample({process.identity[0]: process for process in read if process is not None})

    def sample(self, everything: Mapping[int, Process]) -> None:
        """Look at every process of the tree, in a scan just made."""
        found = {process.identity: process for process in self._walk(everything)}
        for identity, process in self._seen.items():
            if identity not in found:
                self._gone[identity] = process
        self._seen = found

    def _walk(self, everything: Mapping[int, Process]) -> Iterator[Process]:
        children: dict[int, list[int]] = {}
        for pid, process in everything.items():
            children.setdefault(process.parent, []).append(pid)
        # All that was seen before is a root too: an orphan leaves the tree of its parent.
        pending = [
            pid
            for pid, start in self._seen
            if pid in everything and everything[pid].identity == (pid, start)
        ]
        visited = set(self._not_into)
        while pending:
            pid = pending.pop()
            if pid not in visited:
                visited.add(pid)
                pending.extend(children.get(pid, ()))
                yield everything[pid]

    def _sum(self) -> float:
        living = {pid for pid, _ in self._seen}
        parent_of_gone = {pid: process.parent for (pid, _), process in self._gone.items()}

        def reaped_inside(process: Process) -> bool:
            parent = process.parent
            for _ in self._gone:
                if parent in living or parent not in parent_of_gone:
                    break
                parent = parent_of_gone[parent]
            return parent in living

        kept = (process for process in self._gone.values() if not reaped_inside(process))
        return sum(p.cpu_s for p in self._seen.values()) + sum(p.cpu_s for p in kept)


class AllProcesses(ProcessTree):
    """Every process in sight, also those that somebody outside sends in."""

    def __init__(self, everything: Mapping[int, Process]) -> None:
        super().__init__(tuple(everything), (), everything)

    def _walk(self, everything: Mapping[int, Process]) -> Iterator[Process]:
        return iter(everything.values())
