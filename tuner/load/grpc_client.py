"""Sending by gRPC: Predict on one HTTP/2 connection, requests already serialised."""

from __future__ import annotations

import base64
from typing import Any

import grpc

from tuner.load.records import OK

PREDICT_METHOD = "/tensorflow.serving.PredictionService/Predict"
METADATA_METHOD = "/tensorflow.serving.PredictionService/GetModelMetadata"

OPTIONS = [
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    # A retry would hide an error and stretch its latency.
    ("grpc.enable_retries", 0),
    ("grpc.use_local_subchannel_pool", 1),
]


class GrpcTransport:
    """A client of PredictionService; answers stay bytes, since nobody reads them."""

    def __init__(self, job: dict[str, Any], bodies: list[bytes]) -> None:
        self._bodies = bodies
        self._heads = [base64.b64decode(head) for head in job["heads"]]
        if len(self._heads) == 1:
            self._bodies = [self._heads[0] + body for body in bodies]
        self._timeout = job["request_timeout_s"]
        self._metadata_request = base64.b64decode(job["metadata_request"])
        self._channel = grpc.aio.insecure_channel(job["address"], options=OPTIONS)
        self._predict = self._channel.unary_unary(PREDICT_METHOD)

    async def connect(self) -> None:
        await self._channel.channel_ready()

    def send(self, model: int, body: int) -> Any:
        data = self._bodies[body]
        if len(self._heads) > 1:
            data = self._heads[model] + data
        return self._outcome(self._predict(data, timeout=self._timeout))

    async def _outcome(self, call: Any) -> tuple[int, str]:
        try:
            await call
        except grpc.aio.AioRpcError as error:
            return error.code().value[0], error.details() or ""
        return OK, ""

    async def metadata(self) -> bytes | None:
        method = self._channel.unary_unary(METADATA_METHOD)
        try:
            return await method(self._metadata_request, timeout=5.0)
        except grpc.aio.AioRpcError:
            return None
