"""Closed forms against sampling."""

from __future__ import annotations

import numpy as np
import pytest

from tuner.analysis.pareto import hypervolume
from tuner.propose.improvement import (
    Belief,
    expected_hypervolume_improvement,
    expected_improvement,
    scalarised_improvement,
)


def sampled(belief: Belief, draws: int, rng: np.random.Generator) -> np.ndarray:
    normal = belief.mean[0] + belief.deviation[0] * rng.standard_normal(draws)
    return np.exp(normal) if belief.logarithmic else normal


@pytest.mark.parametrize("logarithmic", [False, True])
def test_expected_improvement_is_the_mean_improvement_of_samples(logarithmic):
    belief = Belief(np.array([0.3]), np.array([0.5]), logarithmic)
    drawn = sampled(belief, 200_000, np.random.default_rng(0))
    expected = np.maximum(1.2 - drawn, 0).mean()
    assert expected_improvement(belief, 1.2)[0] == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize("logarithmic", [(False, False), (True, True), (True, False)])
def test_expected_hypervolume_improvement_is_the_mean_gain_of_samples(logarithmic):
    rng = np.random.default_rng(1)
    beliefs = [Belief(np.array([0.1]), np.array([0.4]), one) for one in logarithmic]
    front, reference = np.array([[0.5, 2.0], [1.0, 1.0], [1.6, 1.6], [2.0, 0.4]]), np.full(2, 3.0)
    points = np.column_stack([sampled(b, 4_000, rng) for b in beliefs])
    before = hypervolume(front, reference)
    gains = [hypervolume(np.vstack([front, p]), reference) - before for p in points]
    exact = expected_hypervolume_improvement(beliefs, front, reference)[0]
    assert exact == pytest.approx(np.mean(gains), abs=4 * np.std(gains) / np.sqrt(len(gains)))


def test_without_a_front_the_improvement_is_the_whole_area_below_the_reference():
    beliefs = [Belief(np.array([1.0]), np.array([1e-9]), False)] * 2
    exact = expected_hypervolume_improvement(beliefs, np.empty((0, 2)), np.array([3.0, 2.0]))
    assert exact[0] == pytest.approx(2.0)


def test_a_dominating_candidate_scores_best_with_three_objectives():
    mean = np.array([0.1, 0.9])
    beliefs = [Belief(mean, np.full(2, 0.05), False)] * 3
    found = np.array([[0.5, 0.6, 0.7], [0.7, 0.5, 0.6]])
    scores = scalarised_improvement(beliefs, found, np.random.default_rng(0))
    assert scores[0] > scores[1]
