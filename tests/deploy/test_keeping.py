"""A server is kept while only load and client settings change, and stays off the client's core."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.study.conftest import measured
from tuner import trial
from tuner.deploy import make
from tuner.deploy.base import Deployer, DeploymentRequest, ModelToServe
from tuner.deploy.containers import container_limits
from tuner.load import StagePlan
from tuner.measurement import Measurement, Outcome, StageResult
from tuner.meter import FakeMeter
from tuner.space import Settings
from tuner.trial import Bench, TrialRunner

LEVELS = ({"load": 20.0}, {"load": 40.0})


@pytest.fixture(scope="module")
def deployer() -> Iterator[Deployer]:
    with make("fake") as made:
        yield made


@pytest.fixture
def runner(deployer: Deployer, tmp_path: Path) -> Iterator[TrialRunner]:
    bench = Bench(
        model=ModelToServe("m", tmp_path), requests_file=tmp_path / "r.npz",
        signature="serving_default", deployer=deployer, meter=FakeMeter(),
        settings=Settings(load=50.0), fixed={}, max_error_rate=0.01,
    )
    with TrialRunner(bench) as made:
        yield made


@pytest.fixture
def stages(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, StagePlan]]:
    """Process id of the server and plan, of each load stage; the load itself is left out."""
    seen: list[tuple[int, StagePlan]] = []

    def run_stage(plan: StagePlan, observer: Any) -> StageResult:
        seen.append((observer._server_pids()[0], plan))
        observer.window_opened(())
        observer.window_closed()
        return measured(1.0, 1.0).stage

    monkeypatch.setattr(trial, "run_stage", run_stage)
    return seen


def run(runner: TrialRunner, folder: Path, **knobs: Any) -> list[Outcome]:
    """One configuration at both load levels."""
    outcomes = runner.run(knobs, LEVELS, [folder / f"{i}" for i in range(len(LEVELS))])
    assert all(isinstance(outcome, Measurement) for outcome in outcomes), outcomes
    return outcomes


def test_load_and_protocol_change_on_one_server(
    runner: TrialRunner, stages: list[tuple[int, StagePlan]], tmp_path: Path
) -> None:
    run(runner, tmp_path, protocol="grpc")
    run(runner, tmp_path, protocol="rest")
    assert len({pid for pid, _ in stages}) == 1
    assert [(p.protocol, p.rate_rps) for _, p in stages] == [
        ("grpc", 20.0), ("grpc", 40.0), ("rest", 20.0), ("rest", 40.0)
    ]
    assert len({plan.address for _, plan in stages}) == 2


def test_a_setting_of_the_server_replaces_it(
    runner: TrialRunner, stages: list[tuple[int, StagePlan]], tmp_path: Path
) -> None:
    run(runner, tmp_path, protocol="rest")
    run(runner, tmp_path, protocol="rest", rest_api_num_threads=3)
    assert len({pid for pid, _ in stages}) == 2


def test_on_four_cores_the_server_leaves_the_last_one_to_the_client(
    runner: TrialRunner, stages: list[tuple[int, StagePlan]], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    here = os.sched_getaffinity(0)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: here if pid else {0, 1, 2, 3})
    first, _ = run(runner, tmp_path)
    assert first.deployment["limits"]["affinity"] == [0, 1, 2]


def test_on_two_cores_the_server_has_both(
    runner: TrialRunner, stages: list[tuple[int, StagePlan]], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1})
    first, _ = run(runner, tmp_path)
    assert first.deployment["limits"]["affinity"] is None


def test_the_running_server_is_pinned_to_the_cores_left_to_it(
    deployer: Deployer, tmp_path: Path
) -> None:
    last = max(os.sched_getaffinity(0))
    request = DeploymentRequest(ModelToServe("m", tmp_path), {}, tmp_path, server_cores=(last,))
    with deployer.deploy(request) as deployment:
        assert os.sched_getaffinity(deployment.pids()[0]) == {last}


def test_cores_asked_for_by_number_are_counted_from_the_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2, 3})
    assert container_limits({}, (0, 1, 2))["cpuset_cpus"] == "0,1,2"
    assert container_limits({"cpus": 1}, (0, 1, 2))["cpuset_cpus"] == "0"
    assert container_limits({"cpus": 4}, (0, 1, 2))["cpuset_cpus"] == "0,1,2,3"
    assert container_limits({}, None) == {}
