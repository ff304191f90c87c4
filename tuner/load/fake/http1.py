"""Just enough HTTP/1.1 to answer TF Serving's REST predict on kept-alive connections."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from functools import partial

from tuner.load.fake.script import Script

GOOD = b'{"predictions": [[0.0]]}'
BAD = b'{"error": "failed on purpose"}'
NOT_FOUND = b'{"error": "the scripted server only predicts"}'

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_PREDICT = re.compile(rb"POST /v1/models/[^ /:]+(?:/(?:versions|labels)/[^ /:]+)?:predict ")


def response(code: bytes, body: bytes) -> bytes:
    return (
        b"HTTP/1.1 "
        + code
        + b"\r\nContent-Type: application/json\r\nContent-Length: "
        + str(len(body)).encode()
        + b"\r\n\r\n"
        + body
    )


class RestProtocol(asyncio.Protocol):
    """One connection; a client sends the next request after the answer (no pipelining)."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self._buffer = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        head = bytes(self._buffer[:end])
        length = _LENGTH.search(head)
        whole = end + 4 + (int(length[1]) if length else 0)
        if len(self._buffer) < whole:
            return
        del self._buffer[:whole]
        if _PREDICT.match(head):
            self._script.request(self._answer)
        else:
            self._send(response(b"404 Not Found", NOT_FOUND))

    def _answer(self, good: bool) -> None:
        self._send(response(b"200 OK", GOOD) if good else response(b"503 Service Unavailable", BAD))

    def _send(self, data: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(data)


def factory(script: Script) -> Callable[[], asyncio.Protocol]:
    """What ``loop.create_server`` wants."""
    return partial(RestProtocol, script)
