"""Tensors on the wire, the response cache and the histograms, each by itself."""

from __future__ import annotations

import gc
import threading
import weakref
from concurrent import futures

import ml_dtypes
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2, types_pb2
from tensorflow_serving.apis import (
    classification_pb2,
    input_pb2,
    model_management_pb2,
    predict_pb2,
)

from tuner.modelserver.batching import BatchingOptions
from tuner.modelserver.cache import ResponseCache
from tuner.modelserver.examples import Classified, serialised
from tuner.modelserver.executor import ExecutionSettings, Servable
from tuner.modelserver.metrics import Histogram
from tuner.modelserver.model_service import ModelService
from tuner.modelserver.scheduler import BatchScheduler
from tuner.modelserver.status import Code, ServingError
from tuner.modelserver.tensors import encode_predict_response, to_array

ARRAYS = [
    np.arange(6, dtype=dtype).reshape(2, 3)
    for dtype in (
        *["f4", "f8", "f2", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "c8", "c16"],
        ml_dtypes.bfloat16,
    )
] + [
    np.array([[True], [False]]),
    np.array(3.5, np.float32),
    np.zeros((0, 4), np.float32),
    np.array([b"a", b"\xff"], object),
    np.arange(12, dtype=np.float32).reshape(3, 4).T,
]


@pytest.mark.parametrize("as_content", [False, True])
@pytest.mark.parametrize("array", ARRAYS, ids=lambda a: f"{a.dtype}{a.shape}")
def test_an_encoded_response_is_what_protobuf_reads_back(array, as_content):
    spec = predict_pb2.PredictResponse()
    spec.model_spec.name = "m"
    encoded = encode_predict_response(
        spec.SerializeToString(), [("one", array), ("two", array)], as_content
    )
    response = predict_pb2.PredictResponse.FromString(encoded)
    assert response.model_spec.name == "m"
    assert set(response.outputs) == {"one", "two"}
    tensor = response.outputs["two"]
    assert bool(tensor.tensor_content) == (as_content and array.size > 0)
    parsed = tf.io.parse_tensor(tensor.SerializeToString(), tensor.dtype)
    read = parsed.numpy() if array.dtype == object else tf.make_ndarray(tensor)
    assert read.shape == array.shape
    assert (read == array).all()


def _proto(dtype, shape, **fields):
    proto = tensor_pb2.TensorProto(dtype=dtype, **fields)
    proto.tensor_shape.SetInParent()
    for size in shape:
        proto.tensor_shape.dim.add(size=size)
    return proto


@pytest.mark.parametrize(
    ("proto", "expected"),
    [
        (_proto(types_pb2.DT_FLOAT, [2], float_val=[1, 2, 3]), np.float32([1, 2])),
        (_proto(types_pb2.DT_FLOAT, [3], float_val=[1, 2]), np.float32([1, 2, 2])),
        (_proto(types_pb2.DT_FLOAT, [2], double_val=[1, 2]), np.float32([0, 0])),
        (_proto(types_pb2.DT_FLOAT, [0, 4], float_val=[1]), np.zeros((0, 4), np.float32)),
        (_proto(types_pb2.DT_INT8, [2], int_val=[300, -129]), np.int8([44, 127])),
        (_proto(types_pb2.DT_UINT8, [], int_val=[-1]), np.uint8(255)),
        (_proto(types_pb2.DT_UINT16, [1], int_val=[65537]), np.uint16([1])),
        (_proto(types_pb2.DT_HALF, [2], half_val=[0x3C00]), np.float16([1, 1])),
        (_proto(types_pb2.DT_COMPLEX64, [2], scomplex_val=[1, 2, 3]), np.complex64([1 + 2j] * 2)),
        (_proto(types_pb2.DT_BOOL, [2], bool_val=[True]), np.array([True, True])),
        (_proto(types_pb2.DT_STRING, [1], string_val=[b"a\0", b"b"]), np.array([b"a\0"], object)),
        (_proto(types_pb2.DT_STRING, [2]), np.array([b"", b""], object)),
        (
            _proto(types_pb2.DT_STRING, [2], tensor_content=b"\x02\x01ab\xff"),
            np.array([b"ab", b"\xff"], object),
        ),
        (
            _proto(types_pb2.DT_STRING, [1], tensor_content=b"\xac\x02" + b"x" * 300),
            np.array([b"x" * 300], object),
        ),
    ],
)
def test_a_tensor_with_too_many_too_few_or_odd_values_is_read_as_tensorflow_reads_it(
    proto, expected
):
    read = to_array("x", proto)
    assert (read.dtype, read.shape) == (expected.dtype, expected.shape)
    assert (read == expected).all()


@pytest.mark.parametrize(
    "proto",
    [
        _proto(types_pb2.DT_FLOAT, [2], tensor_content=b"1234567"),
        _proto(types_pb2.DT_FLOAT, [-1], float_val=[1]),
        _proto(types_pb2.DT_FLOAT, [2**62, 4], float_val=[1]),
        _proto(types_pb2.DT_INVALID, [1]),
        _proto(types_pb2.DT_RESOURCE, [1]),
        _proto(types_pb2.DT_VARIANT, [1]),
        _proto(types_pb2.DT_STRING, [2], tensor_content=b"\x02\x01ab"),
        _proto(types_pb2.DT_STRING, [2], tensor_content=b"\x80"),
        _proto(types_pb2.DT_STRING, [1], tensor_content=b"\x01ab"),
    ],
)
def test_a_tensor_that_cannot_be_read_is_refused_by_the_name_of_its_input(proto):
    with pytest.raises(ServingError, match="^INVALID_ARGUMENT: tensor parsing error: image$"):
        to_array("image", proto)


def test_labels_of_any_bytes_and_zero_scores_are_written_as_protobuf_writes_them():
    labels = np.array([["a", ""], ["c", "d"]], object)
    scores = np.float32([[0.5, 0.0], [-0.0, 2.0]])
    ours = Classified("k", np.vectorize(str.encode, otypes=[object])(labels), scores).serialised()
    theirs = classification_pb2.ClassificationResult()
    for row in range(2):
        item = theirs.classifications.add()
        for column in range(2):
            item.classes.add(label=labels[row, column], score=scores[row, column])
    assert ours == theirs.SerializeToString()
    assert b"\xff\x01" in Classified("k", np.array([[b"\xff\x01"]], object), None).serialised()


@pytest.mark.parametrize("array", ARRAYS, ids=lambda a: f"{a.dtype}{a.shape}")
def test_a_tensor_is_read_as_tensorflow_wrote_it(array):
    read = to_array("x", tf.make_tensor_proto(array))
    assert read.shape == array.shape
    assert (read == array).all()


def test_the_cache_drops_what_was_least_recently_used():
    cache = ResponseCache(limit_bytes=8)
    cache.put("m", b"11", b"aa")
    cache.put("m", b"22", b"bb")
    assert cache.get("m", b"11") == b"aa"
    cache.put("m", b"33", b"cc")
    assert cache.get("m", b"22") is None
    assert cache.get("m", b"11") == b"aa"
    assert cache.get("other", b"11") is None
    cache.put("m", b"44", b"much too large")
    assert cache.get("m", b"44") is None
    assert cache.get("m", b"33") == b"cc"


def test_a_histogram_is_written_cumulatively():
    histogram = Histogram("h", ("model_name",), (1, 10))
    for value in (1, 5, 50):
        histogram.add(('a"b',), value)
    label = r'model_name="a\"b"'
    assert histogram.lines() == [
        "# TYPE :tensorflow:serving:h histogram",
        f':tensorflow:serving:h_bucket{{{label},le="1"}} 1',
        f':tensorflow:serving:h_bucket{{{label},le="10"}} 2',
        f':tensorflow:serving:h_bucket{{{label},le="+Inf"}} 3',
        f":tensorflow:serving:h_sum{{{label}}} 56",
        f":tensorflow:serving:h_count{{{label}}} 3",
    ]


def test_the_restore_function_of_a_module_is_read_off_rather_than_run(models):
    from tensorflow.core.protobuf import saved_model_pb2

    from tuner.modelserver.restore import saved_variables

    def variables(name):
        data = (models / name / "1" / "saved_model.pb").read_bytes()
        return saved_variables(saved_model_pb2.SavedModel.FromString(data).meta_graphs[0])

    (found,) = variables("module")
    assert (found.key, found.slice_spec, found.dtype) == (
        "w/.ATTRIBUTES/VARIABLE_VALUE",
        "",
        tf.float32,
    )
    assert variables("half") is None  # a TensorFlow 1 graph restores by itself


@pytest.mark.parametrize("rows", [2, 20000])
def test_a_request_is_read_off_the_wire_as_protobuf_reads_it(rows):
    from tuner.modelserver.wire import read_predict_request

    request = predict_pb2.PredictRequest(output_filter=["b", "a"])
    request.model_spec.name, request.model_spec.version.value = "m", 3
    arrays = {
        "floats": np.random.default_rng(0).random((rows, 3), np.float32),
        "flags": np.arange(rows) % 3 == 0,
        "text": np.array([b"one", b"two"], object),
        "number": np.array(2.5),
    }
    for name, array in arrays.items():
        request.inputs[name].CopyFrom(tf.make_tensor_proto(array))
    read, inputs = read_predict_request(request.SerializeToString())
    assert (read.model_spec, read.output_filter) == (request.model_spec, request.output_filter)
    assert set(inputs) == set(arrays)
    for name, array in arrays.items():
        assert inputs[name].dtype == array.dtype
        assert inputs[name].shape == array.shape
        assert (inputs[name] == array).all()


@pytest.mark.parametrize(
    "damage", [lambda b: b[:-7], lambda b: b"\x0b" + b, lambda b: b"\xff" * 40000]
)
def test_bytes_that_are_no_request_are_refused(damage):
    from tuner.modelserver.status import ServingError
    from tuner.modelserver.wire import read_predict_request

    request = predict_pb2.PredictRequest()
    request.inputs["x"].CopyFrom(tf.make_tensor_proto(np.zeros(20000, np.float32)))
    with pytest.raises(ServingError, match="Not a PredictRequest"):
        read_predict_request(damage(request.SerializeToString()))


STATUS_OK = b"\n\x00"
"""A ReloadConfigResponse whose status is set, and empty."""


def test_a_context_that_would_make_gigabytes_of_a_small_request_is_refused():
    given = input_pb2.Input()
    kind = given.example_list_with_context
    kind.context.features.feature["c"].bytes_list.value.append(bytes(1 << 20))
    for _ in range(300):
        kind.examples.add()
    with pytest.raises(ServingError, match="each of 300 examples") as told:
        serialised(given)
    assert told.value.code is Code.RESOURCE_EXHAUSTED


def test_reloads_that_cannot_finish_take_two_threads_and_no_more():
    entered, released = threading.Semaphore(0), threading.Event()

    class Stuck:
        def apply(self, config) -> None:
            entered.release()
            released.wait(30)

    service = ModelService(Stuck())
    request = model_management_pb2.ReloadConfigRequest()
    request.config.model_config_list.config.add(name="m", base_path="/m", model_platform="tensorflow")
    body = request.SerializeToString()
    with futures.ThreadPoolExecutor(2) as pool:
        running = [pool.submit(service.reload, body) for _ in range(2)]
        assert entered.acquire(timeout=10) and entered.acquire(timeout=10)
        for _ in range(3):
            with pytest.raises(ServingError, match="A reload is in progress") as told:
                service.reload(body)
            assert told.value.code == Code.UNAVAILABLE
        released.set()
        assert [one.result(10) for one in running] == [STATUS_OK, STATUS_OK]
    assert service.reload(body) == STATUS_OK


def test_a_version_that_batches_ends_with_its_last_reference(models):
    batching = BatchingOptions(max_batch_size=4, max_execution_batch_size=4)
    settings = ExecutionSettings(batching=batching, scheduler=BatchScheduler(1))
    (path,) = [folder for folder in sorted((models / "half").iterdir())[:1]]
    servable = Servable("half", int(path.name), path, settings)
    servable.first_inference()
    servable.signature("").run({"x": np.ones(2, np.float32)})
    session = weakref.ref(servable._session)
    gc.disable()
    try:
        del servable
        assert session() is None
    finally:
        gc.enable()
