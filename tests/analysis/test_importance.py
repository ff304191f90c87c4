from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tuner.analysis.importance import (
    agreement_table,
    importance_table,
    partial_dependence,
    permutation,
)
from tuner.analysis.interactions import interaction_table
from tuner.analysis.options import codes, describe_options
from tuner.analysis.plots_importance import importance_figure, partial_dependence_figure
from tuner.errors import TableError

TABLE = pd.DataFrame(list(product([0, 1], [1, 2, 4, 8], ["x", "y"], [0, 1])) * 4,
                     columns=["big", "size", "kind", "idle"])
OPTIONS = describe_options(TABLE, list(TABLE.columns))
RESPONSE = (
    10 * TABLE["big"] + TABLE["size"] + 3 * (TABLE["kind"] == "y") * TABLE["big"]
    + np.random.default_rng(0).normal(0, 0.1, len(TABLE))
).to_numpy()


@pytest.fixture(scope="module")
def ranked() -> pd.DataFrame:
    return importance_table(TABLE, OPTIONS, RESPONSE)


def test_every_estimate_finds_the_option_that_matters_and_the_one_that_does_not(
    ranked: pd.DataFrame,
) -> None:
    assert ranked.index[0] == "big"
    for name in ("fanova", "permutation"):
        assert ranked[name].idxmax() == "big"
    for name in ("ped_anova", "fanova", "permutation"):
        assert ranked.loc["idle", name] < 0.05
        assert ranked[name].sum() == pytest.approx(1)


def test_rankings_that_agree_correlate_fully(ranked: pd.DataFrame) -> None:
    twice = ranked.assign(permutation=ranked["fanova"] * 0.5)
    found = agreement_table(twice).set_index(["one", "other"])
    assert found.loc[("fanova", "permutation")].tolist() == pytest.approx([1, 1])
    reverse = ranked.assign(permutation=-ranked["fanova"])
    assert agreement_table(reverse)["kendall"].iloc[2] == pytest.approx(-1)


def test_a_conditional_option_counts_where_it_is_active() -> None:
    on = pd.DataFrame(list(product([True], [1, 2, 4, 8])) * 6, columns=["batching", "size"])
    off = pd.DataFrame({"batching": [False] * 24, "size": [np.nan] * 24})
    table = pd.concat([on, off], ignore_index=True)
    response = np.where(table["batching"], 10 - table["size"].fillna(0), 20.0)
    found = importance_table(
        table, describe_options(table, ["batching", "size"]),
        response + np.random.default_rng(0).normal(0, 0.01, 48),
    )
    assert (found.loc["size"] > 0).all() and (found.loc["batching"] > 0).all()


def test_a_constant_response_makes_nothing_important() -> None:
    found = importance_table(TABLE, OPTIONS, np.ones(len(TABLE)))
    assert (found == 0).all(axis=None)
    assert agreement_table(found)["kendall"].isna().all()


def test_too_few_rows_are_refused() -> None:
    with pytest.raises(TableError, match="at least 10"):
        importance_table(TABLE.head(4), OPTIONS, RESPONSE[:4])


def test_importance_is_repeatable() -> None:
    coded = codes(TABLE, OPTIONS)
    first, second = (permutation(coded, OPTIONS, RESPONSE, seed=3) for _ in range(2))
    assert (first == second).all()


def test_the_interaction_that_was_built_in_is_found_and_no_other() -> None:
    found = interaction_table(TABLE, OPTIONS, RESPONSE)
    assert {found["one"][0], found["other"][0]} == {"big", "kind"}
    assert found["p_value"][0] < 1e-6
    assert (found["p_value"][1:] > 0.05).all()
    # 3/4 a b over a balanced design: the interaction contrast's variance is 9/16.
    assert found["share"][0] == pytest.approx(9 / 16 / RESPONSE.var(), rel=0.1)


def test_an_interaction_that_was_not_measured_has_no_share() -> None:
    table = pd.DataFrame({"a": [0, 0, 1] * 10, "b": [0, 1, 0] * 10})
    found = interaction_table(
        table, describe_options(table, ["a", "b"]), np.random.default_rng(0).normal(size=30)
    )
    assert found["share"][0] == 0 and np.isnan(found["p_value"][0])


def test_partial_dependence_follows_the_response() -> None:
    found = partial_dependence(TABLE, OPTIONS, RESPONSE).set_index(["option", "level"])["mean"]
    assert found["big", 1] - found["big", 0] == pytest.approx(11.5, abs=0.3)
    assert found["size", 8] - found["size", 1] == pytest.approx(7, abs=0.5)
    assert abs(found["idle", 1] - found["idle", 0]) < 0.1


def test_a_forest_learns_the_logarithm_so_overload_does_not_hide_the_rest() -> None:
    # One combination in sixteen is overloaded; everywhere else size alone decides.
    calm = np.exp(0.7 * np.log2(TABLE["size"].astype(float)))
    jam = (TABLE["big"] == 1) & (TABLE["kind"] == "y") & (TABLE["idle"] == 1) & (TABLE["size"] == 1)
    response = (calm * np.where(jam, 200, 1)).to_numpy()
    assert importance_table(TABLE, OPTIONS, response)["fanova"].idxmax() == "size"
    effect = partial_dependence(TABLE, OPTIONS, response).set_index(["option", "level"])["mean"]
    assert effect["size", 8] > effect["size", 2]


def test_figures_name_options_and_units(ranked: pd.DataFrame) -> None:
    pairs = interaction_table(TABLE, OPTIONS, RESPONSE)
    figure = importance_figure(ranked, pairs, heading="bench")
    assert [t.get_text() for t in figure.axes[0].get_yticklabels()] == list(ranked.index[::-1])
    panels = partial_dependence_figure(partial_dependence(TABLE, OPTIONS, RESPONSE), "t_ms")
    assert panels.axes[0].get_ylabel() == "t (ms)"


def test_options_that_cannot_matter_rank_last_by_every_estimate(shared_data: Path) -> None:
    table = pd.read_csv(shared_data / "deeparch_dev.csv")
    control = {"log_lr", "log_beta1", "log_beta2", "log_epsilon", "log_decay"}
    names = [c for c in table.columns if c != "config_id" and not c.startswith("t__")]
    sample = table.sample(300, random_state=0)
    found = importance_table(
        sample, describe_options(sample, names), sample["t__azure__Wafer"]
    )
    for estimate in ("ped_anova", "fanova", "permutation"):
        assert found.loc[list(control), estimate].sum() < 0.03
        assert set(found[estimate].nlargest(3).index).isdisjoint(control)
