"""Methods that echo, wait, grow and fail, on the gRPC transport alone."""

from __future__ import annotations

import socket
import threading

import grpc
import pytest

from tuner.deploy.readiness import free_port
from tuner.modelserver.http2.transport import Http2Server
from tuner.modelserver.status import Code, ServingError


class Service:
    """Methods that echo, wait, grow and fail, on a server of the transport."""

    def __init__(self, **settings) -> None:
        self.released = threading.Event()
        self.entered = threading.Semaphore(0)
        methods = {
            "/t/Echo": bytes,
            "/t/Wait": self._wait,
            "/t/Grow": lambda body: bytes(body) * 1000,
            "/t/Fail": self._fail,
        }
        self.server = Http2Server(methods, **{"max_threads": 200, **settings})
        self.port = free_port()
        self.server.listen(f"127.0.0.1:{self.port}")
        self.server.start()

    def _wait(self, body) -> bytes:
        self.entered.release()
        self.released.wait(30)
        return bytes(body)

    def _fail(self, body) -> bytes:
        raise ServingError(Code.NOT_FOUND, "50 % näher\n" + bytes(body).decode())

    def channel(self, *options) -> grpc.Channel:
        return grpc.insecure_channel(f"127.0.0.1:{self.port}", options=options)

    def connect(self) -> socket.socket:
        raw = socket.create_connection(("127.0.0.1", self.port), 10)
        raw.settimeout(10)
        return raw

    def answers(self) -> bool:
        with self.channel(("grpc.use_local_subchannel_pool", 1)) as channel:
            return channel.unary_unary("/t/Echo")(b"alive", timeout=20) == b"alive"


@pytest.fixture(scope="module")
def service():
    service = Service()
    yield service
    service.released.set()
    service.server.stop(0)
