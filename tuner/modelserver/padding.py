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
        and (dtype.is_floating or dtype.is_integer or dtype.is_bool)
        and dtype not in (tf.uint32, tf.uint64)  # TensorFlow cannot decode them from bytes
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


def unpack(
    rows: tf.Tensor, shapes: tf.Tensor, dtype: tf.DType, static: tf.TensorShape
) -> tf.Tensor:
    """Graph operations that undo ``pack`` for a whole batch, padded to its largest row.

    Args:
        rows, shapes: of shape (N,) and (N, rank - 1).
        static: what the signature says of the shape, batch dimension first.
    """
    raw_type = tf.uint8 if dtype == tf.bool else dtype
    lengths = tf.reduce_prod(shapes, axis=1) + 1
    longest = tf.cast(tf.reduce_max(lengths) * raw_type.size, tf.int32)
    flat = tf.raw_ops.DecodePaddedRaw(input_bytes=rows, fixed_length=longest, out_type=raw_type)
    largest = tf.reduce_max(shapes, axis=0)
    axes = [tf.range(largest[axis]) for axis in range(static.rank - 1)]
    cells = tf.reshape(tf.stack(tf.meshgrid(*axes, indexing="ij"), -1), [-1, static.rank - 1])
    inside = tf.reduce_all(cells[None] < shapes[:, None], axis=-1)
    strides = tf.math.cumprod(shapes, axis=1, exclusive=True, reverse=True)
    position = tf.reduce_sum(cells[None] * strides[:, None], axis=-1)
    # Position 0 of a packed row is the padding value.
    picked = tf.gather(flat, tf.where(inside, position + 1, 0), batch_dims=1)
    count = tf.cast(tf.shape(rows)[:1], tf.int64)
    padded = tf.cast(tf.reshape(picked, tf.concat([count, largest], axis=0)), dtype)
    return tf.ensure_shape(padded, static)
