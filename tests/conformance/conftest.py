"""The models of the recordings, and one fork server for all servers that are started."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conformance import models, suites
from tests.modelserver.conftest import ForkServerProcess


@pytest.fixture(scope="session")
def fork_server(tmp_path_factory) -> Iterator[ForkServerProcess]:
    server = ForkServerProcess(tmp_path_factory.mktemp("forkserver") / "log")
    yield server
    server.close()


@pytest.fixture(scope="session")
def recorded_models(tmp_path_factory) -> Path:
    return models.make(tmp_path_factory.mktemp("recorded"))


@pytest.fixture(scope="session")
def files(tmp_path_factory, recorded_models) -> Path:
    """The folder with the suites' configuration files."""
    folder = tmp_path_factory.mktemp("files")
    suites.write_files(folder, recorded_models)
    return folder
