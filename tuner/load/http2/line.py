"""A connection that comes back: calls on a socket, and a new socket where the old one was lost.

A call on a lost connection ends as UNAVAILABLE, and so does one that is begun while nobody
listens, as with gRPC's own clients. Attempts to connect again are ``RETRY_S`` apart.
"""

from __future__ import annotations

import asyncio
from collections import deque

from tuner.load.http2 import status
from tuner.load.http2.calls import Answered, Call, Calls, Fields
from tuner.load.http2.link import Link
from tuner.load.stream import Address

RETRY_S = 0.1


class Line:
    """One connection to a server, or the next one in its place.

    Args:
        addresses: of the server, to be tried in turn.
        kinds, answered: see ``Calls``.
        timeout_s: for every call.
    """

    def __init__(
        self, addresses: list[Address], kinds: list[Fields], answered: Answered, timeout_s: float
    ) -> None:
        self._addresses, self._kinds, self._answered = addresses, kinds, answered
        self._timeout_s = timeout_s
        self._loop = asyncio.get_running_loop()
        self._link: Link | None = None
        self._attempts: set[asyncio.Task[None]] = set()
        self._down = ""
        self._retry_at = 0.0
        self._deadlines: deque[tuple[float, Link, Call]] = deque()
        self._sweep: asyncio.TimerHandle | None = None

    async def connect(self) -> None:
        """Connect and wait until the server says that it speaks HTTP/2.

        Raises:
            OSError: nobody listens, or not in HTTP/2.
        """
        await self._renew().greeted

    def call(self, tag: int, kind: int, body: bytes, keep: bool = False) -> Call | None:
        """Begin a call, to be sent by ``flush``. ``None``: it ended at once."""
        now = self._loop.time()
        link = self._link
        if link is None or link.calls.leaving:
            if now < self._retry_at:
                self._answered(tag, now, status.UNAVAILABLE, self._down)
                return None
            link = self._renew()
        link.calls.now = now
        call = link.calls.call(tag, kind, body, keep)
        deadlines = self._deadlines
        while deadlines and deadlines[0][2].done:
            deadlines.popleft()
        deadlines.append((now + self._timeout_s, link, call))
        if self._sweep is None:
            self._sweep = self._loop.call_later(self._timeout_s, self._expire)
        return call

    def flush(self) -> None:
        """Send what was begun."""
        if self._link is not None:
            self._link.flush()

    def close(self) -> None:
        """Close the connection."""
        if self._sweep is not None:
            self._sweep.cancel()
        if self._link is not None:
            self._link.end("closed")

    def _expire(self) -> None:
        now = self._loop.time()
        deadlines = self._deadlines
        while deadlines and (deadlines[0][2].done or deadlines[0][0] <= now):
            _, link, call = deadlines.popleft()
            link.calls.now = now
            link.calls.give_up(call, status.DEADLINE_EXCEEDED, "no answer in time")
            link.flush()
        self._sweep = self._loop.call_at(deadlines[0][0], self._expire) if deadlines else None

    def _renew(self) -> Link:
        self._retry_at = self._loop.time() + RETRY_S
        link = self._link = Link(Calls(self._kinds, self._answered), self._lost)
        task = self._loop.create_task(link.connect(self._addresses))
        self._attempts.add(task)
        task.add_done_callback(self._attempts.discard)
        return link

    def _lost(self, link: Link, why: str) -> None:
        if link is self._link:
            self._link, self._down = None, why
