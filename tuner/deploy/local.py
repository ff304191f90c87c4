"""Servers that run as processes of this machine: what the embedded, binary and fake deployers share."""

from __future__ import annotations

import signal
import time
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import psutil

from tuner.deploy import cgroups, cpufreq, proc, programs
from tuner.deploy.base import Deployer, Deployment, DeploymentRequest
from tuner.deploy.files import ServerFiles, server_files
from tuner.deploy.processes import ServerProcess, Spawner
from tuner.deploy.readiness import free_port, is_free, wait_ready
from tuner.deploy.resources import Limits, limits, server_cpus
from tuner.deploy.watchdog import Watchdog
from tuner.errors import TrialFailure

LOG = "server.log"
_PORT_ATTEMPTS = 4
_PATIENCE_S = 5.0
"""How long a server may take to end after SIGTERM."""
D = TypeVar("D", bound=Deployment)


@dataclass
class LocalDeployment(Deployment):
    """A server process on this machine."""

    grpc_address: str
    rest_address: str | None
    model_names: tuple[str, ...]
    server: ServerProcess
    limits: Limits
    log_file: Path
    details: dict[str, Any]

    def pids(self) -> tuple[int, ...]:
        return proc.tree(self.server.pid)

    def failure(self) -> tuple[str, str] | None:
        code = self.server.exit_code
        if code is None and not proc.runs(self.server.pid, self.server.started):
            # Seen dead before its parent said so; the code follows at once.
            self.server.wait(1.0)
            code = self.server.exit_code if self.server.exit_code is not None else -signal.SIGKILL
        if code is None:
            return None
        if self.limits.out_of_memory:
            return "out_of_memory", (
                f"the server outgrew its limit of {self.limits.memory_limit_mb} MiB "
                f"and was ended by the kernel"
            )
        return "crash", f"the server ended by itself: {ending(code)}"

    def describe(self) -> Mapping[str, Any]:
        return self.details

    def log_tail(self, lines: int = 40) -> str:
        return tail(self.log_file, lines)


class LocalDeployer(Deployer):
    """Starts a server process, waits for it, ends it.

    Args:
        monitoring: serve Prometheus metrics on the REST port.
    """

    about: ClassVar[Mapping[str, Any]] = {}
    """What every record of a deployment holds besides."""

    def __init__(self, *, monitoring: bool = False) -> None:
        self.monitoring = monitoring
        self.watchdog = Watchdog()
        self._launcher: Spawner | None = None
        cgroups.reap()
        cpufreq.reap()

    @abstractmethod
    def command(self, files: ServerFiles) -> list[str]:
        """The server's command line, as a person would type it."""

    def spawner(self, files: ServerFiles, held: Limits) -> tuple[Spawner, list[str]]:
        """Who starts the server, and by which arguments: a fresh process of ``command``."""
        if self._launcher is None or not self._launcher.alive:
            self._launcher = Spawner(programs.command("tuner.deploy.launcher"), {})
        return self._launcher, self.command(files)

    @contextmanager
    def deploy(self, request: DeploymentRequest) -> Iterator[Deployment]:
        request.workdir.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            held = stack.enter_context(
                limits(request.configuration, self.watchdog, request.server_cores)
            )
            deadline = time.monotonic() + request.start_timeout_s
            yield on_free_ports(
                lambda trying: self._attempt(request, held, deadline, trying), stack
            )

    def close(self) -> None:
        if self._launcher:
            self._launcher.close()
        self.watchdog.close()

    def _attempt(
        self, request: DeploymentRequest, held: Limits, deadline: float, stack: ExitStack
    ) -> LocalDeployment:
        """One try with ports chosen now; what ``stack`` then holds ends the server."""
        begun = time.monotonic()
        grpc_port, rest_port = free_port(), free_port()
        files = server_files(
            request.configuration,
            request.model,
            request.others,
            folder=request.workdir,
            grpc_port=grpc_port,
            rest_port=rest_port,
            monitoring=self.monitoring,
            cpus=len(server_cpus(request.configuration, request.server_cores)),
        )
        files.write(request.workdir)
        spawner, argv = self.spawner(files, held)
        server = spawner.start(
            argv,
            log=request.workdir / LOG,
            timeout_s=max(deadline - begun, 1.0),
            environment=files.environment,
            affinity=held.affinity,
            cgroup_procs=held.cgroup_procs,
        )
        # Entered first, left last: the watchdog stands by until the server has really ended.
        undo = {"kill": server.pid, "started": server.started}
        stack.enter_context(self.watchdog.undoing(undo))
        stack.callback(server.end, _PATIENCE_S)
        deployment = LocalDeployment(
            grpc_address=f"127.0.0.1:{grpc_port}",
            rest_address=f"127.0.0.1:{rest_port}",
            model_names=files.model_names,
            server=server,
            limits=held,
            log_file=request.workdir / LOG,
            details={},
        )
        try:
            wait_ready(
                deployment.grpc_address,
                files.model_names + files.other_names,
                deadline - time.monotonic(),
                lambda: starting_failure(deployment),
                deployment.rest_address,
            )
            if not _listens(deployment.pids(), grpc_port):
                raise TrialFailure("start_failed", f"another program answers on port {grpc_port}")
        except TrialFailure as failure:
            server.end(0.0)  # It holds nothing yet that is worth waiting for.
            failure = TrialFailure(failure.reason, failure.message, deployment.log_tail())
            taken = not (is_free(grpc_port) and is_free(rest_port))
            if failure.reason == "start_failed" and taken:
                raise PortTaken(failure) from None
            raise failure from None
        deployment.details.update(
            deployer=self.name,
            **self.about,
            command_line=self.command(files),
            files=dict(files.texts),
            environment=dict(files.environment),
            limits=held.describe(),
            start_s=time.monotonic() - begun,
            model_names=list(files.model_names),
            other_models=list(files.other_names),
        )
        return deployment


class PortTaken(Exception):
    """Between choosing a port and listening on it, somebody else took it."""

    def __init__(self, failure: TrialFailure) -> None:
        self.failure = failure


def on_free_ports(attempt: Callable[[ExitStack], D], stack: ExitStack) -> D:
    """Try again with other ports while those chosen are taken.

    Args:
        attempt: one try; what it puts into its own stack is undone unless it succeeds.
        stack: takes over what the try that succeeded holds.

    Raises:
        TrialFailure: the last try's.
    """
    for number in range(1, _PORT_ATTEMPTS + 1):
        with ExitStack() as trying:
            try:
                deployment = attempt(trying)
            except PortTaken as taken:
                if number == _PORT_ATTEMPTS:
                    raise taken.failure from None
                continue
            stack.push(trying.pop_all())
            return deployment
    raise AssertionError("unreachable")


def starting_failure(deployment: Deployment) -> tuple[str, str] | None:
    """A deployment's failure, told as one of starting: refusing to start is no crash."""
    failed = deployment.failure()
    if failed and failed[0] == "crash":
        code_text = failed[1].rpartition(": ")[2]
        reason = "crash" if code_text.startswith("signal") else "start_failed"
        return reason, f"the server did not start: {code_text}"
    return failed


def ending(code: int) -> str:
    """An exit code in words: ``exit code 1``, ``signal SIGSEGV``."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"signal {signal.Signals(-code).name}"
    except ValueError:
        return f"signal {-code}"


def tail(log: Path, lines: int) -> str:
    """The last lines of a log, without reading more than its last 64 KiB."""
    try:
        with log.open("rb") as stream:
            stream.seek(max(0, log.stat().st_size - 65536))
            text = stream.read().decode(errors="replace")
    except OSError:
        return ""
    return "\n".join(text.splitlines()[-lines:])


def _listens(pids: tuple[int, ...], port: int) -> bool:
    for pid in pids:
        try:
            connections = psutil.Process(pid).net_connections("tcp")
        except psutil.Error:
            continue
        if any(c.status == psutil.CONN_LISTEN and c.laddr.port == port for c in connections):
            return True
    return False
