"""Zones that show one and the same counter, as dies of some AMD processors do.

Each die's zone then holds what the whole socket drew, and their sum counts it as often as there are
dies. Names do not tell: true dies are named alike. The values do: two counters of their own, which
advance in steps of 15 to 61 microjoules and start again after tens of kilojoules, do not stand at the
same microjoule again and again while they move, whereas mirrors do at each look that does not fall
into an update.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

from tuner.meter.counters import Counter

SURE = 3
"""At so many looks, with the counter having moved in between, the same value makes a mirror."""
ROUNDS = 5
"""Tries at one look: an update of the counter may fall between two reads."""
WAIT_S = 0.004
"""Between looks that are made only to be sure; counters advance about every millisecond."""
MOST_WAITS = 12


@dataclass
class _Pair:
    one: int
    other: int
    equal: int = 0
    differed: int = 0
    last_j: float | None = None
    """The value at the last look that counted."""


class Mirrors:
    """What all looks so far tell of counters of the same kind (package, memory)."""

    def __init__(self, counters: Sequence[Counter]) -> None:
        self._counters = counters
        kinds = [counter.name.partition("-")[0] for counter in counters]
        self._pairs = [
            _Pair(one, other)
            for one, other in combinations(range(len(counters)), 2)
            if kinds[one] == kinds[other]
        ]

    def look(self) -> None:
        """Compare once all of which it is not sure yet.

        Raises:
            UnavailableError: a counter cannot be read.
        """
        pairs = [pair for pair in self._pairs if pair.equal < SURE and pair.differed < SURE]
        wanted = sorted({place for pair in pairs for place in (pair.one, pair.other)})
        rounds: list[dict[int, float]] = []
        while pairs and len(rounds) < ROUNDS:
            rounds.append({place: self._counters[place].read_j() for place in wanted})
            if all(rounds[-1][pair.one] == rounds[-1][pair.other] for pair in pairs):
                break
        for pair in pairs:
            same = [v[pair.one] for v in rounds if v[pair.one] == v[pair.other]]
            if not same:
                pair.differed += 1
            elif same[0] != pair.last_j:
                # The first look counts for nothing: counters that stand still may be anyone's.
                pair.equal += pair.last_j is not None
                pair.last_j = same[0]

    def settle(self) -> None:
        """Look until it is sure of those that once were equal, for as long as they move."""
        for _ in range(MOST_WAITS):
            unsure = (p for p in self._pairs if p.equal < SURE and p.differed < SURE)
            if all(pair.last_j is None for pair in unsure):
                return
            time.sleep(WAIT_S)
            self.look()

    def found(self) -> dict[str, str]:
        """Mirror -> the counter whose value it shows."""
        shown: dict[str, str] = {}
        for pair in self._pairs:
            if pair.equal >= SURE:
                one, other = (self._counters[place].name for place in (pair.one, pair.other))
                shown.setdefault(other, shown.get(one, one))
        return shown
