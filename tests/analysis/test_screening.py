"""Main effects of a Plackett-Burman design, against effects that were built in."""

from __future__ import annotations

from itertools import product

import numpy as np
import pandas as pd
import pytest
from pydoe import pbdesign

from tuner.analysis.noise import noise_of
from tuner.analysis.options import describe_options
from tuner.analysis.screening import main_effects

NAMES = list("abcdefghij")
DESIGN = pd.DataFrame((pbdesign(11)[:, :10] > 0).astype(int), columns=NAMES)
OPTIONS = describe_options(DESIGN, NAMES)
TRUE = np.array([0.5, -0.3, 0.2] + [0.0] * 7)
"""Change of the logarithm from an option's low to its high level."""


def test_effects_of_exact_responses_are_those_built_in() -> None:
    response = 20 * np.exp(DESIGN.to_numpy() @ TRUE)
    found = main_effects(DESIGN, OPTIONS, response)
    assert found["effect"].tolist() == pytest.approx((100 * np.expm1(TRUE)).tolist(), abs=1e-9)
    assert found[["low", "high"]].to_numpy().tolist() == [["0", "1"]] * 10
    assert found.attrs["unit"] == "%"
    around_zero = main_effects(DESIGN, OPTIONS, DESIGN.to_numpy() @ TRUE)
    assert around_zero["effect"].tolist() == pytest.approx(TRUE.tolist(), abs=1e-9)
    assert around_zero.attrs["unit"] == ""


def test_errors_from_repeats_hold_the_effects_as_often_as_they_say() -> None:
    random, held, found = np.random.default_rng(0), [], None
    ids = np.tile(np.arange(12), 2)
    for _ in range(60):
        truth = 20 * np.exp(DESIGN.to_numpy() @ TRUE)
        trials = pd.DataFrame({"t_ms": np.tile(truth, 2) * random.lognormal(0, 0.1, 24)})
        noise = noise_of(trials, "t_ms", ids)
        assert noise is not None
        pooled = trials["t_ms"].groupby(ids).mean().to_numpy()
        found = main_effects(
            DESIGN, OPTIONS, pooled, repeats=np.full(12, 2), noise=noise.to_json()
        )
        told = 100 * np.expm1(TRUE)
        held += ((found["effect_low"] <= told) & (told <= found["effect_high"])).tolist()
    assert 0.92 <= np.mean(held) <= 0.98
    assert found is not None and found.attrs["error_from"] == "repeats"
    assert found.attrs["degrees"] == 12
    assert (found["p_value"][:2] < 0.05).all()


def test_twice_as_many_repeats_narrow_an_effect_by_the_root_of_two() -> None:
    response = 20 * np.exp(DESIGN.to_numpy() @ TRUE)
    noise = {"relative": True, "deviation": 0.1, "degrees": 12}
    widths = []
    for repeats in (1, 2):
        found = main_effects(DESIGN, OPTIONS, response, repeats=np.full(12, repeats), noise=noise)
        widths.append(np.log1p(found["effect_high"] / 100) - np.log1p(found["effect_low"] / 100))
    assert (widths[0] / widths[1]).tolist() == pytest.approx([2**0.5] * 10)
    # 2 s / sqrt(12) on either side, times Student's quantile of 12 degrees.
    assert widths[0].tolist() == pytest.approx([2 * 2.1788 * 0.2 / 12**0.5] * 10, rel=1e-3)


def test_each_main_effect_of_the_design_is_mixed_with_a_third_of_every_other_interaction() -> None:
    found = main_effects(DESIGN, OPTIONS, np.ones(12))
    assert (found["interactions"] == 36).all()  # all pairs of the nine others
    assert found["largest_alias"].tolist() == pytest.approx([1 / 3] * 10)
    full = pd.DataFrame(list(product([0, 1], repeat=3)), columns=list("abc"))
    clean = main_effects(full, describe_options(full, list("abc")), np.ones(8))
    assert (clean["interactions"] == 0).all()


def test_options_that_the_rows_left_do_not_tell_apart_have_no_effect_and_are_named() -> None:
    table = pd.DataFrame({"a": [0, 0, 1, 1], "b": [0, 0, 1, 1], "c": [0, 1, 0, 1]})
    found = main_effects(table, describe_options(table, list("abc")), [1.0, 2.0, 2.0, 4.0])
    assert found["aliased_with"].tolist() == [("b",), ("a",), ()]
    assert found["effect"].isna().tolist() == [True, True, False]
    assert found["effect"][2] == pytest.approx(100)


def test_without_repeats_or_rows_to_spare_the_error_is_unknown() -> None:
    found = main_effects(DESIGN.head(11), OPTIONS, np.arange(1.0, 12.0))
    assert found.attrs["error_from"] is None and found["p_value"].isna().all()
    spare = main_effects(DESIGN, OPTIONS, np.arange(1.0, 13.0))
    assert (spare.attrs["error_from"], spare.attrs["degrees"]) == ("residuals", 1)


def test_an_option_of_three_choices_has_an_effect_for_each_against_the_default() -> None:
    table = pd.DataFrame({"kind": ["x", "y", "z", "x", "y", "z"], "on": [0, 0, 0, 1, 1, 1]})
    found = main_effects(table, describe_options(table, ["kind", "on"]), [1.0, 2, 3, 2, 4, 6])
    assert found["option"].tolist() == ["kind=y", "kind=z", "on"]
    assert found["effect"].tolist() == pytest.approx([100, 200, 100])
