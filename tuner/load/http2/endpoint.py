"""What both ends of an HTTP/2 connection do: cut bytes into frames, obey those about the connection.

No input or output of its own: ``receive`` takes bytes, ``out`` gathers bytes. The content of DATA
frames is handed on as it comes, in pieces, so large messages are neither gathered nor copied.
"""

from __future__ import annotations

from collections.abc import Mapping

from tuner.load.http2 import frames
from tuner.load.http2.frames import ProtocolError
from tuner.load.http2.headers import BlockDecoder

REFILL_BYTES = 2**28
"""The peer may send this much before its window is opened again; the window is far larger."""
FRAME_LIMIT = 2**20
MAX_HEADER_BYTES = 2**16


class Endpoint:
    """One end of a connection; the subclasses say what calls are."""

    def __init__(self) -> None:
        self.out: list[bytes | memoryview] = []
        """To be sent, in this order; whoever sends it empties the list."""
        self.window = frames.DEFAULT_WINDOW
        """Bytes of DATA that the peer takes now, over all streams."""
        self.peer_window = frames.DEFAULT_WINDOW
        """The same for a new stream."""
        self.peer_frame = frames.DEFAULT_FRAME
        self._decoder = BlockDecoder()
        self._rest = b""
        self._data_left = 0
        self._data_stream = self._data_flags = 0
        self._fragments: list[bytes] = []
        self._headers_stream = self._headers_flags = 0
        self._received = 0

    def greet(self) -> None:
        """Announce windows that never make the peer wait."""
        self.out += [
            frames.settings(
                {
                    frames.ENABLE_PUSH: 0,
                    frames.INITIAL_WINDOW_SIZE: frames.MAX_WINDOW,
                    frames.MAX_FRAME_SIZE: FRAME_LIMIT,
                }
            ),
            frames.window_update(0, frames.MAX_WINDOW - frames.DEFAULT_WINDOW),
        ]

    def receive(self, data: bytes) -> None:
        """Take what came.

        Raises:
            ProtocolError: the connection cannot go on.
        """
        if self._rest:
            data = self._rest + data
        at, size = 0, len(data)
        while True:
            if self._data_left:
                taken = min(self._data_left, size - at)
                self._data_left -= taken
                end = self._data_flags & frames.END_STREAM and not self._data_left
                if taken or end:
                    self._take_data(data[at : at + taken], bool(end))
                at += taken
            if size - at < frames.HEADER_BYTES:
                break
            high, low, kind, flags, stream = frames.read_header(data, at)
            length = high << 8 | low
            if length > FRAME_LIMIT:
                raise ProtocolError(f"a frame of {length} bytes, {FRAME_LIMIT} are allowed")
            start = at + frames.HEADER_BYTES
            if kind == frames.DATA and length and not flags & frames.PADDED:
                self._data_left, self._data_flags = length, flags
                self._data_stream = stream & frames.MAX_WINDOW
                at = start
                continue
            if size - start < length:
                break
            at = start + length
            self._frame(kind, flags, stream & frames.MAX_WINDOW, data[start:at])
        self._rest = data[at:]

    def _take_data(self, piece: bytes, end: bool) -> None:
        self._consumed(len(piece))
        self.data(self._data_stream, piece, end)

    def _consumed(self, size: int) -> None:
        self._received += size
        if self._received > REFILL_BYTES:
            self.out.append(frames.window_update(0, self._received))
            self._received = 0

    def _frame(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if self._fragments and (kind != frames.CONTINUATION or stream != self._headers_stream):
            raise ProtocolError("a header block was interrupted")
        if kind == frames.HEADERS:
            payload = frames.unpad(flags, payload)
            if flags & frames.HAS_PRIORITY:
                payload = payload[5:]
            if flags & frames.END_HEADERS:
                self.headers(
                    stream, self._decoder.decode(payload), bool(flags & frames.END_STREAM)
                )
            else:
                self._fragments = [payload]
                self._headers_stream, self._headers_flags = stream, flags
        elif kind == frames.WINDOW_UPDATE:
            if len(payload) != 4:
                raise ProtocolError("a WINDOW_UPDATE frame that is not four bytes long")
            self._widen(stream, frames.read_int(payload)[0] & frames.MAX_WINDOW)
        elif kind == frames.DATA:
            self._consumed(len(payload))
            self.data(stream, frames.unpad(flags, payload), bool(flags & frames.END_STREAM))
        elif kind == frames.CONTINUATION:
            self._continue(flags, payload)
        elif kind == frames.PING:
            if not flags & frames.ACK:
                self.out.append(frames.frame(frames.PING, frames.ACK, 0, payload))
        elif kind == frames.SETTINGS:
            if not flags & frames.ACK:
                self._set(frames.read_settings(payload))
        elif kind == frames.RST_STREAM:
            self.reset(stream, frames.read_int(payload)[0] if len(payload) == 4 else 0)
        elif kind == frames.GOAWAY:
            if len(payload) < 8:
                raise ProtocolError("a GOAWAY frame shorter than eight bytes")
            last = frames.read_int(payload)[0] & frames.MAX_WINDOW
            self.going_away(last, frames.read_int(payload, 4)[0], payload[8:])

    def _continue(self, flags: int, payload: bytes) -> None:
        if not self._fragments:
            raise ProtocolError("a CONTINUATION frame that continues nothing")
        self._fragments.append(payload)
        if sum(map(len, self._fragments)) > MAX_HEADER_BYTES:
            raise ProtocolError(f"a header block beyond {MAX_HEADER_BYTES} bytes")
        if flags & frames.END_HEADERS:
            block = b"".join(self._fragments)
            self._fragments = []
            end = bool(self._headers_flags & frames.END_STREAM)
            self.headers(self._headers_stream, self._decoder.decode(block), end)

    def _widen(self, stream: int, size: int) -> None:
        if stream == 0:
            self.window += size
            if self.window > frames.MAX_WINDOW:
                raise ProtocolError("a flow-control window beyond 2^31 - 1 bytes")
        self.widened(stream, size)

    def _set(self, values: dict[int, int]) -> None:
        before = self.peer_window
        self.peer_window = values.get(frames.INITIAL_WINDOW_SIZE, before)
        self.peer_frame = values.get(frames.MAX_FRAME_SIZE, self.peer_frame)
        self.out.append(frames.frame(frames.SETTINGS, frames.ACK, 0))
        self.set(values, self.peer_window - before)

    def headers(self, stream: int, fields: Mapping[bytes, bytes], end: bool) -> None:
        """A header block came; ``end``: nothing follows on its stream."""
        raise NotImplementedError

    def data(self, stream: int, piece: bytes, end: bool) -> None:
        """A piece of a DATA frame came."""
        raise NotImplementedError

    def widened(self, stream: int, size: int) -> None:
        """The peer takes more DATA on a stream, or (0) in all; ``window`` is already wider."""

    def set(self, values: Mapping[int, int], window_change: int) -> None:
        """The peer changed settings, among them the window of every open stream by so much."""

    def reset(self, stream: int, code: int) -> None:
        """The peer gave a stream up."""

    def going_away(self, last: int, code: int, text: bytes) -> None:
        """The peer takes no further streams, and none beyond ``last``."""
