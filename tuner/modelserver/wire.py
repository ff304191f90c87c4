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
from tuner.modelserver.status import Code, ServingError
from tuner.modelserver.tensors import read_varint, to_array

_WORTH_BYTES = 32768
"""Smaller requests are parsed faster by protobuf alone."""
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
Input = np.ndarray | ServingError
"""An array, or why it cannot be read: told once model and signature are found, as TensorFlow
Serving looks for them first."""


def read_predict_request(
    body: Body,
) -> tuple[predict_pb2.PredictRequest, dict[str, Input]]:
    """The request and its inputs; of a large request the message itself lacks the inputs.

    Raises:
        ServingError: INTERNAL for bytes that are no PredictRequest, as gRPC has it.
    """
    try:
        if len(body) < _WORTH_BYTES:
            request = predict_pb2.PredictRequest.FromString(bytes(body))
            return request, {name: _read(name, item) for name, item in request.inputs.items()}
        rest, inputs = bytearray(), {}
        for field, start, value, end in _fields(body, 0, len(body)):
            if field == 2:  # inputs
                name, tensor = _input(body, value, end)
                inputs[name] = tensor
            else:
                rest += body[start:end]
        return predict_pb2.PredictRequest.FromString(bytes(rest)), inputs
    except (DecodeError, IndexError, ValueError) as error:
        raise ServingError(Code.INTERNAL, f"Not a PredictRequest: {error}") from None


def _read(name: str, proto: tensor_pb2.TensorProto, content: memoryview | None = None) -> Input:
    try:
        return to_array(name, proto, content)
    except ServingError as error:
        return error


def _input(body: Body, start: int, end: int) -> tuple[str, Input]:
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
    return name, _read(name, tensor_pb2.TensorProto.FromString(bytes(head)), content)


def _fields(body: Body, at: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """(field number, where its tag starts, where its value starts, where it ends) of a message."""
    while at < end:
        start = at
        tag, at = read_varint(body, at)
        value = at
        kind = tag & 7
        if kind == _BYTES:
            length, value = read_varint(body, at)
            at = value + length
        elif kind == _VARINT:
            _, at = read_varint(body, at)
        elif kind in (_FIXED64, _FIXED32):
            at += 8 if kind == _FIXED64 else 4
        else:
            raise DecodeError(f"wire type {kind}")
        if at > end:
            raise DecodeError("truncated message")
        yield tag >> 3, start, value, at
