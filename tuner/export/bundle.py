"""Gathers the exported files: one folder that a person can read, change and start."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from tuner.deploy.allocators import SONAMES
from tuner.deploy.base import ModelToServe
from tuner.deploy.files import MODELS_FILE, ServerFiles, models_config, server_files
from tuner.deploy.knobs import KNOBS
from tuner.errors import UsageError
from tuner.measurement import Configuration, Scalar

GRPC_PORT, REST_PORT = 8500, 8501
CONFIG = PurePosixPath("/config")
"""Where the files are mounted in a container."""
MODELS = PurePosixPath("/models")
"""Where models are mounted in a container: ``/models/<name>``."""


@dataclass(frozen=True)
class About:
    """Where a configuration comes from and what was measured; all of it goes into the README."""

    study: str
    trial: int
    numbers: Mapping[str, float | None] = field(default_factory=dict)
    """Metric -> value, units in the names."""
    environment: Mapping[str, Any] = field(default_factory=dict)
    """What was held fixed: machine, deployer, load, energy source."""


@dataclass(frozen=True)
class Bundle:
    """What the writers of single files share."""

    configuration: Configuration
    model: ModelToServe
    server: ServerFiles
    """Paths as a container sees them."""
    about: About

    @property
    def arguments(self) -> list[str]:
        """Arguments for the image's entry point."""
        return self.server.arguments

    def knob(self, name: str) -> Scalar | None:
        return self.configuration.get(name)


def write(to: Path, configuration: Configuration, model: ModelToServe, about: About) -> list[Path]:
    """Write everything into a folder that is new or empty; returns the files.

    Args:
        to: the folder.
        configuration: knobs and fixed settings; settings of the embedded server alone are left out.
        model: the tuned model, its path on this machine.
        about: the trial's origin and numbers.

    Raises:
        UsageError: the folder holds something, or cannot be written.
    """
    from tuner.export import compose, kubernetes, readme, script

    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise UsageError(f"--to {to}: exists and is not an empty folder")
    bundle = gather(configuration, model, about)
    texts = {
        **bundle.server.texts,
        "serve.sh": script.text(bundle),
        "compose.yaml": compose.text(bundle),
        "kubernetes.yaml": kubernetes.text(bundle),
        "README.md": readme.text(bundle),
    }
    if MODELS_FILE in texts:
        texts[script.LOCAL_MODELS] = models_config(
            [ModelToServe(name, model.base_path.absolute()) for name in bundle.server.model_names]
        )
    try:
        to.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            (to / name).write_text(text, encoding="utf-8")
        (to / "serve.sh").chmod(0o755)
    except OSError as error:
        raise UsageError(f"--to {to}: cannot be written: {error.strerror}") from None
    return sorted(to / name for name in texts)


def gather(configuration: Configuration, model: ModelToServe, about: About) -> Bundle:
    """The bundle of a configuration, by the code path that the deployers use."""
    real = {k: v for k, v in configuration.items() if k in KNOBS and not KNOBS[k].ours}
    allocator = str(real.pop("allocator", "system"))
    in_container = ModelToServe(model.name, Path(MODELS / model.name))
    server = server_files(
        real, in_container, folder=CONFIG,
        grpc_port=GRPC_PORT, rest_port=REST_PORT, monitoring=True,
    )
    environment = dict(server.environment)
    if allocator != "system":
        # By name, not by this machine's path: the linker of the image finds it there.
        environment["LD_PRELOAD"] = SONAMES[allocator][0]
        real["allocator"] = allocator
    server = ServerFiles(
        server.flags, server.texts, environment, server.model_names, server.other_names
    )
    return Bundle(real, model, server, about)
