"""What every proposer has to do. A subclass gives ``name`` and, if needed, ``sources``."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest

from tuner.measurement import Configuration, configuration_key
from tuner.propose import Observation, Proposal, Proposer, Source, make
from tuner.space import Constraint, Objective, Parameter, Space

OBJECTIVES = (Objective("latency_ms", "minimize"), Objective("energy_j", "minimize"))

FINITE = Space(
    name="finite",
    parameters=(
        Parameter("batching", "categorical", choices=(False, True)),
        Parameter("batch", "int", choices=(1, 4, 16), ordered=True, when={"batching": (True,)}),
        Parameter("threads", "int", low=1, high=3),
        Parameter("allocator", "categorical", choices=("a", "b", "c")),
    ),
    objectives=OBJECTIVES,
    constraints=(Constraint("error_rate", maximum=0.01),),
    exclude=({"threads": (3,), "allocator": ("c",)},),
)
"""32 valid configurations: conditional, mixed, with an excluded corner."""

MIXED = Space(
    name="mixed",
    parameters=(
        Parameter("batching", "categorical", choices=(False, True)),
        Parameter("batch", "int", low=1, high=64, log=True, when={"batching": (True,)}, n_levels=4),
        Parameter("share", "float", low=0.1, high=1.0, n_levels=3),
        Parameter("mode", "categorical", choices=("x", "y", "z")),
    ),
    objectives=OBJECTIVES,
    constraints=(),
)
"""Infinite: a conditional logarithmic range, a continuous one and an unordered choice."""


def values(configuration: Configuration) -> tuple[float, float]:
    """A smooth trade-off between two responses."""
    batch = float(configuration.get("batch", 1))
    threads = float(configuration.get("threads", configuration.get("share", 1)))
    slow = 1.5 if configuration.get("allocator", configuration.get("mode")) in ("b", "y") else 1.0
    return slow * (1 + math.log2(batch)) / threads, slow * (1 / batch + 0.3 * threads)


def ended(proposal: Proposal, number: int) -> Observation:
    kept = {c.key: -0.5 for c in FINITE.constraints if "threads" in proposal.configuration}
    return Observation(
        proposal.configuration,
        "complete",
        values(proposal.configuration),
        kept,
        proposal.notes,
        number,
    )


def failed(proposal: Proposal, number: int) -> Observation:
    return Observation(
        proposal.configuration, "failed", None, {"failed": 1.0}, proposal.notes, number
    )


def drive(proposer: Proposer, trials: int, first: int = 0) -> list[Observation]:
    seen = []
    for number in range(first, first + trials):
        proposal = proposer.propose()
        if proposal is None:
            break
        seen.append(ended(proposal, number))
        proposer.observe(seen[-1])
    return seen


def keys(observations: Sequence[Observation]) -> list[object]:
    return [configuration_key(o.configuration) for o in observations]


class ProposerContract:
    """Subclass as ``TestXxx`` with ``name``."""

    name: str
    covers = True
    """Whether it goes on until a finite space is exhausted."""
    trials = 12
    """Trials where a part of the space will do."""

    @pytest.fixture
    def sources(self) -> Sequence[Source]:
        return ()

    def build(self, space: Space, sources: Sequence[Source], seed: int = 1) -> Proposer:
        return make(self.name, space, seed=seed, budget=None, sources=sources)

    def test_every_proposal_is_valid_on_a_conditional_space(self, sources):
        for o in drive(self.build(FINITE, sources), self.trials):
            assert FINITE.is_valid(o.configuration), o.configuration

    def test_every_proposal_is_valid_on_a_mixed_infinite_space(self, sources):
        observations = drive(self.build(MIXED, sources), self.trials)
        assert len(observations) >= 5
        for o in observations:
            assert MIXED.is_valid(o.configuration), o.configuration

    def test_no_configuration_is_proposed_twice_and_the_end_is_none(self, sources):
        proposer = self.build(FINITE, sources)
        found = keys(drive(proposer, FINITE.size + 5))
        assert len(set(found)) == len(found)
        assert len(found) == FINITE.size if self.covers else len(found) <= FINITE.size
        assert proposer.propose() is None

    def test_proposals_depend_on_the_seed_alone(self, sources):
        first = keys(drive(self.build(FINITE, sources), self.trials))
        assert first == keys(drive(self.build(FINITE, sources), self.trials))

    def test_a_new_instance_goes_on_without_repeating_what_was_stored(self, sources):
        earlier = drive(self.build(FINITE, sources), 6)
        resumed = self.build(FINITE, sources)
        for o in earlier:
            resumed.observe(o)
        later = keys(drive(resumed, self.trials - 6, first=6))
        assert later
        assert not set(later) & set(keys(earlier))

    def test_running_trials_of_other_workers_are_not_proposed(self, sources):
        other = [p for p in (self.build(FINITE, sources).propose(),) if p is not None]
        proposer = self.build(FINITE, sources)
        for number, proposal in enumerate(other):
            proposer.observe(
                Observation(proposal.configuration, "running", notes=proposal.notes, number=number)
            )
        found = keys(drive(proposer, self.trials, first=len(other)))
        assert not {configuration_key(p.configuration) for p in other} & set(found)

    def test_several_proposals_at_once_differ(self, sources):
        proposer = self.build(FINITE, sources)
        several = [proposer.propose() for _ in range(4)]
        found = {configuration_key(p.configuration) for p in several if p is not None}
        assert len(found) == 4

    def test_failures_are_taken_and_not_proposed_again(self, sources):
        proposer, found = self.build(FINITE, sources), []
        for number in range(self.trials):
            proposal = proposer.propose()
            if proposal is None:
                break
            found.append(configuration_key(proposal.configuration))
            crashes = proposal.configuration["threads"] == 3 or number == 0
            proposer.observe((failed if crashes else ended)(proposal, number))
        assert len(set(found)) == len(found) >= 5

    def test_it_explains_itself_in_one_line(self, sources):
        text = self.build(FINITE, sources).explain()
        assert text and "\n" not in text
