"""The default: take the proposer that fits the space, the budget and the sources, and say why."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

from tuner.propose.base import Observation, Proposal, Proposer
from tuner.propose.bayesian import BayesianProposer
from tuner.propose.enumerating import GridProposer
from tuner.propose.history import History
from tuner.propose.source import Source
from tuner.propose.transfer import TransferProposer
from tuner.space import Space

if TYPE_CHECKING:
    from tuner.propose.mirror import MirrorProposer

FEW = 10
"""Configurations up to which all are measured in the space's order: a model that starts with so
few has nothing left to choose."""
MANY_TRIALS = 1_000
"""Budget from which evolution takes part."""
HANDED_OVER = 300
"""Trials after which it goes on: Gaussian processes have learnt what they can by then, and a
proposal of theirs takes a second."""


class AutoProposer(Proposer):
    """Passes everything on to the proposer it took."""

    name = "auto"

    def __init__(self, taken: Proposer, reason: str) -> None:
        self.taken, self._reason = taken, reason

    def propose(self) -> Proposal | None:
        return self.taken.propose()

    def observe(self, observation: Observation) -> None:
        self.taken.observe(observation)

    def explain(self) -> str:
        return f"auto takes {self.taken.name}, because {self._reason}; {self.taken.explain()}"


class Relay(Proposer):
    """One proposer up to a number of trials, then a sampler that is given all of them.

    Which one proposes depends on the number of trials known alone, so a resumed study goes on
    with the one that it was stopped with.
    """

    def __init__(self, first: Proposer, then: MirrorProposer, handed_over: int = HANDED_OVER) -> None:
        self.name = f"{first.name} then {then.name}"
        self._first, self._then, self._handed_over = first, then, handed_over
        self._history = History()

    def propose(self) -> Proposal | None:
        if self._history.trials >= self._handed_over:
            proposal = self._then.propose()
        else:
            proposal = self._first.propose()
            if proposal is not None:
                self._then.adopt(proposal.configuration)
        if proposal is not None:
            self._history.propose(proposal.configuration)
        return proposal

    def observe(self, observation: Observation) -> None:
        self._history.observe(observation)
        self._first.observe(observation)
        self._then.observe(observation)

    def explain(self) -> str:
        return (
            f"{self._first.explain()}; after {self._handed_over} trials, "
            f"{self._then.explain()} from all of them on"
        )


def choose(
    space: Space, *, seed: int, budget: int | None, sources: Sequence[Source], repeats: bool
) -> AutoProposer:
    """The grid where a handful of configurations are all there is, transfer where there are
    sources, else Bayesian optimisation, which goes through a finite space as well, the promising
    first; evolution goes on where trials are cheap enough to have thousands."""
    trials = "an open number of trials" if budget is None else f"{budget} trials"
    if _is_tiny(space) and (budget is None or budget >= space.size) and not repeats:
        reason = f"{trials} cover all of only {space.size} configurations"
        return AutoProposer(GridProposer(space), reason)
    taken: Proposer
    if sources:
        taken = TransferProposer(space, sources, seed=seed, budget=budget, repeats=repeats)
        names = ", ".join(source.name for source in sources)
        reason = f"there are source studies to learn from ({names}); {trials}, {_extent(space)}"
    else:
        taken = BayesianProposer(space, seed=seed, budget=budget, repeats=repeats)
        reason = f"it needs few of {trials} on {_extent(space)} and no source study is given"
    if (budget is None or budget >= MANY_TRIALS) and not _ends_before(space, repeats):
        from tuner.propose import make

        evolution = make("nsga2", space, seed=seed, budget=budget, repeats=repeats)
        taken = Relay(taken, cast("MirrorProposer", evolution))
    return AutoProposer(taken, reason)


def _is_tiny(space: Space) -> bool:
    return space.is_finite and space.size <= FEW


def _ends_before(space: Space, repeats: bool) -> bool:
    """Whether all configurations are measured before evolution's turn."""
    return space.is_finite and space.size <= HANDED_OVER and not repeats


def _extent(space: Space) -> str:
    if space.is_finite:
        return f"{space.size} configurations"
    if all(parameter.is_discrete for parameter in space.parameters):
        return "too many configurations to count"
    return "a continuous space"
