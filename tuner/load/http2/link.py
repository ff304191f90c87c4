"""A socket and the calls on it."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from typing import Any

from tuner.load.http2.calls import Calls
from tuner.load.http2.frames import ProtocolError

READ_BYTES = 2**16
BUFFERS_AT_ONCE = 256

Address = tuple[socket.AddressFamily, Any]


async def resolve(address: str) -> list[Address]:
    """Socket addresses of ``HOST:PORT``, ``[IPv6]:PORT`` or ``unix:PATH``.

    Raises:
        OSError: no such host.
    """
    if address.startswith("unix:"):
        path = address.removeprefix("unix:")
        return [(socket.AF_UNIX, path.removeprefix("//"))]
    host, _, port = address.rpartition(":")
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)
    return [(family, where) for family, _, _, _, where in found]


class Link:
    """One connection from its beginning to its end.

    Args:
        calls: may be begun before the socket is connected.
        lost: told of its end and why, before the calls are.
    """

    def __init__(self, calls: Calls, lost: Callable[[Link, str], None]) -> None:
        self.calls = calls
        self._lost = lost
        self._loop = asyncio.get_running_loop()
        self._socket: socket.socket | None = None
        self._writing = False
        self.greeted: asyncio.Future[None] = self._loop.create_future()
        """Done once the server spoke; its exception is why it did not."""

    async def connect(self, addresses: list[Address]) -> None:
        """Connect to the first address where somebody listens; otherwise this is its end."""
        why = "no address"
        for family, where in addresses:
            plain = socket.socket(family, socket.SOCK_STREAM)
            plain.setblocking(False)
            try:
                await self._loop.sock_connect(plain, where)
            except OSError as error:
                plain.close()
                why = _explain(error)
                continue
            if family != socket.AF_UNIX:
                plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._socket = plain
            self._loop.add_reader(plain, self._readable)
            self.flush()
            return
        self._end(why)

    def flush(self) -> None:
        """Send as much as the socket takes now; the rest when it takes more."""
        out = self.calls.out
        if not out or self._writing or self._socket is None:
            return
        try:
            while out:
                if len(out) == 1:
                    sent = self._socket.send(out[0])
                else:
                    sent = self._socket.sendmsg(out[:BUFFERS_AT_ONCE])
                _drop(out, sent)
        except BlockingIOError:
            self._writing = True
            self._loop.add_writer(self._socket, self._writable)
        except OSError as error:
            self._end(_explain(error))

    def _writable(self) -> None:
        assert self._socket is not None
        self._writing = False
        self._loop.remove_writer(self._socket)
        self.flush()

    def _readable(self) -> None:
        assert self._socket is not None
        self.calls.now = self._loop.time()
        try:
            data = self._socket.recv(READ_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            self._end(_explain(error))
            return
        if not data:
            self._end("the server closed the connection")
            return
        try:
            if not self.greeted.done():
                if data.startswith(b"HTTP/1"):
                    raise ProtocolError("it answers in HTTP/1; is this its port for REST?")
                self.greeted.set_result(None)
            self.calls.receive(data)
        except ProtocolError as error:
            self._end(f"the server does not speak HTTP/2 as it should: {error}")
            return
        self.flush()
        if self.calls.leaving and not self.calls.under_way:
            self._end("the server went away")

    def _end(self, why: str) -> None:
        plain, self._socket = self._socket, None
        if plain is not None:
            self._loop.remove_reader(plain)
            self._loop.remove_writer(plain)
            plain.close()
        self.calls.out.clear()
        if not self.greeted.done():
            self.greeted.set_exception(ConnectionError(why))
            # A connection that was made in passing has nobody who asks.
            self.greeted.exception()
        self._lost(self, why)
        self.calls.now = self._loop.time()
        self.calls.lost(why)


def _drop(out: list[bytes | memoryview], sent: int) -> None:
    """Take the first ``sent`` bytes off a list of buffers."""
    whole = 0
    for buffer in out:
        if sent < len(buffer):
            break
        sent -= len(buffer)
        whole += 1
    del out[:whole]
    if sent:
        out[0] = memoryview(out[0])[sent:]


def _explain(error: OSError) -> str:
    """An error of the system in the system's words, without Python's additions."""
    return os.strerror(error.errno).lower() if error.errno else str(error)
