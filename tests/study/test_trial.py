"""A trial turns a deployment, a load stage and a meter into an outcome, and says why when not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.study.conftest import measured
from tuner import trial
from tuner.deploy.base import Deployer, Deployment, DeploymentRequest, ModelToServe
from tuner.errors import TrialFailure, UnavailableError
from tuner.load import machine
from tuner.measurement import Failure, Measurement, StageResult
from tuner.meter import FakeMeter
from tuner.space import Settings
from tuner.trial import Bench, TrialRunner

QUIET = {"machine_before": {"busy_others": 0.0, "steal": 0.0, "seconds": 1.0},
         "machine_window": {"busy": 0.5, "steal": 0.0}}
STOLEN = {**QUIET, "machine_window": {"busy": 0.5, "steal": 0.6}}


class Still(Deployment):
    """A deployment that only stands there; it dies when told to."""

    grpc_address, rest_address, model_names = "127.0.0.1:1", None, ("m",)

    def __init__(self) -> None:
        self.death: tuple[str, str] | None = None

    def pids(self) -> tuple[int, ...]:
        return ()

    def failure(self) -> tuple[str, str] | None:
        return self.death

    def describe(self) -> Mapping[str, Any]:
        return {"command_line": ["server"]}


class StillDeployer(Deployer):
    name = "still"

    def __init__(self) -> None:
        self.alive: list[Still] = []
        self.deployed = 0

    @contextmanager
    def deploy(self, request: DeploymentRequest) -> Iterator[Still]:
        if request.configuration.get("grpc_max_threads") == 13:
            raise TrialFailure("start_failed", "refused", "the log")
        self.deployed += 1
        self.alive.append(Still())
        try:
            yield self.alive[-1]
        finally:
            self.alive.pop()


@pytest.fixture
def deployer() -> StillDeployer:
    return StillDeployer()


@pytest.fixture
def runner(deployer: StillDeployer, tmp_path: Path) -> Iterator[TrialRunner]:
    bench = Bench(
        model=ModelToServe("m", tmp_path), requests_file=tmp_path / "r.npz",
        signature="serving_default", deployer=deployer, meter=FakeMeter((10.0,)),
        settings=Settings(load=50.0), fixed={}, max_error_rate=0.01,
    )
    with TrialRunner(bench) as made:
        yield made
    assert deployer.alive == []


def stages(
    monkeypatch: pytest.MonkeyPatch, *results: StageResult, others: Sequence[float] = (),
    opens: bool = True,
) -> list[float | None]:
    """Let the load answer these results in turn; gives the rates it was asked for.

    Args:
        others: the share of the machine that others used in each stage; none, where not told.
        opens: whether the stages come as far as their window.
    """
    waiting, shares, rates = list(results), [*others], []

    def run_stage(plan: Any, observer: Any) -> StageResult:
        rates.append(plan.rate_rps)
        if opens:
            observer.window_opened(())
            observer.window_closed()
        return waiting.pop(0)

    def ended(span: machine.Span) -> dict[str, float | None]:
        share = shares.pop(0) if shares else 0.0
        return {"busy": share, "steal": 0.0, "others": share, "seconds": 1.0}

    monkeypatch.setattr(trial, "run_stage", run_stage)
    monkeypatch.setattr(machine.Span, "ended", ended)
    return rates


def stage(details: Mapping[str, Any] = QUIET, **changes: Any) -> StageResult:
    return replace(measured(20.0, 0.1).stage, details=dict(details), **changes)


def run(runner: TrialRunner, folder: Path, *levels: Mapping[str, Any], **knobs: Any) -> list[Any]:
    folders: Sequence[Path] = [folder / str(i) for i in range(max(len(levels), 1))]
    return list(runner.run(knobs, levels or ({},), folders))


def test_a_valid_stage_becomes_a_measurement_with_the_energy_of_its_window(
    runner: TrialRunner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stages(monkeypatch, stage())
    (outcome,) = run(runner, tmp_path)
    assert isinstance(outcome, Measurement)
    assert outcome.energy is not None and outcome.energy.source == FakeMeter.name
    # Nobody's processes have no memory.
    assert outcome.deployment == {"command_line": ["server"], "memory_peak_mb": None}


def test_a_meter_that_cannot_open_its_window_is_a_lost_energy_and_ends_no_study(
    runner: TrialRunner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def opens(*pids: Any) -> None:
        raise UnavailableError("package-0: gone")

    monkeypatch.setattr(runner.bench.meter, "open", opens)
    stages(monkeypatch, stage())
    (outcome,) = run(runner, tmp_path)
    assert isinstance(outcome, Failure)
    assert (outcome.reason, outcome.message) == ("energy_lost", "package-0: gone")


def test_a_disturbed_stage_is_repeated_once_and_says_so(
    runner: TrialRunner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates = stages(monkeypatch, stage(STOLEN), stage(QUIET))
    (outcome,) = run(runner, tmp_path)
    assert len(rates) == 2
    assert "hypervisor" in outcome.stage.details["disturbed_before"]
    assert outcome.stage.details["disturbed"] is None


@pytest.mark.parametrize(
    ("energy_s", "fits"), [(10.0, True), (10.19, True), (10.21, False), (9.79, False), (25.5, False)]
)
def test_latencies_and_energy_of_windows_of_different_length_are_no_pair(
    runner: TrialRunner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, energy_s: float, fits: bool
) -> None:
    """As when the study is stopped (SIGSTOP) over the window's end."""
    whole = FakeMeter.close
    monkeypatch.setattr(FakeMeter, "close", lambda self: replace(whole(self), window_s=energy_s,
                                                                 gross_j=10 * energy_s))
    paused = not fits and energy_s > 10  # passes, so it is measured once more
    rates = stages(monkeypatch, *[stage(window_s=10.0)] * (2 if paused else 1))
    (outcome,) = run(runner, tmp_path)
    assert isinstance(outcome, Measurement) and outcome.energy is not None
    assert len(rates) == (2 if paused else 1)
    assert (outcome.metrics()["energy_per_request_j"] is not None) == fits
    if not fits:
        reason, message = outcome.why_unmeasured("energy_per_request_j")
        assert reason == "energy_window"
        assert f"{energy_s:.3g} s and the latencies of 10 s" in message and "paused" in message


def test_a_pause_over_the_end_of_the_window_is_measured_again(
    runner: TrialRunner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lengths, whole = iter([25.5, 10.0]), FakeMeter.close
    monkeypatch.setattr(FakeMeter, "close", lambda self: replace(whole(self), gross_j=100.0,
                                                                 window_s=next(lengths)))
    stages(monkeypatch, *[stage(window_s=10.0)] * 2)
    (outcome,) = run(runner, tmp_path)
    assert "paused" in outcome.stage.details["disturbed_before"]
    assert outcome.stage.details["disturbed"] is None
    assert outcome.metrics()["energy_per_request_j"] == pytest.approx(100.0 / (25.0 * 10))


def test_a_reading_that_others_disturbed_is_measured_again_and_then_no_energy(
    runner: TrialRunner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = FakeMeter.close
    monkeypatch.setattr(FakeMeter, "close", lambda self: replace(
        whole(self), window_s=4.0, invalid="other work took 30%", invalid_reason="energy_disturbed"))
    rates = stages(monkeypatch, stage(), stage())
    (outcome,) = run(runner, tmp_path)
    assert len(rates) == 2 and outcome.metrics()["power_average_w"] is None
    assert outcome.why_unmeasured("energy_per_request_j") == (
        "energy_disturbed", "other work took 30%")


def test_a_window_that_others_shared_is_measured_again(
    runner: TrialRunner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing was seen before the stage, and the meter knows nothing of processes."""
    stages(monkeypatch, stage(), stage(), others=(0.5, 0.03))
    (outcome,) = run(runner, tmp_path)
    assert "50% of the machine in the measured" in outcome.stage.details["disturbed_before"]
    assert outcome.stage.details["disturbed"] is None
    assert outcome.stage.details["machine_window"]["others"] == 0.03


def test_every_stage_says_whether_it_was_disturbed(
    runner: TrialRunner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    overloaded = stage(valid=False, reason="overloaded", message="the queue grew")
    stages(monkeypatch, stage(), overloaded)
    (calm,), (failed,) = run(runner, tmp_path), run(runner, tmp_path)
    assert calm.stage.details["disturbed"] is None
    assert failed.partial["stage"]["details"]["disturbed"] is None


def test_a_failure_on_a_busy_machine_says_what_may_be_its_cause(
    runner: TrialRunner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    overloaded = stage(valid=False, reason="overloaded", message="the queue grew")
    stages(monkeypatch, overloaded, overloaded, others=(0.7, 0.6))
    (outcome,) = run(runner, tmp_path)
    assert outcome.reason == "overloaded"
    assert outcome.message == (
        "the queue grew; other work used 60% of the machine in the measured window, "
        "which may be why"
    )
    details = outcome.partial["stage"]["details"]
    assert "60%" in details["disturbed"] and "70%" in details["disturbed_before"]


def test_a_stage_that_ended_before_its_window_is_judged_by_the_whole_of_it(
    runner: TrialRunner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    overloaded = stage({}, valid=False, reason="overloaded", message="the queue grew")
    stages(monkeypatch, overloaded, overloaded, others=(0.6, 0.6), opens=False)
    (outcome,) = run(runner, tmp_path)
    assert "60% of the machine while the stage ran" in outcome.message


def test_a_stage_disturbed_twice_is_kept_and_says_so_but_not_in_a_recording(
    runner: TrialRunner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[None] = []
    monkeypatch.setattr(trial, "wait_until_quiet", lambda *_: waits.append(None))
    stages(monkeypatch, stage(STOLEN), stage(STOLEN), stage(STOLEN), stage(STOLEN))
    (kept,) = run(runner, tmp_path)
    assert isinstance(kept, Measurement) and "hypervisor" in kept.stage.details["disturbed"]
    assert not waits
    runner.bench = replace(runner.bench, only_calm=True)
    (refused,) = run(runner, tmp_path)
    assert isinstance(refused, Failure) and refused.reason == "disturbed"
    assert "hypervisor" in refused.message and len(waits) == 1


def test_a_study_told_to_wait_for_quiet_waits_before_it_measures_again(
    runner: TrialRunner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    monkeypatch.setattr(trial, "wait_until_quiet", lambda at_most_s, _: waits.append(at_most_s))
    stages(monkeypatch, stage(STOLEN), stage())
    runner.bench = replace(runner.bench, wait_for_quiet_s=7.0)
    run(runner, tmp_path)
    assert waits == [7.0]


def test_a_backlog_is_not_taken_for_other_work(
    runner: TrialRunner, deployer: StillDeployer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An overloaded server would be busy all through the second attempt: that has a fresh one."""
    overloaded = stage(STOLEN, valid=False, reason="overloaded", message="the queue grew")
    stages(monkeypatch, overloaded, replace(overloaded, details=QUIET), stage(STOLEN), stage())
    (outcome,) = run(runner, tmp_path)
    assert isinstance(outcome, Failure) and outcome.reason == "overloaded"
    assert deployer.deployed == 2
    run(runner, tmp_path)
    assert deployer.deployed == 3


def test_a_stage_whose_client_was_late_is_repeated_once(
    runner: TrialRunner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    late = stage(valid=False, reason="client_limited", message="sent late")
    stages(monkeypatch, late, stage(), late, late)
    (again,) = run(runner, tmp_path)
    assert isinstance(again, Measurement)
    assert again.stage.details["disturbed_before"] == "sent late"
    (still,) = run(runner, tmp_path)
    assert isinstance(still, Failure) and still.reason == "client_limited"


def test_an_invalid_stage_is_a_failure_with_its_reason(
    runner: TrialRunner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stages(monkeypatch, stage(valid=False, reason="overloaded", message="the queue grew"))
    (outcome,) = run(runner, tmp_path)
    assert isinstance(outcome, Failure)
    assert (outcome.reason, outcome.message) == ("overloaded", "the queue grew")
    assert outcome.partial["stage"]["requests"] == 100


def test_a_server_that_will_not_start_is_a_failure_with_its_log(
    runner: TrialRunner, tmp_path: Path
) -> None:
    (outcome,) = run(runner, tmp_path, grpc_max_threads=13)
    assert (outcome.reason, outcome.log_tail) == ("start_failed", "the log")


def test_a_server_that_dies_in_the_stage_fails_the_trial(
    runner: TrialRunner, deployer: StillDeployer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run_stage(plan: Any, observer: Any) -> StageResult:
        deployer.alive[-1].death = ("out_of_memory", "killed at its limit")
        assert observer.should_stop() == "killed at its limit"
        return stage(valid=False, reason="crash", message="ended")

    monkeypatch.setattr(trial, "run_stage", run_stage)
    (outcome,) = run(runner, tmp_path)
    assert outcome.reason == "out_of_memory"
    assert deployer.alive == []


def test_an_energy_source_that_vanishes_fails_the_trial(
    runner: TrialRunner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stages(monkeypatch, stage())
    vanishing = FakeMeter((UnavailableError("the counter is gone"),))
    runner.bench = replace(runner.bench, meter=vanishing)
    (outcome,) = run(runner, tmp_path)
    assert (outcome.reason, outcome.message) == ("energy_lost", "the counter is gone")


def test_one_deployment_serves_all_load_levels_of_a_configuration(
    runner: TrialRunner, deployer: StillDeployer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates = stages(monkeypatch, stage(), stage(), stage())
    runner.capacity_rps = 100.0
    run(runner, tmp_path, {"load": "light"}, {"load": "medium"}, {"load": "high"})
    assert rates == pytest.approx([30, 60, 90])
    assert deployer.deployed == 1


def test_another_configuration_gets_a_server_of_its_own(
    runner: TrialRunner, deployer: StillDeployer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stages(monkeypatch, stage(), stage())
    run(runner, tmp_path, tensorflow_intra_op_parallelism=1)
    run(runner, tmp_path, tensorflow_intra_op_parallelism=2)
    assert deployer.deployed == 2
    assert len(deployer.alive) == 1


def test_a_calibration_beside_other_work_says_so(
    runner: TrialRunner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The load levels of a whole study are shares of this capacity."""
    stages(monkeypatch, stage(), others=(0.5, 0.02))
    monkeypatch.setattr("tuner.load.levels.run_stage", trial.run_stage)
    runner.calibrate(tmp_path, clients=2, duration_s=1.0)
    assert "50% of the machine" in str(runner.calibration_disturbed)
    stages(monkeypatch, stage(), others=(0.02,))
    monkeypatch.setattr("tuner.load.levels.run_stage", trial.run_stage)
    runner.calibrate(tmp_path, clients=2, duration_s=1.0)
    assert runner.calibration_disturbed is None


@pytest.mark.parametrize(
    ("settings", "rate", "clients"),
    [
        (Settings(pattern="closed", clients=6), None, 6),
        # Nobody calibrated a capacity, and nobody needs one.
        (Settings(pattern="closed", load="medium"), None, 1),
        (Settings(load=50.0), 50.0, 1),
    ],
)
def test_the_clients_of_a_closed_loop_take_the_rates_place(
    runner: TrialRunner, tmp_path: Path, settings: Settings, rate: float | None, clients: int
) -> None:
    runner.bench = replace(runner.bench, settings=settings)
    plan = runner.plan(Still(), {}, settings.load, tmp_path)
    assert (plan.pattern, plan.rate_rps, plan.clients) == (settings.pattern, rate, clients)
