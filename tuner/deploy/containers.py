"""One server's container: its limits, its life, its end; and the engine that runs it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuner.deploy import proc
from tuner.deploy.base import Deployment
from tuner.deploy.local import ending, tail
from tuner.deploy.resources import MIB, pinned_cpus
from tuner.errors import LostError, TrialFailure, UnavailableError
from tuner.measurement import Configuration

LIMITS = ("cpuset_cpus", "cpu_period", "cpu_quota", "mem_limit", "memswap_limit")
"""The engine's options that ``container_limits`` may set."""
_PATIENCE_S = 2
"""Short, since a first process without a handler, such as a shell, never hears SIGTERM."""


def engine(url: str | None = None) -> Any:
    """A client of the Docker engine.

    Raises:
        UnavailableError: no SDK, no engine, or no right to talk to it.
    """
    try:
        import docker
        import docker.errors
    except ImportError:
        raise UnavailableError(
            "the Docker SDK is not installed: pip install 'tuner[docker]'"
        ) from None
    try:
        client = docker.DockerClient(base_url=url) if url else docker.from_env()
        client.ping()
    except Exception as error:  # noqa: BLE001 - the SDK passes on its transports' own errors
        place = url or os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
        # The SDK and its HTTP library wrap what the system said: (2, 'No such file or directory').
        said = re.search(r"\(\d+, '([^']+)'\)", str(error))
        text = said[1] if said else " ".join(str(error).split())[:160]
        raise UnavailableError(f"no Docker engine answers at {place} ({text})") from None
    return client


@dataclass
class DockerDeployment(Deployment):
    """A running container."""

    grpc_address: str
    rest_address: str | None
    model_names: tuple[str, ...]
    container: Any
    log_file: Path
    memory_limit_mb: int | None
    details: dict[str, Any]
    pid: int = 0
    started: int | None = None

    def look(self) -> None:
        """Learn the process id of the container's first process, as this machine counts."""
        if not self.pid and self._is_there():
            self.pid = int(self.container.attrs["State"].get("Pid") or 0)
            self.started = proc.start_time(self.pid) if self.pid else None

    def pids(self) -> tuple[int, ...]:
        return proc.tree(self.pid)

    def failure(self) -> tuple[str, str] | None:
        if self.pid and proc.runs(self.pid, self.started):
            return None  # Asked often, so the engine is spared while the process is seen to live.
        if not self._is_there():
            return "crash", "somebody removed the container"
        state = self.container.attrs["State"]
        if state["Status"] in ("created", "running", "restarting", "paused"):
            return None
        code = int(state["ExitCode"])
        if self.memory_limit_mb is not None and (state.get("OOMKilled") or code == 137):
            return "out_of_memory", (
                f"the container outgrew its limit of {self.memory_limit_mb} MiB "
                f"and was ended by the kernel"
            )
        # 128 + n tells of signal n; 255 is an exit code of -1.
        told = ending(128 - code if 128 < code <= 192 else code)
        return "crash", f"the container ended by itself: {told}"

    def _is_there(self) -> bool:
        """Look at the container anew; raises ``LostError`` without an engine."""
        import docker.errors

        with asking():
            try:
                self.container.reload()
            except docker.errors.NotFound:
                return False
        return True

    def describe(self) -> Mapping[str, Any]:
        return self.details

    def log_tail(self, lines: int = 40) -> str:
        self.save_log()
        return tail(self.log_file, lines)

    def save_log(self) -> None:
        with suppress(Exception):  # A container that is gone has no log any more.
            self.log_file.write_bytes(self.container.logs(stdout=True, stderr=True))


def container_limits(
    configuration: Configuration, server_cores: tuple[int, ...] | None = None
) -> dict[str, Any]:
    """The resource knobs as the engine's options; for ``server_cores`` see ``server_cpus``."""
    limits: dict[str, Any] = {}
    pinned = pinned_cpus(configuration, server_cores)
    if pinned is not None:
        limits["cpuset_cpus"] = ",".join(map(str, pinned))
    if "cpu_quota" in configuration:
        limits["cpu_period"] = 100_000
        limits["cpu_quota"] = round(float(configuration["cpu_quota"]) * 100_000)
    if "memory_limit_mb" in configuration:
        # Memory and swap together may not pass the limit either: swapping is no serving.
        limits["mem_limit"] = limits["memswap_limit"] = int(configuration["memory_limit_mb"]) * MIB
    return limits


@contextmanager
def asking() -> Iterator[None]:
    """What the SDK raises while an engine is asked for something, in our own words.

    Raises:
        TrialFailure: the engine refused, ``start_failed``.
        LostError: the engine does not answer any more.
    """
    import docker.errors
    import requests.exceptions  # What the SDK speaks HTTP with; its errors come through.

    try:
        yield
    except docker.errors.APIError as error:
        raise TrialFailure("start_failed", f"the engine refused: {error.explanation}") from None
    except requests.exceptions.RequestException:
        raise LostError(
            "the Docker engine does not answer any more; with it back, the same command goes on"
        ) from None


def remove(deployment: DockerDeployment) -> None:
    """SIGTERM, SIGKILL after a while, keep the log, remove."""
    with suppress(Exception):
        deployment.container.stop(timeout=_PATIENCE_S)
    deployment.save_log()
    with suppress(Exception):
        deployment.container.remove(force=True)
