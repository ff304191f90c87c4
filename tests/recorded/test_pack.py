"""A packed database: smaller, and the same to every analysis."""

from __future__ import annotations

import json
import sqlite3
import sys
from dataclasses import replace
from pathlib import Path

import pandas
import pytest

from tests.study.conftest import measured
from tuner import store
from tuner.measurement import Failure
from tuner.space_file import parse
from tuner.store import Store
from tuner.store.pack import pack

SPACE = parse("parameters: {size: {values: [1, 2, 3, 4]}}")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A complete trial, one that overloaded, one that crashed, and one that still runs."""
    kept = Store.create(f"sqlite:///{tmp_path}/a.db", "a", SPACE, {"model": "m"})
    outcomes = [
        measured(10.0, 0.5), Failure("overloaded", "the queue grew", "noise"),
        Failure("crash", "signal SIGSEGV", "the last words"),
    ]
    for size in (1, 2, 3, 4):
        number = kept.start({"size": size}, SPACE, {}, {"versions": {"python": "3"}})
        if size < 4:
            kept.finish(number, outcomes[size - 1], SPACE)
    return tmp_path / "a.db"


def test_the_table_is_the_same(file: Path) -> None:
    before = store.load_table(str(file))
    pack(file)
    after = store.load_table(str(file))
    pandas.testing.assert_frame_equal(before, after)
    assert before.attrs == after.attrs


def test_the_log_of_a_crash_stays_and_that_of_an_overload_goes(file: Path) -> None:
    pack(file)
    logs = {r.reason: r.attributes.get("log_tail") for r in store.load_records(str(file))}
    assert logs["crash"] == "the last words" and logs["overloaded"] is None


def test_who_runs_a_trial_is_kept_until_it_ends(file: Path) -> None:
    pack(file)
    owners = [r.state for r in store.load_records(str(file)) if "owner" in r.attributes]
    assert owners == ["running"]


def test_no_folder_of_the_machine_stays(tmp_path: Path) -> None:
    """The command line, messages and logs name programs and files, not where they lie."""
    kept = Store.create(f"sqlite:///{tmp_path}/a.db", "a", SPACE, {"model": "m"})
    here = {"command_line": [sys.executable, f"--model={Path.home()}/models/a", f"{Path.cwd()}/b"]}
    outcomes = [
        replace(measured(10.0, 0.5), deployment=here),
        Failure("crash", f"no {Path.home()}/lost", f"File {Path.cwd()}/tuner/x.py"),
    ]
    for size, outcome in enumerate(outcomes, start=1):
        number = kept.start({"size": size}, SPACE, {}, {})
        kept.finish(number, outcome, SPACE)
    pack(tmp_path / "a.db")
    with sqlite3.connect(tmp_path / "a.db") as database:
        held = {
            (number, key): json.loads(value) for number, key, value in database.execute(
                "SELECT number, key, value_json FROM trial_user_attributes NATURAL JOIN trials"
            )
        }
    command_line = held[0, "measurement"]["deployment"]["command_line"]
    assert command_line == ["python", "--model=~/models/a", "./b"]
    assert held[1, "message"] == "no ~/lost"
    assert held[1, "log_tail"] == "File ./tuner/x.py"


def test_packing_again_changes_nothing(file: Path) -> None:
    pack(file)
    before = store.load_records(str(file))
    pack(file)
    assert store.load_records(str(file)) == before
