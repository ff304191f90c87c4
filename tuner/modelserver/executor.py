"""A loaded version of a model, and its signatures ready to run.

The executor is TensorFlow's DirectSession, the one TensorFlow Serving runs, for requests and for
batches of them alike.
"""

from __future__ import annotations

import itertools
import logging
import threading
import time
import weakref
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import config_pb2, meta_graph_pb2
from tensorflow_serving.apis import predict_pb2

from tuner.modelserver import deadline, padding
from tuner.modelserver.batch_stats import BatchStats
from tuner.modelserver.batching import BatchingOptions, read_options
from tuner.modelserver.flags import schedulable_cpus
from tuner.modelserver.graph_shape import Shape
from tuner.modelserver.metrics import Metrics
from tuner.modelserver.saved_model import INIT_SIGNATURE, Run, SavedModelSession
from tuner.modelserver.scheduler import BatchQueue, BatchScheduler, Request, Task
from tuner.modelserver.status import Code, ServingError, as_serving_error, invalid_argument

DEFAULT_SIGNATURE = "serving_default"
_LOG = logging.getLogger(__name__)
_UIDS = itertools.count()


@dataclass(frozen=True)
class ExecutionSettings:
    """How every version is run."""

    config: config_pb2.ConfigProto = field(default_factory=config_pb2.ConfigProto)
    tags: tuple[str, ...] = ("serve",)
    batching: BatchingOptions | None = None
    scheduler: BatchScheduler | None = None
    """Of all models' batches; where there is none, nothing is batched."""
    per_model_batching: bool = False
    metrics: Metrics | None = None
    """Where batches are counted; ``None`` spares the counting."""

    def batching_of(self, path: Path) -> BatchingOptions | None:
        """The options for a version: its own file's where allowed, threads always the global."""
        own = path / "batching_params.pbtxt"
        if self.batching is None or not self.per_model_batching:
            return self.batching
        if not own.is_file():
            return None
        options = read_options(own)
        return replace(
            options,
            num_batch_threads=self.batching.num_batch_threads,
            thread_pool_name=self.batching.thread_pool_name,
        )


class Signature:
    """One signature of a loaded version.

    ``run`` takes arrays by input name and gives the outputs in order of ``output_names``.
    """

    def __init__(
        self,
        key: str,
        definition: meta_graph_pb2.SignatureDef,
        session: SavedModelSession,
    ) -> None:
        self.key, self.definition = key, definition
        self.input_names = tuple(sorted(definition.inputs))
        self.output_names = tuple(sorted(definition.outputs))
        self.method_name: str = definition.method_name
        self._session = session
        self._shape = session.shapes.get(key, Shape.LOOPS)
        self._defaults = {
            name: tf.make_ndarray(tensor) for name, tensor in definition.defaults.items()
        }
        self._feeds = [definition.inputs[name].name for name in self.input_names]
        self._types = [
            tf.dtypes.as_dtype(definition.inputs[name].dtype) for name in self.input_names
        ]
        self._prepared: dict[tuple[str, ...], Run] = {}
        self._run_joined: Run | None = None
        self._lock = threading.Lock()
        self._scheduler: BatchScheduler | None = None
        self._queue: BatchQueue | None = None
        self._stats: BatchStats | None = None

    def batch(
        self,
        scheduler: BatchScheduler,
        options: BatchingOptions,
        stats: BatchStats | None,
        inter_op_threads: int,
    ) -> None:
        """Run through a queue of ``scheduler`` from now on; ``stats`` counts the batches.

        A batch runs in its own thread rather than in the inter-op threads where these could do no
        more and would not hold batches back: that spares two hops.
        """
        self._scheduler, self._stats = scheduler, stats
        chain = self._shape is Shape.CHAIN
        if chain and options.num_batch_threads <= inter_op_threads:
            self._run_joined = self._session.callable(
                self._feeds, self._fetches(()), self._shape, in_caller=True
            )
        run = weakref.WeakMethod(self._run_batch)  # the queue must not keep a version alive

        def run_batch(tasks: Sequence[Task]) -> None:
            found = run()
            assert found is not None  # its requests hold it
            found(tasks)

        self._queue = BatchQueue(options, run_batch)

    def run(
        self, inputs: Mapping[str, Any], outputs: Sequence[str] = ()
    ) -> list[np.ndarray]:
        """Run on ``inputs``; ``outputs`` picks and orders some, else all of ``output_names``.

        A choice of outputs passes the batching by, as in TensorFlow Serving. A run is cancelled
        at the deadline of the thread's call; that of a batch when it is over for all its requests.

        Raises:
            ServingError: INVALID_ARGUMENT for inputs or outputs that the signature lacks;
                DEADLINE_EXCEEDED while it ran, RESOURCE_EXHAUSTED while it waited for a batch.
            tensorflow.errors.OpError: what TensorFlow says of the run.
        """
        if len(inputs) != len(self._feeds):
            self.check_names(inputs)
            inputs = {**self._defaults, **inputs}
        try:
            fed = [inputs[name] for name in self.input_names]
        except KeyError:
            self.check_names(inputs)
            raise
        chosen, deadline_s = tuple(outputs), deadline.current_s()
        if self._queue is None or self._scheduler is None or chosen:
            return self._run(chosen)(*fed, deadline_s=deadline_s)
        for index, (array, dtype) in enumerate(zip(fed, self._types)):
            fits = array.dtype.kind in "OSU" if dtype == tf.string else array.dtype == dtype.as_numpy_dtype
            if not fits:
                raise invalid_argument(
                    f"Expects arg[{index}] to be {_name(dtype)} but "
                    f"{_name(tf.dtypes.as_dtype(array.dtype))} is provided"
                )
        request = Request(fed, padding.rows_of(fed), deadline_s)
        return _whole(self._scheduler.run(self._queue, request))

    def warm(self, inputs: Mapping[str, np.ndarray]) -> None:
        """Run past the batching: a load does not wait for a batch's time-out."""
        run = self._run_joined or self._run(())
        run.warm(*(inputs[name] for name in self.input_names))

    def _run_batch(self, tasks: Sequence[Task]) -> None:
        assert self._queue is not None
        now_s = time.monotonic()
        deadlines = [task.request.deadline_s for task in tasks]
        latest_s = None if None in deadlines else max(filter(None, deadlines))
        try:
            if latest_s is not None and latest_s <= now_s:
                raise ServingError(
                    Code.RESOURCE_EXHAUSTED,
                    "Run() timeout exceeded while waiting in batching queue",
                )
            rows = [task.rows for task in tasks]
            joined = padding.joined(
                self._feeds, [task.inputs for task in tasks], self._queue.options
            )
            if self._stats is not None:
                waits_s = [now_s - task.request.queued_s for task in tasks]
                self._stats.record(waits_s, rows, len(joined[0]))
            run = self._run_joined or self._run(())
            results = run(*joined, deadline_s=latest_s)
            for task, part in zip(tasks, padding.divided(results, rows, len(joined[0]))):
                task.outputs = part
        except Exception as error:  # noqa: BLE001 - whatever it is, the requests are told
            failure = as_serving_error(error)
            for task in tasks:
                task.error = ServingError(failure.code, failure.message)

    def _run(self, outputs: tuple[str, ...]) -> Run:
        return self._prepared.get(outputs) or self._prepare(outputs)

    def _prepare(self, outputs: tuple[str, ...]) -> Run:
        with self._lock:
            if outputs not in self._prepared:
                fetches = self._fetches(outputs)
                self._prepared[outputs] = self._session.callable(self._feeds, fetches, self._shape)
            return self._prepared[outputs]

    def _fetches(self, outputs: tuple[str, ...]) -> Sequence[str]:
        for name in outputs:
            if name not in self.definition.outputs:
                raise invalid_argument(
                    f"output tensor alias not found in signature: {name} Outputs expected to be "
                    f"in the set {{{','.join(self.output_names)}}}."
                )
            if outputs.count(name) > 1:
                raise invalid_argument(f"duplicate output tensor alias: {name}")
        return [self.definition.outputs[name].name for name in outputs or self.output_names]

    def check_names(self, inputs: Mapping[str, object]) -> None:
        """Whether ``inputs`` and the defaults are all that the signature takes, and no more.

        Raises:
            ServingError: INVALID_ARGUMENT, in TensorFlow Serving's words.
        """
        sent, wanted = sorted(inputs), list(self.input_names)
        if len(sent) > len(wanted) or (len(sent) < len(wanted) and not self._defaults):
            extra = sorted(set(sent) - set(wanted))
            missing = sorted(set(wanted) - set(sent))
            raise invalid_argument(
                f"input size does not match signature: {len(sent)}!={len(wanted)} "
                f"len({{{','.join(sent)}}}) != len({{{','.join(wanted)}}}). "
                f"Sent extra: {{{','.join(extra)}}}. Missing but required: {{{','.join(missing)}}}."
            )
        for name, feed in zip(self.input_names, self._feeds):
            if name not in inputs and name not in self._defaults:
                raise invalid_argument(
                    f"Signature input alias: {name}(feed name: {feed}) not found in request and no "
                    "default value provided. Inputs expected to be in the request "
                    f"{{{','.join(sent)}}}, or default input alias set: "
                    f"{','.join(sorted(self._defaults))}"
                )

    def example_inputs(self) -> dict[str, np.ndarray] | None:
        """Zeros that fit, one row; ``None`` where a rank is unknown or bytes are wanted."""
        inputs = {}
        for name, info in self.definition.inputs.items():
            dtype = tf.dtypes.as_dtype(info.dtype)
            if info.tensor_shape.unknown_rank or not (dtype.is_numpy_compatible and dtype.size):
                return None
            if dtype == tf.string:
                return None
            shape = [max(dim.size, 1) for dim in info.tensor_shape.dim]
            inputs[name] = np.zeros(shape, dtype.as_numpy_dtype)
        return inputs


class Servable:
    """One loaded version.

    Args:
        name: the model's name in requests.
        version: number of the version.
        path: its folder.

    Raises:
        ServingError, tensorflow.errors.OpError: the version cannot be loaded, and why.
    """

    def __init__(self, name: str, version: int, path: Path, settings: ExecutionSettings) -> None:
        self.name, self.version = name, version
        self.uid = next(_UIDS)
        self._session = SavedModelSession(path, settings.tags)
        self.signatures = {
            key: Signature(key, definition, self._session)
            for key, definition in sorted(self._session.signatures.items())
        }
        self.definitions = self._session.definitions
        self._specs = {key: self._spec(key) for key in self.signatures}
        self._session.start(settings.config)
        self._batch(settings, settings.batching_of(path))

    def signature(self, key: str) -> Signature:
        """The signature of that name; the empty name is ``serving_default``.

        Raises:
            ServingError: FAILED_PRECONDITION where there is none.
        """
        found = self.signatures.get(key or DEFAULT_SIGNATURE)
        if found is None:
            raise ServingError(
                Code.FAILED_PRECONDITION,
                f'Serving signature key "{key or DEFAULT_SIGNATURE}" not found.',
            )
        return found

    def model_spec(self, key: str) -> bytes:
        """The field model_spec of a PredictResponse, serialised, for a signature that exists."""
        return self._specs[key]

    def first_inference(self) -> None:
        """Run each signature on zeros, so that no request pays for what is built lazily."""
        for signature in self.signatures.values():
            if signature.key == INIT_SIGNATURE or not _is_plain(signature.definition):
                continue
            inputs = signature.example_inputs()
            if inputs is None:
                continue
            try:
                signature.warm(inputs)
            except tf.errors.OpError as error:
                _LOG.info(
                    "Signature %s of %s does not take zeros: %s", signature.key, self.name, error
                )

    def close(self) -> None:
        """End the session and free its memory. Calls that are running end with CANCELLED."""
        self._session.session.close()

    def _batch(self, settings: ExecutionSettings, options: BatchingOptions | None) -> None:
        if options is None or settings.scheduler is None:
            return
        options.check_queue()
        stats = None
        if settings.metrics is not None:
            stats = BatchStats(settings.metrics)
        inter_op_threads = settings.config.inter_op_parallelism_threads or schedulable_cpus()
        for signature in self.signatures.values():
            if _is_plain(signature.definition) and signature.key != INIT_SIGNATURE:
                signature.batch(settings.scheduler, options, stats, inter_op_threads)

    def _spec(self, key: str) -> bytes:
        response = predict_pb2.PredictResponse()
        response.model_spec.name = self.name
        response.model_spec.signature_name = key
        response.model_spec.version.value = self.version
        return response.SerializeToString()


def _whole(parts: Sequence[Task]) -> list[np.ndarray]:
    """The outputs of a request from those of its parts."""
    for part in parts:
        if part.error is not None:
            raise part.error
    if len(parts) == 1:
        return list(parts[0].outputs or ())
    return [np.concatenate(arrays) for arrays in zip(*(part.outputs or () for part in parts))]


def _name(dtype: tf.DType) -> str:
    """A type by TensorFlow's own name for it in its messages."""
    return {"float32": "float", "float64": "double", "float16": "half"}.get(dtype.name, dtype.name)


def _is_plain(definition: meta_graph_pb2.SignatureDef) -> bool:
    """Whether every input and output is one dense tensor."""
    return all(info.name for info in _infos(definition))


def _infos(definition: meta_graph_pb2.SignatureDef) -> Iterator[meta_graph_pb2.TensorInfo]:
    yield from definition.inputs.values()
    yield from definition.outputs.values()
