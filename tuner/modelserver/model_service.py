"""GetModelStatus, GetModelMetadata, HandleReloadConfigRequest and the health service."""

from __future__ import annotations

import threading

from google.protobuf.message import DecodeError
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_management_pb2,
)

from tuner.modelserver.http2.request import Body
from tuner.modelserver.http2.sender import OpenAnswer
from tuner.modelserver.inference import decode, find
from tuner.modelserver.protos import HealthCheckRequest, HealthCheckResponse
from tuner.modelserver.repository import Repository
from tuner.modelserver.status import Code, ServingError, invalid_argument

SERVING, SERVICE_UNKNOWN = 1, 3


class ModelService:
    """What can be asked and told about models rather than of them."""

    def __init__(self, repository: Repository) -> None:
        self._repository = repository
        self._reloads = threading.BoundedSemaphore(2)

    def status(self, body: Body) -> bytes:
        """A serialised GetModelStatusRequest to its response."""
        request = decode(get_model_status_pb2.GetModelStatusRequest, body)
        return self.status_response(request).SerializeToString()

    def status_response(
        self, request: get_model_status_pb2.GetModelStatusRequest
    ) -> get_model_status_pb2.GetModelStatusResponse:
        """The state of one version, or of every version known, of a model."""
        if not request.HasField("model_spec"):
            raise invalid_argument("Missing ModelSpec")
        spec = request.model_spec  # a label in it says nothing here
        version = spec.version.value if spec.HasField("version") else None
        response = get_model_status_pb2.GetModelStatusResponse()
        for number, state, error in self._repository.statuses(spec.name, version):
            item = response.model_version_status.add(version=number, state=state)
            item.status.error_code = int(error.code) if error else 0
            item.status.error_message = error.message if error else ""
        return response

    def metadata(self, body: Body) -> bytes:
        """A serialised GetModelMetadataRequest to its response."""
        request = decode(get_model_metadata_pb2.GetModelMetadataRequest, body)
        return self.metadata_response(request).SerializeToString()

    def metadata_response(
        self, request: get_model_metadata_pb2.GetModelMetadataRequest
    ) -> get_model_metadata_pb2.GetModelMetadataResponse:
        """The signatures of a model, packed as TensorFlow Serving packs them."""
        if not request.HasField("model_spec"):
            raise invalid_argument("Missing ModelSpec")
        if not request.metadata_field:
            raise invalid_argument(
                "GetModelMetadataRequest must specify at least one metadata_field"
            )
        for field in request.metadata_field:
            if field != "signature_def":
                raise invalid_argument(f"Metadata field {field} is not supported")
        servable = find(self._repository, request.model_spec)
        signatures = get_model_metadata_pb2.SignatureDefMap()
        for key, definition in servable.definitions.items():
            signatures.signature_def[key].CopyFrom(definition)
        response = get_model_metadata_pb2.GetModelMetadataResponse()
        response.model_spec.name = servable.name
        response.model_spec.version.value = servable.version
        response.metadata["signature_def"].Pack(signatures)
        return response

    def reload(self, body: Body) -> bytes:
        """A serialised ReloadConfigRequest: serve exactly these models from now on.

        Each holds a thread until it is done, which may be minutes where a model does not load: of
        more than two, one at work and one that waits, the others are refused, so that calls of
        Predict find threads.
        """
        request = decode(model_management_pb2.ReloadConfigRequest, body)
        if not self._reloads.acquire(blocking=False):
            raise ServingError(Code.UNAVAILABLE, "A reload is in progress, and another one waits")
        try:
            if request.config.WhichOneof("config") != "model_config_list":
                raise invalid_argument(
                    "ServerModelConfig type not supported by HandleReloadConfigRequest. "
                    "Only ModelConfigList is currently supported"
                )
            self._repository.apply(request.config)
        finally:
            self._reloads.release()
        response = model_management_pb2.ReloadConfigResponse()
        response.status.SetInParent()
        return response.SerializeToString()


class HealthService:
    """grpc.health.v1.Health, by the names that TensorFlow Serving gives: all are SERVING."""

    SERVICES = frozenset({"", "ModelService", "PredictionService"})

    def check(self, body: Body) -> bytes:
        if _service(body) not in self.SERVICES:
            raise ServingError(Code.NOT_FOUND, "service name unknown")
        return HealthCheckResponse(status=SERVING).SerializeToString()

    def watch(self, body: Body) -> OpenAnswer:
        """The first message of the stream, which stays open: no other will ever follow.

        A server of this kind serves from the first moment to the last.
        """
        known = _service(body) in self.SERVICES
        status = SERVING if known else SERVICE_UNKNOWN
        return OpenAnswer(HealthCheckResponse(status=status).SerializeToString())


def _service(body: Body) -> str:
    try:
        return str(HealthCheckRequest.FromString(bytes(body)).service)
    except DecodeError:
        raise invalid_argument("could not parse request") from None
