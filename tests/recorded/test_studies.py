"""``tuner studies``: what recorded studies hold, counted from their stored trials."""

from __future__ import annotations

import datetime
import json
import re
import sqlite3
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.recorded.conftest import CONFIGURATIONS, Bench, recording
from tuner.cli import _recorded, main
from tuner.cli._recorded import KEYS


def listed(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[dict]:
    assert main(["studies", *arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_one_object_for_each_model_and_load_level_with_all_keys(
    recorded: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    found = listed(capsys)
    assert [(one["name"], one["model"], one["load"]) for one in found] == [
        ("first@load=light", "cnn1d", "light"), ("first@load=high", "cnn1d", "high"),
        ("second@load=light", "text_cnn", "light"), ("second@load=high", "text_cnn", "high"),
    ]
    assert all(tuple(one) == KEYS for one in found)
    assert {one["energy_source"] for one in found} == {"fake"}


def test_repeats_are_trials_but_no_further_configurations(
    recorded: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    first = listed(capsys, "studies/first.db")[0]
    assert first["configurations_valid"] == CONFIGURATIONS - 1
    assert first["configurations_invalid"] == 1
    assert first["trials"] == CONFIGURATIONS + 2


def test_a_storage_url_is_read_as_well(recorded: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    assert listed(capsys, "sqlite:///studies/first.db") == listed(capsys, "studies/first.db")


def test_other_models_and_popularity_are_told_apart(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    file = Path("small.yaml")
    file.write_text(file.read_text().replace("load: [light, high]", "other_models: [0, 2]"))
    bench.environment["popularity"] = "zipf:1.1"
    bench.evaluate = lambda c, levels, n: super(Bench, bench).evaluate(c, levels, n)  # type: ignore[method-assign]
    recording("--only", "second")
    capsys.readouterr()
    (one,) = listed(capsys)
    assert (one["name"], one["workload"], one["load"]) == ("second", "rows, zipf:1.1", "medium")
    assert one["configurations_valid"] + one["configurations_invalid"] == 2 * CONFIGURATIONS


@pytest.mark.parametrize("arguments", [[], ["."]])
def test_no_studies_is_an_empty_array(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert listed(capsys, *arguments) == []


def test_a_damaged_database_is_one_line_and_the_rest_is_listed(
    recorded: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    content = Path("studies/first.db").read_bytes()
    Path("studies/cut.db").write_bytes(content[:20_000])
    Path("studies/noise.db").write_bytes(b"no database at all" * 100)
    Path("studies/empty.db").write_bytes(b"")
    assert main(["studies", "--json"]) == 0
    said = capsys.readouterr()
    assert len(json.loads(said.out)) == 4
    assert said.err.count("\n") == 3
    assert all(name in said.err for name in ("cut.db", "noise.db", "empty.db"))


def test_a_database_of_something_else_stays_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with sqlite3.connect("other.db") as database:
        database.execute("CREATE TABLE birds (name TEXT)")
    before = Path("other.db").read_bytes()
    assert main(["studies", "other.db"]) == 1
    assert "holds no studies" in capsys.readouterr().err
    assert Path("other.db").read_bytes() == before


def test_a_secret_of_a_url_is_never_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["studies", "nosuchdb://user:geheim@127.0.0.1:1/x"]) == 1
    said = capsys.readouterr()
    assert "geheim" not in said.err + said.out and said.err.count("\n") == 1


def test_a_path_that_is_not_there_is_a_mistake(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["studies", "nowhere.db"]) == 2
    assert "nowhere.db: no such database or folder" in capsys.readouterr().err


def test_a_text_without_the_marks_is_left_alone(
    recorded: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("README.md").write_text("text")
    assert main(["studies", "--write", "README.md"]) == 2
    assert "has no lines <!-- recorded -->" in capsys.readouterr().err
    assert Path("README.md").read_text() == "text"


def test_the_readme_section_tells_precision_repeats_and_reasons(recorded: Bench) -> None:
    readme = Path("README.md")
    readme.write_text("before\n<!-- recorded -->\nold\n<!-- /recorded -->\nafter\n")
    assert main(["studies", "--write", "README.md"]) == 0
    told = readme.read_text()
    assert told.startswith("before\n") and told.endswith("\nafter\n") and "old" not in told
    # The formula's p99 interval is 10 % to either side, and it answers the same each time.
    assert re.search(r"`first@load=light`.* 10% +\| 0% +\| 0% +\| 0% \(\d\) +\| - +\| 0.0%", told)
    assert re.search(r"- Hours of trials: \d+\.\d", told)
    assert "`first@load=high`" in told and "the server ended by itself" in told


def record(p99: float, energy: float, *, bounded: bool, at: int) -> SimpleNamespace:
    start = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC) + datetime.timedelta(minutes=at)
    stage = {"latency_p99_ms": p99, "latency_p99_interval_ms": [0.7 * p99, 1.1 * p99],
             "details": {"p99_interval_bounded": bounded}}
    return SimpleNamespace(
        state="complete", reason=None, configuration={"size": 1}, energy_source="x", attributes={},
        measurement={"stage": stage}, started=start,
        finished=start + datetime.timedelta(minutes=30), is_finished=True,
        metrics={"latency_p99_ms": p99, "energy_per_request_j": energy},
        intervals={"energy_per_request_j": (0.9 * energy, 1.1 * energy)},
    )


def test_open_intervals_energy_and_hours_are_summarised() -> None:
    held = (SimpleNamespace(name="s", environment={}),
            [record(10, 1.0, bounded=False, at=0), record(12, 1.2, bounded=False, at=20)])
    one = _recorded._summary(("s", "m", "w", "light", "here"), [held])
    # 30 % below; the stored upper end, 10 % above, is only the largest latency.
    assert one.p99_half_width == pytest.approx(0.3) and one.p99_open == 1
    assert one.energy_half_width == pytest.approx(0.1)
    assert [one.p99_change, one.energy_change] == pytest.approx([2 / 11, 2 / 11])
    assert _recorded.hours([one, one]) == pytest.approx(50 / 60)
    held[1][1].measurement["stage"]["details"]["p99_interval_bounded"] = True
    again = _recorded._summary(("s", "m", "w", "light", "here"), [held])
    assert again.p99_half_width == pytest.approx((0.3 + 0.2) / 2) and again.p99_open == 0.5
