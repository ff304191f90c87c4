"""Borrowing a configuration that fails, and borrowing under noise."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import tuner.store
from tests.study.conftest import measured
from tuner import store
from tuner.analysis.borrow import option_changes
from tuner.analysis.environments import Environment
from tuner.analysis.loader import Loader
from tuner.analysis.plots_borrow import borrow_figure
from tuner.analysis.regret import borrowed_front, price_of_borrowing
from tuner.cli import main
from tuner.errors import TableError
from tuner.space_file import parse

P99, ENERGY = "latency_p99_ms", "energy_per_request_j"


def environment(
    name: str, p99: list[float], response: str = P99, *, share: float | None = None, **more: Any
) -> Environment:
    """One knob, ``size`` 0, 1, …; NaN is a failure; intervals of ``share`` to both sides."""
    table = pd.DataFrame({"size": range(len(p99)), P99: p99, **more})
    table["valid"] = table[P99].notna()
    table.attrs.update(name=name, parameters=["size"], objectives=[P99, ENERGY])
    if share is not None:
        table["latency_p99_low_ms"], table["latency_p99_high_ms"] = (
            table[P99] * (1 - share), table[P99] / (1 - share)
        )
    return Environment(name, table, response, ("size",), table["valid"].to_numpy())


def test_a_best_configuration_that_overloads_the_borrower_is_a_failure_not_its_runner_up() -> None:
    lender = environment("lender", [1, 2, 3])
    borrower = environment("borrower", [np.nan, 4, 3])
    price = price_of_borrowing(lender, borrower)
    assert (price["borrowed_fails"], price["regret_pct"]) == (True, None)
    assert price["configurations"] == 3
    back = price_of_borrowing(borrower, lender)
    assert (back["borrowed_fails"], back["regret_pct"]) == (False, pytest.approx(200))


def test_what_nobody_can_lend_or_run_has_no_price() -> None:
    dead = environment("dead", [np.nan, np.nan])
    sound = environment("sound", [1, 2])
    assert price_of_borrowing(dead, sound)["borrowed_fails"] is None
    assert price_of_borrowing(sound, dead)["borrowed_fails"] is True
    with pytest.raises(TableError, match="dead: no configuration that sound tried too is valid"):
        borrowed_front([dead], [sound])
    front = borrowed_front([sound], [dead])
    assert front["borrowed_fails"].tolist() == [True] and not front["on_target_front"].any()


def test_members_of_a_borrowed_front_that_fail_are_counted() -> None:
    energies = {ENERGY: [3.0, 2.0, 1.0]}
    lender = [environment("lender", [1, 2, 3], r, **energies) for r in (P99, ENERGY)]
    borrower = [environment("borrower", [np.nan, 5, 4], r, **energies) for r in (P99, ENERGY)]
    front = borrowed_front(lender, borrower).set_index("size")
    assert front["borrowed_fails"].to_dict() == {0: True, 1: False, 2: False}
    assert front["on_target_front"].to_dict() == {0: False, 1: False, 2: True}
    assert front[f"{P99}_fair_regret_pct"].isna().to_dict() == {0: True, 1: False, 2: False}


def test_borrowing_from_a_noisy_copy_of_itself_is_not_beyond_the_noise() -> None:
    random = np.random.default_rng(4)
    truth = np.linspace(10, 12, 100)
    one, other = (
        environment(n, (truth * np.exp(random.normal(0, 0.25, 100))).tolist(), share=0.39)
        for n in ("one", "again")
    )
    price = price_of_borrowing(one, other)
    low, high = price["regret_interval_pct"]
    assert low <= price["regret_median_pct"] <= high
    assert price["self_regret_pct"] > 20 and price["beyond_noise"] is False


def test_a_turned_around_order_is_beyond_the_noise_and_its_interval_holds_the_truth() -> None:
    lender = environment("lender", [10, 20, 40], share=0.05)
    borrower = environment("borrower", [40, 20, 10], share=0.05)
    price = price_of_borrowing(lender, borrower)
    assert price["regret_pct"] == pytest.approx(300)
    low, high = price["regret_interval_pct"]
    assert 270 < low < 300 < high < 330
    assert (price["self_regret_pct"], price["beyond_noise"]) == (0, True)
    assert price == price_of_borrowing(lender, borrower)


def test_a_choice_that_fails_in_some_draws_only_is_told_by_its_share() -> None:
    lender = environment("lender", [10.0, 10.1, 40], share=0.05)
    borrower = environment("borrower", [10, np.nan, 40], share=0.05)
    price = price_of_borrowing(lender, borrower)
    assert price["borrowed_fails"] is False and 0.3 < price["fails_share"] < 0.6
    assert price["regret_median_pct"] == 0


def test_without_intervals_nothing_is_said_of_the_noise() -> None:
    price = price_of_borrowing(environment("a", [1, 2]), environment("b", [2, 1]))
    assert price["regret_pct"] == pytest.approx(100)
    assert price["regret_interval_pct"] is None and price["beyond_noise"] is None


@pytest.mark.parametrize(("share", "changes"), [(0.02, True), (0.6, False), (None, True)])
def test_an_option_changes_sign_and_rank_only_beyond_the_noise(
    share: float | None, changes: bool
) -> None:
    rows = [(a, b) for a in range(6) for b in range(6)]
    sides = []
    for name, of_a, of_b in (("one", 1.0, 0.2), ("other", -0.2, 1.0)):
        p99 = [20 + of_a * a + of_b * b + 0.01 * (a * b % 3) for a, b in rows]
        held = environment(name, p99, share=share)
        table = held.table.assign(a=[a for a, _ in rows], b=[b for _, b in rows])
        sides.append(Environment(name, table, P99, ("a", "b"), None))
    found = option_changes(*sides).set_index("option")
    assert found.loc["a", "sign_changes"] == changes and not found.loc["b", "sign_changes"]
    assert found["rank_changes"].tolist() == [changes, changes]


def test_a_price_that_fails_is_written_into_the_plot() -> None:
    figure = borrow_figure(["a", "b"], {P99: {(0, 1): np.inf, (1, 0): 12.0, (1, 1): 5.0}})
    assert sorted(text.get_text() for text in figure.axes[0].texts) == ["0 %", "12 %", "5 %", "fails"]


def test_borrow_honours_a_studys_constraints_and_says_what_fails(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = []
    for name, limit in (("fast", 99), ("slow", 50)):
        space = parse(
            f"parameters: {{size: {{values: {list(range(1, 13))}}}}}\n"
            f"constraints: {{latency_p99_ms: {{max: {limit}}}}}"
        )
        files.append(str(tmp_path / f"{name}.db"))
        study = store.Store.create(f"sqlite:///{files[-1]}", name, space, {})
        for size in range(1, 13):
            p99 = 60.0 if size == 1 else 40.0 if name == "slow" else 70.0
            number = study.start({"size": size}, space, {}, {})
            study.finish(number, measured(p99, 1.0), space)
    assert main(["borrow", *files, "--objectives", P99, "--json"]) == 0
    there, _ = json.loads(capsys.readouterr().out)["pairs"]
    # 60 ms is the least of "fast" and measured in "slow", but beyond that study's 50 ms.
    assert there["price"][P99]["borrowed_fails"] is True and there["fails_share"] == 1
    assert main(["borrow", *files, "--objectives", P99]) == 0
    assert "fails" in capsys.readouterr().out.splitlines()[1]


def test_studies_of_one_name_in_two_databases_are_told_apart(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    tables = {
        "a.db": environment("same", [1, 2] + [9] * 10).table,
        "b.db": environment("same", [3, 1] + [9] * 10).table,
    }
    monkeypatch.setattr(tuner.store, "load_table", lambda name, storage=None: tables[name])
    plot = tmp_path / "p.png"
    assert main(["borrow", "a.db", "b.db", "--objectives", P99, "--json", "--plot", str(plot)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["studies"] == ["a.db", "b.db"]
    assert [p["price"][P99]["regret_pct"] for p in found["pairs"]] == pytest.approx([200, 100])
    assert main(["borrow", "a.db", "a.db", "--objectives", P99, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["studies"] == ["a.db (1)", "a.db (2)"]


def test_the_loader_is_told_what_counts_as_invalid() -> None:
    table = environment("s", [1.0, 2.0]).table.assign(feasible=[True, False])
    for feasible, valid in ((False, [True, True]), (True, [True, False])):
        (found,) = Loader(read_study=lambda n, storage=None: table, feasible=feasible).load(["s"])
        assert found.valid is not None and found.valid.tolist() == valid
