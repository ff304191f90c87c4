"""Answers as bytes: a status line, the few headers that TensorFlow Serving sends, and the body."""

from __future__ import annotations

import time
from email.utils import formatdate
from http import HTTPStatus
from typing import NamedTuple

from tuner.modelserver.http1.head import Head

JSON = "application/json"
HTML = "text/html"
PIECE_BYTES = 1 << 14
"""libevent writes no more at once."""

_PHRASES = {status.value: status.phrase for status in HTTPStatus} | {499: "Client Closed Request"}
_date = (0, "")


class Response(NamedTuple):
    """An answer; one that ``closes`` is the last on its connection."""

    status: int
    body: bytes
    kind: str = JSON
    headers: str = ""
    """More header lines, each with its CR LF."""
    closes: bool = False


def page(status: int) -> Response:
    """libevent's own answer, to what never reaches the API."""
    phrase = _PHRASES[status]
    body = (
        f"<HTML><HEAD>\n<TITLE>{status} {phrase}</TITLE>\n</HEAD><BODY>\n<H1>{phrase}</H1>\n"
        "</BODY></HTML>\n"
    )
    return Response(status, body.encode(), HTML, closes=True)


def written(response: Response, head: Head | None, last: bool) -> tuple[bytes | memoryview, ...]:
    """The answer to the request of ``head``, in one part unless it is larger than a piece.

    Args:
        head: ``None`` where it could not be read.
        last: no other answer follows on this connection.
    """
    status, body, kind, more, _ = response
    if head is not None and head.http_1_0:
        version = "1.0"
        connection = "Connection: keep-alive\r\n" if not last else ""
    else:
        version = "1.1"
        connection = "Connection: close\r\n" if last else ""
    start = (
        f"HTTP/{version} {status} {_PHRASES[status]}\r\nContent-Type: {kind}\r\nDate: {_now()}\r\n"
        f"Content-Length: {len(body)}\r\n{connection}{more}\r\n"
    ).encode("latin-1")
    if head is not None and head.method == "HEAD":
        return (start,)
    first = PIECE_BYTES - len(start)
    if len(body) <= first:
        return (start + body,)
    return start + body[:first], memoryview(body)[first:]


def _now() -> str:
    global _date
    second = int(time.time())
    if _date[0] != second:
        _date = (second, formatdate(second, usegmt=True))
    return _date[1]
