"""How sure the search is that limits are kept: exact probabilities, and what follows from them."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import norm

from tests.propose.test_behaviour import PLANE
from tuner.feasibility import hold_probability
from tuner.measurement import configuration_key
from tuner.propose import Observation
from tuner.propose.averaged import AveragedSurrogate
from tuner.propose.bayesian import BayesianProposer
from tuner.propose.keeping import deviation, kept, kept_by
from tuner.propose.surrogate import Surrogate
from tuner.space import Constraint

P99 = Constraint("latency_p99_ms", maximum=20.0)
SPACE = replace(PLANE, constraints=(P99,))


def trial(p99, interval=None, a=0, number=0, values=(1.0, 1.0)) -> Observation:
    """A trial of configuration ``a`` with a p99 and its interval, in ms."""
    intervals, probabilities = {}, {}
    if interval is not None:
        intervals = {P99.key: tuple(e if e is None else P99.violation(e) for e in interval)}
        probabilities = {P99.key: hold_probability(p99, *interval, P99.maximum, "<=")}
    return Observation(
        {"a": a, "b": 0, "c": 0}, "complete", values, {P99.key: P99.violation(p99)},
        number=number, violation_intervals=intervals, limit_probabilities=probabilities,
    )


def failure(a=0, number=0) -> Observation:
    return Observation(
        {"a": a, "b": 0, "c": 0}, "failed", None, {"failed": 1.0}, number=number
    )


@pytest.mark.parametrize(
    ("p99", "interval", "error_ms"),
    [
        (14.3, None, 0.0),
        (14.3, (None, None), 0.0),
        (14.3, (0.674, 303.0), (303.0 - 14.3) / 1.96),
        (25.0, (0.674, 303.0), (25.0 - 0.674) / 1.96),
        (14.3, (12.3, None), 2 * 2.0 / 1.96),
        (25.0, (None, 28.0), 2 * 3.0 / 1.96),
        (14.3, (15.0, 14.0), 0.0),
        (math.inf, (20.0, None), 0.0),
    ],
)
def test_the_side_of_an_interval_where_the_limit_lies_tells_how_sure_a_violation_is(
    p99, interval, error_ms
):
    assert deviation(trial(p99, interval), P99.key) == pytest.approx(error_ms / 20.0, rel=1e-4)


def test_a_p99_of_14_with_an_interval_up_to_303_is_not_surely_within_20():
    """On the logarithm: ln(20/14.3) / ln(303/14.3) of 1.96 standard deviations."""
    assert kept_by(trial(14.3, (0.674, 303.0))) == pytest.approx(norm.cdf(1.96 * 0.10985), abs=1e-3)
    assert kept_by(trial(14.3, (13.9, 14.8))) > 0.999
    assert kept_by(trial(14.3)) == 1.0
    assert kept_by(trial(20.0)) == 1.0
    assert kept_by(trial(20.1)) == 0.0
    assert kept_by(trial(math.inf)) == 0.0
    assert kept_by(failure()) == 0.0


def test_every_limit_has_to_hold():
    both = replace(
        trial(15.0), violations={"one <= 1": -0.25, "two >= 2": 0.5, "three <= 3": -0.1},
        limit_probabilities={"one <= 1": 0.9, "two >= 2": 0.2},
    )
    # How metrics hang together nobody knows: both are missed as seldom as each, at most.
    assert kept_by(both) == pytest.approx(1 - 0.1 - 0.8)
    tighter = replace(
        both, violations={"one <= 1": -0.25, "one <= 2": -0.6},
        limit_probabilities={"one <= 1": 0.9, "one <= 2": 0.95},
    )
    assert kept_by(tighter) == pytest.approx(0.9)


def test_repeats_that_failed_count():
    told = kept([trial(14.0), failure(), trial(14.0), trial(14.0, a=1), failure(a=2)])
    keys = [configuration_key({"a": a, "b": 0, "c": 0}) for a in (0, 1, 2)]
    assert [told[key] for key in keys] == [pytest.approx(2 / 3), 1.0, 0.0]


def told(*observations) -> BayesianProposer:
    proposer = BayesianProposer(SPACE, seed=0)
    for o in observations:
        proposer.observe(o)
    return proposer


def test_what_kept_a_limit_by_luck_is_not_yet_an_improvement():
    lucky, sure = trial(14.3, (0.674, 303.0), a=1), trial(15.0, (14.0, 16.0), a=2)
    failing = [trial(15.0, a=3), failure(a=3), failure(a=3)]
    assert told(lucky, sure, *failing)._feasible() == [sure]
    assert told(lucky, *failing)._feasible() == [lucky, failing[0]]
    assert told(trial(25.0, a=1), failure(a=2))._feasible() == []


def test_a_limit_that_none_has_broken_is_forecast_where_some_may_have():
    """Without intervals, as of tables, nothing is to be forecast."""
    wide = [trial(10 + a, (5.0, 60.0), a, a) for a in range(6)]
    sure = [trial(10 + a, (9.0 + a, 11.0 + a), a, a) for a in range(6)]
    assert told(*wide)._probably_feasible(np.random.default_rng(0).random((9, 3))).max() < 0.95
    assert told(*sure)._probably_feasible(np.zeros((9, 3))) == pytest.approx(np.ones(9))


@pytest.mark.parametrize("trials", [30, 60])
def test_known_errors_of_a_response_count(trials):
    """A step at one end is hardly believed where its errors are twice as large."""
    X = np.linspace(0, 1, trials)[:, None]
    y = 0.1 * np.sin(9 * X[:, 0])
    y[-5:] += 1.0
    errors = np.zeros(trials)
    errors[-5:] = 2.0

    def at(errors):
        if trials == 30:
            model = AveragedSurrogate(np.random.default_rng(0), 0.5).fit(X, y, errors=errors)
        else:
            model = Surrogate(1).fit(X, y, errors)
        return float(model.predict(X[[-1]])[0][0])

    assert at(errors) < 0.7 < at(np.zeros(trials))
    assert at(np.zeros(trials)) == at(None)


def test_a_trial_that_tells_nothing_does_not_count_against_its_configuration() -> None:
    untold = Observation({"a": 0, "b": 0, "c": 0}, "failed", None, {}, number=1)
    assert list(kept([trial(10.0, (9.0, 11.0)), untold]).values()) == [pytest.approx(1.0)]
    assert list(kept([trial(10.0, (9.0, 11.0)), failure(number=1)]).values()) == [pytest.approx(0.5)]
    assert kept([untold]) == {}


def test_no_crash_is_learnt_from_failures_that_are_not_the_servers() -> None:
    def probable(violations: dict[str, float]) -> np.ndarray:
        proposer = BayesianProposer(SPACE, seed=1)
        for number in range(6):
            proposer.observe(trial(10.0, (9.0, 11.0), a=number % 3, number=number))
        for number in range(6, 9):
            c = {"a": number % 3 + 3, "b": 5, "c": 0}
            proposer.observe(Observation(c, "failed", None, violations, number=number))
        X = proposer._encoder.encode([{"a": 4, "b": 5, "c": 0}])
        return proposer._probably_feasible(X)

    assert probable({}) == pytest.approx(1.0)
    assert probable({"failed": 1.0}) < 0.5
