"""A PredictRequest off the wire without copying its tensors.

Protobuf copies ``tensor_content`` twice, once into its message and once out of it. For a picture
of 600 KB that is time worth sparing: the content is viewed where the transport left it, and
protobuf parses what is around it.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from google.protobuf.message import DecodeError
from tensorflow.core.framework import tensor_pb2
from tensorflow_serving.apis import predict_pb2

from tuner.modelserver.http2.request import Body
from tuner.modelserver.status import invalid_argument
from tuner.modelserver.tensors import to_array

_WORTH_BYTES = 32768
"""Smaller requests are parsed faster by protobuf alone."""
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def read_predict_request(
    body: Body,
) -> tuple[predict_pb2.PredictRequest, dict[str, np.ndarray]]:
    """The request and its inputs; of a large request the message itself lacks the inputs.

    Raises:
        ServingError: INVALID_ARGUMENT for bytes that are no PredictRequest.
    """
    try:
        if len(body) < _WORTH_BYTES:
            request = predict_pb2.PredictRequest.FromString(bytes(body))
            return request, {name: to_array(item) for name, item in request.inputs.items()}
        rest, inputs = bytearray(), {}
        for field, start, value, end in _fields(body, 0, len(body)):
            if field == 2:  # inputs
                name, tensor = _input(body, value, end)
                inputs[name] = tensor
            else:
                rest += body[start:end]
        return predict_pb2.PredictRequest.FromString(bytes(rest)), inputs
    except (DecodeError, IndexError, UnicodeDecodeError) as error:
        raise invalid_argument(f"Not a PredictRequest: {error}") from None


def _input(body: Body, start: int, end: int) -> tuple[str, np.ndarray]:
    """An entry of the map ``inputs``."""
    name, head, content = "", bytearray(), None
    for field, _, value, stop in _fields(body, start, end):
        if field == 1:
            name = bytes(body[value:stop]).decode()
        elif field == 2:
            for inner, tag, inner_value, inner_stop in _fields(body, value, stop):
                if inner == 4:  # tensor_content
                    content = memoryview(body)[inner_value:inner_stop]
                else:
                    head += body[tag:inner_stop]
    return name, to_array(tensor_pb2.TensorProto.FromString(bytes(head)), content)


def _fields(body: Body, at: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """(field number, where its tag starts, where its value starts, where it ends) of a message."""
    while at < end:
        start = at
        tag, at = _varint(body, at)
        value = at
        kind = tag & 7
        if kind == _BYTES:
            length, value = _varint(body, at)
            at = value + length
        elif kind == _VARINT:
            _, at = _varint(body, at)
        elif kind in (_FIXED64, _FIXED32):
            at += 8 if kind == _FIXED64 else 4
        else:
            raise DecodeError(f"wire type {kind}")
        if at > end:
            raise DecodeError("truncated message")
        yield tag >> 3, start, value, at


def _varint(body: Body, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = body[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise DecodeError("varint too long")
