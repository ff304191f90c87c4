"""Replaying a table: the space is the table, curves are relative, runs repeat."""

from __future__ import annotations

import argparse
import json

import numpy as np
import pandas as pd
import pytest

from tuner.cli import replay as command
from tuner.errors import TableError, UsageError
from tuner.propose import NAMES, Source, make
from tuner.replay import compare, read_table
from tuner.replay.compare import replay
from tuner.replay.table import from_frame
from tuner.replay.yardstick import Yardstick


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


def conditional():
    rows = [
        {"on": on, "size": size if on else np.nan, "b": b, "x": 1.0 + size + b, "y": 9.0 - size}
        for on in (False, True)
        for size in ((1, 2, 4, 8) if on else (0,))
        for b in range(4)
        if size * b < 20
    ]
    return from_frame(pd.DataFrame(rows), ["on", "size", "b"], ["x", "y"], "conditional")


@pytest.mark.parametrize("name", [name for name in NAMES if name != "gp"])
def test_every_sampler_stays_inside_a_conditional_table_and_tries_nothing_twice(name):
    answered = conditional()
    sources = (Source("earlier", tuple(answered.observations())),) if name == "transfer" else ()
    proposer = make(name, answered.space, seed=0, budget=12, sources=sources)
    run = replay(answered, proposer, 12, np.random.default_rng(0))
    assert len(set(run.places)) == len(run.places) >= (5 if name == "screening" else 12)


def test_the_yardstick_is_the_area_below_the_scaled_front():
    yardstick = Yardstick.over(np.array([(10.0, 3.0), (15.0, 2.0), (20.0, 1.0)]))
    assert yardstick.whole == pytest.approx(0.25)
    assert yardstick.curve([(10.0, 3.0), None, (15.0, 2.0)]).tolist() == [0.0, 0.0, 1.0]
    assert yardstick.curve([(17.5, 2.0)]).tolist() == pytest.approx([0.125 / 0.25])


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


@pytest.mark.parametrize("order", [["on", "size", "wait"], ["size", "wait", "on"]])
def test_a_table_tells_on_which_knob_it_depends_whether_others_apply(order):
    rows = pd.DataFrame(
        [(False, None, None, 1.0)] + [(True, size, wait, 2.0) for size in (1, 2) for wait in (0, 9)],
        columns=["on", "size", "wait", "x"],
    )
    space = from_frame(rows, order, ["x"], "branches").space
    assert set(space.conditional) == {"size", "wait"}
    assert space.deciding == ("on",)
    assert table().space.conditional == table().space.deciding == ()


def test_a_column_that_differs_in_every_row_is_no_branch():
    rows = pd.DataFrame({"id": range(4), "size": [None, 1, None, 2], "x": 1.0})
    space = from_frame(rows, ["id", "size"], ["x"], "numbered").space
    assert space.conditional == ("size",) and space.deciding == ()


def test_a_knob_missing_for_no_reason_that_another_one_tells_depends_on_none():
    rows = pd.DataFrame([(0, 0, None), (0, 1, 1), (1, 0, 1), (1, 1, None)], columns=["a", "b", "c"])
    space = from_frame(rows.assign(x=1.0), ["a", "b", "c"], ["x"], "either").space
    assert space.conditional == ("c",) and space.deciding == ()


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


@pytest.fixture
def replayed(tmp_path, capsys):
    """Runs ``tuner replay`` on the table with a source, itself or a part; what it printed."""
    file = tmp_path / "t.csv"
    frame().to_csv(file)
    frame()[::2].to_csv(tmp_path / "part.csv")
    common = ["--table", str(file), "--parameters", "a,b", "--jobs", "1", "--repeats", "2"]

    def run(*more: str, objectives: str = "x,y", source: str | None = "t.csv") -> str:
        given = ["--source", str(tmp_path / source)] if source else []
        args = arguments(*common, "--objectives", objectives, "--trials", "5", *given, *more)
        assert command.run(args) == 0
        return capsys.readouterr().out

    return run


def test_a_source_has_a_weight_in_each_trial(replayed):
    report = json.loads(replayed("--sampler", "transfer,random", "--json"))["samplers"]
    weights = report["transfer"]["weights"]["t"]
    assert len(weights) == 5 and weights[-1] > 0.9
    assert report["random"]["weights"] == {}
    text = replayed("--sampler", "transfer")
    assert f"weight of t in transfer by trial: {' '.join(f'{w:.2f}' for w in weights)}" in text


def test_a_source_is_shuffled_the_same_with_the_same_seed(replayed):
    def shuffled(seed: str):
        # So small a source isn't left out before the first trial.
        more = ["--sampler", "transfer", "--shuffle-source", "--seed", seed, "--json"]
        return json.loads(replayed(*more, source="part.csv"))["samplers"]["transfer"]["weights"]

    first = shuffled("3")
    assert len(first["part (shuffled)"]) == 5
    assert first == shuffled("3") != shuffled("4")


def test_a_derived_column_may_use_the_one_before(replayed):
    derived = ["--derive", "twice=y*2", "--derive", "more=twice+1", "--sampler", "grid", "--json"]
    told = json.loads(replayed(*derived, objectives="x,more", source=None))
    plain = json.loads(replayed("--sampler", "grid", "--json", source=None))
    assert told["objectives"] == ["x", "more"]
    assert told["samplers"]["grid"]["median"] == pytest.approx(plain["samplers"]["grid"]["median"])


def test_what_each_sampler_does_is_told(replayed):
    report = json.loads(replayed("--sampler", "auto,tpe", "--json", source=None))["samplers"]
    assert "auto takes bayesian, because" in report["auto"]["explanation"]
    assert "29 configurations" in report["auto"]["explanation"]
    text = replayed("--sampler", "auto,tpe", source=None)
    assert report["auto"]["explanation"] in text and report["tpe"]["explanation"] in text


def test_the_json_has_the_promised_types(replayed):
    told = json.loads(replayed("--sampler", "grid,random", "--trials", "40", "--json", source=None))
    assert (told["trials"], told["repeats"], told["seed"], told["configurations"]) == (40, 2, 0, 29)
    for name, report in told["samplers"].items():
        for curve in (report["median"], report["q25"], report["q75"]):
            assert len(curve) == 40 and all(isinstance(v, float) for v in curve)
        assert isinstance(report["trials_to_95"], int) and isinstance(report["trials_to_99"], int)
        assert report["trials_to_95"] <= report["trials_to_99"], name
        assert isinstance(report["front_share"], float) and isinstance(report["weights"], dict)
    short = json.loads(replayed("--sampler", "grid", "--trials", "1", "--json", source=None))
    assert short["samplers"]["grid"]["trials_to_99"] is None
