"""How the mirror shows parameters to Optuna's samplers, and what it knows of earlier trials."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from tests.contracts.proposer_contract import FINITE, OBJECTIVES, ended
from tuner.measurement import configuration_key
from tuner.propose import Observation
from tuner.propose.mirror import MirrorProposer, distribution, to_inner, to_value
from tuner.space import Parameter, Space

LINE = Space(
    "line", (Parameter("x", "int", low=1, high=6),), objectives=OBJECTIVES, constraints=()
)


def ranged(kind: str, low: float, high: float, **more: Any) -> Parameter:
    return Parameter("p", kind, low=low, high=high, **more)


@pytest.mark.parametrize(
    ("parameter", "shown"),
    [
        (Parameter("p", "categorical", choices=("a", "b", "c")), CategoricalDistribution([0, 1, 2])),
        (Parameter("p", "int", choices=(1, 4, 16), ordered=True), IntDistribution(0, 2)),
        (Parameter("p", "categorical", choices=(2, 3), ordered=True), IntDistribution(0, 1)),
        (ranged("int", 2, 9), IntDistribution(2, 9)),
        (ranged("int", 2, 14, step=4), IntDistribution(2, 14, step=4)),
        (ranged("int", 1, 64, log=True), IntDistribution(1, 64, log=True)),
        (ranged("float", 0.5, 2.0), FloatDistribution(0.5, 2.0)),
        (ranged("float", 0.5, 2.0, step=0.5), FloatDistribution(0.5, 2.0, step=0.5)),
        (ranged("float", 0.5, 2.0, log=True), FloatDistribution(0.5, 2.0, log=True)),
        (ranged("float", 0.5, 2.0, log=True, step=0.5), FloatDistribution(0.5, 2.0, log=True)),
    ],
)
def test_ordered_levels_are_shown_by_their_index_and_ranges_as_they_are(
    parameter: Parameter, shown: optuna.distributions.BaseDistribution
) -> None:
    assert distribution(parameter) == shown


def test_a_choice_is_its_place_and_comes_back_as_itself() -> None:
    parameter = Parameter("p", "categorical", choices=(False, True, 1, 0.5, "auto"))
    inner = [to_inner(parameter, v) for v in parameter.choices]
    assert inner == [0, 1, 2, 3, 4]
    assert [repr(to_value(parameter, i)) for i in inner] == ["False", "True", "1", "0.5", "'auto'"]


def test_a_value_of_a_range_stays_itself() -> None:
    assert to_inner(ranged("int", 1, 9), 4) == to_value(ranged("int", 1, 9), 4) == 4


def mirror(space: Space = FINITE, sampler: Any = None, **more: Any) -> MirrorProposer:
    sampler = sampler or (lambda seed: optuna.samplers.RandomSampler(seed))
    return MirrorProposer("m", space, sampler, seed=1, **more)


class Stubborn(optuna.samplers.RandomSampler):
    """Suggests the same value each time, and counts how often it was asked."""

    def __init__(self, value: int) -> None:
        super().__init__(0)
        self.value, self.asked = value, 0

    def sample_independent(self, *_: Any) -> int:
        self.asked += 1
        return self.value


def proposed(proposer: MirrorProposer) -> list[Any]:
    found = []
    while (proposal := proposer.propose()) is not None:
        found.append(proposal.configuration["x"])
    return found


def test_after_five_vain_suggestions_the_nearest_new_one_is_taken() -> None:
    sampler = Stubborn(3)
    proposer = mirror(LINE, lambda _: sampler)
    first, second = proposer.propose(), proposer.propose()
    assert first is not None and second is not None
    assert first.configuration == {"x": 3} and second.configuration["x"] in (2, 4)
    assert sampler.asked == 1 + 5
    assert [t.state for t in proposer._study.trials[1:6]] == [optuna.trial.TrialState.FAIL] * 5


def test_new_ones_are_taken_from_the_inside_out_until_none_is_left() -> None:
    sampler = Stubborn(1)
    proposer = mirror(LINE, lambda _: sampler)
    assert proposed(proposer) == [1, 2, 3, 4, 5, 6]
    asked = sampler.asked
    assert proposer.propose() is None and sampler.asked == asked


def test_a_configuration_may_come_again_where_repeats_are_allowed() -> None:
    proposer = mirror(LINE, lambda _: Stubborn(3), repeats=True)
    assert [proposer.propose().configuration["x"] for _ in range(8)] == [3] * 8  # type: ignore[union-attr]


def trials(proposer: MirrorProposer, states: Sequence[optuna.trial.TrialState]) -> list[Any]:
    return [t for t in proposer._study.get_trials() if t.state in states]


RUNNING, COMPLETE = optuna.trial.TrialState.RUNNING, optuna.trial.TrialState.COMPLETE


def test_each_end_of_a_trial_ends_the_one_that_runs_in_the_mirror() -> None:
    proposer = mirror()
    proposals = [proposer.propose() for _ in range(3)]
    assert len(trials(proposer, [RUNNING])) == 3
    for number, proposal in enumerate(proposals):
        assert proposal is not None
        proposer.observe(ended(proposal, number))
    assert not trials(proposer, [RUNNING]) and len(trials(proposer, [COMPLETE])) == 3


def test_what_others_run_is_shown_as_running_once_and_ends_as_one() -> None:
    proposer = mirror(LINE)
    proposer.propose()
    free = next(x for x in range(1, 7) if not proposer._history.has_seen({"x": x}))
    running = Observation({"x": free}, "running", number=7)
    proposer.observe(running)
    assert len(trials(proposer, [RUNNING])) == 2
    proposer.observe(Observation({"x": free}, "complete", (1.0, 2.0), number=7))
    assert len(trials(proposer, [RUNNING])) == len(trials(proposer, [COMPLETE])) == 1


def test_what_another_proposer_took_runs_here_too_and_is_not_proposed() -> None:
    late, early = mirror(LINE), mirror(LINE)
    early.propose()
    before = len(trials(early, [RUNNING]))
    free = next(x for x in range(1, 7) if not early._history.has_seen({"x": x}))
    early.adopt({"x": free})
    late.adopt({"x": free})
    assert len(trials(early, [RUNNING])) == before + 1
    assert free not in proposed(early) and free not in proposed(late)


def test_a_proposer_built_anew_shows_its_sampler_all_earlier_trials() -> None:
    first = mirror()
    seen = []
    for number in range(4):
        proposal = first.propose()
        assert proposal is not None
        seen.append(ended(proposal, number))
    again = mirror()
    for observation in seen:
        again.observe(observation)
    again.observe(Observation({"batching": False, "threads": 1, "allocator": "c"}, "running", number=9))
    again.propose()
    complete = trials(again, [COMPLETE])
    assert [tuple(t.values) for t in complete] == [o.values for o in seen]
    assert len(trials(again, [RUNNING])) == 2
    told = [{n: t.params[n] for n in t.params} for t in complete]
    assert [t["threads"] for t in told] == [o.configuration["threads"] for o in seen]


@pytest.mark.parametrize(
    ("last", "kept"), [(3, [0, 1, 2, 3]), (20, [0, 1, 2, 20]), (22, [0, 0, 0, 20])]
)
def test_of_a_long_evolution_the_last_twenty_generations_are_kept_apart(
    last: int, kept: list[int]
) -> None:
    proposer = mirror(sampler=lambda seed: optuna.samplers.NSGAIISampler(seed=seed, population_size=2))
    configurations = list(FINITE.configurations())
    for number, generation in enumerate([0, 1, 2, last]):
        proposer.observe(Observation(
            configurations[number], "complete", (1.0, 2.0), {c.key: -0.5 for c in FINITE.constraints},
            {"generation": generation}, number,
        ))
    proposal = proposer.propose()
    assert proposal is not None
    held = [t.system_attrs["NSGAIISampler:generation"] for t in trials(proposer, [COMPLETE])]
    assert held == kept
    assert proposal.notes["generation"] >= last


def test_a_sampler_that_does_not_evolve_leaves_no_generation() -> None:
    proposal = mirror().propose()
    assert proposal is not None and proposal.notes == {}


def test_an_inactive_knob_is_not_suggested() -> None:
    proposer = mirror()
    for _ in range(20):
        proposal = proposer.propose()
        assert proposal is not None
        assert ("batch" in proposal.configuration) == (proposal.configuration["batching"] is True)
    shown = {configuration_key(t.params): t for t in trials(proposer, [RUNNING])}
    assert {"batch" in t.params for t in shown.values()} == {True, False}
    assert all(("batch" in t.params) == (t.params["batching"] == 1) for t in shown.values())


def test_optunas_own_messages_are_as_loud_after_a_proposal_as_before() -> None:
    before = optuna.logging.get_verbosity()
    mirror().propose()
    assert optuna.logging.get_verbosity() == before


def test_a_failure_before_any_measurement_and_one_after_look_no_better_than_the_worst() -> None:
    proposer = mirror(LINE)
    for number, values in enumerate([(5.0, 1.0), (2.0, 7.0)]):
        proposal = proposer.propose()
        assert proposal is not None
        proposer.observe(Observation(proposal.configuration, "complete", values, number=number))
    proposal = proposer.propose()
    assert proposal is not None
    proposer.observe(Observation(proposal.configuration, "failed", None, {"failed": 1.0}, number=2))
    assert tuple(trials(proposer, [COMPLETE])[-1].values) == (5.0, 7.0)
