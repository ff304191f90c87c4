"""A Docker engine of the tests' own, and images made without a registry.

Uses the engine that ``DOCKER_HOST`` names, else starts Debian's ``dockerd`` as root with a
data root, exec root, process file and socket in a temporary folder. The images are empty roots;
the interpreter, its packages and tuner are mounted into them read-only, which is why it works
without any network. There are four: the embedded server, and the fake, which starts in tenths of
a second, each for the host's network (127.0.0.1) and for a network of its own, on a bridge device
that the tests make.
"""

from __future__ import annotations

import io
import json
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

SERVING, SERVING_BRIDGED = "tuner-test-serving", "tuner-test-serving-bridged"
FAKE, BRIDGED = "tuner-test-fake", "tuner-test-fake-bridged"
_PROGRAMS = {
    SERVING: ["tuner.modelserver"],
    SERVING_BRIDGED: ["tuner.modelserver", "--bind_address=0.0.0.0"],
    FAKE: ["tuner.deploy.answer_at_once"],
    BRIDGED: ["tuner.deploy.answer_at_once", "--fake_bind_address=0.0.0.0"],
}
_SYSTEM = ("/bin", "/lib", "/lib64", "/sbin", "/usr", "/etc")
"""What an interpreter needs of the system around it."""


@dataclass(frozen=True)
class Engine:
    """A running engine with the test images."""

    url: str
    binds: dict[str, str]
    no_bridge: str | None = None
    """Why containers can't have a network of their own, ``None`` when they can."""

    def options(self, image: str) -> dict[str, object]:
        """Options of the docker deployer for one of the images."""
        return {
            "image": image,
            "engine_url": self.url,
            "network": "bridge" if image == BRIDGED else "host",
            "binds": self.binds,
            "environment": programs.environment(),
        }


class NoEngine(Exception):
    """No engine can be had here, and why."""


@contextmanager
def running() -> Iterator[Engine]:
    """An engine with the test images; what the tests made is removed at the end.

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
        with _bridge() as (bridge, no_bridge), _daemon(daemon, folder, bridge) as url:
            yield _prepared(url, no_bridge)


@contextmanager
def _bridge() -> Iterator[tuple[str, str | None]]:
    """A bridge device for the engine, removed at the end: (``none``, why not) where there is none."""
    name = f"tuner{os.getpid()}"[:15]
    private = f"10.{os.getpid() // 250 % 250 + 1}.{os.getpid() % 250 + 1}.1/24"
    made = []
    try:
        for command in (["link", "add", "name", name, "type", "bridge"],
                        ["addr", "add", private, "dev", name], ["link", "set", name, "up"]):
            subprocess.run(["ip", *command], check=True, capture_output=True, text=True)
            made.append(command)
    except (OSError, subprocess.CalledProcessError) as error:
        reason = getattr(error, "stderr", None) or str(error)
    else:
        reason = None
    try:
        yield (name, None) if reason is None else ("none", f"no bridge device: {reason.strip()}")
    finally:
        if made:
            subprocess.run(["ip", "link", "del", name], check=False)


@contextmanager
def _daemon(program: str, folder: Path, bridge: str) -> Iterator[str]:
    socket = folder / "docker.sock"
    url = f"unix://{socket}"
    with (folder / "dockerd.log").open("wb") as log:
        daemon = subprocess.Popen(
            [
                program, f"--host={url}", f"--data-root={folder / 'data'}",
                f"--exec-root={folder / 'exec'}", f"--pidfile={folder / 'dockerd.pid'}",
                "--storage-driver=vfs", f"--bridge={bridge}", "--iptables=false",
                "--ip6tables=false", "--ip-forward=false", "--ip-masq=false",
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


def _prepared(url: str, no_bridge: str | None = None) -> Engine:
    client = docker_deployer.engine(url)
    try:
        for image, program in _PROGRAMS.items():
            entry_point = [
                sys.executable, "-m", *program, "--port=8500", "--rest_api_port=8501",
                "--model_name=model", "--model_base_path=/models/model",
            ]
            client.api.import_image_from_data(
                _empty_root(), repository=image, tag="latest",
                changes=[f"ENTRYPOINT {json.dumps(entry_point)}"],
            )
    finally:
        client.close()
    binds = {folder: folder for folder in _SYSTEM if Path(folder).is_dir()}
    for folder in {str(programs.ROOT), sys.prefix, sys.base_prefix}:
        if not folder.startswith("/usr"):
            binds[folder] = folder
    return Engine(url, binds, no_bridge)


def _empty_root() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name in ("tmp", "proc", "sys", "dev"):
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            archive.addfile(entry)
    return buffer.getvalue()
