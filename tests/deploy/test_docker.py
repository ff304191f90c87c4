"""The contract of deployers, kept by containers with CPU and memory limits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.contracts.deployer_contract import DeployerContract
from tests.deploy import engine
from tests.deploy.asking import predict_doubled
from tuner.deploy import make
from tuner.deploy.base import ModelToServe
from tuner.deploy.docker import OWNER
from tuner.errors import UnavailableError, UsageError


@pytest.fixture(scope="module")
def docker_engine() -> Iterator[engine.Engine]:
    try:
        with engine.running() as found:
            yield found
    except engine.NoEngine as reason:
        pytest.skip(f"no Docker engine: {reason}")


class TestDocker(DeployerContract):
    too_small_mb = 64

    @pytest.fixture(scope="class")
    def name(self) -> str:
        return "docker"

    @pytest.fixture(scope="class")
    def options(self, docker_engine: engine.Engine) -> dict[str, Any]:
        return docker_engine.options

    @pytest.fixture(scope="class")
    def model(self, doubling: ModelToServe) -> ModelToServe:
        return doubling

    @pytest.fixture(scope="class")
    def predict(self) -> Callable[[str, str], object]:
        return predict_doubled

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

    def test_an_unknown_image_is_refused_by_name(self, options) -> None:
        with pytest.raises(UnavailableError, match="no/such-image"):
            make("docker", **{**options, "image": "no/such-image"})


def test_an_engine_that_is_not_there_is_named() -> None:
    with pytest.raises(UnavailableError, match="unix:///nowhere.sock"):
        make("docker", engine_url="unix:///nowhere.sock")


def test_an_option_that_docker_does_not_have_is_refused() -> None:
    with pytest.raises(UsageError, match="server_binary"):
        make("docker", server_binary="x")


def _containers(deployer: Any) -> set[str]:
    return {c.id for c in deployer.client.containers.list(all=True, filters={"label": OWNER})}
