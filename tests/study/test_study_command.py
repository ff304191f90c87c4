"""``tuner study`` names a mistake's place, and its programs for the long run hold in short."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import grpc
import pytest

from tests.study.conftest import measured
from tuner import cli, propose, study
from tuner.cli._progress import Progress
from tuner.space import Space
from tuner.store import Store, patience

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


def test_a_full_disk_is_one_line(
    in_folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "studies/s.artifacts/00001")

    monkeypatch.setattr("tuner.store.locate", full)
    assert cli.main(["pareto", "s"]) == 2
    assert capsys.readouterr().err == "tuner: studies/s.artifacts/00001: No space left on device\n"


def test_a_proxy_that_is_gone_is_one_line(
    in_folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*args: object) -> None:
        with grpc.insecure_channel("127.0.0.1:1") as channel:
            channel.unary_unary("/any/Call")(b"", timeout=5)

    monkeypatch.setattr("tuner.store.locate", gone)
    assert cli.main(["pareto", "s"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("tuner: the storage's proxy does not answer: ") and said.count("\n") == 1


def test_progress_reads_no_measurements(
    space: Space, url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = Store.create(url, "small", space, {})
    chosen = {"batching": False, "threads": 1}
    kept.finish(kept.start(chosen, space, {}, {}), measured(20.0, 0.5), space)
    read: list[object] = []
    plain = patience._Quick.read_whole
    monkeypatch.setattr(
        patience._PatientDatabase, "read_whole",
        lambda storage, *args: read.append(args) or plain(storage, *args),
    )
    with Progress(5) as progress:
        progress.begin([study.Arm({}, kept, propose.make("random", space, seed=0))], space)
        assert progress._best == [20.0, 0.5]
    assert not read and "going on after 1 finished trial" in capsys.readouterr().err


@pytest.mark.parametrize("wrong", [["--trials", "0"], ["--nonsense"], []], ids=str)
def test_a_wrong_argument_is_one_line(wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["study", *wrong]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and said.startswith("tuner: ")


def test_a_few_kills_at_seeded_points_lose_nothing(root: Path) -> None:
    done = subprocess.run(
        [sys.executable, "benchmarks/kills.py", "--points", "2", "--seed", "1"],
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
