"""The answering end of gRPC over HTTP/2: unary calls with little CPU.

A gRPC server in Python answers about 3,500 calls a second on one core, less than the load
generator sends: the null test needs a server that is not the bottleneck. Answers are encoded
once, without HPACK's dynamic table.
"""

from __future__ import annotations

import asyncio
import struct
from collections import deque
from collections.abc import Callable, Mapping
from functools import partial

from tuner.load.fake.script import Script
from tuner.load.http2 import frames
from tuner.load.http2.endpoint import Endpoint
from tuner.load.http2.frames import END_HEADERS, END_STREAM, PREFACE, frame
from tuner.load.http2.headers import literal

GRPC_UNIMPLEMENTED, GRPC_UNAVAILABLE = 12, 14
PREDICT = b"/tensorflow.serving.PredictionService/Predict"

_RESPONSE_HEADERS = b"\x88" + literal(b"content-type", b"application/grpc")
"""0x88: ``:status: 200`` by its place in the static table."""
_GOOD_TRAILERS = literal(b"grpc-status", b"0")


class Answers(Endpoint):
    """A server's end.

    Args:
        answer: the serialised message of every good answer.
        ready: told that there is something to send, also between two calls of ``receive``.
    """

    def __init__(self, script: Script, answer: bytes, ready: Callable[[], None]) -> None:
        super().__init__()
        self._script, self._ready = script, ready
        self._message = b"\x00" + struct.pack(">I", len(answer)) + answer
        self._open: dict[int, bytes] = {}
        self._blocked: deque[bytes] = deque()
        self.greet()

    def headers(self, stream: int, fields: Mapping[bytes, bytes], end: bool) -> None:
        self._open[stream] = fields.get(b":path", b"")

    def data(self, stream: int, piece: bytes, end: bool) -> None:
        if not end or stream not in self._open:
            return
        if self._open[stream] == PREDICT:
            self._script.request(partial(self._answer, stream))
        else:
            self._fail(stream, GRPC_UNIMPLEMENTED, b"the scripted server only predicts")

    def widened(self, stream: int, size: int) -> None:
        while self._blocked and self.window >= len(self._message):
            self.window -= len(self._message)
            self.out.append(self._blocked.popleft())

    def reset(self, stream: int, code: int) -> None:
        self._open.pop(stream, None)

    def _answer(self, stream: int, good: bool) -> None:
        if not good:
            self._fail(stream, GRPC_UNAVAILABLE, b"failed on purpose")
            return
        if self._open.pop(stream, None) is None:
            return
        data = (
            frame(frames.HEADERS, END_HEADERS, stream, _RESPONSE_HEADERS)
            + frame(frames.DATA, 0, stream, self._message)
            + frame(frames.HEADERS, END_HEADERS | END_STREAM, stream, _GOOD_TRAILERS)
        )
        if self.window < len(self._message):
            self._blocked.append(data)
            return
        self.window -= len(self._message)
        self.out.append(data)
        self._ready()

    def _fail(self, stream: int, status: int, message: bytes) -> None:
        if self._open.pop(stream, None) is None:
            return
        trailers = literal(b"grpc-status", b"%d" % status) + literal(b"grpc-message", message)
        block = _RESPONSE_HEADERS + trailers
        self.out.append(frame(frames.HEADERS, END_HEADERS | END_STREAM, stream, block))
        self._ready()


class GrpcProtocol(asyncio.Protocol):
    """One connection."""

    def __init__(self, script: Script, answer: bytes) -> None:
        self._answers = Answers(script, answer, self._flush)
        self._preface = PREFACE
        self._receiving = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._flush()

    def data_received(self, data: bytes) -> None:
        if self._preface:
            known = min(len(data), len(self._preface))
            if data[:known] != self._preface[:known]:
                self._transport.close()
                return
            self._preface, data = self._preface[known:], data[known:]
        self._receiving = True
        try:
            self._answers.receive(data)
        except frames.ProtocolError:
            self._transport.close()
        self._receiving = False
        self._flush()

    def _flush(self) -> None:
        """Send what there is, all answers to one read together."""
        out = self._answers.out
        if out and not self._receiving:
            if not self._transport.is_closing():
                self._transport.write(b"".join(out))
            out.clear()


def factory(script: Script, answer: bytes) -> Callable[[], asyncio.Protocol]:
    """What ``loop.create_server`` wants."""
    return partial(GrpcProtocol, script, answer)
