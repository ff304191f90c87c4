"""One batch scheduler for all models: TensorFlow's own, in a session beside the models' sessions.

TensorFlow Serving puts every version's and signature's queue into one SharedBatchScheduler, whose
threads serve the queues in turn and run each batch in the model's own DirectSession. The op
BatchFunction brings the same C++ scheduler: all queues are ops of one graph under one
``shared_name``, and the function of each hands the joined rows back to run where the model lives.
"""

from __future__ import annotations

import functools
import itertools
import re
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import graph_pb2
from tensorflow.core.protobuf import config_pb2
from tensorflow.python.framework import graph_to_function_def

from tuner.modelserver.batching import BatchingOptions

RunBatch = Callable[..., Sequence[np.ndarray]]
"""Joined inputs, first dimension the batch's rows, to outputs of as many rows each."""

_FAILURE = re.compile(r"failed batch (\d+);")
_FAILURES_KEPT = 1000


class BatchQueue:
    """A queue of the scheduler; call it with one request's arrays to wait for its rows' outputs.

    Raises:
        tensorflow.errors.OpError: UNAVAILABLE where the queue is full, INVALID_ARGUMENT where the
            request does not fit; else what running the batch raised.
    """

    def __init__(self, scheduler: BatchScheduler, run_batch: RunBatch) -> None:
        self.scheduler, self.run_batch = scheduler, run_batch
        self.body = tf.Graph()
        """Keeps what the op calls, which it knows by a token alone."""
        self.submit: Callable[..., list[np.ndarray]]

    def __call__(self, *arrays: np.ndarray) -> list[np.ndarray]:
        try:
            return self.submit(*arrays)
        except tf.errors.OpError as error:
            raise self.scheduler.cause(error) from None


class BatchScheduler:
    """``threads`` batch threads for all queues together.

    Args:
        config: the models' session configuration. The first session of a process sets the thread
            pools of all, so this one must ask for the same.
        threads: batches run at once.
    """

    def __init__(self, config: config_pb2.ConfigProto, threads: int) -> None:
        own = config_pb2.ConfigProto()
        own.CopyFrom(config)
        own.ClearField("graph_options")
        # Nothing here is worth optimising, and each queue would pay for it at its model's load.
        own.graph_options.rewrite_options.disable_meta_optimizer = True
        self._graph = tf.Graph()
        self._session = tf.compat.v1.Session(graph=self._graph, config=own)
        self._threads = threads
        self._slots = threading.Semaphore(threads)
        self._lock = threading.Lock()
        self._numbers = itertools.count()
        self._pools: dict[BatchingOptions, str] = {}
        self._queues: weakref.WeakValueDictionary[int, BatchQueue] = weakref.WeakValueDictionary()
        self._failures: OrderedDict[int, Exception] = OrderedDict()

    def add_queue(
        self,
        options: BatchingOptions,
        inputs: Sequence[tf.DType],
        outputs: Sequence[tf.DType],
        run_batch: RunBatch,
    ) -> BatchQueue:
        """A queue for tensors of these types; it ends with the last reference to it.

        The op knows the queue's limits by its scheduler alone, so versions that bring parameters of
        their own get threads of their own; then too only ``threads`` batches run at once.
        """
        queue = BatchQueue(self, run_batch)
        options = replace(options, num_batch_threads=self._threads)
        with self._lock:
            number = next(self._numbers)
            self._queues[number] = queue
            pool = self._pools.setdefault(options, f"{options.thread_pool_name}/{len(self._pools)}")
            call = self._call(queue.body, number, pool, options, inputs, outputs)
            with self._graph.as_default():
                tf.import_graph_def(call, name=f"queue_{number}")
            feeds = [f"queue_{number}/input_{index}:0" for index in range(len(inputs))]
            fetches = [f"queue_{number}/batch:{index}" for index in range(len(outputs))]
            prepared = config_pb2.CallableOptions(feed=feeds, fetch=fetches)
            # In the caller's thread: handing rows over is no work for the models' inter-op pool.
            prepared.run_options.inter_op_thread_pool = -1
            queue.submit = self._session._make_callable_from_options(prepared)
        return queue

    def cause(self, error: tf.errors.OpError) -> Exception:
        """What running the batch raised, where that is why a request failed; else ``error``."""
        failure = _FAILURE.search(error.message or "")
        found = self._failures.get(int(failure[1])) if failure else None
        return found or error

    def _run(self, number: int, *arrays: np.ndarray) -> Sequence[np.ndarray]:
        """A batch, in a thread of the scheduler."""
        with self._slots:
            try:
                return self._queues[number].run_batch(*arrays)
            except Exception as error:  # noqa: BLE001 - whatever it is, the requests are told
                # TensorFlow would turn it into UNKNOWN and a traceback: carry it past.
                failure = next(self._numbers)
                self._failures[failure] = error
                if len(self._failures) > _FAILURES_KEPT:
                    self._failures.popitem(last=False)
                raise RuntimeError(f"failed batch {failure}; {error}") from None

    def _call(
        self,
        body: tf.Graph,
        number: int,
        pool: str,
        options: BatchingOptions,
        inputs: Sequence[tf.DType],
        outputs: Sequence[tf.DType],
    ) -> graph_pb2.GraphDef:
        """A graph of placeholders ``input_0`` … and the op ``batch``; ``body`` is its function's."""
        with body.as_default():
            fed = [tf.compat.v1.placeholder(dtype) for dtype in inputs]
            results = tf.numpy_function(functools.partial(self._run, number), fed, list(outputs))
            operations = [op for op in body.get_operations() if op.type != "Placeholder"]
            function = graph_to_function_def.graph_to_function_def(
                body,
                operations,
                fed,
                results,
                out_names=[f"output_{index}" for index in range(len(outputs))],
            )
        function.signature.name = f"run_batch_{number}"
        call = graph_pb2.GraphDef(versions=self._graph.graph_def_versions)
        call.library.function.append(function)
        names = [f"input_{index}" for index in range(len(inputs))]
        for name, dtype in zip(names, inputs):
            placeholder = call.node.add(name=name, op="Placeholder")
            placeholder.attr["dtype"].type = dtype.as_datatype_enum
        attr = call.node.add(name="batch", op="BatchFunction", input=names).attr
        attr["f"].func.name = function.signature.name
        attr["Tin"].list.type.extend(dtype.as_datatype_enum for dtype in inputs)
        attr["Tout"].list.type.extend(dtype.as_datatype_enum for dtype in outputs)
        attr["Tcaptured"].list.SetInParent()
        attr["num_batch_threads"].i = options.num_batch_threads
        attr["max_batch_size"].i = options.max_batch_size
        attr["batch_timeout_micros"].i = options.batch_timeout_micros
        attr["max_enqueued_batches"].i = options.max_enqueued_batches
        attr["allowed_batch_sizes"].list.i.extend(options.op_batch_sizes())
        attr["enable_large_batch_splitting"].b = options.enable_large_batch_splitting
        attr["shared_name"].s = pool.encode()
        attr["batching_queue"].s = f"queue_{number}".encode()
        return call
