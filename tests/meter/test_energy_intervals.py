"""What is printed as the 95 % interval of an energy holds the truth, for power that lingers too."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import stdtrit

from tuner.meter.uncertainty import CORRELATIONS, MIN_BATCHES, half_width_j, mean_half_width

WINDOWS = 150
LONGEST_S = 30
LEAST = 0.93
ERROR = 2 * (LEAST * (1 - LEAST) / WINDOWS) ** 0.5
"""Two standard errors of a share counted in so many windows."""


def autoregression(rng: np.random.Generator, correlation: float, length: int) -> np.ndarray:
    """Watts around 0 of standard deviation 1, each like the one before to that degree."""
    watts = rng.normal(size=length)
    for place in range(1, length):
        watts[place] *= (1 - correlation**2) ** 0.5
        watts[place] += correlation * watts[place - 1]
    return watts


def half_j(watts: np.ndarray) -> float:
    half = half_width_j(range(len(watts) + 1), np.concatenate([[0.0], np.cumsum(watts + 50)]))
    assert half is not None
    return half


@pytest.mark.parametrize("correlation", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("seconds", [4, 10, 30])
def test_it_holds_the_truth_in_windows_of_fixed_length(correlation, seconds):
    rng = np.random.default_rng(17)
    held = 0
    for _ in range(WINDOWS):
        watts = autoregression(rng, correlation, seconds)
        held += abs(watts.sum()) <= half_j(watts)
    assert held / WINDOWS >= LEAST - ERROR


@pytest.mark.parametrize("correlation", [0.0, 0.9])
@pytest.mark.parametrize("wanted", [0.5, 2.0])
def test_it_holds_the_truth_when_it_was_stopped_because_it_looked_narrow(correlation, wanted):
    rng = np.random.default_rng(18)
    held = 0
    for _ in range(WINDOWS):
        watts = autoregression(rng, correlation, LONGEST_S)
        for seconds in (4, 6, 9, 13, 20, LONGEST_S):
            half = half_j(watts[:seconds])
            if half <= wanted * seconds:
                break
        held += abs(watts[:seconds].sum()) <= half
    assert held / WINDOWS >= LEAST - ERROR


@pytest.mark.parametrize("slope", [0.1, 0.5])
def test_it_holds_the_truth_when_power_drifts_for_longer_than_the_window(slope):
    """Warming up or cooling down: the truth is the mean of the whole ramp, seen in part."""
    rng = np.random.default_rng(19)
    held = 0
    for _ in range(WINDOWS):
        ramp = slope * (np.arange(LONGEST_S) - (LONGEST_S - 1) / 2)
        first = rng.integers(0, 11)
        watts = (ramp + rng.normal(size=LONGEST_S))[first : first + 20]
        held += abs(watts.sum()) <= half_j(watts)
    assert held / WINDOWS >= LEAST - ERROR


def test_of_independent_parts_it_is_at_most_half_as_wide_again_as_students_after_30_seconds():
    rng = np.random.default_rng(20)
    ratios = []
    for _ in range(WINDOWS):
        watts = rng.normal(size=LONGEST_S)
        student = stdtrit(LONGEST_S - 1, 0.975) * watts.std(ddof=1) / LONGEST_S**0.5
        ratios.append(half_j(watts) / (student * LONGEST_S))
    assert 1.0 <= np.median(ratios) <= 1.5


def test_it_follows_the_scale_and_not_the_level():
    watts = [10.0, 12.0, 9.0, 14.0, 11.0]
    half = mean_half_width(watts)
    assert mean_half_width([1000 + 3 * w for w in watts]) == pytest.approx(3 * half)


def test_it_is_the_exact_width_of_the_mixture_of_students():
    """The same by adding up the densities on a fine grid, for the parts of one window."""
    watts = np.array([10.0, 12.0, 9.0, 14.0, 11.0])
    means = np.linspace(-400, 400, 400_001)
    density = np.zeros_like(means)
    for rho in CORRELATIONS:
        lag = np.abs(np.subtract.outer(range(5), range(5)))
        inverse = np.linalg.inv(rho**lag)
        apart = (watts - watts.mean())[:, None] - means
        squares = np.einsum("im,ij,jm->m", apart, inverse, apart)
        # The scale integrated out: |R|^(-1/2) (squares)^(-n/2).
        density += np.linalg.det(inverse) ** 0.5 * squares ** (-5 / 2)
    half = mean_half_width(list(watts))
    assert density[np.abs(means) <= half].sum() / density.sum() == pytest.approx(0.95, abs=1e-3)


def test_too_few_parts_have_no_interval():
    assert MIN_BATCHES == 4
    assert half_width_j([0, 1, 2, 3], [0, 10, 22, 36]) is None
    assert half_width_j([0, 1, 2, 3, 4], [0, 10, 22, 36, 40]) is not None
