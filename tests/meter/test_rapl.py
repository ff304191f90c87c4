"""The direct RAPL reader, on a powercap tree whose counters a process advances and takes away."""

from __future__ import annotations

import importlib
import os
import threading
import time

import pytest

from tests.contracts.meter_contract import MeterContract
from tests.meter.powercap_tree import PowercapTree, mounted_tree
from tuner.errors import UnavailableError
from tuner.meter import RaplMeter, choose, measure_idle, sources
from tuner.meter.cpu_share import CpuShares


@pytest.fixture
def tree(tmp_path):
    return PowercapTree(tmp_path / "powercap", psys=True)


class TestContract(MeterContract):
    @pytest.fixture
    def meter(self, tree, tmp_path):
        with tree.running({"package-0": 60, "package-0/dram": 8}):
            time.sleep(0.1)  # the writer's start-up
            yield RaplMeter(tmp_path / "powercap")


@pytest.mark.private_mounts
def test_at_the_kernels_own_place_it_is_found_and_preferred():
    tree = mounted_tree()
    assert isinstance(choose("auto"), RaplMeter)
    assert ("rapl", True, "counters of package-0, dram-0") in sources()
    meter = choose("rapl")
    meter.open()
    with tree.running({"package-0": 50, "package-0/dram": 10}, steps=50):
        pass
    reading = meter.close()
    assert reading.source == "rapl" and reading.method == "counter"
    assert reading.gross_j == pytest.approx(50 * 0.2 + 10 * 0.2)


@pytest.mark.private_mounts
def test_the_users_error_says_how_to_get_permission(monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", "/nonexistent")
    tree = mounted_tree()
    for zone in tree.zones.values():
        (zone / "energy_uj").chmod(0o400)
    try:
        os.seteuid(65534)
    except OSError:
        pytest.skip("this user cannot become another one in the namespace")
    try:
        with pytest.raises(UnavailableError) as caught:
            choose("rapl")
        assert choose("auto").name == "cpu_time"
    finally:
        os.seteuid(0)
    message = str(caught.value)
    assert "energy_uj: permission denied" in message
    assert "CVE-2020-8694" in message and "chmod" in message


@pytest.mark.private_mounts
@pytest.mark.parametrize("part", ["package-0", "package-0/dram"])
def test_a_zone_taken_away_inside_the_window_is_no_number_and_takes_no_package_away(part):
    tree = mounted_tree()
    meter = RaplMeter()
    with tree.running({"package-0": 50}):
        meter.open()
        time.sleep(0.3)
        tree.take_away(part)
        if part == "package-0":
            with pytest.raises(UnavailableError, match=r"intel-rapl:0/energy_uj: cannot be read"):
                meter.close()
        else:
            reading = meter.close()
            assert reading.domains == ("package-0",) and reading.gross_j > 0
            missing = reading.details["domains_missing"]["dram-0"]
            assert "intel-rapl:0:2/energy_uj: cannot be read" in missing
    with pytest.raises(RuntimeError):
        meter.close()


def test_every_socket_and_its_memory_are_added_up_and_nothing_twice(tmp_path):
    tree = PowercapTree(tmp_path / "powercap", sockets=2, psys=True)
    meter = RaplMeter(tmp_path / "powercap")
    meter.open()
    watts = {"package-0": 100, "package-1": 80, "package-0/dram": 10, "package-1/dram": 5}
    inside = {"package-0/core": 70, "package-0/uncore": 9, "package-1/core": 60, "psys": 300}
    with tree.running({**watts, **inside}, steps=50):
        pass
    reading = meter.close()
    assert reading.domains == ("package-0", "dram-0", "package-1", "dram-1")
    assert reading.details["domain_j"] == pytest.approx(
        {"package-0": 20, "dram-0": 2, "package-1": 16, "dram-1": 1}
    )
    assert reading.gross_j == pytest.approx(39)


def test_packages_of_several_dies_are_all_counted(tmp_path):
    PowercapTree(
        tmp_path / "powercap", packages=["package-0-die-0", "package-0-die-1"], inside=["dram"]
    )
    meter = RaplMeter(tmp_path / "powercap")
    assert meter.domains == (
        "package-0-die-0",
        "dram-0-die-0",
        "package-0-die-1",
        "dram-0-die-1",
    )


def test_a_counter_that_wraps_in_the_window_is_followed(tmp_path):
    tree = PowercapTree(tmp_path / "powercap", range_j=2000, start_j=1990, inside=())
    meter = RaplMeter(tmp_path / "powercap")
    meter.open()
    with tree.running({"package-0": 250}, steps=50):
        pass
    assert meter.close().gross_j == pytest.approx(50)


def test_a_window_longer_than_a_wrap_counts_every_round(tmp_path):
    tree = PowercapTree(tmp_path / "powercap", range_j=1200, start_j=700, inside=())
    meter = RaplMeter(tmp_path / "powercap")
    meter.open()
    with tree.running({"package-0": 1500}, steps=500):
        pass
    reading = meter.close()
    assert reading.gross_j == pytest.approx(3000)
    assert reading.samples > 5


def test_a_counter_that_is_reset_is_an_error_not_a_wrap(tree, tmp_path):
    meter = RaplMeter(tmp_path / "powercap")
    meter.open()
    tree.set("package-0", 0)
    with pytest.raises(UnavailableError, match="package-0: the counter jumped from 100 J to 0 J"):
        meter.close()


def test_a_window_in_which_nobody_could_look_often_enough_is_an_error(tmp_path, monkeypatch):
    PowercapTree(tmp_path / "powercap", range_j=200)
    monkeypatch.setattr("tuner.meter.counters.Background", lambda function, period_s: _Asleep())
    meter = RaplMeter(tmp_path / "powercap")
    meter.open()
    time.sleep(0.15)
    with pytest.raises(UnavailableError, match="may have gone round"):
        meter.close()


class _Asleep:
    def stop(self) -> None: ...


def test_a_failed_window_leaves_no_thread_and_the_meter_works_again(tree, tmp_path):
    before = threading.active_count()
    meter = RaplMeter(tmp_path / "powercap")
    meter.open(server_pids=[os.getpid()])
    tree.set("package-0", 0)
    with pytest.raises(UnavailableError):
        meter.close()
    assert threading.active_count() == before
    meter.open()
    tree.set("package-0", 5)
    assert meter.close().gross_j == pytest.approx(5)


def test_garbage_in_a_counter_is_named(tree, tmp_path):
    (tree.zones["package-0"] / "energy_uj").write_text("lots\n")
    with pytest.raises(
        UnavailableError, match="intel-rapl:0/energy_uj: holds 'lots', not a number"
    ):
        RaplMeter(tmp_path / "powercap")


def test_a_machine_without_rapl_says_so_and_what_comes_nearest(tmp_path):
    with pytest.raises(UnavailableError, match="does not exist.*cpu_time"):
        RaplMeter(tmp_path / "powercap")


def test_a_tree_with_the_platform_only_is_not_taken_for_the_processor(tmp_path):
    PowercapTree(tmp_path / "powercap", packages=["psys"])
    with pytest.raises(UnavailableError, match="no package domain"):
        RaplMeter(tmp_path / "powercap")


def test_the_clients_share_is_an_attribution_of_what_lies_above_idle(tree, tmp_path, burner):
    client = burner()
    meter = RaplMeter(tmp_path / "powercap")
    with tree.running({"package-0": 100}):
        time.sleep(0.1)
        meter.open(client_pids=[client])
        time.sleep(0.6)
        untold = meter.close()
        meter.idle_w = 2.0
        meter.open(client_pids=[client])
        time.sleep(0.6)
        told = meter.close()
    assert untold.client_j is None and "baseline" in untold.details["client_j_from"]
    share = told.details["client_cpu_s"] / (told.details["busy_share"] * 2 * told.window_s)
    assert 0 < share <= 1
    dynamic_j = told.gross_j - 2 * told.window_s
    assert told.client_j == pytest.approx(share * dynamic_j, rel=0.05)
    assert "attributed, not measured" in told.details["client_j_from"]


class Shared:
    """A window in which others used these shares of the machine in turn, the last one for ever."""

    shares: list[float]

    def __init__(self, server_pids, client_pids):
        pass

    def close(self):
        rest = self.shares.pop(0) if len(self.shares) > 1 else self.shares[0]
        return CpuShares(1.0, 2, 2 * rest, 0.0, 0.0, 0.0, ())


def others_use(monkeypatch, *shares):
    Shared.shares = list(shares)
    module = importlib.import_module("tuner.meter.sources")
    monkeypatch.setattr(module, "CpuWindow", Shared)


def test_the_idle_baseline_is_the_average_power_of_a_quiet_window(tree, tmp_path, monkeypatch):
    others_use(monkeypatch, 0.02)
    meter = RaplMeter(tmp_path / "powercap")
    with tree.running({"package-0": 100}):
        time.sleep(0.1)
        assert 0 < measure_idle(meter, 0.5) <= 101  # a writer that is held up draws less


def test_a_baseline_from_a_busy_machine_is_measured_again(tree, tmp_path, monkeypatch):
    others_use(monkeypatch, 0.9, 0.5, 0.02)
    with tree.running({"package-0": 100}):
        assert measure_idle(RaplMeter(tmp_path / "powercap"), 0.3, wait_s=60) > 0
    assert Shared.shares == [0.02]


def test_a_machine_that_stays_busy_gives_no_baseline(tree, tmp_path, monkeypatch):
    others_use(monkeypatch, 0.64)
    meter = RaplMeter(tmp_path / "powercap")
    with tree.running({"package-0": 100}), pytest.raises(UnavailableError, match="other work used 64% of the machine.*rapl cannot"):
        measure_idle(meter, 0.3, wait_s=0.1)
    assert meter.idle_interval_w is None
