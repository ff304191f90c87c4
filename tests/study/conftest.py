"""A small space, and an evaluator that answers from a formula instead of a server."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from tuner.measurement import (
    Configuration,
    EnergyReading,
    Failure,
    Measurement,
    Outcome,
    Scalar,
    StageResult,
)
from tuner.space import Space
from tuner.space_file import parse

SPACE = """
name: small
parameters:
  batching: {choices: [false, true]}
  size: {values: [1, 2, 4, 8], when: {batching: true}}
  threads: {values: [1, 2]}
"""


def measured(p99_ms: float, energy_j: float, *, errors: int = 0) -> Measurement:
    """A measurement of 100 requests in 4 s."""
    stage = StageResult(
        valid=True, reason=None, message="", pattern="poisson", target_rate_rps=25.0, warmup_s=1.0,
        window_s=4.0, requests=100, errors={"UNAVAILABLE": errors} if errors else {},
        throughput_rps=25.0, latency_p50_ms=p99_ms / 2, latency_p95_ms=p99_ms * 0.9,
        latency_p99_ms=p99_ms, latency_mean_ms=p99_ms / 2, latency_max_ms=p99_ms * 1.1,
        latency_p99_interval_ms=(p99_ms * 0.9, p99_ms * 1.1), latency_p50_interval_ms=None,
        precise=True, client_lag_p99_ms=0.1, client_cpu_s=0.1, seed=0,
    )
    energy = EnergyReading("fake", "estimate", ("cpu",), 4.0, energy_j * 100)
    return Measurement(stage, energy)


class Formula:
    """Latency falls with the size, energy rises; size 8 on one thread crashes."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.seen: list[Configuration] = []
        self.stop_after = stop_after

    def evaluate(
        self, configuration: Configuration, levels: Sequence[Mapping[str, Scalar]],
        numbers: Sequence[int],
    ) -> list[Outcome]:
        if self.stop_after is not None and len(self.seen) >= self.stop_after:
            raise KeyboardInterrupt
        self.seen.append(dict(configuration))
        size, threads = int(configuration.get("size", 1)), int(configuration["threads"])
        if size == 8 and threads == 1:
            return [Failure("crash", "the server ended with signal 11", "log")] * len(levels)
        factor = {"light": 1.0, "high": 3.0}
        return [
            measured(100 / size / threads * factor.get(str(l.get("load")), 1.0), size * 0.1)
            for l in levels
        ]

    def attributes(self) -> Mapping[str, Any]:
        return {"seed": 0}


@pytest.fixture
def space() -> Space:
    return parse(SPACE)


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/small.db"


@pytest.fixture
def formula() -> Formula:
    return Formula()


@pytest.fixture
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of the test's own as working directory."""
    monkeypatch.chdir(tmp_path)
    os.makedirs("studies", exist_ok=True)
    return tmp_path
