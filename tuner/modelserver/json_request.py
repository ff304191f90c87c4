"""Requests of the REST API: by rows, by columns, and the examples of classify and regress."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from tensorflow.core.example import example_pb2
from tensorflow_serving.apis import input_pb2

from tuner.modelserver import json_text
from tuner.modelserver.json_quote import show
from tuner.modelserver.json_tensor import (
    Kind,
    Kinds,
    fault,
    is_base64,
    shape_by_first,
    to_array,
    to_bytes,
    type_name,
)
from tuner.modelserver.status import ServingError, invalid_argument


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
    except ServingError:
        error = _fault_of_rows(rows, key, kind)
        if error is None:
            raise
        raise error from None


def _fault_of_rows(rows: list[Any], key: str, kind: Kind) -> ServingError | None:
    shape = None
    for index, row in enumerate(rows):
        if not key and _is_named(row):
            return invalid_argument(
                f"Expecting value/list but got object at item {index} of input list"
            )
        found = shape_by_first(row)
        shape = found if shape is None else shape
        error = _mismatch(shape, found) or fault(row, kind)
        if error is not None:
            return invalid_argument(
                f"Failed to process element: {index}{key} of 'instances' list. Error: "
                f"{error.code.name}: {error.message}"
            )
    return None


def _mismatch(shape: list[int], found: list[int]) -> ServingError | None:
    if found == shape:
        return None
    wanted, sent = int(np.prod(shape)), int(np.prod(found))
    if wanted != sent:
        return invalid_argument(f"Expecting tensor size: {wanted} but got: {sent}")
    return invalid_argument(f"Expecting shape {_shape(shape)} but got: {_shape(found)}")


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
        raise invalid_argument(f"Example must be JSON object but got JSON {type_name(item)}")
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
    elif is_base64(value):
        kind, item = "bytes_list", to_bytes(value)
    elif isinstance(value, (bool, int)):
        kind, item = "int64_list", int(value)
    elif isinstance(value, float):
        kind, item = "float_list", value
    else:
        raise invalid_argument(
            f"Feature: {name} has element with unexpected JSON type: {type_name(value)}"
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


def _is_named(value: Any) -> bool:
    return isinstance(value, dict) and not is_base64(value)


def _shape(shape: Sequence[int]) -> str:
    return f"[{','.join(map(str, shape))}]"
