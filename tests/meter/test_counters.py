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
    monkeypatch.setattr(counter_meter, "CounterWindow", lambda c, on_look: CounterWindow(c, clock, on_look))

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


def watched(clock, meter, counter, *joules: float, every_s: float) -> None:
    """A window open for one look after another, with so many joules between them."""
    meter.open()
    for moved_j in joules:
        passes(clock, (counter, moved_j), seconds=every_s)
        meter._windows[1]._sample()


def test_a_package_that_stops_inside_the_window_is_no_result(monkeypatch, clock):
    package = Scripted("package-0")
    meter = rapl(monkeypatch, clock, [package], shares(1.5, window_s=2.6))
    watched(clock, meter, package, 9.0, 9.0, 0.0, 0.0, 0.0, 9.0, every_s=0.2)  # 0.8 s to the next
    assert "stood still for 0.8 s" in meter.close().invalid
    watched(clock, meter, package, 9.0, 9.0, 0.0, 0.0, 0.0, every_s=0.2)
    assert "stood still for 0.6 s" in meter.close().invalid
    watched(clock, meter, package, 9.0, 9.0, 0.0, 9.0, 0.0, every_s=0.2)
    assert meter.close().invalid is None


def test_a_counter_that_is_updated_seldom_but_evenly_does_not_stand_still(monkeypatch, clock):
    package = Scripted("package-0")
    meter = rapl(monkeypatch, clock, [package], shares(1.5, window_s=5.0))
    watched(clock, meter, package, *[0.0, 0.0, 0.0, 40.0] * 5, every_s=0.25)
    reading = meter.close()
    assert reading.invalid is None and reading.gross_j == pytest.approx(200)
    # An update of a second at the window's ends, at 40 W.
    assert reading.resolution_j == pytest.approx(40.0)
    watched(clock, meter, package, *[0.0, 0.0, 0.0, 40.0] * 2, *[0.0] * 12, every_s=0.25)
    assert "stood still for 3 s" in meter.close().invalid


def lost(opened: CounterWindow, name: str = "package-0") -> str | None:
    opened.close()
    return opened.lost.get(name)


def test_a_counter_moves_no_faster_than_hardware_can(clock):
    counter = Scripted("package-0", 10.0, range_j=5000.0)
    counter.joules = 10.0
    opened = CounterWindow([counter], clock)
    passes(clock, (counter, 2099.0), seconds=1.0)  # 2,000 W for a second and 50 ms
    assert opened.close()[1] == {"package-0": pytest.approx(2099.0)}
    counter.joules = 10.0
    opened = CounterWindow([counter], clock)
    passes(clock, (counter, 2101.0), seconds=1.0)
    assert "jumped from 10 J to 2111 J within 1 s" in lost(opened)


def test_a_counter_that_falls_by_more_than_a_round_is_an_error(clock):
    counter = Scripted("package-0", 5000.5, range_j=5000.0)
    opened = CounterWindow([counter], clock)
    counter.joules = 0.0
    clock.now_s += 1.0
    assert "jumped from 5000.5 J to 0 J" in lost(opened)


class Failing(Scripted):
    """Cannot be read while ``fails``."""

    fails = False

    def read_j(self) -> float:
        if self.fails:
            raise UnavailableError("/sys/energy_uj: cannot be read: No such device")
        return super().read_j()


@pytest.mark.parametrize("looks_between", [0, 2])
def test_memory_that_is_lost_inside_the_window_leaves_the_packages_energy(
    monkeypatch, clock, looks_between
):
    one, other, dram, memory = (Failing(name, place * 1000.0) for place, name in enumerate(
        ("package-0", "package-1", "dram-0", "dram-1")))
    meter = rapl(monkeypatch, clock, [one, dram, other, memory], shares(1.5, window_s=3.0))
    meter.open([1], [2])
    passes(clock, (one, 30.0), (other, 20.0), (dram, 5.0), (memory, 2.0), seconds=1.0)
    for _ in range(looks_between):
        meter._windows[1]._sample()
    dram.fails = True
    passes(clock, (one, 30.0), (other, 20.0), (memory, 2.0), seconds=1.0)
    for _ in range(looks_between):
        meter._windows[1]._sample()
    dram.fails = looks_between == 0  # what was away for a look stays away for the window
    passes(clock, (one, 30.0), (other, 20.0), (memory, 2.0), seconds=1.0)
    reading = meter.close()
    assert reading.domains == ("package-0", "package-1", "dram-1")
    assert reading.gross_j == pytest.approx(156.0) and reading.invalid is None
    assert reading.details["domains_missing"] == {
        "dram-0": "/sys/energy_uj: cannot be read: No such device"
    }
    assert set(reading.details["domain_j"]) == set(reading.domains)


def test_memory_whose_counter_jumps_leaves_the_packages_energy(monkeypatch, clock):
    package, dram = Scripted("package-0"), Scripted("dram-0", 500.0)
    meter = rapl(monkeypatch, clock, [package, dram], shares())
    meter.open()
    passes(clock, (package, 300.0), seconds=10.0)
    dram.joules = 0.0
    reading = meter.close()
    assert reading.domains == ("package-0",) and reading.gross_j == pytest.approx(300.0)
    assert "jumped from 500 J to 0 J" in reading.details["domains_missing"]["dram-0"]
    meter.open()
    passes(clock, (package, 300.0), (dram, 40.0), seconds=10.0)
    assert meter.close().gross_j == pytest.approx(340.0)  # the next window has it again


def test_memory_that_was_lost_before_the_window_leaves_the_packages_energy(monkeypatch, clock):
    package, dram = Scripted("package-0"), Failing("dram-0", 500.0)
    meter = rapl(monkeypatch, clock, [package, dram], shares())
    dram.fails = True
    meter.open()
    dram.fails = False
    passes(clock, (package, 300.0), (dram, 40.0), seconds=10.0)
    reading = meter.close()
    assert reading.domains == ("package-0",) and reading.gross_j == pytest.approx(300.0)
    assert "cannot be read" in reading.details["domains_missing"]["dram-0"]


@pytest.mark.parametrize("when", ["open", "close"])
def test_a_package_that_is_lost_among_several_is_no_result(monkeypatch, clock, when):
    one, other = Failing("package-0"), Failing("package-1", 7.0)
    meter = rapl(monkeypatch, clock, [one, other], shares())
    other.fails = when == "open"
    with pytest.raises(UnavailableError, match="package-1: /sys/energy_uj: cannot be read"):
        meter.open()
        passes(clock, (one, 300.0), seconds=10.0)
        other.fails = True
        meter.close()
    with pytest.raises(RuntimeError, match="no window is open"):
        meter.close()
    other.fails = False
    meter.open()
    passes(clock, (one, 300.0), (other, 200.0), seconds=10.0)
    assert meter.close().gross_j == pytest.approx(500.0)


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
    why = lost(opened)
    assert "nobody looked at the counter for 2 s" in why and "4000 J" in why


@pytest.mark.parametrize(("range_j", "period_s"), [(262_143.0, 0.25), (800.0, 0.2), (1000.0, 0.25)])
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


class Slow(Scripted):
    """Shows 68 W in steps of ``step_s``, as mirrored zones do whose counter is updated seldom."""

    def __init__(self, name: str, step_s: float, watts: float = 68.0, joules: float = 48_000.0):
        super().__init__(name, joules)
        self.step_s, self.watts = step_s, watts

    def read_j(self) -> float:
        return self.joules + self.watts * self.step_s * (time.monotonic() // self.step_s)


def read_for(monkeypatch, counters, seconds: float):
    class Meter(counter_meter.CounterMeter):
        name = "rapl"

    meter = Meter(counters)
    meter.open()
    time.sleep(seconds)
    return meter.close()


@pytest.mark.parametrize("kind", ["package", "dram"])
def test_mirrors_that_are_updated_once_in_0_6_s_are_counted_once_from_the_first_window(
    monkeypatch, kind
):
    dies = [Slow(f"{kind}-0-die-{die}", 0.6) for die in range(2)]
    package = [Slow("package-1", 0.001)] if kind == "dram" else []
    reading = read_for(monkeypatch, [*package, *dies], 2.2)
    assert reading.details["domains_mirrored"] == {f"{kind}-0-die-1": f"{kind}-0-die-0"}
    assert dies[0].name in reading.domains and dies[1].name not in reading.domains
    assert reading.invalid is None
    assert reading.details["domain_j"][dies[0].name] / reading.window_s == pytest.approx(68, rel=0.3)


def test_mirrors_that_moved_too_seldom_in_the_window_are_waited_for(monkeypatch):
    dies = [Slow(f"package-0-die-{die}", 0.5) for die in range(2)]
    reading = read_for(monkeypatch, dies, 0.7)
    assert reading.domains == ("package-0-die-0",)


def test_zones_of_which_it_stays_unknown_whether_they_are_mirrors_are_no_result(monkeypatch, clock):
    monkeypatch.setattr(counter_meter, "PATIENCE_S", 0.02)
    dies = [Scripted(f"package-0-die-{die}", 48_000.0) for die in range(2)]
    meter = rapl(monkeypatch, clock, dies, shares())
    meter.open()
    passes(clock, *((die, 300.0) for die in dies), seconds=10.0)
    reading = meter.close()
    assert reading.why_no_result[0] == "energy_untold"
    assert "package-0-die-1 stood at the same value as package-0-die-0" in reading.invalid


def test_slow_counters_of_their_own_are_both_counted(monkeypatch):
    dies = [Slow("package-0-die-0", 0.6), Slow("package-0-die-1", 0.6, watts=60.0)]
    reading = read_for(monkeypatch, dies, 1.4)
    assert len(reading.domains) == 2 and reading.details["domains_mirrored"] == {}


def test_a_mirror_that_cannot_be_read_takes_nothing_away():
    dies = [Failing(f"dram-0-die-{die}", 48_000.0) for die in range(3)]
    mirrors = Mirrors(dies)
    dies[0].fails = True
    for _ in range(4):
        mirrors.look()
        move(dies)
    assert mirrors.found() == {"dram-0-die-2": "dram-0-die-1"}


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


@pytest.mark.parametrize("file", ["name", "energy_uj", "max_energy_range_uj"])
@pytest.mark.parametrize("zone", ["package-1", "package-0/dram", "package-0/core"])
def test_bytes_that_are_no_text_take_no_other_zone_away(tmp_path, file, zone):
    tree = PowercapTree(tmp_path / "powercap", sockets=2, inside=("core", "dram"))
    (tree.zones[zone] / file).write_bytes(b"\xff\xfe\n")
    zones, missing = find_zones(tmp_path / "powercap")
    everything = {"package-0", "dram-0", "package-1", "dram-1"}
    counted = zone != "package-0/core"
    away = {"package-1": {"package-1"}, "package-0/dram": {"dram-0"}, "package-0/core": set()}[zone]
    if zone == "package-1" and file == "name":
        away.add("dram-1")  # nobody knows whose memory it is
    assert {found.name for found in zones} == everything - away
    told = [why for why in missing.values() if "xff" in why]
    assert len(told) == (counted or file == "name")


def test_a_package_whose_number_is_no_text_is_counted(tmp_path):
    tree = PowercapTree(tmp_path / "powercap", sockets=2, inside=())
    (tree.zones["package-1"] / "name").write_bytes(b"package-\xff\n")
    zones, missing = find_zones(tmp_path / "powercap")
    assert [zone.name for zone in zones] == ["package-0", "package-\\xff"] and missing == {}


def test_zones_of_one_name_are_all_counted_under_names_of_their_own(tmp_path):
    tree = PowercapTree(
        tmp_path / "powercap", packages=["package-0", "package-1"], inside=("dram", "core")
    )
    (tree.zones["package-1"] / "name").write_text("package-0\n")
    (tree.zones["package-0/core"] / "name").write_text("dram\n")
    meter = RaplMeter(tmp_path / "powercap")
    assert meter.domains == (
        "package-0", "dram-0", "dram-0@intel-rapl:0:1",
        "package-0@intel-rapl:1", "dram-0@intel-rapl:1:0",
    )
    meter.open()
    watts = {"package-0": 50, "package-1": 30, "package-0/dram": 5, "package-0/core": 4,
             "package-1/dram": 3}
    with tree.running(watts, steps=50):
        pass
    assert meter.close().gross_j == pytest.approx(92 * 0.2)


def test_of_two_zones_of_one_name_the_one_that_cannot_be_read_is_missing(tmp_path):
    tree = PowercapTree(tmp_path / "powercap", packages=["package-0", "package-1"], inside=())
    (tree.zones["package-1"] / "name").write_text("package-0\n")
    (tree.zones["package-0"] / "energy_uj").write_text("")
    meter = RaplMeter(tmp_path / "powercap")
    assert meter.domains == ("package-0@intel-rapl:1",)
    assert set(find_zones(tmp_path / "powercap")[1]) == {"package-0"}


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
