"""HTTP/2 frames (RFC 9113), as far as a gRPC server needs them."""

from __future__ import annotations

import struct
from collections.abc import Iterable

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEAD_BYTES = 9
FRAME_BYTES = 16384
"""The largest payload either side may send until the other allows more."""
WINDOW_BYTES = 65535
"""Every flow-control window at first."""
LARGEST_WINDOW = 2**31 - 1
LARGEST_FRAME = 2**24 - 1

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE = 0, 1, 2, 3, 4, 5
PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 6, 7, 8, 9

END_STREAM, ACK, END_HEADERS, PADDED, PRIORITISED = 0x1, 0x1, 0x4, 0x8, 0x20

NO_ERROR, PROTOCOL_ERROR, INTERNAL_ERROR, FLOW_CONTROL_ERROR = 0, 1, 2, 3
STREAM_CLOSED, FRAME_SIZE_ERROR, REFUSED_STREAM, CANCEL = 5, 6, 7, 8
COMPRESSION_ERROR, ENHANCE_YOUR_CALM = 9, 11

HEADER_TABLE_SIZE, ENABLE_PUSH = 1, 2
MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE = 3, 4, 5
MAX_HEADER_LIST_SIZE = 6

_HEAD = struct.Struct(">BHBBI")
_SETTING = struct.Struct(">HI")


class StreamFault(Exception):
    """The peer broke the protocol on one stream, which ends with this error code (RFC 9113 5.4.2)."""

    def __init__(self, code: int, message: str) -> None:
        self.code = code
        super().__init__(message)


class ConnectionFault(Exception):
    """The peer broke the protocol: the connection ends with this error code."""

    def __init__(self, code: int, message: str) -> None:
        self.code = code
        super().__init__(message)


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """A whole frame."""
    return head(len(payload), kind, flags, stream) + payload


def head(length: int, kind: int, flags: int, stream: int) -> bytes:
    """The nine bytes before a payload."""
    return _HEAD.pack(length >> 16, length & 0xFFFF, kind, flags, stream)


def read_head(data: bytes, at: int) -> tuple[int, int, int, int]:
    """(payload length, kind, flags, stream) of the frame that begins at ``at``."""
    high, low, kind, flags, stream = _HEAD.unpack_from(data, at)
    return high << 16 | low, kind, flags, stream & 0x7FFFFFFF


def reset(stream: int, code: int) -> bytes:
    """An RST_STREAM frame."""
    return frame(RST_STREAM, 0, stream, struct.pack(">I", code))


def settings(values: Iterable[tuple[int, int]]) -> bytes:
    """A SETTINGS frame."""
    return frame(SETTINGS, 0, 0, b"".join(_SETTING.pack(*pair) for pair in values))


def read_settings(payload: bytes) -> Iterable[tuple[int, int]]:
    """(identifier, value) in order."""
    if len(payload) % _SETTING.size:
        raise ConnectionFault(FRAME_SIZE_ERROR, "SETTINGS of a wrong length")
    return _SETTING.iter_unpack(payload)


def unpadded(flags: int, payload: bytes) -> bytes:
    """The payload of DATA or HEADERS without padding and priority."""
    at, end = 0, len(payload)
    if flags & PADDED:
        if not payload:
            raise ConnectionFault(FRAME_SIZE_ERROR, "no room for the padding's length")
        at, end = 1, end - payload[0]
    if flags & PRIORITISED:
        at += 5
    if at > end:
        raise ConnectionFault(PROTOCOL_ERROR, "more padding than payload")
    return payload[at:end] if at or end < len(payload) else payload
