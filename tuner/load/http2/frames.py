"""HTTP/2 frames as bytes (RFC 9113, sections 4 and 6)."""

from __future__ import annotations

import struct
from collections.abc import Mapping

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEADER_BYTES = 9

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS = 0, 1, 2, 3, 4
PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 5, 6, 7, 8, 9

ACK = END_STREAM = 0x1
END_HEADERS = 0x4
PADDED = 0x8
HAS_PRIORITY = 0x20

HEADER_TABLE_SIZE, ENABLE_PUSH, MAX_CONCURRENT_STREAMS = 1, 2, 3
INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE = 4, 5
"""Names of settings."""

MAX_WINDOW = 2**31 - 1
DEFAULT_WINDOW = 65_535
DEFAULT_FRAME = 16_384

NO_ERROR, PROTOCOL_ERROR, FLOW_CONTROL_ERROR, FRAME_SIZE_ERROR = 0, 1, 3, 6
REFUSED_STREAM, CANCEL, COMPRESSION_ERROR = 7, 8, 9
"""Codes of RST_STREAM and GOAWAY."""

read_header = struct.Struct(">HBBBI").unpack_from
"""Upper 16 and lower 8 bits of the length, type, flags, stream."""
read_int = struct.Struct(">I").unpack_from
pack_int = struct.Struct(">I").pack
_pack_header = struct.Struct(">IB").pack
_SETTING = struct.Struct(">HI")


class ProtocolError(Exception):
    """The peer broke the protocol; the connection cannot go on."""


def prefix(kind: int, flags: int, length: int) -> bytes:
    """The part of a frame header before the stream's number: 24-bit length, type, flags."""
    return _pack_header(length << 8 | kind, flags)


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """One whole frame."""
    return prefix(kind, flags, len(payload)) + pack_int(stream) + payload


def settings(values: Mapping[int, int]) -> bytes:
    """A SETTINGS frame."""
    return frame(SETTINGS, 0, 0, b"".join(_SETTING.pack(*item) for item in values.items()))


def read_settings(payload: bytes) -> dict[int, int]:
    """The values of a SETTINGS frame's payload; a repeated one counts as it comes last."""
    if len(payload) % _SETTING.size:
        raise ProtocolError(f"a SETTINGS frame of {len(payload)} bytes")
    return dict(_SETTING.iter_unpack(payload))


def window_update(stream: int, size: int) -> bytes:
    """A WINDOW_UPDATE frame; stream 0 is the connection."""
    return frame(WINDOW_UPDATE, 0, stream, pack_int(size))


def reset(stream: int, code: int) -> bytes:
    """A RST_STREAM frame."""
    return frame(RST_STREAM, 0, stream, pack_int(code))


def unpad(flags: int, payload: bytes) -> bytes:
    """The content of a padded payload: without its first byte and as many at its end."""
    if not flags & PADDED:
        return payload
    if not payload or payload[0] >= len(payload):
        raise ProtocolError("padding longer than its frame")
    return payload[1 : len(payload) - payload[0]]
