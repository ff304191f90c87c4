"""Repeats of a configuration become one row that says how far they agree."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tuner import store
from tuner.analysis.fronts import mark_front
from tuner.analysis.noise import noise_of, same_configuration
from tuner.analysis.recording import sisters
from tuner.analysis.repeats import pool
from tuner.space_file import parse

P99, ENERGY = "latency_p99_ms", "energy_per_request_j"


def trials(rows: list[dict[str, Any]], **attrs: Any) -> pd.DataFrame:
    """A study of one knob ``size``: p99 with an interval of ``half`` ms on both sides."""
    filled = []
    for number, row in enumerate(rows):
        p99, half = row.get("p99", np.nan), row.get("half", np.nan)
        filled.append({
            "number": number, "size": row["size"], P99: p99, "latency_p99_low_ms": p99 - half,
            "latency_p99_high_ms": p99 + half, ENERGY: row.get("energy", np.nan),
            "throughput_rps": row.get("rps", np.nan),
            "valid": "reason" not in row, "reason": row.get("reason"),
            "feasible": row.get("feasible", "reason" not in row), "window_s": 5.0,
            "energy_basis": None,
            "started": pd.Timestamp("2026-01-01") + pd.Timedelta(seconds=10 * number),
        })
    table = pd.DataFrame(filled)
    table.attrs.update(name="s", parameters=["size"], **attrs)
    return table


def test_repeats_become_one_row_with_their_mean_and_all_their_trials() -> None:
    pooled = pool(trials([
        {"size": 1, "p99": 10.0, "energy": 1.0}, {"size": 2, "p99": 20.0, "energy": 3.0},
        {"size": 1, "p99": 12.0, "energy": 1.2}, {"size": 2, "p99": 22.0, "energy": 3.2},
    ]))
    assert pooled["size"].tolist() == [1, 2] and pooled["number"].tolist() == [0, 1]
    assert pooled[P99].tolist() == [11, 21] and pooled[ENERGY].tolist() == pytest.approx([1.1, 3.1])
    assert pooled["trials"].tolist() == [(0, 2), (1, 3)] and pooled["repeats"].tolist() == [2, 2]


def test_true_and_one_are_not_the_same_configuration_and_an_inactive_knob_is_none() -> None:
    table = pd.DataFrame({"a": pd.Series([True, 1, 1.0, None, np.nan], dtype=object)})
    assert same_configuration(table, ["a"]).tolist() == [0, 1, 2, 3, 3]


def test_interval_holds_the_true_mean_though_the_stages_know_nothing_of_the_runs() -> None:
    rng = np.random.default_rng(5)
    held = []
    for _ in range(60):
        rows = []
        for _ in range(2):
            for size in range(8):
                p99 = (10 + size) * np.exp(rng.normal(0, 0.10) + rng.normal(0, 0.02))
                rows.append({"size": size, "p99": p99, "half": 1.96 * 0.02 * p99})
        pooled = pool(trials(rows))
        truth = 10 + pooled["size"].astype(float)
        held += ((pooled["latency_p99_low_ms"] <= truth) & (truth <= pooled["latency_p99_high_ms"])
                 ).tolist()
    # The stages' own intervals, 2 % wide, would hold the truth in about a third of the cases.
    assert 0.90 <= np.mean(held) <= 0.99


def test_a_metric_without_intervals_gets_one_from_repeats() -> None:
    rows = [{"size": s, "p99": 5.0, "energy": e, "rps": 50.0 + s}
            for s, e in [(1, 1.0), (2, 2.0), (1, 1.1), (2, 2.2)]]
    pooled = pool(trials(rows))
    low, high = pooled["energy_per_request_low_j"], pooled["energy_per_request_high_j"]
    # s of ln = ln(1.1)/sqrt(2) each, two degrees of freedom: t = 4.303.
    assert np.log(high / pooled[ENERGY]).tolist() == pytest.approx([4.3027 * np.log(1.1) / 2] * 2, rel=1e-3)
    assert (low < pooled[ENERGY]).all()


def test_one_with_many_repeats_elsewhere_gets_the_noise_of_the_study() -> None:
    rows = [{"size": s, "p99": p * (10 + s), "half": 0.1} for p in (0.9, 1.1) for s in range(5)]
    pooled = pool(trials([*rows, {"size": 9, "p99": 30.0, "half": 0.1}])).set_index("size")
    assert pooled.loc[9, "latency_p99_low_ms"] < 25
    assert pooled.loc[9, "latency_p99_high_ms"] > 36
    alone = pool(trials([*rows[:2], rows[5], {"size": 9, "p99": 30.0, "half": 0.1}])).set_index("size")
    assert alone.loc[9, "latency_p99_high_ms"] == pytest.approx(30.1)


def test_without_repeats_nothing_changes() -> None:
    table = trials([{"size": 1, "p99": 10.0, "half": 1.0}, {"size": 2, "reason": "crash"}])
    pooled = pool(table)
    pd.testing.assert_frame_equal(pooled[table.columns], table)
    assert pooled["failures"].tolist() == [0, 1] and pooled.attrs["noise"] == []


def test_repeats_that_differ_more_than_their_intervals_say_are_named() -> None:
    pooled = pool(trials([
        {"size": 1, "p99": 10.0, "half": 0.5}, {"size": 2, "p99": 20.0, "half": 3.0},
        {"size": 1, "p99": 14.0, "half": 0.5}, {"size": 2, "p99": 22.0, "half": 3.0},
    ]))
    assert pooled["discord"].tolist() == [(P99,), ()]


def test_drift_over_the_study_is_seen_and_none_is_not() -> None:
    rng = np.random.default_rng(1)

    def study(drift: float) -> pd.DataFrame:
        return trials([
            {"size": s, "p99": 10 * (1 + s) * (1 + drift * i) * np.exp(rng.normal(0, 0.01))}
            for i, s in enumerate([*range(10)] * 3)
        ])

    for drift, drifted in ((0.01, True), (0.0, False)):
        table = study(drift)
        noise = noise_of(table, P99, same_configuration(table, ["size"]))
        assert noise is not None and noise.drift_p_value is not None
        assert (noise.drift_p_value < 0.01) == drifted
    # 1 % a trial over the 20 trials between a configuration's first and last repeat, and so on.
    assert noise.degrees == 20 and abs(noise.drift) < 0.03


def test_noise_splits_into_what_the_stages_tell_and_the_rest() -> None:
    rng = np.random.default_rng(2)
    rows = []
    for _ in range(3):
        for s in range(60):
            p99 = 10 * np.exp(rng.normal(0, 0.08) + rng.normal(0, 0.06))
            rows.append({"size": s, "p99": p99, "half": 1.96 * 0.06 * p99})
    table = trials(rows)
    noise = noise_of(table, P99, same_configuration(table, ["size"]))
    assert noise is not None and noise.relative and noise.configurations == 60
    assert noise.deviation == pytest.approx(0.10, rel=0.15)
    assert noise.within == pytest.approx(0.06, rel=0.05)
    assert noise.between == pytest.approx(0.08, rel=0.25)


def test_values_at_or_below_zero_have_an_absolute_noise() -> None:
    table = trials([{"size": 1, "p99": v} for v in (-1.0, 1.0)])
    noise = noise_of(table, P99, same_configuration(table, ["size"]))
    assert noise is not None and not noise.relative and noise.deviation == pytest.approx(2**0.5)


@pytest.mark.parametrize(
    ("reasons", "valid"),
    [((None, "crash"), False), ((None, None, "crash"), False), (("crash", "crash"), False),
     ((None, "client_limited"), True), (("client_limited",) * 2, False), ((None, None), True)],
)
def test_a_configuration_is_valid_when_it_was_measured_and_no_trial_of_it_failed(
    reasons: tuple[str | None, ...], valid: bool
) -> None:
    rows = [{"size": 1, **({"p99": 10.0} if r is None else {"reason": r})} for r in reasons]
    (row,) = pool(trials(rows)).to_dict(orient="records")
    assert (row["valid"], row["feasible"]) == (valid, valid)
    assert (row["reason"] is None) == valid
    assert row["failures"] == sum(r == "crash" for r in reasons)  # the load generator's are none


def test_a_study_and_its_list_mean_the_same_by_valid() -> None:
    from types import SimpleNamespace

    from tuner.cli._recorded import is_valid

    for reasons in ((None, "crash"), (None, "internal"), ("internal",), (None, None, "errors")):
        rows = [{"size": 1, **({"p99": 10.0} if r is None else {"reason": r})} for r in reasons]
        records = [SimpleNamespace(state="failed" if r else "complete", reason=r) for r in reasons]
        assert pool(trials(rows))["valid"].tolist() == [is_valid(records)]


def again(trial: int, window_s: float, p99: float, **more: Any) -> dict[str, Any]:
    return {"trial": trial, "window_s": window_s, "metrics": {P99: p99, ENERGY: 0.7},
            "intervals": {P99: [p99 - 0.2, p99 + 0.2]}, **more}


def test_a_longer_measurement_stands_for_the_trials_and_says_so() -> None:
    rows = [{"size": 1, "p99": 10.0, "half": 2.0, "energy": 1.0}, {"size": 2, "p99": 30.0}]
    entries = [again(0, 60.0, 12.0), again(0, 20.0, 99.0)]
    pooled = pool(trials(rows, measured_again=entries))
    first = pooled.iloc[0]
    assert (first[P99], first[ENERGY], first["again_s"]) == (12.0, 0.7, 60.0)
    assert (first["latency_p99_low_ms"], first["latency_p99_high_ms"]) == (11.8, 12.2)
    assert np.isnan(pooled.iloc[1]["again_s"]) and pooled.iloc[1][P99] == 30


def test_a_later_measurement_that_is_not_the_longest_counts_as_a_further_repeat() -> None:
    rows = [{"size": 1, "p99": 10.0, "energy": 1.0}, {"size": 2, "p99": 30.0}]
    pooled = pool(trials(rows, measured_again=[again(0, 4.0, 12.0)]))
    assert pooled[P99].tolist() == [11.0, 30.0] and pooled["again_s"].isna().all()
    assert (pooled["again"].tolist(), pooled["measurements"].tolist()) == ([1, 0], [2, 1])
    assert (pooled["trials"].tolist(), pooled["repeats"].tolist()) == ([(0,), (1,)], [1, 1])
    # Two values of one configuration tell the noise: one degree of freedom, t = 12.706.
    between = np.log(1.2) / 2**0.5
    assert np.log(pooled["latency_p99_high_ms"][0] / 11) == pytest.approx(
        12.7062 * between / 2**0.5, rel=1e-3)


def test_two_later_measurements_of_like_length_stand_for_the_trials_together() -> None:
    entries = [again(0, 30.0, 12.0), again(0, 30.0, 17.0)]
    pooled = pool(trials([{"size": 1, "p99": 10.0}], measured_again=entries))
    assert pooled[P99].tolist() == [14.5] and pooled["window_s"].tolist() == [60.0]
    assert (pooled["again"].tolist(), pooled["again_s"].tolist()) == ([2], [60.0])


def test_a_longer_measurement_decides_whether_constraints_are_kept() -> None:
    rows = [{"size": 1, "p99": 10.0}, {"size": 2, "reason": "errors"}]
    entries = [again(0, 60.0, 12.0, violations={"latency_p99_ms <= 11": 0.09}),
               again(1, 60.0, 9.0, violations={"latency_p99_ms <= 11": -0.2},
                     energy_basis={"source": "rapl"})]
    pooled = pool(trials(rows, measured_again=entries))
    assert pooled["feasible"].tolist() == [False, True] and pooled["valid"].tolist() == [True, True]
    assert pooled["failures"].tolist() == [0, 1] and pooled["again"].tolist() == [1, 1]
    assert json.loads(pooled["energy_basis"].iloc[1]) == {"source": "rapl"}


def test_no_trial_gives_no_row() -> None:
    assert len(pool(trials([{"size": 1, "p99": 1.0}]).iloc[:0])) == 0


def test_a_member_whose_energy_error_is_unknown_is_not_certain() -> None:
    table = trials([{"size": 1, "p99": 10.0, "half": 0.1, "energy": 1.0},
                    {"size": 2, "p99": 20.0, "half": 0.1, "energy": 0.5}])
    marked = mark_front(pool(table), [P99, ENERGY])
    assert marked["front_probability"].tolist() == [1, 1]
    assert marked["interval_unknown"].tolist() == [(ENERGY,), (ENERGY,)]
    assert not marked["certain"].any()
    for bound, factor in (("low", 0.99), ("high", 1.01)):
        table[f"energy_per_request_{bound}_j"] = table[ENERGY] * factor
    assert mark_front(table, [P99, ENERGY])["certain"].all()


def open_trials(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """As ``trials``; the stored upper bound is the largest latency."""
    table = trials(rows)
    table["latency_p99_high_ms"] = table[P99] + 0.1
    table["latency_max_ms"] = table["latency_p99_high_ms"]
    table["energy_per_request_low_j"] = table["energy_per_request_high_j"] = table[ENERGY]
    return table


ROWS = [{"size": 1, "p99": 10.0, "half": 2.0, "energy": 1.0},
        {"size": 2, "p99": 10.5, "half": 0.2, "energy": 1.0}]


def test_an_interval_without_upper_bound_has_an_infinite_end_and_is_never_certain() -> None:
    table = open_trials([ROWS[0], {**ROWS[1], "p99": 30.0}])
    pooled = pool(table)
    assert pooled["interval_open"].tolist() == [(P99,), (P99,)]
    assert pooled["latency_p99_high_ms"].tolist() == [np.inf, np.inf]
    marked = mark_front(pooled, [P99, ENERGY])
    assert marked["front_probability"].tolist() == [1, 0] and not marked["certain"].any()
    bounded = pool(table.assign(p99_interval_bounded=True))
    assert bounded["latency_p99_high_ms"].tolist() == pytest.approx([10.1, 30.1])
    assert mark_front(bounded, [P99, ENERGY])["certain"].tolist() == [True, False]


def test_an_open_interval_counts_in_the_front_as_far_as_its_lower_side_reaches() -> None:
    table = open_trials(ROWS)
    as_stored = mark_front(table, [P99, ENERGY])["front_probability"]
    pooled = mark_front(pool(table), [P99, ENERGY])["front_probability"]
    assert as_stored[0] > 0.95 and 0.5 < pooled[0] < 0.85


def test_repeats_do_not_close_an_end_that_no_stage_knows() -> None:
    """Short windows miss the same slow requests, however little they differ."""
    rows = [{"size": s, "p99": p * 10, "half": 0.1} for p in (0.8, 1.2) for s in range(6)]
    pooled = pool(open_trials(rows))
    assert pooled["interval_open"].tolist() == [(P99,)] * 6
    assert pooled["latency_p99_high_ms"].tolist() == [np.inf] * 6
    assert (pooled["latency_p99_low_ms"] < 10).all()


def test_a_longer_measurement_without_upper_bound_says_so() -> None:
    entry = again(0, 60.0, 12.0, p99_interval_bounded=False)
    entry["intervals"] = {P99: [10.0, 12.1]}
    pooled = pool(trials(ROWS[:1], measured_again=[entry]))
    assert pooled["interval_open"].tolist() == [(P99,)]
    assert pooled["latency_p99_high_ms"].tolist() == [np.inf]
    entry = again(0, 60.0, 12.0)
    entry["intervals"] = {P99: [10.0, None]}
    assert pool(trials(ROWS[:1], measured_again=[entry]))["latency_p99_high_ms"].tolist() == [np.inf]


def test_thin_noise_is_pooled_over_the_studies_of_a_recording() -> None:
    def level(factor: float, repeated: int) -> pd.DataFrame:
        again = [{"size": s, "p99": factor * (10 + s), "half": 0.1} for s in range(repeated)]
        first = [{"size": s, "p99": 1.2 * (10 + s), "half": 0.1} for s in range(8)]
        return trials([*first, *again])

    alone = pool(level(1.0, 2)).set_index("size")
    assert alone.loc[7, "latency_p99_high_ms"] == pytest.approx(1.2 * 17 + 0.1)
    assert P99 in pool(level(1.0, 2)).attrs["noise_unknown"]
    together = pool(level(1.0, 2), lambda: [level(1.0, 2), level(0.9, 3)])
    (noise,) = [n for n in together.attrs["noise"] if n["metric"] == P99]
    assert (noise["degrees"], noise["studies"]) == (7, 3)
    expected = ((4 * np.log(1.2) ** 2 + 3 * np.log(1.2 / 0.9) ** 2) / 2 / 7) ** 0.5
    assert noise["deviation"] == pytest.approx(expected)
    assert together.set_index("size").loc[7, "latency_p99_high_ms"] > 1.2 * 17 * np.exp(2 * expected)
    assert P99 not in together.attrs["noise_unknown"]


def test_a_study_without_repeats_has_the_noise_of_its_sisters() -> None:
    def level(factors: tuple[float, ...]) -> pd.DataFrame:
        return trials([{"size": s, "p99": f * 10, "half": 0.1} for f in factors for s in range(6)])

    pooled = pool(level((1.0,)), lambda: [level((0.9, 1.1))])
    assert pooled["repeats"].tolist() == [1] * 6 and P99 not in pooled.attrs["noise_unknown"]
    assert (pooled["latency_p99_high_ms"] > 13).all()
    (noise,) = [n for n in pooled.attrs["noise"] if n["metric"] == P99]
    assert (noise["studies"], noise["degrees"], noise["drift_p_value"]) == (1, 6, None)
    apart = pool(level((1.0,)), lambda: [level((1.0,))])
    assert apart["latency_p99_high_ms"].tolist() == pytest.approx([10.1] * 6)


def test_a_study_that_tells_its_own_noise_does_not_ask_its_sisters() -> None:
    rows = [{"size": s, "p99": p * 10, "half": 0.1, "energy": p, "rps": p}
            for p in (0.8, 1.2) for s in range(6)]

    def sisters() -> list[pd.DataFrame]:
        raise AssertionError("asked")

    assert len(pool(trials(rows), sisters)) == 6


def test_sisters_are_the_other_levels_on_the_same_machine(tmp_path: Path) -> None:
    url, space = f"sqlite:///{tmp_path / 'r.db'}", parse("parameters: {size: {values: [1, 2]}}")
    for name, machine in [("r@load=light", "m"), ("r@load=high", "m"), ("r@load=low", "other"),
                          ("q@load=high", "m"), ("r2", "m")]:
        store.Store.create(url, name, space, {"machine": machine})
    assert [t.attrs["name"] for t in sisters(url, "r@load=light")] == ["r@load=high"]
    assert sisters(url, "r2") == [] and sisters(url, "gone@load=x") == []
