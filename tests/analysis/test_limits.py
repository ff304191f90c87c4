"""Every limit has a probability to hold, from the interval, the counts, and the failed repeats."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from tuner.analysis.limits import (
    Limit,
    error_rate_interval,
    error_rate_probabilities,
    hold_probability,
    joint_probabilities,
    measured_share,
    throughput_probabilities,
    with_limits,
)

P99 = "latency_p99_ms"


def test_the_value_on_its_bound_holds_with_one_half_and_the_ends_with_975_and_25_permille() -> None:
    assert hold_probability(20.0, 10.0, 80.0, 20.0, "<=") == pytest.approx(0.5)
    assert hold_probability(20.0, 10.0, 80.0, 80.0, "<=") == pytest.approx(0.975)
    assert hold_probability(20.0, 10.0, 80.0, 10.0, "<=") == pytest.approx(0.025)
    # On the logarithm: half-way between 20 and 80 is 40, 0.98 standard deviations.
    assert hold_probability(20.0, 10.0, 80.0, 40.0, "<=") == pytest.approx(0.83646, abs=1e-4)
    assert hold_probability(20.0, 10.0, 80.0, 40.0, ">=") == pytest.approx(1 - 0.83646, abs=1e-4)


def test_values_at_or_below_zero_are_not_put_on_the_logarithm() -> None:
    assert hold_probability(0.0, -1.96, 1.96, 1.0, "<=") == pytest.approx(0.8413, abs=1e-3)


def test_a_limit_far_within_a_wide_interval_is_not_sure() -> None:
    found = hold_probability(14.3, 0.674, 303.0, 20.0, "<=")
    assert found == pytest.approx(0.5854, abs=1e-3)


@pytest.mark.parametrize("unknown", [None, np.nan, np.inf])
def test_an_unknown_upper_end_has_a_heavy_tail_above_and_the_known_side_below(
    unknown: float | None
) -> None:
    scale = np.log(10 / 5) / 1.959964  # of the lower side
    for far, expected in ((0.0, 0.5), (1.0, 0.75), (3.0, 0.8976), (6.0, 0.9474)):
        found = hold_probability(10.0, 5.0, unknown, 10 * np.exp(far * scale), "<=")
        assert found == pytest.approx(expected, abs=1e-3)
    assert hold_probability(10.0, 5.0, unknown, 5.0, "<=") == pytest.approx(0.025)
    assert hold_probability(10.0, 5.0, unknown, 5.0, ">=") == pytest.approx(0.975)


def test_without_an_interval_nothing_is_known_of_a_limit() -> None:
    assert np.isnan(hold_probability(10.0, None, None, 20.0, "<="))
    assert np.isnan(hold_probability(10.0, None, None, 9.0, "<="))
    assert np.isnan(hold_probability(None, None, None, 10.0, "<="))
    # No side from which a scale could be taken for what lies above.
    assert np.isnan(hold_probability(10.0, 10.0, None, 20.0, "<="))


def test_a_sign_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="<= or >="):
        hold_probability(1.0, 0.5, 2.0, 1.0, "<")


def test_an_error_rate_is_judged_by_its_counts() -> None:
    found = error_rate_probabilities([0, 0, 0, 2], [60, 200, 1000, 100], 0.01, "<=")
    assert found == pytest.approx([0.72888, 0.95517, 0.999993, 0.15015], abs=1e-4)
    assert error_rate_probabilities([0], [60], 0.01, ">=") == pytest.approx([1 - 0.72888], abs=1e-4)
    low, high = error_rate_interval([0, 1, 5], [100, 100, 5])
    assert np.isnan(error_rate_probabilities([0], [60], 0.0, "<="))
    assert error_rate_probabilities([1], [60], 0.0, "<=").tolist() == [0]
    assert np.isnan(error_rate_probabilities([60], [60], 1.0, ">="))
    assert low == pytest.approx([0, 0.0011, 0.6206], abs=2e-3)
    assert high == pytest.approx([0.0248, 0.0454, 1], abs=2e-3)


def test_failed_repeats_lower_every_limit_and_none_costs_nothing() -> None:
    assert measured_share([1, 1, 2, 0], [0, 2, 1, 1]).tolist() == [1, 0.375, 0.625, 0.25]


def table(**more: object) -> pd.DataFrame:
    return pd.DataFrame({
        P99: [14.3, 14.3, 10.0], "latency_p99_low_ms": [0.674, 0.674, 9.0],
        "latency_p99_high_ms": [303.0, 303.0, np.inf], "repeats": [1, 3, 1], "failures": [2, 0, 0],
        "error_rate": [0.0, 0.0, 0.01], "requests": [100, 300, 100], **more,
    })


def test_a_table_gets_each_limit_and_all_at_once() -> None:
    limits = [Limit(P99, "<=", 20.0), Limit("error_rate", "<=", 0.01)]
    found = with_limits(table(), limits)
    alone = hold_probability(14.3, 0.674, 303.0, 20.0, "<=")
    few, many, some = error_rate_probabilities([0, 0, 1], [100, 300, 100], 0.01, "<=")
    assert found["limit_probability"][0] == pytest.approx((0.375 * alone, 0.375 * few))
    assert found["limit_probability"][1] == pytest.approx((alone, many))
    far = hold_probability(10.0, 9.0, None, 20.0, "<=")
    assert found["limits_probability"].tolist() == pytest.approx(
        [0.375 * (alone + few - 1), alone + many - 1, max(far + some - 1, 0)])
    assert found["limit_unknown"].tolist() == [(), (), ("latency_p99_ms <= 20",)]
    assert found["error_low_rate"][0] == 0 and found["error_high_rate"][0] > 0.02


def test_what_lies_below_the_value_is_known_whatever_the_upper_end_is() -> None:
    found = with_limits(table(), [Limit(P99, ">=", 9.5)])
    assert found["limit_unknown"].tolist() == [(), (), ()]


def test_later_measurements_count_as_repeats_that_went_well() -> None:
    found = with_limits(table(again=[1, 0, 0]), [Limit(P99, "<=", 20.0)])
    assert found["measured_share"].tolist() == [0.5, 1, 1]


def test_a_limit_is_read_as_a_space_writes_it() -> None:
    assert Limit.parse("latency_p99_ms <= 20") == Limit(P99, "<=", 20.0)
    assert str(Limit.parse("throughput_rps>=1.5")) == "throughput_rps >= 1.5"
    with pytest.raises(ValueError, match="no limit"):
        Limit.parse("latency_p99_ms = 20")
    assert Limit(P99, "<=", 20.0).keeps([20, 21, np.nan]).tolist() == [True, False, False]
    assert Limit(P99, ">=", 20.0).keeps([20, 19, np.nan]).tolist() == [True, False, False]


def test_of_a_metric_without_an_interval_no_limit_has_a_probability() -> None:
    limits = [Limit("power_average_w", "<=", 50.0), Limit("error_rate", "<=", 0.01)]
    found = with_limits(table(power_average_w=[40.0, 60.0, np.nan]), limits)
    told = np.array(found["limit_probability"].tolist())
    assert np.isnan(told[:, 0]).all() and (told[:, 1] > 0).all()
    assert found["limit_unknown"].tolist() == [("power_average_w <= 50",)] * 2 + [()]
    assert found["limits_probability"].isna().all()
    assert found["limits_presence"][:2].tolist() == pytest.approx(told[:2, 1])


def test_no_failure_seen_does_not_make_a_limit_of_none_impossible() -> None:
    found = with_limits(table(), [Limit("error_rate", "<=", 0.0)])
    (first,), _, (third,) = found["limit_probability"]
    assert np.isnan(first) and third == 0  # one of 100 failed
    assert found["limit_unknown"].tolist() == [("error_rate <= 0",)] * 2 + [()]


def test_an_open_loops_throughput_is_its_rate_less_the_share_in_error() -> None:
    """Of 60 answered requests at 20/s at least 19/s are answered where at most 5 % fail."""
    few = error_rate_probabilities([0], [60], 0.05, "<=")
    assert throughput_probabilities([0], [60], [20.0], 19.0, ">=") == pytest.approx(few, abs=1e-9)
    assert throughput_probabilities([0], [60], [20.0], 19.0, "<=") == pytest.approx(1 - few, abs=1e-9)
    assert throughput_probabilities([0], [60], [20.0], 21.0, ">=").tolist() == [0]
    assert np.isnan(throughput_probabilities([0, 0], [60, 60], [20.0, np.nan], 20.0, ">=")).all()
    rows = table(throughput_rps=[20.5, 19.0, 18.0], target_rate_rps=[20.0, np.nan, 20.0])
    found = with_limits(rows.drop(columns=["repeats", "failures"]), [Limit("throughput_rps", ">=", 19)])
    (first,), (second,), (third,) = found["limit_probability"]
    assert first == pytest.approx(error_rate_probabilities([0], [100], 0.05, "<=")[0])
    assert np.isnan(second) and third == pytest.approx(
        error_rate_probabilities([1], [100], 0.05, "<=")[0])
    assert found["limit_unknown"].tolist() == [(), ("throughput_rps >= 19",), ()]


def test_both_limits_of_one_metric_hold_with_the_probability_between_them() -> None:
    """0.975 that it is below the upper end, 0.025 that it is below the lower one."""
    rows = table().drop(columns=["failures"])
    limits = [Limit(P99, "<=", 303.0), Limit(P99, ">=", 0.674)]
    assert with_limits(rows, limits)["limits_probability"][0] == pytest.approx(0.95)
    apart = [Limit(P99, "<=", 10.0), Limit(P99, ">=", 20.0)]
    assert with_limits(rows, apart)["limits_probability"][0] == 0


def test_of_two_limits_on_one_side_the_tighter_one_counts_alone() -> None:
    rows = table().drop(columns=["failures"])
    both = with_limits(rows, [Limit(P99, "<=", 20.0), Limit(P99, "<=", 200.0)])
    alone = with_limits(rows, [Limit(P99, "<=", 20.0)])
    assert both["limits_probability"][0] == alone["limits_probability"][0] > 0.58


def test_limits_of_several_metrics_hold_at_once_with_no_less_than_frechets_bound() -> None:
    chances = [[0.97, 0.95, 0.9], [0.5, 0.4, 1.0], [0.9, np.nan, 1.0], [1.0, 1.0, 1.0]]
    found = joint_probabilities([(m, "<=") for m in "abc"], chances)
    assert found.tolist() == pytest.approx([0.82, 0, np.nan, 1], nan_ok=True)
    # Wholly dependent ones: what holds at once is never less.
    drawn = np.random.default_rng(0).normal(size=100_000)
    alone = [(drawn <= b).mean() for b in (1.0, 1.5, 2.0)]
    assert joint_probabilities([(m, "<=") for m in "abc"], [alone])[0] <= (drawn <= 1.0).mean()
    assert joint_probabilities([], np.ones((2, 0))).tolist() == [1, 1]
