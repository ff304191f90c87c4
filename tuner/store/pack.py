"""Makes a finished study's SQLite file small enough to be kept in a repository."""

from __future__ import annotations

import json
import sqlite3
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from tuner.measurement import METRICS
from tuner.store import latencies

DROPPED = ("owner", "mark", "beat", *METRICS)
"""Attributes of a trial that matter only until it ends, and copies of what its measurement holds."""
UNDER_LOAD = ("overloaded", "errors", "client_limited", "no_answers")
"""Failures of a server that ran well, whose log tells nothing that the reason doesn't."""
_FINISHED = "trial_id IN (SELECT trial_id FROM trials WHERE state IN ('COMPLETE', 'FAIL'))"
_TOLD = (
    "SELECT trial_user_attribute_id, key, value_json, study_name, number "
    "FROM trial_user_attributes NATURAL JOIN trials NATURAL JOIN studies "
    f"WHERE key IN ('measurement', 'message', 'log_tail') AND {_FINISHED}"
)


def pack(file: Path) -> None:
    """Drop what no analysis reads from the finished trials of a file, and give the space back.

    Every latency of the trials goes into files beside it (``latencies``), and their records say so.
    What is dropped is who ran a trial, each stage's second-by-second timeline, and the metrics' copies for
    Optuna's dashboard, which still shows the objectives; every result, interval and circumstance
    stays. Logs stay where the server failed by itself. Where this machine keeps its Python and its
    files is nobody's business: ``python`` and ``~`` take the place of these folders. Nobody else
    may be writing; a kill leaves the file as it was or packed.
    """
    marks = ", ".join("?" * len(DROPPED))
    with closing(sqlite3.connect(file, timeout=30)) as database:
        with database:
            database.execute(
                f"DELETE FROM trial_user_attributes WHERE key IN ({marks}) AND {_FINISHED}",
                DROPPED,
            )
            database.executemany(
                "DELETE FROM trial_user_attributes WHERE key = 'log_tail' AND trial_id IN "
                "(SELECT trial_id FROM trial_user_attributes WHERE key = 'reason' "
                "AND value_json = ?)",
                [(json.dumps(reason),) for reason in UNDER_LOAD],
            )
            told = database.execute(_TOLD).fetchall()
            kept = _keep_latencies(file, told)
            database.executemany(
                "UPDATE trial_user_attributes SET value_json = ? WHERE trial_user_attribute_id = ?",
                [
                    (_without_folders(
                        _slim(text, kept.get((study, number))) if key == "measurement" else text
                    ), row)
                    for row, key, text, study, number in told
                ],
            )
        database.execute("VACUUM")
        # All of it into the one file, which stays as it is however often it is read.
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _keep_latencies(
    file: Path, told: Sequence[tuple[int, str, str, str, int]]
) -> dict[tuple[str, int], str]:
    """Put the samples of each study into its file; study and number -> what the record says then."""
    samples: dict[str, list[tuple[int, Path]]] = {}
    for _, key, text, study, number in told:
        path = (json.loads(text).get("stage") or {}).get("samples_file") if key == "measurement" else None
        if path and not path.startswith(latencies.PREFIX):
            samples.setdefault(study, []).append((number, Path(path).expanduser()))
    return {
        (study, number): latencies.reference(study, number)
        for study, found in samples.items()
        for number in latencies.keep(latencies.file_of(file, study), found)
        if number in {each for each, _ in found}
    }


def _slim(text: str, samples: str | None) -> str:
    measurement: dict[str, Any] = json.loads(text)
    if "stage" in measurement:
        measurement["stage"].pop("timeline", None)
        if samples is not None:
            measurement["stage"]["samples_file"] = samples
    return json.dumps(measurement, separators=(",", ":"))


def _without_folders(text: str) -> str:
    """JSON with ``python``, ``./`` and ``~/`` in the place of this machine's paths."""
    told = {sys.executable: "python", f"{Path.cwd()}/": "./", f"{Path.home()}/": "~/"}
    for path in sorted(told, key=len, reverse=True):
        if len(path) > 2:  # the root itself says nothing
            text = text.replace(json.dumps(path)[1:-1], told[path])
    # The folder itself only as a whole value: it may be the beginning of another one's name.
    text = text.replace(json.dumps(str(Path.cwd())), '"."')
    return text
