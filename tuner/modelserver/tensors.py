"""Tensors between the wire and NumPy, with as few copies as the libraries allow."""

from __future__ import annotations

import functools
import math

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2, types_pb2
from tensorflow.python.framework import tensor_util

from tuner.modelserver.status import invalid_argument

_NUMERIC = {
    getattr(types_pb2, name): np.dtype(tf.dtypes.as_dtype(getattr(types_pb2, name)).as_numpy_dtype)
    for name in [
        "DT_FLOAT",
        "DT_DOUBLE",
        "DT_INT32",
        "DT_UINT8",
        "DT_INT16",
        "DT_INT8",
        "DT_INT64",
        "DT_BOOL",
        "DT_UINT16",
        "DT_UINT32",
        "DT_UINT64",
        "DT_HALF",
        "DT_BFLOAT16",
        "DT_COMPLEX64",
        "DT_COMPLEX128",
    ]
}
_ENUM = {dtype: enum for enum, dtype in _NUMERIC.items()}
_RAW_FIELD = {np.dtype(np.float32): 5, np.dtype(np.float64): 6}
"""TensorProto's packed fields whose bytes on the wire are the array's own bytes."""

_TENSOR_CONTENT = 4

_TYPED_FIELD = {
    _NUMERIC[enum]: (field, view)
    for field, view, enums in (
        ("float_val", None, [types_pb2.DT_FLOAT]),
        ("double_val", None, [types_pb2.DT_DOUBLE]),
        (
            "int_val",
            None,
            [
                types_pb2.DT_INT32,
                types_pb2.DT_INT16,
                types_pb2.DT_INT8,
                types_pb2.DT_UINT8,
                types_pb2.DT_UINT16,
            ],
        ),
        ("int64_val", None, [types_pb2.DT_INT64]),
        ("bool_val", None, [types_pb2.DT_BOOL]),
        ("uint32_val", None, [types_pb2.DT_UINT32]),
        ("uint64_val", None, [types_pb2.DT_UINT64]),
        ("half_val", np.uint16, [types_pb2.DT_HALF, types_pb2.DT_BFLOAT16]),
        ("scomplex_val", np.float32, [types_pb2.DT_COMPLEX64]),
        ("dcomplex_val", np.float64, [types_pb2.DT_COMPLEX128]),
    )
    for enum in enums
}
"""TensorProto's typed field of a dtype, and how to view the array to fill it."""


def to_array(
    proto: tensor_pb2.TensorProto, content: bytes | memoryview | None = None
) -> np.ndarray:
    """The array a TensorProto holds; ``tensor_content`` is viewed, not copied.

    Args:
        content: the ``tensor_content``, where it was kept out of the message.

    Raises:
        ServingError: INVALID_ARGUMENT where content, shape and type do not fit together.
    """
    dtype = _NUMERIC.get(proto.dtype)
    content = content or proto.tensor_content
    if content and dtype is not None:
        shape = [dim.size for dim in proto.tensor_shape.dim]
        if len(content) != math.prod(shape) * dtype.itemsize:
            raise invalid_argument(
                f"tensor parsing error: {len(content)} bytes of tensor_content for shape {shape} "
                f"of {dtype.name}"
            )
        return np.frombuffer(content, dtype).reshape(shape)
    try:
        return tensor_util.MakeNdarray(proto)
    except (TypeError, ValueError) as error:
        raise invalid_argument(f"tensor parsing error: {error}") from None


def encode_predict_response(
    model_spec: bytes, outputs: list[tuple[str, np.ndarray]], as_content: bool
) -> bytes:
    """A serialised PredictResponse.

    Args:
        model_spec: the response's model_spec field, serialised with its tag.
        as_content: answer in tensor_content rather than in typed fields.
    """
    parts: list[bytes | memoryview] = []
    for name, array in outputs:
        dtype = array.dtype
        field = _TENSOR_CONTENT if as_content and dtype in _ENUM else _RAW_FIELD.get(dtype)
        if field is None:
            parts.append(_any_output(name, array))
            continue
        parts.append(_output_head(name, dtype, array.shape, field))
        if array.size:
            # As bytes: the buffer protocol does not know bfloat16.
            parts.append(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    parts.append(model_spec)
    return b"".join(parts)


@functools.lru_cache(maxsize=1024)
def _output_head(name: str, dtype: np.dtype, shape: tuple[int, ...], field: int) -> bytes:
    """Everything of a map entry of PredictResponse.outputs that precedes the numbers."""
    content = math.prod(shape) * dtype.itemsize
    head = tensor_pb2.TensorProto(dtype=_ENUM[dtype])
    head.tensor_shape.SetInParent()
    for size in shape:
        head.tensor_shape.dim.add(size=size)
    tensor = head.SerializeToString()
    if content:
        tensor += _tag(field, content)
    key = name.encode()
    entry = _tag(1, len(key)) + key + _tag(2, len(tensor) + content) + tensor
    return _tag(1, len(entry) + content) + entry


def _any_output(name: str, array: np.ndarray) -> bytes:
    tensor = tensor_proto(array).SerializeToString()
    key = name.encode()
    entry = _tag(1, len(key)) + key + _tag(2, len(tensor)) + tensor
    return _tag(1, len(entry)) + entry


def tensor_proto(array: np.ndarray) -> tensor_pb2.TensorProto:
    """A TensorProto with typed fields, as TensorFlow Serving answers by default."""
    proto = tensor_pb2.TensorProto()
    if array.dtype == object or array.dtype.kind in "SU":
        proto.dtype = types_pb2.DT_STRING
        proto.string_val.extend(
            item if isinstance(item, bytes) else str(item).encode()
            for item in array.ravel().tolist()
        )
    else:
        proto.dtype = _ENUM[array.dtype]
        field, view = _TYPED_FIELD[array.dtype]
        flat = np.ascontiguousarray(array).ravel()
        getattr(proto, field).extend((flat.view(view) if view else flat).tolist())
    proto.tensor_shape.SetInParent()
    for size in array.shape:
        proto.tensor_shape.dim.add(size=size)
    return proto


def _tag(field: int, length: int) -> bytes:
    """Tag of a length-delimited field and its length, as protobuf writes them."""
    return _varint(field << 3 | 2) + _varint(length)


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def length_delimited(field: int, payload: bytes) -> bytes:
    """A serialised submessage as a field of its parent."""
    return _tag(field, len(payload)) + payload
