"""Comparing samplers live: judged together, resumable, each with studies of its own."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from tuner import cli, study
from tuner.errors import TableError
from tuner.replay.live import judge


def test_the_front_of_all_runs_together_is_the_measure():
    reports = judge(
        {"a": [[(0.0, 1.0), (1.0, 0.0)]], "b": [[(0.5, 0.5), None]]},
        trials=3,
    )
    # Scaled, the union's front dominates a quarter; only b's point does so with any area.
    assert reports["b"].median == (1.0, 1.0, 1.0)
    assert reports["a"].median == (0.0, 0.0, 0.0)
    assert reports["a"].front_share == pytest.approx(2 / 3)
    assert reports["b"].trials_to_99 == 1


def test_runs_without_any_result_are_refused():
    with pytest.raises(TableError, match="no trial"):
        judge({"a": [[None]]}, trials=1)


SPACE = """
name: small
model: cnn1d
parameters:
  tensorflow_intra_op_parallelism: [1, 2]
  tensorflow_inter_op_parallelism: [1, 2]
"""


@pytest.fixture
def compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Runs ``tuner compare`` in an empty folder against the deployer that answers at once."""
    monkeypatch.chdir(tmp_path)
    Path("small.yaml").write_text(SPACE)
    common = ["compare", "--space", "small.yaml", "--deployer", "fake", "--load", "100"]

    def run(*more: str) -> int:
        return cli.main([*common, "--duration", "0.3", "--sampler", "grid,random", *more])

    return run


def test_each_sampler_has_studies_of_its_own_and_the_command_goes_on(compared, capsys):
    assert compared("--trials", "1", "--repeats", "1", "--json") == 0
    first = json.loads(capsys.readouterr().out)
    assert first["studies"] == {
        "grid": ["small-compare-grid-1"], "random": ["small-compare-random-1"]
    }
    assert compared("--trials", "2", "--repeats", "1", "--json", "--plot", "c.png") == 0
    again = json.loads(capsys.readouterr().out)
    assert "all runs" in again["relative_to"]
    keys = {"median", "q25", "q75", "trials_to_95", "trials_to_99", "front_share"}
    for report in again["samplers"].values():
        assert keys <= set(report) and len(report["median"]) == 2
    assert Path("c.png").read_bytes().startswith(b"\x89PNG")
    # The trials of the first call were kept: a table of them answers a replay.
    file = "studies/small-compare.db:small-compare-grid-1"
    options = ["--sampler", "random", "--trials", "2", "--repeats", "1", "--jobs", "1", "--json"]
    assert cli.main(["replay", "--table", file, *options]) == 0
    assert json.loads(capsys.readouterr().out)["configurations"] == 2


def test_a_study_measured_before_is_a_source_of_the_samplers_that_learn(compared, capsys):
    assert compared("--trials", "2", "--repeats", "1", "--sampler", "grid", "--json") == 0
    capsys.readouterr()
    source = ["--source", "studies/small-compare.db:small-compare-grid-1"]
    learning = ["--sampler", "transfer", "--repeats", "1", "--trials", "1"]
    assert compared(*source, *learning, "--json") == 0
    told = json.loads(capsys.readouterr().out)["samplers"]
    assert told["transfer"]["weights"] == {"small-compare-grid-1": [1.0]}
    assert "small-compare-grid-1" in told["transfer"]["explanation"]
    assert compared(*source, "--sampler", "random,grid") == 2
    assert "learns from no other study" in capsys.readouterr().err


def test_the_timeout_is_the_whole_commands(compared, monkeypatch):
    granted, go_on = [], study.run

    def run(*args, timeout_s, **more):
        granted.append((time.monotonic(), timeout_s))
        return go_on(*args, timeout_s=timeout_s, **more)

    monkeypatch.setattr(study, "run", run)
    assert compared("--trials", "1", "--repeats", "1", "--timeout", "2m") == 0
    (start, first), (later, second) = granted
    assert second <= first - (later - start) + 0.01 < 120.0


def test_a_space_with_factors_is_refused(compared, capsys):
    text = Path("small.yaml").read_text() + "factors: {load: [light, high]}\n"
    Path("small.yaml").write_text(text.replace("--load", ""))
    assert cli.main(["compare", "--space", "small.yaml", "--deployer", "fake"]) == 2
    assert "factors load" in capsys.readouterr().err
