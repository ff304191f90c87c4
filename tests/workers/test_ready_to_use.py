"""The manifest and the script in docs/ are valid, and say what the command line understands."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml

from tuner.cli import build_parser

SBATCH = {
    "job-name": r"[\w-]+", "array": r"\d+-\d+(%\d+)?", "nodes": r"\d+", "ntasks": r"\d+",
    "exclusive": None, "time": r"\d\d:\d\d:\d\d", "signal": r"(B:)?[A-Z0-9]+@\d+", "requeue": None,
    "open-mode": "append|truncate", "output": r"[\w%.-]+",
}
"""The options used, of sbatch's manual page, and what their values look like."""


@pytest.fixture
def job(root: Path) -> dict:
    return yaml.safe_load((root / "docs" / "kubernetes-workers.yaml").read_text())


@pytest.fixture
def script(root: Path) -> Path:
    return root / "docs" / "slurm.sh"


def commands(text: str) -> list[list[str]]:
    """The arguments of every call of tuner in a shell script."""
    found = re.findall(r"(?:exec|srun) tuner (.*)", text)
    return [shlex.split(re.sub(r"\$\w+", "x", arguments)) for arguments in found]


def test_the_manifest_is_a_job_by_kubernetes_own_schema(job: dict) -> None:
    validator = pytest.importorskip(
        "kubernetes_validate", reason="skipped: needs the package kubernetes-validate"
    )
    validator.validate(job, validator.latest_version(), strict=True)


def test_every_pod_gets_a_node_of_its_own_and_the_url_from_a_secret(job: dict) -> None:
    pod = job["spec"]["template"]
    (rule,) = pod["spec"]["affinity"]["podAntiAffinity"][
        "requiredDuringSchedulingIgnoredDuringExecution"
    ]
    assert rule["topologyKey"] == "kubernetes.io/hostname"
    assert rule["labelSelector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
    (container,) = pod["spec"]["containers"]
    environment = {e["name"]: e for e in container["env"]}
    assert "secretKeyRef" in environment["TUNER_STORAGE"]["valueFrom"]
    assert environment["TUNER_HOST"]["valueFrom"]["fieldRef"]["fieldPath"] == "spec.nodeName"
    assert "postgresql://" not in str(container)
    assert container["resources"]["requests"] == container["resources"]["limits"]


def test_the_manifests_commands_are_understood(job: dict) -> None:
    (container,) = job["spec"]["template"]["spec"]["containers"]
    found = [build_parser().parse_args(c) for c in commands(container["args"][0])]
    assert [f.command for f in found] == ["study", "worker"]
    assert found[0].name == found[1].study


def test_the_slurm_script_is_one_and_its_commands_are_understood(script: Path) -> None:
    subprocess.run(["bash", "-n", script], check=True)
    found = [build_parser().parse_args(c) for c in commands(script.read_text())]
    assert [f.command for f in found] == ["study", "worker"]
    assert found[0].name == found[1].study


def test_the_slurm_scripts_directives_are_sbatchs(script: Path) -> None:
    lines = script.read_text().splitlines()
    directives = [l.removeprefix("#SBATCH ") for l in lines if l.startswith("#SBATCH")]
    first_command = next(i for i, l in enumerate(lines) if l and not l.startswith("#"))
    last_directive = max(i for i, l in enumerate(lines) if l.startswith("#SBATCH"))
    assert last_directive < first_command
    given = {}
    for directive in directives:
        name, _, value = directive.removeprefix("--").partition("=")
        assert name in SBATCH, name
        assert value == "" if SBATCH[name] is None else re.fullmatch(SBATCH[name], value), directive
        given[name] = value
    assert {"array", "exclusive"} <= set(given) and given["nodes"] == "1"
