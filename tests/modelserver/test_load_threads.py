"""As many versions are loaded at once as there are load threads."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from tensorflow_serving.config import model_server_config_pb2

from tuner.modelserver.repository import Repository


class Servable:
    """Stands for a loaded version."""


@pytest.mark.parametrize("load_threads", [1, 3])
def test_so_many_models_are_loaded_at_once(load_threads: int, tmp_path: Path) -> None:
    config = model_server_config_pb2.ModelServerConfig()
    for name in "abc":
        (tmp_path / name / "1").mkdir(parents=True)
        config.model_config_list.config.add(
            name=name, base_path=str(tmp_path / name), model_platform="tensorflow"
        )
    meeting, loading, most = threading.Barrier(load_threads), [], []

    def load(name: str, version: int, path: Path) -> Servable:
        loading.append(name)
        meeting.wait(10)  # broken, if fewer load at once
        most.append(len(loading))
        loading.remove(name)
        return Servable()

    Repository(load, load_threads=load_threads).apply(config)
    assert len(most) == 3
    assert max(most) == load_threads
