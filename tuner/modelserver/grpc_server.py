"""The gRPC API: handlers of raw bytes, so that each message is decoded once and where it is used."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent import futures

import grpc

from tuner.modelserver.status import as_serving_error

Method = Callable[[bytes], bytes]
"""Serialised request to serialised response; raises what ``as_serving_error`` understands."""

StreamMethod = Callable[[bytes, grpc.ServicerContext], Iterator[bytes]]

_STATUS = {code.value[0]: code for code in grpc.StatusCode}


class _Handlers(grpc.GenericRpcHandler):
    def __init__(self, handlers: Mapping[str, grpc.RpcMethodHandler]) -> None:
        self._handlers = handlers

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        return self._handlers.get(details.method)


def _unary(method: Method) -> grpc.RpcMethodHandler:
    def handle(body: bytes, context: grpc.ServicerContext) -> bytes:
        try:
            return method(body)
        except Exception as error:  # noqa: BLE001 - every failure is answered with its status
            failure = as_serving_error(error)
        context.abort(_STATUS[int(failure.code)], failure.message)
        raise AssertionError("abort raises")

    return grpc.unary_unary_rpc_method_handler(handle)


def build(
    methods: Mapping[str, Method],
    streams: Mapping[str, StreamMethod],
    *,
    max_threads: int,
    channel_arguments: str = "",
) -> grpc.Server:
    """A gRPC server that is not listening yet.

    Args:
        methods: by full path, e.g. ``/tensorflow.serving.PredictionService/Predict``.
        streams: methods that answer with several messages.
        max_threads: requests in flight; one beyond is refused with RESOURCE_EXHAUSTED, since each
            holds a thread while it waits in a batch, as in TensorFlow Serving.
        channel_arguments: ``k=v,k=v``; numbers are passed as numbers.
    """
    handlers = {path: _unary(method) for path, method in methods.items()}
    for path, stream in streams.items():
        handlers[path] = grpc.unary_stream_rpc_method_handler(stream)
    return grpc.server(
        futures.ThreadPoolExecutor(max_threads, thread_name_prefix="grpc"),
        handlers=[_Handlers(handlers)],
        options=_options(channel_arguments),
        maximum_concurrent_rpcs=max_threads,
    )


def _options(channel_arguments: str) -> list[tuple[str, int | str]]:
    options: list[tuple[str, int | str]] = [
        ("grpc.max_receive_message_length", -1),
        ("grpc.max_send_message_length", -1),
        # A port that is taken must be an error, not a share of another server's requests.
        ("grpc.so_reuseport", 0),
    ]
    for argument in filter(None, channel_arguments.split(",")):
        key, _, value = argument.partition("=")
        options.append((key, int(value) if value.lstrip("-").isdecimal() else value))
    return options


def listen(server: grpc.Server, address: str, credentials: grpc.ServerCredentials | None) -> None:
    """Bind ``host:port`` or ``unix:path``.

    Raises:
        OSError: the address is taken or cannot be had.
    """
    try:
        bound = (
            server.add_secure_port(address, credentials)
            if credentials
            else server.add_insecure_port(address)
        )
    except RuntimeError as error:
        raise OSError(f"cannot listen on {address}: {error}") from None
    if bound == 0:
        raise OSError(f"cannot listen on {address}")
