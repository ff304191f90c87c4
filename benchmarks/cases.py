"""How the cases of ``faults.py`` are kept, carried out and judged."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from running import Ended, Room, command_of, wait_until

Case = Callable[[Room], str]
"""Breaks something in a room and returns what the user saw. Raises AssertionError where it is not
what has to come."""
CASES: dict[str, Case] = {}


class Skipped(Exception):
    """This machine can't break that."""


def case(name: str) -> Callable[[Case], Case]:
    def keep(run: Case) -> Case:
        CASES[name] = run
        return run

    return keep


def outcome(name: str, run: Case) -> bool | None:
    """Whether a case held; ``None`` where it can't be tried."""
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        room = Room(Path(folder))
        try:
            said, held = run(room), True
            if left := room.left():
                said, held = f"left running: {left}", False
        except Skipped as skipped:
            print(f"{name}: skipped: {skipped}", flush=True)
            return None
        except AssertionError as error:
            said, held = str(error), False
        except Exception as error:  # noqa: BLE001 - the other cases are still to be tried
            said, held = f"could not be tried: {type(error).__name__}: {error}", False
        finally:
            for process in room.processes():
                process.kill()
    print(f"{name}: {'ok' if held else 'FAILED'}: {said} ({time.monotonic() - begun:.0f} s)",
          flush=True)
    return held


def told(ended: Ended, *words: str, codes: tuple[int, ...] = (2,)) -> str:
    """The one line that a command ended with."""
    whole = ended.err + ended.out
    assert "Traceback" not in whole, whole[-2000:]
    assert ended.code in codes, f"exit code {ended.code}: {ended.err[-500:]}"
    assert any(word in ended.last for word in words), ended.last
    return ended.last[:160]


def reasons(room: Room, ended: Ended, *allowed: str | None) -> str:
    """The reasons of the trials of a study that went on to its end."""
    assert ended.code == 0 and "Traceback" not in ended.err, ended.err[-2000:]
    found = {reason for _, reason in room.finished().values()}
    assert found and found <= set(allowed), f"reasons {found}, not {allowed}"
    return f"reason {', '.join(sorted(reason or 'none' for reason in found))}"


def goes_on(room: Room, more: int = 1) -> None:
    """The study can be taken up again."""
    before = room.finished()
    ended = room.study(len(before) + more)
    after = room.finished()
    assert ended.code == 0, ended.err[-500:]
    assert len(after) == len(before) + more and before.items() <= after.items()


def terminated(room: Room, process: subprocess.Popen[str]) -> str:
    """SIGTERM ends a study in order, and it can be taken up again."""
    process.send_signal(signal.SIGTERM)
    ended = room.end(process, 30.0)
    assert "Traceback" not in ended.err, ended.err[-2000:]
    assert ended.code in (130, -signal.SIGTERM), f"exit code {ended.code}: {ended.err[-300:]}"
    assert not room.left(), room.left()
    goes_on(room)
    return f"exit code {ended.code}, goes on"


def clients(room: Room) -> list[int]:
    """Process ids of the load clients."""
    return [p.pid for p in room.processes() if "tuner.load.client" in command_of(p)]


def need_root() -> None:
    if os.geteuid() != 0:
        raise Skipped("needs root")


def privileged(*command: str) -> None:
    """Run what containers are often denied. Raises Skipped where it is."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Skipped(f"{command[0]} is refused: {' '.join(done.stderr.split())[:120]}")


@contextmanager
def own_disk(room: Room, options: str) -> Iterator[Path]:
    """The studies' folder as a filesystem of its own, with these mount options."""
    need_root()
    disk = room.folder / "studies"
    disk.mkdir()
    privileged("mount", "-t", "tmpfs", "-o", options, "tmpfs", str(disk))
    try:
        yield disk
    finally:
        wait_until(lambda: not room.processes(), 15.0)
        subprocess.run(["umount", "--lazy", disk], check=False)
