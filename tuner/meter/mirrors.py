"""Zones that show one and the same counter, as dies of some AMD processors do.

Each die's zone then holds what the whole socket drew, and their sum counts it as often as there are
dies. Names do not tell: true dies are named alike. The values do: two counters of their own, which
advance in steps of 15 to 61 microjoules and start again after tens of kilojoules, do not stand at the
same microjoule again and again while they move, whereas mirrors do at each look that does not fall
into an update. A counter that has not moved yet tells nothing, so it is looked at until it has.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import combinations

from tuner.errors import UnavailableError
from tuner.meter.counters import Counter

SURE = 3
"""At so many looks, with the counter having moved in between, the same value makes a mirror."""
ROUNDS = 5
"""Tries at one look: an update of the counter may fall between two reads."""
WAIT_S = 0.004
"""Between looks that are made only to be sure; counters advance about every millisecond."""
PATIENCE_S = 2.0
"""How long to wait for the next update of counters that are seen to move, but slowly."""


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

    def _unsure(self) -> list[_Pair]:
        return [pair for pair in self._pairs if pair.equal < SURE and pair.differed < SURE]

    def look(self) -> None:
        """Compare once all of which it is not sure yet; what cannot be read is passed over."""
        pairs = self._unsure()
        wanted = sorted({place for pair in pairs for place in (pair.one, pair.other)})
        rounds: list[dict[int, float]] = []
        while pairs and len(rounds) < ROUNDS:
            values: dict[int, float] = {}
            for place in wanted:
                with suppress(UnavailableError):
                    values[place] = self._counters[place].read_j()
            rounds.append(values)
            pairs = [pair for pair in pairs if pair.one in values and pair.other in values]
            if all(values[pair.one] == values[pair.other] for pair in pairs):
                break
        for pair in pairs:
            same = [v[pair.one] for v in rounds if v[pair.one] == v[pair.other]]
            if not same:
                pair.differed += 1
            elif same[0] != pair.last_j:
                # The first look counts for nothing: counters that stand still may be anyone's.
                pair.equal += pair.last_j is not None
                pair.last_j = same[0]

    def settle(self, patience_s: float, besides: Collection[str] = ()) -> None:
        """Look until it is sure of those that once were equal, for as long as they move.

        Args:
            patience_s: after so long without a move it is given up.
            besides: counters for which nobody need wait.
        """
        until_s = time.monotonic() + patience_s
        while self._suspects(besides):
            before = [(pair.equal, pair.differed) for pair in self._pairs]
            time.sleep(WAIT_S)
            self.look()
            if before != [(pair.equal, pair.differed) for pair in self._pairs]:
                until_s = time.monotonic() + patience_s
            elif time.monotonic() > until_s:
                return

    def _suspects(self, besides: Collection[str] = ()) -> list[_Pair]:
        return [
            pair
            for pair in self._unsure()
            if pair.last_j is not None
            and not {self._counters[place].name for place in (pair.one, pair.other)} & set(besides)
        ]

    def undecided(self, besides: Collection[str] = ()) -> dict[str, str]:
        """Counter -> another that stood at the same value, of which more cannot be said yet."""
        names = [counter.name for counter in self._counters]
        return {names[pair.other]: names[pair.one] for pair in self._suspects(besides)}

    def found(self) -> dict[str, str]:
        """Mirror -> the counter whose value it shows."""
        shown: dict[str, str] = {}
        for pair in self._pairs:
            if pair.equal >= SURE:
                one, other = (self._counters[place].name for place in (pair.one, pair.other))
                shown.setdefault(other, shown.get(one, one))
        return shown
