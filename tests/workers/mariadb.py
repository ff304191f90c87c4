"""A MariaDB of the test's own, on a socket in a folder of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

USER, PASSWORD = "mysql", "a-s3cret"
_NEEDED = ("mariadbd", "mariadb-install-db", "mariadb", "mariadb-admin")


def why_not() -> str | None:
    """Why there is no MariaDB here; ``None`` where there is."""
    try:
        import pymysql  # noqa: F401
    except ImportError:
        return "skipped: needs pymysql"
    if not all(map(_program, _NEEDED)):
        return "skipped: needs Debian's package mariadb-server"
    return None if os.geteuid() == 0 else "skipped: needs root"


class MariaDb:
    """A server that listens on a UNIX socket only; its own user, since root may not run it."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="tuner-maria-"))
        shutil.chown(self._folder, USER, USER)
        self._run("mariadb-install-db", "--no-defaults", f"--datadir={self._folder / 'data'}",
                  f"--user={USER}", "--auth-root-authentication-method=normal")
        self.start()

    def make(self, database: str) -> str:
        """A new database's URL."""
        self._run("mariadb", *self._client, "-e", (
            f"CREATE DATABASE {database}; CREATE OR REPLACE USER tuner@localhost IDENTIFIED BY "
            f"'{PASSWORD}'; GRANT ALL ON *.* TO tuner@localhost"
        ))  # fmt: skip
        return f"mysql://tuner:{PASSWORD}@localhost/{database}?unix_socket={self._socket}"

    def start(self) -> None:
        with (self._folder / "log").open("ab") as log:
            self._server = subprocess.Popen(
                [str(_program("mariadbd")), "--no-defaults", "--skip-networking",
                 f"--datadir={self._folder / 'data'}", f"--socket={self._socket}",
                 f"--user={USER}"],
                stdout=log, stderr=log,
            )  # fmt: skip
        deadline = time.monotonic() + 30
        while subprocess.run(
            [str(_program("mariadb-admin")), *self._client, "ping"], capture_output=True, check=False
        ).returncode:
            assert self._server.poll() is None and time.monotonic() < deadline, (
                self._folder / "log").read_text()[-600:]
            time.sleep(0.1)

    def stop(self) -> None:
        self._server.terminate()
        self._server.wait(30)

    def remove(self) -> None:
        self.stop()
        shutil.rmtree(self._folder)

    @property
    def _socket(self) -> str:
        return str(self._folder / "socket")

    @property
    def _client(self) -> list[str]:
        return ["--no-defaults", f"--socket={self._socket}", "--user=root"]

    def _run(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            [str(_program(program)), *arguments], check=False, cwd=self._folder,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout


def _program(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/bin")
