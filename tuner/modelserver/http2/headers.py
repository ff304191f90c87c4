"""Header blocks (RFC 7541): what a gRPC request's says, and those that answer it."""

from __future__ import annotations

from dataclasses import dataclass

import hpack

from tuner.modelserver.http2.frames import COMPRESSION_ERROR, ConnectionFault

_BLOCKS_KEPT = 256
_TIMEOUT_UNITS_S = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}


@dataclass(frozen=True)
class RequestHead:
    """What the headers of a request say.

    Attributes:
        timeout_s: ``grpc-timeout``; ``None`` where the client waits for ever.
        encoding: ``grpc-encoding``, of a message that is flagged as compressed.
        http_status: 200, or why this is no gRPC request.
    """

    path: str
    timeout_s: float | None = None
    encoding: str = "identity"
    http_status: int = 200


class HeadReader:
    """Reads the header blocks of one connection in order.

    A block that leaves the table alone means the same until one changes it: clients send the
    same few bytes for each call, and these are looked up instead of decoded.
    """

    def __init__(self) -> None:
        self._decoder = hpack.Decoder()
        self._known: dict[bytes, RequestHead] = {}

    def read(self, block: bytes) -> RequestHead:
        """Raises ConnectionFault for what cannot be decoded, since no later block could be."""
        known = self._known.get(block)
        if known is not None:
            return known
        try:
            fields = dict(self._decoder.decode(block, raw=True))
        except (hpack.HPACKError, UnicodeDecodeError) as error:
            raise ConnectionFault(COMPRESSION_ERROR, f"header block: {error}") from None
        found = _request_head(fields)
        if not leaves_table_alone(block) or len(self._known) >= _BLOCKS_KEPT:
            self._known.clear()
        if leaves_table_alone(block):
            self._known[block] = found
        return found


def _request_head(fields: dict[bytes, bytes]) -> RequestHead:
    path = fields.get(b":path", b"").decode("latin-1")
    if fields.get(b":method") != b"POST":
        return RequestHead(path, http_status=405)
    if not fields.get(b"content-type", b"").startswith(b"application/grpc"):
        return RequestHead(path, http_status=415)
    timeout = fields.get(b"grpc-timeout", b"").decode("latin-1")
    timeout_s = None
    if timeout[:-1].isdecimal() and timeout[-1] in _TIMEOUT_UNITS_S:
        timeout_s = int(timeout[:-1]) * _TIMEOUT_UNITS_S[timeout[-1]]
    encoding = fields.get(b"grpc-encoding", b"identity").decode("latin-1")
    return RequestHead(path, timeout_s, encoding)


_STATUS_200 = b"\x88"


def response_head() -> bytes:
    """The block before a message."""
    return _STATUS_200 + literal(b"content-type", b"application/grpc")


def trailers(status: int, message: str) -> bytes:
    """The block that ends a call."""
    block = literal(b"grpc-status", str(status).encode())
    if message:
        block += literal(b"grpc-message", _percent_encoded(message))
    return block


def http_refusal(status: int) -> bytes:
    """The whole answer to what is no gRPC request."""
    return literal(b":status", str(status).encode())


def _percent_encoded(message: str) -> bytes:
    """As gRPC wants it: printable ASCII but for the percent sign stays."""
    return b"".join(
        bytes((byte,)) if 0x20 <= byte <= 0x7E and byte != 0x25 else b"%%%02X" % byte
        for byte in message.encode("utf-8", "replace")
    )


def literal(name: bytes, value: bytes) -> bytes:
    """A header field that leaves the peer's table alone, without Huffman coding."""
    return b"\0" + _string(name) + _string(value)


def _string(text: bytes) -> bytes:
    return _integer(len(text), 7) + text


def _integer(value: int, prefix: int) -> bytes:
    limit = (1 << prefix) - 1
    if value < limit:
        return bytes((value,))
    out, value = bytearray((limit,)), value - limit
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def leaves_table_alone(block: bytes) -> bool:
    """Whether decoding a header block changes no table, so that it always means the same there."""
    at = 0
    try:
        while at < len(block):
            first = block[at]
            if first & 0x80:  # indexed
                _, at = _read_integer(block, at, 7)
                continue
            if first & 0x60:  # literal to be indexed, or a new size of the table
                return False
            index, at = _read_integer(block, at, 4)
            for _ in range(1 if index else 2):
                length, at = _read_integer(block, at, 7)
                at += length
    except IndexError:
        return False
    return at == len(block)


def _read_integer(block: bytes, at: int, prefix: int) -> tuple[int, int]:
    limit = (1 << prefix) - 1
    value = block[at] & limit
    at += 1
    if value < limit:
        return value, at
    shift = 0
    while True:
        byte = block[at]
        at += 1
        value += (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, at
