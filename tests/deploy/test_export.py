"""Exported files say what was measured, and start a server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.deploy.asking import predict_doubled
from tests.deploy.test_deployers import stand_in
from tuner import export
from tuner.deploy import programs
from tuner.deploy.base import ModelToServe
from tuner.deploy.readiness import free_port, wait_ready
from tuner.errors import UsageError

CONFIGURATION = {
    "enable_batching": True,
    "max_batch_size": 16,
    "batch_timeout_micros": 2000,
    "allowed_batch_sizes": "powers_of_two",
    "tensorflow_intra_op_parallelism": 1,
    "cpus": 1,
    "cpu_quota": 0.5,
    "memory_limit_mb": 2048,
    "onednn": False,
    "allocator": "jemalloc",
    "response_cache_bytes": 1000,
}
ABOUT = export.About(
    "batching", 7, {"latency_p99_ms": 12.5, "energy_per_request_j": 0.25, "error_rate": None},
    {"deployer": "embedded", "machine": "two cores"},
)


@pytest.fixture
def exported(tmp_path: Path) -> Path:
    model = ModelToServe("doubling", Path("/srv/doubling"))
    export.write(tmp_path / "out", CONFIGURATION, model, ABOUT)
    return tmp_path / "out"


def test_the_readme_holds_the_measured_numbers(exported: Path) -> None:
    text = (exported / "README.md").read_text()
    assert "| latency_p99_ms | 12.5 |" in text
    assert "| energy_per_request_j | 0.25 |" in text
    assert "trial 7 of study batching" in text


def test_compose_sets_the_limits_that_were_measured(exported: Path) -> None:
    service = yaml.safe_load((exported / "compose.yaml").read_text())["services"]["serving"]
    assert service["cpuset"] == "0-0"
    assert service["cpus"] == 0.5
    assert service["mem_limit"] == "2048m"
    assert service["environment"] == {
        "TF_ENABLE_ONEDNN_OPTS": "0", "LD_PRELOAD": "libjemalloc.so.2"
    }


def test_kubernetes_asks_for_what_was_measured_and_probes_the_port(exported: Path) -> None:
    config, deployment, service = yaml.safe_load_all((exported / "kubernetes.yaml").read_text())
    pod = deployment["spec"]["template"]
    container = pod["spec"]["containers"][0]
    wanted = {"cpu": "500m", "memory": "2048Mi"}
    assert container["resources"] == {"requests": wanted, "limits": wanted}
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container[probe]["tcpSocket"] == {"port": "grpc"}
    assert "max_batch_size { value: 16 }" in config["data"]["batching_parameters.txt"]
    assert service["spec"]["selector"] == pod["metadata"]["labels"]


def test_every_start_has_the_same_flags(exported: Path) -> None:
    service = yaml.safe_load((exported / "compose.yaml").read_text())["services"]["serving"]
    _, deployment, _ = yaml.safe_load_all((exported / "kubernetes.yaml").read_text())
    arguments = deployment["spec"]["template"]["spec"]["containers"][0]["args"]
    assert arguments == service["command"]
    script = (exported / "serve.sh").read_text()
    assert all(argument.partition("=")[0] in script for argument in arguments)


def test_settings_of_the_embedded_server_alone_are_left_out(exported: Path) -> None:
    assert not any("response_cache" in f.read_text() for f in exported.iterdir())


def test_a_folder_with_something_in_it_is_refused(exported: Path) -> None:
    with pytest.raises(UsageError, match="not an empty folder"):
        export.write(exported, {}, ModelToServe("m", Path("/m")), ABOUT)


@pytest.mark.parametrize("copies", [1, 2])
def test_the_script_starts_a_server_that_answers(
    tmp_path: Path, doubling: ModelToServe, copies: int
) -> None:
    configuration = {**CONFIGURATION, "model_copies": copies, "allocator": "system"}
    export.write(tmp_path / "out", configuration, doubling, ABOUT)
    port, rest = free_port(), free_port()
    with (tmp_path / "log").open("wb") as log:
        server = subprocess.Popen(
            [str(tmp_path / "out" / "serve.sh")], stdout=log, stderr=log,
            env={
                **os.environ, **programs.environment(),
                "TENSORFLOW_MODEL_SERVER": str(stand_in(tmp_path)),
                "GRPC_PORT": str(port), "REST_PORT": str(rest),
            },
        )
    try:
        names = ["doubling", "doubling_2"][:copies]
        wait_ready(
            f"127.0.0.1:{port}", names, 60.0,
            lambda: ("crash", (tmp_path / "log").read_text()) if server.poll() else None,
        )
        for name in names:
            predict_doubled(f"127.0.0.1:{port}", name)
        assert os.sched_getaffinity(server.pid) == {0}
    finally:
        server.kill()
        server.wait()


def test_the_doctor_says_why_not() -> None:
    run = subprocess.run(
        [sys.executable, "-m", "tuner", "doctor", "--json"], capture_output=True, text=True,
        check=True, env={**os.environ, **programs.environment(), "PATH": "/nonexistent"},
    )
    found = json.loads(run.stdout)
    assert found["deployers"]["binary"]["available"] is False
    assert "--server-binary" in found["deployers"]["binary"]["why_not"]
    assert found["machine"]["cores"] == len(os.sched_getaffinity(0))
