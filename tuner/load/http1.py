"""The calling end of HTTP/1.1 (RFC 9112): one request at a time on a kept-alive connection."""

from __future__ import annotations

import re
from collections.abc import Callable

from tuner.load.stream import Stream

_STATUS = re.compile(rb"HTTP/1\.[01] (\d{3})")
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding:[^\r]*chunked", re.IGNORECASE)
_CLOSE = re.compile(rb"\r\nconnection:[^\r]*close", re.IGNORECASE)
_CHUNK = re.compile(rb"([0-9a-fA-F]+)[^\r\n]*\r\n")


class MalformedAnswer(Exception):
    """What came is no answer."""


class AnswerReader:
    """Gathers one answer."""

    def __init__(self) -> None:
        self.status = 0
        self.body = bytearray()
        self.keep_alive = True
        self._rest = b""
        self._left: int | None = None
        """Bytes of body, or of the chunk, that are still to come; ``None``: until the end."""
        self._chunked = False

    def feed(self, data: bytes) -> bool:
        """Take what came; whether the answer is complete.

        Raises:
            MalformedAnswer: no HTTP/1.
        """
        data = self._rest + data if self._rest else data
        self._rest = b""
        while not self.status:
            end = data.find(b"\r\n\r\n")
            if end < 0:
                if not b"HTTP/1.".startswith(data[:7]):
                    raise MalformedAnswer(f"not an answer in HTTP/1: {data[:20]!r}")
                self._rest = data
                return False
            self._head(data[:end])
            data = data[end + 4 :]
        if self._chunked:
            return self._feed_chunks(data)
        self.body += data
        return self._left is not None and len(self.body) >= self._left

    def end(self) -> bool:
        """The connection ended: whether that ends the answer as it should."""
        return bool(self.status) and not self._chunked and self._left is None

    def _head(self, head: bytes) -> None:
        match = _STATUS.match(head)
        if match is None:
            raise MalformedAnswer(f"not an answer in HTTP/1: {head[:20]!r}")
        status = int(match[1])
        if status < 200:
            return
        self.status = status
        self._chunked = _CHUNKED.search(head) is not None
        length = _LENGTH.search(head)
        self._left = int(length[1]) if length else 0 if status in (204, 304) else None
        self.keep_alive = (
            head.startswith(b"HTTP/1.1") and not _CLOSE.search(head)
            and (self._chunked or self._left is not None)
        )  # fmt: skip

    def _feed_chunks(self, data: bytes) -> bool:
        while True:
            match = _CHUNK.match(data)
            if match is None:
                break
            size, start = int(match[1], 16), match.end()
            # A chunk ends with a line's end; after the last one may come trailers, then another.
            if size == 0:
                if data.find(b"\r\n", start) == start or b"\r\n\r\n" in data[start:]:
                    return True
                break
            if len(data) < start + size + 2:
                break
            self.body += data[start : start + size]
            data = data[start + size + 2 :]
        self._rest = data
        return False


class Connection(Stream):
    """A connection for one request after the other.

    Args:
        answered: told of each answer with the connection, its status and body, and when it came.
        failed: told instead why there is none; the connection is over then.
    """

    def __init__(
        self,
        answered: Callable[[Connection, int, bytearray, float], None],
        failed: Callable[[Connection, str, float], None],
    ) -> None:
        super().__init__([])
        self._answered, self._failed = answered, failed
        self._reader: AnswerReader | None = None
        self.served = 0
        """Requests that were answered here before."""
        self.unheard = True
        """Whether nothing of the answer under way has come."""
        self._kept_alive = True

    @property
    def usable(self) -> bool:
        """Whether another request may follow."""
        return self._kept_alive and self.why is None

    def ask(self, *request: bytes) -> None:
        """Send a request; to be called while none is under way."""
        self._reader = AnswerReader()
        self.unheard = True
        self.out += request
        self.flush()

    def received(self, data: bytes, at_s: float) -> None:
        reader = self._reader
        if reader is None:
            self.end("the server spoke without being asked")
            return
        self.unheard = False
        try:
            if not reader.feed(data):
                return
        except MalformedAnswer as error:
            self.end(str(error))
            return
        self._finish(reader, at_s)
        if not reader.keep_alive:
            self.end("the server keeps no connection")

    def ended(self, why: str, at_s: float) -> None:
        reader = self._reader
        if reader is not None and reader.end():
            self._finish(reader, at_s)
        elif reader is not None:
            self._reader = None
            self._failed(self, why, at_s)

    def _finish(self, reader: AnswerReader, at_s: float) -> None:
        self._reader = None
        self.served += 1
        self._kept_alive = reader.keep_alive
        self._answered(self, reader.status, reader.body, at_s)
