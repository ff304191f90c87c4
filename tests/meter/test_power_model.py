"""The estimate's constants: where they come from, and what is said when they are wrong."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from tuner.errors import UsageError
from tuner.meter import CpuTimeMeter, choose
from tuner.meter.power_model import (
    GENERATIONS,
    IDLE_FRACTION,
    Cpu,
    config_file,
    max_watts,
    power_model,
    tdp_table,
)


def cpu(name: str, cores: int, vendor: str = "", family: int = 0, model: int = 0, step: int = 0):
    return Cpu(vendor, family, model, step, name, cores)


@pytest.fixture(autouse=True)
def config(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    (tmp_path / "tuner").mkdir()
    return tmp_path / "tuner" / "energy.yaml"


@pytest.mark.parametrize(
    ("name", "cores", "watts"),
    [
        ("AMD EPYC 7443P 24-Core Processor", 24, 200),
        ("AMD EPYC 9654 96-Core Processor", 192, 720),
        ("AMD EPYC 9654 96-Core Processor", 2, 7.5),
        ("Intel(R) Xeon(R) Platinum 8480+", 56, 350),
        ("Intel(R) Xeon(R) CPU E5-2680 v4 @ 2.40GHz", 14, 120),
        ("Intel(R) Xeon(R) Gold 6148 CPU @ 2.40GHz", 20, 150),
        ("Intel(R) Core(TM) i7-8700K CPU @ 3.70GHz", 6, 95),
        ("Intel(R) Core(TM) i7-8700 CPU @ 3.20GHz", 6, 65),
    ],
)
def test_tdp_of_a_named_model_by_the_cores_in_sight(name, cores, watts):
    found, origin = max_watts(cpu(name, cores))
    assert found == pytest.approx(watts)
    assert "TDP" in origin and f"{cores} of " in origin


def test_a_model_hidden_by_the_cloud_is_told_by_its_generation():
    watts, origin = max_watts(cpu("AMD EPYC", 2, "AuthenticAMD", 25, 17))
    rows = [row for row in tdp_table() if row.generation == "EPYC 9004"]
    per_core = sum(row.tdp_w for row in rows) / sum(row.cores for row in rows)
    assert watts == pytest.approx(2 * per_core)
    assert "EPYC 9004" in origin


def test_skylake_and_cascade_lake_differ_by_stepping_only():
    hidden = "Intel(R) Xeon(R) CPU @ 2.00GHz"
    assert "Skylake" in max_watts(cpu(hidden, 2, "GenuineIntel", 6, 0x55, 3))[1]
    assert "Cascade Lake" in max_watts(cpu(hidden, 2, "GenuineIntel", 6, 0x55, 7))[1]


def test_an_unknown_processor_gets_a_guess_that_says_so():
    watts, origin = max_watts(cpu("", 4))
    assert 4 < watts < 60
    assert "generic guess: a nameless CPU is not in tdp.csv" in origin


def test_every_row_of_the_table_is_sane_and_names_its_source():
    table = tdp_table()
    assert len(table) > 300 and len({row.model for row in table}) == len(table)
    for row in table:
        assert row.source and 2 <= row.cores <= 288
        assert 1 < row.tdp_w / row.cores < 40, row.model
    assert {generation for *_, generation in GENERATIONS} <= {row.generation for row in table}


def test_idle_is_a_fraction_of_the_maximum_and_says_where_it_comes_from():
    model = power_model(cpu=cpu("AMD EPYC 7443P 24-Core Processor", 24))
    assert model.idle_w == pytest.approx(IDLE_FRACTION * 200)
    assert "SPECpower" in model.idle_from


def test_this_machine_has_constants():
    model = power_model()
    assert 0 < model.idle_w < model.max_w < 2000


def test_the_users_file_is_used_and_named(config):
    config.write_text("# our rack\nidle_w: 30\nmax_w: 90.5\norigin: wall meter\n")
    model = power_model()
    assert (model.idle_w, model.max_w) == (30, 90.5)
    assert model.max_from == f"{config}:3 (wall meter)"


def test_the_argument_beats_the_users_file(config):
    config.write_text("idle_w: 30\nmax_w: 90\n")
    model = power_model(max_w=70)
    assert (model.idle_w, model.max_w) == (30, 70)
    assert model.max_from == "given by the caller"


def test_constants_and_origin_are_kept_in_every_record(config):
    config.write_text("idle_w: 30\n")
    meter = choose("cpu_time", max_w=70)
    meter.open()
    told = meter.close().details
    assert (told["model_idle_w"], told["model_max_w"]) == (30, 70)
    assert told["model_idle_w_from"] == f"{config}:1"


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        (
            "idle_w: 1\nmax_watts: 2\n",
            2,
            "max_watts: unknown key; allowed are idle_w, max_w, origin",
        ),
        ("\n\nmax_w: lots\n", 3, "max_w: must be a number of watts >= 0, not 'lots'"),
        ("idle_w: -1\n", 1, "idle_w: must be a number of watts >= 0, not '-1'"),
        ("idle_w: .nan\n", 1, "idle_w: must be a number"),
        ("idle_w: [1]\n", 1, "idle_w: must be a number"),
        ("max_w: 1\nmax_w: 2\n", 2, "max_w: given twice"),
        ("- 1\n", 1, "expected `key: value` lines"),
        ("idle_w: [\n", 2, "not YAML"),
    ],
)
def test_a_wrong_file_is_named_by_file_line_and_key(config, text, line, says):
    config.write_text(text)
    with pytest.raises(UsageError) as caught:
        power_model()
    message = str(caught.value)
    assert message.startswith(f"{config}:{line}: ") and says in message
    assert "\n" not in message


def test_an_empty_file_changes_nothing(config):
    before = power_model()
    config.write_text("# nothing yet\n")
    assert power_model() == before


@pytest.mark.parametrize(("idle", "most"), [(50, 50), (60, 50), (-1, 50), (1, math.nan)])
def test_impossible_constants_are_refused(idle, most):
    with pytest.raises(UsageError):
        CpuTimeMeter(idle, most)


def test_a_relative_xdg_config_home_is_ignored(monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", "elsewhere")
    assert config_file() == Path.home() / ".config" / "tuner" / "energy.yaml"
