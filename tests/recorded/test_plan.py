"""What a plan file says, and what is wrong with one that does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.recorded.conftest import SPACE
from tuner import space
from tuner.cli import _plan
from tuner.errors import SpaceError, UsageError

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.yaml").write_text(SPACE)
    return tmp_path


def write(folder: Path, text: str) -> str:
    (folder / "plan.yaml").write_text(text)
    return "plan.yaml"


def test_the_shipped_plan_records_four_models_over_two_kinds_of_workload() -> None:
    from tuner.models.catalogue import recipe

    recordings = _plan.read(str(ROOT / "studies" / "plan.yaml"))
    factorials = [r for r in recordings if r.sampler == "grid"]
    assert len({r.space.settings.model for r in factorials}) >= 4
    assert len({recipe(r.space.settings.model).workload for r in factorials}) >= 2
    assert all(len(r.configurations) >= 120 for r in factorials)
    assert all(r.space.factors["load"] == ("light", "medium", "high") for r in factorials)
    assert any(r.sampler == "screening" for r in recordings)


def test_the_factorial_is_fully_crossed_over_grpc_and_in_part_over_rest() -> None:
    configurations = list(space.load("record").configurations())
    over_grpc = [c for c in configurations if c["protocol"] == "grpc"]
    assert (len(over_grpc), len(configurations)) == (19 * 5, 19 * 5 + 10 * 3)
    # Each REST configuration has its twin, so that the protocol's effect is told by pairs.
    twins = [{**c, "protocol": "grpc"} for c in configurations if c["protocol"] == "rest"]
    assert all(twin in over_grpc for twin in twins)


def test_the_screening_design_shows_each_knob_equally_often_at_both_levels() -> None:
    (recording, *_) = [
        r for r in _plan.read(str(ROOT / "studies" / "plan.yaml")) if r.sampler == "screening"
    ]
    assert len(recording.configurations) == 13
    design = recording.configurations
    for name in ("model_copies", "onednn", "allocator", "cpu_quota"):
        counts = [sum(c[name] == v for c in design) for v in {c[name] for c in design}]
        assert sorted(counts) == [6, 7]


def test_the_repeated_part_is_a_share_rounded_up(folder: Path) -> None:
    (recording,) = _plan.read(write(folder, "studies: [{name: a, space: small.yaml, repeat: 0.2}]"))
    assert len(recording.repeated) == 2
    assert all(c in recording.configurations for c in recording.repeated)


def test_steps_are_the_designs_and_then_the_repeats(folder: Path) -> None:
    plan = write(
        folder,
        "studies:\n- {name: a, space: small.yaml, repeat: 0.1}\n- {name: b, space: small.yaml}\n",
    )
    assert [step.label for step in _plan.steps(_plan.read(plan))] == ["a", "b", "a, repeat"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("studies: [{name: a}]", "plan.yaml:1: studies.0..*should have a space"),
        ("studies:\n- {name: a, space: small.yaml, modle: x}", "plan.yaml:2.*did you mean model"),
        ("studies:\n- {name: a, space: small.yaml, repeat: 2}", "share of at least 0, at most 1, not 2"),
        ("studies:\n- {name: a, space: small.yaml, sampler: tpe}", "one of grid, screening"),
        ("studies:\n- {name: a, space: small.yaml}\n- {name: a, space: small.yaml}", "twice"),
        ("studies: [", "plan.yaml.*not YAML"),
        ("", "is empty"),
        ("{}", "no studies"),
    ],
)
def test_a_mistake_is_told_with_its_place(folder: Path, text: str, said: str) -> None:
    with pytest.raises(SpaceError, match=said):
        _plan.read(write(folder, text))


def test_a_space_without_end_cannot_be_recorded(folder: Path) -> None:
    (folder / "wide.yaml").write_text("parameters: {share: {low: 0.0, high: 1.0, levels: 3}}")
    with pytest.raises(SpaceError, match="has no end"):
        _plan.read(write(folder, "studies: [{name: a, space: wide.yaml}]"))


def test_a_missing_plan_is_named() -> None:
    with pytest.raises(UsageError, match="nowhere.yaml: cannot be read"):
        _plan.read("nowhere.yaml")


def test_an_unknown_study_is_answered_with_the_nearest(folder: Path) -> None:
    recordings = _plan.read(write(folder, "studies: [{name: record-cnn, space: small.yaml}]"))
    with pytest.raises(UsageError, match="did you mean record-cnn"):
        _plan.only(recordings, ["record-cn"])
