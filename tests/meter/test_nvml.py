"""The NVML reader against scripted NVML functions; no real GPU takes part."""

from __future__ import annotations

import inspect
import time

import pytest

from tests.contracts.meter_contract import MeterContract
from tests.meter.fake_nvml import FakeNvml
from tuner.errors import UnavailableError
from tuner.meter import NvmlMeter


class TestContractOfTheCounter(MeterContract):
    @pytest.fixture
    def meter(self):
        return NvmlMeter(nvml=FakeNvml([100, 50]))


class TestContractOfTheSamples(MeterContract):
    @pytest.fixture
    def meter(self):
        return NvmlMeter(nvml=FakeNvml([100, 50], counter=False), period_s=0.02)


def test_the_fake_has_the_real_bindings_functions():
    pynvml = pytest.importorskip("pynvml", reason="nvidia-ml-py is not installed (extra: gpu)")
    for name, function in inspect.getmembers(FakeNvml, inspect.isfunction):
        if name.startswith("nvml"):
            real = inspect.signature(getattr(pynvml, name)).parameters
            assert len(real) == len(inspect.signature(function).parameters) - 1, name
    for name in dir(FakeNvml):
        assert not name.startswith("NVMLError") or name in dir(pynvml)


def test_the_counters_of_all_gpus_are_added_up():
    meter = NvmlMeter(nvml=FakeNvml([100, 50]))
    meter.open()
    time.sleep(0.3)
    reading = meter.close()
    assert (reading.source, reading.method, reading.domains) == (
        "nvml",
        "counter",
        ("gpu-0", "gpu-1"),
    )
    assert reading.average_w == pytest.approx(150, rel=0.02)
    assert reading.details["domain_j"]["gpu-1"] == pytest.approx(50 * reading.window_s, rel=0.02)


def test_chosen_gpus_only():
    meter = NvmlMeter([1], nvml=FakeNvml([100, 50]))
    meter.open()
    time.sleep(0.1)
    assert meter.close().domains == ("gpu-1",)
    with pytest.raises(UnavailableError, match="there is no GPU 2; NVML shows 2"):
        NvmlMeter([2], nvml=FakeNvml([100, 50]))


def test_power_samples_are_integrated_by_trapezoids():
    moments = iter([0.0, 0.0, 1.0, 1.0, 3.0, 3.0])
    nvml = FakeNvml([100], counter=False)
    meter = NvmlMeter(nvml=nvml, period_s=60, clock=lambda: next(moments))
    meter.open()
    nvml.watts[0] = 200.0
    meter._sample()
    nvml.watts[0] = 0.0
    reading = meter.close()
    assert reading.gross_j == pytest.approx(150 * 1 + 100 * 2)
    assert (reading.window_s, reading.samples) == (3.0, 3)


def test_samples_and_counter_have_names_of_their_own():
    reading_of = {}
    for counter in (True, False):
        meter = NvmlMeter(nvml=FakeNvml(counter=counter), period_s=0.02)
        meter.open()
        time.sleep(0.2)
        reading_of[counter] = meter.close()
    assert reading_of[True].source != reading_of[False].source
    assert reading_of[False].samples > 4
    assert reading_of[False].details["sample_period_s"] == 0.02


def test_a_board_in_mig_mode_is_refused_plainly():
    nvml = FakeNvml([100, 100], mig=[1])
    with pytest.raises(UnavailableError, match="GPU 1 is in MIG mode.*never an instance's"):
        NvmlMeter(nvml=nvml)
    assert nvml.started == 0


@pytest.mark.parametrize(
    ("function", "error", "says"),
    [
        ("nvmlInit", "NVMLError_LibraryNotFound", "no NVIDIA driver is installed"),
        ("nvmlDeviceGetHandleByIndex", "NVMLError_NoPermission", "run as root, or ask for access"),
        ("nvmlDeviceGetTotalEnergyConsumption", "NVMLError_NoPermission", "this user may not"),
    ],
)
def test_nvmls_errors_are_said_plainly(function, error, says):
    nvml = FakeNvml()
    nvml.fails[function] = getattr(nvml, error)("code")
    with pytest.raises(UnavailableError, match=says):
        NvmlMeter(nvml=nvml)
    assert nvml.started == 0


def test_no_gpu_is_an_error():
    with pytest.raises(UnavailableError, match="NVML shows no GPU"):
        NvmlMeter(nvml=FakeNvml([]))


@pytest.mark.parametrize("counter", [True, False])
def test_a_gpu_lost_inside_the_window_is_an_error_not_a_number(counter):
    nvml = FakeNvml(counter=counter)
    meter = NvmlMeter(nvml=nvml, period_s=0.02)
    meter.open()
    lost = nvml.NVMLError_GpuIsLost("GPU is lost")
    nvml.fails |= {
        "nvmlDeviceGetTotalEnergyConsumption": lost,
        "nvmlDeviceGetPowerUsage": lost,
    }
    time.sleep(0.1)
    with pytest.raises(UnavailableError, match="gpu-0: GPU is lost: the GPU fell off the bus"):
        meter.close()
    with pytest.raises(RuntimeError):
        meter.close()


def test_a_counter_that_went_back_is_an_error():
    nvml = FakeNvml()
    meter = NvmlMeter(nvml=nvml)
    meter.open()
    nvml.restarted_at_s = time.monotonic()
    with pytest.raises(UnavailableError, match="gpu-0: the energy counter went back"):
        meter.close()


def test_a_counter_that_went_back_and_overtook_itself_is_an_error():
    now = [100.0]
    nvml = FakeNvml(clock=lambda: now[0])
    meter = NvmlMeter(nvml=nvml, clock=lambda: now[0])
    meter.open()
    meter._background.cancel()
    nvml.restarted_at_s, now[0] = 100.0, 101.0
    meter._sample()
    now[0] = 500.0
    with pytest.raises(UnavailableError, match="gpu-0: the energy counter went back by 9900 J"):
        meter.close()


def test_power_below_nothing_is_an_error():
    nvml = FakeNvml([100, 50], counter=False)
    meter = NvmlMeter(nvml=nvml, period_s=60)
    meter.open()
    nvml.watts[1] = -3.0
    with pytest.raises(UnavailableError, match="gpu-1: reports -3 W, less than nothing"):
        meter.close()


@pytest.mark.parametrize("counter", [True, False])
def test_a_board_that_draws_nothing_is_no_result(counter):
    now = [100.0]
    meter = NvmlMeter(nvml=FakeNvml([100, 0], counter=counter, clock=lambda: now[0]),
                      period_s=60, clock=lambda: now[0])
    meter.open()
    now[0] += 4.0
    reading = meter.close()
    assert reading.why_no_result == ("energy_still", "gpu-1: no energy in 4 s")


def test_release_stops_nvml_once():
    nvml = FakeNvml()
    meter = NvmlMeter(nvml=nvml)
    assert nvml.started == 1
    meter.release()
    meter.release()
    assert nvml.started == 0
