"""Joining the inputs of a batch's requests, and dividing its outputs among them again.

The rules, and the words, of TensorFlow Serving's batching_session.cc and batching_util.cc.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import numpy as np

from tuner.modelserver.batching import BatchingOptions
from tuner.modelserver.status import Code, ServingError, invalid_argument

_LARGEST_RANK = 6
"""Of a tensor that TensorFlow Serving pads."""


def rows_of(arrays: Sequence[np.ndarray]) -> int:
    """The rows of one request.

    Raises:
        ServingError: INVALID_ARGUMENT where the inputs have no rows, or not equally many.
    """
    rows = None
    for array in arrays:
        if not array.ndim:
            raise invalid_argument(
                "Batching Run() input tensors must have at least one dimension"
            )
        if rows is not None and len(array) != rows:
            raise invalid_argument(
                "Batching Run() input tensors must have equal 0th-dimension size"
            )
        rows = len(array)
    if rows is None:
        raise invalid_argument("Batching Run() must have at least one input tensor")
    return rows


def joined(
    names: Sequence[str], requests: Sequence[Sequence[np.ndarray]], options: BatchingOptions
) -> list[np.ndarray]:
    """The inputs of a batch: all requests' rows, then copies of the first up to an allowed size.

    Args:
        names: of the inputs' tensors.
        requests: for each request one array an input, shape (its rows, ...).

    Raises:
        ServingError: rows that do not fit together.
    """
    rows = sum(len(arrays[0]) for arrays in requests)
    missing = allowed_size(rows, options.allowed_batch_sizes) - rows
    if len(requests) == 1 and not missing:
        return list(requests[0])
    batch = []
    for index, name in enumerate(names):
        parts = [arrays[index] for arrays in requests]
        if options.pad_variable_length_inputs:
            parts = list(_padded(parts))
        shape = parts[0].shape[1:]
        if any(part.shape[1:] != shape for part in parts):
            raise ServingError(
                Code.FAILED_PRECONDITION,
                f"Tensors with name '{name}' from different tasks have different shapes and "
                "padding is turned off. Set pad_variable_length_inputs to true, or ensure that all "
                "tensors with the same name have equal dimensions starting with the first dim.",
            )
        if missing:
            parts += [parts[0][:1]] * missing
        batch.append(np.concatenate(parts))
    return batch


def allowed_size(rows: int, sizes: Sequence[int]) -> int:
    """The first of the allowed sizes, in their order, that holds ``rows``; else ``rows``."""
    return next((size for size in sizes if size >= rows), rows)


def _padded(parts: list[np.ndarray]) -> Iterator[np.ndarray]:
    """Each as large as the largest in every dimension but the first."""
    ranks = {part.ndim for part in parts}
    if len(ranks) > 1:
        raise invalid_argument(
            "Tensors with the same name from different tasks must have equally many dimensions"
        )
    largest = np.max([part.shape[1:] for part in parts], axis=0)
    for part in parts:
        if part.shape[1:] == tuple(largest):
            yield part
            continue
        if part.ndim > _LARGEST_RANK:
            raise invalid_argument("Only tensors with rank from 1 to 6 can be padded.")
        if not part.size:
            raise invalid_argument("Got empty tensor in batch of non-empty tensors.")
        whole = np.full((len(part), *largest), part.flat[0], part.dtype)
        whole[tuple(map(slice, part.shape))] = part
        yield whole


def divided(
    outputs: Sequence[np.ndarray], rows: Sequence[int], ran: int
) -> list[list[np.ndarray]]:
    """The outputs of each request of a batch.

    Args:
        outputs: of the batch, first dimension the rows that ran.
        rows: of each request, in order; what lies beyond their sum was padding.
        ran: rows that ran.

    Raises:
        ServingError: FAILED_PRECONDITION, an output that does not have the batch's rows.
    """
    for array in outputs:
        if not isinstance(array, np.ndarray) or not array.ndim:
            raise ServingError(Code.FAILED_PRECONDITION, "Batched output tensor has 0 dimensions")
        if len(array) != ran:
            raise ServingError(
                Code.FAILED_PRECONDITION,
                "Batched output tensor's 0th dimension does not equal the sum of the 0th "
                "dimension sizes of the input tensors",
            )
    if list(rows) == [ran]:
        return [list(outputs)]
    edges = [0, *itertools.accumulate(rows)]
    return [[array[start:end] for array in outputs] for start, end in itertools.pairwise(edges)]
