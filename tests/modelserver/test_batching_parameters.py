"""BatchingParameters: fields, defaults and rules."""

from __future__ import annotations

import pytest

from tuner.modelserver.batching import BatchingOptions, read_options
from tuner.modelserver.flags import schedulable_cpus
from tuner.modelserver.padding import allowed_size
from tuner.modelserver.status import ServingError


def _read(tmp_path, text):
    path = tmp_path / "batching.pbtxt"
    path.write_text(text)
    return read_options(path)


def test_a_file_without_fields_gives_the_defaults_of_tensorflow_serving(tmp_path):
    assert _read(tmp_path, "# none\n") == BatchingOptions(
        max_batch_size=1000,
        batch_timeout_micros=0,
        max_enqueued_batches=10,
        num_batch_threads=schedulable_cpus(),
        thread_pool_name="batch_threads",
        allowed_batch_sizes=(),
        pad_variable_length_inputs=False,
        enable_large_batch_splitting=False,
        max_execution_batch_size=1000,
    )


def test_batching_without_a_file_names_its_pool_as_the_server_does():
    assert read_options(None).thread_pool_name == "model_server_batch_threads"


def test_every_field_is_read(tmp_path):
    options = _read(
        tmp_path,
        """
        max_batch_size { value: 32 }
        batch_timeout_micros { value: 500 }
        max_enqueued_batches { value: 3 }
        num_batch_threads { value: 2 }
        thread_pool_name { value: "pool" }
        allowed_batch_sizes: 8
        allowed_batch_sizes: 32
        pad_variable_length_inputs: true
        enable_large_batch_splitting { value: true }
        max_execution_batch_size { value: 16 }
        """,
    )
    assert options == BatchingOptions(32, 500, 3, 2, "pool", (8, 32), True, True, 16)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("max_batch_size: 32", "Invalid protobuf file"),
        ("max_batch { value: 32 }", "1:1"),
        ("allowed_batch_sizes { value: 3 }", "Invalid protobuf file"),
        ("", "the file is empty"),
        ("num_batch_threads { value: 0 }", "num_batch_threads must be positive; was 0"),
        ("num_batch_threads { value: 100000 }", "num_batch_threads must be at most"),
    ],
)
def test_a_wrong_file_is_refused_by_name(tmp_path, text, message):
    with pytest.raises(ServingError, match=message):
        _read(tmp_path, text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("batch_timeout_micros { value: -1 }", "batch_timeout_micros must be at least 0"),
        ("max_enqueued_batches { value: -1 }", "max_enqueued_batches must be at least 0"),
        (
            "max_batch_size { value: 32 } allowed_batch_sizes: 16",
            "last entry was 16; expected 32",
        ),
        (
            "max_batch_size { value: 4 } enable_large_batch_splitting { value: true }\n"
            + "max_execution_batch_size { value: 8 }",
            "max_execution_batch_size must be at most max_batch_size",
        ),
    ],
)
def test_what_no_queue_can_be_is_refused_when_a_version_loads(tmp_path, text, message):
    with pytest.raises(ServingError, match=message):
        _read(tmp_path, text).check_queue()


@pytest.mark.parametrize(
    ("given", "taken"), [((4, 2, 8), (4, 8)), ((2, 2, 8), (2, 8)), ((2, 4, 8), (2, 4, 8))]
)
def test_a_batch_gets_the_first_allowed_size_that_holds_it_in_whatever_order(given, taken):
    options = BatchingOptions(max_batch_size=8, allowed_batch_sizes=given)
    options.check_queue()
    assert {allowed_size(rows, options.allowed_batch_sizes) for rows in range(1, 9)} == set(taken)
