"""JSON and tensors: TensorFlow Serving's words and numbers, at a cost in proportion to their size."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import tensorflow as tf

from tuner.modelserver import json_tensor
from tuner.modelserver.status import Code, ServingError


def infos(dtype: tf.DType) -> Any:
    return {"x": SimpleNamespace(dtype=dtype.as_datatype_enum)}


@pytest.mark.parametrize(
    ("array", "written"),
    [
        (np.float32([[0.1, 2], [1e-7, 3e10]]), b"[[0.1,2.0],[1e-7,30000000000.0]]"),
        (np.float32(0.1), b"0.1"),
        (np.float16([0.5]), b"[0.5]"),
        (np.array([1.5], ml_dtypes.bfloat16), b"[1.5]"),
        (np.array([0.1]), b"[0.1]"),
        (np.array([True, False]), b"[true,false]"),
        (np.array([2**63], np.uint64), b"[9223372036854775808]"),
        (np.array([b"a", b"\xff"], object), "[\"a\",\"�\"]".encode()),
        (np.float32([[1, 2], [3, 4]]).T, b"[[1.0,3.0],[2.0,4.0]]"),
        (np.zeros((2, 0), np.float32), b"[[],[]]"),
    ],
)
def test_an_answers_numbers_have_their_shortest_decimals(array: np.ndarray, written: bytes) -> None:
    assert json_tensor.predict_outputs(["y"], [np.asarray(array)], False) == b'{"outputs":%s}' % written


def test_rows_of_several_outputs_are_objects() -> None:
    outputs = [np.float32([[0.1, 1], [2, 3]]), np.array([b"a", b"b"], object), np.int64([1, 2])]
    body = json_tensor.predict_outputs(["y", "z_bytes", "n"], outputs, True)
    assert json.loads(body) == {"predictions": [
        {"y": [0.1, 1.0], "z_bytes": {"b64": "YQ=="}, "n": 1},
        {"y": [2.0, 3.0], "z_bytes": {"b64": "Yg=="}, "n": 2},
    ]}


@pytest.mark.parametrize("by_row", [False, True])
def test_what_json_has_no_number_for_is_written_all_the_same(by_row: bool) -> None:
    outputs = [np.float32([0.1, np.nan]), np.array([np.inf, -np.inf])]
    text = json_tensor.predict_outputs(["y", "z"], outputs, by_row).decode()
    assert "0.1" in text and "NaN" in text and "-Infinity" in text and "0.10000000149" not in text


def test_a_request_may_hold_what_json_has_no_number_for() -> None:
    document = json_tensor.parse(b'{"inputs": [NaN, -Infinity, 1e400]}')
    found, by_row = json_tensor.predict_inputs(document, infos(tf.float32))
    assert not by_row and np.isnan(found["x"][0]) and found["x"][1:].tolist() == [-np.inf, np.inf]


@pytest.mark.parametrize(
    ("dtype", "name"),
    [(tf.float16, "half"), (tf.bfloat16, "bfloat16"), (tf.uint16, "uint16"),
     (tf.complex64, "complex64"), (tf.complex128, "complex128")],
)
def test_types_that_tensorflow_serving_reads_from_no_json_are_unimplemented(
    dtype: tf.DType, name: str
) -> None:
    """Its words, seen on 2.20.0; rows are refused as a wrong request, columns as not implemented."""
    with pytest.raises(ServingError) as columns:
        json_tensor.predict_inputs({"inputs": [[2, 3]]}, infos(dtype))
    assert columns.value.code == Code.UNIMPLEMENTED
    assert columns.value.message == f"Conversion of JSON Value: 2 to type: {name}"
    with pytest.raises(ServingError) as rows:
        json_tensor.predict_inputs({"instances": [1, 2.5]}, infos(dtype))
    assert rows.value.code == Code.INVALID_ARGUMENT
    assert rows.value.message == (
        "Failed to process element: 0 of 'instances' list. Error: UNIMPLEMENTED: "
        f"Conversion of JSON Value: 1 to type: {name}"
    )


def cpu_s(run: Callable[[], object]) -> float:
    def once() -> float:
        begun = time.process_time()
        run()
        return time.process_time() - begun

    return min(once() for _ in range(3))


def wrong_at_the_end(count: int) -> Callable[[], None]:
    values = [[0.5] * 8 for _ in range(count // 8)] + [[0.5] * 7 + ["x"]]

    def run() -> None:
        with pytest.raises(ServingError, match="Type: String is not of expected type: float"):
            json_tensor.to_array(values, tf.float32.as_datatype_enum)

    return run


def answer(count: int) -> Callable[[], None]:
    array = np.random.default_rng(0).normal(size=count).astype(np.float32)
    return lambda: json_tensor.predict_outputs(["y"], [array], False)


def request_of(count: int) -> Callable[[], None]:
    body = json.dumps({"inputs": [0.123456] * count}).encode()
    return lambda: json_tensor.predict_inputs(json_tensor.parse(body), infos(tf.float32))


@pytest.mark.parametrize(
    ("made", "count"), [(wrong_at_the_end, 200_000), (answer, 1_000_000), (request_of, 400_000)]
)
def test_twice_the_size_costs_at_most_three_times_as_much(
    made: Callable[[int], Callable[[], None]], count: int
) -> None:
    assert cpu_s(made(count)) <= 3 * cpu_s(made(count // 2)) + 0.01


def test_an_answer_of_22_mb_costs_a_fraction_of_a_second() -> None:
    """json.dumps of its lists took five seconds and 700 MiB."""
    assert cpu_s(answer(5_500_000)) < 1.5
