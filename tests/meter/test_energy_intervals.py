"""What is printed as the 95 % interval of an energy holds the truth, for power that lingers too."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pytest
from scipy.special import stdtrit

from tuner.meter.uncertainty import (
    CORRELATIONS,
    LOOK_S,
    MIN_BATCHES,
    NOISE,
    SHORT_S,
    half_width_j,
    mean_half_width,
)

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


def half_j(watts: np.ndarray, look_s: float = 1.0) -> float:
    drawn = np.concatenate([[0.0], np.cumsum(watts + 50) * look_s])
    half = half_width_j(look_s * np.arange(len(watts) + 1), drawn)
    assert half is not None
    return half


def share_held(windows: Iterable[np.ndarray], look_s: float = 1.0) -> float:
    """Of how many windows of watts around 0 the interval holds the truth."""
    return float(np.mean([
        abs(watts.sum() * look_s) <= half_j(watts, look_s) for watts in windows
    ]))


def quarters(
    rng: np.random.Generator, correlation: float, noise: float, seconds: float
) -> np.ndarray:
    """Watts in each quarter of a second: what lingers from second to second, and noise beside it.

    Args:
        correlation: of a second with the one before.
        noise: its standard deviation in a second, where that of what lingers is 1.
    """
    count = round(seconds / LOOK_S)
    lingering = autoregression(rng, correlation**LOOK_S if correlation else 0.0, count)
    return lingering + noise * LOOK_S**-0.5 * rng.normal(size=count)


@pytest.mark.parametrize("noise", [0.0, 1.0])
@pytest.mark.parametrize("correlation", [0.0, 0.6, 0.9])
@pytest.mark.parametrize("seconds", [4, 7, SHORT_S])
def test_it_holds_the_truth_in_short_windows_that_are_looked_at_four_times_a_second(
    correlation, noise, seconds
):
    rng = np.random.default_rng(21)
    windows = (quarters(rng, correlation, noise, seconds) for _ in range(WINDOWS))
    assert share_held(windows, LOOK_S) >= LEAST - ERROR


@pytest.mark.parametrize("noise", [0.0, 1.0])
@pytest.mark.parametrize("wanted", [1.0, 3.0])
def test_it_holds_the_truth_in_short_windows_stopped_because_they_looked_narrow(noise, wanted):
    rng = np.random.default_rng(22)
    held = 0
    for _ in range(WINDOWS):
        watts = quarters(rng, 0.9, noise, 14)
        for seconds in (4, 5, 7, 10, 14):
            seen = watts[: round(seconds / LOOK_S)]
            half = half_j(seen, LOOK_S)
            if half <= wanted * seconds:
                break
        held += abs(seen.sum() * LOOK_S) <= half
    assert held / WINDOWS >= LEAST - ERROR


def test_it_holds_the_truth_of_a_drift_seen_four_times_a_second():
    rng = np.random.default_rng(23)
    held, seen, whole = 0, round(10 / LOOK_S), round(15 / LOOK_S)
    for _ in range(WINDOWS):
        ramp = 0.5 * LOOK_S * (np.arange(whole) - (whole - 1) / 2)
        first = rng.integers(0, whole - seen)
        watts = (ramp + LOOK_S**-0.5 * rng.normal(size=whole))[first : first + seen]
        held += abs(watts.sum() * LOOK_S) <= half_j(watts, LOOK_S)
    assert held / WINDOWS >= LEAST - ERROR


def test_four_looks_a_second_make_the_interval_of_seven_seconds_less_than_half_as_wide():
    rng = np.random.default_rng(24)
    ratios = []
    for _ in range(WINDOWS):
        watts = quarters(rng, 0.0, 1.0, 7)
        ratios.append(half_j(watts, LOOK_S) / half_j(watts.reshape(7, 4).mean(axis=1)))
    assert np.median(ratios) <= 0.5


@pytest.mark.parametrize("correlation", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("seconds", [4, 10, 30])
def test_it_holds_the_truth_in_windows_of_fixed_length(correlation, seconds):
    rng = np.random.default_rng(17)
    windows = (autoregression(rng, correlation, seconds) for _ in range(WINDOWS))
    assert share_held(windows) >= LEAST - ERROR


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


@pytest.mark.parametrize("part_s", [1.0, 0.25])
def test_it_is_the_exact_width_of_the_mixture_of_students(part_s):
    """The same by adding up the densities on a fine grid, for the parts of one window."""
    watts = np.array([10.0, 12.0, 9.0, 14.0, 11.0])
    means = np.linspace(-400, 400, 400_001)
    density = np.zeros_like(means)
    models = [(rho**part_s, n) for rho in CORRELATIONS for n in (NOISE if part_s < 0.9 else (0.0,))]
    for rho, noise in models:
        lag = np.abs(np.subtract.outer(range(5), range(5)))
        inverse = np.linalg.inv((1 - noise) * rho**lag + noise * np.eye(5))
        apart = (watts - watts.mean())[:, None] - means
        squares = np.einsum("im,ij,jm->m", apart, inverse, apart)
        # The scale integrated out: |R|^(-1/2) (squares)^(-n/2).
        density += np.linalg.det(inverse) ** 0.5 * squares ** (-5 / 2)
    half = mean_half_width(list(watts), part_s)
    assert density[np.abs(means) <= half].sum() / density.sum() == pytest.approx(0.95, abs=1e-3)


def test_too_few_parts_have_no_interval():
    assert MIN_BATCHES == 4
    assert half_width_j([0, 1, 2, 3], [0, 10, 22, 36]) is None
    assert half_width_j([0, 1, 2, 3, 4], [0, 10, 22, 36, 40]) is not None
    for seconds, known in ((3.5, False), (3.75, True)):
        times = LOOK_S * np.arange(round(seconds / LOOK_S) + 1)
        assert (half_width_j(times, times**1.5) is not None) == known
