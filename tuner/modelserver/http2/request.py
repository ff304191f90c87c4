"""A request's message, put together from the parts that DATA frames bring."""

from __future__ import annotations

import struct
import zlib

import numpy as np

from tuner.modelserver.http2.headers import RequestHead
from tuner.modelserver.status import Code, ServingError

Body = bytes | memoryview
"""A serialised message: a large one stays in the buffer it was received into."""

_PREFIX = struct.Struct(">BI")
PREFIX_BYTES = _PREFIX.size
"""Before a message: whether it is compressed, and its length."""
_LARGEST_BYTES = 2**31 - 1
"""Of any message, as protocol buffers have it."""
_WINDOW_BITS = {"gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}


class Request:
    """One call while its message is on the way.

    Args:
        limit_bytes: of the message; negative: none.
    """

    __slots__ = ("_compressed", "_limit_bytes", "_prefix", "body", "filled", "head")

    @property
    def taken(self) -> int:
        """Bytes that came, the prefix among them."""
        return len(self._prefix) + self.filled

    def __init__(self, head: RequestHead, limit_bytes: int) -> None:
        self.head, self._limit_bytes = head, limit_bytes
        self._prefix = b""
        self._compressed = False
        self.body: Body | None = None
        self.filled = 0

    def receive(self, part: memoryview) -> None:
        """Take the next bytes.

        Raises:
            ServingError: they are no single message within the limit.
        """
        if self.body is None:
            missing = PREFIX_BYTES - len(self._prefix)
            self._prefix += part[:missing]
            part = part[missing:]
            if len(self._prefix) < PREFIX_BYTES:
                return
            length = self._begin()
            if len(part) == length:  # the usual small request
                self.body, self.filled = bytes(part), length
                return
            try:
                self.body = np.empty(length, np.uint8).data
            except MemoryError:
                raise ServingError(
                    Code.RESOURCE_EXHAUSTED, f"No memory for a message of {length} bytes"
                ) from None
        end = self.filled + len(part)
        if end > len(self.body):
            raise ServingError(Code.UNIMPLEMENTED, "More than one message in a unary request")
        if part:
            assert isinstance(self.body, memoryview)
            self.body[self.filled : end] = part
        self.filled = end

    def room(self, missing: int) -> memoryview | None:
        """Where the next ``missing`` bytes can be received without ``receive``."""
        end = self.filled + missing
        if not isinstance(self.body, memoryview) or end > len(self.body):
            return None
        return self.body[self.filled : end]

    def message(self) -> Body:
        """The whole message as it came.

        Raises:
            ServingError: it is not whole.
        """
        if self.body is None or self.filled != len(self.body):
            raise ServingError(Code.INTERNAL, "The request ended before its message did")
        return self.body

    def unpacked(self, body: Body) -> Body:
        """The message without its compression; takes time, and so belongs into a call's own thread.

        Raises:
            ServingError: it is not compressed as it says, or larger than the limit.
        """
        if not self._compressed:
            return body
        bits = _WINDOW_BITS.get(self.head.encoding)
        if bits is None:
            raise ServingError(
                Code.UNIMPLEMENTED,
                f"grpc-encoding {self.head.encoding}; this server reads identity, deflate and gzip",
            )
        limit = self._limit_bytes if self._limit_bytes >= 0 else _LARGEST_BYTES
        unpacker = zlib.decompressobj(bits)
        try:
            message = unpacker.decompress(body, limit + 1)
        except zlib.error as error:
            raise ServingError(Code.INTERNAL, f"Decompressing the request: {error}") from None
        if len(message) > limit:
            raise ServingError(
                Code.RESOURCE_EXHAUSTED,
                f"Received message larger than max: more than {limit} bytes when decompressed",
            )
        if not unpacker.eof:
            raise ServingError(Code.INTERNAL, "Decompressing the request: it is cut short")
        return message

    def _begin(self) -> int:
        flag, length = _PREFIX.unpack(self._prefix)
        if flag > 1:
            raise ServingError(Code.INTERNAL, f"Invalid gRPC message flag {flag}")
        if 0 <= self._limit_bytes < length:
            raise ServingError(
                Code.RESOURCE_EXHAUSTED,
                f"Received message larger than max ({length} vs. {self._limit_bytes})",
            )
        self._compressed = flag == 1
        return length
