"""The receiving half of a connection: bytes from a client become calls."""

from __future__ import annotations

import socket
import struct
import threading

from tuner.modelserver.http2 import frames
from tuner.modelserver.http2.frames import ConnectionFault, StreamFault
from tuner.modelserver.http2.headers import LIST_LIMIT_BYTES, HeadReader
from tuner.modelserver.http2.request import PREFIX_BYTES, Body, Request
from tuner.modelserver.http2.sender import Sender
from tuner.modelserver.status import Code, ServingError

Call = tuple[int, Request, Body]
"""A whole request: its stream, itself, its message, compressed or not."""

_CHUNK_BYTES = 1 << 18
_INTO_PLACE_BYTES = 1 << 16
"""So much of a frame still to come is received straight to where it belongs."""
_FRAME_BYTES = 1 << 20
_WINDOW_STEP_BYTES = 1 << 29
_BLOCK_LIMIT_BYTES, _BLOCK_FRAMES = 1 << 20, 128
"""Of a header block, beyond which a client is up to no good."""
_CLOSED_KEPT = 4096
"""Streams of which it is remembered how they ended."""


def greeting(max_streams: int | None) -> bytes:
    """What a server says first: windows wide open, since requests are read as they come."""
    values = [
        (frames.INITIAL_WINDOW_SIZE, frames.LARGEST_WINDOW),
        (frames.MAX_FRAME_SIZE, _FRAME_BYTES),
        (frames.MAX_HEADER_LIST_SIZE, LIST_LIMIT_BYTES),
    ]
    if max_streams is not None:
        values.append((frames.MAX_CONCURRENT_STREAMS, max_streams))
    step = struct.pack(">I", frames.LARGEST_WINDOW - frames.WINDOW_BYTES)
    return frames.settings(values) + frames.frame(frames.WINDOW_UPDATE, 0, 0, step)


class Connection:
    """Belongs to the thread that has its lock, but for its ``sender``.

    Args:
        message_limit_bytes: of a request; negative: none.
        max_streams: open at once, beyond which streams are refused; ``None``: any number.
    """

    def __init__(
        self,
        sock: socket.socket,
        *,
        message_limit_bytes: int,
        max_streams: int | None,
    ) -> None:
        self.socket, self.sender = sock, Sender(sock)
        self.lock = threading.Lock()
        self.again = self.ended = False
        """There is something to read; and the client will send nothing more."""
        self.calls: list[Call] = []
        """Requests that are whole and not yet worked on."""
        self._message_limit_bytes = message_limit_bytes
        self._reader = HeadReader()
        self._input = bytearray()
        self._needed = 0
        """So many bytes of input make something that can be read: pieces are joined once, then."""
        self._greeted = self._settled = False
        self._max_streams = max_streams
        self._block: tuple[int, int, bytes, int] | None = None
        """(stream, flags, header block so far, frames of it) while CONTINUATION is to come."""
        self._closed: dict[int, bool] = {}
        """Streams that ended lately -> whether we gave them up while the client was still sending."""
        self._place: tuple[Request, int, int, memoryview] | None = None
        """(request, stream, flags, where the rest of the frame goes)."""
        self._requests: dict[int, Request] = {}
        self.last_stream = self._unacknowledged = 0
        self.sender.control(greeting(max_streams))

    def receive(self) -> bool:
        """Take what has arrived, or some of it; whether there may be more.

        Raises:
            ConnectionFault: the client broke the protocol.
            EOFError: the client has closed.
            OSError: the connection broke; BlockingIOError: nothing has arrived.
        """
        if self._place is not None:
            return self._receive_into_place(*self._place)
        chunk = self.socket.recv(_CHUNK_BYTES)
        if not chunk:
            raise EOFError
        more = len(chunk) == _CHUNK_BYTES
        data, at = chunk, 0
        if self._input:
            self._input += chunk
            if len(self._input) < self._needed:
                return more
            data = bytes(self._input)
        self._needed = 0
        if not self._greeted:
            if not data.startswith(frames.PREFACE):
                if not frames.PREFACE.startswith(data):
                    raise ConnectionFault(frames.PROTOCOL_ERROR, "no HTTP/2 preface")
                self._input = bytearray(data)
                return more
            self._greeted, at = True, len(frames.PREFACE)
        while len(data) - at >= frames.HEAD_BYTES:
            length, kind, flags, stream = frames.read_head(data, at)
            if length > _FRAME_BYTES:
                raise ConnectionFault(frames.FRAME_SIZE_ERROR, f"a frame of {length} bytes")
            if self._block and (kind != frames.CONTINUATION or stream != self._block[0]):
                raise ConnectionFault(frames.PROTOCOL_ERROR, "a header block was left unfinished")
            if not self._settled and (kind != frames.SETTINGS or flags & frames.ACK):
                raise ConnectionFault(frames.PROTOCOL_ERROR, "the first frame is no SETTINGS")
            self._settled = True
            start = at + frames.HEAD_BYTES
            end = start + length
            if end > len(data):
                self._needed = end - at
                if kind == frames.DATA and end - len(data) >= _INTO_PLACE_BYTES:
                    payload = memoryview(data)[start:]
                    if self._begin_place(stream, flags, payload, end - len(data)):
                        at = len(data)
                    elif len(payload) < PREFIX_BYTES:
                        self._needed = start + PREFIX_BYTES - at
                break
            try:
                if kind == frames.DATA:
                    self._data(stream, flags, memoryview(data)[start:end])
                else:
                    self._frame(kind, flags, stream, data[start:end])
            except StreamFault as fault:
                self._reset(stream, fault.code)
            at = end
        self._input = bytearray(memoryview(data)[at:])
        return more or self._place is not None

    def _frame(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == frames.HEADERS:
            block = frames.unpadded(flags, payload)
            self._headers(stream, flags, block)
        elif kind == frames.CONTINUATION:
            if self._block is None:
                raise ConnectionFault(frames.PROTOCOL_ERROR, "CONTINUATION of nothing")
            _, first_flags, block, count = self._block
            flags = first_flags | flags & frames.END_HEADERS
            self._headers(stream, flags, block + payload, count + 1)
        elif kind == frames.WINDOW_UPDATE:
            if stream > self.last_stream:
                raise ConnectionFault(frames.PROTOCOL_ERROR, "WINDOW_UPDATE of an idle stream")
            self.sender.window_update(stream, payload)
        elif kind == frames.PRIORITY:
            if not stream:
                raise ConnectionFault(frames.PROTOCOL_ERROR, "PRIORITY of the connection")
            if len(payload) != 5:
                raise StreamFault(frames.FRAME_SIZE_ERROR, "PRIORITY of a wrong length")
        elif kind == frames.PING:
            if stream:
                raise ConnectionFault(frames.PROTOCOL_ERROR, "PING on a stream")
            if len(payload) != 8:
                raise ConnectionFault(frames.FRAME_SIZE_ERROR, "PING of a wrong length")
            if not flags & frames.ACK:
                self.sender.control(frames.frame(frames.PING, frames.ACK, 0, payload))
        elif kind == frames.SETTINGS:
            if stream:
                raise ConnectionFault(frames.PROTOCOL_ERROR, "SETTINGS on a stream")
            if not flags & frames.ACK:
                self.sender.settings(payload)
            elif payload:
                raise ConnectionFault(frames.FRAME_SIZE_ERROR, "SETTINGS acknowledged with values")
        elif kind == frames.RST_STREAM:
            if stream == 0 or stream > self.last_stream:
                raise ConnectionFault(frames.PROTOCOL_ERROR, "RST_STREAM of an idle stream")
            if len(payload) != 4:
                raise ConnectionFault(frames.FRAME_SIZE_ERROR, "RST_STREAM of a wrong length")
            self._requests.pop(stream, None)
            self._note(stream, given_up=False)
            self.sender.drop(stream)
        elif kind == frames.GOAWAY:
            if stream:
                raise ConnectionFault(frames.PROTOCOL_ERROR, "GOAWAY on a stream")
            if len(payload) < 8:
                raise ConnectionFault(frames.FRAME_SIZE_ERROR, "GOAWAY of a wrong length")
        elif kind == frames.PUSH_PROMISE:
            raise ConnectionFault(frames.PROTOCOL_ERROR, "PUSH_PROMISE from a client")
        # GOAWAY asks for nothing: the client opens no more streams, and closes. Other kinds are
        # to be ignored.

    def _headers(self, stream: int, flags: int, block: bytes, count: int = 1) -> None:
        if len(block) > _BLOCK_LIMIT_BYTES or count > _BLOCK_FRAMES:
            raise ConnectionFault(frames.ENHANCE_YOUR_CALM, f"{len(block)} bytes of headers")
        if stream % 2 == 0:
            raise ConnectionFault(frames.PROTOCOL_ERROR, f"a client's stream {stream}")
        if not flags & frames.END_HEADERS:
            self._block = (stream, flags, block, count)
            return
        self._block = None
        ends = bool(flags & frames.END_STREAM)
        if stream <= self.last_stream:
            self._trailers(stream, block, ends)
            return
        self.last_stream = stream
        head = self._reader.read(block)
        if self._max_streams is not None and self.sender.open_streams() >= self._max_streams:
            raise StreamFault(frames.REFUSED_STREAM, "more streams than were allowed")
        self.sender.open(stream)
        if head.http_status != 200:
            self._note(stream, given_up=not ends)
            self.sender.refuse(stream, head.http_status)
            return
        if head.oversized:
            self._note(stream, given_up=not ends)
            error = ServingError(Code.RESOURCE_EXHAUSTED, "Received metadata size exceeds limit")
            self.sender.fail(stream, error, unread=not ends)
            return
        self._requests[stream] = Request(head, self._message_limit_bytes)
        if flags & frames.END_STREAM:
            self._ended(stream)

    def _trailers(self, stream: int, block: bytes, ends: bool) -> None:
        """HEADERS on a stream that began already."""
        if stream not in self._requests:
            self._reader.decode(block)
            self._refuse_closed(stream, ends)
            return
        self._reader.read_trailers(block)
        if not ends:
            raise StreamFault(frames.PROTOCOL_ERROR, "HEADERS that do not end the stream")
        self._ended(stream)

    def _refuse_closed(self, stream: int, ends: bool) -> None:
        """What comes on a closed stream: borne where we gave it up (RFC 9113 5.1), else refused."""
        given_up = self._closed.get(stream)
        if given_up is None:
            raise ConnectionFault(frames.PROTOCOL_ERROR, f"stream {stream} was passed over")
        if not given_up:
            raise StreamFault(frames.STREAM_CLOSED, f"stream {stream} has ended")
        if ends:
            self._closed[stream] = False

    def _note(self, stream: int, *, given_up: bool) -> None:
        """Remember how a stream ended."""
        self._closed.pop(stream, None)
        self._closed[stream] = given_up
        if len(self._closed) > _CLOSED_KEPT:
            del self._closed[next(iter(self._closed))]

    def _reset(self, stream: int, code: int) -> None:
        """End a stream; frames of it that are on their way are borne."""
        self._requests.pop(stream, None)
        self._note(stream, given_up=True)
        self.sender.drop(stream)
        self.sender.control(frames.reset(stream, code))

    def _data(self, stream: int, flags: int, payload: memoryview) -> None:
        self._count(len(payload))
        if stream == 0 or stream > self.last_stream:
            raise ConnectionFault(frames.PROTOCOL_ERROR, f"DATA on idle stream {stream}")
        if flags & frames.PADDED:
            payload = memoryview(frames.unpadded(frames.PADDED, bytes(payload)))
        request = self._requests.get(stream)
        if request is None:
            self._refuse_closed(stream, bool(flags & frames.END_STREAM))
            return
        if self._take(request, stream, payload) and flags & frames.END_STREAM:
            self._ended(stream)

    def _begin_place(self, stream: int, flags: int, payload: memoryview, missing: int) -> bool:
        """Have the rest of a large frame received into its message, where that can be."""
        request = self._requests.get(stream)
        if request is None or flags & frames.PADDED:
            return False
        if request.body is None and len(payload) < PREFIX_BYTES:
            return False
        if not self._take(request, stream, payload):
            return False
        self._count(len(payload) + missing)
        place = request.room(missing)
        if place is None:
            raise ConnectionFault(frames.PROTOCOL_ERROR, "more than one message in a request")
        self._place = (request, stream, flags, place)
        self._wake_at(missing)
        return True

    def _receive_into_place(
        self, request: Request, stream: int, flags: int, place: memoryview
    ) -> bool:
        got = self.socket.recv_into(place)
        if not got:
            raise EOFError
        request.filled += got
        if got < len(place):
            self._place = (request, stream, flags, place[got:])
            self._wake_at(len(place) - got)
            return True
        self._place = None
        self._wake_at(1)
        if flags & frames.END_STREAM:
            try:
                self._ended(stream)
            except StreamFault as fault:
                self._reset(stream, fault.code)
        return True

    def _wake_at(self, missing: int) -> None:
        """Sleep until so many bytes are there: waking for each segment costs more than they do."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, missing)

    def _take(self, request: Request, stream: int, part: memoryview) -> bool:
        try:
            request.receive(part)
            return True
        except ServingError as error:
            del self._requests[stream]
            self._note(stream, given_up=True)
            self.sender.fail(stream, error, unread=True)
            return False

    def _ended(self, stream: int) -> None:
        request = self._requests.pop(stream)
        self._note(stream, given_up=False)
        if request.head.content_bytes not in (None, request.taken):
            raise StreamFault(frames.PROTOCOL_ERROR, "content-length is another than what came")
        try:
            body = request.message()
        except ServingError as error:
            self.sender.fail(stream, error)
            return
        self.calls.append((stream, request, body))

    def _count(self, length: int) -> None:
        self._unacknowledged += length
        if self._unacknowledged >= _WINDOW_STEP_BYTES:
            step = struct.pack(">I", self._unacknowledged)
            self._unacknowledged = 0
            self.sender.control(frames.frame(frames.WINDOW_UPDATE, 0, 0, step))
