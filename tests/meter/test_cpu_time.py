"""The estimate, with real processes that burn a known share of the machine."""

from __future__ import annotations

import contextlib
import os
import time

import psutil
import pytest

from tests.contracts.meter_contract import MeterContract
from tuner.meter import CpuTimeMeter, why_not_comparable
from tuner.meter.cpu_share import CpuShares, CpuWindow

CPUS = psutil.cpu_count() or 1
FORKING = """
import os
while True:
    if os.fork() == 0:
        for _ in range(300_000): pass
        os._exit(0)
    os.wait()
"""
TREE = """
import subprocess, sys, time
subprocess.Popen([sys.executable, "-c", "while True: pass"])
time.sleep(60)
"""
ENDS_EARLY = """
import time
end = time.process_time() + 0.5
while time.process_time() < end: pass
"""


def own_cpu_s(pid: int) -> float:
    """CPU seconds of a living process with all its children, by another reader than ours."""
    while True:
        process = psutil.Process(pid)
        family = [process, *process.children(recursive=True)]
        with contextlib.suppress(psutil.NoSuchProcess):  # a child ended meanwhile: look again
            return sum(sum(member.cpu_times()[:4]) for member in family)


def burned_s(*pids: int, at_least_s: float = 1.0) -> list[float]:
    """Waits until the first has burned so much more, and says what each has burned meanwhile."""
    before = [own_cpu_s(pid) for pid in pids]
    deadline = time.monotonic() + 30
    while own_cpu_s(pids[0]) < before[0] + at_least_s:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return [own_cpu_s(pid) - start for pid, start in zip(pids, before)]


def only_child(pid: int) -> psutil.Process:
    """The child, as soon as it burns."""
    deadline = time.monotonic() + 30
    while True:
        assert time.monotonic() < deadline
        children = psutil.Process(pid).children()
        if children and sum(children[0].cpu_times()[:2]) > 0.05:
            return children[0]
        time.sleep(0.05)


class TestContract(MeterContract):
    @pytest.fixture
    def meter(self):
        return CpuTimeMeter(idle_w=10, max_w=50)


def watch(server=(), client=(), seconds=1.0) -> CpuShares:
    window = CpuWindow(server, client)
    time.sleep(seconds)
    return window.close()


def test_the_formula_holds_for_the_shares_it_saw():
    meter = CpuTimeMeter(idle_w=10, max_w=50)
    meter.open(client_pids=[os.getpid()])
    end = time.process_time() + 0.3
    while time.process_time() < end:
        pass
    reading = meter.close()
    told = reading.details
    dynamic_j = 40 * told["busy_share"] * reading.window_s
    assert reading.gross_j == pytest.approx(10 * reading.window_s + dynamic_j)
    assert reading.client_j == pytest.approx(40 * told["client_cpu_s"] / CPUS)
    assert told["client_cpu_s"] == pytest.approx(0.3, abs=0.05)
    parts_j = told["server_dynamic_j"] + reading.client_j + told["rest_dynamic_j"]
    assert parts_j == pytest.approx(dynamic_j)


def test_gross_power_lies_between_idle_and_maximum(burner):
    burner()
    meter = CpuTimeMeter(idle_w=10, max_w=50)
    meter.open()
    time.sleep(0.4)
    assert 10 <= meter.close().average_w <= 50


def test_busy_machine_reads_as_busy(burner):
    for _ in range(CPUS):
        burner()
    time.sleep(0.2)
    assert watch(seconds=0.8).busy_share > 0.9


def test_sleeping_processes_burn_nothing(burner):
    server, client = (burner("import time; time.sleep(60)") for _ in range(2))
    time.sleep(0.3)
    shares = watch([server], [client], 0.5)
    assert shares.server_s + shares.client_s <= 0.03


@pytest.mark.parametrize("code", ["while True: pass", TREE, FORKING], ids=["one", "tree", "forks"])
def test_all_that_a_server_burns_is_the_servers(burner, code):
    server, client = burner(code), burner("import time; time.sleep(60)")
    time.sleep(0.4)
    window = CpuWindow([server], [client])
    (expected_s,) = burned_s(server)
    shares = window.close()
    assert shares.server_s == pytest.approx(expected_s, rel=0.15, abs=0.04)
    assert shares.client_s <= 0.03


def test_client_and_server_are_told_apart(burner):
    server, client = burner(), burner()
    time.sleep(0.2)
    window = CpuWindow([server], [client])
    expected_s = burned_s(server, client)
    shares = window.close()
    assert [shares.server_s, shares.client_s] == pytest.approx(expected_s, rel=0.15, abs=0.04)


def test_a_client_that_ends_inside_the_window_keeps_what_it_burned(burner):
    client = burner(ENDS_EARLY)
    window = CpuWindow([], [client])
    deadline = time.monotonic() + 20
    while psutil.Process(client).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert 0.35 < window.close().client_s < 0.65


def test_a_process_that_was_reaped_inside_the_window_counts_as_last_seen(monkeypatch):
    for period in ("SAMPLE_PERIOD_S", "SCAN_PERIOD_S"):
        monkeypatch.setattr(f"tuner.meter.cpu_share.{period}", 0.02)
    client = psutil.Popen([os.sys.executable, "-c", ENDS_EARLY])
    window = CpuWindow([], [client.pid])
    client.wait(20)
    assert 0.3 < window.close().client_s < 0.65


def test_a_server_below_the_client_stays_the_servers(burner):
    client = burner(TREE)
    server = only_child(client)
    window = CpuWindow([server.pid], [client])
    (expected_s,) = burned_s(server.pid)
    shares = window.close()
    assert shares.server_s == pytest.approx(expected_s, rel=0.15, abs=0.04)
    assert shares.client_s <= 0.03


def test_an_orphan_stays_in_the_tree_it_was_seen_in(burner):
    parent = burner(TREE)
    child = only_child(parent)
    try:
        window = CpuWindow([parent], [])
        psutil.Process(parent).kill()
        (expected_s,) = burned_s(child.pid)
        assert window.close().server_s == pytest.approx(expected_s, rel=0.15, abs=0.06)
    finally:
        child.kill()


def test_estimates_with_other_constants_are_not_comparable():
    one, same, other = CpuTimeMeter(10, 50), CpuTimeMeter(10, 50), CpuTimeMeter(10, 60)
    readings = []
    for meter in (one, same, other):
        meter.open()
        readings.append(meter.close())
    assert why_not_comparable(readings[0], readings[1]) is None
    assert why_not_comparable(readings[0], readings[2]) == "model_max_w: 50.0 and 60.0"
