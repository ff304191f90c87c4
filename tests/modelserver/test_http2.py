"""The gRPC transport by itself: real clients, and clients that break the protocol."""

from __future__ import annotations

import asyncio
import random
import socket
import struct
import threading
import time
from concurrent import futures

import grpc
import pytest

from tests.modelserver.echo import Service
from tuner.modelserver.http2 import frames
from tuner.modelserver.http2.headers import leaves_table_alone, literal
from tuner.modelserver.http2.transport import Http2Server
from tuner.modelserver.status import Code


@pytest.fixture
def channel(service):
    with service.channel(
        ("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)
    ) as channel:
        yield channel


@pytest.mark.parametrize("size", [0, 1, 5, 16379, 16384, 70_000, 600_000, 20_000_000])
def test_a_message_of_any_size_arrives_and_returns_whole(channel, size):
    body = random.Random(size).randbytes(size)
    assert channel.unary_unary("/t/Echo")(body) == body


def test_an_answer_larger_than_the_clients_windows_waits_for_them(channel):
    body = random.Random(1).randbytes(20_000)
    calls = [channel.unary_unary("/t/Grow").future(body) for _ in range(4)]
    assert all(call.result(60) == body * 1000 for call in calls)


def test_a_hundred_streams_of_eight_channels_get_their_own_answers(service):
    channels = [service.channel(("grpc.use_local_subchannel_pool", 1)) for _ in range(8)]
    with futures.ThreadPoolExecutor(8) as pool:

        def use(number):
            echo = channels[number].unary_unary("/t/Echo")
            bodies = [f"{number}-{i}".encode() * (1 + 997 * i % 5000) for i in range(100)]
            calls = [echo.future(body, timeout=60) for body in bodies]
            return [call.result() for call in calls] == bodies

        # 8 x 100 may meet the limit of 200 in flight: one after the other.
        assert [pool.submit(use, number).result() for number in range(8)] == [True] * 8
    for channel in channels:
        channel.close()


def test_an_asynchronous_client_is_served(service):
    async def use():
        async with grpc.aio.insecure_channel(f"127.0.0.1:{service.port}") as channel:
            echo = channel.unary_unary("/t/Echo")
            return await asyncio.gather(*(echo(str(i).encode()) for i in range(100)))

    assert asyncio.run(use()) == [str(i).encode() for i in range(100)]


@pytest.mark.parametrize("how", [grpc.Compression.Gzip, grpc.Compression.Deflate])
def test_a_compressed_request_is_read(service, how):
    with grpc.insecure_channel(f"127.0.0.1:{service.port}", compression=how) as channel:
        assert channel.unary_unary("/t/Echo")(b"a" * 100_000) == b"a" * 100_000


def test_a_failure_carries_its_code_and_message(channel):
    with pytest.raises(grpc.RpcError) as failure:
        channel.unary_unary("/t/Fail")("µ".encode())
    assert failure.value.code() is grpc.StatusCode.NOT_FOUND
    assert failure.value.details() == "50 % näher\nµ"


def test_an_unknown_method_is_unimplemented(channel):
    with pytest.raises(grpc.RpcError) as failure:
        channel.unary_unary("/t/None")(b"")
    assert failure.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_a_message_above_the_limit_is_refused_and_the_connection_lives():
    service = Service(message_limit_bytes=1000)
    with service.channel() as channel:
        echo = channel.unary_unary("/t/Echo")
        for size in (1001, 3_000_000):
            with pytest.raises(grpc.RpcError) as failure:
                echo(bytes(size))
            assert failure.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert f"({size} vs. 1000)" in failure.value.details()
        assert echo(bytes(1000)) == bytes(1000)
    service.server.stop(0)


def test_requests_beyond_the_threads_are_refused_and_a_cancelled_one_frees_its_own():
    service = Service(max_threads=2)
    with service.channel() as channel:
        wait = channel.unary_unary("/t/Wait")
        calls = [wait.future(b"x") for _ in range(2)]
        for _ in calls:
            assert service.entered.acquire(timeout=20)
        with pytest.raises(grpc.RpcError) as failure:
            wait(b"y", timeout=20)
        assert failure.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        calls[0].cancel()
        service.released.set()
        assert calls[1].result(20) == b"x"
        assert all(wait(b"z", timeout=20) == b"z" for _ in range(10))
    service.server.stop(0)


def test_a_deadline_that_passes_is_exceeded_and_harms_no_other_call(service, channel):
    service.released.clear()
    with pytest.raises(grpc.RpcError) as failure:
        channel.unary_unary("/t/Wait")(b"", timeout=0.1)
    assert failure.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    service.released.set()
    assert channel.unary_unary("/t/Echo")(b"next", timeout=20) == b"next"


def test_keepalive_pings_are_answered(service):
    with service.channel(
        ("grpc.keepalive_time_ms", 100),
        ("grpc.keepalive_timeout_ms", 5000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
    ) as channel:
        echo = channel.unary_unary("/t/Echo")
        assert echo(b"before") == b"before"
        time.sleep(0.4)
        assert echo(b"after", timeout=20) == b"after"
    ping = frames.frame(frames.PING, 0, 0, b"12345678")
    with service.connect() as raw:
        raw.sendall(frames.PREFACE + frames.settings([]) + ping)
        assert _read_until(raw, frames.frame(frames.PING, frames.ACK, 0, b"12345678"))


def test_calls_in_flight_end_before_the_server_does():
    service = Service()
    with service.channel() as channel:
        call = channel.unary_unary("/t/Wait").future(b"last")
        assert service.entered.acquire(timeout=20)
        threading.Timer(0.2, service.released.set).start()
        service.server.stop(20)
        assert call.result(20) == b"last"
    with pytest.raises(OSError):
        service.connect().close()


def test_a_port_that_is_taken_is_an_error(service):
    second = Http2Server({}, max_threads=1)
    with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1:{service.port}"):
        second.listen(f"127.0.0.1:{service.port}")


HEAD = b"".join(
    literal(name, value)
    for name, value in (
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", b"/t/Echo"),
        (b"content-type", b"application/grpc"),
    )
)
START = frames.PREFACE + frames.settings([])
ENDS, END_HEADERS = frames.END_STREAM, frames.END_HEADERS


def _message(body: bytes) -> bytes:
    return b"\0" + struct.pack(">I", len(body)) + body


def _read_until(raw: socket.socket, wanted: bytes) -> bool:
    seen = b""
    while wanted not in seen:
        chunk = raw.recv(65536)
        if not chunk:
            return False
        seen = seen[-len(wanted) :] + chunk
    return True


def _drained(raw: socket.socket) -> bytes:
    seen = b""
    try:
        while chunk := raw.recv(65536):
            seen += chunk
    except ConnectionResetError:
        pass
    return seen


def test_a_request_in_small_pieces_with_padding_and_continuation_is_read(service):
    padded = frames.PADDED
    sent = (
        START
        + frames.frame(frames.HEADERS, 0, 1, HEAD[:10])
        + frames.frame(frames.CONTINUATION, 0, 1, HEAD[10:20])
        + frames.frame(frames.CONTINUATION, END_HEADERS, 1, HEAD[20:])
        + frames.frame(frames.DATA, 0, 1, _message(b"pieces")[:3])
        + frames.frame(frames.PRIORITY, 0, 1, b"\0\0\0\0\x10")
        + frames.frame(0xEE, 0, 0, b"of a kind that nobody knows")
        + frames.frame(frames.DATA, padded, 1, b"\x02" + _message(b"pieces")[3:7] + b"\0\0")
        + frames.frame(frames.DATA, ENDS, 1, _message(b"pieces")[7:])
    )
    with service.connect() as raw:
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for at in range(len(sent)):
            raw.sendall(sent[at : at + 1])
        assert _read_until(raw, _message(b"pieces"))


def test_a_small_window_is_never_exceeded(service):
    narrow = frames.PREFACE + frames.settings([(frames.INITIAL_WINDOW_SIZE, 4)])
    call = frames.frame(frames.HEADERS, END_HEADERS, 1, HEAD)
    call += frames.frame(frames.DATA, ENDS, 1, _message(b"windowed"))
    with service.connect() as raw:
        raw.sendall(narrow + call)
        assert _read_until(raw, frames.frame(frames.DATA, 0, 1, _message(b"windowed")[:4]))
        raw.sendall(frames.frame(frames.WINDOW_UPDATE, 0, 1, struct.pack(">I", 5)))
        assert _read_until(raw, frames.frame(frames.DATA, 0, 1, _message(b"windowed")[4:9]))
        raw.sendall(frames.frame(frames.SETTINGS, 0, 0, struct.pack(">HI", 4, 100)))
        assert _read_until(raw, frames.frame(frames.DATA, 0, 1, _message(b"windowed")[9:]))


BROKEN = {
    "no preface": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "a frame too large": START + frames.head(1 << 21, frames.DATA, 0, 1),
    "an even stream": START + frames.frame(frames.HEADERS, END_HEADERS, 2, HEAD),
    "stream 0": START + frames.frame(frames.HEADERS, END_HEADERS, 0, HEAD),
    "data on an idle stream": START + frames.frame(frames.DATA, 0, 7, b"x"),
    "a bad header block": START + frames.frame(frames.HEADERS, END_HEADERS, 1, b"\xff\xff\xff\xff"),
    "an unfinished block": START
    + frames.frame(frames.HEADERS, 0, 1, HEAD)
    + frames.frame(frames.PING, 0, 0, bytes(8)),
    "a long ping": START + frames.frame(frames.PING, 0, 0, bytes(9)),
    "half a setting": START + frames.frame(frames.SETTINGS, 0, 0, bytes(5)),
    "a window of nothing": START + frames.frame(frames.WINDOW_UPDATE, 0, 0, bytes(4)),
    "a window that overflows": START
    + frames.frame(frames.WINDOW_UPDATE, 0, 0, b"\x7f" + 3 * b"\xff"),
    "padding only": START
    + frames.frame(frames.HEADERS, END_HEADERS, 1, HEAD)
    + frames.frame(frames.DATA, frames.PADDED, 1, b"\x09abc"),
    "a promise": START + frames.frame(frames.PUSH_PROMISE, END_HEADERS, 1, HEAD),
    "endless headers": START
    + frames.frame(frames.HEADERS, 0, 1, HEAD)
    + b"".join(frames.frame(frames.CONTINUATION, 0, 1, bytes(16000)) for _ in range(70)),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_client_that_breaks_the_protocol_is_told_and_cut_off(service, name):
    with service.connect() as raw:
        raw.sendall(BROKEN[name])
        said = _drained(raw)
    assert frames.head(0, frames.GOAWAY, 0, 0)[3:] in said
    assert service.answers()


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"\x05" + struct.pack(">I", 1) + b"x", Code.INTERNAL),
        (b"\0" + struct.pack(">I", 9) + b"short", Code.INTERNAL),
        (_message(b"one") + _message(b"two"), Code.UNIMPLEMENTED),
        (b"", Code.INTERNAL),
        (b"\x01" + struct.pack(">I", 3) + b"xyz", Code.UNIMPLEMENTED),
    ],
)
def test_a_request_that_is_no_single_message_is_refused(service, data, status):
    with service.connect() as raw:
        raw.sendall(
            START
            + frames.frame(frames.HEADERS, END_HEADERS, 1, HEAD)
            + frames.frame(frames.DATA, ENDS, 1, data)
        )
        assert _read_until(raw, literal(b"grpc-status", str(int(status)).encode()))


def test_what_is_no_grpc_is_answered_by_its_http_status(service):
    plain = HEAD.replace(literal(b"content-type", b"application/grpc"), b"")
    with service.connect() as raw:
        raw.sendall(START + frames.frame(frames.HEADERS, END_HEADERS | ENDS, 1, plain))
        assert _read_until(raw, literal(b":status", b"415"))


def test_random_bytes_and_half_calls_never_stop_the_server(service, caplog):
    chance = random.Random(7)
    call = frames.frame(frames.HEADERS, END_HEADERS, 1, HEAD)
    call += frames.frame(frames.DATA, ENDS, 1, _message(bytes(300)))
    for _ in range(300):
        sent = bytearray(START + call * 2)
        for _ in range(chance.randrange(1, 6)):
            at = chance.randrange(len(sent) + 1)
            kind = chance.randrange(3)
            if kind == 0:
                sent[at : at + 1] = chance.randbytes(1)
            elif kind == 1:
                del sent[at:]
            else:
                sent[at:at] = chance.randbytes(chance.randrange(40))
        with service.connect() as raw:
            raw.sendall(sent)
            if chance.random() < 0.2:  # an abrupt end
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    assert service.answers()
    assert not caplog.records  # nothing but what the protocol foresees


WIDE_OPEN = (
    frames.PREFACE
    + frames.settings([(frames.INITIAL_WINDOW_SIZE, frames.LARGEST_WINDOW)])
    + frames.frame(frames.WINDOW_UPDATE, 0, 0, struct.pack(">I", 1 << 30))
)
"""The start of a client that takes any answer whole."""
GROW = frames.frame(
    frames.HEADERS, END_HEADERS, 1, HEAD.replace(b"/t/Echo", b"/t/Grow")
) + frames.frame(frames.DATA, ENDS, 1, _message(bytes(16000)))


def test_a_client_that_reads_nothing_holds_nobody_up(service):
    with service.connect() as raw:
        raw.sendall(WIDE_OPEN + GROW)
        assert service.answers()
        expected = 16_000_000
        got = 0
        while got < expected:
            chunk = raw.recv(1 << 20)
            assert chunk
            got += len(chunk)
    assert service.answers()


def test_a_client_may_ping_while_a_large_answer_is_on_its_way(service):
    ping = b"measures"
    with service.connect() as raw:
        raw.sendall(WIDE_OPEN + GROW)
        time.sleep(0.5)  # the answer fills the socket, and megabytes wait behind it
        raw.sendall(frames.frame(frames.PING, 0, 0, ping))
        assert _read_until(raw, frames.frame(frames.PING, frames.ACK, 0, ping))
    assert service.answers()


def test_a_client_that_pings_and_reads_nothing_is_cut_off(service):
    with service.connect() as raw:
        pings = frames.frame(frames.PING, 0, 0, bytes(8)) * 10_000
        raw.sendall(START)
        with pytest.raises((ConnectionError, TimeoutError)):
            for _ in range(1000):
                raw.sendall(pings)
    assert service.answers()


@pytest.mark.parametrize(
    ("block", "alone"),
    [
        (b"\x83\x86\x84", True),
        (literal(b"grpc-timeout", b"1S"), True),
        (b"\x0f\x10" + b"\x10application/grpc", True),
        (b"\x40\x01a\x01b", False),
        (b"\x3f\xe1\x1f", False),
        (b"\x00\x05ab", False),
    ],
)
def test_only_blocks_that_change_no_table_are_remembered(block, alone):
    assert leaves_table_alone(block) is alone
