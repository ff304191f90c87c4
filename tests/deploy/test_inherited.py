"""What tuner starts does not get to see the password of the study's storage."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.deploy.live import process_file
from tuner.deploy import make
from tuner.deploy.base import Deployer, DeploymentRequest, ModelToServe


@pytest.fixture(params=["fake", "embedded"])
def deployer(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Deployer]:
    monkeypatch.setenv("TUNER_STORAGE", "postgresql://u:s3cret@h/d")
    monkeypatch.setenv("TUNER_OF_A_TEST", "seen")
    with make(request.param) as made:
        yield made


def test_no_process_of_a_deployment_is_told_the_storage(
    deployer: Deployer, doubling: ModelToServe, tmp_path: Path
) -> None:
    with deployer.deploy(DeploymentRequest(doubling, {}, tmp_path)) as deployment:
        seen = [process_file(deployment, "environ")]
        for child in psutil.Process().children(recursive=True):
            seen.append(Path(f"/proc/{child.pid}/environ").read_bytes())
    assert b"TUNER_OF_A_TEST=seen" in seen[0]
    assert len(seen) > 2
    # Others of the same test run were started before; only this deployer's have the mark.
    assert not [e for e in seen if b"TUNER_OF_A_TEST" in e and b"s3cret" in e]
