"""Requests: the same bytes as TensorFlow Serving's own classes, and errors that say what fits."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tuner.errors import ModelError, UsageError
from tuner.load import messages, requests
from tuner.load.metadata import from_grpc, from_rest
from tuner.load.requests import Input

ARRAYS = {
    "image": np.arange(24, dtype=np.float32).reshape(4, 2, 3) / 7,
    "id": np.array([5, -6, 7, 8], dtype=np.int64),
    "text": np.array(["a", "bé", "", "dd"]),
    "flag": np.array([True, False, True, True]),
    "half": np.array([0.5, 1, 2, 3], dtype=np.float16),
}


def save(tmp_path: Path, **arrays: np.ndarray) -> Path:
    path = tmp_path / "r.npz"
    np.savez(path, **arrays)
    return path


def test_grpc_requests_parse_with_tensorflow_servings_own_classes() -> None:
    tf = pytest.importorskip("tensorflow")
    from tensorflow_serving.apis import predict_pb2

    blocks = np.array([[2, 0], [3, 1]])
    for rows, body in zip(blocks, requests.grpc_bodies(ARRAYS, blocks), strict=True):
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
    ours = next(requests.grpc_bodies({"image": ARRAYS["image"]}, np.array([[0]])))
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
    assert found == {"serving_default": {"x": Input("float32", (-1, 3))}}


def test_the_metadata_of_rest_reads_the_same() -> None:
    info = {"dtype": "DT_FLOAT", "tensor_shape": {"dim": [{"size": "-1"}, {"size": "3"}]}}
    signature = {"serving_default": {"inputs": {"x": info}}}
    answer = {"metadata": {"signature_def": {"signature_def": signature}}}
    found = from_rest(json.dumps(answer).encode())
    assert found == {"serving_default": {"x": Input("float32", (-1, 3))}}


def test_every_number_type_of_numpy_has_tensorflows_number() -> None:
    tf = pytest.importorskip("tensorflow")
    for name, number in messages.DATA_TYPES.items():
        assert tf.as_dtype(name).as_datatype_enum == number, name


def test_rest_requests_hold_the_rows_in_the_column_format() -> None:
    arrays = {k: ARRAYS[k] for k in ("image", "text", "half")}
    body = json.loads(next(requests.rest_bodies(arrays, np.array([[3]]), "sig")))
    assert body["signature_name"] == "sig"
    assert np.allclose(body["inputs"]["image"], ARRAYS["image"][[3]])
    assert body["inputs"]["text"] == ["dd"]
    assert body["inputs"]["half"] == [3.0]


def test_a_single_input_of_rest_drops_its_name() -> None:
    body = json.loads(next(requests.rest_bodies({"id": ARRAYS["id"]}, np.array([[1, 2]]), "s")))
    assert body["inputs"] == [-6, 7]


def test_bytes_go_as_base64_by_rest() -> None:
    arrays = {"b": np.array([b"\x01\xff", b"z"])}
    body = json.loads(next(requests.rest_bodies(arrays, np.array([[0]]), "s")))
    assert body["inputs"] == [{"b64": "Af8="}]


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"x": np.zeros((2, 3)), "y": np.zeros((3, 3))}, "equally many rows"),
        ({"x": np.zeros((0, 3))}, "no rows"),
        ({"x": np.float32(1)}, "equally many rows"),
        ({"x": np.array([None, 1], dtype=object)}, "not a readable .npz"),
        ({"x": np.zeros(3, dtype="datetime64[s]")}, "cannot be sent"),
    ],
)
def test_a_requests_file_that_cannot_be_sent_says_why(
    tmp_path: Path, arrays: dict[str, np.ndarray], says: str
) -> None:
    with pytest.raises(ModelError, match=says):
        requests.read_requests(save(tmp_path, **arrays))


def test_a_missing_or_broken_requests_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="none.npz: no such requests file"):
        requests.read_requests(tmp_path / "none.npz")
    broken = tmp_path / "broken.npz"
    broken.write_bytes(b"PK not a zip")
    with pytest.raises(ModelError, match="broken.npz: not a readable"):
        requests.read_requests(broken)


@pytest.mark.parametrize(
    ("inputs", "says"),
    [
        ({"image": Input("float32", (-1, 3))}, r"\['x'\].*takes \['image'\]"),
        ({"x": Input("int32", (-1, 3))}, "type float32.*takes int32"),
        ({"x": Input("float32", (-1, 4))}, r"rows of shape \(3,\).*takes \(4,\)"),
        ({"x": Input("float32", (-1, 3, 3))}, r"rows of shape \(3,\).*takes \(3, 3\)"),
    ],
)
def test_requests_that_do_not_fit_the_signature_say_what_would(
    inputs: dict[str, Input], says: str
) -> None:
    arrays = {"x": np.zeros((2, 3), np.float32)}
    with pytest.raises(ModelError, match=says):
        requests.check_requests(Path("r.npz"), arrays, inputs, "serving_default")


def test_requests_that_fit_pass_also_where_sizes_are_unknown() -> None:
    arrays = {"x": np.zeros((2, 3), np.float32)}
    for shape in ((-1, -1), (-1, 3), None):
        inputs = {"x": Input("float32", shape)}
        requests.check_requests(Path("r.npz"), arrays, inputs, "serving_default")


def test_every_row_is_used_and_the_last_request_is_full() -> None:
    blocks = requests.blocks(10, 4, np.random.default_rng(0))
    assert blocks.shape == (3, 4)
    assert set(blocks.ravel()) == set(range(10))


def test_more_rows_a_request_than_the_file_has_repeat() -> None:
    assert requests.blocks(3, 8, np.random.default_rng(0)).shape == (1, 8)


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
