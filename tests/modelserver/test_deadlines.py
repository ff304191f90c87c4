"""What is over is over: a run that nobody waits for ends, and its thread is free."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest

_LONG = [3e5]
"""Products of matrices: minutes."""


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / 100


def _predict(server, rows: list[float], timeout_s: float):
    import tensorflow as tf
    from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

    request = predict_pb2.PredictRequest()
    request.model_spec.name = "default"
    request.inputs["x"].CopyFrom(tf.make_tensor_proto(rows, tf.float32))
    stub = prediction_service_pb2_grpc.PredictionServiceStub(server.channel)
    return stub.Predict(request, timeout=timeout_s)


@pytest.mark.parametrize("parameters", [None, "max_batch_size { value: 4 }"])
def test_a_run_ends_at_its_grpc_deadline_and_its_thread_is_free(
    start_server, models, batching, parameters
):
    flags = batching(parameters) if parameters else []
    with start_server(
        f"--model_base_path={models / 'stamped'}", "--grpc_max_threads=1", *flags
    ) as server:
        with pytest.raises(grpc.RpcError) as failure:
            _predict(server, _LONG, 0.5)
        assert failure.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        time.sleep(0.3)
        before_s = _cpu_s(server.pid)
        assert _predict(server, [1.0], 10).outputs  # with one thread: nobody holds it
        time.sleep(1)
        assert _cpu_s(server.pid) - before_s < 0.5


@pytest.mark.parametrize("parameters", [None, "max_batch_size { value: 4 }"])
def test_a_run_ends_at_the_rest_time_out(start_server, models, batching, parameters):
    flags = batching(parameters) if parameters else []
    with start_server(
        f"--model_base_path={models / 'stamped'}",
        "--rest_api_timeout_in_ms=500",
        "--rest_api_num_threads=2",
        *flags,
    ) as server:
        start_s = time.monotonic()
        answer = server.rest("POST", "/v1/models/default:predict", json={"instances": _LONG})
        assert 0.5 <= time.monotonic() - start_s < 3
        assert answer.status_code == 504
        assert answer.json() == {"error": "Timed out waiting for notification"}
        before_s = _cpu_s(server.pid)
        answer = server.rest("POST", "/v1/models/default:predict", json={"instances": [1.0]})
        assert answer.status_code == 200
        time.sleep(1)
        assert _cpu_s(server.pid) - before_s < 0.5


def test_a_row_whose_time_is_over_in_the_queue_is_refused_when_its_batch_is_taken(
    start_server, models, batching
):
    flags = batching("max_batch_size { value: 4 } batch_timeout_micros { value: 1200000 }")
    with start_server(
        f"--model_base_path={models / 'stamped'}", "--rest_api_timeout_in_ms=300", *flags
    ) as server:
        start_s = time.monotonic()
        answer = server.rest("POST", "/v1/models/default:predict", json={"instances": [1.0]})
        assert 1.2 <= time.monotonic() - start_s < 3
    assert answer.status_code == 429
    assert answer.json() == {"error": "Run() timeout exceeded while waiting in batching queue"}


def test_a_batch_runs_as_long_as_one_of_its_requests_may(start_server, models, batching):
    flags = batching("max_batch_size { value: 2 } batch_timeout_micros { value: 5000000 }")
    with (
        start_server(f"--model_base_path={models / 'stamped'}", *flags) as server,
        ThreadPoolExecutor(2) as pool,
    ):
        patient = pool.submit(_predict, server, [2000.0], 30)
        time.sleep(0.2)
        hasty = pool.submit(_predict, server, [1.0], 0.05)
        assert patient.result().outputs
        with pytest.raises(grpc.RpcError):
            hasty.result()
