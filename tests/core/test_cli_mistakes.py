"""Every mistake on the command line ends in one line, exit code 2, and leaves things as they were."""

from __future__ import annotations

import os
import re
import socket
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]


def tuner(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
    return subprocess.run(
        [sys.executable, "-m", "tuner", *arguments],
        cwd=cwd, env=environment, capture_output=True, text=True, timeout=120, check=False,
    )


def assert_one_line(done: subprocess.CompletedProcess[str], *words: str) -> None:
    lines = [l for l in done.stderr.splitlines() if l.startswith("tuner: ")]
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    assert len(lines) == 1
    for word in words:
        assert re.search(word, lines[0]), lines[0]


SPACE = "name: s\nparameters:\n  tensorflow_intra_op_parallelism: [1, 2]\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (SPACE + "paramters: {}\n", ("s.yaml:4", "paramters", "did you mean parameters")),
        (SPACE.replace("[1, 2]", "{low: x, high: 2}"), ("s.yaml:3", r"\.low", "number")),
        (SPACE.replace("[1, 2]", "{low: 3, high: 2}"), ("s.yaml:3", r"\.low", "swap")),
        (SPACE.replace("[1, 2]", "{choices: [1], when: {gone: 1}}"), ("s.yaml:3", "gone")),
        (SPACE.replace("intra_op", "extra_op"), ("s.yaml:3", "tensorflow_intra_op_parallelism")),
        (SPACE.replace("[1, 2]", "[1, lots]"), ("s.yaml:3", "lots", "whole number")),
        (SPACE + "fixed: {max_batch_sise: 4}\n", ("s.yaml:4", "max_batch_size")),
    ],
)
def test_a_wrong_space_is_named_with_file_line_and_key(
    tmp_path: Path, text: str, words: tuple[str, ...]
) -> None:
    (tmp_path / "s.yaml").write_text(text)
    assert_one_line(tuner("study", "--space", "s.yaml", "--model", "cnn1d", cwd=tmp_path), *words)
    assert not (tmp_path / "studies").exists()


def test_a_missing_space_is_named(tmp_path: Path) -> None:
    assert_one_line(tuner("study", "--space", "gone.yaml", cwd=tmp_path), "gone.yaml", "batching")


def test_an_unreadable_saved_model_is_named(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(SPACE)
    (tmp_path / "model" / "1").mkdir(parents=True)
    (tmp_path / "model" / "1" / "saved_model.pb").write_bytes(b"\x00nonsense")
    done = tuner(
        "study", "--space", "s.yaml", "--model", "model", "--requests", "random", cwd=tmp_path
    )
    assert_one_line(done, "saved_model.pb|model")


def test_a_model_of_the_users_own_needs_requests(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(SPACE)
    (tmp_path / "model").mkdir()
    done = tuner("study", "--space", "s.yaml", "--model", "model", cwd=tmp_path)
    assert_one_line(done, "--requests", "random")


def test_requests_that_do_not_fit_the_signature_are_named(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(SPACE)
    np.savez(tmp_path / "r.npz", wrong=np.zeros((2, 3), np.float32))
    done = tuner(
        "study", "--space", "s.yaml", "--model", "cnn1d", "--requests", "r.npz", cwd=tmp_path
    )
    assert_one_line(done, "wrong")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--sampler", "magic"), ("magic", "tpe")),
        (("--load", "hard"), ("light", "medium", "high")),
        (("--name", "../x"), ("--name",)),
        (("--storage", "nonsense://x"), ("storage",)),
        (("--energy", "sunshine"), ("sunshine",)),
        (("--objective", "no.such.module"), ("no.such",)),
        (("--objective", ".."), ("--objective",)),
        (("--storage", "garbage"), ("not a URL",)),
    ],
)
def test_a_wrong_option_says_what_would_be_right(
    tmp_path: Path, arguments: tuple[str, ...], words: tuple[str, ...]
) -> None:
    (tmp_path / "s.yaml").write_text(SPACE)
    done = tuner("study", "--space", "s.yaml", "--model", "cnn1d", *arguments, cwd=tmp_path)
    assert_one_line(done, *words)


def test_a_study_that_exists_with_another_space_is_left_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(SPACE)
    options = ("--space", "s.yaml", "--model", "cnn1d", "--deployer", "fake", "--load", "50",
               "--duration", "1", "--trials", "1", "--quiet")
    first = tuner("study", *options, cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    file = tmp_path / "studies" / "s.db"
    before = _dump(file)
    (tmp_path / "s.yaml").write_text(SPACE.replace("[1, 2]", "[1, 2, 3]"))
    assert_one_line(tuner("study", *options, cwd=tmp_path), "another space", "--name")
    assert _dump(file) == before


def test_a_taken_port_is_named(tmp_path: Path) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = str(holder.getsockname()[1])
        done = tuner("serve", "--model", "cnn1d", "--port", port, cwd=tmp_path)
    assert_one_line(done, f"--port {port}", "choose another")


def test_help_names_every_command(tmp_path: Path) -> None:
    done = tuner("--help", cwd=tmp_path)
    assert done.returncode == 0
    for command in ("study", "pareto", "replay", "load"):
        assert command in done.stdout


def _dump(file: Path) -> list[str]:
    with sqlite3.connect(file) as connection:
        return list(connection.iterdump())
