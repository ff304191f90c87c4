"""Arrival statistics of every pattern."""

from __future__ import annotations

from itertools import pairwise
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
    [
        ("0.1\nx\n", r"trace.csv:2: 'x'"), ("1\n", "at least two"),
        ("1\n2\nnan\n", "trace.csv:3"), ("7\n7\n7\n", "two timestamps that differ"),
        ("a\nb\n1\n2\n", "trace.csv:2: 'b'"), ("", "at least two"),
    ],
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


# -- traces ----------------------------------------------------------------------------------------


@pytest.fixture
def traced(tmp_path: Path, long_plan: Any) -> Any:
    """``traced(lines, …)``: the plan of a trace of these lines; a window of 5 s."""

    def make(lines: Any, **fields: Any) -> Any:
        trace = tmp_path / "trace.csv"
        trace.write_text("\n".join(str(line) for line in lines) + "\n")
        given = {"pattern": "trace", "rate_rps": None, "trace_file": trace, "max_duration_s": 5.0}
        return long_plan(**(given | fields))

    return make


def quiet_head() -> np.ndarray:
    """A quiet start and then many requests, in whole seconds, as BurstGPT's trace has them."""
    rng = np.random.default_rng(0)
    quiet = np.cumsum(rng.exponential(1 / 0.034, 700))
    busy = quiet[-1] + np.cumsum(rng.exponential(1 / 3.17, 20_000))
    return np.floor(np.concatenate([quiet, busy]))


def days() -> np.ndarray:
    """Three days whose nights have a tenth of the requests."""
    rate = arrivals.Rate(
        tuple(float(t) for day in range(3) for t in (day * 1000, day * 1000 + 500, day * 1000 + 999)),
        (1.0, 10.0, 1.0) * 3,
    )
    return arrivals.varying(np.random.default_rng(1), rate, 2999.0)


def on_and_off() -> np.ndarray:
    cycles = np.arange(400)[:, None] * 10.0
    return (cycles + np.linspace(0, 0.5, 20)).ravel()


SHAPES = {
    "quiet head": quiet_head(), "days": days(), "on and off": on_and_off(),
    "even": np.arange(3000) / 7.0, "unsorted": np.random.default_rng(2).permutation(3000) / 11.0,
    "wall clock": 1_700_000_000 + quiet_head(), "milliseconds": 1_700_000_000_000 + quiet_head() * 1000,
    "twice each": np.repeat(np.cumsum(np.random.default_rng(3).exponential(1.0, 1500)), 2),
}


@pytest.mark.parametrize("rate", [2.0, 7.3, 50.0, 211.0])
@pytest.mark.parametrize("shape", SHAPES)
def test_what_is_sent_of_a_trace_has_the_asked_mean_whatever_its_shape(
    traced: Any, shape: str, rate: float
) -> None:
    plan = traced(SHAPES[shape].tolist(), rate_rps=rate)
    times = window(plan)
    assert len(times) == round(rate * 5)
    assert arrivals.window_length_s(plan) == 5.0
    assert 0 <= times[0] and times[-1] < 5.0
    warm = arrivals.warmup_arrivals(plan, np.random.default_rng(4), 1000 / rate)
    assert len(warm) == pytest.approx(1000, abs=4 * 1000**0.5)


def test_the_busy_part_is_played_of_a_trace_whose_head_is_quiet(traced: Any) -> None:
    told = arrivals.played(traced(quiet_head().tolist(), rate_rps=50.0)).describe()
    # 97 % of the requests come at 3.17 a second: the part lasts 250 / 3.17 s, or nearly.
    assert told["from_s"] > 20_000 and told["to_s"] - told["from_s"] == pytest.approx(79, abs=6)
    assert told["pace"] == pytest.approx(79 / 5, rel=0.08)
    assert told["share"] == 250 / 20_700
    assert (told["arrivals"], told["mean_rps"], told["window_s"]) == (250, 50.0, 5.0)
    assert told["note"] is None


def test_a_part_of_a_trace_keeps_its_bursts(traced: Any) -> None:
    gaps = np.diff(window(traced(on_and_off().tolist(), rate_rps=40.0)))
    # 200 arrivals are ten bursts of 20: nineteen short gaps and a long one, at twenty times the pace.
    assert np.sort(gaps)[-9:] == pytest.approx(np.full(9, 9.5 / 20))
    assert np.sort(gaps)[:189] == pytest.approx(np.full(189, 0.5 / 19 / 20))


def test_a_trace_of_a_stated_few_gaps_is_cut_where_it_is_most_typical() -> None:
    # Parts of two gaps: lengths 2, 11, 11, 3, 5, 8, 7 -> the median is 7, the last part's.
    times = np.cumsum([0.0, 1, 1, 10, 1, 2, 3, 5, 2])
    assert (times[2:] - times[:-2]).tolist() == [2, 11, 11, 3, 5, 8, 7]
    spans = np.log(times[2:] - times[:-2])
    gaps = np.diff(times)
    burstiness = np.log([2 * (a * a + b * b) / (a + b) ** 2 for a, b in pairwise(gaps)])
    away = abs(spans - np.median(spans)) + abs(burstiness - np.median(burstiness))
    assert arrivals.typical_part(times, 2) == int(np.argmin(away)) == 6


def test_a_part_without_length_is_never_the_typical_one() -> None:
    assert arrivals.typical_part(np.array([0.0, 0.0, 0.0, 0.0, 3.0, 3.0, 3.0, 3.0]), 2) in (2, 3)


def test_arrivals_of_one_moment_stay_together_and_are_counted(traced: Any) -> None:
    plan = traced(np.repeat(np.arange(1000), 4).tolist(), rate_rps=8.0)
    assert window(plan).tolist() == np.repeat(np.arange(10) / 2, 4).tolist()
    assert arrivals.played(plan).describe()["most_at_once"] == 4
    # Three and four end with a moment; ten of twelve don't, and nothing is lost.
    torn = arrivals.played(traced(np.repeat(np.arange(1000), 4).tolist(), rate_rps=1.4))
    assert torn.times_s.tolist() == [0, 0, 0, 2.5, 2.5, 2.5, 2.5]
    coarse = arrivals.played(traced(np.repeat([0, 1, 2], 12).tolist(), rate_rps=2.0))
    assert len(coarse.times_s) == 10 and coarse.mean_rps == 2.0
    assert np.unique(coarse.times_s).tolist() == pytest.approx([0.0, 4.5])


def test_one_arrival_of_a_trace_is_enough_for_a_slow_rate(traced: Any) -> None:
    slow = arrivals.played(traced([0, 0, 0, 5, 5, 5, 10], rate_rps=0.2))
    assert (slow.times_s.tolist(), slow.mean_rps) == ([0.0], 0.2)
    assert arrivals.played(traced(range(100), rate_rps=0.01)).times_s.tolist() == [0.0]


def test_a_trace_that_holds_fewer_arrivals_is_played_whole_and_says_that_it_ends(
    traced: Any,
) -> None:
    plan = traced([10, 11, 13, 14], rate_rps=2.0)
    assert window(plan).tolist() == pytest.approx([0, 0.5, 1.5, 2.0], abs=0.6)
    told = arrivals.played(plan).describe()
    assert (told["arrivals"], told["share"], told["window_s"]) == (4, 1.0, 2.0)
    assert (told["from_s"], told["to_s"], told["whole_s"]) == (0.0, 4.0, 4.0)
    assert told["mean_rps"] == 2.0 and told["pace"] == pytest.approx(2 / 0.75)
    assert told["trace_mean_rps"] == 0.75
    assert told["note"] == "the trace is over after 2 s of the 5 s asked"
    assert arrivals.window_length_s(plan) == 2.0


def test_a_trace_as_recorded_is_played_from_its_beginning(traced: Any) -> None:
    plan = traced([100 + i / 4 for i in range(400)])
    assert window(plan).tolist() == [i / 4 for i in range(20)]
    told = arrivals.played(plan).describe()
    assert (told["arrivals"], told["mean_rps"], told["trace_mean_rps"]) == (20, 4.0, 4.0)
    assert (told["from_s"], told["to_s"], told["whole_s"], told["pace"]) == (0.0, 5.0, 99.75, 1.0)
    assert told["share"] == 0.05 and told["note"] is None


def test_a_trace_as_recorded_that_ends_sooner_ends_the_window(traced: Any) -> None:
    plan = traced([0, 1, 2, 3])
    assert arrivals.window_length_s(plan) == 4.0
    assert arrivals.played(plan).mean_rps == 1.0


@pytest.mark.parametrize(("head", "is_told"), [(20, False), (18, False), (17, True), (22, False), (23, True)])
def test_a_head_that_differs_from_the_whole_trace_by_more_than_a_tenth_is_told(
    traced: Any, head: int, is_told: bool
) -> None:
    first = np.linspace(0, 5, head, endpoint=False)
    rest = 5 + np.arange(4 * 10_000) / 4.0
    note = arrivals.played(traced([*first, *rest])).note()
    assert (note is not None) == is_told
    if note:
        assert f"{head / 5:.3g} requests/s, the whole has 4" in note
        assert note.startswith("only the first 5 s of the trace's 1e+04 s are played")


def test_a_quiet_head_is_told_and_what_would_be_played_with_a_rate(traced: Any) -> None:
    note = arrivals.played(traced(quiet_head().tolist())).note()
    assert note is not None and "0.2 requests/s, the whole has 0.741; with a rate" in note


@pytest.mark.parametrize(
    ("lines", "seconds"),
    [
        ([0, 20, 40], [0, 20, 40]),
        ([1.7e9, 1.7e9 + 0.5, 1.7e9 + 2], [0, 0.5, 2]),
        ([99_999_999_999, 99_999_999_999.5], [0, 0.5]),
        ([100_000_000_000, 100_000_000_500], [0, 0.5]),
        ([1700000000000, 1700000000020, 1700000001000], [0, 0.02, 1]),
        ([99_999_999_999_000, 100_000_000_000_000], [0, 1]),
        ([100_000_000_000_000, 100_000_000_500_000], [0, 0.5]),
        ([1700000000000000, 1700000000500000], [0, 0.5]),
        ([99_999_999_999_000_000, 100_000_000_000_000_000], [0, 1]),
        ([100_000_000_000_000_000, 100_000_000_500_000_000], [0, 0.5]),
        ([1700000000000000000, 1700000000500000000], [0, 0.5]),
        (["TIMESTAMP,Tokens", "2023-11-16 18:15:46.6805900,374", "2023-11-16 18:15:50.9951690,3"],
         [0, 4.314579]),
        (["t", "2024-02-29T23:59:59Z", "2024-03-01T00:00:01.5Z"], [0, 2.5]),
        (["2024-01-01 00:00:00", "2024-01-01T01:00:00+01:00", "2024-01-01T00:00:01"], [0, 0, 1]),
        (["\ufeffts", '"1"', "", '"3",x'], [0, 2]),
    ],
)
def test_a_timestamp_is_seconds_a_date_or_an_epoch_known_by_its_size(
    traced: Any, lines: list[Any], seconds: list[float]
) -> None:
    read = arrivals.read_trace(traced(lines).trace_file)
    assert read.tolist() == pytest.approx(seconds, abs=1e-6)


def test_a_trace_that_was_written_anew_is_read_anew(traced: Any) -> None:
    assert len(arrivals.read_trace(traced([0, 1, 2]).trace_file)) == 3
    assert len(arrivals.read_trace(traced([0, 1, 2, 3]).trace_file)) == 4


def test_a_trace_that_is_not_there_is_named(long_plan: Any, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"gone\.csv: cannot read the arrival trace"):
        window(long_plan(pattern="trace", trace_file=tmp_path / "gone.csv"))
    with pytest.raises(UsageError, match="--trace FILE"):
        window(long_plan(pattern="trace"))


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
    for seed in range(2000):
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


def test_a_slow_trace_is_warmed_up_once_a_second(traced: Any) -> None:
    plan = traced([0, 4, 8, 12, 16, 20])
    assert arrivals.played(plan).mean_rps == pytest.approx(0.4)
    times = arrivals.warmup_arrivals(plan, np.random.default_rng(6), 30.0)
    assert times.tolist() == gaps_of(6, 1.0, 30.0).tolist()


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
