"""A busy machine is said before the first trial, waited for, marked on each trial and counted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from objectives import serving
from objectives.serving import Options, ServingEvaluator
from tests.study.conftest import SPACE, measured
from tuner.cli import _quiet, measure
from tuner.cli._progress import Progress
from tuner.errors import UnavailableError
from tuner.load import quiet
from tuner.load.quiet import Look
from tuner.measurement import Failure, Measurement
from tuner.meter import FakeMeter
from tuner.space import Space
from tuner.space_file import parse
from tuner.store import Store, TrialRecord

WORDS = "other work used 64% of the machine in the measured window"


def machine_is(monkeypatch: pytest.MonkeyPatch, *others: float) -> None:
    """Let each look find so much of others' work, the last one for ever."""
    left = list(others)

    def look(*_: Any, **__: Any) -> Look:
        share = left.pop(0) if len(left) > 1 else left[0]
        return Look(share, 0.0, (("cc1plus", share),))

    monkeypatch.setattr(quiet, "look", look)


def test_nothing_is_said_of_a_quiet_machine(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    machine_is(monkeypatch, 0.04)
    _quiet.before_first(None)
    assert capsys.readouterr().err == ""


def test_a_busy_machine_is_said_in_one_line_with_who_uses_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    machine_is(monkeypatch, 0.64)
    _quiet.before_first(None)
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "too busy to measure: other work uses 64% of it (cc1plus 64%)" in said
    assert "--wait-for-quiet" in said


def test_the_hypervisors_share_is_said_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Look(0.0, 0.2, ()).why_busy == "the hypervisor takes 20% of it"
    assert Look(0.05, 0.04, ()).why_busy is None


def test_waiting_says_so_and_goes_on_once_it_is_quiet(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    machine_is(monkeypatch, 0.64, 0.5, 0.04)
    _quiet.before_first(30.0)
    said = capsys.readouterr().err.splitlines()
    assert said[0].startswith("waiting at most 30 s for a quiet machine: other work uses 64%")
    assert said[1] == "the machine is quiet now"


def test_waiting_in_vain_ends_with_a_clear_word(monkeypatch: pytest.MonkeyPatch) -> None:
    machine_is(monkeypatch, 0.64)
    with pytest.raises(UnavailableError, match="stayed busy for 0 s: other work uses 64%.*nothing"):
        _quiet.before_first(0.0)


def disturbed(measurement: Measurement, words: str | None, before: str | None) -> Measurement:
    told = {"disturbed": words} | ({} if before is None else {"disturbed_before": before})
    return replace(measurement, stage=replace(measurement.stage, details=told))


@pytest.fixture
def study(url: str, space: Space) -> Any:
    """Finishes trials in a study, disturbed or not, and gives their records."""
    kept = Store.create(url, "small", space, {})

    def finish(*pairs: tuple[str | None, str | None]) -> list[TrialRecord]:
        found = []
        for words, before in pairs:
            number = kept.start({"batching": False, "threads": 1}, space, {}, {})
            found.append(kept.finish(number, disturbed(measured(9.0, 0.1), words, before), space))
        return found

    finish.kept = kept  # type: ignore[attr-defined]
    return finish


def shown(study: Any, space: Space, records: list[TrialRecord]) -> None:
    """Let the progress tell of the records."""
    arm = SimpleNamespace(
        store=SimpleNamespace(changed=lambda seen: []), finished=0,
        proposer=SimpleNamespace(explain=lambda: "random"),
    )
    with Progress(9) as progress:
        progress.begin([arm], space)
        for record in records:
            progress.finished(record, {})


def test_the_line_of_a_disturbed_trial_is_marked(
    study: Any, space: Space, capsys: pytest.CaptureFixture[str]
) -> None:
    shown(study, space, study((WORDS, WORDS), (None, None)))
    first, second = [l for l in capsys.readouterr().err.splitlines() if l.startswith("[")]
    assert f"DISTURBED: {WORDS}" in first and "DISTURBED" not in second


def test_that_every_stage_is_measured_twice_is_said_once(
    study: Any, space: Space, capsys: pytest.CaptureFixture[str]
) -> None:
    shown(study, space, study(*[(None, WORDS)] * 6))
    said = [l for l in capsys.readouterr().err.splitlines() if "measured twice" in l]
    assert len(said) == 1 and "the last 3 trials" in said[0] and "--wait-for-quiet" in said[0]


def test_that_some_stages_are_measured_twice_is_not_said(
    study: Any, space: Space, capsys: pytest.CaptureFixture[str]
) -> None:
    shown(study, space, study(*[(None, WORDS), (None, WORDS), (None, None)] * 2))
    assert "measured twice" not in capsys.readouterr().err


def test_the_end_counts_disturbed_trials(study: Any, space: Space) -> None:
    study((WORDS, WORDS), (None, WORDS), (None, None))
    number = study.kept.start({"batching": False, "threads": 2}, space, {}, {})
    study.kept.finish(number, Failure("disturbed", WORDS), space)
    told = _quiet.told(study.kept.records())
    assert told is not None
    assert told.startswith("1 of 3 trials were disturbed") and WORDS in told
    assert "2 of 3 were measured twice" in told and "1 beside them" in told


def test_a_calm_study_says_nothing_of_other_work(study: Any) -> None:
    study((None, None))
    assert _quiet.told(study.kept.records()) is None


@pytest.mark.parametrize("words", [None, WORDS])
def test_a_finalist_measured_again_says_whether_it_was_disturbed(
    study: Any, words: str | None
) -> None:
    (trial,) = study((None, None))
    entry = measure._entry(0, disturbed(measured(9.0, 0.1), words, None), 0.05, {})
    assert entry["disturbed"] == words
    assert (WORDS in measure._text(study.kept, trial, entry)) is (words is not None)


def evaluator(space: Space, folder: Path) -> ServingEvaluator:
    runner = SimpleNamespace(bench=SimpleNamespace(meter=FakeMeter()), capacity_rps=None)
    return ServingEvaluator(space, runner, Options(folder), {})  # type: ignore[arg-type]


def no_baseline(*_: Any, **__: Any) -> float:
    raise UnavailableError("no idle baseline: other work used 64% of the machine")


def test_a_busy_machine_leaves_the_baseline_unknown_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving.meter, "measure_idle", no_baseline)
    said: list[str] = []
    found = evaluator(parse(SPACE + "load: 50\n"), tmp_path).calibrate({}, said.append)
    assert "idle_w" not in found
    assert any("no idle baseline" in each and "stays unknown" in each for each in said)


def test_a_study_of_the_energy_above_idle_ends_where_there_is_no_baseline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving.meter, "measure_idle", no_baseline)
    space = parse(SPACE + "load: 50\nobjectives: [latency_p99_ms, energy_net_per_request_j]\n")
    with pytest.raises(UnavailableError, match="needs energy_net_per_request_j"):
        evaluator(space, tmp_path).calibrate({}, lambda text: None)


def test_a_stored_baseline_is_not_measured_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving.meter, "measure_idle", no_baseline)
    found = evaluator(parse(SPACE + "load: 50\n"), tmp_path).calibrate({"idle_w": 2.4}, print)
    assert found["idle_w"] == 2.4
