from __future__ import annotations

import json
from itertools import product

import numpy as np
import pandas as pd
import pytest

import tuner.store
from tuner.analysis.borrow import (
    correlation_table,
    cost_table,
    effect_costs,
    model_costs,
    option_changes,
)
from tuner.analysis.environments import Environment
from tuner.analysis.loader import Loader
from tuner.analysis.regret import borrowed_front, price_of_borrowing
from tuner.cli import main
from tuner.errors import StudyError

OBJECTIVES = ["latency_p99_ms", "energy_per_request_j"]


def study(name: str, batching_effect: float, flops: float, source: str = "cpu_time") -> pd.DataFrame:
    table = pd.DataFrame(
        list(product([0, 1], [1, 2, 4], [0, 1])), columns=["batching", "threads", "idle"]
    )
    table["latency_p99_ms"] = flops * (
        10 + batching_effect * table["batching"] - table["threads"] + 0.001 * table["idle"]
    )
    table["energy_per_request_j"] = flops * (
        5 - table["batching"] + 0.5 * table["threads"] + 0.001 * table["idle"]
    )
    table["valid"] = True
    table.attrs.update(
        name=name, parameters=["batching", "threads", "idle"], objectives=OBJECTIVES,
        energy_source=source, environment={"model": {"name": name, "flops_per_inference": flops}},
    )
    return table


STUDIES = {
    "small": study("small", 4, 1),
    "large": study("large", -4, 10),
    "huge": study("huge", -2, 100),
    "rapl": study("rapl", 4, 1, "rapl"),
}


def read(reference: str, storage: str | None = None) -> pd.DataFrame:
    if reference not in STUDIES:
        raise StudyError(f"no study {reference!r}")
    return STUDIES[reference]


def load(response: str, *names: str) -> list[Environment]:
    return Loader(read_study=read, response=response).load(names)


def test_a_front_lent_to_itself_is_free() -> None:
    sides = [load(name, "small")[0] for name in OBJECTIVES]
    found = borrowed_front(sides, sides)
    assert found["on_target_front"].all()
    assert (found[[c for c in found if c.endswith("fair_regret_pct")]] == 0).all(axis=None)


def test_a_borrowed_front_pays_where_the_option_turns_around() -> None:
    pairs = [load(name, "small", "large") for name in OBJECTIVES]
    found = borrowed_front([p[0] for p in pairs], [p[1] for p in pairs])
    off = found[(found["batching"] == 0) & (found["threads"] == 4)].iloc[0]
    assert not off["on_target_front"]
    # 60 ms instead of 20: batching with four threads costs less energy too.
    assert off["latency_p99_ms_fair_regret_pct"] == pytest.approx(200)
    assert off["latency_p99_ms_best_regret_pct"] == pytest.approx(200)
    assert off["energy_per_request_j_fair_regret_pct"] == pytest.approx(100 * (7 / 4.5 - 1))


def test_the_price_of_the_best_configuration_is_counted_by_hand() -> None:
    small, large = load("latency_p99_ms", "small", "large")
    assert price_of_borrowing(small, large)["regret_pct"] == pytest.approx(200)
    small, large = load("energy_per_request_j", "small", "large")
    assert price_of_borrowing(small, large)["regret_pct"] == pytest.approx(0)


def test_options_that_change_sign_are_named_and_others_are_not() -> None:
    small, large = load("latency_p99_ms", "small", "large")
    found = option_changes(small, large).set_index("option")
    assert found["sign_changes"].to_dict() == {"batching": True, "threads": False, "idle": False}
    assert found.loc["batching", "source_effect_pct"] > 0 > found.loc["batching", "target_effect_pct"]
    assert found.loc["threads", "source_effect_pct"] < 0


def test_responses_correlate_across_studies() -> None:
    found = correlation_table(load("energy_per_request_j", "small", "large", "huge"))
    assert found["pearson"].tolist() == pytest.approx([1, 1, 1])
    assert found["configurations"].tolist() == [12, 12, 12]
    latency = correlation_table(load("latency_p99_ms", "small", "large"))
    assert latency["pearson"].item() < 0


def test_costs_of_the_dnn_explain_the_best_response() -> None:
    table, relation = cost_table(load("energy_per_request_j", "small", "large", "huge"))
    assert table["model.flops_per_inference"].tolist() == [1, 10, 100]
    assert relation["with_best"].item() == pytest.approx(1)
    two = cost_table(load("energy_per_request_j", "small", "large"))[1]
    assert np.isnan(two["with_best"].item())


def test_an_options_effect_is_set_against_the_dnns_costs_from_four_dnns_on() -> None:
    tables = {f"n{k}": study(f"n{k}", 4 - 2 * k, 10.0**k) for k in range(4)}
    tables["n0 again"] = tables["n0"].copy()
    loader = Loader(
        read_study=lambda name, storage=None: tables[name], response="latency_p99_ms"
    )
    found = effect_costs(loader.load(list(tables))).set_index("option")
    assert found.loc["batching", ["cost", "dnns"]].tolist() == ["model.flops_per_inference", 4]
    assert found.loc["batching", "spearman"] == pytest.approx(-1)
    three = effect_costs(loader.load(["n0", "n0 again", "n1", "n2"]))
    assert (three["dnns"] == 3).all() and three["spearman"].isna().all()


def test_costs_are_found_wherever_the_record_keeps_them() -> None:
    record = {"a": {"flops_per_inference": 3, "name": "x"}, "bytes": 2.5, "trained_bytes": True}
    assert model_costs(record) == {"a.flops_per_inference": 3, "bytes": 2.5}
    speed = {"machine": "m", "ms_per_row": {"1": 4.0, "16": 1.0}, "batch_efficiency": 4.0}
    assert model_costs({"speed": speed}) == {
        "speed.ms_per_row.1": 4.0, "speed.batch_efficiency": 4.0
    }


def test_borrow_reports_every_pair(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path
) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(tuner.store, "load_table", read)
    plot = tmp_path / "borrow.png"
    assert main(["borrow", "small", "large", "--json", "--plot", str(plot)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [(p["lender"], p["borrower"]) for p in found["pairs"]] == [
        ("small", "large"), ("large", "small")
    ]
    assert found["pairs"][0]["price"]["latency_p99_ms"]["regret_pct"] == pytest.approx(200)
    assert plot.stat().st_size > 5_000
    assert main(["borrow", "small", "large"]) == 0
    printed = capsys.readouterr().out
    assert "batching: sign" in printed and "none: 2 DNNs, it takes 4" in printed
    assert {row["spearman"] for row in found["effects"]["latency_p99_ms"]} == {None}


def test_borrow_refuses_energies_of_two_sources_and_a_single_study(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tuner.store, "load_table", read)
    assert main(["borrow", "small", "rapl"]) == 2
    assert "different ways" in capsys.readouterr().err
    assert main(["borrow", "small"]) == 2
