"""Padding of variable-length inputs inside a batch.

TensorFlow Serving pads each request's tensor to the largest of its batch, with the tensor's own
first element. The op BatchFunction cannot: it joins only what agrees in all but the first
dimension. So a row travels through it as one string of bytes and its shape, and is unpacked, and
padded, on the other side, where the whole batch is known.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import meta_graph_pb2


def is_variable(info: meta_graph_pb2.TensorInfo) -> bool:
    """Whether an input's rows may differ in shape, and are numbers of known rank."""
    dims = info.tensor_shape.dim
    dtype = tf.dtypes.as_dtype(info.dtype)
    return (
        not info.tensor_shape.unknown_rank
        and len(dims) > 1
        and any(dim.size < 0 for dim in dims[1:])
        and (dtype.is_floating or dtype.is_integer or dtype.is_bool or dtype.is_complex)
    )


def pack(array: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """An array of shape (n, …) as n strings and n row shapes.

    Each string starts with the first element of the whole array: what it is padded with.
    """
    filler = array.flat[:1].tobytes() if array.size else bytes(array.itemsize)
    rows = np.empty(len(array), dtype=object)
    for index, row in enumerate(array):
        rows[index] = filler + row.tobytes()
    shapes = np.tile(np.asarray(array.shape[1:], np.int64), (len(array), 1))
    return rows, shapes


def unpack(rows: np.ndarray, shapes: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Undo ``pack`` for a whole batch, padded to its largest row.

    Args:
        rows, shapes: of shape (N,) and (N, rank - 1).
    """
    batch = np.empty((len(rows), *shapes.max(axis=0)), dtype)
    for row, shape, target in zip(rows, shapes.tolist(), batch):
        values = np.frombuffer(row, dtype)
        target[...] = values[0]
        target[tuple(map(slice, shape))] = values[1:].reshape(shape)
    return batch
