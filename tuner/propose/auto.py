"""The default: take the proposer that fits the space, the budget and the sources, and say why."""

from __future__ import annotations

from collections.abc import Sequence

from tuner.propose.base import Observation, Proposal, Proposer
from tuner.propose.bayesian import BayesianProposer
from tuner.propose.enumerating import GridProposer
from tuner.propose.source import Source
from tuner.propose.transfer import TransferProposer
from tuner.space import Space

MANY_TRIALS = 1_000
"""Budget from which evolution is taken: Gaussian processes have learnt what they can by then."""


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
        return f"auto takes {self.taken.name}, because {self._reason}"


def choose(
    space: Space, *, seed: int, budget: int | None, sources: Sequence[Source], repeats: bool
) -> AutoProposer:
    """Grid where the budget covers the space, transfer where there are sources, evolution where
    trials are cheap enough to have thousands, else Bayesian optimisation."""
    if budget is not None and space.is_finite and space.size <= budget and not repeats:
        reason = f"{budget} trials cover all {space.size} configurations"
        return AutoProposer(GridProposer(space), reason)
    if sources:
        names = ", ".join(source.name for source in sources)
        transfer = TransferProposer(space, sources, seed=seed, budget=budget, repeats=repeats)
        return AutoProposer(transfer, f"there are source studies to learn from ({names})")
    if budget is not None and budget >= MANY_TRIALS:
        from tuner.propose import make

        evolution = make("nsga2", space, seed=seed, budget=budget, repeats=repeats)
        return AutoProposer(evolution, f"{budget} trials are enough for evolution")
    size = f"{space.size} configurations" if space.is_finite else "a continuous space"
    trials = "an open number of trials" if budget is None else f"{budget} trials"
    bayesian = BayesianProposer(space, seed=seed, budget=budget, repeats=repeats)
    return AutoProposer(bayesian, f"{trials} are few for {size} and no source study is given")
