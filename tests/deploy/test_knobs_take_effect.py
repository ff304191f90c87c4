"""Batching, threads and protocol: each knob is seen on the running server, not only passed."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from tests.deploy.asking import answer, predict_raw
from tests.deploy.live import Deploy, ask, ask_at_once, metric, metrics_page, packed_as, threads
from tuner.deploy.base import Deployment
from tuner.deploy.knobs import KNOBS

ROOT = Path(__file__).resolve().parents[2]
BATCHES = "batching_session:processed_batch_size"

SEEN = {
    # Knob -> the test that sees it on a running server.
    "enable_batching": "deploy/test_knobs_take_effect.py::test_requests_that_come_together_are_one_batch",
    "max_batch_size": "deploy/test_knobs_take_effect.py::test_a_request_above_the_batch_size_is_refused",
    "batch_timeout_micros": "deploy/test_knobs_take_effect.py::test_a_lone_request_waits_for_the_time_out",
    "num_batch_threads": "deploy/test_knobs_take_effect.py::test_as_many_batch_threads_run_as_asked",
    "max_enqueued_batches": "modelserver/test_batching_server.py::test_a_full_queue_refuses_with_unavailable",
    "thread_pool_name": "deploy/test_knobs_take_effect.py::test_queueing_is_counted_under_no_name_as_on_the_real_server",
    "allowed_batch_sizes": "deploy/test_knobs_take_effect.py::test_a_batch_is_padded_to_an_allowed_size",
    "pad_variable_length_inputs":
        "modelserver/test_batching_server.py::test_variable_length_inputs_are_padded_with_their_first_element",
    "enable_large_batch_splitting":
        "deploy/test_knobs_take_effect.py::test_no_batch_is_run_above_the_execution_size",
    "max_execution_batch_size":
        "deploy/test_knobs_take_effect.py::test_no_batch_is_run_above_the_execution_size",
    "tensorflow_intra_op_parallelism":
        "deploy/test_knobs_take_effect.py::test_as_many_intra_op_threads_run_as_asked",
    "tensorflow_inter_op_parallelism":
        "deploy/test_knobs_take_effect.py::test_as_many_inter_op_threads_run_as_asked",
    "tensorflow_session_parallelism":
        "deploy/test_knobs_take_effect.py::test_as_many_inter_op_threads_run_as_asked",
    "grpc_max_threads":
        "deploy/test_knobs_take_effect.py::test_requests_beyond_grpc_max_threads_are_refused",
    "rest_api_num_threads": "deploy/test_knobs_take_effect.py::test_as_many_rest_threads_run_as_asked",
    "num_load_threads": "modelserver/test_load_threads.py::test_so_many_models_are_loaded_at_once",
    "protocol": "deploy/test_keeping.py::test_load_and_protocol_change_on_one_server",
    "rest_api_timeout_in_ms": "deploy/test_knobs_take_effect.py::test_rest_gives_up_after_its_time_out",
    "grpc_channel_arguments": "deploy/test_knobs_take_effect.py::test_channel_arguments_hold",
    "enable_serialization_as_tensor_content":
        "deploy/test_knobs_take_effect.py::test_answers_are_packed_as_tensor_content",
    "xla_cpu_compilation_enabled": "deploy/test_process_knobs.py::test_xla_compiles_the_model",
    "mixed_precision": "modelserver/test_versions.py::test_the_session_takes_its_config_file_xla_and_bfloat16",
    "onednn": "deploy/test_process_knobs.py::test_onednn_is_on_or_off_when_tensorflow_is_imported",
    "allocator": "deploy/test_process_knobs.py::test_the_allocator_is_mapped_into_the_process",
    "enable_model_warmup":
        "modelserver/test_versions.py::test_warm_up_records_are_replayed_and_a_bad_one_fails_the_load",
    "num_request_iterations_for_warmup":
        "modelserver/test_versions.py::test_warm_up_records_are_replayed_and_a_bad_one_fails_the_load",
    "flush_filesystem_caches":
        "deploy/test_process_knobs.py::test_the_models_files_leave_the_page_cache_when_asked",
    "file_system_poll_wait_seconds": "deploy/test_process_knobs.py::test_a_new_version_is_polled_for",
    "response_cache_bytes":
        "deploy/test_knobs_take_effect.py::test_a_repeated_request_is_answered_from_the_cache",
    "model_copies": "deploy/test_knobs_take_effect.py::test_every_copy_has_a_model_of_its_own",
    "other_models": "contracts/deployer_contract.py::test_other_models_are_served_beside_it",
    "cpus": "contracts/deployer_contract.py::test_the_number_of_cpus_took_effect",
    "cpu_quota": "contracts/deployer_contract.py::test_the_cpu_quota_took_effect",
    "memory_limit_mb": "contracts/deployer_contract.py::test_the_memory_limit_took_effect",
    "cpu_frequency_mhz": "deploy/test_resources.py::test_the_clock_is_pinned_and_put_back",
}


@pytest.fixture(scope="module")
def batching(deploy: Deploy) -> Iterator[Deployment]:
    with deploy(
        enable_batching=True, max_batch_size=4, batch_timeout_micros=300_000, num_batch_threads=5,
        thread_pool_name="my_pool", allowed_batch_sizes="1,4", enable_large_batch_splitting=True,
        max_execution_batch_size=2, tensorflow_inter_op_parallelism=4,
        tensorflow_intra_op_parallelism=1,
    ) as deployment:
        yield deployment


@pytest.fixture(scope="module")
def strict(deploy: Deploy) -> Iterator[Deployment]:
    """Batches without splitting; requests of more than 200 bytes are refused."""
    with deploy(
        enable_batching=True, max_batch_size=4, allowed_batch_sizes="1,4",
        grpc_channel_arguments="grpc.max_receive_message_length=200",
    ) as deployment:
        yield deployment


@pytest.fixture(scope="module")
def plain(deploy: Deploy) -> Iterator[Deployment]:
    with deploy(
        model_copies=2, protocol="rest", rest_api_num_threads=7, tensorflow_session_parallelism=6,
        grpc_max_threads=2, response_cache_bytes=100_000,
        enable_serialization_as_tensor_content=True,
    ) as deployment:
        yield deployment


def test_every_knob_is_seen_on_a_running_server() -> None:
    effective = {name for name, knob in KNOBS.items() if not knob.not_embedded}
    assert set(SEEN) == effective
    for knob, place in SEEN.items():
        file, _, test = place.partition("::")
        assert f"def {test}(" in (ROOT / "tests" / file).read_text(), (knob, place)


def test_as_many_batch_threads_run_as_asked(batching: Deployment) -> None:
    named = [n for name, n in threads(batching).items() if name.startswith("batch_threads")]
    assert sum(named) == 5


def test_queueing_is_counted_under_no_name_as_on_the_real_server(batching: Deployment) -> None:
    ask(batching, 1.0)
    assert 'queuing_latency_count{thread_pool_name=""}' in metrics_page(batching)


@pytest.fixture(scope="module")
def counted(deploy: Deploy) -> dict[str, Counter[str]]:
    """Threads of a server with 1 intra-op, 1 inter-op and 2 REST threads, and with one more knob."""
    least = {
        "tensorflow_intra_op_parallelism": 1, "tensorflow_inter_op_parallelism": 1,
        "protocol": "rest", "rest_api_num_threads": 2,
    }
    found = {}
    for name, value in {"protocol": "rest", "tensorflow_intra_op_parallelism": 9,
                        "tensorflow_inter_op_parallelism": 4, "rest_api_num_threads": 12}.items():
        with deploy(**{**least, name: value}) as deployment:
            rest_predict(deployment)
            found[name] = threads(deployment)
    return found


def more(counted: dict[str, Counter[str]], name: str) -> int:
    """Nameless threads that one knob adds; gRPC starts one or two of its own as it is asked."""
    return counted[name]["python"] - counted["protocol"]["python"]


def test_as_many_inter_op_threads_run_as_asked(
    counted: dict[str, Counter[str]], plain: Deployment
) -> None:
    assert counted["protocol"]["tf_Compute"] == 1
    assert counted["tensorflow_inter_op_parallelism"]["tf_Compute"] == 4
    assert threads(plain)["tf_Compute"] == 6


def test_as_many_intra_op_threads_run_as_asked(counted: dict[str, Counter[str]]) -> None:
    assert more(counted, "tensorflow_intra_op_parallelism") == pytest.approx(8, abs=2)


def test_as_many_rest_threads_run_as_asked(counted: dict[str, Counter[str]]) -> None:
    assert more(counted, "rest_api_num_threads") == pytest.approx(10, abs=2)


def test_requests_that_come_together_are_one_batch(batching: Deployment) -> None:
    before = metric(batching, f"{BATCHES}_count")
    assert ask_at_once(batching, 2) == [None, None]
    assert metric(batching, f"{BATCHES}_count") == before + 1


def test_a_lone_request_waits_for_the_time_out(batching: Deployment) -> None:
    before = metric(batching, "batching_session:queuing_latency_sum")
    ask(batching, 1.0)
    waited_us = metric(batching, "batching_session:queuing_latency_sum") - before
    assert waited_us >= 290_000


def test_no_batch_is_run_above_the_execution_size(batching: Deployment) -> None:
    before = metric(batching, f"{BATCHES}_count")
    assert answer(ask(batching, 1.0, 2.0, 3.0, 4.0)) == [2.0, 4.0, 6.0, 8.0]
    assert metric(batching, f"{BATCHES}_count") >= before + 2


def test_a_batch_is_padded_to_an_allowed_size(strict: Deployment) -> None:
    before = metric(strict, f"{BATCHES}_sum")
    assert answer(ask(strict, 1.0, 2.0, 3.0)) == [2.0, 4.0, 6.0]
    assert metric(strict, f"{BATCHES}_sum") == before + 4


def test_a_request_above_the_batch_size_is_refused(strict: Deployment) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        ask(strict, 1.0, 2.0, 3.0, 4.0, 5.0)
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT


def test_channel_arguments_hold(strict: Deployment) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        predict_raw(strict.grpc_address, "m" * 200, [1.0])
    assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "larger than max" in caught.value.details()


def test_every_copy_has_a_model_of_its_own(plain: Deployment) -> None:
    assert plain.model_names == ("doubling", "doubling_2")
    for name in plain.model_names:
        assert answer(predict_raw(plain.grpc_address, name, [3.0])) == [6.0]
        assert f"Successfully loaded servable version {{name: {name} " in plain.log_tail(1000)


def test_requests_beyond_grpc_max_threads_are_refused(plain: Deployment) -> None:
    codes: set[grpc.StatusCode] = set()
    for _ in range(10):
        codes |= {e.code() for e in ask_at_once(plain, 32) if isinstance(e, grpc.RpcError)}
        if codes:
            break
    assert codes == {grpc.StatusCode.RESOURCE_EXHAUSTED}


def test_a_repeated_request_is_answered_from_the_cache(plain: Deployment) -> None:
    for _ in range(2):
        ask(plain, 42.0)
    assert metric(plain, "response_cache:hits") >= 1


def test_answers_are_packed_as_tensor_content(plain: Deployment, strict: Deployment) -> None:
    assert 4 in packed_as(ask(plain, 7.0))
    assert 4 not in packed_as(ask(strict, 7.0))


def test_rest_answers(plain: Deployment) -> None:
    assert json.loads(rest_predict(plain)) == {"predictions": [[4.0]]}


def rest_predict(deployment: Deployment) -> bytes:
    url = f"http://{deployment.rest_address}/v1/models/doubling:predict"
    asked = urllib.request.Request(url, json.dumps({"instances": [[2.0]]}).encode())
    with urllib.request.urlopen(asked) as page:
        return bytes(page.read())


def test_rest_gives_up_after_its_time_out(deploy: Deploy) -> None:
    with deploy(
        protocol="rest", rest_api_timeout_in_ms=100, enable_batching=True, max_batch_size=4,
        batch_timeout_micros=1_000_000,
    ) as deployment, pytest.raises(urllib.error.HTTPError) as caught:
        rest_predict(deployment)
    assert caught.value.code == 429  # its time is over in the batching queue
