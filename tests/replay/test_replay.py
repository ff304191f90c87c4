"""Replaying a table: the space is the table, curves are relative, runs repeat."""

from __future__ import annotations

import argparse
import json

import numpy as np
import pandas as pd
import pytest

from tuner.cli import replay as command
from tuner.errors import TableError, UsageError
from tuner.propose import make
from tuner.replay import compare, read_table
from tuner.replay.compare import replay
from tuner.replay.table import from_frame


def frame() -> pd.DataFrame:
    rows = [
        {"a": a, "b": b, "x": 1.0 + a + 0.1 * b, "y": 9.0 - a + b}
        for a in range(6)
        for b in range(5)
        if a + b < 9
    ]
    return pd.DataFrame(rows)


def table():
    return from_frame(frame(), ["a", "b"], ["x", "y"], "small")


def arguments(*texts: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return parser.parse_args(list(texts))


def test_every_sampler_stays_inside_the_table():
    reports = compare(table(), ["random", "tpe", "nsga2", "qmc"], trials=20, repeats=2)
    assert all(len(report.median) == 20 for report in reports.values())


def test_the_grid_reaches_the_whole_hypervolume_and_the_whole_front():
    report = compare(table(), ["grid"], trials=40, repeats=2)["grid"]
    assert report.median[-1] == pytest.approx(1.0)
    assert report.front_share == 1.0
    assert report.trials_to_99 == next(i + 1 for i, v in enumerate(report.median) if v >= 0.99)


def test_a_level_never_reached_has_no_trial():
    report = compare(table(), ["grid"], trials=1, repeats=1)["grid"]
    assert report.trials_to_99 is None


def test_a_run_repeats_with_its_seed_whatever_the_processes():
    first, second = (
        compare(table(), ["random"], trials=8, repeats=3, seed=4, jobs=jobs) for jobs in (1, 2)
    )
    assert first == second
    assert first != compare(table(), ["random"], trials=8, repeats=3, seed=5)


def test_of_several_measurements_one_is_drawn():
    noisy = pd.concat([frame(), frame().assign(x=lambda f: f.x + 100)])
    repeated = from_frame(noisy, ["a", "b"], ["x", "y"], "noisy")
    assert repeated.space.size == table().space.size
    rng = np.random.default_rng(0)
    drawn = {repeated.answer(repeated.space.rows[0], rng).values[0] > 50 for _ in range(50)}
    assert drawn == {True, False}


def test_invalid_rows_answer_as_failures():
    marked = frame().assign(valid=lambda f: f.a > 2)
    answered = from_frame(marked, ["a", "b"], ["x", "y"], "marked")
    answer = answered.answer({"a": 0, "b": 0}, np.random.default_rng(0))
    assert (answer.state, answer.values, dict(answer.violations)) == (
        "failed",
        None,
        {"failed": 1.0},
    )


def test_an_empty_parameter_is_a_knob_that_does_not_apply():
    conditional = pd.DataFrame(
        {
            "on": [False, True, True],
            "size": [np.nan, 1, 2],
            "x": [3.0, 2.0, 1.0],
            "y": [1.0, 2.0, 3.0],
        }
    )
    space = from_frame(conditional, ["on", "size"], ["x", "y"], "c").space
    assert list(space.configurations()) == [
        {"on": False},
        {"on": True, "size": 1},
        {"on": True, "size": 2},
    ]
    assert not space.active({"on": False}, space.parameter("size"))


def test_a_maximised_objective_is_turned_round():
    turned = from_frame(frame(), ["a", "b"], ["x", "y:max"], "t")
    assert (turned.measured[:, 1] == -frame()["y"]).all()


def test_shuffling_a_source_keeps_its_rows_together():
    shuffled = table().shuffled(np.random.default_rng(0))
    assert {tuple(v) for v in shuffled.measured} == {tuple(v) for v in table().measured}
    assert [v.tolist() for v in shuffled.values] != [v.tolist() for v in table().values]


def test_curves_never_fall():
    run = replay(table(), make("random", table().space, seed=0), 20, np.random.default_rng(0))
    assert (np.diff(run.curve) >= 0).all()


def test_the_command_prints_the_promised_json_and_draws(tmp_path, capsys):
    file, plot = tmp_path / "t.csv", tmp_path / "t.png"
    frame().to_csv(file)
    common = ["--table", str(file), "--parameters", "a,b", "--objectives", "x,twice"]
    options = ["--derive", "twice=y*2", "--sampler", "random,grid", "--trials", "6"]
    run = arguments(*common, *options, "--repeats", "2", "--json", "--plot", str(plot))
    assert command.run(run) == 0
    samplers = json.loads(capsys.readouterr().out)["samplers"]
    assert set(samplers) == {"random", "grid"}
    for report in samplers.values():
        assert {"median", "q25", "q75", "trials_to_95", "trials_to_99", "front_share"} <= set(
            report
        )
        assert len(report["median"]) == 6
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_a_missing_column_or_file_is_named(tmp_path):
    file = tmp_path / "t.csv"
    frame().to_csv(file)
    with pytest.raises(TableError, match="'z'"):
        read_table(file, ["a", "z"], ["x"])
    with pytest.raises(TableError, match=r"none\.csv"):
        read_table(tmp_path / "none.csv", ["a"], ["x"])


def test_shuffle_without_a_source_is_refused():
    run = arguments("--table", "t", "--parameters", "a", "--objectives", "x", "--shuffle-source")
    with pytest.raises(UsageError, match="--source"):
        command.run(run)
