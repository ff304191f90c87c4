"""A stream and the calls on it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from tuner.load.http2.calls import Calls
from tuner.load.http2.frames import ProtocolError
from tuner.load.stream import Stream


class Link(Stream):
    """One HTTP/2 connection.

    Args:
        calls: may be begun before the socket is connected.
        lost: told of its end and why, before the calls are.
    """

    def __init__(self, calls: Calls, lost: Callable[[Link, str], None]) -> None:
        super().__init__(calls.out)
        self.calls = calls
        self._lost = lost
        self.greeted: asyncio.Future[None] = self.loop.create_future()
        """Done once the server spoke; its exception is why it did not."""

    def received(self, data: bytes, at_s: float) -> None:
        self.calls.now = at_s
        try:
            if not self.greeted.done():
                if data.startswith(b"HTTP/1"):
                    raise ProtocolError("it answers in HTTP/1; is this its port for REST?")
                self.greeted.set_result(None)
            self.calls.receive(data)
        except ProtocolError as error:
            self.end(f"the server does not speak HTTP/2 as it should: {error}")
            return
        self.flush()
        if self.calls.leaving and not self.calls.under_way:
            self.end("the server went away")

    def ended(self, why: str, at_s: float) -> None:
        if not self.greeted.done():
            self.greeted.set_exception(ConnectionError(why))
            # A connection that was made in passing has nobody who asks.
            self.greeted.exception()
        self._lost(self, why)
        self.calls.now = at_s
        self.calls.lost(why)
