from __future__ import annotations

from itertools import product

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import pearsonr, spearmanr

from tuner.analysis.correlation import overlap, pearson, spearman
from tuner.analysis.options import describe_options
from tuner.analysis.transfer import MEANING, transfer_metrics

NAMES = ["a", "b", "c", "d", "e"]
TABLE = pd.DataFrame(list(product([0, 1], repeat=5)) * 2, columns=NAMES)
OPTIONS = describe_options(TABLE, NAMES)
RANDOM = np.random.default_rng(0)
SOURCE = 10 + TABLE @ [5, 3, 0, 0, -2] + RANDOM.normal(0, 0.1, 64)


def test_an_environment_transfers_to_itself_in_full() -> None:
    valid = TABLE["e"].to_numpy() + TABLE["a"].to_numpy() < 2
    found = transfer_metrics(
        TABLE, OPTIONS, SOURCE, SOURCE, source_valid=valid, target_valid=valid
    )
    assert list(found) == list(MEANING)
    for metric in ("M1", "M3", "M4", "M5", "M10_pearson", "M10_spearman", "M14", "M17", "M18"):
        assert found[metric] == pytest.approx(1), metric
    assert found["M2"] == pytest.approx(0, abs=1e-9)
    assert found["M6"] == found["M7"] == found["M8"] and found["M9"] == 0
    assert found["M11"] == found["M12"] == found["M13"]
    assert found["M15"] == found["M16"] == 0.25


def test_an_option_that_turns_around_is_opposite() -> None:
    target = 10 + TABLE @ [5, -3, 0, 0, -2] + RANDOM.normal(0, 0.1, 64)
    found = transfer_metrics(TABLE, OPTIONS, SOURCE, target)
    assert (found["M8"], found["M9"]) == (2, 1)


def test_only_configurations_valid_in_both_are_compared() -> None:
    spoilt = SOURCE.copy()
    spoilt[:8] = [1e9, -1e9] * 4
    valid = np.arange(64) >= 8
    found = transfer_metrics(TABLE, OPTIONS, SOURCE, spoilt, target_valid=valid)
    assert found["M1"] == pytest.approx(1) and found["M5"] == 1
    assert found["M15"] is None and found["M16"] == 8 / 64


def test_invalid_configurations_in_common_are_a_jaccard_index() -> None:
    first, second = np.arange(64) >= 8, (np.arange(64) < 4) | (np.arange(64) >= 12)
    found = transfer_metrics(
        TABLE, OPTIONS, SOURCE, SOURCE, source_valid=first, target_valid=second
    )
    assert found["M17"] == 4 / 12
    assert (found["M15"], found["M16"]) == (8 / 64, 8 / 64)


def test_a_response_that_is_missing_is_an_invalid_configuration() -> None:
    holed = SOURCE.astype(float).copy()
    holed[:16] = np.nan
    found = transfer_metrics(TABLE, OPTIONS, holed, holed)
    assert found["M15"] == found["M16"] == 0.25 and found["M17"] == 1


def test_without_invalid_configurations_their_metrics_are_undefined() -> None:
    found = transfer_metrics(TABLE, OPTIONS, SOURCE, SOURCE)
    assert [found[m] for m in ("M15", "M16", "M17", "M18")] == [None] * 4


def test_when_nothing_is_valid_only_the_invalid_share_is_defined() -> None:
    nothing = np.zeros(64, dtype=bool)
    found = transfer_metrics(
        TABLE, OPTIONS, SOURCE, SOURCE, source_valid=nothing, target_valid=nothing
    )
    assert found["M15"] == found["M16"] == found["M17"] == 1
    assert {found[m] for m in ("M1", "M2", "M3", "M4", "M5", "M14", "M18")} == {None}
    assert (found["M6"], found["M11"]) == (0, None)


def test_a_constant_response_has_no_correlation() -> None:
    found = transfer_metrics(TABLE, OPTIONS, SOURCE, np.ones(64))
    assert found["M1"] is None and found["M3"] is None and found["M7"] == 0
    assert found["M12"] == 1


def test_the_best_and_worst_shares_are_counted_by_hand() -> None:
    a, b = np.arange(10.0), np.array([1, 0, 5, 3, 4, 2, 6, 7, 9, 8.0])
    assert overlap(a, b, 0.2) == 1
    assert overlap(a, b, 0.3) == pytest.approx(2 / 3)
    assert overlap(a, b, 0.1) == 0
    assert overlap(a, b, 0.1, worst=True) == 0
    assert overlap(a, b, 0.29) == 1  # two, not three
    assert overlap(a[:3], b[:3], 0.1) == 0  # at least one


def test_a_share_outside_its_range_is_refused() -> None:
    with pytest.raises(ValueError, match="share"):
        overlap([1.0], [1.0], 0)


numbers = st.lists(st.integers(-5, 5).map(float), min_size=3, max_size=30)


@settings(max_examples=60, deadline=None)
@given(numbers, st.randoms(use_true_random=False))
def test_correlations_agree_with_an_independent_library(values: list[float], random) -> None:  # type: ignore[no-untyped-def]
    other = values[:]
    random.shuffle(other)
    if len(set(values)) == 1:
        assert pearson(values, other) is None and spearman(values, other) is None
        return
    assert pearson(values, other) == pytest.approx(pearsonr(values, other)[0], abs=1e-9)
    assert spearman(values, other) == pytest.approx(spearmanr(values, other)[0], abs=1e-9)
