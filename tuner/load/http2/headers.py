"""Header blocks (HPACK, RFC 7541): hpack does the work once, repeats come from memory."""

from __future__ import annotations

from collections.abc import Mapping

import hpack
from hpack.hpack import Encoder
from hpack.table import HeaderTable

from tuner.load.http2.frames import ProtocolError

MAX_KEPT_BLOCKS = 64
"""Blocks that never repeat, such as error messages, shall not pile up."""


def literal(name: bytes, value: bytes) -> bytes:
    """A field without indexing, new name, no Huffman code (section 6.2.2), up to 126 bytes each."""
    assert len(name) < 127 and len(value) < 127
    return b"\x00" + bytes([len(name)]) + name + bytes([len(value)]) + value


class _WatchedTable(HeaderTable):
    """A header table that counts how often it changed."""

    changes = 0

    def add(self, name: bytes, value: bytes) -> None:
        self.changes += 1
        super().add(name, value)

    @property
    def maxsize(self) -> int:
        return super().maxsize

    @maxsize.setter
    def maxsize(self, newmax: int) -> None:
        self.changes += 1
        HeaderTable.maxsize.__set__(self, newmax)  # type: ignore[attr-defined]


class BlockDecoder:
    """Header blocks of one direction of a connection, in the order they came.

    What a block means depends on the dynamic table, and few blocks change that: a server sends
    the same indexed block with every answer. So the meaning of a block that left the table as it
    was is kept until a block changes the table.
    """

    def __init__(self) -> None:
        self._decoder = hpack.Decoder()
        self._table = _WatchedTable()
        self._decoder.header_table = self._table
        self._kept: dict[bytes, Mapping[bytes, bytes]] = {}

    def decode(self, block: bytes) -> Mapping[bytes, bytes]:
        """The fields of a block; of a repeated one the last.

        Raises:
            ProtocolError: no header block.
        """
        kept = self._kept.get(block)
        if kept is not None:
            return kept
        changes = self._table.changes
        try:
            fields: Mapping[bytes, bytes] = dict(self._decoder.decode(block, raw=True))
        except hpack.HPACKError as error:
            raise ProtocolError(f"headers that cannot be decoded: {error}") from None
        if self._table.changes != changes or len(self._kept) >= MAX_KEPT_BLOCKS:
            self._kept.clear()
        if self._table.changes == changes:
            self._kept[block] = fields
        return fields


class BlockEncoder:
    """Header blocks that are sent again and again: a byte or two for each field.

    The first block puts its fields into the peer's table and the second one refers to them. From
    then on the block changes nothing, so it is kept until another one changes the table.
    """

    def __init__(self) -> None:
        self._encoder = Encoder()
        self._table = _WatchedTable()
        self._encoder.header_table = self._table
        self._kept: dict[int, bytes] = {}

    def limit_table(self, size: int) -> None:
        """Obey the peer's SETTINGS_HEADER_TABLE_SIZE."""
        size = min(size, HeaderTable.DEFAULT_SIZE)
        if size != self._encoder.header_table_size:
            self._encoder.header_table_size = size
            self._kept.clear()

    def encode(self, key: int, fields: list[tuple[bytes, bytes]]) -> bytes:
        """The block for ``fields``, which are always the same for the same ``key``."""
        kept = self._kept.get(key)
        if kept is not None:
            return kept
        changes = self._table.changes
        block = self._encoder.encode(fields)
        if self._table.changes != changes:
            self._kept.clear()
        elif not _changes_size(block):
            self._kept[key] = block
        return block


def _changes_size(block: bytes) -> bool:
    """Whether a block begins with a change of the table's size (section 6.3)."""
    return block[0] & 0xE0 == 0x20
