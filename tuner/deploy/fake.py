"""The shipped fake: a real process that answers every request at once, without any model.

It is what tests deploy, and the null system against which the load generator measures itself.
"""

from __future__ import annotations

from tuner.deploy import programs
from tuner.deploy.base import DeploymentRequest
from tuner.deploy.binary import launcher
from tuner.deploy.files import ServerFiles
from tuner.deploy.local import LOG, LocalDeployer
from tuner.deploy.processes import ServerProcess, Spawner
from tuner.deploy.resources import Limits

MODULE = "tuner.deploy.answer_at_once"


class FakeDeployer(LocalDeployer):
    """Deploys ``answer_at_once``; the whole life cycle is the real one.

    Args:
        delay_ms: time each answer takes.
        crash_after: requests after which the server ends by itself, 0 = never.
        start_delay_s: seconds before it opens its port.
        refuse: end with this message instead of starting.
    """

    name = "fake"

    def __init__(
        self,
        *,
        delay_ms: float = 0.0,
        crash_after: int = 0,
        start_delay_s: float = 0.0,
        refuse: str = "",
        monitoring: bool = False,
    ) -> None:
        super().__init__(monitoring=monitoring)
        self._behaviour = [
            f"--fake_delay_ms={delay_ms}",
            f"--fake_crash_after={crash_after}",
            f"--fake_start_delay_s={start_delay_s}",
            f"--fake_refuse={refuse}",
        ]
        self._spawner: Spawner | None = None

    def launch(
        self, files: ServerFiles, request: DeploymentRequest, held: Limits, timeout_s: float
    ) -> tuple[ServerProcess, list[str]]:
        if self._spawner is None or not self._spawner.alive:
            self._spawner = launcher()
        argv = programs.command(MODULE, *files.arguments, *self._behaviour)
        server = self._spawner.start(
            argv,
            log=request.workdir / LOG,
            timeout_s=timeout_s,
            environment=files.environment,
            affinity=held.affinity,
            cgroup_procs=held.cgroup_procs,
        )
        return server, argv

    def close(self) -> None:
        if self._spawner:
            self._spawner.close()
        super().close()
