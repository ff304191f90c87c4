"""A model that doubles, and an embedded deployer, made once for a test run."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.deploy import engine
from tests.deploy.live import Deploy
from tuner.deploy import programs
from tuner.deploy.base import DeploymentRequest, ModelToServe
from tuner.deploy.embedded import FORK_SERVER, EmbeddedDeployer

_SAVE = """
import sys, tensorflow as tf

class Doubling(tf.Module):
    @tf.function(input_signature=[tf.TensorSpec([None, 1], tf.float32, name="x")])
    def __call__(self, x):
        return {"y": 2.0 * x}

module = Doubling()
tf.saved_model.save(module, sys.argv[1], signatures=module.__call__)
"""


@pytest.fixture(scope="session")
def doubling(tmp_path_factory: pytest.TempPathFactory) -> ModelToServe:
    base = tmp_path_factory.mktemp("models") / "doubling"
    subprocess.run(
        [sys.executable, "-c", _SAVE, str(base / "1")], check=True, capture_output=True
    )
    return ModelToServe("doubling", base)


@pytest.fixture(scope="session")
def embedded() -> Iterator[EmbeddedDeployer]:
    """Servers that log what TensorFlow does, and compile models of a single operation, too."""
    variables = ["TF_CPP_MIN_LOG_LEVEL=0", "TF_XLA_FLAGS=--tf_xla_min_cluster_size=1"]
    command = ["env", *variables, *programs.command(FORK_SERVER)]
    with EmbeddedDeployer(fork_server=command, monitoring=True) as deployer:
        yield deployer


@pytest.fixture(scope="session")
def deploy(
    embedded: EmbeddedDeployer, doubling: ModelToServe, tmp_path_factory: pytest.TempPathFactory
) -> Deploy:
    """Deploys the doubling model, or another, with the knobs given."""

    def deploying(model: ModelToServe = doubling, **knobs: object) -> object:
        return embedded.deploy(DeploymentRequest(model, knobs, tmp_path_factory.mktemp("server")))

    return deploying


@pytest.fixture(scope="session")
def docker_engine() -> Iterator[engine.Engine]:
    try:
        with engine.running() as found:
            yield found
    except engine.NoEngine as reason:
        pytest.skip(f"no Docker engine: {reason}")
