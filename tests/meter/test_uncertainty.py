"""How sure a reading says it is."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tuner.errors import UnavailableError
from tuner.measurement import (
    REASONS,
    EnergyReading,
    Measurement,
    energy_basis,
    metrics_of,
    to_json,
    why_not_comparable,
)
from tuner.meter import CompositeMeter, CpuTimeMeter, FakeMeter, NvmlMeter, measure_idle
from tuner.meter.counters import Counter, CounterWindow
from tuner.meter.cpu_share import CpuLook, CpuShares
from tuner.meter.uncertainty import fields, half_width_j, mean_half_width, mean_interval

from .fake_nvml import FakeNvml


def test_half_width_of_a_window_is_that_of_its_average_power_for_as_long_as_it_lasts():
    half = half_width_j([0, 2, 4, 6, 8], [0, 20, 44, 60, 88])
    assert half == pytest.approx(8 * mean_half_width([10, 12, 8, 14]))


def test_resolution_stays_in_a_window_of_even_power():
    assert half_width_j([0, 1, 2, 3, 4], [0, 10, 20, 30, 40], 0.4) == pytest.approx(0.4)
    drawn = [0, 10, 22, 30, 44]
    both = half_width_j(range(5), drawn, 3.0)
    assert both == pytest.approx((half_width_j(range(5), drawn) ** 2 + 9) ** 0.5)


def test_looks_closer_than_a_part_are_joined_and_a_rest_joins_the_last_part():
    times = [0.1 * i for i in range(45)]
    even = [10 * t for t in times]
    assert half_width_j(times, even) == pytest.approx(0, abs=1e-9)
    ragged = half_width_j([0, 1, 2, 3, 4, 4.2], [0, 10, 22, 36, 46, 48.8])
    assert ragged == pytest.approx(half_width_j([0, 1, 2, 3, 4.2], [0, 10, 22, 36, 48.8]))


@pytest.mark.parametrize("looks", [0, 1, 2, 3])
def test_a_window_of_fewer_than_four_parts_has_no_interval(looks):
    times = [float(i) for i in range(looks + 1)]
    assert half_width_j(times, [10 * t for t in times], 0.1) is None


def test_baseline_of_four_windows_or_more_knows_its_interval():
    watts = [10.0, 11.0, 12.0, 11.0]
    meter = FakeMeter(watts)
    assert measure_idle(meter, 2.0) == pytest.approx(11.0, rel=0.05)
    low, high = meter.idle_interval_w
    assert (low + high) / 2 == pytest.approx(11.0)
    assert high - low == pytest.approx(2 * mean_half_width(watts))
    measure_idle(meter, 0.02)
    assert meter.idle_interval_w is None
    assert mean_interval([1.0, 2.0, 3.0]) is None


def test_estimate_takes_its_interval_from_looks_inside_the_window(monkeypatch):
    looks = tuple(CpuLook(t, b, b, 0.0) for t, b in [(0, 0), (1, 1), (2, 1.5), (3, 2.5), (4, 3)])
    shares = CpuShares(4.0, 2, 3.0, 3.0, 0.0, 0.0, (), looks, server_told=True)
    meter = CpuTimeMeter(10, 50)
    meter.idle_w, meter.idle_interval_w = 10.0, (9.0, 11.0)
    meter._window = type("Window", (), {"close": lambda self: shares, "abandon": lambda self: None})()
    reading = meter.close()
    low, high = reading.server_interval_j
    assert low == 40 and reading.server_j == 100  # idle power for 4 s is sure
    assert reading.samples == 5
    # A clock tick of user and one of system time of one process, at 20 J a CPU second.
    assert reading.resolution_j == pytest.approx(0.4)
    half, net_half = high - reading.server_j, reading.net_interval_j[1] - reading.net_j
    assert half == pytest.approx(half_width_j(range(5), [0, 30, 50, 80, 100], 0.4))
    assert reading.net_interval_j[0] == 0
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
    assert [j for _, j in window.looks] == [(0,), (10,), (22,), (36,)]


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


def test_readings_with_and_without_the_work_of_others_are_not_comparable():
    one, other = (EnergyReading("cpu_time", "estimate", ("cpu",), 1.0, 10.0, 0.0, others_j=o)
                  for o in (None, 2.0))
    assert why_not_comparable(one, other) == "others' work taken off: False and True"
    before = {**to_json(one)}
    del before["others_j"]
    assert why_not_comparable(before, one) is None
    assert energy_basis(before) == energy_basis(one)  # stored studies and measurements stay one


@pytest.mark.parametrize("name", ["gross_j", "client_j", "others_j"])
@pytest.mark.parametrize("joules", [-1e-9, float("nan"), float("inf")])
def test_an_energy_below_nothing_or_without_end_is_an_error_in_every_reading(name, joules):
    with pytest.raises(UnavailableError, match=f"any: {name} of .* J is no energy"):
        EnergyReading("any", "counter", ("x",), 1.0, **{"gross_j": 1.0, name: joules})


def test_serving_is_charged_with_the_whole_less_the_clients_and_the_others_work():
    reading = EnergyReading("any", "estimate", ("x",), 2.0, 10.0, client_j=3.0, others_j=2.5)
    assert reading.server_j == 4.5 and reading.average_w == 2.25 and reading.total_w == 5.0


def test_power_and_energy_of_serving_are_of_the_same_joules():
    """1 J a request x 25 requests/s = 25 W, whatever others draw beside it."""
    alone = _measured(3.0)
    crowded = replace(alone.energy, gross_j=180.0, others_j=60.0, client_j=20.0)
    shared = Measurement(alone.stage, crowded)
    for measured, total_w in ((alone, 25.0), (shared, 45.0)):
        metrics = measured.metrics()
        answered_rps = 100 / 4.0
        assert metrics["energy_per_request_j"] == pytest.approx(1.0)
        assert metrics["power_average_w"] == pytest.approx(
            metrics["energy_per_request_j"] * answered_rps
        )
        assert metrics["power_total_w"] == pytest.approx(total_w)
        assert measured.intervals()["power_average_w"] == pytest.approx((22.5, 27.5))


def test_a_stored_power_of_all_that_the_source_saw_is_told_as_that():
    energy = {"gross_j": 180.0, "client_j": 20.0, "others_j": 60.0, "window_s": 4.0}
    before = {"metrics": {"power_average_w": 45.0, "latency_p99_ms": 3.0}, "energy": energy}
    now = {"power_average_w": 25.0, "power_total_w": 45.0, "latency_p99_ms": 3.0}
    assert metrics_of(before) == now
    assert metrics_of({"metrics": now, "energy": energy}) == now
    nothing = {"power_average_w": None}
    assert metrics_of({"metrics": nothing, "energy": None}) == nothing and metrics_of({}) == {}


@pytest.mark.parametrize(
    ("server_j", "net_j", "least_j", "server", "net"),
    [
        (100.0, 60.0, 0.0, (0.0, 220.0), (0.0, 180.0)),  # a half-width of 120 J
        (100.0, 60.0, 40.0, (40.0, 220.0), (0.0, 180.0)),
        (500.0, 460.0, 40.0, (380.0, 620.0), (340.0, 580.0)),
        (39.0, -1.0, 0.0, (0.0, 159.0), (-1.0, 119.0)),  # the baseline's own error stays inside
    ],
)
def test_no_interval_of_energy_reaches_below_what_physics_allows(
    server_j, net_j, least_j, server, net
):
    told = fields(server_j, net_j, 120.0, 0.1, 4.0, (10.0, 10.0), least_j)
    assert told["server_interval_j"] == pytest.approx(server)
    assert told["net_interval_j"] == pytest.approx(net)


def test_a_baseline_whose_interval_is_cut_off_at_nothing_keeps_its_error_in_the_net_energy():
    low, high = mean_interval([1.0, 9.0, 2.0, 8.0])
    assert low == 0.0 and high == pytest.approx(5.0 + mean_half_width([1.0, 9.0, 2.0, 8.0]))
    told = fields(100.0, 80.0, 3.0, 0.1, 4.0, (low, high))  # 5 W for 4 s
    idle_j = (high - 5.0) * 4
    assert told["net_interval_j"][1] - 80 == pytest.approx((3.0**2 + idle_j**2) ** 0.5)


def test_a_joined_source_adds_up_the_parts_errors_though_one_was_cut_off():
    def part(server_j, interval_j):
        return EnergyReading("x", "counter", ("x",), 4.0, server_j, server_interval_j=interval_j)

    class Part(FakeMeter):
        def __init__(self, name, reading):
            super().__init__()
            self.name, self.reading = name, reading

        def close(self):
            super().close()
            return self.reading

    joined = CompositeMeter(
        [Part("one", part(10.0, (0.0, 40.0))), Part("other", part(100.0, (90.0, 110.0)))]
    )
    joined.open()
    assert joined.close().server_interval_j == pytest.approx((90.0, 150.0))


@pytest.mark.parametrize("metric", ["energy_per_request_j", "energy_net_per_request_j",
                                    "power_average_w", "power_total_w"])
@pytest.mark.parametrize(
    ("changes", "reason"),
    [({"invalid": "why", "invalid_reason": "energy_disturbed"}, "energy_disturbed"),
     ({"gross_j": 0.0, "net_j": None}, "energy_still"),
     ({"client_j": 60.0, "others_j": 40.0}, "energy_still")],
)
def test_an_energy_that_is_no_result_is_no_metric_and_says_why(metric, changes, reason):
    whole = _measured(3.0, (1.0, 5.0), 0.4)
    measured = Measurement(whole.stage, replace(whole.energy, **changes))
    assert whole.metrics()[metric] is not None and measured.metrics()[metric] is None
    assert measured.intervals().get(metric) is None
    assert measured.why_unmeasured(metric)[0] == reason and reason in REASONS
    assert measured.metrics()["latency_p99_ms"] == 10


def test_no_baseline_is_made_of_what_is_no_result():
    with pytest.raises(UnavailableError, match="no idle baseline: fake: nothing is left of 0 J"):
        measure_idle(FakeMeter([0.0]), 0.02)


def test_a_meter_that_reads_less_than_nothing_is_an_error():
    meter = FakeMeter([-5.0])
    meter.open()
    with pytest.raises(UnavailableError, match="fake: gross_j of -.* J is no energy"):
        meter.close()
