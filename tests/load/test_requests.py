"""Requests: the same bytes as TensorFlow Serving's own classes, and errors that say what fits."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tuner.errors import ModelError, UsageError
from tuner.load import messages, requests
from tuner.load.metadata import from_grpc, from_rest
from tuner.load.requests import Input
from tuner.rows import TYPES, Rows

ARRAYS = {
    "image": np.arange(24, dtype=np.float32).reshape(4, 2, 3) / 7,
    "id": np.array([5, -6, 7, 8], dtype=np.int64),
    "text": np.array(["a", "bé", "", "dd"]),
    "flag": np.array([True, False, True, True]),
    "half": np.array([0.5, 1, 2, 3], dtype=np.float16),
}


def rows_of(**arrays: np.ndarray) -> Rows:
    return Rows(arrays, {}, len(next(iter(arrays.values()))))


def test_grpc_requests_parse_with_tensorflow_servings_own_classes() -> None:
    tf = pytest.importorskip("tensorflow")
    from tensorflow_serving.apis import predict_pb2

    blocks = np.array([[2, 0], [3, 1]])
    for rows, body in zip(blocks, requests.grpc_bodies(rows_of(**ARRAYS), blocks), strict=True):
        request = predict_pb2.PredictRequest.FromString(requests.grpc_model("net", "sig") + body)
        assert (request.model_spec.name, request.model_spec.signature_name) == ("net", "sig")
        assert set(request.inputs) == set(ARRAYS)
        for name, array in ARRAYS.items():
            got = tf.make_ndarray(request.inputs[name])
            want = array[rows]
            if want.dtype.kind == "U":
                want = np.array([v.encode() for v in want], dtype=object)
            assert np.array_equal(got, want), name
            assert tf.as_dtype(request.inputs[name].dtype).name == (
                "string" if array.dtype.kind == "U" else array.dtype.name
            )


def test_grpc_requests_have_the_bytes_of_tensorflow_servings_own_classes() -> None:
    tf = pytest.importorskip("tensorflow")
    from tensorflow_serving.apis import predict_pb2

    array = ARRAYS["image"][:1]
    theirs = predict_pb2.PredictRequest()
    theirs.inputs["image"].CopyFrom(tf.make_tensor_proto(array))
    ours = next(requests.grpc_bodies(rows_of(image=ARRAYS["image"]), np.array([[0]])))
    assert ours == theirs.SerializeToString()


def test_the_metadata_of_a_server_is_read_from_its_own_message() -> None:
    tf = pytest.importorskip("tensorflow")
    from tensorflow_serving.apis import get_model_metadata_pb2

    signatures = get_model_metadata_pb2.SignatureDefMap()
    info = signatures.signature_def["serving_default"].inputs["x"]
    info.dtype = tf.float32.as_datatype_enum
    info.tensor_shape.CopyFrom(tf.TensorShape([None, 3]).as_proto())
    response = get_model_metadata_pb2.GetModelMetadataResponse()
    response.metadata["signature_def"].Pack(signatures)
    found = from_grpc(response.SerializeToString())
    assert found == {"serving_default": {"x": Input("float32", (None, 3))}}


def test_the_metadata_of_rest_reads_the_same() -> None:
    info = {"dtype": "DT_FLOAT", "tensor_shape": {"dim": [{"size": "-1"}, {"size": "3"}]}}
    signature = {"serving_default": {"inputs": {"x": info}}}
    answer = {"metadata": {"signature_def": {"signature_def": signature}}}
    found = from_rest(json.dumps(answer).encode())
    assert found == {"serving_default": {"x": Input("float32", (None, 3))}}


def test_every_number_type_of_numpy_has_tensorflows_number() -> None:
    tf = pytest.importorskip("tensorflow")
    for name, number in messages.DATA_TYPES.items():
        assert tf.as_dtype(name).as_datatype_enum == number, name


def test_what_rows_may_hold_is_what_a_tensor_can_carry() -> None:
    assert set(messages.DATA_TYPES) == TYPES


def test_rest_requests_hold_the_rows_in_the_column_format() -> None:
    arrays = {k: ARRAYS[k] for k in ("image", "text", "half")}
    body = json.loads(next(requests.rest_bodies(rows_of(**arrays), np.array([[3]]), "sig")))
    assert body["signature_name"] == "sig"
    assert np.allclose(body["inputs"]["image"], ARRAYS["image"][[3]])
    assert body["inputs"]["text"] == ["dd"]
    assert body["inputs"]["half"] == [3.0]


def test_a_single_input_of_rest_drops_its_name() -> None:
    body = json.loads(next(requests.rest_bodies(rows_of(id=ARRAYS["id"]), np.array([[1, 2]]), "s")))
    assert body["inputs"] == [-6, 7]


def test_bytes_go_as_base64_by_rest() -> None:
    arrays = {"b": np.array([b"\x01\xff", b"z"])}
    body = json.loads(next(requests.rest_bodies(rows_of(**arrays), np.array([[0]]), "s")))
    assert body["inputs"] == [{"b64": "Af8="}]


def test_every_row_is_used_and_the_last_request_is_full() -> None:
    blocks = requests.blocks(np.zeros(10), 4, np.random.default_rng(0))
    assert blocks.shape == (3, 4)
    assert set(blocks.ravel()) == set(range(10))


def test_rows_of_one_request_have_one_shape_and_each_shape_comes_as_often_as_in_the_data() -> None:
    alike = np.array([0] * 30 + [1] * 9 + [2])
    blocks = requests.blocks(alike, 3, np.random.default_rng(0))
    shapes = [set(alike[block]) for block in blocks]
    assert all(len(of_one) == 1 for of_one in shapes)
    counts = np.bincount([of_one.pop() for of_one in shapes])
    assert counts.tolist() == [10, 3, 1] and set(blocks.ravel()) == set(range(40))
    # Mixed, and not one shape after the other.
    order = [int(alike[block[0]]) for block in blocks]
    assert order != sorted(order)


def test_numbers_that_json_lacks_are_written_as_tensorflow_serving_reads_them() -> None:
    row = np.array([[0.1, np.nan, np.inf, -np.inf]], np.float32)
    body = next(requests.rest_bodies(rows_of(x=row), np.array([[0]]), "s"))
    assert body == b'{"signature_name":"s","inputs":[[0.1,NaN,Infinity,-Infinity]]}'
    plain = next(requests.rest_bodies(rows_of(x=row[:, :1]), np.array([[0]]), "s"))
    assert plain == b'{"signature_name":"s","inputs":[[0.1]]}'


def test_bfloat16_goes_as_its_bytes_by_grpc_and_as_its_value_by_rest() -> None:
    tf = pytest.importorskip("tensorflow")
    values = np.array([[1.0, -2.5, 3.140625]], np.float32)
    raw = values.astype(tf.bfloat16.as_numpy_dtype).view("V2")
    body = next(requests.grpc_bodies(rows_of(x=raw), np.array([[0]])))
    from tensorflow_serving.apis import predict_pb2

    tensor = predict_pb2.PredictRequest.FromString(body).inputs["x"]
    assert tensor.dtype == tf.bfloat16.as_datatype_enum
    assert tf.make_ndarray(tensor).astype(np.float32).tolist() == values.tolist()
    sent = json.loads(next(requests.rest_bodies(rows_of(x=raw), np.array([[0]]), "s")))
    assert sent["inputs"] == values.tolist()


def test_complex_numbers_are_refused_by_rest_in_words() -> None:
    with pytest.raises(ModelError, match="x: REST has no form for complex64; send it by gRPC"):
        next(requests.rest_bodies(rows_of(x=np.ones((1, 2), np.complex64)), np.array([[0]]), "s"))


def test_a_single_value_goes_with_every_request() -> None:
    rows = Rows({"x": np.ones((3, 2), np.float32)}, {"t": np.array(0.5, np.float32)}, 3)
    for body in requests.rest_bodies(rows, np.array([[0], [2]]), "s"):
        assert json.loads(body)["inputs"] == {"x": [[1.0, 1.0]], "t": 0.5}
    body = next(requests.grpc_bodies(rows, np.array([[0]])))
    assert len(messages.PredictRequest.FromString(body).inputs["t"].tensor_shape.dim) == 0


def test_more_rows_a_request_than_the_file_has_repeat() -> None:
    assert requests.blocks(np.zeros(3), 8, np.random.default_rng(0)).shape == (1, 8)


def test_each_once_goes_round_and_round() -> None:
    order = requests.order("each_once", 5, 12, np.random.default_rng(0))
    assert order.tolist() == [0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 0, 1]


def test_zipf_popularity_follows_its_exponent() -> None:
    order = requests.order("zipf:1.2", 50, 40_000, np.random.default_rng(0))
    counts = np.bincount(order, minlength=50)
    ranks = np.arange(1, 51)
    slope = np.polyfit(np.log(ranks[:20]), np.log(counts[:20]), 1)[0]
    assert slope == pytest.approx(-1.2, abs=0.1)


def test_an_unknown_popularity_says_what_there_is() -> None:
    with pytest.raises(UsageError, match="each_once, or zipf:S"):
        requests.order("zipf", 5, 5, np.random.default_rng(0))
