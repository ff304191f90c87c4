"""An HTTP/1 server whose threads all wait on one epoll: who wakes reads, answers and writes itself.

No request is handed from thread to thread, since that would cost more than a small model's run. When
all threads are busy, requests wait in their sockets.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import select
import socket
import threading
import time

import numpy as np

from tuner.modelserver.http1.connection import Answer, Connection
from tuner.modelserver.polling import ENDED, EVENTS, Spare

_LOG = logging.getLogger(__name__)
_BACKLOG = 1024
_STOP_POLL_S = 0.02


class Http1Server:
    """Listening, but answering nothing yet.

    Args:
        threads: requests that are answered at once.

    Raises:
        OSError: the port is taken.
    """

    def __init__(self, answer: Answer, host: str, port: int, threads: int) -> None:
        self._answer = answer
        self._connections: dict[int, Connection] = {}
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        self._listener = socket.create_server((host, port), family=family, backlog=_BACKLOG)
        self._listener.setblocking(False)
        self._epoll = select.epoll()
        self._stopped = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._stopping = False
        self._spare = Spare("REST")
        self._accepting = threading.Lock()
        self._threads = [
            threading.Thread(target=self._work, name=f"rest-{number}", daemon=True)
            for number in range(threads)
        ]

    def start(self) -> None:
        """Answer from now on."""
        self._epoll.register(self._stopped, select.EPOLLIN)
        self._epoll.register(self._listener, select.EPOLLIN | select.EPOLLET)
        for thread in self._threads:
            thread.start()

    def stop(self, grace_s: float) -> None:
        """Take no new connections, let requests in flight end for ``grace_s``, then close."""
        self._stopping = True
        with contextlib.suppress(OSError):
            self._epoll.unregister(self._listener)
        self._listener.close()
        deadline = time.monotonic() + grace_s
        while time.monotonic() < deadline and not all(
            connection.idle for connection in list(self._connections.values())
        ):
            time.sleep(_STOP_POLL_S)
        os.eventfd_write(self._stopped, 1)
        for connection in list(self._connections.values()):
            with contextlib.suppress(OSError):
                connection.socket.shutdown(socket.SHUT_RDWR)

    def _work(self) -> None:
        np.seterr(all="ignore")  # a number beyond its type is infinite, in JSON too
        poll, connections = self._epoll.poll, self._connections
        listener = self._listener.fileno()
        while True:
            # One event a call: a thread that is busy with one must not sit on others.
            for descriptor, event in poll(-1, 1):
                connection = connections.get(descriptor)
                if connection is not None:
                    self._serve(descriptor, connection, event)
                elif descriptor == listener:
                    self._accept()
                elif descriptor == self._stopped:
                    return

    def _serve(self, descriptor: int, connection: Connection, event: int) -> None:
        if event & ENDED:
            connection.ended = True
        connection.again = True
        # Who cannot have the lock leaves its event to who has it.
        while connection.again and connection.lock.acquire(False):
            alive = True
            try:
                while connection.again:
                    connection.again = False
                    alive = connection.serve()
                    if not alive:
                        break
            except OSError:
                alive = False
            except Exception:  # noqa: BLE001 - one client's bytes must never end a thread
                _LOG.exception("A REST connection failed")
                alive = False
            finally:
                if not alive:
                    self._close(descriptor, connection)
                connection.lock.release()

    def _close(self, descriptor: int, connection: Connection) -> None:
        if self._connections.get(descriptor) is connection:
            del self._connections[descriptor]
            connection.again = False
            connection.socket.close()
            if self._spare.missing:  # some may have been left waiting
                self._accept()

    def _accept(self) -> None:
        with self._accepting:
            while not self._stopping:
                try:
                    client, _ = self._listener.accept()
                except OSError as error:
                    if error.errno == errno.ECONNABORTED or (
                        error.errno in (errno.EMFILE, errno.ENFILE) and self._spare.turn_away(self._listener)
                    ):
                        continue
                    return
                self._spare.renew()
                client.setblocking(False)
                self._connections[client.fileno()] = Connection(client, self._answer)
                self._epoll.register(client, EVENTS)
