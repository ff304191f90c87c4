"""``tuner study`` names a mistake's place, and its programs for the long run hold in short."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tuner import cli

SPACE = "name: s\nmodel: {model}\nparameters:\n  tensorflow_intra_op_parallelism: [1, 2]\n"


def test_a_model_that_the_file_names_wrongly_is_named_with_its_line(
    in_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("s.yaml").write_text(SPACE.replace("{model}", "nowhere/model"))
    assert cli.main(["study", "--space", "s.yaml", "--deployer", "fake"]) == 2
    assert "tuner: s.yaml:2: model: nowhere/model:" in capsys.readouterr().err


def test_a_model_that_the_command_line_names_wrongly_is_not_the_files_fault(
    in_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("s.yaml").write_text(SPACE.replace("{model}", "cnn1d"))
    assert cli.main(["study", "--space", "s.yaml", "--model", "no/where", "--deployer", "fake"]) == 2
    assert "s.yaml" not in capsys.readouterr().err


def test_requests_that_are_text_are_not_answered_with_advice_to_unpickle(
    in_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("s.yaml").write_text(SPACE.replace("{model}", "cnn1d"))
    Path("r.npz").write_text("1 2 3\n")
    command = ["study", "--space", "s.yaml", "--requests", "r.npz", "--deployer", "fake"]
    assert cli.main(command) == 2
    said = capsys.readouterr().err
    assert "r.npz: not an .npz file" in said and "pickle" not in said


@pytest.mark.parametrize("wrong", [["--trials", "0"], ["--nonsense"], []], ids=str)
def test_a_wrong_argument_is_one_line(wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["study", *wrong]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and said.startswith("tuner: ")


def test_a_few_kills_at_seeded_points_lose_nothing(root: Path) -> None:
    done = subprocess.run(
        [sys.executable, "benchmarks/kills.py", "--points", "2", "--seed", "3"],
        cwd=root, env=_environment(root), capture_output=True, text=True, timeout=300, check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 of 2 kills lost nothing and left nothing; the study went on" in done.stdout


def test_a_short_soak_grows_nothing(root: Path) -> None:
    done = subprocess.run(
        [sys.executable, "benchmarks/soak.py", "--trials", "4", "--duration", "0.2"],
        cwd=root, env=_environment(root), capture_output=True, text=True, timeout=300, check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def _environment(root: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(root), "TF_CPP_MIN_LOG_LEVEL": "3"}
