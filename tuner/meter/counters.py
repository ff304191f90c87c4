"""Counters that only grow, and wrap: how much they advanced in a window, without a doubt.

A counter is looked at from a background thread, so often that it cannot have gone round once between
two looks; then each look tells exactly how far it moved. Where that can't be promised (a look came
too late, the counter moved faster than hardware can), there is an error and no number.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from tuner.errors import UnavailableError
from tuner.meter.background import Background

MAX_ZONE_W = 2000.0
"""No single package or memory domain draws more; the largest server packages stay near 500 W."""
MAX_PERIOD_S = 1.0
STILL_S = 0.5
"""A counter that does not move for so long stands still."""
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
    """Open from construction until ``close``."""

    def __init__(
        self, counters: Sequence[Counter], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._counters, self._clock = counters, clock
        self._advances = [_Advance(c.read_j(), clock()) for c in counters]
        self._start_s = clock()
        self.looks: list[tuple[float, tuple[float, ...]]] = [(self._start_s, (0.0,) * len(counters))]
        """Time, and joules of each counter since the start, at each look."""
        # Two looks per round at the greatest power.
        shortest_j = min(counter.range_j for counter in counters)
        self.period_s = min(MAX_PERIOD_S, shortest_j / MAX_ZONE_W / 2)
        self._background = Background(self._sample, self.period_s)

    def _sample(self) -> None:
        for counter, advance in zip(self._counters, self._advances):
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
        self.looks.append((self._clock(), tuple(a.total_j for a in self._advances)))

    def stood_still_s(self) -> dict[str, float]:
        """Counters that did not move, and for how long (seconds) between two looks.

        Hardware updates them every millisecond, and nothing that is switched on draws nothing. Looks
        closer than ``STILL_S`` tell nothing, unless they are the whole window.
        """
        still: dict[str, float] = {}
        spans = [(b[0] - a[0], a[1], b[1]) for a, b in pairwise(self.looks)]
        spans = [span for span in spans if span[0] >= STILL_S]
        spans.append((self.looks[-1][0] - self.looks[0][0], self.looks[0][1], self.looks[-1][1]))
        for span_s, before, after in spans:
            for place, counter in enumerate(self._counters):
                if after[place] == before[place]:
                    still[counter.name] = max(span_s, still.get(counter.name, 0.0))
        return still

    def abandon(self) -> None:
        """Stop looking; there is no reading."""
        self._background.cancel()

    def close(self) -> tuple[float, dict[str, float]]:
        """Seconds of the window, and joules by domain.

        Raises:
            UnavailableError: a counter vanished, was reset, or was out of sight for too long.
        """
        self._background.stop()
        self._sample()
        joules = {c.name: a.total_j for c, a in zip(self._counters, self._advances)}
        return self._clock() - self._start_s, joules
