"""Rates over time and the arrivals drawn from them, against what integration by hand gives."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tuner.errors import UsageError
from tuner.load import arrivals
from tuner.load.arrivals import COOL_DOWN_S, Rate

# 10/s for 2 s, falling to 0 until 4 s, none until 5 s, then a step to 6/s until 8 s.
SHAPE = Rate((0.0, 2.0, 4.0, 5.0, 5.0, 8.0), (10.0, 10.0, 0.0, 0.0, 6.0, 6.0))


def test_expected_arrivals_are_the_area_under_the_rate() -> None:
    times = np.array([0.0, 1.0, 2.0, 3.0, 4.0, 4.5, 5.0, 6.0, 8.0])
    # Between 2 and 4 s: 10 t - 5 t^2 / 2 after 2 s.
    areas = [0, 10, 20, 20 + 7.5, 30, 30, 30, 36, 48]
    assert SHAPE.cumulative(times) == pytest.approx(areas)


def test_short_pieces_of_a_rate_keep_their_slope() -> None:
    rate = Rate((0.0, 0.5, 1.0), (0.0, 8.0, 0.0))
    assert rate.cumulative(np.array([0.25, 0.5, 0.75, 1.0])) == pytest.approx([0.5, 2.0, 3.5, 4.0])


def test_a_rate_is_only_known_between_its_first_and_last_corner() -> None:
    late = Rate((1.0, 2.0, 4.0), (4.0, 4.0, 0.0))
    assert late.cumulative(np.array([1.0, 2.0, 3.0, 4.0])) == pytest.approx([0, 4, 7, 8])


def test_the_inverse_tells_when_so_many_arrivals_are_expected() -> None:
    counts = np.array([0.0, 5.0, 20.0, 27.5, 36.0, 48.0])
    assert SHAPE.inverse(counts) == pytest.approx([0.0, 0.5, 2.0, 3.0, 6.0, 8.0], abs=1e-4)


def test_the_inverse_is_exact_to_the_tenth_of_a_millisecond_in_a_short_rate() -> None:
    rate = Rate((0.0, 0.0025), (0.0, 4000.0))  # 800,000 t^2 arrivals
    counts = np.array([0.3, 1.0, 2.5, 4.0])
    assert rate.inverse(counts) == pytest.approx(np.sqrt(counts / 800_000), abs=2e-5)


def test_a_burst_carries_the_mean_rate_whatever_its_off_share(make_plan: Any) -> None:
    plan = make_plan(
        pattern="burst", rate_rps=70.0, burst_on_s=1.0, burst_off_s=3.0, burst_off_share=0.25
    )
    rate = arrivals.burst_rate(plan, 10.0)
    # On carries r for 1 s, off r/4 for 3 s: 7/16 r in the mean, so r = 160 and off 40.
    assert rate.cumulative(np.array([1.0, 4.0, 5.0, 8.0])) == pytest.approx([160, 280, 440, 560])
    assert rate.times_s[:5] == (0.0, 1.0, 1.0, 4.0, 4.0)
    assert rate.times_s[-1] >= 10.0


def test_bursts_go_on_to_the_end_of_a_duration_of_whole_cycles(make_plan: Any) -> None:
    plan = make_plan(pattern="burst", rate_rps=100.0, burst_on_s=0.5, burst_off_s=0.5)
    whole = arrivals.burst_rate(plan, 3.0)
    assert whole.times_s[-1] >= 3.0
    assert float(whole.cumulative(np.array([3.0]))[0]) == pytest.approx(300.0)


@pytest.mark.parametrize("pattern", ["ramp", "staircase"])
def test_a_schedule_without_bounds_goes_from_a_fifth_to_nine_fifths(
    make_plan: Any, pattern: str
) -> None:
    assert arrivals.ramp_bounds(make_plan(pattern=pattern, rate_rps=50.0)) == (10.0, 90.0)
    plan = make_plan(pattern=pattern, rate_rps=50.0, ramp_from_rps=0.0, ramp_to_rps=3.0)
    assert arrivals.ramp_bounds(plan) == (0.0, 3.0)


def test_a_ramp_is_linear_then_level_through_the_cool_down(make_plan: Any) -> None:
    plan = make_plan(pattern="ramp", ramp_from_rps=10.0, ramp_to_rps=30.0)
    rate = arrivals.ramp_rate(plan, 8.0)
    assert (rate.times_s, rate.rps) == ((0.0, 8.0, 9.0), (10.0, 30.0, 30.0))


def test_a_staircase_has_equal_steps_and_holds_the_last_through_the_cool_down(
    make_plan: Any,
) -> None:
    plan = make_plan(pattern="staircase", ramp_from_rps=10.0, ramp_to_rps=30.0, ramp_steps=3)
    rate = arrivals.staircase_rate(plan, 6.0)
    assert rate.times_s == (0.0, 2.0, 2.0, 4.0, 4.0, 7.0)
    assert rate.rps == (10.0, 10.0, 20.0, 20.0, 30.0, 30.0)


class Slow:
    """Draws gaps that are all ``factor`` times the mean, and keeps how many were asked for."""

    def __init__(self, factor: float) -> None:
        self.factor, self.drawn = factor, 0

    def exponential(self, scale: float, count: int) -> np.ndarray:
        self.drawn = count
        return np.full(count, scale * self.factor)


@pytest.mark.parametrize(("rate", "length"), [(1.0, 4.0), (50.0, 10.0), (2000.0, 60.0)])
def test_enough_gaps_are_drawn_for_a_count_five_deviations_above_the_mean(
    rate: float, length: float
) -> None:
    most = rate * length + 5 * np.sqrt(rate * length)
    generator = Slow(rate * length / most)
    times = arrivals.poisson(generator, rate, length)  # type: ignore[arg-type]
    assert len(times) >= int(most)
    assert generator.drawn < 2 * most + 40


def test_arrivals_end_before_the_duration_does() -> None:
    assert arrivals.poisson(Slow(1.0), 1.0, 3.0).tolist() == [1.0, 2.0]  # type: ignore[arg-type]


def mean_rate(make_plan: Any, length_s: float = 400.0, **fields: Any) -> float:
    times = arrivals.warmup_arrivals(make_plan(**fields), np.random.default_rng(5), length_s)
    assert len(times) == 0 or (times[0] >= 0 and times[-1] < length_s)
    return len(times) / length_s


def test_a_constant_load_is_warmed_up_at_its_own_gaps(make_plan: Any) -> None:
    plan = make_plan(pattern="constant", rate_rps=4.0)
    times = arrivals.warmup_arrivals(plan, np.random.default_rng(0), 2.0)
    assert times.tolist() == [0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 1.75]


@pytest.mark.parametrize("pattern", ["poisson", "burst"])
def test_a_load_of_one_rate_is_warmed_up_at_it(make_plan: Any, pattern: str) -> None:
    rate = mean_rate(make_plan, 100.0, pattern=pattern, rate_rps=20.0)
    assert rate == pytest.approx(20.0, rel=0.1)  # the deviation of 2,000 arrivals is 2.2 %


def test_a_burst_is_warmed_up_by_bursts(make_plan: Any) -> None:
    plan = make_plan(pattern="burst", rate_rps=20.0, burst_on_s=1.0, burst_off_s=1.0,
                     burst_off_share=0.0)
    times = arrivals.warmup_arrivals(plan, np.random.default_rng(0), 40.0)
    assert (times % 2.0).max() <= 1.001


@pytest.mark.parametrize("pattern", ["ramp", "staircase"])
def test_a_schedule_is_warmed_up_at_its_first_rate_but_once_a_second_at_least(
    make_plan: Any, pattern: str
) -> None:
    at_12 = mean_rate(make_plan, pattern=pattern, ramp_from_rps=12.0, ramp_to_rps=90.0)
    assert at_12 == pytest.approx(12.0, rel=0.06)
    at_0 = mean_rate(make_plan, 4000.0, pattern=pattern, ramp_from_rps=0.0, ramp_to_rps=90.0)
    assert at_0 == pytest.approx(1.0, rel=0.06)


@pytest.mark.parametrize("pattern", ["ramp", "staircase"])
def test_a_schedule_draws_poisson_gaps_in_its_warm_up(make_plan: Any, pattern: str) -> None:
    plan = make_plan(pattern=pattern, ramp_from_rps=12.0, ramp_to_rps=90.0)
    gaps = np.diff(arrivals.warmup_arrivals(plan, np.random.default_rng(0), 200.0))
    assert gaps.std() / gaps.mean() == pytest.approx(1.0, abs=0.1)


def test_arrivals_go_on_for_a_second_after_the_window(make_plan: Any) -> None:
    assert COOL_DOWN_S == 1.0
    plan = make_plan(pattern="constant", rate_rps=4.0, max_duration_s=2.0)
    times = arrivals.window_arrivals(plan, np.random.default_rng(0))
    assert times.tolist() == [k / 4 for k in range(12)]


@pytest.mark.parametrize("pattern", ["poisson", "burst", "ramp", "staircase", "constant"])
def test_the_longest_window_is_the_asked_one(make_plan: Any, pattern: str) -> None:
    assert arrivals.window_length_s(make_plan(pattern=pattern, max_duration_s=7.0)) == 7.0


@pytest.mark.parametrize("rate", [None, 0.0, -1.0, -0.5, float("nan")])
def test_no_rate_and_none_above_zero_are_refused(make_plan: Any, rate: float | None) -> None:
    plan = make_plan(pattern="poisson", rate_rps=rate)
    with pytest.raises(UsageError, match="needs a rate above 0"):
        arrivals.window_arrivals(plan, np.random.default_rng(0))


def test_less_than_one_request_a_second_is_a_rate(make_plan: Any) -> None:
    plan = make_plan(pattern="constant", rate_rps=0.5, max_duration_s=5.0)
    assert arrivals.window_arrivals(plan, np.random.default_rng(0)).tolist() == [0.0, 2.0, 4.0]
