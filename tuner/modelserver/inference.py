"""Predict, Classify, Regress and MultiInference, whatever transport brings them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
from google.protobuf.message import DecodeError, Message
from tensorflow_serving.apis import (
    classification_pb2,
    inference_pb2,
    input_pb2,
    predict_pb2,
    regression_pb2,
)

from tuner.modelserver.cache import ResponseCache
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
from tuner.modelserver.tensors import encode_predict_response, to_array
from tuner.modelserver.wire import read_predict_request

CLASSIFY = "tensorflow/serving/classify"
REGRESS = "tensorflow/serving/regress"
PREDICT = "tensorflow/serving/predict"
_RUNTIME = "TF1"

M = TypeVar("M", bound=Message)
Answer = TypeVar("Answer")


class Inference:
    """Answers requests of given servables.

    Args:
        as_content: Predict answers in tensor_content rather than in typed fields.
        check_method_name: refuse signatures whose method name is none of TensorFlow Serving's.
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
        inputs: dict[str, np.ndarray] | None = None,
    ) -> bytes:
        """A serialised PredictResponse; ``inputs`` where they are not in the message."""
        if inputs is None:
            inputs = {name: to_array(tensor) for name, tensor in request.inputs.items()}
        signature, chosen, outputs = self.run(
            servable, request.model_spec.signature_name, inputs, request.output_filter
        )
        return encode_predict_response(
            servable.model_spec(signature.key), list(zip(chosen, outputs)), self._as_content
        )

    def run(
        self,
        servable: Servable,
        signature_name: str,
        inputs: dict[str, np.ndarray],
        output_filter: Sequence[str] = (),
        *,
        deadline_s: float | None = None,
    ) -> tuple[Signature, Sequence[str], list[np.ndarray]]:
        """Predict on arrays: the signature, the outputs' names, the outputs."""
        signature = servable.signature(signature_name)
        method = signature.definition.method_name
        if self._check_method and method not in (PREDICT, CLASSIFY, REGRESS):
            raise ServingError(
                Code.INTERNAL,
                "Expected prediction signature method_name to be one of "
                f"{{{PREDICT}, {CLASSIFY}, {REGRESS}}}. Was: {method}",
            )
        chosen = tuple(output_filter)
        outputs = self._timed(servable, "Predict", lambda: signature.run(inputs, chosen))
        return signature, chosen or signature.output_names, outputs

    def classify(
        self,
        servable: Servable,
        request: classification_pb2.ClassificationRequest,
        *,
        deadline_s: float | None = None,
    ) -> classification_pb2.ClassificationResponse:
        signature = _signature(servable, request.model_spec.signature_name, CLASSIFY)
        response = classification_pb2.ClassificationResponse()
        _fill_spec(response.model_spec, servable, signature)
        examples = _examples(request.input)
        outputs = self._run_examples(servable, signature, examples, "Classify")
        classes, scores = outputs.get("classes"), outputs.get("scores")
        if classes is None and scores is None:
            raise ServingError(
                Code.FAILED_PRECONDITION,
                "Expected classification signature outputs to contain at least one of "
                f'"classes" or "scores". Signature was: {sorted(outputs)}',
            )
        for name, array in (("classes", classes), ("scores", scores)):
            if array is not None and array.ndim != 2:
                raise invalid_argument(
                    f"Expected Tensor shape: [batch_size num_classes] but got {name} of shape "
                    f"{list(array.shape)}"
                )
            if array is not None and len(array) != len(examples):
                raise invalid_argument(
                    f"Expected {name} output batch size of {len(examples)}. Got: {len(array)}"
                )
        if classes is not None and scores is not None and classes.shape != scores.shape:
            raise invalid_argument("Tensors class and score should match in dim_size(1)")
        for row in range(len(examples)):
            item = response.result.classifications.add()
            some = classes if classes is not None else scores
            assert some is not None
            for column in range(some.shape[1]):
                label = bytes(classes[row, column]).decode() if classes is not None else ""
                score = float(scores[row, column]) if scores is not None else 0.0
                item.classes.add(label=label, score=score)
        return response

    def regress(
        self,
        servable: Servable,
        request: regression_pb2.RegressionRequest,
        *,
        deadline_s: float | None = None,
    ) -> regression_pb2.RegressionResponse:
        signature = _signature(servable, request.model_spec.signature_name, REGRESS)
        response = regression_pb2.RegressionResponse()
        _fill_spec(response.model_spec, servable, signature)
        examples = _examples(request.input)
        outputs = self._run_examples(servable, signature, examples, "Regress").get("outputs")
        if outputs is None:
            raise ServingError(
                Code.FAILED_PRECONDITION, "No regression outputs found in SignatureDef"
            )
        if outputs.ndim not in (1, 2) or outputs.size != len(outputs):
            raise invalid_argument(
                "Expected output Tensor shape to be either [batch_size] or [batch_size, 1] but "
                f"got {list(outputs.shape)}"
            )
        if len(outputs) != len(examples):
            raise invalid_argument(
                "Input batch size did not match output batch size: "
                f"{len(examples)} vs. {len(outputs)}"
            )
        for value in outputs.ravel().tolist():
            response.result.regressions.add(value=value)
        return response

    def multi_inference(
        self, servable: Servable, request: inference_pb2.MultiInferenceRequest
    ) -> inference_pb2.MultiInferenceResponse:
        response = inference_pb2.MultiInferenceResponse()
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
            result = response.results.add()
            if task.method_name == CLASSIFY:
                classification = classification_pb2.ClassificationRequest(
                    model_spec=task.model_spec, input=request.input
                )
                answer: Any = self.classify(servable, classification)
                result.classification_result.CopyFrom(answer.result)
            elif task.method_name == REGRESS:
                regression = regression_pb2.RegressionRequest(
                    model_spec=task.model_spec, input=request.input
                )
                answer = self.regress(servable, regression)
                result.regression_result.CopyFrom(answer.result)
            else:
                raise ServingError(
                    Code.UNIMPLEMENTED, f"Unsupported signature method_name: {task.method_name}"
                )
            result.model_spec.CopyFrom(answer.model_spec)
        return response

    def _run_examples(
        self, servable: Servable, signature: Signature, examples: np.ndarray, api: str
    ) -> dict[str, np.ndarray]:
        if signature.input_names != ("inputs",):
            raise invalid_argument(
                f'Expected one input Tensor, "inputs"; found {list(signature.input_names)}'
            )
        outputs = self._timed(servable, api, lambda: signature.run({"inputs": examples}))
        return dict(zip(signature.output_names, outputs))

    def _timed(self, servable: Servable, api: str, run: Callable[[], Answer]) -> Answer:
        if self._metrics is None:
            return run()
        start = time.perf_counter()
        answer = run()
        elapsed_us = (time.perf_counter() - start) * 1e6
        self._metrics.runtime_latency.add((servable.name, api, _RUNTIME), elapsed_us)
        return answer


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
        answer = self.counted(
            request.model_spec, "Classify", lambda s: self._inference.classify(s, request)
        )
        return answer.SerializeToString()

    def regress(self, body: Body) -> bytes:
        request = decode(regression_pb2.RegressionRequest, body)
        answer = self.counted(
            request.model_spec, "Regress", lambda s: self._inference.regress(s, request)
        )
        return answer.SerializeToString()

    def multi_inference(self, body: Body) -> bytes:
        request = decode(inference_pb2.MultiInferenceRequest, body)
        if not request.tasks:
            raise invalid_argument("Inference request can not be empty")
        answer = self.counted(
            request.tasks[0].model_spec,
            "MultiInference",
            lambda s: self._inference.multi_inference(s, request),
        )
        return answer.SerializeToString()

    def counted(self, spec: Any, api: str, answer: Callable[[Servable], Answer]) -> Answer:
        """Answer for the servable of ``spec``, counting status and latency."""
        if self._metrics is None:
            return answer(find(self._repository, spec))
        start = time.perf_counter()
        try:
            result = answer(find(self._repository, spec))
        except Exception as error:
            status = as_serving_error(error).code.name
            self._metrics.request_count.add((spec.name, status))
            raise
        elapsed_us = (time.perf_counter() - start) * 1e6
        self._metrics.request_count.add((spec.name, Code.OK.name))
        self._metrics.request_latency.add((spec.name, api, self._entrypoint), elapsed_us)
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
        inputs: dict[str, np.ndarray],
        body: Body,
    ) -> bytes:
        signature = request.model_spec.signature_name or DEFAULT_SIGNATURE
        return self.cached(
            servable, signature, body, lambda: self._inference.predict(servable, request, inputs)
        )


def find(repository: Repository, spec: Any) -> Servable:
    """The servable of a ModelSpec."""
    version = spec.version.value if spec.HasField("version") else None
    return repository.find(spec.name, version, spec.version_label)


def decode(kind: type[M], body: Body) -> M:
    """A message from its bytes."""
    try:
        return kind.FromString(bytes(body))
    except DecodeError as error:
        raise invalid_argument(f"Not a {kind.DESCRIPTOR.name}: {error}") from None


def _signature(servable: Servable, key: str, method: str) -> Signature:
    name = key or DEFAULT_SIGNATURE
    signature = servable.signatures.get(name)
    if signature is None:
        raise invalid_argument(f"No signature was found with the name: {name}")
    if signature.definition.method_name != method:
        kind = "classification" if method == CLASSIFY else "regression"
        raise invalid_argument(
            f"Expected {kind} signature method_name to be {method}. "
            f"Was: {signature.definition.method_name}"
        )
    return signature


def _examples(given: input_pb2.Input) -> np.ndarray:
    """Serialised tf.Examples, shape (n,); a context is merged into each by joining the bytes."""
    kind = given.WhichOneof("kind")
    examples = getattr(given, kind).examples if kind else ()
    if not examples:
        raise invalid_argument("Input is empty.")
    context = b""
    if kind == "example_list_with_context":
        context = given.example_list_with_context.context.SerializeToString()
    array = np.empty(len(examples), dtype=object)
    array[:] = [context + example.SerializeToString() for example in examples]
    return array


def _fill_spec(spec: Any, servable: Servable, signature: Signature) -> None:
    spec.name, spec.signature_name = servable.name, signature.key
    spec.version.value = servable.version
