"""Sending by REST: predict on kept-alive HTTP/1.1 connections, one for each request under way."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any
from urllib.parse import quote

from tuner.load.http1 import Connection
from tuner.load.http2.calls import Answered
from tuner.load.http2.status import DEADLINE_EXCEEDED, UNAVAILABLE
from tuner.load.records import HTTP_STATUS_OFFSET, OK
from tuner.load.stream import Address, resolve

METADATA_TIMEOUT_S = 5.0
MESSAGE_BYTES = 500


class _Exchange:
    """A request under way and its connection."""

    __slots__ = ("connection", "done", "request", "slot")

    def __init__(self, slot: int, request: tuple[bytes, ...]) -> None:
        self.slot, self.request = slot, request
        self.connection: Connection | None = None
        self.done = False


class RestTransport:
    """A client of TF Serving's REST API; answers are read to their end, not parsed."""

    def __init__(self, job: dict[str, Any], bodies: list[bytes], answered: Answered) -> None:
        self._bodies, self._answered = bodies, answered
        self._address, self._timeout_s = job["address"], job["request_timeout_s"]
        self._loop = asyncio.get_running_loop()
        paths = [f"/v1/models/{quote(name, safe='')}" for name in job["models"]]
        self._posts = [_head("POST", f"{path}:predict", self._address) for path in paths]
        self._get = _head("GET", f"{paths[0]}/metadata", self._address) + b"\r\n"
        self._lengths = [b"Content-Length: %d\r\n\r\n" % len(body) for body in bodies]
        self._addresses: list[Address] = []
        self._idle: list[Connection] = []
        self._busy: dict[Connection, _Exchange] = {}
        self._attempts: set[asyncio.Task[None]] = set()
        self._deadlines: deque[tuple[float, _Exchange]] = deque()
        self._sweep: asyncio.TimerHandle | None = None
        self._aside: asyncio.Future[bytes | None] | None = None

    async def connect(self) -> None:
        """Open a connection, to be used by the first request.

        Raises:
            OSError: nobody listens there.
        """
        self._addresses = await resolve(self._address)
        connection = Connection(self._got, self._lost)
        await connection.connect(self._addresses)
        if connection.why is not None:
            raise ConnectionError(connection.why)
        self._idle.append(connection)

    def send(self, slot: int, model: int, body: int) -> None:
        """Ask ``model`` with distinct request ``body``."""
        request = (self._posts[model] + self._lengths[body], self._bodies[body])
        self._ask(_Exchange(slot, request))

    def flush(self) -> None:
        """Nothing waits: every request has its connection."""

    async def metadata(self) -> bytes | None:
        """What the server says of the first model's signatures, ``None`` if it does not say."""
        self._aside = self._loop.create_future()
        self._ask(_Exchange(-1, (self._get,)))
        try:
            return await asyncio.wait_for(self._aside, METADATA_TIMEOUT_S)
        except TimeoutError:
            return None

    async def close(self) -> None:
        """Close every connection."""
        if self._sweep is not None:
            self._sweep.cancel()
        for connection in [*self._idle, *self._busy]:
            connection.end("closed")

    def _ask(self, exchange: _Exchange) -> None:
        while self._idle:
            # The one used last: its server thread and its memory are the warmest.
            connection = self._idle.pop()
            if connection.usable:
                break
        else:
            connection = self._connection()
        exchange.connection = connection
        self._busy[connection] = exchange
        deadlines = self._deadlines
        while deadlines and deadlines[0][1].done:
            deadlines.popleft()
        deadlines.append((self._loop.time() + self._timeout_s, exchange))
        if self._sweep is None:
            self._sweep = self._loop.call_later(self._timeout_s, self._expire)
        connection.ask(*exchange.request)

    def _connection(self) -> Connection:
        connection = Connection(self._got, self._lost)
        task = self._loop.create_task(connection.connect(self._addresses))
        self._attempts.add(task)
        task.add_done_callback(self._attempts.discard)
        return connection

    def _got(self, connection: Connection, status: int, body: bytearray, at_s: float) -> None:
        exchange = self._busy.pop(connection)
        if connection.usable:
            self._idle.append(connection)
        if status == 200:
            self._end(exchange, at_s, OK, "", body)
        else:
            text = body[:MESSAGE_BYTES].decode(errors="replace")
            self._end(exchange, at_s, HTTP_STATUS_OFFSET + status, text)

    def _lost(self, connection: Connection, why: str, at_s: float) -> None:
        exchange = self._busy.pop(connection)
        if connection.served and connection.unheard and not exchange.done:
            # It was closed while it was idle, as a server may; the request was never read.
            fresh = self._connection()
            exchange.connection = fresh
            self._busy[fresh] = exchange
            fresh.ask(*exchange.request)
        else:
            self._end(exchange, at_s, UNAVAILABLE, why)

    def _expire(self) -> None:
        now, deadlines = self._loop.time(), self._deadlines
        while deadlines and (deadlines[0][1].done or deadlines[0][0] <= now):
            _, exchange = deadlines.popleft()
            if not exchange.done:
                self._end(exchange, now, DEADLINE_EXCEEDED, "no answer in time")
                assert exchange.connection is not None
                # An answer that comes later would be taken for the next request's.
                exchange.connection.end("given up")
        self._sweep = self._loop.call_at(deadlines[0][0], self._expire) if deadlines else None

    def _end(
        self, exchange: _Exchange, at_s: float, status: int, text: str, body: bytes | bytearray = b""
    ) -> None:
        if exchange.done:
            return
        exchange.done = True
        if exchange.slot >= 0:
            self._answered(exchange.slot, at_s, status, text)
        elif self._aside is not None and not self._aside.done():
            self._aside.set_result(bytes(body) if status == OK else None)


def _head(method: str, path: str, host: str) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", f"Host: {host}", "Accept: */*", "User-Agent: tuner-load"]
    if method == "POST":
        lines.append("Content-Type: application/json")
    return "\r\n".join([*lines, ""]).encode()
