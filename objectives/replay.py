"""Objective values from a recorded table: what a trial would have given, without a server."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tuner.measurement import Configuration
from tuner.propose.base import Observation
from tuner.replay.table import Table


def objective(table: Table, seed: int = 0) -> Callable[[Configuration], Observation]:
    """A function from a configuration of the table to how its trial ended; of several
    measurements of a configuration one is drawn at random."""
    rng = np.random.default_rng(seed)
    return lambda configuration: table.answer(configuration, rng)
