"""When a server is ready: its port is open and ``GetModelStatus`` says AVAILABLE for every model.

The few protobuf fields needed are read by hand: TensorFlow Serving's message classes import
TensorFlow, which a study's process has to do without.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import grpc

from tuner.errors import TrialFailure

METHOD = "/tensorflow.serving.ModelService/GetModelStatus"
STATES = {0: "UNKNOWN", 10: "START", 20: "LOADING", 30: "AVAILABLE", 40: "UNLOADING", 50: "END"}
_POLL_S = 0.02
_OPTIONS = (
    ("grpc.enable_http_proxy", 0),
    # By default a refused connection is tried again after a second only.
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 200),
)


@dataclass(frozen=True)
class VersionStatus:
    """One entry of ``GetModelStatusResponse.model_version_status``."""

    version: int
    state: str
    message: str


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def is_free(port: int) -> bool:
    """Whether the port can be listened on."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def wait_ready(
    address: str,
    names: Sequence[str],
    timeout_s: float,
    failure: Callable[[], tuple[str, str] | None],
    rest_address: str | None = None,
) -> None:
    """Wait until every model is AVAILABLE, and REST, which opens last, is open.

    Args:
        address: ``host:port`` of gRPC.
        names: the models' names.
        failure: asked again and again; a (reason, message) ends the wait.
        rest_address: ``host:port`` of REST, when it is to be open.

    Raises:
        TrialFailure: what ``failure`` said, ``start_failed`` when a model cannot be loaded, or
            ``start_timeout``.
    """
    deadline = time.monotonic() + timeout_s

    def check() -> None:
        failed = failure()
        if failed:
            raise TrialFailure(*failed)
        if time.monotonic() > deadline:
            raise TrialFailure("start_timeout", f"the server was not ready in {timeout_s:g} s")

    _wait_open(address, check)
    waiting = list(names)
    with grpc.insecure_channel(address, options=_OPTIONS) as channel:
        while waiting:
            check()
            seen = _ask(channel, waiting[0])
            if any(status.state == "AVAILABLE" for status in seen):
                waiting.pop(0)
                continue
            broken = [status for status in seen if status.state == "END" and status.message]
            if broken:
                message = f"model {waiting[0]} cannot be loaded: {broken[0].message}"
                raise TrialFailure("start_failed", message)
            time.sleep(_POLL_S)
    if rest_address is not None:
        _wait_open(rest_address, check)


def _wait_open(address: str, check: Callable[[], None]) -> None:
    host, _, port = address.rpartition(":")
    while not _opens(host, int(port)):
        check()
        time.sleep(_POLL_S)


def _opens(host: str, port: int) -> bool:
    try:
        with socket.create_connection((host, port), timeout=1.0):
            return True
    except OSError:
        return False


def _ask(channel: grpc.Channel, name: str) -> tuple[VersionStatus, ...]:
    call = channel.unary_unary(METHOD)
    try:
        return parse_status(call(status_request(name), timeout=2.0))
    except grpc.RpcError:
        return ()


def status_request(name: str) -> bytes:
    """``GetModelStatusRequest{model_spec{name}}``."""
    text = name.encode()
    spec = b"\x0a" + varint(len(text)) + text
    return b"\x0a" + varint(len(spec)) + spec


def parse_status(message: bytes) -> tuple[VersionStatus, ...]:
    """The entries of a ``GetModelStatusResponse``."""
    return tuple(
        _version(body)
        for number, body in fields(message)
        if number == 1 and isinstance(body, bytes)
    )


def _version(message: bytes) -> VersionStatus:
    version, state, text = 0, 0, ""
    for number, value in fields(message):
        if number == 1 and isinstance(value, int):
            version = value
        elif number == 2 and isinstance(value, int):
            state = value
        elif number == 3 and isinstance(value, bytes):
            inner = dict(fields(value))
            raw = inner.get(2, b"")
            text = raw.decode(errors="replace") if isinstance(raw, bytes) else ""
    return VersionStatus(version, STATES.get(state, str(state)), text)


def fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Field number and value of a protobuf message (varint and length-delimited wire types)."""
    position = 0
    while position < len(message):
        tag, position = _read_varint(message, position)
        if tag & 7 == 0:
            value, position = _read_varint(message, position)
            yield tag >> 3, value
        elif tag & 7 == 2:
            size, position = _read_varint(message, position)
            yield tag >> 3, message[position : position + size]
            position += size
        else:
            position += 8 if tag & 7 == 1 else 4


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes((*out, value))


def _read_varint(message: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[position]
        value |= (byte & 0x7F) << shift
        position, shift = position + 1, shift + 7
        if byte < 0x80:
            return value, position
