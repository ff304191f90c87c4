"""Gathers the exported files: one folder that a person can read, change, move and start."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from tuner.deploy.allocators import SONAMES
from tuner.deploy.base import ModelToServe
from tuner.deploy.files import ServerFiles, server_files
from tuner.deploy.knobs import KNOBS
from tuner.errors import UsageError
from tuner.measurement import Configuration, Scalar

IMAGE = "tensorflow/serving:2.19.1"
"""The image that the files name unless told otherwise; it has not been run by this project."""
GRPC_PORT, REST_PORT = 8500, 8501
CONFIG = PurePosixPath("/config")
"""Where the files are mounted in a container."""
MODELS = PurePosixPath("/models")
"""Where models are mounted in a container: ``/models/<name>``."""
MODELS_FOLDER = "models"
"""Where the model lies in the exported folder: ``models/<name>/<version>``."""
MARK = "README.md"
"""A folder that holds this file with ``FIRST_WORDS`` is an export, and may be replaced."""
FIRST_WORDS = "<!-- written by tuner export -->"


@dataclass(frozen=True)
class LimitKept:
    """A service level, and how probable it is that the configuration keeps it."""

    limit: str
    """As ``latency_p99_ms <= 50``."""
    probability: float | None
    assumed: bool = False
    """Whether an end of the interval is not known, so that the probability rests on an assumption."""


@dataclass(frozen=True)
class Measured:
    """What one trial gave, or what is known of its configuration from all of its measurements."""

    trial: int
    metrics: Mapping[str, float | None]
    """Metric -> value, units in the names."""
    intervals: Mapping[str, tuple[float, float | None]] = field(default_factory=dict)
    """Metric -> 95 % confidence interval, where it is known; ``None``: no upper end is."""
    limits: Sequence[LimitKept] = ()
    trials: Sequence[int] = ()
    """Trials of the configuration."""
    later: int = 0
    """Later measurements (``tuner measure``) in the numbers."""
    later_s: float | None = None
    """Seconds of those that stand for the trials, which were shorter; ``None``: all are pooled."""
    failed: int = 0
    """How many of all these failed."""
    disturbed: Sequence[str] = ()
    """In words what disturbed the measurements behind the numbers."""
    warnings: Sequence[str] = ()
    """What speaks against running the configuration."""
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class About:
    """Where a configuration comes from and what was measured; all of it goes into the README."""

    study: str
    measured: Measured
    others: Sequence[Measured] = ()
    """Further trials of the same configuration."""
    environment: Mapping[str, Any] = field(default_factory=dict)
    """What was held fixed: machine, deployer, load, energy source."""
    provenance: Mapping[str, Any] = field(default_factory=dict)
    """When, with which versions and seeds."""
    measured_on: Sequence[int] = ()
    """Numbers of the CPUs that the server had; empty where that is not known, or it had all."""


@dataclass(frozen=True)
class Bundle:
    """What the writers of single files share."""

    configuration: Configuration
    model: ModelToServe
    server: ServerFiles
    """Paths as a container sees them."""
    about: About
    image: str = IMAGE

    @property
    def arguments(self) -> list[str]:
        """Arguments for the image's entry point."""
        return self.server.arguments

    @property
    def cpu_list(self) -> str | None:
        """The CPUs that the server is pinned to, as ``taskset -c`` takes them; ``None``: none.

        Those it was measured on, whose numbers need not begin at 0 (taskset, cpusets, isolcpus).
        """
        cpus = self.knob("cpus")
        if cpus is None:
            return None
        measured = sorted(self.about.measured_on)
        return ranges(measured if len(measured) == int(cpus) else list(range(int(cpus))))

    def knob(self, name: str) -> Scalar | None:
        return self.configuration.get(name)


def ranges(numbers: Sequence[int]) -> str:
    """``0-2,5`` for 0, 1, 2 and 5, which rise."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and number == parts[-1][-1] + 1:
            parts[-1].append(number)
        else:
            parts.append([number])
    return ",".join(f"{part[0]}-{part[-1]}" if len(part) > 1 else str(part[0]) for part in parts)


def write(
    to: Path,
    configuration: Configuration,
    model: ModelToServe,
    about: About,
    *,
    image: str = IMAGE,
    force: bool = False,
) -> list[Path]:
    """Write everything, a copy of the model included, into a folder; returns the files.

    Args:
        to: the folder, new or empty.
        configuration: knobs and fixed settings; settings of the embedded server alone are left out.
        model: the tuned model, its path on this machine.
        about: the trial's origin and numbers.
        image: the image of the compose file and the Kubernetes manifest.
        force: replace an earlier export in the folder.

    Raises:
        UsageError: the folder holds something, is no earlier export, or cannot be written.
    """
    from tuner.export import compose, kubernetes, readme, script

    bundle = gather(configuration, model, about, image)
    texts = {
        **bundle.server.texts,
        "serve.sh": script.text(bundle),
        "compose.yaml": compose.text(bundle),
        "kubernetes.yaml": kubernetes.text(bundle),
        MARK: f"{FIRST_WORDS}\n{readme.text(bundle)}",
    }
    versions = [v for v in sorted(model.base_path.glob("*")) if v.name.isdigit()]
    if not versions:
        raise UsageError(f"model {model.name}: {model.base_path} holds no version of it")
    try:
        _make_room(to, force)
        for name, text in texts.items():
            (to / name).write_text(text, encoding="utf-8")
        (to / "serve.sh").chmod(0o755)
        for version in versions:
            shutil.copytree(version, to / MODELS_FOLDER / model.name / version.name)
    except OSError as error:
        raise UsageError(f"--to {to}: cannot be written: {error.strerror}") from None
    return sorted([to / name for name in texts] + [to / MODELS_FOLDER / model.name])


def _make_room(to: Path, force: bool) -> None:
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        mark = to / MARK
        ours = mark.is_file() and mark.read_text(errors="replace").startswith(FIRST_WORDS)
        if not ours:
            raise UsageError(f"--to {to}: exists and is not an empty folder; name a new one")
        if not force:
            raise UsageError(f"--to {to}: holds an earlier export; --force replaces it")
        shutil.rmtree(to)
    to.mkdir(parents=True, exist_ok=True)


def gather(
    configuration: Configuration, model: ModelToServe, about: About, image: str = IMAGE
) -> Bundle:
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
    return Bundle(real, model, server, about, image)
