"""Bodies of HTTP/1 requests: of known length, in chunks, compressed; each read in linear time."""

from __future__ import annotations

import zlib
from typing import Protocol

from tuner.modelserver.http1.head import BODY_LIMIT_BYTES, HttpError

_FIRST_BUFFER_BYTES = 1 << 20
_LINE_LIMIT_BYTES = 8192
_UNPACK_STEP_BYTES = 1 << 14  # a thousand times as much at most comes out of it
_GZIP_WINDOW = 31


Content = bytes | bytearray


class Body(Protocol):
    """A body that is still arriving."""

    def take(self, data: bytes, start: int) -> int:
        """Keep what belongs to the body; where in ``data`` it stopped."""

    @property
    def complete(self) -> bool: ...

    def content(self) -> Content: ...


class Sized:
    """A body of known length, received into one buffer that grows with what has come."""

    def __init__(self, size_bytes: int) -> None:
        self._size, self._filled = size_bytes, 0
        self._buffer = bytearray(min(size_bytes, _FIRST_BUFFER_BYTES))

    @property
    def complete(self) -> bool:
        return self._filled == self._size

    def take(self, data: bytes, start: int) -> int:
        while start < len(data) and not self.complete:
            rest = self.rest()
            part = memoryview(data)[start : start + len(rest)]
            rest[: len(part)] = part
            del rest
            self._filled += len(part)
            start += len(part)
        return start

    def rest(self) -> memoryview:
        """Where the next bytes go; no longer valid when more of it is asked for."""
        if self._filled == len(self._buffer):
            self._buffer.extend(bytes(min(self._filled, self._size - self._filled)))
        return memoryview(self._buffer)[self._filled :]

    def filled(self, count: int) -> None:
        """That many bytes were written to ``rest``."""
        self._filled += count

    def content(self) -> Content:
        return self._buffer


class Chunked:
    """A body in chunks (RFC 9112, 7.1); extensions and trailers are read over."""

    def __init__(self) -> None:
        self._content = bytearray()
        self._line = bytearray()
        self._state, self._missing = "size", 0
        self.complete = False

    def take(self, data: bytes, start: int) -> int:
        while start < len(data) and not self.complete:
            if self._state == "data":
                end = min(len(data), start + self._missing)
                self._content += memoryview(data)[start:end]
                self._missing -= end - start
                if not self._missing:
                    self._state = "end"
            else:
                end = data.find(b"\n", start) + 1 or len(data)
                self._line += memoryview(data)[start:end]
                if len(self._line) > _LINE_LIMIT_BYTES:
                    raise HttpError(400)
                if self._line.endswith(b"\n"):
                    line = bytes(self._line).rstrip(b"\r\n")
                    self._line.clear()
                    self._read_line(line)
            start = end
        return start

    def _read_line(self, line: bytes) -> None:
        if self._state == "size":
            digits = line.partition(b";")[0].strip()
            if not 0 < len(digits) <= 16 or digits.strip(b"0123456789abcdefABCDEF"):
                raise HttpError(400)
            self._missing = int(digits, 16)
            if len(self._content) + self._missing > BODY_LIMIT_BYTES:
                raise HttpError(413)
            self._state = "data" if self._missing else "trailer"
        elif self._state == "end":
            if line:
                raise HttpError(400)
            self._state = "size"
        else:
            self.complete = not line

    def content(self) -> Content:
        return self._content


def unpacked(body: Content) -> Content:
    """A gzipped body; empty where it is none, or cut, as TensorFlow Serving has it.

    Raises:
        HttpError: 413, it is larger than a body may be.
    """
    inflater = zlib.decompressobj(_GZIP_WINDOW)
    content = bytearray()
    try:
        for start in range(0, len(body), _UNPACK_STEP_BYTES):
            content += inflater.decompress(body[start : start + _UNPACK_STEP_BYTES])
            if len(content) > BODY_LIMIT_BYTES:
                raise HttpError(413)
            if inflater.eof:
                break
    except zlib.error:
        return b""
    return content if inflater.eof else b""
