"""A gRPC client cheap enough to load a server from one core: HTTP/2 by hand, bytes made beforehand.

Closed loop: as many requests in flight as asked for, each answered by the next. It honours the
server's flow control, and counts an answer as good only when a message came before its end.
"""

from __future__ import annotations

import argparse
import json
import resource
import select
import socket
import struct
import time
from dataclasses import dataclass, field
from pathlib import Path

DATA, HEADERS, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 4, 6, 7, 8
END_STREAM, ACK, END_HEADERS = 1, 1, 4
_FRAME_BYTES = 16384
"""Until the server allows more."""


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def _literal(name: bytes, value: bytes) -> bytes:
    return b"\0" + bytes([len(name)]) + name + bytes([len(value)]) + value


@dataclass
class _Stream:
    started_s: float
    sent: int = 0
    window: int = 0
    answered: bool = False


@dataclass
class Client:
    """One connection with ``concurrency`` requests in flight."""

    port: int
    path: str
    body: bytes
    concurrency: int
    latencies_s: list[float] = field(default_factory=list)
    failed: int = 0

    def run(self, seconds: float) -> float:
        """Load the server for that long; returns the seconds it really took."""
        self._message = b"\0" + struct.pack(">I", len(self.body)) + self.body
        self._headers = b"".join(
            _literal(name, value)
            for name, value in (
                (b":method", b"POST"),
                (b":scheme", b"http"),
                (b":path", self.path.encode()),
                (b":authority", b"127.0.0.1"),
                (b"te", b"trailers"),
                (b"content-type", b"application/grpc"),
            )
        )
        self._window, self._initial_window, self._frame_bytes = 65535, 65535, _FRAME_BYTES
        self._streams: dict[int, _Stream] = {}
        self._next = 1
        self._out = bytearray()
        with socket.create_connection(("127.0.0.1", self.port)) as self._socket:
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._out += b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
            self._out += frame(SETTINGS, 0, 0, struct.pack(">HI", 4, 2**31 - 1))
            self._out += frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", 2**30))
            self._socket.setblocking(False)
            start = time.perf_counter()
            for _ in range(self.concurrency):
                self._open()
            buffer = b""
            while time.perf_counter() - start < seconds:
                self._send()
                writers = [self._socket] if self._out else []
                readable, _, _ = select.select([self._socket], writers, [], 5.0)
                if readable:
                    chunk = self._socket.recv(1 << 20)
                    if not chunk:
                        raise ConnectionError("the server closed the connection")
                    buffer = self._read(buffer + chunk)
            return time.perf_counter() - start

    def _open(self) -> None:
        number, self._next = self._next, self._next + 2
        self._streams[number] = _Stream(time.perf_counter(), window=self._initial_window)
        self._out += frame(HEADERS, END_HEADERS, number, self._headers)

    def _send(self) -> None:
        total = len(self._message)
        for number, stream in self._streams.items():
            while stream.sent < total and self._window > 0 and stream.window > 0:
                size = min(self._frame_bytes, total - stream.sent, self._window, stream.window)
                last = stream.sent + size == total
                payload = self._message[stream.sent : stream.sent + size]
                self._out += frame(DATA, END_STREAM if last else 0, number, payload)
                stream.sent += size
                stream.window -= size
                self._window -= size
        if self._out:
            try:
                sent = self._socket.send(self._out)
            except BlockingIOError:
                return
            del self._out[:sent]

    def _read(self, buffer: bytes) -> bytes:
        at = 0
        while len(buffer) - at >= 9:
            length = int.from_bytes(buffer[at : at + 3], "big")
            if len(buffer) - at < 9 + length:
                break
            kind, flags = buffer[at + 3], buffer[at + 4]
            number = int.from_bytes(buffer[at + 5 : at + 9], "big")
            self._frame(kind, flags, number, buffer[at + 9 : at + 9 + length])
            at += 9 + length
        return buffer[at:]

    def _frame(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        if kind == DATA:
            self._streams[number].answered = True
        elif kind == HEADERS and flags & END_STREAM:
            stream = self._streams.pop(number)
            self.latencies_s.append(time.perf_counter() - stream.started_s)
            self.failed += not stream.answered
            self._open()
        elif kind == SETTINGS and not flags & ACK:
            for key, value in struct.iter_unpack(">HI", payload):
                if key == 5:
                    self._frame_bytes = value
                if key == 4:
                    for stream in self._streams.values():
                        stream.window += value - self._initial_window
                    self._initial_window = value
            self._out += frame(SETTINGS, ACK, 0)
        elif kind == PING and not flags & ACK:
            self._out += frame(PING, ACK, 0, payload)
        elif kind == WINDOW_UPDATE:
            step = int.from_bytes(payload, "big")
            if number == 0:
                self._window += step
            elif number in self._streams:
                self._streams[number].window += step
        elif kind == GOAWAY:
            raise ConnectionError(f"the server said goodbye: {payload!r}")


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / 100


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--path", default="/tensorflow.serving.PredictionService/Predict")
    parser.add_argument("--body", type=Path, required=True, help="a serialised request")
    parser.add_argument("--concurrency", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--server-pid", type=int, required=True)
    args = parser.parse_args()
    body = args.body.read_bytes()
    Client(args.port, args.path, body, args.concurrency).run(min(1.0, args.seconds / 4))
    client = Client(args.port, args.path, body, args.concurrency)
    server_before, own_before = _cpu_s(args.server_pid), resource.getrusage(resource.RUSAGE_SELF)
    elapsed = client.run(args.seconds)
    server_s = _cpu_s(args.server_pid) - server_before
    own = resource.getrusage(resource.RUSAGE_SELF)
    own_s = own.ru_utime + own.ru_stime - own_before.ru_utime - own_before.ru_stime
    done = len(client.latencies_s)
    ordered = sorted(client.latencies_s)
    answer = {
        "requests_per_s": (done - client.failed) / elapsed,
        "failed": client.failed,
        "latency_p50_ms": ordered[done // 2] * 1e3,
        "latency_p99_ms": ordered[min(done - 1, done * 99 // 100)] * 1e3,
        "server_cpu_ms_per_request": server_s / done * 1e3,
        "server_busy": server_s / elapsed,
        "client_busy": own_s / elapsed,
    }
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
