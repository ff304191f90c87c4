"""What the report shows of several studies."""

from __future__ import annotations

from types import SimpleNamespace

import pandas as pd
import pytest

from tests.analysis.test_repeats import trials
from tuner.analysis.energy_parts import PARTS, energy_parts
from tuner.analysis.plots_studies import (
    correlation_figure,
    energy_parts_figure,
    fronts_figure,
    noise_table,
    samplers_figure,
)
from tuner.analysis.repeats import pool


def record(number: int, energy: dict[str, object] | None, state: str = "complete") -> SimpleNamespace:
    return SimpleNamespace(
        number=number, state=state, measurement={"energy": energy},
        metrics={"energy_per_request_j": 0.9, "latency_p99_ms": 20.0 - number},
    )


ESTIMATE = {"gross_j": 100.0, "client_j": 10.0, "window_s": 4.0, "idle_w": 12.0, "details": {
    "model_idle_w": 10.0, "server_dynamic_j": 45.0, "rest_dynamic_j": 5.0, "busy_share": 0.5}}
COUNTER = {"gross_j": 90.0, "client_j": None, "window_s": 4.0, "idle_w": 15.0, "details": {}}


def test_energy_of_a_request_splits_into_idle_server_and_rest() -> None:
    found = energy_parts([
        record(0, ESTIMATE), record(1, COUNTER), record(2, {**COUNTER, "idle_w": None}),
        record(3, None), record(4, ESTIMATE, "failed"),
    ])
    assert found["number"].tolist() == [0, 1]
    assert found.loc[0, list(PARTS)].tolist() == pytest.approx([0.40, 0.45, 0.05])
    assert found.loc[1, list(PARTS)].tolist() == pytest.approx([0.60, 0.30, 0.0])
    assert found[list(PARTS)].sum(axis=1).tolist() == pytest.approx(found["total_j"].tolist())
    axis = energy_parts_figure(found, heading="x").axes[0]
    assert len(axis.containers) == 3 and axis.get_ylabel() == "energy per request (J)"


def test_noise_of_several_studies_is_one_table_in_percent() -> None:
    table = trials([{"size": s, "p99": p} for p in (9.0, 11.0) for s in (1, 2)])
    found = noise_table({"a": pool(table), "b": pool(table.iloc[:2])}, ["latency_p99_ms"])
    assert found["study"].tolist() == ["a"]
    assert found["deviation_pct"].item() == pytest.approx(14.19, abs=0.01)
    assert pd.isna(found["within_pct"].item())


def test_fronts_of_several_studies_have_a_panel_each_that_counts_members() -> None:
    table = pool(trials([{"size": 1, "p99": 9.0, "energy": 2.0}, {"size": 2, "p99": 5.0, "energy": 3.0},
                         {"size": 3, "p99": 9.5, "energy": 3.0}]))
    figure = fronts_figure({"small": table, "large": table})
    assert [axis.get_title(loc="left") for axis in figure.axes] == ["small: 2 of 3", "large: 2 of 3"]


def test_correlations_are_drawn_both_ways_and_samplers_with_their_names() -> None:
    table = pd.DataFrame([("light", "high", 9, 0.5, -0.25)],
                         columns=["one", "other", "configurations", "pearson", "spearman"])
    axis = correlation_figure(table, heading="p99").axes[0]
    assert sorted(text.get_text() for text in axis.texts) == ["-0.25", "-0.25", "1.00", "1.00"]
    curve = SimpleNamespace(median=(0.5, 0.9), q25=(0.4, 0.8), q75=(0.6, 1.0))
    axis = samplers_figure({"tpe": curve, "random": curve}, heading="x").axes[0]
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["tpe", "random"]


def test_the_work_of_others_stands_beside_what_a_request_costs() -> None:
    told = {**ESTIMATE, "client_j": 10.0, "others_j": 5.0}
    (found,) = energy_parts([record(0, told)]).to_dict("records")
    # record() tells 0.9 J a request, of 85 J for serving.
    assert found["total_j"] == pytest.approx(found["idle_j"] + found["server_j"])
    assert found["rest_j"] / found["server_j"] == pytest.approx(5 / 45)
