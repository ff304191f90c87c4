"""The gRPC API over one of two transports: ours, or grpcio's where connections are encrypted.

Methods take and give raw bytes, so that each message is decoded once and where it is used.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from concurrent import futures
from typing import Protocol

import grpc

from tuner.modelserver import deadline
from tuner.modelserver.http2.transport import Http2Server, Method
from tuner.modelserver.status import as_serving_error

_LOG = logging.getLogger(__name__)
_STATUS = {code.value[0]: code for code in grpc.StatusCode}
_MESSAGE_LIMIT, _MAX_STREAMS = "grpc.max_receive_message_length", "grpc.max_concurrent_streams"


class GrpcServer(Protocol):
    """A server that is not listening yet."""

    def listen(self, address: str) -> None:
        """Bind ``host:port`` or ``unix:path``; raises OSError where that cannot be."""

    def start(self) -> None:
        """Answer from now on."""

    def stop(self, grace_s: float) -> None:
        """Let calls in flight end for so long, then close."""


def build(
    methods: Mapping[str, Method],
    *,
    max_threads: int,
    channel_arguments: str = "",
    credentials: grpc.ServerCredentials | None = None,
) -> GrpcServer:
    """A server of ``methods``, by full path, e.g. ``/tensorflow.serving.PredictionService/Predict``.

    Args:
        max_threads: requests in flight; one beyond is refused with RESOURCE_EXHAUSTED, since each
            holds a thread while it waits in a batch, as in TensorFlow Serving.
        channel_arguments: ``k=v,k=v``; numbers are passed as numbers.
        credentials: of an encrypted server.
    """
    arguments = _arguments(channel_arguments)
    if credentials is not None:
        return _EncryptedServer(methods, max_threads, arguments, credentials)
    message_limit = _number(arguments, _MESSAGE_LIMIT)
    max_streams = _number(arguments, _MAX_STREAMS)
    for key in arguments:
        _LOG.warning("Channel argument %s has no meaning for this server and is ignored", key)
    return Http2Server(
        methods,
        max_threads=max_threads,
        message_limit_bytes=-1 if message_limit is None else message_limit,
        max_streams=max_streams,
    )


def _number(arguments: dict[str, int | str], key: str) -> int | None:
    value = arguments.pop(key, None)
    if isinstance(value, str):
        _LOG.warning("Channel argument %s=%s is no number and is ignored", key, value)
        return None
    return value


def _arguments(text: str) -> dict[str, int | str]:
    arguments: dict[str, int | str] = {}
    for argument in filter(None, text.split(",")):
        key, _, value = argument.partition("=")
        arguments[key] = int(value) if value.lstrip("-").isdecimal() else value
    return arguments


class _EncryptedServer:
    def __init__(
        self,
        methods: Mapping[str, Method],
        max_threads: int,
        arguments: Mapping[str, int | str],
        credentials: grpc.ServerCredentials,
    ) -> None:
        options = {
            _MESSAGE_LIMIT: -1,
            "grpc.max_send_message_length": -1,
            # A port that is taken must be an error, not a share of another server's requests.
            "grpc.so_reuseport": 0,
            **arguments,
        }
        self._credentials = credentials
        self._server = grpc.server(
            futures.ThreadPoolExecutor(max_threads, thread_name_prefix="grpc"),
            handlers=[_Handlers({path: _unary(method) for path, method in methods.items()})],
            options=list(options.items()),
            maximum_concurrent_rpcs=max_threads,
        )

    def listen(self, address: str) -> None:
        try:
            if address.startswith("unix:"):
                bound = self._server.add_insecure_port(address)
            else:
                bound = self._server.add_secure_port(address, self._credentials)
        except RuntimeError as error:
            raise OSError(f"cannot listen on {address}: {error}") from None
        if bound == 0:
            raise OSError(f"cannot listen on {address}")

    def start(self) -> None:
        self._server.start()

    def stop(self, grace_s: float) -> None:
        self._server.stop(grace_s).wait()


class _Handlers(grpc.GenericRpcHandler):
    def __init__(self, handlers: Mapping[str, grpc.RpcMethodHandler]) -> None:
        self._handlers = handlers

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        return self._handlers.get(details.method)


def _unary(method: Callable[[bytes], bytes]) -> grpc.RpcMethodHandler:
    def handle(body: bytes, context: grpc.ServicerContext) -> bytes:
        try:
            left_s = context.time_remaining()
            deadline.begin(None if left_s is None else time.monotonic() + left_s)
            return method(body)
        except Exception as error:  # noqa: BLE001 - every failure is answered with its status
            failure = as_serving_error(error)
        context.abort(_STATUS[int(failure.code)], failure.message)
        raise AssertionError("abort raises")

    return grpc.unary_unary_rpc_method_handler(handle)
