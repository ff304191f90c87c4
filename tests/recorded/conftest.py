"""Plans of small studies, and an evaluator that answers them from a formula."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.study.conftest import Formula
from tuner.cli import _evaluator, main, record
from tuner.errors import UsageError
from tuner.measurement import Configuration, Outcome, Scalar

SPACE = """
name: small
model: cnn1d
factors:
  load: [light, high]
parameters:
  batching: {choices: [false, true]}
  size: {values: [1, 8], when: {batching: true}}
  threads: {values: [1, 2]}
"""
PLAN = """
studies:
  - {name: first, space: small.yaml, model: cnn1d, repeat: 0.3}
  - {name: second, space: small.yaml, model: text_cnn, seed: 3}
"""
CONFIGURATIONS = 6


class Bench(Formula):
    """A formula in a server's place; remembers what it was asked and what it was told to keep."""

    def __init__(self) -> None:
        super().__init__()
        self.environment: dict[str, Any] = {
            "model": "?", "workload": "rows", "deployer": "formula", "machine": "one",
        }
        self.kept: list[Mapping[str, Any]] = []
        self.levels: list[list[Scalar]] = []
        self.pause_s = 0.0

    def calibrate(self, facts: Mapping[str, Any], note: Callable[[str], None]) -> dict[str, Any]:
        self.kept.append(dict(facts))
        return {"capacity_rps": 100.0 + len(self.kept), **facts}

    def evaluate(
        self, configuration: Configuration, levels: Sequence[Mapping[str, Scalar]],
        numbers: Sequence[int],
    ) -> list[Outcome]:
        time.sleep(self.pause_s)
        outcomes = super().evaluate(configuration, levels, numbers)
        self.levels.append([level["load"] for level in levels])
        return outcomes


def furnish(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """Work in a folder with ``plan.yaml`` and ``small.yaml``; recording asks this bench."""
    shared = Bench()

    @contextmanager
    def open_evaluator(
        space: Any, options: Any, artifacts: Path, note: Any, wait_s: float | None = None
    ) -> Iterator[Bench]:
        if space.settings.model == "missing":
            raise UsageError("model 'missing' cannot be had")
        shared.environment = {**shared.environment, "model": space.settings.model}
        shared.environment.pop("speed", None)
        yield shared

    (folder / "small.yaml").write_text(SPACE)
    (folder / "plan.yaml").write_text(PLAN)
    monkeypatch.chdir(folder)
    monkeypatch.setattr(_evaluator, "open_evaluator", open_evaluator)
    monkeypatch.setattr(record, "_speed", lambda *_: {"batch_efficiency": 3.0})
    return shared


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    return furnish(tmp_path, monkeypatch)


@pytest.fixture(scope="session")
def whole_plan(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Bench]:
    """A folder in which the whole plan is recorded, to be copied, and the bench that was asked."""
    folder = tmp_path_factory.mktemp("recorded")
    with pytest.MonkeyPatch.context() as monkeypatch:
        bench = furnish(folder, monkeypatch)
        assert recording() == 0
    return folder, bench


@pytest.fixture
def recorded(
    whole_plan: tuple[Path, Bench], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Bench:
    """As ``bench``, with the whole plan recorded already."""
    shutil.copytree(whole_plan[0], tmp_path, dirs_exist_ok=True)
    return furnish(tmp_path, monkeypatch)


def recording(*more: str) -> int:
    return main(["record", "--plan", "plan.yaml", "--quiet", *more])
