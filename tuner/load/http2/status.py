"""What a call's end means in gRPC's codes, from every way in which HTTP/2 can end it.

After "gRPC over HTTP2" and "HTTP to gRPC Status Code Mapping" of the gRPC documentation.
"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import unquote_to_bytes

from tuner.load.http2 import frames

OK, CANCELLED, UNKNOWN, DEADLINE_EXCEEDED, PERMISSION_DENIED = 0, 1, 2, 4, 7
RESOURCE_EXHAUSTED, UNIMPLEMENTED, INTERNAL, UNAVAILABLE, UNAUTHENTICATED = 8, 12, 13, 14, 16

_FROM_HTTP = {
    400: INTERNAL,
    401: UNAUTHENTICATED,
    403: PERMISSION_DENIED,
    404: UNIMPLEMENTED,
    429: UNAVAILABLE,
    502: UNAVAILABLE,
    503: UNAVAILABLE,
    504: UNAVAILABLE,
}

_FROM_RESET = {
    frames.REFUSED_STREAM: UNAVAILABLE,
    frames.CANCEL: CANCELLED,
    11: RESOURCE_EXHAUSTED,
    12: PERMISSION_DENIED,
}
"""11 is ENHANCE_YOUR_CALM, 12 INADEQUATE_SECURITY."""


def from_trailers(fields: Mapping[bytes, bytes]) -> tuple[int, str]:
    """Code and message of the fields that end a stream."""
    code = fields.get(b"grpc-status")
    if code == b"0":
        return OK, ""
    message = unquote_to_bytes(fields.get(b"grpc-message", b"")).decode(errors="replace")
    if code is not None and code.isdigit():
        return int(code), message
    http = fields.get(b":status", b"200")
    if http != b"200":
        return from_http(http)
    return UNKNOWN, message or "the answer ended without grpc-status"


def from_http(status: bytes) -> tuple[int, str]:
    """Code and message of an HTTP status other than 200."""
    text = status.decode(errors="replace")
    return _FROM_HTTP.get(int(status) if status.isdigit() else 0, UNKNOWN), f"HTTP status {text}"


def from_reset(code: int) -> tuple[int, str]:
    """Code and message of a stream that the server gave up."""
    return _FROM_RESET.get(code, INTERNAL), f"the server reset the stream, HTTP/2 error {code}"
