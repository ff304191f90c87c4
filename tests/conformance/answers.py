"""Sends recorded requests, and says whether an answer is alike the real server's.

Alike: the same HTTP status or gRPC code and, of a success, the same value. JSON is compared parsed,
with the order of keys and the text of numbers set aside, tensors by name, type, shape and values;
numbers within 2e-6 relative. Texts of errors, headers and times are not compared.
"""

from __future__ import annotations

import base64
import http.client
import json
import lzma
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import tensorflow as tf
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import DecodeError
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    model_management_pb2,
    predict_pb2,
    regression_pb2,
)

DATA = Path(__file__).parent
NEAR = 2e-6
_TIMEOUT_S = 30.0
_KINDS = {
    "Predict": predict_pb2.PredictResponse,
    "Classify": classification_pb2.ClassificationResponse,
    "Regress": regression_pb2.RegressionResponse,
    "MultiInference": inference_pb2.MultiInferenceResponse,
    "GetModelMetadata": get_model_metadata_pb2.GetModelMetadataResponse,
    "GetModelStatus": get_model_status_pb2.GetModelStatusResponse,
    "HandleReloadConfigRequest": model_management_pb2.ReloadConfigResponse,
}


def recorded(name: str) -> list[dict[str, Any]]:
    """The rows of a file of recordings, without its first line, which tells their origin."""
    with lzma.open(DATA / f"{name}.jsonl.xz", "rt") as lines:
        next(lines)
        return [json.loads(line) for line in lines]


@dataclass(frozen=True)
class Client:
    """Of one running server. A call with a time limit has a connection of its own, as it had when it
    was recorded."""

    port: int
    channel: grpc.Channel
    rest_port: int
    folders: dict[str, str]
    """Placeholder, e.g. ``$MODELS`` -> the folder that it stands for here."""

    def alike(self, row: dict[str, Any]) -> tuple[bool, str]:
        """Whether the answer is alike the recorded one, and what it was."""
        return self._rest(row) if row["kind"] == "rest" else self._grpc(row)

    def _rest(self, row: dict[str, Any]) -> tuple[bool, str]:
        real = row["real"]
        status, body = self._send(row)
        told = f"{status} {body[:300]}"
        if status != real["status"]:
            return False, told
        if status != 200 or "prometheus" in row["path"]:
            return True, told
        return near(_parsed(self._named(body)), _parsed(real["body"])), told

    def _send(self, row: dict[str, Any]) -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.rest_port, timeout=_TIMEOUT_S)
        try:
            connection.putrequest(row["verb"], row["path"], skip_accept_encoding=True)
            body = row["body"].encode("latin-1") if "body" in row else None
            headers = row.get("headers", {})
            for name, value in headers.items():
                connection.putheader(name, value)
            own = {"content-length", "transfer-encoding"} & {name.lower() for name in headers}
            if body is not None and not own:
                connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body)
            response = connection.getresponse()
            return response.status, response.read().decode("latin-1")
        except (OSError, http.client.HTTPException) as error:
            return 0, repr(error)
        finally:
            connection.close()

    def _grpc(self, row: dict[str, Any]) -> tuple[bool, str]:
        real, method = row["real"], row["method"].rsplit("/", 1)[1]
        timeout_s = row.get("timeout_s", _TIMEOUT_S)
        code, answer, told = "", b"", ""
        request = self._request(row)
        channel = self.own_channel() if "timeout_s" in row else self.channel
        try:
            if row.get("stream"):
                for answer in channel.unary_stream(row["method"])(request, timeout=timeout_s):
                    code = "OK,"
            else:
                answer = channel.unary_unary(row["method"])(request, timeout=timeout_s)
            code += "OK"
        except grpc.RpcError as error:
            code, told = code + error.code().name, error.details()
        finally:
            if channel is not self.channel:
                channel.close()
        if code != real["code"]:
            return False, f"{code} {told[:300]}"
        theirs = base64.b64decode(real.get("response", ""))
        if not code.startswith("OK") or answer == theirs or method not in _KINDS:
            return not code.startswith("OK") or answer == theirs, code
        try:
            ours = _message(method, answer)
            return near(self._named(ours), _message(method, theirs)), f"{code} {str(ours)[:300]}"
        except DecodeError as error:
            return False, repr(error)

    def own_channel(self) -> grpc.Channel:
        alone = [("grpc.use_local_subchannel_pool", 1)]
        return grpc.insecure_channel(f"127.0.0.1:{self.port}", options=alone)

    def _request(self, row: dict[str, Any]) -> bytes:
        request = base64.b64decode(row["request"])
        if not row["method"].endswith("HandleReloadConfigRequest"):
            return request
        reload = model_management_pb2.ReloadConfigRequest.FromString(request)
        for config in reload.config.model_config_list.config:
            for placeholder, folder in self.folders.items():
                config.base_path = config.base_path.replace(placeholder, folder)
        return reload.SerializeToString()

    def _named(self, value: Any) -> Any:
        """``value`` with placeholders where it names folders of this test."""
        if isinstance(value, str):
            for placeholder, folder in self.folders.items():
                value = value.replace(folder, placeholder)
            return value
        if isinstance(value, dict):
            return {key: self._named(item) for key, item in value.items()}
        return [self._named(item) for item in value] if isinstance(value, list) else value


def near(ours: Any, theirs: Any) -> bool:
    """Equal, numbers within ``NEAR`` of each other and NaN equal to NaN."""
    if isinstance(ours, bool) or isinstance(theirs, bool):
        return ours is theirs
    if isinstance(ours, int | float) and isinstance(theirs, int | float):
        if ours == theirs or (math.isnan(ours) and math.isnan(theirs)):
            return True
        both = math.isfinite(ours) and math.isfinite(theirs)
        return both and abs(ours - theirs) <= NEAR * max(abs(ours), abs(theirs))
    if isinstance(ours, dict) and isinstance(theirs, dict):
        return ours.keys() == theirs.keys() and all(near(ours[key], theirs[key]) for key in ours)
    if isinstance(ours, list) and isinstance(theirs, list):
        return len(ours) == len(theirs) and all(map(near, ours, theirs))
    return bool(ours == theirs)


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _message(method: str, data: bytes) -> Any:
    message = _KINDS[method].FromString(data)
    if method == "Predict":
        tensors = {
            name: [int(t.dtype), [dim.size for dim in t.tensor_shape.dim], _values(t)]
            for name, t in message.outputs.items()
        }
        return [tensors, MessageToDict(message.model_spec)]
    if method == "GetModelMetadata":
        signatures = get_model_metadata_pb2.SignatureDefMap()
        message.metadata["signature_def"].Unpack(signatures)
        return [MessageToDict(message.model_spec), MessageToDict(signatures)]
    return MessageToDict(message)


def _values(tensor: Any) -> Any:
    if tensor.dtype == tf.string.as_datatype_enum and tensor.tensor_content:
        read = tf.io.parse_tensor(tensor.SerializeToString(), tf.string).numpy()
        return read.tolist() if hasattr(read, "tolist") else read
    return tf.make_ndarray(tensor).tolist()
