"""The REST client: answers in every framing, connections kept, lost and made again."""

from __future__ import annotations

import asyncio
import base64
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from tuner.load import child
from tuner.load.http1 import AnswerReader, MalformedAnswer
from tuner.load.rest_client import RestTransport

ANSWERS = [
    (b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbody", 200, b"body", True),
    (b"HTTP/1.1 200 OK\r\ncontent-length:0\r\n\r\n", 200, b"", True),
    (b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nxy", 200, b"xy", False),
    (b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nxy", 200, b"xy", False),
    (b"HTTP/1.1 204 No Content\r\n\r\n", 204, b"", True),
    (
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 503 Busy\r\nContent-Length: 2\r\n\r\nno",
        503, b"no", True,
    ),
    (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\nA;x\r\n0123456789\r\n0\r\n\r\n",
        200, b"body0123456789", True,
    ),
    (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nTrailer: y\r\n\r\n",
        200, b"x", True,
    ),
]  # fmt: skip


@pytest.mark.parametrize("size", [1, 3, 1000])
@pytest.mark.parametrize(("data", "status", "body", "keep_alive"), ANSWERS)
def test_an_answer_is_complete_with_its_last_byte(
    data: bytes, status: int, body: bytes, keep_alive: bool, size: int
) -> None:
    reader = AnswerReader()
    pieces = [data[at : at + size] for at in range(0, len(data), size)]
    assert [reader.feed(piece) for piece in pieces] == [False] * (len(pieces) - 1) + [True]
    assert (reader.status, bytes(reader.body), reader.keep_alive) == (status, body, keep_alive)


def test_an_answer_without_length_ends_with_the_connection() -> None:
    reader = AnswerReader()
    assert not reader.feed(b"HTTP/1.1 200 OK\r\n\r\nsome")
    assert not reader.feed(b"thing")
    assert reader.end()
    assert bytes(reader.body) == b"something"
    cut_off = AnswerReader()
    assert not cut_off.feed(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nsome")
    assert not cut_off.end()


def test_what_is_no_answer_is_refused() -> None:
    with pytest.raises(MalformedAnswer, match="PRI"):
        AnswerReader().feed(b"PRI * HTTP/2.0")


Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
GOOD = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


async def read_request(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
    return await reader.readexactly(length)


def drive(handler: Handler, work: Any, timeout_s: float = 5.0) -> dict[int, tuple[int, str]]:
    """Run ``work(transport, ends)`` against a server of one coroutine a connection."""
    ends: dict[int, tuple[int, str]] = {}

    async def run() -> None:
        server = await asyncio.start_server(handler, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        job = {"address": f"127.0.0.1:{port}", "models": ["m"], "request_timeout_s": timeout_s,
               "metadata_request": base64.b64encode(b"").decode()}  # fmt: skip
        transport = RestTransport(
            job, [b"body-0", b"body-1"], lambda slot, _at, *end: ends.setdefault(slot, end)
        )
        await transport.connect()
        await work(transport, ends)
        await transport.close()
        server.close()

    child.run(run())
    return ends


async def until(ends: dict[int, Any], count: int) -> None:
    for _ in range(1000):
        if len(ends) >= count:
            return
        await asyncio.sleep(0.005)
    raise AssertionError(f"{len(ends)} of {count} requests ended")


def test_one_after_the_other_share_a_connection_and_at_once_have_one_each() -> None:
    connections: list[int] = []

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(1)
        with contextlib.suppress(asyncio.IncompleteReadError):
            while True:
                assert await read_request(reader) == b"body-1"
                await asyncio.sleep(0.02)
                writer.write(GOOD)

    async def work(transport: RestTransport, ends: Any) -> None:
        for slot in range(3):
            transport.send(slot, 0, 1)
            await until(ends, slot + 1)
        assert len(connections) == 1
        for slot in range(3, 7):
            transport.send(slot, 0, 1)
        await until(ends, 7)
        assert len(connections) == 4

    assert set(drive(handler, work).values()) == {(0, "")}


def test_a_connection_closed_while_idle_costs_no_request() -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(GOOD)
        # Closed as the next request is on its way: it may be lost, but never half answered.
        with contextlib.suppress(asyncio.IncompleteReadError):
            await reader.readexactly(1)
        writer.close()

    async def work(transport: RestTransport, ends: Any) -> None:
        for slot in range(4):
            transport.send(slot, 0, 0)
            await until(ends, slot + 1)

    assert set(drive(handler, work).values()) == {(0, "")}


def test_a_connection_lost_within_an_answer_is_an_error() -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(GOOD[:-1])
        writer.close()

    async def work(transport: RestTransport, ends: Any) -> None:
        transport.send(0, 0, 0)
        await until(ends, 1)

    assert drive(handler, work) == {0: (14, "the server closed the connection")}


def test_an_answer_too_late_is_not_the_next_requests() -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        body = await read_request(reader)
        if body == b"body-1":
            await asyncio.sleep(0.3)
            writer.write(b"HTTP/1.1 500 Late\r\nContent-Length: 4\r\n\r\nlate")
        writer.write(GOOD)

    async def work(transport: RestTransport, ends: Any) -> None:
        transport.send(0, 0, 1)
        await until(ends, 1)
        transport.send(1, 0, 0)
        await until(ends, 2)

    assert drive(handler, work, timeout_s=0.1) == {0: (4, "no answer in time"), 1: (0, "")}
