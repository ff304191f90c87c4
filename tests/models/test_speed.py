"""What a row costs by the size of its batch: measured once on each machine, and kept."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tuner import models, workloads
from tuner.cli import main
from tuner.errors import ModelError
from tuner.models import speed
from tuner.models.record import ModelRecord

MACHINE = "Test CPU, 2 cores, 4 GiB"


@pytest.fixture(scope="module")
def model(own_models: Path, cache: Path) -> ModelRecord:
    return models.resolve(own_models / "plain", cache=cache)


@pytest.fixture(scope="module")
def requests(model: ModelRecord, cache: Path) -> Path:
    return workloads.requests_file(model, source="random", count=4, cache=cache)


@pytest.fixture(scope="module")
def measured(model: ModelRecord, requests: Path, cache: Path) -> models.Speed:
    return models.measure_speed(model, requests, machine=MACHINE, cache=cache)


def test_every_batch_size_is_timed_and_a_row_costs_less_in_a_batch(measured: models.Speed) -> None:
    assert tuple(measured.ms_per_row) == speed.BATCHES
    assert all(ms > 0 for ms in measured.ms_per_row.values())
    # A product of 3 numbers a row: what a call costs is shared by the rows of a batch.
    assert measured.batch_efficiency > 2


def test_the_second_time_it_is_read_not_measured(
    model: ModelRecord, requests: Path, cache: Path, measured: models.Speed,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(speed, "run_program", None)
    assert models.measure_speed(model, requests, machine=MACHINE, cache=cache) == measured


@pytest.mark.parametrize("asked", [{"machine": "another"}, {"machine": MACHINE, "again": True}])
def test_another_machine_or_asking_again_measures_anew(
    model: ModelRecord, requests: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked
) -> None:
    answers = iter(['{"ms_per_row": {"1": 4.0, "2": 3.0}}', '{"ms_per_row": {"1": 5.0}}'])
    monkeypatch.setattr(speed, "run_program", lambda *_: next(answers))
    models.measure_speed(model, requests, machine=MACHINE, cache=tmp_path)
    second = models.measure_speed(model, requests, cache=tmp_path, **asked)
    assert second == models.Speed(asked["machine"], {1: 5.0})


def test_a_damaged_file_is_measured_again(
    model: ModelRecord, requests: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(speed, "run_program", lambda *_: '{"ms_per_row": {"1": 4.0}}')
    models.measure_speed(model, requests, machine=MACHINE, cache=tmp_path)
    (file,) = (tmp_path / "speed").glob("*.json")
    file.write_text(file.read_text()[:20])
    found = models.measure_speed(model, requests, machine=MACHINE, cache=tmp_path)
    assert found.ms_per_row == {1: 4.0}


def test_efficiency_is_how_much_cheaper_a_row_gets() -> None:
    assert models.Speed(MACHINE, {1: 8.0, 4: 2.0, 8: 2.5}).batch_efficiency == 4.0


def test_a_model_that_cannot_run_names_itself(
    model: ModelRecord, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: str) -> str:
        raise speed.ProgramFailed("no such signature")

    monkeypatch.setattr(speed, "run_program", fail)
    with pytest.raises(ModelError, match="'plain' could not be timed: no such signature"):
        models.measure_speed(model, tmp_path / "x.npz", machine=MACHINE, cache=tmp_path)


def test_the_command_prints_what_is_kept(
    own_models: Path, cache: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TUNER_CACHE", str(cache))
    monkeypatch.setattr(speed, "run_program", lambda *_: '{"ms_per_row": {"1": 4.0, "2": 2.5}}')
    command = ["models", "time", str(own_models / "plain"), "--requests", "random", "--again"]
    assert main([*command, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["name"], told["ms_per_row"]) == ("plain", {"1": 4.0, "2": 2.5})
    assert told["batch_efficiency"] == pytest.approx(1.6)
    assert main(command) == 0
    assert "1.60" in capsys.readouterr().out
