"""What is sent: rows of an ``.npz`` file, serialised once before the stage.

A request's bytes are its tensors; the model's name comes in front of them when it is sent.
Protocol buffers allow that: the concatenation of two messages is their merge.
"""

from __future__ import annotations

import base64
import re
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from tuner.errors import ModelError, UsageError
from tuner.load import messages

MAX_PAYLOAD_BYTES = 512 * 2**20
"""Distinct requests beyond this much memory are left out; how many were used is recorded."""


@dataclass(frozen=True)
class Input:
    """One input of a signature as a server reports it: ``shape`` has -1 for unknown sizes."""

    dtype: str
    shape: tuple[int, ...] | None


def read_requests(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a requests file: input name -> array, rows along the first axis.

    Raises:
        ModelError: no such file, no ``.npz``, no rows, or arrays of different length.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except FileNotFoundError:
        raise ModelError(
            f"{path}: no such requests file; give an .npz with one array per input"
        ) from None
    except (OSError, ValueError, AttributeError, zipfile.BadZipFile) as error:
        raise ModelError(f"{path}: not a readable .npz of plain arrays: {error}") from None
    if not arrays:
        raise ModelError(f"{path}: holds no array; one per input of the signature is needed")
    lengths = {name: a.shape[0] if a.ndim else None for name, a in arrays.items()}
    if None in lengths.values() or len(set(lengths.values())) != 1:
        raise ModelError(
            f"{path}: arrays must have equally many rows along the first axis: {lengths}"
        )
    if 0 in lengths.values():
        raise ModelError(f"{path}: holds no rows")
    for name, array in arrays.items():
        if array.dtype.kind not in "SU" and array.dtype.name not in messages.DATA_TYPES:
            raise ModelError(f"{path}: {name}: type {array.dtype} cannot be sent to TF Serving")
    return arrays


def check_requests(
    path: Path, arrays: Mapping[str, np.ndarray], inputs: Mapping[str, Input], signature: str
) -> None:
    """Compare a requests file with the signature a server reports.

    Raises:
        ModelError: names, types or shapes differ; says what the signature wants.
    """
    if set(arrays) != set(inputs):
        raise ModelError(
            f"{path}: holds the arrays {sorted(arrays)}, but the signature {signature!r} "
            f"takes {sorted(inputs)}"
        )
    for name, wanted in inputs.items():
        array = arrays[name]
        dtype = "string" if array.dtype.kind in "SU" else array.dtype.name
        if dtype != wanted.dtype:
            raise ModelError(
                f"{path}: {name}: type {dtype}, but the signature {signature!r} takes {wanted.dtype}"
            )
        if wanted.shape is None:
            continue
        row = array.shape[1:]
        asked = wanted.shape[1:]
        if len(array.shape) != len(wanted.shape) or any(
            a != w for a, w in zip(row, asked, strict=True) if w >= 0
        ):
            raise ModelError(
                f"{path}: {name}: rows of shape {tuple(row)}, but the signature {signature!r} "
                f"takes {tuple(s if s >= 0 else None for s in asked)}"
            )


def blocks(rows: int, rows_per_request: int, rng: np.random.Generator) -> np.ndarray:
    """Row numbers of every distinct request: shape (requests, rows_per_request), int64.

    The rows in a seeded order, cut into requests; the last one is filled from the beginning,
    so every row is used.
    """
    count = -(-rows // rows_per_request)
    return np.resize(rng.permutation(rows), count * rows_per_request).reshape(count, -1)


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


def grpc_bodies(arrays: Mapping[str, np.ndarray], row_blocks: np.ndarray) -> Iterator[bytes]:
    """A ``PredictRequest`` without model for each block of rows, tensors as raw bytes."""
    for rows in row_blocks:
        request = messages.PredictRequest()
        for name, array in arrays.items():
            fill_tensor(request.inputs[name], array[rows])
        yield request.SerializeToString()


def rest_bodies(
    arrays: Mapping[str, np.ndarray], row_blocks: np.ndarray, signature: str
) -> Iterator[bytes]:
    """The JSON of a predict request for each block of rows, in the column format (``inputs``)."""
    for rows in row_blocks:
        columns = {name: _json_values(array[rows]) for name, array in arrays.items()}
        inputs = next(iter(columns.values())) if len(columns) == 1 else columns
        yield orjson.dumps(
            {"signature_name": signature, "inputs": inputs}, option=orjson.OPT_SERIALIZE_NUMPY
        )


def _json_values(array: np.ndarray) -> Any:
    if array.dtype.kind == "S":
        encoded = [{"b64": base64.b64encode(value).decode()} for value in array.ravel().tolist()]
        return np.asarray(encoded, dtype=object).reshape(array.shape).tolist()
    if array.dtype.kind == "U" or array.dtype.name == "float16":
        return array.tolist()
    return np.ascontiguousarray(array)


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
    if array.dtype.kind in "SU":
        tensor.dtype = messages.DATA_TYPES["string"]  # type: ignore[attr-defined]
        flat = array.ravel().tolist()
        values = [v.encode() if isinstance(v, str) else v for v in flat]
        tensor.string_val.extend(values)  # type: ignore[attr-defined]
        return
    tensor.dtype = messages.DATA_TYPES[array.dtype.name]  # type: ignore[attr-defined]
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
