"""The calling end of a connection: unary gRPC calls whose bytes were made before.

Like ``Endpoint`` without input or output. A call waits where the server's limit on streams makes
it wait; its message is cut to the server's frame size and sent as far as the server's windows
reach. Whoever calls counts time from where it likes: nothing here blocks.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping

from tuner.load.http2 import frames, status
from tuner.load.http2.endpoint import Endpoint
from tuner.load.http2.headers import BlockEncoder

Answered = Callable[[int, float, int, str], None]
"""Called once for each call with its tag, ``Calls.now``, gRPC's status code and message."""

Fields = list[tuple[bytes, bytes]]
ROOM_FOR_HEADERS = 8192
"""Cutting a message so short leaves one frame for the buffer of the socket."""


class Call:
    """A call under way. ``body`` is the message with its prefix of five bytes."""

    __slots__ = ("answer", "body", "done", "http", "kind", "offset", "received", "refused",
                 "stream", "tag", "window")  # fmt: skip

    def __init__(self, tag: int, kind: int, body: bytes, keep: bool) -> None:
        self.tag, self.kind, self.body = tag, kind, body
        self.stream = self.offset = self.window = self.received = 0
        self.http: bytes | None = None
        self.done = self.refused = False
        self.answer: bytearray | None = bytearray() if keep else None
        """What came, where someone wants to read it; else it is only counted."""


class Calls(Endpoint):
    """A client's end.

    Args:
        kinds: header fields of each kind of call.
        answered: told of every end of a call.
    """

    def __init__(self, kinds: list[Fields], answered: Answered) -> None:
        super().__init__()
        self.now = 0.0
        """When what is going on happened; set by whoever drives this end, before it does."""
        self.ready = False
        """Whether the server has said how it wants to be spoken to."""
        self.leaving = False
        """Whether the server takes no further calls."""
        self._kinds, self._answered = kinds, answered
        self._encoder = BlockEncoder()
        self._next_stream = 1
        self._limit = frames.MAX_WINDOW
        self._open: dict[int, Call] = {}
        self._uploads: dict[int, Call] = {}
        self._waiting: deque[Call] = deque()
        self.out.append(frames.PREFACE)
        self.greet()

    @property
    def under_way(self) -> int:
        """Calls without an end yet."""
        return len(self._open) + len(self._waiting)

    def call(self, tag: int, kind: int, body: bytes, keep: bool = False) -> Call:
        """Begin a call now, or as soon as the server allows another one."""
        call = Call(tag, kind, body, keep)
        if self.ready and len(self._open) < self._limit and not self._waiting:
            self._begin(call)
        else:
            self._waiting.append(call)
        return call

    def give_up(self, call: Call, code: int, message: str) -> None:
        """End a call from this side."""
        if call.done:
            return
        if call.stream:
            self.out.append(frames.reset(call.stream, frames.CANCEL))
        else:
            self._waiting.remove(call)
        self._end(call, code, message)
        self._admit()

    def lost(self, message: str) -> None:
        """The connection is gone, and every call with it."""
        self.leaving = True
        for call in [*self._open.values(), *self._waiting]:
            self._end(call, status.UNAVAILABLE, message)
        self._waiting.clear()

    def _begin(self, call: Call) -> None:
        stream, self._next_stream = self._next_stream, self._next_stream + 2
        call.stream = stream
        self._open[stream] = call
        block = self._encoder.encode(call.kind, self._kinds[call.kind])
        number = frames.pack_int(stream)
        head = frames.prefix(frames.HEADERS, frames.END_HEADERS, len(block)) + number + block
        body = call.body
        size = len(body)
        if not self._uploads and size <= min(self.peer_frame, self.peer_window, self.window):
            self.window -= size
            data = frames.prefix(frames.DATA, frames.END_STREAM, size) + number
            if size < ROOM_FOR_HEADERS:
                self.out.append(head + data + body)
            else:
                self.out += (head + data, body)
            return
        self.out.append(head)
        call.window = self.peer_window
        self._uploads[stream] = call
        self._upload()

    def _upload(self) -> None:
        """Send as much of the waiting messages as the windows allow, the oldest first."""
        for stream, call in list(self._uploads.items()):
            if self.window <= 0:
                return
            size = len(call.body)
            view = memoryview(call.body)
            while call.offset < size:
                length = min(size - call.offset, call.window, self.window, self.peer_frame)
                if length <= 0:
                    break
                end = call.offset + length
                flags = frames.END_STREAM if end == size else 0
                self.out += (
                    frames.prefix(frames.DATA, flags, length) + frames.pack_int(stream),
                    view[call.offset : end],
                )
                call.offset = end
                call.window -= length
                self.window -= length
            else:
                del self._uploads[stream]

    def _admit(self) -> None:
        """Begin waiting calls as far as the server's limit on streams allows."""
        while self._waiting and self.ready and len(self._open) < self._limit and not self.leaving:
            self._begin(self._waiting.popleft())

    def headers(self, stream: int, fields: Mapping[bytes, bytes], end: bool) -> None:
        call = self._open.get(stream)
        if call is None:
            return
        http = fields.get(b":status")
        if http is not None and not http.startswith(b"1"):
            call.http = http
        if end:
            self._close(call, fields)

    def data(self, stream: int, piece: bytes, end: bool) -> None:
        call = self._open.get(stream)
        if call is None:
            return
        call.received += len(piece)
        if call.answer is not None:
            call.answer += piece
        if end:
            self._close(call, {})

    def _close(self, call: Call, fields: Mapping[bytes, bytes]) -> None:
        if call.http is not None and call.http != b"200" and b"grpc-status" not in fields:
            code, message = status.from_http(call.http)
        else:
            code, message = status.from_trailers(fields)
        if code == status.OK and call.received < 5:
            code, message = status.INTERNAL, "the server said OK without an answer"
        if call.stream in self._uploads:
            # It answered without having heard all; the rest would only cost both sides.
            self.out.append(frames.reset(call.stream, frames.CANCEL))
        self._end(call, code, message)
        if self._waiting:
            self._admit()

    def _end(self, call: Call, code: int, message: str) -> None:
        self._open.pop(call.stream, None)
        self._uploads.pop(call.stream, None)
        call.done = True
        self._answered(call.tag, self.now, code, message)

    def widened(self, stream: int, size: int) -> None:
        if stream and stream in self._uploads:
            self._uploads[stream].window += size
        if self._uploads:
            self._upload()

    def set(self, values: Mapping[int, int], window_change: int) -> None:
        self.ready = True
        self._limit = values.get(frames.MAX_CONCURRENT_STREAMS, self._limit)
        if frames.HEADER_TABLE_SIZE in values:
            self._encoder.limit_table(values[frames.HEADER_TABLE_SIZE])
        for call in self._uploads.values():
            call.window += window_change
        self._upload()
        self._admit()

    def reset(self, stream: int, code: int) -> None:
        call = self._open.get(stream)
        if call is None:
            return
        if code == frames.REFUSED_STREAM and not call.refused:
            # The server swears that it did nothing; gRPC's clients try once more, too.
            del self._open[stream]
            self._uploads.pop(stream, None)
            call.refused, call.offset, call.stream = True, 0, 0
            self._waiting.appendleft(call)
        else:
            self._end(call, *status.from_reset(code))
        self._admit()

    def going_away(self, last: int, code: int, text: bytes) -> None:
        self.leaving = True
        words = text.decode(errors="replace") or f"HTTP/2 error {code}"
        unheard = [call for stream, call in self._open.items() if stream > last]
        unheard += self._waiting
        self._waiting.clear()
        for call in unheard:
            self._end(call, status.UNAVAILABLE, f"the server goes away: {words}")
