"""``tuner doctor`` says what is there, and why not where it is not."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest

from tuner.cli import doctor
from tuner.deploy import allocators, cpufreq
from tuner.deploy.knobs import KNOBS


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A machine without programs, libraries, engine, control groups or cpufreq."""
    monkeypatch.setenv("PATH", "/nonexistent")
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere.sock")
    monkeypatch.setattr(allocators, "linker_cache", dict)
    monkeypatch.setattr("tuner.deploy.cgroups.hierarchies", dict)
    monkeypatch.setattr(cpufreq.policies, "__defaults__", (cpufreq.SYSFS / "nowhere",))
    told: dict[str, Any] = json.loads(json.dumps(doctor.examine()))
    return told


def offers(found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Every offer by its name."""
    named = {source["name"]: source for source in found["energy_sources"]}
    return {**found["deployers"], **found["limits"], **found["allocators"], **named}


def test_whatever_is_missing_says_why(found: dict[str, Any]) -> None:
    for name, offer in offers(found).items():
        assert offer["available"] is (offer["why_not"] is None), name
        assert offer["available"] or len(offer["why_not"]) > 10, name


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("binary", "--server-binary"),
        ("docker", "no Docker engine answers at unix:///nowhere.sock (No such file or directory)"),
        ("cpu_quota", "no cpu cgroup is mounted"),
        ("memory_limit_mb", "no memory cgroup is mounted"),
        ("cpu_frequency_mhz", "no cpufreq"),
        ("tcmalloc", "libtcmalloc-minimal4"),
        ("jemalloc", "libjemalloc2"),
    ],
)
def test_what_would_help_is_named(found: dict[str, Any], name: str, told: str) -> None:
    assert not offers(found)[name]["available"]
    assert told in offers(found)[name]["why_not"]


def test_cores_and_memory_are_told(found: dict[str, Any]) -> None:
    assert found["machine"]["memory_mib"] > 0
    assert found["cores"]["usable"] == len(os.sched_getaffinity(0))
    client = found["cores"]["load_generator"] or []
    assert sorted(found["cores"]["server"] + client) == sorted(os.sched_getaffinity(0))


def test_some_energy_source_is_always_there(found: dict[str, Any]) -> None:
    assert any(source["available"] for source in found["energy_sources"])


def test_the_text_names_every_offer(found: dict[str, Any]) -> None:
    text = doctor.text(found)
    assert [name for name in offers(found) if name not in text] == []


def test_every_knob_is_listed() -> None:
    assert [knob["name"] for knob in doctor.knobs()] == list(KNOBS)
    assert "response_cache_bytes" in doctor.knobs_text()
