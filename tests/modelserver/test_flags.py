"""Flags: names, defaults and error rules of tensorflow_model_server."""

from __future__ import annotations

import pytest

from tuner.modelserver import flags
from tuner.modelserver.status import ServingError

CPUS = flags.schedulable_cpus()
DEFAULTS = {
    "enable_batching": False,
    "batching_parameters_file": "",
    "enable_per_model_batching_parameters": False,
    "tensorflow_intra_op_parallelism": 0,
    "tensorflow_inter_op_parallelism": 0,
    "tensorflow_session_parallelism": 0,
    "tensorflow_session_config_file": "",
    "grpc_max_threads": 4 * CPUS,
    "rest_api_num_threads": 4 * CPUS,
    "rest_api_timeout_in_ms": 30000,
    "grpc_channel_arguments": "",
    "grpc_socket_path": "",
    "enable_model_warmup": True,
    "num_request_iterations_for_warmup": 0,
    "mixed_precision": "",
    "xla_cpu_compilation_enabled": False,
    "num_load_threads": 0,
    "num_unload_threads": 0,
    "flush_filesystem_caches": True,
    "file_system_poll_wait_seconds": 1,
    "prefer_tflite_model": False,
    "num_tflite_pools": CPUS,
    "num_tflite_interpreters_per_pool": 1,
    "enable_serialization_as_tensor_content": False,
    "remove_unused_fields_from_bundle_metagraph": True,
    "port": 8500,
    "rest_api_port": 0,
    "model_name": "default",
    "model_base_path": "",
    "model_config_file": "",
    "model_config_file_poll_wait_seconds": 0,
    "saved_model_tags": "serve",
    "monitoring_config_file": "",
    "ssl_config_file": "",
    "max_num_load_retries": 5,
    "load_retry_interval_micros": 60_000_000,
    "enable_grpc_healthcheck_service": False,
    "version": False,
}
OURS = {"bind_address": "127.0.0.1", "response_cache_bytes": 0}


@pytest.mark.parametrize(("name", "default"), {**DEFAULTS, **OURS}.items())
def test_a_flag_has_the_default_of_tensorflow_serving(name, default):
    options, _ = flags.parse(
        ["--model_base_path=/m"] if name != "model_base_path" else ["--version"]
    )
    assert getattr(options, name) == default
    assert type(getattr(options, name)) is type(default)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["--enable_batching"], True),
        (["--enable_batching=true"], True),
        (["--enable_batching=1"], True),
        (["--enable_batching=false"], False),
        (["--enable_batching=0"], False),
    ],
)
def test_a_switch_is_written_as_tensorflow_writes_it(given, expected):
    assert flags.parse(["--model_base_path=/m", *given])[0].enable_batching is expected


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--prot=1"], "unknown argument: --prot=1"),
        (["-port=1"], "unknown argument: -port=1"),
        (["--port=x"], "--port=x: expected an integer"),
        (["--enable_batching=yes"], "expected true or false"),
        (["--port"], "--port needs a value"),
        (["--port", "9000"], "--port needs a value"),
    ],
)
def test_a_wrong_command_line_is_refused_by_name(argv, message):
    with pytest.raises(ServingError, match=message):
        flags.parse(["--model_base_path=/m", *argv])


def _check(*argv):
    return flags.check(flags.parse(argv)[0])


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "model_base_path and server_options.model_config_file are empty!"),
        (["--model_base_path=/m", "--batching_parameters_file=b"], "without setting"),
        (["--model_base_path=/m", "--port=0"], "At least one of server_options.grpc_port"),
        (["--model_base_path=/m", "--rest_api_port=8500"], "must differ"),
        (["--model_base_path=/m", "--port=70000"], "expected 0 to 65535"),
        (["--model_base_path=/m", "--grpc_max_threads=0"], "expected 1 to"),
        (["--model_base_path=/m", "--tensorflow_inter_op_parallelism=100000"], "to 4096"),
        (
            [
                "--model_base_path=/m",
                "--tensorflow_session_parallelism=1",
                "--tensorflow_intra_op_parallelism=1",
                "--tensorflow_inter_op_parallelism=1",
            ],
            "You cannot configure all",
        ),
    ],
)
def test_a_forbidden_value_or_combination_is_refused_by_name(argv, message):
    with pytest.raises(ServingError, match=message):
        _check(*argv)


@pytest.mark.parametrize(
    ("flag", "warning"),
    [
        ("--enable_per_model_batching_parameters", "does nothing without --enable_batching"),
        ("--mixed_precision=float8", "only bfloat16"),
        ("--tensorflow_intra_op_parallelism=-1", "taken for 0, automatic"),
    ],
)
def test_what_tensorflow_serving_takes_without_effect_is_taken_with_a_warning(flag, warning):
    (said,) = _check("--model_base_path=/m", flag)
    assert warning in said


def test_a_time_limit_of_0_is_none():
    assert _check("--model_base_path=/m", "--rest_api_timeout_in_ms=0") == []


def test_flags_without_a_meaning_here_are_accepted_and_reported():
    _, ignored = flags.parse(["--model_base_path=/m", "--prefer_tflite_model", "--port=1"])
    assert ignored == ["prefer_tflite_model"]
