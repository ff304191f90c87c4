"""What is played of a recorded trace."""

from __future__ import annotations

import math
import statistics
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.load.test_arrivals import gaps_of, window
from tuner.errors import UsageError
from tuner.load import arrivals, traces


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
    told = traces.played(traced(quiet_head().tolist(), rate_rps=50.0)).describe()
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
    assert traces.typical_part(times, 2) == int(np.argmin(away)) == 6


def test_the_most_typical_part_is_nearest_to_the_medians_of_length_and_burstiness() -> None:
    for seed in range(30):
        gaps = np.random.default_rng(seed).lognormal(0, 1, 12).tolist()
        times = [0.0, *accumulate(gaps)]
        for wanted in (1, 2, 3, 5):
            parts = [gaps[k : k + wanted] for k in range(len(times) - wanted)]
            lengths = [math.log(sum(part)) for part in parts]
            bursts = [math.log(wanted * sum(g * g for g in part) / sum(part) ** 2) for part in parts]
            away = [
                abs(length - statistics.median(lengths)) + abs(burst - statistics.median(bursts))
                for length, burst in zip(lengths, bursts, strict=True)
            ]
            best = traces.typical_part(np.array(times), wanted)
            assert away[best] == pytest.approx(min(away)), (seed, wanted)


def test_a_part_without_length_is_never_the_typical_one() -> None:
    assert traces.typical_part(np.array([0.0, 0.0, 0.0, 0.0, 3.0, 3.0, 3.0, 3.0]), 2) in (2, 3)


def test_arrivals_of_one_moment_stay_together_and_are_counted(traced: Any) -> None:
    plan = traced(np.repeat(np.arange(1000), 4).tolist(), rate_rps=8.0)
    assert window(plan).tolist() == np.repeat(np.arange(10) / 2, 4).tolist()
    assert traces.played(plan).describe()["most_at_once"] == 4
    pairs = traced(np.repeat(np.arange(1000), 2).tolist(), rate_rps=4.0)
    assert traces.played(pairs).describe()["most_at_once"] == 2
    # Three and four end with a moment; ten of twelve don't, and nothing is lost.
    torn = traces.played(traced(np.repeat(np.arange(1000), 4).tolist(), rate_rps=1.4))
    assert torn.times_s.tolist() == [0, 0, 0, 2.5, 2.5, 2.5, 2.5]
    coarse = traces.played(traced(np.repeat([0, 1, 2], 12).tolist(), rate_rps=2.0))
    assert len(coarse.times_s) == 10 and coarse.mean_rps == 2.0
    assert np.unique(coarse.times_s).tolist() == pytest.approx([0.0, 4.5])


def test_one_arrival_of_a_trace_is_enough_for_a_slow_rate(traced: Any) -> None:
    slow = traces.played(traced([0, 0, 0, 5, 5, 5, 10], rate_rps=0.2))
    assert (slow.times_s.tolist(), slow.mean_rps) == ([0.0], 0.2)
    assert traces.played(traced(range(100), rate_rps=0.01)).times_s.tolist() == [0.0]


def test_a_trace_that_holds_fewer_arrivals_is_played_whole_and_says_that_it_ends(
    traced: Any,
) -> None:
    plan = traced([10, 11, 13, 14], rate_rps=2.0)
    assert window(plan).tolist() == pytest.approx([0, 0.5, 1.5, 2.0], abs=0.6)
    told = traces.played(plan).describe()
    assert (told["arrivals"], told["share"], told["window_s"]) == (4, 1.0, 2.0)
    assert (told["from_s"], told["to_s"], told["whole_s"]) == (0.0, 4.0, 4.0)
    assert told["mean_rps"] == 2.0 and told["pace"] == pytest.approx(2 / 0.75)
    assert told["trace_mean_rps"] == 0.75
    assert told["note"] == "the trace is over after 2 s of the 5 s asked"
    assert arrivals.window_length_s(plan) == 2.0


def test_a_trace_as_recorded_is_played_from_its_beginning(traced: Any) -> None:
    plan = traced([100 + i / 4 for i in range(400)])
    assert window(plan).tolist() == [i / 4 for i in range(20)]
    told = traces.played(plan).describe()
    assert (told["arrivals"], told["mean_rps"], told["trace_mean_rps"]) == (20, 4.0, 4.0)
    assert (told["from_s"], told["to_s"], told["whole_s"], told["pace"]) == (0.0, 5.0, 99.75, 1.0)
    assert told["share"] == 0.05 and told["note"] is None


def test_a_trace_as_recorded_that_ends_sooner_ends_the_window(traced: Any) -> None:
    plan = traced([0, 1, 2, 3])
    assert arrivals.window_length_s(plan) == 4.0
    assert traces.played(plan).mean_rps == 1.0


@pytest.mark.parametrize(("head", "is_told"), [(20, False), (18, False), (17, True), (22, False), (23, True)])
def test_a_head_that_differs_from_the_whole_trace_by_more_than_a_tenth_is_told(
    traced: Any, head: int, is_told: bool
) -> None:
    first = np.linspace(0, 5, head, endpoint=False)
    rest = 5 + np.arange(4 * 2_000) / 4.0
    note = traces.played(traced([*first, *rest])).note()
    assert (note is not None) == is_told
    if note:
        assert f"{head / 5:.3g} requests/s, the whole has 4" in note
        assert note.startswith("only the first 5 s of the trace's 2e+03 s are played")


def test_a_quiet_head_is_told_and_what_would_be_played_with_a_rate(traced: Any) -> None:
    note = traces.played(traced(quiet_head().tolist())).note()
    assert note is not None and "0.2 requests/s, the whole has 0.741; with a rate" in note


@pytest.mark.parametrize(
    ("lines", "seconds"),
    [
        ([0, 20, 40], [0, 20, 40]),
        ([1.7e9, 1.7e9 + 0.5, 1.7e9 + 2], [0, 0.5, 2]),
        ([99_999_999_999, 99_999_999_999.5], [0, 0.5]),
        ([100_000_000_000, 100_000_000_500], [0, 0.5]),
        ([1700000000000, 1700000000020, 1700000001000], [0, 0.02, 1]),
        ([99_999_999_999_999, 100_000_000_000_999], [0, 1]),
        ([100_000_000_000_000, 100_000_000_500_000], [0, 0.5]),
        ([1700000000000000, 1700000000500000], [0, 0.5]),
        ([99_999_999_999_000_000, 100_000_000_000_000_000], [0, 1]),
        ([100_000_000_000_000_000, 100_000_000_500_000_000], [0, 0.5]),
        ([1700000000000000000, 1700000000500000000], [0, 0.5]),
        ([1700000000000000000, 1700100000000000000], [0, 100_000]),
        ([1700000000000000, 1700100000000000], [0, 100_000]),
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
    read = traces.read_trace(traced(lines).trace_file)
    assert read.tolist() == pytest.approx(seconds, rel=0, abs=1e-6)


def test_a_trace_that_was_written_anew_is_read_anew(traced: Any) -> None:
    assert len(traces.read_trace(traced([0, 1, 2]).trace_file)) == 3
    assert len(traces.read_trace(traced([0, 1, 2, 3]).trace_file)) == 4


def test_a_trace_that_is_not_there_is_named(long_plan: Any, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"gone\.csv: cannot read the arrival trace"):
        window(long_plan(pattern="trace", trace_file=tmp_path / "gone.csv"))
    with pytest.raises(UsageError, match="--trace FILE"):
        window(long_plan(pattern="trace"))


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


def test_a_slow_trace_is_warmed_up_once_a_second(traced: Any) -> None:
    plan = traced([0, 4, 8, 12, 16, 20])
    assert traces.played(plan).mean_rps == pytest.approx(0.4)
    times = arrivals.warmup_arrivals(plan, np.random.default_rng(6), 30.0)
    assert times.tolist() == gaps_of(6, 1.0, 30.0).tolist()


def test_a_parts_length_has_the_gap_after_it_or_a_mean_one_where_that_is_none() -> None:
    assert traces._length(np.array([0.0, 1.0, 2.0, 4.0, 9.0]), 0, 3) == 4.0
    assert traces._length(np.array([0.0, 1.0, 2.0, 2.0, 3.0]), 0, 3) == 3.0  # gaps 1, 1 and their mean
    assert traces._length(np.array([0.0, 5.0, 6.0, 8.0]), 1, 2) == 3.0


def test_arrivals_of_one_moment_alone_are_no_part_and_the_trace_is_played_whole(traced: Any) -> None:
    plan = traced([5.0] * 10 + [6.0], rate_rps=1.0, max_duration_s=10.0)
    found = traces.played(plan)
    assert found.times_s.tolist() == [0.0] * 10 and found.mean_rps == 1.0


def test_a_pause_that_makes_most_of_the_part_is_told(traced: Any) -> None:
    clusters = np.concatenate([np.arange(200) * 0.05, 86_400 + np.arange(200) * 0.05])
    told = traces.played(traced(clusters, rate_rps=50.0)).note()
    assert told is not None and "one pause makes" in told
    assert traces.played(traced(np.arange(3000) / 7.0, rate_rps=50.0)).note() is None


def test_a_rate_that_the_window_cannot_hold_is_told(traced: Any) -> None:
    told = traces.played(traced(np.arange(3000) / 7.0, rate_rps=0.01)).note()
    assert told is not None and "1 requests in 5 s are 0.2 a second, not the 0.01 asked" in told


@pytest.mark.parametrize("lines", [["0", "1e-320"], ["-1e308", "0", "1e308"]])
def test_a_trace_of_no_length_or_of_no_end_is_refused(traced: Any, lines: list[str]) -> None:
    with pytest.raises(UsageError, match="cannot be played"):
        traces.played(traced(lines, rate_rps=5.0))


def test_one_wrong_timestamp_does_not_change_the_unit_of_all(traced: Any) -> None:
    milliseconds = [1_700_000_000_000 + 100 * k for k in range(50)]
    assert traces.played(traced(["0", *milliseconds], rate_rps=None)).whole_s == pytest.approx(1.7e9, rel=0.01)
