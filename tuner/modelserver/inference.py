"""Predict, Classify, Regress and MultiInference, whatever transport brings them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
from google.protobuf.message import DecodeError, Message
from tensorflow_serving.apis import (
    classification_pb2,
    inference_pb2,
    model_pb2,
    predict_pb2,
    regression_pb2,
)

from tuner.modelserver import examples
from tuner.modelserver.cache import ResponseCache
from tuner.modelserver.examples import CLASSIFY, REGRESS, Classified, Regressed
from tuner.modelserver.executor import DEFAULT_SIGNATURE, Servable, Signature
from tuner.modelserver.http2.request import Body
from tuner.modelserver.metrics import Metrics
from tuner.modelserver.repository import Repository
from tuner.modelserver.status import (
    Code,
    ServingError,
    as_serving_error,
    invalid_argument,
)
from tuner.modelserver.tensors import encode_predict_response, length_delimited, to_array
from tuner.modelserver.wire import Input, read_predict_request

PREDICT = "tensorflow/serving/predict"
_RUNTIME = "TF1"

M = TypeVar("M", bound=Message)
Answer = TypeVar("Answer")


class Inference:
    """Answers requests of given servables.

    Args:
        as_content: Predict answers in tensor_content rather than in typed fields.
        check_method_name: refuse signatures whose method name is not the API's.
        metrics: where run times are counted, if anywhere.
    """

    def __init__(
        self,
        as_content: bool = False,
        check_method_name: bool = False,
        metrics: Metrics | None = None,
    ) -> None:
        self._as_content, self._check_method = as_content, check_method_name
        self._metrics = metrics

    def predict(
        self,
        servable: Servable,
        request: predict_pb2.PredictRequest,
        inputs: Mapping[str, Input] | None = None,
    ) -> bytes:
        """A serialised PredictResponse; ``inputs`` where they are not in the message."""
        if inputs is None:
            inputs = {name: to_array(name, tensor) for name, tensor in request.inputs.items()}
        signature, chosen, outputs = self.run(
            servable,
            request.model_spec.signature_name,
            inputs,
            request.output_filter,
        )
        return encode_predict_response(
            servable.model_spec(signature.key), list(zip(chosen, outputs)), self._as_content
        )

    def run(
        self,
        servable: Servable,
        signature_name: str,
        inputs: Mapping[str, Input],
        output_filter: Sequence[str] = (),
    ) -> tuple[Signature, Sequence[str], list[np.ndarray]]:
        """Predict on arrays: the signature, the outputs' names, the outputs."""
        signature = servable.signature(signature_name)
        if self._check_method and signature.method_name not in (PREDICT, CLASSIFY, REGRESS):
            raise ServingError(
                Code.INTERNAL,
                "Expected prediction signature method_name to be one of "
                f"{{{PREDICT}, {CLASSIFY}, {REGRESS}}}. Was: {signature.method_name}",
            )
        chosen = tuple(output_filter)
        outputs = self._execute(servable, "Predict", signature, inputs, chosen)
        return signature, chosen or signature.output_names, outputs

    def classify(
        self,
        servable: Servable,
        request: classification_pb2.ClassificationRequest,
    ) -> Classified:
        """Labels and scores of each example."""
        signature = _signature(servable, request.model_spec.signature_name)
        examples.check_classification(signature.definition, self._check_method)
        rows = examples.serialised(request.input)
        outputs = self._run_examples(servable, "Classify", signature, rows)
        return Classified(signature.key, *examples.classes_and_scores(outputs, len(rows)))

    def regress(
        self,
        servable: Servable,
        request: regression_pb2.RegressionRequest,
    ) -> Regressed:
        """The value of each example."""
        signature = _signature(servable, request.model_spec.signature_name)
        examples.check_regression(signature.definition, self._check_method)
        rows = examples.serialised(request.input)
        outputs = self._run_examples(servable, "Regress", signature, rows)
        return Regressed(signature.key, examples.values(outputs["outputs"], len(rows)))

    def multi_inference(
        self,
        servable: Servable,
        request: inference_pb2.MultiInferenceRequest,
    ) -> bytes:
        """A serialised MultiInferenceResponse: its tasks in their order."""
        results: list[bytes] = []
        seen: set[str] = set()
        for task in request.tasks:
            if task.model_spec.name != servable.name:
                raise invalid_argument(
                    "All ModelSpecs in a MultiInferenceRequest must access the same model name."
                )
            key = task.model_spec.signature_name or DEFAULT_SIGNATURE
            if key in seen:
                raise invalid_argument(f"Duplicate evaluation of signature: {key}")
            seen.add(key)
            spec = length_delimited(1, _spec(servable, key))
            if task.method_name == CLASSIFY:
                classification = classification_pb2.ClassificationRequest(
                    model_spec=task.model_spec, input=request.input
                )
                classified = self.classify(servable, classification)
                results.append(spec + length_delimited(2, classified.serialised()))
            elif task.method_name == REGRESS:
                regression = regression_pb2.RegressionRequest(
                    model_spec=task.model_spec, input=request.input
                )
                regressed = self.regress(servable, regression)
                results.append(spec + length_delimited(3, regressed.serialised()))
            else:
                raise ServingError(
                    Code.UNIMPLEMENTED, f"Unsupported signature method_name: {task.method_name}"
                )
        return b"".join(length_delimited(1, result) for result in results)

    def _run_examples(
        self,
        servable: Servable,
        api: str,
        signature: Signature,
        rows: np.ndarray,
    ) -> dict[str, np.ndarray]:
        if self._metrics is not None:
            self._metrics.count_examples(servable.name, len(rows))
        outputs = self._execute(servable, api, signature, {"inputs": rows}, ())
        return dict(zip(signature.output_names, outputs))

    def _execute(
        self,
        servable: Servable,
        api: str,
        signature: Signature,
        inputs: Mapping[str, Input],
        outputs: tuple[str, ...],
    ) -> list[np.ndarray]:
        for value in inputs.values():
            if isinstance(value, ServingError):
                signature.check_names(inputs)
                raise value
        start = time.perf_counter()
        answer = signature.run(inputs, outputs)
        if self._metrics is not None:
            elapsed_us = (time.perf_counter() - start) * 1e6
            self._metrics.runtime_latency.add((servable.name, api, _RUNTIME), elapsed_us)
        return [item if isinstance(item, np.ndarray) else _scalar(item) for item in answer]


class Api:
    """The inference methods on serialised messages: finds the servable, counts, caches.

    Args:
        entrypoint: label of the metrics, GRPC or REST.
        cache: of Predict answers, if any.
    """

    def __init__(
        self,
        repository: Repository,
        inference: Inference,
        entrypoint: str = "GRPC",
        metrics: Metrics | None = None,
        cache: ResponseCache | None = None,
    ) -> None:
        self._repository, self._inference = repository, inference
        self._entrypoint, self._metrics, self._cache = entrypoint, metrics, cache

    def predict(self, body: Body) -> bytes:
        request, inputs = read_predict_request(body)
        _check_spec(request)
        if self._metrics is None and self._cache is None:
            servable = find(self._repository, request.model_spec)
            return self._inference.predict(servable, request, inputs)
        return self.counted(
            request.model_spec,
            "Predict",
            lambda servable: self._predict(servable, request, inputs, body),
        )

    def classify(self, body: Body) -> bytes:
        request = decode(classification_pb2.ClassificationRequest, body)
        _check_spec(request)

        def answer(servable: Servable) -> bytes:
            classified = self._inference.classify(servable, request)
            spec = length_delimited(2, _spec(servable, classified.signature_name))
            return length_delimited(1, classified.serialised()) + spec

        return self.counted(request.model_spec, "Classify", answer)

    def regress(self, body: Body) -> bytes:
        request = decode(regression_pb2.RegressionRequest, body)
        _check_spec(request)

        def answer(servable: Servable) -> bytes:
            regressed = self._inference.regress(servable, request)
            spec = length_delimited(2, _spec(servable, regressed.signature_name))
            return length_delimited(1, regressed.serialised()) + spec

        return self.counted(request.model_spec, "Regress", answer)

    def multi_inference(self, body: Body) -> bytes:
        request = decode(inference_pb2.MultiInferenceRequest, body)
        spec = request.tasks[0].model_spec if request.tasks else model_pb2.ModelSpec()
        return self.counted(
            spec, "MultiInference", lambda s: self._inference.multi_inference(s, request)
        )

    def counted(self, spec: Any, api: str, answer: Callable[[Servable], Answer]) -> Answer:
        """Answer for the servable of ``spec``, counting status and latency."""
        return self.observed(spec.name, api, lambda: answer(find(self._repository, spec)))

    def observed(self, name: str, api: str, work: Callable[[], Answer]) -> Answer:
        """``work()``, counted as a request for the model ``name``.

        Args:
            api: its name as TensorFlow Serving's counters have it: ``Predict`` over gRPC,
                ``predict`` over REST, and nothing where REST asks for a status or for metadata.
        """
        if self._metrics is None:
            return work()
        start = time.perf_counter()
        try:
            result = work()
        except Exception as error:
            status = as_serving_error(error).code.name
            self._metrics.request_count.add((name, status))
            raise
        elapsed_us = (time.perf_counter() - start) * 1e6
        self._metrics.request_count.add((name, Code.OK.name))
        self._metrics.request_latency.add((name, api, self._entrypoint), elapsed_us)
        return result

    def cached(
        self, servable: Servable, signature: str, body: Body, answer: Callable[[], bytes]
    ) -> bytes:
        """The kept answer to these bytes, or ``answer()``, kept from now on."""
        if self._cache is None:
            return answer()
        key = (servable.uid, servable.version, signature, self._entrypoint)
        body = bytes(body)
        kept = self._cache.get(key, body)
        if self._metrics is not None:
            counter = self._metrics.cache_misses if kept is None else self._metrics.cache_hits
            counter.add((servable.name,))
        if kept is None:
            kept = answer()
            self._cache.put(key, body, kept)
        return kept

    def _predict(
        self,
        servable: Servable,
        request: predict_pb2.PredictRequest,
        inputs: Mapping[str, Input],
        body: Body,
    ) -> bytes:
        signature = request.model_spec.signature_name or DEFAULT_SIGNATURE
        return self.cached(
            servable, signature, body, lambda: self._inference.predict(servable, request, inputs)
        )


def _scalar(item: Any) -> np.ndarray:
    """What the session gives for a tensor without dimensions: bytes, or a number of NumPy's."""
    return np.array(item, object if isinstance(item, bytes) else None)


def find(repository: Repository, spec: Any) -> Servable:
    """The servable of a ModelSpec.

    Raises:
        ServingError: INVALID_ARGUMENT, NOT_FOUND: it names none.
    """
    if not spec.name:
        raise invalid_argument("ModelSpec has no name specified.")
    choice = spec.WhichOneof("version_choice")
    version = spec.version.value if choice == "version" else None
    return repository.find(
        spec.name, version, spec.version_label if choice == "version_label" else None
    )


def _check_spec(request: Any) -> None:
    if not request.HasField("model_spec"):
        raise invalid_argument("Missing ModelSpec")


def decode(kind: type[M], body: Body) -> M:
    """A message from its bytes.

    Raises:
        ServingError: INTERNAL, as gRPC has it for bytes that are no such message.
    """
    try:
        return kind.FromString(bytes(body))
    except DecodeError as error:
        raise ServingError(Code.INTERNAL, f"Not a {kind.DESCRIPTOR.name}: {error}") from None


def _signature(servable: Servable, key: str) -> Signature:
    name = key or DEFAULT_SIGNATURE
    signature = servable.signatures.get(name)
    if signature is None:
        raise invalid_argument(f"No signature was found with the name: {name}")
    return signature


def _spec(servable: Servable, key: str) -> bytes:
    spec = model_pb2.ModelSpec(name=servable.name, signature_name=key)
    spec.version.value = servable.version
    return spec.SerializeToString()
