"""Of two objectives and their quotient the two that are easier to explain are modelled."""

from __future__ import annotations

import numpy as np
import pytest

from tuner.propose.averaged import LOG_SCALE, AveragedSurrogate
from tuner.propose.bayesian import BayesianProposer, Data, Multiple
from tuner.space_file import parse

KNOBS = ", ".join(f"k{i}: {{values: [0, 1, 2, 3, 4]}}" for i in range(6))
SPACE = parse(f"name: plane\nparameters: {{{KNOBS}}}\n")


def rows(rng: np.random.Generator, count: int) -> np.ndarray:
    return rng.integers(0, 5, (count, 6)) / 4


def duration(X: np.ndarray) -> np.ndarray:
    """Hard to learn: six knobs that work on each other."""
    return np.sin(5 * X[:, 0] * X[:, 1] + 3 * X[:, 2]) + X[:, 3] * np.cos(4 * X[:, 4] + X[:, 5])


def power(X: np.ndarray) -> np.ndarray:
    return 0.3 * X[:, 0]


@pytest.fixture
def proposer() -> BayesianProposer:
    return BayesianProposer(SPACE, seed=0)


def test_an_energy_is_learnt_as_a_duration_times_a_power(proposer: BayesianProposer) -> None:
    rng = np.random.default_rng(0)
    X, new = rows(rng, 25), rows(rng, 200)
    known = [(Data(X, duration(X)), True), (Data(X, duration(X) + power(X)), True)]
    models = proposer._models(known)
    # Either objective may be the other one's multiple; what both have in common is learnt once.
    assert sum(isinstance(m, Multiple) for m in models) == 1
    quotient = models[1].predict(new)[0] - models[0].predict(new)[0]
    apart = [AveragedSurrogate(rng, LOG_SCALE).fit(X, d.y).predict(new)[0] for d, _ in known]
    error = np.abs(quotient - power(new)).mean()
    assert error < 0.5 * np.abs(apart[1] - apart[0] - power(new)).mean()


def test_objectives_that_share_nothing_are_learnt_apart(proposer: BayesianProposer) -> None:
    X = rows(np.random.default_rng(1), 25)
    known = [(Data(X, X[:, 0] + X[:, 1]), True), (Data(X, X[:, 2] - X[:, 3]), True)]
    assert not any(isinstance(m, Multiple) for m in proposer._models(known))


def test_what_may_be_negative_has_no_quotient(proposer: BayesianProposer) -> None:
    X = rows(np.random.default_rng(2), 25)
    known = [(Data(X, duration(X)), False), (Data(X, duration(X) + power(X)), True)]
    assert not any(isinstance(m, Multiple) for m in proposer._models(known))


def test_a_multiple_predicts_each_trial_from_the_others_like_its_parts(
    proposer: BayesianProposer,
) -> None:
    X = rows(np.random.default_rng(3), 25)
    known = [(Data(X, duration(X)), True), (Data(X, duration(X) + power(X)), True)]
    multiple = next(m for m in proposer._models(known) if isinstance(m, Multiple))
    (base, far), (factor, off) = multiple.base.left_out(), multiple.factor.left_out()
    mean, deviation = multiple.left_out()
    assert mean == pytest.approx(base + multiple.power * factor)
    assert deviation == pytest.approx(np.hypot(far, off))
