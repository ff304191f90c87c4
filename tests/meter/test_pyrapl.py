"""The RAPL reader through the real pyRAPL, on a powercap tree mounted where pyRAPL looks."""

from __future__ import annotations

import os
import time

import pytest

from tests.contracts.meter_contract import MeterContract
from tests.meter.powercap_tree import mount_topology, mounted_tree
from tuner.errors import UnavailableError
from tuner.meter import PyRaplMeter, RaplMeter, choose

pyRAPL = pytest.importorskip("pyRAPL", reason="pyRAPL is not installed (extra: rapl)")
pytestmark = pytest.mark.private_mounts


class TestContract(MeterContract):
    @pytest.fixture
    def meter(self):
        mount_topology([0, 0])
        tree = mounted_tree()
        with tree.running({"package-0": 60, "package-0/dram": 8}):
            time.sleep(0.1)
            yield PyRaplMeter()


def test_it_reads_what_the_direct_reader_reads():
    mount_topology([0, 0, 1, 1])
    tree = mounted_tree(sockets=2, psys=True)
    through, direct = choose("pyrapl"), RaplMeter()
    through.open()
    direct.open()
    watts = {"package-0": 100, "package-1": 80, "package-0/dram": 10, "package-1/dram": 5}
    with tree.running({**watts, "package-0/core": 90, "psys": 300}, steps=50):
        pass
    one, other = through.close(), direct.close()
    assert one.source == "pyrapl"
    assert one.details["domain_j"] == pytest.approx(other.details["domain_j"])
    assert one.gross_j == pytest.approx(39)


@pytest.mark.parametrize("sockets", [1, 2])
def test_pyrapls_own_measurement_is_lost_or_negative_after_a_wrap(sockets):
    # The reason why only its Sensor is used; when this fails, pyRAPL has learnt to wrap.
    mount_topology(list(range(sockets)))
    tree = mounted_tree(sockets=sockets, inside=(), start_j=262_140)
    pyRAPL.setup()
    measurement = pyRAPL.Measurement("wrap")
    measurement.begin()
    tree.set("package-0", 5)
    measurement.end()
    packages = measurement.result.pkg
    assert packages is None if sockets == 1 else packages[0] < 0


def test_a_counter_that_wraps_in_the_window_is_followed():
    mount_topology([0, 0])
    tree = mounted_tree(range_j=2000, start_j=1990, inside=("dram",))
    meter = PyRaplMeter()
    meter.open()
    with tree.running({"package-0": 250, "package-0/dram": 5}, steps=50):
        pass
    assert meter.close().gross_j == pytest.approx(51)


def test_a_window_longer_than_a_wrap_counts_every_round():
    mount_topology([0, 0])
    tree = mounted_tree(range_j=1200, start_j=700, inside=())
    meter = PyRaplMeter()
    meter.open()
    with tree.running({"package-0": 1500}, steps=500):
        pass
    assert meter.close().gross_j == pytest.approx(3000)


def test_a_zone_taken_away_inside_the_window_is_an_error_though_pyrapl_keeps_it_open():
    mount_topology([0, 0])
    tree = mounted_tree()
    meter = PyRaplMeter()
    meter.open()
    tree.take_away("package-0")
    with pytest.raises(UnavailableError, match=r"intel-rapl:0/max_energy_range_uj: cannot be read"):
        meter.close()


def test_the_users_error_says_how_to_get_permission():
    mount_topology([0, 0])
    tree = mounted_tree()
    (tree.zones["package-0"] / "energy_uj").chmod(0o400)
    try:
        os.seteuid(65534)
    except OSError:
        pytest.skip("this user cannot become another one in the namespace")
    try:
        with pytest.raises(UnavailableError, match="permission denied.*CVE-2020-8694.*chmod"):
            PyRaplMeter()
    finally:
        os.seteuid(0)


@pytest.mark.parametrize(
    ("sockets", "layout"),
    [
        pytest.param([0, 1], {"sockets": 1}, id="a socket without a zone"),
        pytest.param(
            [0, 0], {"packages": ["package-0-die-0", "package-0-die-1"]}, id="several dies"
        ),
    ],
)
def test_a_machine_that_pyrapl_cannot_read_is_sent_to_the_direct_reader(sockets, layout):
    mount_topology(sockets)
    mounted_tree(**layout)
    with pytest.raises(UnavailableError, match="use the direct reader: energy source rapl"):
        PyRaplMeter()
    assert RaplMeter().domains


def test_a_processor_that_is_offline_is_beyond_pyrapl():
    mount_topology([0, 0])
    with open("/sys/devices/system/cpu/present", "w") as file:
        file.write("0-2\n")
    mounted_tree()
    with pytest.raises(UnavailableError, match="FileNotFoundError.*energy source rapl"):
        PyRaplMeter()
