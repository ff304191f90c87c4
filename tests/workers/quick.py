"""An objective that really deploys the fake server, once, and asks it a few times a trial."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import grpc

from tests.study.conftest import measured
from tuner import deploy, machine
from tuner.deploy.base import DeploymentRequest, ModelToServe
from tuner.deploy.readiness import status_request
from tuner.measurement import Configuration, Outcome, Scalar
from tuner.space import Space

REQUESTS = 5
PAUSE_S = float(os.environ.get("QUICK_PAUSE_S", "0"))
"""Each trial takes so much longer, so that something may happen meanwhile."""
GATE = Path(os.environ["QUICK_GATE"]) if "QUICK_GATE" in os.environ else None
"""No trial ends before this file is there: so everybody has one when somebody is to be killed."""


class Quick:
    """Answers in milliseconds; the latency is the server's, the energy made up."""

    environment: ClassVar[Mapping[str, Any]] = {
        "machine": machine.identity(machine.describe()), "deployer": "fake",
    }

    def __init__(self, address: str) -> None:
        self._ask = grpc.insecure_channel(address).unary_unary(
            "/tensorflow.serving.ModelService/GetModelStatus"
        )

    def calibrate(self, facts: Mapping[str, Any], note: Callable[[str], None]) -> dict[str, Any]:
        return {"idle_w": 1.0, **{k: v for k, v in facts.items() if v is not None}}

    def evaluate(
        self, configuration: Configuration, levels: Sequence[Mapping[str, Scalar]],
        numbers: Sequence[int],
    ) -> list[Outcome]:
        while GATE is not None and not GATE.exists():
            time.sleep(0.05)
        begun = time.perf_counter()
        for _ in range(REQUESTS):
            self._ask(status_request("m"), timeout=10)
        took_ms = (time.perf_counter() - begun) * 1000 / REQUESTS
        time.sleep(PAUSE_S)
        return [measured(took_ms, float(configuration["threads"]))] * len(levels)

    def attributes(self) -> Mapping[str, Any]:
        return {"seed": 0}


@contextmanager
def open(space: Space, options: Any, note: Callable[[str], None]) -> Iterator[Quick]:
    workdir = Path(options.artifacts)
    workdir.mkdir(parents=True, exist_ok=True)
    request = DeploymentRequest(ModelToServe("m", workdir), {}, workdir)
    with deploy.make("fake") as deployer, deployer.deploy(request) as deployment:
        yield Quick(deployment.grpc_address)
