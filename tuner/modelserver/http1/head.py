"""The head of an HTTP/1 request, by the rules of libevent, on which TensorFlow Serving stands."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

LIMIT_BYTES = 1 << 20
BODY_LIMIT_BYTES = 2**31 - 1
_REMEMBERED_BYTES = 4096

_KNOWN_METHODS = frozenset(("GET", "POST", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH"))
_VERSION = re.compile(r"HTTP/(\d{1,9})\.(\d{1,9})")
_ABSOLUTE = re.compile(r"(?i)\A(?:https?:)?//[^/?#]*")


class HttpError(Exception):
    """The connection is answered with this status and a page of HTML, and closed."""

    def __init__(self, status: int) -> None:
        self.status = status
        super().__init__(status)


@dataclass(frozen=True, slots=True)
class Head:
    """What a request says before its body."""

    method: str
    target: str
    """Path and query as the client wrote them, without scheme and host."""
    http_1_0: bool
    keeps_alive: bool
    body_bytes: int | None
    """``None``: the body comes in chunks."""
    gzipped: bool
    expects_continue: bool
    origin: bool
    """Whether it comes from a page of another origin (CORS)."""


def parse(head: bytes) -> Head:
    """A head, up to the blank line that ends it.

    Clients send the same head again and again: those seen lately are not parsed anew.

    Raises:
        HttpError: 400 for what is no HTTP, 413 for a body too large, 417, 501 for an unknown method.
    """
    return _remembered(head) if len(head) <= _REMEMBERED_BYTES else _parse(head)


def _parse(head: bytes) -> Head:
    first, *lines = head.decode("latin-1").split("\n")
    method, target, version = _request_line(first.rstrip("\r"))
    fields = _fields(lines)
    if method not in _KNOWN_METHODS:
        raise HttpError(501)
    http_1_0 = version < (1, 1)
    connection = fields.get("connection", "").lower()
    keeps_alive = connection.startswith("keep-alive") if http_1_0 else not connection.startswith("close")
    relative = _ABSOLUTE.sub("", target, count=1)
    if relative != target and not target.startswith("//"):  # as through a proxy
        keeps_alive = fields.get("proxy-connection", "").lower() == "keep-alive"
    expectation = fields.get("expect", "").lower()
    if expectation not in ("", "100-continue"):
        raise HttpError(417)
    return Head(
        method=method,
        target=relative or "/",
        http_1_0=http_1_0,
        keeps_alive=keeps_alive,
        body_bytes=_body_bytes(fields),
        gzipped="gzip" in fields.get("content-encoding", ""),
        expects_continue=bool(expectation) and not http_1_0,
        origin="origin" in fields,
    )


_remembered = lru_cache(maxsize=1024)(_parse)


def _request_line(line: str) -> tuple[str, str, tuple[int, int]]:
    method, _, rest = line.rstrip(" ").partition(" ")
    target, _, version = rest.rpartition(" ")
    found = _VERSION.fullmatch(version)
    if not target or found is None or int(found[1]) > 1:
        raise HttpError(400)
    return method, target, (int(found[1]), int(found[2]))


def _fields(lines: list[str]) -> dict[str, str]:
    """The first value of each name, in small letters."""
    fields: dict[str, str] = {}
    for line in lines:
        line = line.rstrip("\r")
        if line[:1] in (" ", "\t") or not line:  # a folded line goes on with a value nobody asks for
            continue
        name, colon, value = line.partition(":")
        if not colon:
            raise HttpError(400)
        value = value.strip(" \t")
        name = name.lower()
        if name == "content-length" and fields.get(name, value) != value:
            raise HttpError(400)
        fields.setdefault(name, value)
    return fields


def _body_bytes(fields: dict[str, str]) -> int | None:
    coding = fields.get("transfer-encoding")
    if coding is not None:
        if coding.lower() != "chunked":
            raise HttpError(400)
        return None
    text = fields.get("content-length", "0")
    if not (text.isascii() and text.isdigit()):
        raise HttpError(400)
    if len(text) > 19 or int(text) > BODY_LIMIT_BYTES:
        raise HttpError(413)
    return int(text)
