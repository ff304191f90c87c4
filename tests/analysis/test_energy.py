"""Energies measured in different ways never meet."""

from __future__ import annotations

import json
from typing import Any

import pandas as pd
import pytest

from tuner.analysis.energy import check_energy, refuse_mixed
from tuner.analysis.environments import Environment
from tuner.errors import StudyError

ESTIMATE = {"source": "cpu_time", "method": "estimate", "domains": "cpu",
            "client's share taken off": True, "model_idle_w": 10.0, "model_max_w": 40.0}
COUNTER = {"source": "rapl", "method": "counter", "domains": "package-0",
           "client's share taken off": True}
ENERGY = "energy_per_request_j"


def study(bases: list[dict[str, Any]], machine: str = "here", name: str = "s") -> pd.DataFrame:
    table = pd.DataFrame({
        "number": range(len(bases)), "size": range(len(bases)), ENERGY: 1.0, "latency_p99_ms": 5.0,
        "valid": True, "energy_basis": [json.dumps(b) for b in bases],
    })
    table.attrs.update(name=name, environment={"machine": {"cpu": machine}})
    return table


def environment(table: pd.DataFrame, response: str = ENERGY) -> Environment:
    return Environment(str(table.attrs["name"]), table, response, ("size",), None)


def test_trials_of_two_sources_are_named_in_one_line() -> None:
    table = study([ESTIMATE, ESTIMATE, COUNTER, ESTIMATE])
    with pytest.raises(StudyError) as caught:
        refuse_mixed(table, ["latency_p99_ms", ENERGY])
    told = str(caught.value)
    assert "source cpu_time and rapl (trials 0-1, 3 and 2)" in told and "\n" not in told
    refuse_mixed(table, ["latency_p99_ms"])


def test_constants_and_the_clients_share_count_too() -> None:
    with pytest.raises(StudyError, match="model_max_w 40.0 and 60.0"):
        refuse_mixed(study([ESTIMATE, {**ESTIMATE, "model_max_w": 60.0}]), [ENERGY])
    with pytest.raises(StudyError, match="client's share taken off True and False"):
        refuse_mixed(study([COUNTER, {**COUNTER, "client's share taken off": False}]), [ENERGY])


def test_a_trial_that_failed_mixes_nothing() -> None:
    table = study([ESTIMATE, COUNTER])
    table["valid"] = [True, False]
    refuse_mixed(table, [ENERGY])


def test_two_studies_of_one_machine_need_the_same_constants_of_two_machines_the_same_source() -> None:
    other = {**ESTIMATE, "model_idle_w": 20.0, "model_max_w": 90.0}
    one = environment(study([ESTIMATE]))
    with pytest.raises(StudyError, match="s and t were measured in different ways: model_idle_w"):
        check_energy([one, environment(study([other], name="t"))])
    check_energy([one, environment(study([other], machine="there", name="t"))])
    with pytest.raises(StudyError, match="source cpu_time and rapl"):
        check_energy([one, environment(study([COUNTER], machine="there", name="t"))])
    check_energy([environment(t, "latency_p99_ms") for t in (study([ESTIMATE]), study([COUNTER]))])
