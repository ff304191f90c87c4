"""The HTTP/1 server: what libevent's does, with an answer that tells what was asked."""

from __future__ import annotations

import contextlib
import gzip
import os
import resource
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from tuner.deploy.readiness import free_port
from tuner.modelserver.http1.head import BODY_LIMIT_BYTES, Head
from tuner.modelserver.http1.response import Response
from tuner.modelserver.http1.server import Http1Server

PAGE_400 = b"<HTML><HEAD>\n<TITLE>400 Bad Request</TITLE>\n</HEAD><BODY>\n<H1>Bad Request</H1>\n"


class Served:
    """A server of two threads that answers with method, target and body."""

    def __init__(self) -> None:
        self.port = free_port()
        self.arrived = threading.Semaphore(0)
        self.go_on = threading.Event()
        self.server = Http1Server(self.answer, "127.0.0.1", self.port, 2)
        self.server.start()

    def answer(self, head: Head, body: bytes | bytearray) -> Response:
        self.arrived.release()
        if head.target == "/wait":
            self.go_on.wait(20)
        if head.target == "/big":
            return Response(200, b"x" * 50_000_000)
        if head.target.startswith("/bytes/"):
            return Response(200, b"x" * int(head.target.removeprefix("/bytes/")))
        return Response(200, f"{head.method} {head.target} ".encode() + body)

    def connect(self) -> socket.socket:
        client = socket.create_connection(("127.0.0.1", self.port), 10)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return client

    def ask(self, *parts: bytes, pause_s: float = 0.0) -> bytes:
        """Everything that comes back until the connection ends; ours ends after the last part."""
        with self.connect() as client:
            for part in parts:
                client.sendall(part)
                time.sleep(pause_s)
            client.shutdown(socket.SHUT_WR)
            return everything(client)


def everything(client: socket.socket) -> bytes:
    return b"".join(iter(lambda: client.recv(1 << 20), b""))


def bodies(answer: bytes) -> list[bytes]:
    """The bodies of answers that came one after the other."""
    found = []
    while answer:
        head, _, answer = answer.partition(b"\r\n\r\n")
        size = int(head.split(b"Content-Length: ")[1].split(b"\r\n")[0])
        found.append(answer[:size])
        answer = answer[size:]
    return found


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    one = Served()
    yield one
    one.server.stop(1.0)


@pytest.mark.parametrize(
    ("request_bytes", "body"),
    [
        (b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc", b"POST /a abc"),
        (b"GET /a?b=1#c HTTP/1.1\n\n", b"GET /a?b=1#c "),
        (b"\r\n\r\nGET /a HTTP/1.1\r\n\r\n", b"GET /a "),
        (b"PATCH /a HTTP/1.1\r\nX: 1\r\n folded\r\nContent-Length: 1\r\n\r\nx", b"PATCH /a x"),
        (b"POST /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1;e=f\r\nc\r\n0\r\nT: u\r\n\r\n",
         b"POST /a abc"),
        (b"GET http://host:80/a?b HTTP/1.1\r\nHost: host\r\n\r\n", b"GET /a?b "),
        (b"GET //v1/a HTTP/1.1\r\n\r\n", b"GET /a "),
        (b"GET /a//b HTTP/1.1\r\n\r\n", b"GET /a//b "),
    ],
)
def test_a_request_is_read_as_libevent_reads_it(
    served: Served, request_bytes: bytes, body: bytes
) -> None:
    assert bodies(served.ask(request_bytes)) == [body]
    if b"\n\n" not in request_bytes:
        byte_by_byte = [request_bytes[at : at + 1] for at in range(len(request_bytes))]
        assert bodies(served.ask(*byte_by_byte, pause_s=0.0005)) == [body]


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"GET /a\r\n\r\n", b"400 Bad Request"),
        (b"GET /a HTTP/9.9\r\n\r\n", b"400 Bad Request"),
        (b"GET /a HTTP/1.1\r\nno colon\r\n\r\n", b"400 Bad Request"),
        (b"POST /a HTTP/1.1\r\nContent-Length: abc\r\n\r\n", b"400 Bad Request"),
        (b"POST /a HTTP/1.1\r\nContent-Length: -1\r\n\r\n", b"400 Bad Request"),
        (b"POST /a HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", b"400 Bad Request"),
        (b"POST /a HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", b"400 Bad Request"),
        (b"POST /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n", b"400 Bad Request"),
        (b"POST /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n", b"400 Bad Request"),
        (b"POST /a HTTP/1.1\r\nContent-Length: 2147483648\r\n\r\n", b"413"),
        (b"POST /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n80000000\r\n", b"413"),
        (b"POST /a HTTP/1.1\r\nExpect: miracles\r\n\r\n", b"417"),
        (b"TRACE /a HTTP/1.1\r\n\r\n", b"501 Not Implemented"),
        (b"FOO /a HTTP/1.1\r\n\r\n", b"501 Not Implemented"),
        (b"A: " + b"b" * (1 << 20) + b"\r\n", b"400 Bad Request"),
    ],
)
def test_what_is_no_request_gets_a_page_and_the_end(
    served: Served, request_bytes: bytes, status: bytes
) -> None:
    with served.connect() as client:
        client.sendall(request_bytes)
        answer = everything(client)
    assert answer.startswith(b"HTTP/1.1 " + status)
    assert b"Content-Type: text/html\r\n" in answer and b"Connection: close\r\n" in answer
    if status.startswith(b"400"):
        assert PAGE_400 in answer


@pytest.mark.parametrize(
    ("head", "kept"),
    [
        (b"GET / HTTP/1.1\r\n", True),
        (b"GET / HTTP/1.1\r\nConnection: close\r\n", False),
        (b"GET / HTTP/1.0\r\n", False),
        (b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n", True),
        (b"GET http://a/ HTTP/1.1\r\n", False),
        (b"GET http://a/ HTTP/1.1\r\nProxy-Connection: keep-alive\r\n", True),
    ],
)
def test_a_connection_is_kept_or_ended_as_the_client_asks(
    served: Served, head: bytes, kept: bool
) -> None:
    answers = bodies(served.ask(head + b"\r\n" + head + b"\r\n"))
    assert len(answers) == (2 if kept else 1)


def test_pipelined_requests_are_answered_in_their_order(served: Served) -> None:
    asked = b"".join(b"GET /%d HTTP/1.1\r\n\r\n" % number for number in range(3000))
    assert bodies(served.ask(asked)) == [b"GET /%d " % number for number in range(3000)]


def test_a_client_that_asks_first_is_told_to_go_on(served: Served) -> None:
    with served.connect() as client:
        client.sendall(b"POST / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
        assert client.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.sendall(b"ab")
        assert client.recv(1000).endswith(b"\r\n\r\nPOST / ab")


def test_head_gets_the_length_and_no_body(served: Served) -> None:
    answer = served.ask(b"HEAD /a HTTP/1.1\r\n\r\n")
    assert b"Content-Length: 8\r\n" in answer and answer.endswith(b"\r\n\r\n")


@pytest.mark.parametrize(
    ("coding", "decoded"),
    [(b"gzip", True), (b"x-gzip", True), (b"gzip, identity", True), (b"GZIP", False), (b"br", False)],
)
def test_a_gzipped_body_is_unpacked(served: Served, coding: bytes, decoded: bool) -> None:
    packed = gzip.compress(b"abc" * 1000)
    head = b"POST / HTTP/1.1\r\nContent-Encoding: %s\r\nContent-Length: %d\r\n\r\n"
    [body] = bodies(served.ask(head % (coding, len(packed)) + packed))
    assert body == b"POST / " + (b"abc" * 1000 if decoded else packed)


@pytest.mark.parametrize("packed", [b"no gzip", gzip.compress(b"abc" * 1000)[:-9], b""])
def test_a_broken_gzipped_body_is_an_empty_one(served: Served, packed: bytes) -> None:
    head = b"POST / HTTP/1.1\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(packed)
    assert bodies(served.ask(head + packed)) == [b"POST / "]


def test_a_bodys_limit_counts_what_it_unpacks_to(served: Served, monkeypatch) -> None:
    monkeypatch.setattr("tuner.modelserver.http1.body.BODY_LIMIT_BYTES", 1 << 20)
    packed = gzip.compress(b"a" * (1 << 21))
    head = b"POST / HTTP/1.1\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(packed)
    assert served.ask(head + packed).startswith(b"HTTP/1.1 413 ")
    assert BODY_LIMIT_BYTES == 2**31 - 1


def test_a_large_body_arrives_whole(served: Served) -> None:
    body = os.urandom(12_000_000)
    head = b"POST / HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(body)
    assert bodies(served.ask(head + body)) == [b"POST / " + body]


def test_clients_that_dawdle_hold_no_thread(served: Served) -> None:
    """More than there are threads: half a head, half a body, and an answer that is not taken."""
    with contextlib.ExitStack() as stack:
        for _ in range(4):
            for part in (
                b"GET /a HT",
                b"POST /a HTTP/1.1\r\nContent-Length: 9\r\n\r\nabc",
                b"POST /a HTTP/1.1\r\nContent-Length: 9000000\r\n\r\nabc",
                b"POST /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
                b"GET /big HTTP/1.1\r\n\r\nGET /big HTTP/1.1\r\n\r\nGET /after HTTP/1.1\r\n\r\n",
            ):
                client = stack.enter_context(served.connect())
                client.sendall(part)
        time.sleep(0.2)
        assert bodies(served.ask(b"GET /b HTTP/1.1\r\n\r\n")) == [b"GET /b "]
        client.shutdown(socket.SHUT_WR)  # what was not taken comes when it is
        answers = bodies(everything(client))
        assert [len(answer) for answer in answers] == [50_000_000, 50_000_000, 11]


def test_as_many_requests_are_worked_on_as_there_are_threads(served: Served) -> None:
    served.go_on.clear()
    while served.arrived.acquire(blocking=False):
        pass
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(served.connect()) for _ in range(5)]
        for client in clients:
            client.sendall(b"GET /wait HTTP/1.1\r\n\r\n")
        assert served.arrived.acquire(timeout=5) and served.arrived.acquire(timeout=5)
        assert not served.arrived.acquire(timeout=0.2)
        served.go_on.set()
        for client in clients:  # those that waited in their sockets are answered like the others
            assert client.recv(1000).endswith(b"GET /wait ")


@pytest.mark.parametrize(("size", "waits"), [(15_000, False), (20_000, True)])
def test_the_rest_of_an_answer_above_16_kib_waits_for_an_acknowledgement_as_with_libevent(
    served: Served, size: int, waits: bool
) -> None:
    took_s = []
    with served.connect() as client, client.makefile("rb") as answers:
        for _ in range(40):
            start_s = time.monotonic()
            client.sendall(b"GET /bytes/%d HTTP/1.1\r\n\r\n" % size)
            while answers.readline() != b"\r\n":
                pass
            assert len(answers.read(size)) == size
            took_s.append(time.monotonic() - start_s)
    assert (sorted(took_s)[20] > 0.03) is waits


def test_a_server_that_stops_lets_its_requests_end() -> None:
    one = Served()
    with one.connect() as busy, one.connect() as idle:
        busy.sendall(b"GET /wait HTTP/1.1\r\n\r\n")
        assert one.arrived.acquire(timeout=5)
        stopping = threading.Thread(target=one.server.stop, args=(10.0,))
        stopping.start()
        time.sleep(0.1)
        with pytest.raises(ConnectionRefusedError):
            one.connect()
        one.go_on.set()
        assert everything(busy).endswith(b"GET /wait ")
        assert idle.recv(10) == b""
        stopping.join(10)
    assert not stopping.is_alive()


def test_a_server_that_stops_does_not_wait_beyond_its_grace() -> None:
    one = Served()
    with one.connect() as busy:
        busy.sendall(b"GET /wait HTTP/1.1\r\n\r\n")
        assert one.arrived.acquire(timeout=5)
        begun = time.monotonic()
        one.server.stop(0.3)
        assert 0.2 < time.monotonic() - begun < 5
        one.go_on.set()


def test_out_of_descriptors_connections_are_turned_away_at_no_cost(served: Served) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    held = []
    try:
        waiting = [served.connect() for _ in range(3)]
        used = len(os.listdir("/proc/self/fd"))
        resource.setrlimit(resource.RLIMIT_NOFILE, (used + 3, hard))
        with contextlib.suppress(OSError):
            while True:
                held.append(os.open(os.devnull, os.O_RDONLY))
        os.close(held.pop())
        client = socket.socket()  # the last one: the server has none for its side
        client.settimeout(5)
        client.connect(("127.0.0.1", served.port))
        begun_s = time.process_time()
        assert client.recv(10) == b""
        time.sleep(0.3)
        assert time.process_time() - begun_s < 0.2
        waiting[0].sendall(b"GET /still HTTP/1.1\r\n\r\n")
        assert waiting[0].recv(1000).endswith(b"GET /still ")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for descriptor in held:
            os.close(descriptor)
    client.close()
    for one in waiting:
        one.close()
    assert bodies(served.ask(b"GET /b HTTP/1.1\r\n\r\n")) == [b"GET /b "]
