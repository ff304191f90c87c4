"""What a proposer remembers: how trials ended, which still run, and so what may be proposed next."""

from __future__ import annotations

from collections import Counter

import numpy as np

from tuner.measurement import Configuration, configuration_key
from tuner.propose.base import Observation

Key = tuple[tuple[str, str], ...]


class History:
    """Finished and pending trials of one proposer.

    A configuration is *pending* from its proposal (or a ``running`` observation of another
    worker) until the observation of its end.
    """

    def __init__(self) -> None:
        self.finished: list[Observation] = []
        self._done: Counter[Key] = Counter()
        self._running: dict[int, Configuration] = {}
        self._proposed: dict[Key, list[Configuration]] = {}
        self.worst: tuple[float, ...] | None = None
        """The worst value seen of each objective; ``None`` before any trial completed."""

    def propose(self, configuration: Configuration) -> None:
        """Remember a configuration of our own that is now on its way."""
        self._proposed.setdefault(configuration_key(configuration), []).append(configuration)

    def observe(self, observation: Observation) -> None:
        key = configuration_key(observation.configuration)
        if observation.number >= 0 and observation.number in self._running:
            del self._running[observation.number]
        elif self._proposed.get(key):
            self._proposed[key].pop()
        if observation.state == "running":
            self._running[observation.number] = observation.configuration
        else:
            self._done[key] += 1
            self.finished.append(observation)
            if observation.state == "complete" and observation.values is not None:
                worst = self.worst or observation.values
                self.worst = tuple(max(pair) for pair in zip(worst, observation.values))

    @property
    def pending(self) -> list[Configuration]:
        own = [c for several in self._proposed.values() for c in several]
        return [*self._running.values(), *own]

    @property
    def trials(self) -> int:
        """How many trials are known, pending ones included."""
        return len(self.finished) + len(self.pending)

    @property
    def complete(self) -> list[Observation]:
        return [o for o in self.finished if o.state == "complete" and o.values is not None]

    def seen_keys(self) -> frozenset[Key]:
        """Identities of every configuration tried, failed or pending."""
        return frozenset([*self._done, *map(configuration_key, self.pending)])

    def has_seen(self, configuration: Configuration) -> bool:
        """Whether a configuration was tried, failed or is pending."""
        key = configuration_key(configuration)
        if self._done[key] or self._proposed.get(key):
            return True
        return any(configuration_key(c) == key for c in self._running.values())


def derived_seed(seed: int, trials: int) -> int:
    """A seed for the stream that starts after ``trials`` earlier trials, so that a resumed
    proposer doesn't repeat the draws of the one before."""
    return int(np.random.SeedSequence([seed, trials]).generate_state(1)[0])
