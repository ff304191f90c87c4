from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tuner.load.base import StagePlan

LENGTH_S = 60.0
"""Window of a plan whose arrivals are judged by their statistics."""


@pytest.fixture(scope="session")
def requests_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("requests") / "requests.npz"
    rng = np.random.default_rng(7)
    np.savez(path, x=rng.random((24, 20), dtype=np.float32))
    return path


@pytest.fixture
def make_plan(requests_file: Path) -> Any:
    def make(address: str = "127.0.0.1:1", **fields: Any) -> StagePlan:
        defaults: dict[str, Any] = {
            "model_names": ("m",),
            "requests_file": requests_file,
            "rate_rps": 100.0,
            "min_duration_s": 1.0,
            "max_duration_s": 1.0,
            "max_warmup_s": 0.5,
        }
        return StagePlan(address=address, **(defaults | fields))

    return make


@pytest.fixture
def long_plan(make_plan: Any) -> Any:
    return lambda **fields: make_plan(**({"max_duration_s": LENGTH_S} | fields))
