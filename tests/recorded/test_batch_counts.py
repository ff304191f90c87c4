"""A monitored deployment tells how large the batches of each load stage were."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from tuner.deploy import make
from tuner.deploy.base import Deployer, Deployment, DeploymentRequest, ModelToServe
from tuner.deploy.monitored import BatchCounts, MonitoredDeployer, parse

EXPOSITION = """\
# TYPE :tensorflow:serving:batching_session:processed_batch_size histogram
:tensorflow:serving:batching_session:processed_batch_size_bucket{le="2"} 1
:tensorflow:serving:batching_session:processed_batch_size_bucket{le="+Inf"} 3
:tensorflow:serving:batching_session:processed_batch_size_sum{model_name="m"} 12
:tensorflow:serving:batching_session:processed_batch_size_count{model_name="m"} 3
:tensorflow:serving:batching_session:processed_batch_size_sum{model_name="copy"} 4
:tensorflow:serving:batching_session:processed_batch_size_count{model_name="copy"} 1
:tensorflow:serving:batching_session:input_batch_size_sum{model_name="m"} 99
"""


class Scripted(Deployment):
    """Stands still; its metrics are served by the test."""

    grpc_address = "127.0.0.1:1"
    model_names = ("m",)

    def __init__(self, rest_address: str | None) -> None:
        self.rest_address = rest_address

    def pids(self) -> tuple[int, ...]:
        return (7,)

    def failure(self) -> tuple[str, str] | None:
        return None

    def describe(self) -> Mapping[str, Any]:
        return {"start_s": 0.5}


class ScriptedDeployer(Deployer):
    name = "scripted"

    def __init__(self, rest_address: str | None) -> None:
        self._address = rest_address

    @contextmanager
    def deploy(self, request: DeploymentRequest) -> Iterator[Deployment]:
        yield Scripted(self._address)


@pytest.fixture
def answers() -> Iterator[tuple[str, list[str]]]:
    """An address whose every GET answers the list's first text, the last one again and again."""
    texts: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = (texts.pop(0) if len(texts) > 1 else texts[0]).encode()
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_port}", texts
        server.shutdown()


def deployed(address: str | None, tmp_path: Path) -> Any:
    request = DeploymentRequest(ModelToServe("m", tmp_path), {}, tmp_path)
    return MonitoredDeployer(ScriptedDeployer(address)).deploy(request)


def test_batches_and_rows_are_summed_over_models() -> None:
    assert parse(EXPOSITION) == BatchCounts(batches=4, rows=16)


def test_each_description_counts_from_the_one_before(answers: Any, tmp_path: Path) -> None:
    address, texts = answers
    later = EXPOSITION.replace("} 12\n", "} 32\n").replace('sum"} 3\n', "").replace(
        'count{model_name="m"} 3', 'count{model_name="m"} 5'
    )
    texts += [EXPOSITION, later, later]
    with deployed(address, tmp_path) as deployment:
        assert deployment.describe()["batches"] == {"batches": 2, "rows": 20, "rows_mean": 10.0}
        assert deployment.describe()["batches"] == {"batches": 0, "rows": 0, "rows_mean": None}


def test_the_rest_is_as_the_wrapped_deployment_has_it(tmp_path: Path) -> None:
    with deployed(None, tmp_path) as deployment:
        assert deployment.pids() == (7,)
        assert deployment.grpc_address == "127.0.0.1:1"
        assert deployment.describe() == {"start_s": 0.5, "batches": None}


def test_a_server_that_does_not_answer_has_no_counts(tmp_path: Path) -> None:
    with deployed("127.0.0.1:9", tmp_path) as deployment:
        assert deployment.describe()["batches"] is None


def test_any_deployer_asked_for_monitoring_is_monitored() -> None:
    with make("fake", monitoring=True) as deployer:
        assert isinstance(deployer, MonitoredDeployer)
        assert deployer.name == "fake"
