"""The choice by default follows its rule, and members that are not told apart are one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from tuner.analysis.choice import choose, groups, told_apart
from tuner.analysis.fronts import mark_front
from tuner.analysis.ranks import (
    expected_shortfall,
    former_rank,
    requests_by_former_rule,
    right_rank,
)

P99, ENERGY = "latency_p99_ms", "energy_per_request_j"
OBJECTIVES = [P99, ENERGY]
DEFAULTS = {"size": 1, "threads": 2}


def marked(rows: list[tuple[float, float]], half: float = 0.0, **more: Any) -> pd.DataFrame:
    p99, energy = (np.array(column, dtype=float) for column in zip(*rows))
    table = pd.DataFrame({
        "number": range(len(rows)), P99: p99, "latency_p99_low_ms": p99 / (1 + half),
        "latency_p99_high_ms": p99 * (1 + half), ENERGY: energy,
        "energy_per_request_low_j": energy / (1 + half),
        "energy_per_request_high_j": energy * (1 + half), "size": [1] * len(rows),
        "threads": [2] * len(rows), "valid": True, **more,
    })
    table.attrs["parameters"] = ["size", "threads"]
    return mark_front(table, OBJECTIVES, draws=1)


def chosen(table: pd.DataFrame, **more: Any) -> int:
    found = choose(table, OBJECTIVES, [], DEFAULTS, **more)
    assert found is not None
    return found.row


def test_a_little_energy_does_not_buy_nearly_twice_the_latency() -> None:
    assert chosen(marked([(52.2, 0.962), (28.8, 1.0)])) == 1


def test_within_five_percent_of_the_least_latency_the_least_energy_is_chosen() -> None:
    found = choose(marked([(10.0, 1.0), (10.5, 0.8), (10.51, 0.1), (10.2, 0.9)]), OBJECTIVES, [], {})
    assert found is not None
    assert (found.row, found.kept, found.equal, found.thrifty, found.least) == (1, 4, 3, 1, 10.0)


def test_of_equal_energies_the_nearest_to_the_defaults_is_chosen_then_the_least_latency() -> None:
    table = marked([(10.0, 1.0), (10.1, 1.0), (10.2, 1.0)], size=[4, 1, None], threads=[3, 2, 2])
    found = choose(table, OBJECTIVES, [], DEFAULTS)
    assert found is not None and (found.row, found.thrifty, found.differing) == (1, 3, 0)
    table = marked([(10.0, 1.0), (10.1, 1.0)], size=[4, 1], threads=[2, 3])
    assert chosen(table) == 0


def test_only_what_keeps_every_limit_with_ninety_percent_is_chosen_from() -> None:
    rows = [(8.0, 1.0), (9.0, 1.0), (10.0, 1.0)]
    chances = [0.89, 0.90, 0.99]
    table = marked(rows, limits_probability=chances, limit_probability=[(c,) for c in chances])
    found = choose(table, OBJECTIVES, [], DEFAULTS)
    assert found is not None and (found.row, found.kept, found.sure) == (1, 2, True)


def test_where_nobody_keeps_a_limit_the_likeliest_are_chosen_from_and_it_says_so() -> None:
    """The second limit is told by no stage; the first still has to hold."""
    chances = [(0.95, 0.84), (0.5, 0.84), (0.95, 0.80), (0.95, 0.70)]
    table = marked(
        [(9.0, 1.0), (5.0, 1.0), (8.0, 1.0), (6.0, 1.0)], limit_probability=chances,
        limits_probability=[a * b for a, b in chances],
    )
    found = choose(table, OBJECTIVES, [], DEFAULTS)
    assert found is not None and (found.row, found.kept, found.sure) == (2, 2, False)


def test_an_unknown_probability_is_no_certainty_beside_a_known_one() -> None:
    rows = [(5.0, 1.0), (9.0, 1.0)]
    for known, row, sure in ((0.95, 1, True), (0.7, 1, False), (0.4, 0, False)):
        table = marked(rows, limit_probability=[(np.nan,), (known,)],
                       limits_probability=[np.nan, known])
        found = choose(table, OBJECTIVES, [], DEFAULTS)
        assert found is not None and (found.row, found.sure) == (row, sure)
    table = marked(rows, limit_probability=[(np.nan,)] * 2, limits_probability=[np.nan] * 2)
    found = choose(table, OBJECTIVES, [], DEFAULTS)
    assert found is not None and (found.row, found.kept, found.sure) == (0, 2, False)


def test_other_objectives_take_the_places_of_latency_and_energy() -> None:
    table = marked([(10.0, 1.0), (9.0, 1.04), (5.0, 2.0), (9.5, 1.2)])
    found = choose(table, [ENERGY, P99], [], {})
    assert found is not None and found.row == 1
    found = choose(table, [ENERGY, P99], [ENERGY], {})
    assert found is not None and (found.row, found.least) == (2, 2.0)
    found = choose(table, [P99], [], {})
    assert found is not None and found.row == 2


def test_nothing_usable_gives_no_choice() -> None:
    assert choose(marked([(1.0, 1.0)], valid=False), OBJECTIVES, [], {}) is None


def test_members_that_their_intervals_do_not_tell_apart_are_one_group() -> None:
    table = marked([(10.0, 1.0), (10.5, 0.98), (40.0, 0.5)], half=0.05)
    assert groups(table, OBJECTIVES, 0) == [1, 1, 2]
    exact = marked([(10.0, 1.0), (10.5, 0.98), (40.0, 0.5)])
    assert groups(exact, OBJECTIVES, 0) == [1, 2, 3]
    assert groups(exact, OBJECTIVES, 2) == [2, 3, 1]


def test_two_values_are_told_apart_beyond_the_root_of_their_facing_sides() -> None:
    half = np.sqrt(2) * np.log(1.05)
    for factor, apart in ((0.99, False), (1.01, True)):
        table = marked([(10.0, 1.0), (10.0 * np.exp(half * factor), 1.0)], half=0.05)
        assert told_apart(table, 0, OBJECTIVES).tolist() == [False, apart]
        assert told_apart(table, 1, OBJECTIVES).tolist() == [apart, False]


def test_a_member_that_may_miss_its_limit_is_less_probably_on_the_front_and_never_certain() -> None:
    rows = [(10.0, 1.0), (11.0, 2.0)]
    table = marked(rows, limits_probability=[0.7, 0.98], limit_unknown=[(), ()])
    found = mark_front(table, OBJECTIVES, draws=20_000)
    # The second, dominated, is on the front where the first is absent.
    assert found["front_probability"].tolist() == pytest.approx([0.7, 0.3 * 0.98], abs=0.01)
    assert found["certain"].tolist() == [False, False]
    for chance, unknown, certain in ((0.96, (), True), (0.94, (), False), (1.0, ("x",), False)):
        table = marked(rows[:1], limits_probability=[chance], limit_unknown=[unknown])
        assert mark_front(table, OBJECTIVES)["certain"].tolist() == [certain]
    table = marked(rows[:1], limits_probability=[np.nan], limits_presence=[0.5], limit_unknown=[()])
    found = mark_front(table, OBJECTIVES, draws=20_000)
    assert found["front_probability"].tolist() == pytest.approx([0.5], abs=0.02)
    assert found["certain"].tolist() == [False]


@pytest.mark.parametrize(
    ("requests", "former", "right", "short"),
    [(60, 59, 60, 1 / 4.67987), (360, 356, 357, 0.25 / 4.63143), (100, 99, 99, 0), (187, 185, 186, 0.1045),
     (1140, 1129, 1129, 0), (1, 1, 1, 0)],
)
def test_the_former_rank_and_about_how_far_it_is_too_low(
    requests: int, former: int, right: int, short: float
) -> None:
    assert (former_rank(requests), right_rank(requests)) == (former, right)
    assert expected_shortfall(requests) == pytest.approx(short, abs=1e-3)


def test_the_estimated_shortfall_is_that_of_exponential_latencies() -> None:
    drawn = np.sort(np.random.default_rng(0).exponential(size=(20_000, 60)), axis=1)
    assert expected_shortfall(60) == pytest.approx(1 - drawn[:, 58].mean() / drawn[:, 59].mean(), abs=0.005)


def test_records_without_a_percentile_rule_are_by_the_former_one() -> None:
    table = pd.DataFrame({P99: [1.0, 1.0, np.nan, 1.0], "requests": [60, 70, 80, 90],
                          "error_rate": [0.1, 0.0, 1.0, 0.0],
                          "percentile_rule": [None, "ceiling", None, np.nan]})
    assert requests_by_former_rule(table) == (54, 90)
    assert requests_by_former_rule(table, each=True) == [(54,), (), (), (90,)]
    assert requests_by_former_rule(table[[P99]]) == ()
