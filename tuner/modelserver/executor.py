"""A loaded version of a model, and its signatures ready to run.

The executor is TensorFlow's DirectSession, the one TensorFlow Serving runs; batching is the
op BatchFunction, TensorFlow's C++ scheduler, inside the same graph.
"""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import config_pb2, meta_graph_pb2
from tensorflow_serving.apis import predict_pb2

from tuner.modelserver import padding
from tuner.modelserver.batch_stats import BatchStats
from tuner.modelserver.batching import BatchedCall, BatchingOptions, add_batched, read_options
from tuner.modelserver.metrics import Metrics
from tuner.modelserver.saved_model import Run, SavedModelSession
from tuner.modelserver.status import Code, ServingError, invalid_argument

DEFAULT_SIGNATURE = "serving_default"
_LOG = logging.getLogger(__name__)
_UIDS = itertools.count()


@dataclass(frozen=True)
class ExecutionSettings:
    """How every version is run."""

    config: config_pb2.ConfigProto = field(default_factory=config_pb2.ConfigProto)
    tags: tuple[str, ...] = ("serve",)
    batching: BatchingOptions | None = None
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
        batched: BatchedCall | None,
        stats: BatchStats | None = None,
    ) -> None:
        self.key, self.definition = key, definition
        self.input_names = tuple(sorted(definition.inputs))
        self.output_names = tuple(sorted(definition.outputs))
        self._session = session
        self._feeds = [definition.inputs[name].name for name in self.input_names]
        self._batched, self._stats = batched, stats
        self._prepared: dict[tuple[str, ...], Run] = {}
        self._lock = threading.Lock()

    def run(
        self, inputs: Mapping[str, np.ndarray], outputs: Sequence[str] = ()
    ) -> list[np.ndarray]:
        """Run on ``inputs``; ``outputs`` picks and orders some, else all of ``output_names``.

        A choice of outputs passes the batching by, as in TensorFlow Serving.

        Raises:
            ServingError: INVALID_ARGUMENT for inputs or outputs that the signature lacks.
            tensorflow.errors.OpError: what TensorFlow says of the run.
        """
        if len(inputs) != len(self._feeds):
            raise self._mismatch(inputs)
        try:
            fed = [inputs[name] for name in self.input_names]
        except KeyError:
            raise self._mismatch(inputs) from None
        chosen = tuple(outputs)
        run = self._prepared.get(chosen) or self._prepare(chosen)
        if self._batched is None or chosen:
            return run(*fed)
        return self._run_batched(run, fed)

    def _run_batched(self, run: Run, fed: list[np.ndarray]) -> list[np.ndarray]:
        assert self._batched is not None
        if True in self._batched.packed:
            fed = _packed(fed, self._batched.packed)
        if self._stats is None:
            return run(*fed)
        queued_at_s = time.time()
        *results, stats = run(*fed)
        self._stats.record(queued_at_s, stats)
        return results

    def _prepare(self, outputs: tuple[str, ...]) -> Run:
        with self._lock:
            if outputs not in self._prepared:
                feeds: Sequence[str]
                fetches: Sequence[str]
                if self._batched is not None and not outputs:
                    feeds, fetches = self._batched.feeds, self._batched.fetches
                else:
                    feeds, fetches = self._feeds, self._fetches(outputs)
                self._prepared[outputs] = self._session.callable(feeds, fetches)
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

    def _mismatch(self, inputs: Mapping[str, np.ndarray]) -> ServingError:
        sent, wanted = sorted(inputs), list(self.input_names)
        extra = sorted(set(sent) - set(wanted))
        missing = sorted(set(wanted) - set(sent))
        return invalid_argument(
            f"input size does not match signature: {len(sent)}!={len(wanted)} "
            f"len({{{','.join(sent)}}}) != len({{{','.join(wanted)}}}). "
            f"Sent extra: {{{','.join(extra)}}}. Missing but required: {{{','.join(missing)}}}."
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
        self.batching = settings.batching_of(path)
        self.uid = next(_UIDS)
        self._stats = (
            BatchStats(settings.metrics, name, self.batching.thread_pool_name)
            if settings.metrics is not None and self.batching is not None
            else None
        )
        self._session = SavedModelSession(path, settings.tags)
        self.signatures = {
            key: Signature(
                key, definition, self._session, self._batched(index, definition), self._stats
            )
            for index, (key, definition) in enumerate(sorted(self._session.signatures.items()))
            if _is_plain(definition)
        }
        self.definitions = self._session.signatures
        self._specs = {key: self._spec(key) for key in self.signatures}
        self._session.start(settings.config)

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
        """Run each signature once on zeros, so that no request pays for what is built lazily."""
        for signature in self.signatures.values():
            inputs = signature.example_inputs()
            if inputs is None:
                continue
            try:
                signature.run(inputs)
            except tf.errors.OpError as error:
                _LOG.info(
                    "Signature %s of %s does not take zeros: %s", signature.key, self.name, error
                )

    def close(self) -> None:
        """End the session and free its memory. Calls that are running end with CANCELLED."""
        self._session.session.close()

    def _batched(self, index: int, definition: meta_graph_pb2.SignatureDef) -> BatchedCall | None:
        if self.batching is None or not definition.inputs:
            return None
        return add_batched(
            self._session.graph,
            [info for _, info in sorted(definition.inputs.items())],
            [info for _, info in sorted(definition.outputs.items())],
            self.batching,
            pool=self.batching.thread_pool_name,
            queue=f"v{self.version}_s{index}",
            with_stats=self._stats is not None,
        )

    def _spec(self, key: str) -> bytes:
        response = predict_pb2.PredictResponse()
        response.model_spec.name = self.name
        response.model_spec.signature_name = key
        response.model_spec.version.value = self.version
        return response.SerializeToString()


def _packed(fed: Sequence[np.ndarray], packed: Sequence[bool]) -> list[np.ndarray]:
    feeds: list[np.ndarray] = []
    for array, is_packed in zip(fed, packed):
        if is_packed and array.ndim:
            feeds.extend(padding.pack(array))
        else:
            feeds.append(array)
    return feeds


def _is_plain(definition: meta_graph_pb2.SignatureDef) -> bool:
    """Whether every input and output is one dense tensor."""
    return all(info.name for info in _infos(definition))


def _infos(definition: meta_graph_pb2.SignatureDef) -> Iterator[meta_graph_pb2.TensorInfo]:
    yield from definition.inputs.values()
    yield from definition.outputs.values()
