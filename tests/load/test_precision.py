"""Ranks, cycles and intervals on samples small enough to work out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from tuner.load import precision
from tuner.load.drift import drift
from tuner.load.precision import cycles, percentile, percentile_interval, rank


def test_a_percentile_has_the_ceilings_rank_for_every_sample_size() -> None:
    for percent in (50, 95, 99):
        for count in range(1, 3_001):
            assert rank(count, percent / 100) == -(-count * percent // 100), (count, percent)


def test_one_stall_in_sixty_requests_is_their_p99() -> None:
    latencies = np.full(60, 1.05)
    latencies[17] = 2_000.0
    assert percentile(latencies, 0.99) == 2_000.0
    assert percentile(latencies, 0.95) == 1.05
    assert percentile_interval(latencies, 0.99).value == 2_000.0


def test_the_largest_value_never_stands_for_an_unknown_bound() -> None:
    found = percentile_interval(np.arange(1.0, 61.0), 0.99)
    assert found.value == 60.0
    assert math.isinf(found.high)
    assert math.isinf(found.relative_half_width)


def test_a_cycle_begins_where_two_in_a_row_are_at_the_median_or_below() -> None:
    #                            median 2: low low high high low high low low
    assert cycles(np.array([1.0, 2, 9, 8, 2, 7, 2, 1])).tolist() == [0, 1, 1, 1, 1, 1, 1, 2]
    assert cycles(np.array([5.0, 5, 5])).tolist() == [0, 1, 1]
    assert cycles(np.array([7.0])).tolist() == [0]


def test_two_queues_that_take_turns_are_not_taken_for_an_empty_one() -> None:
    """Every second request is fast: no queue has run empty because of that."""
    latencies = np.tile([1.0, 50.0], 50)
    latencies[1::2] += np.arange(50)
    assert len(set(cycles(latencies).tolist())) == 1


def test_requests_without_an_answer_are_slower_than_all_others() -> None:
    rng = np.random.default_rng(3)
    latencies = rng.exponential(10.0, 2_000)
    slowest = np.argsort(latencies)[-18:]  # 0.9 %
    dropped = latencies.copy()
    dropped[slowest] = np.inf
    whole, found = percentile_interval(latencies, 0.99), percentile_interval(dropped, 0.99)
    assert found.value == whole.value
    assert found.low == whole.low
    assert math.isinf(found.high) or found.high == whole.high
    dropped[np.argsort(latencies)[-25:]] = np.inf
    assert math.isinf(percentile_interval(dropped, 0.99).value)
    assert math.isfinite(percentile_interval(dropped, 0.99).low)


def test_the_gamma_bound_of_equal_weights_is_the_exact_poisson_one() -> None:
    """Garwood 1936: of 10 events, [4.795, 18.390] with one weight more for the upper end."""
    ones = np.ones(10)
    assert precision._gamma_bound(ones, 0.025) == pytest.approx(stats.chi2.ppf(0.025, 20) / 2)
    assert precision._gamma_bound(np.ones(11), 0.975) == pytest.approx(18.390, abs=1e-3)
    assert precision._gamma_bound(3 * ones, 0.025) == pytest.approx(3 * 4.795, abs=3e-3)


def test_a_missing_cluster_is_as_large_as_those_that_a_request_finds_itself_in() -> None:
    # Sizes 1, 1, 2, 4: a request is in a cluster of (1 + 1 + 4 + 16) / 8 = 2.75 in the mean.
    expected = 2.75 * (1 + 2.5 / 2)
    assert precision._guard_weight(np.array([1.0, 1, 2, 4])) == pytest.approx(expected)
    assert precision._guard_weight(np.array([])) == 1.0


def test_weights_count_the_requests_of_each_cycle_above_a_threshold() -> None:
    latencies = np.array([1.0, 9, 8, 1, 1, 7, 1, 2])
    assert precision._weights(latencies, cycles(latencies), 6.0).tolist() == [2.0, 1.0]


def test_the_lower_end_of_independent_latencies_is_the_order_statistics_own() -> None:
    """Without clusters the bound is Poisson's: 20,000 requests, 200 expected beyond the p99."""
    latencies = np.random.default_rng(4).permutation(np.arange(1.0, 20_001.0))
    found = percentile_interval(latencies, 0.99)
    # As many exceedances as have 200 for their lower bound; some share a cycle.
    exact = next(k for k in range(200, 300) if stats.chi2.ppf(0.025, 2 * k) / 2 > 200)
    assert found.low == pytest.approx(20_000 - exact, abs=15)
    upper = next(k for k in range(200, 100, -1) if stats.chi2.ppf(0.975, 2 * (k + 1)) / 2 < 200)
    assert found.high == pytest.approx(20_000 - upper, abs=15)


def test_the_median_of_few_heavy_cycles_is_unknown() -> None:
    slow_then_fast = np.concatenate([np.linspace(50, 40, 300), np.linspace(5, 1, 300)])
    found = percentile_interval(slow_then_fast, 0.5)
    assert found.low == -math.inf and found.high == math.inf


def test_half_width_is_relative_to_the_percentile() -> None:
    assert precision.Interval(8.0, 10.0, 13.0).relative_half_width == pytest.approx(0.25)
    assert math.isinf(precision.Interval(8.0, 10.0, math.inf).relative_half_width)
    assert math.isinf(precision.Interval(-math.inf, 10.0, 12.0).relative_half_width)


def test_a_drift_inside_the_window_is_told_with_both_medians() -> None:
    rng = np.random.default_rng(5)
    latencies = rng.lognormal(0.0, 0.3, 4_000) * np.linspace(10, 15, 4_000)
    told = drift(latencies)
    assert told is not None and "first half" in told
    first, second = np.median(latencies[:2000]), np.median(latencies[2000:])
    assert f"{first:.3g} ms" in told and f"{second:.3g} ms" in told


def test_steady_latencies_do_not_drift_queue_or_not() -> None:
    from tests.intervals.queues import windows

    for law in ("independent", "M/G/1 0.5", "M/G/1 0.7", "M/G/1 0.9", "AR(1) 0.9"):
        told = [drift(w) for w in windows(law, 1_000, 100, seed=9)]
        assert sum(t is not None for t in told) <= 2, law


def test_a_change_too_small_to_matter_is_no_drift() -> None:
    rng = np.random.default_rng(6)
    assert drift(rng.lognormal(0.0, 0.05, 20_000) * np.linspace(10, 10.5, 20_000)) is None
