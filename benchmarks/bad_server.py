#!/usr/bin/env python3
"""A model server that misbehaves as the environment variable BAD says: never, garbage, dies, hangs,
leaks, floods. Its flags are ``tensorflow_model_server``'s."""

from __future__ import annotations

import os
import socketserver
import sys
import threading
import time

from tuner.deploy import answer_at_once

BAD = os.environ["BAD"]
AFTER_S = 1.5
"""Later than the server is ready, earlier than its first trial's end."""


class Garbage(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        self.wfile.write(b"\x00\xffthis is not HTTP/2\r\n" * 20)


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
    answer_at_once.main([*sys.argv[1:], f"--fake_delay_ms={3_600_000 if BAD == 'hangs' else 0}"])


if __name__ == "__main__":
    main()
