"""JSON and tensors, as TensorFlow Serving's REST API writes and reads them."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import ml_dtypes
import numpy as np
import orjson
import tensorflow as tf
from tensorflow.core.example import example_pb2
from tensorflow.core.protobuf import meta_graph_pb2
from tensorflow_serving.apis import input_pb2

from tuner.modelserver.status import Code, ServingError, invalid_argument

Infos = Mapping[str, meta_graph_pb2.TensorInfo]


def parse(body: bytes) -> dict[str, Any]:
    """The JSON object in a request's body; NaN and Infinity are numbers."""
    if not body:
        raise invalid_argument("JSON Parse error: The document is empty")
    try:
        document = _loads(body)
    except (ValueError, RecursionError) as error:
        raise invalid_argument(f"JSON Parse error: {error}") from None
    if not isinstance(document, dict):
        raise invalid_argument(f"JSON Value: {_show(document)} Is not object")
    name = document.get("signature_name", "")
    if not isinstance(name, str):
        raise invalid_argument(
            f"JSON Value: {_show(document)} not formatted correctly. "
            "'signature_name' key must be a string value."
        )
    return document


def _loads(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:  # NaN, numbers of more than 64 bits, and what is no JSON at all
        return json.loads(body)


def predict_inputs(document: Mapping[str, Any], infos: Infos) -> tuple[dict[str, np.ndarray], bool]:
    """The inputs of a predict request, and whether they came by row (``instances``).

    Raises:
        ServingError: INVALID_ARGUMENT in TensorFlow Serving's words.
    """
    if "instances" in document and "inputs" in document:
        raise invalid_argument(
            f"JSON Value: {_show(document)} Not formatted correctly expecting only one of "
            "'inputs' or 'instances' keys to exist "
        )
    if "instances" in document:
        return _from_rows(document["instances"], infos), True
    if "inputs" in document:
        return _from_columns(document["inputs"], infos), False
    raise invalid_argument("Missing 'inputs' or 'instances' key")


def _from_rows(rows: Any, infos: Infos) -> dict[str, np.ndarray]:
    if not isinstance(rows, list):
        raise invalid_argument(
            f"JSON Value: {_show(rows)} Excepting 'instances' to be an list/array"
        )
    if not rows:
        raise invalid_argument("JSON Value: [] No values in 'instances' array")
    if not _is_named(rows[0]):
        if len(infos) > 1:
            raise invalid_argument(
                "instances is a plain list, but expecting list of objects as multiple input "
                "tensors required as per tensorinfo_map"
            )
        for index, row in enumerate(rows):
            if _is_named(row):
                raise invalid_argument(
                    f"Expecting value/list but got object at item {index} of input list"
                )
        name = next(iter(infos))
        return {name: _stacked(rows, name, infos[name], named=False)}
    for index, row in enumerate(rows):
        if not _is_named(row):
            raise invalid_argument(f"Expecting object but got list at item {index} of input list")
        if set(row) != set(infos):
            raise invalid_argument(
                f"Failed to process element: {index} of 'instances' list. JSON object: "
                f"{_show(row)} keys must be equal to: {','.join(sorted(infos))}"
            )
    return {
        name: _stacked([row[name] for row in rows], name, info, named=True)
        for name, info in infos.items()
    }


def _stacked(rows: list[Any], name: str, info: Any, named: bool) -> np.ndarray:
    try:
        return to_array(rows, info.dtype)
    except ServingError:
        shape = None
        for index, row in enumerate(rows):  # find the row at fault
            place = f"Failed to process element: {index}{f' key: {name}' if named else ''}"
            try:
                found = to_array(row, info.dtype).shape
            except ServingError as error:
                raise invalid_argument(
                    f"{place} of 'instances' list. Error: {error.code.name}: {error.message}"
                ) from None
            if shape is not None and found != shape:
                raise invalid_argument(
                    f"{place} of 'instances' list. Error: INVALID_ARGUMENT: Expecting shape "
                    f"{_shape(shape)} but got: {_shape(found)}"
                ) from None
            shape = found
        raise


def _from_columns(value: Any, infos: Infos) -> dict[str, np.ndarray]:
    if not _is_named(value):
        if len(infos) > 1:
            raise invalid_argument(
                "inputs is a plain value/list, but expecting an object as multiple input tensors "
                "required as per tensorinfo_map"
            )
        name = next(iter(infos))
        return {name: to_array(value, infos[name].dtype)}
    for name in infos:
        if name not in value:
            raise invalid_argument(f"Missing named input: {name} in 'inputs' object.")
    return {name: to_array(value[name], info.dtype) for name, info in infos.items()}


def to_array(value: Any, dtype_enum: int) -> np.ndarray:
    """A dense array of that type from nested lists.

    Raises:
        ServingError: INVALID_ARGUMENT for ragged lists and values of another type; UNIMPLEMENTED for
            types that TensorFlow Serving reads from no JSON.
    """
    dtype = tf.dtypes.as_dtype(dtype_enum)
    if dtype == tf.string:
        return _strings(value)
    if dtype in _NOT_FROM_JSON:
        name = "half" if dtype == tf.float16 else dtype.name
        for leaf in _leaves(value):
            raise ServingError(
                Code.UNIMPLEMENTED, f"Conversion of JSON Value: {_show(leaf)} to type: {name}"
            )
    try:
        array = np.array(value)
    except ValueError as error:
        raise invalid_argument(f"Encountered list at unexpected size: {error}") from None
    kinds = "iuf" if dtype.is_floating else "b" if dtype.is_bool else "iu"
    if array.dtype.kind not in kinds and array.size:
        wrong = _first_of_other_kind(value, kinds)
        raise invalid_argument(
            f"JSON Value: {_show(wrong)} Type: {_type_name(wrong)} is not of expected type: "
            f"{dtype.name}"
        )
    target = array.astype(dtype.as_numpy_dtype)
    lossy = (
        np.isfinite(array) & ~np.isfinite(target.astype(np.float64))
        if dtype.is_floating
        else target != array
    )
    if lossy.any():
        raise invalid_argument(
            f"Cannot convert JSON value: {array[lossy].flat[0]} to {dtype.name} without loss of "
            "precision."
        )
    return target


_NOT_FROM_JSON = (tf.float16, tf.bfloat16, tf.uint16, tf.complex64, tf.complex128)


def _leaves(value: Any) -> Iterator[Any]:
    """The values in nested lists that are no lists, in order; as deep as they may be."""
    levels = [iter((value,))]
    while levels:
        for item in levels[-1]:
            if isinstance(item, list):
                levels.append(iter(item))
                break
            yield item
        else:
            levels.pop()


def _strings(value: Any) -> np.ndarray:
    shape: list[int] = []
    probe = value
    while isinstance(probe, list):
        shape.append(len(probe))
        probe = probe[0] if probe else None
    flat: list[bytes] = []

    def walk(item: Any, level: int) -> None:
        if isinstance(item, list):
            if level >= len(shape) or len(item) != shape[level]:
                raise invalid_argument(
                    f"Encountered list at unexpected size: {len(item)} at level: {level}"
                )
            for part in item:
                walk(part, level + 1)
        elif level != len(shape):
            raise invalid_argument(
                f"JSON Value: {_show(item)} found at incorrect level: {level + 1} in the JSON DOM. "
                f"Expected at level: {len(shape)}"
            )
        elif isinstance(item, str):
            flat.append(item.encode())
        else:
            flat.append(_unbase64(item))

    walk(value, 0)
    array = np.empty(len(flat), dtype=object)
    array[:] = flat
    return array.reshape(shape)


def _unbase64(item: Any) -> bytes:
    if not _is_base64(item):
        if isinstance(item, dict):
            raise invalid_argument(
                f"JSON Value: {_show(item)} not formatted correctly for base64 data"
            )
        raise invalid_argument(
            f"JSON Value: {_show(item)} Type: {_type_name(item)} is not of expected type: string"
        )
    try:
        text = item["b64"]
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise invalid_argument("Unable to base64 decode") from None


def predict_outputs(names: Sequence[str], arrays: Sequence[np.ndarray], by_row: bool) -> bytes:
    """The answer to a predict request in the format of the request.

    Raises:
        ServingError: INVALID_ARGUMENT where rows are asked for and an output has none.
    """
    values = {name: _plain(name, array) for name, array in zip(names, arrays)}
    # JSON has no NaN and no Infinity; TensorFlow Serving writes them all the same.
    finite = all(array.dtype.kind not in "fV" or np.isfinite(array).all() for array in arrays)
    dump = _dump_arrays if finite else _dump
    if not by_row:
        only = next(iter(values.values()))
        return dump({"outputs": only if len(values) == 1 else values})
    sizes: set[int] = set()
    for name, array in zip(names, arrays):
        if array.ndim == 0:
            raise invalid_argument(f"Tensor name: {name} has no shape information ")
        sizes.add(len(array))
        if len(sizes) > 1:
            raise invalid_argument(
                f"Tensor name: {name} has inconsistent batch size: {len(array)} expecting: "
                f"{min(sizes - {len(array)})}"
            )
    if len(values) == 1:
        return dump({"predictions": next(iter(values.values()))})
    rows = [dict(zip(values, row)) for row in zip(*values.values())]
    return dump({"predictions": rows})


def _plain(name: str, array: np.ndarray) -> Any:
    """Nested lists, or the array itself where it can be written as it is."""
    if array.dtype in (np.float16, np.float32, ml_dtypes.bfloat16):
        # The shortest decimal of the narrow type, not the digits of its double: 0.1, never
        # 0.10000000149011612.
        return np.asarray(array, dtype=np.float32, order="C")
    if array.dtype != object and array.dtype.kind not in "SU":
        return np.asarray(array, order="C")
    as_bytes = name.endswith("_bytes")

    def walk(item: Any) -> Any:
        if isinstance(item, list):
            return [walk(part) for part in item]
        raw = item if isinstance(item, bytes) else str(item).encode()
        return {"b64": base64.b64encode(raw).decode()} if as_bytes else raw.decode(errors="replace")

    return walk(array.tolist())


def examples_input(document: Mapping[str, Any]) -> input_pb2.Input:
    """The Input of a classify or regress request: ``examples`` and, if given, ``context``."""
    given = input_pb2.Input()
    examples = document.get("examples")
    if examples is None:
        raise invalid_argument(
            f"JSON Value: {_show(document)} When method is classify, key 'examples' is expected "
            "and was not found"
        )
    if not isinstance(examples, list):
        raise invalid_argument(
            f"JSON Value: {_show(document)} Expecting 'examples' value to be an list/array"
        )
    if not examples:
        raise invalid_argument(f"JSON Value: {_show(document)} 'examples' value is an empty array")
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
        kind, item = "bytes_list", value.encode()
    elif _is_base64(value):
        kind, item = "bytes_list", _unbase64(value)
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
            f"Feature: {name} has uint64 element. Only int64 is supported."
        ) from None


def results(values: list[Any]) -> bytes:
    """The answer to a classify or regress request."""
    return _dump({"results": values})


def single(value: float) -> float:
    """A float32 as the double with its shortest decimal."""
    return float(str(np.float32(value)))


def _dump_arrays(value: Any) -> bytes:
    """An answer whose numbers are all finite, at a tenth of what ``_dump`` costs."""
    return orjson.dumps(value, default=_listed, option=orjson.OPT_SERIALIZE_NUMPY)


def _dump(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, default=_listed).encode()


def _listed(array: Any) -> Any:
    """Nested lists; of a float32 the double with its shortest decimal."""
    if array.dtype == np.float32:
        array = np.asarray(array).astype("U").astype(np.float64)
    return array.tolist()


def _is_base64(value: Any) -> bool:
    return isinstance(value, dict) and set(value) == {"b64"} and isinstance(value["b64"], str)


def _is_named(value: Any) -> bool:
    return isinstance(value, dict) and not _is_base64(value)


def _first_of_other_kind(value: Any, kinds: str) -> Any:
    wanted = {"iuf": (int, float), "iu": (int,), "b": (bool,)}[kinds]
    others = (
        item for item in _leaves(value)
        if not isinstance(item, wanted) or (isinstance(item, bool) and kinds != "b")
    )
    return next(others, value)


def _show(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 256 else text[:256] + "…"


def _type_name(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "Null", True: "True", False: "False"}[value]
    for kind, name in ((dict, "Object"), (list, "Array"), (str, "String")):
        if isinstance(value, kind):
            return name
    return "Number"


def _shape(shape: Sequence[int]) -> str:
    return f"[{','.join(map(str, shape))}]"
