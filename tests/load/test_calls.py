"""The client's end of HTTP/2 against a server that is bytes in this file: limits, windows, ends."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

import hpack
import pytest

from tuner.load.http2 import frames, status
from tuner.load.http2.calls import Calls
from tuner.load.http2.frames import ProtocolError
from tuner.load.http2.headers import BlockDecoder, BlockEncoder

FIELDS = [(b":method", b"POST"), (b":path", b"/package.Service/Method"), (b"te", b"trailers")]
OTHER = [(b":method", b"POST"), (b":path", b"/package.Service/Other"), (b"te", b"trailers")]


class Peer:
    """The other end: what the client sent, and a way to answer."""

    def __init__(self, **settings: int) -> None:
        self.ends: list[tuple[int, int, str]] = []
        self.calls = Calls([FIELDS, OTHER], lambda tag, _at, *end: self.ends.append((tag, *end)))
        self.encoder, self.decoder = hpack.Encoder(), hpack.Decoder()
        self.say_settings(**settings)
        self.sent()

    def say_settings(self, **settings: int) -> None:
        values = {getattr(frames, name.upper()): value for name, value in settings.items()}
        self.calls.receive(frames.settings(values))

    def sent(self) -> list[tuple[int, int, int, bytes]]:
        """Type, flags, stream and payload of every frame sent since the last look."""
        data = b"".join(self.calls.out).removeprefix(frames.PREFACE)
        self.calls.out.clear()
        return list(cut(data))

    def data_sent(self, stream: int) -> int:
        return sum(len(f[3]) for f in self.sent() if f[0] == frames.DATA and f[2] == stream)

    def answer(self, stream: int, *trailers: tuple[str, str], message: bytes = b"m") -> bytes:
        head = self.encoder.encode([(":status", "200"), ("content-type", "application/grpc")])
        tail = self.encoder.encode(trailers or [("grpc-status", "0")])
        return (
            frames.frame(frames.HEADERS, frames.END_HEADERS, stream, head)
            + frames.frame(
                frames.DATA, 0, stream, b"\0" + struct.pack(">I", len(message)) + message
            )
            + trailers_frame(stream, tail)
        )

    def only_trailers(self, stream: int, *fields: tuple[str, str]) -> bytes:
        return trailers_frame(stream, self.encoder.encode(fields))


def trailers_frame(stream: int, block: bytes) -> bytes:
    return frames.frame(frames.HEADERS, frames.END_HEADERS | frames.END_STREAM, stream, block)


def cut(data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    while data:
        length = int.from_bytes(data[:3], "big")
        yield data[3], data[4], int.from_bytes(data[5:9], "big"), data[9 : 9 + length]
        data = data[9 + length :]


def test_a_call_is_headers_and_a_message_and_ends_with_its_status() -> None:
    peer = Peer()
    peer.calls.call(7, 0, b"\0\0\0\0\x02hi")
    headers, data = peer.sent()
    assert headers[:3] == (frames.HEADERS, frames.END_HEADERS, 1)
    assert peer.decoder.decode(headers[3], raw=True) == FIELDS
    assert data == (frames.DATA, frames.END_STREAM, 1, b"\0\0\0\0\x02hi")
    peer.calls.receive(peer.answer(1))
    assert peer.ends == [(7, status.OK, "")]
    assert peer.calls.under_way == 0


def test_an_answer_may_come_in_pieces_of_any_size() -> None:
    for size in (1, 2, 3, 8, 13):
        peer = Peer()
        call = peer.calls.call(0, 0, b"x", keep=True)
        answer = peer.answer(1, message=b"twelve bytes")
        for at in range(0, len(answer), size):
            peer.calls.receive(answer[at : at + size])
        assert peer.ends == [(0, status.OK, "")]
        assert call.answer == b"\0\0\0\0\x0ctwelve bytes"


def test_repeated_fields_take_a_few_bytes() -> None:
    peer = Peer()
    blocks = []
    for tag in range(4):
        peer.calls.call(tag, 0, b"x")
        blocks.append(peer.sent()[0][3])
        assert peer.decoder.decode(blocks[-1], raw=True) == FIELDS
    assert len(blocks[0]) > 15
    assert blocks[1] == blocks[2] == blocks[3]
    assert len(blocks[1]) == len(FIELDS)


@pytest.mark.parametrize("table", [4096, 100, 0])
def test_headers_stay_right_when_kinds_mix_and_the_table_is_small(table: int) -> None:
    peer = Peer(header_table_size=table)
    peer.decoder.max_allowed_table_size = table
    for tag in range(12):
        kind = (0, 0, 1, 0, 1, 1)[tag % 6]
        peer.calls.call(tag, kind, b"x")
        fields = peer.decoder.decode(peer.sent()[0][3], raw=True)
        assert fields == (FIELDS, OTHER)[kind]


def test_a_table_that_the_server_shrinks_later_is_shrunk() -> None:
    peer = Peer()
    for table in (4096, 64, 4096):
        peer.say_settings(header_table_size=table)
        for tag in range(3):
            peer.calls.call(tag, 0, b"x")
            (headers,) = [f for f in peer.sent() if f[0] == frames.HEADERS]
            assert peer.decoder.decode(headers[3], raw=True) == FIELDS
        assert peer.decoder.header_table_size == table


def test_a_large_message_waits_for_both_windows() -> None:
    peer = Peer(initial_window_size=30_000)
    peer.calls.call(0, 0, bytes(100_000))
    assert peer.data_sent(1) == 30_000
    peer.calls.receive(frames.window_update(1, 60_000))
    assert peer.data_sent(1) == 35_535, "the connection's window is 65,535 at first"
    peer.calls.receive(frames.window_update(0, 1000))
    assert peer.data_sent(1) == 1000
    peer.calls.receive(frames.window_update(0, 10**6))
    assert peer.data_sent(1) == 90_000 - 66_535
    peer.calls.receive(frames.window_update(1, 10**6))
    last = peer.sent()[-1]
    assert last[0] == frames.DATA
    assert last[1] == frames.END_STREAM
    assert len(last[3]) == 10_000


def test_a_smaller_message_passes_one_whose_own_window_is_closed() -> None:
    peer = Peer(initial_window_size=1000)
    peer.calls.call(0, 0, bytes(5000))
    peer.sent()
    peer.calls.call(1, 0, bytes(500))
    assert peer.data_sent(3) == 500


def test_frames_are_as_long_as_the_server_takes_them() -> None:
    peer = Peer(initial_window_size=2**20, max_frame_size=20_000)
    peer.calls.receive(frames.window_update(0, 2**20))
    peer.calls.call(0, 0, bytes(50_000))
    lengths = [len(f[3]) for f in peer.sent() if f[0] == frames.DATA]
    assert lengths == [20_000, 20_000, 10_000]


def test_a_change_of_the_initial_window_counts_for_open_streams() -> None:
    peer = Peer(initial_window_size=10_000)
    peer.calls.call(0, 0, bytes(40_000))
    assert peer.data_sent(1) == 10_000
    peer.say_settings(initial_window_size=4000)
    assert peer.data_sent(1) == 0
    peer.calls.receive(frames.window_update(1, 6000))
    assert peer.data_sent(1) == 0, "the window was 6,000 below zero"
    peer.say_settings(initial_window_size=14_000)
    assert peer.data_sent(1) == 10_000


def test_calls_beyond_the_servers_limit_wait_their_turn() -> None:
    peer = Peer(max_concurrent_streams=2)
    for tag in range(4):
        peer.calls.call(tag, 0, b"x")
    assert [f[2] for f in peer.sent() if f[0] == frames.HEADERS] == [1, 3]
    peer.calls.receive(peer.answer(3))
    assert [f[2] for f in peer.sent() if f[0] == frames.HEADERS] == [5]
    peer.say_settings(max_concurrent_streams=9)
    assert [f[2] for f in peer.sent() if f[0] == frames.HEADERS] == [7]


def test_nothing_is_called_before_the_server_spoke() -> None:
    calls = Calls([FIELDS], lambda *_: None)
    calls.call(0, 0, b"x")
    kinds = [f[0] for f in cut(b"".join(calls.out).removeprefix(frames.PREFACE))]
    assert frames.HEADERS not in kinds
    calls.receive(frames.settings({}))
    kinds = [f[0] for f in cut(b"".join(calls.out).removeprefix(frames.PREFACE))]
    assert kinds.index(frames.SETTINGS) < kinds.index(frames.HEADERS)


def test_pings_and_settings_are_acknowledged() -> None:
    peer = Peer()
    peer.calls.receive(frames.frame(frames.PING, 0, 0, b"8 bytes!") + frames.settings({}))
    assert peer.sent() == [
        (frames.PING, frames.ACK, 0, b"8 bytes!"),
        (frames.SETTINGS, frames.ACK, 0, b""),
    ]
    peer.calls.receive(frames.frame(frames.PING, frames.ACK, 0, b"8 bytes!"))
    assert peer.sent() == []


@pytest.mark.parametrize(
    ("fields", "code", "message"),
    [
        ([(":status", "200"), ("grpc-status", "8"), ("grpc-message", "full")], 8, "full"),
        ([("grpc-status", "3"), ("grpc-message", "100%25 of %C3%A4")], 3, "100% of ä"),
        ([(":status", "503")], status.UNAVAILABLE, "HTTP status 503"),
        ([(":status", "404")], status.UNIMPLEMENTED, "HTTP status 404"),
        ([(":status", "200")], status.UNKNOWN, "the answer ended without grpc-status"),
        ([("grpc-status", "0")], status.INTERNAL, "the server said OK without an answer"),
    ],
)
def test_an_answer_of_trailers_alone_says_why(fields: Any, code: int, message: str) -> None:
    peer = Peer()
    peer.calls.call(0, 0, b"x")
    peer.calls.receive(peer.only_trailers(1, *fields))
    assert peer.ends == [(0, code, message)]


def test_an_error_after_the_answer_began_counts() -> None:
    peer = Peer()
    peer.calls.call(0, 0, b"x")
    peer.calls.receive(peer.answer(1, ("grpc-status", "13"), ("grpc-message", "late")))
    assert peer.ends == [(0, 13, "late")]


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (frames.CANCEL, status.CANCELLED),
        (11, status.RESOURCE_EXHAUSTED),
        (frames.PROTOCOL_ERROR, status.INTERNAL),
    ],
)
def test_a_reset_stream_is_an_error_by_its_code(code: int, expected: int) -> None:
    peer = Peer()
    peer.calls.call(0, 0, b"x")
    peer.calls.receive(frames.reset(1, code))
    assert [end[:2] for end in peer.ends] == [(0, expected)]


def test_a_refused_call_is_tried_once_more() -> None:
    peer = Peer()
    peer.calls.call(0, 0, b"x")
    peer.sent()
    peer.calls.receive(frames.reset(1, frames.REFUSED_STREAM))
    assert [f[2] for f in peer.sent()] == [3, 3]
    assert peer.ends == []
    peer.calls.receive(frames.reset(3, frames.REFUSED_STREAM))
    assert [end[:2] for end in peer.ends] == [(0, status.UNAVAILABLE)]


def test_a_server_that_goes_away_ends_what_it_did_not_hear() -> None:
    peer = Peer()
    for tag in range(3):
        peer.calls.call(tag, 0, b"x")
    gone = struct.pack(">II", 1, 0) + b"max_age"
    peer.calls.receive(frames.frame(frames.GOAWAY, 0, 0, gone))
    assert peer.calls.leaving
    assert [end[:2] for end in peer.ends] == [(1, status.UNAVAILABLE), (2, status.UNAVAILABLE)]
    assert "max_age" in peer.ends[0][2]
    peer.calls.receive(peer.answer(1))
    assert peer.ends[-1] == (0, status.OK, "")


def test_a_lost_connection_ends_every_call() -> None:
    peer = Peer(max_concurrent_streams=1)
    peer.calls.call(0, 0, b"x")
    peer.calls.call(1, 0, b"x")
    peer.calls.lost("connection reset by peer")
    assert peer.ends == [(tag, status.UNAVAILABLE, "connection reset by peer") for tag in (0, 1)]


def test_a_call_that_is_given_up_frees_its_stream() -> None:
    peer = Peer(max_concurrent_streams=1)
    first = peer.calls.call(0, 0, b"x")
    peer.calls.call(1, 0, b"x")
    peer.sent()
    peer.calls.give_up(first, status.DEADLINE_EXCEEDED, "late")
    sent = peer.sent()
    assert sent[0] == (frames.RST_STREAM, 0, 1, struct.pack(">I", frames.CANCEL))
    assert sent[1][:1] + sent[1][2:3] == (frames.HEADERS, 3)
    peer.calls.receive(peer.answer(1) + peer.answer(3))
    assert peer.ends == [(0, status.DEADLINE_EXCEEDED, "late"), (1, status.OK, "")]


def test_an_answer_before_the_whole_message_stops_the_upload() -> None:
    peer = Peer(initial_window_size=10)
    peer.calls.call(0, 0, bytes(100))
    peer.sent()
    peer.calls.receive(peer.only_trailers(1, ("grpc-status", "8"), ("grpc-message", "too large")))
    assert peer.ends == [(0, 8, "too large")]
    assert [f[0] for f in peer.sent()] == [frames.RST_STREAM]
    peer.calls.receive(frames.window_update(1, 1000))
    assert peer.sent() == []


def test_the_server_may_go_on_after_many_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tuner.load.http2.endpoint.REFILL_BYTES", 1000)
    peer = Peer()
    peer.calls.call(0, 0, b"x")
    peer.sent()
    peer.calls.receive(peer.answer(1, message=bytes(3000)))
    assert [f[:3] for f in peer.sent()] == [(frames.WINDOW_UPDATE, 0, 0)]


def test_continued_and_padded_frames_are_understood() -> None:
    peer = Peer()
    call = peer.calls.call(0, 0, b"x", keep=True)
    block = peer.encoder.encode([(":status", "200"), ("x-long", "y" * 50)])
    peer.calls.receive(
        frames.frame(frames.HEADERS, 0, 1, block[:10])
        + frames.frame(frames.CONTINUATION, 0, 1, block[10:20])
        + frames.frame(frames.CONTINUATION, frames.END_HEADERS, 1, block[20:])
        + frames.frame(frames.DATA, frames.PADDED, 1, b"\x03\0\0\0\0\x01mpad")
        + peer.only_trailers(1, ("grpc-status", "0"))
    )
    assert peer.ends == [(0, status.OK, "")]
    assert call.answer == b"\0\0\0\0\x01m"


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        frames.frame(frames.CONTINUATION, frames.END_HEADERS, 1, b"\x88"),
        frames.frame(frames.HEADERS, 0, 1, b"\x88") + frames.frame(frames.PING, 0, 0, bytes(8)),
        frames.frame(frames.HEADERS, frames.END_HEADERS, 1, b"\xff\xff\xff\xff\x7f"),
        frames.frame(frames.SETTINGS, 0, 0, b"12345"),
        frames.frame(frames.DATA, frames.PADDED, 1, b"\x09ab"),
        frames.window_update(0, 2**31 - 1),
    ],
)
def test_what_breaks_the_protocol_is_an_error(data: bytes) -> None:
    peer = Peer()
    peer.calls.call(0, 0, b"x")
    with pytest.raises(ProtocolError):
        peer.calls.receive(data)


def test_kept_meanings_of_blocks_are_dropped_when_the_table_changes() -> None:
    encoder, decoder = hpack.Encoder(), BlockDecoder()
    for fields in ([("a", "1")], [("b", "2")], [("a", "1")], [("c", "3")], [("a", "1")]) * 3:
        raw = {name.encode(): value.encode() for name, value in fields}
        assert decoder.decode(encoder.encode(fields)) == raw
    # Index 62 is whatever came last: the same byte means another field each time.
    assert decoder.decode(b"\x40\x01x\x01y") == {b"x": b"y"}
    assert decoder.decode(b"\xbe") == {b"x": b"y"}
    assert decoder.decode(b"\x40\x01z\x01w") == {b"z": b"w"}
    assert decoder.decode(b"\xbe") == {b"z": b"w"}


def test_encoded_blocks_are_what_hpack_would_say() -> None:
    decoder, encoder = hpack.Decoder(), BlockEncoder()
    for key in (0, 1, 0, 0, 1, 0):
        fields = (FIELDS, OTHER)[key]
        assert decoder.decode(encoder.encode(key, fields), raw=True) == fields
