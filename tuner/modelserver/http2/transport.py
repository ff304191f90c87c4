"""A gRPC server of unary calls whose threads all wait on one epoll: who wakes reads and answers.

A call through grpcio's Python server costs 0.15 ms of CPU beside the call's own work, and through
this one about half; for a small model that is most of what serving costs. A hop from thread to
thread costs more than to read a request, so a call is worked on where it was read, unless several
came together.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import select
import socket
import stat
import struct
import threading
import time
from collections.abc import Callable, Mapping

from tuner.modelserver import deadline
from tuner.modelserver.http2 import frames
from tuner.modelserver.http2.connection import Call, Connection
from tuner.modelserver.http2.frames import ConnectionFault
from tuner.modelserver.http2.request import Body, Request
from tuner.modelserver.http2.workers import Workers
from tuner.modelserver.polling import ENDED, EVENTS, Spare
from tuner.modelserver.status import Code, ServingError, as_serving_error

Method = Callable[[Body], bytes]
"""Serialised request to serialised response; raises what ``as_serving_error`` understands."""

_LOG = logging.getLogger(__name__)
_BACKLOG = 1024
_STOP_POLL_S = 0.02


class Http2Server:
    """Not listening yet.

    Args:
        methods: by full path, e.g. ``/tensorflow.serving.PredictionService/Predict``.
        max_threads: requests in flight; one beyond is refused with RESOURCE_EXHAUSTED, since each
            holds a thread while it waits in a batch, as in TensorFlow Serving.
        message_limit_bytes: of a request; negative: none.
        max_streams: open at once on a connection; ``None``: any number.
    """

    def __init__(
        self,
        methods: Mapping[str, Method],
        *,
        max_threads: int,
        message_limit_bytes: int = -1,
        max_streams: int | None = None,
    ) -> None:
        self._methods, self._workers = methods, Workers(max_threads)
        self._message_limit_bytes, self._max_streams = message_limit_bytes, max_streams
        self._epoll = select.epoll()
        self._stopped = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._listeners: dict[int, socket.socket] = {}
        self._connections: dict[int, Connection] = {}
        self._accepting = threading.Lock()
        self._lock = threading.Lock()
        self._readers = self._away = 0
        """Threads that wait on the epoll; those of them that are working on a call."""
        self._stopping = threading.Event()
        self._spare = Spare("gRPC")

    def listen(self, address: str) -> None:
        """Bind ``host:port`` or ``unix:path``.

        Raises:
            OSError: the address is taken or cannot be had.
        """
        try:
            listener = _bound(address)
        except OSError as error:
            raise OSError(f"cannot listen on {address}: {error.strerror or error}") from None
        listener.setblocking(False)
        listener.listen(_BACKLOG)
        self._listeners[listener.fileno()] = listener

    def start(self) -> None:
        """Answer from now on."""
        self._epoll.register(self._stopped, select.EPOLLIN)
        for descriptor in self._listeners:
            self._epoll.register(descriptor, select.EPOLLIN)
        self._readers = 1
        self._start_reader(0)

    def _start_reader(self, number: int) -> None:
        name = f"grpc-reader-{number}"
        threading.Thread(target=self._serve, name=name, daemon=True).start()

    def stop(self, grace_s: float) -> None:
        """Take no new connections, let calls in flight end for ``grace_s``, then close."""
        self._stopping.set()
        for listener in self._listeners.values():
            with contextlib.suppress(OSError, ValueError):
                self._epoll.unregister(listener.fileno())
            listener.close()
        goaway = struct.pack(">II", frames.LARGEST_WINDOW, frames.NO_ERROR)
        for connection in list(self._connections.values()):
            with contextlib.suppress(ConnectionFault):
                connection.sender.control(frames.frame(frames.GOAWAY, 0, 0, goaway))
        deadline = time.monotonic() + grace_s
        while time.monotonic() < deadline and not self._idle():
            time.sleep(_STOP_POLL_S)
        self._workers.stop()
        os.eventfd_write(self._stopped, 1)
        for connection in list(self._connections.values()):
            with contextlib.suppress(OSError):
                connection.socket.shutdown(socket.SHUT_RDWR)

    def _idle(self) -> bool:
        connections = list(self._connections.values())
        return self._workers.idle() and all(one.sender.idle() for one in connections)

    def _serve(self) -> None:
        poll, connections = self._epoll.poll, self._connections
        while True:
            # One event a call: a thread that works on a call must not sit on others' events.
            for descriptor, event in poll(-1, 1):
                connection = connections.get(descriptor)
                if connection is not None:
                    self._read(descriptor, connection, event)
                elif descriptor in self._listeners:
                    self._accept(descriptor)
                elif descriptor == self._stopped:
                    return

    def _read(self, descriptor: int, connection: Connection, event: int) -> None:
        if event & ENDED:
            connection.ended = True
        if event & select.EPOLLOUT:
            connection.sender.flush()
        connection.again = True
        calls: list[Call] = []
        # Who cannot have the lock leaves its event to who has it.
        while connection.again and connection.lock.acquire(False):
            try:
                connection.again = False
                if not self._receive(connection):
                    self._close(descriptor, connection)
                    return
                if connection.calls:
                    calls += connection.calls
                    connection.calls = []
            finally:
                connection.lock.release()
        if calls:
            self._work_on(connection, calls)

    def _receive(self, connection: Connection) -> bool:
        """Take all that has arrived; whether the connection lives."""
        try:
            while connection.receive() or connection.ended:
                pass
        except (BlockingIOError, InterruptedError):
            return True
        except ConnectionFault as fault:
            self._say_goodbye(connection, fault)
            return False
        except (EOFError, OSError):
            return False
        except Exception:  # noqa: BLE001 - one client's bytes must never end the others' service
            _LOG.exception("A gRPC connection failed")
            return False
        return True

    def _work_on(self, connection: Connection, calls: list[Call]) -> None:
        """Answer the last one here, and the others in threads of their own."""
        now_s = time.monotonic()
        for index, (stream, request, body) in enumerate(calls, 1):
            head = request.head
            method = self._methods.get(head.path)
            if method is None:
                error = ServingError(Code.UNIMPLEMENTED, "Method not found!")
                connection.sender.fail(stream, error)
                continue
            if not self._workers.enter():
                error = ServingError(Code.RESOURCE_EXHAUSTED, "Server Threadpool Exhausted")
                connection.sender.fail(stream, error)
                continue
            deadline_s = None if head.timeout_s is None else now_s + head.timeout_s
            call = (connection, stream, method, request, body, deadline_s)
            if index < len(calls):
                self._workers.submit(self._answer, *call)
                continue
            with self._lock:
                self._away += 1
                if self._away == self._readers:  # nobody would read
                    self._readers += 1
                    self._start_reader(self._away)
            self._answer(*call)
            with self._lock:
                self._away -= 1

    def _accept(self, descriptor: int) -> None:
        with self._accepting:
            try:
                client, _ = self._listeners[descriptor].accept()
            except OSError as error:  # taken by another thread, gone again, or the server stops
                if error.errno in (errno.EMFILE, errno.ENFILE):
                    self._spare.turn_away(self._listeners[descriptor])
                return
            client.setblocking(False)
            if client.family != socket.AF_UNIX:
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._connections[client.fileno()] = Connection(
                client,
                message_limit_bytes=self._message_limit_bytes,
                max_streams=self._max_streams,
            )
            self._epoll.register(client, EVENTS)

    def _close(self, descriptor: int, connection: Connection) -> None:
        if self._connections.get(descriptor) is connection:
            del self._connections[descriptor]
            connection.again = False
            connection.sender.close()
            connection.socket.close()

    def _say_goodbye(self, connection: Connection, fault: ConnectionFault) -> None:
        payload = struct.pack(">II", connection.last_stream, fault.code) + str(fault).encode()
        with contextlib.suppress(ConnectionFault):
            connection.sender.control(frames.frame(frames.GOAWAY, 0, 0, payload))

    def _answer(
        self,
        connection: Connection,
        stream: int,
        method: Method,
        request: Request,
        body: Body,
        deadline_s: float | None,
    ) -> None:
        failure = None
        try:
            deadline.begin(deadline_s)
            answer = method(request.unpacked(body))
        except Exception as error:  # noqa: BLE001 - every failure is answered with its status
            failure = as_serving_error(error)
        if deadline_s is not None and time.monotonic() > deadline_s:
            failure = ServingError(Code.DEADLINE_EXCEEDED, "Deadline Exceeded")
        self._workers.done()
        if failure is None:
            connection.sender.answer(stream, answer)
        else:
            connection.sender.fail(stream, failure)


def _bound(address: str) -> socket.socket:
    if address.startswith("unix:"):
        path = address.removeprefix("unix:")
        with contextlib.suppress(FileNotFoundError):
            if stat.S_ISSOCK(os.stat(path).st_mode):  # left behind by a server that was killed
                os.unlink(path)
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(path)
        return listener
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
    listener = socket.socket(family)
    # Connections of a server before may still be ending; one that listens is an error all the same.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((host, int(port)))
    return listener
