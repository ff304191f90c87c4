"""Choosing sources, joining them, and the shipped fake."""

from __future__ import annotations

import pytest

from tests.contracts.meter_contract import MeterContract
from tests.meter.fake_nvml import FakeNvml
from tests.meter.powercap_tree import PowercapTree
from tuner.errors import UnavailableError, UsageError
from tuner.meter import (
    CompositeMeter,
    CpuTimeMeter,
    FakeMeter,
    NvmlMeter,
    RaplMeter,
    choose,
    measure_idle,
    sources,
    why_not_comparable,
)
from tuner.meter.sources import MAKERS


class TestContractOfTheFake(MeterContract):
    @pytest.fixture
    def meter(self):
        return FakeMeter([12.0], client_share=0.25)


class TestContractOfTheComposite(MeterContract):
    @pytest.fixture
    def meter(self):
        return CompositeMeter([CpuTimeMeter(10, 50), NvmlMeter(nvml=FakeNvml())])


def no_rapl():
    raise UnavailableError("no RAPL: none here")


def test_auto_takes_the_estimate_where_there_is_no_rapl(monkeypatch):
    monkeypatch.setitem(MAKERS, "rapl", no_rapl)
    assert choose().name == "cpu_time"


def test_a_demanded_source_that_is_missing_is_an_error_with_the_reason(monkeypatch):
    monkeypatch.setitem(MAKERS, "rapl", no_rapl)
    with pytest.raises(UnavailableError, match="none here"):
        choose("rapl")
    with pytest.raises(UnavailableError, match="none here"):
        choose("rapl+nvml")


def test_sources_lists_all_with_reasons(monkeypatch):
    monkeypatch.setitem(MAKERS, "rapl", no_rapl)
    found = {name: (available, why) for name, available, why in sources()}
    assert set(found) == {"rapl", "pyrapl", "nvml", "nvml_sampled", "cpu_time"}
    assert found["rapl"] == (False, "no RAPL: none here")
    assert found["cpu_time"][0] and "W idle" in found["cpu_time"][1]


@pytest.mark.parametrize("source", ["", "wall_plug", "rapl+", "rapl+pyrapl", "nvml+nvml"])
def test_sources_that_make_no_sense_are_refused_before_any_is_opened(source):
    with pytest.raises(UsageError, match="energy source"):
        choose(source)


def test_a_joined_source_is_made_of_both(monkeypatch):
    monkeypatch.setitem(MAKERS, "nvml", lambda: NvmlMeter(nvml=FakeNvml()))
    meter = choose("cpu_time+nvml", idle_w=10, max_w=50)
    meter.open()
    reading = meter.close()
    assert reading.source == "cpu_time+nvml" and reading.method == "estimate"
    assert reading.domains == ("cpu", "gpu-0")
    assert reading.details["cpu_time"]["model_max_w"] == 50


def test_the_composite_is_the_sum_of_its_parts():
    clock = iter([0.0, 0.0, 2.0, 2.0])
    parts = [FakeMeter([10], clock=clock.__next__), FakeMeter([90], clock=clock.__next__)]
    parts[0].name, parts[1].name = "rapl", "nvml"
    meter = CompositeMeter(parts)
    meter.idle_w = 20.0
    meter.open([1], [2])
    reading = meter.close()
    assert (reading.source, reading.method) == ("rapl+nvml", "counter")
    assert (reading.gross_j, reading.net_j) == (200, 160)
    assert parts[1].windows == [((1,), (2,))]


def test_the_composite_keeps_what_its_processor_part_tells_of_others_and_of_no_result():
    from dataclasses import replace

    class Processor(FakeMeter):
        def close(self):
            return replace(super().close(), details={"busy_share": 0.5})

    clock = iter([0.0, 0.0, 2.0, 2.0] * 2)
    parts = [Processor([10, 0], client_share=0.25, others_share=0.5, clock=clock.__next__),
             FakeMeter([90], clock=clock.__next__)]
    parts[0].name = "cpu_time"
    meter = CompositeMeter(parts)
    meter.idle_w = 30.0
    meter.open()
    reading = meter.close()
    assert (reading.gross_j, reading.client_j, reading.others_j) == (200, 5, 10)
    assert (reading.server_j, reading.net_j) == (185, 125) and reading.why_no_result is None
    meter.open()
    assert meter.close().why_no_result == (
        "energy_still", "cpu_time: nothing is left of 0 J for serving")


def test_the_composite_says_nothing_of_the_client_where_its_processor_part_cannot(tmp_path):
    tree = PowercapTree(tmp_path / "powercap")
    meter = CompositeMeter([RaplMeter(tmp_path / "powercap"), NvmlMeter(nvml=FakeNvml())])
    meter.open()
    tree.set("package-0", 103)
    assert meter.close().client_j is None


def test_a_part_that_fails_to_open_leaves_none_open(tmp_path):
    first = FakeMeter()
    second = RaplMeter(PowercapTree(tmp_path / "powercap").root.parent)
    (tmp_path / "powercap/intel-rapl/intel-rapl:0/energy_uj").unlink()
    with pytest.raises(UnavailableError):
        CompositeMeter([first, second]).open()
    with pytest.raises(RuntimeError):
        first.close()


def test_a_part_that_fails_to_close_closes_the_others_too():
    first, second = FakeMeter([UnavailableError("gone")]), FakeMeter()
    second.name = "other"
    meter = CompositeMeter([first, second])
    meter.open()
    with pytest.raises(UnavailableError, match="gone"):
        meter.close()
    with pytest.raises(RuntimeError):
        second.close()


def test_the_fake_plays_its_script():
    clock = iter([0.0, 2.0, 2.0, 5.0, 5.0, 6.0])
    meter = FakeMeter([10, 20], clock=clock.__next__)
    joules = []
    for _ in range(3):
        meter.open()
        joules.append(meter.close().gross_j)
    assert joules == [20, 60, 20]


def test_the_baseline_of_a_constant_source_is_its_power():
    assert measure_idle(FakeMeter([12.0]), 0.05) == pytest.approx(12.0)


def test_the_baseline_leaves_the_callers_own_work_out():
    meter = FakeMeter([12.0], client_share=0.25)
    assert measure_idle(meter, 0.05, pids=[7]) == pytest.approx(9.0)
    assert meter.windows == [((), (7,))]


def test_the_baseline_of_an_estimate_is_its_models_constant_however_busy_the_machine_is():
    meter = CpuTimeMeter(10, 50)
    assert measure_idle(meter, 60.0) == 10
    assert meter.idle_interval_w == (10, 10)


def test_a_baseline_needs_time():
    with pytest.raises(UsageError, match="more than 0 seconds"):
        measure_idle(FakeMeter(), 0)


def test_two_sources_never_compare():
    readings = []
    for meter in (FakeMeter(), CpuTimeMeter(10, 50)):
        meter.open()
        readings.append(meter.close())
    assert why_not_comparable(*readings) == "source: fake and cpu_time"
