"""Predict: serialised request in, serialised response out, whatever transport brings it."""

from __future__ import annotations

from google.protobuf.message import DecodeError
from tensorflow_serving.apis import predict_pb2

from tuner.modelserver.executor import Servable
from tuner.modelserver.repository import Repository
from tuner.modelserver.status import invalid_argument
from tuner.modelserver.tensors import encode_predict_response, to_array


class Predictor:
    """Answers Predict.

    Args:
        repository: where the models are.
        as_content: answer in tensor_content rather than in typed fields.
    """

    def __init__(self, repository: Repository, as_content: bool = False) -> None:
        self._repository, self._as_content = repository, as_content

    def predict(self, body: bytes) -> bytes:
        """Answer a serialised PredictRequest with a serialised PredictResponse.

        Raises:
            ServingError, tensorflow.errors.OpError: the request was refused or failed.
        """
        try:
            request = predict_pb2.PredictRequest.FromString(body)
        except DecodeError as error:
            raise invalid_argument(f"Not a PredictRequest: {error}") from None
        servable = find(self._repository, request.model_spec)
        signature = servable.signature(request.model_spec.signature_name)
        inputs = {name: to_array(tensor) for name, tensor in request.inputs.items()}
        chosen = tuple(request.output_filter)
        outputs = signature.run(inputs, chosen)
        return encode_predict_response(
            servable.model_spec(signature.key),
            list(zip(chosen or signature.output_names, outputs)),
            self._as_content,
        )


def find(repository: Repository, spec: object) -> Servable:
    """The servable of a ModelSpec."""
    version = spec.version.value if spec.HasField("version") else None
    return repository.find(spec.name, version, spec.version_label)
