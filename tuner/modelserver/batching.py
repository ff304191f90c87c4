"""Batching parameters, and TensorFlow's own batch scheduler put in front of a signature."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tensorflow as tf
from tensorflow.core.framework import graph_pb2
from tensorflow.python.framework import graph_to_function_def

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
                raise invalid_argument(f"{name} must be at least {least}; was {getattr(self, name)}")
        sizes = self.allowed_batch_sizes
        if sizes and sizes[-1] != self.max_batch_size:
            raise invalid_argument(
                "Last entry in allowed_batch_sizes must match max_batch_size; last entry was "
                f"{sizes[-1]}; expected {self.max_batch_size}"
            )
        if any(a >= b for a, b in zip(sizes, sizes[1:])) or (sizes and sizes[0] < 1):
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


def add_batched(
    graph: tf.Graph,
    inputs: Sequence[tf.Tensor],
    outputs: Sequence[tf.Tensor],
    options: BatchingOptions,
    pool: str,
    queue: str,
) -> list[str]:
    """Put the op BatchFunction before the part of ``graph`` from ``inputs`` to ``outputs``.

    Args:
        pool: shared_name of the scheduler. Two servables in one session under one pool and queue
            get each other's answers, so the queue must be the caller's own.
        queue: the scheduler's queue for this version and signature.

    Returns:
        Names of tensors that give ``outputs`` of the batch's rows when ``inputs`` are fed.
    """
    body = f"batched_{queue}"
    operations = _between(inputs, outputs)
    with graph.as_default():
        function = graph_to_function_def.graph_to_function_def(
            graph,
            [operation for operation in graph.get_operations() if operation in operations],
            inputs,
            outputs,
            out_names=[f"output_{index}" for index in range(len(outputs))],
        )
        function.signature.name = body
        call = graph_pb2.GraphDef(versions=graph.graph_def_versions)
        call.library.function.append(function)
        fed = {f"input_{index}": tensor for index, tensor in enumerate(inputs)}
        for name, tensor in fed.items():
            placeholder = call.node.add(name=name, op="Placeholder")
            placeholder.attr["dtype"].type = tensor.dtype.as_datatype_enum
        node = call.node.add(name="batch", op="BatchFunction", input=list(fed))
        attr = node.attr
        attr["f"].func.name = body
        attr["Tin"].list.type.extend(tensor.dtype.as_datatype_enum for tensor in inputs)
        attr["Tout"].list.type.extend(tensor.dtype.as_datatype_enum for tensor in outputs)
        attr["Tcaptured"].list.SetInParent()
        attr["num_batch_threads"].i = options.num_batch_threads
        attr["max_batch_size"].i = options.max_batch_size
        attr["batch_timeout_micros"].i = options.batch_timeout_micros
        attr["max_enqueued_batches"].i = options.max_enqueued_batches
        attr["allowed_batch_sizes"].list.i.extend(options.op_batch_sizes())
        attr["enable_large_batch_splitting"].b = options.enable_large_batch_splitting
        attr["shared_name"].s = pool.encode()
        attr["batching_queue"].s = queue.encode()
        elements = [f"batch:{index}" for index in range(len(outputs))]
        results = tf.import_graph_def(
            call, name=f"batching/{queue}", input_map=fed, return_elements=elements
        )
    return [tensor.name for tensor in results]


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

