"""Exported files say what was measured, and each of them starts a server that answers."""

from __future__ import annotations

import os
import re
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy import engine
from tests.deploy.asking import predict_doubled
from tests.deploy.kubernetes_fields import problems
from tests.deploy.test_deployers import stand_in
from tuner import export
from tuner.deploy import programs
from tuner.deploy.base import ModelToServe
from tuner.deploy.containers import engine as docker_client
from tuner.deploy.files import METRICS_PATH
from tuner.deploy.readiness import free_port, wait_ready
from tuner.errors import UsageError
from tuner.export import About, Measured

CONFIGURATION = {
    "enable_batching": True,
    "max_batch_size": 16,
    "batch_timeout_micros": 2000,
    "allowed_batch_sizes": "powers_of_two",
    "tensorflow_intra_op_parallelism": 1,
    "cpus": 1,
    "cpu_quota": 0.9,
    "memory_limit_mb": 2048,
    "onednn": False,
    "allocator": "jemalloc",
    "response_cache_bytes": 1000,
}
STARTED = {**CONFIGURATION, "model_copies": 2, "allocator": "system"}
ABOUT = About(
    "batching",
    Measured(7, {"latency_p99_ms": 12.5, "energy_per_request_j": 0.25, "error_rate": None},
             {"latency_p99_ms": (11.0, 14.25)}),
    [Measured(9, {"latency_p99_ms": 13.0, "energy_per_request_j": 0.5, "error_rate": None})],
    {"deployer": "embedded", "machine": {"cores": 2}, "other_models": 2},
    {"finished": "2026-01-02 03:04:05", "seed": 3},
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ModelToServe:
    """A folder in the shape of a model, beside a file that is none of it."""
    base = tmp_path_factory.mktemp("model")
    (base / "1").mkdir()
    (base / "1" / "saved_model.pb").write_bytes(b"graph")
    (base / "record.json").write_text("{}")
    return ModelToServe("doubling", base)


@pytest.fixture(scope="module")
def exported(model: ModelToServe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export") / "out"
    export.write(folder, CONFIGURATION, model, ABOUT)
    return folder


def service_of(folder: Path) -> dict[str, Any]:
    return yaml.safe_load((folder / "compose.yaml").read_text())["services"]["serving"]


def manifests_of(folder: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((folder / "kubernetes.yaml").read_text()))


def container_of(folder: Path) -> dict[str, Any]:
    _, deployment, _ = manifests_of(folder)
    return deployment["spec"]["template"]["spec"]["containers"][0]


def test_the_readme_holds_the_numbers_with_their_intervals_and_origin(exported: Path) -> None:
    text = (exported / "README.md").read_text()
    assert "trial 7 of study batching" in text
    assert "| latency_p99_ms | 12.5 | 11 to 14.25 |" in text
    assert "| energy_per_request_j | 0.25 | unknown |" in text
    assert "| machine.cores | 2 |" in text
    assert "| finished | 2026-01-02 03:04:05 |" in text
    assert "beside 2 other models" in text


def test_the_readme_holds_every_trial_of_the_configuration(exported: Path) -> None:
    text = (exported / "README.md").read_text()
    assert "| 7 | 12.5 | 0.25 |" in text
    assert "| 9 | 13 | 0.5 |" in text


def test_no_file_names_a_path_of_this_machine(exported: Path, model: ModelToServe) -> None:
    texts = {f.name: f.read_text() for f in exported.iterdir() if f.is_file()}
    assert not [name for name, text in texts.items() if str(model.base_path) in text]
    assert not [name for name, text in texts.items() if str(exported) in text]


def test_the_model_is_exported_by_version_and_nothing_else_of_its_folder(exported: Path) -> None:
    files = [p.relative_to(exported) for p in (exported / "models").rglob("*") if p.is_file()]
    assert files == [Path("models/doubling/1/saved_model.pb")]


def test_compose_sets_the_limits_that_were_measured(exported: Path) -> None:
    service = service_of(exported)
    assert service["cpuset"] == "${CPUS:-0}"
    assert service["cpus"] == 0.9
    assert service["mem_limit"] == "2048m"
    assert service["environment"] == {
        "TF_ENABLE_ONEDNN_OPTS": "0", "LD_PRELOAD": "libjemalloc.so.2"
    }


def test_kubernetes_asks_for_what_was_measured_and_probes_the_port(exported: Path) -> None:
    config, deployment, service = manifests_of(exported)
    container = container_of(exported)
    wanted = {"cpu": "900m", "memory": "2048Mi"}
    assert container["resources"] == {"requests": wanted, "limits": wanted}
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container[probe]["tcpSocket"] == {"port": "grpc"}
    assert "max_batch_size { value: 16 }" in config["data"]["batching_parameters.txt"]
    assert service["spec"]["selector"] == deployment["spec"]["template"]["metadata"]["labels"]


def test_the_manifests_have_the_fields_of_the_api(exported: Path) -> None:
    assert [problems(manifest) for manifest in manifests_of(exported)] == [[], [], []]


def test_the_manifests_are_written_without_anchors(exported: Path) -> None:
    assert not re.search(r"[&*]id\d+", (exported / "kubernetes.yaml").read_text())


def test_the_image_has_a_tag_and_can_be_another(model: ModelToServe, tmp_path: Path) -> None:
    export.write(tmp_path / "out", {}, model, ABOUT)
    export.write(tmp_path / "other", {}, model, ABOUT, image="mine:1")
    for folder, image in (("out", export.IMAGE), ("other", "mine:1")):
        assert service_of(tmp_path / folder)["image"] == image
        assert container_of(tmp_path / folder)["image"] == image
    assert re.fullmatch(r"tensorflow/serving:[\d.]+", export.IMAGE)
    assert "was not what was measured" in (tmp_path / "out" / "README.md").read_text()


def test_every_start_has_the_same_flags(exported: Path) -> None:
    arguments = container_of(exported)["args"]
    assert arguments == service_of(exported)["command"]
    script = (exported / "serve.sh").read_text()
    assert all(argument.partition("=")[0] in script for argument in arguments)


def test_settings_of_the_embedded_server_alone_are_left_out(exported: Path) -> None:
    assert not any("response_cache" in f.read_text() for f in exported.iterdir() if f.is_file())


def test_an_earlier_export_is_replaced_by_force_alone(model: ModelToServe, tmp_path: Path) -> None:
    export.write(tmp_path / "out", {"model_copies": 2}, model, ABOUT)
    with pytest.raises(UsageError, match="--force replaces it"):
        export.write(tmp_path / "out", {}, model, ABOUT)
    export.write(tmp_path / "out", {}, model, ABOUT, force=True)
    assert not (tmp_path / "out" / "models.config").exists()


def test_what_is_no_export_is_never_replaced(model: ModelToServe, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(UsageError, match="not an empty folder"):
        export.write(tmp_path, {}, model, ABOUT, force=True)
    assert (tmp_path / "mine.txt").exists()


def test_a_model_without_a_version_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no version"):
        export.write(tmp_path / "out", {}, ModelToServe("m", tmp_path), ABOUT)


@pytest.fixture(scope="module")
def startable(doubling: ModelToServe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two copies of the doubling model, in a folder with a space in its name."""
    folder = tmp_path_factory.mktemp("export") / "to start"
    export.write(folder, STARTED, doubling, ABOUT)
    return folder


def check_answers(grpc_port: int, rest_port: int, failure: Any) -> None:
    """Both copies answer over gRPC, and Prometheus is told over REST."""
    names = ("doubling", "doubling_2")
    wait_ready(f"127.0.0.1:{grpc_port}", names, 180.0, failure, f"127.0.0.1:{rest_port}")
    for name in names:
        predict_doubled(f"127.0.0.1:{grpc_port}", name)
    with urllib.request.urlopen(f"http://127.0.0.1:{rest_port}{METRICS_PATH}") as page:
        assert b":tensorflow:serving:batching_session:processed_batch_size" in page.read()


def test_the_script_starts_a_server_that_answers(startable: Path, tmp_path: Path) -> None:
    port, rest = free_port(), free_port()
    with (tmp_path / "log").open("wb") as log:
        server = subprocess.Popen(
            [str(startable / "serve.sh")], stdout=log, stderr=log, cwd="/",
            env={
                **os.environ, **programs.environment(),
                "TENSORFLOW_MODEL_SERVER": str(stand_in(tmp_path)),
                "GRPC_PORT": str(port), "REST_PORT": str(rest),
            },
        )
    try:
        check_answers(
            port, rest, lambda: ("crash", (tmp_path / "log").read_text()) if server.poll() else None
        )
        assert os.sched_getaffinity(server.pid) == {0}
    finally:
        server.kill()
        server.wait()


def test_compose_and_kubernetes_start_containers_that_answer(
    docker_engine: engine.Engine, startable: Path
) -> None:
    """The files say all: only the stand-in's own interpreter is mounted beside what they mount.

    Both start at the same time, since each takes seconds.
    """
    if docker_engine.no_bridge is not None:
        pytest.skip(docker_engine.no_bridge)
    with ExitStack() as stack:
        client = stack.enter_context(closing(docker_client(docker_engine.url)))
        client.images.get(engine.SERVING_BRIDGED).tag(export.IMAGE)
        started = [
            (*ports, stack.enter_context(running(client, docker_engine, **options)))
            for ports, options in (composed(startable), orchestrated(startable))
        ]
        for grpc_port, rest_port, container in started:
            check_answers(grpc_port, rest_port, lambda c=container: ended(c))
        composed_container = started[0][2]
        probe = service_of(startable)["healthcheck"]["test"]
        assert probe[0] == "CMD" and composed_container.exec_run(probe[1:]).exit_code == 0
        host = composed_container.attrs["HostConfig"]
        assert (host["CpusetCpus"], host["NanoCpus"], host["Memory"]) == (
            "0", 900_000_000, 2048 << 20
        )


def composed(folder: Path) -> tuple[tuple[int, int], dict[str, Any]]:
    """The compose file's service, as the engine's options; every key of it is used."""
    service = dict(service_of(folder))
    ports = {"GRPC_PORT": free_port(), "REST_PORT": free_port()}
    published = {}
    for text in service.pop("ports"):
        address, name, inside = re.fullmatch(r"([\d.]+):\$\{(\w+):-\d+\}:(\d+)", text).groups()
        published[f"{inside}/tcp"] = (address, ports[name])
    volumes = []
    for volume in service.pop("volumes"):
        here, there, mode = volume.split(":")
        volumes.append(f"{(folder / here).resolve()}:{there}:{mode}")
    assert service.pop("restart") == "unless-stopped" and service.pop("healthcheck")
    options = {
        "image": service.pop("image"), "command": service.pop("command"), "ports": published,
        "volumes": volumes, "environment": service.pop("environment"),
        "cpuset_cpus": re.fullmatch(r"\$\{CPUS:-([\d,-]+)\}", service.pop("cpuset"))[1],
        "nano_cpus": int(service.pop("cpus") * 1e9),
        "mem_limit": service.pop("mem_limit"), "memswap_limit": service.pop("memswap_limit"),
    }
    assert service == {}
    return (ports["GRPC_PORT"], ports["REST_PORT"]), options


def orchestrated(folder: Path) -> tuple[tuple[int, int], dict[str, Any]]:
    """The manifest's container, with a ConfigMap and a claim made of folders."""
    config, deployment, _ = manifests_of(folder)
    container = container_of(folder)
    mounted = folder.parent / "configmap"
    mounted.mkdir(exist_ok=True)
    for name, text in config["data"].items():
        (mounted / name).write_text(text)
    sources = {"configMap": mounted, "persistentVolumeClaim": folder / "models"}
    volumes = {
        volume["name"]: next(sources[kind] for kind in volume if kind in sources)
        for volume in deployment["spec"]["template"]["spec"]["volumes"]
    }
    ports = {"grpc": free_port(), "rest": free_port()}
    return (ports["grpc"], ports["rest"]), {
        "image": container["image"], "command": container["args"],
        "environment": {one["name"]: one["value"] for one in container["env"]},
        "ports": {
            f"{p['containerPort']}/tcp": ("127.0.0.1", ports[p["name"]])
            for p in container["ports"]
        },
        "volumes": [f"{volumes[m['name']]}:{m['mountPath']}:ro" for m in container["volumeMounts"]],
    }


@contextmanager
def running(client: Any, docker_engine: engine.Engine, **options: Any) -> Iterator[Any]:
    mounts = [f"{here}:{there}:ro" for here, there in docker_engine.binds.items()]
    container = client.containers.run(
        detach=True,
        **{
            **options,
            "volumes": [*options["volumes"], *mounts],
            "environment": {**programs.environment(), **options["environment"]},
        },
    )
    try:
        yield container
    finally:
        container.remove(force=True)


def ended(container: Any) -> tuple[str, str] | None:
    container.reload()
    if container.status in ("created", "running"):
        return None
    return "crash", container.logs().decode(errors="replace")
