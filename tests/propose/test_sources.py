"""Sources from elsewhere: of one name, of other ranges, of other kinds, of three objectives."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.propose.test_behaviour import PLANE, plane, run
from tuner.measurement import configuration_key
from tuner.propose import Observation, Source, make
from tuner.propose.averaged import AveragedSurrogate
from tuner.propose.encoding import INACTIVE, Encoder
from tuner.propose.source_model import Prior, SourceModel
from tuner.space import Objective, Parameter, Space


def source(name, response) -> Source:
    every = PLANE.configurations()
    return Source(name, tuple(Observation(c, "complete", response(c)) for c in every))


def test_sources_of_one_name_have_beliefs_and_weights_of_their_own():
    def opposite(c):
        a, b = plane(c)
        return 20.0 / a, 20.0 / b

    sources = (source("own", plane), source("own", opposite), source("b", opposite))
    seen = run(make("transfer", PLANE, seed=0, sources=sources), 6, plane)
    weights = seen[-1].notes["weights"]
    assert set(weights) == {"own", "own#2", "own#3", "b"}
    assert weights["own#2"] > 0.9
    assert weights["own#3"] < 0.1 and weights["own#3"] == pytest.approx(weights["b"])
    assert sum(weights.values()) == pytest.approx(1.0)


def test_transfer_takes_three_objectives_from_its_first_trial_on():
    def three(c):
        return (*plane(c), 1.0 + c["c"])

    space = replace(PLANE, objectives=tuple(Objective(n, "minimize") for n in "xyz"))
    seen = run(make("transfer", space, seed=0, sources=(source("earlier", three),)), 8, three)
    assert len({configuration_key(o.configuration) for o in seen}) == 8
    # All three are good at b = c = 0, whatever a is.
    assert seen[0].configuration["b"] == seen[0].configuration["c"] == 0


def test_what_lies_beyond_a_range_is_at_its_end_and_what_is_no_number_tells_nothing():
    space = Space("s", (
        Parameter("timeout", "int", low=1, high=10_000, log=True),
        Parameter("share", "float", low=0.0, high=2.0),
    ))
    values = [0, 1, 100, 10_000, 10**6, "off", True, None, float("nan"), -3.0, float("inf")]
    encoded = Encoder(space).encode([{"timeout": v, "share": v} for v in values])
    middle = INACTIVE
    assert encoded[:, 0] == pytest.approx(
        [0, 0, 0.5, 1, 1, middle, middle, middle, middle, 0, 1]
    )
    assert encoded[:, 1] == pytest.approx([0, 0.5, 1, 1, 1, middle, middle, middle, middle, 0, 1])


def test_a_source_s_belief_is_worked_out_once_for_each_configuration(monkeypatch):
    rng = np.random.default_rng(0)
    X, new = rng.random((30, 2)), rng.random((50, 2))
    prior = Prior(X, X.sum(axis=1))
    asked, mean = [], prior._model.mean
    monkeypatch.setattr(prior._model, "mean", lambda rows: asked.append(len(rows)) or mean(rows))
    whole = prior.mean(new)
    assert whole == pytest.approx(mean(new))
    assert (prior.mean(new[::-2]) == whole[::-2]).all()
    prior.mean(np.vstack([new[:3], X[:4]]))
    assert asked == [50, 4]
    monkeypatch.setattr("tuner.propose.source_model._KNOWN", 10)
    assert prior.mean(np.vstack([new[:3], X[5:6]]))[:3] == pytest.approx(whole[:3])
    assert len(prior._known) == 4
    assert prior.mean(np.empty((0, 2))).shape == (0,)


def test_a_source_tells_the_shape_of_its_responses_if_it_has_the_trials():
    whole = source("whole", plane)
    model = SourceModel(whole, Encoder(PLANE), seed=0)
    columns = len(Encoder(PLANE).columns)
    for response in ("objective 0", "objective 1", "quotient"):
        shape = model.shape(response, True)
        assert shape is not None and shape.shape == (2 * columns,)
        assert model.shape(response, True) is shape
    assert not np.array_equal(model.shape("objective 0", True), model.shape("objective 1", True))
    assert model.shape("constraint failed", False) is None
    few = Source("few", whole.observations[:19])
    assert SourceModel(few, Encoder(PLANE), seed=0).shape("objective 0", True) is None


@pytest.mark.parametrize("trials", [19, 60])
def test_the_targets_models_take_the_shape_of_sources_that_can_tell_it(
    trials: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[object] = []

    class Spy(AveragedSurrogate):
        def __init__(self, *args, shape=None, **more):
            told.append(shape)
            super().__init__(*args, shape=shape, **more)

    monkeypatch.setattr("tuner.propose.bayesian.AveragedSurrogate", Spy)
    monkeypatch.setattr("tuner.propose.transfer.AveragedSurrogate", Spy)
    some = Source("some", source("whole", plane).observations[:trials])
    run(make("transfer", PLANE, seed=0, sources=(some,)), 5, plane)
    assert told and all((shape is not None) == (trials >= 20) for shape in told)


def test_an_objective_without_logarithm_leaves_the_other_ones_alone() -> None:
    """Neither a warning nor a value that is no number."""
    model = SourceModel(source("s", lambda c: (plane(c)[0], -1.0 - c["c"])), Encoder(PLANE), seed=0)
    with np.errstate(all="raise", under="ignore"):
        assert np.isfinite(model._response("objective 0", True)).all()
    assert model.is_positive(0) and not model.is_positive(1)


def rough(c):
    return plane(c)[0] * (1 + 0.4 * (c["b"] % 2)), plane(c)[1] * (1 + 0.4 * (c["a"] % 2))


def test_a_source_of_no_weight_is_not_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    sources = source("same", plane), source("rough", rough)
    proposer = make("transfer", PLANE, seed=0, sources=sources)
    seen, asked = run(proposer, 9, plane), []
    assert [s.name for s in proposer._sources] == ["same"]
    linked = proposer._linked
    monkeypatch.setattr(proposer, "_linked", lambda s, *a: asked.append(s.name) or linked(s, *a))
    seen += run(proposer, 1, plane)
    assert set(asked) == {"same"}
    assert seen[-1].notes["weights"]["rough"] == 0.0
    assert "learn from same, rough" in proposer.explain()  # as it began


def test_what_is_only_expected_of_running_trials_weighs_nothing() -> None:
    proposer = make("transfer", PLANE, seed=0, sources=(source("earlier", plane),))
    run(proposer, 4, plane)
    weights = [proposer.propose().notes["weights"] for _ in range(3)]
    assert weights[0] == weights[1] == weights[2]
    assert 0.0 < weights[0]["own"] < 1.0


def test_a_source_weighs_more_the_better_it_predicts() -> None:
    sources = source("same", plane), source("rough", rough)
    weights = run(make("transfer", PLANE, seed=0, sources=sources), 8, plane)[-1].notes["weights"]
    assert weights["same"] > 0.9 and weights["rough"] < 0.01


def test_a_study_that_goes_on_proposes_what_it_would_have_without_the_break() -> None:
    def other(c):
        return plane(c)[0] * (1 + 0.1 * (c["b"] % 2)), plane(c)[1]

    sources = source("same", plane), source("rough", other)
    first, resumed = (make("transfer", PLANE, seed=0, sources=sources) for _ in range(2))
    for observation in run(first, 6, plane):
        resumed.observe(observation)
    expected, proposal = first.propose(), resumed.propose()
    assert proposal.configuration == expected.configuration
    assert proposal.notes["weights"] == pytest.approx(expected.notes["weights"])
