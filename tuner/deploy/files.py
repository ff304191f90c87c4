"""The one code path from a configuration to the server's command line, files and environment.

Every deployer and the export use it, so what was measured is what is exported.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath

from tuner.deploy.allocators import preload
from tuner.deploy.base import ModelToServe
from tuner.deploy.batching import batching_parameters, max_batch_size
from tuner.deploy.knob import FLAG
from tuner.deploy.knobs import ELSEWHERE, KNOBS, has_effect, knob_value, nearest
from tuner.errors import UsageError
from tuner.measurement import Configuration

BATCHING_FILE = "batching_parameters.txt"
MODELS_FILE = "models.config"
MONITORING_FILE = "monitoring.config"
METRICS_PATH = "/monitoring/prometheus/metrics"

_MONITORING = f'prometheus_config {{\n  enable: true\n  path: "{METRICS_PATH}"\n}}\n'
_MOST_THREADS = 512


@dataclass(frozen=True)
class ServerFiles:
    """Everything that makes a server out of a configuration, before it is started.

    ``flags`` are ``(name, value)`` in order; paths in them are as the server will see them.
    """

    flags: tuple[tuple[str, str], ...]
    texts: Mapping[str, str]
    """File name -> text, to be written into the folder that the flags point to."""
    environment: Mapping[str, str] = field(default_factory=dict)
    model_names: tuple[str, ...] = ()
    """Names that the tuned model answers under: one for each copy."""
    other_names: tuple[str, ...] = ()

    @property
    def arguments(self) -> list[str]:
        """The flags as arguments, ``--name=value``."""
        return [f"--{name}={value}" for name, value in self.flags]

    def write(self, folder: Path) -> None:
        """Write the files into a folder that exists."""
        for name, text in self.texts.items():
            (folder / name).write_text(text, encoding="utf-8")


def check_configuration(configuration: Configuration) -> None:
    """Raise ``UsageError`` for an unknown knob, a wrong value or a combination the server refuses."""
    for name, value in configuration.items():
        if name in ELSEWHERE and name not in KNOBS:
            continue
        problem = KNOBS[name].problem(value) if name in KNOBS else nearest(name)
        if problem:
            raise UsageError(problem)
    threads = ("session", "intra_op", "inter_op")
    if all(configuration.get(f"tensorflow_{kind}_parallelism") for kind in threads):
        raise UsageError(
            "tensorflow_session_parallelism sets both thread counts: leave it out where "
            "tensorflow_intra_op_parallelism and tensorflow_inter_op_parallelism are set"
        )


def copies(model: ModelToServe, configuration: Configuration) -> tuple[str, ...]:
    """Names of the model's copies: ``m`` alone, or ``m``, ``m_2``, ``m_3`` …"""
    count = int(knob_value(configuration, "model_copies") or 1)
    return (model.name, *(f"{model.name}_{i}" for i in range(2, count + 1)))


def grpc_threads(configuration: Configuration, cpus: int) -> int:
    """``grpc_max_threads`` where the configuration leaves it open.

    Each request in flight holds a thread, so batches of one-row requests cannot grow past it and
    beyond it requests are refused: at least TensorFlow Serving's 4 x CPUs, two batches' worth, 64.
    """
    batches = 2 * max_batch_size(configuration) if configuration.get("enable_batching") else 0
    return max(4 * cpus, min(batches, _MOST_THREADS), 64)


def server_files(
    configuration: Configuration,
    model: ModelToServe,
    others: Sequence[ModelToServe] = (),
    *,
    folder: PurePath,
    grpc_port: int,
    rest_port: int | None = None,
    monitoring: bool = False,
    cpus: int | None = None,
) -> ServerFiles:
    """Turn a configuration into flags, files and environment.

    Args:
        configuration: knobs and fixed settings; knobs without meaning here are left out.
        model: the tuned model; its ``base_path`` as the server will see it.
        folder: where the server will find the files.
        rest_port: the REST port; ``None`` leaves REST off.
        monitoring: serve Prometheus metrics on the REST port.
        cpus: CPUs that the server will see, for defaults that follow them; default: this machine's.

    Raises:
        UsageError: an unknown knob, a wrong value, or ``rest`` without a REST port.
    """
    check_configuration(configuration)
    names = copies(model, configuration)
    texts: dict[str, str] = {}
    flags: list[tuple[str, str]] = [("port", str(grpc_port))]
    if rest_port is not None:
        flags.append(("rest_api_port", str(rest_port)))
    elif monitoring or knob_value(configuration, "protocol") == "rest":
        raise UsageError("the REST port must be given for protocol rest and for monitoring")
    if len(names) + len(others) == 1:
        flags += [("model_name", model.name), ("model_base_path", str(model.base_path))]
    else:
        served = [ModelToServe(name, model.base_path) for name in names]
        texts[MODELS_FILE] = models_config([*served, *others])
        flags.append(("model_config_file", str(folder / MODELS_FILE)))
    # A model that cannot load ends the trial at once; the defaults would try for five minutes.
    flags += [("max_num_load_retries", "0")]
    if monitoring:
        texts[MONITORING_FILE] = _MONITORING
        flags.append(("monitoring_config_file", str(folder / MONITORING_FILE)))
    batching = batching_parameters(configuration)
    for name, knob in KNOBS.items():
        if knob.applied == FLAG and name in configuration and has_effect(name, configuration):
            flags.append((name, _text(configuration[name])))
    if batching is not None:
        texts[BATCHING_FILE] = batching
        flags.append(("batching_parameters_file", str(folder / BATCHING_FILE)))
    if "grpc_max_threads" not in configuration:
        seen = cpus or int(configuration.get("cpus", 0)) or len(os.sched_getaffinity(0))
        flags.append(("grpc_max_threads", str(grpc_threads(configuration, seen))))
    return ServerFiles(
        flags=tuple(flags),
        texts=texts,
        environment=environment(configuration),
        model_names=names,
        other_names=tuple(other.name for other in others),
    )


def environment(configuration: Configuration) -> dict[str, str]:
    """Variables of the server's process; only what the configuration names is set."""
    variables = {}
    if "onednn" in configuration:
        variables["TF_ENABLE_ONEDNN_OPTS"] = "1" if configuration["onednn"] else "0"
    variables.update(preload(str(knob_value(configuration, "allocator"))))
    return variables


def models_config(models: Sequence[ModelToServe]) -> str:
    """A ``ModelServerConfig`` text for several models."""
    entries = "".join(
        f'  config {{\n    name: "{_escaped(model.name)}"\n'
        f'    base_path: "{_escaped(str(model.base_path))}"\n'
        f'    model_platform: "tensorflow"\n  }}\n'
        for model in models
    )
    return f"model_config_list {{\n{entries}}}\n"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')


def _text(value: object) -> str:
    return ("true" if value else "false") if isinstance(value, bool) else str(value)
