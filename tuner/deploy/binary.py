"""``tensorflow_model_server`` as installed on this machine."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from tuner.deploy.files import ServerFiles
from tuner.deploy.local import LocalDeployer
from tuner.errors import UnavailableError

PROGRAM = "tensorflow_model_server"


class BinaryDeployer(LocalDeployer):
    """Runs a model server program; each server is a fresh process.

    Args:
        server_binary: the program; default: ``tensorflow_model_server`` on PATH.
        monitoring: see ``LocalDeployer``.

    Raises:
        UnavailableError: there is no such program.
    """

    name = "binary"

    def __init__(
        self, server_binary: str | Path | None = None, *, monitoring: bool = False
    ) -> None:
        super().__init__(monitoring=monitoring)
        self.server_binary = find(server_binary)

    def command(self, files: ServerFiles) -> list[str]:
        return [self.server_binary, *files.arguments]


def find(server_binary: str | Path | None = None) -> str:
    """Absolute path of the server program.

    Raises:
        UnavailableError: not found or not executable, and what would be right.
    """
    if server_binary is None:
        found = shutil.which(PROGRAM)
        if found is None:
            raise UnavailableError(
                f"{PROGRAM} is not on PATH: install tensorflow-model-server, "
                "name it with --server-binary, or use --deployer embedded"
            )
        return found
    path = Path(server_binary).expanduser().absolute()
    if not path.is_file():
        raise UnavailableError(f"server binary {server_binary}: no such file")
    if not os.access(path, os.X_OK):
        raise UnavailableError(f"server binary {server_binary}: not executable")
    return str(path)
