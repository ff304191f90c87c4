"""What every deployer has to do. A subclass gives ``name``, ``options`` and a ``model``."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tuner.deploy import docker, local, make, proc, programs
from tuner.deploy.base import Deployer, Deployment, DeploymentRequest, ModelToServe
from tuner.deploy.readiness import free_port, is_free
from tuner.errors import TrialFailure

QUOTA, MEMORY_MB = 0.9, 3000
CONFIGURATION = {
    "enable_batching": True,
    "max_batch_size": 8,
    "batch_timeout_micros": 100,
    "allowed_batch_sizes": "powers_of_two",
    "tensorflow_intra_op_parallelism": 1,
    "protocol": "rest",
    "model_copies": 2,
    "cpus": 1,
    "cpu_quota": QUOTA,
    "memory_limit_mb": MEMORY_MB,
}

_STUDY = """
import json, sys, time
from pathlib import Path
from tuner.deploy import make
from tuner.deploy.base import DeploymentRequest, ModelToServe
name, options, model, base, workdir, configuration = json.loads(sys.argv[1])
request = DeploymentRequest(ModelToServe(model, Path(base)), configuration, Path(workdir))
with make(name, **options) as deployer, deployer.deploy(request) as deployment:
    print(json.dumps(deployment.pids()), flush=True)
    time.sleep(600)
"""


class DeployerContract:
    """Subclass as ``TestXxx`` and override the fixtures ``name``, ``options`` and ``model``."""

    too_small_mb = 4
    """A memory limit that the server cannot even start in."""

    @pytest.fixture(scope="class")
    def name(self) -> str:
        raise NotImplementedError

    @pytest.fixture(scope="class")
    def options(self) -> dict[str, Any]:
        return {}

    @pytest.fixture(scope="class")
    def model(self) -> ModelToServe:
        raise NotImplementedError

    @pytest.fixture(scope="class")
    def predict(self) -> Callable[[str, str], object]:
        """Asks one model at an address; raises when there is no right answer."""
        raise NotImplementedError

    @pytest.fixture(scope="class")
    def deployer(self, name: str, options: dict[str, Any]) -> Iterator[Deployer]:
        with make(name, **options) as deployer:
            yield deployer

    @pytest.fixture(scope="class")
    def running(
        self, deployer: Deployer, model: ModelToServe, tmp_path_factory: pytest.TempPathFactory
    ) -> Iterator[Deployment]:
        """One deployment with many knobs turned, shared by the tests that only look."""
        request = DeploymentRequest(
            model, CONFIGURATION, tmp_path_factory.mktemp("running"),
            others=[ModelToServe("other_0", model.base_path)],
        )
        with deployer.deploy(request) as deployment:
            yield deployment

    def test_it_answers_as_soon_as_the_context_is_open(self, running, predict) -> None:
        predict(running.grpc_address, running.model_names[0])

    def test_every_copy_answers_under_its_name(self, running, model, predict) -> None:
        assert running.model_names == (model.name, f"{model.name}_2")
        for name in running.model_names:
            predict(running.grpc_address, name)

    def test_other_models_are_served_beside_it(self, running, predict) -> None:
        predict(running.grpc_address, "other_0")

    def test_rest_is_open_beside_grpc(self, running) -> None:
        assert not is_free(int(running.rest_address.rpartition(":")[2]))

    def test_a_living_server_has_no_failure(self, running) -> None:
        assert running.failure() is None

    def test_its_process_ids_are_of_living_processes(self, running) -> None:
        assert running.pids()
        assert all(proc.runs(pid) for pid in running.pids())

    def test_the_number_of_cpus_took_effect(self, running) -> None:
        assert all(len(os.sched_getaffinity(pid)) == 1 for pid in running.pids())

    def test_the_cpu_quota_took_effect(self, running) -> None:
        assert cpu_quota(running.pids()[0]) == pytest.approx(QUOTA)

    def test_the_memory_limit_took_effect(self, running) -> None:
        assert memory_limit(running.pids()[0]) == MEMORY_MB << 20

    def test_what_was_deployed_is_described_as_json(self, running, name) -> None:
        described = json.loads(json.dumps(dict(running.describe())))
        assert described["deployer"] == name
        assert "--enable_batching=true" in described["command_line"]
        assert "max_batch_size { value: 8 }" in described["files"]["batching_parameters.txt"]
        assert described["start_s"] > 0

    def test_nothing_is_left_after_the_context(self, deployer, model, tmp_path) -> None:
        with deployer.deploy(DeploymentRequest(model, {}, tmp_path)) as deployment:
            pids = deployment.pids()
        assert not any(proc.runs(pid) for pid in pids)
        for address in (deployment.grpc_address, deployment.rest_address):
            assert is_free(int(address.rpartition(":")[2]))
        assert (tmp_path / "server.log").is_file()

    def test_a_dead_server_is_noticed_at_once(self, deployer, model, tmp_path) -> None:
        with deployer.deploy(DeploymentRequest(model, {}, tmp_path)) as deployment:
            os.kill(deployment.pids()[0], signal.SIGKILL)
            noticed = wait_for(deployment.failure, 2.0)
        assert noticed is not None and noticed[0] == "crash"
        assert "SIGKILL" in noticed[1]

    def test_outgrowing_the_memory_limit_is_told_as_such(self, deployer, model, tmp_path) -> None:
        request = DeploymentRequest(model, {"memory_limit_mb": self.too_small_mb}, tmp_path)
        with pytest.raises(TrialFailure) as caught, deployer.deploy(request):
            pass
        assert caught.value.reason == "out_of_memory", str(caught.value)

    def test_an_unreadable_model_fails_with_a_reason(self, deployer, tmp_path) -> None:
        broken = ModelToServe("broken", tmp_path / "broken")
        (tmp_path / "broken" / "1").mkdir(parents=True)
        (tmp_path / "broken" / "1" / "saved_model.pb").write_bytes(b"no protobuf")
        request = DeploymentRequest(broken, {}, tmp_path / "work", start_timeout_s=30)
        with pytest.raises(TrialFailure) as caught, deployer.deploy(request):
            pass
        assert caught.value.reason == "start_failed", str(caught.value)
        assert "broken" in caught.value.log_tail

    def test_no_server_outlives_a_killed_study(self, name, options, model, tmp_path) -> None:
        configuration = {"cpu_quota": 1.0}
        order = [name, options, model.name, str(model.base_path), str(tmp_path), configuration]
        study = subprocess.Popen(
            [sys.executable, "-c", _STUDY, json.dumps(order)],
            stdout=subprocess.PIPE,
            env={**os.environ, **programs.environment()},
        )
        assert study.stdout is not None
        pids = json.loads(study.stdout.readline())
        folder = cgroup_folder(pids[0], "cpu")
        study.kill()
        study.wait()
        study.stdout.close()
        assert wait_for(lambda: not any(proc.runs(pid) for pid in pids), 10.0)
        assert wait_for(lambda: not folder.exists(), 10.0), f"{folder} was left behind"


def check_other_ports_are_tried(
    deployer: Deployer, model: ModelToServe, workdir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody takes the port between its choice and the server's start; the next one is tried."""
    with socket.socket() as taker:
        taker.bind(("127.0.0.1", 0))
        taker.listen()
        taken = taker.getsockname()[1]
        chosen = iter([taken])
        for module in (docker, local):
            monkeypatch.setattr(module, "free_port", lambda: next(chosen, None) or free_port())
        with deployer.deploy(DeploymentRequest(model, {}, workdir)) as deployment:
            assert next(chosen, None) is None
            assert not deployment.grpc_address.endswith(f":{taken}")


def wait_for(condition: Callable[[], Any], seconds: float) -> Any:
    """The first true value of ``condition`` within ``seconds``, else its last value."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value or time.monotonic() > deadline:
            return value
        time.sleep(0.02)


def cgroup_folder(pid: int, controller: str) -> Path:
    """The folder of the process's control group, version 1 or 2."""
    paths = {}
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, names, path = line.split(":", 2)
        paths.update({name: path for name in names.split(",")})
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, mount, kind, options, *_ = line.split(" ")
        if kind == "cgroup" and controller in options.split(","):
            return Path(mount) / paths[controller].lstrip("/")
    mounts = [li.split(" ") for li in Path("/proc/self/mounts").read_text().splitlines()]
    unified = next(mount[1] for mount in mounts if mount[2] == "cgroup2")
    return Path(unified) / paths[""].lstrip("/")


def cpu_quota(pid: int) -> float:
    """Cores that the process's control group may use."""
    folder = cgroup_folder(pid, "cpu")
    if (folder / "cpu.max").exists():
        quota, period = (folder / "cpu.max").read_text().split()
    else:
        quota, period = (
            (folder / f"cpu.cfs_{part}_us").read_text() for part in ("quota", "period")
        )
    return int(quota) / int(period)


def memory_limit(pid: int) -> int:
    """Bytes that the process's control group may hold."""
    folder = cgroup_folder(pid, "memory")
    name = "memory.max" if (folder / "memory.max").exists() else "memory.limit_in_bytes"
    return int((folder / name).read_text())
