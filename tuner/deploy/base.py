"""The seam of deploying: a configuration becomes a running server with an endpoint."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from tuner.measurement import Configuration


@dataclass(frozen=True)
class ModelToServe:
    """A SavedModel and the name it is served under; ``base_path`` holds numbered versions."""

    name: str
    base_path: Path


@dataclass(frozen=True)
class DeploymentRequest:
    """What to deploy.

    ``configuration`` holds the proposed knobs together with the space's fixed settings;
    ``others`` are further models to serve in the same server (the factor ``other_models``).
    """

    model: ModelToServe
    configuration: Configuration
    workdir: Path
    """An empty folder of this trial's own, for config files and the server's log."""
    others: Sequence[ModelToServe] = ()
    start_timeout_s: float = 60.0
    server_cores: tuple[int, ...] | None = None
    """CPUs for the server unless the configuration's ``cpus`` says how many; ``None``: all."""


class Deployment(ABC):
    """A running server, ready to answer."""

    grpc_address: str
    """``host:port`` or ``unix:path``."""
    rest_address: str | None
    """``host:port``, ``None`` when REST is off."""
    model_names: tuple[str, ...]
    """Names under which the model answers: more than one when several copies are served."""

    @abstractmethod
    def pids(self) -> tuple[int, ...]:
        """Process ids of the server's tree, for the meters."""

    @abstractmethod
    def failure(self) -> tuple[str, str] | None:
        """``None`` while the server lives, else (reason of ``measurement.REASONS``, message)."""

    @abstractmethod
    def describe(self) -> Mapping[str, Any]:
        """What is stored with the trial: command line, files, environment, limits, start-up s."""

    def log_tail(self, lines: int = 40) -> str:
        """The last lines of the server's log."""
        return ""


class Deployer(ABC):
    """One way to run TensorFlow Serving. Leaving the context ends the server, whatever happens."""

    name: str

    @abstractmethod
    def deploy(self, request: DeploymentRequest) -> AbstractContextManager[Deployment]:
        """Start a server and wait until it is ready.

        Raises:
            TrialFailure: start_failed, start_timeout, crash or out_of_memory, with the log's tail.
        """

    def close(self) -> None:
        """Give back what outlives a deployment (a fork server, a Docker client)."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
