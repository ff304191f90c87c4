"""A study of a recording beside its sisters: the same configurations at the other load levels."""

from __future__ import annotations

import pandas as pd

from tuner.errors import StudyError


def sisters(url: str, name: str) -> list[pd.DataFrame]:
    """The tables of the other studies of a recording in one storage, on the same machine.

    A study ``record@load=high`` belongs to the recording ``record``; a name without levels has no
    sisters.
    """
    from tuner import store

    base, levels, _ = name.partition("@")
    if not levels:
        return []
    try:
        _, names = store.locate(base, url)
        held = {other: store.Store.open(url, other) for other in names}
    except StudyError:
        return []
    machine = held[name].environment.get("machine") if name in held else None
    return [
        store.table_of(study) for other, study in held.items()
        if other != name and study.environment.get("machine") == machine
    ]
