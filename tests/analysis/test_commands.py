from __future__ import annotations

import json
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tuner.analysis.transfer import MEANING
from tuner.cli import main


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Three environments of four boolean options: b turns around in the third."""
    table = pd.DataFrame(list(product([0, 1], repeat=4)) * 3, columns=list("abcd"))
    noise = np.random.default_rng(0).normal(0, 0.05, (3, len(table)))
    effects = ([4, 2, 0, 0], [8, 4, 0, 0], [4, -2, 0, 0])
    for name, effect, part in zip(("t_x", "t_y", "t_z"), effects, noise):
        table[name] = 10 + table[list("abcd")] @ effect + part
    table.loc[:3, ["t_x", "t_z"]] = 0
    path = tmp_path_factory.mktemp("bench") / "bench.csv"
    table.to_csv(path, index=False)
    return str(path)


def test_transfer_prints_every_metric_as_json(
    bench: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code = main(["transfer", "--source", f"{bench}:t_x", "--target", f"{bench}:t_z",
                 "--invalid", "==0", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert code == 0 and list(found) == list(MEANING)
    assert (found["M8"], found["M9"], found["M15"]) == (1, 1, 4 / 48)


def test_transfer_explains_every_metric(bench: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["transfer", "--source", f"{bench}:t_x", "--target", f"{bench}:t_y"]) == 0
    out = capsys.readouterr().out
    assert all(meaning in out for meaning in MEANING.values())
    assert "options: a, b, c, d" in out


def test_transfer_of_all_gives_a_matrix_and_a_plot(
    bench: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plot = tmp_path / "matrix.png"
    code = main(["transfer", "--all", f"{bench}:t_*", "--invalid", "==0", "--json",
                 "--plot", str(plot)])
    found = json.loads(capsys.readouterr().out)
    assert code == 0 and plot.stat().st_size > 10_000
    assert found["environments"] == ["bench:t_x", "bench:t_y", "bench:t_z"]
    m1, m9 = found["metrics"]["M1"], found["metrics"]["M9"]
    assert [m1[i][i] for i in range(3)] == pytest.approx([1, 1, 1])
    assert m1[0][1] == pytest.approx(m1[1][0]) and m1[0][1] > 0.99 > m1[0][2]
    assert m9 == [[0, 0, 1], [0, 0, 1], [1, 1, 0]]


@pytest.mark.parametrize(
    "arguments,says",
    [
        ([], "--source with --target, or --all"),
        (["--source", "{bench}:t_x"], "go together"),
        (["--all", "{bench}:t_x"], "two or more"),
        (["--source", "{bench}:t_*", "--target", "{bench}:t_x"], "say --all"),
        (["--source", "{bench}:t_x", "--target", "{bench}:nope"], "'nope'"),
        (["--source", "{bench}:t_x", "--target", "{bench}:t_y", "--invalid", "0"], "operator"),
    ],
)
def test_wrong_use_of_transfer_ends_in_one_line(
    arguments: list[str], says: str, bench: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["transfer", *(a.format(bench=bench) for a in arguments)]) == 2
    error = capsys.readouterr().err
    assert says in error and error.count("\n") == 1


def test_importance_reports_ranking_agreement_and_interactions(
    bench: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plots = [tmp_path / "importance.png", tmp_path / "dependence.png"]
    code = main(["importance", f"{bench}:t_x", "--invalid", "==0", "--options", "a,b,c,d",
                 "--json", "--plot", str(plots[0]), "--dependence", str(plots[1])])
    found = json.loads(capsys.readouterr().out)
    assert code == 0 and all(plot.stat().st_size > 5_000 for plot in plots)
    assert list(found["importance"])[:2] == ["a", "b"]
    assert found["configurations"] == 44
    assert len(found["agreement"]) == 3 and len(found["interactions"]) == 6


def test_model_reports_error_by_trials_and_when_it_is_good(
    bench: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plot = tmp_path / "curve.png"
    code = main(["model", f"{bench}:t_x", "--invalid", "==0", "--models", "stepwise,tree",
                 "--repeats", "2", "--json", "--plot", str(plot)])
    (found,) = json.loads(capsys.readouterr().out)
    assert code == 0 and plot.stat().st_size > 5_000
    assert found["trials_to_10_percent"]["stepwise"] in (10, 20)
    assert {point["model"] for point in found["curve"]} == {"stepwise", "tree"}


def test_model_tells_what_it_learned_and_that_the_noise_is_unknown(
    bench: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["model", f"{bench}:t_y", "--models", "tree", "--repeats", "1"]
    assert main(arguments) == 0
    assert "noise floor unknown" in capsys.readouterr().out
    for flag, learned in (([], "logarithm"), (["--linear"], "response")):
        assert main([*arguments, *flag, "--json"]) == 0
        (found,) = json.loads(capsys.readouterr().out)
        assert found["learned"] == learned and found["noise_floor_mape"] is None


def test_effects_replace_importances_where_a_forest_has_too_few_rows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = pd.DataFrame(list(product([0, 1], repeat=4))[:12], columns=list("abcd"))
    table["t"] = 10 * 2.0 ** table["a"]
    file = tmp_path / "few.csv"
    table.to_csv(file, index=False)
    assert main(["importance", f"{file}:t", "--options", "a,b,c,d,e"]) == 2
    assert main(["importance", f"{file}:t", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["note"] is None
    table["e"] = [0, 1] * 6
    table.to_csv(file, index=False)
    assert main(["importance", f"{file}:t"]) == 0
    assert "importances mean nothing here; --effects" in capsys.readouterr().out
    assert main(["importance", f"{file}:t", "--effects", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    told = {row["option"]: row["effect"] for row in found["effects"]}
    assert told["a"] == pytest.approx(100) and told["b"] == pytest.approx(0, abs=1e-9)
    assert found["unit"] == "%" and found["error_from"] == "residuals"
    assert main(["importance", f"{file}:t", "--effects"]) == 0
    assert "not told from" in capsys.readouterr().out
    assert main(["importance", f"{file}:t", "--effects", "--plot", "p.png"]) == 2


def test_rows_that_differ_only_in_numbers_not_taken_as_options_are_noted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = pd.DataFrame(list(product([0, 1], [0, 1], [1, 2, 4], range(8))), columns=[*"abcd"])
    table["t"] = np.arange(len(table)) + 1.0
    file = tmp_path / "knobs.csv"
    table.to_csv(file, index=False)
    arguments = ["transfer", "--source", f"{file}:t", "--target", f"{file}:t"]
    assert main(arguments) == 0
    said = capsys.readouterr().err
    assert "96 rows are 4 configurations of the columns taken as options (a, b)" in said
    assert "c, d look like options too" in said
    assert main([*arguments, "--options", "a,b,c,d"]) == 0
    assert not capsys.readouterr().err
    table[["a", "b", "t"]].to_csv(file, index=False)  # nothing left that tells the rows apart
    assert main(arguments) == 0 and not capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments,says",
    [
        (["importance", "{bench}:t_*"], "name one"),
        (["model", "{bench}:t_x", "--models", "oracle"], "should be among"),
        (["model", "{bench}:t_x"], "positive"),
        (["model", "missing.csv:t"], "no such file"),
    ],
)
def test_wrong_use_of_importance_and_model_ends_in_one_line(
    arguments: list[str], says: str, bench: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([a.format(bench=bench) for a in arguments]) == 2
    error = capsys.readouterr().err
    assert says in error and error.count("\n") == 1
