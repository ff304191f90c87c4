"""The embedded server, ``tuner.modelserver``, forked from an interpreter with TensorFlow loaded."""

from __future__ import annotations

import tempfile
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from tuner.deploy import programs
from tuner.deploy.files import ServerFiles
from tuner.deploy.local import LocalDeployer
from tuner.deploy.processes import Spawner
from tuner.deploy.resources import Limits
from tuner.measurement import EMBEDDED_SERVER

MODULE = "tuner.modelserver"
FORK_SERVER = "tuner.modelserver.forkserver"


class EmbeddedDeployer(LocalDeployer):
    """Forks model servers; one fork server for each process environment.

    Variables such as LD_PRELOAD and TF_ENABLE_ONEDNN_OPTS are read when a process or TensorFlow
    starts and mean nothing after the fork. A server with a memory limit is started afresh
    instead: what it would share with the fork server would not count against its limit.

    Args:
        fork_server: command of the fork server; tests put a stand-in here.
        server: command of the server for fresh starts.
        max_fork_servers: idle fork servers kept; each holds a loaded TensorFlow in memory.
        monitoring: see ``LocalDeployer``.
    """

    name = "embedded"
    about: ClassVar[Mapping[str, Any]] = {EMBEDDED_SERVER: 2}

    def __init__(
        self,
        *,
        fork_server: Sequence[str] | None = None,
        server: Sequence[str] | None = None,
        max_fork_servers: int = 4,
        monitoring: bool = False,
    ) -> None:
        super().__init__(monitoring=monitoring)
        self._fork_command = list(fork_server or programs.command(FORK_SERVER))
        self._command = list(server or programs.command(MODULE))
        self._most = max_fork_servers
        self._forks: OrderedDict[tuple[tuple[str, str], ...], Spawner] = OrderedDict()
        self._logs = tempfile.TemporaryDirectory(prefix="tuner-forkserver-")

    def command(self, files: ServerFiles) -> list[str]:
        return [*self._command, *files.arguments]

    def spawner(self, files: ServerFiles, held: Limits) -> tuple[Spawner, list[str]]:
        if held.memory_limit_mb is not None:
            return super().spawner(files, held)
        return self._fork_server(files.environment), files.arguments

    def close(self) -> None:
        for spawner in self._forks.values():
            spawner.close()
        self._forks.clear()
        super().close()
        self._logs.cleanup()

    def _fork_server(self, environment: Mapping[str, str]) -> Spawner:
        key = tuple(sorted(environment.items()))
        spawner = self._forks.pop(key, None)
        if spawner is None or not spawner.alive:
            log = Path(self._logs.name) / f"{len(self._forks)}.log"
            spawner = Spawner(self._fork_command, environment, log)
        self._forks[key] = spawner
        while len(self._forks) > self._most:
            self._forks.popitem(last=False)[1].close()
        return spawner
