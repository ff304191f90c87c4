"""What single proposers promise beyond the contract."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from tests.contracts.proposer_contract import FINITE, MIXED, drive, ended, values
from tuner.measurement import configuration_key
from tuner.propose import Observation, Source, make
from tuner.propose.auto import Relay, choose
from tuner.propose.bayesian import BayesianProposer
from tuner.space import Constraint, Objective, Parameter, Space

LEVELS = tuple(range(8))
PLANE = Space(
    name="plane",
    parameters=tuple(Parameter(n, "int", choices=LEVELS, ordered=True) for n in "abc"),
    objectives=FINITE.objectives,
    constraints=(),
)


def plane(c) -> tuple[float, float]:
    return 1.0 + c["a"] + 0.1 * c["c"], 9.0 - c["a"] + c["b"] + 0.1 * c["c"]


def run(proposer, trials, response, fails=lambda c: False, violation=None):
    seen = []
    for number in range(trials):
        proposal = proposer.propose()
        c = proposal.configuration
        bad = {"failed": 1.0} if fails(c) else ({} if violation is None else {"slo": violation(c)})
        state, result = ("failed", None) if fails(c) else ("complete", response(c))
        seen.append(Observation(c, state, result, bad, proposal.notes, number))
        proposer.observe(seen[-1])
    return seen


BUDGETS = [("auto", 40), ("tpe", 40), ("nsga2", 100), ("nsga3", 100)]


@pytest.mark.parametrize(("name", "trials"), BUDGETS)
def test_regions_that_crash_are_left(name, trials):
    proposer = make(name, PLANE, seed=0, budget=trials)
    crashes = [o.state == "failed" for o in run(proposer, trials, plane, lambda c: c["b"] < 4)]
    assert np.mean(crashes[-15:]) < 0.25


def test_the_forecast_of_failures_is_not_too_sure_of_itself():
    """Log loss where failures are partly chance; 0.84 if a label is taken for certain, 0.42 at
    best."""
    every, losses = list(PLANE.configurations()), []
    for seed in range(10):
        rng, proposer = np.random.default_rng(seed), BayesianProposer(PLANE, seed=seed)

        def fails(c, rng=rng):
            return rng.random() < (0.85 if c["b"] < 4 else 0.15)

        for number, place in enumerate(rng.choice(len(every), 24, replace=False)):
            c = every[place]
            told = ("failed", None, {"failed": 1.0}) if fails(c) else ("complete", plane(c))
            proposer.observe(Observation(c, *told, number=number))
        probable = proposer._probably_feasible(proposer._encoded)
        works = np.array([not fails(c) for c in every])
        losses.append(-np.log(np.where(works, probable, 1 - probable) + 1e-9).mean())
    assert np.mean(losses) < 0.75


@pytest.mark.parametrize(("name", "trials"), BUDGETS)
@pytest.mark.parametrize(
    "level", [Constraint("latency_ms", maximum=3.0), Constraint("throughput_rps", minimum=7.0)]
)
@pytest.mark.parametrize("objectives", [1, 2])
def test_a_service_level_is_kept_that_the_objectives_pull_away_from(
    name, trials, level, objectives
):
    """Three of eight levels of ``a`` keep it; energy is least at the other end."""
    space = replace(
        PLANE, constraints=(level,),
        objectives=tuple(Objective(n, "minimize") for n in ("energy_j", "memory_mb")[:objectives]),
    )

    def response(c):
        return (10.0 - c["a"] + c["b"], 11.0 - c["a"] + c["c"])[:objectives]

    def violation(c):
        metrics = {"latency_ms": 1.0 + c["a"], "throughput_rps": 9.0 - c["a"]}
        return space.violations(metrics)[level.key]

    proposer = make(name, space, seed=0, budget=trials)
    seen = run(proposer, trials, response, violation=violation)
    assert np.mean([o.feasible for o in seen[-15:]]) > 0.5
    best = min(o.values[0] for o in seen if o.feasible)
    assert best <= (8.0 if name == "auto" else 9.0)


def test_auto_takes_three_objectives():
    space = replace(PLANE, objectives=tuple(Objective(n, "minimize") for n in "xyz"))
    seen = run(make("auto", space, seed=0), 12, lambda c: (*plane(c), 1.0 + c["c"]))
    assert len({configuration_key(o.configuration) for o in seen}) == 12


TINY = replace(PLANE, parameters=(replace(PLANE.parameters[0], choices=(1, 2, 4)),))


@pytest.mark.parametrize(
    ("space", "budget", "sources", "taken"),
    [
        (TINY, 3, (), "grid"),
        (TINY, 2, (), "bayesian"),
        (FINITE, 40, (), "bayesian"),
        (FINITE, 5_000, (), "bayesian"),
        (PLANE, 999, (), "bayesian"),
        (PLANE, 5_000, (), "bayesian then nsga2"),
        (MIXED, None, (), "bayesian then nsga2"),
        (FINITE, 20, ("one",), "transfer"),
        (PLANE, 5_000, ("one",), "transfer then nsga2"),
    ],
)
def test_auto_says_what_it_takes_and_why(space, budget, sources, taken):
    known = tuple(Source(s, tuple(drive(make("grid", FINITE, seed=0), 9))) for s in sources)
    text = choose(space, seed=0, budget=budget, sources=known, repeats=False).explain()
    assert f"takes {taken}, because" in text
    assert ("an open number of trials" if budget is None else f"{budget} trials") in text
    assert (f"{space.size} configurations" if space.is_finite else "a continuous space") in text
    assert all(name in text for name in sources)


def test_auto_does_not_hide_what_its_proposer_says():
    sources = (dealt_source(),)
    assert "dealt left out" in make("auto", PLANE, seed=0, sources=sources).explain()


def test_a_budget_that_covers_the_space_changes_no_proposal():
    few, all_of_it = (run(make("auto", PLANE, seed=0, budget=n), 6, plane) for n in (30, 512))
    assert [o.configuration for o in few] == [o.configuration for o in all_of_it]


def relay(handed_over=6):
    first = make("random", PLANE, seed=0)
    return Relay(first, make("nsga2", PLANE, seed=0, budget=100), handed_over)


def test_evolution_goes_on_from_all_trials_after_so_many_and_also_when_resumed():
    seen = run(relay(), 12, plane)
    evolved = ["generation" in o.notes for o in seen]
    assert evolved == [False] * 6 + [True] * 6
    assert len({configuration_key(o.configuration) for o in seen}) == 12
    for stopped_after in (5, 6, 9):
        resumed = relay()
        for o in seen[:stopped_after]:
            resumed.observe(o)
        assert ("generation" in resumed.propose().notes) == (stopped_after >= 6)


def test_evolution_knows_what_still_runs_when_it_takes_over():
    proposer = relay()
    several = [proposer.propose() for _ in range(12)]
    assert ["generation" in p.notes for p in several] == [False] * 6 + [True] * 6
    assert len({configuration_key(p.configuration) for p in several}) == 12
    for number, proposal in enumerate(several):
        proposer.observe(ended_on_plane(proposal, number))
    later = proposer.propose()
    assert configuration_key(later.configuration) not in {
        configuration_key(p.configuration) for p in several
    }


def ended_on_plane(proposal, number):
    c = proposal.configuration
    return Observation(c, "complete", plane(c), {}, proposal.notes, number)


def test_evolution_begins_with_the_best_of_the_trials_before_it():
    def level(c):
        return 1.0 + c["b"] + c["c"], 1.0 + c["b"] + c["c"]

    every = list(PLANE.configurations())
    drawn = np.random.default_rng(0).permutation(len(every))[:200]
    proposer = relay(handed_over=200)
    for number, i in enumerate(drawn):
        c = every[int(i)]
        proposer.observe(Observation(c, "complete", level(c), number=number))
    later = run(proposer, 20, level)
    # All of the space have 8 in the mean.
    assert np.mean([o.values[0] for o in later]) < 6.0


def test_a_source_that_helps_gains_weight_and_one_that_misleads_loses_it():
    every = list(PLANE.configurations())
    true = [plane(c) for c in every]
    dealt = [true[i] for i in np.random.default_rng(0).permutation(len(true))]

    def source(name, results):
        pairs = zip(every, results)
        return Source(
            name, tuple(Observation(c, "complete", (2 * a, 3 * b)) for c, (a, b) in pairs)
        )

    both = (source("good", true), source("bad", dealt))
    seen = run(make("transfer", PLANE, seed=0, sources=both), 8, plane)
    weights = seen[-1].notes["weights"]
    assert weights["good"] > 0.9
    assert weights["bad"] < 0.05


def dealt_source():
    """Results of configurations dealt to others."""
    every = list(PLANE.configurations())
    order = np.random.default_rng(0).permutation(len(every))
    dealt = [Observation(c, "complete", plane(every[i])) for c, i in zip(every, order)]
    return Source("dealt", tuple(dealt))


def test_a_source_whose_knobs_explain_nothing_is_left_out_and_auto_goes_on_as_without():
    proposer = make("transfer", PLANE, seed=0, sources=(dealt_source(),))
    assert "dealt left out" in proposer.explain()
    seen = run(proposer, 5, plane)
    assert seen[0].notes["weights"] == {"own": 1.0, "dealt": 0.0}
    alone = run(make("auto", PLANE, seed=0), 5, plane)
    assert [o.configuration for o in seen] == [o.configuration for o in alone]


def test_a_source_that_says_the_opposite_is_dropped_within_a_few_trials():
    def opposite(c):
        a, b = plane(c)
        return 20.0 / a, 20.0 / b

    source = Source(
        "opposite",
        tuple(Observation(c, "complete", opposite(c)) for c in PLANE.configurations()),
    )
    seen = run(make("transfer", PLANE, seed=0, sources=(source,)), 6, plane)
    assert seen[-1].notes["weights"]["opposite"] < 0.1


def test_screening_tells_main_effects_apart_in_few_trials():
    space = Space(
        "options",
        tuple(Parameter(f"o{i}", "categorical", choices=(False, True)) for i in range(11)),
    )
    design = drive(make("screening", space, seed=0), 100)
    assert len(design) <= 13
    signs = np.array([[1 if o.configuration[f"o{i}"] else -1 for i in range(11)] for o in design])
    assert np.abs(np.corrcoef(signs[:12].T) - np.eye(11)).max() < 0.1


def test_nsga2_goes_on_with_its_generation_after_a_restart():
    earlier = drive(make("nsga2", MIXED, seed=0), 45)
    resumed = make("nsga2", MIXED, seed=0)
    for o in earlier:
        resumed.observe(o)
    assert resumed.propose().notes["generation"] == 2


def test_a_configuration_may_come_again_when_repeats_are_asked_for():
    proposer = make("random", FINITE, seed=0, repeats=True)
    keys = {configuration_key(o.configuration) for o in drive(proposer, 3 * FINITE.size)}
    assert len(keys) <= FINITE.size


OPTIONS = Space(
    name="options",
    parameters=tuple(Parameter(f"o{i}", "categorical", choices=(False, True)) for i in range(12)),
    constraints=(),
)


def options(c) -> tuple[float, float]:
    return 1.0 + sum(c.values()), 15.0 - 2 * c["o0"] + c["o1"] * c["o2"]


def some_of(count: int, seed: int) -> list[Observation]:
    every = list(OPTIONS.configurations())
    drawn = np.random.default_rng(seed).choice(len(every), count, replace=False)
    return [
        Observation(every[int(i)], "complete", options(every[int(i)]), number=number)
        for number, i in enumerate(drawn)
    ]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["auto", "tpe", "transfer"])
def test_a_proposal_takes_at_most_a_second_at_300_trials(name):
    sources = [Source(n, tuple(some_of(800, seed))) for n, seed in (("one", 1), ("two", 2))]
    sources = sources if name == "transfer" else []
    proposer = make(name, OPTIONS, seed=0, budget=500, sources=sources)
    for o in some_of(300, 0):
        proposer.observe(o)
    with threadpool_limits(1):  # CPU time is the time that it takes, also beside other work
        proposer.propose()
        start = time.process_time()
        proposer.propose()
        assert time.process_time() - start < 1.0


@pytest.mark.slow
def test_tpe_takes_at_most_a_second_at_10_000_trials():
    rng, proposer = np.random.default_rng(0), make("tpe", MIXED, seed=0)
    for number in range(10_000):
        c = {"batching": False, "share": float(rng.uniform(0.1, 1)), "mode": "xyz"[rng.integers(3)]}
        proposer.observe(Observation(c, "complete", values(c), number=number))
    proposer.propose()
    start = time.process_time()
    proposer.observe(ended(proposer.propose(), 10_000))
    assert time.process_time() - start < 1.0


@pytest.mark.parametrize("levels", [LEVELS, ()])
def test_what_the_first_trial_lacked_or_had_the_second_one_turns_round(levels):
    """Also where the configurations are too many to be listed."""
    batch = {"choices": levels} if levels else {"low": 0.0, "high": 7.0}
    space = replace(
        PLANE,
        parameters=(
            Parameter("batching", "categorical", choices=(False, True)),
            Parameter("rows", "int" if levels else "float", when={"batching": (True,)}, **batch),
            Parameter("wait", "int", choices=LEVELS, when={"batching": (True,)}),
            Parameter("c", "int", choices=LEVELS, ordered=True),
        ),
    )
    proposer = make("auto", space, seed=0, budget=20)
    first, second = (
        o.configuration for o in run(proposer, 2, lambda c: (1.0 + c["c"], 9.0 - c["c"]))
    )
    assert first["batching"] != second["batching"]
    assert second["c"] in (3, 4)
