"""Who burned how much, to the tick, on a scripted /proc; and what is done where it does not fit."""

from __future__ import annotations

import time

import psutil
import pytest

from tests.meter.scripted_proc import ScriptedProc
from tuner.meter import CpuTimeMeter, cpu_share
from tuner.meter.cpu_share import CpuShares, CpuWindow
from tuner.meter.machine_stat import (
    MachineTimes,
    online_cpus,
    read_machine,
    why_not_the_machines,
)
from tuner.meter.processes import ProcessTree, all_processes, read_process

SERVER, CLIENT, OTHER = 10, 20, 30


class Unwatched:
    """Nobody looks in between, unless the test does."""

    def __init__(self, function, period_s) -> None:
        self.period_s, self.ends = period_s, []

    def stop(self) -> None:
        self.ends.append("stop")

    def cancel(self) -> None:
        self.ends.append("cancel")


@pytest.fixture
def proc(tmp_path, monkeypatch) -> ScriptedProc:
    monkeypatch.setattr(cpu_share, "Background", Unwatched)
    scripted = ScriptedProc(tmp_path / "proc")
    for pid, ticks in ((1, 11), (SERVER, 500), (CLIENT, 70), (OTHER, 3000)):
        scripted.process(pid, parent=0 if pid == 1 else 1, ticks=(ticks, 0, 0, 0))
    return scripted


def window(proc: ScriptedProc, server=(SERVER,), client=(CLIENT,)) -> CpuWindow:
    return CpuWindow(server, client, proc=proc.folder, cpus=proc.cpus, clock=proc.clock)


def burn(proc: ScriptedProc, seconds: float, server=0, client=0, other=0, **more: int) -> None:
    """So many ticks each, told by the processes and by the machine."""
    for pid, ticks in ((SERVER, server), (CLIENT, client), (OTHER, other)):
        proc.process(pid, ticks=(proc.processes[pid][0] + ticks, 0, 0, 0))
    proc.passes(seconds, user=server + client + other, **more)


def test_every_second_is_somebodys(proc):
    opened = window(proc)
    burn(proc, 10.0, 300, 100, 250, system=50, iowait=30, steal=40)
    shares = opened.close()
    assert shares.window_s == 10.0 and shares.cpus == 2
    assert shares.server_s == pytest.approx(3.0) and shares.client_s == pytest.approx(1.0)
    assert shares.busy_s == pytest.approx(7.0) and shares.rest_s == pytest.approx(3.0)
    assert shares.busy_share == pytest.approx(0.35) and shares.rest_share == pytest.approx(0.15)
    assert shares.steal_s == pytest.approx(0.4)
    assert shares.missing_pids == () and shares.server_told is True
    assert shares.not_the_machines is None and shares.untold is None
    assert shares.details() == {
        "cpus": 2, "busy_share": pytest.approx(0.35), "server_cpu_s": pytest.approx(3.0),
        "client_cpu_s": pytest.approx(1.0), "rest_cpu_s": pytest.approx(3.0),
        "steal_cpu_s": pytest.approx(0.4), "missing_pids": [], "busy_from": "/proc/stat",
    }


def test_looks_inside_the_window_are_kept_as_they_were(proc):
    opened = window(proc)
    burn(proc, 1.0, 50, 10, 0, system=5)
    opened._sample()
    burn(proc, 1.5, 20, 30, 40)
    shares = opened.close()
    told = [(k.elapsed_s, k.busy_s, k.server_s, k.client_s) for k in shares.looks]
    assert told == [
        (0.0, 0.0, 0.0, 0.0), pytest.approx((1.0, 0.65, 0.5, 0.1)),
        pytest.approx((2.5, 1.55, 0.7, 0.4)),
    ]
    assert (shares.busy_s, shares.server_s, shares.client_s) == pytest.approx((1.55, 0.7, 0.4))


def test_a_window_that_ends_is_looked_at_no_more(proc):
    closed, abandoned, unwatched = window(proc), window(proc), window(proc, server=(), client=())
    proc.passes(1.0)
    closed.close()
    unwatched.close()
    abandoned.abandon()
    assert (closed._background.ends, abandoned._background.ends) == (["stop"], ["cancel"])
    window(proc, server=(), client=()).abandon()


def test_parts_that_exceed_all_cpus_by_a_step_are_scaled_to_fit(proc):
    """Server and client told 2.1 CPU seconds in a second of two CPUs: each gives its share."""
    opened = window(proc)
    for pid, ticks in ((SERVER, 500 + 140), (CLIENT, 70 + 70)):
        proc.process(pid, ticks=(ticks, 0, 0, 0))
    proc.passes(1.0, user=200)
    shares = opened.close()
    assert shares.busy_s == 2.0 and shares.rest_s == pytest.approx(0.0)
    assert shares.server_s == pytest.approx(140 / 210 * 2.0)
    assert shares.client_s == pytest.approx(70 / 210 * 2.0)
    assert shares.looks[-1].server_s == shares.server_s


def test_parts_that_exceed_what_was_busy_by_a_step_count_as_busy(proc):
    opened = window(proc)
    burn(proc, 1.0, 60, 20)
    proc.machine["user"] -= 3
    proc.machine["idle"] += 3
    proc.write_machine()
    shares = opened.close()
    assert shares.busy_s == pytest.approx(0.8)
    assert (shares.server_s, shares.client_s) == pytest.approx((0.6, 0.2))


def test_nobody_burns_less_than_nothing(proc):
    """The kernel adds up idle time in steps: it may run ahead of the clock."""
    opened = window(proc)
    proc.passes(1.0)
    proc.machine["idle"] += 2
    proc.write_machine()
    shares = opened.close()
    assert shares.busy_s == 0.0 and shares.busy_share == 0.0


def test_the_time_of_children_moves_to_who_waits_for_them(proc):
    proc.process(11, parent=SERVER, ticks=(40, 0, 0, 0))
    opened = window(proc)
    proc.process(12, parent=11, start=9, ticks=(15, 5, 0, 0))
    proc.passes(1.0, user=20)
    opened._sample()
    proc.end(12)
    proc.end(11)
    proc.process(SERVER, ticks=(500, 0, 60, 15))  # 40 before, 35 inside
    proc.passes(1.0, user=15)
    shares = opened.close()
    assert shares.server_s == pytest.approx(0.35) and shares.busy_s == pytest.approx(0.35)
    assert shares.server_processes == 3


def test_a_server_that_is_out_of_sight_is_told_as_missing(proc):
    opened = window(proc, server=(99,), client=(98, CLIENT))
    burn(proc, 1.0, 10, 20, 30)
    shares = opened.close()
    assert shares.missing_pids == (99, 98) and shares.server_told is False
    assert (shares.server_s, shares.client_s, shares.busy_s) == pytest.approx((0, 0.2, 0.6))


def test_without_a_server_nothing_is_said_of_it(proc):
    opened = window(proc, server=())
    burn(proc, 1.0, 10, 20, 30)
    shares = opened.close()
    assert shares.server_told is None and shares.rest_s == pytest.approx(0.4)


ZEROS = "cpu  0 0 0 0 0 0 0 0 0 0\ncpu0 0 0 0 0 0 0 0 0 0 0\n"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (ZEROS, "/proc/stat holds zeros"),
        ("", "cannot be read"),
        ("cpu  lots\n", "cannot be read"),
        ("cpu0 5000 0 700 90000\n", "cannot be read"),
        ("cpu  1 2 3\n", "cannot be read"),
        (None, "advanced by 0 s of CPU time in 10 s on 2 CPUs"),  # stands still
        ("cpu  5600 0 700 90350 300 0 40 110 900 0\n", "advanced by 10 s of CPU time"),  # one CPU
        ("cpu  5650 0 700 167350 300 0 40 60 900 0\n", "advanced by 780 s of CPU time"),  # 78 CPUs
        ("cpu  5100 0 700 91900 300 0 40 60 900 0\n", "6.5 s of CPU time, of which /proc/stat"),
    ],
)
def test_where_proc_stat_is_not_the_machines_the_processes_own_time_counts(proc, text, says):
    opened = window(proc)
    before = (proc.folder / "stat").read_text()
    burn(proc, 10.0, 300, 100, 250)
    proc.write_machine(before if text is None else text)
    shares = opened.close()
    assert says in shares.not_the_machines and says in shares.details()["busy_from"]
    assert (shares.server_s, shares.client_s) == pytest.approx((3.0, 1.0))
    assert shares.busy_s == pytest.approx(6.5) and shares.rest_s == pytest.approx(2.5)
    assert shares.steal_s == 0.0 and shares.untold is None


def machine_of(cpus: int, at_s: float, *, whole: float | None = None, lacking=(), still=()):
    """All CPUs idle, told at ``at_s``; the first line is of ``whole`` CPUs."""
    each = {n: 7.0 if n in still else at_s for n in range(cpus) if n not in lacking}
    total_s = at_s * (len(each) if whole is None else whole)
    return MachineTimes(total_s, total_s, 0.0, each)


@pytest.mark.parametrize(
    ("start", "end", "says"),
    [
        ({}, {}, None),
        ({"lacking": [17]}, {"lacking": [17]}, "shows 31 of the 32 CPUs that are online, not CPU 17"),
        ({"lacking": range(32)}, {"lacking": range(32), "whole": 32}, "shows 0 of the 32 CPUs"),
        ({}, {"lacking": [3]}, "shows 32 CPUs before the window and 31 after"),
        ({"still": [4, 9]}, {"still": [4, 9]}, "the time of CPU 4, 9 does not go on in /proc/stat"),
        ({"whole": 31}, {"whole": 31}, "tells 310 s of CPU time of all CPUs, and 320 s"),
    ],
)
def test_one_cpu_of_32_that_is_not_shown_is_found(start, end, says):
    start.setdefault("whole", 32 if not start.get("lacking") else None)
    first, last = machine_of(32, 100.0, **start), machine_of(32, 110.0, **end)
    if start.get("lacking") == range(32):
        first = machine_of(32, 100.0, lacking=range(32), whole=32)
    if end.get("lacking") == [3]:
        last = machine_of(32, 110.0, lacking=[3], whole=31.99)
    why = why_not_the_machines(first, last, range(32), 10.0, 0.0)
    assert why is None if says is None else says in why


def test_cpus_that_are_offline_are_not_missed(tmp_path):
    file = tmp_path / "online"
    file.write_text("0-3,8\n")
    assert online_cpus(file) == {0, 1, 2, 3, 8}
    first, last = (
        MachineTimes(5 * t + 900, 5 * t, 0.0, dict.fromkeys((0, 1, 2, 3, 8), t)) for t in (50.0, 60.0)
    )
    assert why_not_the_machines(first, last, online_cpus(file), 10.0, 0.0) is None
    more = range(5)
    assert "not CPU 4, and CPU 8, which is not" in why_not_the_machines(first, last, more, 10.0, 0.0)


@pytest.mark.parametrize("text", ["", "all\n", None])
def test_where_sys_does_not_tell_who_is_online_the_systems_number_counts(tmp_path, text):
    file = tmp_path / "online"
    if text is not None:
        file.write_text(text)
    assert len(online_cpus(file)) == psutil.cpu_count()


def test_others_are_not_charged_with_the_time_of_a_cpu_that_is_not_shown(proc):
    """31 of 32: /proc/stat's sum is 3 % short, which taken as busy is one CPU's whole time."""
    proc.cpus = 32
    proc.write_machine()
    opened = window(proc)
    burn(proc, 10.0, 300, 100, 250)
    proc.machine["idle"] -= 1000
    proc.write_machine()
    text = (proc.folder / "stat").read_text().replace("cpu17 ", "cup17 ")
    proc.write_machine(text)
    shares = opened.close()
    assert "/proc/stat" in shares.not_the_machines and shares.cpus == 32
    assert shares.rest_s == pytest.approx(2.5)


def test_this_machines_own_stat_is_believed():
    opened = CpuWindow()
    time.sleep(1.1)
    assert opened.close().not_the_machines is None


def test_a_process_that_somebody_outside_sent_in_is_others_work(proc):
    """As `docker exec` does: its parent lies outside, so no tree that was seen before leads to it."""
    opened = window(proc)
    burn(proc, 10.0, 300, 100)
    proc.process(40, parent=0, start=900, ticks=(150, 0, 0, 0))
    proc.write_machine(ZEROS)
    assert opened.close().rest_s == pytest.approx(1.5)


@pytest.mark.parametrize(
    ("server", "stat", "says"),
    [
        ((99,), ZEROS, "the server's processes are out of sight, and /proc/stat holds zeros"),
        ((SERVER,), None, "no process burned any CPU time in 10 s"),
        ((SERVER,), ZEROS, "no process burned any CPU time in 10 s"),
    ],
)
def test_where_nobody_tells_the_servers_time_there_is_no_result(proc, server, stat, says):
    opened = window(proc, server=server)
    proc.passes(10.0, user=900)
    if stat:
        proc.write_machine(stat)
    assert says in opened.close().untold


def test_a_second_without_a_tick_is_enough_to_refuse(proc):
    opened = window(proc)
    proc.passes(1.0)
    assert opened.close().untold == "no process burned any CPU time in 1 s, by /proc/PID/stat"


def test_server_and_client_are_looked_at_four_times_a_second_and_all_others_once(
    proc, monkeypatch
):
    scans = []
    monkeypatch.setattr(
        cpu_share, "all_processes", lambda folder: scans.append(proc.now_s) or all_processes(folder)
    )
    opened = window(proc)
    for look in range(8):
        burn(proc, 0.25, server=10 + look, client=5, other=1)
        opened._sample()
    assert scans == [1000.0, 1001.0, 1002.0]
    looks = opened.close().looks
    assert [round(look.server_s, 2) for look in looks[:4]] == [0.0, 0.10, 0.21, 0.33]
    assert [round(look.client_s, 2) for look in looks[:4]] == [0.0, 0.05, 0.10, 0.15]


def test_a_child_that_ends_between_two_looks_at_the_known_is_counted_once(proc):
    proc.process(11, parent=SERVER, ticks=(40, 0, 0, 0))
    opened = window(proc)
    proc.process(11, parent=SERVER, ticks=(55, 0, 0, 0))
    proc.passes(0.25, user=15)
    opened._sample()
    proc.end(11)
    proc.process(SERVER, ticks=(500, 0, 60, 0))
    proc.passes(0.25, user=5)
    opened._sample()
    proc.process(12, parent=SERVER, start=9, ticks=(10, 0, 0, 0))
    proc.passes(0.25, user=10)
    opened._sample()  # a child that nobody knows yet
    shares = opened.close()
    assert [look.server_s for look in shares.looks] == pytest.approx([0, 0.15, 0.20, 0.20, 0.30])


def test_processes_are_looked_at_where_there_are_any_to_look_at(proc):
    assert window(proc)._background.period_s == 0.25
    assert window(proc, server=())._background is not None
    assert window(proc, server=(), client=())._background is None


def test_a_short_or_serverless_window_without_a_tick_is_no_reason_to_refuse(proc):
    for server, seconds in (((SERVER,), 0.9), ((), 10.0)):
        opened = window(proc, server=server)
        proc.passes(seconds)
        assert opened.close().untold is None


def test_how_far_the_parts_may_be_apart_is_a_tenth_and_a_step_of_each_cpu():
    def told(total_s, busy_s=0.0, seen_s=0.0):
        start = MachineTimes(50.0, 40.0, 0.0, {0: 25.0, 1: 25.0})
        each_s = 25 + total_s / 2
        end = MachineTimes(50 + total_s, 60 - busy_s, 0.0, {0: each_s, 1: each_s})
        return why_not_the_machines(start, end, {0, 1}, 10.0, seen_s)

    assert told(20.0) is None
    assert told(22.09) is None and told(17.91) is None  # 10 % of 20 s and 2 x 50 ms
    assert "advanced by 22.2 s" in told(22.15) and "advanced by 17.8 s" in told(17.85)
    assert told(20.0, 3.0, 5.09) is None
    assert "burned 5.15 s of CPU time, of which /proc/stat shows 3 s" in told(20.0, 3.0, 5.15)


def test_the_first_line_of_stat_is_told_in_seconds(proc):
    assert read_machine(proc.folder) == MachineTimes(
        pytest.approx(961.0), pytest.approx(903.0), pytest.approx(0.6),
        {0: pytest.approx(480.5), 1: pytest.approx(480.5)},
    )
    proc.write_machine("cpu 100 0 0 200\ncpu3 100 0 0 150\ncpufreq 7\n")  # Linux 2.4
    assert read_machine(proc.folder) == MachineTimes(3.0, 2.0, 0.0, {3: 2.5})


def test_one_line_of_a_process_is_read_to_the_tick(proc):
    proc.process(77, parent=5, start=123, ticks=(1, 20, 300, 4000))
    found = read_process(77, proc.folder)
    assert found.identity == (77, 123) and found.parent == 5
    assert found.cpu_s == pytest.approx(43.21)
    assert read_process(78, proc.folder) is None
    assert sorted(all_processes(proc.folder)) == [1, 10, 20, 30, 77]


def test_a_number_given_again_is_another_process(proc):
    tree = ProcessTree([SERVER], (), all_processes(proc.folder))
    proc.process(SERVER, start=99, ticks=(9000, 0, 0, 0))
    tree.sample(all_processes(proc.folder))
    assert tree.cpu_s == 0.0


def estimate(proc: ScriptedProc, monkeypatch, *, server=(SERVER,)) -> CpuTimeMeter:
    meter = CpuTimeMeter(idle_w=10, max_w=50)
    monkeypatch.setattr(
        "tuner.meter.cpu_time.CpuWindow", lambda one, other: window(proc, one, other)
    )
    meter.open(server, [CLIENT])
    return meter


def test_the_estimate_charges_serving_with_idle_power_and_its_own_work(proc, monkeypatch):
    meter = estimate(proc, monkeypatch)
    burn(proc, 10.0, 300, 100, 250, system=50)
    meter.idle_w = 10.0
    reading = meter.close()
    # 20 J for each CPU second.
    assert reading.gross_j == pytest.approx(10 * 10 + 20 * 7)
    assert reading.client_j == pytest.approx(20) and reading.others_j == pytest.approx(60)
    assert reading.server_j == pytest.approx(160) and reading.net_j == pytest.approx(60)
    assert reading.details["server_dynamic_j"] == pytest.approx(60)
    assert reading.details["rest_dynamic_j"] == pytest.approx(60)
    assert reading.resolution_j == pytest.approx(20 * 2 * 0.01)
    assert reading.invalid is None and reading.domains == ("cpu",)


def test_other_work_does_not_change_what_serving_is_charged_with(proc, monkeypatch):
    charged = []
    for other in (0, 1500):
        meter = estimate(proc, monkeypatch)
        burn(proc, 10.0, 300, 100, other)
        charged.append(meter.close().server_j)
    assert charged == pytest.approx([160, 160])


def test_the_estimate_is_the_same_with_a_stat_full_of_zeros(proc, monkeypatch):
    meter = estimate(proc, monkeypatch)
    burn(proc, 10.0, 300, 100, 250)
    proc.write_machine(ZEROS)
    reading = meter.close()
    assert reading.server_j == pytest.approx(160) and reading.others_j == pytest.approx(50)
    assert "zeros" in reading.details["busy_from"] and reading.invalid is None


def test_a_server_out_of_sight_is_charged_with_all_but_the_client_and_it_is_told(
    proc, monkeypatch
):
    meter = estimate(proc, monkeypatch, server=(99,))
    burn(proc, 10.0, 300, 100, 250)
    reading = meter.close()
    assert reading.others_j is None and reading.server_j == pytest.approx(100 + 20 * 5.5)
    assert reading.resolution_j == pytest.approx(20 * 2 * 0.01)


def test_the_estimate_refuses_where_nobody_tells_the_servers_time(proc, monkeypatch):
    meter = estimate(proc, monkeypatch, server=(99,))
    burn(proc, 10.0, 300, 100, 250)
    proc.write_machine(ZEROS)
    reading = meter.close()
    assert "out of sight" in reading.invalid
    assert reading.why_no_result == ("energy_untold", reading.invalid)


def test_shares_are_parts_of_the_time_of_all_cpus():
    shares = CpuShares(4.0, 8, 16.0, 2.0, 1.0, 0.5, (5,))
    assert shares.busy_share == 0.5 and shares.rest_s == 13.0
    assert shares.rest_share == pytest.approx(13 / 32)
    assert shares.server_processes == 1 and shares.looks == ()
    assert shares.details()["missing_pids"] == [5] and shares.details()["steal_cpu_s"] == 0.5
