"""Workers are processes of the real command line, on a PostgreSQL that the tests start."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.endtoend.conftest import Tuner
from tests.workers import mariadb
from tests.workers import postgres as postgresql
from tests.workers.mariadb import MariaDb
from tests.workers.postgres import Postgres

QUICK = "tests.workers.quick"


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    reason = postgresql.why_not()
    if reason is not None:
        pytest.skip(reason)
    server = Postgres()
    yield server
    server.remove()


@pytest.fixture(params=["postgres", pytest.param("mariadb", marks=pytest.mark.slow)])
def database(request: pytest.FixtureRequest) -> Iterator[Postgres | MariaDb]:
    """Each kind of database server; MariaDB, which speaks MySQL's protocol, with ``-m slow``."""
    if request.param == "postgres":
        yield request.getfixturevalue("postgres")
        return
    reason = mariadb.why_not()
    if reason is not None:
        pytest.skip(reason)
    server = MariaDb()
    yield server
    server.remove()


@pytest.fixture
def tuner(tmp_path: Path) -> Iterator[Tuner]:
    runner = Tuner(tmp_path)
    runner.environment["OMP_NUM_THREADS"] = "1"
    yield runner
    runner.end()


@pytest.fixture
def gate(tuner: Tuner) -> Path:
    """Trials of ``QUICK`` wait until this file is there."""
    file = tuner.folder / "go"
    tuner.environment["QUICK_GATE"] = str(file)
    return file
