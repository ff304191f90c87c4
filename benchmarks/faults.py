"""Breaks what a study stands on, one thing at a time, and says what the user gets to see.

Each case states what has to come: a reason on the trial, or one line on the terminal, never a
traceback, with nothing left running, and the study going on where it can. Prints one line a case.

    python benchmarks/faults.py [--only WORD] [--list]
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from running import ROOT, SPACE, Ended, Room, wait_until

Case = Callable[[Room], str]
"""Breaks something in a room and returns what the user saw. Raises AssertionError where it is not
what has to come."""
CASES: dict[str, Case] = {}
BAD_SERVER = str(ROOT / "benchmarks" / "bad_server.py")
STUDY_S = 60.0
"""The start of a study's process, and more than enough for one trial."""


class Skipped(Exception):
    """This machine can't break that."""


def case(name: str) -> Callable[[Case], Case]:
    def keep(run: Case) -> Case:
        CASES[name] = run
        return run

    return keep


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", metavar="WORD", help="cases whose name holds it")
    parser.add_argument("--list", action="store_true")
    args = parser.parse_args()
    chosen = {name: run for name, run in CASES.items() if args.only in name}
    if args.list:
        print("\n".join(chosen))
        return 0
    outcomes = [outcome(name, run) for name, run in chosen.items()]
    failed, skipped = outcomes.count(False), outcomes.count(None)
    print(f"{len(outcomes) - failed - skipped} of {len(outcomes)} faults were told and survived, "
          f"{skipped} skipped")
    return 1 if failed else 0


def outcome(name: str, run: Case) -> bool | None:
    """Whether a case held; ``None`` where it can't be tried."""
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
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
        finally:
            for process in room.processes():
                process.kill()
    print(f"{name}: {'ok' if held else 'FAILED'}: {said} ({time.monotonic() - begun:.0f} s)",
          flush=True)
    return held


def told(ended: Ended, *words: str, code: int = 2) -> str:
    """The one line that a command ended with."""
    whole = ended.err + ended.out
    assert "Traceback" not in whole, whole[-2000:]
    assert ended.code == code, f"exit code {ended.code}: {ended.err[-500:]}"
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


def need_root() -> None:
    if os.geteuid() != 0:
        raise Skipped("needs root")


@contextmanager
def own_disk(room: Room, options: str) -> Iterator[Path]:
    """The studies' folder as a filesystem of its own, with these mount options."""
    need_root()
    disk = room.folder / "studies"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", disk], check=True)
    try:
        yield disk
    finally:
        wait_until(lambda: not room.processes(), 15.0)
        subprocess.run(["umount", "--lazy", disk], check=True)


# What the study's storage does.


@case("disk full")
def _(room: Room) -> str:
    with own_disk(room, "size=700k") as disk:
        said = told(room.study(500, timeout_s=300.0), "full", "No space")
        finished = room.finished()
        assert finished, "nothing was finished before the disk was full"
        subprocess.run(["mount", "-o", "remount,size=50m", disk], check=True)
        goes_on(room)
    return f"{said}; {len(finished)} trials kept, goes on with room"


@case("database locked by another program for 40 s")
def _(room: Room) -> str:
    first = room.study(1)
    assert first.code == 0, first.err
    holder = sqlite3.connect(room.database, isolation_level=None, check_same_thread=False)
    process = room.start(*room.study_arguments(3))
    assert wait_until(lambda: len(room.trials()) > 1, STUDY_S)
    holder.execute("BEGIN IMMEDIATE")
    time.sleep(40.0)
    holder.execute("ROLLBACK")
    ended = room.end(process)
    assert ended.code == 0, ended.err
    assert len(room.finished()) == 3
    return "waited, lost nothing"


@case("database damaged")
def _(room: Room) -> str:
    assert room.study(1).code == 0
    with room.database.open("r+b") as file:
        file.seek(100)
        file.write(b"\xde\xad" * 4000)
    return told(room.study(2), "damaged", "malformed", "not a database")


@case("read-only folder")
def _(room: Room) -> str:
    with own_disk(room, "ro,size=1m"):
        return told(room.study(1), "Read-only", "cannot be written", "cannot be made")


@case("two studies on one database")
def _(room: Room) -> str:
    one = room.start(*room.study_arguments(4, "--name", "small"))
    url = f"sqlite:///{room.database}"
    other = room.start(*room.study_arguments(4, "--name", "other", "--storage", url))
    ended = [room.end(p) for p in (one, other)]
    assert [e.code for e in ended] == [0, 0], [e.last for e in ended]
    assert len(room.finished("small")) == len(room.finished("other")) == 4
    return "4 and 4 trials"


@case("artifacts deleted meanwhile")
def _(room: Room) -> str:
    process = room.start(*room.study_arguments(4))
    assert wait_until(lambda: len(room.finished()) >= 1, STUDY_S)
    shutil.rmtree(room.folder / "studies" / "small.artifacts")
    return reasons(room, room.end(process), None, "internal") + f", {len(room.finished())} trials"


# What the machine does.


CLOCK = r"""
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>
static long offset_s(void) {
    const char *file = getenv("CLOCK_SET_BACK");
    return file && access(file, F_OK) == 0 ? -86400 : 0;
}
int clock_gettime(clockid_t clock, struct timespec *now) {
    int failed = syscall(SYS_clock_gettime, clock, now);
    if (!failed && clock == CLOCK_REALTIME) now->tv_sec += offset_s();
    return failed;
}
int gettimeofday(struct timeval *now, void *zone) {
    int failed = syscall(SYS_gettimeofday, now, zone);
    if (!failed) now->tv_sec += offset_s();
    return failed;
}
time_t time(time_t *out) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (out) *out = now.tv_sec;
    return now.tv_sec;
}
"""
"""A wall clock that is a day behind once the file CLOCK_SET_BACK is there; nobody else's changes."""


@case("clock set back a day")
def _(room: Room) -> str:
    if shutil.which("cc") is None:
        raise Skipped("needs a C compiler")
    source, library, moved = (room.folder / n for n in ("clock.c", "clock.so", "moved"))
    source.write_text(CLOCK)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source], check=True)
    room.environment |= {"LD_PRELOAD": str(library), "CLOCK_SET_BACK": str(moved)}
    process = room.start(*room.study_arguments(4))
    assert wait_until(lambda: len(room.finished()) >= 1, STUDY_S), "no trial ended"
    moved.touch()
    said = reasons(room, room.end(process), None, "client_limited")
    assert len(room.finished()) == 4
    return said + ", 4 trials"


@case("ports exhausted")
def _(room: Room) -> str:
    need_root()
    narrow = (
        'ip link set lo up && echo "40000 40001" > /proc/sys/net/ipv4/ip_local_port_range && '
        'exec "$@"'
    )
    ended = room.study(1, before=("unshare", "--net", "sh", "-c", narrow, "sh"))
    if ended.code == 0:
        return reasons(room, ended, "start_failed", "start_timeout", "no_answers", "client_failed",
                       "errors", "internal")
    return told(ended, "port", "Address already in use", code=2)


@case("SIGTERM while starting")
def _(room: Room) -> str:
    process = room.start(*room.study_arguments(2))
    time.sleep(1.5)
    return _terminated(room, process)


@case("SIGTERM while calibrating")
def _(room: Room) -> str:
    (room.folder / "small.yaml").write_text(SPACE.replace("load: 50", "load: light"))
    process = room.start(*room.study_arguments(2))
    assert wait_until(
        lambda: any("tuner.load.client" in " ".join(p.cmdline()) for p in room.processes()), STUDY_S
    )
    return _terminated(room, process)


def _terminated(room: Room, process: subprocess.Popen[str]) -> str:
    process.send_signal(signal.SIGTERM)
    ended = room.end(process, 30.0)
    assert "Traceback" not in ended.err, ended.err[-2000:]
    assert ended.code in (130, -signal.SIGTERM), f"exit code {ended.code}: {ended.err[-300:]}"
    assert not room.left(), room.left()
    goes_on(room)
    return f"exit code {ended.code}, goes on"


@case("load client killed")
def _(room: Room) -> str:
    process = room.start(*room.study_arguments(3))

    def kill_clients() -> bool:
        for client in room.processes():
            if "tuner.load.client" in " ".join(client.cmdline()):
                time.sleep(0.3)
                client.kill()
        return bool(room.finished())

    # On a busy machine a stage is repeated once: so the whole first trial long.
    assert wait_until(kill_clients, STUDY_S)
    said = reasons(room, room.end(process), None, "client_failed")
    assert "client_failed" in said, said
    return said + ", 3 trials"


# What the server does.


def bad(room: Room, behaviour: str, *allowed: str | None, space: str = "") -> str:
    text = SPACE.replace("deployer: fake", "deployer: binary\nstart_timeout_s: 4") + space
    (room.folder / "small.yaml").write_text(text)
    program = room.folder / "bad_server"
    # A server gets no more of the study's environment than it needs.
    program.write_text(
        f'#!/bin/sh\nBAD={behaviour} PYTHONPATH={ROOT} exec {sys.executable} {BAD_SERVER} "$@"\n'
    )
    program.chmod(0o755)
    ended = room.study(2, "--server-binary", str(program), timeout_s=300.0)
    said = reasons(room, ended, *allowed)
    assert len(room.finished()) == 2
    assert allowed[0] is None or str(allowed[0]) in said, said
    return said + ", goes on to the next trial"


@case("server never ready")
def _(room: Room) -> str:
    return bad(room, "never", "start_timeout")


@case("server answers garbage")
def _(room: Room) -> str:
    return bad(room, "garbage", "start_timeout")


@case("server dies")
def _(room: Room) -> str:
    return bad(room, "dies", "crash")


@case("server hangs")
def _(room: Room) -> str:
    return bad(room, "hangs", "overloaded", "no_answers", "errors")


@case("server leaks to its memory limit")
def _(room: Room) -> str:
    need_root()
    # It takes a moment to leak so much: the first trial may be over by then.
    return bad(room, "leaks", "out_of_memory", None, space="fixed: {memory_limit_mb: 300}\n")


@case("server floods its log")
def _(room: Room) -> str:
    return bad(room, "floods", None, "client_limited", "overloaded")


@case("server binary gone")
def _(room: Room) -> str:
    (room.folder / "small.yaml").write_text(SPACE.replace("deployer: fake", "deployer: binary"))
    return told(room.study(1, "--server-binary", "/nowhere"), "/nowhere")


if __name__ == "__main__":
    sys.exit(main())
