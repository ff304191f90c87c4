"""One client's connection: what it sent that is not answered yet, and what it has not taken yet."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable

from tuner.modelserver.http1 import head as heads
from tuner.modelserver.http1.body import Body, Chunked, Content, Sized, unpacked
from tuner.modelserver.http1.head import Head, HttpError
from tuner.modelserver.http1.response import PIECE_BYTES, Response, page, written

_RECEIVED_AT_ONCE = 1 << 16

Answer = Callable[[Head, Content], Response]
"""From a request to its answer; never raises."""


class Connection:
    """Served by one thread at a time, which holds ``lock``.

    The thread that the kernel wakes reads, answers and writes itself, and never waits for the client:
    what is incomplete stays here, without a thread, until the next event.

    Attributes:
        again: events came since the serving thread last looked.
        ended: the client has sent all it will.
    """

    __slots__ = (
        "_answer",
        "_body",
        "_head",
        "_last",
        "_refused",
        "_start",
        "_unsent",
        "_waiting",
        "again",
        "ended",
        "lock",
        "socket",
    )

    def __init__(self, client: socket.socket, answer: Answer) -> None:
        self.socket, self._answer = client, answer
        self.lock = threading.Lock()
        self.again = self.ended = False
        self._start = bytearray()  # of a head that is not complete
        self._waiting = (b"", 0)  # requests that came while an answer was not taken
        self._head: Head | None = None
        self._body: Body | None = None
        self._unsent: list[memoryview] = []
        self._last = self._refused = False

    @property
    def idle(self) -> bool:
        """Between two requests, with nothing left to send."""
        return not (self.lock.locked() or self._unsent or self._head or self._start)

    def serve(self) -> bool:
        """Read and answer what is there; ``False`` once the connection is over.

        Raises:
            OSError: the client is gone.
        """
        try:
            while True:
                if self._unsent and not self._flush():
                    return True
                if self._last and not self._refused:
                    return False
                # What a short read left over has an event of its own; an end that came with it not.
                if self._receive() and not (self.ended or self._unsent or self._last):
                    return True
        except BlockingIOError:
            return True
        except EOFError:
            return False

    def _receive(self) -> bool:
        """Take in what there is; whether that was all."""
        waiting = self._waiting
        if waiting[0]:
            self._waiting = (b"", 0)
            self._guarded(self._read, *waiting)
            return False
        if isinstance(self._body, Sized) and not self._refused:  # straight to where it belongs
            rest = self._body.rest()
            count, wanted = self.socket.recv_into(rest), len(rest)
            del rest
            self._body.filled(count)
            if self._body.complete:
                self._guarded(self._respond_to_body)
        else:
            data = self.socket.recv(_RECEIVED_AT_ONCE)
            count, wanted = len(data), _RECEIVED_AT_ONCE
            if not self._refused:
                self._guarded(self._read, data, 0)
        if not count:
            raise EOFError
        return count < wanted

    def _guarded(self, step: Callable[..., None], *arguments: object) -> None:
        try:
            step(*arguments)
        except HttpError as error:
            self._last = self._refused = True
            self._head = self._body = None
            self._send(written(page(error.status), None, True))
            if not self._unsent:
                self._end_sending()

    def _read(self, data: bytes, start: int) -> None:
        while start < len(data) and not self._last:
            if self._unsent:
                self._waiting = (data, start)
                return
            if self._body is not None:
                start = self._body.take(data, start)
                if self._body.complete:
                    self._respond_to_body()
                continue
            found = self._next_head(data, start)
            if found is None:
                return
            head, data, start = found
            size = head.body_bytes
            if size is not None and len(data) - start >= size:
                body = data[start : start + size]
                start += size
                self._respond(head, body)
                continue
            self._head, self._body = head, Chunked() if size is None else Sized(size)
            if head.expects_continue and start == len(data):
                self._send((b"HTTP/1.1 100 Continue\r\n\r\n",))

    def _next_head(self, data: bytes, start: int) -> tuple[Head, bytes, int] | None:
        """The head that ends in ``data``, and where what follows starts; else what came is kept."""
        if not self._start:
            while data[start : start + 1] in (b"\r", b"\n"):  # left over from a body, RFC 9112 2.2
                start += 1
            end = _end_of_head(data, start)
            if end >= 0:
                return heads.parse(data[start:end]), data, end
        searched = max(0, len(self._start) - 3)
        self._start += memoryview(data)[start:]
        end = _end_of_head(self._start, searched)
        if end < 0:
            if len(self._start) > heads.LIMIT_BYTES:
                raise HttpError(400)
            return None
        data = bytes(self._start)
        self._start.clear()
        return heads.parse(data[:end]), data, end

    def _respond_to_body(self) -> None:
        head, body = self._head, self._body
        assert head is not None and body is not None
        self._head = self._body = None
        self._respond(head, body.content())

    def _respond(self, head: Head, body: Content) -> None:
        response = self._answer(head, unpacked(body) if head.gzipped else body)
        self._last = last = not head.keeps_alive or response.closes
        self._send(written(response, head, last))

    def _send(self, parts: tuple[bytes | memoryview, ...]) -> None:
        """Send, or keep, an answer.

        In pieces and without TCP_NODELAY, as libevent does: of an answer of more than one piece the
        kernel holds the rest back until the client acknowledges the first, on a kept connection
        after 40 ms.
        """
        sent = 0
        if not self._unsent:
            with contextlib.suppress(BlockingIOError):
                sent = self.socket.send(parts[0])
        views = [memoryview(parts[0])[sent:], *(memoryview(part) for part in parts[1:])]
        self._unsent += [view for view in views if view]
        if len(parts) > 1:
            self._flush()

    def _flush(self) -> bool:
        while self._unsent:
            first = self._unsent[0]
            try:
                sent = self.socket.send(first[:PIECE_BYTES])
            except BlockingIOError:
                return False
            if sent < len(first):
                self._unsent[0] = first[sent:]
            else:
                del self._unsent[0]
        if self._refused:
            self._end_sending()
        return True

    def _end_sending(self) -> None:
        """What the client still sends is read over: closed at once, it would lose the answer."""
        self.socket.shutdown(socket.SHUT_WR)


def _end_of_head(data: bytes | bytearray, start: int) -> int:
    """Where the blank line ends, of lines that end in CR LF or, as libevent takes them, in LF."""
    usual = data.find(b"\n\r\n", start)
    bare = data.find(b"\n\n", start, usual if usual >= 0 else len(data))
    return bare + 2 if bare >= 0 else usual + 3 if usual >= 0 else -1
