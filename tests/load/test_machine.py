"""What else the machine did, and when that spoils a stage."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.study.conftest import measured
from tuner.load import Neighbours, ScriptedServer, disturbance, listening, machine, quiet
from tuner.load.quiet import Look


def test_a_busy_loop_shows_as_busy_share() -> None:
    before = machine.snapshot()
    end = time.monotonic() + 0.3
    while time.monotonic() < end:
        pass
    share = machine.between(before, machine.snapshot())
    assert share is not None
    assert 0 < share.busy <= 1
    assert 0 <= share.steal < 1


def test_no_time_between_snapshots_is_no_share() -> None:
    now = machine.Snapshot(1.0, 0.0, 2.0)
    assert machine.between(now, now) is None
    assert machine.between(None, now) is None


def test_shares_are_parts_of_all_cores_time() -> None:
    share = machine.between(machine.Snapshot(1, 0, 10), machine.Snapshot(4, 1, 20))
    assert share is not None
    assert (share.busy, share.steal) == pytest.approx((0.3, 0.1))


@pytest.mark.parametrize(
    ("others", "steal", "says"),
    [(0.05, 0.01, None), (0.4, 0.0, "other work used 40%"), (0.0, 0.2, "hypervisor took 20%")],
)
def test_a_disturbed_stage_says_by_what(others: float, steal: float, says: str | None) -> None:
    details = {
        "machine_before": {"busy_others": others, "steal": 0.0, "seconds": 0.3},
        "machine_window": {"busy": 0.9, "steal": steal},
    }
    found = disturbance(details)
    assert found is None if says is None else says in str(found)


def test_an_unknown_machine_is_not_called_disturbed() -> None:
    assert disturbance({}) is None


def test_a_window_shared_with_others_is_disturbed_from_a_tenth_on() -> None:
    for others, says in [(0.10, None), (0.11, "other work used 11% of the machine in the measured")]:
        found = disturbance({"machine_window": {"busy": 0.9, "steal": 0.0, "others": others}})
        assert found is None if says is None else says in str(found)


def test_others_that_cannot_be_told_apart_disturb_nothing() -> None:
    assert disturbance({"machine_window": {"busy": 1.0, "steal": 0.0, "others": None}}) is None


class Proc:
    """A scripted /proc: the machine's counters, and each process's parent and CPU seconds."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = machine.Snapshot(0.0, 0.0, 0.0, 2, 0.0)
        self.processes: dict[int, tuple[int, float]] = {}
        self.scans = 0
        monkeypatch.setattr(machine, "snapshot", lambda: self.now)
        monkeypatch.setattr(machine, "_scan", self.scan)
        monkeypatch.setattr(machine.os, "getpid", lambda: 1)

    def scan(self) -> dict[int, tuple[int, float]]:
        self.scans += 1
        return dict(self.processes)

    def pass_time(self, seconds: float, busy_s: float, steal_s: float = 0.0) -> None:
        self.now = machine.Snapshot(
            self.now.busy_s + busy_s, self.now.steal_s + steal_s,
            self.now.total_s + 2 * seconds, 2, self.now.at_s + seconds,
        )


@pytest.fixture
def proc(monkeypatch: pytest.MonkeyPatch) -> Proc:
    return Proc(monkeypatch)


def test_others_are_all_but_server_client_and_this_process(proc: Proc) -> None:
    proc.processes = {1: (0, 5.0), 10: (1, 1.0), 11: (10, 0.0), 20: (1, 0.0), 30: (0, 90.0)}
    span = machine.Span([10, 11], [20])
    # This process 1 s, the server's root 2 s and its child 3 s, the client 4 s, others 6 s.
    proc.processes = {1: (0, 6.0), 10: (1, 3.0), 11: (10, 3.0), 20: (1, 4.0), 30: (0, 96.0)}
    proc.pass_time(10.0, busy_s=16.0)
    assert span.ended() == pytest.approx(
        {"busy": 0.8, "steal": 0.0, "others": 6 / 20, "seconds": 10.0}
    )


def test_work_of_server_processes_born_and_ended_inside_is_the_servers(proc: Proc) -> None:
    proc.processes = {1: (0, 0.0), 10: (1, 1.0), 11: (10, 4.0)}
    span = machine.Span([10, 11])
    # 11 did 2 s more and ended, its 6 s are in 10 now, which did none; 12 was born and did 3 s.
    proc.processes = {1: (0, 0.0), 10: (1, 7.0), 12: (10, 3.0)}
    proc.pass_time(10.0, busy_s=5.0)
    assert span.ended()["others"] == pytest.approx(0.0)


def test_a_server_that_is_gone_leaves_others_untold(proc: Proc) -> None:
    proc.processes = {1: (0, 0.0), 10: (0, 1.0)}
    span = machine.Span([10])
    proc.processes = {1: (0, 0.0)}
    proc.pass_time(1.0, busy_s=2.0)
    assert span.ended()["others"] is None


def test_counters_that_stand_still_tell_nothing(proc: Proc) -> None:
    proc.processes = {1: (0, 0.0)}
    span = machine.Span()
    proc.processes = {1: (0, 1.0)}
    proc.now = replace(proc.now, at_s=1.0)
    assert span.ended() is None


def test_counters_below_what_our_processes_used_leave_others_untold(proc: Proc) -> None:
    """Some sandboxes show another machine's counters."""
    proc.processes = {1: (0, 0.0)}
    span = machine.Span()
    proc.processes = {1: (0, 9.0)}
    proc.pass_time(10.0, busy_s=1.0)
    assert span.ended()["others"] is None


def test_short_work_between_clock_ticks_counts_as_busy(proc: Proc) -> None:
    """Of 20 CPU seconds 12 were idle and ticks saw only 6 at work: 8 were busy."""
    before = proc.now
    after = machine.Snapshot(6.0, 0.0, 18.0, 2, 10.0)
    share = machine.between(before, after)
    assert share is not None and share.busy == pytest.approx(0.4)


def test_proc_is_read_at_the_windows_ends_alone(proc: Proc) -> None:
    proc.processes = {1: (0, 0.0)}
    watched = Neighbours(lambda: (), None)
    before = proc.scans
    watched.window_opened(())
    opened = proc.scans
    for _ in range(10):
        watched.should_stop()
    assert (opened - before, proc.scans - opened) == (1, 0)
    watched.window_closed()
    watched.window_closed()
    assert proc.scans - opened == 1


class Raising:
    """An observer that fails at one of its calls."""

    def __init__(self, at: str) -> None:
        self.at, self.told = at, list[str]()

    def _tell(self, what: str) -> None:
        self.told.append(what)
        if what == self.at:
            raise RuntimeError(what)

    def window_opened(self, client_pids: Sequence[int]) -> None:
        self._tell("opened")

    def window_closed(self) -> None:
        self._tell("closed")

    def should_stop(self) -> str | None:
        return None


def test_the_machine_is_told_though_the_inner_observer_fails_to_close(proc: Proc) -> None:
    proc.processes = {1: (0, 0.0)}
    watched = Neighbours(lambda: (), Raising("closed"))
    watched.window_opened(())
    proc.pass_time(10.0, busy_s=1.0)
    with pytest.raises(RuntimeError, match="closed"):
        watched.window_closed()
    result = watched.judged(measured(10, 1).stage)
    assert "machine_window" in result.details


@contextmanager
def busy_loop() -> Iterator[int]:
    """A process that uses a core, for at most 20 s, ended by its id."""
    code = "import time\nend = time.monotonic() + 20\nwhile time.monotonic() < end: pass"
    process = subprocess.Popen([sys.executable, "-c", code])
    try:
        time.sleep(0.3)  # its start isn't the loop yet
        yield process.pid
    finally:
        process.kill()
        process.wait()


def test_a_busy_process_is_others_unless_it_is_the_server() -> None:
    with busy_loop() as pid:
        alone, served = machine.Span(), machine.Span([pid])
        time.sleep(1.0)
        others, beside = alone.ended(), served.ended()
    assert others is not None and beside is not None
    taken = (others["others"] or 0.0) - (beside["others"] or 0.0)
    cpus = machine.snapshot().cpus  # type: ignore[union-attr]
    assert 0.2 / cpus < taken < 1.1 / cpus  # a core, shared where the machine is busy anyway


def test_a_look_names_who_uses_the_machine(proc: Proc, monkeypatch: pytest.MonkeyPatch) -> None:
    looks = iter([
        {(5, 0.0): ("cc1plus", 1.0), (6, 0.0): ("ld", 1.0)},
        {(5, 0.0): ("cc1plus", 2.0), (6, 0.0): ("ld", 1.0), (7, 1.0): ("cc1plus", 0.5)},
    ])
    clock = iter([100.0, 101.0])
    monkeypatch.setattr(quiet, "_by_process", lambda: next(looks))
    monkeypatch.setattr(quiet.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(quiet.time, "sleep", lambda _: proc.pass_time(1.0, 1.5, 0.2))
    monkeypatch.setattr(quiet.psutil, "cpu_count", lambda: 2)
    proc.processes = {1: (0, 0.0)}
    found = quiet.look(1.0)
    assert found is not None
    assert found.why_busy == "other work uses 75% of it (cc1plus 75%) and the hypervisor takes 10% of it"


def scripted_looks(monkeypatch: pytest.MonkeyPatch, *others: float) -> list[float]:
    """Let each look find so much of others' work, the last one for ever; gives the looks' times."""
    left, clock, times = list(others), [0.0], []

    def look(seconds: float, server_pids: Any = ()) -> Look:
        clock[0] += seconds
        times.append(seconds)
        return Look(left.pop(0) if len(left) > 1 else left[0], 0.0, ())

    monkeypatch.setattr(quiet, "look", look)
    monkeypatch.setattr(quiet.time, "monotonic", lambda: clock[0])
    return times


def test_waiting_ends_with_the_other_work(monkeypatch: pytest.MonkeyPatch) -> None:
    times = scripted_looks(monkeypatch, 0.9, 0.5, 0.05)
    assert quiet.wait_until_quiet(60.0) is None
    assert len(times) == 3


def test_waiting_gives_up_and_says_who_is_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    times = scripted_looks(monkeypatch, 0.9)
    assert quiet.wait_until_quiet(5.0) == "other work uses 90% of it"
    assert sum(times) == pytest.approx(5.0)


def test_the_process_that_listens_at_an_address_of_this_machine_is_the_server(
    tmp_path: Path,
) -> None:
    with ScriptedServer() as server:
        assert server._process is not None
        assert listening.server_pids(server.grpc_address) == (server._process.pid,)
        port = server.grpc_address.rpartition(":")[2]
        assert listening.server_pids(f"localhost:{port}") == (server._process.pid,)
    assert listening.server_pids(f"127.0.0.1:{port}") is None


def test_another_machines_server_has_no_process_here() -> None:
    assert listening.server_pids("198.51.100.7:8500") == ()


def test_a_server_behind_a_containers_relay_cannot_be_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with ScriptedServer() as server:
        monkeypatch.setattr(listening, "RELAYS", (listening.psutil.Process(
            server._process.pid).name(),))  # type: ignore[union-attr]
        assert listening.server_pids(server.grpc_address) is None


def test_a_record_says_what_disturbed_its_stage(proc: Proc) -> None:
    proc.processes = {1: (0, 0.0)}
    watched = Neighbours(lambda: (), None)
    watched.window_opened(())
    proc.pass_time(4.0, busy_s=4.0)
    watched.window_closed()
    result = watched.judged(replace(measured(1.0, 1.0).stage, details={}))
    assert result.details["disturbed"] == "other work used 50% of the machine in the measured window"
