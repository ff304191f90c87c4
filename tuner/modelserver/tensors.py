"""Tensors between the wire and NumPy, with as few copies as the libraries allow."""

from __future__ import annotations

import functools
import itertools
import math

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2, types_pb2

from tuner.modelserver.status import ServingError, invalid_argument

_NUMERIC = {
    enum: np.dtype(tf.dtypes.as_dtype(enum).as_numpy_dtype)
    for enum in (
        types_pb2.DT_FLOAT,
        types_pb2.DT_DOUBLE,
        types_pb2.DT_INT32,
        types_pb2.DT_UINT8,
        types_pb2.DT_INT16,
        types_pb2.DT_INT8,
        types_pb2.DT_INT64,
        types_pb2.DT_BOOL,
        types_pb2.DT_UINT16,
        types_pb2.DT_UINT32,
        types_pb2.DT_UINT64,
        types_pb2.DT_HALF,
        types_pb2.DT_BFLOAT16,
        types_pb2.DT_COMPLEX64,
        types_pb2.DT_COMPLEX128,
    )
}
_ENUM = {dtype: enum for enum, dtype in _NUMERIC.items()}
_RAW_FIELD = {np.dtype(np.float32): 5, np.dtype(np.float64): 6}
"""TensorProto's packed fields whose bytes on the wire are the array's own bytes."""

_TENSOR_CONTENT = 4
_MOST_ELEMENTS = 2**63 - 1

_INT_VAL = ("int_val", np.int32, None)
_TYPED_FIELD: dict[np.dtype, tuple[str, type, type | None]] = {
    np.dtype(np.float32): ("float_val", np.float32, None),
    np.dtype(np.float64): ("double_val", np.float64, None),
    np.dtype(np.int64): ("int64_val", np.int64, None),
    np.dtype(np.bool_): ("bool_val", np.bool_, None),
    np.dtype(np.uint32): ("uint32_val", np.uint32, None),
    np.dtype(np.uint64): ("uint64_val", np.uint64, None),
    np.dtype(np.complex64): ("scomplex_val", np.float32, np.float32),
    np.dtype(np.complex128): ("dcomplex_val", np.float64, np.float64),
    _NUMERIC[types_pb2.DT_HALF]: ("half_val", np.int32, np.uint16),
    _NUMERIC[types_pb2.DT_BFLOAT16]: ("half_val", np.int32, np.uint16),
    **{np.dtype(kind): _INT_VAL for kind in (np.int32, np.int16, np.int8, np.uint8, np.uint16)},
}
"""TensorProto's typed field of a dtype, the type of its values, and how to view the array as them."""


def to_array(
    name: str, proto: tensor_pb2.TensorProto, content: bytes | memoryview | None = None
) -> np.ndarray:
    """The array a TensorProto holds, read as TensorFlow reads it; content is viewed, not copied.

    Of too many values in a typed field the first are taken, of too few the last is repeated, of
    none zeros; integers wrap round.

    Args:
        name: of the input, for the error's text.
        content: the ``tensor_content``, where it was kept out of the message.

    Raises:
        ServingError: INVALID_ARGUMENT where content, shape and type do not fit together.
    """
    shape = [dim.size for dim in proto.tensor_shape.dim]
    dtype = _NUMERIC.get(proto.dtype)
    text = proto.dtype == types_pb2.DT_STRING
    count = math.prod(shape)
    if (dtype is None and not text) or min(shape, default=0) < 0 or count > _MOST_ELEMENTS:
        raise _unfit(name)
    if proto.tensor_shape.unknown_rank:
        raise _unfit(name)
    content = content or proto.tensor_content
    if text:
        values = np.empty(count, object)
        if content and count:
            values[:] = _strings(name, bytes(content), count)
        else:
            _spread(values, list(proto.string_val[:count]), b"")
        return values.reshape(shape)
    assert dtype is not None
    if content and count:
        if len(content) != count * dtype.itemsize:
            raise _unfit(name)
        return np.frombuffer(content, dtype).reshape(shape)
    field, kind, view = _TYPED_FIELD[dtype]
    sent = getattr(proto, field)
    given: np.ndarray = np.fromiter(sent, kind, len(sent))
    if view is not None:
        step = dtype.itemsize // np.dtype(view).itemsize
        given = given[: len(given) // step * step].astype(view).view(dtype)
    if len(given) >= count:
        return given[:count].astype(dtype, copy=False).reshape(shape)
    values = np.empty(count, dtype)
    _spread(values, given.astype(dtype, copy=False), 0)
    return values.reshape(shape)


def _spread(values: np.ndarray, given: np.ndarray | list[bytes], none: object) -> None:
    values[: len(given)] = given
    values[len(given) :] = given[-1] if len(given) else none


def _strings(name: str, content: bytes, count: int) -> list[bytes]:
    """The strings of a tensor_content: their lengths as varints, then their bytes."""
    at, ends, total = 0, [], 0
    try:
        for _ in range(count):
            length, at = read_varint(content, at)
            total += length
            ends.append(total)
    except (IndexError, ValueError):
        raise _unfit(name) from None
    if at + total != len(content):
        raise _unfit(name)
    return [content[at + start : at + end] for start, end in itertools.pairwise([0, *ends])]


def _unfit(name: str) -> ServingError:
    return invalid_argument(f"tensor parsing error: {name}")


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
            parts.append(_any_output(name, array, as_content))
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


def _any_output(name: str, array: np.ndarray, as_content: bool) -> bytes:
    tensor = tensor_proto(array, as_content).SerializeToString()
    key = name.encode()
    entry = _tag(1, len(key)) + key + _tag(2, len(tensor)) + tensor
    return _tag(1, len(entry)) + entry


def tensor_proto(array: np.ndarray, as_content: bool = False) -> tensor_pb2.TensorProto:
    """A TensorProto with typed fields, as TensorFlow Serving answers by default.

    Args:
        as_content: strings in tensor_content, as it answers where it is told to.
    """
    proto = tensor_pb2.TensorProto()
    if array.dtype == object or array.dtype.kind in "SU":
        proto.dtype = types_pb2.DT_STRING
        strings = [
            item if isinstance(item, bytes) else str(item).encode()
            for item in array.ravel().tolist()
        ]
        if as_content:
            lengths = b"".join(_varint(len(item)) for item in strings)
            proto.tensor_content = b"".join([lengths, *strings])
        else:
            proto.string_val.extend(strings)
    else:
        proto.dtype = _ENUM[array.dtype]
        field, _, view = _TYPED_FIELD[array.dtype]
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


def read_varint(body: bytes | memoryview, at: int) -> tuple[int, int]:
    """A varint at ``at``, and where it ends.

    Raises:
        IndexError, ValueError: it is cut short, or longer than any is.
    """
    value = shift = 0
    while True:
        byte = body[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError("varint too long")


def length_delimited(field: int, payload: bytes) -> bytes:
    """A serialised submessage as a field of its parent."""
    return _tag(field, len(payload)) + payload
