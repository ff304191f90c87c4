"""The contract of deployers, kept by containers; a study of several trials in them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import requests

from objectives import serving
from tests.contracts.deployer_contract import DeployerContract, check_other_ports_are_tried
from tests.deploy import engine
from tests.deploy.asking import predict_raw
from tuner import load, models, propose, space_file, store, study, trial
from tuner.deploy import make
from tuner.deploy.base import Deployer, DeploymentRequest, ModelToServe
from tuner.deploy.docker import OWNER
from tuner.errors import LostError, UnavailableError, UsageError
from tuner.measurement import StageResult


@pytest.fixture(scope="module")
def serving_deployer(docker_engine: engine.Engine) -> Iterator[Deployer]:
    with make("docker", **docker_engine.options(engine.SERVING)) as deployer:
        yield deployer


class TestDocker(DeployerContract):
    """Most of it by the fake server, which starts at once: limits and life are the engine's."""

    too_small_mb = 12

    @pytest.fixture(scope="class")
    def name(self) -> str:
        return "docker"

    @pytest.fixture(scope="class")
    def options(self, docker_engine: engine.Engine) -> dict[str, Any]:
        return docker_engine.options(engine.FAKE)

    @pytest.fixture(scope="class")
    def model(self, tmp_path_factory: pytest.TempPathFactory) -> ModelToServe:
        return ModelToServe("any", tmp_path_factory.mktemp("any"))

    @pytest.fixture(scope="class")
    def predict(self) -> Callable[[str, str], object]:
        return lambda address, name: predict_raw(address, name, [1.0])

    def test_an_unreadable_model_fails_with_a_reason(self, serving_deployer, tmp_path) -> None:
        super().test_an_unreadable_model_fails_with_a_reason(serving_deployer, tmp_path)

    def test_nothing_is_left_after_the_context(self, deployer, model, tmp_path) -> None:
        before = _containers(deployer)
        super().test_nothing_is_left_after_the_context(deployer, model, tmp_path)
        assert _containers(deployer) <= before

    def test_a_container_of_a_killed_study_is_reaped_at_the_next_start(
        self, deployer, options
    ) -> None:
        dead = f"{2**22 - 1}-1"
        left = deployer.client.containers.create(options["image"], labels={OWNER: dead})
        with make("docker", **options):
            assert left.id not in _containers(deployer)

    def test_another_study_may_remove_a_container_while_it_is_looked_at(
        self, deployer, options, monkeypatch
    ) -> None:
        other = deployer.client.containers.create(options["image"], labels={OWNER: f"{2**22 - 1}-1"})
        look = deployer.client.api.inspect_container

        def removed_meanwhile(container: str) -> dict[str, Any]:
            if container == other.id:
                deployer.client.api.remove_container(container)
            return look(container)

        monkeypatch.setattr(deployer.client.api, "inspect_container", removed_meanwhile)
        assert deployer.reap() == []
        assert other.id not in _containers(deployer)

    def test_a_container_that_somebody_removes_is_a_crash_that_says_so(
        self, deployer, model, tmp_path
    ) -> None:
        with deployer.deploy(DeploymentRequest(model, {}, tmp_path)) as deployment:
            deployer.client.api.remove_container(deployment.container.id, force=True)
            assert deployment.failure() == ("crash", "somebody removed the container")

    def test_an_unknown_image_is_refused_by_name(self, options) -> None:
        with pytest.raises(UnavailableError, match="no/such-image"):
            make("docker", **{**options, "image": "no/such-image"})

    def test_published_ports_answer_on_127_0_0_1_only(
        self, docker_engine, model, predict, tmp_path
    ) -> None:
        if docker_engine.no_bridge is not None:
            pytest.skip(docker_engine.no_bridge)
        with (
            make("docker", **docker_engine.options(engine.BRIDGED)) as deployer,
            deployer.deploy(DeploymentRequest(model, {}, tmp_path)) as deployment,
        ):
            predict(deployment.grpc_address, "any")
            assert deployment.describe()["network"] == "bridge"
            addresses = deployment.grpc_address, deployment.rest_address
            ports = {int(address.rpartition(":")[2]) for address in addresses}
            assert {ip for ip, port in _listening() if port in ports} == {"127.0.0.1"}

    @pytest.mark.parametrize("image", [engine.FAKE, engine.BRIDGED])
    def test_a_port_that_is_taken_meanwhile_is_chosen_anew(
        self, docker_engine, model, tmp_path, monkeypatch, image
    ) -> None:
        if image == engine.BRIDGED and docker_engine.no_bridge is not None:
            pytest.skip(docker_engine.no_bridge)
        with make("docker", **docker_engine.options(image)) as deployer:
            check_other_ports_are_tried(deployer, model, tmp_path, monkeypatch)


def test_an_engine_that_goes_away_is_lost_and_no_configuration_is_to_blame(
    docker_engine: engine.Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*request: object, **options: object) -> None:
        raise requests.ConnectionError("Connection aborted.")

    request = DeploymentRequest(ModelToServe("any", tmp_path), {}, tmp_path / "work")
    with make("docker", **docker_engine.options(engine.FAKE)) as deployer:
        with deployer.deploy(request) as deployment, monkeypatch.context() as patch:
            patch.setattr(deployer.client.api, "send", gone)
            assert deployment.failure() is None  # Its process is seen to live, without the engine.
            server = psutil.Process(deployment.pid)
            server.kill()
            server.wait(10)
            with pytest.raises(LostError, match="does not answer any more"):
                deployment.failure()
        monkeypatch.setattr(deployer.client.api, "send", gone)
        with pytest.raises(LostError), deployer.deploy(request):
            pass


SPACE = """
name: contained
model: {model}
requests: {requests}
deployer: docker
load: 20
min_duration_s: 1
max_duration_s: 1
parameters:
  cpu_quota: [1.5, 1.8]
  memory_limit_mb: [2000, 2500]
fixed: {{tensorflow_intra_op_parallelism: 1}}
"""


def test_a_study_runs_each_trial_in_a_container_under_its_limits(
    docker_engine: engine.Engine, doubling: ModelToServe, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # A short warm-up, and no second stage where the machine is busy: no number here matters.
    def run_stage(plan: load.StagePlan, observer: load.StageObserver) -> StageResult:
        return load.run_stage(dataclasses.replace(plan, max_warmup_s=0.5), observer)

    rows = {"x": models.TensorSpec("float32", (None, 1))}
    record = models.ModelRecord("doubling", doubling.base_path, 1, "own", "abc", rows, {})
    monkeypatch.setattr(models, "resolve", lambda name, **_: record)
    monkeypatch.setattr(trial, "run_stage", run_stage)
    monkeypatch.setattr(trial, "disturbance", lambda details: None)
    np.savez(tmp_path / "rows.npz", x=np.ones((8, 1), np.float32))
    text = SPACE.format(model=doubling.base_path, requests=tmp_path / "rows.npz")
    space = space_file.parse(text, file="contained.yaml")
    options = serving.Options(
        tmp_path / "artifacts", deployer=docker_engine.options(engine.SERVING)
    )
    kept = store.Store.create(f"sqlite:///{tmp_path}/contained.db", "contained", space, {})
    with serving.open(space, options, lambda note: None) as evaluator:
        arm = study.Arm({}, kept, propose.make("random", space, seed=0))
        study.run(space, [arm], evaluator, n_trials=3)
    records = kept.records()
    assert len(records) == 3
    # Beside other work the load generator may refuse its own stage; the container ran all the same.
    assert {r.reason for r in records} <= {None, "client_limited", "overloaded"}
    for record in records:
        limits = record.measurement["deployment"]["limits"]
        assert limits["cpu_quota"] == record.configuration["cpu_quota"] * 100_000
        assert limits["mem_limit"] == record.configuration["memory_limit_mb"] << 20
        assert record.measurement["deployment"]["network"] == "host"


def test_an_engine_that_is_not_there_is_named() -> None:
    with pytest.raises(UnavailableError, match="unix:///nowhere.sock"):
        make("docker", engine_url="unix:///nowhere.sock")


def test_an_option_that_docker_does_not_have_is_refused() -> None:
    with pytest.raises(UsageError, match="server_binary"):
        make("docker", server_binary="x")


def _containers(deployer: Any) -> set[str]:
    return {container.id for container in deployer.containers()}


def _listening() -> set[tuple[str, int]]:
    found = psutil.net_connections("tcp")
    return {(c.laddr.ip, c.laddr.port) for c in found if c.status == psutil.CONN_LISTEN}
