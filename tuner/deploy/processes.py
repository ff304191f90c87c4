"""The study's side of a fork server or launcher: start a server, hear of its end, signal it."""

from __future__ import annotations

import itertools
import json
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tuner import inherited
from tuner.deploy import proc, programs
from tuner.errors import TrialFailure


class ServerProcess:
    """One server started through a ``Spawner``."""

    def __init__(self, spawner: Spawner, number: int) -> None:
        self._spawner, self.number = spawner, number
        self.pid = 0
        self.started: int | None = None
        self.exit_code: int | None = None
        """Exit code, or minus the signal that ended it; ``None`` while it runs."""
        self.error: str | None = None
        self._answered, self._ended = threading.Event(), threading.Event()

    def wait(self, timeout_s: float) -> bool:
        """Wait for the end; whether it came in time."""
        return self._ended.wait(timeout_s)

    def signal(self, number: int) -> None:
        """Send a signal; nothing happens when the server has ended."""
        if self.exit_code is None:
            self._spawner.order({"kill": self.pid, "signal": number})

    def end(self, patience_s: float) -> int:
        """SIGTERM, then SIGKILL after ``patience_s``; returns the exit code.

        Processes that the server itself started are killed with it.
        """
        family = {pid: proc.start_time(pid) for pid in proc.tree(self.pid)}
        self.signal(signal.SIGTERM)
        if not self.wait(patience_s):
            self.signal(signal.SIGKILL)
            if not self.wait(5.0):
                proc.kill(self.pid, self.started)
                self._spawner.forget(self)
        for pid, started in family.items():
            proc.kill(pid, started)
        return self.exit_code if self.exit_code is not None else -signal.SIGKILL

    def _heard(self, answer: Mapping[str, Any]) -> None:
        if "pid" in answer:
            self.pid = int(answer["pid"])
            self.started = proc.start_time(self.pid)
        if "error" in answer:
            self.error = str(answer["error"])
        if "exit" in answer:
            self.exit_code = int(answer["exit"])
        elif "error" in answer:
            self.exit_code = 127
        if self.exit_code is not None:
            self._ended.set()
        self._answered.set()


class Spawner:
    """A fork server or launcher as a child process of the study.

    It lives in a session of its own, so that Ctrl-C reaches only the study, which then ends its
    servers in order; its standard input is a pipe that only the study holds, so that it ends its
    servers by itself when the study is killed.

    Args:
        command: the program, e.g. ``[python, "-m", "tuner.modelserver.forkserver"]``.
        environment: variables that it and every server get, on top of ``inherited.environment``.
        log: where its own standard error goes.
    """

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str], log: Path | None = None
    ) -> None:
        self.command = tuple(command)
        self.environment = dict(environment)
        self._numbers = itertools.count(1)
        self._servers: dict[int, ServerProcess] = {}
        self._lock = threading.Lock()
        self.log = log
        stderr = open(log, "ab") if log else None  # noqa: SIM115 - given to the child
        try:
            self._process = subprocess.Popen(
                self.command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr if stderr else subprocess.DEVNULL,
                env={**inherited.environment(), **programs.environment(), **environment},
                start_new_session=True,
            )
        finally:
            if stderr:
                stderr.close()
        self._reader = threading.Thread(target=self._read, name="spawner", daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def start(
        self,
        argv: Sequence[str],
        *,
        log: Path,
        timeout_s: float,
        environment: Mapping[str, str] | None = None,
        affinity: Sequence[int] | None = None,
        cgroup_procs: Sequence[str] = (),
    ) -> ServerProcess:
        """Start a server.

        Raises:
            TrialFailure: ``start_failed`` when it cannot be started, ``start_timeout`` when no
                answer comes in time.
        """
        server = ServerProcess(self, next(self._numbers))
        with self._lock:
            self._servers[server.number] = server
        self.order(
            {
                "id": server.number,
                "argv": list(argv),
                "log": str(log),
                "env": dict(environment or {}),
                "affinity": list(affinity) if affinity else None,
                "cgroup_procs": list(cgroup_procs),
                "nice": 0,
            }
        )
        if not server._answered.wait(timeout_s):
            self.close()  # A late answer would leave a server that nobody knows.
            raise TrialFailure("start_timeout", f"{self._name} gave no process in {timeout_s:g} s")
        if not server.pid:
            raise TrialFailure("start_failed", server.error or f"{self._name} ended", self._tail())
        return server

    def order(self, message: Mapping[str, Any]) -> None:
        """Send one line; a spawner that has ended is noticed by the reader."""
        assert self._process.stdin is not None
        try:
            with self._lock:
                self._process.stdin.write(json.dumps(message).encode() + b"\n")
                self._process.stdin.flush()
        except (OSError, ValueError):
            pass

    def forget(self, server: ServerProcess) -> None:
        with self._lock:
            self._servers.pop(server.number, None)

    def close(self) -> None:
        """End it and every server it still has."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.close()
        except OSError:
            pass
        try:
            self._process.wait(10.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join(5.0)

    @property
    def _name(self) -> str:
        return " ".join(self.command[-2:])

    def _tail(self) -> str:
        if self.log is None or not self.log.is_file():
            return ""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-40:])

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            try:
                answer = json.loads(line)
                number = int(answer["id"])
            except (ValueError, KeyError, TypeError):
                continue  # A library's print on standard output is not an answer.
            with self._lock:
                server = self._servers.get(number)
            if server:
                server._heard(answer)
            if server and server.exit_code is not None:
                self.forget(server)
        self._process.stdout.close()
        # Whoever spawned is gone, and by its contract its servers with it.
        with self._lock:
            left, self._servers = list(self._servers.values()), {}
        for server in left:
            proc.kill(server.pid, server.started) if server.pid else None
            server._heard({"exit": -signal.SIGKILL, "error": f"{self._name} ended by itself"})
