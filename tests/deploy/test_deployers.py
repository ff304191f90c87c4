"""The contract of deployers, kept by the three that run without an engine."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.contracts.deployer_contract import DeployerContract, check_other_ports_are_tried
from tests.deploy.asking import predict_doubled, predict_raw
from tuner.deploy.base import Deployer, ModelToServe


class TestFake(DeployerContract):
    @pytest.fixture(scope="class")
    def name(self) -> str:
        return "fake"

    @pytest.fixture(scope="class")
    def model(self, tmp_path_factory: pytest.TempPathFactory) -> ModelToServe:
        return ModelToServe("any", tmp_path_factory.mktemp("any"))

    @pytest.fixture(scope="class")
    def predict(self) -> Callable[[str, str], object]:
        return lambda address, name: predict_raw(address, name, [1.0])

    def test_a_port_that_is_taken_meanwhile_is_chosen_anew(
        self, deployer, model, tmp_path, monkeypatch
    ) -> None:
        check_other_ports_are_tried(deployer, model, tmp_path, monkeypatch)

    @pytest.mark.skip(reason="the fake serves no model, so none is unreadable")
    def test_an_unreadable_model_fails_with_a_reason(self) -> None: ...


class _Real(DeployerContract):
    too_small_mb = 100

    @pytest.fixture(scope="class")
    def model(self, doubling: ModelToServe) -> ModelToServe:
        return doubling

    @pytest.fixture(scope="class")
    def predict(self) -> Callable[[str, str], object]:
        return predict_doubled


class TestEmbedded(_Real):
    @pytest.fixture(scope="class")
    def name(self) -> str:
        return "embedded"

    @pytest.fixture(scope="class")
    def deployer(self, embedded: Deployer) -> Deployer:
        return embedded


class TestBinary(_Real):
    @pytest.fixture(scope="class")
    def name(self) -> str:
        return "binary"

    @pytest.fixture(scope="class")
    def options(self, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
        return {"server_binary": str(stand_in(tmp_path_factory.mktemp("bin")))}


def stand_in(folder: Path) -> Path:
    """The embedded server installed under the name ``tensorflow_model_server``."""
    program = folder / "tensorflow_model_server"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m tuner.modelserver "$@"\n')
    program.chmod(0o755)
    return program
