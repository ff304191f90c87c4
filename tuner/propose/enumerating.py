"""Proposers that look at the space alone: random draws and the full factorial."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tuner.measurement import Configuration
from tuner.propose.base import Observation, Proposal, Proposer
from tuner.propose.candidates import draw, enumerated
from tuner.propose.history import History, derived_seed
from tuner.space import Space


class RandomProposer(Proposer):
    """Uniform over the valid configurations, without replacement unless ``repeats``."""

    name = "random"

    def __init__(self, space: Space, *, seed: int, repeats: bool = False) -> None:
        self._space, self._seed, self._repeats = space, seed, repeats
        self._history = History()
        self._all = enumerated(space)
        self._rng: np.random.Generator | None = None

    def propose(self) -> Proposal | None:
        if self._rng is None:
            self._rng = np.random.default_rng(derived_seed(self._seed, self._history.trials))
        chosen = self._draw(self._rng)
        if chosen is None:
            return None
        self._history.propose(chosen)
        return Proposal(chosen)

    def _draw(self, rng: np.random.Generator) -> Configuration | None:
        if self._all is None:
            return draw(self._space, rng, lambda c: self._repeats or not self._history.has_seen(c))
        left = self._all
        if not self._repeats:
            left = [c for c in self._all if not self._history.has_seen(c)]
        return left[int(rng.integers(len(left)))] if left else None

    def observe(self, observation: Observation) -> None:
        self._history.observe(observation)


class ListProposer(Proposer):
    """Each configuration of a list once, in its order, whoever else works on it."""

    def __init__(self, name: str, configurations: Sequence[Configuration]) -> None:
        self.name = name
        self._configurations = configurations
        self._next = 0
        self._history = History()

    def propose(self) -> Proposal | None:
        while self._next < len(self._configurations):
            configuration = self._configurations[self._next]
            self._next += 1
            if not self._history.has_seen(configuration):
                self._history.propose(configuration)
                return Proposal(configuration)
        return None

    def observe(self, observation: Observation) -> None:
        self._history.observe(observation)

    def explain(self) -> str:
        return f"{self.name}: {len(self._configurations)} configurations, each once"


class GridProposer(Proposer):
    """The full factorial over the valid configurations, each exactly once.

    Continuous parameters take the levels that the space discretises them to. Optuna's own
    GridSampler repeats configurations of conditional spaces, so the space is enumerated here.
    """

    name = "grid"

    def __init__(self, space: Space) -> None:
        self._configurations = space.configurations()
        self._size = space.size
        self._history = History()

    def propose(self) -> Proposal | None:
        for configuration in self._configurations:
            if not self._history.has_seen(configuration):
                self._history.propose(configuration)
                return Proposal(configuration)
        return None

    def observe(self, observation: Observation) -> None:
        self._history.observe(observation)

    def explain(self) -> str:
        return f"grid: the full factorial, {self._size} valid configurations, each once"
