"""What is sent: rows of a requests file, serialised once before the stage.

A request's bytes are its tensors; the model's name comes in front of them when it is sent.
Protocol buffers allow that: the concatenation of two messages is their merge.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from tuner.errors import ModelError, UsageError
from tuner.load import messages
from tuner.rows import Rows, floats, read, type_name

read_requests = read
"""The rows of a requests file (``rows.read``)."""

MAX_PAYLOAD_BYTES = 512 * 2**20
"""Distinct requests beyond this much memory are left out; how many were used is recorded."""


@dataclass(frozen=True)
class Input:
    """One input of a signature as a server reports it."""

    dtype: str
    shape: tuple[int | None, ...] | None
    """Sizes; ``None`` for one that is not known, as a whole for an unknown rank."""
    has_default: bool = False
    """Whether a request may leave it out."""


def blocks(alike: np.ndarray, rows_per_request: int, rng: np.random.Generator) -> np.ndarray:
    """Row numbers of every distinct request: shape (requests, rows_per_request), int64.

    The rows in a seeded order, cut into requests; the last one is filled from the beginning,
    so every row is used. Rows of one request have one shape; of several shapes each comes as often
    as in the data.

    Args:
        alike: a number for each row, equal for rows of equal shapes (``Rows.alike``).
    """
    order = rng.permutation(len(alike))
    shapes = np.unique(alike)
    cut = []
    for shape in shapes:
        mine = order[alike[order] == shape]
        count = -(-len(mine) // rows_per_request)
        cut.append(np.resize(mine, count * rows_per_request).reshape(count, -1))
    return cut[0] if len(shapes) == 1 else rng.permutation(np.concatenate(cut))


def order(popularity: str, distinct: int, length: int, rng: np.random.Generator) -> np.ndarray:
    """Which distinct request each request is: shape (length,), int32.

    ``each_once`` goes round all of them; ``zipf:<s>`` draws rank r with probability
    proportional to r ** -s (G. K. Zipf, 1949), ranks in the requests' seeded order.
    """
    if popularity == "each_once":
        return np.resize(np.arange(distinct, dtype=np.int32), length)
    exponent = zipf_exponent(popularity)
    weights = np.arange(1, distinct + 1, dtype=float) ** -exponent
    return rng.choice(distinct, size=length, p=weights / weights.sum()).astype(np.int32)


def zipf_exponent(popularity: str) -> float:
    """The exponent of ``zipf:<s>``.

    Raises:
        UsageError: neither ``each_once`` nor ``zipf:<s>``.
    """
    match = re.fullmatch(r"zipf:(\d+(?:\.\d+)?)", popularity)
    if not match:
        raise UsageError(
            f"unknown popularity {popularity!r}; each_once, or zipf:S such as zipf:1.1"
        )
    return float(match[1])


def grpc_bodies(rows: Rows, row_blocks: np.ndarray) -> Iterator[bytes]:
    """A ``PredictRequest`` without model for each block of rows, tensors as raw bytes."""
    for block in row_blocks:
        request = messages.PredictRequest()
        for name, array in rows.take(block).items():
            fill_tensor(request.inputs[name], array)
        yield request.SerializeToString()


def rest_bodies(rows: Rows, row_blocks: np.ndarray, signature: str) -> Iterator[bytes]:
    """The JSON of a predict request for each block of rows, in the column format (``inputs``).

    What JSON has no number for is written as TensorFlow Serving reads it: NaN and Infinity.

    Raises:
        ModelError: complex numbers, for which its REST has no form.
    """
    for block in row_blocks:
        taken = rows.take(block)
        columns = {name: _json_values(name, array) for name, array in taken.items()}
        inputs = next(iter(columns.values())) if len(columns) == 1 else columns
        body = {"signature_name": signature, "inputs": inputs}
        numbers = (floats(array) for array in taken.values())
        if all(array.dtype.kind != "f" or np.isfinite(array).all() for array in numbers):
            yield orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY)
        else:
            yield json.dumps(body, default=_shortest, separators=(",", ":")).encode()


def _json_values(name: str, array: np.ndarray) -> Any:
    kind = array.dtype.kind
    if kind == "S" or (kind == "O" and type_name(array) == "string"):
        flat = array.ravel().tolist()
        encoded = np.empty(len(flat), dtype=object)
        encoded[:] = [{"b64": base64.b64encode(value).decode()} for value in flat]
        return encoded.reshape(array.shape).tolist()
    if kind == "c":
        raise ModelError(f"{name}: REST has no form for {array.dtype.name}; send it by gRPC")
    array = floats(array)
    if array.ndim == 0:  # which ascontiguousarray would give an axis
        return _shortest(array)
    if kind == "U" or array.dtype.name == "float16":
        return array.tolist()
    return np.ascontiguousarray(array)


def _shortest(array: np.ndarray) -> Any:
    """Numbers as lists, each float32 as the shortest decimal that gives it back."""
    if array.dtype == np.float32:
        array = array.astype(str).astype(np.float64)
    return array.tolist()


def grpc_model(name: str, signature: str) -> bytes:
    """The part of a ``PredictRequest`` that names model and signature."""
    request = messages.PredictRequest()
    request.model_spec.name = name
    request.model_spec.signature_name = signature
    return request.SerializeToString()


def grpc_metadata_request(name: str) -> bytes:
    """A ``GetModelMetadataRequest`` for a model's signatures."""
    request = messages.GetModelMetadataRequest(metadata_field=["signature_def"])
    request.model_spec.name = name
    return request.SerializeToString()


def fill_tensor(tensor: object, array: np.ndarray) -> None:
    """Write an array into a ``TensorProto``: row-major bytes, or one value a string."""
    for size in array.shape:
        tensor.tensor_shape.dim.add(size=size)  # type: ignore[attr-defined]
    kind = type_name(array)
    if kind == "string":
        tensor.dtype = messages.DATA_TYPES["string"]  # type: ignore[attr-defined]
        flat = array.ravel().tolist()
        values = [v.encode() if isinstance(v, str) else v for v in flat]
        tensor.string_val.extend(values)  # type: ignore[attr-defined]
        return
    tensor.dtype = messages.DATA_TYPES[kind]  # type: ignore[attr-defined]
    little = array.astype(array.dtype.newbyteorder("<"), copy=False)
    tensor.tensor_content = np.ascontiguousarray(little).tobytes()  # type: ignore[attr-defined]


@dataclass(frozen=True)
class Payload:
    """Serialised requests in one file, and where each begins."""

    path: Path
    lengths: np.ndarray
    """Bytes of each distinct request, in file order; shape (requests,), int64."""
    rows: np.ndarray
    """Row numbers of each distinct request; shape (requests, rows_per_request)."""


def write_payload(path: Path, bodies: Iterator[bytes], row_blocks: np.ndarray) -> Payload:
    """Write bodies one after another, up to ``MAX_PAYLOAD_BYTES``, at least one."""
    lengths: list[int] = []
    with open(path, "wb") as file:
        for body in bodies:
            file.write(body)
            lengths.append(len(body))
            if file.tell() + len(body) > MAX_PAYLOAD_BYTES:
                break
    return Payload(path, np.asarray(lengths, dtype=np.int64), row_blocks[: len(lengths)])
