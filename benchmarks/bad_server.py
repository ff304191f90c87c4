#!/usr/bin/env python3
"""A model server that misbehaves as the environment variable BAD says: never, garbage, spoils, dies,
hangs, leaks, floods. Its flags are ``tensorflow_model_server``'s."""

from __future__ import annotations

import os
import socket
import socketserver
import sys
import threading
import time

from tuner.deploy import answer_at_once

BAD = os.environ["BAD"]
AFTER_S = 1.5
"""Later than the server is ready, earlier than its first trial's end."""


NONSENSE = b"\x00\xffthis is not HTTP/2\r\n" * 20


class Garbage(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        self.wfile.write(NONSENSE)


class Spoiling(socketserver.BaseRequestHandler):
    """Passes a connection on to the server behind, and after a while nonsense instead."""

    behind: tuple[str, int]
    begun_s = time.monotonic()

    def handle(self) -> None:
        with socket.create_connection(self.behind) as server:
            threading.Thread(target=self._pass_on, args=(server,), daemon=True).start()
            while data := server.recv(65536):
                spoilt = time.monotonic() - self.begun_s > AFTER_S
                self.request.sendall(NONSENSE if spoilt else data)

    def _pass_on(self, server: socket.socket) -> None:
        while data := self.request.recv(65536):
            server.sendall(data)


def spoil(port: int) -> int:
    """Listen on the port in a thread; gives another one for the server behind."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        Spoiling.behind = probe.getsockname()
    server = socketserver.ThreadingTCPServer(("127.0.0.1", port), Spoiling)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return Spoiling.behind[1]


def later() -> None:
    time.sleep(AFTER_S)
    if BAD == "dies":
        os.kill(os.getpid(), 11)
    if BAD == "leaks":
        hoard = []
        while True:
            hoard.append(bytearray(os.urandom(1 << 20)) * 8)
            time.sleep(0.01)


def main() -> None:
    flags = dict(a.lstrip("-").split("=", 1) for a in sys.argv[1:] if "=" in a)
    if BAD == "never":
        time.sleep(3600)
    if BAD == "garbage":
        socketserver.ThreadingTCPServer.allow_reuse_address = True
        socketserver.ThreadingTCPServer(("127.0.0.1", int(flags["port"])), Garbage).serve_forever()
    if BAD == "floods":
        threading.Thread(target=lambda: [print("x" * 1000) for _ in range(100_000)]).start()
    threading.Thread(target=later, daemon=True).start()
    port = spoil(int(flags["port"])) if BAD == "spoils" else flags["port"]
    delay_ms = 3_600_000 if BAD == "hangs" else 0
    answer_at_once.main([*sys.argv[1:], f"--port={port}", f"--fake_delay_ms={delay_ms}"])


if __name__ == "__main__":
    main()
