"""A socket on the event loop, without asyncio's transports: bytes out at once, bytes in as they come."""

from __future__ import annotations

import asyncio
import os
import socket
from typing import Any

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


class Stream:
    """One connection from its beginning to its end; subclasses say what the bytes mean.

    Args:
        out: what is to be sent, in this order; may be filled before the socket is connected.
    """

    def __init__(self, out: list[bytes | memoryview]) -> None:
        self.out = out
        self.loop = asyncio.get_running_loop()
        self._socket: socket.socket | None = None
        self._writing = False
        self.why: str | None = None
        """Why it is over; ``None`` while it is not."""

    async def connect(self, addresses: list[Address]) -> None:
        """Connect to the first address where somebody listens; otherwise this is its end."""
        why = "no address"
        for family, where in addresses:
            plain = socket.socket(family, socket.SOCK_STREAM)
            plain.setblocking(False)
            try:
                await self.loop.sock_connect(plain, where)
            except OSError as error:
                plain.close()
                why = explain(error)
                continue
            except BaseException:
                plain.close()
                raise
            if family != socket.AF_UNIX:
                plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._socket = plain
            self.loop.add_reader(plain, self._readable)
            self.flush()
            return
        self.end(why)

    def flush(self) -> None:
        """Send as much as the socket takes now; the rest when it takes more."""
        out = self.out
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
            self.loop.add_writer(self._socket, self._writable)
        except OSError as error:
            self.end(explain(error))

    def end(self, why: str) -> None:
        """Close the socket, once, whatever ended it."""
        if self.why is not None:
            return
        self.why = why
        plain, self._socket = self._socket, None
        if plain is not None:
            self.loop.remove_reader(plain)
            self.loop.remove_writer(plain)
            plain.close()
        self.out.clear()
        self.ended(why, self.loop.time())

    def received(self, data: bytes, at_s: float) -> None:
        """Bytes came at ``at_s``."""
        raise NotImplementedError

    def ended(self, why: str, at_s: float) -> None:
        """The connection is over."""
        raise NotImplementedError

    def _writable(self) -> None:
        assert self._socket is not None
        self._writing = False
        self.loop.remove_writer(self._socket)
        self.flush()

    def _readable(self) -> None:
        assert self._socket is not None
        at_s = self.loop.time()
        try:
            data = self._socket.recv(READ_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            self.end(explain(error))
            return
        if data:
            self.received(data, at_s)
        else:
            self.end("the server closed the connection")


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


def explain(error: OSError) -> str:
    """An error of the system in the system's words, without Python's additions."""
    return os.strerror(error.errno).lower() if error.errno else str(error)
