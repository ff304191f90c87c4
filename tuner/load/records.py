"""The record of every request, in memory that the load generator writes and the stage reads.

One fixed-size record a request in a memory-mapped file: the stage watches latencies while the
load runs, without a message between the processes. Only the standard library, since the load
generator imports it.
"""

from __future__ import annotations

import mmap
import os
import struct
from pathlib import Path

HEADER_BYTES = 64
RECORD = struct.Struct("=dddiHH")
FIELDS = [
    ("due", "<f8"),
    ("sent", "<f8"),
    ("done", "<f8"),
    ("number", "<i4"),
    ("status", "<u2"),
    ("window", "<u2"),
]
"""NumPy's description of ``RECORD``. Times are seconds of CLOCK_MONOTONIC, which all processes
share; ``done`` is 0 until the answer came; ``number`` counts within the phase; ``window`` is 1
for requests of the measured window's sequence, 0 for warm-up."""

OK = 0
HTTP_STATUS_OFFSET = 1000
"""Statuses below are gRPC's codes (0 = OK), from here on ``1000 + HTTP code``."""

_COUNT = struct.Struct("=q")
_ANSWER_OFFSET = 16


class Recorder:
    """The writing end: ``begin`` as a request goes out, ``finish`` as its answer comes."""

    def __init__(self, path: Path, capacity: int) -> None:
        self._capacity = capacity
        self._count = 0
        with open(path, "r+b") as file:
            self._memory = mmap.mmap(file.fileno(), HEADER_BYTES + capacity * RECORD.size)

    def begin(self, due: float, sent: float, number: int, window: int) -> int:
        """Write down a request and return its slot, or -1 when the file is full."""
        slot = self._count
        if slot >= self._capacity:
            return -1
        offset = HEADER_BYTES + slot * RECORD.size
        RECORD.pack_into(self._memory, offset, due, sent, 0.0, number, 0, window)
        self._count = slot + 1
        _COUNT.pack_into(self._memory, 0, self._count)
        return slot

    def finish(self, slot: int, done: float, status: int) -> None:
        """Write down an answer. The status goes first: ``done`` is what a reader looks at."""
        offset = HEADER_BYTES + slot * RECORD.size
        struct.pack_into("=H", self._memory, offset + _ANSWER_OFFSET + 12, status)
        struct.pack_into("=d", self._memory, offset + _ANSWER_OFFSET, done)


def create(path: Path, capacity: int) -> None:
    """Make an empty record file. It is sparse: room that no request uses costs nothing."""
    with open(path, "wb") as file:
        os.truncate(file.fileno(), HEADER_BYTES + capacity * RECORD.size)
