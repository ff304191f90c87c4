"""Arrival statistics of every pattern."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import stats

from tests.load.conftest import LENGTH_S
from tuner.errors import UsageError
from tuner.load import arrivals


def window(plan: Any, seed: int = 3) -> np.ndarray:
    times = arrivals.window_arrivals(plan, np.random.default_rng(seed))
    assert np.all(np.diff(times) >= 0)
    return times[times < plan.max_duration_s]


@pytest.mark.parametrize("seed", range(5))
def test_poisson_gaps_are_exponential(long_plan: Any, seed: int) -> None:
    gaps = np.diff(window(long_plan(pattern="poisson", rate_rps=50), seed))
    assert stats.kstest(gaps, "expon", args=(0, 1 / 50)).pvalue > 0.001
    assert abs(np.corrcoef(gaps[1:], gaps[:-1])[0, 1]) < 0.06


def test_poisson_counts_have_variance_equal_to_mean(long_plan: Any) -> None:
    times = window(long_plan(pattern="poisson", rate_rps=200))
    counts = np.histogram(times, bins=int(LENGTH_S * 5), range=(0, LENGTH_S))[0]
    assert 0.8 < counts.var() / counts.mean() < 1.2


def test_constant_gaps_are_all_equal(long_plan: Any) -> None:
    times = window(long_plan(pattern="constant", rate_rps=40))
    assert len(times) == 40 * LENGTH_S
    assert np.allclose(np.diff(times), 1 / 40)


@pytest.mark.parametrize("pattern", ["poisson", "constant", "burst", "ramp", "staircase"])
def test_every_pattern_keeps_the_mean_rate(long_plan: Any, pattern: str) -> None:
    times = window(long_plan(pattern=pattern, rate_rps=80))
    expected = 80 * LENGTH_S
    assert abs(len(times) - expected) < 4 * np.sqrt(expected)


def test_bursts_are_silent_between_and_poisson_within(long_plan: Any) -> None:
    plan = long_plan(pattern="burst", rate_rps=60, burst_on_s=0.4, burst_off_s=1.2)
    times = window(plan)
    into = times % 1.6
    assert into.max() <= 0.4 + 1e-3
    assert stats.kstest(into, "uniform", args=(0, 0.4)).pvalue > 0.001
    assert len(times) / (LENGTH_S * 0.25) == pytest.approx(240, rel=0.1)


def test_the_off_share_sets_the_rate_between_bursts(long_plan: Any) -> None:
    plan = long_plan(
        pattern="burst", rate_rps=100, burst_on_s=1.0, burst_off_s=1.0, burst_off_share=0.25
    )
    into = window(plan) % 2.0
    assert np.mean(into >= 1.0) == pytest.approx(0.2, abs=0.03)


@pytest.mark.parametrize(
    ("pattern", "law"), [("ramp", "ramp_rate"), ("staircase", "staircase_rate")]
)
def test_schedules_are_poisson_on_the_clock_of_their_rate(
    long_plan: Any, pattern: str, law: str
) -> None:
    plan = long_plan(pattern=pattern, rate_rps=60)
    rate = getattr(arrivals, law)(plan, LENGTH_S)
    rescaled = np.diff(rate.cumulative(window(plan)))
    assert stats.kstest(rescaled, "expon").pvalue > 0.001


def test_a_ramp_goes_from_its_first_rate_to_its_last(long_plan: Any) -> None:
    times = window(long_plan(pattern="ramp", ramp_from_rps=20, ramp_to_rps=200))
    first, last = np.sum(times < 6), np.sum(times >= LENGTH_S - 6)
    assert first == pytest.approx((20 + 38) / 2 * 6, rel=0.2)
    assert last == pytest.approx((182 + 200) / 2 * 6, rel=0.1)


def test_a_staircase_is_level_on_each_step(long_plan: Any) -> None:
    plan = long_plan(pattern="staircase", ramp_from_rps=50, ramp_to_rps=150, ramp_steps=3)
    counts = np.histogram(window(plan), bins=3, range=(0, LENGTH_S))[0]
    assert counts / 20 == pytest.approx([50, 100, 150], rel=0.12)


@pytest.mark.parametrize("pattern", ["poisson", "burst", "ramp", "staircase"])
def test_the_same_seed_gives_the_same_arrivals_and_another_seed_others(
    long_plan: Any, pattern: str
) -> None:
    plan = long_plan(pattern=pattern)
    assert np.array_equal(window(plan, 1), window(plan, 1))
    assert not np.array_equal(window(plan, 1)[:50], window(plan, 2)[:50])


def test_a_rate_is_asked_for_where_it_is_missing(long_plan: Any) -> None:
    with pytest.raises(UsageError, match="--rate"):
        window(long_plan(rate_rps=None))


# -- exact values ----------------------------------------------------------------------------------


def test_a_rates_integral_is_exact_at_and_between_its_corners() -> None:
    rate = arrivals.Rate((0.0, 2.0, 2.0, 6.0), (1.0, 3.0, 10.0, 2.0))
    at = np.array([0.0, 1.0, 2.0, 3.0, 6.0])
    # 1 + t up to 2, then 10 - 2 t.
    assert rate.cumulative(at).tolist() == [0.0, 1.5, 4.0, 13.0, 28.0]


def test_a_rates_inverse_is_its_integrals() -> None:
    rate = arrivals.Rate((0.0, 2.0), (1.0, 3.0))
    at = np.array([0.0, 0.12345, 1.0, 1.99999, 2.0])
    assert rate.inverse(at + at**2 / 2) == pytest.approx(at, abs=3e-9)


def test_a_burst_has_all_of_its_rate_while_it_is_on(long_plan: Any) -> None:
    plan = long_plan(pattern="burst", rate_rps=60, burst_on_s=0.5, burst_off_s=1.5)
    rate = arrivals.burst_rate(plan, 3.0)
    assert rate.times_s == (0.0, 0.5, 0.5, 2.0, 2.0, 2.5, 2.5, 4.0, 4.0, 4.5, 4.5, 6.0)
    assert rate.rps == (240.0, 240.0, 0.0, 0.0) * 3
    shared = arrivals.burst_rate(long_plan(
        pattern="burst", rate_rps=100, burst_on_s=1.0, burst_off_s=1.0, burst_off_share=0.25
    ), 1.0)
    assert shared.rps == (160.0, 160.0, 40.0, 40.0) * 2


def test_schedules_go_from_a_fifth_to_nine_fifths_of_the_rate_unless_told(long_plan: Any) -> None:
    assert arrivals.ramp_bounds(long_plan(rate_rps=50)) == (10.0, 90.0)
    told = long_plan(rate_rps=None, ramp_from_rps=0.5, ramp_to_rps=7)
    assert arrivals.ramp_bounds(told) == (0.5, 7)


def test_a_ramp_is_level_for_a_second_after_its_end(long_plan: Any) -> None:
    rate = arrivals.ramp_rate(long_plan(rate_rps=50), 8.0)
    assert (rate.times_s, rate.rps) == ((0.0, 8.0, 9.0), (10.0, 90.0, 90.0))


def test_a_staircase_has_equal_steps_and_a_second_more_of_the_last(long_plan: Any) -> None:
    rate = arrivals.staircase_rate(long_plan(rate_rps=50, ramp_steps=3), 6.0)
    assert rate.times_s == (0.0, 2.0, 2.0, 4.0, 4.0, 7.0)
    assert rate.rps == (10.0, 10.0, 50.0, 50.0, 90.0, 90.0)
    assert arrivals.staircase_rate(long_plan(rate_rps=50), 5.0).rps[::2] == pytest.approx(
        (10, 30, 50, 70, 90)
    )


def gaps_of(seed: int, rate: float, until_s: float, count: int = 5000) -> np.ndarray:
    times = np.cumsum(np.random.default_rng(seed).exponential(1 / rate, count))
    return times[times < until_s]


@pytest.mark.parametrize("seed", range(3))
def test_poisson_arrivals_are_the_seeds_gaps_up_to_the_end(seed: int) -> None:
    times = arrivals.poisson(np.random.default_rng(seed), 50.0, 20.0)
    assert times.tolist() == gaps_of(seed, 50.0, 20.0).tolist()


def test_enough_poisson_arrivals_are_drawn_to_reach_the_end() -> None:
    for seed in range(700):
        for expected in (0.01, 1.0, 20.0):
            times = arrivals.poisson(np.random.default_rng(seed), 1.0, expected)
            assert len(times) == len(gaps_of(seed, 1.0, expected, 200))


@pytest.mark.parametrize("pattern", ["poisson", "constant"])
def test_arrivals_go_on_for_a_second_after_the_window(long_plan: Any, pattern: str) -> None:
    plan = long_plan(pattern=pattern, rate_rps=40.0, max_duration_s=3.0)
    times = arrivals.window_arrivals(plan, np.random.default_rng(5))
    wanted = gaps_of(5, 40.0, 4.0) if pattern == "poisson" else np.arange(160) / 40.0
    assert times == pytest.approx(wanted)
    assert arrivals.COOL_DOWN_S == 1.0 and arrivals.window_length_s(plan) == 3.0


@pytest.mark.parametrize("pattern", ["burst", "ramp", "staircase"])
def test_varying_arrivals_are_unit_gaps_on_the_clock_of_the_rate(
    long_plan: Any, pattern: str
) -> None:
    plan = long_plan(pattern=pattern, rate_rps=40.0, max_duration_s=4.0)
    length = 5.0 if pattern == "burst" else 4.0
    rate = getattr(arrivals, f"{pattern}_rate")(plan, length)
    times = arrivals.window_arrivals(plan, np.random.default_rng(5))
    total = float(rate.cumulative(np.array([5.0]))[0])
    assert rate.cumulative(times) == pytest.approx(gaps_of(5, 1.0, total), abs=0.02)


@pytest.mark.parametrize(
    ("fields", "rate"),
    [
        ({"pattern": "poisson", "rate_rps": 30.0}, 30.0),
        ({"pattern": "ramp", "rate_rps": 100.0}, 20.0),
        ({"pattern": "staircase", "ramp_from_rps": 7.0, "ramp_to_rps": 70.0}, 7.0),
        ({"pattern": "ramp", "ramp_from_rps": 0.0, "ramp_to_rps": 70.0}, 1.0),
    ],
)
def test_the_warm_up_has_the_rate_that_the_window_begins_with(
    long_plan: Any, fields: dict[str, Any], rate: float
) -> None:
    times = arrivals.warmup_arrivals(long_plan(**fields), np.random.default_rng(6), 8.0)
    assert times.tolist() == gaps_of(6, rate, 8.0).tolist()


def test_a_constant_load_is_warmed_up_by_itself_and_a_burst_by_bursts(long_plan: Any) -> None:
    rng = np.random.default_rng(6)
    constant = arrivals.warmup_arrivals(long_plan(pattern="constant", rate_rps=8.0), rng, 1.5)
    assert constant.tolist() == [i / 8 for i in range(12)]
    plan = long_plan(pattern="burst", rate_rps=400.0)
    times = arrivals.warmup_arrivals(plan, np.random.default_rng(6), 3.0)
    assert (times % 1.0).max() <= 0.5 + 1e-3 and times[-1] > 2.0
    assert len(times) == pytest.approx(1200, abs=4 * 1200**0.5)


@pytest.mark.parametrize("rate", [None, 0.0, -1.0])
def test_a_rate_is_above_nothing(long_plan: Any, rate: float | None) -> None:
    with pytest.raises(UsageError, match="needs a rate above 0"):
        arrivals.warmup_arrivals(long_plan(rate_rps=rate), np.random.default_rng(0), 1.0)
