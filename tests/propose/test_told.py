"""What the mirror tells Optuna's samplers of each trial, and what it asks them: exact values."""

from __future__ import annotations

import importlib.util
import math
from dataclasses import replace
from itertools import permutations

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import GPSampler, RandomSampler
from optuna.samplers._tpe.sampler import _get_infeasible_trial_score
from optuna.samplers.nsgaii._constraints_evaluation import _constrained_dominates
from optuna.study import StudyDirection
from optuna.trial import TrialState

from tests.contracts.proposer_contract import FINITE, MIXED, OBJECTIVES
from tuner.measurement import configuration_key
from tuner.propose import Observation, make
from tuner.propose.history import derived_seed
from tuner.propose.mirror import MirrorProposer, bounded, distribution, to_inner, to_value
from tuner.space import Constraint, Parameter, Space

P99, RPS, ENERGY = (
    Constraint("latency_p99_ms", maximum=20.0), Constraint("throughput_rps", minimum=50.0),
    Constraint("energy_per_request_j", maximum=1.0),
)
LINE = Space(
    name="line",
    parameters=(Parameter("x", "int", low=0, high=9),),
    objectives=OBJECTIVES,
    constraints=(P99, RPS, ENERGY),
)
HAS_TORCH = importlib.util.find_spec("torch") is not None


class Fixed(RandomSampler):
    """Always suggests the same; knows with which seed it was made."""

    def __init__(self, seed: int, x: float = 3) -> None:
        super().__init__(seed)
        self.seed, self.x = seed, x

    def sample_independent(self, study, trial, name, form):
        return self.x


def fixed(x: float = 3, space: Space = LINE, **options) -> MirrorProposer:
    return MirrorProposer("fixed", space, lambda seed: Fixed(seed, x), seed=7, **options)


def complete(c, number, violations=None, values=(2.0, 5.0), notes=None) -> Observation:
    return Observation(c, "complete", values, violations or {}, notes or {}, number)


def failed(c, number, notes=None) -> Observation:
    return Observation(c, "failed", None, {"failed": 1.0}, notes or {}, number)


def told(proposer: MirrorProposer) -> list[optuna.trial.FrozenTrial]:
    return [t for t in proposer._study.get_trials() if t.state == TrialState.COMPLETE]


def after(resumed: bool, *observations, space: Space = LINE, name: str = "nsga2"):
    """A proposer that was told of trials: one after another, or all before its first proposal."""
    proposer = make(name, space, seed=0)
    if not resumed:
        proposer.propose()
    for o in observations:
        proposer.observe(o)
    if resumed:
        proposer.propose()
    return proposer


@pytest.mark.parametrize(
    ("violation", "mapped"),
    [
        (-math.inf, -1.0), (-7.0, -1.0), (-1.0, -1.0), (-0.25, -0.25), (0.0, 0.0),
        (1e-300, 1e-300), (0.25, 0.2), (1.0, 0.5), (3.0, 0.75), (1e30, 1.0), (math.inf, 1.0),
        (math.nan, 1.0),
    ],
)
def test_a_violation_is_mapped_to_one_that_can_be_added_up(violation, mapped):
    assert bounded(violation) == pytest.approx(mapped, rel=1e-15)
    assert (bounded(violation) <= 0) == (violation <= 0)


@pytest.mark.parametrize("resumed", [False, True])
def test_a_measured_trial_is_told_with_its_violations_bounded(resumed):
    seen = complete({"x": 1}, 0, {P99.key: 3.0, RPS.key: -0.5, ENERGY.key: 0.0})
    (trial,) = told(after(resumed, seen))
    assert trial.values == [2.0, 5.0]
    assert trial.params == {"x": 1}
    assert trial.constraints == {P99.key: 0.75, RPS.key: -0.5, ENERGY.key: 0.0, "failed": -5.0}


@pytest.mark.parametrize("resumed", [False, True])
def test_a_failure_is_told_as_complete_with_the_worst_of_each_objective(resumed):
    seen = [
        complete({"x": 1}, 0, values=(2.0, 5.0)), complete({"x": 2}, 1, values=(9.0, 1.0)),
        failed({"x": 3}, 2),
    ]
    trial = told(after(resumed, *seen))[-1]
    assert trial.params == {"x": 3}
    assert trial.values == [9.0, 5.0]
    assert trial.constraints == {P99.key: 0.0, RPS.key: 0.0, ENERGY.key: 0.0, "failed": 5.0}


@pytest.mark.parametrize("resumed", [False, True])
def test_failures_before_the_first_measured_trial_wait_for_it(resumed):
    """No values are the worst until then, and any made up would be the best ever seen."""
    crashes = [failed({"x": 3}, 0), failed({"x": 4}, 1)]
    proposer = after(resumed, *crashes)
    assert not told(proposer)
    proposer.observe(complete({"x": 5}, 2, values=(40.0, 8.0)))
    trials = {t.params["x"]: t for t in told(proposer)}
    assert sorted(trials) == [3, 4, 5]
    assert [trials[x].values for x in (3, 4, 5)] == [[40.0, 8.0]] * 3
    assert [trials[x].constraints["failed"] for x in (3, 4, 5)] == [5.0, 5.0, -5.0]
    proposer.observe(failed({"x": 6}, 3))
    assert len(told(proposer)) == 4


def test_what_came_out_without_values_counts_as_failed():
    seen = [complete({"x": 1}, 0), Observation({"x": 2}, "complete", None, {}, {}, 1)]
    assert told(after(True, *seen))[-1].constraints["failed"] == 5.0


ORDER = [P99.key, RPS.key, ENERGY.key, "failed"]


@pytest.mark.parametrize("resumed", [False, True])
@pytest.mark.parametrize("keys", list(permutations(ORDER[:3])))
def test_constraints_keep_their_order_whatever_order_a_measurement_brings(resumed, keys):
    """Optuna 5's GPSampler knows them by their place alone."""
    by_name = dict(zip(ORDER, (1.0, -0.1, -0.2)))
    trials = told(after(
        resumed,
        complete({"x": 1}, 0, {key: by_name[key] for key in keys}),
        failed({"x": 2}, 1),
    ))
    assert [list(t.constraints) for t in trials] == [ORDER, ORDER]
    assert list(trials[0].constraints.values()) == [0.5, -0.1, -0.2, -5.0]


@pytest.mark.parametrize("resumed", [False, True])
def test_a_limit_without_a_measurement_of_it_keeps_its_place(resumed):
    (trial,) = told(after(resumed, complete({"x": 1}, 0, {ENERGY.key: 1.0})))
    assert list(trial.constraints.items()) == [
        (P99.key, 0.0), (RPS.key, 0.0), (ENERGY.key, 0.5), ("failed", -5.0)
    ]


@pytest.mark.parametrize("resumed", [False, True])
def test_a_limit_that_the_space_does_not_know_counts_without_a_place_of_its_own(resumed):
    (trial,) = told(after(resumed, complete({"x": 1}, 0, {"slo": 1.0, "z": -1.0, P99.key: -0.5})))
    assert list(trial.constraints.items()) == [
        (P99.key, -0.5), (RPS.key, 0.0), (ENERGY.key, 0.0), ("failed", 0.5)
    ]


WORST = (1e-3, 1.5, 40.0, 1e12, math.inf)


@pytest.mark.parametrize("limits", [0, 1, 2, 3])
@pytest.mark.parametrize("far", WORST)
@pytest.mark.parametrize("crash_first", [False, True])
def test_a_failure_violates_by_more_than_any_measured_trial(limits, far, crash_first):
    """Now and of later trials: Optuna keeps what it was told of earlier ones."""
    space = replace(LINE, constraints=LINE.constraints[:limits])
    beyond = complete(
        {"x": 2}, 1, {**{c.key: far for c in space.constraints}, "of its own": far}
    )
    crash = failed({"x": 1}, 2)
    pair = (crash, beyond) if crash_first else (beyond, crash)
    trials = told(after(False, complete({"x": 0}, 0), *pair, space=space))
    by_x = {t.params["x"]: t for t in trials}
    assert _get_infeasible_trial_score(by_x[1]) > _get_infeasible_trial_score(by_x[2]) > 0
    directions = [StudyDirection.MINIMIZE] * 2
    assert _constrained_dominates(by_x[2], by_x[1], directions)
    assert not _constrained_dominates(by_x[1], by_x[2], directions)


@pytest.mark.parametrize("name", ["tpe", "nsga2", "nsga3"])
def test_a_crash_is_no_better_than_what_is_far_beyond_the_limit(name):
    """A third crashes, most of the rest is beyond the limit by more than its own size. Taken for
    half as bad as those, crashes are 0.4 to 0.6 of the last trials."""
    parameters = tuple(Parameter(n, "int", choices=tuple(range(8)), ordered=True) for n in "abcd")
    space = replace(LINE, parameters=parameters, constraints=(P99,))
    crashes = []
    for seed in range(4):
        proposer = make(name, space, seed=seed, budget=60)
        for number in range(60):
            proposal = proposer.propose()
            c = proposal.configuration
            crashed = c["a"] + c["b"] >= 9
            latency = 10.0 * math.exp(0.35 * c["a"] + 0.25 * c["c"] + 0.3 * (7 - c["d"]))
            proposer.observe(
                failed(c, number, proposal.notes) if crashed
                else complete(
                    c, number, {P99.key: P99.violation(latency)}, (latency, 9.0 - c["b"]),
                    proposal.notes,
                )
            )
            crashes += [crashed] if number >= 40 else []
    assert sum(crashes) / len(crashes) < 0.25


# What the sampler is asked.


def test_the_sampler_is_made_from_a_seed_derived_from_the_trials_known():
    proposer = fixed()
    proposer.propose()
    assert proposer._study.sampler.seed == derived_seed(7, 0)
    resumed = fixed()
    for number in range(3):
        resumed.observe(complete({"x": number}, number))
    resumed.propose()
    assert resumed._study.sampler.seed == derived_seed(7, 3)


def test_after_five_suggestions_that_are_known_the_nearest_new_one_is_taken():
    proposer = fixed()
    found = [proposer.propose().configuration["x"] for _ in range(4)]
    assert found[0] == 3
    assert sorted(found[1:3]) == [2, 4]
    assert found[3] in (1, 5)
    thrown = [t for t in proposer._study.get_trials() if t.state == TrialState.FAIL]
    assert len(thrown) == 3 * 5


def test_nothing_is_asked_once_all_is_tried():
    proposer = fixed()
    for number in range(10):
        c = proposer.propose().configuration
        proposer.observe(complete(c, number))
    asked = len(proposer._study.get_trials())
    assert proposer.propose() is None
    assert len(proposer._study.get_trials()) == asked


def test_with_repeats_the_same_suggestion_is_taken_again():
    proposer = fixed(repeats=True)
    assert [proposer.propose().configuration["x"] for _ in range(12)] == [3] * 12
    assert {t.state for t in proposer._study.get_trials()} == {TrialState.RUNNING}


def test_an_excluded_suggestion_is_not_taken_with_repeats_either():
    space = replace(LINE, exclude=({"x": (3,)},))
    proposer = fixed(space=space, repeats=True)
    assert [proposer.propose().configuration["x"] in (2, 4) for _ in range(4)] == [True] * 4


def test_in_a_continuous_space_a_new_one_is_drawn_where_suggestions_are_known():
    space = replace(LINE, parameters=(Parameter("x", "float", low=0.0, high=9.0),))
    proposer = fixed(3.0, space=space)
    found = [proposer.propose().configuration["x"] for _ in range(5)]
    assert found[0] == 3.0
    assert len(set(found)) == 5
    assert all(0 <= x <= 9 for x in found)
    assert max(abs(x - 3.0) for x in found) > 0.5


def test_two_trials_of_one_configuration_end_one_after_the_other():
    proposer = fixed(repeats=True)
    proposer.propose()
    proposer.propose()
    proposer.observe(complete({"x": 3}, 0, values=(1.0, 2.0)))
    states = [t.state for t in proposer._study.get_trials()]
    assert sorted(s.name for s in states) == ["COMPLETE", "RUNNING"]
    proposer.observe(complete({"x": 3}, 1, values=(3.0, 4.0)))
    assert sorted(t.values for t in told(proposer)) == [[1.0, 2.0], [3.0, 4.0]]
    proposer.observe(complete({"x": 3}, 2, values=(5.0, 6.0)))
    assert len(proposer._study.get_trials()) == 3


@pytest.mark.parametrize("started", [False, True])
def test_what_runs_elsewhere_is_mirrored_as_running_once(started):
    proposer = fixed(x=5)
    if started:
        proposer.propose()
    proposer.observe(Observation({"x": 3}, "running", number=8))
    proposer.observe(Observation({"x": 5}, "running", number=9))
    if not started:
        proposer.propose()
    running = [
        t.params["x"] for t in proposer._study.get_trials() if t.state == TrialState.RUNNING
    ]
    if started:
        assert sorted(running) == [3, 5]
    else:
        assert min(running) == 3 and running.count(3) == running.count(5) == 1
    proposer.observe(complete({"x": 3}, 8))
    assert [t.params for t in told(proposer)] == [{"x": 3}]


def test_what_another_proposer_proposed_is_taken_as_running():
    proposer = fixed()
    proposer.adopt({"x": 1})
    proposer.propose()
    proposer.adopt({"x": 2})
    running = sorted(
        t.params["x"] for t in proposer._study.get_trials() if t.state == TrialState.RUNNING
    )
    assert running == [1, 2, 3]
    proposer.observe(complete({"x": 2}, 0))
    assert [t.params for t in told(proposer)] == [{"x": 2}]


def test_it_explains_itself_by_its_name_and_what_it_is():
    assert fixed().explain() == "fixed"
    assert fixed(explanation="always the same").explain() == "fixed: always the same"


# Generations.


def resumed_evolution(*generations: int) -> MirrorProposer:
    proposer = make("nsga2", LINE, seed=0, budget=50)
    for number, generation in enumerate(generations):
        proposer.observe(complete({"x": number}, number, notes={"generation": generation}))
    proposer._start()
    return proposer


@pytest.mark.parametrize(
    ("stored", "mirrored"),
    [((0, 1), [0, 1]), ((0, 20), [0, 20]), ((0, 1, 21), [0, 0, 20]), ((5, 30, 31), [0, 19, 20])],
)
def test_twenty_generations_are_kept_apart_when_an_evolution_goes_on(stored, mirrored):
    key = "NSGAIISampler:generation"
    proposer = resumed_evolution(*stored)
    assert [t.system_attrs[key] for t in told(proposer)] == mirrored


def test_a_proposal_notes_its_generation_counted_from_the_study_s_start():
    proposer = make("nsga2", LINE, seed=0, budget=50)
    proposer.observe(complete({"x": 0}, 0, notes={"generation": 31}))
    assert proposer.propose().notes == {"generation": 31}
    assert make("nsga2", LINE, seed=0, budget=50).propose().notes == {"generation": 0}


def test_a_sampler_without_generations_notes_none():
    proposer = after(True, complete({"x": 1}, 0), name="tpe")
    assert proposer.propose().notes == {}
    assert "generation" not in str(told(proposer)[0].system_attrs)


# How parameters are shown.


@pytest.mark.parametrize(
    ("parameter", "shown"),
    [
        (Parameter("p", "int", choices=(1, 4, 16), ordered=True), IntDistribution(0, 2)),
        (Parameter("p", "categorical", choices=("a", "b")), CategoricalDistribution([0, 1])),
        (Parameter("p", "int", low=2, high=9), IntDistribution(2, 9)),
        (Parameter("p", "int", low=2, high=10, step=4), IntDistribution(2, 10, step=4)),
        (Parameter("p", "int", low=2, high=9, log=True), IntDistribution(2, 9, log=True)),
        (Parameter("p", "float", low=0.5, high=2.0), FloatDistribution(0.5, 2.0)),
        (
            Parameter("p", "float", low=0.5, high=2.0, step=0.5),
            FloatDistribution(0.5, 2.0, step=0.5),
        ),
        (
            Parameter("p", "float", low=0.5, high=2.0, log=True),
            FloatDistribution(0.5, 2.0, log=True),
        ),
    ],
)
def test_a_parameter_is_shown_as_what_it_is(parameter, shown):
    assert distribution(parameter) == shown


def test_values_and_their_places_are_told_apart():
    levels = Parameter("p", "categorical", choices=("x", True, 1))
    assert [to_inner(levels, v) for v in ("x", True, 1)] == [0, 1, 2]
    assert [to_value(levels, i) for i in (0, 1, 2)] == ["x", True, 1]
    plain = Parameter("p", "int", low=2, high=9)
    assert to_value(plain, 5) == to_inner(plain, 5) == 5


def test_knobs_that_do_not_apply_are_not_told():
    kept = {c.key: -0.5 for c in FINITE.constraints}
    without = {"batching": False, "threads": 2, "allocator": "b"}
    within = {"batching": True, "batch": 16, "threads": 2, "allocator": "c"}
    trials = told(after(
        True, complete(without, 0, kept), complete(within, 1, kept), space=FINITE, name="tpe"
    ))
    assert [t.params for t in trials] == [
        {"batching": 0, "threads": 2, "allocator": 1},
        {"batching": 1, "batch": 2, "threads": 2, "allocator": 2},
    ]


# With torch.


@pytest.mark.skipif(not HAS_TORCH, reason="GPSampler needs torch, which is not installed")
def test_gp_does_not_propose_next_what_has_just_failed():
    """Told as failed or pruned it would not know of it, and propose it to the end of the study."""
    space = replace(MIXED, constraints=(P99,))
    proposer, seen = make("gp", space, seed=0), []
    for number in range(18):
        proposal = proposer.propose()
        c = proposal.configuration
        key = configuration_key(c)
        assert key not in seen
        seen.append(key)
        if number >= 10 and number % 2 == 0:
            proposer.observe(failed(c, number, proposal.notes))
        else:
            share = float(c["share"])
            broken = {P99.key: share - 0.9}
            proposer.observe(complete(c, number, broken, (1 / share, share), proposal.notes))
    trials = told(proposer)
    assert len(trials) == 18
    assert {tuple(t.constraints) for t in trials} == {(P99.key, "failed")}


@pytest.mark.skipif(not HAS_TORCH, reason="GPSampler needs torch, which is not installed")
def test_gp_proposes_the_same_whatever_order_a_measurement_brings_its_violations_in():
    space = replace(
        LINE, parameters=(Parameter("x", "float", low=0.0, high=1.0),), constraints=(P99, ENERGY)
    )

    def proposals(swapped: bool) -> list[float]:
        proposer, found = make("gp", space, seed=3), []
        for number in range(14):
            c = proposer.propose().configuration
            x = float(c["x"])
            found.append(x)
            told = {P99.key: x - 0.7, ENERGY.key: 0.3 - x}
            if swapped and number % 2:
                told = dict(reversed(told.items()))
            proposer.observe(complete(c, number, told, (1 + x, 2 - x)))
        return found

    assert proposals(swapped=True) == pytest.approx(proposals(swapped=False), abs=1e-6)


@pytest.mark.parametrize("resumed", [False, True])
def test_a_failure_that_is_not_the_servers_is_not_told_as_one(resumed):
    """The load generator was late, the meter lost its counter: the configuration may be the best."""
    untold = Observation({"x": 3}, "failed", None, {}, number=1)
    seen = [untold, complete({"x": 1}, 0), replace(untold, configuration={"x": 4}, number=2)]
    proposer = after(resumed, *seen)
    assert [t.params["x"] for t in told(proposer)] == [1]
    states = {t.params["x"]: t.state for t in proposer._study.get_trials()}
    assert states[3] == states[4] == TrialState.FAIL


def test_gp_takes_what_tells_nothing_for_as_bad_as_the_worst_and_for_neither_kept_nor_broken():
    class WithoutTorch(GPSampler):
        """Optuna's sampler by its class alone, which is what the proposer asks for."""

        def __init__(self) -> None: ...

        def reseed_rng(self) -> None: ...

        def infer_relative_search_space(self, study, trial):
            return {}

        def sample_relative(self, study, trial, space):
            return {}

        def sample_independent(self, study, trial, name, form):
            return 7

        def before_trial(self, study, trial): ...

        def after_trial(self, study, trial, state, values): ...

    proposer = MirrorProposer("gp", LINE, lambda seed: WithoutTorch(), seed=7)
    proposer.observe(complete({"x": 1}, 0, values=(9.0, 5.0)))
    proposer.observe(Observation({"x": 3}, "failed", None, {}, number=1))
    proposer.propose()
    trial = told(proposer)[-1]
    assert (trial.params, trial.values) == ({"x": 3}, [9.0, 5.0])
    assert trial.constraints == {P99.key: 0.0, RPS.key: 0.0, ENERGY.key: 0.0, "failed": 0.0}
