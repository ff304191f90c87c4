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
import sys
import time
from contextlib import suppress

from cases import (
    CASES,
    case,
    clients,
    goes_on,
    need_root,
    outcome,
    own_disk,
    privileged,
    reasons,
    terminated,
    told,
)
from preloaded import CLOCK_SET_BACK, READ_ONLY, preload
from running import ROOT, SPACE, Room, wait_until

BAD_SERVER = str(ROOT / "benchmarks" / "bad_server.py")
STUDY_S = 60.0
"""The start of a study's process, and more than enough for one trial."""


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


# What the study's storage does.


@case("disk full")
def _(room: Room) -> str:
    with own_disk(room, "size=700k") as disk:
        said = told(room.study(500, timeout_s=300.0), "full", "No space")
        finished = room.finished()
        assert finished, "nothing was finished before the disk was full"
        privileged("mount", "-o", "remount,size=50m", str(disk))
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


@case("database damaged while a study runs")
def _(room: Room) -> str:
    process = room.start(*room.study_arguments(20))
    assert wait_until(lambda: len(room.finished()) >= 2, STUDY_S), "no trials ended"
    log = room.database.with_name(room.database.name + "-wal")
    for file in (room.database, log):
        with file.open("r+b") as damaged:
            damaged.seek(100)
            damaged.write(b"\xde\xad" * ((file.stat().st_size - 100) // 2))
    said = told(room.end(process), "damaged", "malformed", "not a database", "disk I/O")
    told(room.study(21), "damaged", "malformed", "not a database", "disk I/O")
    return said


@case("disk full while calibrating")
def _(room: Room) -> str:
    (room.folder / "small.yaml").write_text(SPACE.replace("load: 50", "load: light"))
    with own_disk(room, "size=4m") as disk:
        process = room.start(*room.study_arguments(2))
        assert wait_until(lambda: clients(room), STUDY_S), "no calibration began"
        with suppress(OSError), (disk / "fill").open("wb", buffering=0) as fill:
            while fill.write(b"x" * 4096):
                pass
        said = told(room.end(process), "full", "No space", codes=(1, 2))
        (disk / "fill").unlink()
        goes_on(room, 2)
    return f"{said}; goes on with room"


@case("folder read-only from the middle on")
def _(room: Room) -> str:
    switch = preload(room, READ_ONLY)
    process = room.start(*room.study_arguments(20))
    assert wait_until(lambda: len(room.finished()) >= 2, STUDY_S), "no trials ended"
    before = room.finished()
    switch.touch()
    said = told(
        room.end(process), "readonly", "Read-only", "disk I/O", "unable to open"
    )
    switch.unlink()
    assert before.items() <= room.finished().items()
    goes_on(room)
    return f"{said}; goes on once it can be written to"


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


@case("clock set back a day")
def _(room: Room) -> str:
    moved = preload(room, CLOCK_SET_BACK)
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
    privileged("unshare", "--net", "true")
    ended = room.study(1, before=("unshare", "--net", "sh", "-c", narrow, "sh"))
    if ended.code == 0:
        return reasons(room, ended, "start_failed", "start_timeout", "no_answers", "client_failed",
                       "errors", "internal")
    return told(ended, "port", "Address already in use", codes=(2,))


@case("SIGTERM while starting")
def _(room: Room) -> str:
    process = room.start(*room.study_arguments(2))
    time.sleep(1.5)
    return terminated(room, process)


@case("SIGTERM while calibrating")
def _(room: Room) -> str:
    (room.folder / "small.yaml").write_text(SPACE.replace("load: 50", "load: light"))
    process = room.start(*room.study_arguments(2))
    assert wait_until(lambda: clients(room), STUDY_S)
    return terminated(room, process)


@case("load client killed")
def _(room: Room) -> str:
    process = room.start(*room.study_arguments(3))

    def kill_clients() -> bool:
        for client in clients(room):
            time.sleep(0.3)
            with suppress(ProcessLookupError):
                os.kill(client, signal.SIGKILL)
        return bool(room.finished())

    # On a busy machine a stage is repeated once: so the whole first trial long.
    assert wait_until(kill_clients, STUDY_S)
    said = reasons(room, room.end(process), None, "client_failed")
    assert "client_failed" in said, said
    return said + ", 3 trials"


@case("load client hangs")
def _(room: Room) -> str:
    process = room.start(*room.study_arguments(2))
    stopped: set[int] = set()

    def stop_clients() -> bool:
        for client in clients(room):
            if client not in stopped:
                time.sleep(0.3)
                with suppress(ProcessLookupError):
                    os.kill(client, signal.SIGSTOP)
                stopped.add(client)
        return bool(room.finished())

    assert wait_until(stop_clients, 3 * STUDY_S), "the first trial did not end"
    # It lags before it is seen not to answer.
    said = reasons(room, room.end(process), None, "client_failed", "client_limited")
    assert "client_" in said, said
    return said + ", 2 trials"


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


@case("server answers garbage once it was ready")
def _(room: Room) -> str:
    return bad(room, "spoils", "no_answers", "errors")


@case("server dies")
def _(room: Room) -> str:
    return bad(room, "dies", "crash")


@case("server hangs")
def _(room: Room) -> str:
    return bad(room, "hangs", "no_answers", "errors")


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
