"""Makes a finished study's SQLite file small enough to be kept in a repository."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

WHILE_RUNNING = ("owner", "mark", "beat")
"""Attributes of a trial that matter only until it ends."""
_FINISHED = "trial_id IN (SELECT trial_id FROM trials WHERE state IN ('COMPLETE', 'FAIL'))"
_MEASUREMENTS = (
    "SELECT trial_user_attribute_id, value_json FROM trial_user_attributes "
    f"WHERE key = 'measurement' AND {_FINISHED}"
)


def pack(file: Path) -> None:
    """Drop what no analysis reads from the finished trials of a file, and give the space back.

    That is who ran a trial and each stage's second-by-second timeline; every result, interval and
    circumstance stays. Nobody else may be writing; a kill leaves the file as it was or packed.
    """
    marks = ", ".join("?" * len(WHILE_RUNNING))
    with closing(sqlite3.connect(file, timeout=30)) as database:
        with database:
            database.execute(
                f"DELETE FROM trial_user_attributes WHERE key IN ({marks}) AND {_FINISHED}",
                WHILE_RUNNING,
            )
            slim = [(_slim(text), row) for row, text in database.execute(_MEASUREMENTS).fetchall()]
            database.executemany(
                "UPDATE trial_user_attributes SET value_json = ? WHERE trial_user_attribute_id = ?",
                slim,
            )
        database.execute("VACUUM")
        # All of it into the one file, which stays as it is however often it is read.
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _slim(text: str) -> str:
    measurement: dict[str, Any] = json.loads(text)
    if "stage" in measurement:
        measurement["stage"].pop("timeline", None)
    return json.dumps(measurement, separators=(",", ":"))
