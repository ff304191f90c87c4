"""JSON and tensors: TensorFlow Serving's words and numbers, at a cost in proportion to their size."""

from __future__ import annotations

import json
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import tensorflow as tf

from tuner.modelserver import json_answer, json_request, json_tensor
from tuner.modelserver.status import Code, ServingError


def kinds(dtype: tf.DType) -> json_tensor.Kinds:
    return {"x": json_tensor.kind_of(dtype.as_datatype_enum)}


@pytest.mark.parametrize(
    ("array", "written"),
    [
        (np.float32([[0.1, 2], [1e-7, 3e10]]), b"[[0.1,2.0],[1e-7,30000000000.0]]"),
        (np.float32(0.1), b"0.1"),
        (np.array([0.1]), b"[0.1]"),
        (np.array([True, False]), b"[true,false]"),
        (np.array([2**63], np.uint64), b"[9223372036854775808]"),
        (np.array([b"a", b"\xff"], object), b'["a", "\xff"]'),
        (np.float32([[1, 2], [3, 4]]).T, b"[[1.0,3.0],[2.0,4.0]]"),
        (np.zeros((2, 0), np.float32), b"[[],[]]"),
        (np.array(b"scalar", object), b'"scalar"'),
    ],
)
def test_an_answers_numbers_have_their_shortest_decimals(array: np.ndarray, written: bytes) -> None:
    found = json_answer.predict_outputs(["y"], [np.asarray(array)], False)
    assert found.replace(b'{"outputs": ', b'{"outputs":') == b'{"outputs":%s}' % written


@pytest.mark.parametrize(
    ("dtype", "name"),
    [(np.float16, "half"), (ml_dtypes.bfloat16, "bfloat16"), (np.uint16, "uint16"),
     (np.complex64, "complex64")],
)
def test_types_that_tensorflow_serving_writes_to_no_json_are_refused(dtype: Any, name: str) -> None:
    with pytest.raises(ServingError) as told:
        json_answer.predict_outputs(["y"], [np.zeros(2, dtype)], True)
    assert told.value.code == Code.INVALID_ARGUMENT
    assert told.value.message == f"Failed to write JSON value for tensor type: {name}"


def test_rows_of_several_outputs_are_objects() -> None:
    outputs = [np.float32([[0.1, 1], [2, 3]]), np.array([b"a", b"b"], object), np.int64([1, 2])]
    body = json_answer.predict_outputs(["y", "z_bytes", "n"], outputs, True)
    assert json.loads(body) == {"predictions": [
        {"y": [0.1, 1.0], "z_bytes": {"b64": "YQ=="}, "n": 1},
        {"y": [2.0, 3.0], "z_bytes": {"b64": "Yg=="}, "n": 2},
    ]}


@pytest.mark.parametrize("by_row", [False, True])
def test_what_json_has_no_number_for_is_written_all_the_same(by_row: bool) -> None:
    outputs = [np.float32([0.1, np.nan]), np.array([np.inf, -np.inf])]
    text = json_answer.predict_outputs(["y", "z"], outputs, by_row).decode()
    assert "0.1" in text and "NaN" in text and "-Infinity" in text and "0.10000000149" not in text


def test_a_request_may_hold_what_json_has_no_number_for() -> None:
    document = json_request.parse(b'{"inputs": [NaN, -Infinity, Inf]}')
    found, by_row = json_request.predict_inputs(document, kinds(tf.float32))
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
        json_request.predict_inputs({"inputs": [[2, 3]]}, kinds(dtype))
    assert columns.value.code == Code.UNIMPLEMENTED
    assert columns.value.message == f"Conversion of JSON Value: 2 to type: {name}"
    with pytest.raises(ServingError) as rows:
        json_request.predict_inputs({"instances": [1, 2.5]}, kinds(dtype))
    assert rows.value.code == Code.INVALID_ARGUMENT
    assert rows.value.message == (
        "Failed to process element: 0 of 'instances' list. Error: UNIMPLEMENTED: "
        f"Conversion of JSON Value: 1 to type: {name}"
    )


@pytest.mark.parametrize(
    ("value", "kind", "words"),
    [
        ([1, [2]], tf.float32, "Encountered list at unexpected level: 1 expected < 1"),
        ([[1, 2], [3]], tf.float32, "Encountered list at unexpected size: 1 at level: 1 expected size: 2"),
        ([[[1], [2]], [[3], [4, 5]]], tf.float32,
         "Encountered list at unexpected size: 2 at level: 2 expected size: 1"),
        ([[1], 2], tf.float32,
         "JSON Value: 2 found at incorrect level: 2 in the JSON DOM. Expected at level: 2"),
        ([[1], ["a"]], tf.float64, 'JSON Value: "a" Type: String is not of expected type: double'),
        ([[[1.5, True]]], tf.float32, "JSON Value: true Type: True is not of expected type: float"),
        ([None], tf.float32, "JSON Value: null Type: Null is not of expected type: float"),
        ([[{"a": [1, 2]}]], tf.float32,
         'JSON Value: {\n    "a": [1, 2]\n} Type: Object is not of expected type: float'),
        ([1, 2.5], tf.int32, "JSON Value: 2.5 Type: Number is not of expected type: int32"),
        ([2**31], tf.int32, "JSON Value: 2147483648 Type: Number is not of expected type: int32"),
        ([-1], tf.uint64, "JSON Value: -1 Type: Number is not of expected type: uint64"),
        ([-129], tf.int8, "JSON Value: -129 Type: Number is not of expected type: int8"),
        ([2**64 - 1, -1], tf.int64,
         "JSON Value: 18446744073709551615 Type: Number is not of expected type: int64"),
        ([1], tf.bool, "JSON Value: 1 Type: Number is not of expected type: bool"),
        (["a", ["b"]], tf.string, "Encountered list at unexpected level: 1 expected < 1"),
        ([["a"], "b"], tf.string,
         'JSON Value: "b" found at incorrect level: 2 in the JSON DOM. Expected at level: 2'),
        ([5], tf.string, "JSON Value: 5 Type: Number is not of expected type: string"),
        ([{"b64": "A"}], tf.string, "Unable to base64 decode"),
        ([{"b64": 5}], tf.string,
         'JSON Value: {\n    "b64": 5\n} not formatted correctly for base64 data'),
    ],
)
def test_a_column_is_refused_in_tensorflow_servings_words(
    value: Any, kind: tf.DType, words: str
) -> None:
    with pytest.raises(ServingError) as told:
        json_tensor.to_array(value, kinds(kind)["x"])
    assert (told.value.code, told.value.message) == (Code.INVALID_ARGUMENT, words)


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([1, [2]], ("Failed to process element: 1 of 'instances' list. Error: INVALID_ARGUMENT: "
         "Expecting shape [] but got: [1]")),
        ([[1, 2, 3], [1, 2]], ("Failed to process element: 1 of 'instances' list. Error: "
         "INVALID_ARGUMENT: Expecting tensor size: 3 but got: 2")),
        ([1, 2, "x"], ("Failed to process element: 2 of 'instances' list. Error: INVALID_ARGUMENT: "
         'JSON Value: "x" Type: String is not of expected type: float')),
        ([1, {"x": 1}], "Expecting value/list but got object at item 1 of input list"),
        ([{"x": 1}, 1], "Expecting object but got list at item 1 of input list"),
        ([{"x": [1, 2]}, {"x": [1]}], ("Failed to process element: 1 key: x of 'instances' list. "
         "Error: INVALID_ARGUMENT: Expecting tensor size: 2 but got: 1")),
    ],
)
def test_a_row_is_refused_with_its_number(rows: Any, words: str) -> None:
    with pytest.raises(ServingError) as told:
        json_request.predict_inputs({"instances": rows}, kinds(tf.float32))
    assert (told.value.code, told.value.message) == (Code.INVALID_ARGUMENT, words)


@pytest.mark.parametrize("shape", [(3,), (2, 3), (1, 2, 3), (2, 4, 4, 1), (2, 2, 2, 2, 3), (1, 2, 0), (1,) * 20])
def test_lists_of_any_depth_become_the_array_they_were(shape: tuple[int, ...]) -> None:
    array = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    found = json_tensor.to_array(array.tolist(), kinds(tf.float32)["x"])
    assert found.dtype == np.float32 and found.shape == shape and (found == array).all()


def test_integers_that_numpy_has_no_common_type_for_are_refused_or_taken_one_by_one() -> None:
    found = json_tensor.to_array([2**63, 1], kinds(tf.uint64)["x"])
    assert found.dtype == np.uint64 and found.tolist() == [2**63, 1]
    floats = json_tensor.to_array([2**63, -1], kinds(tf.float32)["x"])
    assert floats.tolist() == [2.0**63, -1.0]


@pytest.mark.parametrize(("numbers", "lines"), [(20, 1), (1_000, 1_000), (100_000, 1)])
def test_an_answer_by_column_has_a_number_a_line_where_that_makes_it_longer_than_a_piece(
    numbers: int, lines: int
) -> None:
    array = np.full(numbers, 0.123456, np.float32)
    answer = json_answer.predict_outputs(["y"], [array], by_row=False)
    assert json.loads(answer) == {"outputs": [0.123456] * numbers}
    assert len(answer.splitlines()) == lines
