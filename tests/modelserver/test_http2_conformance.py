"""What RFC 9113 and RFC 7541 ask of a server, one row for each rule, in the manner of h2spec."""

from __future__ import annotations

import contextlib
import socket
import struct
import subprocess
import sys
import threading
import time
import zlib

import grpc
import hpack
import psutil
import pytest

from tests.modelserver.echo import Service
from tests.modelserver.test_http2 import (
    END_HEADERS,
    ENDS,
    HEAD,
    START,
    _message,
)
from tuner.deploy.readiness import free_port
from tuner.modelserver.http2 import frames
from tuner.modelserver.http2.frames import frame
from tuner.modelserver.http2.headers import literal
from tuner.modelserver.status import Code, ServingError

CALL = frame(frames.HEADERS, END_HEADERS, 1, HEAD) + frame(frames.DATA, ENDS, 1, _message(b"one"))
OPEN = frame(frames.HEADERS, END_HEADERS, 1, HEAD)
WAIT = HEAD.replace(b"/t/Echo", b"/t/Wait")


def headers(*fields: tuple[bytes, bytes], stream: int = 1, flags: int = END_HEADERS | ENDS) -> bytes:
    return frame(frames.HEADERS, flags, stream, b"".join(literal(*field) for field in fields))


METHOD, SCHEME, PATH = (b":method", b"POST"), (b":scheme", b"http"), (b":path", b"/t/Echo")
TYPE = (b"content-type", b"application/grpc")

CONNECTION, STREAM = "connection", "stream"
P, F, S, C = (
    frames.PROTOCOL_ERROR, frames.FRAME_SIZE_ERROR, frames.STREAM_CLOSED, frames.FLOW_CONTROL_ERROR
)
RULES = [
    # section, what the client does, whose error, its code
    ("3.4 the first frame is no SETTINGS", frames.PREFACE + frame(frames.PING, 0, 0, bytes(8)), CONNECTION, P),
    ("3.4 the first SETTINGS is an acknowledgement", frames.PREFACE + frame(frames.SETTINGS, frames.ACK, 0),
     CONNECTION, P),
    ("4.2 a frame larger than allowed", START + frames.head(1 << 21, frames.DATA, 0, 1), CONNECTION, F),
    ("4.3 a block that cannot be decoded", START + frame(frames.HEADERS, END_HEADERS, 1, b"\xff" * 4),
     CONNECTION, frames.COMPRESSION_ERROR),
    ("5.1 DATA on an idle stream", START + frame(frames.DATA, 0, 7, b"x"), CONNECTION, P),
    ("5.1 RST_STREAM on an idle stream", START + frame(frames.RST_STREAM, 0, 7, bytes(4)), CONNECTION, P),
    ("5.1 WINDOW_UPDATE on an idle stream", START + frame(frames.WINDOW_UPDATE, 0, 7, b"\0\0\0\1"),
     CONNECTION, P),
    ("5.1 DATA after END_STREAM", START + CALL + frame(frames.DATA, 0, 1, b"x"), STREAM, S),
    ("5.1 HEADERS after END_STREAM", START + CALL + frame(frames.HEADERS, END_HEADERS | ENDS, 1, b""),
     STREAM, S),
    ("5.1 DATA after the client's RST_STREAM",
     START + OPEN + frame(frames.RST_STREAM, 0, 1, bytes(4)) + frame(frames.DATA, 0, 1, b"x"), STREAM, S),
    ("5.1.1 a stream of an even number", START + frame(frames.HEADERS, END_HEADERS, 2, HEAD), CONNECTION, P),
    ("5.1.1 a stream that was passed over",
     START + frame(frames.HEADERS, END_HEADERS, 5, HEAD) + frame(frames.HEADERS, END_HEADERS, 3, HEAD),
     CONNECTION, P),
    ("6.1 DATA on stream 0", START + frame(frames.DATA, 0, 0, b"x"), CONNECTION, P),
    ("6.1 more padding than payload", START + OPEN + frame(frames.DATA, frames.PADDED, 1, b"\x09abc"),
     CONNECTION, P),
    ("6.2 HEADERS on stream 0", START + frame(frames.HEADERS, END_HEADERS, 0, HEAD), CONNECTION, P),
    ("6.2 another frame inside a header block",
     START + frame(frames.HEADERS, 0, 1, HEAD) + frame(frames.PING, 0, 0, bytes(8)), CONNECTION, P),
    ("6.3 PRIORITY of a wrong length", START + OPEN + frame(frames.PRIORITY, 0, 1, bytes(4)), STREAM, F),
    ("6.3 PRIORITY on stream 0", START + frame(frames.PRIORITY, 0, 0, bytes(5)), CONNECTION, P),
    ("6.4 RST_STREAM of a wrong length", START + OPEN + frame(frames.RST_STREAM, 0, 1, bytes(3)), CONNECTION, F),
    ("6.4 RST_STREAM on stream 0", START + frame(frames.RST_STREAM, 0, 0, bytes(4)), CONNECTION, P),
    ("6.5 SETTINGS on a stream", START + frame(frames.SETTINGS, 0, 1), CONNECTION, P),
    ("6.5 SETTINGS of a wrong length", START + frame(frames.SETTINGS, 0, 0, bytes(5)), CONNECTION, F),
    ("6.5 an acknowledgement with values", START + frame(frames.SETTINGS, frames.ACK, 0, bytes(6)),
     CONNECTION, F),
    ("6.5.2 ENABLE_PUSH of 2", START + frames.settings([(frames.ENABLE_PUSH, 2)]), CONNECTION, P),
    ("6.5.2 a window above 2^31 - 1", START + frames.settings([(frames.INITIAL_WINDOW_SIZE, 1 << 31)]),
     CONNECTION, C),
    ("6.5.2 frames below 16,384", START + frames.settings([(frames.MAX_FRAME_SIZE, 16383)]), CONNECTION, P),
    ("6.6 PUSH_PROMISE from a client", START + frame(frames.PUSH_PROMISE, END_HEADERS, 1, HEAD), CONNECTION, P),
    ("6.7 PING on a stream", START + frame(frames.PING, 0, 1, bytes(8)), CONNECTION, P),
    ("6.7 PING of a wrong length", START + frame(frames.PING, 0, 0, bytes(9)), CONNECTION, F),
    ("6.8 GOAWAY on a stream", START + frame(frames.GOAWAY, 0, 1, bytes(8)), CONNECTION, P),
    ("6.8 GOAWAY of a wrong length", START + frame(frames.GOAWAY, 0, 0, bytes(7)), CONNECTION, F),
    ("6.9 WINDOW_UPDATE by 0", START + frame(frames.WINDOW_UPDATE, 0, 0, bytes(4)), CONNECTION, P),
    ("6.9 WINDOW_UPDATE by 0 on a stream", START + OPEN + frame(frames.WINDOW_UPDATE, 0, 1, bytes(4)),
     STREAM, P),
    ("6.9 WINDOW_UPDATE of a wrong length", START + frame(frames.WINDOW_UPDATE, 0, 0, bytes(3)), CONNECTION, F),
    ("6.9.1 the connection's window overflows",
     START + frame(frames.WINDOW_UPDATE, 0, 0, b"\x7f\xff\xff\xff"), CONNECTION, C),
    ("6.9.1 a stream's window overflows",
     START + OPEN + frame(frames.WINDOW_UPDATE, 0, 1, b"\x7f\xff\xff\xff"), STREAM, C),
    ("6.10 CONTINUATION of nothing", START + frame(frames.CONTINUATION, END_HEADERS, 1, HEAD), CONNECTION, P),
    ("8.1.1 content-length above what came",
     START + headers(METHOD, SCHEME, PATH, TYPE, (b"content-length", b"99"), flags=END_HEADERS)
     + frame(frames.DATA, ENDS, 1, _message(b"x")), STREAM, P),
    ("8.1.1 content-length below what came",
     START + headers(METHOD, SCHEME, PATH, TYPE, (b"content-length", b"1"), flags=END_HEADERS)
     + frame(frames.DATA, ENDS, 1, _message(b"x")), STREAM, P),
    ("8.1.1 content-length that is no number",
     START + headers(METHOD, SCHEME, PATH, TYPE, (b"content-length", b"+5")), STREAM, P),
    ("8.2.1 a name in upper case", START + headers(METHOD, SCHEME, PATH, (b"X-Test", b"1")), STREAM, P),
    ("8.2.2 a field of the connection", START + headers(METHOD, SCHEME, PATH, (b"connection", b"x")), STREAM, P),
    ("8.2.2 te other than trailers", START + headers(METHOD, SCHEME, PATH, (b"te", b"gzip")), STREAM, P),
    ("8.3 a pseudo-header after others", START + headers(METHOD, SCHEME, TYPE, PATH), STREAM, P),
    ("8.3 an unknown pseudo-header", START + headers(METHOD, SCHEME, PATH, (b":test", b"x")), STREAM, P),
    ("8.3 a pseudo-header of answers", START + headers(METHOD, SCHEME, PATH, (b":status", b"200")), STREAM, P),
    ("8.3 a pseudo-header in trailers",
     START + OPEN + headers((b":path", b"/"), flags=END_HEADERS | ENDS), STREAM, P),
    ("8.1 trailers that do not end the stream",
     START + OPEN + headers((b"x", b"y"), flags=END_HEADERS), STREAM, P),
    ("8.3.1 no :method", START + headers(SCHEME, PATH, TYPE), STREAM, P),
    ("8.3.1 no :scheme", START + headers(METHOD, PATH, TYPE), STREAM, P),
    ("8.3.1 no :path", START + headers(METHOD, SCHEME, TYPE), STREAM, P),
    ("8.3.1 an empty :path", START + headers(METHOD, SCHEME, (b":path", b""), TYPE), STREAM, P),
    ("8.3.1 :method twice", START + headers(METHOD, METHOD, SCHEME, PATH), STREAM, P),
    ("RFC 7541 6.3 a table larger than allowed",
     START + frame(frames.HEADERS, END_HEADERS, 1, b"\x3f\xff\xff\x03" + HEAD), CONNECTION,
     frames.COMPRESSION_ERROR),
]
ALIVE = frame(frames.HEADERS, END_HEADERS, 101, HEAD) + frame(frames.DATA, ENDS, 101, _message(b"alive"))


def read_frames(raw: socket.socket, until) -> list[tuple[int, int, int, bytes]]:
    """(kind, flags, stream, payload) of frames until one is wanted, or the connection ends."""
    seen, data = [], b""
    while True:
        while len(data) >= 9:
            length, kind, flags, stream = frames.read_head(data, 0)
            if len(data) < 9 + length:
                break
            seen.append((kind, flags, stream, data[9 : 9 + length]))
            data = data[9 + length :]
            if until(seen[-1]):
                return seen
        try:
            chunk = raw.recv(65536)
        except ConnectionResetError:
            chunk = b""
        if not chunk:
            return seen
        data += chunk


def ended(one: tuple[int, int, int, bytes], stream: int) -> bool:
    return one[0] == frames.HEADERS and one[2] == stream and bool(one[1] & ENDS)


@pytest.mark.parametrize(("rule", "sent", "whose", "code"), RULES, ids=[rule[0] for rule in RULES])
def test_a_broken_rule_gets_the_error_that_the_rfc_names(service, rule, sent, whose, code):
    with service.connect() as raw:
        raw.sendall(sent)
        if whose == STREAM:
            raw.sendall(ALIVE)  # the connection goes on
        seen = read_frames(raw, lambda one: ended(one, 101))
    goodbyes = [struct.unpack(">I", p[4:8])[0] for kind, _, _, p in seen if kind == frames.GOAWAY]
    resets = [(s, struct.unpack(">I", p)[0]) for kind, _, s, p in seen if kind == frames.RST_STREAM]
    if whose == CONNECTION:
        assert goodbyes == [code]
    else:
        assert (1, code) in resets and not goodbyes
        assert any(kind == frames.DATA and p.endswith(b"alive") for kind, _, _, p in seen)


def test_frames_that_cross_an_early_answer_are_borne(service):
    """RFC 9113 5.1: what was on its way when we sent RST_STREAM is no error."""
    plain = headers(METHOD, SCHEME, PATH, flags=END_HEADERS)  # no gRPC: answered with 415 at once
    trailers = headers((b"x-checksum", b"1"), flags=END_HEADERS | ENDS)
    with service.connect() as raw:
        raw.sendall(START + plain)
        assert read_frames(raw, lambda one: one[0] == frames.RST_STREAM)[-1][2] == 1
        raw.sendall(frame(frames.DATA, 0, 1, b"on its way") + trailers + ALIVE)
        seen = read_frames(raw, lambda one: ended(one, 101))
    assert not [one for one in seen if one[0] in (frames.GOAWAY, frames.RST_STREAM)]


def test_a_table_that_a_client_makes_smaller_is_told_of_in_the_next_block(service):
    """RFC 7541 4.2: a strict decoder waits for the change of size, and accepts no block without."""
    for size in (0, 100, 4095):
        decoder = hpack.Decoder()
        decoder.max_allowed_table_size = size
        with service.connect() as raw:
            raw.sendall(frames.PREFACE + frames.settings([(frames.HEADER_TABLE_SIZE, size)]) + CALL)
            seen = read_frames(raw, lambda one: ended(one, 1))
        blocks = [payload for kind, _, _, payload in seen if kind == frames.HEADERS]
        assert blocks[0][0] & 0xE0 == 0x20 and blocks[1][0] & 0xE0 != 0x20
        fields = [dict(decoder.decode(block, raw=True)) for block in blocks]
        assert fields[0][b":status"] == b"200" and fields[1][b"grpc-status"] == b"0"


def test_an_error_text_too_long_for_a_frame_ends_early_and_ends_no_connection():
    long = Service()
    text = "näher % " * 50_000

    def fail(body) -> bytes:
        raise ServingError(Code.INVALID_ARGUMENT, text)

    long.server._methods["/t/Long"] = fail
    try:
        with long.channel() as channel:
            for _ in range(2):
                with pytest.raises(grpc.RpcError) as told:
                    channel.unary_unary("/t/Long")(b"", timeout=20)
                assert told.value.code() == grpc.StatusCode.INVALID_ARGUMENT
                shown, more = told.value.details().split(" ... (")
                assert text.startswith(shown) and len(shown) > 1000
                assert more == f"{len(text) - len(shown)} characters more)"
            assert channel.unary_unary("/t/Echo")(b"alive", timeout=20) == b"alive"
    finally:
        long.server.stop(0)


def test_metadata_above_the_limit_end_their_call_alone(service):
    with service.channel(("grpc.max_metadata_size", 1 << 24)) as channel:
        echo = channel.unary_unary("/t/Echo")
        metadata = [("x-large", "v" * 70_000)]
        for _ in range(2):
            with pytest.raises(grpc.RpcError) as told:
                echo(b"", metadata=metadata, timeout=20)
            assert told.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert echo(b"alive", metadata=[("x", "v" * 30_000)], timeout=20) == b"alive"


def test_streams_beyond_the_announced_limit_are_refused():
    few = Service(max_streams=2)
    wait = [frame(frames.HEADERS, END_HEADERS, n, WAIT) + frame(frames.DATA, ENDS, n, _message(b"w"))
            for n in (1, 3, 5)]
    try:
        with few.connect() as raw:
            raw.sendall(START + b"".join(wait))
            seen = read_frames(raw, lambda one: one[0] == frames.RST_STREAM)
            assert seen[-1][2:] == (5, struct.pack(">I", frames.REFUSED_STREAM))
            assert few.entered.acquire(timeout=10) and few.entered.acquire(timeout=10)
            few.released.set()
            ends: set[int] = set()
            read_frames(raw, lambda one: ends.update({one[2]} if one[1] & ENDS else ()) or {1, 3} <= ends)
            raw.sendall(ALIVE)
            assert ended(read_frames(raw, lambda one: ended(one, 101))[-1], 101)
    finally:
        few.released.set()
        few.server.stop(0)


def bomb(size: int, coding: str) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, 16 + zlib.MAX_WBITS if coding == "gzip" else zlib.MAX_WBITS)
    return packer.compress(bytes(size)) + packer.flush()


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_the_limit_is_of_the_message_without_its_compression(coding):
    limited = Service(message_limit_bytes=100_000)
    head = HEAD + literal(b"grpc-encoding", coding.encode())
    try:
        for size, status in ((100_000, 0), (100_001, 8), (50_000_000, 8)):
            packed = bomb(size, coding)
            with limited.connect() as raw:
                raw.sendall(
                    frames.PREFACE + frames.settings([(frames.INITIAL_WINDOW_SIZE, 1 << 24)])
                    + frame(frames.WINDOW_UPDATE, 0, 0, struct.pack(">I", 1 << 24))
                    + frame(frames.HEADERS, END_HEADERS, 1, head)
                    + frame(frames.DATA, ENDS, 1, b"\1" + struct.pack(">I", len(packed)) + packed)
                )
                last = read_frames(raw, lambda one: ended(one, 1))[-1]
            assert literal(b"grpc-status", str(status).encode()) in last[3], size
    finally:
        limited.server.stop(0)


def test_a_message_is_unpacked_beside_the_transport(service):
    """300 MB of zeros take a second or so to unpack; other connections are answered meanwhile."""
    packed = bomb(300_000_000, "gzip")
    head = HEAD.replace(b"/t/Echo", b"/t/Fail") + literal(b"grpc-encoding", b"gzip")
    done = threading.Event()
    with service.connect() as raw:
        raw.settimeout(60)
        raw.sendall(START + frame(frames.HEADERS, END_HEADERS, 1, head)
                    + frame(frames.DATA, ENDS, 1, b"\1" + struct.pack(">I", len(packed)) + packed))
        reader = threading.Thread(
            target=lambda: (read_frames(raw, lambda one: ended(one, 1)), done.set())
        )
        reader.start()
        worst = 0.0
        with service.channel() as channel:
            echo = channel.unary_unary("/t/Echo")
            echo(b"", timeout=20)
            for _ in range(20):
                if done.is_set():
                    break
                begun = time.monotonic()
                echo(b"", timeout=20)
                worst = max(worst, time.monotonic() - begun)
        reader.join(60)
    assert worst < 0.5


_FEW_DESCRIPTORS = """
import os, resource, sys, time
from tuner.modelserver.http2.transport import Http2Server
server = Http2Server({"/t/Echo": bytes}, max_threads=2)
server.listen(sys.argv[1])
server.start()
held = len(os.listdir("/proc/self/fd"))
resource.setrlimit(resource.RLIMIT_NOFILE, (held + 5, held + 5))
print("ready", flush=True)
sys.stdin.read()
"""


def test_without_descriptors_connections_are_turned_away_and_nothing_spins():
    port = free_port()
    program = subprocess.Popen(
        [sys.executable, "-c", _FEW_DESCRIPTORS, f"127.0.0.1:{port}"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )
    try:
        assert program.stdout.readline() == "ready\n"
        connections = [socket.create_connection(("127.0.0.1", port), 10) for _ in range(30)]
        time.sleep(0.3)
        before = psutil.Process(program.pid).cpu_times()
        time.sleep(1.0)
        after = psutil.Process(program.pid).cpu_times()
        assert after.user + after.system - before.user - before.system < 0.3
        turned_away = 0
        for one in connections:
            one.settimeout(0.2)
            with contextlib.suppress(TimeoutError):
                turned_away += one.recv(1) == b""
        assert turned_away >= 20
        for one in connections:
            one.close()
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            echo = channel.unary_unary("/t/Echo")
            assert echo(b"alive", timeout=20, wait_for_ready=True) == b"alive"
    finally:
        program.stdin.close()
        program.wait(20)
