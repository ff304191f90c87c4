"""Hardware counters to the microjoule: scripted values, scripted looks."""

from __future__ import annotations

import os
import threading
import time

import pytest

from tests.meter.powercap_tree import PowercapTree
from tuner.errors import UnavailableError
from tuner.meter import RaplMeter, counter_meter
from tuner.meter.counter_meter import client_share_j, others_share
from tuner.meter.counters import Counter, CounterWindow
from tuner.meter.cpu_share import CpuShares
from tuner.meter.mirrors import Mirrors
from tuner.meter.powercap import PowercapCounter, find_zones
from tuner.meter.uncertainty import mean_half_width


class Scripted(Counter):
    """Shows the value that the test sets."""

    def __init__(self, name: str, joules: float = 100.0, range_j: float = 65_532.610987) -> None:
        self.name, self.range_j, self.joules = name, range_j, joules

    def read_j(self) -> float:
        return self.joules


class Unwatched:
    def __init__(self, function, period_s) -> None:
        self.period_s = period_s

    def stop(self) -> None: ...

    cancel = stop


class Clock:
    now_s = 50.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock(monkeypatch) -> Clock:
    monkeypatch.setattr("tuner.meter.counters.Background", Unwatched)
    return Clock()


def shares(busy_s=2.0, server_s=1.0, client_s=0.5, window_s=10.0, told=True) -> CpuShares:
    return CpuShares(window_s, 2, busy_s, server_s, client_s, 0.0, (), server_told=told)


def rapl(monkeypatch, clock, counters, cpu: CpuShares, missing=None):
    """A meter over scripted counters, with scripted CPU shares."""

    class Window:
        def __init__(self, server=(), client=()) -> None: ...

        def close(self) -> CpuShares:
            return cpu

        def abandon(self) -> None: ...

    monkeypatch.setattr(counter_meter, "CpuWindow", Window)
    monkeypatch.setattr(counter_meter, "CounterWindow", lambda c: CounterWindow(c, clock))

    class Meter(counter_meter.CounterMeter):
        name = "rapl"

    return Meter(counters, missing)


def passes(clock, *drawn: tuple[Scripted, float], seconds: float) -> None:
    clock.now_s += seconds
    for counter, joules in drawn:
        counter.joules = (counter.joules + joules) % counter.range_j


def test_the_reading_is_the_sum_of_packages_and_memory(monkeypatch, clock):
    package, dram = Scripted("package-0", 65_532.0), Scripted("dram-0", 5.0)
    meter = rapl(monkeypatch, clock, [package, dram], shares())
    meter.idle_w = 20.0
    meter.open([1], [2])
    passes(clock, (package, 320.0), (dram, 30.0), seconds=10.0)
    reading = meter.close()
    assert reading.window_s == 10.0 and reading.samples == 2
    assert reading.gross_j == pytest.approx(350.0)
    assert reading.details["domain_j"] == pytest.approx({"package-0": 320.0, "dram-0": 30.0})
    # (350 - 200) x 0.5 of 2 CPU seconds.
    assert reading.client_j == pytest.approx(37.5) and reading.server_j == pytest.approx(312.5)
    assert reading.net_j == pytest.approx(112.5) and reading.others_j is None
    assert reading.resolution_j == pytest.approx(35.0 * 0.002)
    assert reading.details["client_j_from"].startswith("attributed, not measured")


def test_looks_in_between_make_parts_of_the_counted_domains_only(monkeypatch, clock):
    package, dram = Scripted("package-0"), Scripted("dram-0")
    meter = rapl(monkeypatch, clock, [package, dram], shares(window_s=5.0))
    meter.open()
    for joules in (30, 34, 28, 36, 32):
        passes(clock, (package, joules), seconds=1.0)
        meter._windows[1]._sample()
    reading = meter.close()
    half = (reading.server_interval_j[1] - reading.server_interval_j[0]) / 2
    assert sum(reading.server_interval_j) / 2 == pytest.approx(reading.server_j)
    spread = 5 * mean_half_width([30, 34, 28, 36, 32])
    assert half == pytest.approx((spread**2 + (32 * 0.002) ** 2) ** 0.5)
    assert reading.domains == ("package-0",) and reading.gross_j == pytest.approx(160)
    assert reading.client_j is None and "without an idle baseline" in reading.details["client_j_from"]
    assert reading.details["domains_missing"] == {"dram-0": "stood still for 5 s"}


def test_the_clients_share_is_by_its_part_of_the_busy_time():
    assert client_share_j(100.0, None, shares()) is None
    assert client_share_j(300.0, 10.0, shares()) == pytest.approx(200 * 0.25)
    assert client_share_j(90.0, 10.0, shares()) == 0.0
    assert client_share_j(300.0, 10.0, shares(0.0, 0.0, 0.0)) == 0.0


def test_others_share_is_the_greater_of_their_time_and_their_part_of_the_energy():
    # A quarter of the 2 busy CPU seconds is others'.
    cpu = shares(busy_s=2.0, server_s=1.0, client_s=0.5)
    assert others_share(250.0, 0.0, 10.0, cpu) == pytest.approx(150 * 0.25 / 250)
    assert others_share(250.0, 50.0, 10.0, cpu) == pytest.approx(150 * 0.25 / 200)
    assert others_share(101.0, 0.0, 10.0, cpu) == pytest.approx(0.5 / 20)  # of all CPUs' time
    # Without a baseline: idle is 0.24 / (0.24 + 0.76 x 0.1) of the whole.
    assert others_share(200.0, None, None, cpu) == pytest.approx(0.25 * 0.076 / 0.316)
    assert others_share(200.0, None, None, shares(told=None)) is None
    assert others_share(200.0, None, None, shares(told=False)) is None
    assert others_share(200.0, 0.0, 10.0, shares(0.0, 0.0, 0.0)) is None
    assert others_share(100.0, 100.0, 1.0, shares(20.0, 0.0, 0.0)) == 1.0


@pytest.mark.parametrize(("rest_s", "refused"), [(1.9, False), (2.0, False), (2.1, True)])
def test_beyond_a_tenth_of_other_work_a_counter_gives_no_result(
    monkeypatch, clock, rest_s, refused
):
    package = Scripted("package-0")
    meter = rapl(monkeypatch, clock, [package], shares(2.0 + rest_s, 2.0, 0.0))
    meter.idle_w = 38.0
    meter.open([1], [2])
    passes(clock, (package, 400.0), seconds=10.0)
    reading = meter.close()
    assert reading.gross_j == pytest.approx(400) and reading.server_j > 0
    assert reading.details["others_share"] == pytest.approx(rest_s / 20)
    if refused:
        assert reading.why_no_result[0] == "energy_disturbed"
        assert "other work took 10%" in reading.invalid or "11%" in reading.invalid
    else:
        assert reading.why_no_result is None


def test_a_package_that_stands_still_is_no_result(monkeypatch, clock):
    one, other = Scripted("package-0"), Scripted("package-1", 7.0)
    meter = rapl(monkeypatch, clock, [one, other], shares(10.0))
    for still in (other, one):
        moving = one if still is other else other
        meter.open()
        passes(clock, (moving, 300.0), seconds=10.0)
        reading = meter.close()
        assert reading.why_no_result == (
            "energy_still",
            f"{still.name}: the energy counter stood still for 10 s, with the CPUs busy "
            + "50% of the time",
        )


def test_a_package_that_stops_inside_the_window_is_no_result(monkeypatch, clock):
    package = Scripted("package-0")
    meter = rapl(monkeypatch, clock, [package], shares(1.5, window_s=2.6))
    meter.open()
    for seconds, joules in ((1.0, 40.0), (0.4, 0.0), (0.6, 25.0), (0.6, 0.0)):
        passes(clock, (package, joules), seconds=seconds)
        meter._windows[1]._sample()
    assert "stood still for 0.6 s" in meter.close().invalid
    meter.open()
    for seconds, joules in ((1.0, 40.0), (0.4, 0.0), (0.6, 25.0)):
        passes(clock, (package, joules), seconds=seconds)
        meter._windows[1]._sample()
    assert meter.close().invalid is None


def test_a_counter_moves_no_faster_than_hardware_can(clock):
    counter = Scripted("package-0", 10.0, range_j=5000.0)
    for joules, fits in ((2099.0, True), (2101.0, False)):  # 2,000 W for a second and 50 ms
        counter.joules = 10.0
        opened = CounterWindow([counter], clock)
        passes(clock, (counter, joules), seconds=1.0)
        if fits:
            assert opened.close()[1] == {"package-0": pytest.approx(joules)}
        else:
            with pytest.raises(UnavailableError, match="jumped from 10 J to 2111 J within 1 s"):
                opened.close()


def test_a_counter_that_falls_by_more_than_a_round_is_an_error(clock):
    counter = Scripted("package-0", 5000.5, range_j=5000.0)
    opened = CounterWindow([counter], clock)
    counter.joules = 0.0
    clock.now_s += 1.0
    with pytest.raises(UnavailableError, match="jumped from 5000.5 J to 0 J"):
        opened.close()


def test_a_window_that_is_given_up_is_watched_no_more(tmp_path):
    PowercapTree(tmp_path / "powercap", inside=())
    meter, threads = RaplMeter(tmp_path / "powercap"), threading.active_count()
    meter.release()
    meter.open(server_pids=[os.getpid()])
    assert threading.active_count() == threads + 2
    meter.release()
    assert threading.active_count() == threads
    with pytest.raises(RuntimeError, match="no window is open"):
        meter.close()
    meter.open()
    with pytest.raises(RuntimeError, match="open already"):
        meter.open()
    meter.release()


def test_a_counter_out_of_sight_for_as_long_as_a_round_is_an_error(clock):
    counter = Scripted("package-0", 10.0, range_j=4000.0)
    opened = CounterWindow([counter], clock)
    passes(clock, (counter, 100.0), seconds=1.99)
    assert opened.close()[1] == {"package-0": pytest.approx(100.0)}
    opened = CounterWindow([counter], clock)
    passes(clock, (counter, 100.0), seconds=2.0)
    with pytest.raises(UnavailableError, match=r"nobody looked at the counter for 2 s.*4000 J"):
        opened.close()


@pytest.mark.parametrize(("range_j", "period_s"), [(262_143.0, 1.0), (1200.0, 0.3), (4000.0, 1.0)])
def test_a_counter_is_looked_at_twice_a_round(clock, range_j, period_s):
    shown = [Scripted("package-0", range_j=range_j), Scripted("dram-0", range_j=300_000.0)]
    opened = CounterWindow(shown, clock)
    assert opened.period_s == opened._background.period_s == pytest.approx(period_s)


def move(counters, joules: float = 0.07) -> None:
    for counter in counters:
        counter.joules += joules


def test_zones_that_show_the_same_counter_again_and_again_are_one():
    dies = [Scripted(f"package-0-die-{die}", 48_000.0) for die in range(3)]
    memory = [Scripted(f"dram-0-die-{die}", 48_000.0) for die in range(2)]
    mirrors = Mirrors([*dies, *memory])
    for looks in range(4):
        assert mirrors.found() == {}, looks
        mirrors.look()
        move([*dies, *memory])
    assert mirrors.found() == {
        "package-0-die-1": "package-0-die-0", "package-0-die-2": "package-0-die-0",
        "dram-0-die-1": "dram-0-die-0",
    }


def test_two_true_dies_and_counters_that_stand_still_are_not_one():
    dies = [Scripted("package-0-die-0", 48_000.0), Scripted("package-0-die-1", 48_000.0)]
    mirrors = Mirrors(dies)
    for _ in range(6):
        mirrors.look()  # still: they may be anyone's
    for _ in range(6):
        move(dies[:1], 0.07)
        move(dies[1:], 0.05)
        mirrors.look()
    assert mirrors.found() == {}


def test_a_look_that_falls_into_an_update_is_tried_again():
    class Late(Scripted):
        """Every other read is one update behind."""

        reads = 0

        def read_j(self) -> float:
            self.reads += 1
            return self.joules - (0.07 if self.reads % 2 else 0.0)

    dies = [Scripted("package-0-die-0", 48_000.0), Late("package-0-die-1", 48_000.0)]
    mirrors = Mirrors(dies)
    for _ in range(4):
        mirrors.look()
        move(dies)
    assert mirrors.found() == {"package-0-die-1": "package-0-die-0"}


def test_dies_that_mirror_the_socket_are_counted_once(tmp_path):
    """The case of AMD's multi-die processors: 68 W, not 136."""
    dies = ["package-0-die-0", "package-0-die-1"]
    tree = PowercapTree(tmp_path / "powercap", packages=dies, inside=(), start_j=48_000)
    meter = RaplMeter(tmp_path / "powercap")
    with tree.running(dict.fromkeys(dies, 68)):
        counter = tree.zones[dies[1]] / "energy_uj"
        before, deadline = counter.read_text(), time.monotonic() + 30
        while counter.read_text() == before:  # the writer's start-up
            assert time.monotonic() < deadline
            time.sleep(0.01)
        meter.open()
        time.sleep(0.5)
        reading = meter.close()
    assert reading.domains == ("package-0-die-0",)
    assert reading.details["domains_mirrored"] == {"package-0-die-1": "package-0-die-0"}
    assert reading.gross_j == reading.details["domain_j"]["package-0-die-0"] <= 69
    assert "package-0-die-1 shows package-0-die-0 again" in meter.describe()


def test_one_domain_that_cannot_be_read_does_not_take_the_others_away(tmp_path):
    tree = PowercapTree(tmp_path / "powercap", sockets=2)
    (tree.zones["package-0/dram"] / "energy_uj").write_text("")
    (tree.zones["package-1/dram"] / "max_energy_range_uj").write_text("0\n")
    (tree.zones["package-1/core"] / "name").unlink()
    meter = RaplMeter(tmp_path / "powercap")
    meter.open()
    with tree.running({"package-0": 50, "package-1": 30}, steps=50):
        pass
    reading = meter.close()
    assert reading.domains == ("package-0", "package-1")
    assert reading.gross_j == pytest.approx(16)
    missing = reading.details["domains_missing"]
    assert set(missing) == {"dram-0", "dram-1", "intel-rapl:1:0"}
    assert "holds '', not a number" in missing["dram-0"] and "0 is no range" in missing["dram-1"]
    assert "without dram-0: " in meter.describe()


def test_zones_that_are_not_counted_do_not_hide_those_behind_them(tmp_path):
    names = ["psys", "nameless", "package-0", "package-1"]
    tree = PowercapTree(tmp_path / "powercap", packages=names, inside=("core", "dram"))
    (tree.zones["nameless"] / "name").unlink()
    (tree.zones["package-0/core"] / "name").unlink()
    zones, missing = find_zones(tmp_path / "powercap")
    assert [zone.name for zone in zones] == ["package-0", "dram-0", "package-1", "dram-1"]
    assert list(missing) == ["intel-rapl:1", "intel-rapl:2:0"]
    assert missing["intel-rapl:1"].endswith("intel-rapl:1/name: cannot be read")


def test_zones_come_in_the_order_of_their_numbers(tmp_path):
    inside = [f"part{number}" for number in range(12)]
    tree = PowercapTree(tmp_path / "powercap", sockets=12, inside=inside)
    for part in inside:
        (tree.zones[f"package-0/{part}"] / "name").unlink()
    (tree.root / "intel-rapl:left-over").mkdir()
    zones, missing = find_zones(tmp_path / "powercap")
    assert [zone.name for zone in zones] == [f"package-{number}" for number in range(12)]
    assert list(missing) == [f"intel-rapl:0:{number}" for number in range(12)]


def test_a_counter_at_zero_and_a_range_of_a_microjoule_are_a_counter(tmp_path):
    tree = PowercapTree(tmp_path / "powercap", start_j=0.0, range_j=1e-6, inside=())
    ((zone,), missing) = find_zones(tmp_path / "powercap")
    assert (zone.range_j, missing) == (1e-6, {})
    tree.set("package-0", 12.345678)
    assert PowercapCounter(zone).read_j() == 12.345678


def test_a_package_that_cannot_be_read_is_missing_and_all_of_them_are_an_error(tmp_path):
    tree = PowercapTree(tmp_path / "powercap", sockets=2, inside=("dram",))
    (tree.zones["package-1"] / "energy_uj").unlink()
    meter = RaplMeter(tmp_path / "powercap")
    assert meter.domains == ("package-0", "dram-0", "dram-1")
    gone = find_zones(tmp_path / "powercap")[1]["package-1"]
    assert gone.endswith("intel-rapl:1/energy_uj: cannot be read: No such file or directory")
    (tree.zones["package-0"] / "energy_uj").write_text("-4\n")
    with pytest.raises(UnavailableError, match="intel-rapl:0/energy_uj: -4 is no energy"):
        RaplMeter(tmp_path / "powercap")


def test_the_platform_beside_the_package_and_the_package_by_mmio_count_nothing(tmp_path):
    """Other meters add up psys, package and its double in intel-rapl-mmio: 75 W for 20."""
    tree = PowercapTree(tmp_path / "powercap", psys=True, inside=("core", "uncore"))
    again = PowercapTree(tmp_path / "mmio", inside=())
    again.root.rename(tmp_path / "powercap" / "intel-rapl-mmio")
    double = tmp_path / "powercap" / "intel-rapl-mmio"
    (double / "intel-rapl:0").rename(double / "intel-rapl-mmio:0")
    again.zones["package-0"] = double / "intel-rapl-mmio:0"
    meter = RaplMeter(tmp_path / "powercap")
    meter.open()
    with (
        again.running({"package-0": 20}, steps=50),
        tree.running({"package-0": 20, "package-0/core": 15, "psys": 35}, steps=50),
    ):
        pass
    reading = meter.close()
    assert reading.domains == ("package-0",)
    assert reading.gross_j == pytest.approx(20 * 0.2)
