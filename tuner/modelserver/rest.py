"""The REST API and the Prometheus page, as a WSGI application on waitress."""

from __future__ import annotations

import gzip
import io
import json
import logging
import re
import threading
import zlib
from collections.abc import Callable, Iterable
from concurrent import futures
from http import HTTPStatus
from typing import Any

import waitress
from google.protobuf import json_format
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_pb2,
    regression_pb2,
)

from tuner.modelserver import json_tensor
from tuner.modelserver.executor import Servable
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

_INFERENCE = re.compile(
    r"(?i)/v1/models/([^/:]+)(?:/versions/(\d+)|/labels/([^/:]+))?:(classify|regress|predict)"
)
_MODEL = re.compile(
    r"(?i)/v1/models(?:/([^/:]+))?(?:/versions/(\d+)|/labels/([^/:]+))?(/metadata)?"
)
PROMETHEUS_PATH = "/monitoring/prometheus/metrics"
_MAX_BODY_BYTES = 2**31 - 1

StartResponse = Callable[[str, list[tuple[str, str]]], Any]


class RestApi:
    """The WSGI application.

    Args:
        metrics_path: where Prometheus reads; ``None``: nowhere.
        timeout_s: a request that takes longer is answered with DEADLINE_EXCEEDED.
        threads: requests that are worked on at once.
    """

    def __init__(
        self,
        api: Api,
        inference: Inference,
        models: ModelService,
        *,
        metrics: Metrics | None,
        metrics_path: str | None,
        timeout_s: float,
        threads: int,
    ) -> None:
        self._api, self._inference, self._models = api, inference, models
        self._metrics, self._metrics_path = metrics, metrics_path
        self._timeout_s = timeout_s
        # A call into TensorFlow cannot be interrupted: it runs here, and is waited for that long.
        self._workers = futures.ThreadPoolExecutor(threads, thread_name_prefix="rest")

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        # WSGI hands on the path's bytes as Latin-1 (PEP 3333); names of models are UTF-8.
        method = environ["REQUEST_METHOD"]
        path = environ["PATH_INFO"].encode("latin-1").decode(errors="replace")
        kind = "application/json"
        try:
            if self._metrics is not None and path == self._metrics_path and method == "GET":
                answer, kind = self._metrics.exposition().encode(), "text/plain; version=0.0.4"
            else:
                body = _body(environ)
                work = self._workers.submit(self._answer, method, path, body)
                answer = work.result(self._timeout_s)
            status = 200
        except Exception as error:  # noqa: BLE001 - every failure is answered with its status
            failure = (
                ServingError(Code.DEADLINE_EXCEEDED, "Timed out waiting for the model")
                if isinstance(error, futures.TimeoutError)
                else as_serving_error(error)
            )
            status = HTTP_STATUS[failure.code]
            answer = json.dumps({"error": failure.message}).encode()
        phrase = HTTPStatus(status).phrase if status != 499 else "Client Closed Request"
        headers = [("Content-Type", kind), ("Content-Length", str(len(answer)))]
        start_response(f"{status} {phrase}", headers)
        return [] if method == "HEAD" else [answer]

    def _answer(self, method: str, path: str, body: bytes) -> bytes:
        match = _INFERENCE.fullmatch(path)
        if method == "POST" and match:
            name, version, label, verb = match.groups()
            answer = {
                "predict": self._predict,
                "classify": self._classify,
                "regress": self._regress,
            }[verb.lower()]
            return answer(_spec(name, version, label), body)
        match = _MODEL.fullmatch(path)
        if method == "GET" and match:
            name, version, label, metadata = match.groups()
            if not name:
                raise invalid_argument("Missing model name in request.")
            spec = _spec(name, version, label)
            return self._metadata(spec) if metadata else self._status(spec)
        raise invalid_argument(f"Malformed request: {method} {path}")

    def _predict(self, spec: model_pb2.ModelSpec, body: bytes) -> bytes:
        def answer(servable: Servable) -> bytes:
            return self._api.cached(servable, "", body, lambda: self._predict_now(servable, body))

        return self._api.counted(spec, "predict", answer)

    def _predict_now(self, servable: Servable, body: bytes) -> bytes:
        document = json_tensor.parse(body)
        name = document.get("signature_name", "")
        key = name or "serving_default"
        if key not in servable.signatures:
            raise invalid_argument(f'Serving signature name: "{key}" not found in signature def')
        infos = servable.signatures[key].definition.inputs
        if not infos:
            raise invalid_argument(f"Failed to get input map for signature: {name or 'DEFAULT'}")
        inputs, by_row = json_tensor.predict_inputs(document, dict(infos))
        _, names, outputs = self._inference.run(servable, name, inputs)
        return json_tensor.predict_outputs(names, outputs, by_row)

    def _classify(self, spec: model_pb2.ModelSpec, body: bytes) -> bytes:
        document = json_tensor.parse(body)
        spec.signature_name = document.get("signature_name", "")
        request = classification_pb2.ClassificationRequest(
            model_spec=spec, input=json_tensor.examples_input(document)
        )
        response = self._api.counted(
            spec, "classify", lambda servable: self._inference.classify(servable, request)
        )
        return json_tensor.results(
            [
                [[label.decode(), json_tensor.single(score)] for label, score in row]
                for row in response.rows()
            ]
        )

    def _regress(self, spec: model_pb2.ModelSpec, body: bytes) -> bytes:
        document = json_tensor.parse(body)
        spec.signature_name = document.get("signature_name", "")
        request = regression_pb2.RegressionRequest(
            model_spec=spec, input=json_tensor.examples_input(document)
        )
        response = self._api.counted(
            spec, "regress", lambda servable: self._inference.regress(servable, request)
        )
        return json_tensor.results(
            [json_tensor.single(value) for value in response.values]
        )

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


class RestServer:
    """The application on a port.

    Args:
        threads: that read requests and write answers; as many work on them.

    Raises:
        OSError: the port is taken.
    """

    def __init__(self, app: RestApi, host: str, port: int, threads: int) -> None:
        logging.getLogger("waitress").setLevel(logging.ERROR)
        self._server = waitress.create_server(
            app,
            host=host,
            port=port,
            threads=threads,
            ident=None,
            max_request_body_size=_MAX_BODY_BYTES,
            inbuf_overflow=64 << 20,  # bodies stay in memory, out of temporary files
            outbuf_overflow=64 << 20,
            connection_limit=4096,
            asyncore_use_poll=True,
        )
        self._thread = threading.Thread(target=self._server.run, name="rest-loop", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._server.close()


def _body(environ: dict[str, Any]) -> bytes:
    length = environ.get("CONTENT_LENGTH")
    body: bytes = environ["wsgi.input"].read(int(length)) if length else b""
    if environ.get("HTTP_CONTENT_ENCODING", "").lower() == "gzip":
        try:
            body = gzip.GzipFile(fileobj=io.BytesIO(body)).read(_MAX_BODY_BYTES + 1)
        except (OSError, EOFError, zlib.error) as error:
            raise invalid_argument(f"Body is not gzip: {error}") from None
        if len(body) > _MAX_BODY_BYTES:
            raise invalid_argument(f"Body of more than {_MAX_BODY_BYTES} bytes when decompressed")
    return body


def _spec(name: str, version: str | None, label: str | None) -> model_pb2.ModelSpec:
    spec = model_pb2.ModelSpec(name=name)
    if version is not None:
        digits = version.lstrip("0") or "0"
        if len(digits) > 19 or int(digits) >= 2**63:
            raise invalid_argument(f"Failed to convert version: {version} to numeric.")
        spec.version.value = int(digits)
    elif label is not None:
        spec.version_label = label
    return spec


def _json(message: Any) -> str:
    return json_format.MessageToJson(
        message,
        preserving_proto_field_name=True,
        always_print_fields_with_no_presence=True,
        indent=1,
    )
