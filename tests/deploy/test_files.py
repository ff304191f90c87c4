"""A configuration becomes TensorFlow Serving's own flags and files."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tuner.deploy import files, knobs
from tuner.deploy.base import ModelToServe
from tuner.deploy.batching import allowed_sizes, batching_parameters
from tuner.deploy.knob import BATCHING, FLAG
from tuner.deploy.knobs import KNOBS, NOT_KNOBS, server_identity
from tuner.errors import UsageError

AUTOMATIC = None

FLAGS = {
    # Flags of tensorflow_model_server that matter to tuning (model_servers/main.cc) -> default;
    # AUTOMATIC where it follows the number of CPUs.
    "enable_batching": False,
    "batching_parameters_file": "",
    "enable_per_model_batching_parameters": False,
    "tensorflow_intra_op_parallelism": 0,
    "tensorflow_inter_op_parallelism": 0,
    "tensorflow_session_parallelism": 0,
    "tensorflow_session_config_file": "",
    "grpc_max_threads": AUTOMATIC,
    "rest_api_num_threads": AUTOMATIC,
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
    "num_tflite_pools": AUTOMATIC,
    "num_tflite_interpreters_per_pool": 1,
    "enable_serialization_as_tensor_content": False,
    "remove_unused_fields_from_bundle_metagraph": True,
    # Needed to run.
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

BATCHING_FIELDS = {
    # BatchingParameters (session_bundle_config.proto) -> default.
    "max_batch_size": 1000,
    "batch_timeout_micros": 0,
    "max_enqueued_batches": 10,
    "num_batch_threads": AUTOMATIC,
    "thread_pool_name": "batch_threads",
    "allowed_batch_sizes": "all",
    "pad_variable_length_inputs": False,
    "enable_large_batch_splitting": False,
    "max_execution_batch_size": AUTOMATIC,
}


def build(configuration, others=(), **options):
    options = {"folder": Path("/work"), "grpc_port": 9000, "rest_port": 9001, **options}
    return files.server_files(configuration, ModelToServe("m", Path("/m")), others, **options)


def test_every_flag_is_a_knob_or_says_why_not() -> None:
    ours = {name for name, knob in KNOBS.items() if knob.applied == FLAG and not knob.ours}
    assert ours | set(NOT_KNOBS) == set(FLAGS)
    assert not ours & set(NOT_KNOBS)


@pytest.mark.parametrize("name", [name for name in FLAGS if name in KNOBS])
def test_a_flag_has_the_default_of_tensorflow_serving(name: str) -> None:
    assert KNOBS[name].default == FLAGS[name]


def test_the_batching_fields_are_those_of_tensorflow_serving() -> None:
    ours = {name: knob.default for name, knob in KNOBS.items() if knob.applied == BATCHING}
    assert ours == BATCHING_FIELDS


def test_the_embedded_server_has_these_flags_with_these_defaults() -> None:
    from tuner.modelserver.flags import flag_table

    table = {flag.name: flag.default for flag in flag_table()}
    differing = {
        name: (table.get(name), default)
        for name, default in FLAGS.items()
        if name not in table or (default is not AUTOMATIC and table[name] != default)
    }
    assert differing == {}


def test_wrapped_and_plain_fields_are_written_as_the_proto_wants() -> None:
    text = batching_parameters(
        {"enable_batching": True, "max_batch_size": 8, "allowed_batch_sizes": "2,4",
         "pad_variable_length_inputs": True, "thread_pool_name": 'a"b'}
    )
    assert text == (
        "max_batch_size { value: 8 }\n"
        'thread_pool_name { value: "a\\"b" }\n'
        "allowed_batch_sizes: 2\nallowed_batch_sizes: 4\nallowed_batch_sizes: 8\n"
        "pad_variable_length_inputs: true\n"
    )


def test_batching_fields_are_left_out_when_batching_is_off() -> None:
    built = build({"enable_batching": False, "max_batch_size": 8})
    assert built.texts == {}
    assert not any("batching_parameters_file" in argument for argument in built.arguments)


@settings(max_examples=200, deadline=None)
@given(
    rule=st.one_of(
        st.sampled_from(["all", "powers_of_two", "quarters"]),
        st.sets(st.integers(1, 300), min_size=1).map(lambda s: ",".join(map(str, sorted(s)))),
    ),
    largest=st.integers(1, 256),
)
def test_allowed_sizes_rise_and_end_at_the_largest_batch(rule: str, largest: int) -> None:
    sizes = allowed_sizes(rule, largest)
    if rule == "all":
        assert sizes == ()
    else:
        assert list(sizes) == sorted(set(sizes))
        assert sizes[0] >= 1 and sizes[-1] == largest


def test_a_larger_execution_batch_is_lowered_to_the_largest_batch() -> None:
    text = batching_parameters(
        {"enable_batching": True, "max_batch_size": 4, "enable_large_batch_splitting": True,
         "max_execution_batch_size": 64}
    )
    assert "max_execution_batch_size { value: 4 }" in str(text)


def test_splitting_always_states_the_largest_batch() -> None:
    text = batching_parameters({"enable_batching": True, "enable_large_batch_splitting": True})
    assert "max_batch_size { value: 1000 }" in str(text)


def test_grpc_threads_suffice_for_two_batches_of_single_rows() -> None:
    flags = dict(build({"enable_batching": True, "max_batch_size": 128}).flags)
    assert int(flags["grpc_max_threads"]) == 256
    assert dict(build({"grpc_max_threads": 5}).flags)["grpc_max_threads"] == "5"


def test_both_ports_are_open_whatever_the_protocol() -> None:
    for protocol in ("grpc", "rest"):
        assert dict(build({"protocol": protocol}).flags)["rest_api_port"] == "9001"
    assert "rest_api_port" not in dict(build({}, rest_port=None).flags)
    with pytest.raises(UsageError, match="REST port must be given"):
        build({"protocol": "rest"}, rest_port=None)


def test_monitoring_is_written_when_asked_for() -> None:
    assert "monitoring.config" in build({}, monitoring=True).texts
    assert "monitoring.config" not in build({}).texts


def test_copies_and_others_are_written_as_a_model_list() -> None:
    built = build({"model_copies": 2}, others=[ModelToServe("o", Path("/o"))])
    assert built.model_names == ("m", "m_2")
    assert built.texts["models.config"].count('base_path: "/m"') == 2
    assert 'name: "o"' in built.texts["models.config"]
    assert "model_base_path" not in dict(built.flags)


def test_environment_knobs_become_variables() -> None:
    assert build({"onednn": False}).environment == {"TF_ENABLE_ONEDNN_OPTS": "0"}
    assert build({}).environment == {}


@pytest.mark.parametrize(
    ("configuration", "told"),
    [
        ({"max_batchsize": 8}, "max_batch_size"),
        ({"port": 8500}, "chosen free"),
        ({"max_batch_size": 0}, "at least 1"),
        ({"max_batch_size": True}, "a whole number"),
        ({"max_batch_size": 2.5}, "a whole number"),
        ({"protocol": "http"}, "grpc, rest"),
        ({"allowed_batch_sizes": "4,2"}, "rising sizes"),
        ({"rest_api_num_threads": 1}, "at least 2"),
        ({f"tensorflow_{k}_parallelism": 1 for k in ("session", "intra_op", "inter_op")},
         "leave it out"),
    ],
)
def test_a_wrong_setting_is_refused_with_what_would_be_right(configuration, told) -> None:
    with pytest.raises(UsageError, match=told):
        build(configuration)


def test_load_and_meaningless_knobs_do_not_change_the_server() -> None:
    plain = server_identity({"tensorflow_intra_op_parallelism": 2})
    assert plain == server_identity({"tensorflow_intra_op_parallelism": 2, "load": "high"})
    assert plain == server_identity({"tensorflow_intra_op_parallelism": 2, "max_batch_size": 3})
    assert plain == server_identity({"tensorflow_intra_op_parallelism": 2, "allocator": "system"})


def test_onednn_has_no_default_of_its_own() -> None:
    """TensorFlow's depends on the CPU, so neither value is what a server without it would do."""
    assert len({server_identity(knobs) for knobs in ({}, {"onednn": True}, {"onednn": False})}) == 3


def test_the_protocol_alone_keeps_the_server() -> None:
    assert server_identity({"protocol": "grpc"}) == server_identity({"protocol": "rest"})
    # What REST's own threads are is the server's affair, though.
    rest = {"protocol": "rest", "rest_api_num_threads": 4}
    assert server_identity(rest) != server_identity({"protocol": "grpc"})


@pytest.mark.parametrize("name", [n for n, k in KNOBS.items() if k.kind is int and not k.needs])
def test_every_number_on_the_server_changes_its_identity(name: str) -> None:
    assert server_identity({name: 17}) != server_identity({name: 18})


def test_other_models_change_the_identity() -> None:
    assert server_identity({}, ("other_0",)) != server_identity({})


def test_needs_name_knobs_that_exist() -> None:
    assert all(other in knobs.KNOBS for knob in KNOBS.values() for other in knob.needs)
