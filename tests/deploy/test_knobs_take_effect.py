"""Each knob is seen on the running server, not only on its command line."""

from __future__ import annotations

import collections
import json
import os
import re
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.deploy.asking import answer, predict_raw
from tuner.deploy import allocators, make
from tuner.deploy.base import Deployer, Deployment, DeploymentRequest, ModelToServe
from tuner.deploy.files import METRICS_PATH

needs_jemalloc = pytest.mark.skipif(
    allocators.library("jemalloc") is None, reason="jemalloc is not installed (libjemalloc2)"
)
ALLOCATOR = "jemalloc" if allocators.library("jemalloc") else "system"
ENVIRONMENT = {"onednn": False, "allocator": ALLOCATOR}
"""The same for all servers here, so that they share one fork server."""
BATCHING = {
    "enable_batching": True,
    "max_batch_size": 4,
    "batch_timeout_micros": 300_000,
    "num_batch_threads": 5,
    "allowed_batch_sizes": "1,4",
    "enable_large_batch_splitting": True,
    "max_execution_batch_size": 2,
    "tensorflow_inter_op_parallelism": 4,
    "tensorflow_intra_op_parallelism": 1,
}
PLAIN = {
    "model_copies": 2,
    "protocol": "rest",
    "rest_api_num_threads": 7,
    "tensorflow_session_parallelism": 6,
    "grpc_max_threads": 2,
    "response_cache_bytes": 100_000,
    "enable_serialization_as_tensor_content": True,
    "xla_cpu_compilation_enabled": True,
}


@pytest.fixture(scope="module")
def deployer() -> Iterator[Deployer]:
    with make("embedded", monitoring=True) as deployer:
        yield deployer


@pytest.fixture(scope="module")
def batching(deployer, doubling, tmp_path_factory) -> Iterator[Deployment]:
    yield from deployed(deployer, doubling, tmp_path_factory, BATCHING)


@pytest.fixture(scope="module")
def plain(deployer, doubling, tmp_path_factory) -> Iterator[Deployment]:
    yield from deployed(deployer, doubling, tmp_path_factory, PLAIN)


def deployed(
    deployer: Deployer, model: ModelToServe, factory: Any, knobs: dict[str, Any]
) -> Iterator[Deployment]:
    request = DeploymentRequest(model, {**ENVIRONMENT, **knobs}, factory.mktemp("server"))
    with deployer.deploy(request) as deployment:
        yield deployment


def threads(deployment: Deployment) -> collections.Counter[str]:
    """Thread name -> how many the server has of it."""
    tasks = Path(f"/proc/{deployment.pids()[0]}/task")
    return collections.Counter((tasks / t / "comm").read_text().strip() for t in os.listdir(tasks))


def metric(deployment: Deployment, name: str) -> float:
    """Sum over all label sets of one Prometheus metric; 0 when it is not there."""
    with urllib.request.urlopen(f"http://{deployment.rest_address}{METRICS_PATH}") as page:
        text = page.read().decode()
    pattern = rf"^:tensorflow:serving:{name}(?:{{.*}})? (\S+)$"
    return sum(float(value) for value in re.findall(pattern, text, re.MULTILINE))


def ask_at_once(deployment: Deployment, count: int) -> list[BaseException | None]:
    """Ask ``count`` one-row requests together; how each ended."""
    with ThreadPoolExecutor(count) as pool:
        asked = [
            pool.submit(predict_raw, deployment.grpc_address, deployment.model_names[0], [1.0])
            for _ in range(count)
        ]
        return [one.exception() for one in asked]


def test_onednn_is_off_in_the_process_environment(batching) -> None:
    variables = Path(f"/proc/{batching.pids()[0]}/environ").read_bytes().split(b"\0")
    assert b"TF_ENABLE_ONEDNN_OPTS=0" in variables


@needs_jemalloc
def test_the_allocator_is_mapped_into_the_process(batching) -> None:
    assert "libjemalloc" in Path(f"/proc/{batching.pids()[0]}/maps").read_text()


@pytest.mark.parametrize("name", list(allocators.SONAMES))
def test_an_installed_allocator_can_be_preloaded(name: str) -> None:
    if allocators.library(name) is None:
        pytest.skip(f"{name} is not installed ({allocators.PACKAGES[name]})")
    maps = subprocess.run(
        [sys.executable, "-c", "print(open('/proc/self/maps').read())"],
        env={**os.environ, **allocators.preload(name)}, capture_output=True, text=True, check=True,
    ).stdout
    assert allocators.library(name) in maps or Path(allocators.library(name)).name in maps


def test_as_many_batch_threads_run_as_asked(batching) -> None:
    batch_threads = [n for name, n in threads(batching).items() if name.startswith("batch_threads")]
    assert sum(batch_threads) == 5


def test_as_many_inter_op_threads_run_as_asked(batching, plain) -> None:
    assert threads(batching)["tf_Compute"] == 4
    assert threads(plain)["tf_Compute"] == 6


def test_as_many_intra_op_threads_run_as_asked(deployer, doubling, tmp_path) -> None:
    counts = []
    for wanted in (1, 9):
        knobs = {"tensorflow_intra_op_parallelism": wanted, "tensorflow_inter_op_parallelism": 1}
        request = DeploymentRequest(doubling, {**ENVIRONMENT, **knobs}, tmp_path / str(wanted))
        with deployer.deploy(request) as deployment:
            predict_raw(deployment.grpc_address, "doubling", [1.0])
            counts.append(threads(deployment)["python"])
    # One thread needs no pool: the caller computes.
    assert counts[1] - counts[0] == pytest.approx(9, abs=1)


def test_requests_that_come_together_are_one_batch(batching) -> None:
    before = metric(batching, "batching:processed_batch_size_count")
    assert ask_at_once(batching, 2) == [None, None]
    assert metric(batching, "batching:processed_batch_size_count") == before + 1


def test_a_lone_request_waits_for_the_time_out(batching) -> None:
    before = metric(batching, "batching_session:queuing_latency_sum")
    predict_raw(batching.grpc_address, batching.model_names[0], [1.0])
    waited_us = metric(batching, "batching_session:queuing_latency_sum") - before
    assert waited_us == pytest.approx(300_000, rel=0.3)


def test_no_batch_is_run_above_the_execution_size(batching) -> None:
    before = metric(batching, "batching:processed_batch_size_count")
    rows = [1.0, 2.0, 3.0, 4.0]
    raw = predict_raw(batching.grpc_address, batching.model_names[0], rows)
    assert answer(raw) == [2.0, 4.0, 6.0, 8.0]
    assert metric(batching, "batching:processed_batch_size_count") >= before + 2


def test_every_copy_has_a_model_of_its_own(plain) -> None:
    assert plain.model_names == ("doubling", "doubling_2")
    for name in plain.model_names:
        assert answer(predict_raw(plain.grpc_address, name, [3.0])) == [6.0]
        loaded = f"Successfully loaded servable version {{name: {name} "
        assert loaded in plain.log_file.read_text()


def test_requests_beyond_grpc_max_threads_are_refused(plain) -> None:
    codes: set[grpc.StatusCode] = set()
    for _ in range(10):
        codes |= {e.code() for e in ask_at_once(plain, 32) if isinstance(e, grpc.RpcError)}
        if codes:
            break
    assert codes == {grpc.StatusCode.RESOURCE_EXHAUSTED}


def test_a_repeated_request_is_answered_from_the_cache(plain) -> None:
    for _ in range(2):
        predict_raw(plain.grpc_address, "doubling", [42.0])
    assert metric(plain, "response_cache:hits") >= 1


def test_answers_are_packed_as_tensor_content(plain, batching) -> None:
    from tuner.deploy.readiness import fields

    def tensor(deployment: Deployment) -> dict[int, Any]:
        raw = predict_raw(deployment.grpc_address, deployment.model_names[0], [7.0])
        entry = next(dict(fields(body)) for number, body in fields(raw) if number == 1)
        return dict(fields(entry[2]))

    assert 4 in tensor(plain)
    assert 4 not in tensor(batching)


def test_rest_answers(plain) -> None:
    url = f"http://{plain.rest_address}/v1/models/doubling:predict"
    asked = urllib.request.Request(url, json.dumps({"instances": [[2.0]]}).encode())
    with urllib.request.urlopen(asked) as page:
        assert json.load(page) == {"predictions": [[4.0]]}
