"""The client against gRPC's own server: large messages, many calls, errors, a server that dies."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import socket
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping
from concurrent import futures
from typing import Any

import grpc
import pytest

from tuner.load import child
from tuner.load.grpc_client import message
from tuner.load.http2 import line as line_module
from tuner.load.http2 import status
from tuner.load.http2.line import Line
from tuner.load.stream import resolve

MEGABYTE = 10**6
UNLIMITED = {"grpc.max_receive_message_length": -1, "grpc.max_send_message_length": -1}

LIMITED = {"grpc.max_concurrent_streams": 3, "grpc.http.overload_protection": 0}
"""Overload protection refuses streams at random while the server still tidies up others."""


def echo(request: bytes, context: grpc.ServicerContext) -> bytes:
    return request


def digest(request: bytes, context: grpc.ServicerContext) -> bytes:
    return hashlib.sha256(request).digest()


def slow(request: bytes, context: grpc.ServicerContext) -> bytes:
    time.sleep(0.3)
    return request


def fail(request: bytes, context: grpc.ServicerContext) -> bytes:
    code = getattr(grpc.StatusCode, request.decode())
    context.abort(code, "auf Wunsch: größer\n100%")
    return b""


HANDLERS = (echo, digest, slow, fail)
KINDS = {
    handler.__name__: index for index, handler in enumerate(HANDLERS)
} | {"missing": len(HANDLERS)}  # fmt: skip


@contextlib.contextmanager
def serving(
    address: str = "127.0.0.1:0", options: Mapping[str, int] | None = None
) -> Iterator[Any]:
    settings = UNLIMITED | {"grpc.so_reuseport": 0} | dict(options or {})
    server = grpc.server(futures.ThreadPoolExecutor(8), options=list(settings.items()))
    methods = {
        handler.__name__: grpc.unary_unary_rpc_method_handler(handler) for handler in HANDLERS
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.S", methods),))
    port = server.add_insecure_port(address)
    server.start()
    try:
        yield server, f"127.0.0.1:{port}"
    finally:
        server.stop(0).wait()


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with serving() as (_, where):
        yield where


class Driver:
    """A line and what its calls came to."""

    def __init__(self, line: Line, ends: dict[int, tuple[int, str]]) -> None:
        self.line, self.ends = line, ends

    def call(self, tag: int, kind: str, body: bytes, keep: bool = False) -> Any:
        return self.line.call(tag, KINDS[kind], message(b"", body), keep)

    async def until(self, count: int, limit_s: float = 20.0) -> None:
        end = time.monotonic() + limit_s
        self.line.flush()
        while len(self.ends) < count:
            assert time.monotonic() < end, f"{len(self.ends)} of {count} calls ended"
            await asyncio.sleep(0.005)


def drive(
    address: str, work: Callable[[Driver], Coroutine[Any, Any, None]], timeout_s: float = 20.0
) -> dict[int, tuple[int, str]]:
    ends: dict[int, tuple[int, str]] = {}

    def answered(tag: int, at_s: float, code: int, text: str) -> None:
        assert tag not in ends
        assert abs(at_s - time.monotonic()) < 5
        ends[tag] = (code, text)

    async def run() -> None:
        names = [handler.__name__ for handler in HANDLERS] + ["missing"]
        kinds = [
            [
                (b":method", b"POST"),
                (b":scheme", b"http"),
                (b":path", f"/test.S/{name}".encode()),
                (b":authority", address.encode()),
                (b"te", b"trailers"),
                (b"content-type", b"application/grpc"),
            ]
            for name in names
        ]
        line = Line(await resolve(address), kinds, answered, timeout_s)
        await line.connect()
        await work(Driver(line, ends))

    child.run(run())
    return ends


def test_messages_of_20_megabytes_arrive_whole_both_ways(address: str) -> None:
    body = bytes(range(256)) * (20 * MEGABYTE // 256)
    kept = []

    async def work(driver: Driver) -> None:
        kept.append(driver.call(0, "digest", body, keep=True))
        kept.append(driver.call(1, "echo", body, keep=True))
        await driver.until(2)

    assert drive(address, work) == {0: (0, ""), 1: (0, "")}
    assert bytes(kept[0].answer[5:]) == hashlib.sha256(body).digest()
    assert bytes(kept[1].answer) == message(b"", body)


def test_many_large_calls_at_once_all_arrive(address: str) -> None:
    bodies = [bytes([tag]) * 602_112 for tag in range(24)]
    kept = []

    async def work(driver: Driver) -> None:
        kept.extend(
            driver.call(tag, "digest", body, keep=True) for tag, body in enumerate(bodies)
        )
        await driver.until(len(bodies))

    assert set(drive(address, work).values()) == {(0, "")}
    for call, body in zip(kept, bodies, strict=True):
        assert bytes(call.answer[5:]) == hashlib.sha256(body).digest()


def test_a_thousand_calls_at_once_all_arrive(address: str) -> None:
    async def work(driver: Driver) -> None:
        for tag in range(1000):
            driver.call(tag, "echo", b"x")
        await driver.until(1000)

    ends = drive(address, work)
    assert len(ends) == 1000
    assert set(ends.values()) == {(0, "")}


def test_a_servers_limit_on_streams_is_kept() -> None:
    async def work(driver: Driver) -> None:
        for tag in range(50):
            driver.call(tag, "echo", b"x")
        await driver.until(50)

    with serving(options=LIMITED) as (_, where):
        assert set(drive(where, work).values()) == {(0, "")}


def test_errors_come_with_code_and_message(address: str) -> None:
    names = ["RESOURCE_EXHAUSTED", "INVALID_ARGUMENT", "UNAVAILABLE", "INTERNAL"]

    async def work(driver: Driver) -> None:
        for tag, name in enumerate(names):
            driver.call(tag, "fail", name.encode())
        driver.call(9, "missing", b"")
        await driver.until(5)

    ends = drive(address, work)
    assert [ends[tag][0] for tag in range(4)] == [8, 3, 14, 13]
    assert ends[0][1] == "auf Wunsch: größer\n100%"
    assert ends[9][0] == status.UNIMPLEMENTED


def test_a_message_beyond_the_servers_limit_is_resource_exhausted() -> None:
    async def work(driver: Driver) -> None:
        driver.call(0, "echo", bytes(2 * MEGABYTE))
        await driver.until(1)
        driver.call(1, "echo", b"x")
        await driver.until(2)

    with serving(options={"grpc.max_receive_message_length": MEGABYTE}) as (_, where):
        ends = drive(where, work)
    assert ends[0][0] == status.RESOURCE_EXHAUSTED
    assert ends[1][0] == status.OK


def test_a_call_without_answer_in_time_is_deadline_exceeded(address: str) -> None:
    async def work(driver: Driver) -> None:
        driver.call(0, "slow", b"x")
        driver.call(1, "echo", b"x")
        await driver.until(2)

    ends = drive(address, work, timeout_s=0.1)
    assert ends == {0: (status.DEADLINE_EXCEEDED, "no answer in time"), 1: (status.OK, "")}


def test_a_server_that_dies_is_an_error_by_status_and_one_that_returns_serves_again() -> None:
    with contextlib.ExitStack() as first, contextlib.ExitStack() as second:
        server, where = first.enter_context(serving())

        async def work(driver: Driver) -> None:
            for tag in range(8):
                driver.call(tag, "slow", b"x")
            driver.line.flush()
            await asyncio.sleep(0.05)
            threading.Thread(target=server.stop, args=(0,)).start()
            await driver.until(8)
            await asyncio.sleep(2 * line_module.RETRY_S)
            driver.call(8, "echo", b"x")
            await driver.until(9)
            assert driver.ends[8] == (status.UNAVAILABLE, "connection refused")
            second.enter_context(serving(where))
            await asyncio.sleep(2 * line_module.RETRY_S)
            driver.call(9, "echo", b"x")
            await driver.until(10)

        ends = drive(where, work)
    assert {ends[tag][0] for tag in range(8)} <= {status.UNAVAILABLE, status.CANCELLED}
    assert ends[9] == (status.OK, "")


def test_an_old_connection_that_the_server_retires_is_replaced() -> None:
    async def work(driver: Driver) -> None:
        for tag in range(60):
            driver.call(tag, "echo", b"x")
            driver.line.flush()
            await asyncio.sleep(0.03)
        await driver.until(60)

    with serving(options={"grpc.max_connection_age_ms": 300}) as (_, where):
        ends = drive(where, work)
    failed = [end for end in ends.values() if end[0] != status.OK]
    assert {code for code, _ in failed} <= {status.UNAVAILABLE}
    assert len(failed) <= 6


def test_a_unix_socket_is_an_address_too(tmp_path: Any) -> None:
    path = f"unix:{tmp_path}/s"

    async def work(driver: Driver) -> None:
        driver.call(0, "echo", b"x")
        await driver.until(1)

    with serving(path):
        assert drive(path, work) == {0: (0, "")}


def test_a_port_that_speaks_http1_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            with listener.accept()[0] as connection:
                connection.recv(1024)
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        threading.Thread(target=answer).start()
        port = listener.getsockname()[1]
        with pytest.raises(ConnectionError, match="port for REST"):
            drive(f"127.0.0.1:{port}", lambda driver: asyncio.sleep(0))
