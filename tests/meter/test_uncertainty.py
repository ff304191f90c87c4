"""How sure a reading says it is."""

from __future__ import annotations

import random

import pytest

from tuner.measurement import EnergyReading, Measurement, why_not_comparable
from tuner.meter import CpuTimeMeter, FakeMeter, NvmlMeter, measure_idle
from tuner.meter.counters import Counter, CounterWindow
from tuner.meter.cpu_share import CpuLook, CpuShares
from tuner.meter.uncertainty import half_width_j, mean_interval

from .fake_nvml import FakeNvml


def test_half_width_is_students_over_the_parts():
    # 10, 12 and 14 W for a second each: s = 2 W, t(2) = 4.303.
    half = half_width_j([0, 1, 2, 3], [0, 10, 22, 36])
    assert half == pytest.approx(4.3027 * 2 / 3**0.5 * 3, rel=1e-4)


def test_resolution_stays_in_a_window_of_even_power():
    assert half_width_j([0, 1, 2, 3], [0, 10, 20, 30], 0.4) == pytest.approx(0.4)


def test_looks_closer_than_a_second_are_joined_and_a_rest_joins_the_last_part():
    times = [0.1 * i for i in range(35)]
    even = [10 * t for t in times]
    assert half_width_j(times, even) == pytest.approx(0, abs=1e-9)
    ragged = half_width_j([0, 1, 2, 3, 3.2], [0, 10, 22, 36, 38.8])
    assert ragged == pytest.approx(half_width_j([0, 1, 2, 3.2], [0, 10, 22, 38.8]))


@pytest.mark.parametrize("looks", [0, 1, 2])
def test_a_window_of_fewer_than_three_parts_has_no_interval(looks):
    times = [float(i) for i in range(looks + 1)]
    assert half_width_j(times, [10 * t for t in times], 0.1) is None


def test_interval_holds_the_true_mean_about_19_times_in_20():
    rng = random.Random(4)
    held = 0
    for _ in range(400):
        joules = [0.0]
        for _ in range(5):
            joules.append(joules[-1] + rng.gauss(20, 3))
        half = half_width_j(range(6), joules)
        held += abs(joules[-1] - 100) <= half
    assert 365 <= held <= 394


def test_baseline_of_three_windows_or_more_knows_its_interval():
    meter = FakeMeter([10.0, 11.0, 12.0])
    assert measure_idle(meter, 1.5) == pytest.approx(11.0, rel=0.05)
    low, high = meter.idle_interval_w
    assert (low + high) / 2 == pytest.approx(11.0) and high - low == pytest.approx(2 * 2.484, rel=0.01)
    measure_idle(meter, 0.02)
    assert meter.idle_interval_w is None
    assert mean_interval([1.0, 2.0]) is None


def test_estimate_takes_its_interval_from_looks_inside_the_window(monkeypatch):
    looks = tuple(CpuLook(t, b, b, 0.0) for t, b in [(0, 0), (1, 1), (2, 1.5), (3, 2.5), (4, 3)])
    shares = CpuShares(4.0, 2, 3.0, 3.0, 0.0, 0.0, (), looks)
    meter = CpuTimeMeter(10, 50)
    meter.idle_w, meter.idle_interval_w = 10.0, (9.0, 11.0)
    meter._window = type("Window", (), {"close": lambda self: shares, "abandon": lambda self: None})()
    reading = meter.close()
    low, high = reading.server_interval_j
    assert (low + high) / 2 == pytest.approx(reading.server_j) and reading.server_j == 100
    assert reading.samples == 5
    # One clock tick on each of two CPUs at 20 J a CPU second.
    assert reading.resolution_j == pytest.approx(0.4)
    half, net_half = (high - low) / 2, reading.net_interval_j[1] - reading.net_j
    assert net_half == pytest.approx((half**2 + 4.0**2) ** 0.5)


class _Scripted(Counter):
    name, range_j = "package-0", 1e9

    def __init__(self, joules):
        self._joules = iter(joules)

    def read_j(self):
        return next(self._joules)


def test_counter_keeps_every_look():
    clock = iter([0, 0, 1, 1, 2, 2, 3, 3, 3])
    window = CounterWindow([_Scripted([5, 15, 27, 41])], clock=lambda: next(clock))
    window._background.cancel()
    window._sample(), window._sample()
    window.close()
    assert [j for _, j in window.looks] == [0, 10, 22, 36]


@pytest.mark.parametrize("counter", [True, False])
def test_gpu_readings_know_their_interval(counter):
    now = [0.0]
    nvml = FakeNvml([100], counter=counter, clock=lambda: now[0])
    meter = NvmlMeter(nvml=nvml, clock=lambda: now[0], period_s=60)
    meter.open()
    meter._background.cancel()
    for _ in range(3):
        now[0] += 1.0
        meter._sample()
    now[0] += 1.0
    reading = meter.close()
    low, high = reading.server_interval_j
    assert low == pytest.approx(400 - 10) and high == pytest.approx(400 + 10)


def _measured(net_j, net_interval_j=None, resolution_j=None):
    from tests.study.conftest import measured

    whole = measured(10, 1)
    energy = EnergyReading(
        "cpu_time", "estimate", ("cpu",), 4.0, 100.0, 0.0, 25.0, net_j,
        server_interval_j=(90.0, 110.0), net_interval_j=net_interval_j, resolution_j=resolution_j,
    )
    return Measurement(whole.stage, energy)


@pytest.mark.parametrize(
    "net", [(-0.1,), (0.0,), (0.3, None, 0.4), (3.0, (-1.0, 7.0)), (3.0, (0.0, 6.0))]
)
def test_net_energy_that_may_be_nothing_is_not_measured(net):
    measured = _measured(*net)
    assert measured.energy.net_j == net[0]
    assert measured.metrics()["energy_net_per_request_j"] is None
    assert measured.intervals()["energy_net_per_request_j"] is None
    reason, message = measured.why_unmeasured("energy_net_per_request_j")
    assert reason == "energy_unresolved" and "measure longer" in message


def test_net_energy_above_its_resolution_counts_per_request():
    measured = _measured(3.0, (1.0, 5.0), 0.4)
    assert measured.metrics()["energy_net_per_request_j"] == pytest.approx(0.03)
    assert measured.intervals()["energy_net_per_request_j"] == pytest.approx((0.01, 0.05))
    assert measured.intervals()["energy_per_request_j"] == pytest.approx((0.9, 1.1))


def test_readings_with_other_domains_or_another_split_are_not_comparable():
    def reading(domains=("package-0",), client_j=None):
        return EnergyReading("rapl", "counter", domains, 1.0, 10.0, client_j)

    assert why_not_comparable(reading(), reading()) is None
    assert "dram-0" in why_not_comparable(reading(), reading(("package-0", "dram-0")))
    assert "client's share" in why_not_comparable(reading(), reading(client_j=0.0))
