"""Counters that only grow, and wrap: how much they advanced in a window, without a doubt.

A counter is looked at from a background thread, so often that it cannot have gone round once between
two looks; then each look tells exactly how far it moved. Where that can't be promised (a look came
too late, the counter moved faster than hardware can, it can't be read), that counter is lost for the
window, with the reason, and the others count on.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

from tuner.errors import UnavailableError
from tuner.meter.background import Background
from tuner.meter.uncertainty import LOOK_S

MAX_ZONE_W = 2000.0
"""No single package or memory domain draws more; the largest server packages stay near 500 W."""
MAX_PERIOD_S = LOOK_S
STILL_S, STILL_UPDATES = 0.5, 3
"""A counter that does not move for so long, and for so many of its usual updates, stands still."""
UPDATE_S = 0.002
"""RAPL's counters advance in steps of about a millisecond: one step at each end of the window."""
SETTLE_S = 0.05
"""Slack for counters that are updated in steps (RAPL: about every millisecond)."""


class Counter(ABC):
    """One hardware counter."""

    name: str
    """The domain, e.g. ``package-0``."""
    range_j: float
    """Joules after which it starts at zero again."""

    @abstractmethod
    def read_j(self) -> float:
        """Joules now. Raises UnavailableError when it can't be read."""


@dataclass
class _Advance:
    last_j: float
    last_s: float
    total_j: float = 0.0


class CounterWindow:
    """Open from construction until ``close``.

    Args:
        on_look: called after each look, from the thread that looks.
    """

    def __init__(
        self,
        counters: Sequence[Counter],
        clock: Callable[[], float] = time.monotonic,
        on_look: Callable[[], None] = lambda: None,
    ) -> None:
        self._counters, self._clock, self._on_look = counters, clock, on_look
        self.lost: dict[str, str] = {}
        """Counters that are lost for this window, and why."""
        self._advances = [_Advance(self._first_j(counter), clock()) for counter in counters]
        self._start_s = clock()
        self.looks: list[tuple[float, tuple[float, ...]]] = [(self._start_s, (0.0,) * len(counters))]
        """Time, and joules of each counter since the start, at each look."""
        # Two looks per round at the greatest power.
        shortest_j = min(counter.range_j for counter in counters)
        self.period_s = min(MAX_PERIOD_S, shortest_j / MAX_ZONE_W / 2)
        self._background = Background(self._sample, self.period_s)

    def _first_j(self, counter: Counter) -> float:
        try:
            return counter.read_j()
        except UnavailableError as error:
            self.lost[counter.name] = str(error)
            return 0.0

    def _sample(self) -> None:
        for counter, advance in zip(self._counters, self._advances):
            if counter.name not in self.lost:
                try:
                    self._advance(counter, advance)
                except UnavailableError as error:
                    self.lost[counter.name] = str(error)
        self.looks.append((self._clock(), tuple(a.total_j for a in self._advances)))
        self._on_look()

    def _advance(self, counter: Counter, advance: _Advance) -> None:
        now_j, now_s = counter.read_j(), self._clock()
        moved_j = now_j - advance.last_j
        if moved_j < 0:
            moved_j += counter.range_j
        gap_s = now_s - advance.last_s
        if gap_s * MAX_ZONE_W >= counter.range_j:
            raise UnavailableError(
                f"{counter.name}: nobody looked at the counter for {gap_s:.3g} s, in which it may "
                f"have gone round ({counter.range_j:g} J); was the machine suspended?"
            )
        if not 0 <= moved_j <= MAX_ZONE_W * (gap_s + SETTLE_S):
            raise UnavailableError(
                f"{counter.name}: the counter jumped from {advance.last_j:g} J to {now_j:g} J "
                f"within {gap_s:.3g} s, more than a wrap-around explains; was it reset?"
            )
        advance.total_j += moved_j
        advance.last_j, advance.last_s = now_j, now_s

    def _runs_s(self, place: int) -> list[float]:
        """Seconds from each move that was seen to the next, the window's ends counting as moves."""
        runs_s, since_s = [], self._start_s
        for (_, before), (now_s, after) in pairwise(self.looks):
            if after[place] != before[place]:
                runs_s.append(now_s - since_s)
                since_s = now_s
        return [*runs_s, self.looks[-1][0] - since_s]

    def stood_still_s(self) -> dict[str, float]:
        """Counters that did not move, and for how long (seconds).

        Hardware updates them every millisecond, or at least evenly, and nothing that is switched on
        draws nothing. One that moved at no look of the whole window stands still too.
        """
        still: dict[str, float] = {}
        for place, counter in enumerate(self._counters):
            *moves_s, last_s = self._runs_s(place)
            longest_s = max([*moves_s, last_s])
            usual_s = median(moves_s) if moves_s else 0.0
            if not moves_s or longest_s >= max(STILL_S, STILL_UPDATES * usual_s):
                still[counter.name] = longest_s
        return still

    def update_s(self, names: Collection[str]) -> float:
        """Seconds from one update to the next of the slowest of these counters, as far as it was seen.

        ``UPDATE_S`` where every look found every counter moved.
        """
        slowest_s = UPDATE_S
        for place, counter in enumerate(self._counters):
            *moves_s, _ = self._runs_s(place)
            # The last look follows upon the one before without a pause.
            if counter.name in names and len(moves_s) < len(self.looks) - 2:
                slowest_s = max([slowest_s, *moves_s])
        return slowest_s

    def abandon(self) -> None:
        """Stop looking; there is no reading."""
        self._background.cancel()

    def close(self) -> tuple[float, dict[str, float]]:
        """Seconds of the window, and joules by domain, of those that are not lost."""
        self._background.stop()
        self._sample()
        joules = {
            counter.name: advance.total_j
            for counter, advance in zip(self._counters, self._advances)
            if counter.name not in self.lost
        }
        return self._clock() - self._start_s, joules
