"""Batching, seen from outside."""

from __future__ import annotations

import itertools
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import numpy as np
import pytest

from tests.modelserver.conftest import models_config


def _at_once(calls):
    """Run the calls in as many threads, released together; results or errors, in order."""
    barrier = threading.Barrier(len(calls))

    def run(call):
        barrier.wait()
        try:
            return call()
        except grpc.RpcError as error:
            return error

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(run, calls))


def test_concurrent_requests_share_a_batch_and_each_gets_its_own_rows(
    start_server, models, batching, tmp_path
):
    monitoring = tmp_path / "monitoring.txt"
    monitoring.write_text("prometheus_config { enable: true, path: '/m' }")
    flags = batching(
        "max_batch_size { value: 4 } batch_timeout_micros { value: 2000000 } "
        "num_batch_threads { value: 1 }"
    )
    with start_server(
        f"--model_base_path={models / 'rows'}", f"--monitoring_config_file={monitoring}", *flags
    ) as server:
        answers = _at_once([lambda i=i: server.predict({"x": [[i, i, i]]}) for i in range(4)])
        text = server.rest("GET", "/m").text
    assert [a["sum"].tolist() for a in answers] == [[0.0], [3.0], [6.0], [9.0]]
    assert [a["batch"].tolist() for a in answers] == [[4]] * 4
    sizes = re.search(
        r":tensorflow:serving:batching_session:processed_batch_size_sum(?:\{\})? (\S+)", text
    )
    assert float(sizes[1]) == 4  # the first inference passes the batching by
    waits = re.search(r"batching_session:queuing_latency_count\{\S+\} (\d+)", text)
    assert int(waits[1]) == 4


def test_two_models_under_one_pool_name_answer_for_themselves(
    start_server, models, batching, tmp_path
):
    both = {name: models / name for name in ("half", "double")}
    config = models_config(tmp_path / "models.txt", both)
    flags = batching(
        "max_batch_size { value: 8 } batch_timeout_micros { value: 20000 } "
        'thread_pool_name { value: "one" }'
    )
    with start_server(config, "--grpc_max_threads=16", *flags) as server:
        calls = [
            lambda name=name, i=i: server.predict({"x": [float(i)]}, name=name)["y"].tolist()
            for i in range(8)
            for name in ("half", "double")
        ]
        answers = _at_once(calls)
    assert answers == [[v] for i in range(8) for v in (0.5 * i + 3.0, 2.0 * i)]


def test_the_batch_threads_of_one_pool_serve_the_queues_of_all_models_in_turn(
    start_server, models, batching, tmp_path
):
    config = models_config(tmp_path / "models.txt", dict.fromkeys("ab", models / "stamped"))
    flags = batching(
        "max_batch_size { value: 1 } max_enqueued_batches { value: 100 } "
        "num_batch_threads { value: 1 }"
    )
    roomy = ["--grpc_max_threads=32", "--tensorflow_session_parallelism=4"]
    with start_server(config, *roomy, *flags) as server:

        def batch(name, products):
            answer = server.predict({"x": [products]}, name=name)
            return float(answer["start"][0]), float(answer["end"][0]), name

        with ThreadPoolExecutor(1) as pool:  # it holds the thread while the queues fill
            first = pool.submit(batch, "a", 600)
            time.sleep(0.05)
            ran = _at_once([lambda n=name: batch(n, 10) for name in 6 * "a" + 6 * "b"])
            first.result()
    ran.sort()
    assert all(earlier[1] <= later[0] for earlier, later in itertools.pairwise(ran))
    assert [name for _, _, name in ran] in (6 * ["a", "b"], 6 * ["b", "a"])


def test_a_full_queue_refuses_with_unavailable(start_server, models, batching):
    flags = batching(
        "max_batch_size { value: 1 } max_enqueued_batches { value: 1 } "
        "num_batch_threads { value: 1 }"
    )
    with start_server(
        f"--model_base_path={models / 'slow'}", "--grpc_max_threads=32", *flags
    ) as server:
        answers = _at_once([lambda: server.predict({"x": [1.0]}) for _ in range(16)])
        rest = server.rest("POST", "/v1/models/default:predict", data='{"instances": [1.0]}')
    refused = [a for a in answers if isinstance(a, grpc.RpcError)]
    assert {a.code() for a in refused} == {grpc.StatusCode.UNAVAILABLE}
    full = "The batch scheduling queue to which this task was submitted is full"
    assert all(full in a.details() for a in refused)
    assert len(refused) < 16
    assert rest.status_code == 200


def test_requests_above_grpc_max_threads_are_refused(start_server, models, batching):
    flags = batching("max_batch_size { value: 64 } batch_timeout_micros { value: 500000 }")
    with start_server(
        f"--model_base_path={models / 'half'}", "--grpc_max_threads=3", *flags
    ) as server:
        answers = _at_once([lambda: server.predict({"x": [1.0]}) for _ in range(8)])
    refused = [a for a in answers if isinstance(a, grpc.RpcError)]
    assert {a.code() for a in refused} == {grpc.StatusCode.RESOURCE_EXHAUSTED}
    assert len(refused) == 5


def test_a_request_larger_than_a_batch_is_refused_unless_it_may_be_split(
    start_server, models, batching
):
    x = np.arange(5, dtype=np.float32)[:, None]
    with start_server(
        f"--model_base_path={models / 'rows'}", *batching("max_batch_size { value: 4 }")
    ) as server:
        with pytest.raises(grpc.RpcError) as failure:
            server.predict({"x": x})
        assert failure.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    split = batching(
        "max_batch_size { value: 8 } max_execution_batch_size { value: 2 } "
        "enable_large_batch_splitting { value: true }"
    )
    with start_server(f"--model_base_path={models / 'rows'}", *split) as server:
        answer = server.predict({"x": x})
    assert answer["sum"].tolist() == [0.0, 1.0, 2.0, 3.0, 4.0]
    assert answer["batch"].tolist() == [2, 2, 2, 2, 1]


def test_batches_are_padded_to_an_allowed_size(start_server, models, batching):
    flags = batching("max_batch_size { value: 8 } allowed_batch_sizes: 4 allowed_batch_sizes: 8")
    with start_server(f"--model_base_path={models / 'rows'}", *flags) as server:
        assert server.predict({"x": [[1.0], [2.0]]})["batch"].tolist() == [4, 4]
        assert server.predict({"x": [[1.0]] * 5})["batch"].tolist() == [8] * 5


def test_variable_length_inputs_are_padded_with_their_first_element(start_server, models, batching):
    common = "max_batch_size { value: 2 } batch_timeout_micros { value: 2000000 } "
    with start_server(
        f"--model_base_path={models / 'rows'}",
        *batching(common + "pad_variable_length_inputs: true"),
    ) as server:
        short, long = _at_once(
            [
                lambda: server.predict({"x": [[5.0, 1.0]]}),
                lambda: server.predict({"x": [[1.0, 1.0, 1.0, 1.0]]}),
            ]
        )
    assert (short["width"].tolist(), short["sum"].tolist()) == ([4], [16.0])
    assert long["sum"].tolist() == [4.0]
    with start_server(f"--model_base_path={models / 'rows'}", *batching(common)) as server:
        answers = _at_once(
            [
                lambda: server.predict({"x": [[5.0, 1.0]]}),
                lambda: server.predict({"x": [[1.0, 1.0, 1.0, 1.0]]}),
            ]
        )
    assert {a.code() for a in answers} == {grpc.StatusCode.FAILED_PRECONDITION}
    assert "padding is turned off" in answers[0].details()


def test_a_choice_of_outputs_passes_the_batching_by(start_server, models, batching):
    flags = batching("max_batch_size { value: 4 } allowed_batch_sizes: 4")
    with start_server(f"--model_base_path={models / 'rows'}", *flags) as server:
        answer = server.predict({"x": [[1.0]]}, output_filter=["batch"])
    assert answer["batch"].tolist() == [1]


def test_a_version_may_bring_its_own_batching_parameters(start_server, tmp_path, batching):
    from tests.modelserver import savedmodels

    version = savedmodels.rows(tmp_path / "m" / "1")
    own = version / "batching_params.pbtxt"
    own.write_text("max_batch_size { value: 3 } allowed_batch_sizes: 3")
    flags = batching("max_batch_size { value: 8 }")
    base = f"--model_base_path={tmp_path / 'm'}"
    with start_server(base, "--enable_per_model_batching_parameters", *flags) as server:
        assert server.predict({"x": [[1.0]]})["batch"].tolist() == [3]
    own.unlink()
    with start_server(base, "--enable_per_model_batching_parameters", *flags) as server:
        assert server.predict({"x": [[1.0]] * 9})["batch"].tolist() == [9] * 9  # not batched


def test_batch_threads_run_in_the_server(start_server, models, batching):
    flags = batching("num_batch_threads { value: 9 }")
    session = "--tensorflow_session_parallelism=1"
    with start_server(f"--model_base_path={models / 'half'}", session, *flags) as server:
        tasks = Path(f"/proc/{server.pid}/task").iterdir()
        names = [(task / "comm").read_text() for task in tasks]
    assert sum("batch" in name.lower() for name in names) == 9, names


def test_a_batch_that_fails_fails_its_requests_with_the_models_own_error(
    start_server, models, batching
):
    flags = batching("max_batch_size { value: 4 }")
    with start_server(f"--model_base_path={models / 'module'}", *flags) as server:
        with pytest.raises(grpc.RpcError) as failure:
            server.predict({"x": [[1.0, 2.0, 3.0]]})
        assert failure.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "Traceback" not in failure.value.details()
        assert server.predict({"x": [[1.0, 2.0]]})["y"].tolist() == [[21.0]]
