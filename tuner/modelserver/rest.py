"""The REST API and the Prometheus page: from a request of HTTP to its answer."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple
from urllib.parse import unquote
from weakref import WeakKeyDictionary

from google.protobuf import json_format
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_pb2,
    regression_pb2,
)

from tuner.modelserver import deadline, json_answer, json_request, json_tensor
from tuner.modelserver.executor import Servable, Signature
from tuner.modelserver.http1.body import Content
from tuner.modelserver.http1.head import Head
from tuner.modelserver.http1.response import Response, page
from tuner.modelserver.inference import Api, Inference
from tuner.modelserver.metrics import Metrics
from tuner.modelserver.model_service import ModelService
from tuner.modelserver.status import (
    HTTP_STATUS,
    Code,
    ServingError,
    as_serving_error,
    invalid_argument,
)

_OF_MODEL = r"(?:/versions/(\d+)|/labels/([^/:]+))?"
_INFERENCE = re.compile(
    rf"(?i)/v1/models/([^/:]+){_OF_MODEL}:(classify|regress|predict)", re.ASCII
)
_ABOUT = re.compile(rf"(?i)/v1/models(?:/([^/:]+))?{_OF_MODEL}(/metadata)?", re.ASCII)
PROMETHEUS_PATH = "/monitoring/prometheus/metrics"
_CORS = (
    "Access-Control-Allow-Origin: *\r\nAccess-Control-Allow-Methods: GET, POST, OPTIONS\r\n"
    "Access-Control-Allow-Headers: Content-Type\r\n"
)


class _Route(NamedTuple):
    """What a path asks for."""

    spec: model_pb2.ModelSpec
    verb: str


class RestApi:
    """Answers requests; ``answer`` is what an HTTP server calls.

    Args:
        metrics_path: where Prometheus reads; ``None``: nowhere.
        timeout_s: a request that takes longer is cancelled; ``None``: none is.
        cors: answer pages of other origins.
    """

    def __init__(
        self,
        api: Api,
        inference: Inference,
        models: ModelService,
        *,
        metrics: Metrics | None,
        metrics_path: str | None,
        timeout_s: float | None,
        cors: bool = False,
    ) -> None:
        self._api, self._inference, self._models = api, inference, models
        self._metrics, self._metrics_path = metrics, metrics_path
        self._timeout_s, self._cors = timeout_s, cors
        self._kinds: WeakKeyDictionary[Signature, json_tensor.Kinds] = WeakKeyDictionary()
        self._verbs: dict[str, Callable[[model_pb2.ModelSpec, Content], bytes]] = {
            "predict": self._predict, "classify": self._classify, "regress": self._regress,
        }

    def answer(self, head: Head, body: Content) -> Response:
        """The answer to a request that has come whole; never raises."""
        deadline.begin(None if self._timeout_s is None else time.monotonic() + self._timeout_s)
        response = self._answered(head, body)
        return response._replace(headers=_CORS) if self._cors and head.origin else response

    def _answered(self, head: Head, body: Content) -> Response:
        try:
            if head.method == "POST":
                route = _route(head.target)
                if route is not None:
                    return Response(200, self._verbs[route.verb](route.spec, body))
            return self._other(head)
        except _NoVersion:
            return Response(400, b"")
        except Exception as error:  # noqa: BLE001 - every failure is answered with its status
            failure = as_serving_error(error)
        return Response(HTTP_STATUS[failure.code], json_answer.error(failure.message))

    def _predict(self, spec: model_pb2.ModelSpec, body: Content) -> bytes:
        def answer(servable: Servable) -> bytes:
            return self._api.cached(
                servable, "", memoryview(body), lambda: self._predict_now(servable, body)
            )

        try:
            return self._api.counted(spec, "predict", answer)
        except ServingError as error:
            if error.code == Code.NOT_FOUND:
                json_request.parse(body)  # a body that is no JSON is said before an unknown model
            raise

    def _predict_now(self, servable: Servable, body: Content) -> bytes:
        document = json_request.parse(body)
        name = document.get("signature_name", "")
        key = name or "serving_default"
        signature = servable.signatures.get(key)
        if signature is None:
            raise invalid_argument(f'Serving signature name: "{key}" not found in signature def')
        kinds = self._kinds.get(signature)
        if kinds is None:
            kinds = self._kinds[signature] = json_tensor.kinds_of(signature.definition.inputs)
        if not kinds:
            raise invalid_argument(f"Failed to get input map for signature: {name or 'DEFAULT'}")
        booleans = b"true" in body or b"false" in body
        inputs, by_row = json_request.predict_inputs(document, kinds, booleans)
        _, names, outputs = self._inference.run(servable, name, inputs)
        return json_answer.predict_outputs(names, outputs, by_row)

    def _classify(self, spec: model_pb2.ModelSpec, body: Content) -> bytes:
        request = classification_pb2.ClassificationRequest()
        self._fill(request, spec, body)
        response = self._api.counted(
            spec,
            "classify",
            lambda one: self._inference.classify(one, request),
        )
        return json_answer.results(
            [
                [
                    [label.decode(errors="surrogateescape"), json_answer.single(score)]
                    for label, score in row
                ]
                for row in response.rows()
            ]
        )

    def _regress(self, spec: model_pb2.ModelSpec, body: Content) -> bytes:
        request = regression_pb2.RegressionRequest()
        self._fill(request, spec, body)
        response = self._api.counted(
            spec,
            "regress",
            lambda one: self._inference.regress(one, request),
        )
        return json_answer.results(
            [json_answer.single(value) for value in response.values]
        )

    def _fill(self, request: Any, spec: model_pb2.ModelSpec, body: Content) -> None:
        document = json_request.parse(body)
        request.model_spec.CopyFrom(spec)
        request.model_spec.signature_name = document.get("signature_name", "")
        request.input.CopyFrom(json_request.examples_input(document))

    def _other(self, head: Head) -> Response:
        """What is no inference: answers about models, about the server, and refusals."""
        path = head.target
        if path == self._metrics_path and self._metrics is not None:
            return Response(200, self._metrics.exposition().encode(), "text/plain")
        if path[:4].lower() != "/v1/":
            return page(404)
        if head.method == "OPTIONS":
            status = 200 if head.origin else 400
            return Response(status, b"", "text/html; charset=ISO-8859-1")
        found = _ABOUT.fullmatch(path) if head.method == "GET" else None
        if found is None:
            raise invalid_argument(f"Malformed request: {head.method} {path}")
        name, version, label, metadata = found.groups()
        if not name:
            raise invalid_argument("Missing model name in request.")
        about = self._metadata if metadata == "/metadata" else self._status
        spec = _spec(name, version, label if about == self._metadata else None)
        return Response(200, self._api.observed(spec.name, "", lambda: about(spec)))

    def _status(self, spec: model_pb2.ModelSpec) -> bytes:
        request = get_model_status_pb2.GetModelStatusRequest(model_spec=spec)
        return _json(self._models.status_response(request)).encode()

    def _metadata(self, spec: model_pb2.ModelSpec) -> bytes:
        request = get_model_metadata_pb2.GetModelMetadataRequest(
            model_spec=spec, metadata_field=["signature_def"]
        )
        response = self._models.metadata_response(request)
        signatures = get_model_metadata_pb2.SignatureDefMap()
        response.metadata["signature_def"].Unpack(signatures)
        document = {
            "model_spec": json.loads(_json(response.model_spec)),
            "metadata": {"signature_def": json.loads(_json(signatures))},
        }
        return json.dumps(document, indent=1).encode()


class _NoVersion(Exception):
    """A number that is no version: TensorFlow Serving refuses it without a word."""


@lru_cache(maxsize=1024)
def _route(target: str) -> _Route | None:
    """The inference that a path asks for, if it does. The spec is everybody's: not to be changed."""
    found = _INFERENCE.fullmatch(target)
    if found is None or not found[4].islower():
        return None
    name, version, label, verb = found.groups()
    return _Route(_spec(name, version, label), verb)


def _spec(name: str, version: str | None, label: str | None) -> model_pb2.ModelSpec:
    spec = model_pb2.ModelSpec(name=_text(name))
    if version is not None:
        digits = version.lstrip("0") or "0"
        if len(digits) > 19 or int(digits) >= 2**63:
            raise _NoVersion
        spec.version.value = int(digits)
    elif label is not None:
        spec.version_label = _text(label)
    return spec


def _text(part: str) -> str:
    """Part of a path, whose bytes came as Latin-1, with its escapes undone."""
    return unquote(part.encode("latin-1").decode(errors="replace"), errors="replace")


def _json(message: Any) -> str:
    return json_format.MessageToJson(
        message,
        preserving_proto_field_name=True,
        always_print_fields_with_no_presence=True,
        indent=1,
    )
