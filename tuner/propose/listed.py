"""A list of configurations, each measured a given number of times, in a drawn order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from tuner.measurement import Configuration, configuration_key
from tuner.propose.base import Observation, Proposal, Proposer
from tuner.propose.history import History, Key


class ListedProposer(Proposer):
    """Each configuration of a list until so many of its trials finished, pass after pass.

    A failure counts as a measurement, a killed trial doesn't; nor do trials of configurations
    that the list lacks. What earlier processes measured is not measured again, so the same list
    with one measurement more gives a repeat of it at a later time.
    """

    def __init__(self, name: str, configurations: Sequence[Configuration], times: int = 1) -> None:
        if times < 1:
            raise ValueError(f"times should be at least 1, not {times}")
        self.name = name
        self._configurations, self._times = list(configurations), times
        self._finished: Counter[Key] = Counter()
        self._history = History()

    def propose(self) -> Proposal | None:
        pending = set(map(configuration_key, self._history.pending))
        for done in range(self._times):
            for configuration in self._configurations:
                key = configuration_key(configuration)
                if self._finished[key] == done and key not in pending:
                    self._history.propose(configuration)
                    return Proposal(configuration)
        return None

    def observe(self, observation: Observation) -> None:
        self._history.observe(observation)
        if observation.state in ("complete", "failed"):
            self._finished[configuration_key(observation.configuration)] += 1

    def explain(self) -> str:
        often = "once" if self._times == 1 else f"{self._times} times"
        return (
            f"{self.name}: {len(self._configurations)} configurations in a drawn order, "
            f"each {often}"
        )


def everything(proposer: Proposer) -> list[Configuration]:
    """All that a proposer of a fixed design (the grid, a screening design) has to propose."""
    found = []
    while (proposal := proposer.propose()) is not None:
        found.append(proposal.configuration)
    return found


def shuffled(configurations: Sequence[Configuration], seed: int) -> list[Configuration]:
    """In an order drawn by the seed, so that no drift of the machine is taken for a knob's effect."""
    order = np.random.default_rng(seed).permutation(len(configurations))
    return [configurations[i] for i in order]
