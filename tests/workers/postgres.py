"""A PostgreSQL of the test's own, on a socket in a folder of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

PROGRAMS = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
USER = "postgres"


def why_not() -> str | None:
    """Why there is no PostgreSQL here; ``None`` where there is."""
    try:
        import psycopg2  # noqa: F401
    except ImportError:
        return "skipped: needs tuner[postgres]"
    if not PROGRAMS:
        return "skipped: needs Debian's package postgresql"
    return None


class Postgres:
    """A cluster that listens on a UNIX socket only; its own user, since root may not run it."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="tuner-pg-"))
        self._as: dict[str, str] = {}
        if os.geteuid() == 0:
            shutil.chown(self._folder, USER, USER)
            self._as = {"user": USER, "group": USER}
        self._run("initdb", "-D", self._data, "-U", "tuner", "-A", "trust", "--no-sync")
        with (self._folder / "data" / "postgresql.conf").open("a") as settings:
            settings.write(
                f"listen_addresses = ''\nunix_socket_directories = '{self._folder}'\nfsync = off\n"
            )
        self.start()

    @property
    def _data(self) -> str:
        return str(self._folder / "data")

    def url(self, database: str) -> str:
        return f"postgresql://tuner:a-s3cret@/{database}?host={self._folder}"

    def make(self, database: str) -> str:
        """A new database's URL."""
        self._run("createdb", "-h", str(self._folder), "-U", "tuner", database)
        return self.url(database)

    def start(self) -> None:
        self._run("pg_ctl", "-D", self._data, "-l", str(self._folder / "log"), "-w", "start")

    def stop(self, how: str = "fast") -> None:
        self._run("pg_ctl", "-D", self._data, "-m", how, "-w", "stop")

    def remove(self) -> None:
        self.stop("immediate")
        shutil.rmtree(self._folder)

    def _run(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            [str(PROGRAMS[-1] / program), *arguments], cwd=self._folder, check=False,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, **self._as,  # type: ignore[call-overload]
        ) if program != "pg_ctl" else self._quietly(program, *arguments)
        assert done.returncode == 0, done.stdout

    def _quietly(self, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        # The server inherits the output: a pipe would never end.
        return subprocess.run(
            [str(PROGRAMS[-1] / program), *arguments], cwd=self._folder, check=False, text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            **self._as,  # type: ignore[call-overload]
        )
