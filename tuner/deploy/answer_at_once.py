"""A program with ``tensorflow_model_server``'s flags that answers at once and holds no model.

gRPC: Predict (an empty ``PredictResponse``) and GetModelStatus (AVAILABLE). REST: predict
(``{"predictions": []}``). Unknown flags are ignored. ``--fake_…`` flags make it misbehave.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import grpc.aio

_STATUS = b"\x0a\x04\x08\x01\x10\x1e"
"""``GetModelStatusResponse{model_version_status{version: 1, state: AVAILABLE}}``."""


class Answers:
    """What every request gets, and when the program stops giving it."""

    def __init__(self, flags: dict[str, str]) -> None:
        self.delay_s = float(flags.get("fake_delay_ms", 0)) / 1000
        self.crash_after = int(flags.get("fake_crash_after", 0))
        self.count = 0

    def counted(self) -> None:
        self.count += 1
        if self.count == self.crash_after:
            os.abort()


async def serve(flags: dict[str, str], answers: Answers) -> None:
    """Answer gRPC requests until the process ends."""

    async def predict(request: bytes, context: object) -> bytes:
        if answers.delay_s:
            await asyncio.sleep(answers.delay_s)
        answers.counted()
        return b""

    async def status(request: bytes, context: object) -> bytes:
        return _STATUS

    server = grpc.aio.server(
        options=[("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", -1)]
    )
    for service, method, handler in (
        ("PredictionService", "Predict", predict),
        ("ModelService", "GetModelStatus", status),
    ):
        handlers = {method: grpc.unary_unary_rpc_method_handler(handler)}
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(f"tensorflow.serving.{service}", handlers),)
        )
    server.add_insecure_port(f"{address(flags)}:{flags['port']}")
    await server.start()
    await server.wait_for_termination()


def address(flags: dict[str, str]) -> str:
    """Where it listens; a container with a network of its own has to be reached from outside."""
    return flags.get("fake_bind_address", "127.0.0.1")


def serve_rest(flags: dict[str, str], answers: Answers) -> None:
    """Answer REST requests in a thread of its own."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            time.sleep(answers.delay_s)
            answers.counted()
            body = b'{"predictions": []}'
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer((address(flags), int(flags["rest_api_port"])), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()


def main(arguments: list[str]) -> None:
    flags = dict(argument.lstrip("-").split("=", 1) for argument in arguments if "=" in argument)
    # The first process of a container hears only signals that it handles.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    if flags.get("fake_refuse"):
        sys.exit(flags["fake_refuse"])
    time.sleep(float(flags.get("fake_start_delay_s", 0)))
    answers = Answers(flags)
    if int(flags.get("rest_api_port", 0)):
        serve_rest(flags, answers)
    asyncio.run(serve(flags, answers))


if __name__ == "__main__":
    main(sys.argv[1:])
