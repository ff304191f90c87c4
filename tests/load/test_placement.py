"""The client gets cores of its own from four on, and priority everywhere."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tuner.load import placement


@pytest.mark.parametrize(
    ("cores", "processes", "client", "server"),
    [
        ((0, 1), 1, (), (0, 1)),
        ((0, 1, 2), 1, (), (0, 1, 2)),
        ((0, 1, 2, 3), 1, (3,), (0, 1, 2)),
        ((2, 4, 6, 8, 10, 12), 2, (10, 12), (2, 4, 6, 8)),
        ((0, 1, 2, 3), 9, (2, 3), (0, 1)),
    ],
)
def test_own_cores_from_four_on(
    cores: tuple[int, ...],
    processes: int,
    client: tuple[int, ...],
    server: tuple[int, ...],
) -> None:
    assert placement.place(processes, cores=cores) == placement.Placement(client, server)


def test_asked_cores_are_given() -> None:
    assert placement.place(1, [0], (0, 1)) == placement.Placement((0,), (1,))


def test_urgency_ends_with_its_context() -> None:
    before = os.sched_getscheduler(0)
    with placement.urgent():
        pass
    assert os.sched_getscheduler(0) == before


def test_a_process_is_placed_and_what_was_done_is_told() -> None:
    core = min(os.sched_getaffinity(0))
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        done = placement.apply(placement.Placement((core,), ()), process.pid)
        assert os.sched_getaffinity(process.pid) == {core}
        assert done["cores"] == [core]
        if done["policy"] == "fifo":
            assert os.sched_getscheduler(process.pid) == os.SCHED_FIFO
        else:
            assert done["nice"] == os.getpriority(os.PRIO_PROCESS, process.pid)
            assert "real-time priority" in done["refused"]
    finally:
        process.kill()
        process.communicate()


def test_a_refused_priority_is_told_and_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "sched_setscheduler", refuse)
    monkeypatch.setattr(os, "setpriority", refuse)
    done = placement.raise_priority(os.getpid())
    assert done["policy"] == "other"
    assert "real-time priority: Operation not permitted; nice -10" in done["refused"]
