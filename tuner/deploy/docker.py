"""TensorFlow Serving in a Docker container, by the Docker SDK.

Any image with the entry point of ``tensorflow/serving`` will do: arguments are appended to
``tensorflow_model_server --port=8500 --rest_api_port=8501 --model_name=… --model_base_path=…``,
where the last value of a flag wins.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

from tuner.deploy import cpufreq, proc
from tuner.deploy.base import Deployer, Deployment, DeploymentRequest
from tuner.deploy.containers import (
    LIMITS,
    DockerDeployment,
    asking,
    container_limits,
    engine,
    remove,
)
from tuner.deploy.files import ServerFiles, server_files
from tuner.deploy.local import LOG, PortTaken, on_free_ports, starting_failure
from tuner.deploy.readiness import free_port, is_free, wait_ready
from tuner.deploy.resources import frequency, server_cpus
from tuner.deploy.watchdog import Watchdog
from tuner.errors import TrialFailure, UnavailableError, UsageError

IMAGE = "tensorflow/serving"
OWNER = "tuner.owner"
"""Label of our containers: ``<pid>-<start time>`` of the study."""


class DockerDeployer(Deployer):
    """Runs each server in a container of its own, removed whatever happens.

    Args:
        image: the image; it is pulled when it is not there.
        engine_url: the engine, e.g. ``unix:///var/run/docker.sock``; default: as ``docker`` does.
        network: ``bridge`` publishes ports on 127.0.0.1 only; ``host`` spares the address
            translation, and the server then listens where the image makes it listen.
        binds: further read-only mounts, host path -> container path.
        environment: further variables of the container.
        monitoring: serve Prometheus metrics on the REST port.

    Raises:
        UnavailableError: no engine or no image, and why.
    """

    name = "docker"

    def __init__(
        self,
        image: str = IMAGE,
        *,
        engine_url: str | None = None,
        network: str = "bridge",
        binds: Mapping[str, str] | None = None,
        environment: Mapping[str, str] | None = None,
        monitoring: bool = False,
    ) -> None:
        if network not in ("bridge", "host"):
            raise UsageError(f"docker network should be bridge or host, not {network!r}")
        self.client = engine(engine_url)
        self.engine_url = engine_url or os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
        self.image, self.network, self.monitoring = image, network, monitoring
        self.binds, self.environment = dict(binds or {}), dict(environment or {})
        self.watchdog = Watchdog()
        self._need_image()
        self.reap()
        cpufreq.reap()

    @contextmanager
    def deploy(self, request: DeploymentRequest) -> Iterator[Deployment]:
        request.workdir.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            clock = stack.enter_context(frequency(request.configuration, self.watchdog))
            deadline = time.monotonic() + request.start_timeout_s
            with asking():
                deployment = on_free_ports(
                    lambda trying: self._attempt(request, clock, deadline, trying), stack
                )
            yield deployment

    def reap(self) -> list[str]:
        """Remove the containers of studies that were killed; returns their names."""
        removed = []
        for container in self.containers():
            pid, _, started = container.labels[OWNER].partition("-")
            if not proc.runs(int(pid), int(started)):
                with suppress(Exception):  # Another study may be removing it at this moment.
                    container.remove(force=True)
                    removed.append(container.name)
        return removed

    def containers(self) -> list[Any]:
        """The containers that studies started, this one and others, running or not."""
        # Another study's may be removed between the list and the look at it: no fault of ours.
        found = self.client.containers.list(
            all=True, filters={"label": OWNER}, ignore_removed=True
        )
        return list(found)

    def close(self) -> None:
        self.watchdog.close()
        self.client.close()

    def _need_image(self) -> None:
        import docker.errors
        import docker.utils

        try:
            self.client.images.get(self.image)
        except docker.errors.ImageNotFound:
            try:
                repository, tag = docker.utils.parse_repository_tag(self.image)
                self.client.images.pull(repository, tag=tag or "latest")
            except docker.errors.APIError as error:
                raise UnavailableError(
                    f"image {self.image} is not here and cannot be pulled "
                    f"({error.explanation}): name one with --image"
                ) from None

    def _attempt(
        self,
        request: DeploymentRequest,
        clock: Mapping[str, str],
        deadline: float,
        stack: ExitStack,
    ) -> DockerDeployment:
        begun = time.monotonic()
        grpc_port, rest_port = free_port(), free_port()
        files = server_files(
            request.configuration,
            request.model,
            request.others,
            folder=request.workdir.absolute(),
            grpc_port=grpc_port,
            rest_port=rest_port,
            monitoring=self.monitoring,
            cpus=len(server_cpus(request.configuration, request.server_cores)),
        )
        files.write(request.workdir)
        options = self._options(request, files, (grpc_port, rest_port))
        container = self.client.containers.create(self.image, list(files.arguments), **options)
        undo = {"container": container.id, "engine": self.engine_url}
        stack.enter_context(self.watchdog.undoing(undo))
        deployment = DockerDeployment(
            grpc_address=f"127.0.0.1:{grpc_port}",
            rest_address=f"127.0.0.1:{rest_port}",
            model_names=files.model_names,
            container=container,
            log_file=request.workdir / LOG,
            memory_limit_mb=request.configuration.get("memory_limit_mb"),  # type: ignore[arg-type]
            details={},
        )
        stack.callback(remove, deployment)
        try:
            with asking():
                container.start()
        except TrialFailure as failure:
            taken = not (is_free(grpc_port) and is_free(rest_port))
            raise (PortTaken(failure) if taken else failure) from None
        try:
            deployment.look()
            wait_ready(
                deployment.grpc_address,
                files.model_names + files.other_names,
                deadline - time.monotonic(),
                lambda: starting_failure(deployment),
                deployment.rest_address,
            )
        except TrialFailure as failure:
            told = TrialFailure(failure.reason, failure.message, deployment.log_tail())
            taken = not (is_free(grpc_port) and is_free(rest_port))
            if failure.reason == "start_failed" and self.network == "host" and taken:
                raise PortTaken(told) from None
            raise told from None
        deployment.details.update(
            deployer=self.name,
            image=self.image,
            image_id=container.image.id,
            command_line=[*self._entry_point(container), *files.arguments],
            files=dict(files.texts),
            environment=options["environment"],
            limits={k: options[k] for k in LIMITS if k in options} | {"clock_khz": dict(clock)},
            network=self.network,
            start_s=time.monotonic() - begun,
            model_names=list(files.model_names),
            other_models=list(files.other_names),
        )
        return deployment

    def _options(
        self, request: DeploymentRequest, files: ServerFiles, ports: Sequence[int]
    ) -> dict[str, Any]:
        """Keyword arguments of ``containers.create``."""
        folders = {request.workdir, request.model.base_path, *(m.base_path for m in request.others)}
        binds = {str(folder.absolute()): str(folder.absolute()) for folder in folders}
        preloaded = files.environment.get("LD_PRELOAD")
        if preloaded:
            binds[os.path.realpath(preloaded)] = preloaded
        binds.update(self.binds)
        options: dict[str, Any] = {
            "environment": {**self.environment, **files.environment},
            "volumes": [f"{here}:{there}:ro" for here, there in binds.items()],
            "labels": {OWNER: f"{os.getpid()}-{proc.start_time(os.getpid())}"},
            **container_limits(request.configuration, request.server_cores),
        }
        if self.network == "host":
            options["network_mode"] = "host"
        else:
            options["ports"] = {f"{port}/tcp": ("127.0.0.1", port) for port in ports}
        return options

    def _entry_point(self, container: Any) -> list[str]:
        return list(container.image.attrs["Config"].get("Entrypoint") or ())
