"""Arrival statistics of every pattern."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from tuner.errors import UsageError
from tuner.load import arrivals

LENGTH_S = 60.0


def window(plan: Any, seed: int = 3) -> np.ndarray:
    times = arrivals.window_arrivals(plan, np.random.default_rng(seed))
    assert np.all(np.diff(times) >= 0)
    return times[times < plan.max_duration_s]


@pytest.fixture
def long_plan(make_plan: Any) -> Any:
    return lambda **fields: make_plan(**({"max_duration_s": LENGTH_S} | fields))


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


def test_a_trace_is_replayed_as_recorded(tmp_path: Path, long_plan: Any) -> None:
    trace = tmp_path / "trace.csv"
    trace.write_text("timestamp,what\n1000.5,a\n1000.0,b\n1002.25,c\n")
    times = window(long_plan(pattern="trace", rate_rps=None, trace_file=trace))
    assert times.tolist() == [0.0, 0.5, 2.25]


def test_a_trace_is_stretched_to_an_asked_rate(tmp_path: Path, long_plan: Any) -> None:
    trace = tmp_path / "trace.csv"
    trace.write_text("0\n1\n3\n4\n")
    times = window(long_plan(pattern="trace", rate_rps=1.5, trace_file=trace))
    assert times == pytest.approx([0, 0.5, 1.5, 2.0])


@pytest.mark.parametrize(
    ("text", "says"),
    [("0.1\nx\n", r"trace.csv:2: 'x'"), ("1\n", "at least two"), ("1\n2\nnan\n", "trace.csv:3")],
)
def test_a_broken_trace_is_named_with_its_line(
    tmp_path: Path, long_plan: Any, text: str, says: str
) -> None:
    trace = tmp_path / "trace.csv"
    trace.write_text(text)
    with pytest.raises(UsageError, match=says):
        window(long_plan(pattern="trace", trace_file=trace))


def test_a_rate_is_asked_for_where_it_is_missing(long_plan: Any) -> None:
    with pytest.raises(UsageError, match="--rate"):
        window(long_plan(rate_rps=None))
