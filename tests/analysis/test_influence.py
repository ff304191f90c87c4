from __future__ import annotations

from itertools import product

import numpy as np
import pandas as pd
import pytest
from scipy.stats import ttest_rel

from tuner.analysis.influence import Influence, agreement, influences
from tuner.analysis.options import describe_options


def measure(table: pd.DataFrame, response: np.ndarray) -> dict[str, Influence]:
    options = describe_options(table, list(table.columns))
    return {one.option: one for one in influences(table, options, response)}


def grid(**levels: list) -> pd.DataFrame:
    return pd.DataFrame(list(product(*levels.values())), columns=list(levels))


def test_a_boolean_option_is_a_paired_t_test_over_exact_flips() -> None:
    table = grid(a=[0, 1], b=[0, 1], c=[0, 1], d=[0, 1])
    y = np.random.default_rng(0).normal(size=16) + 2 * table["a"].to_numpy()
    table, y = table.drop(index=[3]), np.delete(y, 3)  # one flip is not measured
    off = table[table["a"] == 0].sort_values(["b", "c", "d"])
    on = table[table["a"] == 1].drop(index=[11]).sort_values(["b", "c", "d"])
    place = {row: at for at, row in enumerate(table.index)}
    expected = ttest_rel(y[[place[i] for i in on.index]], y[[place[i] for i in off.index]])
    found = measure(table, y)["a"].contrasts[0]
    assert found.pairs == 7
    assert found.p_value == pytest.approx(expected.pvalue)
    assert (found.low, found.high) == ("0", "1")


def test_a_repeated_configuration_pairs_with_the_first_row_of_its_flip() -> None:
    table = pd.DataFrame({"a": [0, 0, 1, 1]})
    found = measure(table, np.array([1.0, 2.0, 5.0, 100.0]))["a"].contrasts[0]
    assert (found.pairs, found.median_effect) == (2, 3.5)


def test_an_option_without_a_measured_flip_has_no_influence() -> None:
    table = pd.DataFrame({"a": [0, 1], "b": [0, 1]})
    found = measure(table, np.array([1.0, 9.0]))["a"]
    assert found.contrasts[0].pairs == 0 and not found.influential()


def test_a_constant_difference_is_certain_and_no_difference_is_not() -> None:
    table = grid(a=[0, 1], b=[0, 1], c=[0, 1])
    found = measure(table, 3.0 * table["a"].to_numpy())
    assert found["a"].influential() and found["a"].contrasts[0].p_value == 0
    assert not found["b"].influential() and found["b"].contrasts[0].p_value is None


def test_an_ordered_option_pairs_neighbouring_levels() -> None:
    table = grid(size=[1, 4, 32], b=[0, 1])
    y = table["size"].map({1: 0.0, 4: 1.0, 32: 3.0}).to_numpy()
    found = measure(table, y)["size"].contrasts[0]
    assert found.pairs == 4  # 1-4 and 4-32, never 1-32
    assert found.median_effect == 1.5
    assert (found.low, found.high) == ("1", "32")


def test_a_categorical_option_compares_each_level_with_the_default() -> None:
    table = grid(policy=["slow", "fast", "other"], b=[0, 1], c=[0, 1], d=[0, 1])
    table = pd.concat([table, table[table["policy"] == "slow"]], ignore_index=True)
    noise = np.random.default_rng(1).normal(0, 0.01, len(table))
    y = table["policy"].map({"slow": 0.0, "fast": -1.0, "other": 0.0}).to_numpy() + noise
    found = measure(table, y)["policy"]
    assert {c.low for c in found.contrasts} == {"slow"}
    assert [c.high for c in found.contrasts] == ["fast", "other"]
    assert found.significant() == (True, False)


def test_levels_of_a_categorical_option_share_one_error_rate() -> None:
    table = grid(policy=["a", "b", "c"], n=list(range(20)))
    table = pd.concat([table, table[table["policy"] == "a"].head(1)], ignore_index=True)
    random = np.random.default_rng(0)
    y = random.normal(size=len(table))
    found = measure(table, y)["policy"]
    least = min(c.p_value for c in found.contrasts if c.p_value is not None)
    assert not found.influential(alpha=least * 1.5)
    assert found.influential(alpha=least * 2.1)


def test_a_condition_does_not_hide_the_switch_that_governs_it() -> None:
    on = grid(batching=[True], size=[2, 8], threads=[1, 2, 4])
    off = grid(batching=[False], size=[np.nan], threads=[1, 2, 4])
    table = pd.concat([on, off], ignore_index=True)
    y = np.where(table["batching"], 5.0 + table["size"].fillna(0), 1.0)
    found = measure(table, y)
    switch = found["batching"].contrasts[0]
    assert switch.pairs == 3  # one for each thread count, sizes averaged
    assert switch.median_effect == pytest.approx(5 + 5 - 1)
    assert found["size"].contrasts[0].pairs == 3
    assert found["size"].contrasts[0].median_effect == 6


def test_agreement_counts_signs_of_options_influential_in_both() -> None:
    table = grid(a=[0, 1], b=[0, 1], c=[0, 1], d=[0, 1])
    random = np.random.default_rng(2)
    base = random.normal(0, 0.01, 16)
    options = describe_options(table, list("abcd"))
    a, b, c = (table[name].to_numpy() for name in "abc")
    source = influences(table, options, base + a + b + c)
    target = influences(table, options, random.normal(0, 0.01, 16) + 2 * a - b)
    assert agreement(source, target) == (1, 1)
