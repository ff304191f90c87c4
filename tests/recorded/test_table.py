"""What analyses find in a recorded study's table: batch sizes, and what the DNN costs."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import pytest

from tests.recorded.conftest import Bench, recording
from tuner import store
from tuner.analysis.borrow import model_costs
from tuner.measurement import Configuration, Measurement, Outcome, Scalar


def test_mean_batch_sizes_are_a_column(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    measure = bench.evaluate

    def batched(
        configuration: Configuration, levels: Sequence[Mapping[str, Scalar]],
        numbers: Sequence[int],
    ) -> list[Outcome]:
        size = configuration.get("size")
        told = {"batches": 4, "rows": 8, "rows_mean": 2.0} if size else None
        return [
            dataclasses.replace(o, deployment={"batches": told}) if isinstance(o, Measurement) else o
            for o in measure(configuration, levels, numbers)
        ]

    monkeypatch.setattr(bench, "evaluate", batched)
    recording("--only", "second")
    table = store.load_table("second@load=light")
    told = table[table["valid"]].set_index("number")
    batched_rows = told["batching"].astype(bool)
    assert (told.loc[batched_rows, "batch_rows_mean"] == 2.0).all()
    assert told.loc[~batched_rows, "batch_rows_mean"].isna().all()


def test_whether_a_p99_has_an_upper_bound_stands_in_the_table(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    measure = bench.evaluate

    def told(
        configuration: Configuration, levels: Sequence[Mapping[str, Scalar]],
        numbers: Sequence[int],
    ) -> list[Outcome]:
        details = {"p99_interval_bounded": bool(configuration.get("size"))}
        return [
            dataclasses.replace(o, stage=dataclasses.replace(o.stage, details=details))
            if isinstance(o, Measurement) else o
            for o in measure(configuration, levels, numbers)
        ]

    monkeypatch.setattr(bench, "evaluate", told)
    recording("--only", "second")
    table = store.load_table("second@load=light")
    measured = table[table["valid"]]
    assert (measured["p99_interval_bounded"] == measured["batching"].astype(bool)).all()


def test_batch_efficiency_is_among_the_costs_of_a_recorded_dnn(recorded: Bench) -> None:
    environment = store.open_study("first@load=light").environment
    assert model_costs(environment)["speed.batch_efficiency"] == 3.0
