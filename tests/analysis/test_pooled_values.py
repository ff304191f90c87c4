"""Pooled repeats, later measurements, open ends and limits: numbers that follow by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm
from scipy.stats import t as student

from tuner.analysis.again import _requests, with_later
from tuner.analysis.known import counts, front_of
from tuner.analysis.limits import (
    KEPT,
    Limit,
    error_rate_interval,
    error_rate_probabilities,
    hold_probabilities,
    hold_probability,
    with_limits,
)
from tuner.analysis.open_bounds import counted, mirrored, open_above, open_metrics, opened
from tuner.analysis.repeats import ENOUGH_DEGREES, pool, without_failure

P50, P99, ENERGY, RATE = (
    "latency_p50_ms", "latency_p99_ms", "energy_per_request_j", "throughput_rps",
)
LOW, HIGH = "latency_p99_low_ms", "latency_p99_high_ms"
NAN, INF = np.nan, np.inf


def study(rows: list[dict[str, Any]], **attrs: Any) -> pd.DataFrame:
    """Trials of one knob ``k``; a row says what differs from a valid, feasible one of 5 s."""
    filled = [
        {"k": 1, "number": n, P99: NAN, ENERGY: 1.0, "valid": "reason" not in row, "reason": None,
         "feasible": "reason" not in row, "window_s": 5.0, "requests": 100.0, **row}
        for n, row in enumerate(rows)
    ]
    table = pd.DataFrame(filled)
    table.attrs.update(name="s", parameters=["k"], **attrs)
    return table


def timed(p99: float, error: float, k: int = 1, **more: Any) -> dict[str, Any]:
    """A trial whose p99 has this standard error."""
    half = 1.959964 * error
    return {"k": k, P99: p99, LOW: p99 - half, HIGH: p99 + half, **more}


# Repeats.


def test_the_error_of_a_mean_holds_the_stages_own_and_that_between_trials() -> None:
    rows = [timed(10.0, 0.5), timed(20.0, 0.6, 2), timed(14.0, 0.7), timed(25.0, 0.5, 2)]
    (first, second) = pool(study(rows)).to_dict(orient="records")
    logs = [math.log(14 / 10), math.log(25 / 20)]
    deviation2 = sum(d**2 / 2 for d in logs) / 2
    own = np.array([0.5 / 10, 0.7 / 14, 0.6 / 20, 0.5 / 25]) ** 2
    between2 = deviation2 - own.mean()
    for row, mean, parts in ((first, 12.0, own[:2]), (second, 22.5, own[2:])):
        half = student.ppf(0.975, 2) * math.sqrt((parts.mean() + between2) / 2)
        assert row[P99] == mean
        assert row[LOW] == pytest.approx(mean * math.exp(-half), rel=1e-6)
        assert row[HIGH] == pytest.approx(mean * math.exp(half), rel=1e-6)


def test_where_the_stages_explain_all_the_error_is_theirs_with_the_normal_quantile() -> None:
    rows = [timed(10.0, 1.0), timed(10.1, 1.0)]
    (row,) = pool(study(rows)).to_dict(orient="records")
    half = 1.959964 * math.sqrt((0.1**2 + (1 / 10.1) ** 2) / 2 / 2)
    assert row[HIGH] == pytest.approx(10.05 * math.exp(half), rel=1e-6)


def test_where_one_stage_tells_no_error_that_of_the_repeats_stands_alone() -> None:
    (row,) = pool(study([timed(10.0, 0.1), {P99: 12.0}])).to_dict(orient="records")
    deviation = math.log(1.2) / math.sqrt(2)
    half = student.ppf(0.975, 1) * deviation / math.sqrt(2)
    assert row[LOW] == pytest.approx(11 * math.exp(-half), rel=1e-6)
    assert row[HIGH] == pytest.approx(11 * math.exp(half), rel=1e-6)


def test_an_open_stage_stays_open_and_its_lower_end_is_of_all_that_repeats_differ() -> None:
    rows = [{P99: 10.0, LOW: 9.5, HIGH: INF}, timed(20.0, 5.0, 2),
            {P99: 10.5, LOW: 10.0, HIGH: INF}, timed(40.0, 5.0, 2)]
    row = pool(study(rows)).iloc[0]
    # Its own stages and what lies between trials come to less: the other's stages explain much.
    deviation2 = (math.log(1.05) ** 2 / 2 + math.log(2) ** 2 / 2) / 2
    own = [(v * v / low - low) / (2 * 1.959964) / v for v, low in ((10.0, 9.5), (10.5, 10.0))]
    assert np.mean(np.square(own)) < np.mean(np.square([*own, 5 / 20, 5 / 40])) < deviation2
    half = student.ppf(0.975, 2) * math.sqrt(deviation2 / 2)
    assert row[LOW] == pytest.approx(10.25 * math.exp(-half), rel=1e-6)
    assert row[HIGH] == INF


def test_values_that_are_not_all_positive_have_an_absolute_interval() -> None:
    (row,) = pool(study([{RATE: -1.0}, {RATE: 3.0}])).to_dict(orient="records")
    half = student.ppf(0.975, 1) * math.sqrt(8) / math.sqrt(2)
    low, high = row["throughput_low_rps"], row["throughput_high_rps"]
    assert (row[RATE], low, high) == pytest.approx((1.0, 1 - half, 1 + half))


@pytest.mark.parametrize(("repeated", "believed"), [(4, False), (5, True)])
def test_five_degrees_of_freedom_are_believed_of_what_was_measured_once(
    repeated: int, believed: bool
) -> None:
    assert ENOUGH_DEGREES == 5
    rows = [timed(p, 0.1, k) for p in (10.0, 12.0) for k in range(repeated)]
    pooled = pool(study([*rows, timed(30.0, 0.1, 9)]))
    high = pooled[HIGH].iloc[-1]
    assert (high > 33) if believed else high == pytest.approx(30 + 0.1959964)
    assert (P99 not in pooled.attrs["noise_unknown"]) is believed


def test_a_value_measured_once_keeps_its_interval_and_one_unknown_stays_so() -> None:
    rows = [timed(10.0, 0.5), {"k": 2, P99: 20.0}, {"k": 3, "reason": "crash"},
            {"k": 3, "reason": "crash"}]
    pooled = pool(study(rows))
    assert pooled[HIGH].tolist() == pytest.approx([10 + 0.979982, NAN, NAN], nan_ok=True)
    assert pooled[LOW].tolist() == pytest.approx([10 - 0.979982, NAN, NAN], nan_ok=True)
    assert pooled[P99].tolist() == pytest.approx([10, 20, NAN], nan_ok=True)


def test_a_row_tells_how_often_it_was_measured_how_long_and_by_which_trials() -> None:
    rows = [
        {"reason": "internal", "window_s": NAN, "requests": NAN, "k": 2}, {P99: 9.0, "k": 1},
        {P99: 11.0, "k": 2, "window_s": 4.0}, {P99: 12.0, "k": 2, "window_s": NAN},
        {"reason": "client_failed", "k": 2}, {"reason": "internal", "k": 2},
    ]
    second, first = pool(study(rows)).to_dict(orient="records")
    assert (second["number"], second["trials"]) == (2, (0, 2, 3, 4, 5))
    assert (second["repeats"], second["failures"], second["again"]) == (2, 0, 0)
    assert (second["window_s"], second["requests"], second["measurements"]) == (4.0, 200.0, 2)
    assert second["valid"] and second["feasible"] and second["reason"] is None
    assert math.isnan(second["again_s"])
    assert (first["trials"], first["repeats"], first["failures"]) == ((1,), 1, 0)


def test_a_failed_configuration_gives_the_reason_that_came_most_often() -> None:
    rows = [{"reason": "a crash"}, {"reason": "errors"}, {"reason": "errors"}, {P99: 1.0}]
    (row,) = pool(study(rows)).to_dict(orient="records")
    assert (row["valid"], row["feasible"], row["reason"]) == (False, False, "errors")


@pytest.mark.parametrize(
    ("feasible", "reasons", "most"),
    [
        ([True, False], [None] * 2, False), ([True, True, False], [None] * 3, True),
        ([True, False, False], [None] * 3, False),
        ([True, False, False], [None, "internal", "client_limited"], True),
    ],
)
def test_more_than_half_of_the_trials_have_to_be_feasible(
    feasible: list[bool], reasons: list[str | None], most: bool
) -> None:
    rows = [{P99: 1.0, "feasible": f, **({"reason": r} if r else {})}
            for f, r in zip(feasible, reasons)]
    assert pool(study(rows))["feasible"].tolist() == [most]


def test_failures_that_are_not_the_servers_do_not_count_against_it() -> None:
    assert without_failure([True, False], [None, "energy_lost"])
    assert not without_failure([True, False], [None, "crash"])
    assert not without_failure([False, False], ["internal", "client_failed"])
    assert not without_failure([], [])


def test_what_disturbed_a_measurement_stands_beside_its_value_and_of_a_failure_it_does_not() -> None:
    words = [{"disturbed": "busy"}, {"disturbed": None}, {"disturbed": ""},
             {"disturbed": "late", "reason": "crash"}]
    apart = pool(study([{"k": k, P99: 1.0, **w} for k, w in enumerate(words)]))
    assert apart["disturbed_by"].tolist() == [("busy",), (), (), ()]
    assert apart["measurements"].tolist() == [1, 1, 1, 0]
    assert apart["repeats"].tolist() == [1, 1, 1, 0] and apart["failures"].tolist() == [0, 0, 0, 1]
    assert apart["trials"].tolist() == [(0,), (1,), (2,), (3,)] and apart["again"].eq(0).all()
    together = pool(study([{P99: 1.0, **w} for w in words]))
    assert together["disturbed_by"].tolist() == [()] and together["left_out"].tolist() == [("busy",)]
    assert together["measurements"].tolist() == [2] and together["repeats"].tolist() == [3]


def test_what_was_disturbed_counts_only_where_nothing_undisturbed_is_known() -> None:
    rows = [timed(10.0, 2.0), timed(30.0, 0.1, disturbed="busy", feasible=False),
            timed(14.0, 2.0, window_s=6.0), timed(20.0, 0.1, 2, disturbed="busy"),
            timed(30.0, 0.1, 2, disturbed="late")]
    first, second = pool(study(rows)).to_dict(orient="records")
    assert first[P99] == 12 and first["feasible"] and first["discord"] == ()
    assert (first["measurements"], first["repeats"], first["trials"]) == (2, 3, (0, 1, 2))
    assert (first["left_out"], first["window_s"], first["requests"]) == (("busy",), 11, 200)
    assert second[P99] == 25 and second["left_out"] == () and second["disturbed_by"] == ("busy", "late")
    (between,) = [n for n in pool(study(rows)).attrs["noise"] if n["metric"] == P99]
    assert between["configurations"] == 2  # one of two undisturbed, one of two disturbed repeats


def test_a_longer_but_disturbed_measurement_does_not_stand_for_undisturbed_trials() -> None:
    busy = entry(0, 600.0, 50.0, disturbed="busy", violations={"x": 1.0})
    kept = pool(study([{P99: 10.0}], measured_again=[busy])).iloc[0]
    assert (kept[P99], kept["again"], kept["again_left_out"]) == (10, 0, 1)
    assert kept["left_out"] == ("busy",) and kept["disturbed_by"] == () and kept["feasible"]
    assert kept["window_s"] == 5 and math.isnan(kept["again_s"])
    both = pool(study([{P99: 10.0}], measured_again=[busy, entry(0, 6.0, 12.0)])).iloc[0]
    assert (both[P99], both["again"], both["again_left_out"]) == (12, 1, 1)
    # A disturbed trial gives way to an undisturbed measurement, however short.
    turned = pool(study([{P99: 10.0, "disturbed": "busy", "feasible": False}],
                        measured_again=[entry(0, 1.0, 12.0, violations={})])).iloc[0]
    assert turned[P99] == 12 and turned["feasible"] and turned["trials"] == (0,)
    assert (turned["left_out"], turned["again"], turned["again_left_out"]) == (("busy",), 1, 0)
    # Nothing undisturbed: the longer one, as ever; nothing measured at all: the disturbed one.
    alike = pool(study([{P99: 10.0, "disturbed": "late"}], measured_again=[busy])).iloc[0]
    assert alike[P99] == 50 and alike["disturbed_by"] == ("busy",) and alike["left_out"] == ()
    failed = pool(study([{"reason": "crash"}], measured_again=[busy])).iloc[0]
    assert failed[P99] == 50 and failed["disturbed_by"] == ("busy",)


def test_a_trial_that_does_not_say_that_it_is_valid_is_not_measured() -> None:
    rows = [timed(10.0, 0.1), timed(20.0, 0.1, valid=None), timed(30.0, 0.1, 2, valid=None)]
    first, second = pool(study(rows)).to_dict(orient="records")
    assert (first[P99], first["repeats"], first["failures"]) == (10.0, 1, 1)
    assert first["discord"] == () and not first["valid"]
    assert math.isnan(second[P99]) and (second["repeats"], second["failures"]) == (0, 1)
    apart = pool(study([timed(10.0, 0.1), timed(20.0, 0.1, 2, valid=None)]))
    assert apart["repeats"].tolist() == [1, 0] and apart["failures"].tolist() == [0, 1]
    later = pool(study(rows, measured_again=[entry(0, 6.0, 50.0)])).iloc[0]
    assert later[P99] == 50  # longer than the 5 s of the only valid one


def test_requests_of_a_p99_by_the_former_rank_rule_are_told_row_by_row() -> None:
    rows = [{"k": 1, P99: 1.0, "percentile_rule": None, "requests": 60.0},
            {"k": 2, "reason": "crash", "percentile_rule": None},
            {"k": 3, P99: 1.0, "percentile_rule": "ceiling"},
            {"k": 4, P99: 1.0, "percentile_rule": None, "requests": 80.0}]
    assert pool(study(rows))["former_rule"].tolist() == [(60,), (), (), (80,)]
    rows = [{**row, "k": 1} for row in rows]
    assert pool(study(rows))["former_rule"].tolist() == [(60, 80)]


def test_without_numbers_of_trials_their_places_are_taken() -> None:
    table = study([{P99: 1.0, "k": 1}, {P99: 2.0, "k": 2}]).drop(columns="number")
    assert pool(table)["trials"].tolist() == [(0,), (1,)]


def test_the_noise_of_each_metric_is_kept_with_the_table() -> None:
    pooled = pool(study([timed(10.0, 0.1), timed(12.0, 0.1)]))
    (p99,) = [n for n in pooled.attrs["noise"] if n["metric"] == P99]
    assert p99["deviation"] == pytest.approx(math.log(1.2) / math.sqrt(2))
    assert pooled.attrs["name"] == "s" and P99 in pooled.attrs["noise_unknown"]


def test_sisters_without_the_knob_are_not_asked_for_their_noise() -> None:
    other = study([timed(p, 0.1, k) for p in (10.0, 12.0) for k in range(6)])
    strange = other.rename(columns={"k": "z"})
    strange.attrs = {"parameters": ["z"]}
    mine = study([timed(10.0, 0.1, 1), timed(20.0, 0.1, 2)])
    assert pool(mine, lambda: [strange])[HIGH].tolist() == pytest.approx([10.1959964, 20.1959964])
    pooled = pool(mine, lambda: [strange, other])
    half = student.ppf(0.975, 6) * math.sqrt((0.1 / 10) ** 2 + noise_between(other) ** 2)
    assert pooled[HIGH].iloc[0] == pytest.approx(10 * math.exp(half), rel=1e-6)


def noise_between(table: pd.DataFrame) -> float:
    (found,) = [n["between"] for n in pool(table).attrs["noise"] if n["metric"] == P99]
    return float(found)


# Later measurements.


def entry(trial: int, window_s: float | None, p99: float | None, **more: Any) -> dict[str, Any]:
    return {"trial": trial, "window_s": window_s, "metrics": {P99: p99, ENERGY: 0.5}, **more}


def later(*entries: dict[str, Any], rows: list[dict[str, Any]] | None = None) -> pd.DataFrame:
    table = study(rows or [{P99: 10.0, "k": 7}], measured_again=list(entries))
    return with_later(table, [P50, P99, ENERGY])


def test_a_later_measurement_is_a_row_with_the_knobs_of_its_trial() -> None:
    found = later(entry(1, 60.0, 12.0), entry(9, 60.0, 1.0),
                  rows=[{P99: 10.0, P50: 5.0, "k": 7}, {P99: 11.0, P50: 5.0, "k": 8}])
    assert found["k"].tolist() == [7, 8, 8] and found["number"].tolist() == [0, 1, 1]
    assert found[P99].tolist() == [10, 11, 12] and found["again_s"].tolist()[2] == 60
    assert found["again_s"].isna().tolist() == [True, True, False]
    assert found["valid"].tolist() == [True] * 3 and math.isnan(found[P50].iloc[2])
    assert found["window_s"].tolist() == [5, 5, 60]


def test_without_later_measurements_a_table_has_their_column_alone() -> None:
    table = study([{P99: 10.0}])
    found = with_later(table, [P99])
    assert set(found.columns) - set(table.columns) == {"again_s"} and found["again_s"].isna().all()
    assert len(later(entry(5, 1.0, 1.0))) == 1


@pytest.mark.parametrize(
    ("more", "feasible"),
    [({}, None), ({"violations": {"a": 0.0, "b": -1.0}}, True), ({"violations": {"a": 0.01, "b": -1.0}}, False),
     ({"violations": {}}, True)],
)
def test_a_later_measurement_is_feasible_where_nothing_is_violated_and_unknown_where_nothing_is_said(
    more: dict[str, Any], feasible: bool | None
) -> None:
    assert later(entry(0, 60.0, 12.0, **more))["feasible"].tolist()[1] is feasible


@pytest.mark.parametrize(
    ("more", "bounds"),
    [
        ({"intervals": {P99: [11.0, 13.0]}}, (11, 13)),
        ({"intervals": {P99: [11.0, None]}}, (11, INF)),
        ({"intervals": {P99: [None, None]}}, (NAN, NAN)),
        ({"latency_p99_interval_ms": [11.5, 12.5]}, (11.5, 12.5)),
        ({"intervals": {P99: [11.0, 13.0]}, "latency_p99_interval_ms": [1, 2]}, (11, 13)),
        ({"intervals": {P99: [11.0, 13.0]}, "p99_interval_bounded": False}, (11, INF)),
        ({"intervals": {P99: [11.0, 13.0]}, "p99_interval_bounded": True}, (11, 13)),
        ({}, (NAN, NAN)),
    ],
)
def test_a_later_measurement_has_the_interval_that_it_tells(
    more: dict[str, Any], bounds: tuple[float, float]
) -> None:
    found = later(entry(0, 60.0, 12.0, **more)).iloc[1]
    assert (found[LOW], found[HIGH]) == pytest.approx(bounds, nan_ok=True)


def test_only_the_p99_of_a_later_measurement_is_opened_by_what_is_said_of_the_p99() -> None:
    told = {"intervals": {P50: [1.0, 2.0], P99: [11.0, 13.0]}, "p99_interval_bounded": False}
    found = later(entry(0, 60.0, 12.0, **told)).iloc[1]
    assert (found["latency_p50_low_ms"], found["latency_p50_high_ms"]) == (1.0, 2.0)


def test_what_a_later_measurement_lacks_is_empty_and_what_it_says_is_kept() -> None:
    found = later(entry(0, None, None)).iloc[1]
    assert found["again_s"] == 0 and math.isnan(found[P99]) and found[ENERGY] == 0.5
    counted = {P99: 1.0, "throughput_rps": 19.0, "error_rate": 0.05}
    assert later({"trial": 0, "window_s": 10.0, "metrics": counted}).iloc[1]["requests"] == 200
    assert later(entry(0, 60.0, 1.0, target_rate_rps=25, drift="rose", memory_peak_mb=700,
                       batch_rows_mean=3.5), rows=[{"target_rate_rps": 20.0, "memory_peak_mb": 600.0,
                       "batch_rows_mean": 1.0, P99: 1.0}]).iloc[1][
        ["target_rate_rps", "drift", "memory_peak_mb", "batch_rows_mean"]
    ].tolist() == [25, "rose", 700, 3.5]
    told = later(entry(
        0, 60.0, 12.0, requests=1500, disturbed="busy", date="2026-01-02T03:04:05+00:00",
        energy_basis={"source": "rapl"},
    ), rows=[{P99: 1.0, "started": pd.Timestamp("2026-01-01"), "energy_basis": None}]).iloc[1]
    assert (told["requests"], told["disturbed"]) == (1500, "busy")
    assert told["started"] == pd.Timestamp("2026-01-02 03:04:05")
    assert told["energy_basis"] == '{"source": "rapl"}'


def test_a_measurement_longer_than_all_others_together_stands_for_them() -> None:
    rows = [{P99: 10.0}, {P99: 20.0, "window_s": 7.0}]
    stands = pool(study(rows, measured_again=[entry(1, 12.1, 50.0)])).iloc[0]
    assert (stands[P99], stands["number"], stands["again_s"]) == (50, 1, 12.1)
    assert (stands["again"], stands["repeats"], stands["window_s"]) == (1, 2, 12.1)
    joins = pool(study(rows, measured_again=[entry(1, 12.0, 50.0)])).iloc[0]
    assert joins[P99] == pytest.approx(80 / 3) and (joins["number"], joins["again"]) == (0, 1)
    assert joins["window_s"] == 24 and math.isnan(joins["again_s"])


def test_a_trial_that_failed_weighs_no_seconds_against_a_later_measurement() -> None:
    rows = [{P99: 10.0}, {"reason": "errors", "window_s": 100.0}]
    stands = pool(study(rows, measured_again=[entry(0, 6.0, 50.0, violations={"x": 0.5})])).iloc[0]
    assert stands[P99] == 50 and stands["valid"] and not stands["feasible"]
    assert stands["failures"] == 1 and stands["reason"] is None


def test_a_later_measurement_without_a_word_leaves_feasibility_and_requests_as_they_are() -> None:
    stands = pool(study([{P99: 10.0}], measured_again=[entry(0, 60.0, 50.0, requests=900)])).iloc[0]
    assert stands["feasible"] and stands["requests"] == 900
    rows = [{P99: 10.0, "feasible": False}]
    assert not pool(study(rows, measured_again=[entry(0, 60.0, 5.0)])).iloc[0]["feasible"]


def test_of_a_table_without_windows_the_seconds_of_the_later_measurements_decide() -> None:
    table = study([{P99: 10.0}], measured_again=[entry(0, 0.5, 50.0)]).drop(columns="window_s")
    assert pool(table)[P99].tolist() == [50]


# Ends that are not known.


def ends(**more: Any) -> pd.DataFrame:
    return pd.DataFrame({
        P99: [10.0] * 4, LOW: [9.0, 9.0, NAN, 9.0], HIGH: [12.0, INF, INF, 15.0],
        "latency_max_ms": [12.5, 12.5, 12.5, 15.0], **more,
    })


def test_an_end_is_open_where_it_is_infinite_or_was_the_largest_latency() -> None:
    table = ends()
    assert open_above(table, P99).tolist() == [False, True, True, True]
    assert open_above(table.drop(columns="latency_max_ms"), P99).tolist() == [False, True, False, False]
    told = ends(p99_interval_bounded=[False, True, False, None])
    assert open_above(told, P99).tolist() == [True, True, False, False]
    assert open_above(ends(p99_interval_bounded=[0, 1, 1, 1]), P99).tolist() == [True, True, False, False]


def test_only_percentiles_end_at_the_largest_latency() -> None:
    table = pd.DataFrame({RATE: [1.0, 1.0], "throughput_low_rps": [0.5, 0.5],
                          "throughput_high_rps": [20.0, INF], "latency_max_ms": [5.0, 5.0]})
    assert open_above(table, RATE).tolist() == [False, True]
    half = pd.DataFrame({P50: [1.0, 1.0], "latency_p50_low_ms": [0.5, 0.5],
                         "latency_p50_high_ms": [4.9, 5.0], "latency_max_ms": [5.0, 5.0],
                         "p99_interval_bounded": [False, False]})
    assert open_above(half, P50).tolist() == [False, True]


def test_open_ends_become_infinite_and_are_named() -> None:
    table = opened(ends())
    assert table[HIGH].tolist() == [12, INF, INF, INF]
    assert open_metrics(table, [P99]).tolist() == [(), (P99,), (), (P99,)]
    both = table.assign(energy_per_request_low_j=[0.5, 0.5, 0.5, NAN],
                        energy_per_request_high_j=[1.0, INF, 1.0, INF], **{ENERGY: 0.7})
    assert open_metrics(both, [P99, ENERGY]).tolist() == [(), (P99, ENERGY), (), (P99,)]


def test_an_unknown_end_is_counted_as_far_above_as_the_other_is_below() -> None:
    found = mirrored([10.0, 10.0, 3.0, 3.0, 1.0], [5.0, 5.0, -2.0, 0.0, 0.5], [INF, 12.0, INF, INF, INF])
    assert found.tolist() == [20, 12, 8, 6, 2]
    low, high = counted(ends(), P99)
    assert low.tolist() == pytest.approx([9, 9, NAN, 9], nan_ok=True)
    assert high[:2].tolist() == pytest.approx([12, 100 / 9]) and high[3] == 15


# Limits.


@pytest.mark.parametrize("sign", ["<=", ">="])
@pytest.mark.parametrize(
    ("value", "low", "high", "bound", "below"),
    [
        (10.0, 5.0, 40.0, 20.0, norm.cdf(1.959964 / 2)),  # half-way up on the logarithm
        (10.0, 5.0, 40.0, math.sqrt(50), norm.cdf(-1.959964 / 2)),  # half-way down
        (0.5, 0.25, 1.0, math.sqrt(0.5), norm.cdf(1.959964 / 2)),
        (10.0, 0.0, 40.0, 25.0, norm.cdf(1.959964 / 2)),  # no logarithm of zero
        (-10.0, -12.0, -4.0, -7.0, norm.cdf(1.959964 / 2)),
        (10.0, 5.0, 40.0, 0.0, norm.cdf(-2 * 1.959964)),
        (10.0, 5.0, 40.0, -5.0, norm.cdf(-3 * 1.959964)),
        (0.0, -1.0, 2.0, 1.0, norm.cdf(1.959964 / 2)),
        (10.0, 0.0, INF, 20.0, 0.5 + math.atan(1.959964) / math.pi),
        (10.0, 10.0, 12.0, 9.0, 0.0), (10.0, 10.0, 12.0, 11.0, norm.cdf(
            1.959964 * math.log(1.1) / math.log(1.2))),
        (10.0, 9.0, 10.0, 11.0, 1.0), (10.0, 10.0, 12.0, 10.0, 0.5),
    ],
)
def test_a_limit_holds_as_the_two_sides_of_the_interval_say(
    sign: str, value: float, low: float, high: float, bound: float, below: float
) -> None:
    found = hold_probability(value, low, high, bound, sign)
    assert found == pytest.approx(below if sign == "<=" else 1 - below, abs=1e-6)


def test_a_value_exactly_on_its_bound_keeps_it_on_both_sides() -> None:
    for sign in ("<=", ">="):
        assert hold_probability(10.0, 10.0, 10.0, 10.0, sign) == 1.0
    assert hold_probability(9.9, 9.9, 9.9, 10.0, ">=") == 0.0


def test_limits_of_several_rows_are_judged_each_for_itself() -> None:
    found = hold_probabilities([10.0, NAN, 10.0], [9.0, 1.0, NAN], [11.0, 2.0, NAN], 10.0, "<=")
    assert found.tolist() == pytest.approx([0.5, NAN, NAN], nan_ok=True)


def test_a_limit_counts_as_kept_from_ninety_percent_on() -> None:
    assert KEPT == 0.9


@pytest.mark.parametrize(("bound", "chance"), [(-0.1, 0.0), (0.0, 0.0), (1.0, 1.0), (1.5, 1.0)])
def test_bounds_of_a_share_beyond_all_and_nothing_are_certain(bound: float, chance: float) -> None:
    assert error_rate_probabilities([1], [10], bound, "<=").tolist() == [chance]


def test_the_interval_of_a_share_begins_at_nothing_and_ends_at_all() -> None:
    low, high = error_rate_interval([0, 5, 1], [5, 5, 2])
    # Of Beta(1.5, 1.5), symmetric about one half.
    assert low[0] == 0 and high[1] == 1 and low[2] + high[2] == pytest.approx(1)
    assert high[0] + low[1] == pytest.approx(1) and 0.3 < high[0] < 0.5


def rates(requests: list[float], rate: list[float], **more: Any) -> pd.DataFrame:
    return pd.DataFrame({"error_rate": rate, "requests": requests, **more})


def test_of_an_error_rate_without_a_count_of_requests_nothing_is_known() -> None:
    limit = Limit("error_rate", "<=", 0.01)
    found = with_limits(rates([0.0, NAN, 0.0, 200.0], [0.01, 0.02, NAN, 0.0]), [limit])
    assert [p for (p,) in found["limit_probability"]] == pytest.approx(
        [NAN, NAN, NAN, 0.95517], abs=1e-4, nan_ok=True)
    assert found["limit_unknown"].tolist() == [(str(limit),), (str(limit),), (), ()]
    low, high = found["error_low_rate"], found["error_high_rate"]
    assert low.isna().tolist() == high.isna().tolist() == [True, True, True, False]
    counted_two = with_limits(rates([200.0], [0.01]), [limit]).iloc[0]
    assert counted_two["limit_probability"] == pytest.approx(
        tuple(error_rate_probabilities([2], [200], 0.01, "<=")))
    ends = np.concatenate(error_rate_interval([2], [200]))
    assert (counted_two["error_low_rate"], counted_two["error_high_rate"]) == pytest.approx(tuple(ends))


def test_one_request_is_a_count_too() -> None:
    limit = Limit("error_rate", "<=", 0.5)
    found = with_limits(rates([1.0], [0.0]), [limit])
    assert found["limit_unknown"].tolist() == [()]
    assert found["error_high_rate"].tolist() == error_rate_interval([0], [1])[1].tolist()
    assert found["limits_probability"].tolist() == pytest.approx(
        error_rate_probabilities([0], [1], 0.5, "<=").tolist())


def test_what_rests_on_an_assumption_is_named() -> None:
    table = pd.DataFrame({P99: [10.0, 10.0, 10.0, 10.0, NAN], LOW: [9.0, 9.0, NAN, NAN, NAN],
                          HIGH: [11.0, INF, NAN, 12.0, NAN]})
    above, at = Limit(P99, "<=", 10.5), Limit(P99, "<=", 10.0)
    assert with_limits(table, [above])["limit_unknown"].tolist() == [
        (), (str(above),), (str(above),), (str(above),), ()]
    assert with_limits(table, [at])["limit_unknown"].tolist() == [
        (), (), (str(at),), (str(at),), ()]


def test_without_limits_all_are_kept_and_failures_still_count() -> None:
    table = pd.DataFrame({P99: [10.0, 11.0], "repeats": [1, 1], "failures": [0, 1]})
    found = with_limits(table, [])
    assert found["limit_probability"].tolist() == [(), ()] == found["limit_unknown"].tolist()
    assert found["limits_probability"].tolist() == [1.0, 0.5] == found["measured_share"].tolist()
    assert with_limits(table[[P99]], [])["measured_share"].tolist() == [1, 1]


# What is known of all.


def test_a_later_measurement_that_does_not_say_counts_neither_for_nor_against_the_constraints() -> None:
    rows = [{P99: 10.0, "window_s": 60.0}]
    (row,) = pool(study(rows, measured_again=[entry(0, 6.0, 11.0)])).to_dict(orient="records")
    assert row["feasible"] and row["again"] == 1
    rows[0]["feasible"] = False
    (row,) = pool(study(rows, measured_again=[entry(0, 6.0, 11.0)])).to_dict(orient="records")
    assert not row["feasible"]


def test_how_many_requests_an_entry_had_is_unknown_where_all_failed() -> None:
    told = {"throughput_rps": 50.0, "error_rate": 0.5}
    assert _requests(told, 4.0) == 400
    assert _requests({**told, "error_rate": 1.0}, 4.0) is None


def test_a_later_measurement_that_failed_does_not_stand_beside_those_that_do() -> None:
    failed = {"trial": 0, "window_s": 30.0, "metrics": {}, "reason": "overloaded"}
    table = study([{P99: 10.0, "window_s": 9.0}], measured_again=[
        entry(0, 6.0, 20.0, violations={}), failed, entry(0, 6.0, 22.0, violations={}),
    ])
    (row,) = pool(table).to_dict(orient="records")
    assert row[P99] == pytest.approx(21.0) and row["again_s"] == 12.0
    assert (row["repeats"], row["again"], row["failures"]) == (1, 2, 1)
    assert row["measurements"] == 2 and row["feasible"]


def test_as_many_failures_as_measurements_are_just_borne() -> None:
    rows = [{"k": 1, "reason": "crash"}, {"k": 2, "reason": "crash"}, {"k": 2, "reason": "errors"},
            {"k": 2, "reason": "client_limited"}]
    table = study(rows, measured_again=[
        entry(0, 60.0, 10.0, violations={}), entry(1, 60.0, 5.0, violations={}),
    ])
    found = front_of(table, [P99, ENERGY], ["minimize", "minimize"])
    assert found["failures"].tolist() == [1, 2]
    assert found["measured_share"].tolist() == [0.5, 0.375]
    assert found["usable"].tolist() == [True, False] and found["measured"].tolist() == [True, True]
    assert found["choice"].tolist() == [True, False]


def test_a_front_is_of_what_keeps_the_limits_and_has_its_volume() -> None:
    rows = [{"k": 1, P99: 10.0, ENERGY: 3.0}, {"k": 2, P99: 20.0, ENERGY: 1.0},
            {"k": 3, P99: 40.0, ENERGY: 0.1}, {"k": 4, P99: 5.0, ENERGY: 9.0, "feasible": False}]
    table = study(rows, space={"constraints": ["latency_p99_ms <= 30", "unheard_of <= 1"]})
    found = front_of(table, [P99, ENERGY], ["minimize", "minimize"], limits=[Limit(ENERGY, "<=", 5.0)])
    assert found["on_front"].tolist() == [True, True, False, False]
    assert found.attrs["limits"] == ["energy_per_request_j <= 5", "latency_p99_ms <= 30"]
    assert found.attrs["asked"] == ["energy_per_request_j <= 5"]
    assert found.attrs["reference"] == [20.0, 3.0] and found.attrs["hypervolume"] == 0
    volume = front_of(table, [P99, ENERGY], ["minimize", "minimize"], reference=[30.0, 4.0])
    assert volume.attrs["hypervolume"] == (30 - 10) * (4 - 3) + (30 - 20) * (3 - 1)
    assert found["choice"].tolist() == [True, False, False, False]
    assert found["group"].tolist() == [1, 2, 0, 0] and found.attrs["refuted"] == []


def test_where_nothing_is_usable_there_is_no_choice_no_volume_and_no_group() -> None:
    rows = [{"k": 1, P99: 10.0, "feasible": False}, {"k": 2, P99: 12.0, "feasible": False}]
    found = front_of(study(rows), [P99, ENERGY], ["minimize"] * 2)
    assert found.attrs["choice"] is None and found.attrs["hypervolume"] is None
    assert found["choice"].tolist() == [False] * 2 and found["group"].tolist() == [0, 0]


def test_more_is_better_where_an_objective_says_so() -> None:
    rows = [{"k": 1, P99: 10.0, RATE: 1.0}, {"k": 2, P99: 20.0, RATE: 5.0}, {"k": 3, P99: 30.0, RATE: 4.0}]
    found = front_of(study(rows), [P99, RATE], ["minimize", "maximize"], reference=[40.0, 0.0])
    assert found["on_front"].tolist() == [True, True, False]
    assert found.attrs["hypervolume"] == 30 * 1 + 20 * 4


def test_what_a_later_measurement_changed_is_told_of_each_that_was_measured_again() -> None:
    rows = [{"k": 1, P99: 10.0, ENERGY: 1.0}, {"k": 2, P99: 20.0, ENERGY: 2.0},
            {"k": 3, P99: 30.0, ENERGY: 0.5}, {"k": 4, P99: 35.0, ENERGY: 3.0}]
    table = study(rows, space={"constraints": ["latency_p99_ms <= 50"]}, measured_again=[
        {"trial": 0, "window_s": 60.0, "metrics": {P99: 60.0, ENERGY: 1.0},
         "intervals": {P99: [55.0, None]}},
        {"trial": 1, "window_s": 60.0, "metrics": {P99: 15.0, ENERGY: 2.0}},
        {"trial": 2, "window_s": 60.0, "metrics": {P99: 31.0, ENERGY: 0.5}},
        {"trial": 3, "window_s": 60.0, "metrics": {P99: 36.0, ENERGY: 3.0}},
    ])
    first, second, third, fourth = front_of(table, [P99, ENERGY], ["minimize", "minimize"]).attrs["refuted"]
    assert (first["trial"], first["left"], first["joined"]) == (0, True, False)
    assert first["beyond"] == ["latency_p99_ms <= 50"]
    assert first["metrics"][P99]["then"] == pytest.approx((10.0, NAN, NAN), nan_ok=True)
    assert first["metrics"][P99]["now"] == (60.0, 55.0, INF)
    assert (second["trial"], second["left"], second["joined"]) == (1, False, True)
    for same in (third, fourth):  # one on the front before and after, one never
        assert (same["left"], same["joined"], same["beyond"]) == (False, False, [])
    assert second["beyond"] == [] and set(second["metrics"]) == {P99, ENERGY}


def test_a_new_measurement_is_told_by_its_own_value_beside_what_is_known_of_all() -> None:
    rows = [timed(10.0, 0.1), timed(12.0, 0.1)]
    later = [entry(0, 4.0, 17.0, intervals={P99: [16.0, 18.0]}), entry(0, 2.0, 14.0, disturbed="busy")]
    (told,) = front_of(study(rows, measured_again=later), [P99], ["minimize"]).attrs["refuted"]
    assert (told["again"], told["measurements"]) == (1, 3)
    held = told["metrics"][P99]
    assert held["then"][0] == 11 and held["again"] == (17, 16, 18) and held["now"][0] == 13


def test_trials_are_counted_by_how_they_ended() -> None:
    rows = [{P99: 1.0}, {P99: 1.0, "feasible": False}, {"reason": "crash"}, {"reason": "crash"},
            {P99: 1.0, "disturbed": "busy"}, {P99: 1.0, "disturbed": ""}, {"reason": "errors"}]
    table = study(rows)
    assert counts(table, table.iloc[:2]) == {
        "finished": 7, "configurations": 2, "feasible": 3, "beyond_a_constraint": 1,
        "failed": {"crash": 2, "errors": 1}, "disturbed": 1, "drifted": {},
    }
    assert counts(table.drop(columns="disturbed"), table)["disturbed"] == 0
