"""Requests of one, three and eight rows from each workload that comes with tuner."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tuner import workloads
from tuner.errors import UnavailableError
from tuner.load import requests
from tuner.models import ModelRecord, TensorSpec
from tuner.rows import read

WORKLOADS = {
    "photographs": TensorSpec("float32", (None, 32, 32, 3)),
    "japanese_vowels": TensorSpec("float32", (None, 29, 12)),
    "movie_reviews": TensorSpec("int32", (None, 256)),
}


@pytest.mark.parametrize("count", [1, 3, 8])
@pytest.mark.parametrize("workload", list(WORKLOADS))
def test_requests_of_several_rows_hold_that_many_different_rows_of_the_workload(
    tmp_path: Path, workload: str, count: int
) -> None:
    model = ModelRecord(
        name="net", path=Path("net"), version=1, weights="", checksum="",
        inputs={"x": WORKLOADS[workload]}, outputs={}, workload=workload,
    )
    try:
        held = read(workloads.requests_file(model, cache=tmp_path))
    except UnavailableError as error:
        pytest.skip(str(error))
    rows = held.columns["x"]
    blocks = requests.blocks(held.alike(), count, np.random.default_rng(0))
    assert set(blocks.ravel().tolist()) == set(range(len(rows)))
    body = next(requests.rest_bodies(held, blocks[:1], "serving_default"))
    sent = np.array(json.loads(body)["inputs"], dtype=rows.dtype)
    assert sent.shape == (count, *rows.shape[1:])
    assert len({row.tobytes() for row in sent}) == count
    np.testing.assert_allclose(sent, rows[blocks[0]], rtol=1e-6)
    (grpc,) = requests.grpc_bodies(held, blocks[:1])
    assert rows[blocks[0]].tobytes() in grpc
