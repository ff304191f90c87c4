"""The sending half of a connection: answers within the client's flow-control windows.

An answer that fits goes out in one system call from the thread that made it. What the client's
windows or the socket's buffer do not take waits for the thread that reads.
"""

from __future__ import annotations

import socket
import struct
import threading

from tuner.modelserver.http2 import frames
from tuner.modelserver.http2.frames import ConnectionFault, StreamFault
from tuner.modelserver.http2.headers import http_refusal, response_head, trailers
from tuner.modelserver.status import ServingError

_HEAD_BLOCK = response_head()
_DONE_BLOCK = trailers(0, "")
_TABLE_BYTES, _EMPTY_TABLE = 4096, b"\x20"
_UNREAD_LIMIT_BYTES = 1 << 20
"""Answers to control frames that a client may leave unread."""


class OpenAnswer(bytes):
    """The message of a stream that stays open after it, until the client ends it."""


class _Answer:
    """A stream that is open for sending."""

    __slots__ = ("message", "sent", "stays", "window")

    def __init__(self, window: int) -> None:
        self.window = window
        self.message = b""
        self.sent = 0
        self.stays = False


class Sender:
    """May be called from any thread."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._lock = threading.Lock()
        self._answers: dict[int, _Answer] = {}
        self._blocked: dict[int, _Answer] = {}
        """Answers that wait for a window, oldest first."""
        self._staying: set[int] = set()
        """Streams that have their message and stay open."""
        self._window = self._initial_window = frames.WINDOW_BYTES
        self._frame_bytes = frames.FRAME_BYTES
        self._output = bytearray()
        self._control_bytes = 0
        """Of control frames in the output, at most."""
        self._table_update = b""
        """Before the next block, where the client's table is smaller than one begins with."""
        self._closed = self._table_is_empty = False

    def open(self, stream: int) -> None:
        """Expect an answer on ``stream``."""
        with self._lock:
            self._answers[stream] = _Answer(self._initial_window)

    def open_streams(self) -> int:
        """How many calls are not answered to their end."""
        with self._lock:
            return len(self._answers) + len(self._staying)

    def drop(self, stream: int) -> None:
        """The client wants no answer any more."""
        with self._lock:
            self._answers.pop(stream, None)
            self._blocked.pop(stream, None)
            self._staying.discard(stream)

    def idle(self) -> bool:
        """Whether nothing is owed to the client."""
        with self._lock:
            return not self._answers and not self._output

    def answer(self, stream: int, message: bytes) -> None:
        """End a call with its message and OK; after an ``OpenAnswer`` the stream stays open."""
        length = len(message)
        prefixed = b"\0" + struct.pack(">I", length) + message
        size = len(prefixed)
        with self._lock:
            answer = self._answers.get(stream)
            if answer is None:
                return
            block = self._led(_HEAD_BLOCK)
            head = frames.frame(frames.HEADERS, frames.END_HEADERS, stream, block)
            if size <= min(self._window, answer.window, self._frame_bytes) and not self._blocked:
                self._window -= size
                answer.stays = isinstance(message, OpenAnswer)
                data = frames.frame(frames.DATA, 0, stream, prefixed)
                self._write(head + data + self._ending(stream, answer))
                return
            answer.message, answer.stays = prefixed, isinstance(message, OpenAnswer)
            self._blocked[stream] = answer
            self._write(head)
            self._pump()

    def fail(self, stream: int, error: ServingError, unread: bool = False) -> None:
        """End a call with an error; ``unread``: the rest of the request is not wanted."""
        block = _HEAD_BLOCK + trailers(int(error.code), error.message)
        self._end(stream, block, unread)

    def refuse(self, stream: int, http_status: int) -> None:
        """Answer what is no gRPC request."""
        self._end(stream, http_refusal(http_status), unread=True)

    def control(self, data: bytes) -> None:
        """Send frames that are no answer to a call.

        Raises:
            ConnectionFault: the client asks for such frames without reading them.
        """
        with self._lock:
            if self._control_bytes > _UNREAD_LIMIT_BYTES:
                raise ConnectionFault(frames.ENHANCE_YOUR_CALM, "answers are left unread")
            self._write(data)
            self._control_bytes = min(self._control_bytes + len(data), len(self._output))

    def settings(self, payload: bytes) -> None:
        """Take the client's SETTINGS and acknowledge them."""
        with self._lock:
            for key, value in frames.read_settings(payload):
                if key == frames.HEADER_TABLE_SIZE and value < _TABLE_BYTES:
                    # Ours is never used, but the client waits for word of it (RFC 7541 4.2).
                    if not self._table_is_empty:
                        self._table_update, self._table_is_empty = _EMPTY_TABLE, True
                elif key == frames.ENABLE_PUSH and value > 1:
                    raise ConnectionFault(frames.PROTOCOL_ERROR, f"ENABLE_PUSH of {value}")
                elif key == frames.INITIAL_WINDOW_SIZE:
                    if value > frames.LARGEST_WINDOW:
                        raise ConnectionFault(frames.FLOW_CONTROL_ERROR, f"a window of {value}")
                    for answer in self._answers.values():
                        answer.window += value - self._initial_window
                    self._initial_window = value
                elif key == frames.MAX_FRAME_SIZE:
                    if not frames.FRAME_BYTES <= value <= frames.LARGEST_FRAME:
                        raise ConnectionFault(frames.PROTOCOL_ERROR, f"frames of {value} bytes")
                    self._frame_bytes = value
        self.control(frames.frame(frames.SETTINGS, frames.ACK, 0))
        with self._lock:
            self._pump()

    def window_update(self, stream: int, payload: bytes) -> None:
        """The client takes more bytes: on ``stream``, or in all where that is 0."""
        if len(payload) != 4:
            raise ConnectionFault(frames.FRAME_SIZE_ERROR, "WINDOW_UPDATE of a wrong length")
        step = int.from_bytes(payload, "big") & frames.LARGEST_WINDOW
        if not step:
            fault = StreamFault if stream else ConnectionFault
            raise fault(frames.PROTOCOL_ERROR, "WINDOW_UPDATE by nothing")
        with self._lock:
            if stream == 0:
                self._window += step
            elif (answer := self._answers.get(stream)) is not None:
                answer.window += step
                if answer.window > frames.LARGEST_WINDOW:
                    raise StreamFault(frames.FLOW_CONTROL_ERROR, "the stream's window overflows")
            if self._window > frames.LARGEST_WINDOW:
                raise ConnectionFault(frames.FLOW_CONTROL_ERROR, "the window overflows")
            self._pump()

    def flush(self) -> None:
        """The socket takes bytes again."""
        with self._lock:
            if self._closed or not self._output:
                return
            del self._output[: self._send(self._output)]
            self._control_bytes = min(self._control_bytes, len(self._output))

    def close(self) -> None:
        """Send nothing any more."""
        with self._lock:
            self._closed = True
            self._answers.clear()
            self._blocked.clear()
            self._staying.clear()
            self._output.clear()

    def _end(self, stream: int, block: bytes, unread: bool) -> None:
        with self._lock:
            if self._answers.pop(stream, None) is None:
                return
            flags = frames.END_HEADERS | frames.END_STREAM
            out = frames.frame(frames.HEADERS, flags, stream, self._led(block))
            if unread:
                out += frames.reset(stream, frames.NO_ERROR)
            self._write(out)

    def _led(self, block: bytes) -> bytes:
        """A block with the word on the table's size before it, where that is owed."""
        if not self._table_update:
            return block
        block, self._table_update = self._table_update + block, b""
        return block

    def _pump(self) -> None:
        """Send what the windows allow of the answers that wait."""
        for stream, answer in list(self._blocked.items()):
            while (left := len(answer.message) - answer.sent) > 0:
                size = min(left, self._window, answer.window, self._frame_bytes)
                if size <= 0:
                    break
                part = answer.message[answer.sent : answer.sent + size]
                answer.sent += size
                answer.window -= size
                self._window -= size
                self._write(frames.frame(frames.DATA, 0, stream, part))
            if not left:
                del self._blocked[stream]
                self._write(self._ending(stream, answer))

    def _ending(self, stream: int, answer: _Answer) -> bytes:
        """What follows the message: the trailers, or nothing on a stream that stays open."""
        del self._answers[stream]
        if not answer.stays:
            return _done(stream)
        self._staying.add(stream)
        return b""

    def _write(self, data: bytes | bytearray) -> None:
        if self._closed:
            return
        if self._output:
            self._output += data
            return
        sent = self._send(data)
        if sent < len(data):
            self._output += memoryview(data)[sent:]

    def _send(self, data: bytes | bytearray) -> int:
        """How many bytes the socket took; all, where the client is gone: the reader finds out."""
        try:
            return self._socket.send(data)
        except BlockingIOError:
            return 0
        except OSError:
            return len(data)


def _done(stream: int) -> bytes:
    flags = frames.END_HEADERS | frames.END_STREAM
    return frames.frame(frames.HEADERS, flags, stream, _DONE_BLOCK)
