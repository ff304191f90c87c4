"""Designs made before the first trial: a space-filling sequence, and two-level screening."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.stats import qmc

from tuner.measurement import Configuration, Scalar, configuration_key
from tuner.propose.base import Observation, Proposal, Proposer
from tuner.propose.candidates import enumerated
from tuner.propose.encoding import Encoder
from tuner.propose.enumerating import ListProposer
from tuner.propose.history import History
from tuner.space import Parameter, Space

Floats = NDArray[np.float64]
_VAIN = 1_000
"""Points in a row without a new configuration after which a large space counts as covered."""


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
        # A resumed sequence starts before what was tried; each trial used up one point.
        if observation.state != "running" and not self._history.has_seen(observation.configuration):
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

    def is_exhausted(self, history: History) -> bool:
        return self._all is not None and set(self._keys) <= history.seen_keys()

    def to(self, wanted: Configuration, history: History, repeats: bool) -> Configuration | None:
        """The nearest new configuration; of a space too large to enumerate, ``wanted`` or none."""
        if self._all is None:
            return wanted if self._space.is_valid(wanted) else None
        seen = frozenset() if repeats else history.seen_keys()
        left = [i for i, key in enumerate(self._keys) if key not in seen]
        if not left:
            return None
        gaps = self._encoded[left] - self._encoder.encode([wanted])
        return self._all[left[int(np.argmin((gaps**2).sum(axis=1)))]]


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

    Tells the main effects of k knobs apart in the next multiple of four above k trials
    (Plackett & Burman 1946). Knobs with more than two unordered choices are seen at their first
    and last one; points that aren't valid move to the nearest valid configuration.
    """
    from pydoe import pbdesign

    nearest, history = Nearest(space), History()
    rows = [(row + 1) / 2 for row in np.asarray(pbdesign(len(space.parameters)), dtype=float)]
    design: list[Configuration] = []
    for shares in [*rows, np.full(len(space.parameters), 0.5)]:
        wanted = at(space, shares)
        chosen = nearest.to(wanted, history, repeats=False)
        if chosen is not None and not history.has_seen(chosen):
            history.propose(chosen)
            design.append(chosen)
    return ListProposer("screening", design)
