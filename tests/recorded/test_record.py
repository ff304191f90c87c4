"""``tuner record``: every study of a plan completely, in as many sittings as it takes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.recorded.conftest import CONFIGURATIONS, PLAN, Bench, recording
from tuner import store
from tuner.cli import _plan, main
from tuner.measurement import configuration_key


def keys(study: str) -> list[object]:
    return [configuration_key(r.configuration) for r in store.load_records(study) if r.is_finished]


def test_each_configuration_is_measured_at_all_levels_together(
    whole_plan: tuple[Path, Bench],
) -> None:
    _, bench = whole_plan
    assert bench.levels == [["light", "high"]] * (2 * CONFIGURATIONS + 2)


def test_each_configuration_is_measured_once(recorded: Bench) -> None:
    assert len(keys("second@load=light")) == len(set(keys("second@load=light"))) == CONFIGURATIONS
    assert keys("second@load=light") == keys("second@load=high")


def test_failures_are_kept_with_their_reason(recorded: Bench) -> None:
    failed = [r for r in store.load_records("second@load=high") if r.state == "failed"]
    assert [(r.reason, r.configuration["size"]) for r in failed] == [("crash", 8)]


def test_the_order_is_drawn_by_the_seed(recorded: Bench) -> None:
    drawn = {r.name: [configuration_key(c) for c in r.configurations] for r in _plan.read("plan.yaml")}
    assert keys("second@load=light") == drawn["second"] != drawn["first"]
    assert keys("first@load=light")[:CONFIGURATIONS] == drawn["first"]


def test_repeats_come_last_and_into_the_same_study(recorded: Bench) -> None:
    measured = keys("first@load=light")
    assert len(measured) == CONFIGURATIONS + 2
    assert set(measured[CONFIGURATIONS:]) < set(measured[:CONFIGURATIONS])
    designs = [r.started for r in store.load_records("second@load=light")]
    repeats = store.load_records("first@load=light")[CONFIGURATIONS:]
    assert all(max(designs) < r.started for r in repeats)


def test_what_is_recorded_is_not_measured_again(
    recorded: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    assert recording() == 0
    assert not recorded.seen
    assert "All of it is recorded." in capsys.readouterr().out


def test_a_sitting_ends_in_time_and_the_next_goes_on(bench: Bench) -> None:
    bench.pause_s = 0.5
    assert recording("--only", "second", "--timeout", "2s") == 0
    done = len(keys("second@load=light"))
    assert 0 < done < CONFIGURATIONS
    bench.pause_s = 0.0
    assert recording("--only", "second") == 0
    assert len(keys("second@load=light")) == len(bench.seen) == CONFIGURATIONS


def test_a_stopped_recording_goes_on_with_what_it_first_calibrated(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    bench.stop_after = 4
    assert recording("--only", "second") == 130
    assert "Stopped; finished trials are saved" in capsys.readouterr().out
    bench.stop_after = None
    assert recording("--only", "second") == 0
    assert sorted(keys("second@load=light")) == sorted(set(keys("second@load=light")))
    assert len(keys("second@load=light")) == CONFIGURATIONS
    first, second = [facts for facts in bench.kept if "capacity_rps" in facts]
    assert first["capacity_rps"] == second["capacity_rps"]


def test_the_capacity_is_the_middle_of_several_calibrations(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = iter([90.0, 20.0, 100.0, 300.0, 95.0])

    def calibrate(facts: dict, note: object) -> dict:
        return {"idle_w": 2.0, "capacity_rps": 0.0, **facts} | (
            {} if "capacity_rps" in facts else {"capacity_rps": next(answers)}
        )

    monkeypatch.setattr(bench, "calibrate", calibrate)
    assert recording("--only", "second") == 0
    facts = store.open_study("second@load=light").facts()
    assert facts["capacity_rps"] == 95.0
    assert facts["capacities_rps"] == [90.0, 20.0, 100.0, 300.0, 95.0]


def test_how_the_model_gains_from_batches_is_kept_with_its_first_measurement(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.stop_after = 2
    recording("--only", "first")
    bench.stop_after = None
    monkeypatch.setattr("tuner.cli.record._speed", lambda *_: {"batch_efficiency": 4.0})
    assert recording("--only", "first") == 0
    told = store.open_study("first@load=light").environment
    assert told["speed"] == {"batch_efficiency": 3.0}


def test_one_study_that_cannot_be_had_does_not_end_the_night(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("plan.yaml").write_text(PLAN.replace("model: cnn1d", "model: missing"))
    assert recording() == 1
    assert len(keys("second@load=light")) == CONFIGURATIONS
    assert "tuner: first: model 'missing' cannot be had" in capsys.readouterr().err


def test_a_dry_run_tells_the_time_and_measures_nothing(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    assert recording("--dry-run") == 0
    told = capsys.readouterr().out
    assert "0/6" in told and "0/2" in told and "left." in told
    assert not bench.seen and not list(Path("studies").glob("*.db"))


def test_the_time_left_follows_the_measured_pace(
    recorded: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    recording("--only", "second", "--dry-run")
    row = next(line for line in capsys.readouterr().out.splitlines() if "second" in line)
    # At the estimate it would be above 20 s for two stages of up to 10 s; formulas are quick.
    assert float(row.split()[4]) < 10


def test_everything_an_analysis_reads_survives_the_packing(
    recorded: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    records = store.load_records("second@load=light")
    assert not any({"owner", "mark"} & set(r.attributes) for r in records)
    assert not any("timeline" in (r.measurement.get("stage") or {}) for r in records)
    measured = [r for r in records if r.state == "complete"]
    assert all(r.metrics["latency_p99_ms"] and r.values for r in measured)
    assert main(["pareto", "studies/second.db:second@load=light", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)


def test_reading_leaves_a_recorded_file_as_it_is(recorded: Bench) -> None:
    file = Path("studies/second.db")
    before = file.read_bytes()
    store.load_records("second@load=light")
    assert main(["studies", "studies", "--json"]) == 0
    assert file.read_bytes() == before
