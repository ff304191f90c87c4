"""What the transfer metrics may not depend on: units, sides, the order of options and of rows."""

from __future__ import annotations

from itertools import product

import numpy as np
import pandas as pd
import pytest

from tuner.analysis.options import describe_options
from tuner.analysis.transfer import MEANING, Metrics, transfer_metrics

NAMES = ["a", "b", "mode", "size"]
TABLE = pd.DataFrame(
    list(product([0, 1], [0, 1], ["p", "q", "r"], [1, 2, 4, 8])), columns=NAMES
)
RANDOM = np.random.default_rng(3)
BASE = TABLE["a"] * 4 + (TABLE["mode"] == "q") * 3 + np.log2(TABLE["size"])
SOURCE = np.asarray(20 + BASE + RANDOM.normal(0, 0.2, 48))
TARGET = np.asarray(30 + 2 * BASE - 5 * TABLE["b"] * TABLE["a"] + RANDOM.normal(0, 0.4, 48))
VALID = (RANDOM.random(48) > 0.2, RANDOM.random(48) > 0.3)

SIDES = {"M6": "M7", "M7": "M6", "M11": "M12", "M12": "M11", "M15": "M16", "M16": "M15"}


def metrics(
    source: np.ndarray, target: np.ndarray, names: list[str] = NAMES,
    order: np.ndarray | slice = slice(None), valid: tuple[np.ndarray, np.ndarray] = VALID,
) -> Metrics:
    table = TABLE.iloc[order].reset_index(drop=True)
    return transfer_metrics(
        table, describe_options(table, names), source[order], target[order],
        source_valid=valid[0][order], target_valid=valid[1][order],
    )


PLAIN = metrics(SOURCE, TARGET)


def same(found: Metrics, but: tuple[str, ...] = ()) -> None:
    for name in MEANING:
        if name not in but:
            assert found[name] == pytest.approx(PLAIN[name], abs=1e-6), name


@pytest.mark.parametrize("factor", [1e-6, 1000.0])
def test_the_unit_of_a_response_changes_nothing(factor: float) -> None:
    same(metrics(SOURCE * factor, TARGET))
    same(metrics(SOURCE, TARGET * factor))


def test_a_constant_added_to_a_response_changes_only_what_holds_the_intercept() -> None:
    # M2's bin edges are at round numbers, M14 correlates the intercept along.
    same(metrics(SOURCE, TARGET + 1000), but=("M2", "M14"))


def test_sides_exchanged_exchange_what_belongs_to_a_side_and_nothing_else() -> None:
    found = metrics(TARGET, SOURCE, valid=VALID[::-1])
    exchanged = {SIDES.get(name, name): value for name, value in found.items()}
    same(exchanged, but=("M2",))  # a divergence is not symmetric


def test_the_order_of_rows_and_options_changes_nothing() -> None:
    same(metrics(SOURCE, TARGET, order=np.random.default_rng(0).permutation(48)))
    same(metrics(SOURCE, TARGET, names=NAMES[::-1]))


def test_a_response_turned_around_turns_every_sign() -> None:
    found = metrics(SOURCE, 100 - TARGET)
    for name in ("M1", "M3"):
        assert found[name] == pytest.approx(-PLAIN[name])  # type: ignore[operator]
    assert (found["M8"], found["M9"]) == (PLAIN["M9"], PLAIN["M8"])
    for name in ("M6", "M7", "M10_pearson", "M11", "M12", "M13", "M15", "M16", "M17", "M18"):
        assert found[name] == pytest.approx(PLAIN[name]), name


def test_an_option_of_one_level_changes_nothing_of_the_responses() -> None:
    table = TABLE.assign(fixed=1)
    found = transfer_metrics(
        table, describe_options(table, [*NAMES, "fixed"]), SOURCE, TARGET,
        source_valid=VALID[0], target_valid=VALID[1],
    )
    same(found, but=("M10_pearson", "M10_spearman"))  # one importance more, zero on both sides
