"""Compare proposers on a recorded table instead of a server."""

from __future__ import annotations

from tuner.replay.compare import Report, compare
from tuner.replay.stored import read
from tuner.replay.table import Table, TableSpace, read_table

__all__ = ["Report", "Table", "TableSpace", "compare", "read", "read_table"]
