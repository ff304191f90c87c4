"""Sending by gRPC: Predict on HTTP/2 connections, requests already serialised and framed.

The client is an own one (``http2``), since a stopwatch shall cost little beside what it times:
gRPC's asyncio client adds about half a millisecond to a latency, gRPC's framing another thread.
"""

from __future__ import annotations

import asyncio
import base64
import struct
from typing import Any

from tuner.load.http2.calls import Answered, Fields
from tuner.load.http2.line import Line
from tuner.load.records import OK
from tuner.load.stream import resolve

PREDICT_METHOD = b"/tensorflow.serving.PredictionService/Predict"
METADATA_METHOD = b"/tensorflow.serving.PredictionService/GetModelMetadata"
PREDICT, METADATA = 0, 1

ASIDE = -1
"""Tag of the calls that are no requests of the load."""
METADATA_TIMEOUT_S = 5.0


class GrpcTransport:
    """A client of PredictionService; answers are counted, not kept, since nobody reads them."""

    def __init__(self, job: dict[str, Any], bodies: list[bytes], answered: Answered) -> None:
        self._job, self._answered = job, answered
        self._heads = [base64.b64decode(head) for head in job["heads"]]
        self._bodies = bodies
        if len(self._heads) == 1:
            self._bodies = [message(self._heads[0], body) for body in bodies]
        self._lines: list[Line] = []
        self._turn = 0
        self._aside: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def connect(self) -> None:
        """Open every connection.

        Raises:
            OSError: nobody listens there, or not in HTTP/2.
        """
        address, timeout_s = self._job["address"], self._job["request_timeout_s"]
        kinds = [_fields(method, address, timeout_s) for method in (PREDICT_METHOD, METADATA_METHOD)]
        addresses = await resolve(address)
        for _ in range(self._job["connections"]):
            self._lines.append(Line(addresses, kinds, self._end, timeout_s))
        await asyncio.gather(*(line.connect() for line in self._lines))

    def send(self, slot: int, model: int, body: int) -> None:
        """Begin to ask ``model`` with distinct request ``body``; ``flush`` sends it."""
        data = self._bodies[body]
        if len(self._heads) > 1:
            data = message(self._heads[model], data)
        self._lines[self._turn].call(slot, PREDICT, data)
        self._turn = (self._turn + 1) % len(self._lines)

    def flush(self) -> None:
        """Send what was begun."""
        for line in self._lines:
            line.flush()

    async def metadata(self) -> bytes | None:
        """What the server says of the first model's signatures, ``None`` if it does not say."""
        request = base64.b64decode(self._job["metadata_request"])
        call = self._lines[0].call(ASIDE, METADATA, message(b"", request), keep=True)
        self._lines[0].flush()
        try:
            status = await asyncio.wait_for(self._aside, METADATA_TIMEOUT_S)
        except TimeoutError:
            return None
        if call is None or call.answer is None or status != OK or call.answer[:1] != b"\0":
            return None
        return bytes(call.answer[5:])

    async def close(self) -> None:
        """Close every connection; calls under way end as UNAVAILABLE."""
        for line in self._lines:
            line.close()

    def _end(self, tag: int, at_s: float, status: int, text: str) -> None:
        if tag != ASIDE:
            self._answered(tag, at_s, status, text)
        elif not self._aside.done():
            self._aside.set_result(status)


def message(head: bytes, body: bytes) -> bytes:
    """A message as gRPC sends it: not compressed, its length, then what it says."""
    return struct.pack(">BI", 0, len(head) + len(body)) + head + body


def _fields(method: bytes, address: str, timeout_s: float) -> Fields:
    return [
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", method),
        (b":authority", b"localhost" if address.startswith("unix:") else address.encode()),
        (b"te", b"trailers"),
        (b"content-type", b"application/grpc"),
        (b"grpc-timeout", b"%dm" % min(round(timeout_s * 1000), 99_999_999)),
        (b"user-agent", b"tuner-load"),
    ]
