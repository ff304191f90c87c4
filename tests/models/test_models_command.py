"""``tuner models``: list and build."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tuner import models
from tuner.cli import main


@pytest.fixture(autouse=True)
def _use_session_cache(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNER_CACHE", str(cache))


def test_build_prints_the_record_of_a_catalogue_model(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "build", "mobilenet_v2@96", "--json"]) == 0
    record = models.ModelRecord.from_json(json.loads(capsys.readouterr().out))
    assert record == models.build("mobilenet_v2@96")


def test_list_tells_built_models_from_others(capsys: pytest.CaptureFixture[str]) -> None:
    models.build("mobilenet_v2@96")
    assert main(["models", "list", "--json"]) == 0
    entries = {entry["name"]: entry for entry in json.loads(capsys.readouterr().out)}
    assert set(models.available()) <= set(entries)
    assert entries["mobilenet_v2@96"]["built"]
    assert entries["mobilenet_v2@96"]["parameters"] == 3_538_984
    assert entries["mobilenet_v2@96"]["path"].startswith(str(models.build("mobilenet_v2@96").path))
    assert main(["models", "list"]) == 0
    assert "mobilenet_v2@96" in capsys.readouterr().out


def test_a_mistaken_name_is_one_line_and_exit_code_two(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "build", "mobilenet_v2@7"]) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("\n") == 1 and "32 to 1024" in said.err
