"""A stored study as a table: what a tuner once measured answers other samplers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tuner.errors import TableError
from tuner.replay.derive import derive
from tuner.replay.table import Table, from_frame, read_table
from tuner.store import load_table


def read(
    reference: str,
    parameters: Sequence[str] = (),
    objectives: Sequence[str] = (),
    derived: Sequence[str] = (),
    storage: str | None = None,
) -> Table:
    """A table of a CSV file or of a stored study.

    A study's finished trials are the measurements; a trial that failed counts as a configuration
    that fails, one beyond a service level as measured.

    Args:
        reference: a file ``*.csv``; else a study as ``tuner.store.locate`` takes it.
        parameters: columns that may vary; default: the study's knobs that do vary.
        objectives: columns to minimise, ``name:max`` to maximise; default: the study's.
        derived: as ``read_table``.
        storage: where the study is kept.

    Raises:
        TableError: no such column or usable row; a CSV file without parameters or objectives.
        StudyError: no such study.
    """
    if Path(reference).suffix.lower() in (".csv", ".gz"):
        if not parameters or not objectives:
            raise TableError(f"{reference}: a CSV file needs --parameters and --objectives")
        return read_table(reference, parameters, objectives, derived)
    frame = load_table(reference, storage)
    attributes = dict(frame.attrs)
    if frame.empty:
        raise TableError(f"study {attributes['name']!r} holds no finished trial")
    # Columns that no trial filled can't vary and can't be judged.
    varying = [p for p in attributes["parameters"] if frame[p].astype(str).nunique() > 1]
    goals = [
        f"{name}:max" if direction == "maximize" else name
        for name, direction in zip(attributes["objectives"], attributes["directions"])
    ]
    for assignment in derived:
        frame = derive(frame, assignment)
    return from_frame(
        frame,
        parameters or varying or attributes["parameters"],
        objectives or goals,
        name=attributes["name"],
    )
