"""The recorded studies that come with the repository hold what studies/README.md says of them.

Recordings are committed while they grow: one that holds fewer configurations is skipped, unless the
README lists it as complete.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tuner import store
from tuner.cli import _recorded, studies
from tuner.load.machine import CROWD_LIMIT

FOLDER = Path(__file__).parents[2] / "studies"
README = (FOLDER / "README.md").read_text(encoding="utf-8")
SHIPPED = sorted(FOLDER.glob("record-*.db"))
KINDS = ("probe", "record", "screening")
LISTED = [file for kind in KINDS for file in sorted(FOLDER.glob(f"{kind}-*.db"))]
LEVELS = ["light", "medium", "high"]
ENOUGH = 120

NONE = "no recorded study is part of the repository yet"


def says_complete(name: str, readme: str = README) -> bool:
    """Whether the README's line ``Complete: `record-a`, `record-b`.`` names a recording."""
    return any(f"`{name}`" in line for line in re.findall(r"^Complete: .*$", readme, re.MULTILINE))


@pytest.fixture(params=SHIPPED or [None], ids=lambda file: file.stem if file else "none")
def file(request: pytest.FixtureRequest) -> Path:
    """One recorded database."""
    if request.param is None:
        pytest.skip(NONE)
    found: Path = request.param
    return found


@pytest.fixture
def found(file: Path) -> list[_recorded.Recorded]:
    return _recorded.read(f"sqlite:///{file}")


def test_every_recording_holds_three_load_levels(found: list[_recorded.Recorded]) -> None:
    assert [one.load for one in found] == LEVELS


def test_every_level_holds_its_configurations_valid_or_invalid(
    file: Path, found: list[_recorded.Recorded]
) -> None:
    held = {one.load: one.configurations_valid + one.configurations_invalid for one in found}
    if min(held.values()) < ENOUGH and not says_complete(file.stem):
        pytest.skip(f"{file.stem} is still growing: {held}")
    assert min(held.values()) >= ENOUGH


def test_every_failure_has_a_reason_and_every_success_its_numbers(file: Path) -> None:
    for record in _records(file):
        if record.is_finished:
            measured = record.state == "complete"
            assert (record.reason is None) == measured, record.number
            assert not measured or record.metrics["latency_p99_ms"] > 0
            assert not measured or record.metrics["energy_per_request_j"] > 0


def test_every_study_says_what_its_dnn_costs(file: Path) -> None:
    for study in _studies(file):
        told = study.environment
        assert told["flops_per_inference"] > 0 and told["input_bytes"] > 0
        assert told["speed"]["batch_efficiency"] >= 1
        assert {"1", "32"} <= {str(rows) for rows in told["speed"]["ms_per_row"]}


@pytest.mark.skipif(not SHIPPED, reason=NONE)
def test_nothing_that_other_work_disturbed_counts() -> None:
    for record in (r for f in LISTED for r in _records(f) if r.is_finished):
        details = record.measurement.get("stage", {}).get("details", {})
        assert not details.get("disturbed"), record.number
        energy = (record.measurement.get("energy") or {}).get("details", {})
        if record.state == "complete" and "rest_cpu_s" in energy:
            window_s = record.measurement["energy"]["window_s"]
            assert energy["rest_cpu_s"] <= CROWD_LIMIT * energy["cpus"] * window_s, record.number


@pytest.mark.skipif(not SHIPPED, reason=NONE)
def test_no_recording_tells_where_a_machine_keeps_its_files() -> None:
    for file in LISTED:
        assert not re.findall(rb"/(?:root|home|tmp|Users)/[^\x00-\x1f\"]{0,40}", file.read_bytes())


@pytest.mark.skipif(not SHIPPED, reason=NONE)
def test_the_readmes_tables_are_those_of_the_databases() -> None:
    found = [one for file in LISTED for one in _recorded.read(f"sqlite:///{file}")]
    told = README.partition(studies.BEGIN)[2].partition(studies.END)[0]
    assert told.strip() == studies._markdown(found), "make record writes them"


def test_what_counts_as_complete_is_read_from_a_line_of_its_own() -> None:
    text = "about `record-a`\nComplete: `record-b`, `record-c`.\n"
    assert [says_complete(f"record-{k}", text) for k in "abc"] == [False, True, True]


def _studies(file: Path) -> list[store.Store]:
    url, names = store.locate(str(file))
    return [store.Store.open(url, name) for name in names]


def _records(file: Path) -> list[Any]:
    return [record for study in _studies(file) for record in study.records()]


def test_what_was_measured_over_the_former_rest_front_is_told_apart() -> None:
    url = f"sqlite:///{FOLDER / 'probe-deployers.db'}"
    embedded = store.load_table("probe-deployers-embedded@load=300", url)
    assert embedded["former_rest"].tolist() == embedded["protocol"].eq("rest").tolist()
    assert embedded["former_rest"].any()
    assert not store.load_table("probe-deployers-binary@load=300", url)["former_rest"].any()
