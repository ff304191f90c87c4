"""Designs made before the first trial: a space-filling sequence, and two-level screening."""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.stats import qmc

from tuner.measurement import Configuration, Scalar, configuration_key
from tuner.propose.base import Observation, Proposal, Proposer
from tuner.propose.candidates import enumerated
from tuner.propose.encoding import Encoder
from tuner.propose.enumerating import ListProposer
from tuner.propose.history import History
from tuner.space import Parameter, Space, same

Floats = NDArray[np.float64]
_VAIN = 1_000
"""Points in a row without a new configuration after which a large space counts as covered."""
_LEVELS = 9
"""Values of a knob, at most, and ways to change so many knobs, that a repair tries."""
_CHANGES = 5_000


class SobolProposer(Proposer):
    """A scrambled Sobol sequence (Owen 1998), each point moved to the nearest new configuration.

    The sequence depends on the seed alone: resumed, it skips what was tried and goes on.
    """

    name = "qmc"

    def __init__(self, space: Space, *, seed: int, repeats: bool = False) -> None:
        self._space, self._repeats = space, repeats
        self._history = History()
        self._sequence = qmc.Sobol(len(space.parameters), scramble=True, rng=seed)
        self._nearest = Nearest(space)

    def propose(self) -> Proposal | None:
        if not self._repeats and self._nearest.is_exhausted(self._history):
            return None
        for _ in range(_VAIN):
            point = self._sequence.random(1)[0]
            wanted = at(self._space, point)
            chosen = self._nearest.to(wanted, self._history, self._repeats)
            if chosen is not None and (self._repeats or not self._history.has_seen(chosen)):
                self._history.propose(chosen)
                return Proposal(chosen)
        return None

    def observe(self, observation: Observation) -> None:
        # Each trial uses up one point, also one of an earlier process or another worker, whose
        # sequence is the same; it is seen when it starts, and not another time when it ends.
        if not self._history.has_seen(observation.configuration):
            self._sequence.fast_forward(1)
        self._history.observe(observation)

    def explain(self) -> str:
        return "qmc: a scrambled Sobol sequence, which fills the space evenly"


class Nearest:
    """Moves a wished configuration to a valid one that wasn't tried."""

    def __init__(self, space: Space) -> None:
        self._space = space
        self._all = enumerated(space)
        self._encoder = Encoder(space)
        if self._all is not None:
            self._encoded = self._encoder.encode(self._all)
            self._keys = [configuration_key(c) for c in self._all]

    @property
    def is_enumerated(self) -> bool:
        return self._all is not None

    def is_exhausted(self, history: History) -> bool:
        return self._all is not None and set(self._keys) <= history.seen_keys()

    def to(self, wanted: Configuration, history: History, repeats: bool) -> Configuration | None:
        """The nearest new configuration; of a space too large to enumerate, ``wanted`` or none
        (``repaired`` finds another)."""
        if self._all is None:
            return wanted if self._space.is_valid(wanted) else None
        seen = frozenset() if repeats else history.seen_keys()
        left = [i for i, key in enumerate(self._keys) if key not in seen]
        if not left:
            return None
        gaps = self._encoded[left] - self._encoder.encode([wanted])
        return self._all[left[int(np.argmin((gaps**2).sum(axis=1)))]]


def repaired(
    space: Space, wanted: Configuration, accept: Callable[[Configuration], bool]
) -> Configuration | None:
    """A valid configuration that ``accept`` takes with the fewest knobs changed, at most three, and
    of those the nearest; ``None`` where some thousands of changes lead to none.

    For spaces too large to enumerate. Knobs that a change switches on are at their middle.
    """
    encoder = Encoder(space)
    point = encoder.encode([wanted])
    knobs = _to_change(space, wanted)
    for count in range(1, min(len(knobs), 3) + 1):
        changes = (
            dict(zip(names, values))
            for names in itertools.combinations(knobs, count)
            for values in itertools.product(*(knobs[name] for name in names))
        )
        found = []
        for change in itertools.islice(changes, _CHANGES):
            changed = _changed(space, wanted, change)
            if changed != wanted and space.is_valid(changed) and accept(changed):
                found.append(changed)
        if found:
            gaps = encoder.encode(found) - point
            return found[int(np.argmin((gaps**2).sum(axis=1)))]
    return None


def _to_change(space: Space, wanted: Configuration) -> dict[str, list[Scalar]]:
    """The knobs whose change may help, each with values to take instead."""
    clauses = [c for c in space.exclude if all(name in wanted for name in c)]
    broken = {
        name
        for clause in clauses
        if all(any(same(wanted[name], v) for v in values) for name, values in clause.items())
        for name in clause
    }
    # Switched off, a knob is excluded no more.
    for parameter in reversed(space.parameters):
        if parameter.name in broken:
            broken |= set(parameter.when)
    shares = np.linspace(0.0, 1.0, _LEVELS)
    return {
        p.name: list(dict.fromkeys(value_at(p, share) for share in shares))
        for p in space.parameters
        if p.name in wanted and (not broken or p.name in broken)
    }


def _changed(space: Space, wanted: Configuration, change: Configuration) -> Configuration:
    chosen: dict[str, Scalar] = {}
    for parameter in space.parameters:
        if space.active(chosen, parameter):
            name = parameter.name
            given = change.get(name, wanted.get(name))
            chosen[name] = value_at(parameter, 0.5) if given is None else given
    return chosen


def at(space: Space, shares: Floats) -> Configuration:
    """The configuration at a point of the unit cube, one coordinate a knob, active or not."""
    chosen: dict[str, Scalar] = {}
    for parameter, share in zip(space.parameters, shares):
        if space.active(chosen, parameter):
            chosen[parameter.name] = value_at(parameter, float(share))
    return chosen


def value_at(parameter: Parameter, share: float) -> Scalar:
    """The value at a share in [0, 1] of a knob's levels or range."""
    if parameter.is_discrete:
        levels = parameter.levels()
        return levels[min(int(share * len(levels)), len(levels) - 1)]
    assert parameter.low is not None and parameter.high is not None
    if parameter.log:
        low, high = math.log(parameter.low), math.log(parameter.high)
        value = min(max(math.exp(low + share * (high - low)), parameter.low), parameter.high)
    else:
        value = parameter.low + share * (parameter.high - parameter.low)
    return round(value) if parameter.kind == "int" else float(value)


def screening(space: Space) -> ListProposer:
    """A Plackett–Burman design over the ends of every knob, and the middle of the space.

    Tells the main effects of k knobs apart in little more than k trials, a power of two or 12 or
    20 times one (Plackett & Burman 1946). Knobs with more than two unordered choices are seen at their first
    and last one; points that aren't valid move to the nearest valid configuration.

    Raises:
        SpaceError: there is none near a point of a space too large to enumerate.
    """
    nearest, history = Nearest(space), History()
    design: list[Configuration] = []
    for shares in [*_plackett_burman(len(space.parameters)), np.full(len(space.parameters), 0.5)]:
        wanted = at(space, shares)
        chosen = nearest.to(wanted, history, repeats=False)
        if not nearest.is_enumerated and (chosen is None or history.has_seen(chosen)):
            chosen = repaired(space, wanted, lambda c: not history.has_seen(c))
            if chosen is None:
                raise space.place("exclude").error(
                    "screening: the space is too large to enumerate, and a point of the design "
                    "has no valid configuration within three changed knobs; exclude less"
                )
        # Of an enumerated space nothing is left only once all of it is in the design.
        if chosen is not None:
            history.propose(chosen)
            design.append(chosen)
    return ListProposer("screening", design)


def _plackett_burman(columns: int) -> Floats:
    """The smallest design of at least so many columns, cut to them; entries 0 and 1."""
    from pydoe import pbdesign

    # Not every multiple of four is known to the library, but the next power of two is.
    for wider in range(columns, 2 * columns + 4):
        with contextlib.suppress(ValueError):
            return (np.asarray(pbdesign(wider), dtype=float)[:, :columns] + 1) / 2
    raise AssertionError(f"no design of {columns} columns")
