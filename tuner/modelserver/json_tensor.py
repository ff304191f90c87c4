"""From JSON values to arrays: what TensorFlow Serving takes for a tensor, and its words for the rest."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator, Mapping
from functools import lru_cache
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import meta_graph_pb2

from tuner.modelserver.json_quote import show
from tuner.modelserver.status import Code, ServingError, invalid_argument


class Kind(NamedTuple):
    """What the values of an input may be."""

    name: str
    """As error texts call it."""
    dtype: np.dtype
    family: str
    """``f``loat, ``i``nteger, ``b``ool, ``S``tring, or empty: never read from JSON."""
    low: int = 0
    high: int = 0
    """Of integers."""


@lru_cache
def kind_of(dtype_enum: int) -> Kind:
    """The kind of a TensorFlow DataType."""
    dtype = tf.dtypes.as_dtype(dtype_enum)
    names = {tf.float32: "float", tf.float64: "double", tf.float16: "half"}
    name, numpy = names.get(dtype, dtype.name), np.dtype(dtype.as_numpy_dtype)
    if dtype == tf.string:
        return Kind(name, numpy, "S")
    if dtype == tf.bool:
        return Kind(name, numpy, "b")
    if dtype in (tf.float32, tf.float64):
        return Kind(name, numpy, "f")
    if dtype in (tf.int8, tf.int16, tf.int32, tf.int64, tf.uint8, tf.uint32, tf.uint64):
        return Kind(name, numpy, "i", dtype.min, dtype.max)
    return Kind(name, numpy, "")


Kinds = Mapping[str, Kind]


def kinds_of(infos: Mapping[str, meta_graph_pb2.TensorInfo]) -> Kinds:
    """The kinds of a signature's inputs, in order of their names."""
    return {name: kind_of(infos[name].dtype) for name in sorted(infos)}


def to_array(value: Any, kind: Kind, booleans: bool = True) -> np.ndarray:
    """A dense array of that kind from nested lists.

    Raises:
        ServingError: INVALID_ARGUMENT for ragged lists and values of another type; UNIMPLEMENTED for
            types that TensorFlow Serving reads from no JSON.
    """
    if kind.family == "S":
        return _strings(value, kind)
    array = None
    if kind.family and not (booleans and kind.family != "b" and _has_boolean(value)):
        try:
            array = _dense(value)
        except (ValueError, TypeError):  # ragged, or too deep
            pass
    if array is not None and (array.dtype.kind in _FAMILIES[kind.family] or not array.size):
        if kind.family != "i" or not array.size:
            return array.astype(kind.dtype)
        if kind.low <= array.min() and array.max() <= kind.high:
            return array.astype(kind.dtype)
    error = fault(value, kind)
    if error is not None:
        raise error
    try:  # integers on both sides of what NumPy has a common type for, or nothing of any type
        return np.array(value, kind.dtype)
    except (ValueError, OverflowError, TypeError) as failure:
        raise invalid_argument(f"JSON Value: not a tensor: {failure}") from None


def _dense(value: Any) -> np.ndarray:
    """Nested lists as an array of whatever type; ``ValueError`` where they are ragged."""
    shape = shape_by_first(value)
    if len(shape) < 3 or shape[-1] > _SHORT_ROW:
        return np.array(value)
    for size in shape[1:]:  # an image's pixels: NumPy's own walk takes twice as long
        if max(map(len, value)) != size:
            raise ValueError
        value = list(chain.from_iterable(value))
    return np.array(value).reshape(shape)


_SHORT_ROW = 4
_FAMILIES = {"f": "fiu", "i": "iu", "b": "b"}


def _has_boolean(value: Any) -> bool:
    return any(isinstance(leaf, bool) for _, leaf in _walk(value))


def _walk(value: Any) -> Iterator[tuple[int, Any]]:
    """Lists and the values in them, outer ones first, with their levels; as deep as they may be."""
    yield 0, value
    levels = [iter(value)] if isinstance(value, list) else []
    while levels:
        for item in levels[-1]:
            yield len(levels), item
            if isinstance(item, list):
                levels.append(iter(item))
                break
        else:
            levels.pop()


def shape_by_first(value: Any) -> list[int]:
    """The shape that the first item of each level promises."""
    shape: list[int] = []
    while isinstance(value, list):
        shape.append(len(value))
        value = value[0] if value else None
    return shape


def fault(value: Any, kind: Kind) -> ServingError | None:
    """What TensorFlow Serving finds wrong first, if anything."""
    shape = shape_by_first(value)
    for level, item in _walk(value):
        if isinstance(item, list):
            if level >= len(shape):
                return invalid_argument(
                    f"Encountered list at unexpected level: {level} expected < {len(shape)}"
                )
            if len(item) != shape[level]:
                return invalid_argument(
                    f"Encountered list at unexpected size: {len(item)} at level: {level} expected "
                    f"size: {shape[level]}"
                )
        elif level != len(shape):
            return invalid_argument(
                f"JSON Value: {show(item)} found at incorrect level: {level + 1} in the JSON DOM. "
                f"Expected at level: {len(shape)}"
            )
        elif not kind.family:
            return ServingError(
                Code.UNIMPLEMENTED, f"Conversion of JSON Value: {show(item)} to type: {kind.name}"
            )
        elif kind.family == "S":
            try:
                to_bytes(item)
            except ServingError as error:
                return error
        elif not _fits(item, kind):
            return invalid_argument(
                f"JSON Value: {show(item)} Type: {type_name(item)} is not of expected type: "
                f"{kind.name}"
            )
    return None


def _fits(item: Any, kind: Kind) -> bool:
    if isinstance(item, bool) or kind.family == "b":
        return isinstance(item, bool) and kind.family == "b"
    if kind.family == "f":
        return isinstance(item, (int, float))
    return isinstance(item, int) and kind.low <= item <= kind.high


def _strings(value: Any, kind: Kind) -> np.ndarray:
    shape = shape_by_first(value)
    items = [value]
    for size in shape:
        if not all(isinstance(item, list) and len(item) == size for item in items):
            break
        items = list(chain.from_iterable(items))
    else:
        if not any(isinstance(item, list) for item in items):
            array = np.empty(len(items), dtype=object)
            array[:] = [to_bytes(item) for item in items]
            return array.reshape(shape)
    error = fault(value, kind)
    assert error is not None
    raise error


def to_bytes(item: Any) -> bytes:
    if isinstance(item, str):
        return item.encode(errors="surrogateescape")
    if not isinstance(item, dict):
        raise invalid_argument(
            f"JSON Value: {show(item)} Type: {type_name(item)} is not of expected type: string"
        )
    if not is_base64(item):
        raise invalid_argument(f"JSON Value: {show(item)} not formatted correctly for base64 data")
    text = "".join(item["b64"].split())
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise invalid_argument("Unable to base64 decode") from None


def is_base64(value: Any) -> bool:
    return isinstance(value, dict) and set(value) == {"b64"} and isinstance(value["b64"], str)


def type_name(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "Null", True: "True", False: "False"}[value]
    for kind, name in ((dict, "Object"), (list, "Array"), (str, "String")):
        if isinstance(value, kind):
            return name
    return "Number"
