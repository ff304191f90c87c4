"""No request costs more than its size: twice the bytes take at most three times the CPU time."""

from __future__ import annotations

import gc
import gzip
import socket
import time
from collections.abc import Callable

import hpack
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2, types_pb2
from tensorflow_serving.apis import input_pb2, predict_pb2
from tensorflow_serving.config import model_server_config_pb2

from tuner.modelserver import examples, model_config
from tuner.modelserver.http2 import frames
from tuner.modelserver.http2.connection import Connection
from tuner.modelserver.http2.headers import HeadReader, RequestHead
from tuner.modelserver.http2.request import Request
from tuner.modelserver.protos import read_text_proto
from tuner.modelserver.tensors import encode_predict_response, to_array
from tuner.modelserver.wire import read_predict_request

MOST_TIMES, ROUNDS = 3.0, 5
_LONGEST_S = 20.0
"""Rounds are added for so long while the quotient is too large: the machine may be busy."""

Work = Callable[[], object]


def _cpu_s(work: Work) -> float:
    gc.disable()  # its passes over all that lives are no part of the work
    try:
        start = time.thread_time()
        work()
        return time.thread_time() - start
    finally:
        gc.enable()


def _connection_fed(count: int) -> Work:
    """A frame of HEADERS of ``count`` bytes that comes in pieces of 64."""
    block = bytes([0x00, 1]) + b"x" + b"\x7f" + b"\x80" * 3 + b"\x01"
    head = frames.PREFACE + frames.settings([])
    data = head + frames.frame(frames.HEADERS, 0, 1, block + bytes(count))

    def work() -> None:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            connection = Connection(ours, message_limit_bytes=-1, max_streams=None)
            for at in range(0, len(data), 64):
                theirs.send(data[at : at + 64])
                connection.receive()

    return work


def _small_data_frames(count: int) -> Work:
    """A message of ``count`` bytes in DATA frames of 8."""
    request = Request(RequestHead("/m"), -1)

    def work() -> None:
        request.__init__(RequestHead("/m"), -1)
        request.receive(memoryview(b"\0" + count.to_bytes(4, "big")))
        for _ in range(0, count, 8):
            request.receive(memoryview(b"12345678"))
        assert len(request.message()) == count

    return work


def _header_block(count: int) -> Work:
    block = hpack.Encoder().encode([(f"x-{number}", "v") for number in range(count // 8)])
    return lambda: HeadReader().decode(block)


def _indexed_header_block(count: int) -> Work:
    """Each byte stands for a header of the static table."""
    return lambda: [HeadReader().decode(b"\x90" * count) for _ in range(5)]


def _compressed_message(count: int) -> Work:
    # Bytes that take work to unpack: of zeros most of the time is the allocator's.
    packed = gzip.compress(np.random.default_rng(1).integers(0, 40, count, np.uint8).tobytes(), 1)
    request = Request(RequestHead("/m", encoding="gzip"), -1)
    request.receive(memoryview(b"\1" + len(packed).to_bytes(4, "big") + packed))
    return lambda: request.unpacked(request.message())


def _many_inputs(count: int) -> Work:
    request = predict_pb2.PredictRequest()
    for number in range(count // 32):
        request.inputs[f"input {number}"].dtype = 1
    body = request.SerializeToString()
    return lambda: read_predict_request(body)


def _unknown_fields(count: int) -> Work:
    body = b"\xba\x01\x02xy" * (count // 5)
    return lambda: read_predict_request(body)


def _unknown_fields_of_a_tensor(count: int) -> Work:
    tensor = b"\x9a\x06\x02xy" * (count // 5)
    entry = b"\x0a\x01x\x12" + _length(tensor) + tensor
    body = b"\x12" + _length(entry) + entry
    return lambda: read_predict_request(body)


def _length(data: bytes) -> bytes:
    value, out = len(data), bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def _field(dtype: int, field: str, value: object, each: int = 1) -> Callable[[int], Work]:
    def made(count: int) -> Work:
        proto = tensor_pb2.TensorProto(dtype=dtype)
        proto.tensor_shape.dim.add(size=count)
        getattr(proto, field).extend([value] * (count * each))
        return lambda: to_array("x", proto)

    return made


def _content(count: int) -> Work:
    proto = tf.make_tensor_proto(np.zeros(count))
    return lambda: [to_array("x", proto) for _ in range(20)]


def _string_content(count: int) -> Work:
    proto = tensor_pb2.TensorProto(dtype=types_pb2.DT_STRING, tensor_content=b"\x01" * count + b"a" * count)
    proto.tensor_shape.dim.add(size=count)
    return lambda: to_array("x", proto)


def _one_value_spread(count: int) -> Work:
    proto = tensor_pb2.TensorProto(dtype=types_pb2.DT_STRING, string_val=[b"a"])
    proto.tensor_shape.dim.add(size=count)
    return lambda: to_array("x", proto)


def _encoded(array: Callable[[int], np.ndarray], as_content: bool) -> Callable[[int], Work]:
    def made(count: int) -> Work:
        given = array(count)
        return lambda: [encode_predict_response(b"", [("y", given)], as_content) for _ in range(9)]

    return made


def _classified(count: int) -> Work:
    labels = np.full((count, 2), b"label", object)
    return examples.Classified("k", labels, np.zeros((count, 2), np.float32)).serialised


def _some_examples(count: int, context: bool) -> input_pb2.Input:
    given = input_pb2.Input()
    kind = given.example_list_with_context if context else given.example_list
    for _ in range(count):
        kind.examples.add().features.feature["x"].float_list.value.append(1.0)
    if context:
        kind.context.features.feature["c"].int64_list.value.append(1)
    return given


def _examples(context: bool) -> Callable[[int], Work]:
    def made(count: int) -> Work:
        given = _some_examples(count, context)
        return lambda: examples.serialised(given)

    return made


def _checked_models(count: int) -> Work:
    config = model_server_config_pb2.ModelServerConfig()
    for number in range(count):
        config.model_config_list.config.add(
            name=f"m{number}", base_path="/m", model_platform="tensorflow"
        )
    return lambda: model_config.checked(config, {})


STRINGS = np.array([b"ab"], object)
CASES: dict[str, tuple[Callable[[int], Work], int]] = {
    "a frame in tiny pieces": (_connection_fed, 900_000),
    "small DATA frames": (_small_data_frames, 800_000),
    "a block of many headers": (_header_block, 60_000),
    "a block of indices": (_indexed_header_block, 12_000),
    "a compressed message": (_compressed_message, 8_000_000),
    "many inputs": (_many_inputs, 500_000),
    "unknown fields": (_unknown_fields, 400_000),
    "unknown fields of a tensor": (_unknown_fields_of_a_tensor, 400_000),
    "float_val": (_field(types_pb2.DT_FLOAT, "float_val", 1.0), 1_000_000),
    "double_val": (_field(types_pb2.DT_DOUBLE, "double_val", 1.0), 1_000_000),
    "int_val": (_field(types_pb2.DT_INT8, "int_val", 300), 1_000_000),
    "int64_val": (_field(types_pb2.DT_INT64, "int64_val", 1), 1_000_000),
    "uint32_val": (_field(types_pb2.DT_UINT32, "uint32_val", 1), 1_000_000),
    "uint64_val": (_field(types_pb2.DT_UINT64, "uint64_val", 1), 1_000_000),
    "bool_val": (_field(types_pb2.DT_BOOL, "bool_val", True), 1_000_000),
    "half_val": (_field(types_pb2.DT_BFLOAT16, "half_val", 1), 1_000_000),
    "scomplex_val": (_field(types_pb2.DT_COMPLEX64, "scomplex_val", 1.0, 2), 500_000),
    "dcomplex_val": (_field(types_pb2.DT_COMPLEX128, "dcomplex_val", 1.0, 2), 500_000),
    "string_val": (_field(types_pb2.DT_STRING, "string_val", b"ab"), 500_000),
    "tensor_content": (_content, 400_000),
    "tensor_content of strings": (_string_content, 100_000),
    "one value for all": (_one_value_spread, 4_000_000),
    "strings written": (_encoded(lambda n: np.repeat(STRINGS, n), False), 60_000),
    "strings written as content": (_encoded(lambda n: np.repeat(STRINGS, n), True), 30_000),
    "integers written": (_encoded(lambda n: np.zeros(n, np.int32), False), 100_000),
    "floats written": (_encoded(lambda n: np.zeros(n, np.float32), False), 800_000),
    "classes written": (_classified, 20_000),
    "examples": (_examples(False), 20_000),
    "examples with a context": (_examples(True), 20_000),
    "a configuration checked": (_checked_models, 10_000),
}


def _at_most_three_times(make: Callable[[int], Work], size: int) -> float:
    """The least time for ``size`` by the least for half of it, in as many rounds as it takes."""
    half, whole = make(size // 2), make(size)
    best = [float("inf"), float("inf")]
    began = time.monotonic()
    rounds = 0
    while rounds < ROUNDS or (
        best[1] > MOST_TIMES * best[0] and time.monotonic() - began < _LONGEST_S
    ):
        best = [min(best[0], _cpu_s(half)), min(best[1], _cpu_s(whole))]
        rounds += 1
    return best[1] / best[0]


@pytest.mark.parametrize("name", CASES)
def test_twice_the_bytes_take_at_most_three_times_the_time(name):
    assert _at_most_three_times(*CASES[name]) <= MOST_TIMES


def test_twice_the_text_of_a_configuration_takes_at_most_three_times_the_time(tmp_path):
    def make(count: int) -> Work:
        path = tmp_path / str(count)
        one = 'config { name: "m" base_path: "/m" model_platform: "tensorflow" }\n'
        path.write_text(f"model_config_list {{ {one * count} }}")
        return lambda: read_text_proto(path, model_server_config_pb2.ModelServerConfig())

    assert _at_most_three_times(make, 2000) <= MOST_TIMES


def test_the_measure_tells_what_is_not_linear():
    def make(count: int) -> Work:
        def work() -> None:
            kept = b""
            for _ in range(count):
                kept = kept + b"12345678"

        return work

    half, whole = (min(_cpu_s(make(size)) for _ in range(3)) for size in (10_000, 20_000))
    assert whole > MOST_TIMES * half or whole > 1.0
