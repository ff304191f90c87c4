"""Header blocks (RFC 7541): what a gRPC request's says, and those that answer it."""

from __future__ import annotations

from dataclasses import dataclass

import hpack

from tuner.modelserver.http2.frames import (
    COMPRESSION_ERROR,
    PROTOCOL_ERROR,
    ConnectionFault,
    StreamFault,
)

LIST_LIMIT_BYTES = 1 << 16
"""Of a request's fields, as SETTINGS_MAX_HEADER_LIST_SIZE counts them."""
_LARGEST_LIST_BYTES = 1 << 22
"""Decoded all the same, since later blocks build on the same table."""
_MESSAGE_BYTES = 4096
"""Of an error's text, percent-encoded: clients take 8 kB of trailers, and frames 16 kB."""
_BLOCKS_KEPT = 256
_TIMEOUT_UNITS_S = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}


@dataclass(frozen=True)
class RequestHead:
    """What the headers of a request say.

    Attributes:
        timeout_s: ``grpc-timeout``; ``None`` where the client waits for ever.
        encoding: ``grpc-encoding``, of a message that is flagged as compressed.
        http_status: 200, or why this is no gRPC request.
        content_bytes: ``content-length``; ``None`` where it isn't said.
        oversized: whether there are more fields than the server takes.
    """

    path: str
    timeout_s: float | None = None
    encoding: str = "identity"
    http_status: int = 200
    content_bytes: int | None = None
    oversized: bool = False


class HeadReader:
    """Reads the header blocks of one connection in order.

    A block that leaves the table alone means the same until one changes it: clients send the
    same few bytes for each call, and these are looked up instead of decoded.
    """

    def __init__(self) -> None:
        self._decoder = hpack.Decoder(max_header_list_size=_LARGEST_LIST_BYTES)
        self._known: dict[bytes, RequestHead] = {}

    def decode(self, block: bytes) -> list[tuple[bytes, bytes]]:
        """Names and values in order. Raises ConnectionFault for what cannot be decoded, since no
        later block could be."""
        try:
            return [(field[0], field[1]) for field in self._decoder.decode(block, raw=True)]
        except (hpack.HPACKError, UnicodeDecodeError) as error:
            raise ConnectionFault(COMPRESSION_ERROR, f"header block: {error}") from None

    def read_trailers(self, block: bytes) -> None:
        """Raises ConnectionFault as ``decode``, StreamFault for what cannot stand in trailers."""
        _check_fields(self.decode(block), trailers=True)

    def read(self, block: bytes) -> RequestHead:
        """A request's head.

        Raises:
            ConnectionFault: as ``decode``.
            StreamFault: a malformed request (RFC 9113 8.1.1).
        """
        known = self._known.get(block)
        if known is not None:
            return known
        listed = self.decode(block)
        _check_fields(listed, trailers=False)
        size = sum(len(name) + len(value) + 32 for name, value in listed)
        found = _request_head(dict(listed), size > LIST_LIMIT_BYTES)
        if not leaves_table_alone(block) or len(self._known) >= _BLOCKS_KEPT:
            self._known.clear()
        if leaves_table_alone(block):
            self._known[block] = found
        return found


_PSEUDO = frozenset({b":method", b":scheme", b":path", b":authority"})
_NEEDED = frozenset({b":method", b":scheme", b":path"})
_OF_A_CONNECTION = frozenset({
    b"connection", b"proxy-connection", b"keep-alive", b"transfer-encoding", b"upgrade",
})


def _check_fields(listed: list[tuple[bytes, bytes]], trailers: bool) -> None:
    """Refuse what RFC 9113 8.2 and 8.3 call malformed."""
    pseudo: set[bytes] = set()
    regular = False
    for name, value in listed:
        if name != name.lower():
            raise StreamFault(PROTOCOL_ERROR, f"the name {name!r} is not in lower case")
        if name.startswith(b":"):
            if regular or trailers or name not in _PSEUDO or name in pseudo:
                raise StreamFault(PROTOCOL_ERROR, f"{name!r} does not belong there")
            pseudo.add(name)
            continue
        regular = True
        if name in _OF_A_CONNECTION or (name == b"te" and value != b"trailers"):
            raise StreamFault(PROTOCOL_ERROR, f"{name!r} is of a connection")
    if trailers:
        return
    if missing := _NEEDED - pseudo:
        raise StreamFault(PROTOCOL_ERROR, f"no {min(missing)!r}")
    if (b":path", b"") in listed:
        raise StreamFault(PROTOCOL_ERROR, "an empty :path")


def _request_head(fields: dict[bytes, bytes], oversized: bool) -> RequestHead:
    path = fields[b":path"].decode("latin-1")
    content = fields.get(b"content-length", b"")
    if content and not content.isdigit():
        raise StreamFault(PROTOCOL_ERROR, f"content-length {content[:20]!r}")
    content_bytes = int(content[:20]) if content else None
    if fields.get(b":method") != b"POST":
        return RequestHead(path, http_status=405)
    if not fields.get(b"content-type", b"").startswith(b"application/grpc"):
        return RequestHead(path, http_status=415)
    timeout = fields.get(b"grpc-timeout", b"").decode("latin-1")
    timeout_s = None
    if timeout[:-1].isdecimal() and timeout[-1] in _TIMEOUT_UNITS_S:
        timeout_s = int(timeout[:-1]) * _TIMEOUT_UNITS_S[timeout[-1]]
    encoding = fields.get(b"grpc-encoding", b"identity").decode("latin-1")
    return RequestHead(
        path, timeout_s, encoding, content_bytes=content_bytes, oversized=oversized
    )


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
    """As gRPC wants it: printable ASCII but for the percent sign stays. A text too long for a frame
    ends early, and says so."""
    out, size = [], 0
    for place, letter in enumerate(message):
        coded = b"".join(
            bytes((byte,)) if 0x20 <= byte <= 0x7E and byte != 0x25 else b"%%%02X" % byte
            for byte in letter.encode("utf-8", "replace")
        )
        size += len(coded)
        if size > _MESSAGE_BYTES:
            out.append(b" ... (%d characters more)" % (len(message) - place))
            break
        out.append(coded)
    return b"".join(out)


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
