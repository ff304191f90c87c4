"""Answers of the REST API: predictions, results and errors as JSON."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from typing import Any

import ml_dtypes
import numpy as np
import orjson

from tuner.modelserver.http1.response import PIECE_BYTES
from tuner.modelserver.status import invalid_argument


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
        text = _written({"predictions" if by_row else "outputs": values[0]})
        numbers = isinstance(values[0], np.ndarray)
        if numbers and _SMALL < len(text) < PIECE_BYTES:
            return _spaced(text, by_row, values[0].ndim)
        return text
    if by_row:
        return _written({"predictions": [dict(zip(names, row)) for row in zip(*values)]})
    return _written({"outputs": dict(zip(names, values))})


def _spaced(text: bytes, by_row: bool, rank: int) -> bytes:
    """An answer of numbers with TensorFlow Serving's blanks: as long on the wire as its own.

    By row a blank behind each comma, by column a number a line. What is longer than 16 KiB goes out
    in pieces, and the second one late, so here length is latency; beyond that it is only length.
    """
    return text.replace(b", ", b",").replace(b",", b", " if by_row else b",\n" + b" " * (4 * rank + 4))


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


_SMALL = 1024
"""No answer of so many bytes grows beyond a piece."""
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
