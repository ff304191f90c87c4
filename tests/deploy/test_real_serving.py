"""The contract against a real TensorFlow Serving, for whoever has one: ``make real-serving``.

``TUNER_REAL_SERVING_BINARY`` names a ``tensorflow_model_server``, ``TUNER_REAL_SERVING_IMAGE`` an
image such as ``tensorflow/serving``. Without them everything here is skipped.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest

from tests.contracts.deployer_contract import DeployerContract
from tests.deploy.asking import predict_doubled
from tuner.deploy.base import ModelToServe

BINARY = os.environ.get("TUNER_REAL_SERVING_BINARY")
IMAGE = os.environ.get("TUNER_REAL_SERVING_IMAGE")


class _Real(DeployerContract):
    @pytest.fixture(scope="class")
    def model(self, doubling: ModelToServe) -> ModelToServe:
        return doubling

    @pytest.fixture(scope="class")
    def predict(self) -> Callable[[str, str], object]:
        return predict_doubled


@pytest.mark.skipif(not BINARY, reason="TUNER_REAL_SERVING_BINARY names no real server")
class TestRealBinary(_Real):
    @pytest.fixture(scope="class")
    def name(self) -> str:
        return "binary"

    @pytest.fixture(scope="class")
    def options(self) -> dict[str, Any]:
        return {"server_binary": BINARY}


@pytest.mark.skipif(not IMAGE, reason="TUNER_REAL_SERVING_IMAGE names no real image")
class TestRealImage(_Real):
    @pytest.fixture(scope="class")
    def name(self) -> str:
        return "docker"

    @pytest.fixture(scope="class")
    def options(self) -> dict[str, Any]:
        return {"image": IMAGE}
