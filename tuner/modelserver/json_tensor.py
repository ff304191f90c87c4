"""JSON and tensors, as TensorFlow Serving's REST API writes and reads them."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import chain
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
import orjson
import tensorflow as tf
from tensorflow.core.example import example_pb2
from tensorflow.core.protobuf import meta_graph_pb2
from tensorflow_serving.apis import input_pb2

from tuner.modelserver import json_text
from tuner.modelserver.json_text import show
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


def parse(body: bytes | bytearray) -> dict[str, Any]:
    """The JSON object in a request's body; NaN and Infinity are numbers."""
    document = json_text.loads(body)
    if not isinstance(document, dict):
        raise invalid_argument(f"JSON Value: {show(document)} Is not object")
    name = document.get("signature_name", "")
    if not isinstance(name, str):
        raise invalid_argument(
            f"JSON Value: {show(document)} not formatted correctly. "
            "'signature_name' key must be a string value."
        )
    return document


def predict_inputs(
    document: Mapping[str, Any], kinds: Kinds, booleans: bool = True
) -> tuple[dict[str, np.ndarray], bool]:
    """The inputs of a predict request, and whether they came by row (``instances``).

    Args:
        booleans: whether ``true`` or ``false`` may stand in the document; where they cannot, they
            need not be told from numbers.

    Raises:
        ServingError: INVALID_ARGUMENT in TensorFlow Serving's words.
    """
    if "instances" in document:
        if "inputs" in document:
            raise invalid_argument(
                f"JSON Value: {show(document)} Not formatted correctly expecting only one of "
                "'inputs' or 'instances' keys to exist "
            )
        return _from_rows(document, kinds, booleans), True
    if "inputs" in document:
        return _from_columns(document["inputs"], kinds, booleans), False
    raise invalid_argument("Missing 'inputs' or 'instances' key")


def _from_rows(
    document: Mapping[str, Any], kinds: Kinds, booleans: bool
) -> dict[str, np.ndarray]:
    rows = document["instances"]
    if not isinstance(rows, list):
        raise invalid_argument(
            f"JSON Value: {show(document)} Expecting 'instances' to be an list/array"
        )
    if not rows:
        raise invalid_argument(f"JSON Value: {show(document)} No values in 'instances' array")
    if not _is_named(rows[0]):
        if len(kinds) > 1:
            raise invalid_argument(
                "instances is a plain list, but expecting list of objects as multiple input "
                "tensors required as per tensorinfo_map"
            )
        [(name, kind)] = kinds.items()
        return {name: _stacked(rows, "", kind, booleans)}
    for index, row in enumerate(rows):
        if not _is_named(row):
            raise invalid_argument(f"Expecting object but got list at item {index} of input list")
        if row.keys() != kinds.keys():
            raise _wrong_keys(index, row, kinds)
    return {
        name: _stacked([row[name] for row in rows], f" key: {name}", kind, booleans)
        for name, kind in kinds.items()
    }


def _wrong_keys(index: int, row: Mapping[str, Any], kinds: Kinds) -> ServingError:
    place = f"Failed to process element: {index}"
    for name in row:
        if name not in kinds:
            return invalid_argument(
                f"{place} key: {name} of 'instances' list. Error: INVALID_ARGUMENT: JSON object: "
                f"does not have named input: {name}"
            )
    return invalid_argument(
        f"{place} of 'instances' list. JSON object: {show(row)} keys must be equal to: "
        f"{','.join(kinds)}"
    )


def _stacked(rows: list[Any], key: str, kind: Kind, booleans: bool) -> np.ndarray:
    """One tensor of all rows; what is wrong is said of the row that is at fault."""
    try:
        return to_array(rows, kind, booleans)
    except ServingError as first:
        shape = None
        for index, row in enumerate(rows):
            if not key and _is_named(row):
                return _fail(f"Expecting value/list but got object at item {index} of input list")
            found = _shape_by_first(row)
            shape = found if shape is None else shape
            error = _mismatch(shape, found) or _fault(row, kind)
            if error is not None:
                return _fail(
                    f"Failed to process element: {index}{key} of 'instances' list. Error: "
                    f"{error.code.name}: {error.message}"
                )
        raise first


def _mismatch(shape: list[int], found: list[int]) -> ServingError | None:
    if found == shape:
        return None
    wanted, sent = int(np.prod(shape)), int(np.prod(found))
    if wanted != sent:
        return invalid_argument(f"Expecting tensor size: {wanted} but got: {sent}")
    return invalid_argument(f"Expecting shape {_shape(shape)} but got: {_shape(found)}")


def _fail(message: str) -> Any:
    raise invalid_argument(message)


def _from_columns(value: Any, kinds: Kinds, booleans: bool) -> dict[str, np.ndarray]:
    if len(kinds) > 1 and not _is_named(value):
        raise invalid_argument(
            "inputs is a plain value/list, but expecting an object as multiple input tensors "
            "required as per tensorinfo_map"
        )
    if not _is_named(value):
        [(name, kind)] = kinds.items()
        return {name: to_array(value, kind, booleans)}
    for name in kinds:
        if name not in value:
            raise invalid_argument(f"Missing named input: {name} in 'inputs' object.")
    return {name: to_array(value[name], kind, booleans) for name, kind in kinds.items()}


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
    error = _fault(value, kind)
    if error is not None:
        raise error
    try:  # integers on both sides of what NumPy has a common type for, or nothing of any type
        return np.array(value, kind.dtype)
    except (ValueError, OverflowError, TypeError) as failure:
        raise invalid_argument(f"JSON Value: not a tensor: {failure}") from None


def _dense(value: Any) -> np.ndarray:
    """Nested lists as an array of whatever type; ``ValueError`` where they are ragged."""
    shape = _shape_by_first(value)
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


def _shape_by_first(value: Any) -> list[int]:
    """The shape that the first item of each level promises."""
    shape: list[int] = []
    while isinstance(value, list):
        shape.append(len(value))
        value = value[0] if value else None
    return shape


def _fault(value: Any, kind: Kind) -> ServingError | None:
    """What TensorFlow Serving finds wrong first, if anything."""
    shape = _shape_by_first(value)
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
                _to_bytes(item)
            except ServingError as error:
                return error
        elif not _fits(item, kind):
            return invalid_argument(
                f"JSON Value: {show(item)} Type: {_type_name(item)} is not of expected type: "
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
    shape = _shape_by_first(value)
    items = [value]
    for size in shape:
        if not all(isinstance(item, list) and len(item) == size for item in items):
            break
        items = list(chain.from_iterable(items))
    else:
        if not any(isinstance(item, list) for item in items):
            array = np.empty(len(items), dtype=object)
            array[:] = [_to_bytes(item) for item in items]
            return array.reshape(shape)
    error = _fault(value, kind)
    assert error is not None
    raise error


def _to_bytes(item: Any) -> bytes:
    if isinstance(item, str):
        return item.encode(errors="surrogateescape")
    if not isinstance(item, dict):
        raise invalid_argument(
            f"JSON Value: {show(item)} Type: {_type_name(item)} is not of expected type: string"
        )
    if not _is_base64(item):
        raise invalid_argument(f"JSON Value: {show(item)} not formatted correctly for base64 data")
    text = "".join(item["b64"].split())
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise invalid_argument("Unable to base64 decode") from None


def predict_outputs(names: Sequence[str], arrays: Sequence[Any], by_row: bool) -> bytes:
    """The answer to a predict request in the format of the request.

    Raises:
        ServingError: INVALID_ARGUMENT where rows are asked for and an output has none, and for types
            that TensorFlow Serving writes to no JSON.
    """
    if by_row:
        _check_rows(names, arrays)
    values = [_plain(name, array) for name, array in zip(names, arrays)]
    if len(values) == 1:
        return _written({"predictions" if by_row else "outputs": values[0]})
    if by_row:
        return _written({"predictions": [dict(zip(names, row)) for row in zip(*values)]})
    return _written({"outputs": dict(zip(names, values))})


def _check_rows(names: Sequence[str], arrays: Sequence[Any]) -> None:
    expected = None
    for name, array in zip(names, arrays):
        if not getattr(array, "ndim", 0):
            raise invalid_argument(f"Tensor name: {name} has no shape information ")
        if expected not in (None, len(array)):
            raise invalid_argument(
                f"Tensor name: {name} has inconsistent batch size: {len(array)} expecting: "
                f"{expected}"
            )
        expected = len(array)


_NOT_TO_JSON = {np.dtype(np.float16): "half", np.dtype(ml_dtypes.bfloat16): "bfloat16"} | {
    np.dtype(dtype): np.dtype(dtype).name for dtype in (np.uint16, np.complex64, np.complex128)
}


def _plain(name: str, array: Any) -> Any:
    """What orjson can write: the array itself, or nested lists of text."""
    if not isinstance(array, bytes) and array.dtype.kind not in "OSU":
        if array.dtype in _NOT_TO_JSON:
            raise invalid_argument(
                f"Failed to write JSON value for tensor type: {_NOT_TO_JSON[array.dtype]}"
            )
        return np.asarray(array, order="C")
    as_bytes = name.endswith("_bytes")

    def walk(item: Any) -> Any:
        if isinstance(item, list):
            return [walk(part) for part in item]
        raw = item if isinstance(item, bytes) else str(item).encode()
        if as_bytes:
            return {"b64": base64.b64encode(raw).decode()}
        return raw.decode(errors="surrogateescape")

    return walk(array if isinstance(array, bytes) else array.tolist())


def _written(document: dict[str, Any]) -> bytes:
    """JSON, with NaN and Infinity bare and bytes that are no UTF-8 as they are."""
    try:
        text = orjson.dumps(document, default=_listed, option=orjson.OPT_SERIALIZE_NUMPY)
    except TypeError:  # such bytes
        return _dump(document)
    return _dump(document) if b"null" in text else text  # as orjson writes NaN


def examples_input(document: Mapping[str, Any]) -> input_pb2.Input:
    """The Input of a classify or regress request: ``examples`` and, if given, ``context``."""
    given = input_pb2.Input()
    if "examples" not in document:
        raise invalid_argument(
            f"JSON Value: {show(document)} When method is classify, key 'examples' is expected "
            "and was not found"
        )
    examples = document["examples"]
    if not isinstance(examples, list):
        raise invalid_argument(
            f"JSON Value: {show(document)} Expecting 'examples' value to be an list/array"
        )
    if not examples:
        raise invalid_argument(f"JSON Value: {show(document)} 'examples' value is an empty array")
    target = given.example_list
    if "context" in document:
        given.example_list_with_context.context.CopyFrom(_example(document["context"]))
        target = given.example_list_with_context
    target.examples.extend(_example(item) for item in examples)
    return given


def _example(item: Any) -> example_pb2.Example:
    if not isinstance(item, dict):
        raise invalid_argument(f"Example must be JSON object but got JSON {_type_name(item)}")
    example = example_pb2.Example()
    for name, content in item.items():
        feature = example.features.feature[name]
        for value in content if isinstance(content, list) else [content]:
            _add_to_feature(feature, name, value)
    return example


def _add_to_feature(feature: Any, name: str, value: Any) -> None:
    item: bytes | int | float
    if isinstance(value, str):
        kind, item = "bytes_list", value.encode(errors="surrogateescape")
    elif _is_base64(value):
        kind, item = "bytes_list", _to_bytes(value)
    elif isinstance(value, (bool, int)):
        kind, item = "int64_list", int(value)
    elif isinstance(value, float):
        kind, item = "float_list", value
    else:
        raise invalid_argument(
            f"Feature: {name} has element with unexpected JSON type: {_type_name(value)}"
        )
    if feature.WhichOneof("kind") not in (None, kind):
        expected = feature.WhichOneof("kind").removesuffix("_list")
        raise invalid_argument(
            f"Unexpected element type in feature: {name} expecting type: {expected}"
        )
    try:
        getattr(feature, kind).value.append(item)
    except (ValueError, OverflowError):
        raise invalid_argument(
            f"Feature: {name} has uint64_t element. Only int64_t is supported."
        ) from None


def error(message: str) -> bytes:
    """The answer that says what was wrong."""
    return _dump({"error": message})


def results(values: list[Any]) -> bytes:
    """The answer to a classify or regress request."""
    return _dump({"results": values})


def single(value: float) -> float:
    """A float32 as the double with its shortest decimal."""
    return float(str(np.float32(value)))


def _dump(value: Any) -> bytes:
    text = json.dumps(value, ensure_ascii=False, default=_listed)
    return text.encode(errors="surrogateescape")


def _listed(array: Any) -> Any:
    """Nested lists; of a float32 the double with its shortest decimal: 0.1, never 0.10000000149."""
    if array.dtype == np.float32:
        array = np.asarray(array).astype("U").astype(np.float64)
    return array.tolist()


def _is_base64(value: Any) -> bool:
    return isinstance(value, dict) and set(value) == {"b64"} and isinstance(value["b64"], str)


def _is_named(value: Any) -> bool:
    return isinstance(value, dict) and not _is_base64(value)


def _type_name(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "Null", True: "True", False: "False"}[value]
    for kind, name in ((dict, "Object"), (list, "Array"), (str, "String")):
        if isinstance(value, kind):
            return name
    return "Number"


def _shape(shape: Sequence[int]) -> str:
    return f"[{','.join(map(str, shape))}]"
