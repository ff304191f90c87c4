"""A Docker engine of the tests' own, and an image made without a registry.

Uses the engine that ``DOCKER_HOST`` names, else starts Debian's ``dockerd`` as root with a
data root, exec root, process file and socket in a temporary folder. The image is an empty root;
the interpreter, its packages and tuner are mounted into it read-only, which is why it works
without any network.
"""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tuner.deploy import docker as docker_deployer
from tuner.deploy import programs
from tuner.errors import UnavailableError

IMAGE = "tuner-test-serving"
_SYSTEM = ("/bin", "/lib", "/lib64", "/sbin", "/usr", "/etc")
"""What an interpreter needs of the system around it."""


@dataclass(frozen=True)
class Engine:
    """A running engine with the test image."""

    url: str
    image: str
    binds: dict[str, str]

    @property
    def options(self) -> dict[str, object]:
        """Options of the docker deployer."""
        return {
            "image": self.image,
            "engine_url": self.url,
            "network": "host",
            "binds": self.binds,
            "environment": programs.environment(),
        }


class NoEngine(Exception):
    """No engine can be had here, and why."""


@contextmanager
def running() -> Iterator[Engine]:
    """An engine with the test image; what the tests made is removed at the end.

    Raises:
        NoEngine: none runs and none can be started.
    """
    given = os.environ.get("DOCKER_HOST")
    if given:
        yield _prepared(given)
        return
    if os.geteuid() != 0:
        raise NoEngine("DOCKER_HOST is not set, and only root can start an engine")
    daemon = shutil.which("dockerd", path="/usr/sbin:/usr/bin:/usr/local/bin")
    if daemon is None:
        raise NoEngine("dockerd is not installed: apt-get install docker.io")
    # Under /var/tmp: the data root needs a disk, and the socket's path has to be short.
    with tempfile.TemporaryDirectory(prefix="tuner-dockerd-", dir="/var/tmp") as text:
        folder = Path(text)
        with _daemon(daemon, folder) as url:
            yield _prepared(url)


@contextmanager
def _daemon(program: str, folder: Path) -> Iterator[str]:
    socket = folder / "docker.sock"
    url = f"unix://{socket}"
    with (folder / "dockerd.log").open("wb") as log:
        daemon = subprocess.Popen(
            [
                program, f"--host={url}", f"--data-root={folder / 'data'}",
                f"--exec-root={folder / 'exec'}", f"--pidfile={folder / 'dockerd.pid'}",
                "--storage-driver=vfs", "--bridge=none", "--iptables=false", "--ip6tables=false",
            ],
            stdout=log, stderr=log, start_new_session=True,
        )
    try:
        deadline = time.monotonic() + 30
        while True:
            try:
                docker_deployer.engine(url).close()
                break
            except UnavailableError as error:
                if daemon.poll() is not None or time.monotonic() > deadline:
                    tail = (folder / "dockerd.log").read_text(errors="replace")[-600:]
                    raise NoEngine(f"dockerd does not start: {error}\n{tail}") from None
                time.sleep(0.1)
        yield url
    finally:
        daemon.terminate()
        try:
            daemon.wait(20)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait()
        for line in reversed(Path("/proc/self/mounts").read_text().splitlines()):
            mount = line.split(" ")[1]
            if mount.startswith(f"{folder}/"):
                # The engine leaves the name of its network namespace behind.
                subprocess.run(["umount", "--lazy", mount], check=False)


def _prepared(url: str) -> Engine:
    client = docker_deployer.engine(url)
    try:
        client.api.import_image_from_data(
            _empty_root(), repository=IMAGE, tag="latest",
            changes=[
                (f'ENTRYPOINT ["{sys.executable}", "-m", "tuner.modelserver", "--port=8500", '
                '"--rest_api_port=8501", "--model_name=model", "--model_base_path=/models/model"]')
            ],
        )
    finally:
        client.close()
    binds = {folder: folder for folder in _SYSTEM if Path(folder).is_dir()}
    for folder in {str(programs.ROOT), sys.prefix, sys.base_prefix}:
        if not folder.startswith("/usr"):
            binds[folder] = folder
    return Engine(url, IMAGE, binds)


def _empty_root() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name in ("tmp", "proc", "sys", "dev"):
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            archive.addfile(entry)
    return buffer.getvalue()
