"""A /proc whose clocks are moved by the test, to the tick."""

from __future__ import annotations

from pathlib import Path

TICKS = 100


class ScriptedProc:
    """Processes by id (parent, CPU ticks) and the CPUs' ticks, in files; and a clock beside them."""

    def __init__(self, folder: Path, cpus: int = 2) -> None:
        self.folder, self.cpus, self.now_s = folder, cpus, 1000.0
        folder.mkdir(parents=True, exist_ok=True)
        self.machine = {"user": 5000, "nice": 0, "system": 700, "idle": 90_000, "iowait": 300,
                        "irq": 0, "softirq": 40, "steal": 60, "guest": 900, "guest_nice": 0}
        self.processes: dict[int, list[int]] = {}
        self.write_machine()

    def clock(self) -> float:
        return self.now_s

    def write_machine(self, text: str | None = None) -> None:
        line = " ".join(str(ticks) for ticks in self.machine.values())
        (self.folder / "stat").write_text(
            f"cpu  {line}\n{self.lines()}intr 5 0 1\n" if text is None else text
        )

    def lines(self) -> str:
        """Each CPU's own line: its part of all that was told in user time."""
        ticks = [sum(list(self.machine.values())[:8]) // self.cpus] * self.cpus
        return "".join(f"cpu{cpu} {n} 0 0 0\n" for cpu, n in enumerate(ticks))

    def process(self, pid: int, *, parent: int = 1, start: int = 7, ticks=(0, 0, 0, 0)) -> None:
        """Tell ``ticks`` (user, system, children's user, children's system) of a process."""
        self.processes[pid] = list(ticks)
        (self.folder / str(pid)).mkdir(exist_ok=True)
        fields = ["S", parent, *[0] * 9, *ticks, 20, 0, 1, 0, start, 0, 0]
        told = f"{pid} (a) b) " + " ".join(map(str, fields)) + "\n"
        (self.folder / str(pid) / "stat").write_text(told)

    def end(self, pid: int) -> None:
        (self.folder / str(pid) / "stat").unlink()
        (self.folder / str(pid)).rmdir()

    def passes(self, seconds: float, **busy: int) -> None:
        """Time goes by: ``busy`` ticks of user, system, …; the rest of all CPUs is idle."""
        self.now_s += seconds
        for name, ticks in busy.items():
            self.machine[name] += ticks
        self.machine["idle"] += round(seconds * self.cpus * TICKS) - sum(busy.values())
        self.write_machine()
