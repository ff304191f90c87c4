"""``tuner export`` finds a stored trial and writes what runs it."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from tests.study.conftest import measured
from tuner import models, propose, space_file, store, study
from tuner.cli import export as command
from tuner.errors import StudyError, UsageError
from tuner.export.bundle import ranges
from tuner.measurement import Configuration, Failure, Outcome, Scalar

SPACE = """
name: kept
parameters:
  max_batch_size: {values: [2, 4, 8, 16]}
fixed: {enable_batching: true, cpus: 1}
"""
NUMBERS = {2: (40.0, 0.1), 4: (12.0, 0.2), 8: (10.0, 0.9), 16: None}
"""Batch size -> p99 in ms and energy in J; ``None``: it crashes. 4 is the knee."""


class Recorded:
    """Answers from the numbers above."""

    def evaluate(
        self, configuration: Configuration, levels: Sequence[Mapping[str, Scalar]],
        numbers: Sequence[int],
    ) -> list[Outcome]:
        found = NUMBERS[int(configuration["max_batch_size"])]
        return [measured(*found) if found else Failure("crash", "ended", "")]

    def attributes(self) -> Mapping[str, object]:
        return {"seed": 3, "versions": {"tensorflow": "2.21"}}


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> models.ModelRecord:
    base = tmp_path_factory.mktemp("models") / "mine"
    (base / "1").mkdir(parents=True)
    (base / "1" / "saved_model.pb").write_bytes(b"graph")
    return models.ModelRecord("mine", base, 1, "own", "abc", inputs={}, outputs={})


@pytest.fixture(scope="module")
def database(record: models.ModelRecord, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of four configurations."""
    file = tmp_path_factory.mktemp("study") / "kept.db"
    space = space_file.parse(SPACE, file="kept.yaml")
    environment = {"model": "mine", "model_checksum": record.checksum, "deployer": "embedded"}
    kept = store.Store.create(f"sqlite:///{file}", "kept", space, environment)
    kept.put("settings", {"model": str(record.path)})
    study.run(space, [study.Arm({}, kept, propose.make("grid", space, seed=0))], Recorded(),
              n_trials=None)
    return file


@pytest.fixture(autouse=True)
def resolved(record: models.ModelRecord, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading a SavedModel takes TensorFlow seconds, and has tests of its own."""
    known = {str(record.path): record, "mine": record}
    monkeypatch.setattr(models, "resolve", lambda name, **_: known[name])


def run(*arguments: object) -> int:
    """The command in this process: parse, then run."""
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return command.run(parser.parse_args([str(argument) for argument in arguments]))


def number_of(database: Path, size: int) -> int:
    records = store.open_study(str(database)).records()
    return next(r.number for r in records if r.configuration["max_batch_size"] == size)


def test_the_knee_is_exported_with_its_fixed_settings(
    database: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(database, "--knee", "--to", tmp_path / "out") == 0
    assert str(tmp_path / "out" / "compose.yaml") in capsys.readouterr().out
    assert "value: 4" in (tmp_path / "out" / "batching_parameters.txt").read_text()
    assert 'taskset -c "${CPUS:-0}"' in (tmp_path / "out" / "serve.sh").read_text()
    readme = (tmp_path / "out" / "README.md").read_text()
    assert "| latency_p99_ms | 12 | 10.8 to 13.2 |" in readme
    assert "| versions.tensorflow | 2.21 |" in readme


def test_a_trial_is_exported_by_its_number_and_replaced_by_force(
    database: Path, tmp_path: Path
) -> None:
    arguments = database, "--trial", number_of(database, 8), "--to", tmp_path / "out"
    assert run(*arguments) == 0
    with pytest.raises(UsageError, match="holds an earlier export; --force replaces it"):
        run(*arguments)
    assert run(*arguments, "--force", "--image", "mine:1") == 0
    assert "mine:1" in (tmp_path / "out" / "compose.yaml").read_text()
    assert "value: 8" in (tmp_path / "out" / "batching_parameters.txt").read_text()


def test_a_trial_without_a_measurement_is_refused_with_its_reason(
    database: Path, tmp_path: Path
) -> None:
    with pytest.raises(StudyError, match="has no measurement: crash"):
        run(database, "--trial", number_of(database, 16), "--to", tmp_path / "out")
    with pytest.raises(StudyError, match="has no trial 99"):
        run(database, "--trial", 99, "--to", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_another_model_than_the_measured_one_is_exported_only_by_name(
    database: Path, record: models.ModelRecord, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed = dataclasses.replace(record, checksum="other")
    monkeypatch.setattr(models, "resolve", lambda name, **_: changed)
    arguments = database, "--knee", "--to", tmp_path / "out"
    with pytest.raises(StudyError, match="its checksum is other, not abc"):
        run(*arguments)
    assert run(*arguments, "--model", "mine") == 0


@pytest.mark.parametrize(
    ("limits", "told"),
    [
        ({"affinity": [1]}, "1"), ({"cpuset_cpus": "3"}, "3"), ({}, "0"), ({"affinity": None}, "0"),
        ({"affinity": [1, 2]}, "0"),  # not the trial's one CPU
    ],
)
def test_an_export_runs_on_the_cpus_that_were_measured(
    database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limits: dict[str, object], told: str
) -> None:
    plain = store.Store.records

    def records(self: store.Store, *given: object) -> list[store.TrialRecord]:
        return [
            dataclasses.replace(r, measurement={**r.measurement, "deployment": {"limits": limits}})
            for r in plain(self, *given)
        ]

    monkeypatch.setattr(store.Store, "records", records)
    readme = exported(database, tmp_path / "out", "--knee")
    assert f'taskset -c "${{CPUS:-{told}}}"' in (tmp_path / "out" / "serve.sh").read_text()
    assert f"cpuset: ${{CPUS:-{told}}}" in (tmp_path / "out" / "compose.yaml").read_text()
    assert f"`CPUS` (measured on {told})" in readme


def test_cpus_are_written_as_ranges() -> None:
    assert [ranges(n) for n in ([0], [0, 1, 2], [1, 3, 4, 5, 9])] == ["0", "0-2", "1,3-5,9"]


def exported(database: Path, to: Path, *arguments: object) -> str:
    assert run(database, *arguments, "--to", to) == 0
    return (to / "README.md").read_text()


def test_without_a_trial_the_choice_is_exported_and_its_limits_are_stated(
    database: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    readme = exported(database, tmp_path / "out")
    # 10 ms is the least p99 and alone within 5 % of it, though 12 ms is the knee.
    assert "value: 8" in (tmp_path / "out" / "batching_parameters.txt").read_text()
    assert "| error_rate <= 0.01 | 84.4% |" in readme
    assert "NOT KNOWN TO KEEP error_rate <= 0.01" in readme
    assert "warning: trial" in capsys.readouterr().err


def test_an_export_holds_what_a_later_measurement_found_and_warns_beyond_a_limit(
    record: models.ModelRecord, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    space = space_file.parse(SPACE + "constraints: {latency_p99_ms: {max: 20}}\n", file="k.yaml")
    environment = {"model": "mine", "model_checksum": record.checksum, "deployer": "embedded"}
    file = tmp_path / "later.db"
    kept = store.Store.create(f"sqlite:///{file}", "later", space, environment)
    kept.put("settings", {"model": str(record.path)})
    number = kept.start({"max_batch_size": 4}, space, {}, {})
    told = measured(5.295, 0.2)
    words = "other work used 64 % of the machine in the measured window"
    stage = dataclasses.replace(told.stage, details={"disturbed": words},
                                latency_p99_interval_ms=(4.39, None))
    kept.finish(number, dataclasses.replace(told, stage=stage), space)
    readme = exported(file, tmp_path / "before")
    assert "| latency_p99_ms | 5.295 | at least 4.39, no upper bound is known |" in readme
    assert words in readme and "(assumed, an end of the interval is not known)" in readme
    kept.put("measured_again", [{
        "trial": number, "window_s": 60.0, "requests": 1500, "percentile_rule": "ceiling",
        "date": "2026-11-30T12:00:00+00:00", "seed": 9,
        "metrics": {"latency_p99_ms": 102.0, "energy_per_request_j": 0.2, "error_rate": 0.0},
        "intervals": {"latency_p99_ms": [65.0, 210.0]}, "violations": {"latency_p99_ms <= 20": 4.1},
    }])
    with pytest.raises(StudyError, match="no choice, since nothing is feasible"):
        run(file, "--to", tmp_path / "out")
    readme = exported(file, tmp_path / "out", "--trial", number)
    assert "| latency_p99_ms | 102 | 65 to 210 |" in readme
    assert "The numbers of 1 later measurement(s) by `tuner measure`, 60 s in all, which stand" in readme
    assert ("| measured again 1 | 2026-11-30T12:00:00+00:00, trial 0: 1500 requests in 60 s, seed 9 |"
            in readme)
    kept.put("measured_again", [*kept.get("measured_again"), {
        "trial": number, "date": "2026-11-30T13:00:00+00:00", "metrics": {}, "reason": "overloaded",
    }])
    readme = exported(file, tmp_path / "failed", "--trial", number)
    assert "of this configuration. Failed: 1 of all." in readme
    assert "trial 0: failed (overloaded) |" in readme
    assert "1 of 3 of its measurements failed" in readme
    assert "BEYOND THE LIMIT latency_p99_ms <= 20: 102 ms was measured" in readme
    assert "BEYOND THE LIMIT latency_p99_ms <= 20" in capsys.readouterr().err
