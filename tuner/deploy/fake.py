"""The shipped fake: a real process that answers every request at once, without any model.

It is what tests deploy, and the null system against which the load generator measures itself.
"""

from __future__ import annotations

from tuner.deploy import programs
from tuner.deploy.files import ServerFiles
from tuner.deploy.local import LocalDeployer

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

    def command(self, files: ServerFiles) -> list[str]:
        return programs.command(MODULE, *files.arguments, *self._behaviour)
