"""Batching parameters, and TensorFlow's own batch scheduler put in front of a signature."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tensorflow as tf
from tensorflow.core.framework import graph_pb2
from tensorflow.core.protobuf import meta_graph_pb2
from tensorflow.python.framework import graph_to_function_def

from tuner.modelserver import padding
from tuner.modelserver.batch_stats import stats_of_batch
from tuner.modelserver.flags import schedulable_cpus
from tuner.modelserver.protos import BatchingParameters, read_text_proto
from tuner.modelserver.status import invalid_argument


@dataclass(frozen=True)
class BatchingOptions:
    """TensorFlow Serving's ``BatchingParameters`` with the defaults filled in."""

    max_batch_size: int = 1000
    batch_timeout_micros: int = 0
    max_enqueued_batches: int = 10
    num_batch_threads: int = 1
    thread_pool_name: str = "batch_threads"
    allowed_batch_sizes: tuple[int, ...] = ()
    pad_variable_length_inputs: bool = False
    enable_large_batch_splitting: bool = False
    max_execution_batch_size: int = 1000

    @classmethod
    def from_proto(cls, proto: Any) -> BatchingOptions:
        """Check TensorFlow Serving's rules and fill in its defaults.

        Raises:
            ServingError: INVALID_ARGUMENT that names the field and what would be right.
        """
        values: dict[str, Any] = {"num_batch_threads": schedulable_cpus()}
        for field, value in proto.ListFields():
            if field.name == "allowed_batch_sizes":
                values[field.name] = tuple(value)
            else:
                values[field.name] = value.value if field.message_type else value
        values.setdefault("max_execution_batch_size", values.get("max_batch_size", 1000))
        options = cls(**values)
        options._check()
        return options

    def _check(self) -> None:
        for name, least in (
            ("max_batch_size", 1),
            ("batch_timeout_micros", 0),
            ("max_enqueued_batches", 1),
            ("num_batch_threads", 1),
            ("max_execution_batch_size", 1),
        ):
            if getattr(self, name) < least:
                raise invalid_argument(
                    f"{name} must be at least {least}; was {getattr(self, name)}"
                )
        sizes = self.allowed_batch_sizes
        if sizes and sizes[-1] != self.max_batch_size:
            raise invalid_argument(
                "Last entry in allowed_batch_sizes must match max_batch_size; last entry was "
                f"{sizes[-1]}; expected {self.max_batch_size}"
            )
        if any(a >= b for a, b in itertools.pairwise(sizes)) or (sizes and sizes[0] < 1):
            raise invalid_argument(
                f"allowed_batch_sizes must be positive and increase; was {list(sizes)}"
            )
        if self.max_execution_batch_size > self.max_batch_size:
            raise invalid_argument(
                "max_execution_batch_size must be at most max_batch_size; was "
                f"{self.max_execution_batch_size} > {self.max_batch_size}"
            )

    def op_batch_sizes(self) -> tuple[int, ...]:
        """``allowed_batch_sizes`` as the op BatchFunction wants it.

        The op takes the last allowed size as the largest batch to execute when it splits, so a
        smaller max_execution_batch_size without allowed sizes becomes every size up to it.
        """
        largest = self.max_execution_batch_size
        if not self.enable_large_batch_splitting or largest == self.max_batch_size:
            return self.allowed_batch_sizes
        if not self.allowed_batch_sizes:
            return tuple(range(1, largest + 1))
        return (*(size for size in self.allowed_batch_sizes if size < largest), largest)


def read_options(path: str | Path | None) -> BatchingOptions:
    """The options in a text file, or the defaults of ``--enable_batching`` alone."""
    proto = BatchingParameters()
    if path:
        return BatchingOptions.from_proto(read_text_proto(path, proto))
    proto.thread_pool_name.value = "model_server_batch_threads"
    return BatchingOptions.from_proto(proto)


@dataclass(frozen=True)
class BatchedCall:
    """How to call a signature through the scheduler.

    ``packed`` says of each input whether it is fed as ``padding.pack`` gives it: two feeds.
    With ``has_stats`` the last fetch is ``batch_stats.stats_of_batch``.
    """

    feeds: tuple[str, ...]
    fetches: tuple[str, ...]
    packed: tuple[bool, ...]
    has_stats: bool


def add_batched(
    graph: tf.Graph,
    inputs: Sequence[meta_graph_pb2.TensorInfo],
    outputs: Sequence[meta_graph_pb2.TensorInfo],
    options: BatchingOptions,
    *,
    pool: str,
    queue: str,
    with_stats: bool,
) -> BatchedCall:
    """Put the op BatchFunction before the part of ``graph`` from ``inputs`` to ``outputs``.

    Args:
        pool: shared_name of the scheduler. Two servables in one session under one pool and queue
            get each other's answers, so the queue must be the caller's own.
        queue: the scheduler's queue for this version and signature.
        with_stats: have each row tell of its batch.
    """
    with graph.as_default(), tf.name_scope(f"batching_{queue}"):
        packed = tuple(
            options.pad_variable_length_inputs and padding.is_variable(info) for info in inputs
        )
        fed = [graph.get_tensor_by_name(info.name) for info in inputs]
        results = [graph.get_tensor_by_name(info.name) for info in outputs]
        if any(packed):
            fed, results = _with_packed(graph, fed, results, inputs, packed)
        if with_stats:
            results = [*results, stats_of_batch(fed[0])]
        answers = _batch(graph, fed, results, options, pool, queue)
    return BatchedCall(
        feeds=tuple(tensor.name for tensor in fed),
        fetches=tuple(tensor.name for tensor in answers),
        packed=packed,
        has_stats=with_stats,
    )


def _with_packed(
    graph: tf.Graph,
    fed: Sequence[tf.Tensor],
    results: Sequence[tf.Tensor],
    inputs: Sequence[meta_graph_pb2.TensorInfo],
    packed: Sequence[bool],
) -> tuple[list[tf.Tensor], list[tf.Tensor]]:
    """A copy of the model's part of the graph that takes packed inputs; variables are shared."""
    feeds: list[tf.Tensor] = []
    replaced: dict[str, tf.Tensor] = {}
    for tensor, info, is_packed in zip(fed, inputs, packed):
        if not is_packed:
            feeds.append(tensor)
            replaced[tensor.name] = tensor
            continue
        rows = tf.compat.v1.placeholder(tf.string, [None])
        shapes = tf.compat.v1.placeholder(tf.int64, [None, len(info.tensor_shape.dim) - 1])
        sizes = [dim.size if dim.size >= 0 else None for dim in info.tensor_shape.dim[1:]]
        static = tf.TensorShape([None, *sizes])
        feeds += [rows, shapes]
        replaced[tensor.name] = padding.unpack(rows, shapes, tensor.dtype, static)
    model = tf.compat.v1.graph_util.extract_sub_graph(
        graph.as_graph_def(), [tensor.op.name for tensor in results]
    )
    copies = tf.import_graph_def(
        model, name="", input_map=replaced, return_elements=[tensor.name for tensor in results]
    )
    return feeds, copies


def _batch(
    graph: tf.Graph,
    fed: Sequence[tf.Tensor],
    results: Sequence[tf.Tensor],
    options: BatchingOptions,
    pool: str,
    queue: str,
) -> list[tf.Tensor]:
    body = f"batched_{queue}"
    inside = _between(fed, results)
    function = graph_to_function_def.graph_to_function_def(
        graph,
        [operation for operation in graph.get_operations() if operation in inside],
        fed,
        results,
        out_names=[f"output_{index}" for index in range(len(results))],
    )
    function.signature.name = body
    call = graph_pb2.GraphDef(versions=graph.graph_def_versions)
    call.library.function.append(function)
    sources = {f"input_{index}": tensor for index, tensor in enumerate(fed)}
    for name, tensor in sources.items():
        placeholder = call.node.add(name=name, op="Placeholder")
        placeholder.attr["dtype"].type = tensor.dtype.as_datatype_enum
    attr = call.node.add(name="batch", op="BatchFunction", input=list(sources)).attr
    attr["f"].func.name = body
    attr["Tin"].list.type.extend(tensor.dtype.as_datatype_enum for tensor in fed)
    attr["Tout"].list.type.extend(tensor.dtype.as_datatype_enum for tensor in results)
    attr["Tcaptured"].list.SetInParent()
    attr["num_batch_threads"].i = options.num_batch_threads
    attr["max_batch_size"].i = options.max_batch_size
    attr["batch_timeout_micros"].i = options.batch_timeout_micros
    attr["max_enqueued_batches"].i = options.max_enqueued_batches
    attr["allowed_batch_sizes"].list.i.extend(options.op_batch_sizes())
    attr["enable_large_batch_splitting"].b = options.enable_large_batch_splitting
    attr["shared_name"].s = pool.encode()
    attr["batching_queue"].s = queue.encode()
    elements = [f"batch:{index}" for index in range(len(results))]
    return tf.import_graph_def(call, name="call", input_map=sources, return_elements=elements)


def _between(inputs: Sequence[tf.Tensor], outputs: Sequence[tf.Tensor]) -> set[tf.Operation]:
    """Every operation that ``outputs`` need, short of those that give ``inputs``."""
    fed = {tensor.op for tensor in inputs}
    found: set[tf.Operation] = set()
    todo = [tensor.op for tensor in outputs]
    while todo:
        operation = todo.pop()
        if operation in found or operation in fed:
            continue
        found.add(operation)
        todo.extend(tensor.op for tensor in operation.inputs)
        todo.extend(operation.control_inputs)
    return found
