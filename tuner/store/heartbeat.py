"""Heartbeats of running trials: how a worker sees that another machine's worker is gone.

Each process counts up a number on the trials that it runs, every ``BEAT_S``, and looks whether
the others' numbers moved. A trial whose number stood still at ``SILENT_LOOKS`` looks in a row is
reaped. Nobody's clock is compared with anybody else's, so one that is wrong or set back does no
harm; and a look counts only if the looker's own writing worked just before, so that an hour
without the database makes nobody look dead.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from tuner.store.database import Store

BEAT_S = 10.0
SILENT_LOOKS = 6
REAPING_TIME_S = BEAT_S * SILENT_LOOKS
"""So long after a worker elsewhere died, those that still run see it."""


class Silence:
    """How many looks in a row each running trial's number stood still."""

    def __init__(self) -> None:
        self._seen: dict[int, tuple[int, int]] = {}

    def look(self, beats: Mapping[int, int]) -> None:
        """Take note of all running trials' numbers of beats."""
        before = self._seen
        self._seen = {
            trial: (beat, before[trial][1] + 1 if before.get(trial, (None,))[0] == beat else 0)
            for trial, beat in beats.items()
        }

    def is_silent(self, trial: int) -> bool:
        return self._seen.get(trial, (0, 0))[1] >= SILENT_LOOKS


class Heartbeat:
    """Beats and looks in a thread of its own while the context is open."""

    def __init__(self, stores: Sequence[Store], beat_s: float | None = None) -> None:
        self._stores, self._beat_s = stores, BEAT_S if beat_s is None else beat_s
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        self._thread.join(timeout=1.0)

    def _run(self) -> None:
        while not self._over.wait(self._beat_s):
            for store in self._stores:
                # One that fails is no reason to end: the next may work, and the trial goes on.
                with contextlib.suppress(Exception):
                    store.beat()
