"""Finding studies by what a user calls them, and reading them as tables."""

from __future__ import annotations

from typing import Any

import optuna
from optuna.storages import BaseStorage

from tuner.errors import StudyError
from tuner.space import Space
from tuner.store.database import Store
from tuner.store.record import TrialRecord
from tuner.store.table import table_of
from tuner.store.urls import connect, default_url, is_to_be_made, redact


def existing(url: str) -> BaseStorage | None:
    """The storage, opened; ``None`` where an SQLite file is still to be made. Raises StudyError."""
    return None if is_to_be_made(url) else connect(url)


def refuse_other_space(storage: BaseStorage, url: str, name: str, space: Space) -> None:
    """Look, before anything slow starts, whether the study exists with another space.

    Raises:
        StudyError: it does.
    """
    if name in optuna.get_all_study_names(storage):
        Store.open(url, name, storage).refuse_other(space, {})


def locate(reference: str, storage: str | None = None) -> tuple[str, list[str]]:
    """Find the studies that a user means by ``reference``.

    Args:
        reference: a study's name, the path of an SQLite file, or ``FILE.db:NAME``.
        storage: where to look; default the file ``studies/<name>.db``.

    Returns:
        The storage's URL and the names of the studies there: one, or one for each level.

    Raises:
        StudyError: nothing of that name.
    """
    if "://" in reference:
        raise StudyError(
            f"{redact(reference)} is a storage; say --storage URL, and the study's name for STUDY"
        )
    file, _, name = reference.rpartition(":")
    if storage is not None:
        url, name = storage, reference
    elif file.endswith(".db"):
        url = f"sqlite:///{file}"
    elif reference.endswith(".db"):
        url, name = f"sqlite:///{reference}", ""
    else:
        url, name = default_url(reference.split("@")[0]), reference
    names = optuna.get_all_study_names(connect(url))
    found = [n for n in names if not name or n == name or n.split("@")[0] == name]
    if not found:
        held = ", ".join(names) or "no study"
        raise StudyError(f"no study {name!r} in {redact(url)}; it holds: {held}")
    return url, sorted(found)


def open_study(reference: str, storage: str | None = None) -> Store:
    """The one study that ``reference`` means. Raises StudyError when there are several."""
    url, names = locate(reference, storage)
    if len(names) > 1:
        raise StudyError(f"{reference} holds several studies; name one: {', '.join(names)}")
    return Store.open(url, names[0])


def load_records(reference: str, storage: str | None = None) -> list[TrialRecord]:
    """All trials of one study. Raises StudyError as ``open_study``."""
    return open_study(reference, storage).records()


def load_table(reference: str, storage: str | None = None) -> Any:
    """One study as a ``pandas.DataFrame``, see ``table.table_of``."""
    return table_of(open_study(reference, storage))
