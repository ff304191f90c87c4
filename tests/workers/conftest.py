"""Workers are processes of the real command line, on a PostgreSQL that the tests start."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest

from tests.endtoend.conftest import Tuner
from tests.workers import mariadb
from tests.workers import postgres as postgresql
from tests.workers.mariadb import MariaDb
from tests.workers.postgres import Postgres

Server = TypeVar("Server", Postgres, MariaDb)
QUICK = "tests.workers.quick"


def served(why_not: Callable[[], str | None], kind: type[Server]) -> Iterator[Server]:
    """A server of the kind until the test has ended; skips, with the reason, where there is none."""
    reason = why_not()
    if reason is not None:
        pytest.skip(reason)
    server = kind()
    yield server
    server.remove()


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    yield from served(postgresql.why_not, Postgres)


@pytest.fixture(params=["postgres", pytest.param("mariadb", marks=pytest.mark.slow)])
def database(request: pytest.FixtureRequest) -> Iterator[Postgres | MariaDb]:
    """Each kind of database server; MariaDB, which speaks MySQL's protocol, with ``-m slow``."""
    if request.param == "postgres":
        yield request.getfixturevalue("postgres")
        return
    yield from served(mariadb.why_not, MariaDb)


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
