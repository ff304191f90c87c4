"""Measures each configuration several times, spread over time so that a drift shows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tuner.measurement import Configuration, configuration_key
from tuner.propose.auto import AutoProposer
from tuner.propose.base import Observation, Proposal, Proposer
from tuner.propose.enumerating import GridProposer, ListProposer
from tuner.propose.history import History, Key

GAP = 5
"""Other trials that finish between two measurements of one configuration."""


@dataclass
class _Tried:
    """What is known of one configuration."""

    configuration: Configuration
    notes: Mapping[str, Any]
    """Those of its first proposal, so that an evolution knows which generation a repeat is of."""
    finished: int = 0
    last: int = 0
    """How many trials of the study had finished when this one's last did."""


class RepeatingProposer(Proposer):
    """Proposes what another proposer proposes, each configuration ``repeats`` times.

    A proposer that goes through a fixed set (the grid, a list) gets whole passes, one after
    another, in the same order. Any other one is interrupted as soon as one of its configurations
    is due again: measured fewer than ``repeats`` times, and at least ``GAP`` other trials finished
    since. Once it has nothing new, what still lacks measurements follows without that gap.

    A failure counts as a measurement, a killed trial doesn't. The proposer inside observes every
    trial, repeats included: what they tell of the noise is worth as much as a new point.

    Args:
        inner: who proposes something new.
        repeats: measurements wanted of each configuration, at least 1.
    """

    def __init__(self, inner: Proposer, repeats: int) -> None:
        if repeats < 1:
            raise ValueError(f"repeats should be at least 1, not {repeats}")
        self.name = inner.name
        self._inner, self._repeats = inner, repeats
        self._in_passes = goes_through_a_fixed_set(inner)
        self._history = History()
        self._tried: dict[Key, _Tried] = {}
        self._finished = 0

    def propose(self) -> Proposal | None:
        if not self._in_passes and (due := self._due()) is not None:
            return self._again(due)
        proposal = self._inner.propose()
        if proposal is not None:
            self._remember(proposal.configuration, proposal.notes)
            self._history.propose(proposal.configuration)
            return proposal
        lacking = min(self._lacking(), key=lambda t: (t.finished, t.last), default=None)
        return None if lacking is None else self._again(lacking)

    def observe(self, observation: Observation) -> None:
        self._inner.observe(observation)
        self._history.observe(observation)
        tried = self._remember(observation.configuration, observation.notes)
        if observation.state in ("complete", "failed"):
            self._finished += 1
            tried.finished, tried.last = tried.finished + 1, self._finished

    def explain(self) -> str:
        how = "in whole passes" if self._in_passes else f"at least {GAP} other trials apart"
        return f"{self._inner.explain()}; each configuration {self._repeats} times, {how}"

    def _due(self) -> _Tried | None:
        """The configuration that has waited longest; a killed one needs no gap."""
        due = [
            t for t in self._lacking() if not t.finished or self._finished - t.last >= GAP
        ]
        return min(due, key=lambda t: t.last, default=None)

    def _lacking(self) -> list[_Tried]:
        """Known configurations that lack measurements and aren't being measured now."""
        pending = set(map(configuration_key, self._history.pending))
        return [
            t for key, t in self._tried.items()
            if t.finished < self._repeats and key not in pending
        ]

    def _again(self, tried: _Tried) -> Proposal:
        self._history.propose(tried.configuration)
        return Proposal(tried.configuration, tried.notes)

    def _remember(self, configuration: Configuration, notes: Mapping[str, Any]) -> _Tried:
        key = configuration_key(configuration)
        return self._tried.setdefault(key, _Tried(configuration, notes))


def goes_through_a_fixed_set(proposer: Proposer) -> bool:
    """Whether a proposer's own way is to go through all it has once, whatever comes out."""
    taken = proposer.taken if isinstance(proposer, AutoProposer) else proposer
    return isinstance(taken, (GridProposer, ListProposer))
